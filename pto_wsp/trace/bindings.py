"""How tensor views become tiles, and which element a slot is loaded from: plain data, made once per node of the tree.

`lower` and `ascend` read the same bindings, so that a task has the same regions on the CPU and on the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pto_wsp.errors import CompileError
from pto_wsp.scalar_expr import Expr, LoopVar, constant_of
from pto_wsp.trace.graph import KernelGraph, Param
from pto_wsp.trace.tree import Loop, SlotLoad, TaskCall
from pto_wsp.types import Index, Range, Tensor

__all__ = ["Binding", "Dim", "Load", "RowUse", "bind", "element", "graph_of"]


@dataclass(frozen=True, eq=False)
class Binding:
    """How a tensor view becomes a tile: one entry per dimension of the base tensor."""

    param: Param
    tensor: int  # index into Expansion.tensors
    view: Tensor
    dims: tuple[Dim, ...]


@dataclass(frozen=True, eq=False)
class Dim:
    """One dimension of the base tensor under a tile.

    role     "rows" or "cols": the tile runs along it; "fixed": one position of it
    start    first position
    extent   positions from there that belong to the view; None: all that the array has
    within   lo, hi: the start lies between them, and what is at hi or beyond does not belong to the view
    """

    role: str
    start: int | Expr
    extent: int | None = None
    within: tuple[int | Expr, int | Expr] | None = None


@dataclass(frozen=True, eq=False)
class Load:
    """A slot_load_u64 of the tree: which element of which tensor."""

    node: SlotLoad
    loops: tuple[LoopVar, ...]  # the loops around it, outermost first
    tensor: int  # index into Expansion.tensors
    dims: tuple[Dim, ...]  # one per dimension of the base tensor, all "fixed"
    inside: tuple[tuple[int | Expr, int], ...]  # (index, extent) where a view is narrower than its array


@dataclass(frozen=True, eq=False)
class RowUse:
    """A loop over one row of a ragged or sparse axis."""

    loop: Loop
    loops: tuple[LoopVar, ...]


def element(node: SlotLoad, loops: tuple[LoopVar, ...], number: int) -> Load:
    """The element that a slot is loaded from: row and column along the view's first two dimensions."""
    offsets: list[int | Expr] = [node.row, node.col]
    dims, inside = [], []
    for axis, entry in enumerate(node.tensor.window):
        if isinstance(entry, Index):
            dims.append(Dim("fixed", entry.at, None, entry.within))
            continue
        offset = offsets.pop(0) if offsets else 0
        start = constant_of(entry.start)
        if start != 0 or entry.extent != node.tensor.base.shape[axis]:
            inside.append((offset, entry.extent))
        dims.append(Dim("fixed", offset if start == 0 else entry.start + offset, None, entry.within))
    return Load(node, loops, number, tuple(dims), tuple(inside))


def graph_of(call: TaskCall) -> KernelGraph:
    """The graph of a call's kernel under the call's constexpr values."""
    return call.kernel.graph_for(dict(call.args))


def bind(param: Param, view: Any, number: int, call: TaskCall) -> Binding:
    """A tensor view as a tile, checked as far as that is possible before the run.

    number  of the view's base among the tensors of the workload
    raises  CompileError, at the call's line
    """
    tile, name = param.node.tile, f"{call.kernel.name}: {param.name}"
    if view.dtype is not tile.dtype:
        raise CompileError(f"{name} is {tile}, but the tensor holds {view.dtype.value}.").at(call.line)
    roles = _roles(view, tile.rows, tile.cols)
    if roles is None:
        raise CompileError(
            f"{name} is {tile}, which a view of shape {tuple(view.shape)} does not fit; a tile takes two "
            "dimensions (one if it has a single row or column). Index the leading ones: X[i][j]."
        ).at(call.line)
    dims = []
    for axis, entry in enumerate(view.window):
        if isinstance(entry, Index):
            dims.append(Dim("fixed", entry.at, None, entry.within))
        else:
            whole = constant_of(entry.start) == 0 and entry.extent == view.base.shape[axis]
            dims.append(Dim(roles.pop(0), entry.start, None if whole else entry.extent, entry.within))
    return Binding(param, number, view, tuple(dims))


def _roles(view: Tensor, rows: int, cols: int) -> list[str] | None:
    """What each dimension of a view is to a tile; None when they do not fit."""
    shape = [entry.extent for entry in view.window if isinstance(entry, Range)]
    if len(shape) > 2 and all(n == 1 for n in shape[:-2]):
        return ["fixed"] * (len(shape) - 2) + ["rows", "cols"]
    if len(shape) == 2:
        return ["rows", "cols"]
    if len(shape) == 1 and (rows == 1 or cols == 1):
        return ["cols" if rows == 1 else "rows"]
    return [] if not shape and rows == cols == 1 else None
