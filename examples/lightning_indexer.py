"""Sparse decode attention with a lightning indexer: 16 queries over 32,768 positions, 32 of 512 pages each.

A small f16 indexer (4 heads of 32 numbers) scores every page of 64 positions by its best position. A tournament of
sorting networks keeps the 32 best pages of each query: two sorted lists, one of them reversed, hold the 32 best of both
in their pairwise maxima. What it finds steers the rest of the same program: the places are loaded into a slot, and
attention runs on those pages only. Scoring is after DeepSeek-V3.2's indexer: sum over heads of weight * relu(q . k).
"""

import math

import numpy as np

from pto_wsp import (
    Deps, DispatchPolicy, DType, In, InOut, Out, P, Tensor, Tile, kernel, pto, sequential, slot_load_u64, workload,
)
from pto_wsp.scalar_expr import slot_i64

QUERIES, PAGES, PAGE, BEST, WORKERS = 16, 512, 64, 32, 24
HEADS, D, INDEX_HEADS, INDEX_D = 16, 64, 4, 32
CHUNKS = PAGES // BEST
F16, F32, I32, U32 = DType.F16, DType.F32, DType.I32, DType.U32


@kernel
def score(q: In[Tile[INDEX_HEADS, INDEX_D, F16]], weights: In[Tile[1, INDEX_HEADS, F32]],
          k: In[Tile[PAGE, INDEX_D, F16]], out: Out[Tile[1, 1, F32]]):
    """A page is as good as its best position."""
    pto.store(out, pto.rowmax(pto.matmul(weights, pto.relu(pto.matmul(q, pto.transpose(k))))))


@kernel
def rank(score: InOut[Tile[1, BEST, F32]], place: InOut[Tile[1, BEST, U32]]):
    """Best page first."""
    ranked = pto.tsort32(score, place)
    pto.store(score, pto.slice_even(ranked))
    pto.store(place, pto.cast(pto.slice_odd(ranked), U32))


@kernel
def keep(score: InOut[Tile[1, BEST, F32]], place: InOut[Tile[1, BEST, U32]],
         other_score: In[Tile[1, BEST, F32]], other_place: In[Tile[1, BEST, U32]]):
    """The best of two ranked lists, ranked, into the first."""
    upside_down = pto.tsort32(-other_score, other_place)
    worst_first, places = -pto.slice_even(upside_down), pto.cast(pto.slice_odd(upside_down), U32)
    mine = score >= worst_first
    ranked = pto.tsort32(pto.select(mine, score, worst_first), pto.select(mine, place, places))
    pto.store(score, pto.slice_even(ranked))
    pto.store(place, pto.cast(pto.slice_odd(ranked), U32))


@kernel
def attend(q: In[Tile[HEADS, D, F16]], k: In[Tile[PAGE, D, F16]], v: In[Tile[PAGE, D, F16]],
           high: InOut[Tile[HEADS, 1, F32]], total: InOut[Tile[HEADS, 1, F32]], out: InOut[Tile[HEADS, D, F32]]):
    """One step of the online softmax."""
    scores = pto.matmul(q, pto.transpose(k)) * (1 / math.sqrt(D))
    new_high = pto.maximum(high, pto.rowmax(scores))
    weights, shrink = pto.exp(scores - new_high), pto.exp(high - new_high)
    pto.store(total, total * shrink + pto.rowsum(weights))
    pto.store(out, pto.matmul(pto.cast(weights, F16), v, acc=out * shrink))
    pto.store(high, new_high)


@kernel
def finish(total: In[Tile[HEADS, 1, F32]], out: InOut[Tile[HEADS, D, F32]]):
    pto.store(out, out / total)


rng = np.random.default_rng(32)


def normal(*shape):
    return rng.standard_normal(shape, dtype=np.float32).astype(np.float16)


q, k, v = normal(QUERIES, HEADS, D), normal(PAGES, PAGE, D), normal(PAGES, PAGE, D)
index_q, index_k = normal(QUERIES, INDEX_HEADS, INDEX_D), normal(PAGES, PAGE, INDEX_D)
weights = rng.random((QUERIES, 1, INDEX_HEADS), dtype=np.float32)
scores = np.zeros((QUERIES, 1, PAGES), np.float32)
places = np.tile(np.arange(PAGES, dtype=np.uint32), (QUERIES, 1, 1))
high, total = np.full((QUERIES, HEADS, 1), -np.inf, np.float32), np.zeros((QUERIES, HEADS, 1), np.float32)
out = np.zeros((QUERIES, HEADS, D), np.float32)

Q, K, V, INDEX_Q, INDEX_K = (Tensor(a, a.shape, F16) for a in (q, k, v, index_q, index_k))
WEIGHTS, SCORES, HIGH, TOTAL, OUT = (Tensor(a, a.shape, F32) for a in (weights, scores, high, total, out))
PLACES = Tensor(places, places.shape, U32)


def chunk(c):
    return slice(c * BEST, (c + 1) * BEST)


@workload
def index():
    for b, p in P(QUERIES, PAGES):
        score[b, p](q=INDEX_Q[b], weights=WEIGHTS[b], k=INDEX_K[p], out=SCORES[b, :, p : p + 1])


@workload
def first_round():
    for b, c in P(QUERIES, CHUNKS):
        rank[b, c](score=SCORES[b, :, chunk(c)], place=PLACES[b, :, chunk(c)])


def next_round(distance):
    """Chunks that are 2 * distance apart take in their neighbour at this distance."""

    @workload
    def rounds():
        for b, c in P(QUERIES, CHUNKS // (2 * distance)):
            mine, other = chunk(2 * distance * c), chunk(2 * distance * c + distance)
            keep[b, c](score=SCORES[b, :, mine], place=PLACES[b, :, mine],
                       other_score=SCORES[b, :, other], other_place=PLACES[b, :, other])

    return rounds()


@workload
def attention():
    for b in P(QUERIES):
        for j in P.seq(BEST, name="j"):
            slot_load_u64(0, PLACES[b], col=j)
            page = slot_i64(0)
            attend[b, j](q=Q[b], k=K[page], v=V[page], high=HIGH[b], total=TOTAL[b], out=OUT[b])


@workload
def divide():
    for b in P(QUERIES):
        finish[b](total=TOTAL[b], out=OUT[b])


tournament = [next_round(1 << i) for i in range(CHUNKS.bit_length() - 1)]
sparse = sequential(index(), first_round(), *tournament, attention(), divide())
program = sparse.dispatch(DispatchPolicy.affinity(lambda t: t.get("b"), WORKERS)).compile(target="cpu_sim")
program.execute()
program.synchronize()

products = np.einsum("bhd,psd->bhps", index_q.astype(np.float32), index_k.astype(np.float32))
found = np.einsum("bh,bhps->bps", weights[:, 0], np.maximum(products, 0)).max(axis=2)
best = np.argsort(-found, axis=1, kind="stable")[:, :BEST]
np.testing.assert_array_equal(np.sort(places[:, 0, :BEST], axis=1), np.sort(best, axis=1))
for b in range(QUERIES):
    keys, values = (x[best[b]].reshape(-1, D).astype(np.float32) for x in (k, v))
    logits = q[b].astype(np.float32) @ keys.T / np.float32(math.sqrt(D))
    shares = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(out[b], shares / shares.sum(1, keepdims=True) @ values, rtol=5e-3, atol=2e-3)

free = sparse.dispatch(DispatchPolicy.work_steal(WORKERS)).task_graph(deps=Deps.infer_bytes_overlap())
overtaking = program.simulate(free.schedule)
print(f"lightning indexer, {QUERIES} queries, {BEST} of {PAGES} pages: equals NumPy; "
      f"{program.stats.task_count} tasks, {program.stats.total_cycles:,} cycles in order on {WORKERS} workers, "
      f"{program.stats.execute_time_ms:.1f} ms here\n"
      f"with tasks that wait for their data only and take any worker: {overtaking.total_cycles:,} cycles")
