"""The examples' programs beside the same computation in NumPy: what a user gets, on all cores.

NumPy is what a user would otherwise write; its matrix products come from OpenBLAS on all cores. The matrices of the
products are f32 for NumPy, which has no fast f16.
"""

import math
import os
import runpy
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):      # read when NumPy is imported
    os.environ.pop(name, None)

import numpy as np  # noqa: E402

from benchmarks.harness import Case, again, main  # noqa: E402

EXAMPLES = Path(__file__).parents[1] / "examples"


def rmsnorm(e: dict[str, Any]) -> Callable[[], Any]:
    x, weight = e["x"], e["weight"]
    return lambda: x / np.sqrt(np.mean(x * x, axis=1, keepdims=True) + np.float32(1e-6)) * weight


def softmax(e: dict[str, Any]) -> Callable[[], Any]:
    def run() -> Any:
        weights = np.exp(e["x"] - e["x"].max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True)
    return run


def gemm(e: dict[str, Any]) -> Callable[[], Any]:
    a, b = e["a"].astype(np.float32), e["b"].astype(np.float32)
    return lambda: np.matmul(a, b)


def flash_attention(e: dict[str, Any]) -> Callable[[], Any]:
    q, k, v, hidden = e["q"], e["k"], e["v"], e["hidden"]

    def run() -> Any:
        for b, h in np.ndindex(q.shape[:2]):
            weights = q[b, h] @ k[b, h].T / np.float32(math.sqrt(q.shape[-1])) + hidden
            weights = np.exp(weights - weights.max(axis=1, keepdims=True))
            yield weights / weights.sum(axis=1, keepdims=True) @ v[b, h]
    return lambda: list(run())


def llama_block(e: dict[str, Any]) -> Callable[[], Any]:
    return lambda: e["reference"](e["x"], e["weights"])


def cases() -> Iterator[Case]:
    for numpy in (rmsnorm, softmax, gemm, flash_attention, llama_block):
        example = runpy.run_path(str(EXAMPLES / f"{numpy.__name__}.py"), run_name="__main__")
        program = example["program"]

        def run(program: Any = program) -> None:
            program.execute()
            program.synchronize()

        yield Case(numpy.__name__, {"pto_wsp": again(run), "numpy": again(numpy(example))}, turns=5,
                   clock=time.perf_counter)


if __name__ == "__main__":
    main(cases)
