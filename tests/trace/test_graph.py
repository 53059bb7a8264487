"""Building nodes, and the check that holds every graph to the rules."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pto_wsp.errors import OperandError, SourceLine
from pto_wsp.trace.graph import KernelGraph, Node, Param, build, check, number_as
from pto_wsp.trace.ops import OPS
from pto_wsp.trace.tile import pto
from pto_wsp.types import DType, ScalarType, TileType
from tests import strategies as draws
from tests.strategies import traced

F16, F32, I32, U8 = DType.F16, DType.F32, DType.I32, DType.U8
LINE = SourceLine("user.py", 7, 7, None, None, "f")


def tile(rows: int, cols: int, dtype: DType = F32) -> Node:
    return build(OPS["load"], (handle(rows, cols, dtype),), {"at": "here"})[-1]


def handle(rows: int, cols: int, dtype: DType = F32, index: int = 0) -> Node:
    return build(OPS["param"], (), {"type": TileType(rows, cols, dtype), "index": index})[-1]


def names(made: tuple[Node, ...]) -> list[str]:
    return [n.op.name for n in made]


def test_a_number_becomes_a_constant_of_the_tiles_dtype() -> None:
    x = tile(2, 3, I32)
    constant, added = build(OPS["add"], (x, 2.9), line=LINE)
    assert constant.attrs == {"value": 2, "dtype": I32} and constant.type == ScalarType(I32)
    assert added.operands == (x, constant) and added.line is LINE and constant.line is LINE


def test_vectors_and_scalars_take_the_dtype_of_the_tile_they_meet() -> None:
    x, column = tile(4, 8, F16), tile(4, 1, F32)
    cast, product = build(OPS["mul"], (x, column))
    assert (cast.op.name, cast.attrs["by"], cast.type) == ("cast", "promotion", TileType(4, 1, F16))
    assert product.type == TileType(4, 8, F16)
    flipped = build(OPS["mul"], (column, x))[-1]
    assert flipped.type == TileType(4, 8, F16)
    mask = tile(4, 8, U8)
    assert names(build(OPS["select"], (mask, x, 0.0))) == ["constant", "select"]


def test_matmul_does_not_promote() -> None:
    with pytest.raises(OperandError, match="one dtype"):
        build(OPS["matmul"], (tile(2, 2, F16), tile(2, 2, F32)))


def test_an_error_points_at_the_users_line() -> None:
    with pytest.raises(OperandError) as caught:
        build(OPS["add"], (tile(2, 3), tile(4, 3)), line=LINE)
    assert caught.value.line is LINE


@pytest.mark.parametrize("value, dtype, expected", [
    (2.9, I32, 2), (-2.9, I32, -2), (True, I32, 1), (3, F32, 3.0),
    pytest.param(10 ** 400, F32, math.inf, id="huge"), pytest.param(-10 ** 400, F32, -math.inf, id="minus huge"),
    (255, U8, 255), (2 ** 64 - 1, DType.U64, 2 ** 64 - 1), (math.inf, F16, math.inf)])
def test_numbers_convert(value: Any, dtype: DType, expected: Any) -> None:
    got = number_as(value, dtype)
    assert got == expected and type(got) is type(expected)


@pytest.mark.parametrize("value, dtype", [(256, U8), (-1, U8), (2 ** 31, I32), (math.nan, I32), (math.inf, I32),
                                          ("x", F32), (None, F32), (1j, F32), ([1], I32)])
def test_what_is_no_number_of_the_dtype(value: Any, dtype: DType) -> None:
    with pytest.raises(OperandError):
        number_as(value, dtype)


# ---- check ---------------------------------------------------------------------------------------------------------

@settings(max_examples=60)
@given(graph=draws.graphs())
def test_drawn_graphs_pass(graph: KernelGraph) -> None:
    check(graph)


X, OUT = handle(2, 3), handle(2, 3, index=1)
LOAD = build(OPS["load"], (X,), {"at": "entry"})[-1]
NEG = build(OPS["neg"], (LOAD,))[-1]
STORE = build(OPS["store"], (OUT, NEG))[-1]
GOOD = KernelGraph("k", (Param("x", "in", X), Param("out", "out", OUT)), (X, OUT, LOAD, NEG, STORE))
STRANGER = handle(2, 3, index=2)


def with_nodes(*nodes: Node) -> KernelGraph:
    return replace(GOOD, nodes=(X, OUT, *nodes))


BAD = {
    "operand later": with_nodes(NEG, LOAD, STORE),
    "operand missing": with_nodes(LOAD, STORE),
    "node twice": with_nodes(LOAD, LOAD),
    "wrong type": with_nodes(LOAD, replace(NEG, type=TileType(2, 4, F32))),
    "arithmetic on a handle": with_nodes(Node(OPS["neg"], (X,), X.type)),
    "load of a value": with_nodes(LOAD, Node(OPS["load"], (LOAD,), LOAD.type, {"at": "here"})),
    "store into a value": with_nodes(LOAD, NEG, Node(OPS["store"], (LOAD, NEG), None)),
    "store of a handle": with_nodes(LOAD, Node(OPS["store"], (OUT, X), None)),
    "store into In": with_nodes(LOAD, NEG, Node(OPS["store"], (X, NEG), None)),
    "store of another dtype": with_nodes(LOAD, *build(OPS["cast"], (LOAD,), {"dtype": F16, "by": "store"}),),
    "unknown attribute": with_nodes(LOAD, replace(NEG, attrs={"speed": 3})),
    "missing attribute": with_nodes(replace(LOAD, attrs={})),
    "unknown place": with_nodes(replace(LOAD, attrs={"at": "later"})),
    "foreign parameter": with_nodes(STRANGER),
    "parameter without node": replace(GOOD, nodes=(X, LOAD)),
    "parameters swapped": replace(GOOD, params=GOOD.params[::-1]),
    "equal names": replace(GOOD, params=(GOOD.params[0], replace(GOOD.params[1], name="x"))),
    "unknown direction": replace(GOOD, params=(replace(GOOD.params[0], direction="up"), GOOD.params[1])),
    "constant out of range": with_nodes(Node(OPS["constant"], (), ScalarType(U8), {"value": 256, "dtype": U8})),
    "constant of another kind": with_nodes(Node(OPS["constant"], (), ScalarType(U8), {"value": 1.0, "dtype": U8})),
}
dtype_mismatch = BAD.pop("store of another dtype").nodes
BAD["store of another dtype"] = with_nodes(*dtype_mismatch[2:], Node(OPS["store"], (OUT, dtype_mismatch[-1]), None))


def test_the_good_one_passes() -> None:
    check(GOOD)
    assert GOOD.param_of(LOAD).name == "x" and GOOD.param_of(STORE).name == "out" and GOOD.stores == (STORE,)


@pytest.mark.parametrize("graph", BAD.values(), ids=BAD)
def test_a_broken_rule_is_found(graph: KernelGraph) -> None:
    with pytest.raises(OperandError) as caught:
        check(graph)
    assert "kernel k" in caught.value.message


def test_the_message_shows_the_graph() -> None:
    with pytest.raises(OperandError, match="its type is tile<2x4xf32>, but its operands make tile<2x3xf32>") as caught:
        check(BAD["wrong type"])
    assert "%3: tile<2x4xf32> = neg %2" in caught.value.message


def test_traced_graphs_pass() -> None:
    def body(x: Any, s: Any, out: Any) -> None:
        pto.store(out, x * s + 1)
        pto.store(out, pto.load(out) @ out.T)
    check(traced(body, (4, 4), F16, ("inout", 4, 4)))


@given(st.data())
@settings(max_examples=30)
def test_param_of_finds_every_parameter(data: Any) -> None:
    graph = data.draw(draws.graphs())
    for node in graph.nodes:
        if node.op.name in ("param", "load", "store"):
            assert graph.param_of(node).node in (node, *node.operands)
