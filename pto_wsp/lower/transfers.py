"""The code that copies [rows, cols] elements between any two strides; lower/copies.py says who calls it.

Vectors, where rows are contiguous on both sides; not the C library's memcpy, which takes its time with a few KB. Where
one side is the transpose of the other, square blocks are transposed in registers. Else elements are read one by one;
vectors are made of them where they go to neighbours.
Start reading at `emit_copy`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pto_wsp.lower import ir
from pto_wsp.lower.algebra import Algebra, Lanes
from pto_wsp.lower.packing import transposed
from pto_wsp.lower.vectors import I1, I32, I64, counted, minimum, move
from pto_wsp.types import DType

__all__ = ["emit_copy"]

VECTOR_BYTES = 32
SIDE = 8            # of blocks at most
COLLECTED = 8       # elements that are apart, for a vector
UNROLLED = 4        # elements in one turn of a loop over single ones


@dataclass(frozen=True)
class _Side:
    """Where elements come from or go to; strides in bytes."""

    address: Any
    rows: Any
    cols: Any


def emit_copy(function: ir.Function, dtype: DType) -> None:
    """The body of a function of the parameters that lower/copies.py says."""
    _Copier(function, dtype).emit()


class _Copier:
    def __init__(self, function: ir.Function, dtype: DType):
        address, rows, cols = function.args[0:6:3], function.args[1:6:3], function.args[2:6:3]
        self.to, self.source = (_Side(*side) for side in zip(address, rows, cols))
        self.rows: Any
        self.cols: Any
        self.rows, self.cols = function.args[6:]
        self.build = ir.Builder(function.append_basic_block("entry"))
        self.dtype, self.size = dtype, dtype.itemsize
        self.side = min(VECTOR_BYTES // self.size, SIDE)
        self.one, self.wide = Algebra(self.build, 1), Algebra(self.build, self.side)

    def emit(self) -> None:
        """The first way that fits, the fastest one first."""
        build = self.build
        there = build.and_(self.at_least(self.rows, 1), self.at_least(self.cols, 1))
        with build.if_then(build.not_(there), likely=False):
            build.ret_void()
        neighbours = build.and_(self.apart(self.to.cols), self.is_size(self.to.rows))
        self.turn(build.or_(build.icmp_signed("==", self.cols, I64(1)), neighbours))
        self.join_rows()
        self.follow_source()
        turned = build.and_(self.is_size(self.to.cols), self.is_size(self.source.rows))
        square = build.and_(self.at_least(self.rows, self.side), self.at_least(self.cols, self.side))
        self.when(build.and_(turned, square), self.transpose)
        for lanes, stride, read in ((VECTOR_BYTES // self.size, self.size, self.contiguous),
                                    (self.side, -self.size, self.reversed), (COLLECTED, None, self.collected)):
            fits = build.and_(self.is_size(self.to.cols), self.at_least(self.cols, lanes))
            if stride is not None:
                fits = build.and_(fits, build.icmp_signed("==", self.source.cols, I64(stride)))
            self.when(fits, lambda: self.in_vectors(Algebra(build, lanes), read))     # noqa: B023
        self.turn(build.icmp_signed("<", self.cols, self.rows))
        self.one_by_one()
        build.ret_void()

    def when(self, condition: Any, way: Callable[[], None]) -> None:
        with self.build.if_then(condition):
            way()
            self.build.ret_void()

    def turn(self, condition: Any) -> None:
        """From here on columns are rows, if so."""
        def either(x: Any, y: Any) -> tuple[Any, Any]:
            return self.build.select(condition, y, x), self.build.select(condition, x, y)

        self.to = _Side(self.to.address, *either(self.to.rows, self.to.cols))
        self.source = _Side(self.source.address, *either(self.source.rows, self.source.cols))
        self.rows, self.cols = either(self.rows, self.cols)

    def at_least(self, extent: Any, n: int) -> Any:
        return self.build.icmp_signed(">=", extent, I64(n))

    def is_size(self, stride: Any) -> Any:
        return self.build.icmp_signed("==", stride, I64(self.size))

    def apart(self, stride: Any) -> Any:
        return self.build.icmp_signed("!=", stride, I64(self.size))

    def at(self, side: _Side, row: Any, col: Any) -> Any:
        return move(self.build, move(self.build, side.address, self.build.mul(row, side.rows)),
                    self.build.mul(col, side.cols))

    def rows_of(self, body: Callable[[Any], Any]) -> None:
        counted(self.build, 0, self.rows, 1, body)

    # ---- the ways --------------------------------------------------------------------------------------------------

    def join_rows(self) -> None:
        """Rows that lie one behind the other on both sides are one from here on."""
        build, pitch = self.build, self.build.mul(self.cols, I64(self.size))
        joined: Any = I1(1)
        for stride in (self.to.cols, self.source.cols):
            joined = build.and_(joined, self.is_size(stride))
        for stride in (self.to.rows, self.source.rows):
            joined = build.and_(joined, build.icmp_signed("==", stride, pitch))
        self.cols = build.select(joined, build.mul(self.rows, self.cols), self.cols)
        self.rows = build.select(joined, I64(1), self.rows)

    def follow_source(self) -> None:
        """Rows from the last one to the first, if the source has its columns that way."""
        build, last = self.build, self.build.sub(self.rows, I64(1))
        backwards = build.icmp_signed("==", self.source.rows, I64(-self.size))

        def turned(side: _Side) -> _Side:
            start = move(build, side.address, build.mul(build.select(backwards, last, I64(0)), side.rows))
            return _Side(start, build.select(backwards, build.sub(I64(0), side.rows), side.rows), side.cols)

        self.to, self.source = turned(self.to), turned(self.source)

    def transpose(self) -> None:
        """Blocks of side x side. The last ones may repeat some of what is before them."""
        last_row, last_col = (self.build.sub(n, I64(self.side)) for n in (self.rows, self.cols))

        def block(c: Any, r: Any) -> None:
            self.block(minimum(self.build, r, last_row), minimum(self.build, c, last_col))

        counted(self.build, 0, self.cols, self.side,        # follows lines of the source to their ends
                lambda c: counted(self.build, 0, self.rows, self.side, lambda r: block(c, r)))

    def block(self, row: Any, col: Any) -> None:
        here, there = self.at(self.source, row, col), self.at(self.to, row, col)
        lines = []
        for _ in range(self.side):
            lines.append(self.wide.load(here, self.dtype, align=1))
            here = move(self.build, here, self.source.cols)
        for lanes in transposed(self.wide, lines):
            self.wide.store(lanes, there, align=1)
            there = move(self.build, there, self.to.rows)

    def in_vectors(self, k: Algebra, read: Callable[[Algebra, Any], Lanes]) -> None:
        """Rows that are contiguous where they go to; the last vector may repeat some of what is before it."""
        last = self.build.sub(self.cols, I64(k.lanes))

        def vector(r: Any, c: Any) -> None:
            c = minimum(self.build, c, last)
            k.store(read(k, self.at(self.source, r, c)), self.at(self.to, r, c), align=1)

        self.rows_of(lambda r: counted(self.build, 0, self.cols, k.lanes, lambda c: vector(r, c)))

    # A vector of the elements that begin with `first`:

    def contiguous(self, k: Algebra, first: Any) -> Lanes:
        return k.load(first, self.dtype, align=1)

    def reversed(self, k: Algebra, first: Any) -> Lanes:
        line = self.contiguous(k, move(self.build, first, -(k.lanes - 1) * self.size))
        backwards = ir.Constant(ir.VectorType(I32, k.lanes), list(range(k.lanes))[::-1])
        return Lanes(self.build.shuffle_vector(line.ir, line.ir, backwards), self.dtype)

    def collected(self, k: Algebra, first: Any) -> Lanes:
        vector = ir.undefined(k.ir_type(self.dtype))
        for lane in range(k.lanes):
            here = self.offset(first, self.source.cols, lane)
            vector = self.build.insert_element(vector, self.one.load(here, self.dtype, align=1).ir, I32(lane))
        return Lanes(vector, self.dtype)

    def offset(self, pointer: Any, stride: Any, times: int) -> Any:
        return move(self.build, pointer, self.build.mul(stride, I64(times))) if times else pointer

    def one_by_one(self) -> None:
        """Addresses in a turn do not wait for one another."""
        whole = self.build.and_(self.cols, I64(-UNROLLED))

        def element(r: Any, c: Any, ahead: int) -> None:
            here, there = (self.at(side, r, c) for side in (self.source, self.to))
            here, there = self.offset(here, self.source.cols, ahead), self.offset(there, self.to.cols, ahead)
            self.one.store(self.one.load(here, self.dtype, align=1), there, align=1)

        def several(r: Any, c: Any) -> None:
            for ahead in range(UNROLLED):
                element(r, c, ahead)

        def row(r: Any) -> None:
            counted(self.build, 0, whole, UNROLLED, lambda c: several(r, c))
            counted(self.build, whole, self.cols, 1, lambda c: element(r, c, 0))

        self.rows_of(row)
