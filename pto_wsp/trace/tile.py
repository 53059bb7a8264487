"""What a kernel body works with while it runs: values that record every operation, and the `pto` namespace.

Both are made from the op table. A value stands for a tile or a scalar; an operation on it becomes a node of the graph
that is being traced, with the user's line. Under `kernel.interpret(...)` each value also has its numbers.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any, NoReturn

import numpy as np

from pto_wsp.errors import (
    ArityError,
    OperandError,
    SourceLine,
    TileAsBoolError,
    TileUseError,
    TypeCheckError,
    UnknownOperationError,
    UsageError,
    show_user_frames,
)
from pto_wsp.trace import record
from pto_wsp.trace.graph import KernelGraph, Node, Param, build, number_as
from pto_wsp.trace.ops import ALIASES, INTERNAL, OPS, REQUIRED, Op
from pto_wsp.trace.source import line_for_errors, where
from pto_wsp.types import DType, Location, ScalarType, TileType

HIDDEN_ATTRS = frozenset({"at", "by"})  # set by the tracer, not by the user


# ---- tracing -----------------------------------------------------------------------------------------------------


class Tracer:
    """The graph of one kernel, growing as its body runs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.takes_instructions = False  # ptoisa's, as the body of a @ptoisa_kernel does
        self.params: list[Param] = []
        self.entry: dict[int, Node] = {}  # by id of a parameter's handle: its load at kernel entry
        self.body: list[Node] = []
        self.stored: set[int] = set()  # ids of the handles that a store wrote

    # ---- parameters

    def parameter(self, name: str, direction: str, type: TileType | ScalarType, line: SourceLine | None) -> Value:
        """The value that the body gets for a parameter."""
        op = OPS["param" if isinstance(type, TileType) else "scalar_param"]
        node = build(op, (), {"type": type, "index": len(self.params)}, line)[-1]
        param = Param(name, direction, node)
        self.params.append(param)
        return Value(self, node, param)

    def read(self, param: Param, at: str, line: SourceLine) -> Node:
        """A load of a tile parameter: at "entry" (once), "here", or as a matmul's "operand"."""
        if at == "entry" and id(param.node) in self.entry:
            return self.entry[id(param.node)]
        if param.direction == "out" and (at == "entry" or id(param.node) not in self.stored):
            again = f"pto.load({param.name}) reads back what was stored"
            if at == "here":
                again = "to read back what the kernel stores, load it after the store"
            self.warn(  # execution.md 1.6: it reads what is there; so do old programs
                f"DIRECTION_VIOLATION: {param.name} is Out, but the kernel reads what it held when the kernel started."
                f" Declare it InOut[...] if that is meant; {again}.",
                line,
            )
        node = build(OPS["load"], (param.node,), {"at": at}, line)[-1]
        if at == "entry":
            self.entry[id(param.node)] = node
            self.evaluate(node)
        else:
            self.append(node)
        return node

    # ---- operations

    def operation(self, op: Op, operands: list[Any], attrs: Mapping[str, Any], line: SourceLine) -> Value | None:
        """Append one operation to the graph; its value, or None for a store."""
        at = "operand" if op.name == "matmul" else "entry"
        nodes = [self.operand(op, i, value, at, line) for i, value in enumerate(operands)]
        made = build(op, nodes, attrs, line)
        for node in made:
            self.append(node)
        return Value(self, made[-1]) if made[-1].type is not None else None

    def store(self, dst: Any, src: Any, line: SourceLine) -> None:
        """Append a store, with the conversion to the destination's dtype if it needs one."""
        if not isinstance(dst, Value) or dst.param is None or not dst.param.is_tile:
            raise OperandError(f"store needs a tile parameter of the kernel as dst; got {_describe(dst)}.").at(line)
        self.own(dst, line)
        param = dst.param
        if param.direction == "in":
            raise TypeCheckError(
                f"DIRECTION_VIOLATION: {param.name} is In, so the kernel may not store to it. Declare it "
                "Out[...], or InOut[...] if it is read too.",
                expected="Out or InOut",
                actual="In",
            ).at(line)
        value = self.operand(OPS["store"], 1, src, "entry", line)
        if not isinstance(value, Node):
            raise OperandError(
                f"store needs a tile as src; got the number {value!r}. Make a tile of it:"
                f" pto.broadcast(pto.constant({value!r}, DType.{param.type.dtype.name}),"
                f" {(param.node.tile.rows, param.node.tile.cols)})."
            ).at(line)
        stored: tuple[Node, ...] = ()
        if value.is_tile and value.tile.dtype is not param.node.tile.dtype:
            stored = build(OPS["cast"], (value,), {"dtype": param.node.tile.dtype, "by": "store"}, line)
        for node in (*stored, *build(OPS["store"], (param.node, stored[-1] if stored else value), {}, line)):
            self.append(node)
        self.stored.add(id(param.node))

    def operand(self, op: Op, index: int, value: Any, at: str, line: SourceLine) -> Any:
        """A value as a node of this graph: parameters are loaded; numbers stay for `build` to convert.

        raises TypeCheckError for values of other kernels and for things that are no values
        """
        if isinstance(value, Value):
            self.own(value, line)
            return self.read(value.param, at, line) if value.param is not None and value.param.is_tile else value.node
        if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0:
            value = value.item() if value.dtype.kind in "biuf" else float(value)
        if isinstance(value, (bool, int, float)):
            return value
        raise TypeCheckError(
            f"{op.name} needs a tile, scalar or number as {op.operand_names[index]}; got {_describe(value)}."
            f"{_hint(value)}"
        ).at(line)

    def own(self, value: Value, line: SourceLine) -> None:
        """Only values of the kernel that is being traced have a meaning in it."""
        if value.tracer is not self:
            of = (
                f"kernel {value.tracer.name}"
                if value.tracer.name != self.name
                else "an earlier tracing of this kernel"
            )
            raise TypeCheckError(
                f"this tile belongs to {of}; tiles live only while their own kernel runs. Kernels share data "
                "through tensors: store it to an Out parameter there, and take that tensor as an In parameter "
                "here."
            ).at(line)

    def append(self, node: Node) -> None:
        self.body.append(node)
        self.evaluate(node)

    def warn(self, message: str, line: SourceLine) -> None:
        """Tell the user, once per tracing."""
        warnings.warn_explicit(message, UserWarning, line.file, line.line)

    def evaluate(self, node: Node) -> None:
        """Nothing to compute while tracing; `interpret` gives every node its numbers here."""

    def numbers(self, node: Node) -> Any:
        """The numbers of a node: none while tracing."""
        return None

    def graph(self) -> KernelGraph:
        """Everything recorded: parameters, the loads at entry in signature order, then the body."""
        entry = [self.entry[id(p.node)] for p in self.params if id(p.node) in self.entry]
        return KernelGraph(self.name, tuple(self.params), (*(p.node for p in self.params), *entry, *self.body))

    @contextmanager
    def active(self) -> Iterator[None]:
        """While this is entered, operations go to this graph."""
        before, recorder = _current.get(), None
        try:  # now, since Ctrl-C may come between any two calls
            _current.set(self)
            recorder = record.suspend()
            with line_for_errors(f"tracing kernel {self.name}"):
                yield
        finally:
            _current.set(before)
            if recorder is not None:
                record.resume(recorder)


_current: ContextVar[Tracer | None] = ContextVar("pto_wsp_tracer", default=None)


def current() -> Tracer | None:
    """The kernel that is being traced, or None."""
    return _current.get()


def _operate(op: Op, operands: list[Any], attrs: Mapping[str, Any]) -> Any:
    """One operation in the kernel that is being traced."""
    tracer, line = _current.get(), where()
    if tracer is None:
        raise UsageError(
            f"{op.name} works on tiles inside a @kernel function while it is traced; here no kernel is. On arrays use"
            " NumPy."
        ).at(line)
    return tracer.operation(op, operands, plain_attrs(op, attrs, line), line)


def plain_attrs(op: Op, attrs: Mapping[str, Any], line: SourceLine) -> dict[str, Any]:
    """Static arguments as plain Python values: NumPy integers as ints, sequences as tuples, constants typed."""
    made = {name: _plain(value) for name, value in attrs.items()}
    if op.name == "constant" and isinstance(made["dtype"], DType):
        if isinstance(made["value"], Value):
            raise OperandError("constant takes a Python number; a tile or scalar can be used as it is.").at(line)
        try:
            made["value"] = number_as(made["value"], made["dtype"])
        except OperandError as error:
            raise error.at(line) from None
    return made


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_plain(v) for v in value)
    return int(value) if isinstance(value, np.integer) else value


# ---- values ------------------------------------------------------------------------------------------------------


class Value:
    """A tile, or a scalar, of the kernel that is being traced.

    Operators: + - * / @ unary - abs() and comparisons, on tiles, scalars and numbers, with NumPy broadcasting.
    / between integers truncates toward zero; comparisons make u8 tiles of 0 and 1 for pto.select.
    """

    __slots__ = ("tracer", "node", "param")
    __hash__ = object.__hash__  # by identity: == makes a tile

    def __init__(self, tracer: Tracer, node: Node, param: Param | None = None) -> None:
        self.tracer, self.node, self.param = tracer, node, param

    @property
    def type(self) -> TileType | ScalarType:
        """Shape and dtype of a tile, or dtype of a scalar."""
        assert self.node.type is not None
        return self.node.type

    spec = type

    @property
    def dtype(self) -> DType:
        """Of its elements."""
        return self.type.dtype

    @property
    def shape(self) -> tuple[int, int] | None:
        """(rows, cols); None for a scalar."""
        return (self.type.rows, self.type.cols) if isinstance(self.type, TileType) else None

    @property
    def rows(self) -> int:
        """Static number of rows; a task at the end of an axis may use fewer."""
        return self.node.tile.rows

    @property
    def cols(self) -> int:
        """Static number of columns; a task at the end of an axis may use fewer."""
        return self.node.tile.cols

    @property
    def location(self) -> Location | None:
        """The memory that it was declared for; None for a scalar."""
        return self.type.location if isinstance(self.type, TileType) else None

    @property
    def name(self) -> str | None:
        """The parameter's name; None for a computed value."""
        return self.param.name if self.param is not None else None

    debug_name = name

    @property
    def T(self) -> Any:
        """Rows become columns."""
        return _operate(OPS["transpose"], [self], {})

    @property
    def array(self) -> Any:
        """A copy of the numbers, under kernel.interpret(...) only."""
        numbers = self.tracer.numbers(self.node)
        if numbers is None:
            raise UsageError(
                "a tile has no numbers while its kernel is traced. kernel.interpret(...) runs the body on numbers: "
                "there print(tile), tile.array and breakpoint() work."
            ).at(where())
        return np.array(numbers)

    def __repr__(self) -> str:
        kind = f"{self.name}: {self.type}" if self.name else str(self.type)
        numbers = self.tracer.numbers(self.node)
        return f"<{kind}>" if numbers is None else f"<{kind}>\n{numbers}"

    def __pos__(self) -> Any:
        return self

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        hint = f"Write pto.{name}(x)." if name in pto.__all__ else _INSTEAD.get(name, "help(pto) lists the operations.")
        with show_user_frames():
            raise UnknownOperationError(f"a tile has no attribute {name!r}. {hint}").at(where())

    # ---- what a tile is not

    def __bool__(self) -> bool:
        if self.shape is None:
            advice = (
                "pto.select(mask, x, y) chooses when the kernel runs; a Constexpr[...] parameter is a plain Python"
                " value here"
            )
        else:
            advice = "use pto.select(mask, x, y) to choose per element, pto.minimum / pto.maximum to combine masks"
        raise TileAsBoolError(
            f"a {'scalar' if self.shape is None else 'tile'} cannot decide Python's if, while, and, or, not, in or "
            f"a chained comparison: its value is known only when the kernel runs; {advice}."
        ).at(where())

    def __iter__(self) -> NoReturn:
        self._refuse(
            "iterate over a tile",
            "Operations act on whole tiles: pto.rowsum(x), x * 2, pto.select(...). To unroll over "
            "parts, bind them as parameters of their own.",
        )

    def __len__(self) -> int:
        self._refuse("take len() of a tile", "Write x.rows or x.cols.")

    def __getitem__(self, index: Any) -> Any:
        self._refuse(
            "index a tile",
            "Bind a smaller view of the tensor as a parameter; pto.slice_even / pto.slice_odd take "
            "every other column.",
        )

    def __setitem__(self, index: Any, value: Any) -> None:
        self._refuse(
            "assign into a tile",
            "Tiles are values: make a new one with pto.select(mask, x, y), and write results with pto.store(out, x).",
        )

    def __float__(self) -> float:
        self._refuse("turn a tile into a Python number", _NO_NUMBER)

    def __int__(self) -> int:
        self._refuse("turn a tile into a Python number", _NO_NUMBER)

    def __index__(self) -> int:
        self._refuse("turn a tile into a Python number", _NO_NUMBER)

    def __complex__(self) -> complex:
        self._refuse("turn a tile into a Python number", _NO_NUMBER)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        self._refuse(
            "turn a tile into an array",
            "Use pto.* operations; under kernel.interpret(...), tile.array is a copy of the numbers.",
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """NumPy's functions mean the op of the same definition; `np.float32(2) * x` arrives here too."""
        op = _UFUNCS.get(ufunc)
        if op is None or method != "__call__" or kwargs:
            closest = f"pto.{op.name}" if op is not None else "the operations of pto, see help(pto)"
            self._refuse(
                f"call np.{ufunc.__name__}{'' if method == '__call__' else '.' + method} on tiles", f"Use {closest}."
            )
        with show_user_frames():
            return _operate(op, list(inputs), {})

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        self._refuse(f"call np.{func.__name__} on tiles", "Use the operations of pto, see help(pto).")

    def __floordiv__(self, other: Any) -> Any:
        self._refuse(
            "use // on tiles", "Write pto.floor(x / y) for floats; x / y truncates toward zero for integers."
        )

    def __mod__(self, other: Any) -> Any:
        self._refuse("use % on tiles", "Write x - y * pto.floor(x / y) for floats, x - y * (x / y) for integers.")

    def __pow__(self, other: Any) -> Any:
        self._refuse("use ** on tiles", "Write x * x, pto.sqrt(x), or pto.exp(pto.log(x) * n).")

    def __and__(self, other: Any) -> Any:
        self._refuse("use & | ^ ~ on tiles", _NO_LOGIC)

    __rfloordiv__, __rmod__, __rpow__ = __floordiv__, __mod__, __pow__
    __or__ = __xor__ = __rand__ = __ror__ = __rxor__ = __and__

    def __invert__(self) -> Any:
        self._refuse("use & | ^ ~ on tiles", _NO_LOGIC)

    def _refuse(self, what: str, advice: str) -> NoReturn:
        with show_user_frames():
            raise TileUseError(
                f"cannot {what}: while a kernel is traced its tiles have a type, not numbers. {advice}"
            ).at(where())


_NO_NUMBER = "A scalar that the Python code has to know is a Constexpr[...] parameter."
_NO_LOGIC = "Masks are u8 tiles of 0 and 1: pto.minimum(a, b) is and, pto.maximum(a, b) is or, pto.eq(a, 0) is not."
_UFUNCS: dict[Any, Op] = {op.reference: op for op in reversed(OPS.values()) if isinstance(op.reference, np.ufunc)}
_UFUNCS |= {np.divide: OPS["div"], np.maximum: OPS["maximum"], np.minimum: OPS["minimum"]}
_UFUNCS |= {np.matmul: OPS["matmul"], np.reciprocal: OPS["reciprocal"]}


def _operator(op: Op, swap: bool = False) -> Callable[..., Any]:
    def method(self: Value, *others: Any) -> Any:
        with show_user_frames():
            return _operate(op, [*others, self] if swap else [self, *others], {})

    return method


def _in_place(op: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """`x += y` makes a new tile; on an output that would look like a store."""

    def in_place(self: Value, other: Any) -> Any:
        if self.param is not None and self.param.direction != "in":
            self._refuse(
                f"change {self.name} in place",
                f"Write pto.store({self.name}, pto.{op}({self.name}, ...)); this would only rename a new tile.",
            )
        return method(self, other)

    return in_place


for _name, _op in {"add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "matmul": "matmul"}.items():
    setattr(Value, f"__{_name}__", _operator(OPS[_op]))
    setattr(Value, f"__r{_name}__", _operator(OPS[_op], swap=True))
    setattr(Value, f"__i{_name}__", _in_place(_op, getattr(Value, f"__{_name}__")))
for _name in ("lt", "le", "gt", "ge", "eq", "ne", "neg", "abs", "round", "floor", "ceil"):
    setattr(Value, f"__{_name}__", _operator(OPS[_name]))


# ---- pto ---------------------------------------------------------------------------------------------------------


class Namespace(ModuleType):
    """A set of operations, as a module: `help(pto)` lists them with their signatures."""

    def __init__(
        self, name: str, doc: str, kind: str, functions: Mapping[str, Callable[..., Any]], instead: Mapping[str, str]
    ) -> None:
        super().__init__(name, doc)
        self.__dict__.update(functions)
        self.__all__ = list(functions)
        self._kind, self._instead = kind, instead
        for function in functions.values():
            function.__module__ = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        import difflib

        close = difflib.get_close_matches(name, self.__all__, 1)
        here = self.__name__
        hint = f"Did you mean {here}.{close[0]}?" if close else f"help({here}) lists them."
        with show_user_frames():
            hint = self._instead.get(name, hint)
            raise UnknownOperationError(f"{here} has no {self._kind} {name!r}. {hint}").at(where())

    def __dir__(self) -> list[str]:
        return self.__all__

    def __repr__(self) -> str:
        return f"<{self.__name__}: {len(self.__all__)} {self._kind}s>"


_INSTEAD = {
    "softmax": "Write e = pto.exp(x - pto.rowmax(x)); y = e / pto.rowsum(e).",
    "topk": "Write pto.extract_topk_indices(pto.tsort32(scores, pto.iota_u32(32)), k).",
    "where": "Write pto.select(mask, x, y).",
    "sum": "Write pto.rowsum(x) or pto.colsum(x).",
    "mean": "Write pto.rowmean(x) or pto.colmean(x).",
    "pow": "Write x * x, or pto.exp(pto.log(x) * n).",
    "dot": "Write pto.matmul(a, b), or a @ b.",
    "zeros": "Write pto.alloc((rows, cols), dtype).",
    "full": "Write pto.broadcast(pto.constant(value, dtype), (rows, cols)).",
    "astype": "Write pto.cast(x, dtype).",
    "reshape": "Tiles keep their shape; bind the tensor with another view.",
    "print": "Use kernel.interpret(...): there print(tile) shows numbers.",
}


def _function(op: Op) -> Callable[..., Any]:
    """The function of a row: operands first, then its attributes."""
    parameters = [
        inspect.Parameter(
            name.rstrip("?"),
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=None if name.endswith("?") else inspect.Parameter.empty,
        )
        for name in op.operands.split()
    ]
    attrs = {k: default for k, default in op.attrs.items() if k not in HIDDEN_ATTRS}
    parameters += [
        inspect.Parameter(
            k,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=inspect.Parameter.empty if default is REQUIRED else default,
        )
        for k, default in attrs.items()
    ]
    if op.name == "alloc":
        parameters.append(inspect.Parameter("location", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=Location.UB))
    signature = inspect.Signature(parameters)
    hidden = {k: v for k, v in op.attrs.items() if k in HIDDEN_ATTRS}

    def function(*args: Any, **kwargs: Any) -> Any:
        with show_user_frames():
            given = _bind(op, signature, args, kwargs)
            operands = [given[name] for name in op.operand_names]
            while operands and operands[-1] is None and len(operands) > op.arity[0]:
                operands.pop()
            return _operate(op, operands, {**hidden, **{k: given[k] for k in attrs}})

    return _named(function, op, signature)


def _bind(op: Op, signature: inspect.Signature, args: Any, kwargs: Any) -> dict[str, Any]:
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise ArityError(f"{op.name}{signature}: {error}.").at(where()) from None
    bound.apply_defaults()
    if bound.arguments.get("location", Location.UB) is not Location.UB:
        raise OperandError(
            f"alloc makes tiles in UB; the compiler places them. Got location={bound.arguments['location']!r}."
        ).at(where())
    return dict(bound.arguments)


def _named(function: Callable[..., Any], op: Op, signature: inspect.Signature) -> Callable[..., Any]:
    function.__name__, function.__qualname__, function.__doc__ = op.name, f"pto.{op.name}", op.doc
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function


def _load(src: Any, offset: Any = (0, 0), mask: Any = None) -> Any:
    with show_user_frames():
        line, tracer = where(), _current.get()
        _whole(OPS["load"], offset, mask, "bind a smaller view of the tensor, X[i * 16:(i + 1) * 16]", line)
        if tracer is None or not isinstance(src, Value):
            return _operate(OPS["load"], [src], {"at": "here"})
        tracer.own(src, line)
        if src.param is None or not src.param.is_tile:  # a computed value is its own copy
            return src
        return Value(tracer, tracer.read(src.param, "here", line))


def _store(dst: Any, src: Any, offset: Any = (0, 0), mask: Any = None) -> None:
    with show_user_frames():
        line, tracer = where(), _current.get()
        _whole(OPS["store"], offset, mask, "store pto.select(mask, new, old)", line)
        if tracer is None:
            _operate(OPS["store"], [dst, src], {})
        else:
            tracer.store(dst, src, line)


def _whole(op: Op, offset: Any, mask: Any, instead: str, line: SourceLine) -> None:
    if mask is not None or not isinstance(offset, (tuple, list)) or tuple(offset) != (0, 0):
        raise OperandError(
            f"{op.name} moves whole tiles: offset= and mask= have no effect on it. Instead {instead}."
        ).at(line)


def _describe(value: Any) -> str:
    if isinstance(value, Value):
        return f"the computed {value.type}" if value.param is None else f"the scalar {value.param.name}: {value.type}"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    return f"{value!r} ({type(value).__name__})"


def _hint(value: Any) -> str:
    kind = type(value).__name__
    if kind in ("LoopVar", "Expr", "Symbol"):
        return " Pass it to the kernel as a Scalar[...] argument."
    if kind in ("ndarray", "Tensor"):
        return " Pass it to the kernel as an In[Tile[...]] argument."
    return " Did you forget to return a tile?" if value is None else ""


def _functions() -> dict[str, Callable[..., Any]]:
    """One function per row, and the aliases."""
    made = {op.name: _function(op) for op in OPS.values() if op.name not in INTERNAL}
    for name, function in (("load", _load), ("store", _store)):
        made[name] = _named(function, OPS[name], inspect.signature(function, eval_str=False))
    return {**made, **{alias: made[name] for alias, name in ALIASES.items()}}


pto: Any = Namespace("pto", "The operations of kernels, on tiles and scalars.", "operation", _functions(), _INSTEAD)
