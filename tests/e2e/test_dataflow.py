"""Directives of the dataflow engine on whole programs: each changes the timeline of a witness, or is refused."""

from __future__ import annotations

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
    TaskGraphConfig,
    TaskWindow,
    Tile,
    kernel,
    pto,
    workload,
)
from pto_wsp.sim.inorder import Wait
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
    assert "deps      structural + explicit" in text
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
