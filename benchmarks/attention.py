"""Attention of one tile, Q Kt -> scale -> online softmax -> P V: at least 60 % of the speed of its two products alone.

One core, tiles in the cache. NumPy does the same work on the stack of tiles; BLAS is NumPy's two products alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.harness import Case, again, main, on_tiles
from pto_wsp import DType, In, InOut, Out, Tile, kernel, pto

F32 = DType.F32


def kernels(queries: int, keys: int, depth: int) -> tuple[Any, Any]:
    """(one step of flash attention, its two products alone)"""
    scale = 1 / math.sqrt(depth)

    @kernel
    def attention(q: In[Tile[queries, depth, F32]], k: In[Tile[keys, depth, F32]], v: In[Tile[keys, depth, F32]],
                  most: InOut[Tile[queries, 1, F32]], total: InOut[Tile[queries, 1, F32]],
                  acc: InOut[Tile[queries, depth, F32]]):
        scores = pto.matmul(q, pto.transpose(k)) * scale
        higher = pto.maximum(most, pto.rowmax(scores))
        weights, shrink = pto.exp(scores - higher), pto.exp(most - higher)
        pto.store(total, total * shrink + pto.rowsum(weights))
        pto.store(acc, pto.matmul(weights, v, acc=acc * shrink))
        pto.store(most, higher)

    @kernel
    def products(q: In[Tile[queries, depth, F32]], k: In[Tile[keys, depth, F32]], v: In[Tile[keys, depth, F32]],
                 scores: Out[Tile[queries, keys, F32]], acc: InOut[Tile[queries, depth, F32]]):
        s = pto.matmul(q, pto.transpose(k))
        pto.store(scores, s)
        pto.store(acc, pto.matmul(s, v, acc=acc))

    return attention, products


def cases() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    for queries, keys, depth in ((64, 64, 64), (128, 128, 64), (64, 64, 128), (32, 128, 128)):
        attention, products = kernels(queries, keys, depth)
        q, k, v = (rng.standard_normal((4, n, depth), dtype=np.float32) for n in (queries, keys, keys))
        most, total, acc, small, s = (np.zeros((4, queries, n), np.float32) for n in (1, 1, depth, depth, keys))
        small_v = v * np.float32(0)                         # sums that are never reset stay finite

        def blas() -> None:
            np.matmul(q, k.swapaxes(1, 2), out=s)               # noqa: B023
            np.matmul(s, v, out=small)              # noqa: B023

        def numpy() -> Any:
            scores = q @ k.swapaxes(1, 2) / np.float32(math.sqrt(depth))                    # noqa: B023
            higher = np.maximum(most, scores.max(axis=2, keepdims=True))        # noqa: B023
            weights, shrink = np.exp(scores - higher), np.exp(most - higher)    # noqa: B023
            return total * shrink + weights.sum(axis=2, keepdims=True), acc * shrink + weights @ v  # noqa: B023

        sides = {"pto_wsp": on_tiles(attention, q, k, v, most, total, acc),
                 "products": on_tiles(products, q, k, small_v, s.copy(), small.copy()),
                 "blas": again(blas), "numpy": again(numpy)}
        yield Case(f"attention {queries}x{keys}x{depth} f32", sides, {"products": 0.6},
                   flops=4 * 4 * queries * keys * depth, bytes=sum(a.nbytes for a in (q, k, v)) + 2 * acc.nbytes)


if __name__ == "__main__":
    main(cases)
