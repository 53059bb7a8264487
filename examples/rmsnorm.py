"""RMSNorm of a 4096 x 4096 matrix, 64 rows to a task."""

import numpy as np

from pto_wsp import (
    Constexpr, Dense, DispatchPolicy, DType, In, Out, P, Tensor, Tile, kernel, pto, workload,
)

ROWS, COLS, STRIP = 4096, 4096, 64
F32 = DType.F32


@kernel
def rmsnorm(x: In[Tile[STRIP, COLS, F32]], weight: In[Tile[1, COLS, F32]], out: Out[Tile[STRIP, COLS, F32]],
            eps: Constexpr[float] = 1e-6):
    scale = pto.rsqrt(pto.rowmean(x * x) + eps)
    pto.store(out, x * scale * weight)


rng = np.random.default_rng(1)
x = rng.standard_normal((ROWS, COLS), dtype=np.float32)
weight = rng.standard_normal((1, COLS), dtype=np.float32)
y = np.zeros((ROWS, COLS), np.float32)

X = Tensor(data=x, shape=x.shape, dtype=F32)
W = Tensor(data=weight, shape=weight.shape, dtype=F32)
Y = Tensor(data=y, shape=y.shape, dtype=F32)


@workload
def normalise_rows():
    for i in P(Dense[ROWS // STRIP]()):
        rows = slice(i * STRIP, (i + 1) * STRIP)
        rmsnorm[i](x=X[rows], weight=W, out=Y[rows])


program = normalise_rows().dispatch(DispatchPolicy.round_robin(8)).compile(target="cpu_sim")
program.execute()
program.synchronize()

expected = x / np.sqrt(np.mean(x * x, axis=1, keepdims=True) + np.float32(1e-6)) * weight
np.testing.assert_allclose(y, expected, rtol=2e-6, atol=1e-6)       # a mean of 4096, then three roundings

stats = program.stats
print(f"rmsnorm {ROWS}x{COLS}: equals NumPy; {stats.total_cycles:,} cycles on 8 workers, "
      f"{stats.execute_time_ms:.1f} ms here, compiled in {stats.compile_time_ms:.0f} ms")
