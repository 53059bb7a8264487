"""The lane algebra against NumPy: every verb, dtype, CPU and width, on the values where things go wrong."""

from __future__ import annotations

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from pto_wsp.lower import ir
from pto_wsp.lower.algebra import Algebra, Lanes
from pto_wsp.trace.ops import ref_cast, ref_div, ref_fma, ref_maximum, ref_minimum
from pto_wsp.types import DType
from tests.lower.elementwise import compile_loop, compile_loops, cpus_here

INTS = [d for d in DType if d.is_int]
FLOATS = [DType.F32, DType.F64]
HALVES = [DType.F16, DType.BF16]
PLACES = [(cpu, 16) for cpu in cpus_here()] + [("generic", 1), ("generic", 2)]
each_place = pytest.mark.parametrize(("cpu", "lanes"), PLACES)


def dtype_id(x):
    return x.value if isinstance(x, DType) else None


def numbers(dtype: DType, count: int = 40) -> np.ndarray:
    """Edges of the dtype and some random values."""
    rng = np.random.default_rng(dtype.bits)
    if dtype.is_int:
        limits = np.iinfo(dtype.numpy)
        edges = {0, 1, 2, 3, 7, limits.max, limits.max - 1, limits.min, limits.min + 1, limits.max // 2}
        edges |= {-1, -2, -7} if dtype.is_signed else set()
        random = rng.integers(limits.min, limits.max, count, dtype.numpy, endpoint=True)
        return np.concatenate([np.array(sorted(edges), dtype.numpy), random, random >> (dtype.bits // 2)])
    bits = rng.integers(0, 1 << dtype.bits, count, dtype=f"u{dtype.itemsize}", endpoint=False)
    edges = [0.0, -0.0, 1.0, -1.0, 0.5, 2.5, -2.5, 3.5, np.inf, -np.inf, np.nan, 1e30, -7.0]
    info = ml_dtypes.finfo(dtype.numpy)
    edges += [float(info.max), float(info.min), float(info.tiny), -float(info.smallest_subnormal)]
    with np.errstate(all="ignore"):
        normal = rng.normal(0, 3, count)
        return np.concatenate([np.array(edges).astype(dtype.numpy), bits.view(dtype.numpy), normal.astype(dtype.numpy)])


def pairs(dtype: DType) -> list[np.ndarray]:
    return [grid.ravel().copy() for grid in np.meshgrid(numbers(dtype), numbers(dtype))]


def assert_same(got: np.ndarray, want: np.ndarray, what: str, *operands: np.ndarray) -> None:
    """Equal bits, but any NaN equals any other."""
    want = np.asarray(want).astype(got.dtype)
    bits = f"u{got.dtype.itemsize}"
    wrong = got.view(bits) != want.view(bits)
    if got.dtype.kind not in "iu":
        with np.errstate(invalid="ignore"):
            wrong &= ~((got != got) & (want != want))
    i = np.argmax(wrong)
    assert not wrong.any(), f"{what}({', '.join(repr(x[i]) for x in operands)}) = {got[i]!r}, not {want[i]!r}"


def ref_rem(x, y):
    return np.where(y == 0, 0, x - ref_div(x, y) * y)


BINARY = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": ref_div,
    "maximum": ref_maximum,
    "minimum": ref_minimum,
}
COMPARE = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}
BITWISE = {"and_": np.bitwise_and, "or_": np.bitwise_or, "xor": np.bitwise_xor, "rem": ref_rem}
ROUNDING = {"floor": np.floor, "ceil": np.ceil, "trunc": np.trunc, "rint": np.rint, "sqrt": np.sqrt}


def verb(name: str):
    return lambda k, *operands: getattr(k, name)(*operands)


@each_place
@pytest.mark.parametrize("dtype", FLOATS + INTS, ids=dtype_id)
def test_binary(dtype, cpu, lanes):
    references = BINARY | (BITWISE if dtype.is_int else {"copysign": np.copysign})
    loops = compile_loops({name: verb(name) for name in references}, (dtype, dtype), dtype, lanes, cpu)
    x, y = pairs(dtype)
    for name, reference in references.items():
        with np.errstate(all="ignore"):
            want = reference(x, y)
        assert_same(loops[name](x, y), want, name, x, y)


@each_place
@pytest.mark.parametrize("dtype", FLOATS + INTS, ids=dtype_id)
def test_compare_and_select(dtype, cpu, lanes):
    bodies = {name: lambda k, x, y, name=name: k.convert(getattr(k, name)(x, y), DType.U8) for name in COMPARE}
    loops = compile_loops(bodies, (dtype, dtype), DType.U8, lanes, cpu)
    x, y = pairs(dtype)
    for name, reference in COMPARE.items():
        assert_same(loops[name](x, y), reference(x, y), name, x, y)
    smaller = compile_loop(lambda k, x, y: k.select(k.lt(x, y), x, y), (dtype, dtype), dtype, lanes, cpu)
    assert_same(smaller(x, y), np.where(x < y, x, y), "select", x, y)


@each_place
@pytest.mark.parametrize("dtype", FLOATS + INTS, ids=dtype_id)
def test_unary(dtype, cpu, lanes):
    references = {"neg": np.negative, "abs": np.abs} | (ROUNDING if dtype.is_float else {"not_": np.invert})
    loops = compile_loops({name: verb(name) for name in references}, (dtype,), dtype, lanes, cpu)
    x = numbers(dtype, 500)
    for name, reference in references.items():
        with np.errstate(all="ignore"):
            want = reference(x)
        assert_same(loops[name](x), want, name, x)


@each_place
@pytest.mark.parametrize("dtype", FLOATS, ids=dtype_id)
def test_sums_that_cannot_be_minus_zero_are_not_made_plus_zero(dtype, cpu, lanes):
    x = numbers(dtype, 100)
    for c in (3.0, -7.0, 1e-310, 0.0, -0.0, np.inf, np.nan):
        got = compile_loop(lambda k, x, c=c: k.maximum(k.add(x, c), 0.0), (dtype,), dtype, lanes, cpu)(x)
        with np.errstate(all="ignore"):
            assert_same(got, ref_maximum(x + dtype.numpy.type(c), dtype.numpy.type(0)), f"maximum(x + {c}, 0)", x)
    k, x, _, _ = algebra()
    k.maximum(k.add(x, 3.0), 0.0)
    assert str(k.builder.module).count("fadd") == 1


@each_place
@pytest.mark.parametrize("dtype", FLOATS + [DType.I32, DType.U8], ids=dtype_id)
def test_fma(dtype, cpu, lanes):
    x, y = pairs(dtype)
    z = np.roll(x, 5)
    f = compile_loop(lambda k, x, y, z: k.fma(x, y, z), (dtype, dtype, dtype), dtype, lanes, cpu)
    with np.errstate(all="ignore"):
        want = x * y + z if dtype.is_int else ref_fma(x, y, z)
    assert_same(f(x, y, z), want, "fma", x, y, z)


@each_place
@pytest.mark.parametrize("dtype", INTS, ids=dtype_id)
def test_shifts_beyond_the_width_shift_everything_out(dtype, cpu, lanes):
    x = np.repeat(numbers(dtype), 5)
    counts = np.tile(np.array([0, 1, dtype.bits - 1, dtype.bits, dtype.bits + 3], dtype.numpy), len(x) // 5)
    loops = compile_loops({name: verb(name) for name in ("shl", "lshr", "ashr")}, (dtype, dtype), dtype, lanes, cpu)
    unsigned, signed = np.dtype(f"u{dtype.itemsize}"), np.dtype(f"i{dtype.itemsize}")
    outside = counts >= dtype.bits
    inside = np.where(outside, 0, counts)
    left = np.where(outside, 0, x.view(unsigned) << inside.view(unsigned)).astype(unsigned)
    right = np.where(outside, 0, x.view(unsigned) >> inside.view(unsigned)).astype(unsigned)
    sign = x.view(signed) >> np.minimum(counts, dtype.bits - 1).view(signed)
    assert_same(loops["shl"](x, counts), left.view(dtype.numpy), "shl", x, counts)
    assert_same(loops["lshr"](x, counts), right.view(dtype.numpy), "lshr", x, counts)
    assert_same(loops["ashr"](x, counts), sign.view(dtype.numpy), "ashr", x, counts)


@each_place
@pytest.mark.parametrize("source", DType, ids=dtype_id)
def test_convert(source, cpu, lanes):
    x = numbers(source, 300)
    if source is DType.F64:  # halfway cases of the narrow formats, and a hair to either side
        halves = np.arange(0x3C00, 0x3C80, dtype=np.uint16).view(np.float16).astype(np.float64)
        middle = (halves[1:] + halves[:-1]) / 2
        x = np.concatenate([x, middle, np.nextafter(middle, 0), np.nextafter(middle, 9), middle * 2.0**-16])
    for target in DType:
        got = compile_loop(lambda k, x, target=target: k.convert(x, target), (source,), target, lanes, cpu)(x)
        with np.errstate(all="ignore"):
            want = ref_cast(x, target)
        assert_same(got, want, f"{source.value} -> {target.value}", x)


@each_place
@pytest.mark.parametrize("target", [d for d in DType if d.is_int], ids=dtype_id)
@pytest.mark.parametrize("source", FLOATS, ids=dtype_id)
def test_convert_what_was_clamped_or_rounded(source, target, cpu, lanes):
    """Conversions leave out what is known already; NaN and zeros of either sign come out as without that."""
    limits, kind = np.iinfo(target.numpy), np.dtype(source.numpy).type
    edges = [v + d for v in (limits.min, limits.max) for d in (-1.5, -1, -0.5, 0, 0.5, 1, 1.5)]
    x = np.concatenate([numbers(source, 300), np.array([*edges, 127.5, 128.5, 255.5, -0.5], kind)])
    for low, high in ((-128.0, 127.0), (0.0, 255.0), (-0.0, 1e10), (-1e30, 7.5), (300.0, 1e30), (-np.inf, np.inf),
                      (float(limits.min), limits.max + 1.0)):  # one more than fits
        bodies = {
            "clamped": lambda k, x, a=low, b=high: k.convert(k.minimum(k.maximum(x, a), b), target),
            "rounded": lambda k, x, a=low, b=high: k.convert(k.rint(k.minimum(k.maximum(x, a), b)), target),
            "rounded first": lambda k, x, a=low, b=high: k.convert(k.maximum(k.minimum(k.rint(x), b), a), target),
        }
        with np.errstate(all="ignore"):
            clamped = ref_minimum(ref_maximum(x, kind(low)), kind(high))
            wanted = {
                "clamped": clamped,
                "rounded": np.rint(clamped),
                "rounded first": ref_maximum(ref_minimum(np.rint(x), kind(high)), kind(low)),
            }
            for name, loop in compile_loops(bodies, (source,), target, lanes, cpu).items():
                what = f"{name} {low:g} to {high:g}"
                assert_same(loop(x), ref_cast(wanted[name], target), f"{what} -> {target.value}", x)


def nearest_16_bits(x: float, dtype: DType) -> float:
    """Rounded to nearest even by trying the neighbours, in exact arithmetic."""
    grid = np.arange(0, 0x7C00 if dtype is DType.F16 else 0x7F80, dtype=np.uint16).view(dtype.numpy).astype(np.float64)
    i = np.searchsorted(grid, abs(x))
    around = [j for j in (i - 1, i) if 0 <= j < len(grid)]
    best = min(around, key=lambda j: (abs(Fraction(float(grid[j])) - Fraction(abs(x))), j & 1))
    return float(np.copysign(grid[best], x))


@pytest.mark.parametrize("dtype", HALVES, ids=dtype_id)
def test_f64_is_rounded_once(dtype):
    """f64 -> f32 -> f16 would round twice; a value just above a tie of f16 must not become the tie on the way."""
    rng = np.random.default_rng(5)
    grid = rng.integers(0x0001, 0x5000, 200).astype(np.uint16).view(dtype.numpy).astype(np.float64)
    above = np.array([np.nextafter(v, np.inf).astype(np.float64) for v in grid.astype(dtype.numpy)], np.float64)
    tie = (grid + above) / 2
    x = np.concatenate([tie, np.nextafter(tie, 0), np.nextafter(tie, np.inf)])
    got = compile_loop(lambda k, x: k.convert(x, dtype), (DType.F64,), dtype)(x)
    assert got.astype(np.float64).tolist() == [nearest_16_bits(float(v), dtype) for v in x]


@each_place
@pytest.mark.parametrize("dtype", HALVES, ids=dtype_id)
@pytest.mark.parametrize("source", [d for d in INTS if d.bits >= 16], ids=dtype_id)
def test_ints_are_rounded_once(source, dtype, cpu, lanes):
    """Ints next to the ties of every power of two, and next to where f32 and f64 are no longer exact."""
    limits, kept = np.iinfo(source.numpy), 11 if dtype == DType.F16 else 8
    found = {limits.min, limits.max, 65503, 65504, 65519, 65520, 65535, 65536, 65537}
    for bits in range(source.bits):
        low = max(bits - kept, 0)
        ties = [(1 << bits) + (m << low) + (1 << low >> 1) for m in (0, 1, (1 << kept - 1) - 1)]
        steps = (0, 1, *(1 << b for b in range(max(bits - 2, 0))))
        found.update(sign * (tie + way * step) for tie in ties for step in steps for way in (1, -1) for sign in (1, -1))
    x = np.array(sorted(v for v in found if limits.min <= v <= limits.max), source.numpy)
    got = compile_loop(lambda k, x: k.convert(x, dtype), (source,), dtype, lanes, cpu)(x)
    want = np.array([_rounded(int(v), kept) for v in x])
    largest = 65504 if dtype == DType.F16 else float(ml_dtypes.finfo(dtype.numpy).max)
    want = np.where(np.abs(want) > largest, np.copysign(np.inf, want), want)
    assert_same(got, want.astype(dtype.numpy), f"{source.value} ->", x)


def _rounded(x: int, bits: int) -> float:
    """x rounded to so many significant bits, ties to even, exactly."""
    drop = max(abs(x).bit_length() - bits, 0)
    whole, rest = divmod(abs(x), 1 << drop)
    half = 1 << drop >> 1
    up = drop > 0 and (rest > half or rest == half and whole % 2 == 1)
    return float((whole + up << drop) * (-1 if x < 0 else 1))


@pytest.mark.parametrize("cpu", cpus_here())
@pytest.mark.parametrize("dtype", HALVES, ids=dtype_id)
def test_every_half_widens_exactly_and_comes_back(dtype, cpu):
    x = np.arange(1 << 16, dtype=np.uint16).view(dtype.numpy)
    wide = compile_loop(lambda k, x: k.widen(x), (dtype,), DType.F32, cpu=cpu)(x)
    assert_same(wide, x.astype(np.float32), "widen", x)
    back = compile_loop(lambda k, x: k.convert(x, dtype), (DType.F32,), dtype, cpu=cpu)(wide)
    assert_same(back, x, "narrow", wide)


@pytest.mark.parametrize("dtype", HALVES, ids=dtype_id)
def test_narrowing_is_the_same_with_and_without_the_instruction(dtype):
    """f32 -> f16 by F16C and by our own integer code: all exponents, bits of NaN included."""
    rng = np.random.default_rng(16)
    bits = (np.arange(512, dtype=np.uint64)[:, None] << 23) + rng.integers(0, 1 << 23, 400, dtype=np.uint64)
    ties = np.arange(0, 1 << 32, 0x1000, dtype=np.uint64)
    x = np.concatenate([bits.ravel(), ties, ties + 1, ties - 1]).astype(np.uint32).view(np.float32)
    found = {cpu: compile_loop(lambda k, x: k.convert(x, dtype), output=dtype, cpu=cpu)(x) for cpu in cpus_here()}
    with np.errstate(all="ignore"):
        assert_same(found["generic"], x.astype(dtype.numpy), "narrow", x)
    assert len({y.tobytes() for y in found.values()}) == 1


@pytest.mark.parametrize("cpu", cpus_here())
@pytest.mark.parametrize("dtype", HALVES, ids=dtype_id)
def test_signs_of_halves_change_without_rounding(dtype, cpu):
    """neg and abs of every half, as they are stored; used further, they are what they are in f32."""
    x = np.arange(1 << 16, dtype=np.uint16).view(dtype.numpy)
    for name, reference in (("neg", np.negative), ("abs", np.abs)):
        stored = compile_loop(lambda k, x, name=name: k.convert(verb(name)(k, k.widen(x)), dtype), (dtype,), dtype,
                              cpu=cpu)(x)
        assert_same(stored, reference(x), name, x)
        wide = compile_loop(lambda k, x, name=name: verb(name)(k, k.widen(x)), (dtype,), DType.F32, cpu=cpu)(x)
        assert_same(wide, reference(x.astype(np.float32)), name, x)


@each_place
@pytest.mark.parametrize("dtype", HALVES, ids=dtype_id)
def test_what_picks_one_of_two_halves_is_not_rounded(dtype, cpu, lanes):
    """Maxima, clamps, selections and whole numbers of halves are halves; of numbers that are none they are rounded."""
    x, y = pairs(dtype)
    third = np.float32(1 / 3)
    bodies = {
        "maximum": (lambda k, x, y: k.maximum(x, y), ref_maximum),
        "minimum": (lambda k, x, y: k.minimum(x, y), ref_minimum),
        "relu": (lambda k, x, y: k.maximum(x, 0.0), lambda x, y: ref_maximum(x, np.float32(0))),
        "relu further": (lambda k, x, y: k.add(k.maximum(x, 0.0), 1.0),
                         lambda x, y: ref_maximum(x, np.float32(0)) + np.float32(1)),
        "select": (lambda k, x, y: k.select(k.lt(x, y), k.neg(x), y), lambda x, y: np.where(x < y, -x, y)),
        "clamp": (lambda k, x, y: k.minimum(k.maximum(x, -1.5), k.abs(y)),
                  lambda x, y: ref_minimum(ref_maximum(x, np.float32(-1.5)), np.abs(y))),
        "a third": (lambda k, x, y: k.select(k.lt(x, y), 1 / 3, y), lambda x, y: np.where(x < y, third, y)),
        "floor": (lambda k, x, y: k.floor(x), lambda x, y: np.floor(x)),
        "whole": (lambda k, x, y: k.minimum(k.rint(x), 5.0), lambda x, y: ref_minimum(np.rint(x), np.float32(5))),
        "constant": (lambda k, x, y: k.maximum(x, k.widen(k.const(-0.25, dtype))),
                     lambda x, y: ref_maximum(x, np.float32(-0.25))),
    }
    loops = compile_loops(
        {name: lambda k, x, y, b=body: k.convert(k.round_to(b(k, k.widen(x), k.widen(y)), dtype), dtype)
         for name, (body, _) in bodies.items()}, (dtype, dtype), dtype, lanes, cpu)
    for name, (_, reference) in bodies.items():
        with np.errstate(all="ignore"):
            want = reference(x.astype(np.float32), y.astype(np.float32)).astype(dtype.numpy)
        assert_same(loops[name](x, y), want, name, x, y)


@each_place
@pytest.mark.parametrize("dtype", INTS, ids=dtype_id)
def test_division_by_a_constant(dtype, cpu, lanes):
    limits = np.iinfo(dtype.numpy)
    x, divisors = numbers(dtype, 300), [0, 1, 2, 3, 7, 10, 64, 100, limits.max, limits.min]
    divisors += [-1, -2, -7, -64] if dtype.is_signed else []
    for divisor in divisors:
        y = np.full_like(x, divisor)
        for name, reference in (("div", ref_div), ("rem", ref_rem)):
            got = compile_loop(lambda k, x, n=name, d=divisor: verb(n)(k, x, k.const(d, dtype)), (dtype,), dtype, lanes,
                               cpu)(x)
            with np.errstate(all="ignore"):
                assert_same(got, reference(x, y), name, x, y)


def test_round_to_keeps_the_compute_dtype():
    x = numbers(DType.F32, 300)
    got = compile_loop(lambda k, x: k.round_to(x, DType.F16))(x)
    with np.errstate(over="ignore"):
        assert_same(got, x.astype(np.float16).astype(np.float32), "round_to", x)


@each_place
def test_gather_and_splat(cpu, lanes):
    def body(k: Algebra, index: Lanes) -> Lanes:
        numbers = ir.Constant(ir.ArrayType(ir.FloatType(), 4), [10.0, 20.0, 30.0, 40.0])
        table = ir.GlobalConstant(k.builder.module, "table", numbers)
        first = k.splat(ir.Constant(ir.FloatType(), 0.5), DType.F32)
        return k.add(k.gather(table, index, DType.F32), first)

    index = np.random.default_rng(1).integers(0, 4, 100).astype(np.int32)
    got = compile_loop(body, (DType.I32,), DType.F32, lanes, cpu)(index)
    assert got.tolist() == (index * 10 + 10.5).tolist()


@each_place
def test_masks(cpu, lanes):
    def body(k: Algebra, x: Lanes, y: Lanes) -> Lanes:
        both = k.and_(k.gt(x, 0.0), k.gt(y, 0.0))
        odd = k.xor(k.not_(both), k.or_(k.isnan(x), k.mask(False)))
        return k.convert(odd, DType.I32)

    x, y = pairs(DType.F32)
    got = compile_loop(body, (DType.F32, DType.F32), DType.I32, lanes, cpu)(x, y)
    assert got.tolist() == (~((x > 0) & (y > 0)) ^ np.isnan(x)).astype(int).tolist()


@each_place
def test_any_and_all(cpu, lanes):
    def body(k: Algebra, x: Lanes) -> Lanes:
        one, two = (ir.Constant(ir.IntType(32), n) for n in (1, 2))
        zero = ir.Constant(ir.IntType(32), 0)
        some = k.builder.select(k.any_(k.ne(x, 0)), one, zero)
        every = k.builder.select(k.all_(k.ne(x, 0)), two, zero)
        return k.splat(k.builder.add(some, every), DType.I32)

    x = np.array([0] * 16 + [1] * 16 + [0, 1] * 8, np.int32)
    some, every = ((x != 0).reshape(-1, lanes).any(1), (x != 0).reshape(-1, lanes).all(1))
    got = compile_loop(body, (DType.I32,), DType.I32, lanes, cpu)(x)
    assert got.tolist() == np.repeat(some + 2 * every, lanes).tolist()


@pytest.mark.parametrize("dtype", DType, ids=dtype_id)
def test_constants(dtype):
    for value in (0, 1, -1, 2.9, 10**10, 70000, True) if dtype.is_signed or dtype.is_float else (0, 1, 2.9, 200, True):
        got = compile_loop(lambda k, x, value=value: k.const(value, dtype), (DType.I8,), dtype)(np.zeros(3, np.int8))
        with np.errstate(over="ignore"):
            want = np.array(int(value) if dtype.is_int else value).astype(dtype.numpy)
        assert_same(got, np.full(3, want), f"const {value}")


def test_constants_saturate_or_wrap():
    """A float goes to an int as convert() takes it; an int keeps its low bits."""
    cases = [(2.9, 2), (-2.9, -2), (300.0, 127), (-np.inf, -128), (np.nan, 0), (300, 44), (-129, 127), (127.5, 127)]
    for value, want in cases:
        got = compile_loop(lambda k, x, value=value: k.const(value, DType.I8), (DType.I8,), DType.I8)(
            np.zeros(1, np.int8)
        )
        assert got[0] == want, value


def algebra(lanes: int = 4) -> tuple[Algebra, Lanes, Lanes, Lanes]:
    module = ir.Module()
    vectors = [ir.VectorType(kind, lanes) for kind in (ir.FloatType(), ir.IntType(32), ir.IntType(16))]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), vectors), "f")
    k = Algebra(ir.Builder(function.append_basic_block()), lanes)
    x, i, h = function.args
    return k, Lanes(x, DType.F32), Lanes(i, DType.I32), Lanes(h, DType.BF16)


def test_mistakes_are_named():
    k, x, i, h = algebra()
    with pytest.raises(TypeError, match="add needs one dtype"):
        k.add(x, i)
    with pytest.raises(TypeError, match="mul cannot compute with"):
        k.mul(h, h)
    with pytest.raises(TypeError, match="and needs ints or masks, got f32"):
        k.and_(x, x)
    with pytest.raises(TypeError, match="select needs a mask"):
        k.select(i, x, x)
    with pytest.raises(TypeError, match="floor needs floats"):
        k.floor(i)
    with pytest.raises(TypeError, match="rem is for ints"):
        k.rem(x, x)
    with pytest.raises(TypeError, match="bitcast keeps the width"):
        k.bitcast(x, DType.F64)
    with pytest.raises(TypeError, match="at least one operand that has lanes"):
        k.add(1, 2)


def test_text_is_short_and_without_fast_math():
    """A constant is one word however many lanes; intrinsics are declared once; no flag lets LLVM change a bit."""
    k, x, _, _ = algebra()
    k.fma(k.add(x, 1.5), 1.5, k.fma(x, x, 2.0))
    text = str(k.builder.module)
    assert text.count("splat (float 0x3FF8000000000000)") == 2
    assert text.count("declare") == 1
    assert not any(flag in text for flag in ("fast", "contract", "reassoc", "nnan", "ninf", "nsz", "arcp", "afn"))
