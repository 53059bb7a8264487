"""Schedule -> Settings: which engine runs, with which effective values.

Every directive of a Schedule ends up in the Settings or is an error that says what to use instead; there is no
third way. Start reading at `settle`.
"""

from __future__ import annotations

from dataclasses import dataclass

from pto_wsp.errors import ScheduleError
from pto_wsp.scalar_expr import Expr, trace_task_fn
from pto_wsp.schedule import DispatchPolicy, Schedule, TaskGraphConfig, WindowMode

__all__ = ["MOST_WORKERS", "Settings", "settle"]

MOST_WORKERS = 1 << 20


@dataclass(frozen=True)
class Settings:
    """A schedule as the in-order engine runs it. `print(program.schedule)` shows it."""

    dispatch: str
    """`one worker`, or the kind of the dispatch policy."""
    workers: int
    key: Expr | None
    """A task goes to worker key mod `workers`, the key read as unsigned 64-bit. None: tasks take turns."""
    window: int
    """So many tasks may be issued and not yet ended; 0: any number."""
    engine: str = "in-order"

    def __str__(self) -> str:
        tasks = f"{self.workers} workers" if self.workers != 1 else "1 worker"
        if self.key is not None:
            dispatch = f"{self.dispatch}: worker = {self.key} mod {self.workers}"
        elif self.dispatch == "round_robin":
            dispatch = f"round_robin: {tasks} in turn"
        else:
            dispatch = tasks
        full = f"{self.window} tasks, STALL: issue waits while so many are in flight"
        return "\n".join(
            [
                "engine    in-order: tasks are issued in program order, a late one holds up those behind it",
                f"dispatch  {dispatch}",
                f"window    {full if self.window else 'none: any number of tasks may be in flight'}",
                "timing    immediate",
            ]
        )


def settle(schedule: Schedule) -> Settings:
    """The effective settings of a schedule.

    raises ScheduleError for a directive that is not supported yet, naming it and what to use instead
    """
    _refuse_dataflow(schedule)
    policy = schedule.dispatch
    if policy is None:
        return Settings("one worker", 1, None, _window(schedule.task_graph))
    workers = policy.num_aicpus or schedule.streams
    if workers > MOST_WORKERS:
        raise ScheduleError(
            f"{policy.kind} over {workers:,} workers; at most {MOST_WORKERS:,} are simulated", "dispatch"
        )
    return Settings(policy.kind, workers, _key(policy), _window(schedule.task_graph))


def _key(policy: DispatchPolicy) -> Expr | None:
    if policy.key_fn is None:
        return None
    try:
        return trace_task_fn(policy.key_fn)
    except Exception as error:
        raise ScheduleError(f"the key function of DispatchPolicy.{policy.kind} failed: {error}", "dispatch") from error


def _window(config: TaskGraphConfig | None) -> int:
    return 0 if config is None else config.window.size


def _refuse_dataflow(schedule: Schedule) -> None:
    """Directives that only the dataflow engine could enforce."""
    policy, timing, graph = schedule.dispatch, schedule.timing, schedule.task_graph
    if policy is not None and policy.kind == "work_steal":
        raise _later("DispatchPolicy.work_steal()", "dispatch", "DispatchPolicy.round_robin(n)")
    if schedule.streams > 1 and (policy is None or policy.num_aicpus):
        raise _later(f"streams({schedule.streams})", "streams", "DispatchPolicy.round_robin(n) for n workers")
    if schedule.stream_by is not None:
        raise _later("stream_by", "stream_by", "DispatchPolicy.affinity(key, n)")
    if timing is not None and timing.kind != "immediate":
        raise _later(f"TimingPolicy.{timing.kind}", "timing", "TimingPolicy.immediate")
    if graph is not None:
        _refuse_task_graph(graph)


def _refuse_task_graph(graph: TaskGraphConfig) -> None:
    for name in ("deps", "pools", "ready", "start", "trace"):
        if name in graph.given:
            raise _later(f"task_graph({name}=...)", name, "task_graph(window=TaskWindow(n))")
    if graph.window.unit != "tasks":
        raise _later(f"a window counted in {graph.window.unit!r}", "window", 'TaskWindow(n, "tasks")')
    if graph.window.mode is not WindowMode.STALL:
        raise _later(f"WindowMode.{graph.window.mode.name}", "window", "WindowMode.STALL")


def _later(what: str, primitive: str, instead: str) -> ScheduleError:
    return ScheduleError(
        f"{what} is not supported yet: it needs the dataflow engine, which comes later. Until then use {instead}.",
        primitive,
    )
