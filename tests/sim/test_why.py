"""Single tasks: their edges against random workloads in plain Python, and what a report says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pto_wsp import Dense, Deps, DispatchPolicy, P, Schedule, TaskGraphConfig, TaskWindow, TimingPolicy, workload
from pto_wsp.errors import UsageError
from pto_wsp.sim.inorder import Wait
from tests.e2e.programs import task_of
from tests.sim.test_races import Program, forests

ten, thirty = task_of(10), task_of(30)


@settings(max_examples=40, deadline=None)
@given(forests, st.lists(st.integers(0, 7), min_size=2, max_size=4), st.booleans(), st.booleans())
def test_edges_are_all_that_is_needed(forest: Any, views: list[int], edges: bool, exact: bool) -> None:
    program = Program(forest, views, edges)
    deps = Deps.hybrid() if exact else Deps.hybrid(Deps.infer_bytes_overlap().mode)
    simulation = program.workload().compile().simulate(
        Schedule(DispatchPolicy.work_steal(3), task_graph=TaskGraphConfig(deps=deps))
    )
    program.walk()
    tasks = [simulation.task(n) for n in range(len(program.touched))]
    stated = [(e.task, t.task) for t in tasks for e in t.predecessors if e.kind != "inferred"]
    inferred = [(e.task, t.task) for t in tasks for e in t.predecessors if e.kind == "inferred"]
    assert sorted(stated + inferred) == sorted((t.task, e.task) for t in tasks for e in t.successors)
    conflicts = [(a, b) for a, b in program.conflicts() if not exact or program.identical(a, b)]
    assert set(inferred) <= set(conflicts)
    whole = program.closure(conflicts)
    program.before = []
    assert (program.closure(stated + inferred) == whole).all()
    assert all(t.end <= u.start for t in tasks for u in (tasks[e.task] for e in t.successors))
    assert all(t.slack == 0 for t in tasks if t.critical)


@workload
def rows_of_chains(rows: int, steps: int) -> None:
    for b in P(Dense[rows]()):
        for h in P.seq(Dense[steps]()):
            ten(b, h)


def test_a_report_says_why() -> None:
    program = rows_of_chains(2, 3).dispatch(DispatchPolicy.round_robin(2)).compile()
    task = program.task(4)
    assert (task.name, task.worker, task.start, task.end, task.wait, task.cause) == (
        "copy_row[1, 1]", 0, 30, 40, Wait.DEPENDENCY, 3
    )  # fmt: skip
    assert [(e.task, e.kind) for e in task.predecessors] == [(3, "structural")]
    assert [e.task for e in task.successors] == [5]
    assert task.critical and task.slack == 0 and task.cycles == 10 and task.line is not None
    text = repr(task)
    for words in ("task #4: copy_row[1, 1] (", "on worker 0, cycles 30 to 40 (10)", "waited for    DEPENDENCY",
                  "#3 copy_row[1, 0] ended at 30 on worker 1", "slack         none: on the critical path",
                  "reads x = f32[1, 5][0, 0:5]", "writes out = f32[1, 5][0, 0:5]"):  # fmt: skip
        assert words in text
    assert "idle for 10 cycles" in repr(program.task(2)) or "was busy" in repr(program.task(2))
    assert program.simulate().task(np.int64(-1)).task == 5


@workload
def tens(n: int) -> None:
    for i in P(n):
        ten(i)


@pytest.mark.parametrize(("schedule", "task", "wait", "cause"), [
    (Schedule(DispatchPolicy.round_robin(1)), 2, Wait.WORKER_BUSY, 1),
    (Schedule(DispatchPolicy.work_steal(1)), 2, Wait.WORKER_BUSY, 1),
    (Schedule(DispatchPolicy.round_robin(4), task_graph=TaskGraphConfig(window=TaskWindow(2))), 2, Wait.WINDOW_FULL, 0),
    (Schedule(DispatchPolicy.work_steal(4), task_graph=TaskGraphConfig(deps=Deps.explicit(), window=TaskWindow(2))), 2,
     Wait.WINDOW_FULL, 1),
    (Schedule(DispatchPolicy.work_steal(8), timing=TimingPolicy.rate_limit(370_000)), 3, Wait.RATE_LIMIT, 2),
    (Schedule(DispatchPolicy.work_steal(4), task_graph=TaskGraphConfig()), 0, Wait.NOTHING, None),
])  # fmt: skip
def test_causes(schedule: Schedule, task: int, wait: Wait, cause: int | None) -> None:
    report = tens(5).compile().simulate(schedule).task(task)
    assert (report.wait, report.cause) == (wait, cause)
    assert wait.name in repr(report)


def test_causes_end_when_the_task_starts() -> None:
    """In every schedule, a known cause explains the cycle; the critical path covers the run without a gap."""
    work = rows_of_chains(7, 3).compile()
    graph = TaskGraphConfig(deps=Deps.explicit(), window=TaskWindow(5))
    for schedule in (
        Schedule(DispatchPolicy.round_robin(3)),
        Schedule(DispatchPolicy.affinity(lambda t: t.get("b"), 3)),
        Schedule(DispatchPolicy.round_robin(3), task_graph=TaskGraphConfig(window=TaskWindow(2))),
        Schedule(DispatchPolicy.work_steal(3), task_graph=graph),
        Schedule(streams=3),
    ):
        timeline = work.simulate(schedule).timeline()
        assert all(s.wait is Wait.NOTHING or timeline[s.cause].end == s.start for s in timeline)
        path = timeline.critical_path
        assert timeline.start[path[0]] == 0 and timeline.end[path[-1]] == timeline.total_cycles
        assert (timeline.end[path[:-1]] == timeline.start[path[1:]]).all()


def test_a_task_that_is_not_there() -> None:
    program = tens(3).compile()
    for number in (3, -4, 10**9):
        with pytest.raises(UsageError, match="the run has 3 tasks; they are numbered 0 to 2"):
            program.task(number)
    for number in ("2", 1.0, True):  # type: ignore[assignment]
        with pytest.raises(UsageError, match="by its number, 0 to 2"):
            program.task(number)


@pytest.mark.parametrize("policy", [DispatchPolicy.round_robin(4), DispatchPolicy.work_steal(4)])
def test_counters_of_a_trace(policy: DispatchPolicy) -> None:
    """What a trace counts is what the stats say."""
    graph = TaskGraphConfig(deps=Deps.explicit(), window=TaskWindow(6))
    simulation = rows_of_chains(9, 3).compile().simulate(Schedule(policy, task_graph=graph))
    events = simulation.timeline().to_chrome_trace()["traceEvents"]
    counted = {e["name"]: 0 for e in events if e["ph"] == "C"}
    for event in events:
        if event["ph"] == "C":
            counted[event["name"]] = max(counted[event["name"]], *event["args"].values())
    stalls = {stall.reason: stall.high_water for stall in simulation.stalls}
    assert counted["tasks in the window"] == stalls["WINDOW_FULL"] == 6
    assert counted["workers that run a task"] <= 4 and counted["tasks ready"] <= 6
