"""Lines of C++: broken where they are too long, products named that stand in several of them, the user's line above."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pto_wsp.ascend.names import MOST_COMMENT, comment, place_of, source_of
from pto_wsp.trace.graph import Node

__all__ = ["WIDTH", "comment_on", "counted", "signature", "wrapped"]

WIDTH = 80  # of a line of C++


def comment_on(node: Node) -> str:
    """`// rmsnorm.py:9: sq = pto.mul(x, x)`"""
    source = source_of(node.line)
    text = f"{place_of(node.line)}: {source}" if source else node.op.name
    return f"// {comment(text, MOST_COMMENT)}"


def counted(lines: list[str]) -> list[str]:
    """`n * 128` used more than once gets a name."""
    found: dict[str, int] = {}
    for line in lines:
        for product in re.findall(r"\b(?:n|\w+_gm\.rows) \* \d+\b(?! [*/])", line):
            found[product] = found.get(product, 0) + 1
    often = [product for product, times in found.items() if times > 1]
    head: list[str] = []
    for product in often:
        name = "count" if len(often) == 1 else f"count_{product.rsplit(' ', 1)[1]}"
        if any(re.search(rf"\b{name}\b", line) for line in (*head, *lines)):
            continue
        head.append(f"const uint32_t {name} = {product};")
        lines = [re.sub(rf"(?<![\w.]){re.escape(product)}\b(?! [*/])", name, line) for line in lines]
    return head + lines


def signature(start: str, arguments: Sequence[str], end: str) -> str:
    """A call or declaration, its arguments on as many lines as they need."""
    return "\n".join(wrapped([start + ", ".join(arguments) + end], WIDTH))


def wrapped(lines: list[str], width: int = WIDTH - 2) -> list[str]:
    """Break what is too long after an argument, the next one under the first; after the bracket if that is no good."""
    out: list[str] = []
    for line in lines:
        if len(line) <= width or line.lstrip().startswith("//"):
            out.append(line)
            continue
        opening = _opening(line)
        if opening < 0:
            out.append(line)
            continue
        head, pieces = line[: opening + 1], _arguments(line[opening + 1 :])
        indent = opening + 1
        if max(len(p) for p in pieces) + indent > width:
            out.append(head)
            indent = len(line) - len(line.lstrip()) + 4
            head = " " * indent
        row = head
        for piece in pieces:
            if len(row) + len(piece) > width and row != head:
                out.append(row.rstrip())
                row = " " * indent
            if len(row) + len(piece) > width and "{" in piece:  # an argument too long for any line
                *full, piece = _braced(row + piece, width)
                out += full
                row = piece + " "
            else:
                row += piece + " "
        out.append(row.rstrip())
    return out


def _braced(text: str, width: int) -> list[str]:
    """`GmTile{a, b, c}` on several lines, the later ones under the first element."""
    opening = text.index("{") + 1
    out, row = [], text[:opening]
    for piece in _arguments(text[opening:]):
        if len(row) + len(piece) > width:
            out.append(row.rstrip())
            row = " " * opening
        row += piece + " "
    return [*out, row.rstrip()]


def _opening(line: str) -> int:
    """The bracket of the first call that has arguments."""
    depth = 0
    for at, c in enumerate(line):
        if c == "(" and not line[:at].rstrip().endswith(("for", "if", "while")):
            inner = _arguments(line[at + 1 :])
            if len(inner) > 1 and depth == 0:
                return at
    return -1


def _arguments(text: str) -> list[str]:
    """The text after an opening bracket, cut after its commas; the last piece keeps what follows."""
    pieces, depth, start = [], 0, 0
    for at, c in enumerate(text):
        if c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
            if depth < 0:
                break
        elif c == "," and depth == 0:
            pieces.append(text[start : at + 1])
            start = at + 2
    return [*pieces, text[start:]]
