"""The life of a program: background runs, threads, interrupts, repeated runs, several programs, what is freed."""

import gc
import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref

import numpy as np
import pytest

import pto_wsp.program
from pto_wsp import (
    Dense,
    DenseDyn,
    DispatchPolicy,
    DType,
    In,
    InOut,
    Out,
    P,
    Ragged,
    TaskWindow,
    Tile,
    TraceLevel,
    WindowMode,
    kernel,
    parallel_for,
    pto,
    slot_load_u64,
    task,
    workload,
)
from pto_wsp.errors import RegionError, UsageError, WindowOverflow
from pto_wsp.lower.tasks import TaskTable
from pto_wsp.scalar_expr import slot_u64
from pto_wsp.sim import execute
from tests.e2e.programs import f32, run, tensor

F32 = DType.F32


@kernel
def slow(x: InOut[Tile[64, 64, F32]]):
    y = x
    for _ in range(8):
        y = pto.tanh(pto.matmul(y, y))
    pto.store(x, y)


def long_program(tasks, **options):
    """Every task updates the same tile, so that they run one after the other."""
    X = tensor(f32(64, 64) / 8)

    @workload
    def chain():
        for _ in P(tasks):
            slow(x=X)

    return chain().compile(**options)


@pytest.fixture
def eager(monkeypatch):
    """Threads are used for the smallest workloads, too."""
    for name in ("_PROBE", "_WORTH", "_PER_TASK", "_PER_ORDERED_TASK"):
        monkeypatch.setattr(execute, name, 0.0)


@pytest.fixture
def endless():
    """A run of hours that has just begun, and is stopped after the test."""
    program = long_program(100_000_000)
    program.execute()
    yield program
    program._run.stop()
    assert program.is_complete()


def test_execute_returns_at_once_and_refuses_a_second_run(endless):
    assert not endless.is_complete()
    with pytest.raises(RuntimeError, match="running"):
        endless.execute()


def test_execute_time_is_that_of_the_run():
    program = long_program(3000)
    program.execute()
    program.synchronize()
    assert program.is_complete() and program.stats.task_count == 3000
    assert program.stats.execute_time_ms > 50


def test_other_python_threads_go_on_during_a_run(endless):
    for _ in range(50):
        time.sleep(0.002)       # comes back only if the run lets go of the interpreter
    assert not endless.is_complete()


def test_synchronize_with_a_timeout(endless):
    with pytest.raises(TimeoutError):
        endless.synchronize(timeout=0.001)
    assert not endless.is_complete()


def test_interrupt_stops_a_long_run_and_leaves_the_process_usable():
    code = textwrap.dedent("""
        import signal
        signal.signal(signal.SIGINT, signal.default_int_handler)    # a shell ignores it for what it starts with &
        from tests.e2e.test_program_life import long_program
        program = long_program(100_000_000)
        program.execute()
        try:
            print("running", flush=True)
            program.synchronize()
        except KeyboardInterrupt:
            print("stopped", flush=True)
        small = long_program(3)
        small.execute()
        small.synchronize()
        print("usable", small.stats.task_count, flush=True)
    """)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout.readline() == "running\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert rest == "stopped\nusable 3\n"
    assert process.returncode == 0


def test_leaving_python_during_a_run():
    """A process that ends while a run goes on neither hangs nor crashes."""
    code = (
        "from tests.e2e.test_program_life import long_program; "
        "program = long_program(100_000_000); program.execute(); print('left')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "left\n" and done.returncode == 0, done


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_the_child_of_a_fork_has_no_part_in_the_run():
    """It says so once, runs programs of its own, this one too, and ends."""
    code = textwrap.dedent("""
        import os, time
        from tests.e2e.test_program_life import f32, long_program
        program = long_program(100_000_000)
        program.execute()
        time.sleep(0.1)
        child = os.fork()
        if not child:
            for _ in range(2):
                try:
                    program.synchronize()
                except Exception as error:
                    print(type(error).__name__, "belongs to process" in str(error), flush=True)
            small = long_program(3)
            small.execute()
            small.synchronize()
            print(small.stats.task_count, flush=True)
            raise SystemExit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), program.is_complete(), flush=True)
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "UsageError True\n3\n7 False\n" and done.returncode == 0, done


def test_a_run_cannot_wait_for_itself(monkeypatch):
    """What the run calls in its own thread is told so: a signal handler, a function of the schedule."""
    X, found, program = tensor(f32(4, 16)), [], None

    def worker(t):
        for ask in (program.synchronize, program.execute) if program else ():
            try:
                ask()
            except UsageError as error:
                found.append(str(error))
        return int(t.get("b"))

    @workload
    def scaled():
        for i in P(4):
            scale_row[i](x=X[i], out=X[i])

    program = scaled().dispatch(DispatchPolicy.affinity(worker, 2)).compile()
    for brief in (0.0, 10.0):
        monkeypatch.setattr("pto_wsp.program._BRIEF", brief)
        run(program)
        assert len(found) == 8 and "cannot go on" in found[0] and "still running" in found[1]
        found.clear()


def test_a_program_is_started_once():
    """Threads that start it at the same time are told that it runs already."""
    program, refused, started = long_program(3), [], threading.Barrier(4)

    def start():
        started.wait()
        for _ in range(200):
            try:
                program.execute()
            except UsageError as error:
                refused.append(error)
            program.synchronize()

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    run(program)
    assert program.stats.task_count == 3


def test_ctrl_c_at_any_moment():
    """Again and again: no run is lost, half done without a word, or never over."""
    code = textwrap.dedent("""
        import os, random, signal, sys, threading, time
        import numpy as np
        import pto_wsp.program as module
        from pto_wsp import Dense, InOut, P, Tile, DType, kernel, pto, workload
        from tests.e2e.programs import tensor
        signal.signal(signal.SIGINT, signal.default_int_handler)
        x = np.zeros((64, 64), np.float32)
        X = tensor(x)

        @kernel
        def count(x: InOut[Tile[1, 64, DType.F32]]):
            pto.store(x, x + 1.0)

        @workload
        def counted():
            for i in P(Dense[64]()):
                for _ in P.seq(5):
                    count[i](x=X[i])

        program, shots, end = counted().compile(threads=2), random.Random(0), time.monotonic() + 1.0
        program.execute()
        program.synchronize()

        def shoot():
            while time.monotonic() < end:
                time.sleep(shots.random() * 0.004)
                os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=shoot)
        thread.start()
        over, clean = False, 0
        while not over:
            try:
                while thread.is_alive() or not clean:
                    module._BRIEF = shots.choice([0.0, 10.0])
                    if not program.is_complete():
                        program.synchronize()
                    x[:] = 0
                    program.execute()
                    program.synchronize()
                    assert (x == 5).all() and program.stats.task_count == 320
                    clean += 1
                over = True
            except KeyboardInterrupt:
                pass
        print("whole", flush=True)
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "whole\n", done


def test_a_system_without_threads_to_spare(monkeypatch, eager):
    """The thread that starts a run does all of its work."""

    def refuse(self):
        raise RuntimeError("can't start new thread")

    expected = polynomials(1)
    monkeypatch.setattr(execute, "_POOL", execute._Pool())
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert polynomials(3) == expected


def test_ctrl_c_waits_for_the_threads_of_a_run(monkeypatch):
    """They write to arrays, which may be gone when the interrupt has reached the caller."""
    stop, began, ended = np.zeros(1, np.int64), threading.Event(), []

    def interrupted():
        began.wait(10)
        raise KeyboardInterrupt

    def other():
        began.set()
        while not stop[0]:
            time.sleep(0.001)
        time.sleep(0.01)
        ended.append(True)

    with pytest.raises(KeyboardInterrupt):
        execute._side_by_side([interrupted, other], lambda: None, False, lambda: False, stop)
    assert ended


@kernel
def polynomial(x: In[Tile[8, 64, F32]], out: Out[Tile[8, 64, F32]], total: InOut[Tile[8, 1, F32]]):
    y = pto.exp(x * 0.5) + pto.sin(x)
    pto.store(out, y / pto.rowsum(pto.abs(y)))
    pto.store(total, total * 0.5 + pto.rowmean(y))


def polynomials(threads):
    x, out, total = f32(300, 8, 64), np.zeros((300, 8, 64), np.float32), np.zeros((7, 8, 1), np.float32)
    X, OUT, TOTAL = tensor(x), tensor(out), tensor(total)
    work = parallel_for(
        Dense[43](),
        lambda i: parallel_for(
            Dense[6](),
            lambda j: task(polynomial, [i, j], {"x": X[i * 6 + j], "out": OUT[i * 6 + j], "total": TOTAL[j]}),
        ),
    )
    stats = run(work.dispatch(DispatchPolicy.round_robin(5)), threads=threads)
    return out.tobytes(), total.tobytes(), stats.total_cycles


def test_the_same_bits_and_cycles_for_any_number_of_threads():
    first = polynomials(1)
    assert first[0] != bytes(len(first[0]))
    for threads in (2, 3, 16):
        assert polynomials(threads) == first


def test_programs_from_several_threads():
    results, errors = {}, []

    def work(n):
        try:
            results[n] = polynomials(1 + n % 2)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and len({results[n] for n in range(4)}) == 1


def test_repeated_runs_accumulate():
    x, out, total = f32(1, 8, 64), np.zeros((1, 8, 64), np.float32), np.zeros((1, 8, 1), np.float32)
    X, OUT, TOTAL = tensor(x), tensor(out), tensor(total)

    @workload
    def one():
        polynomial(x=X[0], out=OUT[0], total=TOTAL[0])

    program = one().compile()
    seen = []
    for _ in range(3):
        run(program)
        seen.append(total.copy())
    np.testing.assert_allclose(seen[1], seen[0] * 1.5, rtol=1e-6)
    np.testing.assert_allclose(seen[2], seen[0] * 1.75, rtol=1e-6)


def test_programs_are_independent():
    x = np.zeros((1, 64, 64), np.float32)
    X = tensor(x)

    def adding(amount):
        @kernel
        def add(x: InOut[Tile[64, 64, F32]]):
            pto.store(x, x + amount)

        @workload
        def once():
            add(x=X[0])

        return once().compile()

    one, ten = adding(1.0), adding(10.0)
    run(one), run(ten), run(one)
    assert (x == 12).all()


def test_programs_and_their_code_are_freed():
    x = tensor(f32(64, 64))

    @workload
    def once():
        slow(x=x)

    program = once().compile()
    run(program)
    alive = weakref.ref(program)
    del program
    gc.collect()
    assert alive() is None


def test_many_programs_do_not_pile_up():
    """Machine code is freed with the programs that own it: memory stays flat over hundreds of programs."""
    resource = pytest.importorskip("resource")

    def cycle(amount):
        x = tensor(np.zeros((4, 4), np.float32))

        @kernel
        def add(x: InOut[Tile[4, 4, F32]]):
            pto.store(x, x + amount)

        @workload
        def once():
            add(x=x)

        run(once())

    def resident():
        gc.collect()
        with open(f"/proc/{os.getpid()}/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    if not os.path.exists("/proc/self/statm"):
        pytest.skip("needs /proc")
    for amount in range(20):
        cycle(float(amount))
    before = resident()
    for amount in range(150):
        cycle(float(amount % 20))
    assert resident() - before < 30e6


def test_tracing_records_wall_clock_time():
    x = tensor(f32(64, 64))

    @workload
    def once():
        for i in P(3):
            slow[i](x=x)

    program = once().compile()
    assert program.enable_tracing(TraceLevel.FULL) is program
    run(program)
    trace = program.trace
    assert len(trace.get_task_events()) == 3 and trace.total_time_ms() > 0
    assert trace.summary()["task_count"] == 3
    program.clear_trace()
    assert program.trace.events == []
    assert program.disable_tracing() is program


def test_simulate_does_not_run_the_kernels():
    from pto_wsp import Schedule, TaskGraphConfig, TaskWindow, WindowMode

    x, out, total = f32(12, 8, 64), np.zeros((12, 8, 64), np.float32), np.zeros((12, 8, 1), np.float32)
    X, OUT, TOTAL = tensor(x), tensor(out), tensor(total)

    @workload
    def twelve():
        for i in P(12):
            polynomial[i](x=X[i], out=OUT[i], total=TOTAL[i])

    program = twelve().compile()
    one = program.simulate().total_cycles // 12
    assert not out.any()
    for workers in (1, 2, 5, 12):
        schedule = Schedule(DispatchPolicy.round_robin(workers))
        assert program.simulate(schedule=schedule).total_cycles == -(-12 // workers) * one
    window = TaskGraphConfig(window=TaskWindow(1, "tasks", WindowMode.STALL))
    serial = Schedule(DispatchPolicy.round_robin(12), task_graph=window)
    assert program.simulate(schedule=serial).total_cycles == 12 * one
    assert not out.any() and run(program).total_cycles == 12 * one


def test_a_million_tasks_in_bounded_memory():
    x = np.zeros((1, 1), np.int64)
    X = tensor(x)

    @kernel
    def count(x: InOut[Tile[1, 1, DType.I64]]):
        pto.store(x, x + 1)

    @workload
    def many():
        for _ in P(Dense[1000](), Dense[1000]()):
            count(x=X)

    stats = run(many().dispatch(DispatchPolicy.round_robin(8)))
    assert x[0, 0] == 1_000_000 and stats.task_count == 1_000_000
    assert stats.total_cycles == 125_000 * 3


@kernel
def scale_row(x: In[Tile[1, 16, F32]], out: Out[Tile[1, 16, F32]]):
    pto.store(out, x * 2.0)


def _scaled(rows, axis):
    """A workload of `axis` tasks, and the arrays that it reads and writes."""
    X, OUT = tensor(f32(rows, 16)), tensor(f32(rows, 16))

    @workload
    def scaled():
        for i in P(axis):
            scale_row[i](x=X[i % rows], out=OUT[i % rows])

    return scaled(), X, OUT


@pytest.mark.parametrize("dispatch", [DispatchPolicy.round_robin(3), DispatchPolicy.work_steal(3)], ids=str)
def test_the_clock_ticks_when_somebody_asks(monkeypatch, dispatch):
    """Of the tasks that ran, whatever has been set since; once, and with the numbers of a simulation."""
    work, X, OUT = _scaled(8, DenseDyn(4))
    program, ticks, play = work.dispatch(dispatch).compile(threads=1), [], pto_wsp.program.play
    monkeypatch.setattr(pto_wsp.program, "play", lambda engine, table: (ticks.append(1), play(engine, table))[1])
    expected = {size: program.simulate() for size in (4, 6, 7) if program.set_axis_sizes({"b": size}) is None}
    for size in (4, 6, 4):
        program.set_axis_sizes({"b": size})
        program.execute()
        program.synchronize()
        assert not ticks
    np.testing.assert_array_equal(OUT.data[:6], 2 * X.data[:6])
    program.set_axis_sizes({"b": 7})
    stats = program.stats
    assert stats is program.stats and len(ticks) == 1
    assert (stats.task_count, stats.total_cycles, stats.stalls) == (4, expected[4].total_cycles, expected[4].stalls)
    run(program)
    assert program.stats.total_cycles == expected[7].total_cycles and len(ticks) == 2


def test_a_run_that_begins_while_the_clock_ticks(monkeypatch):
    """It fills another table than the one that the clock is reading."""
    work, X, OUT = _scaled(8, DenseDyn(4))
    program, play, tables = work.dispatch(DispatchPolicy.round_robin(3)).compile(threads=1), pto_wsp.program.play, []

    def interrupted(engine, table):
        if not tables:
            tables.append(table.cycles.copy())
            program.set_axis_sizes({"b": 8})
            program.execute()
            program.synchronize()
            np.testing.assert_array_equal(table.cycles, tables[0])
        return play(engine, table)

    program.execute()
    program.synchronize()
    monkeypatch.setattr(pto_wsp.program, "play", interrupted)
    assert program.stats.task_count in (4, 8) and tables
    np.testing.assert_array_equal(OUT.data, 2 * X.data)
    assert program.stats.task_count == 8


def test_the_clock_that_begins_while_a_run_takes_its_table(monkeypatch):
    """It leaves the table to the run."""
    work, X, OUT = _scaled(8, DenseDyn(4))
    program, play, capacity = work.compile(threads=1), pto_wsp.program.play, TaskTable.capacity
    program.execute()
    program.synchronize()
    last, go = program._stats, threading.Event()
    asking = threading.Thread(target=last)

    def asked_for(table):
        if asking.ident is None:
            asking.start()
            asking.join(0.1)
        return capacity.fget(table)

    def slow_play(engine, table):
        go.wait()
        return play(engine, table)

    monkeypatch.setattr(pto_wsp.program, "play", slow_play)
    monkeypatch.setattr(TaskTable, "capacity", property(asked_for))
    try:
        program.set_axis_sizes({"b": 8})
        program.execute()
        program.synchronize()
    finally:
        go.set()
        asking.join()
    np.testing.assert_array_equal(OUT.data, 2 * X.data)
    assert (last().task_count, program.stats.task_count) == (4, 8)


def test_tasks_that_did_not_stay_in_one_table_are_expanded_again_for_the_clock():
    program = _scaled(8, Dense[70_000]())[0].dispatch(DispatchPolicy.round_robin(3)).compile()
    stats = run(program)
    assert stats.task_count == 70_000 and stats.total_cycles == program.simulate().total_cycles


def test_a_schedule_that_may_fail_is_played_before_anything_is_written():
    work, X, OUT = _scaled(8, Dense[8]())
    window = TaskWindow(4, mode=WindowMode.ABORT)
    program, before = work.dispatch(DispatchPolicy.round_robin(3)).task_graph(window=window).compile(), OUT.data.copy()
    with pytest.raises(WindowOverflow):
        run(program)
    np.testing.assert_array_equal(OUT.data, before)


def test_cycles_that_may_be_too_many_are_counted_before_anything_is_written(monkeypatch):
    work, X, OUT = _scaled(8, Dense[8]())
    program, ticks, play = work.compile(), [], pto_wsp.program.play
    monkeypatch.setattr(pto_wsp.program, "_SURELY_COUNTED", 0)

    def seen(engine, table):
        ticks.append(OUT.data.copy())
        return play(engine, table)

    monkeypatch.setattr(pto_wsp.program, "play", seen)
    before = OUT.data.copy()
    run(program)
    np.testing.assert_array_equal(ticks, [before])


def test_repeated_runs_expand_again_only_when_something_has_changed(monkeypatch):
    """What the first pass has found is used again: same stats, same results, no expansion."""
    X, OUT = tensor(f32(8, 16)), tensor(f32(8, 16))
    rows = DenseDyn(4)

    @workload
    def scaled():
        for i in P(rows):
            scale_row[i](x=X[i], out=OUT[i])

    program, expansions = scaled().compile(threads=1), []
    expand = type(program._expansion).run
    monkeypatch.setattr(type(program._expansion), "run", lambda *a, **k: (expansions.append(a), expand(*a, **k))[1])

    def check(count, tasks):
        OUT.data[:] = 0
        run(program)
        assert len(expansions) == count and program.stats.task_count == tasks
        np.testing.assert_array_equal(OUT.data[:tasks], 2 * X.data[:tasks])
        assert not OUT.data[tasks:].any()

    check(1, 4)
    cycles = program.stats.total_cycles
    X.data[:] += 1  # what arrays hold is no matter
    check(1, 4)
    assert program.stats.total_cycles == cycles and program.stats.execute_time_ms > 0
    program.set_axis_sizes({"b": 6})
    check(2, 6)
    OUT.data = np.ones((8, 16), np.float32)  # where they lie is
    check(3, 6)
    X.data = f32(8, 32)[:, ::2]
    check(4, 6)
    check(4, 6)
    program.set_axis_sizes({"b": 9})
    for _ in range(2):
        with pytest.raises(RegionError):
            run(program)
    program.set_axis_sizes({"b": 6})
    check(7, 6)


def test_brief_runs_are_over_at_once(monkeypatch):
    """Also when sizes have changed. What goes wrong is still for synchronize() to say."""
    X, OUT = tensor(f32(64, 16)), tensor(f32(64, 16))

    @workload
    def scaled():
        for i in P(DenseDyn(4)):
            scale_row[i](x=X[i], out=OUT[i])

    program = scaled().compile()
    assert program._seconds(1) == math.inf  # how long a task takes is not known
    run(program)
    assert program._seconds(1) < 1
    monkeypatch.setattr("pto_wsp.program._BRIEF", 10.0)
    for size in (4, 64, 0, 7):
        program.set_axis_sizes({"b": size})
        OUT.data[:] = 0
        program.execute()
        assert program.is_complete() and program.stats.task_count == size
        np.testing.assert_array_equal(OUT.data[:size], 2 * X.data[:size])
        assert not OUT.data[size:].any()
    program.set_axis_sizes({"b": 65})
    program.execute()
    assert program.is_complete()
    with pytest.raises(RegionError):
        program.synchronize()
    program.set_axis_sizes({"b": 1 << 30})
    assert program._expansion.most_rows(program._bind(program._expansion)[1]) >= 1 << 30  # that may be long


@pytest.mark.parametrize("options, schedule, few", [
    ({}, {}, True),
    ({"check": "races"}, {}, False),
    ({}, {"window": TaskWindow(5000, mode=WindowMode.ABORT)}, False),
])
def test_what_looks_at_many_tasks_first_does_so_in_the_background(monkeypatch, options, schedule, few):
    work, X, OUT = _scaled(3000, DenseDyn(4))
    program = (work.task_graph(**schedule) if schedule else work).compile(**options)
    run(program)
    monkeypatch.setattr("pto_wsp.program._BRIEF", math.inf)
    for size, here in ((3000, few), (3000, True), (600, True)):
        program.set_axis_sizes({"b": size})
        program.execute()
        assert (program._run.thread == threading.get_ident()) == here
        program.synchronize()
        assert program.stats.task_count == size
    np.testing.assert_array_equal(OUT.data, 2 * X.data)


def test_an_axis_that_tasks_write_after_one_that_they_do_not():
    """The tasks of the last run are kept in memory that the next one fills."""
    lengths, x = np.array([[2, 1, 1, 1]], np.int64), np.zeros((1, 4), np.int64)
    L, X, rows = tensor(lengths), tensor(x), Ragged(4, [1, 0, 2, 0])

    @kernel
    def count(x: InOut[Tile[1, 4, DType.I64]]):
        pto.store(x, x + 1)

    @workload
    def counted():
        for b in P.seq(4):
            for _ in P.seq(rows[b]):
                count(x=X)
                count(x=L)

    program, found = counted().compile(), []
    for data in (None, None, L, None, L):
        program.bind(rows, [1, 0, 2, 0] if data is None else data)
        x[:], lengths[:] = 0, [[2, 1, 1, 1]]
        run(program)
        found.append(int(x[0, 0]))
    assert found == [3, 3, 2 + 3 + 6 + 12, 3, 2 + 3 + 6 + 12]


def test_repeated_runs_of_tasks_in_order_on_many_threads(eager):
    """What is known of their order is kept from run to run."""
    x = f32(40, 16)
    results = []
    for threads in (1, 3):
        X, OUT = tensor(x), tensor(np.zeros((8, 16), np.float32))

        @kernel
        def mix(x: In[Tile[1, 16, F32]], out: InOut[Tile[1, 16, F32]]):
            pto.store(out, out * 0.5 + pto.exp(x))

        @workload
        def mixed(X=X, OUT=OUT, mix=mix):
            for i in P(Dense[40]()):
                mix[i](x=X[i], out=OUT[i % 8])

        program = mixed().compile(threads=threads)
        for _ in range(20):
            run(program)
        results.append(OUT.data)
    assert results[0].tobytes() == results[1].tobytes()


def test_what_a_run_reads_on_its_way_is_read_in_every_run():
    """Slots that are loaded from tensors, and key functions that ask Python, are asked again."""
    X, OUT, N = tensor(f32(8, 16)), tensor(f32(8, 16)), tensor(np.array([[3]], np.uint64))

    @workload
    def chosen():
        slot_load_u64(0, N)
        scale_row(x=X[slot_u64(0)], out=OUT[slot_u64(0)])

    program = chosen().compile()
    for row in (3, 5):
        N.data[0, 0], OUT.data[:] = row, 0
        run(program)
        assert np.flatnonzero(OUT.data.any(axis=1)).tolist() == [row]

    on = {"worker": 0}
    at = DispatchPolicy.affinity(lambda t: on["worker"] + 0 * int(t.get("i")), 2)

    @workload
    def spread():
        for i in P(Dense[4]()):
            scale_row[i](x=X[i], out=OUT[i])

    program, found = spread().dispatch(at).compile(), []
    for on["worker"] in (0, 1):
        run(program)
        found.append(program.stats.tasks_per_worker)
    assert sorted(found[0]) == sorted(found[1]) == [0, 4] and found[0] != found[1]
