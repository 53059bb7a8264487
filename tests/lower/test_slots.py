"""Conditions and slots in the native expander, against a walk in plain Python."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pto_wsp import DType, Tensor
from pto_wsp.errors import RegionError
from pto_wsp.lower.expand import expand
from pto_wsp.scalar_expr import LoopVar, TaskExpr, as_expr, axis, slot_bool, slot_i64, slot_u64, symbol_u64
from pto_wsp.trace.tree import Block, Cond, Loop, SlotLoad, SlotSet, WorkloadTree
from tests.lower.test_expand import (
    ONE,
    SPECIAL,
    call,
    check,
    defined,
    events_of,
    inputs_of,
    leaf,
    loop,
    numbers,
    rows_of,
    tensor,
    truths,
)

X = tensor(9, 9, 1, 1)


def noted(value):
    """A task that shows a value among its axis values."""
    return call(ONE, X[0][0], X[0][0], value)


def seen(*nodes, **more):
    """The values that the tasks of some nodes show."""
    return [row["axes"][0] for row in check(Block(nodes), **more)]


# ---- conditions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pred", [True, False, 1, 0, -3, as_expr(2) > 1, as_expr(0)])
def test_constant_conditions_cost_nothing(pred):
    holds = pred.evaluate(None) if hasattr(pred, "evaluate") else pred
    assert seen(Cond(pred, noted(1), noted(2))) == [1 if holds else 2]
    ir = expand(WorkloadTree("w", Cond(pred, noted(1), noted(2)))).ir
    assert ir == expand(WorkloadTree("w", noted(1 if holds else 2))).ir


def test_a_condition_of_every_kind_of_value():
    i = axis("i")
    for pred, expected in [(i > 1, [2, 3]), (i, [1, 2, 3]), (i - 2, [0, 1, 3]), (i.cast_bool(), [1, 2, 3])]:
        assert seen(loop(4, lambda v, p=pred: Cond(p, noted(v), Block()))) == expected
        rest = [n for n in range(4) if n not in expected]
        assert seen(loop(4, lambda v, p=pred: Cond(p, Block(), noted(v)))) == rest


def test_conditions_within_conditions():
    inner = Cond(axis("j") > 1, noted(axis("j")), noted(-axis("j")))
    root = loop(3, lambda i: loop(4, lambda j: Cond(i == 1, inner, Block((noted(10), noted(11)), False)), "j"), "i")
    assert len(check(root)) == 4 + 2 * 4 * 2


def test_empty_branches_are_gone():
    assert rows_of(Cond(symbol_u64("n") > 1, Block(), Block((Block(),)))) == []
    assert expand(WorkloadTree("w", Cond(symbol_u64("n") > 1, Block(), Block()))).symbols == ()


def test_order_around_a_condition():
    choice = Cond(symbol_u64("n") == 0, Block((leaf(), leaf()), True), leaf())
    assert events_of(Block((leaf(), choice, leaf()), False)) == "[t(tt)t]"
    assert events_of(Block((SlotSet(1, 2), choice), False)) == "tt"  # one part with tasks: nothing to order


@given(truths(), numbers(), st.sampled_from(SPECIAL), st.sampled_from(SPECIAL))
def test_conditions_mean_what_evaluate_says(truth, number, m, n):
    words = {"m": m % 2**64, "n": n % 2**64}
    for pred in (truth, number):
        choice = Cond(defined(pred), noted(axis("i")), noted(axis("j") * 10))
        check(loop(2, lambda i, c=choice: loop(3, lambda j: c, "j", False), "i"), symbols=words)


# ---- slots -----------------------------------------------------------------------------------------------------------


def test_slots_are_zero_at_first():
    assert seen(noted(slot_u64(0)), noted(slot_i64(255)), noted(slot_bool(7).cast_i64())) == [0, 0, 0]
    root = Block((noted(slot_u64(3)), SlotSet(3, 5), noted(slot_u64(3))))
    for _ in range(2):
        assert seen(root) == [0, 5]


@pytest.mark.parametrize("value", [0, 1, 2**63, 2**64 - 1])
def test_a_slot_as_every_type(value):
    shown = seen(SlotSet(9, value), *(noted(s) for s in (slot_i64(9), slot_u64(9), slot_bool(9).cast_i64())))
    as_signed = value - (value >> 63 << 64)
    assert shown == [as_signed, as_signed, value != 0]


FLOATS = (0.0, -0.0, 0.99, 1.0, 3.9, 255.5, -0.5, -3.0, 1e9, 65504.0, 2.0**-24, np.inf, -np.inf, np.nan, 1.8e19, 1.9e19)


@pytest.mark.parametrize("dtype", DType, ids=str)
def test_elements_of_every_dtype(dtype):
    if dtype.is_float:
        with np.errstate(over="ignore"):
            values = np.array(FLOATS, np.float64).astype(dtype.numpy)
    else:
        limits = np.iinfo(dtype.numpy)
        values = np.array([limits.min, limits.max, 0, 1, 100, limits.min // 2], dtype.numpy)
    x = Tensor(values.reshape(-1, 1, 1), (len(values), 1, 1), dtype)
    assert len(seen(loop(len(values), lambda i: Block((SlotLoad(3, x[i]), noted(slot_u64(3))))))) == len(values)


def test_elements_of_a_half():
    beside = (np.arange(0, 2**16, 1024)[:, None] + [-1, 0, 1]).ravel() % 2**16      # where the exponent changes
    bits = np.union1d(beside, np.arange(0, 2**16, 11))
    some = bits.astype(np.uint16).view(np.float16).reshape(-1, 1)
    x = Tensor(some, some.shape, DType.F16)
    check(loop(len(some), lambda i: Block((SlotLoad(3, x, i), noted(slot_u64(3))))))


def test_which_element_of_a_view():
    data = np.arange(2 * 5 * 6 * 7, dtype=np.int32).reshape(2, 5, 6, 7)
    x = Tensor(data, data.shape, DType.I32)
    i = LoopVar("i", 2)
    for view, row, col, expected in [
        (x[1], 4, 5, data[1, 4, 5, 0]),  # a view of more dimensions: the first two
        (x[i][2], 3, i * 6, data[0, 2, 3, 0]),
        (x[1, 2:4], 1, 3, data[1, 3, 3, 0]),
        (x[1][4][2:5, 1:3], 2, 1, data[1, 4, 4, 2]),
        (x[1][i][i : i + 2], 1, 6, data[1, 0, 1, 6]),
        (x[1][4], 5, 6, data[1, 4, 5, 6]),
    ]:
        found = check(Loop(i, 1, True, Block((SlotLoad(0, view, row, col), noted(slot_i64(0))))))
        assert [row["axes"] for row in found] == [[expected]], (view.window, row, col)


@pytest.mark.parametrize(
    "make, what",
    [
        (lambda x, i: SlotLoad(4, x[0], i * 2, 0), r"slot_load_u64\(4, ...\) at i = 3.*index 6 in dimension 1"),
        (lambda x, i: SlotLoad(4, x[i], 0, 0), "i = 2 .*index 2 in dimension 0"),
        (lambda x, i: SlotLoad(4, x[0], 0, -1), "index -1 in dimension 2"),
        (lambda x, i: SlotLoad(4, x[0][1:3], i, 0), "reads element 2 of a view with 2"),
        (lambda x, i: SlotLoad(4, x[0], i * (1 << 62) * 4, 0), "index 0 in dimension 1, which overflows"),
        (lambda x, i: SlotLoad(4, x[0], slot_u64(0) - 1, 0), "index 18446744073709551615 .*overflows"),
    ],
)
def test_elements_outside(make, what):
    x = tensor(2, 6, 7, dtype=DType.I32)
    root = loop(4, lambda i: Block((make(x, i), noted(i))))
    with pytest.raises(RegionError, match=what):
        rows_of(root)
    check(root)


def test_a_shorter_array_is_noticed():
    x = tensor(6, 1, 1)
    root = loop(6, lambda i: SlotLoad(0, x[i]))
    rows_of(root)
    x.data = np.zeros((5, 1, 1), np.float32)
    with pytest.raises(RegionError, match="index 5 in dimension 0.*5, 1, 1"):
        rows_of(root)


def test_slots_in_indices_and_keys():
    where = Tensor(np.array([[4, 0, 8, 2]], np.int64), (1, 4), DType.I64)
    x = tensor(9, 1, 1)
    root = loop(4, lambda i: Block((SlotLoad(1, where, 0, i), call(ONE, x[slot_u64(1)], x[slot_i64(1)], slot_i64(1)))))
    found = check(root, key=slot_u64(1) * 10)
    assert [row["key"] for row in found] == [40, 0, 80, 20]
    where.array()[0, 2] = 9
    assert check(root) is None  # outside, and the message knows the slot
    with pytest.raises(RegionError, match=r"scale\[9\].*index 9 in dimension 0"):
        rows_of(root)


def test_values_change_without_compiling():
    flags = Tensor(np.zeros((3, 1, 1), np.int8), (3, 1, 1), DType.I8)
    root = loop(3, lambda i: Block((SlotLoad(0, flags[i]), Cond(slot_bool(0), noted(i), Block()))))
    expansion = expand(WorkloadTree("w", root))
    for chosen in ([], [0, 2], [1]):
        flags.array()[:] = 0
        flags.array()[chosen] = 1
        assert expansion.run(inputs_of(expansion), expansion.table(), lambda t: None) == len(chosen)


def test_unrolled_nodes_share_their_text():
    """As many slots and constants as there are nodes, one text."""
    flags = tensor(64, 1, 1)

    def text(count):
        parts = [p for n in range(count) for p in (SlotLoad(n, flags[n]), SlotSet(200 - n, n), noted(slot_u64(n)))]
        return expand(WorkloadTree("w", Block(tuple(parts)))).ir.count("\n")

    assert text(60) < text(20) * 1.5


def test_key_of_a_task_reads_the_slot_of_its_moment():
    root = Block((SlotSet(0, 3), leaf(), SlotSet(0, 4), leaf()))
    assert [row["key"] for row in rows_of(root, key=TaskExpr().get("i", 1) * slot_i64(0))] == [3, 4]
