"""Calls whose operands are repeated: one row or one column for all of a result's rows and columns.

One instruction does many rows: a mask for the columns of a repeat, and strides in blocks of 32 bytes from one repeat
to the next, 0 for what is repeated. A column is first spread over blocks (`Writer.blocks_of`), one element to each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pto_wsp.ascend.body import BLOCK, REPEAT, Shape, Value

if TYPE_CHECKING:
    from pto_wsp.ascend.writer import Writer

MOST_REPEATS = 255
MOST_BLOCKS = 255  # of a repeat stride
ROWS_AT_ONCE = 248  # rows of one strided instruction: at most 255, whole groups of 8


def strided(w: Writer, call: str, result: Value, *operands: Value) -> None:
    """call(result, operands...) where some operand is one row or one column for all of the result's."""
    assert not result.shape.packed
    kinds = [_kind(o.shape, result.shape) for o in operands]
    sources = [w.blocks_of(o) if kind == "column" else o for o, kind in zip(operands, kinds, strict=True)]
    if in_one(result):
        lines = _all_rows(call, result, sources, kinds)
    else:
        lines = _row_by_row(call, result, sources, kinds)
    w.step(lines, sources, [result], result.once)


def in_one(x: Value) -> bool:
    """Can one instruction stride over all rows of a tile?"""
    few = x.shape.most_rows is None or x.shape.most_rows <= MOST_REPEATS
    return few and blocks_of_row(x) <= MOST_BLOCKS


def blocks_of_row(x: Value) -> int:
    return x.shape.pitch * x.dtype.itemsize // BLOCK


def _kind(shape: Shape, result: Shape) -> str:
    if shape.packed:
        return "column"
    return "row" if shape.single_row and not result.single_row else "full"


def _all_rows(call: str, result: Value, sources: list[Value], kinds: list[str]) -> list[str]:
    """One repeat per row, columns of a repeat at a time."""
    pitch, blocks = result.shape.pitch, blocks_of_row(result)
    strides = [{"column": (0, 1), "row": (1, 0), "full": (1, blocks)}[kind] for kind in kinds]

    def line(at: str, mask: str) -> str:
        texts = [s.text if kind == "column" else s.at(at) for s, kind in zip(sources, kinds, strict=True)]
        params = _repeat_params([(1, blocks), *strides])
        return f"{call}({result.at(at)}, {', '.join(texts)}, {mask}, {repeats(result.shape.rows)}, {params});"

    return by_columns(pitch, REPEAT // result.dtype.itemsize, line)


def _row_by_row(call: str, result: Value, sources: list[Value], kinds: list[str]) -> list[str]:
    pitch, size = result.shape.pitch, result.dtype.itemsize
    row, lanes = f"r * {pitch}", REPEAT // size
    lines = [f"for (uint32_t r = 0; r < {result.shape.rows}; ++r) {{"]
    if "column" not in kinds and call != "Copy":
        texts = [s.at(row if kind == "full" else "") for s, kind in zip(sources, kinds, strict=True)]
        return [*lines, f"  {call}({result.at(row)}, {', '.join(texts)}, {pitch});", "}"]
    params = _repeat_params([(1, 8), *((0, 0) if kind == "column" else (1, 8) for kind in kinds)])
    pieces = [(first, lanes, min(pitch - first, MOST_REPEATS * lanes) // lanes)
              for first in range(0, pitch - lanes + 1, MOST_REPEATS * lanes)]  # fmt: skip
    if pitch % lanes:
        pieces.append((pitch - pitch % lanes, pitch % lanes, 1))
    for first, mask, times in pieces:
        tail = f" + {first}" if first else ""
        starts = {"column": f"r * {BLOCK // size}", "row": f"0{tail}", "full": row + tail}
        texts = [s.at(starts[kind]) for s, kind in zip(sources, kinds, strict=True)]
        lines.append(f"  {call}({result.at(row + tail)}, {', '.join(texts)}, {mask}, {times}, {params});")
    return [*lines, "}"]


def by_columns(pitch: int, lanes: int, line: Callable[[str, str], str]) -> list[str]:
    """line(offset of the first column, mask), in a loop when rows are longer than a repeat."""
    if pitch <= lanes:
        return [line("", str(pitch))]
    mask = str(lanes) if pitch % lanes == 0 else f"{pitch} - c < {lanes} ? {pitch} - c : {lanes}"
    return [f"for (uint32_t c = 0; c < {pitch}; c += {lanes}) {{", f"  {line('c', mask)}", "}"]


def repeats(rows: str) -> str:
    """Rows as the number of repeats of an instruction."""
    return rows if rows.isdigit() else f"static_cast<uint8_t>({rows})"


def _repeat_params(strides: list[tuple[int, int]]) -> str:
    """BinaryRepeatParams, UnaryRepeatParams or CopyRepeatParams: block strides, then repeat strides."""
    numbers = [b for b, _ in strides] + [r for _, r in strides]
    return "{" + ", ".join(map(str, numbers)) + "}"
