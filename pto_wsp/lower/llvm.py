"""Loop programs as LLVM IR: the last step before machine code.

In: LoopProgram.  Out: the text of a module with one function, whose calling convention `pipeline.py` documents.
Vectors are explicit (16 lanes, see loops.LANES), so the text means the same on every CPU; LLVM only picks
instructions. Here are the passes over rows and columns, and reductions; `operands.py` writes what comes before them,
`whole.py` what takes whole tiles. Start reading at `write`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from pto_wsp.lower import ir
from pto_wsp.lower.algebra import IR_TYPES, Algebra, Lanes, across_rows, compute_dtype
from pto_wsp.lower.around import params_around
from pto_wsp.lower.fuse import CHEAP_PASS
from pto_wsp.lower.loops import (
    ACCUMULATORS,
    APART,
    LANES,
    LONGEST,
    Buffer,
    LoopProgram,
    RowNest,
    Stage,
    WholeNest,
    cost_of,
    in_lanes,
    reduce_cost,
    reduce_rule,
)
from pto_wsp.lower.operands import VIEW_BYTES, Operands, View
from pto_wsp.lower.rules import RULES, Fold, Halve, Interleave, Leaf, Map, Reduce
from pto_wsp.lower.vectors import I1, I32, I64, POINTER, Target, aligned
from pto_wsp.lower.whole import write_whole
from pto_wsp.trace.extents import Extent
from pto_wsp.trace.graph import Node
from pto_wsp.types import DType

UNROLLED_COST = 64  # vector instructions, roughly, up to which steps are written out in one turn of a loop
MOST_UNROLLED = 8
COLUMN_REGISTERS = 16  # vectors of column sums that stay in registers, where a CPU has enough of them
ABREAST = 4  # vectors of a step of a costly pass
MOST_COSTLY = 160  # vector instructions, roughly, beyond which a step has enough that does not wait for each other
INT_ACCUMULATORS = 2  # for a row reduction of integers; ACCUMULATORS says how many floats have


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


@dataclass(frozen=True)
class Slot:
    """A row scalar of all rows of a block, one lane a row: 16 lanes, twice.

    `lanes` is only loaded and stored whole, so that LLVM keeps it in a register; passes read single rows from `memory`.
    Rows that were stored there one by one could not be read as one vector before all earlier stores have left the core.
    """

    dtype: DType
    lanes: Any
    memory: Any


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


class _Writer(Operands):
    def __init__(
        self, program: LoopProgram, function: ir.Function, tail: bool, target: Target, around: bool, views: int = 0
    ):
        super().__init__(program, function, tail, target)
        self.around = {id(p.node) for p in params_around(program.graph) if around}
        self.views_at = views  # where in scratch one part of a kernel leaves the views that it chose to the next ones
        self.target, self.features = target, target.features
        self.wide = Algebra(self.build, LANES, self.features)
        self.algebras = {LANES: self.wide}
        self.row_values: dict[int, Lanes] = {}  # id([rows, 1] node) -> value in this row
        self.accumulators: dict[tuple[int, int, int], list[Any]] = {}  # id(row reduction), lanes, fold -> allocas
        self.columns: dict[int, dict[int, tuple[Algebra, Any]]] = {}  # id(column reduction) -> column -> alloca
        self.in_pass = False  # inside the loop of a stage, where row scalars are not kept
        self.in_block: Any = None  # index of the row in its block
        self.late: int | None = None  # the pass being written, when passes are rows apart
        self.in_ring: Any = None  # number of the row's row buffers then
        self.born: dict[int, int] = {}  # id([rows, 1] node) -> the pass that computes it
        self.queues: dict[int, tuple[DType, list[Any]]] = {}  # id([rows, 1] node) -> its values of the last turns
        self.before_rows: Any = None  # the code before the loop over the rows of a block
        self.filled: list[Slot] = []  # those that it fills
        self.partials: dict[int, Any] = {}  # id(row reduction) -> its lanes in each row of a block
        self.slots: dict[int, Slot] = {}  # id([rows, 1] node) -> its values in this block
        self.known_slots: dict[int, Slot] = {}  # the same of all blocks

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
            staged = self.write_staging(index, nest)
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
        columns = _reductions(nest.nodes, across_lanes=False)
        kept = [(node, stage) for stage in nest.stages for node in self.columns_in_registers(stage)]
        for node, stage in kept:
            self.keep_columns(node, stage)
        for node in columns:
            self.fill(node)
        if nest.flipped:
            self.row_values = {}
            for at, stage in enumerate(nest.stages):
                self.write_stage(index, at, stage, None)
        else:
            rows = self.extent(nest.rows)
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
            elif flat := self.as_one_row(nest):
                with self.build.if_else(self.rows_touch(nest)) as (then, other):
                    with then:
                        self.write_row(index, flat, I64(0))
                    with other, self.loop(I64(0), rows, 1) as row:
                        self.write_row(index, nest, row)
            else:
                with self.loop(I64(0), rows, 1) as row:
                    self.write_row(index, nest, row)
        for node, _ in kept:
            self.put_columns(node)
        for node in columns:
            self.finish_columns(node)

    def as_one_row(self, nest: RowNest) -> RowNest | None:
        """The nest over tiles whose rows are one behind the other, where that saves many of the lanes that a row's last
        vector lacks: elements are computed from elements, at a cost that may be written twice."""
        if self.tail or len(nest.stages) != 1 or nest.before or nest.stages[0].scalars:
            return None
        stage, rows, cols = nest.stages[0], nest.rows.static, nest.stages[0].cols.static
        if -(-cols // LANES) * LANES < 1.1 * cols or stage.cost > 2 * CHEAP_PASS:
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

    def rows_touch(self, nest: RowNest) -> Any:
        """Does each row begin in memory where the one before it ends, in all views of a pass?"""
        (stage,) = nest.stages
        views = [(self.reads[id(load)], load.tile) for load in stage.loads]
        views += [(self.writes[id(n)], n.operands[0].tile) for n in stage.nodes if n.op.name == "store"]
        touch: Any = I1(1)
        for view, tile in views:
            end = I64(tile.cols * tile.dtype.itemsize)
            touch = self.build.and_(touch, self.build.icmp_signed("==", view.rows, end))
        return touch

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
                for pointer, value in reversed([*zip(queue[1:], queue)]):
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

    def queued(self, node: Node, dtype: DType) -> Lanes:
        """A row scalar that an earlier pass computed some turns ago. Later passes are written first, so that the queue
        is as long as it has to be when the value is put in."""
        assert self.late is not None
        queue, place = self.queues.setdefault(id(node), (dtype, []))[1], APART * (self.late - self.born[id(node)])
        while len(queue) <= place:
            queue.append(self.build.alloca(IR_TYPES[dtype], name="late"))
        return self.one.load(queue[place], dtype)

    # A block of rows: each pass runs over all of them before the next. Row scalars live in slots, one lane a row.

    def write_block(self, index: int, nest: RowNest, first: Any, count: int) -> None:
        self.slots = {}
        loads = {id(o): o for node in nest.nodes for o in node.operands if o.op.name == "load" and o.is_tile}
        for load in loads.values():  # what loads read is read before any store of the row
            if load.tile.cols == 1 < load.tile.rows:
                with self.block_rows(index, -1, first, count) as lane:
                    self.keep_in_slot(load, self.row_value(lane, load))
        self.write_block_scalars(index, -1, first, count, nest.before)
        for at, stage in enumerate(nest.stages):
            if stage.nodes:
                together = self.reduced_together(stage, count)
                with self.block_rows(index, at, first, count) as lane:
                    self.write_stage(index, at, stage, lane.row, together)
                for node in together:
                    self.reduce_rows(index, at, first, count, node)
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
            if not isinstance(RULES[node.op.name], Map) or node.op.name == "store":
                with self.block_rows(index, at, first, count) as lane:
                    self.write_scalars(lane, [node])
                continue
            operands = []
            for operand in node.operands:
                if operand.is_tile and id(operand) not in self.slots:
                    with self.block_rows(index, at, first, count) as lane:
                        self.keep_in_slot(operand, self.row_value(lane, operand))
                if operand.is_tile:
                    slot = self.slots[id(operand)]
                    operands.append(self.wide.load(slot.lanes, slot.dtype))
                else:
                    operands.append(self.wide.splat(self.scalars[id(operand)].ir, self.scalars[id(operand)].dtype))
            self.keep_block_values(index, at, first, count, node, self.apply(self.wide, node, operands))

    def keep_block_values(self, index: int, at: int, first: Any, count: int, node: Node, value: Lanes) -> None:
        """The row scalars of a block, one lane a row."""
        slot = self.slot(node, value.dtype)
        self.wide.store(value, slot.lanes)
        self.wide.store(value, slot.memory)
        if id(node) in self.program.buffers:
            with self.block_rows(index, at, first, count) as lane:
                self.keep_row_value(lane, node, self.row_value(lane, node))

    def reduced_together(self, stage: Stage, count: int) -> list[Node]:
        """The row reductions of a pass whose trees are worth doing side by side: those of costly passes and short rows.

        A cheap pass is better off without stores: it can run while the stores of the pass before it wait for memory.
        """
        if count == 1 or LANES % count:
            return []
        steps = -(-stage.cols.static // LANES)
        costly = stage.cost > CHEAP_PASS or steps * stage.cost <= CHEAP_PASS
        return [n for n in _reductions(stage.nodes) if costly or reduce_cost(n) > 1]

    def reduce_rows(self, index: int, at: int, first: Any, count: int, node: Node) -> None:
        """A row reduction whose 16 lanes each row of a block has left in memory."""
        lanes = self.build.call(self.tree_of_rows(node, count), [self.partial(node)])
        total = self.finished(self.wide, RULES[node.op.name], node, Lanes(lanes, node.tile.dtype))
        self.keep_block_values(index, at, first, count, node, total)

    def partial(self, node: Node) -> Any:
        """Memory for 16 lanes of each row of a block."""
        if id(node) not in self.partials:
            kind = ir.ArrayType(self.wide.ir_type(node.tile.dtype), LANES)
            self.partials[id(node)] = self.build.alloca(kind, name="partial")
        return self.partials[id(node)]

    def tree_of_rows(self, node: Node, count: int) -> ir.Function:
        """The tree of `across` for several rows at once. Lane r of the result belongs to row r."""
        rule, dtype = reduce_rule(node), node.tile.dtype
        kind, name = self.wide.ir_type(dtype), f"tree_{node.op.name}_{dtype.value}_{count}"
        name += "_of_absolutes" * (rule is not RULES[node.op.name])

        def body(function: ir.Function) -> None:
            build = ir.Builder(function.append_basic_block("entry"))
            k = Algebra(build, LANES, self.features)
            rows = [k.load(build.gep(function.args[0], [I64(r)], source_etype=kind), dtype) for r in range(count)]
            build.ret(across_rows(k, rows, lambda x, y: rule.body(k, x, y)).ir)

        return self.module.internal(name, ir.FunctionType(kind, [POINTER]), body)

    def slot(self, node: Node, dtype: DType) -> Slot:
        """Where a row scalar is kept for the rows of a block."""
        if id(node) not in self.known_slots:
            kind = self.wide.ir_type(dtype)
            lanes, memory = (self.build.alloca(kind, name=name) for name in ("lanes", "rows"))
            self.known_slots[id(node)] = Slot(dtype, lanes, memory)
        return self.slots.setdefault(id(node), self.known_slots[id(node)])

    def keep_in_slot(self, node: Node, value: Lanes) -> None:
        """The value of this row into its lane."""
        k, slot = self.wide, self.slot(node, value.dtype)
        with self.build.goto_block(self.before_rows):  # lanes without a row hold something
            self.build.store(_zeros(k.ir_type(value.dtype)), slot.lanes)
        number = Lanes(ir.numbers(k.lanes), DType.I32)
        mine = k.eq(number, k.splat(self.build.trunc(self.in_block, I32), DType.I32))
        k.store(k.select(mine, k.splat(value.ir, value.dtype), k.load(slot.lanes, slot.dtype)), slot.lanes)
        self.filled.append(slot)

    def write_scalars(self, lane: Lane, nodes: list[Node]) -> None:
        """[rows, 1] values of one row, one after another."""
        for node in nodes:
            rule = RULES[node.op.name]
            if node.op.name == "store":
                dst, value = node.operands[0], self.row_value(lane, node.operands[1])
                view = self.writes[id(node)]
                pointer = self.move(view.address, self.build.mul(lane.row, view.rows))
                self.one.store(self.one.convert(value, dst.tile.dtype), pointer)
            elif isinstance(rule, Leaf):  # alloc, or iota of one column
                self.keep_row_value(lane, node, self.one.const(0, compute_dtype(node.tile.dtype)))
            elif isinstance(rule, Halve):
                base, dtype = self.row_in_memory(lane, node.operands[0])
                value = self.one.load(self.move(base, I64(rule.first * dtype.itemsize)), dtype)
                self.keep_row_value(lane, node, self.one.widen(value))
            else:
                self.keep_row_value(
                    lane, node, self.apply(self.one, node, [self.row_value(lane, o) for o in node.operands])
                )

    def keep_row_value(self, lane: Lane, node: Node, value: Lanes) -> None:
        self.row_values[id(node)] = value
        if self.in_block is not None:
            self.keep_in_slot(node, value)
        if self.late is not None and id(node) in self.queues:
            dtype, queue = self.queues[id(node)]
            self.one.store(self.one.convert(value, dtype), queue[0])
        buffer = self.program.buffers.get(id(node))
        if buffer is not None:
            row = I64(0) if lane.row is None else lane.row
            pointer = self.move(self.scratch, I64(buffer.offset), self.build.mul(row, I64(buffer.pitch)))
            self.one.store(self.one.convert(value, buffer.dtype), pointer)

    def row_value(self, lane: Lane, node: Node) -> Lanes:
        """The value of a [rows, 1] or [1, 1] tile (or a scalar) in this row; in a flipped nest, of a [1, 1] tile."""
        if not node.is_tile:
            return self.scalars[id(node)]
        if id(node) in self.row_values:
            return self.row_values[id(node)]
        if id(node) in self.slots and self.in_block is not None:
            slot = self.slots[id(node)]
            at = self.build.gep(slot.memory, [self.in_block], source_etype=IR_TYPES[slot.dtype])
            value = self.one.load(at, slot.dtype)
            if not self.in_pass:
                self.row_values[id(node)] = value
            return value
        if self.late is not None and self.born.get(id(node), self.late) < self.late:
            return self.queued(node, compute_dtype(node.tile.dtype))
        row = I64(0) if lane.row is None or node.tile.rows == 1 else lane.row
        if node.op.name == "load":
            view = self.reads[id(node)]
            pointer = self.move(view.address, self.build.mul(row, view.rows))
            value = self.one.load(pointer, node.tile.dtype)
        elif id(node) in self.program.buffers:
            buffer = self.program.buffers[id(node)]
            value = self.one.load(
                self.move(self.scratch, I64(buffer.offset), self.build.mul(row, I64(buffer.pitch))), buffer.dtype
            )
        elif node.op.name in ("iota_u32", "alloc"):
            value = self.one.const(0, node.tile.dtype)
        else:
            return self.apply(self.one, node, [self.row_value(lane, o) for o in node.operands])
        value = self.one.widen(value)
        if not self.in_pass:
            self.row_values[id(node)] = value
        return value

    def write_stage(self, index: int, at_stage: int, stage: Stage, row: Any, together: Sequence[Node] = ()) -> None:
        """One pass over the columns: full steps of 16 lanes or more, then the lanes that are left.

        together: reductions that `reduce_rows` will finish
        """
        reductions = _reductions(stage.nodes)
        lanes = self.lanes_taken(stage)
        for node in reductions:
            self.start_reduction(node, lanes)
        for node in stage.nodes:  # row scalars once, before the loop
            for operand in node.operands:
                if (
                    operand.is_tile
                    and (operand.tile.rows if row is None else operand.tile.cols) == 1
                    and node.op.name != "store"
                ):
                    self.row_value(Lane(self.one, index, at_stage, row), operand)
        self.in_pass = True
        count = self.extent(stage.cols)
        full: Any
        if isinstance(count, ir.Constant):
            at = 0
            for k, turns, steps in self.steps(stage):
                turn = steps * k.lanes
                with self.turns(turns, turn) as start:
                    for ahead in range(at, at + turn, k.lanes):
                        col = I64(ahead) if turns == 1 else self.build.add(start, I64(ahead))
                        self.write_step(stage, Lane(k, index, at_stage, row, col))
                at += turns * turn
            rest = count.constant - at
            if rest:
                self.write_step(stage, Lane(self.wide, index, at_stage, row, I64(at), _first_lanes(rest), I64(rest)))
        else:
            full = self.build.and_(count, I64(-LANES))
            with self.loop(I64(0), full, LANES) as col:
                self.write_step(stage, Lane(self.wide, index, at_stage, row, col))
            rest = self.build.sub(count, full)
            with self.build.if_then(self.build.icmp_signed("!=", rest, I64(0))):
                self.write_step(stage, Lane(self.wide, index, at_stage, row, full, self.first_lanes(rest), rest))
        self.in_pass = False
        for node in reductions:
            if node in together:
                kind = self.wide.ir_type(node.tile.dtype)
                here = self.build.gep(self.partial(node), [self.in_block], source_etype=kind)
                self.wide.store(self.folded(node, lanes), here)
            else:
                lane, total = Lane(self.one, index, at_stage, row), self.across(node, self.folded(node, lanes))
                self.keep_row_value(lane, node, self.finished(self.one, RULES[node.op.name], node, total))

    def steps(self, stage: Stage) -> Iterator[tuple[Algebra, int, int]]:
        """Whole steps of a pass: their lanes, turns of a loop, steps in each. Less than 16 lanes are left."""
        left = stage.cols.static
        widest = lanes_of(stage, self.target)
        for lanes in (widest >> i for i in range((widest // LANES).bit_length())):
            steps, left = divmod(left, lanes)
            together = max(steps, 1) if self.columns_in_registers(stage) else unrolled(stage)
            turns, single = divmod(steps, together)
            if turns:
                yield self.algebra(lanes), turns, together
            if single:
                yield self.algebra(lanes), 1, single

    def columns_in_registers(self, stage: Stage) -> list[Node]:
        """The column reductions of a pass, if few vectors hold them: then they stay in registers from row to row."""
        columns = _reductions(stage.nodes, across_lanes=False)
        vectors = -(-stage.cols.static // lanes_of(stage, self.target))
        fit = len(columns) * vectors <= COLUMN_REGISTERS and stage.cost * vectors <= 2 * UNROLLED_COST
        return columns if fit and isinstance(self.extent(stage.cols), ir.Constant) else []

    def lanes_taken(self, stage: Stage) -> dict[int, int]:
        """How many steps of how many lanes a pass takes; as many as there may be where extents are dynamic."""
        if not isinstance(self.extent(stage.cols), ir.Constant):
            return {LANES: -(-stage.cols.static // LANES)}
        found: dict[int, int] = {}
        for k, turns, steps in self.steps(stage):
            found[k.lanes] = found.get(k.lanes, 0) + turns * steps
        if stage.cols.static % LANES:
            found[LANES] = found.get(LANES, 0) + 1
        return found

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

    def write_step(self, stage: Stage, lane: Lane) -> None:
        for load in stage.loads:
            lane.values[id(load)] = self.read(lane, load, self.reads[id(load)], load.tile.dtype)
        for node in stage.nodes:
            rule = RULES[node.op.name]
            if node.op.name == "store":
                pairs = lane.pairs.get(id(node.operands[1])) or [(lane, self.value(lane, node.operands[1]))]
                for here, value in pairs:
                    self.put_result(here, node, value)
            elif isinstance(rule, Reduce):
                self.reduce(lane, node, reduce_rule(node))
            elif isinstance(rule, Interleave):
                lane.pairs[id(node)] = self.interleave(lane, node)
                for here, value in lane.pairs[id(node)]:
                    self.keep(here, node, value)
            else:
                value = self.halve(lane, node, rule.first) if isinstance(rule, Halve) else self.compute(lane, node)
                lane.values[id(node)] = value
                self.keep(lane, node, value)

    def keep(self, lane: Lane, node: Node, value: Lanes) -> None:
        """Write a value to its buffer, if it has one."""
        buffer = self.program.buffers.get(id(node))
        if buffer is not None:
            self.put(lane, self.buffer_view(buffer), value, node, buffer.dtype)
        elif id(node) in self.program.row_buffers:
            buffer = self.program.row_buffers[id(node)]
            self.store_lanes(lane, value, self.at_column(lane, self.row_buffer(buffer), buffer.dtype), buffer.dtype)

    def value(self, lane: Lane, node: Node) -> Lanes:
        """The lanes of an operand, in its compute dtype."""
        k = lane.k
        if not node.is_tile and self.scalars[id(node)].number is not None:
            return k.const(self.scalars[id(node)].number, self.scalars[id(node)].dtype)
        if not node.is_tile:
            return k.splat(self.scalars[id(node)].ir, self.scalars[id(node)].dtype)
        if (node.tile.rows if lane.row is None else node.tile.cols) == 1:
            scalar = self.row_value(lane, node)
            return k.splat(scalar.ir, scalar.dtype)
        if id(node) not in lane.values:
            lane.values[id(node)] = self.fetch(lane, node)
        return lane.values[id(node)]

    def fetch(self, lane: Lane, node: Node) -> Lanes:
        """A value that this pass did not compute: from memory, or again from its operands."""
        if id(node) in self.program.buffers:
            buffer = self.program.buffers[id(node)]
            return self.read(lane, node, self.buffer_view(buffer), buffer.dtype)
        if (
            id(node) in self.program.row_buffers and self.home[id(node)] == lane.nest
        ):  # it holds a row of its own nest
            buffer = self.program.row_buffers[id(node)]
            pointer = self.at_column(lane, self.row_buffer(buffer), buffer.dtype)
            return lane.k.widen(self.load_lanes(lane, pointer, buffer.dtype))
        if node.op.name == "load":
            return self.read(lane, node, self.reads[id(node)], node.tile.dtype)
        return self.compute(lane, node)

    def row_buffer(self, buffer: Buffer) -> Any:
        """Address of this row in a row buffer, which has a row for each of a block."""
        address = self.buffer_view(buffer).address
        row = self.in_ring if self.in_block is None else self.in_block
        return address if row is None else self.move(address, self.build.mul(row, I64(buffer.pitch)))

    def compute(self, lane: Lane, node: Node) -> Lanes:
        if node.op.name == "iota_u32":
            first = lane.k.splat(self.build.trunc(lane.col, I32), DType.U32)
            return lane.k.add(first, Lanes(ir.numbers(lane.k.lanes), DType.U32))
        if node.op.name == "alloc":
            return lane.k.const(0, compute_dtype(node.tile.dtype))
        return self.apply(lane.k, node, [self.value(lane, o) for o in node.operands])

    # ---- lanes and memory ------------------------------------------------------------------------------------------

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

    def put_result(self, lane: Lane, store: Node, value: Lanes) -> None:
        dst, view = store.operands[0], self.writes[id(store)]
        if id(dst) not in self.around or lane.mask is not None or lane.row is None:
            self.put(lane, view, value, dst)
            return
        pointer = self.at_column(lane, self.row_of(lane, view, dst.tile.rows), dst.tile.dtype)
        lane.k.store_around(lane.k.convert(value, dst.tile.dtype), pointer)

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

    def halve(self, lane: Lane, node: Node, first: int) -> Lanes:
        """Every second element of a row in memory: two loads, of what there is, and a shuffle."""
        base, dtype = self.row_in_memory(lane, node.operands[0])
        loaded = []
        for half, mask, _ in self.doubled(lane):
            at = self.build.add(self.build.mul(lane.col, I64(2)), I64(half * LANES))
            pointer = self.build.gep(base, [at], source_etype=IR_TYPES[dtype])
            loaded.append(lane.k.load(pointer, dtype, mask=mask).ir)
        picks = ir.Constant(ir.VectorType(I32, LANES), [2 * i + first for i in range(LANES)])
        found = Lanes(self.build.shuffle_vector(loaded[0], loaded[1], picks), dtype)
        return lane.k.widen(lane.k.convert(lane.k.widen(found), node.tile.dtype))

    def row_in_memory(self, lane: Lane, node: Node) -> tuple[Any, DType]:
        """Where this row of a value begins, and its elements' dtype there."""
        if node.op.name == "load":
            return self.row_of(lane, self.reads[id(node)], node.tile.rows), node.tile.dtype
        if id(node) in self.program.buffers:
            buffer = self.program.buffers[id(node)]
            return self.row_of(lane, self.buffer_view(buffer), node.tile.rows), buffer.dtype
        buffer = self.program.row_buffers[id(node)]
        return self.buffer_view(buffer).address, buffer.dtype

    def interleave(self, lane: Lane, node: Node) -> list[tuple[Lane, Lanes]]:
        """Two results of 16 lanes each, and where in the row they belong."""
        x, y = (self.value(lane, o) for o in node.operands)
        results = []
        for half, mask, count in self.doubled(lane):
            picks = ir.Constant(
                ir.VectorType(I32, LANES), [(half * LANES + i) // 2 + (i % 2) * LANES for i in range(LANES)]
            )
            value = Lanes(self.build.shuffle_vector(x.ir, y.ir, picks), x.dtype)
            col = self.build.add(self.build.mul(lane.col, I64(2)), I64(half * LANES))
            results.append((Lane(lane.k, lane.nest, lane.stage, lane.row, col, mask, count), value))
        return results

    def doubled(self, lane: Lane) -> Iterator[tuple[int, Lanes | None, Any]]:
        """Two vectors with twice the elements of this step: 0 or 1, their lanes that exist, and how many those are."""
        for half in (0, 1):
            if lane.mask is None:
                yield half, None, None
            elif isinstance(lane.count, ir.Constant):
                number = 2 * lane.count.constant - half * LANES
                yield half, _first_lanes(number) if number < LANES else None, I64(number)
            else:
                count = self.build.sub(self.build.mul(lane.count, I64(2)), I64(half * LANES))
                yield half, self.first_lanes(count), count

    # ---- reductions ------------------------------------------------------------------------------------------------

    def start_reduction(self, node: Node, steps: dict[int, int]) -> None:
        """Accumulators for steps of so many lanes. Floats: ACCUMULATORS of 16 lanes, or as many as will get a turn: the
        others would add nothing, to the bit. Integers may be added in any order, and an addition takes one cycle."""
        dtype = node.tile.dtype
        for lanes, count in _accumulated(node, steps).items():
            for at, fold in enumerate(self.folds(node)):
                k, most = self.algebra(lanes), INT_ACCUMULATORS if fold.dtype.is_int else ACCUMULATORS
                if dtype.is_float and (count > 2 or self.tail):
                    count = most
                queue = self.accumulators.setdefault((id(node), lanes, at), [])
                while len(queue) < min(count, most):
                    queue.append(self.build.alloca(k.ir_type(fold.dtype), name=node.op.name))
                for pointer in queue:
                    k.store(k.const(fold.start, fold.dtype), pointer)

    def folds(self, node: Node) -> tuple[Fold, ...]:
        """What the accumulators of a row reduction keep."""
        rule, dtype = reduce_rule(node), node.tile.dtype
        if rule.folds and dtype is DType.F32:
            return rule.folds
        return (Fold(dtype, rule.start(dtype), rule.body),)

    def reduce(self, lane: Lane, node: Node, rule: Reduce) -> None:
        """Fold the lanes of this step into the accumulators; lanes that do not exist leave theirs alone."""
        k, x = lane.k, self.value(lane, node.operands[0])
        if in_lanes(node):
            x = k.convert(x, node.tile.dtype)
            if x.dtype.is_int or k.lanes == LANES:
                self.take_turn(k, lane.mask, node, x)
                return
            for at in range(0, k.lanes, LANES):
                self.take_turn(self.wide, None, node, Lanes(self.build.lanes(x.ir, at, LANES), x.dtype))
            return
        buffer = self.program.buffers[id(node)]
        if id(node) in self.columns:
            k, pointer = self.columns[id(node)][lane.col.constant]
            k.store(rule.body(k, k.load(pointer, buffer.dtype), k.convert(x, buffer.dtype)), pointer)
            return
        pointer = self.at_column(lane, self.buffer_view(buffer).address, buffer.dtype)
        before = self.load_lanes(lane, pointer, buffer.dtype)
        self.store_lanes(lane, rule.body(k, before, k.convert(x, buffer.dtype)), pointer, buffer.dtype)

    def take_turn(self, k: Algebra, mask: Lanes | None, node: Node, x: Lanes) -> None:
        """Of a row's accumulators it is the first one's turn; then it goes to the back of the queue."""
        for at, fold in enumerate(self.folds(node)):
            queue = self.accumulators[id(node), k.lanes, at]
            values = [k.load(pointer, fold.dtype) for pointer in queue]
            after = fold.body(k, values[0], x if fold.dtype is x.dtype else k.bitcast(x, fold.dtype))
            after = after if mask is None else k.select(mask, after, values[0])
            for pointer, value in zip(queue, [*values[1:], after], strict=True):
                k.store(value, pointer)

    def folded(self, node: Node, steps: dict[int, int]) -> Lanes:
        """The accumulators in one of 16 lanes: 0 with 2 and 1 with 3, then the two. Where a sum of accumulators started
        in the queue does not matter to it. Wider ones, of integers, are halved first."""
        rule, found = reduce_rule(node), []
        for lanes in _accumulated(node, steps):
            k, results = self.algebra(lanes), []
            for at, fold in enumerate(self.folds(node)):
                parts = [k.load(pointer, fold.dtype) for pointer in self.accumulators[id(node), lanes, at]]
                while len(parts) > 1:
                    half = len(parts) // 2
                    parts = [fold.body(k, x, y) for x, y in zip(parts[:half], parts[half:], strict=True)]
                results += parts
            total = rule.join(k, *results) if rule.join is not None and len(results) > 1 else results[0]
            found.append(self.halved(rule, total, lanes))
        return found[0] if len(found) == 1 else rule.body(self.wide, *found)

    def halved(self, rule: Reduce, value: Lanes, lanes: int) -> Lanes:
        """The first half of the lanes with the second, until there are 16."""
        while lanes > LANES:
            lanes //= 2
            value = rule.body(self.algebra(lanes), *(Lanes(x, value.dtype) for x in self.halves(value.ir, lanes)))
        return value

    def halves(self, vector: Any, width: int) -> tuple[Any, Any]:
        """Lanes 0 to width - 1, and as many after them."""
        return self.build.lanes(vector, 0, width), self.build.lanes(vector, width, width)

    def across(self, node: Node, lanes: Lanes) -> Lanes:
        """The fixed tree: lanes 0-7 with 8-15, 0-3 with 4-7, 0-1 with 2-3, 0 with 1."""
        rule, dtype = reduce_rule(node), node.tile.dtype
        value = lanes.ir
        width = LANES
        while width > 1:
            width //= 2
            low, high = self.halves(value, width)
            value = (
                rule.body(
                    Algebra(self.build, width if width > 1 else 2, self.features),
                    Lanes(low, dtype),
                    Lanes(high, dtype),
                ).ir
                if width > 1
                else self.last_pair(rule, low, high, dtype)
            )
        return Lanes(value, dtype)

    def last_pair(self, rule: Reduce, low: Any, high: Any, dtype: DType) -> Any:
        first, second = (Lanes(self.build.extract_element(v, I32(0)), dtype) for v in (low, high))
        return rule.body(self.one, first, second).ir

    def finished(self, k: Algebra, rule: Any, node: Node, total: Lanes) -> Lanes:
        """A mean is divided by the number of elements there were."""
        if not rule.mean:
            return total
        count = self.count_of(node, rule)
        return k.div(total, k.splat(count.ir, count.dtype))

    def count_of(self, node: Node, rule: Reduce) -> Lanes:
        count = self.extent(self.program.extents.of(node.operands[0], rule.axis))
        if isinstance(count, ir.Constant):
            return self.one.const(count.constant, node.tile.dtype)
        return self.one.convert(Lanes(count, DType.I64), node.tile.dtype)

    def keep_columns(self, node: Node, stage: Stage) -> None:
        """An accumulator for each step of the pass, by its first column."""
        found, at = {}, 0
        for k, _, steps in [*self.steps(stage), (self.wide, 1, int(stage.cols.static % LANES > 0))]:
            for _ in range(steps):
                found[at] = k, self.build.alloca(k.ir_type(self.program.buffers[id(node)].dtype), name=node.op.name)
                at += k.lanes
        self.columns[id(node)] = found

    def put_columns(self, node: Node) -> None:
        """Column accumulators that were in registers, to their buffer."""
        buffer = self.program.buffers[id(node)]
        for at, (k, pointer) in self.columns[id(node)].items():
            value, left = k.load(pointer, buffer.dtype), buffer.cols - at
            here = self.build.gep(self.buffer_view(buffer).address, [I64(at)], source_etype=IR_TYPES[buffer.dtype])
            if left < k.lanes:
                self.store_first(value.ir, here, buffer.dtype, left)
            else:
                k.store(value, here)

    def fill(self, node: Node) -> None:
        """Column accumulators at their neutral element."""
        rule, dtype = reduce_rule(node), self.program.buffers[id(node)].dtype
        for k, pointer in self.columns[id(node)].values() if id(node) in self.columns else self.accumulated(node):
            k.store(k.const(rule.start(dtype), dtype), pointer)

    def finish_columns(self, node: Node) -> None:
        rule, dtype = reduce_rule(node), self.program.buffers[id(node)].dtype
        if rule.mean:
            count = self.count_of(node, rule)
            for k, pointer in self.accumulated(node):
                k.store(k.div(k.load(pointer, dtype), k.splat(count.ir, count.dtype)), pointer)

    def accumulated(self, node: Node) -> Iterator[tuple[Algebra, Any]]:
        """Column accumulators: whole vectors of them in a loop, then single ones."""
        buffer = self.program.buffers[id(node)]
        base, whole = self.buffer_view(buffer).address, buffer.cols // LANES * LANES
        for k, first, end in ((self.wide, 0, whole), (self.one, whole, buffer.cols)):
            if first < end:
                with self.loop(I64(first), I64(end), k.lanes) as col:
                    yield k, self.build.gep(base, [col], source_etype=IR_TYPES[buffer.dtype])

def _first_lanes(count: int) -> Lanes:
    """A mask of the first `count` lanes."""
    return Lanes(ir.Constant(ir.VectorType(I1, LANES), [int(i < count) for i in range(LANES)]), None)


def _reductions(nodes: list[Node], across_lanes: bool = True) -> list[Node]:
    """Those of what lies in lanes, or those from row to row."""
    return [node for node in nodes if isinstance(RULES[node.op.name], Reduce) and in_lanes(node) == across_lanes]


def lanes_of(stage: Stage, target: Target) -> int:
    """Lanes of a step: more than LANES in costly passes, and where every value is narrow or vectors would be short."""
    if costly(stage):
        return max(LANES, ABREAST * target.vector_bits // _widest(stage))
    if not all(_in_any_lanes(n) for n in stage.nodes):
        return LANES
    return LANES * max(1, 32 // _widest(stage))


def costly(stage: Stage) -> bool:
    """Does a step take ABREAST vectors? A function's instructions wait for each other, and chains side by side take up
    to 20 % less time than one after the other: a core looks ahead for less than what it could do at once."""
    return CHEAP_PASS < stage.cost <= MOST_COSTLY and all(_splits(n) for n in stage.nodes) and _widest(stage) >= 32


def _widest(stage: Stage) -> int:
    """Bits of the widest value, in the dtype it is computed in."""
    found = [(n, o.type.dtype) for n in stage.nodes for o in (n, *n.operands) if o.type is not None]
    return max((dtype if _on_bits(node) else compute_dtype(dtype)).bits for node, dtype in found)


def _on_bits(node: Node) -> bool:
    rule = RULES[node.op.name]
    return isinstance(rule, Map) and rule.on_bits


def _splits(node: Node) -> bool:
    """Can a step of several vectors do it?"""
    return isinstance(RULES[node.op.name], (Map, Reduce))


def _in_any_lanes(node: Node) -> bool:
    """Does the result not depend on how many lanes a step has? Row sums of floats are defined by 16."""
    rule = RULES[node.op.name]
    return isinstance(rule, Map) or isinstance(rule, Reduce) and (not in_lanes(node) or node.tile.dtype.is_int)


def _accumulated(node: Node, steps: dict[int, int]) -> dict[int, int]:
    """Steps of how many lanes a row reduction takes: floats, whose order matters, are cut into vectors of 16."""
    if node.tile.dtype.is_float:
        return {LANES: sum(lanes * count for lanes, count in steps.items()) // LANES}
    return steps


def unrolled(stage: Stage) -> int:
    """Steps in one turn of the loop: several if they are short."""
    cost = stage.cost * (ABREAST if costly(stage) else 1)
    return next(n for n in (MOST_UNROLLED, 4, 2, 1) if n * cost <= UNROLLED_COST or n == 1)


def _zeros(kind: Any) -> Any:
    return ir.Constant(kind, None)
