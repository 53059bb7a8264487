"""Timeline: which task ran where and when, and what it waited for. As text, records, Chrome-trace JSON and a picture.

A timeline is a struct of arrays, one entry per task in program order; `timeline[17]` and iteration make Spans
of it. Start reading at `Timeline`.
"""

from __future__ import annotations

import os
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pto_wsp.arguments import integer
from pto_wsp.lower.tasks import TaskTable
from pto_wsp.sim import causes
from pto_wsp.sim.inorder import Starts, Wait

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Recorder", "Span", "Timeline", "compare_timelines"]


@dataclass(frozen=True)
class Span:
    """One task. Times are in cycles."""

    task: int
    """Number in program order, from 0."""
    kernel: str
    axes: tuple[int, ...]
    """The values in `kernel[...]`."""
    worker: int
    start: int
    end: int
    wait: Wait
    """What it was waiting for until `start`."""
    idle: int
    """Cycles for which its worker had nothing to do before it."""
    cause: int = -1
    """The task that it was waiting for: until its end, or with RATE_LIMIT its start. -1: none that is known."""
    critical: bool = False
    """Is it on the critical path of the schedule? See `Timeline.critical_path`."""

    @property
    def name(self) -> str:
        """`kernel[axis values]`, as the user wrote the call."""
        return f"{self.kernel}[{', '.join(map(str, self.axes))}]" if self.axes else self.kernel

    def __str__(self) -> str:
        why = "" if self.wait is Wait.NOTHING else f", waited for {self.wait.name}"
        why += f" of #{self.cause}" if self.cause >= 0 else ""
        idle = f" ({self.idle:,} cycles idle)" if self.idle else ""
        mark = ", critical" if self.critical else ""
        return f"#{self.task} {self.name} on worker {self.worker}: {self.start:,} to {self.end:,}{why}{idle}{mark}"


MOST_COLUMNS = 10_000  # of a timeline as text


@dataclass(frozen=True, eq=False, repr=False)
class Timeline:
    """All tasks of a simulated run, in program order.

    calls   one entry per kernel call of the workload: kernel name and number of axis values
    """

    name: str
    workers: int
    calls: tuple[tuple[str, int], ...]
    call: NDArray[np.int32]
    axes: NDArray[np.int64]
    """[tasks, most axis values]; 0 beyond those of the task's call"""
    worker: NDArray[np.int32]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    wait: NDArray[np.uint8]
    lanes: tuple[str, ...] = ()
    """Names of the workers, where they have any: the processes of a pipeline."""
    causes: NDArray[np.int64] | None = None
    """Per task, the task that it was waiting for; -1: none that is known."""
    entered: NDArray[np.int64] | None = None
    """Per task, when it entered the task window: was issued, or generated. None in a pipeline."""
    ready: NDArray[np.int64] | None = None
    """Per task, when its predecessors had ended; None under the in-order engine, which does not ask before issue."""
    title: str = ""
    """The schedule, in a few words."""
    bounds: Mapping[str, int] = field(default_factory=dict)
    """Makespans that cannot be beaten, by name; see `ProgramStats.lower_bounds`."""

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, task: int) -> Span:
        return self._span(range(len(self))[task], int(self.idle[task]))

    def __iter__(self) -> Iterator[Span]:
        return (self._span(task, int(idle)) for task, idle in enumerate(self.idle))

    def _span(self, task: int, idle: int) -> Span:
        kernel, axes = self.calls[self.call[task]]
        return Span(
            task=task,
            kernel=kernel,
            axes=tuple(self.axes[task, :axes].tolist()),
            worker=int(self.worker[task]),
            start=int(self.start[task]),
            end=int(self.end[task]),
            wait=Wait(int(self.wait[task])),
            idle=idle,
            cause=-1 if self.causes is None else int(self.causes[task]),
            critical=bool(self.is_critical[task]),
        )

    def lane(self, worker: int) -> str:
        """What a worker is called."""
        return self.lanes[worker] if self.lanes else f"worker {worker}"

    @property
    def total_cycles(self) -> int:
        """The end of the last task."""
        return int(self.end.max(initial=0))

    @cached_property
    def critical_path(self) -> NDArray[np.int64]:
        """What the makespan consists of, in order of time: the task that ends last, before it the one that it was
        waiting for, before that the one that this was waiting for, and so on. A run gets shorter only where these do.

        It belongs to this schedule: a task may wait for its worker or for the window. `stats.critical_path_cycles` is
        the longest chain of edges alone, which no schedule can beat.
        """
        if self.causes is None:
            return np.zeros(0, np.int64)
        return causes.chain(self.causes, self.end)

    @cached_property
    def is_critical(self) -> NDArray[np.bool_]:
        """Per task, whether it is on the critical path."""
        mask = np.zeros(len(self), bool)
        mask[self.critical_path] = True
        return mask

    @property
    def busy(self) -> NDArray[np.int64]:
        """Per worker, cycles spent running tasks."""
        found = np.zeros(self.workers, np.int64)
        np.add.at(found, self.worker, self.end - self.start)
        return found

    @cached_property
    def kernels(self) -> tuple[str, ...]:
        """Kernel names in order of first call."""
        return tuple(dict.fromkeys(name for name, _ in self.calls))

    @cached_property
    def kernel(self) -> NDArray[np.int64]:
        """Per task, the index of its kernel in `kernels`."""
        index = {name: i for i, name in enumerate(self.kernels)}
        return np.array([index[name] for name, _ in self.calls], np.int64)[self.call]

    @cached_property
    def idle(self) -> NDArray[np.int64]:
        """Per task, the cycles for which its worker had nothing to do before it."""
        idle = np.zeros(len(self), np.int64)
        for tasks in self._lanes():
            idle[tasks] = self.start[tasks] - np.concatenate([[0], self.end[tasks[:-1]]])
        return idle

    def _lanes(self, workers: int | None = None) -> list[NDArray[np.int64]]:
        """Per worker, its tasks in the order they ran."""
        order = np.lexsort((self.end, self.start, self.worker))
        edges = np.searchsorted(self.worker[order], np.arange((workers or self.workers) + 1))
        return [order[a:b] for a, b in zip(edges[:-1], edges[1:], strict=True)]

    # ---- text ----

    def text(self, width: int = 72, workers: int = 32) -> str:
        """One row per worker, one letter per kernel, changing case from task to task; `.` is idle.

        width    columns of the time axis; each shows the task that runs at its middle
        workers  rows at most
        """
        width, workers = integer(width, "width", 1, MOST_COLUMNS), integer(workers, "workers", 0)
        names = dict(zip(self.kernels, string.ascii_lowercase + "#" * len(self.calls), strict=False))
        rows = [self._axis(width)]
        shown = min(workers, self.workers)
        rows += [f"{self.lane(w)[:11]:<11} {self._row(tasks, width)}" for w, tasks in enumerate(self._lanes(shown))]
        if shown < self.workers:
            rows.append(f"... and {self.workers - shown:,} more workers")
        title = f"{self.name}: {len(self):,} tasks, {self.total_cycles:,} cycles"
        waits = np.bincount(self.wait, minlength=len(Wait))
        reasons = [f"{reason.name} {waits[reason]:,}" for reason in Wait if reason and waits[reason]]
        legend = [f"{letter} = {name}" for name, letter in names.items()]
        return "\n".join(
            [
                title,
                *rows,
                "kernels     " + ", ".join(legend),
                *(["waited for  " + ", ".join(reasons)] if reasons else []),
                *self._critical_text(),
            ]
        )

    def _critical_text(self) -> list[str]:
        """The critical path in a line: how much of it is work, what its tasks waited for, the last of them."""
        path = self.critical_path
        if not len(path):
            return []
        until = np.append(self.start[path[1:]], self.end[path[-1]])
        work = int((np.minimum(self.end[path], until) - self.start[path]).sum())
        waits = np.bincount(self.wait[path], minlength=len(Wait))
        reasons = ", ".join(f"{reason.name} {waits[reason]:,}" for reason in Wait if reason and waits[reason])
        shown = [f"#{task}" for task in path.tolist()[-6:]]
        names = " > ".join(["...", *shown] if len(path) > 6 else shown)
        share = f"{work:,} of {self.total_cycles:,} cycles are work"
        return [f"critical    {len(path):,} tasks: {names}; {share}{'; ' + reasons if reasons else ''}"]

    def _axis(self, width: int) -> str:
        total, step = self.total_cycles, max(width // 4, 1)
        ticks = [f"{total * at // width:,}".ljust(step) for at in range(0, width, step)]
        return " " * 12 + "".join(ticks).rstrip()

    def _row(self, tasks: NDArray[np.int64], width: int) -> str:
        middles = (np.arange(width) * 2 + 1) * self.total_cycles // (2 * width)
        at = np.searchsorted(self.start[tasks], middles, side="right") - 1
        row = []
        kernels = self.kernel
        for position, middle in zip(at.tolist(), middles.tolist(), strict=True):
            if position < 0 or self.end[tasks[position]] <= middle:
                row.append(".")
                continue
            kernel = int(kernels[tasks[position]])
            letter = string.ascii_lowercase[kernel] if kernel < 26 else "#"
            row.append(letter.upper() if position % 2 else letter)
        return "".join(row)

    def records(self) -> list[dict[str, Any]]:
        """All tasks as a table: a dict per task, which pandas.DataFrame takes as it is.

        task, kernel, axes (a tuple), worker, start, end, cycles, wait (a name such as "DEPENDENCY"), cause (a task or
        None), idle (cycles for which the worker had nothing to do before), critical
        """
        columns = (self.call, self.axes, self.worker, self.start, self.end, self.wait, self.idle, self.is_critical)
        none = np.full(len(self), -1) if self.causes is None else self.causes
        names = [wait.name for wait in Wait]
        return [
            {
                "task": task, "kernel": self.calls[call][0], "axes": tuple(axes[: self.calls[call][1]]),
                "worker": worker, "start": start, "end": end, "cycles": end - start, "wait": names[wait],
                "cause": cause if cause >= 0 else None, "idle": idle, "critical": critical,
            }
            for task, (call, axes, worker, start, end, wait, idle, critical, cause) in enumerate(
                zip(*(column.tolist() for column in (*columns, none)), strict=True)
            )
        ]  # fmt: skip

    def table(self, first: int = 0, count: int = 20) -> str:
        """Some tasks, one line each: number, call, worker, cycles, what it waited for."""
        return "\n".join(str(self[task]) for task in range(first, min(first + count, len(self))))

    def __repr__(self) -> str:
        return self.text()

    # ---- Perfetto ----

    def to_chrome_trace(self, clock_hz: float | None = None) -> dict[str, Any]:
        """Chrome-trace JSON as a dict, for ui.perfetto.dev: a track per worker, with each task and what it waited for,
        arrows along the critical path, and a counter of running tasks.

        clock_hz   show time at this clock; without it a cycle is shown as a microsecond
        """
        from pto_wsp.sim.perfetto import trace_of

        return trace_of(self, clock_hz)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the timeline: `.json` for a trace viewer, `.txt` as text, anything else as a picture."""
        from pathlib import Path

        path = Path(path)
        if path.suffix == ".json":
            import json

            path.write_text(json.dumps(self.to_chrome_trace()))
        elif path.suffix == ".txt":
            path.write_text(self.text() + "\n")
        else:
            figure = self.plot()
            figure.savefig(path, dpi=150)
        return path

    # ---- picture ----

    def plot(self, ax: Axes | None = None) -> Figure:
        """Draw with matplotlib (the `plot` extra): a lane per worker, a colour per kernel, for each gap what the next
        task was waiting for, the critical path, how busy each worker was, and lower bounds of the makespan.

        Where tasks are too many to be seen one by one, what is drawn is the share of each kernel and of each reason to
        wait in each of a few hundred stretches of time.
        """
        from pto_wsp.sim.picture import draw

        return draw(self, ax)


def compare_timelines(timelines: Any) -> Figure:
    """Draw several timelines with matplotlib (the `plot` extra), one below the other, on one axis of time.

    timelines   a dict of label -> Simulation, Timeline or Program, or a sequence of them
    raises      UsageError for an empty one
    """
    from pto_wsp.sim.picture import compare

    return compare(timelines)


class Recorder:
    """Collects the columns of a timeline while the chunks of a run pass by."""

    def __init__(self) -> None:
        self._parts: list[tuple[NDArray[Any], ...]] = []
        self._tasks = 0
        self._entered: list[NDArray[np.int64]] = []
        self._causes: list[NDArray[np.int64]] = []
        self._events: list[NDArray[np.int64]] = []  # what opens or closes, and the number of the next task

    def add(self, table: TaskTable, starts: Starts | None) -> None:
        """Keep the tasks of one chunk; without `starts` they are given at the end."""
        rows = np.flatnonzero(table.kernel[: table.count] >= 0)
        if starts is None:
            none = np.zeros(len(rows), np.int64)
            start, worker, wait = none, none.astype(np.int32), none.astype(np.uint8)
        else:
            start, worker, wait = starts.start[rows], starts.worker[rows], starts.wait[rows]
            if starts.entered is not None:
                self._entered.append(starts.entered[rows])
            if starts.cause is not None:
                self._causes.append(starts.cause[rows])
        self._parts.append((table.leaf[rows], table.axes[rows], worker, start, start + table.cycles[rows], wait))
        events = np.flatnonzero(table.kernel[: table.count] < 0)
        if len(events):
            before = self._tasks + np.searchsorted(rows, events)
            self._events.append(np.stack([table.kernel[events], before], axis=1).astype(np.int64))
        self._tasks += len(rows)

    def timeline(
        self,
        name: str,
        workers: int,
        calls: tuple[tuple[str, int], ...],
        starts: Starts | None = None,
        cause: NDArray[np.int64] | None = None,
    ) -> Timeline:
        """Everything added so far.

        starts   when each task started, if that was not known while they passed by
        cause    what each of them waited for, if an engine has recorded it
        """
        if not self._parts:
            none = np.zeros(0, np.int64)
            few, flags = none.astype(np.int32), none.astype(np.uint8)
            self._parts.append((few, none.reshape(0, 0), few, none, none, flags))
        call, axes, worker, start, end, wait = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        counts = np.array([count for _, count in calls], np.intp)
        axes[np.arange(axes.shape[1]) >= counts[call][:, None]] = 0  # a table's row means nothing there
        if starts is not None:
            worker, start, end, wait = starts.worker, starts.start, end + starts.start, starts.wait
        found = Timeline(name, workers, calls, call, axes, worker, start, end, wait)
        if starts is not None:
            found = replace(found, entered=starts.entered, ready=starts.ready)
        elif self._entered:
            found = replace(found, entered=np.concatenate(self._entered))
        if cause is None and self._causes:
            cause = np.concatenate(self._causes)
        elif cause is None:
            events = np.concatenate([np.zeros(0, np.int64), *(part.reshape(-1) for part in self._events)])
            cause = causes.of_in_order(events, Starts(start, worker, wait), end, found._lanes())
        return replace(found, causes=causes.of_rate_limit(cause, start, wait))
