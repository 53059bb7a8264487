"""A KernelGraph as AscendC source for one AI Core (A2/A3, __NPU_ARCH__ 2201).

Calling convention of what `emit_kernel` gives; host program, task generator and checks are written against it:

  KernelSource.header   `kernels/<name>.h`: self-contained (includes kernel_operator.h, has an include guard), defines
                            struct GmTile { GM_ADDR addr; int64_t rowStride, colStride; uint32_t rows, cols; };
                            namespace pto_<name> { __aicore__ inline void Run(AscendC::TPipe *pipe, <tiles>, <scalars>
                                                                              [, GM_ADDR workspace]); }
                        <tiles>    one `const GmTile &` per tile parameter, in signature order: address of element
                                   (0, 0), strides in elements, valid rows and columns of this task (1..the tile's)
                        <scalars>  one per scalar parameter, in signature order: `float` for f16, bf16 and f32, else
                                   int8_t .. int64_t, uint8_t .. uint64_t (KernelSource.params has the C types)
  KernelSource.text     header + the entry
                            extern "C" __global__ __aicore__ void <entry>(
                                GM_ADDR x, int64_t x_row_stride, int64_t x_col_stride, uint32_t x_rows, uint32_t x_cols,
                                ..., float eps [, GM_ADDR workspace])
                        which sets the kernel type, makes the TPipe and calls Run for one task on one block
  KernelSource.core     "AIV": Run on one vector core; "AIC": on one cube core; "MIX": on a cube core and on both of its
                        vector cores (KERNEL_TYPE_MIX_AIC_1_2), all three with the same arguments
  workspace             present when KernelSource.workspace_bytes > 0: that many bytes of GM, 512-byte aligned, not
                        shared with another task that may run at the same time, contents arbitrary

What a caller has to see to: a tile's columns lie next to each other (colStride 1), and so do the rows of a tile of one
column (rowStride 1), unless `emit_kernel` was told that a vector lies `apart`; rows of other tiles may lie at any
distance. Out tiles do not overlap In tiles of the same task, except that in an AIV kernel two parameters of one shape
may be the very same region. Valid extents are at least 1 and obey trace.extents (constraints(), needed()).

Run leaves no event, flag, queue or atomic mode behind. Between two Run calls on one core: PipeBarrier<PIPE_ALL>() and a
fresh TPipe (or pipe->Reset()).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from pto_wsp.ascend import cube, mix, placement, sync, tidy
from pto_wsp.ascend.body import BLOCK, C_TYPES, Buffer, Scalar, Shape, Step, ceil_to, named
from pto_wsp.ascend.names import (
    MOST_COMMENT,
    RESERVED,
    RESERVED_OUTSIDE,
    Names,
    comment,
    identifier,
    place_of,
    source_of,
)
from pto_wsp.ascend.placement import UB_BYTES, Layout, Row
from pto_wsp.ascend.vector import REFUSED, ROWS_AT_ONCE, Writer, refuse
from pto_wsp.errors import CompileError, OperandError
from pto_wsp.trace.extents import Extents, extents_of
from pto_wsp.trace.graph import KernelGraph, Node, Param, check
from pto_wsp.types import DType, ScalarType, TileType

STRIP_BYTES = 16 * 1024  # of the largest tile of a strip: copies shorter than this waste bandwidth
WIDTH = 80  # of a line of C++
MOST_QUEUES = 8  # buffers of all queues of one position, together


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
    """An emitted kernel; the module's docstring says how it is called."""

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


# ---- the parts of a file -------------------------------------------------------------------------------------------

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
}


def emit_kernel(graph: KernelGraph, name: str | None = None, apart: Collection[str] = ()) -> KernelSource:
    """The AscendC source of a traced kernel.

    name     identifier to use when the user's is not unique in the program
    apart    names of tile parameters of one row or one column whose elements may lie at any distance in GM
    raises   CompileError at the user's line when the hardware has no way to do an op, or its tiles do not fit
    """
    check(graph)
    if graph.custom is not None:
        from pto_wsp.ascend import custom  # it is written with the parts below

        return custom.emit(graph, Names().new(name or graph.name), apart)
    title, graph = graph.name, tidy.tidy(graph)
    name = Names().new(name or title)
    params = params_of(graph, apart)
    if any(mix.is_cube(n) for n in graph.nodes):
        kernel: MixKernel | VectorKernel = MixKernel(mix.legal(graph), params)
    else:
        kernel = VectorKernel(graph, params)
    parts = kernel.write()
    header = _header(name, title, graph, params, parts)
    entry = entry_of(name, params, KERNEL_TYPES[parts.core], parts.workspace_bytes > 0)
    return KernelSource(
        name,
        header,
        f"{header}\n{entry}",
        name,
        tuple(params.values()),
        parts.core,
        KERNEL_TYPES[parts.core],
        parts.workspace_bytes,
        parts.table,
        tuple(parts.rows),
    )


KERNEL_TYPES = {
    "AIV": "KERNEL_TYPE_AIV_ONLY",
    "AIC": "KERNEL_TYPE_AIC_ONLY",
    "MIX": "KERNEL_TYPE_MIX_AIC_1_2",
}


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


def _header(name: str, title: str, graph: KernelGraph, params: dict[int, SourceParam], parts: Parts) -> str:
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


def signature(start: str, arguments: Sequence[str], end: str) -> str:
    """A call or declaration, its arguments on as many lines as they need."""
    return "\n".join(wrapped([start + ", ".join(arguments) + end], WIDTH))


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


# ---- vector kernels ------------------------------------------------------------------------------------------------

WHOLE_TILE = {"colsum", "colmax", "colmin", "colmean", "transpose", "tsort32", "extract_topk_indices"}


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


def resized(graph: KernelGraph, size: int, smaller: int, by_cols: bool) -> KernelGraph | None:
    """The same kernel on tiles of `smaller` rows or columns instead of `size`; None when its shapes do not allow it."""
    new: dict[int, Node] = {}

    def shape(rows: int, cols: int) -> tuple[int, int]:
        return (
            (rows, smaller if cols == size else cols)
            if by_cols
            else (smaller if rows == size else rows, cols)
        )

    try:
        for node in graph.nodes:
            attrs = dict(node.attrs)
            if isinstance(attrs.get("type"), TileType):
                attrs["type"] = TileType(*shape(*attrs["type"].shape), attrs["type"].dtype)
            if "shape" in attrs:
                attrs["shape"] = shape(*attrs["shape"])
            if by_cols and attrs.get("cols") == size:
                attrs["cols"] = smaller
            operands = tuple(new[id(o)] for o in node.operands)
            new[id(node)] = Node(
                node.op, operands, node.op.infer(node.op, [o.type for o in operands], attrs), attrs
            )
    except OperandError:
        return None
    params = tuple(Param(p.name, p.direction, new[id(p.node)]) for p in graph.params)
    return KernelGraph(graph.name, params, tuple(new.values()))


class VectorKernel:
    """A kernel of one vector core: tiles arrive, are computed on and leave, a strip of rows at a time where rows do not
    depend on each other, so that the copies of one strip overlap the work on another."""

    def __init__(
        self,
        graph: KernelGraph,
        params: dict[int, SourceParam],
        extent: Callable[[Node, int], str] | None = None,
        shared: bool = False,
    ) -> None:
        """extent   C++ expression of a valid extent, when the graph is a part of another
        shared   two vector cores run it, as `part` 0 and 1
        """
        self.graph = graph
        self.params = params
        self.shared = shared
        self._text = extent or Extent(graph, params).text
        self.names = Names()
        for p in params.values():
            self.names.keep(p.identifier + "_gm" if p.is_tile else p.identifier)
        self.tiles = [n for n in graph.nodes if n.is_tile and n.op.name != "param"]
        self.rows = max((n.tile.rows for n in self.tiles), default=1)
        self.strips = self._by_strips()
        self.unit = self._unit()
        self.helpers: set[str] = set()
        self.is_attempt = False  # made to see whether it fits

    def _unit(self) -> int:
        """Elements that rows are padded to: whole blocks in the smallest dtype that any step may use."""
        smallest = min((n.tile.dtype.itemsize for n in self.tiles), default=4)
        masks = {id(n.operands[0]) for n in self.graph.nodes if n.op.name == "select"}
        only_bits = all(
            n.tile.dtype.itemsize > 1
            or id(n) in masks
            and n.op.name in ("lt", "le", "gt", "ge", "eq", "ne")
            and all(
                u.op.name == "select" and u.operands[0] is n and u.tile.shape == n.tile.shape
                for u in self.graph.nodes
                if n in u.operands
            )
            for n in self.tiles
        )
        if only_bits:
            smallest = min(
                (n.tile.dtype.itemsize for n in self.tiles if n.tile.dtype.itemsize > 1), default=4
            )
        turned = any(n.op.name == "transpose" and min(n.tile.shape) > 1 for n in self.tiles)
        return max(BLOCK // min(smallest, 4), 16 if turned else 1)

    def _by_strips(self) -> bool:
        if self.rows == 1:
            return False
        texts = {self._text(n, 0) for n in self.tiles if n.tile.rows == self.rows}
        return (
            all(n.tile.rows in (1, self.rows) for n in self.tiles)
            and not any(
                n.op.name in WHOLE_TILE
                and not self._cuts(n)
                and max(n.tile.rows, n.operands[0].tile.rows) > 1
                for n in self.tiles
            )
            and len(texts) == 1
            and all(s.operands[1].tile.rows == self.rows for s in self.graph.stores)
        )

    def _cuts(self, node: Node) -> bool:
        """One row turned into a column of all rows: each strip takes its piece of it."""
        return node.op.name == "transpose" and node.operands[0].tile.rows == 1 and node.tile.rows == self.rows

    def _granule(self) -> int:
        """Rows that a strip has to be a multiple of."""
        return max([BLOCK // n.tile.dtype.itemsize for n in self.tiles if self._cuts(n)], default=1)

    def shape_of(self, node: Node) -> Shape:
        t = node.tile
        pitch = 1 if t.cols == 1 and t.rows > 1 else ceil_to(t.cols, self.unit)
        if self.strips and t.rows == self.rows:
            return Shape("n", self._text(node, 1), None, t.cols, pitch)
        return Shape(self._text(node, 0), self._text(node, 1), t.rows, t.cols, pitch)

    def once(self, node: Node) -> bool:
        return self.strips and node.tile.rows == 1

    # ---- steps

    def write(self) -> Parts:
        scalars = {
            id(p.node): Scalar(self.params[id(p.node)].identifier, p.type.dtype)
            for p in self.graph.scalar_params
        }
        self.writer = w = Writer(self.graph, self.shape_of, self.once, self.unit, self.names, scalars)
        self.loads: list[tuple[Node, Buffer]] = []
        for node in self.graph.nodes:
            if node.op.name == "load":
                kind = "once" if self.once(node) else "in"
                p = self.params[id(node.operands[0])]
                shape = self._scattered(node) if p.apart else self.shape_of(node)
                value = w.tile(p.identifier, node.tile.dtype, shape, self.once(node), kind)
                w.values[id(node)] = value
                self.loads.append((node, value.buffer))
        for node in self.graph.nodes:
            if node.op.name == "load" and self.params[id(node.operands[0])].apart:
                w.node = node
                w.values[id(node)] = w.packed(w.value(node), self.shape_of(node))
        for node in self.graph.nodes:
            if node.op.name not in ("param", "scalar_param", "load", "store"):
                w.emit(node)
        self.stores = [(s, self._outgoing(s)) for s in self.graph.stores]
        self._drop_unread()
        self._limit_queues()
        self.strip, self.number, self.layout = self._fit()
        return self._text_of()

    def _scattered(self, node: Node) -> Shape:
        """A vector in UB with a block for each element, as it arrives from places apart and leaves for them."""
        shape, lanes = self.shape_of(node), BLOCK // node.tile.dtype.itemsize
        if shape.single_row:
            return Shape(shape.cols, "1", shape.most_cols, 1, lanes)
        return Shape(shape.rows, "1", shape.most_rows, 1, lanes)

    def _gm(self, param: Node, shape: Shape) -> str:
        """The tile in GM; a row that lies apart as the column it is to the copy."""
        p = self.params[id(param)]
        gm = f"{p.identifier}_gm"
        if p.apart and shape.single_row:
            return f"GmTile{{{gm}.addr, {gm}.colStride, 1, {gm}.cols, 1}}"
        return gm

    def _outgoing(self, store: Node) -> Buffer:
        """The buffer that leaves: the value's own when nothing else claims it, else a copy."""
        w = self.writer
        dst, src = store.operands
        value = w.value(src)
        buffer = value.buffer
        free = buffer.kind == "temp" and not value.once and buffer.dtype.itemsize == value.dtype.itemsize
        made_here = any(buffer in s.writes for s in w.phase.body) and not any(
            buffer in s.writes and s.pipe == "S" for s in w.phase.body
        )  # queues order vector work only
        if self.params[id(dst)].apart:
            w.node = store
            return w.scattered(value, self._scattered(dst), self.params[id(dst)].identifier).buffer
        if free and made_here:
            buffer.kind = "out"
            if w.name_for(src) == src.op.name:
                buffer.hint = self.params[id(dst)].identifier
            return buffer
        w.node = store
        copy = w.tile(self.params[id(dst)].identifier, dst.tile.dtype, self.shape_of(dst), False, "out")
        pieces = ceil_to(1, BLOCK // dst.tile.dtype.itemsize)
        w.helpers.add("CeilTo")
        w.step(
            f"DataCopy({copy.text}, {w.seen_as(value, dst.tile.dtype).text}, CeilTo({w.count(copy.shape)}, {pieces}));",
            [value],
            [copy],
            False,
        )
        return copy.buffer

    def _drop_unread(self) -> None:
        """Steps whose results nobody reads: conversions made on the way that turned out not to be needed."""
        phase = self.writer.phase
        needed = {id(b) for _, b in self.stores}
        texts: list[str] = []
        for steps in (phase.body, phase.before):
            for step in reversed(list(steps)):
                if step.writes and not any(id(b) in needed for b in step.writes):
                    steps.remove(step)
                    continue
                if not step.writes:  # a scalar constant
                    name = re.match(r"const \w+ (\w+) =", step.lines[0])
                    if name and not any(re.search(rf"\b{name[1]}\b", t) for t in texts):
                        steps.remove(step)
                        continue
                needed.update(id(b) for b in step.reads)
                texts.extend(step.lines)
        self.loads = [(n, b) for n, b in self.loads if id(b) in needed]

    def _limit_queues(self) -> None:
        """Buffers per position are few: beyond that a kernel would need its tiles packed."""
        arriving, leaving = len(self.loads), len(self.stores)
        if max(arriving, leaving) > MOST_QUEUES:
            raise CompileError(
                f"kernel {self.graph.name}: {max(arriving, leaving)} tiles "
                f"{'arrive' if arriving > leaving else 'leave'}; a vector core has queue events for "
                f"{MOST_QUEUES}. Split the kernel."
            )

    def queued(self, number: int) -> list[tuple[Buffer, int]]:
        return [(b, number if b.kind == "in" else 1) for _, b in self.loads] + [
            (b, number) for _, b in self.stores
        ]

    def _fit(self) -> tuple[int, int, Layout]:
        """Rows of a strip, buffers per queue, and the plan."""
        phase = self.writer.phase
        if not self.strips:
            layout = placement.place(phase.before, phase.body, self.queued(1), self.rows, False)
            if layout.total > UB_BYTES:
                raise self._overflow(self.rows, 1)
            return self.rows, 1, layout
        once = sum(b.kind == "once" for _, b in self.loads)
        doubled = 2 * (len(self.loads) - once) + once <= MOST_QUEUES and 2 * len(self.stores) <= MOST_QUEUES
        whole = self.rows <= ROWS_AT_ONCE
        for strip in self._strip_sizes():
            if strip % self._granule() and strip < self.rows:
                continue
            for number in (2, 1) if doubled and strip < self.rows else (1,):
                layout = placement.place(
                    phase.before, phase.body, self.queued(number), strip, strip < self.rows
                )
                if layout.total <= UB_BYTES and (strip < self.rows or whole):
                    return strip, number, layout
        raise self._overflow(1, 1)

    def _strip_sizes(self) -> list[int]:
        """Candidates, best first: groups of 8 rows of about STRIP_BYTES, or the tile when it is smaller than two."""
        widest = max(n.tile.cols * n.tile.dtype.itemsize for n in self.tiles)
        wanted = max(8, STRIP_BYTES // widest // 8 * 8)
        best = min(wanted, ROWS_AT_ONCE)
        if self.shared:  # half of the rows each, at least
            best = min(best, ceil_to(-(-self.rows // 2), 8))
        elif self.rows < 2 * best and self.rows <= ROWS_AT_ONCE:
            best = self.rows
        return [best, *range(ceil_to(best, 8) - 8, 0, -8), *(s for s in (4, 2, 1) if s < best)]

    def _overflow(self, strip: int, number: int) -> CompileError:
        phase = self.writer.phase
        if self.is_attempt:
            return CompileError("too large")
        layout = placement.place(phase.before, phase.body, self.queued(number), strip, self.strips)
        by_cols = self.strips or self.rows == 1
        fits = self._largest_that_fits(by_cols, layout.total)
        self.strip, self.number, self.layout = strip, number, layout
        names = {id(b): b.hint for b in phase.buffers}
        table = placement.table(self._rows(names))
        line = max(self.tiles, key=lambda n: n.tile.size * n.tile.dtype.itemsize).line
        error = CompileError(
            f"kernel {self.graph.name} needs {layout.total} bytes of UB"
            f"{' for a single row' if self.strips else ''}; a vector core has {UB_BYTES}. "
            f"Tiles of {fits} would fit.\n{table}"
        )
        return error if line is None else error.at(line)

    def _largest_that_fits(self, by_cols: bool, total: int) -> str:
        """The tile shape to use instead: fewer columns where rows go by strips anyway, else fewer rows, or fewer of
        both."""
        tiles = [p.node.tile for p in self.graph.tile_params] or [n.tile for n in self.tiles]
        rows, cols = max(tiles, key=lambda t: t.size).shape
        if by_cols:
            found = self._most_that_fit(self.graph, cols, self.unit, True)
            return f"{rows}x{found or max(1, cols * UB_BYTES // total // self.unit) * self.unit}"
        found = self._most_that_fit(self.graph, rows, 8, False)
        if found is None:
            return f"about {max(1, rows * UB_BYTES // total)}x{cols}"
        few = resized(self.graph, rows, 8, False)
        if found or few is None:
            return f"{found}x{cols}"
        return f"8x{self._most_that_fit(few, cols, self.unit, True) or self.unit}"

    def _most_that_fit(self, graph: KernelGraph, size: int, unit: int, by_cols: bool) -> int | None:
        """The largest extent below `size`, a multiple of `unit`, with which the kernel fits; 0 when none does, None
        when its shapes cannot be changed like that."""
        low, high = 0, -(-size // unit)  # in units; low fits, high does not
        while high - low > 1:
            middle = (low + high) // 2
            smaller = None if self.shared else resized(graph, size, middle * unit, by_cols)
            if smaller is None or [p.node.type for p in smaller.params] == [p.node.type for p in graph.params]:
                return None
            attempt = VectorKernel(smaller, params_of(smaller))
            attempt.is_attempt = True
            try:
                attempt.write()
                low = middle
            except CompileError:
                high = middle
        return low * unit

    def _rows(self, names: dict[int, str]) -> list[Row]:
        steps = len(self.writer.phase.before) + len(self.writer.phase.body)
        rows = []
        for buffer, number in self.queued(self.number):
            times = f"queue, x{number}" if number > 1 else "queue"
            rows.append(
                Row(
                    names[id(buffer)],
                    "UB",
                    buffer.offset,
                    number * buffer.bytes,
                    f"0-{steps}",
                    f"{buffer.shape.replace('strip', str(self.strip))}, {times}",
                )
            )
        used = {
            id(b): b
            for s in (*self.writer.phase.before, *self.writer.phase.body)
            for b in (*s.reads, *s.writes)
        }
        spans: dict[str, tuple[Buffer, int, int]] = {}
        for buffer in used.values():
            if buffer.kind == "temp":
                _, first, last = spans.get(names[id(buffer)], (buffer, buffer.first, buffer.last))
                spans[names[id(buffer)]] = buffer, min(first, buffer.first), max(last, buffer.last)
        for name, (buffer, first, last) in spans.items():
            rows.append(
                Row(
                    name,
                    "UB",
                    self.layout.queues + buffer.offset,
                    buffer.bytes,
                    f"{first}-{last}",
                    buffer.shape.replace("strip", str(self.strip)),
                )
            )
        return sorted(rows, key=lambda r: r.offset)

    # ---- text

    def _text_of(self) -> Parts:
        w, phase, looped = self.writer, self.writer.phase, self.strip < self.rows and self.strips
        used = list({id(b): b for s in (*phase.before, *phase.body) for b in (*s.reads, *s.writes)}.values())
        used += [b for _, b in self.loads if b not in used]
        names = self._named(used)
        orders = sync.orders(
            phase.before,
            phase.body,
            [b for _, b in self.loads if b.kind == "once"],
            [b for _, b in self.loads if b.kind == "in"],
            looped,
        )
        self.helpers |= w.helpers & set(HELPERS)
        out = self._queues(names)
        temps = [b for b in used if b.kind == "temp"]
        if temps:
            out += ["TBuf<TPosition::VECCALC> arena;", f"pipe->InitBuffer(arena, {self.layout.arena});"]
            declared = {names[id(b)]: b for b in temps}
            out += [
                f"LocalTensor<{C_TYPES[b.dtype]}> {name} = arena.GetWithOffset<{C_TYPES[b.dtype]}>("
                f"{b.bytes // b.dtype.itemsize}, {b.offset});"
                for name, b in declared.items()
            ]
        for node, buffer in self.loads:
            if buffer.kind == "once":
                out += self._arrive(node, buffer, names[id(buffer)])
        number = len(phase.before)
        out += self._steps(phase.before, orders[:number], names, {})
        last: dict[int, int] = {
            id(b): s for s, step in enumerate(phase.body) for b in step.reads if b.kind == "in"
        }
        body = []
        for node, buffer in self.loads:
            if buffer.kind == "in":
                body += self._arrive(node, buffer, names[id(buffer)])
        body += self._steps(phase.body, orders[number:], names, last, looped)
        for store, buffer in self.stores:
            body += self._leave(store, buffer, names[id(buffer)])
        body = _counted(body)
        if looped:
            self.helpers.add("Least")
            rows = self._text(next(n for n in self.tiles if n.tile.rows == self.rows), 0)
            start, step = (
                ("0", f"{self.strip}") if not self.shared else (f"part * {self.strip}", f"{2 * self.strip}")
            )
            out += [
                f"for (uint32_t first = {start}; first < {rows}; first += {step}) {{",
                f"  const uint32_t n = Least({rows} - first, {self.strip});",
                *(f"  {line}" for line in body),
                "}",
            ]
        else:
            if self.strips:
                rows = self._text(next(n for n in self.tiles if n.tile.rows == self.rows), 0)
                out += (
                    [f"const uint32_t n = {rows};"] if any(re.search(r"\bn\b", line) for line in body) else []
                )
                out += (
                    ["const uint32_t first = 0;"]
                    if any(re.search(r"\[first\]", line) for line in body)
                    else []
                )
            out += body
        out += [f"{names[id(b)]}_in.FreeTensor({names[id(b)]});" for _, b in self.loads if b.kind == "once"]
        if self.shared and not looped:
            out = ["if (part != 0) {", "  return;  // one core is enough", "}", *out]
        self.rows_of_table = self._rows(names)
        return Parts(sorted(self.helpers), [], wrapped(out), self.rows_of_table)

    def _named(self, used: Sequence[Buffer]) -> dict[int, str]:
        """Identifiers: the user's names first; what is changed in place under one name keeps it."""
        names: dict[int, str] = {}
        for buffer in used:
            before = buffer.inherits
            if before is not None and (before.hint, before.dtype) == (buffer.hint, buffer.dtype):
                names[id(buffer)] = names[id(before)]
            else:
                names[id(buffer)] = self.names.new(buffer.hint, "_in", "_out")
        return names

    def _queues(self, names: dict[int, str]) -> list[str]:
        out = []
        for buffer, number in self.queued(self.number):
            name = names[id(buffer)]
            position, queue = ("VECOUT", f"{name}_out") if buffer.kind == "out" else ("VECIN", f"{name}_in")
            out += [
                f"TQue<TPosition::{position}, 1> {queue};",
                f"pipe->InitBuffer({queue}, {number}, {buffer.bytes});",
            ]
        return out

    def _arrive(self, node: Node, buffer: Buffer, name: str) -> list[str]:
        param, c_type, shape = node.operands[0], C_TYPES[buffer.dtype], self.shape_of(node)
        gm = self._gm(param, shape)
        first = "first" if shape.most_rows is None and self.strip < self.rows else "0"
        if self.params[id(param)].apart:
            shape = self._scattered(node)
        helper = "LoadColumn" if shape.packed else "LoadRows"
        self.helpers.add(helper)
        pitch = "" if shape.packed else f", {shape.pitch}"
        return [
            f"LocalTensor<{c_type}> {name} = {name}_in.AllocTensor<{c_type}>();",
            f"{helper}({name}, {gm}, {first}, {shape.rows}{pitch});",
            f"{name}_in.EnQue({name});",
            f"{name} = {name}_in.DeQue<{c_type}>();",
        ]

    def _leave(self, store: Node, buffer: Buffer, name: str) -> list[str]:
        dst, c_type = store.operands[0], C_TYPES[buffer.dtype]
        shape = self.shape_of(dst)
        gm = self._gm(dst, shape)
        first = "first" if shape.most_rows is None and self.strip < self.rows else "0"
        if self.params[id(dst)].apart:
            shape = self._scattered(dst)
        helper = "StoreColumn" if shape.packed else "StoreRows"
        self.helpers.add(helper)
        pitch = "" if shape.packed else f", {shape.pitch}"
        text = (
            name if buffer.dtype is dst.tile.dtype else f"{name}.ReinterpretCast<{C_TYPES[dst.tile.dtype]}>()"
        )
        return [
            f"{name}_out.EnQue({name});",
            f"{name} = {name}_out.DeQue<{c_type}>();",
            f"{helper}({gm}, {text}, {first}, {shape.rows}{pitch});",
            f"{name}_out.FreeTensor({name});",
        ]

    def _steps(
        self,
        steps: Sequence[Step],
        orders: Sequence[Sequence[str]],
        names: dict[int, str],
        last: dict[int, int],
        looped: bool = False,
    ) -> list[str]:
        """Steps as lines: a comment where an op begins, what orders them, allocation and release of queue tiles."""
        out: list[str] = []
        about = ""
        allocated: set[int] = set()
        for at, (step, needed) in enumerate(zip(steps, orders, strict=True)):
            if step.node is not None and _comment(step.node) != about:
                about = _comment(step.node)
                out.append(about)
            for order in needed:
                if order != "V":
                    self.helpers.add("Order")
                out.append(sync.TEXT[order])
            for buffer in step.writes:
                if buffer.kind == "out" and id(buffer) not in allocated:
                    allocated.add(id(buffer))
                    c_type = C_TYPES[buffer.dtype]
                    out.append(
                        f"LocalTensor<{c_type}> {names[id(buffer)]} = {names[id(buffer)]}_out.AllocTensor<{c_type}>();"
                    )
            out += [named(line, names) for line in step.lines]
            freed = {id(b): b for b in step.reads if b.kind == "in" and last.get(id(b)) == at}
            if looped and any(b in s.reads for s in steps if s.pipe == "S" for b in freed.values()):
                out.append(sync.TEXT["S_MTE2"])
                self.helpers.add("Order")
            out += [f"{names[key]}_in.FreeTensor({names[key]});" for key in freed]
        return out


# ---- kernels with products -----------------------------------------------------------------------------------------

HELPERS.update(cube.HELPERS)
NEEDS = {
    "MatMul": ("LoadNz", "Least", "CeilTo"),
    "TransposeTile": ("LoadRows", "StoreRows", "TurnRound", "Least", "CeilTo"),
}
FLAGS = tuple(range(11))  # of cross-core events; SyncAll has 11 to 14


class MixKernel:
    """A kernel on a cube core, and on its two vector cores when there is work for them."""

    def __init__(self, graph: KernelGraph, params: dict[int, SourceParam]) -> None:
        self.graph = graph
        self.params = {
            id(p.node): params[id(q)]
            for p, q in zip(graph.params, [p.node for p in graph.params], strict=True)
        }
        self.plan = mix.cut(graph)
        self.extent = Extent(graph, self.params)
        names = Names()
        for p in params.values():
            names.keep(p.identifier, p.identifier + "_gm")
        self.slots = {id(slot): names.new(slot.hint, "_gm") for slot in self.plan.slots}
        self.helpers: set[str] = {"Least"}
        self.rows: list[Row] = []
        self.functions: list[str] = []

    def gm(self, place: Node | mix.Slot) -> str:
        return f"{self.slots[id(place)] if isinstance(place, mix.Slot) else self.params[id(place)].identifier}_gm"

    def write(self) -> Parts:
        vector = any(kind == "vector" for kind, _ in self.plan.phases)
        cube_lines: list[str] = []
        vector_lines: list[str] = []
        flag = 0
        for number, (kind, work) in enumerate(self.plan.phases):
            mine, other = (cube_lines, vector_lines) if kind == "cube" else (vector_lines, cube_lines)
            if number:
                mine.append(f"CrossCoreWaitFlag<0x2>({flag - 1});")
            for index, item in enumerate(work):
                if index or (number > 1 and mine):
                    mine += ["PipeBarrier<PIPE_ALL>();", "pipe->Reset();"]
                mine += self._product(item) if isinstance(item, mix.Product) else self._vector(item)
            if vector:
                if flag >= len(FLAGS):
                    raise CompileError(
                        f"kernel {self.graph.name} goes between cube and vector cores too often. Split it."
                    )
                mine.append(f"CrossCoreSetFlag<0x2, PIPE_{'FIX' if kind == 'cube' else 'MTE3'}>({flag});")
                if number == len(self.plan.phases) - 1:
                    other.append(f"CrossCoreWaitFlag<0x2>({flag});  // the workspace is free again")
                flag += 1
        out = [line for slot in self.plan.slots for line in self._slot(slot)]
        if vector:
            parted = ["const uint32_t part = static_cast<uint32_t>(GetSubBlockIdx());"]
            parted = parted if any(re.search(r"\bpart\b", line) for line in vector_lines) else []
            out += [
                "if ASCEND_IS_AIC {",
                *(f"  {line}" for line in cube_lines),
                "}",
                "if ASCEND_IS_AIV {",
                *(f"  {line}" for line in [*parted, *vector_lines]),
                "}",
            ]
        else:
            out += cube_lines
        for name, more in NEEDS.items():
            if name in self.helpers:
                self.helpers.update(more)
        workspace = self.plan.bytes
        for slot in self.plan.slots:
            t = slot.node.tile
            self.rows.append(
                Row(
                    self.slots[id(slot)],
                    "GM",
                    slot.offset,
                    t.size * t.dtype.itemsize,
                    "task",
                    f"{t.rows}x{t.cols} {t.dtype}, workspace",
                )
            )
        return Parts(
            sorted(self.helpers),
            self.functions,
            wrapped(out),
            self.rows,
            "MIX" if vector else "AIC",
            workspace,
        )

    def _slot(self, slot: mix.Slot) -> list[str]:
        t = slot.node.tile
        rows, cols = self.extent.text(slot.node, 0), self.extent.text(slot.node, 1)
        return [
            f"const GmTile {self.slots[id(slot)]}_gm{{workspace + {slot.offset}, {t.cols}, 1, {rows}, {cols}}};"
        ]

    def _product(self, product: mix.Product) -> list[str]:
        node, dtype = product.node, product.node.operands[0].tile.dtype
        a, b = node.operands[:2]
        for place in (product.a, product.b, product.out):
            if isinstance(place, Node) and self.params[id(place)].apart:
                raise refuse(
                    node,
                    f"matmul with {self.params[id(place)].name}, whose elements do not lie next to each other: "
                    "the cube core copies whole rows. Copy them into an array of their own.",
                )
        blocks = cube.Blocks.of(a.tile.rows, b.tile.cols, a.tile.cols, dtype)
        self.helpers.add("MatMul")
        self.rows += blocks.rows(self.slots.get(id(product.out), node.op.name), dtype)
        line = cube.call(
            self.gm(product.a),
            self.gm(product.b),
            self.gm(product.out),
            blocks,
            dtype,
            product.out_dtype,
            product.transposed,
        )
        lines = [_comment(node), line]
        if product.adds:
            acc = C_TYPES[product.out_dtype]
            lines = [_comment(node), f"SetAtomicAdd<{acc}>();", line, "SetAtomicNone();"]
        return lines

    def _vector(self, item: mix.Turn | mix.VectorPart) -> list[str]:
        if isinstance(item, mix.Turn):
            dtype = item.node.tile.dtype
            if dtype.itemsize not in (2, 4):
                raise refuse(item.node, f"transpose of {dtype}: 2201 transposes elements of 2 and 4 bytes.")
            rows, cols = (min(ceil_to(n, 16), 64) for n in (item.node.tile.cols, item.node.tile.rows))
            self.helpers.add("TransposeTile")
            name = self.slots[id(item.out)]
            size = 2 * rows * cols * dtype.itemsize
            self.rows += [
                Row(f"{name}.in", "UB", 0, size, "loop", f"{rows}x{cols} {dtype}, x2"),
                Row(f"{name}.out", "UB", size, size, "loop", f"{cols}x{rows} {dtype}, x2"),
            ]
            return [
                _comment(item.node),
                f"TransposeTile<{C_TYPES[dtype]}, {rows}, {cols}>(pipe, {self.gm(item.source)}, "
                f"{self.gm(item.out)}, part, 2);",
            ]
        return self._part(item)

    def _part(self, part: mix.VectorPart) -> list[str]:
        """A vector phase as a function of its own; the call."""
        params: dict[int, SourceParam] = {}
        for p in part.graph.params:
            if p.is_tile:
                gm = self.gm(part.tiles[id(p.node)])
                t = p.node.tile
                where = part.tiles[id(p.node)]
                apart = isinstance(where, Node) and self.params[id(where)].apart
                params[id(p.node)] = SourceParam(
                    p.name, gm[:-3], p.direction, t.dtype, C_TYPES[t.dtype], t.rows, t.cols, apart
                )
            else:
                params[id(p.node)] = next(q for q in self.params.values() if q.name == p.name)
        extra: dict[str, str] = {}
        kernel = VectorKernel(part.graph, params, self._extent_in(part, params, extra), True)
        made = kernel.write()
        self.helpers.update(made.helpers)
        name = f"VectorPart{sum('VectorPart' in f for f in self.functions)}"
        body = "\n".join(made.run)
        tiles = [f"{p.identifier}_gm" for p in params.values() if p.is_tile]
        tiles += [gm for gm in extra if gm not in tiles]
        scalars = [p for p in params.values() if not p.is_tile and re.search(rf"\b{p.identifier}\b", body)]
        tiles = [gm for gm in tiles if re.search(rf"\b{gm}\b", body)]
        head = signature(
            f"__aicore__ inline void {name}(",
            [
                "TPipe *pipe",
                *(f"const GmTile &{gm}" for gm in tiles),
                *(f"{p.c_type} {p.identifier}" for p in scalars),
                "uint32_t part",
            ],
            ") {",
        )
        self.functions.append("\n".join([head, *(f"  {line}".rstrip() for line in made.run), "}", ""]))
        self.rows += [
            Row(f"{name}.{r.name}", r.memory, r.offset, r.bytes, r.live, r.what) for r in kernel.rows_of_table
        ]
        call = ", ".join(["pipe", *tiles, *(p.identifier for p in scalars), "part"])
        return [f"{name}({call});"]

    def _extent_in(
        self, part: mix.VectorPart, params: Mapping[int, SourceParam], extra: dict[str, str]
    ) -> Callable[[Node, int], str]:
        """Extents within a phase: those of a tile it has anyway where there is one."""
        extents = self.extent.extents
        known: dict[object, str] = {}
        for p in part.graph.tile_params:
            for axis in (0, 1):
                sources = extents.of(part.origin[id(p.node)], axis).sources
                if sources:
                    known.setdefault(
                        sources, f"{params[id(p.node)].identifier}_gm.{'cols' if axis else 'rows'}"
                    )

        def text(node: Node, axis: int) -> str:
            original = part.origin[id(node)]
            extent = extents.of(original, axis)
            if extent.static == 1 or not extent.sources:
                return str(extent.static)
            if extent.sources in known:
                return known[extent.sources]
            found = self.extent.text(original, axis)
            extra[found.split(".")[0]] = found
            return found

        return text


def _comment(node: Node) -> str:
    """`// rmsnorm.py:9: sq = pto.mul(x, x)`"""
    source = source_of(node.line)
    text = f"{place_of(node.line)}: {source}" if source else node.op.name
    return f"// {comment(text, MOST_COMMENT)}"


def _counted(lines: list[str]) -> list[str]:
    """`n * 128` used more than once gets a name."""
    found: dict[str, int] = {}
    for line in lines:
        for product in re.findall(r"\b(?:n|\w+_gm\.rows) \* \d+\b(?! [*/])", line):
            found[product] = found.get(product, 0) + 1
    often = [product for product, times in found.items() if times > 1]
    head: list[str] = []
    for product in often:
        name = "count" if len(often) == 1 else f"count_{product.rsplit(' ', 1)[1]}"
        if any(re.search(rf"\b{name}\b", line) for line in (*head, *lines)):
            continue
        head.append(f"const uint32_t {name} = {product};")
        lines = [re.sub(rf"(?<![\w.]){re.escape(product)}\b(?! [*/])", name, line) for line in lines]
    return head + lines


def wrapped(lines: list[str], width: int = WIDTH - 2) -> list[str]:
    """Break what is too long after an argument, the next one under the first; after the bracket if that is no good."""
    out: list[str] = []
    for line in lines:
        if len(line) <= width or line.lstrip().startswith("//"):
            out.append(line)
            continue
        opening = _opening(line)
        if opening < 0:
            out.append(line)
            continue
        head, pieces = line[: opening + 1], _arguments(line[opening + 1 :])
        indent = opening + 1
        if max(len(p) for p in pieces) + indent > width:
            out.append(head)
            indent = len(line) - len(line.lstrip()) + 4
            head = " " * indent
        row = head
        for piece in pieces:
            if len(row) + len(piece) > width and row != head:
                out.append(row.rstrip())
                row = " " * indent
            if len(row) + len(piece) > width and "{" in piece:  # an argument too long for any line
                *full, piece = _braced(row + piece, width)
                out += full
                row = piece + " "
            else:
                row += piece + " "
        out.append(row.rstrip())
    return out


_wrapped = wrapped  # for who still says so


def _braced(text: str, width: int) -> list[str]:
    """`GmTile{a, b, c}` on several lines, the later ones under the first element."""
    opening = text.index("{") + 1
    out, row = [], text[:opening]
    for piece in _arguments(text[opening:]):
        if len(row) + len(piece) > width:
            out.append(row.rstrip())
            row = " " * opening
        row += piece + " "
    return [*out, row.rstrip()]


def _opening(line: str) -> int:
    """The bracket of the first call that has arguments."""
    depth = 0
    for at, c in enumerate(line):
        if c == "(" and not line[:at].rstrip().endswith(("for", "if", "while")):
            inner = _arguments(line[at + 1 :])
            if len(inner) > 1 and depth == 0:
                return at
    return -1


def _arguments(text: str) -> list[str]:
    """The text after an opening bracket, cut after its commas; the last piece keeps what follows."""
    pieces, depth, start = [], 0, 0
    for at, c in enumerate(text):
        if c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
            if depth < 0:
                break
        elif c == "," and depth == 0:
            pieces.append(text[start : at + 1])
            start = at + 2
    return [*pieces, text[start:]]


__all__ = ["KernelSource", "SourceParam", "emit_kernel"]
