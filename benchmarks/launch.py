"""What tasks cost beside their kernels: expanded, checked and run, by the task; and programs of a few, by the run.

tiny     a million copies of 1x8 f32: all overhead, no work
tiles    RMSNorm of 16x128 f32 tiles, independent of each other
chains   64 accumulators, each updated by a chain of tasks: tasks that must keep their order among others that need not

A loop that executes a program of a few tasks a thousand times, as when tokens are made one by one, pays for the call.
So does one that calls NumPy or JAX.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.harness import Case, Fact, again, jax_function, main
from pto_wsp import (
    Dense,
    DenseDyn,
    Deps,
    DispatchPolicy,
    DType,
    In,
    InOut,
    Out,
    P,
    Tensor,
    Tile,
    kernel,
    pto,
    workload,
)  # fmt: skip
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


def rmsnorm_numpy(x, out):
    np.multiply(x, 1 / np.sqrt((x * x).mean(-1, keepdims=True)), out=out)


def rmsnorm_jax(x):
    return x / np.sqrt((x * x).mean(-1, keepdims=True))


def calls(count: int) -> Iterator[Case]:
    """Programs of so many tasks: with the sizes of the last run, or others; with a dataflow clock."""
    x = np.random.default_rng(0).standard_normal((count, 16, 128), np.float32)
    tensors = [Tensor(a, a.shape, DType.F32) for a in (x, np.zeros_like(x))]

    @workload
    def few(size=count):
        for i in P(DenseDyn(size)):
            rmsnorm[i](x=tensors[0][i], out=tensors[1][i])

    plain = few().compile()
    stealing = few().dispatch(DispatchPolicy.work_steal(4))
    dataflow = stealing.task_graph(deps=Deps.infer_tensor_map_exact()).compile()

    def same() -> None:
        plain.execute()
        plain.synchronize()

    sizes = itertools.cycle(range(count, max(count - 8, -1), -1))

    def changed(program: Any) -> None:
        program.set_axis_sizes({"b": next(sizes)})
        program.execute()
        program.synchronize()

    out = np.zeros_like(x)
    peers = {"numpy": again(lambda: rmsnorm_numpy(x, out)), **jax_function(rmsnorm_jax, x)}
    yield Case(f"execute() of {count} tasks", {"pto_wsp": again(same), **peers})
    yield Case(f"execute() of {count} tasks, other sizes", {"pto_wsp": again(lambda: changed(plain)), **peers})
    yield Case(f"execute() of {count} tasks, dataflow, other sizes",
               {"pto_wsp": again(lambda: changed(dataflow)), **peers})


def cases() -> Iterator[Fact | Case]:
    for count in (1, 10, 100):
        yield from calls(count)
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
