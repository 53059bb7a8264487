"""Scalar ops of a kernel as C++ of the scalar unit: constants named once, at the top of the kernel.

Start reading at `ScalarWriter.scalar_op`. `writer.Writer` adds tiles to it; PTO-ISA code needs no more than this.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pto_wsp.ascend.body import Bits, Buffer, Phase, Scalar, Step, Value
from pto_wsp.ascend.dtypes import BF16, C_TYPES, F16, F32, I32, REFUSED, U8, U32, literal, refuse
from pto_wsp.ascend.names import Names, assigned_name
from pto_wsp.trace.graph import KernelGraph, Node
from pto_wsp.types import DType

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


class ScalarWriter:
    """Steps of one core under construction, and the scalars they know.

    scalars   by id of a node: those of the kernel's parameters, then those computed
    """

    def __init__(self, graph: KernelGraph, names: Names, scalars: dict[int, Scalar]) -> None:
        self.names = names
        self.scalars = scalars
        self.phase = Phase()
        self.node: Node | None = None  # the op that steps belong to
        self.helpers: set[str] = set()  # helper functions that the steps call
        last = {(n.line.file, n.line.line): n for n in graph.nodes if n.line is not None and n.type is not None}
        self._assigned = {id(n): assigned_name(n) for n in last.values()}

    def name_for(self, node: Node) -> str:
        """The user's name when the node is what its line assigns, else the op's."""
        return self._assigned.get(id(node)) or node.op.name

    def step(
        self,
        lines: list[str] | str,
        reads: Sequence[Buffer | Value | Bits],
        writes: Sequence[Buffer | Value | Bits],
        once: bool,
        pipe: str = "V",
        in_place: bool = False,
    ) -> None:
        """Append a step: before all strips when its result is the same for every one, else to the body of the loop."""
        read, written = (tuple(t if isinstance(t, Buffer) else t.buffer for t in ts) for ts in (reads, writes))
        made = Step(pipe, [lines] if isinstance(lines, str) else lines, read, written, in_place, self.node)
        (self.phase.before if once else self.phase.body).append(made)

    def as_element(self, scalar: Scalar, dtype: DType) -> str:
        """A scalar as an argument of exactly the element type."""
        # a literal is an int or a float to C++, whatever dtype it stands for
        is_literal = scalar.text.lstrip("-")[:1].isdigit()
        if _held(scalar.dtype) is dtype and (dtype in (F32, I32, U32) or not is_literal):
            return scalar.text
        return f"static_cast<{C_TYPES[dtype]}>({scalar.text})"

    def scalar_op(self, node: Node) -> Scalar:
        """The number that a scalar op makes."""
        assert node.type is not None
        dtype, name = node.type.dtype, node.op.name
        if dtype is DType.F64:
            raise refuse(node, f"{name} of f64: {REFUSED[dtype]}. Declare the scalar as Scalar[DType.F32].")
        if name == "constant":
            return Scalar(self.literal(node.attrs["value"], dtype), dtype)
        texts = [self.scalars[id(o)].text for o in node.operands]
        if name == "cast":
            return self._scalar_cast(texts[0], node.operands[0].type.dtype, dtype)  # type: ignore[union-attr]
        if name in SCALAR_COMPARE:
            return self.named(f"static_cast<uint8_t>({texts[0]} {SCALAR_COMPARE[name]} {texts[1]})", U8)
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
            return self.named(f"static_cast<{C_TYPES[dtype]}>({form.format(*texts)})", dtype)
        if dtype.is_int and name == "div":
            form = "({1} == 0 ? 0 : {0} / {1})"
        text = form.format(*texts)
        if dtype in (F16, BF16):
            text = f"static_cast<float>(static_cast<{C_TYPES[dtype]}>({text}))"
        return self.named(text, dtype)

    def named(self, text: str, dtype: DType) -> Scalar:
        """A constant of that value at the top of the kernel."""
        assert self.node is not None
        name = self.names.new(self.name_for(self.node))
        self.step(f"const {C_TYPES[_held(dtype)]} {name} = {text};", [], [], True, "S")
        return Scalar(name, dtype)

    def _scalar_cast(self, text: str, source: DType, dtype: DType) -> Scalar:
        if dtype in (F16, BF16):
            text = text if source.is_float else f"static_cast<float>({text})"
            return self.named(f"static_cast<float>(static_cast<{C_TYPES[dtype]}>({text}))", dtype)
        if dtype is F32 and source.is_float:
            return Scalar(text, F32)
        return self.named(f"static_cast<{C_TYPES[dtype]}>({text})", dtype)

    def literal(self, value: Any, dtype: DType) -> str:
        """A number as C++; NaN and infinities call a helper."""
        text = literal(value, dtype)
        if text.startswith("FromBits"):
            self.helpers.add("FromBits")
        return text


def as_float(scalar: Scalar) -> Scalar:
    return scalar if scalar.dtype.is_float else Scalar(f"static_cast<float>({scalar.text})", F32)


def negative(scalar: Scalar, dtype: DType) -> Scalar:
    """-scalar, taken as `dtype`; integers wrap."""
    if dtype.is_float:
        text = scalar.text
        negated = text[1:] if text.startswith("-") else f"-{text}" if text[0].isalnum() else f"-({text})"
        return Scalar(negated, scalar.dtype)
    return Scalar(f"static_cast<{C_TYPES[dtype]}>(0u - static_cast<uint32_t>({scalar.text}))", dtype)


def _held(dtype: DType) -> DType:
    """The dtype that the scalar unit holds numbers of `dtype` in."""
    return F32 if dtype in (F16, BF16) else dtype
