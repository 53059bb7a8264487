"""The type checker: finds what does not fit, and says nothing about calls that do."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pto_wsp.type_checker as names
from pto_wsp.errors import TypeCheckError
from pto_wsp.layout import LayoutIncompatibleError, TensorLayout, TensorReplicate, TensorShard
from pto_wsp.scalar_expr import LoopVar, axis
from pto_wsp.trace.kernel import Constexpr, In, InOut, KernelParam, Out, Scalar, Tile, kernel
from pto_wsp.trace.ops import OPS
from pto_wsp.trace.tile import pto
from pto_wsp.type_checker import (
    TypeCheckContext,
    TypeChecker,
    TypeErrorInfo,
    TypeErrorKind,
    check_kernel_call,
    check_layouts_compatible,
    validate_axis_index,
)
from pto_wsp.types import Dense, DenseDyn, DType, Symbol, Tensor
from tests.strategies import graphs

F32, F16 = DType.F32, DType.F16
R, S = TensorReplicate(), TensorShard
K = TypeErrorKind


def tensor(*shape, dtype=F32, dist=None):
    return Tensor(None, shape, dtype, layout=None if dist is None else TensorLayout(dist))


def kinds(kernel, *positional, **args):
    checker = TypeChecker()
    fits = checker.check_kernel_call(kernel, (), args, positional)
    assert fits == (not checker.errors)
    return [e.kind for e in checker.errors]


@kernel
def add(a: In[Tile[4, 8, F32]], b: In[Tile[4, 8, F32]], out: Out[Tile[4, 8, F32]]):
    pto.store(out, pto.add(a, b))


@kernel
def scale(x: In[Tile[4, 8, F32]], out: Out[Tile[4, 8, F32]], gain: Scalar[F32] = 0.5):
    pto.store(out, pto.mul(x, gain))


@kernel
def dot(a: In[Tile[4, 8, F32]], b: In[Tile[8, 16, F32]], out: InOut[Tile[4, 16, F32]]):
    pto.store(out, pto.matmul(a, b, out))


@kernel
def unannotated(x, y):
    pass


@kernel
def whole(a: In[Tensor], b: In[Tensor], out: Out[Tensor]):
    pass


def fitting():
    return {"a": tensor(4, 8), "b": tensor(4, 8), "out": tensor(4, 8)}


# ---- arguments and parameters


def test_calls_that_fit():
    assert kinds(add, **fitting()) == []
    assert kinds(add, *fitting().values()) == []
    assert kinds(add, tensor(4, 8), b=tensor(4, 8), out=tensor(4, 8)) == []
    assert kinds(scale, x=tensor(4, 8), out=tensor(4, 8)) == []
    for gain in (1, 2.5, True, np.float32(1), np.int8(3), Symbol("g"), LoopVar("i", 4), axis("i") + 1, None):
        assert kinds(scale, x=tensor(4, 8), out=tensor(4, 8), gain=gain) == []
    assert kinds(add, a=None, b=None, out=None) == [] and kinds(unannotated, x=1, y="z") == []
    assert kinds("a kernel by name", x=1) == []
    assert check_kernel_call(add, [], fitting()) == []


@pytest.mark.parametrize(
    "kernel, positional, args, expected",
    [
        (add, 0, ("a", "b"), [K.ARITY_MISMATCH]),
        (add, 4, (), [K.ARITY_MISMATCH]),
        (add, 3, ("a",), [K.ARITY_MISMATCH]),
        (add, 0, (), [K.ARITY_MISMATCH]),
        (scale, 1, (), [K.ARITY_MISMATCH]),
        (scale, 4, (), [K.ARITY_MISMATCH]),
        (unannotated, 0, ("x",), [K.ARITY_MISMATCH]),
        (add, 0, ("a", "b", "oit"), [K.MISSING_ARGUMENT]),
        (scale, 0, ("x", "gian"), [K.MISSING_ARGUMENT]),
    ],
)
def test_arity_and_names(kernel, positional, args, expected):
    assert kinds(kernel, *[tensor(4, 8)] * positional, **{name: tensor(4, 8) for name in args}) == expected


def test_messages_name_the_argument():
    (error,) = check_kernel_call(add, [], {"a": tensor(4, 8)})
    assert "b, out" in error.message and "add" in error.message and error.got == 1
    misspelt = check_kernel_call(add, [], {**dict(a=tensor(4, 8), b=tensor(4, 8)), "oit": tensor(4, 8)})
    assert "oit" in misspelt[0].message and "out" in misspelt[0].hint and misspelt[0].expected == "out"


@pytest.mark.parametrize("value", [3, "x", [1.0], np.zeros((4, 8), np.float32), Symbol("x"), LoopVar("i", 4)])
def test_tiles_need_tensors(value):
    assert kinds(add, a=value, b=tensor(4, 8), out=tensor(4, 8)) == [K.TYPE_MISMATCH]
    assert kinds(whole, a=value, b=tensor(4), out=tensor(4)) == [K.TYPE_MISMATCH]


@pytest.mark.parametrize("value", ["x", tensor(4, 8), [1], np.zeros(3)])
def test_scalars_need_numbers(value):
    assert kinds(scale, x=tensor(4, 8), out=tensor(4, 8), gain=value) == [K.TYPE_MISMATCH]


def test_kernels_of_other_kinds():
    class Plain:
        name = "plain"
        signature = {"x": "In[Tensor]", "y": "int", "return": None}

    class OfFunction:
        name = "of_function"

        @staticmethod
        def func(x: In[Tile[4, 8, F32]], y=3): ...

    assert kinds(Plain(), x=tensor(4), y=3) == [] and kinds(Plain(), x=3, y=3) == [K.TYPE_MISMATCH]
    assert kinds(Plain(), x=tensor(4)) == [K.ARITY_MISMATCH]
    assert kinds(OfFunction(), x=tensor(4, 8)) == [] and kinds(OfFunction(), x=tensor(4)) == [K.SHAPE_MISMATCH]


# ---- tiles


@pytest.mark.parametrize(
    "shape, fits",
    [
        ((4, 8), True),
        ((3, 8), True),
        ((4, 7), True),
        ((0, 8), True),
        ((1, 1, 4, 8), True),
        ((2, 4, 8), False),
        ((5, 8), False),
        ((4, 9), False),
        ((8,), False),
        ((), False),
    ],
)
def test_shapes(shape, fits):
    assert kinds(add, a=tensor(*shape), b=tensor(4, 8), out=tensor(4, 8)) == ([] if fits else [K.SHAPE_MISMATCH])


def test_rank_one_views():
    @kernel
    def outer(
        row: In[Tile[1, 8, F32]], column: In[Tile[4, 1, F32]], one: In[Tile[1, 1, F32]], out: Out[Tile[4, 8, F32]]
    ):
        pto.store(out, pto.add(pto.mul(column, row), one))

    out = tensor(4, 8)
    assert kinds(outer, tensor(8), tensor(4), tensor(), out) == []
    assert kinds(outer, tensor(8), tensor(4), tensor(1), out) == []
    assert kinds(outer, tensor(9), tensor(4), tensor(), out) == [K.SHAPE_MISMATCH]


def test_dtypes():
    errors = check_kernel_call(add, [], {**fitting(), "a": tensor(4, 8, dtype=F16)})
    assert [e.kind for e in errors] == [K.TYPE_MISMATCH]
    assert "f16" in errors[0].message and "f32" in errors[0].message and "'a'" in errors[0].message


def test_outputs_can_be_written():
    data = np.zeros((4, 8), np.float32)
    data.flags.writeable = False
    read_only = Tensor(data, (4, 8), F32)
    repeated = Tensor(np.lib.stride_tricks.as_strided(np.zeros(8, np.float32), (4, 8), (0, 4)), (4, 8), F32)
    empty = Tensor(np.zeros((0, 2, 8), np.float32), (0, 2, 8), F32)
    assert kinds(add, a=tensor(4, 8), b=tensor(4, 8), out=empty[LoopVar("i", 0)]) == []
    for bad, word in ((read_only, "read-only"), (repeated, "broadcast")):
        assert kinds(add, a=bad, b=bad, out=tensor(4, 8)) == []
        (error,) = check_kernel_call(add, [], {**fitting(), "out": bad})
        assert error.kind is K.DIRECTION_VIOLATION and word in error.message and "'out'" in error.message


def test_loop_bounds_where_the_call_is_surely_reached():
    i, j = LoopVar("i", Dense[4]()), LoopVar("j", 3)
    dyn, none = LoopVar("d", DenseDyn(99)), LoopVar("n", Dense[0]())
    whole = tensor(6, 4, 8)
    sure = TypeCheckContext(unconditional=True)

    def found(view, context=sure):
        checker = TypeChecker(context)
        checker.check_kernel_call(scale, (), {"x": view, "out": tensor(4, 8)})
        return [e.kind for e in checker.errors]

    for fine in (
        whole[i],
        whole[i + j],
        whole[5 - i],
        whole[dyn],
        whole[i + none + 9],
        whole[i * j],
        whole[0][i : i + 4][0:4],
    ):
        assert found(fine) == []
    for outside in (whole[i + 3], whole[i - 1], whole[2 * i], whole[i - j]):
        assert found(outside) == [K.AXIS_OUT_OF_BOUNDS]
        assert found(outside, TypeCheckContext()) == []
    tall = tensor(12, 8)
    assert found(tall[i * 4 : i * 4 + 4]) == [] and found(tall[i * 5 : i * 5 + 4]) == [K.AXIS_OUT_OF_BOUNDS]


# ---- layouts


@pytest.mark.parametrize(
    "a, b, out, fits",
    [
        ((S(0), R), (S(0), R), (S(0), R), True),
        ((S(0), R), (R, R), (R, R), True),
        ((S(0), R), (R, S(1)), (S(0), S(1)), True),
        ((S(0), R), (S(1), R), (R, R), False),
        ((S(0), R), (R, S(0)), (R, R), False),
        ((S(0), R), (R, R), (S(1), R), False),
    ],
)
def test_layouts_that_are_combined(a, b, out, fits):
    args = {"a": tensor(4, 8, dist=a), "b": tensor(4, 8, dist=b), "out": tensor(4, 8, dist=out)}
    assert kinds(add, **args) == ([] if fits else [K.LAYOUT_INCOMPATIBLE])
    assert kinds(whole, **args) == ([] if fits else [K.LAYOUT_INCOMPATIBLE])


@pytest.mark.parametrize(
    "a, b, out, fits",
    [
        ((S(0), R), (R, S(1)), (S(0), S(1)), True),
        ((R, S(0)), (S(0), R), (R, R), True),
        ((S(1), S(0)), (S(0), R), (S(1), R), True),
        ((S(0), R), (S(1), R), (S(0), R), True),
        ((R, S(0)), (S(1), R), (R, R), False),
        ((S(0), R), (R, S(0)), (R, R), False),
        ((S(0), R), (R, R), (S(1), R), False),
    ],
)
def test_layouts_of_a_matmul(a, b, out, fits):
    args = {"a": tensor(4, 8, dist=a), "b": tensor(8, 16, dist=b), "out": tensor(4, 16, dist=out)}
    assert kinds(dot, **args) == ([] if fits else [K.LAYOUT_INCOMPATIBLE])


def test_a_reduced_or_broadcast_dimension_says_nothing():
    @kernel
    def centre(x: In[Tile[4, 8, F32]], bias: In[Tile[1, 8, F32]], out: Out[Tile[4, 8, F32]]):
        pto.store(out, pto.add(pto.sub(x, pto.rowmean(x)), bias))

    @kernel
    def sums(x: In[Tile[4, 8, F32]], out: Out[Tile[4, 1, F32]]):
        pto.store(out, pto.rowsum(x))

    @kernel
    def flip(x: In[Tile[4, 8, F32]], out: Out[Tile[8, 4, F32]]):
        pto.store(out, pto.transpose(x))

    @kernel
    def shift(x: In[Tile[4, 8, F32]], y: In[Tile[4, 8, F32]], out: Out[Tile[4, 8, F32]]):
        pto.store(out, pto.add(y, pto.rowsum(x)))

    assert kinds(shift, tensor(4, 8, dist=(R, S(1))), tensor(4, 8, dist=(R, S(2))), tensor(4, 8)) == []
    assert kinds(shift, tensor(4, 8, dist=(S(1), R)), tensor(4, 8, dist=(S(2), R)), tensor(4, 8)) == [
        K.LAYOUT_INCOMPATIBLE
    ]
    x = tensor(4, 8, dist=(S(0), S(1)))
    assert kinds(centre, x, tensor(8, dist=(S(1),)), tensor(4, 8)) == []
    assert kinds(centre, x, tensor(8, dist=(S(0),)), tensor(4, 8)) == [K.LAYOUT_INCOMPATIBLE]
    assert kinds(sums, x, tensor(4, 1, dist=(S(0), R))) == []
    assert kinds(sums, x, tensor(4, 1, dist=(S(1), R))) == [K.LAYOUT_INCOMPATIBLE]
    assert kinds(flip, x, tensor(8, 4, dist=(S(1), S(0)))) == []
    assert kinds(flip, x, tensor(8, 4, dist=(S(0), S(1)))) == [K.LAYOUT_INCOMPATIBLE]


def test_tensors_that_are_not_combined_need_no_join():
    @kernel
    def two(a: In[Tile[4, 8, F32]], b: In[Tile[4, 8, F32]], c: Out[Tile[4, 8, F32]], d: Out[Tile[4, 8, F32]]):
        pto.store(c, pto.exp(a))
        pto.store(d, pto.exp(b))

    assert kinds(two, tensor(4, 8, dist=(S(0), R)), tensor(4, 8, dist=(S(1), R)), tensor(4, 8), tensor(4, 8)) == []


def test_constexpr_decides_which_values_meet():
    @kernel
    def either(
        a: In[Tile[4, 8, F32]], b: In[Tile[4, 8, F32]], out: Out[Tile[4, 8, F32]], both: Constexpr[bool] = False
    ):
        pto.store(out, pto.add(a, b) if both else a)

    args = {"a": tensor(4, 8, dist=(S(0), R)), "b": tensor(4, 8, dist=(S(1), R)), "out": tensor(4, 8)}
    assert kinds(either, **args) == [] and kinds(either, **args, both=True) == [K.LAYOUT_INCOMPATIBLE]


def test_layouts_of_a_kernel_that_cannot_be_traced():
    @kernel
    def broken(a: In[Tile[4, 8, F32]], b: In[Tile[4, 8, F32]]):
        raise RuntimeError("the user's own")

    sharded = tensor(4, 8, dist=(S(0), R))
    assert kinds(broken, sharded, tensor(4, 8)) == []
    assert kinds(broken, sharded, tensor(4, 8, dist=(S(1), R))) == [K.LAYOUT_INCOMPATIBLE]
    assert kinds(whole, sharded, tensor(4, dist=(S(1),)), tensor(4, 8)) == []


def test_check_layouts_compatible():
    a, b, c = (tensor(4, 8, dist=d) for d in ((S(0), R), (R, S(1)), (S(1), R)))
    assert check_layouts_compatible(a, b, "text", None).dist == (S(0), S(1))
    assert check_layouts_compatible(a) is a.layout and check_layouts_compatible(a, c) is None
    assert check_layouts_compatible() is None and check_layouts_compatible(3, "x") is None


# ---- the other checks


def test_axis_bounds():
    checker = TypeChecker()
    for ax in (Dense[4](), DenseDyn(4)):
        assert checker.check_axis_bounds(ax, 0) and checker.check_axis_bounds(ax, np.int64(3))
        assert not checker.check_axis_bounds(ax, 4) and not checker.check_axis_bounds(ax, -1)
    assert checker.check_axis_bounds(Dense[4](), LoopVar("i", 9)) and checker.check_axis_bounds([1], 99)
    assert [e.kind for e in checker.errors] == [K.AXIS_OUT_OF_BOUNDS] * 4
    assert validate_axis_index(Dense[4](), 3) is True
    with pytest.raises(TypeError, match="index 4"):
        validate_axis_index(Dense[4](), 4)


def test_tensor_access():
    checker, t = TypeChecker(), tensor(4, 8)
    i = LoopVar("i", 4)
    assert all(checker.check_tensor_access(t, index) for index in ((), i, (i, i), (3, -8), [0], 2))
    assert checker.check_tensor_access("no tensor", (1, 2, 3))
    for index, kind in (((0, 0, 0), K.SHAPE_MISMATCH), ((i, i, i), K.SHAPE_MISMATCH), (4, K.AXIS_OUT_OF_BOUNDS)):
        checker.clear_errors()
        assert not checker.check_tensor_access(t, index) and [e.kind for e in checker.errors] == [kind]


def test_shapes_compatible():
    checker = TypeChecker()
    assert checker.check_shapes_compatible((2, 3), [2, 3]) and checker.check_shapes_compatible((-1, 3), (2, -1))
    assert not checker.check_shapes_compatible((2, 3), (2, 4), "in blur") and not checker.check_shapes_compatible(
        (2,), (2, 1)
    )
    assert "in blur" in checker.errors[0].message and checker.errors[0].kind is K.SHAPE_MISMATCH


def test_checker_and_context():
    checker = TypeChecker(TypeCheckContext(workload_name="w", current_location="w.add"))
    checker.error(K.TYPE_MISMATCH, "the message", "this", "that", "try the other")
    assert checker.has_errors() and checker.get_errors() == checker.errors is not checker.get_errors()
    assert str(checker.errors[0]).splitlines() == [
        "TypeError: type_mismatch",
        "  at w.add",
        "  the message",
        "  Expected: this",
        "  Got: that",
        "  Hint: try the other",
    ]
    assert checker.check_kernel_call(add, (), fitting())  # says whether this call fits, whatever was found before
    checker.clear_errors()
    assert not checker.has_errors() and TypeChecker().ctx == TypeCheckContext()
    with pytest.raises(TypeError, match="arity_mismatch"):
        check_kernel_call(add, [], {}, fail_fast=True)
    assert str(TypeErrorInfo(K.ARITY_MISMATCH, "m")) == "TypeError: arity_mismatch\n  m"
    assert all(kind.value == kind.name.lower() for kind in K) and len(K) == 7


def test_identities():
    assert names.Layout is TensorLayout and names.LayoutShard is names.Shard is TensorShard
    assert names.LayoutCompatibilityError is LayoutIncompatibleError and issubclass(
        LayoutIncompatibleError, TypeCheckError
    )


# ---- random kernels


class Drawn:
    """A kernel made of a random graph."""

    name = "drawn"

    def __init__(self, graph):
        self.graph = graph
        self.params = [KernelParam(p.name, p.direction, p.type) for p in graph.params]

    def graph_for(self, values):
        return self.graph


def tensors_for(graph, dists):
    return {
        p.name: Tensor(None, p.type.shape, p.type.dtype, layout=TensorLayout(dist))
        for p, dist in zip(graph.tile_params, dists)
    }


STRAIGHT = tuple(op for op in OPS.values() if op.reference is not None and op.name not in ("matmul", "transpose"))
sharding = st.sampled_from([(R, R), (S(0), R), (R, S(0)), (S(1), R), (R, S(1)), (S(0), S(1)), (S(1), S(0))])


@given(graphs(ops=STRAIGHT), sharding, st.data())
def test_one_layout_for_all_fits_any_kernel_without_transposition(graph, dist, data):
    """Tensors that are all distributed alike, or not at all, can be combined in any way."""
    dists = [dist if data.draw(st.booleans()) else (R, R) for _ in graph.tile_params]
    scalars = {p.name: 1 for p in graph.scalar_params}
    assert kinds(Drawn(graph), **tensors_for(graph, dists), **scalars) == []


@given(graphs(), st.data())
def test_any_layouts_are_judged(graph, data):
    dists = [data.draw(sharding) for _ in graph.tile_params]
    scalars = {p.name: 1 for p in graph.scalar_params}
    assert set(kinds(Drawn(graph), **tensors_for(graph, dists), **scalars)) <= {K.LAYOUT_INCOMPATIBLE}
