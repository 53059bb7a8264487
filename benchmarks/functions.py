"""How fast the elementary functions are, beside NumPy and a numba loop.

Claim: vector code, several times the speed of a numba fastmath loop, compiled in milliseconds. 16384 elements, in the
cache.

    python -m benchmarks.functions --only exp
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks import CPU
from benchmarks.harness import Case, again, main, numba_loop
from pto_wsp.lower import math
from pto_wsp.trace.ops import OPS
from pto_wsp.types import DType
from tests.lower.elementwise import CPUS, compile_loop, cpus_here

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


def loop_of(name: str, dtype: DType) -> Callable[[Any, Any], None]:
    """The loop over one array that numba compiles."""
    constants = {key: dtype.numpy.type(value) for key, value in
                 {"one": 1, "half": 0.5, "a": 0.7978845608028654, "b": 0.044715}.items()}  # fmt: skip
    names = {f: getattr(__import__("math"), f) for f in ("exp", "log", "sin", "cos", "tanh", "erf", "sqrt")}
    scope: dict[str, Any] = {**names, **constants}
    exec(f"def loop(x, y):\n    for i in range(x.size):\n        v = x[i]\n        y[i] = {NUMBA[name]}", scope)
    return scope["loop"]  # type: ignore[no-any-return]


def case(name: str, dtype: DType, cpu: str) -> Case:
    x = np.random.default_rng(0).uniform(0.1, 5, COUNT).astype(dtype.numpy)
    y = np.empty_like(x)
    f = compile_loop(getattr(math, name), (dtype,), dtype, cpu=cpu)
    to, source = y.ctypes.data, x.ctypes.data
    ours = again(lambda: f.native(to, source, COUNT))  # type: ignore[attr-defined]
    numpy = again(lambda: OPS[name].reference(x))  # type: ignore[misc]
    sides = {"pto_wsp": ours, "numpy": numpy, "numba": numba_loop(loop_of(name, dtype), x, y)}
    return Case(f"{name} {dtype.value}", sides, {"numba": 1.0}, bytes=x.nbytes + y.nbytes, seconds=0.03)


def cases() -> Iterator[Case]:
    names = {"": cpus_here()[-1], "x86-64-v2": "generic", **{level: name for name, level in CPUS.items()}}
    for dtype in (DType.F32, DType.F64):
        for name in math.__all__:
            yield case(name, dtype, names[CPU])


if __name__ == "__main__":
    main(cases)
