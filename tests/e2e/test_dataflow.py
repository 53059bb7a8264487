"""Directives of the dataflow engine on whole programs: each changes the timeline of a witness, or is refused."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

from pto_wsp import (
    Dense,
    Deps,
    DepsMode,
    DispatchPolicy,
    DType,
    In,
    InOut,
    Out,
    P,
    ReadyPolicy,
    Schedule,
    ScheduleError,
    StartPolicy,
    TaskGraphConfig,
    TaskWindow,
    Tensor,
    Tile,
    TimingPolicy,
    TracePolicy,
    WindowMode,
    kernel,
    pto,
    workload,
)
from pto_wsp.errors import Deadlock, ExecutionError, RaceError, WindowOverflow
from pto_wsp.sim.inorder import Wait
from pto_wsp.sim.settings import settle
from tests.e2e.programs import run, task_of, tensor

ten, thirty = task_of(10), task_of(30)
EXPLICIT = TaskGraphConfig(deps=Deps.explicit())


@workload
def rows_of_chains(rows: int, steps: int) -> None:
    for b in P(Dense[rows]()):
        for h in P.seq(Dense[steps]()):
            ten(b, h)


@workload
def unequal() -> None:
    for i in P(4):
        thirty(i)
        ten(i)


def cycles(work: Any, schedule: Schedule) -> int:
    return int(work.compile().simulate(schedule=schedule).total_cycles)


def test_deps_choose_the_dataflow_engine() -> None:
    policy = DispatchPolicy.affinity(lambda t: t.get("b"), 2)
    assert cycles(rows_of_chains(2, 3), Schedule(policy)) == 50
    assert cycles(rows_of_chains(2, 3), Schedule(policy, task_graph=EXPLICIT)) == 30
    program = rows_of_chains(2, 3).dispatch(policy).task_graph(deps=Deps.explicit()).compile()
    assert run(program).total_cycles == 30
    text = str(program.schedule)
    assert "engine    dataflow" in text
    assert "deps      structural (slots too) + explicit" in text
    assert "8192 tasks, STALL: generation waits" in text


def test_work_steal_takes_any_free_worker() -> None:
    assert cycles(unequal(), Schedule(DispatchPolicy.round_robin(2), task_graph=EXPLICIT)) == 120
    assert cycles(unequal(), Schedule(DispatchPolicy.work_steal(2))) == 80
    assert cycles(unequal(), Schedule(DispatchPolicy.work_steal())) == 160


def test_window() -> None:
    def of(size: int) -> int:
        config = TaskGraphConfig(deps=Deps.explicit(), window=TaskWindow(size))
        return cycles(unequal(), Schedule(DispatchPolicy.work_steal(2), task_graph=config))

    assert (of(1), of(2), of(8192)) == (160, 80, 80)


def test_explicit_edges() -> None:
    @workload
    def chain() -> None:
        for i in P(3):
            first = ten(i)
            second = ten.kernel[i](**ten.resources, after=[first])
            ten.kernel[i](**ten.resources, after=[second, first])

    program = chain().dispatch(DispatchPolicy.work_steal(9)).compile()
    assert run(program).total_cycles == 30
    assert program.simulate(Schedule(DispatchPolicy.round_robin(9), task_graph=EXPLICIT)).total_cycles == 30
    assert program.simulate(Schedule(DispatchPolicy.work_steal(2))).total_cycles == 50
    for refused in (lambda: program.simulate(Schedule(DispatchPolicy.round_robin(9))), chain().compile):
        with pytest.raises(ScheduleError, match=r"in-order(.|\n)*Deps.explicit"):
            refused()


@pytest.mark.parametrize("nested", [False, True])
def test_a_call_of_the_branch_that_was_not_taken_is_waited_for_by_nobody(nested: bool) -> None:
    x = np.zeros((20, 10), np.float32)
    X = Tensor(x, x.shape, DType.F32)

    @kernel
    def add(x: InOut[Tile[1, 10, DType.F32]]):
        pto.store(x, x + 1.0)

    @workload
    def some() -> None:
        for i in P(4):
            with P.when(i % 2 == 0):
                with P.when(i >= 0) if nested else nullcontext():
                    made = add[i](x=X[i])
            with P.otherwise():
                other = add[i](x=X[i])
            add[i](x=X[10 + i], after=[made])
            add[i](x=X[i], after=[other])

    program = some().dispatch(DispatchPolicy.work_steal(16)).task_graph(deps=Deps.explicit()).compile()
    edges = [[edge.task for edge in program.task(n).predecessors] for n in range(12)]
    assert edges == [[], [0], [], [], [], [3], [], [6], [], [], [], [9]]
    with pytest.raises(RaceError, match=r"some|add") as caught:  # in even rounds nothing orders the last task
        program.check_races()
    assert caught.value.tasks == (0, 2)


def test_an_edge_from_a_loop_that_has_ended_is_refused() -> None:
    @workload
    def gather() -> None:
        for i in P(3):
            made = ten(i)
        ten.kernel[0](**ten.resources, after=[made])

    with pytest.raises(ScheduleError, match="loop b, which has ended"):
        gather().dispatch(DispatchPolicy.work_steal(2)).compile()


def test_timeline_says_why_each_task_started() -> None:
    simulation = rows_of_chains(2, 3).compile().simulate(schedule=Schedule(DispatchPolicy.work_steal(1)))
    timeline = simulation.timeline()
    assert timeline.total_cycles == simulation.total_cycles == 60
    assert [span.wait for span in timeline] == [
        Wait.NOTHING, Wait.WORKER_BUSY, Wait.WORKER_BUSY, Wait.WORKER_BUSY, Wait.WORKER_BUSY, Wait.WORKER_BUSY,
    ]  # fmt: skip
    assert [span.start for span in timeline] == [0, 20, 40, 10, 30, 50]
    assert "WORKER_BUSY" in repr(simulation)
    assert (timeline.idle == 0).all()


def test_more_tasks_than_a_chunk() -> None:
    n = 200_000
    simulation = rows_of_chains(n // 4, 4).compile().simulate(schedule=Schedule(DispatchPolicy.work_steal(8)))
    assert simulation.total_cycles == n // 8 * 10
    assert simulation.tasks_per_worker == (n // 8,) * 8
    stalls = {stall.reason: stall for stall in simulation.stalls}
    assert stalls["WINDOW_FULL"].high_water == 8192
    timeline = simulation.timeline()
    assert len(timeline) == n
    np.testing.assert_array_equal(timeline.end - timeline.start, 10)


def test_the_defaults_may_be_given() -> None:
    config = {"deps": Deps.explicit(), "ready": ReadyPolicy.fifo()}
    assert run(unequal().dispatch(DispatchPolicy.work_steal(3)).task_graph(**config)).task_count == 8


# ---- inferred edges


@kernel
def copy(x: In[Tile[2, 8, DType.F32]], out: Out[Tile[2, 8, DType.F32]]) -> None:
    pto.store(out, x)


@kernel
def copy_part(x: In[Tile[2, 4, DType.F32]], out: Out[Tile[2, 4, DType.F32]]) -> None:
    pto.store(out, x)


@kernel
def add_to(x: In[Tile[2, 8, DType.F32]], out: InOut[Tile[2, 8, DType.F32]]) -> None:
    pto.store(out, out + x)


def free_workers(deps: Deps) -> Schedule:
    return Schedule(DispatchPolicy.work_steal(64), task_graph=TaskGraphConfig(deps=deps))


INFERRED = Deps.infer_tensor_map_exact(), Deps.infer_bytes_overlap(), Deps.hybrid()


def test_read_after_write() -> None:
    data, made = tensor(np.zeros((8, 8), np.float32)), tensor(np.zeros((8, 8), np.float32))
    last = tensor(np.zeros((8, 8), np.float32))

    @workload
    def two_steps() -> None:
        for i in P(4):
            copy[i](x=data[2 * i : 2 * i + 2], out=made[2 * i : 2 * i + 2])
        for i in P(4):
            copy[i](x=made[2 * i : 2 * i + 2], out=last[2 * i : 2 * i + 2])

    program = two_steps().compile()
    one = program.simulate(free_workers(Deps.explicit())).total_cycles
    for deps in INFERRED:
        simulation = program.simulate(free_workers(deps))
        assert (simulation.total_cycles, simulation.critical_path_cycles) == (2 * one, 2 * one)
        assert [span.wait for span in simulation.timeline()][4:] == [Wait.DEPENDENCY] * 4
    assert program.simulate(Schedule(DispatchPolicy.round_robin(64))).total_cycles == one


def test_accumulation_and_write_after_read() -> None:
    data, sums = tensor(np.ones((8, 8), np.float32)), tensor(np.zeros((8, 8), np.float32))

    @workload
    def accumulate() -> None:
        for i in P(4):
            for k in P(3):
                add_to[i, k](x=data[2 * k : 2 * k + 2], out=sums[2 * i : 2 * i + 2])
        for k in P(3):
            copy[k](x=sums[0:2], out=data[2 * k : 2 * k + 2])

    program = accumulate().compile()
    cost = int(program.simulate(Schedule(DispatchPolicy.round_robin(1))).total_cycles)
    step = program.simulate(free_workers(Deps.explicit())).total_cycles
    for deps in INFERRED:
        timeline = program.simulate(free_workers(deps)).timeline()
        assert timeline.start.tolist()[:12] == [0, step, 2 * step] * 4
        assert timeline.start.tolist()[12:] == [3 * step] * 3  # after the sums, and after all readers of their own tile
    assert run(accumulate().task_graph(deps=Deps.hybrid())).total_cycles == cost


def test_overlap_that_exact_matching_cannot_see() -> None:
    data, made = tensor(np.zeros((8, 8), np.float32)), tensor(np.zeros((8, 8), np.float32))

    @workload
    def halves() -> None:
        for j in P(2):
            copy_part[j](x=data[0:2, 4 * j : 4 * j + 4], out=made[0:2, 4 * j : 4 * j + 4])
        copy[0](x=made[0:2], out=data[2:4])

    program = halves().compile()
    exact, overlap = (program.simulate(free_workers(deps)) for deps in INFERRED[:2])
    assert exact.unseen_overlaps == 2
    assert "2 pairs of tasks" in repr(exact)
    assert overlap.unseen_overlaps == 0
    assert overlap.timeline().start.tolist()[2] > 0 == exact.timeline().start.tolist()[2]
    hybrid = program.simulate(free_workers(Deps.hybrid(DepsMode.INFER_BYTES_OVERLAP)))
    assert hybrid.total_cycles == overlap.total_cycles


def test_a_task_graph_infers_by_default() -> None:
    @workload
    def same_tile() -> None:
        for i in P(5):
            ten(i)

    graph = TaskGraphConfig(ready=ReadyPolicy.fifo())
    program = same_tile().compile()
    assert program.simulate(Schedule(DispatchPolicy.work_steal(8))).total_cycles == 10
    assert program.simulate(Schedule(DispatchPolicy.work_steal(8), task_graph=graph)).total_cycles == 50
    printed = str(same_tile().task_graph(ready=ReadyPolicy.fifo()).compile().schedule)
    assert "inferred (infer_tensor_map_exact)" in printed


def test_explicit_edges_need_deps_that_count_them() -> None:
    @workload
    def pair() -> None:
        first = ten(0)
        ten.kernel[1](**ten.resources, after=[first])

    with pytest.raises(ScheduleError, match="hybrid"):
        pair().task_graph(deps=Deps.infer_bytes_overlap()).compile()
    assert run(pair().dispatch(DispatchPolicy.work_steal(2)).task_graph(deps=Deps.hybrid())).total_cycles == 20


# ---- one witness per directive: dropping it changes the number


def graph(**config: Any) -> Schedule:
    return Schedule(DispatchPolicy.work_steal(2), task_graph=TaskGraphConfig(deps=Deps.explicit(), **config))


@workload
def tens(n: int) -> None:
    for i in P(n):
        ten(i)


def test_window_abort() -> None:
    config = {"window": TaskWindow(4, mode=WindowMode.ABORT)}
    assert cycles(tens(4), graph(**config)) == 20
    with pytest.raises(WindowOverflow, match="#4.*4 tasks hold 4"):
        cycles(tens(5), graph(**config))
    with pytest.raises(WindowOverflow):
        run(tens(5).task_graph(deps=Deps.explicit(), **config))


def test_window_benchmark() -> None:
    simulation = tens(7).compile().simulate(graph(window=TaskWindow(1, mode=WindowMode.BENCHMARK)))
    assert simulation.total_cycles == 40
    full = next(stall for stall in simulation.stalls if stall.reason == "WINDOW_FULL")
    assert (full.count, full.cycles, full.high_water) == (6, 0, 7)


def test_window_units() -> None:
    def of(unit: str, size: int) -> int:
        return cycles(tens(6), graph(window=TaskWindow(size, unit)))

    assert (of("tasks", 2), of("tasks", 1)) == (30, 60)
    assert (of("entries", 4), of("entries", 3)) == (30, 60)  # two tiles each
    assert (of("bytes", 40), of("bytes", 39)) == (30, 60)  # each writes 5 floats
    with pytest.raises(ScheduleError, match="#0 needs 20 bytes"):
        of("bytes", 19)


def test_a_window_alone_leaves_the_engine_in_order() -> None:
    def of(n: int, size: int, unit: str = "tasks", mode: WindowMode = WindowMode.STALL) -> int:
        config = TaskGraphConfig(window=TaskWindow(size, unit, mode))
        simulation = tens(n).compile().simulate(Schedule(DispatchPolicy.round_robin(2), task_graph=config))
        assert str(simulation.schedule).startswith("engine    in-order")
        return simulation.total_cycles

    assert (of(6, 4, "entries"), of(6, 3, "entries")) == (30, 60)
    assert (of(6, 40, "bytes"), of(6, 39, "bytes")) == (30, 60)
    with pytest.raises(ScheduleError, match="#0 needs 20 bytes"):
        of(6, 19, "bytes")
    assert (of(4, 4, mode=WindowMode.ABORT), of(7, 1, mode=WindowMode.BENCHMARK)) == (20, 40)
    with pytest.raises(WindowOverflow, match="#4 needs 1 of a window of 4 tasks.*4 tasks .* hold 4"):
        of(5, 4, mode=WindowMode.ABORT)


@workload
def chain_and_rest() -> None:
    for _ in P.seq(3):
        ten(0)
    for i in P(3):
        ten(i)


def test_start_threshold() -> None:
    work = chain_and_rest()
    assert cycles(work, graph(start=StartPolicy.threshold(3))) == 40
    full = graph(start=StartPolicy.threshold(3), window=TaskWindow(2))
    with pytest.raises(Deadlock, match="3 ready tasks.*window"):
        cycles(work, full)
    late = graph(start=StartPolicy.threshold(3), window=TaskWindow(5))
    assert work.compile().simulate(late).timeline().start.tolist()[0] == 0


def test_start_after_orchestration() -> None:
    config = {"start": StartPolicy.after_orchestration(), "window": TaskWindow(5)}
    assert cycles(tens(5), graph(**config)) == 30
    with pytest.raises(ScheduleError, match="all 6 tasks.*window of 5"):
        cycles(tens(6), graph(**config))
    with pytest.raises(ScheduleError, match="all 100,000 tasks"):
        cycles(tens(100_000), graph(**config))


def test_ready_priority() -> None:
    by_param = ReadyPolicy.priority(lambda t: 0 - t.params[0])
    schedule = Schedule(DispatchPolicy.work_steal(1), task_graph=TaskGraphConfig(deps=Deps.explicit(), ready=by_param))
    assert tens(4).compile().simulate(schedule).timeline().start.tolist() == [30, 20, 10, 0]


def test_streams() -> None:
    policy = DispatchPolicy.work_steal(4)
    assert cycles(tens(8), Schedule(policy)) == 20
    assert cycles(tens(8), Schedule(policy, streams=2)) == 40
    assert cycles(tens(8), Schedule(streams=2)) == 40
    assert cycles(tens(8), Schedule(streams=8)) == 10


def test_stream_by() -> None:
    by = {"streams": 4, "stream_by": lambda t: t.params[0] // 4}
    assert cycles(tens(8), Schedule(**by)) == 40
    assert cycles(tens(8), Schedule(DispatchPolicy.work_steal(8), **by)) == 40
    spans = tens(8).compile().simulate(Schedule(**by)).timeline()
    assert spans.worker.tolist() == [0] * 4 + [1] * 4


def test_batched() -> None:
    work = chain_and_rest()
    free = Schedule(DispatchPolicy.work_steal(9))
    assert work.compile().simulate(free).timeline().start.tolist() == [0, 10, 20, 0, 0, 0]
    window = TaskGraphConfig(deps=Deps.explicit(), window=TaskWindow(4))
    held = Schedule(DispatchPolicy.work_steal(9), timing=TimingPolicy.batched(2), task_graph=window)
    assert work.compile().simulate(held).timeline().start.tolist() == [0, 10, 20, 0, 10, 10]
    stuck = Schedule(DispatchPolicy.work_steal(9), timing=TimingPolicy.batched(3), task_graph=window)
    with pytest.raises(Deadlock, match="batch of 3"):
        work.compile().simulate(stuck)


def test_rate_limit() -> None:
    rate = TimingPolicy.rate_limit(370_000)  # at 1.85 GHz a start every 5 cycles
    simulation = tens(5).compile().simulate(Schedule(DispatchPolicy.work_steal(4), timing=rate))
    assert simulation.timeline().start.tolist() == [0, 5, 10, 15, 20]
    assert [span.wait for span in simulation.timeline()] == [Wait.NOTHING] + [Wait.RATE_LIMIT] * 4
    stalls = {stall.reason: stall for stall in simulation.stalls}
    assert (stalls["RATE_LIMIT"].count, stalls["RATE_LIMIT"].cycles) == (4, 5 + 10 + 15 + 20)
    slow = tens(5).compile().simulate(Schedule(DispatchPolicy.round_robin(1), timing=rate))
    assert slow.timeline().start.tolist() == [0, 10, 20, 30, 40]


def test_trace_cycles() -> None:
    trace = TracePolicy.cycles(lambda t: t.params[0] * 3)
    assert cycles(tens(4), graph(trace=trace)) == 3 + 9
    assert cycles(tens(4), graph(trace=TracePolicy.cycles())) == 20
    with pytest.raises(ScheduleError, match="#1.* -1 cycles"):
        cycles(tens(4), graph(trace=TracePolicy.cycles(lambda t: 0 - t.params[0])))


def test_every_setting_is_printed() -> None:
    schedule = Schedule(
        streams=3, timing=TimingPolicy.batched(2),
        task_graph=TaskGraphConfig(window=TaskWindow(9, "bytes", WindowMode.BENCHMARK), start=StartPolicy.threshold(2)),
    )  # fmt: skip
    printed = str(settle(schedule))
    for words in ("stream s runs on worker s", "9 bytes, BENCHMARK", "when 2 tasks", "3 in-order", "groups of 2"):
        assert words in printed


@pytest.mark.parametrize(
    "schedule, words",
    [
        (Schedule(DispatchPolicy.work_steal(2), streams=2**40), "streams; at most 1,048,576"),
        (Schedule(timing=TimingPolicy.rate_limit(1e-300)), "cycles from one start to the next"),
    ],
)
def test_amounts_that_no_clock_can_hold(schedule: Schedule, words: str) -> None:
    with pytest.raises(ScheduleError, match=words):
        unequal().compile().simulate(schedule=schedule)


def test_the_last_cycle_that_the_clock_knows() -> None:
    def of(cost: int) -> int:
        config = TaskGraphConfig(trace=TracePolicy.cycles(lambda t: cost))
        return cycles(rows_of_chains(1, 1), Schedule(task_graph=config))

    assert of(2**63 - 2) == 2**63 - 2
    with pytest.raises(ExecutionError, match="the clock counts to"):
        of(2**63 - 1)
