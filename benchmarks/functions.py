"""How fast the elementary functions are: nanoseconds per element, beside NumPy and a numba loop.

Claim: vector code, several times the speed of a numba fastmath loop, compiled in milliseconds.

ms is the time from Python text to machine code.

    python -m benchmarks functions                  f32 and f64 on the best CPU level there is
    python -m benchmarks.functions --cpu avx2 exp gelu
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from pto_wsp.lower import math
from pto_wsp.trace.ops import OPS
from pto_wsp.types import DType
from tests.lower.elementwise import compile_loop, cpus_here

COUNT = 1 << 14  # elements: in and out fit L2, and calling from Python does not count

# What a user would write in numba; a constant's dtype follows v.
NUMBA = {
    "exp": "exp(v)",
    "log": "log(v)",
    "sin": "sin(v)",
    "cos": "cos(v)",
    "tanh": "tanh(v)",
    "erf": "erf(v)",
    "sigmoid": "one / (one + exp(-v))",
    "silu": "v / (one + exp(-v))",
    "gelu": "half * v * (one + tanh(a * (v + b * v * v * v)))",
    "rsqrt": "one / sqrt(v)",
    "reciprocal": "one / v",
}


def best(run: Callable[[], Any], repeats: int = 50) -> float:
    """Shortest of many runs, in seconds: what the code can do when nobody disturbs it."""
    found = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        found = min(found, time.perf_counter() - start)
    return found


def numba_loop(name: str, dtype: DType) -> Callable[[Any, Any], None] | None:
    """A fastmath loop over one array, or None without numba."""
    try:
        import numba
    except ImportError:
        return None
    constants = {key: dtype.numpy.type(value) for key, value in
                 {"one": 1, "half": 0.5, "a": 0.7978845608028654, "b": 0.044715}.items()}  # fmt: skip
    names = {f: getattr(__import__("math"), f) for f in ("exp", "log", "sin", "cos", "tanh", "erf", "sqrt")}
    scope: dict[str, Any] = {**names, **constants}
    exec(f"def loop(x, y):\n    for i in range(x.size):\n        v = x[i]\n        y[i] = {NUMBA[name]}", scope)
    return numba.njit(fastmath=True)(scope["loop"])  # type: ignore[no-any-return]


def measure(name: str, dtype: DType, cpu: str) -> str:
    x = np.random.default_rng(0).uniform(0.1, 5, COUNT).astype(dtype.numpy)
    y = np.empty_like(x)
    start = time.perf_counter()
    f = compile_loop(getattr(math, name), (dtype,), dtype, cpu=cpu)
    compiled = time.perf_counter() - start

    to, source = y.ctypes.data, x.ctypes.data

    def ours() -> None:
        f.native(to, source, COUNT)  # type: ignore[attr-defined]

    loop = numba_loop(name, dtype)
    peers = [lambda: OPS[name].reference(x)] + ([lambda: loop(x, y)] if loop else [])  # type: ignore[misc]
    if loop:
        loop(x, y)
    mine, *theirs = (best(run) / COUNT * 1e9 for run in (ours, *peers))
    ratios = "".join(f"{t:>9.3f} {t / mine:>6.1f}x" for t in theirs)
    return f"{name:<11} {dtype.value} {mine:>7.3f} {2 * dtype.itemsize / mine:>6.1f} {compiled * 1e3:>8.1f} {ratios}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("functions", nargs="*", default=[], help=", ".join(math.__all__))
    parser.add_argument("--cpu", choices=cpus_here(), default=cpus_here()[-1])
    options = parser.parse_args()
    os.environ["PTO_WSP_CODEGEN_CACHE_DIR"] = tempfile.mkdtemp()  # compile, do not find
    print(f"{'':<15} {'ns/elem':>7} {'GB/s':>6} {'ms':>8} {'NumPy':>9} {'ratio':>7} {'numba':>8} {'ratio':>7}")
    for dtype in (DType.F32, DType.F64):
        for name in options.functions or math.__all__:
            print(measure(name, dtype, options.cpu), flush=True)


if __name__ == "__main__":
    main()
