"""Program: life cycle, errors in the user's thread, inputs that change between runs, schedules, simulation, tracing."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pto_wsp import (
    CompileError,
    DenseDyn,
    DispatchPolicy,
    DType,
    ExecutionError,
    In,
    InOut,
    Out,
    P,
    Program,
    Scalar,
    Schedule,
    ScheduleError,
    Symbol,
    TaskGraphConfig,
    TaskWindow,
    Tensor,
    Tile,
    TimingPolicy,
    TraceLevel,
    TypeCheckError,
    WindowMode,
    kernel,
    pto,
    workload,
)
from pto_wsp.errors import RegionError, UsageError
from pto_wsp.scalar_expr import symbol_u64
from pto_wsp.sim.inorder import Wait

F32 = DType.F32


@kernel
def double(x: In[Tile[2, 8, F32]], out: Out[Tile[2, 8, F32]]):
    pto.store(out, pto.add(x, x))


@kernel
def count_up(total: InOut[Tile[1, 8, F32]]):
    pto.store(total, pto.add(total, 1.0))


@kernel
def scale(x: In[Tile[2, 8, F32]], out: Out[Tile[2, 8, F32]], by: Scalar[F32]):
    pto.store(out, pto.mul(x, by))


DOUBLE_CYCLES = 48


def tensor(array: np.ndarray[Any, Any]) -> Tensor:
    return Tensor(data=array, shape=array.shape, dtype=F32)


def numbers(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


class Doubles:
    """x, out and a workload of n tasks, one per plane."""

    def __init__(self, n: Any = 6, planes: int = 6) -> None:
        self.x, self.out = numbers(planes, 2, 8), np.zeros((planes, 2, 8), np.float32)
        self.X, self.OUT = tensor(self.x), tensor(self.out)
        X, OUT = self.X, self.OUT

        @workload
        def doubles():
            for i in P(n):
                double[i](x=X[i], out=OUT[i])

        self.workload = doubles()

    def check(self, n: int | None = None) -> None:
        np.testing.assert_array_equal(self.out[:n], 2 * self.x[:n])


def run(program: Program) -> Any:
    program.execute()
    program.synchronize()
    return program.stats


# ---- life cycle ----


def test_compile_execute_synchronize_stats() -> None:
    work = Doubles()
    program = work.workload.dispatch(DispatchPolicy.round_robin(4)).compile(target="cpu_sim")
    assert isinstance(program, Program)
    assert (program.target, program.options, program.using_cpp_backend) == ("cpu_sim", {}, True)
    assert program.codegen_artifact_dir is None
    assert not program.is_complete()
    assert program.stats.compile_time_ms > 0
    assert program.stats.total_cycles == 0
    assert program.execute() is None
    assert program.synchronize() is None
    assert program.is_complete()
    work.check()
    stats = program.stats
    assert (stats.total_cycles, stats.task_count) == (2 * DOUBLE_CYCLES, 6)
    assert stats.tasks_per_worker == (2, 2, 1, 1)
    assert stats.execute_time_ms > 0
    assert not callable(program.stats)


def test_synchronize_before_execute_returns_at_once() -> None:
    program = Doubles().workload.compile()
    program.synchronize()
    assert not program.is_complete()


def test_repeated_runs_see_arrays_of_their_moment() -> None:
    work = Doubles()
    program = work.workload.compile()
    run(program)
    work.check()
    work.x += 1
    run(program)
    work.check()
    other = numbers(6, 2, 8)[::-1]
    work.X.data = other
    run(program)
    np.testing.assert_array_equal(work.out, 2 * other)


def test_outputs_accumulate() -> None:
    total = np.zeros((1, 8), np.float32)
    TOTAL = tensor(total)

    @workload
    def thrice():
        for _ in P.seq(3):
            count_up(total=TOTAL)

    program = thrice().compile()
    run(program)
    run(program)
    assert (total == 6).all()


@kernel
def slow(x: In[Tile[64, 64, F32]], out: Out[Tile[64, 64, F32]]):
    y = pto.load(x)
    for _ in range(10):
        y = pto.tanh(pto.sin(y))
    pto.store(out, y)


def slow_program(n: int = 5000) -> tuple[Tensor, np.ndarray[Any, Any], Program]:
    """A run of some tenths of a second: every task does the same."""
    X, out = tensor(numbers(64, 64)), np.zeros((64, 64), np.float32)
    OUT = tensor(out)

    @workload
    def slowly():
        for _ in P(n):
            slow(x=X, out=OUT)

    return X, out, slowly().compile()


def test_arrays_outlive_a_rebinding_during_the_run() -> None:
    X, out, program = slow_program(1)
    run(program)
    expected = out.copy()
    out[:] = 0
    X, out, program = slow_program()
    program.execute()
    X.data = np.zeros((64, 64), np.float32)
    program.synchronize()
    np.testing.assert_array_equal(out, expected)


def test_another_thread_runs_meanwhile() -> None:
    _, _, program = slow_program(100_000_000)  # hours, that a slow machine cannot miss
    program.execute()
    try:
        assert not program.is_complete()
        with pytest.raises(UsageError, match="still running"):
            program.execute()
        with pytest.raises(RuntimeError):
            program.execute()
        with pytest.raises(TimeoutError):
            program.synchronize(timeout=0.0)
        assert program.stats.total_cycles == 0
    finally:
        program._run.stop()


def test_a_run_ends_while_somebody_waits_for_it() -> None:
    _, _, program = slow_program()
    program.execute()
    program.synchronize(timeout=300)
    assert program.stats.task_count == 5000


def test_the_interpreter_runs_in_the_callers_thread() -> None:
    threads = []

    @kernel
    def where(out: Out[Tile[2, 8, F32]]):
        threads.append(threading.current_thread())
        pto.store(out, pto.broadcast(pto.constant(1.0), (2, 8)))

    OUT = tensor(numbers(2, 8))

    @workload
    def one():
        where(out=OUT)

    program = one().compile(target="numpy")
    program.execute()
    assert program.is_complete()
    assert set(threads) == {threading.current_thread()}
    program.synchronize()
    assert program.stats.task_count == 1


def test_several_programs_are_independent() -> None:
    a, b = Doubles(), Doubles(n=3)
    programs = [a.workload.compile(), b.workload.compile()]
    for program in programs:
        program.execute()
    for program in programs:
        program.synchronize()
    a.check()
    b.check(3)
    assert [p.stats.task_count for p in programs] == [6, 3]
    assert (b.out[3:] == 0).all()


@pytest.mark.parametrize("target", ["cpu_sim", "cpu_sim_codegen", "numpy"])
def test_targets(target: str) -> None:
    work = Doubles()
    program = work.workload.compile(target)
    assert run(program).total_cycles == 6 * DOUBLE_CYCLES
    work.check()


def test_empty_workload() -> None:
    @workload
    def nothing():
        pass

    stats = run(nothing().compile())
    assert (stats.total_cycles, stats.task_count) == (0, 0)


# ---- errors ----


def test_compile_errors_are_wrapped() -> None:
    with pytest.raises(CompileError, match="^Codegen compilation failed: unsupported target 'gpu'") as caught:
        Doubles().workload.named("planes").compile(target="gpu")
    assert (caught.value.workload_name, caught.value.target) == ("planes", "gpu")
    assert isinstance(caught.value.__cause__, CompileError)


def test_a_wrapped_error_is_still_what_it_was() -> None:
    X, OUT = tensor(numbers(2, 9)), tensor(np.zeros((2, 9), np.float32))

    @workload
    def wrong_tile():
        double(x=X, out=OUT)

    with pytest.raises(CompileError):
        wrong_tile().compile()

    @kernel
    def adds(x: In[Tile[2, 8, F32]], y: In[Tile[3, 5, F32]], out: Out[Tile[2, 8, F32]]):
        pto.store(out, pto.add(x, y))

    @workload
    def wrong_kernel():
        adds(x=tensor(numbers(2, 8)), y=tensor(numbers(3, 5)), out=tensor(numbers(2, 8)))

    with pytest.raises(TypeCheckError, match="Codegen compilation failed") as caught:
        wrong_kernel().compile()
    assert isinstance(caught.value.__cause__, TypeCheckError)
    assert "pto.add(x, y)" in str(caught.value)


def test_unknown_options_warn() -> None:
    with pytest.warns(UserWarning, match="optimise.*axis_sizes") as caught:
        program = Doubles().workload.compile(optimise=3)
    assert program.options == {"optimise": 3} and caught[0].filename == __file__


@pytest.mark.parametrize("options", [{"threads": 0}, {"threads": "many"}, {"check": "raises"}])
def test_wrong_options(options: dict[str, Any]) -> None:
    with pytest.raises(CompileError, match=next(iter(options))):
        Doubles().workload.compile(**options)


def test_a_tile_outside_its_array_stops_the_run_before_it_begins() -> None:
    work = Doubles(n=7)
    with pytest.raises((RegionError, CompileError)):
        run(work.workload.compile())
    assert (work.out == 0).all()


def test_run_time_errors_reach_the_user_and_leave_the_program_usable() -> None:
    work = Doubles()
    program = work.workload.compile()
    assert run(program).total_cycles == 6 * DOUBLE_CYCLES
    work.out[:] = 0
    work.X.data = numbers(3, 2, 8)
    program.execute()
    with pytest.raises(ExecutionError) as caught:
        program.synchronize()
    assert "x" in str(caught.value)
    assert (work.out == 0).all()
    assert program.stats.total_cycles == 0
    program.synchronize()  # an error is raised once
    work.X.data = work.x
    assert run(program).total_cycles == 6 * DOUBLE_CYCLES
    work.check()


def test_an_error_that_nobody_asked_for_comes_up_at_the_next_execute() -> None:
    work = Doubles()
    program = work.workload.compile()
    work.X.data = numbers(3, 2, 8)
    program.execute()
    while not program.is_complete():
        time.sleep(0.001)
    work.X.data = work.x
    with pytest.raises(ExecutionError):
        program.execute()
    run(program)
    work.check()


def test_read_only_arrays() -> None:
    work = Doubles()
    program = work.workload.compile()
    work.x.flags.writeable = False
    run(program)
    work.check()
    work.out.flags.writeable = False
    with pytest.raises(ExecutionError, match="read-only"):
        run(program)


def test_an_error_inside_an_interpreted_kernel_names_the_task() -> None:
    calls = []

    @kernel
    def fails_later(x: In[Tile[2, 8, F32]], out: Out[Tile[2, 8, F32]]):
        calls.append(1)
        if len(calls) > 4:
            raise ZeroDivisionError("in the kernel")
        pto.store(out, x)

    work = Doubles()

    @workload
    def failing():
        for i in P(6):
            fails_later[i](x=work.X[i], out=work.OUT[i])

    program = failing().compile(target="numpy")
    with pytest.raises(ExecutionError, match="in the kernel") as caught:
        run(program)
    assert caught.value.kernel_name == "fails_later"
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_print_works_inside_an_interpreted_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    @kernel
    def shows(x: In[Tile[2, 8, F32]], out: Out[Tile[2, 8, F32]]):
        y = pto.add(x, x)
        print(y)
        pto.store(out, y)

    X, OUT = tensor(np.full((2, 8), 21, np.float32)), tensor(np.zeros((2, 8), np.float32))

    @workload
    def one():
        shows(x=X, out=OUT)

    run(one().compile(target="numpy"))
    assert "42" in capsys.readouterr().out


def test_ctrl_c_in_an_interpreted_kernel_leaves_the_program_usable() -> None:
    hits: list[int] = []

    @kernel
    def interrupted(x: In[Tile[2, 8, F32]], out: Out[Tile[2, 8, F32]]):
        if hits:
            hits.clear()
            raise KeyboardInterrupt
        pto.store(out, x)

    work = Doubles()

    @workload
    def one():
        interrupted(x=work.X[0], out=work.OUT[0])

    program = one().compile(target="numpy")
    hits.append(1)
    with pytest.raises(KeyboardInterrupt):
        program.execute()
    run(program)
    np.testing.assert_array_equal(work.out[0], work.x[0])


def test_only_workloads_become_programs() -> None:
    @workload
    def forgotten():
        pass

    with pytest.raises(UsageError, match="call the @workload function"):
        Program(forgotten)  # type: ignore[arg-type]


def test_register_kernel_is_refused() -> None:
    with pytest.raises(RuntimeError, match="@kernel"):
        Doubles().workload.compile().register_kernel("double", lambda: None)


# ---- Ctrl-C ----


def test_ctrl_c_stops_the_run_and_leaves_the_process_usable() -> None:
    code = textwrap.dedent("""
        import signal, threading, time
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it starts with &
        import numpy as np
        from pto_wsp import *
        F32 = DType.F32

        @kernel
        def grow(x: InOut[Tile[64, 64, F32]]):
            y = pto.load(x)
            for _ in range(4):
                y = pto.exp(pto.mul(y, 0.001))
            pto.store(x, y)

        data = np.ones((64, 64), np.float32)
        X = Tensor(data=data, shape=data.shape, dtype=F32)

        @workload
        def forever():
            for i in P(DenseDyn(4)):
                for j in P.seq(20_000_000):
                    grow[i, j](x=X)

        program = forever().compile()
        waiting = threading.Event()

        def interrupt():
            waiting.wait()
            while (data == 1).all():  # no task has run
                time.sleep(0.01)
            time.sleep(0.5)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        threading.Thread(target=interrupt).start()
        program.execute()
        begin = time.perf_counter()
        try:
            waiting.set()
            program.synchronize()
            print("not interrupted")
        except KeyboardInterrupt:
            print("interrupted", time.perf_counter() - begin < 30, program.is_complete())
        before = data.copy()
        time.sleep(0.2)
        print("quiet", (before == data).all(), program.stats.total_cycles)
        program.set_axis_sizes({"b": 0})
        program.execute()
        program.synchronize()
        print("again", program.stats.task_count)
    """)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.stdout.splitlines() == ["interrupted True True", "quiet True 0", "again 0"], result.stderr


def test_a_stopped_run_reports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when all of its tasks fit into one chunk."""
    _, _, program = slow_program()

    def interrupt(*_: Any) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(program, "_wait", interrupt)
        program.execute()
        with pytest.raises(KeyboardInterrupt):
            program.synchronize()
    assert program.is_complete()
    assert program.stats.total_cycles == 0
    program.synchronize()
    assert run(program).task_count == 5000


# ---- inputs ----


def test_axis_sizes_by_name_by_axis_and_at_compile() -> None:
    axis = DenseDyn(4)
    work = Doubles(axis)
    program = work.workload.compile(axis_sizes={"b": 2})
    assert run(program).task_count == 2
    program.set_axis_sizes({"b": 3})
    assert run(program).task_count == 3
    program.set_axis_sizes({axis: np.int64(5)})
    assert run(program).task_count == 5
    program.bind(axis, 1)
    assert run(program).task_count == 1
    assert run(work.workload.compile()).task_count == 4
    program.bind(work.OUT, np.zeros((6, 2, 8), np.float32))
    assert run(program).task_count == 1


def test_the_axis_object_gives_the_size_until_it_is_set() -> None:
    axis = DenseDyn(4)
    program = Doubles(axis).workload.compile()
    axis.size = 2
    assert run(program).task_count == 2


@pytest.mark.parametrize(
    ("sizes", "text"), [({"bb": 3}, "bb"), ({"b": -1}, "-1"), ({"b": 2.5}, "2.5"), ({DenseDyn(3): 3}, "DenseDyn")]
)
def test_wrong_axis_sizes(sizes: dict[Any, Any], text: str) -> None:
    program = Doubles(DenseDyn(4)).workload.compile()
    with pytest.raises(UsageError, match=text):
        program.set_axis_sizes(sizes)
    with pytest.raises(CompileError, match=text):
        Doubles(DenseDyn(4)).workload.compile(axis_sizes=sizes)


def test_a_fixed_loop_keeps_its_size() -> None:
    case = Doubles(4)
    program = case.workload.compile()
    with pytest.warns(UserWarning, match="keeps its fixed size") as caught:
        program.set_axis_sizes({"b": 2})
    assert caught[0].filename == __file__
    run(program)
    assert program.stats.task_count == 4


def test_symbols() -> None:
    x, out = numbers(2, 8), np.zeros((2, 8), np.float32)
    X, OUT = tensor(x), tensor(out)

    @workload
    def scaled():
        scale(x=X, out=OUT, by=Symbol("factor"))

    program = scaled().compile()
    run(program)
    assert (out == 0).all()
    program.set_symbol_f32("factor", 0.5)
    run(program)
    np.testing.assert_array_equal(out, x / 2)
    program.set_symbol_u64("factor", int(np.float32(4).view(np.uint32)))
    run(program)
    np.testing.assert_array_equal(out, x * 4)
    with pytest.warns(UserWarning, match="factr.*factor"):
        program.set_symbol_f32("factr", 1.0)
    with pytest.raises(UsageError, match="no axis .* reads 'lengths_1'"):
        program.set_symbol_ptr("lengths_1", np.zeros(3, np.int32))


def test_symbols_in_dispatch_keys() -> None:
    work = Doubles().workload.dispatch(DispatchPolicy.affinity(lambda t: t.get("b") * symbol_u64("spread"), 6))
    program = work.compile()
    assert run(program).total_cycles == 6 * DOUBLE_CYCLES
    program.set_symbol_u64("spread", 1)
    assert run(program).total_cycles == DOUBLE_CYCLES
    program.set_symbol_u64("spread", 2**64 + 1)
    assert run(program).total_cycles == DOUBLE_CYCLES


# ---- schedules ----


LATER = {
    "spatial_map": lambda w: w.spatial_map((4, 4)),
}


@pytest.mark.parametrize("directive", LATER)
def test_directives_of_later_versions_are_refused_by_name(directive: str) -> None:
    work = LATER[directive](Doubles().workload)
    with pytest.raises(CompileError, match=f"{directive}.*not supported yet") as caught:
        work.compile()
    assert isinstance(caught.value, ScheduleError)
    assert isinstance(caught.value.__cause__, ScheduleError)


def test_the_schedule_prints_engine_and_settings() -> None:
    work = Doubles().workload
    assert str(work.compile().schedule).splitlines() == [
        "engine    in-order: tasks are issued in program order, a late one holds up those behind it",
        "dispatch  1 worker",
        "deps      structural",
        "window    none: any number of tasks may be in flight",
        "timing    immediate",
    ]
    keyed = work.dispatch(DispatchPolicy.affinity(lambda t: t.get("b") % 3, 4)).task_graph().compile()
    text = str(keyed.schedule)
    assert "affinity" in text
    assert "mod 4" in text
    assert "8192 tasks" in text
    assert (keyed.schedule.workers, keyed.schedule.window) == (4, 8192)


def test_immediate_timing_and_one_stream_are_the_default() -> None:
    work = Doubles().workload.timing(TimingPolicy.immediate).streams(1).dispatch(DispatchPolicy.round_robin(6))
    assert run(work.compile()).total_cycles == DOUBLE_CYCLES


def test_too_many_workers() -> None:
    with pytest.raises(ScheduleError, match="workers"):
        Doubles().workload.dispatch(DispatchPolicy.round_robin(2**40)).compile()


# ---- simulate ----


def test_simulate_other_schedules_without_running_again() -> None:
    work = Doubles()
    program = work.workload.compile()
    for workers in (1, 2, 3, 6, 10):
        result = program.simulate(schedule=Schedule(DispatchPolicy.round_robin(workers)))
        assert result.total_cycles == result.stats.total_cycles == -(-6 // workers) * DOUBLE_CYCLES
        assert result.task_count == 6
    assert (work.out == 0).all()
    keyed = Schedule(DispatchPolicy.affinity(lambda t: t.get("b") // 4, 2))
    assert program.simulate(keyed).tasks_per_worker == (4, 2)
    one_by_one = Schedule(DispatchPolicy.round_robin(3), task_graph=TaskGraphConfig(window=TaskWindow(1)))
    assert program.simulate(one_by_one).total_cycles == 6 * DOUBLE_CYCLES
    short = Schedule(DispatchPolicy.round_robin(3), TaskWindow(1, "tasks", WindowMode.STALL))  # type: ignore[arg-type]
    assert short == one_by_one
    with pytest.raises(ScheduleError):
        program.simulate(Schedule(timing=TimingPolicy.interleaved(2)))
    with pytest.raises(UsageError, match="Schedule"):
        program.simulate(DispatchPolicy.round_robin(3))  # type: ignore[arg-type]


def test_simulation_and_run_agree_and_have_one_timeline() -> None:
    work = Doubles().workload.dispatch(DispatchPolicy.round_robin(4)).task_graph(window=TaskWindow(3))
    program = work.compile()
    stats = run(program)
    simulated = program.simulate()
    assert simulated.total_cycles == stats.total_cycles
    assert simulated.busy_cycles == stats.busy_cycles
    timeline = program.timeline()
    assert timeline.total_cycles == stats.total_cycles
    assert [(s.name, s.worker, s.start) for s in timeline] == [
        ("double[0]", 0, 0), ("double[1]", 1, 0), ("double[2]", 2, 0),
        ("double[3]", 3, 48), ("double[4]", 0, 48), ("double[5]", 1, 48),
    ]  # fmt: skip
    assert timeline[3].wait is Wait.WINDOW_FULL
    assert [s.start for s in simulated.timeline()] == [s.start for s in timeline]
    assert timeline.text().startswith("doubles: 6 tasks, 96 cycles")


def test_a_timeline_keeps_the_inputs_of_its_simulation() -> None:
    axis = DenseDyn(4)
    program = Doubles(axis).workload.compile()
    simulated = program.simulate()
    program.set_axis_sizes({axis: 2})
    assert len(simulated.timeline()) == 4
    assert len(program.timeline()) == 2


def test_many_tasks_through_several_chunks() -> None:
    total = np.zeros((1, 8), np.float32)
    TOTAL = tensor(total)

    @workload
    def long():
        for _ in P(1000):
            for _ in P.seq(200):
                count_up(total=TOTAL)

    program = long().compile()
    stats = run(program)
    assert (total == 200_000).all()
    assert (stats.task_count, stats.total_cycles) == (200_000, 200_000 * 24)
    spread = program.simulate(Schedule(DispatchPolicy.round_robin(1000)))
    assert spread.total_cycles == (1000 * 199 + 1) * 24  # a chain begins beside the last task of the one before


# ---- tracing ----


def test_trace_levels() -> None:
    program = Doubles().workload.compile()
    run(program)
    assert program.trace.events == []
    assert program.enable_tracing(TraceLevel.SUMMARY) is program
    run(program)
    assert [e.category for e in program.trace.events] == ["compile", "simulate", "execute"]
    program.enable_tracing()
    run(program)
    tasks = program.trace.get_task_events()
    assert [e.task_id for e in tasks] == list(range(6))
    assert {e.name for e in tasks} == {"double"}
    assert program.trace.get_kernel_events("double") == tasks
    assert all(e.end_ns >= e.start_ns for e in program.trace.events)
    summary = program.trace.summary()
    assert (summary["task_count"], summary["kernel_invocations"], summary["unique_kernels"]) == (6, 6, 1)
    assert summary["total_time_ms"] >= summary["kernel_time_ms"] > 0
    program.clear_trace()
    assert program.trace.events == []
    program.enable_tracing(TraceLevel.FULL)
    run(program)
    assert program.trace.get_task_events()[3].metadata == {"axes": [3], "cycles": DOUBLE_CYCLES}
    chrome = program.trace.to_chrome_trace()["traceEvents"]
    assert {e["ph"] for e in chrome} == {"X"}
    assert program.disable_tracing() is program
    count = len(program.trace.events)
    run(program)
    assert len(program.trace.events) == count


def test_print_summary(capsys: pytest.CaptureFixture[str]) -> None:
    program = Doubles().workload.compile().enable_tracing()
    run(program)
    program.trace.print_summary()
    assert "kernel_invocations  6" in capsys.readouterr().out


def test_phases_of_compiling(empty_cache: Path) -> None:
    @kernel
    def never_seen_before(x: In[Tile[3, 7, F32]], out: Out[Tile[3, 7, F32]]):
        pto.store(out, pto.mul(x, 0.8125))

    X, OUT = tensor(numbers(3, 7)), tensor(numbers(3, 7))

    @workload
    def one():
        never_seen_before(x=X, out=OUT)

    first, second = one().compile(), one().compile(target="numpy")
    assert {"emit IR", "optimise", "machine code", "link"} <= first.phases.keys()
    assert sum(first.phases.values()) == pytest.approx(first.stats.compile_time_ms)
    assert "machine code" not in second.phases


# ---- progress ----


def test_progress_bar_is_shown_on_request(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from pto_wsp.sim import progress

    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    run(Doubles(n=100, planes=100).workload.named("silent").compile(target="numpy", progress=False))
    run(Doubles(n=100, planes=100).workload.named("interpreted").compile(target="numpy", progress=True))
    _, _, program = slow_program()
    program.options["progress"] = True
    run(program)
    err = capsys.readouterr().err
    assert "interpreted" in err
    assert "slowly" in err
    assert "silent" not in err


def test_no_progress_bar_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    from pto_wsp.sim.progress import someone_watches

    assert not someone_watches()
    run(Doubles(n=300, planes=300).workload.compile(target="numpy"))
    assert capsys.readouterr().err == ""


def test_a_notebook_counts_as_someone_watching(monkeypatch: pytest.MonkeyPatch) -> None:
    from pto_wsp.sim.progress import someone_watches

    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    assert someone_watches()


# ---- weight ----


def test_the_first_compile_imports_no_numba() -> None:
    code = textwrap.dedent("""
        import sys
        import numpy as np
        from pto_wsp import *

        @kernel
        def copy(x: In[Tile[2, 8, DType.F32]], out: Out[Tile[2, 8, DType.F32]]):
            pto.store(out, x)

        a, b = np.ones((2, 8), np.float32), np.zeros((2, 8), np.float32)
        A, B = (Tensor(data=t, shape=t.shape, dtype=DType.F32) for t in (a, b))

        @workload
        def one():
            copy(x=A, out=B)

        program = one().compile()
        program.execute()
        program.synchronize()
        print((b == 1).all(), [m for m in ("numba", "matplotlib", "tqdm", "ml_dtypes") if m in sys.modules])
    """)
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "True []"


def test_a_run_at_the_end_of_the_process_is_stopped_and_says_so() -> None:
    code = textwrap.dedent("""
        import numpy as np
        from pto_wsp import *

        @kernel
        def grow(x: InOut[Tile[64, 64, DType.F32]]):
            pto.store(x, pto.exp(pto.load(x)))

        X = Tensor(data=np.ones((64, 64), np.float32), shape=(64, 64), dtype=DType.F32)

        @workload
        def endless():
            for i in P(100_000_000):
                grow(x=X)

        endless().compile().execute()
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "endless was still running at exit" in done.stderr


def test_threads_do_not_pile_up() -> None:
    program = Doubles().workload.compile()
    run(program)
    before = threading.active_count()
    for _ in range(20):
        run(program)
    assert threading.active_count() <= before + 1  # the thread of the last run may not be gone yet


def test_no_warnings() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(Doubles().workload.compile())
