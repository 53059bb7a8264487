"""Dataflow engine: at which cycle does each task start, when a late task waits in the window and others overtake it?

In: the rows of a TaskTable, chunk by chunk, in program order. Out: counters and, if asked for, start, worker, wait
reason and cause per task. The clock itself is in clock.py; here are its arrays, from a schedule and from a chunk's
columns, and what it says when it cannot go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pto_wsp.errors import Deadlock, ExecutionError, ScheduleError, WindowOverflow
from pto_wsp.lower.bindings import Call, SlotUse
from pto_wsp.lower.tasks import TaskTable
from pto_wsp.schedule import DepsMode, WindowMode
from pto_wsp.sim import clock, edges, hazards, queues
from pto_wsp.sim.hazards import TileUses, weights_of
from pto_wsp.sim.inorder import CHAIN_LIMIT, Counters, Starts, chain_to, work_of
from pto_wsp.sim.keys import Keys
from pto_wsp.sim.settings import EXEC_UNITS, MOST_WORKERS, Settings

__all__ = ["DataflowEngine", "after_table"]

_MODES = {WindowMode.STALL: clock.STALL, WindowMode.ABORT: clock.ABORT, WindowMode.BENCHMARK: clock.BENCHMARK}


class DataflowEngine:
    """The clock of one run: feed it every chunk of the task table in program order, then ask for `counters`.

    keys     of the tasks, see keys.py; None when the schedule wants none
    uses     of the calls' tiles; needed where edges are inferred, and where slots are loaded
    units    per kernel, the index in EXEC_UNITS of what it runs on; needed for Pools.by_exec_unit()
    record   keep start, worker, wait reason and cause of every task
    slots    where slots change, for the SLOT rows of the table
    """

    def __init__(
        self, settings: Settings, calls: Sequence[Call], keys: Keys | None = None, uses: TileUses | None = None,
        units: Sequence[int] = (), record: bool = False, slots: Sequence[SlotUse] = (),
    ) -> None:  # fmt: skip
        self.settings, self.recording = settings, record
        self._keys = keys if keys is not None else Keys(())
        self._tiles, self._units = uses, np.array(units, np.int64)
        infer = hazards.NO_CLAIMS
        if uses is not None and settings.infer is not None:
            infer = hazards.BY_IDENTITY if settings.infer is DepsMode.INFER_TENSOR_MAP_EXACT else hazards.BY_OVERLAP
        elif uses is not None and slots and uses.loaded:
            infer = hazards.FOR_LOADS
        self._setup = _setup(settings, infer, len(calls), uses.params if uses is not None else 0)
        self._uses = self._spaces = np.zeros(0, np.int64)
        if uses is not None and infer != hazards.NO_CLAIMS:
            self._uses, self._spaces = uses.for_loads() if infer == hazards.FOR_LOADS else uses.uses, uses.spaces
        self._claims, self._chains = np.zeros(0, np.int64), np.full(2, -1, np.int64)
        if infer != hazards.NO_CLAIMS:
            self._make_claims()
        self._after = after_table(calls, slots)
        self._last = _kept(len(calls) + len({use.slot for use in slots}))
        self._streams = _kept(settings.streams)
        self._state = np.zeros(clock.STATE_SIZE, np.int64)
        self._state[
            [
                edges.NODES + edges.FREE, edges.EDGES + edges.FREE, hazards.CLAIMS + edges.FREE, edges.SEALED,
                clock.FULL_SINCE, clock.LAST_DONE, queues.HELD_HEAD, queues.HELD_TAIL, clock.GENERATING, clock.STARTED,
                clock.LONGEST_LAST, edges.SLOT_NUMBER,
            ]
        ] = -1  # fmt: skip
        self._nodes, self._edges = np.zeros(64 * edges.NODE_SIZE, np.int64), np.zeros(256 * edges.EDGE_SIZE, np.int64)
        self._frames = np.zeros(16 * edges.FRAME_SIZE, np.int64)
        self._frames[[edges.BEFORE, edges.GATE, edges.OWNER, edges.FROM_BEFORE]] = -1
        self._chain = np.zeros(0, np.int64)
        self._queues, self._pools, self._lanes, self._idle, self._dirty, self._running = (
            np.zeros(0, np.int64) for _ in range(6)
        )
        self.pool_names: list[str] = []
        for name, width in zip(EXEC_UNITS, settings.widths, strict=False):
            self._add_pool(name, width)
        if settings.pools == "single":
            self._add_pool("", settings.workers)
        self._work = 0
        self._finished = False
        self._stuck = False
        self._starts: list[Any] = [np.zeros(0, kind) for kind in (np.int64, np.int32, np.uint8, *[np.int64] * 3)]

    def _make_claims(self) -> None:
        """More room for claims, at least what the next task may need."""
        most = 2 * int(self._setup[queues.PARAMS]) * hazards.MOST_BUCKETS
        self._claims = _larger(self._claims, most * hazards.CLAIM_SIZE)
        chains = 1 << (len(self._claims) // hazards.CLAIM_SIZE).bit_length()
        self._chains = np.full(2 * (chains + 1), -1, np.int64)

    @property
    def pools(self) -> tuple[tuple[str, int], ...]:
        """Name and number of workers of each pool, in the order of the workers; one without a name: all workers."""
        return tuple(zip(self.pool_names, self._pools[queues.WIDTH::queues.POOL_SIZE].tolist(), strict=True))

    def _add_pool(self, name: str, width: int) -> None:
        """Workers, idle so far, and their queues."""
        first, setup = len(self._running), self._setup
        bound, deques = setup[queues.BOUND] == 1, setup[queues.ORDER] == queues.DEQUES
        if first + width > MOST_WORKERS:
            raise ScheduleError(
                f"{len(self.pool_names) + 1:,} pools of {width:,} workers each; at most {MOST_WORKERS:,} workers are "
                "simulated", "pools"
            )  # fmt: skip
        lanes = np.arange(first, first + width)
        pool = [first, width, 0, 0, width if deques else 0]
        lane = np.array([0, 0, 0, 0, deques], np.int64)
        bases = lanes if bound or deques else lanes[:1]
        heads = np.tile(np.array([-1, -1, -1, 0, 0, 0, 0, -1], np.int64), (len(bases), 1))
        heads[:, queues.IDLE], heads[:, queues.BASE] = 0 if deques else 1 if bound else width, bases
        self.pool_names.append(name)
        self._pools = np.concatenate([self._pools, np.array(pool, np.int64)])
        self._lanes = np.concatenate([self._lanes, np.tile(lane, width)])
        self._queues = np.concatenate([self._queues, heads.reshape(-1)])
        self._idle = np.concatenate([self._idle, lanes])
        self._running, self._dirty = (_grown(array, first + width) for array in (self._running, self._dirty))

    def play(self, table: TaskTable) -> None:
        """Generate the rows of one chunk; the clock goes as far as that needs.

        raises  WindowOverflow in mode ABORT; ScheduleError for a task that no window of this size can hold
        """
        if not self._setup[queues.CALLS]:
            return  # slots change, and there is no task to wait for them
        rows, settings, keys = slice(0, table.count), self.settings, self._keys
        kernel, cycles, none = table.kernel[rows], table.cycles[rows], np.zeros(0, np.int64)
        keys.start(table)
        if "cycles" in keys:
            cycles = self._costs(table)
            if self.recording:
                table.cycles[rows] = cycles  # whoever records the tasks finds the durations that were played
        self._work += work_of(kernel, cycles)
        waits = (settings.gap + settings.gen_cycles) * (int(self._state[clock.TASKS]) + len(cycles))
        if self._work + waits >= clock.NEVER:  # no later
            raise ExecutionError(f"the tasks need {self._work:.3g} cycles in all; the clock counts to 2^63 - 2")
        args = table.args[rows] if self._setup[queues.INFER] else np.zeros((0, 0), np.int64)
        self._setup[queues.WORDS] = args.shape[1]
        pool = self._pool_of(table)
        columns = (
            pool,
            self._lane_of(pool) if "dispatch" in keys else none,
            keys.signed_column("priority") if "priority" in keys else none,
            _modulo(keys.column("stream"), settings.streams) if "stream" in keys else none,
            self._weights(table) if settings.unit != "tasks" else none,
        )
        if self._stuck:
            self._state[clock.TASKS] += np.count_nonzero(kernel >= 0)
        else:
            self._run(kernel, table.leaf[rows], cycles, columns, args.reshape(-1), final=False)

    def finish(self) -> None:
        """There are no more rows: run the clock to the end.

        raises  Deadlock, ScheduleError when it cannot get there
        """
        if not self._finished:
            if not self._stuck:
                none = np.zeros(0, np.int32)
                words = none.astype(np.int64)
                self._run(none, none, words, (words,) * 5, words, final=True)
            if self._stuck:
                raise ScheduleError(
                    "StartPolicy.after_orchestration() waits until all "
                    f"{self._state[clock.TASKS]:,} tasks are generated; the window of "
                    f"{self.settings.window:,} {self.settings.unit} holds fewer, so no task can start. "
                    "Use a larger window, WindowMode.BENCHMARK or StartPolicy.threshold(n).", "start"
                )  # fmt: skip
            self._finished = True

    # -- columns

    def _costs(self, table: TaskTable) -> NDArray[np.int64]:
        kernel = table.kernel[: table.count]
        cycles = np.where(kernel >= 0, self._keys.column("cycles"), 0)
        if len(cycles) and cycles.min() < 0:
            row = int(np.argmax(cycles < 0))
            task = int(self._state[clock.TASKS]) + int(np.count_nonzero(kernel[:row] >= 0))
            what = f"the cost function gives task #{task} {self._keys.number_of('cycles', int(cycles[row]))} cycles"
            raise ScheduleError(f"{what}; 0 or more are needed, and fewer than 2^63", "trace")
        return cycles

    def _pool_of(self, table: TaskTable) -> NDArray[np.int64]:
        """The pool of each row; new ones are made as their names come up."""
        kernel = table.kernel[: table.count]
        if self.settings.pools == "by_exec_unit":
            return self._units[np.maximum(kernel, 0)]
        if self.settings.pools == "single":
            return np.zeros(0, np.int64)
        found, names = np.zeros(table.count, np.int64), self._keys.names("pool")
        known = {name: number for number, name in enumerate(self.pool_names)}
        for name in dict.fromkeys(map(str, names)):
            if name not in known:
                known[name] = len(known)
                self._add_pool(name, self.settings.workers)
        found[kernel >= 0] = [known[str(name)] for name in names]
        return found

    def _lane_of(self, pool: NDArray[np.int64]) -> NDArray[np.int64]:
        """The worker in its pool that each row's dispatch key chooses."""
        widths = np.array(self.settings.widths)[pool] if self.settings.widths else self.settings.workers
        return _modulo(self._keys.column("dispatch"), widths)

    def _weights(self, table: TaskTable) -> NDArray[np.int64]:
        """What each task takes of a window that is counted in bytes or entries."""
        assert self._tiles is not None
        return weights_of(table, self.settings.unit, self._tiles)

    # -- the clock

    def _run(
        self, kernel: NDArray[np.int32], leaf: NDArray[np.int32], cycles: NDArray[np.int64],
        columns: tuple[NDArray[np.int64], ...], args: NDArray[np.int64], final: bool,
    ) -> None:  # fmt: skip
        state, count = self._state, len(kernel)
        state[clock.ROW] = 0
        most = int(state[clock.TASKS]) + count
        if self.recording and most > len(self._starts[0]):
            self._starts = [_grown(column, max(most, 2 * len(column))) for column in self._starts]
        if most > len(self._chain) and len(self._chain) < CHAIN_LIMIT:
            self._chain = _grown(self._chain, min(CHAIN_LIMIT, max(most, 2 * len(self._chain))))
        run = clock.PLAY.choose(count)
        while True:
            outcome = run(
                count, final, kernel, leaf, cycles, *columns, self._setup, self._after, self._last, self._streams,
                args, self._uses, self._spaces, self._claims, self._chains, state, self._nodes, self._edges,
                self._frames, self._queues, self._dirty, self._pools, self._lanes, self._idle, self._running,
                self._chain, self.recording, *self._starts,
            )  # fmt: skip
            if outcome == clock.MORE_NODES:
                self._nodes = _larger(self._nodes)
            elif outcome == clock.MORE_EDGES:
                self._edges = _larger(self._edges)
            elif outcome == clock.MORE_FRAMES:
                self._frames = _larger(self._frames)
            elif outcome == clock.MORE_CLAIMS:
                self._make_claims()
                state[hazards.RELINK] = 1
            else:
                break
        if outcome not in (clock.MORE_ROWS, clock.FINISHED):
            self._fail(outcome, columns[4], kernel)

    def _fail(self, outcome: int, weights: NDArray[np.int64], kernel: NDArray[np.int32]) -> None:
        """The clock cannot go on: say why, and what would help."""
        state, settings = self._state, self.settings
        task, ready = int(state[clock.TASKS]), f"{state[clock.READY_TASKS]:,}"
        window = f"{settings.window:,} {settings.unit}"
        weight = int(weights[state[clock.ROW]]) if len(weights) and state[clock.ROW] < len(weights) else 1
        if outcome == clock.OVERFLOWN:
            raise WindowOverflow(
                f"task #{task} needs {weight:,} of a window of {window}, mode ABORT, in which {state[clock.LIVE]:,} "
                f"tasks hold {state[clock.IN_FLIGHT]:,}: {state[queues.RUNNING]:,} run, {ready} are ready, the others "
                "wait for predecessors. Use a larger window or WindowMode.STALL.", task_id=task
            )  # fmt: skip
        if outcome == clock.TOO_LARGE:
            raise ScheduleError(
                f"task #{task} needs {weight:,} {settings.unit} of the task window, which holds {window}: "
                "it can never be generated. Use a larger window.", "window"
            )  # fmt: skip
        if settings.start_at < 0 and state[clock.EXHAUSTED] == 0:
            self._stuck = True
            state[clock.TASKS] += int(np.count_nonzero(kernel[state[clock.ROW] :] >= 0))
            return
        waits = f"the window of {window} is full, so task #{task} waits for room in it"
        if state[clock.HELD_TASKS] > 0:
            why = f"{state[clock.HELD_TASKS]:,} ready tasks wait for a batch of {settings.batch:,} to be ready"
            help_ = "Use TimingPolicy.batched with fewer tasks, or a larger window."
        elif state[clock.STARTED] < 0:
            why = f"the workers wait for {settings.start_at:,} ready tasks, and {ready} are ready"
            help_ = "Use StartPolicy.threshold with fewer tasks, or a larger window."
        else:
            raise AssertionError("tasks wait for one another")  # edges go forward, so that cannot be
        raise Deadlock(f"no task can ever start: {why}, and {waits}. {help_}")

    def counters(self) -> Counters:
        """The totals of the whole run, after the last chunk."""
        self.finish()
        state = [int(value) for value in self._state]
        lanes = self._lanes.reshape(-1, queues.LANE_SIZE)
        return Counters(
            total_cycles=state[clock.MAKESPAN],
            task_count=state[clock.TASKS],
            work_cycles=state[clock.WORK],
            critical_path_cycles=state[clock.LONGEST],
            critical_path_tasks=state[clock.LONGEST_TASKS],
            critical_path=chain_to(state[clock.LONGEST_LAST], state[clock.TASKS], self._chain),
            parallel_tasks=state[clock.OVERLAPPED],
            tasks=tuple(lanes[:, queues.LANE_TASKS].tolist()),
            busy=tuple(lanes[:, queues.LANE_BUSY].tolist()),
            pools=self.pools,
            window=self.settings.window,
            bound=self.settings.bound,
            gen_cycles=self.settings.gen_cycles,
            gap=self.settings.gap,
            window_stalls=state[clock.WINDOW_STALLS],
            window_stalled_cycles=state[clock.WINDOW_CYCLES],
            dependency_stalls=state[clock.DEPENDENCY_STALLS],
            dependency_stalled_cycles=state[clock.DEPENDENCY_CYCLES],
            unseen_overlaps=state[hazards.UNSEEN],
            overflows=state[clock.OVERFLOWS],
            rate_stalls=state[clock.RATE_STALLS],
            rate_stalled_cycles=state[clock.RATE_CYCLES],
            start_stalls=state[clock.START_STALLS],
            start_stalled_cycles=state[clock.START_CYCLES],
            busy_stalls=state[clock.BUSY_STALLS],
            busy_stalled_cycles=state[clock.BUSY_CYCLES],
            most_in_window=state[clock.MOST_IN_FLIGHT],
            most_ready=state[clock.MOST_READY],
            steals=state[queues.STEALS],
        )

    def starts(self) -> tuple[Starts, NDArray[np.int64]]:
        """Per task, in program order: what Starts holds; and the task whose end it waited for, or -1.

        There is a cause for DEPENDENCY, WINDOW_FULL and WORKER_BUSY: the task ends when the other one starts. There is
        none for RATE_LIMIT, START and ORCHESTRATOR."""
        self.finish()
        start, worker, wait, cause, entered, ready = (column[: self._state[clock.TASKS]] for column in self._starts)
        return Starts(start, worker, wait, entered, ready), cause


def _setup(settings: Settings, infer: int, calls: int, params: int) -> NDArray[np.int64]:
    """The schedule as the clock reads it; `params`: tiles per task at most. WORDS is set with each chunk."""
    order = queues.DEQUES if settings.ready == "work_steal" else queues.TURNS if settings.together else queues.ORDERED
    setup = {
        queues.ORDER: order, queues.BOUND: settings.bound, queues.KEYED: settings.keyed, queues.INFER: infer,
        queues.WINDOW: settings.window, queues.MODE: _MODES[settings.mode], queues.START_AT: settings.start_at,
        queues.CALLS: calls, queues.PARAMS: params, queues.GAP: settings.gap, queues.GEN: settings.gen_cycles,
        queues.BATCH: max(settings.batch, settings.ready == "work_steal"), queues.TOGETHER: settings.together,
        queues.STREAMS: settings.streams, queues.BY_STREAM: settings.by_stream,
    }  # fmt: skip
    return np.array([setup.get(word, 0) for word in range(queues.SETUP_SIZE)], np.int64)


def _kept(count: int) -> NDArray[np.int64]:
    """Of so many streams or calls: nothing has been generated yet."""
    kept = np.zeros((count, queues.STREAM_SIZE), np.int64)
    kept[:, [queues.S_NODE, queues.S_SERIAL, queues.S_FROM, queues.S_READY]] = -1
    return kept.reshape(-1)


def _modulo(words: NDArray[np.int64], many: Any) -> NDArray[np.int64]:
    """Words modulo a number, or numbers, read as unsigned."""
    return (words.view(np.uint64) % np.asarray(many, np.uint64)).astype(np.int64)


def after_table(calls: Sequence[Call], slots: Sequence[SlotUse]) -> NDArray[np.int64]:
    """What calls and slot uses wait for, as `play` reads it: cells of calls, then of slots. See `after` there."""
    number = {id(call.task): k for k, call in enumerate(calls)}
    cell = {slot: len(calls) + k for k, slot in enumerate(dict.fromkeys(use.slot for use in slots))}
    lists = [[number[id(handle)] for handle in call.task.after if id(handle) in number] for call in calls]
    if slots:
        for call, cells in zip(calls, lists, strict=True):
            cells += [cell[slot] for slot in call.slots if slot in cell]
    lists += [[cell[use.slot], *(cell[slot] for slot in use.waits if slot in cell)] for use in slots]
    first = len(lists) + 1
    starts = first + np.cumsum([0, *map(len, lists)])
    return np.array([*starts.tolist(), *(k for cells in lists for k in cells)], np.int64)


def _grown(array: NDArray[Any], size: int) -> NDArray[Any]:
    larger = np.zeros(size, array.dtype)
    larger[: len(array)] = array
    return larger


def _larger(array: NDArray[Any], least: int = 0) -> NDArray[Any]:
    """A copy with more room; small ones grow fast, as each time costs a call."""
    return _grown(array, max(least, (8 if len(array) < 1 << 16 else 2) * len(array)))
