"""Workloads, expanded: native code that runs through a WorkloadTree and fills a TaskTable.

In: a WorkloadTree. Out: an Expansion, which runs through the loops in program order, writes one row per task, and
hands the table over whenever it is full. Sizes, symbols and arrays are run-time inputs: nothing is compiled again when
they change. No row is written before each of its tiles is known to lie inside its array. The text of the native code
is made in rows.py. Start reading at `expand`.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pto_wsp.errors import AxisError, ExecutionError
from pto_wsp.lower import axes, control, diagnose, expressions, jit, processes, slots
from pto_wsp.lower.bindings import Binding, Call, KernelUse, Load, RowUse, SlotUse
from pto_wsp.lower.expressions import signed
from pto_wsp.lower.places import Placed, address_of
from pto_wsp.lower.rows import LOAD_OUTSIDE, LONGEST_AXIS, NO_CYCLES, NO_ROW, NO_TOKEN, STOPPED, Emitter, Input
from pto_wsp.lower.tasks import TILE_WORDS, TaskTable
from pto_wsp.scalar_expr import Expr
from pto_wsp.trace import tree
from pto_wsp.trace.channels import LATENCY
from pto_wsp.types import Dense, Ragged, RaggedRow, Sparse, SparseRow, Tensor

__all__ = [
    "LONGEST_AXIS", "MOST_ROWS", "Binding", "Call", "Clock", "Expansion", "Host", "Inputs", "KernelUse", "Stopped",
    "expand",
]  # fmt: skip

_LITTLE_ROOM = 1 << 21  # bytes of a table chunk: it should stay in the cache
MOST_ROWS, _LEAST_ROWS = 1 << 16, 1 << 10  # of a table


Data = tuple[NDArray[np.int64], ...]


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
    axes: dict[Ragged | Sparse, tree.Loop]  # axes whose data is a run-time input, and a loop over each
    loads: tuple[Load, ...]  # slots that are loaded from tensors
    slot_uses: tuple[SlotUse, ...]  # where slots change, when their edges are wanted
    row_uses: tuple[RowUse, ...]  # loops over one row of an axis
    keys: tuple[Expr, ...]  # numbers that the schedule wants of each task
    pipeline: processes.Pipeline | None  # when processes make the tasks, in the order that a Clock says
    receives: tuple[tree.Receive, ...]  # those that need a token
    clocks: Callable[[processes.Pipeline, Inputs], Clock] | None = field(repr=False)
    has_events: bool  # some rows are not tasks
    ir: str
    code: jit.Code
    _rows: int = field(repr=False)  # at most, if every loop of `loops` and over `axes` had one iteration
    _data_loops: tuple[Ragged | Sparse, ...] = field(repr=False)  # the axis of each loop over data
    _inputs: dict[Input, int] = field(repr=False)  # what -> position of its first word
    _depth: int = field(repr=False)

    def table(self, rows: float = math.inf) -> TaskTable:
        """An empty table for this workload's rows: for all of them where there are `rows` at most, and few enough."""
        if rows <= MOST_ROWS:
            return self.table_of(1 << (max(int(rows), _LEAST_ROWS) - 1).bit_length())
        row = self.table_of(1)
        little = _LITTLE_ROOM // (8 * (row.args.shape[1] + row.axes.shape[1] + len(self.keys)) + 17)
        return self.table_of(max(_LEAST_ROWS, min(MOST_ROWS, 1 << little.bit_length() - 1)))

    def table_of(self, rows: int) -> TaskTable:
        """An empty table of that capacity."""
        words = max([TILE_WORDS * bool(self.slot_uses), *(k.words for k in self.kernels)])
        return TaskTable.empty(rows, words, max((len(c.task.axes) for c in self.calls), default=0), len(self.keys))

    def inputs(
        self,
        arrays: Sequence[Placed],
        sizes: Mapping[tree.Loop, int],
        symbols: Mapping[str, int],
        data: Mapping[Ragged | Sparse, Mapping[str, Any]] | None = None,
        spaces: Sequence[int] = (),
        volatile: Set[Ragged | Sparse] = frozenset(),
    ) -> Inputs:
        """The run-time inputs as the native code wants them.

        arrays   one per entry of `tensors`, or where each of them lies
        sizes    trip count per entry of `loops`
        symbols  64-bit words by name; a missing one is 0
        data     what replaces the data that an axis was made with, see axes.data_of
        spaces   per array, the space of memory that it lies in; by default each has one of its own
        volatile axes whose data is written by tasks of the workload: it is read again as the loops begin
        raises   ExecutionError for data of an axis that makes no sense
        """
        words = list[int]()
        for what in self._inputs:  # in the order of their places
            if what[0] == "size":
                words.append(_checked_size(what[1], sizes[what[1]]))
            elif what[0] == "symbol":
                words.append(signed(expressions.symbol_word(symbols.get(what[1], 0), what[2])))
            elif what[0] == "space":
                words.append(spaces[what[1]] if len(spaces) else what[1])
            else:
                array = arrays[what[1]]
                words += (address_of(array), *array.strides, *array.shape)
        found = {axis: axis_data(axis, (data or {}).get(axis, {}), loop) for axis, loop in self.axes.items()}
        return Inputs(np.array(words or [0], np.int64), found, dict(symbols), dict(data or {}), frozenset(volatile))

    @cached_property
    def _native(self) -> Callable[..., int]:
        return _EXPAND(self.code.address("expand"))

    @cached_property
    def written(self) -> frozenset[int]:
        """The tensors that tasks write to."""
        return frozenset(b.tensor for call in self.calls for b in call.tiles if call.writes(b))

    def reads_results(self, inputs: Inputs) -> bool:
        """Is a slot loaded from memory that tasks write to?"""
        if not self.loads:
            return False
        space = {what[1]: int(inputs.words[at]) for what, at in self._inputs.items() if what[0] == "space"}
        written = {space[tensor] for tensor in self.written}
        return any(space[load.tensor] in written for load in self.loads)

    def most_rows(self, inputs: Inputs) -> float:
        """No run makes more rows, or iterations of loops; math.inf where that is not known before."""
        if self.pipeline is not None or inputs.volatile:
            return math.inf
        rows = self._rows
        for what, at in self._inputs.items():
            if what[0] == "size":
                rows *= max(1, int(inputs.words[at]))
        for axis in self._data_loops:
            if axis in inputs.axes:  # not so for a loop that does nothing
                lengths, *indices = inputs.axes[axis]
                rows *= max(1, len(indices[0]) if indices else int(lengths.sum()))
        return rows

    def _shapes(self, inputs: Inputs) -> list[tuple[int, ...]]:
        """Shape of each tensor's array, from the inputs."""
        ranks = [len(t.shape) for t in self.tensors]
        ends = [self._inputs[("tensor", k)] + 1 + 2 * rank for k, rank in enumerate(ranks)]
        return [tuple(inputs.words[end - rank : end].tolist()) for end, rank in zip(ends, ranks, strict=True)]

    def run(
        self,
        inputs: Inputs,
        table: TaskTable,
        consume: Callable[[TaskTable], None],
        stop: NDArray[np.int64] | None = None,
        host: Host | None = None,
        clock: Clock | None = None,
    ) -> int:
        """Expand once; the number of tasks.

        consume  called with each filled chunk in program order, in the calling thread; what it raises ends the run
        stop     one word; the run ends with Stopped soon after it becomes non-zero
        host     runs tasks while the table fills, and keeps the values that are loaded into slots
        clock    says which process of a pipeline goes on; it is used for one run. By default one is made
        raises   RegionError for a task whose tile would not lie inside its array; its chunk is not handed over;
                 KeyboardInterrupt
        """
        going = _Pass(self, inputs, table, consume, host, clock)
        if stop is None:
            stop = np.zeros(1, np.int64)
        if host is not None:
            host.begin(going.words)
        where = np.zeros(2 + self._depth, np.int64)
        given = (inputs.words, table.words, _TELL(going.tell), where, stop, going.words, going.axis_words)
        outcome = self._native(*(address_of(g) if isinstance(g, np.ndarray) else g for g in given))
        rows = int(where[1])
        if outcome == 0 and rows:
            going.tell(control.FLUSH, rows)
        if going.failure is not None:
            raise going.failure
        if outcome == STOPPED:
            raise Stopped if going.words[control.HEARD] else KeyboardInterrupt
        if outcome:
            raise self._refused(outcome, int(where[0]), where[2:].tolist(), rows, inputs, going)
        if host is not None:
            host.end(going.words)
        return going.tasks

    def _refused(
        self, outcome: int, number: int, loops: list[int], rows: int, inputs: Inputs, going: _Pass
    ) -> ExecutionError:
        """Why the run ended early. number: of the call, load or loop that is wrong; rows: filled in the table."""
        known = (inputs.symbols, going.words[: control.SLOTS].view(np.uint64).tolist())
        if outcome == NO_TOKEN:
            return diagnose.no_token(self.receives[number])
        if outcome == NO_ROW:
            entries = {axis: len(data[0]) for axis, data in zip(self.axes, going.data, strict=True)}
            return diagnose.no_row(self.row_uses[number], loops, entries, *known)
        shapes = self._shapes(inputs)
        if outcome == LOAD_OUTSIDE:
            load = self.loads[number]
            return diagnose.load_outside(load, loops, shapes[load.tensor], *known)
        task = going.tasks + int(np.count_nonzero(going.table.kernel[:rows] >= 0))
        call = self.calls[number]
        if outcome == NO_CYCLES:
            return diagnose.no_cycles(call, task, loops)
        data = dict(zip(self.axes, going.data, strict=True))
        return diagnose.outside(call, self.kernels[call.kernel], task, loops, shapes, data, *known)


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a run is given: see Expansion.inputs."""

    words: NDArray[np.int64]
    axes: dict[Ragged | Sparse, Data]  # in the order of Expansion.axes
    symbols: Mapping[str, int]
    given: Mapping[Ragged | Sparse, Mapping[str, Any]]
    volatile: frozenset[Ragged | Sparse]

    def same(self, other: Inputs) -> bool:
        """Are all of them equal? What axes hold that tasks write to may differ."""
        return self is other or (
            np.array_equal(self.words, other.words)
            and self.symbols == other.symbols
            and self.volatile == other.volatile
            and all(
                len(mine) == len(theirs) and all(map(np.array_equal, mine, theirs))
                for (axis, mine), theirs in zip(self.axes.items(), other.axes.values(), strict=True)
                if axis not in self.volatile
            )
        )


class Host(Protocol):
    """Who runs the tasks of a table that is still being filled. `words`: see control.py."""

    def begin(self, words: NDArray[np.int64], /) -> None:
        """A run begins."""

    def run(self, table: TaskTable, begin: int, end: int, words: NDArray[np.int64], /) -> None:
        """Run the tasks in these rows."""

    def axis(self, number: int, read: Callable[[], Data], /) -> Data:
        """The data of an axis at this moment; the same object as long as it has not changed."""

    def turn(self, words: NDArray[np.int64], /) -> None:
        """The page of values is full, or read to its end."""

    def end(self, words: NDArray[np.int64], /) -> None:
        """The run has ended well."""


class Clock(Protocol):
    """Which process of a pipeline goes on next, and when; see processes.py."""

    def begin(self, rows: int, frame_words: int, /) -> NDArray[np.int64]:
        """A run begins, with a table of so many rows: the words that PIPELINE points to. They stay alive."""

    def attend(self, what: int, /) -> None:
        """The clock's native function has returned `what`, neither a process nor FINISHED."""


class _Pass:
    """One pass through the workload: what the native code shares with us while it runs.

    words, axis_words  see control.py and axes.py
    data               the arrays that axis_words point to;  retired: those that loops may still be running over
    tasks              handed over so far
    """

    def __init__(
        self,
        expansion: Expansion,
        inputs: Inputs,
        table: TaskTable,
        consume: Callable[[TaskTable], None],
        host: Host | None,
        clock: Clock | None = None,
    ) -> None:
        self.expansion, self.inputs, self.table, self.consume, self.host = expansion, inputs, table, consume, host
        self.clock = clock
        self.failure: BaseException | None = None
        self.tasks = table.count = table.first_task = 0
        self.words = np.zeros(control.WRITTEN + len(expansion.tensors), np.int64)
        self.words[control.HEARD] = 1
        self.words[control.SLOT_EDGES] = len(expansion.slot_uses) > 0 and expansion.reads_results(inputs)
        if expansion.pipeline is not None:
            if clock is None:
                assert expansion.clocks is not None, "a pipeline needs a clock"
                self.clock = clock = expansion.clocks(expansion.pipeline, inputs)
            self.shared = clock.begin(table.capacity, expansion.pipeline.frame_words)
            self.words[control.PIPELINE] = self.shared.ctypes.data
        self.data, self.retired = list(inputs.axes.values()), list[Data]()
        self.axis_words = np.zeros((len(self.data) + 1, axes.WORDS), np.int64)
        for k, (axis, data) in enumerate(inputs.axes.items()):
            self.axis_words[k] = axes.words_of(axis, data, axis in inputs.volatile)

    def tell(self, what: int, rows: int) -> int:
        """What the native code calls; 0 to go on."""
        try:
            if what == control.FLUSH:
                self._flush(rows)
            elif what == control.ATTEND:
                assert self.clock is not None
                self.clock.attend(rows)
            elif self.host is None:
                raise AssertionError("tasks have to be run before the next ones are known")
            elif what == control.TURN:
                self.host.turn(self.words)
            else:
                self._catch_up(self.host, rows)
                if what >= control.REFRESH:
                    self._refresh(self.host, what - control.REFRESH)
            self.words[control.HEARD] = 1
        except BaseException as error:
            self.failure = error
            return 1
        return 0

    def _flush(self, rows: int) -> None:
        if self.host is not None:
            self._catch_up(self.host, rows)
        self.table.count, self.table.first_task, self.table.notes = rows, self.tasks, None
        self.tasks += self.table.task_count if self.expansion.has_events else rows
        self.consume(self.table)
        self.words[control.EXECUTED], self.words[control.WRITTEN :] = 0, 0

    def _catch_up(self, host: Host, rows: int) -> None:
        self.table.first_task = self.tasks
        host.run(self.table, int(self.words[control.EXECUTED]), rows, self.words)
        self.words[control.EXECUTED] = rows

    def _refresh(self, host: Host, number: int) -> None:
        axis, loop = list(self.expansion.axes.items())[number]
        found = host.axis(number, lambda: axis_data(axis, self.inputs.given.get(axis, {}), loop))
        if found is not self.data[number]:
            self.retired.append(self.data[number])
            self.data[number] = found
            self.axis_words[number] = axes.words_of(axis, found, True)


_TELL = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
_EXPAND = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_void_p] * 2, _TELL, *[ctypes.c_void_p] * 4)


def expand(
    workload: tree.WorkloadTree,
    keys: Sequence[Expr] = (),
    clocks: Callable[[processes.Pipeline, Inputs], Clock] | None = None,
    cycles: Mapping[int, Expr] = MappingProxyType({}),
    slot_edges: bool = False,
) -> Expansion:
    """Make a workload ready for expansion.

    keys    numbers that the schedule wants of each task: the table has a column for each
    clocks  makes the clock for a run of a pipeline
    cycles  of a task, by the id of its call, where they are not those of its kernel
    slot_edges  rows say what slots wait for; never so in a pipeline
    raises  CompileError, at the user's line, for what cannot be expanded
    """
    loads = any(isinstance(node, tree.SlotLoad) for node in tree.walk(workload.root))
    named = {id(h) for node in tree.walk(workload.root) if isinstance(node, tree.TaskCall) for h in node.after}
    pipeline: processes.Pipeline | None = None
    receives: tuple[tree.Receive, ...] = ()
    emitter: Emitter
    if isinstance(workload.root, tree.Connect):
        emitter = several = processes.Emitter(keys, loads)
        emitter.cycles = cycles
        pipeline = several.pipeline(workload.root)
        ir, receives = several.text(), tuple(several.receives)
    else:
        emitter = Emitter(keys, loads)
        emitter.cycles, emitter.handles = cycles, named
        if slot_edges:
            emitter.read_slots = slots.read_by(workload.root, keys)
        ir = emitter.module(emitter.root(workload.root))
    known = [what[1] for what in emitter.inputs if what[0] == "symbol"] + [LATENCY] * (pipeline is not None)
    return Expansion(
        kernels=tuple(emitter.kernels.values()),
        calls=tuple(emitter.calls),
        tensors=tuple(emitter.tensors),
        loops=tuple(what[1] for what in emitter.inputs if what[0] == "size"),
        symbols=tuple(dict.fromkeys(known)),
        axes=emitter.axes,
        loads=tuple(emitter.loads),
        slot_uses=tuple(emitter.slot_uses),
        row_uses=tuple(emitter.row_uses),
        keys=tuple(keys),
        pipeline=pipeline,
        receives=receives,
        clocks=clocks,
        has_events=emitter.has_events,
        ir=ir,
        code=jit.load(ir, kind="expander"),
        _rows=_most_rows(workload.root),
        _data_loops=tuple(_data_loops(workload.root)),
        _inputs=emitter.inputs,
        _depth=emitter.depth,
    )


def _most_rows(root: tree.TreeNode) -> int:
    """Rows, events too, and iterations that a tree makes at most, where loops of unknown size have one iteration."""
    rows, left = 0, [(root, 1)]
    while left:
        node, times = left.pop()
        if isinstance(node, tree.Loop):
            axis = node.axis
            size = axis if isinstance(axis, int) else len(axis) if isinstance(axis, tuple) else 1
            left.append((node.body, times * (axis.size if isinstance(axis, Dense) else size)))
        elif isinstance(node, tree.Block):
            left.extend((child, times) for child in node.children)
        elif isinstance(node, tree.Cond):
            left.extend(((node.then, times), (node.orelse, times)))
        rows += (2 if isinstance(node, (tree.Loop, tree.Block)) else 1) * times
    return rows


def _data_loops(root: tree.TreeNode) -> Iterator[Ragged | Sparse]:
    """The axis of each loop over data that is read when a run begins."""
    for node in tree.walk(root):
        axis = node.axis if isinstance(node, tree.Loop) else None
        if isinstance(axis, (RaggedRow, SparseRow)):
            axis = axis.ragged if isinstance(axis, RaggedRow) else axis.sparse
        if isinstance(axis, (Ragged, Sparse)):
            yield axis


def axis_data(axis: Ragged | Sparse, given: Mapping[str, Any], loop: tree.Loop) -> Data:
    """The data of an axis for a run, as axes.data_of."""
    try:
        return axes.data_of(axis, given, loop.var.name)
    except AxisError as error:
        raise ExecutionError(f"{error.message}.").at(loop.line) from None


def _checked_size(loop: tree.Loop, size: int) -> int:
    if size > LONGEST_AXIS:
        raise ExecutionError(f"axis {loop.var.name} has {size} iterations; at most 2**40 are possible.").at(loop.line)
    return max(size, 0)
