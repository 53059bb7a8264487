"""What an emitted kernel is made of before it is text: buffers on chip, and steps that read and write them in order.

Rules append steps (`writer.py`, `cube.py`); placement gives every buffer an address (`placement.py`); sync says which
barriers and events the order of steps needs (`sync.py`); `vector_kernel.py` writes it all down.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pto_wsp.ascend.dtypes import C_TYPES
from pto_wsp.trace.graph import Node
from pto_wsp.types import DType

BLOCK = 32  # bytes: every address in UB, every row of a tile
REPEAT = 256  # bytes that one repeat of a vector instruction covers


def ceil_to(n: int, unit: int) -> int:
    return -(-n // unit) * unit


def ceil_div(extent: str, by: int) -> str:
    """How many pieces of `by` elements cover an extent, both C++ expressions."""
    return str(-(-int(extent) // by)) if extent.isdigit() else f"({extent} + {by - 1}) / {by}"


@dataclass(eq=False)
class Buffer:
    """A range of on-chip memory under one name.

    kind   "in"    arrives from GM through a VECIN queue, once per strip
           "once"  the same, once per task
           "out"   leaves for GM through a VECOUT queue
           "temp"  lives in the arena
    """

    hint: str  # what its name should be like
    dtype: DType
    kind: str
    bytes_for: Callable[[int], int]  # size for a strip of so many rows
    shape: str  # for the table: "16x128 f32"
    inherits: Buffer | None = None  # the last reader of that buffer makes this one, in place
    small: bool = False  # elements of 4 bytes known to be from 0 up to 2**31: the same number signed and unsigned
    # set by placement
    bytes: int = 0
    offset: int = 0
    first: int = -1  # positions of the first and last step that touch it
    last: int = -1
    home: str = "UB"

    @property
    def name(self) -> str:
        """Stands for the identifier in steps until names are given out (`named`)."""
        return f"@{id(self)}@"

    def __repr__(self) -> str:
        return f"<{self.kind} {self.hint}>"


def named(text: str, names: Mapping[int, str]) -> str:
    """`text` with identifiers in place of buffers; names are by id of the buffer."""
    return re.sub(r"@(\d+)@", lambda found: names[int(found[1])], text)


@dataclass(eq=False)
class Step:
    """One or a few instructions of one pipe, as C++ lines. Loops inside order themselves."""

    pipe: str  # "V" or "S"
    lines: list[str]
    reads: tuple[Buffer, ...]
    writes: tuple[Buffer, ...]
    in_place: bool = False  # may the result lie where an operand lay?
    node: Node | None = None  # the op it belongs to


@dataclass(frozen=True)
class Shape:
    """Valid and largest extents of a tile in UB and its row pitch. A single column is packed: pitch 1.

    rows, cols    C++ expressions of the valid extents
    most_rows     static rows; None: those of a strip
    """

    rows: str
    cols: str
    most_rows: int | None
    most_cols: int
    pitch: int

    def elements(self, strip: int) -> int:
        """Elements from the first of the tile to the last, padding of rows included."""
        return (strip if self.most_rows is None else self.most_rows) * self.pitch

    @property
    def single_row(self) -> bool:
        return self.most_rows == 1

    @property
    def packed(self) -> bool:
        return self.pitch == 1

    @property
    def single(self) -> bool:
        """One element, whatever the valid extents."""
        return self.most_rows == self.most_cols == 1

    @property
    def column(self) -> Shape:
        """One packed column of as many rows."""
        return Shape(self.rows, "1", self.most_rows, 1, 1)

    def covers(self, other: Shape) -> bool:
        """Are the largest extents the same?"""
        return (self.most_rows, self.most_cols) == (other.most_rows, other.most_cols)

    def text(self, dtype: DType) -> str:
        return f"{'strip' if self.most_rows is None else self.most_rows}x{self.most_cols} {dtype}"


@dataclass(frozen=True)
class Value:
    """A tile in UB: a buffer seen as elements of `dtype`."""

    buffer: Buffer
    dtype: DType
    shape: Shape
    once: bool  # the same for every strip

    @property
    def text(self) -> str:
        if C_TYPES[self.dtype] == C_TYPES[self.buffer.dtype]:
            return self.buffer.name
        return f"{self.buffer.name}.ReinterpretCast<{C_TYPES[self.dtype]}>()"

    def at(self, offset: str) -> str:
        """The tile from an element offset on."""
        return self.text if offset in ("", "0") else f"{self.text}[{offset}]"


@dataclass(frozen=True)
class Bits:
    """A comparison's result: one bit per element, low bit first, rows as in the tile that was compared."""

    buffer: Buffer
    shape: Shape
    once: bool


@dataclass(frozen=True)
class Scalar:
    """A number known to the scalar unit: a C++ expression. F16 and BF16 are held as float."""

    text: str
    dtype: DType


@dataclass
class Phase:
    """Steps of one vector core: some once per task, the others once per strip."""

    before: list[Step] = field(default_factory=list)
    body: list[Step] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
