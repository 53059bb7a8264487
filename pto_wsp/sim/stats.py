"""What a run reports: ProgramStats in simulated cycles, ExecutionTrace in wall-clock time.

The two never mix. Cycles come from the schedule and the cycle model and are the same on every host;
milliseconds say how long this host took to compile, to run the kernels and to simulate.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pto_wsp.sim.inorder import ChannelUse, Counters

__all__ = ["ChannelUse", "ExecutionTrace", "Pool", "ProgramStats", "Stall", "TraceEvent", "TraceLevel"]


@dataclass(frozen=True)
class Stall:
    """One thing that held up tasks: how often, and for how many cycles in all."""

    reason: str
    """`WINDOW_FULL`, `DEPENDENCY`, `WORKER_BUSY`, `RATE_LIMIT`, `START`, `CHANNEL_EMPTY` or `CHANNEL_FULL`."""
    count: int
    cycles: int
    high_water: int = 0
    """Most at one time in what is limited: the window, in its unit; the ready queues; any one channel. 0 where it is
    not counted."""
    limit: int = 0
    """What the window can hold; 0: there is no limit, or it is that of each channel."""


@dataclass(frozen=True)
class Pool:
    """The workers of one pool, and what they did."""

    name: str
    workers: int
    tasks: int
    busy_cycles: int

    def utilisation(self, total_cycles: int) -> float:
        """Busy share of its workers, 0 to 1."""
        return self.busy_cycles / (self.workers * total_cycles) if total_cycles else 0.0


@dataclass(frozen=True, repr=False)
class ProgramStats:
    """What a program, or one simulation of it, did. Milliseconds are wall-clock time; the rest is cycles.

    All zero before the first run has ended, except `compile_time_ms`. `repr` is a table.
    """

    compile_time_ms: float = 0.0
    execute_time_ms: float = 0.0
    """Wall-clock time of the last run: expansion, kernels, and the clock where it had to tick before they ran."""
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
    pools: tuple[Pool, ...] = ()
    """Groups of workers, in the order of the workers; one without a name where all are one."""
    critical_path_cycles: int = 0
    """Makespan with unlimited workers and no window: no schedule of this workload can be shorter. Of inferred edges
    those count that some task had to wait for: a task that completed before another was generated holds up nothing."""
    critical_path_tasks: int = 0
    critical_path: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64), compare=False)
    """How many tasks are on the critical path, and their numbers in program order; the latter is empty when more than
    a million tasks ran."""
    lower_bounds: Mapping[str, int] = field(default_factory=dict)
    """Makespans that cannot be beaten, by name: the work spread evenly over the workers, or over those of the fullest
    pool; the critical path; the work of the fullest worker, where tasks are bound to workers; the orchestrator's time
    and the limit on starts, where there are such."""
    stalls: tuple[Stall, ...] = ()
    """What held up tasks, and what is limited, even if that held up nothing."""
    steals: int = 0
    """With ReadyPolicy.work_steal(): tasks that another worker took than the one in whose deque they were."""
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
        return cls(
            compile_time_ms=compile_ms,
            execute_time_ms=execute_ms,
            task_count=counters.task_count,
            parallel_tasks=counters.parallel_tasks,
            total_cycles=counters.total_cycles,
            workers=len(counters.tasks),
            tasks_per_worker=counters.tasks,
            busy_cycles=counters.busy,
            pools=tuple(_pools(counters)),
            critical_path_cycles=counters.critical_path_cycles,
            critical_path_tasks=counters.critical_path_tasks,
            critical_path=counters.critical_path,
            lower_bounds=_lower_bounds(counters),
            stalls=tuple(stall for stall in _stalls(counters) if stall.count or stall.limit or stall.high_water),
            steals=counters.steals,
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

    def __repr__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> list[str]:
        bounds = "   ".join(f"{name} {cycles:,}" for name, cycles in self.lower_bounds.items())
        lines = [
            "ProgramStats",
            f"  total cycles     {self.total_cycles:,}",
            f"  lower bounds     {bounds or 'none'}",
            f"  tasks            {self.task_count:,}; {self.parallel_tasks:,} began while an earlier one ran",
            f"  critical path    {self.critical_path_cycles:,} cycles, {self._path()}",
            f"  {'processes' if self.lanes else 'workers':<17}{self.workers}, {self.utilisation:.1%} busy",
        ]
        lines += self._each_worker()
        lines += [f"  channel {c.name:<9}{_channel(c)}" for c in self.channels[:16]]
        for s in self.stalls:
            most = f", at most {s.high_water:,} at a time" if s.high_water else ""
            most += f" of {s.limit:,}" if s.limit and s.high_water else ""
            lines.append(f"  {s.reason:<17}{s.count:,} stalls, {s.cycles:,} cycles{most}")
        if self.steals:
            lines.append(f"  stolen           {self.steals:,} tasks")
        if self.unseen_overlaps:
            hint = "Deps.infer_bytes_overlap() orders them"
            lines.append(f"  unseen overlaps  {self.unseen_overlaps:,} pairs of tasks; {hint}")
        lines.append(f"  wall clock       compile {self.compile_time_ms:.1f} ms, run {self.execute_time_ms:.1f} ms")
        return lines

    def _path(self) -> str:
        """The tasks on the critical path, the middle left out when there are many."""
        tasks = [f"#{task}" for task in self.critical_path[:8].tolist()]
        if len(self.critical_path) > 9:
            tasks += ["...", f"#{self.critical_path[-1]}"]
        elif len(self.critical_path) == 9:
            tasks.append(f"#{self.critical_path[-1]}")
        count = f"{self.critical_path_tasks:,} task{'s' * (self.critical_path_tasks != 1)}"
        return f"{count}: {' '.join(tasks)}" if tasks else count

    def _each_worker(self) -> list[str]:
        """Pools, and the workers in them: one by one if there are few."""
        lines, first = [], 0
        for pool in self.pools or (Pool("", self.workers, self.task_count, self.work_cycles),):
            last = first + pool.workers
            if pool.name:
                busy = f"{pool.utilisation(self.total_cycles):.1%} busy"
                lines.append(f"  pool {pool.name:<12}{pool.workers} workers, {pool.tasks:,} tasks, {busy}")
            tasks, cycles = self.tasks_per_worker[first:last], self.busy_cycles[first:last]
            if pool.workers > 16:
                lines.append(
                    f"    each worker    {min(tasks):,} to {max(tasks):,} tasks, {min(cycles):,} to {max(cycles):,} "
                    "cycles"
                )
            else:
                names = self.lanes or [f"{pool.name or 'worker'} {w}" for w in range(pool.workers)]
                each = zip(names, tasks, cycles, strict=True)
                lines += [f"    {name:<15}{count:,} tasks, {busy:,} cycles" for name, count, busy in each]
            first = last
        return lines


def _pools(counters: Counters) -> Iterator[Pool]:
    first = 0
    for name, workers in counters.pools:
        mine = slice(first, first + workers)
        yield Pool(name, workers, sum(counters.tasks[mine]), sum(counters.busy[mine]))
        first += workers


def _lower_bounds(counters: Counters) -> dict[str, int]:
    workers = len(counters.tasks)
    bounds = {
        "work / workers": -(-counters.work_cycles // workers) if workers else 0,
        "critical path": counters.critical_path_cycles,
    }
    if len(counters.pools) > 1:
        bounds["fullest pool"] = max(-(-pool.busy_cycles // pool.workers) for pool in _pools(counters))
    if counters.bound:
        bounds["fullest worker"] = max(counters.busy, default=0)
    if counters.gen_cycles:
        bounds["orchestrator"] = counters.gen_cycles * counters.task_count
    if counters.gap and counters.task_count:
        bounds["rate limit"] = counters.gap * (counters.task_count - 1)
    return bounds


def _stalls(counters: Counters) -> list[Stall]:
    c, used = counters, counters.channels
    return [
        Stall("WINDOW_FULL", c.window_stalls + c.overflows, c.window_stalled_cycles, c.most_in_window, c.window),
        Stall("RATE_LIMIT", c.rate_stalls, c.rate_stalled_cycles),
        Stall("START", c.start_stalls, c.start_stalled_cycles),
        Stall("DEPENDENCY", c.dependency_stalls, c.dependency_stalled_cycles),
        Stall("WORKER_BUSY", c.busy_stalls, c.busy_stalled_cycles, c.most_ready),
        Stall("CHANNEL_EMPTY", sum(u.empty_stalls for u in used), sum(u.empty_cycles for u in used)),
        Stall("CHANNEL_FULL", sum(u.full_stalls for u in used), sum(u.full_cycles for u in used),
              max((u.high_water for u in used), default=0)),
    ]  # fmt: skip


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
