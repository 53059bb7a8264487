"""Sweeps, snapshots as text, other cycles: the same numbers whoever simulates, and wherever."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import pickle
import random
import signal
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pto_wsp
from pto_wsp import (
    DenseDyn,
    Deps,
    DispatchPolicy,
    DType,
    In,
    InOut,
    Out,
    P,
    Pools,
    Ragged,
    ReadyPolicy,
    Scalar,
    Schedule,
    ScheduleError,
    Snapshot,
    Sparse,
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
    schedule_grid,
    slot_load_u64,
    sweep,
    workload,
)
from pto_wsp.errors import ExecutionError, IRConversionError, UsageError
from pto_wsp.scalar_expr import axis, slot_i64, slot_u64, symbol_u64
from pto_wsp.sim import sweep as sweeps
from pto_wsp.sim.schedule_text import parse_schedule, print_schedule
from pto_wsp.sim.sweep import SweepInterrupted
from pto_wsp.trace.text import GraphTextError
from tests.e2e import test_random_dynamic as dynamic
from tests.e2e.test_random_workloads import STATES, WIDTHS, scheduled

F32, I64 = DType.F32, DType.I64


@kernel
def scale(x: In[Tile[8, 16, F32]], out: Out[Tile[8, 16, F32]]):
    pto.store(out, x * 2)


@kernel
def add(x: In[Tile[8, 16, F32]], total: InOut[Tile[8, 16, F32]], by: Scalar[F32] = 1.0):
    pto.store(total, total + x * by)


def ragged_program(**options: Any) -> Any:
    """Rows of different lengths, added up one after the other; partial tiles at the end."""
    x, total = (Tensor(np.ones((6, 9, 60), np.float32), (6, 9, 60), F32) for _ in range(2))
    lengths = Ragged(6, [3, 1, 7, 0, 9, 2])

    @workload
    def sums():
        for b in P(6):
            for j in P.seq(lengths[b], name="j"):
                add[b, j](x=x[b, 0:8, j * 7 : j * 7 + 16], total=total[b, 0:8, j * 7 : j * 7 + 16])

    return sums().dispatch(DispatchPolicy.round_robin(2)).compile(**options)


SCHEDULES = [
    Schedule(),
    Schedule(DispatchPolicy.round_robin(3), TaskWindow(2)),
    Schedule(DispatchPolicy.affinity(lambda t: t.get("b"), 4)),
    Schedule(DispatchPolicy.hash(axis("b") * 7 + 1, 3)),
    Schedule(DispatchPolicy.dispatch_by(lambda t: t.params[1] % 3, 3)),
    Schedule(DispatchPolicy.work_steal(3)),
    Schedule(DispatchPolicy.round_robin(2), streams=3, stream_by=axis("b")),
    Schedule(streams=2, timing=TimingPolicy.interleaved(2), stream_by=lambda t: t.get("b") >> 1),
    Schedule(DispatchPolicy.work_steal(2), timing=TimingPolicy.rate_limit(1e4)),
    Schedule(DispatchPolicy.work_steal(2), timing=TimingPolicy.batched(4)),
    Schedule(DispatchPolicy.work_steal(4), task_graph=TaskGraphConfig(
        deps=Deps.hybrid(Deps.infer_bytes_overlap().mode, False),
        window=TaskWindow(4096, "bytes", WindowMode.BENCHMARK),
        ready=ReadyPolicy.priority(lambda t: 0 - t.get("j")), start=StartPolicy.threshold(2))),
    Schedule(DispatchPolicy.work_steal(4), task_graph=TaskGraphConfig(
        deps=Deps.infer_tensor_map_exact(), trace=TracePolicy.cycles(lambda t: 5 + t.get("b")), gen_cycles=3)),
    Schedule(DispatchPolicy.work_steal(1), task_graph=TaskGraphConfig(
        deps=Deps.explicit(), pools=Pools.custom(lambda t: t.get("b") % 2), start=StartPolicy.after_orchestration())),
    Schedule(DispatchPolicy.work_steal(2), task_graph=TaskGraphConfig(ready=ReadyPolicy.work_steal()), machine="a2a3"),
]  # fmt: skip


def numbers(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records without their wall times."""
    return [{k: v for k, v in record.items() if k != "simulate_ms"} for record in records]


# ---- the same numbers everywhere -----------------------------------------------------------------------------------


def test_a_sweep_is_simulate_one_by_one_is_compile() -> None:
    program = ragged_program()
    records = sweep(program, SCHEDULES)
    assert [r["error"] for r in records] == [None] * len(SCHEDULES)
    for schedule, record in zip(SCHEDULES, records, strict=True):
        found = program.simulate(schedule)
        x = program.workload
        for name, value in schedule.to_dict().items():
            x = x._with("test", schedule=x.schedule.with_(**{name: value}))
        compiled = x._with("test", schedule=schedule).compile()
        compiled.execute()
        compiled.synchronize()
        for stats in (found, compiled.stats):
            assert record["makespan"] == stats.total_cycles > 0
            assert record["tasks"] == stats.task_count == 22
            assert record["utilisation"] == stats.utilisation
            assert record["critical_path"] == stats.critical_path_cycles
            assert record["lower_bound"] == max(stats.lower_bounds.values()) <= record["makespan"]
            for stall in stats.stalls:
                assert record[f"{stall.reason.lower()}_cycles"] == stall.cycles
                assert record[f"{stall.reason.lower()}_stalls"] == stall.count
        assert (record["engine"], record["window"]) == (found.schedule.engine, found.schedule.window)


def test_simulating_touches_no_array() -> None:
    x = np.ones((6, 9, 60), np.float32)
    total = np.zeros((6, 8, 16), np.float32)
    x.flags.writeable = False
    X, T = Tensor(x, x.shape, F32), Tensor(total, total.shape, F32)

    @workload
    def w():
        for b in P(6):
            add[b](x=X[b, 0:8, 0:16], total=T[b])

    program = w().compile()
    sweep(program, SCHEDULES)
    program.timeline()
    assert not total.any() and (x == 1).all()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_give_the_same(method: str) -> None:
    program = ragged_program()
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
        records = sweep(program, SCHEDULES, executor=pool)
    assert numbers(records) == numbers(sweep(program, SCHEDULES))


def test_threads_give_the_same() -> None:
    program = ragged_program()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        records = sweep(program, SCHEDULES * 3, executor=pool)
    assert numbers(records) == numbers(sweep(program, SCHEDULES * 3))


def test_a_dask_cluster_gives_the_same(tmp_path: Any, monkeypatch: Any) -> None:
    distributed = pytest.importorskip("distributed")
    pandas = pytest.importorskip("pandas")
    program = ragged_program()
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "local_directory": str(tmp_path)}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        records = sweep(program, SCHEDULES, executor=client.get_executor())
    assert numbers(records) == numbers(sweep(program, SCHEDULES))
    frame = pandas.DataFrame(records)
    assert frame["makespan"].dtype == np.int64 and frame.sort_values("makespan").iloc[0]["makespan"] > 0


def test_what_travels_is_text() -> None:
    """No object of ours is pickled, only texts and numbers."""

    class Spy(concurrent.futures.Executor):
        def submit(self, fn: Any, /, *args: Any) -> Any:
            plain = pickle.loads(pickle.dumps(args))
            assert plain == args and isinstance(args[0], str)
            assert all(type(x) is str for job in args[1] for x in job)
            future: concurrent.futures.Future[Any] = concurrent.futures.Future()
            future.set_result(pickle.loads(pickle.dumps(fn(*plain))))
            return future

    program = ragged_program()
    assert numbers(sweep(program, SCHEDULES, executor=Spy())) == numbers(sweep(program, SCHEDULES))


# ---- what goes wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("executor", [None, concurrent.futures.ThreadPoolExecutor(2)])
def test_a_bad_schedule_costs_its_own_record(executor: Any) -> None:
    program = ragged_program()
    bad = Schedule(DispatchPolicy.work_steal(2), task_graph=TaskGraphConfig(
        window=TaskWindow(4), start=StartPolicy.after_orchestration()))  # fmt: skip
    with pytest.warns(UserWarning, match="1 of 3 schedules could not be simulated.* First: bad: ScheduleError"):
        records = sweep(program, {"a": SCHEDULES[1], "bad": bad, "c": SCHEDULES[2]}, executor=executor)
    assert [r["schedule"] for r in records] == ["a", "bad", "c"]
    assert records[1]["error"].startswith("ScheduleError") and records[1]["makespan"] is None
    assert records[1]["directives"] == "dispatch=work_steal(2) window=4 start=after_orchestration"
    assert [list(r) for r in records] == [list(records[0])] * 3
    assert records[0]["makespan"] and records[2]["makespan"]


def test_python_keys_work_here_and_are_named_elsewhere() -> None:
    program = ragged_program()
    table = [1, 0, 1, 0, 1, 1]
    schedules = [Schedule(DispatchPolicy.affinity(lambda t: table[t.get("b")], 2)), SCHEDULES[1]]
    here = sweep(program, schedules)
    assert here[0]["makespan"] == program.simulate(schedules[0]).total_cycles
    with concurrent.futures.ThreadPoolExecutor(1) as pool, pytest.warns(UserWarning, match="1 of 2"):
        there = sweep(program, schedules, executor=pool)
    assert "test_sweep.py" in there[0]["error"] and "expression of the task" in there[0]["error"]
    assert numbers(there)[1] == numbers(here)[1]


def test_a_key_that_fails_says_the_same_everywhere() -> None:
    bad = [Schedule(DispatchPolicy.affinity(lambda t: 1 // 0, 2))]
    with concurrent.futures.ThreadPoolExecutor(1) as pool, pytest.warns(UserWarning, match="1 of 1"):
        found = [sweep(ragged_program(), bad, executor=executor)[0]["error"] for executor in (None, pool)]
    assert found[0] == found[1] and "DispatchPolicy.affinity failed" in found[0]


@pytest.mark.parametrize("late", [False, True])
def test_a_worker_that_dies_costs_records_not_the_sweep(late: bool, monkeypatch: Any) -> None:
    """When it has all jobs, or (its pool knows that it is broken) before it got one."""
    program = ragged_program()
    pool = concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("fork"))
    first = pool.submit(os.getpid).result()
    busy = pool.submit(time.sleep, 600)  # with this, when it dies
    submit, sent = sweeps._submit, []

    def counted(*args: Any) -> None:
        submit(*args)
        sent.append(args)
        if len(sent) == len(SCHEDULES) and late:
            os.kill(first, signal.SIGKILL)

    monkeypatch.setattr(sweeps, "_submit", counted)
    if not late:
        os.kill(first, signal.SIGKILL)
        assert busy.exception() is not None
    with pool, pytest.warns(UserWarning, match="schedules could not be simulated"):
        records = sweep(program, SCHEDULES, executor=pool)
    assert len(records) == len(SCHEDULES)
    assert all("BrokenProcessPool" in r["error"] for r in records)
    assert [r["directives"] for r in records] == [print_schedule(s, program.snapshot().loops) for s in SCHEDULES]


def test_a_pool_that_is_closed_is_an_error() -> None:
    pool = concurrent.futures.ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(UsageError, match="takes no work"):
        sweep(ragged_program(), SCHEDULES, executor=pool)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_interrupts_keep_the_records(elsewhere: bool, monkeypatch: Any) -> None:
    program, seen = ragged_program(), []
    simulate = Snapshot.simulate

    def third_time(self: Snapshot, *args: Any) -> Any:
        seen.append(None)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return simulate(self, *args)

    monkeypatch.setattr(Snapshot, "simulate", third_time)
    pool = concurrent.futures.ThreadPoolExecutor(1) if elsewhere else None
    with pytest.raises(SweepInterrupted, match="of 14 schedules") as caught:
        sweep(program, SCHEDULES, executor=pool)
    assert isinstance(caught.value, KeyboardInterrupt)
    assert [r["error"] for r in caught.value.records][:3] == [None] * 3
    if not elsewhere:
        assert len(caught.value.records) == 3


@given(st.integers(0, 2000), st.integers(0, 1 << 30))
def test_a_long_program_is_not_sent_with_every_schedule(count: int, characters: int) -> None:
    """Every job once and in order; one by one while that is little text in all, else in at most as many pieces."""
    jobs = [(number, ("", "")) for number in range(count)]
    chunks = list(sweeps._chunks(jobs, characters))
    assert [job for chunk in chunks for job in chunk] == jobs
    assert len(chunks) * characters <= max(1 << 26, 16 * characters)
    assert count * characters > 1 << 26 or len(chunks) == count


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Schedule(), "a list or a dict"), ([Schedule(), 3], "objects; got 3"), (5, "a list or a dict"),
        ({"a": "round_robin"}, "got 'round_robin' as 'a'"), ("abc", "a list or a dict"),
    ],
)  # fmt: skip
def test_what_are_no_schedules(given: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        sweep(ragged_program(), given)


def test_what_is_no_program() -> None:
    with pytest.raises(UsageError, match="compile it first"):
        sweep(ragged_program().workload, [])
    assert sweep(ragged_program(), []) == []


# ---- grids ---------------------------------------------------------------------------------------------------------


def test_a_grid_is_every_combination() -> None:
    policies, windows = [DispatchPolicy.round_robin(n) for n in (1, 2)], [None, 4, TaskWindow(8, "bytes")]
    made = schedule_grid(dispatch=policies, window=windows, deps=Deps.explicit(), streams=[1, 2])
    assert len(made) == 12 and len(set(map(print_schedule, made))) == 12
    assert print_schedule(made[0]) == "dispatch=round_robin(1) window=8192 deps=explicit"
    assert schedule_grid() == [Schedule()]
    with pytest.raises(TypeError, match="windows"):
        schedule_grid(windows=[1])


# ---- schedules as text ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES, ids=print_schedule)
def test_schedules_read_back(schedule: Schedule) -> None:
    text = print_schedule(schedule)
    again = parse_schedule(text)
    assert print_schedule(again) == text
    program = ragged_program()
    assert program.simulate(again).total_cycles == program.simulate(schedule).total_cycles


def test_every_factory_has_a_text() -> None:
    """A policy that is added to schedule.py needs no work here, or this fails."""
    arguments = {"num_aicpus": 3, "key_fn": 5, "fn": 5, "n": 7, "streams": 2, "tasks_per_ms": 2.5, "priority_fn": 1,
                 "cost_fn": 9, "pool_fn": lambda t: 1, "infer": Deps.infer_bytes_overlap().mode,
                 "explicit": False}  # fmt: skip
    import inspect

    from pto_wsp.sim.schedule_text import _POLICIES

    for name, kind in _POLICIES.items():
        factories = [n for n, f in vars(kind).items() if isinstance(f, staticmethod)]
        assert factories
        for factory in factories:
            call = getattr(kind, factory)
            policy = call(**{p: arguments[p] for p in inspect.signature(call).parameters})
            inner = name not in ("dispatch", "timing")
            outer = {"task_graph": TaskGraphConfig(**{name: policy})} if inner else {name: policy}
            text = print_schedule(Schedule(**outer))
            again = parse_schedule(text)
            assert print_schedule(again) == text
            if "pool_fn" not in inspect.signature(call).parameters:
                assert again == Schedule(**outer).with_(task_graph=again.task_graph)
    import dataclasses

    assert {f.name for f in dataclasses.fields(Schedule)} == {
        "dispatch", "streams", "stream_by", "timing", "task_graph", "machine"}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dispatch=robin(4)", "no DispatchPolicy.robin; there are round_robin"), ("dispatch=round_robin", "missing"),
        ("dispatch=round_robin(0)", "1 or more"), ("speed=4", "no speed"), ("window=(4, cows, stall)", "unit"),
        ("window=0", "1 or more"), ("streams=2 streams=3", "twice"), ("dispatch=affinity(loop(3), 2)", "0 loops"),
        ("machine=(name=3)", "a machine has"), ("machine=(clock_hz=3)", "missing"), ("window=4 ]", "the end"),
        ("timing=rate_limit(0)", "more than 0"), ("deps=hybrid(explicit, true)", "infer"), ("", "^$"),
    ],
)  # fmt: skip
def test_what_is_no_schedule(text: str, message: str) -> None:
    if not text:
        assert parse_schedule(text) == Schedule()
        return
    with pytest.raises(GraphTextError, match=message):
        parse_schedule(text)


# ---- snapshots as text ---------------------------------------------------------------------------------------------


def same_run(a: Any, b: Any) -> None:
    """Two simulations that agree in everything but wall time."""
    skipped = {"compile_time_ms", "execute_time_ms", "schedule", "_replay", "critical_path"}
    for name in type(a).__dataclass_fields__:
        if name not in skipped:
            assert getattr(a, name) == getattr(b, name), name
    assert np.array_equal(a.critical_path, b.critical_path)
    assert str(a.schedule) == str(b.schedule)
    ours, theirs = a.timeline(), b.timeline()
    for name in ("start", "end", "worker", "wait", "axes", "call"):
        assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name
    assert ours.calls == theirs.calls


@settings(max_examples=25)
@given(tree=dynamic.programs, schedule=dynamic.schedules, other=dynamic.schedules, flow=st.sampled_from(range(4)))
def test_random_programs_travel(tree: Any, schedule: Any, other: Any, flow: int) -> None:
    arrays = {width: np.zeros((STATES, 1, width), np.int64) for width in WIDTHS}
    tensors = {width: Tensor(data=a, shape=a.shape, dtype=I64) for width, a in arrays.items()}
    program = scheduled(dynamic.built(tree, tensors), schedule).compile()
    if "n" in program._expansion.symbols:
        program.set_symbol_u64("n", dynamic.SYMBOL)
    program.execute()
    program.synchronize()
    snapshot = program.snapshot()
    text = str(snapshot)
    again = Snapshot.parse(text)
    assert str(again) == text
    same_run(again.simulate(), program.simulate())
    assert again.simulate().total_cycles == program.stats.total_cycles
    chosen = scheduled(pto_wsp.combine(), other).schedule
    if flow:
        graph = [Deps.infer_bytes_overlap(), Deps.infer_tensor_map_exact(), Deps.explicit()][flow - 1]
        chosen = Schedule(DispatchPolicy.work_steal(2), task_graph=TaskGraphConfig(deps=graph))
    same_run(again.simulate(chosen), program.simulate(chosen))


def test_memory_that_is_shared_stays_shared() -> None:
    """Views of one array, one backwards and one transposed: edges are inferred from bytes."""
    base = np.zeros((64, 64), np.float32)
    whole, back, turned = base, base[::-1], base.T[8:40, 4:20]
    tensors = [Tensor(a, a.shape, F32) for a in (whole, back, turned)]

    @workload
    def w():
        for i in P(8):
            for k in P(3):
                for t in tensors:
                    scale[i, k](x=t[i * 3 : i * 3 + 8, k : k + 16], out=t[i * 3 : i * 3 + 8, k : k + 16])

    program = w().dispatch(DispatchPolicy.work_steal(4)).task_graph(deps=Deps.infer_bytes_overlap()).compile()
    again = Snapshot.parse(str(program.snapshot()))
    assert program.simulate().stalls
    same_run(again.simulate(), program.simulate())


def test_hazards_are_looked_for_wherever_it_is_simulated() -> None:
    x = Tensor(np.zeros((32, 16), np.float32), (32, 16), F32)

    @workload
    def w():
        for i in P(4):
            scale[i](x=x[i * 4 : i * 4 + 8], out=x[i * 4 : i * 4 + 8])

    exact, bytes_ = (Schedule(task_graph=TaskGraphConfig(deps=d))
                     for d in (Deps.infer_tensor_map_exact(), Deps.infer_bytes_overlap()))  # fmt: skip
    program = w().task_graph(deps=Deps.infer_tensor_map_exact()).compile(check="hazards")
    with pytest.raises(ScheduleError):
        program.simulate(exact)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        for executor in (None, pool):
            with pytest.warns(UserWarning, match="1 of 2"):
                records = sweep(program, [exact, bytes_], executor=executor)
            assert records[0]["error"].startswith("ScheduleError") and records[1]["error"] is None


def test_sizes_symbols_and_data_of_the_moment_travel() -> None:
    x = Tensor(np.zeros((99, 8, 16), np.float32), (99, 8, 16), F32)
    size, rows, chosen = DenseDyn(2), Ragged(2, [1, 1]), Sparse(2, [0, 1, 2], [0, 1])

    @workload
    def w():
        for i in P(size):
            with P.when(symbol_u64("n") > i):
                scale[i](x=x[i], out=x[i])
        for i in P(rows):
            scale[i](x=x[i], out=x[i])
        for e in P.sel(chosen):
            scale[e](x=x[e], out=x[e])

    program = w().dispatch(DispatchPolicy.affinity(symbol_u64("n"), 3)).compile()
    program.bind(size, 7)
    program.set_symbol_u64("n", 5)
    program.bind(rows, [3] * 5)
    program.bind(chosen, ([0, 2, 3, 90], list(range(99))))
    snapshot = program.snapshot()
    text = str(snapshot)
    program.bind(size, 1)
    program.bind(rows, [0])
    assert Snapshot.parse(text).simulate().task_count == snapshot.simulate().task_count == 5 + 15 + 90
    assert program.simulate().task_count == 1 + 0 + 90


def test_a_table_that_steers_is_not_read_again() -> None:
    """What is loaded into slots belongs to the snapshot: the array may go or change."""
    x, table = np.zeros((9, 8, 16), np.float32), np.arange(9).reshape(9, 1, 1)
    X, T = Tensor(x, x.shape, F32), Tensor(table, table.shape, I64)

    @workload
    def w():
        for b in P(9):
            slot_load_u64(0, T[b])
            with P.when(slot_u64(0) % 3 == 0):
                scale[b](x=X[slot_i64(0)], out=X[slot_i64(0)])

    program = w().compile()
    found, snapshot = program.simulate(), program.snapshot()
    text = str(snapshot)
    table[:] = 0
    assert found.task_count == 3 and len(found.timeline()) == 3
    assert snapshot.simulate().task_count == 3 and program.simulate().task_count == 9
    T.data = np.zeros((9, 1, 1), np.int64)
    del table
    assert len(found.timeline()) == 3
    assert Snapshot.parse(text).simulate().task_count == 3


@kernel(cpu=lambda x, out: None, cycles="4 * x_rows + 10")
def timed(x: In[Tile[8, 16, F32]], out: Out[Tile[8, 16, F32]]): ...


def test_kernels_that_are_not_traced_travel_without_their_bodies() -> None:
    x = Tensor(np.zeros((20, 16), np.float32), (20, 16), F32)

    @workload
    def w():
        for i in P(3):
            timed[i](x=x[i * 8 : i * 8 + 8], out=x[i * 8 : i * 8 + 8])

    program = w().compile()
    text = str(program.snapshot())
    assert 'custom core=AIV cpu="<lambda>"' in text
    again = Snapshot.parse(text)
    same_run(again.simulate(), program.simulate())
    assert again.simulate().total_cycles == 42 + 42 + 26
    units = Schedule(DispatchPolicy.work_steal(1), task_graph=TaskGraphConfig(pools=Pools.by_exec_unit()))
    moved = Snapshot.parse(text.replace("core=AIV", "core=AIC"))
    assert moved.simulate(units).pools != again.simulate(units).pools


def test_pipelines_travel() -> None:
    x = Tensor(np.zeros((9, 8, 16), np.float32), (9, 8, 16), F32)
    queue = pto_wsp.Channel("a queue", depth=2)
    load = pto_wsp.process("load").produces(queue).body(
        pto_wsp.for_each(9, lambda i: pto_wsp.send(queue, pto_wsp.task(scale, [i], {"x": x[i], "out": x[i]}))))
    work = pto_wsp.process("work").consumes(queue).body(
        pto_wsp.consume(queue, lambda t: pto_wsp.task(scale, [t], {"x": x[t], "out": x[t]})))
    program = pto_wsp.connect([load, work], [queue]).compile()
    again = Snapshot.parse(str(program.snapshot()))
    same_run(again.simulate(), program.simulate())
    assert again.simulate(cycles=9).total_cycles == program.simulate(cycles=9).total_cycles
    with pytest.raises(ScheduleError, match="too late"):
        program.simulate(cycles=lambda t: [3][0 * int(t.params[0])])


def test_big_data_is_compact_and_quick() -> None:
    lengths = np.random.default_rng(1).integers(0, 3, 1_000_000)
    x = Tensor(np.zeros((8, 16), np.float32), (8, 16), F32)
    rows = Ragged(len(lengths), lengths)

    @workload
    def w():
        for i in P(rows):
            scale[i](x=x, out=x)

    snapshot = w().compile().snapshot()
    begin = time.process_time()
    text = str(snapshot)
    again = Snapshot.parse(text)
    assert time.process_time() - begin < 20 and len(text) < 500_000
    assert again.simulate().task_count == int(lengths.sum())


MOMENT = """\
kernel k(%0 x: In tile<8x16xf32>)
  %1: tile<8x16xf32> = load %0 at=entry
workload w
  tensor T0: f32[4, 8, 16]
  axis A0: Sparse [0, 2] [1, 3]
  parallel for e in A0
    sequential
      slot 0 = T0[e] at (0, 0)
      k[e](x=T0[e])
moment
  place T0: space 0 at 0 [4, 8, 16]
"""


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("  place T1: space 0 at 0 [1]\n", "no tensor T1"), ("  place T0: space 0 at 0 [4, 8]\n", "3 dimensions"),
        ("  place T0: space 0 at 0 [4, 8, 16] [9223372036854775807, 1, 1]\n", "from"),
        ("  size 0: 5\n", "none whose size may change"), ("  data A0: [0, 5] [1]\n", "only 1 indices"),
        ("  reads [0]\n", "only 0 lines"), ("  read [3, 1] [1]\n", "decreases"), ("  cycles 1: 4\n", "1 kernel calls"),
        ("  speed 4\n", "a moment has no speed"), ("kernel x()\n", "nothing comes after"),
        ("moment\n", "nothing comes after"),
    ],
)  # fmt: skip
def test_what_is_no_snapshot(more: str, message: str) -> None:
    with pytest.raises(GraphTextError, match=message):
        Snapshot.parse(MOMENT + more)


def test_a_snapshot_that_lacks_its_decisions_reads_no_memory() -> None:
    with pytest.raises(ExecutionError, match="reads more than the recorded one"):
        Snapshot.parse(MOMENT).simulate()
    assert Snapshot.parse(MOMENT + "  loads [7, 7]\n").simulate().task_count == 2
    assert Snapshot.parse(MOMENT[: MOMENT.index("  place")] + "  loads [7, 7]\n").simulate().task_count == 2
    with pytest.raises(GraphTextError, match="no moment"):
        Snapshot.parse(MOMENT[: MOMENT.index("moment")])


def test_an_index_outside_its_array_is_an_error_there_too() -> None:
    with pytest.raises(pto_wsp.errors.RegionError, match="reaches outside"):
        Snapshot.parse(MOMENT.replace("[1, 3]", "[1, 9]") + "  loads [0, 0]\n").simulate()


def test_damaged_snapshots_fail_as_such() -> None:
    text, rng = str(ragged_program().snapshot()), random.Random(3)
    for _ in range(300):
        a, b = sorted(rng.randrange(len(text)) for _ in range(2))
        b = min(b, a + rng.choice([1, 3, 20]))
        damaged = rng.choice([text[:a] + text[b:], text[:a] + text[a:b] * 2 + text[b:],
                              text[:a] + rng.choice("()[]@:=,\"0-u\n %") + text[a + 1 :]])  # fmt: skip
        try:
            Snapshot.parse(damaged)
        except GraphTextError:
            pass


# ---- other cycles --------------------------------------------------------------------------------------------------


def durations(program: Any, cycles: Any, schedule: Any = None) -> list[int]:
    timeline = program.simulate(schedule, cycles=cycles).timeline()
    return (timeline.end - timeline.start).tolist()


class Slow:
    """A cycle model: everything takes twice as long."""

    def cycles(self, graph: Any) -> Any:
        return [*graph.cycles(), *graph.cycles()]


def test_cycles_of_every_kind() -> None:
    program = ragged_program()
    own = durations(program, None)
    rows = [(b, j) for b, n in enumerate([3, 1, 7, 0, 9, 2]) for j in range(n)]
    assert min(own) < max(own)  # partial tiles
    table = [3, 1, 4, 1, 5, 9, 2, 6, 5]
    for schedule in (None, SCHEDULES[5]):
        assert durations(program, 100, schedule) == [100] * 22
        assert durations(program, {"add": 7}, schedule) == durations(program, {add: 7}, schedule) == [7] * 22
        assert durations(program, lambda t: 10 + t.get("j") * t.get("b"), schedule) == [10 + j * b for b, j in rows]
        assert durations(program, axis("j") + 1, schedule) == [j + 1 for _, j in rows]
        assert durations(program, Slow(), schedule) == [2 * n for n in own]
        assert durations(program, {add: lambda t: table[t.get("j")]}, schedule) == [table[j] for _, j in rows]
        assert durations(program, lambda t: t.params[3] * 100, schedule) == [
            (min(16, 60 - 7 * j) if 60 > 7 * j else 0) * 100 for _, j in rows
        ]
    assert durations(program, {}) == own


def test_cycles_travel() -> None:
    program = ragged_program()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        for cycles in (100, {"add": axis("j") * 3 + 1}, Slow()):
            elsewhere = sweep(program, SCHEDULES[:3], cycles=cycles, executor=pool)
            assert numbers(elsewhere) == numbers(sweep(program, SCHEDULES[:3], cycles=cycles))
            assert elsewhere[0]["makespan"] == program.simulate(SCHEDULES[0], cycles=cycles).total_cycles
        with pytest.raises(IRConversionError, match="cycles of add needs the values"):
            sweep(program, SCHEDULES, cycles=lambda t: [1, 2][t.get("j") % 2], executor=pool)


@pytest.mark.parametrize(
    ("cycles", "error", "message"),
    [
        (-1, UsageError, "0 to 2"), (1 << 41, UsageError, "0 to 2"), ("fast", UsageError, "got 'fast'"),
        ({"sub": 1}, UsageError, "names the kernel 'sub'.* it calls add"), ({scale: 1}, UsageError, "the kernel scale"),
        (lambda t: t.get("j") - 3, ExecutionError, "task 0 .*b = 0, j = 0: its cycles"),
        (lambda t: {}[t.get("j")], ScheduleError, "failed for task #0 add: KeyError"),
        (lambda t: 0.5 if [1][0] and {0: 1}.get(int(t.params[0]), 1) else 1, ScheduleError, "gives 0.5 for task #0"),
        (axis("nowhere"), pto_wsp.CompileError, "no loop of that name"), (2.5, UsageError, "got 2.5"),
    ],
)  # fmt: skip
def test_what_are_no_cycles(cycles: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ragged_program().simulate(cycles=cycles)


def test_two_sources_of_cycles_are_one_too_many() -> None:
    with pytest.raises(ScheduleError, match="give one"):
        ragged_program().simulate(SCHEDULES[11], cycles=5)
