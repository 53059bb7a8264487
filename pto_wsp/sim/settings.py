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
from pto_wsp.scalar_expr import Expr
from pto_wsp.schedule import DepsMode, Schedule, TaskGraphConfig, TimingPolicy, WindowMode
from pto_wsp.sim.keys import Key, trace_key
from pto_wsp.sim.machine import A2A3, MACHINES, Machine

__all__ = ["EXEC_UNITS", "MOST_WORKERS", "Settings", "brief", "check_explicit_edges", "settle"]

MOST_WORKERS = MOST_STREAMS = 1 << 20
EXEC_UNITS = ("cube", "vector")
"""The pools of Pools.by_exec_unit()."""

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
    """Of each pool; of all tasks where there is one pool."""
    window: int
    """So many tasks may be issued and not yet ended; 0: any number."""
    engine: str = "in-order"
    keys: tuple[Key, ...] = ()
    """What the directives want to know of each task: its dispatch key, stream, priority, cycles, pool."""
    bound: bool = True
    """A task is bound to its worker when it is generated; else any free worker of its pool takes it."""
    infer: DepsMode | None = None
    """How edges are inferred from regions; None: only the workload and the user state edges."""
    explicit: bool = True
    """`after=[...]` counts."""
    unit: str = "tasks"
    mode: WindowMode = WindowMode.STALL
    """What `window` counts, and what happens when it is full."""
    pools: str = "single"
    widths: tuple[int, ...] = ()
    """Workers of each of EXEC_UNITS."""
    ready: str = "fifo"
    start_at: int = 0
    """Workers start when so many tasks are ready; -1: when all are generated."""
    gap: int = 0
    """At least so many cycles from one start to the next."""
    batch: int = 0
    """Ready tasks become eligible in groups of so many; 0: at once."""
    streams: int = 0
    """In-order queues; 0: none."""
    together: int = 0
    """So many streams are taken in turn; 0: their ready tasks are taken as the ready policy says."""
    gen_cycles: int = 0
    """Cycles that the orchestrator needs to generate a task."""
    machine: Machine | None = None

    def find(self, role: str) -> Key | None:
        """The key of that role."""
        return next((key for key in self.keys if key.role == role), None)

    @property
    def key(self) -> Expr | None:
        """A task goes to worker key mod `workers`, the key read as unsigned 64-bit. None: tasks take turns, or the key
        is a function that runs on the host."""
        found = self.find("dispatch")
        return None if found is None else found.expr

    @property
    def keyed(self) -> bool:
        """Does a key of its own say which worker runs a task?"""
        return self.find("dispatch") is not None

    @property
    def by_stream(self) -> bool:
        """Each stream has a worker."""
        return self.streams > 0 and self.dispatch == "one worker"

    def __str__(self) -> str:
        lines = [("engine", _ENGINES[self.engine]), ("dispatch", self._dispatch())]
        if self.engine == "dataflow":
            lines.append(("pools", self._pools()))
        lines.append(("deps", self._deps()))
        lines.append(("window", self._window()))
        if self.engine == "dataflow":
            lines += [("generate", self._generate()), ("start", self._start()), ("ready", self._ready())]
            lines += [("streams", self._streams()), ("trace", self._trace())]
        lines.append(("timing", self._timing()))
        if self.machine is not None:
            lines.append(("machine", f"{self.machine.name}, {self.machine.clock_hz / 1e9:g} GHz"))
        slow = [f"{key} of {key.owner}" for key in self.keys if key.function is not None]
        if slow:
            lines.append(("slow", f"{' and '.join(slow)}: Python on the host, once per task, not compiled"))
        return "\n".join(f"{name:<10}{text}" for name, text in lines)

    @property
    def cannot_fail(self) -> bool:
        """Does the clock come to its end whatever the tasks are, if it can count their cycles?"""
        waits = self.window == 0 or (self.unit == "tasks" and self.mode is WindowMode.STALL)
        return waits and not self.keys and self.start_at == 0 and self.batch <= 1

    @property
    def cycles_between(self) -> int:
        """Cycles that may pass between the starts of two tasks while nothing runs."""
        return self.gap + self.gen_cycles

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

    def _generate(self) -> str:
        return f"a task takes the orchestrator {self.gen_cycles:,} cycles (gen_cycles)"

    def _start(self) -> str:
        if self.start_at < 0:
            return "after_orchestration: workers start when all tasks are generated"
        return f"threshold: workers start when {self.start_at} tasks are ready" if self.start_at else "at once"

    def _ready(self) -> str:
        if self.ready == "priority":
            return f"priority: the lowest {self.find('priority')}, then fifo"
        if self.ready == "work_steal":
            return "work_steal: a worker takes the newest of its own deque, else the oldest of the longest one"
        return "fifo: the task that is ready the longest, then program order"

    def _streams(self) -> str:
        if not self.streams:
            return "none"
        return f"{self.streams} in-order queues: stream = {self.find('stream') or 'task number'} mod {self.streams}"

    def _trace(self) -> str:
        key = self.find("cycles")
        return f"cycles: a task takes {key}" if key is not None else "none: the cycle model says how long a task takes"

    def _timing(self) -> str:
        if self.batch:
            return f"batched: tasks become eligible in groups of {self.batch}"
        if self.together:
            return f"interleaved: {self.together} streams at a time, in turn, one task each"
        return f"rate_limit: a start at most every {self.gap} cycles" if self.gap else "immediate"

    def _dispatch(self) -> str:
        tasks = f"{self.workers} workers" if self.workers != 1 else "1 worker"
        count = "their number" if self.widths else str(self.workers)
        if self.widths:
            tasks = "the workers of its pool" if self.bound else "any worker of its pool"
        if self.by_stream:
            return f"{tasks}: stream s runs on worker s"
        if self.keyed:
            return f"{self.dispatch}: worker = {self.find('dispatch')} mod {count}"
        if self.dispatch == "round_robin":
            return f"round_robin: {tasks} in turn"
        if self.bound:
            return tasks
        return f"{self.dispatch}: {tasks}, a free one takes the next ready task"

    def _pools(self) -> str:
        if self.pools == "by_exec_unit":
            each = ", ".join(f"{n} {name}" for name, n in zip(EXEC_UNITS, self.widths, strict=True))
            return f"by_exec_unit: {each} workers; kernels that use the cube go to the cube's"
        if self.pools == "custom":
            return f"custom: pool {self.find('pool')}, {self.workers} workers each"
        return "single"

    def _deps(self) -> str:
        edges = ["structural (slots too)" if self.engine == "dataflow" else "structural"]
        if self.explicit and self.engine == "dataflow":
            edges.append("explicit (after=)")
        if self.infer is not None:
            edges.append(f"inferred ({self.infer.value})")
        return " + ".join(edges)


def settle(schedule: Schedule) -> Settings:
    """The effective settings of a schedule.

    raises ScheduleError for directives that contradict one another, naming what to use instead
    """
    policy, graph = schedule.dispatch, schedule.task_graph
    settings = Settings("one worker", 1, 0)
    if graph is not None:
        window = graph.window
        settings = replace(settings, window=window.size, unit=window.unit, mode=window.mode)
    if policy is not None:
        settings = replace(settings, dispatch=policy.kind, workers=policy.num_aicpus or schedule.streams)
        settings = _with_key(settings, policy.key_fn, f"DispatchPolicy.{policy.kind}", "dispatch")
    if _wants_dataflow(schedule):
        settings = _dataflow(settings, schedule)
    if max(settings.workers, *settings.widths, 0) > MOST_WORKERS:
        raise ScheduleError(
            f"{settings.dispatch} over {settings.workers:,} workers; at most {MOST_WORKERS:,} are simulated", "dispatch"
        )
    if settings.streams > MOST_STREAMS:
        raise ScheduleError(f"{settings.streams:,} streams; at most {MOST_STREAMS:,} are simulated", "streams")
    return settings


def brief(settings: Settings) -> str:
    """A schedule in a few words, for the title of a picture: what differs from the plainest one."""
    workers = f"{settings.dispatch} over {settings.workers}" if settings.workers > 1 else settings.dispatch
    if settings.dispatch == "processes":  # a pipeline
        return f"{settings.workers} processes"
    parts = [settings.engine, workers.replace("one worker", "workers") if settings.workers > 1 else workers]
    if settings.window:
        parts.append(f"window {settings.window:,} {settings.unit}")
    if settings.infer is not None:
        parts.append({DepsMode.INFER_TENSOR_MAP_EXACT: "identical regions"}.get(settings.infer, "overlapping regions"))
    parts += [f"{n:,} {name}" for name, n in (("streams", settings.streams), ("per batch", settings.batch)) if n]
    parts += [name for name in (settings.pools, settings.ready) if name not in ("single", "fifo")]
    if settings.start_at:
        parts.append(f"start at {settings.start_at}" if settings.start_at > 0 else "start after orchestration")
    return ", ".join([*parts, *([f"a start every {settings.gap:,} cycles"] if settings.gap else [])])


def _wants_dataflow(schedule: Schedule) -> bool:
    """Was something given that only has a meaning when tasks may overtake one another?"""
    policy, graph, timing = schedule.dispatch, schedule.task_graph, schedule.timing
    if policy is not None and policy.kind == "work_steal":
        return True
    if schedule.stream_by is not None or (timing is not None and timing.kind != "immediate"):
        return True
    if schedule.streams > 1 and (policy is None or policy.num_aicpus):  # else it is the number of workers
        return True
    if schedule.machine is not None:
        return True
    if graph is None:
        return False
    return bool(graph.given & {"deps", "pools", "ready", "start", "trace", "gen_cycles"})


def _dataflow(settings: Settings, schedule: Schedule) -> Settings:
    graph, policy = schedule.task_graph, schedule.dispatch
    machine = _machine(schedule.machine)
    settings = replace(settings, engine="dataflow", bound=settings.dispatch != "work_steal", machine=machine)
    if schedule.streams > 1 or schedule.stream_by is not None:
        settings = replace(settings, streams=schedule.streams)
        if policy is None:
            settings = replace(settings, workers=schedule.streams)
        settings = _with_key(settings, schedule.stream_by, "stream_by", "stream")
    settings = _timed(settings, schedule.timing, machine or A2A3)
    settings = replace(settings, gen_cycles=machine.gen_cycles if machine is not None else 0)
    if graph is None:
        return replace(settings, window=_DEFAULT_WINDOW)
    return _graph(settings, graph)


def _machine(given: Any) -> Machine | None:
    if not isinstance(given, str):
        return given  # type: ignore[no-any-return]  # checked by Schedule
    if given not in MACHINES:
        raise ScheduleError(f"there is no machine {given!r}; there are {', '.join(map(repr, MACHINES))}", "machine")
    return MACHINES[given]


def _timed(settings: Settings, timing: TimingPolicy | None, machine: Machine) -> Settings:
    if timing is None or timing.kind == "immediate":
        return settings
    amount = timing.amount or 1
    if timing.kind == "batched":
        return replace(settings, batch=int(amount))
    if timing.kind == "rate_limit":
        gap = machine.clock_hz / 1000 / amount
        if gap >= 2.0**62:
            raise ScheduleError(
                f"TimingPolicy.rate_limit({amount:g}) on {machine.name}: {gap:.3g} cycles from one start to the next; "
                "fewer than 2^62 are possible", "timing"
            )  # fmt: skip
        return replace(settings, gap=math.ceil(gap))
    if not settings.streams:
        raise ScheduleError(
            f"TimingPolicy.interleaved({int(amount)}) takes streams in turn, and this schedule has no streams. "
            f"Add streams(n), n more than {int(amount)} or equal to it.", "timing"
        )  # fmt: skip
    return replace(settings, together=min(int(amount), settings.streams))


def _graph(settings: Settings, graph: TaskGraphConfig) -> Settings:
    deps, start = graph.deps, graph.start
    infer = {DepsMode.EXPLICIT: None, DepsMode.HYBRID: deps.infer}.get(deps.mode, deps.mode)
    explicit = deps.mode is DepsMode.EXPLICIT or bool(deps.explicit_edges)
    settings = replace(settings, infer=infer, explicit=explicit)
    if "start" in graph.given:
        settings = replace(settings, start_at=start.n if start.kind == "threshold" and start.n else -1)
    if graph.gen_cycles is not None:
        settings = replace(settings, gen_cycles=graph.gen_cycles)
    settings = _with_key(settings, graph.ready.priority_fn, "ReadyPolicy.priority", "priority")
    settings = _with_key(settings, graph.trace.cost_fn, "TracePolicy.cycles", "cycles")
    settings = _with_key(settings, graph.pools.pool_fn, "Pools.custom", "pool")
    settings = replace(settings, ready=graph.ready.kind, pools=graph.pools.kind)
    if settings.pools == "by_exec_unit":
        machine, each = settings.machine, settings.workers
        cores = (each, each) if machine is None else (machine.cube_cores, machine.vector_cores)
        settings = replace(settings, widths=cores)
    return _stealing(settings) if settings.ready == "work_steal" else settings


def _stealing(settings: Settings) -> Settings:
    """Deques, from which any worker of the pool may take a task."""
    if settings.dispatch not in ("one worker", "work_steal") or settings.by_stream:
        binds = "streams(n) without a dispatch policy" if settings.by_stream else f"DispatchPolicy.{settings.dispatch}"
        raise ScheduleError(
            f"ReadyPolicy.work_steal() lets a worker take the tasks of others, and {binds} binds each task to one "
            "worker. Use DispatchPolicy.work_steal(n), or ReadyPolicy.fifo().", "ready"
        )  # fmt: skip
    if settings.together:
        raise ScheduleError(
            "ReadyPolicy.work_steal() takes the newest task of a deque, and TimingPolicy.interleaved() the streams in "
            "turn. Use ReadyPolicy.fifo() or ReadyPolicy.priority(...) with interleaved.", "ready"
        )  # fmt: skip
    return replace(settings, bound=False)


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


def _with_key(settings: Settings, function: Any, owner: str, role: str) -> Settings:
    key = trace_key(function, owner, role)
    return settings if key is None else replace(settings, keys=(*settings.keys, key))
