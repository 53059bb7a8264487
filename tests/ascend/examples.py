"""The example programs at sizes that the shim runs in seconds, with what they did on the CPU."""

from __future__ import annotations

import contextlib
import io
import linecache
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pto_wsp.program import Program
from pto_wsp.sim.timeline import Timeline
from pto_wsp.trace.workload import Workload
from pto_wsp.types import Tensor

FOLDER = Path(__file__).parents[2] / "examples"

# What to write instead of the sizes in the source.
SIZES = {
    "quickstart": {},
    "rmsnorm": {"ROWS, COLS, STRIP = 4096, 4096, 64": "ROWS, COLS, STRIP = 192, 1024, 16"},
    "softmax": {"ROWS, COLS = 256, 32_768": "ROWS, COLS = 48, 1024", "R, C = 16, 1024": "R, C = 16, 256"},
    "gemm": {"BATCH, SIZE = 8, 1024": "BATCH, SIZE = 2, 128", "M, N, K = 128, 128, 256": "M, N, K = 64, 32, 64"},
    "flash_attention": {"B, H, S, D = 2, 8, 2048, 64": "B, H, S, D = 1, 2, 96, 32", "T = 64  ": "T = 32  "},
    "llama_block": {
        "S, HIDDEN, HEADS, FFN = 512, 1024, 16, 2816": "S, HIDDEN, HEADS, FFN = 64, 64, 2, 96",
        "T = 64  ": "T = 32  ",
    },
    "moe": {"TOKENS, D, HIDDEN, EXPERTS = 512, 256, 512, 8": "TOKENS, D, HIDDEN, EXPERTS = 12, 64, 32, 8"},
    "paged_decode": {
        "SEQUENCES, HEADS, D, PAGE, PAGES, MOST = 64, 8, 64, 32, 6000, 128":
            "SEQUENCES, HEADS, D, PAGE, PAGES, MOST = 6, 8, 64, 32, 80, 16",
        "np.geomspace(17, 4000, SEQUENCES)": "np.geomspace(17, 300, SEQUENCES)",
        "rng.integers(1, 2000, SEQUENCES)": "rng.integers(1, 200, SEQUENCES)",
    },
    "tiered_attention": {
        "SEQUENCES, HEADS, D, LONGEST, WORKERS = 32, 8, 64, 32768, 16":
            "SEQUENCES, HEADS, D, LONGEST, WORKERS = 6, 2, 32, 1024, 3",
        "SMALL, LARGE = 2048, 8192": "SMALL, LARGE = 64, 256",
        "np.geomspace(300, LONGEST": "np.geomspace(10, LONGEST",
    },
    "lightning_indexer": {
        "QUERIES, PAGES, PAGE, BEST, WORKERS = 16, 512, 64, 32, 24":
            "QUERIES, PAGES, PAGE, BEST, WORKERS = 2, 128, 16, 32, 3",
    },
    "sweep": {
        "SEQUENCES, HEADS, D, BLOCK = 64, 8, 64, 64": "SEQUENCES, HEADS, D, BLOCK = 5, 2, 32, 64",
        "np.geomspace(17, 4000, SEQUENCES)": "np.geomspace(17, 300, SEQUENCES)",
        "    stats = program.stats\n": "    return\n",
    },
}  # fmt: skip


@dataclass
class Ran:
    """One run of an example's program: the arrays before and after, and the clock."""

    workload: Workload
    program: Program
    before: dict[Tensor, np.ndarray[Any, Any]]
    after: dict[Tensor, np.ndarray[Any, Any]] = field(default_factory=dict)
    timeline: Timeline | None = None


@contextlib.contextmanager
def recorded() -> Iterator[list[Ran]]:
    """Every run of every program, as it happens."""
    runs: list[Ran] = []
    execute, synchronize = Program.execute, Program.synchronize

    def start(program: Program) -> None:
        tensors = program._expansion.tensors
        before = {t: t.array().copy() for t in tensors}
        execute(program)
        runs.append(Ran(program.workload, program, before))

    def wait(program: Program, timeout: float | None = None) -> None:
        synchronize(program, timeout)
        if runs and runs[-1].program is program and not runs[-1].after:
            runs[-1].after = {t: t.array().copy() for t in runs[-1].before}
            runs[-1].timeline = program.timeline()

    Program.execute, Program.synchronize = start, wait  # type: ignore[assignment, method-assign]
    try:
        yield runs
    finally:
        Program.execute, Program.synchronize = execute, synchronize  # type: ignore[method-assign]


def run(name: str) -> list[Ran]:
    """Run a smaller example on the CPU, where it checks itself against NumPy."""
    path = FOLDER / f"{name}.py"
    text = path.read_text()
    for old, new in SIZES[name].items():
        assert old in text, f"{path} has no {old!r} any more"
        text = text.replace(old, new)
    where = f"{name}.py"
    linecache.cache[where] = (len(text), None, text.splitlines(True), where)
    scope = {"__name__": "__main__", "__file__": str(path)}
    with recorded() as runs, contextlib.redirect_stdout(io.StringIO()):
        sys.path.insert(0, str(FOLDER))
        try:
            exec(compile(text, where, "exec"), scope)
        finally:
            sys.path.remove(str(FOLDER))
    return runs
