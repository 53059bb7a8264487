"""A kernel with matmuls, cut into phases: what the cube core does, what the vector cores do, and who waits for whom.

Phases alternate: vector work that some product needs, products, vector work on their results, and so on. L0C has no way
to UB on 2201, so what crosses from one phase to another lies in a GM workspace; each boundary is one cross-core flag.
Vector phases are kernel graphs of their own, and `VectorKernel` (vector_kernel.py) writes them like any other. Start
reading at `cut`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pto_wsp.ascend import cube
from pto_wsp.ascend.body import ceil_to
from pto_wsp.ascend.dtypes import refuse
from pto_wsp.ascend.names import assigned_name
from pto_wsp.ascend.rules import RULES, Cube
from pto_wsp.trace.graph import KernelGraph, Node, Param, build
from pto_wsp.trace.ops import OPS
from pto_wsp.types import DType, TileType

ALIGN = 512  # of tiles in the workspace


@dataclass(eq=False)
class Slot:
    """A tile in the workspace."""

    node: Node  # the value it holds
    offset: int
    hint: str


@dataclass(eq=False)
class Product:
    """One matmul: operands and result as parameters (their nodes) or slots."""

    node: Node
    a: Node | Slot
    b: Node | Slot
    out: Node | Slot
    out_dtype: DType
    transposed: bool  # b is given as N x K
    adds: bool = False  # onto what is there


@dataclass(eq=False)
class Turn:
    """A tile turned round on its way to the cube core: from a parameter or slot to a slot."""

    node: Node
    source: Node | Slot
    out: Slot


@dataclass(eq=False)
class VectorPart:
    """A vector phase: a kernel over parameters and slots; `origin` finds a node's counterpart in the whole."""

    graph: KernelGraph
    tiles: dict[int, Node | Slot]  # id of a param node of `graph` -> where it lies
    origin: dict[int, Node]


@dataclass
class Plan:
    """The phases in order: lists of Product on the cube core, of Turn and VectorPart on the vector cores."""

    phases: list[tuple[str, list[Product] | list[Turn | VectorPart]]] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    bytes: int = 0


def legal(graph: KernelGraph) -> KernelGraph:
    """Accumulators become additions unless they are added onto where they lie; float operands get the shape needed."""
    new: dict[int, Node] = {}
    nodes: list[Node] = []
    users = _users(graph)
    for node in graph.nodes:
        operands = tuple(new[id(o)] for o in node.operands)
        current = node if operands == node.operands else replace(node, operands=operands)
        if node.op.name == "matmul":
            a, b = operands[:2]
            dtype = a.tile.dtype
            if dtype not in cube.INPUTS:
                raise refuse(
                    node,
                    f"matmul of {dtype}: the cube core multiplies f16, bf16, f32 and i8. "
                    "Convert with pto.cast(x, DType.F32).",
                )
            if b.op.name != "transpose" and dtype.itemsize != 2:
                turned = build(OPS["transpose"], (b,), {}, node.line)[-1]
                again = build(OPS["transpose"], (turned,), {}, node.line)[-1]
                nodes += [turned, again]
                b = again
            acc = operands[2] if len(operands) == 3 else None
            if acc is not None and not _in_place(node, users):
                product = replace(current, operands=(a, b))
                total = build(OPS["add"], (product, acc), {}, node.line)[-1]
                nodes += [product, total]
                new[id(node)] = total
                continue
            current = replace(current, operands=(a, b) if acc is None else (a, b, acc))
        nodes.append(current)
        new[id(node)] = current
    return replace(graph, nodes=tuple(nodes))


def _users(graph: KernelGraph) -> dict[int, list[Node]]:
    users: dict[int, list[Node]] = {id(n): [] for n in graph.nodes}
    for node in graph.nodes:
        for operand in node.operands:
            users[id(operand)].append(node)
    return users


def _in_place(node: Node, users: Mapping[int, list[Node]]) -> bool:
    """store(c, matmul(a, b, acc=c)): Fixpipe adds onto c, if c is in nobody else's way."""
    acc = node.operands[2]
    return (
        acc.op.name == "load"
        and len(users[id(acc)]) == 1
        and len(users[id(node)]) == 1
        and users[id(node)][0].op.name == "store"
        and users[id(node)][0].operands[0] is acc.operands[0]
    )


def is_cube(node: Node) -> bool:
    return isinstance(RULES[node.op.name], Cube)


class _Cutter:
    def __init__(self, graph: KernelGraph) -> None:
        self.graph = graph
        self.users = _users(graph)
        self.phase: dict[int, int] = {}  # even: vector, odd: cube
        self.cheap: set[int] = set()  # made again in every phase that uses them
        self.folded: set[int] = set()  # transposes that the cube core reads as they lie
        self.slots: dict[int, Slot] = {}
        self.bytes = 0

    def assign(self) -> None:
        for node in self.graph.nodes:
            if node.op.name == "param":
                continue
            if node.op.name == "load":
                self.phase[id(node)] = 0
            elif is_cube(node):
                self.phase[id(node)] = max(self._after(o, 1) for o in node.operands[:2])
            elif (
                not node.is_tile
                and node.op.name != "store"
                or node.op.name in ("iota_u32", "alloc")
                or (
                    node.operands
                    and node.op.name != "store"
                    and all(id(o) in self.cheap for o in node.operands)
                )
            ):
                self.cheap.add(id(node))
                self.phase[id(node)] = 0
            else:
                self.phase[id(node)] = max(
                    (self._after(o, 0) for o in node.operands if o.op.name != "param"), default=0
                )
        for node in self.graph.nodes:
            if node.op.name == "matmul" and node.operands[1].op.name == "transpose":
                b = node.operands[1]
                if all(is_cube(u) and u.operands[1] is b for u in self.users[id(b)]):
                    self.folded.add(id(b))

        self._delay_stores()

    def _delay_stores(self) -> None:
        """A store waits for the last phase that reads the parameter."""
        for store in self.graph.stores:
            for load in self.graph.nodes:
                if load.op.name == "load" and load.operands[0] is store.operands[0]:
                    latest = max((self.phase[id(u)] for u in self.users[id(load)]), default=0)
                    self.phase[id(store)] = max(self.phase[id(store)], latest + latest % 2)

    def _after(self, operand: Node, kind: int) -> int:
        """First phase of a kind (0 vector, 1 cube) that can use the value."""
        if id(operand) in self.cheap:
            return kind
        at = self.phase[id(operand)]
        return at if at % 2 == kind else at + 1

    def slot(self, node: Node) -> Slot:
        if id(node) not in self.slots:
            t = node.tile
            self.slots[id(node)] = Slot(node, self.bytes, assigned_name(node) or node.op.name)
            self.bytes += ceil_to(t.size * t.dtype.itemsize, ALIGN)
        return self.slots[id(node)]

    def place_of(self, node: Node) -> Node | Slot:
        """Where the cube core finds a value: a parameter's node or a slot."""
        return node.operands[0] if node.op.name == "load" else self.slot(node)


def cut(graph: KernelGraph) -> Plan:
    """The phases of a legal graph."""
    c = _Cutter(graph)
    c.assign()
    last = max([c.phase[id(n)] for n in graph.nodes if id(n) in c.phase], default=0)
    plan = Plan()
    direct: dict[int, Product] = {}
    products: dict[int, list[Product]] = {}
    for node in graph.nodes:
        if is_cube(node):
            products.setdefault(c.phase[id(node)], []).append(_product(c, node, direct))
    for number in range(last + 1):
        if number % 2:
            plan.phases.append(("cube", products.get(number, [])))
        else:
            parts = _vector_parts(c, number, direct)
            if parts:
                plan.phases.append(("vector", parts))
    plan.slots, plan.bytes = list(c.slots.values()), c.bytes
    return plan


def _product(c: _Cutter, node: Node, direct: dict[int, Product]) -> Product:
    a, b = node.operands[:2]
    transposed = id(b) in c.folded
    b_at = c.place_of(b.operands[0] if transposed else b)
    if b.op.name == "transpose" and not transposed and a.tile.dtype.itemsize != 2:
        b_at = c.place_of(b.operands[0])  # also used elsewhere; the product still reads N x K
        transposed = True
    users = c.users[id(node)]
    acc = DType.I32 if a.tile.dtype is DType.I8 else DType.F32
    store = users[0] if len(users) == 1 else None
    if (
        store is not None
        and store.op.name == "cast"
        and (acc, store.tile.dtype) in cube.QUANT
        and len(c.users[id(store)]) == 1
        and len(node.operands) == 2
    ):
        store = c.users[id(store)][0]
    if store is not None and store.op.name == "store":
        dst = store.operands[0]
        loaded = [n for n in c.graph.nodes if n.op.name == "load" and n.operands[0] is dst]
        if not any(u is not node for load in loaded for u in c.users[id(load)]):
            made = Product(
                node, c.place_of(a), b_at, dst, dst.tile.dtype, transposed, len(node.operands) == 3
            )
            direct[id(store)] = made
            direct[id(store.operands[1])] = made
            return made
    return Product(node, c.place_of(a), b_at, c.slot(node), acc, transposed)


def _vector_parts(c: _Cutter, number: int, direct: Mapping[int, Product]) -> list[Turn | VectorPart]:
    mine = [
        n
        for n in c.graph.nodes
        if c.phase.get(id(n)) == number
        and not is_cube(n)
        and id(n) not in c.cheap
        and n.op.name != "load"
        and id(n) not in direct
        and id(n) not in c.folded
    ]
    parts: list[Turn | VectorPart] = []
    work: list[Node] = []
    for node in mine:
        if (
            node.op.name == "transpose"
            and all(is_cube(u) or id(u) in c.folded for u in c.users[id(node)])
            and node.tile.dtype.itemsize > 1
            and min(node.tile.shape) > 1
            and (node.operands[0].op.name == "load" or c.phase[id(node.operands[0])] < number)
        ):
            source = node.operands[0]
            parts.append(
                Turn(node, source.operands[0] if source.op.name == "load" else c.slot(source), c.slot(node))
            )
        else:
            work.append(node)
    if work:
        parts.append(_sub_graph(c, work))
    return parts


def _sub_graph(c: _Cutter, work: list[Node]) -> VectorPart:
    """`work` as a graph over loads of parameters and of slots; values that later phases need are stored to slots."""
    inside = {id(n) for n in work}
    new: dict[int, Node] = {}
    origin: dict[int, Node] = {}
    params: list[Param] = []
    handles: dict[object, Node] = {}
    tiles: dict[int, Node | Slot] = {}
    loads: list[Node] = []
    nodes: list[Node] = []
    for p in c.graph.scalar_params:
        new[id(p.node)] = replace(p.node, attrs={**p.node.attrs, "index": len(params)})
        params.append(Param(p.name, "in", new[id(p.node)]))

    def handle(where: Node | Slot, type_: TileType, direction: str) -> Node:
        if id(where) not in handles:
            attrs = {"type": type_, "index": len(params)}
            node = Node(OPS["param"], (), type_, attrs, None)
            named = next((p.name for p in c.graph.params if p.node is where), None)
            name = named or f"{where.hint}{where.offset}_ws" if isinstance(where, Slot) else named or "tile"
            params.append(Param(name, direction, node))
            handles[id(where)] = node
            tiles[id(node)] = where
            origin[id(node)] = where.node if isinstance(where, Slot) else where
        else:
            at = next(i for i, p in enumerate(params) if p.node is handles[id(where)])
            if params[at].direction != direction:
                params[at] = replace(params[at], direction="inout")
        return handles[id(where)]

    def find(node: Node) -> Node:
        """The node's counterpart here."""
        if id(node) in new:
            return new[id(node)]
        if node.op.name == "load" or node.is_tile and id(node) not in c.cheap and id(node) not in inside:
            where = node.operands[0] if node.op.name == "load" else c.slot(node)
            plain = TileType(node.tile.rows, node.tile.cols, node.tile.dtype)
            home = handle(where, where.tile if isinstance(where, Node) else plain, "in")
            made = Node(OPS["load"], (home,), plain, {"at": "entry"}, node.line)
            loads.append(made)
        else:
            made = replace(node, operands=tuple(find(o) for o in node.operands))
            nodes.append(made)
        new[id(node)] = made
        origin[id(made)] = node
        return made

    stores: list[Node] = []
    for node in work:
        if node.op.name == "store":
            dst, src = node.operands
            value = find(src)
            stores.append(Node(node.op, (handle(dst, dst.tile, "out"), value), None, {}, node.line))
            continue
        made = find(node)
        later = [u for u in c.users[id(node)] if id(u) not in inside and id(u) not in c.cheap]
        if later:
            plain = TileType(node.tile.rows, node.tile.cols, node.tile.dtype)
            stores.append(Node(OPS["store"], (handle(c.slot(node), plain, "out"), made), None, {}, node.line))
    heads = [p.node for p in params]
    return VectorPart(
        KernelGraph(c.graph.name, tuple(params), (*heads, *loads, *nodes, *stores)), tiles, origin
    )
