"""Positions in arrays -> LLVM text, with the checks that they lie inside."""

from __future__ import annotations

from pto_wsp.lower import expressions
from pto_wsp.lower.bindings import Dim
from pto_wsp.lower.expressions import Scope
from pto_wsp.lower.lines import Lines

__all__ = ["start_in"]


def start_in(out: Lines, dim: Dim, length: str, scope: Scope) -> tuple[str, str, list[str]]:
    """First position in a dimension of that length, what is left from there, and i1s: it lies inside."""
    at = expressions.emit(out, dim.start, scope)
    checks = [out.value(f"icmp {'ult' if dim.role == 'fixed' else 'ule'} i64 {at.name}, {length}")]
    left = out.value(f"sub i64 {length}, {at.name}")
    flags = [at.overflow]
    if dim.within is not None:
        low, high = (expressions.emit(out, bound, scope) for bound in dim.within)
        checks.append(out.value(f"icmp sge i64 {at.name}, {low.name}"))
        checks.append(out.value(f"icmp {'slt' if dim.role == 'fixed' else 'sle'} i64 {at.name}, {high.name}"))
        room = out.value(f"sub i64 {high.name}, {at.name}")
        left = out.value(f"call i64 @llvm.smin.i64(i64 {left}, i64 {room})")
        flags += [low.overflow, high.overflow]
    checks.extend(out.value(f"xor i1 {flag}, true") for flag in flags if flag)
    return at.name, left, checks
