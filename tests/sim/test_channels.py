"""The channel engine against its rules in plain Python, against the formulas for one sender and receiver; deadlocks."""

import re
from contextlib import contextmanager
from functools import cache

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pto_wsp import DType, Out, Tensor, Tile, for_each, kernel, pto, sequential, task
from pto_wsp.csp import Channel, connect, consume, process, receive, replicate, send
from pto_wsp.errors import Deadlock, ExecutionError
from pto_wsp.sim import channels
from pto_wsp.sim.inorder import Wait
from pto_wsp.sim.loops import Loop
from pto_wsp.trace.channels import LATENCY
from tests.sim.pipelines import WIDEST, Net, Written, ends, play

WAYS = {"plain": (10**9, 10**9), "native": (0, 0), "native after 40 actions": (40, 40)}


@contextmanager
def performed(way):
    """Plain Python, machine code, or a change from one to the other in the middle."""
    loading, making = WAYS[way]
    with pytest.MonkeyPatch.context() as patch:
        limited = Loop(channels.perform, *channels.PERFORM.types, loading=loading or 1, making=making)
        patch.setattr(channels, "PERFORM", limited)
        yield


# ---- random pipelines


@st.composite
def nets(draw):
    """Anything that compiles: chains, shared ends, joins, cycles; many of them get stuck, early or late."""
    depths = draw(st.lists(st.integers(0, 4), min_size=1, max_size=4))
    count = draw(st.integers(1, 5))
    channel, width = st.integers(0, len(depths) - 1), st.integers(1, WIDEST)
    token = st.one_of(st.just("var"), st.integers(-3, 3))

    def steps(level):
        simple = [st.tuples(st.just("run"), width), st.tuples(st.just("send"), channel, width, token)]
        if level == 0:
            return st.lists(st.one_of(simple), min_size=1, max_size=3)
        inner = steps(level - 1)
        nested = [
            st.tuples(st.just("loop"), st.integers(0, 4), inner),
            st.tuples(st.just("consume"), channel, inner),
            st.tuples(st.just("receive"), channel, inner, st.one_of(st.none(), inner)),
            st.tuples(st.just("odd"), inner, inner),
        ]
        return st.lists(st.one_of(simple + nested), min_size=1, max_size=3)

    processes = [draw(steps(draw(st.integers(1, 2)))) for _ in range(count)]
    return completed(Net(depths, processes, draw(st.sampled_from([0, 0, 1, 7, 30]))), draw)


@st.composite
def flows(draw):
    """Pipelines that work: stages, each with several processes, and several channels from one to the next."""
    depths, processes, incoming = [], [], []
    for stage in range(draw(st.integers(2, 4))):
        last = stage > 0 and draw(st.booleans())
        outgoing = [] if last else list(range(len(depths), len(depths) + draw(st.integers(1, 2))))
        depths += [draw(st.integers(0, 5)) for _ in outgoing]
        for _ in range(draw(st.integers(1, 3))):
            work = [("run", draw(st.integers(1, WIDEST)))] if draw(st.booleans()) else []
            work += [("send", c, draw(st.integers(1, WIDEST)), "var") for c in outgoing]
            work = work or [("run", 1)]
            if incoming:
                processes.append([("consume", c, work) for c in incoming])
            else:
                processes.append([("loop", draw(st.integers(0, 12)), work), ("run", draw(st.integers(1, WIDEST)))])
        incoming = outgoing
        if not outgoing:
            break
    else:
        processes.append([("consume", c, [("run", 2)]) for c in incoming])
    return completed(Net(depths, processes, draw(st.sampled_from([0, 0, 3, 50]))), draw)


def completed(net, draw):
    """Somebody sends to each channel that is received from."""
    sent = {c for steps in net.processes for c in ends(steps, "send")}
    for c in {c for steps in net.processes for c in ends(steps, "consume", "receive")} - sent:
        net.processes.append([("loop", draw(st.integers(0, 5)), [("send", c, 1, "var")])])
    return net


def run(net, target="cpu_sim"):
    """The program after its run, the row it has written, and the error, if there was one."""
    written = Written(net)
    program = written.workload.compile(target)
    program.set_symbol_u64(LATENCY, net.latency)
    error = None
    program.execute()
    try:
        program.synchronize()
    except ExecutionError as raised:
        error = raised
    return program, written.row, error


def check(net, target="cpu_sim"):
    wanted = play(net)
    assume(wanted is not None)
    program, row, error = run(net, target)
    if wanted.unmet or wanted.stuck:
        assert (type(error) is Deadlock) is not wanted.unmet and not row.any()
        if not wanted.unmet:
            found = re.findall(r"p(\d+) waits at cycle (\d+) to (send|rec)\w* (?:to|from) 'c(\d+)'", str(error))
            assert found == [(str(p), str(time), what.rstrip("v"), str(c)) for p, c, what, time in wanted.stuck]
        return
    assert error is None
    stats = program.stats
    assert np.array_equal(row, wanted.row)
    assert (stats.total_cycles, stats.task_count) == (wanted.total, len(wanted.tasks))
    timeline = program.timeline()
    assert list(zip(timeline.worker.tolist(), timeline.start.tolist(), strict=True)) == wanted.tasks
    stalled = {s.reason: s.cycles for s in stats.stalls}
    assert stalled.get("CHANNEL_EMPTY", 0) == wanted.stalls["recv"]
    assert stalled.get("CHANNEL_FULL", 0) == wanted.stalls["send"]
    assert max(stats.lower_bounds.values()) <= stats.total_cycles
    assert stats.total_cycles <= stats.work_cycles + sum(stalled.values())
    for start, cause in zip(timeline.start.tolist(), timeline.causes.tolist(), strict=True):
        under_way = start - timeline.end[cause] if cause >= 0 else start  # tokens, on their way from that task
        assert under_way >= 0 and (under_way % net.latency if net.latency else under_way) == 0
    for idle, wait, start in zip(timeline.idle, timeline.wait, timeline.start, strict=True):
        reasons = (Wait.CHANNEL_EMPTY, Wait.CHANNEL_FULL) if idle else (Wait.WORKER_BUSY,) if start else (Wait.NOTHING,)
        assert Wait(int(wait)) in reasons


@settings(max_examples=30)
@given(nets(), st.sampled_from(list(WAYS)))
def test_any_pipeline(net, way):
    with performed(way):
        check(net)


@settings(max_examples=30)
@given(flows(), st.sampled_from(list(WAYS)))
def test_pipelines_that_flow(net, way):
    with performed(way):
        check(net)


@settings(max_examples=10)
@given(flows())
def test_interpreted(net):
    check(net, "numpy")


# ---- the formulas of 6.2: one sender, one receiver


def formula(sends, before, works, depth, latency):
    """s, r and the final times. sends: cycles of each item; before: the receiver's, at first; works: per token."""
    s, r, f, u = [], [], 0, before
    for i, cycles in enumerate(sends):
        f += cycles
        if depth == 0:
            s.append(max(u, f + latency))
            r.append(s[i])
        else:
            s.append(max(f, r[i - depth] if i >= depth else 0))
            r.append(max(u, s[i] + latency))
        f, u = s[i], r[i] + works[i]
    return s, r, f, u


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(1, WIDEST), st.integers(1, WIDEST)), max_size=20), st.integers(0, 6),
    st.integers(0, 5), st.integers(0, 40), st.sampled_from(list(WAYS)),
)  # fmt: skip
def test_formulas(items, before, depth, latency, way):
    sender = [("send", 0, width, k) for k, (width, _) in enumerate(items)] or [("loop", 0, [("send", 0, 1, 0)])]
    receives = [("receive", 0, [("run", width)], None) for _, width in items]
    receiver = [("run", before)] * (before > 0) + receives + [("consume", 0, [("run", 1)])]
    with performed(way):
        program, _, error = run(Net([depth], [sender, receiver], latency))
    assert error is None
    s, r, f, u = formula([4 * a for a, _ in items], 4 * before, [4 * b for _, b in items], depth, latency)
    (use,) = program.stats.channels
    assert program.stats.total_cycles == max(f, u)
    assert (use.depth, use.tokens, use.left) == (depth, len(items), 0)
    if depth:
        least = max((1 + sum(r[j] > s[i] for j in range(i)) for i in range(len(s))), default=0)
        most = max((1 + sum(r[j] >= s[i] for j in range(i)) for i in range(len(s))), default=0)
        assert least <= use.high_water <= min(most, depth)  # who comes first in one cycle decides
    starts = [span.start for span in program.timeline() if span.worker == 1][before > 0 :]
    assert starts == r


# ---- worked examples: execution.md 6.2, 6.3, 6.4, 6.5 and 9


@pytest.mark.parametrize("depth, total", [(0, 262), (1, 242), (2, 222), (3, 202)])
def test_fifo(depth, total):
    assert cycles(depth, [("loop", 8, [("send", 2)]), ("run", 120)], [("consume", [("run", 20)])]) == total


@pytest.mark.parametrize("latency, totals", [(0, (282, 262, 242, 222)), (9, (327, 280, 260, 240))])
def test_fifo_with_a_slow_end(latency, totals):
    sender = [("loop", 6, [("send", 2)]), ("loop", 4, [("send", 40)])]
    assert tuple(cycles(d, sender, [("consume", [("run", 20)])], latency=latency) for d in range(4)) == totals


def test_fifo_by_hand():
    program = piped(2, [("loop", 5, [("send", 3)])], [("consume", [("run", 8)])], latency=4)
    assert program.stats.total_cycles == 47
    assert [s.start for s in program.timeline() if s.worker == 1] == [7, 15, 23, 31, 39]


@pytest.mark.parametrize(
    "depth, latency, total", [(0, 0, 136), (0, 7, 185), (1, 0, 136), (2, 0, 136), (1, 7, 150), (2, 7, 150)]
)
def test_three_stages(depth, latency, total):
    a, b = Channel("a", depth), Channel("b", depth)
    processes = [
        process("first").produces(a).body(for_each(6, lambda i: send(a, a_task(10)))),
        process("second").consumes(a).produces(b).body(consume(a, lambda t: send(b, a_task(20)))),
        process("third").consumes(b).body(consume(b, lambda t: a_task(6))),
    ]
    assert finished(connect(processes, [a, b]), latency).stats.total_cycles == total


def test_measured_rendezvous_with_latency():
    assert cycles(0, [("loop", 6, [("send", 20)])], [("consume", [("run", 10)])], latency=7) == 172


def test_a_consumer_does_not_wait_for_the_tail_of_its_producer():
    program = piped(2, [("loop", 3, [("send", 10)]), ("run", 60)], [("consume", [("run", 4)]), ("run", 2)])
    assert program.stats.total_cycles == 90
    assert [s.start for s in program.timeline() if s.worker == 1] == [10, 20, 30, 34]


def test_shared_ends():
    q = Channel("q", 2)
    senders = [
        process("x").produces(q).body(for_each(4, lambda i: send(q, a_task(10)))),
        process("y").produces(q).body(for_each(8, lambda i: send(q, a_task(20)))),
    ]
    program = finished(connect([*senders, process("z").consumes(q).body(consume(q, lambda t: a_task(6)))], [q]))
    assert (program.stats.total_cycles, program.stats.tasks_per_worker) == (166, (4, 8, 12))
    assert program.stats.lanes == ("x", "y", "z")

    q = Channel("q", 0)
    senders = [process(n).produces(q).body(for_each(6, lambda i: send(q, a_task(10)))) for n in "xy"]
    receiver = process("z").consumes(q).body(consume(q, lambda t: a_task(8)))
    assert finished(connect([*senders, receiver], [q])).stats.total_cycles == 106

    q = Channel("q", 2)
    sender = process("x").produces(q).body(for_each(8, lambda i: send(q, a_task(10))))
    receivers = replicate(process("z").consumes(q).body(consume(q, lambda t: a_task(20))), 2)
    stats = finished(connect([sender, *receivers], [q])).stats
    assert (stats.total_cycles, stats.lanes, stats.tasks_per_worker) == (100, ("x", "z_0", "z_1"), (8, 4, 4))


def test_alternating_channels_consumed_one_after_the_other():
    def both(depth):
        a, b = Channel("a", depth), Channel("b", depth)
        body = for_each(4, lambda i: sequential(send(a, a_task(10)), send(b, a_task(10))))
        sink = sequential(consume(a, lambda t: a_task(6)), consume(b, lambda t: a_task(6)))
        processes = [process("p").produces(a, b).body(body), process("c").consumes(a, b).body(sink)]
        return connect(processes, [a, b])

    assert finished(both(4)).stats.total_cycles == 100
    with pytest.raises(Deadlock) as caught:
        finished(both(3))
    text = str(caught.value)
    assert "p waits at cycle 80 to send to 'b' (its 4th send there): depth 3, full; received from by c" in text
    assert "c waits at cycle 76 to receive from 'a' (its 5th receive there): empty; sent to by p" in text
    assert "To fix it: give 'b' a greater depth than 3" in text


def test_join():
    """One token of each of two channels per step, which consume cannot do."""
    a, b = Channel("a", 1), Channel("b", 1)
    body = for_each(4, lambda i: sequential(send(a, a_task(10)), send(b, a_task(10))))
    join = consume(a, lambda i: receive(b, lambda j: a_task(6)))
    processes = [process("p").produces(a, b).body(body), process("c").consumes(a, b).body(join)]
    program = finished(connect(processes, [a, b]))
    assert program.stats.total_cycles == 86
    assert [s.start for s in program.timeline() if s.worker == 1] == [20, 40, 60, 80]


def test_no_consumer():
    q = Channel("q", 2)
    program = connect([process("p").produces(q).body(for_each(5, lambda i: send(q, a_task(10))))], [q]).compile()
    with pytest.raises(Deadlock) as caught:
        program.execute()
        program.synchronize()
    assert isinstance(caught.value, ExecutionError)
    text = str(caught.value)
    assert "p waits at cycle 30 to send to 'q' (its 3rd send there): depth 2, full; received from by none" in text
    assert "let a process consume 'q', or give it depth 3 or more" in text
    assert program.stats.total_cycles == 0 and program.is_complete()


def test_tokens_that_are_left_are_counted():
    q = Channel("q", 2)
    stats = finished(connect([process("p").produces(q).body(for_each(2, lambda i: send(q, a_task(10))))], [q])).stats
    assert (stats.total_cycles, stats.channels[0].left, stats.channels[0].high_water) == (20, 2, 2)
    assert "2 never received" in repr(stats)


def test_ctrl_c_on_the_way_into_the_clock_is_not_lost():
    """Native code would go on with what lies on the stack as the number of a process."""
    engine = channels.ChannelEngine.__new__(channels.ChannelEngine)
    steps = engine._perform()
    next(steps)
    assert steps.throw(KeyboardInterrupt) == channels.FAILED
    assert steps.throw(KeyboardInterrupt) == channels.FAILED
    with pytest.raises(KeyboardInterrupt):
        engine.attend(channels.FAILED)
    steps.close()


def test_a_cycle_of_processes():
    a, b = Channel("a", 1), Channel("b", 1)
    processes = [
        process("x").consumes(a).produces(b).body(consume(a, lambda t: send(b, a_task(10)))),
        process("y").consumes(b).produces(a).body(consume(b, lambda t: send(a, a_task(10)))),
    ]
    with pytest.raises(Deadlock, match="x waits at cycle 0 to receive from 'a'.*\n.*y waits at cycle 0"):
        finished(connect(processes, [a, b]))


def piped(depth, sender, receiver, latency=0):
    """A sender, a channel, a receiver; steps have cycles instead of widths."""
    q = Channel("q", depth)

    def block(steps):
        parts = [step(*s) for s in steps]
        return parts[0] if len(parts) == 1 else sequential(*parts)

    def step(kind, first, steps=None):
        if kind == "run":
            return a_task(first)
        if kind == "send":
            return send(q, a_task(first))
        if kind == "loop":
            return for_each(first, lambda i: block(steps))
        return consume(q, lambda t: block(first))

    processes = [process("p").produces(q).body(block(sender)), process("c").consumes(q).body(block(receiver))]
    return finished(connect(processes, [q]), latency)


def cycles(depth, sender, receiver, latency=0):
    return piped(depth, sender, receiver, latency).stats.total_cycles


def finished(workload, latency=0):
    program = workload.compile()
    program.set_symbol_u64(LATENCY, latency)
    program.execute()
    program.synchronize()
    return program


@cache
def _of_cycles(number):
    """A kernel that takes so many cycles: those of its store."""

    @kernel
    def fill(out: Out[Tile[1, number, DType.U32]]):
        pto.store(out, pto.iota_u32(number))

    return fill


def a_task(number):
    return task(_of_cycles(number), [], {"out": Tensor(np.zeros((1, number), np.uint32), (1, number), DType.U32)})
