"""Workloads: which tasks there are, and in which order they are made.

A `Workload` is what a user builds and combines: a node, its children, and the schedule that goes with it. Nodes are
never edited; every method returns another node. `workload.tree()` is its meaning as plain data, see `tree.py`.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pto_wsp.arguments import as_int
from pto_wsp.errors import CompileError, UsageError, show_user_frames
from pto_wsp.schedule import DispatchPolicy, Schedule, TaskGraphConfig, TimingPolicy
from pto_wsp.trace import record
from pto_wsp.trace.source import where
from pto_wsp.trace.tree import WorkloadTree

if TYPE_CHECKING:
    from pto_wsp.program import Program

__all__ = ["Task", "Workload"]


@dataclass
class Task:
    """One task of `workload.enumerate()`.

    params      axis values;  resources  arguments by name;  bindings  loop name -> value, innermost of a name
    """

    kernel: Any
    params: list[Any] = field(default_factory=list)
    resources: Any = field(default_factory=dict)
    id: int = 0
    bindings: dict[str, int] | None = None

    def __post_init__(self) -> None:
        if self.bindings is None:
            self.bindings = {}

    def get(self, axis: str, default: int = 0) -> int:
        """The value of the loop of that name."""
        return (self.bindings or {}).get(axis, default)

    def get_axis_value(self, index: int) -> Any:
        """params[index]; 0 when out of range."""
        return self.params[index] if 0 <= index < len(self.params) else 0


class Workload:
    """A node of a workload and the schedule given with it.

    kind      what the node is; `fields` holds its parts:
                task                    kernel, params (axis values), resources (arguments by name), after
                parallel_for, for_each  axis, body (a Workload, or a function of the index), var_name
                select                  sparse, body, var_name
                cond                    predicate, then_workload, else_workload
                combine, sequential     workloads
                slot_set_u64            slot, value
                slot_load_u64           slot, tensor, row, col
                send, consume, receive  channel, value / channel, body / channel, body, otherwise
                connect, pipeline       processes, channels / stages
                empty
    name      given by `named`;  title  what to call it otherwise: the name of the @workload function
    line      where it was built
    """

    def __init__(self, kind: str, name: str | None = None, **fields: Any) -> None:
        self.kind = kind
        self.fields: Mapping[str, Any] = fields
        self.name = name
        self.title: str | None = None
        self.line = where()
        self.origin = object()  # the same for all copies of a node
        self.params: tuple[tuple[str, Any], ...] = ()
        self.schedule = Schedule()
        self.spatial_grid: Any = None
        self.layouts: tuple[tuple[Any, tuple[Any, ...]], ...] = ()
        self.type_errors: list[Any] = []
        recorder = record.current()
        if recorder is not None:
            recorder.built(self)

    def parts(self) -> Iterator[Workload]:
        """The nodes directly inside this one; functions given as bodies are not called."""
        for value in self.fields.values():
            for item in value if isinstance(value, (list, tuple)) else (value,):
                inner = getattr(item, "body", item) if not isinstance(item, Workload) else item  # a Process
                if isinstance(inner, Workload):
                    yield inner

    @property
    def task_graph_config(self) -> TaskGraphConfig | None:
        """What `task_graph(...)` was given; None without it."""
        return self.schedule.task_graph

    def has_type_errors(self) -> bool:
        """Whether the type checker found anything while the workload was built."""
        return bool(self.type_errors)

    # ---- the schedule: each returns a new node

    def named(self, name: str) -> Workload:
        """The same workload, called `name` in messages and artifacts."""
        if not isinstance(name, str) or not name:
            raise UsageError(f"named() needs a non-empty str; got {name!r}.").at(where())
        return self._with("named", name=name)

    def titled(self, title: str) -> Workload:
        """The same node, made by the @workload function of that name."""
        made = copy.copy(self)
        made.title = title
        return made

    def with_params(self, *params: tuple[str, Any]) -> Workload:
        """Notes (name, axis) pairs; they are printed with the workload."""
        return self._with("with_params", params=tuple(params))

    def dispatch(self, policy: DispatchPolicy) -> Workload:
        """Which worker a task goes to, see DispatchPolicy."""
        _given("dispatch", policy, DispatchPolicy)
        return self._scheduled("dispatch", dispatch=policy)

    def streams(self, count: int) -> Workload:
        """The number of streams; with a dispatch policy that gives no worker count, the number of workers."""
        return self._scheduled("streams", streams=count)

    def stream_by(self, key_fn: Any) -> Workload:
        """The stream of a task: the key modulo the number of streams."""
        return self._scheduled("stream_by", stream_by=key_fn)

    def timing(self, policy: TimingPolicy) -> Workload:
        """When ready tasks may start, see TimingPolicy."""
        _given("timing", policy, TimingPolicy)
        return self._scheduled("timing", timing=policy)

    def machine(self, machine: Any) -> Workload:
        """The simulated device, such as "a2a3", see Schedule."""
        return self._scheduled("machine", machine=machine)

    def spatial_map(self, grid: Any) -> Workload:
        """A grid of cores to place tasks on."""
        return self._with("spatial_map", spatial_grid=grid)

    def layout(self, tensor: Any, *dims: Any) -> Workload:
        """Deprecated: a layout belongs to its Tensor."""
        warnings.warn(
            "Workload.layout() is deprecated: it is only noted. Give the layout to the tensor: "
            "Tensor(..., layout=TensorLayout(...)) or tensor.with_layout(...).",
            DeprecationWarning,
            stacklevel=2,
        )
        return self._with("layout", layouts=(*self.layouts, (tensor, dims)))

    def task_graph(
        self,
        deps: Any = None,
        window: Any = None,
        pools: Any = None,
        ready: Any = None,
        start: Any = None,
        trace: Any = None,
        gen_cycles: int | None = None,
    ) -> Workload:
        """How the task graph is built and issued; parts left out have the defaults of TaskGraphConfig."""
        with show_user_frames():
            config = TaskGraphConfig(deps, window, pools, ready, start, trace, gen_cycles)
        return self._scheduled("task_graph", task_graph=config)

    def _scheduled(self, method: str, **changes: Any) -> Workload:
        with show_user_frames():
            return self._with(method, schedule=self.schedule.with_(**changes))

    def _with(self, method: str, **changes: Any) -> Workload:
        recorder = record.current()
        if recorder is not None and method not in ("named", "with_params"):
            raise UsageError(
                f"{method}() on a part of a workload: a schedule belongs to the workload that is compiled. "
                f"Write it where that is called: my_workload(...).{method}(...)."
            ).at(where())
        made = copy.copy(self)
        made.__dict__.update(changes)
        if recorder is not None and id(self) in recorder.loose:
            recorder.loose[id(made)] = recorder.loose.pop(id(self))
        return made

    # ---- what it means

    @show_user_frames()
    def tree(self) -> WorkloadTree:
        """The tasks and their order as plain data; functions given as bodies are called once, with loop variables.

        raises CompileError at the user's line: arguments that do not fit their kernel, kernels that cannot be
               compiled, loop variables outside their loop, schedules on inner nodes
        """
        from pto_wsp.trace.resolve import resolve

        return resolve(self)

    def enumerate(
        self, *, symbols: Mapping[str, int] | None = None, slots: Mapping[int, int] | None = None
    ) -> list[Task]:
        """Every task, in program order, with axis values and loop variables as ints.

        symbols, slots   values for predicates. Where a predicate needs others, the tasks of both branches are listed.
        """
        from pto_wsp.trace.unroll import unroll

        symbols, slots = {} if symbols is None else symbols, {} if slots is None else slots
        if not isinstance(symbols, Mapping) or not all(isinstance(name, str) for name in symbols):
            raise UsageError(f"symbols= is a dict of name to number, such as {{'n': 4}}; got {symbols!r}").at(where())
        if not isinstance(slots, Mapping) or not all(as_int(slot) is not None for slot in slots):
            raise UsageError(f"slots= is a dict of slot to number, such as {{0: 4}}; got {slots!r}").at(where())
        for name, value in (*symbols.items(), *slots.items()):
            if as_int(value) is None:
                raise UsageError(f"the value of {name!r} is an int; got {value!r}").at(where())
        return list(unroll(self, symbols, slots))

    def compile(self, target: str = "cpu_sim", **options: Any) -> Program:
        """Compile to a Program, see Program for targets and options."""
        from pto_wsp.program import Program

        with show_user_frames():
            return Program(self, target, options)

    def __iter__(self) -> Iterator[Task]:
        raise UsageError(
            "a workload is not iterable. Its tasks: workload.enumerate(). A loop over an axis inside "
            "@workload: for i in P(axis)."
        ).at(where())

    def __repr__(self) -> str:
        called = self.name or self.title
        return f"Workload({self.kind}{f', {called}' if called else ''})"


def _given(method: str, policy: Any, kind: type) -> None:
    if not isinstance(policy, kind):
        raise TypeError(f"{method}() takes a {kind.__name__}; got {policy!r}.")


def part(node: Workload, name: str, default: Any = ...) -> Any:
    """A field of a node.

    raises CompileError when it is missing and has no default
    """
    if name in node.fields:
        return node.fields[name]
    if default is ...:
        raise CompileError(
            f"a {node.kind!r} node needs {name}=...; it has {', '.join(node.fields) or 'nothing'}."
        ).at(node.line)
    return default
