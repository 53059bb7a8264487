"""The workload whose task generator and workers are kept in tests/golden/ascend for review."""

from pto_wsp import (
    DenseDyn,
    DispatchPolicy,
    DType,
    In,
    InOut,
    P,
    Ragged,
    Scalar,
    Sparse,
    Symbol,
    TaskWindow,
    Tensor,
    Tile,
    kernel,
    pto,
    slot_load_u64,
    workload,
)
from pto_wsp.scalar_expr import slot_u64

F32, I32 = DType.F32, DType.I32


def decode():
    """Attention over a ragged batch, with a choice by data: what a task generator looks like."""
    batch, heads, pages = 4, 2, 6
    q = Tensor(None, (batch, heads, 16), F32)
    cache = Tensor(None, (pages, heads, 8, 16), F32)
    out = Tensor(None, (batch, heads, 16), F32)
    flags = Tensor(None, (batch, 1), I32)
    lengths, used = Ragged(batch, [3, 1, 0, 2]), Sparse(batch, [0, 2, 3, 3, 5], [4, 1, 0, 2, 5])

    @kernel
    def attend(q: In[Tile[1, 16, F32]], page: In[Tile[8, 16, F32]], out: InOut[Tile[1, 16, F32]], scale: Scalar[F32]):
        pto.store(out, out + pto.colsum(page * q) * scale)

    @kernel
    def finish(x: InOut[Tile[2, 16, F32]]):
        pto.store(x, x * 0.5)

    @workload
    def paged_decode():
        for b in P(DenseDyn(batch), names=["b"]):
            slot_load_u64(0, flags, row=b)
            with P.when(slot_u64(0) != 0):
                for h in P(heads, names=["h"]):
                    for e in P.sel(used[b]):
                        row = slice(h, h + 1)
                        attend[b, h, e](q=q[b][row], page=cache[e][h], out=out[b][row], scale=Symbol("scale"))
            with P.otherwise():
                for t in P.seq(lengths[b]):
                    attend[b, t](q=q[b][0:1], page=cache[t][1], out=out[b][0:1], scale=0.125)
            finish[b](x=out[b])

    key = lambda t: t.get("b") * 2 + t.get("h")  # noqa: E731
    return paged_decode().dispatch(DispatchPolicy.affinity(key, 4)).task_graph(window=TaskWindow(64))
