"""Tile ops as steps of a vector core: each node to the function that writes its kind of rule.

`emit` is called for the nodes of a kernel in order. The rules are in `rules.py`; how a kind becomes steps, in
`elementwise.py`, `reductions.py` and `shaping.py`; the verbs they use, in `writer.py` over `scalars.py`,
`conversions.py` and `strided.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pto_wsp.ascend import elementwise, reductions, rules
from pto_wsp.ascend.body import Bits, Value
from pto_wsp.ascend.dtypes import REFUSED, refuse
from pto_wsp.ascend.rules import RULES
from pto_wsp.ascend.shaping import emit_shaping
from pto_wsp.ascend.writer import Writer
from pto_wsp.trace.graph import Node
from pto_wsp.types import ScalarType

EMIT: dict[type, Callable[[Writer, Node, Any], Value | Bits]] = {
    rules.Binary: elementwise.emit_binary,
    rules.Unary: elementwise.emit_unary,
    rules.Library: elementwise.emit_library,
    rules.Rounding: elementwise.emit_rounding,
    rules.Compose: elementwise.emit_compose,
    rules.Convert: elementwise.emit_convert,
    rules.Compare: elementwise.emit_compare,
    rules.Select: elementwise.emit_select,
    rules.RowReduce: reductions.emit_row_reduce,
    rules.ColReduce: reductions.emit_col_reduce,
    rules.Shaping: emit_shaping,
}


def emit(w: Writer, node: Node) -> None:
    """Steps for one node; its value is found by `Writer.value` from then on.

    raises   CompileError at the user's line for a dtype that the core has no arithmetic for
    """
    w.node = node
    rule = RULES[node.op.name]
    if isinstance(node.type, ScalarType):
        w.scalars[id(node)] = w.scalar_op(node)
        return
    if isinstance(rule, (rules.Memory, rules.Nothing)):
        return
    for thing in (node, *node.operands):
        if thing.type is not None and thing.type.dtype in REFUSED and node.op.name != "cast":
            dtype = thing.type.dtype
            raise refuse(node, f"{node.op.name} of {dtype}: {REFUSED[dtype]}. Convert with pto.cast(x, DType.F32).")
    number = len(w.phase.buffers)
    made = w.values[id(node)] = EMIT[type(rule)](w, node, rule)
    if made.buffer in w.phase.buffers[number:]:
        made.buffer.hint = w.name_for(node) + ("_bits" if isinstance(made, Bits) else "")
    w.node = None
