"""Dataflow engine: at which cycle does each task start, when a late task waits in the window and others overtake it?

In: the rows of a TaskTable, chunk by chunk, in program order. Out: counters and, if asked for, start, worker, wait
reason and cause per task. A task is generated, has its edges met, is ready, gets a worker, runs, is complete; what has
completed is forgotten, so that memory is bounded by the window. Ties go by program order, then by worker number.
Start reading at `play`: plain Python over arrays, compiled when there is enough work (sim/loops.py). Where
edges come from is in edges.py and hazards.py, which task a worker takes in queues.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pto_wsp.errors import Deadlock, ExecutionError, ScheduleError, WindowOverflow
from pto_wsp.lower.bindings import Call, SlotUse
from pto_wsp.lower.tasks import EXIT, FORGET, SLOT, TILE_WORDS, TaskTable
from pto_wsp.schedule import DepsMode, WindowMode
from pto_wsp.sim.edges import (
    BEFORE,
    BEFORE_SERIAL,
    CAUSE,
    COLLECTED,
    CYCLES,
    DEPTH,
    EDGE_SIZE,
    EDGES_TOP,
    ELIGIBLE,
    END,
    FIRST,
    FOLLOWING,
    FRAME_SIZE,
    FREE_EDGE,
    FREE_EDGES,
    FREE_NODE,
    FREE_NODES,
    FROM,
    FROM_BEFORE,
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
    PATH_FROM,
    PATH_TASKS,
    POOL,
    QUEUE,
    RANK,
    READY,
    SEALED,
    SEQUENTIAL,
    SERIAL,
    SLOT_NUMBER,
    STREAM,
    TARGET,
    TASKS_BEFORE,
    WEIGHT,
    chain_of,
    collect,
    enter,
    follow,
    join,
    leave,
    lengthen,
    new_node,
)
from pto_wsp.sim.hazards import (
    BY_IDENTITY,
    BY_OVERLAP,
    CLAIM_SIZE,
    CLAIMS_TOP,
    FOR_LOADS,
    FREE_CLAIM,
    FREE_CLAIMS,
    LOAD,
    MOST_BUCKETS,
    NO_CLAIMS,
    RELINK,
    UNSEEN,
    USE_SIZE,
    TileUses,
    claim_tile,
    release,
    relink,
    weights_of,
)
from pto_wsp.sim.inorder import CHAIN_LIMIT, Counters, Starts, chain_to, work_of
from pto_wsp.sim.keys import Keys
from pto_wsp.sim.loops import Loop
from pto_wsp.sim.queues import (
    BASE,
    BATCH,
    BOUND,
    BY_STREAM,
    CALLS,
    DEQUES,
    DIRTY,
    FIRST_LANE,
    GAP,
    GEN,
    HELD_HEAD,
    HELD_TAIL,
    IDLE,
    INFER,
    IS_DIRTY,
    KEYED,
    LANE_BUSY,
    LANE_FREE,
    LANE_LAST,
    LANE_SIZE,
    LANE_TASKS,
    MODE,
    ORDER,
    ORDERED,
    PARAMS,
    POOL_SIZE,
    QUEUE_SIZE,
    QUEUE_STATE,
    RUNNING,
    S_FROM,
    S_NODE,
    S_PATH,
    S_READY,
    S_SERIAL,
    S_TASKS,
    SETUP_SIZE,
    START_AT,
    STEALS,
    STREAM_SIZE,
    STREAMS,
    TOGETHER,
    TURN,
    TURNS,
    WIDTH,
    WINDOW,
    WORDS,
    choose,
    enqueue,
    first_to_start,
    insert,
    pop_running,
    push_running,
    remove,
    set_idle,
)
from pto_wsp.sim.settings import EXEC_UNITS, MOST_WORKERS, Settings

__all__ = ["DataflowEngine", "after_table"]

# What `play` returns.
(MORE_ROWS, FINISHED, STUCK, MORE_NODES, MORE_EDGES, MORE_FRAMES, MORE_CLAIMS, TOO_LARGE, OVERFLOWN, GO_ON) = range(10)

# Words of the state, after those of queues.py.
(ROW, NOW, EXHAUSTED, TASKS, IN_FLIGHT, MOST_IN_FLIGHT, WORK, MAKESPAN, OVERLAPPED,
 LONGEST, LONGEST_TASKS, LONGEST_LAST, READY_TASKS, MOST_READY, FULL_SINCE, LAST_DONE, GENERATING,
 WINDOW_STALLS, WINDOW_CYCLES, DEPENDENCY_STALLS, DEPENDENCY_CYCLES, BUSY_STALLS, BUSY_CYCLES, RATE_STALLS, RATE_CYCLES,
 START_STALLS, START_CYCLES, LIVE, STARTED, NEXT_START, HELD_TASKS, OVERFLOWS,
 STATE_SIZE) = range(QUEUE_STATE, QUEUE_STATE + 33)  # fmt: skip
# GENERATING   the cycle at which the orchestrator will have generated the next task, -1 when it has not begun
# LONGEST      cycles of the longest chain of edges, its tasks, and the last of them

STALL, ABORT, BENCHMARK = range(3)

NEVER = (1 << 63) - 1


def play(
    count: int, final: bool, kernel: Any, leaf: Any, cycles: Any,
    pool: Any, key: Any, rank: Any, stream: Any, weights: Any,
    setup: Any, after: Any, last: Any, streams: Any,
    args: Any, uses: Any, spaces: Any, claims: Any, chains: Any, state: Any, nodes: Any, edges: Any,
    frames: Any, queues: Any, dirty: Any, pools: Any, lanes: Any, idle: Any, running: Any, chain: Any,
    recording: bool, start: Any, worker: Any, wait: Any, cause: Any, entered: Any, ready: Any,
) -> int:  # fmt: skip
    """Run the clock until the rows [state[ROW], count) of one chunk are generated; with `final`, to the end.

    kernel, leaf, cycles       one per row
    pool, key, rank, stream, weights
                               one per row, or empty: number of the pool, worker in it, priority, stream, what the task
                               takes of the window
    after, last          explicit edges and slots: after[call] ... after[call + 1] are the places in `after` of cells
                         of `last` that a call waits for. Cells are as streams: per call its last task, then per slot
                         what ends before its value is known. After the calls, `after` goes on with the slot uses that
                         SLOT rows name; the first cell of each is that of the slot itself
    streams              per stream: its last task, see queues.py
    args ... chains      the tiles of each row, and what edges are inferred from, see hazards.py
    queues ... idle      of ready tasks, and the workers, see queues.py
    running              tasks that run, as a heap by their end
    chain                per task, by its number: the task before it on the longest chain to it
    start ... ready      written per task, by its number, when `recording`
    returns              MORE_ROWS, FINISHED, STUCK, or which array has to grow before the next call
    """
    if state[RELINK] == 1:
        relink(claims, chains, state)
    while True:
        now = state[NOW]
        complete(nodes, edges, claims, chains, queues, dirty, pools, lanes, idle, running, streams, setup, state, now)
        outcome = generate_all(
            count, final, kernel, leaf, cycles, pool, key, rank, stream, weights, setup, after, last, streams, args,
            uses, spaces, claims, chains, state, nodes, edges, frames, queues, dirty, pools, chain, now,
        )  # fmt: skip
        if outcome != GO_ON:
            return outcome
        if state[SEALED] >= 0:
            continue
        while state[HELD_TASKS] > 0 and (state[HELD_TASKS] >= setup[BATCH] or state[EXHAUSTED] == 1):
            for _ in range(min(state[HELD_TASKS], setup[BATCH])):
                node = state[HELD_HEAD]
                remove(nodes, state, HELD_HEAD, node)
                state[HELD_TASKS] -= 1
                enqueue(nodes, queues, pools, streams, dirty, setup, state, node, now)
        if state[STARTED] < 0 and (
            (setup[START_AT] >= 0 and state[READY_TASKS] >= setup[START_AT]) or state[EXHAUSTED] == 1
        ):
            state[STARTED] = now
        limited = 0
        if state[STARTED] >= 0:
            limited = start_all(
                nodes, queues, dirty, pools, lanes, idle, running, streams, setup, state, now,
                recording, start, worker, wait, cause, entered, ready,
            )  # fmt: skip

        then = NEVER  # what comes next
        if state[RUNNING] > 0:
            then = nodes[running[0] + END]
        if limited == 1 and state[NEXT_START] < then:
            then = state[NEXT_START]
        if state[GENERATING] >= 0 and state[GENERATING] < then:
            then = state[GENERATING]
        if then == NEVER:
            return FINISHED if state[EXHAUSTED] == 1 and state[LIVE] == 0 else STUCK
        state[NOW] = then


# ---- what ends


def complete(
    nodes: Any, edges: Any, claims: Any, chains: Any, queues: Any, dirty: Any, pools: Any, lanes: Any, idle: Any,
    running: Any, streams: Any, setup: Any, state: Any, now: int,
) -> int:  # fmt: skip
    """The tasks that end now, and the blocks that have closed meanwhile."""
    while True:
        node = state[SEALED]
        if node >= 0:
            state[SEALED] = nodes[node + NEXT]
        elif state[RUNNING] > 0 and nodes[running[0] + END] == now:
            node = pop_running(nodes, running, state)
            state[LIVE] -= 1
            state[IN_FLIGHT] -= nodes[node + WEIGHT]
            state[LAST_DONE] = nodes[node + NUMBER]
            set_idle(queues, pools, lanes, idle, dirty, setup, state, nodes[node + LANE], nodes[node + POOL])
        else:
            return 0
        release(nodes, claims, chains, state, node)
        finish(nodes, edges, queues, dirty, pools, streams, setup, state, node, now)


def finish(
    nodes: Any, edges: Any, queues: Any, dirty: Any, pools: Any, streams: Any, setup: Any, state: Any, node: int,
    now: int,
) -> int:  # fmt: skip
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
                    become_ready(nodes, queues, dirty, pools, streams, setup, state, later, now)
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


def become_ready(
    nodes: Any, queues: Any, dirty: Any, pools: Any, streams: Any, setup: Any, state: Any, node: int, now: int
) -> int:
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
        insert(nodes, state, HELD_HEAD, node)
    else:
        enqueue(nodes, queues, pools, streams, dirty, setup, state, node, now)
    return 0


# ---- what is generated


def generate_all(
    count: int, final: bool, kernel: Any, leaf: Any, cycles: Any,
    pool: Any, key: Any, rank: Any, stream: Any, weights: Any,
    setup: Any, after: Any, last: Any, streams: Any,
    args: Any, uses: Any, spaces: Any, claims: Any, chains: Any, state: Any, nodes: Any, edges: Any,
    frames: Any, queues: Any, dirty: Any, pools: Any, chain: Any, now: int,
) -> int:  # fmt: skip
    """All that the orchestrator can generate now. GO_ON when it has to wait, or what `play` has to return."""
    while state[EXHAUSTED] == 0:
        row = state[ROW]
        if row == count:
            if not final:
                return MORE_ROWS
            state[EXHAUSTED] = 1
            return GO_ON
        free = state[FREE_NODES] * NODE_SIZE + len(nodes) - state[NODES_TOP]
        if free < 2 * NODE_SIZE:
            return MORE_NODES
        most = state[NODES_TOP] // NODE_SIZE - state[FREE_NODES] + 4  # edges of one task
        if state[FREE_EDGES] * EDGE_SIZE + len(edges) - state[EDGES_TOP] < most * EDGE_SIZE:
            return MORE_EDGES
        free = state[FREE_CLAIMS] * CLAIM_SIZE + len(claims) - state[CLAIMS_TOP]
        if setup[INFER] != NO_CLAIMS and free < setup[PARAMS] * MOST_BUCKETS * CLAIM_SIZE:
            return MORE_CLAIMS
        what = kernel[row]
        if what == EXIT:
            leave(nodes, edges, frames, state)
        elif what == FORGET:
            forget(last, leaf[row] * STREAM_SIZE)
        elif what == SLOT:
            set_slot(
                row, setup[CALLS] + leaf[row], setup, after, last, args, uses, spaces, nodes, edges, claims, chains,
                state,
            )  # fmt: skip
        elif what < 0:
            if state[DEPTH] + 2 * FRAME_SIZE > len(frames):
                return MORE_FRAMES
            enter(what, frames, state)
        else:
            weight = weights[row] if len(weights) > 0 else 1
            outcome = make_room(setup, state, weight, now)
            if outcome != MORE_ROWS:
                return outcome
            node = generate(nodes, edges, frames, state, cycles[row], weight)
            nodes[node + POOL] = pool[row] if len(pool) > 0 else 0
            nodes[node + RANK] = rank[row] if len(rank) > 0 else 0
            if setup[STREAMS] > 0:
                nodes[node + STREAM] = stream[row] if len(stream) > 0 else nodes[node + NUMBER] % setup[STREAMS]
                wait_for(nodes, edges, state, streams, nodes[node + STREAM] * STREAM_SIZE, node)
            call = leaf[row]
            for place in range(after[call], after[call + 1]):
                wait_for(nodes, edges, state, last, after[place] * STREAM_SIZE, node)
            if setup[INFER] != NO_CLAIMS:
                for param in range(setup[PARAMS]):
                    use = (call * setup[PARAMS] + param) * USE_SIZE
                    if uses[use] >= 0:
                        claim_tile(
                            row * setup[WORDS] + TILE_WORDS * param, use, setup[INFER], args, uses, spaces,
                            nodes, edges, claims, chains, state, node,
                        )  # fmt: skip
            if setup[STREAMS] > 0:
                remember(nodes, streams, nodes[node + STREAM] * STREAM_SIZE, node)
            remember(nodes, last, call * STREAM_SIZE, node)
            place_in_blocks(nodes, edges, frames, chain, state, node)
            nodes[node + GENERATED] = now
            nodes[node + HELD] = state[LAST_DONE]
            nodes[node + QUEUE] = queue_of(nodes, pools, setup, node, key[row] if setup[KEYED] == 1 else 0)
            if nodes[node + MISSING] == 0:
                become_ready(nodes, queues, dirty, pools, streams, setup, state, node, now)
        state[ROW] = row + 1
    return GO_ON


def make_room(setup: Any, state: Any, weight: int, now: int) -> int:
    """Can the next task be generated at this cycle? MORE_ROWS: yes; GO_ON: later; else why not."""
    if state[GENERATING] < 0:
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
                return GO_ON
        if state[FULL_SINCE] >= 0:
            if state[FULL_SINCE] < now:
                state[WINDOW_STALLS] += 1
                state[WINDOW_CYCLES] += now - state[FULL_SINCE]
            state[FULL_SINCE] = -1
        state[GENERATING] = now + setup[GEN]
    if now < state[GENERATING]:
        return GO_ON
    state[GENERATING] = -1
    return MORE_ROWS


def generate(nodes: Any, edges: Any, frames: Any, state: Any, cycles: int, weight: int) -> int:
    """The node of the next task, with the edges that the open blocks give it."""
    frame = state[DEPTH]
    number = state[TASKS]
    state[TASKS] = number + 1
    state[LIVE] += 1
    state[IN_FLIGHT] += weight
    if state[MOST_IN_FLIGHT] < state[IN_FLIGHT]:
        state[MOST_IN_FLIGHT] = state[IN_FLIGHT]
    node = new_node(nodes, state, number, cycles)
    lengthen(nodes, node, frames[frame + PATH_BEFORE], frames[frame + TASKS_BEFORE], frames[frame + FROM_BEFORE])
    nodes[node + WEIGHT] = weight
    follow(nodes, edges, state, frames[frame + BEFORE], frames[frame + BEFORE_SERIAL], node)
    return node


def wait_for(nodes: Any, edges: Any, state: Any, kept: Any, at: int, node: int) -> int:
    """A task comes after the one that is remembered at `at`, which may have completed."""
    lengthen(nodes, node, kept[at + S_PATH], kept[at + S_TASKS], kept[at + S_FROM])
    follow(nodes, edges, state, kept[at + S_NODE], kept[at + S_SERIAL], node)
    return 0


def remember(nodes: Any, kept: Any, at: int, node: int) -> int:
    """This is the last task of a stream, or of a call."""
    kept[at + S_NODE], kept[at + S_SERIAL], kept[at + S_FROM] = node, nodes[node + SERIAL], nodes[node + NUMBER]
    kept[at + S_PATH], kept[at + S_TASKS] = nodes[node + PATH] + nodes[node + CYCLES], nodes[node + PATH_TASKS] + 1
    return 0


def forget(kept: Any, at: int) -> int:
    """There is no last task, as at the beginning."""
    kept[at + S_NODE], kept[at + S_SERIAL], kept[at + S_FROM], kept[at + S_PATH], kept[at + S_TASKS] = -1, -1, -1, 0, 0
    return 0


def set_slot(
    row: int, entry: int, setup: Any, after: Any, last: Any, args: Any, uses: Any, spaces: Any,
    nodes: Any, edges: Any, claims: Any, chains: Any, state: Any,
) -> int:  # fmt: skip
    """A slot changes: its value is known when those that wrote the element are complete, and all that decides is known.

    entry  of the slot use in `after`
    """
    state[SLOT_NUMBER] -= 1
    state[COLLECTED] = -1
    path, tasks, number = 0, 0, -1
    for place in range(after[entry] + 1, after[entry + 1]):
        cell = after[place] * STREAM_SIZE
        if path < last[cell + S_PATH]:
            path, tasks, number = last[cell + S_PATH], last[cell + S_TASKS], last[cell + S_FROM]
        node = last[cell + S_NODE]
        if node >= 0 and nodes[node + SERIAL] == last[cell + S_SERIAL]:
            collect(nodes, edges, state, node)
    use = entry * setup[PARAMS] * USE_SIZE
    if setup[INFER] != NO_CLAIMS and uses[use] >= 0:
        claim_tile(row * setup[WORDS], use, LOAD, args, uses, spaces, nodes, edges, claims, chains, state, -1)
    cell, node = after[after[entry]] * STREAM_SIZE, state[COLLECTED]
    forget(last, cell)
    if node >= 0 and nodes[node + NUMBER] >= 0:
        remember(nodes, last, cell, node)
    elif node >= 0:
        last[cell + S_NODE], last[cell + S_SERIAL] = node, nodes[node + SERIAL]
        last[cell + S_PATH], last[cell + S_TASKS] = nodes[node + PATH], nodes[node + PATH_TASKS]
        last[cell + S_FROM] = nodes[node + PATH_FROM]
    if last[cell + S_PATH] < path:
        last[cell + S_PATH], last[cell + S_TASKS], last[cell + S_FROM] = path, tasks, number
    return 0


def place_in_blocks(nodes: Any, edges: Any, frames: Any, chain: Any, state: Any, node: int) -> int:
    """All edges to a new task are there: the blocks that it stands in wait for it."""
    frame, number = state[DEPTH], nodes[node + NUMBER]
    path, tasks = nodes[node + PATH] + nodes[node + CYCLES], nodes[node + PATH_TASKS] + 1
    if number < len(chain):
        chain[number] = nodes[node + PATH_FROM]
    if state[LONGEST] < path or number == 0:
        state[LONGEST], state[LONGEST_TASKS], state[LONGEST_LAST] = path, tasks, number
    if frames[frame + SEQUENTIAL] == 1:
        frames[frame + BEFORE], frames[frame + BEFORE_SERIAL] = node, nodes[node + SERIAL]
        chain_of(frames, frame + PATH_BEFORE, path, tasks, number)
    else:
        if frames[frame + PATH_DONE] < path:
            chain_of(frames, frame + PATH_DONE, path, tasks, number)
        join(nodes, edges, frames, state, frame, node)
    return 0


def queue_of(nodes: Any, pools: Any, setup: Any, node: int, key: int) -> int:
    """The queue that a task will enter: that of the worker it is bound to, or of its pool."""
    pool = nodes[node + POOL] * POOL_SIZE
    if setup[BOUND] == 0:
        return nodes[node + POOL]  # type: ignore[no-any-return]
    first, width = pools[pool + FIRST_LANE], pools[pool + WIDTH]
    if setup[KEYED] == 1:
        return first + key  # type: ignore[no-any-return]
    if setup[BY_STREAM] == 1:
        return first + nodes[node + STREAM] % width  # type: ignore[no-any-return]
    turn = pools[pool + TURN]
    pools[pool + TURN] = turn + 1 if turn + 1 < width else 0
    return first + turn  # type: ignore[no-any-return]


# ---- what starts


def start_all(
    nodes: Any, queues: Any, dirty: Any, pools: Any, lanes: Any, idle: Any, running: Any, streams: Any,
    setup: Any, state: Any, now: int, recording: bool, start: Any, worker: Any, wait: Any, cause: Any, entered: Any,
    ready: Any,
) -> int:  # fmt: skip
    """All that can start now; 1 if the limit on starts holds up another task."""
    while state[DIRTY] > 0:
        pick = state[DIRTY] - 1
        if setup[GAP] > 0:
            pick = first_to_start(nodes, queues, pools, dirty, setup, state)
            if pick < 0:
                return 0
            if now < state[NEXT_START]:
                return 1
        at = dirty[pick]
        node = choose(nodes, queues, pools, lanes, idle, streams, setup, state, at)
        if node < 0:
            state[DIRTY] -= 1
            dirty[pick] = dirty[state[DIRTY]]
            queues[at * QUEUE_SIZE + IS_DIRTY] = 0
            continue
        lane = nodes[node + LANE]
        if nodes[node + ELIGIBLE] < state[STARTED]:
            nodes[node + ELIGIBLE] = state[STARTED]
        begin(nodes, lanes, running, setup, state, node, lane, now)
        if recording:
            record(nodes, lanes, setup, state, node, lane, now, start, worker, wait, cause, entered, ready)
        lanes[lane * LANE_SIZE + LANE_LAST] = nodes[node + NUMBER]
        lanes[lane * LANE_SIZE + LANE_FREE] = nodes[node + END]
        if setup[GAP] > 0:
            state[NEXT_START] = now + setup[GAP]
    return 0


def begin(nodes: Any, lanes: Any, running: Any, setup: Any, state: Any, node: int, lane: int, now: int) -> int:
    """A task starts on a worker."""
    cycles, eligible = nodes[node + CYCLES], nodes[node + ELIGIBLE]
    nodes[node + END] = now + cycles
    lanes[lane * LANE_SIZE + LANE_TASKS] += 1
    lanes[lane * LANE_SIZE + LANE_BUSY] += cycles
    state[READY_TASKS] -= 1
    state[WORK] += cycles
    if state[RUNNING] > 0:
        state[OVERLAPPED] += 1
    if nodes[node + READY] < eligible:
        state[START_STALLS] += 1
        state[START_CYCLES] += eligible - nodes[node + READY]
    if eligible < now:
        if setup[GAP] > 0 and state[NEXT_START] == now:
            state[RATE_STALLS] += 1
            state[RATE_CYCLES] += now - eligible
        else:
            state[BUSY_STALLS] += 1
            state[BUSY_CYCLES] += now - eligible
    if state[MAKESPAN] < now + cycles:
        state[MAKESPAN] = now + cycles
    push_running(nodes, running, state, node)
    return 0


def record(
    nodes: Any, lanes: Any, setup: Any, state: Any, node: int, lane: int, now: int,
    start: Any, worker: Any, wait: Any, cause: Any, entered: Any, ready: Any,
) -> int:  # fmt: skip
    """Note when and where a task starts, what it waited for until then, and which task's end that was."""
    number = nodes[node + NUMBER]
    start[number], worker[number], wait[number], cause[number] = now, lane, 0, -1  # numbers of inorder.Wait
    entered[number], ready[number] = nodes[node + GENERATED], nodes[node + READY]
    if nodes[node + ELIGIBLE] < now:
        if setup[GAP] > 0 and state[NEXT_START] == now:
            wait[number] = 5
        else:
            wait[number], cause[number] = 4, lanes[lane * LANE_SIZE + LANE_LAST]
    elif nodes[node + READY] < now:
        wait[number] = 6
    elif nodes[node + GENERATED] < now:
        wait[number], cause[number] = 1, nodes[node + CAUSE]
    elif now > 0 and setup[GEN] > 0:
        wait[number] = 7
    elif now > 0:
        wait[number], cause[number] = 3, nodes[node + HELD]
    return 0


# ---- the engine


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
        infer = NO_CLAIMS
        if uses is not None and settings.infer is not None:
            infer = BY_IDENTITY if settings.infer is DepsMode.INFER_TENSOR_MAP_EXACT else BY_OVERLAP
        elif uses is not None and slots and uses.loaded:
            infer = FOR_LOADS
        setup = {
            ORDER: DEQUES if settings.ready == "work_steal" else TURNS if settings.together else ORDERED,
            BOUND: settings.bound, KEYED: settings.keyed, WINDOW: settings.window, INFER: infer, CALLS: len(calls),
            PARAMS: uses.params if uses is not None else 0, MODE: _MODES[settings.mode], START_AT: settings.start_at,
            GAP: settings.gap, BATCH: max(settings.batch, settings.ready == "work_steal"),
            STREAMS: settings.streams, TOGETHER: settings.together, BY_STREAM: settings.by_stream,
            GEN: settings.gen_cycles,
        }  # fmt: skip
        self._setup = np.array([setup.get(word, 0) for word in range(SETUP_SIZE)], np.int64)
        self._uses = self._spaces = np.zeros(0, np.int64)
        if uses is not None and infer != NO_CLAIMS:
            self._uses, self._spaces = uses.for_loads() if infer == FOR_LOADS else uses.uses, uses.spaces
        self._claims, self._chains = np.zeros(0, np.int64), np.full(2, -1, np.int64)
        if infer != NO_CLAIMS:
            self._make_claims()
        self._after = after_table(calls, slots)
        self._last = _kept(len(calls) + len({use.slot for use in slots}))
        self._streams = _kept(settings.streams)
        self._state = np.zeros(STATE_SIZE, np.int64)
        none = [FREE_NODE, FREE_EDGE, FREE_CLAIM, SEALED, FULL_SINCE, LAST_DONE, HELD_HEAD, HELD_TAIL, GENERATING]
        self._state[[*none, STARTED, LONGEST_LAST, SLOT_NUMBER]] = -1
        self._nodes, self._edges = np.zeros(64 * NODE_SIZE, np.int64), np.zeros(256 * EDGE_SIZE, np.int64)
        self._frames = np.zeros(16 * FRAME_SIZE, np.int64)
        self._frames[[BEFORE, GATE, OWNER, FROM_BEFORE]] = -1
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
        self._claims = _larger(self._claims, 2 * int(self._setup[PARAMS]) * MOST_BUCKETS * CLAIM_SIZE)
        chains = 1 << (len(self._claims) // CLAIM_SIZE).bit_length()
        self._chains = np.full(2 * (chains + 1), -1, np.int64)

    @property
    def pools(self) -> tuple[tuple[str, int], ...]:
        """Name and number of workers of each pool, in the order of the workers; one without a name: all workers."""
        return tuple(zip(self.pool_names, self._pools[WIDTH::POOL_SIZE].tolist(), strict=True))

    def _add_pool(self, name: str, width: int) -> None:
        """Workers, idle so far, and their queues."""
        first, bound, deques = len(self._running), self._setup[BOUND] == 1, self._setup[ORDER] == DEQUES
        if first + width > MOST_WORKERS:
            raise ScheduleError(
                f"{len(self.pool_names) + 1:,} pools of {width:,} workers each; at most {MOST_WORKERS:,} workers are "
                "simulated", "pools"
            )  # fmt: skip
        lanes = np.arange(first, first + width)
        pool = [first, width, 0, 0, width if deques else 0]
        lane = np.array([0, 0, 0, 0, deques], np.int64)
        bases = lanes if bound or deques else lanes[:1]
        queues = np.tile(np.array([-1, -1, -1, 0, 0, 0, 0, -1], np.int64), (len(bases), 1))
        queues[:, IDLE], queues[:, BASE] = 0 if deques else 1 if bound else width, bases
        self.pool_names.append(name)
        self._pools = np.concatenate([self._pools, np.array(pool, np.int64)])
        self._lanes = np.concatenate([self._lanes, np.tile(lane, width)])
        self._queues = np.concatenate([self._queues, queues.reshape(-1)])
        self._idle = np.concatenate([self._idle, lanes])
        self._running, self._dirty = (_grown(array, first + width) for array in (self._running, self._dirty))

    def play(self, table: TaskTable) -> None:
        """Generate the rows of one chunk; the clock goes as far as that needs.

        raises  WindowOverflow in mode ABORT; ScheduleError for a task that no window of this size can hold
        """
        if not self._setup[CALLS]:
            return  # slots change, and there is no task to wait for them
        rows, settings, keys = slice(0, table.count), self.settings, self._keys
        kernel, cycles, none = table.kernel[rows], table.cycles[rows], np.zeros(0, np.int64)
        keys.start(table)
        if "cycles" in keys:
            cycles = self._costs(table)
            if self.recording:
                table.cycles[rows] = cycles  # whoever records the tasks finds the durations that were played
        self._work += work_of(kernel, cycles)
        waits = (settings.gap + settings.gen_cycles) * (int(self._state[TASKS]) + len(cycles))
        if self._work + waits >= NEVER:  # no later
            raise ExecutionError(f"the tasks need {self._work:.3g} cycles in all; the clock counts to 2^63 - 2")
        args = table.args[rows] if self._setup[INFER] else np.zeros((0, 0), np.int64)
        self._setup[WORDS] = args.shape[1]
        pool = self._pool_of(table)
        columns = (
            pool,
            self._lane_of(pool) if "dispatch" in keys else none,
            keys.signed_column("priority") if "priority" in keys else none,
            _modulo(keys.column("stream"), settings.streams) if "stream" in keys else none,
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
                self._run(none, none, words, (words,) * 5, words, final=True)
            if self._stuck:
                raise ScheduleError(
                    f"StartPolicy.after_orchestration() waits until all {self._state[TASKS]:,} tasks are generated; "
                    f"the window of {self.settings.window:,} {self.settings.unit} holds fewer, so no task can start. "
                    "Use a larger window, WindowMode.BENCHMARK or StartPolicy.threshold(n).", "start"
                )  # fmt: skip
            self._finished = True

    # -- columns

    def _costs(self, table: TaskTable) -> NDArray[np.int64]:
        kernel = table.kernel[: table.count]
        cycles = np.where(kernel >= 0, self._keys.column("cycles"), 0)
        if len(cycles) and cycles.min() < 0:
            row = int(np.argmax(cycles < 0))
            task = int(self._state[TASKS]) + int(np.count_nonzero(kernel[:row] >= 0))
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
        state[ROW] = 0
        most = int(state[TASKS]) + count
        if self.recording and most > len(self._starts[0]):
            self._starts = [_grown(column, max(most, 2 * len(column))) for column in self._starts]
        if most > len(self._chain) and len(self._chain) < CHAIN_LIMIT:
            self._chain = _grown(self._chain, min(CHAIN_LIMIT, max(most, 2 * len(self._chain))))
        run = PLAY.choose(count)
        while True:
            outcome = run(
                count, final, kernel, leaf, cycles, *columns, self._setup, self._after, self._last, self._streams,
                args, self._uses, self._spaces, self._claims, self._chains, state, self._nodes, self._edges,
                self._frames, self._queues, self._dirty, self._pools, self._lanes, self._idle, self._running,
                self._chain, self.recording, *self._starts,
            )  # fmt: skip
            if outcome == MORE_NODES:
                self._nodes = _larger(self._nodes)
            elif outcome == MORE_EDGES:
                self._edges = _larger(self._edges)
            elif outcome == MORE_FRAMES:
                self._frames = _larger(self._frames)
            elif outcome == MORE_CLAIMS:
                self._make_claims()
                state[RELINK] = 1
            else:
                break
        if outcome not in (MORE_ROWS, FINISHED):
            self._fail(outcome, columns[4], kernel)

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
        elif state[STARTED] < 0:
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
            critical_path_tasks=state[LONGEST_TASKS],
            critical_path=chain_to(state[LONGEST_LAST], state[TASKS], self._chain),
            parallel_tasks=state[OVERLAPPED],
            tasks=tuple(lanes[:, LANE_TASKS].tolist()),
            busy=tuple(lanes[:, LANE_BUSY].tolist()),
            pools=self.pools,
            window=self.settings.window,
            bound=self.settings.bound,
            gen_cycles=self.settings.gen_cycles,
            gap=self.settings.gap,
            window_stalls=state[WINDOW_STALLS],
            window_stalled_cycles=state[WINDOW_CYCLES],
            dependency_stalls=state[DEPENDENCY_STALLS],
            dependency_stalled_cycles=state[DEPENDENCY_CYCLES],
            unseen_overlaps=state[UNSEEN],
            overflows=state[OVERFLOWS],
            rate_stalls=state[RATE_STALLS],
            rate_stalled_cycles=state[RATE_CYCLES],
            start_stalls=state[START_STALLS],
            start_stalled_cycles=state[START_CYCLES],
            busy_stalls=state[BUSY_STALLS],
            busy_stalled_cycles=state[BUSY_CYCLES],
            most_in_window=state[MOST_IN_FLIGHT],
            most_ready=state[MOST_READY],
            steals=state[STEALS],
        )

    def starts(self) -> tuple[Starts, NDArray[np.int64]]:
        """Per task, in program order: what Starts holds; and the task whose end it waited for, or -1.

        There is a cause for DEPENDENCY, WINDOW_FULL and WORKER_BUSY: the task ends when the other one starts. There is
        none for RATE_LIMIT, START and ORCHESTRATOR."""
        self.finish()
        start, worker, wait, cause, entered, ready = (column[: self._state[TASKS]] for column in self._starts)
        return Starts(start, worker, wait, entered, ready), cause


def _kept(count: int) -> NDArray[np.int64]:
    """Of so many streams or calls: nothing has been generated yet."""
    kept = np.zeros((count, STREAM_SIZE), np.int64)
    kept[:, [S_NODE, S_SERIAL, S_FROM, S_READY]] = -1
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


_MODES = {WindowMode.STALL: STALL, WindowMode.ABORT: ABORT, WindowMode.BENCHMARK: BENCHMARK}

# Plain Python plays a hundred thousand tasks per second, machine code ten million. That takes half a second to make.
PLAY = Loop(
    play, "i64", "bool", "i32[]", "i32[]", *["i64[]"] * 6,  # count, final, kernel, leaf, cycles ... weights
    *["i64[]"] * 20,  # setup ... chain
    "bool", "i64[]", "i32[]", "u8[]", *["i64[]"] * 3,  # recording, start, worker, wait, cause, entered, ready
    loading=200, making=8_000,
)  # fmt: skip
