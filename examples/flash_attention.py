"""Causal flash attention: batch 2, 8 heads, 2048 positions, 64 numbers per head; tiles of 64 positions.

A query tile meets the key tiles up to its own, one after the other. Between them its state (largest score, sum of
weights, weighted values) lives in `InOut` tiles. Its own key tile comes last: half of it lies in the future and is
masked, and the result is divided by the sum of weights. Nothing above the diagonal is ever computed.
"""

import math

import numpy as np

from pto_wsp import (
    Dense, DispatchPolicy, DType, In, InOut, P, Tensor, Tile, kernel, pto, sequential, workload,
)

B, H, S, D = 2, 8, 2048, 64
T = 64                          # positions in a tile
TILES = S // T
F32 = DType.F32


def weigh(scores, v, high, total, out):
    """One step of the online softmax: the state after these scores as well."""
    new_high = pto.maximum(high, pto.rowmax(scores))
    weights = pto.exp(scores - new_high)
    shrink = pto.exp(high - new_high)
    return new_high, total * shrink + pto.rowsum(weights), pto.matmul(weights, v, acc=out * shrink)


@kernel
def past_tile(q: In[Tile[T, D, F32]], k: In[Tile[T, D, F32]], v: In[Tile[T, D, F32]],
              high: InOut[Tile[T, 1, F32]], total: InOut[Tile[T, 1, F32]], out: InOut[Tile[T, D, F32]]):
    scores = pto.matmul(q, pto.transpose(k)) * (1 / math.sqrt(D))
    new_high, new_total, new_out = weigh(scores, v, high, total, out)
    pto.store(high, new_high)
    pto.store(total, new_total)
    pto.store(out, new_out)


@kernel
def own_tile(q: In[Tile[T, D, F32]], k: In[Tile[T, D, F32]], v: In[Tile[T, D, F32]],
             high: In[Tile[T, 1, F32]], total: In[Tile[T, 1, F32]], out: InOut[Tile[T, D, F32]]):
    scores = pto.matmul(q, pto.transpose(k)) * (1 / math.sqrt(D))
    position = pto.iota_u32(T)
    seen = position <= pto.transpose(position)
    _, new_total, new_out = weigh(pto.select(seen, scores, -math.inf), v, high, total, out)
    pto.store(out, new_out / new_total)


rng = np.random.default_rng(4)
q, k, v = (rng.standard_normal((B, H, S, D), dtype=np.float32) for _ in range(3))
out = np.zeros((B, H, S, D), np.float32)

Q, K, V, OUT = (Tensor(data=array, shape=array.shape, dtype=F32) for array in (q, k, v, out))
HIGH = Tensor(data=np.full((B, H, S, 1), -np.inf, np.float32), shape=(B, H, S, 1), dtype=F32)
TOTAL = Tensor(data=np.zeros((B, H, S, 1), np.float32), shape=(B, H, S, 1), dtype=F32)


def tile(i):
    return slice(i * T, (i + 1) * T)


@workload
def key_tile(j):
    """Every query tile that may look at key tile j does so."""
    for b, h in P(Dense[B](), Dense[H]()):
        keys, values = K[b, h, tile(j)], V[b, h, tile(j)]
        own = tile(j)
        own_tile[b, h, j](q=Q[b, h, own], k=keys, v=values, high=HIGH[b, h, own], total=TOTAL[b, h, own],
                          out=OUT[b, h, own])
        for i in P(Dense[TILES - 1 - j]()):
            later = tile(i + (j + 1))
            past_tile[b, h, i](q=Q[b, h, later], k=keys, v=values, high=HIGH[b, h, later], total=TOTAL[b, h, later],
                               out=OUT[b, h, later])


flash = sequential(*(key_tile(j) for j in range(TILES)))
program = flash.dispatch(DispatchPolicy.round_robin(24)).compile(target="cpu_sim")
program.execute()
program.synchronize()

hidden = np.triu(np.full((S, S), -np.inf, np.float32), 1)
for b, h in np.ndindex(B, H):
    weights = q[b, h] @ k[b, h].T / np.float32(math.sqrt(D)) + hidden
    weights = np.exp(weights - weights.max(axis=1, keepdims=True))
    expected = weights / weights.sum(axis=1, keepdims=True) @ v[b, h]
    np.testing.assert_allclose(out[b, h], expected, rtol=1e-4, atol=2e-6)

stats = program.stats
print(f"flash attention {B}x{H}x{S}x{D} causal: equals NumPy; {stats.task_count} tasks, {stats.total_cycles:,} cycles "
      f"on 24 workers, {stats.execute_time_ms:.1f} ms here, compiled in {stats.compile_time_ms:.0f} ms")
