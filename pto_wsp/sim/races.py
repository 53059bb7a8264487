"""Races: do two tasks that nothing puts in order touch the same bytes, one of them writing?

In: a Snapshot. Out: nothing, or a RaceError that names both tasks. A first pass expands the workload and keeps for each
task which of the distinct tiles it touches; `cells.cut` cuts these tiles into pieces. A second pass goes through the
tasks in program order and keeps for each piece who touched it last.

Order. Every task has a label, its number in a walk that takes parallel parts backwards. Of two tasks the earlier one in
program order comes first whatever the schedule if its label is the lower one; else they are parallel. So a piece need
only know the highest label among those that wrote it, and among those that read it. With explicit edges, labels are not
the whole order: then a piece knows its last writer and the readers since, and a task knows the ends of edges that lead
to it from outside the blocks it stands in (`frontiers`). A slot that is loaded from what a task wrote makes such edges
too, by way of the load: it comes after the last writer of its element, and the tasks that need the slot come after it.
Start reading at `check`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pto_wsp.errors import ExecutionError, RaceError, ScheduleError
from pto_wsp.lower.expand import Expansion
from pto_wsp.lower.tasks import ENTER_SEQUENTIAL, EXIT, FORGET, SLOT, TILE_WORDS, TaskTable
from pto_wsp.sim import cells, regions
from pto_wsp.sim.dataflow import after_table
from pto_wsp.sim.decisions import Replaying
from pto_wsp.sim.hazards import IS_WRITTEN, ITEMSIZE, SPACE, USE_SIZE, TileUses
from pto_wsp.sim.loops import Loop
from pto_wsp.sim.simulation import Snapshot
from pto_wsp.sim.touch import Touch, shared, tasks_at

__all__ = ["Gathered", "check", "gather_all", "inferred_edges"]

_Int = NDArray[np.int64]

# Words of a distinct tile: as in the task table, then its space and the bytes of an element.
TILE_SPACE, TILE_ITEM, TILE_SIZE = TILE_WORDS, TILE_WORDS + 1, TILE_WORDS + 2

# Words of the state of `gather`.
TASKS, TILES, ACCESSES, EDGES, EVENTS, READS, LOADS, CALLS, GATHER_STATE = range(9)

# The begin of an edge may also be an element that is read: READ + its number. Both ends may be a load: -1 - its number.
READ = 1 << 40

# Words of a frame of `label` and of `frontiers`.
FRAME = 4


# ---- the passes: plain Python over arrays, compiled when there is enough work to pay for that


def gather(
    row: int, count: int, kernel: Any, leaf: Any, args: Any, words: int, params: int, uses: Any, after: Any, last: Any,
    tiles: Any, slots: Any, tasks: Any, touched: Any, edges: Any, reads: Any, events: Any, state: Any,
) -> int:  # fmt: skip
    """Keep what the tasks in the rows [row, count) of a chunk touch; the row before which some array has to grow.

    uses      what each call does with each tile parameter, see hazards.TileUses
    after     explicit edges and slots, as in dataflow.play; last: the last task of each call, the load that each slot
              waits for, -1
    tiles     the distinct tiles; slots: a hash table of their places in `tiles`, -1 where it is free
    tasks, touched  per access its task, and 2 * number of the tile, + 1 if it is written
    edges     pairs of tasks and loads, see READ; reads: pairs of a tile that a load reads, and how many accesses there
              were before; events: pairs of what a row is, and the number of the next task
    """
    while row < count:
        what = kernel[row]
        if state[EVENTS] + 2 > len(events):
            return row
        if what == FORGET:
            last[leaf[row]] = -1
            row += 1
            continue
        call = leaf[row]
        if what == SLOT:
            call += state[CALLS]
        if what >= 0 or what == SLOT:
            if state[ACCESSES] + params > len(tasks) or state[TILES] + params * TILE_SIZE > len(tiles):
                return row
            if 2 * (state[TILES] // TILE_SIZE + params) > len(slots) or state[READS] + 2 > len(reads):
                return row
            if state[EDGES] + 2 * (after[call + 1] - after[call]) > len(edges):
                return row
        if what == SLOT:
            set_slot(row * words, call, params, args, uses, after, last, tiles, slots, edges, reads, state)
            row += 1
            continue
        if what < 0:
            events[state[EVENTS]], events[state[EVENTS] + 1] = what, state[TASKS]
            state[EVENTS] += 2
            row += 1
            continue
        task = state[TASKS]
        for place in range(after[call], after[call + 1]):
            earlier = last[after[place]]
            if earlier >= 0:
                add_edge(edges, state, earlier if after[place] < state[CALLS] else -1 - earlier, task)
        last[call] = task
        for param in range(params):
            use = (call * params + param) * USE_SIZE
            at = row * words + TILE_WORDS * param
            if uses[use + SPACE] >= 0 and args[at + 3] > 0 and args[at + 4] > 0:
                tasks[state[ACCESSES]] = task
                tile = tile_of(args, at, uses, use, tiles, slots, state)
                touched[state[ACCESSES]] = 2 * tile + uses[use + IS_WRITTEN]
                state[ACCESSES] += 1
        state[TASKS] = task + 1
        row += 1
    return row


def add_edge(edges: Any, state: Any, earlier: int, later: int) -> int:
    edges[state[EDGES]], edges[state[EDGES] + 1] = earlier, later
    state[EDGES] += 2
    return 0


def set_slot(
    at: int, entry: int, params: int, args: Any, uses: Any, after: Any, last: Any, tiles: Any, slots: Any, edges: Any,
    reads: Any, state: Any,
) -> int:  # fmt: skip
    """A slot changes: the load that it waits for is an earlier one, or a new one that comes after several of these."""
    use, found, several = entry * params * USE_SIZE, -1, 0
    for place in range(after[entry] + 1, after[entry + 1]):
        earlier = last[after[place]]
        if earlier >= 0 and found >= 0 and earlier != found:
            several = 1
        if earlier >= 0:
            found = earlier
    read = 1 if params > 0 and uses[use + SPACE] >= 0 else 0
    if read == 1 or several == 1:
        load = state[LOADS]
        state[LOADS] = load + 1
        for place in range(after[entry] + 1, after[entry + 1]):
            if last[after[place]] >= 0:
                add_edge(edges, state, -1 - last[after[place]], -1 - load)
        if read == 1:
            add_edge(edges, state, READ + state[READS] // 2, -1 - load)
            reads[state[READS]] = tile_of(args, at, uses, use, tiles, slots, state)
            reads[state[READS] + 1] = state[ACCESSES]
            state[READS] += 2
        found = load
    last[after[after[entry]]] = found
    return 0


def tile_of(args: Any, at: int, uses: Any, use: int, tiles: Any, slots: Any, state: Any) -> int:
    """The number of a tile, which may be a new one."""
    mask = len(slots) - 1
    slot = mixed(args, at) & mask
    while slots[slot] >= 0 and differ(args, at, uses, use, tiles, slots[slot]) == 1:
        slot = (slot + 1) & mask
    if slots[slot] < 0:
        tile = state[TILES]
        slots[slot] = tile
        state[TILES] = tile + TILE_SIZE
        for word in range(TILE_WORDS):
            tiles[tile + word] = args[at + word]
        tiles[tile + TILE_SPACE], tiles[tile + TILE_ITEM] = uses[use + SPACE], uses[use + ITEMSIZE]
    return slots[slot] // TILE_SIZE  # type: ignore[no-any-return]


def mixed(words: Any, at: int) -> int:
    """A hash of a tile."""
    found = words[at] * 0x9E3779B1 + words[at + 1] * 0x85EBCA6B + words[at + 2] * 0xC2B2AE35
    found = (found + words[at + 3] * 0x27D4EB2F + words[at + 4] * 0x165667B1) & 0x7FFFFFFF
    found = ((found ^ (found >> 15)) * 0x2545F491) & 0x7FFFFFFF
    return found ^ (found >> 13)  # type: ignore[no-any-return]


def differ(args: Any, at: int, uses: Any, use: int, tiles: Any, tile: int) -> int:
    """1 if a tile of a task is not this one."""
    for word in range(TILE_WORDS):
        if args[at + word] != tiles[tile + word]:
            return 1
    if uses[use + SPACE] != tiles[tile + TILE_SPACE] or uses[use + ITEMSIZE] != tiles[tile + TILE_ITEM]:
        return 1
    return 0


def enter_all(end: int, tiles: Any, slots: Any) -> int:
    """The hash table is new and empty: enter the tiles again."""
    mask = len(slots) - 1
    for tile in range(0, end, TILE_SIZE):
        slot = mixed(tiles, tile) & mask
        while slots[slot] >= 0:
            slot = (slot + 1) & mask
        slots[slot] = tile
    return 0


def label(tasks: int, count: int, events: Any, closes: Any, stack: Any, labels: Any) -> int:
    """The label of each task: its number when parallel parts are walked backwards, sequential ones forwards."""
    depth = 0
    for at in range(0, count, 2):
        if events[at] == EXIT:
            depth -= 1
            closes[stack[depth]] = events[at + 1]
        else:
            stack[depth] = at
            depth += 1
    sequential, start, end, base, task, depth = 0, 0, tasks, 0, 0, 0
    for at in range(0, count + 1, 2):
        until = events[at + 1] if at < count else tasks
        while task < until:
            labels[task] = base + task - start if sequential == 1 else base + end - 1 - task
            task += 1
        if at < count and events[at] == EXIT:
            depth -= FRAME
            sequential, start, end, base = stack[depth], stack[depth + 1], stack[depth + 2], stack[depth + 3]
        elif at < count:
            stack[depth], stack[depth + 1], stack[depth + 2], stack[depth + 3] = sequential, start, end, base
            depth += FRAME
            base = base + until - start if sequential == 1 else base + end - closes[at]
            sequential, start, end = 1 if events[at] == ENTER_SEQUENTIAL else 0, until, closes[at]
    return 0


def sweep(
    count: int, tasks: Any, touched: Any, first: Any, piece: Any, parts: int, labels: Any, wrote: Any, read: Any,
    found: Any,
) -> int:  # fmt: skip
    """1 at the first access that is parallel to an earlier one to the same bytes, one of them writing.

    wrote, read  per piece: the highest label of those that have, -1
    found        the access, and the label of the other task
    """
    for access in range(count):
        tile, writes = touched[access] >> 1, touched[access] & 1
        mine = labels[tasks[access]]
        for at in range(first[tile], first[tile + 1]):
            mask = piece[at] & (parts - 1)
            node = piece[at] - mask
            for other in range(parts):
                if other & mask == 0:
                    if wrote[node + other] > mine:
                        found[0], found[1] = access, wrote[node + other]
                        return 1
                    if writes == 1 and read[node + other] > mine:
                        found[0], found[1] = access, read[node + other]
                        return 1
            if writes == 1:
                wrote[node + mask] = max(wrote[node + mask], mine)
            else:
                read[node + mask] = max(read[node + mask], mine)
    return 0


def frontiers(
    tasks: int, count: int, events: Any, edges: Any, frames: Any, set_of: Any, set_of_load: Any, ends: Any, pool: Any,
    sizes: Any,
) -> int:  # fmt: skip
    """For each task the tasks at which explicit edges begin that lead to it, 1 when there is no room for them.

    Those that come before the task by their labels anyway are left out where that is seen.

    edges    pairs of tasks and loads, by the later one; the loads before a task come before its own edges
    frames   per open block: sequential, its first task, the set before its next part, the set of all its parts
    set_of   per task, and set_of_load per load, the number of its set; set s is pool[ends[s]:ends[s + 1]], descending;
             set 0 is empty
    sizes    how many sets there are
    """
    frames[0], frames[1], frames[2], frames[3] = 0, 0, 0, 0
    frame, edge, own, task = 0, 0, 0, 0  # own: the next edge to a task
    sizes[0], ends[0], ends[1] = 1, 0, 0
    for at in range(0, count + 1, 2):
        until = events[at + 1] if at < count else tasks
        while task < until:
            mine = frames[frame + 2]
            while own < len(edges) and edges[own + 1] < 0:
                own += 2
            while own < len(edges) and edges[own + 1] == task:
                while edge <= own:  # first those of the loads before it
                    earlier, load = edges[edge], -1 - edges[edge + 1]
                    if ends[sizes[0]] + 2 * (task + 1) > len(pool) or sizes[0] + 5 > len(ends):
                        return 1
                    known = mine if load < 0 else set_of_load[load]
                    if earlier >= 0:
                        known = with_one(ends, pool, sizes, known, earlier)
                        known = union(ends, pool, sizes, known, set_of[earlier], task)
                    else:
                        known = union(ends, pool, sizes, known, set_of_load[-1 - earlier], task)
                    if load < 0:
                        mine = known
                    else:
                        set_of_load[load] = known
                    edge += 2
                own += 2
            set_of[task] = mine
            if mine != frames[frame + 2]:
                if add_part(frames, frame, ends, pool, sizes, mine) == 1:
                    return 1
            task += 1
        if at < count and events[at] == EXIT:
            mine = frames[frame + 2] if frames[frame] == 1 else frames[frame + 3]
            frame -= FRAME
            if mine != frames[frame + 2]:
                if add_part(frames, frame, ends, pool, sizes, mine) == 1:
                    return 1
        elif at < count:
            frames[frame + FRAME], frames[frame + FRAME + 1] = 1 if events[at] == ENTER_SEQUENTIAL else 0, until
            frames[frame + FRAME + 2] = frames[frame + FRAME + 3] = frames[frame + 2]
            frame += FRAME
    return 0


def add_part(frames: Any, frame: int, ends: Any, pool: Any, sizes: Any, mine: int) -> int:
    """A part of a block has ended: what comes after it, or after the block, knows its set. 1: no room."""
    size = ends[mine + 1] - ends[mine] + ends[frames[frame + 3] + 1] - ends[frames[frame + 3]]
    if ends[sizes[0]] + size > len(pool) or sizes[0] + 3 > len(ends):
        return 1
    if frames[frame] == 1:
        frames[frame + 2] = union(ends, pool, sizes, 0, mine, frames[frame + 1])
    else:
        frames[frame + 3] = union(ends, pool, sizes, frames[frame + 3], mine, frames[frame + 1])
    return 0


def with_one(ends: Any, pool: Any, sizes: Any, old: int, task: int) -> int:
    """A set and one task more."""
    top = ends[sizes[0]]
    done = 0
    for at in range(ends[old], ends[old + 1]):
        if done == 0 and pool[at] <= task:
            if pool[at] == task:
                return old
            pool[top] = task
            top += 1
            done = 1
        pool[top] = pool[at]
        top += 1
    if done == 0:
        pool[top] = task
        top += 1
    return new_set(ends, sizes, top)


def union(ends: Any, pool: Any, sizes: Any, a: int, b: int, limit: int) -> int:
    """All of a set, and those of another that are below a limit."""
    i, j = ends[a], ends[b]
    while j < ends[b + 1] and pool[j] >= limit:
        j += 1
    if j == ends[b + 1] or a == b:
        return a
    if i == ends[a + 1] and j == ends[b]:
        return b
    top = ends[sizes[0]]
    new = 0
    while i < ends[a + 1] or j < ends[b + 1]:
        if j == ends[b + 1] or (i < ends[a + 1] and pool[i] >= pool[j]):
            if j < ends[b + 1] and pool[i] == pool[j]:
                j += 1
            pool[top] = pool[i]
            i += 1
        else:
            pool[top] = pool[j]
            j += 1
            new = 1
        top += 1
    return new_set(ends, sizes, top) if new == 1 else a


def new_set(ends: Any, sizes: Any, top: int) -> int:
    number = sizes[0]
    sizes[0] = number + 1
    ends[number + 1] = top
    return number  # type: ignore[no-any-return]


def sweep_lists(
    count: int, tasks: Any, touched: Any, first: Any, piece: Any, labels: Any, set_of: Any, ends: Any, pool: Any,
    region: Any, exact: int, begins: Any, writer: Any, readers: Any, reader: Any, following: Any, found: Any,
) -> int:  # fmt: skip
    """As `sweep`, for any order.

    region     per tile, a number that identical tiles share
    exact      1: accesses to identical tiles are in order, one of them writing
    begins     per task, its first access, and the end of the last one's
    writer     per piece, the last access that writes; readers: the first of a list of those that read since then
    reader, following  such lists
    found      the access, and the other one
    """
    top = 0
    for access in range(count):
        tile, writes = touched[access] >> 1, touched[access] & 1
        for at in range(first[tile], first[tile + 1]):
            here = piece[at]
            if writer[here] >= 0 and in_order(
                writer[here], access, tasks, touched, labels, set_of, ends, pool, region, exact, begins
            ) == 0:  # fmt: skip
                found[0], found[1] = access, writer[here]
                return 1
            known = readers[here]
            if writes == 0:
                if known < 0 or in_order(
                    reader[known], access, tasks, touched, labels, set_of, ends, pool, region, 0, begins
                ) == 0:  # fmt: skip
                    following[top] = known
                    known = readers[here] = top
                    top += 1
                reader[known] = access
                continue
            while known >= 0:
                if in_order(
                    reader[known], access, tasks, touched, labels, set_of, ends, pool, region, exact, begins
                ) == 0:  # fmt: skip
                    found[0], found[1] = access, reader[known]
                    return 1
                known = following[known]
            writer[here], readers[here] = access, -1
    return 0


def in_order(
    earlier: int, later: int, tasks: Any, touched: Any, labels: Any, set_of: Any, ends: Any, pool: Any,
    region: Any, exact: int, begins: Any,
) -> int:  # fmt: skip
    """1 if the task of one access is known to end before that of a later one begins."""
    u, v = tasks[earlier], tasks[later]
    if u == v or labels[u] < labels[v]:
        return 1
    known = set_of[v]
    for at in range(ends[known], ends[known + 1]):
        if pool[at] < u:
            break
        if pool[at] == u or labels[u] < labels[pool[at]]:
            return 1
    if exact == 1:
        for a in range(begins[u], begins[u + 1]):
            for b in range(begins[v], begins[v + 1]):
                if region[touched[a] >> 1] == region[touched[b] >> 1] and (touched[a] | touched[b]) & 1 == 1:
                    return 1
    return 0


def writers(
    count: int, edges: Any, reads: Any, tasks: Any, touched: Any, first: Any, piece: Any, writer: Any, found: Any
) -> int:
    """Edges from elements that are read become edges from the tasks that wrote them last: in `found`, so many words.

    writer   per piece, room for the last task that writes to it, -1
    """
    access, filled = 0, 0
    for at in range(0, count, 2):
        read = edges[at] - READ
        if read < 0:
            found[filled], found[filled + 1] = edges[at], edges[at + 1]
            filled += 2
            continue
        while access < reads[2 * read + 1]:
            if touched[access] & 1 == 1:
                for here in range(first[touched[access] >> 1], first[(touched[access] >> 1) + 1]):
                    writer[piece[here]] = tasks[access]
            access += 1
        before = -1
        for here in range(first[reads[2 * read]], first[reads[2 * read] + 1]):
            if writer[piece[here]] >= 0 and writer[piece[here]] != before:
                before = writer[piece[here]]
                found[filled], found[filled + 1] = before, edges[at + 1]
                filled += 2
    return filled


def link(
    count: int, tasks: Any, touched: Any, first: Any, piece: Any, writer: Any, readers: Any, reader: Any,
    following: Any, pairs: Any,
) -> int:  # fmt: skip
    """Edges from the last writer of each piece, and to a writer from its readers since; as in `sweep_lists`, but of
    tasks. How many words of `pairs` are filled.
    """
    top, filled = 0, 0
    for access in range(count):
        tile, writes, task = touched[access] >> 1, touched[access] & 1, tasks[access]
        for at in range(first[tile], first[tile + 1]):
            here = piece[at]
            known = readers[here]
            if writer[here] >= 0 and writer[here] != task and (writes == 0 or known < 0):
                pairs[filled], pairs[filled + 1] = writer[here], task
                filled += 2
            if writes == 0:
                reader[top], following[top] = task, known
                readers[here] = top
                top += 1
                continue
            while known >= 0:
                if reader[known] != task:
                    pairs[filled], pairs[filled + 1] = reader[known], task
                    filled += 2
                elif following[known] < 0 and writer[here] >= 0 and writer[here] != task:
                    pairs[filled], pairs[filled + 1] = writer[here], task
                    filled += 2
                known = following[known]
            writer[here], readers[here] = task, -1
    return filled


_GATHER = Loop(
    gather, "i64", "i64", "i32[]", "i32[]", "i64[]", "i64", "i64", *["i64[]"] * 5, "i32[]", "i32[]", *["i64[]"] * 4,
)  # fmt: skip
_ENTER_ALL = Loop(enter_all, "i64", "i64[]", "i64[]")
_LABEL = Loop(label, "i64", "i64", "i64[]", "i64[]", "i64[]", "i32[]")
_SWEEP = Loop(sweep, "i64", "i32[]", "i32[]", "i64[]", "i64[]", "i64", "i32[]", "i32[]", "i32[]", "i64[]")
_FRONTIERS = Loop(frontiers, "i64", "i64", *["i64[]"] * 3, "i32[]", "i32[]", "i64[]", "i32[]", "i64[]")
_WRITERS = Loop(writers, "i64", *["i64[]"] * 2, "i32[]", "i32[]", *["i64[]"] * 4)
_LINK = Loop(link, "i64", "i32[]", "i32[]", *["i64[]"] * 7)
_SWEEP_LISTS = Loop(
    sweep_lists, "i64", "i32[]", "i32[]", "i64[]", "i64[]", "i32[]", "i32[]", "i64[]", "i32[]", "i64[]", "i64",
    *["i64[]"] * 6,
)  # fmt: skip


# ---- what the first pass keeps


class Gathered:
    """What all tasks touch, and how they are ordered.

    labels           per task, see `label`
    edges            explicit ones, and by way of slots: pairs of tasks, loads (-1 - number) and elements that loads
                     read (READ + number), in program order; see `resolved`
    reads            [reads, 2] per such element its tile, and how many accesses there were before
    tasks, touched   per access its task, and 2 * number of the tile, + 1 if it is written
    distinct         [tiles, TILE_SIZE] the tiles
    """

    labels: NDArray[np.int32]
    distinct: _Int

    def __init__(self, expansion: Expansion, uses: TileUses, cold: NDArray[np.bool_]) -> None:
        self.params = uses.params
        self.uses = uses.uses.copy().reshape(-1, USE_SIZE)
        self.uses[: len(cold)][cold] = -1
        self.uses = self.uses.reshape(-1)
        self.after = after_table(expansion.calls, expansion.slot_uses)
        self.last = np.full(len(expansion.calls) + len(expansion.slot_uses), -1, np.int64)
        self.tiles, self.slots = np.zeros(64 * TILE_SIZE, np.int64), np.full(128, -1, np.int64)
        self.tasks, self.touched = np.zeros(64, np.int32), np.zeros(64, np.int32)
        self.edges, self.reads, self.events = (np.zeros(64, np.int64) for _ in range(3))
        self.state = np.zeros(GATHER_STATE, np.int64)
        self.state[CALLS] = len(expansion.calls)
        self.loads = 0

    def add(self, table: TaskTable) -> None:
        """One chunk of the task table."""
        count, row, state = table.count, 0, self.state
        kernel, leaf, args = table.kernel[:count], table.leaf[:count], table.args[:count].reshape(-1)
        while True:
            row = _GATHER(
                count, row, count, kernel, leaf, args, table.args.shape[1], self.params, self.uses, self.after,
                self.last, self.tiles, self.slots, self.tasks, self.touched, self.edges, self.reads, self.events,
                state,
            )  # fmt: skip
            if row == count:
                break
            self._grow(int(np.diff(self.after[: self.after[0]]).max(initial=0)))
        if state[TASKS] >= 1 << 30:
            raise ExecutionError("more than 2**30 tasks cannot be checked for races at once")

    def _grow(self, handles: int) -> None:
        """Room for at least one row more in every array."""
        state, params = self.state, self.params
        if state[ACCESSES] + params > len(self.tasks):
            self.tasks, self.touched = _twice(self.tasks, params), _twice(self.touched, params)
        if state[EDGES] + 2 * handles > len(self.edges):
            self.edges = _twice(self.edges, 2 * handles)
        if state[EVENTS] + 2 > len(self.events):
            self.events = _twice(self.events, 2)
        if state[READS] + 2 > len(self.reads):
            self.reads = _twice(self.reads, 2)
        if state[TILES] + params * TILE_SIZE > len(self.tiles):
            self.tiles = _twice(self.tiles, params * TILE_SIZE)
            self.slots = np.full(4 << (len(self.tiles) // TILE_SIZE).bit_length(), -1, np.int64)
            _ENTER_ALL(int(state[TILES]) // TILE_SIZE, int(state[TILES]), self.tiles, self.slots)

    def finish(self) -> None:
        """There are no more tasks: cut the arrays to what is filled, and label the tasks."""
        tasks, tiles, accesses, edges, events, reads, self.loads = self.state[: LOADS + 1].tolist()
        self.distinct = self.tiles[:tiles].reshape(-1, TILE_SIZE)
        self.tasks, self.touched = self.tasks[:accesses], self.touched[:accesses]
        self.edges, self.events, self.reads = self.edges[:edges], self.events[:events], self.reads[:reads]
        self.labels = np.zeros(tasks, np.int32)
        closes, stack = np.zeros(events + 1, np.int64), np.zeros(FRAME * (events + 1), np.int64)
        _LABEL(tasks + events, tasks, events, np.append(self.events, [0, 0]), closes, stack, self.labels)


def _twice(array: NDArray[Any], more: int) -> NDArray[Any]:
    larger = np.zeros(2 * len(array) + more, array.dtype)
    larger[: len(array)] = array
    return larger


# ---- the check


def check(snapshot: Snapshot, exact: bool = False) -> None:
    """Look for two tasks that nothing puts in order and that touch the same bytes, at least one of them writing.

    exact   edges inferred from identical regions count as well: what is left are overlaps that they cannot see
    raises  RaceError, or with `exact` a ScheduleError; RegionError for a task outside its array
    """
    found = _find(snapshot, exact)
    if found is not None:
        expansion = snapshot.expansions.of_any()
        first, second = tasks_at(snapshot, expansion, found)
        raise _error(snapshot, first, second, exact)


def _find(snapshot: Snapshot, exact: bool) -> tuple[int, int] | None:
    """Two such tasks, the earlier one first; None when there are none."""
    gathered = gather_all(snapshot, snapshot.expansions.of_any(), needed=True)
    if not len(gathered.tasks):
        return None
    general = exact or len(gathered.edges) > 0
    tiles = _tiles(gathered)
    cut = _cut(snapshot, gathered, tiles, flat=general)
    edges = resolved(snapshot, gathered, cut).reshape(-1)
    return _sweep_lists(gathered, edges, cut, tiles, exact) if general else _sweep(gathered, cut)


def gather_all(snapshot: Snapshot, expansion: Expansion, needed: bool = False) -> Gathered:
    """What all tasks touch, and how they are ordered.

    needed   only if some of them could meet
    raises   RegionError for a task outside its array
    """
    if expansion.pipeline is not None:
        raise ScheduleError(
            f"{snapshot.name} is a pipeline: its tasks are put in order by channels, which the search for races does "
            "not follow. Tasks take effect in the order of simulated time there, the same in every run.", "check"
        )  # fmt: skip
    places = [snapshot.places[tensor] for tensor in expansion.tensors]
    uses = TileUses(expansion.calls, places, expansion.slot_uses)
    gathered = Gathered(expansion, uses, _cold(expansion, uses))
    idle = needed and not (gathered.uses[SPACE::USE_SIZE] >= 0).any()
    host = None if snapshot.log is None else Replaying(snapshot.log)
    expansion.run(snapshot.inputs(expansion), expansion.table(), _ignore if idle else gathered.add, host=host)
    gathered.finish()
    return gathered


def _tiles(gathered: Gathered) -> cells.Lines:
    distinct = gathered.distinct
    return cells.normal(distinct[:, TILE_SPACE], distinct[:, TILE_ITEM], distinct[:, :TILE_WORDS])


def _cut(snapshot: Snapshot, gathered: Gathered, tiles: cells.Lines, flat: bool) -> cells.Cells:
    places = [snapshot.places[tensor] for tensor in snapshot.expansions.of_any().tensors]
    space_of, _ = regions.spaces_of(places)
    bases: list[list[int]] = [[] for _ in range(int(space_of.max(initial=-1)) + 1)]
    for place, space in zip(places, space_of.tolist(), strict=True):
        bases[space].append(regions.first_byte(place))
    used = np.concatenate([gathered.touched >> 1, gathered.reads[::2]])
    return cells.cut(tiles, bases, np.bincount(used, minlength=len(tiles)), flat)


def resolved(snapshot: Snapshot, gathered: Gathered, cut: cells.Cells | None = None) -> _Int:
    """[edges, 2] the explicit edges, and those by way of slots: where an element is read, from who wrote it last.

    cut   the pieces of all tiles, flat, if they are known
    """
    edges, tiles = gathered.edges, gathered.reads[::2]
    if not len(tiles):
        return edges.reshape(-1, 2)
    cut = cut or _cut(snapshot, gathered, _tiles(gathered), flat=True)
    found = np.zeros(len(edges) + 2 * int((cut.first[tiles + 1] - cut.first[tiles]).sum()), np.int64)
    filled = _WRITERS(
        len(edges), len(edges), edges, gathered.reads, gathered.tasks, gathered.touched, cut.first, cut.piece,
        np.full(cut.nodes, -1, np.int64), found,
    )  # fmt: skip
    return found[:filled].reshape(-1, 2)


def _regions(tiles: cells.Lines) -> _Int:
    """Per tile, a number that identical tiles share."""
    columns = np.stack(tiles.columns(), axis=1)
    return np.unique(columns, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def inferred_edges(snapshot: Snapshot, gathered: Gathered, exact: bool) -> _Int:
    """[edges, 2] edges between tasks that touch the same bytes, one of them writing: from the last writer, and to a
    writer also from those that have read since. What follows from these is left out.

    exact   only between tasks that touch identical regions
    """
    if not len(gathered.tasks):
        return np.zeros((0, 2), np.int64)
    tiles = _tiles(gathered)
    if exact:
        region = _regions(tiles)
        cut = cells.Cells(np.arange(len(tiles) + 1), region, int(region.max()) + 1, 1)
    else:
        cut = _cut(snapshot, gathered, tiles, flat=True)
    most = int(np.diff(cut.first)[gathered.touched >> 1].sum())
    writer, readers = (np.full(cut.nodes, -1, np.int64) for _ in range(2))
    reader, following, pairs = np.zeros(most, np.int64), np.zeros(most, np.int64), np.zeros(4 * most, np.int64)
    count = len(gathered.tasks)
    found = _LINK(
        count, count, gathered.tasks, gathered.touched, cut.first, cut.piece, writer, readers, reader, following, pairs
    )
    return np.unique(pairs[:found].reshape(-1, 2), axis=0)


def _ignore(table: TaskTable) -> None:
    pass


def _cold(expansion: Expansion, uses: TileUses) -> NDArray[np.bool_]:
    """Uses of spaces in which no two tasks can meet: a single parameter touches them, with tiles that are apart."""
    space = uses.uses.reshape(-1, USE_SIZE)[: len(expansion.calls) * uses.params, SPACE]
    cold = np.zeros(len(space), bool)
    for c, call in enumerate(expansion.calls):
        for p, binding in enumerate(call.tiles):
            at = c * uses.params + p
            alone = space[at] >= 0 and (space == space[at]).sum() == 1 and space[at] not in uses.loaded
            cold[at] = alone and regions.are_apart(call, binding)
    return cold


def _sweep(gathered: Gathered, cut: cells.Cells) -> tuple[int, int] | None:
    found = np.zeros(2, np.int64)
    state = (np.full(cut.nodes * cut.parts, -1, np.int32) for _ in range(2))
    if not _SWEEP(
        len(gathered.tasks), len(gathered.tasks), gathered.tasks, gathered.touched, cut.first, cut.piece, cut.parts,
        gathered.labels, *state, found,
    ):  # fmt: skip
        return None
    return int(np.flatnonzero(gathered.labels == found[1])[0]), int(gathered.tasks[found[0]])


def _sweep_lists(
    gathered: Gathered, edges: _Int, cut: cells.Cells, tiles: cells.Lines, exact: bool
) -> tuple[int, int] | None:
    tasks, touched, count = gathered.tasks, gathered.touched, len(gathered.tasks)
    set_of, ends, pool = _frontiers(gathered, edges)
    region = _regions(tiles) if exact else np.zeros(0, np.int64)
    begins = np.searchsorted(tasks, np.arange(len(gathered.labels) + 1)).astype(np.int64)
    reads = int(np.diff(cut.first)[touched[touched & 1 == 0] >> 1].sum())
    found = np.zeros(2, np.int64)
    if not _SWEEP_LISTS(
        count, count, tasks, touched, cut.first, cut.piece, gathered.labels, set_of, ends, pool, region, exact, begins,
        np.full(cut.nodes, -1, np.int64), np.full(cut.nodes, -1, np.int64), np.zeros(reads, np.int64),
        np.zeros(reads, np.int64), found,
    ):  # fmt: skip
        return None
    return int(tasks[found[1]]), int(tasks[found[0]])


def _frontiers(gathered: Gathered, edges: _Int) -> tuple[NDArray[np.int32], _Int, NDArray[np.int32]]:
    """The sets of `frontiers`, from edges without elements."""
    tasks, events = len(gathered.labels), len(gathered.events)
    set_of = np.zeros(tasks, np.int32)
    if not len(edges):
        return set_of, np.zeros(2, np.int64), np.zeros(1, np.int32)
    sets, room = 16 + len(edges), 64 + 4 * len(edges)
    frames, padded = np.zeros(FRAME * (events + 1), np.int64), np.append(gathered.events, [0, 0])
    while True:
        ends, pool, sizes = np.zeros(sets, np.int64), np.zeros(room, np.int32), np.zeros(1, np.int64)
        if not _FRONTIERS(
            tasks + events, tasks, events, padded, edges, frames, set_of, np.zeros(gathered.loads, np.int32),
            ends, pool, sizes,
        ):  # fmt: skip
            return set_of, ends, pool
        sets, room = 2 * sets, 2 * room


# ---- what is said


def _error(snapshot: Snapshot, first: Touch, second: Touch, exact: bool) -> RaceError | ScheduleError:
    """The error for two tasks, the earlier one first."""
    how = shared(snapshot, first, second)
    one, other = (f"#{t.task} {t.name} {'writes' if w else 'reads'} it as {p}" for t, p, w in how.uses)
    both = f"{how.text}: {one}, {other}"
    where = f" ({first.line})" if first.line is not None and first.line != second.line else ""
    if exact:
        return ScheduleError(
            f"tasks #{first.task} and #{second.task} overlap without touching identical regions, and "
            f"infer_tensor_map_exact() gives them no edge. Both touch {both}{where}. "
            "Use Deps.infer_bytes_overlap(), or an edge: P.seq, sequential, after=[...].", "deps"
        ).at(second.line)  # fmt: skip
    return RaceError(
        f"tasks #{first.task} and #{second.task} may run at the same time, and both touch {both}{where}. "
        "Put them in order with P.seq, sequential(...) or after=[...], or give each its own elements.",
        tasks=(first.task, second.task), kernels=(first.kernel, second.kernel), axes=(first.axes, second.axes),
        tensor=how.uses[1][1], region=how.region,
    ).at(second.line)  # fmt: skip
