"""Tensor and its views.

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
from typing import Any

import numpy as np
import numpy.typing as npt

from pto_wsp.arguments import as_int, is_sequence
from pto_wsp.dtypes import DType, Location
from pto_wsp.errors import TensorError, UsageError
from pto_wsp.layout import TensorLayout
from pto_wsp.scalar_expr import Expr, LoopVar, as_expr, constant_of, linear_form, same_expr

__all__ = ["Index", "Range", "Tensor"]

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
