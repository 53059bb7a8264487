"""A traced graph as the emitter wants it: memory read once, written once, nothing computed twice or for nobody.

A load after a store of the same parameter is the stored value; of several stores to a parameter the last one counts
(all of them cover the whole tile). Start reading at `tidy`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pto_wsp.trace.graph import KernelGraph, Node, check

Step = Callable[[KernelGraph], KernelGraph]


def forward_stores(graph: KernelGraph) -> KernelGraph:
    """One load per parameter, at entry: later ones are what was stored. One store per parameter, the last."""
    new: dict[int, Node] = {}
    content: dict[int, Node] = {}  # id of a handle -> what the parameter holds by now
    entry: dict[int, Node] = {}
    stores: dict[int, Node] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        operands = tuple(new[id(o)] for o in node.operands)
        if node.op.name == "load":
            handle = id(operands[0])
            if handle not in entry and (node.attrs["at"] == "entry" or handle not in content):
                entry[handle] = replace(node, operands=operands)
                nodes.append(entry[handle])
            new[id(node)] = (
                entry[handle] if node.attrs["at"] == "entry" else content.get(handle) or entry[handle]
            )
            continue
        current = node if operands == node.operands else replace(node, operands=operands)
        new[id(node)] = current
        if node.op.name == "store":
            content[id(operands[0])] = operands[1]
            stores[id(operands[0])] = current
        else:
            nodes.append(current)
    return replace(graph, nodes=(*nodes, *stores.values()))


def share(graph: KernelGraph) -> KernelGraph:
    """One node for equal computations; a cast to its own dtype and a broadcast to its own shape are their operands."""
    new: dict[int, Node] = {}
    known: dict[object, Node] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        operands = tuple(new[id(o)] for o in node.operands)
        current = node if operands == node.operands else replace(node, operands=operands)
        if node.op.name in ("param", "scalar_param", "store", "load"):
            new[id(node)] = current
            nodes.append(current)
        elif node.op.name in ("cast", "broadcast") and current.type == operands[0].type:
            new[id(node)] = operands[0]
        else:
            attrs = tuple(sorted((k, repr(v)) for k, v in node.attrs.items() if k != "by"))
            key = (node.op.name, tuple(id(o) for o in operands), current.type, attrs)
            if key not in known:
                known[key] = current
                nodes.append(current)
            new[id(node)] = known[key]
    return replace(
        graph, nodes=tuple(nodes), params=tuple(replace(p, node=new[id(p.node)]) for p in graph.params)
    )


def drop_unused(graph: KernelGraph) -> KernelGraph:
    """Keep parameters and what some store depends on. A store of what the parameter holds already changes nothing."""
    live: set[int] = set()
    for node in reversed(graph.nodes):
        if node.op.name == "store":
            dst, src = node.operands
            if src.op.name == "load" and src.operands[0] is dst:
                continue
            live.add(id(node))
        if id(node) in live:
            live.update(id(o) for o in node.operands)
    return replace(
        graph, nodes=tuple(n for n in graph.nodes if id(n) in live or n.op.name in ("param", "scalar_param"))
    )


STEPS: tuple[Step, ...] = (forward_stores, share, drop_unused)


def tidy(graph: KernelGraph) -> KernelGraph:
    for step in STEPS:
        graph = step(graph)
        check(graph)
    return graph
