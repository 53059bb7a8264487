"""Clock: the in-order engine does 23 M tasks/s with the kernels, the dataflow engine 3 M with inferred edges.

A million tasks of a blocked product, whose sums are chains that only the regions show, and a million copies. Expansion
is part of the time; kernels run where it says so. In CPU time, so that other programs on the machine matter less.
Then: from 10,000 tasks to 4 million; memory for 100 million; and what machine code costs, the first time and later.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.harness import Fact, main
from benchmarks.startup import ROOT, environment
from pto_wsp import (
    Deps,
    DispatchPolicy,
    DType,
    In,
    InOut,
    Out,
    P,
    Schedule,
    TaskGraphConfig,
    TaskWindow,
    Tensor,
    Tile,
    kernel,
    pto,
    workload,
)  # fmt: skip

F32 = DType.F32


@kernel
def multiply_add(a: In[Tile[8, 8, F32]], b: In[Tile[8, 8, F32]], c: InOut[Tile[8, 8, F32]]) -> None:
    pto.store(c, c + pto.matmul(a, b))


@kernel
def copy(x: In[Tile[1, 8, F32]], out: Out[Tile[1, 8, F32]]) -> None:
    pto.store(out, x)


def matrix(rows: int, cols: int) -> Tensor:
    return Tensor(data=np.zeros((rows, cols), np.float32), shape=(rows, cols), dtype=F32)


def product(n: int) -> Any:
    """n^3 tasks; those of one sum are ordered by nothing but what they read and write."""
    a, b, c = (matrix(8 * n, 8 * n) for _ in range(3))

    @workload
    def blocked() -> None:
        for i in P(n):
            for j in P(n):
                for k in P(n):
                    multiply_add[i, j, k](
                        a=a[8 * i : 8 * i + 8, 8 * k : 8 * k + 8], b=b[8 * k : 8 * k + 8, 8 * j : 8 * j + 8],
                        c=c[8 * i : 8 * i + 8, 8 * j : 8 * j + 8],
                    )  # fmt: skip

    return blocked()


def copies(n: int) -> Any:
    x, out = matrix(n, 8), matrix(n, 8)

    @workload
    def rows() -> None:
        for i in P(n):
            copy[i](x=x[i : i + 1], out=out[i : i + 1])

    return rows()


def rate(name: str, work: Any, deps: Deps | None, window: int = 8192, goal: float | None = None) -> Fact:
    """Tasks per second of CPU time, three times."""
    graph = None if deps is None else TaskGraphConfig(deps=deps, window=TaskWindow(window))
    policy = DispatchPolicy.round_robin(24) if deps is None else DispatchPolicy.work_steal(24)
    program, schedule, found = work.compile(), Schedule(policy, task_graph=graph), []
    program.simulate(schedule)
    for _ in range(3):
        begin = time.process_time()
        tasks = program.simulate(schedule).task_count
        found.append(tasks / (time.process_time() - begin) / 1e6)
    return Fact(name, found, "M tasks/s", goal, at_least=True)


def all_in() -> Fact:
    """A million copies of 8 numbers, executed and simulated, by one thread."""
    policy, window = DispatchPolicy.round_robin(4), TaskWindow(64)
    program, found = copies(1_000_000).dispatch(policy).task_graph(window=window).compile(threads=1), []
    for _ in range(6):
        begin = time.process_time()
        program.execute()
        program.synchronize()
        found.append(program.stats.task_count / (time.process_time() - begin) / 1e6)
    return Fact("copies: in-order, window 64, copies included", found[1:], "M tasks/s", 23, at_least=True)


MANY = """
import resource
from benchmarks.schedules import *
x, out = matrix(1, 8), matrix(1000, 8)

@workload
def rows():
    for i in P(100_000):
        for j in P(1000):
            copy[i, j](x=x, out=out[j])

schedule = {schedule}
assert rows().compile().simulate(schedule).task_count == 100_000_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
ENGINES = {
    "in-order, window 64": "Schedule(DispatchPolicy.round_robin(4), TaskWindow(64))",
    "dataflow, overlapping regions": "Schedule(DispatchPolicy.work_steal(24), "
    "task_graph=TaskGraphConfig(deps=Deps.infer_bytes_overlap()))",
}

MACHINE_CODE = """
import time
from pto_wsp.sim import clock, inorder
begin = time.process_time()
inorder.PLAY.compiled(), clock.PLAY.compiled()
print((time.process_time() - begin) * 1e3)
"""


def child(code: str, cache: str) -> float:
    """The number that a process of its own prints last."""
    out = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT, env=environment(cache))
    return float(out.split()[-1])


def cases() -> Iterator[Fact]:
    yield all_in()
    exact, overlap = Deps.infer_tensor_map_exact(), Deps.infer_bytes_overlap()
    for name, work in (("product", product(100)), ("copies", copies(1_000_000))):
        yield rate(f"{name}: in-order", work, None)
        yield rate(f"{name}: dataflow, no edges inferred", work, Deps.explicit())
        yield rate(f"{name}: identical regions", work, exact, goal=3)
        yield rate(f"{name}: overlapping regions", work, overlap, goal=3)
        yield rate(f"{name}: overlapping regions, window 512", work, overlap, 512, goal=3)
    for n in (10_000, 100_000, 4_000_000):
        yield rate(f"{n:,} copies: overlapping regions", copies(n), overlap, goal=3)
    with tempfile.TemporaryDirectory() as cache:
        yield Fact("machine code of both engines, first use", [child(MACHINE_CODE, cache)], "ms", 3000)
        yield Fact("machine code of both engines, later", [child(MACHINE_CODE, cache) for _ in range(3)], "ms", 200)
        for name, schedule in ENGINES.items():
            code = MANY.replace("{schedule}", schedule)
            yield Fact(f"100,000,000 copies: {name}: memory", [child(code, cache)], "MB", 2048)


if __name__ == "__main__":
    main(cases)
