"""A workload tree walked in plain Python: the rows that the native expander has to write, written once more.

It shares nothing with the expander but the tree, `Expr.evaluate`, and the kernel graph's own cost terms.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pto_wsp.scalar_expr import Expr, LoopVar, as_expr, fnv1a_64
from pto_wsp.trace import tree
from pto_wsp.trace.extents import extents_of
from pto_wsp.types import Dense, DenseDyn, Index, Ragged, RaggedRow, Sparse, SparseRow, Symbol

WORD = 1 << 64


class Outside(Exception):
    """A tile of this task does not lie inside its array."""


class LoadOutside(Exception):
    """The element for a slot does not lie inside its array."""


class NoRow(Exception):
    """An axis has no such row."""


def signed(word: int) -> int:
    word %= WORD
    return word - WORD if word >> 63 else word


@dataclass
class Walk:
    """The walk, and the environment of its expressions."""

    sizes: Mapping[Any, int] = field(default_factory=dict)
    symbols: Mapping[str, int] = field(default_factory=dict)
    key: Expr | None = None
    loops: list[tuple[LoopVar, int]] = field(default_factory=list)
    params: list[int] = field(default_factory=list)
    decided: list[bool | int] = field(default_factory=list)  # by conditions, and trip counts of rows, in program order
    slots: list[int] = field(default_factory=lambda: [0] * 256)

    # Environment
    def loop(self, var: LoopVar) -> int:
        return next(value for v, value in reversed(self.loops) if v is var)

    def axis(self, name: str) -> int | None:
        return next((value for v, value in reversed(self.loops) if v.name == name), None)

    def symbol(self, name: str) -> int:
        return self.symbols.get(name, 0)

    def slot(self, index: int) -> int:
        return self.slots[index]

    def param(self, index: int) -> int:
        return signed(self.params[index]) if index < len(self.params) else 0

    def value(self, x: Any) -> int:
        return int(as_expr(x).evaluate(self)) if isinstance(x, (Expr, LoopVar)) else int(x)

    def exact(self, x: Any) -> int:
        """The value over the integers: Outside when 64 bits do not hold a sum or product on the way to an index."""
        if not isinstance(x, (Expr, LoopVar)):
            return int(x)
        e = as_expr(x)
        if e.kind == "binary" and e.a in ("+", "-", "*"):
            a, b = self.exact(e.b), self.exact(e.c)
            found = a + b if e.a == "+" else a - b if e.a == "-" else a * b
        elif e.kind == "unary" and e.a == "-":
            found = -self.exact(e.b)
        elif e.kind == "ternary":
            found = self.exact(e.b if e.a.evaluate(self) else e.c)
        elif e.kind == "cast" and e.a.type != "bool":
            self.exact(e.a)
            found = self.value(e)
        else:
            found = self.value(e)
        if found != self.value(e):
            raise Outside
        return found

    # Rows
    def rows(self, node: Any) -> Iterator[Any]:
        """Tasks as dicts, in program order."""
        if isinstance(node, tree.TaskCall):
            yield self.task(node)
        elif isinstance(node, tree.Block):
            for child in node.children:
                yield from self.rows(child)
        elif isinstance(node, tree.Cond):
            self.decided.append(bool(self.value(node.pred)))
            yield from self.rows(node.then if self.decided[-1] else node.orelse)
        elif isinstance(node, tree.SlotSet):
            self.slots[node.slot] = node.value
        elif isinstance(node, tree.SlotLoad):
            self.slots[node.slot] = self.loaded(node)
        else:
            values = self.values(node)
            if isinstance(node.axis, (RaggedRow, SparseRow)):
                self.decided.append(len(values))
            for value in values:
                self.loops.append((node.var, value))
                yield from self.rows(node.body)
                self.loops.pop()

    def values(self, node: tree.Loop) -> Any:
        axis = node.axis
        if isinstance(axis, DenseDyn):
            return range(self.sizes.get(node, axis.size))
        if isinstance(axis, Ragged):
            return range(sum(axis.lengths.tolist()))
        if isinstance(axis, Sparse):
            return axis.indices[axis.indptr[0] : axis.indptr[-1]].tolist()
        if isinstance(axis, (RaggedRow, SparseRow)):
            whole = axis.ragged if isinstance(axis, RaggedRow) else axis.sparse
            try:
                row = self.exact(axis.row)
            except Outside:
                raise NoRow from None
            if not 0 <= row < whole.outer_size:
                raise NoRow
            return range(whole.lengths[row]) if isinstance(axis, RaggedRow) else whole[row]
        return axis if isinstance(axis, tuple) else range(axis.size if isinstance(axis, Dense) else axis)

    def end(self, node: Any, ready: int, tasks: Iterator[Any]) -> int:
        """When the node is complete if every task starts as soon as it may; notes each task's start in its dict."""
        if isinstance(node, tree.TaskCall):
            task = next(tasks)
            task["ready"] = ready
            return int(ready + task["cycles"])
        if isinstance(node, tree.Cond):
            return self.end(node.then if self.decided.pop(0) else node.orelse, ready, tasks)
        if isinstance(node, (tree.SlotSet, tree.SlotLoad)):
            return ready
        parts: list[Any] = list(node.children) if isinstance(node, tree.Block) else []
        if isinstance(node, tree.Loop):
            by_row = isinstance(node.axis, (RaggedRow, SparseRow))
            parts = [node.body] * (self.decided.pop(0) if by_row else len(self.values(node)))
        done = ready
        for part in parts:
            end = self.end(part, ready if node.parallel else done, tasks)
            done = max(done, end) if node.parallel else end
        return done

    def task(self, call: tree.TaskCall) -> dict[str, Any]:
        graph, given = call.kernel.graph_for(dict(call.args)), dict(call.args)
        words, valid, tail = [], [], False
        for param in graph.tile_params:
            found = self.tile(given[param.name], param.node.tile.rows, param.node.tile.cols)
            words += found
            valid += found[3:]
            tail = tail or found[3:] != [param.node.tile.rows, param.node.tile.cols]
        for group in extents_of(graph).constraints():
            if len({s.value(valid[2 * s.param + s.axis]) for s in group}) > 1:
                raise Outside
        axes = [signed(fnv1a_64(a) if isinstance(a, str) else self.value(a)) for a in call.axes]
        scalars = [self.scalar(given[p.name], p.type.dtype) for p in graph.scalar_params]
        self.params = [*axes, *valid, *scalars]
        cycles = 0
        for term in graph.cycles():
            part = term.coefficient
            for extent in term.extents:
                s = extent.sources[0] if extent.sources else None
                part *= s.value(valid[2 * s.param + s.axis]) if s else extent.static
            cycles += part
        key = self.value(self.key) % WORD if self.key is not None else 0
        return {"call": call, "axes": axes, "args": words + scalars, "cycles": cycles, "key": key, "tail": tail}

    def loaded(self, node: tree.SlotLoad) -> int:
        try:
            return self.element(node)
        except Outside:  # an index that 64 bits do not hold
            raise LoadOutside from None

    def element(self, node: tree.SlotLoad) -> int:
        """The element, by indexing the array as NumPy would."""
        array = node.tensor.base.array()
        offsets = [self.exact(node.row), self.exact(node.col)]
        at = []
        for d, entry in enumerate(node.tensor.window):
            start = self.exact(entry.at if isinstance(entry, Index) else entry.start)
            low, high = (0, array.shape[d]) if entry.within is None else (self.exact(b) for b in entry.within)
            if not isinstance(entry, Index):
                offset = offsets.pop(0) if offsets else 0
                whole = entry == type(entry)(0, node.tensor.base.shape[d])
                if not 0 <= offset < (array.shape[d] if whole else entry.extent):
                    raise LoadOutside
                start += offset
            if not max(low, 0) <= start < min(high, array.shape[d]):
                raise LoadOutside
            at.append(start)
        value = array[tuple(at)].item()
        if isinstance(value, float):
            return 0 if not value > 0 else min(int(value), WORD - 1) if value < math.inf else WORD - 1
        return int(value) % WORD

    def tile(self, view: Any, rows: int, cols: int) -> list[int]:
        """Address, strides, valid extents, by slicing the array as NumPy would."""
        array = view.base.array()
        sizes = list(array.shape)
        address = array.ctypes.data
        kept = []
        for d, entry in enumerate(view.window):
            at = self.exact(entry.at if isinstance(entry, Index) else entry.start)
            low, high = (0, sizes[d]) if entry.within is None else (self.exact(b) for b in entry.within)
            last = 1 if isinstance(entry, Index) else 0
            if not (0 <= at <= sizes[d] - last and low <= at <= high - last):
                raise Outside
            address += at * array.strides[d]
            if not isinstance(entry, Index):
                whole = entry == type(entry)(0, view.base.shape[d])
                left = min(sizes[d], high) - at
                kept.append((left if whole else min(left, entry.extent), array.strides[d]))
        kept = kept[-2:]
        if len(kept) == 2:
            (r, rs), (c, cs) = kept
        elif len(kept) == 1:
            (r, rs), (c, cs) = ((1, 0), kept[0]) if rows == 1 else (kept[0], (1, 0))
        else:
            (r, rs), (c, cs) = (1, 0), (1, 0)
        return [address, rs, cs, min(r, rows), min(c, cols)]

    def scalar(self, value: Any, dtype: Any) -> int:
        if isinstance(value, Symbol):
            word = self.symbols.get(value.sym, 0)
            value = struct.unpack("<f", struct.pack("<I", word % (1 << 32)))[0] if dtype.is_float else word
        elif isinstance(value, (Expr, LoopVar)):
            value = self.value(value)
        if dtype.is_float:
            with np.errstate(over="ignore"):
                exact = isinstance(value, float) or dtype.bits == 64
                data = np.array([value], np.float64 if exact else np.float32).astype(dtype.numpy).tobytes()
            return int.from_bytes(data, "little") if dtype.bits < 64 else signed(int.from_bytes(data, "little"))
        low = int(value) % (1 << dtype.bits)
        return low - (1 << dtype.bits) if dtype.is_signed and low >> (dtype.bits - 1) else signed(low)
