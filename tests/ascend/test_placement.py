"""Where tiles lie: nothing that lives at the same time shares bytes, everything fits, and overflow says what would."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings

from pto_wsp.ascend import placement
from pto_wsp.ascend.aicore import emit_kernel
from pto_wsp.ascend.body import Buffer, Step
from pto_wsp.ascend.mix import is_cube
from pto_wsp.ascend.source import params_of
from pto_wsp.ascend.tidy import tidy
from pto_wsp.ascend.vector_kernel import VectorKernel
from pto_wsp.errors import CompileError
from pto_wsp.trace.graph import KernelGraph
from pto_wsp.trace.tile import pto
from pto_wsp.types import DType
from tests import strategies


def buffer(name: str, size: int) -> Buffer:
    return Buffer(name, DType.F32, "temp", lambda strip: size, name)


def step(reads: list[Buffer], writes: list[Buffer], in_place: bool = False) -> Step:
    return Step("V", [], tuple(reads), tuple(writes), in_place)


def test_dead_tiles_make_room() -> None:
    a, b, c = buffer("a", 256), buffer("b", 256), buffer("c", 256)
    steps = [step([], [a]), step([a], [b]), step([b], [c])]
    layout = placement.place([], steps, [], 1, False)
    assert (a.offset, b.offset, c.offset) == (0, 256, 0)
    assert layout.total == 512


def test_a_result_takes_the_place_of_an_operand_that_ends() -> None:
    a, b = buffer("a", 256), buffer("b", 256)
    layout = placement.place([], [step([], [a]), step([a], [b], in_place=True)], [], 1, False)
    assert b.offset == a.offset == 0
    assert layout.total == 256


def test_what_a_loop_only_reads_stays_for_all_of_it() -> None:
    once, early, late = buffer("once", 256), buffer("early", 256), buffer("late", 256)
    placement.place([step([], [once])], [step([once], [early]), step([early], [late])], [], 1, True)
    assert late.offset != once.offset


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(strategies.graphs(dtypes=[d for d in DType if d not in (DType.F64, DType.I64, DType.U64)]))
def test_live_tiles_never_share_bytes(graph: KernelGraph) -> None:
    graph = tidy(graph)
    if any(is_cube(n) for n in graph.nodes):
        return
    try:
        kernel = VectorKernel(graph, params_of(graph))
        kernel.write()
    except CompileError:
        return
    phase = kernel.writer.phase
    used = {id(b): b for s in (*phase.before, *phase.body) for b in (*s.reads, *s.writes)}.values()
    temps = [b for b in used if b.kind == "temp"]
    assert kernel.layout.total <= placement.UB_BYTES
    for a in temps:
        assert a.offset % 32 == 0 and a.bytes % 32 == 0 and a.offset + a.bytes <= kernel.layout.arena
        for b in temps:
            apart = a.last < b.first or b.last < a.first or placement.root(a) is placement.root(b)
            assert apart or not placement.overlap(a, b) or a is b, (a, b)


def heavy(rows: int, cols: int) -> KernelGraph:
    return strategies.traced(lambda x: pto.colsum(pto.exp(x) * x), (rows, cols), out=(1, cols), name="heavy")


def test_overflow_names_the_tiles_and_a_size_that_fits() -> None:
    with pytest.raises(CompileError) as caught:
        emit_kernel(heavy(512, 256))
    text = caught.value.message
    assert "heavy needs" in text and "a vector core has 188160" in text and "512x256 f32" in text
    fits = re.search(r"Tiles of (\d+)x(\d+) would fit", text)
    assert fits, text
    rows, cols = int(fits[1]), int(fits[2])
    emit_kernel(heavy(rows, cols))
    with pytest.raises(CompileError):
        emit_kernel(heavy(rows + 8, cols))


def test_a_row_that_does_not_fit() -> None:
    def wide(cols: int) -> KernelGraph:
        return strategies.traced(lambda x, y: pto.exp(x) / y, (4, cols), (4, cols), out=(4, cols), name="wide")

    with pytest.raises(CompileError, match="for a single row") as caught:
        emit_kernel(wide(20000))
    fits = re.search(r"Tiles of (\d+)x(\d+) would fit", caught.value.message)
    assert fits
    emit_kernel(wide(int(fits[2])))


def test_rows_that_are_independent_go_by_strips() -> None:
    """A tile far larger than UB is no problem when its rows do not depend on each other."""
    source = emit_kernel(strategies.traced(lambda x: x * pto.rsqrt(pto.rowmean(x * x)), (64, 4096), out=(64, 4096)))
    assert re.search(r"for \(uint32_t first = 0; first < a_gm.rows; first \+= \d+\)", source.text)
    assert "queue, x2" in source.placement


def test_the_table_lists_every_memory() -> None:
    source = emit_kernel(strategies.traced(lambda a, b: pto.exp(pto.matmul(a, b)), (64, 64, DType.F16),
                                           (64, 64, DType.F16), out=(64, 64)))
    for memory in ("UB", "L1", "L0A", "L0B", "L0C", "GM"):
        assert re.search(rf"^\S+ +{memory} +\d+ +\d+", source.placement, re.MULTILINE), source.placement
