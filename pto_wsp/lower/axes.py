"""Ragged and sparse axes: their data at the moment of a run, checked, and the loops over them as LLVM text.

The data of axis k are the words 4 k .. 4 k + 3 of `axis_data`:

    ragged   address of the lengths, sum of the lengths, number of rows, flag
    sparse   address of indptr, address of indices, number of rows, flag

When the flag is set, tasks of the program write to the axis: it is read again at the beginning of each loop over it,
after the tasks so far have run. Start reading at `data_of`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pto_wsp.errors import AxisError
from pto_wsp.lower import control
from pto_wsp.lower.expressions import Value
from pto_wsp.lower.lines import Lines
from pto_wsp.types import Ragged, Sparse, Tensor

__all__ = [
    "PARTS", "WORDS", "Values", "as_indices", "by_name", "data_of", "emit_all", "emit_flag", "emit_inside",
    "emit_refresh", "emit_row", "words_of",
]  # fmt: skip

WORDS = 4
PARTS: dict[type, tuple[str, ...]] = {Ragged: ("lengths",), Sparse: ("indptr", "indices")}
"""The arrays that an axis consists of."""

_MOST_INDEX = (1 << 31) - 1
_MOST_ITERATIONS = 1 << 40

_Int = NDArray[np.int64]


# ---- data --------------------------------------------------------------------------------------------------------


def as_indices(name: str, values: Any) -> NDArray[Any]:
    """A buffer that somebody gives for an axis: a list of integers, or a tensor of any shape, row by row.

    Arrays are not copied: what they hold counts when a run begins.
    raises  AxisError (a TypeError and a ValueError)
    """
    array = values.array().reshape(-1) if isinstance(values, Tensor) else np.asarray(values)
    if array.ndim != 1:
        raise AxisError(f"{name} is a list of ints; got an array of shape {array.shape}")
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise AxisError(f"{name} is a list of ints; got dtype {array.dtype}")
    return array


def data_of(axis: Ragged | Sparse, given: Mapping[str, Any], loop: str) -> tuple[_Int, ...]:
    """The arrays of an axis for one run, as int64: those given by name, else those of its constructor.

    given   "outer": number of rows; arrays by their names in PARTS
    loop    name of a loop over the axis, for messages
    raises  AxisError that names the entry which is wrong
    """
    kind = type(axis).__name__
    names = [f"{part} of {kind} axis of loop {loop!r}" for part in PARTS[type(axis)]]
    arrays = [
        as_indices(name, given.get(part, getattr(axis, part)))
        for name, part in zip(names, PARTS[type(axis)], strict=True)
    ]
    rows = int(given.get("outer", axis.outer_size))
    needed = rows + isinstance(axis, Sparse)
    if len(arrays[0]) < needed:
        raise AxisError(f"{names[0]} has {len(arrays[0])} entries; {rows:,} rows need {needed:,}")
    arrays[0] = arrays[0][:needed]
    for name, array in zip(names, arrays, strict=True):
        wrong = (array < 0) | (array > _MOST_INDEX)
        if wrong.any():
            at = int(np.argmax(wrong))
            raise AxisError(f"{name}: entry {at} is {array[at]}; entries are from 0 to 2**31 - 1")
    found = [array.astype(np.int64) for array in arrays]  # a copy: nobody else writes to it
    if isinstance(axis, Sparse):
        _check_pattern(names[0], found[0], len(found[1]))
    elif int(found[0].sum()) > _MOST_ITERATIONS:
        raise AxisError(f"{names[0]} add up to {int(found[0].sum()):,}; at most 2**40 iterations are possible")
    return tuple(found)


def by_name(axis: Ragged | Sparse, arrays: tuple[_Int, ...]) -> dict[str, Any]:
    """The arrays of `data_of`, as it takes them."""
    named: dict[str, Any] = dict(zip(PARTS[type(axis)], arrays, strict=True))
    return {**named, "outer": len(arrays[0]) - isinstance(axis, Sparse)}


def _check_pattern(name: str, indptr: _Int, indices: int) -> None:
    falls = np.diff(indptr) < 0
    if falls.any():
        at = int(np.argmax(falls))
        raise AxisError(f"{name} decreases from {indptr[at]} to {indptr[at + 1]} at entry {at + 1}")
    if indptr[-1] > indices:
        raise AxisError(f"{name} ends at {indptr[-1]}, but there are only {indices} indices")


def words_of(axis: Ragged | Sparse, arrays: tuple[_Int, ...], flag: bool) -> list[int]:
    """The words of an axis; the arrays have to live as long as they are used."""
    if isinstance(axis, Ragged):
        return [arrays[0].ctypes.data, int(arrays[0].sum()), len(arrays[0]), flag]
    return [arrays[0].ctypes.data, arrays[1].ctypes.data, len(arrays[0]) - 1, flag]


# ---- loops -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Values:
    """The values that a loop runs through: table[first + index], or the index itself where there is no table."""

    table: str = ""
    first: str = ""

    def keep(self, out: Lines, depth: int) -> None:
        """Before the loop of that depth: put away what each of its iterations needs."""
        if self.table:
            out.put(f"store ptr {self.table}, ptr %table{depth}")
            out.put(f"store i64 {self.first}, ptr %first{depth}")

    def at(self, out: Lines, index: str, depth: int) -> str:
        """Inside it: the value of an iteration."""
        if not self.table:
            return index
        table, first = out.value(f"load ptr, ptr %table{depth}"), out.value(f"load i64, ptr %first{depth}")
        place = out.value(f"add i64 {first}, {index}")
        return out.value(f"load i64, ptr {out.value(f'getelementptr i64, ptr {table}, i64 {place}')}")


def emit_refresh(out: Lines, number: int) -> None:
    """The beginning of a loop: read the axis again if tasks write to it."""
    refresh, stopped, fresh = out.label(), "stopped", out.label()
    out.branch(emit_flag(out, number), refresh, fresh)
    out.start(refresh)
    row = out.value("load i64, ptr %row")
    what = out.value(f"add i64 {out.datum(number)}, {control.REFRESH}")
    refused = out.value(f"call i64 @tell(ptr %control, ptr %tell, i64 {what}, i64 {row})")
    out.branch(out.value(f"icmp eq i64 {refused}, 0"), fresh, stopped)
    out.start(fresh)


def emit_flag(out: Lines, number: int) -> str:
    """An i1: tasks write to the axis."""
    return out.value(f"icmp ne i64 {_word(out, number, 3)}, 0")


def emit_all(out: Lines, axis: Ragged | Sparse, number: int) -> tuple[str, Values]:
    """Trip count and values of one flat loop over all rows."""
    if isinstance(axis, Ragged):
        return _word(out, number, 1), Values()
    indptr = _word(out, number, 0, "ptr")
    first, last = _entry(out, indptr, "0"), _entry(out, indptr, _word(out, number, 2))
    return out.value(f"sub i64 {last}, {first}"), Values(_word(out, number, 1, "ptr"), first)


def emit_inside(out: Lines, number: int, row: Value) -> str:
    """An i1: the axis has that row."""
    inside = out.value(f"icmp ult i64 {row.name}, {_word(out, number, 2)}")
    if row.overflow is None:
        return inside
    return out.value(f"and i1 {inside}, {out.value(f'xor i1 {row.overflow}, true')}")


def emit_row(out: Lines, axis: Ragged | Sparse, number: int, row: Value) -> tuple[str, Values]:
    """Trip count and values of a loop over one row that exists."""
    entries = _word(out, number, 0, "ptr")
    first = _entry(out, entries, row.name)
    if isinstance(axis, Ragged):
        return first, Values()
    last = _entry(out, entries, out.value(f"add i64 {row.name}, 1"))
    return out.value(f"sub i64 {last}, {first}"), Values(_word(out, number, 1, "ptr"), first)


def _word(out: Lines, number: int, word: int, kind: str = "i64") -> str:
    position = out.value(f"add i64 {out.datum(WORDS * number)}, {word}")
    return out.value(f"load {kind}, ptr {out.value(f'getelementptr i64, ptr %axis_data, i64 {position}')}")


def _entry(out: Lines, array: str, index: str) -> str:
    return out.value(f"load i64, ptr {out.value(f'getelementptr i64, ptr {array}, i64 {index}')}")
