"""Why did a task start when it did? One task of a simulated run, with all that surrounds it.

In: a timeline, and the tasks that it was made from. Out: a TaskReport, whose text answers the question. Start reading
at `Reports.task`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pto_wsp.errors import SourceLine, UsageError
from pto_wsp.schedule import DepsMode
from pto_wsp.sim import races
from pto_wsp.sim.inorder import Wait
from pto_wsp.sim.touch import Touch, region_of, tasks_at, text_of

if TYPE_CHECKING:
    from pto_wsp.sim.simulation import Replay
    from pto_wsp.sim.timeline import Timeline

__all__ = ["Edge", "Region", "Reports", "TaskReport"]

_SHOWN = 4  # tasks of a list that the text names

_REASONS = {
    Wait.NOTHING: "nothing held it up",
    Wait.DEPENDENCY: "its predecessors",
    Wait.IN_ORDER: "the issue of an earlier task: issue is in program order",
    Wait.WINDOW_FULL: "room in the task window",
    Wait.WORKER_BUSY: "its worker",
    Wait.RATE_LIMIT: "the limit on starts per millisecond",
    Wait.START: "the start policy, or the rest of its batch",
    Wait.ORCHESTRATOR: "the orchestrator, which generated it then",
    Wait.CHANNEL_EMPTY: "a token",
    Wait.CHANNEL_FULL: "room in a channel",
}


@dataclass(frozen=True)
class Edge:
    """A task that comes directly before or after another one whatever the schedule does."""

    task: int
    kind: str
    """"structural": P.seq, sequential, a slot that was loaded from what the task wrote; "explicit": after=[...];
    "inferred": from what both touch."""


@dataclass(frozen=True)
class Region:
    """A tile that a task touches."""

    param: str
    tensor: str
    """dtype and shape of the array"""
    reads: bool
    writes: bool
    region: tuple[tuple[int, int], ...]
    """Per dimension of the array, first and last+1 index; () where its strides hide that."""

    def __str__(self) -> str:
        how = " and ".join(name for name, does in (("reads", self.reads), ("writes", self.writes)) if does)
        return f"{how} {self.param} = {self.tensor}{text_of(self.region) if self.region else ''}"


@dataclass(frozen=True, repr=False)
class TaskReport:
    """One task of a simulated run, and why it started when it did. Times are in cycles; print it."""

    task: int
    kernel: str
    axes: tuple[int, ...]
    line: SourceLine | None
    worker: int
    start: int
    end: int
    wait: Wait
    """What it was waiting for until `start`."""
    cause: int | None
    """The task that it was waiting for: until its end, or with RATE_LIMIT its start. None: no task that is known."""
    idle: int
    """For so long its worker had nothing to do before."""
    predecessors: tuple[Edge, ...]
    successors: tuple[Edge, ...]
    slack: int
    """By how much it could have ended later with no other task starting later, and the run ending no later."""
    critical: bool
    """Is it on the critical path of the schedule?"""
    regions: tuple[Region, ...]
    _around: tuple[str, str, str, str] = ("", "", "", "")

    @property
    def name(self) -> str:
        """`kernel[axis values]`."""
        return f"{self.kernel}[{', '.join(map(str, self.axes))}]" if self.axes else self.kernel

    @property
    def cycles(self) -> int:
        """Its duration."""
        return self.end - self.start

    def __repr__(self) -> str:
        lane, cause, before, after = self._around
        place = f" ({self.line})" if self.line is not None else ""
        rows = [
            ("", f"task #{self.task}: {self.name}{place}"),
            ("ran", f"on {lane}, cycles {self.start:,} to {self.end:,} ({self.cycles:,})"),
            ("waited for", self._reason(cause)),
            ("its worker", self._before_it()),
            ("predecessors", before),
            ("successors", after),
            ("slack", "none: on the critical path" if self.critical else f"{self.slack:,} cycles"),
            *(("touches" if not i else "", str(region)) for i, region in enumerate(self.regions)),
        ]
        return "\n".join(f"  {name:<14}{text}" if name or i else text for i, (name, text) in enumerate(rows))

    def _before_it(self) -> str:
        if self.idle:
            return f"had been idle for {self.idle:,} cycles"
        return "was busy until then" if self.start else "was free from the beginning"

    def _reason(self, cause: str) -> str:
        reason = _REASONS[self.wait]
        if self.wait is Wait.NOTHING:
            return f"NOTHING: {reason}"
        return f"{self.wait.name}: {reason}{f'; {cause}' if cause else ''}"


class Reports:
    """Makes the reports of one simulated run; what they have in common is worked out once."""

    def __init__(self, replay: Replay, timeline: Timeline) -> None:
        self.replay, self.timeline = replay, timeline

    def task(self, number: int) -> TaskReport:
        """The report of one task, by its number in program order; negative numbers count from the end.

        raises  UsageError when there is no such task
        """
        timeline, count = self.timeline, len(self.timeline)
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)):
            raise UsageError(f"a task is asked for by its number, 0 to {count - 1}; got {number!r}")
        if not -count <= number < count:
            some = f"they are numbered 0 to {count - 1:,}" if count else "nothing ran"
            raise UsageError(f"there is no task {number:,}: the run has {count:,} tasks; {some}")
        number = int(number) % count
        span = timeline[number]
        (touch,) = tasks_at(self.replay.snapshot, self.replay.expansion, [number])
        before, after = self._edges(number, True), self._edges(number, False)
        return TaskReport(
            task=number, kernel=span.kernel, axes=span.axes, line=touch.line, worker=span.worker, start=span.start,
            end=span.end, wait=span.wait, cause=span.cause if span.cause >= 0 else None, idle=span.idle,
            predecessors=before, successors=after, slack=self._slack(number, after), critical=span.critical,
            regions=self._regions(touch),
            _around=(timeline.lane(span.worker), self._cause(number), self._list(before, "end"),
                     self._list(after, "start")),
        )  # fmt: skip

    def _regions(self, touch: Touch) -> tuple[Region, ...]:
        tensors, places = self.replay.expansion.tensors, self.replay.snapshot.places
        found = []
        for tile in touch.tiles:
            place = places[tensors[tile.tensor]]
            tensor = f"{tensors[tile.tensor].dtype.value}{list(place.shape)}"
            region = region_of(place, tile.addresses())
            found.append(Region(tile.param, tensor, tile.reads, tile.writes, region))
        return tuple(found)

    @cached_property
    def _gathered(self) -> races.Gathered | None:
        """How the tasks are ordered, and what they touch; None in a pipeline."""
        if self.replay.expansion.pipeline is not None:
            return None
        return races.gather_all(self.replay.snapshot, self.replay.expansion)

    @cached_property
    def _stated(self) -> NDArray[np.int64]:
        """[edges, 2] what `after` and slots say: tasks, and loads as -1 - number."""
        if self._gathered is None:
            return np.zeros((0, 2), np.int64)
        return races.resolved(self.replay.snapshot, self._gathered)

    @cached_property
    def _inferred(self) -> NDArray[np.int64]:
        """[edges, 2] the edges that the schedule infers from regions, no more than needed."""
        settings, gathered = self.replay.settings, self._gathered
        if settings.infer is None or gathered is None:
            return np.zeros((0, 2), np.int64)
        return races.inferred_edges(self.replay.snapshot, gathered, settings.infer is DepsMode.INFER_TENSOR_MAP_EXACT)

    def _edges(self, task: int, before: bool) -> tuple[Edge, ...]:
        """Direct predecessors or successors."""
        gathered = self._gathered
        if gathered is None:
            return ()
        found: dict[int, str] = {}
        mine, other = (1, 0) if before else (0, 1)
        left, pairs = [task], self._stated
        while left:
            here = left.pop()
            for there in pairs[pairs[:, mine] == here][:, other].tolist():
                if there >= 0:
                    found.setdefault(there, "explicit" if here >= 0 else "structural")
                elif there not in left:
                    left.append(there)
        for there in self._inferred[self._inferred[:, mine] == task][:, other].tolist():
            found.setdefault(there, "inferred")
        for there in neighbours(gathered.labels, task, before).tolist():
            found.setdefault(there, "structural")
        return tuple(Edge(there, kind) for there, kind in sorted(found.items()))

    def _slack(self, task: int, after: tuple[Edge, ...]) -> int:
        timeline = self.timeline
        until = [timeline.total_cycles, *(int(timeline.start[edge.task]) for edge in after)]
        lane = timeline.start[(timeline.worker == timeline.worker[task]) & (timeline.start >= timeline.end[task])]
        waiting = timeline.start[timeline.causes == task] if timeline.causes is not None else lane[:0]
        limited = timeline.wait[timeline.causes == task] == Wait.RATE_LIMIT if timeline.causes is not None else lane[:0]
        until += [int(times.min()) for times in (lane, waiting[~limited.astype(bool)]) if len(times)]
        return max(min(until) - int(timeline.end[task]), 0)

    def _cause(self, task: int) -> str:
        timeline, cause = self.timeline, int(self.timeline.causes[task]) if self.timeline.causes is not None else -1
        if cause < 0:
            return ""
        span = timeline[cause]
        if timeline.wait[task] == Wait.RATE_LIMIT:
            return f"#{cause} {span.name} started at {span.start:,}"
        return f"#{cause} {span.name} ended at {span.end:,} on {timeline.lane(span.worker)}"

    def _list(self, edges: tuple[Edge, ...], what: str) -> str:
        """The tasks that matter most: those that ended last, or start first."""
        if not edges:
            return "no task" if self._gathered is not None else "what its process did; see its channels"
        times = self.timeline.end if what == "end" else self.timeline.start
        sign = -1 if what == "end" else 1
        shown = sorted(edges, key=lambda edge: (sign * int(times[edge.task]), edge.task))[:_SHOWN]
        verb = "ended" if what == "end" else "started"
        names = [f"#{e.task} {self.timeline[e.task].name} ({e.kind}, {verb} at {times[e.task]:,})" for e in shown]
        more = len(edges) - len(shown)
        return ", ".join(names) + (f" and {more:,} more" if more else "")


def neighbours(labels: NDArray[np.int32], task: int, before: bool) -> NDArray[np.int64]:
    """The tasks that come directly before or after one by structure: with no other task between them."""
    if before:
        found = np.flatnonzero(labels[:task] < labels[task])[::-1]
        seen = np.maximum.accumulate(labels[found])
        first = np.concatenate([[-1], seen[:-1]]) < labels[found]
    else:
        found = task + 1 + np.flatnonzero(labels[task + 1 :] > labels[task])
        seen = np.minimum.accumulate(labels[found])
        first = np.concatenate([[len(labels)], seen[:-1]]) > labels[found]
    return found[first[: len(found)]]
