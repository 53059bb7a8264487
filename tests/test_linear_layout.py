"""Algebra over F2 against numpy modulo 2, and the layouts against plain index arithmetic."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pto_wsp.layout import MemLayout, TensorLayout, TensorReplicate
from pto_wsp.linear_layout import (
    LinearLayout,
    f2_dot,
    f2_kernel,
    f2_matmul,
    f2_matmul_mat,
    f2_rank,
    f2_transpose,
    from_tensor_layout,
    propagate_broadcast,
    propagate_reshape,
    propagate_transpose,
    to_tensor_layout,
)

bit = st.integers(0, 1)


def matrices(rows, cols):
    return st.lists(st.tuples(*[bit] * cols), min_size=rows, max_size=rows)


sizes = st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6))


@given(sizes.flatmap(lambda s: st.tuples(matrices(s[0], s[1]), matrices(s[1], s[2]), st.tuples(*[bit] * s[1]))))
def test_products_equal_numpy(made):
    A, B, v = made
    assert f2_matmul(A, v) == tuple(int(n) for n in np.array(A) @ np.array(v) % 2)
    assert f2_matmul_mat(A, B) == [tuple(row) for row in (np.array(A) @ np.array(B) % 2).tolist()]
    assert f2_transpose(A) == [tuple(row) for row in np.array(A).T.tolist()]
    assert f2_dot(A[0], v) == int(np.dot(A[0], v)) % 2


@given(sizes.flatmap(lambda s: matrices(s[0], s[1])))
def test_rank_and_kernel(A):
    image = {f2_matmul(A, v) for v in itertools.product((0, 1), repeat=len(A[0]))}
    assert len(image) == 2 ** f2_rank(A)
    basis = f2_kernel(A)
    assert len(basis) == len(A[0]) - f2_rank(A) and f2_rank(basis) == len(basis)
    assert all(not any(f2_matmul(A, v)) for v in basis)


def test_empty_and_short():
    assert f2_rank([]) == 0 and f2_kernel([]) == [] and f2_transpose([]) == []
    assert f2_matmul_mat([], [(1,)]) == [] == f2_matmul_mat([(1,)], [])
    assert f2_dot((1, 1, 1), (1, 1)) == 0 and f2_kernel([(1, 0), (0, 1)]) == []


# ---- layouts

log2 = st.integers(0, 4)


@given(log2, log2)
def test_blocked(threads, local):
    layout = LinearLayout.blocked(1 << threads + local, 1 << threads, 1 << local)
    for t in range(1 << threads):
        for n in range(1 << local):
            assert layout.apply_index(t + (n << threads)) == (t << local) + n
    assert layout.is_injective() and layout.is_surjective()


@given(log2, log2)
def test_strided(threads, local):
    layout = LinearLayout.strided(1 << threads + local, 1 << threads)
    for t in range(1 << threads):
        for n in range(1 << local):
            assert layout.apply_index(t + (n << threads)) == (n << threads) + t


@given(st.lists(st.integers(0, 3), min_size=1, max_size=3), st.sampled_from("CF"))
def test_row_and_column_major(bits, order):
    shape = tuple(1 << n for n in bits)
    layout = (LinearLayout.row_major if order == "C" else LinearLayout.col_major)(shape)
    assert layout.in_dims == [f"dim{d}" for d in range(len(bits))] and layout.out_dims == ["linear"]
    for at in np.ndindex(shape):
        packed = sum(n << sum(bits[:d]) for d, n in enumerate(at))
        assert layout.apply_index(packed) == np.ravel_multi_index(at, shape, order=order)


def test_from_strides_with_gaps_and_transposed():
    layout = LinearLayout.from_strides((4, 2), (16, 4))
    assert [layout.apply_index(i) for i in range(8)] == [0, 16, 32, 48, 4, 20, 36, 52]
    assert LinearLayout.from_strides((2, 4), (1, 0)).rank() == 1


def test_what_is_refused():
    for make in (
        lambda: LinearLayout.blocked(16, 4, 8),
        lambda: LinearLayout.blocked(12, 4, 3),
        lambda: LinearLayout.strided(16, 3),
        lambda: LinearLayout.strided(4, 16),
        lambda: LinearLayout.row_major((3, 4)),
        lambda: LinearLayout.col_major((4, 0)),
        lambda: LinearLayout.from_strides((4, 4), (1, 1)),
        lambda: LinearLayout.from_strides((4,), (3,)),
        lambda: LinearLayout.from_strides((4,), (1, 2)),
        lambda: LinearLayout([(1,)], ["a"], ["b"], [1], [2]),
        lambda: LinearLayout([(1, 0)], ["a"], ["b"], [1], [1]),
        lambda: LinearLayout([(1,)], ["a", "b"], ["b"], [1], [1]),
        lambda: LinearLayout.identity(2).compose(LinearLayout.identity(3)),
        lambda: LinearLayout.identity(2).transpose_dims([0, 1]),
        lambda: LinearLayout.identity(2).transpose_dims([]),
        lambda: LinearLayout.identity(2).apply((1,)),
        lambda: LinearLayout.identity(2).apply_index(4),
        lambda: LinearLayout.compute_swizzle(LinearLayout.identity(2), -1, 0),
        lambda: propagate_broadcast(LinearLayout.identity(2), [5]),
    ):
        with pytest.raises(ValueError):
            make()


@st.composite
def maps(draw, in_bits=None):
    """A random layout, of one or two dimensions on each side."""
    ins = in_bits or draw(st.lists(st.integers(0, 3), min_size=1, max_size=2))
    outs = draw(st.lists(st.integers(0, 3), min_size=1, max_size=2))
    matrix = draw(matrices(sum(outs), sum(ins)))
    return LinearLayout(matrix, [f"i{d}" for d in range(len(ins))], [f"o{d}" for d in range(len(outs))], ins, outs)


@given(maps().flatmap(lambda f: st.tuples(st.just(f), maps(in_bits=f.out_bits))))
def test_compose_is_one_after_the_other(made):
    f, g = made
    both = g.compose(f)
    assert (both.in_dims, both.out_dims, both.in_bits, both.out_bits) == (f.in_dims, g.out_dims, f.in_bits, g.out_bits)
    for i in range(1 << f.total_in_bits):
        assert both.apply_index(i) == g.apply_index(f.apply_index(i))


@given(maps())
def test_linear_and_identity(f):
    n = 1 << f.total_in_bits
    for a in range(min(n, 8)):
        for b in range(min(n, 8)):
            assert f.apply_index(a ^ b) == f.apply_index(a) ^ f.apply_index(b)
    assert f.compose(LinearLayout.identity(f.total_in_bits)).matrix == f.matrix
    images = [f.apply_index(i) for i in range(n)]
    assert f.is_injective() == (len(set(images)) == n)
    assert f.is_surjective() == (len(set(images)) == 1 << f.total_out_bits)
    assert len(f.kernel()) == f.total_in_bits - f.rank()


@given(maps())
def test_transpose_dims_exchanges_output_dimensions(f):
    perm = list(range(len(f.out_bits)))[::-1]
    g = propagate_transpose(f, perm)
    assert g.transpose_dims(perm) == f and g.out_dims == f.out_dims[::-1]
    for i in range(1 << f.total_in_bits):
        x, y = f.apply_index(i), g.apply_index(i)
        if len(perm) == 2:
            low = x & ((1 << f.out_bits[0]) - 1)
            assert y == (x >> f.out_bits[0]) | (low << f.out_bits[1])


def test_reshape_and_broadcast():
    f = LinearLayout.row_major((4, 8))
    g = propagate_reshape(f, (32,), (2, 16))
    assert (g.matrix, g.out_dims, g.out_bits) == (f.matrix, ["dim0", "dim1"], [1, 4])
    for shapes in (((32,), (4, 4)), ((16,), (16,))):
        with pytest.raises(ValueError, match="^Cannot reshape"):
            propagate_reshape(f, *shapes)
    h = propagate_broadcast(g, [0, 3])
    assert h.out_dims == ["broadcast0", "dim0", "dim1", "broadcast3"] and h.out_bits == [0, 1, 4, 0]
    assert h.matrix == f.matrix


def test_tensor_layouts():
    R = TensorReplicate()
    layout = to_tensor_layout(propagate_reshape(LinearLayout.row_major((4, 8)), (32,), (2, 16)))
    assert layout.dist == (R, R) and layout.mem.strides == (16, 1)
    assert from_tensor_layout(TensorLayout((R, R)), (4, 8)) == LinearLayout.row_major((4, 8))
    column = TensorLayout((R, R), MemLayout.col_major((4, 8)))
    assert from_tensor_layout(column, (4, 8)) == LinearLayout.col_major((4, 8))


@given(log2, log2, st.integers(0, 5), st.integers(0, 3))
def test_swizzle_stays_invertible(threads, local, bank_bits, vector_bits):
    layout = LinearLayout.blocked(1 << threads + local, 1 << threads, 1 << local)
    swizzled = LinearLayout.compute_swizzle(layout, bank_bits, vector_bits)
    assert swizzled.is_injective() and swizzled.is_surjective() and swizzled.in_dims == layout.in_dims
    strided = LinearLayout.compute_swizzle(LinearLayout.strided(1 << threads + local, 1 << threads), bank_bits, 0)
    assert strided.is_injective()


def test_swizzle_flips_thread_bits():
    swizzled = LinearLayout.compute_swizzle(LinearLayout.blocked(16, 4, 4), 2, 2)
    assert swizzled.matrix == [(1, 0, 1, 0), (0, 1, 0, 1), (1, 0, 0, 0), (0, 1, 0, 0)]


def test_text():
    layout = LinearLayout.blocked(16, 4, 4)
    assert repr(layout) == "LinearLayout([thread:2, local:2] -> [element:4], rank=4)"
    assert layout.to_dense_string().splitlines() == [
        repr(layout),
        "  (0, 0, 1, 0)",
        "  (0, 0, 0, 1)",
        "  (1, 0, 0, 0)",
        "  (0, 1, 0, 0)",
    ]
    assert LinearLayout.identity(2, "lane").out_dims == ["lane"]
