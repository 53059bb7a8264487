"""Values and the pto namespace: what a kernel body may write, and what it is told when it may not."""

from __future__ import annotations

import inspect
import math
import operator
import pydoc
import sys

import numpy as np
import pytest

from pto_wsp.errors import CompileError, OperandError, PtoError, TileAsBoolError, TypeCheckError, UsageError
from pto_wsp.trace import text
from pto_wsp.trace.graph import check
from pto_wsp.trace.kernel import In, InOut, Out, Scalar, Tile, kernel
from pto_wsp.trace.ops import INTERNAL, OPS
from pto_wsp.trace.tile import Namespace, Value, pto
from pto_wsp.types import DType, Location, Symbol, Tensor
from tests.trace.frames import files

F = Tile[4, 8, DType.F32]
ROW, COLUMN = Tile[4, 1, DType.F32], Tile[1, 8, DType.F32]


def traced(body, x=F, y=F, out=F, direction=Out):
    """The graph of body(x, y, out, s)."""

    def run(x, y, out, s):
        return body(x, y, out, s)

    run.__annotations__ = {"x": In[x], "y": In[y], "out": direction[out], "s": Scalar[DType.F32]}
    graph = kernel(run).graph_for({})
    check(graph)
    assert text.same(text.parse(str(graph)), graph)
    return graph


def ops(graph):
    return [n.op.name for n in graph.nodes if n.op.name not in ("param", "scalar_param")]


def refused(body, *words, kind=PtoError, **shapes):
    """The body is refused at its own line; returns the message."""
    with pytest.raises(kind) as caught:
        traced(body, **shapes)
    error = caught.value
    if isinstance(error, PtoError):
        assert error.line is not None and error.line.file == __file__
        assert "tracing kernel run" in str(error)
    assert files(error) == {__file__}
    for word in words:
        assert word in str(error)
    return str(error)


# ---- the namespace -----------------------------------------------------------------------------------------------


def test_every_row_is_a_function_with_signature_and_doc():
    for name, op in OPS.items():
        if name in INTERNAL:
            assert name not in dir(pto)
            continue
        function = getattr(pto, name)
        assert function.__name__ == name and function.__doc__ == op.doc
        parameters = inspect.signature(function).parameters
        assert list(parameters)[: len(op.operand_names)] == list(op.operand_names)
    assert pto.max is pto.maximum and pto.min is pto.minimum
    assert isinstance(pto, Namespace) and repr(pto).startswith("<pto: ")
    text_ = pydoc.render_doc(pto, renderer=pydoc.plaintext)
    assert "rowsum(x)" in text_ and "matmul(a, b, acc=None)" in text_ and OPS["gelu"].doc[:40] in text_


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("rowsumm", "pto.rowsum"),
        ("softmax", "rowmax"),
        ("topk", "tsort32"),
        ("where", "select"),
        ("qqqq", "help(pto)"),
    ],
)
def test_unknown_operations(name, hint):
    with pytest.raises(AttributeError, match="no operation") as caught:
        getattr(pto, name)
    assert hint in str(caught.value) and caught.value.line.file == __file__
    assert not hasattr(pto, name)


@pytest.mark.parametrize(
    "call",
    [
        lambda: pto.exp(1),
        lambda: pto.load(1),
        lambda: pto.store(1, 2),
        lambda: pto.constant(2.0),
        lambda: pto.iota_u32(8),
        lambda: pto.alloc((2, 2)),
    ],
)
def test_outside_a_kernel(call):
    with pytest.raises(RuntimeError, match="inside a @kernel") as caught:
        call()
    assert isinstance(caught.value, UsageError) and caught.value.line.file == __file__


# ---- operators ---------------------------------------------------------------------------------------------------

BINARY = {
    operator.add: "add",
    operator.sub: "sub",
    operator.mul: "mul",
    operator.truediv: "div",
    operator.lt: "lt",
    operator.le: "le",
    operator.gt: "gt",
    operator.ge: "ge",
    operator.eq: "eq",
    operator.ne: "ne",
}


@pytest.mark.parametrize(("symbol", "name"), BINARY.items(), ids=lambda v: getattr(v, "__name__", v))
@pytest.mark.parametrize("other", [2, 2.5, True, np.float32(3), np.int64(3), "tile", "scalar"], ids=str)
def test_operators_are_ops(symbol, name, other):
    def body(x, y, out, s):
        right = {"tile": y, "scalar": s}.get(other, other) if isinstance(other, str) else other
        a, b = symbol(x, right), symbol(right, x)
        assert isinstance(a, Value) and isinstance(b, Value) and a.shape == b.shape == (4, 8)
        pto.store(out, a)
        pto.store(out, b)

    found = [n for n in ops(traced(body)) if n in BINARY.values()]
    mirrored = {"lt": "gt", "gt": "lt", "le": "ge", "ge": "le"}
    assert found in ([name, name], [name, mirrored.get(name, name)])


def test_the_order_of_operands_is_kept():
    def run(x: In[F], out: InOut[F]):
        pto.store(out, 1 - x)
        pto.store(out, np.float32(6) / x)
        pto.store(out, x - 1)

    x, out = np.full((4, 8), 2, np.float32), np.zeros((4, 8), np.float32)
    seen = []

    @kernel
    def k(x: In[F], a: Out[F], b: Out[F], c: Out[F]):
        pto.store(a, 1 - x)
        pto.store(b, np.float32(6) / x)
        pto.store(c, x - 1)

    outs = [np.zeros((4, 8), np.float32) for _ in range(3)]
    k.interpret(x, *outs)
    seen = [o[0, 0] for o in outs]
    assert seen == [-1, 3, 1] and out is not None


def test_unary_operators_and_transpose():
    def body(x, y, out, s):
        assert +x is x
        assert x.T.shape == (8, 4)
        pto.store(out, abs(-x) + s * 2 - (-s))

    assert {"neg", "abs", "transpose"} <= set(ops(traced(body)))


def test_matmul_operator_loads_parameters_as_operands():
    def body(x, y, out, s):
        pto.store(out, x @ y)

    graph = traced(body, x=Tile[4, 5, DType.F32], y=Tile[5, 8, DType.F32])
    assert [n.attrs.get("at") for n in graph.nodes if n.op.name == "load"] == ["operand", "operand"]
    assert graph.static_cycles() == 20 + 40 + 160 + 32


def test_numpy_functions_mean_their_op():
    def body(x, y, out, s):
        pto.store(out, np.exp(np.maximum(x, 2.0)) + np.sqrt(np.abs(y)) * np.float32(2))

    assert [n for n in ops(traced(body)) if n not in ("load", "store", "constant")] == [
        "maximum",
        "exp",
        "abs",
        "sqrt",
        "mul",
        "add",
    ]


def test_comparison_makes_a_mask_for_select():
    def body(x, y, out, s):
        mask = x > 0
        assert mask.dtype is DType.U8 and mask.shape == (4, 8)
        pto.store(out, pto.select(mask, x, 0.0))

    assert "select" in ops(traced(body))


def test_properties():
    def body(x, y, out, s):
        assert (x.rows, x.cols, x.shape, x.dtype, x.location, x.name) == (4, 8, (4, 8), DType.F32, Location.UB, "x")
        assert s.shape is None and s.location is None and s.dtype is DType.F32 and s.name == "s"
        assert (x + 1).name is None and repr(x) == "<x: tile<4x8xf32>>" and repr(x + 1) == "<tile<4x8xf32>>"
        assert x in {x: 1} and len({x, y}) == 2
        pto.store(out, x)

    traced(body)


# ---- loads and stores (execution.md 1.4 to 1.6) ------------------------------------------------------------------


def test_implicit_loads_come_first_in_signature_order():
    def body(x, y, out, s):
        t = pto.load(y)
        pto.store(out, y + x + t)

    graph = traced(body)
    loads = [(graph.param_of(n).name, n.attrs["at"]) for n in graph.nodes if n.op.name == "load"]
    assert loads == [("x", "entry"), ("y", "entry"), ("y", "here")]


def test_loads_happen_once_per_implicit_use_and_each_time_when_explicit():
    def body(x, y, out, s):
        pto.load(x)
        pto.store(out, x + x * x)

    assert traced(body).static_cycles() == 32 * 5


def test_unused_parameters_are_not_loaded():
    def body(x, y, out, s):
        pto.store(out, x)

    assert ops(traced(body)) == ["load", "store"]


def test_load_of_a_computed_value_is_that_value():
    def body(x, y, out, s):
        t = x + 1
        assert pto.load(t) is t
        pto.store(out, t)

    assert traced(body).static_cycles() == 96


@pytest.mark.parametrize(
    ("case", "x", "o"),
    [
        (lambda x, o: (pto.store(x, x + x), pto.store(o, x)), 6, 3),
        (lambda x, o: (pto.store(x, x + x), pto.store(o, pto.load(x))), 6, 6),
        (lambda x, o: (pto.store(x, x + x), pto.store(o, pto.matmul(x, x))), 6, 72),
    ],
)
def test_snapshots(case, x, o):
    @kernel
    def k(x: InOut[Tile[2, 2, DType.F32]], o: Out[Tile[2, 2, DType.F32]]):
        case(x, o)

    memory, out = np.full((2, 2), 3, np.float32), np.zeros((2, 2), np.float32)
    k.interpret(memory, out)
    assert (memory == x).all() and (out == o).all()


def test_store_converts():
    def body(x, y, out, s):
        pto.store(out, x)

    graph = traced(body, out=Tile[4, 8, DType.F16])
    assert ops(graph) == ["load", "cast", "store"] and graph.static_cycles() == 96


def test_an_out_parameter_can_be_read_back():
    def body(x, y, out, s):
        pto.store(out, x)
        pto.store(out, pto.load(out) * 2)

    assert ops(traced(body)).count("load") == 2


def test_constants():
    def body(x, y, out, s):
        pto.store(out, x * pto.constant(2) + pto.constant(np.float32(0.5), DType.F32))

    assert [n.attrs["value"] for n in traced(body).nodes if n.op.name == "constant"] == [2.0, 0.5]

    def truncated(x, y, out, s):
        pto.store(out, pto.broadcast(pto.cast(pto.constant(2.9, DType.I32), DType.F32), [4, np.int64(8)]))

    values = [n.attrs for n in traced(truncated).nodes if n.op.name in ("constant", "broadcast")]
    assert values[0]["value"] == 2 and values[1]["shape"] == (4, 8)


# ---- refusals ----------------------------------------------------------------------------------------------------


def as_bool(x, y, out, s):
    if x > 0:
        pass


def chained(x, y, out, s):
    return 0 < x < 1


def while_scalar(x, y, out, s):
    while s:
        pass


def contained(x, y, out, s):
    return x in [y]


@pytest.mark.parametrize("body", [as_bool, chained, while_scalar, contained])
def test_a_tile_as_bool(body):
    said = refused(body, "pto.select", "known only when the kernel runs", kind=TileAsBoolError)
    assert f"{__file__.rsplit('/', 1)[1]}" in said
    with pytest.raises(TypeError):
        traced(body)
    if sys.version_info >= (3, 11):
        assert "^" in said


NUMBERS = {
    "iteration": (lambda x, y, out, s: list(x), "iterate"),
    "len": (lambda x, y, out, s: len(x), "x.rows"),
    "index": (lambda x, y, out, s: x[0], "view"),
    "assign": (lambda x, y, out, s: operator.setitem(x, 0, 1), "select"),
    "float": (lambda x, y, out, s: float(s), "Constexpr"),
    "int": (lambda x, y, out, s: int(x), "Constexpr"),
    "range": (lambda x, y, out, s: range(s), "Constexpr"),
    "complex": (lambda x, y, out, s: complex(x), "Constexpr"),
    "asarray": (lambda x, y, out, s: np.asarray(x), "tile.array"),
    "ufunc": (lambda x, y, out, s: np.arctan(x), "np.arctan"),
    "reduce": (lambda x, y, out, s: np.add.reduce(x), "np.add.reduce"),
    "function": (lambda x, y, out, s: np.sum(x), "np.sum"),
    "floordiv": (lambda x, y, out, s: x // 2, "pto.floor"),
    "mod": (lambda x, y, out, s: 2 % x, "pto.floor"),
    "power": (lambda x, y, out, s: x**2, "x * x"),
    "and": (lambda x, y, out, s: (x > 0) & (x < 1), "pto.minimum"),
    "invert": (lambda x, y, out, s: ~(x > 0), "pto.eq"),
    "array": (lambda x, y, out, s: x.array, "interpret"),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_what_a_tile_is_not(case):
    body, word = NUMBERS[case]
    refused(body, word, kind=(TypeError, UsageError))


OPERANDS = {
    "array": (lambda x, y, out, s: x + np.ones((4, 8)), "array of shape (4, 8)", "In[Tile"),
    "array on the left": (lambda x, y, out, s: np.ones((4, 8)) * x, "array of shape (4, 8)", "In[Tile"),
    "none": (lambda x, y, out, s: pto.mul(x, None), "None", "return"),
    "text": (lambda x, y, out, s: x * "a", "'a'", "number"),
    "symbol": (lambda x, y, out, s: x * Symbol("n"), "Symbol", "Scalar"),
    "tensor": (lambda x, y, out, s: pto.add(x, Tensor(None, (4, 8), DType.F32)), "Tensor", "In[Tile"),
    "shapes": (lambda x, y, out, s: pto.matmul(x, y), "K is 8", "matmul"),
    "broadcast": (lambda x, y, out, s: x + pto.slice_even(y), "do not broadcast", "[4, 4]"),
    "dtypes": (lambda x, y, out, s: x + pto.iota_u32(8), "float and integer", "pto.cast"),
    "arity": (lambda x, y, out, s: pto.mul(x), "'y'", "mul(x, y)"),
    "too many": (lambda x, y, out, s: pto.exp(x, y), "too many", "exp(x)"),
    "keyword": (lambda x, y, out, s: pto.exp(x, speed=3), "'speed'", "exp(x)"),
    "numbers only": (lambda x, y, out, s: pto.add(1, 2), "only numbers", "Python"),
    "unary number": (lambda x, y, out, s: pto.exp(1.0), "number 1.0", "exp"),
    "offset": (lambda x, y, out, s: pto.load(x, offset=(1, 0)), "offset", "view"),
    "mask": (lambda x, y, out, s: pto.store(out, x, mask=y), "mask", "select"),
    "store to In": (lambda x, y, out, s: pto.store(x, y), "DIRECTION_VIOLATION", "InOut"),
    "store to a value": (lambda x, y, out, s: pto.store(x + 1, y), "tile parameter", "computed"),
    "store to a scalar": (lambda x, y, out, s: pto.store(s, y), "tile parameter", "scalar s"),
    "store a scalar": (lambda x, y, out, s: pto.store(out, s), "broadcast", "store"),
    "store a number": (
        lambda x, y, out, s: pto.store(out, 0.0),
        "pto.broadcast(pto.constant(0.0, DType.F32), (4, 8))",
        "store",
    ),
    "store a shape": (lambda x, y, out, s: pto.store(out, pto.rowsum(x)), "broadcast", "[4, 1]"),
    "constant of a tile": (lambda x, y, out, s: pto.constant(x), "constant", "number"),
    "constant too large": (lambda x, y, out, s: pto.constant(2**40, DType.I32), "does not fit", "i32"),
    "constant dtype": (lambda x, y, out, s: pto.constant(2, "f32"), "DType", "constant"),
    "alloc elsewhere": (lambda x, y, out, s: pto.alloc((2, 2), DType.F32, Location.L1), "UB", "alloc"),
    "alloc shape": (lambda x, y, out, s: pto.alloc((2, 0)), "shape", "alloc"),
    "iota": (lambda x, y, out, s: pto.iota_u32(0), "at least 1", "cols"),
    "topk": (lambda x, y, out, s: pto.extract_topk_indices(pto.alloc((1, 64), DType.F32), 33), "k", "1 to 32"),
    "sort": (lambda x, y, out, s: pto.tsort32(x, y), "tile<1x32xf32>", "scores"),
}


@pytest.mark.parametrize("case", OPERANDS)
def test_wrong_operands(case):
    body, *words = OPERANDS[case]
    refused(body, *words, kind=CompileError)


@pytest.mark.parametrize("case", ["shapes", "iota", "topk", "sort", "offset", "too many"])
def test_shape_preconditions_are_value_errors_too(case):
    with pytest.raises(ValueError):
        traced(OPERANDS[case][0])
    assert issubclass(OperandError, (ValueError, TypeCheckError))


def test_the_innermost_user_line_is_shown():
    def helper(x):
        return pto.matmul(x, x)

    def body(x, y, out, s):
        pto.store(out, helper(x))

    assert "return pto.matmul(x, x)" in refused(body)


def test_errors_of_the_user_pass_unchanged():
    with pytest.raises(ZeroDivisionError) as caught:
        traced(lambda x, y, out, s: 1 / 0)
    assert files(caught.value) == {__file__}


# ---- tiles live in their own kernel ------------------------------------------------------------------------------


def test_a_tile_of_another_kernel():
    kept = []

    @kernel
    def one(x: In[F], out: Out[F]):
        kept.append(x + 1)
        pto.store(out, kept[0])

    @kernel
    def two(x: In[F], out: Out[F]):
        pto.store(out, x + kept[0])

    assert one.graph.stores
    with pytest.raises(TypeCheckError, match="belongs to kernel one"):
        two.graph
    with pytest.raises(UsageError):
        kept[0] + 1
    with pytest.raises(TypeCheckError, match="earlier tracing"):
        one.trace()


def test_closures_inside_one_kernel_are_fine():
    @kernel
    def k(x: In[F], out: Out[F]):
        doubled = x * 2

        def again():
            return doubled + x

        pto.store(out, again() + again())

    assert ops(k.graph).count("add") == 3


def test_python_loops_unroll_and_lists_hold_tiles():
    @kernel
    def k(x: In[F], out: Out[F]):
        powers = [x]
        for _ in range(3):
            powers.append(powers[-1] * x)
        pto.store(out, sum(powers))

    assert ops(k.graph).count("mul") == 3 and ops(k.graph).count("add") == 4


@pytest.mark.parametrize(
    "body",
    [
        lambda x, y, out, s: pto.store(out, out + 1),
        lambda x, y, out, s: pto.store(out, pto.load(out)),
        lambda x, y, out, s: (pto.store(out, x), pto.store(out, out + 1)) and None,
    ],
)
def test_reading_an_out_parameter_warns(body):
    """It reads what the array held when the kernel started (execution.md 1.6); the warning is at the user's line."""
    with pytest.warns(UserWarning, match="DIRECTION_VIOLATION: out is Out.*InOut") as caught:
        graph = traced(body)
    assert {w.filename for w in caught} == {__file__}
    assert "load" in ops(graph)


def test_the_hint_about_reading_an_out_parameter_fits():
    with pytest.warns(UserWarning, match="to read back what the kernel stores, load it after the store"):
        traced(lambda x, y, out, s: pto.store(out, pto.load(out)))
    with pytest.warns(UserWarning, match=r"pto.load\(out\) reads back what was stored"):
        traced(lambda x, y, out, s: (pto.store(out, x), pto.store(out, out + 1)) and None)


def test_in_place_operators():
    @kernel
    def k(x: In[F], out: Out[F]):
        y = x
        y += 1
        y *= y
        x -= 2
        pto.store(out, y + x)

    assert [n for n in ops(k.graph) if n not in ("load", "store", "constant")] == ["add", "mul", "sub", "add"]

    @kernel
    def wrong(x: In[F], out: Out[F]):
        out += x

    with pytest.raises(TypeError, match=r"pto.store\(out, pto.add\(out"):
        wrong.graph


def test_rounding_functions_of_python():
    @kernel
    def k(x: In[F], out: Out[F]):
        pto.store(out, round(x) + math.floor(x) + math.ceil(x))

    assert {"round", "floor", "ceil"} <= set(ops(k.graph))


def test_numpy_matmul():
    def body(x, y, out, s):
        pto.store(out, np.matmul(x, y.T))

    traced(body, out=Tile[4, 4, DType.F32])


@pytest.mark.parametrize(
    ("name", "hint"), [("sum", "pto.rowsum"), ("exp", "pto.exp(x)"), ("astype", "pto.cast"), ("qq", "help")]
)
def test_tiles_have_no_methods(name, hint):
    refused(lambda x, y, out, s: getattr(x, name)(), hint, "no attribute", kind=AttributeError)
    assert refused(lambda x, y, out, s: hasattr(x, name) or x[0], "index")
