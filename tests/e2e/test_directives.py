"""One witness per directive of the dataflow engine that needs more than a row of tasks, and what contradicts what."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pto_wsp import (
    CompileError,
    Deps,
    DispatchPolicy,
    DType,
    In,
    InOut,
    Out,
    P,
    Pools,
    ReadyPolicy,
    Schedule,
    ScheduleError,
    StartPolicy,
    TaskGraphConfig,
    TaskWindow,
    Tile,
    TimingPolicy,
    TracePolicy,
    kernel,
    pto,
    workload,
)
from pto_wsp.scalar_expr import symbol_u64
from pto_wsp.sim.inorder import Wait
from pto_wsp.sim.machine import A2A3
from tests.e2e.programs import run, task_of, tensor

ten, thirty = task_of(10), task_of(30)
F32 = DType.F32
STEAL = DispatchPolicy.work_steal
TWO = STEAL(2)


@kernel
def product(a: In[Tile[4, 4, F32]], b: In[Tile[4, 4, F32]], c: Out[Tile[4, 4, F32]]) -> None:
    pto.store(c, pto.matmul(a, b))


@workload
def tens(n: int) -> None:
    for i in P(n):
        ten(i)


@workload
def mixed(n: int) -> None:
    """n on the cube and n on the vector unit, side by side."""
    a, b, c = (tensor(np.zeros((4, 4), np.float32)) for _ in range(3))
    for i in P(n):
        product[i](a=a, b=b, c=c)
        ten(i)


def graph(policy: DispatchPolicy | None = TWO, **config: Any) -> Schedule:
    more = {name: config.pop(name) for name in ("streams", "stream_by", "timing", "machine") if name in config}
    return Schedule(policy, task_graph=TaskGraphConfig(deps=Deps.explicit(), **config), **more)


def starts(work: Any, schedule: Schedule) -> list[int]:
    return list(work.compile().simulate(schedule).timeline().start.tolist())


def workers(work: Any, schedule: Schedule) -> list[int]:
    return list(work.compile().simulate(schedule).timeline().worker.tolist())


def cost_of_product() -> int:
    return int(mixed(1).compile().simulate(Schedule(DispatchPolicy.round_robin(1))).total_cycles) - 10


# ---- pools


def test_pools_by_exec_unit() -> None:
    unit, cost = Pools.by_exec_unit(), cost_of_product()
    work = mixed(6).compile()
    simulation = work.simulate(graph(STEAL(2), pools=unit))
    assert [(pool.name, pool.workers, pool.tasks, pool.busy_cycles) for pool in simulation.pools] == [
        ("cube", 2, 6, 6 * cost), ("vector", 2, 6, 60)
    ]  # fmt: skip
    assert simulation.total_cycles == 3 * max(cost, 10) < work.simulate(graph(STEAL(2))).total_cycles
    assert simulation.timeline().worker.tolist() == [0, 2, 1, 3] * 3
    assert "pool cube" in repr(simulation) and "vector 1       3 tasks, 30 cycles" in repr(simulation)
    assert "vector 1" in str(simulation.timeline())
    bound = work.simulate(graph(DispatchPolicy.round_robin(3), pools=unit)).timeline()
    assert bound.worker.tolist() == [0, 3, 1, 4, 2, 5] * 2
    keyed = graph(DispatchPolicy.affinity(lambda t: t.get("b"), 2), pools=unit)
    assert work.simulate(keyed).timeline().worker.tolist() == [0, 2, 1, 3] * 3


def test_the_machine_gives_the_pools_its_cores() -> None:
    schedule = graph(STEAL(2), pools=Pools.by_exec_unit(), machine="a2a3", gen_cycles=0)
    simulation = mixed(60).compile().simulate(schedule)
    assert [(pool.name, pool.workers) for pool in simulation.pools] == [("cube", 24), ("vector", 48)]
    assert simulation.total_cycles == max(3 * cost_of_product(), 20)
    assert "24 cube, 48 vector workers" in str(simulation.schedule)


def test_custom_pools() -> None:
    by_number = Pools.custom(lambda t: t.params[0] % 3)
    simulation = tens(7).compile().simulate(graph(STEAL(2), pools=by_number))
    assert [(pool.name, pool.tasks) for pool in simulation.pools] == [("0", 3), ("1", 2), ("2", 2)]
    assert simulation.total_cycles == 20
    assert workers(tens(7), graph(STEAL(2), pools=by_number)) == [0, 2, 4, 1, 3, 5, 0]
    by_name = Pools.custom(lambda t: "odd" if t.params[0] % 2 else "even")
    simulation = tens(6).compile().simulate(graph(STEAL(1), pools=by_name))
    assert [(pool.name, pool.workers, pool.tasks) for pool in simulation.pools] == [("even", 1, 3), ("odd", 1, 3)]
    assert simulation.total_cycles == 30
    with pytest.raises(ScheduleError, match=r"#0 .*gives None; a name or a whole number"):
        starts(tens(2), graph(pools=Pools.custom(lambda t: [None][t.params[0]])))


# ---- ready queues


@workload
def fork_and_rest() -> None:
    """Tasks 1, 2, 3 wait for task 0; tasks 4 and 5 for nothing."""
    first = ten(0)
    for i in range(3):
        thirty.kernel[i + 1](**thirty.resources, after=[first])
    ten(4)
    ten(5)


def test_ready_work_steal() -> None:
    stealing = graph(STEAL(2), ready=ReadyPolicy.work_steal())
    simulation = fork_and_rest().dispatch(TWO).compile().simulate(stealing)
    timeline = simulation.timeline()
    # The sources 0, 4, 5 go round; worker 0 takes 5 before 0. What waited for task 0 is its own; worker 1 steals some.
    assert timeline.worker.tolist() == [0, 1, 0, 0, 1, 0]
    assert timeline.start.tolist() == [10, 20, 50, 20, 0, 0]
    assert starts(fork_and_rest().dispatch(TWO), graph()) == [0, 10, 20, 40, 0, 10]
    assert simulation.steals == 1
    assert "stolen" in repr(simulation)
    assert "work_steal: a worker takes the newest" in str(simulation.schedule)


def test_an_owner_takes_its_newest_and_a_thief_the_oldest() -> None:
    # Sources go round: worker 0 has tasks 0 and 2, worker 1 has 1 and 3, and takes them newest first.
    assert starts(tens(4), graph(STEAL(2), ready=ReadyPolicy.work_steal())) == [10, 10, 0, 0]
    lengths = TracePolicy.cycles(lambda t: (t.params[0] % 2).cast_bool().where(100, 10))
    simulation = tens(8).compile().simulate(graph(STEAL(2), ready=ReadyPolicy.work_steal(), trace=lengths))
    timeline = simulation.timeline()
    # Worker 0 is through its 6, 4, 2, 0 at cycle 40 and steals the oldest of 1, 3, 5.
    assert timeline.start.tolist() == [30, 40, 20, 140, 10, 100, 0, 0]
    assert timeline.worker.tolist() == [0, 0, 0, 0, 0, 1, 0, 1]
    assert simulation.steals == 2


def test_stealing_contradicts_binding() -> None:
    steal = {"ready": ReadyPolicy.work_steal()}
    for bad, words in (
        (graph(DispatchPolicy.round_robin(2), **steal), "round_robin binds.*work_steal"),
        (graph(None, streams=2, **steal), "streams.*binds"),
        (graph(streams=4, timing=TimingPolicy.interleaved(2), **steal), "interleaved"),
    ):
        with pytest.raises(ScheduleError, match=words):
            starts(tens(2), bad)
    assert starts(tens(2), graph(None, **steal)) == [10, 0]  # one worker, the newest first


# ---- streams in turn


def test_interleaved() -> None:
    by = {"streams": 4, "stream_by": lambda t: t.params[0] // 3}

    def order(k: int | None) -> list[int]:
        timing = None if k is None else TimingPolicy.interleaved(k)
        timeline = tens(12).compile().simulate(graph(STEAL(1), timing=timing, **by)).timeline()
        return [int(task) // 3 for task in np.argsort(timeline.start)]

    assert order(None) == [0, 1, 2, 3] * 3  # each stream's next task is ready when the one before it ends
    assert order(1) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert order(2) == [0, 1] * 3 + [2, 3] * 3
    assert order(3) == [0, 1, 2] * 3 + [3] * 3
    assert order(4) == order(9) == [0, 1, 2, 3] * 3
    with pytest.raises(ScheduleError, match=r"no streams.*Add streams\(n\)"):
        starts(tens(2), graph(timing=TimingPolicy.interleaved(2)))


def test_interleaved_among_priorities() -> None:
    schedule = graph(
        STEAL(1), streams=2, stream_by=lambda t: t.params[0] // 3, timing=TimingPolicy.interleaved(1),
        ready=ReadyPolicy.priority(lambda t: (t.params[0] == 3).where(0, 1)),
    )  # fmt: skip
    assert starts(tens(6), schedule) == [30, 40, 50, 0, 10, 20]


# ---- the orchestrator, and when workers start


def test_gen_cycles() -> None:
    assert starts(tens(4), graph(STEAL(9), gen_cycles=7)) == [7, 14, 21, 28]
    simulation = tens(4).compile().simulate(graph(STEAL(9), gen_cycles=7))
    assert [span.wait for span in simulation.timeline()] == [Wait.ORCHESTRATOR] * 4
    assert simulation.lower_bounds["orchestrator"] == 28
    # Generation waits for room in the window, and then takes its time.
    assert starts(tens(4), graph(STEAL(9), gen_cycles=7, window=TaskWindow(1))) == [7, 24, 41, 58]
    printed = str(tens(2).task_graph(gen_cycles=7).compile().schedule)
    assert "engine    dataflow" in printed and "7 cycles (gen_cycles)" in printed


def test_machine() -> None:
    work = tens(4)
    assert starts(work, Schedule(STEAL(9), machine="a2a3")) == [1610 * k for k in (1, 2, 3, 4)]
    fast = replace(A2A3, gen_cycles=3, clock_hz=1e9)
    assert starts(work, Schedule(STEAL(9), machine=fast)) == [3, 6, 9, 12]
    rate = TimingPolicy.rate_limit(200_000)  # a start every 5 cycles at 1 GHz
    assert starts(work, Schedule(STEAL(9), timing=rate, machine=fast)) == [3, 8, 13, 18]
    assert run(work.dispatch(STEAL(9)).machine(fast).compile()).total_cycles == 22
    with pytest.raises(ScheduleError, match="'a5'.*'a2a3'"):
        starts(work, Schedule(STEAL(9), machine="a5"))
    with pytest.raises(ScheduleError, match="machine"):
        Schedule(machine=7)


def test_start_policies_differ() -> None:
    def of(start: StartPolicy | None) -> list[int]:
        return starts(tens(4), graph(STEAL(9), gen_cycles=10, start=start))

    assert of(None) == of(StartPolicy.threshold(1)) == [10, 20, 30, 40]
    assert of(StartPolicy.threshold(2)) == [20, 20, 30, 40]
    assert of(StartPolicy.threshold(3)) == [30, 30, 30, 40]
    assert of(StartPolicy.threshold(9)) == of(StartPolicy.after_orchestration()) == [40] * 4
    stalls = {s.reason: s for s in tens(4).compile().simulate(
        graph(STEAL(9), gen_cycles=10, start=StartPolicy.threshold(3))).stalls}  # fmt: skip
    assert (stalls["START"].count, stalls["START"].cycles) == (2, 20 + 10)


# ---- keys


def every_key(i: Any) -> Schedule:
    """A schedule whose directives all ask for something of task number i(task)."""
    return graph(
        DispatchPolicy.affinity(lambda t: i(t) // 2, 2), streams=3, stream_by=lambda t: i(t) // 1,
        ready=ReadyPolicy.priority(lambda t: 0 - i(t)), trace=TracePolicy.cycles(lambda t: i(t) + 1),
        pools=Pools.custom(lambda t: i(t) % 2),
    )  # fmt: skip


def test_a_key_of_every_kind_at_once() -> None:
    simulation = tens(8).compile().simulate(every_key(lambda t: t.params[0]))
    timeline = simulation.timeline()
    assert (timeline.end - timeline.start).tolist() == list(range(1, 9))
    assert timeline.worker.tolist() == [i % 2 * 2 + i // 2 % 2 for i in range(8)]
    assert all(timeline.start[i] >= timeline.end[i - 3] for i in range(3, 8))
    lines = {line.split()[0]: line for line in str(simulation.schedule).splitlines()}
    for directive in ("dispatch", "streams", "ready", "trace", "pools"):
        assert "task_param(0)" in lines[directive]
    assert "slow" not in lines


NUMBERS = list(range(99))


def test_python_functions_as_keys() -> None:
    program = tens(8).compile()
    fast = program.simulate(every_key(lambda t: t.get("b")))
    asked: list[int] = []

    def look_up(task: Any) -> int:
        if isinstance(task.get("b"), int):  # else it is asked once, when the schedule is compiled
            asked.append(task.get("b"))
            assert (task.get("x", 5), task.params[0], task.params[99], task.tags["k"]) == (5, task.get("b"), 0, 0)
        return NUMBERS[task.get("b")]

    slow = program.simulate(every_key(look_up))
    assert sorted(asked) == sorted(5 * [*range(8)])
    found, expected = slow.timeline(), fast.timeline()
    for column in ("start", "end", "worker", "wait"):
        np.testing.assert_array_equal(getattr(found, column), getattr(expected, column))
    text = next(line for line in str(slow.schedule).splitlines() if line.startswith("slow"))
    for owner in ("DispatchPolicy.affinity", "stream_by", "ReadyPolicy.priority", "TracePolicy.cycles", "Pools.custom"):
        assert owner in text


def test_python_functions_in_the_inorder_engine() -> None:
    def odd_ones_last(task: Any) -> int:
        return 1 if task.get("b") % 2 else 0

    program = tens(5).dispatch(DispatchPolicy.affinity(odd_ones_last, 2)).compile()
    assert "in-order" in str(program.schedule) and "odd_ones_last(task)" in str(program.schedule)
    assert run(program).tasks_per_worker == (3, 2)
    assert program.timeline().worker.tolist() == [0, 1, 0, 1, 0]


def test_symbols_and_numpy_in_python_functions() -> None:
    table = np.array([2, 0, 1])
    program = tens(3).dispatch(DispatchPolicy.dispatch_by(lambda t: table[(t.get("b") + t.tags["s"]) % 3], 3)).compile()
    program.set_symbol_u64("s", 1)
    run(program)
    assert program.timeline().worker.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda t: [0, 1, 4][t.get("b")], r"#2 copy_row\[2\], gives 4; 0 to 3"),
        (lambda t: [0, -1][t.get("b")], r"#1 copy_row\[1\], gives -1; 0 to 3"),
        (lambda t: [0, 0.5][t.get("b")], "#1.*gives 0.5; a whole number"),
        (lambda t: [0, "w"][t.get("b")], "#1.*gives 'w'; a whole number"),
        (lambda t: [True][t.get("b")], "#0.*gives True; a whole number"),
        (lambda t: [0][t.get("b")], "#1.*failed: IndexError"),
    ],
)
def test_what_a_python_function_returns_is_checked(function: Any, words: str) -> None:
    program = tens(3).dispatch(DispatchPolicy.dispatch_by(function, 4)).compile()
    with pytest.raises(ScheduleError, match=words):
        run(program)
    with pytest.raises(ScheduleError, match=words):
        program.simulate()


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda t: t.batch, "no attribute 'batch'"),
        (lambda t: 1.5, "1.5"),
        (lambda t: None, "None"),
        (lambda t: unknown, "unknown"),  # type: ignore[name-defined]
        (lambda a, b: 0, "one argument, the task"),
        (lambda t: t.params[-1], "counts from 0"),
    ],
)
def test_a_function_that_can_never_work_is_refused_at_once(function: Any, words: str) -> None:
    with pytest.raises(CompileError, match=words) as caught:
        tens(3).dispatch(DispatchPolicy.affinity(function, 4)).compile()
    assert isinstance(caught.value, ScheduleError)


def test_a_dict_needs_the_value() -> None:
    where = {0: 2, 1: 1}
    assert workers(tens(3), graph(DispatchPolicy.affinity(lambda t: where.get(t.get("b"), 0), 3))) == [2, 1, 0]


def test_unsigned_keys() -> None:
    large = symbol_u64("none") - 1
    by = ReadyPolicy.priority(lambda t: t.params[0].cast_u64() * large)  # 0, then 2^64 - 1, 2^64 - 2, ...
    assert starts(tens(4), graph(STEAL(1), ready=by)) == [0, 30, 20, 10]


# ---- results


@kernel
def accumulate(x: In[Tile[2, 8, F32]], total: InOut[Tile[2, 8, F32]]) -> None:
    pto.store(total, total * 0.5 + x)


SCHEDULES = [
    graph(STEAL(3), ready=ReadyPolicy.work_steal(), window=TaskWindow(5)),
    graph(DispatchPolicy.round_robin(3), pools=Pools.by_exec_unit(), machine="a2a3"),
    graph(STEAL(2), streams=3, timing=TimingPolicy.interleaved(2), ready=ReadyPolicy.priority(lambda t: -t.get("h"))),
    graph(STEAL(2), timing=TimingPolicy.batched(3), start=StartPolicy.threshold(4), gen_cycles=9),
    graph(DispatchPolicy.affinity(lambda t: NUMBERS[t.get("b")], 2), pools=Pools.custom(lambda t: str(t.get("h")))),
    every_key(lambda t: t.get("b")),
]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("threads", [1, 2])
def test_results_are_the_same_under_every_schedule(schedule: Schedule, threads: int) -> None:
    def outcome(schedule: Schedule | None) -> tuple[np.ndarray[Any, Any], int]:
        x = tensor(np.random.default_rng(3).standard_normal((12, 8)).astype(np.float32))
        total = tensor(np.ones((8, 8), np.float32))

        @workload
        def sums() -> None:
            for b in P(4):
                for h in P.seq(6):
                    accumulate[b, h](x=x[2 * h : 2 * h + 2], total=total[2 * b : 2 * b + 2])

        work = sums()
        if schedule is not None:
            work = work._with("dispatch", schedule=schedule)
        return total.data, run(work, threads=threads).total_cycles

    expected, _ = outcome(None)
    found, cycles = outcome(schedule)
    np.testing.assert_array_equal(found, expected)
    assert cycles == outcome(schedule)[1]
