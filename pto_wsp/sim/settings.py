"""Schedule -> Settings: which engine runs, with which effective values.

Every directive of a Schedule ends up in the Settings or is an error that says what to use instead; there is no
third way. Start reading at `settle`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pto_wsp.errors import ScheduleError
from pto_wsp.lower.bindings import Call
from pto_wsp.scalar_expr import Expr, trace_task_fn
from pto_wsp.schedule import DepsMode, Schedule, TaskGraphConfig, WindowMode
from pto_wsp.sim.machine import A2A3

__all__ = ["MOST_WORKERS", "Settings", "check_explicit_edges", "settle"]

MOST_WORKERS = 1 << 20
_DEFAULT_WINDOW = 8192  # of the dataflow engine, when there is no task_graph(...)

_ENGINES = {
    "in-order": "in-order: tasks are issued in program order, a late one holds up those behind it",
    "dataflow": "dataflow: a late task waits in the window, and others overtake it",
}


@dataclass(frozen=True)
class Settings:
    """A schedule as an engine runs it. `print(program.schedule)` shows it."""

    dispatch: str
    """`one worker`, or the kind of the dispatch policy."""
    workers: int
    key: Expr | None
    """A task goes to worker key mod `workers`, the key read as unsigned 64-bit. None: tasks take turns."""
    window: int
    """So many tasks may be issued and not yet ended; 0: any number."""
    engine: str = "in-order"
    bound: bool = True
    """A task is bound to its worker when it is generated; else any free worker takes it."""
    infer: DepsMode | None = None
    """How edges are inferred from regions; None: only the workload and the user state edges."""
    explicit: bool = True
    """`after=[...]` counts."""
    key_of: str | None = None
    """Dataflow engine: what the key of a task is: "dispatch", "stream", "priority" or "cycles"."""
    unit: str = "tasks"
    mode: WindowMode = WindowMode.STALL
    """What `window` counts, and what happens when it is full."""
    start_at: int = 0
    """Workers start when so many tasks are ready; -1: when all are generated."""
    gap: int = 0
    """At least so many cycles from one start to the next."""
    batch: int = 0
    """Ready tasks become eligible in groups of so many; 0: at once."""
    streams: int = 0
    """In-order queues; 0: none."""

    @property
    def by_stream(self) -> bool:
        """Each stream has a worker, and the key says which stream a task belongs to."""
        return self.key_of == "stream" and self.dispatch == "one worker"

    def __str__(self) -> str:
        lines = [("engine", _ENGINES[self.engine]), ("dispatch", self._dispatch())]
        if self.engine == "dataflow":
            lines.append(("deps", self._deps()))
        lines.append(("window", self._window()))
        if self.engine == "dataflow":
            lines += [("start", self._start()), ("ready", self._ready())]
            if self.streams:
                by = f"{self.key}" if self.key_of == "stream" else "task number"
                lines.append(("streams", f"{self.streams} in-order queues: stream = {by} mod {self.streams}"))
            if self.key_of == "cycles":
                lines.append(("trace", f"cycles: a task takes {self.key}"))
        lines.append(("timing", self._timing()))
        return "\n".join(f"{name:<10}{text}" for name, text in lines)

    def _window(self) -> str:
        if not self.window:
            return "none: any number of tasks may be in flight"
        issue = "issue" if self.engine == "in-order" else "generation"
        full = {
            WindowMode.STALL: f"{issue} waits while so many are in flight",
            WindowMode.ABORT: "the run ends with an error when there are more",
            WindowMode.BENCHMARK: "more are counted, and nothing waits",
        }
        return f"{self.window} {self.unit}, {self.mode.name}: {full[self.mode]}"

    def _start(self) -> str:
        if self.start_at < 0:
            return "after_orchestration: workers start when all tasks are generated"
        return f"threshold: workers start when {self.start_at} tasks are ready" if self.start_at else "at once"

    def _ready(self) -> str:
        if self.key_of == "priority":
            return f"priority: the lowest {self.key}, then fifo"
        return "fifo: the task that is ready the longest, then program order"

    def _timing(self) -> str:
        if self.batch:
            return f"batched: tasks become eligible in groups of {self.batch}"
        return f"rate_limit: a start at most every {self.gap} cycles" if self.gap else "immediate"

    def _dispatch(self) -> str:
        tasks = f"{self.workers} workers" if self.workers != 1 else "1 worker"
        if self.engine == "dataflow" and self.dispatch == "one worker" and self.streams:
            return f"{tasks}: stream s runs on worker s"
        if self.key is not None and self.key_of in (None, "dispatch"):
            return f"{self.dispatch}: worker = {self.key} mod {self.workers}"
        if self.dispatch == "round_robin":
            return f"round_robin: {tasks} in turn"
        return f"work_steal: {tasks}, a free one takes the next ready task" if not self.bound else tasks

    def _deps(self) -> str:
        edges = ["structural"]
        if self.explicit:
            edges.append("explicit (after=)")
        if self.infer is not None:
            edges.append(f"inferred ({self.infer.value})")
        return " + ".join(edges)


def settle(schedule: Schedule) -> Settings:
    """The effective settings of a schedule.

    raises ScheduleError for a directive that is not supported yet, naming it and what to use instead
    """
    _refuse_what_comes_later(schedule)
    policy, graph = schedule.dispatch, schedule.task_graph
    settings = Settings("one worker", 1, None, 0 if graph is None else graph.window.size)
    if policy is not None:
        settings = replace(settings, dispatch=policy.kind, workers=policy.num_aicpus or schedule.streams)
        settings = replace(settings, key=_key(policy.key_fn, f"DispatchPolicy.{policy.kind}", "dispatch"))
    if _wants_dataflow(schedule):
        settings = _dataflow(settings, schedule)
    if settings.workers > MOST_WORKERS:
        raise ScheduleError(
            f"{settings.dispatch} over {settings.workers:,} workers; at most {MOST_WORKERS:,} are simulated", "dispatch"
        )
    return settings


def _wants_dataflow(schedule: Schedule) -> bool:
    """Was something given that only has a meaning when tasks may overtake one another?"""
    policy, graph, timing = schedule.dispatch, schedule.task_graph, schedule.timing
    if policy is not None and policy.kind == "work_steal":
        return True
    if schedule.stream_by is not None or (timing is not None and timing.kind != "immediate"):
        return True
    if schedule.streams > 1 and (policy is None or policy.num_aicpus):  # else it is the number of workers
        return True
    if graph is None:
        return False
    odd = graph.window.unit != "tasks" or graph.window.mode is not WindowMode.STALL
    return odd or bool(graph.given & {"deps", "pools", "ready", "start", "trace"})


def _dataflow(settings: Settings, schedule: Schedule) -> Settings:
    graph, timing, policy = schedule.task_graph, schedule.timing, schedule.dispatch
    keys = [("dispatch", settings.key)]
    settings = replace(settings, engine="dataflow", bound=settings.dispatch != "work_steal")
    if schedule.streams > 1 or schedule.stream_by is not None:
        settings = replace(settings, streams=schedule.streams)
        if policy is None:
            settings = replace(settings, workers=schedule.streams)
        keys.append(("stream", _key(schedule.stream_by, "stream_by", "stream_by")))
    if timing is not None and timing.kind == "batched":
        settings = replace(settings, batch=int(timing.amount or 0))
    elif timing is not None and timing.kind == "rate_limit":
        settings = replace(settings, gap=math.ceil(A2A3.clock_hz / 1000 / float(timing.amount or 1)))
    if graph is None:
        settings = replace(settings, window=_DEFAULT_WINDOW)
    else:
        settings = _graph(settings, graph)
        keys.append(("priority", _key(graph.ready.priority_fn, "ReadyPolicy.priority", "ready")))
        keys.append(("cycles", _key(graph.trace.cost_fn, "TracePolicy.cycles", "trace")))
    given = [(what, key) for what, key in keys if key is not None]
    if len(given) > 1:
        both = " and of ".join(what for what, _ in given)
        raise ScheduleError(
            f"a schedule with functions of {both} is not supported yet. Until then use one of them.", given[1][0]
        )
    for what, key in given:
        settings = replace(settings, key=key, key_of=what)
    return settings


def _graph(settings: Settings, graph: TaskGraphConfig) -> Settings:
    deps, window, start = graph.deps, graph.window, graph.start
    infer = {DepsMode.EXPLICIT: None, DepsMode.HYBRID: deps.infer}.get(deps.mode, deps.mode)
    explicit = deps.mode is DepsMode.EXPLICIT or bool(deps.explicit_edges)
    settings = replace(settings, infer=infer, explicit=explicit, unit=window.unit, mode=window.mode)
    if "start" in graph.given:
        settings = replace(settings, start_at=start.n if start.kind == "threshold" and start.n else -1)
    return settings


def check_explicit_edges(settings: Settings, calls: Sequence[Call]) -> None:
    """Edges that the user states with after=[...] are obeyed, or refused at the user's line."""
    number = {id(call.task): call for call in calls}
    for call in calls:
        for handle in call.task.after:
            if settings.engine != "dataflow":
                raise ScheduleError(
                    "after=[...] states an edge, and the in-order engine knows none. "
                    "Add task_graph(deps=Deps.explicit()).", "deps"
                ).at(call.task.line)  # fmt: skip
            if not settings.explicit:
                raise ScheduleError(
                    "after=[...] states an edge, and the deps of this schedule leave explicit edges out. "
                    "Use Deps.hybrid(...) or Deps.explicit().", "deps"
                ).at(call.task.line)  # fmt: skip
            loops = number[id(handle)].loops if id(handle) in number else ()
            if loops != call.loops[: len(loops)]:
                inner = loops[-1].name
                raise ScheduleError(
                    f"after=[...] names a call inside the loop {inner}, which has ended: it stands for many tasks. "
                    "Put the loop and this call into one sequential block.", "deps"
                ).at(call.task.line)  # fmt: skip


def _key(function: Any, owner: str, primitive: str) -> Expr | None:
    if function is None:
        return None
    try:
        return trace_task_fn(function)
    except Exception as error:
        raise ScheduleError(f"the key function of {owner} failed: {error}", primitive) from error


def _refuse_what_comes_later(schedule: Schedule) -> None:
    timing, graph = schedule.timing, schedule.task_graph
    if timing is not None and timing.kind == "interleaved":
        raise _later("TimingPolicy.interleaved", "timing", "TimingPolicy.immediate")
    if graph is not None and graph.pools.kind != "single":
        raise _later(f"Pools.{graph.pools.kind}", "pools", "Pools.single()")
    if graph is not None and graph.ready.kind == "work_steal":
        raise _later("ReadyPolicy.work_steal", "ready", "ReadyPolicy.fifo() with DispatchPolicy.work_steal(n)")


def _later(what: str, primitive: str, instead: str) -> ScheduleError:
    return ScheduleError(f"{what} is not supported yet. Until then use {instead}.", primitive)
