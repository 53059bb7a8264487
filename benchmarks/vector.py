"""Fused vector kernels: as fast as hand-written numba fastmath loops or faster, and 5 times NumPy, on one core.

Tiles lie in the cache, 32 of each kernel, and machine code calls each side. `stream` kernels work on arrays of
64 MB that do not, beside a copy of the same arrays. GB/s counts each element of inputs and outputs once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import exp, sqrt, tanh
from typing import Any

import numpy as np

from benchmarks.harness import Case, again, jax_function, main, numba_loop, on_tiles, program
from pto_wsp import Dense, DType, In, InOut, Out, P, Tensor, Tile, kernel, pto, workload

F32, F16, I8 = DType.F32, DType.F16, DType.I8
TILES = 32
FUNCTION = 20                   # operations: clamping, range reduction, a polynomial, scaling
GOALS = {"numpy": 5.0, "numba": 1.0}
one, half = np.float32(1), np.float32(0.5)


# ---- kernels, each beside the loop and the NumPy that do the same --------------------------------------------------


@kernel
def rmsnorm(x: In[Tile[16, 128, F32]], w: In[Tile[1, 128, F32]], out: Out[Tile[16, 128, F32]]):
    pto.store(out, x * pto.rsqrt(pto.rowmean(x * x) + 1e-6) * w)


def rmsnorm_loop(x: Any, w: Any, out: Any) -> None:
    for t in range(x.shape[0]):
        for r in range(x.shape[1]):
            total = np.float32(0)
            for c in range(x.shape[2]):
                total += x[t, r, c] * x[t, r, c]
            scale = one / sqrt(total / np.float32(x.shape[2]) + np.float32(1e-6))
            for c in range(x.shape[2]):
                out[t, r, c] = x[t, r, c] * scale * w[0, 0, c]


def rmsnorm_numpy(x: Any, w: Any, out: Any) -> Any:
    return x / np.sqrt(np.mean(x * x, axis=2, keepdims=True) + np.float32(1e-6)) * w


@kernel
def softmax(x: In[Tile[8, 256, F32]], out: Out[Tile[8, 256, F32]]):
    weights = pto.exp(x - pto.rowmax(x))
    pto.store(out, weights / pto.rowsum(weights))


def softmax_loop(x: Any, out: Any) -> None:
    for t in range(x.shape[0]):
        for r in range(x.shape[1]):
            most = np.float32(-np.inf)
            for c in range(x.shape[2]):
                most = max(most, x[t, r, c])
            total = np.float32(0)
            for c in range(x.shape[2]):
                out[t, r, c] = exp(x[t, r, c] - most)
                total += out[t, r, c]
            for c in range(x.shape[2]):
                out[t, r, c] *= one / total


def softmax_numpy(x: Any, out: Any) -> Any:
    weights = np.exp(x - x.max(axis=2, keepdims=True))
    return weights / weights.sum(axis=2, keepdims=True)


@kernel
def layernorm(x: In[Tile[16, 256, F32]], w: In[Tile[1, 256, F32]], b: In[Tile[1, 256, F32]],
              out: Out[Tile[16, 256, F32]]):
    away = x - pto.rowmean(x)
    pto.store(out, away * pto.rsqrt(pto.rowmean(away * away) + 1e-5) * w + b)


def layernorm_loop(x: Any, w: Any, b: Any, out: Any) -> None:
    n = np.float32(x.shape[2])
    for t in range(x.shape[0]):
        for r in range(x.shape[1]):
            total = np.float32(0)
            for c in range(x.shape[2]):
                total += x[t, r, c]
            mean, squares = total / n, np.float32(0)
            for c in range(x.shape[2]):
                squares += (x[t, r, c] - mean) * (x[t, r, c] - mean)
            scale = one / sqrt(squares / n + np.float32(1e-5))
            for c in range(x.shape[2]):
                out[t, r, c] = (x[t, r, c] - mean) * scale * w[0, 0, c] + b[0, 0, c]


def layernorm_numpy(x: Any, w: Any, b: Any, out: Any) -> Any:
    away = x - x.mean(axis=2, keepdims=True)
    return away / np.sqrt(np.mean(away * away, axis=2, keepdims=True) + np.float32(1e-5)) * w + b


@kernel
def swiglu(gate: In[Tile[16, 256, F32]], up: In[Tile[16, 256, F32]], out: Out[Tile[16, 256, F32]]):
    pto.store(out, pto.silu(gate) * up)


def swiglu_loop(gate: Any, up: Any, out: Any) -> None:
    for t in range(gate.shape[0]):
        for r in range(gate.shape[1]):
            for c in range(gate.shape[2]):
                g = gate[t, r, c]
                out[t, r, c] = g / (one + exp(-g)) * up[t, r, c]


def swiglu_numpy(gate: Any, up: Any, out: Any) -> Any:
    return gate / (one + np.exp(-gate)) * up


@kernel
def rope(x: In[Tile[16, 128, F32]], cos: In[Tile[16, 64, F32]], sin: In[Tile[16, 64, F32]],
         out: Out[Tile[16, 128, F32]]):
    even, odd = pto.slice_even(x), pto.slice_odd(x)
    pto.store(out, pto.interleave(even * cos - odd * sin, even * sin + odd * cos))


def rope_loop(x: Any, cos: Any, sin: Any, out: Any) -> None:
    for t in range(x.shape[0]):
        for r in range(x.shape[1]):
            for c in range(cos.shape[2]):
                even, odd = x[t, r, 2 * c], x[t, r, 2 * c + 1]
                out[t, r, 2 * c] = even * cos[0, r, c] - odd * sin[0, r, c]
                out[t, r, 2 * c + 1] = even * sin[0, r, c] + odd * cos[0, r, c]


def rope_numpy(x: Any, cos: Any, sin: Any, out: Any) -> Any:
    even, odd = x[:, :, 0::2], x[:, :, 1::2]
    result = np.empty_like(x)
    result[:, :, 0::2], result[:, :, 1::2] = even * cos - odd * sin, even * sin + odd * cos
    return result


@kernel
def gelu_bias(x: In[Tile[16, 256, F32]], b: In[Tile[1, 256, F32]], residual: In[Tile[16, 256, F32]],
              out: Out[Tile[16, 256, F32]]):
    pto.store(out, pto.gelu(x + b) + residual)


def gelu_bias_loop(x: Any, b: Any, residual: Any, out: Any) -> None:
    a, c3 = np.float32(0.7978845608028654), np.float32(0.044715)
    for t in range(x.shape[0]):
        for r in range(x.shape[1]):
            for c in range(x.shape[2]):
                v = x[t, r, c] + b[0, 0, c]
                out[t, r, c] = half * v * (one + tanh(a * (v + c3 * v * v * v))) + residual[t, r, c]


def gelu_bias_numpy(x: Any, b: Any, residual: Any, out: Any) -> Any:
    v = x + b
    inner = np.float32(0.7978845608028654) * (v + np.float32(0.044715) * v * v * v)
    return half * v * (one + np.tanh(inner)) + residual


@kernel
def online_softmax(s: In[Tile[64, 64, F32]], most: InOut[Tile[64, 1, F32]], total: InOut[Tile[64, 1, F32]],
                   acc: InOut[Tile[64, 64, F32]], p: Out[Tile[64, 64, F32]]):
    higher = pto.maximum(most, pto.rowmax(s))
    weights, shrink = pto.exp(s - higher), pto.exp(most - higher)
    pto.store(p, weights)
    pto.store(total, total * shrink + pto.rowsum(weights))
    pto.store(acc, acc * shrink)
    pto.store(most, higher)


def online_softmax_loop(s: Any, most: Any, total: Any, acc: Any, p: Any) -> None:
    for t in range(s.shape[0]):
        for r in range(s.shape[1]):
            higher = most[t, r, 0]
            for c in range(s.shape[2]):
                higher = max(higher, s[t, r, c])
            weights = np.float32(0)
            for c in range(s.shape[2]):
                p[t, r, c] = exp(s[t, r, c] - higher)
                weights += p[t, r, c]
            shrink = exp(most[t, r, 0] - higher)
            for c in range(acc.shape[2]):
                acc[t, r, c] *= shrink
            total[t, r, 0] = total[t, r, 0] * shrink + weights
            most[t, r, 0] = higher


def online_softmax_numpy(s: Any, most: Any, total: Any, acc: Any, p: Any) -> Any:
    higher = np.maximum(most, s.max(axis=2, keepdims=True))
    weights, shrink = np.exp(s - higher), np.exp(most - higher)
    return higher, total * shrink + weights.sum(axis=2, keepdims=True), acc * shrink, weights


@kernel
def quantise(x: In[Tile[16, 256, F32]], q: Out[Tile[16, 256, I8]], scale: Out[Tile[16, 1, F32]]):
    step = pto.rowmax(pto.abs(x)) * (1 / 127)
    pto.store(scale, step)
    pto.store(q, pto.cast(pto.round(x / step), I8))


def quantise_loop(x: Any, q: Any, scale: Any) -> None:
    for t in range(x.shape[0]):
        for r in range(x.shape[1]):
            most = np.float32(0)
            for c in range(x.shape[2]):
                most = max(most, abs(x[t, r, c]))
            step = most * np.float32(1 / 127)
            scale[t, r, 0] = step
            for c in range(x.shape[2]):
                q[t, r, c] = np.int8(np.rint(x[t, r, c] / step))


def quantise_numpy(x: Any, q: Any, scale: Any) -> Any:
    step = np.abs(x).max(axis=2, keepdims=True) * np.float32(1 / 127)
    return np.rint(x / step).astype(np.int8), step


@kernel
def dequantise(q: In[Tile[16, 256, I8]], scale: In[Tile[16, 1, F32]], out: Out[Tile[16, 256, F32]]):
    pto.store(out, pto.cast(q, F32) * scale)


def dequantise_loop(q: Any, scale: Any, out: Any) -> None:
    for t in range(q.shape[0]):
        for r in range(q.shape[1]):
            for c in range(q.shape[2]):
                out[t, r, c] = np.float32(q[t, r, c]) * scale[t, r, 0]


def dequantise_numpy(q: Any, scale: Any, out: Any) -> Any:
    return q.astype(np.float32) * scale


@kernel
def add_i8(x: In[Tile[16, 256, I8]], y: In[Tile[16, 256, I8]], out: Out[Tile[16, 256, I8]]):
    pto.store(out, pto.maximum(x + y, x))


def add_i8_loop(x: Any, y: Any, out: Any) -> None:
    for t in range(x.shape[0]):
        for r in range(x.shape[1]):
            for c in range(x.shape[2]):
                out[t, r, c] = max(np.int8(x[t, r, c] + y[t, r, c]), x[t, r, c])


def add_i8_numpy(x: Any, y: Any, out: Any) -> Any:
    return np.maximum(x + y, x)


@kernel
def rmsnorm_f16(x: In[Tile[16, 128, F16]], w: In[Tile[1, 128, F16]], out: Out[Tile[16, 128, F16]]):
    wide = pto.cast(x, F32)
    pto.store(out, pto.cast(wide * pto.rsqrt(pto.rowmean(wide * wide) + 1e-6) * pto.cast(w, F32), F16))


def rmsnorm_f16_numpy(x: Any, w: Any, out: Any) -> Any:
    return rmsnorm_numpy(x.astype(np.float32), w.astype(np.float32), None).astype(np.float16)


# kernel, numba loop, NumPy, operations per element of the first operand; a function of the exp kind counts as FUNCTION
KERNELS: list[tuple[Any, Callable[..., None] | None, Callable[..., Any], float]] = [
    (rmsnorm, rmsnorm_loop, rmsnorm_numpy, 4),
    (softmax, softmax_loop, softmax_numpy, 4 + FUNCTION),
    (layernorm, layernorm_loop, layernorm_numpy, 8),
    (swiglu, swiglu_loop, swiglu_numpy, 1 + FUNCTION),
    (rope, rope_loop, rope_numpy, 3),
    (gelu_bias, gelu_bias_loop, gelu_bias_numpy, 2 + FUNCTION),
    (online_softmax, online_softmax_loop, online_softmax_numpy, 4 + FUNCTION),
    (quantise, quantise_loop, quantise_numpy, 4),
    (dequantise, dequantise_loop, dequantise_numpy, 2),
    (add_i8, add_i8_loop, add_i8_numpy, 2),
    (rmsnorm_f16, None, rmsnorm_f16_numpy, 4),
]


def operands(k: Any, tiles: int) -> list[Any]:
    """Arrays [tiles, rows, cols] for the parameters; what has one row, and RoPE's tables, belong to all tiles."""
    rng, arrays = np.random.default_rng(0), []
    for param in k.graph.tile_params:
        tile = param.node.tile
        count = 1 if tile.rows == 1 or param.name in ("cos", "sin") else tiles
        values = rng.standard_normal((count, tile.rows, tile.cols)) * (20 if tile.dtype.is_int else 1)
        arrays.append(aligned(values.astype(tile.dtype.numpy)))
    return arrays


def aligned(array: Any) -> Any:
    """A copy that begins at a multiple of 64 bytes, so that each run measures the same."""
    memory = np.empty(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def cases() -> Iterator[Case]:
    for k, loop, numpy, flops in KERNELS:
        arrays = operands(k, TILES)
        sides = {"pto_wsp": on_tiles(k, *arrays), "numpy": again(lambda: numpy(*arrays))}     # noqa: B023
        if loop is not None:
            sides["numba"] = numba_loop(loop, *arrays)
        sides |= jax_function(numpy, *arrays) if k is not rope else {}     # whose NumPy writes in place
        tile = k.graph.tile_params[0].node.tile
        inouts = sum(p.direction == "inout" for p in k.graph.tile_params)
        moved = sum(a.nbytes for a in arrays) + sum(
            a.nbytes for a, p in zip(arrays, k.graph.tile_params) if inouts and p.direction == "inout")
        yield Case(f"{k.name} {tile.rows}x{tile.cols} {tile.dtype.value}", sides, GOALS, moved, flops * arrays[0].size)
    yield from streams()


# ---- what does not fit the cache -----------------------------------------------------------------------------------

ROWS, COLS = 1024, 4096


@kernel
def scale_stream(x: In[Tile[ROWS, COLS, F32]], out: Out[Tile[ROWS, COLS, F32]]):
    pto.store(out, x * 2.0 + 1.0)


@kernel
def rmsnorm_stream(x: In[Tile[ROWS, COLS, F32]], out: Out[Tile[ROWS, COLS, F32]]):
    pto.store(out, x * pto.rsqrt(pto.rowmean(x * x) + 1e-6))


@kernel
def rmsnorm_tile(x: In[Tile[16, 128, F32]], out: Out[Tile[16, 128, F32]]):
    pto.store(out, x * pto.rsqrt(pto.rowmean(x * x) + 1e-6))


def streams() -> Iterator[Case]:
    x, out = (aligned(np.ones((4, ROWS, COLS), np.float32)) for _ in range(2))
    copy = again(lambda: np.copyto(out, x))
    for k in (scale_stream, rmsnorm_stream):
        sides = {"pto_wsp": on_tiles(k, x, out), "copy": copy}
        yield Case(f"{k.name} {ROWS}x{COLS} f32", sides, {"copy": 0.8}, 2 * x.nbytes, 3 * x.size, 1.0)
    x, out = (aligned(np.ones((10_000, 16, 128), np.float32)) for _ in range(2))
    w = np.ones((1, 1, 128), np.float32)
    peers = {"numba": numba_loop(rmsnorm_loop, x, w, out), "numpy": again(lambda: rmsnorm_numpy(x, w, out)),
             "copy": again(lambda: np.copyto(out, x))}
    sides = {"pto_wsp": on_tiles(rmsnorm_tile, x, out), **peers}
    yield Case("rmsnorm_tile, 10,000 tiles", sides, {**GOALS, "copy": 0.8}, 2 * x.nbytes, 4 * x.size, 1.0)
    tensors = [Tensor(data=a, shape=a.shape, dtype=F32) for a in (x, out)]

    @workload
    def tiles():
        for i in P(Dense[10_000]()):
            rmsnorm_tile[i](x=tensors[0][i], out=tensors[1][i])

    run = program(tiles(), 1)
    run(5)                              # after 256 MB, results go around the cache
    sides = {"pto_wsp": run, **peers}
    yield Case("rmsnorm_tile, a program of 10,000 tiles", sides, GOALS, 2 * x.nbytes, 4 * x.size, 1.0)


if __name__ == "__main__":
    main(cases)
