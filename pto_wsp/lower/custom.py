"""The CPU body of a custom kernel -> machine code, by numba, called like every kernel: `void f(ptr args, ptr scratch)`.

The user's function is compiled anew, with bounds checks and for just these types: a wrong index is an error, In tiles
are read-only, nothing of it needs the GIL. An exception leaves the body as numba leaves it, without Python: what was
raised, and for which row of arguments, is noted in the RECORD words before the scratch memory, and the stop word there
is set; the thread that waits for the tasks turns that into an error (`raised`).

Not checked: whether a body ends. One that loops for ever holds up Ctrl-C, which waits for the running tasks; try
such a body with target="numpy" first. Start reading at `load`.
"""

from __future__ import annotations

import operator
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import FunctionType
from typing import Any
from weakref import WeakKeyDictionary

from pto_wsp.errors import CompileError, SourceLine, UsageError
from pto_wsp.lower.tasks import TILE_WORDS
from pto_wsp.trace.custom import HALVES, CustomBody, rebuilt
from pto_wsp.trace.graph import KernelGraph, Param
from pto_wsp.types import DType

__all__ = ["ARGS", "CODE", "FAILED", "INFO", "RECORD", "STOP", "Body", "load", "raised"]

RECORD = 8
"""Words before the scratch memory in which a custom kernel notes its failure."""
FAILED, ARGS, CODE, INFO, STOP = range(5)  # set; address of the task's arguments; numba's status; address of "stop"

_KEPT_OPTIONS = ("fastmath", "error_model", "inline")  # of the user's njit; tasks are what runs in parallel


@dataclass(eq=False)
class Body:
    """The machine code of a CPU body; valid while this lives."""

    address: int
    phases: dict[str, float]  # what was done to get it -> milliseconds
    _body: Any = field(repr=False)
    _entry: Any = field(repr=False)

    @property
    def loops(self) -> str:
        """Refused: a body that is not traced has no loop nests."""
        name = self._body.__name__
        raise UsageError(f"{name} is a CPU body, which has no loop nests of ours; numba made its .llvm and .asm.")

    @property
    def ir(self) -> str:
        """numba's LLVM IR."""
        return "\n".join(self._body.inspect_llvm().values())

    @property
    def asm(self) -> str:
        """Assembly text."""
        return "\n".join(self._body.inspect_asm().values())


_LOADED: WeakKeyDictionary[KernelGraph, Body] = WeakKeyDictionary()


def load(graph: KernelGraph) -> Body:
    """Machine code of a custom kernel's CPU body, for full and partial tiles alike; made once per graph and process.

    raises  CompileError, at the user's line, when there is no CPU body or numba refuses it
    """
    assert graph.custom is not None
    if graph not in _LOADED:
        function, begin = graph.custom.function, time.perf_counter()
        try:
            body, entry = _compile(graph, function)
        except CompileError:
            raise
        except Exception as error:  # numba's own, of many kinds
            raise _refused(graph.custom, function, error) from None
        _LOADED[graph] = Body(int(entry.address), {"numba": (time.perf_counter() - begin) * 1e3}, body, entry)
    return _LOADED[graph]


def raised(code: int, info: int) -> BaseException:
    """The exception that a body was left with, from the words CODE and INFO. To be asked once."""
    if code < 0:
        return RuntimeError("Python code inside the body raised an exception (numba's object mode)")
    try:
        _raise_again()(code, info)
    except BaseException as error:
        return error
    raise AssertionError("numba did not raise what it had noted")


# ---- machine code --------------------------------------------------------------------------------------------------


def _compile(graph: KernelGraph, function: FunctionType) -> tuple[Any, Any]:
    """The user's function, and the entry that a task calls."""
    import numba

    assert graph.custom is not None
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]  # set from the environment
        raise CompileError(
            f"numba is switched off (NUMBA_DISABLE_JIT), so it cannot compile the CPU body of kernel {graph.name}."
            " Unset the variable, or compile with target='numpy', which runs the body as plain Python."
        ).at(graph.custom.line)
    _refuse_numbers(graph)

    made: list[Any] = []

    def checked(function: FunctionType, options: dict[str, Any]) -> Any:
        kept = {name: options[name] for name in _KEPT_OPTIONS if name in options}
        made.append(numba.njit(nogil=True, boundscheck=True, **kept)(function))
        return made[-1]

    body = rebuilt(function, getattr(graph.custom.cpu, "targetoptions", {}), checked)
    adapter = _adapter(numba, graph, body)
    types = tuple(_numba_type(numba, p) for p in graph.params)
    adapter.compile(types)
    for part in made:
        _refuse_unchecked(numba, part)
    kinds = [made.signature.return_type for made in body.overloads.values()]
    returned = {str(getattr(kind, "literal_type", kind)) for kind in kinds} - {"none"}
    if returned:
        raise CompileError(
            f"the CPU body {function.__name__} of kernel {graph.name} returns {returned.pop()}; results are written to"
            " its Out arrays, and what a task costs is cycles=."
        ).at(_line_of(function))
    return body, _entry(numba, graph, adapter.overloads[types])


def _refuse_unchecked(numba: Any, part: Any) -> None:
    """raises CompileError where a function leaves the arrays that it was given in a way that numba does not check"""
    import numpy as np

    unchecked = (np.lib.stride_tricks.as_strided, numba.carray, numba.farray)
    name_of = operator.attrgetter("__name__")
    flat, nditer, array = numba.types.NumpyFlatType, numba.types.NumpyNdIterType, numba.types.Array
    for overload in part.overloads.values():
        notes = overload.type_annotation
        for node, call in notes.calltypes.items():
            given, result = getattr(call, "args", ()), getattr(call, "return_type", None)
            op = getattr(node, "op", "setitem")
            key = getattr(notes.typemap.get(node.func.name), "typing_key", None) if op == "call" else None
            frozen = any(isinstance(one, array) and not one.mutable for one in given)
            if any(key is one for one in unchecked):
                what = f"{name_of(key)}, which may reach beyond an array; use slices and reshape"
            elif given and isinstance(given[0], flat) and op in ("getitem", "static_getitem", "setitem"):
                what = "an index into .flat, which numba does not check; write two indices, or x.ravel()[i] for a copy"
            elif isinstance(result, nditer) and frozen:
                what = "np.nditer over an In tile, which makes it writable; use np.ndindex"
            elif frozen and any(key is one for one in (np.ascontiguousarray, np.asfortranarray)):
                what = f"np.{name_of(key)} of an In tile, which makes it writable; write x.copy()"
            else:
                continue
            name = part.py_func.__name__
            raise CompileError(f"a CPU body must not use what is not checked: {name} has {what}.").at(
                _line_of(part.py_func, node.loc.line)
            )


def _refuse_numbers(graph: KernelGraph) -> None:
    assert graph.custom is not None
    for _, name, value in graph.custom.constants:
        if not isinstance(value, (bool, int, float, str, tuple)):
            raise CompileError(
                f"kernel {graph.name}: numba cannot be given {name} = {value!r}; a Constexpr of a CPU body is a number,"
                " a text or a tuple of them."
            ).at(graph.custom.line)


def _numba_type(numba: Any, param: Param) -> Any:
    """What the entry hands over for a parameter: a strided array, or a number."""
    dtype = param.type.dtype
    element = numba.uint16 if dtype in HALVES else getattr(numba, dtype.numpy.name)
    if param.is_tile:
        return numba.types.Array(element, 2, "A", readonly=param.direction == "in")
    if dtype.is_int:
        return numba.int64 if dtype.is_signed else numba.uint64
    return element


def _adapter(numba: Any, graph: KernelGraph, body: Any) -> Any:
    """A function of the parameters that calls the body: F16 and BF16 tiles become float32 arrays and back."""
    assert graph.custom is not None
    known: dict[str, Any] = {"body": body}
    before, after, values = [], [], []
    for i, param in enumerate(graph.params):
        half = param.type.dtype in HALVES
        if half and not param.is_tile:
            known[f"widen{i}"] = _widened_number(param.type.dtype)
            before.append(f"  w{i} = widen{i}(a{i})")
        elif half:
            known |= {f"widen{i}": _widened(param.type.dtype), "read_only": _read_only(numba)}
            wide = f"widen{i}(a{i})"
            before.append(f"  w{i} = {f'read_only({wide})' if param.direction == 'in' else wide}")
            if param.direction != "in":
                known[f"narrow{i}"] = _narrowed(param.type.dtype)
                after.append(f"  narrow{i}(w{i}, a{i})")
        values.append(f"{'w' if half else 'a'}{i}")
    for position, _, value in graph.custom.constants:
        known[f"c{position}"] = value
        values.insert(position, f"c{position}")
    parameters = ", ".join(f"a{i}" for i in range(len(graph.params)))
    text = "\n".join([f"def adapter({parameters}):", *before, f"  body({', '.join(values)})", *after, ""])
    exec(text, known)
    return numba.njit(nogil=True)(known["adapter"])


def _entry(numba: Any, graph: KernelGraph, made: Any) -> Any:
    """`void entry(ptr args, ptr scratch)` around the compiled adapter."""
    from llvmlite import ir

    i64 = ir.IntType(64)

    def at(builder: Any, words: Any, k: int) -> Any:
        return builder.gep(words, [ir.Constant(i64, k)])

    def values(context: Any, builder: Any, words: Any) -> list[Any]:
        found, tile, scalar = [], 0, TILE_WORDS * len(graph.tile_params)
        for param, kind in zip(graph.params, made.signature.args, strict=True):
            if param.is_tile:
                given = [builder.load(at(builder, words, tile + k)) for k in range(TILE_WORDS)]
                found.append(_array(context, builder, kind, given))
                tile += TILE_WORDS
            else:
                found.append(_number(context, builder, kind, builder.load(at(builder, words, scalar))))
                scalar += 1
        return found

    def generate(context: Any, builder: Any, signature: Any, given: Sequence[Any]) -> Any:
        words, scratch = given
        record = at(builder, scratch, -RECORD)
        failed = builder.load(at(builder, record, FAILED))
        with builder.if_then(builder.icmp_unsigned("==", failed, ir.Constant(i64, 0)), likely=True):
            context.add_linking_libs((made.library,))
            status, _ = context.call_internal_no_propagate(
                builder, made.fndesc, made.signature, values(context, builder, words)
            )
            with builder.if_then(status.is_error, likely=False):
                with builder.if_then(status.is_python_exc):
                    python = context.get_python_api(builder)
                    lock = python.gil_ensure()
                    python.err_clear()
                    python.gil_release(lock)
                for k, value in ((ARGS, builder.ptrtoint(words, i64)), (CODE, builder.sext(status.code, i64)),
                                 (INFO, builder.ptrtoint(status.excinfoptr, i64)), (FAILED, ir.Constant(i64, 1))):
                    builder.store(value, at(builder, record, k))
                stop = builder.load(at(builder, record, STOP))
                with builder.if_then(builder.icmp_unsigned("!=", stop, ir.Constant(i64, 0))):
                    builder.store(ir.Constant(i64, 1), builder.inttoptr(stop, i64.as_pointer()))
        return context.get_dummy_value()

    pointer = numba.types.CPointer(numba.int64)

    @numba.extending.intrinsic  # type: ignore[untyped-decorator]
    def invoke(typing: Any, args: Any, scratch: Any) -> Any:
        return numba.void(args, scratch), generate

    def entry(args: Any, scratch: Any) -> None:
        invoke(args, scratch)

    return numba.cfunc(numba.void(pointer, pointer))(entry)


def _array(context: Any, builder: Any, kind: Any, words: Sequence[Any]) -> Any:
    """numba's array over the memory that five argument words describe; it owns nothing."""
    from numba.np.arrayobj import populate_array

    address, row_stride, column_stride, rows, columns = words
    made = context.make_array(kind)(context, builder)
    data = builder.inttoptr(address, context.get_data_type(kind.dtype).as_pointer())
    itemsize = kind.dtype.bitwidth // 8
    populate_array(  # type: ignore[no-untyped-call]
        made, data, [rows, columns], [row_stride, column_stride], itemsize, None
    )
    return made._getvalue()


def _number(context: Any, builder: Any, kind: Any, word: Any) -> Any:
    """The number in the low bits of an argument word."""
    from llvmlite import ir

    bits = builder.trunc(word, ir.IntType(kind.bitwidth)) if kind.bitwidth < 64 else word
    wanted = context.get_value_type(kind)
    return bits if bits.type == wanted else builder.bitcast(bits, wanted)


def _read_only(numba: Any) -> Any:
    @numba.extending.intrinsic  # type: ignore[untyped-decorator]
    def read_only(typing: Any, array: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, given: Sequence[Any]) -> Any:
            return numba.core.imputils.impl_ret_borrowed(context, builder, signature.return_type, given[0])

        return array.copy(readonly=True)(array), generate

    return read_only


@cache
def _raise_again() -> Callable[[int, int], None]:
    """A function that raises what a body was left with: numba's status, and the address of what belongs to it."""
    import numba
    from llvmlite import ir
    from numba.core import callconv, cgutils

    @numba.extending.intrinsic
    def leave(typing: Any, code: Any, info: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, given: Sequence[Any]) -> Any:
            status = callconv.Status(
                code=builder.trunc(given[0], ir.IntType(32)),
                excinfoptr=builder.inttoptr(given[1], ir.PointerType(callconv.excinfo_t)),
                is_ok=cgutils.false_bit, is_none=cgutils.false_bit, is_error=cgutils.true_bit,
                is_stop_iteration=cgutils.false_bit, is_python_exc=cgutils.false_bit, is_user_exc=cgutils.true_bit,
            )  # fmt: skip
            with builder.if_then(cgutils.true_bit):
                context.call_conv.return_status_propagate(builder, status)
            return context.get_dummy_value()

        return numba.void(code, info), generate

    def raise_again(code: int, info: int) -> None:
        leave(code, info)  # type: ignore[call-arg]  # numba adds the first one

    compiled: Callable[[int, int], None] = numba.njit(numba.void(numba.int64, numba.int64))(raise_again)
    return compiled


# ---- f16 and bf16, which numba does not compute with ---------------------------------------------------------------
# Bits in, bits out, as int64: numba keeps the types of such arithmetic apart from those of the tiles.


def _f32_bits_of_f16(h: int) -> int:
    sign, rest = (h & 0x8000) << 16, h & 0x7FFF
    if rest >= 0x7C00:  # infinities and NaN
        return sign | 0x7F800000 | (rest & 0x3FF) << 13
    if rest >= 0x400:
        return sign | (rest << 13) + 0x38000000
    if rest == 0:
        return sign
    exponent = 113
    while rest < 0x400:  # a subnormal number is a normal one in f32
        rest, exponent = rest << 1, exponent - 1
    return sign | exponent << 23 | (rest & 0x3FF) << 13


def _f16_bits_of_f32(x: int) -> int:
    sign, rest = x >> 16 & 0x8000, x & 0x7FFFFFFF
    if rest > 0x7F800000:
        return sign | 0x7E00 | rest >> 13 & 0x3FF
    if rest >= 0x477FF000:  # 65520 and more
        return sign | 0x7C00
    if rest >= 0x38800000:
        return sign | rest - 0x38000000 + 0xFFF + (rest >> 13 & 1) >> 13
    if rest < 0x33000000:  # less than half of the least
        return sign
    shift = 126 - (rest >> 23)
    kept = rest & 0x7FFFFF | 0x800000
    return sign | kept + (1 << shift - 1) - 1 + (kept >> shift & 1) >> shift


def _f32_bits_of_bf16(h: int) -> int:
    return h << 16


def _bf16_bits_of_f32(x: int) -> int:
    if x & 0x7FFFFFFF > 0x7F800000:
        return x >> 16 | 0x40
    return x + 0x7FFF + (x >> 16 & 1) >> 16


_TO_F32 = {DType.F16: _f32_bits_of_f16, DType.BF16: _f32_bits_of_bf16}
_FROM_F32 = {DType.F16: _f16_bits_of_f32, DType.BF16: _bf16_bits_of_f32}


@cache
def _widened(dtype: DType) -> Any:
    """(bits [rows, cols]) -> a new float32 array."""
    import numba
    import numpy as np

    convert = numba.njit(_TO_F32[dtype])

    def widened(bits: Any) -> Any:
        made = np.empty(bits.shape, np.uint32)
        for i in range(bits.shape[0]):
            for j in range(bits.shape[1]):
                made[i, j] = convert(np.int64(bits[i, j]))
        return made.view(np.float32)

    return numba.njit(nogil=True)(widened)


@cache
def _narrowed(dtype: DType) -> Any:
    """(float32 array, bits [rows, cols]): rounds the one into the other, nearest even."""
    import numba
    import numpy as np

    convert = numba.njit(_FROM_F32[dtype])

    def narrowed(values: Any, bits: Any) -> None:
        given = values.view(np.uint32)
        for i in range(bits.shape[0]):
            for j in range(bits.shape[1]):
                bits[i, j] = convert(np.int64(given[i, j]))

    return numba.njit(nogil=True)(narrowed)


@cache
def _widened_number(dtype: DType) -> Any:
    """bits -> a float32."""
    import numba
    import numpy as np

    convert = numba.njit(_TO_F32[dtype])

    def widened(bits: Any) -> Any:
        return np.array([convert(np.int64(bits))], np.int64).astype(np.uint32).view(np.float32)[0]

    return numba.njit(nogil=True)(widened)


# ---- refusals --------------------------------------------------------------------------------------------------------


def _line_of(function: FunctionType, line: int = 0) -> SourceLine:
    code = function.__code__
    line = line or code.co_firstlineno
    return SourceLine(code.co_filename, line, line, None, None, code.co_name)


def _refused(body: CustomBody, function: FunctionType, error: Exception) -> CompileError:
    """numba's complaint, at the line of the body that it is about."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    places = re.findall(r'File "([^"]+)", line (\d+)', text)
    own = os.path.basename(function.__code__.co_filename)
    lines = [int(line) for file, line in places if os.path.basename(file) == own]
    said = [line.strip() for line in re.split(r'\n\s*File "', text)[0].splitlines()]
    said = [line for line in said if line and not line.startswith(("Failed in nopython", "During:"))]
    message = f"numba refuses the CPU body {function.__name__} of kernel {body.name}: {' '.join(said[:4])}"
    if "setitem" in text and "readonly" in text:
        message = (
            f"the CPU body {function.__name__} of kernel {body.name} writes to an In tile, which is read-only; declare"
            " the parameter Out[...] or InOut[...]"
        )
    return CompileError(message.rstrip(".:") + ".").at(_line_of(function, lines[-1] if lines else 0))
