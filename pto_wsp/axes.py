"""What loops run over: Dense, DenseDyn, Ragged, Sparse and their rows. An axis holds sizes and indices, no data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from pto_wsp.arguments import as_int
from pto_wsp.errors import AxisError
from pto_wsp.scalar_expr import Expr, LoopVar, as_expr

__all__ = ["Axis", "Dense", "DenseDyn", "Ragged", "RaggedRow", "Sparse", "SparseRow", "loop_axis"]

IntArray = npt.NDArray[np.int64]


class _DenseClass(type):
    """Makes `Dense[4]` a class of its own, one per size."""

    def __getitem__(cls, size: int) -> type[Dense]:
        if cls is not Dense:
            raise TypeError(f"{cls.__name__} has its size already; write Dense[{size!r}]")
        return _dense_class(_size(size, "Dense[{}]"))

    def __repr__(cls) -> str:
        return cls.__name__


class Dense(metaclass=_DenseClass):
    """An axis of a size known when the program is compiled: `Dense[6]()`. Zero is allowed.

    `Dense[6] is Dense[6]`. A negative or non-integer size raises AxisError.
    """

    size: int

    def __init__(self) -> None:
        if type(self) is Dense:
            raise TypeError("Dense() has no size; write Dense[n]()")

    def __reduce__(self) -> tuple[Any, ...]:
        return _make_dense, (self.size,)

    def __repr__(self) -> str:
        return f"Dense[{self.size}]()"


@cache
def _dense_class(size: int) -> type[Dense]:
    members = {"size": size, "__module__": __name__}
    return cast("type[Dense]", _DenseClass(f"Dense[{size}]", (Dense,), members))


def _make_dense(size: int) -> Dense:
    return _dense_class(size)()


class DenseDyn:
    """An axis whose size may change from run to run without compiling again.

    size   trip count of the next run; `Program.set_axis_sizes({loop name: n})` overrides it
    """

    __slots__ = ("_size", "__weakref__")

    def __init__(self, size: int) -> None:
        self.size = size

    @property
    def size(self) -> int:
        """Trip count of its loops, unless a program was given another; assignable."""
        return self._size

    @size.setter
    def size(self, size: int) -> None:
        self._size = _size(size, "DenseDyn({})")

    def __repr__(self) -> str:
        return f"DenseDyn({self.size})"


class Ragged:
    """Rows of different lengths, iterated as one flat loop over sum(lengths) elements.

    lengths   one per row, each 0 or more; stored as a read-only int64 array
    """

    __slots__ = ("outer_size", "lengths", "__weakref__")

    outer_size: int
    lengths: IntArray

    def __init__(self, outer_size: int, lengths: Sequence[int] | npt.NDArray[Any]) -> None:
        self.outer_size = _size(outer_size, "Ragged(outer_size={}, ...)")
        self.lengths = _indices("Ragged lengths", lengths)
        if len(self.lengths) != self.outer_size:
            raise AxisError(
                f"Ragged has {self.outer_size} rows but {len(self.lengths)} lengths; give one length per row"
            )

    def length(self, row: int) -> int:
        """Length of one row. IndexError when there is no such row."""
        return int(self.lengths[_row(row, self.outer_size, "Ragged")])

    def total(self) -> int:
        """Sum of all lengths: the trip count of the flat loop."""
        return int(self.lengths.sum())

    def __getitem__(self, row: Any) -> Any:
        """Length of one row, an int; for a loop variable or an expression a RaggedRow, for `P` and `P.seq`."""
        return RaggedRow(self, as_expr(row)) if isinstance(row, (LoopVar, Expr)) else self.length(row)

    def __iter__(self) -> Iterator[int]:
        return iter(self.lengths.tolist())

    def __repr__(self) -> str:
        return f"Ragged({self.outer_size}, {_few(self.lengths)})"


class Sparse:
    """A CSR pattern: row r holds the column ids indices[indptr[r]:indptr[r + 1]].

    indptr    outer_size + 1 positions into indices, never decreasing; the first need not be 0
    indices   column ids, each 0 or more; both are stored as read-only int64 arrays
    """

    __slots__ = ("outer_size", "indptr", "indices", "__weakref__")

    outer_size: int
    indptr: IntArray
    indices: IntArray

    def __init__(
        self, outer_size: int, indptr: Sequence[int] | npt.NDArray[Any], indices: Sequence[int] | npt.NDArray[Any]
    ) -> None:
        self.outer_size = _size(outer_size, "Sparse(outer_size={}, ...)")
        self.indptr = _indices("Sparse indptr", indptr)
        self.indices = _indices("Sparse indices", indices)
        if len(self.indptr) != self.outer_size + 1:
            raise AxisError(
                f"Sparse with {self.outer_size} rows needs {self.outer_size + 1} indptr entries; got {len(self.indptr)}"
            )
        if np.any(np.diff(self.indptr) < 0):
            at = int(np.argmax(np.diff(self.indptr) < 0))
            raise AxisError(
                f"Sparse indptr decreases from {self.indptr[at]} to {self.indptr[at + 1]} at entry {at + 1}"
            )
        if self.indptr[-1] > len(self.indices):
            raise AxisError(f"Sparse indptr ends at {self.indptr[-1]} but there are only {len(self.indices)} indices")

    def nnz(self) -> int:
        """Number of non-zeros in all rows."""
        return int(self.indptr[-1] - self.indptr[0])

    def row_nnz(self, row: int) -> int:
        """Number of non-zeros in one row. IndexError when there is no such row."""
        row = _row(row, self.outer_size, "Sparse")
        return int(self.indptr[row + 1] - self.indptr[row])

    def __getitem__(self, row: Any) -> Any:
        """Column ids of one row, a list that stays as it is; for an expression of loops a SparseRow, for `P.sel`."""
        if isinstance(row, (LoopVar, Expr)):
            return SparseRow(self, as_expr(row))
        row = _row(row, self.outer_size, "Sparse")
        return [int(n) for n in self.indices[self.indptr[row] : self.indptr[row + 1]]]

    def __repr__(self) -> str:
        return f"Sparse({self.outer_size}, {_few(self.indptr)}, {_few(self.indices)})"


@dataclass(frozen=True, eq=False)
class RaggedRow:
    """One row of a Ragged axis, the row known when the program runs: `P.seq(ragged[b])` has length(b) iterations."""

    ragged: Ragged
    row: Expr

    def __repr__(self) -> str:
        return f"{self.ragged!r}[{self.row}]"


@dataclass(frozen=True, eq=False)
class SparseRow:
    """One row of a Sparse axis, the row known when the program runs: `P.sel(sparse[b])`."""

    sparse: Sparse
    row: Expr

    def __repr__(self) -> str:
        return f"{self.sparse!r}[{self.row}]"

    def __iter__(self) -> Iterator[int]:
        raise TypeError(
            f"the row '{self.row}' is known only when the program runs; iterate with P.sel(sparse[{self.row}])"
        )


Axis = int | Dense | DenseDyn | Ragged | RaggedRow | Sparse | SparseRow


def loop_axis(axis: Any) -> Axis:
    """What a loop may run over: an int or what has __index__, `Dense[n]` with or without (), an axis object.

    raises  AxisError, a TypeError for objects of other kinds and a ValueError for negative sizes
    """
    if isinstance(axis, (Dense, DenseDyn, Ragged, RaggedRow, Sparse, SparseRow)):
        return axis
    if isinstance(axis, _DenseClass) and axis is not Dense:
        return _make_dense(axis.size)  # type: ignore[attr-defined]
    if as_int(axis) is None:
        raise AxisError(
            f"a loop cannot run over {axis!r} ({type(axis).__name__}); give an int, Dense[n](), DenseDyn(n), "
            "Ragged(...) or, in P.sel, Sparse(...)"
        )
    return _size(axis, "P({})")


def _size(value: Any, form: str) -> int:
    size = as_int(value)
    if size is None:
        raise AxisError(f"{form.format(repr(value))}: the size of an axis is an int; got {type(value).__name__}")
    if size < 0:
        raise AxisError(f"{form.format(size)}: the size of an axis is 0 or more")
    return size


def _indices(what: str, values: Any) -> IntArray:
    """A read-only int64 copy of a sequence of integers, each 0 or more."""
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise AxisError(f"{what} are a list of ints; got {values!r}")
    if array.size and (array.min() < 0 or int(array.max()) >= 1 << 63):
        at = int(np.argmax((array < 0) | (array.astype(np.float64) >= 2.0**63)))
        raise AxisError(f"{what} are 0 or more; entry {at} is {array[at]}")
    array = array.astype(np.int64)
    array.flags.writeable = False
    return array


def _row(row: Any, rows: int, kind: str) -> int:
    number = as_int(row)
    if number is None:
        raise TypeError(f"a row of a {kind} axis is an int; got {row!r}")
    if not -rows <= number < rows:
        raise IndexError(f"row {number} of a {kind} axis with {rows} rows")
    return number % rows


def _few(values: IntArray) -> str:
    shown = ", ".join(str(n) for n in values[:6])
    return f"[{shown}]" if len(values) <= 6 else f"[{shown}, ... {len(values)} in all]"
