"""Loop programs as LLVM IR: the last step before machine code.

In: LoopProgram.  Out: the text of a module with one function, whose calling convention `pipeline.py` documents.
Vectors are explicit (16 lanes, see loops.LANES), so the text means the same on every CPU; LLVM only picks
instructions. Here are the loops over rows: one row after another, blocks of rows, passes some rows apart.

The function is one object, of a class in layers: `operands.py` (what comes before the loops), `lanes.py`,
`row_scalars.py`, `reductions.py`, `passes.py`, and here. `narrow.py` writes nests of a few columns, `whole.py` what
takes whole tiles. Start reading at `write`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from pto_wsp.lower import ir
from pto_wsp.lower.algebra import Lanes
from pto_wsp.lower.around import params_around
from pto_wsp.lower.fuse import CHEAP_PASS
from pto_wsp.lower.lanes import Lane, first_lanes
from pto_wsp.lower.loops import (
    APART,
    LANES,
    LONGEST,
    LoopProgram,
    RowNest,
    Stage,
    WholeNest,
    cost_of,
    reduce_cost,
)
from pto_wsp.lower.narrow import is_narrow, write_narrow
from pto_wsp.lower.operands import VIEW_BYTES, View
from pto_wsp.lower.passes import Passes
from pto_wsp.lower.reductions import reducing
from pto_wsp.lower.rules import RULES, Map
from pto_wsp.lower.vectors import I1, I64, POINTER, Target, aligned
from pto_wsp.lower.whole import write_whole
from pto_wsp.trace.extents import Extent
from pto_wsp.trace.graph import Node
from pto_wsp.types import DType


def write(program: LoopProgram, symbol: str, tail: bool, target: Target, around: bool = False) -> tuple[str, int]:
    """The module's text and the bytes of scratch that its function needs. around: see around.py."""
    module, kind = ir.Module(), ir.FunctionType(ir.VoidType(), [POINTER, POINTER])
    function, parts = ir.Function(module, kind, symbol), parts_of(program)
    if len(parts) == 1:
        needed = _Writer(program, function, tail, target, around).write(parts[0])
        return str(module), needed
    views, build = aligned(program.scratch_bytes), ir.Builder(function.append_basic_block("entry"))
    program = replace(program, scratch_bytes=views + VIEW_BYTES * len(program.snapshots))
    needed = 0
    for part in parts:
        piece = ir.Function(module, kind, f"{symbol}.{part.start}")
        piece.linkage = "internal"
        needed = max(needed, _Writer(program, piece, tail, target, around, views).write(part))
        build.call(piece, function.args)
    build.ret_void()
    return str(module), needed


def parts_of(program: LoopProgram) -> list[range]:
    """The nests, for a function each: one for all, as long as there are not too many instructions."""
    parts, room = [range(0)], LONGEST
    for index, nest in enumerate(program.nests):
        if room <= 0:
            parts.append(range(index, index))
            room = LONGEST
        parts[-1] = range(parts[-1].start, index + 1)
        room -= sum(cost_of(node) for node in nest.nodes)
    return parts


class _Writer(Passes):
    """The whole function."""

    def __init__(
        self, program: LoopProgram, function: ir.Function, tail: bool, target: Target, around: bool, views: int = 0
    ):
        super().__init__(program, function, tail, target)
        self.around = {id(p.node) for p in params_around(program.graph) if around}
        self.views_at = views  # where in scratch one part of a kernel leaves the views that it chose to the next ones

    # ---- the function ----------------------------------------------------------------------------------------------

    def write(self, part: range) -> int:
        """Some of the nests; returns the bytes of scratch that they need."""
        self.write_parameters()
        for number, (load, snapshot) in enumerate(self.program.snapshots.items()):
            if snapshot.nest < part.start <= snapshot.last:
                self.reads[load] = self.kept_view(self.views_at + VIEW_BYTES * number)
        for index in part:
            nest = self.program.nests[index]
            for number, (load, snapshot) in enumerate(self.program.snapshots.items()):
                if snapshot.nest == index:
                    self.write_snapshot(load, snapshot)
                    if snapshot.last >= part.stop:
                        self.keep_view(self.reads[load], self.views_at + VIEW_BYTES * number)
            staged = self.write_staging(nest)
            if isinstance(nest, WholeNest):
                write_whole(self, nest)
            else:
                self.write_rows(index, nest)
            for store, needed in staged:
                self.write_back(store, needed)
        self.build.ret_void()
        return self.scratch_bytes

    # ---- row nests -------------------------------------------------------------------------------------------------

    def write_rows(self, index: int, nest: RowNest) -> None:
        if blocks := self.column_blocks(nest):
            for block in blocks:
                self.write_part(index, replace(nest, stages=[block]))
        else:
            self.write_part(index, nest)
        for node in reducing(nest.nodes, across_lanes=False):
            self.finish_columns(node)

    def write_part(self, index: int, nest: RowNest) -> None:
        """All rows, or a part of each."""
        kept = [(node, stage) for stage in nest.stages for node in self.columns_in_registers(stage)]
        for node, stage in kept:
            self.keep_columns(node, stage)
        for node in reducing(nest.nodes, across_lanes=False):
            self.fill(node)
        if nest.flipped:
            self.row_values = {}
            for at, stage in enumerate(nest.stages):
                self.write_stage(index, at, stage, None)
        elif at_once := self.all_rows(index, nest):
            with self.build.if_else(self.rows_touch(index, nest)) as (then, other):
                with then:
                    at_once()
                with other:
                    self.write_row_by_row(index, nest)
        else:
            self.write_row_by_row(index, nest)
        for node, _ in kept:
            self.put_columns(node)

    def write_row_by_row(self, index: int, nest: RowNest) -> None:
        if nest.skewed:
            self.write_skewed(index, nest)
        elif nest.block > 1:
            whole, rest = divmod(nest.rows.static, nest.block)
            with self.turns(whole, nest.block) as first:
                self.write_block(index, nest, first, nest.block)
            if rest:
                self.write_block(index, nest, I64(whole * nest.block), rest)
        elif nest.rows.static == 1 and not self.tail:
            self.write_row(index, nest, I64(0))
        else:
            with self.loop(I64(0), self.extent(nest.rows), 1) as row:
                self.write_row(index, nest, row)

    def all_rows(self, index: int, nest: RowNest) -> Callable[[], None] | None:
        """A better way to write a nest, if rows lie one behind the other."""
        if flat := self.as_one_row(nest):
            return lambda: self.write_row(index, flat, I64(0))
        if is_narrow(self, nest):
            return lambda: write_narrow(self, index, nest)
        return None

    def as_one_row(self, nest: RowNest) -> RowNest | None:
        """The nest over tiles whose rows are one behind the other, where that saves many of the lanes that a row's last
        vector lacks: elements are computed from elements, at a cost that may be compiled twice."""
        if self.tail or nest.rows.static == 1 or len(nest.stages) != 1 or nest.before or nest.stages[0].scalars:
            return None
        stage, rows, cols = nest.stages[0], nest.rows.static, nest.stages[0].cols.static
        if -(-cols // LANES) * LANES < 1.1 * cols or stage.cost > 4 * CHEAP_PASS:
            return None
        there = {id(n) for n in (*stage.nodes, *stage.loads)} | self.program.buffers.keys()
        tiles = [o for n in stage.nodes for o in n.operands if o.is_tile]
        if not all(isinstance(RULES[n.op.name], Map) for n in stage.nodes):
            return None
        if not all(id(o) in there or o.op.name == "param" for o in tiles):
            return None
        if any((o.tile.rows, o.tile.cols) != (rows, cols) for o in tiles):
            return None
        return RowNest(Extent(1), stages=[replace(stage, cols=Extent(rows * cols))])

    def rows_touch(self, index: int, nest: RowNest) -> Any:
        """Does each row begin in memory where the one before it ends, in all views of a nest?"""
        views = {id(load): (self.reads[id(load)], load.tile) for load in self.loads_of(index, nest)}
        views |= {id(n): (self.writes[id(n)], n.operands[0].tile) for n in nest.nodes if n.op.name == "store"}
        touch: Any = I1(1)
        for view, tile in views.values():
            if tile.rows > 1:
                end = I64(tile.cols * tile.dtype.itemsize)
                touch = self.build.and_(touch, self.build.icmp_signed("==", view.rows, end))
        return touch

    def loads_of(self, index: int, nest: RowNest) -> Iterator[Node]:
        """The loads that a nest reads, for itself and for values that it computes again."""
        seen: set[int] = set()
        todo = list(nest.nodes)
        while todo:
            node = todo.pop()
            if node.op.name == "load":
                yield node
            elif id(node) not in seen and (self.home.get(id(node)) == index or id(node) not in self.program.buffers):
                seen.add(id(node))
                todo += [o for o in node.operands if o.is_tile and o.op.name != "param"]

    def write_row(self, index: int, nest: RowNest, row: Any) -> None:
        self.row_values = {}
        start = Lane(self.one, index, -1, row)
        for node in nest.nodes:  # what loads read is read before any store of the row
            for operand in node.operands:
                if operand.op.name == "load" and operand.is_tile and operand.tile.cols == 1:
                    self.row_value(start, operand)
        self.write_scalars(start, nest.before)
        for at, stage in enumerate(nest.stages):
            if stage.nodes:
                self.write_stage(index, at, stage, row)
            self.write_scalars(Lane(self.one, index, at, row), stage.scalars)

    # Passes some rows apart: in each turn the last pass does a row, the pass before it a later row, and so on. A row
    # scalar that a later pass reads waits in a queue of registers, one for each turn until then.

    def write_skewed(self, index: int, nest: RowNest) -> None:
        rows, last = self.extent(nest.rows), len(nest.stages) - 1
        self.born = {id(n): 0 for n in nest.before} | {id(load): 0 for load in self.scalar_loads(nest)}
        self.born |= {id(n): at for at, stage in enumerate(nest.stages) for n in stage.nodes + stage.scalars}
        self.queues = {}
        with self.loop(I64(0), self.build.add(rows, I64(APART * last)), 1) as turn:
            for at in range(last, -1, -1):
                row = self.build.sub(turn, I64(APART * at))
                with self.build.if_then(self.build.icmp_unsigned("<", row, rows), likely=True):
                    self.row_values, self.late = {}, at
                    self.in_ring = self.build.and_(row, I64(nest.block - 1))
                    self.write_pass(index, nest, at, row)
            for dtype, queue in self.queues.values():
                for pointer, value in reversed([*zip(queue[1:], queue[:-1], strict=True)]):
                    self.one.store(self.one.load(value, dtype), pointer)
        self.row_values, self.late, self.in_ring = {}, None, None

    def write_pass(self, index: int, nest: RowNest, at: int, row: Any) -> None:
        """A pass over a row, and its scalars; with the first pass, what comes before it."""
        start = Lane(self.one, index, at if at else -1, row)
        if not at:
            for load in self.scalar_loads(nest):  # read before any store of the row
                self.keep_row_value(start, load, self.row_value(start, load))
            self.write_scalars(start, nest.before)
        if nest.stages[at].nodes:
            self.write_stage(index, at, nest.stages[at], row)
        self.write_scalars(Lane(self.one, index, at, row), nest.stages[at].scalars)

    def scalar_loads(self, nest: RowNest) -> list[Node]:
        """Loads of one value per row."""
        loads = {id(o): o for n in nest.nodes for o in n.operands if o.op.name == "load" and o.is_tile}
        return [load for load in loads.values() if load.tile.cols == 1]

    # A block of rows: each pass runs over all of them before the next. Row scalars live in slots, one lane a row.

    def write_block(self, index: int, nest: RowNest, first: Any, count: int) -> None:
        self.slots = {}
        loads = {id(o): o for node in nest.nodes for o in node.operands if o.op.name == "load" and o.is_tile}
        for load in loads.values():  # what loads read is read before any store of the row
            if load.tile.cols == 1 < load.tile.rows:
                self.fill_slot(index, first, count, load)
        self.write_block_scalars(index, -1, first, count, nest.before)
        for at, stage in enumerate(nest.stages):
            if stage.nodes:
                together = self.reduced_together(stage, count)
                with self.block_rows(index, at, first, count) as lane:
                    self.write_stage(index, at, stage, lane.row, together)
                for node in together:
                    self.reduce_rows(first, count, node)
            self.write_block_scalars(index, at, first, count, stage.scalars)
        self.slots = {}

    @contextmanager
    def block_rows(self, index: int, at: int, first: Any, count: int) -> Iterator[Lane]:
        """The rows of a block, one after another."""
        self.filled, self.before_rows = [], self.build.block
        with self.loop(I64(0), I64(count), 1) as i:
            self.row_values, self.in_block = {}, i
            yield Lane(self.one, index, at, self.build.add(first, i))
        for slot in self.filled:
            self.wide.store(self.wide.load(slot.lanes, slot.dtype), slot.memory)
        self.row_values, self.in_block, self.filled = {}, None, []

    def write_block_scalars(self, index: int, at: int, first: Any, count: int, nodes: list[Node]) -> None:
        """As write_scalars, for a block: what is computed from row scalars in lanes, the rest row by row."""
        for node in nodes:
            if node.op.name == "store" and id(node.operands[1]) in self.slots:
                self.store_block(index, at, first, count, node)
            elif not isinstance(RULES[node.op.name], Map) or node.op.name == "store":
                with self.block_rows(index, at, first, count) as lane:
                    self.write_scalars(lane, [node])
            else:
                operands = [self.block_values(index, first, count, operand) for operand in node.operands]
                self.keep_block_values(first, count, node, self.apply(self.wide, node, operands))

    def block_values(self, index: int, first: Any, count: int, node: Node) -> Lanes:
        """A row scalar of the rows of a block, or a scalar."""
        if not node.is_tile:
            return self.wide.splat(self.scalars[id(node)].ir, self.scalars[id(node)].dtype)
        if id(node) not in self.slots:
            self.fill_slot(index, first, count, node)
        return self.wide.load(self.slots[id(node)].lanes, self.slots[id(node)].dtype)

    def fill_slot(self, index: int, first: Any, count: int, node: Node) -> None:
        """A row scalar that is in memory, or not computed yet: where rows lie side by side, at once."""
        where = self.column_in_memory(node)
        if where is None:
            self.fill_slot_by_rows(index, first, count, node)
            return
        view, dtype = where
        with self.build.if_else(self.side_by_side(view, dtype)) as (then, other):
            with other:  # first: it reads memory as long as there is no slot
                self.fill_slot_by_rows(index, first, count, node)
            with then:
                mask = None if count == LANES else first_lanes(count)
                values = self.wide.load(self.move(view.address, self.build.mul(first, view.rows)), dtype, mask=mask)
                self.put_in_slot(node, self.wide.widen(values))

    def fill_slot_by_rows(self, index: int, first: Any, count: int, node: Node) -> None:
        with self.block_rows(index, -1, first, count) as lane:
            self.keep_in_slot(node, self.row_value(lane, node))

    def column_in_memory(self, node: Node) -> tuple[View, DType] | None:
        """Where a value has one element for each row."""
        if node.tile.rows > 1 and id(node) in self.reads:
            return self.reads[id(node)], node.tile.dtype
        if node.tile.rows > 1 and id(node) in self.program.buffers:
            buffer = self.program.buffers[id(node)]
            return self.buffer_view(buffer), buffer.dtype
        return None

    def side_by_side(self, view: View, dtype: DType) -> Any:
        return self.build.icmp_signed("==", view.rows, I64(dtype.itemsize))

    def store_block(self, index: int, at: int, first: Any, count: int, store: Node) -> None:
        """Row scalars to where they are wanted: where rows lie side by side, at once."""
        view, dtype = self.writes[id(store)], store.operands[0].tile.dtype
        with self.build.if_else(self.side_by_side(view, dtype)) as (then, other):
            with then:
                self.put_block(view, first, count, self.block_values(index, first, count, store.operands[1]), dtype)
            with other, self.block_rows(index, at, first, count) as lane:
                self.write_scalars(lane, [store])

    def put_block(self, view: View, first: Any, count: int, values: Lanes, dtype: DType) -> None:
        pointer = self.move(view.address, self.build.mul(first, view.rows))
        self.store_first(self.wide.convert(values, dtype).ir, pointer, dtype, count)

    def keep_block_values(self, first: Any, count: int, node: Node, values: Lanes) -> None:
        """The row scalars of a block, one lane a row."""
        self.put_in_slot(node, values)
        buffer = self.program.buffers.get(id(node))
        if buffer is not None:
            self.put_block(self.buffer_view(buffer), first, count, values, buffer.dtype)

    def reduced_together(self, stage: Stage, count: int) -> list[Node]:
        """The row reductions of a pass whose trees are worth doing side by side: those of costly passes and short rows.

        A cheap pass is better off without stores: it can run while the stores of the pass before it wait for memory.
        """
        if count == 1 or LANES % count:
            return []
        steps = -(-stage.cols.static // LANES)
        costly = stage.cost > CHEAP_PASS or steps * stage.cost <= CHEAP_PASS
        return [n for n in reducing(stage.nodes) if costly or reduce_cost(n) > 1]

    def reduce_rows(self, first: Any, count: int, node: Node) -> None:
        """A row reduction whose 16 lanes each row of a block has left in memory."""
        lanes = self.build.call(self.tree_of_rows(node, count), [self.partial(node)])
        total = self.finished(self.wide, RULES[node.op.name], node, Lanes(lanes, node.tile.dtype))
        self.keep_block_values(first, count, node, total)
