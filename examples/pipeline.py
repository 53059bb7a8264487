"""Prefill, quantise, decode: three processes, two channels, staging buffers between them.

A prompt of 4096 tokens (model width 1024, 8 heads of 128) is projected to keys and values, 128 tokens of a head at a
time; they are quantised to int8 with a scale per token and kept as a cache; and 16 queries per head attend to each part
of the cache as soon as it is there. The channels say which part is ready; the data is in tensors. A channel of depth d
needs d + 2 staging buffers: one being written, d waiting, one being read. Which d is enough, and whether a second
process that quantises helps, is asked of the clock: prefill comes in bursts, and four places in the channel smooth them
as well as a second process does, which idles most of the time. Without places, each token's latency is paid by all.
"""

import math
import time

import numpy as np

from pto_wsp import DType, In, InOut, Out, Tensor, Tile, for_each, kernel, pto, task
from pto_wsp.csp import Channel, connect, consume, process, replicate, send

TOKENS, MODEL, HEADS, D, CHUNK, QUERIES = 4096, 1024, 8, 128, 128, 16
PARTS = TOKENS // CHUNK * HEADS  # part i is chunk i // HEADS of head i % HEADS
F32, I8 = DType.F32, DType.I8


@kernel
def project(x: In[Tile[CHUNK, MODEL, F32]], wk: In[Tile[MODEL, D, F32]], wv: In[Tile[MODEL, D, F32]],
            k: Out[Tile[CHUNK, D, F32]], v: Out[Tile[CHUNK, D, F32]]):
    pto.store(k, pto.matmul(x, wk))
    pto.store(v, pto.matmul(x, wv))


@kernel
def quantise(k: In[Tile[CHUNK, D, F32]], v: In[Tile[CHUNK, D, F32]], k8: Out[Tile[CHUNK, D, I8]],
             v8: Out[Tile[CHUNK, D, I8]], k_scale: Out[Tile[CHUNK, 1, F32]], v_scale: Out[Tile[CHUNK, 1, F32]]):
    for wide, narrow, scale in ((k, k8, k_scale), (v, v8, v_scale)):
        step = pto.maximum(pto.rowmax(pto.abs(wide)), 1e-20) * (1 / 127)
        pto.store(scale, step)
        pto.store(narrow, pto.cast(pto.round(wide / step), I8))


@kernel
def attend(q: In[Tile[QUERIES, D, F32]], k8: In[Tile[CHUNK, D, I8]], v8: In[Tile[CHUNK, D, I8]],
           k_scale: In[Tile[CHUNK, 1, F32]], v_scale: In[Tile[CHUNK, 1, F32]],
           high: InOut[Tile[QUERIES, 1, F32]], total: InOut[Tile[QUERIES, 1, F32]], out: InOut[Tile[QUERIES, D, F32]]):
    """One step of the online softmax; `out` stays a weighted mean, so that no division is left for the end."""
    k, v = pto.cast(k8, F32) * k_scale, pto.cast(v8, F32) * v_scale
    scores = pto.matmul(q, pto.transpose(k)) * (1 / math.sqrt(D))
    new_high = pto.maximum(high, pto.rowmax(scores))
    weights, kept = pto.exp(scores - new_high), pto.exp(high - new_high) * total
    new_total = kept + pto.rowsum(weights)
    pto.store(out, (out * kept + pto.matmul(weights, v)) / new_total)
    pto.store(total, new_total)
    pto.store(high, new_high)


rng = np.random.default_rng(4096)
x = rng.standard_normal((TOKENS // CHUNK, CHUNK, MODEL), dtype=np.float32)
wk, wv = (rng.standard_normal((HEADS, MODEL, D), dtype=np.float32) / np.float32(MODEL) ** 0.5 for _ in range(2))
q = rng.standard_normal((HEADS, QUERIES, D), dtype=np.float32)
k8, v8 = (np.zeros((TOKENS // CHUNK, HEADS, CHUNK, D), np.int8) for _ in range(2))
k_scale, v_scale = (np.zeros((TOKENS // CHUNK, HEADS, CHUNK, 1), np.float32) for _ in range(2))
high, total, out = (np.zeros((HEADS, QUERIES, n), np.float32) for n in (1, 1, D))

X, WK, WV, Q, KS, VS, HIGH, TOTAL, OUT = (
    Tensor(a, a.shape, F32) for a in (x, wk, wv, q, k_scale, v_scale, high, total, out)
)
K8, V8 = Tensor(k8, k8.shape, I8), Tensor(v8, v8.shape, I8)


def pipeline(depth, quantisers=1):
    """The program, with channels of that depth."""
    projected, cached = Channel("projected", depth), Channel("cached", depth)
    buffers = depth + 1 + quantisers
    K, V = (Tensor(None, (buffers, CHUNK, D), F32) for _ in range(2))

    def prefill(i):
        chunk, head = i // HEADS, i % HEADS
        given = {"x": X[chunk], "wk": WK[head], "wv": WV[head], "k": K[i % buffers], "v": V[i % buffers]}
        return send(projected, task(project, [i], given))

    def part(i):
        chunk, head = i // HEADS, i % HEADS
        return {"k8": K8[chunk][head], "v8": V8[chunk][head], "k_scale": KS[chunk][head], "v_scale": VS[chunk][head]}

    def narrow(i):
        return send(cached, task(quantise, [i], {"k": K[i % buffers], "v": V[i % buffers], **part(i)}))

    def decode(i):
        head = i % HEADS
        state = {"q": Q[head], "high": HIGH[head], "total": TOTAL[head], "out": OUT[head]}
        return task(attend, [i], {**part(i), **state})

    quantiser = process("quantise").consumes(projected).produces(cached).body(consume(projected, narrow))
    return connect(
        [
            process("prefill").produces(projected).body(for_each(PARTS, prefill)),
            *(replicate(quantiser, quantisers) if quantisers > 1 else [quantiser]),
            process("decode").consumes(cached).body(consume(cached, decode)),
        ],
        [projected, cached],
    ).compile()


def attention():
    """The same in NumPy: with the quantised cache, and with the exact one."""
    flat = x.reshape(TOKENS, MODEL)
    exact, rough = [], []
    for head in range(HEADS):
        k, v = flat @ wk[head], flat @ wv[head]
        for results, keys, values in ((exact, k, v), (rough, quantised(k), quantised(v))):
            scores = q[head] @ keys.T / math.sqrt(D)
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            results.append(weights @ values / weights.sum(axis=1, keepdims=True))
    return np.array(exact), np.array(rough)


def quantised(a):
    step = np.maximum(np.abs(a).max(axis=1, keepdims=True), 1e-20) / 127
    return np.round(a / step) * step


# Cycles of a device whose matrix unit does 8192 products per cycle, whose vector unit works on 32 numbers. The first
# head of a chunk waits for the layer before to deliver the chunk: work comes in bursts of 8 parts.
LATENCY = "__pto_wsp_channel_latency_cycles"
model = {
    "project": lambda t: 2 * CHUNK * MODEL * D // 8192 + (t.params[0] % HEADS == 0).where(32_768, 0),
    "quantise": 2 * 6 * CHUNK * D // 32,
    "attend": 2 * QUERIES * CHUNK * D // 8192 + 4 * CHUNK * D // 32 + 6 * QUERIES * CHUNK // 32,
}
print("quantise   depth   cycles with latency 0      2,000   prefill waits   at most waiting")
for quantisers in (1, 2):
    for depth in (0, 1, 2, 4, 8):
        program, found = pipeline(depth, quantisers), []
        for latency in (0, 2_000):
            program.set_symbol_u64(LATENCY, latency)
            found.append(program.simulate(cycles=model))
        now, late = found
        full = now.channels[0].full_cycles / now.total_cycles
        print(f"{quantisers} process{depth:7}{now.total_cycles:24,}{late.total_cycles:11,}{full:16.0%}"
              f"{now.channels[0].high_water:18}")

program = pipeline(depth=4)
high[:] = -np.inf
begin = time.perf_counter()
program.execute()
program.synchronize()
spent = time.perf_counter() - begin
exact, rough = attention()
np.testing.assert_allclose(out, rough, rtol=2e-3, atol=2e-4)
assert np.abs(out - exact).max() < 0.02
stats = program.stats
print(f"{stats.task_count} tasks of {', '.join(stats.lanes)}: the result equals NumPy; "
      f"{stats.total_cycles:,} cycles by operations, {spent * 1e3:.0f} ms here")
