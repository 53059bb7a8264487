"""Elementary functions: within 2 ULP of the correctly rounded result everywhere, the same bits on every CPU."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pytest

from pto_wsp.lower import jit, math
from pto_wsp.trace.ops import OPS
from pto_wsp.types import DType
from tests.lower.elementwise import CPUS, compile_loop, compile_loops, cpus_here, features_of, loops_ir

FUNCTIONS = {name: getattr(math, name) for name in math.__all__}
EXTENDED = np.finfo(np.longdouble).nmant > 60  # the reference of f64 needs more than f64


def f32_inputs() -> np.ndarray:
    """Every exponent with both signs and many significands, the ranges where results vary, and special values."""
    rng = np.random.default_rng(32)
    significands = np.concatenate([[0, 1, 2, 0x7FFFFF, 0x7FFFFE, 0x400000], rng.integers(0, 1 << 23, 150)])
    bits = (np.arange(512, dtype=np.uint64)[:, None] << 23) + significands.astype(np.uint64)
    ranges = [rng.uniform(-r, r, 15_000) for r in (0.1, 1, 10, 110, 1e4)]
    ranges.append(rng.uniform(-18, -16, 15_000))  # e**x is just about an ULP of 1
    near_one = 1 + rng.normal(0, 1, 10_000) * 10.0 ** rng.uniform(-7, 0, 10_000)
    multiples_of_half_pi = np.arange(-20_000, 20_000, 3) * (np.pi / 2)
    edges = [88.72283, 88.72284, 88.722839, -103.97208, -103.97207, -87.33655, 48000, 48000.004, 0.55, 0.9277,
             18, 18.000002, -110, -110.00001, 5.25, 5.2500005, -11, -11.000001, 3e38, 3.4028235e38]
    values = np.concatenate([*ranges, near_one, multiples_of_half_pi, edges]).astype(np.float32)
    return np.concatenate([bits.astype(np.uint32).ravel().view(np.float32), values])


def f64_inputs(count: int) -> np.ndarray:
    rng = np.random.default_rng(64)
    with np.errstate(over="ignore"):
        any_bits = rng.integers(0, 1 << 64, count, dtype=np.uint64).view(np.float64)
        ranges = [rng.uniform(-r, r, count) for r in (1, 30, 800)]
        tiny = np.exp(rng.uniform(-60, 5, count)) * rng.choice([-1, 1], count)
        near_one = 1 + rng.normal(0, 1, count) * 10.0 ** rng.uniform(-16, 0, count)
        multiples_of_half_pi = np.rint(rng.uniform(0, 1e6, count)) * (np.pi / 2)
    subnormal = rng.integers(0, 1 << 52, count // 4, dtype=np.uint64).view(np.float64)
    edges = [0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324, -5e-324, 1.7e308, -1.7e308, 1e8, 1e8 + 1e-7, 709.8, -745.2]
    return np.concatenate([any_bits, *ranges, tiny, near_one, multiples_of_half_pi, subnormal, edges])


def steps(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """How many floats lie between the two; NaN meets only NaN, and a zero only the zero of its sign."""
    bits = np.int32 if got.dtype == np.float32 else np.int64

    def ordered(x: np.ndarray) -> np.ndarray:
        i = x.view(bits)
        return np.where(i < 0, np.iinfo(bits).min - i, i).astype(object if bits is np.int64 else np.int64)

    distance = np.abs(ordered(got) - ordered(want)).astype(np.float64)
    wrong_zero = (got == 0) & (want == 0) & (np.signbit(got) != np.signbit(want))
    nan = np.isnan(got) | np.isnan(want)
    distance[nan] = np.where(np.isnan(got) & np.isnan(want), 0, np.inf)[nan]
    return np.where(wrong_zero, np.inf, distance)


def check(name: str, x: np.ndarray, got: np.ndarray, wider: type) -> None:
    with np.errstate(all="ignore"):
        want = np.asarray(OPS[name].reference(x.astype(wider))).astype(x.dtype)
    distance = steps(got, want)
    worst = np.argmax(distance)
    assert distance[worst] <= 2, f"{name}({x[worst]!r}) = {got[worst]!r}, not {want[worst]!r}: {distance[worst]} ULP"


@pytest.mark.parametrize("cpu", cpus_here())
@pytest.mark.parametrize("name", FUNCTIONS)
def test_f32_is_within_two_ulp(name, cpu):
    x = f32_inputs()
    check(name, x, compile_loop(FUNCTIONS[name], cpu=cpu)(x), np.float64)


@pytest.mark.skipif(not EXTENDED, reason="long double is no wider than f64 here")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_f64_is_within_two_ulp(name):
    x = f64_inputs(1000 if name == "erf" else 10_000)
    check(name, x, compile_loop(FUNCTIONS[name], (DType.F64,), DType.F64, cpu=cpus_here()[-1])(x), np.longdouble)


@pytest.mark.parametrize("dtype", (DType.F32, DType.F64), ids=lambda d: d.value)
def test_same_bits_on_every_cpu_and_width(dtype):
    x = f32_inputs().astype(dtype.numpy) if dtype is DType.F32 else f64_inputs(1000)
    found = {}
    for cpu in cpus_here():
        for lanes in (1, 4, 16):
            loops = compile_loops(FUNCTIONS, (dtype,), dtype, lanes, cpu)
            for name, f in loops.items():
                y = f(x)
                y[np.isnan(y)] = np.nan  # the sign and payload of a NaN are not promised
                found.setdefault(name, set()).add(hashlib.sha256(y.tobytes()).hexdigest())
    assert {name for name, digests in found.items() if len(digests) > 1} == set()


@pytest.mark.parametrize("dtype", (DType.F32, DType.F64), ids=lambda d: d.value)
@pytest.mark.parametrize(
    ("name", "x", "y"),
    [
        ("exp", 0.0, 1.0), ("exp", -0.0, 1.0), ("exp", -np.inf, 0.0), ("exp", np.inf, np.inf),
        ("exp", 1e4, np.inf), ("log", 1.0, 0.0), ("log", 0.0, -np.inf), ("log", -0.0, -np.inf),
        ("log", -1.0, np.nan), ("log", np.inf, np.inf), ("sin", 0.0, 0.0), ("sin", -0.0, -0.0),
        ("sin", np.inf, np.nan), ("cos", 0.0, 1.0), ("cos", -0.0, 1.0), ("cos", -np.inf, np.nan),
        ("tanh", -0.0, -0.0), ("tanh", np.inf, 1.0), ("tanh", -50.0, -1.0), ("erf", -0.0, -0.0),
        ("erf", np.inf, 1.0), ("erf", -np.inf, -1.0), ("sigmoid", 0.0, 0.5), ("sigmoid", np.inf, 1.0),
        ("sigmoid", -np.inf, 0.0), ("silu", -0.0, -0.0), ("silu", np.inf, np.inf), ("silu", -np.inf, -0.0),
        ("gelu", -0.0, -0.0), ("gelu", np.inf, np.inf), ("gelu", -np.inf, -0.0), ("gelu", 1e30, 1e30),
        ("rsqrt", 4.0, 0.5), ("rsqrt", 0.0, np.inf), ("rsqrt", -0.0, -np.inf), ("rsqrt", -1.0, np.nan),
        ("reciprocal", -0.0, -np.inf),
    ],
)  # fmt: skip
def test_exact_values(name, x, y, dtype):
    (got,) = compile_loop(FUNCTIONS[name], (dtype,), dtype, lanes=1)(np.array([x], dtype.numpy))
    want = dtype.numpy.type(y)
    assert np.array_equal(got, want, equal_nan=True) and (np.isnan(got) or np.signbit(got) == np.signbit(want))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_nan_stays_nan(name):
    x = np.array([np.nan, 1.0], np.float32)
    assert np.isnan(compile_loop(FUNCTIONS[name])(x)).tolist() == [True, False]


def test_the_double_closest_to_a_multiple_of_half_pi():
    """Cancels 61 bits after the reduction of an exponent of 850: the hardest argument there is (Muller)."""
    x = np.array([6381956970095103 * 2.0**797])
    loops = compile_loops({"sin": math.sin, "cos": math.cos}, (DType.F64,), DType.F64)
    assert loops["sin"](x)[0] == 1.0
    assert abs(loops["cos"](x)[0] / -4.68716592425462761112e-19 - 1) < 2.0**-52


def horner(x: np.ndarray, coefficients: tuple[float, ...]) -> np.ndarray:
    result = np.zeros_like(x)
    for coefficient in reversed(coefficients):
        result = result * x + coefficient
    return result


@pytest.mark.skipif(not EXTENDED, reason="long double is no wider than f64 here")
@pytest.mark.parametrize(("c", "bound"), [(math.F32, 2.0**-27), (math.F64, 2.0**-56)], ids=["f32", "f64"])
def test_polynomials_are_as_close_as_the_module_says(c, bound):
    """Relative error in exact arithmetic: what is left of the 2 ULP is rounding."""
    r = np.linspace(0, 1, 4001, dtype=np.longdouble)[1:]
    e, s, t, x = (2 * r - 1) * np.log(np.longdouble(2)) / 2, r * np.pi / 2, r * 0.55, r * c.erf_split
    f = 0.125 + 0.375 * (2 * r - 1)
    f = f[f != 0]
    if c is math.F32:
        log = f - f * f / 2 + f**3 * horner(f, math.LOG_F32)
    else:
        q = f / (2 + f)
        log = 2 * q + q**3 * horner(q * q, math.LOG_F64)
    b = 2 * np.sqrt(2 / np.longdouble(np.pi)) * np.longdouble("0.044715")
    g = (0.06 + (2 * r - 1) * np.log(np.longdouble(2)) / 2) / b
    for name, got, want in (
        ("exp", 1 + e + e * e * horner(e, c.exp), np.exp(e)),
        ("gelu", 1 + g * horner(g, c.gelu), np.exp(b * g)),
        ("sin", s + s**3 * horner(s * s, c.sin), np.sin(s)),
        ("tanh", t + t**3 * horner(t * t, math.TANH_F64), np.tanh(t)),
        ("erf", x + x * horner(x * x, c.erf_small), OPS["erf"].reference(x)),
        ("log", log, np.log1p(f)),
    ):
        assert np.max(np.abs(got / want - 1)) < bound, name


def test_table_of_powers_over_pi():
    """Its first entry is 1 / pi; the entry of 2**(16 j) is 2**16 times the one before, modulo 2."""
    from fractions import Fraction

    table = math.powers_over_pi()
    sums = [sum(map(Fraction, table[i : i + 4])) for i in range(0, len(table), 4)]
    assert float(sums[0]) == 1 / np.pi
    assert all(abs(b - a * 2**16 % 2) < Fraction(1, 1 << 180) for a, b in zip(sums, sums[1:], strict=False))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_half_types_have_to_be_widened(name):
    with pytest.raises(TypeError, match="convert"):
        compile_loop(FUNCTIONS[name], (DType.F16,), DType.F16)


@pytest.mark.parametrize("dtype", (DType.F32, DType.F64), ids=lambda d: d.value)
@pytest.mark.parametrize("machine", ("avx2", "avx512", "aarch64"))
def test_machine_code_is_vectors_without_library_calls(machine, dtype):
    """Read as text, so for CPUs that are not this one too: no call of libm, fused multiply-adds on whole registers."""
    if machine == "aarch64":
        target, features = jit.Target("aarch64-linux-gnu", "neoverse-n1"), frozenset({"fma", "f16c"})
        fused = r"fml[as]\tv\d+\.(4s|2d)"
    else:
        target, features = jit.Target("x86_64-linux-gnu", CPUS[machine]), features_of(machine)
        fused = r"vf(n?m)(add|sub)\d+p[sd]\t.*" + ("%ymm" if machine == "avx2" else "%zmm")
    assembly = jit.assembly(loops_ir(FUNCTIONS, (dtype,), dtype, 16, features), target)
    assert set(re.findall(r"\t(?:bl|callq?)\t(\S+)", assembly)) <= {"pto.reduce_by_pi.6", "pto.reduce_by_pi.61"}
    _, *parts = re.split(r"^test\.(\w+):", assembly, flags=re.MULTILINE)
    count = {name: len(re.findall(fused, part)) for name, part in zip(parts[::2], parts[1::2], strict=True)}
    assert count.keys() == FUNCTIONS.keys()
    assert {name for name in FUNCTIONS if count[name] < 7} == {"rsqrt", "reciprocal"}


def test_f32_without_fused_multiply_add_calls_no_library():
    """libm's fmaf() takes a hundred times as long on such CPUs as what stands in for it."""
    target = jit.Target("x86_64-linux-gnu", "x86-64-v2")
    text = loops_ir({"exp": math.exp, "tanh": math.tanh}, (DType.F32,), DType.F32, 16, frozenset())
    assembly = jit.assembly(text, target)
    assert set(re.findall(r"\tcallq?\t(\S+)", assembly)) == {"pto.fma.v16f32"}
