"""How a user writes workloads: `@workload`, the loops of `P`, and the functional primitives."""

from __future__ import annotations

import functools
import inspect
import operator
import warnings
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, TypeVar, cast, overload

from pto_wsp.errors import ArgumentError, AxisError, SourceLine, UsageError, show_user_frames
from pto_wsp.scalar_expr import LoopVar
from pto_wsp.trace import record
from pto_wsp.trace.record import Frame, Recorder
from pto_wsp.trace.resolve import as_axis, as_predicate, slot_number, together
from pto_wsp.trace.source import line_for_errors, where
from pto_wsp.trace.workload import Workload

__all__ = [
    "P",
    "combine",
    "cond",
    "for_each",
    "parallel_for",
    "select",
    "sequential",
    "slot_load_u64",
    "slot_set_u64",
    "task",
    "workload",
]


# ---- @workload ---------------------------------------------------------------------------------------------------


@overload
def workload(func: Callable[..., Any]) -> Callable[..., Workload]: ...
@overload
def workload(
    func: None = None, *, type_check: bool = True, fail_on_type_error: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Workload]]: ...


def workload(
    func: Callable[..., Any] | None = None, *, type_check: bool = True, fail_on_type_error: bool = False
) -> Any:
    """A function whose call records a workload: kernel calls are tasks, `for i in P(axis)` is a loop over tasks.

    The body runs once per call. Its parameters are ordinary Python values. Statements are unordered in time unless
    they stand inside `P.seq` or `sequential`.

    type_check          collect what does not fit in `w.type_errors`; compiling stops at the first of them in any case
    fail_on_type_error  raise TypeError with the list already when the workload is built
    """
    if func is None:
        return lambda f: workload(f, type_check=type_check, fail_on_type_error=fail_on_type_error)
    if inspect.isgeneratorfunction(func) or inspect.iscoroutinefunction(func):
        raise UsageError(f"workload {func.__name__} contains yield or await; a body runs in one go.").at(where())
    if not callable(func):
        raise UsageError(f"@workload decorates a function; got {func!r}.").at(where())

    @functools.wraps(func)
    def build(*args: Any, **kwargs: Any) -> Workload:
        with show_user_frames():
            return _record(func, args, kwargs, type_check, fail_on_type_error)

    build.__dict__.update(_workload_name=func.__name__, _type_check=type_check)
    return build


def _record(func: Callable[..., Any], args: Any, kwargs: Any, type_check: bool, fail_on_type_error: bool) -> Workload:
    outer = record.current()
    with Recorder(func.__name__, type_check) as recorder:
        with line_for_errors(f"recording workload {func.__name__}"):
            func(*args, **kwargs)
        nodes = recorder.finish()
    _warn_of_loose(recorder)
    made = together(nodes)
    if len(nodes) == 1:  # a node of its own, with this function's name and findings
        made = made.titled(func.__name__)
    made.title = func.__name__
    made.type_errors = list(recorder.type_errors)
    if fail_on_type_error and made.type_errors:
        listed = "\n".join(str(e) for e in made.type_errors)
        raise TypeError(f"Type errors in workload '{func.__name__}':\n{listed}")
    if outer is not None:  # a workload called inside another becomes a part of it
        outer.type_errors.extend(made.type_errors)
        outer.add(made)
    return made


def _warn_of_loose(recorder: Recorder) -> None:
    """Nodes that were built in the body and became part of nothing do nothing: say so."""
    for node in recorder.loose.values():
        parts = node.fields.get("workloads", ()) if node.kind == "combine" else (None,)
        if all(id(p) in recorder.added for p in parts):  # combine(...) of calls that are recorded anyway
            continue
        hint = (
            " Inside @workload write loops as `for i in P(axis):` or `P.seq(axis)`, choices as `with P.when(...):`;"
            " or build the whole workload from functions, outside @workload."
        )
        if node.kind in record.CHANNEL_NODES:
            hint = " A pipeline is built from functions, outside @workload: for_each(n, lambda i: send(q, task(...)))."
        warnings.warn_explicit(
            f"the {node.kind} node built here never became part of workload {recorder.name!r}, so it does nothing."
            + hint,
            UserWarning,
            node.line.file,
            node.line.line,
        )


_Function = TypeVar("_Function", bound=Callable[..., Any])


def _entry(function: _Function) -> _Function:
    """A function that users call: errors leave it without our frames."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with show_user_frames():
            return function(*args, **kwargs)

    return cast(_Function, call)


# ---- P -----------------------------------------------------------------------------------------------------------


class _Loop:
    """Iterating yields the loop variables once; the end of the body closes the loop."""

    def __init__(self, kind: str, axes: tuple[Any, ...], names: tuple[str, ...], line: SourceLine) -> None:
        self.kind, self.axes, self.names, self.line = kind, axes, names, line

    def __iter__(self) -> Iterator[Any]:
        with show_user_frames():
            recorder = record.require(f"P{_METHOD[self.kind]}(...)", self.line)
        vars = tuple(LoopVar(n, axis, i) for i, (n, axis) in enumerate(zip(self.names, self.axes, strict=True)))
        return _Iteration(self, recorder, vars)


_METHOD = {"parallel_for": "", "for_each": ".seq", "select": ".sel"}


class _Iteration:
    """One pass through a loop: opens its block at the first `next`, closes it at the second."""

    def __init__(self, loop: _Loop, recorder: Recorder, vars: tuple[LoopVar, ...]) -> None:
        self.loop, self.recorder, self.vars = loop, recorder, vars
        self.frame: Frame | None = None

    def __iter__(self) -> _Iteration:
        return self

    def __next__(self) -> Any:
        loop = self.loop
        if self.frame is None:
            title = f"P{_METHOD[loop.kind]}({', '.join(v.name for v in self.vars)})"
            self.frame = self.recorder.open(Frame(title, loop.line, self.vars))
            return self.vars[0] if len(self.vars) == 1 else self.vars
        with show_user_frames():
            body = together(self.recorder.close(self.frame), ordered=loop.kind == "for_each")
        for var in reversed(self.vars):
            body = Workload(
                loop.kind,
                **{"sparse" if loop.kind == "select" else "axis": var.axis},
                body=body,
                var_name=var.name,
                var=var,
            )
            body.line = loop.line
        self.recorder.add(body)
        raise StopIteration


class _Choice:
    """A `with` block of P.when, P.otherwise or P.pipe."""

    def __init__(self, what: str, recorder: Recorder, done: Callable[[Workload], None]) -> None:
        self.recorder, self.done = recorder, done
        self.frame = Frame(what, where())
        recorder.choices.append(self.frame)

    def __enter__(self) -> None:
        if self.frame not in self.recorder.choices:
            raise UsageError(f"this {self.frame.kind} block was entered before; write one for each `with`.").at(where())
        self.recorder.choices.remove(self.frame)
        self.recorder.open(self.frame)

    def __iter__(self) -> Any:
        raise UsageError(f"{self.frame.kind} is no loop; write `with {self.frame.kind}(...):`.").at(where())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.done(together(self.recorder.close(self.frame)))


class Loops:
    """`P`: the loops and choices of a @workload body. A body runs once; it records what every iteration does."""

    @_entry
    def __call__(self, *axes: Any, names: Any = None) -> _Loop:
        """Iterations that are independent of each other: `for b in P(batch)`, `for i, j in P(rows, cols)`.

        axes    int, Dense[n](), DenseDyn(n), Ragged(...) or a row of one, ragged[b]; the first is the outermost loop
        names   one per axis, for axis("name"), key functions and set_axis_sizes; default b, h, s, d, i, j, k, l, m, n
                in order of construction
        """
        recorder = record.require("P(...)")
        line = where()
        if not axes:
            raise UsageError("P() needs at least one axis, such as P(Dense[4]()) or P(4).").at(line)
        if names is not None:
            names = (names,) if isinstance(names, str) else tuple(names)
        if names is not None and len(names) != len(axes):
            raise AxisError(f"P got {len(axes)} axes and {len(names)} names; give one name per axis.").at(
                line
            )
        defaults = [recorder.next_name() for _ in axes]
        chosen = tuple(_loop_name(n, line) for n in names) if names is not None else tuple(defaults)
        return _Loop("parallel_for", tuple(as_axis(a, False, line) for a in axes), chosen, line)

    def grid(self, *axes: Any, names: Any = None) -> _Loop:
        """The same as P(...)."""
        return self(*axes, names=names)

    @_entry
    def seq(self, axis: Any, name: str = "i") -> _Loop:
        """Iterations in order: each waits for the one before, and so do the statements of the body."""
        line = where()
        return _Loop("for_each", (as_axis(axis, False, line),), (_loop_name(name, line),), line)

    @_entry
    def sel(self, sparse: Any, name: str = "e") -> _Loop:
        """The column ids of a Sparse axis, of one row, sparse[b], or a list of ints; iterations are independent."""
        line = where()
        return _Loop("select", (as_axis(sparse, True, line),), (_loop_name(name, line),), line)

    @_entry
    def when(self, predicate: Any) -> _Choice:
        """`with P.when(axis("b") > 2):` the tasks of the block, where the predicate holds."""
        recorder, line = record.require("P.when(...)"), where()
        checked = as_predicate(predicate, line)

        def done(body: Workload) -> None:
            node = Workload("cond", predicate=checked, then_workload=body, else_workload=None)
            node.line = line
            recorder.frames[-1].choice = recorder.add(node)

        return _Choice("P.when", recorder, done)

    @_entry
    def otherwise(self) -> _Choice:
        """`with P.otherwise():` directly after a `with P.when(...)` block: the tasks where the predicate fails."""
        recorder = record.require("P.otherwise()")
        frame = recorder.frames[-1]
        last = frame.choice
        if last is None or frame.nodes[-1] is not last:
            raise UsageError("P.otherwise() has to stand directly after a `with P.when(...):` block.").at(where())

        def done(body: Workload) -> None:
            made = Workload("cond", **{**last.fields, "else_workload": body})
            made.line = last.line
            frame.nodes.pop()  # `made` takes the place of `last`
            recorder.add(made)
            frame.choice = None

        return _Choice("P.otherwise", recorder, done)

    @_entry
    def pipe(self) -> _Choice:
        """`with P.pipe():` stages that run side by side."""
        recorder = record.require("P.pipe()")

        def done(body: Workload) -> None:
            stages = (
                list(body.fields["workloads"]) if body.kind == "combine" else [body] if body.kind != "empty" else []
            )
            recorder.add(Workload("pipeline", stages=stages))

        return _Choice("P.pipe", recorder, done)


P = Loops()


def _loop_name(name: Any, line: SourceLine) -> str:
    if not isinstance(name, str) or not name:
        raise AxisError(f"the name of a loop is a non-empty str; got {name!r}.").at(line)
    return name


# ---- functional primitives ---------------------------------------------------------------------------------------


@_entry
def parallel_for(axis: Any, body: Any) -> Workload:
    """`body(index)` for every index of the axis, independent of each other."""
    return Workload("parallel_for", axis=as_axis(axis, False, where()), body=body, var_name="i")


@_entry
def for_each(axis: Any, body: Any) -> Workload:
    """`body(index)` for every index of the axis, each after the one before."""
    return Workload("for_each", axis=as_axis(axis, False, where()), body=body, var_name="i")


@_entry
def select(sparse: Any, body: Any) -> Workload:
    """`body(index)` for every column id of a Sparse axis, or every int of a list."""
    return Workload("select", sparse=as_axis(sparse, True, where()), body=body)


@_entry
def cond(predicate: Any, then_workload: Workload, else_workload: Workload | None = None) -> Workload:
    """One workload or the other. A Python bool decides when the workload is compiled, an expression when it runs."""
    return Workload(
        "cond", predicate=as_predicate(predicate, where()), then_workload=then_workload, else_workload=else_workload
    )


@_entry
def task(kernel: Any, params: Any, resources: Any) -> Workload:
    """A kernel call as a node: axis values, and arguments by name. Inside @workload it also becomes part of it.

    A kernel given by name (a str) takes a list of resources; such a task can be enumerated, not compiled.
    """
    if isinstance(kernel, str):
        if isinstance(resources, dict):
            resources = list(resources.values())
    elif not isinstance(resources, dict):
        raise ArgumentError(
            f"task() needs the arguments of {getattr(kernel, 'name', kernel)} by name, as a dict; got "
            f"{type(resources).__name__}."
        ).at(where())
    params = list(params) if isinstance(params, (list, tuple)) else [params]
    node = Workload("task", kernel=kernel, params=params, resources=resources)
    recorder = record.current()
    if recorder is not None:
        if not isinstance(kernel, str):
            kernel.check_task(recorder, node)
        recorder.add(node)
    return node


@_entry
def combine(*workloads: Workload) -> Workload:
    """Several workloads, unordered in time."""
    return _several("combine", workloads)


@_entry
def sequential(*workloads: Workload) -> Workload:
    """Several workloads, each after the one before."""
    return _several("sequential", workloads)


def _several(kind: str, workloads: tuple[Any, ...]) -> Workload:
    if len(workloads) == 1 and isinstance(workloads[0], (list, tuple)):
        workloads = tuple(workloads[0])
    for w in workloads:
        if not isinstance(w, Workload):
            raise ArgumentError(
                f"{kind}() takes workloads, as task(...) or parallel_for(...) make; got {w!r}."
            ).at(where())
    return Workload(kind, workloads=list(workloads))


@_entry
def slot_set_u64(slot: int, value: int) -> Workload:
    """slots[slot] = value modulo 2^64, when the program gets there."""
    return _recorded(
        Workload("slot_set_u64", slot=slot_number(slot, where()), value=operator.index(value) % (1 << 64))
    )


@_entry
def slot_load_u64(slot: int, tensor: Any, row: Any = 0, col: Any = 0) -> Workload:
    """slots[slot] = element (row, col) of a tensor view of rank 2 or more, when the program gets there.

    What it decides sees the tasks before it in any case. In simulated time a load takes nothing; in the dataflow engine
    the tasks that need the slot, in their arguments or by a condition around them, also wait for those that wrote the
    element.
    """
    return _recorded(Workload("slot_load_u64", slot=slot_number(slot, where()), tensor=tensor, row=row, col=col))


def _recorded(node: Workload) -> Workload:
    recorder = record.current()
    return node if recorder is None else recorder.add(node)
