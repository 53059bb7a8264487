"""Scalar expressions -> C++, for the task generator.

`Expr.evaluate` is the meaning of every expression; the text computes the same. Arithmetic that cannot leave its 64 bits
is written with plain operators. Elsewhere it is a call: of WrapAdd and its kin, which wrap, or inside an index of
`exact.Add` and its kin, which also note that the index is wrong (task_table.h). Start reading at `write`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pto_wsp.errors import CompileError, SourceLine
from pto_wsp.scalar_expr import Expr, LoopVar, as_expr, constant_of

__all__ = ["Scope", "Text", "Variable", "integer", "write"]

_LEAST, _MOST, _MOST_UNSIGNED = -(1 << 63), (1 << 63) - 1, (1 << 64) - 1

# How strongly C++ binds.
_ATOM, _PRODUCT, _SUM, _SHIFT, _COMPARE, _BIT, _LOGIC, _CHOICE = 100, 12, 11, 10, 8, 6, 4, 2


@dataclass(frozen=True)
class Variable:
    """A loop variable: its name in C++ and the values that it takes."""

    var: LoopVar
    name: str
    low: int
    high: int


@dataclass(frozen=True)
class Scope:
    """What an expression may refer to.

    symbols, slots  C++ for a symbol or a slot, by name or number
    params          the task's argument words, for dispatch keys
    exact           inside an index: sums and products that leave the 64 bits are noted
    """

    loops: tuple[Variable, ...]
    symbols: Mapping[str, str]
    slots: Mapping[int, str]
    params: Sequence[Text] | None = None
    exact: bool = False
    line: SourceLine | None = None

    def inside(self, variable: Variable) -> Scope:
        return replace(self, loops=(*self.loops, variable))

    def find(self, var: LoopVar) -> Variable:
        return next(v for v in self.loops if v.var is var)


@dataclass(frozen=True)
class Text:
    """C++ of a value."""

    text: str
    type: str  # "bool", "i64", "u64"
    binds: int = _ATOM
    low: int = _LEAST  # low <= value <= high over the integers
    high: int = _MOST

    def inside(self, binds: int) -> str:
        """As an operand of an operator that binds so strongly."""
        return self.text if self.binds > binds else f"({self.text})"


def write(value: Any, scope: Scope) -> Text:
    """An Expr, LoopVar, bool or int as C++."""
    expr = as_expr(value)
    number = constant_of(expr)
    if number is not None:
        return _literal(int(number), expr.type)
    return _WRITE[expr.kind](expr, scope)


def integer(value: int) -> str:
    """An int64_t literal."""
    if abs(value) < 1 << 31:
        return str(value)
    return "INT64_MIN" if value == _LEAST else f"INT64_C({value})"


def _literal(value: int, kind: str) -> Text:
    if kind == "bool":
        return Text(str(bool(value)).lower(), kind, _ATOM, value, value)
    if kind == "u64":
        return Text(f"UINT64_C({value})", kind, _ATOM, value, value)
    return Text(integer(value), kind, _ATOM if value >= 0 else _PRODUCT, value, value)


def _full(text: str, kind: str, binds: int = _ATOM) -> Text:
    low, high = {"bool": (0, 1), "u64": (0, _MOST_UNSIGNED), "i64": (_LEAST, _MOST)}[kind]
    return Text(text, kind, binds, low, high)


# ---- leaves ----------------------------------------------------------------------------------------------------------


def _loop_var(expr: Expr, scope: Scope) -> Text:
    found = scope.find(expr.a)
    return Text(found.name, "i64", _ATOM, found.low, found.high)


def _axis(expr: Expr, scope: Scope) -> Text:
    found = next((v for v in reversed(scope.loops) if v.var.name == expr.a), None)
    if found is not None:
        return Text(found.name, "i64", _ATOM, found.low, found.high)
    if expr.b is None:
        raise CompileError(f"axis({expr.a!r}): no loop of that name is open here.").at(scope.line)
    return _literal(int(expr.b), "i64")


def _symbol(expr: Expr, scope: Scope) -> Text:
    return _full(scope.symbols[expr.a], "u64")


def _slot(expr: Expr, scope: Scope) -> Text:
    word = scope.slots[expr.a]
    if expr.type == "bool":
        return _full(f"{word} != 0", "bool", _COMPARE)
    return _full(word if expr.type == "u64" else f"static_cast<int64_t>({word})", expr.type)


def _param(expr: Expr, scope: Scope) -> Text:
    if scope.params is None:
        raise CompileError(f"{expr} has a meaning in dispatch keys only.").at(scope.line)
    return scope.params[expr.a] if expr.a < len(scope.params) else _literal(0, "i64")


# ---- operators -------------------------------------------------------------------------------------------------------


def _unary(expr: Expr, scope: Scope) -> Text:
    if expr.a == "-":
        return _linear("-", _literal(0, expr.b.type), write(expr.b, scope), scope)
    value = write(expr.b, replace(scope, exact=False))
    return _full(("!" if value.type == "bool" else "~") + value.inside(_PRODUCT), value.type, _PRODUCT + 1)


def _binary(expr: Expr, scope: Scope) -> Text:
    if expr.a in ("+", "-", "*"):
        return _linear(expr.a, write(expr.b, scope), write(expr.c, scope), scope)
    inner = replace(scope, exact=False)
    a, b = write(expr.b, inner), write(expr.c, inner)
    if expr.a in ("//", "%"):
        return _divide(expr.a, a, b)
    if expr.a in ("<<", ">>"):
        count = str(b.low & 63) if b.low == b.high else f"({b.inside(_BIT)} & 63)"
        return _full(f"{a.inside(_SHIFT)} {expr.a} {count}", "u64", _SHIFT)
    if expr.a in ("&", "|", "^"):
        op, binds = (expr.a * 2, _LOGIC) if a.type == "bool" else (expr.a, _BIT)
        return _full(f"{a.inside(binds)} {op} {b.inside(binds)}", a.type, binds)
    known = _known(expr.a, a, b)
    if known is not None:
        return _literal(known, "bool")
    if a.type != b.type:
        return _full(f"aicpu::Compare({a.text}, {b.text}) {expr.a} 0", "bool", _COMPARE)
    return _full(f"{a.inside(_COMPARE)} {expr.a} {b.inside(_COMPARE)}", "bool", _COMPARE)


_COMPARE_WITH: dict[str, tuple[bool, bool, bool]] = {
    "<": (True, False, False), "<=": (True, True, False), ">": (False, False, True), ">=": (False, True, True),
    "==": (False, True, False), "!=": (True, False, True),
}  # fmt: skip
"""What an operator makes of less, equal, more."""


def _known(op: str, a: Text, b: Text) -> bool | None:
    """A comparison that has only one outcome; compilers warn of those."""
    can = (a.low < b.high, a.low <= b.high and b.low <= a.high, a.high > b.low)
    if a.text == b.text:
        can = (False, True, False)
    outcomes = {_COMPARE_WITH[op][k] for k in range(3) if can[k]}
    return outcomes.pop() if len(outcomes) == 1 else None


_COMPUTE: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
}
_NAMES = {"+": "Add", "-": "Sub", "*": "Mul"}


def _linear(op: str, a: Text, b: Text, scope: Scope) -> Text:
    neutral = 1 if op == "*" else 0
    if b.low == b.high == neutral:
        return a
    if op != "-" and a.low == a.high == neutral:
        return b
    corners = [_COMPUTE[op](x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
    least, most = (0, _MOST_UNSIGNED) if a.type == "u64" else (_LEAST, _MOST)
    if least <= min(corners) and max(corners) <= most:
        return Text(_plain(op, a, b), a.type, _PRODUCT if op == "*" else _SUM, min(corners), max(corners))
    wide = "uint64_t" if a.type == "u64" else "int64_t"
    if scope.exact:
        return _full(f"exact.{_NAMES[op]}<{wide}>({a.text}, {b.text})", a.type)
    if a.type == "u64":
        return _full(_plain(op, a, b), "u64", _PRODUCT if op == "*" else _SUM)
    return _full(f"aicpu::Wrap{_NAMES[op]}({a.text}, {b.text})", a.type)


def _plain(op: str, a: Text, b: Text) -> str:
    if op == "-" and a.low == a.high == 0 and a.type == "i64":
        return f"-{b.inside(_PRODUCT)}"
    if op == "*":
        return f"{a.inside(_PRODUCT - 1)} * {b.inside(_PRODUCT)}"
    return f"{a.inside(_SUM - 1)} {op} {b.inside(_SUM)}"


def _divide(op: str, a: Text, b: Text) -> Text:
    """C's quotient or remainder; 0 for a zero divisor."""
    sign = "/" if op == "//" else "%"
    if b.low == b.high and b.low > 0:
        text = f"{a.inside(_PRODUCT - 1)} {sign} {b.inside(_PRODUCT)}"
        if a.type == "u64":
            return _full(text, "u64", _PRODUCT)
        if op == "//":
            low, high = (abs(x) // b.low * (1 if x >= 0 else -1) for x in (a.low, a.high))
        else:
            low, high = (max(a.low, 1 - b.low) if a.low < 0 else 0), (min(a.high, b.low - 1) if a.high > 0 else 0)
        return Text(text, "i64", _PRODUCT, low, high)
    wide = "uint64_t" if a.type == "u64" else "int64_t"
    name = "Quotient" if op == "//" else "Remainder"
    return _full(f"aicpu::{name}({_as(wide, a)}, {_as(wide, b)})", a.type)


def _as(wide: str, value: Text) -> str:
    """An argument of an overloaded function: a literal gets its type."""
    return f"{wide}{{{value.text}}}" if value.low == value.high else value.text


def _ternary(expr: Expr, scope: Scope) -> Text:
    condition = write(expr.a, replace(scope, exact=False))
    a, b = write(expr.b, scope), write(expr.c, scope)
    wide = {"bool": "bool", "i64": "int64_t", "u64": "uint64_t"}[a.type]
    texts = [_as(wide, x) if x.low == x.high and x.type == "i64" else x.inside(_CHOICE) for x in (a, b)]
    text = f"{condition.inside(_CHOICE)} ? {texts[0]} : {texts[1]}"
    return Text(text, a.type, _CHOICE, min(a.low, b.low), max(a.high, b.high))


def _cast(expr: Expr, scope: Scope) -> Text:
    value = write(expr.a, scope if expr.type != "bool" else replace(scope, exact=False))
    if expr.type == value.type:
        return value
    if expr.type == "bool":
        return _full(f"{value.inside(_COMPARE)} != 0", "bool", _COMPARE)
    wide = "uint64_t" if expr.type == "u64" else "int64_t"
    text = f"static_cast<{wide}>({value.text})"
    least, most = (0, _MOST_UNSIGNED) if expr.type == "u64" else (_LEAST, _MOST)
    if least <= value.low and value.high <= most:
        return Text(text, expr.type, _ATOM, value.low, value.high)
    return _full(text, expr.type)


_WRITE: dict[str, Callable[[Expr, Scope], Text]] = {
    "loop_var": _loop_var,
    "axis_var": _axis,
    "symbol_u64": _symbol,
    "task_tag_u64": _symbol,
    "slot_u64": _slot,
    "slot_i64": _slot,
    "slot_bool": _slot,
    "task_param": _param,
    "unary": _unary,
    "binary": _binary,
    "ternary": _ternary,
    "cast": _cast,
}
