"""Tile matrix products as LLVM functions: c = [acc +] a @ b, register-blocked for one CPU.

`emit(module, MatmulSpec(...), target)` adds one internal function to a module (or finds the one that an equal spec
already made) and returns it. Its signature, `i64` where not said otherwise, strides in BYTES and of any sign:

    void matmul_<spec>(ptr a, a_rs, a_cs,  ptr b, b_rs, b_cs,  [ptr acc, acc_rs, acc_cs,]  ptr c, c_rs,
                       [m, n, k,]  ptr scratch)

`acc` is there when spec.accumulate, `m, n, k` when spec.tail: they are then run-time extents, each between 0 and the
spec's; nothing outside the m x k, k x n and m x n regions is read or written. c has unit column stride and elements of
`spec.result`. `scratch` is 64-byte aligned, `scratch_bytes(spec, target)` long and private to the thread.
c must not overlap a or b; acc may be exactly c (same address and strides) or must not overlap it.

The value of an element is defined without reference to the machine, so that every target gives the same bits:

    sums, one per K_BLOCK (256) consecutive k, at least one:  s = +0;  s = fma(a[i,k], b[k,j], s)  for k ascending
    c[i,j] = acc[i,j] + sums[0] + sums[1] + ...  from left to right; without acc it starts at sums[0]

or, where few rows (columns) meet an operand that lies along k (`MatmulSpec.along_k`; the static shape tells, so that
strides and run-time extents change nothing):

    lanes, 16 of them:  s = +0;  s = fma(a[i,k], b[k,j], s)  for k = lane, lane + 16, ... ascending
    c[i,j] = [acc[i,j] +] the sum of the lanes, the second half added to the first until one is left

in `spec.result`: f32 for f16, bf16 and f32; f64 for f64; i32 for i8 and u8; other integers their own type, wrapping.
f16, bf16 and small integers are widened exactly first. (Which NaN comes out of several is not defined.)

How: `_micro_kernel` keeps a few rows by a few vectors of sums in registers while it walks one K block. The function of
a spec cuts m x n into such blocks. Operands that the micro-kernel cannot read in place (columns of b apart, elements of
a to widen, ends without masks) or reads slowly there (crowded rows) are first copied to scratch (lower/packing.py). A
module's specs share micro-kernels, all kernels share packers. A product of few columns is computed as its transpose.
Dot products along k (lower/dots.py) read the large operand once, as it lies. The IR is explicit: it needs instruction
combining, no loop optimiser.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pto_wsp.lower import copies, ir
from pto_wsp.lower.algebra import Algebra, Lanes
from pto_wsp.lower.dots import FEW, LEAST_K, DotPlan, Dots
from pto_wsp.lower.packing import packer, start_at_acc, transposed
from pto_wsp.lower.vectors import (
    I8,
    I64,
    Edge,
    Lane,
    Target,
    aligned,
    counted,
    lanes_along_k,
    maximum,
    minimum,
    move,
    multiply_add,
    opaque,
    shared,
    split,
    widened,
)
from pto_wsp.types import DType

__all__ = ["K_BLOCK", "MatmulSpec", "Target", "accumulator", "emit", "scratch_bytes"]

K_BLOCK = 256       # products summed in a row before the sum joins the others: a block of b stays in the L1 cache

CROWDED = 2048      # rows a multiple of this many bytes apart share a few sets of the L1 cache
ROWS = 8            # of a micro-kernel's block that share a pointer: each has an offset in a general register
MOST_VECTORS = 8    # side by side


@dataclass(frozen=True, slots=True)
class MatmulSpec:
    """[m, k] of dtype `a` times [k, n] of dtype `b`."""

    m: int
    n: int
    k: int
    a: DType
    b: DType
    accumulate: bool = False        # starts from an operand `acc` of the result's dtype
    tail: bool = False              # extents come at run time; m, n, k are the largest
    a_turned: bool = False          # a is the transpose of a tile, and likely to be contiguous along m
    b_turned: bool = False

    @property
    def along_k(self) -> str:
        """The operand that is read along k, in lanes: "a" or "b" if the other one has few rows (columns), else ""."""
        if not self.a_turned and self.n <= min(self.m, FEW, self.k // LEAST_K):
            return "a"
        if self.b_turned and self.m <= min(self.n, FEW, self.k // LEAST_K):
            return "b"
        return ""

    @property
    def result(self) -> DType:
        """The dtype of sums and result."""
        return accumulator(self.a, self.b)

    @property
    def name(self) -> str:
        shape = f"{self.m}x{self.n}x{self.k}"
        turned = "_at" * self.a_turned + "_bt" * self.b_turned
        return f"matmul_{shape}_{self.a.value}_{self.b.value}{turned}{'_acc' * self.accumulate}{'_tail' * self.tail}"


def accumulator(a: DType, b: DType) -> DType:
    """The dtype in which products of `a` and `b` are summed. They must be of one dtype, or both 8-bit integers."""
    if a.bits == 8 and b.bits == 8:
        return DType.I32
    if a is not b:
        raise ValueError(f"no product of {a.value} and {b.value}")
    return DType.F32 if a in (DType.F16, DType.BF16) else a


def scratch_bytes(spec: MatmulSpec, target: Target) -> int:
    """Bytes of scratch that the function of `spec` needs."""
    if spec.along_k:
        return DotPlan.of(spec, target).scratch_bytes
    if _is_better_turned(spec, target):
        return _result_bytes(spec) + scratch_bytes(_turned(spec), target)
    plan = _Plan.of(spec, target)
    return plan.a_bytes + plan.b_bytes


def emit(module: ir.Module, spec: MatmulSpec, target: Target) -> ir.Function:
    """The function that multiplies as `spec` says; equal specs share one per module."""
    def body(function: ir.Function) -> None:
        if spec.along_k:
            Dots(function, spec, target).emit()
        elif _is_better_turned(spec, target):
            _emit_turned(function, spec, target)
        else:
            _Product(function, spec, target).emit()

    return shared(module, spec.name, _arguments(spec), body)


# ---- the transposed product: for b of few columns ------------------------------------------------------------------


def _is_better_turned(spec: MatmulSpec, target: Target) -> bool:
    """Is b.T @ a.T, whose elements are the same sums, faster than a @ b? It is where b's few columns would leave most
    lanes of a vector without work, and what is to be copied for it costs less: the result, and an operand that does not
    lie as the other product reads it. In multiply-adds of a vector; copies take half of one for each element of blocks
    that are transposed in registers, one where these are small; a single row is no work.
    """
    lanes = target.vector_bits // spec.result.bits

    def copied(rows: int, columns: int) -> float:
        few = min(rows, columns)
        return rows * columns * (0.5 if few >= 8 else 1 if few > 1 else 0.1)

    plain = spec.m * -(-spec.n // lanes) * spec.k + spec.b_turned * copied(spec.k, spec.n)
    turned = spec.n * -(-spec.m // lanes) * spec.k + (not spec.a_turned) * copied(spec.m, spec.k)
    return plain > turned + copied(spec.m, spec.n)


def _turned(spec: MatmulSpec) -> MatmulSpec:
    return replace(spec, m=spec.n, n=spec.m, a=spec.b, b=spec.a, a_turned=not spec.b_turned, b_turned=not spec.a_turned)


def _result_bytes(spec: MatmulSpec) -> int:
    return aligned(spec.m * spec.n * spec.result.itemsize)


def _emit_turned(f: ir.Function, spec: MatmulSpec, target: Target) -> None:
    at: dict[str, Any] = {argument.name: argument for argument in f.args}
    build, size = ir.Builder(f.append_basic_block("entry")), spec.result.itemsize
    pitch, rest = I64(spec.m * size), move(build, at["scratch"], _result_bytes(spec))
    arguments = [at[name] for name in ("b", "b_cs", "b_rs", "a", "a_cs", "a_rs")]
    arguments += [at[name] for name in ("acc", "acc_cs", "acc_rs")] if spec.accumulate else []
    arguments += [at["scratch"], pitch, *([at["n"], at["m"], at["k"]] if spec.tail else []), rest]
    build.call(emit(f.module, _turned(spec), target), arguments)
    rows, cols = (at["m"], at["n"]) if spec.tail else (I64(spec.m), I64(spec.n))
    build.call(copies.declared(f.module, "copy", size),
               [at["c"], at["c_rs"], I64(size), at["scratch"], I64(size), pitch, rows, cols])
    build.ret_void()


# ---- the plan: how m x n is cut into blocks ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Plan:
    """Rows and vectors of columns as runs of (how many blocks, how large each)."""

    lane: Lane
    rows: tuple[tuple[int, int], ...]
    vectors: tuple[tuple[int, int], ...]
    k_lanes: int            # lanes that one K block takes
    pack_a: bool            # always; else a is read in place
    may_pack_a: bool        # unless its rows are crowded
    pack_b: bool            # always; else b is read in place unless its columns are apart or its rows crowded
    turned: int             # vectors of a b that lies along k, transposed in registers: few rows do not pay for a copy
    panel: DType            # of b as micro-kernels read it: b's own, widened in registers, where that is cheap

    @staticmethod
    def of(spec: MatmulSpec, target: Target) -> _Plan:
        group = 2 if target.pair_dot and spec.a.bits == 8 else 1
        lane = Lane(spec.result, group, target.vector_bits // spec.result.bits)
        ragged = spec.tail or spec.n % lane.count != 0
        masked = target.any_masks or (target.masks and spec.result.bits >= 32 and not spec.tail)
        mask_registers = int(ragged and masked and not target.any_masks)
        registers = target.registers - mask_registers - (group - 1)             # a pair dot product needs a place
        rows, vectors = _blocking(spec.m, -(-spec.n // lane.count), registers, spec.tail)
        k_lanes = -(-min(max(spec.k, 1), K_BLOCK) // group)
        blocks = sum(count for count, _ in rows)        # each of which reads all of b
        if group == 2:
            narrow = blocks <= 2 and spec.k % 2 == 0 and not spec.tail
        else:
            narrow = blocks <= 2 or spec.b is not DType.F16 or "f16c" in target.features
        panel = spec.b if narrow and (target.any_masks or not ragged) else spec.result
        return _Plan(lane, rows, vectors, k_lanes, pack_a=spec.a is not spec.result,
                     may_pack_a=max(size for _, size in rows) > ROWS,
                     pack_b=spec.b is not panel or (ragged and not masked),
                     turned=_turned_vectors(spec, lane) if len(rows) == rows[0][0] == 1 else 0, panel=panel)

    @property
    def padded_rows(self) -> int:
        return sum(count * size for count, size in self.rows)

    @property
    def a_bytes(self) -> int:
        return aligned(self.padded_rows * self.k_lanes * self.lane.size) if self.pack_a or self.may_pack_a else 0

    @property
    def b_bytes(self) -> int:
        """Of the largest panel."""
        return max(size for _, size in self.vectors) * self.panel_rows * self.lane.count * self.panel.itemsize

    @property
    def panel_rows(self) -> int:
        return self.k_lanes * (1 if self.panel is self.lane.dtype else self.lane.group)


def _turned_vectors(spec: MatmulSpec, lane: Lane) -> int:
    """Vectors of columns side by side if a b that lies along k is transposed in registers. 0 if it is copied first: of
    more rows a copy is a smaller part, and of each kind of end there would be another micro-kernel to compile.
    """
    if spec.tail or spec.m > FEW // 2 or spec.n < lane.count or spec.k == 0 or spec.k % (lane.count * lane.group):
        return 0
    return 2 if spec.n > lane.count else 1


def _blocking(m: int, vectors: int, registers: int, tail: bool) -> tuple[Any, Any]:
    """The cheapest cut that leaves a register for each vector of b and one for an element of a.

    The price of a block for each k, in cycles of a core with two FMA units of latency 4 (5 with some slack) and two
    load ports, where a vector of b may lie across two cache lines; 2 % for each micro-kernel to compile.
    """
    best = None
    for width in range(1, MOST_VECTORS + 1):
        for height in range(1, min(ROWS if tail else 2 * ROWS, (registers - 1 - width) // width) + 1):
            rows, columns = split(m, height, tail), split(vectors, width, tail)
            cycles = sum(n * p * max(r * c / 2, (r + 2 * c) / 2, 5.0) for n, r in rows for p, c in columns)
            blocks = sum(n * p for n, _ in rows for p, _ in columns)
            price = cycles * (1 + 0.02 * len(rows) * len(columns)) + 0.1 * blocks
            if best is None or price < best[0]:
                best = price, rows, columns
    assert best is not None
    return best[1], best[2]


# ---- the function of one spec -------------------------------------------------------------------------------------


def _arguments(spec: MatmulSpec) -> list[str]:
    """Names; those that start with * are pointers."""
    names = ["*a", "a_rs", "a_cs", "*b", "b_rs", "b_cs"]
    names += ["*acc", "acc_rs", "acc_cs"] * spec.accumulate
    names += ["*c", "c_rs"]
    names += ["m", "n", "k"] * spec.tail
    return [*names, "*scratch"]


class _Product:
    """Emits the loops over K blocks, columns and rows around calls of micro-kernels."""

    def __init__(self, function: ir.Function, spec: MatmulSpec, target: Target):
        self.spec, self.target, self.plan = spec, target, _Plan.of(spec, target)
        self.lane = self.plan.lane
        self.function = function
        self.at: dict[str, Any] = {"m": I64(spec.m), "n": I64(spec.n), "k": I64(spec.k)}
        self.at |= {argument.name: argument for argument in function.args}
        self.build = ir.Builder(function.append_basic_block("entry"))
        self.fresh = not spec.accumulate and spec.k <= K_BLOCK         # c is nothing but the sums of one K block
        self.nothing = None if spec.accumulate or self.fresh else _nothing(function.module, self.lane)

    def emit(self) -> None:
        at, build = self.at, self.build
        if self.spec.tail:
            empty = build.or_(build.icmp_signed("==", at["m"], I64(0)), build.icmp_signed("==", at["n"], I64(0)))
            with build.if_then(empty):
                build.ret_void()
        if self.spec.accumulate:
            start_at_acc(build, at, self.spec.result, self.target)
        counted(build, 0, maximum(build, at["k"], I64(1)), K_BLOCK, self.k_block)
        build.ret_void()

    def k_block(self, start: Any) -> None:
        at, build, lane = self.at, self.build, self.lane
        k = minimum(build, build.sub(at["k"], start), I64(K_BLOCK))
        lanes = k if lane.group == 1 else build.udiv(build.add(k, I64(lane.group - 1)), I64(lane.group))
        a, a_rs, a_cs = self.prepare_a(start, k)
        if not self.fresh:
            first = build.icmp_signed("==", start, I64(0))
            before: Any = at.get("acc", self.nothing)
            before_rs = at.get("acc_rs", I64(0))
            src, src_rs = build.select(first, before, at["c"]), build.select(first, before_rs, at["c_rs"])
            src_vector = I64(lane.size) if self.spec.accumulate else build.select(first, I64(0), I64(lane.size))

        def block(row: Any, height: int, column: Any, width: int, b: Any, b_rs: Any, turning: bool = False) -> None:
            there = self.move(self.move(at["c"], build.mul(column, I64(lane.size))), build.mul(row, at["c_rs"]))
            count = build.udiv(lanes, I64(lane.count)) if turning else lanes
            arguments = [self.move(a, build.mul(row, a_rs)), a_rs, a_cs, b, b_rs, count, there, at["c_rs"]]
            if not self.fresh:
                here = self.move(self.move(src, build.mul(column, src_vector)), build.mul(row, src_rs))
                arguments += [here, src_rs]
            if self.spec.tail:
                arguments += [build.sub(at["m"], row), build.sub(at["n"], column)]
            elif self.spec.n % ((width if turning else 1) * lane.count):
                arguments += [build.sub(at["n"], column)]
            build.call((self.turning_kernel if turning else self.micro_kernel)(height, width), arguments)

        def all_panels() -> None:
            panel = self.prepare_b(start, k)

            def panel_of(column: Any, width: int) -> None:
                b = panel(column, width)
                self.runs(self.plan.rows, at["m"], 1, lambda row, height: block(row, height, column, width, *b))

            self.runs(self.plan.vectors, at["n"], lane.count, panel_of)

        def turned_in_registers(column: Any) -> None:
            b = self.move(self.move(at["b"], build.mul(start, at["b_rs"])), build.mul(column, at["b_cs"]))
            block(I64(0), self.plan.rows[0][1], column, self.plan.turned, b, at["b_cs"], turning=True)

        if self.plan.turned:
            along_k = build.icmp_signed("==", at["b_rs"], I64(self.spec.b.itemsize))
            along_k = build.and_(along_k, build.icmp_signed("!=", at["b_cs"], I64(self.spec.b.itemsize)))
            with build.if_else(along_k) as (turned, plain):
                with turned:
                    counted(build, 0, at["n"], self.plan.turned * lane.count, turned_in_registers)
                with plain:
                    all_panels()
        else:
            all_panels()

    def micro_kernel(self, height: int, width: int) -> ir.Function:
        """For blocks of b in panels, or as it lies."""
        tail, ragged = self.spec.tail, self.spec.n % self.lane.count != 0
        return _micro_kernel(self.function.module, self.lane, self.plan.panel, height, width, self.target,
                             rows_vary=tail, columns_vary=tail or ragged, mask_b=not self.plan.pack_b, fresh=self.fresh)

    def turning_kernel(self, height: int, width: int) -> ir.Function:
        """For blocks of b that are transposed in registers."""
        return _turning_kernel(self.function.module, self.lane, self.spec.b, height, width, self.target,
                               columns_vary=self.spec.n % (width * self.lane.count) != 0, fresh=self.fresh)

    def runs(self, runs: Sequence[tuple[int, int]], extent: Any, unit: int, body: Callable[[Any, int], None]) -> None:
        """body(start, size) for every block of the runs that starts below extent."""
        start = 0
        for count, size in runs:
            end = start + count * size * unit
            stop = extent if self.spec.tail else I64(end)
            counted(self.build, start, stop, size * unit, lambda at, size=size: body(at, size))
            start = end

    def prepare_a(self, start: Any, k: Any) -> tuple[Any, Any, Any]:
        """Where micro-kernels find a's K block: address, row stride, lane stride.

        A copy runs along rows, or along columns when a's columns are what is contiguous. Where a row ends within a lane
        of two values, the second one may be anything: it meets a 0 of b.
        """
        at, build, size = self.at, self.build, self.lane.size
        block = self.move(at["a"], build.mul(start, at["a_cs"]))
        values, pitch = self.lane.along_k(self.target.vector_bits), min(max(self.spec.k, 1), K_BLOCK)
        along_rows, along_columns = I64(pitch * values.size), I64(self.plan.padded_rows * size)

        def pack_rows() -> None:
            build.call(packer(self.function.module, self.spec.a, values.at_most(self.spec.k)),
                       [block, at["a_rs"], at["a_cs"], at["scratch"], along_rows, at["m"], k])

        if not self.plan.pack_a:
            if not self.plan.may_pack_a:
                return block, at["a_rs"], at["a_cs"]
            crowded = self.crowded("a_rs")
            with build.if_then(crowded, likely=False):
                pack_rows()
            return (build.select(crowded, at["scratch"], block), build.select(crowded, along_rows, at["a_rs"]),
                    build.select(crowded, I64(size), at["a_cs"]))
        turned = build.icmp_signed("==", at["a_rs"], I64(self.spec.a.itemsize))
        with build.if_else(turned) as (columns, rows):
            with columns:
                build.call(self.packer(self.spec.a, self.spec.m),
                           [block, at["a_cs"], at["a_rs"], at["scratch"], along_columns, k, at["m"]])
            with rows:
                pack_rows()
        return (at["scratch"], build.select(turned, I64(size), along_rows),
                build.select(turned, along_columns, I64(size)))

    def crowded(self, stride: str) -> Any:
        """Do rows that are so far apart share few sets of the cache? See CROWDED."""
        build = self.build
        return build.and_(build.icmp_signed("==", build.and_(self.at[stride], I64(CROWDED - 1)), I64(0)),
                          build.icmp_signed("!=", self.at[stride], I64(0)))

    def packer(self, source: DType, lanes: int, to: DType | None = None) -> ir.Function:
        """For rows of so many lanes, of `to` if they are not those of the sums."""
        lane = self.lane if to is None or to is self.lane.dtype else Lane(to, 1, self.lane.count)
        return packer(self.function.module, source, lane.at_most(lanes))

    def prepare_b(self, start: Any, k: Any) -> Callable[[Any, int], tuple[Any, Any]]:
        """(first column, vectors) -> address and row stride of that panel of b's K block.

        A panel that has to be packed is packed when it is asked for, and stays until the next one is.
        """
        at, build, count, size = self.at, self.build, self.lane.count, self.plan.panel.itemsize
        block = self.move(at["b"], build.mul(start, at["b_rs"]))
        packed = self.move(at["scratch"], self.plan.a_bytes)

        def pack(column: Any, width: int) -> tuple[Any, Any]:
            row = I64(width * count * size)
            columns = minimum(build, build.sub(at["n"], column), I64(width * count))
            here = self.move(block, build.mul(column, at["b_cs"]))
            build.call(self.packer(self.spec.b, self.spec.n, self.plan.panel),
                       [here, at["b_rs"], at["b_cs"], packed, row, k, columns])
            return packed, row

        def either(column: Any, width: int) -> tuple[Any, Any]:
            here = self.move(block, build.mul(column, I64(size)))
            with build.if_then(apart):
                there, row = pack(column, width)
            return build.select(apart, there, here), build.select(apart, row, at["b_rs"])

        if self.plan.pack_b:
            return pack
        apart = build.icmp_signed("!=", at["b_cs"], I64(size))
        if self.spec.m >= 4 * ROWS:
            apart = build.or_(apart, self.crowded("b_rs"))
        return either

    def move(self, pointer: Any, offset: Any) -> Any:
        return move(self.build, pointer, offset)


# ---- micro-kernel -------------------------------------------------------------------------------------------------


def _micro_kernel(module: ir.Module, lane: Lane, panel: DType, height: int, width: int, target: Target, *,
                  rows_vary: bool, columns_vary: bool, mask_b: bool, fresh: bool) -> ir.Function:
    """A function that adds one K block to a block of `height` rows and `width` vectors: c = [src +] a @ b.

    Strides of a and b are bytes: between lanes of a, between rows of b, which holds lanes or elements of another dtype.
    `k` counts lanes; src, which is not there if `fresh`, may be `_nothing` with row stride 0. `rows` and `columns`
    (more than the block has means all) limit what is read of a and stored, and with mask_b also what is read of b.
    """
    names = ["*a", "a_rs", "a_cs", "*b", "b_rs", "k", "*c", "c_rs"]
    names += ["*src", "src_rs"] * (not fresh)
    names += ["rows"] * rows_vary + ["columns"] * columns_vary
    kind = lane.dtype.value + "_pairs" * (lane.group > 1) + f"_{panel.value}" * (panel is not lane.dtype)
    suffix = "_rows" * rows_vary + "_columns" * columns_vary + "_masked" * (columns_vary and mask_b) + "_fresh" * fresh
    name = f"matmul_{height}x{width}_{kind}{suffix}"
    return shared(module, name, names, lambda f: _emit_micro_kernel(f, lane, panel, height, width, target, mask_b))


def _emit_micro_kernel(f: ir.Function, lane: Lane, panel: DType, height: int, width: int, target: Target,
                       mask_b: bool) -> None:
    at: dict[str, Any] = {argument.name: argument for argument in f.args}
    build = ir.Builder(f.append_basic_block("entry"))
    k = Algebra(build, lane.count, target.features)
    edge = Edge(build, k, lane, target)
    left = [build.sub(at["columns"], I64(v * lane.count)) if "columns" in at else None for v in range(width)]
    if "rows" not in at:        # blocks of a static shape are short of columns in their last vector only
        left[:-1] = [None] * (width - 1)
    limits = [edge.limit(some) for some in left]
    below: list[ir.Value] = [I64(0)]
    for i in range(1, min(height, ROWS)):   # rows that do not exist are read as the last one that does
        step_down = at["a_rs"]
        if "rows" in at:
            step_down = build.select(build.icmp_signed("<", I64(i), at["rows"]), step_down, I64(0))
        below.append(build.add(below[-1], step_down))
    below[1:] = [opaque(build, offset) for offset in below[1:]]
    rows_of_a = [move(build, at["a"], build.mul(I64(row), at["a_rs"])) for row in range(0, height, ROWS)]
    rows_of_b = lane.group if panel is not lane.dtype else 1
    b_step = build.mul(at["b_rs"], I64(rows_of_b))

    def read(b: Any, v: int) -> Lanes:
        if panel is lane.dtype:
            return edge.load(move(build, b, v * lane.count * lane.size), limits[v] if mask_b else None)
        mask = limits[v] if mask_b else None
        pointers = [move(build, x, v * lane.count * panel.itemsize)
                    for x in (b, build.gep(b, [at["b_rs"]], source_etype=I8))[:rows_of_b]]
        return widened(k, lane, [k.load(x, panel, align=1, mask=mask) for x in pointers])

    def step(_: Any, values: list[Any]) -> list[Any]:
        a, b, sums = values[:-count], values[-count], values[1 - count :]
        ys = [read(b, v) for v in range(width)]
        for i in range(height):
            pointer = move(build, a[i // ROWS], below[i % ROWS])
            x = k.splat(build.load(pointer, typ=k.ir_type(lane.dtype).element, align=1), lane.dtype)
            for v in range(width):
                sums[i * width + v] = multiply_add(k, lane, x, ys[v], Lanes(sums[i * width + v], lane.dtype)).ir
        return [*(move(build, x, at["a_cs"]) for x in a), move(build, b, b_step), *sums]

    zero, count = k.const(0, lane.dtype).ir, 1 + height * width
    sums = counted(build, 0, at["k"], 1, step, [*rows_of_a, at["b"], *[zero] * (height * width)])[1 - count :]
    _store_block(build, edge, sums, limits, at)


def _store_block(build: ir.Builder, edge: Edge, sums: list[Any], limits: list[Any], at: dict[str, Any]) -> None:
    """c = [src +] sums, those of one row after the other; limits are those of a row's vectors. Ends the function."""
    lane, width = edge.lane, len(limits)
    src, c, vector = at.get("src"), at["c"], lane.count * lane.size
    for i in range(len(sums) // width):
        if i and "rows" in at:
            with build.if_then(build.icmp_signed("==", at["rows"], I64(i))):
                build.ret_void()
        for v in range(width):
            total = Lanes(sums[i * width + v], lane.dtype)
            if src is not None:
                total = edge.k.add(edge.load(move(build, src, v * vector), limits[v]), total)
            edge.store(total, move(build, c, v * vector), limits[v])
        src, c = src and move(build, src, at["src_rs"]), move(build, c, at["c_rs"])
    build.ret_void()


def _turning_kernel(module: ir.Module, lane: Lane, b: DType, height: int, width: int, target: Target, *,
                    columns_vary: bool, fresh: bool) -> ir.Function:
    """A micro-kernel for columns of b that lie along k: `b_rs` is from one to the next, `k` counts blocks of b."""
    names = ["*a", "a_rs", "a_cs", "*b", "b_rs", "k", "*c", "c_rs"]
    names += ["*src", "src_rs"] * (not fresh)
    names += ["columns"] * columns_vary
    kind = b.value + f"_{lane.dtype.value}{'_pairs' * (lane.group > 1)}"
    name = f"matmul_{height}x{width}_turning_{kind}{'_columns' * columns_vary}{'_fresh' * fresh}"
    return shared(module, name, names, lambda f: _emit_turning_kernel(f, lane, b, height, width, target))


def _emit_turning_kernel(f: ir.Function, lane: Lane, b: DType, height: int, width: int, target: Target) -> None:
    """A step multiplies one block of b, a vector of columns by as many k, which it transposes in registers. Vectors of
    columns take turns, so that their sums do not wait for each other.
    """
    at: dict[str, Any] = {argument.name: argument for argument in f.args}
    build, elements = ir.Builder(f.append_basic_block("entry")), lane.count * lane.group
    k, along = (Algebra(build, count, target.features) for count in (lane.count, elements))
    edge, below = Edge(build, k, lane, target), list[ir.Value]([I64(0)])
    for _ in range(1, height):
        below.append(build.add(below[-1], at["a_rs"]))
    below[1:] = [opaque(build, offset) for offset in below[1:]]
    there: list[Any] = [None] * width
    if "columns" in at:
        there = [build.sub(at["columns"], I64(v * lane.count)) for v in range(width)]

    def step(_: Any, values: list[Any]) -> list[Any]:
        (a, block, left, *sums), others = values[:turn], values[turn:]
        row, column, lines = a, block, []
        for following in range(1, lane.count + 1):
            lines.append(lanes_along_k(k, along, lane, along.load(column, b, align=1)))
            step_on = at["b_rs"]
            if "columns" in at:         # those that do not exist are read as the last one that does
                step_on = build.select(build.icmp_signed("<", I64(following), left), step_on, I64(0))
            column = move(build, column, step_on)
        for y in transposed(k, lines):
            for i, offset in enumerate(below):
                x = k.splat(build.load(move(build, row, offset), k.ir_type(lane.dtype).element, align=1), lane.dtype)
                sums[i] = multiply_add(k, lane, x, y, Lanes(sums[i], lane.dtype)).ir
            row = move(build, row, at["a_cs"])
        return [*others, row, move(build, block, elements * b.itemsize), left, *sums]

    carried, turn = list[Any](), 3 + height
    for v, left in enumerate(there):
        first: Any = I64(v * lane.count)
        if v and "columns" in at:
            first = minimum(build, first, build.sub(at["columns"], I64(1)))
        carried += [at["a"], move(build, at["b"], build.mul(first, at["b_rs"])), left or I64(lane.count),
                    *[k.const(0, lane.dtype).ir] * height]
    carried = counted(build, 0, build.mul(at["k"], I64(width)), 1, step, carried)
    sums = [carried[v * turn + 3 + i] for i in range(height) for v in range(width)]
    _store_block(build, edge, sums, [edge.limit(left) for left in there], at)


def _nothing(module: ir.Module, lane: Lane) -> Any:
    """Address of a row of what adds nothing: -0.0, since +0.0 would turn a sum of -0.0 into +0.0."""
    row = ir.ArrayType(I8, MOST_VECTORS * lane.count * lane.size)
    name = f"matmul_nothing_{lane.dtype.value}"
    if name not in module.constants:
        sign = [0] * (lane.size - 1) + [0x80 if lane.dtype.is_float else 0]
        ir.GlobalConstant(module, name, row(bytes(sign * (row.count // lane.size))), align=64)
    return module.constants[name]
