"""A KernelGraph on NumPy arrays, node by node: the living definition that machine code is tested against.

Nothing here is fast or clever. A row's `reference` says what an op does to numbers; this file says in which precision
it is asked, how its result is rounded, and when memory is read and written:

  F16, BF16       computed in F32, every op's result rounded to the tile's dtype
  tolerance 0     computed in the tile's own dtype: machine code has to give the same bits
  tolerance not 0 computed in F64 (F64 tiles in long double), rounded once: machine code has to come this close
  partial tiles   a tile holds its valid elements only; what an op makes from nothing, or repeats, has the valid extents
                  of those it is used with (execution.md 5)

Start reading at `interpret`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pto_wsp.errors import ExecutionError
from pto_wsp.trace import custom
from pto_wsp.trace.extents import MADE_WHOLE, Extents, Source, extents_of, is_elementwise
from pto_wsp.trace.graph import KernelGraph, Node, Number, number_as
from pto_wsp.trace.ops import ref_cast
from pto_wsp.types import DType, TileType

Array = NDArray[Any]


def interpret(graph: KernelGraph, arrays: Sequence[Array], scalars: Sequence[Number] = (),
              observe: Callable[[Node, Array], None] | None = None) -> None:
    """Run one task of `graph`; stores write into the arrays.

    arrays    one per tile parameter, in signature order: [valid rows, valid columns], of the parameter's dtype, of any
              strides; smaller than the tile at the ragged end of an axis, never larger
    scalars   one per scalar parameter, in signature order; converted like constants
    observe   is shown every value as it is made
    raises    ExecutionError when arrays do not fit the parameters or each other, before anything is written
    """
    arrays = tuple(np.asarray(a) for a in arrays)
    run = Run(graph, arrays, scalars)
    if graph.custom is not None:
        custom.call(graph, arrays, scalars)
        return
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            value = run.node(node)
            if value is not None and observe is not None:
                observe(node, value)


def task_cycles(graph: KernelGraph, arrays: Sequence[Array]) -> int:
    """Cycles of a task of `graph` on these arrays (execution.md 2 and 5)."""
    total = 0
    for term in graph.cycles():
        cycles = term.coefficient
        for extent in term.extents:
            cycles *= _valid(extent.sources, arrays) if extent.sources else extent.static
        total += cycles
    return total


def apply(node: Node, operands: Sequence[Array], shape: tuple[int, ...] | None = None) -> Array:
    """The value of a node that computes: its row's reference, in the row's precision, rounded to the node's dtype.

    shape   valid extents of the result, for ops that are given a shape
    """
    op = node.op
    assert op.reference is not None and node.type is not None, f"{op.name} has no reference"
    exact = op.tolerance == 0
    attrs = dict(node.attrs)
    if shape is not None and "shape" in attrs:
        attrs["shape"] = shape
    with np.errstate(all="ignore"):
        result = op.reference(*(_widened(x, exact) for x in operands), **attrs)
        return np.array(ref_cast(result, node.type.dtype), order="C")


def as_scalar(value: Number, dtype: DType) -> Array:
    """A Python number as a 0-d array: converted as pto.constant does, and as an argument word carries it."""
    with np.errstate(all="ignore"):
        if isinstance(value, int) and dtype.is_int:
            return np.array(value & (2 ** dtype.bits - 1), f"u{dtype.itemsize}").view(dtype.numpy)
        if isinstance(value, int) and -2 ** 63 <= value < 2 ** 64:
            return np.asarray(ref_cast(np.asarray(value), dtype))           # rounded once
        return np.asarray(ref_cast(np.float64(number_as(value, DType.F64)), dtype))


class Run:
    """One task: the values made so far."""

    def __init__(self, graph: KernelGraph, arrays: Sequence[Array], scalars: Sequence[Number]) -> None:
        self.graph = graph
        self.arrays = arrays
        self.memory: dict[int, Array] = {}                  # id of a tile parameter's handle -> the caller's elements
        self.values: dict[int, Array] = {}                  # id of a node -> its valid elements
        self._bind(scalars)
        tail = any(a.shape != (p.node.tile.rows, p.node.tile.cols)
                   for a, p in zip(arrays, graph.tile_params, strict=True))
        self.extents: Extents | None = extents_of(graph) if tail else None
        if self.extents is not None:
            check_extents(graph, self.extents, arrays)

    def _bind(self, scalars: Sequence[Number]) -> None:
        graph, tiles = self.graph, self.graph.tile_params
        if len(self.arrays) != len(tiles) or len(scalars) != len(graph.scalar_params):
            raise ExecutionError(f"kernel {graph.name} takes {len(tiles)} arrays and {len(graph.scalar_params)} "
                                 f"scalars; got {len(self.arrays)} and {len(scalars)}.", kernel_name=graph.name)
        for param, array in zip(tiles, self.arrays, strict=True):
            check_array(graph.name, param.name, param.node.tile, array)
            self.memory[id(param.node)] = array
        for param, value in zip(graph.scalar_params, scalars, strict=True):
            self.values[id(param.node)] = as_scalar(value, param.type.dtype)

    def node(self, node: Node) -> Array | None:
        name = node.op.name
        if name in ("param", "add_cycles"):
            return None
        if name == "store":
            dst, src = node.operands
            target = self.memory[id(dst)]
            target[...] = self._used(src, target.shape)
            return None
        if id(node) not in self.values:                     # scalar parameters are there from the beginning
            self.values[id(node)] = self._value(node)
        return self.values[id(node)]

    def _value(self, node: Node) -> Array:
        if node.op.name == "load":
            return np.array(self.memory[id(node.operands[0])], order="C")
        if node.op.name == "constant":
            assert node.type is not None
            return as_scalar(node.attrs["value"], node.type.dtype)
        if node.op.name == "tsort32":                       # works on whole rows: missing scores are -inf, indices 0
            return apply(node, [self._padded(x, fill) for x, fill in zip(node.operands, (-np.inf, 0), strict=True)])
        if node.op.name == "extract_topk_indices":
            return apply(node, [self._padded(node.operands[0], 0)])
        if node.op.name in MADE_WHOLE:
            return apply(node, [])
        shape = self._shape(node)
        return apply(node, [self._used(x, self._read(x, node, shape)) for x in node.operands], shape)

    def _read(self, operand: Node, user: Node, shape: tuple[int, ...]) -> tuple[int, ...]:
        """How much of an operand the user reads, to make a result of this shape."""
        if not operand.is_tile or not is_elementwise(user):
            return self._shape(operand)
        sizes = zip((operand.tile.rows, operand.tile.cols), (user.tile.rows, user.tile.cols), shape, strict=True)
        return tuple(valid if own == whole else 1 for own, whole, valid in sizes)

    def _shape(self, node: Node) -> tuple[int, ...]:
        """Valid rows and columns of a node's value; () for a scalar."""
        if not isinstance(node.type, TileType):
            return ()
        if self.extents is None:
            return node.tile.rows, node.tile.cols
        found = [self.extents.of(node, axis) for axis in (0, 1)]
        return tuple(_valid(e.sources, self.arrays) if e.sources else e.static for e in found)

    def _used(self, node: Node, shape: tuple[int, ...]) -> Array:
        """The value of an operand, cut to the elements that are used; what is made whole has more."""
        return self.values[id(node)][tuple(slice(n) for n in shape)]

    def _padded(self, node: Node, fill: float) -> Array:
        value = self.values[id(node)]
        whole = np.full((node.tile.rows, node.tile.cols), fill, value.dtype)
        whole[:value.shape[0], :value.shape[1]] = value
        return whole


def _widened(x: Array, exact: bool) -> Array:
    """F16 and BF16 as F32; then, for results that need not be bit-exact, everything as its wider brother."""
    if x.dtype.itemsize == 2 and x.dtype.kind not in "iu":
        x = x.astype(np.float32)
    if exact:
        return x
    if x.dtype.kind in "iu":
        return x.astype(np.int64)                           # sums wrap, whatever their signs
    return x.astype(np.float64 if x.dtype.itemsize == 4 else np.longdouble)


def _valid(sources: tuple[Source, ...], arrays: Sequence[Array]) -> int:
    return sources[0].value(arrays[sources[0].param].shape[sources[0].axis])


def check_array(kernel: str, name: str, tile: TileType, array: Array) -> None:
    """raises ExecutionError unless the array is the tile's dtype and rank, and no larger than it"""
    if array.ndim != 2 or array.dtype != tile.dtype.numpy:
        raise ExecutionError(f"kernel {kernel}: {name} is a {tile}; got an array {list(array.shape)} of {array.dtype}.",
                             kernel_name=kernel)
    if array.shape[0] > tile.rows or array.shape[1] > tile.cols:
        raise ExecutionError(f"kernel {kernel}: {name} is a {tile}; got an array of {list(array.shape)}, which is "
                             "larger.", kernel_name=kernel)


def check_extents(graph: KernelGraph, extents: Extents, arrays: Sequence[Array]) -> None:
    """raises ExecutionError when valid extents that have to agree do not, or a dimension of one element is empty"""
    for group in extents.constraints():
        found = [source.value(arrays[source.param].shape[source.axis]) for source in group]
        if len(set(found)) > 1:
            what = " and ".join(f"{n} {'columns' if s.axis else 'rows'} of {graph.tile_params[s.param].name}"
                                for s, n in zip(group, found, strict=True))
            raise ExecutionError(f"kernel {graph.name}: a partial tile does not fit the others: {what} have to agree.",
                                 kernel_name=graph.name)
    for source in extents.needed():
        if source.value(arrays[source.param].shape[source.axis]) == 0:
            name = graph.tile_params[source.param].name
            raise ExecutionError(f"kernel {graph.name}: {name} has 0 valid {'columns' if source.axis else 'rows'}, but "
                                 "the kernel needs the one it declares.", kernel_name=graph.name)


__all__ = ["apply", "as_scalar", "check_array", "check_extents", "interpret", "task_cycles"]
