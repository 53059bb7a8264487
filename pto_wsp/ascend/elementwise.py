"""Element-wise ops as steps: arithmetic, functions, comparison and choice.

One function per kind of rule (`rules.py`), (writer, node, rule) -> what it makes. Element types that a call does not
take are converted on the way in and back on the way out.
"""

from __future__ import annotations

from pto_wsp.ascend import rules
from pto_wsp.ascend.body import Bits, Scalar, Shape, Value, ceil_to
from pto_wsp.ascend.dtypes import F16, F32, I32, U8, U32, compute_dtype
from pto_wsp.ascend.rules import RULES
from pto_wsp.ascend.scalars import as_float
from pto_wsp.ascend.writer import Writer
from pto_wsp.trace.graph import Node
from pto_wsp.types import DType, ScalarType


def _back(w: Writer, node: Node, value: Value) -> Value:
    """A computed value in the node's own dtype."""
    return w.converted(value, node.tile.dtype)


def emit_binary(w: Writer, node: Node, rule: rules.Binary) -> Value:
    dtype = node.tile.dtype
    if dtype.is_int and rule.call == "Div":
        return _integer_division(w, node)
    if not dtype.is_signed and rule.call in ("Max", "Min"):
        return _unsigned_order(w, node, rule)
    compute = compute_dtype(dtype, rule.dtypes)
    x, y = (w.operand(o, compute) for o in node.operands)
    return _back(w, node, w.binary(rule, x, y, w.name_for(node)))


def _unsigned_order(w: Writer, node: Node, rule: rules.Binary) -> Value:
    """Largest and smallest of unsigned numbers: in a wider signed type, or with the top bit flipped."""
    dtype = node.tile.dtype
    if dtype is not U32:
        x, y = (w.operand(o, I32) for o in node.operands)
        return _back(w, node, w.binary(rule, x, y))
    x, y = (flipped(w, w.operand(o, U32)) for o in node.operands)
    return w.seen_as(w.by_scalar("Adds", w.binary(rule, x, y), -(1 << 31)), U32)


def flipped(w: Writer, x: Value | Scalar) -> Value | Scalar:
    """u32 minus 2**31, as i32: the same order."""
    if isinstance(x, Scalar):
        return w.named(f"static_cast<int32_t>({x.text} - 2147483648u)", I32)
    key = ("flipped", id(x.buffer))
    if key not in w.known:
        w.known[key] = w.by_scalar("Adds", w.seen_as(x, I32), -(1 << 31))
    return w.known[key]


def _integer_division(w: Writer, node: Node) -> Value:
    """trunc(x / y) in float, 0 where y is 0: exact while both are below 2**24."""
    shape, once = w.shape_of(node), w.once(node)
    found = (w.operand(o, F32) for o in node.operands)
    x, y = (w.spread(as_float(o) if isinstance(o, Scalar) else o, shape, F32, once) for o in found)
    quotient = w.cast(w.binary(RULES["div"], x, y), F32, "TRUNC")
    some = w.compare("NE", y, Scalar("0.0f", F32))
    return _back(w, node, w.select(some, quotient, Scalar("0.0f", F32)))


def emit_unary(w: Writer, node: Node, rule: rules.Unary) -> Value:
    x = w.operand(node.operands[0], compute_dtype(node.tile.dtype, rule.dtypes))
    assert isinstance(x, Value)
    return _back(w, node, w.unary(rule.call, x, w.name_for(node)))


def emit_library(w: Writer, node: Node, rule: rules.Library) -> Value:
    x = w.operand(node.operands[0], compute_dtype(node.tile.dtype, rules.FLOAT))
    assert isinstance(x, Value)
    which = x.dtype.itemsize // 4  # 0 for half, 1 for float
    result = w.tile(w.name_for(node), x.dtype, x.shape, x.once)
    shape, per_element, least = x.shape, rule.scratch[which], rule.least[which]
    scratch = []
    if per_element:

        def bytes_for(strip: int) -> int:
            return max(least, per_element * ceil_to(shape.elements(strip), w.unit))

        scratch = [w.buffer(f"{rule.call.lower()}_tmp", U8, bytes_for, "scratch")]
    arguments = ", ".join([result.text, x.text, *(s.name for s in scratch), w.count(x.shape)])
    w.step(f"{rule.call}({arguments});", [x, *scratch], [result, *scratch], x.once)
    return _back(w, node, result)


def emit_rounding(w: Writer, node: Node, rule: rules.Rounding) -> Value:
    x = w.operand(node.operands[0], F32)
    assert isinstance(x, Value)
    return _back(w, node, w.cast(x, F32, rule.mode, w.name_for(node)))


def emit_compose(w: Writer, node: Node, rule: rules.Compose) -> Value:
    dtype = node.tile.dtype
    if not dtype.is_signed and node.op.name in ("abs", "relu"):
        return w.value(node.operands[0])
    operands = [w.operand(o, compute_dtype(dtype, rule.dtypes)) for o in node.operands]
    if node.op.name == "fma":
        shape, once = w.shape_of(node), w.once(node)
        operands = [w.spread(o, shape, F32, once) for o in operands]
    return _back(w, node, rule.body(w, *operands))


def emit_convert(w: Writer, node: Node, rule: rules.Convert) -> Value:
    x = w.value(node.operands[0])
    return w.converted(x, node.tile.dtype)


def emit_compare(w: Writer, node: Node, rule: rules.Compare) -> Bits:
    dtype = node.operands[0].type.dtype  # type: ignore[union-attr]
    shape, once = w.shape_of(node), w.once(node)
    if dtype.is_float or dtype.itemsize <= 2:
        compute = dtype if dtype in rules.FLOAT else F16 if dtype.itemsize == 1 else F32
        x, y = (w.operand(o, compute) for o in node.operands)
        return _compared(w, rule.mode, x, y, shape, compute, once)
    x, y = (w.operand(o, I32 if dtype is not U32 else U32) for o in node.operands)
    if dtype is U32:
        same_signed = rule.mode in ("EQ", "NE") or all(isinstance(o, Value) and o.buffer.small for o in (x, y))
        x, y = (_as_signed(w, o) if same_signed else flipped(w, o) for o in (x, y))
    return _integers_compared(w, rule.mode, x, y, shape, once)


def _as_signed(w: Writer, x: Value | Scalar) -> Value | Scalar:
    return w.seen_as(x, I32) if isinstance(x, Value) else Scalar(f"static_cast<int32_t>({x.text})", I32)


SWAPPED = {"LT": "GT", "GT": "LT", "LE": "GE", "GE": "LE", "EQ": "EQ", "NE": "NE"}


def _compared(
    w: Writer, mode: str, x: Value | Scalar, y: Value | Scalar, shape: Shape, dtype: DType, once: bool
) -> Bits:
    x, y = w.element_of(x, shape), w.element_of(y, shape)
    x, y = (as_float(o) if isinstance(o, Scalar) else o for o in (x, y))
    if isinstance(x, Scalar):
        x, y, mode = y, x, SWAPPED[mode]
    x = w.spread(x, shape, dtype, once)
    return w.compare(mode, x, y if isinstance(y, Scalar) else w.spread(y, shape, dtype, once))


def _integers_compared(
    w: Writer, mode: str, x: Value | Scalar, y: Value | Scalar, shape: Shape, once: bool
) -> Bits:
    """Only EQ exists for int32: x >= y is max(x, y) == x, x <= y is min(x, y) == x, the others are their opposites."""
    if isinstance(x, Scalar):
        x, y, mode = y, x, SWAPPED[mode]
    x = w.spread(x, shape, I32, once)
    y = y if isinstance(y, Scalar) else w.spread(y, shape, I32, once)
    if mode in ("EQ", "NE"):
        bits = w.compare("EQ", x, y)
        return bits if mode == "EQ" else w.negated(bits)
    extreme = w.binary(RULES["maximum" if mode in ("GE", "LT") else "minimum"], x, y)
    bits = w.compare("EQ", extreme, x)
    return bits if mode in ("GE", "LE") else w.negated(bits)


def emit_select(w: Writer, node: Node, rule: rules.Select) -> Value:
    shape, once, dtype = w.shape_of(node), w.once(node), node.tile.dtype
    mask, x, y = node.operands
    held = F16 if dtype.itemsize == 1 else dtype  # what is converted, and how the unit sees it
    moved = {2: F16, 4: F32}[held.itemsize]
    operands: list[Value | Scalar] = []
    for o in (x, y):
        found = w.operand(o, held)
        if dtype in (F16, F32):
            found = w.element_of(found, shape)
        elif isinstance(found, Scalar):
            found = w.full(found, held, shape, once)
        if isinstance(found, Value):
            found = w.seen_as(w.spread(found, shape, held, once), moved)
        operands.append(found)
    if isinstance(mask.type, ScalarType):
        chosen = w.full(Scalar(f"static_cast<float>({w.scalars[id(mask)].text} != 0)", F16), F16, shape, once)
        bits = w.compare("NE", chosen, Scalar("0.0f", F16))
    else:
        bits = w.bits_of(mask, shape)
    first, second = operands
    if isinstance(first, Scalar) and isinstance(second, Scalar):
        first = w.full(first, moved, shape, once)
    made = w.select(bits, first, second, w.name_for(node))
    return w.converted(made, dtype) if dtype.itemsize == 1 else w.seen_as(made, dtype)
