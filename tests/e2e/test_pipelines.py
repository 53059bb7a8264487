"""Pipelines as users run them: data through channels, control that is decided at run time, runs again and again."""

import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest

from pto_wsp import (
    DenseDyn,
    DispatchPolicy,
    DType,
    In,
    InOut,
    Out,
    P,
    Ragged,
    Scalar,
    Schedule,
    Sparse,
    TaskWindow,
    Tensor,
    Tile,
    TraceLevel,
    WindowMode,
    combine,
    cond,
    for_each,
    kernel,
    parallel_for,
    pto,
    select,
    sequential,
    slot_load_u64,
    slot_set_u64,
    task,
    workload,
)
from pto_wsp.csp import Channel, Process, connect, consume, process, receive, replicate, send
from pto_wsp.errors import CompileError, Deadlock, ExecutionError, RegionError, ScheduleError
from pto_wsp.scalar_expr import as_expr, fnv1a_64, slot_u64, symbol_u64
from tests.e2e.programs import f32, tensor

LATENCY = "__pto_wsp_channel_latency_cycles"
TARGETS = pytest.mark.parametrize("target", ["cpu_sim", "numpy"])


@kernel
def double(x: In[Tile[4, 8, DType.F32]], out: Out[Tile[4, 8, DType.F32]]):
    pto.store(out, x + x)


@kernel
def shift(x: In[Tile[4, 8, DType.F32]], out: Out[Tile[4, 8, DType.F32]], by: Scalar[DType.F32] = 1.0):
    pto.store(out, x + by)


@kernel
def count(x: InOut[Tile[1, 1, DType.I32]], by: Scalar[DType.I32] = 1):
    pto.store(x, x + by)


@kernel
def slow(x: InOut[Tile[1, 64, DType.I32]]):
    pto.store(x, x + 1)


@kernel
def copy_int(x: In[Tile[1, 1, DType.I32]], out: Out[Tile[1, 1, DType.I32]]):
    pto.store(out, x)


def counters(n):
    """An array of n counters, and the tensor of its 1x1 tiles."""
    array = np.zeros((n, 1, 1), np.int32)
    return array.ravel(), tensor(array)


def run(program):
    program.execute()
    program.synchronize()
    return program.stats


def two(produce, consumed, depth=2, **options):
    """A program of a producer and a consumer; both functions get the channel, and return a workload."""
    q = Channel("q", depth)
    processes = [
        process("produce").produces(q).body(produce(q)),
        process("consume").consumes(q).body(consumed(q)),
    ]
    return connect(processes, [q]).compile(**options)


# ---- data


@TARGETS
@pytest.mark.parametrize("depth", [0, 1, 2, 5])
def test_double_buffering(target, depth):
    """A ring of `depth` + 1 staging buffers is enough: the slot of a token is free when its receiver has it, so one
    more buffer is being read."""
    items, buffers = 17, depth + 2
    source, result = f32(items, 4, 8), np.zeros((items, 4, 8), np.float32)
    X, Y, STAGE = tensor(source), tensor(result), tensor(np.zeros((buffers, 4, 8), np.float32))
    def fill(i):
        return task(double, [i], {"x": X[i], "out": STAGE[as_expr(i) % buffers]})

    def use(i):
        return task(shift, [i], {"x": STAGE[i % buffers], "out": Y[i]})

    program = two(
        lambda q: for_each(items, lambda i: send(q, fill(i))), lambda q: consume(q, use), depth, target=target
    )
    stats = run(program)
    assert np.array_equal(result, source * 2 + 1)
    assert (stats.task_count, stats.lanes) == (2 * items, ("produce", "consume"))


def test_too_few_buffers_are_wrong_in_the_same_way_every_time():
    source, result, found = f32(20, 4, 8), np.zeros((20, 4, 8), np.float32), []
    X, Y, STAGE = tensor(source), tensor(result), tensor(np.zeros((1, 4, 8), np.float32))
    for threads in (1, 1, 4):
        result[:] = 0
        run(two(
            lambda q: for_each(20, lambda i: send(q, task(double, [i], {"x": X[i], "out": STAGE[0]}))),
            lambda q: consume(q, lambda i: task(shift, [i], {"x": STAGE[0], "out": Y[i]})),
            threads=threads,
        ))  # fmt: skip
        found.append(result.copy())
    assert not np.array_equal(found[0], source * 2 + 1)
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])


def test_any_number_of_threads_many_racing_tasks():
    """Tasks of 40 processes write to 8 counters; each sees what those before it have left."""

    @kernel
    def step(x: InOut[Tile[1, 256, DType.I32]], by: Scalar[DType.I32]):
        pto.store(x, x * 31 + by)

    def result(threads):
        array = np.zeros((8, 1, 256), np.int32)
        X, q = tensor(array), Channel("q", 3)
        feed = process("feed").produces(q).body(
            for_each(3000, lambda i: send(q, task(step, [i], {"x": X[as_expr(i) % 8], "by": i})))
        )  # fmt: skip
        work = process("work").consumes(q).body(
            consume(q, lambda t: task(step, [t], {"x": X[(t * 5) % 8], "by": t + 7}))
        )  # fmt: skip
        run(connect([feed, *replicate(work, 40)], [q]).compile(threads=threads))
        return array

    assert np.array_equal(result(1), result(4))


def test_what_a_token_is():
    """The first axis value: a number, an expression, a string's hash, or 0 where there is none."""
    seen, SEEN = counters(8)
    one = {"x": SEEN[0], "by": 0}
    q = Channel("q", 4)
    sends = [task(count, [5, 3], one), task(count, [], one), task(count, ["tag"], one), task(count, [True], one)]
    loop = for_each(2, lambda i: send(q, task(count, [i * 2 + 1], one)))
    body = sequential(*(send(q, value) for value in sends), loop)
    use = consume(q, lambda t: task(count, [t], {"x": SEEN[t.cast_u64() % 7], "by": 1}))
    program = connect([process("p").produces(q).body(body), process("c").consumes(q).body(use)], [q]).compile()
    run(program)
    wanted = np.zeros(8, np.int32)
    for token in (5, 0, fnv1a_64("tag"), 1, 1, 3):
        wanted[token % 7] += 1
    assert np.array_equal(seen, wanted)
    assert [s.axes for s in program.timeline() if s.worker == 1][:2] == [(5,), (0,)]


# ---- control that is decided at run time


def test_slots_are_set_and_read_in_the_order_of_time():
    """A slot is shared: what another process reads depends on the cycle, not on who is asked first."""
    seen, SEEN = counters(2)
    row = tensor(np.zeros((1, 1, 64), np.int32))
    for before, wanted in ((5, 1), (15, 0)):
        setter = sequential(for_each(before, lambda i: task(slow, [i], {"x": row[0]})), slot_set_u64(3, 1))
        reader = sequential(
            for_each(10, lambda i: task(slow, [i], {"x": row[0]})),
            cond(slot_u64(3) != 0, task(count, [], {"x": SEEN[1]}), task(count, [], {"x": SEEN[0]})),
        )
        for order in ([setter, reader], [reader, setter]):
            seen[:] = 0
            run(connect([process(f"p{k}").body(body) for k, body in enumerate(order)], []).compile())
            assert seen.tolist() == [1 - wanted, wanted]


@TARGETS
def test_a_producers_result_decides_what_the_consumer_does(target):
    flags = np.array([0, 1, 1, 0, 2, 0, 1], np.int32).reshape(-1, 1, 1)
    seen, SEEN = counters(14)
    FLAGS, COPY = tensor(flags), tensor(np.zeros((7, 1, 1), np.int32))

    def decide(t):
        return sequential(
            slot_load_u64(1, COPY[t]),
            cond(slot_u64(1) > 0, task(count, [t], {"x": SEEN[t]}), task(count, [t], {"x": SEEN[t + 7], "by": 2})),
        )

    program = two(
        lambda q: for_each(7, lambda i: send(q, task(copy_int, [i], {"x": FLAGS[i], "out": COPY[i]}))),
        lambda q: consume(q, decide),
        target=target,
    )
    for _ in range(2):
        seen[:] = 0
        stats = run(program)
        assert np.array_equal(seen[:7], flags.ravel() > 0) and np.array_equal(seen[7:], 2 * (flags.ravel() == 0))
        assert program.simulate().total_cycles == stats.total_cycles
        assert len(program.timeline()) == stats.task_count == 14
        flags[:] = flags == 0


def test_ragged_and_sparse_rows_of_a_token():
    lengths, pattern = [3, 0, 5, 1], Sparse(4, [0, 2, 2, 3, 6], [7, 1, 4, 0, 2, 2])
    ragged = Ragged(4, lengths)
    rows, ROWS = counters(4)
    columns, COLUMNS = counters(8)
    plain, PLAIN = counters(4)
    q = Channel("q", 1)

    def use(t):
        return sequential(
            parallel_for(ragged[t], lambda k: task(count, [t, k], {"x": ROWS[t], "by": k + 1})),
            select(pattern[t], lambda e: task(count, [e], {"x": COLUMNS[e]})),
            select([2, 0], lambda e: task(count, [e], {"x": PLAIN[e]})),
        )

    tick = {"x": PLAIN[3], "by": 0}
    program = connect(
        [
            process("p").produces(q).body(for_each(4, lambda i: send(q, task(count, [3 - as_expr(i)], tick)))),
            process("c").consumes(q).body(consume(q, use)),
        ],
        [q],
    ).compile()
    run(program)
    assert rows.tolist() == [n * (n + 1) // 2 for n in lengths]
    assert columns.tolist() == np.bincount(pattern.indices, minlength=8).tolist()
    assert plain.tolist() == [4, 0, 4, 0]
    program.bind(ragged, [1, 1, 1, 1])
    rows[:] = 0
    run(program)
    assert rows.tolist() == [1] * 4
    program.bind(ragged, [1, 1, 1])
    with pytest.raises(ExecutionError, match="asks for row 3 of a Ragged axis with 3 rows"):
        run(program)


def test_indices_that_a_producer_writes():
    """The consumer's loop over a Sparse axis begins after the task that has written its indices."""
    wanted = np.array([[[3]], [[1]], [[0]], [[2]]], np.int32)
    indices = np.zeros((4, 1, 1), np.int32)
    seen, SEEN = counters(4)
    WANTED, INDICES = tensor(wanted), tensor(indices)
    pattern = Sparse(4, [0, 1, 2, 3, 4], [0, 0, 0, 0])
    program = two(
        lambda q: for_each(4, lambda i: send(q, task(copy_int, [i], {"x": WANTED[i], "out": INDICES[i]}))),
        lambda q: consume(q, lambda t: select(pattern[t], lambda e: task(count, [e], {"x": SEEN[e], "by": t + 1}))),
        depth=0,
    )
    program.bind(pattern, ([0, 1, 2, 3, 4], INDICES))
    run(program)
    assert seen.tolist() == [3, 2, 4, 1]
    assert program.simulate().total_cycles == program.stats.total_cycles


def test_loops_over_nothing_and_choices_without_tasks():
    seen, SEEN = counters(3)
    n = DenseDyn(0)
    program = two(
        lambda q: sequential(
            for_each(0, lambda i: send(q, task(count, [i], {"x": SEEN[0]}))),
            for_each(n, lambda i: send(q, task(count, [i], {"x": SEEN[1]}))),
            cond(symbol_u64("late") > 0, send(q, task(count, [9], {"x": SEEN[1]}))),
        ),
        lambda q: consume(q, lambda t: cond(t > 3, task(count, [t], {"x": SEEN[2]}), combine())),
    )
    assert (run(program).total_cycles, program.stats.task_count) == (0, 0)
    program.bind(n, 6)
    program.set_symbol_u64("late", 1)
    stats = run(program)
    assert seen.tolist() == [0, 7, 3] and stats.task_count == 10


# ---- one program, many runs


def test_sizes_latency_and_arrays_change_between_runs():
    size = DenseDyn(4)
    source, result = f32(12, 4, 8), np.zeros((12, 4, 8), np.float32)
    X, Y, STAGE = tensor(source), tensor(result), tensor(np.zeros((12, 4, 8), np.float32))
    program = two(
        lambda q: for_each(size, lambda i: send(q, task(double, [i], {"x": X[i], "out": STAGE[i]}))),
        lambda q: consume(q, lambda t: task(shift, [t], {"x": STAGE[t], "out": Y[t]})),
        depth=1,
    )
    totals = []
    for n, latency in ((4, 0), (4, 1000), (12, 0), (0, 5), (4, 0)):
        result[:] = 0
        program.set_axis_sizes({size: n})
        program.set_symbol_u64(LATENCY, latency)
        stats = run(program)
        assert np.array_equal(result[:n], source[:n] * 2 + 1) and not result[n:].any()
        assert stats.task_count == 2 * n and program.simulate().total_cycles == stats.total_cycles
        totals.append(stats.total_cycles)
    assert totals == [5 * 96, 96 + 4 * 1000 + 96, 13 * 96, 0, 5 * 96]
    other = f32(12, 4, 8, seed=5)
    X.data = other
    run(program)
    assert np.array_equal(result[:4], other[:4] * 2 + 1)


@pytest.mark.parametrize("latency", [2**61 + 1, 2**63, 2**64 - 1, -1])
def test_latencies_that_no_clock_can_count(latency):
    program = two(
        lambda q: send(q, task(count, [0], {"x": counters(1)[1][0]})),
        lambda q: consume(q, lambda t: combine()),
    )
    program.set_symbol_u64(LATENCY, latency)
    with pytest.raises(ExecutionError, match=f"{LATENCY} is .* cycles; at most 2.61"):
        run(program)
    program.set_symbol_u64(LATENCY, 2**60)
    assert run(program).total_cycles == 2**60 + 3
    with pytest.raises(ExecutionError, match="at most 2.61"):
        program.set_symbol_u64(LATENCY, 2**62)
        program.simulate()


def test_times_that_no_clock_can_count():
    tick = counters(1)[1]
    program = two(
        lambda q: for_each(8, lambda i: send(q, task(count, [i], {"x": tick[0]}))),
        lambda q: consume(q, lambda t: combine()),
        depth=1,
    )
    program.set_symbol_u64(LATENCY, 2**60)
    with pytest.raises(ExecutionError, match="more cycles than the clock can count"):
        run(program)


@TARGETS
def test_nothing_is_written_when_a_task_reaches_outside(target):
    source, result = f32(6, 4, 8), np.zeros((6, 4, 8), np.float32)
    X, Y = tensor(source), tensor(result)
    program = two(
        lambda q: for_each(6, lambda i: send(q, task(double, [i], {"x": X[i], "out": Y[i]}))),
        lambda q: consume(q, lambda t: task(shift, [t], {"x": X[t * 2], "out": Y[t]})),
        target=target,
    )
    with pytest.raises(RegionError, match=r"shift\[3\]: x reaches outside its array: index 6") as caught:
        run(program)
    assert caught.value.axes == (3,) and not result.any()
    with pytest.raises(RegionError):
        program.simulate()


def test_nothing_is_written_when_it_gets_stuck():
    result = np.zeros((6, 4, 8), np.float32)
    X, Y, q = tensor(f32(6, 4, 8)), tensor(result), Channel("q", 2)
    body = for_each(5, lambda i: send(q, task(double, [i], {"x": X[i], "out": Y[i]})))
    program = connect([process("p").produces(q).body(body)], [q]).compile()
    for attempt in (lambda: run(program), program.simulate, program.timeline):
        with pytest.raises(Deadlock, match="waits at cycle 288 to send to 'q' .its 3rd send there."):
            attempt()
    assert not result.any()


def test_a_kernel_of_the_numpy_target_that_fails_ends_the_run():
    @kernel
    def fails(x: InOut[Tile[1, 1, DType.I32]]):
        pto.store(x, x)

    seen, SEEN = counters(2)
    program = two(
        lambda q: for_each(3, lambda i: send(q, task(count, [i], {"x": SEEN[0]}))),
        lambda q: consume(q, lambda t: task(fails, [t], {"x": SEEN[t]})),
        target="numpy",
    )
    with pytest.raises(ExecutionError):
        run(program)


def endless(**options):
    """A pipeline that runs for ever: a process that sends itself what it receives."""
    q, tick = Channel("q", 2), counters(1)[1]

    def turn(token):
        return send(q, task(count, [0], {"x": tick[0]}))

    body = sequential(turn(0), consume(q, turn))
    return connect([process("wheel").produces(q).consumes(q).body(body)], [q]).compile(**options)


def test_a_run_lets_other_threads_work_and_can_be_stopped():
    program = endless()
    program.execute()
    for _ in range(20):
        time.sleep(0.01)        # comes back only if the run lets go of the interpreter
    assert not program.is_complete()
    with pytest.raises(TimeoutError):
        program.synchronize(timeout=0.01)
    program._run.stop()
    assert program.is_complete()


# ---- what a run tells


def test_timeline_has_a_track_per_process():
    source = f32(4, 4, 8)
    X, Y, STAGE = tensor(source), tensor(np.zeros((4, 4, 8), np.float32)), tensor(np.zeros((4, 4, 8), np.float32))
    program = two(
        lambda q: for_each(4, lambda i: send(q, task(double, [i], {"x": X[i], "out": STAGE[i]}))),
        lambda q: consume(q, lambda t: task(shift, [t], {"x": STAGE[t], "out": Y[t]})),
    )
    text = str(program.timeline())
    assert "\nproduce " in text and "\nconsume " in text and "CHANNEL_EMPTY 1" in text
    events = program.timeline().to_chrome_trace()["traceEvents"]
    assert [e["args"]["name"] for e in events if e["name"] == "thread_name"][:2] == ["produce", "consume"]
    stats = run(program)
    assert "channel q" in repr(stats) and "produce" in repr(stats)
    (use,) = stats.channels
    assert (use.name, use.depth, use.tokens, use.empty_stalls, use.empty_cycles) == ("q", 2, 4, 1, 96)
    assert (use.full_stalls, use.full_cycles, use.high_water, use.left) == (0, 0, 1, 0)
    assert "channels" in str(program.schedule) and "produce, consume" in str(program.schedule)
    assert program.timeline().plot() is not None


def test_tracing():
    program = two(
        lambda q: for_each(3, lambda i: send(q, task(count, [i], {"x": counters(1)[1][0]}))),
        lambda q: consume(q, lambda t: task(count, [t], {"x": counters(9)[1][t]})),
    )
    program.enable_tracing(TraceLevel.FULL)
    run(program)
    assert [e.name for e in program.trace.get_task_events()] == ["count"] * 6


# ---- what is refused, or said


def test_a_schedule_has_no_effect_and_that_is_said():
    q = Channel("q", 2)
    pipeline = connect([process("p").produces(q).body(ticks(q))], [q])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = pipeline.compile()
    for given, name in (
        (pipeline.dispatch(DispatchPolicy.round_robin(4)), "dispatch"),
        (pipeline.streams(4), "streams"),
        (pipeline.task_graph(window=TaskWindow(4, "tasks", WindowMode.STALL)), "task_graph"),
    ):
        with pytest.warns(UserWarning, match=f"is a pipeline, where a schedule has no effect .given: {name}") as caught:
            program = given.compile()
        assert caught[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert run(program).total_cycles == run(plain).total_cycles == program.simulate().total_cycles
    with pytest.warns(UserWarning, match="no effect .given: dispatch"):
        plain.simulate(Schedule(DispatchPolicy.round_robin(4)))
    with pytest.raises(ScheduleError):
        plain.simulate(Schedule(DispatchPolicy.round_robin(1 << 30)))


TICK = counters(1)[1]


def ticks(channel, n=2):
    return for_each(n, lambda i: send(channel, task(count, [i], {"x": TICK[0]})))


def refusals():
    q, r = Channel("q"), Channel("r")

    def producer():
        return process("p").produces(q).body(ticks(q))

    def consumer(body=lambda t: combine()):
        return process("c").consumes(q).body(consume(q, body))

    def forgetful(t):
        send(q, task(count, [t], {"x": TICK[0]}))

    inner = connect([producer(), consumer()], [q])
    yield "without declaring it: add .produces", lambda: connect([process("p").body(ticks(q)), consumer()], [q])
    yield "declares .produces.'r'., but its body never sends", lambda: connect(
        [process("p").produces(q, r).body(ticks(q)), consumer()], [q, r]
    )
    yield "receives from channel 'q', but no process of this pipeline sends to it", lambda: connect([consumer()], [q])
    yield "uses channel 'q', which connect.* is not given; it is given: 'r'", lambda: connect([producer()], [r])
    yield "another channel of that name", lambda: connect([producer(), consumer()], [Channel("q")])
    yield "two processes of a pipeline are called 'p'", lambda: connect([producer(), producer(), consumer()], [q])
    yield "two channels of a pipeline are called 'q'", lambda: connect([producer(), consumer()], [q, q])
    yield "connect.* cannot be part of another", lambda: connect([process("x").body(inner)], [q])
    yield "connect.* cannot be part of another", lambda: sequential(inner, ticks(q))
    yield "send.* belongs in the body of a process", lambda: ticks(q)
    yield "consume.* belongs in the body of a process", lambda: consume(q, lambda t: combine())
    yield "receive.* belongs in the body of a process", lambda: receive(q, lambda t: combine())
    yield "send needs a task", lambda: connect([process("p").produces(q).body(send(q, combine())), consumer()], [q])
    yield "returned 3", lambda: connect([producer(), consumer(lambda t: 3)], [q])
    yield "returned None", lambda: connect([producer(), consumer(lambda t: None)], [q])
    yield "send node built here is not part of what the body of the consume node returns", lambda: connect(
        [producer(), process("c").consumes(q).produces(q).body(consume(q, forgetful))], [q]
    )
    yield "schedule was given to an inner part", lambda: connect(
        [process("p").produces(q).body(ticks(q).dispatch(DispatchPolicy.round_robin(2))), consumer()], [q]
    )


@pytest.mark.parametrize("number", range(17))
def test_refused_at_the_users_line(number):
    message, make = list(refusals())[number]
    with pytest.raises(CompileError, match=message) as caught:
        make().compile()
    assert caught.value.line is not None and caught.value.line.file == __file__


def test_after_has_no_meaning_in_a_process():
    @workload
    def body():
        first = count[0](x=TICK[0])
        count[1](x=TICK[0], after=[first])

    with pytest.raises(CompileError, match="after=.* has no meaning in a pipeline"):
        connect([process("p").body(body())], []).compile()


def test_what_is_declared_and_not_consumed_is_said():
    q = Channel("q", 3)
    producer = process("p").produces(q).body(ticks(q))
    with pytest.warns(UserWarning, match="'c' declares .consumes.'q'., but its body never receives from it"):
        connect([producer, process("c").consumes(q).body(combine())], [q]).compile()
    with pytest.warns(UserWarning, match="'c' receives from 'q' without declaring it"):
        connect([producer, process("c").body(consume(q, lambda t: combine()))], [q]).compile()


def test_a_receive_from_a_closed_channel():
    q = Channel("q", 3)

    def receiver(**otherwise):
        body = for_each(3, lambda i: receive(q, lambda t: task(count, [t], {"x": TICK[0]}), **otherwise))
        return connect([process("p").produces(q).body(ticks(q)), process("c").consumes(q).body(body)], [q]).compile()

    with pytest.raises(ExecutionError, match="receive from channel 'q': it is closed and empty"):
        run(receiver())
    assert run(receiver(otherwise=combine())).task_count == 4
    assert run(receiver(otherwise=task(count, [], {"x": TICK[0]}))).task_count == 5


# ---- bodies of every kind


def test_a_workload_function_as_a_body():
    seen, SEEN = counters(4)

    @workload
    def body(n):
        for i in P(n):
            with P.when(as_expr(i) % 2 == 0):
                count[i](x=SEEN[i])
        for i in P.seq(n):
            count[i](x=SEEN[i], by=10)

    stats = run(connect([process("only").body(body(4))], []).compile())
    assert seen.tolist() == [11, 10, 11, 10] and stats.total_cycles == stats.work_cycles == 6 * 3


def test_copies_share_their_code():
    q, seen = Channel("q", 8), counters(1)
    producer = process("p").produces(q).body(ticks(q, 300))
    consumer = process("c").consumes(q).body(consume(q, lambda t: task(count, [t], {"x": seen[1][0]})))
    program = connect([producer, *replicate(consumer, 200)], [q]).compile()
    assert program._expansion.ir.count("define private i64 @process") == 2
    assert run(program).task_count == 600 and seen[0][0] == 300
    assert program.stats.lanes[1::100] == ("c_0", "c_100") and program.stats.tasks_per_worker[0] == 300


def test_a_long_body_written_out_by_python_loops():
    seen, SEEN = counters(10)
    q = Channel("q", 1)
    statements = [send(q, task(count, [k % 10, k], {"x": SEEN[k % 10], "by": k})) for k in range(400)]
    sink = process("c").consumes(q).body(consume(q, lambda t: task(count, [t], {"x": SEEN[t], "by": 1})))
    program = connect([process("p").produces(q).body(sequential(*statements)), sink], [q]).compile()
    assert program._expansion.ir.count("\n") < 1500  # equal statements share their code
    run(program)
    assert seen.tolist() == [sum(range(k, 400, 10)) + 40 for k in range(10)]


def test_processes_of_one_builder_are_independent():
    q = Channel("q")
    builder = process("p").produces(q)
    one, two_ = builder.body(ticks(q)), builder.body(ticks(q))
    assert isinstance(one, Process) and one.produces is not two_.produces
    copies = replicate(one, 2)
    assert [p.name for p in copies] == ["p_0", "p_1"] and all(p.line is one.line for p in copies)


def test_programs_of_several_threads():
    """Each program has a clock of its own."""
    totals = []

    def one():
        program = two(lambda q: ticks(q, 500), lambda q: consume(q, lambda t: task(count, [t], {"x": TICK[0]})))
        totals.append(run(program).total_cycles)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(totals) == 4 and len(set(totals)) == 1


def test_tensor_without_data_is_made():
    STAGE = Tensor(data=None, shape=(4, 4, 8), dtype=DType.F32)
    source, result = f32(4, 4, 8), np.zeros((4, 4, 8), np.float32)
    X, Y = tensor(source), tensor(result)
    run(two(
        lambda q: for_each(4, lambda i: send(q, task(double, [i], {"x": X[i], "out": STAGE[i]}))),
        lambda q: consume(q, lambda t: task(shift, [t], {"x": STAGE[t], "out": Y[t], "by": 3.0})),
    ))  # fmt: skip
    assert np.array_equal(result, source * 2 + 3)


# ---- interrupts, children and the end of the process

LIFE = """
import os, signal, sys, threading
import numpy as np
from pto_wsp import DispatchPolicy, SweepInterrupted, schedule_grid, sweep
from tests.e2e.test_pipelines import long_pipeline
signal.signal(signal.SIGINT, signal.default_int_handler)    # a shell ignores it for what it starts with &

def interrupted(function):
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        function()
    except KeyboardInterrupt as stopped:
        timer.join()
        return stopped

endless, short = long_pipeline(100_000_000), long_pipeline(50)
endless.execute()
assert interrupted(endless.synchronize) and interrupted(lambda: endless.simulate())
assert isinstance(interrupted(lambda: sweep(endless, schedule_grid(dispatch=[DispatchPolicy.round_robin(2)]))),
                  SweepInterrupted)
short.execute(); short.synchronize(); cycles = short.stats.total_cycles
child = os.fork()
if child == 0:
    short.execute(); short.synchronize()
    os._exit(0 if short.stats.total_cycles == cycles == short.simulate().total_cycles else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
endless.execute()
print("left")
"""


def long_pipeline(tokens):
    x, y, q = tensor(f32(4, 4, 8)), tensor(f32(4, 4, 8)), Channel("q", 2)
    sender = process("sender").produces(q).body(
        for_each(tokens, lambda i: send(q, task(double, [i], {"x": x[i % 4], "out": y[i % 4]}))))
    receiver = process("receiver").consumes(q).body(
        consume(q, lambda i: task(double, [i], {"x": y[i % 4], "out": x[i % 4]})))
    return connect([sender, receiver], [q]).compile()


def test_a_pipeline_in_the_life_of_a_process():
    """Ctrl-C in a run, a simulation and a sweep; a child of fork; the end of Python during a run."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", LIFE], capture_output=True, text=True, timeout=60)
    assert done.stdout == "left\n" and done.returncode == 0, done.stderr
