"""Cells of memory: tiles cut into pieces so that two of them have a piece in common exactly if they share a byte.

A tile is `rows` lines, `pitch` bytes apart; a line is `count` items, `step` bytes apart; an item is `item` adjacent
bytes. Within a space (arrays that share memory) an address is written in digits: the strides that divide one another
are the weights, so that a tile is a box, a range of each digit. The ends of all boxes cut each digit into intervals.
The pieces of a box are the grid cells in it; where boxes would have many, an interval of a digit is a few nodes of a
tree over its cuts instead, and the nodes above them count as touched in part. A tile that is no box is taken apart into
lines, and these into items. Everything sorts; nothing compares all pairs. Start reading at `cut`.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pto_wsp.errors import ExecutionError

__all__ = ["Cells", "Lines", "cut", "normal"]

_Int = NDArray[np.int64]

_FEW_PIECES = 3  # per tile that is used
_CHUNK = 1 << 20  # pieces that are made at a time
_MASKS = 63  # a bit for each digit

MOST_PIECES = 1 << 27
"""Pieces of all tiles together that are worth the memory, 8 bytes each."""
MOST_LINES = 1 << 25
"""Lines and items that tiles of unrelated strides are taken apart into, about 100 bytes each."""


@dataclass(frozen=True, eq=False)
class Lines:
    """Distinct tiles: arrays of one entry per tile, in bytes. A single line has pitch 0, a single item step 0."""

    space: _Int
    low: _Int
    item: _Int
    step: _Int
    count: _Int
    pitch: _Int
    rows: _Int

    def __len__(self) -> int:
        return len(self.low)

    def columns(self) -> tuple[_Int, ...]:
        return self.space, self.low, self.item, self.step, self.count, self.pitch, self.rows

    def some(self, which: NDArray[np.bool_] | _Int) -> Lines:
        return Lines(*(column[which] for column in self.columns()))

    @property
    def high(self) -> _Int:
        """The byte after the last."""
        result: _Int = self.low + (self.rows - 1) * self.pitch + (self.count - 1) * self.step + self.item
        return result


@dataclass(frozen=True, eq=False)
class Cells:
    """The pieces of tile k are piece[first[k]:first[k + 1]].

    A piece is node * parts + mask: bit d of the mask says that along digit d the node is touched in part only. Pieces
    of one node share bytes unless both are partial along one digit, that is, unless their masks have a bit in common.
    """

    first: _Int
    piece: _Int
    nodes: int
    parts: int


def normal(space: _Int, itemsize: _Int, words: _Int) -> Lines:
    """Tiles as the task table has them, one form for all that have the same bytes in the same arrangement.

    words   [tiles, 5] address, row stride, column stride, rows, columns
    """
    low, outer, inner, many, few = (words[:, k].copy() for k in range(5))
    for stride, size in ((outer, many), (inner, few)):
        low += np.minimum(stride, 0) * (size - 1)
        np.abs(stride, out=stride)
        size[stride == 0] = 1
        stride[size == 1] = 0
    swap = outer < inner
    outer, inner = np.where(swap, inner, outer), np.where(swap, outer, inner)
    many, few = np.where(swap, few, many), np.where(swap, many, few)
    item = itemsize.copy()
    item, few, inner = _join(item, few, inner)
    alone = few == 1
    widened, rest, stride = _join(item, many, outer)
    item = np.where(alone, widened, item)
    many, outer = np.where(alone, rest, many), np.where(alone, stride, outer)
    ahead = alone | (outer == few * inner)  # lines that go on where the last one ended, or of single items
    few, many, step = np.where(ahead, few * many, few), np.where(ahead, 1, many), np.where(alone, outer, inner)
    return Lines(space, low, item, step, few, np.where(many == 1, 0, outer), many)


def _join(item: _Int, count: _Int, step: _Int) -> tuple[_Int, _Int, _Int]:
    """Items that touch or overlap one another are one item."""
    whole = step <= item
    return np.where(whole, item + (count - 1) * step, item), np.where(whole, 1, count), np.where(whole, 0, step)


def cut(tiles: Lines, bases: Sequence[Sequence[int]], weight: _Int, flat: bool = False) -> Cells:
    """The cells of each tile.

    bases   per space, the first bytes of its arrays
    weight  how often each tile is used: those used most should have few pieces
    flat    all masks are 0: pieces are equal or apart
    raises  ExecutionError when there would be more than MOST_PIECES of them
    """
    count = np.zeros(len(tiles), np.int64)
    found: list[tuple[_Int, _Int]] = []
    nodes, parts = 0, 1
    order = np.argsort(tiles.space, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(tiles.space[order])) + 1):
        space = bases[tiles.space[group[0]]]
        count[group], piece, many = _cut_space(tiles.some(group), space, weight[group], flat)
        parts = max(parts, 1 << int((piece & _MASKS).max(initial=0)).bit_length())
        piece += nodes * (_MASKS + 1)
        found.append((group, piece))
        nodes += many
    first = np.concatenate([[0], np.cumsum(count)])
    pieces = found[0][1] if len(found) == 1 else np.empty(first[-1], np.int64)
    for group, piece in found if len(found) > 1 else ():
        each = count[group]
        pieces[np.repeat(first[group] - np.cumsum(each) + each, each) + np.arange(len(piece))] = piece
    masks = pieces & _MASKS
    pieces //= _MASKS + 1
    pieces *= parts
    pieces += masks
    return Cells(first, pieces, nodes, parts)


def _cut_space(tiles: Lines, bases: Sequence[int], weight: _Int, flat: bool) -> tuple[_Int, _Int, int]:
    """Pieces of each tile, those of the first tile first: node * (_MASKS + 1) + mask; and how many nodes there are."""
    everyone = np.arange(len(tiles))
    order = np.argsort(tiles.low, kind="stable")
    if (tiles.low[order][1:] >= np.maximum.accumulate(tiles.high[order])[:-1]).all():  # no two of them overlap
        return np.ones(len(tiles), np.int64), everyone * (_MASKS + 1), len(tiles)
    owner, low, high = _boxes(tiles, bases)
    order = np.argsort(owner, kind="stable")
    owner = owner[order]
    ranges = [_ranks(a[order], b[order]) for a, b in zip(low, high, strict=True)]
    ranges = [(a, b) for a, b in ranges if b.max() > 1] or ranges[:1]
    chosen = _forms(ranges, weight[owner], flat)
    count = _product(form.count for form in chosen)
    total = int(count.sum())
    if total > MOST_PIECES:
        raise ExecutionError(
            f"telling apart which of {len(tiles):,} tiles overlap would take {total:,} pieces of memory; "
            f"at most {MOST_PIECES:,} are kept. Tiles of one array should be cut along the same lines."
        )
    piece, size = np.empty(total, np.int64), math.prod(form.size for form in chosen)
    chunk = _CHUNK if size < 1 << 56 else total
    ends = np.cumsum(count)
    for cut_at in np.split(np.arange(len(owner)), np.searchsorted(ends, range(chunk, total, chunk))):
        if len(cut_at):
            end = int(ends[cut_at[-1]])
            piece[int(ends[cut_at[0]] - count[cut_at[0]]) : end], size = _enumerated(chosen, cut_at, count[cut_at])
    if size > 4 * total + 65536:
        named, size = _names(piece // (_MASKS + 1))
        piece = named * (_MASKS + 1) + (piece & _MASKS)
    return np.bincount(owner, count, minlength=len(tiles)).astype(np.int64), piece, size


def _enumerated(forms: tuple[_Grid | _Tree, ...], boxes: _Int, count: _Int) -> tuple[_Int, int]:
    """The pieces of some boxes, and how many nodes the numbers reach to."""
    number = np.repeat(boxes, count)
    within = np.arange(len(number)) - np.repeat(np.cumsum(count) - count, count)
    node, mask = np.zeros(len(number), np.int64), np.zeros(len(number), np.int64)
    size = 1
    for digit, form in enumerate(forms):
        place, partial = form.nodes(number, within % form.count[number])
        within //= form.count[number]
        if size * form.size >= 1 << 56:
            node, size = _names(node)
        node, size = node * form.size + place, size * form.size
        mask |= partial << digit
    return node * (_MASKS + 1) + mask, size


def _forms(ranges: list[tuple[_Int, _Int]], often: _Int, flat: bool) -> tuple[_Grid | _Tree, ...]:
    """For each digit the form that makes the fewest pieces in all."""

    def price(way: tuple[_Grid | _Tree, ...]) -> float:
        return float((often * _product(form.count for form in way).astype(np.float64)).sum())

    plain = tuple(_Grid(low, high) for low, high in ranges)
    if flat or price(plain) <= _FEW_PIECES * often.sum():
        return plain
    trees: list[list[_Grid | _Tree]] = [
        [grid] if grid.count.max() < 4 else [grid, _Tree(*ends)]
        for grid, ends in zip(plain, ranges, strict=True)
    ]
    return min(itertools.product(*trees), key=price)


def _product(counts: Iterable[_Int]) -> _Int:
    return functools.reduce(np.multiply, counts)


# ---- tiles as boxes of digits


def _boxes(tiles: Lines, bases: Sequence[int]) -> tuple[_Int, list[_Int], list[_Int]]:
    """Boxes that hold the bytes of the tiles: whose each one is, and its first and last+1 value in each digit."""
    weights = _weights(tiles)
    distinct = list({base % weights[-1]: base for base in bases}.values())[:8] if weights else [bases[0]]
    origin = max(distinct, key=lambda base: 0 if len(distinct) == 1 else _digits(tiles, weights, base)[2].sum())
    owner = np.arange(len(tiles))
    found: list[tuple[_Int, _Int, _Int]] = []
    for apart in (None, "rows", "items"):
        if apart is not None:
            tiles, owner = _apart(tiles, owner, apart)
        low, high, good = _digits(tiles, weights, origin)
        found.append((owner[good], low[:, good], high[:, good]))
        tiles, owner = tiles.some(~good), owner[~good]
        if not len(owner):
            break
    else:
        found += _split(tiles.low - origin, tiles.item, owner, weights)
    low, high = (np.concatenate([part[k] for part in found], axis=1) for k in (1, 2))
    return np.concatenate([part[0] for part in found]), list(low), list(high)


def _weights(tiles: Lines) -> list[int]:
    """Strides that divide one another, as many as possible of those that are used most."""
    strides = np.concatenate([tiles.step[tiles.count > 1], tiles.pitch[tiles.rows > 1]])
    values, counts = np.unique(strides, return_counts=True)
    chosen: list[int] = []
    for value in values[np.argsort(-counts, kind="stable")].tolist():
        if len(chosen) < 5 and all(value % other == 0 or other % value == 0 for other in chosen):
            chosen.append(value)
    return sorted(chosen)


def _digits(tiles: Lines, weights: list[int], origin: int) -> tuple[_Int, _Int, NDArray[np.bool_]]:
    """[digits, tiles] first and last+1 value of each digit, and which tiles are boxes in them."""
    good = (tiles.rows == 1) | (tiles.count == 1) | (tiles.step != tiles.pitch)
    places = (tiles.count > 1, tiles.step, tiles.count), (tiles.rows > 1, tiles.pitch, tiles.rows)
    for some, stride, _ in places:
        good &= ~some | np.isin(stride, weights)
    low, high = (np.zeros((len(weights) + 1, len(tiles)), np.int64) for _ in range(2))
    rest, carry = tiles.low - origin, np.ones(len(tiles), np.int64)
    for digit, weight in enumerate([1, *weights]):
        many = tiles.item if digit == 0 else np.ones(len(tiles), np.int64)
        for some, stride, size in places:
            many = np.where(some & (stride == weight) & (digit > 0), size, many)
        good &= (carry == 1) | (many == 1)
        many = many * carry
        if digit == len(weights):
            low[digit], high[digit] = rest, rest + many
            break
        radix = weights[digit] // weight
        rest, low[digit] = np.divmod(rest, radix)
        fits = low[digit] + many <= radix
        whole = (low[digit] == 0) & (many % radix == 0)
        good &= fits | whole
        high[digit] = np.where(fits, low[digit] + many, radix)
        carry = np.where(fits, 1, many // radix)
    return low, high, good


def _apart(tiles: Lines, owner: _Int, what: str) -> tuple[Lines, _Int]:
    """The lines of tiles, or the items of lines, as tiles of their own."""
    times, stride = (tiles.rows, tiles.pitch) if what == "rows" else (tiles.count, tiles.step)
    if float(times.sum()) > MOST_LINES:
        raise ExecutionError(
            f"arrays share memory, and their strides do not divide one another: {len(tiles):,} tiles would have to be "
            f"compared by their {int(times.sum()):,} {what}; at most {MOST_LINES:,} are. Use copies or one array."
        )
    which = np.repeat(np.arange(len(tiles)), times)
    within = np.arange(len(which)) - np.repeat(np.cumsum(times) - times, times)
    space, low, item, step, count, pitch, rows = tiles.some(which).columns()
    low = low + within * stride[which]
    none, one = np.zeros_like(low), np.ones_like(low)
    if what == "rows":
        return Lines(space, low, item, step, count, none, one), owner[which]
    return Lines(space, low, item, none, one, none, one), owner[which]


def _split(low: _Int, item: _Int, owner: _Int, weights: list[int]) -> list[tuple[_Int, _Int, _Int]]:
    """Runs of bytes as boxes: the incomplete digit at either end, and the rest in units of the next digit."""
    found = []
    begin, end = low, low + item
    units = [1, *weights]
    for digit, weight in enumerate(units):
        if digit == len(weights):
            found.append(_box(owner, begin, end, digit, units))
            break
        radix = weights[digit] // weight
        up, down = -(-begin // radix), end // radix
        short = up > down  # within one unit of the next digit
        found.append(_box(owner[short], begin[short], end[short], digit, units))
        owner, begin, end, up, down = (column[~short] for column in (owner, begin, end, up, down))
        head, tail = up * radix > begin, down * radix < end
        found.append(_box(owner[head], begin[head], up[head] * radix, digit, units))
        found.append(_box(owner[tail], down[tail] * radix, end[tail], digit, units))
        more = up < down
        owner, begin, end = owner[more], up[more], down[more]
    return found


def _box(owner: _Int, begin: _Int, end: _Int, digit: int, units: list[int]) -> tuple[_Int, _Int, _Int]:
    """[begin, end) in units of one digit, within one unit of the next: all of the lower digits, one of each higher."""
    low, high = (np.zeros((len(units), len(owner)), np.int64) for _ in range(2))
    for lower in range(digit):
        high[lower] = units[lower + 1] // units[lower]
    rest, many = begin, end - begin
    for at in range(digit, len(units)):
        low[at] = rest
        if at + 1 < len(units):
            rest, low[at] = np.divmod(rest, units[at + 1] // units[at])
        high[at] = low[at] + (many if at == digit else 1)
    return owner, low, high


# ---- one digit: the cuts that all ranges make, and the pieces of a range


def _ranks(low: _Int, high: _Int) -> tuple[_Int, _Int]:
    """Ranges in terms of the intervals between their ends."""
    least = int(low.min(initial=0))
    most = int(high.max(initial=0)) - least
    if most <= 16 * len(low) + 65536:  # count them instead of sorting
        seen = np.zeros(most + 1, np.int64)
        seen[low - least] = seen[high - least] = 1
        rank = np.cumsum(seen) - 1
        return rank[low - least], rank[high - least]
    ends = np.concatenate([low, high])
    order = np.argsort(ends, kind="stable")
    new = np.zeros(len(ends), np.int64)
    new[1:] = ends[order][1:] != ends[order][:-1]
    rank = np.empty(len(ends), np.int64)
    rank[order] = np.cumsum(new)
    return rank[: len(low)], rank[len(low) :]


class _Grid:
    """A range is all intervals in it."""

    def __init__(self, low: _Int, high: _Int) -> None:
        self.low, self.count, self.size = low, high - low, int(high.max())

    def nodes(self, of: _Int, number: _Int) -> tuple[_Int, _Int]:
        """Piece `number` of range `of`: its node, and whether that is touched in part."""
        return self.low[of] + number, np.zeros(len(of), np.int64)


class _Tree:
    """A binary tree over the intervals: a range is the highest nodes inside it, whole, and all above, in part.

    Leaf k is node size/2 + k, the parent of node k is k // 2, the root is 1.
    """

    def __init__(self, low: _Int, high: _Int) -> None:
        self.levels = int(high.max()).bit_length()  # so that high <= 2**levels - 1
        self.size = 2 << self.levels
        leaf = 1 << self.levels
        _, one, self._which = np.unique(low * leaf + high, return_index=True, return_inverse=True)
        parts = [_tree_nodes(low[some] + leaf, high[some] + leaf, self.levels) for some in _slices(one)]
        count, self._node, self._partial = (np.concatenate(column) for column in zip(*parts, strict=True))
        self._first = np.cumsum(count) - count
        self.count = count[self._which]

    def nodes(self, of: _Int, number: _Int) -> tuple[_Int, _Int]:
        """Piece `number` of range `of`: its node, and whether that is touched in part."""
        at = self._first[self._which[of]] + number
        return self._node[at], self._partial[at]


def _slices(values: _Int) -> list[_Int]:
    return np.split(values, range(1 << 16, len(values), 1 << 16))


def _tree_nodes(low: _Int, high: _Int, levels: int) -> tuple[_Int, _Int, _Int]:
    """Per range of leaves how many nodes it has; all of them, and whether each is touched in part."""
    place: list[_Int] = []
    there: list[NDArray[np.bool_]] = []
    left, right = low, high
    for _ in range(levels + 1):  # the highest nodes inside the range
        going = left < right
        odd = going & (left & 1 == 1)
        place.append(left)
        there.append(odd)
        left = left + odd
        odd = going & (right & 1 == 1)
        right = right - odd
        place.append(right)
        there.append(odd)
        left, right = left >> 1, right >> 1
    whole = len(place)
    for level in range(1, levels + 1):  # those above its first and its last leaf, unless inside the range
        first, last = low >> level, (high - 1) >> level
        place += [first, last]
        there.append(~((first << level >= low) & ((first + 1) << level <= high)))
        there.append(~((last << level >= low) & ((last + 1) << level <= high)) & (first != last))
    found = np.stack(there, axis=1)
    partial = np.broadcast_to(np.arange(len(place)) >= whole, found.shape)
    return found.sum(axis=1), np.stack(place, axis=1)[found], partial[found].astype(np.int64)


def _names(values: _Int) -> tuple[_Int, int]:
    """Small numbers for large ones, and how many there are."""
    order = np.argsort(values, kind="stable")
    new = np.zeros(len(values), np.int64)
    new[1:] = values[order][1:] != values[order][:-1]
    names = np.empty(len(values), np.int64)
    names[order] = np.cumsum(new)
    return names, int(names.max(initial=-1)) + 1
