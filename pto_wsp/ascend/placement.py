"""Where every tile lies in UB: offsets, bytes and live ranges; memory of dead tiles is used again.

Queue buffers come first, in the order in which the kernel initialises them (that is the address order of TPipe), then
one arena for everything that stays on chip. A result takes its operand's place where the call allows it and nobody
needs the operand any more. Start reading at `place`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pto_wsp.ascend.body import BLOCK, Buffer, Step, ceil_to

UB_BYTES = 184 * 1024 - 256  # the rest belongs to Select, Power and the cross-core messages


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    memory: str  # UB, L1, L0A, L0B, L0C, GM
    offset: int
    bytes: int
    live: str
    what: str


@dataclass(frozen=True)
class Layout:
    """A memory plan: `total` bytes, of which the arena takes the last `arena`."""

    total: int
    arena: int
    queues: int


def live_ranges(before: Sequence[Step], body: Sequence[Step], looped: bool) -> None:
    """First and last step of every buffer; what a loop reads but does not write stays for all of it."""
    steps = [*before, *body]
    for buffer in {id(b): b for s in steps for b in (*s.reads, *s.writes)}.values():
        buffer.first, buffer.last = -1, -1
    for at, step in enumerate(steps):
        for buffer in (*step.reads, *step.writes):
            if buffer.first < 0:
                buffer.first = at
            buffer.last = at
    if looped and body:
        for buffer in {id(b): b for s in steps for b in (*s.reads, *s.writes)}.values():
            if 0 <= buffer.first < len(before) <= buffer.last:
                buffer.last = len(steps) - 1


def join_in_place(before: Sequence[Step], body: Sequence[Step]) -> None:
    """Let results take the place of operands that end with the step that makes them."""
    for at, step in enumerate([*before, *body]):
        if not step.in_place or len(step.writes) != 1:
            continue
        result = step.writes[0]
        if result.kind != "temp" or result.first != at:
            continue
        for operand in step.reads:
            if (
                operand.kind == "temp"
                and operand.last == at
                and operand.first != at
                and operand is not result
                and operand.bytes == result.bytes
            ):
                result.inherits = operand
                break


def root(buffer: Buffer) -> Buffer:
    while buffer.inherits is not None:
        buffer = buffer.inherits
    return buffer


def place(
    before: Sequence[Step],
    body: Sequence[Step],
    queued: Sequence[tuple[Buffer, int]],
    strip: int,
    looped: bool,
) -> Layout:
    """Give every buffer its offset for strips of `strip` rows.

    queued    (buffer, how many) of the tiles that cross GM, in the order of their InitBuffer
    """
    live_ranges(before, body, looped)
    steps = [*before, *body]
    buffers = list({id(b): b for s in steps for b in (*s.reads, *s.writes)}.values())
    for buffer in [*buffers, *(b for b, _ in queued)]:
        buffer.bytes, buffer.inherits = buffer.bytes_for(strip), None
    join_in_place(before, body)
    offset = 0
    for buffer, number in queued:
        buffer.offset = offset
        offset += number * buffer.bytes
    queues = offset
    spans: dict[int, tuple[Buffer, int, int]] = {}
    for buffer in buffers:
        if buffer.kind == "temp":
            head = root(buffer)
            _, first, last = spans.get(id(head), (head, buffer.first, buffer.last))
            spans[id(head)] = (head, min(first, buffer.first), max(last, buffer.last))
    arena = 0
    placed: list[tuple[int, int, int, int]] = []  # offset, end, first, last
    for head, first, last in sorted(spans.values(), key=lambda s: (s[1], -s[0].bytes)):
        at = 0
        for start, end in sorted((o, e) for o, e, born, dead in placed if not (dead < first or last < born)):
            if at + head.bytes <= start:
                break
            at = max(at, end)
        head.offset = at
        placed.append((at, at + head.bytes, first, last))
        arena = max(arena, at + head.bytes)
    for buffer in buffers:
        if buffer.kind == "temp":
            buffer.offset = root(buffer).offset
    arena = ceil_to(arena, BLOCK)
    return Layout(queues + arena, arena, queues)


def overlap(a: Buffer, b: Buffer) -> bool:
    """Do two buffers share bytes?"""
    if a is b:
        return True
    if a.kind != "temp" or b.kind != "temp":
        return False
    return a.offset < b.offset + b.bytes and b.offset < a.offset + a.bytes


def table(rows: Sequence[Row]) -> str:
    """The plan as text."""
    head = ("tile", "memory", "offset", "bytes", "live", "holds")
    cells = [head, *((r.name, r.memory, str(r.offset), str(r.bytes), r.live, r.what) for r in rows)]
    widths = [max(len(c[i]) for c in cells) for i in range(len(head))]
    lines = []
    for cell in cells:
        columns = [
            c.rjust(w) if i in (2, 3) else c.ljust(w)
            for i, (c, w) in enumerate(zip(cell, widths, strict=True))
        ]
        lines.append("  ".join(columns).rstrip())
    return "\n".join(lines)
