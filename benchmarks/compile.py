"""LLVM passes: the few that pto_wsp runs make code as fast as -O2, in a fraction of the time.

Generated code is vectorised and unrolled before LLVM sees it, so most of -O1 and -O2 is wasted on it. For kernels of
different kinds: milliseconds to machine code and microseconds per run, with this package's passes and code generation
level, and with LLVM's own pipelines. The ratios are of run times.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.harness import Case, Fact, Repeated, main
from pto_wsp import DType, In, InOut, Out, Tile, kernel, pto
from pto_wsp.lower import image, jit, pipeline


@kernel
def rmsnorm(x: In[Tile[16, 128, DType.F32]], out: Out[Tile[16, 128, DType.F32]]):
    pto.store(out, x * pto.rsqrt(pto.rowmean(x * x)))


@kernel
def softmax(x: In[Tile[32, 512, DType.F32]], out: Out[Tile[32, 512, DType.F32]]):
    e = pto.exp(x - pto.rowmax(x))
    pto.store(out, e / pto.rowsum(e))


@kernel
def activations(x: In[Tile[32, 512, DType.F32]], out: Out[Tile[32, 512, DType.F32]]):
    pto.store(out, pto.gelu(x) + pto.tanh(x) * pto.sin(x))


@kernel
def matmul_f16(a: In[Tile[128, 512, DType.F16]], b: In[Tile[512, 128, DType.F16]], out: Out[Tile[128, 128, DType.F32]]):
    pto.store(out, pto.matmul(a, b))


@kernel
def attention(
    q: In[Tile[64, 64, DType.F32]], k: In[Tile[64, 64, DType.F32]], v: In[Tile[64, 64, DType.F32]],
    m: InOut[Tile[64, 1, DType.F32]], total: InOut[Tile[64, 1, DType.F32]], acc: InOut[Tile[64, 64, DType.F32]],
):  # fmt: skip
    s = pto.matmul(q, pto.transpose(k)) * 0.125
    most = pto.maximum(m, pto.rowmax(s))
    p, c = pto.exp(s - most), pto.exp(m - most)
    pto.store(total, total * c + pto.rowsum(p))
    pto.store(acc, acc * c + pto.matmul(p, v))
    pto.store(m, most)


def cases() -> Iterator[Case | Fact]:
    import llvmlite.binding as llvm

    jit.load("define void @start() {\n  ret void\n}")  # LLVM is there from now on

    def ours(module: Any, machine: Any) -> None:
        jit._optimise(module, machine)

    def level(n: int) -> Callable[[Any, Any], None]:
        def run(module: Any, machine: Any) -> None:
            options = llvm.create_pipeline_tuning_options(speed_level=n)
            builder = llvm.create_pass_builder(machine, options)
            builder.getModulePassManager().run(module, builder)

        return run

    ways = {"ours": (ours, jit.CODE_LEVEL), "ours, level 2": (ours, 2), "-O1": (level(1), 2), "-O2": (level(2), 2)}
    for k in (rmsnorm, softmax, activations, matmul_f16, attention):
        compiled = pipeline.compile_kernel(k.graph)
        sides = {}
        for name, (optimise, code_level) in ways.items():
            times, code = compile_with(compiled.ir, optimise, code_level)
            yield Fact(f"{k.name}, {name}: compiling", times, "ms")
            sides[name] = repeated(k, compiled, code)
        yield Case(f"{k.name}, running", sides)


def compile_with(ir: str, optimise: Callable[[Any, Any], None], code_level: int) -> tuple[list[float], bytes]:
    """Milliseconds from text to object code, and the code."""
    machine = jit._machine(jit.HOST, code_level)
    times, code = [], b""
    for _ in range(3):
        begun = time.process_time()
        module = jit._parse(ir, machine)
        optimise(module, machine)
        code = bytes(machine.emit_object(module))
        times.append((time.process_time() - begun) * 1e3)
    return times, code


def repeated(k: Any, compiled: Any, code: bytes) -> Repeated:
    """Runs on tiles that stay in the cache."""
    linked = image.link(code)
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(linked.address(compiled.symbol))
    needed = ctypes.CFUNCTYPE(ctypes.c_int64)(linked.address(f"{compiled.symbol}.scratch"))()
    scratch = np.zeros(needed + 64, np.uint8)
    words, kept = [], [linked]
    for param in k.graph.tile_params:
        tile = param.node.tile
        array = (np.random.default_rng(0).standard_normal((tile.rows, tile.cols)) * 0.1).astype(tile.dtype.numpy)
        kept.append(array)
        words += [array.ctypes.data, *array.strides, tile.rows, tile.cols]
    args = np.array(words, np.int64)
    row, memory = args.ctypes.data, -(-scratch.ctypes.data // 64) * 64

    def run(times: int) -> Any:
        for _ in range(times):
            function(row, memory)
        return kept, args, scratch

    return run


if __name__ == "__main__":
    main(cases)
