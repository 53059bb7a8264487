"""What the processes of a pipeline do with its channels, read off their bodies, and whether that can work.

In: a Connect node. Out: its Ports, or an error at the user's line. A channel is closed when every process that may send
to it has ended; which those are follows from the bodies, and what processes declare has to agree with that.
Start reading at `check`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pto_wsp.errors import CompileError
from pto_wsp.trace.tree import Connect, Consume, ProcessTree, Receive, Send, TreeNode, children

if TYPE_CHECKING:
    from pto_wsp.csp import Channel
    from pto_wsp.errors import SourceLine

__all__ = ["LATENCY", "Port", "check", "ports_of"]

LATENCY = "__pto_wsp_channel_latency_cycles"
"""The run-time symbol: cycles that a token is under way, in every channel."""


@dataclass(frozen=True, eq=False)
class Port:
    """One end of a channel: that a body sends to it, or that it receives from it."""

    channel: Channel[Any]
    sends: bool
    line: SourceLine | None


def ports_of(body: TreeNode) -> tuple[Port, ...]:
    """The ends that a body holds, in the order in which they are written."""
    found: dict[tuple[int, bool], Port] = {}
    for node in _nodes(body):
        if isinstance(node, (Send, Consume, Receive)):
            sends = isinstance(node, Send)
            found.setdefault((id(node.channel), sends), Port(node.channel, sends, node.line))
    return tuple(found.values())


def _nodes(body: TreeNode) -> Iterator[TreeNode]:
    left = [body]
    while left:
        node = left.pop()
        yield node
        left.extend(reversed(children(node)))


def check(node: Connect) -> None:
    """Can these processes and channels work together?

    raises  CompileError: names that are not unique, channels that connect(...) is not given, what a process produces
            and does not declare or the other way round, channels that are received from and never sent to
    """
    _check_names("processes", [(p.name, p.line) for p in node.processes], node, "; replicate(p, n) makes n of one")
    _check_names("channels", [(c.name, None) for c in node.channels], node, "")
    produced: set[int] = set()
    consumed: dict[int, tuple[ProcessTree, Port]] = {}
    for process in node.processes:
        ports = ports_of(process.body)
        _check_known(process, ports, node)
        _check_declared(process, ports)
        produced.update(id(port.channel) for port in ports if port.sends)
        consumed.update({id(port.channel): (process, port) for port in ports if not port.sends})
    for channel, (process, port) in consumed.items():
        if channel not in produced:
            raise CompileError(
                f"process {process.name!r} receives from channel {port.channel.name!r}, but no process of this "
                "pipeline sends to it. Let one send(...) to it, and declare .produces(...)."
            ).at(port.line)


def _check_names(what: str, given: list[tuple[str, SourceLine | None]], node: Connect, hint: str) -> None:
    seen = set()
    for name, line in given:
        if name in seen:
            raise CompileError(
                f"two {what} of a pipeline are called {name!r}; names are unique in a pipeline{hint}."
            ).at(line or node.line)
        seen.add(name)


def _check_known(process: ProcessTree, ports: tuple[Port, ...], node: Connect) -> None:
    given = {id(c) for c in node.channels}
    for channel, line in [(p.channel, p.line) for p in ports] + [
        (c, process.line) for c in (*process.consumes, *process.produces)
    ]:
        if id(channel) not in given:
            known = ", ".join(repr(c.name) for c in node.channels) or "none"
            same = " (another channel of that name)" if channel.name in {c.name for c in node.channels} else ""
            raise CompileError(
                f"process {process.name!r} uses channel {channel.name!r}, which connect(..., [channels]) is not given"
                f"{same}; it is given: {known}."
            ).at(line)


def _check_declared(process: ProcessTree, ports: tuple[Port, ...]) -> None:
    for sends, declared, method in ((True, process.produces, "produces"), (False, process.consumes, "consumes")):
        used = {id(p.channel): p for p in ports if p.sends is sends}
        verb = "sends to" if sends else "receives from"
        missing = [p for k, p in used.items() if k not in {id(c) for c in declared}]
        unused = [c for c in declared if id(c) not in used]
        messages = [
            (f"process {process.name!r} {verb} {p.channel.name!r} without declaring it: add .{method}(...).", p.line)
            for p in missing
        ] + [
            (f"process {process.name!r} declares .{method}({c.name!r}), but its body never {verb} it.", process.line)
            for c in unused
        ]
        for message, line in messages:
            if sends:
                raise CompileError(message).at(line)
            _warn(message, line)


def _warn(message: str, line: SourceLine | None) -> None:
    if line is None:
        warnings.warn(message, stacklevel=2)
    else:
        warnings.warn_explicit(message, UserWarning, line.file, line.line)
