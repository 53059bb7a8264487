"""Ragged and sparse axes: what they may hold, and the loops over them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pto_wsp import Ragged, Sparse
from pto_wsp.errors import AxisError, ExecutionError
from pto_wsp.lower.axes import as_indices, data_of
from pto_wsp.lower.expand import LONGEST_AXIS, expand
from pto_wsp.scalar_expr import axis
from pto_wsp.trace.tree import Block, WorkloadTree
from tests.lower.test_expand import ONE, call, check, events_of, inputs_of, leaf, loop, rows_of, tensor

X = tensor(40, 1, 1)


def shown(*values):
    return call(ONE, X[0], X[0], *values)


# ---- data ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [list, tuple, np.array, lambda v: np.array(v, np.uint8), lambda v: np.array(v)[::1]])
def test_lists_of_integers(kind):
    (found,) = data_of(Ragged(1, [9]), {"outer": 3, "lengths": kind([2, 0, 4])}, "b")
    assert found.tolist() == [2, 0, 4]
    assert found.dtype == np.int64


@pytest.mark.parametrize("kind", [Ragged, Sparse])
@pytest.mark.parametrize("bad", [[1.5, 2.0], [[1, 2]], 7, ["a"], [None], np.zeros(3, bool), np.zeros(2, "M8[s]")])
def test_what_is_not_a_list_of_integers(kind, bad):
    with pytest.raises(TypeError, match="lengths_7 is a list of ints; got"):
        as_indices("lengths_7", bad)


@pytest.mark.parametrize(
    "given, what",
    [
        ({"lengths": [1, -1]}, "lengths of Ragged axis of loop 'b': entry 1 is -1"),
        ({"lengths": [1, 2**31]}, "entry 1 is 2147483648"),
        ({"lengths": np.array([1, 2**63 + 1], np.uint64)}, "entry 1 is 9223372036854775809"),
        ({"lengths": [1]}, "has 1 entries; 2 rows need 2"),
        ({"outer": 3}, "has 2 entries; 3 rows need 3"),
        ({"outer": 2**64 - 1}, "rows need"),
    ],
)
def test_lengths_that_make_no_sense(given, what):
    with pytest.raises(AxisError, match=what):
        data_of(Ragged(2, [1, 1]), given, "b")


@pytest.mark.parametrize(
    "given, what",
    [
        ({"indptr": [0, 2, 1]}, "indptr of Sparse axis of loop 'e' decreases from 2 to 1 at entry 2"),
        ({"indptr": [0, 1, 4]}, "ends at 4, but there are only 3 indices"),
        ({"indptr": [-1, 1, 3]}, "indptr .*entry 0 is -1"),
        ({"indptr": [0, 3]}, "has 2 entries; 2 rows need 3"),
        ({"outer": 4}, "has 3 entries; 4 rows need 5"),
        ({"indices": [1, 2, -3]}, "indices of Sparse .*entry 2 is -3"),
        ({"indices": [1, 2]}, "ends at 3, but there are only 2 indices"),
    ],
)
def test_patterns_that_make_no_sense(given, what):
    with pytest.raises(AxisError, match=what):
        data_of(Sparse(2, [0, 1, 3], [5, 6, 7]), given, "e")


def test_fewer_rows_than_entries():
    assert data_of(Ragged(3, [1, 2, 3]), {"outer": 2}, "b")[0].tolist() == [1, 2]
    assert data_of(Sparse(2, [0, 1, 3], [5, 6, 7]), {"outer": 1}, "b")[0].tolist() == [0, 1]
    assert data_of(Sparse(2, [0, 1, 3], [5, 6, 7]), {"outer": 0, "indptr": [0]}, "b")[0].tolist() == [0]


def test_constructors_are_checked_for_size_when_they_are_used():
    long = Ragged(1 << 10, [(1 << 31) - 1] * (1 << 10))
    with pytest.raises(AxisError, match=r"at most 2\*\*40"):
        data_of(long, {}, "b")
    assert sum(long) > LONGEST_AXIS


# ---- loops -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [[], [0], [3], [2, 0, 4], [0, 0, 1, 5]])
@pytest.mark.parametrize("parallel", [True, False])
def test_ragged_loops(lengths, parallel):
    whole = Ragged(len(lengths), lengths)
    found = check(loop(whole, lambda t: shown(t), parallel=parallel))
    assert [row["axes"] for row in found] == [[n] for n in range(sum(lengths))]
    rows = loop(len(lengths), lambda b: loop(whole[b], lambda t: shown(b, t), "t", parallel), "b", not parallel)
    assert [row["axes"] for row in check(rows)] == [[b, t] for b, n in enumerate(lengths) for t in range(n)]


@pytest.mark.parametrize("rows", [[], [[]], [[3, 7], [], [7, 7, 0]], [[39]]])
def test_sparse_loops(rows):
    indptr = np.cumsum([2, *map(len, rows)]).tolist()  # it need not begin at 0
    pattern = Sparse(len(rows), indptr, [100, 101, *sum(rows, [])])
    assert [row["axes"][0] for row in check(loop(pattern, lambda e: shown(e, 0)))] == sum(rows, [])
    found = check(loop(len(rows), lambda b: loop(pattern[b], lambda e: call(ONE, X[e], X[e], b, e), "e"), "b"))
    assert [row["axes"] for row in found] == [[b, e] for b, row in enumerate(rows) for e in row]


def test_order_in_loops():
    two = Ragged(2, [1, 1])
    assert events_of(loop(two, lambda t: loop(two[t], lambda s: leaf(), "s", False))) == "[t][t]"
    assert events_of(Block((leaf(), loop(Sparse(1, [0, 2], [4, 4]), lambda e: leaf()), leaf()), False)) == "[t(tt)t]"


@pytest.mark.parametrize("make", [lambda a: a - 1, lambda a: a, lambda a: (a + 1) * (1 << 62) * 4, lambda a: a * 0 + 3])
@pytest.mark.parametrize("whole", [Ragged(2, [2, 3]), Sparse(2, [0, 2, 3], [4, 5, 6])])
def test_rows_that_do_not_exist(whole, make):
    assert check(loop(3, lambda b: loop(whole[make(b)], lambda t: shown(t), "t"), "b")) is None
    what = rf"loop 't' at b = \d asks for row -?\d+.* of a {type(whole).__name__} axis"
    with pytest.raises(ExecutionError, match=what):
        rows_of(loop(3, lambda b: loop(whole[make(b)], lambda t: shown(t), "t"), "b"))


def test_an_element_outside_is_named():
    with pytest.raises(ExecutionError, match=r"scale\[40\].*index 40 in dimension 0"):
        rows_of(loop(Sparse(1, [0, 2], [39, 40]), lambda e: call(ONE, X[e], X[e], e)))


def test_data_changes_without_compiling():
    lengths, pattern = Ragged(2, [1, 1]), Sparse(1, [0, 1], [5])
    root = Block((loop(lengths, lambda t: shown(t)), loop(pattern, lambda e: shown(e), "e")))
    expansion = expand(WorkloadTree("w", root))
    arrays = [t.array() for t in expansion.tensors]
    for rows in ([], [3, 0], [9] * 7):
        for columns in ([], [1, 2, 3]):
            found = []
            data = {
                lengths: {"outer": len(rows), "lengths": np.array(rows, np.int32)},
                pattern: {"indptr": [0, len(columns)], "indices": columns},
            }
            inputs = expansion.inputs(arrays, {}, {}, data)
            expansion.run(inputs, expansion.table(), lambda t, f=found: f.extend(t.axes[: t.count, 0].tolist()))
            assert found == [*range(sum(rows)), *columns]
    with pytest.raises(ExecutionError, match="lengths of Ragged axis of loop 'i': entry 0 is -1"):
        expansion.inputs(arrays, {}, {}, {lengths: {"lengths": [-1, 2]}})
    assert expansion.run(inputs_of(expansion), expansion.table(), lambda t: None) == 3


def test_axes_are_shared_by_their_loops():
    two = Ragged(2, [1, 2])
    root = Block((loop(two, lambda t: shown(t)), loop(two, lambda t: loop(two[t % 2], lambda s: shown(s), "s"))))
    assert list(expand(WorkloadTree("w", root)).axes) == [two]
    check(root)


@given(st.lists(st.lists(st.integers(0, 39), max_size=4), max_size=5), st.integers(0, 4), st.booleans())
def test_random_patterns(rows, outer, parallel):
    indptr = np.cumsum([0, *map(len, rows)]).tolist()
    pattern, ragged = Sparse(len(rows), indptr, sum(rows, [])), Ragged(len(rows), list(map(len, rows)))
    body = Block((shown(axis("b")), loop(pattern[axis("b")], lambda e: call(ONE, X[e], X[e], e), "e")), parallel)
    inner = loop(ragged[axis("b")], lambda t: body, "t", not parallel)
    check(loop(outer, lambda b: inner, "b", parallel))
    check(Block((loop(pattern, lambda e: shown(e)), loop(ragged, lambda t: shown(t), "t")), parallel))
