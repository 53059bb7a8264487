"""Kernels whose body is not traced: C++ for the NPU, a Python function for the CPU.

`@kernel(cpp_src=..., cpu=function)` keeps the signature of a kernel, so that tasks, directions, hazards and partial
tiles are those of any other; what happens inside is the user's. The graph of such a kernel holds its parameters and
a CustomBody, no operations. Start reading at `CustomBody`; `call` is what the CPU function is given.
"""

from __future__ import annotations

import dis
import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CellType, CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from pto_wsp.arguments import is_sequence
from pto_wsp.errors import CompileError, OperandError, SourceLine, UsageError
from pto_wsp.scalar_expr import task_param
from pto_wsp.trace import c_expr
from pto_wsp.trace.ops import ref_cast
from pto_wsp.types import DType

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pto_wsp.trace.graph import KernelGraph, Number

__all__ = ["CORES", "HALVES", "CustomBody", "call", "checked_options", "python_function", "rebuilt"]

CORES = ("AIV", "AIC", "MIX")
HALVES = (DType.F16, DType.BF16)
"""Dtypes that CPU bodies see as float32: neither Python nor numba computes with them."""


@dataclass(frozen=True)
class CustomBody:
    """What stands in place of a kernel's operations.

    cpp         C++ text: of a function's body ("body") or of a whole translation unit ("unit"); None without one
    path        the file it was read from, "" for text given as such
    includes    what else the emitted file includes
    cpu         the user's function for the CPU, plain or numba's; None without one
    constants   (position in the signature, name, value) of the Constexpr parameters
    cycles      of one task: a number, or a C expression (see `checked_options`); None: one per element moved
    core        of the NPU that runs it: "AIV", "AIC" or "MIX" (a cube core and its two vector cores)
    workspace_bytes   of global memory that each running task of the C++ body needs beside its tiles
    """

    name: str
    cpp: str | None
    form: str
    path: str
    includes: tuple[str, ...]
    cpu: Any
    constants: tuple[tuple[int, str, Any], ...]
    cycles: int | str | None
    core: str
    workspace_bytes: int
    line: SourceLine | None

    @property
    def function(self) -> Any:
        """The CPU body as a Python function. raises CompileError when there is none"""
        if self.cpu is None:
            raise CompileError(
                f"kernel {self.name} has a C++ body, which runs on the NPU only. To run it on the CPU give it a numba"
                " function as well: @kernel(..., cpu=function)."
            ).at(self.line)
        return python_function(self.cpu)

    def arguments(self, values: Sequence[Any]) -> list[Any]:
        """The body's arguments in signature order: those of tiles and scalars, with the constants between them."""
        found = list(values)
        for position, _, value in self.constants:
            found.insert(position, value)
        return found


def python_function(cpu: Any) -> Any:
    """The Python function behind what was given as cpu=."""
    found = getattr(cpu, "py_func", cpu)
    assert isinstance(found, FunctionType)
    return found


# ---- options of @kernel --------------------------------------------------------------------------------------------


def checked_options(
    src: str | None,
    body: Any,
    unit: Any,
    includes: Iterable[str] | None,
    cpu: Any,
    cycles: int | str | None,
    core: str | None,
    workspace_bytes: int | None,
) -> dict[str, Any]:
    """The options that describe a custom body, as they are kept in `kernel.options`; files are read now.

    raises  ValueError for two C++ sources, for text that is not UTF-8 and for options without a body; FileNotFoundError
    """
    sources = [n for n, v in (("cpp_src", src), ("cpp_body_path", body), ("cpp_tu_path", unit)) if v is not None]
    if len(sources) > 1:
        raise ValueError(f"a kernel has one C++ source; got {' and '.join(sources)}.")
    details = {
        "cpp_includes": includes, "cycles": cycles, "cpp_core": core, "cpp_workspace_bytes": workspace_bytes,
    }  # fmt: skip
    made: dict[str, Any] = {name: value for name, value in details.items() if value is not None}
    if made and not sources and (cpu is None or made.keys() - {"cycles"}):
        raise ValueError(
            f"{', '.join(made)}: only a kernel with a C++ body (cpp_src=, cpp_body_path=, cpp_tu_path=)"
            + (" or a CPU body (cpu=) has that." if "cycles" in made else " has that.")
        )
    if src is not None:
        made["cpp_src"] = _text(src)
    if body is not None:
        made |= {"cpp_src": _read(body), "cpp_src_path": str(body)}
    if unit is not None:
        made |= {"cpp_file_src": _read(unit), "cpp_file_path": str(unit)}
    if includes is not None:
        made["cpp_includes"] = checked_includes(includes)
    if core is not None and core not in CORES:
        raise ValueError(f"cpp_core is one of {', '.join(CORES)}; got {core!r}.")
    if workspace_bytes is not None and not (_is_count(workspace_bytes)):
        raise ValueError(f"cpp_workspace_bytes is a number of bytes, 0 or more; got {workspace_bytes!r}.")
    if cycles is not None and not isinstance(cycles, str) and not (_is_count(cycles) and cycles < 1 << 62):
        raise ValueError(f"cycles is a whole number, 0 or more, or a C expression as text; got {cycles!r}.")
    if cpu is not None:
        made["cpu"] = cpu
    return made


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _text(source: Any) -> str:
    if not isinstance(source, str):
        raise TypeError(f"cpp_src is C++ text; got {source!r}. For a file write cpp_body_path=.")
    return source


def _read(path: Any) -> str:
    """The text of a C++ file. raises FileNotFoundError; ValueError when it is not UTF-8"""
    if not isinstance(path, (str, os.PathLike)) or not str(path):
        raise TypeError(f"cpp_body_path and cpp_tu_path name a file; got {path!r}. For C++ text write cpp_src=.")
    raw = Path(path).read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text: byte {raw[error.start]:#04x} at offset {error.start}. Save it as UTF-8."
        ) from None


def checked_includes(names: Any) -> list[str]:
    """cpp_includes= as a list; one name stands for a list of it. raises ValueError"""
    if isinstance(names, str):
        names = [names]
    return [_include(name) for name in (names if is_sequence(names) else [names])]


def _include(name: Any) -> str:
    if not isinstance(name, str) or not name or any(c in name for c in '"\n\r\\') or name != name.strip():
        raise ValueError(f'cpp_includes lists files as #include lines name them, "a/b.h" or "<memory>"; got {name!r}.')
    return name


def check_cpu(name: str, cpu: Any, params: int) -> None:
    """raises UsageError unless `cpu` is a function that takes the kernel's arguments"""
    found = getattr(cpu, "py_func", cpu)
    if not isinstance(found, FunctionType):
        raise UsageError(
            f"kernel {name}: cpu= is a Python function or one compiled by numba.njit; got {cpu!r}."
        )
    try:
        inspect.signature(found).bind(*[None] * params)
    except TypeError:
        wanted = f"{params} argument{'s' * (params != 1)}, those of the kernel in order"
        signature = f"{found.__name__}{inspect.signature(found)}"
        raise UsageError(f"kernel {name}: its CPU body {signature} is given {wanted}.") from None


def check_cycles(name: str, cycles: Any, tiles: Sequence[str], integers: Sequence[str]) -> None:
    """raises OperandError unless the C expression names what `c_expr.added_cycles` knows"""
    if not isinstance(cycles, str):
        return
    leaves = {leaf: task_param(0) for leaf in (*c_expr.extent_names(tiles), *integers)}
    try:
        c_expr.to_expr(c_expr.parse(cycles), leaves)
    except OperandError as error:
        raise OperandError(f"kernel {name}, cycles=: {error.message}") from None


# ---- on the CPU ------------------------------------------------------------------------------------------------------


def call(graph: KernelGraph, arrays: Sequence[NDArray[Any]], scalars: Sequence[Number]) -> None:
    """Run the CPU body of a custom kernel as plain Python on the valid elements of its tiles.

    Tiles come as arrays [valid rows, valid columns] of any strides, In ones read-only. F16 and BF16 tiles come as
    float32 copies; what an Out or InOut one holds in the end is rounded to the tile's dtype, nearest even. Scalars are
    ints and NumPy floats, Constexpr values are as they were given.
    """
    assert graph.custom is not None
    tiles = dict(zip((p.name for p in graph.tile_params), arrays, strict=True))
    numbers = dict(zip((p.name for p in graph.scalar_params), scalars, strict=True))
    views: dict[str, NDArray[Any]] = {}
    values: list[Any] = []
    for param in graph.params:
        dtype = param.type.dtype
        if not param.is_tile:
            values.append(scalar_value(numbers[param.name], dtype))
            continue
        view = tiles[param.name].astype(np.float32) if dtype in HALVES else tiles[param.name].view()
        view.flags.writeable = param.direction != "in"
        values.append(views.setdefault(param.name, view))
    made = rebuilt(graph.custom.function, {}, lambda function, _: function)(*graph.custom.arguments(values))
    if made is not None:
        raise TypeError(f"the CPU body of {graph.name} returns {made!r}; results are written to its Out arrays")
    for param in graph.tile_params:
        if param.direction != "in" and param.type.dtype in HALVES:
            tiles[param.name][...] = ref_cast(views[param.name], param.type.dtype)


def rebuilt(
    function: FunctionType,
    options: dict[str, Any],
    make: Callable[[FunctionType, dict[str, Any]], Any],
    made: dict[FunctionType, Any] | None = None,
) -> Any:
    """A copy of `function` as `make(function, options)` makes it, and made so as well whatever numba functions it uses.

    So that no code runs that numba compiled without bounds checks: neither in machine code nor in plain Python.
    options   what the user gave to numba.njit
    raises    CompileError for a function that calls itself, as the stack would overflow where nothing can catch it,
              and for other compiled code than numba.njit's
    """
    made = {} if made is None else made
    if function in made:
        if made[function] is None:
            raise CompileError(
                f"{function.__name__} calls itself, directly or through others; a CPU body and its helpers must not, as"
                " nothing would stop them at the end of the stack. Write a loop."
            ).at(_line_of(function))
        return made[function]
    made[function] = None  # being made
    names = _names(function.__code__)

    def again(value: Any) -> Any:
        return _remade(value, names, make, made, function)

    known = dict(function.__globals__)
    known |= {name: again(known[name]) for name in sorted(_global_names(function.__code__) & known.keys())}
    cells = tuple(CellType(again(_content(cell))) for cell in function.__closure__ or ())
    defaults = function.__defaults__ and again(function.__defaults__)
    copied = FunctionType(function.__code__, known, function.__name__, defaults, cells or None)
    copied.__kwdefaults__ = function.__kwdefaults__ and {n: again(v) for n, v in function.__kwdefaults__.items()}
    copied.__module__ = function.__module__
    made[function] = make(copied, options)
    return made[function]


_UNCHECKED = ("CFunc", "DUFunc", "GUFunc", "JitClassType", "StencilFunc")  # what numba makes beside njit's functions


def _remade(
    value: Any, names: set[str], make: Callable[..., Any], made: dict[FunctionType, Any], user: FunctionType
) -> Any:
    """A numba function made anew; a tuple or a module that has some with them made anew; anything else as it is."""
    if _is_compiled(value):
        return rebuilt(value.py_func, value.targetoptions, make, made)
    if isinstance(value, tuple):
        parts = [_remade(part, names, make, made, user) for part in value]
        same = all(a is b for a, b in zip(parts, value, strict=True))
        return value if same else type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    kind = type(value)
    foreign = any(base.__module__ == "_ctypes" for base in kind.__mro__)
    if foreign or kind.__module__.split(".")[0] == "numba" and kind.__name__ in _UNCHECKED:
        raise CompileError(
            f"{user.__name__} uses {getattr(value, '__name__', value)!r}, a {kind.__name__}: code whose indices nobody"
            " checks. Write it as a numba.njit function."
        ).at(_line_of(user))
    if not isinstance(value, ModuleType) or value.__name__.split(".")[0] in ("numpy", "numba", "math"):
        return value
    used = {name: getattr(value, name) for name in names & vars(value).keys()}
    remade = {name: _remade(part, names, make, made, user) for name, part in used.items()}
    if all(remade[name] is used[name] for name in used):
        return value
    copied = ModuleType(value.__name__)
    vars(copied).update(vars(value) | remade)
    return copied


def _is_compiled(value: Any) -> bool:
    return isinstance(getattr(value, "py_func", None), FunctionType) and hasattr(value, "targetoptions")


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not bound
        return None


def _names(code: CodeType) -> set[str]:
    """The names of globals and attributes in a function, and in the functions inside it."""
    inside = (_names(inner) for inner in code.co_consts if isinstance(inner, CodeType))
    return set(code.co_names).union(*inside)


def _global_names(code: CodeType) -> set[str]:
    """The names of globals in a function, and in the functions inside it."""
    inside = (_global_names(inner) for inner in code.co_consts if isinstance(inner, CodeType))
    own = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return own.union(*inside)


def _line_of(function: FunctionType) -> SourceLine:
    code = function.__code__
    return SourceLine(code.co_filename, code.co_firstlineno, code.co_firstlineno, None, None, code.co_name)


def scalar_value(value: Number, dtype: DType) -> Any:
    """A scalar argument as a CPU body sees it."""
    from pto_wsp.trace.interpret import as_scalar

    word = as_scalar(value, dtype)
    if dtype.is_int:
        return int(word)
    return np.float64(word) if dtype is DType.F64 else np.float32(word)


def constants_of(params: Sequence[Any], constexprs: Mapping[str, Any]) -> tuple[tuple[int, str, Any], ...]:
    """The Constexpr parameters of a signature: position, name and value."""
    return tuple((i, p.name, constexprs[p.name]) for i, p in enumerate(params) if p.name in constexprs)


