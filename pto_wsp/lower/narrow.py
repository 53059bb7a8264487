"""Narrow tiles: rows of a few columns, 16 rows at a time, one lane a row.

A row of four elements fills a quarter of a vector, and its sum takes a tree of its own. Where rows lie one behind the
other, 16 of them are as many whole vectors as there are columns; shuffled, each vector is a column. Then every value is
a vector for each of its columns, row scalars and reductions too: those are a tree of whole vectors, in the order of
`reductions.across`. Start reading at `write_narrow`.
"""

from __future__ import annotations

from typing import Any

from pto_wsp.lower import ir
from pto_wsp.lower.algebra import Lanes, compute_dtype
from pto_wsp.lower.lanes import Lane, first_lanes
from pto_wsp.lower.loops import LANES, RowNest, cost_of
from pto_wsp.lower.operands import View
from pto_wsp.lower.reductions import Reductions
from pto_wsp.lower.rules import RULES, Leaf, Map, Reduce
from pto_wsp.lower.vectors import I32, I64
from pto_wsp.trace.graph import Node
from pto_wsp.types import DType

__all__ = ["is_narrow", "write_narrow"]

MOST_COLUMNS = 8    # half of a vector's lanes: a row of more fills most of one by itself
FEWEST_ROWS = 4     # fewer leave most lanes without a row
MOST_COST = 400     # vector instructions, roughly, of 16 rows: they are written beside the loop over single rows


def is_narrow(w: Reductions, nest: RowNest) -> bool:
    """Can lanes run along its rows? Shuffles of any order take one instruction with vectors of 512 bits only."""
    if w.tail or nest.flipped or nest.rows.static < FEWEST_ROWS:
        return False
    tiles = [o.tile for n in nest.nodes for o in (n, *n.operands) if o.is_tile]
    widths = {tile.cols for tile in tiles}
    if not 1 < max(widths) <= MOST_COLUMNS or any(tile.rows not in (1, nest.rows.static) for tile in tiles):
        return False
    if any(width & (width - 1) for width in widths) and w.target.vector_bits < 512:
        return False
    if sum(cost_of(n) * max(o.tile.cols for o in (n, *n.operands) if o.is_tile) for n in nest.nodes) > MOST_COST:
        return False
    rules = [RULES[n.op.name] for n in nest.nodes]
    return all(isinstance(r, (Map, Leaf)) or isinstance(r, Reduce) and r.axis == 1 for r in rules)


def write_narrow(w: Reductions, index: int, nest: RowNest) -> None:
    """The nest, if its rows touch: 16 rows at a time, then those that are left."""
    whole = nest.rows.static // LANES * LANES
    if whole:
        with w.loop(I64(0), I64(whole), LANES) as first:
            _Step(w, index, first, LANES).write(nest)
    if whole < nest.rows.static:
        _Step(w, index, I64(whole), nest.rows.static - whole).write(nest)


class _Step:
    """Some rows, one lane a row; `first` is the first one's index."""

    def __init__(self, w: Reductions, index: int, first: Any, count: int):
        self.w, self.k, self.index, self.first, self.count = w, w.wide, index, first, count
        self.known: dict[int, list[Lanes]] = {}     # id(value) -> a vector for each column

    def write(self, nest: RowNest) -> None:
        """Everything is read before anything is written."""
        w, results = self.w, []
        for node in nest.nodes:
            if node.op.name == "store":
                results.append((w.writes[id(node)], node.operands[0].tile.dtype, self.columns(node.operands[1])))
            elif id(node) in w.program.buffers:
                buffer = w.program.buffers[id(node)]
                results.append((w.buffer_view(buffer), buffer.dtype, self.columns(node)))
        for view, dtype, columns in results:
            self.put(view, dtype, columns)

    # ---- values ----------------------------------------------------------------------------------------------------

    def columns(self, node: Node) -> list[Lanes]:
        """A vector for each column of a value, in its compute dtype; scalars and rows are the same in all lanes."""
        if id(node) not in self.known:
            self.known[id(node)] = self.computed(node)
        return self.known[id(node)]

    def computed(self, node: Node) -> list[Lanes]:
        w, k, rule = self.w, self.k, RULES[node.op.name]
        if not node.is_tile:
            scalar = w.scalars[id(node)]
            return [k.splat(scalar.ir, scalar.dtype) if scalar.number is None else k.const(scalar.number, scalar.dtype)]
        elsewhere = id(node) in w.program.buffers and w.home[id(node)] != self.index
        if elsewhere or node.op.name == "load":
            view, dtype = w.memory_of(node)
            return self.repeated(view, dtype, node) if node.tile.rows == 1 else self.taken(view, dtype, node.tile.cols)
        if node.op.name == "iota_u32":
            return [k.const(col, DType.U32) for col in range(node.tile.cols)]
        if isinstance(rule, Leaf):
            return [k.const(0, compute_dtype(node.tile.dtype))] * node.tile.cols
        if isinstance(rule, Reduce):
            return [self.reduced(node, rule, self.columns(node.operands[0]))]
        operands = [self.columns(o) for o in node.operands]
        return [w.apply(k, node, [o[col % len(o)] for o in operands]) for col in range(node.tile.cols)]

    def reduced(self, node: Node, rule: Reduce, columns: list[Lanes]) -> Lanes:
        """The tree of a row's 16 lanes, of which only the first ones have something in them."""
        dtype = node.tile.dtype
        parts = [rule.body(self.k, self.k.const(rule.start(dtype), dtype), self.k.convert(x, dtype)) for x in columns]
        width = LANES
        while width > 1:
            width //= 2
            parts = [rule.body(self.k, *parts[i::width]) if i + width < len(parts) else x
                     for i, x in enumerate(parts[:width])]
        return self.w.finished(self.k, RULES[node.op.name], node, parts[0])

    # ---- memory ----------------------------------------------------------------------------------------------------

    def vectors_of(self, view: View, dtype: DType, columns: int) -> list[tuple[Any, Lane]]:
        """Where the rows' elements are, 16 in each vector, and which of those exist."""
        w, size, found = self.w, dtype.itemsize, []
        start = w.move(view.address, w.build.mul(self.first, I64(columns * size)))
        for at in range(0, LANES * columns, LANES):
            lane, left = Lane(self.k, self.index, 0, None), min(max(self.count * columns - at, 0), LANES)
            if left < LANES:
                lane.mask, lane.count = first_lanes(left), I64(left)
            found.append((w.move(start, I64(at * size)), lane))
        return found

    def taken(self, view: View, dtype: DType, columns: int) -> list[Lanes]:
        """The columns of a tile in memory."""
        vectors = [self.w.load_lanes(lane, here, dtype).ir for here, lane in self.vectors_of(view, dtype, columns)]
        return [self.k.widen(Lanes(x, dtype)) for x in self.unzipped(vectors)]

    def repeated(self, view: View, dtype: DType, node: Node) -> list[Lanes]:
        """The columns of one row, the same in all lanes."""
        found = []
        for col in range(node.tile.cols):
            x = self.w.one.widen(self.w.one.load(self.w.move(view.address, I64(col * dtype.itemsize)), dtype))
            found.append(self.k.splat(x.ir, x.dtype))
        return found

    def put(self, view: View, dtype: DType, columns: list[Lanes]) -> None:
        vectors = self.zipped([self.k.convert(x, dtype).ir for x in columns])
        for x, (here, lane) in zip(vectors, self.vectors_of(view, dtype, len(columns)), strict=True):
            self.w.store_lanes(lane, Lanes(x, dtype), here, dtype)

    # ---- shuffles --------------------------------------------------------------------------------------------------

    def unzipped(self, vectors: list[Any]) -> list[Any]:
        """Columns from vectors of rows that lie one behind the other: every second element first, if that divides."""
        n = len(vectors)
        if n == 1:
            return vectors
        if n % 2:
            return [self.picked(vectors, [divmod(row * n + col, LANES) for row in range(LANES)]) for col in range(n)]
        halves = [self.unzipped([self.shuffled(x, y, range(odd, 2 * LANES, 2))
                                 for x, y in zip(vectors[::2], vectors[1::2], strict=True)]) for odd in (0, 1)]
        return [x for pair in zip(*halves, strict=True) for x in pair]

    def zipped(self, columns: list[Any]) -> list[Any]:
        """The other way round."""
        n = len(columns)
        if n == 1:
            return columns
        if n % 2:
            places = [divmod(at, n) for at in range(LANES * n)]
            return [self.picked(columns, [(col, row) for row, col in places[at : at + LANES]])
                    for at in range(0, LANES * n, LANES)]
        halves = [self.zipped(columns[odd::2]) for odd in (0, 1)]
        turns = [lane // 2 + lane % 2 * LANES for lane in range(2 * LANES)]
        return [self.shuffled(x, y, turns[at : at + LANES]) for x, y in zip(*halves, strict=True) for at in (0, LANES)]

    def picked(self, vectors: list[Any], places: list[tuple[int, int]]) -> Any:
        """Lanes from anywhere: places says which vector's and which lane's."""
        result = vectors[0]
        for number, x in enumerate(vectors):
            if number:
                lanes = [LANES + lane if which == number else i for i, (which, lane) in enumerate(places)]
                if number == 1:
                    lanes = [lane + LANES * which if which < 2 else 0 for which, lane in places]
                result = self.shuffled(result, x, lanes)
        return result

    def shuffled(self, x: Any, y: Any, lanes: Any) -> Any:
        return self.w.build.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, LANES), list(lanes)))
