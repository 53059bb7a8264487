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
a spec cuts m x n into such blocks. Operands that the micro-kernel cannot read in place (columns apart, another dtype
that many rows would widen again, ends without masks) or reads slowly there (crowded rows) are first copied to scratch
by `_packer`. Micro-kernels and packers are shared by a module's specs. A product of few columns is computed as its
transpose. Dot products along k read the large operand once, as it lies, without packing. The IR is explicit: it needs
instruction combining, no loop optimiser.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pto_wsp.lower import copies, ir
from pto_wsp.lower.algebra import Algebra, Lanes, across_rows
from pto_wsp.types import DType

__all__ = ["K_BLOCK", "MatmulSpec", "Target", "accumulator", "emit", "emit_transpose", "scratch_bytes"]

K_BLOCK = 256       # products summed in a row before the sum joins the others: a block of b stays in the L1 cache

I8, I64 = ir.IntType(8), ir.IntType(64)
POINTER = ir.PointerType()
SIDE = 16           # of blocks that are transposed in registers, or as many lanes as a vector has
FEW = 8             # rows or columns at most of an operand whose product with rows along k is computed in lanes along k
DOT_LANES = 16      # of floats, whatever a vector holds: the order of sums does not depend on the CPU
CHUNK = 32          # rows that are packed at a time where they do not lie along k after all
CROWDED = 2048      # rows a multiple of this many bytes apart share a few sets of the L1 cache
ROWS = 8            # of a micro-kernel's block that share a pointer: each has an offset in a general register
MOST_VECTORS = 8    # side by side
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
        known = frozenset(has & {"fma", "f16c", "avx512f"})
        if {"avx512f", "avx512bw", "avx512vl", "avx512dq"} <= has:
            return Target(512, 32, masks=True, any_masks=True, pair_dot=True, features=known)
        if {"avx2", "fma"} <= has:
            return Target(256, 16, masks=True, pair_dot=True, features=known)
        return Target(pair_dot=triple.startswith("x86_64"), features=known)


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
        if self.k >= 2 * DOT_LANES:
            if not self.a_turned and self.n <= min(self.m, FEW):
                return "a"
            if self.b_turned and self.m <= min(self.n, FEW):
                return "b"
        return ""

    @property
    def result(self) -> DType:
        """The dtype of sums and result."""
        return accumulator(self.a, self.b)

    @property
    def name(self) -> str:
        shape = f"{self.m}x{self.n}x{self.k}"
        along = f"_{self.along_k}_along_k" if self.along_k else ""
        return f"matmul_{shape}_{self.a.value}_{self.b.value}{along}{'_acc' * self.accumulate}{'_tail' * self.tail}"


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
        return _DotPlan.of(spec, target).scratch_bytes
    if _is_better_turned(spec, target):
        return _result_bytes(spec) + scratch_bytes(_turned(spec), target)
    plan = _Plan.of(spec, target)
    return plan.a_bytes + plan.b_bytes


def emit(module: ir.Module, spec: MatmulSpec, target: Target) -> ir.Function:
    """The function that multiplies as `spec` says; equal specs share one per module."""
    def body(function: ir.Function) -> None:
        if spec.along_k:
            _Dots(function, spec, target).emit()
        elif _is_better_turned(spec, target):
            _emit_turned(function, spec, target)
        else:
            _Product(function, spec, target).emit()

    return _shared(module, spec.name, _arguments(spec), body)


# ---- the transposed product: for b of few columns ------------------------------------------------------------------


def _is_better_turned(spec: MatmulSpec, target: Target) -> bool:
    """Is b.T @ a.T, whose elements are the same sums, faster than a @ b? It is where b's few columns would leave most
    lanes of a vector without work, even though the result has to be transposed."""
    lanes = target.vector_bits // spec.result.bits
    return spec.m * -(-spec.n // lanes) > 2 * spec.n * -(-spec.m // lanes)


def _turned(spec: MatmulSpec) -> MatmulSpec:
    return replace(spec, m=spec.n, n=spec.m, a=spec.b, b=spec.a, a_turned=not spec.b_turned, b_turned=not spec.a_turned)


def _result_bytes(spec: MatmulSpec) -> int:
    return _aligned(spec.m * spec.n * spec.result.itemsize)


def _emit_turned(f: ir.Function, spec: MatmulSpec, target: Target) -> None:
    at: dict[str, Any] = {argument.name: argument for argument in f.args}
    build, size = ir.Builder(f.append_basic_block("entry")), spec.result.itemsize
    pitch, rest = I64(spec.m * size), _move(build, at["scratch"], _result_bytes(spec))
    arguments = [at[name] for name in ("b", "b_cs", "b_rs", "a", "a_cs", "a_rs")]
    arguments += [at[name] for name in ("acc", "acc_cs", "acc_rs")] if spec.accumulate else []
    arguments += [at["scratch"], pitch, *([at["n"], at["m"], at["k"]] if spec.tail else []), rest]
    build.call(emit(f.module, _turned(spec), target), arguments)
    rows, cols = (at["m"], at["n"]) if spec.tail else (I64(spec.m), I64(spec.n))
    build.call(copies.declared(f.module, "transpose", size),
               [at["c"], at["c_rs"], I64(size), at["scratch"], I64(size), pitch, rows, cols])
    build.ret_void()


# ---- the plan: how m x n is cut into blocks ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Lane:
    """What one lane of a vector holds while multiplying."""

    dtype: DType            # of the sums
    group: int              # values of k in a lane of an operand: 1, or 2 of 16 bits for the pair dot product
    count: int              # lanes in a vector

    @property
    def size(self) -> int:
        return self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class _Plan:
    """Rows and vectors of columns as runs of (how many blocks, how large each)."""

    lane: _Lane
    rows: tuple[tuple[int, int], ...]
    vectors: tuple[tuple[int, int], ...]
    k_lanes: int            # lanes that one K block takes
    pack_a: bool            # always; else a is read in place
    pack_b: bool            # always; else b is read in place unless its columns are apart or its rows crowded
    panel: DType            # of b as micro-kernels read it: of the sums, or b's own where it is read twice at most

    @staticmethod
    def of(spec: MatmulSpec, target: Target) -> _Plan:
        group = 2 if target.pair_dot and spec.a.bits == 8 else 1
        lane = _Lane(spec.result, group, target.vector_bits // spec.result.bits)
        ragged = spec.tail or spec.n % lane.count != 0
        masked = target.any_masks or (target.masks and spec.result.bits >= 32 and not spec.tail)
        mask_registers = int(ragged and masked and not target.any_masks)
        registers = target.registers - mask_registers - (group - 1)             # a pair dot product needs a place
        rows, vectors = _blocking(spec.m, -(-spec.n // lane.count), registers, spec.tail)
        k_lanes = -(-min(max(spec.k, 1), K_BLOCK) // group)
        few = sum(count for count, _ in rows) <= 2 and (target.any_masks or not ragged)
        whole = group == 1 or (spec.k % group == 0 and not spec.tail)
        panel = spec.b if few and whole else spec.result
        return _Plan(lane, rows, vectors, k_lanes, pack_a=spec.a is not spec.result,
                     pack_b=spec.b is not panel or (ragged and not masked), panel=panel)

    @property
    def padded_rows(self) -> int:
        return sum(count * size for count, size in self.rows)

    @property
    def a_bytes(self) -> int:
        return _aligned(self.padded_rows * self.k_lanes * self.lane.size) if self.pack_a else 0

    @property
    def b_bytes(self) -> int:
        """Of the largest panel."""
        return max(size for _, size in self.vectors) * self.panel_rows * self.lane.count * self.panel.itemsize

    @property
    def panel_rows(self) -> int:
        return self.k_lanes * (1 if self.panel is self.lane.dtype else self.lane.group)


def _blocking(m: int, vectors: int, registers: int, tail: bool) -> tuple[Any, Any]:
    """The cheapest cut that leaves a register for each vector of b and one for an element of a.

    The price of a block for each k, in cycles of a core with two FMA units of latency 4 (5 with some slack) and two
    load ports, where a vector of b may lie across two cache lines; 2 % for each micro-kernel to compile.
    """
    best = None
    for width in range(1, MOST_VECTORS + 1):
        for height in range(1, min(ROWS if tail else 2 * ROWS, (registers - 1 - width) // width) + 1):
            rows, columns = _split(m, height, tail), _split(vectors, width, tail)
            cycles = sum(n * p * max(r * c / 2, (r + 2 * c) / 2, 5.0) for n, r in rows for p, c in columns)
            blocks = sum(n * p for n, _ in rows for p, _ in columns)
            price = cycles * (1 + 0.02 * len(rows) * len(columns)) + 0.1 * blocks
            if best is None or price < best[0]:
                best = price, rows, columns
    assert best is not None
    return best[1], best[2]


def _split(extent: int, most: int, equal: bool) -> tuple[tuple[int, int], ...]:
    """Cut into the fewest parts of at most `most`: equal ones that may overshoot, or two sizes that differ by 1."""
    parts = -(-extent // most)
    small, larger = divmod(extent, parts)
    if equal:
        return ((parts, -(-extent // parts)),)
    return tuple(run for run in ((larger, small + 1), (parts - larger, small)) if run[0])


def _aligned(size: int) -> int:
    return -(-size // 64) * 64


# ---- the function of one spec -------------------------------------------------------------------------------------


def _arguments(spec: MatmulSpec) -> list[str]:
    """Names; those that start with * are pointers."""
    names = ["*a", "a_rs", "a_cs", "*b", "b_rs", "b_cs"]
    names += ["*acc", "acc_rs", "acc_cs"] * spec.accumulate
    names += ["*c", "c_rs"]
    names += ["m", "n", "k"] * spec.tail
    return [*names, "*scratch"]


def _start_at_acc(build: ir.Builder, at: dict[str, Any], spec: MatmulSpec, target: Target) -> None:
    """An acc whose columns are apart is copied to c, and taken from there."""
    size = spec.result.itemsize
    apart = build.icmp_signed("!=", at["acc_cs"], I64(size))
    with build.if_then(apart, likely=False):
        lane = _Lane(spec.result, 1, target.vector_bits // (8 * size))
        packer = _packer(build.module, spec.result, lane, True, lane.count, target)
        build.call(packer, [at["acc"], at["acc_rs"], at["acc_cs"], at["c"], at["c_rs"], at["m"], at["n"]])
    at["acc"] = build.select(apart, at["c"], at["acc"])
    at["acc_rs"] = build.select(apart, at["c_rs"], at["acc_rs"])
    at["acc_cs"] = I64(size)


class _Product:
    """Emits the loops over K blocks, columns and rows around calls of micro-kernels."""

    def __init__(self, function: ir.Function, spec: MatmulSpec, target: Target):
        self.spec, self.target, self.plan = spec, target, _Plan.of(spec, target)
        self.lane = self.plan.lane
        self.function = function
        self.at: dict[str, Any] = {"m": I64(spec.m), "n": I64(spec.n), "k": I64(spec.k)}
        self.at |= {argument.name: argument for argument in function.args}
        self.build = ir.Builder(function.append_basic_block("entry"))
        self.nothing = None if spec.accumulate else _nothing(function.module, self.lane)

    def emit(self) -> None:
        at, build = self.at, self.build
        if self.spec.tail:
            empty = build.or_(build.icmp_signed("==", at["m"], I64(0)), build.icmp_signed("==", at["n"], I64(0)))
            with build.if_then(empty):
                build.ret_void()
        if self.spec.accumulate:
            _start_at_acc(build, at, self.spec, self.target)
        _count(build, 0, _maximum(build, at["k"], I64(1)), K_BLOCK, self.k_block)
        build.ret_void()

    def k_block(self, start: Any) -> None:
        at, build, lane = self.at, self.build, self.lane
        k = _minimum(build, build.sub(at["k"], start), I64(K_BLOCK))
        lanes = k if lane.group == 1 else build.udiv(build.add(k, I64(lane.group - 1)), I64(lane.group))
        a, a_rs, a_cs = self.prepare_a(start, k)
        panel = self.prepare_b(start, k)
        first = build.icmp_signed("==", start, I64(0))
        fresh: Any = at.get("acc", self.nothing)
        fresh_rs = at.get("acc_rs", I64(0))
        src, src_rs = build.select(first, fresh, at["c"]), build.select(first, fresh_rs, at["c_rs"])
        src_vector = I64(lane.size) if self.spec.accumulate else build.select(first, I64(0), I64(lane.size))

        def block(row: Any, height: int, column: Any, width: int, b: Any, b_rs: Any) -> None:
            here = self.move(self.move(src, build.mul(column, src_vector)), build.mul(row, src_rs))
            there = self.move(self.move(at["c"], build.mul(column, I64(lane.size))), build.mul(row, at["c_rs"]))
            arguments = [self.move(a, build.mul(row, a_rs)), a_rs, a_cs, b, b_rs, lanes,
                         here, src_rs, there, at["c_rs"]]
            if self.spec.tail:
                arguments += [build.sub(at["m"], row), build.sub(at["n"], column)]
            elif self.spec.n % lane.count:
                arguments += [build.sub(at["n"], column)]
            kernel = _micro_kernel(self.function.module, lane, self.plan.panel, height, width, self.target,
                                   rows_vary=self.spec.tail,
                                   columns_vary=self.spec.tail or self.spec.n % lane.count != 0,
                                   mask_b=not self.plan.pack_b)
            build.call(kernel, arguments)

        def panel_of(column: Any, width: int) -> None:
            b = panel(column, width)
            self.runs(self.plan.rows, at["m"], 1, lambda row, height: block(row, height, column, width, *b))

        self.runs(self.plan.vectors, at["n"], lane.count, panel_of)

    def runs(self, runs: Sequence[tuple[int, int]], extent: Any, unit: int, body: Callable[[Any, int], None]) -> None:
        """body(start, size) for every block of the runs that starts below extent."""
        start = 0
        for count, size in runs:
            end = start + count * size * unit
            stop = extent if self.spec.tail else I64(end)
            _count(self.build, start, stop, size * unit, lambda at, size=size: body(at, size))
            start = end

    def prepare_a(self, start: Any, k: Any) -> tuple[Any, Any, Any]:
        """Where micro-kernels find a's K block: address, row stride, lane stride.

        A copy runs along rows, or along columns when a's columns are what is contiguous.
        """
        at, build, size = self.at, self.build, self.lane.size
        block = self.move(at["a"], build.mul(start, at["a_cs"]))
        if not self.plan.pack_a:
            return block, at["a_rs"], at["a_cs"]
        turned = build.icmp_signed("==", at["a_rs"], I64(self.spec.a.itemsize))
        along_rows, along_columns = I64(self.plan.k_lanes * size), I64(self.plan.padded_rows * size)
        with build.if_else(turned) as (columns, rows):
            with columns:
                build.call(self.packer(self.spec.a, False),
                           [block, at["a_cs"], at["a_rs"], at["scratch"], along_columns, k, at["m"]])
            with rows:
                build.call(self.packer(self.spec.a, True),
                           [block, at["a_rs"], at["a_cs"], at["scratch"], along_rows, at["m"], k])
        return (at["scratch"], build.select(turned, I64(size), along_rows),
                build.select(turned, along_columns, I64(size)))

    def packer(self, source: DType, k_inner: bool, to: DType | None = None) -> ir.Function:
        """With vectors no longer than the rows they are for, unless those are too short for any."""
        k, n = self.plan.k_lanes, self.spec.n
        lane = self.lane if to is None or to is self.lane.dtype else _Lane(to, 1, self.lane.count)
        if lane.group > 1:
            longest = k if k_inner else n
        else:                       # both operands share one
            longest = min(k, n) if min(k, n) >= 4 else max(k, n)
        width = min(self.lane.count, 1 << (longest.bit_length() - 1))
        return _packer(self.function.module, source, lane, k_inner, width, self.target)

    def prepare_b(self, start: Any, k: Any) -> Callable[[Any, int], tuple[Any, Any]]:
        """(first column, vectors) -> address and row stride of that panel of b's K block.

        A panel that has to be packed is packed when it is asked for, and stays until the next one is.
        """
        at, build, count, size = self.at, self.build, self.lane.count, self.plan.panel.itemsize
        block = self.move(at["b"], build.mul(start, at["b_rs"]))
        packed = self.move(at["scratch"], self.plan.a_bytes)

        def pack(column: Any, width: int) -> tuple[Any, Any]:
            row = I64(width * count * size)
            columns = _minimum(build, build.sub(at["n"], column), I64(width * count))
            here = self.move(block, build.mul(column, at["b_cs"]))
            build.call(self.packer(self.spec.b, False, self.plan.panel),
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
            crowded = build.icmp_signed("==", build.and_(at["b_rs"], I64(CROWDED - 1)), I64(0))
            apart = build.or_(apart, crowded)
        return either

    def move(self, pointer: Any, offset: Any) -> Any:
        return _move(self.build, pointer, offset)


def emit_transpose(function: ir.Function, dtype: DType, width: int, target: Target) -> None:
    """The body of a function that copies elements between any strides, as lower/copies.py says: by one of the packers,
    whose destination is contiguous, or else one by one.

    width   elements of a vector
    """
    names = ("to", "to_rows", "to_cols", "from", "from_rows", "from_cols", "rows", "cols")
    at: dict[str, Any] = dict(zip(names, function.args))
    packer = _packer(function.module, dtype, _Lane(dtype, 1, width), False, width, target)
    build = ir.Builder(function.append_basic_block("entry"))
    for inner, outer in (("cols", "rows"), ("rows", "cols")):
        with build.if_then(build.icmp_signed("==", at[f"to_{inner}"], I64(dtype.itemsize))):
            build.call(packer, [at["from"], at[f"from_{outer}"], at[f"from_{inner}"], at["to"], at[f"to_{outer}"],
                                at[outer], at[inner]])
            build.ret_void()
    k = Algebra(build, 1, target.features)

    def element(side: str, r: Any, c: Any) -> Any:
        row = _move(build, at[side], build.mul(r, at[f"{side}_rows"]))
        return _move(build, row, build.mul(c, at[f"{side}_cols"]))

    def one(r: Any, c: Any) -> None:
        k.store(k.load(element("from", r, c), dtype, align=1), element("to", r, c), align=1)

    _count(build, 0, at["rows"], 1, lambda r: _count(build, 0, at["cols"], 1, lambda c: one(r, c)))
    build.ret_void()


# ---- dot products: few rows (columns) with an operand that lies along k -------------------------------------------


@dataclass(frozen=True, slots=True)
class _DotPlan:
    """The operand that lies along k is `big`, [rows, k]; the other one `few`, [columns, k], packed if it is apart."""

    lane: _Lane
    big: DType
    few: DType
    most: tuple[int, int, int]      # rows of big, columns of few, k
    height: int                     # rows in a block
    columns: tuple[tuple[int, int], ...]    # runs of blocks of columns: (how many, how wide)
    rest: bool                      # may k end within a step?
    with_a: bool                    # rows of big are rows of c, else they are its columns

    @staticmethod
    def of(spec: MatmulSpec, target: Target) -> _DotPlan:
        group = 2 if target.pair_dot and spec.a.bits == 8 else 1
        of_ints = target.vector_bits // spec.result.bits        # whose sums are the same in any order
        lane = _Lane(spec.result, group, of_ints if spec.result.is_int else DOT_LANES)
        big, few = (spec.a, spec.b) if spec.along_k == "a" else (spec.b, spec.a)
        rows, columns = (spec.m, spec.n) if spec.along_k == "a" else (spec.n, spec.m)
        registers = lane.count * lane.dtype.bits // target.vector_bits      # that the lanes take
        height, width = _dot_block(rows, columns, (target.registers - group + 1) // max(registers, 1), registers)
        rest = spec.tail or spec.k % (lane.count * group) != 0
        return _DotPlan(lane, big, few, (rows, columns, spec.k), height, _split(columns, width, False), rest,
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
        return _aligned(self.most[1] * self.few_pitch)

    @property
    def scratch_bytes(self) -> int:
        return self.few_bytes + _aligned(min(CHUNK, self.most[0]) * self.most[2] * self.big.itemsize)


def _dot_block(rows: int, columns: int, values: int, registers: int) -> tuple[int, int]:
    """(rows, columns) of a block: the cheapest whose sums fit with what is multiplied. `values` fit in all registers.

    In cycles: two multiply-adds or loads a cycle, sums that wait 4.5 cycles for themselves.
    """
    def price(block: tuple[int, int]) -> float:
        height, width = block
        return -(-rows // height) * sum(
            count * (max(height * w * registers / 2, (height + w) * registers / 2, 4.5) + 0.1 * (height + w))
            for count, w in _split(columns, width, False))

    blocks = [(h, w) for h in (8, 4, 2, 1) for w in range(1, columns + 1) if h * w + w + 1 <= values or h == w == 1]
    return min(blocks, key=price)


class _Dots:
    """Emits the loops over chunks of big's rows and over the blocks of a chunk."""

    def __init__(self, function: ir.Function, spec: MatmulSpec, target: Target):
        self.spec, self.target, self.plan, self.module = spec, target, _DotPlan.of(spec, target), function.module
        self.build = ir.Builder(function.append_basic_block("entry"))
        at: dict[str, Any] = {"m": I64(spec.m), "n": I64(spec.n), "k": I64(spec.k)}
        at |= {argument.name: argument for argument in function.args}
        size, with_a = I64(spec.result.itemsize), self.plan.with_a
        at["c_cs"] = size
        names = [("rows", "m", "n"), ("columns", "n", "m"), ("big", "a", "b"), ("big_rows", "a_rs", "b_cs"),
                 ("big_k", "a_cs", "b_rs"), ("few", "b", "a"), ("few_columns", "b_cs", "a_rs"),
                 ("few_k", "b_rs", "a_cs"), ("c_rows", "c_rs", "c_cs"), ("c_columns", "c_cs", "c_rs")]
        if spec.accumulate:
            _start_at_acc(self.build, at, spec, target)
            names += [("acc_rows", "acc_rs", "acc_cs"), ("acc_columns", "acc_cs", "acc_rs")]
        self.at = at | {name: at[x if with_a else y] for name, x, y in names}

    def emit(self) -> None:
        few, few_columns = self.prepare_few()
        _count(self.build, 0, self.at["rows"], CHUNK, lambda start: self.chunk(start, few, few_columns))
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
                _count(build, 0, at["columns"], 1, lambda column: k.store(
                    nothing, _move(build, _move(build, at["scratch"], build.mul(column, I64(plan.few_pitch))), last)))
            build.call(self.packer(plan.few, lane.dtype, lane.group, plan.most[1]),
                       [at["few"], at["few_columns"], at["few_k"], at["scratch"], I64(plan.few_pitch),
                        at["columns"], at["k"]])
        return (build.select(apart, at["scratch"], at["few"]),
                build.select(apart, I64(plan.few_pitch), at["few_columns"]))

    def packer(self, source: DType, to: DType, group: int, few: int = 0) -> ir.Function:
        count = self.target.vector_bits // to.bits
        width = min(count, 1 << ((self.spec.k // group).bit_length() - 1))
        return _packer(self.module, source, _Lane(to, group, count), True, width, self.target, few)

    def chunk(self, start: Any, few: Any, few_columns: Any) -> None:
        at, build, plan = self.at, self.build, self.plan
        rows = _minimum(build, build.sub(at["rows"], start), I64(CHUNK))
        here = _move(build, at["big"], build.mul(start, at["big_rows"]))
        packed, pitch = _move(build, at["scratch"], plan.few_bytes), I64(plan.most[2] * plan.big.itemsize)
        apart = build.icmp_signed("!=", at["big_k"], I64(plan.big.itemsize))
        with build.if_then(apart, likely=False):
            build.call(self.packer(plan.big, plan.big, 1),
                       [here, at["big_rows"], at["big_k"], packed, pitch, rows, at["k"]])
        big, big_rows = build.select(apart, packed, here), build.select(apart, pitch, at["big_rows"])
        place = {name: _move(build, at[name], build.mul(start, at[f"{name}_rows"]))
                 for name in ("c", "acc") if name in at}

        def block(row: Any) -> None:
            first = 0
            for count, width in plan.columns:
                for column in range(first, first + count * width, width):
                    arguments = [_move(build, big, build.mul(row, big_rows)), big_rows,
                                 _move(build, few, build.mul(I64(column), few_columns)), few_columns, at["k"]]
                    for name, pointer in place.items():
                        pointer = _move(build, pointer, build.mul(row, at[f"{name}_rows"]))
                        pointer = _move(build, pointer, build.mul(I64(column), at[f"{name}_columns"]))
                        arguments += [pointer, at[f"{name}_rs"]]
                    if self.limited:
                        left = build.sub(rows, row), build.sub(at["columns"], I64(column))
                        arguments += left if plan.with_a else reversed(left)
                    build.call(self.kernel(width), arguments)
                first += count * width

        _count(build, 0, rows, plan.height, block)

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
        return _shared(self.module, f"matmul_dots_{plan.height}x{width}_{kind}{suffix}", names,
                       lambda f: _emit_dots(f, plan, width, self.target))


def _emit_dots(f: ir.Function, plan: _DotPlan, width: int, target: Target) -> None:
    at: dict[str, Any] = {argument.name: argument for argument in f.args}
    build, lane, height = ir.Builder(f.append_basic_block("entry")), plan.lane, plan.height
    k, elements = (Algebra(build, count, target.features) for count in (lane.count, plan.step))
    edge = _Edge(build, elements, _Lane(plan.big, 1, plan.step), target)
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
        offsets[1:] = [_opaque(build, offset) for offset in offsets[1:]]

    def step(limit: Any) -> Callable[..., list[Any]]:
        def body(_: Any, values: list[Any]) -> list[Any]:
            big, few, *sums = values            # of one row of c after the other
            xs = [k.load(_move(build, few, x), lane.dtype, align=1) for x in beside]
            for r in range(height):
                y = _along_k(k, elements, lane, edge.load(_move(build, big, below[r]), limit, or_zero=True))
                for c in range(width):
                    at_sum = r * width + c if plan.with_a else c * height + r
                    sums[at_sum] = _multiply_add(k, lane, y, xs[c], Lanes(sums[at_sum], lane.dtype)).ir
            return [_move(build, big, plan.step * plan.big.itemsize), _move(build, few, lane.count * lane.size), *sums]
        return body

    steps, zero = build.udiv(at["k"], I64(plan.step)), k.const(0, lane.dtype).ir
    values = _count(build, 0, steps, 1, step(None), [at["big"], at["few"], *[zero] * (height * width)])
    if plan.rest:
        left = build.sub(at["k"], build.mul(steps, I64(plan.step)))
        values = _count(build, 0, _minimum(build, left, I64(1)), 1, step(edge.limit(left)), values)
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
        k.store(totals, _move(build, memory, i * size))     # over lanes of the one before that are no totals

    def store(r: Any, c: Any, count: int) -> None:
        some, i = Algebra(build, count, k.features), build.add(build.mul(r, I64(shape[1])), c)
        total = some.load(_move(build, memory, build.mul(i, I64(size))), dtype, align=size)
        place = {name: _move(build, _move(build, at[name], build.mul(r, at[f"{name}_rs"])), build.mul(c, I64(size)))
                 for name in ("c", "acc") if name in at}
        if "acc" in place:
            total = some.add(some.load(place["acc"], dtype, align=1), total)
        some.store(total, place["c"], align=1)

    def all_rows() -> None:
        for r in range(shape[0]):
            store(I64(r), I64(0), shape[1])

    if "m" in at:
        rows, columns = (_minimum(build, at[x], I64(n)) for x, n in zip("mn", shape))
        everything = build.icmp_signed("==", build.mul(rows, columns), I64(shape[0] * shape[1]))
        with build.if_else(everything) as (whole, part):
            with whole:
                all_rows()
            with part:
                _count(build, 0, rows, 1, lambda r: _count(build, 0, columns, 1, lambda c: store(r, c, 1)))
    else:
        all_rows()
    build.ret_void()


# ---- micro-kernel -------------------------------------------------------------------------------------------------


def _micro_kernel(module: ir.Module, lane: _Lane, panel: DType, height: int, width: int, target: Target, *,
                  rows_vary: bool, columns_vary: bool, mask_b: bool) -> ir.Function:
    """A function that adds one K block to a block of `height` rows and `width` vectors: c = [src +] a @ b.

    Strides of a and b are bytes: between lanes of a, between rows of b, which holds lanes or elements of another dtype.
    `k` counts lanes; src may be `_nothing`, with row stride 0. `rows` and `columns` (more than the block has means all)
    limit what is read of a and stored, and with mask_b also what is read of b.
    """
    names = ["*a", "a_rs", "a_cs", "*b", "b_rs", "k", "*src", "src_rs", "*c", "c_rs"]
    names += ["rows"] * rows_vary + ["columns"] * columns_vary
    kind = lane.dtype.value + "_pairs" * (lane.group > 1) + f"_{panel.value}" * (panel is not lane.dtype)
    suffix = "_rows" * rows_vary + "_columns" * columns_vary + "_masked" * (columns_vary and mask_b)
    name = f"matmul_{height}x{width}_{kind}{suffix}"
    return _shared(module, name, names, lambda f: _emit_micro_kernel(f, lane, panel, height, width, target, mask_b))


def _emit_micro_kernel(f: ir.Function, lane: _Lane, panel: DType, height: int, width: int, target: Target,
                       mask_b: bool) -> None:
    at: dict[str, Any] = {argument.name: argument for argument in f.args}
    build = ir.Builder(f.append_basic_block("entry"))
    k = Algebra(build, lane.count, target.features)
    edge = _Edge(build, k, lane, target)
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
    below[1:] = [_opaque(build, offset) for offset in below[1:]]
    rows_of_a = [_move(build, at["a"], build.mul(I64(row), at["a_rs"])) for row in range(0, height, ROWS)]
    rows_of_b = lane.group if panel is not lane.dtype else 1
    b_step = build.mul(at["b_rs"], I64(rows_of_b))

    def read(b: Any, v: int) -> Lanes:
        if panel is lane.dtype:
            return edge.load(_move(build, b, v * lane.count * lane.size), limits[v] if mask_b else None)
        mask = limits[v] if mask_b else None
        pointers = [_move(build, x, v * lane.count * panel.itemsize)
                    for x in (b, build.gep(b, [at["b_rs"]], source_etype=I8))[:rows_of_b]]
        return _widened(k, lane, [k.load(x, panel, align=1, mask=mask) for x in pointers])

    def step(_: Any, values: list[Any]) -> list[Any]:
        a, b, sums = values[:-count], values[-count], values[1 - count :]
        ys = [read(b, v) for v in range(width)]
        for i in range(height):
            pointer = _move(build, a[i // ROWS], below[i % ROWS])
            x = k.splat(build.load(pointer, typ=k.ir_type(lane.dtype).element, align=1), lane.dtype)
            for v in range(width):
                sums[i * width + v] = _multiply_add(k, lane, x, ys[v], Lanes(sums[i * width + v], lane.dtype)).ir
        return [*(_move(build, x, at["a_cs"]) for x in a), _move(build, b, b_step), *sums]

    zero, count = k.const(0, lane.dtype).ir, 1 + height * width
    sums = _count(build, 0, at["k"], 1, step, [*rows_of_a, at["b"], *[zero] * (height * width)])[1 - count :]
    src, c, vector = at["src"], at["c"], lane.count * lane.size
    for i in range(height):
        if i and "rows" in at:
            with build.if_then(build.icmp_signed("==", at["rows"], I64(i))):
                build.ret_void()
        for v in range(width):
            before = edge.load(_move(build, src, v * vector), limits[v])
            total = k.add(before, Lanes(sums[i * width + v], lane.dtype))
            edge.store(total, _move(build, c, v * vector), limits[v])
        src, c = _move(build, src, at["src_rs"]), _move(build, c, at["c_rs"])
    build.ret_void()


def _along_k(k: Algebra, elements: Algebra, lane: _Lane, narrow: Lanes) -> Lanes:
    """Neighbours along k as lanes, or as lanes of pairs: then there are twice as many `elements`."""
    if lane.group == 1:
        return k.convert(narrow, lane.dtype)
    return Lanes(k.builder.bitcast(elements.convert(narrow, DType.I16).ir, k.ir_type(lane.dtype)), lane.dtype)


def _widened(k: Algebra, lane: _Lane, rows: list[Lanes]) -> Lanes:
    """One row of narrow elements as lanes, or two neighbours along k as lanes of pairs."""
    if lane.group == 1:
        return k.convert(rows[0], lane.dtype)
    low, high = (k.convert(k.convert(x, DType.I16), DType.I32) for x in rows)
    return k.or_(k.and_(low, 0xFFFF), k.shl(high, 16))


def _nothing(module: ir.Module, lane: _Lane) -> Any:
    """Address of a row of what adds nothing: -0.0, since +0.0 would turn a sum of -0.0 into +0.0."""
    row = ir.ArrayType(I8, MOST_VECTORS * lane.count * lane.size)
    name = f"matmul_nothing_{lane.dtype.value}"
    if name not in module.constants:
        sign = [0] * (lane.size - 1) + [0x80 if lane.dtype.is_float else 0]
        ir.GlobalConstant(module, name, row(bytes(sign * (row.count // lane.size))), align=64)
    return module.constants[name]


def _multiply_add(k: Algebra, lane: _Lane, x: Lanes, y: Lanes, z: Lanes) -> Lanes:
    if lane.group == 1:
        return k.fma(x, y, z)
    halves = ir.VectorType(ir.IntType(16), 2 * lane.count)
    name = PAIR_DOT[lane.count * lane.dtype.bits]
    dot = k.declare(name, k.ir_type(lane.dtype), [halves, halves])
    pair = k.builder.call(dot, [k.builder.bitcast(x.ir, halves), k.builder.bitcast(y.ir, halves)])
    return k.add(Lanes(pair, lane.dtype), z)


class _Edge:
    """Vectors of which only the first lanes exist in memory."""

    def __init__(self, build: ir.Builder, k: Algebra, lane: _Lane, target: Target):
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
        index = ir.VectorType(ir.IntType(32), self.lane.count)
        lanes = ir.Constant(index, list(range(self.lane.count)))
        few = _minimum(self.build, _maximum(self.build, left, I64(0)), I64(self.lane.count))
        wide = Algebra(self.build, self.lane.count).splat(self.build.trunc(few, ir.IntType(32)), DType.I32)
        return Lanes(self.build.icmp_signed("<", lanes, wide.ir), None)

    def copy(self, source: Any, to: Any, left: Any) -> None:
        element = self.k.ir_type(self.lane.dtype).element

        def one(i: Any) -> None:
            value = self.build.load(self.build.gep(source, [i], source_etype=element), typ=element, align=1)
            self.build.store(value, self.build.gep(to, [i], source_etype=element), align=1)

        _count(self.build, 0, _minimum(self.build, left, I64(self.lane.count)), 1, one)


# ---- packing ------------------------------------------------------------------------------------------------------


def _packer(module: ir.Module, source: DType, lane: _Lane, k_inner: bool, width: int, target: Target,
            few: int = 0) -> ir.Function:
    """A function that copies `outer` x `inner` elements to rows of contiguous lanes.

    K runs along inner (operand a) or along outer (operand b). Lanes of two values take two neighbours along K; when K
    is odd the last lane's second value is 0. Lanes between `inner` and the row stride of dst are left as they are.
    Rows that are contiguous and have at least `width` lanes are copied in vectors of that many. `few`: outer is that or
    less, and transposed in blocks all the same.
    """
    pairs = f"_pairs_{'inner' if k_inner else 'outer'}" * (lane.group > 1)
    name = f"matmul_pack_{source.value}_{lane.dtype.value}{pairs}_{width}" + f"_of_{few}" * (few > 1)
    names = ["*src", "outer_stride", "inner_stride", "*dst", "dst_stride", "outer", "inner"]
    return _shared(module, name, names, lambda f: _Packer(f, source, lane, k_inner, width, target, few).emit())


class _Packer:
    def __init__(self, f: ir.Function, source: DType, lane: _Lane, k_inner: bool, width: int, target: Target,
                 few: int):
        self.at: dict[str, Any] = {argument.name: argument for argument in f.args}
        self.build = ir.Builder(f.append_basic_block("entry"))
        self.source, self.lane, self.k_inner, self.width, self.target = source, lane, k_inner, width, target
        self.few = few

    def emit(self) -> None:
        """Vectors along inner, or square blocks transposed, or neither; then what is left one by one.

        Operand a never needs blocks: `prepare_a` calls the other packer when its columns are contiguous.
        """
        at, build, lane = self.at, self.build, self.lane
        group = {"inner": lane.group if self.k_inner else 1, "outer": 1 if self.k_inner else lane.group}
        full = {d: build.udiv(at[d], I64(group[d])) for d in group}
        total = {d: build.udiv(build.add(at[d], I64(group[d] - 1)), I64(group[d])) for d in group}
        self.step = {d: build.mul(at[d + "_stride"], I64(group[d])) for d in group}     # from lane to lane
        self.along_k = at["inner_stride" if self.k_inner else "outer_stride"]
        side = min(lane.count, SIDE)
        count = build.alloca(I64)
        build.store(I64(0), count)

        def contiguous(d: str) -> Any:
            return build.icmp_signed("==", at[d + "_stride"], I64(self.source.itemsize))

        def at_least(d: str, n: int) -> Any:
            return build.icmp_signed(">=", full[d], I64(n))

        def nothing_yet() -> Any:
            return build.icmp_signed("==", build.load(count, typ=I64), I64(0))

        def row(o: Any) -> None:
            self.overlapping(full["inner"], self.width, lambda i: self.vector(o, i))

        def block_column(i: Any) -> None:
            self.overlapping(full["outer"], side, lambda o: self.block(o, i, side))

        with build.if_then(build.and_(contiguous("inner"), at_least("inner", self.width))):
            _count(build, 0, full["outer"], 1, row)
            build.store(full["outer"], count)
        if self.few > 1:
            side = max(side, 1 << (self.few - 1).bit_length())
            narrow = build.and_(build.icmp_signed("==", full["outer"], I64(self.few)), at_least("inner", side))
            with build.if_then(build.and_(build.and_(contiguous("outer"), narrow), nothing_yet())):
                self.overlapping(full["inner"], side, lambda i: self.narrow_block(i, side))
                build.store(full["outer"], count)
        elif not self.k_inner or lane.group == 1:
            square = build.and_(at_least("outer", side), at_least("inner", side))
            with build.if_then(build.and_(build.and_(contiguous("outer"), square), nothing_yet())):
                self.overlapping(full["inner"], side, block_column)     # follows lines of the source to their ends
                build.store(full["outer"], count)
        rows = build.load(count, typ=I64)       # that have all lanes of full["inner"]
        all_lanes = build.icmp_signed("==", full["inner"], total["inner"])

        def rest(o: Any) -> None:
            first = build.select(build.icmp_signed("<", o, rows), full["inner"], I64(0))
            _count(build, first, total["inner"], 1, lambda i: self.scalar(o, i))

        _count(build, build.select(all_lanes, rows, I64(0)), total["outer"], 1, rest)
        build.ret_void()

    def overlapping(self, extent: Any, size: int, body: Callable[[Any], None]) -> None:
        """Blocks of `size` over an extent of at least that; the last one may repeat some of what is before it."""
        last = self.build.sub(extent, I64(size))
        _count(self.build, 0, extent, size, lambda i: body(_minimum(self.build, i, last)))

    def source_at(self, o: Any, i: Any) -> Any:
        offset = self.build.add(self.build.mul(o, self.step["outer"]), self.build.mul(i, self.step["inner"]))
        return self.build.gep(self.at["src"], [offset], source_etype=I8)

    def lane_at(self, o: Any, i: Any) -> Any:
        offset = self.build.add(self.build.mul(o, self.at["dst_stride"]), self.build.mul(i, I64(self.lane.size)))
        return self.build.gep(self.at["dst"], [offset], source_etype=I8)

    def vector(self, o: Any, i: Any) -> None:
        k = Algebra(self.build, self.width, self.target.features)
        k.store(self.read(k, self.source_at(o, i), self.k_inner), self.lane_at(o, i), align=1)

    def block(self, o: Any, i: Any, side: int) -> None:
        """side x side lanes, contiguous along outer at the source."""
        k = Algebra(self.build, side, self.target.features)
        columns, source, to = [], self.source_at(o, i), self.lane_at(o, i)
        for _ in range(side):
            columns.append(self.read(k, source, True))
            source = _move(self.build, source, self.step["inner"])
        for lanes in _transposed(k, columns):
            k.store(lanes, to, align=1)
            to = _move(self.build, to, self.at["dst_stride"])

    def narrow_block(self, i: Any, side: int) -> None:
        """`few` x side lanes, contiguous along outer at the source, where k runs along inner."""
        k, source = Algebra(self.build, self.few, self.target.features), self.source_at(I64(0), i)
        wide, columns = Algebra(self.build, side, self.target.features), []
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), side), [lane % self.few for lane in range(side)])
        for _ in range(side):
            x = self.read(k, source, False)
            columns.append(Lanes(self.build.shuffle_vector(x.ir, x.ir, lanes), x.dtype))
            source = _move(self.build, source, self.step["inner"])
        to = self.lane_at(I64(0), i)
        for x in _transposed(wide, columns)[: self.few]:
            wide.store(x, to, align=1)
            to = _move(self.build, to, self.at["dst_stride"])

    def scalar(self, o: Any, i: Any) -> None:
        """One lane; the second of a pair may be missing."""
        build, k = self.build, Algebra(self.build, 1, self.target.features)
        first = self.source_at(o, i)
        if self.lane.group == 1:
            k.store(self.read(k, first, True), self.lane_at(o, i), align=1)
            return
        index, extent = (i, self.at["inner"]) if self.k_inner else (o, self.at["outer"])
        exists = build.icmp_signed("<", build.add(build.mul(index, I64(2)), I64(1)), extent)
        offset = build.select(exists, self.along_k, I64(0))
        second = k.load(build.gep(first, [offset], source_etype=I8), self.source, align=1)
        second = k.select(Lanes(exists, None), second, 0)
        pair = _widened(k, self.lane, [k.load(first, self.source, align=1), second])
        k.store(pair, self.lane_at(o, i), align=1)

    def read(self, k: Algebra, pointer: Any, along_k: bool) -> Lanes:
        """Lanes from contiguous elements; along_k says that a pair's two values are neighbours there."""
        if self.lane.group == 1 or along_k:
            elements = k if self.lane.group == 1 else Algebra(self.build, 2 * k.lanes, self.target.features)
            return _along_k(k, elements, self.lane, elements.load(pointer, self.source, align=1))
        second = self.build.gep(pointer, [self.along_k], source_etype=I8)
        return _widened(k, self.lane, [k.load(p, self.source, align=1) for p in (pointer, second)])


def _transposed(k: Algebra, rows: list[Lanes]) -> list[Lanes]:
    """len(rows) vectors of as many lanes, transposed: one bit of the row number trades places with one of the lane's.

    32-bit lanes trade both bits inside 128 bits at a time, which x86 does in one instruction a vector (unpcklps).
    """
    values, n = [x.ir for x in rows], len(rows)

    def shuffle(x: Any, y: Any, lanes: list[int]) -> Any:
        return k.builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(ir.IntType(32), n), lanes))

    step = 1
    if rows[0].dtype is not None and rows[0].dtype.bits == 32 and n >= 4:
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


# ---- building blocks of IR ----------------------------------------------------------------------------------------


def _shared(module: ir.Module, name: str, arguments: list[str],
            emit_body: Callable[[ir.Function], None]) -> ir.Function:
    """The module's internal function of that name, made now if there is none. *x is a pointer, the others are i64."""
    if name in module.functions:
        return module.functions[name]
    kinds = [POINTER if argument.startswith("*") else I64 for argument in arguments]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
    function.linkage = "internal"
    function.attributes += ["nounwind", "noinline"]
    for value, argument in zip(function.args, arguments):
        value.name = argument.lstrip("*")
    emit_body(function)
    return function


def _count(build: ir.Builder, start: Any, stop: Any, step: int, body: Callable[..., Any],
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


def _opaque(build: ir.Builder, x: ir.Value) -> ir.Value:
    """x, of which LLVM does not know how it was computed. Of offsets that are multiples of each other it would make a
    chain of additions inside the loop, to save registers: a cycle for each row that the multiply-adds have to wait."""
    return build.append(x.type, f'call {x.type} asm "", "=r,0"({x})')


def _move(build: ir.Builder, pointer: Any, offset: Any) -> Any:
    """The address `offset` bytes further."""
    if isinstance(offset, int):
        offset = I64(offset)
    still = isinstance(offset, ir.Constant) and offset.constant == 0
    return pointer if still else build.gep(pointer, [offset], source_etype=I8)


def _minimum(build: ir.Builder, x: Any, y: Any) -> Any:
    return build.select(build.icmp_signed("<", x, y), x, y)


def _maximum(build: ir.Builder, x: Any, y: Any) -> Any:
    return build.select(build.icmp_signed(">", x, y), x, y)
