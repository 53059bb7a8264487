"""What a run reports: ProgramStats in simulated cycles, ExecutionTrace in wall-clock time.

The two never mix. Cycles come from the schedule and the cycle model and are the same on every host;
milliseconds say how long this host took to compile, to run the kernels and to simulate.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from pto_wsp.sim.inorder import ChannelUse, Counters

__all__ = ["ChannelUse", "ExecutionTrace", "ProgramStats", "Stall", "TraceEvent", "TraceLevel"]


@dataclass(frozen=True)
class Stall:
    """One thing that held up tasks: how often, and for how many cycles in all."""

    reason: str
    """`WINDOW_FULL`, `DEPENDENCY`, `WORKER_BUSY`, `RATE_LIMIT`, `CHANNEL_EMPTY` or `CHANNEL_FULL`."""
    count: int
    cycles: int
    high_water: int = 0
    """Most at one time in what is limited: the window, in its unit; the ready queues; any one channel. 0 where it is
    not counted."""


@dataclass(frozen=True, repr=False)
class ProgramStats:
    """What a program, or one simulation of it, did. Milliseconds are wall-clock time; the rest is cycles.

    All zero before the first run has ended, except `compile_time_ms`.
    """

    compile_time_ms: float = 0.0
    execute_time_ms: float = 0.0
    """Wall-clock time of the last run: expansion, kernels and simulation."""
    task_count: int = 0
    """Tasks that really ran."""
    parallel_tasks: int = 0
    """Tasks that started while another worker was running an earlier one."""
    total_cycles: int = 0
    """Makespan: the cycle at which the last task ends."""
    workers: int = 0
    tasks_per_worker: tuple[int, ...] = ()
    busy_cycles: tuple[int, ...] = ()
    """Per worker, cycles spent running tasks."""
    critical_path_cycles: int = 0
    """Makespan with unlimited workers and no window: no schedule of this workload can be shorter."""
    stalls: tuple[Stall, ...] = ()
    """What held up issue, if anything did."""
    unseen_overlaps: int = 0
    """With edges inferred from identical regions: pairs of tasks, in the window together, whose regions overlap
    without being identical, one of them written. Nothing orders such a pair."""
    lanes: tuple[str, ...] = ()
    """Pipelines: the name of each process; processes are the workers."""
    channels: tuple[ChannelUse, ...] = ()
    """Pipelines: what happened in each channel."""

    @classmethod
    def of(cls, counters: Counters, compile_ms: float = 0.0, execute_ms: float = 0.0) -> ProgramStats:
        """The stats of one simulated run."""
        used = counters.channels
        stalls = (
            Stall(
                "WINDOW_FULL", counters.window_stalls + counters.overflows, counters.window_stalled_cycles,
                counters.most_in_window,
            ),
            Stall("RATE_LIMIT", counters.rate_stalls, counters.rate_stalled_cycles),
            Stall("DEPENDENCY", counters.dependency_stalls, counters.dependency_stalled_cycles),
            Stall("WORKER_BUSY", counters.busy_stalls, counters.busy_stalled_cycles, counters.most_ready),
            Stall("CHANNEL_EMPTY", sum(c.empty_stalls for c in used), sum(c.empty_cycles for c in used)),
            Stall(
                "CHANNEL_FULL", sum(c.full_stalls for c in used), sum(c.full_cycles for c in used),
                max((c.high_water for c in used), default=0),
            ),
        )
        return cls(
            compile_time_ms=compile_ms,
            execute_time_ms=execute_ms,
            task_count=counters.task_count,
            parallel_tasks=counters.parallel_tasks,
            total_cycles=counters.total_cycles,
            workers=len(counters.tasks),
            tasks_per_worker=counters.tasks,
            busy_cycles=counters.busy,
            critical_path_cycles=counters.critical_path_cycles,
            stalls=tuple(stall for stall in stalls if stall.count),
            unseen_overlaps=counters.unseen_overlaps,
            lanes=counters.lanes,
            channels=counters.channels,
        )

    @property
    def work_cycles(self) -> int:
        """Sum of the durations of all tasks."""
        return sum(self.busy_cycles)

    @property
    def utilisation(self) -> float:
        """Busy share of all workers over the makespan, 0 to 1."""
        return self.work_cycles / (self.workers * self.total_cycles) if self.total_cycles else 0.0

    @property
    def lower_bounds(self) -> Mapping[str, int]:
        """Makespans that cannot be beaten: by even spreading, by the structure, by this assignment."""
        return {
            "work / workers": -(-self.work_cycles // self.workers) if self.workers else 0,
            "critical path": self.critical_path_cycles,
            "fullest worker": max(self.busy_cycles, default=0),
        }

    def __repr__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> list[str]:
        bounds = "   ".join(f"{name} {cycles:,}" for name, cycles in self.lower_bounds.items())
        lines = [
            "ProgramStats",
            f"  total cycles     {self.total_cycles:,}",
            f"  lower bounds     {bounds}",
            f"  tasks            {self.task_count:,}; {self.parallel_tasks:,} began while an earlier one ran",
            f"  {'processes' if self.lanes else 'workers':<17}{self.workers}, {self.utilisation:.1%} busy",
        ]
        if self.workers <= 16:
            names = self.lanes or [f"worker {w}" for w in range(self.workers)]
            each = zip(names, self.tasks_per_worker, self.busy_cycles, strict=True)
            lines += [f"    {name:<15}{tasks:,} tasks, {busy:,} cycles" for name, tasks, busy in each]
        else:
            lines.append(
                f"  each worker      {min(self.tasks_per_worker):,} to {max(self.tasks_per_worker):,} tasks, "
                f"{min(self.busy_cycles):,} to {max(self.busy_cycles):,} cycles"
            )
        lines += [f"  channel {c.name:<9}{_channel(c)}" for c in self.channels[:16]]
        for s in self.stalls:
            most = f", at most {s.high_water:,} at a time" if s.high_water else ""
            lines.append(f"  {s.reason:<17}{s.count:,} stalls, {s.cycles:,} cycles{most}")
        if self.unseen_overlaps:
            hint = "Deps.infer_bytes_overlap() orders them"
            lines.append(f"  unseen overlaps  {self.unseen_overlaps:,} pairs of tasks; {hint}")
        lines.append(
            f"  wall clock       compile {self.compile_time_ms:.1f} ms, run {self.execute_time_ms:.1f} ms"
        )
        return lines


def _channel(c: ChannelUse) -> str:
    """What happened in a channel, in one line."""
    most = f", at most {c.high_water:,} at a time" if c.depth else ""
    left = f"; {c.left:,} never received" if c.left else ""
    return (
        f"depth {c.depth:,}: {c.tokens:,} tokens{most}; receivers waited {c.empty_cycles:,} cycles, "
        f"senders {c.full_cycles:,}{left}"
    )


class TraceLevel(IntEnum):
    """How much of a run is traced in wall-clock time."""

    NONE = 0
    SUMMARY = 1
    """One event per phase: compile, execute, simulate."""
    TIMING = 2
    """Also one event per batch of tasks."""
    FULL = 3
    """Also one event per task, with its kernel, axis values, worker and cycles."""


@dataclass
class TraceEvent:
    """One stretch of wall-clock time, in nanoseconds of `time.perf_counter_ns`."""

    name: str
    category: str
    start_ns: int
    end_ns: int
    task_id: int | None = None
    thread_id: int | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def duration_us(self) -> float:
        """Length in microseconds."""
        return (self.end_ns - self.start_ns) / 1e3

    @property
    def duration_ms(self) -> float:
        """Length in milliseconds."""
        return (self.end_ns - self.start_ns) / 1e6


@dataclass
class ExecutionTrace:
    """Wall-clock events of the traced runs, oldest first; `program.enable_tracing()` fills it."""

    events: list[TraceEvent] = field(default_factory=list)

    def add_event(self, event: TraceEvent) -> None:
        """Append one event."""
        self.events.append(event)

    def get_events(self, category: str | None = None) -> list[TraceEvent]:
        """All events, or those of one category ("compile", "execute", "simulate", "kernel", "task")."""
        return [event for event in self.events if category is None or event.category == category]

    def get_task_events(self) -> list[TraceEvent]:
        """Events that belong to one task."""
        return [event for event in self.events if event.task_id is not None]

    def get_kernel_events(self, kernel_name: str | None = None) -> list[TraceEvent]:
        """Events of category "kernel", of all kernels or of one."""
        return [event for event in self.get_events("kernel") if kernel_name in (None, event.name)]

    def total_time_ms(self) -> float:
        """From the first event's start to the last event's end."""
        if not self.events:
            return 0.0
        return (max(e.end_ns for e in self.events) - min(e.start_ns for e in self.events)) / 1e6

    def kernel_time_ms(self) -> float:
        """Sum over kernel events; more than the total when kernels run on several cores."""
        return sum(event.duration_ms for event in self.get_kernel_events())

    def summary(self) -> dict[str, Any]:
        """Counts and times as one flat dict."""
        tasks, kernels = self.get_task_events(), self.get_kernel_events()
        return {
            "total_events": len(self.events),
            "task_count": len(tasks),
            "kernel_invocations": len(kernels),
            "total_time_ms": self.total_time_ms(),
            "kernel_time_ms": self.kernel_time_ms(),
            "avg_task_time_us": sum(event.duration_us for event in tasks) / len(tasks) if tasks else 0.0,
            "unique_kernels": len({event.name for event in kernels}),
        }

    def to_chrome_trace(self) -> dict[str, Any]:
        """Complete events as chrome://tracing and ui.perfetto.dev read them; times in microseconds."""
        return {
            "traceEvents": [
                {
                    "name": event.name,
                    "cat": event.category,
                    "ph": "X",
                    "ts": event.start_ns / 1e3,
                    "dur": event.duration_us,
                    "pid": 1,
                    "tid": event.thread_id or 0,
                    "args": event.metadata,
                }
                for event in self.events
            ]
        }

    def print_summary(self) -> None:
        """Print `summary()`, one line per entry."""
        rows = (f"{key:<20}{value:,.3f}" if isinstance(value, float) else f"{key:<20}{value:,}"
                for key, value in self.summary().items())  # fmt: skip
        print("Execution trace (wall clock)\n" + textwrap.indent("\n".join(rows), "  "))
