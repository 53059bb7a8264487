"""The catalogue of misuse: what the prototype answered with silent garbage, a crash or an obscure build failure.

Each entry either does what it should, or is refused with an error of the right type that names the value at fault
and, when a line of the user's program is to blame, shows that line. Names of the tests follow the catalogue:
K kernels, B bindings, W workload structure, S schedule, D dynamic control, P program.
"""

import contextlib
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import pto_wsp
from pto_wsp import (
    CompileError,
    Dense,
    DenseDyn,
    DispatchPolicy,
    DType,
    ExecutionError,
    In,
    InOut,
    Out,
    P,
    PtoError,
    Scalar,
    ScheduleError,
    Symbol,
    TaskWindow,
    Tensor,
    Tile,
    TypeCheckError,
    combine,
    for_each,
    kernel,
    parallel_for,
    pto,
    sequential,
    task,
    workload,
)
from tests.e2e.programs import f32, run, run_one, task_of, tensor

F32, F16, I32 = DType.F32, DType.F16, DType.I32
ten = task_of(10)
OURS = Path(pto_wsp.__file__).parent
CARETS = sys.version_info >= (3, 11)  # before, Python did not say which columns of a line run


@contextlib.contextmanager
def refused(*words, kind=(PtoError, TypeError, ValueError), line=False):
    """The block raises an error of `kind` whose text has all the words and, if asked, this file's line."""
    with pytest.raises(kind) as caught:
        yield caught
    text = str(caught.value)
    for word in words:
        assert str(word) in text, f"{word!r} is not in:\n{text}"
    if line:
        assert re.search(r"(test_misuse|programs)\.py:\d+", text) and ("^" in text or not CARETS), text
        frames, trace = [], caught.value.__traceback__
        while trace:
            frames.append(Path(trace.tb_frame.f_code.co_filename))
            trace = trace.tb_next
        ours = [frame for frame in frames if OURS in frame.parents]
        # Before Python 3.11 a `with` that replaces a traceback leaves its own two entries in it.
        assert not ours or (not CARETS and len(ours) <= 2), f"our own frames in the traceback: {frames}"


def traced(body, a=(5, 12, F32), b=(5, 12, F32), out=(5, 12, F32)):
    @kernel
    def k(a: In[Tile[a]], b: In[Tile[b]], out: Out[Tile[out]]):
        body(a, b, out)

    return k.trace()


# ---- K: kernels ----------------------------------------------------------------------------------------------------

# K1 (ops that only trace), K2-K7 (broadcasts and scalars), K11, K13-K15, K17, K20-K22, K27 work: test_numerics.py.


@pytest.mark.parametrize("shape", [(12, 1), (5, 7), (6, 12), (1, 5)])
def test_k6_shapes_that_do_not_broadcast(shape):
    with refused("[5, 12]", list(shape), kind=(TypeCheckError, ValueError), line=True):
        traced(lambda a, b, out: pto.store(out, pto.mul(a, b)), b=(*shape, F32))


@pytest.mark.parametrize(
    "source,target",
    [
        (np.float16, np.float32),
        (np.int32, np.float32),
        (np.float32, np.int32),
        (np.float64, np.float16),
        (np.uint8, np.int64),
    ],
)
def test_k8_store_converts(source, target):
    x, out = (f32(3, 8) * 10).astype(source), np.zeros((3, 8), target)

    @kernel
    def copy(x: In[Tile[3, 8, DType[_name(source)]]], out: Out[Tile[3, 8, DType[_name(target)]]]):
        pto.store(out, x)

    run_one(copy, x, out)
    np.testing.assert_array_equal(out, x.astype(target))


def _name(dtype):
    return np.dtype(dtype).name.replace("uint", "U").replace("int", "I").replace("float", "F")


@pytest.mark.parametrize("shape", [(4, 5), (8, 8), (5, 1), (12, 5)])
def test_k9_store_of_another_shape(shape):
    with refused("[5, 12]", list(shape), line=True):
        traced(lambda a, b, out: pto.store(out, a), out=(*shape, F32))


def test_k10_matmul_mismatch():
    with refused("12", "5", "K", line=True):
        traced(lambda a, b, out: pto.store(out, pto.matmul(a, b)))
    with refused("f32", "f16", line=True):
        traced(lambda a, b, out: pto.matmul(a, b), b=(12, 3, F16))


def test_k12_mixed_dtypes():
    with refused("f32", "i32", line=True):
        traced(lambda a, b, out: pto.store(out, pto.add(a, b)), b=(5, 12, I32))


@pytest.mark.parametrize(
    "call",
    [
        lambda a: pto.load(a, offset=(1, 0)),
        lambda a: pto.load(a, mask=a),
        lambda a: pto.store(a, a, offset=(0, 2)),
        lambda a: pto.store(a, a, mask=a),
    ],
)
def test_k16_offset_and_mask(call):
    """Honoured or refused; never ignored."""

    @kernel
    def k(a: InOut[Tile[4, 8, F32]]):
        call(a)

    with refused(line=True) as caught:
        k.trace()
    assert "offset" in str(caught.value) or "mask" in str(caught.value)


def test_k18_sum_of_more_than_65536_columns():
    n = 65537

    @kernel
    def total(x: In[Tile[1, n, F32]], out: Out[Tile[1, 1, F32]]):
        pto.store(out, pto.rowsum(x))

    out = np.zeros((1, 1), np.float32)
    assert run_one(total, np.ones((1, n), np.float32), out) == n + 2
    assert out[0, 0] == n


def test_k19_large_matmul():
    a, b, out = f32(512, 1024), f32(1024, 512, seed=1), np.zeros((512, 512), np.float32)

    @kernel
    def product(a: In[Tile[512, 1024, F32]], b: In[Tile[1024, 512, F32]], out: Out[Tile[512, 512, F32]]):
        pto.store(out, pto.matmul(a, b))

    run_one(product, a, b, out)
    np.testing.assert_allclose(out, a @ b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["task", "cycles", "cspt", "new", "v1", "s3", "int", "args", "scratch", "entry", "ret"]
)
def test_k23_any_parameter_name(name):
    scope = {"In": In, "Out": Out, "Tile": Tile, "F32": F32, "kernel": kernel, "pto": pto}
    exec(f"@kernel\ndef k({name}: In[Tile[2, 4, F32]], out: Out[Tile[2, 4, F32]]):\n    pto.store(out, {name})", scope)
    out = np.zeros((2, 4), np.float32)
    assert run_one(scope["k"], **{name: f32(2, 4)}, out=out) == 16
    np.testing.assert_array_equal(out, f32(2, 4))


@pytest.mark.parametrize("name", ["main", "exp", "double", "free", "malloc", "expf", "memcpy", "größe", "kernel"])
def test_k23_any_kernel_name(name):
    scope = {"In": In, "Out": Out, "Tile": Tile, "F32": F32, "kernel": kernel, "pto": pto}
    exec(
        f"@kernel\ndef {name}(x: In[Tile[2, 4, F32]], out: Out[Tile[2, 4, F32]]):\n    pto.store(out, pto.exp(x))",
        scope,
    )
    out = np.zeros((2, 4), np.float32)
    run_one(scope[name], f32(2, 4), out)
    np.testing.assert_allclose(out, np.exp(f32(2, 4)), rtol=1e-6)


def test_k24_two_kernels_of_one_name():
    def make(amount):
        @kernel
        def shift(x: In[Tile[2, 4, F32]], out: Out[Tile[2, 4, F32]]):
            pto.store(out, pto.add(x, amount))

        return shift

    one, two = make(1.0), make(2.0)
    x, a, b = f32(2, 4), np.zeros((2, 4), np.float32), np.zeros((2, 4), np.float32)
    X, A, B = tensor(x), tensor(a), tensor(b)

    @workload
    def both():
        one(x=X, out=A)
        two(x=X, out=B)

    run(both())
    np.testing.assert_array_equal(a, x + np.float32(1))
    np.testing.assert_array_equal(b, x + np.float32(2))


def test_k25_kernel_without_a_store_is_charged_and_warned_of():
    @kernel
    def pointless(x: In[Tile[2, 4, F32]]):
        pto.add(x, x)

    with pytest.warns(UserWarning, match="pointless"):
        assert run_one(pointless, f32(2, 4)) == 16


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (-1, 4), (2.5, 4)])
def test_k26_empty_tiles(shape):
    with refused(shape[0] if shape[0] != 4 else shape[1]):

        @kernel
        def k(x: In[Tile[(*shape, F32)]], out: Out[Tile[(*shape, F32)]]):
            pto.store(out, x)

        k.trace()


def test_tile_as_a_bool():
    def body(a, b, out):
        if a:
            pto.store(out, b)

    with refused("select", kind=TypeError, line=True):
        traced(body)


def test_op_outside_a_kernel():
    with refused("kernel", kind=RuntimeError):
        pto.exp(1.0)


def test_unknown_op():
    with pytest.raises(AttributeError, match="topk"):
        pto.topk


def test_wrong_number_of_operands():
    with refused("add", line=True):
        traced(lambda a, b, out: pto.add(a))
    with refused("exp", line=True):
        traced(lambda a, b, out: pto.exp(a, b))


def test_store_to_an_in_parameter():
    with refused("In", "a", line=True):
        traced(lambda a, b, out: pto.store(a, b))


def test_value_of_another_kernel():
    kept = []
    traced(lambda a, b, out: kept.append(pto.add(a, b)))
    with refused("kernel", line=True):
        traced(lambda a, b, out: pto.store(out, kept[0]))


def test_unannotated_and_tensor_parameters_cannot_be_compiled():
    @kernel
    def bare(x, out: Out[Tile[2, 4, F32]]):
        pass

    @kernel
    def whole(x: In[Tensor], out: Out[Tile[2, 4, F32]]):
        pass

    @kernel
    def symbolic(x: In[Tile["M", 4, F32]], out: Out[Tile[2, 4, F32]]):
        pass

    for k, word in ((bare, "x"), (whole, "x"), (symbolic, "M")):
        with refused(word, kind=CompileError):
            run_one(k, f32(2, 4), np.zeros((2, 4), np.float32))


# ---- B: bindings ---------------------------------------------------------------------------------------------------


@kernel
def copy(x: In[Tile[2, 8, F32]], out: Out[Tile[2, 8, F32]]):
    pto.store(out, x)


def copies(x, out, n=3):
    """n tasks, each copying plane i."""

    @workload
    def planes():
        for i in P(n):
            copy[i](x=x[i], out=out[i])

    return planes()


def test_b1_loop_past_the_extent():
    out = np.zeros((3, 2, 8), np.float32)
    with refused("3", "x", kind=PtoError):
        run(copies(tensor(f32(3, 2, 8)), tensor(out), 4))
    assert (out == 0).all()


def test_b1_dense_dyn_past_the_extent():
    out = np.zeros((3, 2, 8), np.float32)
    x, o = tensor(f32(3, 2, 8)), tensor(out)

    @workload
    def planes():
        for b in P(DenseDyn(3)):
            copy[b](x=x[b], out=o[b])

    program = planes().compile()
    run(program)
    out[:] = 0
    program.set_axis_sizes({"b": 5})
    with refused("copy[3]", "x", "(3, 2, 8)", kind=ExecutionError, line=True):
        run(program)
    assert (out == 0).all()
    program.set_axis_sizes({"b": 2})
    assert run(program).task_count == 2


def test_b1_array_smaller_than_declared():
    with refused("(3, 2, 8)", "(2, 2, 8)"):
        Tensor(data=f32(2, 2, 8), shape=(3, 2, 8), dtype=F32)
    X, OUT = tensor(f32(3, 2, 8)), tensor(np.zeros((3, 2, 8), np.float32))
    program = copies(X, OUT).compile()
    X.data = f32(2, 2, 8)
    with refused("x", kind=PtoError):
        run(program)


def test_b1_constant_index_past_the_extent():
    with refused("3", kind=(IndexError, PtoError)):
        tensor(f32(3, 2, 8))[3]


def test_b2_negative_index_counts_from_the_end():
    x, out = f32(3, 2, 8), np.zeros((2, 8), np.float32)
    run_one(copy, tensor(x)[-1], tensor(out))
    np.testing.assert_array_equal(out, x[-1])
    with refused("-4", kind=(IndexError, PtoError)):
        tensor(x)[-4]


def test_b2_index_expression_below_zero():
    X, OUT = tensor(f32(3, 2, 8)), tensor(np.zeros((3, 2, 8), np.float32))

    @workload
    def shifted():
        for i in P(3):
            copy[i](x=X[i - 1], out=OUT[i])

    with refused("-1", "x", kind=PtoError):
        run(shifted())


def test_b3_wrong_array_dtype():
    with refused("float64", "f32"):
        Tensor(data=f32(2, 8).astype(np.float64), shape=(2, 8), dtype=F32)
    with refused("f32", ">f4"):
        Tensor(data=f32(2, 8).astype(">f4"), shape=(2, 8), dtype=F32)
    X = tensor(f32(2, 8))
    with refused("int64", "f32"):
        X.data = np.zeros((2, 8), np.int64)


def test_b3_tensor_dtype_other_than_the_tiles():
    with refused("f16", "f32", "x", line=True, kind=CompileError):
        run_one(copy, f32(2, 8).astype(np.float16), np.zeros((2, 8), np.float32))


def test_b4_strides_that_are_not_whole_elements():
    records = np.zeros((2, 8), np.dtype([("x", "<f4"), ("pad", "u1")]))
    records["x"] = f32(2, 8)
    out = np.zeros((2, 8), np.float32)
    try:
        run_one(copy, records["x"], out)
    except (PtoError, ValueError, TypeError) as error:
        assert "stride" in str(error)
    else:
        np.testing.assert_array_equal(out, f32(2, 8))


def test_b5_rank_of_the_view():
    with refused("x", "2", line=True, kind=(CompileError, ValueError)):
        run_one(copy, f32(8), np.zeros((2, 8), np.float32))
    with refused("x", line=True, kind=(CompileError, ValueError)):
        run_one(copy, f32(3, 2, 8), np.zeros((2, 8), np.float32))


def test_b5_rank_one_views_for_rows_and_columns():
    @kernel
    def outer(row: In[Tile[1, 8, F32]], column: In[Tile[3, 1, F32]], out: Out[Tile[3, 8, F32]]):
        pto.store(out, pto.mul(column, row))

    row, column, out = f32(8), f32(3, seed=1), np.zeros((3, 8), np.float32)
    run_one(outer, row, column, out)
    np.testing.assert_array_equal(out, np.outer(column, row))


def test_b6_slice_keeps_its_offset():
    x, out = f32(9, 8), np.zeros((2, 8), np.float32)
    run_one(copy, tensor(x).slice(5, 7), tensor(out))
    np.testing.assert_array_equal(out, x[5:7])
    run_one(copy, tensor(x)[3:5], tensor(out))
    np.testing.assert_array_equal(out, x[3:5])


def test_b7_read_only_input():
    x, out = f32(2, 8), np.zeros((2, 8), np.float32)
    x.flags.writeable = False
    run_one(copy, x, out)
    np.testing.assert_array_equal(out, x)


def test_b8_read_only_and_broadcast_outputs():
    read_only = np.zeros((2, 8), np.float32)
    read_only.flags.writeable = False
    with refused("out", "read-only", kind=PtoError):
        run_one(copy, f32(2, 8), read_only)
    repeated = np.lib.stride_tricks.as_strided(np.zeros(8, np.float32), (2, 8), (0, 4))
    with refused("out", kind=(PtoError, ValueError)):
        run_one(copy, f32(2, 8), repeated)


def test_b9_extra_arguments():
    x, out = f32(2, 8), np.zeros((2, 8), np.float32)
    with refused("extra", kind=TypeError, line=True):
        run_one(copy, x=x, out=out, extra=x)
    with refused("3", kind=TypeError, line=True):
        run_one(copy, x, out, x)


def test_b10_missing_argument():
    with refused("out", kind=TypeError, line=True):
        run_one(copy, x=f32(2, 8))
    with refused("oit", kind=TypeError, line=True):
        run_one(copy, x=f32(2, 8), oit=f32(2, 8))


@pytest.mark.parametrize("value", ["text", 3, [[1.0] * 8] * 2])
def test_b11_something_else_than_a_tensor(value):
    with refused("x", "Tensor", line=True):
        run_one(copy, x=value, out=np.zeros((2, 8), np.float32))


def test_b11_numpy_arrays_are_accepted_or_explained():
    out = np.zeros((2, 8), np.float32)
    x = f32(2, 8)

    @workload
    def bare():
        copy(x=x, out=out)

    try:
        run(bare())
    except (PtoError, TypeError) as error:
        assert "Tensor" in str(error) and "x" in str(error)
    else:
        np.testing.assert_array_equal(out, x)


def test_b12_layouts_that_do_not_join():
    from pto_wsp import TensorLayout

    X = tensor(f32(2, 8)).with_layout(TensorLayout.sharded(0, 2, mesh_axis=0))
    OUT = tensor(np.zeros((2, 8), np.float32)).with_layout(TensorLayout.sharded(0, 2, mesh_axis=1))
    with refused("x", "out", line=True):
        run_one(copy, X, OUT)


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a.T,
        lambda a: a[::-1],
        lambda a: a[:, ::-1],
        lambda a: a[::2, ::3],
        lambda a: a[::-2, 1::2],
        lambda a: np.asfortranarray(a),
    ],
    ids=["transposed", "rows reversed", "columns reversed", "strided", "reversed and strided", "Fortran"],
)
def test_b13_arrays_of_any_strides(view):
    x = view(f32(8, 24))
    whole = np.zeros((8, 24), np.float32)
    out = view(whole)
    rows, cols = x.shape

    @kernel
    def double(x: In[Tile[rows, cols, F32]], out: Out[Tile[rows, cols, F32]]):
        pto.store(out, pto.add(x, x))

    run_one(double, x, out)
    np.testing.assert_array_equal(out, x + x)
    out[:] = 0
    assert (whole == 0).all()


def test_b13_nan_and_infinity_in_the_data():
    x, out = np.array([[np.nan, np.inf, -np.inf, -0.0] * 2] * 2, np.float32), np.zeros((2, 8), np.float32)
    run_one(copy, x, out)
    assert x.tobytes() == out.tobytes()


def test_b14_no_iterations_on_empty_tensors():
    stats = run(copies(tensor(np.zeros((0, 2, 8), np.float32)), tensor(np.zeros((0, 2, 8), np.float32)), 0))
    assert stats.task_count == 0 and stats.total_cycles == 0


# ---- W: workload structure -----------------------------------------------------------------------------------------


def loop_over(axis):
    @workload
    def over():
        for i in P(axis):
            ten(i)

    return over()


@pytest.mark.parametrize("axis", [np.int64(4), np.uint8(4), 4, True + 3])
def test_w1_integers_of_any_kind_are_axes(axis):
    assert run(loop_over(axis)).task_count == 4


@pytest.mark.parametrize("axis", [[0, 1, 2], range(4), (1, 2), 2.5, "four", None, np.arange(4)])
def test_w1_other_objects_are_not(axis):
    with refused(type(axis).__name__, line=True):
        loop_over(axis)


def test_w2_dense_without_a_call():
    assert run(loop_over(Dense[3])).task_count == 3


def test_w3_more_axes_than_names():
    """Eleven grid axes: the default names start over, the variables do not."""
    seen = np.zeros((2,) * 11 + (1, 1), np.float32)
    SEEN = tensor(seen)

    @kernel
    def mark(out: InOut[Tile[1, 1, F32]]):
        pto.store(out, pto.add(out, 1.0))

    @workload
    def eleven():
        for indices in P(*[Dense[2]()] * 11):
            mark[indices](out=SEEN[indices])

    run(eleven())
    assert (seen == 1).all()


def test_w4_sibling_dense_dyn_of_one_name():
    @workload
    def siblings():
        for i in P(DenseDyn(2), names=("n",)):
            ten(i)
        for i in P(DenseDyn(3), names=("n",)):
            ten(i)

    assert run(siblings()).task_count == 5


def test_w5_loop_variable_after_its_loop():
    with refused("b", line=True, kind=PtoError):

        @workload
        def late():
            for b in P(3):
                ten(b)
            ten(b)

        late().compile()


def test_w6_empty_bodies():
    @workload
    def nothing():
        pass

    @workload
    def empty_loop():
        for _ in P(4):
            pass
        ten()

    assert run(nothing()).task_count == 0
    assert run(nothing()).total_cycles == 0
    assert run(empty_loop()).total_cycles == 10


def test_w6_break_out_of_a_loop():
    with refused("P", kind=RuntimeError):

        @workload
        def broken():
            for _ in P(4):
                ten()
                break

        broken()


def test_w6_return_out_of_a_loop():
    with refused("P", kind=RuntimeError):

        @workload
        def returned():
            for _ in P(4):
                return

        returned()


@pytest.mark.parametrize("name", ["two words", "with-dashes", "größe", "main", "1"])
def test_w7_any_workload_name(name):
    assert run(loop_over(4).named(name)).task_count == 4


@pytest.mark.parametrize("axis", [lambda: Dense[0](), lambda: 0, lambda: DenseDyn(0)])
def test_w8_no_iterations(axis):
    assert run(loop_over(axis())).total_cycles == 0


@pytest.mark.parametrize("axis", [lambda: Dense[-1](), lambda: -3, lambda: DenseDyn(-2)])
def test_w8_negative_sizes(axis):
    with refused("-"):
        run(loop_over(axis()))


def test_p_outside_a_workload():
    with refused("workload", kind=RuntimeError):
        list(P(3))
    with refused("workload", kind=RuntimeError):
        list(P.seq(3))


def test_kernel_with_axes_outside_a_workload():
    with refused("workload", kind=RuntimeError):
        copy[1](x=tensor(f32(2, 8)), out=tensor(f32(2, 8)))


def test_names_shorter_than_axes():
    with refused("names", kind=(ValueError, PtoError)):

        @workload
        def grid():
            for _i, _j in P(2, 3, names=("a",)):
                ten()

        grid()


def test_nested_workload_is_spliced_in():
    @workload
    def inner():
        ten()

    @workload
    def outer():
        for _ in P(3):
            inner()
        ten()

    assert run(outer()).task_count == 4


def test_task_at_the_root_of_a_workload_adds_itself():
    @workload
    def root():
        task(ten.kernel, [], ten.resources)

    assert run(root()).task_count == 1


def test_task_needs_a_dict_of_arguments():
    with refused("dict", kind=TypeError):
        task(ten.kernel, [], [1, 2])


def test_string_kernels_cannot_be_compiled():
    with refused("blur", kind=CompileError):
        parallel_for(Dense[2](), lambda i: task("blur", [i], [])).compile()
    assert len(parallel_for(Dense[2](), lambda i: task("blur", [i], [])).enumerate()) == 2


# ---- S: schedule ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, -1, 2.5, "4", None])
def test_s5_worker_counts(workers):
    with refused(workers, kind=(ValueError, TypeError, ScheduleError)):
        run(loop_over(4).dispatch(DispatchPolicy.round_robin(workers)))


@pytest.mark.parametrize("policy", ["round_robin", 4, object])
def test_s6_unknown_policy(policy):
    with refused("DispatchPolicy", kind=TypeError):
        run(loop_over(4).dispatch(policy))


@pytest.mark.parametrize("size", [0, -8])
def test_s4_window_size(size):
    with refused(size):
        run(loop_over(4).task_graph(window=TaskWindow(size)))


def test_s4_window_unit():
    with refused("furlongs", kind=ValueError):
        TaskWindow(8, "furlongs")


def test_s8_a_key_uses_its_default_where_a_task_lacks_the_axis():
    work = loop_over(4).dispatch(DispatchPolicy.affinity(lambda t: t.get("batch", 2), 4))
    assert run(work).total_cycles == 40


@pytest.mark.parametrize("key", [lambda t: t.get("bacth"), lambda t: [0, 1][t.get("bacth")]])
def test_a_key_that_names_no_loop_is_warned_of(key):
    with pytest.warns(UserWarning, match="no loop is named 'bacth' .there are b; .* is 0 for every task") as found:
        assert run(loop_over(4).dispatch(DispatchPolicy.affinity(key, 4))).total_cycles == 40
    assert not found[0].filename.startswith(os.path.dirname(pto_wsp.__file__))


def test_key_that_fails_or_is_no_expression():
    with refused("batch"):
        run(loop_over(4).dispatch(DispatchPolicy.affinity(lambda t: t.batch, 4)))
    with refused("1.5"):
        run(loop_over(4).dispatch(DispatchPolicy.affinity(lambda t: 1.5, 4)))


# ---- P: program ----------------------------------------------------------------------------------------------------


def test_p1_run_time_errors_are_raised_and_the_program_survives():
    X, OUT = tensor(f32(3, 2, 8)), tensor(np.zeros((3, 2, 8), np.float32))
    program = copies(X, OUT).compile()
    good = run(program).total_cycles
    assert good == 96
    full, X.data = X.data, f32(1, 2, 8)
    with pytest.raises(PtoError):
        run(program)
    assert program.stats.total_cycles == 0
    X.data = full
    assert run(program).total_cycles == good


def test_p3_synchronize_before_execute_returns():
    program = loop_over(4).compile()
    program.synchronize()
    assert not program.is_complete()


def test_p4_execute_time_is_real():
    stats = run(copies(tensor(f32(3, 2, 8)), tensor(np.zeros((3, 2, 8), np.float32))))
    assert 0 < stats.execute_time_ms < 10_000 and stats.compile_time_ms > 0


def test_p5_compiling_a_huge_axis_is_quick():
    loop_over(10**12).compile()     # would not end if it walked the axis


def test_unknown_target():
    with refused("gpu", kind=CompileError):
        loop_over(4).compile(target="gpu")


def test_unknown_option():
    with pytest.warns(UserWarning, match="optimise"):
        assert run(loop_over(4), optimise=3).task_count == 4


def test_unknown_axis_size():
    program = loop_over(DenseDyn(4)).compile()
    with refused("bb"):
        program.set_axis_sizes({"bb": 3})
        run(program)


@pytest.mark.parametrize("dtype", DType)
def test_data_none_is_allocated_for_every_dtype(dtype):
    @kernel
    def ones(out: Out[Tile[2, 3, dtype]]):
        pto.store(out, pto.broadcast(pto.constant(1, dtype), (2, 3)))

    OUT = Tensor(data=None, shape=(2, 3), dtype=dtype)

    @workload
    def fill():
        ones(out=OUT)

    run(fill())
    assert (np.asarray(OUT.data).astype(np.float64) == 1).all()


def test_an_error_in_a_kernel_body_is_the_users_own():
    """A plain Python error inside a kernel passes through unchanged."""
    with pytest.raises(ZeroDivisionError):
        traced(lambda a, b, out: 1 / 0)


def test_errors_show_the_line_in_a_script_without_a_source_file():
    """As in a notebook cell or at a prompt: the code is on no disk."""
    code = textwrap.dedent('''
        from pto_wsp import kernel, In, Out, Tile, DType, pto
        source = """
        @kernel
        def bad(x: In[Tile[4, 8, DType.F32]], out: Out[Tile[4, 4, DType.F32]]):
            pto.store(out, pto.exp(x))
        """
        import linecache
        linecache.cache["<cell 1>"] = (len(source), None, source.splitlines(True), "<cell 1>")
        exec(compile(source, "<cell 1>", "exec"))
        try:
            bad.trace()
        except Exception as error:
            print(error)
    ''')
    text = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert "<cell 1>:4" in text and "pto.store(out, pto.exp(x))" in text and ("^^^" in text or not CARETS), text


def test_star_import_brings_only_public_names():
    assert not [n for n in pto_wsp.__all__ if n.startswith("_") and n != "__version__"]
    assert "T" not in pto_wsp.__all__
    unused = (Scalar, Symbol, combine, for_each, sequential)
    assert all(unused)
