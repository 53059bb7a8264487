"""OpKind: the ops of the table as an enumeration, for code that asks what a node is."""

from __future__ import annotations

from enum import Enum

from pto_wsp.trace.ops import OPS

__all__ = ["OpKind"]


SPELLED = {
    "maximum": ("Max",),
    "minimum": ("Min",),
    "rowsum": ("RowSum",),
    "rowmax": ("RowMax",),
    "rowmean": ("RowMean",),
    "colsum": ("ColSum",),
    "colmax": ("ColMax",),
    "rowadd": ("RowBroadcastAdd",),
    "rowmul": ("RowExpandMul", "RowBroadcastMul"),
    "coladd": ("ColBroadcastAdd",),
    "colmul": ("ColBroadcastMul",),
    "tsort32": ("TSort32",),
}


def _members(name: str) -> tuple[str, ...]:
    """`slice_even` -> `SliceEven`, unless SPELLED says otherwise; the op's own name is the member's value."""
    return SPELLED.get(name, ("".join(part[:1].upper() + part[1:] for part in name.split("_")),))


OpKind = Enum("OpKind", [(member, name) for name in OPS for member in _members(name)])  # type: ignore[misc]
OpKind.__doc__ = "The ops of the op table, one member each; the value is the op's name."
