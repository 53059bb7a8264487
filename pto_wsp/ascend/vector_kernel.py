"""Kernels of one vector core: how a graph is cut into strips, placed in UB, put in order and written down."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from pto_wsp.ascend import placement, sync
from pto_wsp.ascend.body import BLOCK, Buffer, Scalar, Shape, Step, ceil_to, named
from pto_wsp.ascend.dtypes import C_TYPES
from pto_wsp.ascend.lines import comment_on, counted, wrapped
from pto_wsp.ascend.names import Names
from pto_wsp.ascend.placement import UB_BYTES, Layout, Row
from pto_wsp.ascend.source import HELPERS, Extent, Parts, SourceParam, params_of
from pto_wsp.ascend.strided import ROWS_AT_ONCE
from pto_wsp.ascend.vector import emit
from pto_wsp.ascend.writer import Writer
from pto_wsp.errors import CompileError, OperandError
from pto_wsp.trace.graph import KernelGraph, Node, Param
from pto_wsp.types import TileType

__all__ = ["VectorKernel"]

STRIP_BYTES = 16 * 1024  # of the largest tile of a strip: copies shorter than this waste bandwidth
MOST_QUEUES = 8  # buffers of all queues of one position, together
WHOLE_TILE = {"colsum", "colmax", "colmin", "colmean", "transpose", "tsort32", "extract_topk_indices"}


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
                emit(w, node)
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
        again = looped and not (self.shared and 2 * self.strip >= self.rows)  # a core has more than one strip
        used = list({id(b): b for s in (*phase.before, *phase.body) for b in (*s.reads, *s.writes)}.values())
        used += [b for _, b in self.loads if b not in used]
        names = self._named(used)
        orders = sync.orders(
            phase.before,
            phase.body,
            [b for _, b in self.loads if b.kind == "once"],
            [b for _, b in self.loads if b.kind == "in"],
            again,
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
        body = counted(body)
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
            if step.node is not None and comment_on(step.node) != about:
                about = comment_on(step.node)
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
