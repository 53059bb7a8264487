"""Workloads as text: `print_tree` writes one, `parse_tree` reads it back equal, `same_tree` says what equal means.

    workload decode
      tensor T0: f32[64, 8, 64]
      axis A0: Ragged [3, 17, 4]
      parallel for b in 3
        sequential for j in A0[b]
          @0: page[b, j](q=T0[b], left=100 - j * 32)     # decode.py:52
      finish[](out=T0[0, i * 8:+8]) after @0

A line is a node, what is inside it stands further right. Tensors, axes whose data or size may change, and channels
come first. `T0[b, i:+8]` is a view: an index, eight positions from i on, all of the rest; `i in 4 .. 8` is an
index into a view that ends there. Kernels are called by name (`page@2` is the second one of that name); their graphs,
printed by text.py, come before the workload when the text is to be read back. Nothing in a text is ever run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from pto_wsp.errors import PtoError, SourceLine
from pto_wsp.scalar_expr import SLOTS, Expr, LoopVar, as_expr
from pto_wsp.trace.expr_text import RESERVED, ExprReader, int_list, name_text, print_expr
from pto_wsp.trace.text import DTYPES, GraphTextError, parse_part, print_graph
from pto_wsp.trace.tree import (
    Block,
    Cond,
    Connect,
    Consume,
    Loop,
    ProcessTree,
    Receive,
    Send,
    SlotLoad,
    SlotSet,
    TaskCall,
    TreeNode,
    WorkloadTree,
    children,
    walk,
)
from pto_wsp.types import Dense, DenseDyn, Index, Ragged, RaggedRow, Range, Sparse, SparseRow, Symbol, Tensor

if TYPE_CHECKING:
    from pto_wsp.trace.graph import KernelGraph

__all__ = ["Names", "PrintedKernel", "TreeReader", "lines_of", "parse_tree", "print_kernels", "print_tree",
           "same_tree", "sections"]  # fmt: skip

MOST_EXTENT = 1 << 48  # of a dimension in a text


# ---- names ---------------------------------------------------------------------------------------------------------


class Names:
    """What the parts of a tree are called in its text."""

    def __init__(self, tree: WorkloadTree) -> None:
        self.tensors: dict[int, str] = {}
        self.axes: dict[int, str] = {}
        self.channels: dict[int, str] = {}
        self.kernels: dict[Any, str] = {}  # by kernel and constexpr values
        self.labels: dict[int, str] = {}  # of calls that others wait for
        self.declared: list[Any] = []  # tensors, axes and channels in order of first use
        self.calls: list[TaskCall] = []  # one per kernel
        self._named: dict[str, int] = {}
        for node in walk(tree.root):
            self._visit(node)

    def _visit(self, node: TreeNode) -> None:
        if isinstance(node, TaskCall):
            if kernel_key(node) not in self.kernels:
                number = self._named[node.kernel.name] = self._named.get(node.kernel.name, 0) + 1
                self.kernels[kernel_key(node)] = name_text(node.kernel.name) + (f"@{number}" if number > 1 else "")
                self.calls.append(node)
            for _, value in node.args:
                if isinstance(value, Tensor):
                    self._declare(value.base, self.tensors, "T")
            for handle in node.after:
                self.labels.setdefault(id(handle), f"@{len(self.labels)}")
        elif isinstance(node, SlotLoad):
            self._declare(node.tensor.base, self.tensors, "T")
        elif isinstance(node, Loop):
            axis = whole_axis(node.axis)
            if isinstance(axis, (DenseDyn, Ragged, Sparse)):
                self._declare(axis, self.axes, "A")
        elif isinstance(node, (Send, Consume, Receive)):
            self._declare(node.channel, self.channels, "C")
        elif isinstance(node, Connect):
            for channel in (*node.channels, *(c for p in node.processes for c in (*p.consumes, *p.produces))):
                self._declare(channel, self.channels, "C")

    def _declare(self, thing: Any, names: dict[int, str], letter: str) -> None:
        if id(thing) not in names:
            names[id(thing)] = f"{letter}{len(names)}"
            self.declared.append(thing)


def whole_axis(axis: Any) -> Any:
    """The axis that a row belongs to; other axes as they are."""
    return axis.ragged if isinstance(axis, RaggedRow) else axis.sparse if isinstance(axis, SparseRow) else axis


def kernel_key(call: TaskCall) -> Any:
    """Calls with one key run one graph."""
    return id(call.kernel), *((name, type(v), v) for name, v in constexprs(call))


def constexprs(call: TaskCall) -> list[tuple[str, Any]]:
    """The constexpr arguments of a call; the graph of its kernel was traced for them."""
    names = {p.name for p in call.kernel.params if p.direction == "constexpr"}
    return [(name, value) for name, value in call.args if name in names]


# ---- printing ------------------------------------------------------------------------------------------------------


def print_tree(tree: WorkloadTree, comments: bool = True) -> str:
    """The kernels and the workload as text that `parse_tree` reads.

    raises  what tracing a kernel raises; IRConversionError for what has no text
    """
    return "\n".join([*print_kernels(Names(tree), comments), *lines_of(tree, comments)])


def same_tree(a: WorkloadTree, b: WorkloadTree) -> bool:
    """Whether two workloads are the same: kernels, names, views, axes and their data; the users' lines do not count."""
    return print_tree(a, False) == print_tree(b, False)


def print_kernels(names: Names, comments: bool = True) -> Iterator[str]:
    """The graphs of all kernels, in the order of first use."""
    for call in names.calls:
        yield print_graph(call.kernel.graph_for(dict(call.args)), comments)


def lines_of(tree: WorkloadTree, comments: bool = True) -> Iterator[str]:
    """The workload itself, line by line."""
    names = Names(tree)
    yield f"workload {name_text(tree.name)}"
    for thing in names.declared:
        yield "  " + _declaration(thing, names)
    left: list[tuple[TreeNode | str, int, tuple[LoopVar, ...]]] = [(tree.root, 1, ())]
    while left:
        node, depth, scope = left.pop()
        if isinstance(node, str):
            yield "  " * depth + node
            continue
        text, notes = _head(node, names, scope)
        line = ", ".join([*notes, *([_place(node.line)] if node.line else [])]) if comments else ""
        yield "  " * depth + text + (f"    # {line}" if line else "")
        inner = (*scope, node.var) if isinstance(node, (Loop, Consume, Receive)) else scope
        parts: list[tuple[TreeNode | str, int, tuple[LoopVar, ...]]] = []
        for number, child in enumerate(children(node)):
            if isinstance(node, (Cond, Receive)) and number == 1:
                if isinstance(node, Cond) and _nothing(child):
                    continue
                parts.append(("else", depth, scope))
                parts.append((child, depth + 1, scope))
                continue
            if isinstance(node, Connect):
                parts.append((_process(node.processes[number], names), depth + 1, scope))
            parts.append((child, depth + 1 + isinstance(node, Connect), inner))
        left.extend(reversed(parts))


def _nothing(node: TreeNode) -> bool:
    return isinstance(node, Block) and node.parallel and not node.children


def _place(line: SourceLine) -> str:
    return "".join(c if c.isprintable() else " " for c in line.place.rsplit("/", 1)[-1])


def _declaration(thing: Any, names: Names) -> str:
    if isinstance(thing, Tensor):
        return f"tensor {names.tensors[id(thing)]}: {thing.dtype.value}{list(thing.shape)}"
    if isinstance(thing, DenseDyn):
        return f"axis {names.axes[id(thing)]}: DenseDyn {thing.size}"
    if isinstance(thing, Ragged):
        return f"axis {names.axes[id(thing)]}: Ragged {int_list(thing.lengths)}"
    if isinstance(thing, Sparse):
        return f"axis {names.axes[id(thing)]}: Sparse {int_list(thing.indptr)} {int_list(thing.indices)}"
    return f"channel {names.channels[id(thing)]}: {json.dumps(thing.name)} {thing.depth}"


def _process(process: ProcessTree, names: Names) -> str:
    words = [f"process {json.dumps(process.name)}"]
    for word, channels in (("consumes", process.consumes), ("produces", process.produces)):
        if channels:
            words.append(f"{word} {', '.join(names.channels[id(c)] for c in channels)}")
    return " ".join(words)


def _head(node: TreeNode, names: Names, scope: Sequence[LoopVar]) -> tuple[str, list[str]]:
    """A node's line, and what its comment tells."""
    def text(x: Any) -> str:
        return print_expr(x, lambda var: _variable(var, scope))

    if isinstance(node, TaskCall):
        return _call(node, names, scope), [f"{name} = {value!r}" for name, value in constexprs(node)]
    if isinstance(node, Loop):
        order = "parallel" if node.parallel else "sequential"
        return f"{order} for {name_text(node.var.name)} in {_axis(node.axis, names, scope)}", []
    if isinstance(node, Cond):
        return f"if {text(node.pred)}", []
    if isinstance(node, SlotSet):
        return f"slot {node.slot} = {node.value}", []
    if isinstance(node, SlotLoad):
        view = _view(node.tensor, names, scope)
        return f"slot {node.slot} = {view} at ({text(node.row)}, {text(node.col)})", []
    if isinstance(node, Send):
        return f"send to {names.channels[id(node.channel)]}", []
    if isinstance(node, (Consume, Receive)):
        word = "consume" if isinstance(node, Consume) else "receive"
        return f"{word} {name_text(node.var.name)} from {names.channels[id(node.channel)]}", []
    if isinstance(node, Connect):
        return " ".join(["connect", ", ".join(names.channels[id(c)] for c in node.channels)]).rstrip(), []
    assert isinstance(node, Block)
    return "parallel" if node.parallel else "sequential", []


def _variable(var: LoopVar, scope: Sequence[LoopVar]) -> str:
    """A loop variable as it is called inside these loops: i@2 when there are two of that name further inside."""
    same = [other for other in reversed(scope) if other.name == var.name]
    out = next((k for k, other in enumerate(same) if other is var), len(same))
    return name_text(var.name) + (f"@{out}" if out else "")


def _axis(axis: Any, names: Names, scope: Sequence[LoopVar]) -> str:
    if isinstance(axis, tuple):
        return int_list(axis)
    if isinstance(axis, Dense):
        return f"Dense[{axis.size}]"
    if isinstance(axis, int):
        return str(axis)
    row = f"[{print_expr(axis.row, lambda var: _variable(var, scope))}]" if hasattr(axis, "row") else ""
    return names.axes[id(whole_axis(axis))] + row


def _call(node: TaskCall, names: Names, scope: Sequence[LoopVar]) -> str:
    label = f"{names.labels[id(node)]}: " if id(node) in names.labels else ""
    axes = ", ".join(f"tag {json.dumps(a)}" if isinstance(a, str) else _value(a, names, scope) for a in node.axes)
    fixed = {name for name, _ in constexprs(node)}
    args = ", ".join(f"{name_text(name)}={_value(v, names, scope)}" for name, v in node.args if name not in fixed)
    after = f" after {', '.join(names.labels[id(h)] for h in node.after)}" if node.after else ""
    return f"{label}{names.kernels[kernel_key(node)]}[{axes}]({args}){after}"


def _value(value: Any, names: Names, scope: Sequence[LoopVar]) -> str:
    """An argument."""
    if isinstance(value, Tensor):
        return _view(value, names, scope)
    if isinstance(value, Symbol):
        return f"symbol {json.dumps(value.sym)}"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, (bool, int, Expr, LoopVar, np.bool_)):
        return print_expr(value, lambda var: _variable(var, scope))
    return repr(value)


def _view(view: Tensor, names: Names, scope: Sequence[LoopVar]) -> str:
    """T0[b, i:+8]: whole dimensions at the end are left out."""
    def text(x: Any) -> str:
        return print_expr(x, lambda var: _variable(var, scope))

    parts = []
    for entry in view.exact_window:
        if entry is None:
            parts.append(":")
            continue
        bounds = "" if entry.within is None else f" in {text(entry.within[0])} .. {text(entry.within[1])}"
        start = text(entry.at) if isinstance(entry, Index) else f"{text(entry.start)}:+{entry.extent}"
        parts.append(start + bounds)
    while parts and parts[-1] == ":":
        parts.pop()
    return names.tensors[id(view.base)] + (f"[{', '.join(parts)}]" if parts else "")


# ---- reading -------------------------------------------------------------------------------------------------------


class PrintedKernel:
    """A kernel that came as text: its graph, without the function it was traced from."""

    def __init__(self, graph: KernelGraph) -> None:
        self.name, self.graph = graph.name, graph
        self.params: tuple[Any, ...] = graph.params
        self.options: dict[str, Any] = {}

    def graph_for(self, constexprs: Mapping[str, Any]) -> KernelGraph:
        """The graph; it has been traced for its constexpr values."""
        return self.graph

    def __repr__(self) -> str:
        return f"<kernel {self.name}, from text>"


def sections(text: str) -> list[tuple[str, int, int]]:
    """The parts of a text, each begins with a word at the start of a line: word, begin, end.

    raises GraphTextError when the text begins otherwise
    """
    reader = ExprReader(text, 0, 0)  # refuses what is no text, or too long
    starts, at = [], 0
    while at < len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        if text[at:end].strip() and text[at] not in " \t#":
            starts.append(at)
        elif not starts and text[at:end].strip() and text[at] != "#":
            TreeReader(text, at, end).fail("a text begins with 'kernel' or 'workload' at the start of a line.")
        at = end + 1
    if not starts:
        reader.fail("the text is empty.")
    words = [text[s : s + 100].split(None, 1)[0] for s in starts]
    ends = [*starts[1:], len(text)]
    return list(zip(words, starts, ends, strict=True))


def parse_tree(text: str) -> WorkloadTree:
    """The workload that a text of `print_tree` describes, with kernels that can be compiled and simulated.

    raises GraphTextError, which shows the place in the text
    """
    kernels: list[PrintedKernel] = []
    tree: WorkloadTree | None = None
    for word, begin, end in sections(text):
        reader = TreeReader(text, begin, end, kernels)
        if tree is not None:
            reader.fail("nothing comes after the workload.")
        if word == "kernel":
            kernels.append(PrintedKernel(parse_part(text, begin, end)))
        else:
            tree = reader.workload()
    if tree is None:
        raise GraphTextError("the text has no workload.")
    return tree


@dataclass
class _Open:
    """A node whose inner nodes are still being read."""

    indent: int
    kind: str
    token: Any
    values: tuple[Any, ...] = ()
    inner: list[Any] = field(default_factory=list)
    orelse: bool = False


_ONE = {"loop": "a loop", "if": "if", "send": "send", "consume": "consume", "receive": "receive",
        "process": "a process"}  # fmt: skip
_ELSE = ("if", "receive")


class TreeReader(ExprReader):
    """Reads one workload. `kernels` are those that it may call."""

    def __init__(
        self, text: str, begin: int = 0, end: int | None = None, kernels: Sequence[PrintedKernel] = ()
    ) -> None:
        super().__init__(text, begin, end)
        self.kernels = kernels
        self.tensors: dict[str, Tensor] = {}
        self.axes: dict[str, Any] = {}
        self.channels: dict[str, Any] = {}
        self.labels: dict[str, TaskCall] = {}
        self.loops: list[LoopVar] = []  # every one, in order
        self._calls = {
            (k.name, 1 + sum(o.name == k.name for o in kernels[:n])): k for n, k in enumerate(kernels)
        }

    def workload(self) -> WorkloadTree:
        self.word("workload")
        name = self.called("the workload's name")
        self.end_of_line()
        top = _Open(-1, "workload", self.token)
        opened = [top]
        while self.token.kind != "end":
            if self.token.kind == "newline":
                self.take()
                continue
            indent = self.token.start - (self.text.rfind("\n", 0, self.token.start) + 1)
            if indent == 0:
                self.fail("the nodes of a workload stand further right than its first line.")
            self._close(opened, indent)
            self._line(opened, indent)
            self.end_of_line()
        self._close(opened, 0)
        if len(top.inner) != 1:
            self.fail(f"a workload has one root, which holds the others; there are {len(top.inner)}.", top.token)
        return WorkloadTree(name, top.inner[0])

    def _close(self, opened: list[_Open], indent: int) -> None:
        """Finish the nodes that a line at this indent is not inside of."""
        again = self.token.kind == "word" and self.token.text == "else"
        while opened[-1].indent >= indent:
            node = opened[-1]
            if again and node.indent == indent and node.kind in _ELSE and not node.orelse:
                return
            opened.pop()
            opened[-1].inner.append(self._finished(node))

    def _finished(self, node: _Open) -> Any:
        inner, what = node.inner, _ONE.get(node.kind)
        wanted = 2 if node.orelse else 1
        if what is not None and len(inner) != wanted:
            self.fail(f"{what} holds one node{' and another after else' if node.orelse else ''}; "
                      f"here are {len(inner)}. Put several into 'parallel' or 'sequential'.", node.token)  # fmt: skip
        if node.kind in ("loop", "consume") or (node.kind == "receive" and not node.orelse):
            self.scope.pop()
        if node.kind == "task":
            if inner:
                self.fail("a task holds no nodes.", node.token)
            return node.values[0]
        if node.kind == "block":
            return Block(tuple(inner), *node.values)
        if node.kind == "loop":
            var, axis, parallel = node.values
            return Loop(var, axis, parallel, inner[0])
        if node.kind == "if":
            return Cond(node.values[0], inner[0], inner[1] if node.orelse else Block())
        if node.kind == "send":
            return Send(node.values[0], inner[0])
        if node.kind == "consume":
            channel, var = node.values
            return Consume(channel, var, inner[0])
        if node.kind == "receive":
            channel, var = node.values
            return Receive(channel, var, inner[0], inner[1] if node.orelse else None)
        if node.kind == "process":
            name, consumes, produces = node.values
            return ProcessTree(name, consumes, produces, inner[0])
        return Connect(tuple(inner), *node.values)

    def _line(self, opened: list[_Open], indent: int) -> None:
        """One line: a declaration, or a node that opens."""
        start, above = self.token, opened[-1]
        word = start.text if start.kind == "word" else ""
        if (word == "process") != (above.kind == "connect"):
            self.fail("connect holds processes, and they stand nowhere else.")
        if word == "else":
            if above.kind not in _ELSE or above.indent != indent or len(above.inner) != 1:
                self.fail("there is no if or receive with one node above this else.")
            self.take()
            above.orelse = True
            if above.kind == "receive":  # there is no token in this branch
                self.scope.pop()
            return
        if word in ("tensor", "axis", "channel"):
            if above.kind != "workload" or above.inner:
                self.fail(f"{word} stands before the nodes.")
            self.take()
            getattr(self, f"_{word}")()
            return
        kind, values = self._node(word)
        opened.append(_Open(indent, kind, start, values))
        if kind in ("loop", "consume", "receive"):
            var = values[0 if kind == "loop" else 1]
            self.scope.append(var)
            self.loops.append(var)

    # -- declarations

    def _declare(self, names: dict[str, Any]) -> str:
        token = self.expect("word", "a name")
        if token.text in names or token.text in RESERVED:
            self.fail(f"{token.text[:80]} is there already.", token)
        self.mark(":")
        return token.text

    def _tensor(self) -> None:
        name = self._declare(self.tensors)
        token = self.expect("word", f"a dtype ({', '.join(DTYPES)})")
        if token.text not in DTYPES:
            self.fail(f"there is no dtype {token.text[:80]}; there are {', '.join(DTYPES)}.", token)
        self.mark("[")
        shape: list[int] = []
        while not self.at_mark("]"):
            if shape:
                self.mark(",")
            shape.append(self.whole(0, MOST_EXTENT))
        self.mark("]")
        self.tensors[name] = Tensor(None, shape, DTYPES[token.text])

    def _axis(self) -> None:
        name = self._declare(self.axes)
        kind = self.expect("word", "DenseDyn, Ragged or Sparse")
        try:
            if kind.text == "DenseDyn":
                self.axes[name] = DenseDyn(self.whole(0))
            elif kind.text == "Ragged":
                lengths = self.ints(0)
                self.axes[name] = Ragged(len(lengths), cast("Any", lengths))
            elif kind.text == "Sparse":
                indptr, indices = self.ints(0), self.ints(0)
                self.axes[name] = Sparse(len(indptr) - 1, cast("Any", indptr), cast("Any", indices))
            else:
                self.fail("an axis is DenseDyn, Ragged or Sparse.", kind)
        except PtoError as error:
            if isinstance(error, GraphTextError):
                raise
            self.fail(error.message, kind)

    def _channel(self) -> None:
        from pto_wsp.csp import Channel

        name = self._declare(self.channels)
        self.channels[name] = Channel(self.quoted(), self.whole(0, 1 << 31))

    # -- nodes

    def _node(self, word: str) -> tuple[str, tuple[Any, ...]]:
        if word in ("parallel", "sequential"):
            self.take()
            if not self.accept("for"):
                return "block", (word == "parallel",)
            name = self.called("a loop variable")
            self.word("in")
            axis = self._loop_axis()
            return "loop", (LoopVar(name, axis), axis, word == "parallel")
        if word == "if":
            self.take()
            return "if", (self.expression(),)
        if word == "slot":
            self.take()
            return "task", (self._slot(),)
        if word == "send":
            self.take()
            self.word("to")
            return "send", (self._known(self.channels, "channel"),)
        if word in ("consume", "receive"):
            self.take()
            name = self.called("a variable")
            self.word("from")
            channel = self._known(self.channels, "channel")
            return word, (channel, LoopVar(name, channel))
        if word == "connect":
            self.take()
            return "connect", (self._channels(),)
        if word == "process":
            self.take()
            name = self.quoted()
            consumes = self._channels() if self.accept("consumes") else ()
            produces = self._channels() if self.accept("produces") else ()
            return "process", (name, consumes, produces)
        return "task", (self._task(),)

    def _known(self, names: Mapping[str, Any], what: str) -> Any:
        token = self.expect("word", f"a {what}")
        if token.text not in names:
            self.fail(f"there is no {what} {token.text[:80]}.", token)
        return names[token.text]

    def _channels(self) -> tuple[Any, ...]:
        found = []
        while self.token.kind == "word" and self.token.text in self.channels:
            found.append(self._known(self.channels, "channel"))
            if not self.accept(","):
                break
        return tuple(found)

    def _loop_axis(self) -> Any:
        token = self.token
        if token.kind == "number" or token.text == "[":
            values = token.text == "[" or self._is_packed(token)
            return tuple(self.ints().tolist()) if values else self.whole(0, (1 << 63) - 1)
        if self.accept("Dense"):
            self.mark("[")
            size = self.whole(0, (1 << 63) - 1)
            self.mark("]")
            return Dense[size]()
        axis = self._known(self.axes, "axis")
        if not self.accept("["):
            return axis
        row = self.expression()
        self.mark("]")
        if isinstance(axis, DenseDyn):
            self.fail("a DenseDyn axis has no rows.", token)
        return (RaggedRow if isinstance(axis, Ragged) else SparseRow)(axis, as_expr(row))

    def _is_packed(self, token: Any) -> bool:
        """Does `of` follow the number?"""
        return self.text[token.start + len(token.text) : token.start + len(token.text) + 4] == " of "

    def _slot(self) -> SlotSet | SlotLoad:
        slot = self.whole(0, SLOTS - 1)
        self.mark("=")
        if self.token.kind == "number":
            return SlotSet(slot, self.whole(0, (1 << 64) - 1))
        view = self._view()
        self.word("at")
        self.mark("(")
        row = self.expression()
        self.mark(",")
        col = self.expression()
        self.mark(")")
        return SlotLoad(slot, view, row, col)

    def _task(self) -> TaskCall:
        label = self.token if self.token.kind == "label" else None
        if label is not None:
            self.take()
            self.mark(":")
            if label.text in self.labels:
                self.fail(f"{label.text} is there already.", label)
        kernel = self._kernel()
        self.mark("[")
        axes: list[Any] = []
        while not self.at_mark("]"):
            if axes:
                self.mark(",")
            axes.append(self.quoted() if self.accept("tag") else self.expression())
        self.mark("]")
        args = self._arguments(kernel)
        after: list[TaskCall] = []
        if self.accept("after"):
            while not after or self.accept(","):
                token = self.expect("label", "a label such as @0")
                if token.text not in self.labels:
                    self.fail(f"no call {token.text} comes before this one.", token)
                after.append(self.labels[token.text])
        call = TaskCall(cast("Any", kernel), tuple(axes), args, None, tuple(after))
        if label is not None:
            self.labels[label.text] = call
        return call

    def _kernel(self) -> PrintedKernel:
        start = self.token
        name = self.called("a node: a kernel call, 'parallel', 'sequential', 'if' or 'slot'")
        number = int(self.take().text[1:][:9]) if self.token.kind == "label" else 1
        if (name, number) not in self._calls:
            known = ", ".join(dict.fromkeys(name_text(k.name) for k in self.kernels)) or "none"
            self.fail(f"there is no kernel {name[:80]} above; there are: {known[:200]}.", start)
        return self._calls[name, number]

    def _arguments(self, kernel: PrintedKernel) -> tuple[tuple[str, Any], ...]:
        self.mark("(")
        args: list[tuple[str, Any]] = []
        for param in kernel.graph.params:
            if args:
                self.mark(",")
            token = self.token
            if self.name(f"argument {param.name}") != param.name:
                self.fail(f"argument {param.name} of kernel {kernel.name} stands here.", token)
            self.mark("=")
            args.append((param.name, self._view() if param.is_tile else self._scalar()))
        self.mark(")")
        return tuple(args)

    def _scalar(self) -> Any:
        if self.accept("symbol"):
            return Symbol(self.quoted())
        after_minus = self.text[self.token.start + 1 : self.token.start + 4]
        if self.token.text in ("inf", "nan") or (self.token.text == "-" and after_minus == "inf"):
            sign = -1 if self.accept("-") else 1
            return sign * float(self.take().text)
        end = self.token.start + 60
        digits = self.text[self.token.start : end].lstrip("-")
        number = ExprReader.TOKENS.match(digits)
        if number is not None and number.lastgroup == "number" and not number.group().rstrip("u").isdigit():
            sign = -1 if self.accept("-") else 1
            return sign * float(self.number(self.take()))
        return self.expression()

    # -- views

    def _view(self) -> Tensor:
        token = self.token
        base: Tensor = self._known(self.tensors, "tensor")
        if not self.accept("["):
            return base
        window: list[Index | Range | None] = []
        while not self.at_mark("]"):
            if window:
                self.mark(",")
            window.append(self._entry())
        self.mark("]")
        left = len(base.shape) - len(window)
        if left < 0:
            self.fail(f"{token.text} has {len(base.shape)} dimensions; here are {len(window)} entries.", token)
        return base.with_window([*window, *[None] * left])

    def _entry(self) -> Index | Range | None:
        if self.accept(":"):
            return None
        start = self._position()
        extent = self.whole(0, MOST_EXTENT) if self.accept(":+") else None
        within = None
        if self.accept("in"):
            low = self._position()
            self.mark("..")
            within = low, self._position()
        return Index(start, within) if extent is None else Range(start, extent, within)

    def _position(self) -> int | Expr:
        token = self.token
        found = self.expression()
        if isinstance(found, bool) or (isinstance(found, Expr) and found.type == "bool"):
            self.fail("an index is a number.", token)
        return found  # type: ignore[no-any-return]
