"""Reductions of rows and columns as steps.

Rows: WholeReduce calls, one repeat of a row each. Columns: rows added up, one instruction per repeat of columns. The
vector unit reduces floats only; the scalar unit does the integers that it cannot add row on row.
"""

from __future__ import annotations

from pto_wsp.ascend import rules
from pto_wsp.ascend.body import REPEAT, Scalar, Shape, Value, ceil_div, ceil_to
from pto_wsp.ascend.dtypes import BF16, C_TYPES, F16, F32, I32, U32, compute_dtype, literal
from pto_wsp.ascend.elementwise import flipped
from pto_wsp.ascend.strided import MOST_BLOCKS, MOST_REPEATS, ROWS_AT_ONCE, blocks_of_row, by_columns, in_one, repeats
from pto_wsp.ascend.writer import Writer
from pto_wsp.trace.graph import Node

CALLS = {"Sum": "Add", "Max": "Max", "Min": "Min"}


def emit_row_reduce(w: Writer, node: Node, rule: rules.RowReduce) -> Value:
    x = w.value(node.operands[0])
    dtype, name = node.tile.dtype, w.name_for(node)
    if x.shape.packed and not x.shape.single_row:
        return w.converted(x, dtype)  # one column: its own sum
    if dtype.is_int:
        return _integer_rows(w, rule.kind, x, name)
    result = w.converted(_float_rows(w, rule.kind, x, name), dtype)
    return w.by_scalar("Muls", result, _reciprocal(x.shape.cols), name) if rule.mean else result


def emit_col_reduce(w: Writer, node: Node, rule: rules.ColReduce) -> Value:
    x = w.value(node.operands[0])
    dtype, name = node.tile.dtype, w.name_for(node)
    if x.shape.single_row:
        return w.converted(x, dtype)
    if x.shape.packed:  # one column: as one row, which it is in memory
        n, most = x.shape.rows, x.shape.most_rows
        assert most is not None
        as_row = Value(x.buffer, x.dtype, Shape("1", n, 1, most, ceil_to(most, w.unit)), x.once)
        if dtype.is_int:
            return _integer_rows(w, rule.kind, as_row, name)
        total = _float_rows(w, rule.kind, as_row, name)
    elif dtype is U32 and rule.kind != "Sum":
        signed = flipped(w, x)
        assert isinstance(signed, Value)
        return w.seen_as(w.by_scalar("Adds", _reduced_cols(w, rule.kind, signed, name), -(1 << 31)), U32)
    else:
        choice_in_half = x.dtype is F16 and rule.kind != "Sum"  # a sum is carried in float
        compute = F16 if choice_in_half else compute_dtype(dtype, (F32, I32))
        total = _reduced_cols(w, rule.kind, w.converted(x, compute), name)
    total = w.converted(total, dtype)
    return w.by_scalar("Muls", total, _reciprocal(x.shape.rows), name) if rule.mean else total


def _reciprocal(extent: str) -> Scalar:
    if extent.isdigit():
        return Scalar(literal(1 / int(extent), F32), F32)
    return Scalar(f"1.0f / static_cast<float>({extent})", F32)


def _float_rows(w: Writer, kind: str, x: Value, name: str) -> Value:
    """A sum is carried in float; the unit has no bfloat16."""
    return _reduced_rows(w, kind, w.converted(x, F32) if kind == "Sum" or x.dtype is BF16 else x, name)


def _reduced_rows(w: Writer, kind: str, x: Value, name: str) -> Value:
    """Whole-repeat reductions; rows longer than a repeat are folded onto their first repeat, or, when there are fewer
    rows than repeats in a row, reduced repeat by repeat and then once more."""
    shape, lanes = x.shape, REPEAT // x.dtype.itemsize
    if shape.most_cols > lanes and (not in_one(x) or shape.most_cols > 8 * lanes):
        return _reduced_rows(w, kind, _partial_rows(w, kind, x, name), name)
    if shape.most_cols > lanes:
        x = _folded(w, kind, x, name)
    result = w.tile(name, x.dtype, shape.column, x.once)
    mask, blocks = x.shape.cols, blocks_of_row(x)
    if shape.most_rows is None or shape.most_rows <= MOST_REPEATS:
        lines = [_whole_reduce(kind, result.text, x.text, mask, shape.rows, blocks)]
    else:
        w.helpers.add("Least")
        some = f"Least({shape.rows} - r, {ROWS_AT_ONCE})"
        call = _whole_reduce(kind, result.at("r"), x.at(f"r * {x.shape.pitch}"), mask, some, blocks)
        lines = [f"for (uint32_t r = 0; r < {shape.rows}; r += {ROWS_AT_ONCE}) {{", f"  {call}", "}"]
    w.step(lines, [x], [result], x.once)
    return result


def _whole_reduce(kind: str, to: str, x: str, mask: str | int, times: str | int, blocks: int) -> str:
    """One value for each of `times` repeats, which lie `blocks` apart."""
    order = "" if kind == "Sum" else ", ReduceOrder::ORDER_ONLY_VALUE"
    return f"WholeReduce{kind}({to}, {x}, {mask}, {times}, 1, 1, {blocks}{order});"


def _folded(w: Writer, kind: str, x: Value, name: str) -> Value:
    """[rows, cols] -> [rows, one repeat], chunk on chunk."""
    shape, lanes, blocks = x.shape, REPEAT // x.dtype.itemsize, blocks_of_row(x)
    w.helpers.add("Least")
    cols = f"Least({shape.cols}, {lanes})" if not shape.cols.isdigit() else str(lanes)
    fold = w.tile(f"{name}_fold", x.dtype, Shape(shape.rows, cols, shape.most_rows, lanes, lanes), x.once)
    rows = repeats(shape.rows)
    mask = f"Least({shape.cols} - c, {lanes})"
    if shape.cols.isdigit() and int(shape.cols) % lanes == 0:
        mask = str(lanes)
    lines = [
        f"Copy({fold.text}, {x.text}, {lanes}, {rows}, {{1, 1, 8, {blocks}}});",
        f"for (uint32_t c = {lanes}; c < {shape.cols}; c += {lanes}) {{",
        "  PipeBarrier<PIPE_V>();",
        f"  {CALLS[kind]}({fold.text}, {fold.text}, {x.at('c')}, {mask}, {rows}, {{1, 1, 1, 8, 8, {blocks}}});",
        "}",
    ]
    w.step(lines, [x], [fold], x.once)
    return fold


def _partial_rows(w: Writer, kind: str, x: Value, name: str) -> Value:
    """[rows, cols] -> [rows, repeats in a row]"""
    shape, lanes = x.shape, REPEAT // x.dtype.itemsize
    most = -(-shape.most_cols // lanes)
    pitch = ceil_to(most, w.unit)
    to, row, static = f"r * {pitch}", f"r * {shape.pitch}", shape.cols.isdigit()
    cols = ceil_div(shape.cols, lanes)
    part = w.tile(f"{name}_part", x.dtype, Shape(shape.rows, cols, shape.most_rows, most, pitch), x.once)
    full = str(int(shape.cols) // lanes) if static else f"{shape.cols} / {lanes}"
    if most <= MOST_REPEATS:
        lines = [_whole_reduce(kind, part.at(to), x.at(row), lanes, full, 8)]
    else:
        w.helpers.add("Least")
        some = f"Least({full} - k, {ROWS_AT_ONCE})"
        call = _whole_reduce(kind, part.at(f"{to} + k"), x.at(f"{row} + k * {lanes}"), lanes, some, 8)
        lines = [f"for (uint32_t k = 0; k < {full}; k += {ROWS_AT_ONCE}) {{", f"  {call}", "}"]
    start = str(int(full) * lanes) if static else f"{full} * {lanes}"
    rest = str(int(shape.cols) % lanes) if static else f"{shape.cols} % {lanes}"
    tail = _whole_reduce(kind, part.at(f"{to} + {full}"), x.at(f"{row} + {start}"), rest, 1, 8)
    if not static:
        lines += [f"if ({rest} != 0) {{", f"  {tail}", "}"]
    elif rest != "0":
        lines.append(tail)
    loop = [f"for (uint32_t r = 0; r < {shape.rows}; ++r) {{", *(f"  {line}" for line in lines), "}"]
    w.step(loop, [x], [part], x.once)
    return part


def _integer_rows(w: Writer, kind: str, x: Value, name: str) -> Value:
    """The vector unit reduces floats only: the scalar unit adds integers up."""
    shape, c_type = x.shape, C_TYPES[x.dtype]
    result = w.tile(name, x.dtype, shape.column, x.once)
    at = f"{x.text}.GetValue(r * {shape.pitch} + c)"
    wide = "uint64_t" if x.dtype.itemsize == 8 else "uint32_t"
    if kind == "Sum":
        lines = [
            f"  {wide} sum = 0;",
            f"  for (uint32_t c = 0; c < {shape.cols}; ++c) {{",
            f"    sum += static_cast<{wide}>({at});",
            "  }",
            f"  {result.text}.SetValue(r, static_cast<{c_type}>(sum));",
        ]
    else:
        sign = ">" if kind == "Max" else "<"
        lines = [
            f"  {c_type} best = {x.text}.GetValue(r * {shape.pitch});",
            f"  for (uint32_t c = 1; c < {shape.cols}; ++c) {{",
            f"    const {c_type} next = {at};",
            f"    best = next {sign} best ? next : best;",
            "  }",
            f"  {result.text}.SetValue(r, best);",
        ]
    w.step([f"for (uint32_t r = 0; r < {shape.rows}; ++r) {{", *lines, "}"], [x], [result], x.once, "S")
    return result


def _reduced_cols(w: Writer, kind: str, x: Value, name: str) -> Value:
    """Rows accumulate onto a copy of the first: one instruction per repeat of columns, the sum being its own src1."""
    shape, pitch, blocks = x.shape, x.shape.pitch, blocks_of_row(x)
    result = w.tile(name, x.dtype, Shape("1", shape.cols, 1, shape.most_cols, pitch), x.once)
    lines = [f"DataCopy({result.text}, {x.text}, {pitch});", "PipeBarrier<PIPE_V>();"]
    assert shape.most_rows is not None
    if shape.most_rows <= MOST_REPEATS + 1 and blocks <= MOST_BLOCKS:
        rest = str(int(shape.rows) - 1) if shape.rows.isdigit() else f"{shape.rows} - 1"

        def line(at: str, mask: str) -> str:
            start = f"{pitch} + {at}" if at else str(pitch)
            operands = f"{result.at(at)}, {x.at(start)}, {result.at(at)}, {mask}, {repeats(rest)}"
            return f"{CALLS[kind]}({operands}, {{1, 1, 1, 0, {blocks}, 0}});"

        lines += by_columns(pitch, REPEAT // x.dtype.itemsize, line)
    else:
        lines += [
            f"for (uint32_t r = 1; r < {shape.rows}; ++r) {{",
            f"  {CALLS[kind]}({result.text}, {result.text}, {x.at(f'r * {pitch}')}, {pitch});",
            "  PipeBarrier<PIPE_V>();",
            "}",
        ]
    w.step(lines, [x], [result], x.once)
    return result
