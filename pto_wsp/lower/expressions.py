"""Scalar expressions -> LLVM text, and the 64-bit words in which scalars travel.

`Expr.evaluate` is the meaning of every expression; `emit` computes the same in native code. Beside the value it tracks
two things that only tensor indices need: between which integers the value lies, as far as that is known beforehand, and
whether the sums and products on the way have left the 64 bits.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pto_wsp.errors import CompileError, SourceLine
from pto_wsp.lower.lines import Lines
from pto_wsp.scalar_expr import Expr, LoopVar, as_expr
from pto_wsp.types import DType

__all__ = ["Scope", "Value", "Variable", "emit", "emit_load", "emit_word", "number_word", "signed", "symbol_word"]

_LEAST, _MOST = -(1 << 63), (1 << 63) - 1
_MOST_UNSIGNED = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Variable:
    """A loop variable in scope."""

    var: LoopVar
    slot: str  # the LLVM variable that holds it
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Scope:
    """What an expression may refer to at one place of the tree."""

    loops: tuple[Variable, ...] = ()  # outermost first
    read_symbol: Callable[[Lines, str], str] | None = None
    params: Sequence[str] | None = None  # argument words of the task; None where there is no task
    line: SourceLine | None = None
    decided_by: frozenset[int] = frozenset()  # slots whose values say whether this place is reached

    def inside(self, variable: Variable) -> Scope:
        return replace(self, loops=(*self.loops, variable))

    def find(self, var: LoopVar) -> Variable:
        for variable in self.loops:
            if variable.var is var:
                return variable
        raise CompileError(f"loop variable {var.name} is used outside its loop.").at(self.line)

    def named(self, name: str) -> Variable | None:
        return next((v for v in reversed(self.loops) if v.var.name == name), None)


@dataclass(frozen=True, slots=True)
class Value:
    """The value of an expression while it is being emitted."""

    name: str  # of an i64 value, or of an i1 when type is "bool"
    type: str  # "bool", "i64" or "u64"
    low: int  # low <= value <= high over the integers
    high: int
    overflow: str | None = None  # an i1: sums or products have left the 64 bits


def emit(out: Lines, expr: Any, scope: Scope) -> Value:
    """Compute an expression (an Expr, LoopVar, bool or int)."""
    if not isinstance(expr, Expr):
        expr = as_expr(expr)
    if expr.kind not in _EMIT:
        raise CompileError(f"{expr} is not supported yet.").at(scope.line)
    return _EMIT[expr.kind](out, expr, scope)


# ---- leaves ----------------------------------------------------------------------------------------------------------


def _full(name: str, kind: str) -> Value:
    if kind == "bool":
        return Value(name, kind, 0, 1)
    return Value(name, kind, 0, _MOST_UNSIGNED) if kind == "u64" else Value(name, kind, _LEAST, _MOST)


def _literal(out: Lines, expr: Expr, scope: Scope) -> Value:
    number = int(expr.a)
    if expr.type == "bool":
        return Value(str(number), "bool", number, number)
    return Value(out.datum(number - (1 << 64) if number > _MOST else number), expr.type, number, number)


def _loop_var(out: Lines, expr: Expr, scope: Scope) -> Value:
    return _variable(out, scope.find(expr.a))


def _variable(out: Lines, found: Variable) -> Value:
    return Value(out.value(f"load i64, ptr {found.slot}"), "i64", found.low, found.high)


def _axis(out: Lines, expr: Expr, scope: Scope) -> Value:
    found = scope.named(expr.a)
    if found is not None:
        return _variable(out, found)
    if expr.b is None:
        raise CompileError(f"axis({expr.a!r}): no loop of that name is open here.").at(scope.line)
    return Value(out.datum(int(expr.b)), "i64", int(expr.b), int(expr.b))


def _symbol(out: Lines, expr: Expr, scope: Scope) -> Value:
    assert scope.read_symbol is not None
    return _full(scope.read_symbol(out, expr.a), "u64")


def _slot(out: Lines, expr: Expr, scope: Scope) -> Value:
    place = out.value(f"getelementptr i64, ptr %control, i64 {out.datum(expr.a)}")
    word = out.value(f"load i64, ptr {place}")
    return _full(out.value(f"icmp ne i64 {word}, 0") if expr.type == "bool" else word, expr.type)


def _task_param(out: Lines, expr: Expr, scope: Scope) -> Value:
    if scope.params is None:
        raise CompileError(f"{expr} has a meaning in dispatch keys only.").at(scope.line)
    if expr.a >= len(scope.params):
        return Value(out.datum(0), "i64", 0, 0)
    return _full(scope.params[expr.a], "i64")


# ---- operators -------------------------------------------------------------------------------------------------------


def _unary(out: Lines, expr: Expr, scope: Scope) -> Value:
    value = emit(out, expr.b, scope)
    if expr.a == "-":
        zero = Value("0", value.type, 0, 0)
        return _linear(out, "-", zero, value)
    ones = "true" if value.type == "bool" else "-1"
    kind = "i1" if value.type == "bool" else "i64"
    return _full(out.value(f"xor {kind} {value.name}, {ones}"), value.type)


def _binary(out: Lines, expr: Expr, scope: Scope) -> Value:
    a, b = emit(out, expr.b, scope), emit(out, expr.c, scope)
    if expr.a in ("+", "-", "*"):
        return _linear(out, expr.a, a, b)
    if expr.a in ("//", "%"):
        return _divide(out, expr.a, a, b)
    if expr.a in ("<<", ">>"):
        return _shift(out, expr.a, a, b)
    if expr.a in ("&", "|", "^"):
        word = {"&": "and", "|": "or", "^": "xor"}[expr.a]
        return _full(out.value(f"{word} {'i1' if a.type == 'bool' else 'i64'} {a.name}, {b.name}"), a.type)
    return _full(_compare(out, expr.a, a, b), "bool")


def _linear(out: Lines, op: str, a: Value, b: Value) -> Value:
    """+, - or *: wraps, and remembers that it did where that is possible."""
    word = {"+": "add", "-": "sub", "*": "mul"}[op]
    corners = [_COMPUTE[op](x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
    least, most = (0, _MOST_UNSIGNED) if a.type == "u64" else (_LEAST, _MOST)
    if least <= min(corners) and max(corners) <= most:
        name = out.value(f"{word} i64 {a.name}, {b.name}")
        return Value(name, a.type, min(corners), max(corners), _either(out, a.overflow, b.overflow))
    sign = "u" if a.type == "u64" else "s"
    pair = out.value(f"call {{i64, i1}} @llvm.{sign}{word}.with.overflow.i64(i64 {a.name}, i64 {b.name})")
    name = out.value(f"extractvalue {{i64, i1}} {pair}, 0")
    over = out.value(f"extractvalue {{i64, i1}} {pair}, 1")
    return Value(name, a.type, least, most, _either(out, _either(out, a.overflow, b.overflow), over))


_COMPUTE: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
}


def _either(out: Lines, a: str | None, b: str | None) -> str | None:
    if a is None or b is None:
        return a or b
    return out.value(f"or i1 {a}, {b}")


def _divide(out: Lines, op: str, a: Value, b: Value) -> Value:
    """C's quotient or remainder; 0 for a zero divisor; MIN // -1 wraps."""
    none = out.value(f"icmp eq i64 {b.name}, 0")
    if a.type == "u64":
        safe = out.value(f"select i1 {none}, i64 1, i64 {b.name}")
        name = out.value(f"{'udiv' if op == '//' else 'urem'} i64 {a.name}, {safe}")
        return _full(out.value(f"select i1 {none}, i64 0, i64 {name}"), "u64")
    if b.low == b.high and b.low > 0:
        name = out.value(f"{'sdiv' if op == '//' else 'srem'} i64 {a.name}, {b.name}")
        return _divided(op, name, a, b.low)
    minus = out.value(f"icmp eq i64 {b.name}, -1")
    trap = out.value(f"or i1 {none}, {minus}")
    safe = out.value(f"select i1 {trap}, i64 1, i64 {b.name}")
    name = out.value(f"{'sdiv' if op == '//' else 'srem'} i64 {a.name}, {safe}")
    negated = out.value(f"sub i64 0, {a.name}") if op == "//" else "0"
    name = out.value(f"select i1 {minus}, i64 {negated}, i64 {name}")
    return _full(out.value(f"select i1 {none}, i64 0, i64 {name}"), "i64")


def _divided(op: str, name: str, a: Value, by: int) -> Value:
    if op == "//":
        low, high = (abs(x) // by * (1 if x >= 0 else -1) for x in (a.low, a.high))
        return Value(name, "i64", low, high)
    return Value(name, "i64", max(a.low, 1 - by) if a.low < 0 else 0, min(a.high, by - 1) if a.high > 0 else 0)


def _shift(out: Lines, op: str, a: Value, b: Value) -> Value:
    count = out.value(f"and i64 {b.name}, 63")
    return _full(out.value(f"{'shl' if op == '<<' else 'lshr'} i64 {a.name}, {count}"), "u64")


def _compare(out: Lines, op: str, a: Value, b: Value) -> str:
    """The mathematical comparison, also between signed and unsigned."""
    word = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne"}[op]
    if a.type == b.type:
        sign = "" if op in ("==", "!=") else "s" if a.type == "i64" else "u"
        return out.value(f"icmp {sign}{word} {'i1' if a.type == 'bool' else 'i64'} {a.name}, {b.name}")
    same = out.value(f"icmp {'' if op in ('==', '!=') else 'u'}{word} i64 {a.name}, {b.name}")
    signed = a if a.type == "i64" else b
    negative = out.value(f"icmp slt i64 {signed.name}, 0")
    less = op in ("<", "<=", "!=") if signed is a else op in (">", ">=", "!=")
    return out.value(f"select i1 {negative}, i1 {'true' if less else 'false'}, i1 {same}")


def _ternary(out: Lines, expr: Expr, scope: Scope) -> Value:
    condition, a, b = (emit(out, x, scope) for x in (expr.a, expr.b, expr.c))
    kind = "i1" if a.type == "bool" else "i64"
    name = out.value(f"select i1 {condition.name}, {kind} {a.name}, {kind} {b.name}")
    overflow = None
    if a.overflow or b.overflow:
        overflow = out.value(f"select i1 {condition.name}, i1 {a.overflow or 'false'}, i1 {b.overflow or 'false'}")
    return Value(name, a.type, min(a.low, b.low), max(a.high, b.high), overflow)


def _cast(out: Lines, expr: Expr, scope: Scope) -> Value:
    value = emit(out, expr.a, scope)
    if expr.type == "bool":
        if value.type == "bool":
            return value
        return _full(out.value(f"icmp ne i64 {value.name}, 0"), "bool")
    if value.type == "bool":
        return Value(out.value(f"zext i1 {value.name} to i64"), expr.type, 0, 1)
    least, most = (0, _MOST_UNSIGNED) if expr.type == "u64" else (_LEAST, _MOST)
    if least <= value.low and value.high <= most:
        return replace(value, type=expr.type)
    return replace(_full(value.name, expr.type), overflow=value.overflow)


_EMIT: dict[str, Callable[[Lines, Expr, Scope], Value]] = {
    "lit_bool": _literal,
    "lit_i64": _literal,
    "lit_u64": _literal,
    "loop_var": _loop_var,
    "axis_var": _axis,
    "symbol_u64": _symbol,
    "task_tag_u64": _symbol,
    "slot_u64": _slot,
    "slot_i64": _slot,
    "slot_bool": _slot,
    "task_param": _task_param,
    "unary": _unary,
    "binary": _binary,
    "ternary": _ternary,
    "cast": _cast,
}


# ---- words -----------------------------------------------------------------------------------------------------------


def number_word(number: float, dtype: DType) -> int:
    """A Python number as an argument word: converted to dtype, ints extended to 64 bits, floats as their bits.

    raises OverflowError for an integer that dtype cannot hold; floats given to integer parameters are truncated
    """
    if dtype.is_float:
        with np.errstate(over="ignore"):
            bits = np.array([number], np.float64).astype(dtype.numpy).tobytes()
        return int.from_bytes(bits, "little")
    whole = int(number)
    information = np.iinfo(dtype.numpy)
    if not information.min <= whole <= information.max:
        raise OverflowError(f"{number} does not fit {dtype.value}")
    return whole - (1 << 64) if whole > _MOST else whole


def symbol_word(word: int, dtype: DType | None) -> int:
    """A run-time symbol as an argument word: None means as it is, integers take the low bits.

    Float parameters read what `set_symbol_f32` stores: the bits of an f32 in the low half.
    """
    word &= _MOST_UNSIGNED
    if dtype is None:
        return word
    if dtype.is_float:
        (number,) = struct.unpack("<f", struct.pack("<I", word & 0xFFFFFFFF))
        return word & 0xFFFFFFFF if dtype is DType.F32 else number_word(number, dtype)
    low = word & ((1 << dtype.bits) - 1)
    return low - (1 << dtype.bits) if dtype.is_signed and low >> (dtype.bits - 1) else low


def emit_word(out: Lines, value: Value, dtype: DType) -> str:
    """An expression's value as an argument word: converted numerically; integers wrap as C casts do."""
    name = out.value(f"zext i1 {value.name} to i64") if value.type == "bool" else value.name
    convert = "uitofp" if value.type == "u64" else "sitofp"
    if dtype is DType.F64:
        return out.value(f"bitcast double {out.value(f'{convert} i64 {name} to double')} to i64")
    if dtype.is_float:
        single = out.value(f"{convert} i64 {name} to float")
        bits = out.value(f"bitcast float {single} to i32")
        return out.value(f"zext i32 {_shorten(out, bits, dtype)} to i64")
    if dtype.bits == 64:
        return name
    small = out.value(f"trunc i64 {name} to i{dtype.bits}")
    return out.value(f"{'sext' if dtype.is_signed else 'zext'} i{dtype.bits} {small} to i64")


def _shorten(out: Lines, bits: str, dtype: DType) -> str:
    """f32 bits of an integer -> bits in dtype, to nearest even. An integer is 0 or at least 1: never subnormal."""
    if dtype is DType.F32:
        return bits
    cut = 16 if dtype is DType.BF16 else 13
    sign = out.value(f"and i32 {out.value(f'lshr i32 {bits}, 16')}, 32768")
    size = out.value(f"and i32 {bits}, 2147483647")
    if dtype is DType.F16:
        size = out.value(f"call i32 @llvm.usub.sat.i32(i32 {size}, i32 {112 << 23})")
    odd = out.value(f"and i32 {out.value(f'lshr i32 {size}, {cut}')}, 1")
    half = out.value(f"add i32 {odd}, {(1 << (cut - 1)) - 1}")
    short = out.value(f"lshr i32 {out.value(f'add i32 {size}, {half}')}, {cut}")
    if dtype is DType.F16:
        short = out.value(f"call i32 @llvm.umin.i32(i32 {short}, i32 31744)")
    return out.value(f"or i32 {short}, {sign}")


def emit_load(out: Lines, address: str, dtype: DType) -> str:
    """The element at an address as an unsigned 64-bit word: ints are sign-extended, floats truncated.

    Floats beyond the range become its nearest end, NaN becomes 0.
    """
    place = out.value(f"inttoptr i64 {address} to ptr")
    aligned = ", align 1"
    if not dtype.is_float:
        word = out.value(f"load i{dtype.bits}, ptr {place}{aligned}")
        widen = f"{'sext' if dtype.is_signed else 'zext'} i{dtype.bits} {word} to i64"
        return word if dtype.bits == 64 else out.value(widen)
    if dtype.bits > 16:
        kind, name = ("double", "f64") if dtype is DType.F64 else ("float", "f32")
        value = out.value(f"load {kind}, ptr {place}{aligned}")
        return out.value(f"call i64 @llvm.fptoui.sat.i64.{name}({kind} {value})")
    bits = out.value(f"zext i16 {out.value(f'load i16, ptr {place}{aligned}')} to i32")
    value = out.value(f"bitcast i32 {_lengthen(out, bits, dtype)} to float")
    return out.value(f"call i64 @llvm.fptoui.sat.i64.f32(float {value})")


def _lengthen(out: Lines, bits: str, dtype: DType) -> str:
    """16 bits of a float -> its bits in f32. Subnormals become 0, which they are truncated to anyway."""
    if dtype is DType.BF16:
        return out.value(f"shl i32 {bits}, 16")
    sign = out.value(f"shl i32 {out.value(f'and i32 {bits}, 32768')}, 16")
    size = out.value(f"shl i32 {out.value(f'and i32 {bits}, 32767')}, 13")
    special = out.value(f"icmp uge i32 {size}, {31 << 23}")  # inf and NaN have the largest exponent in both
    size = out.value(f"add i32 {size}, {out.value(f'select i1 {special}, i32 {224 << 23}, i32 {112 << 23}')}")
    subnormal = out.value(f"icmp ult i32 {size}, {113 << 23}")
    size = out.value(f"select i1 {subnormal}, i32 0, i32 {size}")
    return out.value(f"or i32 {sign}, {size}")


def signed(word: int) -> int:
    """The low 64 bits, read as a signed number."""
    word &= (1 << 64) - 1
    return word - (1 << 64) if word >> 63 else word
