"""OpKind: the ops of the table as an enumeration, for code that asks what a node is."""

from __future__ import annotations

from enum import Enum

from pto_wsp.trace.ops import OPS

__all__ = ["OpKind"]


def _camel(name: str) -> str:
    """`row_sum` -> `RowSum`; the op's own name is the member's value."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


OpKind = Enum("OpKind", {_camel(name): name for name in OPS})  # type: ignore[misc]
