"""What an emitted project is made from: one frozen `Emission` that every writer reads.

In: a WorkloadTree and a Schedule. Out: kernels with their sources, numbered tensors, symbols, sizes, axes and slots,
the names that stand for them in C++ (no text of the user's reaches a source file but through names.py), and the
schedule as the device keeps it. A directive that the device cannot keep is an error here. Start reading at `emission`.

On the device every tensor is contiguous, row by row: the host copies arrays so. Tasks run in program order as far as
they touch the same data: whatever the schedule says of edges, two tasks that share an element, one of them writing it,
are ordered by the task generator, since the results have to be those of the CPU simulation.
"""

from __future__ import annotations

import ast
import itertools
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pto_wsp.ascend import ptoisa
from pto_wsp.ascend.names import Names, identifier, source_of
from pto_wsp.ascend.source import KernelSource
from pto_wsp.errors import CompileError, PtoError, ScheduleError, SourceLine
from pto_wsp.scalar_expr import Expr, LoopVar, trace_task_fn
from pto_wsp.schedule import DepsMode, Schedule, TaskGraphConfig, TaskWindow, WindowMode
from pto_wsp.trace import tree
from pto_wsp.trace.bindings import Binding, Load, bind, element, graph_of
from pto_wsp.trace.extents import Source, extents_of
from pto_wsp.trace.graph import KernelGraph, Param
from pto_wsp.types import DenseDyn, DType, Ragged, RaggedRow, Sparse, SparseRow, Symbol, Tensor

__all__ = [
    "DEFAULT_TASKS", "EmittedAxis", "EmittedCall", "EmittedKernel", "EmittedSize", "EmittedSymbol", "EmittedTensor",
    "Emission", "Orders", "emission",
]  # fmt: skip

DEFAULT_TASKS = 8192
"""Tasks that the table on the device holds, if the window is not larger; the host runs it as often as needed."""
MOST_TASKS = 1 << 16
"""A larger window does not make the table longer: fewer tasks than the window are in it."""
MACHINES = ("a2a3", "Ascend A2/A3")
"""What the simulated device may be called when it is this one."""
MOST_ABORT = 1 << 20
MOST_TARGETS = 1 << 16


@dataclass(frozen=True, eq=False)
class EmittedKernel:
    """A kernel under fixed shapes, dtypes and constexprs. Its source is called as aicore.py says: pto_<name>::Run."""

    number: int
    name: str  # the user's
    enum: str  # kKernelRmsnorm, in plan.h
    graph: KernelGraph
    source: KernelSource
    agreeing: tuple[tuple[Source, ...], ...]  # groups of valid extents that must be equal in every task
    line: SourceLine | None

    @property
    def core(self) -> str:
        """AIV, AIC or MIX."""
        return self.source.core

    @property
    def header(self) -> str:
        """Its file in the tree."""
        return f"kernels/{self.source.name}.h"


@dataclass(frozen=True, eq=False)
class EmittedTensor:
    """A base tensor. direction: what tasks do with it, "in", "out" or "inout"."""

    number: int
    name: str  # as the user's source calls it, or the parameter it is first bound to; unique
    enum: str
    tensor: Tensor
    direction: str

    @property
    def dtype(self) -> DType:
        return self.tensor.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """As declared; the host may run the program with arrays of other extents."""
        return self.tensor.shape

    @property
    def rank(self) -> int:
        return len(self.tensor.shape)


@dataclass(frozen=True, eq=False)
class EmittedSymbol:
    """A 64-bit word that the host sets. is_float: some f32 parameter reads it, as its bits."""

    number: int
    name: str
    enum: str
    is_float: bool


@dataclass(frozen=True, eq=False)
class EmittedSize:
    """The trip count of a DenseDyn loop, set by the host."""

    number: int
    name: str  # of the loop variable
    enum: str
    loop: tree.Loop

    @property
    def default(self) -> int:
        assert isinstance(self.loop.axis, DenseDyn)
        return self.loop.axis.size


@dataclass(frozen=True, eq=False)
class EmittedAxis:
    """A Ragged or Sparse axis, whose arrays the host copies to the device as int32_t."""

    number: int
    name: str  # of the first loop over it; unique
    enum: str
    axis: Ragged | Sparse
    line: SourceLine | None

    @property
    def parts(self) -> tuple[str, ...]:
        """The arrays: ("lengths",) or ("indptr", "indices")."""
        return ("lengths",) if isinstance(self.axis, Ragged) else ("indptr", "indices")


@dataclass(frozen=True, eq=False)
class EmittedCall:
    """A kernel call of the tree."""

    number: int
    task: tree.TaskCall
    kernel: EmittedKernel
    function: str  # its name in expand.aicpu
    loops: tuple[LoopVar, ...]  # around it, outermost first
    tiles: tuple[Binding, ...]  # one per tile parameter
    apart: tuple[bool, ...]  # per tile: the elements of a vector may lie at any distance

    @property
    def scalars(self) -> tuple[tuple[Param, Any], ...]:
        """Scalar parameters with the values they are given."""
        given = dict(self.task.args)
        return tuple((p, given[p.name]) for p in self.kernel.graph.scalar_params)


@dataclass(frozen=True)
class Orders:
    """The schedule, as the task generator keeps it.

    dispatch   "one worker" or the kind of the policy;  targets: its workers;  key: target = key mod targets
    window     None: the table is as long as the host likes
    streams    in-order queues, 0 for none;  stream_key: which one, None for task number mod streams
    explicit   after=[...] counts
    deps       of the schedule; data edges (infer_bytes_overlap) are kept in any case
    mailboxes  workers are fed one task at a time by a generator that runs beside them
    """

    dispatch: str = "one worker"
    targets: int = 1
    key: Expr | None = None
    window: TaskWindow | None = None
    streams: int = 0
    stream_key: Expr | None = None
    explicit: bool = False
    deps: DepsMode | None = None
    mailboxes: bool = False

    @property
    def by_stream(self) -> bool:
        """Stream s runs on worker s."""
        return self.streams > 0 and self.dispatch == "one worker"


@dataclass(frozen=True, eq=False)
class Emission:
    """A workload and its schedule, ready to be written as a project. Numbers count from 0 in each list."""

    title: str  # the user's name of the program
    name: str  # the same as an identifier
    tree: tree.WorkloadTree
    orders: Orders
    kernels: tuple[EmittedKernel, ...]
    calls: tuple[EmittedCall, ...]  # in program order of the tree
    tensors: tuple[EmittedTensor, ...]
    symbols: tuple[EmittedSymbol, ...]
    sizes: tuple[EmittedSize, ...]
    axes: tuple[EmittedAxis, ...]
    slots: tuple[int, ...]  # slots in use; the device numbers them densely
    loads: tuple[Load, ...]  # slots that are loaded from tensors
    number_of: dict[int, int] = field(repr=False)  # id of a TaskCall, Loop, axis, SlotLoad or base Tensor -> number

    @property
    def operands(self) -> int:
        """Most tile parameters of a kernel."""
        return max((len(k.graph.tile_params) for k in self.kernels), default=0)

    @property
    def args(self) -> int:
        """Most argument words of a task: axis values, then scalars."""
        return max((len(c.task.axes) + len(c.scalars) for c in self.calls), default=0)

    @property
    def rank(self) -> int:
        """Most dimensions of a tensor."""
        return max((t.rank for t in self.tensors), default=0)

    @property
    def workspace_bytes(self) -> int:
        """GM scratch that each group of cores needs, 512-byte aligned."""
        most = max((k.source.workspace_bytes for k in self.kernels), default=0)
        return (most + 511) // 512 * 512

    @property
    def has_cube(self) -> bool:
        """A worker is a group of one cube core and two vector cores; else it is one vector core."""
        return any(k.core != "AIV" for k in self.kernels)

    @property
    def table_tasks(self) -> int:
        """Tasks that the table on the device holds: all that a window does, within limits, since it is emptied then."""
        window = None if self.orders.mailboxes else self.orders.window
        if window is None or window.unit != "tasks":
            return DEFAULT_TASKS
        if window.mode is WindowMode.ABORT:  # it has to be known whether there are more
            return window.size + 1
        return max(DEFAULT_TASKS, min(window.size, MOST_TASKS))

    @property
    def reads_results(self) -> bool:
        """Is a slot loaded from a tensor that tasks write?"""
        return any(self.tensors[load.tensor].direction != "in" for load in self.loads)

    def slot(self, slot: int) -> int:
        """The device's number of a slot."""
        return self.slots.index(slot)

    def symbol(self, name: str) -> EmittedSymbol:
        return next(s for s in self.symbols if s.name == name)


def emission(
    workload: tree.WorkloadTree,
    schedule: Schedule | None = None,
    title: str | None = None,
    mailboxes: bool = False,
    isa: str = "ascendc",
) -> Emission:
    """What the writers need to know of a workload under a schedule.

    mailboxes  feed workers one task at a time; needs the generator and the workers resident side by side
    isa        how @ptoisa_kernel kernels are emitted: "ascendc", or "pto" as PTO-ISA tile code
    raises     CompileError, ScheduleError at the user's line for what the device cannot do
    """
    return _Maker(workload, settle(schedule or Schedule(), mailboxes), title or workload.name, isa).made()


# ---- the schedule ----------------------------------------------------------------------------------------------------


def settle(schedule: Schedule, mailboxes: bool = False) -> Orders:
    """The schedule as the device keeps it.

    raises ScheduleError for a directive that it cannot keep, naming it and what to use instead
    """
    _refuse(schedule)
    policy, graph = schedule.dispatch, schedule.task_graph
    kind, targets, key = "one worker", 1, None
    if policy is not None:
        kind, targets = policy.kind, policy.num_aicpus or schedule.streams
        key = _key(policy.key_fn, f"DispatchPolicy.{policy.kind}", "dispatch")
    streams, stream_key = 0, _key(schedule.stream_by, "stream_by", "stream_by")
    if schedule.stream_by is not None or (schedule.streams > 1 and (policy is None or policy.num_aicpus)):
        streams = schedule.streams
        targets = streams if policy is None else targets
    if targets > MOST_TARGETS:
        raise ScheduleError(f"{kind} over {targets:,} workers; a device has fewer than {MOST_TARGETS:,}.", "dispatch")
    if kind == "work_steal" and not mailboxes:
        raise ScheduleError(
            "DispatchPolicy.work_steal needs mailboxes on the device: workers that take tasks while others are made. "
            'Compile with mailboxes=True, or use DispatchPolicy.round_robin(n).', "dispatch"
        )  # fmt: skip
    if mailboxes and graph is not None:
        _refuse_with_mailboxes(graph)
    given = graph is not None and "deps" in graph.given
    deps = graph.deps if graph is not None and given else None
    explicit = deps is not None and (deps.mode is DepsMode.EXPLICIT or bool(deps.explicit_edges))
    window = None if graph is None else graph.window
    return Orders(
        kind, targets, key, window, streams, stream_key, explicit, None if deps is None else deps.mode, mailboxes
    )


def _refuse(schedule: Schedule) -> None:
    """What has no meaning on a device, or none yet."""
    timing, graph = schedule.timing, schedule.task_graph
    if timing is not None and timing.kind != "immediate":
        raise _no(f"TimingPolicy.{timing.kind}", "timing", "TimingPolicy.immediate")
    machine = getattr(schedule.machine, "name", schedule.machine)
    if machine is not None and machine not in MACHINES:
        raise _no(f"Machine {machine}, which is simulated,", "machine", "'a2a3', or none")
    if graph is None:
        return
    if graph.window.mode is WindowMode.ABORT and graph.window.unit == "tasks" and graph.window.size > MOST_ABORT:
        raise ScheduleError(
            f"TaskWindow({graph.window.size:,}, mode ABORT) needs a table of so many tasks; the device has room for "
            f"{MOST_ABORT:,}. Use WindowMode.STALL.", "task_graph"
        )  # fmt: skip
    if graph.window.mode is WindowMode.BENCHMARK:
        raise _no("TaskWindow mode BENCHMARK, which counts and never waits,", "task_graph", "WindowMode.STALL")
    if graph.pools.kind != "single":
        raise _no(f"Pools.{graph.pools.kind}", "pools", "Pools.single(): each worker has a cube and vector cores")
    if graph.ready.kind != "fifo":
        raise _no(f"ReadyPolicy.{graph.ready.kind}", "ready", "ReadyPolicy.fifo()")
    if graph.start.kind != "after_orchestration":
        raise _no(f"StartPolicy.{graph.start.kind}", "start", "StartPolicy.after_orchestration()")
    if graph.trace.kind != "none":
        raise _no(f"TracePolicy.{graph.trace.kind}, which sets simulated durations,", "trace", "TracePolicy.none()")
    if graph.gen_cycles is not None:
        raise _no("gen_cycles, which is of the simulated clock,", "task_graph", "none: the device takes its time")


def _refuse_with_mailboxes(graph: TaskGraphConfig) -> None:
    """Tasks are run while others are made."""
    if graph.window.mode is WindowMode.ABORT:
        raise _no("With mailboxes, TaskWindow mode ABORT", "task_graph", "WindowMode.STALL, or mailboxes=False")
    if "start" in graph.given:
        raise _no("With mailboxes, StartPolicy.after_orchestration", "start", "no start policy, or mailboxes=False")


def _no(what: str, primitive: str, instead: str) -> ScheduleError:
    return ScheduleError(f"{what} cannot be kept on the device. Use {instead}.", primitive)


def _key(function: Any, owner: str, primitive: str) -> Expr | None:
    if function is None:
        return None
    try:
        return trace_task_fn(function)
    except Exception as error:
        raise ScheduleError(f"the key function of {owner} failed: {error}", primitive) from error


# ---- the workload ----------------------------------------------------------------------------------------------------


class _Maker:
    """Walks the tree in program order and numbers what it meets."""

    def __init__(self, workload: tree.WorkloadTree, orders: Orders, title: str, isa: str = "ascendc") -> None:
        self.workload, self.orders, self.title, self.isa = workload, orders, title, isa
        self.units: dict[str, KernelGraph] = {}  # translation units of the user's, by what they define
        self.kernels: dict[tuple[int, tuple[str, ...]], EmittedKernel] = {}
        self.calls: list[EmittedCall] = []
        self.tensors: list[Tensor] = []
        self.tensor_names: list[str] = []
        self.uses: list[set[str]] = []  # per tensor: directions of the parameters that it is bound to
        self.symbols: dict[str, bool] = {}  # name -> read as a float
        self.sizes: list[EmittedSize] = []
        self.axes: list[EmittedAxis] = []
        self.slots: set[int] = set()
        self.loads: list[Load] = []
        self.number_of: dict[int, int] = {}
        self.enums, self.names, self.files = Names(frozenset()), Names(frozenset()), Names()
        self.functions: set[str] = set()

    def made(self) -> Emission:
        for key in (self.orders.key, self.orders.stream_key):
            self.expression(key)
        self.visit(self.workload.root, ())
        self.check_after()
        tensors = tuple(
            EmittedTensor(k, name, self.enum("Tensor", name), tensor, _direction(self.uses[k]))
            for k, (tensor, name) in enumerate(zip(self.tensors, self.tensor_names, strict=True))
        )
        _check_memory(tensors)
        symbols = tuple(
            EmittedSymbol(k, name, self.enum("Symbol", name), is_float)
            for k, (name, is_float) in enumerate(self.symbols.items())
        )
        return Emission(
            title=self.title,
            name=identifier(self.title),
            tree=self.workload,
            orders=self.orders,
            kernels=tuple(self.kernels.values()),
            calls=tuple(self.calls),
            tensors=tensors,
            symbols=symbols,
            sizes=tuple(self.sizes),
            axes=tuple(self.axes),
            slots=tuple(sorted(self.slots)),
            loads=tuple(self.loads),
            number_of=self.number_of,
        )

    def enum(self, kind: str, name: str) -> str:
        """A name for plan.h: kTensorX."""
        return self.enums.new(f"k{kind}{_camel(name)}")

    # -- nodes

    def visit(self, node: tree.TreeNode, loops: tuple[LoopVar, ...]) -> None:
        if isinstance(node, tree.TaskCall):
            self.call(node, loops)
        elif isinstance(node, tree.Loop):
            self.axis(node)
            self.visit(node.body, (*loops, node.var))
        elif isinstance(node, tree.Cond):
            self.expression(node.pred)
            self.visit(node.then, loops)
            self.visit(node.orelse, loops)
        elif isinstance(node, tree.Block):
            for child in node.children:
                self.visit(child, loops)
        elif isinstance(node, tree.SlotSet):
            self.slots.add(node.slot)
        elif isinstance(node, tree.SlotLoad):
            self.load(node, loops)
        else:
            raise CompileError(
                f"{type(node).__name__.lower()} cannot be emitted: processes that talk through channels have no place "
                "on the device. Write the stages as one @workload; target='cpu_sim' runs the pipeline."
            ).at(node.line)

    def axis(self, node: tree.Loop) -> None:
        axis = node.axis
        if isinstance(axis, DenseDyn):
            name = self.names.new(f"size {node.var.name}")[5:]
            self.number_of[id(node)] = len(self.sizes)
            self.sizes.append(EmittedSize(len(self.sizes), node.var.name, self.enum("Size", name), node))
        elif isinstance(axis, (RaggedRow, SparseRow)):
            self.expression(axis.row)
        whole = axis.ragged if isinstance(axis, RaggedRow) else axis.sparse if isinstance(axis, SparseRow) else axis
        if isinstance(whole, (Ragged, Sparse)) and id(whole) not in self.number_of:
            name = self.names.new(f"axis {node.var.name}")[5:]
            self.number_of[id(whole)] = len(self.axes)
            self.axes.append(EmittedAxis(len(self.axes), name, self.enum("Axis", name), whole, node.line))

    def load(self, node: tree.SlotLoad, loops: tuple[LoopVar, ...]) -> None:
        self.slots.add(node.slot)
        number = self.tensor(node.tensor, "slot", node.line)
        self.uses[number].add("in")
        load = element(node, loops, number)
        for dim in load.dims:
            self.dim(dim)
        for index, _ in load.inside:
            self.expression(index)
        self.number_of[id(node)] = len(self.loads)
        self.loads.append(load)

    def call(self, node: tree.TaskCall, loops: tuple[LoopVar, ...]) -> None:
        graph, given = graph_of(node), dict(node.args)
        tiles = []
        for param in graph.tile_params:
            view = given[param.name]
            if not isinstance(view, Tensor):
                what = f"{node.kernel.name}: {param.name} needs a Tensor"
                raise CompileError(f"{what}; got {type(view).__name__}.").at(node.line)
            number = self.tensor(view, param.name, node.line)
            binding = bind(param, view, number, node)
            self.uses[number].add(param.direction)
            for dim in binding.dims:
                self.dim(dim)
            tiles.append(binding)
        apart = tuple(_apart(b, node) for b in tiles)
        kernel = self.kernel(node, graph, tuple(b.param.name for b, a in zip(tiles, apart, strict=True) if a))
        for value in node.axes:
            self.expression(value)
        for param in graph.scalar_params:
            self.expression(given[param.name], param.type.dtype.is_float)
        function = self.function(f"Task{_camel(kernel.name)}")
        self.number_of[id(node)] = len(self.calls)
        self.calls.append(EmittedCall(len(self.calls), node, kernel, function, loops, tuple(tiles), apart))

    def dim(self, dim: Any) -> None:
        for value in (dim.start, *(dim.within or ())):
            self.expression(value)

    def expression(self, value: Any, as_float: bool = False) -> None:
        """Note the symbols and slots that a value reads."""
        if isinstance(value, Symbol):
            self.symbols[value.sym] = self.symbols.get(value.sym, False) or as_float
        elif isinstance(value, Expr):
            for leaf in value.leaves():
                if leaf.kind in ("symbol_u64", "task_tag_u64"):
                    self.symbols.setdefault(leaf.a, False)
                elif leaf.kind.startswith("slot_"):
                    self.slots.add(leaf.a)

    # -- what nodes refer to

    def function(self, base: str) -> str:
        """A function of that name, or with a number behind it."""
        names = (base + (str(number) if number > 1 else "") for number in itertools.count(1))
        found = next(name for name in names if name not in self.functions)
        self.functions.add(found)
        return found

    def kernel(self, node: tree.TaskCall, graph: KernelGraph, apart: tuple[str, ...]) -> EmittedKernel:
        key = (id(graph), apart)
        if key not in self.kernels:
            name = self.files.new(graph.name)
            try:
                self.check_unit(graph)
                source = ptoisa.source(node.kernel, graph, name, apart, self.isa)
            except PtoError as error:
                raise error if error.line is not None else error.at(node.line) from None
            enum, line = self.enum("Kernel", name), node.kernel.line
            agreeing = extents_of(graph).constraints()
            self.kernels[key] = EmittedKernel(len(self.kernels), graph.name, enum, graph, source, agreeing, line)
        return self.kernels[key]

    def check_unit(self, graph: KernelGraph) -> None:
        """raises CompileError when two translation units of the user's define a function of the same name"""
        if graph.custom is not None and graph.custom.form == "unit":
            other = self.units.setdefault(graph.name, graph).custom
            if other is not graph.custom:
                raise CompileError(
                    f"two kernels called {graph.name} are translation units, which both define that name; rename one."
                ).at(graph.custom.line)

    def tensor(self, view: Tensor, param: str, line: SourceLine | None) -> int:
        """The number of the array that a view is of."""
        base = view.base
        if id(base) not in self.number_of:
            name = self.names.new(f"tensor {_written_name(line, param) or param}")[7:]
            self.number_of[id(base)] = len(self.tensors)
            self.tensors.append(base)
            self.tensor_names.append(name)
            self.uses.append(set())
        return self.number_of[id(base)]

    def check_after(self) -> None:
        """Edges that the user states with after=[...] are kept, or refused at the user's line."""
        for call in self.calls:
            for handle in call.task.after:
                if not self.orders.explicit:
                    raise ScheduleError(
                        "after=[...] states an edge, and this schedule leaves explicit edges out. "
                        "Add task_graph(deps=Deps.explicit()) or Deps.hybrid(...).", "deps"
                    ).at(call.task.line)  # fmt: skip
                around = self.calls[self.number_of[id(handle)]].loops
                if around != call.loops[: len(around)]:
                    raise ScheduleError(
                        f"after=[...] names a call inside the loop {around[-1].name}, which has ended: it stands for "
                        "many tasks. Put the loop and this call into one sequential block.", "deps"
                    ).at(call.task.line)  # fmt: skip


def _direction(uses: set[str]) -> str:
    if uses <= {"in"}:
        return "in"
    return "out" if uses == {"out"} else "inout"


def _camel(name: str) -> str:
    """An identifier in the form that C++ constants and functions have."""
    return "".join(part[:1].upper() + part[1:] for part in identifier(name).split("_"))


def _written_name(line: SourceLine | None, param: str) -> str | None:
    """X, where the user's line binds `param=X[b][t]`."""
    try:
        found = ast.walk(ast.parse(textwrap.dedent(source_of(line))))
        calls = [n for n in found if isinstance(n, ast.Call)]
        values = [k.value for n in calls for k in n.keywords if k.arg == param]
        values += [n.args[1] for n in calls if param == "slot" and len(n.args) > 1]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    for value in values[:1]:
        while isinstance(value, (ast.Subscript, ast.Attribute)):
            value = value.value
        if isinstance(value, ast.Name) and value.id != "self":
            return value.id
    return None


def _apart(binding: Binding, call: tree.TaskCall) -> bool:
    """Is the tile a vector whose elements lie at a distance?

    raises CompileError for other tiles whose columns do
    """
    tile, shape = binding.param.node.tile, binding.view.base.shape
    strides = dict(zip((d.role for d in binding.dims), _strides(shape), strict=True))
    if tile.cols == 1:
        return tile.rows > 1 and strides.get("rows", 1) != 1
    if strides.get("cols", 1) == 1:
        return False
    if tile.rows == 1:
        return True
    raise CompileError(
        f"{call.kernel.name}: the columns of {binding.param.name} ({tile}) lie {strides['cols']} elements apart in a "
        f"tensor of shape {shape}; the copy unit needs them next to each other. Let the tile run along the last "
        "dimension, or keep a transposed tensor."
    ).at(call.line)


def _strides(shape: tuple[int, ...]) -> Iterator[int]:
    """Elements from one position of each dimension to the next, rows last."""
    for axis in range(len(shape)):
        step = 1
        for extent in shape[axis + 1 :]:
            step *= extent
        yield step


def _check_memory(tensors: tuple[EmittedTensor, ...]) -> None:
    """Each tensor gets memory of its own on the device, so no two may share it here when one is written.

    raises CompileError
    """
    import numpy as np

    for k, a in enumerate(tensors):
        for b in tensors[:k]:
            if a.direction == b.direction == "in" or a.tensor.data is None or b.tensor.data is None:
                continue
            if np.may_share_memory(a.tensor.data, b.tensor.data) and np.shares_memory(a.tensor.data, b.tensor.data):
                raise CompileError(
                    f"tensors {b.name} and {a.name} share memory, and tasks write to it; on the device each tensor has "
                    "memory of its own. Make one Tensor and take views of it: X[...]."
                )
