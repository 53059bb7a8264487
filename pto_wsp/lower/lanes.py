"""The lanes of a pass over a row: which ones exist, and how they are loaded and stored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pto_wsp.lower import ir
from pto_wsp.lower.algebra import IR_TYPES, Algebra, Lanes
from pto_wsp.lower.loops import LANES, LoopProgram
from pto_wsp.lower.operands import Operands, View
from pto_wsp.lower.vectors import I1, I32, I64, Target
from pto_wsp.trace.graph import Node
from pto_wsp.types import DType


@dataclass
class Lane:
    """Where code is being written: the pass of a row, and which of its lanes exist."""

    k: Algebra
    nest: int
    stage: int  # -1: row scalars before the first pass
    row: Any  # index of the row; None in a flipped nest
    col: Any = None  # index of the first lane's column; None for row scalars
    mask: Lanes | None = None  # lanes that exist; None: all
    count: Any = None  # how many exist, with a mask
    values: dict[int, Lanes] = field(default_factory=dict)
    pairs: dict[int, list[tuple[Lane, Lanes]]] = field(default_factory=dict)  # id(Interleave) -> its two results


class InLanes(Operands):
    """The function of a kernel as far as memory goes."""

    def __init__(self, program: LoopProgram, function: ir.Function, tail: bool, target: Target):
        super().__init__(program, function, tail, target)
        self.features = target.features
        self.wide = Algebra(self.build, LANES, self.features)
        self.algebras = {LANES: self.wide}

    def algebra(self, lanes: int) -> Algebra:
        return self.algebras.setdefault(lanes, Algebra(self.build, lanes, self.features))

    @contextmanager
    def turns(self, count: int, step: int) -> Iterator[Any]:
        """`count` turns of a loop whose index grows by `step`; one turn needs no loop."""
        if count == 1:
            yield I64(0)
            return
        with self.loop(I64(0), I64(count * step), step) as index:
            yield index

    def at_column(self, lane: Lane, pointer: Any, dtype: DType) -> Any:
        return self.build.gep(pointer, [lane.col], source_etype=IR_TYPES[dtype])

    def row_of(self, lane: Lane, view: View, rows: int) -> Any:
        """Address of the row that the pass is in; tiles of one row have the same for every row."""
        if lane.row is None or rows == 1:
            return view.address
        return self.move(view.address, self.build.mul(lane.row, view.rows))

    def read(self, lane: Lane, node: Node, view: View, dtype: DType) -> Lanes:
        pointer = self.at_column(lane, self.row_of(lane, view, node.tile.rows), dtype)
        return lane.k.widen(self.load_lanes(lane, pointer, dtype))

    def put(self, lane: Lane, view: View, value: Lanes, node: Node, dtype: DType | None = None) -> None:
        dtype = dtype or node.tile.dtype
        pointer = self.at_column(lane, self.row_of(lane, view, node.tile.rows), dtype)
        self.store_lanes(lane, value, pointer, dtype)

    def load_lanes(self, lane: Lane, pointer: Any, dtype: DType) -> Lanes:
        return lane.k.load(pointer, dtype, mask=lane.mask)

    def store_lanes(self, lane: Lane, value: Lanes, pointer: Any, dtype: DType) -> None:
        value = lane.k.convert(value, dtype)
        if lane.mask is not None and isinstance(lane.count, ir.Constant):
            self.store_first(value.ir, pointer, dtype, lane.count.constant)
        else:
            lane.k.store(value, pointer, mask=lane.mask)

    def store_first(self, vector: Any, pointer: Any, dtype: DType, count: int) -> None:
        """The first `count` lanes, in pieces of 8, 4, 2 and 1.

        Not a masked store: LLVM 22 stores a lane as wide as before its truncation when a constant mask has one lane.
        """
        at, width = 0, LANES
        while at < min(count, LANES):
            while at + width > min(count, LANES):
                width //= 2
            here = self.build.gep(pointer, [I64(at)], source_etype=IR_TYPES[dtype])
            if width == 1:
                piece = self.build.extract_element(vector, I32(at))
            else:
                piece = self.build.lanes(vector, at, width)
            self.build.store(piece, here, align=dtype.itemsize)
            at += width

    def first_lanes(self, count: Any) -> Lanes:
        """A mask of the first `count` lanes."""
        wide = self.wide.splat(self.build.trunc(count, I32), DType.I32)
        return Lanes(self.build.icmp_signed("<", ir.numbers(LANES), wide.ir), None)


def first_lanes(count: int) -> Lanes:
    """A mask of the first `count` lanes."""
    return Lanes(ir.Constant(ir.VectorType(I1, LANES), [int(i < count) for i in range(LANES)]), None)
