"""A fused kernel against the same kernel one op at a time: the same bits, since each op's value is defined.

The other tests compare with NumPy, where exp and sums agree to a few ULPs only, so a chain of them cannot be compared.
Here the reference runs every op as machine code of its own, through memory, and rounds its result to the tile.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pto_wsp.trace import interpret
from pto_wsp.trace.graph import KernelGraph, Node, Param, build
from pto_wsp.trace.ops import OPS
from pto_wsp.trace.tile import pto
from pto_wsp.types import DType
from tests import strategies as draws
from tests.lower.test_pipeline import run

FLOATS = (DType.F32, DType.F16, DType.BF16, DType.F64)
FUSED = tuple(op for op in draws.COMPUTING if op.name not in ("tsort32", "extract_topk_indices"))


def alone(node: Node) -> KernelGraph:
    """A kernel that computes one op of another kernel, each of its tiles a parameter; a scalar becomes a 1x1 tile."""
    handles: list[Node] = []
    values: list[Node] = []
    loads: list[Node] = []
    for i, operand in enumerate(node.operands):
        name = "param" if operand.is_tile else "scalar_param"
        handles.append(build(OPS[name], (), {"type": operand.type, "index": i})[-1])
        values.append(handles[-1])
        if operand.is_tile:
            values[-1] = build(OPS["load"], (handles[-1],), {"at": "here"})[-1]
            loads.append(values[-1])
    made = [Node(node.op, tuple(values), node.type, node.attrs)]
    if not node.is_tile:
        made += build(OPS["broadcast"], made, {"shape": (1, 1)})
    out = build(OPS["param"], (), {"type": made[-1].tile, "index": len(handles)})[-1]
    made += build(OPS["store"], (out, made[-1]))
    params = [Param(f"p{i}", "in", h) for i, h in enumerate(handles)] + [Param("out", "out", out)]
    return KernelGraph(f"one_{node.op.name}", tuple(params), (*handles, out, *loads, *made))


def computed(node: Node, operands: Any, shape: Any) -> Any:
    """The value of one op by machine code."""
    graph = alone(node)
    tiles = [np.array(x, order="C") for x, o in zip(operands, node.operands, strict=True) if o.is_tile]
    scalars = [x.item() for x, o in zip(operands, node.operands, strict=True) if not o.is_tile]
    out = np.zeros(shape or (1, 1), graph.params[-1].type.dtype.numpy)
    full = [(p.node.tile.rows, p.node.tile.cols) for p in graph.tile_params]
    run(graph, [*tiles, out], scalars, tail=[a.shape for a in (*tiles, out)] != full)
    return out.reshape(shape)


@pytest.fixture
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter, its inexact ops done by machine code."""
    exactly = interpret.apply

    def apply(node: Node, operands: Any, shape: Any = None) -> Any:
        if node.op.tolerance != 0 and shape is not None:
            return computed(node, operands, shape)
        return exactly(node, operands, shape)

    monkeypatch.setattr(interpret, "apply", apply)


@pytest.mark.usefixtures("one_at_a_time")
@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_fused_kernel_is_its_ops_one_after_another(data: Any) -> None:
    graph = data.draw(draws.graphs(ops=FUSED, dtypes=FLOATS, chain=True))
    tail = data.draw(st.booleans())
    args = data.draw(draws.arguments(graph, tail=tail))
    want, got = args.copies(), [a.copy() for a in args.arrays]
    interpret.interpret(graph, want, args.scalars)
    run(graph, got, args.scalars, tail)
    for param, a, b in zip(graph.tile_params, want, got, strict=True):
        exact = np.zeros(a.shape, np.int64)
        wrong = draws.differs(b, a, exact, np.full(a.shape, -1.0))
        assert not wrong.any(), f"{param.name}: {a[wrong][0]!r} one at a time, {b[wrong][0]!r} fused\n{graph}"


def test_zero_by_zero_of_constants():
    graph = draws.traced(lambda x: pto.div(pto.iota_u32(2), pto.iota_u32(2)), (1, 1), out=(1, 2, DType.U32))
    out = np.full((1, 2), 7, np.uint32)
    run(graph, [np.zeros((1, 1), np.float32), out], [], False)
    assert out.tolist() == [[0, 1]]
