"""Python loops over arrays -> machine code, by numba, kept in the same cache on disk as the code of kernels.

In: a function of ints and arrays that returns an int and calls only functions of that kind. Out: a function that takes
the same arguments and releases the GIL. Importing numba and compiling takes seconds; so numba is asked once, and later
processes load the machine code without importing it. Start reading at `compiled`.
"""

from __future__ import annotations

import ctypes
import inspect
import os
import re
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import numpy as np

from pto_wsp.lower import jit

__all__ = ["compiled", "from_cache"]

_NUMBA_ARRAY = ("ptr", "ptr", "i64", "i64", "ptr", "i64", "i64")  # owner, parent, items, item size, data, shape, stride


def compiled(function: Callable[..., int], types: Sequence[str]) -> Callable[..., int]:
    """`function` as machine code.

    types   of its arguments: "i64", "bool", or an array such as "i64[]", "i32[]", "u8[]": C-contiguous, one dimension
    With NUMBA_DISABLE_JIT=1 it is the function itself, to be stepped through.
    """
    if _disabled():
        return function
    return _callable(jit.load(_identity(function, types), lambda: _llvm(function, types)), types)


def from_cache(function: Callable[..., int], types: Sequence[str]) -> Callable[..., int] | None:
    """The same if it can be had at once, that is, when this machine has compiled it before; else None."""
    try:
        return None if _disabled() else _callable(jit.load(_identity(function, types), _refuse), types)
    except _NotCached:
        return None


class _NotCached(Exception):
    pass


def _refuse() -> str:
    raise _NotCached


def _disabled() -> bool:
    return os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")


def _callable(code: jit.Code, types: Sequence[str]) -> Callable[..., int]:
    entry = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(code.address("entry"))

    def call(*arguments: Any) -> int:
        words = [word for argument, name in zip(arguments, types, strict=True) for word in _words(argument, name)]
        return int(entry(np.array(words, np.int64).ctypes.data))

    call.code = code  # type: ignore[attr-defined]  # the machine code lives as long as its caller
    return call


_DTYPES = {"i64[]": np.dtype(np.int64), "i32[]": np.dtype(np.int32), "u8[]": np.dtype(np.uint8)}


def _words(argument: Any, name: str) -> tuple[int, ...]:
    """An int as it is; an array as address and length."""
    if name not in _DTYPES:
        return (int(argument),)
    if argument.dtype != _DTYPES[name] or argument.ndim != 1 or not argument.flags.c_contiguous:
        got = f"{argument.dtype} of shape {argument.shape}"
        raise TypeError(f"machine code was made for a contiguous {name}; got {got}")
    return argument.ctypes.data, argument.size


def _identity(function: Callable[..., int], types: Sequence[str]) -> str:
    """Text that determines the machine code: the source, and the constants that it names."""
    texts = []
    for part in _with_helpers(function):
        known = part.__globals__
        constants = [(name, known[name]) for name in part.__code__.co_names if isinstance(known.get(name), int)]
        texts.append(f"{inspect.getsource(part)}\n{constants}\n")
    return f"{''.join(texts)}{list(types)}"


def _with_helpers(function: Callable[..., int]) -> list[Any]:
    """The function and those that it calls, directly or through others."""
    found: list[Any] = [function]
    for part in found:
        found += [helper for helper in _called(part).values() if helper not in found]
    return found


def _called(function: Any) -> dict[str, Any]:
    """The Python functions that a function calls, by name."""
    known = {name: function.__globals__.get(name) for name in function.__code__.co_names}
    return {name: value for name, value in known.items() if isinstance(value, FunctionType)}


def _jitted(numba: Any, function: Any, made: dict[Any, Any], **options: Any) -> Any:
    """numba's dispatcher for a function; what it calls is compiled into it."""
    if function not in made:
        helpers = {name: _jitted(numba, helper, made) for name, helper in _called(function).items()}
        linked = FunctionType(function.__code__, {**function.__globals__, **helpers}, function.__name__)
        made[function] = numba.njit(**(options or {"inline": "always"}))(linked)
    return made[function]


def _llvm(function: Callable[..., int], types: Sequence[str]) -> str:
    """LLVM text of `entry(ptr words)`, which calls numba's code for the function."""
    import numba

    arguments = [_numba_type(numba, name) for name in types]
    made = _jitted(numba, function, {}, nogil=True, error_model="numpy")
    signature = numba.int64(*arguments)
    made.compile(signature)
    return _body(str(made.inspect_llvm(made.signatures[0]))) + _entry(types)


def _numba_type(numba: Any, name: str) -> Any:
    scalar = {"i64": numba.int64, "i32": numba.int32, "u8": numba.uint8, "bool": numba.boolean}[name.removesuffix("[]")]
    return numba.types.Array(scalar, 1, "C") if name.endswith("[]") else scalar


def _body(module: str) -> str:
    """The first function of numba's module, called @body: the others wrap it for Python. It need not count
    references, since its caller owns the arrays."""
    found = re.search(r"^define [^\n]*? i32 @(\S+?)\((.*?)^}\n", module, re.M | re.S)
    assert found is not None, "numba's module has no function of the expected form"
    lines = found.group(0).replace(found.group(1), "body", 1).splitlines()
    lines = [line for line in lines if "@NRT_incref" not in line and "@NRT_decref" not in line]
    text = re.sub(r", ![a-z.]+ !\d+", "", re.sub(r" #\d+", "", "\n".join(lines)))
    declared = re.findall(r"^declare [^\n]*@(?:llvm\.[a-z0-9.]+)\([^\n]*", module, re.M)
    return "\n".join([text, *(re.sub(r" #\d+", "", line) for line in declared)]) + "\n"


def _entry(types: Sequence[str]) -> str:
    """A function of one pointer: to the arguments in order, an array as address and length."""
    lines = ["define i64 @entry(ptr %words) {", "  %result = alloca i64", "  %error = alloca ptr"]
    passed, at = ["ptr %result", "ptr %error"], 0
    for name in types:
        of_array = name.endswith("[]")
        for part in range(2 if of_array else 1):
            lines.append(f"  %p{at + part} = getelementptr i64, ptr %words, i64 {at + part}")
            lines.append(f"  %w{at + part} = load i64, ptr %p{at + part}")
        if of_array:
            size, length = int(re.sub(r"\D", "", name)) // 8, f"%w{at + 1}"
            lines.append(f"  %d{at} = inttoptr i64 %w{at} to ptr")
            values = ("null", "null", length, size, f"%d{at}", length, size)
            passed += [f"{kind} {value}" for kind, value in zip(_NUMBA_ARRAY, values, strict=True)]
        elif name == "bool":
            lines.append(f"  %b{at} = trunc i64 %w{at} to i8")
            passed.append(f"i8 %b{at}")
        else:
            passed.append(f"i64 %w{at}")
        at += 2 if of_array else 1
    lines.append(f"  call i32 @body({', '.join(passed)})")
    return "\n".join([*lines, "  %value = load i64, ptr %result", "  ret i64 %value", "}", ""])
