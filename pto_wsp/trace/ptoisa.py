"""`@ptoisa_kernel`: kernels written as tile instructions, with every load and store spelled out.

The instructions are rows of the same op table as `pto.*`, so these kernels compile, interpret and print like all
others. The body runs once, at decoration.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

from pto_wsp.errors import OperandError, TileUseError, UsageError, show_user_frames
from pto_wsp.scalar_expr import task_param
from pto_wsp.trace import c_expr, tile
from pto_wsp.trace.custom import checked_includes
from pto_wsp.trace.graph import KernelGraph, Node, Param, build, number_as
from pto_wsp.trace.kernel import Kernel
from pto_wsp.trace.ops import OPS
from pto_wsp.trace.source import where
from pto_wsp.trace.tile import Tracer, Value
from pto_wsp.types import DType, ScalarType, TileType

__all__ = ["IsaKernel", "ScalarParam", "TileParam", "ptoisa", "ptoisa_kernel"]


# ---- what the body is given --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class TileParam:
    """A tile parameter: `ptoisa.tload(param)` and `ptoisa.tstore(param, value)` move data, nothing else takes it."""

    name: str
    spec: TileType
    value: Value


@dataclass(frozen=True, eq=False)
class ScalarParam:
    """A scalar parameter, an operand of T...S instructions. In C expressions write its name: f"{n.name} * 2"."""

    name: str
    dtype: DType
    value: Value

    def __str__(self) -> str:
        return self.name


class IsaKernel(Kernel):
    """A kernel made of tile instructions."""

    def __init__(self, func: Callable[..., Any], options: dict[str, Any] | None = None) -> None:
        super().__init__(func, options)
        for param in self.params:
            if param.kind not in ("tile", "scalar") or param.why_not():
                raise TileUseError(
                    f"@ptoisa_kernel {self.name}: parameter {param.name!r} {param.why_not() or 'is Constexpr'}."
                    " Annotate it Tile[rows, cols, dtype] (in In, Out or InOut) or Scalar[dtype]."
                ).at(self.line)
        self.graph_for({})

    def run(self, tracer: Tracer, constexprs: Mapping[str, Any]) -> None:
        """Run the body on values of `tracer`."""
        tracer.takes_instructions = True
        super().run(tracer, constexprs)

    def proxy(self, value: Value) -> Any:
        """What the body gets for a parameter."""
        assert value.param is not None
        if isinstance(value.type, TileType):
            return TileParam(value.param.name, value.type, value)
        return ScalarParam(value.param.name, value.dtype, value)

    def trace(self, *args: Any, **kwargs: Any) -> KernelGraph:
        """The graph made at decoration."""
        return self.graph


@overload
def ptoisa_kernel(func: Callable[..., Any]) -> IsaKernel: ...
@overload
def ptoisa_kernel(
    func: None = None, *, cpp_includes: list[str] | None = None
) -> Callable[[Callable[..., Any]], IsaKernel]: ...


def ptoisa_kernel(func: Callable[..., Any] | None = None, *, cpp_includes: list[str] | None = None) -> Any:
    """A function over tile instructions, as a kernel; it runs once, now.

    raises  TypeError for parameters that are neither Tile nor Scalar
    """
    options = {} if cpp_includes is None else {"cpp_includes": checked_includes(cpp_includes)}
    if func is None:
        return lambda f: ptoisa_kernel(f) if cpp_includes is None else _make(f, options)
    return _make(func, options)


def _make(func: Any, options: dict[str, Any]) -> IsaKernel:
    if not callable(func) or isinstance(func, type):
        raise UsageError(f"@ptoisa_kernel decorates a function; got {func!r}.").at(where())
    with show_user_frames():
        return IsaKernel(func, options)


# ---- instructions ------------------------------------------------------------------------------------------------

BINARY = {"TADD": "add", "TSUB": "sub", "TMUL": "mul", "TDIV": "div", "TMAX": "maximum", "TMIN": "minimum"}
UNARY = {
    "TEXP": "exp",
    "TRSQRT": "rsqrt",
    "TSQRT": "sqrt",
    "TLOG": "log",
    "TNEG": "neg",
    "TABS": "abs",
    "TRELU": "relu",
    "TROWSUM": "rowsum",
    "TROWMAX": "rowmax",
    "TROWMIN": "rowmin",
}
SCALAR = {f"{name}S": op for name, op in BINARY.items()}
ROW = {f"TROWEXPAND{name[1:]}": op for name, op in BINARY.items()}
COLUMN = {f"TCOLEXPAND{name[1:]}": op for name, op in BINARY.items()}


class Instructions:
    """The instructions that are not one row of the op table each."""

    def tload(self, param: Any) -> Value:
        """The content of a tile parameter; one cycle per element."""
        tracer = _tracer("tload")
        return Value(tracer, tracer.read(_tile_param(param, "tload"), "here", where()))

    def tstore(self, param: Any, value: Any) -> None:
        """Write a tile to a parameter of its shape; elements are converted as C does. One cycle per element."""
        tracer, dst, line = _tracer("tstore"), _tile_param(param, "tstore"), where()
        src = _value(tracer, value, "tstore", "value")
        if src.type.dtype.bits == dst.type.dtype.bits and src.dtype is not dst.type.dtype:  # part of the store itself
            (cast,) = build(OPS["cast"], (src.node,), {"dtype": dst.type.dtype, "by": "promotion"}, line)
            tracer.append(cast)
            src = Value(tracer, cast)
        tracer.store(param.value, src, line)

    def TMOV(self, a: Any) -> Value:
        """A copy; one cycle per element."""
        tracer = _tracer("TMOV")
        return _cast(tracer, _value(tracer, a, "TMOV", "a"), None)

    def TCVT(self, a: Any, dtype: DType) -> Value:
        """a in another dtype; one cycle per element."""
        tracer = _tracer("TCVT")
        return _cast(tracer, _value(tracer, a, "TCVT", "a"), dtype)

    def TSORT32(self, src: Any, idx: Any) -> Value:
        """(score, index) pairs [1, 64] by descending score, of f32 [1, 32] and u32 [1, 32]; 160 cycles."""
        return _emit("TSORT32", "tsort32", [src, idx], {})

    def iota_u32(self, cols: int) -> Value:
        """0 to cols-1 as u32 [1, cols]; free."""
        return _emit("iota_u32", "iota_u32", [], tile.plain_attrs(OPS["iota_u32"], {"cols": cols}, where()))

    def store_topk_indices_i32(self, param: Any, pairs: Any, k: int) -> None:
        """Write the first k indices of sorted pairs into the one row of an i32 parameter; free.

        raises  ValueError unless 1 <= k <= cols <= 32 and the parameter is i32 [1, cols]
        """
        name, line = "store_topk_indices_i32", where()
        tracer, dst = _tracer(name), _tile_param(param, name)
        spec, sorted_pairs = dst.node.tile, _value(tracer, pairs, name, "pairs")
        if (
            spec.rows != 1
            or spec.dtype is not DType.I32
            or not hasattr(k, "__index__")
            or not 1 <= k.__index__() <= spec.cols <= 32
        ):
            raise OperandError(
                f"{name} writes k of 1 to 32 indices into a tile [1, k] of i32; got k = {k!r} and {param.name}:"
                f" {spec}."
            ).at(line)
        first = len(tracer.body)
        indices = _emit(name, "extract_topk_indices", [sorted_pairs], {"k": spec.cols})
        if k < spec.cols:  # what is behind them stays as it was
            old = build(OPS["load"], (dst.node,), {"at": "here"}, line)[-1]
            tracer.append(old)
            chosen = tracer.operation(OPS["lt"], [_emit(name, "iota_u32", [], {"cols": spec.cols}), k], {}, line)
            tracer.store(
                param.value, tracer.operation(OPS["select"], [chosen, indices, Value(tracer, old)], {}, line), line
            )
        else:
            tracer.store(param.value, indices, line)
        _add_cycles(tracer, -_static_cycles(tracer.body[first:]))

    def cpu_sim_add_cycles(self, cycles: Any) -> None:
        """Add simulated cycles: an int, an integer scalar parameter, or a C expression of those as text."""
        tracer, line = _tracer("cpu_sim_add_cycles"), where()
        if isinstance(cycles, ScalarParam):
            cycles = cycles.name
        if isinstance(cycles, str):
            leaves = {p.name: p for p in tracer.params if isinstance(p.type, ScalarType) and p.type.dtype.is_int}
            try:
                c_expr.to_expr(c_expr.parse(cycles), {name: task_param(0) for name in leaves})
            except OperandError as error:
                error.at(line)
                raise
        elif isinstance(cycles, bool) or not hasattr(cycles, "__index__") or cycles.__index__() < 0:
            raise TileUseError(
                "cpu_sim_add_cycles takes an int of 0 or more, a scalar parameter, or a C expression; got"
                f" {cycles!r}."
            ).at(line)
        _add_cycles(tracer, cycles if isinstance(cycles, str) else cycles.__index__())


def _tracer(name: str) -> Tracer:
    tracer = tile.current()
    if tracer is None or not tracer.takes_instructions:
        found = f"{tracer.name} is a @kernel, its operations are pto.*" if tracer else "here no kernel is traced"
        raise UsageError(
            f"ptoisa.{name} is an instruction: it belongs inside a @ptoisa_kernel function; {found}."
        ).at(where())
    return tracer


def _tile_param(param: Any, name: str) -> Param:
    if not isinstance(param, TileParam):
        raise TileUseError(f"{name} takes a tile parameter of the kernel; got {_shown(param)}.").at(where())
    assert param.value.param is not None
    return param.value.param


def _value(tracer: Tracer, value: Any, name: str, operand: str) -> Value:
    if not isinstance(value, Value) or not isinstance(value.type, TileType):
        hint = f" Load it first: ptoisa.tload({value.name})." if isinstance(value, TileParam) else ""
        raise TileUseError(
            f"{name} takes a tile value, as tload or another instruction makes, as {operand}; got"
            f" {_shown(value)}.{hint}"
        ).at(where())
    tracer.own(value, where())
    return value


def _shown(value: Any) -> str:
    if isinstance(value, TileParam):
        return f"the parameter {value.name}"
    return f"the scalar {value.name}" if isinstance(value, ScalarParam) else repr(value)


def _emit(name: str, op: str, operands: Sequence[Any], attrs: Mapping[str, Any]) -> Value:
    tracer = _tracer(name)
    checked = [_value(tracer, v, name, OPS[op].operand_names[i]) for i, v in enumerate(operands)]
    made = tracer.operation(OPS[op], checked, attrs, where())
    assert made is not None
    return made


def _cast(tracer: Tracer, a: Value, dtype: DType | None) -> Value:
    made = tracer.operation(OPS["cast"], [a], {"dtype": a.dtype if dtype is None else dtype, "by": "user"}, where())
    assert made is not None
    return made


def _add_cycles(tracer: Tracer, cycles: int | str) -> None:
    if cycles:
        tracer.append(build(OPS["add_cycles"], (), {"cycles": cycles}, where())[-1])


def _static_cycles(nodes: Sequence[Node]) -> int:
    """Cycles of some nodes on full tiles."""
    total = 0
    for node in nodes:
        for coefficient, dims in node.op.cycles(node, ()):
            for value, axis in dims:
                coefficient *= value.tile.shape[axis]
            total += coefficient
    return total


def _same_spec(name: str, op: str) -> Callable[..., Value]:
    def instruction(a: Any, b: Any) -> Value:
        with show_user_frames():
            tracer = _tracer(name)
            x, y = _value(tracer, a, name, "a"), _value(tracer, b, name, "b")
            if x.type != y.type:
                raise OperandError(
                    f"{name} needs two tiles of one type; got {x.type} and {y.type}.{_expand_hint(name, x, y)}"
                ).at(where())
            return _emit(name, op, [x, y], {})

    return _documented(instruction, name, f"{OPS[op].doc} Both of one type.")


def _expand_hint(name: str, x: Value, y: Value) -> str:
    if (y.rows, y.cols) == (x.rows, 1):
        return f" For one value per row use {name.replace('T', 'TROWEXPAND', 1)}."
    return (
        f" For one value per column use {name.replace('T', 'TCOLEXPAND', 1)}."
        if (y.rows, y.cols) == (1, x.cols)
        else ""
    )


def _with_scalar(name: str, op: str) -> Callable[..., Value]:
    def instruction(a: Any, s: Any) -> Value:
        with show_user_frames():
            tracer, line = _tracer(name), where()
            x = _value(tracer, a, name, "a")
            if isinstance(s, TileParam) or isinstance(s, Value) and s.shape is not None:
                raise TileUseError(
                    f"{name} takes a number, a scalar parameter or a C expression as s; got {_shown(s)}."
                ).at(line)
            made = tracer.operation(OPS[op], [x, _scalar(tracer, s)], {}, line)
            assert made is not None
            return made

    return _documented(
        instruction, name, f"{OPS[op].doc} y is a number, a scalar parameter, or a C expression of those as text."
    )


def _scalar(tracer: Tracer, s: Any) -> Any:
    """A scalar operand: a number, or a value of the graph."""
    if isinstance(s, ScalarParam):
        return s.value
    if not isinstance(s, str):
        return s
    params = {p.name: Value(tracer, p.node, p) for p in tracer.params if isinstance(p.type, ScalarType)}
    try:
        return _c_value(c_expr.parse(s), params, tracer)
    except OperandError as error:
        error.at(where())
        raise


def _with_vector(name: str, op: str, shape: Callable[[Value], tuple[int, int]], wanted: str) -> Callable[..., Value]:
    def instruction(a: Any, b: Any) -> Value:
        with show_user_frames():
            tracer = _tracer(name)
            x, y = _value(tracer, a, name, "a"), _value(tracer, b, name, "b")
            if y.shape != shape(x) or y.dtype is not x.dtype:
                raise OperandError(
                    f"{name} needs b of type {TileType(*shape(x), x.dtype)}, {wanted}; got {y.type}."
                ).at(where())
            return _emit(name, op, [x, y], {})

    return _documented(instruction, name, f"{OPS[op].doc} y is {wanted}.")


def _unary(name: str, op: str) -> Callable[..., Value]:
    def instruction(a: Any) -> Value:
        with show_user_frames():
            return _emit(name, op, [a], {})

    return _documented(instruction, name, OPS[op].doc)


def _documented(function: Callable[..., Value], name: str, doc: str) -> Callable[..., Value]:
    function.__name__, function.__qualname__, function.__doc__ = name, f"ptoisa.{name}", doc
    names = [p.replace(annotation=p.empty) for p in inspect.signature(function).parameters.values()]
    function.__signature__ = inspect.Signature(names)  # type: ignore[attr-defined]
    return function


def _guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    def instruction(*args: Any, **kwargs: Any) -> Any:
        with show_user_frames():
            return method(*args, **kwargs)

    instruction.__wrapped__ = method  # type: ignore[attr-defined]
    return _documented(instruction, method.__name__, method.__doc__ or "")


# ---- C expressions as operands -----------------------------------------------------------------------------------

_RANK = (DType.I64, DType.U64, DType.F32, DType.F64)  # C's usual conversions, in 64 bits
_ARITHMETIC = {"+": "add", "-": "sub", "*": "mul", "/": "div"}
_COMPARISONS = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne"}


def _c_value(tree: c_expr.Tree, params: Mapping[str, Value], tracer: Tracer) -> Any:
    """A C expression of scalar parameters as a number, or a scalar of the graph."""
    kind = tree[0]
    if kind == "number":
        return tree[1]
    if kind == "name":
        if tree[1] not in params:
            raise OperandError(
                f"{tree[1]!r} is no scalar parameter of the kernel; there are: {', '.join(params) or 'none'}."
            )
        return params[tree[1]]
    if kind == "cast":
        return _c_convert(
            _c_value(tree[2], params, tracer), DType.U8 if tree[1] == "bool" else DType(tree[1]), tracer
        )
    parts = [_c_value(t, params, tracer) for t in tree if isinstance(t, tuple)]
    if kind == "unary" and tree[1] == "!":
        return _c_apply("eq", [*parts, 0], tracer)
    if kind == "unary":
        return parts[0] if tree[1] == "+" else _c_apply("sub", [0, *parts], tracer)
    if kind == "if":
        return _c_apply("select", [_c_apply("ne", [parts[0], 0], tracer), *parts[1:]], tracer)
    op, (x, y) = tree[1], parts
    if op in ("&&", "||"):
        truths = [_c_apply("ne", [p, 0], tracer) for p in (x, y)]
        return _c_apply("minimum" if op == "&&" else "maximum", truths, tracer)
    if op == "%":
        return _c_apply("sub", [x, _c_apply("mul", [_c_apply("div", [x, y], tracer), y], tracer)], tracer)
    return _c_apply({**_ARITHMETIC, **_COMPARISONS}[op], [x, y], tracer)


def _c_apply(op: str, operands: list[Any], tracer: Tracer) -> Value:
    """One operation between numbers and scalars, in the type that C would choose."""
    mask, rest = (operands[:1], operands[1:]) if op == "select" else ([], operands)
    rank = max(_RANK.index(_c_type(v)) for v in rest)
    made = tracer.operation(OPS[op], [*mask, *(_c_convert(v, _RANK[rank], tracer) for v in rest)], {}, where())
    assert made is not None
    return made


def _c_type(value: Any) -> DType:
    if not isinstance(value, Value):
        return DType.F64 if isinstance(value, float) else DType.I64 if value < 1 << 63 else DType.U64
    if value.dtype.is_float:
        return DType.F64 if value.dtype is DType.F64 else DType.F32
    return DType.U64 if value.dtype is DType.U64 else DType.I64


def _c_convert(value: Any, dtype: DType, tracer: Tracer) -> Value:
    line = where()
    if not isinstance(value, Value):
        (node,) = build(OPS["constant"], (), {"value": number_as(value, dtype), "dtype": dtype}, line)
        tracer.append(node)
        return Value(tracer, node)
    if value.dtype is dtype:
        return value
    made = tracer.operation(OPS["cast"], [value], {"dtype": dtype, "by": "promotion"}, line)
    assert made is not None
    return made


def _functions() -> dict[str, Callable[..., Any]]:
    """Every instruction, by name."""
    basic = Instructions()
    made = {name: _guarded(getattr(basic, name)) for name in vars(Instructions) if not name.startswith("_")}
    for table, make in ((BINARY, _same_spec), (UNARY, _unary), (SCALAR, _with_scalar)):
        made |= {name: make(name, op) for name, op in table.items()}
    for name, op in ROW.items():
        made[name] = _with_vector(name, op, lambda x: (x.rows, 1), "one value per row [rows, 1]")
    for name, op in COLUMN.items():
        made[name] = _with_vector(name, op, lambda x: (1, x.cols), "one value per column [1, cols]")
    return made


ptoisa: Any = tile.Namespace(
    "ptoisa", "The tile instructions, inside a @ptoisa_kernel function.", "instruction", _functions(), {}
)
