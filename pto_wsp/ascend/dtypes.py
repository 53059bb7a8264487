"""What an A2/A3 core makes of each dtype: its C type, the conversions it has, what it refuses; numbers as C++ text."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from pto_wsp.errors import CompileError
from pto_wsp.trace.graph import Node
from pto_wsp.types import DType

F16, BF16, F32 = DType.F16, DType.BF16, DType.F32
I8, I16, I32, I64 = DType.I8, DType.I16, DType.I32, DType.I64
U8, U16, U32 = DType.U8, DType.U16, DType.U32

C_TYPES = {
    F16: "half",
    BF16: "bfloat16_t",
    F32: "float",
    DType.F64: "double",
    I8: "int8_t",
    I16: "int16_t",
    I32: "int32_t",
    I64: "int64_t",
    U8: "uint8_t",
    U16: "uint16_t",
    U32: "uint32_t",
    DType.U64: "uint64_t",
}

REFUSED = {
    DType.F64: "A2/A3 vector cores have no 64-bit floats",
    DType.U64: "A2/A3 has no unsigned 64-bit arithmetic",
    I64: "A2/A3 vector cores have no 64-bit integer arithmetic",
}

# Conversions the unit has, and its rounding mode for each; int32 to half would need SetDeqScale, so it goes by float.
CASTS: dict[tuple[DType, DType], str] = {
    (F16, F32): "NONE",
    (F32, F16): "RINT",
    (F32, BF16): "RINT",
    (BF16, F32): "NONE",
    (F16, I8): "TRUNC",
    (F16, U8): "TRUNC",
    (I8, F16): "NONE",
    (U8, F16): "NONE",
    (F16, I16): "TRUNC",
    (F16, I32): "TRUNC",
    (F32, I16): "TRUNC",
    (F32, I32): "TRUNC",
    (F32, I64): "TRUNC",
    (I16, F16): "RINT",
    (I16, F32): "NONE",
    (I32, F32): "RINT",
    (I32, I16): "NONE",
    (I32, I64): "NONE",
    (I64, I32): "NONE",
    (I64, F32): "RINT",
}


def refuse(node: Node | None, what: str) -> CompileError:
    error = CompileError(what)
    return error.at(node.line) if node is not None and node.line is not None else error


def literal(value: Any, dtype: DType) -> str:
    """A number as a C++ expression of `dtype`'s own C type (half and bfloat16_t: of float)."""
    if dtype.is_int:
        number = int(value)
        if dtype is I64:
            return "INT64_MIN" if number == -(1 << 63) else f"{number}LL"
        if dtype is DType.U64:
            return f"{number}ULL"
        if dtype is I32 and number == -(1 << 31):
            return "INT32_MIN"
        return f"{number}u" if dtype is U32 else str(number)
    with np.errstate(all="ignore"):
        rounded = np.float32(np.float64(value).astype(dtype.numpy)) if dtype is not F32 else np.float32(value)
    if not np.isfinite(rounded):
        bits = struct.unpack("<I", struct.pack("<f", float(rounded)))[0]
        return f"FromBits(0x{bits:08x}u)"
    return str(rounded) + "f"  # the shortest text of a float; format() would give that of a double


def compute_dtype(dtype: DType, allowed: tuple[DType, ...]) -> DType:
    """The dtype in which a call is made for elements of `dtype`."""
    if dtype in allowed:
        return dtype
    if dtype.is_float or I32 not in allowed:
        return F32
    return I16 if dtype in (I8, U16) and I16 in allowed else I32
