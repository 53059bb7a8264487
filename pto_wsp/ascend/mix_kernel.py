"""Kernels with products: the phases of mix.py as source for a cube core and its two vector cores."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from pto_wsp.ascend import cube, mix
from pto_wsp.ascend.body import ceil_to
from pto_wsp.ascend.dtypes import C_TYPES, refuse
from pto_wsp.ascend.lines import comment_on, signature, wrapped
from pto_wsp.ascend.names import Names
from pto_wsp.ascend.placement import Row
from pto_wsp.ascend.source import Extent, Parts, SourceParam
from pto_wsp.ascend.vector_kernel import VectorKernel
from pto_wsp.errors import CompileError
from pto_wsp.trace.graph import KernelGraph, Node

__all__ = ["MixKernel"]

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
                if index:
                    mine.append("PipeBarrier<PIPE_ALL>();")  # between phases the flags say that all is done
                if index or (number > 1 and mine):
                    mine.append("pipe->Reset();")
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
        lines = [comment_on(node), line]
        if product.adds:
            acc = C_TYPES[product.out_dtype]
            lines = [comment_on(node), f"SetAtomicAdd<{acc}>();", line, "SetAtomicNone();"]
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
                comment_on(item.node),
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
