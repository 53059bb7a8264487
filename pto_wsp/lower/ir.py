"""LLVM IR in the making: types, values, functions, and a Builder that appends instructions to blocks, as text.

The names are those of llvmlite.ir, which does the same with an object for every instruction and each of its parts; here
an instruction is a line of text from the beginning, and writing a kernel takes a tenth of the time. Pointers have no
element type. A mistake in an operand's type is found by LLVM when it reads the text.

    module = Module()
    f = Function(module, FunctionType(VoidType(), [PointerType()]), "f")
    build = Builder(f.append_basic_block("entry"))
    build.store(IntType(64)(7), f.args[0])
    build.ret_void()
    str(module)
"""

from __future__ import annotations

import operator
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

# ---- types ---------------------------------------------------------------------------------------------------------


class Type:
    """An LLVM type. Equal types are one object."""

    __slots__ = ("text", "suffix", "element", "count")

    def __init__(self, text: str, suffix: str, element: Type | None = None, count: int = 1):
        self.text = text
        self.suffix = suffix  # its name inside the names of overloaded intrinsics
        self.element = element if element is not None else self
        self.count = count

    def __call__(self, value: Any) -> Constant:
        return Constant(self, value)

    def __str__(self) -> str:
        return self.text


@cache
def IntType(bits: int) -> Type:
    return Type(f"i{bits}", f"i{bits}")


@cache
def FloatType() -> Type:
    return Type("float", "f32")


@cache
def DoubleType() -> Type:
    return Type("double", "f64")


@cache
def PointerType() -> Type:
    return Type("ptr", "p0")


@cache
def VoidType() -> Type:
    return Type("void", "")


@cache
def VectorType(element: Type, count: int) -> Type:
    return Type(f"<{count} x {element}>", f"v{count}{element.suffix}", element, count)


@cache
def ArrayType(element: Type, count: int) -> Type:
    return Type(f"[{count} x {element}]", "", element, count)


class FunctionType:
    """Result and parameters of a function."""

    __slots__ = ("result", "parameters")

    def __init__(self, result: Type, parameters: Sequence[Type]):
        self.result, self.parameters = result, tuple(parameters)


# ---- values --------------------------------------------------------------------------------------------------------


class Value:
    """What an instruction may have as an operand. text: how it is written there, without its type."""

    __slots__ = ("type", "text")

    def __init__(self, type: Type, text: str):
        self.type, self.text = type, text

    def __str__(self) -> str:
        return f"{self.type} {self.text}"


def undefined(type: Type) -> Value:
    """Any bits."""
    return Value(type, "undef")


class Constant(Value):
    """A number, which all lanes of a vector have, or a list of numbers, or the bytes of an array; None: zeros."""

    __slots__ = ("constant",)

    def __init__(self, type: Type, constant: Any):
        super().__init__(type, _constant_text(type, constant))
        self.constant = constant


def _constant_text(kind: Type, value: Any) -> str:
    if value is None:
        return "zeroinitializer"
    if isinstance(value, bytes | bytearray):
        return 'c"' + "".join(f"\\{byte:02x}" for byte in value) + '"'
    if isinstance(value, list):
        parts = ", ".join([f"{kind.element} {_constant_text(kind.element, part)}" for part in value])
        return f"[{parts}]" if kind.text[0] == "[" else f"<{parts}>"
    if kind.element is not kind:
        return f"splat ({kind.element} {_constant_text(kind.element, value)})"
    return _float_text(value) if kind.text in ("float", "double") else str(int(value))


def _float_text(value: float) -> str:
    """A number of either float type, to the bit; those of f32 have to be rounded to it already."""
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"


def numbers(count: int, first: int = 0) -> Constant:
    """The ints first, first + 1, ..., one a lane."""
    return Constant(VectorType(IntType(32), count), list(range(first, first + count)))


class Phi(Value):
    """The value that belongs to the block control came from."""

    __slots__ = ("incoming",)

    def __init__(self, type: Type, text: str):
        super().__init__(type, text)
        self.incoming: list[tuple[Value, Block]] = []

    def add_incoming(self, value: Value, block: Block) -> None:
        self.incoming.append((value, block))

    @property
    def line(self) -> str:
        pairs = ", ".join([f"[{value.text}, %{block.name}]" for value, block in self.incoming])
        return f"  {self.text} = phi {self.type} {pairs}"


# ---- modules, functions, blocks ------------------------------------------------------------------------------------


class Module:
    """Constants and functions by name, each in the order in which they were made."""

    def __init__(self) -> None:
        self.constants: dict[str, GlobalConstant] = {}
        self.functions: dict[str, Function] = {}

    def declared(self, name: str, kind: FunctionType) -> Function:
        """The function of that name: the one that is there, or the declaration of one that is elsewhere."""
        return self.functions.get(name) or Function(self, kind, name)

    def internal(self, name: str, kind: FunctionType, body: Callable[[Function], None], *attributes: str) -> Function:
        """The module's own function of that name, which is called and never inlined; made now if there is none."""
        if name in self.functions:
            return self.functions[name]
        function = Function(self, kind, name)
        function.linkage = "internal"
        function.attributes += [*attributes, "noinline"]
        body(function)
        return function

    def __str__(self) -> str:
        definitions = [item.definition for item in self.constants.values()]
        text = "\n".join(definitions + [item.definition for item in self.functions.values()])
        return "\n".join([text, *(line for use, line in _METADATA.items() if use in text), ""])


class GlobalConstant(Value):
    """Memory of a module that holds a constant; as a value, its address."""

    __slots__ = ("definition",)

    def __init__(self, module: Module, name: str, value: Constant, align: int = 1):
        super().__init__(PointerType(), f"@{_name(name)}")
        self.definition = f"{self.text} = internal constant {value}, align {align}"
        module.constants[name] = self


class Argument(Value):
    """A parameter of a function, named when its function is printed."""

    __slots__ = ("attributes",)

    def __init__(self, type: Type, text: str):
        super().__init__(type, text)
        self.attributes = ""

    @property
    def name(self) -> str:
        return self.text[1:].strip('"')

    @name.setter
    def name(self, name: str) -> None:
        self.text = f"%{_name(name)}"

    def add_attribute(self, name: str) -> None:
        self.attributes += f" {name}"


class Function(Value):
    """A function; one without blocks is declared only. Arguments are to be named before they are used."""

    __slots__ = ("module", "name", "function_type", "args", "linkage", "attributes", "blocks", "allocas", "_names",
                 "_numbers")  # fmt: skip

    def __init__(self, module: Module, function_type: FunctionType, name: str):
        super().__init__(PointerType(), f"@{_name(name)}")
        self.module, self.name, self.function_type = module, name, function_type
        self.args = [Argument(kind, f"%a{i}") for i, kind in enumerate(function_type.parameters)]
        self.linkage = ""
        self.attributes: list[str] = []
        self.blocks: list[Block] = []
        self.allocas: list[str] = []  # they stand at the beginning of the first block
        self._names: dict[str, int] = {}
        self._numbers = 0
        module.functions[name] = self

    def append_basic_block(self, name: str = "entry") -> Block:
        block = Block(self, self.unique(name))
        self.blocks.append(block)
        return block

    def unique(self, name: str) -> str:
        """A name that no other block or named value of the function has."""
        count = self._names[name] = self._names.get(name, 0) + 1
        return _name(name if count == 1 else f"{name}.{count}")

    def number(self) -> str:
        """The name of a value that needs none."""
        self._numbers += 1
        return f"%v{self._numbers}"

    @property
    def definition(self) -> str:
        result = self.function_type.result
        if not self.blocks:
            return f"declare {result} {self.text}({', '.join(str(kind) for kind in self.function_type.parameters)})"
        args = ", ".join([f"{arg.type}{arg.attributes} {arg.text}" for arg in self.args])
        words = ["define", self.linkage, str(result), f"{self.text}({args})", *self.attributes, "{"]
        lines = [" ".join(word for word in words if word)]
        for i, block in enumerate(self.blocks):
            lines.append(f"{block.name}:")
            lines += self.allocas if i == 0 else ()
            lines += [line if isinstance(line, str) else line.line for line in block.lines]
        return "\n".join([*lines, "}", ""])


class Block:
    """A row of instructions; the last one says where control goes."""

    __slots__ = ("parent", "name", "lines", "is_terminated")

    def __init__(self, parent: Function, name: str):
        self.parent, self.name = parent, name
        self.lines: list[str | Phi] = []
        self.is_terminated = False

    @property
    def text(self) -> str:
        return f"label %{self.name}"


_PLAIN = re.compile(r"[-a-zA-Z$._][-a-zA-Z$._0-9]*", re.ASCII)


def _name(name: str) -> str:
    """A name as LLVM reads it."""
    if _PLAIN.fullmatch(name):
        return name
    return '"' + "".join([f"\\{byte:02x}" for byte in name.encode()]) + '"'


# ---- instructions --------------------------------------------------------------------------------------------------

_LIKELY, _UNLIKELY, _AROUND = "!prof !0", "!prof !1", "!nontemporal !2"
_METADATA = {
    _LIKELY: '!0 = !{!"branch_weights", i32 1048576, i32 1}',
    _UNLIKELY: '!1 = !{!"branch_weights", i32 1, i32 1048576}',
    _AROUND: "!2 = !{i32 1}",
}


def _binary(opcode: str, fold: Callable[[int, int], int], neutral: int, commutes: bool = True) -> Callable[..., Value]:
    """x op y on integers. What is known already is not left to LLVM: two numbers, or a neutral one."""

    def verb(self: Builder, x: Value, y: Value) -> Value:
        if commutes and isinstance(x, Constant):
            x, y = y, x
        if isinstance(y, Constant) and isinstance(y.constant, int):
            if y.constant == neutral:
                return x
            if isinstance(x, Constant) and isinstance(x.constant, int):
                return x.type(fold(x.constant, y.constant))
        return self.append(x.type, f"{opcode} {x.type.text} {x.text}, {y.text}")

    return verb


def _cast(opcode: str) -> Callable[..., Value]:
    def verb(self: Builder, x: Value, kind: Type, name: str = "") -> Value:
        return self.append(kind, f"{opcode} {x.type.text} {x.text} to {kind.text}", name)

    return verb


_RELATIONS: dict[str, Callable[[int, int], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge
}  # fmt: skip


class Builder:
    """Appends instructions to a block, at its end."""

    __slots__ = ("block",)

    def __init__(self, block: Block):
        self.block = block

    @property
    def function(self) -> Function:
        return self.block.parent

    @property
    def module(self) -> Module:
        return self.block.parent.module

    def append(self, kind: Type, text: str, name: str = "") -> Value:
        """An instruction, written without its result, which is of type `kind`."""
        function = self.block.parent
        value = Value(kind, f"%{function.unique(name)}" if name else function.number())
        self.block.lines.append(f"  {value.text} = {text}")
        return value

    def put(self, text: str) -> None:
        """An instruction without a result."""
        self.block.lines.append(f"  {text}")

    add, sub = _binary("add", operator.add, 0), _binary("sub", operator.sub, 0, commutes=False)
    mul, udiv = _binary("mul", operator.mul, 1), _binary("udiv", operator.floordiv, 1, commutes=False)
    and_, or_ = _binary("and", operator.and_, -1), _binary("or", operator.or_, 0)
    trunc, zext, sext, bitcast = _cast("trunc"), _cast("zext"), _cast("sext"), _cast("bitcast")
    inttoptr, ptrtoint = _cast("inttoptr"), _cast("ptrtoint")

    def not_(self, x: Value) -> Value:
        return self.append(x.type, f"xor {x.type.text} {x.text}, -1")

    def icmp_signed(self, relation: str, x: Value, y: Value) -> Value:
        return self._icmp("s", relation, x, y)

    def icmp_unsigned(self, relation: str, x: Value, y: Value) -> Value:
        return self._icmp("u", relation, x, y)

    def _icmp(self, sign: str, relation: str, x: Value, y: Value) -> Value:
        if isinstance(x, Constant) and isinstance(y, Constant) and min(x.constant, y.constant) >= 0:
            return IntType(1)(_RELATIONS[relation](x.constant, y.constant))
        word = {"==": "eq", "!=": "ne", "<": f"{sign}lt", "<=": f"{sign}le", ">": f"{sign}gt", ">=": f"{sign}ge"}
        kind = IntType(1) if x.type.count == 1 else VectorType(IntType(1), x.type.count)
        return self.append(kind, f"icmp {word[relation]} {x.type.text} {x.text}, {y.text}")

    def select(self, condition: Value, x: Value, y: Value) -> Value:
        if isinstance(condition, Constant):
            return x if condition.constant else y
        return self.append(x.type, f"select {condition}, {x}, {y}")

    # ---- memory

    def load(self, pointer: Value, typ: Type, align: int | None = None) -> Value:
        return self.append(typ, f"load {typ.text}, ptr {pointer.text}{_aligned(align)}")

    def store(self, x: Value, pointer: Value, align: int | None = None, around: bool = False) -> None:
        """around: the cache"""
        hint = f", {_AROUND}" * around
        self.put(f"store {x.type.text} {x.text}, ptr {pointer.text}{_aligned(align)}{hint}")

    def gep(self, pointer: Value, indices: Sequence[Value], source_etype: Type) -> Value:
        """The address so many elements further; many addresses when the index is a vector."""
        (index,) = indices
        if isinstance(index, Constant) and index.constant == 0:
            return pointer
        kind = pointer.type if index.type.count == 1 else VectorType(pointer.type, index.type.count)
        return self.append(kind, f"getelementptr {source_etype.text}, ptr {pointer.text}, {index}")

    def alloca(self, kind: Type, count: int = 1, name: str = "") -> Value:
        """Memory of the function's own, wherever the builder stands."""
        function = self.block.parent
        value = Value(PointerType(), f"%{function.unique(name)}" if name else function.number())
        function.allocas.append(f"  {value.text} = alloca {kind.text}" + f", i32 {count}" * (count > 1))
        return value

    # ---- lanes

    def insert_element(self, vector: Value, x: Value, index: Value) -> Value:
        return self.append(vector.type, f"insertelement {vector}, {x}, {index}")

    def extract_element(self, vector: Value, index: Value) -> Value:
        return self.append(vector.type.element, f"extractelement {vector}, {index}")

    def shuffle_vector(self, x: Value, y: Value, lanes: Value) -> Value:
        return self.append(VectorType(x.type.element, lanes.type.count), f"shufflevector {x}, {y}, {lanes}")

    def lanes(self, vector: Value, first: int, count: int) -> Value:
        """`count` lanes of a vector, from `first` on."""
        return self.shuffle_vector(vector, vector, numbers(count, first))

    def joined(self, x: Value, y: Value) -> Value:
        """The lanes of x, and after them those of y."""
        return self.shuffle_vector(x, y, numbers(2 * x.type.count))

    # ---- control

    def call(self, function: Function, operands: Sequence[Value]) -> Value:
        result = function.function_type.result
        text = f"call {result.text} {function.text}({', '.join([str(x) for x in operands])})"
        if result.text != "void":
            return self.append(result, text)
        self.put(text)
        return Value(result, "")

    def phi(self, kind: Type) -> Phi:
        value = Phi(kind, self.block.parent.number())
        self.block.lines.append(value)
        return value

    def branch(self, to: Block) -> None:
        self._leave(f"br {to.text}")

    def cbranch(self, condition: Value, then: Block, other: Block, likely: bool | None = None) -> None:
        if isinstance(condition, Constant):
            return self.branch(then if condition.constant else other)
        weights = "" if likely is None else f", {_LIKELY if likely else _UNLIKELY}"
        self._leave(f"br i1 {condition.text}, {then.text}, {other.text}{weights}")

    def ret(self, x: Value) -> None:
        self._leave(f"ret {x}")

    def ret_void(self) -> None:
        self._leave("ret void")

    def _leave(self, text: str) -> None:
        self.put(text)
        self.block.is_terminated = True

    def append_basic_block(self, name: str = "block") -> Block:
        return self.block.parent.append_basic_block(name)

    def position_at_end(self, block: Block) -> None:
        self.block = block

    @contextmanager
    def goto_block(self, block: Block) -> Iterator[None]:
        """Append to another block for a while, before its end."""
        here, self.block = self.block, block
        last = block.lines.pop() if block.is_terminated else None
        try:
            yield
        finally:
            if last is not None:
                block.lines.append(last)
            self.block = here

    @contextmanager
    def if_then(self, condition: Value, likely: bool | None = None) -> Iterator[None]:
        """What is appended inside runs if the condition holds."""
        then, done = self.append_basic_block("then"), self.append_basic_block("done")
        self.cbranch(condition, then, done, likely)
        with self._until(then, done):
            yield
        self.block = done

    @contextmanager
    def if_else(self, condition: Value) -> Iterator[tuple[Any, Any]]:
        """with build.if_else(c) as (then, other): with then: ...; with other: ..."""
        then, other, done = (self.append_basic_block(name) for name in ("then", "else", "done"))
        self.cbranch(condition, then, other)
        yield self._until(then, done), self._until(other, done)
        self.block = done

    @contextmanager
    def _until(self, block: Block, done: Block) -> Iterator[None]:
        self.block = block
        yield
        if not self.block.is_terminated:
            self.branch(done)


@cache
def _aligned(align: int | None) -> str:
    return "" if align is None else f", align {align}"
