"""Tile kernels and task schedules in Python: traced, compiled with LLVM, run on the CPU and timed in cycles.

The public names, nothing else. Start with `kernel`, `workload` and `P`; README.md has a quick start.
"""

from typing import TYPE_CHECKING

from pto_wsp import csp, errors, layout, linear_layout, program, scalar_expr, schedule, type_checker, types
from pto_wsp.csp import (
    Channel,
    Event,
    connect,
    consume,
    process,
    query,
    receive,
    record,
    replicate,
    send,
    synchronize,
    try_send,
)
from pto_wsp.errors import (
    ChannelClosed,
    ChannelError,
    ChannelFull,
    CompileError,
    Deadlock,
    ExecutionError,
    IRConversionError,
    KernelError,
    PtoError,
    RaceError,
    ScheduleError,
    TypeCheckError,
    WindowOverflow,
)
from pto_wsp.layout import (
    DistElem,
    Layout,
    LayoutCompatibilityError,
    LayoutIncompatibleError,
    LayoutReplicate,
    LayoutShard,
    MemLayout,
    Replicate,
    Shard,
    TensorLayout,
    TensorReplicate,
    TensorShard,
    allgather,
    allreduce,
    layout_join,
    reduce_scatter,
    relayout,
    tensor_layout_join,
)
from pto_wsp.linear_layout import (
    LinearLayout,
    f2_dot,
    f2_matmul,
    f2_rank,
    from_tensor_layout,
    propagate_broadcast,
    propagate_reshape,
    propagate_transpose,
    to_tensor_layout,
)
from pto_wsp.lower.pipeline import CompiledKernel
from pto_wsp.program import ExecutionTrace, Program, ProgramStats, TraceEvent, TraceLevel
from pto_wsp.schedule import (
    Deps,
    DepsMode,
    DispatchPolicy,
    Pools,
    ReadyPolicy,
    Schedule,
    StartPolicy,
    TaskGraphConfig,
    TaskWindow,
    TimingPolicy,
    TracePolicy,
    WindowMode,
)
from pto_wsp.sim.simulation import Simulation, Snapshot
from pto_wsp.sim.sweep import SweepInterrupted, schedule_grid, sweep
from pto_wsp.sim.timeline import compare_timelines
from pto_wsp.trace.author import (
    P,
    combine,
    cond,
    for_each,
    parallel_for,
    select,
    sequential,
    slot_load_u64,
    slot_set_u64,
    task,
    workload,
)
from pto_wsp.trace.graph import KernelGraph as KernelIR
from pto_wsp.trace.kernel import (
    Kernel,
    KernelParam,
    KernelRef,
    extract_kernel_params,
    get_direction,
    get_inner_type,
    jit_kernel,
    kernel,
)
from pto_wsp.trace.kinds import OpKind
from pto_wsp.trace.ptoisa import ptoisa, ptoisa_kernel
from pto_wsp.trace.tile import Value, pto
from pto_wsp.trace.workload import Task, Workload
from pto_wsp.type_checker import (
    TypeCheckContext,
    TypeChecker,
    TypeErrorInfo,
    TypeErrorKind,
    check_kernel_call,
    check_layouts_compatible,
    validate_axis_index,
)
from pto_wsp.types import DenseDyn, DType, Location, Ragged, ScalarType, Sparse, Symbol, Tensor, TileType

if TYPE_CHECKING:
    # To a type checker, In[Tile[rows, 16, DType.F32]] is a type and its arguments are types. What it takes without
    # looking at the arguments is a name of type Any: kernel bodies are untyped then, and all around them is typed.
    from typing import Any

    Dense: Any
    In: Any
    Out: Any
    InOut: Any
    Tile: Any
    Scalar: Any
    Constexpr: Any
else:
    from pto_wsp.trace.kernel import Constexpr, In, InOut, Out, Scalar, Tile
    from pto_wsp.types import Dense

__version__ = "0.1.0"

workload_decorator = workload   # the names under which older programs import the two decorators
kernel_decorator = kernel

__all__ = [
    "__version__",
    "Channel",
    "ChannelClosed",
    "ChannelError",
    "ChannelFull",
    "CompileError",
    "CompiledKernel",
    "Constexpr",
    "DType",
    "Deadlock",
    "Dense",
    "DenseDyn",
    "Deps",
    "DepsMode",
    "DispatchPolicy",
    "DistElem",
    "Event",
    "ExecutionError",
    "ExecutionTrace",
    "IRConversionError",
    "In",
    "InOut",
    "Kernel",
    "KernelError",
    "KernelIR",
    "KernelParam",
    "KernelRef",
    "Layout",
    "LayoutCompatibilityError",
    "LayoutIncompatibleError",
    "LayoutReplicate",
    "LayoutShard",
    "LinearLayout",
    "Location",
    "MemLayout",
    "OpKind",
    "Out",
    "P",
    "Pools",
    "Program",
    "ProgramStats",
    "PtoError",
    "RaceError",
    "Ragged",
    "ReadyPolicy",
    "Replicate",
    "Scalar",
    "ScalarType",
    "Schedule",
    "ScheduleError",
    "Shard",
    "Simulation",
    "Snapshot",
    "Sparse",
    "StartPolicy",
    "SweepInterrupted",
    "Symbol",
    "Task",
    "TaskGraphConfig",
    "TaskWindow",
    "Tensor",
    "TensorLayout",
    "TensorReplicate",
    "TensorShard",
    "Tile",
    "TileType",
    "TimingPolicy",
    "TraceEvent",
    "TraceLevel",
    "TracePolicy",
    "TypeCheckContext",
    "TypeCheckError",
    "TypeChecker",
    "TypeErrorInfo",
    "TypeErrorKind",
    "Value",
    "WindowMode",
    "WindowOverflow",
    "Workload",
    "allgather",
    "allreduce",
    "check_kernel_call",
    "check_layouts_compatible",
    "combine",
    "compare_timelines",
    "cond",
    "connect",
    "consume",
    "csp",
    "errors",
    "extract_kernel_params",
    "f2_dot",
    "f2_matmul",
    "f2_rank",
    "for_each",
    "from_tensor_layout",
    "get_direction",
    "get_inner_type",
    "jit_kernel",
    "kernel",
    "layout",
    "layout_join",
    "linear_layout",
    "parallel_for",
    "process",
    "program",
    "propagate_broadcast",
    "propagate_reshape",
    "propagate_transpose",
    "pto",
    "ptoisa",
    "ptoisa_kernel",
    "query",
    "receive",
    "record",
    "reduce_scatter",
    "relayout",
    "replicate",
    "scalar_expr",
    "schedule",
    "schedule_grid",
    "select",
    "send",
    "sequential",
    "slot_load_u64",
    "slot_set_u64",
    "sweep",
    "synchronize",
    "task",
    "tensor_layout_join",
    "to_tensor_layout",
    "try_send",
    "type_checker",
    "types",
    "validate_axis_index",
    "workload",
]
