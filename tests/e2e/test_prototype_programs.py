"""Programs in the style of those that circulate for the prototype: decorators bare and called, positional arguments,
functional trees, ptoisa kernels, keyed dispatch, `alloc`-free softmax and norm kernels, several runs."""

import numpy as np
import pytest

from pto_wsp import (
    Dense,
    DenseDyn,
    DispatchPolicy,
    DType,
    In,
    InOut,
    Out,
    P,
    Scalar,
    TaskWindow,
    Tensor,
    Tile,
    WindowMode,
    Workload,
    combine,
    for_each,
    kernel,
    parallel_for,
    pto,
    sequential,
    task,
    workload,
)
from pto_wsp.scalar_expr import axis


def tensor(array, dtype=DType.F32):
    return Tensor(data=array, shape=array.shape, dtype=dtype)


def finish(program):
    program.execute()
    program.synchronize()
    stats = program.stats() if callable(program.stats) else program.stats
    return int(getattr(stats, "total_cycles", 0) or 0)


def test_softmax_kernel_over_a_batch():
    @kernel
    def softmax_tile(x: In[Tile[8, 32, DType.F32]], y: Out[Tile[8, 32, DType.F32]]):
        shifted = pto.sub(x, pto.rowmax(x))
        e = pto.exp(shifted)
        pto.store(y, pto.div(e, pto.rowsum(e)))

    x = np.random.default_rng(0).standard_normal((4, 3, 8, 32)).astype(np.float32)
    y = np.zeros_like(x)
    X, Y = tensor(x), tensor(y)

    @workload
    def all_tiles():
        for b, t in P(Dense[4](), Dense[3]()):
            softmax_tile[b, t](x=X[b][t], y=Y[b][t])

    total = finish(all_tiles().dispatch(DispatchPolicy.round_robin(4)).compile(target="cpu_sim"))
    e = np.exp(x - x.max(-1, keepdims=True))
    np.testing.assert_allclose(y, e / e.sum(-1, keepdims=True), rtol=1e-5, atol=1e-6)
    assert total == 3 * (256 + 8 + 256 + 256 + 8 + 256 + 256)


def test_matmul_chain_in_f16():
    @kernel(num_warps=8, num_stages=3)
    def mm(a: In[Tile[16, 32, DType.F16]], b: In[Tile[32, 16, DType.F16]], c: Out[Tile[16, 16, DType.F32]]):
        pto.store(c, pto.matmul(a, b))

    assert mm.options["num_warps"] == 8
    a = np.random.default_rng(1).standard_normal((5, 16, 32)).astype(np.float16)
    b = np.random.default_rng(2).standard_normal((5, 32, 16)).astype(np.float16)
    c = np.zeros((5, 16, 16), np.float32)
    A, B, C = tensor(a, DType.F16), tensor(b, DType.F16), tensor(c)

    @workload(type_check=True)
    def products():
        for i in P(5):
            mm[i](A[i], B[i], C[i])

    w = products()
    assert not w.has_type_errors() and w.type_errors == []
    assert finish(w.compile()) == 5 * (512 + 512 + 16 * 32 * 16 + 256)
    np.testing.assert_allclose(c, a.astype(np.float32) @ b.astype(np.float32), rtol=1e-5, atol=1e-4)


def test_functional_tree_and_node_constructor():
    @kernel
    def blur(img: In[Tile[1, 8, DType.F32]], acc: InOut[Tile[1, 8, DType.F32]]):
        pto.store(acc, pto.add(acc, img))

    image, result = np.arange(32, dtype=np.float32).reshape(2, 2, 1, 8), np.zeros((2, 1, 8), np.float32)
    IMAGE, R = tensor(image), tensor(result)
    work = parallel_for(
        Dense[2](),
        lambda r: for_each(
            Dense[2](),
            lambda c: Workload("task", kernel=blur, params=[r, c], resources={"img": IMAGE[r][c], "acc": R[r]}),
        ),
    )
    assert finish(work.compile()) == 4 * 32
    np.testing.assert_array_equal(result[:, 0], image.sum((1, 2)))


def test_accumulation_through_inout_over_a_sequential_loop():
    @kernel
    def accumulate(
        x: In[Tile[4, 16, DType.F32]], total: InOut[Tile[4, 16, DType.F32]], weight: Scalar[DType.F32] = 1.0
    ):
        pto.store(total, pto.add(total, pto.mul(x, weight)))

    x, total = np.random.default_rng(3).standard_normal((6, 4, 16)).astype(np.float32), np.zeros((4, 16), np.float32)
    X, T = tensor(x), tensor(total)

    @workload
    def sums():
        for s in P.seq(DenseDyn(6), name="steps"):
            accumulate[s](x=X[s], total=T, weight=0.5)

    program = sums().dispatch(DispatchPolicy.round_robin(4)).compile()
    assert finish(program) == 6 * 64 * 5
    np.testing.assert_allclose(total, 0.5 * x.sum(0), rtol=1e-5, atol=1e-6)
    total[:] = 0
    program.set_axis_sizes({"steps": 2})
    assert finish(program) == 2 * 64 * 5
    np.testing.assert_allclose(total, 0.5 * x[:2].sum(0), rtol=1e-5, atol=1e-6)


def test_expression_keys():
    @kernel
    def touch(x: InOut[Tile[1, 5, DType.F32]]):
        pto.store(x, pto.add(x, 1.0))

    x = np.zeros((12, 1, 5), np.float32)
    X = tensor(x)

    @workload
    def touches():
        for b in P(12):
            touch[b](x=X[b])

    one = 15
    for key, fullest in (
        (axis("b"), 3),
        (lambda t: t.get("b") // 3, 3),
        (lambda t: (t.get("b") > 5).where(0, 1), 6),
        (lambda t: (t.params[0].cast_u64() >> 1) ^ t.tags["salt"], 4),
        (lambda t: 1 + t.get("b"), 3),
    ):
        program = touches().dispatch(DispatchPolicy.dispatch_by(key, num_aicpus=4)).compile()
        assert finish(program) == fullest * one
    assert (x == 5).all()


def test_top_k_of_expert_scores():
    @kernel
    def route(scores: In[Tile[1, 32, DType.F32]], chosen: Out[Tile[1, 4, DType.I32]]):
        pairs = pto.tsort32(pto.load(scores), pto.iota_u32(32))
        pto.store(chosen, pto.extract_topk_indices(pairs, 4))

    scores = np.random.default_rng(4).standard_normal((9, 1, 32)).astype(np.float32)
    chosen = np.zeros((9, 1, 4), np.int32)
    S, C = tensor(scores), tensor(chosen, DType.I32)

    @workload
    def routing():
        for token in P(9):
            route[token](scores=S[token], chosen=C[token])

    assert finish(routing().compile()) == 9 * (32 + 160 + 4)
    np.testing.assert_array_equal(chosen[:, 0], np.argsort(-scores[:, 0], axis=1, kind="stable")[:, :4])


def test_ptoisa_kernel():
    from pto_wsp import ptoisa, ptoisa_kernel

    @ptoisa_kernel
    def saxpy(x: In[Tile[4, 8, DType.F32]], y: InOut[Tile[4, 8, DType.F32]], a: Scalar[DType.F32] = 2.0):
        ptoisa.tstore(y, ptoisa.TADD(ptoisa.TMULS(ptoisa.tload(x), a), ptoisa.tload(y)))

    x, y = np.ones((4, 8), np.float32), np.full((4, 8), 3, np.float32)
    X, Y = tensor(x), tensor(y)

    @workload
    def one():
        saxpy(x=X, y=Y)

    assert finish(one().compile()) == 5 * 32
    assert (y == 5).all()


def test_two_stage_pipeline_of_workloads():
    @kernel
    def square(x: In[Tile[2, 8, DType.F32]], y: Out[Tile[2, 8, DType.F32]]):
        pto.store(y, pto.mul(x, x))

    x = np.random.default_rng(5).standard_normal((4, 2, 8)).astype(np.float32)
    middle, out = np.zeros_like(x), np.zeros_like(x)
    X, M, Y = tensor(x), tensor(middle), tensor(out)
    first = parallel_for(Dense[4](), lambda i: task(square, [i], {"x": X[i], "y": M[i]}))
    second = parallel_for(Dense[4](), lambda i: task(square, [i], {"x": M[i], "y": Y[i]}))
    both = sequential(first, second).dispatch(DispatchPolicy.round_robin(2))
    assert finish(both.compile()) == 2 * 2 * 48
    np.testing.assert_array_equal(out, x * x * (x * x))
    assert finish(combine(first, second).dispatch(DispatchPolicy.round_robin(8)).compile()) == 48


@pytest.mark.parametrize("window,expected", [(1, 8 * 48), (2, 4 * 48), (8192, 2 * 48)])
def test_window(window, expected):
    @kernel
    def square(x: In[Tile[2, 8, DType.F32]], y: Out[Tile[2, 8, DType.F32]]):
        pto.store(y, pto.mul(x, x))

    X, Y = tensor(np.ones((8, 2, 8), np.float32)), tensor(np.zeros((8, 2, 8), np.float32))

    @workload
    def planes():
        for i in P(8):
            square[i](x=X[i], y=Y[i])

    program = (
        planes()
        .dispatch(DispatchPolicy.round_robin(num_aicpus=4))
        .task_graph(window=TaskWindow(window, "tasks", WindowMode.STALL))
        .compile(target="cpu_sim")
    )
    assert finish(program) == expected
