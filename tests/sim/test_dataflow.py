"""The dataflow engine against a slow event loop written from the rules alone, and the rules that every run keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pto_wsp.lower.tasks import TaskTable
from pto_wsp.scalar_expr import TaskExpr
from pto_wsp.sim import dataflow
from pto_wsp.sim.dataflow import DataflowEngine
from pto_wsp.sim.inorder import Counters, Wait
from pto_wsp.sim.keys import Key, Keys
from pto_wsp.sim.settings import Settings
from tests.sim.test_inorder import Tree, par, path, rows_of, seq, task, trees

KEY = TaskExpr().get("b")

# A call of its own for task k % 5; call 3 waits for call 0, call 4 for calls 3 and 1.
WAITS = {3: (0,), 4: (3, 1)}
_tasks: list[Any] = []
for _k in range(5):
    _tasks.append(SimpleNamespace(after=tuple(_tasks[e] for e in WAITS.get(_k, ()))))
CALLS: Any = tuple(SimpleNamespace(task=t) for t in _tasks)


def schedule(workers: int = 1, window: int = 0, bound: bool = True, keyed: bool = False) -> Settings:
    dispatch = "work_steal" if not bound else "affinity" if keyed else "round_robin"
    keys = (Key("dispatch", dispatch, KEY),) if keyed else ()
    return Settings(dispatch, workers, window, "dataflow", keys, bound)


@dataclass
class Run:
    counters: Counters
    start: list[int]
    worker: list[int]
    wait: list[Wait]
    cause: list[int]


def simulate(tree: Tree, settings: Settings, explicit: bool = False, chunk: int = 1 << 16) -> Run:
    engine = DataflowEngine(settings, CALLS, Keys(settings.keys, (KEY,)), record=True)
    rows, number = rows_of(tree), 0
    for first in range(0, len(rows), chunk):
        part = rows[first : first + chunk]
        table = TaskTable.empty(len(part), 0, 0, 1)
        table.count = len(part)
        for k, (kernel, cycles, key) in enumerate(part):
            leaf = number % 5 if explicit and kernel >= 0 else 0
            table.kernel[k], table.cycles[k], table.keys[0, k], table.leaf[k] = kernel, cycles, key, leaf
            number += kernel >= 0
        engine.play(table)
    starts, cause = engine.starts()
    columns = (starts.start.tolist(), starts.worker.tolist(), [Wait(w) for w in starts.wait], cause.tolist())
    return Run(engine.counters(), *columns)


@dataclass
class Oracle:
    """Every rule as it is written: sets and sorted lists, one cycle that matters after the other."""

    settings: Settings
    cycles: list[int] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    before: list[set[int]] = field(default_factory=list)

    def build(self, node: Tree, before: set[int]) -> set[int]:
        """Number the tasks; the tasks that have to end for the node to be complete."""
        kind, *rest = node
        if kind == "task":
            self.cycles.append(rest[0])
            self.keys.append(rest[1] % 2**64)
            self.before.append(set(before))
            return {len(self.cycles) - 1}
        if kind == "seq":
            for child in rest:
                before = self.build(child, before)
            return before
        ends = [self.build(child, before) for child in rest if not is_empty(child)]
        return set().union(*ends) if ends else before

    def explicit(self) -> None:
        for k in range(len(self.cycles)):
            for call in WAITS.get(k % 5, ()):
                earlier = [e for e in range(k) if e % 5 == call]
                self.before[k] |= set(earlier[-1:])

    def run(self) -> tuple[list[int], list[int], list[int], list[int]]:
        """Start, worker, generated, ready per task."""
        n, workers = len(self.cycles), self.settings.workers
        start, worker, generated, ready = [-1] * n, [-1] * n, [-1] * n, [-1] * n
        done, now = set[int](), 0
        while True:
            running = [k for k in range(n) if start[k] >= 0 and k not in done]
            done |= {k for k in running if start[k] + self.cycles[k] == now}
            for k in range(n):
                in_flight = sum(g >= 0 for g in generated) - len(done)
                if generated[k] < 0 and (self.settings.window == 0 or in_flight < self.settings.window):
                    generated[k] = now
                elif generated[k] < 0:
                    break
            for k in range(n):
                if generated[k] >= 0 and ready[k] < 0 and self.before[k] <= done:
                    ready[k] = now
            waiting = sorted((ready[k], k) for k in range(n) if ready[k] >= 0 and start[k] < 0)
            busy = {worker[k] for k in range(n) if start[k] >= 0 and k not in done}
            for _, k in waiting:
                allowed = [self.lane(k)] if self.settings.bound else list(range(workers))
                free = [w for w in allowed if w not in busy]
                if free:
                    start[k], worker[k] = now, free[0]
                    busy.add(free[0])
            ends = [start[k] + self.cycles[k] for k in range(n) if start[k] >= 0 and k not in done]
            if not ends:
                assert len(done) == n
                return start, worker, generated, ready
            now = min(ends)

    def lane(self, k: int) -> int:
        return (self.keys[k] if self.settings.key is not None else k) % self.settings.workers


def is_empty(node: Tree) -> bool:
    return node[0] != "task" and all(is_empty(child) for child in node[1:])


SCHEDULES = st.builds(
    schedule,
    st.integers(1, 5),
    st.sampled_from([0, 1, 2, 3, 5, 8192]),
    st.booleans(),
    st.booleans(),
)


@settings(max_examples=300)
@given(trees(), SCHEDULES, st.booleans(), st.sampled_from([1, 3, 1000]))
def test_engine_equals_the_rules(tree: Tree, schedule: Settings, explicit: bool, chunk: int) -> None:
    oracle = Oracle(schedule)
    oracle.build(tree, set())
    if explicit:
        oracle.explicit()
    start, worker, generated, ready = oracle.run()
    found = simulate(tree, schedule, explicit, chunk)
    assert (found.start, found.worker) == (start, worker)
    ends = [s + c for s, c in zip(start, oracle.cycles, strict=True)]
    assert found.counters.total_cycles == max([0, *ends])
    assert found.counters.dependency_stalled_cycles == sum(r - g for r, g in zip(ready, generated, strict=True))
    assert found.counters.busy_stalled_cycles == sum(s - r for s, r in zip(start, ready, strict=True))
    for k, (wait, cause) in enumerate(zip(found.wait, found.cause, strict=True)):
        expected = (
            Wait.NOTHING if start[k] == 0 else
            Wait.WORKER_BUSY if start[k] > ready[k] else
            Wait.DEPENDENCY if ready[k] > generated[k] else
            Wait.WINDOW_FULL
        )  # fmt: skip
        assert wait is expected
        assert (cause < 0) == (wait is Wait.NOTHING)
        assert cause < 0 or ends[cause] == start[k]
    check_invariants(found, oracle, tree if not explicit else None)


def check_invariants(found: Run, oracle: Oracle, tree: Tree | None) -> None:
    """scheduling rules 2 and 3."""
    counters, schedule = found.counters, oracle.settings
    ends = [s + c for s, c in zip(found.start, oracle.cycles, strict=True)]
    for k, before in enumerate(oracle.before):
        assert found.start[k] >= max([0, *(ends[b] for b in before)])
    for w in range(schedule.workers):
        spans = sorted((found.start[k], ends[k]) for k in range(len(ends)) if found.worker[k] == w)
        assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:], strict=False))
        assert counters.busy[w] == sum(e - s for s, e in spans)
        assert counters.tasks[w] == len(spans)
    if schedule.window:
        assert counters.most_in_window <= schedule.window
    if tree is not None:
        assert counters.critical_path_cycles == path(tree)
    assert max(counters.critical_path_cycles, -(-counters.work_cycles // schedule.workers)) <= counters.total_cycles
    assert counters.total_cycles <= counters.work_cycles
    if schedule.workers == 1:
        assert counters.total_cycles == counters.work_cycles


@pytest.mark.parametrize("workers", [1, 3, 4])
@pytest.mark.parametrize("bound", [True, False])
def test_independent_tasks(workers: int, bound: bool) -> None:
    found = simulate(par(*[task(10)] * 13), schedule(workers, bound=bound))
    assert found.counters.total_cycles == -(-13 // workers) * 10


def test_a_late_task_does_not_hold_up_those_behind_it() -> None:
    """The in-order engine takes 50 for the same chains."""
    chains = par(*(seq(*(task(10, key) for _ in range(3))) for key in range(2)))
    found = simulate(chains, schedule(2, keyed=True))
    assert found.counters.total_cycles == 30
    assert found.wait == [Wait.NOTHING, Wait.DEPENDENCY, Wait.DEPENDENCY] * 2
    assert found.cause == [-1, 0, 1, -1, 3, 4]


def test_a_block_of_n_tasks_has_about_2_n_edges() -> None:
    n = 400
    engine = DataflowEngine(schedule(4), CALLS)
    rows = rows_of(seq(*(par(*[task(1)] * n) for _ in range(5))))
    table = TaskTable.empty(len(rows), 0, 0, 1)
    table.count = len(rows)
    table.leaf[:] = 0
    for k, (kernel, cycles, key) in enumerate(rows):
        table.kernel[k], table.cycles[k], table.keys[0, k] = kernel, cycles, key
    engine.play(table)
    assert engine.counters().total_cycles == 5 * n // 4
    assert engine._state[dataflow.EDGES_TOP] // dataflow.EDGE_SIZE <= 5 * 2 * n


@pytest.mark.parametrize("run", [dataflow.play, dataflow.plain, dataflow.compiled], ids=["arrays", "lists", "compiled"])
def test_plain_and_compiled_agree(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    play = run() if run is dataflow.compiled else run
    monkeypatch.setattr(dataflow, "_choose", lambda count: play)
    random = np.random.default_rng(7)

    def tree(depth: int) -> Tree:
        if depth == 0:
            return task(int(random.integers(0, 100)), int(random.integers(0, 2**63)))
        return (("par", "seq")[random.integers(2)], *(tree(depth - 1) for _ in range(random.integers(0, 5))))

    keyed = schedule(7, 64, keyed=True), schedule(3, 1, keyed=True)
    for settings_ in (schedule(1), schedule(4, 3, bound=False), *keyed):
        root = par(*(tree(4) for _ in range(8)))
        oracle = Oracle(settings_)
        oracle.build(root, set())
        oracle.explicit()
        start, worker, *_ = oracle.run()
        found = simulate(root, settings_, explicit=True, chunk=97)
        assert (found.start, found.worker) == (start, worker)


def test_memory_is_bounded_by_the_window() -> None:
    engine = DataflowEngine(schedule(4, window=32, bound=False), CALLS)
    table = TaskTable.empty(1000, 0, 0)
    table.count = 1000
    table.kernel[:], table.cycles[:], table.leaf[:] = 0, 7, 0
    for _ in range(20):
        engine.play(table)
    assert engine.counters().total_cycles == 20_000 * 7 // 4
    assert len(engine._nodes) == 64 * dataflow.NODE_SIZE
