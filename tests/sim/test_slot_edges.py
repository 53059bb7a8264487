"""Slots as edges: random programs that decide by what their tasks wrote, against the same programs in plain Python."""

from __future__ import annotations

import dataclasses
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pto_wsp import (
    Deps,
    DispatchPolicy,
    DType,
    In,
    Out,
    P,
    Program,
    Ragged,
    Schedule,
    Snapshot,
    TaskGraphConfig,
    TaskWindow,
    Tensor,
    Tile,
    kernel,
    pto,
    slot_load_u64,
    slot_set_u64,
    workload,
)
from pto_wsp.errors import Deadlock, RaceError, ScheduleError
from pto_wsp.scalar_expr import slot_i64, slot_u64
from pto_wsp.schedule import DepsMode
from pto_wsp.sim import races
from pto_wsp.sim.edges import NODE_SIZE
from pto_wsp.sim.loops import Loop
from pto_wsp.sim.settings import Settings, settle
from pto_wsp.sim.simulation import Replay
from tests.sim.oracle import Job, Oracle, Stuck
from tests.sim.test_dataflow import Checked
from tests.sim.test_hazards import SCHEDULES

I32 = DType.I32


# ---- random programs

SHAPES = (1, 3), (2, 3), (2, 6)


@kernel
def small(x: In[Tile[1, 3, I32]], out: Out[Tile[1, 3, I32]]) -> None:
    pto.store(out, x)


@kernel
def middle(x: In[Tile[2, 3, I32]], out: Out[Tile[2, 3, I32]]) -> None:
    pto.store(out, x)


@kernel
def large(x: In[Tile[2, 6, I32]], out: Out[Tile[2, 6, I32]]) -> None:
    pto.store(out, x)


KERNELS = small, middle, large
ROWS, COLS = 8, 12
LENGTHS = [1, 0, 2, 1]

slots = st.integers(0, 1)
# view, row, column, and the slot that is added to the row
places = st.tuples(st.sampled_from([0, 0, 0, 1]), st.integers(0, 1), st.sampled_from([0, 2, 3]), st.none() | slots)
tasks = st.tuples(st.just("task"), st.integers(0, 2), places, places, st.booleans())
leaves = st.one_of(
    tasks,
    tasks,
    st.tuples(st.just("load"), slots, places),
    st.tuples(st.just("set"), slots, st.integers(0, 3)),
)


def bodies(child: Any) -> Any:
    body = st.lists(child, max_size=3)
    return st.one_of(
        st.tuples(st.just("when"), slots, st.integers(0, 2), st.lists(child, min_size=1, max_size=3), body),
        st.tuples(st.just("when"), slots, st.integers(0, 2), st.lists(child, min_size=1, max_size=3), body),
        st.tuples(st.sampled_from(["P", "seq"]), st.integers(1, 2), st.lists(child, min_size=1, max_size=3)),
        st.tuples(st.just("row"), slots, st.lists(child, min_size=1, max_size=3)),
    )


def routed(slot: int, place: Any, body: Any) -> list[Any]:
    """A slot that is loaded from what the task before wrote, and what that decides about."""
    return [("task", 2, place, place, False), ("load", slot, place), ("when", slot, 0, body, body[:1])]


trees = st.recursive(leaves, bodies, max_leaves=6)
parts = st.builds(routed, slots, places, st.lists(trees, min_size=1, max_size=3)) | st.lists(trees, max_size=3)
programs = st.lists(parts, min_size=1, max_size=3).map(lambda several: [node for part in several for node in part])


class Model:
    """A program as a workload; and walked in plain Python, from the rules alone."""

    def __init__(self, nodes: Any, seed: int = 0) -> None:
        self.data = np.random.default_rng(seed).integers(0, 3, (ROWS, COLS)).astype(np.int32)
        self.made, self.nodes = self.data.copy(), nodes
        number = np.arange(ROWS * COLS).reshape(ROWS, COLS)
        self.numbers = [number, number.T]
        self.tensors = [Tensor(data=a, shape=a.shape, dtype=I32) for a in (self.data, self.data.T)]
        self.lengths = Ragged(len(LENGTHS), LENGTHS)

    # -- the workload

    def program(self) -> Program:
        @workload
        def main() -> None:
            self._emit(self.nodes)

        program = main().task_graph(deps=Deps.hybrid()).compile()
        program.execute()
        program.synchronize()
        return program

    def _emit(self, nodes: Any) -> None:
        before: Any = None
        for node in nodes:
            what, *rest = node
            if what == "task":
                shape = SHAPES[rest[0]]
                given: Any = {"x": self._view(rest[1], shape), "out": self._view(rest[2], shape)}
                handle = KERNELS[rest[0]][0](**given, **({"after": [before]} if rest[3] and before else {}))
                before = handle
            elif what == "load":
                view, row, column, added = self._corner(rest[1], (1, 1))
                slot_load_u64(rest[0], self.tensors[view], row if added is None else row + slot_i64(added), column)
            elif what == "set":
                slot_set_u64(*rest)
            elif what == "when":
                with P.when(slot_u64(rest[0]) > rest[1]):
                    self._emit(rest[2])
                if rest[3]:
                    with P.otherwise():
                        self._emit(rest[3])
            elif what == "row":
                for _ in P(self.lengths[slot_i64(rest[0])]):
                    self._emit(rest[1])
            else:
                for _ in P(rest[0]) if what == "P" else P.seq(rest[0]):
                    self._emit(rest[1])

    def _view(self, place: Any, shape: tuple[int, int]) -> Tensor:
        view, row, column, added = self._corner(place, shape)
        if added is not None:
            row = row + slot_i64(added)
        return self.tensors[view][row : row + shape[0], column : column + shape[1]]

    @staticmethod
    def _corner(place: Any, shape: tuple[int, int]) -> tuple[int, int, int, Any]:
        """With room for a slot of up to 3."""
        view, row, column, added = place
        rows, columns = (ROWS, COLS) if view == 0 else (COLS, ROWS)
        return view, min(row, rows - shape[0] - 3), min(column, columns - shape[1]), added

    # -- what it means

    def walk(self, covered: str) -> Model:
        """The jobs. Loads wait for all that wrote the element but what is covered, "exact" or "all"; or the "last"."""
        self.covered, self.jobs, self.touched = covered, list[Job](), list[tuple[Any, Any]]()
        self.made = np.random.default_rng(0).integers(0, 3, (ROWS, COLS)).astype(np.int32)
        self.value, self.waits = dict.fromkeys(range(3), 0), {k: frozenset[int]() for k in range(3)}
        self._walk(self.nodes, frozenset(), frozenset())
        return self

    def _walk(self, nodes: Any, start: frozenset[int], decided: frozenset[int]) -> frozenset[int]:
        """Tasks that a part has, or those before it if there are none; `decided`: what its being reached waits for."""
        first, before = len(self.jobs), -1
        for node in nodes:
            what, *rest = node
            if what == "task":
                shape, me = SHAPES[rest[0]], len(self.jobs)
                x, out = self._cells(rest[1], shape), self._cells(rest[2], shape)
                added = [p[3] for p in rest[1:3] if p[3] is not None]
                slots = frozenset[int]().union(*(self.waits[k] for k in added))
                self.jobs.append(Job(0, set(start | decided | slots)))
                if rest[3] and before >= 0:
                    self.jobs[me].before.add(before)
                before = me
                self.touched.append((x, out))
                self.made.reshape(-1)[out] = self.made.reshape(-1)[x]
            elif what == "load":
                cell, added = int(self._cells(rest[1], (1, 1))[0, 0]), rest[1][3]
                index = frozenset() if added is None else self.waits[added]
                self.value[rest[0]] = int(self.made.reshape(-1)[cell])
                self.waits[rest[0]] = decided | index | self._writers(cell)
            elif what == "set":
                self.value[rest[0]], self.waits[rest[0]] = rest[1], decided
            elif what in ("when", "row"):
                inside = decided | self.waits[rest[0]]
                chosen = self.value[rest[0]]
                for slot in changed([node]):
                    self.waits[slot] |= inside
                if what == "when":
                    self._walk(rest[2] if chosen > rest[1] else rest[3], start, inside)
                else:
                    for _ in range(LENGTHS[chosen]):
                        self._walk(rest[1], start, inside)
            elif what == "P":
                for _ in range(rest[0]):
                    self._walk(rest[1], start, decided)
            else:
                self._in_order(rest[0], rest[1], start, decided)
        return frozenset(range(first, len(self.jobs))) or start

    def _in_order(self, times: int, nodes: Any, start: frozenset[int], decided: frozenset[int]) -> None:
        """The iterations of P.seq, and the statements in each, one after the other."""
        for _ in range(times):
            for node in nodes:
                start = self._walk([node], start, decided)

    def _cells(self, place: Any, shape: tuple[int, int]) -> Any:
        view, row, column, added = self._corner(place, shape)
        row += 0 if added is None else self.value[added]
        return self.numbers[view][row : row + shape[0], column : column + shape[1]]

    def _writers(self, cell: int) -> frozenset[int]:
        found: list[int] = []
        for k, (_, out) in enumerate(self.touched):
            if cell in out:
                found = [e for e in found if not self._covers(out, self.touched[e][1])] + [k]
        return frozenset(found[-1:] if self.covered == "last" else found)

    def _covers(self, later: Any, earlier: Any) -> bool:
        if self.covered == "exact":
            return same(later, earlier)
        return set(earlier.reshape(-1).tolist()) <= set(later.reshape(-1).tolist())


def same(a: Any, b: Any) -> bool:
    return sorted(a.reshape(-1).tolist()) == sorted(b.reshape(-1).tolist())


def changed(nodes: Any) -> set[int]:
    """The slots that are set or loaded somewhere in them."""
    found = set[int]()
    for what, *rest in nodes:
        if what in ("load", "set"):
            found.add(rest[0])
        elif what != "task":
            found |= changed([n for part in rest if isinstance(part, list) for n in part])
    return found


def on_checked_lists(loop: Loop, steps: int) -> Any:
    def run(*given: Any) -> int:
        lists = [Checked(value.tolist()) if isinstance(value, np.ndarray) else value for value in given]
        outcome = loop.function(*lists)
        for value, changed in zip(given, lists, strict=True):
            if isinstance(value, np.ndarray):
                value[:] = changed
        return outcome

    return run


RUNS = {
    "plain": lambda loop, steps: loop.plain,
    "machine code": lambda loop, steps: loop.machine_code(loop.making) or loop.plain,
    "checked": on_checked_lists,
}
"""How the engine and the passes over all tasks run."""

INFER = (None, DepsMode.INFER_TENSOR_MAP_EXACT, DepsMode.INFER_BYTES_OVERLAP)


def inferred(model: Model, mode: DepsMode | None) -> list[set[int]]:
    """The edges that come from what two tasks touch."""
    found: list[set[int]] = []
    for k, (x, out) in enumerate(model.touched):
        found.append(set())
        for e, (read, written) in enumerate(model.touched[:k] if mode is not None else []):
            pairs = [(x, written), (out, written), (out, read)]
            if any(same(a, b) if mode is INFER[1] else set(a.flat) & set(b.flat) for a, b in pairs):
                found[k].add(e)
    return found


@settings(max_examples=60, deadline=None)
@given(programs, st.lists(st.tuples(SCHEDULES, st.sampled_from(INFER), st.sampled_from(sorted(RUNS))), min_size=3,
                          max_size=3))  # fmt: skip
def test_engine_equals_the_rules(nodes: Any, schedules: Any) -> None:
    model = Model(nodes)
    program = model.program()
    snapshot = Snapshot.parse(str(program.snapshot()))
    for schedule, mode, run in schedules:
        model.walk("exact" if mode is INFER[1] else "all")
        assert (model.made == model.data).all()
        schedule = dataclasses.replace(schedule, infer=mode)
        with mock.patch.object(Loop, "choose", RUNS[run]):
            check_schedule(model, snapshot, schedule, inferred(model, mode))


def check_schedule(model: Model, snapshot: Snapshot, schedule: Settings, more: list[set[int]]) -> None:
    replay = Replay(snapshot, schedule, snapshot.expansions.of(schedule))
    spans = snapshot.simulate().timeline()
    pool = 1 if schedule.widths else 0
    jobs = [
        dataclasses.replace(job, before=job.before | edges, cycles=span.end - span.start, pool=pool)
        for job, edges, span in zip(model.jobs, more, spans, strict=True)
    ]
    try:
        expected = Oracle(schedule, jobs, list(schedule.widths) or [schedule.workers]).run()
    except Stuck:
        with pytest.raises((ScheduleError, Deadlock)):
            replay.run(record=True).starts()
        return
    engine = replay.run(record=True)
    starts, cause = engine.starts()
    assert starts.start.tolist() == expected.start
    assert starts.worker.tolist() == expected.worker
    ends = [s + job.cycles for s, job in zip(expected.start, jobs, strict=True)]
    for k, job in enumerate(jobs):
        assert cause[k] < 0 or ends[cause[k]] == expected.start[k]
        assert expected.wait[k] == starts.wait[k]
        assert expected.wait[k].name != "DEPENDENCY" or cause[k] in job.before
    counters, longest = engine.counters(), list[int]()
    for job in jobs:
        longest.append(job.cycles + max([0, *(longest[b] for b in job.before)]))
    if not schedule.window and not schedule.gen_cycles and not schedule.streams:  # all in the window together
        assert counters.critical_path_cycles == max(longest, default=0)
    chain = counters.critical_path.tolist()
    assert counters.critical_path_cycles == sum(jobs[k].cycles for k in chain) <= counters.total_cycles


@settings(max_examples=60, deadline=None)
@given(programs, st.sampled_from(sorted(RUNS)))
def test_races_against_a_closure(nodes: Any, run: str) -> None:
    model = Model(nodes)
    program = model.program()
    model.walk("last")
    count = len(model.jobs)
    reach = np.eye(count, dtype=bool)
    for k, job in enumerate(model.jobs):
        for b in job.before:
            reach[:, k] |= reach[:, b]
    racing = [(a, b) for b in range(count) for a in inferred(model, INFER[2])[b] if not reach[a, b]]
    try:
        with mock.patch.object(Loop, "choose", RUNS[run]):
            races.check(program.snapshot())
    except RaceError as error:
        assert error.tasks in racing
    else:
        assert not racing


# ---- what each rule means


@kernel
def give(x: In[Tile[1, 15, I32]], out: Out[Tile[1, 15, I32]]) -> None:
    pto.store(out, x)


def tensor(rows: int) -> Tensor:
    return Tensor(data=np.ones((rows, 15), np.int32), shape=(rows, 15), dtype=I32)


X, Y, Z = tensor(8), tensor(8), tensor(8)
MODES = Deps.explicit(), Deps.infer_tensor_map_exact(), Deps.infer_bytes_overlap(), Deps.hybrid()


def starts(body: Any, workers: int = 8, **graph: Any) -> list[int]:
    """When the tasks of a workload start, in units of one task, with a worker for each; the same in all Deps modes."""
    X.data[:], Y.data[:], Z.data[:] = 1, 0, 0  # type: ignore[index]

    @workload
    def main() -> None:
        body()

    program = main().compile()
    program.execute()
    program.synchronize()
    unit = program.simulate(Schedule(DispatchPolicy.round_robin(1))).timeline()[0].end
    found = []
    for deps in MODES:
        graph["deps"] = deps
        run = program.simulate(Schedule(DispatchPolicy.work_steal(workers), task_graph=TaskGraphConfig(**graph)))
        found.append([int(start) for start in run.timeline().start])
    assert found.count(found[0]) == len(MODES)
    return [start // unit for start in found[0]]


def router(r: Any = 0) -> None:
    give[r](x=X[r : r + 1], out=Y[r : r + 1])


def expert(r: Any = 0) -> None:
    give[r](x=X[r : r + 1], out=Z[r : r + 1])


def when(slot: int) -> Any:
    return P.when(slot_u64(slot) > 0)


def test_a_decision_waits_for_what_it_is_made_of() -> None:
    """15 cycles, a load, 15 cycles: 15 in the in-order engine, 30 in the dataflow engine."""

    @workload
    def main() -> None:
        router()
        slot_load_u64(0, Y, 0, 0)
        with when(0):
            expert()
        expert(1)

    X.data[:] = 1  # type: ignore[index]
    program = main().dispatch(DispatchPolicy.round_robin(3)).compile()
    program.execute()
    program.synchronize()
    one = program.timeline()[0].end
    assert program.stats.total_cycles == one
    for deps in MODES:
        run = program.simulate(Schedule(DispatchPolicy.round_robin(3), task_graph=TaskGraphConfig(deps=deps)))
        assert run.total_cycles == run.critical_path_cycles == 2 * one
        assert run.critical_path.tolist() == [0, 1]
        assert list(run.timeline().start) == [0, one, 0]
        report = run.task(1)
        assert [(e.task, e.kind) for e in report.predecessors] == [(0, "structural")] and report.cause == 0
        assert [(e.task, e.kind) for e in run.task(0).successors] == [(1, "structural")]
    assert "slots too" in str(run.schedule) and "slots" not in str(program.schedule)
    assert program.task(1).predecessors == ()
    program.check_races()


def test_each_expert_waits_for_its_own_router() -> None:
    def body() -> None:
        for r in P(4):
            router(r)
            slot_load_u64(0, Y, r, 0)
            with when(0):
                expert(r)
            with P.otherwise():
                router(r + 4)

    assert starts(body) == [0, 1] * 4
    assert starts(body, window=TaskWindow(1)) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert starts(body, window=TaskWindow(3)) == [0, 1, 0, 1, 1, 2, 2, 3]


def test_otherwise_waits_too() -> None:
    def body() -> None:
        router()
        slot_load_u64(0, Y, 0, 0)
        with P.when(slot_u64(0) > 7):
            router(3)
        with P.otherwise():
            expert()

    assert starts(body) == [0, 1]


def test_a_slot_that_is_set_is_known() -> None:
    def body() -> None:
        router()
        slot_load_u64(0, Y, 0, 0)
        with when(0):
            slot_set_u64(0, 1)
            slot_set_u64(1, 1)
        with when(0):
            expert(0)  # what slot 0 is was decided by the router
        with when(1):
            expert(1)
        slot_set_u64(0, 1)
        with when(0):
            expert(2)

    assert starts(body) == [0, 1, 1, 0]


def test_what_a_branch_did_not_change_waits_for_the_decision() -> None:
    def body() -> None:
        router()
        slot_load_u64(0, Y, 0, 0)
        with P.when(slot_u64(0) > 7):
            slot_set_u64(1, 5)
        with P.when(slot_u64(1) == 0):
            expert(0)
        with P.when(slot_u64(2) == 0):
            expert(1)

    assert starts(body) == [0, 1, 0]


def test_a_load_in_a_branch_waits_for_the_branch() -> None:
    def body() -> None:
        router()
        slot_load_u64(0, Y, 0, 0)
        with when(0):
            slot_load_u64(1, X, 0, 0)
        with when(1):
            expert()

    assert starts(body) == [0, 1]


def test_branches_inside_one_another() -> None:
    def body() -> None:
        router(0)
        slot_load_u64(0, Y, 0, 0)
        with when(0):
            router(1)
            slot_load_u64(1, Y, 1, 0)
            with when(1):
                expert(0)
            expert(1)
        expert(2)

    assert starts(body) == [0, 1, 2, 1, 0]


def test_a_load_in_a_branch_is_not_what_the_branch_waited_for() -> None:
    def body() -> None:
        router(0)
        for i in P.seq(2):
            router(1 + i)
        slot_load_u64(0, Y, 0, 0)
        with when(0):
            slot_load_u64(0, Y, 2, 0)
            expert(0)  # waits for #0 only
            with when(0):
                expert(1)

    assert starts(body) == [0, 0, 1, 1, 2]


def test_the_index_of_a_load_and_arguments_of_tasks() -> None:
    def body() -> None:
        router(1)
        slot_load_u64(0, Y, 1, 0)
        slot_load_u64(1, X, slot_i64(0), 0)
        give[slot_i64(1)](x=X[4:5], out=Z[4:5])
        give[0](x=X[slot_i64(0) : slot_i64(0) + 1], out=Z[5:6])
        give[0](x=X[4:5], out=Z[6:7])

    assert starts(body) == [0, 1, 1, 0]


def test_a_loop_over_a_row_that_a_slot_chooses() -> None:
    lengths = Ragged(2, [0, 2])

    def body() -> None:
        router()
        slot_load_u64(0, Y, 0, 0)
        for i in P(lengths[slot_i64(0)]):
            expert(i)
        expert(2)

    assert starts(body) == [0, 1, 1, 0]


def test_a_slot_in_a_loop_that_is_loaded_again() -> None:
    def body() -> None:
        for r in P.seq(3):
            with P.when(slot_u64(0) == r.cast_u64() * 0):
                expert(r)
            router(r)
            slot_load_u64(1, Y, r, 0)
        with when(1):
            expert(4)

    assert starts(body) == [0, 1, 2, 3, 4, 5, 6]


def test_many_loads_of_one_slot_take_no_room() -> None:
    """A slot that waits for one task is that task: no gate is made, however many loads there are."""

    @workload
    def main() -> None:
        router()
        for r in P(5000):
            slot_load_u64(0, Y, r * 0, 0)
            with P.when(slot_u64(0) > 7):
                expert()

    program = main().task_graph(deps=Deps.explicit()).compile()
    program.execute()
    program.synchronize()
    snapshot = program.snapshot()
    engine = Replay(snapshot, settle(snapshot.schedule), snapshot.expansions.of(settle(snapshot.schedule))).run()
    assert len(engine._nodes) == 64 * NODE_SIZE
