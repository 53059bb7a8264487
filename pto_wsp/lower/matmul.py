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

    sums = [], one per K_BLOCK (256) consecutive k:  s = +0;  s = fma(a[i,k], b[k,j], s) for k ascending
    c[i,j] = acc[i,j] + sums[0] + sums[1] + ... from left to right; without acc it starts at sums[0]; k = 0 gives acc or +0

in `spec.result`: f32 for f16, bf16 and f32; f64 for f64; i32 for i8 and u8; other integers their own type, wrapping.
f16, bf16 and small integers are widened exactly first. (Which NaN comes out of several is not defined.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

from llvmlite import ir

from pto_wsp.types import DType

K_BLOCK = 256       # products summed in a row before the sum joins the others

I64 = ir.IntType(64)
POINTER = ir.PointerType()


@dataclass(frozen=True, slots=True)
class Target:
    """What the generator wants to know about a CPU. Changes speed, never bits."""

    vector_bits: int = 128
    registers: int = 16             # vector registers
    fma: bool = False
    f16c: bool = False              # converts f16 vectors
    masks: bool = False             # masked loads and stores cost about as much as plain ones

    @staticmethod
    def of(triple: str, features: str) -> Target:
        """From an LLVM triple and feature string, `+avx2,-avx512f,...`."""
        has = {word[1:] for word in features.split(",") if word.startswith("+")}
        if triple.startswith(("aarch64", "arm64")):
            return Target(128, 32, fma=True, f16c=True)
        if {"avx512f", "avx512bw", "avx512vl", "avx512dq"} <= has:
            return Target(512, 32, fma=True, f16c=True, masks=True)
        if {"avx2", "fma"} <= has:
            return Target(256, 16, fma=True, f16c="f16c" in has, masks=True)
        return Target()


@dataclass(frozen=True, slots=True)
class MatmulSpec:
    """[m, k] of dtype `a` times [k, n] of dtype `b`."""

    m: int
    n: int
    k: int
    a: DType
    b: DType
    accumulate: bool = False        # starts from an operand `acc` of the result's dtype
    tail: bool = False              # extents come at run time, m, n, k are the largest

    @property
    def result(self) -> DType:
        """The dtype of sums and result."""
        return accumulator(self.a, self.b)

    @property
    def name(self) -> str:
        shape = f"{self.m}x{self.n}x{self.k}"
        return f"matmul_{shape}_{self.a.value}_{self.b.value}{'_acc' * self.accumulate}{'_tail' * self.tail}"


def accumulator(a: DType, b: DType) -> DType:
    """The dtype in which products of `a` and `b` are summed. They must be of one dtype, or both 8-bit integers."""
    if a.bits == 8 and b.bits == 8:
        return DType.I32
    if a is not b:
        raise ValueError(f"no product of {a.value} and {b.value}")
    return DType.F32 if a in (DType.F16, DType.BF16) else a


def scratch_bytes(spec: MatmulSpec, target: Target) -> int:
    """Bytes of scratch that the function of `spec` needs."""
    return 64


def emit(module: ir.Module, spec: MatmulSpec, target: Target) -> ir.Function:
    """The function that multiplies as `spec` says; equal specs share one per module."""
    found = module.globals.get(spec.name)
    return found if found is not None else _plain(module, spec)


def _plain(module: ir.Module, spec: MatmulSpec) -> ir.Function:
    lane = _lane(spec.result)
    groups = [("a", "p"), ("a_rs", "i"), ("a_cs", "i"), ("b", "p"), ("b_rs", "i"), ("b_cs", "i")]
    groups += [("acc", "p"), ("acc_rs", "i"), ("acc_cs", "i")] * spec.accumulate
    groups += [("c", "p"), ("c_rs", "i")]
    groups += [("m", "i"), ("n", "i"), ("k", "i")] * spec.tail + [("scratch", "p")]
    signature = ir.FunctionType(ir.VoidType(), [POINTER if kind == "p" else I64 for _, kind in groups])
    function = ir.Function(module, signature, spec.name)
    function.linkage = "internal"
    at: dict[str, ir.Value] = {"m": I64(spec.m), "n": I64(spec.n), "k": I64(spec.k)}
    for (name, _), argument in zip(groups, function.args):
        argument.name = name
        at[name] = argument
    build = ir.IRBuilder(function.append_basic_block("entry"))

    def address(base: str, row: ir.Value, rs: ir.Value, col: ir.Value, cs: ir.Value) -> ir.Value:
        offset = build.add(build.mul(row, rs), build.mul(col, cs))
        return build.gep(at[base], [offset], source_etype=ir.IntType(8))

    def fetch(base: str, dtype: DType, row: ir.Value, col: ir.Value) -> ir.Value:
        p = address(base, row, at[base + "_rs"], col, at[base + "_cs"])
        if dtype is DType.BF16:
            bits = build.load(p, typ=ir.IntType(16), align=1)
            return build.bitcast(build.shl(build.zext(bits, ir.IntType(32)), ir.IntType(32)(16)), lane)
        value = build.load(p, typ=_lane(dtype), align=1)
        if dtype is DType.F16:
            return build.fpext(value, lane)
        if dtype.bits < spec.result.bits:
            return (build.sext if dtype.is_signed else build.zext)(value, lane)
        return value

    def add(x: ir.Value, y: ir.Value) -> ir.Value:
        return build.fadd(x, y) if spec.result.is_float else build.add(x, y)

    total, part = (build.alloca(lane) for _ in range(2))

    def row(i: ir.Value) -> None:
        _loop(build, at["n"], lambda j: element(i, j))

    def element(i: ir.Value, j: ir.Value) -> None:
        out = address("c", i, at["c_rs"], j, I64(spec.result.itemsize))
        first = fetch("acc", spec.result, i, j) if spec.accumulate else lane(0)
        build.store(first, total)
        blocks = build.udiv(build.add(at["k"], I64(K_BLOCK - 1)), I64(K_BLOCK))

        def block(number: ir.Value) -> None:
            start = build.mul(number, I64(K_BLOCK))
            left = build.sub(at["k"], start)
            count = build.select(build.icmp_signed("<", left, I64(K_BLOCK)), left, I64(K_BLOCK))
            build.store(lane(0), part)

            def step(kk: ir.Value) -> None:
                k = build.add(start, kk)
                x, y, s = fetch("a", spec.a, i, k), fetch("b", spec.b, k, j), build.load(part, typ=lane)
                build.store(build.fma(x, y, s) if spec.result.is_float else build.add(build.mul(x, y), s), part)

            _loop(build, count, step)
            s = build.load(part, typ=lane)
            summed = add(build.load(total, typ=lane), s)
            if not spec.accumulate:
                summed = build.select(build.icmp_signed("==", number, I64(0)), s, summed)
            build.store(summed, total)

        _loop(build, blocks, block)
        build.store(build.load(total, typ=lane), out, align=1)

    _loop(build, at["m"], row)
    build.ret_void()
    return function


def _lane(dtype: DType) -> ir.Type:
    """The LLVM type of one element; bf16 is kept as its bits."""
    if dtype.is_float and dtype is not DType.BF16:
        return {16: ir.HalfType, 32: ir.FloatType, 64: ir.DoubleType}[dtype.bits]()
    return ir.IntType(dtype.bits)


def _loop(build: ir.IRBuilder, count: ir.Value, body: Callable[[ir.Value], None]) -> None:
    """for i in range(count): body(i)."""
    before = build.block
    head, inside, done = (build.append_basic_block(name) for name in ("head", "body", "done"))
    build.branch(head)
    build.position_at_end(head)
    i = build.phi(I64)
    i.add_incoming(I64(0), before)
    build.cbranch(build.icmp_signed("<", i, count), inside, done)
    build.position_at_end(inside)
    body(i)
    i.add_incoming(build.add(i, I64(1)), build.block)
    build.branch(head)
    build.position_at_end(done)
