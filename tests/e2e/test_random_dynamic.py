"""Random workloads that decide by data: conditions, slots, selections and ragged loops inside one another.

The model walks the same description in plain Python, with the data. It shares no code with the package.
"""

from unittest import mock

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pto_wsp import (
    DType,
    Tensor,
    combine,
    cond,
    sequential,
    slot_load_u64,
    slot_set_u64,
    task,
)
from pto_wsp.sim import decisions
from tests.e2e.test_random_workloads import CYCLES, KERNELS, STATES, WIDTHS, Machine, scheduled, schedules
from tests.strategies import loop, predicate, predicates

SLOTS = (0, 7, 255)
SYMBOL = 5

slots = st.sampled_from(SLOTS)
rows = st.lists(st.lists(st.integers(0, 9), max_size=3), min_size=1, max_size=3)  # of a sparse axis
leaves = st.one_of(
    st.tuples(st.just("task"), st.sampled_from(WIDTHS), st.integers(0, STATES - 1), st.integers(-5, 5)),
    st.tuples(st.just("load"), slots, st.sampled_from(WIDTHS), st.integers(0, STATES - 1), st.integers(0, 4)),
    st.tuples(st.just("set"), slots, st.integers(-3, 1 << 65)),
)


def branches(child):
    ordered = st.sampled_from(["parallel", "ordered"])
    return st.one_of(
        st.tuples(ordered, st.integers(0, 3), child),
        st.tuples(st.sampled_from(["combine", "sequential"]), st.lists(child, max_size=4)),
        st.tuples(st.just("cond"), predicates(slots), child, st.one_of(st.none(), child)),
        st.tuples(st.just("list"), st.lists(st.integers(0, 9), max_size=3), child),
        st.tuples(st.just("sparse"), rows, child),
        st.tuples(st.just("sparse row"), rows, child),
        st.tuples(st.just("ragged"), ordered, st.lists(st.integers(0, 2), max_size=3), child),
        st.tuples(st.just("ragged row"), ordered, st.lists(st.integers(0, 3), min_size=1, max_size=3), child),
    )


trees = st.recursive(leaves, branches, max_leaves=10)
programs = st.tuples(st.sampled_from(["combine", "sequential"]), st.lists(trees, min_size=1, max_size=4))


# ---- the program under test ----------------------------------------------------------------------------------------


def built(tree, tensors, loops=()):
    kind, *given = tree
    state = (lambda row: loops[0] % STATES if loops else row)  # noqa: E731
    if kind == "task":
        width, row, constant = given
        scalar = loops[0] * 2 + constant if loops else constant
        return task(KERNELS[width], list(loops), {"x": tensors[width][state(row)], "c": scalar})
    if kind == "load":
        slot, width, row, col = given
        return slot_load_u64(slot, tensors[width][state(row)], col=col % width)
    if kind == "set":
        return slot_set_u64(*given)
    if kind in ("combine", "sequential"):
        return (combine if kind == "combine" else sequential)(*(built(t, tensors, loops) for t in given[0]))
    if kind == "cond":
        pred, then, other = given
        other = None if other is None else built(other, tensors, loops)
        return cond(predicate(pred, loops), built(then, tensors, loops), other)

    return loop(tree, loops, lambda i: built(given[-1], tensors, (i, *loops)))


# ---- the model -----------------------------------------------------------------------------------------------------


class Walk(Machine):
    def __init__(self, schedule):
        super().__init__(schedule)
        self.slots = [0] * 256

    def holds(self, pred, loops):
        kind, *given = pred
        slot = self.slots[given[0]] if kind in ("remainder", "bool", "signed") else 0
        return bool({
            "remainder": lambda: slot % (given[1] + 1) == 0,
            "bool": lambda: slot,
            "signed": lambda: (slot ^ 1 << 63) - (1 << 63) < given[1],
            "loop": lambda: loops[0] % (given[0] + 1) == 0 if loops else True,
            "symbol": lambda: SYMBOL > given[0],
            "constant": lambda: given[0],
        }[kind]())  # fmt: skip

    def values(self, tree, loops):
        kind, *given = tree
        if kind == "list":
            return given[0]
        if kind == "sparse":
            return sum(given[0], [])
        if kind == "sparse row":
            return given[0][loops[0] % len(given[0]) if loops else 0]
        if kind == "ragged":
            return range(sum(given[1]))
        if kind == "ragged row":
            return range(given[1][loops[0] % len(given[1]) if loops else 0])
        return range(given[0])

    def run(self, tree, ready=0, loops=()):
        kind, *given = tree
        if kind == "set":
            self.slots[given[0]] = given[1] % 2**64
            return ready
        if kind == "load":
            slot, width, row, col = given
            values = self.arrays[width][loops[0] % STATES if loops else row]
            self.slots[slot] = values[col % width] % 2**64
            return ready
        if kind == "cond":
            chosen = given[1] if self.holds(given[0], loops) else given[2]
            return ready if chosen is None else self.run(chosen, ready, loops)
        if kind == "task":
            width, row, constant = given
            values = self.arrays[width][loops[0] % STATES if loops else row]
            scalar = loops[0] * 2 + constant if loops else constant
            values[:] = [(v * 3 + scalar + 2**63) % 2**64 - 2**63 for v in values]
            return self.issue(CYCLES[width], [*loops, 1, width, scalar % 2**64], ready)
        if kind in ("combine", "sequential"):
            children = [(child, loops) for child in given[0]]
        else:
            children = [(given[-1], (i, *loops)) for i in self.values(tree, loops)]
        done = ready
        for child, inner in children:
            done = max(done, self.run(child, done if "ordered" in tree[:2] or kind == "sequential" else ready, inner))
        return done


def check(tree, schedule, other, target, rows=1 << 10, page=1 << 16):
    """rows: tasks that a table holds; page: values that a page of the log holds."""
    arrays = {width: np.zeros((STATES, 1, width), np.int64) for width in WIDTHS}
    tensors = {width: Tensor(data=a, shape=a.shape, dtype=DType.I64) for width, a in arrays.items()}
    program = scheduled(built(tree, tensors), schedule).compile(target)
    expansion = program._expansion
    expansion.table = lambda most=0: expansion.table_of(rows)
    if "n" in program._expansion.symbols:
        program.set_symbol_u64("n", SYMBOL)
    again = Walk(schedule)
    for _ in range(2):  # the second run finds other data, and slots that are zero again
        walk = Walk(schedule)
        walk.arrays = again.arrays
        total = walk.run(tree)
        with mock.patch.object(decisions, "_PAGE", page):
            program.execute()
            program.synchronize()
        assert (program.stats.total_cycles, program.stats.task_count) == (total, walk.tasks)
        for width in WIDTHS:
            assert arrays[width].reshape(STATES, width).tolist() == walk.arrays[width]
        again = walk
    if program._last is not None:  # decided by its own results: the decisions of the last run, under another schedule
        found = program.simulate(scheduled(combine(), other).schedule)
        assert found.task_count == walk.tasks
        assert len(program.timeline()) == walk.tasks
        assert program.simulate().total_cycles == total


@given(tree=programs, schedule=schedules, other=schedules)
@settings(max_examples=150)
def test_random_tree(tree, schedule, other):
    check(tree, schedule, other, "cpu_sim")


@given(tree=programs, schedule=schedules, rows=st.integers(1, 4), page=st.integers(1, 3))
@settings(max_examples=100)
def test_random_tree_in_small_pieces(tree, schedule, rows, page):
    check(tree, schedule, schedule, "cpu_sim", rows, page)


@given(tree=programs, schedule=schedules)
@settings(max_examples=40)
def test_random_tree_in_plain_python(tree, schedule):
    check(tree, schedule, schedule, "numpy")
