"""Scheduling policies: plain frozen data, checked when they are made.

A policy says what shall happen; `pto_wsp.sim` makes it happen.  Each class has a `kind` and the values of
that kind; the factories are the way to make one.

    DispatchPolicy.round_robin(4)          which worker runs a task
    TaskWindow(512)                        how many tasks may be in flight
    TaskGraphConfig(ready=ReadyPolicy.fifo())
    Schedule(dispatch=DispatchPolicy.affinity(lambda t: t.get("b"), 8))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Any, ClassVar

from pto_wsp.arguments import as_int
from pto_wsp.errors import PolicyError
from pto_wsp.scalar_expr import Expr, LoopVar, TaskExpr, as_expr

__all__ = [
    "Deps",
    "DepsMode",
    "DispatchPolicy",
    "Pools",
    "ReadyPolicy",
    "Schedule",
    "StartPolicy",
    "TaskGraphConfig",
    "TaskWindow",
    "TimingPolicy",
    "TracePolicy",
    "WindowMode",
]

# The key of a task. A callable is called once, at compile time.
Key = Callable[[TaskExpr], Any] | Expr | LoopVar | int


# ---------------------------------------------------------------------------------------------- checks


def _check_kind(policy: Any, kinds: tuple[str, ...]) -> None:
    if not isinstance(policy.kind, str) or policy.kind not in kinds:
        known = ", ".join(kinds)
        raise PolicyError(f"{type(policy).__name__} has no kind {policy.kind!r}; there are {known}")


def _count(value: Any, what: str, least: int) -> int:
    """`value` as an int of at least `least`; `what` names it in the message."""
    number = as_int(value)
    if number is None:
        raise PolicyError(f"{what} is a whole number; got {value!r}")
    if number < least:
        raise PolicyError(f"{what} is {least} or more; got {number}")
    if number >= 1 << 63:
        raise PolicyError(f"{what} is less than 2^63; got {number:,}")
    return number


def _check_key(key: Any, what: str) -> None:
    if callable(key):
        return
    try:
        as_expr(key)
    except (TypeError, OverflowError):
        raise PolicyError(
            f"{what} takes a function of the task, such as lambda t: t.get('b'), or an expression; got {key!r}"
        ) from None


def _check_function(fn: Any, what: str) -> None:
    if not callable(fn):
        raise PolicyError(f"{what} takes a function of the task; got {fn!r}")


def _set(policy: Any, **values: Any) -> None:
    """Store normalised values in a frozen dataclass that is being made."""
    for name, value in values.items():
        object.__setattr__(policy, name, value)


def _refuse(policy: Any, *names: str) -> None:
    """The values that a policy of this kind has no use for."""
    for name in names:
        value = getattr(policy, name)
        if value is not None and as_int(value) != 0:
            owner = f"{type(policy).__name__} of kind {policy.kind!r}"
            raise PolicyError(f"{owner} takes no {name}; got {value!r}")


class _Policy:
    """Policies are equal when their values are; expressions are compared by identity, as `==` builds another one."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and all(map(_same, self._values(), other._values()))

    def __hash__(self) -> int:
        return hash(self._values())

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, f.name) for f in fields(self))  # type: ignore[arg-type]


def _same(a: Any, b: Any) -> bool:
    symbolic = isinstance(a, (Expr, LoopVar)) or isinstance(b, (Expr, LoopVar))
    return a is b or (not symbolic and bool(a == b))


# ---------------------------------------------------------------------------------------------- which worker


@dataclass(frozen=True, eq=False)
class DispatchPolicy(_Policy):
    """Which worker runs a task.

    kind         round_robin   the n-th issued task goes to worker n mod W
                 affinity      key mod W
                 hash          key mod W too: cycle counts rely on it, the user's key does the hashing
                 dispatch_by   key mod W, the key being the worker that the user chose
                 work_steal    any free worker
    num_aicpus   W, the number of workers; 0: the number of streams, or 1
    key_fn       the key as a function of the task, or as an expression; read as unsigned 64-bit

    raises  PolicyError (a ValueError) for a kind, count or key that makes no sense
    """

    kind: str
    num_aicpus: int = 0
    key_fn: Key | None = None

    def __post_init__(self) -> None:
        _check_kind(self, ("round_robin", "affinity", "hash", "dispatch_by", "work_steal"))
        least = 1 if self.kind == "round_robin" else 0
        _set(self, num_aicpus=_count(self.num_aicpus, f"num_aicpus of DispatchPolicy.{self.kind}", least))
        if self.kind in ("round_robin", "work_steal"):
            _refuse(self, "key_fn")
        else:
            _check_key(self.key_fn, f"DispatchPolicy.{self.kind}")

    @staticmethod
    def round_robin(num_aicpus: int) -> DispatchPolicy:
        """Tasks in turn over `num_aicpus` workers."""
        return DispatchPolicy("round_robin", num_aicpus)

    @staticmethod
    def affinity(key_fn: Key, num_aicpus: int = 0) -> DispatchPolicy:
        """Tasks of one key on one worker: key mod W."""
        return DispatchPolicy("affinity", num_aicpus, key_fn)

    @staticmethod
    def hash(key_fn: Key, num_aicpus: int = 0) -> DispatchPolicy:
        """Tasks of one key on one worker: key mod W. Nothing is hashed; give a key that spreads."""
        return DispatchPolicy("hash", num_aicpus, key_fn)

    @staticmethod
    def dispatch_by(fn: Key, num_aicpus: int = 0) -> DispatchPolicy:
        """Worker `fn(task)` mod W."""
        return DispatchPolicy("dispatch_by", num_aicpus, fn)

    @staticmethod
    def work_steal(num_aicpus: int = 0) -> DispatchPolicy:
        """Any free worker of `num_aicpus`."""
        return DispatchPolicy("work_steal", num_aicpus)


# ---------------------------------------------------------------------------------------------- when


@dataclass(frozen=True, eq=False)
class TimingPolicy(_Policy):
    """When generated tasks may start.

    kind    immediate     at once; the ready-made `TimingPolicy.immediate`
            batched       in groups of `amount`
            interleaved   `amount` streams in turn
            rate_limit    at most `amount` tasks per millisecond of simulated time
    """

    kind: str
    amount: float | None = None

    immediate: ClassVar[TimingPolicy]

    def __post_init__(self) -> None:
        _check_kind(self, ("immediate", "batched", "interleaved", "rate_limit"))
        if self.kind == "immediate":
            _refuse(self, "amount")
        elif self.kind == "rate_limit":
            _check_rate(self.amount)
        else:
            _set(self, amount=_count(self.amount, f"the count of TimingPolicy.{self.kind}", 1))

    @staticmethod
    def batched(n: int) -> TimingPolicy:
        """Tasks can start in groups: each n that have become ready, whichever they are, or the rest at the end."""
        return TimingPolicy("batched", n)

    @staticmethod
    def interleaved(streams: int) -> TimingPolicy:
        """Take so many streams in turn, one task each; the next ones when those have nothing ready."""
        return TimingPolicy("interleaved", streams)

    @staticmethod
    def rate_limit(tasks_per_ms: float) -> TimingPolicy:
        """Start at most this many tasks per millisecond of simulated time."""
        return TimingPolicy("rate_limit", tasks_per_ms)


TimingPolicy.immediate = TimingPolicy("immediate")


def _check_rate(rate: Any) -> None:
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) and as_int(rate) is None:
        raise PolicyError(f"tasks_per_ms of TimingPolicy.rate_limit is a number; got {rate!r}")
    if not 0 < rate < float("inf"):
        raise PolicyError(f"tasks_per_ms of TimingPolicy.rate_limit is more than 0 and finite; got {rate}")


class WindowMode(Enum):
    """What happens when the window is full."""

    STALL = "stall"  # generation waits
    ABORT = "abort"  # an error
    BENCHMARK = "benchmark"  # generation goes on; the overflow is counted


@dataclass(frozen=True, eq=False)
class TaskWindow(_Policy):
    """How much may be generated and not yet complete.

    size   more than 0
    unit   tasks     one per task
           bytes     of the regions that a task writes
           entries   one per tensor region of a task
    """

    size: int
    unit: str = "tasks"
    mode: WindowMode = WindowMode.STALL

    def __post_init__(self) -> None:
        _set(self, size=_count(self.size, "size of a TaskWindow", 1))
        if not isinstance(self.unit, str) or self.unit not in ("tasks", "bytes", "entries"):
            raise PolicyError(f"unit of a TaskWindow is 'tasks', 'bytes' or 'entries'; got {self.unit!r}")
        if not isinstance(self.mode, WindowMode):
            raise PolicyError(f"mode of a TaskWindow is one of WindowMode, e.g. WindowMode.STALL; got {self.mode!r}")


# ---------------------------------------------------------------------------------------------- task graph


class DepsMode(Enum):
    """Where edges between tasks come from, beside those that the workload states: P.seq, sequential, and slots that are
    loaded from what tasks wrote.
    """

    INFER_TENSOR_MAP_EXACT = "infer_tensor_map_exact"
    INFER_BYTES_OVERLAP = "infer_bytes_overlap"
    EXPLICIT = "explicit"
    HYBRID = "hybrid"


@dataclass(frozen=True, eq=False)
class Deps(_Policy):
    """Edges between tasks.

    mode             DepsMode
    infer            for HYBRID: which of the two INFER modes
    explicit_edges   for HYBRID: whether explicit edges count too
    """

    mode: DepsMode
    infer: DepsMode | None = None
    explicit_edges: bool | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.mode, DepsMode):
            raise PolicyError(f"mode of Deps is a DepsMode, such as DepsMode.EXPLICIT; got {self.mode!r}")
        if self.mode is not DepsMode.HYBRID:
            if self.infer is not None or self.explicit_edges is not None:
                raise PolicyError(f"Deps of mode {self.mode.name} takes no further values; use Deps.hybrid(...)")
            return
        if not any(self.infer is mode for mode in (DepsMode.INFER_TENSOR_MAP_EXACT, DepsMode.INFER_BYTES_OVERLAP)):
            raise PolicyError(f"Deps.hybrid infers by one of the two INFER modes of DepsMode; got {self.infer!r}")
        if not isinstance(self.explicit_edges, bool):
            raise PolicyError(f"explicit of Deps.hybrid is True or False; got {self.explicit_edges!r}")

    @staticmethod
    def infer_tensor_map_exact() -> Deps:
        """Between tasks that touch the identical region, at least one of them writing."""
        return Deps(DepsMode.INFER_TENSOR_MAP_EXACT)

    @staticmethod
    def infer_bytes_overlap() -> Deps:
        """Between tasks whose regions share an element, at least one of them writing."""
        return Deps(DepsMode.INFER_BYTES_OVERLAP)

    @staticmethod
    def explicit() -> Deps:
        """Only where the user says so."""
        return Deps(DepsMode.EXPLICIT)

    @staticmethod
    def hybrid(infer: DepsMode = DepsMode.INFER_TENSOR_MAP_EXACT, explicit: bool = True) -> Deps:
        """Inferred edges, and the explicit ones too."""
        return Deps(DepsMode.HYBRID, infer, explicit)


@dataclass(frozen=True, eq=False)
class ReadyPolicy(_Policy):
    """Which ready task a free worker takes: fifo, priority (lowest `priority_fn` first) or work_steal."""

    kind: str
    priority_fn: Key | None = None

    def __post_init__(self) -> None:
        _check_kind(self, ("fifo", "work_steal", "priority"))
        if self.kind == "priority":
            _check_key(self.priority_fn, "ReadyPolicy.priority")
        else:
            _refuse(self, "priority_fn")

    @staticmethod
    def fifo() -> ReadyPolicy:
        """The one that is ready the longest."""
        return ReadyPolicy("fifo")

    @staticmethod
    def work_steal() -> ReadyPolicy:
        """A worker takes the newest of its own, else the oldest of the longest queue.

        A task enters the queue of the worker that completed the last of its predecessors; one that has none, or whose
        predecessors had all completed when it was generated, that of the next worker in turn.
        """
        return ReadyPolicy("work_steal")

    @staticmethod
    def priority(priority_fn: Key) -> ReadyPolicy:
        """The lowest value of `priority_fn(task)`."""
        return ReadyPolicy("priority", priority_fn)


@dataclass(frozen=True, eq=False)
class StartPolicy(_Policy):
    """When workers start: after_orchestration (all tasks generated) or threshold (`n` tasks ready)."""

    kind: str
    n: int | None = None

    def __post_init__(self) -> None:
        _check_kind(self, ("threshold", "after_orchestration"))
        if self.kind == "threshold":
            _set(self, n=_count(self.n, "n of StartPolicy.threshold", 1))
        else:
            _refuse(self, "n")

    @staticmethod
    def threshold(n: int) -> StartPolicy:
        """Once n tasks are ready."""
        return StartPolicy("threshold", n)

    @staticmethod
    def after_orchestration() -> StartPolicy:
        """Once every task is generated."""
        return StartPolicy("after_orchestration")


@dataclass(frozen=True, eq=False)
class TracePolicy(_Policy):
    """Where a task's duration comes from: none (the cycle model) or cycles (`cost_fn(task)`, when given)."""

    kind: str
    cost_fn: Key | None = None

    def __post_init__(self) -> None:
        _check_kind(self, ("none", "cycles"))
        if self.kind == "none":
            _refuse(self, "cost_fn")
        elif self.cost_fn is not None:
            _check_key(self.cost_fn, "TracePolicy.cycles")

    @staticmethod
    def none() -> TracePolicy:
        """The cycle model's."""
        return TracePolicy("none")

    @staticmethod
    def cycles(cost_fn: Key | None = None) -> TracePolicy:
        """`cost_fn(task)` cycles; the cycle model's when there is no function."""
        return TracePolicy("cycles", cost_fn)


@dataclass(frozen=True, eq=False)
class Pools(_Policy):
    """The group of workers a task may use: single, by_exec_unit (cube or vector), custom (`pool_fn(task)`)."""

    kind: str
    pool_fn: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        _check_kind(self, ("single", "by_exec_unit", "custom"))
        if self.kind == "custom":
            _check_function(self.pool_fn, "Pools.custom")
        else:
            _refuse(self, "pool_fn")

    @staticmethod
    def single() -> Pools:
        """All workers are one pool."""
        return Pools("single")

    @staticmethod
    def by_exec_unit() -> Pools:
        """Cube kernels and vector kernels have workers of their own."""
        return Pools("by_exec_unit")

    @staticmethod
    def custom(pool_fn: Callable[[Any], Any]) -> Pools:
        """The pool that `pool_fn(task)` names."""
        return Pools("custom", pool_fn)


@dataclass(frozen=True, eq=False, init=False)
class TaskGraphConfig(_Policy):
    """Everything that `task_graph(...)` sets.

    gen_cycles   that the orchestrator needs to generate a task; None: what the machine needs, 0 without one
    given        names of the arguments that were given; the others hold their defaults. Which engine runs depends on
                 it. A start that is not given holds nothing up: it differs from the default it shows only for a
                 workload larger than the window, which after_orchestration could never start
    """

    deps: Deps
    window: TaskWindow
    pools: Pools
    ready: ReadyPolicy
    start: StartPolicy
    trace: TracePolicy
    gen_cycles: int | None
    given: frozenset[str]

    def __init__(
        self,
        deps: Deps | None = None,
        window: TaskWindow | None = None,
        pools: Pools | None = None,
        ready: ReadyPolicy | None = None,
        start: StartPolicy | None = None,
        trace: TracePolicy | None = None,
        gen_cycles: int | None = None,
    ) -> None:
        cycles = None if gen_cycles is None else _count(gen_cycles, "gen_cycles of a task graph", 0)
        values: dict[str, Any] = {"deps": deps, "window": window, "pools": pools, "ready": ready}
        values.update(start=start, trace=trace, gen_cycles=cycles)
        _set(self, gen_cycles=cycles)
        _set(self, given=frozenset(name for name, value in values.items() if value is not None))
        for name, default in _TASK_GRAPH_DEFAULTS.items():
            value = values[name]
            if value is not None and not isinstance(value, type(default)):
                raise PolicyError(f"{name} of a task graph is a {type(default).__name__}; got {value!r}")
            _set(self, **{name: default if value is None else value})


_TASK_GRAPH_DEFAULTS = {
    "deps": Deps.infer_tensor_map_exact(),
    "window": TaskWindow(8192),
    "pools": Pools.single(),
    "ready": ReadyPolicy.fifo(),
    "start": StartPolicy.after_orchestration(),
    "trace": TracePolicy.none(),
}


# ---------------------------------------------------------------------------------------------- all together


@dataclass(frozen=True, eq=False)
class Schedule(_Policy):
    """How a workload is run. Change one with `schedule.with_(dispatch=...)`.

    dispatch     None: one worker, or one per stream
    streams      number of in-order queues; 1, the default, means none, unless there is a `stream_by`; `Schedule(policy,
                 window)` is short for a task graph that has this window
    stream_by    key of the stream that a task belongs to
    timing       None: immediate
    task_graph   None: no window
    machine      the simulated device, "a2a3" or a `pto_wsp.sim.machine.Machine`: its clock, how fast it generates
                 tasks, its cores as the workers of Pools.by_exec_unit(). None: 1.85 GHz, and nothing else
    """

    dispatch: DispatchPolicy | None = None
    streams: int = 1
    stream_by: Key | None = None
    timing: TimingPolicy | None = None
    task_graph: TaskGraphConfig | None = None
    machine: Any = None

    def __post_init__(self) -> None:
        for name, kind in (("dispatch", DispatchPolicy), ("timing", TimingPolicy), ("task_graph", TaskGraphConfig)):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise PolicyError(f"{name} of a schedule is a {kind.__name__}; got {value!r}")
        window: Any = self.streams
        if isinstance(window, TaskWindow):
            _set(self, streams=1, task_graph=TaskGraphConfig(window=window))
        _set(self, streams=_count(self.streams, "streams of a schedule", 1))
        if self.stream_by is not None:
            _check_key(self.stream_by, "stream_by of a schedule")
        if self.machine is not None and not isinstance(self.machine, str) and not hasattr(self.machine, "clock_hz"):
            raise PolicyError(f"machine of a schedule is a name such as 'a2a3', or a Machine; got {self.machine!r}")

    def with_(self, **changes: Any) -> Schedule:
        """A copy with these fields changed."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """The fields that differ from their defaults, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not f.default}
