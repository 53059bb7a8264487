"""Batched matrix product, f16 inputs and f32 accumulation: 8 times 1024 x 1024 x 1024.

Each task multiplies 128 x 256 by 256 x 128 and adds to its tile of C. The steps along K follow each other (`P.seq`);
within a step every tile of every matrix is independent (`P`).
"""

import numpy as np

from pto_wsp import Dense, DispatchPolicy, DType, In, InOut, P, Tensor, Tile, kernel, pto, workload

BATCH, SIZE = 8, 1024
M, N, K = 128, 128, 256         # one task


@kernel
def multiply_add(a: In[Tile[M, K, DType.F16]], b: In[Tile[K, N, DType.F16]], c: InOut[Tile[M, N, DType.F32]]):
    pto.store(c, pto.matmul(a, b, acc=c))


rng = np.random.default_rng(3)
a = rng.standard_normal((BATCH, SIZE, SIZE), dtype=np.float32).astype(np.float16)
b = rng.standard_normal((BATCH, SIZE, SIZE), dtype=np.float32).astype(np.float16)
c = np.zeros((BATCH, SIZE, SIZE), np.float32)

A = Tensor(data=a, shape=a.shape, dtype=DType.F16)
B = Tensor(data=b, shape=b.shape, dtype=DType.F16)
C = Tensor(data=c, shape=c.shape, dtype=DType.F32)


@workload
def gemm():
    for k in P.seq(Dense[SIZE // K]()):
        for n, i, j in P(Dense[BATCH](), Dense[SIZE // M](), Dense[SIZE // N]()):
            rows, cols, depth = slice(i * M, (i + 1) * M), slice(j * N, (j + 1) * N), slice(k * K, (k + 1) * K)
            multiply_add[n, i, j](a=A[n, rows, depth], b=B[n, depth, cols], c=C[n, rows, cols])


program = gemm().dispatch(DispatchPolicy.round_robin(24)).compile(target="cpu_sim")
program.execute()
program.synchronize()

expected = np.matmul(a.astype(np.float32), b.astype(np.float32))
np.testing.assert_allclose(c, expected, rtol=1e-4, atol=1e-3)       # sums of 1024 products, |c| about 32

stats = program.stats
flops = 2 * BATCH * SIZE**3
print(f"gemm {BATCH}x{SIZE}^3 f16 -> f32: equals NumPy; {stats.total_cycles:,} cycles on 24 workers, "
      f"{stats.execute_time_ms:.1f} ms here = {flops / stats.execute_time_ms / 1e6:.1f} GFLOP/s, "
      f"compiled in {stats.compile_time_ms:.0f} ms")
