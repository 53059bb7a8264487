"""Queues of the dataflow engine: ready tasks, idle workers, running tasks. Which ready task goes to which free worker?

Three orders of ready tasks: ORDERED (the lowest rank, then the longest wait, then program order), TURNS (the streams in
turn) and DEQUES (one per worker, from which others steal). Functions over flat arrays of int64, like edges.py: a queue,
a pool, a lane is known by its number, its words begin at number * SIZE. Start reading at `enqueue` and `choose`.
"""

from __future__ import annotations

from typing import Any

from pto_wsp.sim.edges import (
    CHILD,
    ELIGIBLE,
    END,
    FROM,
    LANE,
    NEXT,
    NUMBER,
    POOL,
    QUEUE,
    RANK,
    READY,
    SIBLING,
    STREAM,
)
from pto_wsp.sim.hazards import HAZARD_STATE

ORDERED, TURNS, DEQUES = range(3)

# Words of a queue of ready tasks. Where tasks are bound to workers, or in deques, each worker has one; else each pool.
HEAD, TAIL, ROOT, COUNT, IDLE, BASE, IS_DIRTY, LAST_STREAM, QUEUE_SIZE = range(9)
# HEAD, TAIL   a sorted list of those that came in order; ROOT: a pairing heap of the others
# IDLE     how many of the workers that this queue feeds have nothing to do: a heap from BASE on in `idle`

# Words of a pool: its lanes are FIRST_LANE ... FIRST_LANE + WIDTH - 1.
FIRST_LANE, WIDTH, TURN, WAITING, FREE, POOL_SIZE = range(6)
# TURN     the next worker in turn; WAITING, FREE: with deques, tasks in them and workers with nothing to do

# Words of a lane, that is a worker.
LANE_TASKS, LANE_BUSY, LANE_LAST, LANE_FREE, LANE_IDLE, LANE_SIZE = range(6)

# Words of a stream: its last task, see Setup; the chain to the end of that; its task that is ready.
S_NODE, S_SERIAL, S_PATH, S_TASKS, S_FROM, S_READY, STREAM_SIZE = range(7)

# Words of the setup.
(ORDER, BOUND, KEYED, WINDOW, INFER, CALLS, PARAMS, WORDS, MODE, START_AT, GAP, BATCH, STREAMS, TOGETHER, BY_STREAM,
 GEN, SETUP_SIZE) = range(17)  # fmt: skip
# ORDER    of ready tasks; BOUND: a task is bound to a worker when it is generated; KEYED: by its key, else in turn, or
#          BY_STREAM: to the worker of its stream
# INFER    what tiles are claimed for, see hazards.py; PARAMS: tile parameters, WORDS: args per task
# CALLS    kernel calls: in the tables by call, what belongs to SLOT rows comes after them
# MODE     of the window: STALL, ABORT or BENCHMARK
# START_AT workers start when so many tasks are ready, 0: at once, -1: when all tasks are generated
# GAP      cycles between two starts; BATCH: tasks become eligible in groups of so many; STREAMS: in-order queues, of
#          which TOGETHER are taken in turn;  GEN: cycles that the orchestrator needs for a task

# Words of the state that belong to this file, after those of hazards.py.
RUNNING, DIRTY, STEALS, HELD_HEAD, HELD_TAIL, QUEUE_STATE = range(HAZARD_STATE, HAZARD_STATE + 6)
# DIRTY    length of `dirty`: queues (with deques: pools) in which a task can perhaps start


def touch(queues: Any, dirty: Any, state: Any, at: int) -> int:
    """Something has changed: perhaps a task of this queue can start."""
    if queues[at * QUEUE_SIZE + IS_DIRTY] == 0:
        queues[at * QUEUE_SIZE + IS_DIRTY] = 1
        dirty[state[DIRTY]] = at
        state[DIRTY] += 1
    return 0


def enqueue(
    nodes: Any, queues: Any, pools: Any, streams: Any, dirty: Any, setup: Any, state: Any, node: int, now: int
) -> int:
    """A task may start from now on, when a worker is free for it."""
    nodes[node + ELIGIBLE] = now
    at = nodes[node + POOL]
    if setup[ORDER] == DEQUES:
        lane = own_lane(nodes, pools, at * POOL_SIZE, node)
        insert(nodes, queues, lane * QUEUE_SIZE + HEAD, node)
        queues[lane * QUEUE_SIZE + COUNT] += 1
        pools[at * POOL_SIZE + WAITING] += 1
    else:
        at = nodes[node + QUEUE]
        queues[at * QUEUE_SIZE + COUNT] += 1
        if setup[ORDER] == TURNS:
            streams[nodes[node + STREAM] * STREAM_SIZE + S_READY] = node
        else:
            push_ready(nodes, queues, at * QUEUE_SIZE, node)
    touch(queues, dirty, state, at)
    return 0


def own_lane(nodes: Any, pools: Any, pool: int, node: int) -> int:
    """Whose deque a task enters: that of the worker that completed its last predecessor, if that is one of its pool and
    the task waited for it; others in turn."""
    lane, first, width = nodes[node + FROM], pools[pool + FIRST_LANE], pools[pool + WIDTH]
    if lane < first or lane >= first + width:
        lane = first + pools[pool + TURN]
        pools[pool + TURN] = pools[pool + TURN] + 1 if pools[pool + TURN] + 1 < width else 0
    return lane  # type: ignore[no-any-return]


def set_idle(
    queues: Any, pools: Any, lanes: Any, idle: Any, dirty: Any, setup: Any, state: Any, lane: int, pool: int
) -> int:
    """A worker has nothing to do."""
    at = pool
    if setup[ORDER] == DEQUES:
        lanes[lane * LANE_SIZE + LANE_IDLE] = 1
        pools[pool * POOL_SIZE + FREE] += 1
    else:
        if setup[BOUND] == 1:
            at = lane
        push_idle(idle, queues, at * QUEUE_SIZE, lane)
    touch(queues, dirty, state, at)
    return 0


def choose(
    nodes: Any, queues: Any, pools: Any, lanes: Any, idle: Any, streams: Any, setup: Any, state: Any, at: int
) -> int:
    """The task of a queue that starts next, its LANE set; -1 if none can."""
    if setup[ORDER] == DEQUES:
        return choose_from_deques(nodes, queues, pools, lanes, state, at)
    queue = at * QUEUE_SIZE
    if queues[queue + IDLE] == 0 or queues[queue + COUNT] == 0:
        return -1
    queues[queue + COUNT] -= 1
    turns = setup[ORDER] == TURNS
    node = choose_in_turn(nodes, queues, streams, setup, at) if turns else pop_ready(nodes, queues, queue)
    nodes[node + LANE] = pop_idle(idle, queues, queue)
    return node


def first_to_start(nodes: Any, queues: Any, pools: Any, dirty: Any, setup: Any, state: Any) -> int:
    """The place in `dirty` of the queue whose first task goes before all others that could start, -1 for none. With
    deques: that of the first pool in which a task can start."""
    found, best = -1, -1
    for place in range(state[DIRTY]):
        at = dirty[place]
        queue, pool = at * QUEUE_SIZE, at * POOL_SIZE
        if setup[ORDER] == DEQUES:
            if pools[pool + WAITING] > 0 and pools[pool + FREE] > 0 and (found < 0 or at < dirty[found]):
                found = place
        elif queues[queue + IDLE] > 0 and queues[queue + COUNT] > 0:
            node, root = queues[queue + HEAD], queues[queue + ROOT]
            if root >= 0 and (node < 0 or before(nodes, root, node) == 1):
                node = root
            if best < 0 or before(nodes, node, best) == 1:
                found, best = place, node
    return found


# ---- streams in turn


def choose_in_turn(nodes: Any, queues: Any, streams: Any, setup: Any, at: int) -> int:
    """The ready task of lowest rank; among those of one rank that of the stream whose turn it is. TOGETHER streams form
    a group. Its streams have their turns, one task each, as long as it has ready tasks; then comes the next group."""
    count, together, last = setup[STREAMS], setup[TOGETHER], queues[at * QUEUE_SIZE + LAST_STREAM]
    group, place, best = 0, together - 1, -1
    if last >= 0:
        group, place = last // together, last % together
    for _ in range((count + together - 1) // together):
        for step in range(1, together + 1):
            stream = group * together + (place + step) % together
            if stream < count:
                node = streams[stream * STREAM_SIZE + S_READY]
                if node >= 0 and nodes[node + QUEUE] == at and (best < 0 or nodes[node + RANK] < nodes[best + RANK]):
                    best = node
        group, place = group + 1 if (group + 1) * together < count else 0, together - 1
    streams[nodes[best + STREAM] * STREAM_SIZE + S_READY] = -1
    queues[at * QUEUE_SIZE + LAST_STREAM] = nodes[best + STREAM]
    return best


# ---- deques: lists that are linked both ways, oldest first. `ends` holds their first and last task at `at`


def choose_from_deques(nodes: Any, queues: Any, pools: Any, lanes: Any, state: Any, at: int) -> int:
    """Owners first: the newest of its own for the first idle worker that has some. When none has, the first idle worker
    steals the oldest of the longest deque."""
    pool = at * POOL_SIZE
    if pools[pool + WAITING] == 0 or pools[pool + FREE] == 0:
        return -1
    owner, thief, victim, most, lane = -1, -1, -1, 0, pools[pool + FIRST_LANE]
    end = lane + pools[pool + WIDTH]
    while owner < 0 and lane < end:
        count = queues[lane * QUEUE_SIZE + COUNT]
        if lanes[lane * LANE_SIZE + LANE_IDLE] == 1:
            if count > 0:
                owner = lane
            elif thief < 0:
                thief = lane
        if count > most:
            most, victim = count, lane
        lane += 1
    if owner >= 0:
        thief = victim = owner
        node = queues[owner * QUEUE_SIZE + TAIL]
    else:
        node = queues[victim * QUEUE_SIZE + HEAD]
        state[STEALS] += 1
    remove(nodes, queues, victim * QUEUE_SIZE + HEAD, node)
    queues[victim * QUEUE_SIZE + COUNT] -= 1
    pools[pool + WAITING] -= 1
    pools[pool + FREE] -= 1
    lanes[thief * LANE_SIZE + LANE_IDLE] = 0
    nodes[node + LANE] = thief
    return node  # type: ignore[no-any-return]


def insert(nodes: Any, ends: Any, at: int, node: int) -> int:
    """Into its place by the cycle it became ready at, then program order: nearly always the end."""
    older = ends[at + 1]
    while older >= 0 and (
        nodes[node + READY] < nodes[older + READY]
        or (nodes[node + READY] == nodes[older + READY] and nodes[node + NUMBER] < nodes[older + NUMBER])
    ):
        older = nodes[older + CHILD]
    newer = ends[at] if older < 0 else nodes[older + NEXT]
    nodes[node + CHILD], nodes[node + NEXT] = older, newer
    if older >= 0:
        nodes[older + NEXT] = node
    else:
        ends[at] = node
    if newer >= 0:
        nodes[newer + CHILD] = node
    else:
        ends[at + 1] = node
    return 0


def remove(nodes: Any, ends: Any, at: int, node: int) -> int:
    older, newer = nodes[node + CHILD], nodes[node + NEXT]
    if older >= 0:
        nodes[older + NEXT] = newer
    else:
        ends[at] = newer
    if newer >= 0:
        nodes[newer + CHILD] = older
    else:
        ends[at + 1] = older
    return 0


# ---- ready tasks in order


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


def push_idle(idle: Any, queues: Any, queue: int, lane: int) -> int:
    place, base = queues[queue + IDLE], queues[queue + BASE]
    queues[queue + IDLE] = place + 1
    while place > 0 and lane < idle[base + ((place - 1) >> 1)]:
        idle[base + place] = idle[base + ((place - 1) >> 1)]
        place = (place - 1) >> 1
    idle[base + place] = lane
    return 0


def pop_idle(idle: Any, queues: Any, queue: int) -> int:
    base = queues[queue + BASE]
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
