"""Schedule -> Settings: which engine runs, with which effective values.

Every directive of a Schedule ends up in the Settings or is an error that says what to use instead; there is no
third way. Start reading at `settle`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pto_wsp.errors import ScheduleError
from pto_wsp.lower.bindings import Call
from pto_wsp.scalar_expr import Expr, trace_task_fn
from pto_wsp.schedule import DepsMode, DispatchPolicy, Schedule, TaskGraphConfig, WindowMode

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

    def __str__(self) -> str:
        lines = [("engine", _ENGINES[self.engine]), ("dispatch", self._dispatch())]
        if self.engine == "dataflow":
            lines.append(("deps", self._deps()))
        issue = "issue" if self.engine == "in-order" else "generation"
        full = f"{self.window} tasks, STALL: {issue} waits while so many are in flight"
        lines.append(("window", full if self.window else "none: any number of tasks may be in flight"))
        if self.engine == "dataflow":
            lines.append(("ready", "fifo: the task that is ready the longest, then program order"))
        lines.append(("timing", "immediate"))
        return "\n".join(f"{name:<10}{text}" for name, text in lines)

    def _dispatch(self) -> str:
        tasks = f"{self.workers} workers" if self.workers != 1 else "1 worker"
        if self.key is not None:
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
        workers = policy.num_aicpus or schedule.streams
        if workers > MOST_WORKERS:
            raise ScheduleError(
                f"{policy.kind} over {workers:,} workers; at most {MOST_WORKERS:,} are simulated", "dispatch"
            )
        settings = replace(settings, dispatch=policy.kind, workers=workers, key=_key(policy))
    return _dataflow(settings, graph) if _wants_dataflow(schedule) else settings


def _wants_dataflow(schedule: Schedule) -> bool:
    """Was something given that only has a meaning when tasks may overtake one another?"""
    policy, graph = schedule.dispatch, schedule.task_graph
    given = graph is not None and bool(graph.given & {"deps", "pools", "ready", "start", "trace"})
    return given or (policy is not None and policy.kind == "work_steal")


def _dataflow(settings: Settings, graph: TaskGraphConfig | None) -> Settings:
    settings = replace(settings, engine="dataflow", bound=settings.dispatch != "work_steal")
    if graph is None:
        return replace(settings, window=_DEFAULT_WINDOW)
    deps = graph.deps
    infer = {DepsMode.EXPLICIT: None, DepsMode.HYBRID: deps.infer}.get(deps.mode, deps.mode)
    explicit = deps.mode is DepsMode.EXPLICIT or bool(deps.explicit_edges)
    return replace(settings, infer=infer, explicit=explicit)


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


def _key(policy: DispatchPolicy) -> Expr | None:
    if policy.key_fn is None:
        return None
    try:
        return trace_task_fn(policy.key_fn)
    except Exception as error:
        raise ScheduleError(f"the key function of DispatchPolicy.{policy.kind} failed: {error}", "dispatch") from error


def _refuse_what_comes_later(schedule: Schedule) -> None:
    policy, timing, graph = schedule.dispatch, schedule.timing, schedule.task_graph
    if schedule.streams > 1 and (policy is None or policy.num_aicpus):
        raise _later(f"streams({schedule.streams})", "streams", "DispatchPolicy.round_robin(n) for n workers")
    if schedule.stream_by is not None:
        raise _later("stream_by", "stream_by", "DispatchPolicy.affinity(key, n)")
    if timing is not None and timing.kind != "immediate":
        raise _later(f"TimingPolicy.{timing.kind}", "timing", "TimingPolicy.immediate")
    if graph is not None:
        _refuse_task_graph(graph)


def _refuse_task_graph(graph: TaskGraphConfig) -> None:
    if graph.pools.kind != "single":
        raise _later(f"Pools.{graph.pools.kind}", "pools", "Pools.single()")
    if graph.ready.kind != "fifo":
        raise _later(f"ReadyPolicy.{graph.ready.kind}", "ready", "ReadyPolicy.fifo()")
    if "start" in graph.given:
        raise _later(f"start=StartPolicy.{graph.start.kind}(...)", "start", "none: workers start at once")
    if graph.trace.kind != "none" and graph.trace.cost_fn is not None:
        raise _later("task_graph(trace=TracePolicy.cycles(fn))", "trace", "TracePolicy.none()")
    if graph.window.unit != "tasks":
        raise _later(f"a window counted in {graph.window.unit!r}", "window", 'TaskWindow(n, "tasks")')
    if graph.window.mode is not WindowMode.STALL:
        raise _later(f"WindowMode.{graph.window.mode.name}", "window", "WindowMode.STALL")


def _later(what: str, primitive: str, instead: str) -> ScheduleError:
    return ScheduleError(f"{what} is not supported yet. Until then use {instead}.", primitive)
