"""Elementary functions over the lane algebra: our own, branch-free, the same bits on every CPU.

`exp(k, x)` appends the instructions for one vector; f32 and f64 share each algorithm and differ in a row of constants.
Every result is within 2 ULP of the exact one for every input: subnormal inputs and results, infinities, NaN and -0
included (tests/lower/test_math.py: samples; benchmarks/ulp.py: all 2**32 f32 inputs; docs/numerics.md: the table).

    exp log sin cos tanh erf sigmoid rsqrt reciprocal
    silu(x) = x * sigmoid(x)
    gelu(x) = 0.5 * x * (1 + tanh(sqrt(2/pi) * (x + 0.044715 * x**3)))        the tanh form, = x * sigmoid(2 * ...)

silu and gelu of -inf are -0, their limit. f16 and bf16 are widened to f32 by the caller and the result rounded.

How each one works, and where its error comes from, stands at the function. The coefficients are minimax
polynomials (Remez, then rounded to the format one by one), relative error below 2**-27 in f32 and 2**-56 in f64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import ldexp
from typing import Any

from pto_wsp.lower import ir
from pto_wsp.lower.algebra import Algebra, Lanes
from pto_wsp.types import DType

__all__ = ["exp", "log", "sin", "cos", "tanh", "erf", "sigmoid", "silu", "gelu", "rsqrt", "reciprocal"]

LOG2_E = 1.4426950408889634
ONE_OVER_PI = 0.3183098861837907
DOUBLE, WORD = ir.DoubleType(), ir.IntType(64)


@dataclass(frozen=True, slots=True)
class Format:
    """Constants of one float format. Coefficients run from the lowest power up."""

    bits: DType  # ints of the same width
    fraction: int  # stored bits of the significand
    bias: int  # of the exponent
    ln2: tuple[float, float]  # ln 2 as the sum of two floats
    pi: tuple[float, float, float]  # pi as the sum of three floats
    exp: tuple[float, ...]  # (e**r - 1 - r) / r**2 for |r| <= ln(2) / 2
    exp_range: tuple[float, float]  # e**x is 0 below and infinite above
    silu_range: tuple[float, float]  # x * sigmoid(x) rounds to -0 below, sigmoid(x) to 1 above
    gelu_range: tuple[float, float]  # likewise
    tanh_is_one: float  # tanh(x / 2) rounds to 1 above
    gelu_sum: tuple[float, float]  # 1 / 0.044715 as the sum of two floats, the first short: see gelu()
    gelu_step: tuple[float, float]  # ln 2 / b likewise, b = 2 sqrt(2/pi) 0.044715
    gelu: tuple[float, ...]  # (e**(b r) - 1) / r for -0.288 <= b r <= 0.408
    sin: tuple[float, ...]  # (sin(r) / r - 1) / r**2 over r**2, for |r| <= pi / 2
    sin_fast: float  # larger arguments are reduced exactly
    erf_split: float
    erf_small: tuple[float, ...]  # erf(x) / x - 1 over x**2, below the split
    erf_center: float
    erf_large: tuple[float, ...]  # log(erfc(x)) + x**2 over x - center, above the split
    erf_is_one: float


F32 = Format(
    bits=DType.I32,
    fraction=23,
    bias=127,
    ln2=(0.6931471824645996, -1.9046542121259336e-09),
    pi=(3.1415927410125732, -8.742277657347586e-08, -3.4302490200117637e-15),
    exp=(0.4999999403953552, 0.16666516661643982, 0.04166810214519501, 0.00836916547268629, 0.0013838002923876047),
    exp_range=(-104.5, 89.0),
    silu_range=(-110.0, 18.0),
    gelu_range=(-11.0, 5.25),
    tanh_is_one=20.0,
    gelu_sum=(22.363861083984375, -1.081747996067861e-06),
    gelu_step=(9.714111328125, -2.030010182352271e-05),
    gelu=(0.07135482132434845, 0.002545755123719573, 6.0549285990418866e-05, 1.0800815744005376e-06,
          1.550530370764136e-08, 1.8659752909488958e-10),
    sin=(-0.16666659712791443, 0.00833306647837162, -0.00019809434888884425, 2.605112740639015e-06),
    sin_fast=48000.0,
    erf_split=0.9277,
    erf_small=(0.12837916612625122, -0.3761262893676758, 0.1128363236784935, -0.026856476441025734,
               0.005195041187107563, -0.0008086584275588393, 8.173514652298763e-05),
    erf_center=2.0,
    erf_large=(-1.3649410009384155, -0.418160080909729, 0.07624205946922302, -0.016491685062646866,
               0.0035568687599152327, -0.0006880317232571542, 0.00019677729869727045),
    erf_is_one=3.95,
)  # fmt: skip

F64 = Format(
    bits=DType.I64,
    fraction=52,
    bias=1023,
    ln2=(0.6931471805599453, 2.3190468138462996e-17),
    pi=(3.141592653589793, 1.2246467991473532e-16, -2.9947698097183397e-33),
    exp=(0.5, 0.16666666666666688, 0.041666666666666824, 0.00833333333331389, 0.0013888888888777783,
         0.0001984126990338905, 2.480158755988945e-05, 2.7557228647734407e-06, 2.7557066874853584e-07,
         2.5113949666120447e-08, 2.0978076182580267e-09),
    exp_range=(-746.0, 710.0),
    silu_range=(-760.0, 38.0),
    gelu_range=(-22.0, 7.3),
    tanh_is_one=40.0,
    gelu_sum=(22.36386000223638, 7.068084733670861e-15),
    gelu_step=(9.714091028024995, -1.2993710870057628e-12),
    gelu=(0.07135481627260024, 0.002545754902648268, 6.055062445119207e-05, 1.0801446707263925e-06,
          1.5414704902143105e-08, 1.8331890615440018e-10, 1.8686699242476323e-12, 1.6667300543726147e-14,
          1.3212528282215001e-16, 9.444657728812114e-19, 6.4588591249547065e-21),
    sin=(-0.16666666666666666, 0.008333333333333215, -0.00019841269841218165, 2.755731921300883e-06,
         -2.505210709113218e-08, 1.6058954628150706e-10, -7.643585410479186e-13, 2.7339215780092825e-15,
         -1.140161146168979e-18),
    sin_fast=1e8,
    erf_split=1.0,
    erf_small=(0.1283791670955126, -0.3761263890318413, 0.11283791670973037, -0.026866170648426023,
               0.0052239776567165564, -0.0008548328774480624, 0.0001205539510513361, -1.4927099586401667e-05,
               1.648461053709082e-06, -1.6595253654511791e-07, 1.6272370467385277e-08, -1.7475486969668975e-09,
               1.6066689824675095e-10),
    erf_center=2.0,
    erf_large=(-1.364941264616636, -0.41816080599438143, 0.07624915817617407, -0.016465118138186807,
               0.0035707563441699725, -0.0007323993757280458, 0.00013530935548855267,
               -2.0706458652277925e-05, 1.95212475048308e-06, 2.0367264948022226e-07, -1.730993072971171e-07,
               5.77745000418351e-08, -1.4035814668491595e-08, 2.5577060769515464e-09, -2.381059522301528e-10,
               -5.501756576052915e-11, 3.125966246978736e-11, -6.8587906800068944e-12, 7.677638795314328e-13,
               -3.5671892431242017e-14),
    erf_is_one=6.0,
)  # fmt: skip


def _format(x: Lanes) -> Format:
    if x.dtype == DType.F32:
        return F32
    if x.dtype == DType.F64:
        return F64
    raise TypeError(f"functions of {x.dtype.value if x.dtype else 'masks'}: convert to f32 or f64 first")


def rsqrt(k: Algebra, x: Lanes) -> Lanes:
    """1 / sqrt(x). Two correctly rounded steps, at most 1.5 ULP; rsqrt(-0) is -inf."""
    return k.div(1.0, k.sqrt(x))


def reciprocal(k: Algebra, x: Lanes) -> Lanes:
    """1 / x, correctly rounded."""
    return k.div(1.0, x)


# ---- exp and what is made of it ----------------------------------------------------------------------------------


def exp(k: Algebra, x: Lanes) -> Lanes:
    """e**x: n = round(x / ln 2), r = x - n ln 2 in two fused steps, a polynomial in r, times 2**n. About 0.7 ULP.

    Results of at most 1 take one factor 2**(n + up), always a normal number, and coefficients that are so much smaller.
    """
    c = _format(x)
    lowest, highest = c.exp_range
    x = _at_least(k, x, lowest)
    if x.high > 0 or _has_avx512(k, x):
        n, shifted, r = _reduce(k, c, x if x.high <= 0 else _at_most(k, x, highest), 2 * c.bias)
        return _times_power(k, c, _polynomial(k, r, (1.0, 1.0, *c.exp)), n, shifted)
    up = c.fraction + 2
    _, shifted, r = _reduce(k, c, x, c.bias + up)
    small = _polynomial(k, r, [ldexp(value, -up) for value in (1.0, 1.0, *c.exp)])
    return k.mul(small, k.bitcast(k.shl(shifted, c.fraction), x.dtype))


def _reduce(k: Algebra, c: Format, x: Lanes, offset: int) -> tuple[Lanes, Lanes, Lanes]:
    """(n, ints that hold n + offset in their low bits, r = x - n ln 2)."""
    # Adding 1.5 * 2**fraction rounds to an integer and leaves it in the low bits of the sum.
    magic = 1.5 * 2.0**c.fraction + offset
    shifted = k.fma(x, LOG2_E, magic)
    n = k.sub(shifted, magic)
    high, rest = c.ln2
    return n, k.bitcast(shifted, c.bits), k.fma(n, -rest, k.fma(n, -high, x))


def _expm1(k: Algebra, c: Format, r: Lanes) -> Lanes:
    """e**r - 1 for |r| <= ln(2) / 2."""
    return k.fma(k.mul(r, r), _polynomial(k, r, c.exp), r)


# (tanh(x) / x - 1) / x**2 over x**2, for |x| < 0.55
TANH_F64 = (-0.3333333333333333, 0.13333333333333064, -0.053968253968041155, 0.02186948852773936,
            -0.008863235334486935, 0.003592125140302713, -0.0014558056602030477, 0.0005898319872142404,
            -0.00023821016445002254, 9.395783490208438e-05, -3.2953072936969074e-05, 7.441132774869511e-06)  # fmt: skip


def tanh(k: Algebra, x: Lanes) -> Lanes:
    """f32: (2**n - e**-r) / (2**n + e**-r) with 2|x| = n ln 2 + r; at most 1.94 ULP, which all inputs were tried for.

    f64, where that might reach 2.3. Small |x|: x + x**3 P(x**2). Large: 1 - 2 / (e**2|x| + 1), the sum rounded once.
    """
    c = _format(x)
    size = k.abs(x)
    _, shifted, r = _reduce(k, c, _at_most(k, k.add(size, size), c.tanh_is_one), c.bias)
    power = k.bitcast(k.shl(shifted, c.fraction), x.dtype)
    if c is F32:
        t = _expm1(k, c, k.neg(r))
        return k.copysign(k.div(k.sub(k.sub(power, 1.0), t), k.add(k.add(power, 1.0), t)), x)
    square = k.mul(size, size)
    small = k.fma(size, k.mul(square, _polynomial(k, square, TANH_F64)), size)
    large = k.sub(1.0, k.div(2.0, k.fma(power, _expm1(k, c, r), k.add(power, 1.0))))
    return k.copysign(k.select(k.lt(size, 0.55), small, large), x)


def sigmoid(k: Algebra, x: Lanes) -> Lanes:
    """1 / (1 + e**-x)."""
    c = _format(x)
    z = _at_most(k, _at_least(k, x, c.exp_range[0]), c.silu_range[1])
    n, shifted, r = _reduce(k, c, z, 2 * c.bias)
    return _gate(k, c, k.const(1.0, x.dtype), n, shifted, k.neg(r), (1.0, *c.exp))


def silu(k: Algebra, x: Lanes) -> Lanes:
    """x * sigmoid(x)."""
    c = _format(x)
    lowest, one_above = c.silu_range
    v = _at_least(k, x, lowest)
    n, shifted, r = _reduce(k, c, _at_most(k, v, one_above), 2 * c.bias)
    return _gate(k, c, v, n, shifted, k.neg(r), (1.0, *c.exp))


def gelu(k: Algebra, x: Lanes) -> Lanes:
    """x * sigmoid(b x y), y = x**2 + 1 / 0.044715.

    The exponent b x y reaches -100, so it is needed to twice the precision: y + rest. Multiples of (ln 2) / b are taken
    from x y, and b is in the coefficients of the polynomial. The parts of constants that have few bits make `y - sum`
    and `n * step` exact.
    """
    c = _format(x)
    lowest, one_above = c.gelu_range
    total, total_rest = c.gelu_sum
    step, step_rest = c.gelu_step
    v = _at_least(k, x, lowest)
    z = _at_most(k, v, one_above)
    y = k.fma(z, z, total)
    rest = k.add(k.fma(z, z, k.sub(total, y)), total_rest)
    # 0.84 moves what is left from +-0.347 / b up by 0.06 / b: e**r is larger then, and its sum with 2**n more precise.
    magic = 1.5 * 2.0**c.fraction + 2 * c.bias
    shifted = k.fma(k.fma(z, y, 0.84), 1 / (step + step_rest), magic)
    n = k.sub(shifted, magic)
    r = k.fma(k.neg(z), y, k.mul(n, step))
    low = k.fma(k.neg(z), rest, k.mul(n, step_rest))
    return _gate(k, c, v, n, k.bitcast(shifted, c.bits), r, c.gelu, low)


def _gate(
    k: Algebra,
    c: Format,
    v: Lanes,
    n: Lanes,
    shifted: Lanes,
    r: Lanes,
    coefficients: Sequence[float],
    low: Lanes | None = None,
) -> Lanes:
    """v / (1 + 2**-n e**s), where e**s - 1 is (r + low) P(r + low). About 1.8 ULP. shifted: as in _times_power.

    It is 2**n v / (2**n + e**s): one rounding in the sum, one in the quotient. 2**n comes last, so that a subnormal
    result is rounded from a precise quotient.
    """
    power = _times_power(k, c, k.const(1.0, v.dtype), n, shifted)
    one_and_power = k.add(power, 1.0)
    lost = k.sub(power, k.sub(one_and_power, 1.0))  # counts where 2**n is just about an ULP of 1
    p = _polynomial(k, r if low is None else k.add(r, low), coefficients)
    minus_one = k.fma(r, p, lost if low is None else k.fma(low, p, lost))
    return _times_power(k, c, k.div(v, k.add(one_and_power, minus_one)), n, shifted)


def _times_power(k: Algebra, c: Format, x: Lanes, n: Lanes, shifted: Lanes) -> Lanes:
    """x * 2**n, rounded once; shifted: ints that hold n + 2 bias in their low bits."""
    if _has_avx512(k, x):
        return _scalef(k, x, n)
    # 2**n may lie outside of the format: first times 2**floor(n / 2), which is exact, then times the rest.
    half = k.lshr(shifted, 1)
    first, second = (k.bitcast(k.shl(part, c.fraction), x.dtype) for part in (half, k.sub(shifted, half)))
    return k.mul(k.mul(x, first), second)


def erf(k: Algebra, x: Lanes) -> Lanes:
    """Small |x|: x + x P(x**2). Large: 1 - e**z with z = log(erfc(|x|)) = G(|x|) - x**2. Both are made."""
    c = _format(x)
    size = _at_most(k, k.abs(x), c.erf_is_one)
    square = k.mul(size, size)
    small = k.fma(size, _polynomial(k, square, c.erf_small), size)
    z = k.fma(k.neg(size), size, _polynomial(k, k.sub(size, c.erf_center), c.erf_large))
    _, shifted, r = _reduce(k, c, z, c.bias)
    s = k.bitcast(k.shl(shifted, c.fraction), x.dtype)
    large = k.fma(k.neg(s), _expm1(k, c, r), k.sub(1.0, s))
    return k.copysign(k.select(k.lt(size, c.erf_split), small, large), x)


# ---- log ---------------------------------------------------------------------------------------------------------

LOG_F32 = (0.3333345055580139, -0.25000104308128357, 0.19990819692611694, -0.1664699912071228, 0.14478321373462677,
           -0.13163873553276062, 0.10468878597021103, -0.04511205479502678)  # fmt: skip
LOG_F64 = (0.666666666666666, 0.4000000000005664, 0.28571428555841516, 0.22222224294671936, 0.18181665995200763,
           0.15391107780692886, 0.13173672473868864, 0.13842528930243267)  # fmt: skip


LN2_F32 = (0.6931471228599548, 5.769998878690785e-08)  # both positive, so that infinite e give infinite sums


def log(k: Algebra, x: Lanes) -> Lanes:
    """x = 2**e m with 3/4 <= m < 3/2; log x = e ln 2 + log m. log(+-0) is -inf, of negatives NaN."""
    c = _format(x)
    if _has_avx512(k, x):
        # In mode 15 m is 1 for zeros and infinity and NaN for negatives; e of zeros is -inf, that of infinity infinity.
        m = _avx512(k, "getmant", x, between=[ir.IntType(32)(15)])
        return _log_of(k, k.sub(_avx512(k, "getexp", x), _avx512(k, "getexp", m)), m)
    tiny = k.lt(x, 2.0 ** (1 - c.bias))
    scale = c.fraction + 1
    scaled = k.select(tiny, k.mul(x, 2.0**scale), x)  # no subnormals from here on
    start = k.bitcast(k.const(0.75, x.dtype), c.bits)
    bits = k.sub(k.bitcast(scaled, c.bits), start)
    exponent = k.convert(k.ashr(bits, c.fraction), x.dtype)
    e = k.add(exponent, k.select(tiny, k.const(-float(scale), x.dtype), 0.0))
    fraction = k.and_(bits, (1 << c.fraction) - 1)
    y = _log_of(k, e, k.bitcast(k.add(fraction, start), x.dtype))
    of_the_rest = k.select(k.eq(x, 0.0), k.const(float("-inf"), x.dtype), float("nan"))
    return k.select(k.eq(x, float("inf")), x, k.select(k.gt(x, 0.0), y, of_the_rest))


def _log_of(k: Algebra, e: Lanes, m: Lanes) -> Lanes:
    """e ln 2 + log m."""
    f = k.sub(m, 1.0)
    return _log1p_f32(k, e, f) if m.dtype == DType.F32 else _log1p_f64(k, e, f)


def _log1p_f32(k: Algebra, e: Lanes, f: Lanes) -> Lanes:
    """e ln 2 + f - f**2 / 2 + f**3 P(f)."""
    square = k.mul(f, f)
    pairs = [k.fma(f, odd, even) for even, odd in zip(LOG_F32[::2], LOG_F32[1::2], strict=True)]
    p = pairs.pop()
    for pair in reversed(pairs):
        p = k.fma(p, square, pair)
    curve = k.mul(k.fma(p, f, -0.5), square)
    return k.fma(e, LN2_F32[0], k.add(f, k.fma(e, LN2_F32[1], curve)))


def _log1p_f64(k: Algebra, e: Lanes, f: Lanes) -> Lanes:
    """The same with q = f / (2 + f): log(1 + f) = f - (f**2 / 2 - q (f**2 / 2 + q**2 P(q**2))), as in fdlibm."""
    q = k.div(f, k.add(f, 2.0))
    q2 = k.mul(q, q)
    half_square = k.mul(k.mul(f, f), 0.5)
    inner = k.fma(q2, _polynomial(k, q2, LOG_F64), half_square)
    curve = k.sub(k.fma(e, F64.ln2[1], k.mul(q, inner)), half_square)
    return k.fma(e, F64.ln2[0], k.add(f, curve))


# ---- sin and cos -------------------------------------------------------------------------------------------------


def sin(k: Algebra, x: Lanes) -> Lanes:
    """sin |x| = (-1)**n sin r, r = |x| - n pi, with the sign of x."""
    c = _format(x)
    r, odd = _reduce_by_pi(k, c, k.abs(x), 0.0)
    sign = k.and_(k.bitcast(x, c.bits), 1 << (c.bits.bits - 1))
    return _with_sign(k, c, _sin_of_reduced(k, c, r), k.xor(k.shl(odd, c.bits.bits - 1), sign))


def cos(k: Algebra, x: Lanes) -> Lanes:
    """cos |x| = -(-1)**n sin r, r = |x| - (n + 1/2) pi."""
    c = _format(x)
    r, odd = _reduce_by_pi(k, c, k.abs(x), 0.5)
    return _with_sign(k, c, _sin_of_reduced(k, c, r), k.shl(k.not_(odd), c.bits.bits - 1))


def _with_sign(k: Algebra, c: Format, x: Lanes, sign: Lanes) -> Lanes:
    """x, negated where the sign bit is set."""
    return k.bitcast(k.xor(k.bitcast(x, c.bits), sign), x.dtype)


def _sin_of_reduced(k: Algebra, c: Format, r: Lanes) -> Lanes:
    """sin r for |r| <= pi / 2."""
    square = k.mul(r, r)
    return k.fma(r, k.mul(square, _polynomial(k, square, c.sin)), r)


def _reduce_by_pi(k: Algebra, c: Format, size: Lanes, offset: float) -> tuple[Lanes, Lanes]:
    """(r, ints as odd as n): size = r + (n + offset) pi with |r| <= pi / 2. Branches only if some size is huge.

    Of the three fused steps the first is exact, because pi's first part is short, so cancellation costs nothing.
    """
    magic = 1.5 * 2.0**c.fraction
    turns = k.fma(size, ONE_OVER_PI, -offset) if offset else k.mul(size, ONE_OVER_PI)
    shifted = k.add(turns, magic)
    n = k.sub(shifted, magic)
    n = k.add(n, offset) if offset else n
    r = size
    for part in c.pi:
        r = k.fma(n, -part, r)
    odd = k.bitcast(shifted, c.bits)
    huge = k.gt(size, c.sin_fast)
    before = k.builder.block
    with k.builder.if_then(k.any_(huge), likely=False):
        r_huge, odd_huge = _reduce_each_by_pi(k, size, offset)
        r_huge = k.select(huge, k.convert(r_huge, size.dtype), r)
        odd_huge = k.select(huge, k.convert(odd_huge, c.bits), odd)
        after = k.builder.block
    results = []
    for plain, exact in ((r, r_huge), (odd, odd_huge)):
        phi = k.builder.phi(k.ir_type(plain.dtype))
        phi.add_incoming(plain.ir, before)
        phi.add_incoming(exact.ir, after)
        results.append(k.wrap(phi, plain.dtype))
    return results[0], results[1]


def _reduce_each_by_pi(k: Algebra, size: Lanes, offset: float) -> tuple[Lanes, Lanes]:
    """The same for sizes of any magnitude, as (f64, i64): lane by lane, in memory, in a function of the module."""
    values, parities = (k.builder.alloca(ir.ArrayType(kind, k.lanes)) for kind in (DOUBLE, WORD))
    k.store(k.convert(size, DType.F64), values)
    function = _reducer(k, entries=6 if size.dtype == DType.F32 else 61)
    k.builder.call(function, [values, parities, ir.Constant(DOUBLE, offset), ir.Constant(WORD, k.lanes)])
    return k.load(values, DType.F64), k.load(parities, DType.I64)


def _reducer(k: Algebra, entries: int) -> Any:
    """void f(double values[count], i64 parities[count], double offset, i64 count): values become their remainders."""
    kind = ir.FunctionType(ir.VoidType(), [ir.PointerType(), ir.PointerType(), DOUBLE, WORD])
    name = f"pto.reduce_by_pi.{entries}"
    return k.builder.module.internal(name, kind, lambda f: _emit_reducer(f, k.features, entries), "cold")


def _emit_reducer(function: ir.Function, features: frozenset[str], entries: int) -> None:
    values, parities, offset, count = function.args
    entry, loop, done = (function.append_basic_block(part) for part in ("entry", "lane", "done"))
    ir.Builder(entry).branch(loop)
    builder = ir.Builder(loop)
    lane = builder.phi(WORD)
    lane.add_incoming(ir.Constant(WORD, 0), entry)
    one = Algebra(builder, 1, features)
    value = builder.gep(values, [lane], source_etype=DOUBLE)
    r, odd = _reduce_huge(one, one.load(value, DType.F64), one.wrap(offset, DType.F64), entries)
    one.store(r, value)
    one.store(odd, builder.gep(parities, [lane], source_etype=WORD))
    following = builder.add(lane, ir.Constant(WORD, 1))
    lane.add_incoming(following, loop)
    builder.cbranch(builder.icmp_unsigned("<", following, count), loop, done)
    ir.Builder(done).ret_void()


def _reduce_huge(k: Algebra, x: Lanes, offset: Lanes, entries: int) -> tuple[Lanes, Lanes]:
    """One f64 lane: x / pi modulo 2 to 140 bits, by a table of 2**(16 j) / pi modulo 2 in four parts.

    x = y 2**(16 j) with y < 2**69, an integer if j > 0. Products are exact pairs; what is large in them is even.
    The first few entries serve all of f32.
    """
    exponent = k.and_(k.lshr(k.bitcast(x, DType.I64), 52), 0x7FF)
    j = k.lshr(k.maximum(k.sub(exponent, 1023 + 52), 0), 4)
    j = k.minimum(j, entries - 1)  # infinity is beyond
    y = k.mul(x, k.bitcast(k.shl(k.sub(1023, k.shl(j, 4)), 52), DType.F64))
    table = _table_global(k, entries)
    parts = [k.gather(table, k.add(k.shl(j, 2), i), DType.F64) for i in range(4)]
    (p0, e0), (p1, e1), (p2, e2) = (_exact_product(k, y, part) for part in parts[:3])
    high, rest0 = k.exact_sum(_modulo_2(k, p0), _modulo_2(k, e0))
    high, rest1 = k.exact_sum(high, _modulo_2(k, p1))
    n = k.rint(k.sub(high, offset))
    high, rest2 = k.exact_sum(high, k.neg(k.add(n, offset)))
    high, rest3 = k.exact_sum(high, e1)
    high, rest4 = k.exact_sum(high, p2)
    low, last = rest0, k.fma(y, parts[3], e2)
    for rest in (rest1, rest2, rest3, rest4):
        low, lost = k.exact_sum(low, rest)
        last = k.add(last, lost)
    high, lost = k.exact_sum(high, low)
    high, low = k.exact_sum(high, k.add(lost, last))
    r, rest = _exact_product(k, high, k.const(F64.pi[0], DType.F64))
    return k.add(r, k.fma(low, F64.pi[0], k.fma(high, F64.pi[1], rest))), k.convert(n, DType.I64)


def _exact_product(k: Algebra, a: Lanes, b: Lanes) -> tuple[Lanes, Lanes]:
    """(a * b rounded, what the rounding left out)."""
    product = k.mul(a, b)
    return product, k.fma(a, b, k.neg(product))


def _modulo_2(k: Algebra, x: Lanes) -> Lanes:
    """x minus the nearest even number, exactly."""
    return k.fma(k.rint(k.mul(x, 0.5)), -2.0, x)


def _table_global(k: Algebra, entries: int) -> Any:
    """Pointer to the table of 2**(16 j) / pi modulo 2, a constant of the module."""
    module, name = k.builder.module, f"pto.powers_over_pi.{entries}"
    if name not in module.constants:
        kind = ir.ArrayType(DOUBLE, 4 * entries)
        ir.GlobalConstant(module, name, kind(list(powers_over_pi()[: 4 * entries])), align=8)
    return module.constants[name]


@cache
def powers_over_pi() -> tuple[float, ...]:
    """2**(16 j) / pi modulo 2 for j = 0 .. 60, each as the exact sum of four doubles that drops less than 2**-200."""
    bits = 1400

    def arctan_of_inverse(n: int) -> int:
        total, power, i = 0, (1 << bits + 64) // n, 0
        while power:
            total += (-1) ** i * (power // (2 * i + 1))
            power, i = power // (n * n), i + 1
        return total

    pi = 16 * arctan_of_inverse(5) - 4 * arctan_of_inverse(239)  # Machin
    inverse = (1 << 2 * bits + 64) // pi
    return tuple(part for j in range(61) for part in _four_parts((inverse << 16 * j) % (2 << bits), bits))


def _four_parts(value: int, bits: int) -> list[float]:
    """value / 2**bits, cut into pieces of 53 bits."""
    parts = []
    for _ in range(4):
        drop = max(value.bit_length() - 53, 0)
        parts.append(ldexp(value >> drop, drop - bits))
        value -= value >> drop << drop
    return parts


# ---- parts -------------------------------------------------------------------------------------------------------


def _polynomial(k: Algebra, x: Lanes, coefficients: Sequence[float]) -> Lanes:
    """Horner's rule, lowest power first."""
    *rest, result = (k.const(value, x.dtype) for value in coefficients)
    for coefficient in reversed(rest):
        result = k.fma(result, x, coefficient)
    return result


def _at_least(k: Algebra, x: Lanes, limit: float) -> Lanes:
    """max(x, limit), one instruction; NaN stays NaN."""
    return k.select(k.lt(x, limit), limit, x)._replace(low=max(x.low, limit), high=max(x.high, limit))


def _at_most(k: Algebra, x: Lanes, limit: float) -> Lanes:
    """min(x, limit), one instruction; NaN stays NaN."""
    return k.select(k.gt(x, limit), limit, x)


def _has_avx512(k: Algebra, x: Lanes) -> bool:
    """Are x's lanes whole AVX-512 registers? Its own instructions for floats give the bits of the long way."""
    return "avx512f" in k.features and k.lanes * x.dtype.bits in (512, 1024, 2048)


def _scalef(k: Algebra, x: Lanes, n: Lanes) -> Lanes:
    """x * 2**n for any n, rounded once."""
    return _avx512(k, "scalef", x, n)


def _avx512(k: Algebra, name: str, *operands: Lanes, between: Sequence[Any] = ()) -> Lanes:
    """An instruction of AVX-512 on one register or two, with what comes between its operands and its mask."""
    dtype, given = operands[0].dtype, [x.ir for x in operands]
    element, width = ("ps", 16) if dtype == DType.F32 else ("pd", 8)
    vector, mask, mode = ir.VectorType(k.element(dtype), width), ir.IntType(width), ir.IntType(32)
    constants = [*between, ir.undefined(vector), mask(-1), mode(4)]
    kinds = [vector] * len(given) + [constant.type for constant in constants]
    function = k.declare(f"llvm.x86.avx512.mask.{name}.{element}.512", vector, kinds)
    if k.lanes == width:
        return k.wrap(k.builder.call(function, [*given, *constants]), dtype)
    parts = [
        k.builder.call(function, [*(k.builder.lanes(x, first, width) for x in given), *constants])
        for first in range(0, k.lanes, width)
    ]
    while len(parts) > 1:
        parts = [k.builder.joined(low, high) for low, high in zip(parts[::2], parts[1::2], strict=True)]
    return k.wrap(parts[0], dtype)
