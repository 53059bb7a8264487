"""The stages of a few kernels as text, and what each step of the pipeline is there for.

After a change that is meant: `PTO_WSP_REWRITE_GOLDEN=1 pytest tests/lower/test_stages.py`, then read the diff.
"""

from __future__ import annotations

import os
import pathlib

import pytest

from pto_wsp import DType, In, InOut, Out, Scalar, Tile, kernel, pto
from pto_wsp.lower import jit, loops, simplify
from pto_wsp.lower.pipeline import GRAPH_STEPS, compile_kernel, simplified
from pto_wsp.lower.rules import RULES
from pto_wsp.trace.graph import check
from pto_wsp.trace.ops import OPS
from pto_wsp.trace.text import print_graph

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
F32, F16 = DType.F32, DType.F16


@kernel
def scale(x: In[Tile[2, 20, F16]], out: Out[Tile[2, 20, F16]], factor: Scalar[F16]):
    pto.store(out, x * factor)


@kernel
def rmsnorm(x: In[Tile[16, 128, F32]], weight: In[Tile[1, 128, F32]], out: Out[Tile[16, 128, F32]]):
    mean = pto.rowmean(x * x)
    pto.store(out, x * pto.rsqrt(mean + 1e-6) * weight)


@kernel
def softmax(x: In[Tile[8, 100, F32]], out: Out[Tile[8, 100, F32]]):
    weights = pto.exp(x - pto.rowmax(x))
    pto.store(out, weights / pto.rowsum(weights))


@kernel
def rope(
    x: In[Tile[16, 64, F32]], cos: In[Tile[16, 32, F32]], sin: In[Tile[16, 32, F32]], out: Out[Tile[16, 64, F32]]
):
    even, odd = pto.slice_even(x), pto.slice_odd(x)
    pto.store(out, pto.interleave(even * cos - odd * sin, even * sin + odd * cos))


@kernel
def attention(
    q: In[Tile[64, 64, F32]],
    k: In[Tile[64, 64, F32]],
    v: In[Tile[64, 64, F32]],
    high: InOut[Tile[64, 1, F32]],
    total: InOut[Tile[64, 1, F32]],
    out: InOut[Tile[64, 64, F32]],
):
    scores = pto.matmul(q, pto.transpose(k)) * 0.125
    new_high = pto.maximum(high, pto.rowmax(scores))
    weights = pto.exp(scores - new_high)
    shrink = pto.exp(high - new_high)
    pto.store(total, total * shrink + pto.rowsum(weights))
    pto.store(out, out * shrink + pto.matmul(weights, v))
    pto.store(high, new_high)


@pytest.mark.parametrize("which", [rmsnorm, softmax, rope, attention], ids=lambda k: k.name)
def test_stages_read_as_before(which):
    compiled = compile_kernel(which.graph)
    same_as_golden(f"{which.name}.txt", f"{print_graph(which.graph, comments=False)}\n\n{compiled.loops}")


def test_llvm_of_a_small_kernel_reads_as_before():
    same_as_golden("scale.ll", compile_kernel(scale.graph, target=jit.Target(cpu="x86-64-v3")).ir)


@pytest.mark.parametrize("body", [lambda x: x + 1.0, pto.exp, lambda x: pto.gelu(x) * pto.tanh(x)])
def test_text_does_not_grow_with_the_tile(body):
    def lines(cols):
        def wide(x: In[Tile[4, cols, F32]], out: Out[Tile[4, cols, F32]]):
            pto.store(out, body(x))

        return compile_kernel(kernel(wide).graph).ir.count("\n")

    assert lines(256) == lines(2048)


def same_as_golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("PTO_WSP_REWRITE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text(), f"{path} differs; see the top of this file"


def test_every_op_has_a_rule():
    assert RULES.keys() == OPS.keys()


def names(graph):
    return [n.op.name for n in graph.nodes if n.op.name not in ("param", "scalar_param", "constant")]


def traced(body, dtype=F32):
    def run(x, y, out):
        body(x, y, out)

    tile = Tile[8, 16, dtype]
    run.__annotations__ = {"x": In[tile], "y": InOut[tile], "out": Out[tile]}
    return kernel(run).graph


@pytest.mark.parametrize(
    "body, left",
    [
        (lambda x, y, out: pto.store(out, pto.neg(pto.neg(x))), ["load", "store"]),
        (lambda x, y, out: pto.store(out, pto.cast(x, F32) * 1.0), ["load", "store"]),
        (lambda x, y, out: pto.store(out, pto.transpose(pto.transpose(x))), ["load", "store"]),
        (lambda x, y, out: pto.store(out, (x + y) * (x + y)), ["load", "load", "add", "mul", "store"]),
        (lambda x, y, out: (pto.exp(x), pto.store(out, x)), ["load", "store"]),
        (lambda x, y, out: (pto.store(out, x), pto.store(out, y)), ["load", "store"]),
    ],
)
def test_simplified(body, left):
    graph = simplified(traced(body))
    check(graph)
    assert names(graph) == left


@pytest.mark.parametrize(
    "body",
    [
        lambda x, y, out: (pto.store(y, x), pto.store(out, pto.load(y)), pto.store(y, x + x)),  # a load in between
        lambda x, y, out: pto.store(out, x - x),  # inf - inf is no 0
        lambda x, y, out: pto.store(out, x + 0.0),  # -0 + 0 is 0
        lambda x, y, out: pto.store(out, x * 0.0),
    ],
)
def test_what_must_stay(body):
    graph = traced(body)
    assert names(simplified(graph)) == names(graph)


def test_constants_that_are_equal_numbers_stay_apart():
    """0.0 == -0.0, and 1 / them is not."""
    graph = simplify.share(traced(lambda x, y, out: (pto.store(out, x / 0.0), pto.store(y, x / -0.0))))
    assert sorted(repr(n.attrs["value"]) for n in graph.nodes if n.op.name == "constant") == ["-0.0", "0.0"]


def test_observers_see_every_step():
    seen = []
    simplified(rmsnorm.graph, lambda step, graph: seen.append(step))
    assert seen == [step.__name__ for step in GRAPH_STEPS]


def nests(body, dtype=F32):
    return compile_kernel(traced(body, dtype)).loops.nests


def test_a_chain_of_row_ops_is_one_loop():
    (nest,) = nests(lambda x, y, out: pto.store(out, (x - pto.rowmean(x)) * pto.rowmax(y)))
    assert len(nest.stages) == 2


def test_columns_need_a_loop_of_their_own():
    assert len(nests(lambda x, y, out: pto.store(out, x - pto.colsum(y)))) == 2


def test_a_product_is_stored_where_it_goes():
    def run(a, b, out):
        pto.store(out, pto.matmul(a, b))

    run.__annotations__ = {"a": In[Tile[8, 16, F32]], "b": In[Tile[16, 8, F32]], "out": Out[Tile[8, 8, F32]]}
    (nest,) = compile_kernel(kernel(run).graph).loops.nests
    assert isinstance(nest, loops.WholeNest) and nest.store is not None
