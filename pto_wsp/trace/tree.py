"""WorkloadTree: the tasks of a workload and the order in which they are made, as frozen data.

Every loop has its own variable, every kernel call its bound arguments. `lower` and `program` read nothing else of a
workload but this tree and its schedule. `str(tree)` prints it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pto_wsp.csp import Channel
    from pto_wsp.errors import SourceLine
    from pto_wsp.scalar_expr import Expr, LoopVar
    from pto_wsp.trace.kernel import Kernel
    from pto_wsp.types import Dense, DenseDyn, Ragged, RaggedRow, Sparse, SparseRow, Symbol, Tensor

    Axis = int | Dense | DenseDyn | Ragged | RaggedRow | Sparse | SparseRow | tuple[int, ...]
    Argument = Tensor | int | float | bool | Symbol | Expr


# ---- the tree ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class TaskCall:
    """A kernel call. Each time the loops around it reach it, it is one task."""

    kernel: Kernel
    axes: tuple[int | str | Expr, ...]  # the values in kernel[...]; a str is a tag
    args: tuple[tuple[str, Argument], ...]  # in signature order, defaults filled in; constexprs are plain values
    line: SourceLine | None = None
    after: tuple[TaskCall, ...] = ()  # explicit edges: earlier calls that this one waits for


@dataclass(frozen=True, eq=False)
class Block:
    """Several nodes in program order: unordered in time (parallel) or each after the one before."""

    children: tuple[TreeNode, ...] = ()
    parallel: bool = True
    line: SourceLine | None = None


@dataclass(frozen=True, eq=False)
class Loop:
    """The body once per value of `var`: iterations unordered in time (parallel) or each after the one before."""

    var: LoopVar
    axis: Axis  # a tuple of ints and a Sparse give the values themselves
    parallel: bool
    body: TreeNode
    line: SourceLine | None = None


@dataclass(frozen=True, eq=False)
class Cond:
    """`then` where the predicate holds (is not zero), else `orelse`."""

    pred: Expr | bool | int
    then: TreeNode
    orelse: TreeNode
    line: SourceLine | None = None


@dataclass(frozen=True, eq=False)
class SlotSet:
    """slots[slot] = value."""

    slot: int
    value: int
    line: SourceLine | None = None


@dataclass(frozen=True, eq=False)
class SlotLoad:
    """slots[slot] = tensor[row, col]."""

    slot: int
    tensor: Tensor
    row: int | Expr = 0
    col: int | Expr = 0
    line: SourceLine | None = None


@dataclass(frozen=True, eq=False)
class Send:
    """Run the task, then put its first axis value into the channel."""

    channel: Channel[Any]
    task: TreeNode
    line: SourceLine | None = None


@dataclass(frozen=True, eq=False)
class Consume:
    """The body once per token, until the channel is closed and empty."""

    channel: Channel[Any]
    var: LoopVar
    body: TreeNode
    line: SourceLine | None = None


@dataclass(frozen=True, eq=False)
class Receive:
    """The body for one token; `orelse` when the channel is closed and empty, None: then the run fails."""

    channel: Channel[Any]
    var: LoopVar
    body: TreeNode
    orelse: TreeNode | None = None
    line: SourceLine | None = None


@dataclass(frozen=True, eq=False)
class ProcessTree:
    """One process of a pipeline. Processes that do the same share their body."""

    name: str
    consumes: tuple[Channel[Any], ...]
    produces: tuple[Channel[Any], ...]
    body: TreeNode
    line: SourceLine | None = None


@dataclass(frozen=True, eq=False)
class Connect:
    """Processes that run side by side and talk through channels."""

    processes: tuple[ProcessTree, ...]
    channels: tuple[Channel[Any], ...]
    line: SourceLine | None = None


TreeNode = TaskCall | Block | Loop | Cond | SlotSet | SlotLoad | Send | Consume | Receive | Connect


@dataclass(frozen=True, eq=False)
class WorkloadTree:
    """A whole workload. `str(tree)` prints it."""

    name: str
    root: TreeNode = field(default_factory=Block)

    @property
    def tasks(self) -> tuple[TaskCall, ...]:
        """Every kernel call, in program order."""
        return tuple(n for n in walk(self.root) if isinstance(n, TaskCall))

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """Every kernel, in the order of first use."""
        return tuple({id(t.kernel): t.kernel for t in self.tasks}.values())

    def __str__(self) -> str:
        return "\n".join([f"workload {self.name}", *_lines(self.root, "  ")])


def walk(node: TreeNode) -> Iterator[TreeNode]:
    """The node and everything in it, in program order."""
    left = [node]
    while left:
        node = left.pop()
        yield node
        left.extend(reversed(children(node)))


def children(node: TreeNode) -> tuple[TreeNode, ...]:
    """The nodes directly inside a node."""
    if isinstance(node, Block):
        return node.children
    if isinstance(node, (Loop, Consume)):
        return (node.body,)
    if isinstance(node, Cond):
        return (node.then, node.orelse)
    if isinstance(node, Receive):
        return (node.body,) if node.orelse is None else (node.body, node.orelse)
    if isinstance(node, Send):
        return (node.task,)
    if isinstance(node, Connect):
        return tuple(p.body for p in node.processes)
    return ()


# ---- printing ----------------------------------------------------------------------------------------------------


def _lines(node: TreeNode, indent: str) -> Iterator[str]:
    yield indent + _head(node)
    if isinstance(node, Connect):
        yield from (f"{indent}  channel {c.name}, depth {c.depth}" for c in node.channels)
        for process in node.processes:
            yield f"{indent}  process {process.name}"
            yield from _lines(process.body, indent + "    ")
        return
    for child in children(node):
        if isinstance(node, (Cond, Receive)) and child is node.orelse:
            yield indent + "else"
        yield from _lines(child, indent + "  ")


def _head(node: TreeNode) -> str:
    if isinstance(node, TaskCall):
        axes = ", ".join(str(a) if not isinstance(a, str) else repr(a) for a in node.axes)
        args = ", ".join(f"{name}={_argument(value)}" for name, value in node.args)
        after = f" after {len(node.after)} tasks" if node.after else ""
        return f"{node.kernel.name}[{axes}]({args}){after}" + (f"    # {node.line}" if node.line else "")
    if isinstance(node, Block):
        return "parallel" if node.parallel else "sequential"
    if isinstance(node, Loop):
        return f"{'parallel' if node.parallel else 'sequential'} for {node.var} in {_axis(node.axis)}"
    if isinstance(node, Cond):
        return f"if {node.pred}"
    if isinstance(node, SlotSet):
        return f"slot[{node.slot}] = {node.value}"
    if isinstance(node, SlotLoad):
        return f"slot[{node.slot}] = {_argument(node.tensor)}[{node.row}, {node.col}]"
    if isinstance(node, Send):
        return f"send to {node.channel.name}"
    if isinstance(node, Consume):
        return f"consume {node.var} from {node.channel.name}"
    if isinstance(node, Receive):
        return f"receive {node.var} from {node.channel.name}"
    return f"connect {', '.join(p.name for p in node.processes)}"


def _axis(axis: Axis) -> str:
    if isinstance(axis, tuple):
        return str(list(axis))
    return repr(axis)


def _argument(value: object) -> str:
    """A tensor as its shape and indices, anything else as it prints."""
    if not hasattr(value, "index_exprs"):
        return str(value)
    indices = "".join(f"[{i}]" for i in value.index_exprs)
    return f"{value.base.dtype.value}{list(value.base.shape)}{indices}"  # type: ignore[attr-defined]
