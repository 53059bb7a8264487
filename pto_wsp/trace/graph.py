"""Kernel graphs: what a traced kernel is, and the check that every pass is held to.

A `KernelGraph` is straight-line code over tiles and scalars in SSA order. Nodes are values: made once, never
edited. Memory is explicit: a parameter is a handle, `load` reads it, `store` writes it, and both act in the order
of the node list. Start reading at `build`, which is the one way to make a node.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pto_wsp.errors import OperandError, SourceLine
from pto_wsp.types import DType, ScalarType, TileType

if TYPE_CHECKING:
    from pto_wsp.trace.custom import CustomBody
    from pto_wsp.trace.extents import CostTerm
    from pto_wsp.trace.ops import Op

ValueType = TileType | ScalarType
Number = int | float | bool


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Node:
    """One operation of a kernel and, unless it is a store, the value it makes."""

    op: Op                                      # row of the op table
    operands: tuple[Node, ...]                  # earlier nodes of the same graph
    type: ValueType | None                      # op.infer(operand types, attrs); None for stores
    attrs: Mapping[str, Any] = field(default_factory=dict)   # static arguments, by the row's names; never edited
    line: SourceLine | None = None              # the user's line that asked for it

    @property
    def tile(self) -> TileType:
        """The type of a tile value."""
        assert isinstance(self.type, TileType), f"{self.op.name} is not a tile"
        return self.type

    @property
    def is_tile(self) -> bool:
        return isinstance(self.type, TileType)

    @property
    def kind(self) -> Any:
        """The member of OpKind for this operation."""
        from pto_wsp.trace.kinds import OpKind
        return OpKind(self.op.name)

    def __repr__(self) -> str:
        kind = f": {self.type}" if self.type is not None else ""
        return f"<{self.op.name}{kind}>"


@dataclass(frozen=True, slots=True)
class Param:
    """A kernel parameter. `node` is its handle (op `param`) or its value (op `scalar_param`)."""

    name: str
    direction: str                              # "in", "out" or "inout"; scalars are "in"
    node: Node

    @property
    def type(self) -> ValueType:
        assert self.node.type is not None
        return self.node.type

    @property
    def is_tile(self) -> bool:
        return self.node.is_tile


@dataclass(frozen=True, eq=False, repr=False)
class KernelGraph:
    """A kernel as data: parameters in signature order, then every node in execution order.

    `nodes` begins with the parameters' own nodes. `str(graph)` prints it and `trace.text.parse` reads it back.
    With a `custom` body there are no operations, perhaps one node of added cycles: what happens is not ours to know.
    """

    name: str
    params: tuple[Param, ...]
    nodes: tuple[Node, ...]
    custom: CustomBody | None = None

    @property
    def tile_params(self) -> tuple[Param, ...]:
        """Those that are tiles, in signature order."""
        return tuple(p for p in self.params if p.is_tile)

    @property
    def scalar_params(self) -> tuple[Param, ...]:
        """Those that are numbers, in signature order."""
        return tuple(p for p in self.params if not p.is_tile)

    @property
    def ops(self) -> tuple[Node, ...]:
        """The operations in order, without the parameters and the loads that their use implies."""
        implied = ("entry", "operand")
        return tuple(n for n in self.nodes
                     if n.op.name not in ("param", "scalar_param") and n.attrs.get("at") not in implied)

    @property
    def stores(self) -> tuple[Node, ...]:
        """The nodes that write to Out and InOut parameters, in order."""
        return tuple(n for n in self.nodes if n.op.name == "store")

    def param_of(self, handle: Node) -> Param:
        """The parameter that a `param`, `load` or `store` node refers to."""
        target = handle if handle.op.name == "param" else handle.operands[0]
        return next(p for p in self.params if p.node is target)

    def cycles(self) -> tuple[CostTerm, ...]:
        """Duration of one task as a sum of terms in the valid extents of the tile parameters (execution.md 2)."""
        from pto_wsp.trace.extents import cycles_of
        return cycles_of(self)

    def static_cycles(self) -> int:
        """Cycles of a task whose tiles are all full; run-time `add_cycles` expressions are not included."""
        return sum(term.static for term in self.cycles())

    def dump(self) -> str:
        """The graph as text; the same as str(graph)."""
        return str(self)

    def __str__(self) -> str:
        from pto_wsp.trace.text import print_graph
        return print_graph(self)

    def __repr__(self) -> str:
        return f"<kernel {self.name}: {len(self.params)} parameters, {len(self.nodes)} nodes>"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What a notebook shows."""
        printer.text(str(self))


def build(op: Op, operands: Iterable[Node | Number], attrs: Mapping[str, Any] | None = None,
          line: SourceLine | None = None) -> tuple[Node, ...]:
    """Make the node of one operation, checked by the row's own type rule; the last of the returned nodes is its value.

    Earlier ones are the constants and conversions that the operation needed: Python numbers become constants, and
    scalars and broadcast vectors take the element type of the tile they meet (execution.md 1.8, 1.9).

    raises OperandError, pointing at `line`, when shapes, dtypes or attributes do not fit.
    """
    made: list[Node] = []
    attrs = dict(attrs or {})
    try:
        values = list(operands)
        if op.promotes:
            dtype = promoted_dtype(op, values)
            for i, value in enumerate(values):
                if op.operand_names[i] != "mask":
                    values[i] = _as_dtype(value, dtype, line, made)
        for i, value in enumerate(values):
            if not isinstance(value, Node):
                raise OperandError(f"{op.name} needs a tile or scalar as {op.operand_names[i]}; "
                                   f"got the number {value!r}.")
        nodes: tuple[Node, ...] = tuple(v for v in values if isinstance(v, Node))
        result = op.infer(op, [n.type for n in nodes], attrs)
    except OperandError as error:
        raise error.at(line) from None
    made.append(Node(op, nodes, result, attrs, line))
    return tuple(made)


def promoted_dtype(op: Op, values: list[Node | Number]) -> DType:
    """Element type in which an elementwise op is done: that of the tiles with the result's shape.

    Tiles of the result's shape must agree; broadcast vectors, scalars and numbers are converted to it.
    """
    candidates = [v for v, name in zip(values, op.operand_names) if name != "mask"]
    tiles = [v.tile for v in candidates if isinstance(v, Node) and v.is_tile]
    if tiles:
        rows, cols = max(t.rows for t in tiles), max(t.cols for t in tiles)
        full = [t for t in tiles if (t.rows, t.cols) == (rows, cols)] or tiles
        if any(t.dtype is not full[0].dtype for t in full):
            raise OperandError(f"{op.name} needs tiles of one dtype; got {' and '.join(str(t) for t in full)}. "
                               f"Convert one with pto.cast(x, DType.{full[0].dtype.name}).")
        for t in tiles:
            if t.dtype.is_float != full[0].dtype.is_float:
                raise OperandError(f"{op.name} mixes float and integer tiles: {' and '.join(map(str, tiles))}. "
                                   f"Convert one with pto.cast(x, DType.{full[0].dtype.name}).")
        return full[0].dtype
    for value in candidates:
        if isinstance(value, Node) and value.type is not None:
            return value.type.dtype
    if len(candidates) < len(values):
        raise OperandError(f"{op.name} chooses between numbers here, which have no dtype. Give one of them a dtype: "
                           f"pto.constant({candidates[0]!r}, DType.F32).")
    raise OperandError(f"{op.name} needs at least one tile or scalar; got only numbers. Compute it in plain Python.")


def _as_dtype(value: Node | Number, dtype: DType, line: SourceLine | None, made: list[Node]) -> Node:
    """`value` as a node of element type `dtype`; a constant or an implicit cast is added to `made` if needed."""
    from pto_wsp.trace.ops import OPS
    if not isinstance(value, Node):
        number: dict[str, Any] = {"value": number_as(value, dtype), "dtype": dtype}
        made.append(Node(OPS["constant"], (), ScalarType(dtype), number, line))
    elif value.type is None:
        raise OperandError("a store has no value to compute with.")
    elif value.type.dtype is dtype:
        return value
    else:
        cast = OPS["cast"]
        attrs = {"dtype": dtype, "by": "promotion"}
        made.append(Node(cast, (value,), cast.infer(cast, [value.type], attrs), attrs, line))
    return made[-1]


def number_as(value: Number, dtype: DType) -> Number:
    """A Python (or NumPy) number as a constant of `dtype`: floats round to nearest even, integers truncate toward zero.

    raises OperandError when it is not a real number or does not fit an integer dtype.
    """
    try:
        if hasattr(value, "__index__"):
            exact: Number = operator.index(value)       # bools too
        else:
            exact = float(value)
    except (TypeError, ValueError, OverflowError):
        raise OperandError(f"{value!r} ({type(value).__name__}) is not a tile, scalar or number.") from None
    if dtype.is_float:
        try:
            return float(exact)
        except OverflowError:
            return math.inf if exact > 0 else -math.inf
    if isinstance(exact, float) and not math.isfinite(exact):
        raise OperandError(f"{exact!r} has no {dtype.value} value.")
    whole = int(exact)
    low = -(1 << (dtype.bits - 1)) if dtype.is_signed else 0
    high = low + (1 << dtype.bits) - 1
    if not low <= whole <= high:
        raise OperandError(f"{value!r} does not fit {dtype.value} ({low} to {high}).")
    return whole


def check(graph: KernelGraph, checked: KernelGraph | None = None) -> None:
    """Hold a graph to the rules: SSA order, memory used through parameters only, every type what its row infers.

    A graph that passes can be interpreted and compiled, whoever wrote it.
    checked  a graph that has passed: the types of nodes that it has are what they should be
    raises   OperandError naming the node and showing the graph.
    """
    seen: set[int] = set()
    known = {id(node) for node in checked.nodes} if checked is not None else ()
    directions = check_params(graph.name, graph.params)
    for number, node in enumerate(graph.nodes):
        try:
            _check_place(node, seen, directions)
            if id(node) not in known:
                _check_type(node)
        except OperandError as error:
            raise OperandError(f"kernel {graph.name}: node {number}, {node.op.name}: {error.message}\n{graph}"
                               ).at(node.line) from None
        seen.add(id(node))
    for param in graph.params:
        if id(param.node) not in seen:
            raise OperandError(f"kernel {graph.name}: parameter {param.name} has no node.")


def check_params(name: str, params: Iterable[Param]) -> dict[int, str]:
    """The direction of each parameter, by id of its node."""
    directions: dict[int, str] = {}
    names = set()
    for index, param in enumerate(params):
        node = param.node
        if node.op.name != ("param" if node.is_tile else "scalar_param") or node.attrs.get("index") != index:
            raise OperandError(f"kernel {name}: {param.name} is not parameter {index}.")
        if param.direction not in (("in", "out", "inout") if node.is_tile else ("in",)):
            raise OperandError(f"kernel {name}: parameter {param.name} has no direction {param.direction!r}.")
        if param.name in names:
            raise OperandError(f"kernel {name}: two parameters have the name {param.name}.")
        names.add(param.name)
        directions[id(node)] = param.direction
    return directions


def check_node(node: Node, seen: Container[int], directions: Mapping[int, str]) -> None:
    """The rules for one node after those in `seen` (ids of nodes)."""
    _check_place(node, seen, directions)
    _check_type(node)


def _check_place(node: Node, seen: Container[int], directions: Mapping[int, str]) -> None:
    """The rules for where a node stands and what it works on."""
    op = node.op
    if id(node) in seen or any(id(o) not in seen for o in node.operands):
        raise OperandError("its operands are not earlier nodes of this graph, or it is there twice.")
    if op.name in ("param", "scalar_param") and (id(node) not in directions or node.is_tile != (op.name == "param")):
        raise OperandError("it is no parameter of this kernel.")
    for position, operand in enumerate(node.operands):
        if (operand.op.name == "param") != (position == 0 and op.name in ("load", "store")):
            raise OperandError("load reads, and store writes, a tile parameter; other ops use values that load gives.")
    if op.name == "store" and node.operands and directions[id(node.operands[0])] == "in":
        raise OperandError("it writes to an In parameter.")


def _check_type(node: Node) -> None:
    """The rules for what a node says of itself: attributes and type."""
    op, attrs = node.op, node.attrs
    if attrs.keys() != op.attrs.keys():
        raise OperandError(f"needs the attributes {', '.join(op.attrs)}; has {', '.join(attrs)}.")
    for name, allowed in CHOICES.items():
        if name in attrs and attrs[name] not in allowed:
            raise OperandError(f"{name} is one of {', '.join(allowed)}; got {attrs[name]!r}.")
    expected = op.infer(op, [o.type for o in node.operands], attrs)
    if expected != node.type:
        raise OperandError(f"its type is {node.type}, but its operands make {expected}.")
    if op.name == "constant" and repr(attrs["value"]) != repr(number_as(attrs["value"], attrs["dtype"])):
        raise OperandError(f"{attrs['value']!r} is no {attrs['dtype']}.")
    if op.name == "add_cycles":
        _check_cycles(attrs["cycles"])


def _check_cycles(cycles: Any) -> None:
    """A count, or a C expression of scalar parameters."""
    if isinstance(cycles, str):
        from pto_wsp.trace import c_expr
        c_expr.parse(cycles)
    elif isinstance(cycles, bool) or not isinstance(cycles, int) or abs(cycles) >= 1 << 62:
        raise OperandError(f"cycles is an int or a C expression; got {cycles!r}.")


CHOICES = {"at": ("entry", "here", "operand"), "by": ("user", "promotion", "store")}   # attributes that are one word
