"""Channels, processes and events on the host; nodes of a workload."""

import threading
import time

import pytest

import pto_wsp.csp as csp
from pto_wsp.csp import (
    Channel,
    Event,
    Process,
    connect,
    consume,
    process,
    query,
    record,
    replicate,
    send,
    synchronize,
    try_send,
)
from pto_wsp.errors import ChannelClosed
from pto_wsp.trace.workload import Workload


def later(function, *args):
    """Run in a thread; .join() tells whether it ended, .error what it raised."""

    def run():
        try:
            function(*args)
        except Exception as error:
            thread.error = error

    thread = threading.Thread(target=run, daemon=True)
    thread.error = None
    thread.start()
    return thread


def ended(thread, within=60.0) -> bool:
    thread.join(within)
    return not thread.is_alive()


# ---- channels


def test_channel():
    q = Channel[int](name="q", depth=2)
    assert (q.name, q.depth, q.is_open(), q.size(), q.empty(), q.full()) == ("q", 2, True, 0, True, False)
    assert try_send(q, 5) and try_send(q, 6) and not try_send(q, 7)
    assert q.size() == 2 and q.full() and not q.empty()
    q.close()
    assert not q.is_open()
    with pytest.raises(ChannelClosed, match="'q'") as caught:
        try_send(q, 8)
    assert caught.value.channel_name == "q" and repr(q) == "Channel('q', depth=2)"


def test_depths():
    assert Channel("q").depth == 1 and Event("e").depth == 0 and Event("e", 3).depth == 3
    assert Channel("q", 0).full() and not try_send(Channel("q", 0), 1)
    assert issubclass(Event, Channel) and isinstance(Event("e"), Channel)


@pytest.mark.parametrize(
    "make, kind",
    [
        (lambda: Channel("q", -1), ValueError),
        (lambda: Channel("q", 1.5), TypeError),
        (lambda: Channel("q", True), TypeError),
        (lambda: Channel(""), TypeError),
        (lambda: Channel(3), TypeError),
        (lambda: process(None), TypeError),
        (lambda: process("p").consumes("q"), TypeError),
        (lambda: process("p").produces(Channel("q"), 3), TypeError),
        (lambda: process("p").body(None), TypeError),
        (lambda: send("q", Workload("empty")), TypeError),
        (lambda: consume(Channel("q"), Workload("empty")), TypeError),
        (lambda: consume(3, lambda t: None), TypeError),
        (lambda: connect([Workload("empty")], []), TypeError),
        (lambda: connect([], ["q"]), TypeError),
        (lambda: replicate("p", 2), TypeError),
        (lambda: replicate(process("p").body(Workload("empty")), -1), ValueError),
        (lambda: replicate(process("p").body(Workload("empty")), 1.5), TypeError),
        (lambda: try_send("q", 1), TypeError),
        (lambda: record("e"), TypeError),
        (lambda: synchronize(None), TypeError),
        (lambda: query(1), TypeError),
    ],
)
def test_refused(make, kind):
    with pytest.raises(kind):
        make()


# ---- processes and nodes


def test_process_builder_copies():
    a, b, body = Channel("a"), Channel("b"), Workload("empty")
    start = process("p").consumes(a)
    one, two = start.produces(b).body(body), start.produces(a, b).body(body)
    assert (one.name, one.consumes, one.produces, one.body) == ("p", [a], [b], body)
    assert two.produces == [a, b] and one.consumes is not two.consumes
    assert isinstance(one, Process)


def test_replicate():
    a, body = Channel("a"), Workload("empty")
    copies = replicate(process("work").consumes(a).body(body), 3)
    assert [p.name for p in copies] == ["work_0", "work_1", "work_2"]
    assert all(p.consumes == [a] and p.body is body for p in copies)
    assert len({id(p) for p in copies}) == 3 and copies[0].consumes is not copies[1].consumes
    assert replicate(copies[0], 0) == []


def test_nodes():
    q, task = Channel("q"), Workload("task", kernel="k", params=[], resources=[])

    def body(token):
        return task

    sent, taken = send(q, task), consume(q, body)
    assert sent.kind == "send" and sent.fields["channel"] is q and sent.fields["value"] is task
    assert taken.kind == "consume" and taken.fields["body"] is body
    pipe = connect((p for p in [process("p").produces(q).body(sent)]), {q})
    assert pipe.kind == "connect" and [p.name for p in pipe.fields["processes"]] == ["p"]
    assert pipe.fields["channels"] == [q]


# ---- events


def test_counted_signals_never_block():
    e = Event("e", depth=1)
    for _ in range(3):
        record(e)
    assert query(e)
    for _ in range(3):
        synchronize(e)
    assert not query(e)


def test_rendezvous():
    e = Event("e")
    waiting = later(record, e)
    while not query(e):
        time.sleep(0.001)
    assert waiting.is_alive()
    synchronize(e)
    assert ended(waiting) and not query(e) and waiting.error is None


def test_each_record_waits_for_a_signal_of_its_own():
    e = Event("e")
    waiting = [later(record, e) for _ in range(3)]
    for left in (2, 1, 0):
        synchronize(e)
        deadline = time.monotonic() + 60
        while sum(t.is_alive() for t in waiting) > left and time.monotonic() < deadline:
            time.sleep(0.001)
        assert sum(t.is_alive() for t in waiting) == left


def test_synchronize_waits():
    e = Event("e", depth=4)
    waiting = later(synchronize, e)
    time.sleep(0.02)
    assert waiting.is_alive()
    record(e)
    assert ended(waiting)


@pytest.mark.parametrize("wait", [synchronize, record])
def test_close_wakes_who_waits(wait):
    e = Event("e")
    waiting = later(wait, e)
    time.sleep(0.02)
    e.close()
    assert ended(waiting) and isinstance(waiting.error, ChannelClosed)
    with pytest.raises(ChannelClosed):
        record(e)


def test_signals_given_before_closing_are_still_taken():
    e = Event("e", depth=1)
    record(e)
    e.close()
    synchronize(e)
    with pytest.raises(ChannelClosed):
        synchronize(e)


def test_many_threads():
    e = Event("e")
    givers = [later(record, e) for _ in range(20)]
    takers = [later(synchronize, e) for _ in range(20)]
    assert all(ended(t) for t in givers + takers) and not query(e)


def test_star_import_brings_no_type_variable():
    assert all(not name.startswith("_") and name != "T" for name in csp.__all__)
