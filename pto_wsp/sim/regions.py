"""Tile regions: which tasks touch the same memory?

In: the rows of a TaskTable.  Out: Accesses: for each tile of each task the memory cells it touches, where two tiles
share a cell exactly if they share an element. (Where telling them apart would cost too much, a cell may be larger than
that: tasks then wait for each other without need, never the other way round.)

Arrays that overlap in memory are one space. In a space whose tiles are cut from one row pitch, a tile is a box of rows
and columns; the ends of all boxes cut the space into a grid, and the cells of a tile are the grid cells in its box.
Other spaces are cut into runs of overlapping tiles. Everything sorts; nothing compares all pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pto_wsp.lower.bindings import Binding, Call
from pto_wsp.lower.places import Placed, address_of
from pto_wsp.lower.tasks import TILE_WORDS, TaskTable
from pto_wsp.scalar_expr import affine
from pto_wsp.types import Sparse, SparseRow

__all__ = [
    "Accesses", "Tiles", "Uses", "accesses_of", "are_apart", "cells_of", "first_byte", "overlaps_itself", "spaces_of",
]  # fmt: skip

_Int = NDArray[np.int64]
_MOST_CELLS = 8  # cells per tile, on average, beyond which a space is cut more coarsely


@dataclass(frozen=True, eq=False)
class Uses:
    """What each kernel call does with its tile parameters; one row per call, one column per tile parameter.

    space     which space its array lies in; -1 where the call has no such parameter
    itemsize  bytes per element
    writes    the kernel stores to it
    origin    first byte of each space
    """

    space: NDArray[np.int32]
    itemsize: NDArray[np.int32]
    writes: NDArray[np.bool_]
    origin: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Tiles:
    """Distinct tiles, each as bytes: `rows` runs that are `pitch` apart, each spanning `width` bytes from `low` on."""

    space: _Int
    low: _Int
    width: _Int
    pitch: _Int
    rows: _Int

    @property
    def high(self) -> _Int:
        return self.low + (self.rows - 1) * self.pitch + self.width

    def __len__(self) -> int:
        return len(self.low)


@dataclass(frozen=True, eq=False)
class Accesses:
    """Tasks touching cells, in program order."""

    task: NDArray[np.int32]  # position among the tasks asked about
    cell: NDArray[np.int32]
    writes: NDArray[np.uint8]
    cells: int


def spaces_of(arrays: Sequence[Placed]) -> tuple[NDArray[np.int32], _Int]:
    """The space of each array, and the first byte of each space; arrays whose byte ranges overlap share one."""
    bounds = np.array([_bounds(a) for a in arrays], np.int64).reshape(-1, 2)
    space = _runs(bounds[:, 0], bounds[:, 1])
    origin = np.full(int(space.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(origin, space, bounds[:, 0])
    return space.astype(np.int32), origin


def overlaps_itself(array: NDArray[Any]) -> bool:
    """Do two elements of the array share memory? May say yes for exotic strides when it cannot tell."""
    end = array.itemsize
    for stride, size in sorted((abs(s), n) for s, n in zip(array.strides, array.shape, strict=True) if n > 1):
        if stride < end:
            return array.size > 0
        end += stride * (size - 1)
    return False


def are_apart(call: Call, binding: Binding) -> bool:
    """Can it be seen without running that no two tasks of a call share an element of this tile?

    That is so when each loop variable moves some dimension on its own, by at least the tile's extent there.
    """
    tile = binding.param.node.tile
    moved = set()
    for dim in binding.dims:
        form = affine(dim.start)
        if form is not None and len(form[0]) == 1:
            ((var, step),) = form[0].items()
            size = {"rows": tile.rows, "cols": tile.cols, "fixed": 1}[dim.role]
            if abs(step) >= (size if dim.extent is None else min(size, dim.extent)):
                moved.add(var)
    repeats = any(_may_repeat(var.axis) for var in call.loops)
    return not repeats and moved.issuperset(call.loops)


def _may_repeat(axis: Any) -> bool:
    """May a loop over the axis have one value twice?"""
    return isinstance(axis, (Sparse, SparseRow)) or isinstance(axis, tuple) and len(set(axis)) < len(axis)


def accesses_of(table: TaskTable, rows: _Int, uses: Uses) -> Accesses:
    """The memory that the tasks in these rows touch, as far as some call writes to the same space."""
    leaf = table.leaf[rows]
    written = np.zeros(len(uses.origin) + 1, bool)  # the last entry is for parameters that do not exist, space -1
    written[uses.space[uses.writes]] = True
    parts = []
    for p in range(uses.space.shape[1]):
        words = table.args[rows, TILE_WORDS * p : TILE_WORDS * (p + 1)]
        hot = np.flatnonzero(written[uses.space[leaf, p]] & (words[:, 3] > 0) & (words[:, 4] > 0))
        if len(hot):
            call = leaf[hot]
            bounds = _normal(words[hot], uses.itemsize[call, p].astype(np.int64))
            parts.append((hot, uses.writes[call, p], uses.space[call, p].astype(np.int64), *bounds))
    if not parts:
        return Accesses(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.uint8), 0)
    task, writes, *columns = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(task, kind="stable")
    tiles, which = _distinct([column[order] for column in columns])
    first, cell = cells_of(tiles, uses.origin)
    return _spread(task[order], which, writes[order], first, cell)


def cells_of(tiles: Tiles, origin: _Int) -> tuple[_Int, _Int]:
    """The cells of each tile: those of tile k are cell[first[k]:first[k + 1]]. `origin`: first byte of each space."""
    cell = np.full(len(tiles), -1, np.int64)
    count = np.ones(len(tiles), np.int64)
    parts: list[tuple[_Int, _Int]] = []
    begin = 0
    order = np.argsort(tiles.space, kind="stable")
    cuts = np.flatnonzero(np.diff(tiles.space[order])) + 1
    for group in np.split(order, cuts):
        part = Tiles(*(column[group] for column in (tiles.space, tiles.low, tiles.width, tiles.pitch, tiles.rows)))
        runs = _runs(part.low, part.high)
        apart = int(runs.max()) + 1 == len(part)  # no two of them overlap
        found = None if apart else _grid(part, int(origin[part.space[0]]))
        if found is None:
            cell[group] = begin + runs
            begin += int(runs.max()) + 1
        else:
            owners, cells = found
            names, cells = _unique(cells)
            count[group] = np.bincount(owners, minlength=len(group))
            parts.append((group, cells + begin))
            begin += len(names)
    first = np.concatenate([[0], np.cumsum(count)])
    result = np.empty(first[-1], np.int64)
    plain = cell >= 0
    result[first[:-1][plain]] = cell[plain]
    for group, cells in parts:
        result[_places(first[group], count[group])] = cells
    return first, result


def first_byte(array: Placed) -> int:
    """The lowest address of an element."""
    return _bounds(array)[0]


def _bounds(array: Placed) -> tuple[int, int]:
    """First byte and the byte after the last."""
    low = high = address_of(array)
    if array.size == 0:
        return low, low
    for stride, size in zip(array.strides, array.shape, strict=True):
        low, high = low + min(stride * (size - 1), 0), high + max(stride * (size - 1), 0)
    return low, high + array.itemsize


def _normal(words: _Int, itemsize: _Int) -> tuple[_Int, ...]:
    """Tiles of any strides as (low, width, pitch, rows): the longer stride outside, one run if contiguous."""
    address, outer, inner, many, few = words.T
    low = address + np.minimum(outer, 0) * (many - 1) + np.minimum(inner, 0) * (few - 1)
    outer, inner = np.abs(outer), np.abs(inner)
    line = (many == 1) | (few == 1)  # one dimension only
    ahead = np.where(line, few == 1, outer >= inner)  # the first dimension is the outer one
    rows, pitch = np.where(ahead, many, few), np.where(ahead, outer, inner)
    inside, step = np.where(line, 1, np.where(ahead, few, many)), np.where(ahead, inner, outer)
    width = (inside - 1) * step + itemsize
    merged = pitch == width
    width, rows = np.where(merged, width * rows, width), np.where(merged, 1, rows)
    return low, width, np.where(rows == 1, 0, pitch), rows


def _distinct(columns: list[_Int]) -> tuple[Tiles, _Int]:
    """The distinct tiles, and which of them each access touches."""
    mixed = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        mixed = (mixed ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    one, which = _unique(mixed)
    if any((column[one][which] != column).any() for column in columns):  # two tiles with one hash
        _, one, which = np.unique(np.stack(columns, 1), axis=0, return_index=True, return_inverse=True)
    return Tiles(*(column[one] for column in columns)), which.reshape(-1)


def _unique(values: NDArray[Any]) -> tuple[_Int, _Int]:
    """Where one of each distinct value is, and for each value the rank of its equals. (np.unique imports numpy.ma.)"""
    order = np.argsort(values)
    ordered = values[order]
    new = np.ones(len(order), bool)
    new[1:] = ordered[1:] != ordered[:-1]
    which = np.empty(len(order), np.int64)
    which[order] = np.cumsum(new) - 1
    return order[new], which


def _runs(low: _Int, high: _Int) -> _Int:
    """Number of the run of overlapping byte ranges that each belongs to."""
    order = np.argsort(low, kind="stable")
    new = np.ones(len(order), bool)
    new[1:] = low[order][1:] >= np.maximum.accumulate(high[order])[:-1]
    run = np.empty(len(order), np.int64)
    run[order] = np.cumsum(new) - 1
    return run


def _grid(tiles: Tiles, origin: int) -> tuple[_Int, _Int] | None:
    """(tile, cell) pairs of one space, or None when its tiles do not lie on one row pitch or have too many cells."""
    pitches = tiles.pitch[tiles.rows > 1]
    if (pitches != pitches[:1]).any():
        return None
    if len(pitches):
        pitch = int(pitches[0])
        top, left = np.divmod(tiles.low - origin, pitch)
        full = (left == 0) & (tiles.rows == 1) & (tiles.width % pitch == 0)
        bottom = np.where(full, top + tiles.width // pitch, top + tiles.rows)
        right = np.where(full, pitch, left + tiles.width)
        if (right > pitch).any():
            return None
    else:
        top, bottom = np.zeros(len(tiles), np.int64), np.ones(len(tiles), np.int64)
        left, right = tiles.low - origin, tiles.low - origin + tiles.width
    r0, r1 = _cuts(top, bottom)
    c0, c1 = _cuts(left, right)
    count = (r1 - r0) * (c1 - c0)
    if int(count.sum()) > _MOST_CELLS * len(tiles) + 4096:
        return None
    owner = np.repeat(np.arange(len(tiles)), count)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    row, column = np.divmod(within, (c1 - c0)[owner])
    return owner, (r0[owner] + row) * (int(c1.max()) + 1) + c0[owner] + column


def _cuts(begin: _Int, end: _Int) -> tuple[_Int, _Int]:
    """Positions of the ends in the sorted list of all ends."""
    _, where = _unique(np.concatenate([begin, end]))
    return where[: len(begin)], where[len(begin) :]


def _places(first: _Int, count: _Int) -> _Int:
    """first[k], first[k] + 1, ..., count[k] of them, for every k in order."""
    within = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
    return np.repeat(first, count) + within


def _spread(task: _Int, tile: _Int, writes: NDArray[np.bool_], first: _Int, cell: _Int) -> Accesses:
    """Accesses to tiles as accesses to their cells."""
    count = np.diff(first)[tile]
    cells = int(cell.max(initial=-1)) + 1
    if (count == 1).all():
        found = cell[first[:-1][tile]]
    else:
        found = cell[_places(first[:-1][tile], count)]
        task, writes = np.repeat(task, count), np.repeat(writes, count)
    return Accesses(task.astype(np.int32), found.astype(np.int32), writes.astype(np.uint8), cells)
