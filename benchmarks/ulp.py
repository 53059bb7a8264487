"""How exact the elementary functions are: the largest error over all 2**32 f32 inputs, or every n-th of them.

Claim: at most 2 ULP away from the correctly rounded result, for every input.

    python -m benchmarks ulp                                    each function, every 1009th input: a minute
    python -m benchmarks.ulp exp silu --stride 1                all 2**32 inputs of two functions: minutes each
    python -m benchmarks.ulp --stride 11 --resume ulp.json      may be interrupted and started again
    python -m benchmarks.ulp --cpu avx2                         generic, avx2 or avx512; default: the best there is
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from pto_wsp.lower import math
from pto_wsp.trace.ops import OPS
from tests.lower.elementwise import compile_loop, cpus_here

CHUNK = 1 << 21  # inputs at a time


def reference(name: str, x: np.ndarray) -> np.ndarray:
    """The function in f64, whose own error is 1e-9 ULP of f32."""
    if name == "erf":
        from scipy.special import erf  # the op table's series takes 200 terms

        return np.asarray(erf(x))
    return np.asarray(OPS[name].reference(x))  # type: ignore[misc]


def errors(got: np.ndarray, exact: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(ULP from the exact value, floats from the correctly rounded one); inf where NaN or a zero is wrong."""
    want = exact.astype(np.float32)
    ulp = np.spacing(np.minimum(np.abs(want), np.float32(3e38))).astype(np.float64)
    error = np.abs(got.astype(np.float64) - exact) / ulp
    different = got.view(np.int32) != want.view(np.int32)
    same = ~different | (np.isnan(got) & np.isnan(want))
    kind = np.isnan(got) | np.isnan(want) | ((got == 0) & (want == 0))  # wrong sign of a zero
    error = np.where(same, np.where(np.isfinite(error), error, 0), np.where(kind, np.inf, error))
    magnitude = [x.view(np.int32).astype(np.int64) & 0x7FFFFFFF for x in (got, want)]
    signed = [np.where(np.signbit(x), -m, m) for x, m in zip((got, want), magnitude, strict=True)]
    steps = np.where(same, 0, np.where(kind, 1 << 40, np.abs(signed[0] - signed[1])))
    return error, steps


def measure(name: str, stride: int, cpu: str, state: dict[str, Any], save: Any) -> dict[str, Any]:
    """Continue from `state` to the end of the inputs."""
    function = compile_loop(getattr(math, name), cpu=cpu)
    for first in range(state["next"], 1 << 32, CHUNK * stride):
        bits = np.arange(first, min(first + CHUNK * stride, 1 << 32), stride, dtype=np.uint64).astype(np.uint32)
        x = bits.view(np.float32)
        with np.errstate(all="ignore"):
            error, steps = errors(function(x), reference(name, x.astype(np.float64)))
        worst = int(np.argmax(error))
        if error[worst] > state["ulp"]:
            state.update(ulp=float(error[worst]), at=float(x[worst]), bits=int(bits[worst]))
        state["steps"] = max(state["steps"], int(steps.max()))
        state["rounded"] += int((steps == 0).sum())
        state["inputs"] += len(x)
        state["next"] = first + CHUNK * stride
        save()
    return state


def cases() -> Iterator[harness.Fact]:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("functions", nargs="*", default=[], help=", ".join(math.__all__))
    parser.add_argument("--stride", type=int, default=1009, help="every n-th input; an odd number")
    parser.add_argument("--cpu", choices=cpus_here(), default=cpus_here()[-1])
    parser.add_argument("--resume", type=Path, help="file that keeps the progress")
    options, _ = parser.parse_known_args()
    states = json.loads(options.resume.read_text()) if options.resume and options.resume.exists() else {}

    def save() -> None:
        if options.resume:
            options.resume.write_text(json.dumps(states, indent=1))

    for name in [f for f in options.functions if f in math.__all__] or math.__all__:
        key = f"{name} {options.cpu} {options.stride}"
        fresh = {"next": 0, "ulp": 0.0, "at": 0.0, "bits": 0, "steps": 0, "rounded": 0, "inputs": 0}
        state = measure(name, options.stride, options.cpu, states.setdefault(key, fresh), save)
        note = (f"{state['inputs']:,} inputs, {state['rounded'] / state['inputs']:.2%} correctly rounded, "
                f"largest at {state['at']!r} = 0x{state['bits']:08x}")
        yield harness.Fact(f"{name} f32", [state["ulp"]], "ULP", 2.0, note=note)


if __name__ == "__main__":
    harness.main(cases)
