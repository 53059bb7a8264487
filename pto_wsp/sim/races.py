"""Races: do two tasks that nothing puts in order touch the same bytes, one of them writing?

In: a Snapshot. Out: nothing, or a RaceError that names both tasks. A first pass expands the workload and keeps for each
task which of the distinct tiles it touches; `cells.cut` cuts these tiles into pieces. A second pass goes through the
tasks in program order and keeps for each piece who touched it last.

Order. Every task has a label, its number in a walk that takes parallel parts backwards. Of two tasks the earlier one in
program order comes first whatever the schedule if its label is the lower one; else they are parallel. So a piece need
only know the highest label among those that wrote it, and among those that read it. With explicit edges, labels are not
the whole order: then a piece knows its last writer and the readers since, and a task knows the ends of edges that lead
to it from outside the blocks it stands in (`frontiers`). Start reading at `check`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pto_wsp.errors import ExecutionError, RaceError, ScheduleError
from pto_wsp.lower.bindings import Call
from pto_wsp.lower.expand import Expansion
from pto_wsp.lower.tasks import ENTER_SEQUENTIAL, EXIT, FORGET, TILE_WORDS, TaskTable
from pto_wsp.sim import cells, regions
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
TASKS, TILES, ACCESSES, EDGES, EVENTS, GATHER_STATE = range(6)

# Words of a frame of `label` and of `frontiers`.
FRAME = 4


# ---- the passes: plain Python over arrays, compiled when there is enough work to pay for that


def gather(
    row: int, count: int, kernel: Any, leaf: Any, args: Any, words: int, params: int, uses: Any, after: Any, last: Any,
    tiles: Any, slots: Any, tasks: Any, touched: Any, edges: Any, events: Any, state: Any,
) -> int:  # fmt: skip
    """Keep what the tasks in the rows [row, count) of a chunk touch; the row before which some array has to grow.

    uses      what each call does with each tile parameter, see hazards.TileUses
    after     explicit edges, as in dataflow.play; last: the last task of each call, -1
    tiles     the distinct tiles; slots: a hash table of their places in `tiles`, -1 where it is free
    tasks, touched  per access its task, and 2 * number of the tile, + 1 if it is written
    edges     pairs of tasks; events: pairs of what a row is, and the number of the next task
    """
    mask = len(slots) - 1
    while row < count:
        what = kernel[row]
        if state[EVENTS] + 2 > len(events):
            return row
        if what == FORGET:
            last[leaf[row]] = -1
            row += 1
            continue
        if what < 0:
            events[state[EVENTS]], events[state[EVENTS] + 1] = what, state[TASKS]
            state[EVENTS] += 2
            row += 1
            continue
        call = leaf[row]
        if state[ACCESSES] + params > len(tasks) or state[TILES] + params * TILE_SIZE > len(tiles):
            return row
        if 2 * (state[TILES] // TILE_SIZE + params) > len(slots):
            return row
        if state[EDGES] + 2 * (after[call + 1] - after[call]) > len(edges):
            return row
        task = state[TASKS]
        for place in range(after[call], after[call + 1]):
            earlier = last[after[place]]
            if earlier >= 0:
                edges[state[EDGES]], edges[state[EDGES] + 1] = earlier, task
                state[EDGES] += 2
        last[call] = task
        for param in range(params):
            use = (call * params + param) * USE_SIZE
            at = row * words + TILE_WORDS * param
            if uses[use + SPACE] >= 0 and args[at + 3] > 0 and args[at + 4] > 0:
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
                tasks[state[ACCESSES]] = task
                touched[state[ACCESSES]] = slots[slot] // TILE_SIZE * 2 + uses[use + IS_WRITTEN]
                state[ACCESSES] += 1
        state[TASKS] = task + 1
        row += 1
    return row


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
    tasks: int, count: int, events: Any, edges: Any, frames: Any, set_of: Any, ends: Any, pool: Any, sizes: Any
) -> int:  # fmt: skip
    """For each task the tasks at which explicit edges begin that lead to it, 1 when there is no room for them.

    Those that come before the task by their labels anyway are left out where that is seen.

    edges    pairs of tasks, by the later one
    frames   per open block: sequential, its first task, the set before its next part, the set of all its parts
    set_of   per task, the number of its set; set s is pool[ends[s]:ends[s + 1]], descending; set 0 is empty
    sizes    how many sets there are
    """
    frames[0], frames[1], frames[2], frames[3] = 0, 0, 0, 0
    frame, edge, task = 0, 0, 0
    sizes[0], ends[0], ends[1] = 1, 0, 0
    for at in range(0, count + 1, 2):
        until = events[at + 1] if at < count else tasks
        while task < until:
            mine = frames[frame + 2]
            while edge < len(edges) and edges[edge + 1] == task:
                if ends[sizes[0]] + 2 * (task + 1) > len(pool) or sizes[0] + 5 > len(ends):
                    return 1
                mine = with_one(ends, pool, sizes, mine, edges[edge])
                mine = union(ends, pool, sizes, mine, set_of[edges[edge]], task)
                edge += 2
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
    gather, "i64", "i64", "i32[]", "i32[]", "i64[]", "i64", "i64", *["i64[]"] * 5, "i32[]", "i32[]", "i64[]", "i64[]",
    "i64[]",
)  # fmt: skip
_ENTER_ALL = Loop(enter_all, "i64", "i64[]", "i64[]")
_LABEL = Loop(label, "i64", "i64", "i64[]", "i64[]", "i64[]", "i32[]")
_SWEEP = Loop(sweep, "i64", "i32[]", "i32[]", "i64[]", "i64[]", "i64", "i32[]", "i32[]", "i32[]", "i64[]")
_FRONTIERS = Loop(frontiers, "i64", "i64", *["i64[]"] * 3, "i32[]", "i64[]", "i32[]", "i64[]")
_LINK = Loop(link, "i64", "i32[]", "i32[]", *["i64[]"] * 7)
_SWEEP_LISTS = Loop(
    sweep_lists, "i64", "i32[]", "i32[]", "i64[]", "i64[]", "i32[]", "i32[]", "i64[]", "i32[]", "i64[]", "i64",
    *["i64[]"] * 6,
)  # fmt: skip


# ---- what the first pass keeps


class Gathered:
    """What all tasks touch, and how they are ordered.

    labels           per task, see `label`
    edges            explicit ones: pairs of tasks, by the later one
    tasks, touched   per access its task, and 2 * number of the tile, + 1 if it is written
    distinct         [tiles, TILE_SIZE] the tiles
    """

    labels: NDArray[np.int32]
    distinct: _Int

    def __init__(self, expansion: Expansion, uses: TileUses, cold: NDArray[np.bool_]) -> None:
        self.params = uses.params
        self.uses = uses.uses.copy().reshape(-1, USE_SIZE)
        self.uses[cold] = -1
        self.uses = self.uses.reshape(-1)
        self.after, self.last = _handles(expansion.calls), np.full(len(expansion.calls) + 1, -1, np.int64)
        self.tiles, self.slots = np.zeros(64 * TILE_SIZE, np.int64), np.full(128, -1, np.int64)
        self.tasks, self.touched = np.zeros(64, np.int32), np.zeros(64, np.int32)
        self.edges, self.events = np.zeros(64, np.int64), np.zeros(64, np.int64)
        self.state = np.zeros(GATHER_STATE, np.int64)

    def add(self, table: TaskTable) -> None:
        """One chunk of the task table."""
        count, row, state = table.count, 0, self.state
        kernel, leaf, args = table.kernel[:count], table.leaf[:count], table.args[:count].reshape(-1)
        while True:
            row = _GATHER(
                count, row, count, kernel, leaf, args, table.args.shape[1], self.params, self.uses, self.after,
                self.last, self.tiles, self.slots, self.tasks, self.touched, self.edges, self.events, state,
            )  # fmt: skip
            if row == count:
                break
            self._grow(int(np.diff(self.after[: len(self.last)]).max(initial=0)))
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
        if state[TILES] + params * TILE_SIZE > len(self.tiles):
            self.tiles = _twice(self.tiles, params * TILE_SIZE)
            self.slots = np.full(4 << (len(self.tiles) // TILE_SIZE).bit_length(), -1, np.int64)
            _ENTER_ALL(int(state[TILES]) // TILE_SIZE, int(state[TILES]), self.tiles, self.slots)

    def finish(self) -> None:
        """There are no more tasks: cut the arrays to what is filled, and label the tasks."""
        tasks, tiles, accesses, edges, events = self.state[:EVENTS + 1].tolist()
        self.distinct = self.tiles[:tiles].reshape(-1, TILE_SIZE)
        self.tasks, self.touched = self.tasks[:accesses], self.touched[:accesses]
        self.edges, self.events = self.edges[:edges], self.events[:events]
        self.labels = np.zeros(tasks, np.int32)
        closes, stack = np.zeros(events + 1, np.int64), np.zeros(FRAME * (events + 1), np.int64)
        _LABEL(tasks + events, tasks, events, np.append(self.events, [0, 0]), closes, stack, self.labels)


def _twice(array: NDArray[Any], more: int) -> NDArray[Any]:
    larger = np.zeros(2 * len(array) + more, array.dtype)
    larger[: len(array)] = array
    return larger


def _handles(calls: Sequence[Call]) -> _Int:
    """The explicit edges between calls as `gather` reads them."""
    number = {id(call.task): k for k, call in enumerate(calls)}
    lists = [[number[id(handle)] for handle in call.task.after if id(handle) in number] for call in calls]
    first = len(calls) + 1
    starts = [first + sum(map(len, lists[:k])) for k in range(first)]
    return np.array(starts + [k for several in lists for k in several], np.int64)


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
    return _sweep_lists(gathered, cut, tiles, exact) if general else _sweep(gathered, cut)


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
    uses = TileUses(expansion.calls, places)
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
    return cells.cut(tiles, bases, np.bincount(gathered.touched >> 1, minlength=len(tiles)), flat)


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
    space = uses.uses.reshape(-1, USE_SIZE)[:, SPACE]
    cold = np.zeros(len(space), bool)
    for c, call in enumerate(expansion.calls):
        for p, binding in enumerate(call.tiles):
            at = c * uses.params + p
            cold[at] = space[at] >= 0 and (space == space[at]).sum() == 1 and regions.are_apart(call, binding)
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


def _sweep_lists(gathered: Gathered, cut: cells.Cells, tiles: cells.Lines, exact: bool) -> tuple[int, int] | None:
    tasks, touched, count = gathered.tasks, gathered.touched, len(gathered.tasks)
    set_of, ends, pool = _frontiers(gathered)
    region = _regions(tiles)
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


def _frontiers(gathered: Gathered) -> tuple[NDArray[np.int32], _Int, NDArray[np.int32]]:
    """The sets of `frontiers`."""
    tasks, events = len(gathered.labels), len(gathered.events)
    set_of = np.zeros(tasks, np.int32)
    if not len(gathered.edges):
        return set_of, np.zeros(2, np.int64), np.zeros(1, np.int32)
    sets, room = 16 + len(gathered.edges), 64 + 4 * len(gathered.edges)
    frames, padded = np.zeros(FRAME * (events + 1), np.int64), np.append(gathered.events, [0, 0])
    while True:
        ends, pool, sizes = np.zeros(sets, np.int64), np.zeros(room, np.int32), np.zeros(1, np.int64)
        if not _FRONTIERS(tasks + events, tasks, events, padded, gathered.edges, frames, set_of, ends, pool, sizes):
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
