"""Steps of a vector core: AscendC calls over tiles in UB.

Tiles in UB are row-major with a pitch of whole 32-byte blocks, the same number of elements for every dtype of a
kernel, so that element-wise calls and casts run over the padding in count form. A single column is packed.
Each verb of `Writer` appends a step and gives the tile it makes; rules (`rules.py`, `elementwise.py`, `reductions.py`,
`shaping.py`) are written in these verbs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pto_wsp.ascend import rules
from pto_wsp.ascend.body import BLOCK, REPEAT, Bits, Buffer, Scalar, Shape, Value, ceil_div, ceil_to
from pto_wsp.ascend.conversions import convert
from pto_wsp.ascend.dtypes import BF16, C_TYPES, F16, F32, I32, U8, U32
from pto_wsp.ascend.names import Names
from pto_wsp.ascend.rules import RULES
from pto_wsp.ascend.scalars import ScalarWriter, as_float, negative
from pto_wsp.ascend.strided import strided
from pto_wsp.trace.graph import KernelGraph, Node
from pto_wsp.types import DType, ScalarType


class Writer(ScalarWriter):
    """Steps of one vector phase under construction."""

    def __init__(
        self,
        graph: KernelGraph,
        shape_of: Callable[[Node], Shape],
        once: Callable[[Node], bool],
        unit: int,
        names: Names,
        scalars: dict[int, Scalar],
    ) -> None:
        super().__init__(graph, names, scalars)
        self.shape_of = shape_of  # extents of a node's tile in this phase
        self.once = once  # is it the same for every strip?
        self.unit = unit  # elements that row pitches are multiples of
        self.values: dict[int, Value | Bits] = {}
        self.known: dict[tuple[Any, ...], Value] = {}  # tiles made once: conversions, constants
        self._read: dict[tuple[Any, ...], Scalar] = {}  # tiles of one element, read by the scalar unit
        # transpositions go by squares of 16 rows, comparisons by whole repeats: every tile has room for that
        self._turns = any(n.op.name == "transpose" and min(n.tile.shape) > 1 for n in graph.nodes)
        self._granule = REPEAT if any(map(_compares, graph.nodes)) else BLOCK

    # ---- buffers

    def buffer(
        self, name: str, dtype: DType, bytes_for: Callable[[int], int], shape: str, kind: str = "temp"
    ) -> Buffer:
        made = Buffer(name, dtype, kind, lambda strip: max(BLOCK, ceil_to(bytes_for(strip), BLOCK)), shape)
        self.phase.buffers.append(made)
        return made

    def tile(self, name: str, dtype: DType, shape: Shape, once: bool, kind: str = "temp") -> Value:
        """A new buffer for a tile."""

        def bytes_for(strip: int) -> int:
            elements = shape.elements(strip)
            if self._turns and shape.most_rows is not None:
                elements = ceil_to(shape.most_rows, 16) * shape.pitch
            return ceil_to(ceil_to(elements, self.unit) * dtype.itemsize, self._granule)

        return Value(self.buffer(name, dtype, bytes_for, shape.text(dtype), kind), dtype, shape, once)

    def count(self, shape: Shape) -> str:
        """How many elements a count call covers: padding between rows included."""
        if shape.packed:
            return shape.rows
        if shape.single_row:
            return shape.cols
        if shape.rows.isdigit():
            return str(int(shape.rows) * shape.pitch)
        return f"{shape.rows} * {shape.pitch}"

    def compare_count(self, shape: Shape, dtype: DType) -> str:
        """`count` rounded up to whole 256-byte repeats."""
        lanes = REPEAT // dtype.itemsize
        text = self.count(shape)
        if text.isdigit():
            return str(ceil_to(int(text), lanes))
        if not shape.packed and not shape.single_row and shape.pitch % lanes == 0:
            return text
        self.helpers.add("CeilTo")
        return f"CeilTo({text}, {lanes})"

    # ---- values

    def value(self, node: Node) -> Value:
        """The node's tile, as elements of its own dtype."""
        found = self.values[id(node)]
        if isinstance(found, Bits):
            key = ("u8", id(found.buffer))
            if key not in self.known:
                self.known[key] = self.bits_as_tile(found)
            return self.known[key]
        return found

    def operand(self, node: Node, dtype: DType) -> Value | Scalar:
        """An operand of a computation in `dtype`; a scalar as it is."""
        if isinstance(node.type, ScalarType):
            return self.scalars[id(node)]
        return self.converted(self.value(node), dtype)

    def converted(self, x: Value, dtype: DType) -> Value:
        """x in another dtype, as the op table's cast has it; made once per value."""
        if x.dtype is dtype:
            return x
        key = ("cast", id(x.buffer), x.dtype, dtype)
        if key not in self.known:
            self.known[key] = convert(self, x, dtype)
        return self.known[key]

    def seen_as(self, x: Value, dtype: DType) -> Value:
        """The same bits as another dtype of that size."""
        return Value(x.buffer, dtype, x.shape, x.once)

    def as_scalar(self, value: Value) -> Scalar:
        """The one element of a tile, read by the scalar unit."""
        key = ("scalar", id(value.buffer), value.dtype)
        if key not in self._read:
            if value.dtype is BF16:
                value = self.converted(value, F32)
            name = self.names.new(f"{value.buffer.hint}_value")
            c_type = C_TYPES[F32 if value.dtype is F16 else value.dtype]
            read = f"{value.text}.GetValue(0)"
            if value.dtype is F16:
                read = f"static_cast<float>({read})"
            self.step(f"const {c_type} {name} = {read};", [value], [], value.once, "S")
            self._read[key] = Scalar(name, value.dtype)
        return self._read[key]

    def element_of(self, x: Value | Scalar, shape: Shape) -> Value | Scalar:
        """What a result of some shape takes from x: a tile of one element counts as a number there."""
        if isinstance(x, Value) and x.shape.single and not shape.single:
            return self.as_scalar(x)
        return x

    def result_shape(self, *operands: Value | Scalar) -> tuple[Shape, bool]:
        """Shape of operands broadcast together, and whether the result is the same for every strip."""
        shapes = [o.shape for o in operands if isinstance(o, Value)]
        once = all(o.once for o in operands if isinstance(o, Value))
        rows = next((s for s in shapes if s.most_rows != 1), shapes[0])
        cols = next((s for s in shapes if s.most_cols != 1), shapes[0])
        return Shape(rows.rows, cols.cols, rows.most_rows, cols.most_cols, cols.pitch), once

    # ---- calls

    def over_count(
        self, name: str, call: str, x: Value, *more: str, dtype: DType | None = None, in_place: bool = True
    ) -> Value:
        """result = call(result, x, more ..., count): all elements at once."""
        result = self.tile(name, dtype or x.dtype, x.shape, x.once)
        arguments = ", ".join([result.text, x.text, *more, self.count(x.shape)])
        self.step(f"{call}({arguments});", [x], [result], x.once, in_place=in_place)
        return result

    def cast(self, x: Value, dtype: DType, mode: str, name: str = "") -> Value:
        """One conversion that the unit has; `converted` finds the way to any dtype."""
        name = name or f"{x.buffer.hint}_{dtype}"
        same_size = dtype.itemsize == x.dtype.itemsize
        return self.over_count(name, "Cast", x, f"RoundMode::CAST_{mode}", dtype=dtype, in_place=same_size)

    def shift(self, call: str, x: Value, bits: int) -> Value:
        return self.over_count(f"{x.buffer.hint}_shifted", call, x, f"static_cast<{C_TYPES[x.dtype]}>({bits})")

    def unary(self, call: str, x: Value, name: str = "") -> Value:
        return self.over_count(name or call.lower(), call, x)

    def by_scalar(self, call: str, x: Value, scalar: Scalar | float, name: str = "") -> Value:
        """Adds, Muls, Maxs, Mins; a Python number is taken as x's dtype."""
        if not isinstance(scalar, Scalar):
            scalar = Scalar(self.literal(scalar, x.dtype), x.dtype)
        return self.over_count(name or call.lower(), call, x, self.as_element(scalar, x.dtype))

    def index(self, shape: Shape, once: bool, name: str, dtype: DType = I32) -> Value:
        """0, 1, 2 ... in memory order."""
        made = self.tile(name, dtype, shape, once)
        as_signed = self.seen_as(made, I32).text
        self.step(f"CreateVecIndex({as_signed}, static_cast<int32_t>(0), {self.count(shape)});", [], [made], once)
        return made

    def full(self, scalar: Scalar, dtype: DType, shape: Shape, once: bool, name: str = "") -> Value:
        """A tile of one number."""
        if dtype.itemsize == 1:
            half = self.full(as_float(scalar), F16, shape, once)
            return self.converted(half, dtype)
        key = ("full", scalar.text, dtype, shape, once)
        if key not in self.known:
            result = self.tile(name or "full", dtype, shape, once)
            element = self.as_element(scalar, dtype)
            self.step(f"Duplicate({result.text}, {element}, {self.count(shape)});", [], [result], once)
            self.known[key] = result
        return self.known[key]

    def over(self, number: float, x: Value, name: str = "") -> Value:
        """number / x"""
        scalar = Scalar(self.literal(number, x.dtype), x.dtype)
        whole = self.full(scalar, x.dtype, x.shape, x.once, "ones" if number == 1 else "")
        return self.binary(RULES["div"], whole, x, name)

    def binary(self, rule: Any, x: Value | Scalar, y: Value | Scalar, name: str = "") -> Value:
        """rule.call(x, y), one of them possibly a scalar, a row, a column or a single element."""
        shape, once = self.result_shape(x, y)
        x, y = self.element_of(x, shape), self.element_of(y, shape)
        if isinstance(x, Scalar) or isinstance(y, Scalar):
            return self._with_scalar(rule, x, y, name)
        result = self.tile(name or rule.call.lower(), x.dtype, shape, once)
        if x.shape.covers(y.shape):
            line = f"{rule.call}({result.text}, {x.text}, {y.text}, {self.count(shape)});"
            self.step(line, [x, y], [result], once, in_place=True)
        else:
            strided(self, rule.call, result, x, y)
        return result

    def _with_scalar(self, rule: Any, x: Any, y: Any, name: str) -> Value:
        tile, scalar = (y, x) if isinstance(x, Scalar) else (x, y)
        if rule.commutes and rule.with_scalar:
            return self.by_scalar(rule.with_scalar, tile, scalar, name)
        if rule.call == "Sub" and scalar is y:
            return self.by_scalar("Adds", tile, negative(scalar, tile.dtype), name)
        if rule.call == "Sub":
            return self.by_scalar("Adds", self.by_scalar("Muls", tile, -1), scalar, name)
        whole = self.full(scalar, tile.dtype, tile.shape, tile.once)
        return self.binary(rule, whole if scalar is x else tile, whole if scalar is y else tile, name)

    def spread(self, x: Value | Scalar, shape: Shape, dtype: DType, once: bool, name: str = "") -> Value:
        """x repeated to a shape."""
        if isinstance(x, Value) and x.shape.covers(shape):
            return x
        x = self.element_of(x, shape)
        if isinstance(x, Scalar):
            return self.full(x, dtype, shape, once, name)
        if x.dtype.itemsize == 1:
            return self.converted(self.spread(self.converted(x, F16), shape, F16, once, name), x.dtype)
        result = self.tile(name or f"{x.buffer.hint}_spread", x.dtype, shape, once)
        strided(self, "Copy", result, x)
        return result

    def packed(self, x: Value, shape: Shape) -> Value:
        """A vector that has a block for each element, one element after another."""
        at = self.by_scalar("Muls", self.index(x.shape.column, x.once, "places"), BLOCK)
        result = self.tile(x.buffer.hint, x.dtype, shape, x.once)
        line = f"Gather({result.text}, {x.text}, {self.seen_as(at, U32).text}, 0, {x.shape.rows});"
        self.step(line, [x, at], [result], x.once)
        return result

    def blocks_of(self, column: Value) -> Value:
        """Each element of a packed column repeated through a block of its own."""
        key = ("blocks", id(column.buffer), column.dtype)
        if key not in self.known:
            shape, lanes = column.shape, BLOCK // column.dtype.itemsize
            wide = Shape(shape.rows, str(lanes), shape.most_rows, lanes, lanes)
            self.known[key] = self._in_blocks(column, wide, f"{column.buffer.hint}_blocks", column.once, "temp")
        return self.known[key]

    def scattered(self, x: Value, shape: Shape, name: str) -> Value:
        """A vector with a block for each element, on its way out."""
        return self._in_blocks(x, shape, name, False, "out")

    def _in_blocks(self, x: Value, shape: Shape, name: str, once: bool, kind: str) -> Value:
        """Brcb fills 8 blocks at a time."""

        def bytes_for(strip: int) -> int:
            return ceil_to(shape.elements(strip) * x.dtype.itemsize, 8 * BLOCK)

        made = Value(self.buffer(name, x.dtype, bytes_for, shape.text(x.dtype), kind), x.dtype, shape, once)
        self.step(f"Brcb({made.text}, {x.text}, {ceil_div(shape.rows, 8)}, {{1, 8}});", [x], [made], once)
        return made

    # ---- comparison and choice

    def bits_like(self, shape: Shape, once: bool, name: str) -> Bits:
        buffer = self.buffer(
            name,
            U8,
            lambda strip: ceil_to(ceil_to(shape.elements(strip), self.unit), 128) // 8,
            shape.text(U8).replace("u8", "bits"),
        )
        return Bits(buffer, shape, once)

    def compare(self, mode: str, x: Value, y: Value | Scalar) -> Bits:
        bits = self.bits_like(x.shape, x.once, "where_bits")
        if isinstance(y, Scalar):
            call, other, reads = "CompareScalar", self.as_element(y, x.dtype), [x]
        else:
            call, other, reads = "Compare", y.text, [x, y]
        count = self.compare_count(x.shape, x.dtype)
        line = f"{call}({bits.buffer.name}, {x.text}, {other}, CMPMODE::{mode}, {count});"
        self.step(line, reads, [bits], x.once)
        return bits

    def negated(self, bits: Bits) -> Bits:
        result = self.bits_like(bits.shape, bits.once, f"{bits.buffer.hint}_not")
        elements = self.compare_count(bits.shape, F16)
        words = str(int(elements) // 16) if elements.isdigit() else f"({elements}) / 16"
        to, by = (f"{b.buffer.name}.ReinterpretCast<uint16_t>()" for b in (result, bits))
        self.step(f"Not({to}, {by}, {words});", [bits], [result], bits.once, in_place=True)
        return result

    def select(self, bits: Bits, x: Value | Scalar, y: Value | Scalar, name: str = "") -> Value:
        """x where the bit is 1, else y; both of one shape, half or float."""
        dtype = x.dtype if isinstance(x, Value) else y.dtype if isinstance(y, Value) else F32
        once = bits.once and all(v.once for v in (x, y) if isinstance(v, Value))
        if isinstance(x, Scalar):
            x = self.full(x, dtype, bits.shape, once)
        result = self.tile(name or "chosen", dtype, bits.shape, once)
        reads: list[Bits | Value] = [bits, x]
        if isinstance(y, Scalar):
            second, mode = self.as_element(y, dtype), "SCALAR"
        else:
            second, mode = y.text, "TENSOR"
            reads.append(y)
        how = f"SELMODE::VSEL_TENSOR_{mode}_MODE, {self.count(bits.shape)}"
        self.step(f"Select({result.text}, {bits.buffer.name}, {x.text}, {second}, {how});", reads, [result], once)
        return result

    def bits_as_tile(self, bits: Bits) -> Value:
        """0 or 1 as u8."""
        whole = self.select(bits, Scalar("1.0f", F32), Scalar("0.0f", F32))
        return self.converted(self.cast(whole, F16, "RINT"), U8)

    def bits_of(self, node: Node, shape: Shape) -> Bits:
        """A u8 mask as bits of a shape; a comparison of that shape has them already."""
        found = self.values.get(id(node))
        if isinstance(found, Bits) and found.shape.covers(shape):
            return found
        half = self.converted(self.value(node), F16)
        once = half.once and shape.most_rows is not None
        return self.compare("NE", self.spread(half, shape, F16, once), Scalar("0.0f", F16))


def _compares(node: Node) -> bool:
    """Is the node made with bits? Integer division and casts are, too."""
    if isinstance(RULES[node.op.name], (rules.Compare, rules.Select)):
        return True
    return node.op.name in ("div", "cast") and node.type is not None and node.type.dtype.is_int
