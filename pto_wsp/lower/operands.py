"""Where a kernel's operands lie: its arguments as LLVM values, and what is tested and copied before the loops.

Views are trusted until they misbehave: operands that are strided where lanes have to lie side by side, or that overlap
what is written, are copied to scratch (results: from it) by code that usually does not run. So all other code of a
kernel sees contiguous lanes. Start reading at `write_snapshot` and `write_staging`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from pto_wsp.lower import copies, ir
from pto_wsp.lower.algebra import IR_TYPES, Algebra, Lanes
from pto_wsp.lower.loops import Buffer, LoopProgram, RowNest, Snapshot, WholeNest
from pto_wsp.lower.rules import RULES, Map
from pto_wsp.lower.signs import never_positive
from pto_wsp.lower.tasks import TILE_WORDS
from pto_wsp.lower.vectors import I1, I64, POINTER, Target, loop, move
from pto_wsp.trace.extents import Extent
from pto_wsp.trace.graph import Node
from pto_wsp.types import DType

VIEW_BYTES = 24  # of a View in memory


@dataclass(frozen=True)
class View:
    """A tile in memory: address and byte strides as LLVM values."""

    address: Any
    rows: Any
    cols: Any

    @property
    def turned(self) -> View:
        """The transposed tile in the same memory."""
        return View(self.address, self.cols, self.rows)


class Operands:
    """The function of a kernel as far as its operands go; llvm.py names the layers above."""

    def __init__(self, program: LoopProgram, function: ir.Function, tail: bool, target: Target):
        self.program, self.graph, self.module = program, program.graph, function.module
        self.tail, self.target = tail, target
        self.build = ir.Builder(function.append_basic_block("entry"))
        self.args, self.scratch = function.args
        self.args.name, self.scratch.name = "args", "scratch"
        self.args.add_attribute("noalias")
        self.scratch.add_attribute("noalias")
        self.one = Algebra(self.build, 1, target.features)
        self.scratch_bytes = program.scratch_bytes
        self.views: dict[int, View] = {}  # id(param node) -> its view
        self.spans: dict[tuple[int, int | None], tuple[Any, Any]] = {}  # (id(param node), contiguous axis)
        self.reads: dict[int, View] = {}  # id(load) -> its view, or a copy of it
        self.writes: dict[int, View] = {}  # id(store) -> its view, or the staging buffer
        self.scalars: dict[int, Lanes] = {}  # id(scalar node) -> value
        self.home = {id(n): i for i, nest in enumerate(program.nests) for n in nest.nodes}

    def word(self, index: int) -> Any:
        return self.build.load(self.build.gep(self.args, [I64(index)], source_etype=I64), typ=I64, align=8)

    def write_parameters(self) -> None:
        """Views of the tile parameters; scalar parameters, constants and what is computed from them."""
        tiles = self.graph.tile_params
        for i, param in enumerate(tiles):
            at = i * TILE_WORDS
            address = self.build.inttoptr(self.word(at), POINTER, name=f"{param.name}.address")
            self.views[id(param.node)] = View(address, self.word(at + 1), self.word(at + 2))
        word = len(tiles) * TILE_WORDS
        for param in self.graph.scalar_params:
            self.scalars[id(param.node)] = self.scalar_of(self.word(word), param.type.dtype)
            word += 1
        for node in self.graph.nodes:
            if node.op.name == "constant":
                value = self.one.const(node.attrs["value"], node.attrs["dtype"])
                self.scalars[id(node)] = self.one.widen(value)
            elif node.type is not None and not node.is_tile and node.op.name != "scalar_param":
                operands = [self.scalars[id(o)] for o in node.operands]
                self.scalars[id(node)] = self.apply(self.one, node, operands)
        for node in self.graph.nodes:
            if node.op.name == "load":
                self.reads[id(node)] = self.views[id(node.operands[0])]

    def scalar_of(self, word: Any, dtype: DType) -> Lanes:
        """The scalar that an argument word holds, in its compute dtype."""
        bits = word if dtype.bits == 64 else self.build.trunc(word, ir.IntType(dtype.bits))
        kind = IR_TYPES[dtype]
        value = bits if kind == bits.type else self.build.bitcast(bits, kind)
        return self.one.widen(Lanes(value, dtype))

    def extent(self, extent: Extent) -> Any:
        """Number of valid elements, an i64: the static size, or what the arguments say."""
        if not self.tail or not extent.sources:
            return I64(extent.static)
        source = extent.sources[0]
        valid = self.word(source.param * TILE_WORDS + 3 + source.axis)
        if source.den != 1:
            valid = self.build.udiv(valid, I64(source.den))
        return valid if source.num == 1 else self.build.mul(valid, I64(source.num))

    def extents_of(self, node: Node) -> tuple[Any, Any]:
        return self.extent(self.program.extents.of(node, 0)), self.extent(self.program.extents.of(node, 1))

    # ---- memory ----------------------------------------------------------------------------------------------------

    def move(self, pointer: Any, *offsets: Any) -> Any:
        """The address so many bytes further."""
        for offset in offsets:
            pointer = move(self.build, pointer, offset)
        return pointer

    def buffer_view(self, buffer: Buffer) -> View:
        return View(self.move(self.scratch, I64(buffer.offset)), I64(buffer.pitch), I64(buffer.dtype.itemsize))

    def keep_view(self, view: View, offset: int) -> None:
        """Write a view to scratch."""
        for i, part in enumerate((view.address, view.rows, view.cols)):
            self.build.store(part, self.move(self.scratch, I64(offset + 8 * i)), align=8)

    def kept_view(self, offset: int) -> View:
        """The view that was written there."""
        kinds = (POINTER, I64, I64)
        at = [self.move(self.scratch, I64(offset + 8 * i)) for i in range(3)]
        return View(*(self.build.load(p, kind, align=8) for p, kind in zip(at, kinds, strict=True)))

    def write_snapshot(self, load: int, snapshot: Snapshot) -> None:
        """Copy what a load reads, if its lanes are not contiguous or a store of the same nests may overlap it."""
        node = next(n for n in self.graph.nodes if id(n) == load)
        view = self.views[id(node.operands[0])]
        lanes = int(node.tile.cols > 1) if snapshot.lanes else None
        needed: Any = self.strided(node.operands[0], view, lanes == 0) if snapshot.lanes else I1(0)
        for hazard in snapshot.hazards:
            other = self.views[id(hazard.store.operands[0])]
            clash = self.overlap(self.span(node.operands[0], lanes), self.span_written(hazard.store))
            if hazard.pointwise:
                same = self.build.icmp_signed("==", view.address, other.address)
                for axis in (0, 1):
                    if (node.tile.rows, node.tile.cols)[axis] > 1:
                        mine, theirs = (view.rows, view.cols)[axis], (other.rows, other.cols)[axis]
                        same = self.build.and_(same, self.build.icmp_signed("==", mine, theirs))
                clash = self.build.and_(clash, self.build.not_(same))
            needed = self.build.or_(needed, clash)
        copy = self.buffer_view(snapshot.buffer)
        extents = self.extents_of(node)
        self.reads[load] = self.choose(needed, copy, view, lambda: self.copy(copy, view, node.tile.dtype, *extents))

    def write_staging(self, nest: RowNest | WholeNest) -> list[tuple[Node, Any]]:
        """Where the stores of a nest write: to their views, or to scratch when a view is strided or they overlap."""
        inside = {id(n) for n in nest.nodes}
        stores = [n for n in self.graph.stores if id(n) in inside]  # in program order: the last one wins
        staged = []
        for i, store in enumerate(stores):
            dst = store.operands[0]
            view = self.views[id(dst)]
            in_lanes = isinstance(nest, WholeNest) or nest.flipped or dst.tile.cols > 1
            needed: Any = self.strided(dst, view, isinstance(nest, RowNest) and nest.flipped) if in_lanes else I1(0)
            for other in stores[:i]:
                if other.operands[0] is not dst:
                    needed = self.build.or_(needed, self.overlap(self.span(dst), self.span(other.operands[0])))
            self.writes[id(store)] = self.choose(needed, self.buffer_view(self.program.staging[id(store)]), view)
            staged.append((store, needed))
        return staged

    def write_back(self, store: Node, needed: Any) -> None:
        dst = store.operands[0]
        if isinstance(needed, ir.Constant) and not needed.constant:
            return
        with self.build.if_then(needed, likely=False):
            self.copy(
                self.views[id(dst)],
                self.buffer_view(self.program.staging[id(store)]),
                dst.tile.dtype,
                *self.extents_of(dst),
            )

    def choose(self, needed: Any, rare: View, usual: View, prepare: Callable[[], None] = lambda: None) -> View:
        """`rare` if it is needed, prepared then, else `usual`. By a branch, kept by LLVM since it is unlikely: what
        it predicts does not wait for the test."""
        if isinstance(needed, ir.Constant) and not needed.constant:
            return usual
        before, after = self.build.block, self.build.append_basic_block("chosen")
        with self.build.goto_block(self.build.append_basic_block("rare")):
            first = self.build.block
            prepare()
            self.build.branch(after)
            last = self.build.block
        self.build.cbranch(needed, first, after, likely=False)
        self.build.position_at_end(after)
        chosen = []
        for part in ("address", "rows", "cols"):
            chosen.append(self.build.phi(getattr(usual, part).type))
            chosen[-1].add_incoming(getattr(rare, part), last)
            chosen[-1].add_incoming(getattr(usual, part), before)
        return View(*chosen)

    def strided(self, param: Node, view: View, along_rows: bool) -> Any:
        """Are elements that lie side by side in the lanes apart in memory?"""
        count = param.tile.rows if along_rows else param.tile.cols
        if count == 1:
            return I1(0)
        stride = view.rows if along_rows else view.cols
        return self.build.icmp_signed("!=", stride, I64(param.tile.dtype.itemsize))

    def overlap(self, a: tuple[Any, Any], b: tuple[Any, Any]) -> Any:
        """Do two address ranges share memory?"""
        return self.build.and_(self.build.icmp_unsigned("<", a[0], b[1]), self.build.icmp_unsigned("<", b[0], a[1]))

    def span_written(self, store: Node) -> tuple[Any, Any]:
        """What a store writes while loads are read. A strided view is written after the nest: too late for loads of the
        only one, whatever range is found then."""
        nest, dst = self.program.nests[self.home[id(store)]], store.operands[0]
        row_by_row = isinstance(nest, RowNest) and not nest.flipped and dst.tile.cols > 1
        return self.span(dst, 1 if row_by_row and len(self.program.nests) == 1 else None)

    def span(self, param: Node, contiguous: int | None = None) -> tuple[Any, Any]:
        """The addresses that a parameter's elements lie between.

        contiguous: an axis whose elements lie side by side, or else the answer does not matter.
        """
        key = id(param), contiguous
        if key in self.spans:
            return self.spans[key]
        view, size = self.views[id(param)], I64(param.tile.dtype.itemsize)
        low = self.build.ptrtoint(view.address, I64)
        high = self.build.add(low, size)
        for axis, (stride, count) in enumerate(zip((view.rows, view.cols), self.extents_of(param))):
            if isinstance(count, ir.Constant) and count.constant == 1:
                continue
            reach = self.build.mul(size if axis == contiguous else stride, self.build.sub(count, I64(1)))
            if axis == contiguous:
                high = self.build.add(high, reach)
                continue
            negative = self.build.icmp_signed("<", reach, I64(0))
            low = self.build.add(low, self.build.select(negative, reach, I64(0)))
            high = self.build.add(high, self.build.select(negative, I64(0), reach))
        self.spans[key] = low, high
        return low, high

    def copy(self, to: View, source: View, dtype: DType, rows: Any, cols: Any) -> None:
        self.build.call(
            copies.declared(self.module, "copy", dtype.itemsize),
            [to.address, to.rows, to.cols, source.address, source.rows, source.cols, rows, cols],
        )

    # ---- nodes -----------------------------------------------------------------------------------------------------

    def memory_of(self, node: Node) -> tuple[View, DType]:
        """Where an operand of a whole-tile op lies; a transpose may be a view with its strides exchanged."""
        if node.op.name == "load":
            return self.reads[id(node)], node.tile.dtype
        if id(node) in self.program.buffers:
            buffer = self.program.buffers[id(node)]
            return self.buffer_view(buffer), buffer.dtype
        assert self.is_turned(node), node
        view, dtype = self.memory_of(node.operands[0])
        return view.turned, dtype

    def is_turned(self, node: Node) -> bool:
        """Is this a transpose that only exchanges strides?"""
        return node.op.name == "transpose" and id(node) not in self.program.buffers

    def apply(self, k: Algebra, node: Node, operands: list[Lanes]) -> Lanes:
        """The rule's body, rounded to the op's dtype."""
        rule = RULES[node.op.name]
        assert isinstance(rule, Map) and node.type is not None, node
        if node.op.name == "exp" and never_positive(node.operands[0]):
            operands = [operands[0]._replace(high=0.0)]
        return k.round_to(rule.body(k, *operands), node.type.dtype)

    def loop(self, start: Any, stop: Any, step: int) -> AbstractContextManager[Any]:
        return loop(self.build, start, stop, step)
