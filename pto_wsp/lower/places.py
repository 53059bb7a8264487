"""Where arrays lie: all that addresses, bounds and overlaps are worked out from, without the arrays themselves.

A clock needs no data. A Place stands for an array where nothing is read or written: in a simulation of a program that
came as text, the arrays are in another process.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

__all__ = ["Place", "Placed", "address_of"]


@dataclass(frozen=True, slots=True)
class Place:
    """An array's address, shape, strides (bytes) and bytes per element. Never followed to memory."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    itemsize: int

    @staticmethod
    def of(array: Placed) -> Place:
        """The place of an array."""
        return Place(address_of(array), tuple(array.shape), tuple(array.strides), int(array.itemsize))

    def is_of(self, array: NDArray[Any]) -> bool:
        """Is it the place of this array?"""
        here = address_of(array) == self.address and array.itemsize == self.itemsize
        return here and array.shape == self.shape and array.strides == self.strides

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


Placed = NDArray[Any] | Place


def address_of(array: Placed) -> int:
    """Address of the element at index 0, 0, ..."""
    if isinstance(array, Place):
        return array.address
    try:
        # in a quarter of the time of the other
        return ctypes.addressof(_NOTHING.from_buffer(array))  # type: ignore[arg-type]
    except (TypeError, ValueError, BufferError):  # read-only, of any strides, of a type that buffers do not know
        return int(array.ctypes.data)


_NOTHING = ctypes.c_char * 0
