"""Slots -> LLVM text: 64-bit cells that a program sets, and loads from tensors, while its tasks are made.

A load sees what the tasks before it have stored: when a task that still waits in the table writes to that memory, the
tasks so far are run first. Tensors that no task writes cost nothing but the load. Start reading at `emit_load`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pto_wsp.lower import control, expressions
from pto_wsp.lower.bindings import Load
from pto_wsp.lower.bounds import start_in
from pto_wsp.lower.expressions import Scope, signed
from pto_wsp.lower.lines import Lines, Piece
from pto_wsp.scalar_expr import Expr
from pto_wsp.trace.resolve import leaves
from pto_wsp.trace.tree import Cond, Loop, SlotLoad, SlotSet, TaskCall, TreeNode, walk

__all__ = ["Array", "address", "emit_load", "emit_set", "emit_wanted", "read_by", "slots_of"]


@dataclass(frozen=True, slots=True)
class Array:
    """A tensor's array, as names of LLVM values."""

    address: str
    strides: Sequence[str]  # bytes
    sizes: Sequence[str]
    written: str  # where the row after the last one that writes to this memory is kept


def slots_of(*values: Any) -> frozenset[int]:
    """The slots that expressions, and the indices of tensor views and axes, read."""
    found = (leaf for value in values for leaf in leaves(value))
    return frozenset(leaf.a for leaf in found if leaf.kind.startswith("slot_"))


def read_by(root: TreeNode, keys: Sequence[Expr]) -> frozenset[int]:
    """The slots that the expressions of a tree, and the keys of its tasks, read."""
    found = slots_of(*keys)
    for node in walk(root):
        if isinstance(node, TaskCall):
            found |= slots_of(*node.axes, *(value for _, value in node.args))
        elif isinstance(node, SlotLoad):
            found |= slots_of(node.row, node.col, node.tensor)
        elif isinstance(node, (Cond, Loop)):
            found |= slots_of(node.pred if isinstance(node, Cond) else node.axis)
    return found


def emit_wanted(out: Lines) -> str:
    """An i1: SLOT rows are wanted."""
    return out.value(f"icmp ne i64 {_control(out, control.SLOT_EDGES)}, 0")


def emit_set(node: SlotSet) -> Piece:
    """slots[slot] = value."""
    out = Lines()
    _store(out, node.slot, out.datum(signed(node.value)))
    return out.piece()


def emit_load(out: Lines, load: Load, array: Array, scope: Scope, bad: str) -> None:
    """slots[slot] = the element; the value is recorded, or comes from a record. `bad`: it is outside its array."""
    log, recall, read, again, record, after = (out.label() for _ in range(6))
    good, refresh, fresh = (out.label() for _ in range(3))
    mode = _control(out, control.MODE)
    out.branch(out.value(f"icmp eq i64 {mode}, {control.REPLAY}"), recall, read)

    out.start(read)
    place, checks = address(out, load, array, scope)
    out.branch(out.every(checks), good, bad)
    out.start(good)
    last = out.value(f"load i64, ptr {array.written}")
    row = out.value("load i64, ptr %row")
    out.branch(out.value(f"icmp ugt i64 {last}, {_control(out, control.EXECUTED)}"), refresh, fresh)
    out.start(refresh)
    given = "ptr %control, ptr %tell, ptr %kernel, ptr %tail, ptr %args, i64 %args_width, ptr %stop, ptr %cycles"
    refused = out.value(f"call i64 @catch_up({given}, i64 {row})")
    out.branch(out.value(f"icmp eq i64 {refused}, 0"), fresh, "stopped")
    out.start(fresh)
    _store(out, load.node.slot, expressions.emit_load(out, place, load.node.tensor.dtype))
    out.branch(out.value(f"icmp eq i64 {mode}, {control.RECORD}"), log, after)

    out.start(log)
    place = out.value(f"call ptr @place(ptr %control, ptr %tell, i64 {row})")
    out.branch(out.value(f"icmp eq ptr {place}, null"), "stopped", record)
    out.start(record)
    out.put(f"store i64 {_slot(out, load.node.slot)}, ptr {place}")
    out.jump(after)

    out.start(recall)
    row = out.value("load i64, ptr %row")
    place = out.value(f"call ptr @place(ptr %control, ptr %tell, i64 {row})")
    out.branch(out.value(f"icmp eq ptr {place}, null"), "stopped", again)
    out.start(again)
    _store(out, load.node.slot, out.value(f"load i64, ptr {place}"))
    out.jump(after)
    out.start(after)


def address(out: Lines, load: Load, array: Array, scope: Scope) -> tuple[str, list[str]]:
    """The element's address, and i1s: it lies inside the view and the array."""
    place, checks = array.address, []
    for dim, stride, size in zip(load.dims, array.strides, array.sizes, strict=True):
        start, _, inside = start_in(out, dim, size, scope)
        place = out.value(f"add i64 {place}, {out.value(f'mul i64 {start}, {stride}')}")
        checks.extend(inside)
    for index, extent in load.inside:
        found = expressions.emit(out, index, scope)
        checks.append(out.value(f"icmp ult i64 {found.name}, {out.datum(extent)}"))
        if found.overflow:
            checks.append(out.value(f"xor i1 {found.overflow}, true"))
    return place, checks


def _slot(out: Lines, slot: int) -> str:
    return _control(out, out.datum(slot))


def _store(out: Lines, slot: int, value: str) -> None:
    out.put(f"store i64 {value}, ptr {out.value(f'getelementptr i64, ptr %control, i64 {out.datum(slot)}')}")


def _control(out: Lines, word: int | str) -> str:
    return out.value(f"load i64, ptr {out.value(f'getelementptr i64, ptr %control, i64 {word}')}")
