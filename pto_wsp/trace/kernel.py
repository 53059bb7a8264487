"""`@kernel`: a Python function over tiles becomes a KernelGraph, by running it once on values that record.

In: the function and its annotations.  Out: `kernel.graph`, traced once per set of constexpr values; and, inside
@workload, tasks. Start reading at `Kernel.graph_for`.
"""

from __future__ import annotations

import builtins
import inspect
import re
import sys
import warnings
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any, overload

from pto_wsp.errors import (
    ArgumentError,
    CompileError,
    OperandError,
    ScalarOverflowError,
    SourceLine,
    UsageError,
    show_user_frames,
)
from pto_wsp.scalar_expr import Expr, LoopVar, as_expr
from pto_wsp.trace import custom, record, tile
from pto_wsp.trace.graph import KernelGraph, build, number_as
from pto_wsp.trace.ops import OPS
from pto_wsp.trace.resolve import leaves, outside_its_loop
from pto_wsp.trace.source import where, where_is
from pto_wsp.trace.workload import Workload
from pto_wsp.types import DType, ScalarType, Symbol, Tensor, TileType

__all__ = [
    "Constexpr",
    "In",
    "InOut",
    "Kernel",
    "KernelCall",
    "KernelParam",
    "KernelRef",
    "Out",
    "Scalar",
    "Tile",
    "extract_kernel_params",
    "get_direction",
    "get_inner_type",
    "jit_kernel",
    "kernel",
]


# ---- annotations -------------------------------------------------------------------------------------------------


class Tile:
    """The annotation of a tile parameter: `Tile[rows, cols, dtype]`; dtype is F16 when left out."""

    def __class_getitem__(cls, item: Any) -> Any:
        parts = item if isinstance(item, tuple) else (item,)
        if len(parts) not in (2, 3):
            raise TypeError(f"Tile[rows, cols] or Tile[rows, cols, dtype]; got {len(parts)} items: {item!r}.")
        return TileType(*parts)


class Scalar:
    """The annotation of a number that a task is given: `Scalar[dtype]`."""

    def __class_getitem__(cls, dtype: Any) -> Any:
        return ScalarType(dtype)


class Direction:
    """Base of the annotations that say how a parameter is used: `In[Tile[16, 128, DType.F32]]`."""

    direction: str = "unknown"
    inner: Any = None

    def __class_getitem__(cls, inner: Any) -> Any:
        return type(f"{cls.__name__}[{_spelled(inner)}]", (cls,), {"inner": inner, "__module__": cls.__module__})


class In(Direction):
    """A parameter that the kernel reads."""

    direction = "in"


class Out(Direction):
    """A parameter that the kernel writes; what it held before is not an input."""

    direction = "out"


class InOut(Direction):
    """A parameter that the kernel reads and writes."""

    direction = "inout"


class Constexpr(Direction):
    """A plain Python value: the kernel is traced once for each, and its body may decide with `if` and `range`."""

    direction = "constexpr"


def _spelled(inner: Any) -> str:
    return inner.__name__ if isinstance(inner, type) else str(inner)


def get_direction(hint: Any) -> str:
    """What an annotation says, also as text: "in", "out", "inout" or "constexpr"; "unknown" for others."""
    if isinstance(hint, str):
        match = re.match(r"\s*(?:\w+\.)*(In|Out|InOut|Constexpr)\s*(\[|$)", hint)
        return match[1].lower() if match else "unknown"
    if isinstance(hint, type) and issubclass(hint, Direction):
        return hint.direction
    return "unknown"


def get_inner_type(hint: Any) -> Any:
    """X of In[X], Out[X], InOut[X], Constexpr[X]; None for others."""
    return hint.inner if isinstance(hint, type) and issubclass(hint, Direction) else None


@dataclass(frozen=True)
class KernelParam:
    """One parameter of a kernel.

    direction   "in", "out", "inout" or "constexpr"
    inner_type  TileType, ScalarType, Tensor, any other type, or None without (or with an unknown) annotation
    dtype       of a tile or scalar;  shape  (rows, cols) of a tile
    default     inspect.Parameter.empty without one
    """

    name: str
    direction: str
    inner_type: Any
    dtype: DType | None = None
    shape: tuple[Any, ...] | None = None
    default: Any = inspect.Parameter.empty
    positional_only: bool = False

    @property
    def kind(self) -> str:
        """One of "tile", "scalar", "constexpr", and "other": a kernel with such a parameter is for building only."""
        if self.direction == "constexpr":
            return "constexpr"
        return (
            "tile"
            if isinstance(self.inner_type, TileType)
            else "scalar" if isinstance(self.inner_type, ScalarType) else "other"
        )

    @property
    def has_default(self) -> bool:
        """May a call leave it out?"""
        return self.default is not inspect.Parameter.empty

    def why_not(self) -> str | None:
        """Why a kernel with this parameter cannot be compiled; None when it can."""
        if isinstance(self.inner_type, TileType) and not all(isinstance(n, int) for n in self.inner_type.shape):
            return (
                f"has the symbolic shape {list(self.inner_type.shape)}; the dimensions of a tile must be concrete"
                " ints"
            )
        if self.kind == "scalar" and self.direction != "in":
            return f"is {self.direction} of a scalar; results are stored to tiles, a scalar is an input"
        if self.kind != "other":
            return None
        if self.inner_type is None:
            return "has no annotation that says what it is"
        return f"is annotated {_spelled(self.inner_type)}, which has no tile shape"


def extract_kernel_params(func: Callable[..., Any]) -> list[KernelParam]:
    """The parameters of a kernel function, in signature order.

    Annotations written as text, or postponed by `from __future__ import annotations`, are looked up in the function's
    module, its closure and the functions around the decorator; those that name nothing there become inner_type None.
    """
    if not callable(func) or isinstance(func, type):
        raise UsageError(f"a kernel is a function; got {func!r}.").at(where())
    names = _visible_names(func)
    found = []
    for p in inspect.signature(func, eval_str=False).parameters.values():
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            raise TypeError(
                f"kernel {func.__name__}: {'*' if p.kind is p.VAR_POSITIONAL else '**'}{p.name} is not a parameter"
                " that a task can be given; name every parameter."
            )
        hint = None if p.annotation is p.empty else _evaluated(p.annotation, names)
        inner = get_inner_type(hint) if get_direction(hint) != "unknown" else hint
        inner = None if isinstance(inner, str) and get_direction(hint) == "unknown" else _evaluated(inner, names)
        direction = get_direction(hint) if get_direction(hint) != "unknown" else "in"
        dtype = inner.dtype if isinstance(inner, (TileType, ScalarType)) else None
        shape = inner.shape if isinstance(inner, TileType) else None
        found.append(KernelParam(p.name, direction, inner, dtype, shape, p.default, p.kind is p.POSITIONAL_ONLY))
    return found


def _visible_names(func: Callable[..., Any]) -> Mapping[str, Any]:
    """What a name in an annotation may mean: closure, functions around (their frames still run), module."""
    closure = {}
    for name, cell in zip(
        getattr(getattr(func, "__code__", None), "co_freevars", ()), getattr(func, "__closure__", None) or ()
    ):
        try:
            closure[name] = cell.cell_contents
        except ValueError:  # not bound yet: the function's own name, or a later variable
            continue
    module = getattr(func, "__globals__", {})
    around = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals is module and frame.f_locals is not module:
            around.append(frame.f_locals)
        frame = frame.f_back
    return ChainMap(closure, *around, module, vars(builtins))


def _evaluated(hint: Any, names: Mapping[str, Any]) -> Any:
    """An annotation given as text, evaluated; the text itself when it names something unknown."""
    if not isinstance(hint, str):
        return hint
    try:
        return eval(hint, {"__builtins__": {}}, names)
    except NameError:
        return hint


# ---- the decorator -----------------------------------------------------------------------------------------------


@overload
def kernel(func: Callable[..., Any]) -> Kernel: ...
@overload
def kernel(
    func: None = None,
    *,
    num_warps: int = 4,
    num_stages: int = 2,
    cpp_src: str | None = None,
    cpp_body_path: Any = None,
    cpp_tu_path: Any = None,
    cpp_includes: list[str] | None = None,
    cpp_core: str | None = None,
    cpp_workspace_bytes: int | None = None,
    cpu: Any = None,
    cycles: int | str | None = None,
    **options: Any,
) -> Callable[[Callable[..., Any]], Kernel]: ...


def kernel(
    func: Callable[..., Any] | None = None,
    *,
    num_warps: int = 4,
    num_stages: int = 2,
    cpp_src: str | None = None,
    cpp_body_path: Any = None,
    cpp_tu_path: Any = None,
    cpp_includes: list[str] | None = None,
    cpp_core: str | None = None,
    cpp_workspace_bytes: int | None = None,
    cpu: Any = None,
    cycles: int | str | None = None,
    **options: Any,
) -> Any:
    """A function over tiles, as a kernel: `@kernel`, or `@kernel(...)` with options.

    cpp_src, cpp_body_path  a C++ body for the NPU, as text or in a file; the Python body is then never run
    cpp_tu_path             a complete C++ translation unit in a file
    cpp_includes            extra #include lines for the first two
    cpp_core                what runs the C++: "AIV" (a vector core), "AIC" (a cube core) or "MIX" (one and its two)
    cpp_workspace_bytes     global memory that each running task of the C++ needs beside its tiles
    cpu                     the body on the CPU: a numba function, or a plain one that numba compiles. It gets the
                            tiles as arrays and the scalars as numbers, in order; see trace/custom.py
    cycles                  of one task of such a kernel: a number, or a C expression of integer scalars and of the
                            valid extents `x_rows`, `x_cols` of tiles; by default, one per element loaded and stored
    num_warps, num_stages and others are kept in `kernel.options` for backends that use them

    raises  ValueError for two C++ sources and for options that need one; FileNotFoundError
    """
    given = {
        "num_warps": num_warps,
        "num_stages": num_stages,
        **options,
        **custom.checked_options(
            cpp_src, cpp_body_path, cpp_tu_path, cpp_includes, cpu, cycles, cpp_core, cpp_workspace_bytes
        ),
    }
    if func is None:
        return lambda f: _make(f, given)
    return _make(func, given)


jit_kernel = kernel


def _make(func: Any, options: dict[str, Any]) -> Kernel:
    if not callable(func) or isinstance(func, type):
        raise UsageError(f"@kernel decorates a function; got {func!r}.").at(where())
    if inspect.isgeneratorfunction(func) or inspect.iscoroutinefunction(func):
        raise UsageError(f"kernel {func.__name__} contains yield or await; a body runs in one go.").at(where())
    if isinstance(func, Kernel):
        raise UsageError(f"{func.name} is a kernel already; one @kernel is enough.").at(where())
    return Kernel(func, options)


# ---- kernels -----------------------------------------------------------------------------------------------------


class Kernel:
    """A traced function over tiles. Two kernels are told apart by identity; equal names are fine.

    name, func, options, params   as given;  signature  a copy of the function's annotations
    """

    def __init__(self, func: Callable[..., Any], options: dict[str, Any] | None = None) -> None:
        if options is not None and not isinstance(options, dict):
            raise UsageError(f"options of a Kernel are a dict; got {options!r}. Write @kernel(...).").at(where())
        self.func = func
        self.name: str = getattr(func, "__name__", type(func).__name__)
        self.options = dict(options or {})
        self.params: tuple[KernelParam, ...] = tuple(extract_kernel_params(func))
        self.signature: dict[str, Any] = dict(getattr(func, "__annotations__", {}))
        self.line: SourceLine | None = where_is(func.__code__) if hasattr(func, "__code__") else None
        self.__doc__ = func.__doc__
        self.__name__ = self.name
        self.__wrapped__ = func
        self._graphs: dict[tuple[Any, ...], KernelGraph] = {}
        if self.is_custom:
            self._check_custom()

    # ---- calls

    def __getitem__(self, axes: Any) -> KernelCall:
        return KernelCall(self, axes if isinstance(axes, tuple) else (axes,))

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Inside @workload: a task without axis values, see KernelCall. Elsewhere: the graph, see `trace`."""
        with show_user_frames():
            self._not_inside_a_kernel()
            if record.current() is not None:
                return self.task((), args, kwargs)
            return self.trace(*args, **kwargs)

    def task(self, axes: tuple[Any, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Workload:
        """Record one task in the running @workload body; the node is a handle for `after=`."""
        self._not_inside_a_kernel()
        recorder = record.current()
        if recorder is None:
            raise UsageError(
                f"{self.name}[...](...) makes a task, inside a @workload function. On arrays:"
                f" {self.name}.interpret(...)."
            ).at(where())
        after = () if any(p.name == "after" for p in self.params) else _handles(kwargs.pop("after", ()))
        node = Workload("task", kernel=self, params=list(axes), resources=self._named(args, kwargs), after=after)
        self.check_task(recorder, node)
        return recorder.add(node)

    def _named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Arguments by name."""
        names = [p.name for p in self.params]
        if len(args) > len(names):
            raise ArgumentError(
                f"{self.name} takes {len(names)} arguments ({', '.join(names)}); got {len(args)}."
            ).at(where())
        named = dict(zip(names, args, strict=False))
        for name in named.keys() & kwargs.keys():
            raise ArgumentError(f"{self.name} got {name!r} twice, by position and by name.").at(where())
        return {**named, **kwargs}

    def check_task(self, recorder: record.Recorder, node: Workload) -> None:
        """Type checks of a call that is being recorded: findings are collected; a variable out of scope is an error."""
        resources = node.fields["resources"]
        for what, value in (*(("an axis value", v) for v in node.fields["params"]), *resources.items()):
            for leaf in leaves(value):
                if leaf.kind == "loop_var" and not recorder.is_open(leaf.a):
                    raise UsageError(outside_its_loop(leaf.a, f"{self.name}: {what}")).at(where())
        if recorder.type_check:
            recorder.type_errors.extend(
                self._type_errors(tuple(node.fields["params"]), resources, recorder.name, recorder.is_unconditional())
            )

    def _type_errors(
        self, axes: tuple[Any, ...], resources: Mapping[str, Any], workload_name: str, unconditional: bool
    ) -> list[Any]:
        from pto_wsp.type_checker import TypeCheckContext, TypeChecker

        location = f"{workload_name}.{self.name}"
        checker = TypeChecker(TypeCheckContext(False, workload_name, location, unconditional))
        checker.check_kernel_call(self, axes, dict(resources))
        return checker.get_errors()

    def _not_inside_a_kernel(self) -> None:
        tracer = tile.current()
        if tracer is not None:
            raise UsageError(
                f"kernel {self.name} is used inside kernel {tracer.name}: a task cannot start tasks. Put what they"
                f" share into a plain function without @kernel, and call that; {self.name}.func is {self.name}'s own."
            ).at(where())

    # ---- arguments

    def bind(
        self,
        axes: tuple[Any, ...],
        resources: Mapping[str, Any],
        line: SourceLine | None,
        unconditional: bool = False,
    ) -> tuple[tuple[str, Any], ...]:
        """The arguments of a task in signature order, defaults filled in, checked and converted.

        unconditional   the task is sure to be made, so that indices can be checked against static loops
        raises CompileError at the line of the call
        """
        self.require_compilable()
        found = self._type_errors(axes, resources, "", unconditional)
        if found:
            raise ArgumentError(
                "; ".join(e.message for e in found), expected=found[0].expected, actual=found[0].got
            ).at(line, f"calling kernel {self.name}")
        return tuple((p.name, self._argument(p, resources, line)) for p in self.params)

    def _argument(self, param: KernelParam, resources: Mapping[str, Any], line: SourceLine | None) -> Any:
        doing = f"calling kernel {self.name}"
        if param.name not in resources and not param.has_default:
            what = {"tile": "tensor", "scalar": "scalar", "constexpr": "constexpr"}.get(param.kind, "")
            raise ArgumentError(f"Missing {what} arg {param.name!r} of kernel {self.name}.").at(line, doing)
        value = resources.get(param.name, param.default)
        try:
            return _ARGUMENT[param.kind](param, value)
        except OperandError as error:
            error.at(line, doing)
            raise

    def require_compilable(self) -> None:
        """raises CompileError, at the kernel, when a parameter has no type that a task could bind"""
        for param in self.params:
            why = param.why_not()
            if why is not None:
                raise CompileError(
                    f"kernel {self.name} is for building only: its parameter {param.name!r} {why}. To compile it, "
                    "annotate In[Tile[rows, cols, dtype]], Scalar[dtype] or Constexpr[int]."
                ).at(self.line)

    # ---- graphs

    @property
    def graph(self) -> KernelGraph:
        """The graph, with the defaults of constexpr parameters; traced once."""
        with show_user_frames():
            return self._graph_for({})

    def graph_for(self, values: Mapping[str, Any]) -> KernelGraph:
        """The graph under these constexpr values, traced once; other names are ignored, missing ones take defaults.

        raises CompileError for kernels that cannot be compiled for the CPU, and whatever the body raises
        """
        with show_user_frames():
            return self._graph_for(values)

    def _graph_for(self, values: Mapping[str, Any]) -> KernelGraph:
        self.require_compilable()
        constexprs = self._constexprs(values)
        key = tuple((name, type(v), v) for name, v in constexprs.items())
        found = self._graphs.get(key)
        if found is None:
            found = self._graphs[key] = self._trace(constexprs)
            if not found.stores and found.custom is None:
                line = self.line or where()
                warnings.warn_explicit(
                    f"kernel {self.name} stores nothing, so its tasks have no effect but their cycles. "
                    "Write results with pto.store(out, x).",
                    UserWarning,
                    line.file,
                    line.line,
                )
        return found

    def trace(self, /, *args: Any, **kwargs: Any) -> KernelGraph:
        """Run the body once more and return its graph; of the arguments only constexprs matter."""
        with show_user_frames():
            self._not_inside_a_kernel()
            self.require_compilable()
            named = {**dict(zip([p.name for p in self.params], args, strict=False)), **kwargs}
            return self._trace(self._constexprs(named))

    @property
    def is_cpp(self) -> bool:
        """Whether there is a C++ body."""
        return "cpp_src" in self.options or "cpp_file_src" in self.options

    @property
    def is_custom(self) -> bool:
        """Whether the body is C++ or was given as cpu=; the Python function itself is then never run."""
        return self.is_cpp or "cpu" in self.options

    def _check_custom(self) -> None:
        if "cpu" in self.options:
            custom.check_cpu(self.name, self.options["cpu"], len(self.params))
        tiles = [p.name for p in self.params if p.kind == "tile"]
        integers = [p.name for p in self.params if p.kind == "scalar" and p.dtype is not None and p.dtype.is_int]
        custom.check_cycles(self.name, self.options.get("cycles"), tiles, integers)
        if "cpp_file_src" in self.options and "cpp_includes" in self.options:
            says = "cpp_includes changes nothing for a translation unit, which includes what it needs itself"
            warnings.warn(f"kernel {self.name}: {says}", stacklevel=5)

    def _custom_body(self, constexprs: Mapping[str, Any]) -> custom.CustomBody:
        options = self.options
        return custom.CustomBody(
            self.name,
            options.get("cpp_src", options.get("cpp_file_src")),
            "unit" if "cpp_file_src" in options else "body",
            options.get("cpp_src_path", options.get("cpp_file_path", "")),
            tuple(options.get("cpp_includes", ())),
            options.get("cpu"),
            custom.constants_of(self.params, constexprs),
            options.get("cycles"),
            options.get("cpp_core", "AIV"),
            options.get("cpp_workspace_bytes", 0),
            self.line,
        )

    def _constexprs(self, values: Mapping[str, Any]) -> dict[str, Any]:
        found = {}
        for param in self.params:
            if param.kind == "constexpr":
                if param.name not in values and not param.has_default:
                    raise ArgumentError(
                        f"kernel {self.name} is traced for a value of {param.name!r} (Constexpr), which has no"
                        f" default: write {self.name}.graph_for({{{param.name!r}: ...}})."
                    ).at(self.line)
                found[param.name] = _constexpr(param, values.get(param.name, param.default))
        return found

    def _trace(self, constexprs: Mapping[str, Any]) -> KernelGraph:
        self._not_inside_a_kernel()
        tracer = tile.Tracer(self.name)
        self.run(tracer, constexprs)
        if not self.is_custom:
            return tracer.graph()
        if self.options.get("cycles"):
            tracer.append(build(OPS["add_cycles"], (), {"cycles": self.options["cycles"]}, self.line)[-1])
        return replace(tracer.graph(), custom=self._custom_body(constexprs))

    def run(self, tracer: tile.Tracer, constexprs: Mapping[str, Any]) -> None:
        """Run the body on values of `tracer`."""
        args, kwargs = [], {}
        for param in self.params:
            if param.kind == "constexpr":
                value = constexprs[param.name]
            else:
                value = self.proxy(tracer.parameter(param.name, param.direction, param.inner_type, self.line))
            if param.positional_only:
                args.append(value)
            else:
                kwargs[param.name] = value
        if self.is_custom:
            return
        with tracer.active():
            made = self.func(*args, **kwargs)
        if made is not None:
            tracer.warn(
                f"kernel {self.name} returns {made!r}, which is dropped. Write results with pto.store(out, x).",
                self.line or where(),
            )

    def proxy(self, value: tile.Value) -> Any:
        """What the body gets for a parameter: the value itself."""
        return value

    # ---- running and looking

    def interpret(self, /, *args: Any, **kwargs: Any) -> None:
        """Run the body as plain Python on NumPy arrays; stores write into them.

        Takes the kernel's arguments: an array for each tile (smaller than the tile at the end of an axis), numbers
        for scalars and constexprs. print(tile), tile.array and breakpoint() work in the body.
        """
        from pto_wsp.trace.replay import replay

        with show_user_frames():
            self._not_inside_a_kernel()
            replay(self, self._named(args, kwargs))

    @property
    def loops(self) -> str:
        """The loop nests that the graph becomes, as text."""
        return str(self._compiled().loops)

    @property
    def llvm(self) -> str:
        """The LLVM IR, as text."""
        return str(self._compiled().ir)

    @property
    def asm(self) -> str:
        """The machine code of this CPU, as assembly text."""
        from pto_wsp.lower import jit

        with show_user_frames():
            return str(self._compiled().asm) if self.is_custom else jit.assembly(self._compiled().ir)

    def _compiled(self) -> Any:
        from pto_wsp.lower import custom as bodies
        from pto_wsp.lower import pipeline

        with show_user_frames():
            return bodies.load(self.graph) if self.is_custom else pipeline.compile_kernel(self.graph)

    def compile(self, *args: Any, **kwargs: Any) -> Any:
        """Refused: workloads are compiled, with the kernels in them."""
        raise UsageError(
            f"a kernel is compiled as part of a workload: call {self.name}[...](...) in a @workload function, and"
            f" compile that. To look at its code: {self.name}.loops, .llvm, .asm."
        ).at(where())

    def __repr__(self) -> str:
        return f"<kernel {self.name}({', '.join(p.name for p in self.params)})>"


KernelRef = Kernel


class KernelCall:
    """`kernel[axes]`: a kernel with the axis values of a task; calling it inside @workload makes the task."""

    def __init__(self, kernel: Kernel, axes: tuple[Any, ...]) -> None:
        self.kernel, self.axes = kernel, axes
        self.kernel_ref = kernel

    def __call__(self, /, *args: Any, **kwargs: Any) -> Workload:
        """Record one task. Arguments: Tensor views for tiles; numbers, symbols or expressions for scalars.

        after   handles (results of earlier calls) that this task waits for
        """
        with show_user_frames():
            return self.kernel.task(self.axes, args, kwargs)

    def __repr__(self) -> str:
        return f"{self.kernel.name}[{', '.join(map(str, self.axes))}]"


def _handles(after: Any) -> tuple[Workload, ...]:
    """What `after=` was given: the results of earlier calls."""
    handles = (after,) if isinstance(after, Workload) else tuple(after or ())
    for handle in handles:
        if not isinstance(handle, Workload) or handle.kind != "task":
            raise UsageError(
                f"after= takes the results of earlier kernel calls, after=[handle, ...]; got {handle!r}."
            ).at(where())
    return handles


def _tile_argument(param: KernelParam, value: Any) -> Any:
    if isinstance(value, Tensor):
        return value
    hint = ""
    if type(value).__name__ == "ndarray":
        hint = (
            " Wrap the array: Tensor(data=x, shape=x.shape,"
            f" dtype=DType.{param.dtype.name if param.dtype else 'F32'})."
        )
    shown = f"an array of shape {value.shape}" if hint else repr(value)
    raise OperandError(
        f"Missing tensor arg {param.name!r}: it needs a Tensor for {param.inner_type}; got {shown}.{hint}"
    )


def _scalar_argument(param: KernelParam, value: Any) -> Any:
    if isinstance(value, (LoopVar, Expr)):
        return as_expr(value)
    if isinstance(value, Symbol):
        return value
    assert param.dtype is not None
    if value is None or isinstance(value, (str, Tensor)):
        raise OperandError(
            f"Missing scalar arg {param.name!r}: it needs a number, a Symbol, or an expression of loop variables; got"
            f" {value!r}."
        )
    try:
        return number_as(value, param.dtype)
    except OperandError as error:
        kind = ScalarOverflowError if "fit" in error.message else OperandError
        raise kind(f"{param.name}: {error.message}") from None


def _constexpr(param: KernelParam, value: Any) -> Any:
    if isinstance(value, (LoopVar, Expr, Symbol, tile.Value)):
        raise OperandError(
            f"{param.name} is Constexpr: its value has to be known when the kernel is compiled; got {value!r}. "
            "For a value per task declare it Scalar[...]."
        )
    wanted = param.inner_type if param.inner_type in (int, float, bool, str) else None
    if wanted is int and hasattr(value, "__index__") and not isinstance(value, bool):
        return value.__index__()
    if wanted is float and isinstance(value, (int, float)) or wanted is bool and type(value).__name__ == "bool_":
        return wanted(value)  # the wanted type, whichever number was written
    if wanted is not None and not isinstance(value, wanted):
        raise OperandError(f"{param.name} is Constexpr[{wanted.__name__}]; got {value!r} ({type(value).__name__}).")
    try:
        hash(value)
    except TypeError:
        raise OperandError(
            f"{param.name} is Constexpr, so its value has to be hashable (a tuple, not a list); got {value!r}."
        ) from None
    return value


_ARGUMENT: dict[str, Callable[[KernelParam, Any], Any]] = {
    "tile": _tile_argument,
    "scalar": _scalar_argument,
    "constexpr": _constexpr,
}
