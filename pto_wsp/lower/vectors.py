"""What generators of matrix code share: the CPU, lanes, the ends of vectors, loops and addresses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from pto_wsp.lower import ir
from pto_wsp.lower.algebra import Algebra, Lanes
from pto_wsp.types import DType

__all__ = ["I1", "I8", "I32", "I64", "POINTER", "Edge", "Lane", "Target", "aligned", "counted", "lanes_along_k", "loop",
           "maximum", "minimum", "move", "multiply_add", "opaque", "shared", "split", "widened"]

I1, I8, I32, I64 = ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64)
POINTER = ir.PointerType()
PAIR_DOT = {128: "llvm.x86.sse2.pmadd.wd", 256: "llvm.x86.avx2.pmadd.wd", 512: "llvm.x86.avx512.pmaddw.d.512"}


@dataclass(frozen=True, slots=True)
class Target:
    """What the generator wants to know about a CPU. Changes speed, never bits."""

    vector_bits: int = 128
    registers: int = 16             # vector registers
    masks: bool = False             # masked loads and stores of 32- and 64-bit lanes cost about as much as plain ones
    any_masks: bool = False         # of narrow lanes too, and masks do not take vector registers
    pair_dot: bool = False          # x86's pmaddwd: two 16-bit products summed into each 32-bit lane
    features: frozenset[str] = frozenset()      # for the algebra: "fma", "f16c"

    @staticmethod
    def of(triple: str, features: str) -> Target:
        """From an LLVM triple and feature string, `+avx2,-avx512f,...`."""
        has = {word[1:] for word in features.split(",") if word.startswith("+")}
        if triple.startswith(("aarch64", "arm64")):
            return Target(128, 32, features=frozenset({"fma", "f16c"}))
        known = frozenset(has & {"fma", "f16c", "avx", "avx512f", "avx512dq"})
        if {"avx512f", "avx512bw", "avx512vl", "avx512dq"} <= has:
            return Target(512, 32, masks=True, any_masks=True, pair_dot=True, features=known)
        if {"avx2", "fma"} <= has:
            return Target(256, 16, masks=True, pair_dot=True, features=known)
        return Target(pair_dot=triple.startswith("x86_64"), features=known)


@dataclass(frozen=True, slots=True)
class Lane:
    """What one lane of a vector holds while multiplying."""

    dtype: DType            # of the sums
    group: int              # values of k in a lane of an operand: 1, or 2 of 16 bits for the pair dot product
    count: int              # lanes in a vector

    @property
    def size(self) -> int:
        return self.dtype.itemsize

    @property
    def value(self) -> DType:
        """The dtype of each of the values of k."""
        return DType.I16 if self.group > 1 else self.dtype

    def along_k(self, bits: int) -> Lane:
        """Single values, in vectors of so many bits: neighbours along k are lanes, whatever the group."""
        return Lane(self.value, 1, bits // self.value.bits)

    def at_most(self, lanes: int) -> Lane:
        """In vectors that rows of so many lanes can fill."""
        return replace(self, count=min(self.count, 1 << (max(lanes, 1).bit_length() - 1)))


# ---- lanes --------------------------------------------------------------------------------------------------------


def lanes_along_k(k: Algebra, elements: Algebra, lane: Lane, narrow: Lanes) -> Lanes:
    """Neighbours along k as lanes, or as lanes of pairs: then there are twice as many `elements`."""
    if lane.group == 1:
        return k.convert(narrow, lane.dtype)
    return Lanes(k.builder.bitcast(elements.convert(narrow, DType.I16).ir, k.ir_type(lane.dtype)), lane.dtype)


def widened(k: Algebra, lane: Lane, rows: list[Lanes]) -> Lanes:
    """One row of narrow elements as lanes, or two neighbours along k as lanes of pairs."""
    if lane.group == 1:
        return k.convert(rows[0], lane.dtype)
    if k.lanes == 1:
        low, high = (k.convert(k.convert(x, DType.I16), DType.I32) for x in rows)
        return k.or_(k.and_(low, 0xFFFF), k.shl(high, 16))
    turns = [lane + row * k.lanes for lane in range(k.lanes) for row in (0, 1)]
    pairs = k.builder.shuffle_vector(rows[0].ir, rows[1].ir, ir.Constant(ir.VectorType(I32, 2 * k.lanes), turns))
    return lanes_along_k(k, Algebra(k.builder, 2 * k.lanes, k.features), lane, Lanes(pairs, rows[0].dtype))


def multiply_add(k: Algebra, lane: Lane, x: Lanes, y: Lanes, z: Lanes) -> Lanes:
    if lane.group == 1:
        return k.fma(x, y, z)
    halves = ir.VectorType(ir.IntType(16), 2 * lane.count)
    name = PAIR_DOT[lane.count * lane.dtype.bits]
    dot = k.declare(name, k.ir_type(lane.dtype), [halves, halves])
    pair = k.builder.call(dot, [k.builder.bitcast(x.ir, halves), k.builder.bitcast(y.ir, halves)])
    return k.add(Lanes(pair, lane.dtype), z)


class Edge:
    """Vectors of which only the first lanes exist in memory."""

    def __init__(self, build: ir.Builder, k: Algebra, lane: Lane, target: Target):
        self.build, self.k, self.lane = build, k, lane
        self.masks = target.any_masks or (target.masks and lane.dtype.bits >= 32)
        self.spill = None if self.masks else build.alloca(k.ir_type(lane.dtype))

    def limit(self, left: Any) -> Any:
        """What load and store want to know where `left` elements exist from a vector's first on; None: all do."""
        return self.mask(left) if self.masks and left is not None else left

    def load(self, pointer: Any, limit: Any, or_zero: bool = False) -> Lanes:
        """The vector at pointer as far as it exists; what is not there may be anything, or must be 0."""
        if limit is None or self.masks:
            return self.k.load(pointer, self.lane.dtype, align=1, mask=limit)
        if or_zero:
            self.k.store(self.k.const(0, self.lane.dtype), self.spill)
        self.copy(pointer, self.spill, limit)
        return self.k.load(self.spill, self.lane.dtype)

    def store(self, x: Lanes, pointer: Any, limit: Any) -> None:
        """The lanes of x that exist to pointer."""
        if limit is None or self.masks:
            self.k.store(x, pointer, align=1, mask=limit)
        else:
            self.k.store(x, self.spill)
            self.copy(self.spill, pointer, limit)

    def mask(self, left: Any) -> Lanes:
        """First `left` lanes; computed in 32 bits, which hold any extent."""
        few = minimum(self.build, maximum(self.build, left, I64(0)), I64(self.lane.count))
        wide = Algebra(self.build, self.lane.count).splat(self.build.trunc(few, ir.IntType(32)), DType.I32)
        return Lanes(self.build.icmp_signed("<", ir.numbers(self.lane.count), wide.ir), None)

    def copy(self, source: Any, to: Any, left: Any) -> None:
        element = self.k.ir_type(self.lane.dtype).element

        def one(i: Any) -> None:
            value = self.build.load(self.build.gep(source, [i], source_etype=element), typ=element, align=1)
            self.build.store(value, self.build.gep(to, [i], source_etype=element), align=1)

        counted(self.build, 0, minimum(self.build, left, I64(self.lane.count)), 1, one)


# ---- sizes --------------------------------------------------------------------------------------------------------


def split(extent: int, most: int, equal: bool) -> tuple[tuple[int, int], ...]:
    """Cut into the fewest parts of at most `most`: equal ones that may overshoot, or two sizes that differ by 1."""
    parts = -(-extent // most)
    small, larger = divmod(extent, parts)
    if equal:
        return ((parts, -(-extent // parts)),)
    return tuple(run for run in ((larger, small + 1), (parts - larger, small)) if run[0])


def aligned(size: int) -> int:
    return -(-size // 64) * 64


# ---- building blocks of IR ----------------------------------------------------------------------------------------


def shared(module: ir.Module, name: str, arguments: list[str],
            emit_body: Callable[[ir.Function], None]) -> ir.Function:
    """The module's internal function of that name, made now if there is none. *x is a pointer, the others are i64."""
    def body(function: ir.Function) -> None:
        for value, argument in zip(function.args, arguments):
            value.name = argument.lstrip("*")
        emit_body(function)

    kinds = [POINTER if argument.startswith("*") else I64 for argument in arguments]
    return module.internal(name, ir.FunctionType(ir.VoidType(), kinds), body, "nounwind")


@contextmanager
def loop(build: ir.Builder, start: Any, stop: Any, step: int) -> Iterator[Any]:
    """for index in range(start, stop, step), tested at the top."""
    before = build.block
    head, body, done = (build.append_basic_block(n) for n in ("loop", "body", "done"))
    build.branch(head)
    build.position_at_end(head)
    index = build.phi(I64)
    index.add_incoming(start, before)
    build.cbranch(build.icmp_signed("<", index, stop), body, done)
    build.position_at_end(body)
    yield index
    index.add_incoming(build.append(I64, f"add nuw nsw {index}, {step}"), build.block)
    build.branch(head)
    build.position_at_end(done)


def counted(build: ir.Builder, start: Any, stop: Any, step: int, body: Callable[..., Any],
           carried: Sequence[Any] = ()) -> list[Any]:
    """for i in range(start, stop, step): carried = body(i, carried); without carried values just body(i)."""
    start = start if isinstance(start, ir.Value) else I64(start)
    before, inside, done = build.block, build.append_basic_block("loop"), build.append_basic_block("done")
    build.cbranch(build.icmp_signed("<", start, stop), inside, done)
    build.position_at_end(inside)
    i = build.phi(I64)
    i.add_incoming(start, before)
    phis = [build.phi(value.type) for value in carried]
    for phi, value in zip(phis, carried):
        phi.add_incoming(value, before)
    after = body(i, list(phis)) if carried else (body(i), [])[1]
    following = build.add(i, I64(step))
    i.add_incoming(following, build.block)
    for phi, value in zip(phis, after):
        phi.add_incoming(value, build.block)
    end = build.block
    build.cbranch(build.icmp_signed("<", following, stop), inside, done)
    build.position_at_end(done)
    results = [build.phi(value.type) for value in carried]
    for result, value, last in zip(results, carried, after):
        result.add_incoming(value, before)
        result.add_incoming(last, end)
    return results


def opaque(build: ir.Builder, x: ir.Value) -> ir.Value:
    """The i64 x, of which LLVM does not know how it was computed. Of offsets that are multiples of each other its loop
    strength reduction would make a chain of additions inside the loop, to save registers: a cycle for each row that the
    multiply-adds have to wait.

    An assembly text without instructions, whose operand and result share a general register: it means the same on all
    targets, has no effects, and may be moved and dropped like any other value.
    """
    return build.append(x.type, f'call {x.type} asm "", "=r,0"({x})')


def move(build: ir.Builder, pointer: Any, offset: Any) -> Any:
    """The address `offset` bytes further."""
    if isinstance(offset, int):
        offset = I64(offset)
    return build.gep(pointer, [offset], source_etype=I8)


def minimum(build: ir.Builder, x: Any, y: Any) -> Any:
    return build.select(build.icmp_signed("<", x, y), x, y)


def maximum(build: ir.Builder, x: Any, y: Any) -> Any:
    return build.select(build.icmp_signed(">", x, y), x, y)
