"""Workloads, expanded: native code that runs through a WorkloadTree and fills a TaskTable.

In: a WorkloadTree. Out: an Expansion, which runs through the loops in program order, writes one row per task, and
hands the table over whenever it is full. Sizes, symbols and arrays are run-time inputs: nothing is compiled again when
they change. No row is written before each of its tiles is known to lie inside its array. The text of the native code
is made in rows.py. Start reading at `expand`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pto_wsp.errors import ExecutionError
from pto_wsp.lower import diagnose, expressions, jit
from pto_wsp.lower.bindings import Binding, Call, KernelUse
from pto_wsp.lower.expressions import Scope, signed
from pto_wsp.lower.rows import COLUMNS, LONGEST_AXIS, OUTSIDE, STOPPED, Emitter, Input
from pto_wsp.lower.tasks import TaskTable
from pto_wsp.scalar_expr import Expr
from pto_wsp.trace import tree
from pto_wsp.types import Tensor

__all__ = ["LONGEST_AXIS", "Binding", "Call", "Expansion", "KernelUse", "Stopped", "expand"]

_LITTLE_ROOM = 1 << 21  # bytes of a table chunk: it should stay in the cache
_MOST_ROWS, _LEAST_ROWS = 1 << 16, 1 << 10


class Stopped(Exception):
    """The run was told to stop."""


@dataclass(eq=False)
class Expansion:
    """A workload, ready to be expanded any number of times."""

    kernels: tuple[KernelUse, ...]
    calls: tuple[Call, ...]
    tensors: tuple[Tensor, ...]  # base tensors, in order of first use
    loops: tuple[tree.Loop, ...]  # loops whose trip count is a run-time input
    symbols: tuple[str, ...]  # names of the run-time symbols that are read
    has_events: bool  # some rows are not tasks
    ir: str
    code: jit.Code
    _inputs: dict[Input, int] = field(repr=False)  # what -> position of its first word
    _input_words: int = field(repr=False)
    _depth: int = field(repr=False)

    def table(self) -> TaskTable:
        """An empty table for this workload's rows."""
        row = self.table_of(1)
        rows = _LITTLE_ROOM // (8 * (row.args.shape[1] + row.axes.shape[1]) + 25)
        return self.table_of(max(_LEAST_ROWS, min(_MOST_ROWS, 1 << rows.bit_length() - 1)))

    def table_of(self, rows: int) -> TaskTable:
        """An empty table of that capacity."""
        words = max((k.words for k in self.kernels), default=0)
        return TaskTable.empty(rows, words, max((len(c.task.axes) for c in self.calls), default=0))

    def inputs(
        self, arrays: Sequence[NDArray[Any]], sizes: Mapping[tree.Loop, int], symbols: Mapping[str, int]
    ) -> NDArray[np.int64]:
        """The run-time inputs as the native code wants them.

        arrays   one per entry of `tensors`
        sizes    trip count per entry of `loops`
        symbols  64-bit words by name; a missing one is 0
        """
        words = np.zeros(max(self._input_words, 1), np.int64)
        for what, place in self._inputs.items():
            if what[0] == "size":
                words[place] = _checked_size(what[1], sizes[what[1]])
            elif what[0] == "symbol":
                words[place] = signed(expressions.symbol_word(symbols.get(what[1], 0), what[2]))
            else:
                array = arrays[what[1]]
                words[place] = array.ctypes.data
                words[place + 1 : place + 1 + array.ndim] = array.strides
                words[place + 1 + array.ndim : place + 1 + 2 * array.ndim] = array.shape
        return words

    def _shapes(self, inputs: NDArray[np.int64]) -> list[tuple[int, ...]]:
        """Shape of each tensor's array, from the inputs."""
        ranks = [len(t.shape) for t in self.tensors]
        ends = [self._inputs[("tensor", k)] + 1 + 2 * rank for k, rank in enumerate(ranks)]
        return [tuple(inputs[end - rank : end].tolist()) for end, rank in zip(ends, ranks, strict=True)]

    def run(
        self,
        inputs: NDArray[np.int64],
        table: TaskTable,
        consume: Callable[[TaskTable], None],
        stop: NDArray[np.int64] | None = None,
        symbols: Mapping[str, int] | None = None,
    ) -> int:
        """Expand once; the number of tasks.

        consume  called with each filled chunk in program order, in the calling thread; what it raises ends the run
        stop     one word; the run ends with Stopped soon after it becomes non-zero
        raises   RegionError for a task whose tile would not lie inside its array; its chunk is not handed over
        """
        failure: list[BaseException] = []
        table.count = table.first_task = tasks = 0

        def flush(count: int) -> int:
            nonlocal tasks
            table.count, table.first_task = count, tasks
            try:
                tasks += table.task_count if self.has_events else count
                consume(table)
            except BaseException as error:
                failure.append(error)
                return 1
            return 0

        if stop is None:
            stop = np.zeros(1, np.int64)
        where = np.zeros(2 + self._depth, np.int64)
        places = [getattr(table, column).ctypes.data for column in COLUMNS]
        columns = np.array([*places, table.capacity, table.axes.shape[1], table.args.shape[1]], np.int64)
        callback = _FLUSH(flush)
        run = _EXPAND(self.code.address("expand"))
        outcome = run(inputs.ctypes.data, columns.ctypes.data, callback, where.ctypes.data, stop.ctypes.data)
        if failure:
            raise failure[0]
        if outcome == STOPPED:
            raise Stopped
        rows = int(where[1])
        if outcome == OUTSIDE:
            tasks += int(np.count_nonzero(table.kernel[:rows] >= 0))
            call, loops = self.calls[int(where[0])], where[2:].tolist()
            use, shapes = self.kernels[call.kernel], self._shapes(inputs)
            raise diagnose.outside(call, use, tasks, loops, shapes, symbols or {})
        if rows and flush(rows):
            raise failure[0]
        return tasks


_FLUSH = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)
_EXPAND = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, _FLUSH, ctypes.c_void_p, ctypes.c_void_p)


def expand(workload: tree.WorkloadTree, key: Expr | None = None) -> Expansion:
    """Make a workload ready for expansion.

    key     dispatch key of each task (scheduling); None: all keys are 0
    raises  CompileError, at the user's line, for what cannot be expanded
    """
    emitter = Emitter(key)
    piece = emitter.node(workload.root, Scope(), sequential=False)
    ir = emitter.module(piece)
    return Expansion(
        kernels=tuple(emitter.kernels.values()),
        calls=tuple(emitter.calls),
        tensors=tuple(emitter.tensors),
        loops=tuple(what[1] for what in emitter.inputs if what[0] == "size"),
        symbols=tuple(dict.fromkeys(what[1] for what in emitter.inputs if what[0] == "symbol")),
        has_events=emitter.has_events,
        ir=ir,
        code=jit.load(ir),
        _inputs=emitter.inputs,
        _input_words=emitter.input_words,
        _depth=emitter.depth,
    )


def _checked_size(loop: tree.Loop, size: int) -> int:
    if size > LONGEST_AXIS:
        raise ExecutionError(f"axis {loop.var.name} has {size} iterations; at most 2**40 are possible.").at(loop.line)
    return max(size, 0)
