"""What this machine can do on one core: multiply-adds in registers, copies in L1, L2 and memory. Roofs, no claims."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator

import numpy as np

from benchmarks.harness import Fact, again, main, on_tiles, repeats
from pto_wsp import DType, In, Out, Tile, kernel, pto
from pto_wsp.lower import jit, matmul

CHAINS = 12                     # independent sums: enough for two units of latency 4 or 5


@kernel
def copy_tile(x: In[Tile[16, 256, DType.F32]], out: Out[Tile[16, 256, DType.F32]]):
    pto.store(out, x)


def peak_flops() -> list[float]:
    """GFLOP/s of vector multiply-adds that touch no memory."""
    lanes = matmul.Target.of(*jit.cpu_features()).vector_bits // 32
    kind = f"<{lanes} x float>"
    phis = "\n".join(f"  %s{i} = phi {kind} [zeroinitializer, %entry], [%t{i}, %loop]" for i in range(CHAINS))
    fma = f"call {kind} @llvm.fma.v{lanes}f32"
    sums = "\n".join(f"  %t{i} = {fma}({kind} %x, {kind} %x, {kind} %s{i})" for i in range(CHAINS))
    total = "\n".join(f"  %u{i + 1} = fadd {kind} {f'%u{i}' if i else 'zeroinitializer'}, %t{i}" for i in range(CHAINS))
    code = jit.load(f"""
declare {kind} @llvm.fma.v{lanes}f32({kind}, {kind}, {kind})
define void @spin(i64 %times, ptr %at) {{
entry:
  %x = load {kind}, ptr %at, align 4
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
{phis}
{sums}
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %times
  br i1 %more, label %loop, label %done
done:
{total}
  store {kind} %u{CHAINS}, ptr %at, align 4
  ret void
}}""")
    spin = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p)(code.address("spin"))
    x = np.zeros(lanes, np.float32)
    return rates(lambda times: spin(times, x.ctypes.data), 2 * CHAINS * lanes)


def rates(side: object, work: float) -> list[float]:
    """Billions of `work` per second in each of several turns."""
    times, found = repeats(side, 0.01, time.process_time), []       # type: ignore[arg-type]
    for _ in range(15):
        start = time.process_time()
        side(times)                                                 # type: ignore[operator]
        found.append(times * work / (time.process_time() - start) / 1e9)
    return found


def cases() -> Iterator[Fact]:
    yield Fact("multiply-add in registers", peak_flops(), "GFLOP/s", at_least=True)
    for level, tiles in (("L1", 1), ("L2", 16)):
        x, out = (np.ones((tiles, 16, 256), np.float32) for _ in range(2))
        found = rates(on_tiles(copy_tile, x, out), 2 * x.nbytes)
        yield Fact(f"copy, {2 * x.nbytes >> 10} KB in {level}", found, "GB/s", at_least=True)
    big, there = (np.ones(1 << 24, np.float32) for _ in range(2))
    found = rates(again(lambda: np.copyto(there, big)), 2 * big.nbytes)
    yield Fact("copy, 128 MB in memory", found, "GB/s", at_least=True)


if __name__ == "__main__":
    main(cases)
