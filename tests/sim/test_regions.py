"""Regions: two tiles share a cell if they share an element; and only if, wherever tiles are cut from one grid."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

from pto_wsp.lower.tasks import TaskTable
from pto_wsp.sim.regions import Accesses, Uses, accesses_of, overlaps_itself, spaces_of


def table_of(tasks):
    """One task per list of numpy tiles."""
    width = max(len(tiles) for tiles in tasks)
    table = TaskTable.empty(len(tasks), 5 * width, 0)
    table.kernel[:], table.count = 0, len(tasks)
    table.leaf[:] = range(len(tasks))
    for k, tiles in enumerate(tasks):
        for p, tile in enumerate(tiles):
            table.args[k, 5 * p : 5 * p + 5] = [tile.ctypes.data, *tile.strides, *tile.shape]
    return table


def uses_of(arrays, tasks, writes=None):
    space_of, origin = spaces_of(arrays)
    shape = len(tasks), max(len(tiles) for tiles in tasks)
    space = np.full(shape, -1, np.int32)
    for k, tiles in enumerate(tasks):
        for p, tile in enumerate(tiles):
            owners = {int(space_of[i]) for i, array in enumerate(arrays) if np.may_share_memory(array, tile)}
            space[k, p] = owners.pop() if owners else 0
    itemsize = np.full(shape, arrays[0].itemsize, np.int32)
    return Uses(space, itemsize, np.ones(shape, bool) if writes is None else writes, origin)


def cells(accesses: Accesses, tasks: int):
    found = [set() for _ in range(tasks)]
    for task, cell in zip(accesses.task, accesses.cell):
        found[task].add(int(cell))
    return found


def elements(tile):
    rows, cols = tile.shape
    return {tile.ctypes.data + i * tile.strides[0] + j * tile.strides[1] for i in range(rows) for j in range(cols)}


def check(arrays, tiles, exact=True):
    tasks = [[tile] for tile in tiles]
    table = table_of(tasks)
    accesses = accesses_of(table, np.arange(len(tasks)), uses_of(arrays, tasks))
    assert (np.diff(accesses.task) >= 0).all()
    found, memory = cells(accesses, len(tasks)), [elements(tile) for tile in tiles]
    for i in range(len(tiles)):
        for j in range(i):
            shared, overlap = bool(found[i] & found[j]), bool(memory[i] & memory[j])
            assert shared or not overlap, (i, j)
            if exact:
                assert shared == overlap, (i, j)


MATRIX = np.zeros((48, 64), np.float32)


def test_a_grid_of_tiles():
    check([MATRIX], [MATRIX[i : i + 8, j : j + 16] for i in range(0, 48, 8) for j in range(0, 64, 16)] * 2)


def test_tiles_of_different_shapes_on_one_matrix():
    tiles = [MATRIX[i : i + 8, j : j + 16] for i in range(0, 48, 8) for j in range(0, 64, 16)]
    tiles += [MATRIX, MATRIX[8:16], MATRIX[:, 16:32], MATRIX[5:7, 3:60], MATRIX[47:, 63:], MATRIX[3:4, :40], MATRIX[:2]]
    check([MATRIX], tiles)


def test_transposed_and_reversed_views():
    views = (MATRIX, MATRIX.T, MATRIX[::-1], MATRIX.T[:, ::-1])
    check([MATRIX], [v[i : i + 8, j : j + 8] for v in views for i in (0, 4, 8) for j in (0, 8)])


def test_contiguous_tiles_and_vectors():
    blocks = np.zeros((5, 4, 6, 8), np.float32)
    check([blocks], [blocks[i][j] for i in range(5) for j in range(4)] + [blocks.reshape(-1, 8)[3:30]])
    line = np.zeros(100, np.float32)
    check([line], [line[None, a:b] for a, b in [(0, 10), (10, 30), (5, 12), (99, 100), (0, 100)]] + [line[20:40, None]])


def test_columns_of_a_slice():
    part = MATRIX[4:40, 10:50]
    check([part], [part[i : i + 9, j : j + 10] for i in range(0, 36, 9) for j in range(0, 40, 10)] + [part])


def test_arrays_that_alias_are_one_space():
    left, right, apart = MATRIX[:, :40], MATRIX[:, 24:], np.zeros((4, 4), np.float32)
    space, origin = spaces_of([left, apart, right])
    assert space[0] == space[2] != space[1]
    assert origin[space[0]] == MATRIX.ctypes.data
    check([left, apart, right], [left[:8, :8], left[:8, 32:40], right[:8, :8], right[:8, 24:40], apart])


def test_interleaved_columns_may_be_taken_for_overlapping():
    check([MATRIX], [MATRIX[:8, ::2], MATRIX[:8, 1::2], MATRIX[::2], MATRIX[1::2]], exact=False)


@st.composite
def arrangements(draw):
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    base = np.zeros((2 * shape[0], 2 * shape[1]), draw(st.sampled_from([np.int8, np.float32, np.float64])))
    views = [base, base[: shape[0]], base[:, : shape[1]], base.T, base[::-1, ::-1], base[::2, ::2], base[1:, ::-1].T]
    array = draw(st.sampled_from(views))
    tiles = []
    for _ in range(draw(st.integers(1, 12))):
        view = draw(st.sampled_from([array, array, array.T, array[::-1]]))
        r, c = draw(st.integers(0, view.shape[0])), draw(st.integers(0, view.shape[1]))
        tiles.append(view[r : r + draw(st.integers(0, 6)), c : c + draw(st.integers(0, 6))])
    return base, tiles


@given(arrangements())
def test_tiles_that_overlap_always_share_a_cell(arrangement):
    base, tiles = arrangement
    check([base], tiles, exact=False)


def test_reads_of_what_nobody_writes_are_left_out():
    other = np.zeros((4, 4), np.float32)
    tasks = [[MATRIX[:4, :4], other], [MATRIX[:4, :4], other]]
    writes = np.array([[False, True], [False, False]])
    accesses = accesses_of(table_of(tasks), np.arange(2), uses_of([MATRIX, other], tasks, writes))
    assert accesses.task.tolist() == [0, 1] and accesses.writes.tolist() == [1, 0]


def test_no_tiles_and_empty_tiles():
    empty = MATRIX[:0]
    assert accesses_of(table_of([[empty]]), np.arange(1), uses_of([MATRIX], [[empty]])).cells == 0
    assert spaces_of([])[0].tolist() == []


@given(st.lists(st.tuples(st.integers(-12, 12), st.integers(0, 4)), min_size=1, max_size=4))
def test_arrays_that_overlap_themselves(dims):
    memory = np.zeros(1000, np.int32)
    array = as_strided(memory[500:], [n for _, n in dims], [4 * s for s, _ in dims])
    seen = [0]
    for stride, size in dims:
        seen = [at + stride * k for at in seen for k in range(size)]
    if len(set(seen)) < len(seen):
        assert overlaps_itself(array)
    elif len(dims) <= 2 and array.flags.c_contiguous:
        assert not overlaps_itself(array)


@pytest.mark.parametrize(
    "array", [MATRIX, MATRIX.T, MATRIX[::-1, ::-2], MATRIX[3:9, 5:], MATRIX[:0], MATRIX[:1], np.zeros((), np.float32)]
)
def test_ordinary_views_do_not_overlap_themselves(array):
    assert not overlaps_itself(array)


def test_cost_grows_with_the_number_of_tiles_not_its_square():
    big = np.zeros((2048, 2048), np.float32)
    times = []
    for step in (64, 16):
        tiles = [[big[i : i + step, j : j + step]] for i in range(0, 2048, step) for j in range(0, 2048, step)]
        table = table_of(tiles)
        _, origin = spaces_of([big])
        shape = len(tiles), 1
        uses = Uses(np.zeros(shape, np.int32), np.full(shape, 4, np.int32), np.ones(shape, bool), origin)
        begun = time.process_time()
        accesses = accesses_of(table, np.arange(len(tiles)), uses)
        times.append(time.process_time() - begun)
        assert accesses.cells == len(tiles)
    assert times[1] < 64 * max(times[0], 1e-3)  # 16 times the tiles
