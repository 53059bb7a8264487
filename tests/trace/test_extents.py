"""Cycles of full and partial tiles, and which extents a kernel ties together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pto_wsp.trace.extents import Extent, Source, extents_of
from pto_wsp.trace.interpret import task_cycles
from pto_wsp.trace.ops import OPS
from pto_wsp.trace.tile import pto
from pto_wsp.types import DType
from tests import strategies as draws
from tests.strategies import traced

F16, F32, I32, U32 = DType.F16, DType.F32, DType.I32, DType.U32
T, COLUMN, ROW = (5, 12), (5, 1), (1, 12)
A, B, C = (5, 7), (7, 9), (5, 9)
UNARY = [op.name for op in OPS.values() if op.operands == "x" and op.name in (
    "neg", "abs", "sqrt", "rsqrt", "exp", "log", "tanh", "sigmoid", "relu", "gelu", "silu", "sin", "cos")]


def softmax(x: Any) -> Any:
    e = pto.exp(pto.sub(x, pto.rowmax(x)))
    return pto.div(e, pto.rowsum(e))


def rms_norm(x: Any) -> Any:
    mean = pto.rowmean(pto.mul(x, x))
    return pto.mul(x, pto.rsqrt(pto.add(mean, pto.constant(1e-3, F32))))


def chain(a: Any, b: Any) -> Any:
    return pto.mul(pto.sub(pto.add(pto.mul(a, b), a), b), pto.add(a, b))


def twice(a: Any, b: Any) -> Any:
    m = pto.matmul(a, b)
    return pto.add(pto.exp(m), m)


def second(a: Any, b: Any) -> Any:
    pto.matmul(a, b)
    return pto.matmul(a, b)


def reused(a: Any) -> Any:
    m = pto.matmul(a, a)
    e = pto.add(m, m)
    return pto.add(pto.matmul(m, a), e)


# The table of the cycle model: what is computed, of which parameters, into which, and its cycles.
TABLE: dict[str, tuple[Any, list[Any], Any, int]] = {
    "copy": (lambda x: x, [(6, 10)], (6, 10), 120),
    "mul(x, x)": (lambda x: pto.mul(x, x), [T], T, 180),
    **{f"{op} same shape": (getattr(pto, op), [T, T], T, 240) for op in ("add", "sub", "mul", "div", "max", "min")},
    **{f"{op} per row": (getattr(pto, op), [T, COLUMN], T, 185) for op in ("add", "sub", "mul", "div", "max", "min")},
    **{f"{op} per column": (getattr(pto, op), [T, ROW], T, 192) for op in ("add", "sub", "mul", "div", "max", "min")},
    **{f"{op} number": (lambda x, op=op: getattr(pto, op)(x, 2.0), [T], T, 180) for op in ("add", "div", "max")},
    **{f"number {op}": (lambda x, op=op: getattr(pto, op)(2.0, x), [T], T, 180) for op in ("sub", "div", "min")},
    **{op: (getattr(pto, op), [T], T, 180) for op in UNARY},
    "scalar parameter": (pto.mul, [T, F32], T, 180),
    "scalar of another dtype": (pto.mul, [(*T, F16), F32], (*T, F16), 180),
    "vector of another dtype": (pto.mul, [(*T, F16), COLUMN], (*T, F16), 185),
    "rowsum": (pto.rowsum, [T], COLUMN, 70),
    "rowmax": (pto.rowmax, [T], COLUMN, 70),
    "rowmax f16": (pto.rowmax, [(*T, F16)], COLUMN, 70),
    "rowmean": (pto.rowmean, [T], COLUMN, 75),
    "rowmean f16 stored as f16": (pto.rowmean, [(*T, F16)], (*COLUMN, F16), 80),
    "store f32 as f16": (lambda x: x, [T], (*T, F16), 180),
    "explicit loads": (lambda a, b: pto.add(pto.load(a), pto.load(b)), [T, T], T, 240),
    "explicit and implicit load": (lambda x: pto.add(pto.load(x), x), [T], T, 240),
    "dead load": (lambda x: (pto.load(x), pto.load(x))[1], [T], T, 180),
    "unused parameter": (lambda x, y: x, [T, T], T, 120),
    "matmul": (pto.matmul, [A, B], C, 458),
    "matmul f16": (pto.matmul, [(*A, F16), (*B, F16)], C, 458),
    "matmul stored as f16": (pto.matmul, [A, B], (*C, F16), 503),
    "exp(matmul)": (lambda a, b: pto.exp(pto.matmul(a, b)), [A, B], C, 548),
    "matmul used twice": (twice, [A, B], C, 593),
    "matmul(mul(a, a), b)": (lambda a, b: pto.matmul(pto.mul(a, a), b), [A, B], C, 528),
    "matmul of loads": (lambda a, b: pto.matmul(pto.load(a), pto.load(b)), [A, B], C, 556),
    "two matmuls, second stored": (second, [A, B], C, 871),
    "(a @ b) @ b": (lambda a, b: pto.matmul(pto.matmul(a, b), b), [(6, 6), (6, 6)], (6, 6), 612),
    "rowmean(matmul)": (lambda a, b: pto.rowmean(pto.matmul(a, b)), [A, B], COLUMN, 473),
    "matmul(a, a) + a": (lambda a: pto.add(pto.matmul(a, a), a), [(4, 4)], (4, 4), 160),
    "(m @ a) + (m + m)": (reused, [(4, 4)], (4, 4), 272),
    "sort": (lambda s: pto.tsort32(pto.load(s), pto.iota_u32(32)), [(1, 32)], (1, 64), 256),
    "top 5": (lambda s: pto.extract_topk_indices(pto.tsort32(s, pto.iota_u32(32)), 5), [(1, 32)], (1, 5, I32), 197),
    "iota": (lambda: pto.iota_u32(10), [], (1, 10, U32), 10),
    "colsum": (pto.colsum, [T], ROW, 84),
    "colmax": (pto.colmax, [T], ROW, 84),
    "rowmul(x, rowsum(x))": (lambda x: pto.rowmul(x, pto.rowsum(x)), [T], T, 185),
    "row softmax": (softmax, [(6, 20)], (6, 20), 612),
    "row rms norm f16": (rms_norm, [(6, 24, F16)], (6, 24, F16), 600),
    "five ops f16": (chain, [(7, 33, F16), (7, 33, F16)], (7, 33, F16), 8 * 231),
}


@pytest.mark.parametrize("body, params, out, cycles", TABLE.values(), ids=TABLE)
def test_cycles_of_full_tiles(body: Any, params: Any, out: Any, cycles: int) -> None:
    assert traced(body, *params, out=out).static_cycles() == cycles


def test_cycles_of_loads_and_stores_in_order() -> None:
    def entry(x: Any, o: Any) -> None:
        pto.store(x, pto.add(x, x))
        pto.store(o, x)

    def again(x: Any, o: Any) -> None:
        pto.store(x, pto.add(x, x))
        pto.store(o, pto.load(x))

    params = ("inout", 2, 8), ("out", 2, 8)
    assert traced(entry, *params).static_cycles() == 64
    assert traced(again, *params).static_cycles() == 80


# ---- partial tiles: 6x10 tiles of which 4x7 are valid --------------------------------------------------------------

def cycles_of(graph: Any, *shapes: tuple[int, int]) -> int:
    return task_cycles(graph, [np.zeros(s) for s in shapes])


def test_cycles_of_partial_tiles() -> None:
    tile, valid = (6, 10), (4, 7)
    assert cycles_of(traced(lambda x: x, tile, out=tile), valid, valid) == 28 + 28
    assert cycles_of(traced(pto.rowsum, tile, out=(6, 1)), valid, (4, 1)) == 28 + 4 + 4
    assert cycles_of(traced(pto.rowmean, tile, out=(6, 1)), valid, (4, 1)) == 28 + 8 + 4
    assert cycles_of(traced(pto.colsum, tile, out=(1, 10)), valid, (1, 7)) == 28 + 7 + 7
    assert cycles_of(traced(lambda x: pto.mul(x, pto.rowsum(x)), tile, out=tile), valid, valid) == 28 + 4 + 28 + 28
    assert cycles_of(traced(lambda x: pto.add(pto.mul(x, x), x), tile, out=tile), valid, valid) == 4 * 28
    assert cycles_of(traced(lambda x: x, tile, out=(*tile, F16)), valid, valid) == 3 * 28
    assert cycles_of(traced(lambda x: x, tile, out=tile), (0, 7), (0, 7)) == 0
    product = traced(pto.matmul, tile, (10, 8), out=(6, 8))
    assert cycles_of(product, valid, (7, 5), (4, 5)) == 28 + 35 + 140 + 20
    through_exp = traced(lambda a, b: pto.exp(pto.matmul(a, b)), tile, (10, 8), out=(6, 8))
    assert cycles_of(through_exp, valid, (7, 5), (4, 5)) == 28 + 35 + 140 + 20 + 20 + 20


def test_a_softmax_ties_its_tiles_and_nothing_else() -> None:
    extents = extents_of(traced(softmax, (6, 20), out=(6, 20)))
    assert extents.constraints() == ((Source(0, 0), Source(1, 0)), (Source(0, 1), Source(1, 1)))
    assert extents.needed() == ()


def test_a_matmul_ties_rows_columns_and_the_summed_axis() -> None:
    extents = extents_of(traced(pto.matmul, A, B, out=C))
    assert extents.constraints() == ((Source(0, 0), Source(2, 0)), (Source(0, 1), Source(1, 0)),
                                     (Source(1, 1), Source(2, 1)))


def test_a_vector_is_tied_along_its_own_axis_and_has_to_be_there() -> None:
    extents = extents_of(traced(pto.mul, T, COLUMN, out=T))
    assert extents.constraints() == ((Source(0, 0), Source(1, 0), Source(2, 0)), (Source(0, 1), Source(2, 1)))
    assert extents.needed() == (Source(1, 1),)


def test_transpose_swaps() -> None:
    extents = extents_of(traced(pto.transpose, T, out=(12, 5)))
    assert extents.constraints() == ((Source(0, 0), Source(1, 1)), (Source(0, 1), Source(1, 0)))
    symmetric = extents_of(traced(lambda x: pto.add(x, pto.transpose(x)), (6, 6), out=(6, 6)))
    assert symmetric.constraints() == ((Source(0, 0), Source(0, 1), Source(1, 0), Source(1, 1)),)


def test_constants_adapt_to_their_consumer() -> None:
    graph = traced(lambda x: pto.add(x, pto.alloc(T, F32)), T, out=T)
    zeros = next(n for n in graph.nodes if n.op.name == "alloc")
    assert extents_of(graph).of(zeros, 1) == Extent(12)
    assert extents_of(graph).constraints() == ((Source(0, 0), Source(1, 0)), (Source(0, 1), Source(1, 1)))


def test_halves_and_doubles() -> None:
    def rope(x: Any) -> Any:
        return pto.interleave(pto.neg(pto.slice_odd(x)), pto.slice_even(x))

    extents = extents_of(traced(rope, (4, 8), out=(4, 8)))
    assert extents.constraints()[1] == (Source(0, 1, 2, 2), Source(1, 1))       # out: columns // 2 * 2 of x
    odd = extents_of(traced(rope, (4, 7), out=(4, 6)))
    assert odd.constraints()[1] == (Source(0, 1, 2, 2), Source(1, 1))
    assert Source(0, 1, 2, 2).value(7) == 6 and Source(1, 1).value(6) == 6


@given(valid=st.integers(0, 200), steps=st.lists(st.sampled_from(["halved", "doubled"]), max_size=8))
def test_a_source_computes_what_the_ops_do(valid: int, steps: list[str]) -> None:
    source, value = Source(0, 0), valid
    for step in steps:
        source = getattr(source, step)()
        value = value // 2 if step == "halved" else value * 2
    assert source.value(valid) == value


@settings(max_examples=60)
@given(graph=draws.graphs())
def test_full_tiles_satisfy_every_constraint(graph: Any) -> None:
    shapes = [(p.node.tile.rows, p.node.tile.cols) for p in graph.tile_params]
    extents = extents_of(graph)
    for group in extents.constraints():
        assert len({s.value(shapes[s.param][s.axis]) for s in group}) == 1
    for source in extents.needed():
        assert source.value(shapes[source.param][source.axis]) > 0
    for node in graph.nodes:
        if node.is_tile:
            for axis in (0, 1):
                extent = extents.of(node, axis)
                assert all(s.value(shapes[s.param][s.axis]) == extent.static for s in extent.sources)
    assert task_cycles(graph, [np.zeros(s) for s in shapes]) == graph.static_cycles()


def test_a_long_unrolled_kernel_is_quick() -> None:
    def body(x: Any) -> Any:
        total = x
        for _ in range(3000):
            total = pto.add(total, x)
        return total

    graph = traced(body, (2, 3), out=(2, 3))
    assert graph.static_cycles() == 6 * 3002
