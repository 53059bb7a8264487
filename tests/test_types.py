"""Element types, axes, and tensors: the window of a view against numpy's own slicing."""

import copy
import pickle
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pto_wsp.errors import AxisError, TensorError, UsageError
from pto_wsp.layout import MemLayout, TensorLayout, TensorReplicate, TensorShard
from pto_wsp.scalar_expr import Expr, LoopVar, as_expr, axis
from pto_wsp.types import (
    Dense,
    DenseDyn,
    DType,
    Index,
    Location,
    Ragged,
    Range,
    ScalarType,
    Sparse,
    SparseRow,
    Symbol,
    Tensor,
    TileType,
    loop_axis,
)

F32 = DType.F32
i, j = LoopVar("i", 8), LoopVar("j", 8)


def tensor(*shape: int) -> Tensor:
    data = np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape)
    return Tensor(data, shape, F32)


# ---- element types


def test_dtype_table():
    assert [d.value for d in DType] == "f16 bf16 f32 f64 i8 i16 i32 i64 u8 u16 u32 u64".split()
    for d in DType:
        assert d.numpy.itemsize == d.itemsize == d.bits // 8 and str(d) == d.value
        assert DType.from_numpy(d.numpy) is d
        assert d.is_float != d.is_int and d.is_signed == (d.value[0] != "u")
    assert DType.BF16.numpy == np.dtype(ml_dtypes.bfloat16)
    assert DType.from_numpy(np.float32) is F32 and DType.from_numpy("int8") is DType.I8


@pytest.mark.parametrize("dtype", ["bool", "complex64", ">f4", "U3", "longdouble"])
def test_no_dtype(dtype):
    with pytest.raises(TypeError):
        DType.from_numpy(dtype)


def test_ml_dtypes_is_imported_late():
    code = "import sys, pto_wsp.types, pto_wsp.type_checker, pto_wsp.csp; sys.exit('ml_dtypes' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_tile_and_scalar_types():
    assert TileType(16, 128, F32) == TileType(np.int64(16), 128, F32, Location.UB)
    assert str(TileType(16, 128, F32)) == "tile<16x128xf32>" and str(ScalarType(DType.I8)) == "i8"
    assert TileType(2, 3).dtype is DType.F16 and TileType(2, 3).shape == (2, 3) and TileType(2, 3).size == 6
    assert len({TileType(2, 3), TileType(2, 3), ScalarType(F32), ScalarType(F32)}) == 2
    assert TileType("M", 16, F32).rows == "M"


@pytest.mark.parametrize(
    "make, kind",
    [
        (lambda: TileType(0, 4), ValueError),
        (lambda: TileType(-1, 4), ValueError),
        (lambda: TileType(2.0, 4), TypeError),
        (lambda: TileType(True, 4), TypeError),
        (lambda: TileType(2, 4, "f32"), TypeError),
        (lambda: ScalarType(np.float32), TypeError),
    ],
)
def test_bad_tile_types(make, kind):
    with pytest.raises(kind):
        make()


# ---- axes


def test_dense():
    assert Dense[6] is Dense[6] and Dense[6] is Dense[np.int64(6)] and Dense[6] is not Dense[7]
    assert Dense[6]().size == 6 and isinstance(Dense[6](), Dense) and repr(Dense[6]()) == "Dense[6]()"
    assert Dense[0]().size == 0 and Dense[6].__name__ == "Dense[6]"
    assert pickle.loads(pickle.dumps(Dense[6]())).size == copy.deepcopy(Dense[6]()).size == 6


@pytest.mark.parametrize("size", [-1, 1.5, "4", None, True, [4], (2, 3)])
@pytest.mark.parametrize("make", [lambda n: Dense[n], DenseDyn, loop_axis])
def test_bad_sizes(make, size):
    with pytest.raises(AxisError) as caught:
        make(size)
    assert isinstance(caught.value, TypeError) and isinstance(caught.value, ValueError)
    assert repr(size) in str(caught.value)


def test_dense_without_a_size():
    with pytest.raises(TypeError, match=r"Dense\[n\]"):
        Dense()
    with pytest.raises(TypeError):
        Dense[4][5]
    with pytest.raises(AxisError):
        loop_axis(Dense)


def test_dense_dyn_may_change():
    dyn = DenseDyn(3)
    dyn.size = 5
    assert dyn.size == 5 and repr(dyn) == "DenseDyn(5)" and DenseDyn(0).size == 0
    with pytest.raises(AxisError):
        dyn.size = -1


def test_loop_axis():
    dyn, ragged = DenseDyn(3), Ragged(2, [1, 2])
    assert loop_axis(4) == loop_axis(np.int32(4)) == 4 and loop_axis(dyn) is dyn and loop_axis(ragged) is ragged
    assert loop_axis(Dense[4]).size == 4 and isinstance(loop_axis(Dense[4]), Dense)
    for other in (np.arange(4), 2.0, "b", None, range(3), [1], {}):
        with pytest.raises(AxisError, match="Dense"):
            loop_axis(other)


def test_ragged():
    r = Ragged(3, [2, 0, 5])
    assert (r.outer_size, r.total(), r.length(0), r.length(1), r.length(-1)) == (3, 7, 2, 0, 5)
    assert Ragged(0, []).total() == 0 and Ragged(2, np.array([1, 2], np.uint8)).total() == 3
    for row in (3, -4):
        with pytest.raises(IndexError, match="3 rows"):
            r.length(row)
    with pytest.raises(ValueError):
        r.lengths[0] = 9


def test_sparse():
    sp = Sparse(3, [0, 2, 2, 5], [1, 4, 0, 2, 3])
    assert (sp.nnz(), sp.row_nnz(0), sp.row_nnz(1), sp[2], sp[1], sp[-1]) == (5, 2, 0, [0, 2, 3], [], [0, 2, 3])
    assert [len(row) for row in sp] == [2, 0, 3]
    assert Sparse(1, [1, 3], [9, 8, 7]).nnz() == 2 and Sparse(1, [1, 3], [9, 8, 7])[0] == [8, 7]
    row = sp[i]
    assert isinstance(row, SparseRow) and row.sparse is sp and row.row.a is i and isinstance(sp[i + 1], SparseRow)
    with pytest.raises(TypeError, match="P.sel"):
        list(row)
    with pytest.raises(IndexError):
        sp[3]
    with pytest.raises(TypeError):
        sp["a"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Ragged(2, [1]),
        lambda: Ragged(2, [1, -1]),
        lambda: Ragged(2, [1.0, 2.0]),
        lambda: Ragged(-1, []),
        lambda: Ragged(1, [2**63]),
        lambda: Ragged(1, [[1]]),
        lambda: Sparse(2, [0, 1], [0]),
        lambda: Sparse(2, [0, 2, 1], [0, 1]),
        lambda: Sparse(1, [0, 3], [0, 1]),
        lambda: Sparse(1, [0, 1], [-1]),
        lambda: Sparse(1, [-1, 1], [0]),
        lambda: Sparse(1, [0, 1], ["a"]),
    ],
)
def test_bad_ragged_and_sparse_data(make):
    with pytest.raises(ValueError):
        make()


def test_symbol():
    assert Symbol("n").sym == "n" and repr(Symbol("n")) == "Symbol('n')" and Symbol(3).sym == "3"
    assert Symbol("n") == Symbol("n") and len({Symbol("n"), Symbol("n")}) == 1


# ---- tensors


def test_root():
    data = np.zeros((4, 6), np.float32)
    t = Tensor(data, [4, np.int64(6)], F32)
    assert t.shape == (4, 6) and t.data is data and t.array() is data and t.base is t and t.is_root
    assert t.index_exprs == () and t.window == (Range(0, 4), Range(0, 6)) and t.rank == 2 and t.nbytes() == 96
    assert t.layout == TensorLayout.default(2) and t.location is Location.Global and repr(t) == "Tensor(4x6xf32)"


@pytest.mark.parametrize("dtype", list(DType))
def test_zeros_are_made_when_needed(dtype):
    t = Tensor(None, (2, 3), dtype)
    assert t.data is None
    assert t.array().shape == (2, 3) and t.array().dtype == dtype.numpy and not t.array().any() and t.data is t.array()


def test_bytes():
    assert Tensor(None, (), F32).nbytes() == 0 and Tensor(None, (3, 0), F32).nbytes() == 0
    assert Tensor(None, (2**20, 2**20, 2**20), F32).nbytes() == 2**62
    assert Tensor(None, (2**21, 2**21, 2**21), DType.F64).nbytes() == 2**66


@pytest.mark.parametrize(
    "make, word",
    [
        (lambda: Tensor([[1.0]], (1, 1), F32), "list"),
        (lambda: Tensor(np.zeros((2, 3)), (2, 3), F32), "float64"),
        (lambda: Tensor(np.zeros((2, 3), ">f4"), (2, 3), F32), ">f4"),
        (lambda: Tensor(np.zeros((2, 3), np.float32), (3, 2), F32), "(2, 3)"),
        (lambda: Tensor(np.ma.zeros((2, 3), np.float32), (2, 3), F32), "mask"),
        (lambda: Tensor(np.zeros(4, "f4,u1")["f0"], (4,), F32), "stride"),
        (lambda: Tensor(None, (2, -3), F32), "-3"),
        (lambda: Tensor(None, (2, 1.5), F32), "1.5"),
        (lambda: Tensor(None, 5, F32), "5"),
        (lambda: Tensor(None, (2,), "f32"), "f32"),
        (lambda: Tensor(None, (2,), F32, "global"), "Location"),
        (lambda: Tensor(None, (2,), F32, layout=TensorLayout.default(2)), "rank 2"),
        (lambda: Tensor(None, (2,), F32, layout="R"), "TensorLayout"),
        (lambda: Tensor(None, (2,), F32, index_exprs=(1,)), "base"),
        (lambda: Tensor(None, (2,), F32, base=tensor(3, 4), index_exprs=(1,)), "4xf32"),
        (lambda: Tensor(None, (4,), F32, base=np.zeros(3)), "Tensor"),
    ],
)
def test_what_does_not_agree_is_refused(make, word):
    with pytest.raises(TensorError) as caught:
        make()
    assert word in str(caught.value)
    assert isinstance(caught.value, TypeError) and isinstance(caught.value, ValueError)


def test_data_may_be_replaced():
    t = tensor(4, 6)
    view = t[i]
    t.data = np.zeros((9, 7), np.float32)
    assert t.shape == (9, 7) and view.shape == (7,) and view.data is t.data
    for bad in (np.zeros((2, 3)), np.zeros(3, np.float32), [[0.0]]):
        with pytest.raises(TensorError):
            t.data = bad
    with pytest.raises(UsageError, match="base"):
        view.data = np.zeros(7, np.float32)
    t.data = None
    assert t.array().shape == (9, 7)


def test_shape_may_be_assigned():
    t = Tensor(None, (4, 6), F32)
    t.shape = [2, 3]
    assert t.shape == (2, 3) and t.array().shape == (2, 3)
    t.shape = (5, 5)
    with pytest.raises(TensorError, match=r"\(5, 5\).*\(2, 3\)"):
        t.array()
    with pytest.raises(TensorError):
        t.shape = (5,)
    with pytest.raises(UsageError):
        t[0].shape = (3,)


def test_views_keep_base_and_indices():
    t = tensor(4, 6, 8)
    assert t[i][2].index_exprs == (i, 2) and t[i, 2].index_exprs == (i, 2)
    assert t[i][2].base is t and t[i].data is t.data and t[i][j].shape == (8,) and t[i, j, 0].shape == ()
    assert t[i].window == (Index(as_expr(i)), Range(0, 6), Range(0, 8)) and t[i].window != t[j].window
    assert t[2:4, i + 1].window == t[2:4][:, i + 1].window == (Range(2, 2), Index(i + 1), Range(0, 8))
    assert len({*t[i + 1].window, *t[i + 1].window, *t[i].window}) == 4
    assert t[axis("b") + 1].shape == (6, 8) and t[as_expr(2) + 1].window[0] == Index(3)
    assert [v.window[0] for v in t] == [Index(n) for n in range(4)]
    assert repr(t[i, 2:4]) == "Tensor(2x8xf32 = 4x6x8[i, 2:4, :])"


def test_views_made_by_hand():
    t = tensor(4, 6, 8)
    view = Tensor(t.data, (8,), F32, base=t, index_exprs=(i, 2))
    assert view.base is t and view.window == t[i, 2].window and view.window[1] == Index(2)
    assert view.index_exprs == (i, 2)


@pytest.mark.parametrize(
    "take, kind",
    [
        (lambda t: t[4], IndexError),
        (lambda t: t[-5], IndexError),
        (lambda t: t[0, 0, 0, 0], IndexError),
        (lambda t: t[0][0][0][0], IndexError),
        (lambda t: t[..., ...], IndexError),
        (lambda t: t[i, j, 0, i], IndexError),
        (lambda t: t[1.9], TypeError),
        (lambda t: t["b"], TypeError),
        (lambda t: t[None], TypeError),
        (lambda t: t[True], TypeError),
        (lambda t: t[i < 2], TypeError),
        (lambda t: t[[0, 1]], TypeError),
        (lambda t: t[0:4:2], ValueError),
        (lambda t: t[i:], ValueError),
        (lambda t: t[:i], ValueError),
        (lambda t: t[i : j + 1], ValueError),
        (lambda t: t[i : i - 1], ValueError),
        (lambda t: t[2:i], ValueError),
        (lambda t: t["a":], TypeError),
        (lambda t: t.slice(0, 5), IndexError),
        (lambda t: t.slice(3, 2), IndexError),
        (lambda t: t.slice(-5, 2), IndexError),
        (lambda t: t.slice(0, 1.5), TypeError),
        (lambda t: t[0, 0, 0].slice(0, 1), IndexError),
        (lambda t: list(t[0, 0, 0]), TypeError),
    ],
)
def test_refused_indices(take, kind):
    with pytest.raises(kind):
        take(tensor(4, 6, 8))


# ---- windows against numpy

subscripts = st.one_of(
    st.integers(-9, 9),
    st.slices(9).filter(lambda s: s.step in (None, 1)),
    st.builds(slice, st.none() | st.integers(-9, 9), st.none() | st.integers(-9, 9)),
    st.just(Ellipsis),
)
shapes = st.lists(st.integers(0, 6), min_size=1, max_size=4).map(tuple)


@given(shapes, st.lists(st.lists(subscripts, min_size=1, max_size=3).map(tuple), max_size=3))
def test_constant_windows_equal_numpy_slices(shape, steps):
    view, array = tensor(*shape), np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape)
    for step in steps:
        try:
            array = array[step]
        except IndexError:
            with pytest.raises(IndexError):
                view[step]
            return
        view = view[step]
        assert view.shape == array.shape and view.nbytes() == (array.nbytes if array.shape else 0)
    np.testing.assert_array_equal(view.array(), array)
    np.testing.assert_array_equal(np.asarray(view), array)
    assert view.layout.rank == array.ndim
    if not steps:
        return
    view.array()[...] = 7
    assert np.count_nonzero(view.base.array() == 7) >= array.size


class At:
    """Values of loop variables."""

    def __init__(self, **values):
        self.values = values

    def loop(self, var):
        return self.values[var.name]


def selected(view: Tensor, env: At):
    """What a run would select: positions fixed by the expressions, ends clamped, anything else outside an error."""
    items = []
    for entry, size in zip(view.window, view.base.shape):
        low, high = (0, size) if entry.within is None else (as_expr(x).evaluate(env) for x in entry.within)
        at = as_expr(entry.at if isinstance(entry, Index) else entry.start).evaluate(env)
        if isinstance(entry, Index):
            if not (low <= at < high and at < size):
                raise IndexError(at)
            items.append(at)
        else:
            if not (low <= at <= high and at <= size):
                raise IndexError(at)
            items.append(slice(at, max(at, min(at + entry.extent, high, size))))
    return view.base.array()[tuple(items)]


@st.composite
def moving(draw):
    """A subscript with the loop variable i, as we write it and with a number in place of i."""
    scale, offset, length = draw(st.integers(1, 3)), draw(st.integers(0, 2)), draw(st.integers(0, 4))
    at = draw(st.integers(0, 3))
    start = scale * at + offset
    if draw(st.booleans()):
        return i * scale + offset, start, at
    return slice(i * scale + offset, i * scale + offset + length), slice(start, start + length), at


@given(shapes, st.lists(subscripts, max_size=2), moving(), st.lists(subscripts, max_size=2))
def test_moving_windows_equal_numpy_slices(shape, before, item, after):
    """A moving subscript between constant ones selects what numpy selects once the loop has its value."""
    symbolic, concrete, at = item
    view, array = tensor(*shape), tensor(*shape).array()
    try:
        for step in before:
            view, array = view[step], array[step]
        view = view[symbolic]
    except IndexError:
        return
    size = array.shape[0]
    start = concrete.start if isinstance(concrete, slice) else concrete
    outside = start >= size + isinstance(concrete, slice)
    if outside:
        with pytest.raises(IndexError):
            selected(view, At(i=at))
        return
    np.testing.assert_array_equal(selected(view, At(i=at)), array[concrete])
    extent = view.shape[0] if isinstance(concrete, slice) else None
    if extent is not None and array[concrete].shape[0] < extent:
        return  # a partial window: constant subscripts of it count from its full extent
    for step in after:
        try:
            expected = array[concrete][step]
        except IndexError:
            return
        np.testing.assert_array_equal(selected(view[step], At(i=at)), expected)


@given(st.integers(1, 12), st.integers(0, 3), st.integers(0, 3), st.integers(0, 4), st.integers(0, 4))
def test_moving_window_in_a_moving_window_stays_inside_it(size, a, b, outer, inner):
    view = tensor(size)[i * 2 : i * 2 + outer][j : j + inner]
    window = np.arange(size, dtype=np.float32)[2 * a : 2 * a + outer]
    if 2 * a > size or b > len(window):
        return
    np.testing.assert_array_equal(selected(view, At(i=a, j=b)), window[b : b + inner])


@given(st.integers(8, 12), st.integers(0, 4), st.integers(0, 4), st.integers(0, 4))
def test_three_moving_windows(size, a, b, c):
    """The innermost ends where the outermost does, also when the one between reaches further."""
    view = tensor(size)[i : i + 4][j : j + 4][i + j : i + j + 2]
    window = np.arange(size, dtype=np.float32)[a : a + 4][b : b + 4]
    if b <= min(4, size - a) and a + b <= len(window):
        np.testing.assert_array_equal(selected(view, At(i=a, j=b)), window[a + b : a + b + 2])


def test_constant_part_of_a_moving_window():
    """Rows 2 to 4 of a block of 4: in the last, partial block there are none beyond the narrower window."""
    view = tensor(16)[0:10][i * 4 : i * 4 + 4][1:4]
    for at, expected in ((0, [1, 2, 3]), (1, [5, 6, 7]), (2, [9])):
        assert selected(view, At(i=at)).tolist() == expected


def test_window_remembers_the_narrower_view():
    t = tensor(64, 8)
    assert t[0:32][i].window[0].within == (0, 32) and t[i].window[0].within is None
    low, high = t[i * 16 : (i + 1) * 16][j].window[0].within
    assert str(low) == "i * 16" and str(high) == "i * 16 + 16"
    assert t[i * 16 : (i + 1) * 16].shape == (16, 8) and t.slice(i, i + 4).window[0].extent == 4
    assert t[i % 4 * 16 : i % 4 * 16 + 16].shape == (16, 8)
    with pytest.raises(ValueError, match="no constant length"):
        t[i % 4 : i % 3 + 4]
    assert isinstance(t[i].window[0].at, Expr)


def test_moving_views_have_no_array():
    with pytest.raises(UsageError, match="moves"):
        tensor(4, 4)[i].array()


def test_slice_remembers_its_start():
    t = tensor(9, 4)
    np.testing.assert_array_equal(t.slice(5, 7).array(), t.array()[5:7])
    np.testing.assert_array_equal(t.slice(-4, 9).array(), t.array()[-4:])
    assert t.slice(5, 7).base is t and t.slice(0, 0).shape == (0, 4)


# ---- layouts of tensors


def test_layout_of_views():
    s, r = TensorShard(0), TensorReplicate()
    layout = TensorLayout((r, s, r), MemLayout.row_major((4, 6, 8)))
    t = Tensor(None, (4, 6, 8), F32, layout=layout)
    assert t[i].layout == TensorLayout((s, r), MemLayout((8, 1), (0, 1)))
    assert t[:, 2].layout == TensorLayout((r, r), MemLayout((48, 1), (0, 1)))
    assert t[i, j, 0].layout.rank == 0 and t.slice(1, 3).layout == layout and t[:, 1:3].layout == layout


def test_with_layout():
    t = tensor(4, 6)
    other = t.with_layout(TensorLayout.sharded(0, 2))
    assert t.layout.is_replicated() and other.layout.sharded_dims() == [0] and other.data is t.data
    assert other.base is other and other is not t
    view = t[i].with_layout(TensorLayout.sharded(0, 1))
    assert view.base is t and view.index_exprs == (i,) and view.window[0].at.a is i
    t.layout = TensorLayout.sharded(1, 2)
    assert t.layout.sharded_dims() == [1]
    with pytest.raises(TensorError):
        t.layout = TensorLayout.default(3)
    lazy = Tensor(None, (2, 2), F32)
    assert lazy.with_layout(TensorLayout.sharded(0, 2)).array() is lazy.array()
