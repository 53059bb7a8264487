"""Valid extents: how many rows and columns of each tile value hold data when a tile lies over the end of an axis.

Full tiles have their static extents. For the others, extents flow from the parameters through the ops
(execution.md 5): the dimensions that an op requires to agree form one class, and a class that several parameters
bound has to be bound alike in every task. Start reading at `extents_of`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from pto_wsp.trace import ops
from pto_wsp.trace.graph import KernelGraph, Node

Key = tuple[int, int]                           # (id(node), axis)


@dataclass(frozen=True, slots=True, order=True)
class Source:
    """A run-time extent: valid rows (axis 0) or columns (axis 1) of tile parameter `param`, as `value` computes it.

    `param` counts tile parameters in signature order. `num` and `den` are powers of two.
    """

    param: int
    axis: int
    num: int = 1
    den: int = 1

    def value(self, valid: int) -> int:
        """The extent when the parameter's is `valid`."""
        return valid // self.den * self.num

    def halved(self) -> Source:
        """value // 2"""
        if self.num > 1:
            return Source(self.param, self.axis, self.num // 2, self.den)
        return Source(self.param, self.axis, 1, self.den * 2)

    def doubled(self) -> Source:
        """value * 2"""
        return Source(self.param, self.axis, self.num * 2, self.den)


@dataclass(frozen=True, slots=True)
class Extent:
    """Extent of one dimension: its static size, and where its valid size comes from (empty: always the static size)."""

    static: int
    sources: tuple[Source, ...] = ()


@dataclass(frozen=True, slots=True)
class CostTerm:
    """Cycles = coefficient × the product of the extents; `static` is its value for full tiles."""

    coefficient: int
    extents: tuple[Extent, ...]

    @property
    def static(self) -> int:
        cycles = self.coefficient
        for extent in self.extents:
            cycles *= extent.static
        return cycles


class Extents:
    """The extent of every dimension of every tile value of a graph."""

    def __init__(self, graph: KernelGraph) -> None:
        self._static: dict[Key, int] = {}
        self._members: dict[Key, set[Source]] = {}              # by representative of a class
        for node in graph.nodes:
            if node.is_tile:
                for axis, size in enumerate((node.tile.rows, node.tile.cols)):
                    self._static[id(node), axis] = size
        for index, param in enumerate(graph.tile_params):
            for axis in (0, 1):
                self._members.setdefault((id(param.node), axis), set()).add(Source(index, axis))
        self._same: dict[Key, Key] = {}                         # a dimension -> another of its class
        self._derived: list[tuple[Key, Key, Callable[[Source], Source]]] = []
        for node in graph.nodes:
            if node.operands and (node.is_tile or node.op.name == "store"):
                RULES[node.op.infer](self, node)
        self._settle()

    def same(self, a: Node, axis_a: int, b: Node, axis_b: int) -> None:
        """The two dimensions have one valid extent."""
        ra, rb = self._find((id(a), axis_a)), self._find((id(b), axis_b))
        if ra != rb:
            self._same[rb] = ra
            self._members.setdefault(ra, set()).update(self._members.pop(rb, ()))

    def scaled(self, node: Node, axis: int, origin: Node, origin_axis: int, scale: Callable[[Source], Source]) -> None:
        """The dimension's valid extent is made from origin's by `scale`."""
        self._derived.append(((id(node), axis), (id(origin), origin_axis), scale))

    def of(self, node: Node, axis: int) -> Extent:
        static = self._static[id(node), axis]
        if static == 1:
            return Extent(1)                                    # never partial, see needed()
        return Extent(static, tuple(sorted(self._members.get(self._find((id(node), axis)), ()))))

    def constraints(self) -> tuple[tuple[Source, ...], ...]:
        """Groups of run-time extents that must be equal in every task."""
        return tuple(sorted(tuple(sorted(group)) for key, group in self._members.items()
                            if len(group) > 1 and self._static[key] > 1))

    def needed(self) -> tuple[Source, ...]:
        """Run-time extents that must not be 0 in any task: dimensions of one element are whole, never partial.

        Ops repeat such an element over other tiles, and what a [rows, 1] tile holds is one number per row.
        """
        return tuple(sorted({s for key, group in self._members.items() if self._static[key] == 1 for s in group}))

    def _find(self, key: Key) -> Key:
        """The class that a dimension belongs to, by its representative; shortens the way there for the next time."""
        while key in self._same:
            above = self._same[key]
            if above in self._same:
                self._same[key] = self._same[above]
            key = above
        return key

    def _settle(self) -> None:
        """Carry sources from every dimension to those derived from it, until nothing changes.

        Ops are in SSA order, so one pass is enough unless a class holds both ends of a derivation. It ends because
        the halves and doubles of a source are few: value(v) never exceeds the static extent of its class.
        """
        changed = True
        while changed:
            changed = False
            for key, origin, scale in self._derived:
                here = self._members.setdefault(self._find(key), set())
                made = {scale(source) for source in self._members.get(self._find(origin), ())} - here
                if made:
                    here |= made
                    changed = True


MADE_WHOLE = frozenset({"alloc", "iota_u32"})
"""Ops that make a tile from nothing: all of it is there, and element by element users take as much as they need."""


def _elementwise(extents: Extents, node: Node) -> None:
    """Every operand dimension that is not broadcast has the result's extent."""
    for operand in node.operands:
        if operand.is_tile and operand.op.name not in MADE_WHOLE:
            for axis in (0, 1):
                ours, theirs = (node.tile.rows, node.tile.cols)[axis], (operand.tile.rows, operand.tile.cols)[axis]
                if ours == theirs:
                    extents.same(node, axis, operand, axis)


def _rows(extents: Extents, node: Node) -> None:
    extents.same(node, 0, node.operands[0], 0)


def _columns(extents: Extents, node: Node) -> None:
    extents.same(node, 1, node.operands[0], 1)


def _store(extents: Extents, node: Node) -> None:
    dst, src = node.operands
    if src.op.name not in MADE_WHOLE:
        for axis in (0, 1):
            extents.same(dst, axis, src, axis)


def _matmul(extents: Extents, node: Node) -> None:
    a, b = node.operands[:2]
    extents.same(a, 1, b, 0)
    extents.same(node, 0, a, 0)
    extents.same(node, 1, b, 1)
    for acc in node.operands[2:]:
        extents.same(node, 0, acc, 0)
        extents.same(node, 1, acc, 1)


def _half(extents: Extents, node: Node) -> None:
    _rows(extents, node)
    extents.scaled(node, 1, node.operands[0], 1, Source.halved)


def _double(extents: Extents, node: Node) -> None:
    a, b = node.operands
    extents.same(a, 0, b, 0)
    extents.same(a, 1, b, 1)
    _rows(extents, node)
    extents.scaled(node, 1, a, 1, Source.doubled)


def _swap(extents: Extents, node: Node) -> None:
    extents.same(node, 0, node.operands[0], 1)
    extents.same(node, 1, node.operands[0], 0)


def _fixed(extents: Extents, node: Node) -> None:
    """Sizes do not depend on the operands'."""


RULES: dict[ops.Infer, Callable[[Extents, Node], None]] = {
    ops.broadcast_type: _elementwise, ops.float_broadcast_type: _elementwise, ops.select_type: _elementwise,
    ops.mask_type: _elementwise, ops.same_type: _elementwise, ops.float_type: _elementwise, ops.converted: _elementwise,
    ops.per_row: _elementwise, ops.per_column: _elementwise, ops.broadcast_to: _elementwise,
    ops.one_column: _rows, ops.mean_column: _rows, ops.one_row: _columns, ops.mean_row: _columns,
    ops.stored: _store, ops.matmul_type: _matmul, ops.half_columns: _half, ops.double_columns: _double,
    ops.swapped: _swap, ops.sorted_pairs: _fixed, ops.top_indices: _fixed,
}


_known: WeakKeyDictionary[KernelGraph, Extents] = WeakKeyDictionary()


def is_elementwise(node: Node) -> bool:
    """Does each element of the result depend on the elements at its own place (or a broadcast one) only?"""
    return RULES.get(node.op.infer) is _elementwise


def extents_of(graph: KernelGraph) -> Extents:
    """The extents of all tile values of `graph`; worked out once."""
    if graph not in _known:
        _known[graph] = Extents(graph)
    return _known[graph]


def cycles_of(graph: KernelGraph) -> tuple[CostTerm, ...]:
    """Cycles of one task: the sum of the rows' cycle rules, equal terms joined."""
    users: dict[int, list[Node]] = {id(n): [] for n in graph.nodes}
    for node in graph.nodes:
        for operand in node.operands:
            users[id(operand)].append(node)
    extents = extents_of(graph)
    total: Counter[tuple[Extent, ...]] = Counter()
    for node in graph.nodes:
        for coefficient, dims in node.op.cycles(node, users[id(node)]):
            found = tuple(extents.of(value, axis) for value, axis in dims)
            if any(e.sources for e in found):
                total[found] += coefficient
            else:
                total[()] += CostTerm(coefficient, found).static
    if graph.custom is not None and graph.custom.cycles is None:
        for param in graph.tile_params:  # what the tiles of a custom body cost to load and to store
            total[extents.of(param.node, 0), extents.of(param.node, 1)] += 1 + (param.direction == "inout")
    return tuple(CostTerm(coefficient, dims) for dims, coefficient in total.items() if coefficient)
