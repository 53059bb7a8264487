"""Workload -> WorkloadTree: function bodies called, arguments bound and checked, every loop variable in its scope.

In: the nodes that a user built.  Out: frozen data.  Start reading at `resolve`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from pto_wsp.arguments import as_int, integers
from pto_wsp.errors import AxisError, CompileError, OperandError, SourceLine, TypeCheckError, UsageError
from pto_wsp.scalar_expr import SLOTS, Expr, LoopVar, as_expr
from pto_wsp.trace import channels, record
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
)
from pto_wsp.trace.workload import Workload, part
from pto_wsp.types import RaggedRow, Sparse, SparseRow, Tensor, loop_axis


def resolve(workload: Workload) -> WorkloadTree:
    """The tree of a workload.

    raises CompileError at the user's line when something in it cannot be compiled, see Workload.tree
    """
    name = workload.name or workload.title or "main"
    return WorkloadTree(name, _Resolver().root(workload))


class _Resolver:
    """Walks the nodes with the loops around them."""

    def __init__(self) -> None:
        self.scope: list[LoopVar] = []
        self.choices = 0  # conditions around
        self.calls: dict[int, TaskCall] = {}  # by id of the node's origin: what `after=` handles refer to
        self.bodies: dict[int, TreeNode] | None = None  # by id, of the processes; None outside connect(...)

    def root(self, workload: Workload) -> TreeNode:
        return self.visit(workload)

    def inner(self, node: Any, of: Workload) -> TreeNode:
        """A node inside another one; it cannot have a schedule of its own."""
        if not isinstance(node, Workload):
            raise CompileError(
                f"a {of.kind} node holds {node!r} ({type(node).__name__}) where a workload belongs."
            ).at(of.line)
        if node.kind == "connect":
            raise CompileError("connect(...) is a workload of its own and cannot be part of another.").at(node.line)
        if node.schedule.to_dict():
            raise CompileError(
                "a schedule was given to an inner part of a workload, where it would have no effect. Give it to "
                "the workload that is compiled.",
                workload_name=node.name,
            ).at(node.line)
        return self.visit(node)

    def visit(self, node: Workload) -> TreeNode:
        rule = RULES.get(node.kind)
        if rule is None:
            raise CompileError(f"{node.kind!r} is no kind of workload; there are: {', '.join(RULES)}.").at(node.line)
        return rule(self, node)

    # ---- tasks

    def task(self, node: Workload) -> TreeNode:
        kernel, resources = part(node, "kernel"), part(node, "resources", {})
        if isinstance(kernel, str):
            raise CompileError(
                f"the task names its kernel by the string {kernel!r}: such a task can be enumerated, not compiled. "
                "Give the @kernel function itself."
            ).at(node.line)
        axes = tuple(axis_value(v, node.line) for v in part(node, "params", ()))
        for value in axes:
            self.check_scope(value, node.line, f"an axis value of {kernel.name}")
        args = kernel.bind(axes, resources, node.line, not self.choices and record.runs(self.scope))
        for name, value in args:
            self.check_scope(value, node.line, f"argument {name!r} of {kernel.name}")
        call = TaskCall(kernel, axes, args, node.line, tuple(self.handle(h, node) for h in part(node, "after", ())))
        self.calls[id(node.origin)] = call
        return call

    def handle(self, handle: Workload, node: Workload) -> TaskCall:
        call = self.calls.get(id(handle.origin))
        if call is None:
            raise CompileError("after= names a task that is not made before this one in the same workload.").at(
                node.line
            )
        return call

    def check_scope(self, value: Any, line: SourceLine, what: str) -> None:
        """Every loop variable and axis name in a value belongs to a loop around it."""
        for leaf in leaves(value):
            if leaf.kind == "loop_var" and not any(v is leaf.a for v in self.scope):
                raise UsageError(outside_its_loop(leaf.a, what)).at(line)
            if leaf.kind == "axis_var" and leaf.b is None and all(v.name != leaf.a for v in self.scope):
                around = ", ".join(v.name for v in self.scope) or "none"
                raise CompileError(f"{what}: axis({leaf.a!r}) names no loop around it; loops here: {around}.").at(
                    line
                )

    # ---- loops

    def loop(self, node: Workload) -> TreeNode:
        selecting = node.kind == "select"
        axis = as_axis(part(node, "sparse" if selecting else "axis"), selecting, node.line)
        self.check_scope(axis, node.line, "an axis")
        name = part(node, "var_name", "e" if selecting else "i")
        body = part(node, "body")
        var = next((v for v in (node.fields.get("var"), self.adopted(body, name)) if v is not None), None)
        var = LoopVar(name, axis) if var is None else var
        return Loop(var, axis, node.kind != "for_each", self.body(body, var, node), node.line)

    def adopted(self, body: Any, name: str) -> LoopVar | None:
        """The LoopVar that hand-made nodes below use for a loop of this name, if they use one."""
        if not isinstance(body, Workload):
            return None
        found = {id(v): v for v in _free_vars(body) if v.name == name and not any(v is s for s in self.scope)}
        return next(iter(found.values())) if len(found) == 1 else None

    def body(self, body: Any, var: LoopVar, node: Workload) -> TreeNode:
        with self.inside(var):
            if isinstance(body, Workload):
                return self.inner(body, node)
            return self.inner(call_body(body, var, node), node)

    @contextmanager
    def inside(self, var: LoopVar) -> Iterator[None]:
        self.scope.append(var)
        yield
        self.scope.pop()

    # ---- blocks and choices

    def block(self, node: Workload) -> TreeNode:
        parts = part(node, "stages" if node.kind == "pipeline" else "workloads")
        return Block(tuple(self.inner(w, node) for w in parts), node.kind != "sequential", node.line)

    def empty(self, node: Workload) -> TreeNode:
        return Block((), True, node.line)

    def cond(self, node: Workload) -> TreeNode:
        pred = as_predicate(part(node, "predicate"), node.line)
        self.check_scope(pred, node.line, "a predicate")
        if isinstance(pred, Expr) and any(leaf.kind in ("task_param", "task_tag_u64") for leaf in pred.leaves()):
            raise CompileError(
                f"the predicate {pred} reads a task's parameters; that is for dispatch keys. "
                "Use axis(), symbol_u64() or slot_u64()."
            ).at(node.line)
        orelse = part(node, "else_workload", None)
        self.choices += 1
        then = self.inner(part(node, "then_workload"), node)
        other = Block() if orelse is None else self.inner(orelse, node)
        self.choices -= 1
        return Cond(pred, then, other, node.line)

    def slot_set(self, node: Workload) -> TreeNode:
        return SlotSet(slot_number(part(node, "slot"), node.line), part(node, "value") % (1 << 64), node.line)

    def slot_load(self, node: Workload) -> TreeNode:
        tensor = part(node, "tensor")
        if not isinstance(tensor, Tensor) or len(tensor.shape) < 2:
            raise CompileError(
                "slot_load_u64 needs a tensor view of rank 2 or more; got "
                + (f"rank {len(tensor.shape)}" if isinstance(tensor, Tensor) else repr(tensor))
                + "."
            ).at(node.line)
        row, col = (axis_value(part(node, k, 0), node.line) for k in ("row", "col"))
        for value in (tensor, row, col):
            self.check_scope(value, node.line, "slot_load_u64")
        slot = slot_number(part(node, "slot"), node.line)
        return SlotLoad(slot, tensor, row, col, node.line)  # type: ignore[arg-type]

    # ---- pipelines

    def send(self, node: Workload) -> TreeNode:
        value = part(node, "value")
        if not isinstance(value, Workload) or value.kind != "task":
            raise CompileError(f"send needs a task, as task(...) or a kernel call makes; got {value!r}.").at(
                node.line
            )
        self.check_in_process(node)
        return Send(part(node, "channel"), self.inner(value, node), node.line)

    def consume(self, node: Workload) -> TreeNode:
        channel, var = self.token(node)
        return Consume(channel, var, self.body(part(node, "body"), var, node), node.line)

    def receive(self, node: Workload) -> TreeNode:
        channel, var = self.token(node)
        otherwise = part(node, "otherwise", None)
        orelse = None if otherwise is None else self.inner(otherwise, node)
        return Receive(channel, var, self.body(part(node, "body"), var, node), orelse, node.line)

    def token(self, node: Workload) -> tuple[Any, LoopVar]:
        """The channel, and the variable that a token of it is bound to."""
        self.check_in_process(node)
        channel = part(node, "channel")
        return channel, LoopVar(f"token_{channel.name}", channel)

    def check_in_process(self, node: Workload) -> None:
        if self.bodies is None:
            raise CompileError(
                f"{node.kind}(...) belongs in the body of a process of connect([process(...)...], [channels])."
            ).at(node.line)

    def connect(self, node: Workload) -> TreeNode:
        self.bodies = {}
        processes = []
        for process in part(node, "processes"):
            if id(process.body) not in self.bodies:
                self.bodies[id(process.body)] = self.inner(process.body, node)
            body = self.bodies[id(process.body)]
            declared = tuple(process.consumes), tuple(process.produces)
            processes.append(ProcessTree(process.name, *declared, body, process.line))
        made = Connect(tuple(processes), tuple(part(node, "channels")), node.line)
        channels.check(made)
        return made


RULES: dict[str, Callable[[_Resolver, Workload], TreeNode]] = {
    "task": _Resolver.task,
    "parallel_for": _Resolver.loop,
    "for_each": _Resolver.loop,
    "select": _Resolver.loop,
    "combine": _Resolver.block,
    "sequential": _Resolver.block,
    "pipeline": _Resolver.block,
    "empty": _Resolver.empty,
    "cond": _Resolver.cond,
    "slot_set_u64": _Resolver.slot_set,
    "slot_load_u64": _Resolver.slot_load,
    "send": _Resolver.send,
    "consume": _Resolver.consume,
    "receive": _Resolver.receive,
    "connect": _Resolver.connect,
}


# ---- values ------------------------------------------------------------------------------------------------------


def as_axis(axis: Any, selecting: bool, line: SourceLine) -> Any:
    """What a loop may run over: an int, Dense, DenseDyn, Ragged or one of its rows.

    A selection runs over a Sparse, one of its rows, or ints.

    raises AxisError (a TypeError and ValueError), or CompileError for a Sparse outside a selection
    """
    if selecting and (isinstance(axis, (list, tuple, range)) or type(axis).__name__ == "ndarray"):
        try:
            return integers(axis, "a selection")
        except TypeError:
            raise AxisError(f"a selection runs over ints; got {axis!r}.").at(line) from None
    try:
        checked = loop_axis(axis)
    except AxisError as error:
        hint = " To run over a list of indices use P.sel(...)." if isinstance(axis, (list, tuple, range)) else ""
        raise AxisError(f"{error.message.rstrip('.')}.{hint}").at(line) from None
    if selecting != isinstance(checked, (Sparse, SparseRow)):
        if selecting:
            raise AxisError(
                f"a selection runs over a Sparse or a list of ints; got {axis!r}. For a dense loop use P(...)."
            ).at(line)
        raise CompileError("a Sparse axis selects indices: use P.sel(sparse), or select(sparse, body).").at(line)
    return checked


def axis_value(value: Any, line: SourceLine) -> int | str | Expr:
    """A value in kernel[...]: an int, a tag (str), or an expression of loop variables."""
    if isinstance(value, (LoopVar, Expr)):
        return as_expr(value)
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, np.bool_)):
        return int(value)
    if (number := as_int(value)) is not None:
        return number
    if isinstance(value, float) or hasattr(value, "__float__") and getattr(value, "ndim", 0) == 0:
        if value == value and abs(value) != float("inf"):
            return int(value)
    raise CompileError(
        "an axis value in kernel[...] is an int, a loop variable, an expression of those, or a str tag; "
        f"got {value!r} ({type(value).__name__})."
    ).at(line)


def as_predicate(value: Any, line: SourceLine) -> Expr | bool | int:
    """A condition: a bool or int, or an expression that is not zero."""
    if isinstance(value, (Expr, LoopVar)):
        return as_expr(value)
    if isinstance(value, (bool, int)):
        return value
    if isinstance(value, np.bool_) or as_int(value) is not None:
        return bool(value)
    hint = " Call it, or write the condition itself." if callable(value) else ""
    raise TypeCheckError(
        f"a predicate is a bool, an int or a scalar expression such as axis('b') > 2; got {value!r}.{hint}"
    ).at(line)


def slot_number(slot: Any, line: SourceLine) -> int:
    """A slot index from 0 to 255."""
    number = as_int(slot)
    if number is None or not 0 <= number < SLOTS:
        raise OperandError(f"a program has the slots 0 to {SLOTS - 1}; got {slot!r}.").at(line)
    return number


def call_body(body: Any, index: Any, node: Workload) -> Workload:
    """A function given as a body, called with the index; what it records counts when it returns None."""
    if not callable(body):
        raise CompileError(
            f"the body of a {node.kind} node is a workload or a function of the index; got {body!r}."
        ).at(node.line)
    with record.Recorder(f"{node.kind} body", detached=True) as recorder:
        made = body(index)
        recorded = recorder.finish()
    for lost in recorder.loose.values():
        if lost is not made:
            raise CompileError(
                f"the {lost.kind} node built here is not part of what the body of the {node.kind} node returns, so it "
                "would do nothing: return it, or sequential(...) of it and the others."
            ).at(lost.line)
    if made is None and not recorded and node.kind in ("consume", "receive"):
        raise CompileError(
            f"the body of a {node.kind} node returned None; it has to return what to do with the token, such as "
            "task(...), or combine() for nothing."
        ).at(node.line)
    if made is None:
        return together(recorded)
    if not isinstance(made, Workload):
        raise CompileError(
            f"the body of a {node.kind} node returned {made!r} ({type(made).__name__}); it has to return a workload, "
            "such as task(...)."
        ).at(node.line)
    return made


def together(nodes: list[Workload], ordered: bool = False) -> Workload:
    """One node for several: the node itself if it is alone."""
    if len(nodes) == 1:
        return nodes[0]
    if not nodes:
        return Workload("empty")
    return Workload("sequential" if ordered else "combine", workloads=list(nodes))


def leaves(value: Any) -> Iterator[Expr]:
    """The leaves of all expressions in an axis value, a predicate, an argument or a tensor view."""
    if isinstance(value, LoopVar):
        yield as_expr(value)
    elif isinstance(value, Expr):
        yield from value.leaves()
    elif isinstance(value, (RaggedRow, SparseRow)):
        yield from value.row.leaves()
    elif isinstance(value, Tensor):
        for index in value.index_exprs:
            if isinstance(index, slice):
                yield from leaves(index.start)
                yield from leaves(index.stop)
            else:
                yield from leaves(index)


def outside_its_loop(var: LoopVar, what: str) -> str:
    return (
        f"{what} uses the loop variable {var.name!r} outside its loop. A loop variable has a value only inside the"
        " body of the loop that made it."
    )


def _free_vars(node: Workload) -> Iterator[LoopVar]:
    """Loop variables used by the tasks of hand-made nodes."""
    if node.kind == "task":
        resources = node.fields.get("resources") or {}
        arguments = resources.values() if isinstance(resources, dict) else resources
        for value in (*node.fields.get("params", ()), *arguments):
            yield from (leaf.a for leaf in leaves(value) if leaf.kind == "loop_var")
    for child in node.parts():
        yield from _free_vars(child)


__all__ = ["as_axis", "axis_value", "call_body", "leaves", "outside_its_loop", "resolve", "together"]
