"""Timeline -> Chrome-trace JSON, as ui.perfetto.dev reads it.

    process   the run                             thread   a worker
    slice     "task #17", from the cycle at which its worker had nothing to do to its end; inside it, one after the
              other, what it waited for (cat "stall") and the kernel itself (cat: its name)
    arrow     from each task of the critical path to the next
    counter   tasks in the window; those of them that are ready and have not started; workers that run a task; of the
              others, those whose next task waits, by reason

Times in such a file are microseconds. A cycle is written as one, or as its length at a clock: otherData says which.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from pto_wsp.errors import UsageError
from pto_wsp.sim.inorder import Wait

if TYPE_CHECKING:
    from pto_wsp.sim.timeline import Timeline

__all__ = ["trace_of"]

PID = 1
Event = dict[str, Any]


def trace_of(timeline: Timeline, clock_hz: float | None = None) -> dict[str, Any]:
    """The trace as a dict that json.dumps takes.

    clock_hz   cycles per second; None: a cycle is shown as a microsecond
    """
    if clock_hz is not None and not (isinstance(clock_hz, (int, float)) and clock_hz > 0):
        raise UsageError(f"clock_hz is the number of cycles per second, such as 1.85e9; got {clock_hz!r}")
    scale = 1.0 if clock_hz is None else 1e6 / clock_hz
    unit = "1 us = 1 cycle" if clock_hz is None else f"real time at {clock_hz / 1e9:g} GHz"
    about = {"unit": unit, "cycles": timeline.total_cycles, "tasks": len(timeline), "workers": timeline.workers}
    about["schedule"] = timeline.title
    events = [*_tracks(timeline, unit), *_slices(timeline, scale)]
    events += [*_arrows(timeline, scale), *_counters(timeline, scale)]
    return {"traceEvents": events, "displayTimeUnit": "ns", "otherData": about}


def _tracks(timeline: Timeline, unit: str) -> Iterator[Event]:
    yield {"name": "process_name", "ph": "M", "pid": PID, "args": {"name": f"{timeline.name} ({unit})"}}
    for worker in range(timeline.workers):
        yield _named("thread_name", worker, {"name": timeline.lane(worker)})
        yield _named("thread_sort_index", worker, {"sort_index": worker})


def _named(what: str, worker: int, args: dict[str, Any]) -> Event:
    return {"name": what, "ph": "M", "pid": PID, "tid": worker, "args": args}


def _slices(timeline: Timeline, scale: float) -> Iterator[Event]:
    for span in timeline:
        cycles = span.end - span.start
        args = {
            "task": span.task, "axes": list(span.axes), "start cycle": span.start, "cycles": cycles,
            "waited for": span.wait.name, "cause": f"task #{span.cause}" if span.cause >= 0 else "",
            "idle cycles before": span.idle, "on the critical path": span.critical,
        }  # fmt: skip
        if span.idle:
            yield _slice(f"task #{span.task}", "task", span.worker, span.start - span.idle, span.end, scale, args)
            yield _slice(span.wait.name, "stall", span.worker, span.start - span.idle, span.start, scale, {
                "until": args["cause"]
            })  # fmt: skip
        yield _slice(span.name, span.kernel, span.worker, span.start, span.end, scale, args)


def _slice(name: str, category: str, worker: int, begin: int, end: int, scale: float, args: dict[str, Any]) -> Event:
    times = {"ts": begin * scale, "dur": end * scale - begin * scale}
    return {"name": name, "cat": category, "ph": "X", **times, "pid": PID, "tid": worker, "args": args}


def _arrows(timeline: Timeline, scale: float) -> Iterator[Event]:
    path = timeline.critical_path.tolist()
    for number, (first, second) in enumerate(zip(path[:-1], path[1:], strict=True)):
        begin, end, then = (int(t) for t in (timeline.start[first], timeline.end[first], timeline.start[second]))
        inside = min(max(begin, end - 0.5), then)  # an arrow begins inside a slice, and its end is not in it
        both = {"name": "critical path", "cat": "critical", "id": number, "pid": PID}
        yield {**both, "ph": "s", "ts": inside * scale, "tid": int(timeline.worker[first])}
        yield {**both, "ph": "f", "bp": "e", "ts": then * scale, "tid": int(timeline.worker[second])}


def _counters(timeline: Timeline, scale: float) -> Iterator[Event]:
    idle = timeline.idle
    spans = {"workers that run a task": (timeline.start, timeline.end)}
    if timeline.entered is not None:
        spans["tasks in the window"] = timeline.entered, timeline.end
    if timeline.ready is not None:
        spans["tasks ready"] = timeline.ready, timeline.start
    for wait in Wait:
        of = np.flatnonzero((timeline.wait == wait) & (idle > 0))
        if len(of):
            spans[f"workers idle: {wait.name}"] = timeline.start[of] - idle[of], timeline.start[of]
    for counter, (begins, ends) in spans.items():
        unit = counter.split()[0]
        times = np.concatenate([begins, ends])
        steps = np.concatenate([np.ones(len(begins), np.int64), -np.ones(len(ends), np.int64)])
        order = np.argsort(times, kind="stable")
        times, total = times[order], np.cumsum(steps[order])
        last = np.append(times[1:] != times[:-1], True) if len(times) else np.zeros(0, bool)
        for time, value in zip(times[last].tolist(), total[last].tolist(), strict=True):
            yield {"name": counter, "ph": "C", "ts": time * scale, "pid": PID, "args": {unit: value}}
