"""Measuring: sides of a case by turns in one process, medians and spread, a table, JSON.

A claim's file has `cases()`, which yields Cases and Facts, and ends with `main(cases)`. A Case is one piece of work
done by several sides, ours first; they take turns, so that noise meets them all, and what counts is the median over the
turns of their ratio. A Fact is a number that is not a race: a latency, an error, a size.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FunctionType
from typing import Any

from benchmarks import CONDITIONS

TURNS = 15

Repeated = Callable[[int], Any]         # does the work so many times


@dataclass(frozen=True)
class Case:
    """One piece of work. goals: peer -> how many times as fast as that peer we want to be."""

    name: str
    sides: dict[str, Repeated]
    goals: dict[str, float] = field(default_factory=dict)
    bytes: float = 0                    # read and written, once each
    flops: float = 0
    seconds: float = 0.08               # to measure each side for
    turns: int = TURNS
    clock: Callable[[], float] = time.process_time      # CPU time: what else runs on the machine hardly counts


@dataclass(frozen=True)
class Fact:
    """Numbers that were found, and the most they may be (at_least: the least)."""

    name: str
    values: list[float]
    unit: str
    limit: float | None = None
    at_least: bool = False
    note: str = ""


@dataclass(frozen=True)
class Row:
    """What is kept of a Case or a Fact; times are in seconds."""

    name: str
    unit: str
    median: float
    spread: float                       # range of the middle half of the values, relative to the median
    ratios: dict[str, float] = field(default_factory=dict)      # peer's time / our time
    goals: dict[str, float] = field(default_factory=dict)
    limit: float | None = None
    at_least: bool = False
    note: str = ""
    bytes: float = 0
    flops: float = 0

    @property
    def missed(self) -> bool:
        if self.limit is not None and (self.median < self.limit if self.at_least else self.median > self.limit):
            return True
        return any(self.ratios[peer] < goal for peer, goal in self.goals.items() if peer in self.ratios)

    def __str__(self) -> str:
        if self.unit != "s":
            goal = "" if self.limit is None else f"  ({'at least' if self.at_least else 'at most'} {self.limit:g})"
            text = f"{self.name:<44}{self.median:>10.4g} {self.unit:<6} ±{self.spread:<4.0%}{goal}  {self.note}"
        else:
            rates = f"{self.flops / self.median / 1e9:>7.1f} GF" * bool(self.flops)
            rates += f"{self.bytes / self.median / 1e9:>7.1f} GB/s" * bool(self.bytes)
            peers = "".join(f"  {peer} {ratio:.2f}x" + (f" (>= {self.goals[peer]:g})" if peer in self.goals else "")
                            for peer, ratio in self.ratios.items())
            text = f"{self.name:<44}{duration(self.median):>10} ±{self.spread:<4.0%}{rates:<21}{peers}  {self.note}"
        return text.rstrip() + "   MISSED" * self.missed


def duration(seconds: float) -> str:
    """Three digits and a unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def measure(found: Case | Fact) -> Row:
    """The numbers of a case or fact."""
    if isinstance(found, Fact):
        return Row(found.name, found.unit, statistics.median(found.values), spread(found.values), limit=found.limit,
                   at_least=found.at_least, note=found.note)
    times = in_turns(found.sides, found.seconds, found.turns, found.clock)
    ours, *peers = found.sides
    ratios = {peer: statistics.median(t / own for own, t in zip(times[ours], times[peer])) for peer in peers}
    return Row(found.name, "s", statistics.median(times[ours]), spread(times[ours]), ratios, found.goals,
               bytes=found.bytes, flops=found.flops)


def spread(values: list[float]) -> float:
    if len(values) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / middle if middle else 0.0


def in_turns(sides: dict[str, Repeated], seconds: float, turns: int,
             clock: Callable[[], float] = time.process_time) -> dict[str, list[float]]:
    """Seconds per piece of work of each side in each turn."""
    counts = {name: repeats(side, seconds / turns, clock) for name, side in sides.items()}
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(turns):
        for name, side in sides.items():
            start = clock()
            side(counts[name])
            found[name].append((clock() - start) / counts[name])
    return found


def repeats(side: Repeated, seconds: float, clock: Callable[[], float]) -> int:
    """How often `side` does its work in about that time. Warms it up."""
    side(1)
    times = 1
    while True:
        start = clock()
        side(times)
        taken = clock() - start
        if taken > seconds / 4:
            return max(1, round(times * seconds / taken))
        times *= 4


# ---- sides --------------------------------------------------------------------------------------------------------


def again(work: Callable[[], Any]) -> Repeated:
    """Work that Python repeats."""
    def run(times: int) -> None:
        for _ in range(times):
            work()
    return run


def numba_loop(function: Callable[..., None], *arrays: Any) -> Repeated:
    """The function compiled by numba with fastmath, repeated in machine code."""
    import numba
    compiled = numba.njit(fastmath=True)(function)

    @numba.njit  # type: ignore[untyped-decorator]
    def run(times: int, *arguments: Any) -> None:
        for _ in range(times):
            compiled(*arguments)

    return lambda times: run(times, *arrays)


def jax_function(function: Callable[..., Any], *arrays: Any) -> dict[str, Repeated]:
    """{"jax": the NumPy function compiled by JAX}, or {} where JAX is not installed. Its calls come from Python."""
    try:
        import jax
    except ImportError:
        return {}
    known: dict[str, Any] = {**function.__globals__, "np": jax.numpy}
    for name, value in function.__globals__.items():
        if isinstance(value, FunctionType) and value.__module__ == function.__module__ and not value.__closure__:
            known[name] = FunctionType(value.__code__, known, name)
    compiled = jax.jit(FunctionType(function.__code__, known, function.__name__, function.__defaults__))
    there = [jax.device_put(a) for a in arrays]
    return {"jax": again(lambda: jax.block_until_ready(compiled(*there)))}


REPEAT = """
define void @repeat(ptr %kernel, ptr %rows, i64 %bytes, i64 %count, ptr %scratch, i64 %times) {
entry:ON_A_PAGE
  br label %again
again:
  %time = phi i64 [0, %entry], [%next, %rewind]
  br label %run
run:
  %i = phi i64 [0, %again], [%following, %run]
  %at = mul i64 %i, %bytes
  %row = getelementptr i8, ptr %rows, i64 %at
  call void %kernel(ptr %row, ptr %scratch)
  %following = add i64 %i, 1
  %more = icmp slt i64 %following, %count
  br i1 %more, label %run, label %rewind
rewind:
  %next = add i64 %time, 1
  %left = icmp slt i64 %next, %times
  br i1 %left, label %again, label %done
done:
  ret void
}
"""


def on_tiles(kernel: Any, *arrays: Any) -> Repeated:
    """A kernel's machine code on each tile of arrays [tiles, rows, cols] in signature order, called from machine code.

    An array of one tile is that tile for all of them.
    """
    import numpy as np

    from pto_wsp.lower import jit, pipeline
    from pto_wsp.sim.native import ON_A_PAGE

    compiled = pipeline.compile_kernel(kernel.graph)
    code, loop = jit.load(compiled.ir), jit.load(REPEAT.replace("ON_A_PAGE", ON_A_PAGE))
    needed = ctypes.CFUNCTYPE(ctypes.c_int64)(code.address(f"{compiled.symbol}.scratch"))()
    scratch = np.zeros(needed + 64, np.uint8)
    count = max(len(a) for a in arrays)
    rows = np.zeros((count, compiled.args_words), np.int64)
    for p, (param, array) in enumerate(zip(kernel.graph.tile_params, arrays, strict=True)):
        tile = param.node.tile
        assert array.shape[1:] == (tile.rows, tile.cols) and array.dtype == tile.dtype.numpy, (kernel.name, param.name)
        rows[:, 5 * p] = array.ctypes.data + (np.arange(count) if len(array) > 1 else 0) * array.strides[0]
        rows[:, 5 * p + 1 : 5 * p + 5] = *array.strides[1:], tile.rows, tile.cols
    kinds = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64]
    function = ctypes.CFUNCTYPE(None, *kinds)(loop.address("repeat"))
    kept = code, loop, arrays, rows, scratch

    def run(times: int) -> Any:
        function(code.address(compiled.symbol), rows.ctypes.data, rows.strides[0], count,
                 -(-scratch.ctypes.data // 64) * 64, times)
        return kept

    return run


def program(workload: Any, threads: int) -> Repeated:
    """A workload, compiled: what a user runs."""
    compiled = workload.compile(threads=threads)

    def work() -> None:
        compiled.execute()
        compiled.synchronize()

    return again(work)


# ---- one claim as a program ---------------------------------------------------------------------------------------


def main(cases: Callable[..., Iterable[Case | Fact]], *arguments: Any) -> None:
    """Print the rows of `cases(*arguments)` as they are found; --json keeps them, --only chooses."""
    parser = argparse.ArgumentParser(description=(sys.modules["__main__"].__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    options, _ = parser.parse_known_args()
    if not options.json:                # else `python -m benchmarks` has said so
        print(*CONDITIONS, sep="\n", end="\n" * bool(CONDITIONS), flush=True)
    rows = []
    for found in cases(*arguments):
        if options.only in found.name:
            rows.append(measure(found))
            print(rows[-1], flush=True)
            if options.json:
                options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
