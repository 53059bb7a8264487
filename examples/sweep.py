"""Which schedule suits flash decode over ragged sequences? Hundreds of them, simulated on one compiled program.

64 sequences of 17 to 4000 positions are attended in blocks of 64 with an online softmax: the blocks of a sequence
follow one another, the sequences are independent. The program runs once, and is checked against NumPy; then `sweep`
lets the clock run under every combination of dispatch, workers, window and order, on all cores of this machine.
"""

import math
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from pto_wsp import (
    Deps, DispatchPolicy, DType, In, InOut, P, Ragged, Scalar, Tensor, Tile, kernel, pto, schedule_grid, sequential,
    slot_load_u64, sweep, workload,
)
from pto_wsp.scalar_expr import slot_i64

SEQUENCES, HEADS, D, BLOCK = 64, 8, 64, 64
F32, I32, I64 = DType.F32, DType.I32, DType.I64


@kernel
def block(q: In[Tile[HEADS, D, F32]], k: In[Tile[BLOCK, D, F32]], v: In[Tile[BLOCK, D, F32]],
          high: InOut[Tile[HEADS, 1, F32]], total: InOut[Tile[HEADS, 1, F32]], out: InOut[Tile[HEADS, D, F32]],
          left: Scalar[I32]):
    """One step of the online softmax; only the first `left` positions of a block are there."""
    scores = pto.matmul(q, pto.transpose(k)) * (1 / math.sqrt(D))
    scores = pto.select(pto.cast(pto.iota_u32(BLOCK), I32) < left, scores, -math.inf)
    new_high = pto.maximum(high, pto.rowmax(scores))
    weights, shrink = pto.exp(scores - new_high), pto.exp(high - new_high)
    pto.store(total, total * shrink + pto.rowsum(weights))
    pto.store(out, pto.matmul(weights, v, acc=out * shrink))
    pto.store(high, new_high)


@kernel
def finish(total: In[Tile[HEADS, 1, F32]], out: InOut[Tile[HEADS, D, F32]]):
    pto.store(out, out / total)


rng = np.random.default_rng(7)
positions = np.geomspace(17, 4000, SEQUENCES).astype(np.int64)
blocks = -(-positions // BLOCK)
first = np.cumsum(blocks) - blocks
q = rng.standard_normal((SEQUENCES, HEADS, D), dtype=np.float32)
k, v = (rng.standard_normal((int(blocks.sum()), BLOCK, D), dtype=np.float32) for _ in range(2))
high, total, out = np.full((SEQUENCES, HEADS, 1), -np.inf, np.float32), *(
    np.zeros((SEQUENCES, HEADS, n), np.float32) for n in (1, D))
Q, K, V, HIGH, TOTAL, OUT = (Tensor(a, a.shape, F32) for a in (q, k, v, high, total, out))
LENGTH, FIRST = (Tensor(a.reshape(-1, 1, 1), (SEQUENCES, 1, 1), I64) for a in (positions, first))
rows = Ragged(SEQUENCES, blocks)


@workload
def attend():
    for b in P(SEQUENCES):
        slot_load_u64(0, LENGTH[b])
        slot_load_u64(1, FIRST[b])
        for j in P.seq(rows[b], name="j"):
            block[b, j](q=Q[b], k=K[slot_i64(1) + j], v=V[slot_i64(1) + j], high=HIGH[b], total=TOTAL[b], out=OUT[b],
                        left=slot_i64(0) - j * BLOCK)


@workload
def divide():
    for b in P(SEQUENCES):
        finish[b](total=TOTAL[b], out=OUT[b])


def to_and_fro(workers):
    """Sequences, which get longer and longer, are dealt out 0 1 2 .. and back .. 2 1 0: no worker has all long ones."""
    def worker(t):
        b = t.get("b")
        return (b // workers % 2 == 0).where(b % workers, workers - 1 - b % workers)
    return worker


def main():
    program = sequential(attend(), divide()).compile(target="cpu_sim")
    program.execute()
    program.synchronize()
    for b, n in enumerate(positions):
        keys, values = (x[first[b] : first[b] + blocks[b]].reshape(-1, D)[:n] for x in (k, v))
        scores = q[b] @ keys.T / np.float32(math.sqrt(D))
        weights = np.exp(scores - scores.max(1, keepdims=True))
        np.testing.assert_allclose(out[b], weights / weights.sum(1, keepdims=True) @ values, rtol=1e-4, atol=2e-6)
    stats = program.stats
    print(f"flash decode, {SEQUENCES} sequences: equals NumPy; {stats.task_count} tasks, {stats.total_cycles:,} cycles "
          f"on one worker, {stats.execute_time_ms:.1f} ms here")

    orders = {"in order": None, "overtaking": Deps.explicit(), "edges inferred": Deps.infer_tensor_map_exact()}
    schedules = {}
    for workers in (4, 8, 16, 24, 32, 48):
        dispatch = {
            "in turn": DispatchPolicy.round_robin(workers),
            "by sequence": DispatchPolicy.affinity(lambda t: t.get("b"), workers),
            "to and fro": DispatchPolicy.affinity(to_and_fro(workers), workers),
            "stealing": DispatchPolicy.work_steal(workers),
        }
        for name, policy in dispatch.items():
            for window in (8, 64, 512, 4096):
                for order, deps in orders.items():
                    label = f"{workers:2} workers, {name}, window {window}, {order}"
                    (schedules[label],) = schedule_grid(dispatch=policy, window=window, deps=deps)
    begin = time.perf_counter()
    with ProcessPoolExecutor() as pool:
        records = sweep(program, schedules, executor=pool)
    spent = time.perf_counter() - begin
    print(f"\n{len(records)} schedules in {spent:.1f} s. Of each number of workers the best and the worst:\n")
    print(f"{'':54}{'cycles':>12}{'busy':>6}{'at best':>12}  because of")
    for workers in sorted({r["workers"] for r in records}):
        ranked = sorted((r for r in records if r["workers"] == workers), key=lambda r: r["makespan"])
        for record in (ranked[0], ranked[-1]):
            print(f"{record['schedule']:54}{record['makespan']:12,}{record['utilisation']:6.0%}"
                  f"{record['lower_bound']:12,}  {record['bound_by']}")
    print(f"""
Issued in order, a block that waits for the one before it holds up all other sequences, whatever the window. Where
others may overtake it, the window has to hold the blocks of many sequences, and the fullest worker is left over: long
sequences have to go to different workers, not simply to the next free one. With many workers the longest sequence is
nearly all of it: its chain of blocks takes {records[0]['critical_path']:,} cycles on any number of workers.""")


if __name__ == "__main__":
    main()
