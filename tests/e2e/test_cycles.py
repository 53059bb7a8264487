"""Cycles of one task: every row of the cycle model's verification table, with the numbers checked as well.

Rows in which the prototype drops or garbles an op are charged like their neighbours that work.
"""

import numpy as np
import pytest

from pto_wsp import DType, In, InOut, Out, Tile, kernel, pto
from tests.e2e.programs import f32, run_one

F32, F16, I32, U32 = DType.F32, DType.F16, DType.I32, DType.U32
X, V, W = f32(5, 12, seed=1), f32(5, 12, seed=2), f32(5, 12, seed=3)
X = X + np.sign(X)  # away from zero, for div and log
V = V + np.sign(V)
A, B, SQUARE = f32(5, 7, seed=4), f32(7, 9, seed=5), f32(4, 4, seed=6)
BINARY = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "max": np.maximum,
    "min": np.minimum,
}


def check(k, inputs, expected, cycles, rtol=2e-6, atol=1e-6):
    """Run one task on the inputs and a zeroed output of the expected shape; compare both results."""
    out = np.zeros_like(expected)
    assert run_one(k, *[i.copy() for i in inputs], out) == cycles
    np.testing.assert_allclose(out.astype(np.float64), expected.astype(np.float64), rtol=rtol, atol=atol)


def unary(shape, result, op, dtype=F32, out_dtype=F32):
    """store(out, op(x))"""

    @kernel
    def one_operand(x: In[Tile[(*shape, dtype)]], out: Out[Tile[(*result, out_dtype)]]):
        pto.store(out, op(x))

    return one_operand


def binary(left, right, result, op, dtype=F32, out_dtype=F32):
    """store(out, op(a, b))"""

    @kernel
    def two_operands(a: In[Tile[(*left, dtype)]], b: In[Tile[(*right, dtype)]], out: Out[Tile[(*result, out_dtype)]]):
        pto.store(out, op(a, b))

    return two_operands


def test_copy():
    check(unary((6, 10), (6, 10), lambda x: x), [f32(6, 10)], f32(6, 10), 120)


@pytest.mark.parametrize("name", BINARY)
def test_binary_same_shape(name):
    check(binary((5, 12), (5, 12), (5, 12), getattr(pto, name)), [X, V], BINARY[name](X, V), 240)


def test_square():
    check(unary((5, 12), (5, 12), lambda x: pto.mul(x, x)), [X], X * X, 180)


@pytest.mark.parametrize("name", BINARY)
def test_binary_with_one_value_per_row(name):
    column = V[:, :1].copy()
    check(binary((5, 12), (5, 1), (5, 12), getattr(pto, name)), [X, column], BINARY[name](X, column), 185)


@pytest.mark.parametrize("name", BINARY)
def test_binary_with_one_value_per_column(name):
    """add, max and min too: the prototype drops them (132)."""
    row = V[:1].copy()
    check(binary((5, 12), (1, 12), (5, 12), getattr(pto, name)), [X, row], BINARY[name](X, row), 192)


@pytest.mark.parametrize(
    "name", ["exp", "rsqrt", "log", "sqrt", "tanh", "sigmoid", "relu", "gelu", "silu", "neg", "abs", "sin", "cos"]
)
def test_unary(name):
    x = np.abs(X).astype(np.float64)
    meaning = {
        "rsqrt": lambda x: 1 / np.sqrt(x),
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "neg": np.negative,
        "relu": lambda x: np.maximum(x, 0),
        "silu": lambda x: x / (1 + np.exp(-x)),
        "gelu": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    }
    check(
        unary((5, 12), (5, 12), getattr(pto, name)),
        [x.astype(np.float32)],
        meaning.get(name, getattr(np, name, None))(x).astype(np.float32),
        180,
    )


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: pto.constant(v, F32)], ids=["number", "constant"])
def test_binary_with_constant(name, wrap):
    op = getattr(pto, name)
    check(unary((5, 12), (5, 12), lambda x: op(x, wrap(0.75))), [X], BINARY[name](X, np.float32(0.75)), 180)
    check(unary((5, 12), (5, 12), lambda x: op(wrap(0.75), x)), [X], BINARY[name](np.float32(0.75), X), 180)


@pytest.mark.parametrize("dtype,numpy", [(F32, np.float32), (F16, np.float16)])
def test_row_reductions(dtype, numpy):
    x = X.astype(numpy)
    wide = x.astype(np.float32)
    check(unary((5, 12), (5, 1), pto.rowsum, dtype), [x], wide.sum(1, keepdims=True), 70)
    check(unary((5, 12), (5, 1), pto.rowmax, dtype), [x], wide.max(1, keepdims=True), 70)
    check(unary((5, 12), (5, 1), pto.rowmean, dtype), [x], wide.mean(1, keepdims=True), 75)


def test_f16_rowmean_stored_as_f16():
    x = X.astype(np.float16)
    check(
        unary((5, 12), (5, 1), pto.rowmean, F16, F16),
        [x],
        x.astype(np.float32).mean(1, keepdims=True).astype(np.float16),
        80,
        rtol=1e-3,
    )


def test_store_f32_as_f16():
    check(unary((5, 12), (5, 12), lambda x: x, F32, F16), [X], X.astype(np.float16), 180, rtol=0, atol=0)


def test_explicit_loads():
    check(binary((5, 12), (5, 12), (5, 12), lambda a, b: pto.add(pto.load(a), pto.load(b))), [X, V], X + V, 240)


def test_explicit_and_implicit_load():
    check(unary((5, 12), (5, 12), lambda x: pto.add(pto.load(x), x)), [X], X + X, 240)


def test_dead_load():
    def body(x):
        pto.load(x)
        return pto.load(x)

    check(unary((5, 12), (5, 12), body), [X], X, 180)


@pytest.mark.parametrize("dtype,numpy", [(F32, np.float32), (F16, np.float16)])
def test_matmul(dtype, numpy):
    a, b = A.astype(numpy), B.astype(numpy)
    product = a.astype(np.float32) @ b.astype(np.float32)
    check(binary((5, 7), (7, 9), (5, 9), pto.matmul, dtype), [a, b], product, 458)
    check(binary((5, 7), (7, 9), (5, 9), pto.matmul, dtype, F16), [a, b], product.astype(np.float16), 503, rtol=2e-3)


def test_matmul_with_vector_users():
    product = A @ B

    def twice(a, b):
        m = pto.matmul(a, b)
        return pto.add(pto.exp(m), m)

    def only_second_stored(a, b):
        pto.matmul(a, b)
        return pto.matmul(a, b)

    def mean(a, b):
        return pto.rowmean(pto.matmul(a, b))

    check(
        binary((5, 7), (7, 9), (5, 9), lambda a, b: pto.exp(pto.matmul(a, b))), [A, B], np.exp(product), 548, rtol=1e-5
    )
    check(binary((5, 7), (7, 9), (5, 9), twice), [A, B], np.exp(product) + product, 593, rtol=1e-5)
    check(binary((5, 7), (7, 9), (5, 9), only_second_stored), [A, B], product, 871, rtol=1e-5)
    check(binary((5, 7), (7, 9), (5, 1), mean), [A, B], product.mean(1, keepdims=True), 473, rtol=1e-5)


def test_matmul_of_computed_and_loaded_tiles():
    check(
        binary((5, 7), (7, 9), (5, 9), lambda a, b: pto.matmul(pto.mul(a, a), b)), [A, B], (A * A) @ B, 528, rtol=1e-5
    )
    check(
        binary((5, 7), (7, 9), (5, 9), lambda a, b: pto.matmul(pto.load(a), pto.load(b))), [A, B], A @ B, 556, rtol=1e-5
    )


def test_matmul_chains():
    a, b = f32(6, 6, seed=7), f32(6, 6, seed=8)
    check(
        binary((6, 6), (6, 6), (6, 6), lambda a, b: pto.matmul(pto.matmul(a, b), b)),
        [a, b],
        a @ b @ b,
        612,
        rtol=1e-4,
        atol=1e-5,
    )
    check(
        unary((4, 4), (4, 4), lambda a: pto.add(pto.matmul(a, a), a)),
        [SQUARE],
        SQUARE @ SQUARE + SQUARE,
        160,
        rtol=1e-5,
    )

    def reused(a):
        m = pto.matmul(a, a)
        e = pto.add(m, m)
        return pto.add(pto.matmul(m, a), e)

    m = SQUARE @ SQUARE
    check(unary((4, 4), (4, 4), reused), [SQUARE], m @ SQUARE + 2 * m, 272, rtol=1e-4, atol=1e-5)


def test_sort_and_top_k():
    scores = f32(1, 32, seed=9)
    order = np.argsort(-scores[0], kind="stable")
    pairs = np.stack([scores[0][order], order.astype(np.float32)], axis=1).reshape(1, 64)
    check(
        unary((1, 32), (1, 64), lambda s: pto.tsort32(pto.load(s), pto.iota_u32(32))),
        [scores],
        pairs,
        256,
        rtol=0,
        atol=0,
    )
    check(
        unary((1, 32), (1, 5), lambda s: pto.extract_topk_indices(pto.tsort32(s, pto.iota_u32(32)), 5), F32, I32),
        [scores],
        order[None, :5].astype(np.int32),
        197,
    )


def test_iota():
    @kernel
    def numbers(out: Out[Tile[1, 10, U32]]):
        pto.store(out, pto.iota_u32(10))

    check(numbers, [], np.arange(10, dtype=np.uint32)[None], 10)


def test_column_reductions():
    check(unary((5, 12), (1, 12), pto.colsum), [X], X.sum(0, keepdims=True), 84)
    check(unary((5, 12), (1, 12), pto.colmax), [X], X.max(0, keepdims=True), 84)


def test_row_and_column_scaling():
    total = X.sum(1, keepdims=True)
    check(unary((5, 12), (5, 12), lambda x: pto.rowmul(x, pto.rowsum(x))), [X], X * total, 185, rtol=1e-5, atol=1e-5)
    check(unary((5, 12), (5, 12), lambda x: pto.rowadd(x, pto.rowsum(x))), [X], X + total, 185, rtol=1e-5, atol=1e-5)
    column = X.sum(0, keepdims=True)
    check(unary((5, 12), (5, 12), lambda x: pto.colmul(x, pto.colsum(x))), [X], X * column, 192, rtol=1e-5, atol=1e-5)
    check(unary((5, 12), (5, 12), lambda x: pto.coladd(x, pto.colsum(x))), [X], X + column, 192, rtol=1e-5, atol=1e-5)


def test_row_softmax():
    x = f32(6, 20, seed=10)

    def softmax(x):
        e = pto.exp(pto.sub(x, pto.rowmax(x)))
        return pto.div(e, pto.rowsum(e))

    e = np.exp(x - x.max(1, keepdims=True))
    check(unary((6, 20), (6, 20), softmax), [x], e / e.sum(1, keepdims=True), 612)


def test_row_rms_norm_f16_with_eps():
    x = f32(6, 24, seed=11).astype(np.float16)

    def rms_norm(x):
        mean = pto.rowmean(pto.mul(x, x))
        return pto.mul(x, pto.rsqrt(pto.add(mean, pto.constant(1e-3, F32))))

    wide = x.astype(np.float32)
    expected = wide / np.sqrt((wide * wide).mean(1, keepdims=True) + 1e-3)
    check(unary((6, 24), (6, 24), rms_norm, F16, F16), [x], expected.astype(np.float16), 600, rtol=4e-3, atol=1e-3)


def test_five_op_f16_chain_rounds_after_each_op():
    a, b = f32(7, 33, seed=12).astype(np.float16), f32(7, 33, seed=13).astype(np.float16)

    def chain(a, b):
        return pto.mul(pto.sub(pto.add(pto.mul(a, b), a), b), pto.add(a, b))

    check(binary((7, 33), (7, 33), (7, 33), chain, F16, F16), [a, b], ((a * b + a) - b) * (a + b), 1848, rtol=0, atol=0)


# ---- order of loads and stores within a kernel ---------------------------------------------------------------------


def snapshot(second_store, shape=(2, 8)):
    """store(x, x + x), then a second store; x starts at 3."""

    @kernel
    def two_stores(x: InOut[Tile[(*shape, F32)]], o: Out[Tile[(*shape, F32)]]):
        pto.store(x, pto.add(x, x))
        pto.store(o, second_store(x))

    x, o = np.full(shape, 3, np.float32), np.zeros(shape, np.float32)
    cycles = run_one(two_stores, x, o)
    assert np.all(x == 6)
    return o, cycles


def test_a_parameter_is_read_once_at_entry():
    o, cycles = snapshot(lambda x: x)
    assert np.all(o == 3) and cycles == 64


def test_an_explicit_load_sees_earlier_stores():
    o, cycles = snapshot(lambda x: pto.load(x))
    assert np.all(o == 6) and cycles == 80


def test_matmul_reads_its_parameters_where_it_stands():
    o, cycles = snapshot(lambda x: pto.matmul(x, x), (4, 4))
    assert np.all(o == 4 * 36) and cycles == 16 + 16 + 16 + (16 + 16 + 64) + 16


def test_an_out_parameter_can_be_read_with_a_warning():
    @kernel
    def increase(o: Out[Tile[2, 8, F32]]):
        pto.store(o, pto.add(o, 1.0))

    o = np.full((2, 8), 41, np.float32)
    with pytest.warns(UserWarning, match="InOut"):
        assert run_one(increase, o) == 48
    assert np.all(o == 42)


def test_an_inout_parameter_reads_its_old_content():
    @kernel
    def increase(o: InOut[Tile[2, 8, F32]]):
        pto.store(o, pto.add(o, 1.0))

    o = np.full((2, 8), 41, np.float32)
    assert run_one(increase, o) == 48
    assert np.all(o == 42)


def test_in_place_and_overlapping_arrays_are_snapshots():
    data = np.arange(24, dtype=np.float32).reshape(6, 4)
    expected = data[:5] * 2
    assert run_one(unary((5, 4), (5, 4), lambda x: pto.mul(x, 2.0)), data[:5], data[1:]) == 60
    np.testing.assert_array_equal(data[1:], expected)


def test_every_store_counts():
    @kernel
    def twice(x: In[Tile[3, 10, F32]], out: Out[Tile[3, 10, F32]]):
        pto.store(out, x)
        pto.store(out, pto.add(x, x))

    x, out = f32(3, 10), np.zeros((3, 10), np.float32)
    assert run_one(twice, x, out) == 30 + 30 + 30 + 30
    np.testing.assert_array_equal(out, x + x)


def test_add_of_the_readme():
    """The example of the cost table: store(out, add(x, x)) of [3, 10] costs 30 + 30 + 30."""
    check(unary((3, 10), (3, 10), lambda x: pto.add(x, x)), [f32(3, 10)], 2 * f32(3, 10), 90)
