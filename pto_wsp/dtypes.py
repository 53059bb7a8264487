"""The words for what is in tiles and arguments: DType, Location, TileType, ScalarType, Symbol."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cache, cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pto_wsp.arguments import as_int

__all__ = ["DType", "Location", "ScalarType", "Symbol", "TileType"]


class DType(Enum):
    """Type of one element."""

    F16 = "f16"
    BF16 = "bf16"
    F32 = "f32"
    F64 = "f64"
    I8 = "i8"
    I16 = "i16"
    I32 = "i32"
    I64 = "i64"
    U8 = "u8"
    U16 = "u16"
    U32 = "u32"
    U64 = "u64"

    @property
    def numpy(self) -> np.dtype[Any]:
        """The numpy dtype, in the machine's byte order. Asking for bf16's imports ml_dtypes."""
        return _numpy_dtype(self)

    @staticmethod
    def from_numpy(dtype: npt.DTypeLike) -> DType:
        """The DType of a numpy dtype. TypeError when there is none."""
        found = _BY_NAME.get(np.dtype(dtype).name)
        if found is None or np.dtype(dtype) != found.numpy:
            raise TypeError(
                f"numpy dtype {np.dtype(dtype)!r} is no DType; known are {', '.join(d.value for d in DType)}"
            )
        return found

    @cached_property
    def bits(self) -> int:
        """Bits of one element."""
        return int(self.value.lstrip("fbiu"))

    @cached_property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self.bits // 8

    @cached_property
    def is_float(self) -> bool:
        """f16, bf16, f32 or f64?"""
        return "f" in self.value

    @cached_property
    def is_int(self) -> bool:
        """An integer, signed or unsigned?"""
        return not self.is_float

    @cached_property
    def is_signed(self) -> bool:
        """Can it hold negative numbers? True for floats."""
        return not self.value.startswith("u")

    __hash__ = object.__hash__  # that of Enum hashes the name each time, and compilers look things up by dtype

    def __str__(self) -> str:
        return str(self.value)


_NUMPY_NAMES = {
    DType.F16: "float16",
    DType.BF16: "bfloat16",
    DType.F32: "float32",
    DType.F64: "float64",
    **{d: d.value.replace("i", "int").replace("u", "uint") for d in DType if d.is_int},
}
_BY_NAME = {name: dtype for dtype, name in _NUMPY_NAMES.items()}


@cache
def _numpy_dtype(dtype: DType) -> np.dtype[Any]:
    if dtype is DType.BF16:
        import ml_dtypes

        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    return np.dtype(_NUMPY_NAMES[dtype])


class Location(Enum):
    """Where data lives: global memory, the L2 cache, a vector core's unified buffer, or a cube core's L1."""

    Global = "global"
    L2 = "l2"
    UB = "ub"
    L1 = "l1"


@dataclass(frozen=True)
class TileType:
    """Type of an on-chip tile. The dimensions are positive; a str stands for one that is not known yet."""

    rows: int
    cols: int
    dtype: DType = DType.F16
    location: Location = Location.UB

    def __post_init__(self) -> None:
        for name in ("rows", "cols"):
            object.__setattr__(self, name, _tile_dimension(name, getattr(self, name)))
        _check_dtype(self.dtype)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.rows, self.cols

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.rows * self.cols

    def __str__(self) -> str:
        return f"tile<{self.rows}x{self.cols}x{self.dtype}>"


@dataclass(frozen=True)
class ScalarType:
    """Type of one number inside a kernel."""

    dtype: DType

    def __post_init__(self) -> None:
        _check_dtype(self.dtype)

    def __str__(self) -> str:
        return self.dtype.value


def _tile_dimension(name: str, value: Any) -> Any:
    if isinstance(value, str) and value:
        return value
    number = as_int(value)
    if number is None:
        raise TypeError(f"{name} of a tile is an int; got {value!r}")
    if number < 1:
        raise ValueError(f"{name} of a tile is at least 1; got {number}")
    return number


def _check_dtype(dtype: Any) -> None:
    if not isinstance(dtype, DType):
        raise TypeError(f"dtype is a DType, such as DType.F32; got {dtype!r}")


@dataclass(frozen=True, repr=False)
class Symbol:
    """The value of a scalar kernel argument, looked up by name when the program runs."""

    sym: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "sym", str(self.sym))

    def __repr__(self) -> str:
        return f"Symbol({self.sym!r})"
