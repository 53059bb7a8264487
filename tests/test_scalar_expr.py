"""Scalar expressions: types while building, values against plain integer arithmetic, linear forms, text."""

import math
import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pto_wsp.scalar_expr import (
    Expr,
    LoopVar,
    TaskExpr,
    affine,
    as_expr,
    axis,
    constant_of,
    fnv1a_64,
    linear_form,
    slot_bool,
    slot_i64,
    slot_u64,
    symbol_u64,
    task_param,
    trace_task_fn,
)
from pto_wsp.types import Symbol

M = 1 << 64
i, j = LoopVar("i", 8), LoopVar("j", 8)


class Values:
    """An environment of given values."""

    def __init__(self, loops=None, axes=None, symbols=None, slots=None, params=()):
        self.loops, self.axes, self.symbols = loops or {}, axes or {}, symbols or {}
        self.slots, self.params = slots or {}, params

    def loop(self, var):
        return self.loops[var]

    def axis(self, name):
        return self.axes.get(name)

    def symbol(self, name):
        return self.symbols.get(name, 0)

    def slot(self, index):
        return self.slots.get(index, 0)

    def param(self, index):
        return self.params[index] if index < len(self.params) else 0


def value(e, **values):
    return as_expr(e).evaluate(Values(**values))


# ---- values, against an oracle that computes with (type, mathematical integer) pairs

edges = [0, 1, 2, 3, 7, 63, 64, 65, 2**31, 2**32 - 1, 2**62, 2**63 - 1]
signed = st.one_of(st.sampled_from([*edges, *(-n for n in edges), -(2**63)]), st.integers(-(2**63), 2**63 - 1))
unsigned = st.one_of(st.sampled_from([*edges, 2**63, 2**64 - 1, 2**64 - 2]), st.integers(0, 2**64 - 1))


def as_type(kind, n):
    return bool(n) if kind == "bool" else n % M if kind == "u64" else (n + 2**63) % M - 2**63


def c_quotient(a, b):
    return math.trunc(__import__("fractions").Fraction(a, b)) if b else 0


PYTHON = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": c_quotient,
    "%": lambda a, b: a - b * c_quotient(a, b) if b else 0,
}
COMPARE = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
BUILD = {
    **COMPARE,
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
    "<<": operator.lshift,
    ">>": operator.rshift,
    "&": operator.and_,
    "|": operator.or_,
    "^": operator.xor,
}


@st.composite
def pairs(draw, depth=3):
    """(expression, its type, its value); the loop variable i is draw(signed), and so on, as leaves."""
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        kind = draw(st.sampled_from(["i64", "u64", "bool"]))
        n = draw({"i64": signed, "u64": unsigned, "bool": st.booleans()}[kind])
        leaf = {"i64": Expr("task_param", "i64", n), "u64": Expr("symbol_u64", "u64", str(n))}.get(kind, as_expr(n))
        return leaf, kind, n
    e, kind, n = draw(pairs(depth=depth - 1))
    f, other, m = draw(pairs(depth=depth - 1))
    how = draw(st.sampled_from(["arithmetic", "compare", "bits", "shift", "unary", "cast", "where"]))
    if how == "arithmetic":
        op = draw(st.sampled_from(sorted(PYTHON)))
        result = {"bool": "i64" if other == "bool" else other}.get(kind, kind)
        right = {"bool": result}.get(other, other)
        a, b = (n, m) if result == right else (as_type("i64", n), as_type("i64", m))
        return BUILD[op](e, f), result, as_type(result, as_type("i64" if result != right else result, PYTHON[op](a, b)))
    if how == "compare":
        op = draw(st.sampled_from(sorted(COMPARE)))
        return BUILD[op](e, f), "bool", COMPARE[op](int(n), int(m))
    if how == "bits":
        op = draw(st.sampled_from("&|^"))
        to = "u64" if op == "^" else draw(st.sampled_from(["u64", "bool"]))
        a, b = as_type(to, n), as_type(to, m)
        return BUILD[op](getattr(e, f"cast_{to}")(), getattr(f, f"cast_{to}")()), to, BUILD[op](a, b)
    if how == "shift":
        op = draw(st.sampled_from(["<<", ">>"]))
        a, b = n % M, m % M % 64
        return BUILD[op](e, f), "u64", (a << b) % M if op == "<<" else a >> b
    if how == "unary":
        if kind == "bool":
            return ~e, kind, not n
        return (-e, kind, as_type(kind, -n)) if kind == "i64" or draw(st.booleans()) else (~e, kind, ~n % M)
    if how == "cast":
        to = draw(st.sampled_from(["i64", "u64", "bool"]))
        return getattr(e, f"cast_{to}")(), to, as_type(to, n)
    condition, _, truth = draw(pairs(depth=depth - 1))
    return (
        condition.cast_bool().where(e, getattr(f, f"cast_{kind}")()),
        kind,
        n if truth else as_type(kind, m),
    )


class Oracle(Values):
    def symbol(self, name):
        return int(name)

    def param(self, index):
        return index


@given(pairs())
def test_value_and_type_against_integers(pair):
    e, kind, expected = pair
    assert e.type == kind
    found = e.evaluate(Oracle())
    assert found == expected and isinstance(found, bool) == (kind == "bool")


def test_c_division_and_the_corners():
    seven, two, zero, low = (Expr("task_param", "i64", n) for n in (-7, 2, 0, -(2**63)))
    assert (seven // two).evaluate(Oracle()) == -3 and (seven % two).evaluate(Oracle()) == -1
    assert ((-seven) // -two).evaluate(Oracle()) == -3 and ((-seven) % -two).evaluate(Oracle()) == 1
    assert (seven // zero).evaluate(Oracle()) == 0 and (seven % zero).evaluate(Oracle()) == 0
    assert (low // -1).evaluate(Oracle()) == -(2**63) and (low % -1).evaluate(Oracle()) == 0
    assert (as_expr(1).cast_u64() << 64).evaluate(Oracle()) == 1


def test_mixed_arithmetic_reads_the_unsigned_side_as_signed():
    n = symbol_u64("n")
    assert value(i // n, loops={i: -6}, symbols={"n": 2}) == -3 and (i // n).type == "i64"
    assert value(i // n, loops={i: 6}, symbols={"n": 2**64 - 2}) == -3
    assert value(n // i, loops={i: 2}, symbols={"n": 2**64 - 6}) == 2**64 - 3 and (n // i).type == "u64"
    assert value(n % i, loops={i: 4}, symbols={"n": 2**64 - 6}) == 2**64 - 2
    assert value(n * i, loops={i: -1}, symbols={"n": 5}) == 2**64 - 5


def test_comparison_is_mathematical():
    n = symbol_u64("n")
    assert value(i - 4 < n, loops={i: 0}, symbols={"n": 0}) is True
    assert value(as_expr(-1) == n, symbols={"n": 2**64 - 1}) is False
    assert value(n > -1) is True and value(n >= 2**63, symbols={"n": 2**63}) is True


def test_literals_adopt_the_type_beside_them():
    u = symbol_u64("n")
    assert (u & 1).type == "u64" and (u & 1).c.kind == "lit_u64"
    assert value(u & -2, symbols={"n": 7}) == 6
    assert value(u // 3, symbols={"n": 2**64 - 1}) == (2**64 - 1) // 3
    assert (u - 1).type == "u64" and (1 - u).type == "u64" and (3 + i).type == "i64"
    assert (i < 3).where(u, 0).type == "u64"
    assert as_expr(2**64 - 1).type == "u64" and as_expr(2**63 - 1).type == "i64"


def test_reflected_and_numpy_operands():
    assert value(1 + i, loops={i: 4}) == 5 and value(10 - i, loops={i: 4}) == 6
    assert value(np.int64(3) * i, loops={i: 4}) == 12 and value(7 // i, loops={i: 2}) == 3
    assert isinstance(np.int32(1) < i, Expr) and isinstance(np.uint8(3) + axis("b"), Expr)
    assert value(as_expr(np.bool_(True)) & (i < 3), loops={i: 1}) is True
    assert value(1 << i, loops={i: 5}) == 32


def test_bools_count_in_arithmetic():
    assert ((i < 3) + (j < 3)).type == "i64"
    assert value((i < 3) + (j < 3), loops={i: 1, j: 2}) == 2
    assert value((i < 3) == 1, loops={i: 1}) is True
    assert value((i < 3) == (j < 3), loops={i: 1, j: 9}) is False


def test_and_or_stop_early():
    guard = (i != 0) & (Expr("axis_var", "i64", "missing") > 0)
    assert value(guard, loops={i: 0}) is False
    assert value((i == 0) | (Expr("axis_var", "i64", "missing") > 0), loops={i: 0}) is True
    with pytest.raises(LookupError, match="missing"):
        value(guard, loops={i: 1})


# ---- leaves


def test_leaves():
    values = dict(slots={3: 2**64 - 1}, symbols={"n": -1}, params=(5, 6), axes={"b": 9}, loops={i: -2})
    assert value(slot_u64(3), **values) == 2**64 - 1 and value(slot_i64(3), **values) == -1
    assert value(slot_bool(3), **values) is True and value(slot_bool(4), **values) is False
    assert value(symbol_u64("n"), **values) == 2**64 - 1 and value(symbol_u64("unset"), **values) == 0
    assert value(task_param(1), **values) == 6 and value(task_param(2), **values) == 0
    assert value(axis("b"), **values) == 9 and value(i, **values) == -2


def test_task_proxy():
    t = TaskExpr()
    assert value(t.get("b"), axes={"b": 4}) == 4 and value(t.get("b", 7)) == 7 and value(t.get("b")) == 0
    assert t.params[2].kind == "task_param" and t.tags["salt"].type == "u64"
    assert value(t.tags["salt"], symbols={"salt": 8}) == 8
    with pytest.raises(AttributeError, match="batch"):
        t.batch
    key = trace_task_fn(lambda t: (t.params[1].cast_u64() >> 2) ^ t.tags["salt"])
    assert value(key, params=(0, 20), symbols={"salt": 1}) == 4
    assert trace_task_fn(lambda t: 3).a == 3 and trace_task_fn(axis("b")).kind == "axis_var"
    assert value(trace_task_fn(lambda t: (t.get("s") > 5).where(0, 1)), axes={"s": 6}) == 0
    with pytest.raises(TypeError):
        trace_task_fn(lambda t: 1.5)


@pytest.mark.parametrize(
    "make, kind",
    [
        (lambda: slot_u64(256), ValueError),
        (lambda: slot_u64(-1), ValueError),
        (lambda: slot_u64(1.0), TypeError),
        (lambda: task_param(-1), ValueError),
        (lambda: axis(""), TypeError),
        (lambda: symbol_u64(3), TypeError),
        (lambda: as_expr(2**64), OverflowError),
        (lambda: as_expr(-(2**63) - 1), OverflowError),
        (lambda: as_expr(1.5), TypeError),
        (lambda: as_expr("b"), TypeError),
        (lambda: as_expr(None), TypeError),
        (lambda: as_expr(Symbol("n")), TypeError),
        (lambda: i & 1, TypeError),
        (lambda: (i < 1) ^ (j < 1), TypeError),
        (lambda: (i < 1) & 1, TypeError),
        (lambda: ~i, TypeError),
        (lambda: -(i < 1), TypeError),
        (lambda: i.where(1, 2), TypeError),
        (lambda: (i < 1).where(i, symbol_u64("n")), TypeError),
        (lambda: i / 2, TypeError),
        (lambda: 2 / i, TypeError),
        (lambda: i**2, TypeError),
        (lambda: i + 1.5, TypeError),
        (lambda: i == 1.5, TypeError),
        (lambda: i == "b", TypeError),
    ],
)
def test_refused_when_built(make, kind):
    with pytest.raises(kind):
        make()


@pytest.mark.parametrize("use", [bool, lambda e: e and 1, lambda e: not e, lambda e: e in [1], lambda e: 1 < e < 3])
def test_no_python_truth(use):
    for e in (i, axis("b"), i == 1):
        with pytest.raises(TypeError, match="only when the program runs"):
            use(e)


def test_identity_and_hash():
    same = LoopVar("i", 8)
    assert {i: 1, same: 2}[i] == 1 and len({i, same}) == 2
    e = axis("b")
    assert {e: 1}[e] == 1 and (e, i) == (e, i)
    assert (i == None) is False and (i != None) is True  # noqa: E711
    assert repr(i) == "LoopVar(i)" and (i.name, i.axis, i.index) == ("i", 8, 0)
    with pytest.raises(AttributeError):
        e.kind = "other"


# ---- linear forms


@st.composite
def linear(draw, depth=3):
    """(expression, coefficient of i, coefficient of j, constant)."""
    if depth == 0:
        return draw(
            st.sampled_from([(i, 1, 0, 0), (j, 0, 1, 0)]) | st.integers(-20, 20).map(lambda n: (as_expr(n), 0, 0, n))
        )
    e, *a = draw(linear(depth=depth - 1))
    if draw(st.booleans()):
        n = draw(st.integers(-5, 5))
        made = draw(st.sampled_from([lambda: e * n, lambda: n * e]))()
        return made, *(x * n for x in a)
    f, *b = draw(linear(depth=depth - 1))
    sign = draw(st.sampled_from([1, -1]))
    return (e + f if sign > 0 else e - f), *(x + sign * y for x, y in zip(a, b))


@given(linear())
def test_affine(made):
    e, ci, cj, constant = made
    form = affine(e)
    assert form is not None
    coefficients, offset = form
    assert (coefficients.get(i, 0), coefficients.get(j, 0), offset) == (ci, cj, constant)
    assert 0 not in coefficients.values()
    for a, b in ((0, 0), (3, 5), (-2, 7)):
        assert value(e, loops={i: a, j: b}) == ci * a + cj * b + constant


def test_affine_of_other_things():
    assert affine(i * j) is None and affine(i // 2) is None and affine(i < 2) is None
    assert affine(axis("b") + 1) is None and linear_form(axis("b") + 1) == ({("axis_var", "b"): 1}, 1)
    assert affine((i + 1) * 16 - i * 16) == ({}, 16) and affine(7) == ({}, 7) and affine(-i) == ({i: -1}, 0)
    assert affine(i % 4 * 8 + 8 - 8 * (i % 4)) == ({}, 8) and affine(i * j - i * j) == ({}, 0)
    assert affine(i % 4 - i % 3) is None
    assert constant_of(as_expr(3) * 5 - 1) == 14 and constant_of(i) is None and constant_of(5) == 5


# ---- text and hash


@pytest.mark.parametrize(
    "e, text",
    [
        (1 + i * 2 - j // 3, "1 + i * 2 - j // 3"),
        ((i + 1) * 2, "(i + 1) * 2"),
        (i - (j - 1), "i - (j - 1)"),
        (i - -3, "i - (-3)"),
        (-i, "-i"),
        ((i < 3) & ~(j == 1), "(i < 3) & ~(j == 1)"),
        (axis("b") % 4, "axis('b') % 4"),
        (TaskExpr().get("b", 3) + 1, "axis('b', default=3) + 1"),
        ((i < 3).where(symbol_u64("n"), 0), "(i < 3).where(symbol_u64('n'), 0)"),
        (slot_u64(3) > 0, "slot_u64(3) > 0"),
        (as_expr(True), "True"),
        (TaskExpr().tags["a"] ^ 1, "tags['a'] ^ 1"),
    ],
)
def test_text(e, text):
    assert str(e) == e.to_debug_str() == text and repr(e) == f"Expr({text}: {e.type})"


def test_fnv():
    assert fnv1a_64("") == 0xCBF29CE484222325
    assert fnv1a_64("a") == 0xAF63DC4C8601EC8C
    assert fnv1a_64("hello") == 0xA430D84680AABD0B
