"""aicpu/expand.aicpu: the workload as a C++ program that makes its tasks on the device.

Loops stay loops, conditions stay conditions, and each kernel call becomes a function that describes one task to the
table of task_table.h. Calls of one kernel that differ in numbers only, such as those of an unrolled Python loop, share
a function. So the text grows with the workload that was written and not with the number of its tasks.

Start reading at `expand_aicpu`, then `_Writer.node`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pto_wsp.ascend.emission import Emission, EmittedCall, Orders
from pto_wsp.ascend.expressions import Scope, Text, Variable, integer, write
from pto_wsp.ascend.lines import wrapped
from pto_wsp.ascend.names import Names, comment, place_of, source_of
from pto_wsp.ascend.plan import constant_array
from pto_wsp.errors import CompileError
from pto_wsp.scalar_expr import Expr, LoopVar, constant_of, fnv1a_64
from pto_wsp.trace import tree
from pto_wsp.trace.bindings import Binding, Dim
from pto_wsp.trace.extents import Source
from pto_wsp.trace.graph import Param
from pto_wsp.types import Dense, DenseDyn, DType, Ragged, RaggedRow, Sparse, SparseRow, Symbol

__all__ = ["expand_aicpu"]

WIDTH = 80
LONGEST_AXIS = 1 << 40  # iterations of a loop whose size is set when the program runs, as on the CPU
_RESERVED = frozenset("table exact after stream p value expander level".split()) | frozenset(
    "at rows cols column across in out inout".split()
)
_HOLE = re.compile("§(\\d+)§")  # a number of one call in the text that it shares with others


def expand_aicpu(e: Emission) -> str:
    """The text of aicpu/expand.aicpu.

    raises CompileError at the user's line for what the device cannot do
    """
    return _Writer(e).text()


class _Writer:
    def __init__(self, e: Emission) -> None:
        self.e, self.orders = e, e.orders
        self.templates: dict[str, _Template] = {}
        self.template_of: dict[int, tuple[_Template, tuple[str, ...]]] = {}  # by number of the call
        self.symbols = {s.name: f"table_.symbol(plan::{s.enum})" for s in e.symbols}
        self.slots = {slot: f"table_.slot(plan::kSlot{slot})" for slot in e.slots}
        self.waited = {e.number_of[id(h)] for call in e.calls for h in call.task.after}  # calls named in after=[...]
        self.names = Names(_RESERVED | Names()._taken)

    def text(self) -> str:
        loops = _Finder(self).run()
        self.find_templates(loops)
        body = self.node(self.e.tree.root, self.scope(), "    ")
        functions = [line for t in self.templates.values() for line in [*t.written(), ""]]
        return "\n".join([
            *self.head(),
            "namespace {",
            "",
            *self.using([*functions, *body]),
            "// The workload, statement by statement.",
            "class Workload {",
            " public:",
            "  explicit Workload(plan::Plan *p) : table_(p) {}",
            "",
            "  // One pass over the table; an Error.",
            "  uint32_t Run() {",
            "    Expand();",
            "    return table_.Finish();",
            "  }",
            "",
            " private:",
            *functions,
            "  // False when the pass ends early: the table is full, or it has an error.",
            "  bool Expand() {",
            *body,
            "    return true;",
            "  }",
            "",
            *self.members(),
            "  aicpu::TaskTable table_;",
            "};",
            "",
            "}  // namespace",
            "",
            *_ENTRY,
            "",
        ])  # fmt: skip

    def scope(self) -> Scope:
        return Scope((), self.symbols, self.slots)

    def head(self) -> list[str]:
        printed = []
        for line in str(self.e.tree).splitlines():
            indent = " " * min(len(line) - len(line.lstrip()), 20)
            printed.append(f"//   {indent}{comment(line, WIDTH - 5 - len(indent))}")
        if len(printed) > 40:
            printed = [*printed[:39], f"//   ... {len(printed) - 39} more lines"]
        return [
            f"// The task generator of {comment(self.e.title, 40)}.",
            "// Written by pto_wsp.",
            "//",
            *printed,
            '#include "aicpu/task_table.h"',
            '#include "include/plan.h"',
            "",
        ]

    def using(self, lines: Sequence[str]) -> list[str]:
        """The words of task_table.h that the text uses."""
        text = "\n".join(lines)
        used = [w for w in ("Across", "At", "Cols", "Column", "Rows") if re.search(rf"(?<!:)\b{w}\(", text)]
        used += [w for w in ("kIn", "kInOut", "kOut") if re.search(rf"(?<!:)\b{w}\b", text)]
        return [*(f"using aicpu::{w};" for w in used), *([""] if used else [])]

    def members(self) -> list[str]:
        """What is remembered from task to task, beside the table."""
        out = []
        if self.orders.streams:
            out.append("  // The first level after the last task of each stream.")
            out.append(f"  uint32_t stream_[{self.orders.streams}] = {{}};")
        if self.waited:
            out.append("  // The first level after the last task of a call named in after=[...].")
        out += [f"  uint32_t after_{number}_ = 0;" for number in sorted(self.waited)]
        return out

    # -- the tree

    def node(self, node: tree.TreeNode, scope: Scope, indent: str) -> list[str]:
        """Statements for a node."""
        scope = replace(scope, line=getattr(node, "line", None))
        if isinstance(node, tree.TaskCall):
            return self.call(self.e.calls[self.e.number_of[id(node)]], scope, indent)
        if isinstance(node, tree.Block):
            return self.block(node, scope, indent)
        if isinstance(node, tree.Loop):
            return self.loop(node, scope, indent)
        if isinstance(node, tree.Cond):
            return self.cond(node, scope, indent)
        if isinstance(node, tree.SlotSet):
            value = f"UINT64_C({node.value})"
            return [*_source(node, indent), f"{indent}table_.Set(plan::kSlot{node.slot}, {value});"]
        assert isinstance(node, tree.SlotLoad)
        return self.load(node, scope, indent)

    def block(self, node: tree.Block, scope: Scope, indent: str) -> list[str]:
        children = [child for child in node.children if _does_something(child)]
        steps = sum(_makes_tasks(child) for child in children)
        if node.parallel or steps < 2:
            return [line for child in children for line in self.node(child, scope, indent)]
        out = []
        for child in children:
            out += self.node(child, scope, indent)
            if _makes_tasks(child):
                out.append(f"{indent}table_.Next();")
        return self.sequence(out, indent)

    def sequence(self, steps: list[str], indent: str) -> list[str]:
        outer = self.names.new("outer")
        opened = f"{indent}const aicpu::TaskTable::Frame {outer} = table_.Open();  // in order"
        return [*_wrap([opened]), *steps, f"{indent}table_.Close({outer});"]

    def cond(self, node: tree.Cond, scope: Scope, indent: str) -> list[str]:
        constant = constant_of(node.pred)
        if constant is not None:
            return self.node(node.then if constant else node.orelse, scope, indent)
        if not _does_something(node):
            return []
        found = write(node.pred, scope)
        holds = found.text if found.type == "bool" else f"({found.text}) != 0"
        inside = indent + "  "
        then = [*self.absent(node.orelse, inside), *self.node(node.then, scope, inside)]
        orelse = self.absent(node.then, inside)
        if _does_something(node.orelse):
            orelse += self.node(node.orelse, scope, inside)
        out = [*_source(node, indent), f"{indent}if ({holds}) {{", *then]
        if orelse:
            out += [f"{indent}}} else {{", *orelse]
        return _wrap([*out, f"{indent}}}"])

    def absent(self, branch: tree.TreeNode, indent: str) -> list[str]:
        """Nothing waits for the calls of the branch that is not taken."""
        calls = [self.e.number_of.get(id(node)) for node in tree.walk(branch) if isinstance(node, tree.TaskCall)]
        return [f"{indent}after_{number}_ = 0;" for number in calls if number in self.waited]

    def loop(self, node: tree.Loop, scope: Scope, indent: str) -> list[str]:
        if not _does_something(node):
            return []
        name = self.names.new(node.var.name)
        head, low, high, inner = self.iterations(node, name, scope, indent)
        variable = Variable(node.var, name, low, high)
        body = self.node(node.body, scope.inside(variable), indent + "  ")
        ordered = not node.parallel and _makes_tasks(node.body)
        if ordered:
            body.append(f"{indent}  table_.Next();")
        *before, opening = head
        loop = [*_wrap([opening]), *inner, *body, f"{indent}}}"]
        return [*_source(node, indent), *before, *(self.sequence(loop, indent) if ordered else loop)]

    def iterations(
        self, node: tree.Loop, name: str, scope: Scope, indent: str
    ) -> tuple[list[str], int, int, list[str]]:
        """Lines up to the opening brace, least and most value, and lines that begin the body."""
        axis = node.axis
        count = f"{indent}for (int64_t {name} = 0; {name} < %s; ++{name}) {{"
        if isinstance(axis, tuple):
            values = self.names.new(f"{name}_values")
            array = constant_array(f"static constexpr int64_t {values}[]", [integer(v) for v in axis])
            head = [*(indent + line for line in array), f"{indent}for ([[maybe_unused]] int64_t {name} : {values}) {{"]
            return head, min(axis), max(axis), []
        if isinstance(axis, DenseDyn):
            size = self.e.sizes[self.e.number_of[id(node)]]
            return [count % f"table_.size(plan::{size.enum})"], 0, LONGEST_AXIS - 1, []
        if isinstance(axis, (int, Dense)):
            size_of = axis if isinstance(axis, int) else axis.size
            return [count % integer(size_of)], 0, size_of - 1, []
        return self.dynamic(node, name, scope, indent)

    def dynamic(self, node: tree.Loop, name: str, scope: Scope, indent: str) -> tuple[list[str], int, int, list[str]]:
        """The same for an axis whose data the host sets."""
        axis = node.axis
        row = axis.row if isinstance(axis, (RaggedRow, SparseRow)) else None
        whole = axis.ragged if isinstance(axis, RaggedRow) else axis.sparse if isinstance(axis, SparseRow) else axis
        assert isinstance(whole, (Ragged, Sparse))
        enum = self.e.axes[self.e.number_of[id(whole)]].enum
        first, last = self.names.new(f"{name}_first"), self.names.new(f"{name}_last")
        head = [f"{indent}int64_t {first}, {last};"]
        if row is None:
            head.append(f"{indent}table_.AllRows(plan::{enum}, &{first}, &{last});")
        else:
            found = write(row, replace(scope, exact=True))
            text = found.text if found.type == "i64" else f"static_cast<int64_t>({found.text})"
            if "exact." in text:
                exact, where = self.names.new("checked"), self.names.new(f"{name}_row")
                head.append(f"{indent}aicpu::Exact {exact};")
                head.append(f"{indent}const int64_t {where} = {text.replace('exact.', exact + '.')};")
                text = f"{exact}.ok ? {where} : -1"
            head.append(f"{indent}if (!table_.Row(plan::{enum}, {text}, &{first}, &{last})) {{")
            head += [f"{indent}  return false;", f"{indent}}}"]
        if isinstance(whole, Ragged):
            head.append(f"{indent}for (int64_t {name} = {first}; {name} < {last}; ++{name}) {{")
            return _wrap(head), 0, LONGEST_AXIS - 1, []
        at = self.names.new(f"{name}_at")
        head.append(f"{indent}for (int64_t {at} = {first}; {at} < {last}; ++{at}) {{")
        inner = f"{indent}  [[maybe_unused]] const int64_t {name} = table_.Index(plan::{enum}, {at});"
        return _wrap(head), 0, (1 << 31) - 1, _wrap([inner])

    def load(self, node: tree.SlotLoad, scope: Scope, indent: str) -> list[str]:
        number = self.e.number_of[id(node)]
        load = self.e.loads[number]
        tensor, inner = self.e.tensors[load.tensor], replace(scope, exact=True)
        exact = self.names.new("checked")
        conditions = []
        for index, extent in load.inside:
            conditions.append(f"!table_.Inside({_signed(index, inner)}, {extent}, {number})")
        dims = ", ".join(_dim_text(dim, 1, True, inner) for dim in load.dims)
        written = str(tensor.direction != "in").lower()
        call = f"!table_.Load(plan::kSlot{node.slot}, plan::{tensor.enum}, {written}, {{{dims}}}, {number})"
        conditions.append(call)
        text = " || ".join(conditions)
        before = []
        if "exact." in text:
            before = [f"{indent}aicpu::Exact {exact};"]
            text = text.replace("exact.", f"{exact}.") + f" || !table_.Check({exact})"
        return [
            *_source(node, indent),
            *before,
            *_wrap([f"{indent}if ({text}) {{"]),
            f"{indent}  return false;",
            f"{indent}}}",
        ]

    # -- tasks

    def call(self, call: EmittedCall, scope: Scope, indent: str) -> list[str]:
        template, numbers = self.template_of[call.number]
        loops = {v.var: v.name for v in scope.loops}
        given = [loops[var] for var in template.loops] + template.given(numbers)
        line = f"{indent}if (!{template.name}({', '.join(given)})) {{"
        return [*_wrap([line]), f"{indent}  return false;", f"{indent}}}"]

    def find_templates(self, loops: dict[int, Scope]) -> None:
        """The functions, and which calls each of them serves."""
        for call in self.e.calls:
            body, numbers, used = _Task(self, call, loops[call.number]).body()
            key = f"{call.kernel.enum} {[id(v) for v in used]} {body}"
            if key not in self.templates:
                names = tuple(v.name for v in loops[call.number].loops if any(v.var is u for u in used))
                self.templates[key] = _Template(call, used, names, body)
            self.templates[key].uses.append(numbers)
            self.template_of[call.number] = (self.templates[key], numbers)
        for template in self.templates.values():
            template.settle()


class _Finder:
    """The loops around each call, with names as good in its function as in Expand()."""

    def __init__(self, writer: _Writer) -> None:
        self.writer, self.found = writer, dict[int, Scope]()

    def run(self) -> dict[int, Scope]:
        self.visit(self.writer.e.tree.root, self.writer.scope())
        return self.found

    def visit(self, node: tree.TreeNode, scope: Scope) -> None:
        if isinstance(node, tree.TaskCall):
            names = Names(_RESERVED | Names()._taken)
            named = tuple(replace(v, name=names.new(v.var.name)) for v in scope.loops)
            self.found[self.writer.e.number_of[id(node)]] = replace(scope, loops=named, line=node.line)
        elif isinstance(node, tree.Loop):
            low, high = _range(node.axis)
            self.visit(node.body, scope.inside(Variable(node.var, node.var.name, low, high)))
        else:
            for child in tree.children(node):
                self.visit(child, scope)


class _Template:
    """A function for the tasks of one or several calls. The text has holes where their numbers go."""

    def __init__(self, call: EmittedCall, loops: tuple[LoopVar, ...], names: tuple[str, ...], body: str) -> None:
        self.call, self.name, self.loops, self.names, self.body = call, call.function, loops, names, body
        self.uses: list[tuple[str, ...]] = []
        self.holes: dict[int, str] = {}  # hole -> name of its parameter, for those that differ between calls

    def settle(self) -> None:
        for hole, values in enumerate(zip(*self.uses, strict=True)):
            if len(set(values)) > 1:
                same = next((k for k in self.holes if all(u[k] == u[hole] for u in self.uses)), None)
                self.holes[hole] = f"n{len(set(self.holes.values()))}" if same is None else self.holes[same]
        if self.holes.get(0):
            self.holes[0] = "call"

    def given(self, numbers: tuple[str, ...]) -> list[str]:
        """The arguments of one call beside its loop variables."""
        first: dict[str, int] = {}
        for hole, name in self.holes.items():
            first.setdefault(name, hole)
        return [numbers[hole] for hole in first.values()]

    def written(self) -> list[str]:
        numbers = self.uses[0]
        body = _HOLE.sub(lambda m: self.holes.get(int(m[1]), numbers[int(m[1])]), self.body)
        kinds = {name: "uint32_t" if name == "call" else "int64_t" for name in self.holes.values()}
        arguments = [f"int64_t {name}" for name in self.names] + [f"{kind} {name}" for name, kind in kinds.items()]
        title = _source(self.call.task, "  ") or [f"  // {comment(self.call.kernel.name)}"]
        more = f"  // and {len(self.uses) - 1} more calls" if len(self.uses) > 1 else None
        return [
            *title,
            *([more] if more else []),
            *_wrap([f"  bool {self.name}({', '.join(arguments)}) {{"]),
            *_wrap(body.splitlines()),
            "  }",
        ]


@dataclass
class _Task:
    """The body of the function of one call."""

    writer: _Writer
    call: EmittedCall
    scope: Scope

    def __post_init__(self) -> None:
        self.numbers: list[str] = []
        self.used: dict[int, LoopVar] = {}

    def hole(self, number: int) -> str:
        """A number of this call, which another call may have different."""
        self.numbers.append(integer(number))
        return f"§{len(self.numbers) - 1}§"

    def body(self) -> tuple[str, tuple[str, ...], tuple[LoopVar, ...]]:
        call, e, orders = self.call, self.writer.e, self.writer.orders
        core = {"AIV": "kVector", "AIC": "kCube", "MIX": "kMix"}[call.kernel.core]
        number = self.hole(call.number)
        out = [
            f"if (!table_.Begin(plan::{call.kernel.enum}, plan::{core}, {number})) {{",
            "  return table_.Skipped();",
            "}",
        ]
        inner = replace(self.scope, exact=True)
        for binding, apart in zip(call.tiles, call.apart, strict=True):
            tensor = e.tensors[binding.tensor].enum
            access = {"in": "kIn", "out": "kOut", "inout": "kInOut"}[binding.param.direction]
            dims = ", ".join(self.dim(binding, dim, apart, inner) for dim in binding.dims)
            out.append(f"table_.Tile(plan::{tensor}, {access}, {{{dims}}});")
        if any("exact." in line for line in out):
            out = ["aicpu::Exact exact;", *out, "table_.Check(exact);"]
        out += self.agreement() + self.overlaps()
        scalars = [self.scalar(p, value) for p, value in call.scalars]
        axes = [self.axis(value) for value in call.task.axes]
        out += [f"table_.Scalar({word});" for word, _ in scalars]
        out += [f"table_.Axis({word.text});" for word in axes]
        out += [f"table_.After(after_{e.number_of[id(h)]}_);" for h in call.task.after]
        out += self.end(orders, self.params(axes, scalars))
        text = "\n".join(f"    {line}" for line in out)
        names = {v.name: v.var for v in self.scope.loops}
        used = tuple(var for name, var in names.items() if re.search(rf"(?<![\w:.]){name}\b", _code(text)))
        return text, tuple(self.numbers), used

    def dim(self, binding: Binding, dim: Dim, apart: bool, scope: Scope) -> str:
        """At(b), Rows(0, 16), Cols(j * 64, 64)."""
        tile = binding.param.node.tile
        constant = constant_of(dim.start)
        start = self.hole(constant) if constant is not None else None
        size = {"rows": tile.rows, "cols": tile.cols}.get(dim.role, 1)
        return _dim_text(dim, size, apart or (dim.role == "cols") != (tile.cols > 1), scope, start)

    def agreement(self) -> list[str]:
        """Valid extents that have to be equal."""
        lines = []
        for group in self.call.kernel.agreeing:
            if len(group) > 1:
                extents = ", ".join(_extent(source) for source in group)
                lines.append(f"table_.Agree({{{extents}}}, {group[0].param});")
        return lines

    def overlaps(self) -> list[str]:
        """Tiles of one tensor, one of them written: a kernel cannot have them overlap, or only as the same tile."""
        tiles, lines = self.call.tiles, []
        for b in range(len(tiles)):
            for a in range(b):
                written = "in" != tiles[a].param.direction or "in" != tiles[b].param.direction
                if tiles[a].tensor == tiles[b].tensor and written:
                    alike = tiles[a].param.node.tile == tiles[b].param.node.tile
                    equal = str(self.call.kernel.core == "AIV" and alike).lower()
                    lines.append(f"table_.Apart({a}, {b}, {equal});")
        return lines

    def axis(self, value: Any) -> Text:
        if isinstance(value, (Expr, LoopVar)) and constant_of(value) is None:
            found = write(value, self.scope)
            return found if found.type == "i64" else replace(found, text=f"static_cast<int64_t>({found.text})")
        number = fnv1a_64(value) if isinstance(value, str) else int(_plain(value))
        number = number - (1 << 64) if number >= 1 << 63 else number
        return Text(self.hole(number), "i64", low=number, high=number)

    def scalar(self, param: Param, value: Any) -> tuple[str, Text | None]:
        """The argument word of a scalar, and the same as a key reads it: a float by its bits, in its own type."""
        dtype = param.type.dtype
        if dtype.is_float:
            word = self.float_scalar(value, dtype)
            return word, Text(word, "i64") if dtype is DType.F32 else None
        if isinstance(value, Symbol):
            return _narrowed(self.writer.symbols[value.sym], dtype)
        if _symbolic(value) and constant_of(value) is None:
            return _narrowed(write(value, self.scope).text, dtype)
        number = _plain(value)
        whole, limits = int(number), np.iinfo(dtype.numpy)
        if not limits.min <= whole <= limits.max:
            raise CompileError(f"scalar {param.name}: {number} does not fit {dtype.value}.").at(self.call.task.line)
        whole = whole - (1 << 64) if whole >= 1 << 63 else whole
        text = self.hole(whole)
        return text, Text(text, "i64", low=whole, high=whole)

    def float_scalar(self, value: Any, dtype: DType) -> str:
        """The argument word of a float scalar."""
        if isinstance(value, Symbol):
            word = self.writer.symbols[value.sym]
            if dtype is DType.F32:
                return f"aicpu::Word<uint32_t>({word})"
            return f"aicpu::FloatWord({_half(dtype)}(aicpu::BitsAs<float>(static_cast<uint32_t>({word}))))"
        if _symbolic(value) and constant_of(value) is None:
            single = f"static_cast<float>({write(value, self.scope).text})"
            return f"aicpu::FloatWord({single if dtype is DType.F32 else f'{_half(dtype)}({single})'})"
        return _float_word(float(_plain(value)), dtype)

    def params(self, axes: Sequence[Text], scalars: Sequence[tuple[str, Text | None]]) -> list[Text | None]:
        """What task_param(i) reads in a key."""
        tiles = [
            Text(f"int64_t{{table_.{side}({k})}}", "i64", low=0, high=1 << 31)
            for k in range(len(self.call.tiles))
            for side in ("rows", "cols")
        ]
        return [*axes, *tiles, *(text for _, text in scalars)]

    def end(self, orders: Orders, params: Sequence[Text | None]) -> list[str]:
        """The target, by the dispatch policy; then what later tasks have to know."""
        lines = []
        if orders.streams:
            stream = "table_.number()" if orders.stream_key is None else self.key(orders.stream_key, params)
            lines += [f"const uint64_t stream = {stream} % {orders.streams};", "table_.After(stream_[stream]);"]
        if orders.by_stream:
            target = "stream"
        elif orders.dispatch == "round_robin":
            target = "table_.number() % plan::kTargets"
        elif orders.key is not None:
            target = f"{self.key(orders.key, params)} % plan::kTargets"
        else:
            target = "0"
        later = ["stream_[stream] = table_.Following();"] if orders.streams else []
        if self.call.number in self.writer.waited:
            later.append(f"after_{self.call.number}_ = table_.Following();")
        if not later:
            return [*lines, f"return table_.End({target});"]
        return [*lines, f"if (!table_.End({target})) {{", "  return false;", "}", *later, "return true;"]

    def key(self, key: Expr, params: Sequence[Text | None]) -> str:
        """A key as a uint64_t."""
        for leaf in key.leaves():
            if leaf.kind == "task_param" and leaf.a < len(params) and params[leaf.a] is None:
                raise CompileError(
                    f"the key {key} reads task_param({leaf.a}), the bits of a 16-bit float, which the device keeps as "
                    "an f32; use an axis value or a symbol."
                ).at(self.call.task.line)
        found = write(key, replace(self.scope, params=params))  # type: ignore[arg-type]
        return found.inside(12) if found.type == "u64" else f"static_cast<uint64_t>({found.text})"


# ---- pieces ----------------------------------------------------------------------------------------------------------


def _dim_text(dim: Dim, size: int, apart: bool, scope: Scope, start: str | None = None) -> str:
    """One dimension of a tile, as task_table.h says it. apart: its elements may lie at any distance."""
    text = start or _signed(dim.start, scope)
    most = size if dim.extent is None else min(size, dim.extent)
    bounds = [] if dim.within is None else [_signed(bound, scope) for bound in dim.within]
    if dim.role == "fixed":
        return f"At({', '.join([text, *bounds])})"
    name = {("rows", False): "Column", ("rows", True): "Rows", ("cols", False): "Cols", ("cols", True): "Across"}
    return f"{name[dim.role, apart]}({', '.join([text, str(most), *bounds])})"


def _signed(value: Any, scope: Scope) -> str:
    found = write(value, scope)
    return found.text if found.type == "i64" else f"static_cast<int64_t>({found.text})"


def _extent(source: Source) -> str:
    text = f"table_.{'cols' if source.axis else 'rows'}({source.param})"
    text += f" / {source.den}" if source.den > 1 else ""
    return text + (f" * {source.num}" if source.num > 1 else "")


def _symbolic(value: Any) -> bool:
    return isinstance(value, (Expr, LoopVar))


def _plain(value: Any) -> Any:
    """The number that a constant expression is."""
    return constant_of(value) if _symbolic(value) else value


def _half(dtype: DType) -> str:
    return "aicpu::AsBfloat16" if dtype is DType.BF16 else "aicpu::AsHalf"


def _narrowed(word: str, dtype: DType) -> tuple[str, Text]:
    """A 64-bit word as an integer parameter takes it: the low bits."""
    c_type = f"{'' if dtype.is_signed else 'u'}int{dtype.bits}_t"
    text = f"aicpu::Word<{c_type}>({word})"
    return text, Text(text, "i64")


def _float_word(number: float, dtype: DType) -> str:
    """The word of a float constant, rounded to its parameter's dtype."""
    with np.errstate(over="ignore"):
        rounded = np.float32(np.array([number], np.float64).astype(dtype.numpy).astype(np.float64)[0])
    if not np.isfinite(rounded):
        return f"INT64_C({int(rounded.view(np.uint32)):#x})"
    return f"aicpu::FloatWord({rounded!s}f)"


def _range(axis: Any) -> tuple[int, int]:
    """Least and most value of a loop over an axis."""
    if isinstance(axis, tuple):
        return (min(axis), max(axis)) if axis else (0, 0)
    if isinstance(axis, (int, Dense)):
        return 0, max(0, (axis if isinstance(axis, int) else axis.size) - 1)
    return 0, (1 << 31) - 1 if isinstance(axis, (Sparse, SparseRow)) else LONGEST_AXIS - 1


def _does_something(node: tree.TreeNode) -> bool:
    return _leads_to(node, (tree.TaskCall, tree.SlotSet, tree.SlotLoad))


def _makes_tasks(node: tree.TreeNode) -> bool:
    return _leads_to(node, (tree.TaskCall,))


def _leads_to(node: tree.TreeNode, kinds: tuple[type, ...]) -> bool:
    """Is there a node of these kinds that may be reached?"""
    if isinstance(node, kinds):
        return True
    if isinstance(node, tree.Cond):
        constant = constant_of(node.pred)
        branches = (node.then, node.orelse) if constant is None else (node.then if constant else node.orelse,)
        return any(_leads_to(branch, kinds) for branch in branches)
    if isinstance(node, tree.Loop):
        axis = node.axis
        empty = axis == () or (isinstance(axis, (int, Dense)) and (axis if isinstance(axis, int) else axis.size) == 0)
        return not empty and _leads_to(node.body, kinds)
    return any(_leads_to(child, kinds) for child in tree.children(node))


def _source(node: Any, indent: str) -> list[str]:
    """The user's line, as a comment."""
    if node.line is None:
        return []
    text = source_of(node.line)
    place = place_of(node.line) + (f": {text}" if text else "")
    return [f"{indent}// {comment(place, max(30, WIDTH - len(indent) - 3))}"]


def _code(text: str) -> str:
    """Without comments."""
    return re.sub(r"//.*", "", text)


def _wrap(lines: list[str]) -> list[str]:
    """Lines of at most 80 columns."""
    return [part for line in lines for part in broken(line)]


def broken(line: str) -> list[str]:
    return wrapped([line], WIDTH)


_ENTRY = """\
// Makes the tasks of the next pass. The argument is the address of the plan.
// Returns an Error, 0 when all is well.
extern "C" __global__ __aicpu__ uint32_t expand(void *args) {
  plan::Plan *p =
      reinterpret_cast<plan::Plan *>(*static_cast<const uint64_t *>(args));
  if (!aicpu::HasHeader(*p)) {
    return plan::kBadHeader;
  }
  p->firstTask += p->numTasks;
  p->firstRound += p->numRounds;
  p->numTasks = p->numRounds = 0;
  return Workload(p).Run();
}""".splitlines()
