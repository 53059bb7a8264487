"""Copies of matrices to where vectors read them: rows of lanes, widened, transposed, in pairs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pto_wsp.lower import copies, ir
from pto_wsp.lower.algebra import Algebra, Lanes
from pto_wsp.lower.vectors import I8, I64, Lane, Target, counted, lanes_along_k, minimum, move, widened
from pto_wsp.types import DType

__all__ = ["emit_packer", "packer", "start_at_acc", "transposed"]

SIDE = 16           # of blocks that are transposed in registers, or as many lanes as a vector has


def start_at_acc(build: ir.Builder, at: dict[str, Any], dtype: DType, target: Target) -> None:
    """An acc whose columns are apart is copied to c, and taken from there."""
    size = dtype.itemsize
    apart = build.icmp_signed("!=", at["acc_cs"], I64(size))
    with build.if_then(apart, likely=False):
        lane = Lane(dtype, 1, target.vector_bits // (8 * size))
        pack = packer(build.module, dtype, lane)
        build.call(pack, [at["acc"], at["acc_rs"], at["acc_cs"], at["c"], at["c_rs"], at["m"], at["n"]])
    at["acc"] = build.select(apart, at["c"], at["acc"])
    at["acc_rs"] = build.select(apart, at["c_rs"], at["acc_rs"])
    at["acc_cs"] = I64(size)


def packer(module: ir.Module, source: DType, lane: Lane, few: int = 0) -> ir.Function:
    """A function that copies `outer` x `inner` elements to rows of contiguous lanes, shared by all kernels.

    void pto_wsp_pack_...(ptr src, i64 outer_stride, i64 inner_stride, ptr dst, i64 dst_stride, i64 outer, i64 inner)

    Lanes of two values take two neighbours along outer; when there is an odd number the last row's second values are 0.
    Lanes between `inner` and the row stride of dst are left as they are. Rows that are contiguous and have at least
    lane.count lanes are copied in vectors of that many, others in short ones whose elements are read one by one; rows
    that lie one behind the other on both sides are one row, in vectors as long as the CPU's. `few`: outer is that or
    less, and transposed in blocks all the same.
    """
    what = f"{source.value}_{lane.dtype.value}_{lane.group}_{lane.count}_{few if few > 1 else 0}"
    return copies.declared(module, "pack", what)


def emit_packer(function: ir.Function, what: str, target: Target) -> None:
    """The body of the packer that `packer` named so."""
    source, lane, group, width, few = what.split("_")
    _Packer(function, DType(source), Lane(DType(lane), int(group), int(width)), target, int(few)).emit()


class _Packer:
    def __init__(self, f: ir.Function, source: DType, lane: Lane, target: Target, few: int):
        names = ("src", "outer_stride", "inner_stride", "dst", "dst_stride", "outer", "inner")
        self.at: dict[str, Any] = dict(zip(names, f.args, strict=True))
        self.build = ir.Builder(f.append_basic_block("entry"))
        self.source, self.lane, self.target, self.few = source, lane, target, few

    def emit(self) -> None:
        """The first way that fits: contiguous rows; blocks transposed; rows whose elements are apart; one by one."""
        at, build, lane = self.at, self.build, self.lane
        if lane.group == 1:
            self.joined_rows()
        whole = build.udiv(at["outer"], I64(lane.group))        # rows of lanes that lack nothing
        rows = build.udiv(build.add(at["outer"], I64(lane.group - 1)), I64(lane.group))
        self.step = {"outer": build.mul(at["outer_stride"], I64(lane.group)), "inner": at["inner_stride"]}
        side = min(lane.count, SIDE)
        count = build.alloca(I64)
        build.store(I64(0), count)

        def contiguous(d: str) -> Any:
            return build.icmp_signed("==", at[d + "_stride"], I64(self.source.itemsize))

        def at_least(extent: Any, n: int) -> Any:
            return build.icmp_signed(">=", extent, I64(n))

        def attempt(fits: list[Any], way: Callable[[], None], done: Any) -> None:
            """`way` copies rows of lanes; done: so many."""
            condition = build.icmp_signed("==", build.load(count, typ=I64), I64(0))
            for fit in fits:
                condition = build.and_(condition, fit)
            with build.if_then(condition):
                way()
                build.store(done, count)

        def all_rows(lanes: int, apart: bool) -> None:
            counted(build, 0, whole, 1, lambda o: self.row(o, at["inner"], lanes, apart=apart))
            if lane.group > 1:
                with build.if_then(build.icmp_signed("<", whole, rows)):
                    self.row(whole, at["inner"], lanes, second=False, apart=apart)

        def square_blocks(n: int) -> None:      # follows lines of the source to their ends
            self.overlapping(at["inner"], n, lambda i: self.overlapping(whole, n, lambda o: self.block(o, i, n)))

        attempt([contiguous("inner"), at_least(at["inner"], lane.count)], partial(all_rows, lane.count, False), rows)
        if self.few > 1:
            side = max(side, 1 << (self.few - 1).bit_length())
            narrow = [build.icmp_signed("==", whole, I64(self.few)), at_least(at["inner"], side), contiguous("outer")]
            attempt(narrow, lambda: self.overlapping(at["inner"], side, lambda i: self.narrow_block(i, side)), whole)
        else:
            for n in (n for n in (16, 8, 4) if n <= side):
                square = [at_least(whole, n), at_least(at["inner"], n), contiguous("outer")]
                attempt(square, partial(square_blocks, n), whole)
        for n in (n for n in (4, 2) if n <= side):
            attempt([at_least(at["inner"], n)], partial(all_rows, n, True), rows)
        counted(build, build.load(count, typ=I64), rows, 1,
                lambda o: counted(build, 0, at["inner"], 1, lambda i: self.scalar(o, i)))
        build.ret_void()

    def joined_rows(self) -> None:
        """Rows that lie one behind the other, at the source and at dst, are one, if that fills a vector of the CPU."""
        at, build, count = self.at, self.build, self.target.vector_bits // self.lane.dtype.bits
        pitch = build.mul(at["inner"], I64(self.source.itemsize))
        joined = build.and_(build.icmp_signed("==", at["inner_stride"], I64(self.source.itemsize)),
                            build.icmp_signed("==", at["outer_stride"], pitch))
        to = build.mul(at["inner"], I64(self.lane.size))
        joined = build.and_(joined, build.icmp_signed("==", at["dst_stride"], to))
        elements = build.mul(at["outer"], at["inner"])
        with build.if_then(build.and_(joined, build.icmp_signed(">=", elements, I64(count)))):
            self.row(None, elements, count)
            build.ret_void()

    def row(self, o: Any, lanes: Any, count: int, second: bool = True, apart: bool = False) -> None:
        """Elements along inner in vectors of `count` lanes, one at least; the last vector may repeat some lanes.

        o       None: where src and dst begin
        second  has each pair two values?
        apart   else they are contiguous
        """
        at, build, k = self.at, self.build, Algebra(self.build, count, self.target.features)
        source, to = (at["src"], at["dst"]) if o is None else (self.source_at(o, I64(0)), self.lane_at(o, I64(0)))

        def vector(i: Any) -> None:
            step = at["inner_stride"] if apart else I64(self.source.itemsize)
            x = self.read(k, move(build, source, build.mul(i, step)), False, second, apart)
            k.store(x, move(build, to, build.mul(i, I64(self.lane.size))), align=1)

        last = build.sub(lanes, I64(count))
        counted(build, 0, last, count, vector)
        vector(last)

    def overlapping(self, extent: Any, size: int, body: Callable[[Any], None]) -> None:
        """Blocks of `size` over an extent of at least that; the last one may repeat some of what is before it."""
        last = self.build.sub(extent, I64(size))
        counted(self.build, 0, extent, size, lambda i: body(minimum(self.build, i, last)))

    def source_at(self, o: Any, i: Any) -> Any:
        offset = self.build.add(self.build.mul(o, self.step["outer"]), self.build.mul(i, self.step["inner"]))
        return self.build.gep(self.at["src"], [offset], source_etype=I8)

    def lane_at(self, o: Any, i: Any) -> Any:
        offset = self.build.add(self.build.mul(o, self.at["dst_stride"]), self.build.mul(i, I64(self.lane.size)))
        return self.build.gep(self.at["dst"], [offset], source_etype=I8)

    def block(self, o: Any, i: Any, side: int) -> None:
        """side x side lanes, contiguous along outer at the source."""
        k = Algebra(self.build, side, self.target.features)
        columns, source, to = [], self.source_at(o, i), self.lane_at(o, i)
        for _ in range(side):
            columns.append(self.read(k, source, True))
            source = move(self.build, source, self.step["inner"])
        for lanes in transposed(k, columns):
            k.store(lanes, to, align=1)
            to = move(self.build, to, self.at["dst_stride"])

    def narrow_block(self, i: Any, side: int) -> None:
        """`few` x side lanes, contiguous along outer at the source."""
        k, source = Algebra(self.build, self.few, self.target.features), self.source_at(I64(0), i)
        wide, columns = Algebra(self.build, side, self.target.features), []
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), side), [lane % self.few for lane in range(side)])
        for _ in range(side):
            x = self.read(k, source, False)
            columns.append(Lanes(self.build.shuffle_vector(x.ir, x.ir, lanes), x.dtype))
            source = move(self.build, source, self.step["inner"])
        to = self.lane_at(I64(0), i)
        for x in transposed(wide, columns)[: self.few]:
            wide.store(x, to, align=1)
            to = move(self.build, to, self.at["dst_stride"])

    def scalar(self, o: Any, i: Any) -> None:
        """One lane; the second of a pair may be missing."""
        build, k = self.build, Algebra(self.build, 1, self.target.features)
        first = self.source_at(o, i)
        if self.lane.group == 1:
            k.store(self.read(k, first, False), self.lane_at(o, i), align=1)
            return
        exists = build.icmp_signed("<", build.add(build.mul(o, I64(2)), I64(1)), self.at["outer"])
        offset = build.select(exists, self.at["outer_stride"], I64(0))
        second = k.load(build.gep(first, [offset], source_etype=I8), self.source, align=1)
        second = k.select(Lanes(exists, None), second, 0)
        pair = widened(k, self.lane, [k.load(first, self.source, align=1), second])
        k.store(pair, self.lane_at(o, i), align=1)

    def read(self, k: Algebra, pointer: Any, along_outer: bool, second: bool = True, apart: bool = False) -> Lanes:
        """Lanes from elements along inner, or along outer: a pair's two values are neighbours there.

        second  does a pair have one?
        apart   are the elements apart? Else they are contiguous
        """
        if self.lane.group == 1 or along_outer:
            elements = k if self.lane.group == 1 else Algebra(self.build, 2 * k.lanes, self.target.features)
            return lanes_along_k(k, elements, self.lane, self.elements(elements, pointer, apart))
        first, zero = self.elements(k, pointer, apart), k.const(0, self.source)
        there = self.build.gep(pointer, [self.at["outer_stride"]], source_etype=I8)
        return widened(k, self.lane, [first, self.elements(k, there, apart) if second else zero])

    def elements(self, k: Algebra, pointer: Any, apart: bool) -> Lanes:
        """A vector of the source's elements along inner, or of contiguous ones."""
        if not apart:
            return k.load(pointer, self.source, align=1)
        one, vector = Algebra(self.build, 1, self.target.features), k.const(0, self.source).ir
        for lane in range(k.lanes):
            vector = self.build.insert_element(vector, one.load(pointer, self.source, align=1).ir, I64(lane))
            pointer = move(self.build, pointer, self.at["inner_stride"])
        return Lanes(vector, self.source)


def transposed(k: Algebra, rows: list[Lanes]) -> list[Lanes]:
    """len(rows) vectors of as many lanes, transposed: one bit of the row number trades places with one of the lane's.

    32-bit lanes trade both bits inside 128 bits at a time, which x86 does in one instruction a vector (unpcklps). Bytes
    and 16-bit lanes of at most 128 bits are interleaved, also one instruction (punpckl), in half of LLVM's time.
    """
    values, n = [x.ir for x in rows], len(rows)

    def shuffle(x: Any, y: Any, lanes: list[int]) -> Any:
        return k.builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(ir.IntType(32), n), lanes))

    step, bits = 1, 0 if rows[0].dtype is None else rows[0].dtype.bits
    while bits in (8, 16) and n * bits <= 128 and step < n:
        pairs = [*zip(values[: n // 2], values[n // 2 :], strict=True)]
        values = [shuffle(x, y, [first + i + lane for i in range(n // 2) for lane in (0, n)])
                  for x, y in pairs for first in (0, n // 2)]
        step *= 2
    if bits == 32 and n >= 4:
        quads = range(0, n, 4)
        low, high = ([q + lane + part for q in quads for part in (at, at + 1) for lane in (0, n)] for at in (0, 2))
        left, right = ([q + lane + part for q in quads for lane in (at, at + n) for part in (0, 1)] for at in (0, 2))
        for r in quads:
            x0, x1, x2, x3 = values[r : r + 4]
            y0, y1, y2, y3 = shuffle(x0, x1, low), shuffle(x0, x1, high), shuffle(x2, x3, low), shuffle(x2, x3, high)
            values[r : r + 4] = [shuffle(y0, y2, left), shuffle(y0, y2, right),
                                 shuffle(y1, y3, left), shuffle(y1, y3, right)]
        step = 4
    while step < n:
        for r in (r for r in range(n) if not r & step):
            x, y = values[r], values[r + step]
            values[r] = shuffle(x, y, [lane if not lane & step else n + lane - step for lane in range(n)])
            values[r + step] = shuffle(x, y, [lane + step if not lane & step else n + lane for lane in range(n)])
        step *= 2
    return [Lanes(value, rows[0].dtype) for value in values]
