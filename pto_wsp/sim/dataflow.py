"""Dataflow engine: at which cycle does each task start, when a late task waits in the window and others overtake it?

In: the rows of a TaskTable, chunk by chunk, in program order. Out: counters and, if asked for, start, worker, wait
reason and cause per task. A task is generated, has its edges met, is ready, gets a worker, runs, is complete; what has
completed is forgotten, so that memory is bounded by the window. Ties go by program order, then by worker number.
Start reading at `play`: plain Python over arrays, compiled (lower/python_loops.py) when there is enough work.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pto_wsp.errors import Deadlock, ExecutionError, ScheduleError, WindowOverflow
from pto_wsp.lower import python_loops
from pto_wsp.lower.bindings import Call
from pto_wsp.lower.tasks import EXIT, TILE_WORDS, TaskTable
from pto_wsp.schedule import DepsMode, WindowMode
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
MORE_ROWS, FINISHED, STUCK, MORE_NODES, MORE_EDGES, MORE_FRAMES, MORE_CLAIMS, TOO_LARGE, OVERFLOWN = range(9)

# Words of the setup.
(LANES, BOUND, KEYED, WINDOW, INFER, EXACT, PARAMS, WORDS, WEIGHED, MODE, START_AT, GAP, BATCH, STREAMS,
 SETUP_SIZE) = range(15)  # fmt: skip
# INFER    edges are inferred from tiles; EXACT: from identical ones; PARAMS: tile parameters, WORDS: args per task
# WEIGHED  the window is not counted in tasks; MODE: STALL, ABORT or BENCHMARK
# START_AT workers start when so many tasks are ready, 0: at once, -1: when all tasks are generated
# GAP      cycles between two starts; BATCH: tasks become eligible in groups of so many; STREAMS: in-order queues
# BOUND    a task is bound to a worker when it is generated; KEYED: by its key, else in turn

# Words of the state, after those of edges.py.
(ROW, NOW, EXHAUSTED, TASKS, IN_FLIGHT, MOST_IN_FLIGHT, RUNNING, DIRTY, TURN, WORK, MAKESPAN, OVERLAPPED, LONGEST,
 READY_TASKS, MOST_READY, FULL_SINCE, LAST_DONE, WINDOW_STALLS, WINDOW_CYCLES, DEPENDENCY_STALLS, DEPENDENCY_CYCLES,
 BUSY_STALLS, BUSY_CYCLES, LIVE, STARTED, NEXT_START, HELD_TASKS, OVERFLOWS, RATE_STALLS, RATE_CYCLES,
 STATE_SIZE) = range(HAZARD_STATE, HAZARD_STATE + 31)  # fmt: skip

# Words of a queue of ready tasks: a sorted list of those that came in order, and a pairing heap of the others.
HEAD, TAIL, ROOT, IDLE, IS_DIRTY, QUEUE_SIZE = range(6)
# IDLE     how many of the workers that this queue feeds have nothing to do

# Words of a lane, that is a worker.
LANE_TASKS, LANE_BUSY, LANE_LAST, LANE_FREE, LANE_SIZE = range(5)

STALL, ABORT, BENCHMARK = range(3)

NEVER = (1 << 63) - 1


def play(
    count: int, final: bool, kernel: Any, leaf: Any, cycles: Any, key: Any, rank: Any, stream: Any, weights: Any,
    setup: Any, after: Any, last: Any, streams: Any,
    args: Any, uses: Any, spaces: Any, claims: Any, chains: Any, state: Any, nodes: Any, edges: Any,
    frames: Any, queues: Any, dirty: Any, lanes: Any, idle: Any, running: Any,
    recording: bool, start: Any, worker: Any, wait: Any, cause: Any,
) -> int:  # fmt: skip
    """Run the clock until the rows [state[ROW], count) of one chunk are generated; with `final`, to the end.

    kernel, leaf, cycles, key  one per row; the key is that of the dispatch policy, modulo the workers
    rank, stream, weights      one per row, or empty: priority, stream, what the task takes of the window
    streams                    the last task of each stream, and its serial
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
            finish(nodes, edges, queues, dirty, setup, state, node, now)

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
                weight = weights[row] if setup[WEIGHED] == 1 else 1
                if setup[WINDOW] > 0 and state[IN_FLIGHT] + weight > setup[WINDOW]:
                    if setup[MODE] == ABORT:
                        return OVERFLOWN
                    if setup[MODE] == BENCHMARK:
                        state[OVERFLOWS] += 1
                    else:
                        if weight > setup[WINDOW]:
                            return TOO_LARGE
                        if state[FULL_SINCE] < 0:
                            state[FULL_SINCE] = now
                        break
                if state[FULL_SINCE] >= 0:
                    if state[FULL_SINCE] < now:
                        state[WINDOW_STALLS] += 1
                        state[WINDOW_CYCLES] += now - state[FULL_SINCE]
                    state[FULL_SINCE] = -1
                node = generate(nodes, edges, frames, state, cycles[row], weight)
                if setup[STREAMS] > 0:
                    mine = 2 * (stream[row] if len(stream) > 0 else nodes[node + NUMBER] % setup[STREAMS])
                    follow(nodes, edges, state, streams[mine], streams[mine + 1], node)
                    streams[mine], streams[mine + 1] = node, nodes[node + SERIAL]
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
                nodes[node + RANK] = rank[row] if len(rank) > 0 else 0
                if setup[BOUND] == 0:
                    nodes[node + QUEUE] = 0
                elif setup[KEYED] == 1:
                    nodes[node + QUEUE] = key[row]
                else:
                    nodes[node + QUEUE] = state[TURN]
                    state[TURN] = state[TURN] + 1 if state[TURN] + 1 < setup[LANES] else 0
                if nodes[node + MISSING] == 0:
                    become_ready(nodes, queues, dirty, setup, state, node, now)
            state[ROW] = row + 1
        if state[SEALED] >= 0:
            continue

        held = len(queues) - QUEUE_SIZE
        while state[HELD_TASKS] > 0 and (state[HELD_TASKS] >= setup[BATCH] or state[EXHAUSTED] == 1):
            for _ in range(min(state[HELD_TASKS], setup[BATCH])):
                node = pop_ready(nodes, queues, held)
                state[HELD_TASKS] -= 1
                push_ready(nodes, queues, nodes[node + QUEUE] * QUEUE_SIZE, node)
                touch(queues, dirty, state, nodes[node + QUEUE])
        if setup[START_AT] >= 0 and state[READY_TASKS] >= setup[START_AT] or state[EXHAUSTED] == 1:
            state[STARTED] = 1

        limited = False
        while state[DIRTY] > 0 and state[STARTED] == 1:  # 3. what starts now
            pick = state[DIRTY] - 1
            if setup[GAP] > 0:
                pick = first_to_start(nodes, queues, dirty, state)
                if pick >= 0 and now < state[NEXT_START]:
                    limited = True
                    break
                if pick < 0:
                    break
            state[DIRTY] -= 1
            at = dirty[pick]
            dirty[pick] = dirty[state[DIRTY]]
            queue = at * QUEUE_SIZE
            queues[queue + IS_DIRTY] = 0
            while queues[queue + IDLE] > 0 and (queues[queue + HEAD] >= 0 or queues[queue + ROOT] >= 0):
                if now < state[NEXT_START]:
                    touch(queues, dirty, state, at)
                    break
                node = pop_ready(nodes, queues, queue)
                lane = pop_idle(idle, queues, queue, at * width)
                begin(nodes, lanes, running, setup, state, node, lane, now)
                if recording:
                    record(nodes, lanes, setup, state, node, lane, now, start, worker, wait, cause)
                lanes[lane * LANE_SIZE + LANE_LAST] = nodes[node + NUMBER]
                lanes[lane * LANE_SIZE + LANE_FREE] = nodes[node + END]
                if setup[GAP] > 0:
                    state[NEXT_START] = now + setup[GAP]

        if state[RUNNING] == 0 and not limited:  # 4. what comes next
            return FINISHED if state[EXHAUSTED] == 1 and state[LIVE] == 0 else STUCK
        then = state[NEXT_START]
        if state[RUNNING] > 0 and (not limited or nodes[running[0] + END] < then):
            then = nodes[running[0] + END]
        state[NOW] = then


def first_to_start(nodes: Any, queues: Any, dirty: Any, state: Any) -> int:
    """The place in `dirty` of the queue whose first task goes before all others that could start, -1 for none."""
    found, best = -1, -1
    for place in range(state[DIRTY]):
        queue = dirty[place] * QUEUE_SIZE
        node, root = queues[queue + HEAD], queues[queue + ROOT]
        if root >= 0 and (node < 0 or before(nodes, root, node) == 1):
            node = root
        if node >= 0 and queues[queue + IDLE] > 0 and (best < 0 or before(nodes, node, best) == 1):
            found, best = place, node
    return found


def generate(nodes: Any, edges: Any, frames: Any, state: Any, cycles: int, weight: int) -> int:
    """The node of the next task, with the edges that the open blocks give it."""
    frame = state[DEPTH]
    number = state[TASKS]
    state[TASKS] = number + 1
    state[LIVE] += 1
    state[IN_FLIGHT] += weight
    if state[MOST_IN_FLIGHT] < state[IN_FLIGHT]:
        state[MOST_IN_FLIGHT] = state[IN_FLIGHT]
    node = new_node(nodes, state, number, cycles, frames[frame + PATH_BEFORE])
    nodes[node + WEIGHT] = weight
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


def become_ready(nodes: Any, queues: Any, dirty: Any, setup: Any, state: Any, node: int, now: int) -> int:
    """All edges of a task are met: it enters its queue, or waits there for the rest of its batch."""
    nodes[node + READY] = now
    state[READY_TASKS] += 1
    if state[MOST_READY] < state[READY_TASKS]:
        state[MOST_READY] = state[READY_TASKS]
    if nodes[node + GENERATED] < now:
        state[DEPENDENCY_STALLS] += 1
        state[DEPENDENCY_CYCLES] += now - nodes[node + GENERATED]
    if setup[BATCH] > 0:
        state[HELD_TASKS] += 1
        push_ready(nodes, queues, len(queues) - QUEUE_SIZE, node)
    else:
        at = nodes[node + QUEUE]
        push_ready(nodes, queues, at * QUEUE_SIZE, node)
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


def finish(nodes: Any, edges: Any, queues: Any, dirty: Any, setup: Any, state: Any, node: int, now: int) -> int:
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
                    become_ready(nodes, queues, dirty, setup, state, later, now)
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


def begin(nodes: Any, lanes: Any, running: Any, setup: Any, state: Any, node: int, lane: int, now: int) -> int:
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
        if setup[GAP] > 0 and state[NEXT_START] == now:
            state[RATE_STALLS] += 1
            state[RATE_CYCLES] += now - nodes[node + READY]
        else:
            state[BUSY_STALLS] += 1
            state[BUSY_CYCLES] += now - nodes[node + READY]
    if state[MAKESPAN] < now + cycles:
        state[MAKESPAN] = now + cycles
    push_running(nodes, running, state, node)
    return 0


def stop_task(nodes: Any, queues: Any, dirty: Any, idle: Any, state: Any, node: int, width: int) -> int:
    """A task ends: it leaves the window, and its worker has nothing to do."""
    state[LIVE] -= 1
    state[IN_FLIGHT] -= nodes[node + WEIGHT]
    state[LAST_DONE] = nodes[node + NUMBER]
    lane = nodes[node + LANE]
    at = lane // width
    push_idle(idle, queues, at * QUEUE_SIZE, at * width, lane)
    touch(queues, dirty, state, at)
    return 0


def record(
    nodes: Any, lanes: Any, setup: Any, state: Any, node: int, lane: int, now: int,
    start: Any, worker: Any, wait: Any, cause: Any,
) -> int:  # fmt: skip
    """Note when and where a task starts, what it waited for until then, and which task's end that was."""
    number = nodes[node + NUMBER]
    start[number], worker[number], wait[number], cause[number] = now, lane, 0, -1  # numbers of inorder.Wait
    if nodes[node + READY] < now and setup[GAP] > 0 and state[NEXT_START] == now:
        wait[number] = 5
    elif nodes[node + READY] < now and lanes[lane * LANE_SIZE + LANE_FREE] < now:
        wait[number] = 6
    elif nodes[node + READY] < now:
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
        workers, bound, keyed = settings.workers, settings.bound, settings.key_of == "dispatch" or settings.by_stream
        infer, exact = uses is not None and settings.infer is not None, settings.infer is _EXACT
        self._tiles = uses
        self._setup = np.array([
            workers, bound, keyed, settings.window, infer, exact, uses.params if uses is not None else 0, 0,
            settings.unit != "tasks", _MODES[settings.mode], settings.start_at, settings.gap, settings.batch,
            settings.streams,
        ], np.int64)  # fmt: skip
        self._uses = uses.uses if uses is not None and infer else np.zeros(0, np.int64)
        self._spaces = uses.spaces if uses is not None and infer else np.zeros(0, np.int64)
        self._claims = np.zeros(0, np.int64)
        self._chains = np.full(2 * (64 + 1), -1, np.int64)
        self._after, self._last = _after(calls), np.full(2 * len(calls), -1, np.int64)
        self._streams = np.full(2 * settings.streams, -1, np.int64)
        self._state = np.zeros(STATE_SIZE, np.int64)
        self._state[[FREE_NODE, FREE_EDGE, FREE_CLAIM, SEALED, FULL_SINCE, LAST_DONE]] = -1
        self._nodes, self._edges = np.zeros(64 * NODE_SIZE, np.int64), np.zeros(256 * EDGE_SIZE, np.int64)
        self._frames = np.zeros(16 * FRAME_SIZE, np.int64)
        self._frames[[BEFORE, GATE, OWNER]] = -1
        queues, queue = workers if bound else 1, [-1, -1, -1, 1 if bound else workers, 0]
        self._queues = np.array(queue * (queues + 1), np.int64)  # the last one holds what waits for its batch
        self._dirty = np.zeros(queues, np.int64)
        self._lanes = np.zeros(workers * LANE_SIZE, np.int64)
        self._idle, self._running = np.arange(workers, dtype=np.int64), np.zeros(workers, np.int64)
        self._work = 0.0
        self._play: Callable[..., int] = plain
        self._finished = False
        self._stuck = False
        self._starts: list[Any] = [np.zeros(0, kind) for kind in (np.int64, np.int32, np.uint8, np.int64)]

    def play(self, table: TaskTable) -> None:
        """Generate the rows of one chunk; the clock goes as far as that needs.

        raises  WindowOverflow in mode ABORT; ScheduleError for a task that no window of this size can hold
        """
        rows, settings = slice(0, table.count), self.settings
        kernel, cycles, none = table.kernel[rows], table.cycles[rows], np.zeros(0, np.int64)
        given = table.keys[0, rows] if len(table.keys) else np.zeros(table.count, np.uint64)
        if settings.key_of == "cycles":
            cycles = self._costs(given, kernel)
        self._work += float(cycles.sum(dtype=np.float64, where=kernel >= 0))
        if self._work + settings.gap * (int(self._state[TASKS]) + len(cycles)) >= 2.0**63:  # no later
            raise ExecutionError(f"the tasks need {self._work:.3g} cycles in all; the clock counts to 2^63 - 1")
        args = table.args[rows] if self._setup[INFER] else np.zeros((0, 0), np.int64)
        self._setup[WORDS] = args.shape[1]
        columns = (
            (given % np.uint64(settings.workers)).astype(np.int64) if self._setup[KEYED] else none,
            given.view(np.int64) if settings.key_of == "priority" else none,
            (given % np.uint64(settings.streams)).astype(np.int64) if settings.key_of == "stream" else none,
            self._weights(table) if settings.unit != "tasks" else none,
        )
        if self._stuck:
            self._state[TASKS] += np.count_nonzero(kernel >= 0)
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
                self._run(none, none, words, (words,) * 4, words, final=True)
            if self._stuck:
                raise ScheduleError(
                    f"StartPolicy.after_orchestration() waits until all {self._state[TASKS]:,} tasks are generated; "
                    f"the window of {self.settings.window:,} {self.settings.unit} holds fewer, so no task can start. "
                    "Use a larger window, WindowMode.BENCHMARK or StartPolicy.threshold(n).", "start"
                )  # fmt: skip
            self._finished = True

    def _costs(self, given: NDArray[np.uint64], kernel: NDArray[np.int32]) -> NDArray[np.int64]:
        cycles = np.where(kernel >= 0, given.view(np.int64), 0)
        if len(cycles) and cycles.min() < 0:
            row = int(np.argmax(cycles < 0))
            task = int(self._state[TASKS]) + int(np.count_nonzero(kernel[:row] >= 0))
            what = f"the cost function gives task #{task} {cycles[row]} cycles"
            raise ScheduleError(f"{what}; 0 or more are needed", "trace")
        return cycles

    def _weights(self, table: TaskTable) -> NDArray[np.int64]:
        """What each task takes of a window that is counted in bytes or entries."""
        assert self._tiles is not None
        rows, weights = slice(0, table.count), np.zeros(table.count, np.int64)
        leaf = np.maximum(table.leaf[rows], 0)
        for p in range(self._tiles.params):
            many, few = (table.args[rows, TILE_WORDS * p + k] for k in (3, 4))
            if self.settings.unit == "entries":
                weights += self._tiles.exists[leaf, p] & (many > 0) & (few > 0)
            else:
                size = self._tiles.written_bytes[leaf, p]
                weights += np.where(size > 0, many * few, 0) * size
        return weights

    def _run(
        self, kernel: NDArray[np.int32], leaf: NDArray[np.int32], cycles: NDArray[np.int64],
        columns: tuple[NDArray[np.int64], ...], args: NDArray[np.int64], final: bool,
    ) -> None:  # fmt: skip
        state, count = self._state, len(kernel)
        state[ROW] = 0
        if self.recording:
            most = int(state[TASKS]) + count
            if most > len(self._starts[0]):
                self._starts = [_grown(column, max(most, 2 * len(column))) for column in self._starts]
        if self._play is plain:  # machine code, once there is some
            self._play = _choose(count)
        run = self._play
        while True:
            outcome = run(
                count, final, kernel, leaf, cycles, *columns, self._setup, self._after, self._last, self._streams,
                args, self._uses, self._spaces, self._claims, self._chains, state, self._nodes, self._edges,
                self._frames, self._queues, self._dirty, self._lanes, self._idle, self._running,
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
        if outcome not in (MORE_ROWS, FINISHED):
            self._fail(outcome, columns[3], kernel)

    def _fail(self, outcome: int, weights: NDArray[np.int64], kernel: NDArray[np.int32]) -> None:
        """The clock cannot go on: say why, and what would help."""
        state, settings = self._state, self.settings
        task, window = int(state[TASKS]), f"{settings.window:,} {settings.unit}"
        weight = int(weights[state[ROW]]) if len(weights) and state[ROW] < len(weights) else 1
        if outcome == OVERFLOWN:
            raise WindowOverflow(
                f"task #{task} needs {weight:,} of a window of {window}, mode ABORT, in which {state[LIVE]:,} tasks "
                f"hold {state[IN_FLIGHT]:,}: {state[RUNNING]:,} run, {state[READY_TASKS]:,} are ready, the others wait "
                "for predecessors. Use a larger window or WindowMode.STALL.", task_id=task
            )  # fmt: skip
        if outcome == TOO_LARGE:
            raise ScheduleError(
                f"task #{task} needs {weight:,} {settings.unit} of the task window, which holds {window}: "
                "it can never be generated. Use a larger window.", "window"
            )  # fmt: skip
        if settings.start_at < 0 and state[EXHAUSTED] == 0:
            self._stuck = True
            state[TASKS] += int(np.count_nonzero(kernel[state[ROW] :] >= 0))
            return
        waits = f"the window of {window} is full, so task #{task} waits for room in it"
        if state[HELD_TASKS] > 0:
            why = f"{state[HELD_TASKS]:,} ready tasks wait for a batch of {settings.batch:,} to be ready"
            help_ = "Use TimingPolicy.batched with fewer tasks, or a larger window."
        elif state[STARTED] == 0:
            why = f"the workers wait for {settings.start_at:,} ready tasks, and {state[READY_TASKS]:,} are ready"
            help_ = "Use StartPolicy.threshold with fewer tasks, or a larger window."
        else:
            raise AssertionError("tasks wait for one another")  # edges go forward, so that cannot be
        raise Deadlock(f"no task can ever start: {why}, and {waits}. {help_}")

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
            overflows=state[OVERFLOWS],
            rate_stalls=state[RATE_STALLS],
            rate_stalled_cycles=state[RATE_CYCLES],
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


_MODES = {WindowMode.STALL: STALL, WindowMode.ABORT: ABORT, WindowMode.BENCHMARK: BENCHMARK}
_EXACT = DepsMode.INFER_TENSOR_MAP_EXACT

_TYPES = (
    "i64", "bool", "i32[]", "i32[]", *["i64[]"] * 5,  # count, final, kernel, leaf, cycles ... weights
    *["i64[]"] * 18,  # setup ... running
    "bool", "i64[]", "i32[]", "u8[]", "i64[]",  # recording, start, worker, wait, cause
)  # fmt: skip

# Plain Python plays a hundred thousand tasks per second, machine code ten million. That takes half a second to make.
WORTH_LOADING, WORTH_MAKING = 200, 30_000
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
