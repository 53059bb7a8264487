"""C expressions over a kernel's scalar parameters, as `ptoisa` accepts them: text -> a tree -> what it stands for.

Understood: integer literals (also with u, ull), numbers with a point, parameter names, ( ), casts such as (uint64_t),
unary - + !, * / %, + -, comparisons, && ||, and ?: with C's precedence. Arithmetic is done in 64 bits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pto_wsp.errors import OperandError
from pto_wsp.scalar_expr import Expr, as_expr, task_param
from pto_wsp.trace.graph import KernelGraph
from pto_wsp.types import DType

Tree = tuple[
    Any, ...
]  # ("number", n, unsigned) ("name", n) ("cast", type, x) ("unary", op, x) ("binary", op, x, y) ("if", c, x, y)

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+\.\d*(?:[eE][+-]?\d+)?|\.\d+|0[xX][0-9a-fA-F]+|\d+)(?P<suffix>[uUlLfF]*)(?!\w)"
    r"|(?P<name>[A-Za-z_]\w*(?:::\w+)*)|(?P<op><=|>=|==|!=|&&|\|\||[-+*/%()<>?:!]))"
)
_BINDING = {
    "||": 1,
    "&&": 2,
    "==": 3,
    "!=": 3,
    "<": 4,
    "<=": 4,
    ">": 4,
    ">=": 4,
    "+": 5,
    "-": 5,
    "*": 6,
    "/": 6,
    "%": 6,
}
_TYPES = {
    "int": "i32",
    "unsigned": "u32",
    "long": "i64",
    "float": "f32",
    "double": "f64",
    "bool": "bool",
    "size_t": "u64",
    **{f"{u}int{n}_t": f"{'u' if u else 'i'}{n}" for u in ("", "u") for n in (8, 16, 32, 64)},
}
_DEEPEST = 100  # nesting of an expression
_MOST_DIGITS = 20  # of an integer: 64 bits


def parse(text: str) -> Tree:
    """The tree of a C expression.

    raises OperandError, quoting the text, when it is none
    """
    return _Parser(text).whole()


class _Parser:
    def __init__(self, text: str) -> None:
        self.text, self.tokens, self.at, self.depth = text, self._split(text), 0, 0

    def whole(self) -> Tree:
        made = self.ternary()
        if self.at < len(self.tokens):
            raise self.error(f"{self.tokens[self.at][1]!r} is not expected there")
        return made

    def ternary(self) -> Tree:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise self.error(f"it is nested more than {_DEEPEST} deep")
        condition = self.binary(1)
        if self.take("?"):
            then = self.ternary()
            self.need(":")
            condition = ("if", condition, then, self.ternary())
        self.depth -= 1
        return condition

    def binary(self, weakest: int) -> Tree:
        left = self.unary()
        while True:
            op = self.peek()
            if op is None or _BINDING.get(op, 0) < weakest:
                return left
            self.at += 1
            left = ("binary", op, left, self.binary(_BINDING[op] + 1))

    def unary(self) -> Tree:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise self.error(f"it is nested more than {_DEEPEST} deep")
        made = self._unary()
        self.depth -= 1
        return made

    def _unary(self) -> Tree:
        for op in ("-", "+", "!"):
            if self.take(op):
                return ("unary", op, self.unary())
        if self.take("("):
            kind = self.type_name()
            if kind is not None:
                return ("cast", kind, self.unary())
            inside = self.ternary()
            self.need(")")
            return inside
        if self.at == len(self.tokens):
            raise self.error("it ends too early")
        kind, text, suffix = self.tokens[self.at]
        self.at += 1
        if kind == "number":
            fraction = "." in text or "f" in suffix.lower() and not text.lower().startswith("0x")
            return ("number", float(text) if fraction else self.integer(text), "u" in suffix.lower())
        if kind == "name":
            return ("name", text)
        raise self.error(f"{text!r} is not expected there")

    def integer(self, text: str) -> int:
        """The value of an integer literal."""
        base, digits = (16, text[2:]) if text[:2] in ("0x", "0X") else (10, text)
        digits = digits.lstrip("0") or "0"
        if len(digits) > _MOST_DIGITS or int(digits, base) >= 1 << 64:
            raise self.error(f"the integer {text[:_MOST_DIGITS]}... needs more than 64 bits")
        return int(digits, base)

    def type_name(self) -> str | None:
        """The type of a cast whose "(" was just taken, or None when these are ordinary parentheses."""
        words, end = [], self.at
        while end < len(self.tokens) and self.tokens[end][0] == "name":
            words.append(self.tokens[end][1].removeprefix("std::"))
            end += 1
        if not words or end == len(self.tokens) or self.tokens[end][1] != ")" or any(w not in _TYPES for w in words):
            return None
        self.at = end + 1
        if len(words) == 1:
            return _TYPES[words[0]]
        return ("u" if "unsigned" in words else "i") + ("64" if "long" in words else "32")

    def peek(self) -> str | None:
        return self.tokens[self.at][1] if self.at < len(self.tokens) and self.tokens[self.at][0] == "op" else None

    def take(self, op: str) -> bool:
        found = self.peek() == op
        self.at += found
        return found

    def need(self, op: str) -> None:
        if not self.take(op):
            raise self.error(f"{op!r} is missing")

    def error(self, why: str) -> OperandError:
        return OperandError(
            f"{self.text!r} is not understood as a C expression: {why}. Use integers, scalar parameter names, "
            "casts, + - * / %, comparisons, && || ! and ?:."
        )

    def _split(self, text: str) -> list[tuple[str, str, str]]:
        found, end = [], 0
        text = text.rstrip()
        while end < len(text):
            match = _TOKEN.match(text, end)
            if match is None:
                self.text = text
                raise self.error(f"{text[end:].strip()[:10]!r} is no part of one")
            kind = "number" if match["number"] else "name" if match["name"] else "op"
            found.append((kind, match[kind], match["suffix"] or ""))
            end = match.end()
        return found


def names(tree: Tree) -> list[str]:
    """The names in a tree, from left to right."""
    if tree[0] == "name":
        return [tree[1]]
    return [n for part in tree if isinstance(part, tuple) for n in names(part)]


# ---- run-time cycles ---------------------------------------------------------------------------------------------


def added_cycles(graph: KernelGraph, first_scalar: int) -> Expr | None:
    """What the `add_cycles` nodes of a graph add for a task, beside plain numbers; None when there is none.

    first_scalar   position of the first scalar parameter among the task's argument words
    """
    leaves = {p.name: _word(first_scalar + i, p.type.dtype) for i, p in enumerate(graph.scalar_params)}
    if graph.custom is not None:
        extents = extent_names([p.name for p in graph.tile_params])
        leaves = {name: task_param(first_scalar - len(extents) + i) for i, name in enumerate(extents)} | leaves
    total: Expr | None = None
    for node in graph.nodes:
        if node.op.name == "add_cycles" and isinstance(node.attrs["cycles"], str):
            more = to_expr(parse(node.attrs["cycles"]), leaves).cast_i64()
            total = more if total is None else total + more
    return total


def extent_names(tiles: Sequence[str]) -> list[str]:
    """What the cycles of a custom kernel may name beside its scalars: valid rows and columns of its tiles."""
    return [f"{tile}_{extent}" for tile in tiles for extent in ("rows", "cols")]


def _word(index: int, dtype: DType) -> Expr:
    word = task_param(index)
    return word.cast_u64() if dtype is DType.U64 else word


def to_expr(tree: Tree, leaves: Mapping[str, Expr]) -> Expr:
    """A tree of integers as a scalar expression; names become `leaves`.

    raises OperandError for fractions and unknown names
    """
    return _EXPR[tree[0]](tree, leaves)


def _number(tree: Tree, leaves: Mapping[str, Expr]) -> Expr:
    if isinstance(tree[1], float):
        raise OperandError(f"{tree[1]} is no integer; cycles are counted in integers.")
    return as_expr(tree[1]).cast_u64() if tree[2] else as_expr(tree[1])


def _name(tree: Tree, leaves: Mapping[str, Expr]) -> Expr:
    if tree[1] not in leaves:
        raise OperandError(
            f"{tree[1]!r} is no integer scalar parameter of the kernel; there are: {', '.join(leaves) or 'none'}."
        )
    return leaves[tree[1]]


def _cast(tree: Tree, leaves: Mapping[str, Expr]) -> Expr:
    kind, x = tree[1], to_expr(tree[2], leaves)
    if kind == "bool":
        return x.cast_bool()
    if kind.startswith("f"):
        raise OperandError("a cast to a float has no place in a count of cycles.")
    bits = int(kind[1:])
    low = x.cast_u64() if bits == 64 else x.cast_u64() & ((1 << bits) - 1)
    if kind.startswith("u"):
        return low
    signed = low.cast_i64()
    return signed if bits == 64 else (signed >= 1 << (bits - 1)).where(signed - (1 << bits), signed)


def _unary(tree: Tree, leaves: Mapping[str, Expr]) -> Expr:
    x = to_expr(tree[2], leaves)
    return {"-": lambda: -_integer(x), "+": lambda: _integer(x), "!": lambda: ~x.cast_bool()}[tree[1]]()


def _binary(tree: Tree, leaves: Mapping[str, Expr]) -> Expr:
    op, x, y = tree[1], to_expr(tree[2], leaves), to_expr(tree[3], leaves)
    if op in ("&&", "||"):
        return x.cast_bool() & y.cast_bool() if op == "&&" else x.cast_bool() | y.cast_bool()
    return _OPERATORS[op](_integer(x), _integer(y))


_OPERATORS: dict[str, Callable[[Expr, Expr], Expr]] = {
    "+": lambda x, y: x + y,
    "-": lambda x, y: x - y,
    "*": lambda x, y: x * y,
    "/": lambda x, y: x // y,
    "%": lambda x, y: x % y,
    "<": lambda x, y: x < y,
    "<=": lambda x, y: x <= y,
    ">": lambda x, y: x > y,
    ">=": lambda x, y: x >= y,
    "==": lambda x, y: x == y,
    "!=": lambda x, y: x != y,
}


def _if(tree: Tree, leaves: Mapping[str, Expr]) -> Expr:
    condition, x, y = (to_expr(t, leaves) for t in tree[1:])
    x, y = _integer(x), _integer(y)
    if x.type != y.type:  # C: the unsigned one decides
        x, y = x.cast_u64(), y.cast_u64()
    return condition.cast_bool().where(x, y)


def _integer(x: Expr) -> Expr:
    """A comparison's result counts as 0 or 1."""
    return x.cast_i64() if x.type == "bool" else x


_EXPR: dict[str, Callable[[Tree, Mapping[str, Expr]], Expr]] = {
    "number": _number,
    "name": _name,
    "cast": _cast,
    "unary": _unary,
    "binary": _binary,
    "if": _if,
}
