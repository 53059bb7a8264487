"""Communicating processes, the authoring side: channels, processes, and the workload nodes that connect them.

    queue = Channel("queue", depth=2)
    load = process("load").produces(queue).body(for_each(n, lambda i: send(queue, task(...))))
    work = process("work").consumes(queue).body(consume(queue, lambda i: task(...)))
    program = connect([load, work], [queue]).compile()

A channel carries one integer per send, the first axis value of the sent task; data moves through tensors. A process
does one thing after the other. `consume` takes every token of a channel; `receive` takes one, so that a process can
join a token of each of two channels:

    add = process("add").consumes(a, b).body(consume(a, lambda i: receive(b, lambda j: task(...))))

`send`, `consume`, `receive` and `connect` make nodes of a workload.  `try_send` and the events work at once, on the
host, between threads of the user's own program; they are never part of a compiled workload.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pto_wsp.arguments import integer, is_sequence
from pto_wsp.errors import ChannelClosed

if TYPE_CHECKING:
    from pto_wsp.errors import SourceLine
    from pto_wsp.scalar_expr import LoopVar
    from pto_wsp.trace.workload import Workload

__all__ = [
    "Channel",
    "Event",
    "Process",
    "connect",
    "consume",
    "process",
    "query",
    "receive",
    "record",
    "replicate",
    "send",
    "synchronize",
    "try_send",
]

_Token = TypeVar("_Token")


# ---------------------------------------------------------------------------------------------- channels


class Channel(Generic[_Token]):
    """A first-in first-out queue between processes. Its identity is the object; names differ in a pipeline.

    depth   tokens it holds; 0: sender and receiver meet

    The methods speak of the host-side buffer, which only `try_send`, `record` and `synchronize` use. They
    may be called from any thread.
    """

    def __init__(self: Channel[Any], name: str, depth: int = 1) -> None:
        self.name = _checked_name(name, type(self).__name__)
        self.depth = integer(depth, f"depth of {type(self).__name__} {name!r}", 0)
        self._changed = threading.Condition()
        self._open = True
        self._buffer: deque[_Token] = deque()
        self._recorded = 0  # signals given by record() so far
        self._consumed = 0  # of those, taken by synchronize()

    def is_open(self) -> bool:
        """Has nobody closed it yet?"""
        return self._open

    def size(self) -> int:
        """Tokens in the host-side buffer."""
        return len(self._buffer)

    def empty(self) -> bool:
        """Does no token of `try_send` lie in it?"""
        return not self._buffer

    def full(self) -> bool:
        """Has it no room for another token? Always true for depth 0."""
        return len(self._buffer) >= self.depth

    def close(self) -> None:
        """No more tokens or signals. Whoever waits for one gets ChannelClosed."""
        with self._changed:
            self._open = False
            self._changed.notify_all()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, depth={self.depth})"


class Event(Channel[None]):
    """A channel for signals between host threads. With depth 0, the default, `record` waits to be heard."""

    def __init__(self, name: str, depth: int = 0) -> None:
        super().__init__(name, depth)


def try_send(channel: Channel[_Token], value: _Token) -> bool:
    """Put a value into the host-side buffer. False when it is full; ChannelClosed on a closed channel."""
    _check_channel(channel, "try_send")
    with channel._changed:
        _check_open(channel, "try_send")
        if channel.full():
            return False
        channel._buffer.append(value)
        return True


def record(event: Channel[Any]) -> None:
    """Signal. Depth 0: then wait until a `synchronize` takes the signal. Otherwise return at once, without bound.

    raises  ChannelClosed when the event is closed, also while waiting
    """
    _check_channel(event, "record")
    with event._changed:
        _check_open(event, "record")
        event._recorded += 1
        mine = event._recorded
        event._changed.notify_all()
        while event.depth == 0 and event._consumed < mine:
            _check_open(event, "record")
            event._changed.wait()


def synchronize(event: Channel[Any]) -> None:
    """Wait for a signal that nobody has taken yet, and take it.

    raises  ChannelClosed when none is left and the event is closed, also while waiting
    """
    _check_channel(event, "synchronize")
    with event._changed:
        while event._consumed == event._recorded:
            _check_open(event, "synchronize")
            event._changed.wait()
        event._consumed += 1
        event._changed.notify_all()


def query(event: Channel[Any]) -> bool:
    """Is there a signal that nobody has taken yet?"""
    _check_channel(event, "query")
    with event._changed:
        return event._recorded > event._consumed


# ---------------------------------------------------------------------------------------------- processes


@dataclass(frozen=True, eq=False)
class Process:
    """One process of a pipeline.

    consumes, produces   channels; a channel is closed when the last process that produces it has ended
    body                 what it does, a Workload
    line                 where it was written
    """

    name: str
    consumes: list[Channel[Any]]
    produces: list[Channel[Any]]
    body: Workload
    line: SourceLine | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class ProcessBuilder:
    """`process(name).consumes(...).produces(...).body(...)`; each call returns another builder or the Process."""

    name: str
    inputs: tuple[Channel[Any], ...] = ()
    outputs: tuple[Channel[Any], ...] = ()

    def consumes(self, *channels: Channel[Any]) -> ProcessBuilder:
        """Channels that the body receives from."""
        return ProcessBuilder(self.name, self.inputs + _channels(channels, "consumes"), self.outputs)

    def produces(self, *channels: Channel[Any]) -> ProcessBuilder:
        """Channels that the body sends to."""
        return ProcessBuilder(self.name, self.inputs, self.outputs + _channels(channels, "produces"))

    def body(self, workload: Workload) -> Process:
        """What the process does."""
        from pto_wsp.trace.source import where

        _check_workload(workload, f"body of process {self.name!r}")
        return Process(self.name, list(self.inputs), list(self.outputs), workload, where())


def process(name: str) -> ProcessBuilder:
    """Start describing a process; names are unique in a pipeline."""
    return ProcessBuilder(_checked_name(name, "process"))


def replicate(proc: Process, count: int) -> list[Process]:
    """`count` independent processes with the same body and channels, named <name>_0, <name>_1, ..."""
    if not isinstance(proc, Process):
        raise TypeError(f"replicate needs a Process, as process(...).body(...) returns; got {proc!r}")
    copies = range(integer(count, f"count in replicate({proc.name!r}, count)", 0))
    return [replace(proc, name=f"{proc.name}_{i}", consumes=list(proc.consumes), produces=list(proc.produces))
            for i in copies]  # fmt: skip


# ------------------------------------------------------------------------------------------ workload nodes


def send(channel: Channel[Any], value: Workload) -> Workload:
    """Run the task `value`, then put its first axis value into the channel, waiting for room."""
    from pto_wsp.trace.workload import Workload

    _check_channel(channel, "send")
    return Workload("send", channel=channel, value=value)


def consume(channel: Channel[Any], body: Callable[[LoopVar], Workload]) -> Workload:
    """Repeat a body for every token until the channel is closed and empty.

    body   called once, when the program is compiled, with a loop variable for the token; returns a Workload
    """
    from pto_wsp.trace.workload import Workload

    _check_channel(channel, "consume")
    if not callable(body):
        raise TypeError(f"consume needs a function of the token that returns a workload; got {body!r}")
    return Workload("consume", channel=channel, body=body)


def receive(
    channel: Channel[Any], body: Callable[[LoopVar], Workload], otherwise: Workload | None = None
) -> Workload:
    """Take one token and run a body once.

    body       called once, when the program is compiled, with a loop variable for the token; returns a Workload
    otherwise  what to do instead when the channel is closed and empty, `combine()` for nothing; without it, to come
               here then is an ExecutionError of the run
    """
    from pto_wsp.trace.workload import Workload

    _check_channel(channel, "receive")
    if not callable(body):
        raise TypeError(f"receive needs a function of the token that returns a workload; got {body!r}")
    if otherwise is not None:
        _check_workload(otherwise, "otherwise= in receive")
    return Workload("receive", channel=channel, body=body, otherwise=otherwise)


def connect(processes: Iterable[Process], channels: Iterable[Channel[Any]]) -> Workload:
    """The pipeline of these processes and channels. It has to be the root of the workload that is compiled."""
    from pto_wsp.trace.workload import Workload

    members = list(processes) if is_sequence(processes) else [processes]
    for member in members:
        if not isinstance(member, Process):
            raise TypeError(f"connect needs Process objects, as process(...).body(...) returns; got {member!r}")
    if not is_sequence(processes):
        raise TypeError(f"connect takes two lists, of processes and of channels; got {processes!r}: put it in a list")
    return Workload("connect", processes=members, channels=list(_channels(channels, "connect")))


# ---------------------------------------------------------------------------------------------- checks


def _check_channel(channel: Any, function: str) -> None:
    if not isinstance(channel, Channel):
        raise TypeError(f"{function} needs a Channel; got {channel!r}")


def _channels(channels: Iterable[Any], function: str) -> tuple[Channel[Any], ...]:
    if not is_sequence(channels):
        raise TypeError(f"{function} needs a list of channels; got {channels!r}")
    for channel in (listed := tuple(channels)):
        _check_channel(channel, function)
    return listed


def _check_open(channel: Channel[Any], function: str) -> None:
    if not channel.is_open():
        raise ChannelClosed(f"{function}: channel {channel.name!r} is closed", channel.name)


def _check_workload(value: Any, what: str) -> None:
    from pto_wsp.trace.workload import Workload

    if not isinstance(value, Workload):
        raise TypeError(f"{what} is a workload, such as send(...), consume(...) or for_each(...); got {value!r}")


def _checked_name(name: Any, what: str) -> str:
    if not isinstance(name, str) or not name:
        raise TypeError(f"{what} needs a name, a non-empty str; got {name!r}")
    return name
