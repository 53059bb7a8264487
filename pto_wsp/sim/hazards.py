"""Edges inferred from memory: which live tasks touch the same bytes as the task that is being generated?

Each tile of a live task is kept as a claim: rows of bytes, a pitch apart. A space (arrays that share memory) is cut
into buckets of about the size of its tiles; a claim is entered in each bucket that it reaches, readers apart from
writers, so that a new tile is compared with few others, and with those exactly. A writer takes the place of the
claims that it covers: who touches those bytes later waits for the writer, and so for them. Claims go when their task
completes. An element that is loaded into a slot is compared with the writers only, and claims nothing. Start reading at
`claim_tile`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pto_wsp.lower.bindings import Binding, Call, SlotUse
from pto_wsp.lower.places import Placed
from pto_wsp.lower.tasks import TILE_WORDS, TaskTable
from pto_wsp.sim import regions
from pto_wsp.sim.edges import (
    EDGES_STATE,
    NUMBER,
    SERIAL,
    STAMP,
    TILES,
    TOP,
    UNSEEN_BY,
    collect,
    follow,
    give_back,
    take,
)

__all__ = [
    "BY_IDENTITY", "BY_OVERLAP", "CLAIM_SIZE", "FOR_LOADS", "LOAD", "MOST_BUCKETS", "NO_CLAIMS", "TileUses",
    "claim_tile", "relink", "release", "weights_of",
]  # fmt: skip

# Words of a claim. LOW: its first byte. ROWS runs, PITCH bytes apart, of COUNT pieces of ITEM bytes, STEP bytes apart.
(LOW, ITEM, PITCH, ROWS, COUNT, STEP, WRITES, OWNER_NODE, OF_OWNER, HASH, IN_CHAIN, BEFORE_IT, AFTER_IT,
 CLAIM_SIZE) = range(14)  # fmt: skip
# OWNER_NODE  the task's node, -1 for a free record; OF_OWNER: the next claim of that node, or the next free record
# IN_CHAIN    the chain that it is linked into, -1 when a writer has taken its place

# Words of a use, what a call does with a tile parameter.
SPACE, ITEMSIZE, IS_WRITTEN, USE_SIZE = range(4)

# Words of a space.
ORIGIN, ROW_BYTES, BUCKET_ROWS, BUCKET_BYTES, SPACE_SIZE = range(5)

# Words of the state.
CLAIMS = EDGES_STATE  # three words, see edges.take
RELINK, UNSEEN, WIDE_CLAIMS, HAZARD_STATE = range(CLAIMS + 3, CLAIMS + 7)

NO_CLAIMS, BY_OVERLAP, BY_IDENTITY, FOR_LOADS, LOAD = range(5)
"""What tiles are claimed for: nothing; edges between tiles that overlap, or are identical (others that overlap are
counted); only to be found by loads. LOAD: this is the element of a load."""

MOST_BUCKETS = 64
"""A tile that reaches more buckets is compared with all live ones."""

WIDE = -2  # HASH of such a claim: it is in the chain of its own, after the others


def claim_tile(
    at: int, use: int, what: int, args: Any, uses: Any, spaces: Any,
    nodes: Any, edges: Any, claims: Any, chains: Any, state: Any, node: int,
) -> int:  # fmt: skip
    """One tile of a new task: the edges that it needs, and its claim. There has to be room for MOST_BUCKETS claims.

    at     where the tile's words begin in `args`
    use    the use of the parameter, its first word in `uses`
    what   it is claimed for; BY_OVERLAP ... LOAD
    """
    space = uses[use + SPACE] * SPACE_SIZE
    many, few = args[at + 3], args[at + 4]
    if space < 0 or many <= 0 or few <= 0:
        return 0
    itemsize, writes = uses[use + ITEMSIZE], uses[use + IS_WRITTEN]
    low, outer, inner = args[at], args[at + 1], args[at + 2]
    if outer < 0:
        low += outer * (many - 1)
        outer = -outer
    if inner < 0:
        low += inner * (few - 1)
        inner = -inner
    if many == 1 or outer == 0:
        many, outer = 1, 0
    if few == 1 or inner == 0:
        few, inner = 1, 0
    if outer < inner:
        outer, inner, many, few = inner, outer, few, many
    if few == 1 and outer == itemsize:  # one column of adjacent elements is a row
        outer, inner, many, few = 0, outer, 1, many
    item, count, step = itemsize, few, inner
    if few == 1 or inner == itemsize:
        item, count, step = itemsize * few, 1, 1
    rows, pitch = many, outer
    if count == 1 and pitch == item:
        item, rows = item * rows, 1
    if rows == 1:
        pitch = 0

    half = len(chains) // 2 - 1  # the last chain of each half holds the wide claims
    row_bytes = spaces[space + ROW_BYTES]
    offset, span = low - spaces[space + ORIGIN], (count - 1) * step + item
    if rows > 1 and pitch != row_bytes:
        span += (rows - 1) * pitch
        top = offset // row_bytes
        bottom = (offset + span - 1) // row_bytes
    else:
        top = offset // row_bytes
        bottom = (offset + (rows - 1) * pitch + span - 1) // row_bytes
    left = offset % row_bytes
    right = left + span - 1
    if right >= row_bytes:
        left, right = 0, row_bytes - 1
    top, bottom = top // spaces[space + BUCKET_ROWS], bottom // spaces[space + BUCKET_ROWS]
    left, right = left // spaces[space + BUCKET_BYTES], right // spaces[space + BUCKET_BYTES]
    wide = (bottom - top + 1) * (right - left + 1) > MOST_BUCKETS
    across = right - left + 1
    buckets = half + 1 if wide else (bottom - top + 1) * across
    visits = buckets + 1 if state[WIDE_CLAIMS] > 0 and not wide else buckets
    for visit in range(visits):
        mixed, chain = WIDE, half
        if wide:
            chain = visit
        elif visit < buckets:
            mixed = space * 0x9E3779B1 + ((top + visit // across) & 0xFFFFFFF) * 0x5851F42D
            mixed += ((left + visit % across) & 0xFFFFFFF) * 0x2545F491
            mixed ^= mixed >> 15
            chain = mixed & (half - 1)
        for readers in range(1 if what == FOR_LOADS else 1 + writes):
            meet(chain + (1 - readers) * (half + 1), low, item, pitch, rows, count, step, writes, what,
                 nodes, edges, claims, chains, state, node)  # fmt: skip
        if what != LOAD and (visit == buckets - 1 or (visit < buckets and not wide)):
            claim = take(claims, state, CLAIMS, OF_OWNER, CLAIM_SIZE)
            claims[claim + LOW], claims[claim + ITEM], claims[claim + PITCH] = low, item, pitch
            claims[claim + ROWS], claims[claim + COUNT], claims[claim + STEP] = rows, count, step
            claims[claim + WRITES], claims[claim + OWNER_NODE], claims[claim + HASH] = writes, node, mixed
            claims[claim + OF_OWNER] = nodes[node + TILES]
            nodes[node + TILES] = claim
            link(claims, chains, state, claim)
    return 0


def meet(
    chain: int, low: int, item: int, pitch: int, rows: int, count: int, step: int, writes: int, what: int,
    nodes: Any, edges: Any, claims: Any, chains: Any, state: Any, node: int,
) -> int:  # fmt: skip
    """Compare a new tile with the claims of one chain."""
    claim = chains[chain]
    number = nodes[node + NUMBER] if what != LOAD else 0
    while claim >= 0:
        following = claims[claim + AFTER_IT]
        other = claims[claim + OWNER_NODE]
        if other != node:
            same = (
                claims[claim + LOW] == low and claims[claim + ITEM] == item and claims[claim + ROWS] == rows
                and claims[claim + PITCH] == pitch and claims[claim + COUNT] == count and claims[claim + STEP] == step
            )  # fmt: skip
            if same or share(
                low, item, pitch, rows, count, step, claims[claim + LOW], claims[claim + ITEM],
                claims[claim + PITCH], claims[claim + ROWS], claims[claim + COUNT], claims[claim + STEP],
            ) == 1:  # fmt: skip
                if what == LOAD:
                    collect(nodes, edges, state, other)
                elif what == FOR_LOADS:
                    pass
                elif same or what == BY_OVERLAP:
                    if nodes[other + UNSEEN_BY] == number:
                        nodes[other + UNSEEN_BY] = -1
                        state[UNSEEN] -= 1
                    follow(nodes, edges, state, other, nodes[other + SERIAL], node)
                elif nodes[other + STAMP] != number and nodes[other + UNSEEN_BY] != number:
                    nodes[other + UNSEEN_BY] = number
                    state[UNSEEN] += 1
                if writes == 1 and (same or (what != BY_IDENTITY and covers(
                    low, item, pitch, rows, count, claims[claim + LOW], claims[claim + ITEM],
                    claims[claim + PITCH], claims[claim + ROWS], claims[claim + COUNT],
                ) == 1)):  # fmt: skip
                    unlink(claims, chains, state, claim)
        claim = following
    return 0


def share(
    low: int, item: int, pitch: int, rows: int, count: int, step: int,
    low_2: int, item_2: int, pitch_2: int, rows_2: int, count_2: int, step_2: int,
) -> int:  # fmt: skip
    """1 if two regions have a byte in common."""
    if count == 1 and count_2 == 1:
        if rows == 1 and rows_2 == 1:
            return 1 if low < low_2 + item_2 and low_2 < low + item else 0
        common = pitch if rows > 1 else pitch_2
        if rows == 1 or rows_2 == 1 or pitch == pitch_2:  # is some row of one near enough to some row of the other?
            apart = low_2 - low
            k = (-item_2 - apart) // common + 1
            if k < 1 - rows:
                k = 1 - rows
            return 1 if k < rows_2 and apart + k * common < item else 0
    for i in range(rows):
        for m in range(count):
            here = low + i * pitch + m * step
            for j in range(rows_2):
                there = low_2 + j * pitch_2
                k = (here - item_2 - there) // step_2 + 1
                if k < 0:
                    k = 0
                if k < count_2 and there + k * step_2 < here + item:
                    return 1
    return 0


def covers(
    low: int, item: int, pitch: int, rows: int, count: int,
    low_2: int, item_2: int, pitch_2: int, rows_2: int, count_2: int,
) -> int:  # fmt: skip
    """1 if the first region is seen to hold all bytes of the second."""
    if count != 1 or count_2 != 1 or (rows > 1 and rows_2 > 1 and pitch != pitch_2):
        return 0
    if rows == 1:
        return 1 if low <= low_2 and low_2 + (rows_2 - 1) * pitch_2 + item_2 <= low + item else 0
    down, along = (low_2 - low) // pitch, (low_2 - low) % pitch
    return 1 if down >= 0 and down + rows_2 <= rows and along + item_2 <= item else 0


def link(claims: Any, chains: Any, state: Any, claim: int) -> int:
    """Into the chain of its bucket: readers in the first half of the chains, writers in the second."""
    half = len(chains) // 2 - 1
    mixed = claims[claim + HASH]
    chain = half
    if mixed == WIDE:
        state[WIDE_CLAIMS] += 1
    else:
        chain = mixed & (half - 1)
    if claims[claim + WRITES] == 1:
        chain += half + 1
    first = chains[chain]
    claims[claim + IN_CHAIN], claims[claim + BEFORE_IT], claims[claim + AFTER_IT] = chain, -1, first
    if first >= 0:
        claims[first + BEFORE_IT] = claim
    chains[chain] = claim
    return 0


def unlink(claims: Any, chains: Any, state: Any, claim: int) -> int:
    """Out of its chain, if it is still there."""
    chain = claims[claim + IN_CHAIN]
    if chain >= 0:
        before, after = claims[claim + BEFORE_IT], claims[claim + AFTER_IT]
        if before >= 0:
            claims[before + AFTER_IT] = after
        else:
            chains[chain] = after
        if after >= 0:
            claims[after + BEFORE_IT] = before
        claims[claim + IN_CHAIN] = -1
        if claims[claim + HASH] == WIDE:
            state[WIDE_CLAIMS] -= 1
    return 0


def release(nodes: Any, claims: Any, chains: Any, state: Any, node: int) -> int:
    """A task is complete: its claims go."""
    claim = nodes[node + TILES]
    while claim >= 0:
        following = claims[claim + OF_OWNER]
        unlink(claims, chains, state, claim)
        claims[claim + OWNER_NODE] = -1
        give_back(claims, state, CLAIMS, OF_OWNER, claim)
        claim = following
    return 0


def relink(claims: Any, chains: Any, state: Any) -> int:
    """The chains are new and empty: enter the claims again."""
    state[RELINK] = state[WIDE_CLAIMS] = 0
    for claim in range(0, state[CLAIMS + TOP], CLAIM_SIZE):
        if claims[claim + OWNER_NODE] >= 0 and claims[claim + IN_CHAIN] >= 0:
            link(claims, chains, state, claim)
    return 0


class TileUses:
    """What each call does with its tile parameters, and how the memory is cut into buckets, as `claim_tile` reads it.

    params  most tile parameters of a call; call c's parameter p is entry c * params + p. The element that slot use s
            loads is entry (len(calls) + s) * params
    loaded  spaces that tasks write and slots are loaded from
    """

    def __init__(self, calls: Sequence[Call], arrays: Sequence[Placed], slot_uses: Sequence[SlotUse] = ()) -> None:
        space_of, origin = regions.spaces_of(arrays)
        self.params = max([int(len(slot_uses) > 0), *(len(call.tiles) for call in calls)])
        uses = np.full((len(calls) + len(slot_uses), self.params, USE_SIZE), -1, np.int64)
        written = {int(space_of[b.tensor]) for call in calls for b in call.tiles if call.writes(b)}
        self.loaded = set[int]()
        for s, slot in enumerate(slot_uses):
            if slot.load is not None and space_of[slot.load.tensor] in written:
                space = int(space_of[slot.load.tensor])
                uses[len(calls) + s, 0] = space, arrays[slot.load.tensor].itemsize, 0
                self.loaded.add(space)
        shapes: dict[int, list[tuple[int, int, int]]] = {}
        for c, call in enumerate(calls):
            for p, binding in enumerate(call.tiles):
                space = int(space_of[binding.tensor])
                if space in written:
                    uses[c, p] = space, arrays[binding.tensor].itemsize, call.writes(binding)
                    shapes.setdefault(space, []).append(_shape(binding, arrays[binding.tensor]))
        self.exists = np.zeros((len(calls), self.params), bool)
        self.written_bytes = np.zeros((len(calls), self.params), np.int64)  # per element; 0: not written
        for c, call in enumerate(calls):
            for p, binding in enumerate(call.tiles):
                self.exists[c, p] = True
                self.written_bytes[c, p] = arrays[binding.tensor].itemsize * call.writes(binding)
        spaces = [(int(origin[s]), *_buckets(shapes.get(s, []))) for s in range(len(origin))]
        self.uses = uses.reshape(-1)
        self._first_load = len(calls) * self.params
        self.spaces = np.array(spaces, np.int64).reshape(-1)

    def for_loads(self) -> NDArray[np.int64]:
        """The uses that matter where no edges are inferred: the elements that are loaded, and what writes to them."""
        uses = self.uses.reshape(-1, USE_SIZE)
        matters = (uses[:, IS_WRITTEN] == 1) | (np.arange(len(uses)) >= self._first_load)
        matters &= np.isin(uses[:, SPACE], list(self.loaded))
        return np.where(matters[:, None], uses, -1).reshape(-1)


def weights_of(table: TaskTable, unit: str, tiles: TileUses) -> NDArray[np.int64]:
    """What each row of a table takes of a window that is counted in bytes (that it writes) or entries (its tiles)."""
    rows, weights = slice(0, table.count), np.zeros(table.count, np.int64)
    leaf = np.where(table.kernel[rows] >= 0, table.leaf[rows], 0)
    for p in range(tiles.params):
        many, few = (table.args[rows, TILE_WORDS * p + k] for k in (3, 4))
        if unit == "entries":
            weights += tiles.exists[leaf, p] & (many > 0) & (few > 0)
        else:
            size = tiles.written_bytes[leaf, p]
            weights += np.where(size > 0, many * few, 0) * size
    return weights


def _shape(binding: Binding, array: Placed) -> tuple[int, int, int]:
    """Rows, bytes of one row and pitch of a whole tile."""
    tile, strides = binding.param.node.tile, {"rows": 0, "cols": 0}
    for axis, dim in enumerate(binding.dims):
        if dim.role != "fixed":
            strides[dim.role] = abs(array.strides[axis])
    (rows, outer), (cols, inner) = sorted(
        [(tile.rows, strides["rows"]), (tile.cols, strides["cols"])], key=lambda of: -of[1] if of[0] > 1 else 0
    )
    span = (cols - 1) * inner + array.itemsize
    return (1, span * rows, 0) if rows > 1 and outer == span else (rows, span, outer if rows > 1 else 0)


def _buckets(shapes: list[tuple[int, int, int]]) -> tuple[int, int, int]:
    """Bytes of a row of a space; rows and bytes of a bucket: about the size of the smaller tiles."""
    row_bytes = max((pitch for _, _, pitch in shapes), default=0) or 1 << 62
    high = [max(rows, span // row_bytes) for rows, span, _ in shapes] or [1]
    wide = [min(span, row_bytes) for _, span, _ in shapes] or [1]
    return row_bytes, max(min(high), max(high) // 4, 1), max(min(wide), max(wide) // 4, 1)
