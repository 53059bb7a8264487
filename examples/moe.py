"""Mixture of experts, top 2 of 8, the router in the same program: 512 tokens of 256 numbers, experts 256 x 512 x 256.

The router writes two expert numbers per token. The second part loads each of them into a slot, which then chooses the
weights: only the experts that are wanted run. The lists of tokens per expert never exist. Expert affinity keeps the
weights of an expert on one worker; what that costs when experts are not equally popular is what the clock says.
"""

import numpy as np

from pto_wsp import (
    DispatchPolicy, DType, In, InOut, Out, P, Tensor, Tile, kernel, pto, sequential, slot_load_u64, workload,
)
from pto_wsp.scalar_expr import slot_i64

TOKENS, D, HIDDEN, EXPERTS = 512, 256, 512, 8
F32, I32 = DType.F32, DType.I32


def best_of(scores):
    """The largest of a row of scores, and where it is (the last place of several)."""
    high = pto.rowmax(scores)
    place = pto.cast(pto.iota_u32(EXPERTS), F32)
    return high, pto.rowmax(pto.select(scores >= high, place, -1.0))


@kernel
def route(x: In[Tile[1, D, F32]], weights: In[Tile[D, EXPERTS, F32]],
          first: Out[Tile[1, 1, I32]], second: Out[Tile[1, 1, I32]], gates: Out[Tile[1, 2, F32]]):
    scores = pto.matmul(x, weights)
    high, best = best_of(scores)
    place = pto.cast(pto.iota_u32(EXPERTS), F32)
    low, next_best = best_of(pto.select(pto.eq(place, best), -np.inf, scores))
    share = pto.sigmoid(high - low)                 # softmax of the two
    pto.store(first, pto.cast(best, I32))
    pto.store(second, pto.cast(next_best, I32))
    pto.store(gates, pto.select(pto.iota_u32(2) < 1, share, 1.0 - share))


@kernel
def expert(x: In[Tile[1, D, F32]], gate: In[Tile[1, 1, F32]], up: In[Tile[D, HIDDEN, F32]],
           down: In[Tile[HIDDEN, D, F32]], out: InOut[Tile[1, D, F32]]):
    hidden = pto.silu(pto.matmul(x, up))
    pto.store(out, out + gate * pto.matmul(hidden, down))


rng = np.random.default_rng(8)
x = rng.standard_normal((TOKENS, 1, D), dtype=np.float32)
router = rng.standard_normal((D, EXPERTS), dtype=np.float32) * np.linspace(0.5, 1.5, EXPERTS, dtype=np.float32)
up = rng.standard_normal((EXPERTS, D, HIDDEN), dtype=np.float32) / np.float32(D) ** 0.5
down = rng.standard_normal((EXPERTS, HIDDEN, D), dtype=np.float32) / np.float32(HIDDEN) ** 0.5
out, choice, gates = np.zeros_like(x), np.zeros((TOKENS, 1, 2), np.int32), np.zeros((TOKENS, 1, 2), np.float32)

X, ROUTER, UP, DOWN, OUT, GATES = (Tensor(a, a.shape, F32) for a in (x, router, up, down, out, gates))
CHOICE = Tensor(choice, choice.shape, I32)


@workload
def routing():
    for t in P(TOKENS):
        route[t, t](x=X[t], weights=ROUTER, first=CHOICE[t, :, 0:1], second=CHOICE[t, :, 1:2], gates=GATES[t])


@workload
def experts():
    for k in P.seq(2):                              # both add to the token's row: first choices first
        for t in P(TOKENS):
            slot_load_u64(0, CHOICE[t], col=k)
            e = slot_i64(0)
            expert[t, e](x=X[t], gate=GATES[t, :, k : k + 1], up=UP[e], down=DOWN[e], out=OUT[t])


moe = sequential(routing(), experts())
program = moe.dispatch(DispatchPolicy.affinity(lambda t: t.params[1], EXPERTS)).compile(target="cpu_sim")
program.execute()
program.synchronize()

scores = x[:, 0] @ router
order = np.argsort(scores, axis=1)[:, :-3:-1]
np.testing.assert_array_equal(choice[:, 0], order)
two = np.take_along_axis(scores, order, 1)
share = np.exp(two) / np.exp(two).sum(1, keepdims=True)
expected = np.zeros((TOKENS, D), np.float32)
for t, e in np.ndindex(TOKENS, 2):
    hidden = x[t, 0] @ up[order[t, e]]
    expected[t] += share[t, e] * ((hidden / (1 + np.exp(-hidden))) @ down[order[t, e]])
np.testing.assert_allclose(out[:, 0], expected, rtol=1e-4, atol=1e-5)

in_turn = program.simulate(moe.dispatch(DispatchPolicy.round_robin(EXPERTS)).schedule)
print(f"mixture of experts, {TOKENS} tokens: equals NumPy; {program.stats.task_count} tasks, "
      f"{program.stats.total_cycles:,} cycles with an expert per worker, {in_turn.total_cycles:,} in turn, "
      f"{program.stats.execute_time_ms:.1f} ms here\n"
      f"tokens per expert {np.bincount(order.reshape(-1), minlength=EXPERTS).tolist()}")
