"""Kernels of many kinds: narrow types, casts, reductions, odd shapes, beside the same numba loops and NumPy.

A kernel is a line of TABLE, whose expressions are read three times: as tile operations, as the inside of a numba
fastmath loop, and as NumPy. 32 tiles of each lie in the cache; machine code calls the first two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.harness import Case, again, main, numba_loop, on_tiles
from benchmarks.vector import GOALS, TILES, aligned
from pto_wsp import DType, In, Out, Tile, kernel, pto

DTYPES = {dtype.value: dtype for dtype in DType}
HALVES = ("f16", "bf16")            # not known to numba


@dataclass(frozen=True)
class Line:
    """One kernel. In its expressions x, y and z are elements of the operands, s is what the reduction found in the
    element's row or column, and i8(...) converts."""

    shape: str                      # of a tile: "16x256"
    operands: str                   # element types of x, y, z; of f32/row there is one row, of f32/column one column
    result: str                     # element type
    expression: str = "s"           # of each element of the result; "s" alone has one element a row or column
    reduction: str = ""             # "rowmax f32 abs(x)": operation, element type, what is reduced
    turned: bool = False            # x is a transposed view

    @property
    def name(self) -> str:
        kept = "" if self.expression == "s" else self.expression
        parts = [part for part in (self.reduction, kept, "of a transposed view" * self.turned) if part]
        return f"{self.shape} {self.operands} to {self.result}: {', '.join(parts)}"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple("xyz"[: len(self.operands.split())])

    def operand(self, number: int) -> tuple[DType, int, int, int]:
        """Element type, tiles, rows and columns; -1 is the result."""
        rows, cols = map(int, self.shape.split("x"))
        dtype, _, one = self.operands.split()[number].partition("/") if number >= 0 else (self.result, "", "")
        if number < 0 and self.expression == "s":
            one = "column" if self.reduction.startswith("row") else "row"
        tiles = 1 if one == "row" and number >= 0 else TILES
        return DTYPES[dtype], tiles, 1 if one == "row" else rows, 1 if one == "column" else cols


def arrays(line: Line) -> list[Any]:
    """[tiles, rows, cols] for the operands and the result."""
    rng, found = np.random.default_rng(0), []
    for number in (*range(len(line.names)), -1):
        dtype, tiles, rows, cols = line.operand(number)
        turned = line.turned and number == 0
        values = rng.standard_normal((tiles, cols, rows) if turned else (tiles, rows, cols))
        if dtype.is_int:
            values = values * 20 if dtype.is_signed else abs(values) * 20
        array = aligned(values.astype(dtype.numpy))
        found.append(array.transpose(0, 2, 1) if turned else array)
    return found


# ---- three readings ------------------------------------------------------------------------------------------------


def defined(name: str, text: list[str], words: dict[str, Any]) -> Any:
    """The function of that name in a program text."""
    exec("\n".join(text), words)
    return words[name]


def unless_number(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A number adopts the dtype of what it meets."""
    return lambda x: x if isinstance(x, (int, float)) else convert(x)


def as_kernel(line: Line) -> Any:
    words: dict[str, Any] = {name: unless_number(lambda x, d=d: pto.cast(x, d)) for name, d in DTYPES.items()}
    words |= {name: getattr(pto, name) for name in ("maximum", "minimum", "select", "abs", "round")} | {"pto": pto}
    reduction, _, inner = [*line.reduction.split(" ", 2), "", ""][:3]
    text = [f"def unseen({', '.join(line.names)}, out):"]
    text += [f"    s = pto.{reduction}({inner})"] * bool(reduction)
    function = defined("unseen", [*text, f"    pto.store(out, {line.expression})"], words)
    for direction, name, number in [*((In, n, i) for i, n in enumerate(line.names)), (Out, "out", -1)]:
        dtype, _, rows, cols = line.operand(number)
        function.__annotations__[name] = direction[Tile[rows, cols, dtype]]
    return kernel(function)


def as_numpy(line: Line) -> Any:
    words: dict[str, Any] = {name: unless_number(lambda x, d=d: x.astype(d.numpy, copy=False))
                             for name, d in DTYPES.items()}
    words |= {"maximum": np.maximum, "minimum": np.minimum, "select": np.where, "abs": np.abs, "round": np.rint,
              "np": np}
    text = [f"def unseen({', '.join(line.names)}):"]
    if line.reduction:
        reduction, dtype, inner = line.reduction.split(" ", 2)
        same = ", dtype=values.dtype" if reduction.endswith("sum") else ""
        axis = 2 if reduction.startswith("row") else 1
        text += [f"    values = {inner}", f"    s = values.{reduction[3:]}(axis={axis}, keepdims=True{same})"]
    return defined("unseen", [*text, f"    return np.ascontiguousarray({line.result}({line.expression}))"], words)


def as_loop(line: Line) -> Any:
    """The loop that a person would write."""
    import numba
    words: dict[str, Any] = {name: d.numpy.type for name, d in DTYPES.items() if name not in HALVES} | {"np": np}
    for name, function in {"maximum": lambda x, y: x if x > y else y, "minimum": lambda x, y: x if x < y else y,
                           "abs": lambda x: -x if x < 0 else x, "select": lambda mask, x, y: x if mask else y,
                           "round": lambda x: np.rint(x)}.items():
        words[name] = numba.njit(fastmath=True)(function)
    reads = []
    for number, name in enumerate(line.names):
        at = [index if extent > 1 else "0" for index, extent in zip("trc", line.operand(number)[1:])]
        reads.append(f"{name} = {name}_[{', '.join(at)}]")
    element = "; ".join(reads)
    rows, cols = "for r in range(x_.shape[1]):", "for c in range(x_.shape[2]):"
    text = [f"def unseen({', '.join(n + '_' for n in line.names)}, out):", "  for t in range(x_.shape[0]):"]
    reduction, dtype, inner = line.reduction.split(" ", 2) if line.reduction else ("", "", "")
    if reduction:
        start, step = folding(reduction[3:], dtype, inner)
    if reduction[:3] == "col":
        text += [f"    {cols}", f"      out[t, 0, c] = {start}", f"    {rows}", f"      {cols}",
                 f"        s = out[t, 0, c]; {element}", f"        out[t, 0, c] = {step}"]
        text += [f"    {cols}", f"      out[t, 0, c] /= {dtype}(x_.shape[1])"] * reduction.endswith("mean")
        return defined("unseen", text, words)
    text += [f"    {rows}"]
    if reduction:
        text += [f"      s = {start}", f"      {cols}", f"        {element}", f"        s = {step}"]
        text += [f"      s /= {dtype}(x_.shape[2])"] * reduction.endswith("mean")
    if line.expression == "s":
        text += ["      out[t, r, 0] = s"]
    else:
        text += [f"      {cols}", f"        {element}", f"        out[t, r, c] = {line.result}({line.expression})"]
    return defined("unseen", text, words)


def folding(how: str, dtype: str, inner: str) -> tuple[str, str]:
    """Start and step of a reduction of `inner`, as text; s is what was found so far."""
    if how in ("sum", "mean"):
        return f"{dtype}(0)", f"{dtype}(s + {inner})"
    limits = np.finfo(DTYPES[dtype].numpy) if DTYPES[dtype].is_float else np.iinfo(DTYPES[dtype].numpy)
    return f"{dtype}({limits.min if how == 'max' else limits.max})", f"{how}imum(s, {dtype}({inner}))"


# ---- kernels -------------------------------------------------------------------------------------------------------

TABLE = [
    # integers, element by element
    Line("16x256", "i8 i8", "i8", "maximum(i8(x + y), x)"),
    Line("16x256", "u8 u8", "u8", "u8(maximum(x, y) - minimum(x, y))"),
    Line("16x256", "i16 i16", "i16", "i16(minimum(maximum(i32(x) + i32(y), i32(-32768)), i32(32767)))"),
    Line("33x100", "i16 i16", "i16", "i16(x * y)"),
    Line("7x129", "i32 i32", "i32", "i32(x * i32(3) + y)"),
    Line("8x1000", "i64 i64", "i64", "maximum(x, y)"),
    Line("128x5", "i8 i8", "i8", "i8(x + y)"),
    Line("5x33", "u8", "u8", "select(x > u8(20), x, u8(0))"),
    # floats, element by element
    Line("1x64", "f32 f32", "f32", "x * f32(2) + y"),
    Line("1x1000", "f32 f32", "f32", "x * f32(2) + y"),
    Line("16x256", "f32 f32", "f32", "select(x > y, x, y * f32(0.5))"),
    Line("16x256", "f32", "f32", "(((x * f32(0.1) + f32(0.2)) * x + f32(0.3)) * x + f32(0.4)) * x + f32(0.5)"),
    Line("64x33", "f32 f32/row f32/column", "f32", "(x + y) * z"),
    Line("16x256", "f64 f64/column", "f64", "x * y"),
    Line("64x64", "f32", "f32", "x * f32(2)", turned=True),
    Line("64x64", "i8", "i8", "i8(x + i8(1))", turned=True),
    # casts
    Line("16x256", "f32", "i32", "i32(x)"),
    Line("16x256", "f32", "i8", "i8(x)"),
    Line("16x256", "f32", "u8", "u8(round(minimum(maximum(x * f32(16), f32(0)), f32(255))))"),
    Line("16x256", "u8", "f32", "f32(x) * f32(0.5)"),
    Line("16x256", "i32", "i8", "i8(x)"),
    Line("16x256", "f64", "f32", "f32(x)"),
    Line("16x256", "i64", "f64", "f64(x)"),
    Line("16x256", "f32", "u32", "u32(abs(x))"),
    # rows
    Line("16x256", "i8", "i8", reduction="rowmax i8 x"),
    Line("16x256", "i8", "i32", reduction="rowsum i32 i32(x)"),
    Line("16x256", "i16", "i16", reduction="rowmin i16 x"),
    Line("16x129", "i32", "i32", reduction="rowmax i32 x"),
    Line("64x64", "f32", "f32", reduction="rowsum f32 x"),
    Line("1x2048", "f32 f32", "f32", reduction="rowsum f32 x * y"),
    Line("33x100", "f32", "f32", reduction="rowmax f32 x"),
    Line("200x8", "f32", "f32", reduction="rowsum f32 x"),
    # columns
    Line("64x256", "i8", "i8", reduction="colmax i8 x"),
    Line("64x129", "f32", "f32", reduction="colsum f32 x"),
    Line("1000x7", "f32", "f32", reduction="colsum f32 x"),
    Line("64x64", "f64", "f64", reduction="colmean f64 x"),
    Line("64x1000", "f32", "f32", reduction="colsum f32 x"),
    # rows, then elements
    Line("16x256", "f32", "i8", "i8(round(x * (f32(127) / s)))", "rowmax f32 abs(x)"),
    Line("16x256", "i32 f32/column", "i8", "i8(round(minimum(maximum(f32(x) * y, f32(-128)), f32(127))))"),
    Line("16x256", "i16", "i16", "i16(x - s)", "rowmax i16 x"),
    Line("16x256", "f32", "u8", "u8(x == s)", "rowmax f32 x"),
    Line("64x33", "f64", "f64", "x / s", "rowsum f64 x"),
    # halves
    Line("16x256", "f16", "f16", "x * f16(2)"),
    Line("16x256", "bf16 bf16", "bf16", "x + y"),
    Line("16x256", "f16", "f16", "abs(x)"),
    Line("16x256", "bf16", "bf16", "-x"),
    Line("16x256", "f32", "bf16", "bf16(x)"),
    Line("16x256", "i32", "f16", "f16(x)"),
    Line("16x256", "bf16", "f32", reduction="rowmax f32 x"),
]


def case(line: Line) -> Case:
    operands, numpy = arrays(line), as_numpy(line)
    sides = {"pto_wsp": on_tiles(as_kernel(line), *operands), "numpy": again(lambda: numpy(*operands[:-1]))}
    if not any(half in (line.operands + line.result) for half in HALVES):
        sides["numba"] = numba_loop(as_loop(line), *operands)
    return Case(line.name, sides, GOALS, sum(a.nbytes for a in operands), seconds=0.04)


def cases() -> Iterator[Case]:
    yield from map(case, TABLE)


if __name__ == "__main__":
    main(cases)
