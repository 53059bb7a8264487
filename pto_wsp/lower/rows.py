"""WorkloadTree -> LLVM text that writes the rows of a TaskTable. Start reading at `Emitter.task`.

A node of the tree becomes a Piece: LLVM text in which every number that belongs to this node alone (a literal, the
position of an input, the number of the call) is cut out. Nodes of one block whose text is then equal, such as the calls
of an unrolled Python loop, share that text: a native loop runs over a table of their numbers.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pto_wsp.errors import CompileError
from pto_wsp.lower import axes, control, expressions, slots
from pto_wsp.lower.bindings import Binding, Call, KernelUse, Load, RowUse, SlotUse, bind, element, graph_of
from pto_wsp.lower.bounds import start_in
from pto_wsp.lower.expressions import Scope, Variable, signed
from pto_wsp.lower.lines import Lines, Piece, finish
from pto_wsp.lower.tasks import COLUMNS, ENTER_PARALLEL, ENTER_SEQUENTIAL, EXIT, FORGET, SLOT
from pto_wsp.scalar_expr import SLOTS, Expr, LoopVar, constant_of, fnv1a_64
from pto_wsp.trace import tree
from pto_wsp.trace.c_expr import added_cycles
from pto_wsp.trace.extents import CostTerm, Source
from pto_wsp.trace.graph import KernelGraph, Param
from pto_wsp.types import Dense, DenseDyn, DType, Ragged, RaggedRow, Sparse, SparseRow, Symbol, Tensor

__all__ = [
    "LOAD_OUTSIDE", "LONGEST_AXIS", "NO_ROW", "NO_TOKEN", "OUTSIDE", "POINTERS", "STOPPED", "Emitter",
    "Input", "axis_word",
]  # fmt: skip

LONGEST_AXIS = 1 << 40
"""Iterations that a run-time axis may have; keeps index arithmetic of ordinary programs free of overflow checks."""

OUTSIDE, STOPPED, LOAD_OUTSIDE, NO_ROW, NO_TOKEN, NO_CYCLES = 1, 2, 3, 4, 5, 6
"""What the native function returns when it does not come to the end: a task's tile is outside its array, it was told to
stop, the element for a slot is outside its array, a ragged or sparse axis has no such row, a channel has no token,
cycles that a user's expression gives are less than 0 or more than MOST_CYCLES."""

MOST_CYCLES = 1 << 40

Input = tuple[Any, ...]  # ("size", loop) | ("symbol", name, dtype) | ("tensor", index) | ("space", index)

_DOING = (tree.TaskCall, tree.SlotSet, tree.SlotLoad, tree.Send, tree.Consume, tree.Receive)
"""Nodes that do something; the others only say what is in which order."""


class Emitter:
    """Makes the text, and the tables that it refers to by number."""

    def __init__(self, keys: Sequence[Expr], loads: bool) -> None:
        self.keys = tuple(keys)
        self.cycles: Mapping[int, Expr] = {}  # by id of a call: in place of what its kernel takes
        self.handles: Collection[int] = ()  # by id: calls that some `after` names
        self.read_slots: frozenset[int] = frozenset()  # slots whose edges are wanted: those that some expression reads
        self.notes_writes = loads  # some slot is loaded: which tasks write where has to be known
        self.kernels: dict[int, KernelUse] = {}  # by id(graph)
        self.calls: list[Call] = []
        self.loads: list[Load] = []
        self.slot_uses: list[SlotUse] = []
        self.row_uses: list[RowUse] = []
        self.axes: dict[Ragged | Sparse, tree.Loop] = {}  # those with run-time data, and a loop over each
        self.tensors: list[Tensor] = []
        self.inputs: dict[Input, int] = {}  # what -> position of its first word
        self.constants: list[int] = []  # numbers of the nodes that became native loops
        self.depth = 0  # loops inside one another
        self.repeats = 0  # native loops over equal nodes inside one another
        self.has_events = False
        self._numbers: dict[int, int] = {}
        self._tensor_numbers: dict[int, int] = {}
        self._words = 0

    # -- nodes

    def root(self, node: tree.TreeNode) -> Piece:
        return self.node(node, Scope(read_symbol=self._symbol), sequential=False)

    def node(self, node: tree.TreeNode, scope: Scope, sequential: bool) -> Piece:
        """Code for a node whose surroundings are parallel or sequential."""
        if isinstance(node, tree.TaskCall):
            return self.task(node, scope)
        if isinstance(node, tree.Block):
            return self.block(node, scope, sequential)
        if isinstance(node, tree.Loop):
            return self.loop(node, scope, sequential)
        if isinstance(node, tree.Cond):
            return self.cond(node, scope, sequential)
        if isinstance(node, tree.SlotSet):
            return self.slot_set(node, scope)
        if isinstance(node, tree.SlotLoad):
            return self.slot_load(node, replace(scope, line=node.line))
        what = type(node).__name__.lower()
        raise CompileError(f"{what}(...) belongs in a process of connect(...), the root of a workload.").at(node.line)

    def block(self, node: tree.Block, scope: Scope, sequential: bool) -> Piece:
        children = _parts(node)
        if len(children) == 1:
            return self.node(children[0], scope, sequential)
        timed = sum(_leads_to(child, (tree.TaskCall,)) for child in children)
        pieces = [self.node(child, scope, sequential if timed <= 1 else not node.parallel) for child in children]
        out = Lines()
        texts = list(dict.fromkeys(piece.text for piece in pieces))
        if len(pieces) - len(texts) < 3:
            for piece in pieces:
                out.add(piece)
        else:
            self._repeat(out, pieces, texts)
        return self.nested(out.piece(), node.parallel, sequential) if timed > 1 else out.piece()

    def _repeat(self, out: Lines, pieces: list[Piece], texts: list[str]) -> None:
        """One native loop over the pieces: a table says which text each has, and where its numbers are."""
        which = {text: k for k, text in enumerate(texts)}
        steps = [n for piece in pieces for n in (which[piece.text], self._constants(piece.data))]
        level = 1 + max((int(n) for text in texts for n in re.findall(r"%step(\d+)", text)), default=-1)
        self.repeats = max(self.repeats, level + 1)
        start = out.datum(self._constants(steps))
        body, latch, done = out.label(), out.label(), out.label()
        out.put(f"store i64 0, ptr %step{level}")
        out.put(f"store i64 {start}, ptr %steps{level}")
        out.jump(body)
        out.start(body)
        index, start = out.value(f"load i64, ptr %step{level}"), out.value(f"load i64, ptr %steps{level}")
        place = out.value(f"add i64 {start}, {out.value(f'shl i64 {index}, 1')}")
        step = out.value(f"getelementptr i64, ptr @constants, i64 {place}")
        text = out.value(f"load i64, ptr {step}")
        first = out.value(f"load i64, ptr {out.value(f'getelementptr i64, ptr {step}, i64 1')}")
        out.put(f"store ptr {out.value(f'getelementptr i64, ptr @constants, i64 {first}')}, ptr %numbers{level}")
        labels = [out.label() for _ in texts]
        cases = " ".join(f"i64 {k}, label %{label}" for k, label in enumerate(labels[1:], 1))
        out.put(f"switch i64 {text}, label %{labels[0]} [{cases}]")
        for label, template in zip(labels, texts, strict=True):
            out.start(label)
            out.add_template(template, f"%numbers{level}")
            out.jump(latch)
        out.start(latch)
        following = out.value(f"add i64 {out.value(f'load i64, ptr %step{level}')}, 1")
        out.put(f"store i64 {following}, ptr %step{level}")
        out.branch(out.value(f"icmp ult i64 {following}, {out.datum(len(pieces))}"), body, done)
        out.start(done)

    def _constants(self, numbers: Iterable[int]) -> int:
        """Append to the table of constants; the position of the first."""
        first = len(self.constants)
        self.constants.extend(numbers)
        return first

    def nested(self, body: Piece, parallel: bool, sequential: bool) -> Piece:
        """A body of several parts, between events when their order is not that of the surroundings."""
        if not body.text or parallel is not sequential:
            return body
        out = Lines()
        self._event(out, ENTER_PARALLEL if parallel else ENTER_SEQUENTIAL)
        out.add(body)
        self._event(out, EXIT)
        return out.piece()

    def cond(self, node: tree.Cond, scope: Scope, sequential: bool) -> Piece:
        """One branch or the other; the choice is free, a branch without tasks too."""
        if _is_empty(node):
            return Piece()
        constant = constant_of(node.pred)
        if constant is not None:
            return self.node(node.then if constant else node.orelse, scope, sequential)
        out = Lines()
        then, orelse, after = out.label(), out.label(), out.label()
        found = expressions.emit(out, node.pred, replace(scope, line=node.line))
        holds = found.name if found.type == "bool" else out.value(f"icmp ne i64 {found.name}, 0")
        scope = self._decide(out, node, slots.slots_of(node.pred), scope)
        out.branch(holds, then, orelse)
        taken, named_in_then = self._branch(node.then, scope, sequential)
        other, named_in_other = self._branch(node.orelse, scope, sequential)
        for label, branch, absent in ((then, taken, named_in_other), (orelse, other, named_in_then)):
            out.start(label)
            for call in absent:
                self._event(out, FORGET, out.datum(call))
            out.add(branch)
            out.jump(after)
        out.start(after)
        return out.piece()

    def _branch(self, node: tree.TreeNode, scope: Scope, sequential: bool) -> tuple[Piece, list[int]]:
        """A branch, and the calls in it that some `after` names."""
        first = len(self.calls)
        piece = self.node(node, scope, sequential)
        return piece, [n for n in range(first, len(self.calls)) if id(self.calls[n].task) in self.handles]

    def loop(self, node: tree.Loop, scope: Scope, sequential: bool) -> Piece:
        if _is_empty(node):
            return Piece()
        depth = len(scope.loops)
        self.depth = max(self.depth, depth + 1)
        axis = node.axis
        out = Lines()
        values = axes.Values()
        if isinstance(axis, DenseDyn):
            count = _read(out, self._input(("size", node)))
            low, high, most = 0, LONGEST_AXIS - 1, LONGEST_AXIS
        elif isinstance(axis, tuple):
            most = len(axis)
            values = axes.Values("@constants", out.datum(self._constants(axis)))
            count = out.datum(most)
            low, high = min(axis), max(axis)
        elif isinstance(axis, (int, Dense)):
            most = _size(axis)
            count, low, high = out.datum(most), 0, most - 1
        elif isinstance(axis, (Ragged, RaggedRow, Sparse, SparseRow)):
            count, values = self.dynamic(out, node, replace(scope, line=node.line))
            low, high, most = 0, LONGEST_AXIS - 1, LONGEST_AXIS
        else:
            raise CompileError(f"{type(axis).__name__} axes are not supported yet on cpu_sim.").at(node.line)
        scope = self._decide(out, node, slots.slots_of(axis), scope)
        variable = Variable(node.var, f"%var{depth}", low, high)
        body = self.node(node.body, scope.inside(variable), sequential if most == 1 else not node.parallel)
        self._iterate(out, depth, count, values, body)
        return self.nested(out.piece(), node.parallel, sequential) if most > 1 else out.piece()

    def dynamic(self, out: Lines, node: tree.Loop, scope: Scope) -> tuple[str, axes.Values]:
        """Trip count and values of a loop over an axis whose data is read when the loop begins."""
        axis = node.axis
        whole = axis.ragged if isinstance(axis, RaggedRow) else axis.sparse if isinstance(axis, SparseRow) else axis
        assert isinstance(whole, (Ragged, Sparse))
        self.axes.setdefault(whole, node)
        number = list(self.axes).index(whole)
        axes.emit_refresh(out, number)
        if not isinstance(axis, (RaggedRow, SparseRow)):
            return axes.emit_all(out, whole, number)
        row = expressions.emit(out, axis.row, scope)
        good, bad = out.label(), out.label()
        out.branch(axes.emit_inside(out, number, row), good, bad)
        self.refuse(out, bad, NO_ROW, len(self.row_uses))
        self.row_uses.append(RowUse(node, tuple(v.var for v in scope.loops)))
        out.start(good)
        return axes.emit_row(out, whole, number, row)

    def refuse(self, out: Lines, label: str, outcome: int, number: int) -> None:
        """A block that ends the run."""
        out.start(label)
        out.put(f"store i64 {out.datum(number)}, ptr %where")
        out.put(f"store i64 {outcome}, ptr %outcome")
        out.jump("outside")

    def _iterate(self, out: Lines, depth: int, count: str, values: axes.Values, body: Piece) -> None:
        head, check, inside, done = out.label(), out.label(), out.label(), out.label()
        out.put(f"store i64 0, ptr %loop{depth}")
        out.put(f"store i64 {count}, ptr %count{depth}")
        values.keep(out, depth)
        out.jump(head)
        out.start(head)
        index = out.value(f"load i64, ptr %loop{depth}")
        end = out.value(f"load i64, ptr %count{depth}")
        out.branch(out.value(f"icmp slt i64 {index}, {end}"), check, done)
        out.start(check)
        stop = out.value("load atomic i64, ptr %stop monotonic, align 8")
        out.branch(out.value(f"icmp eq i64 {stop}, 0"), inside, "stopped")
        out.start(inside)
        out.put(f"store i64 {values.at(out, index, depth)}, ptr %var{depth}")
        out.add(body)
        index = out.value(f"load i64, ptr %loop{depth}")
        out.put(f"store i64 {out.value(f'add nuw nsw i64 {index}, 1')}, ptr %loop{depth}")
        out.jump(head)
        out.start(done)

    # -- slots

    def _decide(self, out: Lines, node: tree.Cond | tree.Loop, read: frozenset[int], scope: Scope) -> Scope:
        """The scope of what a condition, or an axis, decides about by the slots that it reads."""
        if not self.read_slots or not read:
            return scope
        decided = scope.decided_by | read
        inside = (n.slot for n in tree.walk(node) if isinstance(n, (tree.SlotSet, tree.SlotLoad)))
        changed = sorted(self.read_slots.intersection(inside))
        if not read.isdisjoint(changed):  # in there, the slots are no longer those that were read
            decision = SLOTS + len(self.slot_uses)
            self._slot_use(out, SlotUse(decision, tuple(sorted(decided))))
            decided = frozenset([decision])
        for slot in changed:  # whether they change is decided by it too
            self._slot_use(out, SlotUse(slot, tuple(sorted(decided | {slot}))))
        return replace(scope, decided_by=decided)

    def _slot_use(self, out: Lines, use: SlotUse, words: Sequence[str] = ()) -> None:
        wanted, after = out.label(), out.label()
        out.branch(slots.emit_wanted(out), wanted, after)
        out.start(wanted)
        self._event(out, SLOT, out.datum(len(self.slot_uses)), words)
        out.jump(after)
        out.start(after)
        self.slot_uses.append(use)

    def slot_set(self, node: tree.SlotSet, scope: Scope) -> Piece:
        out = Lines()
        out.add(slots.emit_set(node))
        if node.slot in self.read_slots:
            self._slot_use(out, SlotUse(node.slot, tuple(sorted(scope.decided_by))))
        return out.piece()

    def slot_load(self, node: tree.SlotLoad, scope: Scope) -> Piece:
        out = Lines()
        number = self._number(node.tensor)
        load = element(node, tuple(v.var for v in scope.loops), number)
        first, rank = self._input(("tensor", number)), len(load.dims)
        words = [_read(out, first + k) for k in range(1 + 2 * rank)]
        tensor = slots.Array(words[0], words[1 : 1 + rank], words[1 + rank :], self._written(out, number))
        bad = out.label()
        if node.slot in self.read_slots:
            address, _ = slots.address(out, load, tensor, scope)
            waits = scope.decided_by | slots.slots_of(node.row, node.col, node.tensor)
            self._slot_use(out, SlotUse(node.slot, tuple(sorted(waits)), load), (address, "0", "0", "1", "1"))
        slots.emit_load(out, load, tensor, scope, bad)
        after = out.label()
        out.jump(after)
        self.refuse(out, bad, LOAD_OUTSIDE, len(self.loads))
        out.start(after)
        self.loads.append(load)
        return out.piece()

    def _written(self, out: Lines, tensor: int) -> str:
        """Where the row after the last one that writes to the tensor's memory is kept."""
        space = _read(out, self._input(("space", tensor)))
        return out.value(f"getelementptr i64, ptr %written, i64 {space}")

    # -- tasks

    def task(self, node: tree.TaskCall, scope: Scope) -> Piece:
        """One row. Where are the tiles, do they lie inside, how much of each is there, what does it cost; write."""
        scope = replace(scope, line=node.line)
        graph = graph_of(node)
        use, given = self._kernel(graph), dict(node.args)
        tiles = tuple(self._bind(param, given[param.name], node) for param in graph.tile_params)
        number = len(self.calls)
        reads = scope.decided_by | slots.slots_of(*node.axes, *given.values(), *self.keys)
        self.calls.append(
            Call(node, self._numbers[id(graph)], tuple(v.var for v in scope.loops), tiles, tuple(sorted(reads)))
        )
        out = Lines()
        good, bad, partial, full, write = (out.label() for _ in range(5))
        call = out.datum(number)
        places = [self._tile(out, binding, scope) for binding in tiles]
        out.branch(out.every([check for place in places for check in place.checks]), good, bad)
        out.start(bad)
        out.put(f"store i64 {call}, ptr %where")
        out.put(f"store i64 {OUTSIDE}, ptr %outcome")
        out.jump("outside")
        out.start(good)
        values = [axis_word(out, value, scope) for value in node.axes]
        scalars = [self._scalar_word(out, p, given[p.name], scope) for p in graph.scalar_params]
        params = [*values, *(v for place in places for v in place.valid), *scalars]
        keys = [self._key(out, key, replace(scope, params=params)) for key in self.keys]
        terms = () if id(node) in self.cycles else use.cost
        static = out.datum(sum(term.static for term in terms))
        out.branch(out.every([whole for place in places for whole in place.whole]), full, partial)
        out.start(partial)
        valid = [v for place in places for v in place.valid]
        cost = _cost(out, terms, valid)
        agree = [
            out.value(f"icmp eq i64 {_scaled(out, group[0], valid)}, {_scaled(out, source, valid)}")
            for group in use.agreeing
            for source in group[1:]
        ]
        agree += [out.value(f"icmp ne i64 {_scaled(out, source, valid)}, 0") for source in use.needed]
        out.branch(out.every(agree), write, bad)
        out.start(full)
        out.jump(write)
        out.start(write)
        cycles = out.value(f"phi i64 [{static}, %{full}], [{cost}, %{partial}]")
        tail = out.value(f"phi i8 [0, %{full}], [1, %{partial}]")
        if id(node) in self.cycles:
            cycles = self._given_cycles(out, number, self.cycles[id(node)], replace(scope, params=params))
        added = added_cycles(graph, len(values) + 2 * len(tiles)) if id(node) not in self.cycles else None
        if added is not None:
            more = self._given_cycles(out, number, added, replace(scope, params=params))
            cycles = out.value(f"add i64 {cycles}, {more}")
        row = out.value("load i64, ptr %row")
        kernel = out.value(f"trunc i64 {out.datum(self._numbers[id(graph)])} to i32")
        for column, kind, value in (
            ("kernel", "i32", kernel),
            ("leaf", "i32", out.value(f"trunc i64 {call} to i32")),
            ("tail", "i8", tail),
            ("cycles", "i64", cycles),
        ):
            _put(out, column, kind, row, value)
        for k, key in enumerate(keys):
            first = row if k == 0 else out.value(f"add i64 {row}, {out.value(f'mul i64 %capacity, {k}')}")
            _put(out, "keys", "i64", first, key)
        self.made(out, cycles)
        _put_all(out, "axes", row, values)
        _put_all(out, "args", row, [*(word for place in places for word in place.words), *scalars])
        if self.notes_writes:
            written = {b.tensor for b in tiles if b.param.direction != "in"}
            following = out.value(f"add i64 {row}, 1")
            for place in [self._written(out, tensor) for tensor in sorted(written)]:
                out.put(f"store i64 {following}, ptr {place}")
        _next_row(out, row)
        return out.piece()

    def made(self, out: Lines, cycles: str) -> None:
        """Something else to do for each task; `cycles`: its duration."""

    def _event(self, out: Lines, event: int, leaf: str = "-1", words: Sequence[str] = ()) -> None:
        self.has_events = True
        row = out.value("load i64, ptr %row")
        for column, kind, value in (
            ("kernel", "i32", str(event)),
            ("leaf", "i32", leaf if leaf == "-1" else out.value(f"trunc i64 {leaf} to i32")),
            ("tail", "i8", "0"),
            ("cycles", "i64", "0"),
        ):
            _put(out, column, kind, row, value)
        if words:
            _put_all(out, "args", row, words)
        _next_row(out, row)

    def _given_cycles(self, out: Lines, call: int, expr: Expr, scope: Scope) -> str:
        """Cycles that a user's expression gives, checked."""
        cycles = expressions.emit(out, expr, scope).name
        good, bad = out.label(), out.label()
        out.branch(out.value(f"icmp ule i64 {cycles}, {MOST_CYCLES}"), good, bad)
        self.refuse(out, bad, NO_CYCLES, call)
        out.start(good)
        return cycles

    def _kernel(self, graph: KernelGraph) -> KernelUse:
        if id(graph) not in self.kernels:
            self._numbers[id(graph)] = len(self.kernels)
            self.kernels[id(graph)] = KernelUse.of(graph)
        return self.kernels[id(graph)]

    def _key(self, out: Lines, key: Expr, scope: Scope) -> str:
        value = expressions.emit(out, key, scope)
        return out.value(f"zext i1 {value.name} to i64") if value.type == "bool" else value.name

    # -- run-time inputs

    def _input(self, what: Input) -> int:
        """Position of an input's first word."""
        if what not in self.inputs:
            self.inputs[what] = self._words
            self._words += _input_size(what, self.tensors)
        return self.inputs[what]

    def _symbol(self, out: Lines, name: str, dtype: DType | None = None) -> str:
        return _read(out, self._input(("symbol", name, dtype)))

    # -- tiles

    def _bind(self, param: Param, view: Any, call: tree.TaskCall) -> Binding:
        if not isinstance(view, Tensor):
            what = f"{call.kernel.name}: {param.name} needs a Tensor"
            raise CompileError(f"{what}; got {type(view).__name__}.").at(call.line)
        return bind(param, view, self._number(view), call)

    def _number(self, view: Tensor) -> int:
        """The number of a view's base among the tensors of the workload."""
        base = view.base
        if id(base) not in self._tensor_numbers:
            self._tensor_numbers[id(base)] = len(self.tensors)
            self.tensors.append(base)
        return self._tensor_numbers[id(base)]

    def _tile(self, out: Lines, binding: Binding, scope: Scope) -> _Place:
        """Code that finds the tile in its array."""
        first = self._input(("tensor", binding.tensor))
        rank, tile = len(binding.dims), binding.param.node.tile
        address = _read(out, first)
        checks: list[str] = []
        strides, valid = {"rows": "0", "cols": "0"}, {"rows": "1", "cols": "1"}
        for axis, dim in enumerate(binding.dims):
            stride = _read(out, first + 1 + axis)
            left = _read(out, first + 1 + rank + axis)
            if constant_of(dim.start) != 0 or dim.role == "fixed":
                start, left, inside = start_in(out, dim, left, scope)
                checks.extend(inside)
                address = out.value(f"add i64 {address}, {out.value(f'mul i64 {start}, {stride}')}")
            if dim.role != "fixed":
                size = tile.rows if dim.role == "rows" else tile.cols
                most = out.datum(size if dim.extent is None else min(size, dim.extent))
                strides[dim.role] = stride
                valid[dim.role] = out.value(f"call i64 @llvm.smin.i64(i64 {left}, i64 {most})")
        whole = [
            out.value(f"icmp eq i64 {valid[role]}, {out.datum(size)}")
            for role, size in (("rows", tile.rows), ("cols", tile.cols))
        ]
        words = (address, strides["rows"], strides["cols"], valid["rows"], valid["cols"])
        return _Place(words, (valid["rows"], valid["cols"]), tuple(whole), tuple(checks))

    def _scalar_word(self, out: Lines, param: Param, value: Any, scope: Scope) -> str:
        dtype = param.type.dtype
        if isinstance(value, Symbol):
            return self._symbol(out, value.sym, dtype)
        if isinstance(value, (Expr, LoopVar)):
            return expressions.emit_word(out, expressions.emit(out, value, scope), dtype)
        try:
            return out.datum(expressions.number_word(value, dtype))
        except OverflowError as error:
            raise CompileError(f"scalar {param.name}: {error}.").at(scope.line) from None

    # -- the whole

    def module(self, piece: Piece) -> str:
        """The module's text."""
        lines = [f"define i64 @expand({POINTERS}) {{", *self.opening(), "  %row = alloca i64\n  store i64 0, ptr %row"]
        for kind, name in self.variables():
            lines.append(f"  {name} = alloca {kind}")
        lines += [f"  store i64 0, ptr %var{d}" for d in range(self.depth)]  # reported, also where none is set
        end = "  %rows = load i64, ptr %row\n  store i64 %rows, ptr %rows_at\n  ret i64 0"
        lines += self.closing(finish(piece), end)
        return "\n".join([self.globals(), *lines, ""])

    def globals(self) -> str:
        """What comes before the functions."""
        table = ", ".join(f"i64 {n}" for n in self.constants)
        constants = f"@constants = private constant [{len(self.constants)} x i64] [{table}]\n" if table else ""
        functions = control.TEXT if self.loads or self.axes else ""
        return constants + _DECLARATIONS + control.TELL + functions

    def variables(self) -> list[tuple[str, str]]:
        """Variables that the text of nodes refers to: type and name."""
        per_loop = [("i64", "loop"), ("i64", "count"), ("i64", "var"), ("ptr", "table"), ("i64", "first")]
        per_repeat = [("i64", "step"), ("i64", "steps"), ("ptr", "numbers")]
        return [(kind, f"%{name}{d}") for d in range(self.depth) for kind, name in per_loop] + [
            (kind, f"%{name}{k}") for k in range(self.repeats) for kind, name in per_repeat
        ]

    def opening(self) -> list[str]:
        """The beginning of a function with the parameters POINTERS."""
        lines = []
        for k, column in enumerate(COLUMNS):
            lines.append(f"  %{column}_at = getelementptr ptr, ptr %columns, i64 {k}")
            lines.append(f"  %{column} = load ptr, ptr %{column}_at")
        for k, word in enumerate(("capacity", "axes_width", "args_width")):
            lines.append(f"  %{word}_at = getelementptr i64, ptr %columns, i64 {len(COLUMNS) + k}")
            lines.append(f"  %{word} = load i64, ptr %{word}_at")
        lines.append(f"  %written = getelementptr i64, ptr %control, i64 {control.WRITTEN}\n  %outcome = alloca i64")
        return lines

    def closing(self, text: str, end: str) -> list[str]:
        """The rest of the function: the text of its nodes, the end, and the ways out of the middle."""
        lines = ["  %rows_at = getelementptr i64, ptr %where, i64 1"]
        for d in range(self.depth):
            lines.append(f"  %var{d}_at = getelementptr i64, ptr %where, i64 {2 + d}")
        lines += [text, end, "outside:\n  %left = load i64, ptr %row\n  store i64 %left, ptr %rows_at"]
        for d in range(self.depth):
            lines.append(f"  %at{d} = load i64, ptr %var{d}\n  store i64 %at{d}, ptr %var{d}_at")
        return [*lines, "  %why = load i64, ptr %outcome\n  ret i64 %why", f"stopped:\n  ret i64 {STOPPED}\n}}"]


POINTERS = (
    "ptr noalias %inputs, ptr noalias %columns, ptr %tell, ptr noalias %where, ptr %stop, ptr %control, ptr %axis_data"
)
"""Parameters of the native function."""

_DECLARATIONS = """
declare i64 @llvm.smin.i64(i64, i64)
declare i32 @llvm.umin.i32(i32, i32)
declare i32 @llvm.usub.sat.i32(i32, i32)
declare i64 @llvm.fptoui.sat.i64.f32(float)
declare i64 @llvm.fptoui.sat.i64.f64(double)
declare {i64, i1} @llvm.sadd.with.overflow.i64(i64, i64)
declare {i64, i1} @llvm.ssub.with.overflow.i64(i64, i64)
declare {i64, i1} @llvm.smul.with.overflow.i64(i64, i64)
declare {i64, i1} @llvm.uadd.with.overflow.i64(i64, i64)
declare {i64, i1} @llvm.usub.with.overflow.i64(i64, i64)
declare {i64, i1} @llvm.umul.with.overflow.i64(i64, i64)
"""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tile is, as names of LLVM values."""

    words: tuple[str, ...]  # the tile's argument words
    valid: tuple[str, str]  # rows, columns that the array has
    whole: tuple[str, ...]  # i1s: all rows, all columns are there
    checks: tuple[str, ...]  # i1s: the tile begins inside the array


def _parts(block: tree.Block) -> list[tree.TreeNode]:
    """The nodes of a block that do something; blocks of the same order inside it are dissolved, however deep."""
    parts, left = [], list(reversed(block.children))
    while left:
        child = left.pop()
        if isinstance(child, tree.Block) and (child.parallel is block.parallel or len(child.children) == 1):
            left.extend(reversed(child.children))
        elif not _is_empty(child):
            parts.append(child)
    return parts


def _is_empty(node: tree.TreeNode) -> bool:
    """Can it be seen without running that the node does nothing?"""
    return not _leads_to(node, _DOING)


def _leads_to(node: tree.TreeNode, kinds: tuple[type, ...]) -> bool:
    """Is there a node of these kinds that may be reached?"""
    left = [node]
    while left:
        node = left.pop()
        if isinstance(node, kinds):
            return True
        if isinstance(node, tree.Block):
            left.extend(node.children)
        elif isinstance(node, tree.Cond):
            constant = constant_of(node.pred)
            left.extend((node.then, node.orelse) if constant is None else (node.then if constant else node.orelse,))
        elif isinstance(node, tree.Loop):
            axis = node.axis
            if axis != () and (not isinstance(axis, (int, Dense)) or _size(axis) > 0):
                left.append(node.body)
    return False


def _size(axis: int | Dense) -> int:
    return axis if isinstance(axis, int) else axis.size


def _input_size(what: Input, tensors: Sequence[Tensor]) -> int:
    """Words that an input takes: one, or address, strides and extents of a tensor's array."""
    return 1 + 2 * len(tensors[what[1]].shape) if what[0] == "tensor" else 1


def _read(out: Lines, position: int) -> str:
    """Load a run-time input."""
    place = out.value(f"getelementptr i64, ptr %inputs, i64 {out.datum(position)}")
    return out.value(f"load i64, ptr {place}")


def axis_word(out: Lines, value: Any, scope: Scope) -> str:
    """A value in kernel[...]: a string is its hash, a float is truncated."""
    if isinstance(value, (Expr, LoopVar)):
        found = expressions.emit(out, value, scope)
        return out.value(f"zext i1 {found.name} to i64") if found.type == "bool" else found.name
    return out.datum(signed(fnv1a_64(value) if isinstance(value, str) else int(value)))


def _scaled(out: Lines, source: Source, valid: Sequence[str]) -> str:
    """The run-time extent that a source names."""
    extent = valid[2 * source.param + source.axis]
    if source.den != 1:
        extent = out.value(f"udiv i64 {extent}, {source.den}")
    return extent if source.num == 1 else out.value(f"mul i64 {extent}, {source.num}")


def _cost(out: Lines, cost: Sequence[CostTerm], valid: Sequence[str]) -> str:
    """Cycles of a task with partial tiles."""
    total = "0"
    for term in cost:
        cycles = out.datum(term.coefficient)
        for extent in term.extents:
            factor = _scaled(out, extent.sources[0], valid) if extent.sources else out.datum(extent.static)
            cycles = out.value(f"mul i64 {cycles}, {factor}")
        total = out.value(f"add i64 {total}, {cycles}")
    return total


def _put(out: Lines, column: str, kind: str, row: str, value: str) -> None:
    place = out.value(f"getelementptr {kind}, ptr %{column}, i64 {row}")
    out.put(f"store {kind} {value}, ptr {place}")


def _put_all(out: Lines, column: str, row: str, values: Sequence[str]) -> None:
    """Fill the first entries of one row of a two-dimensional column."""
    first = out.value(f"mul i64 {row}, %{column}_width")
    start = out.value(f"getelementptr i64, ptr %{column}, i64 {first}")
    for k, value in enumerate(values):
        out.put(f"store i64 {value}, ptr {out.value(f'getelementptr i64, ptr {start}, i64 {k}')}")


def _next_row(out: Lines, row: str) -> None:
    """Count the row just written; hand a full table over."""
    flush, after = out.label(), out.label()
    following = out.value(f"add nuw nsw i64 {row}, 1")
    out.put(f"store i64 {following}, ptr %row")
    out.branch(out.value(f"icmp eq i64 {following}, %capacity"), flush, after)
    out.start(flush)
    refused = out.value(f"call i64 @tell(ptr %control, ptr %tell, i64 {control.FLUSH}, i64 {following})")
    out.put("store i64 0, ptr %row")
    out.branch(out.value(f"icmp eq i64 {refused}, 0"), after, "stopped")
    out.start(after)
