"""The op table: everything a kernel can do, one row per op.

A row says what an op means: its operands, its type rule, its NumPy reference, its cycles and its documentation.
`pto.*`, the operators on tiles, the interpreter, the checker, the tests and the manual are made from the rows;
`lower/rules.py` and (for the NPU) `ascend/rules.py` say how each row is computed.

To add an op: add a row to `TABLE` below and a rule of the same name in each `rules.py`. The tests then draw random
tiles for it, and fail until every room has its rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np

from pto_wsp.arguments import as_int
from pto_wsp.errors import OperandError
from pto_wsp.trace.graph import Node, ValueType
from pto_wsp.types import DType, ScalarType, TileType

Types = Sequence["ValueType | None"]
Attrs = Mapping[str, Any]
Dim = tuple[Node, int]                                  # (tile value, 0 for its rows or 1 for its columns)
Term = tuple[int, tuple[Dim, ...]]                      # cycles: a coefficient times a product of extents
Infer = Callable[["Op", Types, Attrs], ValueType | None]


@dataclass(frozen=True, eq=False, repr=False)
class Op:
    """One row: the meaning of an op, the same for every backend."""

    name: str
    operands: str                                       # names, in order; a trailing "?" marks one that may be absent
    infer: Infer                                        # (row, operand types, attrs) -> result type, or OperandError
    reference: Callable[..., Any] | None                # (*arrays, **attrs) -> array; None: memory, see interpret.py
    cycles: Callable[[Node, Sequence[Node]], tuple[Term, ...]]      # (node, its users) -> terms
    doc: str
    attrs: Mapping[str, Any] = field(default_factory=dict)          # static arguments and defaults; REQUIRED has none
    tolerance: int | str = 0                            # JIT against reference in ULPs; 0: bits; "sum": n·eps·Σ|x|
    promotes: bool = False                              # numbers, scalars and vectors take the element type of the tile

    @cached_property
    def operand_names(self) -> tuple[str, ...]:
        return tuple(name.rstrip("?") for name in self.operands.split())

    @cached_property
    def arity(self) -> tuple[int, int]:
        """Fewest and most operands."""
        names = self.operands.split()
        return sum(not n.endswith("?") for n in names), len(names)

    def __repr__(self) -> str:
        return self.name


class _Required:
    def __repr__(self) -> str:
        return "<required>"


REQUIRED = _Required()


# ---- type rules --------------------------------------------------------------------------------------------------

def tile_of(op: Op, types: Types, index: int) -> TileType:
    """The type of operand `index`, which has to be a tile."""
    found = types[index] if index < len(types) else None
    if not isinstance(found, TileType):
        raise OperandError(f"{op.name} needs a tile as {op.operand_names[index]}; got {found or 'nothing'}."
                           + (" Spread a scalar with pto.broadcast(s, (rows, cols))." if found else ""))
    return found


def _count(op: Op, types: Types) -> None:
    fewest, most = op.arity
    if not fewest <= len(types) <= most:
        raise OperandError(f"{op.name} takes {fewest if fewest == most else f'{fewest} to {most}'} operands "
                           f"({op.operands}); got {len(types)}.")


def _need(op: Op, dtype: DType, allowed: bool, kinds: str) -> None:
    if not allowed:
        raise OperandError(f"{op.name} needs {kinds} elements; got {dtype.value}. Convert with pto.cast(x, DType.F32).")


def broadcast_shape(op: Op, tiles: Sequence[TileType]) -> tuple[int, int]:
    """NumPy's rule: extents agree or are 1."""
    shape = []
    for axis, extents in enumerate((tuple(t.rows for t in tiles), tuple(t.cols for t in tiles))):
        wide = {e for e in extents if e != 1}
        if len(wide) > 1:
            shapes = " and ".join(f"[{t.rows}, {t.cols}]" for t in tiles)
            raise OperandError(f"{op.name}: shapes {shapes} do not broadcast: {'columns' if axis else 'rows'} "
                               f"{' and '.join(str(e) for e in extents)} differ and none of them is 1.")
        shape.append(wide.pop() if wide else 1)
    return shape[0], shape[1]


def broadcast_type(op: Op, types: Types, attrs: Attrs) -> ValueType:
    """Elementwise, NumPy broadcasting over rows and columns; one element type (graph.build converts to it)."""
    _count(op, types)
    values = [t for t, name in zip(types, op.operand_names) if name != "mask"]
    dtypes = {t.dtype for t in values if t is not None}
    if None in types or len(dtypes) != 1:
        raise OperandError(f"{op.name} needs operands of one dtype; got {', '.join(map(str, types))}.")
    tiles = [t for t in types if isinstance(t, TileType)]
    dtype = dtypes.pop()
    if not tiles:
        return ScalarType(dtype)
    return TileType(*broadcast_shape(op, tiles), dtype)


def select_type(op: Op, types: Types, attrs: Attrs) -> ValueType:
    """mask ? a : b; the mask is a tile (or scalar) of U8 as the comparisons make it."""
    _count(op, types)
    mask = types[0]
    if mask is None or mask.dtype is not DType.U8:
        raise OperandError(f"select needs a u8 mask, as pto.lt(a, b) makes; got {mask}.")
    return broadcast_type(op, types, attrs)


def mask_type(op: Op, types: Types, attrs: Attrs) -> ValueType:
    """Broadcast shape of the operands, elements U8: 1 where it holds, else 0."""
    result = broadcast_type(op, types, attrs)
    return TileType(result.rows, result.cols, DType.U8) if isinstance(result, TileType) else ScalarType(DType.U8)


def same_type(op: Op, types: Types, attrs: Attrs) -> ValueType:
    """The operand's own type; any dtype."""
    _count(op, types)
    if types[0] is None:
        raise OperandError(f"{op.name} needs a tile or scalar.")
    x = types[0]
    return TileType(x.rows, x.cols, x.dtype) if isinstance(x, TileType) else x


def float_type(op: Op, types: Types, attrs: Attrs) -> ValueType:
    """The operand's own type, which has to be floating point."""
    result = same_type(op, types, attrs)
    _need(op, result.dtype, result.dtype.is_float, "float")
    return result


def float_broadcast_type(op: Op, types: Types, attrs: Attrs) -> ValueType:
    result = broadcast_type(op, types, attrs)
    _need(op, result.dtype, result.dtype.is_float, "float")
    return result


def accumulator(dtype: DType) -> DType:
    """Element type that a reduction of `dtype` is carried and returned in: F32 for F16 and BF16, else its own."""
    return DType.F32 if dtype in (DType.F16, DType.BF16) else dtype


def one_column(op: Op, types: Types, attrs: Attrs) -> TileType:
    """[rows, cols] -> [rows, 1], elements as `accumulator` says."""
    _count(op, types)
    x = tile_of(op, types, 0)
    return TileType(x.rows, 1, accumulator(x.dtype))


def one_row(op: Op, types: Types, attrs: Attrs) -> TileType:
    """[rows, cols] -> [1, cols], elements as `accumulator` says."""
    _count(op, types)
    x = tile_of(op, types, 0)
    return TileType(1, x.cols, accumulator(x.dtype))


def mean_column(op: Op, types: Types, attrs: Attrs) -> TileType:
    _need(op, tile_of(op, types, 0).dtype, tile_of(op, types, 0).dtype.is_float, "float")
    return one_column(op, types, attrs)


def mean_row(op: Op, types: Types, attrs: Attrs) -> TileType:
    _need(op, tile_of(op, types, 0).dtype, tile_of(op, types, 0).dtype.is_float, "float")
    return one_row(op, types, attrs)


def per_row(op: Op, types: Types, attrs: Attrs) -> TileType:
    """A tile [rows, cols] and one value per row [rows, 1]."""
    return _with_vector(op, types, lambda t: (t.rows, 1), "[rows, 1]")


def per_column(op: Op, types: Types, attrs: Attrs) -> TileType:
    """A tile [rows, cols] and one value per column [1, cols]."""
    return _with_vector(op, types, lambda t: (1, t.cols), "[1, cols]")


def _with_vector(op: Op, types: Types, shape: Callable[[TileType], tuple[int, int]], wanted: str) -> TileType:
    _count(op, types)
    x, vec = tile_of(op, types, 0), tile_of(op, types, 1)
    if (vec.rows, vec.cols) != shape(x):
        raise OperandError(f"{op.name} needs vec of shape {wanted} = {list(shape(x))} for a tile "
                           f"[{x.rows}, {x.cols}]; got [{vec.rows}, {vec.cols}].")
    result = broadcast_type(op, types, {})
    assert isinstance(result, TileType)
    return result


def matmul_result(a: DType) -> DType:
    """Element type of a matmul of two tiles of `a`: F32 for F16/BF16, I32 for 8-bit integers, else its own."""
    return DType.I32 if a in (DType.I8, DType.U8) else accumulator(a)


def matmul_type(op: Op, types: Types, attrs: Attrs) -> TileType:
    """[M, K] and [K, N] of one dtype (and acc [M, N] of the result's dtype) -> [M, N]."""
    _count(op, types)
    a, b = tile_of(op, types, 0), tile_of(op, types, 1)
    if a.cols != b.rows:
        raise OperandError(f"matmul needs a [M, K] and b [K, N]; got [{a.rows}, {a.cols}] and [{b.rows}, {b.cols}]: "
                           f"K is {a.cols} on the left and {b.rows} on the right.")
    if a.dtype is not b.dtype:
        raise OperandError(f"matmul needs operands of one dtype; got {a.dtype.value} and {b.dtype.value}. "
                           f"Convert one with pto.cast(x, DType.{a.dtype.name}).")
    result = TileType(a.rows, b.cols, matmul_result(a.dtype))
    if len(types) == 3:
        acc = tile_of(op, types, 2)
        if (acc.rows, acc.cols, acc.dtype) != (result.rows, result.cols, result.dtype):
            raise OperandError(f"matmul needs acc of type {result}; got {acc}.")
    return result


def half_columns(op: Op, types: Types, attrs: Attrs) -> TileType:
    """[rows, cols] -> [rows, cols // 2]."""
    _count(op, types)
    x = tile_of(op, types, 0)
    if x.cols < 2:
        raise OperandError(f"{op.name} needs at least 2 columns; got [{x.rows}, {x.cols}].")
    return TileType(x.rows, x.cols // 2, x.dtype)


def double_columns(op: Op, types: Types, attrs: Attrs) -> TileType:
    """Two [rows, cols] of one type -> [rows, 2·cols]."""
    _count(op, types)
    a, b = tile_of(op, types, 0), tile_of(op, types, 1)
    if (a.rows, a.cols, a.dtype) != (b.rows, b.cols, b.dtype):
        raise OperandError(f"{op.name} needs two tiles of one type; got {a} and {b}.")
    return TileType(a.rows, 2 * a.cols, a.dtype)


def swapped(op: Op, types: Types, attrs: Attrs) -> TileType:
    """[rows, cols] -> [cols, rows]."""
    _count(op, types)
    x = tile_of(op, types, 0)
    return TileType(x.cols, x.rows, x.dtype)


def _shape(op: Op, attrs: Attrs) -> tuple[int, int]:
    shape = attrs["shape"]
    try:
        rows, cols = (int(s.__index__()) for s in shape)
    except (TypeError, ValueError, AttributeError):
        raise OperandError(f"{op.name} needs shape=(rows, cols), two ints; got {shape!r}.") from None
    if rows < 1 or cols < 1:
        raise OperandError(f"{op.name} needs a shape of at least (1, 1); got {shape!r}.")
    return rows, cols


def broadcast_to(op: Op, types: Types, attrs: Attrs) -> TileType:
    _count(op, types)
    rows, cols = _shape(op, attrs)
    x = types[0]
    if x is None:
        raise OperandError(f"{op.name} needs a tile or scalar.")
    if isinstance(x, TileType) and (x.rows not in (1, rows) or x.cols not in (1, cols)):
        raise OperandError(f"a tile [{x.rows}, {x.cols}] does not broadcast to {(rows, cols)}.")
    return TileType(rows, cols, x.dtype)


def allocated(op: Op, types: Types, attrs: Attrs) -> TileType:
    _count(op, types)
    return TileType(*_shape(op, attrs), _dtype(op, attrs))


def _dtype(op: Op, attrs: Attrs) -> DType:
    if not isinstance(attrs["dtype"], DType):
        raise OperandError(f"{op.name} needs dtype, such as DType.F32; got {attrs['dtype']!r}.")
    return attrs["dtype"]


def converted(op: Op, types: Types, attrs: Attrs) -> ValueType:
    _count(op, types)
    dtype = _dtype(op, attrs)
    x = types[0]
    if x is None:
        raise OperandError(f"{op.name} needs a tile or scalar.")
    return TileType(x.rows, x.cols, dtype) if isinstance(x, TileType) else ScalarType(dtype)


def from_attrs(op: Op, types: Types, attrs: Attrs) -> ValueType:
    """Parameters and constants carry their type."""
    found = attrs["type"] if "type" in attrs else ScalarType(_dtype(op, attrs))
    if types or not isinstance(found, (TileType, ScalarType)):
        raise OperandError(f"{op.name} takes no operands and has a type; got {found!r}.")
    return found


def stored(op: Op, types: Types, attrs: Attrs) -> None:
    """store(dst, src): shapes and dtypes are equal (the front end inserts the conversion)."""
    _count(op, types)
    dst, src = tile_of(op, types, 0), tile_of(op, types, 1)
    if (dst.rows, dst.cols) != (src.rows, src.cols):
        raise OperandError(f"store needs dst and src of one shape; dst is [{dst.rows}, {dst.cols}], src is "
                           f"[{src.rows}, {src.cols}]. Spread a vector: pto.broadcast(src, {(dst.rows, dst.cols)}).")
    if dst.dtype is not src.dtype:
        raise OperandError(f"store of {src.dtype.value} into {dst.dtype.value}. Convert with pto.cast.")


def nothing(op: Op, types: Types, attrs: Attrs) -> None:
    return None


def index_row(op: Op, types: Types, attrs: Attrs) -> TileType:
    cols = as_int(attrs["cols"])
    if cols is None or cols < 1:
        raise OperandError(f"{op.name} needs cols, an int of at least 1; got {attrs['cols']!r}.")
    return TileType(1, cols, DType.U32)


def sorted_pairs(op: Op, types: Types, attrs: Attrs) -> TileType:
    _count(op, types)
    scores, idx = tile_of(op, types, 0), tile_of(op, types, 1)
    if (scores.rows, scores.cols, scores.dtype) != (1, 32, DType.F32):
        raise OperandError(f"{op.name} needs scores of type tile<1x32xf32>; got {scores}.")
    if (idx.rows, idx.cols, idx.dtype) != (1, 32, DType.U32):
        raise OperandError(f"{op.name} needs idx of type tile<1x32xu32>; got {idx}.")
    return TileType(1, 64, DType.F32)


def top_indices(op: Op, types: Types, attrs: Attrs) -> TileType:
    _count(op, types)
    pairs, k = tile_of(op, types, 0), as_int(attrs["k"])
    if (pairs.rows, pairs.cols, pairs.dtype) != (1, 64, DType.F32):
        raise OperandError(f"{op.name} needs pairs of type tile<1x64xf32>, as tsort32 makes; got {pairs}.")
    if k is None or not 1 <= k <= 32:
        raise OperandError(f"{op.name} needs k from 1 to 32; got {attrs['k']!r}.")
    return TileType(1, k, DType.I32)


# ---- cycle rules (execution.md 2.2); users are the nodes that read the value ---------------------------------------

def _area(node: Node) -> tuple[Dim, ...]:
    return ((node, 0), (node, 1))


def free(node: Node, users: Sequence[Node]) -> tuple[Term, ...]:
    return ()


def elementwise(node: Node, users: Sequence[Node]) -> tuple[Term, ...]:
    """One cycle per element of the result; operations between scalars are free."""
    return ((1, _area(node)),) if node.is_tile else ()


def conversion(node: Node, users: Sequence[Node]) -> tuple[Term, ...]:
    """As elementwise; what `build` adds to the operands of an op (by="promotion") is part of that op."""
    return () if node.attrs["by"] == "promotion" else elementwise(node, users)


def reduce(node: Node, users: Sequence[Node]) -> tuple[Term, ...]:
    """One cycle per result element (not per input element)."""
    return ((1, _area(node)),)


def given(node: Node, users: Sequence[Node]) -> tuple[Term, ...]:
    """As many cycles as the node says; an expression of scalar parameters is evaluated per task, see c_expr.py."""
    cycles = node.attrs["cycles"]
    return ((cycles, ()),) if isinstance(cycles, int) else ()


def reduce_and_divide(node: Node, users: Sequence[Node]) -> tuple[Term, ...]:
    return ((2, _area(node)),)


def transfer(node: Node, users: Sequence[Node]) -> tuple[Term, ...]:
    """Loads and stores: one cycle per element moved."""
    return ((1, _area(node.operands[0])),)


def product(node: Node, users: Sequence[Node]) -> tuple[Term, ...]:
    """M·K·N; computed operands are first moved (a parameter's load is its own node); one move out for vector users.

    An accumulator that another matmul made stays where it is.
    """
    a, b = node.operands[:2]
    terms: list[Term] = [(1, ((a, 0), (a, 1), (b, 1)))]
    for operand in (a, b):
        if not (operand.op.name == "load" and operand.attrs["at"] == "operand"):
            terms.append((1, _area(operand)))
    for acc in node.operands[2:]:
        if acc.op.name != "matmul" and not (acc.op.name == "load" and acc.attrs["at"] == "operand"):
            terms.append((1, _area(acc)))
    if any(user.op.name not in ("matmul", "store") and user.attrs.get("by") != "store" for user in users):
        terms.append((1, _area(node)))
    return tuple(terms)


def sort_cycles(node: Node, users: Sequence[Node]) -> tuple[Term, ...]:
    return ((5, _area(node.operands[0])),)


# ---- NumPy references ----------------------------------------------------------------------------------------------
# Written by hand, not derived from the lowering, so that both cannot share a mistake. The interpreter hands F16 and
# BF16 over as F32, widens to F64 (or long double) where tolerance is not 0, and rounds the result to the tile's dtype.

def ref_div(x: Any, y: Any) -> Any:
    """IEEE for floats; integers truncate toward zero, x / 0 is 0 and MIN / -1 wraps."""
    if not np.issubdtype(np.asarray(x).dtype, np.integer):
        return np.divide(x, y)
    x, y = np.broadcast_arrays(x, y)
    safe = np.where(y == 0, np.ones_like(y), y)
    floor = x // safe                                               # MIN / -1 wraps
    toward_zero = floor + ((x != floor * safe) & ((x < 0) != (y < 0))).astype(x.dtype)
    return np.where(y == 0, np.zeros_like(x), toward_zero)


def ref_maximum(x: Any, y: Any) -> Any:
    """IEEE 754-2019 maximum: NaN if either is NaN, and -0 < +0."""
    larger = np.maximum(x, y)
    if not np.issubdtype(np.asarray(larger).dtype, np.inexact):
        return larger
    zeros = (np.asarray(x) == 0) & (np.asarray(y) == 0)
    return np.where(zeros, np.where(np.signbit(x), y, x), larger)


def ref_minimum(x: Any, y: Any) -> Any:
    """IEEE 754-2019 minimum: NaN if either is NaN, and -0 < +0."""
    smaller = np.minimum(x, y)
    if not np.issubdtype(np.asarray(smaller).dtype, np.inexact):
        return smaller
    zeros = (np.asarray(x) == 0) & (np.asarray(y) == 0)
    return np.where(zeros, np.where(np.signbit(x), x, y), smaller)


def ref_max_along(x: Any, axis: int) -> Any:
    """The largest along an axis; of nothing, -inf or the smallest integer."""
    return _along(ref_maximum, x, axis, -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min)


def ref_min_along(x: Any, axis: int) -> Any:
    """The smallest along an axis; of nothing, +inf or the largest integer."""
    return _along(ref_minimum, x, axis, np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).max)


def _along(choose: Callable[[Any, Any], Any], x: Any, axis: int, of_nothing: float) -> Any:
    """Fold an axis into one element by a choice that is commutative and associative: halves against halves."""
    if x.shape[axis] == 0:
        return np.full([1 if i == axis else n for i, n in enumerate(x.shape)], of_nothing, x.dtype)
    x = np.moveaxis(x, axis, 0)
    while len(x) > 1:
        half = len(x) // 2
        x = np.concatenate((choose(x[:half], x[half:2 * half]), x[2 * half:]))
    return np.moveaxis(x, 0, axis)


def ref_fma(x: Any, y: Any, z: Any) -> Any:
    """x * y + z, rounded once."""
    x, y, z = np.broadcast_arrays(x, y, z)
    return _fma32(x, y, z) if x.dtype == np.float32 else _fma64(x, y, z)


def _fma32(x: Any, y: Any, z: Any) -> Any:
    """The product is exact in F64; the sum is rounded to odd there, so that only rounding it to F32 counts."""
    product, z = x.astype(np.float64) * y.astype(np.float64), z.astype(np.float64)
    return _add_to_odd(product, z).astype(np.float32)


def _add_to_odd(a: Any, b: Any) -> Any:
    """a + b in F64: the sum if it is exact, else the one of its two neighbours whose last bit is 1."""
    near = np.asarray(a + b)
    back = near - a
    error = np.asarray((a - (near - back)) + (b - back))            # exactly a + b - near (Knuth)
    bits = near.view(np.int64)                                      # of a float's magnitude, for any sign
    step = np.where((error > 0) == (near > 0), 1, -1)
    move = (error != 0) & np.isfinite(near) & np.isfinite(error) & ((bits & 1) == 0)
    return np.where(move, bits + step, bits).view(np.float64)


def _fma64(x: Any, y: Any, z: Any) -> Any:
    """Boldo and Melquiond's sum of an exact product where no part of it can over- or underflow, else exact integers."""
    def moderate(a: Any) -> Any:
        return (np.abs(a) > 2.0 ** -250) & (np.abs(a) < 2.0 ** 250)

    high, low = _exact_product(x, y)
    carry, rest = _exact_sum(z, low)
    top, middle = _exact_sum(high, carry)
    result = top + _add_to_odd(middle, rest)
    plain = (x == 0) | (y == 0) | ~np.isfinite(x) | ~np.isfinite(y) | ~np.isfinite(z)
    result = np.where(plain, np.where(np.isfinite(x) & np.isfinite(y) & ~np.isfinite(z), z, x * y + z), result)
    hard = ~plain & ~(moderate(x) & moderate(y) & (moderate(z) | (z == 0)))
    for i in zip(*np.nonzero(np.atleast_1d(hard)), strict=True):
        at = i if hard.ndim else ()
        result[at] = _fma_of_rationals(float(x[at]), float(y[at]), float(z[at]))
    return result


def _exact_sum(a: Any, b: Any) -> Any:
    """(s, e): s = a + b rounded, s + e = a + b exactly (Knuth)."""
    s = a + b
    back = s - a
    return s, (a - (s - back)) + (b - back)


def _exact_product(a: Any, b: Any) -> Any:
    """(p, e): p = a * b rounded, p + e = a * b exactly (Dekker, Veltkamp)."""
    def halves(v: Any) -> Any:
        scaled = v * 134217729.0                                    # 2**27 + 1
        high = scaled - (scaled - v)
        return high, v - high

    p, (a1, a2), (b1, b2) = a * b, halves(a), halves(b)
    return p, a2 * b2 - (((p - a1 * b1) - a2 * b1) - a1 * b2)


def _fma_of_rationals(x: float, y: float, z: float) -> float:
    exact = Fraction(x) * Fraction(y) + Fraction(z)
    if exact == 0:
        return 0.0                                                  # z is exactly -x * y
    try:
        rounded = exact.numerator / exact.denominator               # correctly rounded, subnormals too
    except OverflowError:
        rounded = math.inf
    return math.copysign(rounded, 1 if exact > 0 else -1)


def ref_cast(x: Any, dtype: DType, by: str = "user") -> Any:
    """x in another dtype: to a float rounds to nearest even; float to integer truncates, saturates, NaN becomes 0;
    integers wrap. One rounding, whatever the source."""
    x = np.asarray(x)
    if x.dtype == dtype.numpy:
        return x
    if x.dtype.kind == "b":
        x = x.astype(np.uint8)
    elif x.dtype.kind not in "fiu":                                 # BF16 as ml_dtypes has it
        x = x.astype(np.float32)
    if dtype.is_int:
        return _truncated(x, dtype) if x.dtype.kind == "f" else x.astype(dtype.numpy)
    if dtype.itemsize >= 4:
        return x.astype(dtype.numpy)
    # NumPy and ml_dtypes reach 16 bits through F32 or F64: make that step round to odd.
    if x.dtype.kind in "iu" and x.dtype.itemsize == 8:
        big = (x >= 2 ** 53) | (x < -(2 ** 53)) if x.dtype.kind == "i" else x >= 2 ** 53
        low, below = x.dtype.type(11), x.dtype.type(0x7FF)          # NumPy 1 makes floats of u64 and a Python int
        x = np.where(big, (x >> low | ((x & below) != 0).astype(x.dtype)) << low, x)
    return _to_odd32(x.astype(np.float64)).astype(dtype.numpy)


def _to_odd32(x: Any) -> Any:
    """F64 as F32: itself if exact, else the neighbour whose last bit is 1."""
    near = x.astype(np.float32)
    bits = np.asarray(near).view(np.int32)
    toward_zero = np.where(np.abs(near.astype(np.float64)) > np.abs(x), bits - 1, bits)
    odd = np.where((near.astype(np.float64) == x) | np.isnan(x), bits, toward_zero | 1)
    return odd.astype(np.int32).view(np.float32)    # NumPy 1 widens an i32 without dimensions


def _truncated(x: Any, dtype: DType) -> Any:
    """Floats as integers: toward zero, saturated, NaN as 0."""
    limits = np.iinfo(dtype.numpy)
    x = np.trunc(x.astype(np.float64))
    below, above = x <= float(limits.min), x >= float(limits.max)   # float(max) of 64 bits is one above max
    whole = np.where(below | above | np.isnan(x), 0, x).astype(dtype.numpy)
    return np.where(below, dtype.numpy.type(limits.min), np.where(above, dtype.numpy.type(limits.max), whole))


def ref_erf(x: Any) -> Any:
    """2/√π · e^(-x²) · Σ 2ⁿ·x^(2n+1) / (2n+1)!!, whose terms have one sign; 1 in every dtype beyond 6."""
    dtype = np.asarray(x).dtype
    a = np.minimum(np.abs(x), dtype.type(6.5))
    term = total = a
    for n in range(1, 200):
        term = term * (2 * a * a) / (2 * n + 1)
        total = total + term
        if not np.any(term > total * np.finfo(dtype).eps / 16):
            break
    return np.copysign(np.where(a > 6.25, dtype.type(1), total * np.exp(-a * a) * 2 / np.sqrt(_pi(dtype))), x)


def ref_sigmoid(x: Any) -> Any:
    """1 / (1 + e^-x), without overflow on either side."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def ref_gelu(x: Any) -> Any:
    """0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))) = x·sigmoid(2·√(2/π)·(x + 0.044715·x³))."""
    dtype = np.asarray(x).dtype
    inner = 2 * np.sqrt(2 / _pi(dtype)) * (x + dtype.type(44715) / 1_000_000 * x ** 3)
    return np.where(np.isneginf(x), -0.0, x * ref_sigmoid(inner))


def _pi(dtype: Any) -> Any:
    return dtype.type("3.14159265358979323846264338327950288") if dtype.itemsize > 8 else dtype.type(math.pi)


def ref_silu(x: Any) -> Any:
    return np.where(np.isneginf(x), -0.0, x * ref_sigmoid(x))


def ref_matmul(a: Any, b: Any, acc: Any = None) -> Any:
    return a @ b if acc is None else acc + a @ b


def ref_interleave(a: Any, b: Any) -> Any:
    return np.stack((a, b), axis=2).reshape(a.shape[0], 2 * a.shape[1])


def ref_tsort32(scores: Any, idx: Any) -> Any:
    """Descending by score, equal scores by ascending index, NaN last; -0 and +0 are equal."""
    s, i = scores[0], idx[0]
    order = np.lexsort((i, -s, np.isnan(s)))                        # the last key decides first
    return np.stack((s[order], i[order].astype(s.dtype)), axis=1).reshape(1, -1)


def ref_top_indices(pairs: Any, k: int) -> Any:
    return ref_cast(pairs[:, 1:2 * k:2], DType.I32)


# ---- the rows ------------------------------------------------------------------------------------------------------

TABLE = (
    # memory
    Op("param", "", from_attrs, None, free, "A tile parameter: a handle that load and store use.",
       {"type": REQUIRED, "index": REQUIRED}),
    Op("scalar_param", "", from_attrs, None, free, "The value of a scalar parameter.",
       {"type": REQUIRED, "index": REQUIRED}),
    Op("load", "src", same_type, None, transfer,
       "The current content of a tile parameter. A parameter used without load is read once, at kernel entry.",
       {"at": "here"}),
    Op("store", "dst src", stored, None, transfer, "Write a whole tile to a parameter, converted to its dtype."),
    Op("alloc", "", allocated, lambda shape, dtype, **_: np.zeros(shape), elementwise, "A tile of zeros.",
       {"shape": REQUIRED, "dtype": DType.F16}),
    Op("constant", "", from_attrs, None, free, "A scalar constant, converted to dtype (integers truncate toward zero).",
       {"value": REQUIRED, "dtype": DType.F32}),

    # elementwise, two operands
    Op("add", "x y", broadcast_type, np.add, elementwise, "x + y; integers wrap.", promotes=True),
    Op("sub", "x y", broadcast_type, np.subtract, elementwise, "x - y; integers wrap.", promotes=True),
    Op("mul", "x y", broadcast_type, np.multiply, elementwise, "x * y; integers wrap.", promotes=True),
    Op("div", "x y", broadcast_type, ref_div, elementwise,
       "x / y: IEEE for floats; integers truncate toward zero and x / 0 is 0.", promotes=True),
    Op("maximum", "x y", broadcast_type, ref_maximum, elementwise,
       "The larger value, IEEE 754-2019 maximum: NaN if either is NaN, -0 < +0.", promotes=True),
    Op("minimum", "x y", broadcast_type, ref_minimum, elementwise,
       "The smaller value, IEEE 754-2019 minimum: NaN if either is NaN, -0 < +0.", promotes=True),
    Op("fma", "x y z", float_broadcast_type, ref_fma, elementwise,
       "x * y + z with one rounding (F16 and BF16: to F32, then to the tile).", promotes=True),

    # comparison and choice
    Op("lt", "x y", mask_type, np.less, elementwise, "x < y as u8.", promotes=True),
    Op("le", "x y", mask_type, np.less_equal, elementwise, "x <= y as u8.", promotes=True),
    Op("gt", "x y", mask_type, np.greater, elementwise, "x > y as u8.", promotes=True),
    Op("ge", "x y", mask_type, np.greater_equal, elementwise, "x >= y as u8.", promotes=True),
    Op("eq", "x y", mask_type, np.equal, elementwise, "x == y as u8.", promotes=True),
    Op("ne", "x y", mask_type, np.not_equal, elementwise, "x != y as u8.", promotes=True),
    Op("select", "mask x y", select_type, lambda m, x, y: np.where(m != 0, x, y), elementwise,
       "x where mask is not 0, else y.", promotes=True),

    # elementwise, one operand
    Op("neg", "x", same_type, np.negative, elementwise, "-x; integers wrap."),
    Op("abs", "x", same_type, np.abs, elementwise, "|x|; the smallest integer wraps to itself."),
    Op("sqrt", "x", float_type, np.sqrt, elementwise, "√x, correctly rounded."),
    Op("rsqrt", "x", float_type, lambda x: 1 / np.sqrt(x), elementwise, "1/√x.", tolerance=2),
    Op("reciprocal", "x", float_type, lambda x: 1 / x, elementwise, "1/x, correctly rounded."),
    Op("exp", "x", float_type, np.exp, elementwise, "e to the x.", tolerance=2),
    Op("log", "x", float_type, np.log, elementwise, "Natural logarithm.", tolerance=2),
    Op("sin", "x", float_type, np.sin, elementwise, "sin x, x in radians, the whole range.", tolerance=2),
    Op("cos", "x", float_type, np.cos, elementwise, "cos x, x in radians, the whole range.", tolerance=2),
    Op("tanh", "x", float_type, np.tanh, elementwise, "Hyperbolic tangent.", tolerance=2),
    Op("erf", "x", float_type, ref_erf, elementwise, "Error function.", tolerance=2),
    Op("sigmoid", "x", float_type, ref_sigmoid, elementwise, "1 / (1 + e^-x).", tolerance=2),
    Op("relu", "x", same_type, lambda x: ref_maximum(x, np.zeros_like(x)), elementwise, "maximum(x, 0)."),
    Op("gelu", "x", float_type, ref_gelu, elementwise,
       "GELU in its tanh form, 0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))).", tolerance=2),
    Op("silu", "x", float_type, ref_silu, elementwise, "x · sigmoid(x).", tolerance=2),
    Op("floor", "x", float_type, np.floor, elementwise, "Largest integer not above x."),
    Op("ceil", "x", float_type, np.ceil, elementwise, "Smallest integer not below x."),
    Op("round", "x", float_type, np.rint, elementwise, "Nearest integer, ties to even."),
    Op("cast", "x", converted, ref_cast, conversion,
       "x in another dtype: floats round to nearest even; float to integer truncates, saturates, and NaN becomes 0; "
       "integers wrap.", {"dtype": REQUIRED, "by": "user"}),

    # rows and columns
    Op("rowsum", "x", one_column, lambda x: x.sum(1, keepdims=True), reduce,
       "Sum of each row, in 64 interleaved lanes and then a fixed tree; F16 and BF16 are carried in F32.",
       tolerance="sum"),
    Op("rowmax", "x", one_column, lambda x: ref_max_along(x, 1), reduce, "Largest of each row; NaN if any is NaN."),
    Op("rowmin", "x", one_column, lambda x: ref_min_along(x, 1), reduce, "Smallest of each row; NaN if any is NaN."),
    Op("rowmean", "x", mean_column, lambda x: x.sum(1, keepdims=True) / x.shape[1], reduce_and_divide,
       "rowsum divided by the number of valid columns.", tolerance="sum"),
    Op("colsum", "x", one_row, lambda x: x.sum(0, keepdims=True), reduce,
       "Sum of each column, from the top row down; of a single column, in the order of rowsum.", tolerance="sum"),
    Op("colmax", "x", one_row, lambda x: ref_max_along(x, 0), reduce, "Largest of each column; NaN if any is NaN."),
    Op("colmin", "x", one_row, lambda x: ref_min_along(x, 0), reduce, "Smallest of each column; NaN if any is NaN."),
    Op("colmean", "x", mean_row, lambda x: x.sum(0, keepdims=True) / x.shape[0], reduce_and_divide,
       "colsum divided by the number of valid rows.", tolerance="sum"),
    Op("rowmul", "tile vec", per_row, np.multiply, elementwise, "Row i of tile times vec[i]; vec is [rows, 1].",
       promotes=True),
    Op("rowadd", "tile vec", per_row, np.add, elementwise, "Row i of tile plus vec[i]; vec is [rows, 1].",
       promotes=True),
    Op("colmul", "tile vec", per_column, np.multiply, elementwise, "Column j of tile times vec[j]; vec is [1, cols].",
       promotes=True),
    Op("coladd", "tile vec", per_column, np.add, elementwise, "Column j of tile plus vec[j]; vec is [1, cols].",
       promotes=True),

    # shape
    Op("broadcast", "x", broadcast_to, lambda x, shape: np.broadcast_to(x, shape), elementwise,
       "x repeated to shape (rows, cols), as NumPy broadcasts; x may be a scalar.", {"shape": REQUIRED}),
    Op("slice_even", "x", half_columns, lambda x: x[:, 0:x.shape[1] // 2 * 2:2], elementwise, "Columns 0, 2, 4, …"),
    Op("slice_odd", "x", half_columns, lambda x: x[:, 1:x.shape[1] // 2 * 2:2], elementwise, "Columns 1, 3, 5, …"),
    Op("interleave", "x y", double_columns, ref_interleave, elementwise, "Columns x0, y0, x1, y1, …"),
    Op("transpose", "x", swapped, np.transpose, elementwise, "Rows become columns."),
    Op("matmul", "a b acc?", matmul_type, ref_matmul, product,
       "a @ b (+ acc). F16 and BF16 multiply into F32, 8-bit integers into I32. Each element is summed over k in "
       "ascending order with fused multiply-adds, in blocks of 256.", tolerance="sum"),

    # selection
    Op("iota_u32", "", index_row, lambda cols: np.arange(cols, dtype=np.uint32)[None, :], free, "0, 1, …, cols-1.",
       {"cols": REQUIRED}),
    Op("tsort32", "scores idx", sorted_pairs, ref_tsort32, sort_cycles,
       "(score, index) pairs by descending score; equal scores by ascending index, NaN last."),
    Op("extract_topk_indices", "pairs", top_indices, ref_top_indices, free,
       "The first k indices of sorted pairs.", {"k": REQUIRED}),

    # the clock
    Op("add_cycles", "", nothing, None, given, "Adds simulated cycles; computes nothing.", {"cycles": REQUIRED}),
)

OPS: dict[str, Op] = {op.name: op for op in TABLE}

ALIASES = {"max": "maximum", "min": "minimum"}
INTERNAL = frozenset({"param", "scalar_param", "add_cycles"})       # made by the tracer, not callable as pto.*
