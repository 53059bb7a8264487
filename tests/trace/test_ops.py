"""The op table: every row is complete, and its type rule, reference and documentation agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pto_wsp.errors import OperandError
from pto_wsp.trace.extents import RULES
from pto_wsp.trace.graph import build
from pto_wsp.trace.interpret import apply, interpret
from pto_wsp.trace.ops import ALIASES, INTERNAL, OPS, TABLE, Op
from pto_wsp.trace.tile import pto
from pto_wsp.types import DType, ScalarType, TileType
from tests import strategies as draws
from tests.strategies import traced

MEMORY = {"param", "scalar_param", "load", "store", "constant", "add_cycles"}      # the interpreter does these itself


def test_names_are_unique() -> None:
    assert len(OPS) == len(TABLE)
    assert all(op.name.isidentifier() for op in TABLE)
    assert INTERNAL <= OPS.keys() and set(ALIASES.values()) <= OPS.keys() and not ALIASES.keys() & OPS.keys()


@pytest.mark.parametrize("op", TABLE, ids=str)
def test_a_row_is_complete(op: Op) -> None:
    assert op.doc and op.doc[-1] in ".…", "a row is documented in sentences"
    assert (op.reference is None) == (op.name in MEMORY)
    assert not set(op.operand_names) & op.attrs.keys()
    fewest, most = op.arity
    assert [n.endswith("?") for n in op.operands.split()] == [False] * fewest + [True] * (most - fewest)
    assert op.tolerance == "sum" or isinstance(op.tolerance, int) and 0 <= op.tolerance <= 2
    assert most == 0 or op.infer in RULES, "extents.py says how valid extents pass through the op"


@pytest.mark.parametrize("op", TABLE, ids=str)
def test_a_row_is_callable_and_says_what_it_does(op: Op) -> None:
    if op.name not in INTERNAL:
        assert getattr(pto, op.name).__doc__ == op.doc


@pytest.mark.parametrize("op", draws.COMPUTING, ids=str)
@settings(max_examples=25)
@given(data=st.data())
def test_reference_makes_what_the_type_rule_says(op: Op, data: Any) -> None:
    """Shape and dtype of the result, for random operands; what a row accepts it can compute."""
    graph = data.draw(draws.one_op_graphs(op))
    args = data.draw(draws.arguments(graph))
    seen: dict[int, Any] = {}
    interpret(graph, args.arrays, args.scalars, lambda node, value: seen.__setitem__(id(node), value))
    for node in graph.nodes:
        if node.op is op:
            assert seen[id(node)].shape == (node.tile.rows, node.tile.cols)
            assert seen[id(node)].dtype == node.tile.dtype.numpy


@pytest.mark.parametrize("op", [op for op in draws.COMPUTING if op.arity[0]], ids=str)
def test_wrong_operands_are_refused(op: Op) -> None:
    tile, other = TileType(3, 5, DType.F32), TileType(4, 7, DType.F64)
    attrs = {"shape": (3, 5), "dtype": DType.F32, "by": "user", "k": 1, "cols": 2}
    attrs = {k: v for k, v in attrs.items() if k in op.attrs}
    for types in ([], [tile] * 5, [None], [other, tile][:op.arity[0]] if op.arity[0] == 2 else [None]):
        with pytest.raises(OperandError):
            op.infer(op, types, attrs)


@pytest.mark.parametrize("body, params, message", [
    (pto.add, [(4, 8), (3, 8)], r"\[4, 8\] and \[3, 8\] do not broadcast: rows 4 and 3"),
    (pto.add, [(4, 8), (4, 8, DType.F16)], r"one dtype; .*pto.cast\(x, DType.F32\)"),
    (pto.add, [(4, 8), (4, 1, DType.I32)], "mixes float and integer"),
    (pto.exp, [(4, 8, DType.I32)], "exp needs float elements; got i32"),
    (pto.rowmean, [(4, 8, DType.I32)], "float"),
    (pto.matmul, [(4, 8), (7, 3)], "K is 8 on the left and 7 on the right"),
    (pto.matmul, [(4, 8), (8, 3, DType.F16)], "one dtype"),
    (pto.matmul, [(4, 8), (8, 3), (4, 4)], "acc of type tile<4x3xf32>"),
    (pto.rowmul, [(4, 8), (1, 8)], r"vec of shape \[rows, 1\] = \[4, 1\]"),
    (pto.colmul, [(4, 8), (4, 1)], r"vec of shape \[1, cols\] = \[1, 8\]"),
    (pto.interleave, [(4, 8), (4, 7)], "two tiles of one type"),
    (pto.select, [(4, 8), (4, 8), (4, 8)], "u8 mask"),
    (lambda x: pto.slice_even(x), [(4, 1)], "at least 2 columns"),
    (lambda x: pto.broadcast(x, (4, 9)), [(4, 8)], "does not broadcast"),
    (lambda x: pto.broadcast(x, (0, 9)), [(1, 1)], "at least"),
    (lambda x: pto.broadcast(x, 9), [(1, 1)], "two ints"),
    (lambda x: pto.cast(x, "f32"), [(1, 1)], "DType.F32; got 'f32'"),
    (lambda x: pto.tsort32(x, x), [(1, 32)], "tile<1x32xu32>"),
    (lambda x: pto.extract_topk_indices(x, 33), [(1, 64)], "k from 1 to 32; got 33"),
    (lambda x: pto.iota_u32(0), [(1, 1)], "at least 1; got 0"),
    (lambda x: pto.rowsum(pto.constant(1.0)), [(1, 1)], "needs a tile as x; got f32"),
    (lambda x: pto.add(1, 2), [(1, 1)], "only numbers"),
    (lambda x: pto.select(x > 0, 1.0, -1.0), [(1, 1)], "have no dtype"),
    (lambda x: pto.add(x, 2.5 + 1e300), [(1, 1, DType.I32)], "does not fit i32"),
    (lambda x: pto.add(x, float("nan")), [(1, 1, DType.I32)], "nan has no i32 value"),
])
def test_the_message_names_the_cause(body: Any, params: Any, message: str) -> None:
    with pytest.raises(OperandError, match=message):
        traced(body, *params)


@pytest.mark.parametrize("name, x, expected", [
    ("relu", [-1, -0.0, 2, np.nan], [0, 0.0, 2, np.nan]),
    ("rsqrt", [0.0, -0.0, -1, 4], [np.inf, -np.inf, np.nan, 0.5]),
    ("exp", [np.inf, -np.inf, np.nan, 0], [np.inf, 0, np.nan, 1]),
    ("log", [0.0, -1, np.inf, 1], [-np.inf, np.nan, np.inf, 0]),
    ("tanh", [np.inf, -np.inf, 0, 1], [1, -1, 0, np.tanh(1)]),
    ("sigmoid", [np.inf, -np.inf, 0, -1000], [1, 0, 0.5, 0]),
    ("erf", [np.inf, -np.inf, -0.0, 0.5], [1, -1, -0.0, 0.5204998778130465]),
    ("gelu", [np.inf, -np.inf, 0, 1], [np.inf, -0.0, 0, 0.8411919906082768]),
    ("silu", [np.inf, -np.inf, 0, 1], [np.inf, -0.0, 0, 0.7310585786300049]),
    ("round", [0.5, 1.5, -0.5, 2.5], [0, 2, -0.0, 2]),
    ("floor", [-0.5, 1.5, -0.0, np.inf], [-1, 1, -0.0, np.inf]),
    ("reciprocal", [0.0, -0.0, 3, np.inf], [np.inf, -np.inf, 1 / 3, 0]),
])
def test_references_at_the_edges(name: str, x: list[float], expected: list[float]) -> None:
    node = one_node(name, TileType(1, 4, DType.F64))
    got = apply(node, [np.array([x])])[0]
    np.testing.assert_allclose(got, expected, rtol=1e-15)
    np.testing.assert_array_equal(np.signbit(got) & (got == 0), np.signbit(expected) & (np.array(expected) == 0))


def one_node(name: str, *types: TileType) -> Any:
    handles = [build(OPS["param"], (), {"type": t, "index": i})[-1] for i, t in enumerate(types)]
    return build(OPS[name], [build(OPS["load"], (h,), {"at": "here"})[-1] for h in handles])[-1]


def test_sort_is_stable_and_puts_nan_last() -> None:
    node = one_node("tsort32", TileType(1, 32, DType.F32), TileType(1, 32, DType.U32))
    scores = np.zeros((1, 32), np.float32)
    scores[0, :6] = [1, np.nan, -0.0, np.inf, 1, -1]
    pairs = apply(node, [scores, np.arange(32, dtype=np.uint32)[None]])[0]
    assert pairs[1:7:2].tolist() == [3, 0, 4] and pairs[-3::2].tolist() == [5, 1]
    assert pairs[7:13:2].tolist() == [2, 6, 7]             # -0 and +0 are equal


def test_integers_wrap() -> None:
    for name, a, b, expected in [("add", 127, 1, -128), ("sub", -128, 1, 127), ("mul", 100, 3, 44),
                                 ("div", -128, -1, -128), ("div", 7, 0, 0), ("div", -7, 2, -3)]:
        node = one_node(name, TileType(1, 1, DType.I8), TileType(1, 1, DType.I8))
        assert apply(node, [np.array([[a]], np.int8), np.array([[b]], np.int8)]).item() == expected
    for name, a, expected in [("neg", -128, -128), ("abs", -128, -128)]:
        assert apply(one_node(name, TileType(1, 1, DType.I8)), [np.array([[a]], np.int8)]).item() == expected
    rows = apply(one_node("rowsum", TileType(1, 3, DType.U8)), [np.array([[200, 100, 3]], np.uint8)])
    assert rows.item() == 303 % 256
    product = one_node("matmul", TileType(1, 2, DType.I8), TileType(2, 1, DType.I8))
    assert product.type == TileType(1, 1, DType.I32)
    assert apply(product, [np.array([[127, 127]], np.int8), np.array([[127], [127]], np.int8)]).item() == 2 * 127 ** 2


def test_scalars_compute_too() -> None:
    def body(s: Any, t: Any) -> Any:
        return pto.broadcast(pto.exp(pto.div(pto.add(s, 1.0), t)), (1, 2))
    graph = traced(body, DType.F32, DType.F32, out=(1, 2))
    out = np.zeros((1, 2), np.float32)
    interpret(graph, [out], [1.0, 2.0])
    assert out.tolist() == [[np.float32(np.e)] * 2]
    assert isinstance(graph.nodes[0].type, ScalarType)
