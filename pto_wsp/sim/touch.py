"""Single tasks, with the memory they touch: found again by their numbers, for messages and for `program.task(n)`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pto_wsp.errors import SourceLine
from pto_wsp.lower.bindings import Call
from pto_wsp.lower.expand import Expansion
from pto_wsp.lower.places import Placed, address_of
from pto_wsp.lower.tasks import TILE_WORDS, TaskTable
from pto_wsp.sim.channels import ChannelEngine
from pto_wsp.sim.decisions import Replaying
from pto_wsp.sim.simulation import Snapshot

__all__ = ["Shared", "Touch", "TouchedTile", "shared", "tasks_at"]

_Int = NDArray[np.int64]


@dataclass(frozen=True)
class TouchedTile:
    """One tile of a task.

    words   address, row stride, column stride (bytes), rows, columns
    """

    param: str
    tensor: int
    writes: bool
    reads: bool
    itemsize: int
    words: tuple[int, ...]

    def addresses(self) -> _Int:
        """Of each byte, ascending."""
        address, outer, inner, many, few = self.words
        items = address + outer * np.arange(many)[:, None] + inner * np.arange(few)
        return np.unique(items.reshape(-1, 1) + np.arange(self.itemsize))


@dataclass(frozen=True)
class Touch:
    """One task and its tiles."""

    task: int
    kernel: str
    axes: tuple[int, ...]
    call: Call
    tiles: tuple[TouchedTile, ...]

    @property
    def name(self) -> str:
        """`kernel[axis values]`."""
        return f"{self.kernel}[{', '.join(map(str, self.axes))}]" if self.axes else self.kernel

    @property
    def line(self) -> SourceLine | None:
        """The user's line of the call."""
        return self.call.task.line


class _Enough(Exception):
    pass


def tasks_at(snapshot: Snapshot, expansion: Expansion, numbers: Sequence[int]) -> list[Touch]:
    """The tasks of these numbers."""
    places = [snapshot.places[tensor] for tensor in expansion.tensors]
    found: dict[int, Touch] = {}

    def look(table: TaskTable) -> None:
        rows = np.flatnonzero(table.kernel[: table.count] >= 0)
        for number in numbers:
            if 0 <= number - table.first_task < len(rows):
                found[number] = _touch(expansion, places, table, int(rows[number - table.first_task]), number)
        if len(found) == len(set(numbers)):
            raise _Enough

    host, inputs = None if snapshot.log is None else Replaying(snapshot.log), snapshot.inputs(expansion)
    clock = None if expansion.pipeline is None else ChannelEngine.of(expansion.pipeline, inputs)
    try:
        expansion.run(inputs, expansion.table(), look, host=host, clock=clock)
    except _Enough:
        pass
    return [found[number] for number in numbers]


def _touch(expansion: Expansion, places: Sequence[Placed], table: TaskTable, row: int, number: int) -> Touch:
    call = expansion.calls[table.leaf[row]]
    tiles = []
    for p, binding in enumerate(call.tiles):
        words = tuple(table.args[row, TILE_WORDS * p : TILE_WORDS * (p + 1)].tolist())
        size = places[binding.tensor].itemsize
        writes, reads = call.writes(binding), binding.param.direction != "out"
        tiles.append(TouchedTile(binding.param.name, binding.tensor, writes, reads, size, words))
    axes = tuple(table.axes[row, : len(call.task.axes)].tolist())
    return Touch(number, call.name, axes, call, tuple(tiles))


@dataclass(frozen=True)
class Shared:
    """What two tasks have in common.

    region  per dimension of the second task's array, first and last+1 index
    uses    of either task: the task, its parameter, whether it writes
    """

    text: str
    region: tuple[tuple[int, int], ...]
    uses: tuple[tuple[Touch, str, bool], tuple[Touch, str, bool]]


def shared(snapshot: Snapshot, first: Touch, second: Touch) -> Shared:
    """The first tiles of two tasks that overlap, one of them written."""
    tensors = snapshot.expansions.of_any().tensors
    for mine in second.tiles:
        for theirs in first.tiles:
            if mine.writes or theirs.writes:
                both = np.intersect1d(mine.addresses(), theirs.addresses())
                if len(both):
                    place = snapshot.places[tensors[mine.tensor]]
                    region = region_of(place, both)
                    text = f"{tensors[mine.tensor].dtype.value}{list(place.shape)}"
                    text = f"{text_of(region)} of {text}" if region else f"{len(both)} bytes of {text}"
                    uses = (first, theirs.param, theirs.writes), (second, mine.param, mine.writes)
                    return Shared(text, region, uses)
    raise AssertionError("two tasks were said to overlap, and do not")


def region_of(place: Placed, addresses: _Int) -> tuple[tuple[int, int], ...]:
    """The smallest box of an array's indices that holds these bytes; () where the array's strides hide them."""
    rest = addresses - address_of(place)
    found: list[tuple[int, int]] = [(0, 1)] * len(place.shape)
    dims = [d for d, size in enumerate(place.shape) if size > 1]
    for d in dims:
        if place.strides[d] < 0:
            rest = rest - place.strides[d] * (place.shape[d] - 1)
    for d in sorted(dims, key=lambda d: -abs(place.strides[d])):
        if place.strides[d] == 0:
            return ()
        index, rest = np.divmod(rest, abs(place.strides[d]))
        low, high = int(index.min()), int(index.max())
        if low < 0 or high >= place.shape[d]:
            return ()
        if place.strides[d] < 0:
            low, high = place.shape[d] - 1 - high, place.shape[d] - 1 - low
        found[d] = low, high + 1
    return tuple(found)


def text_of(region: tuple[tuple[int, int], ...]) -> str:
    """`[3, 0:64]`."""
    return f"[{', '.join(str(a) if b == a + 1 else f'{a}:{b}' for a, b in region)}]"
