"""Graph to graph: exact local rewrites, common subexpressions, dead nodes.

Every rewrite keeps every bit of every result (NaN payloads aside). Cycles are counted on the graph as traced, so
nothing here changes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pto_wsp.lower.rules import RULES, Reduce
from pto_wsp.trace.extents import extents_of
from pto_wsp.trace.graph import KernelGraph, Node, build
from pto_wsp.trace.ops import OPS

Rewrite = Callable[[Node], "Node | None"]


def drop_double_negation(node: Node) -> Node | None:
    """neg(neg(x)) -> x. Exact in IEEE 754 and in two's complement."""
    if node.op.name == "neg" and node.operands[0].op.name == "neg":
        return node.operands[0].operands[0]
    return None


def drop_identity_cast(node: Node) -> Node | None:
    """cast(x) to its own dtype -> x."""
    if node.op.name == "cast" and node.type == node.operands[0].type:
        return node.operands[0]
    return None


def drop_multiplication_by_one(node: Node) -> Node | None:
    """mul(x, 1) and div(x, 1) -> x."""
    if node.op.name in ("mul", "div") and node.type == node.operands[0].type:
        factor = node.operands[1]
        if factor.op.name == "constant" and factor.attrs["value"] == 1:
            return node.operands[0]
    return None


def drop_identity_broadcast(node: Node) -> Node | None:
    """broadcast to the shape that the tile has -> the tile."""
    if node.op.name == "broadcast" and node.type == node.operands[0].type:
        return node.operands[0]
    return None


def drop_double_transpose(node: Node) -> Node | None:
    """transpose(transpose(x)) -> x."""
    if node.op.name == "transpose" and node.operands[0].op.name == "transpose":
        return node.operands[0].operands[0]
    return None


REWRITES: tuple[Rewrite, ...] = (
    drop_double_negation,
    drop_identity_cast,
    drop_multiplication_by_one,
    drop_identity_broadcast,
    drop_double_transpose,
)


def rewrite(graph: KernelGraph) -> KernelGraph:
    """Apply the rewrites from the first node to the last; operands are rewritten before their users."""
    new: dict[int, Node] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        operands = tuple(new[id(o)] for o in node.operands)
        current = node if operands == node.operands else replace(node, operands=operands)
        found = next((r for r in (rule(current) for rule in REWRITES) if r is not None), None)
        if found is None:
            nodes.append(current)
        new[id(node)] = found or current
    return _renewed(graph, new, nodes)


def drop_reductions_of_one(graph: KernelGraph) -> KernelGraph:
    """A reduction of one element is that element: rowmax of a column, colsum of a row. Sums begin with 0, which makes
    -0 a 0."""
    new: dict[int, Node] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        operands = tuple(new[id(o)] for o in node.operands)
        made = [node if operands == node.operands else replace(node, operands=operands)]
        rule = RULES[node.op.name]
        if isinstance(rule, Reduce) and _extent(operands[0], rule.axis) == 1:
            attrs = {"dtype": node.tile.dtype, "by": "promotion"}
            made = list(build(OPS["cast"], operands, attrs, node.line))
            if node.tile.dtype.is_float and rule.start(node.tile.dtype) == 0:
                made += build(OPS["add"], (made[-1], 0.0), {}, node.line)
        nodes += made
        new[id(node)] = made[-1]
    return _renewed(graph, new, nodes)


def share(graph: KernelGraph) -> KernelGraph:
    """One node for equal computations. Loads are equal when no store lies between them.

    In partial tiles, some values take the valid extents of what they are used with; those of different extents stay
    apart, since one node for two would tie the two uses together.
    """
    extents = extents_of(graph)
    new: dict[int, Node] = {}
    nodes: list[Node] = []
    known: dict[object, Node] = {}
    epoch = 0  # number of stores so far; entry loads belong to epoch 0
    for node in graph.nodes:
        operands = tuple(new[id(o)] for o in node.operands)
        current = node if operands == node.operands else replace(node, operands=operands)
        if current.op.name in ("store", "add_cycles", "param", "scalar_param"):
            epoch += current.op.name == "store"
            nodes.append(current)
            new[id(node)] = current
            continue
        attrs = {k: v for k, v in current.attrs.items() if k not in ("at", "by")}
        when = (0 if current.attrs["at"] == "entry" else epoch) if current.op.name == "load" else -1
        value = attrs.pop("value", None)  # 0.0 == -0.0 and 1 == 1.0 are different constants
        valid = tuple(extents.of(node, axis) for axis in (0, 1)) if node.is_tile else ()
        key = (
            current.op.name,
            tuple(id(o) for o in operands),
            current.type,
            repr(value),
            tuple(sorted((k, repr(v)) for k, v in attrs.items())),
            when,
            valid,
        )
        if key not in known:
            known[key] = current
            nodes.append(current)
        new[id(node)] = known[key]
    return _renewed(graph, new, nodes)


def drop_overwritten_stores(graph: KernelGraph) -> KernelGraph:
    """Drop a store that a later store to the same parameter covers, when nothing is loaded in between."""
    kept: list[Node] = []
    covered: set[int] = set()  # id of the parameter nodes that a later store writes
    for node in reversed(graph.nodes):
        if node.op.name == "store":
            if id(node.operands[0]) in covered:
                continue
            covered.add(id(node.operands[0]))
        elif node.op.name == "load" and node.attrs["at"] != "entry":
            covered.clear()
        kept.append(node)
    return replace(graph, nodes=tuple(reversed(kept)))


def separate_indices(graph: KernelGraph) -> KernelGraph:
    """Sorting takes whole rows: what it sorts by gets a node of its own, which keeps its static extent.

    Other users of the same indices may be partial tiles.
    """
    nodes: list[Node] = []
    new: dict[int, Node] = {}
    for node in graph.nodes:
        operands = tuple(new[id(o)] for o in node.operands)
        if node.op.name in ("tsort32", "extract_topk_indices"):
            made = tuple(replace(o) if o.op.name in ("iota_u32", "alloc") else o for o in operands)
            nodes += [m for m, o in zip(made, operands) if m is not o]
            operands = made
        nodes.append(node if operands == node.operands else replace(node, operands=operands))
        new[id(node)] = nodes[-1]
    return _renewed(graph, new, nodes)


def eliminate_dead(graph: KernelGraph) -> KernelGraph:
    """Keep parameters and what some store depends on."""
    live = {id(n) for n in graph.stores}
    for node in reversed(graph.nodes):
        if id(node) in live:
            live.update(id(o) for o in node.operands)
    return replace(
        graph, nodes=tuple(n for n in graph.nodes if id(n) in live or n.op.name in ("param", "scalar_param"))
    )


def _extent(node: Node, axis: int) -> int:
    return node.tile.cols if axis else node.tile.rows


def _renewed(graph: KernelGraph, new: dict[int, Node], nodes: list[Node]) -> KernelGraph:
    params = tuple(replace(p, node=new[id(p.node)]) for p in graph.params)
    return replace(graph, params=params, nodes=tuple(nodes))
