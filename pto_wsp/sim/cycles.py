"""Cycle models: how many cycles each task takes, when it is not what the kernels' own instructions add up to.

    program.simulate(cycles=100)                                       every task
    program.simulate(cycles={"page": 350, divide: lambda t: 20 + 4 * t.get("b")})     by kernel, or its name
    program.simulate(cycles=model)                                     model.cycles(graph): a formula for each kernel

A number or an expression of the task is computed by the expander, as fast as the kernels' own cycles. A Python function
that needs the values themselves (a table look-up, an `if`) runs on the host once per task, a thousand times slower.
Start reading at `durations_of`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from pto_wsp.errors import ScheduleError, UsageError
from pto_wsp.lower.tasks import TaskTable
from pto_wsp.scalar_expr import Expr, as_expr, task_param
from pto_wsp.sim.keys import Key, Keys, shape_of, trace_key
from pto_wsp.trace.extents import CostTerm, Source
from pto_wsp.trace.graph import KernelGraph
from pto_wsp.trace.tree import Connect, TaskCall, WorkloadTree

__all__ = ["CycleModel", "Durations", "durations_of"]

MOST_CYCLES = 1 << 40
"""That one task may take."""


@runtime_checkable
class CycleModel(Protocol):
    """A model of a device: how long does a kernel take?"""

    def cycles(self, graph: KernelGraph) -> int | Expr | Sequence[CostTerm]:
        """Cycles of one task: a number, an expression of the task, or a sum of terms in the extents of its tiles, as
        `graph.cycles()` gives for the package's own model."""


@dataclass(frozen=True, eq=False)
class Durations:
    """Cycles of the tasks, by the id of their call; calls that are in neither have those of their kernel.

    exprs      computed by the expander;  functions  Python on the host
    """

    exprs: Mapping[int, Expr] = field(default_factory=dict)
    functions: Mapping[int, Key] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.exprs or self.functions)

    @property
    def keys(self) -> tuple[Key, ...]:
        """The functions, as keys that want loop variables in the task table."""
        return tuple(self.functions.values())

    def shape(self) -> Any:
        """Equal for those that the expander computes alike."""
        return tuple((call, shape_of(expr)) for call, expr in self.exprs.items())

    def apply(self, table: TaskTable, calls: Sequence[Any], keys: Keys) -> None:
        """Call the functions, for the tasks of a chunk.

        raises  ScheduleError for what a function raises, and for what is no number of cycles
        """
        task = table.first_task - 1
        for row in range(table.count):
            if table.kernel[row] < 0:
                continue
            task += 1
            call = calls[table.leaf[row]]
            key = self.functions.get(id(call.task))
            if key is not None:
                table.cycles[row] = _checked(key, keys.values_of(table, row), f"task #{task} {call.name}")


def _checked(key: Key, task: Any, which: str) -> int:
    code = getattr(key.function, "__code__", None)
    place = "" if code is None else f" ({code.co_filename}:{code.co_firstlineno})"
    try:
        assert key.function is not None
        found = key.function(task)
    except Exception as error:
        what = f"the function of {key.owner}{place} failed for {which}: {type(error).__name__}: {error}"
        raise ScheduleError(what, "cycles") from error
    whole = hasattr(found, "__index__") and not isinstance(found, (bool, np.bool_))
    if not whole or not 0 <= found <= MOST_CYCLES:
        raise ScheduleError(
            f"the function of {key.owner}{place} gives {found!r} for {which}; cycles are whole numbers from 0 to 2**40",
            "cycles",
        )
    return int(found)


# ---- what a user gives -----------------------------------------------------------------------------------------------


def durations_of(cycles: Any, tree: WorkloadTree) -> Durations:
    """The cycles of each call of a workload.

    cycles  None: those of the kernels. A number, an expression, a function of the task: for all tasks. A mapping from
            kernels, or their names, to such. A CycleModel
    raises  UsageError for anything else, and for kernels that the workload does not call; ScheduleError for a function
            that fails whatever the task is
    """
    if cycles is None:
        return Durations()
    exprs: dict[int, Expr] = {}
    functions: dict[int, Key] = {}
    made: dict[int, Any] = {}  # by what was given: functions are called once
    find = _finder(cycles, tree)
    for call in tree.tasks:
        given = find(call)
        if given is None:
            continue
        found = _terms(given, call) if isinstance(given, (tuple, list)) else made.get(id(given))
        if found is None:
            found = made[id(given)] = _key(given, f"cycles of {call.kernel.name}")
        if isinstance(found, Expr):
            exprs[id(call)] = found
        else:
            functions[id(call)] = found
    if functions and isinstance(tree.root, Connect):
        raise ScheduleError(
            f"cycles={next(iter(functions.values()))}: in a pipeline a task's cycles decide what comes next; a Python "
            "function of values is too late. Write an expression of the task: lambda t: 10 * t.params[0]", "cycles"
        )  # fmt: skip
    return Durations(exprs, functions)


def _finder(cycles: Any, tree: WorkloadTree) -> Callable[[TaskCall], Any]:
    """What `cycles` says of a call."""
    if isinstance(cycles, Mapping):
        by_name = {call.kernel.name for call in tree.tasks}
        known = {id(call.kernel) for call in tree.tasks}
        for kernel in cycles:
            if (kernel not in by_name) if isinstance(kernel, str) else (id(kernel) not in known):
                names = ", ".join(sorted(by_name)) or "none"
                shown = repr(kernel) if isinstance(kernel, str) else getattr(kernel, "name", repr(kernel))
                raise UsageError(f"cycles= names the kernel {shown}, which {tree.name} does not call; it calls {names}")
        objects = {id(kernel): given for kernel, given in cycles.items() if not isinstance(kernel, str)}
        return lambda call: objects.get(id(call.kernel), cycles.get(call.kernel.name))
    if not isinstance(cycles, (Expr, type)) and callable(getattr(cycles, "cycles", None)):
        return lambda call: cycles.cycles(call.kernel.graph_for(dict(call.args)))
    return lambda call: cycles


def _key(given: Any, owner: str) -> Expr | Key:
    if isinstance(given, float) and given.is_integer():
        given = int(given)
    try:
        key = trace_key(given, owner, "cycles")
    except (TypeError, OverflowError):
        raise UsageError(
            "cycles= takes a number, an expression, a function of the task, a dict of these by kernel, or a model with "
            f"a method cycles(graph); got {given!r}"
        ) from None
    assert key is not None
    if key.expr is None:
        return key
    if key.expr.kind.startswith("lit_") and not 0 <= key.expr.a <= MOST_CYCLES:
        raise UsageError(f"{owner}: a task takes 0 to 2**40 cycles; got {key.expr.a}")
    return key.expr if key.expr.type == "i64" else as_expr(key.expr).cast_i64()


def _terms(terms: Sequence[Any], call: TaskCall) -> Expr:
    """A sum of terms as an expression of the task's parameters: axis values come first, then valid rows and columns."""
    total: Expr = as_expr(0)
    for term in terms:
        if not isinstance(term, CostTerm):
            raise UsageError(f"cycles(graph) of a cycle model gives a number, an expression or CostTerms; got {term!r}")
        product = as_expr(term.coefficient)
        for extent in term.extents:
            product = product * (_valid(extent.sources[0], len(call.axes)) if extent.sources else extent.static)
        total = total + product
    return total


def _valid(source: Source, axes: int) -> Expr:
    valid = task_param(axes + 2 * source.param + source.axis)
    return valid // source.den * source.num
