"""Copies of [rows, cols] elements between any two strides, transposes included: machine code that all kernels share.

A kernel calls `pto_wsp_copy_<bytes of an element>` where its operands may have to be copied, which is in most kernels
and mostly does not happen. So the function is not part of each of them: it is compiled once on a machine, and linked to
a kernel when that is loaded.

    void pto_wsp_copy_4(ptr to, i64 to_rows, i64 to_cols, ptr from, i64 from_rows, i64 from_cols, i64 rows, i64 cols)

Strides are in bytes and of any sign; the two regions must not overlap.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from pto_wsp.types import DType

__all__ = ["NAMES", "address", "declared", "name"]

ELEMENTS = {d.itemsize: d for d in (DType.I8, DType.I16, DType.I32, DType.I64)}
VECTOR_BYTES = 32


def name(size: int) -> str:
    """The function that copies elements of so many bytes."""
    return f"pto_wsp_copy_{size}"


NAMES = tuple(name(size) for size in ELEMENTS)


def declared(module: Any, size: int) -> Any:
    """That function for calls from an llvmlite module."""
    from llvmlite import ir as llvm

    if name(size) not in module.globals:
        pointer, word = llvm.PointerType(), llvm.IntType(64)
        kinds = [pointer, word, word] * 2 + [word, word]
        llvm.Function(module, llvm.FunctionType(llvm.VoidType(), kinds), name(size))
    return module.globals[name(size)]


def address(symbol: str) -> int:
    """Address of one of the functions in this process."""
    return int(_code().address(symbol))


@cache
def _code() -> Any:
    from pto_wsp.lower import jit

    return jit.load("pto_wsp copies", ir)


def ir() -> str:
    """The LLVM IR of all of them, for this machine."""
    from llvmlite import ir as llvm

    from pto_wsp.lower import jit, matmul

    module, target = llvm.Module(name="copies"), matmul.Target.of(*jit.cpu_features(jit.HOST))
    for size, dtype in ELEMENTS.items():
        matmul.emit_copy(module, name(size), dtype, VECTOR_BYTES // size, target)
    return str(module)
