"""Reductions: of the lanes of a row, in accumulators and then a fixed tree; of columns, from row to row."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial, reduce
from typing import Any

from pto_wsp.lower import ir
from pto_wsp.lower.algebra import IR_TYPES, Algebra, Lanes, across_rows
from pto_wsp.lower.lanes import Lane
from pto_wsp.lower.loops import ACCUMULATORS, LANES, LoopProgram, in_lanes, reduce_rule
from pto_wsp.lower.row_scalars import RowScalars
from pto_wsp.lower.rules import RULES, Fold, Reduce
from pto_wsp.lower.vectors import I32, I64, POINTER, Target
from pto_wsp.trace.graph import Node
from pto_wsp.types import DType

INT_ACCUMULATORS = 2  # for a row reduction of integers; ACCUMULATORS says how many floats have


class Reductions(RowScalars):
    """The function of a kernel as far as reductions go."""

    def __init__(self, program: LoopProgram, function: ir.Function, tail: bool, target: Target):
        super().__init__(program, function, tail, target)
        self.accumulators: dict[tuple[int, int, int], list[Any]] = {}  # id(row reduction), lanes, fold -> allocas
        self.columns: dict[int, dict[int, tuple[Algebra, Any]]] = {}  # id(column reduction) -> column -> alloca
        self.partials: dict[int, Any] = {}  # id(row reduction) -> its lanes in each row of a block

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

    def reduce(self, lane: Lane, node: Node, rule: Reduce, x: Lanes) -> None:
        """Fold x, the lanes of this step, into the accumulators; lanes that do not exist leave theirs alone."""
        k = lane.k
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
        return reduce(partial(rule.body, self.wide), found)

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

    def partial(self, node: Node) -> Any:
        """Memory for 16 lanes of each row of a block."""
        if id(node) not in self.partials:
            kind = ir.ArrayType(self.wide.ir_type(node.tile.dtype), LANES)
            self.partials[id(node)] = self.build.alloca(kind, name="partial")
        return self.partials[id(node)]

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


def reducing(nodes: list[Node], across_lanes: bool = True) -> list[Node]:
    """Those of what lies in lanes, or those from row to row."""
    return [node for node in nodes if isinstance(RULES[node.op.name], Reduce) and in_lanes(node) == across_lanes]


def _accumulated(node: Node, steps: dict[int, int]) -> dict[int, int]:
    """Steps of how many lanes a row reduction takes: floats, whose order matters, are cut into vectors of 16."""
    if node.tile.dtype.is_float:
        return {LANES: sum(lanes * count for lanes, count in steps.items()) // LANES}
    return steps
