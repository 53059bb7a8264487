"""Scalar expressions: what a predicate, a dispatch key, a tensor index or a scalar argument may compute.

An `Expr` is a small frozen tree over three types: 64-bit signed ("i64"), 64-bit unsigned ("u64") and
"bool".  It is built with Python's operators from loop variables, symbols and slots, and evaluated inside
the compiled program while tasks are generated.  `Expr.evaluate` is its meaning, in plain Python.

    (axis("b") + 1) * 2 < symbol_u64("n")          a predicate
    lambda t: t.get("h") % 3                       a dispatch key
    X[i + 1]                                       an index, `i` a loop variable of P(...)

Arithmetic wraps at 64 bits.  `//` and `%` are C's, not Python's: the quotient goes toward zero and the
remainder takes the dividend's sign, so that host and device agree; a zero divisor gives 0.  Shift counts
are taken modulo 64. Comparisons are mathematical, also between signed and unsigned.  In mixed arithmetic
the unsigned side is read as signed.  A Python integer takes the type of the operand beside it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import get_ident
from typing import Any, ClassVar, Protocol, cast

import numpy as np

from pto_wsp.arguments import as_int
from pto_wsp.errors import OperandError, TileAsBoolError

__all__ = [
    "Environment",
    "Expr",
    "LoopVar",
    "TaskExpr",
    "affine",
    "as_expr",
    "axis",
    "constant_of",
    "fnv1a_64",
    "linear_form",
    "same_expr",
    "slot_bool",
    "slot_i64",
    "slot_u64",
    "symbol_u64",
    "task_param",
    "trace_task_fn",
]

SLOTS = 256  # u64 cells that a program has
_WORD = 1 << 64
_SIGN = 1 << 63

ARITHMETIC = ("+", "-", "*", "//", "%")
BITWISE = ("&", "|", "^")
SHIFTS = ("<<", ">>")
COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")


class Environment(Protocol):
    """Where an expression finds the values of its leaves; all are Python ints."""

    def loop(self, var: LoopVar, /) -> int: ...
    def axis(self, name: str, /) -> int | None: ...  # innermost loop of that name; None when there is none
    def symbol(self, name: str, /) -> int: ...  # u64, 0 when unset
    def slot(self, index: int, /) -> int: ...  # u64
    def param(self, index: int, /) -> int: ...  # i64 word of the task's arguments, 0 out of range


# ---------------------------------------------------------------------------------------------- operators


class _Operators:
    """Python's operators, building an `Expr`; shared by `Expr` and `LoopVar`."""

    __slots__ = ()
    __array_ufunc__: ClassVar[None] = None  # numpy integers on the left leave the operation to us

    def __add__(self, other: Any) -> Expr:
        return _binary("+", self, other)

    def __radd__(self, other: Any) -> Expr:
        return _binary("+", other, self)

    def __sub__(self, other: Any) -> Expr:
        return _binary("-", self, other)

    def __rsub__(self, other: Any) -> Expr:
        return _binary("-", other, self)

    def __mul__(self, other: Any) -> Expr:
        return _binary("*", self, other)

    def __rmul__(self, other: Any) -> Expr:
        return _binary("*", other, self)

    def __floordiv__(self, other: Any) -> Expr:
        return _binary("//", self, other)

    def __rfloordiv__(self, other: Any) -> Expr:
        return _binary("//", other, self)

    def __mod__(self, other: Any) -> Expr:
        return _binary("%", self, other)

    def __rmod__(self, other: Any) -> Expr:
        return _binary("%", other, self)

    def __and__(self, other: Any) -> Expr:
        return _binary("&", self, other)

    def __rand__(self, other: Any) -> Expr:
        return _binary("&", other, self)

    def __or__(self, other: Any) -> Expr:
        return _binary("|", self, other)

    def __ror__(self, other: Any) -> Expr:
        return _binary("|", other, self)

    def __xor__(self, other: Any) -> Expr:
        return _binary("^", self, other)

    def __rxor__(self, other: Any) -> Expr:
        return _binary("^", other, self)

    def __lshift__(self, other: Any) -> Expr:
        return _binary("<<", self, other)

    def __rlshift__(self, other: Any) -> Expr:
        return _binary("<<", other, self)

    def __rshift__(self, other: Any) -> Expr:
        return _binary(">>", self, other)

    def __rrshift__(self, other: Any) -> Expr:
        return _binary(">>", other, self)

    def __lt__(self, other: Any) -> Expr:
        return _binary("<", self, other)

    def __le__(self, other: Any) -> Expr:
        return _binary("<=", self, other)

    def __gt__(self, other: Any) -> Expr:
        return _binary(">", self, other)

    def __ge__(self, other: Any) -> Expr:
        return _binary(">=", self, other)

    def __eq__(self, other: Any) -> Expr:  # type: ignore[override]
        return _binary("==", self, other) if _comparable(other) else NotImplemented

    def __ne__(self, other: Any) -> Expr:  # type: ignore[override]
        return _binary("!=", self, other) if _comparable(other) else NotImplemented

    def __hash__(self) -> int:
        """By identity, as == builds an expression. A key function that looks a value up in a dict needs the value."""
        if _TRACED and get_ident() in _TRACED:
            raise TypeError("the value of an expression is known when the task runs; a dict or a set needs it now")
        return object.__hash__(self)

    def __neg__(self) -> Expr:
        return _unary("-", self)

    def __invert__(self) -> Expr:
        return _unary("~", self)

    def __truediv__(self, other: Any) -> Expr:
        raise TypeError(
            f"a scalar expression has no '/': {_show(self)} / {_show(other)}; write '//' for integer division"
        )

    def __rtruediv__(self, other: Any) -> Expr:
        raise TypeError(
            f"a scalar expression has no '/': {_show(other)} / {_show(self)}; write '//' for integer division"
        )

    def __bool__(self) -> bool:
        raise TileAsBoolError(
            f"the value of '{_show(self)}' is known only when the program runs, so it cannot decide Python's "
            "if, and, or, not, in, or a chained comparison; use & | ~, .where(x, y), or `with P.when(...)`"
        )

    def where(self, x: Any, y: Any) -> Expr:
        """x where this bool expression holds, else y. x and y have one type."""
        return _where(as_expr(self), x, y)

    def cast_bool(self) -> Expr:
        """True where the value is not 0."""
        return _cast(as_expr(self), "bool")

    def cast_i64(self) -> Expr:
        """The same 64 bits read as signed; a bool becomes 0 or 1."""
        return _cast(as_expr(self), "i64")

    def cast_u64(self) -> Expr:
        """The same 64 bits read as unsigned; a bool becomes 0 or 1."""
        return _cast(as_expr(self), "u64")


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Expr(_Operators):
    """One node of a scalar expression. Two expressions are told apart by identity; `==` builds a comparison.

    kind                                   a                    b              c
    lit_bool, lit_i64, lit_u64             value
    loop_var                               LoopVar
    axis_var                               loop name            default or None
    symbol_u64, task_tag_u64               name
    slot_u64, slot_i64, slot_bool          index
    task_param                             index
    unary                                  "-" or "~"           operand
    binary                                 operator             left           right
    ternary                                bool condition       then           else
    cast                                   operand

    type is "bool", "i64" or "u64". The operands of arithmetic and bitwise nodes have the node's own type,
    those of shifts are u64; only the operands of comparisons may mix i64 with u64.
    """

    kind: str
    type: str
    a: Any = None
    b: Any = None
    c: Any = None

    def evaluate(self, env: Environment) -> int:
        """The value: a bool, an int in [-2^63, 2^63) for i64, in [0, 2^64) for u64."""
        return _EVALUATE[self.kind](self, env)

    def to_debug_str(self) -> str:
        """The expression as Python-like text."""
        return _show(self)

    def operands(self) -> tuple[Expr, ...]:
        """The expressions this one is computed from."""
        return tuple(x for x in (self.a, self.b, self.c) if isinstance(x, Expr))

    def leaves(self) -> Iterator[Expr]:
        """Every leaf, from left to right, repeated ones too."""
        parts = self.operands()
        if not parts:
            yield self
        for part in parts:
            yield from part.leaves()

    def __str__(self) -> str:
        return _show(self)

    def __repr__(self) -> str:
        return f"Expr({_show(self)}: {self.type})"


@dataclass(eq=False, repr=False)
class LoopVar(_Operators):
    """The variable of one loop. The object is its identity; the name serves look-ups and printing.

    axis    what the loop runs over: an int or an axis object (pto_wsp.types)
    index   position among the loops built by one P(...)
    """

    name: str
    axis: Any
    index: int = 0

    def __repr__(self) -> str:
        return f"LoopVar({self.name})"

    def __str__(self) -> str:
        return self.name


# ---------------------------------------------------------------------------------------------- leaves


def axis(name: str) -> Expr:
    """i64: the variable of the innermost loop of that name. A CompileError where no such loop is open."""
    return Expr("axis_var", "i64", _name(name, "axis"))


def symbol_u64(name: str) -> Expr:
    """u64: the value given to `Program.set_symbol_u64(name, ...)`, 0 when unset."""
    return Expr("symbol_u64", "u64", _name(name, "symbol_u64"))


def slot_u64(index: int) -> Expr:
    """u64: content of slot `index`, 0 <= index < 256."""
    return Expr("slot_u64", "u64", _slot(index, "slot_u64"))


def slot_i64(index: int) -> Expr:
    """i64: content of slot `index`, its bits read as signed."""
    return Expr("slot_i64", "i64", _slot(index, "slot_i64"))


def slot_bool(index: int) -> Expr:
    """bool: is slot `index` not 0?"""
    return Expr("slot_bool", "bool", _slot(index, "slot_bool"))


def task_param(index: int) -> Expr:
    """i64: entry `index` of the task's arguments, axis values first; 0 past their end. Dispatch keys only."""
    position = _integer(index, "task_param")
    if position < 0:
        raise OperandError(f"task_param({position}): the index counts from 0; a negative one names no argument")
    return Expr("task_param", "i64", position)


def as_expr(x: Any) -> Expr:
    """x as an expression: an Expr unchanged, a LoopVar, a bool, or an integer in [-2^63, 2^64).

    raises  TypeError for anything else, OverflowError for an integer that 64 bits cannot hold
    """
    if isinstance(x, Expr):
        return x
    if isinstance(x, LoopVar):
        return Expr("loop_var", "i64", x)
    if isinstance(x, (bool, np.bool_)):
        return Expr("lit_bool", "bool", bool(x))
    if isinstance(x, (int, np.integer)):
        return _literal(int(x))
    raise TypeError(
        f"{x!r} ({type(x).__name__}) cannot be part of a scalar expression: those are made of int, bool, "
        f"loop variables, axis(), symbol_u64(), slot_*() and task_param(){_hint(x)}"
    )


def _comparable(x: Any) -> bool:
    """May == and != build an expression, or complain? Objects of other kinds are just different."""
    return isinstance(x, (_Operators, int, float, str, np.generic))


def _hint(x: Any) -> str:
    if type(x).__name__ == "Symbol":
        return f"; write symbol_u64({x.sym!r})"
    if isinstance(x, str):
        return f"; write axis({x!r}) or symbol_u64({x!r})"
    return "; convert it with int(...) first" if isinstance(x, (float, np.floating)) else ""


def _literal(value: int) -> Expr:
    if -_SIGN <= value < _SIGN:
        return Expr("lit_i64", "i64", value)
    if value < _WORD and value >= 0:
        return Expr("lit_u64", "u64", value)
    raise OverflowError(f"the integer {value} does not fit 64 bits")


def _name(name: Any, function: str) -> str:
    if not isinstance(name, str) or not name:
        raise TypeError(f"{function}() needs a name, a non-empty str; got {name!r}")
    return name


def _integer(value: Any, function: str) -> int:
    number = as_int(value)
    if number is None:
        raise TypeError(f"{function}() needs an int; got {value!r}")
    return number


def _slot(index: Any, function: str) -> int:
    number = _integer(index, function)
    if not 0 <= number < SLOTS:
        raise OperandError(f"{function}({number}): a program has the slots 0 to {SLOTS - 1}")
    return number


# ---------------------------------------------------------------------------------------------- building


def _is_literal(e: Expr) -> bool:
    return e.kind == "lit_i64"


def _adopt(e: Expr, kind: str, wrap: bool) -> Expr:
    """An integer literal in the type of the operand beside it, where it fits or may wrap."""
    if kind != "u64" or not _is_literal(e) or (e.a < 0 and not wrap):
        return e
    return Expr("lit_u64", "u64", e.a % _WORD)


def _beside(a: Any, b: Any, wrap: bool = False) -> tuple[Expr, Expr]:
    """Both operands; an integer literal takes the other's type. wrap: -1 may become 2^64 - 1."""
    left, right = as_expr(a), as_expr(b)
    return _adopt(left, right.type, wrap), _adopt(right, left.type, wrap)


def _number(e: Expr, other: Expr) -> Expr:
    """A bool among numbers counts as 0 or 1, in the other's type."""
    return _cast(e, "i64" if other.type == "bool" else other.type) if e.type == "bool" else e


def _binary(op: str, a: Any, b: Any) -> Expr:
    if op in ARITHMETIC:
        return _arithmetic(op, *_beside(a, b))
    if op in SHIFTS:
        return Expr("binary", "u64", op, _cast(as_expr(a), "u64"), _cast(as_expr(b), "u64"))
    if op in BITWISE:
        return _bitwise(op, *_beside(a, b, wrap=True))
    left, right = _beside(a, b)
    if left.type != right.type:
        left, right = _number(left, right), _number(right, left)
    return Expr("binary", "bool", op, left, right)


def _arithmetic(op: str, a: Expr, b: Expr) -> Expr:
    a, b = _number(a, b), _number(b, a)
    if a.type == b.type:
        return Expr("binary", a.type, op, a, b)
    return _cast(Expr("binary", "i64", op, _cast(a, "i64"), _cast(b, "i64")), a.type)


def _bitwise(op: str, a: Expr, b: Expr) -> Expr:
    allowed = ("u64",) if op == "^" else ("bool", "u64")
    if a.type == b.type and a.type in allowed:
        return Expr("binary", a.type, op, a, b)
    needs = "two u64" if op == "^" else "two bool or two u64"
    raise TypeError(
        f"'{op}' needs {needs} operands; got '{_show(a)}' ({a.type}) and '{_show(b)}' ({b.type}); "
        "use .cast_u64() or .cast_bool()"
    )


def _unary(op: str, x: Any) -> Expr:
    e = as_expr(x)
    allowed = ("i64", "u64") if op == "-" else ("bool", "u64")
    if e.type not in allowed:
        raise TypeError(f"'{op}' needs a {' or '.join(allowed)} operand; got '{_show(e)}' ({e.type})")
    return Expr("unary", e.type, op, e)


def _where(condition: Expr, x: Any, y: Any) -> Expr:
    if condition.type != "bool":
        raise TypeError(f".where needs a bool condition; got '{_show(condition)}' ({condition.type}); use .cast_bool()")
    then, other = _beside(x, y)
    if then.type != other.type:
        raise TypeError(
            f".where needs two values of one type; got '{_show(then)}' ({then.type}) and "
            f"'{_show(other)}' ({other.type})"
        )
    return Expr("ternary", then.type, condition, then, other)


def _cast(e: Expr, kind: str) -> Expr:
    if e.type == kind:
        return e
    return Expr("lit_u64", "u64", e.a % _WORD) if _is_literal(e) and kind == "u64" else Expr("cast", kind, e)


# ---------------------------------------------------------------------------------------------- meaning


def _wrap(value: int, kind: str) -> int:
    """Any integer as a value of that type."""
    if kind == "bool":
        return value != 0
    value %= _WORD
    return value - _WORD if kind == "i64" and value >= _SIGN else value


def _quotient(a: int, b: int) -> int:
    """C's division: toward zero; 0 for a zero divisor."""
    if b == 0:
        return 0
    return abs(a) // abs(b) if (a < 0) == (b < 0) else -(abs(a) // abs(b))


def _remainder(a: int, b: int) -> int:
    """C's remainder: the dividend's sign; 0 for a zero divisor."""
    return 0 if b == 0 else a - b * _quotient(a, b)


_COMPUTE: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": _quotient,
    "%": _remainder,
    "&": operator.and_,
    "|": operator.or_,
    "^": operator.xor,
    "<<": lambda a, b: a << (b % 64),
    ">>": lambda a, b: a >> (b % 64),
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


def _evaluate_axis(e: Expr, env: Environment) -> int:
    value = env.axis(e.a)
    value = e.b if value is None else value
    if value is None:
        raise LookupError(f"axis({e.a!r}): no loop of that name is open here")
    return _wrap(value, "i64")


def _evaluate_unary(e: Expr, env: Environment) -> int:
    value = e.b.evaluate(env)
    if e.type == "bool":
        return not value
    return _wrap(-value if e.a == "-" else ~value, e.type)


def _evaluate_binary(e: Expr, env: Environment) -> int:
    left = e.b.evaluate(env)
    if e.type == "bool" and e.a in BITWISE and bool(left) == (e.a == "|"):  # decided by the left side alone
        return bool(left)
    return _wrap(_COMPUTE[e.a](left, e.c.evaluate(env)), e.type)


_EVALUATE: dict[str, Callable[[Expr, Environment], int]] = {
    "lit_bool": lambda e, env: cast(int, e.a),
    "lit_i64": lambda e, env: cast(int, e.a),
    "lit_u64": lambda e, env: cast(int, e.a),
    "loop_var": lambda e, env: _wrap(env.loop(e.a), "i64"),
    "axis_var": _evaluate_axis,
    "symbol_u64": lambda e, env: _wrap(env.symbol(e.a), "u64"),
    "task_tag_u64": lambda e, env: _wrap(env.symbol(e.a), "u64"),
    "slot_u64": lambda e, env: _wrap(env.slot(e.a), "u64"),
    "slot_i64": lambda e, env: _wrap(env.slot(e.a), "i64"),
    "slot_bool": lambda e, env: _wrap(env.slot(e.a), "bool"),
    "task_param": lambda e, env: _wrap(env.param(e.a), "i64"),
    "unary": _evaluate_unary,
    "binary": _evaluate_binary,
    "ternary": lambda e, env: (e.b if e.a.evaluate(env) else e.c).evaluate(env),
    "cast": lambda e, env: _wrap(int(e.a.evaluate(env)), e.type),
}


def constant_of(x: Any) -> int | None:
    """The value of an expression without run-time leaves, else None."""
    e = as_expr(x)
    if any(leaf.kind not in ("lit_bool", "lit_i64", "lit_u64") for leaf in e.leaves()):
        return None
    return e.evaluate(cast(Environment, None))


def same_expr(a: Any, b: Any) -> bool:
    """Are two expressions, or ints, written alike? Loop variables are compared by identity."""
    if isinstance(a, Expr) and isinstance(b, Expr):
        alike = (a.kind, a.type) == (b.kind, b.type)
        return a is b or (alike and all(same_expr(x, y) for x, y in zip((a.a, a.b, a.c), (b.a, b.b, b.c), strict=True)))
    return a is b or not (isinstance(a, _Operators) or isinstance(b, _Operators)) and bool(a == b)


# ---------------------------------------------------------------------------------------------- linear forms

Atom = Any  # what a linear form counts: a LoopVar, (kind, name) of another leaf, or what `_atom` says of an expression


def linear_form(x: Any) -> tuple[dict[Atom, int], int] | None:
    """x as sum(coefficient * atom) + constant over the integers; None for a bool.

    Atoms are LoopVar objects, (kind, a) for axis names, symbols, slots and task parameters, and what is not linear
    as a whole, such as `i % 4`: written twice, it is the same atom. Exact as long as the 64-bit computation does
    not wrap.
    """
    e = as_expr(x)
    if e.type == "bool":
        return None
    if e.kind in ("lit_i64", "lit_u64"):
        return {}, e.a
    if e.kind == "loop_var":
        return {e.a: 1}, 0
    if not e.operands():
        return {(e.kind, e.a): 1}, 0
    form = None
    if e.kind == "unary" and e.a == "-":
        form = _scaled(linear_form(e.b), -1)
    elif e.kind == "cast":
        form = linear_form(e.a)
    elif e.kind == "binary" and e.a in ("+", "-", "*"):
        form = _combined(e.a, linear_form(e.b), linear_form(e.c))
    return ({_atom(e): 1}, 0) if form is None else form


def _atom(x: Any) -> Any:
    """Equal for expressions that are written alike."""
    return (x.kind, x.type, *(_atom(part) for part in (x.a, x.b, x.c))) if isinstance(x, Expr) else x


_Linear = tuple[dict[Atom, int], int]


def _scaled(form: _Linear | None, factor: int) -> _Linear | None:
    if form is None:
        return None
    return {atom: n * factor for atom, n in form[0].items() if n * factor}, form[1] * factor


def _combined(op: str, a: _Linear | None, b: _Linear | None) -> _Linear | None:
    if a is None or b is None:
        return None
    if op == "*":
        a, b = (a, b) if not b[0] else (b, a)
        return None if b[0] else _scaled(a, b[1])
    sign = 1 if op == "+" else -1
    terms = dict(a[0])
    for atom, n in b[0].items():
        terms[atom] = terms.get(atom, 0) + sign * n
    return {atom: n for atom, n in terms.items() if n}, a[1] + sign * b[1]


def affine(x: Any) -> tuple[dict[LoopVar, int], int] | None:
    """x as sum(coefficient * loop variable) + constant, or None when it is anything else.

    `affine(i * 16 + 3)` is `({i: 16}, 3)`. Coefficients are never 0.
    """
    form = linear_form(x)
    if form is None or any(not isinstance(atom, LoopVar) for atom in form[0]):
        return None
    return form


# ---------------------------------------------------------------------------------------------- dispatch keys


@dataclass(frozen=True)
class _Params:
    def __getitem__(self, index: int) -> Expr:
        return task_param(index)


@dataclass(frozen=True)
class _Tags:
    def __getitem__(self, name: str) -> Expr:
        return Expr("task_tag_u64", "u64", _name(name, "tags[]"))


@dataclass(frozen=True)
class TaskExpr:
    """What a key function receives: `lambda t: t.get("b") % 4`. It is called once, at compile time."""

    @property
    def params(self) -> _Params:
        """`t.params[i]`: i-th entry of the task's argument array, axis values first."""
        return _Params()

    @property
    def tags(self) -> _Tags:
        """`t.tags[name]`: u64, the symbol of that name."""
        return _Tags()

    def get(self, name: str, default: int = 0) -> Expr:
        """The innermost loop variable of that name around the task, `default` where the task has none."""
        return Expr("axis_var", "i64", _name(name, "get"), _integer(default, "get"))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"the task of a key function has no attribute {name!r}; "
            "it offers get(name, default=0), params[i] and tags[name]",
            name=name,
            obj=self,
        )


_TRACED: set[int] = set()  # threads in which a key function runs


def trace_task_fn(fn: Any) -> Expr:
    """The expression that a key function computes, `fn(TaskExpr())`; an Expr or a number as it is.

    raises  what the function raises; a TypeError or a LookupError where it needs the task's values and not expressions
    """
    return as_expr(call_symbolically(fn) if callable(fn) else fn)


def call_symbolically(fn: Any) -> Any:
    """What a key function returns for a task whose values are not known."""
    _TRACED.add(get_ident())
    try:
        return fn(TaskExpr())
    finally:
        _TRACED.discard(get_ident())


def fnv1a_64(text: str) -> int:
    """64-bit FNV-1a hash of the UTF-8 bytes of `text`."""
    if not isinstance(text, str):
        raise TypeError(f"fnv1a_64() needs a str; got {text!r}")
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001B3 % _WORD
    return value


# ---------------------------------------------------------------------------------------------- text

_BINDING = {
    **dict.fromkeys(("*", "//", "%"), 12),
    **dict.fromkeys(("+", "-"), 11),
    **dict.fromkeys(SHIFTS, 10),
    "&": 9,
    "^": 8,
    "|": 7,
    **dict.fromkeys(COMPARISONS, 6),
}
_CALLS = {"symbol_u64", "slot_u64", "slot_i64", "slot_bool", "task_param"}


def _show(x: Any, outer: int = 0) -> str:
    """Python-like text; `outer` is the binding strength of the operator around it."""
    if not isinstance(x, Expr):
        return str(x) if isinstance(x, LoopVar) else repr(x)
    if x.kind in _CALLS:
        return f"{x.kind}({x.a!r})"
    if x.kind == "binary":
        strength = _BINDING[x.a]
        text = f"{_show(x.b, strength)} {x.a} {_show(x.c, strength + 1)}"
        return f"({text})" if strength < outer or (x.a in COMPARISONS and outer) else text
    if x.kind == "unary":
        return f"{x.a}{_show(x.b, 13)}"
    if x.kind == "ternary":
        return f"{_show(x.a, 14)}.where({_show(x.b)}, {_show(x.c)})"
    if x.kind == "cast":
        return f"{_show(x.a, 14)}.cast_{x.type}()"
    if x.kind == "axis_var":
        return f"axis({x.a!r})" if x.b in (None, 0) else f"axis({x.a!r}, default={x.b})"
    if x.kind == "task_tag_u64":
        return f"tags[{x.a!r}]"
    return f"({x.a})" if outer > 13 or (outer and x.kind == "lit_i64" and x.a < 0) else str(x.a)
