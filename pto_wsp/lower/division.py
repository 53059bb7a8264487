"""Division of ints in lanes: truncated, x/0 is 0 and MIN/-1 is MIN. CPUs have it for single numbers at most.

Functions of the algebra `k`. Up to 32 bits, floats are wide enough to be exact; 64-bit lanes are divided by constants
as products with their inverses, and by others by way of f64 where the CPU converts them. Start reading at `quotient`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pto_wsp.lower import x86
from pto_wsp.types import DType

if TYPE_CHECKING:
    from pto_wsp.lower.algebra import Algebra, Lanes


def quotient(k: Algebra, x: Lanes, y: Lanes) -> Lanes:
    """x / y, of one dtype. What LLVM leaves undefined is never computed: of constants, LLVM 22 took it although another
    was selected."""
    dtype, zero = x.dtype, k.const(0, x.dtype)
    if y.number is not None:
        return _by_number(k, x, y)
    nothing = unsafe = k.eq(y, 0)
    if dtype.bits == 64 and x86.conversion_lanes(k, DType.F64, DType.U64):
        return k.select(nothing, zero, _by_f64(k, x, y))
    if dtype.is_signed:  # MIN / -1, the one quotient that does not fit, is MIN / 1
        lowest = -(1 << (dtype.bits - 1))
        unsafe = k.or_(nothing, k.and_(k.eq(x, lowest), k.eq(y, -1)))
    safe = k.select(unsafe, 1, y)
    if k.lanes > 1 and dtype.bits <= 32:
        wide = DType.F32 if dtype.bits <= 16 else DType.F64
        found = k.cut_off(k.div(k.convert(x, wide), k.convert(safe, wide)), dtype)
    else:
        found = k.llvm_div(x, safe)
    return k.select(nothing, zero, found)


def _by_number(k: Algebra, x: Lanes, y: Lanes) -> Lanes:
    divisor = int(y.number)
    if divisor in (0, -1):
        return k.neg(x) if divisor else k.const(0, x.dtype)
    size = abs(divisor)
    if k.lanes == 1 or x.dtype.bits < 64 or not size & (size - 1):
        return k.llvm_div(x, y)  # it shifts or multiplies
    if not x.dtype.is_signed:
        return _by_inverse(k, x, divisor, 64)
    found = _by_inverse(k, k.bitcast(k.abs(x), DType.U64), size, 63)  # sizes are at most 2**63
    return _negated(k, k.bitcast(found, x.dtype), k.not_(x) if divisor < 0 else x)


def _negated(k: Algebra, x: Lanes, where: Lanes) -> Lanes:
    """-x in the lanes where `where` has a sign."""
    minus = k.ashr(where, 63)
    return k.sub(k.xor(x, minus), minus)


def _by_f64(k: Algebra, x: Lanes, y: Lanes) -> Lanes:
    """64-bit lanes; anything where y is 0.

    x times an inverse that is too small by 2**-51 to 2**-49 is less than the quotient, by no more than 2**15 and what
    is cut off; of what remains the same finds all but 1.
    """
    if x.dtype.is_signed:
        sizes = (k.bitcast(k.abs(value), DType.U64) for value in (x, y))
        return _negated(k, k.bitcast(_by_f64(k, *sizes), x.dtype), k.xor(x, y))
    inverse = k.div(k.const(1 - 2.0**-50, DType.F64), k.convert(y, DType.F64))

    def most(rest: Lanes) -> Lanes:
        return x86.float_to_int(k, k.mul(k.convert(rest, DType.F64), inverse), DType.U64, nearest=False)

    first = most(x)
    rest = k.sub(x, k.mul(first, y))
    second = most(rest)
    rest, found = k.sub(rest, k.mul(second, y)), k.add(first, second)
    return k.select(k.ge(rest, y), k.add(found, 1), found)


def _by_inverse(k: Algebra, x: Lanes, divisor: int, bits: int) -> Lanes:
    """u64 lanes up to 2**bits by a divisor between powers of two, where LLVM would divide lane by lane.

    floor(x * m / 2**p) is it if m is at least 2**p / divisor, and m * divisor - 2**p less than 2**(p - bits)
    (Granlund and Montgomery, Division by invariant integers using multiplication, 1994).
    """
    p = bits + (divisor - 1).bit_length()
    while bits == 64 and p > 64 and -(1 << p - 1) % divisor < 1 << p - 1 - bits:
        p -= 1
    multiplier = -(-(1 << p) // divisor)
    high = _high_product(k, x, multiplier % (1 << 64))
    if multiplier >> 64:  # one bit more than fits: x is added, and half of it has to do
        return k.lshr(k.add(k.lshr(k.sub(x, high), 1), high), p - 65)
    return k.lshr(high, p - 64)


def _high_product(k: Algebra, x: Lanes, number: int) -> Lanes:
    """The upper 64 bits of x * number, u64, from products of halves."""
    low, high = k.and_(x, 0xFFFFFFFF), k.lshr(x, 32)
    below, above = number & 0xFFFFFFFF, number >> 32
    middle = k.add(k.mul(high, below), k.lshr(k.mul(low, below), 32))
    other = k.add(k.mul(low, above), k.and_(middle, 0xFFFFFFFF))
    return k.add(k.add(k.mul(high, above), k.lshr(middle, 32)), k.lshr(other, 32))
