"""Loop programs: a kernel as loop nests over named memory, ready to be written as machine code.

In: a simplified KernelGraph, planned by `fuse.py`.  Out: what `llvm.py` writes down, and a text for people.

A row nest is one loop over rows; in a row, stages run one after another. A stage is a loop over the columns, 16 lanes
at a time, and then row scalars, which are the [rows, 1] values: a reduction of stage 1 is a scalar that stage 2 uses.
With row scalars, rows go through the stages in blocks: a stage runs over all rows of its block, and their scalars are
computed side by side, one lane a row. Where passes and scalars are cheap, each pass runs a few rows behind the last.
A value lives in registers inside its stage. Used by a later stage of the row it is computed again when that is cheaper
than memory, else it goes through a row buffer; used by another nest, through a tile buffer. Kernels of many hundred ops
become several nests and functions, so that compiling takes no more time per op than for small ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pto_wsp.lower.rules import OF_ABSOLUTES, RULES, Interleave, Map, Reduce
from pto_wsp.trace.extents import Extent, Extents
from pto_wsp.trace.graph import KernelGraph, Node
from pto_wsp.types import DType

LANES = 16  # elements per step
APART = 2  # rows from one pass to the next in a skewed nest: time for the scalars between them
LONGEST = 512  # vector instructions of a nest, roughly, and of a function: LLVM's register allocation is quadratic
ACCUMULATORS = 4  # of LANES each, for a row reduction: steps take turns; part of the numerics (see ops.rowsum)


@dataclass(frozen=True, eq=False)
class Buffer:
    """Scratch memory for one value: [rows, cols] of `dtype`, rows `pitch` bytes apart, at byte `offset`."""

    name: str
    dtype: DType
    rows: int
    cols: int
    offset: int = -1

    @property
    def pitch(self) -> int:
        return self.cols * self.dtype.itemsize

    @property
    def bytes(self) -> int:
        return self.rows * self.pitch


@dataclass
class Stage:
    """One pass over the columns of a row, and the row scalars that follow it."""

    cols: Extent
    nodes: list[Node] = field(default_factory=list)  # in order; reductions accumulate, stores write
    scalars: list[Node] = field(default_factory=list)  # [rows, 1] values computed after the pass
    loads: list[Node] = field(default_factory=list)  # parameter loads the pass needs, read before its stores
    first: int = 0  # the column that it begins with

    @property
    def cost(self) -> int:
        """Vector instructions of a step, roughly."""
        return sum(cost_of(n) for n in self.nodes)


_NOT_MAPPED = 4  # instructions of a reduction, a shuffle and the like
_ROUNDING = {DType.F16: 2, DType.BF16: 6}  # instructions that round a result, which is computed in f32


def cost_of(node: Node) -> int:
    """Vector instructions of a step that computes `node`, roughly."""
    rule = RULES[node.op.name]
    if not isinstance(rule, Map):
        return _NOT_MAPPED
    rounding = 0 if rule.on_bits or node.type is None else _ROUNDING.get(node.type.dtype, 0)
    return 1 + rule.cost + rounding


@dataclass
class RowNest:
    """A loop over rows. `flipped`: every value is one column, and the lanes run along the rows instead. The sum of a
    column is then in the order of a row's.

    The row scalars of a `block` of several rows are computed side by side, in lanes. `skewed`: instead, each pass runs
    APART rows behind the pass before it, so that a row's scalars are ready when they are needed.
    """

    rows: Extent
    flipped: bool = False
    block: int = 1  # rows that go through a pass, and then the next one, together; skewed: rows that are under way
    skewed: bool = False
    before: list[Node] = field(default_factory=list)  # row scalars that need no pass
    stages: list[Stage] = field(default_factory=list)

    @property
    def nodes(self) -> list[Node]:
        return self.before + [n for stage in self.stages for n in stage.nodes + stage.scalars]


@dataclass
class WholeNest:
    """One op that works on memory: matmul, transpose, sort. `store` is the store that its result goes straight to."""

    node: Node
    store: Node | None = None

    @property
    def nodes(self) -> list[Node]:
        return [self.node] if self.store is None else [self.node, self.store]


Nest = RowNest | WholeNest


def reduce_rule(node: Node) -> Reduce:
    """How a reduction is computed."""
    rule = RULES[node.op.name]
    assert isinstance(rule, Reduce)
    if node.operands[0].op.name == "abs" and node.tile.dtype.is_float:
        return OF_ABSOLUTES.get(node.op.name, rule)
    return rule


def in_lanes(node: Node) -> bool:
    """Is it a reduction of what lies in the lanes of a pass: of a row, or of a tile that is one column?"""
    rule = RULES[node.op.name]
    return isinstance(rule, Reduce) and (rule.axis == 1 or node.operands[0].tile.cols == 1)


def reduce_cost(node: Node) -> int:
    """Vector instructions for one element of a reduction: integers have no NaN to look after."""
    return reduce_rule(node).cost if node.tile.dtype.is_float else 1


@dataclass(frozen=True)
class Hazard:
    """Memory that a load must not see changed: `store` writes while values of the load are still to be read.

    `pointwise`: harmless when both are the very same view, since each element is read before it is written.
    """

    store: Node
    pointwise: bool


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A load that may have to be copied to `buffer` before nest `nest`, the first of those up to `last` that read it:
    because its lanes are apart in memory (asked only if lanes read it), or because a store may change it too early."""

    nest: int
    last: int
    buffer: Buffer
    hazards: tuple[Hazard, ...]
    lanes: bool


@dataclass
class LoopProgram:
    """The nests of a kernel in order, and where its values live between them."""

    graph: KernelGraph
    extents: Extents
    nests: list[Nest]
    buffers: dict[int, Buffer]  # id(node) -> its value in memory
    row_buffers: dict[int, Buffer]  # id(node) -> its value in memory, this row only
    snapshots: dict[int, Snapshot]  # by id(load)
    staging: dict[int, Buffer]  # id(store) -> where it goes if its view cannot take it yet
    scratch_bytes: int = 0

    def __str__(self) -> str:
        return "\n".join(_lines(self)) + "\n"


def _lines(program: LoopProgram) -> list[str]:
    graph = program.graph
    number = {id(n): i for i, n in enumerate(graph.nodes)}
    param = {id(p.node): p.name for p in graph.params}

    def name(node: Node) -> str:
        if node.op.name == "load":
            return param[id(node.operands[0])]
        if node.op.name == "constant":
            return repr(node.attrs["value"])
        return param.get(id(node), f"%{number[id(node)]}")

    def text(node: Node, at: str) -> str:
        operands = ", ".join(name(o) for o in node.operands)
        if node.op.name == "store":
            return f"{name(node.operands[0])}[{at}] = {name(node.operands[1])}"
        if isinstance(RULES[node.op.name], Reduce):
            return f"{name(node)} <- {node.op.name} {operands}"
        return f"{name(node)} = {node.op.name} {operands}".rstrip()

    def kept(node: Node) -> str:
        for place, what in ((program.row_buffers, "row"), (program.buffers, "tile")):
            if id(node) in place:
                return f"    -> {what} {place[id(node)].name}"
        return ""

    lines = [f"loops {graph.name}({', '.join(f'{p.name}: {p.direction} {p.type}' for p in graph.params)})"]
    for load, snapshot in program.snapshots.items():
        node = next(n for n in graph.nodes if id(n) == load)
        causes = ["its lanes are strided"] if snapshot.lanes else []
        causes += [f"it overlaps {param[id(h.store.operands[0])]}" for h in snapshot.hazards]
        lines.append(f"  {name(node)} is copied if {' or '.join(causes)}")
    for nest in program.nests:
        if isinstance(nest, WholeNest):
            target = f" -> {name(nest.store.operands[0])}" if nest.store else kept(nest.node)
            lines.append(f"  {text(nest.node, '')}{target}")
            continue
        across = "columns" if nest.flipped else "rows"
        lines.append(
            f"  for r in {shown(nest.rows)}{f' by {nest.block}' * (nest.block > 1 and not nest.skewed)}:"
            + f"    # passes {APART} rows apart" * nest.skewed
            + (f"    # lanes along the {across[:-1]}" if nest.flipped else "")
        )
        lines += [f"    {text(n, 'r')}{kept(n)}" for n in nest.before]
        for stage in nest.stages:
            if stage.nodes:
                lines.append(f"    for c in {shown(stage.cols)} by {LANES}:")
                pairs = [n for n in stage.nodes if isinstance(RULES[n.op.name], Interleave)]
                lines += [
                    f"      {text(n, 'r, 2c' if n.op.name == 'store' and n.operands[1] in pairs else 'r, c')}{kept(n)}"
                    for n in stage.nodes
                ]
            lines += [f"    {text(n, 'r')}{kept(n)}" for n in stage.scalars]
    lines.append(f"  scratch {program.scratch_bytes} bytes")
    return lines


def shown(extent: Extent) -> str:
    return str(extent.static)
