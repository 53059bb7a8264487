"""Results that go around the cache.

A store into a line of memory that is not in the cache fetches the line first, to write it back later: a stream of
results takes the memory's bandwidth twice. x86 has stores that gather a line and write it without that. Where results
are more than the cache holds, and nobody reads them soon, a streaming kernel is up to 1.5 times as fast; where
they would have been found in the cache, it is slower. So a kernel has a second function for that, which
`sim/streams.py` chooses. The results are the same to the last bit.
"""

from __future__ import annotations

from pto_wsp.lower.rules import RULES, Whole
from pto_wsp.trace.graph import KernelGraph, Param

__all__ = ["ALIGNMENT", "params_around"]

ALIGNMENT = 16  # bytes of which the address and the row stride of such a parameter are multiples
_LINE = 64


def params_around(graph: KernelGraph) -> tuple[Param, ...]:
    """The parameters whose results go around the cache in the kernel's second function: those that are only written,
    in rows of whole lines. None of a kernel with a product, a sort or a transpose: arithmetic takes its time."""
    if graph.custom is not None or any(isinstance(RULES.get(node.op.name), Whole) for node in graph.nodes):
        return ()
    return tuple(
        param
        for param in graph.tile_params
        if param.direction == "out" and param.node.tile.cols * param.node.tile.dtype.itemsize % _LINE == 0
    )
