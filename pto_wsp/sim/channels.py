"""Channel engine: whose turn is it in a pipeline, and at which cycle?

Each process has a time of its own. Of all actions that could be performed next, the one with the least (time of its
process, position of the process) is performed, always; its task takes effect at that moment, so what a program
computes is the same in every run, also where processes share tensors without a channel between them.

    task        always possible; its process's time grows by its cycles
    send        to depth 0: when a process waits to receive; both go on at the later of its time and that of the token,
                which is under way for `latency` cycles. Else: when a slot is free; the sender goes on at the later of
                its time and that at which the slot was freed, the slot that was freed earliest
    receive     when there is a token: the later of its time and the token's send + latency; the slot is free from then.
                When the channel is closed and empty: nothing, and the time stays

A channel is closed when all processes that may send to it have ended. In: what the processes of lower/processes.py
want to do next. Out: the order of their rows, counters, and when each task starts. Start reading at `perform`, which
is plain Python over arrays, compiled when there is enough to do (sim/loops.py).
"""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Generator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pto_wsp.errors import Deadlock, ExecutionError
from pto_wsp.lower.expand import Inputs
from pto_wsp.lower.processes import (
    ACTION,
    BODY,
    DURATION,
    END,
    FINISHED,
    FRAME,
    OPEN,
    OWN,
    PORT,
    RECORD,
    TASK,
    TOKEN,
    Pipeline,
)
from pto_wsp.schedule import Schedule
from pto_wsp.sim.inorder import ChannelUse, Counters, Starts, Wait
from pto_wsp.sim.loops import Loop
from pto_wsp.sim.settings import Settings, settle
from pto_wsp.trace.channels import LATENCY
from pto_wsp.trace.source import where
from pto_wsp.trace.tree import Connect, WorkloadTree

__all__ = ["MOST_CYCLES", "ChannelEngine", "PipelineSettings", "settled"]

MOST_CYCLES = 1 << 61
"""The clock stops here, and no token may be under way for longer."""

# What a record holds for the clock: the process's time; its time if no channel were ever full; the heap that it waits
# in; why its next task starts when it does; tasks, busy cycles; the end of its ports; the task whose end its time comes
# from, -1 for none: its own last one, or one of another process that it has waited for.
TIME, PATH, LEFT, RIGHT, WHY, TASKS, BUSY, LAST_PORT, CAUSE = range(OWN, OWN + 9)

# A port: its channel; whether it sends; tokens through it; how often and how long its process waited.
CHANNEL, SENDS, COUNT, STALLS, STALLED, PORT_WORDS = range(6)

# A channel. Its ring has `ROOM` places for tokens from AT on, TOKEN_WORDS each (value, time, path, cause), and behind
# them as many for slots that have become free (time, cause), in the order of these times.
DEPTH, QUEUED, HEAD, FREED, FIRST_FREED, AT, ROOM, SENDERS, SENDING, RECEIVING, HIGH, CHANNEL_WORDS = range(12)

# The state: see ChannelEngine.
DELAY, READY, RESUMED, OTHER, BEGUN, RUNNING, ROW, LATEST, OVERLAPPED, GROW, NUMBER, STATE_WORDS = range(12)

TOKEN_WORDS, SLOT_WORDS = 4, 2
PLACE_WORDS = TOKEN_WORDS + SLOT_WORDS

STUCK, TOO_LONG, NO_ROOM, FAILED = -2, -3, -4, -5
"""What `perform` returns beside a process and FINISHED: nothing is possible; a time beyond MOST_CYCLES; the ring of
channel GROW is too small; it is Python, and has raised something."""

NOTHING, WORKER_BUSY = int(Wait.NOTHING), int(Wait.WORKER_BUSY)
CHANNEL_EMPTY, CHANNEL_FULL = int(Wait.CHANNEL_EMPTY), int(Wait.CHANNEL_FULL)


# ---- the clock -----------------------------------------------------------------------------------------------------


def perform(
    state: Any, records: Any, ports: Any, channels: Any, rings: Any, start: Any, worker: Any, wait: Any, cause: Any
) -> int:
    """Perform the next action; the process that goes on, as the position of its record, or a number below 0.

    The process that went on last has noted its next action in its record. A process waits in one of several heaps: of
    those whose action is possible, as far as is known; or of a channel, of those that wait to send or to receive there.
    As many of the latter are moved to the former as tokens or slots appear; who finds them gone moves back.
    """
    p = state[RESUMED]
    state[RESUMED] = -1
    if p >= 0 and arrive(state, records, ports, channels, p) < 0:
        return TOO_LONG
    p = state[OTHER]
    if p >= 0:
        state[OTHER] = -1
        state[RESUMED] = p
        return p  # type: ignore[no-any-return]
    if state[BEGUN] < len(records):
        p = state[BEGUN]
        state[BEGUN] = p + RECORD
        state[RESUMED] = p
        return p  # type: ignore[no-any-return]

    while state[READY] >= 0:
        p = state[READY]
        action = records[p + ACTION]
        if action < 0:
            take_first(records, state, READY)
            if action == TASK:
                begin_task(state, records, start, worker, wait, cause, p)
            state[RESUMED] = p
            return p  # type: ignore[no-any-return]
        port = action * PORT_WORDS
        c = ports[port + CHANNEL]
        if ports[port + SENDS] == 0:
            if channels[c + QUEUED] > 0:
                if channels[c + FREED] == channels[c + ROOM]:
                    state[GROW] = c
                    return NO_ROOM
                take_first(records, state, READY)
                receive(state, records, ports, channels, rings, p, port, c)
                state[RESUMED] = p
                return p  # type: ignore[no-any-return]
            if channels[c + SENDERS] == 0:
                take_first(records, state, READY)
                records[p + OPEN] = 0
                state[RESUMED] = p
                return p  # type: ignore[no-any-return]
            take_first(records, state, READY)
            put(records, channels, c + RECEIVING, p)
        elif channels[c + DEPTH] == 0:
            take_first(records, state, READY)
            if channels[c + RECEIVING] >= 0:
                meet(state, records, ports, channels, p, port, c)
                state[RESUMED] = p
                return p  # type: ignore[no-any-return]
            put(records, channels, c + SENDING, p)
        elif channels[c + QUEUED] < channels[c + DEPTH]:
            if channels[c + QUEUED] == channels[c + ROOM]:
                state[GROW] = c
                return NO_ROOM
            take_first(records, state, READY)
            send(state, records, ports, channels, rings, p, port, c)
            state[RESUMED] = p
            return p  # type: ignore[no-any-return]
        else:
            take_first(records, state, READY)
            put(records, channels, c + SENDING, p)
    return FINISHED if state[RUNNING] == 0 else STUCK


def arrive(state: Any, records: Any, ports: Any, channels: Any, p: int) -> int:
    """A process has come to its next action; -1 when its time is beyond what the clock can count."""
    duration = records[p + DURATION]
    if duration != 0:
        records[p + DURATION] = 0
        if duration < 0 or duration > MOST_CYCLES:
            return -1
        records[p + TIME] += duration
        records[p + PATH] += duration
        records[p + BUSY] += duration
        state[LATEST] = max(state[LATEST], records[p + TIME])
    if records[p + TIME] > MOST_CYCLES:
        return -1
    action = records[p + ACTION]
    if action == END:
        state[RUNNING] -= 1
        for k in range(records[p + PORT], records[p + LAST_PORT]):
            port = k * PORT_WORDS
            if ports[port + SENDS] != 0:
                c = ports[port + CHANNEL]
                channels[c + SENDERS] -= 1
                if channels[c + SENDERS] == 0:  # closed: whoever waits to receive learns it
                    state[READY] = merge(records, state[READY], channels[c + RECEIVING])
                    channels[c + RECEIVING] = -1
        return 0
    if action >= 0:
        port = action * PORT_WORDS
        c = ports[port + CHANNEL]
        if ports[port + SENDS] != 0:
            free = channels[c + QUEUED] < channels[c + DEPTH]
            if channels[c + DEPTH] == 0:
                free = channels[c + RECEIVING] >= 0
            if not free:
                put(records, channels, c + SENDING, p)
                return 0
        elif channels[c + QUEUED] == 0 and channels[c + SENDERS] > 0:
            put(records, channels, c + RECEIVING, p)
            if channels[c + DEPTH] == 0:
                wake(state, records, channels, c + SENDING)
            return 0
    put(records, state, READY, p)
    return 0


def begin_task(state: Any, records: Any, start: Any, worker: Any, wait: Any, cause: Any, p: int) -> int:
    """Note when the task starts whose row comes next, what its process has been waiting for, and whom."""
    row, now = state[ROW], records[p + TIME]
    start[row] = now
    worker[row] = p // RECORD
    wait[row] = records[p + WHY] if now > 0 else NOTHING
    cause[row] = records[p + CAUSE]
    records[p + WHY], records[p + CAUSE] = WORKER_BUSY, state[NUMBER]
    state[NUMBER] += 1
    records[p + TASKS] += 1
    if now < state[LATEST]:
        state[OVERLAPPED] += 1
    return 0


def send(state: Any, records: Any, ports: Any, channels: Any, rings: Any, p: int, port: int, c: int) -> int:
    """Into a slot: of those that are free, the one that was freed earliest."""
    now, room = records[p + TIME], channels[c + ROOM]
    if channels[c + QUEUED] + channels[c + FREED] == channels[c + DEPTH]:  # every slot has been used
        first = channels[c + FIRST_FREED]
        slot = channels[c + AT] + TOKEN_WORDS * room + SLOT_WORDS * first
        now = delay(records, ports, p, port, rings[slot], rings[slot + 1], CHANNEL_FULL)
        channels[c + FIRST_FREED] = first + 1 if first + 1 < room else 0
        channels[c + FREED] -= 1
    place = channels[c + HEAD] + channels[c + QUEUED]
    place = channels[c + AT] + TOKEN_WORDS * (place if place < room else place - room)
    rings[place], rings[place + 1] = records[p + TOKEN], now
    rings[place + 2], rings[place + 3] = records[p + PATH], records[p + CAUSE]
    channels[c + QUEUED] += 1
    ports[port + COUNT] += 1
    if channels[c + HIGH] < channels[c + DEPTH]:
        count_occupied(channels, rings, c, now)
    return wake(state, records, channels, c + RECEIVING)


def count_occupied(channels: Any, rings: Any, c: int, now: int) -> int:
    """The high-water mark: slots with a token, and those that are freed after now."""
    room, low, high = channels[c + ROOM], 0, channels[c + FREED]
    freed = channels[c + AT] + TOKEN_WORDS * room
    while low < high:  # the first that is freed after now
        middle = (low + high) >> 1
        place = channels[c + FIRST_FREED] + middle
        if rings[freed + SLOT_WORDS * (place if place < room else place - room)] > now:
            high = middle
        else:
            low = middle + 1
    channels[c + HIGH] = max(channels[c + HIGH], channels[c + QUEUED] + channels[c + FREED] - low)
    return 0


def receive(state: Any, records: Any, ports: Any, channels: Any, rings: Any, p: int, port: int, c: int) -> int:
    """The oldest token; its slot is free from then on."""
    room = channels[c + ROOM]
    place = channels[c + AT] + TOKEN_WORDS * channels[c + HEAD]
    now = delay(records, ports, p, port, rings[place + 1] + state[DELAY], rings[place + 3], CHANNEL_EMPTY)
    records[p + PATH] = max(records[p + PATH], rings[place + 2] + state[DELAY])
    records[p + TOKEN], records[p + OPEN] = rings[place], 1
    following = channels[c + HEAD] + 1
    channels[c + HEAD] = following if following < room else 0
    channels[c + QUEUED] -= 1
    ports[port + COUNT] += 1
    freed, k = channels[c + AT] + TOKEN_WORDS * room, channels[c + FREED]
    channels[c + FREED] = k + 1
    place = channels[c + FIRST_FREED] + k
    place = freed + SLOT_WORDS * (place if place < room else place - room)
    while k > 0:  # nearly always the latest; not where several processes receive
        previous = place - SLOT_WORDS if place > freed else freed + SLOT_WORDS * (room - 1)
        if rings[previous] <= now:
            break
        rings[place], rings[place + 1] = rings[previous], rings[previous + 1]
        place = previous
        k -= 1
    rings[place], rings[place + 1] = now, records[p + CAUSE]
    return wake(state, records, channels, c + SENDING)


def meet(state: Any, records: Any, ports: Any, channels: Any, p: int, port: int, c: int) -> int:
    """Hand a token to the process that has waited first for it; both go on at the same time."""
    q = channels[c + RECEIVING]
    take_first(records, channels, c + RECEIVING)
    records[q + PATH] = max(records[q + PATH], records[p + PATH] + state[DELAY])
    of_q, sent, mine = records[q + ACTION] * PORT_WORDS, records[p + TIME] + state[DELAY], records[p + CAUSE]
    if records[q + TIME] > sent:
        mine = records[q + CAUSE]
    now = delay(records, ports, q, of_q, sent, records[p + CAUSE], CHANNEL_EMPTY)
    delay(records, ports, p, port, now, mine, CHANNEL_FULL)
    records[q + TOKEN], records[q + OPEN] = records[p + TOKEN], 1
    ports[port + COUNT] += 1
    ports[of_q + COUNT] += 1
    state[OTHER] = q
    return 0


def delay(records: Any, ports: Any, p: int, port: int, until: int, cause: int, why: int) -> int:
    """A process waits at a port until then, if that is later than its time; its time. `cause`: of that moment."""
    now = records[p + TIME]
    if now < until:
        ports[port + STALLS] += 1
        ports[port + STALLED] += until - now
        records[p + TIME], records[p + WHY], records[p + CAUSE] = until, why, cause
        return until
    return now  # type: ignore[no-any-return]


# ---- heaps of processes, by time and position. A heap is a word that holds its root; they are skew heaps.


def before(records: Any, a: int, b: int) -> int:
    """1 if process a goes before process b."""
    if records[a + TIME] != records[b + TIME]:
        return 1 if records[a + TIME] < records[b + TIME] else 0
    return 1 if a < b else 0


def merge(records: Any, a: int, b: int) -> int:
    """The root of one heap that is made of two; -1 stands for an empty one."""
    if a < 0 or b < 0:
        return max(a, b)
    if before(records, b, a) == 1:
        a, b = b, a
    root = a
    while True:
        rest = records[a + RIGHT]
        records[a + RIGHT] = records[a + LEFT]
        if rest < 0:
            records[a + LEFT] = b
            return root
        if before(records, b, rest) == 1:
            rest, b = b, rest
        records[a + LEFT] = rest
        a = rest


def put(records: Any, heaps: Any, heap: int, p: int) -> int:
    """Add a process to a heap."""
    records[p + LEFT] = records[p + RIGHT] = -1
    heaps[heap] = merge(records, heaps[heap], p)
    return 0


def take_first(records: Any, heaps: Any, heap: int) -> int:
    """Take the first process out of a heap; it."""
    p = heaps[heap]
    heaps[heap] = merge(records, records[p + LEFT], records[p + RIGHT])
    return p  # type: ignore[no-any-return]


def wake(state: Any, records: Any, channels: Any, heap: int) -> int:
    """What a process waits for at a channel has appeared: the first of them may be the next to act."""
    if channels[heap] >= 0:
        put(records, state, READY, take_first(records, channels, heap))
    return 0


# ---- the schedule of a pipeline ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PipelineSettings(Settings):
    """What runs where in a pipeline: each process is a worker."""

    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return (
            "engine    channels: each process does one thing after the other, and waits for tokens and for room\n"
            f"workers   {len(self.names)}, the processes {', '.join(self.names)}"
        )


def settled(tree: WorkloadTree, schedule: Schedule, said: bool = False) -> Settings:
    """The effective settings of a schedule for this workload.

    In a pipeline a schedule has no effect; the user is warned of that, unless it has been `said` before.
    raises  ScheduleError for what a schedule cannot do
    """
    settings = settle(schedule)
    if not isinstance(tree.root, Connect):
        return settings
    given = schedule.to_dict()
    if given and not said:
        line = where()
        warnings.warn_explicit(
            f"{tree.name} is a pipeline, where a schedule has no effect (given: {', '.join(given)}). Each process is a "
            "worker of its own. More workers: replicate(process, n). Fewer tasks in flight: a smaller channel depth.",
            UserWarning,
            line.file,
            line.line,
        )
    names = tuple(process.name for process in tree.root.processes)
    plain = replace(settle(Schedule()), engine="channels", dispatch="processes", workers=len(names))
    return PipelineSettings(**{f.name: getattr(plain, f.name) for f in fields(Settings)}, names=names)


# ---- the engine ----------------------------------------------------------------------------------------------------


# Plain Python performs a hundred thousand actions per second, machine code forty million. It takes milliseconds to
# load, and a third of a second to make where that has never been done.
PERFORM = Loop(
    perform, *["i64[]"] * 6, "i32[]", "u8[]", "i64[]",  # state, records, ports, channels, rings, start ... cause
    loading=300, making=30_000,
)  # fmt: skip


class ChannelEngine:
    """The clock of one run of a pipeline: a lower.expand.Clock. Afterwards ask for its `counters`.

    latency  cycles that each token is under way
    starts   of the tasks in the table, until the next chunk
    raises   ExecutionError for a latency that is too long
    """

    def __init__(self, pipeline: Pipeline, latency: int = 0) -> None:
        if not 0 <= latency <= MOST_CYCLES:
            raise ExecutionError(f"{LATENCY} is {latency:,} cycles; at most 2^61 are possible")
        self.pipeline = pipeline
        self._state = np.zeros(STATE_WORDS, np.int64)
        self._state[[READY, RESUMED, OTHER]] = -1
        self._state[DELAY], self._state[RUNNING] = latency, len(pipeline.processes)
        self._channels, self._rings = self._empty_channels()
        self._records, self._ports = self._records_and_ports()
        self._steps = self._perform()
        next(self._steps)
        self._plain = _PERFORM(self._steps.send)  # the callback
        self._failure: BaseException | None = None

    @staticmethod
    def of(pipeline: Pipeline, inputs: Inputs) -> ChannelEngine:
        """The clock for a run with these inputs."""
        return ChannelEngine(pipeline, inputs.symbols.get(LATENCY, 0))

    def _empty_channels(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        channels = np.zeros((len(self.pipeline.node.channels), CHANNEL_WORDS), np.int64)
        at = 0
        for words, channel in zip(channels, self.pipeline.node.channels, strict=True):
            words[[DEPTH, AT, ROOM]] = channel.depth, at, min(channel.depth, 8)
            words[[SENDING, RECEIVING]] = -1
            at += PLACE_WORDS * int(words[ROOM])
        return channels.reshape(-1), np.zeros(at, np.int64)

    def _records_and_ports(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        number = {id(c): k * CHANNEL_WORDS for k, c in enumerate(self.pipeline.node.channels)}
        processes = self.pipeline.processes
        records = np.zeros((len(processes), RECORD), np.int64)
        ports = np.zeros((sum(len(p.ports) for p in processes), PORT_WORDS), np.int64)
        for record, process in zip(records, processes, strict=True):
            last = process.first_port + len(process.ports)
            record[CAUSE] = -1
            record[[BODY, PORT, LAST_PORT]] = process.body, process.first_port, last
            for words, port in zip(ports[process.first_port : last], process.ports, strict=True):
                words[CHANNEL], words[SENDS] = number[id(port.channel)], port.sends
                self._channels[number[id(port.channel)] + SENDERS] += port.sends
        return records.reshape(-1), ports.reshape(-1)

    # -- lower.expand.Clock

    def begin(self, rows: int, frame_words: int) -> NDArray[np.int64]:
        """A run begins."""
        self._frames = np.zeros((len(self.pipeline.processes), frame_words), np.int64)
        self._records[FRAME::RECORD] = self._frames.ctypes.data + 8 * frame_words * np.arange(len(self._frames))
        start, cause = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
        self.starts = Starts(start, np.zeros(rows, np.int32), np.zeros(rows, np.uint8), cause=cause)
        self._given = np.zeros(2 * len(PERFORM.types), np.int64)
        state = self._state.ctypes.data
        self._shared = np.array([0, self._given.ctypes.data, self._records.ctypes.data, state + 8 * ROW], np.int64)
        self._share()
        self._choose()
        return self._shared

    def attend(self, what: int) -> None:
        """The clock cannot go on by itself."""
        if what == NO_ROOM:
            self._grow(int(self._state[GROW]))
        elif what == TOO_LONG:
            raise ExecutionError("the processes need more cycles than the clock can count, 2^61")
        elif what == STUCK:
            raise Deadlock(self._why_stuck())
        elif self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _arrays(self) -> tuple[NDArray[Any], ...]:
        starts = self.starts
        assert starts.cause is not None
        return (
            self._state, self._records, self._ports, self._channels, self._rings,
            starts.start, starts.worker, starts.wait, starts.cause,
        )  # fmt: skip

    def _share(self) -> None:
        """Where the arrays are, for machine code and for Python."""
        self._given[::2] = [array.ctypes.data for array in self._arrays()]
        self._given[1::2] = [array.size for array in self._arrays()]
        self._views = [array.data for array in self._arrays()]  # elements as Python's ints

    def _choose(self) -> None:
        """Python or machine code from now on."""
        self._code = PERFORM.machine_code()
        if self._code is not None:
            self._shared[0] = self._code.code.address("entry")  # type: ignore[attr-defined]
        else:
            self._shared[0] = ctypes.cast(self._plain, ctypes.c_void_p).value or 0

    def _perform(self) -> Generator[int, int, None]:
        """`perform` in Python, as native code calls it: by send(), so that Ctrl-C is caught wherever it comes. Before
        the first line of a function it would be lost, and native code would go on with what lies on the stack."""
        answer = FAILED
        while True:
            try:
                while True:
                    yield answer
                    PERFORM.played += 1
                    if PERFORM.played % PERFORM.loading == 0:
                        self._choose()  # for the next time
                    answer = perform(*self._views)
            except GeneratorExit:
                return
            except BaseException as error:
                self._failure, answer = error, FAILED

    def _grow(self, channel: int) -> None:
        """Twice the places in the ring of a channel."""
        words = self._channels[channel : channel + CHANNEL_WORDS]
        rooms = self._channels[ROOM::CHANNEL_WORDS]
        old_rings, old = self._rings, self._channels.reshape(-1, CHANNEL_WORDS).copy()
        words[ROOM] = min(2 * words[ROOM], words[DEPTH])
        self._channels[AT::CHANNEL_WORDS] = PLACE_WORDS * (np.cumsum(rooms) - rooms)
        self._rings = np.zeros(PLACE_WORDS * int(rooms.sum()), np.int64)
        for before, now in zip(old, self._channels.reshape(-1, CHANNEL_WORDS), strict=True):
            room, at, to = int(before[ROOM]), int(before[AT]), int(now[AT])
            for size, first in ((TOKEN_WORDS, HEAD), (SLOT_WORDS, FIRST_FREED)):
                part = np.roll(old_rings[at : at + size * room], -size * int(before[first]))
                self._rings[to : to + size * room] = part
                at, to, now[first] = at + size * room, to + size * int(now[ROOM]), 0
        self._share()

    # -- what it found

    def _record(self, process: int) -> NDArray[np.int64]:
        return self._records[RECORD * process : RECORD * (process + 1)]

    def counters(self) -> Counters:
        """The totals, after the run."""
        time, path = self._records[TIME::RECORD], self._records[PATH::RECORD]
        tasks, busy = self._records[TASKS::RECORD], self._records[BUSY::RECORD]
        return Counters(
            total_cycles=int(time.max(initial=0)),
            task_count=int(tasks.sum()),
            work_cycles=int(busy.sum()),
            critical_path_cycles=int(path.max(initial=0)),
            parallel_tasks=int(self._state[OVERLAPPED]),
            tasks=tuple(tasks.tolist()),
            busy=tuple(busy.tolist()),
            window_stalls=0,
            window_stalled_cycles=0,
            dependency_stalls=0,
            dependency_stalled_cycles=0,
            lanes=tuple(process.name for process in self.pipeline.processes),
            channels=tuple(self._use(k) for k in range(len(self.pipeline.node.channels))),
        )

    def _use(self, number: int) -> ChannelUse:
        channel, words = self.pipeline.node.channels[number], self._channels[CHANNEL_WORDS * number :]
        ports = self._ports.reshape(-1, PORT_WORDS)
        ports = ports[ports[:, CHANNEL] == number * CHANNEL_WORDS]
        sends, receives = (ports[(ports[:, SENDS] == k), :].sum(axis=0).tolist() for k in (1, 0))
        return ChannelUse(
            channel.name, channel.depth, sends[COUNT], int(words[HIGH]), receives[STALLS], receives[STALLED],
            sends[STALLS], sends[STALLED], int(words[QUEUED]),
        )  # fmt: skip

    def _why_stuck(self) -> str:
        """Who waits for what, and how to fix it."""
        lines, hints = ["no process of the pipeline can go on:"], dict[str, None]()
        for number, process in enumerate(self.pipeline.processes):
            record = self._record(number)
            if record[ACTION] < 0:
                continue
            port = process.ports[int(record[ACTION]) - process.first_port]
            done = int(self._ports[int(record[ACTION]) * PORT_WORDS + COUNT])
            name, depth = port.channel.name, port.channel.depth
            others = self._at_other_end(port.channel, not port.sends)
            if port.sends:
                what = f"send to {name!r} (its {_ordinal(done + 1)} send there)"
                how = f"depth {depth}, {'full' if depth else 'nobody receives'}; received from by {others or 'none'}"
                hint = (
                    f"let a process consume {name!r}, or give it depth {depth + 1} or more" if not others else
                    f"give {name!r} a greater depth than {depth}, or send and receive in the same order at both ends"
                )  # fmt: skip
            else:
                what = f"receive from {name!r} (its {_ordinal(done + 1)} receive there)"
                how = f"empty; sent to by {others}"
                hint = f"let {others} send to {name!r} before waiting for something else"
            lines.append(f"  {process.name} waits at cycle {record[TIME]} to {what}: {how}")
            hints[hint] = None
        return "\n".join([*lines, "To fix it: " + "; ".join(hints) + "."])

    def _at_other_end(self, channel: Any, sends: bool) -> str:
        """The processes that have that end of a channel, and those of them that have ended."""
        names = []
        for number, process in enumerate(self.pipeline.processes):
            if any(p.channel is channel and p.sends is sends for p in process.ports):
                names.append(process.name + (" (ended)" if self._record(number)[ACTION] == END else ""))
        return ", ".join(names)


def _ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, ..."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10 if number % 100 not in (11, 12, 13) else 0, "th")
    return f"{number:,}{ending}"


_PERFORM = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)
