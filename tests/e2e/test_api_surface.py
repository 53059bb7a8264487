"""The names that programs import, the objects that must be one and the same, and what must not break."""

import importlib
import inspect
import warnings

import numpy as np
import pytest

import pto_wsp
from pto_wsp import (
    Dense,
    DenseDyn,
    DispatchPolicy,
    DType,
    In,
    Out,
    P,
    TaskWindow,
    Tensor,
    Tile,
    WindowMode,
    kernel,
    pto,
    workload,
)
from tests.e2e.programs import f32, run, task_of, tensor

NAMES = """
    __version__
    workload kernel jit_kernel ptoisa ptoisa_kernel pto P
    Kernel KernelRef KernelParam extract_kernel_params
    KernelIR CompiledKernel OpKind Value TileType ScalarType Tile Scalar
    In Out InOut Constexpr
    Dense DenseDyn Ragged Sparse Symbol
    parallel_for for_each select cond task combine sequential slot_set_u64 slot_load_u64
    Channel process send try_send consume connect replicate Event record synchronize query
    DispatchPolicy TimingPolicy WindowMode TaskWindow DepsMode Deps ReadyPolicy StartPolicy TracePolicy
    Pools TaskGraphConfig
    Tensor DType Location MemLayout DistElem TensorReplicate TensorShard TensorLayout LayoutIncompatibleError
    tensor_layout_join relayout allreduce allgather reduce_scatter Shard Replicate
    Task Workload
    Program TraceLevel TraceEvent ExecutionTrace
    TypeChecker TypeCheckContext TypeErrorInfo TypeErrorKind Layout LayoutShard LayoutReplicate layout_join
    LayoutCompatibilityError check_kernel_call check_layouts_compatible validate_axis_index
    LinearLayout f2_dot f2_matmul f2_rank propagate_transpose propagate_reshape propagate_broadcast
    to_tensor_layout from_tensor_layout
    PtoError CompileError TypeCheckError IRConversionError ExecutionError KernelError ScheduleError
    ChannelError ChannelClosed ChannelFull
""".split()

MODULES = {
    "types": "Dense DenseDyn Ragged Sparse Symbol DType Location Tensor TensorLayout MemLayout relayout",
    "layout": "TensorLayout MemLayout TensorShard TensorReplicate",
    "linear_layout": "LinearLayout f2_dot f2_matmul f2_matmul_mat f2_transpose f2_rank f2_kernel",
    "scalar_expr": "axis symbol_u64 slot_u64 slot_i64 slot_bool task_param as_expr "
    "trace_task_fn fnv1a_64 Expr TaskExpr",
    "schedule": "DispatchPolicy TimingPolicy TaskWindow WindowMode Deps DepsMode ReadyPolicy "
    "StartPolicy TracePolicy Pools TaskGraphConfig",
    "csp": "Channel process Process send try_send consume connect replicate Event record synchronize query",
    "errors": "PtoError CompileError TypeCheckError IRConversionError ExecutionError KernelError ScheduleError "
    "ChannelError ChannelClosed ChannelFull",
    "program": "Program ProgramStats TraceLevel TraceEvent ExecutionTrace",
    "type_checker": "TypeChecker TypeCheckContext TypeErrorInfo TypeErrorKind check_kernel_call validate_axis_index",
}


@pytest.mark.parametrize("name", NAMES)
def test_public_name(name):
    assert hasattr(pto_wsp, name)
    assert name in pto_wsp.__all__


def test_older_names_of_the_decorators():
    assert pto_wsp.kernel_decorator is pto_wsp.kernel
    assert pto_wsp.workload_decorator is pto_wsp.workload


def test_decorators_take_their_function_by_name():
    def body(x: In[Tile[2, 5, DType.F32]]): ...

    assert kernel(func=body).name == "body"
    assert isinstance(pto_wsp.ptoisa_kernel(func=body), pto_wsp.Kernel)
    assert isinstance(workload(func=lambda: None)(), pto_wsp.Workload)


def test_the_vector_ops_name_their_tile():
    @kernel
    def body(x: In[Tile[4, 5, DType.F32]], y: Out[Tile[4, 5, DType.F32]]):
        scaled = pto.rowadd(tile=pto.rowmul(tile=x, vec=pto.rowsum(x)), vec=pto.rowmax(x))
        pto.store(y, pto.coladd(tile=pto.colmul(tile=scaled, vec=pto.colsum(x)), vec=pto.colmax(x)))

    assert "colmul" in str(body.trace())


def test_op_kinds_are_spelled_as_documented():
    names = """Load Store Alloc Add Sub Mul Div Max Min Neg Abs Exp Log Sqrt Rsqrt Tanh Sigmoid Relu Gelu Silu
        RowSum RowMax RowMean ColSum ColMax RowBroadcastAdd RowBroadcastMul RowExpandMul ColBroadcastAdd
        ColBroadcastMul Matmul Constant Sin Cos IotaU32 TSort32 ExtractTopkIndices"""
    for name in names.split():
        assert hasattr(pto_wsp.OpKind, name), name


def test_a_trace_lists_its_ops_and_dumps():
    @kernel
    def center(x: In[Tile[2, 5, DType.F32]], y: Out[Tile[2, 5, DType.F32]]):
        pto.store(y, pto.sub(x, pto.rowmean(pto.load(x))))

    graph, kind = center.trace(), pto_wsp.OpKind
    assert [op.kind for op in graph.ops] == [kind.Load, kind.RowMean, kind.Sub, kind.Store]
    assert graph.dump() == str(graph)


def test_nothing_exported_is_missing_or_private():
    for name in pto_wsp.__all__:
        assert hasattr(pto_wsp, name)
        assert not name.startswith("_") or name == "__version__"
    assert len(pto_wsp.__all__) == len(set(pto_wsp.__all__))


def _methods(of):
    """The public methods and properties that a class defines itself."""
    members = {name: getattr(member, "fget", None) or member for name, member in vars(of).items()}
    return {name: member for name, member in members.items() if not name.startswith("_") and callable(member)}


@pytest.mark.parametrize("name", [name for name in pto_wsp.__all__ if name != "__version__"])
def test_a_public_name_says_what_it_is(name):
    value = getattr(pto_wsp, name)
    members = _methods(value) if isinstance(value, type) else {}
    assert [member for member, of in {name: value, **members}.items() if not inspect.getdoc(of)] == []


@pytest.mark.parametrize("module", MODULES)
def test_documented_module(module):
    found = importlib.import_module(f"pto_wsp.{module}")
    for name in MODULES[module].split():
        assert hasattr(found, name), f"pto_wsp.{module}.{name}"
    assert getattr(pto_wsp, module) is found


def test_decorators_are_functions_not_modules():
    assert callable(pto_wsp.kernel) and callable(pto_wsp.workload) and pto_wsp.jit_kernel is pto_wsp.kernel


def test_identities():
    pw = pto_wsp
    assert pw.KernelRef is pw.Kernel and pw.Shard is pw.TensorShard and pw.Replicate is pw.TensorReplicate
    assert (
        pw.Layout is pw.TensorLayout and pw.LayoutShard is pw.TensorShard and pw.LayoutReplicate is pw.TensorReplicate
    )
    assert pw.layout_join is pw.tensor_layout_join and pw.LayoutCompatibilityError is pw.LayoutIncompatibleError
    assert pw.type_checker.Shard is pw.Shard and issubclass(pw.Event, pw.Channel)
    assert isinstance(task_of(4).kernel, pw.KernelRef)
    assert pw.csp.synchronize is pw.synchronize
    assert pw.__version__ == "0.1.0"


@pytest.mark.parametrize(
    "name", ["npu", "NPUFunction", "ExternalKernel", "register_kernel", "IssuePolicy", "AxisVar", "recv"]
)
def test_names_that_never_existed(name):
    with pytest.raises(AttributeError):
        getattr(pto_wsp, name)


# ---- must not break ------------------------------------------------------------------------------------------------


@kernel
def double(x: In[Tile[2, 8, DType.F32]], out: Out[Tile[2, 8, DType.F32]]):
    pto.store(out, pto.add(x, x))


def doubles(x, out, n):
    @workload
    def planes():
        for b in P(n):
            double[b](x=x[b], out=out[b])

    return planes()


def test_combinators_return_new_objects():
    work = doubles(tensor(f32(3, 2, 8)), tensor(np.zeros((3, 2, 8), np.float32)), 3)
    for changed in (
        work.dispatch(DispatchPolicy.round_robin(2)),
        work.named("n"),
        work.task_graph(window=TaskWindow(1, "tasks", WindowMode.STALL)),
    ):
        assert changed is not work
    assert run(work).total_cycles == 3 * 48
    assert run(work.dispatch(DispatchPolicy.round_robin(3))).total_cycles == 48
    assert run(work).total_cycles == 3 * 48


def test_loop_name_defaults():
    names = []

    @workload
    def loops():
        for a, b in P(2, 2):
            names.extend([a.name, b.name])
            for c in P(2):
                names.append(c.name)
                for d in P.seq(2):
                    names.append(d.name)
        for e in P(2, names=("tile",)):
            names.append(e.name)
        for f in P.grid(2):
            names.append(f.name)

    loops()
    assert names == ["b", "h", "s", "i", "tile", names[5]] and names[5] in "dijk"


def test_views():
    t = tensor(f32(3, 4, 2, 8))
    assert t.base is t and t[1].base is t and t[1][2].index_exprs == (1, 2) and t[1, 2].shape == (2, 8)

    @workload
    def indices():
        for i in P(3):
            view = t[i][2]
            assert view.index_exprs[0] is i and view.shape == (2, 8)

    indices()


def test_one_compile_many_runs():
    x, out = f32(5, 2, 8), np.zeros((5, 2, 8), np.float32)
    X, OUT = tensor(x), tensor(out)
    program = doubles(X, OUT, DenseDyn(5)).compile()
    run(program)
    np.testing.assert_array_equal(out, x * 2)
    x += 1  # edited in place
    run(program)
    np.testing.assert_array_equal(out, x * 2)
    X.data = np.asfortranarray(f32(5, 2, 8, seed=9))  # another array, other strides
    run(program)
    np.testing.assert_array_equal(out, f32(5, 2, 8, seed=9) * 2)
    X.data, OUT.data = f32(7, 2, 8), np.zeros((7, 2, 8), np.float32)
    program.set_axis_sizes({"b": 7})
    assert run(program).task_count == 7
    np.testing.assert_array_equal(OUT.data, f32(7, 2, 8) * 2)


def test_data_none_is_zeros_after_the_first_run():
    OUT = Tensor(data=None, shape=(3, 2, 8), dtype=DType.F32)
    run(doubles(tensor(f32(3, 2, 8)), OUT, 3))
    np.testing.assert_array_equal(OUT.data, f32(3, 2, 8) * 2)


def test_stats_is_an_attribute():
    program = doubles(tensor(f32(3, 2, 8)), tensor(np.zeros((3, 2, 8), np.float32)), 3).compile()
    assert not callable(program.stats)
    stats = run(program)
    assert isinstance(stats.total_cycles, int) and stats.total_cycles > 0
    assert "total_cycles" in repr(stats) or "144" in repr(stats)


def test_target_aliases():
    work = doubles(tensor(f32(3, 2, 8)), tensor(np.zeros((3, 2, 8), np.float32)), 3)
    for target in ("cpu_sim", "cpu_sim_codegen"):
        assert run(work.compile(target=target)).total_cycles == 144


def test_numpy_target_agrees():
    out = np.zeros((3, 2, 8), np.float32)
    program = doubles(tensor(f32(3, 2, 8)), tensor(out), 3).compile(target="numpy")
    assert run(program).total_cycles == 144
    np.testing.assert_array_equal(out, f32(3, 2, 8) * 2)


def test_build_only_forms():
    """None arguments, task(...), cond(True, ...) and string kernels are legal while nothing is compiled."""
    from pto_wsp import cond, parallel_for, task

    @workload
    def build_only():
        for b in P(2):
            double[b](x=None, out=None)

    assert len(build_only().enumerate()) == 2
    tree = parallel_for(Dense[2](), lambda i: cond(True, task("yes", [i], []), task("no", [i], [])))
    assert [t.kernel for t in tree.enumerate()] == ["yes", "yes"]


def test_enumerate():
    work = doubles(tensor(f32(3, 2, 8)), tensor(np.zeros((3, 2, 8), np.float32)), 3)
    tasks = work.enumerate()
    assert [t.id for t in tasks] == [0, 1, 2] and [t.params for t in tasks] == [[0], [1], [2]]
    assert tasks[1].bindings == {"b": 1} and tasks[1].get("b") == 1 and tasks[1].get("zz", 7) == 7
    assert tasks[2].get_axis_value(0) == 2 and tasks[2].get_axis_value(5) == 0 and tasks[0].kernel is double


def test_layout_combinator_warns_once():
    work = doubles(tensor(f32(3, 2, 8)), tensor(np.zeros((3, 2, 8), np.float32)), 3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        work.layout(tensor(f32(2, 2)), pto_wsp.Shard(0))
    assert [w.category for w in caught] == [DeprecationWarning] and "deprecated" in str(caught[0].message)


def test_ptoisa_kernels_run_their_body_at_decoration():
    from pto_wsp import ptoisa, ptoisa_kernel

    ran = []

    @ptoisa_kernel
    def add_one(x: In[Tile[2, 8, DType.F32]], out: Out[Tile[2, 8, DType.F32]], n: pto_wsp.Scalar[DType.I32] = 5):
        ran.append(1)
        ptoisa.tstore(out, ptoisa.TADDS(ptoisa.tload(x), 1.0))
        ptoisa.cpu_sim_add_cycles(f"(uint64_t)({n.name} > 3 ? 100u : 7) * 2")

    assert ran == [1]
    x, out = f32(2, 8), np.zeros((2, 8), np.float32)
    from tests.e2e.programs import run_one

    assert run_one(add_one, x=x, out=out) == 48 + 200
    np.testing.assert_array_equal(out, x + np.float32(1))
    assert run_one(add_one, x=x, out=out, n=3) == 48 + 14
    assert ran == [1]


def test_printing_a_kernel():
    text = str(double.graph)
    assert "double" in text and "add" in text and "tile<2x8xf32>" in text
    assert all(str(getattr(double, stage)) for stage in ("loops", "llvm", "asm"))
