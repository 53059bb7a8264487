"""Snapshots as text: everything that the clock needs of a program, for another process, another machine or a file.

First the kernels and the workload (trace/tree_text.py), then:

    moment
      schedule dispatch=affinity(axis("b", 0), 4) window=64
      place T0: space 0 at 0 [64, 8, 64] [2048, 256, 4]      where its array lies: byte, shape, strides in bytes. No
                                                             strides: C order; no line: C order, the tensor's shape,
                                                             and no other array shares its memory
      size 3: 17                                             trip count of loop 3, counted from 0 in the workload
      symbol "n": 5
      data A0: [3, 1, 4]                                     what has replaced the data that the axis was made with
      written A0                                             tasks of the program itself make its data
      read [0, 2] [4, 7]                                     such data, as a loop found it; `reads` says which, in order
      reads [0, 0, 1]
      loads 1000000 of u16 "..."                             what was loaded into slots, in order
      check hazards                                          a schedule that cannot see some hazards is an error
      cycles 2: 100 + 4 * axis("b", 0)                       of the tasks of call 2, instead of what its kernel takes

Arrays that share memory are in one space, at the distances that they had. What is read from such a text is checked; its
simulation touches no memory but its own.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np

from pto_wsp.errors import AxisError
from pto_wsp.lower import axes as axis_data
from pto_wsp.lower.places import Place
from pto_wsp.scalar_expr import as_expr
from pto_wsp.schedule import Schedule
from pto_wsp.sim import regions
from pto_wsp.sim.cycles import Durations
from pto_wsp.sim.decisions import Log
from pto_wsp.sim.schedule_text import ScheduleReader, print_key, print_schedule
from pto_wsp.sim.simulation import Expansions, Snapshot
from pto_wsp.trace.expr_text import int_list
from pto_wsp.trace.text import GraphTextError, parse_part
from pto_wsp.trace.tree import Loop, SlotLoad, WorkloadTree, walk
from pto_wsp.trace.tree_text import Names, PrintedKernel, TreeReader, lines_of, print_kernels, sections
from pto_wsp.types import Ragged, Sparse, Tensor

__all__ = ["parse_snapshot", "print_snapshot"]

_FIRST_ADDRESS, _APART = 1 << 20, 1 << 12
_MOST_BYTES = 1 << 56  # that an array may span
_PAGE = 1 << 16  # values of a log


# ---- printing ------------------------------------------------------------------------------------------------------


def print_snapshot(snapshot: Snapshot, schedule: bool = True) -> str:
    """The snapshot as text that `parse_snapshot` reads.

    schedule  with the program's own; without it the text has none
    raises    IRConversionError for what has no text: a key that is a Python function of values, the body of a custom
              kernel whose cycles are one
    """
    tree = snapshot.tree
    names = Names(tree)
    lines = [*print_kernels(names, comments=False), *lines_of(tree, comments=False), "moment"]
    if schedule:
        lines.append(f"  schedule {print_schedule(snapshot.schedule, snapshot.loops)}")
    lines += [f"  place {names.tensors[id(t)]}: {place}" for t, place in _places(snapshot)]
    lines += [f"  size {n}: {size}" for n, size in _sizes(snapshot)]
    lines += [f"  symbol {json.dumps(name)}: {value}" for name, value in snapshot.symbols.items()]
    for axis, given in snapshot.data.items():
        arrays = [given[part] for part in axis_data.PARTS[type(axis)]]
        if axis in snapshot.volatile:
            lines.append(f"  written {names.axes[id(axis)]}")
        if not all(np.array_equal(a, getattr(axis, part)) for a, part in zip(arrays, axis_data.PARTS[type(axis)])):
            lines.append(f"  data {names.axes[id(axis)]}: {' '.join(map(int_list, arrays))}")
    if snapshot.log is not None:
        lines += _log(snapshot.log)
    if snapshot.hazards:
        lines.append("  check hazards")
    lines += [f"  cycles {n}: {expr}" for n, expr in _cycles(snapshot)]
    return "\n".join(lines) + "\n"


def _places(snapshot: Snapshot) -> Iterator[tuple[Tensor, str]]:
    tensors = list(snapshot.places)
    spaces, origin = regions.spaces_of([snapshot.places[t] for t in tensors])
    inside = Counter(spaces.tolist())
    numbers: dict[int, int] = {}  # in order of first use: addresses differ from run to run
    for tensor, space in zip(tensors, spaces.tolist(), strict=True):
        place = snapshot.places[tensor]
        if inside[space] == 1 and (place.shape, place.strides) == (tensor.shape, _dense(place)):
            continue
        number, at = numbers.setdefault(space, len(numbers)), place.address - int(origin[space])
        text = f"space {number} at {at} {list(place.shape)}"
        yield tensor, text if place.strides == _dense(place) else f"{text} {list(place.strides)}"


def _dense(place: Place) -> tuple[int, ...]:
    """The strides of a C-contiguous array of this shape."""
    strides, step = [], place.itemsize
    for size in reversed(place.shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def _sizes(snapshot: Snapshot) -> Iterator[tuple[int, int]]:
    loops = [node for node in walk(snapshot.tree.root) if isinstance(node, Loop)]
    for number, loop in enumerate(loops):
        if loop in snapshot.sizes:
            yield number, snapshot.sizes[loop]


def _cycles(snapshot: Snapshot) -> Iterator[tuple[int, str]]:
    for number, call in enumerate(snapshot.tree.tasks):
        key = snapshot.cycles.functions.get(id(call))
        if key is not None:
            yield number, print_key(key.function, key.owner, snapshot.loops)  # which refuses it
        elif id(call) in snapshot.cycles.exprs:
            yield number, print_key(snapshot.cycles.exprs[id(call)], f"cycles of {call.kernel.name}", snapshot.loops)


def _log(log: Log) -> list[str]:
    numbers: dict[int, int] = {}
    lines, order = [], []
    for data in log.axes:
        if id(data) not in numbers:
            numbers[id(data)] = len(numbers)
            lines.append(f"  read {' '.join(map(int_list, data))}")
        order.append(numbers[id(data)])
    if order:
        lines.append(f"  reads {int_list(order)}")
    if any(map(len, log.pages)):
        lines.append(f"  loads {int_list(np.concatenate([page.astype(np.uint64) for page in log.pages]))}")
    return lines


# ---- reading -------------------------------------------------------------------------------------------------------


def parse_snapshot(text: str) -> Snapshot:
    """The snapshot that a text of `print_snapshot` describes.

    raises  GraphTextError, which shows the place in the text
    """
    kernels: list[PrintedKernel] = []
    reader: TreeReader | None = None
    tree: WorkloadTree | None = None
    for word, begin, end in sections(text):
        if word == "kernel" and reader is None:
            kernels.append(PrintedKernel(parse_part(text, begin, end)))
        elif word == "workload" and reader is None:
            reader = TreeReader(text, begin, end, kernels)
            tree = reader.workload()
        elif word == "moment" and reader is not None and tree is not None:
            moment = _MomentReader(text, begin, end, reader, tree)
            if end < len(text):
                _MomentReader(text, end, len(text), reader, tree).fail("nothing comes after the moment.")
            return moment.snapshot()
        else:
            ScheduleReader(text, begin, end).fail("a snapshot is kernels, a workload and a moment, in this order.")
    raise GraphTextError("the text has no moment: it is a workload, not a snapshot of a program.")


class _MomentReader(ScheduleReader):
    """The last part of a snapshot."""

    def __init__(self, text: str, begin: int, end: int, names: TreeReader, tree: WorkloadTree) -> None:
        super().__init__(text, begin, end)
        self.names, self.tree = names, tree
        self.nodes = [node for node in walk(tree.root) if isinstance(node, Loop)]
        self.loops = [node.var for node in self.nodes]
        self.calls = tree.tasks
        self.places: dict[Tensor, tuple[int, int, tuple[int, ...], tuple[int, ...]]] = {}
        self.found: dict[str, Any] = {
            "schedule": None, "sizes": {}, "symbols": {}, "data": {}, "written": set(), "read": [], "reads": [],
            "loads": np.zeros(0, np.uint64), "cycles": {}, "check": False,
        }  # fmt: skip

    def snapshot(self) -> Snapshot:
        self.word("moment")
        self.end_of_line()
        rules = {"schedule": self._schedule, "place": self._place, "size": self._size, "symbol": self._symbol,
                 "data": self._data, "written": self._written, "read": self._read, "reads": self._reads,
                 "loads": self._loads, "check": self._check, "cycles": self._cycles}  # fmt: skip
        self.skip_lines()
        while self.token.kind != "end":
            token = self.expect("word", ", ".join(rules))
            if token.text not in rules:
                self.fail(f"a moment has no {token.text[:80]}; it has {', '.join(rules)}.", token)
            rules[token.text]()
            self.end_of_line()
            self.skip_lines()
        self._place_others()
        found = self.found
        return Snapshot(
            name=self.tree.name, expansions=Expansions(self.tree), schedule=found["schedule"] or Schedule(),
            places=self._addresses(), sizes={n: self._trips(n) for n in self.nodes if self._is_sized(n)},
            symbols=found["symbols"], data=found["data"], volatile=frozenset(found["written"]), log=self._log(),
            cycles=Durations(found["cycles"]), hazards=found["check"],
        )  # fmt: skip

    def _is_sized(self, loop: Loop) -> bool:
        return hasattr(loop.axis, "size") and not isinstance(loop.axis, int)

    def _trips(self, loop: Loop) -> int:
        return int(self.found["sizes"].get(loop, getattr(loop.axis, "size", 0)))

    def _log(self) -> Log | None:
        """What has been read; None where nothing is: a loop or slot that should find something else asks for it."""
        if not self.found["written"] and not any(isinstance(node, SlotLoad) for node in walk(self.tree.root)):
            return None
        log, values = Log(), self.found["loads"]
        for begin in range(0, len(values), _PAGE):
            log.add(values[begin : begin + _PAGE].astype(np.uint64))
        log.axes = [self.found["read"][k] for k in self.found["reads"]]
        return log

    # -- lines

    def _schedule(self) -> None:
        self.found["schedule"] = self.schedule()

    def _tensor(self) -> Tensor:
        token = self.expect("word", "a tensor")
        if token.text not in self.names.tensors:
            self.fail(f"the workload has no tensor {token.text[:80]}.", token)
        return self.names.tensors[token.text]

    def _known_axis(self) -> Any:
        token = self.expect("word", "an axis")
        axis = self.names.axes.get(token.text)
        if axis is None or type(axis) not in axis_data.PARTS:
            self.fail(f"the workload has no ragged or sparse axis {token.text[:80]}.", token)
        return axis

    def _place(self) -> None:
        start, tensor = self.token, self._tensor()
        self.mark(":")
        self.word("space")
        space = self.whole(0, 1 << 31)
        self.word("at")
        at = self.whole(0, _MOST_BYTES)
        shape = tuple(self.ints(0, _MOST_BYTES).tolist())
        place = Place(0, shape, (), tensor.dtype.itemsize)
        strides = _dense(place)
        if self.at_mark("["):
            strides = tuple(self.ints(-_MOST_BYTES, _MOST_BYTES).tolist())
        if not len(shape) == len(strides) == len(tensor.shape):
            self.fail(f"{start.text} has {len(tensor.shape)} dimensions.", start)
        if sum(abs(s) * n for s, n in zip(strides, shape, strict=True)) > _MOST_BYTES:
            self.fail(f"{start.text} spans more than {_MOST_BYTES} bytes.", start)
        self.places[tensor] = space, at, shape, strides

    def _place_others(self) -> None:
        """Tensors whose place is not said lie somewhere alone."""
        space = max((space for space, *_ in self.places.values()), default=-1)
        for tensor in self.names.tensors.values():
            if tensor not in self.places:
                space += 1
                strides = _dense(Place(0, tensor.shape, (), tensor.dtype.itemsize))
                self.places[tensor] = space, 0, tensor.shape, strides

    def _addresses(self) -> dict[Tensor, Place]:
        """Every space at addresses of its own, the arrays in it at their distances."""
        made: dict[Tensor, Place] = {}
        following = _FIRST_ADDRESS
        for space in sorted({space for space, *_ in self.places.values()}):
            inside = [(t, at, shape, strides) for t, (s, at, shape, strides) in self.places.items() if s == space]
            lowest = min(at - _below(shape, strides) for _, at, shape, strides in inside)
            highest = max(at + _above(shape, strides) + t.dtype.itemsize for t, at, shape, strides in inside)
            for tensor, at, shape, strides in inside:
                made[tensor] = Place(following + at - lowest, shape, strides, tensor.dtype.itemsize)
            following += -(-(highest - lowest) // _APART) * _APART + _APART
            if following >= 1 << 62:
                raise GraphTextError("the arrays of this text span more than 2**62 bytes.")
        return {tensor: made[tensor] for tensor in self.places}

    def _size(self) -> None:
        token, number = self.token, self.whole(0)
        self.mark(":")
        if number >= len(self.nodes) or not self._is_sized(self.nodes[number]):
            self.fail(f"loop {number} of the workload is none whose size may change.", token)
        self.found["sizes"][self.nodes[number]] = self.whole(0, 1 << 62)

    def _symbol(self) -> None:
        name = self.quoted()
        self.mark(":")
        self.found["symbols"][name] = self.whole(0)

    def _data(self) -> None:
        token, axis = self.token, self._known_axis()
        self.mark(":")
        arrays = tuple(self.ints(0) for _ in axis_data.PARTS[type(axis)])
        try:
            self.found["data"][axis] = axis_data.by_name(
                axis, axis_data.data_of(axis, axis_data.by_name(axis, arrays), token.text)
            )
        except AxisError as error:
            self.fail(error.message, token)

    def _written(self) -> None:
        axis = self._known_axis()
        self.found["written"].add(axis)

    def _read(self) -> None:
        token, first = self.token, self.ints(0)
        try:
            axis: Any
            if self.token.kind in ("newline", "end"):
                axis = Ragged(len(first), cast("Any", first))
            else:
                axis = Sparse(len(first) - 1, cast("Any", first), cast("Any", self.ints(0)))
            self.found["read"].append(axis_data.data_of(axis, {}, "read"))
        except AxisError as error:
            self.fail(error.message, token)

    def _reads(self) -> None:
        token = self.token
        self.found["reads"] = self.ints(0, 1 << 40).tolist()
        if max(self.found["reads"], default=-1) >= len(self.found["read"]):
            self.fail(f"there are only {len(self.found['read'])} lines of what was read above.", token)

    def _check(self) -> None:
        self.word("hazards")
        self.found["check"] = True

    def _cycles(self) -> None:
        token, number = self.token, self.whole(0)
        if number >= len(self.calls):
            self.fail(f"the workload has {len(self.calls)} kernel calls.", token)
        self.mark(":")
        self.found["cycles"][id(self.calls[number])] = as_expr(self.key())

    def _loads(self) -> None:
        self.found["loads"] = self.ints(0, (1 << 64) - 1)


def _below(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Bytes of an array that lie before its first element."""
    return sum(-s * (n - 1) for s, n in zip(strides, shape, strict=True) if s < 0 and n > 0)


def _above(shape: Sequence[int], strides: Sequence[int]) -> int:
    return sum(s * (n - 1) for s, n in zip(strides, shape, strict=True) if s > 0 and n > 0)
