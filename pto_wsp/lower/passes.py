"""A pass over the columns of a row: full steps of 16 lanes or more, then the lanes that are left. Start reading at
`write_stage`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from pto_wsp.lower import ir
from pto_wsp.lower.algebra import IR_TYPES, Algebra, Lanes, compute_dtype
from pto_wsp.lower.fuse import CHEAP_PASS
from pto_wsp.lower.lanes import Lane, first_lanes
from pto_wsp.lower.loops import LANES, Buffer, LoopProgram, RowNest, Stage, in_lanes, reduce_rule
from pto_wsp.lower.reductions import Reductions, reducing
from pto_wsp.lower.rules import RULES, Halve, Interleave, Map, Reduce
from pto_wsp.lower.vectors import I32, I64, Target
from pto_wsp.trace.extents import Extent
from pto_wsp.trace.graph import Node
from pto_wsp.types import DType

UNROLLED_COST = 64  # vector instructions, roughly, up to which steps are written out in one turn of a loop
MOST_UNROLLED = 8
COLUMN_REGISTERS = 16  # vectors of column sums that stay in registers, where a CPU has enough of them
ABREAST = 4  # vectors of a step of a costly pass
ABREAST_COST = 512  # vector instructions, roughly, beyond which they are half as many: LLVM takes 40 us for each


class Passes(Reductions):
    """The function of a kernel as far as passes over rows go."""

    def __init__(self, program: LoopProgram, function: ir.Function, tail: bool, target: Target):
        super().__init__(program, function, tail, target)
        self.around: set[int] = set()  # ids of parameters that are stored around the cache
        self.in_ring: Any = None  # number of the row's row buffers, when passes are rows apart

    def write_stage(self, index: int, at_stage: int, stage: Stage, row: Any, together: Sequence[Node] = ()) -> None:
        """One pass over the columns: full steps of 16 lanes or more, then the lanes that are left.

        row       its index; None in a flipped nest
        together  reductions that `reduce_rows` will finish
        """
        reduced, lanes = reducing(stage.nodes), self.lanes_taken(stage)
        for node in reduced:
            self.start_reduction(node, lanes)
        here = Lane(self.one, index, at_stage, row)
        self.read_row_scalars(stage, here)
        self.in_pass, count = True, self.extent(stage.cols)
        if isinstance(count, ir.Constant):
            self.write_steps(stage, here)
        else:
            self.write_dynamic_steps(stage, here, count)
        self.in_pass = False
        for node in reduced:
            if node in together:
                kind = self.wide.ir_type(node.tile.dtype)
                pointer = self.build.gep(self.partial(node), [self.in_block], source_etype=kind)
                self.wide.store(self.folded(node, lanes), pointer)
            else:
                total = self.across(node, self.folded(node, lanes))
                self.keep_row_value(here, node, self.finished(self.one, RULES[node.op.name], node, total))

    def read_row_scalars(self, stage: Stage, here: Lane) -> None:
        """Once, before the loop over the columns."""
        for node in stage.nodes:
            for operand in node.operands if node.op.name != "store" else ():
                if operand.is_tile and self.is_same_in_all(here, operand):
                    self.row_value(here, operand)

    def is_same_in_all(self, lane: Lane, node: Node) -> bool:
        """Is there one value for all lanes of a row (in a flipped nest: of the column)?"""
        return (node.tile.rows if lane.row is None else node.tile.cols) == 1

    def write_steps(self, stage: Stage, here: Lane) -> None:
        """All steps of a pass whose extent is known."""
        at = stage.first
        for k, turns, steps in self.steps(stage):
            turn = steps * k.lanes
            with self.turns(turns, turn) as start:
                for ahead in range(at, at + turn, k.lanes):
                    col = I64(ahead) if turns == 1 else self.build.add(start, I64(ahead))
                    self.write_step(stage, Lane(k, here.nest, here.stage, here.row, col))
            at += turns * turn
        if rest := stage.first + stage.cols.static - at:
            mask = first_lanes(rest)
            self.write_step(stage, Lane(self.wide, here.nest, here.stage, here.row, I64(at), mask, I64(rest)))

    def write_dynamic_steps(self, stage: Stage, here: Lane, count: Any) -> None:
        """Those of a pass over `count` columns, which is known when it runs."""
        at: Any = I64(0)
        for width in self.widths(stage):
            full = self.build.and_(count, I64(-width))
            with self.loop(at, full, width) as col:
                self.write_step(stage, Lane(self.algebra(width), here.nest, here.stage, here.row, col))
            at = full
        rest = self.build.sub(count, at)
        with self.build.if_then(self.build.icmp_signed("!=", rest, I64(0))):
            mask = self.first_lanes(rest)
            self.write_step(stage, Lane(self.wide, here.nest, here.stage, here.row, at, mask, rest))

    def keep_columns(self, node: Node, stage: Stage) -> None:
        """An accumulator for each step of the pass, by its first column."""
        found, at = {}, stage.first
        for k, _, steps in [*self.steps(stage), (self.wide, 1, int(stage.cols.static % LANES > 0))]:
            for _ in range(steps):
                found[at] = k, self.build.alloca(k.ir_type(self.program.buffers[id(node)].dtype), name=node.op.name)
                at += k.lanes
        self.columns[id(node)] = found

    def column_blocks(self, nest: RowNest) -> list[Stage]:
        """The pass of a nest that only reduces columns, in parts whose sums stay in registers from row to row; none if
        all of them do, or if a row is more than that pass."""
        if self.tail or nest.flipped or len(nest.stages) != 1 or nest.before or nest.stages[0].scalars:
            return []
        (stage,) = nest.stages
        columns = reducing(stage.nodes, across_lanes=False)
        if not columns or reducing(stage.nodes) or not all(_splits(n) for n in stage.nodes):
            return []
        if self.columns_in_registers(stage):
            return []
        lanes = lanes_of(stage, self.target)
        registers = self.target.registers // 2 * self.target.vector_bits // (lanes * _widest(stage)) // len(columns)
        block, cols = min(registers, 2 * UNROLLED_COST // stage.cost) * lanes, stage.cols.static
        if block < 2 * lanes:
            return []
        return [replace(stage, cols=Extent(min(block, cols - at)), first=at) for at in range(0, cols, block)]

    def lanes_taken(self, stage: Stage) -> dict[int, int]:
        """How many steps of how many lanes a pass takes; as many as there may be where extents are dynamic."""
        if not isinstance(self.extent(stage.cols), ir.Constant):
            return {lanes: -(-stage.cols.static // lanes) for lanes in self.widths(stage)}
        found: dict[int, int] = {}
        for k, turns, steps in self.steps(stage):
            found[k.lanes] = found.get(k.lanes, 0) + turns * steps
        if stage.cols.static % LANES:
            found[LANES] = found.get(LANES, 0) + 1
        return found

    def widths(self, stage: Stage) -> dict[int, None]:
        """Lanes of the steps of a pass whose extent is dynamic."""
        return dict.fromkeys((lanes_of(stage, self.target), LANES))

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
        columns = reducing(stage.nodes, across_lanes=False)
        if not columns:  # also where all of the pass has moved into a later one
            return []
        vectors = -(-stage.cols.static // lanes_of(stage, self.target))
        fit = len(columns) * vectors <= COLUMN_REGISTERS and stage.cost * vectors <= 2 * UNROLLED_COST
        return columns if fit and isinstance(self.extent(stage.cols), ir.Constant) else []

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
                self.reduce(lane, node, reduce_rule(node), self.value(lane, node.operands[0]))
            elif isinstance(rule, Interleave):
                lane.pairs[id(node)] = self.interleave(lane, node)
                for here, value in lane.pairs[id(node)]:
                    self.keep(here, node, value)
            else:
                value = self.halve(lane, node, rule.first) if isinstance(rule, Halve) else self.compute(lane, node)
                lane.values[id(node)] = value
                self.keep(lane, node, value)

    def put_result(self, lane: Lane, store: Node, value: Lanes) -> None:
        dst, view = store.operands[0], self.writes[id(store)]
        if id(dst) not in self.around or lane.mask is not None or lane.row is None:
            self.put(lane, view, value, dst)
            return
        pointer = self.at_column(lane, self.row_of(lane, view, dst.tile.rows), dst.tile.dtype)
        lane.k.store_around(lane.k.convert(value, dst.tile.dtype), pointer)

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
        if self.is_same_in_all(lane, node):
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
        if id(node) in self.program.row_buffers and self.home[id(node)] == lane.nest:  # it holds a row of its own nest
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

    def doubled(self, lane: Lane) -> Iterator[tuple[int, Lanes | None, Any]]:
        """Two vectors with twice the elements of this step: 0 or 1, their lanes that exist, and how many those are."""
        for half in (0, 1):
            if lane.mask is None:
                yield half, None, None
            elif isinstance(lane.count, ir.Constant):
                number = 2 * lane.count.constant - half * LANES
                yield half, first_lanes(number) if number < LANES else None, I64(number)
            else:
                count = self.build.sub(self.build.mul(lane.count, I64(2)), I64(half * LANES))
                yield half, self.first_lanes(count), count

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


def lanes_of(stage: Stage, target: Target) -> int:
    """Lanes of a step: more than LANES in costly passes, and where every value is narrow or vectors would be short."""
    if costly(stage):
        return max(LANES, abreast(stage) * target.vector_bits // _widest(stage))
    if not all(_in_any_lanes(n) for n in stage.nodes):
        return LANES
    return LANES * max(1 + stores_bf16(stage), 32 // _widest(stage))


def abreast(stage: Stage) -> int:
    """Vectors of a step of a costly pass."""
    return ABREAST if ABREAST * stage.cost <= ABREAST_COST else ABREAST // 2


def costly(stage: Stage) -> bool:
    """Does a step take several vectors? A function's instructions wait for each other, and a core looks ahead for less
    than what it could do at once: with four chains side by side instead of one, a silu takes 0.8 of the time, twelve
    functions in a row a third."""
    return stage.cost > CHEAP_PASS and all(_splits(n) for n in stage.nodes) and _widest(stage) >= 32


def _widest(stage: Stage) -> int:
    """Bits of the widest value, in the dtype it is computed in."""
    found = [(n, o.type.dtype) for n in stage.nodes for o in (n, *n.operands) if o.type is not None]
    return max((dtype if _on_bits(node) else compute_dtype(dtype)).bits for node, dtype in found)


def _on_bits(node: Node) -> bool:
    rule = RULES[node.op.name]
    return isinstance(rule, Map) and rule.on_bits


def stores_bf16(stage: Stage) -> bool:
    """Are results halves of the vectors that they are computed in? Then one instruction takes them from two."""
    return any(n.op.name == "store" and n.operands[0].tile.dtype is DType.BF16 for n in stage.nodes)


def _splits(node: Node) -> bool:
    """Can a step of several vectors do it?"""
    return isinstance(RULES[node.op.name], (Map, Reduce))


def _in_any_lanes(node: Node) -> bool:
    """Does the result not depend on how many lanes a step has? Row sums of floats are defined by 16."""
    rule = RULES[node.op.name]
    return isinstance(rule, Map) or isinstance(rule, Reduce) and (not in_lanes(node) or node.tile.dtype.is_int)


def unrolled(stage: Stage) -> int:
    """Steps in one turn of the loop: several if they are short."""
    cost = stage.cost * (abreast(stage) if costly(stage) else 1 + stores_bf16(stage))
    return next(n for n in (MOST_UNROLLED, 4, 2, 1) if n * cost <= UNROLLED_COST or n == 1)
