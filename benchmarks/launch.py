"""Tasks per second: expanding a workload, checking every tile, and running it on one and on all threads.

tiny     a million copies of 1x8 f32: all overhead, no work
tiles    RMSNorm of 16x128 f32 tiles, independent of each other
chains   64 accumulators, each updated by a chain of tasks: tasks that must keep their order among others that need not
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import numpy as np

from benchmarks.harness import Fact, main
from pto_wsp import Dense, DType, In, InOut, Out, P, Tensor, Tile, kernel, pto, workload
from pto_wsp.lower.expand import Expansion, expand
from pto_wsp.sim.execute import Executor, host_threads


@kernel
def copy(x: In[Tile[1, 8, DType.F32]], out: Out[Tile[1, 8, DType.F32]]):
    pto.store(out, x)


@kernel
def rmsnorm(x: In[Tile[16, 128, DType.F32]], out: Out[Tile[16, 128, DType.F32]]):
    pto.store(out, x * pto.rsqrt(pto.rowmean(x * x)))


@kernel
def accumulate(x: In[Tile[64, 64, DType.F32]], out: InOut[Tile[64, 64, DType.F32]]):
    pto.store(out, out * 0.5 + pto.exp(x))


def tensor(*shape: int) -> Tensor:
    return Tensor(np.ones(shape, np.float32), shape, DType.F32)


@workload
def tiny():
    x, y = tensor(1_000_000, 8), tensor(1_000_000, 8)
    for i in P(Dense[1_000_000]()):
        copy[i](x=x[i], out=y[i])


@workload
def tiles():
    x, y = tensor(20_000, 16, 128), tensor(20_000, 16, 128)
    for i in P(Dense[20_000]()):
        rmsnorm[i](x=x[i], out=y[i])


@workload
def chains():
    x, y = tensor(64, 64, 64), tensor(64, 64, 64)
    for i, j in P(Dense[64](), Dense[200]()):
        accumulate[i, j](x=x[j % 64], out=y[i])


def cases() -> Iterator[Fact]:
    for make in (tiny, tiles, chains):
        expansion = expand(make().tree())
        yield Fact(f"{make._workload_name}, expand and check", timed(expansion, None), "ns per task")
        for threads in sorted({1, host_threads(), len(os.sched_getaffinity(0))}):
            times = timed(expansion, Executor(expansion, threads))
            yield Fact(f"{make._workload_name}, and run on {threads} threads", times, "ns per task")


def timed(expansion: Expansion, executor: Executor | None) -> list[float]:
    """Nanoseconds per task of several runs."""
    arrays = [t.array() for t in expansion.tensors]
    inputs, table, stop = expansion.inputs(arrays, {}, {}), expansion.table(), np.zeros(1, np.int64)
    if executor is not None:
        executor.bind(arrays)
    found = []
    for _ in range(5):
        begun = time.perf_counter()
        if executor is None:
            count = expansion.run(inputs, table, lambda t: None, stop)
        else:
            count = expansion.run(inputs, table, lambda t: executor.run(t, stop, lambda n: None), stop)
        found.append((time.perf_counter() - begun) / count * 1e9)
    return found


if __name__ == "__main__":
    main(cases)
