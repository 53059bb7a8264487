"""The interpreter against arithmetic done in other ways: exact rationals, hand-worked tiles, memory semantics."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pto_wsp import In, Out, Tensor, Tile, kernel, workload
from pto_wsp.errors import ExecutionError
from pto_wsp.trace.interpret import as_scalar, interpret
from pto_wsp.trace.ops import ref_cast, ref_div, ref_erf, ref_fma, ref_max_along, ref_min_along
from pto_wsp.trace.tile import pto
from pto_wsp.types import DType
from tests import strategies as draws
from tests.strategies import traced

F16, BF16, F32, F64, I8, I32, I64, U8, U64 = (DType[n] for n in "F16 BF16 F32 F64 I8 I32 I64 U8 U64".split())
PRECISION = {F16: (11, -24, 65504), BF16: (8, -133, None), F32: (24, -149, None), F64: (53, -1074, None)}


def rounded(exact: Fraction, dtype: DType) -> float:
    """To nearest even in `dtype`, done with integers."""
    bits, least, _ = PRECISION[dtype]
    if exact == 0:
        return 0.0
    magnitude = abs(exact)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    exponent -= magnitude < Fraction(2) ** exponent
    unit = Fraction(2) ** max(exponent - bits + 1, least)
    value = round(magnitude / unit) * unit                  # Python rounds halves to even
    largest = (2 - Fraction(1, 2 ** (bits - 1))) * 2 ** (15 if dtype is F16 else 1023 if dtype is F64 else 127)
    return math.copysign(float(value) if value <= largest else math.inf, 1 if exact > 0 else -1)


def some(dtype: DType, *more: Any) -> st.SearchStrategy[Any]:
    """Elements of `dtype` as a 0-d array, extremes included."""
    return st.integers(0, 2 ** 32 - 1).map(lambda seed: draws.elements(dtype, (1,), np.random.default_rng(seed))[0])


# ---- single operations ---------------------------------------------------------------------------------------------

@settings(max_examples=400)
@given(data=st.data(), dtype=st.sampled_from([F32, F64]))
def test_fma_rounds_once(data: Any, dtype: DType) -> None:
    width = {F32: 32, F64: 64}[dtype]
    number = st.one_of(st.floats(width=width, allow_nan=False, allow_infinity=False), some(dtype).map(float))
    x, y = data.draw(number), data.draw(number)
    if not math.isfinite(x) or not math.isfinite(y):
        return
    with np.errstate(all="ignore"):
        product = dtype.numpy.type(x) * dtype.numpy.type(y)
        nudge = np.ldexp(product, data.draw(st.integers(-60, 3)))       # an addend that makes the rounding hard
    z = data.draw(st.sampled_from([float(-product), float(nudge), data.draw(number), 0.0, -0.0]))
    operands = [np.array([v], dtype.numpy) for v in (x, y, z)]
    with np.errstate(all="ignore"):
        got = float(ref_fma(*operands)[0])
    if not math.isfinite(z):
        assert got == z or math.isnan(z)
        return
    exact = Fraction(x) * Fraction(y) + Fraction(z)
    assert got == rounded(exact, dtype)
    if exact == 0 and (x == 0 or y == 0):
        assert math.copysign(1, got) == math.copysign(1, math.copysign(1, x) * math.copysign(1, y) * 0.0 + z)


def test_fma_of_specials() -> None:
    inf, nan = math.inf, math.nan
    for dtype in (np.float32, np.float64):
        with np.errstate(all="ignore"):
            big = np.finfo(dtype).max
            x = np.array([inf, inf, 0, nan, 1, big, big, 0, -0.0, 2], dtype)
            y = np.array([1, 0, inf, 1, 1, 2, 2, 5, 5, 3], dtype)
            z = np.array([-inf, 1, 1, 1, nan, -inf, -big, -0.0, -0.0, inf], dtype)
            got = ref_fma(x, y, z)
        want = np.array([nan, nan, nan, nan, nan, -inf, big, 0.0, -0.0, inf], dtype)
        np.testing.assert_array_equal(got, want)
        np.testing.assert_array_equal(np.signbit(got[7:9]), [False, True])


@settings(max_examples=400)
@given(data=st.data(), source=st.sampled_from(DType), target=st.sampled_from(DType))
def test_a_cast_rounds_once_saturates_and_wraps(data: Any, source: DType, target: DType) -> None:
    x = data.draw(some(source))
    if source.is_float and target.is_float and data.draw(st.booleans()):       # next to a tie of the target
        with np.errstate(all="ignore"):
            near = ref_cast(np.array([x], source.numpy), target).astype(np.float64)[0]
            x = np.array([np.nextafter(near, data.draw(st.sampled_from([0.0, np.inf])))]).astype(source.numpy)[0]
    with np.errstate(all="ignore"):
        got = ref_cast(np.array([x], source.numpy), target)[0]
    value = int(x) if source.is_int else float(x)
    if source.is_int and target.is_int:
        assert int(got) % 2 ** target.bits == value % 2 ** target.bits
    elif target.is_int:
        limits = np.iinfo(target.numpy)
        if math.isnan(value):
            assert int(got) == 0
        else:
            whole = value if math.isinf(value) else math.trunc(value)
            assert int(got) == min(max(whole, limits.min), limits.max)
    elif not math.isfinite(value):
        assert math.isnan(float(got)) if math.isnan(value) else float(got) == value
    else:
        assert float(got) == rounded(Fraction(value), target)
        assert source.is_int or math.copysign(1, float(got)) == math.copysign(1, value)


@given(x=st.integers(-2 ** 63, 2 ** 63 - 1), y=st.one_of(st.integers(-3, 3), st.integers(-2 ** 63, 2 ** 63 - 1)),
       dtype=st.sampled_from([I8, I32, I64, U8, U64]))
def test_integer_division_truncates(x: int, y: int, dtype: DType) -> None:
    with np.errstate(all="ignore"):
        a, b = (np.array([v & 2 ** dtype.bits - 1], f"u{dtype.itemsize}").view(dtype.numpy) for v in (x, y))
        got = int(ref_div(a, b)[0])
    p, q = int(a[0]), int(b[0])
    want = 0 if q == 0 else abs(p) // abs(q) * (1 if (p < 0) == (q < 0) else -1)
    assert (got - want) % 2 ** dtype.bits == 0


def test_largest_and_smallest() -> None:
    x = np.array([[-0.0, 0.0], [0.0, -0.0], [np.nan, 5], [5, np.nan], [1, 2]], np.float32)
    largest, smallest = ref_max_along(x, 1)[:, 0], ref_min_along(x, 1)[:, 0]
    np.testing.assert_array_equal(largest, [0, 0, np.nan, np.nan, 2])
    np.testing.assert_array_equal(smallest, [0, 0, np.nan, np.nan, 1])
    assert not np.signbit(largest[:2]).any() and np.signbit(smallest[:2]).all()
    nothing = np.zeros((3, 0), np.int8)
    assert ref_max_along(nothing, 1).tolist() == [[-128]] * 3 and ref_min_along(nothing, 1).tolist() == [[127]] * 3


@given(x=st.floats(-7, 7))
def test_erf(x: float) -> None:
    assert float(ref_erf(np.array([x], np.longdouble))[0]) == pytest.approx(math.erf(x), rel=3e-16, abs=1e-320)


@pytest.mark.parametrize("dtype, value, expected", [
    (I32, 2 ** 40 + 3, 3), (I32, 2.9, 2), (I32, -2.9, -2), (F32, 1, 1.0), (F16, 1e9, math.inf), (I64, -1, -1),
    (U8, True, 1), pytest.param(F32, 10 ** 400, math.inf, id="huge"), (I8, 1e9, 127), (F64, 2 ** 63 + 1, 2.0 ** 63)])
def test_scalars_convert_like_constants(dtype: DType, value: Any, expected: Any) -> None:
    got = as_scalar(value, dtype)
    assert got.shape == () and got.dtype == dtype.numpy and got.item() == expected


# ---- kernels -------------------------------------------------------------------------------------------------------

def run(graph: Any, *arrays: Any, scalars: Any = ()) -> Any:
    """The arrays after one task."""
    interpret(graph, arrays, scalars)
    return arrays


def test_every_op_rounds_to_its_tile() -> None:
    x = np.random.default_rng(1).standard_normal((7, 33)).astype(np.float16)
    y = np.random.default_rng(2).standard_normal((7, 33)).astype(np.float16)
    def body(a: Any, b: Any) -> Any:
        return pto.mul(pto.sub(pto.add(pto.mul(a, b), a), b), pto.add(a, b))
    out = run(traced(body, (7, 33, F16), (7, 33, F16), out=(7, 33, F16)), x, y, np.zeros_like(x))[-1]
    np.testing.assert_array_equal(out, ((x * y + x) - y) * (x + y))


def test_a_vector_takes_the_dtype_of_the_tile_first() -> None:
    x = np.random.default_rng(3).standard_normal((2, 5)).astype(np.float16)
    v = np.array([[1 / 3], [0.1]], np.float32)
    out = run(traced(pto.mul, (2, 5, F16), (2, 1), out=(2, 5, F16)), x, v, np.zeros_like(x))[-1]
    np.testing.assert_array_equal(out, x * v.astype(np.float16))


def test_square_tile_with_a_row_is_per_column() -> None:
    x, row = np.arange(36, dtype=np.float32).reshape(6, 6), np.arange(6, dtype=np.float32)[None]
    out = run(traced(pto.add, (6, 6), (1, 6), out=(6, 6)), x, row, np.zeros_like(x))[-1]
    np.testing.assert_array_equal(out, x + row)


def test_bf16_rounds_every_op() -> None:
    import ml_dtypes
    x = np.array([[1.0, 3.0, 256.0]], ml_dtypes.bfloat16)
    graph = traced(lambda a: pto.sub(pto.add(a, 1 / 256), a), (1, 3, BF16), out=(1, 3, BF16))
    out = run(graph, x, np.zeros_like(x))[-1]
    assert out.astype(np.float32).tolist() == [[0, 0, 0]]


def test_memory_is_read_and_written_in_program_order() -> None:
    def entry(x: Any, o: Any) -> None:
        pto.store(x, pto.add(x, x))
        pto.store(o, x)

    def again(x: Any, o: Any) -> None:
        pto.store(x, pto.add(x, x))
        pto.store(o, pto.load(x))

    def product(x: Any, o: Any) -> None:
        pto.store(x, pto.add(x, x))
        pto.store(o, pto.matmul(x, x))

    for body, want in ((entry, 3), (again, 6), (product, 72)):
        x, o = np.full((2, 2), 3, np.float32), np.zeros((2, 2), np.float32)
        run(traced(body, ("inout", 2, 2), ("out", 2, 2)), x, o)
        assert (x == 6).all() and (o == want).all()


def test_overlapping_memory_is_a_snapshot() -> None:
    data = np.arange(24, dtype=np.float32).reshape(6, 4)
    want = data[:5] * 2
    run(traced(lambda x: pto.mul(x, 2.0), (5, 4), out=(5, 4)), data[:5], data[1:])
    np.testing.assert_array_equal(data[1:], want)


def test_strides_of_any_sign() -> None:
    home = np.arange(48, dtype=np.int32).reshape(6, 8)
    x, out = home[::-2, 1::3].T, np.zeros((3, 3), np.int32)[::-1]
    want = x + 1
    run(traced(lambda x: pto.add(x, 1), (3, 3, I32), out=(3, 3, I32)), x, out)
    np.testing.assert_array_equal(out, want)


def test_partial_tiles() -> None:
    """6x10 tiles of which 4x7 are valid: the table of the tails."""
    x = np.random.default_rng(4).standard_normal((4, 7)).astype(np.float32)
    out, column = np.full((6, 10), -1, np.float32), np.full((6, 1), -1, np.float32)
    tile = (6, 10)
    run(traced(lambda x: pto.mul(x, pto.rowsum(x)), tile, out=tile), x, out[:4, :7])
    np.testing.assert_allclose(out[:4, :7], x * x.sum(1, keepdims=True), rtol=1e-5)
    assert (out[4:] == -1).all() and (out[:, 7:] == -1).all()
    run(traced(lambda x: pto.rowsum(pto.exp(x)), tile, out=(6, 1)), np.zeros_like(x), column[:4])
    assert column[:4].tolist() == [[7]] * 4 and (column[4:] == -1).all()
    run(traced(pto.rowmean, tile, out=(6, 1)), np.ones_like(x), column[:4])
    assert (column[:4] == 1).all()
    spread = traced(lambda x: pto.add(pto.broadcast(pto.rowmax(x), tile), pto.alloc(tile, F32)), tile, out=tile)
    run(spread, x, out[:4, :7])
    np.testing.assert_array_equal(out[:4, :7], np.broadcast_to(x.max(1, keepdims=True), (4, 7)))
    a, b = np.ones((4, 7), np.float32), np.ones((7, 5), np.float32)
    run(traced(pto.matmul, tile, (10, 8), out=(6, 8)), a, b, out[:4, :5])
    assert (out[:4, :5] == 7).all()
    run(traced(lambda x: x, tile, out=tile), x[:0], out[:0, :7])


def test_a_short_sort_has_missing_scores_last() -> None:
    def body(s: Any) -> Any:
        return pto.extract_topk_indices(pto.tsort32(s, pto.iota_u32(32)), 6)
    scores = np.array([[1, np.nan, 3, -np.inf, 3]], np.float32)
    out = run(traced(body, (1, 32), out=(1, 6, I32)), scores, np.zeros((1, 6), np.int32))[-1]
    assert out.tolist() == [[2, 4, 0, 3, 5, 6]]            # then NaN; the missing ones tie with -inf


@pytest.mark.parametrize("shapes, what", [
    ([(4, 7), (4, 6)], "7 columns of a and 6 columns of b have to agree"),
    ([(6, 11), (6, 10)], "larger"),
    ([(6, 10)], "takes 2 arrays"),
])
def test_arrays_that_do_not_fit(shapes: Any, what: str) -> None:
    graph = traced(lambda x: x, (6, 10), out=(6, 10))
    with pytest.raises(ExecutionError, match=what):
        interpret(graph, [np.zeros(s, np.float32) for s in shapes])


def test_other_misfits() -> None:
    graph = traced(pto.mul, (6, 10), (6, 1), out=(6, 10))
    x, v = np.ones((4, 7), np.float32), np.ones((4, 0), np.float32)
    with pytest.raises(ExecutionError, match="b has 0 valid columns"):
        interpret(graph, [x, v, x.copy()])
    with pytest.raises(ExecutionError, match="float64"):
        interpret(graph, [x.astype(np.float64), v, x])


@settings(max_examples=40)
@given(data=st.data())
def test_partial_results_are_corners_of_what_full_tiles_give(data: Any) -> None:
    """Elementwise kernels on a partial tile do what they do on the whole, element by element."""
    ops = [op for op in draws.EXACT if op.name in (*draws.ELEMENTWISE, "neg", "abs", "relu", "select", "floor", "cast")]
    graph = data.draw(draws.graphs(ops=ops))
    whole = data.draw(draws.arguments(graph))
    part = [a[:n, :m].copy() for a, (n, m) in zip(whole.arrays, draws.valid_shapes(graph, np.random.default_rng(0)))]
    interpret(graph, whole.arrays, whole.scalars)
    interpret(graph, part, whole.scalars)
    for a, b in zip(whole.arrays, part, strict=True):
        np.testing.assert_array_equal(a[:b.shape[0], :b.shape[1]].astype(np.float64), b.astype(np.float64))


def _sorted(s):
    return pto.tsort32(s, pto.iota_u32(32))


@pytest.mark.parametrize("body, want, shapes, valid", [
    (lambda s, y: pto.matmul(_sorted(s), y), lambda pairs, y: pairs[:, :2] @ y,
     ((1, 32), (64, 3), (1, 3)), ((1, 9), (2, 2), (1, 2))),
    (lambda s, y: pto.matmul(y, pto.transpose(_sorted(s))), lambda pairs, y: y @ pairs[:, :7].T,
     ((1, 32), (3, 64), (3, 1)), ((1, 32), (2, 7), (2, 1))),
    (lambda s, y: _sorted(s) + y, lambda pairs, y: pairs[:, :5] + y,
     ((1, 32), (1, 64), (1, 64)), ((1, 9), (1, 5), (1, 5))),
], ids=["product", "transposed", "sum"])
def test_of_what_is_made_whole_a_partial_tile_takes_what_it_needs(body, want, shapes, valid):
    """A sorted row has 64 numbers whatever the scores' tail; with a tail of 2 the first 2 count, here and as code."""

    @kernel
    def k(s: In[Tile[(*shapes[0], DType.F32)]], y: In[Tile[(*shapes[1], DType.F32)]],
          out: Out[Tile[(*shapes[2], DType.F32)]]):
        pto.store(out, body(s, y))

    rng = np.random.default_rng(0)
    s, y, out = (rng.standard_normal(shape).astype(np.float32) for shape in valid)
    order = np.argsort(-s[0], kind="stable")
    pairs = np.stack([s[0, order], order], axis=1).astype(np.float32).reshape(1, -1)

    @workload
    def w():
        k(*(Tensor(data=a, shape=a.shape, dtype=DType.F32) for a in (s, y, out)))

    for target in ("cpu_sim", "numpy"):
        out[:] = 7
        program = w().compile(target)
        program.execute()
        program.synchronize()
        np.testing.assert_allclose(out, want(pairs, y), rtol=1e-5, err_msg=target)
