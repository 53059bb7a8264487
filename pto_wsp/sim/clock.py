"""The dataflow engine's clock: at which cycle does each task start?

A task is generated, has its edges met, is ready, gets a worker, runs, is complete; what has completed is forgotten, so
that memory is bounded by the window. Ties go by program order, then by worker number. Start reading at `play`: plain
Python over int arrays, compiled when there is enough work (sim/loops.py). Where edges come from is in edges.py and
hazards.py, which task a worker takes in queues.py; dataflow.py makes the arrays.
"""

from __future__ import annotations

from typing import Any

from pto_wsp.lower.tasks import EXIT, FORGET, SLOT, TILE_WORDS
from pto_wsp.sim.edges import (
    BEFORE,
    BEFORE_SERIAL,
    CAUSE,
    COLLECTED,
    CYCLES,
    DEPTH,
    EDGE_SIZE,
    EDGES,
    ELIGIBLE,
    END,
    FIRST,
    FOLLOWING,
    FRAME_SIZE,
    FREE_RECORDS,
    FROM,
    FROM_BEFORE,
    GENERATED,
    HELD,
    LANE,
    MISSING,
    NEXT,
    NODE_SIZE,
    NODES,
    NUMBER,
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
    TOP,
    WEIGHT,
    chain_of,
    collect,
    enter,
    follow,
    give_back,
    has_room,
    join,
    leave,
    lengthen,
    new_node,
)
from pto_wsp.sim.hazards import (
    CLAIM_SIZE,
    CLAIMS,
    LOAD,
    MOST_BUCKETS,
    NO_CLAIMS,
    RELINK,
    USE_SIZE,
    claim_tile,
    release,
    relink,
)
from pto_wsp.sim.loops import Loop
from pto_wsp.sim.queues import (
    BATCH,
    BOUND,
    BY_STREAM,
    CALLS,
    DIRTY,
    FIRST_LANE,
    GAP,
    GEN,
    HELD_HEAD,
    INFER,
    IS_DIRTY,
    KEYED,
    LANE_BUSY,
    LANE_FREE,
    LANE_LAST,
    LANE_SIZE,
    LANE_TASKS,
    MODE,
    PARAMS,
    POOL_SIZE,
    QUEUE_SIZE,
    QUEUE_STATE,
    RUNNING,
    S_FROM,
    S_NODE,
    S_PATH,
    S_SERIAL,
    S_TASKS,
    START_AT,
    STREAM_SIZE,
    STREAMS,
    TURN,
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
            give_back(edges, state, EDGES, FOLLOWING, edge)
            edge = after
        nodes[node + SERIAL] += 1
        give_back(nodes, state, NODES, NEXT, node)
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
        if not has_room(nodes, state, NODES, NODE_SIZE, 2):
            return MORE_NODES
        most = state[NODES + TOP] // NODE_SIZE - state[NODES + FREE_RECORDS] + 4  # edges of one task
        if not has_room(edges, state, EDGES, EDGE_SIZE, most):
            return MORE_EDGES
        if setup[INFER] != NO_CLAIMS and not has_room(claims, state, CLAIMS, CLAIM_SIZE, setup[PARAMS] * MOST_BUCKETS):
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


# Plain Python plays a hundred thousand tasks per second, machine code ten million. That takes half a second to make.
PLAY = Loop(
    play, "i64", "bool", "i32[]", "i32[]", *["i64[]"] * 6,  # count, final, kernel, leaf, cycles ... weights
    *["i64[]"] * 20,  # setup ... chain
    "bool", "i64[]", "i32[]", "u8[]", *["i64[]"] * 3,  # recording, start, worker, wait, cause, entered, ready
    loading=200, making=8_000,
)  # fmt: skip
