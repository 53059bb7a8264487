"""Pipelines as plain descriptions, what they mean in plain Python, and how a user would write them.

A description is a Net: channels (depth each) and processes (a list of steps each). A step is a tuple:

    ("run", w)                     a task of 4 w cycles
    ("send", channel, w, token)    the same, then a token: an int, or "var" for the innermost loop or token variable
    ("loop", n, steps)             n times, the variable from 0 to n - 1
    ("odd", steps, steps)          the first if the innermost variable is odd, else the second
    ("consume", channel, steps)
    ("receive", channel, steps, steps or None)

`play` is execution.md 6.4 word by word: a list of processes, each a generator of its actions. Each task multiplies the
first w columns of one shared row by 31 and adds a number that names it, so the row tells in which order tasks have run.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pto_wsp import DType, InOut, Scalar, Tensor, Tile, kernel, pto
from pto_wsp.csp import Channel, connect, consume, process, receive, send
from pto_wsp.scalar_expr import as_expr
from pto_wsp.trace.author import combine, cond, for_each, parallel_for, sequential, task

WIDEST = 6


@dataclass
class Net:
    depths: list[int]
    processes: list[list]
    latency: int = 0


@dataclass
class Played:
    """What a run does: per task (process, start); the times of the processes; the shared row."""

    tasks: list[tuple[int, int]] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    row: np.ndarray = field(default_factory=lambda: np.zeros((1, WIDEST), np.int32))
    stuck: list[tuple[int, int, str, int]] = field(default_factory=list)  # process, channel, what, time
    stalls: dict[str, int] = field(default_factory=lambda: {"send": 0, "recv": 0})
    unmet: bool = False

    @property
    def total(self):
        return max(self.times, default=0)


class Unmet(Exception):
    """A receive without `otherwise` from a channel that is closed and empty."""


def actions(steps, values):
    """A generator of ("run", w, number) | ("send", channel, token) | ("recv", channel); the last is sent the token."""
    for step in steps:
        if step[0] == "run":
            yield "run", step[1], values[-1]
        elif step[0] == "send":
            token = values[-1] if step[3] == "var" else step[3]
            yield "run", step[2], token
            yield "send", step[1], token
        elif step[0] == "loop":
            for i in range(step[1]):
                yield from actions(step[2], [*values, i])
        elif step[0] == "odd":
            yield from actions(step[1] if values[-1] % 2 else step[2], values)
        elif step[0] == "consume":
            while (token := (yield "recv", step[1])) is not None:
                yield from actions(step[2], [*values, token])
        else:
            token = yield "recv", step[1]
            if token is not None:
                yield from actions(step[2], [*values, token])
            elif step[3] is None:
                raise Unmet
            else:
                yield from actions(step[3], values)


def senders(net):
    """Per channel, the processes that may send to it."""

    def sends(steps):
        for step in steps:
            if step[0] == "send":
                yield step[1]
            for part in step:
                if isinstance(part, list):
                    yield from sends(part)

    per_process = [set(sends(steps)) for steps in net.processes]
    return [{p for p, found in enumerate(per_process) if c in found} for c in range(len(net.depths))]


def play(net, most=500):
    """execution.md 6.4; None when there are more than `most` tasks, as where a process sends to itself for ever."""
    out, latency = Played(), net.latency
    count = len(net.processes)
    running = [actions(steps, [0]) for steps in net.processes]
    time, following = [0] * count, [None] * count
    tokens = [[] for _ in net.depths]
    freed = [[0] * depth for depth in net.depths]
    open_senders = senders(net)

    def advance(p, answer=None):
        try:
            following[p] = running[p].send(answer)
        except StopIteration:
            following[p] = None
            for who in open_senders:
                who.discard(p)

    def executable(p):
        action = following[p]
        if action is None or action[0] == "run":
            return action is not None
        c = action[1]
        if action[0] == "recv":
            return bool(tokens[c]) or not open_senders[c]
        return bool(receivers(c)) if net.depths[c] == 0 else bool(freed[c])

    def receivers(c):
        return [(time[q], q) for q in range(count) if following[q] == ("recv", c)]

    try:
        for p in range(count):
            advance(p)
        while possible := [(time[p], p) for p in range(count) if executable(p)]:
            now, p = min(possible)
            kind, what = following[p][:2]
            if kind == "run":
                if len(out.tasks) == most:
                    return None
                out.tasks.append((p, now))
                step = out.row[0, :what]
                step[:] = step * np.int32(31) + np.int32(following[p][2] + 7 * what)
                time[p] = now + 4 * what
                advance(p)
            elif kind == "recv" and tokens[what]:
                token, sent = tokens[what].pop(0)
                time[p] = max(now, sent + latency)
                out.stalls["recv"] += time[p] - now
                freed[what].append(time[p])
                advance(p, token)
            elif kind == "recv":
                advance(p)
            elif net.depths[what] == 0:
                token = following[p][2]
                before, q = min(receivers(what))
                time[p] = time[q] = max(before, now + latency)
                out.stalls["send"] += time[p] - now
                out.stalls["recv"] += time[p] - before
                advance(p)
                advance(q, token)
            else:
                token = following[p][2]
                slot = min(freed[what])
                freed[what].remove(slot)
                time[p] = max(now, slot)
                out.stalls["send"] += time[p] - now
                tokens[what].append((token, time[p]))
                advance(p)
    except Unmet:
        out.unmet = True
    out.times = time
    out.stuck = [(p, a[1], a[0], time[p]) for p, a in enumerate(following) if a is not None]
    return out


# ---- the same, as a user writes it -----------------------------------------------------------------------------------


def _kernel(width):
    @kernel
    def step(x: InOut[Tile[1, width, DType.I32]], k: Scalar[DType.I32]):
        pto.store(x, pto.add(pto.mul(x, 31), k))

    return step


KERNELS = {width: _kernel(width) for width in range(1, WIDEST + 1)}


class Written:
    """A Net as a workload. `row` is the array that its tasks change."""

    def __init__(self, net):
        self.row = np.zeros((1, WIDEST), np.int32)
        self.tensor = Tensor(self.row, self.row.shape, DType.I32)
        self.channels = [Channel(f"c{k}", depth=depth) for k, depth in enumerate(net.depths)]
        made = []
        for number, steps in enumerate(net.processes):
            sends, receives = ends(steps, "send"), ends(steps, "consume", "receive")
            builder = process(f"p{number}").produces(*(self.channels[c] for c in sends))
            made.append(builder.consumes(*(self.channels[c] for c in receives)).body(self.block(steps, 0)))
        self.workload = connect(made, self.channels)

    def block(self, steps, value):
        parts = [self.step(step, value) for step in steps]
        return parts[0] if len(parts) == 1 else (sequential if len(parts) % 2 else combine)(*parts)

    def step(self, step, value):
        kind = step[0]
        if kind == "run":
            return self.task(step[1], value, value)
        if kind == "send":
            token = value if step[3] == "var" else step[3]
            return send(self.channels[step[1]], self.task(step[2], token, token))
        if kind == "loop":
            loop = for_each if step[1] % 2 else parallel_for
            return loop(step[1], lambda i: self.block(step[2], i))
        if kind == "odd":
            return cond(as_expr(value) % 2 != 0, self.block(step[1], value), self.block(step[2], value))
        if kind == "consume":
            return consume(self.channels[step[1]], lambda t: self.block(step[2], t))
        otherwise = None if step[3] is None else self.block(step[3], value)
        return receive(self.channels[step[1]], lambda t: self.block(step[2], t), otherwise)

    def task(self, width, axis, value):
        number = as_expr(value) + 7 * width if not isinstance(value, int) else value + 7 * width
        return task(KERNELS[width], [axis], {"x": self.tensor[:, 0:width], "k": number})


def ends(steps, *kinds):
    """The channels that steps use in one of these ways, in order."""
    found = {}
    for step in steps:
        if step[0] in kinds:
            found[step[1]] = None
        for part in step:
            if isinstance(part, list):
                found.update(dict.fromkeys(ends(part, *kinds)))
    return list(found)
