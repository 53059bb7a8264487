"""The five kernels whose emitted source is kept in tests/golden/ascend for review."""

import math

from pto_wsp import DType, In, InOut, Out, Scalar, Tile, kernel, pto

F16, F32 = DType.F16, DType.F32


@kernel
def rmsnorm(x: In[Tile[64, 4096, F32]], weight: In[Tile[1, 4096, F32]], out: Out[Tile[64, 4096, F32]],
            eps: Scalar[F32]):
    scale = pto.rsqrt(pto.rowmean(x * x) + eps)
    pto.store(out, x * scale * weight)


@kernel
def online_softmax(x: In[Tile[16, 1024, F32]], high: InOut[Tile[16, 1, F32]], total: InOut[Tile[16, 1, F32]]):
    new_high = pto.maximum(high, pto.rowmax(x))
    shrink = pto.exp(high - new_high)
    pto.store(total, total * shrink + pto.rowsum(pto.exp(x - new_high)))
    pto.store(high, new_high)


@kernel
def gemm(a: In[Tile[128, 256, F16]], b: In[Tile[256, 128, F16]], c: InOut[Tile[128, 128, F32]]):
    pto.store(c, pto.matmul(a, b, acc=c))


@kernel
def attention(q: In[Tile[64, 128, F16]], k: In[Tile[64, 128, F16]], v: In[Tile[64, 128, F16]],
              out: Out[Tile[64, 128, F32]]):
    scores = pto.matmul(q, pto.transpose(k)) * (1 / math.sqrt(128))
    weights = pto.exp(scores - pto.rowmax(scores))
    pto.store(out, pto.matmul(pto.cast(weights, F16), v) / pto.rowsum(weights))


@kernel
def rotate(x: In[Tile[32, 128, F16]], cos: In[Tile[32, 64, F16]], sin: In[Tile[32, 64, F16]],
           out: Out[Tile[32, 128, F16]]):
    even, odd = pto.slice_even(x), pto.slice_odd(x)
    pto.store(out, pto.interleave(even * cos - odd * sin, odd * cos + even * sin))


KERNELS = (rmsnorm, online_softmax, gemm, attention, rotate)
