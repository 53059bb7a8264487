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
    """A whole workload. `str(tree)` prints it; with its kernels, as text that can be read back, see tree_text.py."""

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
        from pto_wsp.trace.tree_text import lines_of

        return "\n".join(lines_of(self))


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
