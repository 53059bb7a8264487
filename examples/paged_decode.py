"""Flash decode over a paged key-value cache: 64 sequences of 17 to 4000 positions, 8 query heads, pages of 32.

The pages of a sequence are the row of a Ragged axis, one after the other; the page table, loaded into a slot, says
where each of them lies in the cache. Lengths and table change between runs: nothing is compiled again.
"""

import math

import numpy as np

from pto_wsp import (
    Deps, DispatchPolicy, DType, In, InOut, P, Ragged, Scalar, Tensor, Tile, kernel, pto, sequential, slot_load_u64,
    workload,
)
from pto_wsp.scalar_expr import slot_i64

SEQUENCES, HEADS, D, PAGE, PAGES, MOST = 64, 8, 64, 32, 6000, 128
F32, I32 = DType.F32, DType.I32


@kernel
def page(q: In[Tile[HEADS, D, F32]], k: In[Tile[PAGE, D, F32]], v: In[Tile[PAGE, D, F32]],
         high: InOut[Tile[HEADS, 1, F32]], total: InOut[Tile[HEADS, 1, F32]], out: InOut[Tile[HEADS, D, F32]],
         left: Scalar[I32]):
    """One step of the online softmax; only the first `left` positions of a page are there."""
    scores = pto.matmul(q, pto.transpose(k)) * (1 / math.sqrt(D))
    scores = pto.select(pto.cast(pto.iota_u32(PAGE), I32) < left, scores, -math.inf)
    new_high = pto.maximum(high, pto.rowmax(scores))
    weights, shrink = pto.exp(scores - new_high), pto.exp(high - new_high)
    pto.store(total, total * shrink + pto.rowsum(weights))
    pto.store(out, pto.matmul(weights, v, acc=out * shrink))
    pto.store(high, new_high)


@kernel
def finish(total: In[Tile[HEADS, 1, F32]], out: InOut[Tile[HEADS, D, F32]]):
    pto.store(out, out / total)


rng = np.random.default_rng(64)
q = rng.standard_normal((SEQUENCES, HEADS, D), dtype=np.float32)
k, v = (rng.standard_normal((PAGES, PAGE, D), dtype=np.float32) for _ in range(2))
lengths, table = np.zeros((SEQUENCES, 1, 1), np.int32), np.zeros((SEQUENCES, 1, MOST), np.int32)
high, total, out = (np.zeros((SEQUENCES, HEADS, n), np.float32) for n in (1, 1, D))

Q, K, V, HIGH, TOTAL, OUT = (Tensor(a, a.shape, F32) for a in (q, k, v, high, total, out))
LENGTHS, TABLE = Tensor(lengths, lengths.shape, I32), Tensor(table, table.shape, I32)
pages = Ragged(SEQUENCES, [0] * SEQUENCES)


@workload
def attend():
    for b in P(SEQUENCES):
        slot_load_u64(0, LENGTHS[b])
        for j in P.seq(pages[b], name="j"):
            slot_load_u64(1, TABLE[b], col=j)
            page[b, j](q=Q[b], k=K[slot_i64(1)], v=V[slot_i64(1)], high=HIGH[b], total=TOTAL[b], out=OUT[b],
                       left=slot_i64(0) - j * PAGE)


@workload
def divide():
    for b in P(SEQUENCES):
        finish[b](total=TOTAL[b], out=OUT[b])


decode = sequential(attend(), divide())
program = decode.dispatch(DispatchPolicy.affinity(lambda t: t.get("b"), 16)).compile(target="cpu_sim")


def run(positions):
    """Sequences of these lengths, their pages scattered over the cache."""
    needed = -(-positions // PAGE)
    lengths[:, 0, 0], high[:], total[:], out[:] = positions, -np.inf, 0, 0
    free = iter(rng.permutation(PAGES))
    for b, count in enumerate(needed):
        table[b, 0, :count] = [next(free) for _ in range(count)]
    program.bind(pages, needed)
    program.execute()
    program.synchronize()
    for b, n in enumerate(positions):
        keys, values = (x[table[b, 0, : needed[b]]].reshape(-1, D)[:n] for x in (k, v))
        scores = q[b] @ keys.T / np.float32(math.sqrt(D))
        weights = np.exp(scores - scores.max(1, keepdims=True))
        np.testing.assert_allclose(out[b], weights / weights.sum(1, keepdims=True) @ values, rtol=1e-4, atol=2e-6)
    return program.stats


first = run(np.geomspace(17, 4000, SEQUENCES).astype(int))
second = run(rng.integers(1, 2000, SEQUENCES))
dataflow = decode.dispatch(DispatchPolicy.round_robin(16)).task_graph(deps=Deps.infer_tensor_map_exact())
overtaking = program.simulate(dataflow.schedule)
print(f"paged decode, {SEQUENCES} sequences: equals NumPy; {first.task_count} tasks, {first.total_cycles:,} cycles on "
      f"16 workers, {first.execute_time_ms:.1f} ms here\n"
      f"with other lengths: {second.task_count} tasks, {second.total_cycles:,} cycles issued in order (a page waits "
      f"for the one before and\nholds up the other sequences), {overtaking.total_cycles:,} when others may overtake it")
