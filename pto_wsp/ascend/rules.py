"""How the device spells each op: one rule per row of the op table.

A rule is data where it can be: the AscendC call, the dtypes that 2201 implements it for, the temporary it needs. Ops
the hardware lacks are composed from others over the algebra `k` (`writer.Writer`), or refused with a reason. Element
types that a call does not take are converted on the way in and back on the way out (`dtypes.compute_dtype`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Union

from pto_wsp.types import DType

F16, F32, I16, I32 = DType.F16, DType.F32, DType.I16, DType.I32
ARITHMETIC = (F16, F32, I16, I32)  # of Add, Sub, Mul, Max, Min and their scalar forms
FLOAT = (F16, F32)


@dataclass(frozen=True)
class Memory:
    """Parameters, loads, stores, constants: the emitter moves or names them."""


@dataclass(frozen=True)
class Nothing:
    """Computes nothing."""


@dataclass(frozen=True)
class Binary:
    """dst = call(x, y), rows, columns and scalars repeated as NumPy does.

    with_scalar   the call for a scalar second operand, if there is one
    """

    call: str
    with_scalar: str | None
    dtypes: tuple[DType, ...]
    commutes: bool = True


@dataclass(frozen=True)
class Unary:
    """dst = call(x, count)"""

    call: str
    dtypes: tuple[DType, ...] = FLOAT


@dataclass(frozen=True)
class Library:
    """A function of the high-level API: dst = call(x, temporary, count); not in place.

    scratch       bytes of temporary per element of 2 and of 4 bytes, and the smallest temporary of each
    """

    call: str
    scratch: tuple[int, int] = (0, 0)
    least: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Rounding:
    """Cast of a float to itself under a rounding mode; only float has it."""

    mode: str


@dataclass(frozen=True)
class Compose:
    """Made of other calls: (k, *operands) -> result."""

    body: Callable[..., Any]
    dtypes: tuple[DType, ...] = FLOAT


@dataclass(frozen=True)
class Convert:
    """Cast, by the ways of `conversions.py`."""


@dataclass(frozen=True)
class Compare:
    mode: str  # of CMPMODE


@dataclass(frozen=True)
class Select:
    """Choice by a mask."""


@dataclass(frozen=True)
class RowReduce:
    """One value per row."""

    kind: str  # "Sum", "Max", "Min"
    mean: bool = False


@dataclass(frozen=True)
class ColReduce:
    """One value per column."""

    kind: str
    mean: bool = False


@dataclass(frozen=True)
class Shaping:
    """Moves elements without computing: `shaping.SHAPING` has a function for the op."""


@dataclass(frozen=True)
class Cube:
    """Runs on the cube core."""


Rule = Union[  # noqa: UP007 - 3.10 evaluates it
    Memory,
    Nothing,
    Binary,
    Unary,
    Library,
    Rounding,
    Compose,
    Convert,
    Compare,
    Select,
    RowReduce,
    ColReduce,
    Shaping,
    Cube,
]

_ADD = Binary("Add", "Adds", ARITHMETIC)
_MUL = Binary("Mul", "Muls", ARITHMETIC)

RULES: dict[str, Rule] = {
    "param": Memory(),
    "scalar_param": Memory(),
    "load": Memory(),
    "store": Memory(),
    "constant": Memory(),
    "alloc": Shaping(),
    "add_cycles": Nothing(),
    "add": _ADD,
    "sub": Binary("Sub", None, ARITHMETIC, commutes=False),
    "mul": _MUL,
    "div": Binary("Div", None, FLOAT, commutes=False),
    "maximum": Binary("Max", "Maxs", ARITHMETIC),
    "minimum": Binary("Min", "Mins", ARITHMETIC),
    "fma": Compose(lambda k, x, y, z: k.binary(_ADD, k.binary(_MUL, x, y), z), (F32,)),
    "lt": Compare("LT"),
    "le": Compare("LE"),
    "gt": Compare("GT"),
    "ge": Compare("GE"),
    "eq": Compare("EQ"),
    "ne": Compare("NE"),
    "select": Select(),
    "neg": Compose(lambda k, x: k.by_scalar("Muls", x, -1), ARITHMETIC),
    "abs": Compose(
        lambda k, x: (
            k.unary("Abs", x)
            if x.dtype.is_float
            else k.binary(RULES["maximum"], x, k.by_scalar("Muls", x, -1))
        ),
        ARITHMETIC,
    ),
    "sqrt": Unary("Sqrt"),
    "rsqrt": Compose(lambda k, x: k.over(1, k.unary("Sqrt", x))),
    "reciprocal": Compose(lambda k, x: k.over(1, x)),
    "exp": Unary("Exp"),
    "log": Unary("Ln"),
    "sin": Library("Sin", (16, 12), (2048, 768)),
    "cos": Library("Cos", (16, 12), (2048, 768)),
    "tanh": Library("Tanh", (8, 4), (1024, 256)),
    "erf": Library("Erf", (16, 12), (2048, 768)),
    "sigmoid": Library("Sigmoid", (2, 4), (256, 256)),
    "gelu": Library("Gelu", (12, 12), (768, 768)),
    "silu": Library("Silu"),
    "relu": Compose(
        lambda k, x: k.by_scalar("Maxs", x, 0) if x.dtype is I16 else k.unary("Relu", x), ARITHMETIC
    ),
    "floor": Rounding("FLOOR"),
    "ceil": Rounding("CEIL"),
    "round": Rounding("RINT"),
    "cast": Convert(),
    "rowsum": RowReduce("Sum"),
    "rowmax": RowReduce("Max"),
    "rowmin": RowReduce("Min"),
    "rowmean": RowReduce("Sum", mean=True),
    "colsum": ColReduce("Sum"),
    "colmax": ColReduce("Max"),
    "colmin": ColReduce("Min"),
    "colmean": ColReduce("Sum", mean=True),
    "rowmul": _MUL,
    "rowadd": _ADD,
    "colmul": _MUL,
    "coladd": _ADD,
    "broadcast": Shaping(),
    "slice_even": Shaping(),
    "slice_odd": Shaping(),
    "interleave": Shaping(),
    "transpose": Shaping(),
    "iota_u32": Shaping(),
    "tsort32": Shaping(),
    "extract_topk_indices": Shaping(),
    "matmul": Cube(),
}
