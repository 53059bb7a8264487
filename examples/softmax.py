"""Softmax over rows of 32,768 columns that never fit on chip at once: online, tile by tile.

The first workload visits a row's tiles in order, and keeps the largest value and the sum so far in two `InOut`
columns; when a tile brings a larger value, the sum is rescaled. The second one divides.
"""

import numpy as np

from pto_wsp import (
    Dense, DispatchPolicy, DType, In, InOut, Out, P, Tensor, Tile, kernel, pto, sequential, workload,
)

ROWS, COLS = 256, 32_768
R, C = 16, 1024                 # one tile
F32 = DType.F32


@kernel
def accumulate(x: In[Tile[R, C, F32]], high: InOut[Tile[R, 1, F32]], total: InOut[Tile[R, 1, F32]]):
    new_high = pto.maximum(high, pto.rowmax(x))
    pto.store(total, total * pto.exp(high - new_high) + pto.rowsum(pto.exp(x - new_high)))
    pto.store(high, new_high)


@kernel
def divide(x: In[Tile[R, C, F32]], high: In[Tile[R, 1, F32]], total: In[Tile[R, 1, F32]], out: Out[Tile[R, C, F32]]):
    pto.store(out, pto.exp(x - high) / total)


rng = np.random.default_rng(2)
x = (rng.standard_normal((ROWS, COLS)) * 10).astype(np.float32)
y = np.zeros_like(x)

X = Tensor(data=x, shape=x.shape, dtype=F32)
Y = Tensor(data=y, shape=y.shape, dtype=F32)
HIGH = Tensor(data=np.full((ROWS, 1), -np.inf, np.float32), shape=(ROWS, 1), dtype=F32)
TOTAL = Tensor(data=np.zeros((ROWS, 1), np.float32), shape=(ROWS, 1), dtype=F32)


@workload
def statistics():
    for c in P.seq(Dense[COLS // C]()):
        for r in P(Dense[ROWS // R]()):
            rows, cols = slice(r * R, (r + 1) * R), slice(c * C, (c + 1) * C)
            accumulate[r, c](x=X[rows, cols], high=HIGH[rows], total=TOTAL[rows])


@workload
def probabilities():
    for r, c in P(Dense[ROWS // R](), Dense[COLS // C]()):
        rows, cols = slice(r * R, (r + 1) * R), slice(c * C, (c + 1) * C)
        divide[r, c](x=X[rows, cols], high=HIGH[rows], total=TOTAL[rows], out=Y[rows, cols])


softmax = sequential(statistics(), probabilities())
program = softmax.dispatch(DispatchPolicy.round_robin(8)).compile(target="cpu_sim")
program.execute()
program.synchronize()

e = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True))
np.testing.assert_allclose(y, e / e.sum(axis=1, keepdims=True), rtol=1e-5, atol=1e-12)      # 32 rescaled sums
np.testing.assert_allclose(y.sum(axis=1, dtype=np.float64), 1, rtol=1e-5)

stats = program.stats
print(f"softmax {ROWS}x{COLS}: equals NumPy; {stats.total_cycles:,} cycles on 8 workers, "
      f"{stats.execute_time_ms:.1f} ms here, compiled in {stats.compile_time_ms:.0f} ms")
