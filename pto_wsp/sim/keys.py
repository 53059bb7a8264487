"""Keys: the numbers that a schedule wants to know of each task: which worker, stream, pool, priority, how many cycles.

A key is an expression, which the expander computes beside the task, or a Python function that needs the values
themselves (a table look-up, an `if`): that runs on the host, once per task, and is a thousand times slower.
Start reading at `trace_key` and `Keys.column`.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pto_wsp.errors import ScheduleError
from pto_wsp.lower.bindings import Call
from pto_wsp.lower.tasks import TILE_WORDS, TaskTable
from pto_wsp.scalar_expr import Expr, LoopVar, TaskExpr, as_expr, call_symbolically, trace_task_fn
from pto_wsp.trace.source import where
from pto_wsp.trace.tree import Consume, Loop, Receive, WorkloadTree, walk

__all__ = ["Key", "Keys", "TaskValues", "columns_of", "shape_of", "trace_key"]

_WORD = 1 << 64


@dataclass(frozen=True, eq=False)
class Key:
    """One number per task.

    role   dispatch, stream, priority, cycles or pool;  owner  the directive that wants it
    expr   what the expander computes, or:  function  what runs on the host
    """

    role: str
    owner: str
    expr: Expr | None = None
    function: Callable[[Any], Any] | None = None

    def __str__(self) -> str:
        return str(self.expr) if self.function is None else f"{_name(self.function)}(task)"


def trace_key(function: Any, owner: str, role: str) -> Key | None:
    """The key that a user gave for a directive; None when none was given.

    raises  ScheduleError for a function that fails whatever the task is
    """
    if function is None:
        return None
    if not callable(function):
        return Key(role, owner, as_expr(function))
    try:
        _check_signature(function)
        if role == "pool" and isinstance(call_symbolically(function), str):
            return Key(role, owner, function=function)
        return Key(role, owner, trace_task_fn(function))
    except Exception as error:
        if _wants_values(error, function):
            return Key(role, owner, function=function)
        raise ScheduleError(f"the key function of {owner} failed: {error}", _PRIMITIVES[role]) from error


_PRIMITIVES = {"dispatch": "dispatch", "stream": "stream_by", "priority": "ready", "cycles": "trace", "pool": "pools"}


def _check_signature(function: Callable[..., Any]) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a built-in one
        return
    try:
        signature.bind(None)
    except TypeError:
        raise ValueError(f"it is called with one argument, the task; it is {_name(function)}{signature}") from None


def _wants_values(error: Exception, function: Callable[..., Any]) -> bool:
    """Did the function fail, in its own code, for want of a number where it was given an expression?"""
    if isinstance(error, AttributeError):
        return isinstance(getattr(error, "obj", None), Expr)
    if not isinstance(error, (TypeError, LookupError)):
        return False
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame.f_code)
        trace = trace.tb_next
    return getattr(function, "__code__", None) in frames or not hasattr(function, "__code__")


def _name(function: Any) -> str:
    code = getattr(function, "__code__", None)
    name = getattr(function, "__name__", type(function).__name__)
    return f"lambda[line {code.co_firstlineno}]" if name == "<lambda>" and code is not None else str(name)


class TaskValues:
    """What a key function that runs on the host receives: the task's numbers, by the names of TaskExpr."""

    __slots__ = ("_loops", "params", "tags")

    def __init__(self, loops: Mapping[str, int], params: _Params, tags: _Tags) -> None:
        self._loops, self.params, self.tags = loops, params, tags

    def get(self, name: str, default: int = 0) -> int:
        """The innermost loop variable of that name around the task, `default` where the task has none."""
        if default == 0 and name not in self._loops:
            warnings.warn(_unknown(name, list(self._loops), "a key function"), stacklevel=2)
        return self._loops.get(name, default)

    def __getattr__(self, name: str) -> Any:
        return getattr(TaskExpr(), name)  # which says what there is


class _Params(list[int]):
    """0 beyond the end, as in an expression."""

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            if index < 0:
                raise IndexError(f"params[{index}]: entries count from 0")
            return 0
        return super().__getitem__(index)


class _Tags:
    def __init__(self, symbols: Mapping[str, int]) -> None:
        self._symbols = symbols

    def __getitem__(self, name: str) -> int:
        return self._symbols.get(name, 0) % _WORD


def columns_of(keys: Sequence[Key], tree: WorkloadTree) -> tuple[Expr, ...]:
    """What the expander has to compute: the keys that are expressions; then, where a key is a function, every loop
    variable by name."""
    columns = [key.expr for key in keys if key.expr is not None]
    if any(key.function is not None for key in keys):
        columns += [TaskExpr().get(name) for name in _loop_names(tree)]
    return tuple(columns)


def _loop_names(tree: WorkloadTree) -> list[str]:
    return list(dict.fromkeys(node.var.name for node in walk(tree.root) if isinstance(node, Loop)))


def warn_of_unknown_names(keys: Sequence[Key], tree: WorkloadTree) -> None:
    """`t.get(name)` is 0 where a task has no loop variable of that name. Where no task has one, it is misspelt.

    A default other than 0 is the user's own: a key that serves workloads with and without that loop.
    """
    known = [node.var.name for node in walk(tree.root) if isinstance(node, (Loop, Consume, Receive))]
    for key in keys:
        for leaf in key.expr.leaves() if key.expr is not None else ():
            if leaf.kind == "axis_var" and leaf.b == 0 and leaf.a not in known:
                line = where()
                warnings.warn_explicit(_unknown(leaf.a, known, key.owner), UserWarning, line.file, line.line)


def _unknown(name: str, known: Sequence[str], owner: str) -> str:
    there_are = f"there are {', '.join(dict.fromkeys(known))}" if known else "there are none"
    named = "P(..., names=[...]) names its loops"
    return f"{owner}: no loop is named {name!r} ({there_are}; {named}), so t.get({name!r}) is 0 for every task."


def shape_of(x: Any) -> Any:
    """A value that two expressions have in common when they compute the same from the same loop variables."""
    if isinstance(x, Expr):
        return (x.kind, x.type, shape_of(x.a), shape_of(x.b), shape_of(x.c))
    return (type(x), id(x) if isinstance(x, LoopVar) else x)


class Keys:
    """The keys of a run: columns of the task table, or computed here.

    columns   of the task table, as columns_of says
    workers   of one pool; what DispatchPolicy.dispatch_by chooses from
    symbols   run-time symbols by name, 64-bit words
    """

    def __init__(
        self, keys: Sequence[Key], columns: Sequence[Expr] = (), calls: Sequence[Call] = (), workers: int = 1,
        symbols: Mapping[str, int] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        self._keys = {key.role: key for key in keys}
        compiled = [key for key in keys if key.expr is not None]
        self._place = {key.role: k for k, key in enumerate(compiled)}
        self._first_loop = len(compiled)
        self._loops = [str(column.a) for column in columns[self._first_loop :]]
        self._calls, self._workers, self._tags = calls, workers, _Tags(symbols)
        self._values: list[TaskValues] = []
        self._table: TaskTable | None = None

    def __contains__(self, role: str) -> bool:
        return role in self._keys

    def start(self, table: TaskTable) -> None:
        """Another chunk begins."""
        self._table, self._values = table, []

    def column(self, role: str) -> NDArray[np.int64]:
        """The key of each row of the chunk, as a 64-bit word; what stands at events has no meaning.

        raises  ScheduleError for what a function cannot return
        """
        table = self._started()
        if role in self._place:
            return table.keys[self._place[role], : table.count].view(np.int64)
        found = np.zeros(table.count, np.int64)
        rows = np.flatnonzero(table.kernel[: table.count] >= 0)
        for number, (row, value) in enumerate(zip(rows.tolist(), self._results(role, rows), strict=True)):
            found[row] = self._checked(role, number, row, value)
        return found

    def signed_column(self, role: str) -> NDArray[np.int64]:
        """The same as numbers that can be compared: an unsigned expression is moved into the range."""
        key, found = self._keys[role], self.column(role)
        return found ^ np.int64(-(1 << 63)) if key.expr is not None and key.expr.type == "u64" else found

    def number_of(self, role: str, word: int) -> int:
        """The number that a signed word of the column stands for."""
        expr = self._keys[role].expr
        return word % _WORD if expr is not None and expr.type == "u64" else word

    def names(self, role: str) -> list[Any]:
        """The key of each task of the chunk as a number or a string, in program order."""
        table = self._started()
        rows = np.flatnonzero(table.kernel[: table.count] >= 0)
        if role in self._place:
            return [self.number_of(role, word) for word in self.column(role)[rows].tolist()]
        found: list[Any] = []
        for number, value in enumerate(self._results(role, rows)):
            checked = value if isinstance(value, str) else self._checked(role, number, int(rows[number]), value)
            found.append(checked)
        return found

    def _started(self) -> TaskTable:
        assert self._table is not None
        return self._table

    def _results(self, role: str, rows: NDArray[np.int64]) -> Any:
        """What the function says of each task, as it says it."""
        key, table = self._keys[role], self._started()
        assert key.function is not None
        self._values = self._values or [self.values_of(table, row) for row in rows.tolist()]
        for number, task in enumerate(self._values):
            try:
                yield key.function(task)
            except Exception as error:
                what = f"{self._where(role, number, int(rows[number]))} failed: {type(error).__name__}: {error}"
                raise ScheduleError(what, _PRIMITIVES[role]) from error

    def values_of(self, table: TaskTable, row: int) -> TaskValues:
        """What a function on the host receives for one task."""
        call = self._calls[table.leaf[row]]
        args, axes, tiles = table.args[row].tolist(), len(call.task.axes), len(call.tiles)
        words = TILE_WORDS * tiles
        valid = [args[TILE_WORDS * tile + k] for tile in range(tiles) for k in (3, 4)]
        params = _Params([*table.axes[row, :axes].tolist(), *valid, *args[words : words + _scalars(call)]])
        around = {var.name for var in call.loops}
        loops = {
            name: int(table.keys[self._first_loop + k, row].view(np.int64))
            for k, name in enumerate(self._loops)
            if name in around
        }
        return TaskValues(loops, params, self._tags)

    def _checked(self, role: str, number: int, row: int, value: Any) -> int:
        """What a function returned, as a signed word."""
        least, most = -(1 << 63), (1 << 64) - 1
        if role == "dispatch" and self._keys[role].owner == "DispatchPolicy.dispatch_by":
            least, most = 0, self._workers - 1
        elif role == "cycles":
            least, most = 0, (1 << 63) - 1
        elif role == "priority":
            most = (1 << 63) - 1
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            what = "a name or a whole number is needed" if role == "pool" else "a whole number is needed"
        elif not least <= value <= most:
            what = f"{least} to {most:,} are possible"
        else:
            return (int(value) + (1 << 63)) % _WORD - (1 << 63)
        raise ScheduleError(f"{self._where(role, number, row)} gives {value!r}; {what}", _PRIMITIVES[role])

    def _where(self, role: str, number: int, row: int) -> str:
        key, table = self._keys[role], self._started()
        function, task = key.function, table.first_task + number
        code = getattr(function, "__code__", None)
        place = "" if code is None else f" ({code.co_filename}:{code.co_firstlineno})"
        call = self._calls[table.leaf[row]]
        axes = ", ".join(map(str, table.axes[row, : len(call.task.axes)].tolist()))
        called = f"{call.name}[{axes}]" if axes else call.name
        return f"the function of {key.owner}{place}, for task #{task} {called},"


def _scalars(call: Call) -> int:
    graph = call.task.kernel.graph_for(dict(call.task.args))
    return len(graph.scalar_params)
