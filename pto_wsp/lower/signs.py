"""Signs that are known before a kernel runs: exp takes less where its argument is never positive.

So it is in softmax, x - rowmax(x), and in exp(-x * x), exp(-abs(x)), exp(minimum(x, 0)). What these functions say holds
for every float value but NaN; where they are not sure, they say False.
"""

from __future__ import annotations

from pto_wsp.trace.graph import Node

__all__ = ["never_negative", "never_positive"]

DEEPEST = 6  # operations to look back: sure to end soon, however values are shared
KEEP_SIGNS = ("broadcast", "cast", "slice_even", "slice_odd", "rowmax", "rowmin", "rowsum", "rowmean", "colmax",
              "colmin", "colsum", "colmean", "add")  # fmt: skip
NEVER_NEGATIVE = ("abs", "exp", "sigmoid", "relu", "sqrt")


def never_positive(node: Node, deep: int = DEEPEST) -> bool:
    """Is each element 0 or less?"""
    if not _is_float(node) or not deep:
        return False
    name, operands = node.op.name, node.operands
    if name == "constant":
        return bool(node.attrs["value"] <= 0)
    if name == "neg":
        return never_negative(operands[0], deep - 1)
    if name == "sub":
        return at_most(operands[0], operands[1], deep - 1)
    if name in ("mul", "rowmul", "colmul"):
        return any(never_positive(x, deep - 1) and never_negative(y, deep - 1) for x, y in (operands, operands[::-1]))
    if name == "minimum":
        return any(never_positive(x, deep - 1) for x in operands)
    return name in (*KEEP_SIGNS, "maximum") and all(never_positive(x, deep - 1) for x in operands)


def never_negative(node: Node, deep: int = DEEPEST) -> bool:
    """Is each element 0 or more?"""
    if not _is_float(node) or not deep:
        return False
    name, operands = node.op.name, node.operands
    if name == "constant":
        return bool(node.attrs["value"] >= 0)
    if name == "neg":
        return never_positive(operands[0], deep - 1)
    if name in ("mul", "rowmul", "colmul"):
        same = operands[0] is operands[1]
        return same or any(all(sign(x, deep - 1) for x in operands) for sign in (never_negative, never_positive))
    if name == "maximum":
        return any(never_negative(x, deep - 1) for x in operands)
    keeps = name in (*KEEP_SIGNS, "minimum") and all(never_negative(x, deep - 1) for x in operands)
    return keeps or name in NEVER_NEGATIVE


def at_most(x: Node, y: Node, deep: int = DEEPEST) -> bool:
    """Is no element of x larger than what y has for it? Rounding keeps that order."""
    if x is y or not deep:
        return x is y
    if y.op.name in ("rowmax", "colmax", "broadcast"):
        return at_most(x, y.operands[0], deep - 1)
    if y.op.name == "maximum":
        return any(at_most(x, larger, deep - 1) for larger in y.operands)
    return x.op.name == "minimum" and any(at_most(smaller, y, deep - 1) for smaller in x.operands)


def _is_float(node: Node) -> bool:
    return node.type is not None and node.type.dtype.is_float
