"""`kernel.interpret(...)`: the kernel's own Python body, run on numbers.

The body runs once to get the graph and a second time for real: each value it makes is then the graph's next node,
computed by the interpreter. So print(tile), tile.array and breakpoint() work in the body, and what comes out is what
`interpret` defines, tails included.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pto_wsp.errors import ExecutionError, SourceLine
from pto_wsp.trace import interpret, tile
from pto_wsp.trace.graph import KernelGraph, Node

if TYPE_CHECKING:
    from pto_wsp.trace.kernel import Kernel


def replay(kernel: Kernel, arguments: Mapping[str, Any]) -> None:
    """Run one task of a kernel on arrays and numbers, given by parameter name."""
    given = {p.name: arguments.get(p.name, p.default) for p in kernel.params}
    missing = [p.name for p in kernel.params if given[p.name] is inspect.Parameter.empty]
    unknown = [name for name in arguments if name not in given]
    if missing or unknown:
        raise ExecutionError(
            f"kernel {kernel.name} takes {', '.join(given)}"
            + (f"; missing: {', '.join(missing)}" if missing else "")
            + (f"; unknown: {', '.join(unknown)}" if unknown else "")
            + ".",
            kernel_name=kernel.name,
        )
    constexprs = {p.name: given[p.name] for p in kernel.params if p.kind == "constexpr"}
    graph = kernel.graph_for(constexprs)
    arrays = [_array(given[p.name]) for p in graph.tile_params]
    scalars = [given[p.name] for p in graph.scalar_params]
    if graph.custom is not None:
        interpret.interpret(graph, arrays, scalars)
        return
    run = interpret.Run(graph, arrays, scalars)
    with np.errstate(all="ignore"):
        kernel.run(_Replay(graph, run), constexprs)


def _array(value: Any) -> Any:
    """The array of a Tensor, or the array itself."""
    return value.array() if hasattr(value, "index_exprs") else value


class _Replay(tile.Tracer):
    """Follows a graph that was traced before: every node that the body makes is the graph's next one."""

    def __init__(self, graph: KernelGraph, run: interpret.Run) -> None:
        super().__init__(graph.name)
        self.traced = graph
        self.run = run
        self.values: dict[int, Any] = {}
        first = next(
            (i for i, n in enumerate(graph.nodes) if not (n.op.name in ("param", "scalar_param") or _at_entry(n))),
            len(graph.nodes),
        )
        self.loads = {graph.param_of(n).name: run.node(n) for n in graph.nodes[:first] if _at_entry(n)}
        self.upcoming = iter(graph.nodes[first:])

    def evaluate(self, node: Node) -> None:
        if _at_entry(node):
            name = next(p.name for p in self.params if p.node is node.operands[0])
            self.values[id(node)] = self.loads[name]
            return
        follows = next(self.upcoming, None)
        if follows is None or follows.op is not node.op or follows.type != node.type:
            raise ExecutionError(
                f"kernel {self.name} did something else than when it was traced: {node!r} instead of {follows!r}. Its"
                " body has to do the same every time it runs.",
                kernel_name=self.name,
            ).at(node.line)
        self.values[id(node)] = self.run.node(follows)

    def warn(self, message: str, line: SourceLine) -> None:
        """Said when the kernel was traced."""

    def numbers(self, node: Node) -> Any:
        if node.op.name == "param":  # a tile parameter shows what it holds now
            return self.run.arrays[[p.node for p in self.params if p.is_tile].index(node)]
        if node.op.name == "scalar_param":
            index = [p.node for p in self.params if not p.is_tile].index(node)
            return self.run.node(self.traced.scalar_params[index].node)
        return self.values.get(id(node))


def _at_entry(node: Node) -> bool:
    return node.op.name == "load" and node.attrs["at"] == "entry"
