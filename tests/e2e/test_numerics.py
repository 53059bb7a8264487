"""What each op means: rounding, broadcasting, integers, special values, scalars, dtypes, stores, matmul, tails."""

import ml_dtypes
import numpy as np
import pytest

from pto_wsp import Constexpr, DType, In, InOut, Out, P, Scalar, Symbol, Tile, kernel, pto, workload
from tests.e2e.programs import dtype_of, f32, run, run_one, tensor

F32, F16, BF16, I32, I64 = DType.F32, DType.F16, DType.BF16, DType.I32, DType.I64
FLOATS = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]


def apply(op, *inputs, result=None, out_dtype=None):
    """op over tiles holding the inputs, as one task."""
    specs = [(*array.shape, dtype_of(array)) for array in inputs]
    out = np.zeros(result or inputs[0].shape, out_dtype or inputs[0].dtype)
    target = (*out.shape, dtype_of(out))
    if len(inputs) == 1:

        @kernel
        def body(a: In[Tile[specs[0]]], out: Out[Tile[target]]):
            pto.store(out, op(a))
    elif len(inputs) == 2:

        @kernel
        def body(a: In[Tile[specs[0]]], b: In[Tile[specs[1]]], out: Out[Tile[target]]):
            pto.store(out, op(a, b))
    else:

        @kernel
        def body(a: In[Tile[specs[0]]], b: In[Tile[specs[1]]], c: In[Tile[specs[2]]], out: Out[Tile[target]]):
            pto.store(out, op(a, b, c))

    run_one(body, *inputs, out)
    return out


# ---- broadcasting --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name,meaning",
    [
        ("add", np.add),
        ("sub", np.subtract),
        ("mul", np.multiply),
        ("div", np.divide),
        ("maximum", np.maximum),
        ("minimum", np.minimum),
    ],
)
@pytest.mark.parametrize(
    "left,right",
    [
        ((5, 12), (1, 12)),
        ((5, 12), (5, 1)),
        ((5, 12), (1, 1)),
        ((1, 12), (5, 12)),
        ((5, 1), (5, 12)),
        ((1, 1), (5, 12)),
        ((6, 6), (1, 6)),
        ((6, 6), (6, 1)),
        ((5, 1), (1, 12)),
        ((1, 7), (3, 1)),
    ],
)
def test_broadcasting_is_numpys(name, meaning, left, right):
    a, b = f32(*left, seed=1), f32(*right, seed=2)
    expected = meaning(a, b)
    np.testing.assert_array_equal(apply(getattr(pto, name), a, b, result=expected.shape), expected)


def test_square_tile_with_row_vector_is_per_column():
    x, row = f32(6, 6), f32(1, 6, seed=1)
    np.testing.assert_array_equal(apply(pto.mul, x, row), x * row)


def test_operators_on_tiles():
    x, y = f32(4, 9) + 3, f32(4, 9, seed=1) + 3
    np.testing.assert_array_equal(apply(lambda a, b: (a + b) * 2 - a / b, x, y), (x + y) * 2 - x / y)
    np.testing.assert_array_equal(apply(lambda a: 1 - -a, x), 1 + x)
    np.testing.assert_array_equal(apply(lambda a: 2 / a, x), np.float32(2) / x)


def test_comparison_and_select():
    x, y = f32(4, 9), f32(4, 9, seed=1)
    np.testing.assert_array_equal(apply(lambda a, b: pto.select(a < b, a, b), x, y), np.where(x < y, x, y))
    np.testing.assert_array_equal(apply(lambda a: pto.select(a >= 0, a, 0.0), x), np.where(x >= 0, x, np.float32(0)))


# ---- rounding ------------------------------------------------------------------------------------------------------


def test_f32_vector_is_rounded_to_the_f16_tile():
    x = f32(2, 50).astype(np.float16)
    vector = np.array([[1 / 3], [0.1]], np.float32)
    np.testing.assert_array_equal(apply(pto.mul, x, vector), x * vector.astype(np.float16))


def test_rowmean_divides_by_the_number_of_columns():
    """A true division of the sum, not a product with 1/13."""
    x = f32(64, 13)
    total = apply(pto.rowsum, x, result=(64, 1))
    np.testing.assert_array_equal(apply(pto.rowmean, x, result=(64, 1)), total / np.float32(13))
    np.testing.assert_allclose(total, x.astype(np.float64).sum(1, keepdims=True), rtol=1e-6, atol=1e-6)


def test_store_f32_as_f16_rounds_to_even_and_overflows_to_infinity():
    x = np.array(
        [
            [
                65519.996,
                65520,
                -65520,
                1e-7,
                2.0**-24,
                2.0**-25,
                3 * 2.0**-25,
                1 + 2**-11,
                1 + 3 * 2**-11,
                np.nan,
                np.inf,
                -0.0,
            ]
        ],
        np.float32,
    )
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16)
    out = apply(lambda a: a, x, out_dtype=np.float16)
    np.testing.assert_array_equal(out.view(np.uint16)[:, :9], expected.view(np.uint16)[:, :9])
    assert np.isnan(out[0, 9]) and out[0, 10] == np.inf and np.signbit(out[0, 11])


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: np.dtype(d).name)
def test_every_float_dtype_computes_and_rounds_after_each_op(dtype):
    x, y = f32(5, 21).astype(dtype), f32(5, 21, seed=1).astype(dtype)
    np.testing.assert_array_equal(apply(lambda a, b: (a + b) * a - b, x, y), (x + y) * x - y)
    np.testing.assert_allclose(
        apply(pto.exp, x).astype(np.float64), np.exp(x.astype(np.float64)), rtol=4 * float(ml_dtypes.finfo(dtype).eps)
    )
    assert apply(pto.rowmax, x, result=(5, 1), out_dtype=dtype).tolist() == x.max(1, keepdims=True).tolist()


@pytest.mark.parametrize("dtype", INTEGERS, ids=lambda d: np.dtype(d).name)
def test_every_integer_dtype_wraps(dtype):
    info = np.iinfo(dtype)
    rng = np.random.default_rng(0)
    x = rng.integers(info.min, info.max, (3, 37), dtype=dtype, endpoint=True)
    y = rng.integers(info.min, info.max, (3, 37), dtype=dtype, endpoint=True)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(apply(lambda a, b: a * b + a - b, x, y), x * y + x - y)
    np.testing.assert_array_equal(apply(pto.maximum, x, y), np.maximum(x, y))
    np.testing.assert_array_equal(apply(pto.rowmax, x, result=(3, 1)), x.max(1, keepdims=True))
    np.testing.assert_array_equal(apply(pto.rowsum, x, result=(3, 1)), x.sum(1, keepdims=True, dtype=dtype))


def test_integer_division_is_defined_everywhere():
    low = np.iinfo(np.int32).min
    x = np.array([[7, -7, 7, -7, 5, low, 0]], np.int32)
    y = np.array([[2, 2, -2, -2, 0, -1, 0]], np.int32)
    np.testing.assert_array_equal(apply(pto.div, x, y), [[3, -3, -3, 3, 0, low, 0]])


def test_division_by_zero_is_ieee_also_when_broadcast():
    x = np.array([[1, -1, 0], [2, -2, 0]], np.float32)
    zeros = np.zeros((2, 1), np.float32)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(apply(pto.div, x, zeros), x / zeros)
        np.testing.assert_array_equal(apply(pto.div, x, np.zeros((1, 3), np.float32)), x / zeros)
        np.testing.assert_array_equal(apply(lambda a: a / 0.0, x), x / zeros)


def test_nan_propagates_through_maximum_and_minimum():
    nan = np.nan
    x, y = np.array([[nan, 1, nan, -0.0]], np.float32), np.array([[1, nan, nan, 0.0]], np.float32)
    for op in (pto.maximum, pto.minimum):
        assert np.isnan(apply(op, x, y)[0, :3]).all()
    assert not np.signbit(apply(pto.maximum, x, y)[0, 3]) and np.signbit(apply(pto.minimum, x, y)[0, 3])
    assert np.isnan(apply(pto.rowmax, np.array([[1, nan, 2]], np.float32), result=(1, 1)))


def test_special_values_of_exp_and_rsqrt():
    inf = np.inf
    x = np.array([[0.0, -0.0, inf, -inf, -1, np.nan, 89, -104, 1e-45]], np.float32)
    with np.errstate(all="ignore"):
        exp, rsqrt = (
            np.exp(x.astype(np.float64)).astype(np.float32),
            (1 / np.sqrt(x.astype(np.float64))).astype(np.float32),
        )
    np.testing.assert_allclose(apply(pto.exp, x), exp, rtol=3e-7, atol=0)
    np.testing.assert_allclose(apply(pto.rsqrt, x), rsqrt, rtol=3e-7, atol=0)


# ---- scalars -------------------------------------------------------------------------------------------------------


def test_constants_convert_like_c():
    x = np.arange(12, dtype=np.int32).reshape(2, 6)
    np.testing.assert_array_equal(apply(lambda a: a + pto.constant(2.9, I32), x), x + 2)
    np.testing.assert_array_equal(apply(lambda a: a * 2.9, x), x * 2)
    np.testing.assert_array_equal(apply(lambda a: a + (-2.9), x), x - 2)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_constants_may_be_non_finite(value):
    np.testing.assert_array_equal(
        apply(lambda a: a * 0 + pto.constant(value, F32), f32(2, 3)), np.full((2, 3), value, np.float32)
    )


def test_scalar_with_scalar():
    np.testing.assert_array_equal(
        apply(lambda a: a + pto.mul(pto.constant(3.0), pto.constant(0.5)), f32(2, 3)), f32(2, 3) + np.float32(1.5)
    )


@kernel
def scaled(x: In[Tile[2, 8, F32]], out: Out[Tile[2, 8, F32]], gain: Scalar[F32] = 0.25):
    pto.store(out, pto.mul(x, gain))


def test_scalar_parameters_and_their_defaults():
    x, out = f32(2, 8), np.zeros((2, 8), np.float32)
    assert run_one(scaled, x=x, out=out) == 48
    np.testing.assert_array_equal(out, x * np.float32(0.25))
    run_one(scaled, x=x, out=out, gain=3)
    np.testing.assert_array_equal(out, x * np.float32(3))
    run_one(scaled, x, out, 5.0)
    np.testing.assert_array_equal(out, x * np.float32(5))


def test_symbol_is_read_at_every_run():
    x, out = f32(2, 8), np.zeros((2, 8), np.float32)
    X, OUT = tensor(x), tensor(out)

    @workload
    def with_symbol():
        scaled(x=X, out=OUT, gain=Symbol("gain"))

    program = with_symbol().compile()
    for gain in (1.5, -2.0):
        program.set_symbol_f32("gain", gain)
        run_again(program)
        np.testing.assert_array_equal(out, x * np.float32(gain))


def run_again(program):
    program.execute()
    program.synchronize()


def test_loop_variable_as_float_scalar_is_its_value():
    x, out = f32(2, 8), np.zeros((5, 2, 8), np.float32)
    X, OUT = tensor(x), tensor(out)

    @workload
    def scales():
        for i in P(5):
            scaled[i](x=X, out=OUT[i], gain=i)

    run(scales())
    np.testing.assert_array_equal(out, x * np.arange(5, dtype=np.float32)[:, None, None])


@pytest.mark.parametrize(
    "dtype,value",
    [
        (I32, -7),
        (I64, 2**40 + 3),
        (DType.U32, 2**32 - 1),
        (DType.U64, 2**64 - 1),
        (F16, 1.5),
        (BF16, -0.5),
        (DType.F64, 0.1),
        (DType.I8, -128),
    ],
)
def test_scalar_dtypes(dtype, value):
    numpy = {BF16: ml_dtypes.bfloat16}.get(dtype) or dtype.numpy

    @kernel
    def fill(out: Out[Tile[2, 3, dtype]], s: Scalar[dtype]):
        pto.store(out, pto.broadcast(s, (2, 3)))

    out = np.zeros((2, 3), numpy)
    run_one(fill, out=out, s=value)
    assert (out == np.array(value, numpy)).all()


def test_constexpr_reaches_the_body_as_a_python_value():
    @kernel
    def power(x: In[Tile[2, 8, F32]], out: Out[Tile[2, 8, F32]], n: Constexpr[int]):
        assert type(n) is int
        y = x
        for _ in range(n - 1):
            y = pto.mul(y, x)
        pto.store(out, y)

    x, out = f32(2, 8), np.zeros((2, 8), np.float32)
    assert run_one(power, x=x, out=out, n=3) == 16 * 4
    np.testing.assert_array_equal(out, x * x * x)
    assert run_one(power, x=x, out=out, n=2) == 16 * 3


# ---- ops the prototype only traces, memory, sorting ---------------------------------------------------------------


def test_rope_slices_and_interleave():
    x = f32(3, 10)
    np.testing.assert_array_equal(
        apply(lambda a: pto.interleave(pto.slice_odd(a), pto.slice_even(a)), x),
        np.stack([x[:, 1::2], x[:, 0::2]], axis=2).reshape(3, 10),
    )


def test_broadcast_alloc_and_transpose():
    x = f32(1, 7)
    np.testing.assert_array_equal(apply(lambda a: pto.broadcast(a, (4, 7)), x, result=(4, 7)), np.repeat(x, 4, 0))
    np.testing.assert_array_equal(apply(lambda a: pto.add(a, pto.alloc((1, 7), F32)), x), x)
    np.testing.assert_array_equal(apply(pto.transpose, f32(3, 5), result=(5, 3)), f32(3, 5).T)


def test_load_of_a_value_is_the_value():
    np.testing.assert_array_equal(apply(lambda a: pto.load(pto.add(a, a)), f32(2, 6)), f32(2, 6) * 2)


def test_sort_puts_nan_last_and_keeps_equal_scores_in_index_order():
    scores = np.tile(np.array([1, 3, np.nan, 3, -np.inf, np.inf, 0, -0.0], np.float32), 4)[None]
    pairs = apply(lambda s: pto.tsort32(s, pto.iota_u32(32)), scores, result=(1, 64))
    indices = pairs[0, 1::2].astype(int)
    expected = sorted(
        range(32), key=lambda i: (np.isnan(scores[0, i]), -scores[0, i] if scores[0, i] == scores[0, i] else 0, i)
    )
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(pairs[0, 0::2], scores[0, expected])


@pytest.mark.parametrize("source", [*FLOATS, np.int32, np.int64], ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("target", [*FLOATS, np.int32, np.int8], ids=lambda d: np.dtype(d).name)
def test_cast(source, target):
    x = np.array([[0, 1, -1, 2.9, -2.9, 100.5, -100]], np.float64).astype(source)
    out = apply(lambda a: pto.cast(a, dtype_of(np.zeros(1, target))), x, out_dtype=target)
    np.testing.assert_array_equal(
        out, x.astype(target) if source is not ml_dtypes.bfloat16 else x.astype(np.float32).astype(target)
    )


# ---- matmul --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("m,k,n", [(5, 7, 9), (33, 20, 17), (1, 1, 1), (64, 300, 48), (200, 200, 200)])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32], ids=lambda d: np.dtype(d).name)
def test_matmul(m, k, n, dtype):
    a, b = f32(m, k).astype(dtype), f32(k, n, seed=1).astype(dtype)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    bound = 1e-6 * (np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64)) + 1)
    out = apply(pto.matmul, a, b, result=(m, n), out_dtype=np.float32)
    assert (np.abs(out - exact) <= bound).all()


def test_matmul_accumulates():
    a, b, c = f32(5, 7), f32(7, 9, seed=1), f32(5, 9, seed=2)
    np.testing.assert_allclose(
        apply(lambda a, b, c: pto.matmul(a, b, acc=c), a, b, c, result=(5, 9)), c + a @ b, rtol=1e-5, atol=1e-6
    )


def test_matmul_into_an_inout_accumulator_over_tasks():
    a, b, c = f32(8, 64), f32(64, 8, seed=1), np.zeros((8, 8), np.float32)
    A, B, C = tensor(a), tensor(b), tensor(c)

    @kernel
    def step(a: In[Tile[8, 16, F32]], b: In[Tile[16, 8, F32]], c: InOut[Tile[8, 8, F32]]):
        pto.store(c, pto.matmul(a, b, acc=c))

    @workload
    def product():
        for k in P.seq(4):
            step[k](a=A[:, k * 16 : (k + 1) * 16], b=B[k * 16 : (k + 1) * 16], c=C)

    run(product())
    np.testing.assert_allclose(c, a @ b, rtol=1e-5, atol=1e-5)


# ---- partial tiles at the end of an array --------------------------------------------------------------------------


def tail(op, result, expected, cycles, **tolerance):
    """op on the 4 x 7 corner that is left of a 10 x 17 array for a tile of 6 x 10; the rest stays untouched."""
    x = f32(10, 17)
    out = np.full((6 + result[0], 10 + result[1]), 7, np.float32)  # the output's last tile is partial as well
    rows, cols = result

    @kernel
    def on_a_tile(x: In[Tile[6, 10, F32]], out: Out[Tile[6 if rows > 1 else 1, 10 if cols > 1 else 1, F32]]):
        pto.store(out, op(x))

    X, OUT = tensor(x), tensor(out)
    first_row, first_col = out.shape[0] - rows, out.shape[1] - cols

    @workload
    def last_tile():
        for i in P(1):
            on_a_tile[i](
                x=X[(i + 1) * 6 : (i + 2) * 6, (i + 1) * 10 : (i + 2) * 10],
                out=OUT[
                    i + first_row : i + first_row + (6 if rows > 1 else 1),
                    i + first_col : i + first_col + (10 if cols > 1 else 1),
                ],
            )

    stats = run(last_tile())
    np.testing.assert_allclose(
        out[first_row:, first_col:], expected(x[6:, 10:]), **(tolerance or {"rtol": 1e-6, "atol": 1e-6})
    )
    out[first_row:, first_col:] = 7
    assert (out == 7).all()
    assert stats.total_cycles == cycles


def test_tail_copy():
    tail(lambda x: x, (4, 7), lambda x: x, 28 + 28)


def test_tail_elementwise_and_f16():
    tail(lambda x: pto.add(pto.mul(x, x), x), (4, 7), lambda x: x * x + x, 28 + 28 + 28 + 28)


def test_tail_reductions_read_valid_elements_only():
    tail(lambda x: pto.rowsum(pto.exp(x * 0.0)), (4, 1), lambda x: np.full((4, 1), 7), 28 + 28 + 28 + 4 + 4)
    tail(pto.rowmean, (4, 1), lambda x: x.mean(1, keepdims=True), 28 + 8 + 4)
    tail(pto.rowmax, (4, 1), lambda x: x.max(1, keepdims=True), 28 + 4 + 4)
    tail(pto.colsum, (1, 7), lambda x: x.sum(0, keepdims=True), 28 + 7 + 7)
    tail(lambda x: x * pto.rowsum(x), (4, 7), lambda x: x * x.sum(1, keepdims=True), 28 + 4 + 28 + 28)


def test_tail_matmul():
    a, b, c = f32(10, 17), f32(17, 13, seed=1), np.zeros((10, 13), np.float32)
    A, B, C = tensor(a), tensor(b), tensor(c)

    @kernel
    def multiply_add(a: In[Tile[6, 10, F32]], b: In[Tile[10, 8, F32]], c: InOut[Tile[6, 8, F32]]):
        pto.store(c, pto.matmul(a, b, acc=c))

    @workload
    def product():
        for k in P.seq(2):
            for i, j in P(2, 2):
                multiply_add[i, j](
                    a=A[i * 6 : (i + 1) * 6, k * 10 : (k + 1) * 10],
                    b=B[k * 10 : (k + 1) * 10, j * 8 : (j + 1) * 8],
                    c=C[i * 6 : (i + 1) * 6, j * 8 : (j + 1) * 8],
                )

    stats = run(product())
    np.testing.assert_allclose(c, a @ b, rtol=1e-5, atol=1e-5)
    loads = sum(m * k + k * n + m * n + m * k * n + m * n for k in (10, 7) for m in (6, 4) for n in (8, 5))
    assert stats.total_cycles == loads
