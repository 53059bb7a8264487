"""The words of a program's data: DType, Location, axes, Symbol, and Tensor with its views.

A `Tensor` names a numpy array; indexing one makes a view, which remembers a window into its root:

    X = Tensor(array, (8, 4, 16, 128), DType.F32)
    X[b][t]                       # b, t loop variables: a [16, 128] view
    X[b, t, :, 0:64]              # constant slices narrow it
    Y[i * 16 : (i + 1) * 16]      # a slice may move with a loop; its length must be constant

Nothing is read or written here. The window's indices are expressions, evaluated per task by the compiled
program.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache, cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from pto_wsp.arguments import as_int, is_sequence
from pto_wsp.errors import AxisError, TensorError, UsageError
from pto_wsp.layout import (
    DistElem,
    LayoutIncompatibleError,
    MemLayout,
    Replicate,
    Shard,
    TensorLayout,
    TensorReplicate,
    TensorShard,
    allgather,
    allreduce,
    reduce_scatter,
    relayout,
    tensor_layout_join,
)
from pto_wsp.scalar_expr import Expr, LoopVar, as_expr, constant_of, linear_form, same_expr

__all__ = [
    "Axis",
    "DType",
    "Dense",
    "DenseDyn",
    "DistElem",
    "Index",
    "LayoutIncompatibleError",
    "Location",
    "MemLayout",
    "Ragged",
    "Range",
    "Replicate",
    "ScalarType",
    "Shard",
    "Sparse",
    "SparseRow",
    "Symbol",
    "Tensor",
    "TensorLayout",
    "TensorReplicate",
    "TensorShard",
    "TileType",
    "allgather",
    "allreduce",
    "loop_axis",
    "reduce_scatter",
    "relayout",
    "tensor_layout_join",
]

IntArray = npt.NDArray[np.int64]


# ---------------------------------------------------------------------------------------------- element types


class DType(Enum):
    """Type of one element."""

    F16 = "f16"
    BF16 = "bf16"
    F32 = "f32"
    F64 = "f64"
    I8 = "i8"
    I16 = "i16"
    I32 = "i32"
    I64 = "i64"
    U8 = "u8"
    U16 = "u16"
    U32 = "u32"
    U64 = "u64"

    @property
    def numpy(self) -> np.dtype[Any]:
        """The numpy dtype, in the machine's byte order. Asking for bf16's imports ml_dtypes."""
        return _numpy_dtype(self)

    @staticmethod
    def from_numpy(dtype: npt.DTypeLike) -> DType:
        """The DType of a numpy dtype. TypeError when there is none."""
        found = _BY_NAME.get(np.dtype(dtype).name)
        if found is None or np.dtype(dtype) != found.numpy:
            raise TypeError(
                f"numpy dtype {np.dtype(dtype)!r} is no DType; known are {', '.join(d.value for d in DType)}"
            )
        return found

    @cached_property
    def bits(self) -> int:
        """Bits of one element."""
        return int(self.value.lstrip("fbiu"))

    @cached_property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self.bits // 8

    @cached_property
    def is_float(self) -> bool:
        """f16, bf16, f32 or f64?"""
        return "f" in self.value

    @cached_property
    def is_int(self) -> bool:
        """An integer, signed or unsigned?"""
        return not self.is_float

    @cached_property
    def is_signed(self) -> bool:
        """Can it hold negative numbers? True for floats."""
        return not self.value.startswith("u")

    __hash__ = object.__hash__  # that of Enum hashes the name each time, and compilers look things up by dtype

    def __str__(self) -> str:
        return str(self.value)


_NUMPY_NAMES = {
    DType.F16: "float16",
    DType.BF16: "bfloat16",
    DType.F32: "float32",
    DType.F64: "float64",
    **{d: d.value.replace("i", "int").replace("u", "uint") for d in DType if d.is_int},
}
_BY_NAME = {name: dtype for dtype, name in _NUMPY_NAMES.items()}


@cache
def _numpy_dtype(dtype: DType) -> np.dtype[Any]:
    if dtype is DType.BF16:
        import ml_dtypes

        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    return np.dtype(_NUMPY_NAMES[dtype])


class Location(Enum):
    """Where data lives: global memory, the L2 cache, a vector core's unified buffer, or a cube core's L1."""

    Global = "global"
    L2 = "l2"
    UB = "ub"
    L1 = "l1"


@dataclass(frozen=True)
class TileType:
    """Type of an on-chip tile. The dimensions are positive; a str stands for one that is not known yet."""

    rows: int
    cols: int
    dtype: DType = DType.F16
    location: Location = Location.UB

    def __post_init__(self) -> None:
        for name in ("rows", "cols"):
            object.__setattr__(self, name, _tile_dimension(name, getattr(self, name)))
        _check_dtype(self.dtype)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.rows, self.cols

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.rows * self.cols

    def __str__(self) -> str:
        return f"tile<{self.rows}x{self.cols}x{self.dtype}>"


@dataclass(frozen=True)
class ScalarType:
    """Type of one number inside a kernel."""

    dtype: DType

    def __post_init__(self) -> None:
        _check_dtype(self.dtype)

    def __str__(self) -> str:
        return self.dtype.value


def _tile_dimension(name: str, value: Any) -> Any:
    if isinstance(value, str) and value:
        return value
    number = as_int(value)
    if number is None:
        raise TypeError(f"{name} of a tile is an int; got {value!r}")
    if number < 1:
        raise ValueError(f"{name} of a tile is at least 1; got {number}")
    return number


def _check_dtype(dtype: Any) -> None:
    if not isinstance(dtype, DType):
        raise TypeError(f"dtype is a DType, such as DType.F32; got {dtype!r}")


# ---------------------------------------------------------------------------------------------- axes


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


@dataclass(frozen=True, repr=False)
class Symbol:
    """The value of a scalar kernel argument, looked up by name when the program runs."""

    sym: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "sym", str(self.sym))

    def __repr__(self) -> str:
        return f"Symbol({self.sym!r})"


# ---------------------------------------------------------------------------------------------- windows

Position = int | Expr
Bounds = tuple[Position, Position] | None


class _Entry:
    """Equality of window entries: expressions are equal when they are written alike."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and all(map(same_expr, self._values(), other._values()))

    def __hash__(self) -> int:
        return hash(tuple(map(str, self._values())))

    def _values(self) -> tuple[Any, ...]:
        position, extent, within = self._parts()
        return (position, extent, *(within or (None, None)))

    def _parts(self) -> tuple[Position, int, Bounds]:
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Index(_Entry):
    """One dimension of the root fixed at a position.

    within   lo <= at < hi has to hold, when the view was taken from a narrower one; None: the whole array
    """

    at: Position
    within: Bounds = None

    def _parts(self) -> tuple[Position, int, Bounds]:
        return self.at, 1, self.within


@dataclass(frozen=True, eq=False)
class Range(_Entry):
    """`extent` positions of one dimension of the root.

    start may be anything from 0 to the dimension's size, which a run checks; what lies past the end of the
    array is not there, so a tile bound to the view is partial.

    within   as for Index: lo <= start <= hi, and nothing at hi or beyond is there
    """

    start: Position
    extent: int
    within: Bounds = None

    def _parts(self) -> tuple[Position, int, Bounds]:
        return self.start, self.extent, self.within


# Inside a Tensor, None stands for a whole dimension: its extent follows the array when another one is bound.
_Window = tuple[Index | Range | None, ...]


def _plus(a: Position, b: Position) -> Position:
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    if isinstance(a, int) and a == 0:
        return b
    return a if isinstance(b, int) and b == 0 else as_expr(a) + b


def _least(a: Position, b: Position) -> Position:
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    return (as_expr(a) < b).where(a, b)


def _position(item: Any) -> Position | None:
    """An int or i64 expression that can index a dimension; None for objects of other kinds."""
    if isinstance(item, (Expr, LoopVar)):
        e = as_expr(item)
        if e.type == "bool":
            return None
        value = constant_of(e)
        return value if value is not None else e.cast_i64()
    return as_int(item)


def _bounds(entry: Index | Range | None) -> Bounds:
    """Where positions inside this dimension of a view have to stay."""
    if not isinstance(entry, Range):
        return None
    end = _plus(entry.start, entry.extent)
    return entry.start, end if entry.within is None else _least(end, entry.within[1])


def _fix(entry: Index | Range | None, extent: int, item: Any, axis: int) -> Index:
    """Dimension `axis` of a view, `extent` long, at one index."""
    at = _position(item)
    if at is None:
        raise TypeError(f"a tensor is indexed by ints, loop variables, expressions and slices; got {item!r}")
    start: Position = entry.start if isinstance(entry, Range) else 0
    if isinstance(at, int):
        if not -extent <= at < extent:
            raise IndexError(f"index {at} is outside dimension {axis}, which has {extent} elements")
        at %= extent
    return Index(_plus(start, at), _bounds(entry) if isinstance(at, Expr) or isinstance(start, Expr) else None)


def _narrow(entry: Index | Range | None, extent: int, part: slice, axis: int) -> Index | Range | None:
    """Dimension `axis` of a view, `extent` long, cut to a slice."""
    if part.step is not None and part.step != 1:
        raise ValueError(f"slice {_slice_text(part)} of dimension {axis}: only a step of 1 is supported")
    ends = [None if end is None else _position(end) for end in (part.start, part.stop)]
    if any(end is None and given is not None for end, given in zip(ends, (part.start, part.stop), strict=True)):
        raise TypeError(f"slice {_slice_text(part)} of dimension {axis}: ends are ints, loop variables or expressions")
    if ends == [None, None]:
        return entry
    start: Position = entry.start if isinstance(entry, Range) else 0
    if not any(isinstance(end, Expr) for end in ends):
        first, last, _ = slice(*ends).indices(extent)
        within = _bounds(entry) if isinstance(start, Expr) else None
        return Range(_plus(start, first), max(0, last - first), within)
    return Range(_plus(start, _or_zero(ends[0])), _length(ends, part, axis), _bounds(entry))


def _or_zero(start: Position | None) -> Position:
    return 0 if start is None else start


def _length(ends: list[Position | None], part: slice, axis: int) -> int:
    """The constant length of a slice with an expression in it."""
    if ends[1] is not None:
        form = linear_form(as_expr(ends[1]) - _or_zero(ends[0]))
        if form is not None and not form[0] and form[1] >= 0:
            return form[1]
    raise ValueError(
        f"slice {_slice_text(part)} of dimension {axis} has no constant length of 0 or more; "
        "write it like [i * 16 : (i + 1) * 16]"
    )


def _slice_text(part: slice) -> str:
    ends = ["" if end is None else str(end) for end in (part.start, part.stop)]
    return "[" + ":".join(ends + ([] if part.step is None else [str(part.step)])) + "]"


# ---------------------------------------------------------------------------------------------- tensors


class _Storage:
    """The array behind a root tensor and all tensors made from it."""

    __slots__ = ("data", "shape", "dtype")

    def __init__(self, data: npt.NDArray[Any] | None, shape: tuple[int, ...], dtype: DType) -> None:
        self.data, self.shape, self.dtype = data, shape, dtype


class Tensor:
    """A numpy array with its declared shape and dtype, or a window into one.

    data      numpy array of any strides, updated in place by a run; None: zeros, made when first needed
    shape     sequence of ints
    layout    TensorLayout of the same rank; replicated when omitted

    raises  TensorError (a TypeError and a ValueError) when data, shape, dtype and layout do not agree
    """

    __slots__ = ("_storage", "_root", "_window", "_index_exprs", "_layout", "location", "__weakref__")

    _storage: _Storage
    _root: Tensor
    _window: _Window
    _index_exprs: tuple[Any, ...]
    _layout: TensorLayout
    location: Location

    def __init__(
        self,
        data: npt.NDArray[Any] | None,
        shape: Sequence[int],
        dtype: DType,
        location: Location = Location.Global,
        layout: TensorLayout | None = None,
        base: Tensor | None = None,
        index_exprs: tuple[Any, ...] = (),
    ) -> None:
        if not isinstance(dtype, DType):
            raise TensorError(f"dtype of a Tensor is a DType, such as DType.F32; got {dtype!r}")
        if not isinstance(location, Location):
            raise TensorError(f"location of a Tensor is a Location, such as Location.Global; got {location!r}")
        dims = _shape(shape)
        if base is not None:
            self._become_view(data, dims, dtype, base, tuple(index_exprs))
        else:
            if index_exprs:
                raise TensorError("index_exprs without a base: a root tensor has no indices")
            _check_data(data, dims, dtype)
            self._storage = _Storage(data, dims, dtype)
            self._root, self._window, self._index_exprs = self, (None,) * len(dims), ()
            self._layout = TensorLayout.default(len(dims))
        self.location = location
        if layout is not None:
            self.layout = layout

    def _become_view(
        self, data: Any, shape: tuple[int, ...], dtype: DType, base: Tensor, index_exprs: tuple[Any, ...]
    ) -> None:
        if not isinstance(base, Tensor):
            raise TensorError(f"base of a Tensor is a Tensor; got {base!r}")
        view = base[index_exprs]
        if data is not None and data is not base.data:
            raise TensorError("a view has its base's data; give data=None or data=base.data")
        if view.shape != shape or view.dtype is not dtype:
            raise TensorError(f"base[{index_exprs}] is {view!r}, not a tensor of shape {shape} and dtype {dtype}")
        self._storage, self._root, self._window = view._storage, view._root, view._window
        self._index_exprs, self._layout = view._index_exprs, view._layout

    def _derived(self, window: _Window, index_exprs: tuple[Any, ...], layout: TensorLayout) -> Tensor:
        made = Tensor.__new__(Tensor)
        made._storage, made._window, made._index_exprs, made._layout = (
            self._storage,
            window,
            index_exprs,
            layout,
        )
        made.location = self.location
        made._root = made if self.is_root and not index_exprs else self._root
        return made

    # ---- the array

    @property
    def data(self) -> npt.NDArray[Any] | None:
        """The root's numpy array, or None before it is needed. Assignable on a root: same dtype and rank."""
        return self._storage.data

    @data.setter
    def data(self, data: npt.NDArray[Any] | None) -> None:
        self._check_root("data")
        if data is None:
            self._storage.data = None
            return
        _check_array(data, self.dtype)
        if data.ndim != len(self._storage.shape):
            raise TensorError(
                f"data of shape {data.shape} replaces data of shape {self._storage.shape}; the rank is fixed"
            )
        self._storage.data, self._storage.shape = data, data.shape

    def array(self) -> npt.NDArray[Any]:
        """The root's numpy array, zeros made now if there is none; a view's part of it when that is fixed.

        raises  TensorError when the shape was assigned and does not fit the data
                UsageError for a window that moves with a loop
        """
        store = self._storage
        if store.data is None:
            store.data = np.zeros(store.shape, store.dtype.numpy)
        if store.data.shape != store.shape:
            raise TensorError(f"the tensor was given the shape {store.shape}, its data has {store.data.shape}")
        if self.is_root:
            return store.data
        items = tuple(_numpy_item(entry, self) for entry in self.window)
        part: npt.NDArray[Any] = store.data[items + (...,)]  # the ... makes it an array, also for a single element
        return part

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        array = self.array()
        if copy or (dtype is not None and dtype != array.dtype):
            return np.array(array, dtype=dtype)
        return array

    # ---- description

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of the dimensions that remain. Assignable on a root; a run checks it against the data."""
        sizes = zip(self._window, self._storage.shape, strict=True)
        return tuple(size if e is None else e.extent for e, size in sizes if not isinstance(e, Index))

    @shape.setter
    def shape(self, shape: Sequence[int]) -> None:
        self._check_root("shape")
        dims = _shape(shape)
        if len(dims) != len(self._storage.shape):
            raise TensorError(f"shape {dims} replaces {self._storage.shape}; the rank of a tensor is fixed")
        self._storage.shape = dims

    @property
    def dtype(self) -> DType:
        """Of its elements; the same for all views of an array."""
        return self._storage.dtype

    @property
    def rank(self) -> int:
        """Number of dimensions that remain."""
        return len(self._kept())

    @property
    def layout(self) -> TensorLayout:
        """How it is distributed and laid out in memory; assignable."""
        return self._layout

    @layout.setter
    def layout(self, layout: TensorLayout) -> None:
        self._layout = self._checked_layout(layout)

    @property
    def is_root(self) -> bool:
        """Is it the tensor itself, and no view of one?"""
        return self._root is self

    @property
    def base(self) -> Tensor:
        """The root tensor that this one is a view of; a root itself."""
        return self._root

    @property
    def index_exprs(self) -> tuple[Any, ...]:
        """All indices applied since the root, in order: the very objects that were written in brackets."""
        return self._index_exprs

    @property
    def window(self) -> tuple[Index | Range, ...]:
        """One entry per dimension of the root: Index (the dimension is gone) or Range."""
        sizes = self._storage.shape
        return tuple(Range(0, sizes[d]) if e is None else e for d, e in enumerate(self._window))

    @property
    def exact_window(self) -> tuple[Index | Range | None, ...]:
        """As `window`, but None for a whole dimension, whose extent follows the array when another one is bound."""
        return self._window

    def with_window(self, window: Sequence[Index | Range | None]) -> Tensor:
        """The view of a root that has this `exact_window`."""
        self._check_root("window")
        if not is_sequence(window) or not all(e is None or isinstance(e, (Index, Range)) for e in window):
            raise TypeError(f"a window is a sequence of None, Index and Range, one per dimension; got {window!r}")
        entries = tuple(window)
        parts = tuple(
            slice(None) if e is None else e.at if isinstance(e, Index) else slice(e.start, _plus(e.start, e.extent))
            for e in entries
        )
        kept = [d for d, e in enumerate(entries) if not isinstance(e, Index)]
        return self._derived(entries, parts, self._layout.keep(kept))

    def nbytes(self) -> int:
        """Number of elements times bytes per element; 0 for shape ()."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize if self.shape else 0

    # ---- views

    def __getitem__(self, item: Any) -> Tensor:
        """A view. An int, loop variable or expression drops a dimension, a slice narrows it.

        raises  IndexError out of range and for more indices than dimensions
        """
        items = _expand(item if isinstance(item, tuple) else (item,), self.rank)
        window, kept, shape = list(self._window), self._kept(), self.shape
        for axis, one in enumerate(items):
            d = kept[axis]
            change = _narrow if isinstance(one, slice) else _fix
            window[d] = change(window[d], shape[axis], one, axis)
        remaining = [axis for axis in range(self.rank) if axis >= len(items) or isinstance(items[axis], slice)]
        return self._derived(tuple(window), self._index_exprs + items, self._layout.keep(remaining))

    def __iter__(self) -> Iterator[Tensor]:
        """The views self[0], self[1], ... of the first dimension."""
        if not self.shape:
            raise TypeError("a tensor of rank 0 cannot be iterated")
        return (self[i] for i in range(self.shape[0]))

    def slice(self, start: Any, end: Any) -> Tensor:
        """The view self[start:end] of the first dimension. IndexError for constant ends outside it."""
        if not self.shape:
            raise IndexError("a tensor of rank 0 cannot be sliced")
        ends = [_position(start), _position(end)]
        if None in ends:
            raise TypeError(f"slice(start, end) needs ints, loop variables or expressions; got {start!r}, {end!r}")
        if all(isinstance(e, int) for e in ends):
            first, last = (e + self.shape[0] if e < 0 else e for e in ends)  # type: ignore[operator]
            if not 0 <= first <= last <= self.shape[0]:  # type: ignore[operator]
                raise IndexError(f"slice({start}, {end}) is outside dimension 0, which has {self.shape[0]} elements")
            start, end = first, last
        return self[start:end]

    def with_layout(self, layout: TensorLayout) -> Tensor:
        """The same tensor or view, the same data, in another layout. The receiver stays as it is."""
        return self._derived(self._window, self._index_exprs, self._checked_layout(layout))

    # ---- inside

    def _kept(self) -> list[int]:
        """Dimensions of the root that this view still has."""
        return [d for d, entry in enumerate(self._window) if not isinstance(entry, Index)]

    def _check_root(self, what: str) -> None:
        if not self.is_root:
            raise UsageError(f"{what} of a view cannot be assigned; assign tensor.base.{what}")

    def _checked_layout(self, layout: Any) -> TensorLayout:
        if not isinstance(layout, TensorLayout):
            raise TensorError(f"layout is a TensorLayout; got {layout!r}")
        if layout.rank != self.rank:
            raise TensorError(
                f"a tensor of shape {self.shape} cannot have the layout {layout.dist} of rank {layout.rank}"
            )
        return layout

    def __repr__(self) -> str:
        text = "x".join([*map(str, self.shape), self.dtype.value])
        if self.is_root:
            return f"Tensor({text})"
        whole, window = "x".join(map(str, self._storage.shape)), ", ".join(map(_entry_text, self._window))
        return f"Tensor({text} = {whole}[{window}])"


def _entry_text(entry: Index | Range | None) -> str:
    if entry is None:
        return ":"
    return str(entry.at) if isinstance(entry, Index) else f"{entry.start}:{_plus(entry.start, entry.extent)}"


def _numpy_item(entry: Index | Range, tensor: Tensor) -> Any:
    at = entry.at if isinstance(entry, Index) else entry.start
    if not isinstance(at, int):
        raise UsageError(f"{tensor!r} moves with '{at}', so it has no array of its own; ask for base.array()")
    return at if isinstance(entry, Index) else slice(at, at + entry.extent)


def _expand(items: tuple[Any, ...], rank: int) -> tuple[Any, ...]:
    """Subscripts with `...` written out. IndexError for more than `rank` of them."""
    dots = [i for i, item in enumerate(items) if item is Ellipsis]
    given = len(items) - len(dots)
    if given > rank:
        raise IndexError(f"{given} indices for a tensor of rank {rank}")
    if len(dots) > 1:
        raise IndexError("a tensor index can have one '...' only")
    if not dots:
        return items
    return items[: dots[0]] + (slice(None),) * (rank - given) + items[dots[0] + 1 :]


def _shape(shape: Any) -> tuple[int, ...]:
    try:
        dims = [as_int(n) for n in shape]
    except TypeError:
        raise TensorError(f"shape is a sequence of ints; got {shape!r}") from None
    if any(n is None or n < 0 for n in dims):
        raise TensorError(f"shape is a sequence of ints, each 0 or more; got {shape!r}")
    return tuple(n for n in dims if n is not None)


def _check_data(data: Any, shape: tuple[int, ...], dtype: DType) -> None:
    if data is None:
        return
    _check_array(data, dtype)
    if data.shape != shape:
        raise TensorError(f"the tensor is declared with shape {shape}, its data has {data.shape}")


def _check_array(data: Any, dtype: DType) -> None:
    """Can machine code that expects this dtype work on the array?"""
    if not isinstance(data, np.ndarray):
        raise TensorError(f"data of a Tensor is a numpy array or None; got {type(data).__name__}")
    if type(data) is not np.ndarray and isinstance(data, np.ma.MaskedArray):  # np.ma is slow to import
        raise TensorError(
            "data of a Tensor is a masked array, whose mask would be ignored; fill it first with .filled(x)"
        )
    if data.dtype != dtype.numpy:
        raise TensorError(
            f"the tensor is declared {dtype}, its data is {data.dtype!r}; convert it with .astype({dtype.numpy.name!r})"
        )
    if not data.flags.aligned:
        raise TensorError(
            f"data of a Tensor has strides {data.strides} or an address that are no multiple of its element size, "
            f"{data.itemsize} bytes; copy it with np.array(...)"
        )
