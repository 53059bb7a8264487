"""A KernelGraph as PTO-ISA tile code for one vector core: the instructions of a `@ptoisa_kernel`, one to one.

    Tile<TileType::Vec, float, 16, 64, BLayout::RowMajor, DYNAMIC, DYNAMIC>   per dtype and shape
    x placed by TASSIGN(x, byteOffset); TLOAD(x, from); TMULS(y, x, 2.0f); TSTORE(to, y)
    set_flag / wait_flag between pipes, pipe_barrier inside one, exactly where the order of instructions needs them

`emit` gives a KernelSource of the calling convention in aicore.py, so the same worker and host run it. Rows of a tile
lie padded to 32 bytes; a column [R, 1] is a tile of one valid column. iota_u32, store_topk_indices_i32 and what else
works on single rows are loops of the scalar unit. What the instruction set or the vector unit lacks is refused by name.
Start reading at `emit`, then `_Emitter.node`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pto_wsp.ascend.aicore import emit_kernel
from pto_wsp.ascend.body import Scalar, ceil_to
from pto_wsp.ascend.dtypes import C_TYPES, CASTS, literal, refuse
from pto_wsp.ascend.lines import signature, wrapped
from pto_wsp.ascend.names import Names, comment, place_of, source_of
from pto_wsp.ascend.placement import UB_BYTES
from pto_wsp.ascend.scalars import SCALAR_COMPARE, ScalarWriter
from pto_wsp.ascend.source import GM_TILE, HELPERS, KERNEL_TYPES, Extent, KernelSource, SourceParam, entry_of, params_of
from pto_wsp.errors import CompileError
from pto_wsp.trace.graph import KernelGraph, Node, check
from pto_wsp.trace.ptoisa import IsaKernel
from pto_wsp.types import DType

__all__ = ["FORMS", "emit", "source"]

FORMS = ("ascendc", "pto")
"""How @ptoisa_kernel kernels are emitted: compile(target="ascend_npu", ptoisa=...)."""

F16, F32 = DType.F16, DType.F32
_REALS, _NUMBERS = (F16, F32), (F16, F32, DType.I16, DType.I32)

BINARY = {"add": "ADD", "sub": "SUB", "mul": "MUL", "div": "DIV", "maximum": "MAX", "minimum": "MIN"}
UNARY = {op: f"T{op.upper()}" for op in ("exp", "rsqrt", "sqrt", "log", "neg", "abs", "relu")}
ROWS = {"rowsum": "TROWSUM", "rowmax": "TROWMAX", "rowmin": "TROWMIN"}
DTYPES = {
    **dict.fromkeys((*BINARY, "neg"), _NUMBERS), **dict.fromkeys((*UNARY, *ROWS, "div"), _REALS),
    "neg": _NUMBERS, "relu": (F16, F32, DType.I32),
}  # fmt: skip
"""What the vector unit of A2/A3 computes with, per op."""


def source(kernel: Any, graph: KernelGraph, name: str, apart: Collection[str] = (), form: str = "ascendc") -> Any:
    """The KernelSource of a kernel under compile(ptoisa=form): PTO-ISA for @ptoisa_kernel if "pto", else AscendC."""
    if form not in FORMS:
        raise CompileError(f"ptoisa is one of {', '.join(map(repr, FORMS))}; got {form!r}.")
    if form == "pto" and isinstance(kernel, IsaKernel):
        return emit(graph, name, apart, kernel.options.get("cpp_includes", ()))
    return emit_kernel(graph, name, apart)


def emit(
    graph: KernelGraph, name: str | None = None, apart: Collection[str] = (), includes: Sequence[str] = ()
) -> KernelSource:
    """The PTO-ISA source of a kernel.

    name       identifier to use when the user's is not unique in the program
    apart      names of tile parameters of one row or column whose elements lie at any distance; columns may
    includes   what else the file includes
    raises     CompileError at the user's line for what PTO-ISA lacks, or when the tiles do not fit into UB
    """
    check(graph)
    if graph.custom is not None:
        raise CompileError(f"kernel {graph.name} is C++ of the user's already.").at(graph.custom.line)
    name = Names().new(name or graph.name)
    params = {key: replace(p, apart=p.name in apart) for key, p in params_of(graph).items()}
    for p in params.values():
        if p.apart and p.cols != 1:
            raise CompileError(
                f"kernel {graph.name}: the elements of {p.name} do not lie next to each other, and TLOAD moves rows"
                " that do. Copy them into an array of their own."
            )
    emitter = _Emitter(graph, params)
    for node in emitter.live():
        emitter.node(node)
    table = emitter.place()
    header = _header(name, graph, params, emitter, table, includes)
    core = KERNEL_TYPES["AIV"]
    text = f"{header}\n{entry_of(name, params, core, False)}"
    return KernelSource(name, header, text, name, tuple(params.values()), "AIV", core, 0, table)


# ---- instructions --------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Tile:
    """A tile in UB."""

    name: str
    dtype: DType
    rows: int
    cols: int
    valid: tuple[str, str]
    of: _Tile | None = None  # it lies where that one lies
    first: int = -1  # positions of the first and last instruction that touch it
    last: int = -1
    offset: int = 0

    @property
    def pitch(self) -> int:
        """Elements of a row, padding included."""
        return ceil_to(self.cols * self.dtype.itemsize, 32) // self.dtype.itemsize

    @property
    def bytes(self) -> int:
        return self.rows * self.pitch * self.dtype.itemsize

    @property
    def home(self) -> _Tile:
        return self if self.of is None else self.of.home

    @property
    def kind(self) -> str:
        """Name of its C++ type; valid extents that are known are part of the type."""
        valid = "".join(f"_{v}" if v.isdigit() else "_n" for v in self.valid)
        whole = self.valid == (str(self.rows), str(self.pitch))
        return f"{str(self.dtype).upper()}_{self.rows}x{self.pitch}{'' if whole else valid}"


@dataclass(eq=False)
class _Instruction:
    """One instruction or loop of one pipe; what it touches are tiles, and names of parameters in GM."""

    pipe: str
    lines: list[str]
    reads: list[_Tile | str]
    writes: list[_Tile | str]
    node: Node | None
    before: list[str] = field(default_factory=list)  # waits and barriers
    after: list[str] = field(default_factory=list)  # flags that later instructions wait for


class _Emitter:
    """The instructions of a kernel, growing node by node."""

    def __init__(self, graph: KernelGraph, params: dict[int, SourceParam]) -> None:
        self.graph, self.params = graph, params
        self.extent = Extent(graph, params).text
        self.names = Names()
        for p in params.values():
            self.names.keep(*((p.identifier + "_gm", p.identifier + "_at") if p.is_tile else (p.identifier,)))
        scalars = {key: Scalar(p.identifier, p.dtype) for key, p in params.items() if not p.is_tile}
        self.scalars = ScalarWriter(graph, self.names, scalars)
        self.tiles: list[_Tile] = []
        self.value: dict[int, _Tile] = {}  # by id of a node
        self.code: list[_Instruction] = []

    def live(self) -> list[Node]:
        """The nodes that some store depends on, in order."""
        wanted: set[int] = set()
        for node in reversed(self.graph.nodes):
            if node.op.name == "store" or id(node) in wanted:
                wanted.update((id(node), *map(id, node.operands)))
        return [n for n in self.graph.nodes if id(n) in wanted]

    def tile(self, node: Node, name: str, dtype: DType | None = None) -> _Tile:
        valid = self.extent(node, 0), self.extent(node, 1)
        made = _Tile(self.names.new(name), dtype or node.tile.dtype, node.tile.rows, node.tile.cols, valid)
        self.tiles.append(made)
        return made

    def made(self, node: Node) -> _Tile:
        """The tile of a node's value."""
        self.value[id(node)] = self.tile(node, self.scalars.name_for(node))
        return self.value[id(node)]

    def seen(self, operand: Node, valid: tuple[str, str]) -> _Tile:
        """The operand with these valid extents: tiles that are made whole have more than a partial one uses."""
        tile = self.value[id(operand)]
        if tile.valid == valid:
            return tile
        found = next((t for t in self.tiles if t.of is tile and t.valid == valid), None)
        if found is None:
            found = _Tile(self.names.new(tile.name + "_part"), tile.dtype, tile.rows, tile.cols, valid, tile)
            self.tiles.append(found)
        return found

    def add(self, pipe: str, text: str | list[str], reads: Sequence[Any], writes: Sequence[Any], node: Node) -> None:
        lines = [text] if isinstance(text, str) else text
        self.code.append(_Instruction(pipe, lines, list(reads), list(writes), node))

    # -- nodes

    def node(self, node: Node) -> None:
        """Add the instructions of one node."""
        name = node.op.name
        if name in ("param", "scalar_param"):
            return
        if node.type is not None and not node.is_tile:
            self.scalars.node = node
            self.scalars.scalars[id(node)] = self.scalars.scalar_op(node)
            return
        tiles = [n.tile for n in (node, *node.operands) if n.is_tile]
        if any(t.dtype.itemsize == 8 for t in tiles):
            raise refuse(node, f"{name} of {tiles[0].dtype}: the vector unit of A2/A3 has no 64-bit elements.")
        rule = self.rule(node)
        if rule is None:
            raise refuse(
                node,
                f"{name} of {' and '.join(map(str, tiles[1:] or tiles))} has no PTO-ISA instruction that we emit;"
                " compile with ptoisa='ascendc'.",
            )
        rule(node)

    def rule(self, node: Node) -> Callable[[Node], None] | None:
        name = node.op.name
        if name in ("load", "store", "cast", "tsort32"):
            return {"load": self.load, "store": self.store, "cast": self.cast, "tsort32": self.sort}[name]
        if name in BINARY or name in UNARY or name in ROWS:
            dtype = node.operands[0].type.dtype  # type: ignore[union-attr]
            if dtype not in DTYPES[name]:
                kinds = ", ".join(map(str, DTYPES[name]))
                raise refuse(node, f"{name} of {dtype}: the vector unit of A2/A3 has it for {kinds} only.")
            return self.binary if name in BINARY else self.unary if name in UNARY else self.reduce
        if name in _LOOPS and node.is_tile and all(n.tile.rows == 1 for n in (node, *node.operands) if n.is_tile):
            return self.loop
        return None

    def load(self, node: Node) -> None:
        param = self.params[id(node.operands[0])]
        tile = self.value[id(node)] = self.tile(node, param.name)
        self.add("MTE2", f"TLOAD({tile.name}, {param.identifier}_at);", [f"GM {param.name}"], [tile], node)

    def store(self, node: Node) -> None:
        dst, src = node.operands
        param = self.params[id(dst)]
        tile = self.seen(src, (self.extent(dst, 0), self.extent(dst, 1)))
        self.add("MTE3", f"TSTORE({param.identifier}_at, {tile.name});", [tile], [f"GM {param.name}"], node)

    def cast(self, node: Node) -> None:
        (x,) = node.operands
        dst = self.made(node)
        src = self.seen(x, dst.valid)
        if src.dtype is dst.dtype:
            self.add("V", f"TMOV({dst.name}, {src.name});", [src], [dst], node)
            return
        mode = CASTS.get((src.dtype, dst.dtype))
        if mode is None:
            raise refuse(node, f"the vector unit of A2/A3 does not convert {src.dtype} to {dst.dtype} in one step; "
                               "go by f32.")
        self.add("V", f"TCVT({dst.name}, {src.name}, RoundMode::CAST_{mode});", [src], [dst], node)

    def binary(self, node: Node) -> None:
        x, y = node.operands
        name = BINARY[node.op.name]
        if not x.is_tile or x.tile.shape != node.tile.shape:
            raise refuse(node, f"{node.op.name} needs a tile of the result's shape as its first operand in PTO-ISA.")
        dst = self.made(node)
        src = self.seen(x, dst.valid)
        if not y.is_tile:
            number = self.scalars.scalars[id(y)].text
            if node.tile.dtype is F16:
                number = f"static_cast<half>({number})"
            self.add("V", f"T{name}S({dst.name}, {src.name}, {number});", [src], [dst], node)
            return
        if y.tile.shape == x.tile.shape:
            other, kind = self.seen(y, dst.valid), ""
        else:
            other, kind = self.value[id(y)], "ROWEXPAND" if y.tile.cols == 1 else "COLEXPAND"
        if y.tile.shape == (1, 1) != x.tile.shape:
            raise refuse(node, f"{node.op.name} with a tile of one element has no PTO-ISA instruction; use a scalar.")
        self.add("V", f"T{kind}{name}({dst.name}, {src.name}, {other.name});", [src, other], [dst], node)

    def unary(self, node: Node) -> None:
        dst = self.made(node)
        src = self.seen(node.operands[0], dst.valid)
        self.add("V", f"{UNARY[node.op.name]}({dst.name}, {src.name});", [src], [dst], node)

    def reduce(self, node: Node) -> None:
        (x,) = node.operands
        src = self.value[id(x)]
        if src.dtype is not node.tile.dtype:  # sums of f16 are f32
            wide = self.tile(x, src.name + "_wide", node.tile.dtype)
            self.add("V", f"TCVT({wide.name}, {src.name}, RoundMode::CAST_NONE);", [src], [wide], node)
            src = wide
        scratch = self.tile(x, "scratch", src.dtype)
        dst = self.made(node)
        call = f"{ROWS[node.op.name]}({dst.name}, {src.name}, {scratch.name});"
        self.add("V", call, [src], [dst, scratch], node)

    def sort(self, node: Node) -> None:
        scores, indices = (self.whole(n, fill, node) for n, fill in zip(node.operands, (-math.inf, 0), strict=True))
        dst = self.made(node)
        call = f"TSORT32({dst.name}, {scores.name}, {indices.name});"
        self.add("V", call, [scores, indices], [dst], node)

    def whole(self, operand: Node, fill: float, node: Node) -> _Tile:
        """The one row of an operand, filled up where it is partial."""
        tile = self.value[id(operand)]
        if tile.valid[1] == str(tile.cols):
            return tile
        number = literal(fill, tile.dtype)
        self.scalars.helpers |= {"FromBits"} if number.startswith("FromBits") else set()
        lines = [f"for (uint32_t c = {tile.valid[1]}; c < {tile.cols}; ++c) {{",
                 f"  {tile.name}.data()[c] = {number};", "}"]
        self.add("S", lines, [tile], [tile], node)
        return self.seen(operand, ("1", str(tile.cols)))

    def loop(self, node: Node) -> None:
        """A loop of the scalar unit over the one row of the result."""
        dst = self.made(node)
        operands = [self.value[id(o)] if o.is_tile else None for o in node.operands]
        parts = [self.scalars.scalars[id(o)].text if tile is None else f"{tile.name}.data()[c]"
                 for o, tile in zip(node.operands, operands, strict=True)]
        text = _LOOPS[node.op.name].format(*parts, t=C_TYPES[dst.dtype])
        if node.op.name == "extract_topk_indices":
            text = text.replace("[c]", "[2 * c + 1]")
        lines = [f"for (uint32_t c = 0; c < {node.tile.cols}; ++c) {{", f"  {dst.name}.data()[c] = {text};", "}"]
        self.add("S", lines, [t for t in operands if t is not None], [dst], node)

    # -- places and order

    def place(self) -> str:
        """Give every tile its offset, and order the instructions; the table of tiles.

        Tiles lie one after another while they fit; else a tile may lie where one lay that is no longer needed.
        """
        for i, one in enumerate(self.code):
            for tile in {id(t.home): t.home for t in (*one.reads, *one.writes) if isinstance(t, _Tile)}.values():
                tile.first, tile.last = i if tile.first < 0 else tile.first, i
        homes = [t for t in self.tiles if t.of is None]
        reuse = sum(t.bytes for t in homes) > UB_BYTES
        placed: list[_Tile] = []
        for tile in homes:
            others = [t for t in placed if not reuse or (t.first <= tile.last and tile.first <= t.last)]
            places = [0, *(t.offset + t.bytes for t in others)]
            tile.offset = min(p for p in places
                              if all(p + tile.bytes <= t.offset or t.offset + t.bytes <= p for t in others))
            placed.append(tile)
        for tile in self.tiles:
            tile.offset = tile.home.offset
        self._check_fits(homes)
        _order(self.code)
        rows = [f"{t.name:<16} UB {t.offset:>7} {t.bytes:>7}  {t.rows}x{t.cols} {t.dtype}" for t in homes]
        return "\n".join([f"{'tile':<16}    {'offset':>7} {'bytes':>7}", *rows])

    def _check_fits(self, homes: list[_Tile]) -> None:
        end = max((t.offset + t.bytes for t in homes), default=0)
        if end > UB_BYTES:
            worst = max(range(len(self.code)), key=lambda i: sum(t.bytes for t in homes if t.first <= i <= t.last))
            alive = [t for t in homes if t.first <= worst <= t.last]
            listed = "\n".join(f"  {t.name}: {t.rows}x{t.cols} {t.dtype}, {t.bytes} bytes" for t in alive)
            raise refuse(
                self.code[worst].node,
                f"kernel {self.graph.name}: its tiles need {end} bytes of UB, {UB_BYTES} are there:\n{listed}\n"
                "PTO-ISA kernels work on whole tiles; give them fewer rows.",
            )


_LOOPS = {
    "iota_u32": "c",
    "extract_topk_indices": "static_cast<int32_t>({0})",
    "select": "{0} != 0 ? {1} : {2}",
    **{name: f"static_cast<{{t}}>({{0}} {sign} {{1}})" for name, sign in SCALAR_COMPARE.items()},
}
"""Element c of a row, from those of the operands: what the scalar unit does."""


# ---- order -----------------------------------------------------------------------------------------------------------


def _touch(a: _Tile | str, b: _Tile | str) -> bool:
    """May the two share memory? Parameters in GM may be the same region."""
    if isinstance(a, str) or isinstance(b, str):
        return isinstance(a, str) and isinstance(b, str)
    x, y = a.home, b.home
    return x.offset < y.offset + y.bytes and y.offset < x.offset + x.bytes


def _conflicts(a: _Instruction, b: _Instruction) -> bool:
    pairs = [(x, y) for x in a.writes for y in (*b.reads, *b.writes)] + [(x, y) for x in a.reads for y in b.writes]
    return any(_touch(x, y) for x, y in pairs)


def _order(code: list[_Instruction]) -> None:
    """Add the flags and barriers that the order of the instructions needs, and no others.

    A pipe keeps its own order of issue; a clock per instruction says up to which instruction of every pipe all is known
    to be done when it begins.
    """
    clocks: list[dict[str, int]] = []
    known: dict[str, dict[str, int]] = {}  # per pipe, when its next instruction begins
    for i, one in enumerate(code):
        clock = known.setdefault(one.pipe, {})
        needed: dict[str, int] = {}
        for j in range(i - 1, -1, -1):
            other = code[j]
            if other.pipe not in needed and clock.get(other.pipe, -1) < j and _conflicts(other, one):
                needed[other.pipe] = j
        for pipe, j in sorted(needed.items(), key=lambda item: -item[1]):
            if clock.get(pipe, -1) >= j:
                continue  # known by way of another one
            if pipe == one.pipe:
                if pipe != "S":
                    one.before.append(f"pipe_barrier(PIPE_{pipe});")
            else:
                _flag(code, j, i)
                for further, upto in clocks[j].items():
                    clock[further] = max(clock.get(further, -1), upto)
            clock[pipe] = i - 1 if pipe == one.pipe else j
        clocks.append(dict(clock))


def _flag(code: list[_Instruction], j: int, i: int) -> None:
    """Instruction i waits for j, by an event that no other pair between the two pipes holds meanwhile."""
    pair = f"PIPE_{code[j].pipe}, PIPE_{code[i].pipe}"
    taken = {line for one in code[j + 1 : i + 1] for line in one.before}
    event = next((k for k in range(8) if f"wait_flag({pair}, EVENT_ID{k});" not in taken), None)
    if event is None:
        raise CompileError(f"more than 8 events are open between {pair} at once; split the kernel.")
    code[j].after.append(f"set_flag({pair}, EVENT_ID{event});")
    code[i].before.append(f"wait_flag({pair}, EVENT_ID{event});")


# ---- text ------------------------------------------------------------------------------------------------------------


def _header(
    name: str, graph: KernelGraph, params: dict[int, SourceParam], emitter: _Emitter, table: str,
    includes: Sequence[str],
) -> str:  # fmt: skip
    guard = f"PTO_WSP_KERNEL_{name.upper()}_H_"
    first = next((n.line for n in graph.nodes if n.line is not None), None)
    lines = [f"// Kernel {comment(graph.name)}{', ' + place_of(first).rsplit(':', 1)[0] if first else ''}."
             " PTO-ISA tile code, written by pto_wsp.", "//"]
    for p in params.values():
        kind = f"{p.direction} tile {p.rows}x{p.cols} {p.dtype}" if p.is_tile else f"scalar {p.dtype}"
        lines.append(f"//   {p.identifier}: {kind}")
    lines += ["//", *(f"// {line}".rstrip() for line in table.splitlines())]
    more = [f"#include {i}" if i.startswith("<") else f'#include "{i}"' for i in includes]
    helpers = [HELPERS[h] for h in HELPERS if h in emitter.scalars.helpers]
    arguments = ["[[maybe_unused]] AscendC::TPipe *pipe"]
    arguments += [f"const GmTile &{p.identifier}_gm" for p in params.values() if p.is_tile]
    arguments += [f"[[maybe_unused]] {p.c_type} {p.identifier}" for p in params.values() if not p.is_tile]
    body = [*_declarations(params, emitter), "", *_instructions(emitter.code)]
    start = signature("__aicore__ inline void Run(", arguments, ") {")
    run = [start, *(f"  {line}".rstrip() for line in body), "}"]
    return "\n".join([*lines, f"#ifndef {guard}", f"#define {guard}", "", '#include "kernel_operator.h"',
                      "#include <pto/pto-inst.hpp>", *more, "", GM_TILE, f"namespace pto_{name} {{", "",
                      "using namespace pto;", "", *helpers, *run, "", f"}}  // namespace pto_{name}", "",
                      f"#endif  // {guard}"]) + "\n"


def _declarations(params: dict[int, SourceParam], emitter: _Emitter) -> list[str]:
    """Scalars, types, views of global memory, tiles and their places."""
    lines = [line for step in (*emitter.scalars.phase.before, *emitter.scalars.phase.body) for line in step.lines]
    lines += ["using GmShape = Shape<1, 1, 1, DYNAMIC, DYNAMIC>;", "using GmStride = Stride<1, 1, 1, DYNAMIC, 1>;"]
    used = {t.split(" ", 1)[1] for one in emitter.code for t in (*one.reads, *one.writes) if isinstance(t, str)}
    for p in params.values():
        if p.is_tile and p.name in used:
            gm = f"{p.identifier}_gm"
            lines += wrapped([
                f"GlobalTensor<{p.c_type}, GmShape, GmStride, Layout::ND> {p.identifier}_at("
                f"(__gm__ {p.c_type} *){gm}.addr, GmShape({gm}.rows, {gm}.cols), GmStride({gm}.rowStride));"
            ])
        elif p.is_tile:
            lines.append(f"(void){p.identifier}_gm;")
    kinds: dict[str, str] = {}
    for t in emitter.tiles:
        valid = ", ".join(v if v.isdigit() else "DYNAMIC" for v in t.valid)
        shape = f"{C_TYPES[t.dtype]}, {t.rows}, {t.pitch}"
        kinds[t.kind] = f"    Tile<TileType::Vec, {shape}, BLayout::RowMajor, {valid}>;"
    lines += [line for name, text in kinds.items() for line in (f"using {name} =", text)]
    for t in emitter.tiles:
        given = ", ".join(v for v in t.valid if not v.isdigit())
        lines.append(f"{t.kind} {t.name}{f'({given})' if given else ''};")
    return [*lines, *(f"TASSIGN({t.name}, 0x{t.offset:05x});" for t in emitter.tiles)]


def _instructions(code: list[_Instruction]) -> list[str]:
    lines: list[str] = []
    said: Any = None
    for one in code:
        line = one.node.line if one.node is not None else None
        if line is not None and (line.file, line.line) != said:
            said = line.file, line.line
            lines.append("// " + comment(f"{place_of(line)}: {source_of(line)}"))
        lines += [*one.before, *one.lines, *one.after]
    return [*lines, "pipe_barrier(PIPE_ALL);  // the next task uses the same places"]


