"""Races: a million tasks are checked in seconds, at 1 M tasks/s and more, whatever their number.

Five shapes of programs without races, so that nothing ends early: a blocked product whose sums are sequential; layers
of copies back and forth; pairs of tasks, one after the other; the same by explicit edges; a matrix that is written in
tiles and then read in panels that span many of them. In CPU time; expansion is part of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from benchmarks.harness import Fact, main
from benchmarks.schedules import copy, matrix, multiply_add
from pto_wsp import Deps, DType, In, Out, P, Tile, kernel, pto, workload

F32 = DType.F32


@kernel
def fill(x: In[Tile[8, 8, F32]], out: Out[Tile[8, 8, F32]]) -> None:
    pto.store(out, x)


@kernel
def sum_up(panel: In[Tile[8, 512, F32]], out: Out[Tile[8, 1, F32]]) -> None:
    pto.store(out, pto.rowsum(panel))


def product(n: int) -> Any:
    side = round(n ** (1 / 3))
    a, b, c = (matrix(8 * side, 8 * side) for _ in range(3))

    @workload
    def blocked() -> None:
        for i in P(side):
            for j in P(side):
                for k in P.seq(side):
                    multiply_add[i, j, k](
                        a=a[8 * i : 8 * i + 8, 8 * k : 8 * k + 8], b=b[8 * k : 8 * k + 8, 8 * j : 8 * j + 8],
                        c=c[8 * i : 8 * i + 8, 8 * j : 8 * j + 8],
                    )  # fmt: skip

    return blocked()


def layers(n: int) -> Any:
    rows = n // 20
    x, y = matrix(rows, 8), matrix(rows, 8)

    @workload
    def there_and_back() -> None:
        for _ in P.seq(10):
            for i in P(rows):
                copy[i](x=x[i : i + 1], out=y[i : i + 1])
            for i in P(rows):
                copy[i](x=y[i : i + 1], out=x[i : i + 1])

    return there_and_back()


def pairs(n: int) -> Any:
    x, y, z = (matrix(n // 2, 8) for _ in range(3))

    @workload
    def two_steps() -> None:
        for i in P(n // 2):
            for _ in P.seq(1):
                copy[i](x=x[i : i + 1], out=y[i : i + 1])
                copy[i](x=y[i : i + 1], out=z[i : i + 1])

    return two_steps()


def linked_pairs(n: int) -> Any:
    x, y, z = (matrix(n // 2, 8) for _ in range(3))

    @workload
    def two_steps() -> None:
        for i in P(n // 2):
            first = copy[i](x=x[i : i + 1], out=y[i : i + 1])
            copy[i](x=y[i : i + 1], out=z[i : i + 1], after=[first])

    return two_steps().task_graph(deps=Deps.hybrid())


def panels(n: int) -> Any:
    """Half of the tasks write 8 x 8 tiles of a matrix with 512 columns, the other half read 8 x 512 panels of it."""
    rows = max(n // 128, 1)
    data, sums, tile = matrix(8 * rows, 512), matrix(8 * rows, 64), matrix(8, 8)

    @workload
    def tiles_then_panels() -> None:
        for _ in P.seq(1):
            for i in P(rows):
                for j in P(64):
                    fill[i, j](x=tile, out=data[8 * i : 8 * i + 8, 8 * j : 8 * j + 8])
            for i in P(rows):
                for j in P(64):
                    sum_up[i, j](panel=data[8 * i : 8 * i + 8], out=sums[8 * i : 8 * i + 8, j : j + 1])

    return tiles_then_panels()


SHAPES = {"product": product, "layers": layers, "pairs": pairs, "after=": linked_pairs, "panels": panels}


def rate(name: str, work: Any, times: int = 3) -> Fact:
    """Tasks per second of CPU time."""
    program, found = work.compile(), []
    tasks = program.simulate().task_count
    for _ in range(3 if tasks <= 100_000 else 1):  # so that machine code is used also for few tasks
        program.check_races()
    for _ in range(times):
        begin = time.process_time()
        program.check_races()
        found.append(tasks / (time.process_time() - begin) / 1e6)
    return Fact(name, found, "M tasks/s", 1, at_least=True)


def cases() -> Iterator[Fact]:
    for shape, work in SHAPES.items():
        for n in (10_000, 100_000, 1_000_000):
            yield rate(f"{shape}: {n:,}", work(n))
    for shape in ("product", "layers"):
        yield rate(f"{shape}: 10,000,000", SHAPES[shape](10_000_000), times=1)


if __name__ == "__main__":
    main(cases)
