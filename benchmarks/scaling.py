"""Scaling: compile time is linear in the number of ops.

A kernel of 20 ops is machine code after at most 60 ms, 5 ms if the code is on disk; one of 500 ops after 1.5 s.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.harness import Fact, main
from pto_wsp import DType, In, Out, Tile, kernel, pto
from pto_wsp.lower import jit, pipeline

F32 = DType.F32


STEPS: dict[str, tuple[Any, ...]] = {
    "mixed": (lambda v, x, y: v + y, lambda v, x, y: v * y, lambda v, x, y: pto.maximum(v, x),
              lambda v, x, y: pto.exp(v), lambda v, x, y: pto.rowmax(v), lambda v, x, y: v - x),
    "functions": (lambda v, x, y: pto.exp(v), lambda v, x, y: v + y, lambda v, x, y: pto.tanh(v),
                  lambda v, x, y: v + y, lambda v, x, y: pto.sin(v), lambda v, x, y: v + y),
}


def chain(ops: int, kind: str) -> Any:
    """A kernel of so many tile ops, of several kinds, each of which needs the one before."""
    steps = STEPS[kind]

    def body(x: In[Tile[16, 128, F32]], y: In[Tile[16, 128, F32]], out: Out[Tile[16, 128, F32]]):
        value = x
        for i in range(ops - 1):
            value = steps[i % len(steps)](value, x, y)
        pto.store(out, value + x)

    body.__name__ = f"chain_of_{ops}"
    return kernel(body)


def compile_times(ops: int, kind: str, runs: int) -> tuple[list[float], list[float], str]:
    """Milliseconds from Python to machine code, those with the code on disk, and the phases of one of the former."""
    cold, warm, phases = [], [], ""
    cache = os.environ["PTO_WSP_CODEGEN_CACHE_DIR"]
    for run in range(runs):
        os.environ["PTO_WSP_CODEGEN_CACHE_DIR"] = f"{cache}/{kind}.{ops}.{run}"    # empty
        for found in (cold, warm):
            start = time.process_time()
            compiled = pipeline.compile_kernel(chain(ops, kind).graph)
            code = jit.load(compiled.key, lambda: compiled.ir)      # noqa: B023
            found.append((time.process_time() - start) * 1e3)
            phases = phases or ", ".join(f"{name} {spent:.0f}" for name, spent in code.phases.items() if spent >= 1)
            assert code.origin == ("compiled" if found is cold else "disk")
            del code                                                # else the process would have it
    os.environ["PTO_WSP_CODEGEN_CACHE_DIR"] = cache
    return cold, warm, phases


def cases() -> Iterator[Fact]:
    compile_times(2, "mixed", 1)                                    # starts LLVM
    cold_limits, warm_limits = {20: 60.0, 500: 1500.0}, {20: 5.0}
    for kind in STEPS:
        for ops, runs in ((5, 9), (20, 9), (100, 5), (500, 3), (2000, 1)):
            cold, warm, phases = compile_times(ops, kind, runs)
            yield Fact(f"compile {ops} ops, {kind}", cold, "ms", cold_limits.get(ops), note=phases)
            yield Fact(f"compile {ops} ops, {kind}, from disk", warm, "ms", warm_limits.get(ops))


if __name__ == "__main__":
    main(cases)
