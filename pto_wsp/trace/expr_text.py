"""Scalar expressions and lists of integers as text that reads back equal: `print_expr`, and `ExprReader`.

    b * 16 + 3                          loop variables by name; i@1 is the i of the next loop further out
    slot_u64(0) % 4u == axis("h", 0)    a literal says its type: 4 is an i64, 4u a u64, true a bool
    where(n < 3, u64(n), 7u)            casts are written where they are; nothing is converted while reading
    1000000 of u16 "eJz..."             a long list: so many numbers, little-endian, packed by zlib, in base64

Unlike `str(expr)`, which is for people, this form keeps every type. Texts may come from another process: they are read
token by token, and nothing in them is ever run.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pto_wsp.errors import IRConversionError
from pto_wsp.scalar_expr import ARITHMETIC, BITWISE, COMPARISONS, SHIFTS, SLOTS, Expr, LoopVar
from pto_wsp.trace.text import WORD, Reader

__all__ = ["ExprReader", "int_list", "name_text", "print_expr"]

_STRENGTH = {
    **dict.fromkeys(("*", "//", "%"), 6), **dict.fromkeys(("+", "-"), 5), **dict.fromkeys(SHIFTS, 4),
    "&": 3, "^": 2, "|": 1, **dict.fromkeys(COMPARISONS, 0),
}  # fmt: skip
_CASTS = ("bool", "i64", "u64")
_NAMED = {"axis_var": "axis", "symbol_u64": "symbol_u64", "task_tag_u64": "tag"}  # kind -> how it is written
_NUMBERED = ("slot_u64", "slot_i64", "slot_bool", "task_param")
_LEAF_TYPES = {"axis_var": "i64", "symbol_u64": "u64", "task_tag_u64": "u64", "slot_u64": "u64", "slot_i64": "i64",
               "slot_bool": "bool", "task_param": "i64"}  # fmt: skip
RESERVED = frozenset({
    *_CASTS, *_NAMED.values(), *_NUMBERED, "where", "true", "false", "inf", "nan", "in", "of", "tag", "symbol", "else",
    "if", "for", "after", "loop", "parallel", "sequential", "slot", "send", "consume", "connect", "process", "receive",
    "tensor", "channel", "Dense", "DenseDyn", "Ragged", "Sparse", "consumes", "produces", "from", "to", "at",
})  # fmt: skip
"""Words with a meaning of their own: a loop of this name is written in quotes."""

_PACKED = {f"{sign}{bits}": np.dtype(f"<{sign}{bits // 8}") for sign in "ui" for bits in (8, 16, 32, 64)}
_LITTLE = 64  # numbers that are still written out
MOST_NUMBERS = 1 << 28


# ---- printing ------------------------------------------------------------------------------------------------------


def name_text(name: str) -> str:
    """A name, in quotes unless it is a plain word."""
    return name if re.fullmatch(WORD, name) and name not in RESERVED else json.dumps(name)


def print_expr(x: Any, name: Callable[[LoopVar], str]) -> str:
    """An expression, a loop variable, an int or a bool. `name`: how a loop variable is called at this place.

    raises IRConversionError for an expression with too many operators inside one another
    """
    try:
        return _text(x, name, 0)
    except RecursionError:
        raise IRConversionError("an expression has too many operators inside one another to be written.") from None


def _text(x: Any, name: Callable[[LoopVar], str], outer: int) -> str:
    if isinstance(x, LoopVar):
        return name(x)
    if not isinstance(x, Expr):
        return _literal(x)
    if x.kind.startswith("lit_"):
        return _literal(x.a) + ("u" if x.kind == "lit_u64" else "")
    if x.kind == "loop_var":
        return name(x.a)
    if x.kind == "binary":
        strength = _STRENGTH[x.a]
        left, right = _text(x.b, name, strength), _text(x.c, name, strength + 1)
        if strength == 0:  # comparisons do not chain
            left = _text(x.b, name, 1)
        text = f"{left} {x.a} {right}"
        return f"({text})" if strength < outer else text
    parts = [_text(part, name, 0) for part in x.operands()]
    if x.kind == "unary":
        return f"{x.a}({parts[0]})"
    if x.kind == "cast":
        return f"{x.type}({parts[0]})"
    if x.kind == "ternary":
        return f"where({', '.join(parts)})"
    if x.kind in _NAMED:
        default = f", {x.b}" if x.kind == "axis_var" and x.b is not None else ""
        return f"{_NAMED[x.kind]}({json.dumps(x.a)}{default})"
    return f"{x.kind}({x.a})"


def _literal(value: Any) -> str:
    return str(value).lower() if isinstance(value, (bool, np.bool_)) else str(int(value))


def int_list(values: Sequence[int] | NDArray[Any]) -> str:
    """A list of 64-bit integers, signed or not: written out if it is short, else packed."""
    array = np.asarray(values) if len(values) else np.zeros(0, np.int64)
    if len(array) <= _LITTLE:
        return f"[{', '.join(map(str, array.tolist()))}]"
    low, high = int(array.min()), int(array.max())
    signs = "u" if low >= 0 else "i"
    kind = next(k for k, d in _PACKED.items()
                if k[0] == signs and np.iinfo(d).min <= low and high <= np.iinfo(d).max)  # fmt: skip
    packed = base64.b64encode(zlib.compress(array.astype(_PACKED[kind]).tobytes(), 6)).decode("ascii")
    return f'{len(array)} of {kind} "{packed}"'


# ---- reading -------------------------------------------------------------------------------------------------------


class ExprReader(Reader):
    """Reads expressions. `scope`: the loop variables that may be used, innermost last."""

    TITLE = "program text"
    TOKENS = re.compile(rf"""
        (?P<newline>\n) | (?P<blank>[ \t\r]+) | (?P<comment>\#[^\n]*)
      | (?P<number>[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?u?)
      | (?P<string>"(?:[^"\\\n]|\\.)*")
      | (?P<label>@[0-9]+)
      | (?P<word>{WORD})
      | (?P<mark>:\+|\.\.|//|<<|>>|<=|>=|==|!=|[-+*%&|^~<>()\[\],:=])
    """, re.VERBOSE)

    def __init__(self, text: str, begin: int = 0, end: int | None = None) -> None:
        super().__init__(text, begin, end)
        self.scope: list[LoopVar] = []

    # -- expressions

    def expression(self, least: int = 0) -> Any:
        """An int or a bool where a literal stands alone, else an Expr."""
        start = self.token
        try:
            found = self.operand(least)
        except RecursionError:
            self.fail("this expression has too many operators inside one another.", start)
        plain = isinstance(found, Expr) and found.kind in ("lit_i64", "lit_bool")
        return found.a if plain and start.text != "(" else found

    def operand(self, least: int = 0) -> Expr:
        """Operators that bind at least so strongly."""
        left = self.primary()
        while self.token.kind == "mark" and _STRENGTH.get(self.token.text, -1) >= least:
            token = self.take()
            strength = _STRENGTH[token.text]
            right = self.operand(strength + 1)
            kind = self.type_of(token, left, right)
            left = Expr("binary", kind, token.text, left, right)
            if strength == 0:
                break
        return left

    def type_of(self, token: Any, left: Expr, right: Expr) -> str:
        """The type of a binary operation, whose operands have to agree."""
        op, types = token.text, (left.type, right.type)
        if op in COMPARISONS and ("bool" not in types or types[0] == types[1]):
            return "bool"
        if op in ARITHMETIC and types[0] == types[1] != "bool":
            return left.type
        if op in SHIFTS and types == ("u64", "u64"):
            return "u64"
        if op in BITWISE and types[0] == types[1] and (types[0] == "u64" or (types[0] == "bool" and op != "^")):
            return left.type
        self.fail(f"'{op}' does not take {types[0]} and {types[1]}; casts are written out: u64(x), i64(x), bool(x).",
                  token)  # fmt: skip

    def primary(self) -> Expr:
        token = self.take()
        if token.kind == "number":
            return self.literal(token, 1)
        if token.kind == "string":
            return self.variable(token, self.string(token))
        if token.text == "(":
            found = self.operand()
            self.mark(")")
            return found
        if token.text == "-" and self.token.kind == "number":
            return self.literal(self.take(), -1)
        if token.text in ("-", "~") and token.kind == "mark":
            return self.unary(token)
        if token.kind != "word":
            self.fail("expected an expression.", token)
        if token.text in ("true", "false"):
            return Expr("lit_bool", "bool", token.text == "true")
        if self.at_mark("(") and token.text in RESERVED:
            return self.call(token)
        return self.variable(token, token.text)

    def literal(self, token: Any, sign: int) -> Expr:
        digits = token.text.removesuffix("u")
        if not digits.isdigit() or len(digits) > 20:
            self.fail("expected a 64-bit integer.", token)
        value, unsigned = sign * int(digits), token.text.endswith("u")
        if not (0 if unsigned else -(1 << 63)) <= value < (1 << (64 if unsigned else 63)):
            self.fail(f"{value} does not fit {'u64' if unsigned else 'i64'}.", token)
        return Expr("lit_u64" if unsigned else "lit_i64", "u64" if unsigned else "i64", value)

    def variable(self, token: Any, name: str) -> Expr:
        out = int(self.take().text[1:][:9]) if self.token.kind == "label" else 0
        found = [var for var in reversed(self.scope) if var.name == name]
        if out >= len(found):
            known = ", ".join(name_text(v.name) for v in reversed(self.scope)) or "none"
            called = token.text[:80] + (f"@{out}" if out else "")
            self.fail(f"no loop {called} is open here; loops, from inside: {known[:200]}.", token)
        return Expr("loop_var", "i64", found[out])

    def unary(self, token: Any) -> Expr:
        self.mark("(")
        x = self.operand()
        self.mark(")")
        if x.type not in (("i64", "u64") if token.text == "-" else ("bool", "u64")):
            self.fail(f"'{token.text}' does not take {x.type}.", token)
        return Expr("unary", x.type, token.text, x)

    def call(self, token: Any) -> Expr:
        self.mark("(")
        found = self._called(token)
        self.mark(")")
        return found

    def _called(self, token: Any) -> Expr:
        word = token.text
        if word in _CASTS:
            x = self.operand()
            if x.type == word:
                self.fail(f"this is {word} already.", token)
            return Expr("cast", word, x)
        if word == "where":
            condition = self.operand()
            self.mark(",")
            then = self.operand()
            self.mark(",")
            other = self.operand()
            if condition.type != "bool" or then.type != other.type:
                self.fail("where(condition, x, y) takes a bool and two values of one type.", token)
            return Expr("ternary", then.type, condition, then, other)
        for kind, written in _NAMED.items():
            if word == written:
                name, default = self.quoted(), None
                if kind == "axis_var" and self.at_mark(","):
                    self.mark(",")
                    default = self.whole()
                return Expr(kind, _LEAF_TYPES[kind], name, default)
        if word in _NUMBERED:
            number = self.whole()
            if not 0 <= number < (SLOTS if word != "task_param" else 1 << 31):
                self.fail(f"{word} has no number {number}.", token)
            return Expr(word, _LEAF_TYPES[word], number)
        return self.other_call(token)

    def other_call(self, token: Any) -> Expr:
        self.fail(f"{token.text} is no function of an expression.", token)

    # -- smaller things

    def accept(self, text: str) -> bool:
        """Take this mark or word if it is next."""
        if self.token.text == text and self.token.kind in ("mark", "word"):
            self.take()
            return True
        return False

    def word(self, text: str) -> None:
        self.expect("word", f"'{text}'", text)

    def quoted(self) -> str:
        name = self.string(self.expect("string", "a name in quotes"))
        if not name:
            self.fail("a name is not empty.")
        return name

    def called(self, what: str) -> str:
        """A name: a word or in quotes."""
        if self.token.kind == "word" and self.token.text in RESERVED:
            self.fail(f"expected {what}; {self.token.text} stands in quotes here.")
        return self.name(what)

    def whole(self, low: int = -(1 << 63), high: int = (1 << 64) - 1) -> int:
        """An integer."""
        sign = -1 if self.accept("-") else 1
        token = self.expect("number", "an integer")
        if not token.text.isdigit() or len(token.text) > 20:
            self.fail("expected an integer.", token)
        value = sign * int(token.text)
        if not low <= value <= high:
            self.fail(f"this number is from {low} to {high}; got {value}.", token)
        return value

    def ints(self, low: int = -(1 << 63), high: int = (1 << 63) - 1) -> NDArray[Any]:
        """What `int_list` has written."""
        if self.accept("["):
            found: list[int] = []
            while not self.at_mark("]"):
                if found:
                    self.mark(",")
                found.append(self.whole(low, high))
            self.mark("]")
            return np.array(found, np.uint64 if high >= 1 << 63 and low >= 0 else np.int64)
        count = self.whole(0, MOST_NUMBERS)
        self.word("of")
        kind = self.expect("word", "u8, u16, u32, u64, i8, i16, i32 or i64")
        if kind.text not in _PACKED:
            self.fail("packed numbers are of u8, u16, u32, u64, i8, i16, i32 or i64.", kind)
        token = self.expect("string", "packed numbers in quotes")
        array = self.unpacked(token, count, _PACKED[kind.text])
        if count and not (low <= int(array.min()) and int(array.max()) <= high):
            self.fail(f"these numbers are from {low} to {high}; got {array.min()} to {array.max()}.", token)
        return array

    def unpacked(self, token: Any, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        wanted = count * dtype.itemsize
        try:
            engine = zlib.decompressobj()
            data = engine.decompress(base64.b64decode(token.text[1:-1], validate=True), wanted + 1)
        except (binascii.Error, zlib.error, ValueError) as error:
            self.fail(f"these packed numbers are damaged: {error}.", token)
        if len(data) != wanted or not engine.eof:
            self.fail(f"these packed numbers are no {count} of {dtype.itemsize} bytes each.", token)
        return np.frombuffer(data, dtype).astype(dtype.newbyteorder("="))
