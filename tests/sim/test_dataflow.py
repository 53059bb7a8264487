"""The dataflow engine against a slow event loop written from the rules alone, and the rules that every run keeps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pto_wsp.errors import Deadlock, ScheduleError
from pto_wsp.lower.tasks import TaskTable
from pto_wsp.scalar_expr import TaskExpr
from pto_wsp.schedule import WindowMode
from pto_wsp.sim import clock, dataflow
from pto_wsp.sim.dataflow import DataflowEngine
from pto_wsp.sim.edges import EDGE_SIZE, EDGES, NODE_SIZE, TOP
from pto_wsp.sim.inorder import Counters, Wait
from pto_wsp.sim.keys import Key, Keys
from pto_wsp.sim.settings import Settings
from tests.sim.oracle import Job, Oracle, Play, Stuck
from tests.sim.test_inorder import Tree, par, path, rows_of, seq, task, trees

KEY = TaskExpr().get("b")

# A call of its own for task k % 5; call 3 waits for call 0, call 4 for calls 3 and 1.
WAITS = {3: (0,), 4: (3, 1)}
_tasks: list[Any] = []
for _k in range(5):
    _tasks.append(SimpleNamespace(after=tuple(_tasks[e] for e in WAITS.get(_k, ()))))
CALLS: Any = tuple(SimpleNamespace(task=t) for t in _tasks)

# Tiles of one parameter: each writes as many bytes as its row of `args` says.
TILES: Any = SimpleNamespace(
    params=1, uses=np.zeros(0, np.int64), spaces=np.zeros(0, np.int64), exists=np.ones((5, 1), bool),
    written_bytes=np.ones((5, 1), np.int64),
)  # fmt: skip


def schedule(
    workers: int = 1, window: int = 0, bound: bool = True, roles: tuple[str, ...] = (), **more: Any
) -> Settings:
    dispatch = "work_steal" if not bound else "affinity" if "dispatch" in roles else "round_robin"
    keys = tuple(Key(role, role, KEY) for role in roles)
    return Settings(dispatch, workers, window, "dataflow", keys, bound, **more)


def jobs_of(tree: Tree, schedule: Settings, explicit: bool) -> list[Job]:
    """The tasks of a tree; what a key says of a task is made from its key in the tree."""
    jobs: list[Job] = []

    def build(node: Tree, before: set[int]) -> set[int]:
        kind, *rest = node
        if kind == "task":
            word = rest[1] % 2**64
            job = Job(words(word)["cycles"] if schedule.find("cycles") else rest[0], set(before), weight=1 + word % 3)
            if schedule.find("dispatch"):
                job.key = words(word)["dispatch"]
            if schedule.find("stream"):
                job.stream = words(word)["stream"]
            if schedule.find("priority"):
                job.rank = words(word)["priority"]
            if schedule.pools != "single":
                job.pool = words(word)["pool"]
            if schedule.unit == "tasks":
                job.weight = 1
            jobs.append(job)
            return {len(jobs) - 1}
        if kind == "seq":
            for child in rest:
                before = build(child, before)
            return before
        ends = [build(child, before) for child in rest if not is_empty(child)]
        return set().union(*ends) if ends else before

    build(tree, set())
    if explicit:
        for k, job in enumerate(jobs):
            for call in WAITS.get(k % 5, ()):
                job.before |= {e for e in range(k) if e % 5 == call and e > k - 5 - (k % 5 <= call)}
    if schedule.pools == "custom":  # numbered as they come up
        names = list(dict.fromkeys(job.pool for job in jobs))
        for job in jobs:
            job.pool = names.index(job.pool)
    return jobs


def words(word: int) -> dict[str, int]:
    """What the keys of a task are."""
    return {
        "dispatch": word,
        "stream": word // 3,
        "priority": word // 5 % 7 - 3,
        "cycles": word // 11 % 20,
        "pool": word // 13 % 2,
    }


def is_empty(node: Tree) -> bool:
    return node[0] != "task" and all(is_empty(child) for child in node[1:])


def engine_on(tree: Tree, schedule: Settings, explicit: bool = False, chunk: int = 1 << 16) -> DataflowEngine:
    columns = [KEY] * len(schedule.keys)
    keys = Keys(schedule.keys, columns)
    tiles = TILES if schedule.unit == "bytes" else None
    engine = DataflowEngine(schedule, CALLS, keys, tiles, units=(0, 1), record=True)
    rows, number = rows_of(tree), 0
    for first in range(0, len(rows), chunk):
        part = rows[first : first + chunk]
        table = TaskTable.empty(len(part), 5, 0, len(columns))
        table.count = len(part)
        for k, (kernel, cycles, word) in enumerate(part):
            found = words(word)
            unit = found["pool"] if schedule.pools == "by_exec_unit" else 0
            table.kernel[k], table.cycles[k] = kernel if kernel < 0 else unit, cycles
            table.leaf[k] = number % 5 if explicit and kernel >= 0 else 0
            table.args[k] = 0, 0, 0, 1 + word % 3, 1
            for place, key in enumerate(schedule.keys):
                table.keys[place, k] = found[key.role] % 2**64
            number += kernel >= 0
        engine.play(table)
    engine.finish()
    return engine


def simulate(tree: Tree, schedule: Settings, explicit: bool = False, chunk: int = 1 << 16) -> tuple[Counters, Play]:
    engine = engine_on(tree, schedule, explicit, chunk)
    starts, cause = engine.starts()
    c = engine.counters()
    stalls = {
        "window": (c.window_stalls, c.window_stalled_cycles), "dependency": (c.dependency_stalls,
        c.dependency_stalled_cycles), "start": (c.start_stalls, c.start_stalled_cycles), "overflow": (c.overflows, 0),
        "rate": (c.rate_stalls, c.rate_stalled_cycles), "busy": (c.busy_stalls, c.busy_stalled_cycles),
    }  # fmt: skip
    stalls = {reason: stall for reason, stall in stalls.items() if stall[0]}
    waits = [Wait(w) for w in starts.wait]
    columns = starts.start.tolist(), starts.worker.tolist(), waits, cause.tolist()
    return c, Play(*columns, stalls, c.most_in_window, c.most_ready, c.steals)


# ---- every directive, and their combinations


@st.composite
def schedules(draw: st.DrawFn) -> Settings:
    """Any settings that `settle` can make, as an engine takes them."""
    streams = draw(st.sampled_from([0, 0, 1, 2, 3, 5]))
    together = draw(st.sampled_from([0, 1, 2, 3])) if streams else 0
    ready = draw(st.sampled_from(["fifo", "priority", "work_steal"]))
    if ready == "work_steal":
        together = 0
    dispatch = "work_steal" if ready == "work_steal" else draw(
        st.sampled_from(["round_robin", "affinity", "work_steal", *["one worker"] * bool(streams)])
    )
    timing = "together" if together else draw(st.sampled_from(["immediate", "gap", "batch"]))
    roles = [role for role in ("stream", "cycles") if (role == "cycles" or streams) and draw(st.booleans())]
    roles += ["priority"] * (ready == "priority") + ["dispatch"] * (dispatch == "affinity")
    pools = draw(st.sampled_from(["single", "single", "by_exec_unit", "custom"]))
    roles += ["pool"] * (pools == "custom")
    workers = streams if dispatch == "one worker" else draw(st.integers(1, 5))
    return Settings(
        dispatch,
        workers,
        draw(st.sampled_from([0, 1, 2, 3, 5, 8192])),
        "dataflow",
        tuple(Key(role, role, KEY) for role in draw(st.permutations(roles))),
        bound=dispatch != "work_steal",
        unit=draw(st.sampled_from(["tasks", "tasks", "bytes"])),
        mode=draw(st.sampled_from([*[WindowMode.STALL] * 3, WindowMode.BENCHMARK, WindowMode.ABORT])),
        pools=pools,
        widths=draw(st.sampled_from([(workers, workers), (1, 2), (2, 3)])) if pools == "by_exec_unit" else (),
        ready=ready,
        start_at=draw(st.sampled_from([0, 0, 0, -1, 1, 2, 4])),
        gap=draw(st.integers(1, 12)) if timing == "gap" else 0,
        batch=draw(st.integers(1, 4)) if timing == "batch" else 0,
        streams=streams,
        together=min(together, streams),
        gen_cycles=draw(st.sampled_from([0, 0, 1, 7])),
    )


@settings(max_examples=600)
@given(trees(), schedules(), st.booleans(), st.sampled_from([1, 3, 1000]))
def test_engine_equals_the_rules(tree: Tree, schedule: Settings, explicit: bool, chunk: int) -> None:
    jobs = jobs_of(tree, schedule, explicit)
    widths = list(schedule.widths) or [schedule.workers] * max([1, *(job.pool + 1 for job in jobs)])
    oracle = Oracle(schedule, jobs, widths)
    try:
        expected = oracle.run()
    except Stuck:
        with pytest.raises((ScheduleError, Deadlock)):
            simulate(tree, schedule, explicit, chunk)
        return
    counters, found = simulate(tree, schedule, explicit, chunk)
    assert found == expected
    check_invariants(counters, found, jobs, widths, schedule)
    if not explicit and not schedule.streams and not schedule.find("cycles"):
        assert counters.critical_path_cycles == path(tree)


def check_invariants(counters: Counters, found: Play, jobs: list[Job], widths: list[int], schedule: Settings) -> None:
    """What every run keeps, whatever the schedule is."""
    ends = [s + job.cycles for s, job in zip(found.start, jobs, strict=True)]
    for k, job in enumerate(jobs):  # no task starts before all its edges are met; a stream is one of them
        assert found.start[k] >= max([0, *(ends[b] for b in job.before)])
        if found.cause[k] >= 0:
            assert ends[found.cause[k]] == found.start[k]
    if not jobs:
        return
    for w in range(sum(widths)):  # no worker overlaps itself
        spans = sorted((found.start[k], ends[k]) for k in range(len(ends)) if found.worker[k] == w)
        assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:], strict=False))
        assert counters.busy[w] == sum(e - s for s, e in spans)
        assert counters.tasks[w] == len(spans)
    if schedule.window and schedule.mode is not WindowMode.BENCHMARK:
        assert counters.most_in_window <= schedule.window
    longest: list[int] = []
    for job in jobs:
        longest.append(job.cycles + max([0, *(longest[b] for b in job.before)]))
    chain = counters.critical_path.tolist()
    assert counters.critical_path_cycles == max(longest) == sum(jobs[k].cycles for k in chain)
    assert counters.critical_path_tasks == len(chain)
    assert all(a in jobs[b].before or a in closure(jobs, b) for a, b in zip(chain, chain[1:], strict=False))
    work, total = counters.work_cycles, counters.total_cycles
    stalled = sum(cycles for _, cycles in found.stalls.values()) + schedule.gen_cycles * len(jobs)
    assert max(counters.critical_path_cycles, -(-work // sum(widths))) <= total <= work + stalled
    if sum(widths) == 1 and not stalled - found.stalls.get("busy", (0, 0))[1]:
        assert total == work


def closure(jobs: list[Job], k: int) -> set[int]:
    found, left = set[int](), [k]
    while left:
        for b in jobs[left.pop()].before - found:
            found.add(b)
            left.append(b)
    return found


@pytest.mark.parametrize("workers", [1, 3, 4])
@pytest.mark.parametrize("bound", [True, False])
def test_independent_tasks(workers: int, bound: bool) -> None:
    counters, _ = simulate(par(*[task(10)] * 13), schedule(workers, bound=bound))
    assert counters.total_cycles == -(-13 // workers) * 10


def test_a_late_task_does_not_hold_up_those_behind_it() -> None:
    """The in-order engine takes 50 for the same chains."""
    chains = par(*(seq(*(task(10, key) for _ in range(3))) for key in range(2)))
    counters, found = simulate(chains, schedule(2, roles=("dispatch",)))
    assert counters.total_cycles == 30
    assert found.wait == [Wait.NOTHING, Wait.DEPENDENCY, Wait.DEPENDENCY] * 2
    assert found.cause == [-1, 0, 1, -1, 3, 4]


def test_a_block_of_n_tasks_has_about_2_n_edges() -> None:
    n = 400
    engine = engine_on(seq(*(par(*[task(1)] * n) for _ in range(5))), schedule(4))
    assert engine.counters().total_cycles == 5 * n // 4
    assert engine._state[EDGES + TOP] // EDGE_SIZE <= 5 * 2 * n


class Checked(list[int]):
    """A list that, like machine code, has no elements before its first one."""

    def __getitem__(self, index: Any) -> Any:
        assert index >= 0
        return super().__getitem__(index)

    def __setitem__(self, index: Any, value: Any) -> None:
        assert index >= 0
        super().__setitem__(index, value)


def checked(count: int, final: bool, *rest: Any) -> int:
    lists = [Checked(value.tolist()) if isinstance(value, np.ndarray) else value for value in rest]
    outcome = clock.play(count, final, *lists)
    for value, written in zip(rest, lists, strict=True):
        if isinstance(value, np.ndarray):
            value[:] = written
    return outcome


RUNS = {"arrays": lambda: clock.play, "lists": lambda: clock.PLAY.plain, "compiled": clock.PLAY.compiled,
        "checked": lambda: checked}  # fmt: skip
MANY = (
    schedule(1),
    schedule(4, 3, bound=False),
    schedule(7, 64, roles=("dispatch",)),
    schedule(3, 1, roles=("dispatch",)),
    schedule(5, 40, bound=False, ready="work_steal", gen_cycles=3),
    schedule(2, 50, roles=("pool", "dispatch", "stream", "priority", "cycles"), pools="custom", streams=6, together=2,
             ready="priority"),
    schedule(3, 90, bound=False, unit="bytes", gap=3, pools="by_exec_unit", widths=(2, 5), start_at=2),
    schedule(3, 90, bound=False, batch=3, ready="work_steal", pools="custom", roles=("pool",)),
)  # fmt: skip


@pytest.mark.parametrize("run", RUNS)
def test_plain_and_compiled_agree(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    play = RUNS[run]()
    monkeypatch.setattr(clock.PLAY, "choose", lambda count: play)
    random = np.random.default_rng(7)

    def tree(depth: int) -> Tree:
        if depth == 0:
            return task(int(random.integers(0, 100)), int(random.integers(0, 2**63)))
        return (("par", "seq")[random.integers(2)], *(tree(depth - 1) for _ in range(random.integers(0, 5))))

    for schedule_ in MANY:
        root = par(*(tree(3) for _ in range(12)))
        jobs = jobs_of(root, schedule_, explicit=True)
        widths = list(schedule_.widths) or [schedule_.workers] * (1 + max(job.pool for job in jobs))
        expected = Oracle(schedule_, jobs, widths).run()
        assert simulate(root, schedule_, explicit=True, chunk=97)[1] == expected


def test_memory_is_bounded_by_the_window() -> None:
    engine = DataflowEngine(schedule(4, window=32, bound=False), CALLS)
    table = TaskTable.empty(1000, 0, 0)
    table.count = 1000
    table.kernel[:], table.cycles[:], table.leaf[:] = 0, 7, 0
    for _ in range(20):
        engine.play(table)
    assert engine.counters().total_cycles == 20_000 * 7 // 4
    assert len(engine._nodes) == 64 * NODE_SIZE


def test_the_tasks_of_a_long_chain_are_counted_but_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataflow, "CHAIN_LIMIT", 10)
    for n, known in ((10, list(range(10))), (11, [])):
        counters, _ = simulate(seq(*[task(3)] * n), schedule(2), chunk=4)
        assert counters.critical_path_tasks == n
        assert counters.critical_path.tolist() == known
