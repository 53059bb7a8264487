"""Dot products: a matrix by few columns, or few rows by a matrix that lies along k.

Lanes run along k, so that the large operand is read once, as it lies: nothing is transposed, little is packed. The
value of an element is defined in lower/matmul.py, whose functions these are. A block is a few rows of the large
operand by a few columns of the other one; each has a vector of sums, and their trees are computed side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pto_wsp.lower import ir
from pto_wsp.lower.algebra import Algebra, Lanes, across_rows
from pto_wsp.lower.packing import packer, start_at_acc
from pto_wsp.lower.vectors import (
    I64,
    Edge,
    Lane,
    Target,
    aligned,
    counted,
    lanes_along_k,
    minimum,
    move,
    multiply_add,
    opaque,
    shared,
    split,
)
from pto_wsp.types import DType

if TYPE_CHECKING:
    from pto_wsp.lower.matmul import MatmulSpec

__all__ = ["DOT_LANES", "FEW", "LEAST_K", "DotPlan", "Dots"]

FEW = 8             # rows or columns at most of an operand whose product with rows along k is computed in lanes along k
LEAST_K = 8         # for each of the few: below that, adding up lanes costs more than it saves
DOT_LANES = 16      # of floats, whatever a vector holds: the order of sums does not depend on the CPU
CHUNK = 32          # rows that are packed at a time where they do not lie along k after all


@dataclass(frozen=True, slots=True)
class DotPlan:
    """The operand that lies along k is `big`, [rows, k]; the other one `few`, [columns, k], packed if it is apart."""

    lane: Lane
    big: DType
    few: DType
    most: tuple[int, int, int]      # rows of big, columns of few, k
    height: int                     # rows in a block
    columns: tuple[tuple[int, int], ...]    # runs of blocks of columns: (how many, how wide)
    rest: bool                      # may k end within a step?
    with_a: bool                    # rows of big are rows of c, else they are its columns

    @staticmethod
    def of(spec: MatmulSpec, target: Target) -> DotPlan:
        group = 2 if target.pair_dot and spec.a.bits == 8 else 1
        of_ints = target.vector_bits // spec.result.bits        # whose sums are the same in any order
        lane = Lane(spec.result, group, of_ints if spec.result.is_int else DOT_LANES)
        big, few = (spec.a, spec.b) if spec.along_k == "a" else (spec.b, spec.a)
        rows, columns = (spec.m, spec.n) if spec.along_k == "a" else (spec.n, spec.m)
        registers = lane.count * lane.dtype.bits // target.vector_bits      # that the lanes take
        height, width = _dot_block(rows, columns, (target.registers - group + 1) // max(registers, 1), registers)
        rest = spec.tail or spec.k % (lane.count * group) != 0
        return DotPlan(lane, big, few, (rows, columns, spec.k), height, split(columns, width, False), rest,
                        spec.along_k == "a")

    @property
    def step(self) -> int:
        """Values of k in the lanes."""
        return self.lane.count * self.lane.group

    @property
    def few_pitch(self) -> int:
        """Bytes of a packed column; after the last step there is room for one more."""
        return (self.most[2] // self.step + 1) * self.lane.count * self.lane.size

    @property
    def few_bytes(self) -> int:
        return aligned(self.most[1] * self.few_pitch)

    @property
    def scratch_bytes(self) -> int:
        return self.few_bytes + aligned(min(CHUNK, self.most[0]) * self.most[2] * self.big.itemsize)


def _dot_block(rows: int, columns: int, values: int, registers: int) -> tuple[int, int]:
    """(rows, columns) of a block: the cheapest whose sums fit with what is multiplied. `values` fit in all registers.

    In cycles: two multiply-adds or loads a cycle, sums that wait 4.5 cycles for themselves.
    """
    def price(block: tuple[int, int]) -> float:
        height, width = block
        return -(-rows // height) * sum(
            count * (max(height * w * registers / 2, (height + w) * registers / 2, 4.5) + 0.1 * (height + w))
            for count, w in split(columns, width, False))

    blocks = [(h, w) for h in (8, 4, 2, 1) for w in range(1, columns + 1) if h * w + w + 1 <= values or h == w == 1]
    return min(blocks, key=price)


class Dots:
    """Emits the loops over chunks of big's rows and over the blocks of a chunk."""

    def __init__(self, function: ir.Function, spec: MatmulSpec, target: Target):
        self.spec, self.target, self.plan, self.module = spec, target, DotPlan.of(spec, target), function.module
        self.build = ir.Builder(function.append_basic_block("entry"))
        at: dict[str, Any] = {"m": I64(spec.m), "n": I64(spec.n), "k": I64(spec.k)}
        at |= {argument.name: argument for argument in function.args}
        size, with_a = I64(spec.result.itemsize), self.plan.with_a
        at["c_cs"] = size
        names = [("rows", "m", "n"), ("columns", "n", "m"), ("big", "a", "b"), ("big_rows", "a_rs", "b_cs"),
                 ("big_k", "a_cs", "b_rs"), ("few", "b", "a"), ("few_columns", "b_cs", "a_rs"),
                 ("few_k", "b_rs", "a_cs"), ("c_rows", "c_rs", "c_cs"), ("c_columns", "c_cs", "c_rs")]
        if spec.accumulate:
            start_at_acc(self.build, at, spec.result, target)
            names += [("acc_rows", "acc_rs", "acc_cs"), ("acc_columns", "acc_cs", "acc_rs")]
        self.at = at | {name: at[x if with_a else y] for name, x, y in names}

    def emit(self) -> None:
        few, few_columns = self.prepare_few()
        counted(self.build, 0, self.at["rows"], CHUNK, lambda start: self.chunk(start, few, few_columns))
        self.build.ret_void()

    def prepare_few(self) -> tuple[Any, Any]:
        """Address and column stride of lanes along k; behind the last ones of a packed column is what adds nothing."""
        at, build, plan, lane = self.at, self.build, self.plan, self.plan.lane
        in_place = not self.spec.tail and not plan.rest and plan.few is lane.dtype
        apart = build.icmp_signed("!=", at["few_k"], I64(lane.size)) if in_place else ir.IntType(1)(1)
        with build.if_then(apart):
            if plan.rest:
                last = build.mul(build.udiv(at["k"], I64(plan.step)), I64(lane.count * lane.size))
                k = Algebra(build, lane.count, self.target.features)
                nothing = k.const(-0.0 if lane.dtype.is_float else 0, lane.dtype)
                counted(build, 0, at["columns"], 1, lambda column: k.store(
                    nothing, move(build, move(build, at["scratch"], build.mul(column, I64(plan.few_pitch))), last)))
            build.call(self.packer(plan.few, lane.value, plan.most[1]),
                       [at["few"], at["few_columns"], at["few_k"], at["scratch"], I64(plan.few_pitch),
                        at["columns"], at["k"]])
        return (build.select(apart, at["scratch"], at["few"]),
                build.select(apart, I64(plan.few_pitch), at["few_columns"]))

    def packer(self, source: DType, to: DType, few: int = 0) -> ir.Function:
        lane = Lane(to, 1, self.target.vector_bits // to.bits)
        return packer(self.module, source, lane.at_most(self.spec.k), few)

    def chunk(self, start: Any, few: Any, few_columns: Any) -> None:
        at, build, plan = self.at, self.build, self.plan
        rows = minimum(build, build.sub(at["rows"], start), I64(CHUNK))
        here = move(build, at["big"], build.mul(start, at["big_rows"]))
        packed, pitch = move(build, at["scratch"], plan.few_bytes), I64(plan.most[2] * plan.big.itemsize)
        apart = build.icmp_signed("!=", at["big_k"], I64(plan.big.itemsize))
        with build.if_then(apart, likely=False):
            build.call(self.packer(plan.big, plan.big),
                       [here, at["big_rows"], at["big_k"], packed, pitch, rows, at["k"]])
        big, big_rows = build.select(apart, packed, here), build.select(apart, pitch, at["big_rows"])
        place = {name: move(build, at[name], build.mul(start, at[f"{name}_rows"]))
                 for name in ("c", "acc") if name in at}

        def block(row: Any) -> None:
            first = 0
            for count, width in plan.columns:
                for column in range(first, first + count * width, width):
                    arguments = [move(build, big, build.mul(row, big_rows)), big_rows,
                                 move(build, few, build.mul(I64(column), few_columns)), few_columns, at["k"]]
                    for name, pointer in place.items():
                        pointer = move(build, pointer, build.mul(row, at[f"{name}_rows"]))
                        pointer = move(build, pointer, build.mul(I64(column), at[f"{name}_columns"]))
                        arguments += [pointer, at[f"{name}_rs"]]
                    if self.limited:
                        left = build.sub(rows, row), build.sub(at["columns"], I64(column))
                        arguments += left if plan.with_a else reversed(left)
                    build.call(self.kernel(width), arguments)
                first += count * width

        counted(build, 0, rows, plan.height, block)

    @property
    def limited(self) -> bool:
        return self.spec.tail or self.plan.most[0] % self.plan.height != 0

    def kernel(self, width: int) -> ir.Function:
        """A function that computes `height` rows of big by `width` columns of few, or only m x n of c."""
        plan, acc = self.plan, self.spec.accumulate
        names = ["*big", "big_rows", "*few", "few_columns", "k", "*c", "c_rs"]
        names += ["*acc", "acc_rs"] * acc + ["m", "n"] * self.limited
        kind = f"{plan.big.value}_{plan.lane.dtype.value}{'_pairs' * (plan.lane.group > 1)}"
        suffix = f"_{self.spec.along_k}" + "_acc" * acc + "_limited" * self.limited + "_rest" * plan.rest
        return shared(self.module, f"matmul_dots_{plan.height}x{width}_{kind}{suffix}", names,
                       lambda f: _emit_dots(f, plan, width, self.target))


def _emit_dots(f: ir.Function, plan: DotPlan, width: int, target: Target) -> None:
    at: dict[str, Any] = {argument.name: argument for argument in f.args}
    build, lane, height = ir.Builder(f.append_basic_block("entry")), plan.lane, plan.height
    k, elements = (Algebra(build, count, target.features) for count in (lane.count, plan.step))
    edge = Edge(build, elements, Lane(plan.big, 1, plan.step), target)
    below: list[ir.Value] = [I64(0)]
    beside: list[ir.Value] = [I64(0)]
    for i in range(1, height):          # rows that do not exist are read as the last one that does
        step_down = at["big_rows"]
        if "m" in at:
            rows = at["m" if plan.with_a else "n"]
            step_down = build.select(build.icmp_signed("<", I64(i), rows), step_down, I64(0))
        below.append(build.add(below[-1], step_down))
    for _ in range(1, width):
        beside.append(build.add(beside[-1], at["few_columns"]))
    for offsets in (below, beside):
        offsets[1:] = [opaque(build, offset) for offset in offsets[1:]]

    def step(limit: Any) -> Callable[..., list[Any]]:
        def body(_: Any, values: list[Any]) -> list[Any]:
            big, few, *sums = values            # of one row of c after the other
            xs = [k.load(move(build, few, x), lane.dtype, align=1) for x in beside]
            for r in range(height):
                y = lanes_along_k(k, elements, lane, edge.load(move(build, big, below[r]), limit, or_zero=True))
                for c in range(width):
                    at_sum = r * width + c if plan.with_a else c * height + r
                    sums[at_sum] = multiply_add(k, lane, y, xs[c], Lanes(sums[at_sum], lane.dtype)).ir
            return [move(build, big, plan.step * plan.big.itemsize), move(build, few, lane.count * lane.size), *sums]
        return body

    steps, zero = build.udiv(at["k"], I64(plan.step)), k.const(0, lane.dtype).ir
    values = counted(build, 0, steps, 1, step(None), [at["big"], at["few"], *[zero] * (height * width)])
    if plan.rest:
        left = build.sub(at["k"], build.mul(steps, I64(plan.step)))
        values = counted(build, 0, minimum(build, left, I64(1)), 1, step(edge.limit(left)), values)
    shape = (height, width) if plan.with_a else (width, height)
    _store_totals(build, k, [Lanes(x, lane.dtype) for x in values[2:]], shape, at)


def _store_totals(build: ir.Builder, k: Algebra, sums: list[Lanes], shape: tuple[int, int],
                  at: dict[str, Any]) -> None:
    """c = [acc +] the sum of each one's lanes; `sums` are those of one row of c after the other, shape (rows, columns).

    A block that is limited to fewer rows or columns is stored one by one.
    """
    dtype, size, together = sums[0].dtype, sums[0].dtype.itemsize, min(k.lanes, 16)
    memory = build.alloca(ir.ArrayType(k.ir_type(dtype), -(-len(sums) // together)))
    for i in range(0, len(sums), together):
        totals = across_rows(k, sums[i : i + together], k.add)
        k.store(totals, move(build, memory, i * size))     # over lanes of the one before that are no totals

    def store(r: Any, c: Any, count: int) -> None:
        some, i = Algebra(build, count, k.features), build.add(build.mul(r, I64(shape[1])), c)
        total = some.load(move(build, memory, build.mul(i, I64(size))), dtype, align=size)
        place = {name: move(build, move(build, at[name], build.mul(r, at[f"{name}_rs"])), build.mul(c, I64(size)))
                 for name in ("c", "acc") if name in at}
        if "acc" in place:
            total = some.add(some.load(place["acc"], dtype, align=1), total)
        some.store(total, place["c"], align=1)

    def all_rows() -> None:
        for r in range(shape[0]):
            store(I64(r), I64(0), shape[1])

    if "m" in at:
        rows, columns = (minimum(build, at[x], I64(n)) for x, n in zip("mn", shape))
        everything = build.icmp_signed("==", build.mul(rows, columns), I64(shape[0] * shape[1]))
        with build.if_else(everything) as (whole, part):
            with whole:
                all_rows()
            with part:
                counted(build, 0, rows, 1, lambda r: counted(build, 0, columns, 1, lambda c: store(r, c, 1)))
    else:
        all_rows()
    build.ret_void()
