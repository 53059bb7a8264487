"""One block of a Llama-style transformer: RMSNorm, QKV, RoPE, causal attention, SwiGLU; 512 positions, 1024 wide.

`block(x, weights)` returns the workload and its output; run as a program, it checks itself against `reference`, the
same forward pass in plain NumPy.
"""

import math

import numpy as np

from pto_wsp import (
    Dense, DispatchPolicy, DType, In, Out, P, Scalar, Tensor, Tile, kernel, pto, sequential, workload,
)

S, HIDDEN, HEADS, FFN = 512, 1024, 16, 2816
D = HIDDEN // HEADS             # numbers per head
T = 64                          # rows of a tile, and columns of a tile of weights
EPS = 1e-5
F32 = DType.F32


# ---- kernels -------------------------------------------------------------------------------------------------------

@kernel
def rmsnorm(x: In[Tile[T, HIDDEN, F32]], weight: In[Tile[1, HIDDEN, F32]], out: Out[Tile[T, HIDDEN, F32]]):
    pto.store(out, x * pto.rsqrt(pto.rowmean(x * x) + EPS) * weight)


@kernel
def project(x: In[Tile[T, HIDDEN, F32]], w: In[Tile[HIDDEN, D, F32]], out: Out[Tile[T, D, F32]]):
    pto.store(out, pto.matmul(x, w))


@kernel
def project_and_rotate(x: In[Tile[T, HIDDEN, F32]], w: In[Tile[HIDDEN, D, F32]], cos: In[Tile[T, D // 2, F32]],
                       sin: In[Tile[T, D // 2, F32]], out: Out[Tile[T, D, F32]]):
    y = pto.matmul(x, w)
    even, odd = pto.slice_even(y), pto.slice_odd(y)
    pto.store(out, pto.interleave(even * cos - odd * sin, odd * cos + even * sin))


@kernel
def attend(q: In[Tile[T, D, F32]], k: In[Tile[S, D, F32]], v: In[Tile[S, D, F32]], out: Out[Tile[T, D, F32]],
           first: Scalar[DType.I32]):
    """`first` is the position of the first query row; later positions are not seen."""
    scores = pto.matmul(q, pto.transpose(k)) * (1 / math.sqrt(D))
    query = pto.cast(pto.transpose(pto.iota_u32(T)), DType.I32) + first
    key = pto.cast(pto.iota_u32(S), DType.I32)
    scores = pto.select(key <= query, scores, -math.inf)
    weights = pto.exp(scores - pto.rowmax(scores))
    pto.store(out, pto.matmul(weights, v) / pto.rowsum(weights))


@kernel
def swiglu(x: In[Tile[T, HIDDEN, F32]], gate: In[Tile[HIDDEN, T, F32]], up: In[Tile[HIDDEN, T, F32]],
           out: Out[Tile[T, T, F32]]):
    pto.store(out, pto.silu(pto.matmul(x, gate)) * pto.matmul(x, up))


def project_and_add(depth: int):
    """The kernel residual + x @ w for x of `depth` columns."""
    @kernel
    def project_and_add(x: In[Tile[T, depth, F32]], w: In[Tile[depth, T, F32]], residual: In[Tile[T, T, F32]],
                        out: Out[Tile[T, T, F32]]):
        pto.store(out, pto.matmul(x, w, acc=residual))
    return project_and_add


attention_out, ffn_out = project_and_add(HIDDEN), project_and_add(FFN)


# ---- workloads -----------------------------------------------------------------------------------------------------

def at(i, size=T):
    return slice(i * size, (i + 1) * size)


@workload
def normalise(x, weight, out):
    for i in P(Dense[S // T]()):
        rmsnorm[i](x=x[at(i)], weight=weight, out=out[at(i)])


@workload
def project_heads(x, w, cos, sin, q, k, v):
    for h, i in P(Dense[HEADS](), Dense[S // T]()):
        project_and_rotate[h, i](x=x[at(i)], w=w["q"][:, at(h, D)], cos=cos[at(i)], sin=sin[at(i)], out=q[h, at(i)])
        project_and_rotate[h, i](x=x[at(i)], w=w["k"][:, at(h, D)], cos=cos[at(i)], sin=sin[at(i)], out=k[h, at(i)])
        project[h, i](x=x[at(i)], w=w["v"][:, at(h, D)], out=v[h, at(i)])


@workload
def attention(q, k, v, out):
    for h, i in P(Dense[HEADS](), Dense[S // T]()):
        attend[h, i](q=q[h, at(i)], k=k[h], v=v[h], out=out[at(i), at(h, D)], first=i * T)


@workload
def hidden_layer(x, gate, up, out):
    for i, j in P(Dense[S // T](), Dense[FFN // T]()):
        swiglu[i, j](x=x[at(i)], gate=gate[:, at(j)], up=up[:, at(j)], out=out[at(i), at(j)])


@workload
def add_to(kernel, x, w, residual, out):
    for i, j in P(Dense[S // T](), Dense[HIDDEN // T]()):
        kernel[i, j](x=x[at(i)], w=w[:, at(j)], residual=residual[at(i), at(j)], out=out[at(i), at(j)])


def block(x, weights):
    """The workload of one block over x [S, HIDDEN], and the array that it fills."""
    def tensor(array):
        return Tensor(data=array, shape=array.shape, dtype=F32)

    def empty(*shape):
        return Tensor(data=np.zeros(shape, np.float32), shape=shape, dtype=F32)

    X, w = tensor(x), {name: tensor(array) for name, array in weights.items()}
    cos, sin = map(tensor, rotations())
    normed, attended, middle, out = (empty(S, HIDDEN) for _ in range(4))
    q, k, v = (empty(HEADS, S, D) for _ in range(3))
    activated = empty(S, FFN)
    steps = sequential(
        normalise(X, w["norm1"], normed),
        project_heads(normed, w, cos, sin, q, k, v),
        attention(q, k, v, attended),
        add_to(attention_out, attended, w["o"], X, middle),
        normalise(middle, w["norm2"], normed),
        hidden_layer(normed, w["gate"], w["up"], activated),
        add_to(ffn_out, activated, w["down"], middle, out),
    )
    return steps, out.data


# ---- the same in NumPy ---------------------------------------------------------------------------------------------

def rotations():
    """cos and sin of position x frequency, [S, D / 2]."""
    angles = np.outer(np.arange(S), 10000.0 ** (-np.arange(0, D, 2) / D))
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def random_weights(seed: int):
    rng = np.random.default_rng(seed)
    shapes = {"q": (HIDDEN, HIDDEN), "k": (HIDDEN, HIDDEN), "v": (HIDDEN, HIDDEN), "o": (HIDDEN, HIDDEN),
              "gate": (HIDDEN, FFN), "up": (HIDDEN, FFN), "down": (FFN, HIDDEN)}
    weights = {name: rng.standard_normal(shape, dtype=np.float32) / np.float32(math.sqrt(shape[0]))
               for name, shape in shapes.items()}
    for norm in ("norm1", "norm2"):
        weights[norm] = 1 + rng.standard_normal((1, HIDDEN), dtype=np.float32) / 10
    return weights


def reference(x, w):
    def norm(x, weight):
        return x / np.sqrt(np.mean(x * x, axis=1, keepdims=True) + np.float32(EPS)) * weight

    def heads(x):
        return x.reshape(S, HEADS, D).transpose(1, 0, 2)

    def rotate(x):
        even, odd = x[..., 0::2], x[..., 1::2]
        return np.stack((even * cos - odd * sin, odd * cos + even * sin), axis=-1).reshape(x.shape)

    cos, sin = rotations()
    y = norm(x, w["norm1"])
    q, k, v = rotate(heads(y @ w["q"])), rotate(heads(y @ w["k"])), heads(y @ w["v"])
    scores = q @ k.transpose(0, 2, 1) / np.float32(math.sqrt(D)) + np.triu(np.full((S, S), -np.inf, np.float32), 1)
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    x = x + (scores / scores.sum(axis=-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(S, HIDDEN) @ w["o"]
    y = norm(x, w["norm2"])
    gate = y @ w["gate"]
    return x + (gate / (1 + np.exp(-gate)) * (y @ w["up"])) @ w["down"]


if __name__ == "__main__":
    x = np.random.default_rng(5).standard_normal((S, HIDDEN), dtype=np.float32)
    weights = random_weights(6)
    steps, y = block(x, weights)
    program = steps.dispatch(DispatchPolicy.round_robin(24)).compile(target="cpu_sim")
    program.execute()
    program.synchronize()

    np.testing.assert_allclose(y, reference(x, weights), rtol=1e-4, atol=1e-4)     # |y| about 1, sums up to 2816 long

    stats = program.stats
    print(f"llama block {S}x{HIDDEN}: equals NumPy; {stats.task_count} tasks, {stats.total_cycles:,} cycles on 24 "
          f"workers, {stats.execute_time_ms:.1f} ms here, compiled in {stats.compile_time_ms:.0f} ms")
