"""Edges between tasks, found while the tasks are generated: which task waits for which others?

A node is a task between its generation and its completion, or a gate: a task of no duration that stands for the end of
a block, so that a block of n tasks needs about 2 n edges and not n * n, or for all that the value of a slot waits for.
Only live nodes exist: what has completed holds nothing up. Nodes, edges and frames are records in flat arrays of int64,
linked by the position of their first word, so that the functions over them can be compiled. Start reading at `enter`
and `leave`.
"""

from __future__ import annotations

from typing import Any

from pto_wsp.lower.tasks import ENTER_SEQUENTIAL

__all__ = [
    "FRAME_SIZE",
    "NODE_SIZE",
    "add_edge",
    "chain_of",
    "collect",
    "enter",
    "follow",
    "give_back",
    "has_room",
    "join",
    "leave",
    "lengthen",
    "new_node",
    "take",
]

# Words of a node.
(NUMBER, SERIAL, MISSING, FIRST, LAST, STAMP, PATH, PATH_TASKS, PATH_FROM, CYCLES, CAUSE, FROM, POOL, QUEUE, STREAM,
 RANK, GENERATED, READY, ELIGIBLE, END, LANE, NEXT, CHILD, SIBLING, WEIGHT, TILES, HELD, UNSEEN_BY, NODE_SIZE,
) = range(29)  # fmt: skip
# NUMBER   of the task in program order; of a gate: -1 at the end of a block, less for a slot
# SERIAL   grows when the node is freed, so that whoever remembers a node can tell whether it is still the same
# MISSING  predecessors that have not completed
# FIRST, LAST  its edges, in the order in which they were added
# STAMP    the last task that got an edge from here
# PATH     the longest chain of edges to its begin, in cycles; PATH_TASKS: so many tasks, PATH_FROM: the last of them
# TILES    the first of its claims, see hazards.py; UNSEEN_BY: the last task that overlaps it without an edge
# CAUSE    the task that completed last among its predecessors, -1; FROM: on which worker that was

# Words of an edge.
TARGET, FOLLOWING, EDGE_SIZE = range(3)

# Words of a frame: an open block.
(SEQUENTIAL, BEFORE, BEFORE_SERIAL, PATH_BEFORE, TASKS_BEFORE, FROM_BEFORE, PATH_DONE, TASKS_DONE, FROM_DONE, GATE,
 OWNER, FRAME_SIZE) = range(12)  # fmt: skip
# BEFORE   the node that the next child waits for, -1 for none; PATH, TASKS, FROM: the longest chain up to there
# DONE     the longest chain to the end of what is in the block so far
# GATE     collects the tasks of a parallel block; made when the first task needs it
# OWNER    the frame whose gate collects the tasks of this parallel block, -1 when nobody waits for its end

# Words of the state that belong to this file; hazards.py counts on from there.
NODES, EDGES, SEALED, DEPTH, SLOT_NUMBER, COLLECTED, EDGES_STATE = 0, 3, 6, 7, 8, 9, 10
# NODES, EDGES  three words each, see `take`
# SLOT_NUMBER  the NUMBER of a gate for the slot that is being set; COLLECTED: the node that it waits for, -1: for none


# How records of one kind are kept, in three words of the state.
FREE, FREE_RECORDS, TOP = range(3)  # the first free record, how many there are, where new ones begin


def take(records: Any, state: Any, kept: int, following: int, size: int) -> int:
    """A record that is free, or a new one; there has to be room for it. Free ones are linked by their word `following`.

    kept   where the state has the three words of its kind
    """
    record = state[kept + FREE]
    if record >= 0:
        state[kept + FREE] = records[record + following]
        state[kept + FREE_RECORDS] -= 1
    else:
        record = state[kept + TOP]
        state[kept + TOP] = record + size
    return record  # type: ignore[no-any-return]


def give_back(records: Any, state: Any, kept: int, following: int, record: int) -> int:
    """It is free."""
    records[record + following] = state[kept + FREE]
    state[kept + FREE] = record
    state[kept + FREE_RECORDS] += 1
    return 0


def has_room(records: Any, state: Any, kept: int, size: int, count: int) -> bool:
    """For so many more records?"""
    return state[kept + FREE_RECORDS] * size + len(records) - state[kept + TOP] >= count * size  # type: ignore[no-any-return]


def new_node(nodes: Any, state: Any, number: int, cycles: int) -> int:
    """A node without edges; there has to be room for it."""
    node = take(nodes, state, NODES, NEXT, NODE_SIZE)
    nodes[node + NUMBER], nodes[node + CYCLES] = number, cycles
    nodes[node + PATH], nodes[node + PATH_TASKS], nodes[node + PATH_FROM] = 0, 0, -1
    nodes[node + MISSING], nodes[node + FIRST], nodes[node + LAST], nodes[node + STAMP] = 0, -1, -1, -1
    nodes[node + CAUSE], nodes[node + FROM], nodes[node + NEXT], nodes[node + TILES] = -1, -1, -1, -1
    nodes[node + CHILD], nodes[node + SIBLING], nodes[node + UNSEEN_BY] = -1, -1, -1
    return node


def add_edge(nodes: Any, edges: Any, state: Any, earlier: int, later: int) -> int:
    """`later` waits for `earlier`, a live node."""
    edge = take(edges, state, EDGES, FOLLOWING, EDGE_SIZE)
    edges[edge + TARGET], edges[edge + FOLLOWING] = later, -1
    last = nodes[earlier + LAST]
    if last < 0:
        nodes[earlier + FIRST] = edge
    else:
        edges[last + FOLLOWING] = edge
    nodes[earlier + LAST] = edge
    nodes[later + MISSING] += 1
    number = nodes[earlier + NUMBER]
    if number >= 0:
        lengthen(nodes, later, nodes[earlier + PATH] + nodes[earlier + CYCLES], nodes[earlier + PATH_TASKS] + 1, number)
    else:
        lengthen(nodes, later, nodes[earlier + PATH], nodes[earlier + PATH_TASKS], nodes[earlier + PATH_FROM])
    return 0


def lengthen(nodes: Any, node: int, path: int, tasks: int, last: int) -> int:
    """A chain of so many cycles and tasks leads to the begin of a node: is it the longest?"""
    if nodes[node + PATH] < path:
        nodes[node + PATH], nodes[node + PATH_TASKS], nodes[node + PATH_FROM] = path, tasks, last
    return 0


def follow(nodes: Any, edges: Any, state: Any, earlier: int, serial: int, later: int) -> int:
    """The task `later` waits for a node that somebody remembers, unless that has completed or it does so already."""
    number = nodes[later + NUMBER]
    if earlier >= 0 and nodes[earlier + SERIAL] == serial and nodes[earlier + STAMP] != number:
        nodes[earlier + STAMP] = number
        add_edge(nodes, edges, state, earlier, later)
    return 0


def collect(nodes: Any, edges: Any, state: Any, node: int) -> int:
    """The slot that changes waits for one more live node; a gate stands for several. May make one node, two edges."""
    found = state[COLLECTED]
    if found < 0:
        state[COLLECTED] = node
    elif found != node:
        if nodes[found + NUMBER] != state[SLOT_NUMBER]:
            gate = new_node(nodes, state, state[SLOT_NUMBER], 0)
            follow(nodes, edges, state, found, nodes[found + SERIAL], gate)
            state[COLLECTED] = gate
        follow(nodes, edges, state, node, nodes[node + SERIAL], state[COLLECTED])
    return 0


def join(nodes: Any, edges: Any, frames: Any, state: Any, frame: int, node: int) -> int:
    """The end of a parallel block waits for a node, if something waits for that end. May make one node, one edge."""
    owner = frames[frame + OWNER]
    if owner >= 0:
        gate = frames[owner + GATE]
        if gate < 0:
            gate = new_node(nodes, state, -1, 0)
            nodes[gate + MISSING] = 1  # it is still open
            frames[owner + GATE] = gate
        add_edge(nodes, edges, state, node, gate)
    return 0


def enter(what: int, frames: Any, state: Any) -> int:
    """A block opens inside the innermost open one."""
    outer = state[DEPTH]
    inner = outer + FRAME_SIZE
    state[DEPTH] = inner
    frames[inner + SEQUENTIAL] = 1 if what == ENTER_SEQUENTIAL else 0
    frames[inner + BEFORE], frames[inner + BEFORE_SERIAL] = frames[outer + BEFORE], frames[outer + BEFORE_SERIAL]
    frames[inner + PATH_BEFORE] = frames[inner + PATH_DONE] = frames[outer + PATH_BEFORE]
    frames[inner + TASKS_BEFORE] = frames[inner + TASKS_DONE] = frames[outer + TASKS_BEFORE]
    frames[inner + FROM_BEFORE] = frames[inner + FROM_DONE] = frames[outer + FROM_BEFORE]
    frames[inner + GATE] = -1
    frames[inner + OWNER] = inner if frames[outer + SEQUENTIAL] == 1 else frames[outer + OWNER]
    return 0


def leave(nodes: Any, edges: Any, frames: Any, state: Any) -> int:
    """The innermost block closes. May make one node and one edge."""
    inner = state[DEPTH]
    outer = inner - FRAME_SIZE
    state[DEPTH] = outer
    before, serial, gate = frames[inner + BEFORE], frames[inner + BEFORE_SERIAL], frames[inner + GATE]
    if gate >= 0:  # the block inside a sequential one
        nodes[gate + MISSING] -= 1
        if nodes[gate + MISSING] == 0:
            nodes[gate + NEXT] = state[SEALED]
            state[SEALED] = gate
        before, serial = gate, nodes[gate + SERIAL]
    done = inner + PATH_BEFORE if frames[inner + SEQUENTIAL] == 1 else inner + PATH_DONE
    if frames[outer + SEQUENTIAL] == 1:
        frames[outer + BEFORE], frames[outer + BEFORE_SERIAL] = before, serial
        chain_of(frames, outer + PATH_BEFORE, frames[done], frames[done + 1], frames[done + 2])
    else:
        if frames[outer + PATH_DONE] < frames[done]:
            chain_of(frames, outer + PATH_DONE, frames[done], frames[done + 1], frames[done + 2])
        new = before != frames[outer + BEFORE] or serial != frames[outer + BEFORE_SERIAL]
        if frames[inner + SEQUENTIAL] == 1 and new and nodes[before + SERIAL] == serial:
            join(nodes, edges, frames, state, outer, before)
    return 0


def chain_of(frames: Any, at: int, path: int, tasks: int, last: int) -> int:
    """Remember a chain in a frame."""
    frames[at], frames[at + 1], frames[at + 2] = path, tasks, last
    return 0
