"""Ops that move elements without computing, sorting included, as steps: one function per op, see `SHAPING`."""

from __future__ import annotations

from collections.abc import Callable

from pto_wsp.ascend import rules
from pto_wsp.ascend.body import BLOCK, Scalar, Shape, Value, ceil_to
from pto_wsp.ascend.conversions import gather_mask
from pto_wsp.ascend.dtypes import F16, F32, I32, U32
from pto_wsp.ascend.rules import RULES
from pto_wsp.ascend.writer import Writer
from pto_wsp.trace.graph import Node
from pto_wsp.types import ScalarType


def emit_shaping(w: Writer, node: Node, rule: rules.Shaping) -> Value:
    return SHAPING[node.op.name](w, node)


def shape_alloc(w: Writer, node: Node) -> Value:
    dtype = node.tile.dtype
    zero = Scalar("0.0f" if dtype.is_float else "0", dtype)
    return w.full(zero, dtype, w.shape_of(node), w.once(node), w.name_for(node))


def shape_broadcast(w: Writer, node: Node) -> Value:
    x = node.operands[0]
    found = w.scalars[id(x)] if isinstance(x.type, ScalarType) else w.value(x)
    return w.spread(found, w.shape_of(node), node.tile.dtype, w.once(node), w.name_for(node))


def shape_iota(w: Writer, node: Node) -> Value:
    made = w.index(w.shape_of(node), w.once(node), w.name_for(node), U32)
    made.buffer.small = True
    return made


def shape_transpose(w: Writer, node: Node) -> Value:
    x = w.value(node.operands[0])
    shape = w.shape_of(node)
    if x.once and shape.most_rows is None:  # a strip takes its piece of the row
        made = w.tile(w.name_for(node), x.dtype, shape, False)
        unit = BLOCK // x.dtype.itemsize
        w.helpers.add("CeilTo")
        w.step(f"DataCopy({made.text}, {x.at('first')}, CeilTo({shape.rows}, {unit}));", [x], [made], False)
        made.buffer.small = x.buffer.small
        return made
    if x.shape.single_row or x.shape.packed:  # a row and a packed column are the same bytes
        return Value(x.buffer, x.dtype, shape, x.once)
    if x.dtype.itemsize == 1:
        return w.converted(_turned(w, node, w.converted(x, F16), shape), x.dtype)
    return _turned(w, node, x, shape)


def _turned(w: Writer, node: Node, x: Value, shape: Shape) -> Value:
    """16 rows by 32 bytes at a time; the padding of rows and columns up to 16 is turned round too."""
    made = w.tile(w.name_for(node), x.dtype, shape, x.once)
    w.helpers.update(("TurnRound", "CeilTo"))
    moved = w.seen_as(x, F16) if x.dtype.itemsize == 2 else w.seen_as(x, F32)
    to = w.seen_as(made, moved.dtype)
    rows, cols = (
        str(ceil_to(int(e), 16)) if e.isdigit() else f"CeilTo({e}, 16)" for e in (x.shape.rows, x.shape.cols)
    )
    line = f"TurnRound({to.text}, {moved.text}, {rows}, {cols}, {x.shape.pitch}, {shape.pitch});"
    w.step(line, [x], [made], x.once)
    return made


def _sliced(first: int) -> Callable[[Writer, Node], Value]:
    def shape_slice(w: Writer, node: Node) -> Value:
        x, shape = w.value(node.operands[0]), w.shape_of(node)
        if x.dtype.itemsize == 1:
            half = w.converted(x, F16)
            return w.converted(_picked(w, half, shape, first, w.name_for(node)), x.dtype)
        return _picked(w, x, shape, first, w.name_for(node))

    return shape_slice


def _picked(w: Writer, x: Value, shape: Shape, first: int, name: str) -> Value:
    """Every second column from `first` on: GatherMask row by row; into a packed column, Gather."""
    made = w.tile(name, x.dtype, shape, x.once)
    if shape.packed and not shape.single_row:
        size = x.dtype.itemsize
        offsets = w.by_scalar("Muls", w.index(shape.column, x.once, "offsets"), x.shape.pitch * size)
        at = w.seen_as(offsets, U32).text
        line = f"Gather({made.text}, {x.text}, {at}, {first * size}, {shape.rows});"
        w.step(line, [x, offsets], [made], x.once)
        return made
    cols = str(int(x.shape.cols) // 2 * 2) if x.shape.cols.isdigit() else f"{x.shape.cols} / 2 * 2"
    if shape.single_row:
        lines = ["{", *(f"  {line}" for line in gather_mask(made.text, x.text, first + 1, cols)), "}"]
    else:
        call = gather_mask(made.at(f"r * {shape.pitch}"), x.at(f"r * {x.shape.pitch}"), first + 1, cols)
        lines = [f"for (uint32_t r = 0; r < {shape.rows}; ++r) {{", *(f"  {line}" for line in call), "}"]
    w.step(lines, [x], [made], x.once)
    return made


def shape_interleave(w: Writer, node: Node) -> Value:
    x, y = (w.value(o) for o in node.operands)
    shape = w.shape_of(node)
    if x.dtype.itemsize == 1:
        made = _interleaved(w, w.converted(x, F16), w.converted(y, F16), shape, w.name_for(node))
        return w.converted(made, x.dtype)
    return _interleaved(w, x, y, shape, w.name_for(node))


def _interleaved(w: Writer, x: Value, y: Value, shape: Shape, name: str) -> Value:
    """Rows of x and y side by side, then Gather: element j comes from byte j / 2 * size of one or the other."""
    size, dtype = x.dtype.itemsize, x.dtype
    made = w.tile(name, dtype, shape, x.once)
    single = Shape("1", str(shape.pitch), 1, shape.pitch, shape.pitch)
    if x.shape.packed and not x.shape.single_row:  # two columns: all of x, then all of y
        return _interleaved_columns(w, x, y, made)
    pitch = x.shape.pitch
    key = ("turns", pitch, size, shape.pitch)
    if key not in w.known:
        at = w.index(single, True, "offsets")
        pair = w.by_scalar("Muls", w.shift("ShiftRight", at, 1), size - 2 * pitch * size)
        w.known[key] = w.binary(RULES["add"], w.by_scalar("Muls", at, pitch * size), pair)
    offsets = w.known[key]
    side_by_side = Shape(shape.rows, str(2 * pitch), shape.most_rows, 2 * pitch, 2 * pitch)
    pairs = w.tile(f"{name}_pairs", dtype, side_by_side, x.once)
    blocks = pitch * size // BLOCK
    rows = shape.rows if shape.rows.isdigit() else f"static_cast<uint16_t>({shape.rows})"
    for half, operand in ((0, x), (pitch, y)):
        params = f"DataCopyParams{{{rows}, {blocks}, 0, {blocks}}}"
        w.step(f"DataCopy({pairs.at(str(half))}, {operand.text}, {params});", [operand], [pairs], x.once)
    places = w.seen_as(offsets, U32).text
    if shape.single_row:
        lines = [f"Gather({made.text}, {pairs.text}, {places}, 0, {shape.cols});"]
    else:
        row = made.at(f"r * {shape.pitch}")
        gather = f"Gather({row}, {pairs.text}, {places}, r * {2 * pitch * size}, {shape.cols});"
        lines = [f"for (uint32_t r = 0; r < {shape.rows}; ++r) {{", f"  {gather}", "}"]
    w.step(lines, [pairs, offsets], [made], x.once)
    return made


def _interleaved_columns(w: Writer, x: Value, y: Value, made: Value) -> Value:
    """Two packed columns into [rows, 2]: the scalar unit places the elements."""
    pitch = made.shape.pitch
    lines = [
        f"for (uint32_t r = 0; r < {made.shape.rows}; ++r) {{",
        f"  {made.text}.SetValue(r * {pitch}, {x.text}.GetValue(r));",
        f"  {made.text}.SetValue(r * {pitch} + 1, {y.text}.GetValue(r));",
        "}",
    ]
    w.step(lines, [x, y], [made], x.once, "S")
    return made


def shape_sort(w: Writer, node: Node) -> Value:
    """Sort32 orders 32 (key, index) records; missing keys are -inf. The indices come back as floats."""
    scores, idx = (w.value(o) for o in node.operands)
    filled = [
        _filled(w, scores, Scalar(w.literal(float("-inf"), F32), F32), 32),
        _filled(w, w.seen_as(idx, I32), Scalar("0", I32), 32),
    ]
    if not filled[1].buffer.small:  # indices that may be in any order, not an iota
        filled = _by_index(w, *filled)
    records = _sorted(w, *filled)
    keys = _picked(w, records, _row(w, 32), 0, "keys")
    numbers = w.cast(w.seen_as(_picked(w, records, _row(w, 32), 1, "numbers"), I32), F32, "RINT")
    return _interleaved(w, keys, numbers, _row(w, 64), w.name_for(node))


def _row(w: Writer, cols: int) -> Shape:
    return Shape("1", str(cols), 1, cols, ceil_to(cols, w.unit))


def _sorted(w: Writer, keys: Value, payload: Value) -> Value:
    """32 records, largest key first."""
    records = w.tile("records", F32, _row(w, 64), keys.once)
    line = f"Sort32({records.text}, {keys.text}, {w.seen_as(payload, U32).text}, 1);"
    w.step(line, [keys, payload], [records], keys.once)
    return records


def _by_index(w: Writer, scores: Value, idx: Value) -> list[Value]:
    """Scores and indices (below 2**24) by ascending index: Sort32 keeps the order of equal keys."""
    row = _row(w, 32)
    keys = w.by_scalar("Muls", w.cast(idx, F32, "RINT"), -1)
    records = _sorted(w, keys, w.index(row, scores.once, "places"))
    order = w.seen_as(w.shift("ShiftLeft", w.seen_as(_picked(w, records, row, 1, "order"), I32), 2), U32)
    found = []
    for x in (scores, idx):
        made = w.tile(f"{x.buffer.hint}_ordered", x.dtype, row, scores.once)
        w.step(f"Gather({made.text}, {x.text}, {order.text}, 0, 32);", [x, order], [made], scores.once)
        found.append(made)
    return found


def _filled(w: Writer, x: Value, fill: Scalar, cols: int) -> Value:
    """One row of at most one repeat, whole: what a partial tile lacks is `fill`."""
    if x.shape.cols == str(cols):
        return x
    whole = w.tile(f"{x.buffer.hint}_{cols}", fill.dtype, _row(w, cols), x.once)
    w.step(f"Duplicate({whole.text}, {w.as_element(fill, fill.dtype)}, {cols});", [], [whole], x.once)
    w.step(f"Copy({whole.text}, {x.text}, {x.shape.cols}, 1, {{1, 1, 8, 8}});", [x, whole], [whole], x.once)
    return whole


def shape_top(w: Writer, node: Node) -> Value:
    shape = w.shape_of(node)
    pairs = _filled(w, w.value(node.operands[0]), Scalar("0.0f", F32), 64)
    numbers = _picked(w, pairs, _row(w, 32), 1, "numbers")
    made = w.tile(w.name_for(node), I32, shape, pairs.once)
    line = f"Cast({made.text}, {numbers.text}, RoundMode::CAST_TRUNC, {shape.cols});"
    w.step(line, [numbers], [made], pairs.once)
    return made


SHAPING: dict[str, Callable[[Writer, Node], Value]] = {
    "alloc": shape_alloc,
    "broadcast": shape_broadcast,
    "iota_u32": shape_iota,
    "transpose": shape_transpose,
    "slice_even": _sliced(0),
    "slice_odd": _sliced(1),
    "interleave": shape_interleave,
    "tsort32": shape_sort,
    "extract_topk_indices": shape_top,
}
