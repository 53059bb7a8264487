"""Threads: on tasks that compute, two are at least 1.8 times as fast as one, and as fast as two processes; same bits.

How much two cores give is not up to a program: virtual cores may be two threads of one real core, or have other guests.
So two processes that share nothing, not even arrays, run the same machine code in the same turns: the yardstick. Beside
what they take, the time of two threads is steady where the ratio to one thread is not. All of it by the clock on the
wall; every turn is a run or two, so that what disturbs one side mostly meets the others too.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.harness import Fact, Repeated, in_turns, main, on_tiles, program
from pto_wsp import Dense, DType, In, Out, P, Tensor, Tile, kernel, pto, workload

F32 = DType.F32
SIZE = 128
TURNS, SECONDS = 45, 2.0                # of each side


@kernel
def products(a: In[Tile[SIZE, SIZE, F32]], b: In[Tile[SIZE, SIZE, F32]], out: Out[Tile[SIZE, SIZE, F32]]):
    pto.store(out, pto.matmul(pto.matmul(a, b), pto.matmul(a, pto.matmul(a, b))))


@kernel
def activations(a: In[Tile[SIZE, SIZE, F32]], b: In[Tile[SIZE, SIZE, F32]], out: Out[Tile[SIZE, SIZE, F32]]):
    pto.store(out, pto.gelu(pto.tanh(pto.gelu(a) * pto.tanh(b))) + pto.sin(a))


@kernel
def small_activations(a: In[Tile[64, 64, F32]], b: In[Tile[64, 64, F32]], out: Out[Tile[64, 64, F32]]):
    pto.store(out, pto.gelu(a + b) * pto.tanh(b))


@kernel
def sums(a: In[Tile[16, SIZE, F32]], b: In[Tile[16, SIZE, F32]], out: Out[Tile[16, SIZE, F32]]):
    pto.store(out, a * 2.0 + b)


class Process:
    """A process that does its work, with arrays of its own, so many times whenever it is told to."""

    def __init__(self, make: Callable[[], Repeated]) -> None:
        (orders, self._orders), (self._answers, answers) = os.pipe(), os.pipe()
        self._child = os.fork()
        if self._child == 0:
            os.close(self._orders)      # so that it hears when nobody is left who could tell it something
            work = make()
            while times := int.from_bytes(os.read(orders, 8), "little"):
                work(times)
                os.write(answers, b".")
            os._exit(0)
        os.close(orders)
        os.close(answers)
        self.start(1)
        self.wait()

    def start(self, times: int) -> None:
        os.write(self._orders, times.to_bytes(8, "little"))

    def wait(self) -> None:
        if not os.read(self._answers, 1):
            raise ChildProcessError("the process that two threads are compared with has ended")

    def end(self) -> None:
        self.start(0)
        os.waitpid(self._child, 0)


def together(processes: list[Process]) -> Repeated:
    """All at the same time, and together each time."""
    def run(times: int) -> None:
        for _ in range(times):
            for process in processes:
                process.start(1)
            for process in processes:
                process.wait()
    return run


def in_turn(processes: list[Process]) -> Repeated:
    """One after the other."""
    def run(times: int) -> None:
        for process in processes:
            process.start(times)
            process.wait()
    return run


def threads(work: Any, tiles: int, least: float | None) -> Iterator[Fact]:
    """A program of so many tasks on two threads, on one, and halves of it in two processes."""
    shape = (tiles, *work.graph.tile_params[0].node.tile.shape)
    on_tiles(work, *(np.zeros((1, *shape[1:]), np.float32) for _ in range(3)))      # compiled before it is forked

    def half() -> Repeated:
        a, b = (np.random.default_rng(0).standard_normal((tiles // 2, *shape[1:]), np.float32) for _ in range(2))
        return on_tiles(work, a, b, np.zeros_like(a))

    processes = [Process(half), Process(half)]
    a, b = (np.random.default_rng(0).standard_normal(shape, np.float32) for _ in range(2))
    outs = [np.zeros_like(a) for _ in range(2)]

    def tasks(out: Any) -> Any:
        tensors = [Tensor(data=array, shape=array.shape, dtype=F32) for array in (a, b, out)]

        @workload
        def every_tile():
            for i in P(Dense[tiles]()):
                work[i](a=tensors[0][i], b=tensors[1][i], out=tensors[2][i])

        return every_tile()

    two, one = program(tasks(outs[0]), 2), program(tasks(outs[1]), 1)
    two(2)
    one(2)
    assert outs[0].tobytes() == outs[1].tobytes()
    sides = {"two": two, "apart": together(processes), "one": one, "alone": in_turn(processes)}
    times = in_turns(sides, SECONDS, TURNS, time.perf_counter)
    for process in processes:
        process.end()

    def ratios(slow: str, fast: str) -> list[float]:
        return [x / y for x, y in zip(times[slow], times[fast])]

    given = f"two processes: {statistics.median(ratios('alone', 'apart')):.2f}x of one"
    yield Fact(f"{work.name}, {tiles} tasks: 2 threads to 1", ratios("one", "two"), "x", least, True, given)
    yield Fact(f"{work.name}: 2 threads to 2 processes", ratios("apart", "two"), "x", 0.9, True)


def cases() -> Iterator[Fact]:
    if len(os.sched_getaffinity(0)) < 2:
        print("this process may use one core only")
        return
    yield from threads(products, 512, 1.8)
    yield from threads(activations, 512, 1.8)
    yield from threads(small_activations, 2048, 1.8)
    yield from threads(sums, 4096, None)                # memory is the limit


if __name__ == "__main__":
    main(cases)
