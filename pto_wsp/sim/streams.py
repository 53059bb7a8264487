"""Which tasks have their results go around the cache (lower/around.py): those that touch nothing of each other, as soon
as a run has written more than the cache holds.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from pto_wsp.lower.around import ALIGNMENT, params_around
from pto_wsp.lower.expand import Expansion
from pto_wsp.lower.tasks import TILE_WORDS, TaskTable

__all__ = ["Streams", "cache_bytes"]

_WORTH_MAKING = 1 << 28  # bytes that take about as long to write as a second function takes to compile


@cache
def cache_bytes() -> int:
    """What the largest cache that a core reaches holds; 32 MB where the system does not say."""
    found = []
    for size in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = size.read_text().strip()
        if text[:-1].isdecimal() and text[-1] in "KM":
            found.append(int(text[:-1]) << (10 if text[-1] == "K" else 20))
    return max(found, default=32 << 20)


class Streams:
    """What a program could write around the cache.

    written  bytes of it in this run
    """

    def __init__(self, expansion: Expansion) -> None:
        self.written = self._ever = 0
        self._params: list[list[tuple[int, int]]] = []  # per call: number and itemsize of parameters that may
        bytes_of = []  # of their tiles
        for call in expansion.calls:
            around = {id(p) for p in params_around(expansion.kernels[call.kernel].graph)}
            mine = [(k, b.param.node.tile) for k, b in enumerate(call.tiles) if id(b.param) in around]
            self._params.append([(k, tile.dtype.itemsize) for k, tile in mine])
            bytes_of.append(sum(tile.rows * tile.cols * tile.dtype.itemsize for _, tile in mine))
        self._bytes = np.array(bytes_of, np.int64)
        self._most = max(bytes_of, default=0)

    def little(self, table: TaskTable) -> bool:
        """Is it too little to think about?"""
        return table.count * self._most < cache_bytes() >> 4

    def results(self, table: TaskTable) -> tuple[int, bool]:
        """Bytes that full tiles would write around the cache; do all of them lie as that needs?"""
        total, well = 0, True
        for call in np.flatnonzero(self._bytes).tolist():
            mine = (table.leaf[: table.count] == call) & (table.kernel[: table.count] >= 0)
            total += int(self._bytes[call]) * int(np.count_nonzero(mine))
            for param, itemsize in self._params[call]:
                first = TILE_WORDS * param
                address, row, col = table.args[: table.count, first : first + 3][mine].T
                well = well and not ((address | row) % ALIGNMENT).any() and bool((col == itemsize).all())
        return total, well

    def pays(self, written: int, well: bool) -> bool:
        """Are so many bytes more better off around the cache? They count as written in this run.

        written, well  as `results` gives them
        """
        self.written += written
        if not well or self.written < cache_bytes():
            return False
        self._ever += written
        return self._ever >= _WORTH_MAKING
