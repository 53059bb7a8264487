"""Matrix products of one tile on one core, against BLAS called once per tile through NumPy.

Claims: f32 from 16 to 256 cubed at 85 % of BLAS or more; f16 and bf16 summed in f32 at 70 % of f32 BLAS; i8 summed in
i32 at f32's rate. Both are measured in turns in one process; the ratio is the median of the turns' ratios. "x f32"
compares with our own f32 product of the same shape, "middle" is the range of the middle half of our times,
"compile" what LLVM took (shown once for cases that share code).

    python -m benchmarks.matmul [--cpu x86-64-v3] [--seconds 0.1]
"""

from __future__ import annotations

import argparse
import ctypes
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
TURNS = 15


@dataclass(frozen=True)
class Case:
    """a [m, k] @ b [k, n]; layouts: `rows`, `columns` (a transposed view) or `window` (of an array 4096 wide)."""

    dtype: str
    m: int
    n: int
    k: int
    a: str = "rows"
    b: str = "rows"
    acc: bool = False
    tail: bool = False

    def __str__(self) -> str:
        views = f"  a {self.a}, b {self.b}" if (self.a, self.b) != ("rows", "rows") else ""
        return f"{self.dtype:<4} {self.m}x{self.n}x{self.k}{views}{'  acc' * self.acc}{'  tail' * self.tail}"


CASES = [
    *(Case(d, n, n, n) for d in ("f32", "f16", "bf16", "i8", "f64", "i32") for n in (16, 32, 64, 100, 128, 256)),
    *(Case(d, n, n, n, b="columns") for d in ("f32", "f16", "i8") for n in (64, 128)),
    *(Case("f32", n, n, n, a="columns") for n in (64, 128)),
    *(Case("f32", n, n, n, a="window", b="window") for n in (64, 128, 256)),
    *(Case("f32", n, n, n, acc=True) for n in (16, 64)),
    *(Case("f32", n, n, n, tail=True) for n in (16, 64)),
    *(Case("f32", *shape) for shape in ((33, 20, 17), (65, 65, 65), (4, 256, 256), (1, 64, 64), (64, 1, 64))),
    Case("f32", 512, 512, 512),
]


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--cpu", default="", help="an LLVM name of a CPU; the host's own if not given")
    options.add_argument("--seconds", type=float, default=0.1, help="for each case and side")
    chosen = options.parse_args()
    if any(os.environ.get(name) != value for name, value in ONE_THREAD.items()):    # BLAS reads them when it is loaded
        with tempfile.TemporaryDirectory() as empty:
            environment = {**os.environ, **ONE_THREAD, "PTO_WSP_CODEGEN_CACHE_DIR": empty}
            subprocess.run([sys.executable, "-m", "benchmarks.matmul", *sys.argv[1:]], env=environment, check=True)
        return
    print(f"{'case':<38}{'ours':>9}{'BLAS':>10}  GFLOP/s{'ratio':>7}{'x f32':>7}{'middle':>8}{'compile':>10}")
    own_f32: dict[tuple[int, int, int], float] = {}
    for case in CASES:
        ours, compile_ms = prepare(case, chosen.cpu)
        times, peers = in_turns(ours, blas(case), chosen.seconds)
        mine, peer = statistics.median(times), statistics.median(peers)
        shape = case.m, case.n, case.k
        if case == Case("f32", *shape):
            own_f32[shape] = mine
        work = 2e-9 * case.m * case.n * case.k
        relative = f"{own_f32[shape] / mine:6.2f}" if shape in own_f32 else ""
        ratio = statistics.median(theirs / own for own, theirs in zip(times, peers))
        compiled = "" if math.isnan(compile_ms) else f"{compile_ms:.1f} ms"
        low, *_, high = statistics.quantiles(times, n=4)
        print(f"{str(case):<38}{work / mine:9.1f}{work / peer:10.1f}{'':>9}{ratio:7.2f}{relative:>7}"
              f"{(high - low) / mine:8.0%}{compiled:>10}", flush=True)


def prepare(case: Case, cpu: str) -> tuple[Callable[[int], Any], float]:
    """(a call that runs the product so many times in native code, LLVM's milliseconds or NaN for cached code)"""
    import numpy as np

    from pto_wsp.lower import jit, matmul
    from pto_wsp.types import DType

    target = jit.Target(cpu=cpu) if cpu else jit.HOST
    machine = matmul.Target.of(*jit.cpu_features(target))
    dtype = DType(case.dtype)
    spec = matmul.MatmulSpec(case.m, case.n, case.k, dtype, dtype, case.acc, case.tail)
    text = repeated(spec, machine)
    jit.assembly(text, target)          # starts LLVM
    start = time.perf_counter()
    code = jit.load(text, target=target)
    compile_ms = (time.perf_counter() - start) * 1e3
    a, b = operand(case.m, case.k, dtype.numpy, case.a), operand(case.k, case.n, dtype.numpy, case.b)
    c, acc = np.zeros((case.m, case.n), spec.result.numpy), np.zeros((case.m, case.n), spec.result.numpy)
    scratch = np.zeros(matmul.scratch_bytes(spec, machine) + 64, np.uint8)
    words = [a.ctypes.data, *a.strides, b.ctypes.data, *b.strides]
    words += [acc.ctypes.data, *acc.strides] if case.acc else []
    words += [c.ctypes.data, c.strides[0], *([case.m, case.n, case.k] if case.tail else [])]
    words += [(scratch.ctypes.data + 63) // 64 * 64]
    row = np.array(words, np.int64)
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(code.address("repeat"))
    keep = (code, a, b, c, acc, scratch, row)

    def run(times: int) -> Any:
        function(row.ctypes.data, times)
        return keep

    run(1)
    wide = np.float64 if dtype.is_float else np.int64
    assert np.allclose(c, (a.astype(wide) @ b.astype(wide)).astype(c.dtype), rtol=1e-4, atol=1e-3), case
    return run, compile_ms if "optimise" in code.phases else math.nan


def repeated(spec: Any, machine: Any) -> str:
    """A module with `repeat(ptr words, i64 times)`."""
    from llvmlite import ir

    from pto_wsp.lower import matmul

    module, i64, pointer = ir.Module(), ir.IntType(64), ir.PointerType()
    function = matmul.emit(module, spec, machine)
    repeat = ir.Function(module, ir.FunctionType(ir.VoidType(), [pointer, i64]), "repeat")
    entry, again, done = (repeat.append_basic_block(name) for name in ("entry", "again", "done"))
    build = ir.IRBuilder(entry)
    arguments = []
    for i, argument in enumerate(function.args):
        word = build.load(build.gep(repeat.args[0], [i64(i)], source_etype=i64), typ=i64)
        arguments.append(build.inttoptr(word, pointer) if argument.type == pointer else word)
    build.branch(again)
    build.position_at_end(again)
    i = build.phi(i64)
    build.call(function, arguments)
    following = build.add(i, i64(1))
    i.add_incoming(i64(0), entry)
    i.add_incoming(following, again)
    build.cbranch(build.icmp_signed("<", following, repeat.args[1]), again, done)
    build.position_at_end(done)
    build.ret_void()
    return str(module)


def operand(rows: int, columns: int, dtype: Any, layout: str) -> Any:
    """Numbers small enough that no sum overflows."""
    import numpy as np

    shape = {"rows": (rows, columns), "columns": (columns, rows), "window": (rows, 4096)}[layout]
    values = (np.random.default_rng(0).standard_normal(shape) * 3).astype(dtype)
    return values.T if layout == "columns" else values[:, :columns]


def blas(case: Case) -> Callable[[int], None]:
    """np.matmul of f32 (for f64: f64) operands in the same layouts, into an existing array."""
    import numpy as np

    dtype = np.float64 if case.dtype == "f64" else np.float32
    a, b = operand(case.m, case.k, dtype, case.a), operand(case.k, case.n, dtype, case.b)
    c = np.zeros((case.m, case.n), dtype)

    def run(times: int) -> None:
        for _ in range(times):
            np.matmul(a, b, out=c)

    return run


def in_turns(ours: Callable[[int], Any], peer: Callable[[int], Any], seconds: float) -> tuple[list[float], list[float]]:
    """Seconds per product in each of TURNS turns of one side, then the other."""
    sides = [(side, repeats(side, seconds / TURNS)) for side in (ours, peer)]
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(TURNS):
        for (side, times), result in zip(sides, found):
            start = time.perf_counter()
            side(times)
            result.append((time.perf_counter() - start) / times)
    return found


def repeats(side: Callable[[int], Any], seconds: float) -> int:
    """How often `side` runs in about that time."""
    times = 1
    while True:
        start = time.perf_counter()
        side(times)
        taken = time.perf_counter() - start
        if taken > seconds / 4:
            return max(1, round(times * seconds / taken))
        times *= 4


if __name__ == "__main__":
    main()
