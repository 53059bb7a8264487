"""Row scalars: the [rows, 1] values of a row nest, and where they wait for the passes that read them.

A row at a time they are values of the LLVM function. For a block of rows they are in slots, one lane a row. Where
passes are some rows apart, they are in queues.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pto_wsp.lower import ir
from pto_wsp.lower.algebra import IR_TYPES, Lanes, compute_dtype
from pto_wsp.lower.lanes import InLanes, Lane
from pto_wsp.lower.loops import APART, LoopProgram
from pto_wsp.lower.rules import RULES, Halve, Leaf
from pto_wsp.lower.vectors import I32, I64, Target
from pto_wsp.trace.graph import Node
from pto_wsp.types import DType


@dataclass(frozen=True)
class Slot:
    """A row scalar of all rows of a block, one lane a row: 16 lanes, twice.

    `lanes` is only loaded and stored whole, so that LLVM keeps it in a register; passes read single rows from `memory`.
    Rows that were stored there one by one could not be read as one vector before all earlier stores have left the core.
    """

    dtype: DType
    lanes: Any
    memory: Any


class RowScalars(InLanes):
    """The function of a kernel as far as row scalars go."""

    def __init__(self, program: LoopProgram, function: ir.Function, tail: bool, target: Target):
        super().__init__(program, function, tail, target)
        self.row_values: dict[int, Lanes] = {}  # id([rows, 1] node) -> value in this row
        self.in_pass = False  # inside the loop of a stage, where row scalars are not kept
        self.in_block: Any = None  # index of the row in its block
        self.before_rows: Any = None  # the code before the loop over the rows of a block
        self.filled: list[Slot] = []  # those that it fills
        self.slots: dict[int, Slot] = {}  # id([rows, 1] node) -> its values in this block
        self.known_slots: dict[int, Slot] = {}  # the same of all blocks
        self.late: int | None = None  # the pass being written, when passes are rows apart
        self.born: dict[int, int] = {}  # id([rows, 1] node) -> the pass that computes it
        self.queues: dict[int, tuple[DType, list[Any]]] = {}  # id([rows, 1] node) -> its values of the last turns

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

    def queued(self, node: Node, dtype: DType) -> Lanes:
        """A row scalar that an earlier pass computed some turns ago. Later passes are written first, so that the queue
        is as long as it has to be when the value is put in."""
        assert self.late is not None
        queue, place = self.queues.setdefault(id(node), (dtype, []))[1], APART * (self.late - self.born[id(node)])
        while len(queue) <= place:
            queue.append(self.build.alloca(IR_TYPES[dtype], name="late"))
        return self.one.load(queue[place], dtype)

    def slot(self, node: Node, dtype: DType) -> Slot:
        """Where a row scalar is kept for the rows of a block."""
        if id(node) not in self.known_slots:
            kind = self.wide.ir_type(dtype)
            lanes, memory = (self.build.alloca(kind, name=name) for name in ("lanes", "rows"))
            self.known_slots[id(node)] = Slot(dtype, lanes, memory)
        return self.slots.setdefault(id(node), self.known_slots[id(node)])

    def put_in_slot(self, node: Node, values: Lanes) -> None:
        """The values of all rows of the block."""
        slot = self.slot(node, values.dtype)
        self.wide.store(values, slot.lanes)
        self.wide.store(values, slot.memory)

    def keep_in_slot(self, node: Node, value: Lanes) -> None:
        """The value of this row into its lane."""
        k, slot = self.wide, self.slot(node, value.dtype)
        with self.build.goto_block(self.before_rows):  # lanes without a row hold something
            self.build.store(ir.Constant(k.ir_type(value.dtype), None), slot.lanes)
        number = Lanes(ir.numbers(k.lanes), DType.I32)
        mine = k.eq(number, k.splat(self.build.trunc(self.in_block, I32), DType.I32))
        k.store(k.select(mine, k.splat(value.ir, value.dtype), k.load(slot.lanes, slot.dtype)), slot.lanes)
        self.filled.append(slot)

    def row_in_memory(self, lane: Lane, node: Node) -> tuple[Any, DType]:
        """Where this row of a value begins, and its elements' dtype there."""
        if node.op.name == "load":
            return self.row_of(lane, self.reads[id(node)], node.tile.rows), node.tile.dtype
        if id(node) in self.program.buffers:
            buffer = self.program.buffers[id(node)]
            return self.row_of(lane, self.buffer_view(buffer), node.tile.rows), buffer.dtype
        buffer = self.program.row_buffers[id(node)]
        return self.buffer_view(buffer).address, buffer.dtype
