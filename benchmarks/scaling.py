"""Scaling: two threads at least 1.8 times one on independent work, same bits; compile time linear in the number of ops.

A kernel of 20 ops is machine code after at most 60 ms, 5 ms if the code is on disk; one of 500 ops after 1.5 s.
Threads are timed by the clock on the wall, side by side with what the machine gives to code that shares nothing.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.harness import Fact, Repeated, again, in_turns, main, on_tiles, program
from pto_wsp import Dense, DType, In, Out, P, Tensor, Tile, kernel, pto, workload
from pto_wsp.lower import jit, pipeline

F32 = DType.F32
TILES, SIZE = 512, 128


@kernel
def products(a: In[Tile[SIZE, SIZE, F32]], b: In[Tile[SIZE, SIZE, F32]], out: Out[Tile[SIZE, SIZE, F32]]):
    pto.store(out, pto.matmul(pto.matmul(a, b), pto.matmul(a, pto.matmul(a, b))))


@kernel
def activation(a: In[Tile[SIZE, SIZE, F32]], b: In[Tile[SIZE, SIZE, F32]], out: Out[Tile[SIZE, SIZE, F32]]):
    pto.store(out, pto.gelu(pto.tanh(pto.gelu(a) * pto.tanh(b))) + pto.sin(a))


def threads(work: Any) -> Iterator[Fact]:
    """A program on two threads and on one, beside what the machine gives: the kernel's machine code called in two
    threads that share nothing but the memory bus, and BLAS likewise.

    Two virtual cores may be two threads of one real core, which share its arithmetic units. Then no program is twice as
    fast on both.
    """
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((TILES, SIZE, SIZE), dtype=np.float32) for _ in range(2))
    outs = [np.zeros_like(a) for _ in range(3)]

    def tasks(out: Any) -> Any:
        tensors = [Tensor(data=array, shape=array.shape, dtype=F32) for array in (a, b, out)]

        @workload
        def every_tile():
            for i in P(Dense[TILES]()):
                work[i](a=tensors[0][i], b=tensors[1][i], out=tensors[2][i])

        return every_tile()

    def blas(half: int) -> Repeated:
        return again(lambda: np.matmul(a[half:half + TILES // 2], b[half:half + TILES // 2],
                                       out=outs[2][half:half + TILES // 2]))

    two, one = program(tasks(outs[0]), 2), program(tasks(outs[1]), 1)
    two(1)
    one(1)
    assert outs[0].tobytes() == outs[1].tobytes()
    halves = [on_tiles(work, *(array[half : half + TILES // 2] for array in (a, b, outs[2])))
              for half in (0, TILES // 2)]
    sides = {"two": two, "one": one, "apart": together(halves), "alone": in_turn(halves),
             "blas apart": together([blas(0), blas(TILES // 2)]), "blas alone": in_turn([blas(0), blas(TILES // 2)])}
    times = in_turns(sides, 1.0, 15, time.perf_counter)

    def ratios(slow: str, fast: str) -> list[float]:
        return [x / y for x, y in zip(times[slow], times[fast])]

    ours, machine, others = ratios("one", "two"), ratios("alone", "apart"), ratios("blas alone", "blas apart")
    given = (f"the machine gives {statistics.median(machine):.2f}x to the same code, "
             f"{statistics.median(others):.2f}x to BLAS")
    yield Fact(f"{work.name}, {TILES} tasks: 2 threads to 1", ours, "x", 1.8, at_least=True, note=given)
    share = [x / y for x, y in zip(ours, machine)]
    yield Fact(f"{work.name}: of what the machine gives", share, "x", 0.9, at_least=True)


def together(works: list[Repeated]) -> Repeated:
    """Each in a thread of its own."""
    def run(times: int) -> None:
        running = [threading.Thread(target=work, args=(times,)) for work in works]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
    return run


def in_turn(works: list[Repeated]) -> Repeated:
    """One after the other."""
    def run(times: int) -> None:
        for work in works:
            work(times)
    return run


def chain(ops: int) -> Any:
    """A kernel of so many tile ops, of several kinds, each of which needs the one before."""
    steps = (lambda v, x, y: v + y, lambda v, x, y: v * y, lambda v, x, y: pto.maximum(v, x),
             lambda v, x, y: pto.exp(v), lambda v, x, y: pto.rowmax(v), lambda v, x, y: v - x)

    def body(x: In[Tile[16, 128, F32]], y: In[Tile[16, 128, F32]], out: Out[Tile[16, 128, F32]]):
        value = x
        for i in range(ops - 1):
            value = steps[i % len(steps)](value, x, y)
        pto.store(out, value + x)

    body.__name__ = f"chain_of_{ops}"
    return kernel(body)


def compile_times(ops: int, runs: int) -> tuple[list[float], list[float], str]:
    """Milliseconds from Python to machine code, those with the code on disk, and the phases of one of the former."""
    cold, warm, phases = [], [], ""
    cache = os.environ["PTO_WSP_CODEGEN_CACHE_DIR"]
    for run in range(runs):
        os.environ["PTO_WSP_CODEGEN_CACHE_DIR"] = f"{cache}/{ops}.{run}"    # empty
        for found in (cold, warm):
            start = time.process_time()
            compiled = pipeline.compile_kernel(chain(ops).graph)
            code = jit.load(compiled.key, lambda: compiled.ir)      # noqa: B023
            found.append((time.process_time() - start) * 1e3)
            phases = phases or ", ".join(f"{name} {spent:.0f}" for name, spent in code.phases.items() if spent >= 1)
            assert code.origin == ("compiled" if found is cold else "disk")
            del code                                                # else the process would have it
    os.environ["PTO_WSP_CODEGEN_CACHE_DIR"] = cache
    return cold, warm, phases


def cases() -> Iterator[Fact]:
    if (os.cpu_count() or 1) > 1:
        yield from threads(products)
        yield from threads(activation)
    compile_times(2, 1)                                             # starts LLVM
    cold_limits, warm_limits = {20: 60.0, 500: 1500.0}, {20: 5.0}
    for ops, runs in ((5, 9), (20, 9), (50, 5), (100, 5), (200, 3), (500, 3)):
        cold, warm, phases = compile_times(ops, runs)
        yield Fact(f"compile {ops} ops", cold, "ms", cold_limits.get(ops), note=phases)
        yield Fact(f"compile {ops} ops, from disk", warm, "ms", warm_limits.get(ops))


if __name__ == "__main__":
    main(cases)
