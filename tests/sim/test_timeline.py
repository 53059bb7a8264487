"""Timelines: spans, text, Chrome trace and picture of the runs whose numbers are known."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pto_wsp.errors import UsageError
from pto_wsp.lower.tasks import ENTER_SEQUENTIAL, EXIT, TaskTable
from pto_wsp.sim import picture
from pto_wsp.sim.inorder import InOrderEngine, Starts, Wait
from pto_wsp.sim.stats import ProgramStats
from pto_wsp.sim.timeline import Recorder, Span, Timeline, compare_timelines


def timeline_of(durations: list[int], workers: int, window: int = 0, ordered: bool = False) -> Timeline:
    """Independent (or ordered) tasks of two kernels in turn; task i is called with axes [i // 2, i % 2]."""
    body = [(i % 2, d, i) for i, d in enumerate(durations)]
    rows = [(ENTER_SEQUENTIAL, 0, 0), *body, (EXIT, 0, 0)] if ordered else body
    engine, recorder = InOrderEngine(workers, window), Recorder()
    for first in range(0, len(rows), 4):
        chunk = rows[first : first + 4]
        table = TaskTable.empty(4, words=0, axes=2)
        table.count = len(chunk)
        for at, (kernel, cycles, i) in enumerate(chunk):
            table.kernel[at] = table.leaf[at] = kernel
            table.cycles[at], table.axes[at] = cycles, (i // 2, i % 2)
        starts = engine.play(table.kernel[: table.count], table.cycles[: table.count], record=True)
        assert isinstance(starts, Starts)
        recorder.add(table, starts)
    return recorder.timeline("blocks", workers, (("scale", 2), ("shift", 1)))


@pytest.fixture
def six() -> Timeline:
    return timeline_of([14, 6, 8, 6, 14, 8], workers=3, window=2)


def test_spans(six: Timeline) -> None:
    assert len(six) == 6
    assert six[0] == Span(0, "scale", (0, 0), 0, 0, 14, Wait.NOTHING, 0, critical=True)
    assert six[2] == Span(2, "scale", (1, 0), 2, 6, 14, Wait.WINDOW_FULL, 6, cause=1)
    assert six[-1] == six[5]
    assert six[5].axes == (2,)
    assert six.axes[5].tolist() == [2, 0]  # the second value is none of this call's: what lay there is not shown
    assert [(s.worker, s.start, s.end) for s in six] == [
        (0, 0, 14), (1, 0, 6), (2, 6, 14), (0, 14, 20), (1, 14, 28), (2, 20, 28)
    ]  # fmt: skip
    assert str(six[2]) == "#2 scale[1, 0] on worker 2: 6 to 14, waited for WINDOW_FULL of #1 (6 cycles idle)"
    assert sum(s.idle for s in six if s.worker == 2) + 16 == 28
    with pytest.raises(IndexError):
        six[6]


def test_text(six: Timeline) -> None:
    assert six.text(width=28).splitlines() == [
        "blocks: 6 tasks, 28 cycles",
        "            0      7      14     21",
        "worker 0    aaaaaaaaaaaaaaBBBBBB........",
        "worker 1    bbbbbb........AAAAAAAAAAAAAA",
        "worker 2    ......aaaaaaaa......BBBBBBBB",
        "kernels     a = scale, b = shift",
        "waited for  IN_ORDER 1, WINDOW_FULL 3",
        "critical    2 tasks: #0 > #4; 28 of 28 cycles are work; IN_ORDER 1",
    ]
    assert "... and 2 more workers" in six.text(workers=1)
    assert six.table(first=4).splitlines()[0].startswith("#4 scale[2, 0] on worker 1: 14 to 28")
    assert repr(six) == six.text()


def test_ordered_tasks_wait_for_dependencies() -> None:
    chain = timeline_of([5, 5, 5], workers=2, ordered=True)
    assert [s.wait for s in chain] == [Wait.NOTHING, Wait.DEPENDENCY, Wait.DEPENDENCY]
    assert chain.total_cycles == 15


def test_empty_timeline() -> None:
    nothing = Recorder().timeline("nothing", 2, ())
    assert len(nothing) == nothing.total_cycles == 0
    assert nothing.text().startswith("nothing: 0 tasks, 0 cycles")
    assert list(nothing) == []


def test_causes(six: Timeline) -> None:
    assert six.causes is not None
    assert six.causes.tolist() == [-1, -1, 1, 0, 0, 3]
    assert six.critical_path.tolist() == [0, 4]
    assert [s.cause for s in timeline_of([5, 5, 5], workers=2, ordered=True)] == [-1, 0, 1]
    busy = timeline_of([5, 3, 7, 1], workers=2)
    assert [(s.wait, s.cause) for s in busy][2:] == [(Wait.WORKER_BUSY, 0), (Wait.WORKER_BUSY, 1)]


def test_records(six: Timeline) -> None:
    rows = six.records()
    assert rows[5] == {
        "task": 5, "kernel": "shift", "axes": (2,), "worker": 2, "start": 20, "end": 28, "cycles": 8,
        "wait": "WINDOW_FULL", "cause": 3, "idle": 6, "critical": False,
    }  # fmt: skip
    assert [row["task"] for row in rows if row["critical"]] == [0, 4]
    assert json.loads(json.dumps(rows))[0]["cause"] is None
    assert timeline_of([], workers=2).records() == []


def check_trace(events: list[dict[str, Any]], workers: int) -> None:
    """Slices nest, arrows begin and end inside slices, counters end at 0, every track has a name."""
    lanes: dict[int, list[tuple[float, float]]] = {w: [] for w in range(workers)}
    for event in events:
        if event["ph"] == "X":
            lanes[event["tid"]].append((round(event["ts"], 6), round(event["ts"] + event["dur"], 6)))
    for spans in lanes.values():
        stack: list[tuple[float, float]] = []
        for begin, end in sorted(spans, key=lambda span: (span[0], -span[1])):
            while stack and stack[-1][1] <= begin:
                stack.pop()
            assert not stack or end <= stack[-1][1], "a slice ends after the one around it"
            stack.append((begin, end))
    starts = {e["id"]: e for e in events if e["ph"] == "s"}
    ends = {e["id"]: e for e in events if e["ph"] == "f"}
    assert starts.keys() == ends.keys() and len(ends) == sum(e["ph"] == "f" for e in events)
    for number, arrow in starts.items():
        assert arrow["ts"] <= ends[number]["ts"] and ends[number]["bp"] == "e"  # at the slice around it, not after it
        assert all(any(a <= e["ts"] <= b for a, b in lanes[e["tid"]]) for e in (arrow, ends[number]))
    assert {e["name"] for e in events if e["ph"] == "C"}
    last = {e["name"]: next(iter(e["args"].values())) for e in events if e["ph"] == "C"}
    assert set(last.values()) == {0}
    assert {e["tid"] for e in events if e["name"] == "thread_name"} == set(lanes)
    assert all(e["ph"] in "MXsfC" and e["pid"] == 1 for e in events)


def test_chrome_trace(six: Timeline, tmp_path: Path) -> None:
    trace = json.loads(six.save(tmp_path / "run.json").read_text())
    check_trace(trace["traceEvents"], 3)
    slices = [event for event in trace["traceEvents"] if event["ph"] == "X" and event["cat"] in ("scale", "shift")]
    assert [(e["tid"], e["ts"], e["dur"]) for e in slices] == [(s.worker, s.start, s.end - s.start) for s in six]
    assert slices[2]["name"] == "scale[1, 0]"
    assert slices[2]["args"]["waited for"] == "WINDOW_FULL" and slices[2]["args"]["cause"] == "task #1"
    assert trace["otherData"]["unit"] == "1 us = 1 cycle"
    names = [e["args"]["name"] for e in trace["traceEvents"] if e["ph"] == "M" and e["name"] == "thread_name"]
    assert names == ["worker 0", "worker 1", "worker 2"]
    stalls = [event for event in trace["traceEvents"] if event.get("cat") == "stall"]
    assert [(e["name"], e["ts"], e["dur"]) for e in stalls] == [("WINDOW_FULL", 0, 6), ("IN_ORDER", 6, 8),
                                                                ("WINDOW_FULL", 14, 6)]  # fmt: skip
    window = [e for e in trace["traceEvents"] if e["ph"] == "C" and e["name"] == "tasks in the window"]
    assert max(e["args"]["tasks"] for e in window) == 2  # as many as it has room for
    arrows = [event for event in trace["traceEvents"] if event["ph"] == "s"]
    assert [(e["tid"], e["ts"]) for e in arrows] == [(0, 13.5)]


def test_chrome_trace_counts_ready_tasks(six: Timeline) -> None:
    """At each time as many as were ready by then and have not started."""
    ready = np.maximum(six.start - 5, 0)
    events = dataclasses.replace(six, ready=ready).to_chrome_trace()["traceEvents"]
    counts = {e["ts"]: e["args"]["tasks"] for e in events if e["ph"] == "C" and e["name"] == "tasks ready"}
    assert counts == {t: int(((ready <= t) & (six.start > t)).sum()) for t in {*ready.tolist(), *six.start.tolist()}}


def test_chrome_trace_at_a_clock(six: Timeline) -> None:
    trace = six.to_chrome_trace(clock_hz=2e9)
    check_trace(trace["traceEvents"], 3)
    assert trace["otherData"]["unit"] == "real time at 2 GHz"
    assert max(e["ts"] + e["dur"] for e in trace["traceEvents"] if e["ph"] == "X") == pytest.approx(0.014)
    with pytest.raises(UsageError, match="cycles per second"):
        six.to_chrome_trace(clock_hz=0)


def test_picture(six: Timeline, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    png = six.save(tmp_path / "run.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert len(png) > 5000
    figure: Any = six.plot()
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert six.plot(figure.axes[0]) is figure
    assert timeline_of([], workers=2).save(tmp_path / "empty.svg").read_text().endswith("</svg>\n")


def labels_of(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_picture_says_why_workers_are_idle(six: Timeline) -> None:
    pytest.importorskip("matplotlib")
    assert picture.WAITS.keys() == set(Wait) - {Wait.NOTHING}
    assert len({colour for colour, _ in picture.WAITS.values()} | set(picture.KERNEL_COLOURS)) == len(
        picture.WAITS
    ) + len(picture.KERNEL_COLOURS)
    bounded = replace(six, bounds={"work / workers": 19, "critical path": 14, "fullest worker": 19}, title="window 2")
    figure: Any = bounded.plot()
    assert labels_of(figure) == [
        "scale", "shift", "idle: an earlier task is held up", "idle: the window is full", "critical path",
        "lower bound: work / workers", "lower bound: critical path",
    ]  # fmt: skip
    assert figure.axes[0].get_title("left") == "blocks: window 2"
    assert figure.axes[0].get_title("right") == "6 tasks, 28 cycles, workers 67% busy"


def test_a_picture_of_more_tasks_than_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares of time instead of bars: of each worker and column they sum up to what it was doing."""
    pytest.importorskip("matplotlib")
    many = timeline_of([14, 6, 8, 6, 14, 8] * 20, workers=7, window=5)
    monkeypatch.setattr(picture, "MOST_BARS", 50)
    figure: Any = many.plot()
    assert len(figure.axes[0].images) == 1 and not figure.axes[0].collections[1:]
    assert labels_of(figure)[:2] == ["scale", "shift"]
    monkeypatch.setattr(picture, "MOST_LANES", 3)
    assert len(figure.axes[0].get_yticks()) == 7 and len(many.plot().axes[0].get_yticks()) == 3
    spans = many.start, many.end, many.worker.astype(np.int64)
    found = picture._share(*spans, 7, 40, many.total_cycles)
    assert found.max() <= 1 + 1e-9
    np.testing.assert_allclose(found.sum(axis=1) * many.total_cycles / 40, many.busy)


def test_several_timelines_in_one_picture(six: Timeline, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    slow = timeline_of([14, 6, 8, 6, 14, 8], workers=1)
    figure: Any = compare_timelines({"three workers": six, "one worker": slow})
    frames = [ax for ax in figure.axes if ax.get_title("left")]
    assert [ax.get_title("left") for ax in frames] == ["three workers", "one worker"]
    assert [ax.get_xlim() for ax in frames] == [(0, 56)] * 2
    figure.savefig(tmp_path / "both.pdf")
    assert len(compare_timelines([six, slow, slow]).axes) == 3
    for wrong in ([], {}, [3]):
        with pytest.raises(UsageError, match="compare_timelines"):
            compare_timelines(wrong)


def test_stats_read_well() -> None:
    engine = InOrderEngine(workers=3, window=2)
    engine.play(np.zeros(6, np.int32), np.array([14, 6, 8, 6, 14, 8]))
    stats = ProgramStats.of(engine.counters(), compile_ms=1.5)
    assert (stats.total_cycles, stats.task_count, stats.work_cycles) == (28, 6, 56)
    assert stats.utilisation == pytest.approx(56 / 84)
    assert stats.lower_bounds == {"work / workers": 19, "critical path": 14, "fullest worker": 20}
    text = str(stats)
    assert "total cycles     28" in text
    assert "WINDOW_FULL      3 stalls, 20 cycles" in text
    assert "0.0 ms" in repr(ProgramStats())
    for tasks, end in ((8, "#6 #7"), (9, "#6 #7 #8"), (10, "#6 #7 ... #9")):
        path = str(ProgramStats(critical_path=np.arange(tasks), critical_path_tasks=tasks))
        assert f"{tasks} tasks: #0 #1 #2 #3 #4 #5 {end}\n" in path
    with pytest.raises(AttributeError):
        stats.total_cycles = 1  # type: ignore[misc]


def test_importing_needs_no_heavy_library() -> None:
    code = (
        "import sys, pto_wsp.sim.timeline, pto_wsp.sim.stats; print([m for m in HEAVY if m in sys.modules])"
    )
    heavy = "HEAVY = ('numba', 'llvmlite', 'matplotlib', 'tqdm'); "
    assert subprocess.check_output([sys.executable, "-c", heavy + code], text=True).strip() == "[]"
