"""Casts: the way from any dtype to any other, by the conversions that the vector unit has (`dtypes.CASTS`).

Float to integer truncates, integers wrap, as the op table's cast has it. `Writer.converted` keeps what is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pto_wsp.ascend.body import Scalar, Value
from pto_wsp.ascend.dtypes import CASTS, F16, F32, I8, I16, I32, I64, REFUSED, U8, U16, U32, refuse
from pto_wsp.ascend.rules import RULES
from pto_wsp.types import DType

if TYPE_CHECKING:
    from pto_wsp.ascend.writer import Writer

SATURATING = {(I32, I16), (I64, I32)}
"""Conversions of the unit that saturate where ours wrap."""


def convert(w: Writer, x: Value, dtype: DType) -> Value:
    """x in another dtype."""
    source = x.dtype
    if source in (DType.F64, DType.U64) or dtype in (DType.F64, DType.U64):
        bad = source if source in REFUSED else dtype
        raise refuse(w.node, f"cast from {source} to {dtype}: {REFUSED[bad]}.")
    if (source, dtype) in CASTS.keys() - SATURATING:
        return w.cast(x, dtype, CASTS[source, dtype])
    if source is U32 and dtype is I64:
        raise refuse(w.node, f"cast from {source} to {dtype}: 2201 makes i64 from i32 and f32 only.")
    between = _between(source, dtype)
    if between is not None:
        return w.converted(w.converted(x, between), dtype)
    if source is I64:
        return w.converted(_low_words(w, x), dtype)
    if source is F32:
        return _float_to_int(w, x, dtype)
    if dtype is F32:
        return _u32_to_float(w, x)
    return _int_to_int(w, x, dtype)


def _between(source: DType, dtype: DType) -> DType | None:
    """The dtype that the way goes by; None if it is one of computation."""
    if source is I64:
        return F32 if dtype.is_float else None
    if dtype is I64:
        return F32 if source.is_float else I32
    if source.is_float:
        return None if source is F32 else F32
    if not dtype.is_float:
        return None
    if source in (I8, U8):
        return F16
    if dtype is not F32:
        return F32
    return I32 if source is U16 else None


def _low_words(w: Writer, x: Value) -> Value:
    """The low halves of 64-bit integers: every second word."""
    result = w.tile(f"{x.buffer.hint}_low", I32, x.shape, x.once)
    call = gather_mask(result.text, w.seen_as(x, I32).text, 1, f"{w.count(x.shape)} * 2")
    w.step(["{", *(f"  {line}" for line in call), "}"], [x], [result], x.once)
    return result


def gather_mask(to: str, x: str, pattern: int, count: str) -> list[str]:
    """Every second of `count` elements: the first of each pair by pattern 1, the second by 2."""
    return [
        "uint64_t kept = 0;  // GatherMask counts into it",
        f"GatherMask({to}, {x}, {pattern}, true, {count}, {{1, 1, 8, 0}}, kept);",
    ]


def _float_to_int(w: Writer, x: Value, dtype: DType) -> Value:
    """f32 to i8, u8, u16 or u32; what does not fit is the nearest that does."""
    low = 0 if not dtype.is_signed else -(1 << (dtype.bits - 1))
    high = low + (1 << dtype.bits) - 1
    if dtype in (I8, U8):  # whole numbers within +-2048 are exact in half
        whole = w.cast(x, F32, "TRUNC")
        held = w.by_scalar("Mins", w.by_scalar("Maxs", whole, low), high)
        return w.cast(w.cast(held, F16, "RINT"), dtype, "TRUNC")
    if dtype is U16:
        held = w.by_scalar("Mins", w.by_scalar("Maxs", x, low), high)
        return w.converted(w.cast(held, I32, "TRUNC"), U16)
    # u32: the unit casts to i32, so the upper half of the range goes there less 2**31
    below = w.by_scalar("Mins", w.by_scalar("Maxs", x, 0), 4294967040.0)
    folded = w.by_scalar("Adds", below, -2147483648.0)
    upper = w.compare("GE", below, Scalar("2147483648.0f", F32))
    from_upper = w.cast(folded, I32, "TRUNC")
    from_lower = w.cast(w.by_scalar("Mins", below, 2147483520.0), I32, "TRUNC")
    from_lower = w.by_scalar("Adds", from_lower, -(1 << 31))
    chosen = w.select(upper, w.seen_as(from_upper, F32), w.seen_as(from_lower, F32))
    return w.seen_as(w.by_scalar("Adds", w.seen_as(chosen, I32), -(1 << 31)), U32)


def _u32_to_float(w: Writer, x: Value) -> Value:
    """The unit casts from i32: halves of 16 bits, put together in float."""
    if x.buffer.small:
        return w.cast(w.seen_as(x, I32), F32, "RINT")
    high = w.shift("ShiftRight", x, 16)
    low = w.binary(RULES["sub"], w.seen_as(x, I32), w.seen_as(w.shift("ShiftLeft", high, 16), I32))
    above = w.by_scalar("Muls", w.cast(w.seen_as(high, I32), F32, "RINT"), 65536.0)
    return w.binary(RULES["add"], above, w.cast(low, F32, "RINT"))


def _int_to_int(w: Writer, x: Value, dtype: DType) -> Value:
    source = x.dtype
    if source.itemsize == dtype.itemsize and source.itemsize > 1:
        return w.seen_as(x, dtype)
    if source.itemsize >= dtype.itemsize:
        return _narrowed(w, x, dtype)
    if source in (I8, U8):  # widening is exact
        return w.seen_as(w.cast(w.converted(x, F16), I16 if dtype.itemsize == 2 else I32, "TRUNC"), dtype)
    if source is U16:
        wide = w.converted(w.converted(w.seen_as(x, I16), F32), I32)
        wide = w.shift("ShiftRight", w.seen_as(w.shift("ShiftLeft", wide, 16), U32), 16)
    else:
        wide = w.converted(w.converted(x, F32), I32)
    return w.seen_as(wide, dtype)


def _narrowed(w: Writer, x: Value, dtype: DType) -> Value:
    """The low bits of wider integers, extended in the wide type, then cast, which is exact by then."""
    if x.dtype.itemsize == 1:  # i8 <-> u8
        x = w.converted(x, I16)
    bits = x.dtype.bits - dtype.bits
    as_signed = I32 if x.dtype.itemsize == 4 else I16
    if dtype.itemsize == 2:
        return w.seen_as(w.cast(_extended(w, x, bits, as_signed, True), I16, "NONE"), dtype)
    whole = _extended(w, x, bits, as_signed, dtype.is_signed)
    if as_signed is I32:
        whole = w.cast(whole, F32, "RINT")
    return w.cast(w.cast(whole, F16, "RINT"), dtype, "TRUNC")


def _extended(w: Writer, x: Value, bits: int, as_signed: DType, signed: bool) -> Value:
    """x without its upper `bits`, which become copies of the sign below them, or 0."""
    up = w.shift("ShiftLeft", w.seen_as(x, as_signed), bits)
    down = up if signed else w.seen_as(up, U32 if as_signed is I32 else U16)
    return w.seen_as(w.shift("ShiftRight", down, bits), as_signed)
