"""Simplified graphs: the same results, and partial tiles that are tied no more than the user's kernel ties them."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pto_wsp.lower.pipeline import GRAPH_STEPS, simplified
from pto_wsp.trace.extents import extents_of
from pto_wsp.trace.interpret import interpret
from pto_wsp.trace.tile import pto
from pto_wsp.types import DType
from tests import strategies as draws
from tests.strategies import traced

F32, U32 = DType.F32, DType.U32


def ops(graph: Any) -> list[str]:
    return [n.op.name for n in graph.nodes]


@settings(max_examples=100)
@given(data=st.data())
def test_results_stay_the_same(data: Any) -> None:
    graph = data.draw(draws.graphs(ops=draws.EXACT))
    args = data.draw(draws.arguments(graph))
    want, got = args.copies(), args.copies()
    interpret(graph, want, args.scalars)
    interpret(simplified(graph), got, args.scalars)
    for a, b in zip(want, got, strict=True):
        np.testing.assert_array_equal(a.astype(np.float64), b.astype(np.float64))


@settings(max_examples=100)
@given(graph=draws.graphs())
def test_partial_tiles_are_tied_no_more_than_before(graph: Any) -> None:
    """Before a task runs, the traced kernel's ties are checked; machine code relies on the simplified kernel's."""
    def ties(graph: Any) -> list[set[Any]]:
        return [{known(graph, source) for source in group} for group in extents_of(graph).constraints()]
    allowed = ties(graph)
    for group in ties(simplified(graph)):
        assert any(group <= other for other in allowed), f"{group}\n{graph}\n{simplified(graph)}"


def known(graph: Any, source: Any) -> Any:
    """An extent, or its value: a dimension of one element is never partial."""
    tile = graph.tile_params[source.param].node.tile
    return source.value(1) if (tile.rows, tile.cols)[source.axis] == 1 else source


def test_elements_are_tied_to_nothing() -> None:
    """The two maxima are one number, which is there in any case."""
    def body(x: Any, wide: Any, out: Any) -> None:
        row = pto.load(x)
        pto.store(wide, pto.interleave(row, pto.rowmax(row)))
        pto.store(out, pto.rowmax(row))
    test_partial_tiles_are_tied_no_more_than_before.hypothesis.inner_test(
        traced(body, ("in", 1, 1, F32), ("out", 1, 2, F32), ("out", 1, 1, F32)))


def test_one_row_of_numbers_for_two_outputs() -> None:
    """Two equal iotas are stored to tiles whose valid extents have nothing to do with each other."""
    def body(a: Any, b: Any) -> None:
        pto.store(a, pto.iota_u32(32))
        pto.store(b, pto.iota_u32(32))
    graph = traced(body, ("out", 1, 32, U32), ("out", 1, 32, U32))
    assert extents_of(simplified(graph)).constraints() == ()


def test_equal_computations_are_one_and_dead_ones_none() -> None:
    def body(x: Any) -> Any:
        pto.exp(x)
        return pto.sqrt(x) + pto.sqrt(x)
    assert ops(simplified(traced(body, (2, 3), out=(2, 3)))) == ["param", "param", "load", "sqrt", "add", "store"]


def test_rewrites() -> None:
    def body(x: Any) -> Any:
        return pto.transpose(pto.transpose(pto.neg(pto.neg(pto.broadcast(pto.cast(x, F32) * 1.0, (2, 3)) / 1.0))))
    assert ops(simplified(traced(body, (2, 3), out=(2, 3)))) == ["param", "param", "load", "store"]


def test_loads_on_both_sides_of_a_store_stay_apart() -> None:
    def body(x: Any, out: Any) -> None:
        before = pto.load(x)
        pto.store(x, before + 1.0)
        pto.store(out, before + pto.load(x))
    graph = simplified(traced(body, ("inout", 2, 3), ("out", 2, 3)))
    assert ops(graph).count("load") == 2


def test_a_store_that_is_overwritten_is_dropped_unless_it_is_read() -> None:
    def body(x: Any, out: Any) -> None:
        pto.store(out, x)
        pto.store(out, x * 2.0)

    def read(x: Any, out: Any) -> None:
        pto.store(out, x)
        pto.store(out, pto.load(out) * 2.0)
    assert len(simplified(traced(body, (2, 3), ("out", 2, 3))).stores) == 1
    assert len(simplified(traced(read, (2, 3), ("out", 2, 3))).stores) == 2


def test_every_step_is_seen() -> None:
    seen = []
    simplified(traced(pto.exp, (2, 3), out=(2, 3)), lambda step, graph: seen.append(step))
    assert seen == [step.__name__ for step in GRAPH_STEPS]
