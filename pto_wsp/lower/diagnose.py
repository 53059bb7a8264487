"""Why a task was refused: the same checks as the native expander's, in plain Python, for the one task that failed them.

In: the call, the values of its loop variables, the run-time inputs. Out: an error that names the task, its axis values,
the tensor and what would be touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pto_wsp.errors import ExecutionError, RegionError
from pto_wsp.scalar_expr import Expr, LoopVar, as_expr
from pto_wsp.types import Ragged, RaggedRow, Sparse, SparseRow

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pto_wsp.lower.bindings import Binding, Call, KernelUse, Load, RowUse
    from pto_wsp.trace.tree import Receive

__all__ = ["load_outside", "no_cycles", "no_row", "no_token", "outside"]

_AXES = ("rows", "columns")


class _Values:
    """The environment of one task (scalar_expr.Environment)."""

    def __init__(
        self, loops: Sequence[LoopVar], values: Sequence[int], symbols: Mapping[str, int], slots: Sequence[int]
    ) -> None:
        self._loops, self._symbols, self._slots = dict(zip(loops, values, strict=False)), symbols, slots

    def loop(self, var: LoopVar, /) -> int:
        return self._loops[var]

    def axis(self, name: str, /) -> int | None:
        return next((v for var, v in reversed(list(self._loops.items())) if var.name == name), None)

    def innermost(self, name: str) -> list[LoopVar]:
        """The loop that axis(name) means, if there is one."""
        return [var for var in self._loops if var.name == name][-1:]

    def symbol(self, name: str, /) -> int:
        return self._symbols.get(name, 0)

    def slot(self, index: int, /) -> int:
        return self._slots[index]

    def param(self, index: int, /) -> int:
        raise LookupError(index)


def outside(
    call: Call,
    use: KernelUse,
    number: int,
    loops: Sequence[int],
    shapes: Sequence[tuple[int, ...]],
    data: Mapping[Any, Sequence[NDArray[np.int64]]],
    symbols: Mapping[str, int],
    slots: Sequence[int],
) -> ExecutionError:
    """The error for task `number`.

    loops   value of each loop variable around the call
    shapes  shape of each tensor's array
    data    the arrays of each ragged or sparse axis, to say which of their entries led there
    """
    env = _Values(call.loops, loops, symbols, slots)
    axes = tuple(_axis_value(a, env) for a in call.task.axes)
    name = f"task {number}, {call.name}[{', '.join(map(repr, axes))}]"
    valid: list[int] = []
    for binding in call.tiles:
        shape = shapes[binding.tensor]
        wrong, extents = _check(binding, shape, env)
        if wrong:
            used = [loop for dim in binding.dims for loop in _loops_in(dim.start, env)]
            because = "".join(_entry(var, env, data) for var in dict.fromkeys(used))
            message = f"{name}: {binding.param.name} {wrong}; the tensor has shape {shape}{because}."
            numbers = tuple(a for a in axes if isinstance(a, int))
            return RegionError(message, number, call.name, numbers, binding.param.name).at(call.task.line)
        valid += extents
    return _disagreement(name, call, use, number, valid).at(call.task.line)


def no_row(
    use: RowUse,
    loops: Sequence[int],
    entries: Mapping[Any, int],
    symbols: Mapping[str, int],
    slots: Sequence[int],
) -> ExecutionError:
    """The error for a loop over a row that its axis does not have. `entries`: length of each axis' first array."""
    axis = use.loop.axis
    whole = axis.ragged if isinstance(axis, RaggedRow) else axis.sparse  # type: ignore[union-attr]
    row, exact = _position(axis.row, _Values(use.loops, loops, symbols, slots))  # type: ignore[union-attr]
    rows = entries[whole] - isinstance(whole, Sparse)
    what = f"loop {use.loop.var.name!r}{_around(use.loops, loops)} asks for row {row}"
    if not exact:
        what += f", which overflows 64 bits: {axis.row}"  # type: ignore[union-attr]
    return ExecutionError(f"{what} of a {type(whole).__name__} axis with {rows} rows.").at(use.loop.line)


def no_token(node: Receive) -> ExecutionError:
    """The error for a receive from a channel that is closed and empty."""
    return ExecutionError(
        f"receive from channel {node.channel.name!r}: it is closed and empty, and nothing says what to do then. Send "
        "one token for each receive, or say it: receive(channel, body, otherwise=...)."
    ).at(node.line)


def no_cycles(call: Call, number: int, loops: Sequence[int]) -> ExecutionError:
    """The error for a task whose cycles, as a user's expression gives them, are none."""
    what = f"task {number} of kernel {call.name}{_around(call.loops, loops)}"
    given = "cycles= or cpu_sim_add_cycles"
    return ExecutionError(f"{what}: its cycles, as {given} gives them, are less than 0 or more than 2**40.").at(
        call.task.line
    )


def load_outside(
    load: Load, loops: Sequence[int], shape: tuple[int, ...], symbols: Mapping[str, int], slots: Sequence[int]
) -> ExecutionError:
    """The error for a slot that is loaded from outside a tensor or view."""
    env = _Values(load.loops, loops, symbols, slots)
    what = f"slot_load_u64({load.node.slot}, ...){_around(load.loops, loops)}"
    for index, extent in load.inside:
        at, exact = _position(index, env)
        if not exact or not 0 <= at < extent:
            return RegionError(f"{what} reads element {at} of a view with {extent}.").at(load.node.line)
    for axis, (dim, length) in enumerate(zip(load.dims, shape, strict=True)):
        at, exact = _position(dim.start, env)
        low, high = (0, length) if dim.within is None else (_position(b, env)[0] for b in dim.within)
        if not exact or not max(low, 0) <= at < min(length, high):
            bounds = "" if exact else f", which overflows 64 bits: {dim.start}"
            bounds += "" if dim.within is None else f", the view from {low} to {high}"
            return RegionError(
                f"{what} reads outside its array: index {at} in dimension {axis}{bounds}; the tensor has shape {shape}."
            ).at(load.node.line)
    return ExecutionError(f"{what}: refused by the bounds check.").at(load.node.line)


def _around(loops: Sequence[LoopVar], values: Sequence[int]) -> str:
    """The loops around a node, with their values."""
    named = ", ".join(f"{var.name} = {value}" for var, value in zip(loops, values, strict=False))
    return f" at {named}" if named else ""


def _loops_in(at: Any, env: _Values) -> list[LoopVar]:
    """The loop variables that an index consists of."""
    if isinstance(at, LoopVar):
        return [at]
    if not isinstance(at, Expr):
        return []
    if at.kind == "axis_var":
        return env.innermost(at.a)
    return [loop for part in (at.a, at.b, at.c) for loop in _loops_in(part, env)]


def _entry(var: LoopVar, env: _Values, data: Mapping[Any, Sequence[NDArray[np.int64]]]) -> str:
    """Which entry of a ragged or sparse axis gave a loop variable its value: what a user has to correct."""
    axis, value = var.axis, env.loop(var)
    row = _position(axis.row, env)[0] if isinstance(axis, (RaggedRow, SparseRow)) else None
    whole = axis.ragged if isinstance(axis, RaggedRow) else axis.sparse if isinstance(axis, SparseRow) else axis
    if whole not in data:
        return ""
    if isinstance(whole, Ragged):
        (lengths,) = data[whole]
        row = int(np.searchsorted(np.cumsum(lengths), value, side="right")) if row is None else row
        return f"; {var.name} = {value} lies in row {row}: entry {row} of the lengths of its axis is {lengths[row]}"
    pointers, indices = data[whole]
    first, last = (0, pointers[-1]) if row is None else pointers[row : row + 2]
    entry = first + int(np.argmax(indices[first:last] == value))
    return f"; {var.name} = {value} is entry {entry} of the indices of its axis"


def _axis_value(value: Any, env: _Values) -> Any:
    return as_expr(value).evaluate(env) if isinstance(value, (Expr, LoopVar)) else value


def _check(binding: Binding, shape: tuple[int, ...], env: _Values) -> tuple[str, list[int]]:
    """What is wrong with a tile ("" if nothing), and its valid rows and columns."""
    tile = binding.param.node.tile
    valid = {"rows": 1, "cols": 1}
    for axis, (dim, length) in enumerate(zip(binding.dims, shape, strict=True)):
        at, exact = _position(dim.start, env)
        low, high = (0, length) if dim.within is None else (_position(b, env)[0] for b in dim.within)
        last = min(length, high) - (dim.role == "fixed")
        if not exact:
            return f"has an index in dimension {axis} that overflows 64 bits: {dim.start}", []
        if not max(low, 0) <= at <= last:
            what = f"index {at}" if dim.role == "fixed" else f"the range that begins at {at}"
            where = "" if dim.within is None else f", the view from {low} to {high}"
            return f"reaches outside its array: {what} in dimension {axis}{where}", []
        if dim.role != "fixed":
            size = tile.rows if dim.role == "rows" else tile.cols
            left = min(length, high) - at
            valid[dim.role] = min(size, left if dim.extent is None else min(left, dim.extent))
    return "", [valid["rows"], valid["cols"]]


def _position(at: int | Expr, env: _Values) -> tuple[int, bool]:
    """An index, and whether the integers agree with 64-bit arithmetic about it."""
    if isinstance(at, int):
        return at, True
    found = as_expr(at).evaluate(env)
    return found, _exact(as_expr(at), env) == found


def _exact(expr: Expr, env: _Values) -> int:
    """The value over the integers: sums and products do not wrap."""
    if expr.kind == "binary" and expr.a in ("+", "-", "*"):
        a, b = _exact(expr.b, env), _exact(expr.c, env)
        return a + b if expr.a == "+" else a - b if expr.a == "-" else a * b
    if expr.kind == "unary" and expr.a == "-":
        return -_exact(expr.b, env)
    if expr.kind == "ternary":
        return _exact(expr.b if expr.a.evaluate(env) else expr.c, env)
    if expr.kind == "cast" and expr.type != "bool" and expr.a.type != "bool":
        inner = _exact(expr.a, env)
        return expr.evaluate(env) if inner == expr.a.evaluate(env) else inner
    return expr.evaluate(env)


def _disagreement(name: str, call: Call, use: KernelUse, number: int, valid: list[int]) -> ExecutionError:
    """Two partial tiles have different extents where the kernel needs equal ones."""
    for group in use.agreeing:
        found = [s.value(valid[2 * s.param + s.axis]) for s in group]
        if len(set(found)) > 1:
            params = [call.tiles[s.param].param.name for s in group]
            sizes = [f"{valid[2 * s.param + s.axis]} valid {_AXES[s.axis]}" for s in group]
            parts = ", ".join(f"{param} has {size}" for param, size in zip(params, sizes, strict=True))
            return RegionError(f"{name}: partial tiles do not agree: {parts}.", number, call.name, (), params[0])
    for s in use.needed:
        if s.value(valid[2 * s.param + s.axis]) == 0:
            param = call.tiles[s.param].param.name
            return RegionError(
                f"{name}: {param} has 0 valid {_AXES[s.axis]}, but the kernel needs the one it declares.",
                number, call.name, (), param,
            )  # fmt: skip
    return ExecutionError(f"{name}: refused by the bounds check.", number, call.name)
