"""Decode attention in tiers: 32 sequences of 300 to 32,000 positions; the kernel is chosen by length at run time.

Up to 2k positions one small kernel does it, up to 8k a larger one. A longer sequence is cut into parts of 8k that run
side by side, each with its own softmax, and a merge makes one result of them. One kernel for everybody would do 32k
positions for each sequence, however short; cut too coarsely, the longest sequence would be the makespan.
"""

import math

import numpy as np

from pto_wsp import (
    DispatchPolicy, DType, In, Out, P, Scalar, Tensor, Tile, kernel, pto, sequential, slot_load_u64, workload,
)
from pto_wsp.scalar_expr import slot_i64

SEQUENCES, HEADS, D, LONGEST, WORKERS = 32, 8, 64, 32768, 16
SMALL, LARGE = 2048, 8192
PARTS = LONGEST // LARGE
F16, F32, I32 = DType.F16, DType.F32, DType.I32


def attention(positions):
    """A kernel for up to so many positions: the softmax of one part, and what is needed to merge it with others."""

    @kernel(name=f"attend_{positions // 1024}k")
    def attend(q: In[Tile[HEADS, D, F16]], k: In[Tile[positions, D, F16]], v: In[Tile[positions, D, F16]],
               high: Out[Tile[HEADS, 1, F32]], total: Out[Tile[HEADS, 1, F32]], out: Out[Tile[HEADS, D, F32]],
               left: Scalar[I32]):
        scores = pto.matmul(q, pto.transpose(k)) * (1 / math.sqrt(D))
        there = pto.cast(pto.iota_u32(positions), I32) < left
        scores = pto.select(there, scores, -math.inf)
        top = pto.rowmax(scores)
        weights = pto.exp(scores - top)
        sums = pto.rowsum(weights)
        pto.store(high, top)
        pto.store(total, sums)
        pto.store(out, pto.matmul(pto.cast(weights, F16), v) / sums)

    return attend


@kernel
def merge(high: In[Tile[PARTS, 1, F32]], total: In[Tile[PARTS, 1, F32]], out: In[Tile[PARTS, D, F32]],
          result: Out[Tile[1, D, F32]], parts: Scalar[I32]):
    """One head: the mean of its parts, weighted by their sums."""
    there = pto.transpose(pto.cast(pto.iota_u32(PARTS), I32) < parts)
    high = pto.select(there, high, -math.inf)
    share = pto.select(there, total * pto.exp(high - pto.colmax(high)), 0.0)
    pto.store(result, pto.colsum(out * share) / pto.colsum(share))


rng = np.random.default_rng(32)
positions = np.geomspace(300, LONGEST, SEQUENCES).astype(np.int64)
first = np.concatenate(([0], np.cumsum(-(-positions // SMALL))[:-1])) * SMALL   # each sequence begins on a page of 2k
pool = int(first[-1]) + LONGEST
q = rng.standard_normal((SEQUENCES, HEADS, D), dtype=np.float32).astype(np.float16)
k, v = (rng.standard_normal((pool, D), dtype=np.float32).astype(np.float16) for _ in range(2))
where = np.stack([positions, first // SMALL], axis=1).astype(np.int32)[:, None, :]
high, total = (np.zeros((SEQUENCES, PARTS, HEADS, 1), np.float32) for _ in range(2))
out, result = np.zeros((SEQUENCES, PARTS, HEADS, D), np.float32), np.zeros((SEQUENCES, HEADS, D), np.float32)

Q, K, V = (Tensor(a, a.shape, F16) for a in (q, k, v))
HIGH, TOTAL, OUT, RESULT = (Tensor(a, a.shape, F32) for a in (high, total, out, result))
WHERE = Tensor(where, where.shape, I32)
attend_2k, attend_8k, attend_32k = attention(SMALL), attention(LARGE), attention(LONGEST)
length, page = slot_i64(0), slot_i64(1)


def call(kernel, positions, b, part=0):
    """The part of a sequence that begins `part` times `positions` behind its first one."""
    begin = page * SMALL + part * positions
    rows = slice(begin, begin + positions)
    kernel[b, part](q=Q[b], k=K[rows], v=V[rows], high=HIGH[b, part], total=TOTAL[b, part], out=OUT[b, part],
                    left=length - part * positions)


@workload
def in_tiers():
    for b in P(SEQUENCES):
        slot_load_u64(0, WHERE[b])
        slot_load_u64(1, WHERE[b], col=1)
        with P.when(length <= SMALL):
            call(attend_2k, SMALL, b)
        with P.otherwise():
            for part in P(PARTS):
                with P.when(length > part * LARGE):
                    call(attend_8k, LARGE, b, part)


@workload
def in_one():
    for b in P(SEQUENCES):
        slot_load_u64(0, WHERE[b])
        slot_load_u64(1, WHERE[b], col=1)
        call(attend_32k, LONGEST, b)


@workload
def merging():
    for b in P(SEQUENCES):
        slot_load_u64(0, WHERE[b])
        for h in P(HEADS):
            merge[b, h](high=HIGH[b, :, h], total=TOTAL[b, :, h], out=OUT[b, :, h], result=RESULT[b, h : h + 1],
                        parts=(length + LARGE - 1) // LARGE)


program = sequential(in_tiers(), merging()).dispatch(DispatchPolicy.round_robin(WORKERS)).compile(target="cpu_sim")
program.execute()
program.synchronize()

for b, n in enumerate(positions):
    keys, values = (x[first[b] : first[b] + n].astype(np.float32) for x in (k, v))
    scores = q[b].astype(np.float32) @ keys.T / np.float32(math.sqrt(D))
    weights = np.exp(scores - scores.max(1, keepdims=True))
    np.testing.assert_allclose(result[b], weights / weights.sum(1, keepdims=True) @ values, rtol=5e-3, atol=1e-4)

one = in_one().dispatch(DispatchPolicy.round_robin(WORKERS)).compile(target="cpu_sim").simulate()
print(f"tiered attention, {SEQUENCES} sequences of {positions[0]} to {positions[-1]}: equals NumPy; "
      f"{program.stats.task_count} tasks, {program.stats.total_cycles:,} cycles on {WORKERS} workers, "
      f"{program.stats.execute_time_ms:.1f} ms here\n"
      f"with one kernel for everybody: {one.task_count} tasks, {one.total_cycles:,} cycles")
