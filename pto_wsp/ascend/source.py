"""The file of an emitted kernel: its parameters, what may stand in it, header and entry.

In: the parameters of a graph, and the `Parts` that a kind of kernel contributes (vector_kernel.py, mix_kernel.py).
Out: text of the calling convention in aicore.py.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pto_wsp.ascend import cube, placement
from pto_wsp.ascend.dtypes import C_TYPES, REFUSED
from pto_wsp.ascend.lines import signature
from pto_wsp.ascend.names import RESERVED, RESERVED_OUTSIDE, Names, comment, identifier, place_of
from pto_wsp.ascend.placement import Row
from pto_wsp.errors import CompileError
from pto_wsp.trace.extents import Extents, extents_of
from pto_wsp.trace.graph import KernelGraph, Node
from pto_wsp.types import DType, ScalarType, TileType

__all__ = ["GM_TILE", "HELPERS", "KERNEL_TYPES", "Extent", "KernelSource", "Parts", "SourceParam", "entry_of",
           "header_of", "params_of"]  # fmt: skip

KERNEL_TYPES = {
    "AIV": "KERNEL_TYPE_AIV_ONLY",
    "AIC": "KERNEL_TYPE_AIC_ONLY",
    "MIX": "KERNEL_TYPE_MIX_AIC_1_2",
}

GM_TILE = """\
#ifndef PTO_WSP_GM_TILE
#define PTO_WSP_GM_TILE
// A tile in global memory. Element (r, c) lies r * rowStride + c * colStride
// elements after addr.
struct GmTile {
  GM_ADDR addr;
  int64_t rowStride, colStride;
  uint32_t rows, cols;  // that hold data in this task
};
#endif
"""

HELPERS = {
    "Least": """\
__aicore__ inline uint32_t Least(uint32_t a, uint32_t b) {
  return a < b ? a : b;
}
""",
    "CeilTo": """\
__aicore__ inline uint32_t CeilTo(uint32_t n, uint32_t unit) {
  return (n + unit - 1) / unit * unit;
}
""",
    "FromBits": """\
// A float from its bits: infinities and NaN have no literals.
__aicore__ inline float FromBits(uint32_t bits) {
  union {
    uint32_t bits;
    float value;
  } both = {bits};
  return both.value;
}
""",
    "Order": """\
// The second pipe of E waits for what the first has been given so far.
template <HardEvent E>
__aicore__ inline void Order(TPipe *pipe) {
  const TEventID id = static_cast<TEventID>(pipe->FetchEventID(E));
  SetFlag<E>(id);
  WaitFlag<E>(id);
}
""",
    "LoadRows": """\
// Rows [first, first + rows) of a tile to UB, `pitch` elements apart there.
template <typename T>
__aicore__ inline void LoadRows(const LocalTensor<T> &ub, const GmTile &gm,
                                uint32_t first, uint32_t rows,
                                uint32_t pitch) {
  if (rows == 0 || gm.cols == 0) {
    return;
  }
  GlobalTensor<T> from;
  from.SetGlobalBuffer(
      (__gm__ T *)gm.addr + first * gm.rowStride,
      static_cast<uint64_t>((rows - 1) * gm.rowStride + gm.cols));
  if (gm.cols == pitch && (rows == 1 || gm.rowStride == pitch)) {
    DataCopy(ub, from, rows * pitch);  // whole blocks, one after another
    return;
  }
  const int64_t between = rows == 1 ? 0 : gm.rowStride - gm.cols;
  const uint32_t bytes = static_cast<uint32_t>(gm.cols * sizeof(T));
  const uint32_t pad = static_cast<uint32_t>(pitch * sizeof(T) - bytes);
  DataCopyPad(ub, from,
              DataCopyExtParams{static_cast<uint16_t>(rows), bytes,
                                static_cast<uint32_t>(between * sizeof(T)),
                                pad / 32, 0},
              DataCopyPadExtParams<T>{});
}
""",
    "StoreRows": """\
// `rows` rows in UB, `pitch` elements apart, to a tile from row `first` on.
template <typename T>
__aicore__ inline void StoreRows(const GmTile &gm, const LocalTensor<T> &ub,
                                 uint32_t first, uint32_t rows,
                                 uint32_t pitch) {
  if (rows == 0 || gm.cols == 0) {
    return;
  }
  GlobalTensor<T> to;
  to.SetGlobalBuffer(
      (__gm__ T *)gm.addr + first * gm.rowStride,
      static_cast<uint64_t>((rows - 1) * gm.rowStride + gm.cols));
  if (gm.cols == pitch && (rows == 1 || gm.rowStride == pitch)) {
    DataCopy(to, ub, rows * pitch);  // whole blocks, one after another
    return;
  }
  const int64_t between = rows == 1 ? 0 : gm.rowStride - gm.cols;
  const uint32_t bytes = static_cast<uint32_t>(gm.cols * sizeof(T));
  const uint32_t pad = static_cast<uint32_t>(pitch * sizeof(T) - bytes);
  DataCopyPad(to, ub,
              DataCopyExtParams{static_cast<uint16_t>(rows), bytes, pad / 32,
                                static_cast<uint32_t>(between * sizeof(T)),
                                0});
}
""",
    "LoadColumn": """\
// Elements [first, first + rows) of a tile of one column, packed in UB.
template <typename T>
__aicore__ inline void LoadColumn(const LocalTensor<T> &ub, const GmTile &gm,
                                  uint32_t first, uint32_t rows) {
  if (rows == 0) {
    return;
  }
  GlobalTensor<T> from;
  from.SetGlobalBuffer((__gm__ T *)gm.addr + first, rows);
  DataCopyPad(ub, from,
              DataCopyExtParams{1, static_cast<uint32_t>(rows * sizeof(T)), 0,
                                0, 0},
              DataCopyPadExtParams<T>{});
}
""",
    "StoreColumn": """\
// A packed column in UB to a tile of one column from element `first` on.
template <typename T>
__aicore__ inline void StoreColumn(const GmTile &gm, const LocalTensor<T> &ub,
                                   uint32_t first, uint32_t rows) {
  if (rows == 0) {
    return;
  }
  GlobalTensor<T> to;
  to.SetGlobalBuffer((__gm__ T *)gm.addr + first, rows);
  DataCopyPad(to, ub,
              DataCopyExtParams{1, static_cast<uint32_t>(rows * sizeof(T)), 0,
                                0, 0});
}
""",
    **cube.HELPERS,
}


@dataclass(frozen=True)
class SourceParam:
    """One parameter of an emitted kernel."""

    name: str  # as the user wrote it
    identifier: str  # as it is called in the source
    direction: str  # "in", "out", "inout"
    dtype: DType
    c_type: str  # of a scalar argument, or of a tile's elements
    rows: int | None  # static extents of a tile; None for a scalar
    cols: int | None
    apart: bool = False  # the elements of a vector need not lie next to each other

    @property
    def is_tile(self) -> bool:
        return self.rows is not None


@dataclass(frozen=True)
class KernelSource:
    """An emitted kernel; the docstring of aicore.py says how it is called."""

    name: str  # C identifier, also the namespace pto_<name>
    header: str  # Run and what it needs
    text: str  # header and entry: a whole translation unit
    entry: str  # name of the entry function
    params: tuple[SourceParam, ...]  # in signature order; in the source, tiles come first
    core: str  # "AIV", "AIC" or "MIX"
    kernel_type: str  # argument of KERNEL_TASK_TYPE_DEFAULT
    workspace_bytes: int
    placement: str  # printed buffer table
    rows: tuple[Row, ...] = ()  # the same as data
    files: tuple[tuple[str, str], ...] = ()  # more of the tree that the header includes: path, text


def params_of(graph: KernelGraph, apart: Collection[str] = ()) -> dict[int, SourceParam]:
    """The parameters of an emitted kernel, by id of their nodes."""
    names = Names(RESERVED_OUTSIDE)
    found: dict[int, SourceParam] = {}
    for param in graph.params:
        kind = param.type
        if isinstance(kind, ScalarType) and kind.dtype is DType.F64:
            raise CompileError(
                f"kernel {graph.name}: parameter {param.name} is f64: {REFUSED[DType.F64]}. Use DType.F32."
            )
        c_type = C_TYPES[kind.dtype]
        if isinstance(kind, ScalarType) and kind.dtype.is_float:
            c_type = "float"
        rows, cols = (kind.rows, kind.cols) if isinstance(kind, TileType) else (None, None)
        if param.is_tile:
            called = names.new(param.name, "_gm", "_rows", "_cols", "_row_stride", "_col_stride")
        else:
            called = names.new(param.name if identifier(param.name) not in RESERVED else param.name + "_value")
        scattered = param.name in apart and rows is not None and (rows == 1) != (cols == 1)
        if scattered and kind.dtype.itemsize not in (2, 4):
            raise CompileError(
                f"kernel {graph.name}: the elements of {param.name} ({kind}) do not lie next to each other, "
                "and 2201 gathers elements of 2 and 4 bytes only. Copy them into an array of their own."
            )
        found[id(param.node)] = SourceParam(
            param.name, called, param.direction, kind.dtype, c_type, rows, cols, scattered
        )
    return found


class Extent:
    """Valid extents as C++ expressions over the parameters of Run."""

    def __init__(self, graph: KernelGraph, params: dict[int, SourceParam]) -> None:
        self.extents: Extents = extents_of(graph)
        self.tiles = [params[id(p.node)] for p in graph.tile_params]

    def text(self, node: Node, axis: int) -> str:
        extent = self.extents.of(node, axis)
        if extent.static == 1 or not extent.sources:
            return str(extent.static)
        source = extent.sources[0]
        text = f"{self.tiles[source.param].identifier}_gm.{'cols' if source.axis else 'rows'}"
        if source.den > 1:
            text += f" / {source.den}"
        return text + (f" * {source.num}" if source.num > 1 else "")


@dataclass
class Parts:
    """What a kind of kernel contributes to the file."""

    helpers: list[str]
    functions: list[str]  # texts of functions that Run calls
    run: list[str]  # body of Run
    rows: Sequence[Row]  # of the buffer table
    core: str = "AIV"
    workspace_bytes: int = 0

    @property
    def table(self) -> str:
        return placement.table(self.rows)


def header_of(name: str, title: str, graph: KernelGraph, params: dict[int, SourceParam], parts: Parts) -> str:
    guard = f"PTO_WSP_KERNEL_{name.upper()}_H_"
    first = next((n.line for n in graph.nodes if n.line is not None), None)
    lines = [
        f"// Kernel {comment(title)}{', ' + place_of(first).rsplit(':', 1)[0] if first else ''}. Written by pto_wsp.",
        "//",
    ]
    for p in params.values():
        kind = f"{p.direction} tile {p.rows}x{p.cols} {p.dtype}" if p.is_tile else f"scalar {p.dtype}"
        lines.append(f"//   {p.identifier}: {kind}")
    lines += ["//", *(f"// {line}".rstrip() for line in parts.table.splitlines())]
    arguments = ["TPipe *pipe", *(f"const GmTile &{p.identifier}_gm" for p in params.values() if p.is_tile)]
    arguments += [f"{p.c_type} {p.identifier}" for p in params.values() if not p.is_tile]
    body = "\n".join(parts.run)
    arguments = [
        a if re.search(rf"\b{a.split()[-1].lstrip('*&')}\b", body) else f"[[maybe_unused]] {a}"
        for a in arguments
    ]
    out = [
        *lines,
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        '#include "kernel_operator.h"',
        "",
        GM_TILE,
        f"namespace pto_{name} {{",
        "",
        "using namespace AscendC;",
        "",
    ]
    for helper in HELPERS:
        if helper in parts.helpers:
            out.append(HELPERS[helper])
    out += parts.functions
    if parts.workspace_bytes:
        arguments.append("GM_ADDR workspace")
    out += [
        signature("__aicore__ inline void Run(", arguments, ") {"),
        *(f"  {line}".rstrip() for line in parts.run),
        "}",
        "",
        f"}}  // namespace pto_{name}",
        "",
        f"#endif  // {guard}",
    ]
    return "\n".join(out) + "\n"


def entry_of(name: str, params: dict[int, SourceParam], kernel_type: str, workspace: bool) -> str:
    arguments, calls = [], ["&pipe"]
    for p in params.values():
        if p.is_tile:
            i = p.identifier
            arguments += [
                f"GM_ADDR {i}",
                f"int64_t {i}_row_stride",
                f"int64_t {i}_col_stride",
                f"uint32_t {i}_rows",
                f"uint32_t {i}_cols",
            ]
            calls.append(f"GmTile{{{i}, {i}_row_stride, {i}_col_stride, {i}_rows, {i}_cols}}")
    for p in params.values():
        if not p.is_tile:
            arguments.append(f"{p.c_type} {p.identifier}")
            calls.append(p.identifier)
    if workspace:
        arguments.append("GM_ADDR workspace")
        calls.append("workspace")
    return "\n".join(
        [
            signature(f'extern "C" __global__ __aicore__ void {name}(', arguments, ") {"),
            f"  KERNEL_TASK_TYPE_DEFAULT({kernel_type});",
            "  AscendC::TPipe pipe;",
            signature(f"  pto_{name}::Run(", calls, ");"),
            "}",
            "",
        ]
    )
