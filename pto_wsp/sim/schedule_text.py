"""Schedules as one line of text that reads back equal: `print_schedule` and `parse_schedule`.

    dispatch=affinity(axis("b", 0), 4) window=64 deps=hybrid(infer_bytes_overlap, true)
    dispatch=work_steal(8) window=(4096, bytes, abort) ready=priority(0 - axis("len", 0)) machine="a2a3"

Policies are written as their factories are called. Keys are expressions; a Python function that needs the values of
tasks has no text. Nothing in a text is ever run.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from pto_wsp.errors import IRConversionError, PtoError
from pto_wsp.scalar_expr import Expr, LoopVar
from pto_wsp.schedule import (
    Deps,
    DepsMode,
    DispatchPolicy,
    Pools,
    ReadyPolicy,
    Schedule,
    StartPolicy,
    TaskGraphConfig,
    TaskWindow,
    TimingPolicy,
    TracePolicy,
    WindowMode,
)
from pto_wsp.sim.keys import trace_key
from pto_wsp.sim.machine import Machine
from pto_wsp.trace.expr_text import ExprReader, print_expr
from pto_wsp.trace.text import GraphTextError

__all__ = ["ScheduleReader", "parse_schedule", "print_key", "print_schedule"]

_POLICIES = {"dispatch": DispatchPolicy, "timing": TimingPolicy, "deps": Deps, "pools": Pools, "ready": ReadyPolicy,
             "start": StartPolicy, "trace": TracePolicy}  # fmt: skip
_GRAPH = ("deps", "window", "pools", "ready", "start", "trace", "gen_cycles")
_KEYS = ("key_fn", "fn", "priority_fn", "cost_fn", "pool_fn")  # parameters that hold the key of a task
_FIELDS = {"fn": "key_fn", "tasks_per_ms": "amount", "streams": "amount", "explicit": "explicit_edges"}


# ---- printing ------------------------------------------------------------------------------------------------------


def print_schedule(schedule: Schedule, loops: Sequence[LoopVar] = ()) -> str:
    """A schedule as one line.

    loops   of the workload, which keys may use
    raises  IRConversionError for a key that is a Python function of values; ScheduleError for one that fails
    """
    parts = []
    if schedule.dispatch is not None:
        parts.append(f"dispatch={_policy(schedule.dispatch, 'DispatchPolicy', loops)}")
    if schedule.streams != 1:
        parts.append(f"streams={schedule.streams}")
    if schedule.stream_by is not None:
        parts.append(f"stream_by={print_key(schedule.stream_by, 'stream_by', loops)}")
    if schedule.timing is not None:
        parts.append(f"timing={_policy(schedule.timing, 'TimingPolicy', loops)}")
    if schedule.task_graph is not None:
        parts += _graph(schedule.task_graph, loops)
    if schedule.machine is not None:
        parts.append(f"machine={_machine(schedule.machine)}")
    return " ".join(parts) or "default"


def print_key(key: Any, owner: str, loops: Sequence[LoopVar] = ()) -> str:
    """The key of a task, a function or an expression, as an expression.

    raises  ScheduleError for a function that fails whatever the task is
    """
    found = trace_key(key, owner, "dispatch")
    if found is None or found.expr is None:
        code = getattr(key, "__code__", None)
        place = "" if code is None else f" ({code.co_filename}:{code.co_firstlineno})"
        raise IRConversionError(
            f"the function {getattr(key, '__name__', key)!r}{place} of {owner} needs the values of a task, so it runs "
            "as Python in this process and cannot go to another one. Write it as an expression of the task, such as "
            "lambda t: t.get('b') % 4"
        )
    return print_expr(found.expr, lambda var: _loop(var, loops))


def _loop(var: LoopVar, loops: Sequence[LoopVar]) -> str:
    number = next((k for k, other in enumerate(loops) if other is var), None)
    if number is None:
        raise IRConversionError(f"a key uses the loop variable {var.name!r}, which is no loop of the workload")
    return f"loop({number})"


def _policy(policy: Any, owner: str, loops: Sequence[LoopVar]) -> str:
    kind = policy.mode.value if isinstance(policy, Deps) else policy.kind
    if kind == "immediate":
        return "immediate"
    args = []
    for name, parameter in inspect.signature(getattr(type(policy), kind)).parameters.items():
        value = getattr(policy, _field(policy, name))
        if value is None and parameter.default is not parameter.empty:
            continue
        args.append(print_key(value, f"{owner}.{kind}", loops) if name in _KEYS else _plain(value))
    return f"{kind}({', '.join(args)})" if args else str(kind)


def _field(policy: Any, name: str) -> str:
    """Where a policy keeps what its factory calls `name`."""
    if isinstance(policy, TimingPolicy):
        return "amount"
    return name if hasattr(policy, name) and name != "explicit" else _FIELDS[name]


def _plain(value: Any) -> str:
    if isinstance(value, (DepsMode, WindowMode)):
        return str(value.value)
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _graph(graph: TaskGraphConfig, loops: Sequence[LoopVar]) -> list[str]:
    parts = [f"window={_window(graph.window)}"]
    for name in _GRAPH:
        if name in graph.given and name != "window":
            value = getattr(graph, name)
            parts.append(f"{name}={_policy(value, type(value).__name__, loops) if name in _POLICIES else value}")
    return parts


def _window(window: TaskWindow) -> str:
    if window.unit == "tasks" and window.mode is WindowMode.STALL:
        return str(window.size)
    return f"({window.size}, {window.unit}, {window.mode.value})"


def _machine(machine: Any) -> str:
    if isinstance(machine, str):
        return json.dumps(machine)
    if not isinstance(machine, Machine):
        raise IRConversionError(f"the machine {machine!r} of a schedule has no text: it is no Machine")
    values = {f.name: getattr(machine, f.name) for f in fields(machine)}
    return "(" + ", ".join(f"{k}={json.dumps(v) if isinstance(v, str) else _plain(v)}" for k, v in values.items()) + ")"


# ---- reading -------------------------------------------------------------------------------------------------------


def parse_schedule(text: str, loops: Sequence[LoopVar] = ()) -> Schedule:
    """The schedule that a line of `print_schedule` describes.

    raises  GraphTextError, which shows the place in the text
    """
    reader = ScheduleReader(text)
    reader.loops = loops
    found = reader.schedule()
    reader.expect("end", "the end of the schedule")
    return found


class _Key:
    """A key that has been an expression all along."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self, task: Any) -> Any:
        return self.value


class ScheduleReader(ExprReader):
    """Reads schedules. `loops`: the loop variables of the workload, which `loop(3)` counts."""

    loops: Sequence[LoopVar] = ()

    def schedule(self) -> Schedule:
        """Everything up to the end of the line."""
        start, values = self.token, dict[str, Any]()
        if self.accept("default"):
            return Schedule()
        while self.token.kind == "word":
            token = self.take()
            if token.text in values:
                self.fail(f"{token.text} is there twice.", token)
            self.mark("=")
            values[token.text] = self._item(token)
        graph = {name: values.pop(name) for name in _GRAPH if name in values}
        try:
            if graph:
                values["task_graph"] = TaskGraphConfig(**graph)
            return Schedule(**values)
        except PtoError as error:
            self.fail(error.message, start)

    def _item(self, token: Any) -> Any:
        name = token.text
        if name in _POLICIES:
            return self._policy(_POLICIES[name])
        if name == "window":
            return self._window()
        if name in ("streams", "gen_cycles"):
            return self.whole(0)
        if name == "stream_by":
            return self.key()
        if name == "machine":
            return self._machine()
        known = ", ".join([*_POLICIES, "window", "streams", "stream_by", "gen_cycles", "machine"])
        self.fail(f"a schedule has no {name[:80]}; it has {known}.", token)

    def key(self) -> Any:
        """The key of a task: an int or an expression."""
        return self.expression()

    def other_call(self, token: Any) -> Expr:
        if token.text != "loop":
            self.fail(f"{token.text} is no function of an expression.", token)
        number = self.whole(0)
        if number >= len(self.loops):
            self.fail(f"the workload has {len(self.loops)} loops; loop({number}) is none of them.", token)
        return Expr("loop_var", "i64", self.loops[number])

    def _policy(self, kind: Any) -> Any:
        token = self.expect("word", f"a kind of {kind.__name__}")
        if kind is TimingPolicy and token.text == "immediate":
            return TimingPolicy.immediate
        names = [n for n, f in vars(kind).items() if isinstance(f, staticmethod)]
        if token.text not in names:
            self.fail(f"there is no {kind.__name__}.{token.text[:80]}; there are {', '.join(names)}.", token)
        factory: Callable[..., Any] = getattr(kind, token.text)
        args: dict[str, Any] = {}
        if self.accept("("):
            for name in inspect.signature(factory).parameters:
                if self.at_mark(")"):
                    break
                if args:
                    self.mark(",")
                args[name] = self._argument(name)
            self.mark(")")
        try:
            return factory(**args)
        except (PtoError, TypeError) as error:
            self.fail(getattr(error, "message", str(error)), token)

    def _argument(self, name: str) -> Any:
        if name in _KEYS:
            value = self.key()
            return _Key(value) if name == "pool_fn" else value
        if name == "infer":
            token = self.expect("word", "a DepsMode")
            if token.text not in [mode.value for mode in DepsMode]:
                self.fail(f"there is no DepsMode {token.text[:80]}.", token)
            return DepsMode(token.text)
        if self.token.text in ("true", "false"):
            return self.take().text == "true"
        return self._number()

    def _number(self) -> int | float:
        sign = -1 if self.accept("-") else 1
        token = self.expect("number", "a number")
        if token.text.endswith("u"):
            self.fail("expected a number.", token)
        return sign * self.number(token)

    def _window(self) -> TaskWindow:
        start = self.token
        try:
            if not self.accept("("):
                return TaskWindow(self.whole(0))
            size = self.whole(0)
            self.mark(",")
            unit = self.expect("word", "tasks, bytes or entries").text
            self.mark(",")
            mode = self.expect("word", "stall, abort or benchmark")
            self.mark(")")
            if mode.text not in [m.value for m in WindowMode]:
                self.fail("a window stalls, aborts or is a benchmark.", mode)
            return TaskWindow(size, unit, WindowMode(mode.text))
        except PtoError as error:
            if isinstance(error, GraphTextError):
                raise
            self.fail(error.message, start)

    def _machine(self) -> str | Machine:
        if self.token.kind == "string":
            return self.quoted()
        start, values = self.token, dict[str, Any]()
        self.mark("(")
        while not self.at_mark(")"):
            if values:
                self.mark(",")
            name = self.expect("word", "a number of the machine").text
            self.mark("=")
            values[name] = self.quoted() if self.token.kind == "string" else self._number()
        self.mark(")")
        known = {f.name: f.type for f in fields(Machine)}
        if values.keys() - known.keys() or any(isinstance(values.get(n), str) != (n == "name") for n in values):
            self.fail(f"a machine has {', '.join(known)}.", start)
        try:
            return Machine(**values)
        except TypeError as error:
            self.fail(f"{error}.", start)
