"""Ops that take whole tiles, each in its own way: a product, a transpose, a sort, the indices of a sort's winners."""

from __future__ import annotations

from typing import Any

from pto_wsp.lower import ir, matmul
from pto_wsp.lower.algebra import Lanes
from pto_wsp.lower.loops import WholeNest
from pto_wsp.lower.operands import Operands, View
from pto_wsp.lower.vectors import I32, I64, aligned
from pto_wsp.trace.graph import Node
from pto_wsp.types import DType


def write_whole(w: Operands, nest: WholeNest) -> None:
    """The nest's op, its result where it is stored or in its buffer."""
    node = nest.node
    result = w.writes[id(nest.store)] if nest.store is not None else w.buffer_view(w.program.buffers[id(node)])
    _WRITERS[node.op.name](w, node, result)


def _matmul(w: Operands, node: Node, result: View) -> None:
    a, b = node.operands[:2]
    spec = matmul.MatmulSpec(
        a.tile.rows,
        b.tile.cols,
        a.tile.cols,
        a.tile.dtype,
        b.tile.dtype,
        accumulate=len(node.operands) == 3,
        tail=w.tail,
        a_turned=w.is_turned(a),
        b_turned=w.is_turned(b),
    )
    function = matmul.emit(w.module, spec, w.target)
    arguments = []
    for operand in node.operands:
        view, dtype = w.memory_of(operand)
        assert dtype is operand.tile.dtype
        arguments += [view.address, view.rows, view.cols]
    arguments += [result.address, result.rows]
    if w.tail:
        (m, k), (_, n) = w.extents_of(a), w.extents_of(b)
        arguments += [m, n, k]
    needed = matmul.scratch_bytes(spec, w.target)
    offset = aligned(w.program.scratch_bytes)
    w.scratch_bytes = max(w.scratch_bytes, offset + needed)
    w.build.call(function, [*arguments, w.move(w.scratch, I64(offset))])


def _transpose(w: Operands, node: Node, result: View) -> None:
    view, dtype = w.memory_of(node.operands[0])
    w.copy(result, view.turned, dtype, *w.extents_of(node))


def _extract_topk_indices(w: Operands, node: Node, result: View) -> None:
    """The odd elements of the first k pairs, as integers; 0 where there are no pairs (tails)."""
    view, dtype = w.memory_of(node.operands[0])
    pairs = w.extents_of(node.operands[0])[1]
    with w.loop(I64(0), w.extents_of(node)[1], 1) as i:
        there = w.move(result.address, w.build.mul(i, I64(4)))
        w.build.store(I32(0), there)
        at = w.build.add(w.build.mul(i, I64(2)), I64(1))
        with w.build.if_then(w.build.icmp_signed("<", at, pairs)):
            value = w.one.load(w.move(view.address, w.build.mul(at, view.cols)), dtype)
            w.one.store(w.one.convert(value, DType.I32), there)


def _tsort32(w: Operands, node: Node, result: View) -> None:
    """Each score goes to the place that is the number of scores before it.

    Missing scores (tails) are -inf, missing indices 0.
    """
    (scores, _), (idx, _) = w.memory_of(node.operands[0]), w.memory_of(node.operands[1])
    counts = [w.extents_of(o)[1] for o in node.operands]
    keys, labels = w.build.alloca(ir.FloatType(), 32), w.build.alloca(I32, 32)
    rank = w.build.alloca(I64)

    def element(base: Any, kind: Any, i: Any) -> Any:
        return w.build.gep(base, [i], source_etype=kind)

    k = w.one
    with w.loop(I64(0), I64(32), 1) as i:
        k.store(k.const(float("-inf"), DType.F32), element(keys, ir.FloatType(), i))
        w.build.store(I32(0), element(labels, I32, i))
        with w.build.if_then(w.build.icmp_signed("<", i, counts[0])):
            k.store(
                k.load(w.move(scores.address, w.build.mul(i, scores.cols)), DType.F32),
                element(keys, ir.FloatType(), i),
            )
        with w.build.if_then(w.build.icmp_signed("<", i, counts[1])):
            k.store(k.load(w.move(idx.address, w.build.mul(i, idx.cols)), DType.U32), element(labels, I32, i))
    with w.loop(I64(0), I64(32), 1) as i:
        w.build.store(I64(0), rank)
        x, mine = k.load(element(keys, ir.FloatType(), i), DType.F32), k.load(element(labels, I32, i), DType.U32)
        with w.loop(I64(0), I64(32), 1) as j:
            y, theirs = (
                k.load(element(keys, ir.FloatType(), j), DType.F32),
                k.load(element(labels, I32, j), DType.U32),
            )
            earlier = Lanes(w.build.icmp_signed("<", j, i), None)
            tie = k.or_(k.eq(x, y), k.and_(k.isnan(x), k.isnan(y)))
            first = k.or_(k.lt(theirs, mine), k.and_(k.eq(theirs, mine), earlier))
            above = k.or_(k.gt(y, x), k.and_(k.isnan(x), k.not_(k.isnan(y))))
            before = k.or_(above, k.and_(tie, first))
            w.build.store(w.build.add(w.build.load(rank, typ=I64), w.build.zext(before.ir, I64)), rank)
        place = w.build.mul(w.build.load(rank, typ=I64), I64(8))
        k.store(x, w.move(result.address, place))
        k.store(k.convert(mine, DType.F32), w.move(result.address, place, I64(4)))


_WRITERS = {
    "matmul": _matmul,
    "transpose": _transpose,
    "extract_topk_indices": _extract_topk_indices,
    "tsort32": _tsort32,
}
