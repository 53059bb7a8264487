"""Dataflow engine: at which cycle does each task start, when a late task waits in the window and others overtake it?

In: the rows of a TaskTable, chunk by chunk, in program order. Out: counters and, if asked for, start, worker, wait
reason and cause per task. A task is generated, has its edges met, is ready, gets a worker, runs, is complete; what has
completed is forgotten, so that memory is bounded by the window. Ties go by program order, then by worker number.
Start reading at `play`: plain Python over arrays, compiled by numba when there is enough work to pay for that.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pto_wsp.errors import ExecutionError
from pto_wsp.lower import python_loops
from pto_wsp.lower.bindings import Call
from pto_wsp.lower.tasks import EXIT, TILE_WORDS, TaskTable
from pto_wsp.schedule import DepsMode
from pto_wsp.sim.edges import (
    BEFORE,
    BEFORE_SERIAL,
    CAUSE,
    CHILD,
    CYCLES,
    DEPTH,
    EDGE_SIZE,
    EDGES_TOP,
    END,
    FIRST,
    FOLLOWING,
    FRAME_SIZE,
    FREE_EDGE,
    FREE_EDGES,
    FREE_NODE,
    FREE_NODES,
    FROM,
    GATE,
    GENERATED,
    HELD,
    LANE,
    MISSING,
    NEXT,
    NODE_SIZE,
    NODES_TOP,
    NUMBER,
    OWNER,
    PATH,
    PATH_BEFORE,
    PATH_DONE,
    QUEUE,
    RANK,
    READY,
    SEALED,
    SEQUENTIAL,
    SERIAL,
    SIBLING,
    TARGET,
    WEIGHT,
    enter,
    follow,
    join,
    leave,
    new_node,
)
from pto_wsp.sim.hazards import (
    CLAIM_SIZE,
    CLAIMS_TOP,
    FREE_CLAIM,
    FREE_CLAIMS,
    HAZARD_STATE,
    MOST_BUCKETS,
    RELINK,
    UNSEEN,
    USE_SIZE,
    TileUses,
    claim_tile,
    release,
    relink,
)
from pto_wsp.sim.inorder import Counters, Starts
from pto_wsp.sim.settings import Settings

__all__ = ["DataflowEngine"]

# What `play` returns.
MORE_ROWS, FINISHED, STUCK, MORE_NODES, MORE_EDGES, MORE_FRAMES, MORE_CLAIMS = range(7)

# Words of the setup.
LANES, BOUND, KEYED, WINDOW, INFER, EXACT, PARAMS, WORDS, SETUP_SIZE = range(9)
# INFER    edges are inferred from tiles; EXACT: from identical ones; PARAMS: tile parameters, WORDS: args per task
# BOUND    a task is bound to a worker when it is generated; KEYED: by its key, else in turn

# Words of the state, after those of edges.py.
(ROW, NOW, EXHAUSTED, TASKS, IN_FLIGHT, MOST_IN_FLIGHT, RUNNING, DIRTY, TURN, WORK, MAKESPAN, OVERLAPPED, LONGEST,
 READY_TASKS, MOST_READY, FULL_SINCE, LAST_DONE, WINDOW_STALLS, WINDOW_CYCLES, DEPENDENCY_STALLS, DEPENDENCY_CYCLES,
 BUSY_STALLS, BUSY_CYCLES, STATE_SIZE) = range(HAZARD_STATE, HAZARD_STATE + 24)  # fmt: skip

# Words of a queue of ready tasks: a sorted list of those that came in order, and a pairing heap of the others.
HEAD, TAIL, ROOT, IDLE, IS_DIRTY, QUEUE_SIZE = range(6)
# IDLE     how many of the workers that this queue feeds have nothing to do

# Words of a lane, that is a worker.
LANE_TASKS, LANE_BUSY, LANE_LAST, LANE_SIZE = range(4)

NEVER = (1 << 63) - 1


def play(
    count: int, final: bool, kernel: Any, leaf: Any, cycles: Any, key: Any, setup: Any, after: Any, last: Any,
    args: Any, uses: Any, spaces: Any, claims: Any, chains: Any, state: Any, nodes: Any, edges: Any,
    frames: Any, queues: Any, dirty: Any, lanes: Any, idle: Any, running: Any,
    recording: bool, start: Any, worker: Any, wait: Any, cause: Any,
) -> int:  # fmt: skip
    """Run the clock until the rows [state[ROW], count) of one chunk are generated; with `final`, to the end.

    kernel, leaf, cycles, key  one per row; the key is that of the dispatch policy
    after, last          explicit edges: after[call] ... after[call + 1] are the places in `after` of the calls that a
                         call waits for; last[2 * call]: the last task of that call, and its serial
    args ... chains      the tiles of each row, and what edges are inferred from, see hazards.py
    queues, dirty        of ready tasks: one per worker if tasks are bound, else one; `dirty`: where tasks may start
    lanes, idle          per worker: counters; the workers of each queue that have nothing to do, as a heap
    running              tasks that run, as a heap by their end
    start ... cause      written per task, by its number, when `recording`
    returns              MORE_ROWS, FINISHED, STUCK, or which array has to grow before the next call
    """
    width = 1 if setup[BOUND] == 1 else setup[LANES]
    if state[RELINK] == 1:
        relink(claims, chains, state)
    while True:
        now = state[NOW]
        while True:  # 1. what ends now
            node = state[SEALED]
            if node >= 0:
                state[SEALED] = nodes[node + NEXT]
            elif state[RUNNING] > 0 and nodes[running[0] + END] == now:
                node = pop_running(nodes, running, state)
                stop_task(nodes, queues, dirty, idle, state, node, width)
            else:
                break
            release(nodes, claims, chains, state, node)
            finish(nodes, edges, queues, dirty, state, node, now)

        while state[EXHAUSTED] == 0:  # 2. what is generated now
            row = state[ROW]
            if row == count:
                if not final:
                    return MORE_ROWS
                state[EXHAUSTED] = 1
                break
            free = state[FREE_NODES] * NODE_SIZE + len(nodes) - state[NODES_TOP]
            if free < 2 * NODE_SIZE:
                return MORE_NODES
            most = state[NODES_TOP] // NODE_SIZE - state[FREE_NODES] + 4  # edges of one task
            if state[FREE_EDGES] * EDGE_SIZE + len(edges) - state[EDGES_TOP] < most * EDGE_SIZE:
                return MORE_EDGES
            free = state[FREE_CLAIMS] * CLAIM_SIZE + len(claims) - state[CLAIMS_TOP]
            if setup[INFER] == 1 and free < setup[PARAMS] * MOST_BUCKETS * CLAIM_SIZE:
                return MORE_CLAIMS
            what = kernel[row]
            if what == EXIT:
                leave(nodes, edges, frames, state)
            elif what < 0:
                if state[DEPTH] + 2 * FRAME_SIZE > len(frames):
                    return MORE_FRAMES
                enter(what, frames, state)
            else:
                if setup[WINDOW] > 0 and state[IN_FLIGHT] >= setup[WINDOW]:
                    if state[FULL_SINCE] < 0:
                        state[FULL_SINCE] = now
                    break
                if state[FULL_SINCE] >= 0:
                    if state[FULL_SINCE] < now:
                        state[WINDOW_STALLS] += 1
                        state[WINDOW_CYCLES] += now - state[FULL_SINCE]
                    state[FULL_SINCE] = -1
                node = generate(nodes, edges, frames, state, cycles[row])
                call = leaf[row]
                for place in range(after[call], after[call + 1]):
                    earlier = 2 * after[place]
                    follow(nodes, edges, state, last[earlier], last[earlier + 1], node)
                last[2 * call], last[2 * call + 1] = node, nodes[node + SERIAL]
                if setup[INFER] == 1:
                    for param in range(setup[PARAMS]):
                        use = (call * setup[PARAMS] + param) * USE_SIZE
                        if uses[use] >= 0:
                            claim_tile(
                                row * setup[WORDS] + TILE_WORDS * param, use, setup[EXACT] == 1, args, uses, spaces,
                                nodes, edges, claims, chains, state, node,
                            )  # fmt: skip
                place_in_blocks(nodes, edges, frames, state, node)
                nodes[node + GENERATED] = now
                nodes[node + HELD] = state[LAST_DONE]
                nodes[node + RANK] = 0
                if setup[BOUND] == 0:
                    nodes[node + QUEUE] = 0
                elif setup[KEYED] == 1:
                    nodes[node + QUEUE] = key[row]
                else:
                    nodes[node + QUEUE] = state[TURN]
                    state[TURN] = state[TURN] + 1 if state[TURN] + 1 < setup[LANES] else 0
                if nodes[node + MISSING] == 0:
                    become_ready(nodes, queues, dirty, state, node, now)
            state[ROW] = row + 1
        if state[SEALED] >= 0:
            continue

        while state[DIRTY] > 0:  # 3. what starts now
            state[DIRTY] -= 1
            at = dirty[state[DIRTY]]
            queue = at * QUEUE_SIZE
            queues[queue + IS_DIRTY] = 0
            while queues[queue + IDLE] > 0 and (queues[queue + HEAD] >= 0 or queues[queue + ROOT] >= 0):
                node = pop_ready(nodes, queues, queue)
                lane = pop_idle(idle, queues, queue, at * width)
                begin(nodes, lanes, running, state, node, lane, now)
                if recording:
                    record(nodes, lanes, state, node, lane, now, start, worker, wait, cause)
                lanes[lane * LANE_SIZE + LANE_LAST] = nodes[node + NUMBER]

        if state[RUNNING] == 0:  # 4. what comes next
            return FINISHED if state[EXHAUSTED] == 1 and state[IN_FLIGHT] == 0 else STUCK
        state[NOW] = nodes[running[0] + END]


def generate(nodes: Any, edges: Any, frames: Any, state: Any, cycles: int) -> int:
    """The node of the next task, with the edges that the open blocks give it."""
    frame = state[DEPTH]
    number = state[TASKS]
    state[TASKS] = number + 1
    state[IN_FLIGHT] += 1
    if state[MOST_IN_FLIGHT] < state[IN_FLIGHT]:
        state[MOST_IN_FLIGHT] = state[IN_FLIGHT]
    node = new_node(nodes, state, number, cycles, frames[frame + PATH_BEFORE])
    nodes[node + WEIGHT] = 1
    follow(nodes, edges, state, frames[frame + BEFORE], frames[frame + BEFORE_SERIAL], node)
    return node


def place_in_blocks(nodes: Any, edges: Any, frames: Any, state: Any, node: int) -> int:
    """All edges to a new task are there: the blocks that it stands in wait for it."""
    frame = state[DEPTH]
    path = nodes[node + PATH] + nodes[node + CYCLES]
    if state[LONGEST] < path:
        state[LONGEST] = path
    if frames[frame + SEQUENTIAL] == 1:
        frames[frame + BEFORE], frames[frame + BEFORE_SERIAL] = node, nodes[node + SERIAL]
        frames[frame + PATH_BEFORE] = path
    else:
        if frames[frame + PATH_DONE] < path:
            frames[frame + PATH_DONE] = path
        join(nodes, edges, frames, state, frame, node)
    return 0


def become_ready(nodes: Any, queues: Any, dirty: Any, state: Any, node: int, now: int) -> int:
    """All edges of a task are met: it enters its queue."""
    nodes[node + READY] = now
    state[READY_TASKS] += 1
    if state[MOST_READY] < state[READY_TASKS]:
        state[MOST_READY] = state[READY_TASKS]
    if nodes[node + GENERATED] < now:
        state[DEPENDENCY_STALLS] += 1
        state[DEPENDENCY_CYCLES] += now - nodes[node + GENERATED]
    at = nodes[node + QUEUE]
    queue = at * QUEUE_SIZE
    push_ready(nodes, queues, queue, node)
    touch(queues, dirty, state, at)
    return 0


def touch(queues: Any, dirty: Any, state: Any, at: int) -> int:
    """Something has changed: perhaps a task of this queue can start."""
    queue = at * QUEUE_SIZE
    if queues[queue + IS_DIRTY] == 0:
        queues[queue + IS_DIRTY] = 1
        dirty[state[DIRTY]] = at
        state[DIRTY] += 1
    return 0


def finish(nodes: Any, edges: Any, queues: Any, dirty: Any, state: Any, node: int, now: int) -> int:
    """A task has ended, or all that a gate waited for: tell those that wait for it, and the gates that this opens."""
    cause, lane = nodes[node + NUMBER], nodes[node + LANE]
    if cause < 0:
        cause, lane = nodes[node + CAUSE], nodes[node + FROM]
    nodes[node + NEXT] = -1
    while node >= 0:
        following = nodes[node + NEXT]
        edge = nodes[node + FIRST]
        while edge >= 0:
            later = edges[edge + TARGET]
            nodes[later + CAUSE], nodes[later + FROM] = cause, lane
            nodes[later + MISSING] -= 1
            if nodes[later + MISSING] == 0:
                if nodes[later + NUMBER] >= 0:
                    become_ready(nodes, queues, dirty, state, later, now)
                else:
                    nodes[later + NEXT] = following
                    following = later
            after = edges[edge + FOLLOWING]
            edges[edge + FOLLOWING] = state[FREE_EDGE]
            state[FREE_EDGE] = edge
            state[FREE_EDGES] += 1
            edge = after
        nodes[node + SERIAL] += 1
        nodes[node + NEXT] = state[FREE_NODE]
        state[FREE_NODE] = node
        state[FREE_NODES] += 1
        node = following
    return 0


def begin(nodes: Any, lanes: Any, running: Any, state: Any, node: int, lane: int, now: int) -> int:
    """A task starts on a worker."""
    cycles = nodes[node + CYCLES]
    nodes[node + LANE], nodes[node + END] = lane, now + cycles
    lanes[lane * LANE_SIZE + LANE_TASKS] += 1
    lanes[lane * LANE_SIZE + LANE_BUSY] += cycles
    state[READY_TASKS] -= 1
    state[WORK] += cycles
    if state[RUNNING] > 0:
        state[OVERLAPPED] += 1
    if nodes[node + READY] < now:
        state[BUSY_STALLS] += 1
        state[BUSY_CYCLES] += now - nodes[node + READY]
    if state[MAKESPAN] < now + cycles:
        state[MAKESPAN] = now + cycles
    push_running(nodes, running, state, node)
    return 0


def stop_task(nodes: Any, queues: Any, dirty: Any, idle: Any, state: Any, node: int, width: int) -> int:
    """A task ends: it leaves the window, and its worker has nothing to do."""
    state[IN_FLIGHT] -= nodes[node + WEIGHT]
    state[LAST_DONE] = nodes[node + NUMBER]
    lane = nodes[node + LANE]
    at = lane // width
    push_idle(idle, queues, at * QUEUE_SIZE, at * width, lane)
    touch(queues, dirty, state, at)
    return 0


def record(
    nodes: Any, lanes: Any, state: Any, node: int, lane: int, now: int, start: Any, worker: Any, wait: Any, cause: Any
) -> int:
    """Note when and where a task starts, what it waited for until then, and which task's end that was."""
    number = nodes[node + NUMBER]
    start[number], worker[number], wait[number], cause[number] = now, lane, 0, -1  # 0, 1, 3, 4: see inorder.Wait
    if nodes[node + READY] < now:
        wait[number], cause[number] = 4, lanes[lane * LANE_SIZE + LANE_LAST]
    elif nodes[node + GENERATED] < now:
        wait[number], cause[number] = 1, nodes[node + CAUSE]
    elif now > 0:
        wait[number], cause[number] = 3, nodes[node + HELD]
    return 0


# ---- queues of ready tasks


def before(nodes: Any, a: int, b: int) -> int:
    """1 if a ready task goes before another: the lower rank, then the longer wait, then program order."""
    if nodes[a + RANK] != nodes[b + RANK]:
        return 1 if nodes[a + RANK] < nodes[b + RANK] else 0
    if nodes[a + READY] != nodes[b + READY]:
        return 1 if nodes[a + READY] < nodes[b + READY] else 0
    return 1 if nodes[a + NUMBER] < nodes[b + NUMBER] else 0


def push_ready(nodes: Any, queues: Any, queue: int, node: int) -> int:
    """To the end of the list if it belongs there, else into the heap."""
    nodes[node + NEXT] = nodes[node + CHILD] = nodes[node + SIBLING] = -1
    tail = queues[queue + TAIL]
    if tail < 0:
        queues[queue + HEAD] = queues[queue + TAIL] = node
    elif before(nodes, tail, node) == 1:
        nodes[tail + NEXT] = node
        queues[queue + TAIL] = node
    else:
        root = queues[queue + ROOT]
        queues[queue + ROOT] = node if root < 0 else meld(nodes, root, node)
    return 0


def meld(nodes: Any, a: int, b: int) -> int:
    """One heap of two: the later root becomes a child of the other."""
    if before(nodes, b, a) == 1:
        a, b = b, a
    nodes[b + SIBLING] = nodes[a + CHILD]
    nodes[a + CHILD] = b
    return a


def pop_ready(nodes: Any, queues: Any, queue: int) -> int:
    """The first task of the list or of the heap."""
    node, root = queues[queue + HEAD], queues[queue + ROOT]
    if root < 0 or (node >= 0 and before(nodes, node, root) == 1):
        queues[queue + HEAD] = nodes[node + NEXT]
        if nodes[node + NEXT] < 0:
            queues[queue + TAIL] = -1
        return node  # type: ignore[no-any-return]
    pairs, child = -1, nodes[root + CHILD]
    while child >= 0:
        a, b = child, nodes[child + SIBLING]
        child = -1
        if b >= 0:
            child = nodes[b + SIBLING]
            a = meld(nodes, a, b)
        nodes[a + SIBLING] = pairs
        pairs = a
    merged = -1
    while pairs >= 0:
        a, pairs = pairs, nodes[pairs + SIBLING]
        nodes[a + SIBLING] = -1
        merged = a if merged < 0 else meld(nodes, merged, a)
    queues[queue + ROOT] = merged
    return root  # type: ignore[no-any-return]


# ---- binary heaps: tasks that run, by end and program order; idle workers, by number


def push_running(nodes: Any, running: Any, state: Any, node: int) -> int:
    place = state[RUNNING]
    state[RUNNING] = place + 1
    while place > 0:
        above = running[(place - 1) >> 1]
        if not ends_before(nodes, node, above):
            break
        running[place] = above
        place = (place - 1) >> 1
    running[place] = node
    return 0


def pop_running(nodes: Any, running: Any, state: Any) -> int:
    first = running[0]
    size = state[RUNNING] - 1
    state[RUNNING] = size
    node, place, child = running[size], 0, 1
    while child < size:
        if child + 1 < size and ends_before(nodes, running[child + 1], running[child]):
            child += 1
        if not ends_before(nodes, running[child], node):
            break
        running[place] = running[child]
        place = child
        child = 2 * place + 1
    running[place] = node
    return first  # type: ignore[no-any-return]


def ends_before(nodes: Any, a: int, b: int) -> bool:
    if nodes[a + END] != nodes[b + END]:
        return nodes[a + END] < nodes[b + END]  # type: ignore[no-any-return]
    return nodes[a + NUMBER] < nodes[b + NUMBER]  # type: ignore[no-any-return]


def push_idle(idle: Any, queues: Any, queue: int, base: int, lane: int) -> int:
    place = queues[queue + IDLE]
    queues[queue + IDLE] = place + 1
    while place > 0 and lane < idle[base + ((place - 1) >> 1)]:
        idle[base + place] = idle[base + ((place - 1) >> 1)]
        place = (place - 1) >> 1
    idle[base + place] = lane
    return 0


def pop_idle(idle: Any, queues: Any, queue: int, base: int) -> int:
    first = idle[base]
    size = queues[queue + IDLE] - 1
    queues[queue + IDLE] = size
    lane, place, child = idle[base + size], 0, 1
    while child < size:
        if child + 1 < size and idle[base + child + 1] < idle[base + child]:
            child += 1
        if lane < idle[base + child]:
            break
        idle[base + place] = idle[base + child]
        place = child
        child = 2 * place + 1
    idle[base + place] = lane
    return first  # type: ignore[no-any-return]


# ---- the engine


class DataflowEngine:
    """The clock of one run: feed it every chunk of the task table in program order, then ask for `counters`.

    uses     of the calls' tiles; needed where edges are inferred
    record   keep start, worker, wait reason and cause of every task
    """

    def __init__(
        self, settings: Settings, calls: Sequence[Call], uses: TileUses | None = None, record: bool = False
    ) -> None:
        self.settings, self.recording = settings, record
        workers, bound = settings.workers, settings.bound
        infer, exact = uses is not None and settings.infer is not None, settings.infer is _EXACT
        params = uses.params if uses is not None else 0
        setup = [workers, bound, settings.key is not None, settings.window, infer, exact, params, 0]
        self._setup = np.array(setup, np.int64)
        self._uses = uses.uses if uses is not None and infer else np.zeros(0, np.int64)
        self._spaces = uses.spaces if uses is not None and infer else np.zeros(0, np.int64)
        self._claims = np.zeros(0, np.int64)
        self._chains = np.full(2 * (64 + 1), -1, np.int64)
        self._after, self._last = _after(calls), np.full(2 * len(calls), -1, np.int64)
        self._state = np.zeros(STATE_SIZE, np.int64)
        self._state[[FREE_NODE, FREE_EDGE, FREE_CLAIM, SEALED, FULL_SINCE, LAST_DONE]] = -1
        self._nodes, self._edges = np.zeros(64 * NODE_SIZE, np.int64), np.zeros(256 * EDGE_SIZE, np.int64)
        self._frames = np.zeros(16 * FRAME_SIZE, np.int64)
        self._frames[[BEFORE, GATE, OWNER]] = -1
        queue = [-1, -1, -1, 1 if bound else workers, 0]
        self._queues = np.array(queue * (workers if bound else 1), np.int64)
        self._dirty = np.zeros(len(self._queues) // QUEUE_SIZE, np.int64)
        self._lanes = np.zeros(workers * LANE_SIZE, np.int64)
        self._idle, self._running = np.arange(workers, dtype=np.int64), np.zeros(workers, np.int64)
        self._work = 0.0
        self._finished = False
        self._starts: list[Any] = [np.zeros(0, kind) for kind in (np.int64, np.int32, np.uint8, np.int64)]

    def play(self, table: TaskTable) -> None:
        """Generate the rows of one chunk; the clock goes as far as that needs."""
        rows = slice(0, table.count)
        kernel, cycles = table.kernel[rows], table.cycles[rows]
        key = np.zeros(0, np.int64)
        if self.settings.key is not None:
            key = (table.key[rows] % np.uint64(self.settings.workers)).astype(np.int64)
        self._work += float(cycles.sum(dtype=np.float64, where=kernel >= 0))
        if self._work >= 2.0**63:  # no time of the run can exceed the sum of all durations
            raise ExecutionError(f"the tasks need {self._work:.3g} cycles in all; the clock counts to 2^63 - 1")
        args = table.args[rows] if self._setup[INFER] else np.zeros((0, 0), np.int64)
        self._setup[WORDS] = args.shape[1]
        self._run(kernel, table.leaf[rows], cycles, key, args.reshape(-1), final=False)

    def finish(self) -> None:
        """There are no more rows: run the clock to the end."""
        if not self._finished:
            none = np.zeros(0, np.int32)
            words = none.astype(np.int64)
            self._run(none, none, words, words, words, final=True)
            self._finished = True

    def _run(
        self, kernel: NDArray[np.int32], leaf: NDArray[np.int32], cycles: NDArray[np.int64], key: NDArray[np.int64],
        args: NDArray[np.int64], final: bool,
    ) -> None:  # fmt: skip
        state, count = self._state, len(kernel)
        state[ROW] = 0
        if self.recording:
            most = int(state[TASKS]) + count
            if most > len(self._starts[0]):
                self._starts = [_grown(column, max(most, 2 * len(column))) for column in self._starts]
        run = _choose(count)
        while True:
            outcome = run(
                count, final, kernel, leaf, cycles, key, self._setup, self._after, self._last, args, self._uses,
                self._spaces, self._claims, self._chains, state, self._nodes,
                self._edges, self._frames, self._queues, self._dirty, self._lanes, self._idle, self._running,
                self.recording, *self._starts,
            )  # fmt: skip
            if outcome == MORE_NODES:
                self._nodes = _grown(self._nodes, 2 * len(self._nodes))
            elif outcome == MORE_EDGES:
                self._edges = _grown(self._edges, 2 * len(self._edges))
            elif outcome == MORE_FRAMES:
                self._frames = _grown(self._frames, 2 * len(self._frames))
            elif outcome == MORE_CLAIMS:
                least = 2 * int(self._setup[PARAMS]) * MOST_BUCKETS * CLAIM_SIZE
                self._claims = _grown(self._claims, max(2 * len(self._claims), least))
                chains = 1 << (len(self._claims) // CLAIM_SIZE).bit_length()
                self._chains = np.full(2 * (chains + 1), -1, np.int64)
                state[RELINK] = 1
            else:
                break
        if outcome == STUCK:
            raise AssertionError("tasks wait for one another")

    def counters(self) -> Counters:
        """The totals of the whole run, after the last chunk."""
        self.finish()
        state = [int(value) for value in self._state]
        lanes = self._lanes.reshape(-1, LANE_SIZE)
        return Counters(
            total_cycles=state[MAKESPAN],
            task_count=state[TASKS],
            work_cycles=state[WORK],
            critical_path_cycles=state[LONGEST],
            parallel_tasks=state[OVERLAPPED],
            tasks=tuple(lanes[:, LANE_TASKS].tolist()),
            busy=tuple(lanes[:, LANE_BUSY].tolist()),
            window_stalls=state[WINDOW_STALLS],
            window_stalled_cycles=state[WINDOW_CYCLES],
            dependency_stalls=state[DEPENDENCY_STALLS],
            dependency_stalled_cycles=state[DEPENDENCY_CYCLES],
            unseen_overlaps=state[UNSEEN],
            busy_stalls=state[BUSY_STALLS],
            busy_stalled_cycles=state[BUSY_CYCLES],
            most_in_window=state[MOST_IN_FLIGHT],
            most_ready=state[MOST_READY],
        )

    def starts(self) -> tuple[Starts, NDArray[np.int64]]:
        """Per task, in program order: start, worker and wait reason; and the task whose end it waited for, or -1."""
        self.finish()
        start, worker, wait, cause = (column[: self._state[TASKS]] for column in self._starts)
        return Starts(start, worker, wait), cause


def _after(calls: Sequence[Call]) -> NDArray[np.int64]:
    """The explicit edges as `play` reads them."""
    number = {id(call.task): k for k, call in enumerate(calls)}
    lists = [[number[id(handle)] for handle in call.task.after if id(handle) in number] for call in calls]
    first = len(calls) + 1
    starts = [first + sum(map(len, lists[:k])) for k in range(first)]
    return np.array(starts + [k for several in lists for k in several], np.int64)


def _grown(array: NDArray[Any], size: int) -> NDArray[Any]:
    larger = np.zeros(size, array.dtype)
    larger[: len(array)] = array
    return larger


def plain(count: int, final: bool, *rest: Any) -> int:
    """`play` on lists, which plain Python reads and writes several times faster than arrays."""
    lists = [value.tolist() if isinstance(value, np.ndarray) else value for value in rest]
    outcome = play(count, final, *lists)
    for value, written in zip(rest, lists, strict=True):
        if isinstance(value, np.ndarray):
            value[:] = written
    return outcome


@functools.cache
def compiled() -> Callable[..., int]:
    """`play` as machine code."""
    return python_loops.compiled(play, _TYPES)


@functools.cache
def from_cache() -> Callable[..., int] | None:
    """`play` as machine code if this machine has made it before; asked once per process."""
    return python_loops.from_cache(play, _TYPES)


_EXACT = DepsMode.INFER_TENSOR_MAP_EXACT

_TYPES = (
    "i64", "bool", "i32[]", "i32[]", "i64[]", "i64[]",  # count, final, kernel, leaf, cycles, key
    *["i64[]"] * 17,  # setup ... running
    "bool", "i64[]", "i32[]", "u8[]", "i64[]",  # recording, start, worker, wait, cause
)  # fmt: skip

# Plain Python plays a hundred thousand tasks per second, machine code millions, but that takes seconds to make.
WORTH_LOADING, WORTH_MAKING = 500, 50_000
_played_plainly = 0


def _choose(count: int) -> Callable[..., int]:
    """`play` itself or its machine code, whichever is done sooner with `count` more rows."""
    global _played_plainly
    tasks = _played_plainly + count
    if tasks > WORTH_LOADING:
        found = compiled() if tasks > WORTH_MAKING else from_cache()
        if found is not None:
            return found
    _played_plainly = tasks
    return plain
