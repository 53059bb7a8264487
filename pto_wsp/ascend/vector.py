"""Tile ops as steps of a vector core: which AscendC calls, over which buffers, in which order.

Tiles in UB are row-major with a pitch of whole 32-byte blocks, the same number of elements for every dtype of a
kernel, so that element-wise calls and casts run over the padding in count form. A single column is packed.
`Writer.emit` takes a node to its rule; what a rule needs of the device is a method of Writer.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from pto_wsp.ascend import rules
from pto_wsp.ascend.body import (
    BLOCK,
    C_TYPES,
    REPEAT,
    Bits,
    Buffer,
    Phase,
    Scalar,
    Shape,
    Step,
    Value,
    ceil_to,
)
from pto_wsp.ascend.names import Names, assigned_name
from pto_wsp.ascend.rules import RULES
from pto_wsp.errors import CompileError
from pto_wsp.trace.graph import KernelGraph, Node
from pto_wsp.types import DType, ScalarType

F16, BF16, F32, I8, I16, I32, I64 = (
    DType.F16,
    DType.BF16,
    DType.F32,
    DType.I8,
    DType.I16,
    DType.I32,
    DType.I64,
)
U8, U16, U32 = DType.U8, DType.U16, DType.U32

MOST_REPEATS = 255
MOST_BLOCKS = 255  # of a repeat stride
ROWS_AT_ONCE = 248  # rows of one strided instruction: at most 255, whole groups of 8

REFUSED = {
    DType.F64: "A2/A3 vector cores have no 64-bit floats",
    DType.U64: "A2/A3 has no unsigned 64-bit arithmetic",
    DType.I64: "A2/A3 vector cores have no 64-bit integer arithmetic",
}

# Conversions the unit has, and its rounding mode for each; int32 to half would need SetDeqScale, so it goes by float.
CASTS: dict[tuple[DType, DType], str] = {
    (F16, F32): "NONE",
    (F32, F16): "RINT",
    (F32, BF16): "RINT",
    (BF16, F32): "NONE",
    (F16, I8): "TRUNC",
    (F16, U8): "TRUNC",
    (I8, F16): "NONE",
    (U8, F16): "NONE",
    (F16, I16): "TRUNC",
    (F16, I32): "TRUNC",
    (F32, I16): "TRUNC",
    (F32, I32): "TRUNC",
    (F32, I64): "TRUNC",
    (I16, F16): "RINT",
    (I16, F32): "NONE",
    (I32, F32): "RINT",
    (I32, I16): "NONE",
    (I32, I64): "NONE",
    (I64, I32): "NONE",
    (I64, F32): "RINT",
}


def refuse(node: Node | None, what: str) -> CompileError:
    error = CompileError(what)
    return error.at(node.line) if node is not None and node.line is not None else error


def literal(value: Any, dtype: DType) -> str:
    """A number as a C++ expression of `dtype`'s own C type (half and bfloat16_t: of float)."""
    if dtype.is_int:
        number = int(value)
        if dtype is DType.I64:
            return "INT64_MIN" if number == -(1 << 63) else f"{number}LL"
        if dtype is DType.U64:
            return f"{number}ULL"
        if dtype is I32 and number == -(1 << 31):
            return "INT32_MIN"
        return f"{number}u" if dtype is U32 else str(number)
    with np.errstate(all="ignore"):
        rounded = np.float32(np.float64(value).astype(dtype.numpy)) if dtype is not F32 else np.float32(value)
    if not np.isfinite(rounded):
        bits = struct.unpack("<I", struct.pack("<f", float(rounded)))[0]
        return f"FromBits(0x{bits:08x}u)"
    text = str(rounded)
    return text + "f"


class Writer:
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
        self.graph = graph
        self.shape_of = shape_of  # extents of a node's tile in this phase
        self.once = once  # is it the same for every strip?
        self.unit = unit  # elements that row pitches are multiples of
        self.names = names
        self.scalars = scalars
        self.phase = Phase()
        self.values: dict[int, Value | Bits] = {}
        self.node: Node | None = None
        self._known: dict[tuple[Any, ...], Value] = {}  # tiles made once: conversions, constants
        self._read: dict[tuple[Any, ...], Scalar] = {}  # tiles of one element, read by the scalar unit
        self.helpers: set[str] = set()  # helper functions that the steps call
        last = {
            (n.line.file, n.line.line): n for n in graph.nodes if n.line is not None and n.type is not None
        }
        self._assigned = {id(n): assigned_name(n) for n in last.values()}
        self._small: set[int] = set()  # buffers of u32 known to be below 2**31

    # ---- buffers and steps --------------------------------------------------------------------------------------

    def buffer(
        self, name: str, dtype: DType, bytes_for: Callable[[int], int], shape: str, kind: str = "temp"
    ) -> Buffer:
        made = Buffer(name, dtype, kind, lambda strip: max(BLOCK, ceil_to(bytes_for(strip), BLOCK)), shape)
        self.phase.buffers.append(made)
        return made

    def tile(self, name: str, dtype: DType, shape: Shape, once: bool, kind: str = "temp") -> Value:
        """A new buffer for a tile."""
        size, unit = dtype.itemsize, self.unit
        turns = any(n.op.name == "transpose" and min(n.tile.shape) > 1 for n in self.graph.nodes)

        def bytes_for(strip: int) -> int:
            elements = shape.elements(strip)
            if turns and shape.most_rows is not None:
                elements = ceil_to(shape.most_rows, 16) * shape.pitch
            return ceil_to(ceil_to(elements, unit) * size, REPEAT if self._compares else BLOCK)

        return Value(self.buffer(name, dtype, bytes_for, shape.text(dtype), kind), dtype, shape, once)

    @property
    def _compares(self) -> bool:
        return any(
            isinstance(RULES[n.op.name], (rules.Compare, rules.Select))
            or n.op.name in ("div", "cast")
            and n.type is not None
            and n.type.dtype.is_int
            for n in self.graph.nodes
        )

    def step(
        self,
        lines: list[str] | str,
        reads: Any,
        writes: Any,
        once: bool,
        pipe: str = "V",
        in_place: bool = False,
    ) -> None:
        def buffers(things: Any) -> tuple[Buffer, ...]:
            return tuple(t if isinstance(t, Buffer) else t.buffer for t in things)

        made = Step(
            pipe,
            [lines] if isinstance(lines, str) else lines,
            buffers(reads),
            buffers(writes),
            in_place,
            self.node,
        )
        (self.phase.before if once else self.phase.body).append(made)

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

    def name_for(self, node: Node) -> str:
        """The user's name when the node is what its line assigns, else the op's."""
        return self._assigned.get(id(node)) or node.op.name

    # ---- nodes --------------------------------------------------------------------------------------------------

    def emit(self, node: Node) -> None:
        """Steps for one node; its value is found by `value` from then on."""
        self.node = node
        rule = RULES[node.op.name]
        if isinstance(node.type, ScalarType):
            self.scalars[id(node)] = self.scalar_op(node)
            return
        if isinstance(rule, (rules.Memory, rules.Nothing)):
            return
        assert node.type is not None
        for thing in (node, *node.operands):
            if thing.type is not None and thing.type.dtype in REFUSED and node.op.name != "cast":
                raise refuse(
                    node,
                    f"{node.op.name} of {thing.type.dtype}: {REFUSED[thing.type.dtype]}. "
                    "Convert with pto.cast(x, DType.F32).",
                )
        number = len(self.phase.buffers)
        made = self.values[id(node)] = EMIT[type(rule)](self, node, rule)
        if made.buffer in self.phase.buffers[number:]:
            made.buffer.hint = self.name_for(node) + ("_bits" if isinstance(made, Bits) else "")
        self.node = None

    def value(self, node: Node) -> Value:
        """The node's tile, as elements of its own dtype."""
        found = self.values[id(node)]
        if isinstance(found, Bits):
            key = ("u8", id(found.buffer))
            if key not in self._known:
                self._known[key] = self.bits_as_tile(found)
            return self._known[key]
        return found

    def operand(self, node: Node, dtype: DType) -> Value | Scalar:
        """An operand of a computation in `dtype`; a scalar as it is."""
        if isinstance(node.type, ScalarType):
            return self.scalars[id(node)]
        return self.converted(self.value(node), dtype)

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

    def as_element(self, scalar: Scalar, dtype: DType) -> str:
        """A scalar as an argument of exactly the element type."""
        held = F32 if scalar.dtype in (F16, BF16) else scalar.dtype
        plain = (
            dtype in (F32, I32, U32) or not scalar.text.lstrip("-")[:1].isdigit()
        )  # literals are int or float
        if held is dtype and plain or (dtype is F32 and scalar.text.endswith("f") and held is F32):
            return scalar.text
        return f"static_cast<{C_TYPES[dtype]}>({scalar.text})"

    # ---- conversions --------------------------------------------------------------------------------------------

    def cast(self, x: Value, dtype: DType, mode: str, name: str = "") -> Value:
        result = self.tile(name or f"{x.buffer.hint}_{dtype}", dtype, x.shape, x.once)
        self.step(
            f"Cast({result.text}, {x.text}, RoundMode::CAST_{mode}, {self.count(x.shape)});",
            [x],
            [result],
            x.once,
            in_place=dtype.itemsize == x.dtype.itemsize,
        )
        return result

    def seen_as(self, x: Value, dtype: DType) -> Value:
        """The same bits as another dtype of that size."""
        return Value(x.buffer, dtype, x.shape, x.once)

    def converted(self, x: Value, dtype: DType) -> Value:
        """x in another dtype, as the op table's cast has it; made once per value."""
        if x.dtype is dtype:
            return x
        key = ("cast", id(x.buffer), x.dtype, dtype)
        if key not in self._known:
            self._known[key] = self.convert(x, dtype)
        return self._known[key]

    def convert(self, x: Value, dtype: DType, name: str = "") -> Value:
        """The path of casts from one dtype to another (spec: float to integer truncates, integers wrap)."""
        source = x.dtype
        if source in (DType.F64, DType.U64) or dtype in (DType.F64, DType.U64):
            bad = source if source in REFUSED else dtype
            raise refuse(self.node, f"cast from {source} to {dtype}: {REFUSED[bad]}.")
        if (
            (source, dtype) in CASTS
            and not (source is I32 and dtype is I16)
            and not (source is I64 and dtype is I32)
        ):
            return self.cast(x, dtype, CASTS[source, dtype], name)
        if I64 in (source, dtype):
            if source is I64 and dtype in (F16, BF16):
                return self.converted(self.converted(x, F32), dtype)
            if source is I64:
                return self.converted(self._low_words(x), dtype)
            if dtype is I64 and source in (F16, BF16):
                return self.converted(self.converted(x, F32), dtype)
            if source is not U32:
                return self.converted(self.converted(x, I32), dtype)
            raise refuse(self.node, f"cast from {source} to {dtype}: 2201 makes i64 from i32 and f32 only.")
        if dtype.is_int and source.is_float:
            return self._float_to_int(x, dtype, name)
        if source.is_int and dtype.is_float:
            return self._int_to_float(x, dtype, name)
        if source.is_float:  # half <-> bf16
            return self.converted(self.converted(x, F32), dtype)
        return self._int_to_int(x, dtype, name)

    def _low_words(self, x: Value) -> Value:
        """The low halves of 64-bit integers: every second word."""
        result = self.tile(f"{x.buffer.hint}_low", I32, x.shape, x.once)
        self.step(
            [
                "{",
                "  uint64_t kept = 0;  // GatherMask counts into it",
                f"  GatherMask({result.text}, {self.seen_as(x, I32).text}, 1, true, {self.count(x.shape)} * 2, "
                "{1, 1, 8, 0}, kept);",
                "}",
            ],
            [x],
            [result],
            x.once,
        )
        return result

    def _float_to_int(self, x: Value, dtype: DType, name: str) -> Value:
        if x.dtype is not F32:
            return self.converted(self.converted(x, F32), dtype)
        low = 0 if not dtype.is_signed else -(1 << (dtype.bits - 1))
        high = low + (1 << dtype.bits) - 1
        if dtype in (I8, U8):  # whole numbers within +-2048 are exact in half
            whole = self.cast(x, F32, "TRUNC")
            held = self.by_scalar("Mins", self.by_scalar("Maxs", whole, low), high)
            return self.cast(self.cast(held, F16, "RINT"), dtype, "TRUNC", name)
        if dtype is U16:
            held = self.by_scalar("Mins", self.by_scalar("Maxs", x, low), high)
            return self.converted(self.cast(held, I32, "TRUNC"), U16)
        below = self.by_scalar("Mins", self.by_scalar("Maxs", x, 0), 4294967040.0)
        folded = self.by_scalar("Adds", below, -2147483648.0)
        upper = self.compare("GE", below, Scalar("2147483648.0f", F32))
        return self.seen_as(
            self.by_scalar(
                "Adds",
                self.choose_int(
                    upper,
                    self.cast(folded, I32, "TRUNC"),
                    self.by_scalar(
                        "Adds",
                        self.cast(self.by_scalar("Mins", below, 2147483520.0), I32, "TRUNC"),
                        -(1 << 31),
                    ),
                ),
                -(1 << 31),
            ),
            U32,
        )

    def choose_int(self, bits: Bits, x: Value, y: Value) -> Value:
        return self.seen_as(self.select(bits, self.seen_as(x, F32), self.seen_as(y, F32)), I32)

    def _int_to_float(self, x: Value, dtype: DType, name: str) -> Value:
        if x.dtype in (I8, U8):
            half = self.converted(x, F16)
            return self.converted(half, dtype)
        if dtype is not F32:
            return self.converted(self.converted(x, F32), dtype)
        if x.dtype is U16:
            return self.converted(self.converted(x, I32), F32)
        assert x.dtype is U32
        if id(x.buffer) in self._small:
            return self.cast(self.seen_as(x, I32), F32, "RINT", name)
        high = self.shift("ShiftRight", x, 16)
        low = self.binary(
            RULES["sub"], self.seen_as(x, I32), self.seen_as(self.shift("ShiftLeft", high, 16), I32)
        )
        above = self.by_scalar("Muls", self.cast(self.seen_as(high, I32), F32, "RINT"), 65536.0)
        return self.binary(RULES["add"], above, self.cast(low, F32, "RINT"))

    def _int_to_int(self, x: Value, dtype: DType, name: str) -> Value:
        source = x.dtype
        if source.itemsize == dtype.itemsize and source.itemsize > 1:
            return self.seen_as(x, dtype)
        if source.itemsize < dtype.itemsize:  # widening is exact
            if source in (I8, U8):
                half = self.converted(x, F16)
                wide = self.cast(half, I16 if dtype.itemsize == 2 else I32, "TRUNC")
                return wide if wide.dtype is dtype else self.seen_as(wide, dtype)
            if source is U16:
                wide = self.converted(self.converted(self.seen_as(x, I16), F32), I32)
                wrapped = self.shift("ShiftRight", self.seen_as(self.shift("ShiftLeft", wide, 16), U32), 16)
                return self.seen_as(wrapped, dtype)
            wide = self.converted(self.converted(x, F32), I32)
            return wide if dtype is I32 else self.seen_as(wide, dtype)
        return self._narrowed(x, dtype)

    def _narrowed(self, x: Value, dtype: DType) -> Value:
        """The low bits of wider integers, extended in the wide type, then cast, which is exact by then."""
        if x.dtype.itemsize == 1:  # i8 <-> u8
            x = self.converted(x, I16)
        bits = x.dtype.bits - dtype.bits
        as_signed = I32 if x.dtype.itemsize == 4 else I16
        if dtype.itemsize == 2:
            return self.seen_as(self.cast(self._extended(x, bits, as_signed, True), I16, "NONE"), dtype)
        whole = self._extended(x, bits, as_signed, dtype.is_signed)
        half = (
            self.cast(self.cast(whole, F32, "RINT"), F16, "RINT")
            if as_signed is I32
            else self.cast(whole, F16, "RINT")
        )
        return self.cast(half, dtype, "TRUNC")

    def _extended(self, x: Value, bits: int, as_signed: DType, signed: bool) -> Value:
        up = self.shift("ShiftLeft", self.seen_as(x, as_signed), bits)
        down = up if signed else self.seen_as(up, U32 if as_signed is I32 else U16)
        return self.seen_as(self.shift("ShiftRight", down, bits), as_signed)

    def shift(self, call: str, x: Value, bits: int) -> Value:
        result = self.tile(f"{x.buffer.hint}_shifted", x.dtype, x.shape, x.once)
        self.step(
            f"{call}({result.text}, {x.text}, static_cast<{C_TYPES[x.dtype]}>({bits}), {self.count(x.shape)});",
            [x],
            [result],
            x.once,
            in_place=True,
        )
        return result

    # ---- calls --------------------------------------------------------------------------------------------------

    def unary(self, call: str, x: Value, name: str = "") -> Value:
        result = self.tile(name or self._temporary(call), x.dtype, x.shape, x.once)
        self.step(
            f"{call}({result.text}, {x.text}, {self.count(x.shape)});", [x], [result], x.once, in_place=True
        )
        return result

    def by_scalar(self, call: str, x: Value, scalar: Any, name: str = "") -> Value:
        """Adds, Muls, Maxs, Mins; a Python number is taken as x's dtype."""
        if not isinstance(scalar, Scalar):
            scalar = Scalar(literal(scalar, x.dtype), x.dtype)
        result = self.tile(name or self._temporary(call), x.dtype, x.shape, x.once)
        self.step(
            f"{call}({result.text}, {x.text}, {self.as_element(scalar, x.dtype)}, {self.count(x.shape)});",
            [x],
            [result],
            x.once,
            in_place=True,
        )
        return result

    def full(self, scalar: Scalar, dtype: DType, shape: Shape, once: bool, name: str = "") -> Value:
        """A tile of one number."""
        if dtype.itemsize == 1:
            half = self.full(Scalar(self._float_text(scalar), F32), F16, shape, once)
            return self.converted(half, dtype)
        key = ("full", scalar.text, dtype, shape, once)
        if key not in self._known:
            result = self.tile(name or self._temporary("full"), dtype, shape, once)
            self.step(
                f"Duplicate({result.text}, {self.as_element(scalar, dtype)}, {self.count(shape)});",
                [],
                [result],
                once,
            )
            self._known[key] = result
        return self._known[key]

    def _float_text(self, scalar: Scalar) -> str:
        return scalar.text if scalar.dtype.is_float else f"static_cast<float>({scalar.text})"

    def packed(self, x: Value, shape: Shape) -> Value:
        """A vector that has a block for each element, one element after another."""
        count, rows = x.shape.rows, Shape(x.shape.rows, "1", x.shape.most_rows, 1, 1)
        at = self.tile("places", I32, rows, x.once)
        self.step(f"CreateVecIndex({at.text}, static_cast<int32_t>(0), {count});", [], [at], x.once)
        at = self.by_scalar("Muls", at, BLOCK)
        result = self.tile(x.buffer.hint, x.dtype, shape, x.once)
        line = f"Gather({result.text}, {x.text}, {self.seen_as(at, U32).text}, 0, {count});"
        self.step(line, [x, at], [result], x.once)
        return result

    def scattered(self, x: Value, shape: Shape, name: str) -> Value:
        """A vector with a block for each element, on its way out."""
        size = x.dtype.itemsize

        def bytes_for(strip: int) -> int:
            return ceil_to(shape.elements(strip) * size, 8 * BLOCK)

        made = Value(self.buffer(name, x.dtype, bytes_for, shape.text(x.dtype), "out"), x.dtype, shape, False)
        groups = str(-(-int(shape.rows) // 8)) if shape.rows.isdigit() else f"({shape.rows} + 7) / 8"
        self.step(f"Brcb({made.text}, {x.text}, {groups}, {{1, 8}});", [x], [made], False)
        return made

    def over(self, number: float, x: Value, name: str = "") -> Value:
        """number / x"""
        ones = self.full(
            Scalar(literal(number, x.dtype), x.dtype), x.dtype, x.shape, x.once, "ones" if number == 1 else ""
        )
        return self.binary(RULES["div"], ones, x, name)

    def _temporary(self, call: str) -> str:
        """A name for a value that is a part of the node at hand."""
        return call.lower()

    def result_shape(self, *operands: Any) -> tuple[Shape, bool]:
        """Shape of operands broadcast together, and whether the result is the same for every strip."""
        shapes = [o.shape for o in operands if isinstance(o, Value)]
        once = all(o.once for o in operands if isinstance(o, Value))
        rows = next((s for s in shapes if s.most_rows != 1), shapes[0])
        cols = next((s for s in shapes if s.most_cols != 1), shapes[0])
        return Shape(rows.rows, cols.cols, rows.most_rows, cols.most_cols, cols.pitch), once

    def binary(self, rule: Any, x: Value | Scalar, y: Value | Scalar, name: str = "") -> Value:
        """rule.call(x, y), one of them possibly a scalar, a row, a column or a single element."""
        shape, once = self.result_shape(x, y)

        def single(v: Value | Scalar) -> Value | Scalar:
            if (
                isinstance(v, Value)
                and v.shape.most_rows == 1
                and v.shape.most_cols == 1
                and (shape.most_rows, shape.most_cols) != (1, 1)
            ):
                return self.as_scalar(v)
            return v

        x, y = single(x), single(y)
        if isinstance(x, Scalar) or isinstance(y, Scalar):
            return self._with_scalar(rule, x, y, shape, once, name)
        name = name or self._temporary(rule.call)
        result = self.tile(name, x.dtype, shape, once)
        if (x.shape.most_rows, x.shape.most_cols) == (y.shape.most_rows, y.shape.most_cols):
            self.step(
                f"{rule.call}({result.text}, {x.text}, {y.text}, {self.count(shape)});",
                [x, y],
                [result],
                once,
                in_place=True,
            )
            return result
        self._strided(rule.call, result, x, y)
        return result

    def _with_scalar(self, rule: Any, x: Any, y: Any, shape: Shape, once: bool, name: str) -> Value:
        tile, scalar = (y, x) if isinstance(x, Scalar) else (x, y)
        if rule.commutes and rule.with_scalar:
            return self.by_scalar(rule.with_scalar, tile, scalar, name)
        if rule.call == "Sub" and scalar is y:
            return self.by_scalar("Adds", tile, self._negative(scalar, tile.dtype), name)
        if rule.call == "Sub":
            return self.by_scalar("Adds", self.by_scalar("Muls", tile, -1), scalar, name)
        whole = self.full(scalar, tile.dtype, tile.shape, tile.once)
        return self.binary(rule, whole if scalar is x else tile, whole if scalar is y else tile, name)

    def _negative(self, scalar: Scalar, dtype: DType) -> Scalar:
        if dtype.is_float:
            text = scalar.text
            negated = text[1:] if text.startswith("-") else f"-{text}" if text[0].isalnum() else f"-({text})"
            return Scalar(negated, scalar.dtype)
        return Scalar(f"static_cast<{C_TYPES[dtype]}>(0u - static_cast<uint32_t>({scalar.text}))", dtype)

    def blocks_of(self, column: Value) -> Value:
        """Each element of a packed column repeated through a block of its own."""
        key = ("blocks", id(column.buffer), column.dtype)
        if key not in self._known:
            shape = column.shape
            lanes = BLOCK // column.dtype.itemsize
            wide = Shape(shape.rows, str(lanes), shape.most_rows, lanes, lanes)
            buffer = self.buffer(
                f"{column.buffer.hint}_blocks",
                column.dtype,
                lambda strip: ceil_to(shape.elements(strip), 8) * BLOCK,
                wide.text(column.dtype),
            )
            made = Value(buffer, column.dtype, wide, column.once)
            groups = str(-(-int(shape.rows) // 8)) if shape.rows.isdigit() else f"({shape.rows} + 7) / 8"
            self.step(f"Brcb({made.text}, {column.text}, {groups}, {{1, 8}});", [column], [made], column.once)
            self._known[key] = made
        return self._known[key]

    def _strided(self, call: str, result: Value, *operands: Value) -> None:
        """call(result, operands...) where some operand is one row or one column for all of the result's."""
        shape, size = result.shape, result.dtype.itemsize
        assert not shape.packed
        lanes, blocks = REPEAT // size, shape.pitch * size // BLOCK
        kinds = [
            "column" if o.shape.packed else "row" if o.shape.single_row and not shape.single_row else "full"
            for o in operands
        ]
        sources = [
            self.blocks_of(o) if kind == "column" else o for o, kind in zip(operands, kinds, strict=True)
        ]
        reads = list(sources)
        few = shape.most_rows is None or shape.most_rows <= MOST_REPEATS
        if few and blocks <= MOST_BLOCKS:
            at = "c" if shape.pitch > lanes else ""
            texts = [s.text if k == "column" else s.at(at) for s, k in zip(sources, kinds, strict=True)]
            strides = [(0, 1) if k == "column" else (1, 0) if k == "row" else (1, blocks) for k in kinds]
            params = self._repeat_params(call, [(1, blocks), *strides])
            mask = self._mask(shape.pitch, lanes)
            line = (
                f"{call}({result.at(at)}, {', '.join(texts)}, {mask}, {self._repeats(shape.rows)}, {params});"
            )
            lines = (
                [line]
                if not at
                else [f"for (uint32_t c = 0; c < {shape.pitch}; c += {lanes}) {{", f"  {line}", "}"]
            )
            self.step(lines, reads, [result], result.once)
            return
        lines = [f"for (uint32_t r = 0; r < {shape.rows}; ++r) {{"]
        row = f"r * {shape.pitch}"
        if "column" not in kinds and call != "Copy":
            texts = [s.at(row if k == "full" else "") for s, k in zip(sources, kinds, strict=True)]
            lines.append(f"  {call}({result.at(row)}, {', '.join(texts)}, {shape.pitch});")
        else:
            strides = [(0, 0) if k == "column" else (1, 8) for k in kinds]
            params = self._repeat_params(call, [(1, 8), *strides])
            full, rest, done = shape.pitch // lanes, shape.pitch % lanes, 0
            while done < full or rest:
                repeats, width = (min(full - done, MOST_REPEATS), lanes) if done < full else (1, rest)
                tail = f" + {done * lanes}" if done else ""
                texts = [
                    s.at(f"r * {BLOCK // size}" if k == "column" else (row if k == "full" else "0") + tail)
                    for s, k in zip(sources, kinds, strict=True)
                ]
                lines.append(
                    f"  {call}({result.at(row + tail)}, {', '.join(texts)}, {width}, {repeats}, {params});"
                )
                if done >= full:
                    break
                done += repeats
        self.step([*lines, "}"], reads, [result], result.once)

    @staticmethod
    def _repeat_params(call: str, strides: list[tuple[int, int]]) -> str:
        """BinaryRepeatParams, UnaryRepeatParams or CopyRepeatParams: block strides, then repeat strides."""
        numbers = [b for b, _ in strides] + [r for _, r in strides]
        return "{" + ", ".join(map(str, numbers)) + "}"

    @staticmethod
    def _mask(pitch: int, lanes: int) -> str:
        if pitch <= lanes:
            return str(pitch)
        return str(lanes) if pitch % lanes == 0 else f"{pitch} - c < {lanes} ? {pitch} - c : {lanes}"

    @staticmethod
    def _repeats(rows: str) -> str:
        return rows if rows.isdigit() else f"static_cast<uint8_t>({rows})"

    def spread(self, x: Value | Scalar, shape: Shape, dtype: DType, once: bool, name: str = "") -> Value:
        """x repeated to a shape."""
        if isinstance(x, Value) and (x.shape.most_rows, x.shape.most_cols) == (
            shape.most_rows,
            shape.most_cols,
        ):
            return x
        if isinstance(x, Value) and x.shape.most_rows == 1 and x.shape.most_cols == 1:
            x = self.as_scalar(x)
        if isinstance(x, Scalar):
            return self.full(x, dtype, shape, once, name)
        if x.dtype.itemsize == 1:
            return self.converted(self.spread(self.converted(x, F16), shape, F16, once, name), x.dtype)
        result = self.tile(name or f"{x.buffer.hint}_spread", x.dtype, shape, once)
        self._strided("Copy", result, x)
        return result

    # ---- comparison and choice ----------------------------------------------------------------------------------

    def bits_like(self, shape: Shape, once: bool, name: str) -> Bits:
        buffer = self.buffer(
            name,
            U8,
            lambda strip: ceil_to(ceil_to(shape.elements(strip), self.unit), 128) // 8,
            shape.text(U8).replace("u8", "bits"),
        )
        return Bits(buffer, shape, once)

    def compare(self, mode: str, x: Value, y: Value | Scalar, name: str = "") -> Bits:
        bits = self.bits_like(x.shape, x.once, name or f"{self._temporary('where')}_bits")
        count = self.compare_count(x.shape, x.dtype)
        if isinstance(y, Scalar):
            self.step(
                f"CompareScalar({bits.buffer.name}, {x.text}, {self.as_element(y, x.dtype)}, CMPMODE::{mode}, "
                f"{count});",
                [x],
                [bits.buffer],
                x.once,
            )
        else:
            self.step(
                f"Compare({bits.buffer.name}, {x.text}, {y.text}, CMPMODE::{mode}, {count});",
                [x, y],
                [bits.buffer],
                x.once,
            )
        return bits

    def negated(self, bits: Bits) -> Bits:
        result = self.bits_like(bits.shape, bits.once, f"{bits.buffer.hint}_not")
        elements = self.compare_count(bits.shape, F16)
        words = str(int(elements) // 16) if elements.isdigit() else f"({elements}) / 16"
        self.step(
            f"Not({result.buffer.name}.ReinterpretCast<uint16_t>(), {bits.buffer.name}.ReinterpretCast<uint16_t>(), "
            f"{words});",
            [bits.buffer],
            [result.buffer],
            bits.once,
            in_place=True,
        )
        return result

    def select(self, bits: Bits, x: Value | Scalar, y: Value | Scalar, name: str = "") -> Value:
        """x where the bit is 1, else y; both of one shape, half or float."""
        dtype = x.dtype if isinstance(x, Value) else y.dtype if isinstance(y, Value) else F32
        once = bits.once and all(v.once for v in (x, y) if isinstance(v, Value))
        if isinstance(x, Scalar):
            x = self.full(x, dtype, bits.shape, once)
        result = self.tile(name or self._temporary("chosen"), dtype, bits.shape, once)
        second, mode, reads = (
            (self.as_element(y, dtype), "SCALAR", [x])
            if isinstance(y, Scalar)
            else (y.text, "TENSOR", [x, y])
        )
        self.step(
            f"Select({result.text}, {bits.buffer.name}, {x.text}, {second}, SELMODE::VSEL_TENSOR_{mode}_MODE, "
            f"{self.count(bits.shape)});",
            [bits.buffer, *reads],
            [result],
            once,
        )
        return result

    def bits_as_tile(self, bits: Bits) -> Value:
        """0 or 1 as u8."""
        half = self.select(bits, Scalar("1.0f", F16), Scalar("0.0f", F16))
        if half.dtype is not F16:
            half = self.cast(half, F16, "RINT")
        return self.converted(half, U8)

    def bits_of(self, node: Node, shape: Shape) -> Bits:
        """A u8 mask as bits of a shape; a comparison of that shape has them already."""
        found = self.values.get(id(node))
        if isinstance(found, Bits) and (found.shape.most_rows, found.shape.most_cols) == (
            shape.most_rows,
            shape.most_cols,
        ):
            return found
        half = self.converted(self.value(node), F16)
        once = half.once and shape.most_rows is not None
        return self.compare("NE", self.spread(half, shape, F16, once), Scalar("0.0f", F16))

    # ---- scalars ------------------------------------------------------------------------------------------------

    def scalar_op(self, node: Node) -> Scalar:
        assert node.type is not None
        dtype, name = node.type.dtype, node.op.name
        if dtype in (DType.F64,):
            raise refuse(
                node, f"{name} of f64: {REFUSED[DType.F64]}. Declare the scalar as Scalar[DType.F32]."
            )
        if name == "constant":
            return Scalar(self._literal(node.attrs["value"], dtype), dtype)
        texts = [self.scalars[id(o)].text for o in node.operands]
        if name == "cast":
            return self._scalar_cast(texts[0], node.operands[0].type.dtype, dtype)  # type: ignore[union-attr]
        if name in SCALAR_COMPARE:
            return self._named(f"static_cast<uint8_t>({texts[0]} {SCALAR_COMPARE[name]} {texts[1]})", U8)
        form = SCALAR_OPS.get(name)
        if form is None:
            raise refuse(
                node,
                f"{name} of a scalar: the scalar unit has no such function. Compute it in a tile: "
                f"pto.{name}(pto.broadcast(s, (1, 8))).",
            )
        if dtype.is_int and name in ("add", "sub", "mul", "neg"):
            wide = "uint64_t" if dtype.itemsize == 8 else "uint32_t"
            texts = [f"static_cast<{wide}>({t})" for t in texts]
            return self._named(f"static_cast<{C_TYPES[dtype]}>({form.format(*texts)})", dtype)
        if dtype.is_int and name == "div":
            form = "({1} == 0 ? 0 : {0} / {1})"
        text = form.format(*texts)
        if dtype in (F16, BF16):
            text = f"static_cast<float>(static_cast<{C_TYPES[dtype]}>({text}))"
        return self._named(text, dtype)

    def _named(self, text: str, dtype: DType) -> Scalar:
        """A constant of that value at the top of the kernel."""
        assert self.node is not None
        name = self.names.new(self.name_for(self.node))
        held = F32 if dtype in (F16, BF16) else dtype
        self.step(f"const {C_TYPES[held]} {name} = {text};", [], [], True, "S")
        return Scalar(name, dtype)

    def _scalar_cast(self, text: str, source: DType, dtype: DType) -> Scalar:
        if dtype in (F16, BF16):
            return self._named(
                f"static_cast<float>(static_cast<{C_TYPES[dtype]}>({self._plain(text, source)}))", dtype
            )
        if dtype is F32 and source.is_float:
            return Scalar(text, F32)
        return self._named(f"static_cast<{C_TYPES[dtype]}>({text})", dtype)

    @staticmethod
    def _plain(text: str, source: DType) -> str:
        return text if source.is_float else f"static_cast<float>({text})"

    def _literal(self, value: Any, dtype: DType) -> str:
        text = literal(value, dtype)
        if text.startswith("FromBits"):
            self.helpers.add("FromBits")
        return text


SCALAR_COMPARE = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
SCALAR_OPS = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "0 - {0}",
    "maximum": "({0} > {1} ? {0} : {1})",
    "minimum": "({0} < {1} ? {0} : {1})",
    "relu": "({0} > 0 ? {0} : 0)",
    "abs": "({0} < 0 ? 0 - {0} : {0})",
    "reciprocal": "1.0f / {0}",
    "select": "({0} != 0 ? {1} : {2})",
}


# ---- rules to steps ------------------------------------------------------------------------------------------------


def compute_dtype(dtype: DType, allowed: tuple[DType, ...]) -> DType:
    """The dtype in which a call is made for elements of `dtype`."""
    if dtype in allowed:
        return dtype
    if dtype.is_float or I32 not in allowed:
        return F32
    if dtype is I8 and I16 in allowed:
        return I16
    return I16 if dtype is U16 and I16 in allowed else I32


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
    x, y = (_flipped(w, w.operand(o, U32)) for o in node.operands)
    return w.seen_as(w.by_scalar("Adds", w.binary(rule, x, y), -(1 << 31)), U32)


def _flipped(w: Writer, x: Value | Scalar) -> Value | Scalar:
    """u32 minus 2**31, as i32: the same order."""
    if isinstance(x, Scalar):
        return w._named(f"static_cast<int32_t>({x.text} - 2147483648u)", I32)
    key = ("flipped", id(x.buffer))
    if key not in w._known:
        w._known[key] = w.by_scalar("Adds", w.seen_as(x, I32), -(1 << 31))
    found: Value = w._known[key]
    return found


def _integer_division(w: Writer, node: Node) -> Value:
    """trunc(x / y) in float, 0 where y is 0: exact while both are below 2**24."""
    shape, once = w.shape_of(node), w.once(node)
    x, y = (w.spread(_as_float(w, o), shape, F32, once) for o in node.operands)
    quotient = w.cast(w.binary(RULES["div"], x, y), F32, "TRUNC")
    some = w.compare("NE", y, Scalar("0.0f", F32))
    return _back(w, node, w.select(some, quotient, Scalar("0.0f", F32)))


def _as_float(w: Writer, node: Node) -> Value | Scalar:
    found = w.operand(node, F32)
    if isinstance(found, Scalar) and found.dtype.is_int:
        return Scalar(f"static_cast<float>({found.text})", F32)
    return found


def emit_unary(w: Writer, node: Node, rule: rules.Unary) -> Value:
    x = w.operand(node.operands[0], compute_dtype(node.tile.dtype, rule.dtypes))
    assert isinstance(x, Value)
    return _back(w, node, w.unary(rule.call, x, w.name_for(node)))


def emit_library(w: Writer, node: Node, rule: rules.Library) -> Value:
    x = w.operand(node.operands[0], compute_dtype(node.tile.dtype, rules.FLOAT))
    assert isinstance(x, Value)
    which = x.dtype.itemsize // 4  # 0 for half, 1 for float
    result = w.tile(w.name_for(node), x.dtype, x.shape, x.once)
    scratch = []
    if rule.scratch[which]:
        shape = x.shape
        scratch = [
            w.buffer(
                f"{rule.call.lower()}_tmp",
                U8,
                lambda strip: max(
                    rule.least[which], rule.scratch[which] * ceil_to(shape.elements(strip), w.unit)
                ),
                "scratch",
            )
        ]
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
    if dtype is U32:
        small = [not o.is_tile or id(w.value(o).buffer) in w._small for o in node.operands]
        both = [w.operand(o, U32) for o in node.operands]
        if all(s and isinstance(o, Value) for s, o in zip(small, both, strict=True)) or rule.mode in (
            "EQ",
            "NE",
        ):
            x, y = (
                w.seen_as(o, I32) if isinstance(o, Value) else Scalar(f"static_cast<int32_t>({o.text})", I32)
                for o in both
            )
        else:
            x, y = (_flipped(w, o) for o in both)
    else:
        x, y = (w.operand(o, I32) for o in node.operands)
    return _integers_compared(w, rule.mode, x, y, shape, once)


SWAPPED = {"LT": "GT", "GT": "LT", "LE": "GE", "GE": "LE", "EQ": "EQ", "NE": "NE"}


def _compared(w: Writer, mode: str, x: Any, y: Any, shape: Shape, dtype: DType, once: bool) -> Bits:
    def plain(v: Any) -> Any:
        if (
            isinstance(v, Value)
            and v.shape.most_rows == v.shape.most_cols == 1
            and (shape.most_rows, shape.most_cols) != (1, 1)
        ):
            return w.as_scalar(v)
        if isinstance(v, Scalar) and v.dtype.is_int:
            return Scalar(f"static_cast<float>({v.text})", F32)
        return v

    x, y = plain(x), plain(y)
    if isinstance(x, Scalar):
        x, y, mode = y, x, SWAPPED[mode]
    x = w.spread(x, shape, dtype, once)
    return w.compare(mode, x, y if isinstance(y, Scalar) else w.spread(y, shape, dtype, once))


def _integers_compared(w: Writer, mode: str, x: Any, y: Any, shape: Shape, once: bool) -> Bits:
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
    moved = {1: F16, 2: F16, 4: F32}[dtype.itemsize]
    plain = dtype in (F16, F32)
    operands: list[Value | Scalar] = []
    for o in (x, y):
        found = w.operand(o, F16 if dtype.itemsize == 1 else dtype)
        if isinstance(found, Value) and found.shape.most_rows == found.shape.most_cols == 1 and plain:
            found = w.as_scalar(found) if (shape.most_rows, shape.most_cols) != (1, 1) else found
        if isinstance(found, Scalar) and not plain:
            found = w.full(found, dtype if dtype.itemsize > 1 else F16, shape, once)
            if found.dtype.itemsize == 1:
                found = w.converted(found, F16)
        if isinstance(found, Value):
            found = w.spread(found, shape, found.dtype, once)
            found = w.seen_as(found, moved)
        operands.append(found)
    if isinstance(mask.type, ScalarType):
        chosen = w.full(Scalar(f"static_cast<float>({w.scalars[id(mask)].text} != 0)", F16), F16, shape, once)
        bits = w.compare("NE", chosen, Scalar("0.0f", F16))
    else:
        bits = w.bits_of(mask, shape)
    if all(isinstance(o, Scalar) for o in operands):
        operands[0] = w.full(operands[0], moved, shape, once)  # type: ignore[arg-type]
    made = w.select(bits, operands[0], operands[1], w.name_for(node))
    return w.converted(made, dtype) if dtype.itemsize == 1 else w.seen_as(made, dtype)


# ---- reductions ----------------------------------------------------------------------------------------------------


def emit_row_reduce(w: Writer, node: Node, rule: rules.RowReduce) -> Value:
    x = w.value(node.operands[0])
    dtype = node.tile.dtype
    if x.shape.packed and not x.shape.single_row:
        return w.converted(x, dtype)  # one column: its own sum
    if dtype.is_int:
        return _integer_rows(w, node, rule, x)
    inner = rule.kind == "Sum" or x.dtype is BF16
    result = _reduced_rows(w, rule.kind, w.converted(x, F32) if inner else x, w.name_for(node))
    result = w.converted(result, dtype)
    if rule.mean:
        result = w.by_scalar("Muls", result, _reciprocal(x.shape.cols), w.name_for(node))
    return result


def _reciprocal(extent: str) -> Scalar:
    if extent.isdigit():
        return Scalar(literal(1 / int(extent), F32), F32)
    return Scalar(f"1.0f / static_cast<float>({extent})", F32)


def _column(shape: Shape) -> Shape:
    return Shape(shape.rows, "1", shape.most_rows, 1, 1)


def _reduced_rows(w: Writer, kind: str, x: Value, name: str) -> Value:
    """Whole-repeat reductions; rows longer than a repeat are folded onto their first repeat, or, when there are fewer
    rows than repeats in a row, reduced repeat by repeat and then once more."""
    shape, size = x.shape, x.dtype.itemsize
    lanes, blocks = REPEAT // size, shape.pitch * size // BLOCK
    order = "" if kind == "Sum" else ", ReduceOrder::ORDER_ONLY_VALUE"
    result_shape = _column(shape)
    few = shape.most_rows is None or shape.most_rows <= MOST_REPEATS
    if shape.most_cols > lanes and (not few or blocks > MOST_BLOCKS or shape.most_cols > 8 * lanes):
        return _reduced_rows(w, kind, _partial_rows(w, kind, x, name), name)
    if shape.most_cols > lanes:
        x = _folded(w, kind, x, name)
        blocks = x.shape.pitch * size // BLOCK
    result = w.tile(name, x.dtype, result_shape, x.once)
    mask = x.shape.cols
    if few:
        line = f"WholeReduce{kind}({result.text}, {x.text}, {mask}, {shape.rows}, 1, 1, {blocks}{order});"
        w.step(line, [x], [result], x.once)
    else:
        w.helpers.add("Least")
        w.step(
            [
                f"for (uint32_t r = 0; r < {shape.rows}; r += {ROWS_AT_ONCE}) {{",
                f"  WholeReduce{kind}({result.at('r')}, {x.at(f'r * {x.shape.pitch}')}, {mask}, "
                f"Least({shape.rows} - r, {ROWS_AT_ONCE}), 1, 1, {blocks}{order});",
                "}",
            ],
            [x],
            [result],
            x.once,
        )
    return result


CALLS = {"Sum": "Add", "Max": "Max", "Min": "Min"}


def _folded(w: Writer, kind: str, x: Value, name: str) -> Value:
    """[rows, cols] -> [rows, one repeat], chunk on chunk."""
    shape, size = x.shape, x.dtype.itemsize
    lanes, blocks = REPEAT // size, shape.pitch * size // BLOCK
    w.helpers.add("Least")
    cols = f"Least({shape.cols}, {lanes})" if not shape.cols.isdigit() else str(lanes)
    fold = w.tile(f"{name}_fold", x.dtype, Shape(shape.rows, cols, shape.most_rows, lanes, lanes), x.once)
    rows = w._repeats(shape.rows)
    mask = f"Least({shape.cols} - c, {lanes})"
    if shape.cols.isdigit() and int(shape.cols) % lanes == 0:
        mask = str(lanes)
    w.step(
        [
            f"Copy({fold.text}, {x.text}, {lanes}, {rows}, {{1, 1, 8, {blocks}}});",
            f"for (uint32_t c = {lanes}; c < {shape.cols}; c += {lanes}) {{",
            "  PipeBarrier<PIPE_V>();",
            f"  {CALLS[kind]}({fold.text}, {fold.text}, {x.at('c')}, {mask}, {rows}, {{1, 1, 1, 8, 8, {blocks}}});",
            "}",
        ],
        [x],
        [fold],
        x.once,
    )
    return fold


def _partial_rows(w: Writer, kind: str, x: Value, name: str) -> Value:
    """[rows, cols] -> [rows, repeats in a row]"""
    shape, size = x.shape, x.dtype.itemsize
    lanes = REPEAT // size
    order = "" if kind == "Sum" else ", ReduceOrder::ORDER_ONLY_VALUE"
    most = -(-shape.most_cols // lanes)
    pitch = ceil_to(most, w.unit)
    cols = (
        str(-(-int(shape.cols) // lanes))
        if shape.cols.isdigit()
        else f"({shape.cols} + {lanes - 1}) / {lanes}"
    )
    part = w.tile(f"{name}_part", x.dtype, Shape(shape.rows, cols, shape.most_rows, most, pitch), x.once)
    row, static = f"r * {shape.pitch}", shape.cols.isdigit()
    lines = [f"for (uint32_t r = 0; r < {shape.rows}; ++r) {{"]
    if most <= MOST_REPEATS:
        full = str(int(shape.cols) // lanes) if static else f"{shape.cols} / {lanes}"
        lines.append(
            f"  WholeReduce{kind}({part.at(f'r * {pitch}')}, {x.at(row)}, {lanes}, {full}, 1, 1, 8{order});"
        )
    else:
        full = str(int(shape.cols) // lanes) if static else f"{shape.cols} / {lanes}"
        w.helpers.add("Least")
        lines += [
            f"  for (uint32_t k = 0; k < {full}; k += {ROWS_AT_ONCE}) {{",
            f"    WholeReduce{kind}({part.at(f'r * {pitch} + k')}, {x.at(f'{row} + k * {lanes}')}, {lanes}, "
            f"Least({full} - k, {ROWS_AT_ONCE}), 1, 1, 8{order});",
            "  }",
        ]
    if static and int(shape.cols) % lanes:
        at = int(shape.cols) // lanes
        lines.append(
            f"  WholeReduce{kind}({part.at(f'r * {pitch} + {at}')}, {x.at(f'{row} + {at * lanes}')}, "
            f"{int(shape.cols) % lanes}, 1, 1, 1, 8{order});"
        )
    elif not static:
        lines += [
            f"  if ({shape.cols} % {lanes} != 0) {{",
            f"    WholeReduce{kind}({part.at(f'r * {pitch} + {shape.cols} / {lanes}')}, "
            f"{x.at(f'{row} + {shape.cols} / {lanes} * {lanes}')}, {shape.cols} % {lanes}, 1, 1, 1, 8{order});",
            "  }",
        ]
    w.step([*lines, "}"], [x], [part], x.once)
    return part


def _integer_rows(w: Writer, node: Node, rule: rules.RowReduce, x: Value) -> Value:
    """The vector unit reduces floats only: the scalar unit adds integers up."""
    shape, c_type = x.shape, C_TYPES[x.dtype]
    result = w.tile(w.name_for(node), x.dtype, _column(shape), x.once)
    at = f"{x.text}.GetValue(r * {shape.pitch} + c)"
    wide = "uint64_t" if x.dtype.itemsize == 8 else "uint32_t"
    if rule.kind == "Sum":
        lines = [
            f"  {wide} sum = 0;",
            f"  for (uint32_t c = 0; c < {shape.cols}; ++c) {{",
            f"    sum += static_cast<{wide}>({at});",
            "  }",
            f"  {result.text}.SetValue(r, static_cast<{c_type}>(sum));",
        ]
    else:
        sign = ">" if rule.kind == "Max" else "<"
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
            return _integer_rows(w, node, rules.RowReduce(rule.kind), as_row)
        inner = rule.kind == "Sum" or x.dtype is BF16
        total = w.converted(
            _reduced_rows(w, rule.kind, w.converted(as_row, F32) if inner else as_row, name), dtype
        )
    else:
        compute = (
            dtype
            if dtype in (F32, I32) or (dtype is F16 and rule.kind != "Sum")
            else F32
            if dtype.is_float
            else I32
        )
        if dtype is U32 and rule.kind != "Sum":
            flipped = _flipped(w, x)
            assert isinstance(flipped, Value)
            return w.seen_as(w.by_scalar("Adds", _reduced_cols(w, rule.kind, flipped, name), -(1 << 31)), U32)
        if x.dtype is F16 and rule.kind != "Sum":
            compute = F16  # accumulator(F16) is F32, but a choice needs no carrying
        total = w.converted(_reduced_cols(w, rule.kind, w.converted(x, compute), name), dtype)
    if rule.mean:
        total = w.by_scalar("Muls", total, _reciprocal(x.shape.rows), name)
    return total


def _reduced_cols(w: Writer, kind: str, x: Value, name: str) -> Value:
    """Rows accumulate onto a copy of the first: one instruction per repeat of columns, the sum being its own src1."""
    shape, size = x.shape, x.dtype.itemsize
    lanes, blocks, pitch = REPEAT // size, shape.pitch * size // BLOCK, shape.pitch
    result = w.tile(name, x.dtype, Shape("1", shape.cols, 1, shape.most_cols, pitch), x.once)
    lines = [f"DataCopy({result.text}, {x.text}, {pitch});", "PipeBarrier<PIPE_V>();"]
    assert shape.most_rows is not None
    if shape.most_rows <= MOST_REPEATS + 1 and blocks <= MOST_BLOCKS:
        rest = str(int(shape.rows) - 1) if shape.rows.isdigit() else f"{shape.rows} - 1"
        at = "c" if pitch > lanes else ""
        start = f"{pitch} + c" if at else str(pitch)
        line = (
            f"{CALLS[kind]}({result.at(at)}, {x.at(start)}, {result.at(at)}, {w._mask(pitch, lanes)}, "
            f"{w._repeats(rest)}, "
            f"{{1, 1, 1, 0, {blocks}, 0}});"
        )
        lines += (
            [line] if not at else [f"for (uint32_t c = 0; c < {pitch}; c += {lanes}) {{", f"  {line}", "}"]
        )
    else:
        lines += [
            f"for (uint32_t r = 1; r < {shape.rows}; ++r) {{",
            f"  {CALLS[kind]}({result.text}, {result.text}, {x.at(f'r * {pitch}')}, {pitch});",
            "  PipeBarrier<PIPE_V>();",
            "}",
        ]
    w.step(lines, [x], [result], x.once)
    return result


# ---- shapes --------------------------------------------------------------------------------------------------------


def emit_shaping(w: Writer, node: Node, rule: rules.Shaping) -> Value:
    return SHAPING[node.op.name](w, node)


def shape_alloc(w: Writer, node: Node) -> Value:
    return w.full(
        Scalar("0.0f" if node.tile.dtype.is_float else "0", node.tile.dtype),
        node.tile.dtype,
        w.shape_of(node),
        w.once(node),
        w.name_for(node),
    )


def shape_broadcast(w: Writer, node: Node) -> Value:
    x = node.operands[0]
    found = w.scalars[id(x)] if isinstance(x.type, ScalarType) else w.value(x)
    return w.spread(found, w.shape_of(node), node.tile.dtype, w.once(node), w.name_for(node))


def shape_iota(w: Writer, node: Node) -> Value:
    made = w.tile(w.name_for(node), U32, w.shape_of(node), w.once(node))
    w.step(
        f"CreateVecIndex({w.seen_as(made, I32).text}, static_cast<int32_t>(0), {w.count(made.shape)});",
        [],
        [made],
        made.once,
    )
    w._small.add(id(made.buffer))
    return made


def shape_transpose(w: Writer, node: Node) -> Value:
    x = w.value(node.operands[0])
    shape = w.shape_of(node)
    if x.once and shape.most_rows is None:  # a strip takes its piece of the row
        made = w.tile(w.name_for(node), x.dtype, shape, False)
        unit = BLOCK // x.dtype.itemsize
        w.helpers.add("CeilTo")
        w.step(f"DataCopy({made.text}, {x.at('first')}, CeilTo({shape.rows}, {unit}));", [x], [made], False)
        if id(x.buffer) in w._small:
            w._small.add(id(made.buffer))
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
    w.step(
        f"TurnRound({to.text}, {moved.text}, {rows}, {cols}, {x.shape.pitch}, {shape.pitch});",
        [x],
        [made],
        x.once,
    )
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
        rows = Shape(shape.rows, "1", shape.most_rows, 1, 1)
        offsets = w.tile("offsets", I32, rows, x.once)
        w.step(
            f"CreateVecIndex({offsets.text}, static_cast<int32_t>(0), {shape.rows});", [], [offsets], x.once
        )
        offsets = w.by_scalar("Muls", offsets, x.shape.pitch * size)
        w.step(
            f"Gather({made.text}, {x.text}, {w.seen_as(offsets, U32).text}, {first * size}, {shape.rows});",
            [x, offsets],
            [made],
            x.once,
        )
        return made
    cols = str(int(x.shape.cols) // 2 * 2) if x.shape.cols.isdigit() else f"{x.shape.cols} / 2 * 2"
    pick = (
        "uint64_t kept = 0;  // GatherMask counts into it",
        "GatherMask({0}, {1}, {2}, true, {3}, {{1, 1, 8, 0}}, kept);",
    )
    if shape.single_row:
        lines = ["{", f"  {pick[0]}", f"  {pick[1].format(made.text, x.text, first + 1, cols)}", "}"]
    else:
        call = pick[1].format(made.at(f"r * {shape.pitch}"), x.at(f"r * {x.shape.pitch}"), first + 1, cols)
        lines = [f"for (uint32_t r = 0; r < {shape.rows}; ++r) {{", f"  {pick[0]}", f"  {call}", "}"]
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
    if key not in w._known:
        at = w.tile("offsets", I32, single, True)
        w.step(f"CreateVecIndex({at.text}, static_cast<int32_t>(0), {shape.pitch});", [], [at], True)
        pair = w.by_scalar("Muls", w.shift("ShiftRight", at, 1), size - 2 * pitch * size)
        w._known[key] = w.binary(RULES["add"], w.by_scalar("Muls", at, pitch * size), pair)
    offsets = w._known[key]
    pairs = w.tile(
        f"{name}_pairs",
        dtype,
        Shape(shape.rows, str(2 * pitch), shape.most_rows, 2 * pitch, 2 * pitch),
        x.once,
    )
    blocks = pitch * size // BLOCK
    rows = shape.rows if shape.rows.isdigit() else f"static_cast<uint16_t>({shape.rows})"
    for half, operand in ((0, x), (pitch, y)):
        w.step(
            f"DataCopy({pairs.at(str(half))}, {operand.text}, DataCopyParams{{{rows}, {blocks}, 0, {blocks}}});",
            [operand],
            [pairs],
            x.once,
        )
    count = shape.cols
    lines = [
        f"for (uint32_t r = 0; r < {shape.rows}; ++r) {{",
        f"  Gather({made.at(f'r * {shape.pitch}')}, {pairs.text}, {w.seen_as(offsets, U32).text}, "
        f"r * {2 * pitch * size}, {count});",
        "}",
    ]
    if shape.single_row:
        lines = [f"Gather({made.text}, {pairs.text}, {w.seen_as(offsets, U32).text}, 0, {count});"]
    w.step(lines, [pairs, offsets], [made], x.once)
    return made


def _interleaved_columns(w: Writer, x: Value, y: Value, made: Value) -> Value:
    """Two packed columns into [rows, 2]: the scalar unit places the elements."""
    w.step(
        [
            f"for (uint32_t r = 0; r < {made.shape.rows}; ++r) {{",
            f"  {made.text}.SetValue(r * {made.shape.pitch}, {x.text}.GetValue(r));",
            f"  {made.text}.SetValue(r * {made.shape.pitch} + 1, {y.text}.GetValue(r));",
            "}",
        ],
        [x, y],
        [made],
        x.once,
        "S",
    )
    return made


def shape_sort(w: Writer, node: Node) -> Value:
    """Sort32 orders 32 (key, index) records; missing keys are -inf. The indices come back as floats."""
    scores, idx = (w.value(o) for o in node.operands)
    row = Shape("1", "32", 1, 32, ceil_to(32, w.unit))
    filled = [
        _filled(w, scores, Scalar(w._literal(float("-inf"), F32), F32), 32),
        _filled(w, w.seen_as(idx, I32), Scalar("0", I32), 32),
    ]
    if id(filled[1].buffer) not in w._small:  # indices that may be in any order, not an iota
        filled = _by_index(w, filled[0], filled[1], row)
    wide = Shape("1", "64", 1, 64, ceil_to(64, w.unit))
    records = w.tile("records", F32, wide, scores.once)
    w.step(
        f"Sort32({records.text}, {filled[0].text}, {w.seen_as(filled[1], U32).text}, 1);",
        filled,
        [records],
        scores.once,
    )
    keys = _picked(w, records, row, 0, "keys")
    numbers = w.cast(w.seen_as(_picked(w, records, row, 1, "numbers"), I32), F32, "RINT")
    return _interleaved(w, keys, numbers, wide, w.name_for(node))


def _by_index(w: Writer, scores: Value, idx: Value, row: Shape) -> list[Value]:
    """Scores and indices (below 2**24) by ascending index: Sort32 keeps the order of equal keys."""
    keys = w.by_scalar("Muls", w.cast(idx, F32, "RINT"), -1)
    places = w.tile("places", I32, row, scores.once)
    w.step(f"CreateVecIndex({places.text}, static_cast<int32_t>(0), 32);", [], [places], scores.once)
    records = w.tile("records", F32, Shape("1", "64", 1, 64, ceil_to(64, w.unit)), scores.once)
    line = f"Sort32({records.text}, {keys.text}, {w.seen_as(places, U32).text}, 1);"
    w.step(line, [keys, places], [records], scores.once)
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
    whole = w.tile(
        f"{x.buffer.hint}_{cols}", fill.dtype, Shape("1", str(cols), 1, cols, ceil_to(cols, w.unit)), x.once
    )
    w.step(f"Duplicate({whole.text}, {w.as_element(fill, fill.dtype)}, {cols});", [], [whole], x.once)
    w.step(f"Copy({whole.text}, {x.text}, {x.shape.cols}, 1, {{1, 1, 8, 8}});", [x, whole], [whole], x.once)
    return whole


def shape_top(w: Writer, node: Node) -> Value:
    shape = w.shape_of(node)
    pairs = _filled(w, w.value(node.operands[0]), Scalar("0.0f", F32), 64)
    numbers = _picked(w, pairs, Shape("1", "32", 1, 32, ceil_to(32, w.unit)), 1, "numbers")
    made = w.tile(w.name_for(node), I32, shape, pairs.once)
    w.step(
        f"Cast({made.text}, {numbers.text}, RoundMode::CAST_TRUNC, {shape.cols});",
        [numbers],
        [made],
        pairs.once,
    )
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


def emit_cube(w: Writer, node: Node, rule: rules.Cube) -> Value:
    raise AssertionError("matmul is no vector op")


EMIT: dict[type, Callable[[Writer, Node, Any], Value | Bits]] = {
    rules.Binary: emit_binary,
    rules.Unary: emit_unary,
    rules.Library: emit_library,
    rules.Rounding: emit_rounding,
    rules.Compose: emit_compose,
    rules.Convert: emit_convert,
    rules.Compare: emit_compare,
    rules.Select: emit_select,
    rules.RowReduce: emit_row_reduce,
    rules.ColReduce: emit_col_reduce,
    rules.Shaping: emit_shaping,
    rules.Cube: emit_cube,
}
