"""In-order engine: at which cycle does each task start, when tasks are issued strictly in program order?

In: the rows of a TaskTable, chunk by chunk (tasks, and the places where parallel and sequential blocks open
and close). Out: counters and, if asked for, start, worker and wait reason per task. Start reading at `play`:
it is plain Python over arrays, compiled when there is enough work to pay for that (sim/loops.py); both give
the same numbers. Nothing here looks at data or at the host's clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pto_wsp.errors import ExecutionError, ScheduleError, WindowOverflow
from pto_wsp.lower.tasks import ENTER_SEQUENTIAL, EXIT, TaskTable
from pto_wsp.schedule import WindowMode
from pto_wsp.sim.hazards import TileUses, weights_of
from pto_wsp.sim.keys import Keys
from pto_wsp.sim.loops import Loop

__all__ = ["Counters", "InOrderEngine", "Starts", "Wait"]

# Slots of the state array.
(CLOCK, DEPTH, TURN, IN_FLIGHT, BUSY_LANES, TASKS, WORK, MAKESPAN, OVERLAPPED,
 WINDOW_STALLS, WINDOW_CYCLES, DEPENDENCY_STALLS, DEPENDENCY_CYCLES,
 SEQUENTIAL, READY, DONE, PATH_READY, PATH_DONE, TASKS_READY, TASKS_DONE, LAST_READY, LAST_DONE,
 FREE_SLOT, SLOTS, HELD, MOST_HELD, OVERFLOWS, REFUSED, STATE_SIZE) = range(29)  # fmt: skip
# PATH, TASKS, LAST  the longest chain of tasks to READY and to DONE: its cycles, its length, its last task
# FREE_SLOT          the first slot of a task that has ended, -1 for none;  SLOTS: that have been used
# HELD, MOST_HELD    of the window, in its unit, now and at most;  OVERFLOWS: tasks that it had no room for
# REFUSED            1 when the window has no room for the next task, and that is an error

STALL, ABORT, BENCHMARK = range(3)
MODES = (WindowMode.STALL, WindowMode.ABORT, WindowMode.BENCHMARK)

FRAME = 9  # words that a block saves

CHAIN_LIMIT = 1 << 20
"""The tasks on the longest chain are known when there are no more tasks than this; how many they are is always."""


class Wait(IntEnum):
    """What a task was waiting for until the cycle it started at (the first of these that explains it)."""

    NOTHING = 0
    """It started at cycle 0."""
    DEPENDENCY = 1
    """Its own predecessors: it started the moment the last of them ended."""
    IN_ORDER = 2
    """A task before it in program order was issued late, and issue is in order (head-of-line blocking)."""
    WINDOW_FULL = 3
    """The task window: it was issued when a task in flight ended."""
    WORKER_BUSY = 4
    """Its worker, which was still running an earlier task."""
    RATE_LIMIT = 5
    """The limit on starts per millisecond."""
    START = 6
    """The start policy, or the rest of its batch."""
    ORCHESTRATOR = 7
    """The orchestrator, which generated it then."""
    CHANNEL_EMPTY = 8
    """A token: its process was waiting to receive."""
    CHANNEL_FULL = 9
    """Room in a channel, or a receiver: its process was waiting to send."""


def play(
    row: int, count: int, kernel: Any, cycles: Any, assigned: Any, keyed: bool, window: int,
    mode: int, weights: Any,
    state: Any, free: Any, tasks: Any, busy: Any, head: Any, tail: Any, heap: Any, ends: Any, later: Any, sizes: Any,
    frames: Any, chain: Any,
    recording: bool, start: Any, worker: Any, wait: Any, entered: Any,
) -> int:  # fmt: skip
    """Issue the rows [row, count) of one chunk in order; the row that could not be played, or `count`.

    kernel    i32[rows]  a task when >= 0, else ENTER_PARALLEL, ENTER_SEQUENTIAL or EXIT
    cycles    i64[rows]  duration of each task
    assigned  i64[rows]  worker of each task, read when `keyed`; else workers take turns
    window    what is issued and not yet ended takes no more than this; 0: no limit
    mode      when there is no room: STALL, the next task waits; ABORT, the call ends with REFUSED; BENCHMARK, it is
              issued and counted
    weights   i64[rows]  what each task takes of the window; empty: 1
    state     i64[STATE_SIZE] scalars kept between calls
    free, tasks, busy  i64[W] per worker: free again at this cycle, tasks run, cycles run
    frames    i64[FRAME * depth] what the enclosing blocks have saved; a full stack ends the call early
    chain     i64[tasks] per task: the one before it on the longest chain to it; as many tasks as there is room for
    start, worker, wait, entered  written per row when `recording`

    Tasks in flight have a slot each: `ends`, `sizes` and `later`, the slot of the next one on the same worker, which
    cannot end before it. So each worker has a queue in order of end, `head` and `tail` i64[W], -1 when empty,
    and the workers that have one form a heap by the end of their head, `heap` i64[W].
    """
    clock, turn, in_flight, makespan = state[CLOCK], state[TURN], state[IN_FLIGHT], state[MAKESPAN]
    depth, sequential = state[DEPTH], state[SEQUENTIAL]
    ready, done, path_ready, path_done = state[READY], state[DONE], state[PATH_READY], state[PATH_DONE]
    tasks_ready, tasks_done, last_ready, last_done = (
        state[TASKS_READY], state[TASKS_DONE], state[LAST_READY], state[LAST_DONE],
    )  # fmt: skip
    free_slot, slots, known = state[FREE_SLOT], state[SLOTS], len(chain)
    held, most_held, overflows, weight = state[HELD], state[MOST_HELD], state[OVERFLOWS], 1
    issued, work, overlapped = state[TASKS], state[WORK], state[OVERLAPPED]
    window_stalls, window_cycles = state[WINDOW_STALLS], state[WINDOW_CYCLES]
    dependency_stalls, dependency_cycles = state[DEPENDENCY_STALLS], state[DEPENDENCY_CYCLES]
    lanes, deepest, busy_lanes = len(free), len(frames), state[BUSY_LANES]

    while row < count:
        what = kernel[row]
        if what >= 0:
            duration = cycles[row]
            if keyed:
                lane = assigned[row]
            else:
                lane = turn
                turn += 1
                if turn == lanes:
                    turn = 0

            before = clock
            if clock < ready:
                dependency_stalls += 1
                dependency_cycles += ready - clock
                clock = ready
            if window > 0:
                weight = weights[row] if len(weights) > 0 else 1
                waited = clock
                while in_flight > 0:
                    first = heap[0]
                    until = ends[head[first]]
                    if until > clock:
                        if held + weight <= window or mode != STALL:
                            break
                        clock = until
                    slot = head[first]  # it has ended: its lane moves down the heap
                    held -= sizes[slot]
                    head[first] = later[slot]
                    later[slot] = free_slot
                    free_slot = slot
                    in_flight -= 1
                    if head[first] < 0:  # or out of it
                        busy_lanes -= 1
                        first = heap[busy_lanes]
                    if busy_lanes > 0:
                        until = ends[head[first]]
                        place, child = 0, 1
                        while child < busy_lanes:
                            if child + 1 < busy_lanes and ends[head[heap[child + 1]]] < ends[head[heap[child]]]:
                                child += 1
                            if until <= ends[head[heap[child]]]:
                                break
                            heap[place] = heap[child]
                            place = child
                            child = 2 * place + 1
                        heap[place] = first
                if waited < clock:
                    window_stalls += 1
                    window_cycles += clock - waited
                if held + weight > window:
                    if mode != BENCHMARK:
                        state[REFUSED] = 1
                        break
                    overflows += 1
            begin = free[lane]
            if begin < clock:
                begin = clock
            end = begin + duration
            free[lane] = end
            tasks[lane] += 1
            busy[lane] += duration

            work += duration
            if begin < makespan:  # some worker is busy from now, or from before, until the makespan
                overlapped += 1
            if makespan < end:
                makespan = end
            if done < end:
                done = end
            path_end = path_ready + duration
            if path_done < path_end:
                path_done, tasks_done, last_done = path_end, tasks_ready + 1, issued
            if issued < known:
                chain[issued] = last_ready
            issued += 1
            if recording:
                start[row] = begin
                worker[row], entered[row] = lane, clock
                if begin == 0:
                    wait[row] = 0
                elif begin == ready:
                    wait[row] = 1
                elif begin == before:
                    wait[row] = 2
                elif begin == clock:
                    wait[row] = 3
                else:
                    wait[row] = 4

            if window > 0:  # the new task enters behind the others of its lane
                slot = free_slot
                if slot >= 0:
                    free_slot = later[slot]
                else:
                    slot = slots
                    slots += 1
                in_flight += 1
                held += weight
                if most_held < held:
                    most_held = held
                ends[slot], later[slot], sizes[slot] = end, -1, weight
                if head[lane] >= 0:
                    later[tail[lane]] = slot
                else:
                    head[lane] = slot
                    place = busy_lanes
                    busy_lanes += 1
                    while place > 0 and end < ends[head[heap[(place - 1) >> 1]]]:
                        heap[place] = heap[(place - 1) >> 1]
                        place = (place - 1) >> 1
                    heap[place] = lane
                tail[lane] = slot
            if sequential != 0:
                ready, path_ready, tasks_ready, last_ready = done, path_done, tasks_done, last_done
        elif what == EXIT:
            depth -= FRAME
            sequential, ready, path_ready = frames[depth], frames[depth + 1], frames[depth + 2]
            tasks_ready, last_ready = frames[depth + 5], frames[depth + 6]
            if done < frames[depth + 3]:
                done = frames[depth + 3]
            if path_done <= frames[depth + 4]:
                path_done, tasks_done, last_done = frames[depth + 4], frames[depth + 7], frames[depth + 8]
            if sequential != 0:
                ready, path_ready, tasks_ready, last_ready = done, path_done, tasks_done, last_done
        else:
            if depth == deepest:
                break
            frames[depth], frames[depth + 1], frames[depth + 2] = sequential, ready, path_ready
            frames[depth + 3], frames[depth + 4] = done, path_done
            frames[depth + 5], frames[depth + 6] = tasks_ready, last_ready
            frames[depth + 7], frames[depth + 8] = tasks_done, last_done
            depth += FRAME
            sequential = 1 if what == ENTER_SEQUENTIAL else 0
            done, path_done, tasks_done, last_done = ready, path_ready, tasks_ready, last_ready
        row += 1

    state[CLOCK], state[TURN], state[IN_FLIGHT], state[MAKESPAN] = clock, turn, in_flight, makespan
    state[DEPTH], state[SEQUENTIAL], state[BUSY_LANES] = depth, sequential, busy_lanes
    state[READY], state[DONE], state[PATH_READY], state[PATH_DONE] = ready, done, path_ready, path_done
    state[TASKS_READY], state[TASKS_DONE], state[LAST_READY], state[LAST_DONE] = (
        tasks_ready, tasks_done, last_ready, last_done,
    )  # fmt: skip
    state[FREE_SLOT], state[SLOTS] = free_slot, slots
    state[HELD], state[MOST_HELD], state[OVERFLOWS] = held, most_held, overflows
    state[TASKS], state[WORK], state[OVERLAPPED] = issued, work, overlapped
    state[WINDOW_STALLS], state[WINDOW_CYCLES] = window_stalls, window_cycles
    state[DEPENDENCY_STALLS], state[DEPENDENCY_CYCLES] = dependency_stalls, dependency_cycles
    return row


@dataclass(frozen=True)
class ChannelUse:
    """What happened in one channel of a pipeline. Stalled cycles are those of the processes that waited."""

    name: str
    depth: int
    tokens: int
    """Tokens that were sent."""
    high_water: int
    """Most slots that were occupied at a time: a token occupies one from its send to its receive, also under way."""
    empty_stalls: int
    empty_cycles: int
    """How often, and for how many cycles in all, a process waited to receive."""
    full_stalls: int
    full_cycles: int
    """How often, and for how many cycles in all, a process waited to send."""
    left: int = 0
    """Tokens that nobody has received; they are gone with the run."""


@dataclass(frozen=True)
class Counters:
    """What one simulated run added up to. Times are in cycles, counts in tasks."""

    total_cycles: int
    """Completion time of the whole workload: the end of the last task."""
    task_count: int
    work_cycles: int
    """Sum of all durations."""
    critical_path_cycles: int
    """Completion time if there were a worker for every task and no window: what the structure alone costs."""
    parallel_tasks: int
    """Tasks that started while another worker was running an earlier one."""
    tasks: tuple[int, ...]
    """Tasks per worker."""
    busy: tuple[int, ...]
    """Busy cycles per worker."""
    window_stalls: int
    window_stalled_cycles: int
    """How often, and for how many cycles in all, a full window held up the issue of the next task."""
    dependency_stalls: int
    dependency_stalled_cycles: int
    """How often, and for how many cycles in all, issue waited for the predecessors of the next task."""
    busy_stalls: int = 0
    busy_stalled_cycles: int = 0
    """Dataflow engine: how many ready tasks waited for a worker, and for how many cycles in all."""
    unseen_overlaps: int = 0
    """Dataflow engine: pairs of tasks in the window together that overlap without being identical, where edges are
    inferred from identical regions only."""
    critical_path_tasks: int = 0
    """Tasks on the critical path."""
    critical_path: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64), compare=False, repr=False)
    """Their numbers, in program order; empty when more than CHAIN_LIMIT tasks ran."""
    pools: tuple[tuple[str, int], ...] = ()
    """Name and number of workers of each pool, in the order of the workers; one without a name: all workers."""
    window: int = 0
    """What can be in flight at most; 0: anything."""
    bound: bool = True
    """Each task is bound to one worker from the beginning."""
    gen_cycles: int = 0
    gap: int = 0
    """Cycles that the orchestrator needs for a task, and at least from one start to the next."""
    start_stalls: int = 0
    start_stalled_cycles: int = 0
    """Dataflow engine: how many ready tasks waited for the start policy or their batch, for how many cycles in all."""
    steals: int = 0
    """Dataflow engine: how many tasks ran on another worker than the one in whose deque they were."""
    overflows: int = 0
    """Dataflow engine: how many tasks did not fit into a window of mode BENCHMARK."""
    rate_stalls: int = 0
    rate_stalled_cycles: int = 0
    """Dataflow engine: how many ready tasks a limit on starts held up, and for how many cycles in all."""
    most_in_window: int = 0
    most_ready: int = 0
    """Most that was in the window, in its unit, and, in the dataflow engine, most tasks that were ready, at one time.
    The in-order engine counts what is in flight only under a window."""
    lanes: tuple[str, ...] = ()
    channels: tuple[ChannelUse, ...] = ()
    """Pipelines: the processes, which are the workers, and what happened in each channel."""

    @property
    def lane_names(self) -> tuple[str, ...]:
        """What the workers are called, where processes or pools have names."""
        if self.lanes or not any(name for name, _ in self.pools):
            return self.lanes
        return tuple(f"{name} {worker}" for name, workers in self.pools for worker in range(workers))


@dataclass(frozen=True)
class Starts:
    """Per row of one chunk: the first cycle, the worker, and what the task waited for (a `Wait`)."""

    start: NDArray[np.int64]
    worker: NDArray[np.int32]
    wait: NDArray[np.uint8]
    entered: NDArray[np.int64] | None = None
    """When it entered the window: was issued (in-order) or generated (dataflow)."""
    ready: NDArray[np.int64] | None = None
    """Dataflow engine: when its last edge was met."""
    cause: NDArray[np.int64] | None = None
    """Pipelines: the task that it waited for, -1 for none; it ended when this one starts, or a token was under way."""


class InOrderEngine:
    """The clock of one run: feed it every chunk of the task table in program order, then ask for `counters`.

    workers  number of workers W; a keyed task runs on worker key mod W (unsigned 64-bit), others in turn
    window   what is issued and not yet ended takes no more than this; 0 means no limit
    keys     of the tasks, when they are keyed; or keyed=True, and `play` is given them
    unit     of the window: tasks; or bytes or entries, of `tiles`
    mode     what happens when the window is full
    """

    def __init__(
        self, workers: int = 1, window: int = 0, keyed: bool = False, keys: Keys | None = None,
        unit: str = "tasks", mode: WindowMode = WindowMode.STALL, tiles: TileUses | None = None,
    ) -> None:  # fmt: skip
        self.workers, self.window, self.keyed = workers, window, keyed or keys is not None
        self.unit, self.mode = unit, mode
        self._keys, self._tiles = keys, tiles
        self._state = np.zeros(STATE_SIZE, np.int64)
        self._state[[LAST_READY, LAST_DONE, FREE_SLOT]] = -1
        self._chain = np.zeros(0, np.int64)
        self._free, self._tasks, self._busy = (np.zeros(workers, np.int64) for _ in range(3))
        self._head, self._tail, self._heap = (np.full(workers, -1, np.int64) for _ in range(3))
        self._ends, self._later, self._sizes = (np.zeros(min(window, 64), np.int64) for _ in range(3))
        self._frames = np.zeros(FRAME * 16, np.int64)

    def play_table(self, table: TaskTable, record: bool = False) -> Starts | None:
        """Issue the rows of one chunk; with `record`, say when and where each of them started."""
        rows, key = slice(0, table.count), None
        if self._keys is not None:
            self._keys.start(table)
            key = self._keys.column("dispatch").view(np.uint64)
        weights = None if self._tiles is None else weights_of(table, self.unit, self._tiles)
        return self.play(table.kernel[rows], table.cycles[rows], key, record, weights)

    def play(
        self,
        kernel: NDArray[np.int32],
        cycles: NDArray[np.int64],
        key: NDArray[np.uint64] | None = None,
        record: bool = False,
        weights: NDArray[np.int64] | None = None,
    ) -> Starts | None:
        """The same for a chunk that is given as its columns.

        raises  WindowOverflow in mode ABORT; ScheduleError for a task that the window cannot hold
        """
        count = len(kernel)
        self._check_range(kernel, cycles)
        if self.keyed:
            if key is None:
                raise ValueError("a keyed engine needs the key column of the task table")
            assigned = (key % np.uint64(self.workers)).astype(np.int64)
        else:
            assigned = np.zeros(0, np.int64)
        sizes = np.zeros(0, np.int64) if weights is None else weights
        self._make_slots(count)
        tasks = int(self._state[TASKS]) + count
        if tasks > len(self._chain) and len(self._chain) < CHAIN_LIMIT:
            self._chain = _grown(self._chain, min(CHAIN_LIMIT, max(tasks, 2 * len(self._chain))))
        rows = count if record else 0
        entered = np.zeros(rows, np.int64)
        starts = Starts(np.zeros(rows, np.int64), np.zeros(rows, np.int32), np.zeros(rows, np.uint8), entered)

        run = PLAY.choose(count)
        row = 0
        while True:
            row = run(
                row, count, kernel, cycles, assigned, self.keyed, self.window, MODES.index(self.mode), sizes,
                self._state, self._free, self._tasks, self._busy,
                self._head, self._tail, self._heap, self._ends, self._later, self._sizes, self._frames, self._chain,
                record, starts.start, starts.worker, starts.wait, entered,
            )  # fmt: skip
            if row == count:
                return starts if record else None
            if self._state[REFUSED]:
                self._fail(int(sizes[row]) if weights is not None else 1)
            self._frames = _grown(self._frames, 2 * len(self._frames))

    def counters(self) -> Counters:
        """The totals so far; of the whole run, after the last chunk."""
        state = [int(value) for value in self._state]
        if state[DEPTH] != 0:
            raise AssertionError(f"{state[DEPTH] // FRAME} blocks of the task table were opened and not closed")
        return Counters(
            total_cycles=state[MAKESPAN],
            task_count=state[TASKS],
            work_cycles=state[WORK],
            critical_path_cycles=state[PATH_DONE],
            critical_path_tasks=state[TASKS_DONE],
            critical_path=chain_to(state[LAST_DONE], state[TASKS], self._chain),
            pools=(("", self.workers),),
            window=self.window,
            most_in_window=state[MOST_HELD],
            overflows=state[OVERFLOWS],
            parallel_tasks=state[OVERLAPPED],
            tasks=tuple(self._tasks.tolist()),
            busy=tuple(self._busy.tolist()),
            window_stalls=state[WINDOW_STALLS],
            window_stalled_cycles=state[WINDOW_CYCLES],
            dependency_stalls=state[DEPENDENCY_STALLS],
            dependency_stalled_cycles=state[DEPENDENCY_CYCLES],
        )

    def _make_slots(self, count: int) -> None:
        """Room for the tasks in flight while so many rows are played."""
        slots = int(self._state[SLOTS]) + count if self.window else 0
        if self.unit == "tasks" and self.mode is not WindowMode.BENCHMARK:
            slots = min(self.window, slots)
        if slots > len(self._ends):
            slots = max(slots, min(self.window, 2 * len(self._ends)))
            self._ends, self._later, self._sizes = (_grown(a, slots) for a in (self._ends, self._later, self._sizes))

    def _fail(self, weight: int) -> None:
        """The window has no room for the next task."""
        state = self._state
        task, held, running = int(state[TASKS]), int(state[HELD]), int(state[IN_FLIGHT])
        if self.mode is WindowMode.ABORT:
            raise WindowOverflow(
                f"task #{task} needs {weight:,} of a window of {self.window:,} {self.unit}, mode ABORT, in which "
                f"{running:,} tasks that have been issued and have not ended hold {held:,}. Use a larger window or "
                "WindowMode.STALL.", task_id=task
            )  # fmt: skip
        raise ScheduleError(
            f"task #{task} needs {weight:,} {self.unit} of the task window, which holds {self.window:,} {self.unit}: "
            "it can never be issued. Use a larger window.", "window"
        )  # fmt: skip

    def _check_range(self, kernel: NDArray[np.int32], cycles: NDArray[np.int64]) -> None:
        """No time of the run can exceed the sum of all durations, so that sum must fit."""
        work = int(self._state[WORK]) + work_of(kernel, cycles)
        if work >= 1 << 63:
            raise ExecutionError(f"the tasks need {work:.3g} cycles in all; the clock counts to 2^63 - 1")


def work_of(kernel: NDArray[np.int32], cycles: NDArray[np.int64]) -> int:
    """The exact sum of the durations of the tasks among some rows, however large."""
    words, tasks = cycles.view(np.uint64), kernel >= 0
    if int(words.max(initial=0, where=tasks)) <= ((1 << 63) - 1) // max(len(words), 1):
        return int(cycles.sum(where=tasks))
    halves = (words >> np.uint64(32)).sum(where=tasks), (words & np.uint64(0xFFFFFFFF)).sum(where=tasks)
    return (int(halves[0]) << 32) + int(halves[1])


def chain_to(last: int, tasks: int, chain: NDArray[np.int64]) -> NDArray[np.int64]:
    """The tasks of the longest chain, in program order; none when they are not known."""
    found = []
    while last >= 0 and tasks <= len(chain):
        found.append(last)
        last = int(chain[last])
    return np.array(found[::-1], np.int64)


def _grown(array: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    larger = np.zeros(size, np.int64)
    larger[: len(array)] = array
    return larger


# Plain Python plays a million tasks per second, machine code fifty million, which takes a tenth of a second to make.
PLAY = Loop(
    play, "i64", "i64", "i32[]", "i64[]", "i64[]", "bool", "i64",  # row, count, kernel, cycles, assigned, keyed, window
    "i64", "i64[]",  # mode, weights
    *["i64[]"] * 12,  # state ... chain
    "bool", "i64[]", "i32[]", "u8[]", "i64[]",  # recording, start, worker, wait, entered
    loading=1_000, making=100_000,
)  # fmt: skip
