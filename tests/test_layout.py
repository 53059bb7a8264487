"""Layouts: the laws of the join, memory layouts against numpy's strides, collectives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pto_wsp.layout as names
from pto_wsp.layout import (
    DistElem,
    LayoutIncompatibleError,
    MemLayout,
    TensorLayout,
    TensorReplicate,
    TensorShard,
    allgather,
    allreduce,
    reduce_scatter,
    relayout,
    tensor_layout_join,
)
from pto_wsp.scalar_expr import LoopVar
from pto_wsp.types import DType, Tensor

R = TensorReplicate()


def S(mesh_axis: int) -> TensorShard:
    return TensorShard(mesh_axis)


def tensor(*dist: DistElem, mem: MemLayout | None = None) -> Tensor:
    return Tensor(None, (4,) * len(dist), DType.F32, layout=TensorLayout(dist, mem))


# ---- elements and layouts


def test_elements():
    assert repr(R) == "R" and repr(S(2)) == "S(2)" and S(2).mesh_axis == 2
    assert (
        R == TensorReplicate()
        and S(1) == S(1)
        and S(1) != S(2)
        and S(1) != R
        and len({R, TensorReplicate(), S(1)}) == 2
    )
    assert isinstance(R, DistElem) and isinstance(S(0), DistElem)
    for bad, kind in ((-1, ValueError), (1.5, TypeError), (True, TypeError), ("0", TypeError)):
        with pytest.raises(kind):
            TensorShard(bad)


def test_layouts():
    assert TensorLayout.default(3).dist == (R, R, R) and TensorLayout.default(0).is_replicated()
    assert TensorLayout.sharded(1, 3).dist == (R, S(0), R) and TensorLayout.sharded(-1, 2, 4).dist == (R, S(4))
    assert TensorLayout((R, S(0))).sharded_dims() == [1] and not TensorLayout((S(0),)).is_replicated()
    assert TensorLayout([R, R]).dist == (R, R) and TensorLayout((R,)).mem is None and TensorLayout((R,)).rank == 1
    for dim in (2, -3):
        with pytest.raises(IndexError, match="rank 2"):
            TensorLayout.sharded(dim, 2)


@pytest.mark.parametrize(
    "make, kind",
    [
        (lambda: TensorLayout("RR"), TypeError),
        (lambda: TensorLayout((R, "S")), TypeError),
        (lambda: TensorLayout((R,), (1,)), TypeError),
        (lambda: TensorLayout((R,), MemLayout((4, 1))), ValueError),
        (lambda: MemLayout((4, 1), (0,)), ValueError),
        (lambda: MemLayout(order=(0, 2)), ValueError),
        (lambda: MemLayout.row_major((2, 3)).permute((0, 0)), ValueError),
        (lambda: MemLayout.row_major((2, 3)).tile((2,)), ValueError),
        (lambda: MemLayout.row_major((2, 3)).tile((2, 0)), ValueError),
    ],
)
def test_refused(make, kind):
    with pytest.raises(kind):
        make()


def test_other_spellings_are_the_same_objects():
    assert (
        names.Shard is names.LayoutShard is TensorShard and names.Replicate is names.LayoutReplicate is TensorReplicate
    )
    assert names.Layout is TensorLayout and names.layout_join is tensor_layout_join
    assert names.LayoutCompatibilityError is LayoutIncompatibleError and issubclass(LayoutIncompatibleError, TypeError)


# ---- the join

elements = st.sampled_from([R, S(0), S(1), S(2)])


def layouts(rank: int):
    """Layouts that use each mesh axis once at most."""
    dists = st.tuples(*[elements] * rank)
    return dists.filter(lambda d: len(shards := [x for x in d if x != R]) == len(set(shards))).map(TensorLayout)


def join(a, b):
    """The join, or None."""
    try:
        return a and b and tensor_layout_join(a, b)
    except LayoutIncompatibleError:
        return None


pairs_of_layouts = st.integers(0, 4).flatmap(lambda n: st.tuples(layouts(n), layouts(n)))
triples = st.integers(0, 3).flatmap(lambda n: st.tuples(layouts(n), layouts(n), layouts(n)))


@given(triples)
def test_join_is_commutative_associative_and_idempotent(abc):
    a, b, c = abc
    assert join(a, b) == join(b, a) and join(a, a) == a
    assert join(join(a, b), c) == join(a, join(b, c))
    assert join(a, TensorLayout.default(a.rank)) == a


@given(pairs_of_layouts)
def test_join_is_an_upper_bound_with_each_mesh_axis_once(ab):
    a, b = ab
    both = join(a, b)
    if both is None:
        return
    for x, y, z in zip(a.dist, b.dist, both.dist):
        assert z in (x, y) and (x == R or z == x) and (y == R or z == y)
    used = [e.mesh_axis for e in both.dist if isinstance(e, TensorShard)]
    assert len(used) == len(set(used))


def test_what_has_no_join():
    for a, b, word in (
        ((S(0), R), (S(1), R), "dimension 0"),
        ((S(0), R), (R, S(0)), "mesh axis 0"),
        ((R,), (R, R), "rank 1 and 2"),
    ):
        with pytest.raises(LayoutIncompatibleError, match=word):
            tensor_layout_join(TensorLayout(a), TensorLayout(b))


def test_join_of_memory_layouts():
    row, col = MemLayout.row_major((4, 4)), MemLayout.col_major((4, 4))
    plain = TensorLayout((R, R))
    assert tensor_layout_join(TensorLayout((R, R), row), plain).mem == row
    assert tensor_layout_join(plain, TensorLayout((R, R), row)).mem == row
    assert tensor_layout_join(TensorLayout((R, R), row), TensorLayout((R, R), col)).mem == row.compose(col) == col


# ---- memory layouts

shapes = st.lists(st.integers(1, 5), max_size=4).map(tuple)


@given(shapes)
def test_strides_are_numpys(shape):
    for order, make in (("C", MemLayout.row_major), ("F", MemLayout.col_major)):
        array = np.zeros(shape, np.int8, order=order)
        assert len(make(shape).strides) == len(make(shape).order) == len(shape)
        for n, stride, expected in zip(shape, make(shape).strides, array.strides):
            assert n == 1 or stride == expected


def test_row_and_column_major():
    assert (MemLayout.row_major((5, 7)).strides, MemLayout.row_major((5, 7)).order) == ((7, 1), (0, 1))
    assert (MemLayout.col_major((5, 7)).strides, MemLayout.col_major((5, 7)).order) == ((1, 5), (1, 0))


@given(shapes.flatmap(lambda s: st.tuples(st.just(s), st.permutations(range(len(s))))))
def test_permute_is_transposition(made):
    shape, perm = made
    mem = MemLayout.row_major(shape).permute(perm)
    expected = np.zeros(shape, np.int8).transpose(perm).strides
    assert all(shape[p] == 1 or a == b for p, a, b in zip(perm, mem.strides, expected))
    assert [perm[d] for d in mem.order] == list(range(len(shape)))
    if shape:
        assert MemLayout.row_major(shape).permute(range(len(shape))) == MemLayout.row_major(shape)


def test_permute_without_strides():
    assert (empty := MemLayout(swizzle="x")).permute((1, 0)) is empty
    assert MemLayout(order=(0, 1, 2)).permute((2, 0, 1)).order == (1, 2, 0)


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), max_size=3))
def test_tile_is_a_grid_of_tiles(parts):
    """The tiled view addresses the element that numpy's reshape and transpose would."""
    grid, tiles = tuple(g for g, _ in parts), tuple(t for _, t in parts)
    shape = tuple(g * t for g, t in parts)
    array = np.arange(int(np.prod(shape)))
    seen = array.reshape([n for g, t in parts for n in (g, t)])
    seen = seen.transpose([2 * k for k in range(len(parts))] + [2 * k + 1 for k in range(len(parts))])
    mem = MemLayout.row_major(shape).tile(tiles)
    assert len(mem.strides) == 2 * len(parts)
    for at in np.ndindex(*grid, *tiles):
        assert seen[at] == array[int(np.dot(at, mem.strides))] if at else True


def test_compose_and_text():
    a, b = MemLayout((4, 1), swizzle="xor"), MemLayout((1, 4), (1, 0))
    assert a.compose(b) == MemLayout((1, 4), (1, 0), "xor") and b.compose(a) == MemLayout((4, 1), (1, 0), "xor")
    assert repr(MemLayout()) == "MemLayout()" and repr(a) == "MemLayout(strides=(4, 1), swizzle=xor)"


# ---- collectives


def test_relayout():
    t = tensor(R, R)
    assert relayout(t, TensorLayout((S(0), R))).layout.dist == (S(0), R) and t.layout.dist == (R, R)
    with pytest.raises(ValueError, match="rank 1"):
        relayout(t, TensorLayout((R,)))
    with pytest.raises(TypeError):
        relayout(t, "S(0)")
    with pytest.raises(TypeError, match="ndarray"):
        relayout(np.zeros(3), TensorLayout((R,)))


def test_allreduce():
    mem = MemLayout.row_major((4, 4))
    assert allreduce(tensor(S(0), S(1), mem=mem), 1).layout == TensorLayout((S(0), R), mem)
    assert allreduce(tensor(R, R), 0, "max").layout.dist == (R, R)
    with pytest.raises(ValueError, match="sum, max, min, mean"):
        allreduce(tensor(R), 0, "product")
    with pytest.raises(ValueError):
        allreduce(tensor(R), -1)


def test_allgather():
    assert allgather(tensor(S(0), S(1)), 1, 1).layout.dist == (S(0), R)
    assert allgather(tensor(S(0), S(1)), -1, 1).layout.dist == (S(0), R)
    for dim, mesh_axis in ((0, 1), (2, 0), (-3, 0), (1.5, 0)):
        with pytest.raises(ValueError):
            allgather(tensor(S(0), S(1)), dim, mesh_axis)


def test_reduce_scatter():
    assert reduce_scatter(tensor(R, S(1)), 0, 0, "mean").layout.dist == (S(0), S(1))
    for dim, mesh_axis, op in ((0, 1, "sum"), (1, 0, "sum"), (2, 0, "sum"), (0, 0, "and")):
        with pytest.raises(ValueError):
            reduce_scatter(tensor(R, S(1)), dim, mesh_axis, op)


def test_collectives_keep_the_view():
    i = LoopVar("i", 4)
    view = tensor(R, S(0), R)[i]
    for other in (
        relayout(view, TensorLayout.default(2)),
        allreduce(view, 0),
        allgather(view, 0, 0),
        reduce_scatter(view, 1, 1),
    ):
        assert (
            other.base is view.base and other.index_exprs == (i,) and other.window == view.window and other is not view
        )


def test_layouts_are_values():
    """Equal when they say the same, and keys of a dict even with parameters that are not."""
    a, b = (TensorLayout((R, R), MemLayout((8, 1), swizzle={"xor": 3}, pack=[2])) for _ in range(2))
    assert a == b and a is not b and len({a, b}) == 1
    assert a != TensorLayout((R, R), MemLayout((8, 1), swizzle={"xor": 4}, pack=[2]))
