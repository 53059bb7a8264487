"""Inferred edges against a comparison of all pairs, byte by byte."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pto_wsp.errors import ScheduleError
from pto_wsp.lower.tasks import TaskTable
from pto_wsp.schedule import DepsMode
from pto_wsp.sim.dataflow import DataflowEngine
from pto_wsp.sim.hazards import share
from pto_wsp.sim.inorder import Counters
from pto_wsp.sim.settings import Settings
from tests.sim.oracle import Job, Oracle, Stuck
from tests.sim.test_dataflow import schedules

Int = NDArray[np.int64]
EXACT, OVERLAP = DepsMode.INFER_TENSOR_MAP_EXACT, DepsMode.INFER_BYTES_OVERLAP

ARRAY = np.zeros((24, 16), np.float32)
CELL = np.arange(ARRAY.size).reshape(ARRAY.shape)


@st.composite
def views(draw: Any) -> NDArray[Any]:
    """A two-dimensional view of ARRAY: mostly tiles of a grid, some that lie across, are strided or transposed."""
    kind = draw(st.sampled_from(["grid", "grid", "grid", "any", "rows", "strided", "turned", "flat"]))
    if kind == "grid":
        r, c = draw(st.integers(0, 5)), draw(st.integers(0, 3))
        return ARRAY[4 * r : 4 * r + 4, 4 * c : 4 * c + 4]
    r, c = draw(st.integers(0, 23)), draw(st.integers(0, 15))
    h, w = draw(st.integers(1, 24 - r)), draw(st.integers(1, 16 - c))
    if kind == "rows":
        return ARRAY[r : r + h]
    if kind == "strided":
        steps = draw(st.tuples(st.sampled_from([1, 2, -1]), st.sampled_from([1, 2, 3, -2])))
        return ARRAY[r : r + h, c : c + w][:: steps[0], :: steps[1]]
    if kind == "turned":
        return ARRAY[r : r + h, c : c + w].T
    if kind == "flat":
        return ARRAY.reshape(-1)[16 * r + c :][: draw(st.integers(1, 40))].reshape(1, -1)
    return ARRAY[r : r + h, c : c + w]


def cells(view: NDArray[Any]) -> frozenset[int]:
    offset = (view.ctypes.data - ARRAY.ctypes.data) // 4
    rows, cols = (np.arange(n) * (s // 4) for n, s in zip(view.shape, view.strides, strict=True))
    return frozenset((offset + rows[:, None] + cols).reshape(-1).tolist())


def words(view: NDArray[Any]) -> list[int]:
    return [view.ctypes.data, *view.strides, *view.shape]


def same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return cells(a) == cells(b)


Task = tuple[int, NDArray[Any], NDArray[Any]]  # cycles, tile that is read, tile that is written


def conflict(a: Task, b: Task, exact: bool) -> bool:
    pairs = [(a[1], b[2]), (a[2], b[1]), (a[2], b[2])]
    return any(same(x, y) if exact else cells(x) & cells(y) for x, y in pairs)


def simulate(tasks: list[Task], schedule: Settings, buckets: tuple[int, int]) -> tuple[list[int], Counters]:
    uses: Any = SimpleNamespace(
        params=2,
        uses=np.array([0, 4, 0, 0, 4, 1], np.int64),
        spaces=np.array([ARRAY.ctypes.data, 64, *buckets], np.int64),
    )
    calls: Any = (SimpleNamespace(task=SimpleNamespace(after=())),)
    engine = DataflowEngine(schedule, calls, uses=uses, units=(1,), record=True)
    table = TaskTable.empty(len(tasks), 10, 0)
    table.count = len(tasks)
    table.kernel[:], table.leaf[:] = 0, 0
    for k, (cycles, read, write) in enumerate(tasks):
        table.cycles[k] = cycles
        table.args[k] = words(read) + words(write)
    engine.play(table)
    return engine.starts()[0].start.tolist(), engine.counters()


TASKS = st.lists(st.tuples(st.integers(0, 20), views(), views()), min_size=1, max_size=14)
BUCKETS = st.sampled_from([(4, 16), (1, 4), (7, 20), (100, 64)])


SCHEDULES = schedules().filter(lambda s: s.pools != "custom").map(lambda s: replace(s, keys=(), unit="tasks"))
"""All directives that need no key of the tasks."""


@settings(max_examples=200)
@given(TASKS, SCHEDULES, BUCKETS)
def test_overlaps_become_edges(tasks: list[Task], schedule: Settings, buckets: tuple[int, int]) -> None:
    check(tasks, replace(schedule, infer=OVERLAP), buckets, exact=False)


@settings(max_examples=100)
@given(TASKS, SCHEDULES, BUCKETS)
def test_identical_regions_become_edges(tasks: list[Task], schedule: Settings, buckets: tuple[int, int]) -> None:
    # Regions are identical here if their elements are: strides written differently are left out.
    tasks = [(c, *map(plain, tiles)) for c, *tiles in tasks]  # type: ignore[misc]
    check(tasks, replace(schedule, infer=EXACT), buckets, exact=True)


def plain(view: NDArray[Any]) -> NDArray[Any]:
    return ARRAY[:4, :4] if view.strides != (64, 4) or 1 in view.shape else view


def check(tasks: list[Task], schedule: Settings, buckets: tuple[int, int], exact: bool) -> None:
    before = [{e for e in range(k) if conflict(tasks[e], tasks[k], exact)} for k in range(len(tasks))]
    jobs = [Job(t[0], edges, pool=1 if schedule.widths else 0) for t, edges in zip(tasks, before, strict=True)]
    try:
        expected = Oracle(schedule, jobs, list(schedule.widths) or [schedule.workers]).run()
    except Stuck:
        with pytest.raises(ScheduleError):
            simulate(tasks, schedule, buckets)
        return
    start, counters = simulate(tasks, schedule, buckets)
    assert start == expected.start
    apart = schedule.window == 0 and schedule.gen_cycles == 0 and not schedule.streams
    if exact and apart and not any(before):  # all in the window together, none ordered by others
        assert counters.unseen_overlaps == sum(
            conflict(tasks[e], tasks[k], False) for k in range(len(tasks)) for e in range(k)
        )
    else:
        assert counters.unseen_overlaps == 0 or exact


@settings(max_examples=300)
@given(views(), views())
def test_share(a: NDArray[Any], b: NDArray[Any]) -> None:
    def region(view: NDArray[Any]) -> tuple[int, ...]:
        low = min(cells(view)) * 4
        (outer, inner), (rows, cols) = map(abs, view.strides), view.shape
        return (low, 4, outer, rows, cols, inner)

    assert share(*region(a), *region(b)) == bool(cells(a) & cells(b))


def test_overlaps_are_not_merged() -> None:
    """a and c both overlap b, but not each other: c does not wait for a."""
    row = ARRAY.reshape(-1)
    a, b, c = (row[k : k + 8].reshape(1, 8) for k in (0, 4, 10))
    far = row[200:208].reshape(1, 8)
    free = Settings("", 9, 0, "dataflow", bound=False, infer=OVERLAP)
    start, _ = simulate([(50, far, a), (5, far, c)], free, (1, 16))
    assert start == [0, 0]
    tasks = [(50, far, a), (5, far, c), (5, far, b)]
    start, _ = simulate(tasks, free, (1, 16))
    assert start == [0, 0, 50]


def test_many_readers_then_a_writer_then_readers() -> None:
    x, y = ARRAY[:4, :4], [ARRAY[4 * k + 4 : 4 * k + 8, 4:8] for k in range(5)]
    tasks = [(10, x, y[k]) for k in range(5)] + [(10, y[0], x)] + [(10, x, y[k]) for k in range(5)]
    for mode in (EXACT, OVERLAP):
        start, counters = simulate(tasks, Settings("", 9, 0, "dataflow", bound=False, infer=mode), (4, 16))
        assert start == [0] * 5 + [10] + [20] * 5
        assert counters.critical_path_cycles == 30
