"""Layouts: how a tensor is spread over a mesh of devices (dist) and laid out in each one's memory (mem).

A layout is metadata. It moves nothing; the type checker joins the layouts of the tensors that a kernel
combines, and `relayout` and the collectives state a change of layout. Per dimension, R (replicated) joins
with anything, and S(k) (sharded along mesh axis k) with itself:

    R v x = x        S(i) v S(i) = S(i)        S(i) v S(j) = error for i != j
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pto_wsp.arguments import as_int, instance, integer, integers
from pto_wsp.errors import LayoutIncompatibleError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pto_wsp.types import Tensor

__all__ = [
    "DistElem",
    "Layout",
    "LayoutCompatibilityError",
    "LayoutIncompatibleError",
    "LayoutReplicate",
    "LayoutShard",
    "MemLayout",
    "Replicate",
    "Shard",
    "TensorLayout",
    "TensorReplicate",
    "TensorShard",
    "allgather",
    "allreduce",
    "layout_join",
    "reduce_scatter",
    "relayout",
    "tensor_layout_join",
]

MOST_DIMENSIONS = 64  # of an array of NumPy
REDUCTIONS = ("sum", "max", "min", "mean")


# ---------------------------------------------------------------------------------------------- memory


@dataclass(frozen=True, repr=False)
class MemLayout:
    """How one device stores its part. None means not specified.

    strides   elements between neighbours, per dimension
    order     dimensions from the slowest to the fastest varying
    swizzle   name of, or parameters for, an address permutation
    pack      elements packed into one word

    Layouts are values: equal when they say the same, usable as keys whatever swizzle and pack are.
    """

    strides: tuple[int, ...] | None = None
    order: tuple[int, ...] | None = None
    swizzle: Any = field(default=None, hash=False)
    pack: Any = field(default=None, hash=False)

    def __post_init__(self) -> None:
        for name in ("strides", "order"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, integers(value, f"{name} of a MemLayout"))
        if self.order is not None and sorted(self.order) != list(range(len(self.order))):
            raise ValueError(f"order {self.order} does not name each dimension 0 to {len(self.order) - 1} once")
        if self.strides is not None and self.order is not None and len(self.strides) != len(self.order):
            raise ValueError(f"strides {self.strides} and order {self.order} speak of different ranks")

    @property
    def rank(self) -> int | None:
        """Number of dimensions that strides or order name; None when neither is set."""
        named = self.strides if self.strides is not None else self.order
        return None if named is None else len(named)

    def compose(self, other: MemLayout) -> MemLayout:
        """Field by field the other's value where it has one, else this one's."""
        instance(other, MemLayout, "what a MemLayout is composed with")
        return MemLayout(
            other.strides or self.strides,
            other.order or self.order,
            other.swizzle or self.swizzle,
            other.pack or self.pack,
        )

    def permute(self, perm: Sequence[int]) -> MemLayout:
        """The layout of the transposed tensor, whose dimension i is this one's dimension perm[i]."""
        if self.rank is None:
            return self
        perm = integers(perm, "the permutation")
        if sorted(perm) != list(range(self.rank)):
            raise ValueError(f"permute({perm}) is no permutation of the {self.rank} dimensions of {self!r}")
        strides = None if self.strides is None else tuple(self.strides[p] for p in perm)
        order = None if self.order is None else tuple(perm.index(d) for d in self.order)
        return replace(self, strides=strides, order=order)

    def tile(self, tile_shape: Sequence[int]) -> MemLayout:
        """The layout of the tensor seen as a grid of tiles: dimensions (grid..., tile...), twice the rank."""
        if self.rank is None:
            return self
        tile_shape = integers(tile_shape, "the shape of a tile")
        if len(tile_shape) != self.rank or any(n < 1 for n in tile_shape):
            raise ValueError(
                f"tile({tile_shape}) needs {self.rank} positive sizes, one per dimension of {self!r}"
            )
        strides = self.strides and (
            *(s * n for s, n in zip(self.strides, tile_shape, strict=True)),
            *self.strides,
        )
        order = self.order and (*self.order, *(d + len(self.order) for d in self.order))
        return replace(self, strides=strides, order=order)

    def keep(self, dims: Sequence[int]) -> MemLayout:
        """The layout of a view that keeps these dimensions and has an index in each other one."""
        dims = _dimensions(dims, self.rank)
        strides = None if self.strides is None else tuple(self.strides[d] for d in dims)
        order = None if self.order is None else tuple(dims.index(d) for d in self.order if d in dims)
        return replace(self, strides=strides, order=order)

    @staticmethod
    def row_major(shape: Sequence[int]) -> MemLayout:
        """C order: the last dimension is contiguous. (5, 7) -> strides (7, 1)."""
        shape = integers(shape, "a shape")
        return MemLayout(_row_major_strides(shape), tuple(range(len(shape))))

    @staticmethod
    def col_major(shape: Sequence[int]) -> MemLayout:
        """Fortran order: the first dimension is contiguous. (5, 7) -> strides (1, 5)."""
        shape = integers(shape, "a shape")
        return MemLayout(_row_major_strides(shape[::-1])[::-1], tuple(range(len(shape)))[::-1])

    def __repr__(self) -> str:
        fields = ((name, getattr(self, name)) for name in ("strides", "order", "swizzle", "pack"))
        return f"MemLayout({', '.join(f'{name}={value}' for name, value in fields if value is not None)})"


def _row_major_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * size)
    return tuple(reversed(strides)) if shape else ()


# ---------------------------------------------------------------------------------------------- distribution


class DistElem:
    """How one dimension is distributed: TensorReplicate or TensorShard."""

    __slots__ = ()


@dataclass(frozen=True, repr=False)
class TensorReplicate(DistElem):
    """Every device holds the whole dimension."""

    def __repr__(self) -> str:
        return "R"


@dataclass(frozen=True, repr=False)
class TensorShard(DistElem):
    """The dimension is cut into parts along one axis of the mesh."""

    mesh_axis: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "mesh_axis", integer(self.mesh_axis, "a mesh axis", 0))

    def __repr__(self) -> str:
        return f"S({self.mesh_axis})"


@dataclass(frozen=True)
class TensorLayout:
    """Distribution of each dimension, and optionally the memory layout.

    dist   one DistElem per dimension
    mem    None when not specified
    """

    dist: tuple[DistElem, ...]
    mem: MemLayout | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.dist, (tuple, list)) or not all(isinstance(d, DistElem) for d in self.dist):
            raise TypeError(
                f"dist is a tuple of TensorReplicate() and TensorShard(k), one per dimension; got {self.dist!r}"
            )
        if self.mem is not None and not isinstance(self.mem, MemLayout):
            raise TypeError(f"mem is a MemLayout or None; got {self.mem!r}")
        object.__setattr__(self, "dist", tuple(self.dist))
        if self.mem is not None and self.mem.rank not in (None, len(self.dist)):
            raise ValueError(f"dist {self.dist} has {len(self.dist)} dimensions, {self.mem!r} has {self.mem.rank}")

    @staticmethod
    def default(rank: int) -> TensorLayout:
        """All dimensions replicated."""
        return TensorLayout((TensorReplicate(),) * integer(rank, "the rank of a tensor", 0, MOST_DIMENSIONS))

    @staticmethod
    def sharded(dim: int, rank: int, mesh_axis: int = 0) -> TensorLayout:
        """One dimension sharded; a negative `dim` counts from the end. IndexError when out of range."""
        replicated, dim = TensorLayout.default(rank), integer(dim, "a dimension")
        if not -rank <= dim < rank:
            raise IndexError(f"dimension {dim} is outside a tensor of rank {rank}")
        return TensorLayout(_with(replicated.dist, dim % rank, TensorShard(mesh_axis)))

    @property
    def rank(self) -> int:
        """Number of dimensions of the tensor."""
        return len(self.dist)

    def is_replicated(self) -> bool:
        """Is no dimension sharded?"""
        return not self.sharded_dims()

    def sharded_dims(self) -> list[int]:
        """The sharded dimensions, ascending."""
        return [d for d, element in enumerate(self.dist) if isinstance(element, TensorShard)]

    def keep(self, dims: Sequence[int]) -> TensorLayout:
        """The layout of a view that keeps these dimensions."""
        dims = _dimensions(dims, self.rank)
        return TensorLayout(tuple(self.dist[d] for d in dims), self.mem and self.mem.keep(dims))


def _dimensions(dims: Any, rank: int | None) -> tuple[int, ...]:
    """Which dimensions a view keeps. raises IndexError for one that the tensor lacks"""
    numbers = integers(dims, "the dimensions to keep")
    if rank is not None and not all(0 <= d < rank for d in numbers):
        raise IndexError(f"dimensions {numbers} of a tensor of rank {rank}")
    return numbers


def _with(dist: tuple[DistElem, ...], dim: int, element: DistElem) -> tuple[DistElem, ...]:
    return (*dist[:dim], element, *dist[dim + 1 :])


def _sharded_twice(dist: Iterable[DistElem]) -> int | None:
    """A mesh axis that cuts two dimensions, if there is one."""
    seen: set[int] = set()
    for element in dist:
        if isinstance(element, TensorShard):
            if element.mesh_axis in seen:
                return element.mesh_axis
            seen.add(element.mesh_axis)
    return None


def tensor_layout_join(a: TensorLayout, b: TensorLayout) -> TensorLayout:
    """The layout in which both can be combined element by element.

    Per dimension R joins with anything and S(i) with S(i). Memory layouts: whichever is set, and
    `a.mem.compose(b.mem)` when both are.

    raises  LayoutIncompatibleError for S(i) beside S(j), for unequal ranks, and when one mesh axis would cut
            two dimensions
    """
    for layout in (a, b):
        instance(layout, TensorLayout, "what a layout is joined with")
    if a.rank != b.rank:
        raise LayoutIncompatibleError(f"layouts of rank {a.rank} and {b.rank} have no join: {a.dist} and {b.dist}")
    dist = tuple(_join(a, b, dim) for dim in range(a.rank))
    twice = _sharded_twice(dist)
    if twice is not None:
        raise LayoutIncompatibleError(
            f"joining {a.dist} with {b.dist} would cut two dimensions along mesh axis {twice}; "
            "relayout one of them first"
        )
    mem = a.mem.compose(b.mem) if a.mem is not None and b.mem is not None else a.mem or b.mem
    return TensorLayout(dist, mem)


def _join(a: TensorLayout, b: TensorLayout, dim: int) -> DistElem:
    left, right = a.dist[dim], b.dist[dim]
    if isinstance(left, TensorReplicate) or left == right:
        return right
    if isinstance(right, TensorReplicate):
        return left
    raise LayoutIncompatibleError(
        f"dimension {dim} cannot be both {left} and {right}: {a.dist} and {b.dist} have no join; "
        "relayout one of them first"
    )


# ------------------------------------------------------------------------------------------ changes of layout


def relayout(tensor: Tensor, to: TensorLayout) -> Tensor:
    """The tensor in another layout. Same data, same view."""
    layout = _layout_of(tensor, "relayout")
    if not isinstance(to, TensorLayout):
        raise TypeError(f"relayout(tensor, to) needs a TensorLayout; got {to!r}")
    if to.rank != layout.rank:
        raise ValueError(f"relayout: a tensor of rank {layout.rank} cannot have the layout {to.dist} of rank {to.rank}")
    return tensor.with_layout(to)


def allreduce(tensor: Tensor, mesh_axis: int, op: str = "sum") -> Tensor:
    """Reduce over one mesh axis: afterwards no dimension is sharded along it. op: sum, max, min, mean."""
    layout, mesh_axis = _layout_of(tensor, "allreduce"), integer(mesh_axis, "a mesh axis", 0)
    _check_reduction("allreduce", op)
    dist = tuple(TensorReplicate() if d == TensorShard(mesh_axis) else d for d in layout.dist)
    return tensor.with_layout(TensorLayout(dist, layout.mem))


def allgather(tensor: Tensor, dim: int, mesh_axis: int) -> Tensor:
    """Collect a dimension that is sharded along `mesh_axis`: afterwards it is replicated."""
    layout, mesh_axis = _layout_of(tensor, "allgather"), integer(mesh_axis, "a mesh axis", 0)
    dim = _dimension("allgather", dim, layout)
    if layout.dist[dim] != TensorShard(mesh_axis):
        raise ValueError(f"allgather: dimension {dim} of {layout.dist} is not S({mesh_axis})")
    return tensor.with_layout(TensorLayout(_with(layout.dist, dim, TensorReplicate()), layout.mem))


def reduce_scatter(tensor: Tensor, dim: int, mesh_axis: int, op: str = "sum") -> Tensor:
    """Reduce over `mesh_axis` and shard a replicated dimension along it. op: sum, max, min, mean."""
    layout, mesh_axis = _layout_of(tensor, "reduce_scatter"), integer(mesh_axis, "a mesh axis", 0)
    _check_reduction("reduce_scatter", op)
    dim = _dimension("reduce_scatter", dim, layout)
    if not isinstance(layout.dist[dim], TensorReplicate):
        raise ValueError(f"reduce_scatter: dimension {dim} of {layout.dist} is sharded already; it must be R")
    if TensorShard(mesh_axis) in layout.dist:
        raise ValueError(f"reduce_scatter: mesh axis {mesh_axis} is in use already in {layout.dist}")
    return tensor.with_layout(TensorLayout(_with(layout.dist, dim, TensorShard(mesh_axis)), layout.mem))


def _layout_of(tensor: Any, operation: str) -> TensorLayout:
    layout = getattr(tensor, "layout", None)
    if not isinstance(layout, TensorLayout):
        raise TypeError(f"{operation} needs a Tensor; got {type(tensor).__name__}")
    return layout


def _check_reduction(operation: str, op: Any) -> None:
    if not isinstance(op, str) or op not in REDUCTIONS:
        raise ValueError(f"{operation}: unknown op {op!r}; use one of {', '.join(REDUCTIONS)}")


def _dimension(operation: str, dim: Any, layout: TensorLayout) -> int:
    number = as_int(dim)
    if number is None or not -layout.rank <= number < layout.rank:
        raise ValueError(f"{operation}: dimension {dim!r} is outside a tensor of rank {layout.rank}")
    return number % layout.rank


# Other spellings of the same objects.
Shard = LayoutShard = TensorShard
Replicate = LayoutReplicate = TensorReplicate
Layout = TensorLayout
LayoutCompatibilityError = LayoutIncompatibleError
layout_join = tensor_layout_join
