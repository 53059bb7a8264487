"""How each op is computed: one rule per row of the op table, as the loop nest it becomes.

A rule is data: the kind of nest, and a scalar body over the algebra `k` (`lower/algebra.py`). Bodies see values in
their compute dtype (F32 for F16 and BF16); `Operands.apply` rounds each result to the op's dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pto_wsp.lower import math
from pto_wsp.lower.algebra import INT_OF_WIDTH
from pto_wsp.types import DType

Body = Callable[..., Any]


@dataclass(frozen=True)
class Leaf:
    """No tile operands: memory, constants and indices, which are read where they are used."""


@dataclass(frozen=True)
class Map:
    """One result element from one element of each operand. `cost` is in vector instructions, roughly."""

    body: Body  # (k, *operands) -> result
    cost: int = 1
    on_bits: bool = False  # f16 and bf16 need not be widened for it


@dataclass(frozen=True)
class Reduce:
    """All elements of a row (axis 1) or of a column (axis 0) into one."""

    axis: int
    start: Callable[[DType], float | int]  # neutral element of the accumulator dtype
    body: Body  # (k, accumulator, element) -> accumulator
    mean: bool = False  # divide by the number of elements
    cost: int = 1  # of the body, as in Map
    folds: tuple[Fold, ...] = ()  # f32: instead of the body, one instruction each …
    join: Body | None = None  # … (k, *accumulators) -> what the body would have found


@dataclass(frozen=True)
class Fold:
    """One of several accumulators in which a row reduction of f32 keeps what it needs, of `dtype` and f32's bits."""

    dtype: DType
    start: float | int
    body: Body


@dataclass(frozen=True)
class Halve:
    """Every second column, beginning with `first`."""

    first: int


@dataclass(frozen=True)
class Interleave:
    """Columns of two tiles by turns."""


@dataclass(frozen=True)
class Whole:
    """Needs its operands in memory: a nest of its own."""


Rule = Leaf | Map | Reduce | Halve | Interleave | Whole


def lowest(dtype: DType) -> float | int:
    """Neutral element of maximum."""
    if dtype.is_float:
        return float("-inf")
    return -(1 << (dtype.bits - 1)) if dtype.is_signed else 0


def highest(dtype: DType) -> float | int:
    """Neutral element of minimum."""
    if dtype.is_float:
        return float("inf")
    return (1 << (dtype.bits - dtype.is_signed)) - 1


def zero(dtype: DType) -> float | int:
    return 0


def mask(k: Any, x: Any) -> Any:
    """A comparison's result as the u8 that its tile holds."""
    return k.convert(x, DType.U8)


def larger_bits(k: Any, acc: Any, x: Any) -> Any:
    """The larger of floats of which none is a NaN with a sign and one is positive, as ints: NaN is above infinity."""
    as_int = INT_OF_WIDTH[x.dtype.bits]
    return k.bitcast(k.maximum(k.bitcast(acc, as_int), k.bitcast(x, as_int)), x.dtype)


def join_largest(k: Any, signed: Any, least: Any, most: Any) -> Any:
    """The largest float of a row: the largest int if that has no sign (NaN is above infinity), else all are negative,
    and the least bits belong to the one next to zero; but bits above those of -inf are a NaN with a sign."""
    largest = k.select(k.lt(signed, 0), k.bitcast(least, DType.I32), signed)
    return k.bitcast(k.select(k.gt(most, MINUS_INF), k.bitcast(most, DType.I32), largest), DType.F32)


MINUS_INF = 0xFF800000  # bits
LARGEST = (
    Fold(DType.I32, -(1 << 31), lambda k, acc, x: k.maximum(acc, x)),
    Fold(DType.U32, MINUS_INF, lambda k, acc, x: k.minimum(acc, x)),
    Fold(DType.U32, 0, lambda k, acc, x: k.maximum(acc, x)),
)
_ADD = Map(lambda k, x, y: k.add(x, y))
_MUL = Map(lambda k, x, y: k.mul(x, y))

RULES: dict[str, Rule] = {
    "param": Leaf(),
    "scalar_param": Leaf(),
    "constant": Leaf(),
    "load": Leaf(),
    "alloc": Leaf(),
    "iota_u32": Leaf(),
    "add_cycles": Leaf(),
    "store": Map(lambda k, x: x, cost=0, on_bits=True),
    "add": _ADD,
    "sub": Map(lambda k, x, y: k.sub(x, y)),
    "mul": _MUL,
    "div": Map(lambda k, x, y: k.div(x, y), cost=4),
    "maximum": Map(lambda k, x, y: k.maximum(x, y), cost=3),
    "minimum": Map(lambda k, x, y: k.minimum(x, y), cost=3),
    "fma": Map(lambda k, x, y, z: k.fma(x, y, z)),
    "lt": Map(lambda k, x, y: mask(k, k.lt(x, y))),
    "le": Map(lambda k, x, y: mask(k, k.le(x, y))),
    "gt": Map(lambda k, x, y: mask(k, k.gt(x, y))),
    "ge": Map(lambda k, x, y: mask(k, k.ge(x, y))),
    "eq": Map(lambda k, x, y: mask(k, k.eq(x, y))),
    "ne": Map(lambda k, x, y: mask(k, k.ne(x, y))),
    "select": Map(lambda k, m, x, y: k.select(k.ne(m, 0), x, y)),
    "neg": Map(lambda k, x: k.neg(x), on_bits=True),
    "abs": Map(lambda k, x: k.abs(x), on_bits=True),
    "sqrt": Map(lambda k, x: k.sqrt(x), cost=8),
    "rsqrt": Map(math.rsqrt, cost=10),
    "reciprocal": Map(lambda k, x: k.div(k.const(1, x.dtype), x), cost=4),
    "exp": Map(math.exp, cost=14),
    "log": Map(math.log, cost=20),
    "sin": Map(math.sin, cost=30),
    "cos": Map(math.cos, cost=30),
    "tanh": Map(math.tanh, cost=20),
    "erf": Map(math.erf, cost=30),
    "sigmoid": Map(math.sigmoid, cost=20),
    "relu": Map(lambda k, x: k.maximum(x, k.const(0, x.dtype)), cost=2, on_bits=True),
    "gelu": Map(math.gelu, cost=30),
    "silu": Map(math.silu, cost=20),
    "floor": Map(lambda k, x: k.floor(x)),
    "ceil": Map(lambda k, x: k.ceil(x)),
    "round": Map(lambda k, x: k.rint(x)),
    "cast": Map(lambda k, x: x),  # the result's dtype is all there is to it
    "rowsum": Reduce(1, zero, lambda k, acc, x: k.add(acc, x)),
    "rowmax": Reduce(1, lowest, lambda k, acc, x: k.maximum(acc, x), cost=3, folds=LARGEST, join=join_largest),
    "rowmin": Reduce(1, highest, lambda k, acc, x: k.minimum(acc, x), cost=3),
    "rowmean": Reduce(1, zero, lambda k, acc, x: k.add(acc, x), mean=True),
    "colsum": Reduce(0, zero, lambda k, acc, x: k.add(acc, x)),
    "colmax": Reduce(0, lowest, lambda k, acc, x: k.maximum(acc, x), cost=3),
    "colmin": Reduce(0, highest, lambda k, acc, x: k.minimum(acc, x), cost=3),
    "colmean": Reduce(0, zero, lambda k, acc, x: k.add(acc, x), mean=True),
    "rowmul": _MUL,
    "rowadd": _ADD,
    "colmul": _MUL,
    "coladd": _ADD,
    "broadcast": Map(lambda k, x: x, cost=0),
    "slice_even": Halve(0),
    "slice_odd": Halve(1),
    "interleave": Interleave(),
    "transpose": Whole(),
    "matmul": Whole(),
    "tsort32": Whole(),
    "extract_topk_indices": Whole(),
}

# Reductions of floats that are the result of abs(): one instruction each, where a NaN with a sign takes three or six.
OF_ABSOLUTES = {"rowmax": Reduce(1, lowest, larger_bits), "colmax": Reduce(0, lowest, larger_bits)}
