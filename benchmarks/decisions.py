"""Decisions per second: conditions on slots that are loaded from tensors, one for each element of a loop.

only read           the tensor is an input of the program: two passes, nothing waits
an earlier loop     another loop has written it: the tasks before are run once, then nothing waits
the same iteration  a task of the same iteration writes it: every decision waits for a task
no task             nothing is chosen: what reading and deciding costs
rows                a Sparse axis row by row instead of a condition
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from benchmarks.harness import Fact, main
from pto_wsp import DType, In, Out, P, Program, Sparse, Tensor, Tile, Workload, kernel, pto, slot_load_u64, workload
from pto_wsp.scalar_expr import slot_u64

N = 1_000_000
F32 = DType.F32


@kernel
def add_one(x: In[Tile[1, 1, F32]], out: Out[Tile[1, 1, F32]]):
    pto.store(out, x + 1.0)


@kernel
def double(x: In[Tile[1, 8, F32]], out: Out[Tile[1, 8, F32]]):
    pto.store(out, x * 2.0)


@kernel
def negate(x: In[Tile[1, 8, F32]], out: Out[Tile[1, 8, F32]]):
    pto.store(out, x * -1.0)


def tensor(array: np.ndarray) -> Tensor:
    return Tensor(array, array.shape, F32)


FLAGS = tensor(np.random.default_rng(1).integers(0, 2, (N, 1, 1)).astype(np.float32))
MADE = tensor(np.zeros((N, 1, 1), np.float32))
X, OUT = (tensor(np.ones((N, 1, 8), np.float32)) for _ in range(2))


def choose(flags: Tensor, r: object, most: int) -> None:
    slot_load_u64(0, flags[r])
    with P.when(slot_u64(0) > most):
        double[r](x=X[r], out=OUT[r])
    with P.otherwise():
        negate[r](x=X[r], out=OUT[r])


@workload
def only_read():
    for r in P(N):
        choose(FLAGS, r, 0)


@workload
def an_earlier_loop():
    for r in P(N):
        add_one[r](x=FLAGS[r], out=MADE[r])
    for r in P(N):
        choose(MADE, r, 1)


@workload
def the_same_iteration():
    for r in P(N):
        add_one[r](x=FLAGS[r], out=MADE[r])
        choose(MADE, r, 1)


@workload
def no_task():
    for r in P(N):
        slot_load_u64(0, FLAGS[r])
        with P.when(slot_u64(0) > 5):
            double[r](x=X[r], out=OUT[r])


@workload
def rows():
    pattern = Sparse(N, np.arange(N + 1), np.arange(N)[::-1].copy())
    for r in P(N):
        for e in P.sel(pattern[r]):
            double[e](x=X[e], out=OUT[r])


def cases() -> Iterator[Fact]:
    for make in (only_read, an_earlier_loop, the_same_iteration, no_task, rows):
        name, made = make._workload_name.replace("_", " "), make()
        program = compiled(made)
        yield Fact(f"{name}, one thread", timed(program.execute, program.synchronize), "ns per decision")
        yield Fact(f"{name}, the clock only", timed(program.simulate), "ns per decision")


def compiled(made: Workload) -> Program:
    program = made.compile(threads=1)
    program.execute()
    program.synchronize()
    return program


def timed(*steps: object) -> list[float]:
    found = []
    for _ in range(5):
        begun = time.perf_counter()
        for step in steps:
            step()  # type: ignore[operator]
        found.append((time.perf_counter() - begun) / N * 1e9)
    return found


if __name__ == "__main__":
    main(cases)
