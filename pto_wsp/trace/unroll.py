"""Every task of a workload as a Python object, for looking at small workloads: `workload.enumerate()`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from pto_wsp.errors import CompileError, UsageError
from pto_wsp.scalar_expr import Expr, LoopVar, as_expr
from pto_wsp.trace.resolve import as_axis, as_predicate, call_body
from pto_wsp.trace.workload import Task, Workload, part
from pto_wsp.types import Ragged, RaggedRow, Sparse, SparseRow


def unroll(workload: Workload, symbols: Mapping[str, int], slots: Mapping[int, int]) -> Iterator[Task]:
    """The tasks in program order; `symbols` and `slots` give values to predicates."""
    for number, task in enumerate(_visit(workload, _Values((), symbols, dict(slots), slots))):
        task.id = number
        yield task


class _Unknown(Exception):
    """A predicate needs a value that is not given."""


class _Values:
    """Where an expression finds its values: the loops around it, innermost last."""

    def __init__(
        self,
        loops: tuple[tuple[LoopVar | None, str, int], ...],
        symbols: Mapping[str, int],
        slots: dict[int, int | None],
        given_slots: Mapping[int, int],
    ) -> None:
        self.loops, self.symbols, self.slots, self.given_slots = loops, symbols, slots, given_slots

    def within(self, var: LoopVar | None, name: str, value: int) -> _Values:
        return _Values((*self.loops, (var, name, value)), self.symbols, self.slots, self.given_slots)

    def loop(self, var: LoopVar, /) -> int:
        for known, _, value in reversed(self.loops):
            if known is var:
                return value
        found = self.axis(var.name)  # a LoopVar that the user made by hand
        if found is None:
            raise _Unknown
        return found

    def axis(self, name: str, /) -> int | None:
        return next((value for _, known, value in reversed(self.loops) if known == name), None)

    def symbol(self, name: str, /) -> int:
        if name not in self.symbols:
            raise _Unknown
        return self.symbols[name]

    def slot(self, index: int, /) -> int:
        value = self.slots.get(index, 0)  # slots start at zero; None: loaded from a tensor
        if value is None:
            raise _Unknown
        return value

    def param(self, index: int, /) -> int:
        raise _Unknown

    def bindings(self) -> dict[str, int]:
        return {name: value for _, name, value in self.loops}

    def value(self, x: Any) -> Any:
        """An axis value as an int where it is known; anything else unchanged."""
        try:
            return as_expr(x).evaluate(self) if isinstance(x, (LoopVar, Expr)) else x
        except _Unknown:
            return x


def _visit(node: Workload, values: _Values) -> Iterator[Task]:
    kind = node.kind
    if kind == "task":
        yield Task(
            part(node, "kernel"),
            [values.value(v) for v in part(node, "params", ())],
            part(node, "resources", {}),
            bindings=values.bindings(),
        )
    elif kind in ("parallel_for", "for_each", "select"):
        yield from _loop(node, values)
    elif kind in ("combine", "sequential", "pipeline"):
        for child in part(node, "stages" if kind == "pipeline" else "workloads"):
            yield from _visit(child, values)
    elif kind == "cond":
        for branch in _branches(node, values):
            yield from _visit(branch, values)
    elif kind == "slot_set_u64":
        values.slots[part(node, "slot")] = part(node, "value") % (1 << 64)
    elif kind == "slot_load_u64":
        values.slots[part(node, "slot")] = values.given_slots.get(part(node, "slot"))
    elif kind == "send":
        yield from _visit(part(node, "value"), values)
    elif kind == "connect":
        for process in part(node, "processes"):
            yield from _visit(process.body, values)
    elif kind not in ("empty", "consume", "receive"):  # what is consumed is known only when the pipeline runs
        raise CompileError(f"{kind!r} is no kind of workload.").at(node.line)


def _loop(node: Workload, values: _Values) -> Iterator[Task]:
    selecting = node.kind == "select"
    axis = as_axis(part(node, "sparse" if selecting else "axis"), selecting, node.line)
    name = part(node, "var_name", "_select_idx" if selecting else "i")
    body, var = part(node, "body"), node.fields.get("var")
    for value in indices(axis, values):
        inside = values.within(var, name, value)
        yield from _visit(body if isinstance(body, Workload) else call_body(body, value, node), inside)


def indices(axis: Any, values: _Values) -> Iterator[int]:
    """The values that a loop over an axis takes."""
    if isinstance(axis, int):
        return iter(range(axis))
    if isinstance(axis, (RaggedRow, SparseRow)):
        row = values.value(axis.row)
        if isinstance(row, Expr):
            raise UsageError(f"the loop runs over row {row}; give symbols= or slots= so that it is known")
        return iter(range(axis.ragged.length(row)) if isinstance(axis, RaggedRow) else axis.sparse[row])
    if isinstance(axis, Sparse):
        return (int(i) for i in axis.indices[axis.indptr[0] : axis.indptr[-1]])
    if isinstance(axis, tuple):
        return iter(axis)
    return iter(range(axis.total() if isinstance(axis, Ragged) else axis.size))


def _branches(node: Workload, values: _Values) -> Iterator[Workload]:
    """The branch taken; both, where the predicate's value is not known."""
    pred = as_predicate(part(node, "predicate"), node.line)
    then, orelse = part(node, "then_workload"), part(node, "else_workload", None)
    try:
        holds = bool(pred.evaluate(values)) if isinstance(pred, Expr) else bool(pred)
        chosen = [then if holds else orelse]
    except (_Unknown, LookupError):
        chosen = [then, orelse]
    return itertools.chain(w for w in chosen if w is not None)
