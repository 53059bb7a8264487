"""ptoisa: instructions, their types and cycles, C expressions of scalar parameters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pto_wsp.errors import ExecutionError, OperandError, PtoError
from pto_wsp.scalar_expr import task_param
from pto_wsp.trace import text
from pto_wsp.trace.author import P, workload
from pto_wsp.trace.c_expr import added_cycles, names, parse, to_expr
from pto_wsp.trace.graph import check
from pto_wsp.trace.kernel import Constexpr, In, Kernel, Out, Scalar, Tile
from pto_wsp.trace.kernel import kernel as kernel_
from pto_wsp.trace.ptoisa import BINARY, COLUMN, ROW, SCALAR, UNARY, ptoisa, ptoisa_kernel
from pto_wsp.trace.tile import pto
from pto_wsp.types import DType, Tensor, TileType
from tests.trace.frames import files

F = Tile[4, 8, DType.F32]


def isa(body, **params):
    """A ptoisa kernel of body(...)."""
    names_ = ", ".join(params)
    made: dict = {"body": body}
    exec(f"def made({names_}): return body({names_})", made)
    function = made["made"]
    function.__annotations__ = params
    kernel = ptoisa_kernel(function)
    check(kernel.graph)
    assert text.same(text.parse(str(kernel.graph)), kernel.graph)
    return kernel


def refused(body, *words, kind=PtoError, **params):
    params = params or {"x": In[F], "y": In[F], "out": Out[F], "n": Scalar[DType.I32]}
    with pytest.raises(kind) as caught:
        isa(body, **params)
    assert caught.value.line.file == __file__
    for word in words:
        assert word in str(caught.value)


def test_the_body_runs_once_at_decoration():
    runs = []

    @ptoisa_kernel
    def k(x: In[F], out: Out[F]):
        """Docs."""
        runs.append((x.name, x.spec, out.spec.rows, out.spec.cols, out.spec.dtype))
        ptoisa.tstore(out, ptoisa.TMOV(ptoisa.tload(x)))

    assert runs == [("x", TileType(4, 8, DType.F32), 4, 8, DType.F32)]
    assert isinstance(k, Kernel) and k.graph is k.trace() and len(runs) == 1 and k.__doc__ == "Docs."
    assert k.graph.static_cycles() == 3 * 32

    @ptoisa_kernel(cpp_includes=["v.h"])
    def included(x: In[F], out: Out[F]):
        ptoisa.tstore(out, ptoisa.tload(x))

    assert included.options["cpp_includes"] == ["v.h"] and included.graph.static_cycles() == 64


@pytest.mark.parametrize("name", BINARY)
def test_binary(name):
    k = isa(
        lambda x, y, out: ptoisa.tstore(out, getattr(ptoisa, name)(ptoisa.tload(x), ptoisa.tload(y))),
        x=In[F],
        y=In[F],
        out=Out[F],
    )
    assert k.graph.static_cycles() == 4 * 32
    x, y, out = np.full((4, 8), 6, np.float32), np.full((4, 8), 4, np.float32), np.zeros((4, 8), np.float32)
    k.interpret(x, y, out)
    assert out[0, 0] == {"TADD": 10, "TSUB": 2, "TMUL": 24, "TDIV": 1.5, "TMAX": 6, "TMIN": 4}[name]


@pytest.mark.parametrize("name", UNARY)
def test_unary(name):
    shape = F if not name.startswith("TROW") else Tile[4, 1, DType.F32]
    k = isa(lambda x, out: ptoisa.tstore(out, getattr(ptoisa, name)(ptoisa.tload(x))), x=In[F], out=Out[shape])
    x, out = np.full((4, 8), 4, np.float32), np.zeros((shape.rows, shape.cols), np.float32)
    k.interpret(x, out)
    wanted = {
        "TEXP": np.exp(4),
        "TRSQRT": 0.5,
        "TSQRT": 2,
        "TLOG": np.log(4),
        "TNEG": -4,
        "TABS": 4,
        "TRELU": 4,
        "TROWSUM": 32,
    }
    assert out[0, 0] == np.float32(wanted.get(name, 4))
    assert k.graph.static_cycles() == 32 + 2 * out.size


@pytest.mark.parametrize("name", SCALAR)
@pytest.mark.parametrize("scalar", [3, 2.5, "n", "n * 2 - 1", "(float)n / 2.0f"])
def test_with_a_scalar(name, scalar):
    def body(x, out, n):
        ptoisa.tstore(out, getattr(ptoisa, name)(ptoisa.tload(x), n if scalar == "n" else scalar))

    k = isa(body, x=In[F], out=Out[F], n=Scalar[DType.I32])
    assert k.graph.static_cycles() == 3 * 32
    x, out = np.full((4, 8), 6, np.float32), np.zeros((4, 8), np.float32)
    k.interpret(x, out, 5)
    s = np.float32({"n": 5, "n * 2 - 1": 9, "(float)n / 2.0f": 2.5}.get(scalar, scalar))
    operate = {
        "TADDS": np.add,
        "TSUBS": np.subtract,
        "TMULS": np.multiply,
        "TDIVS": np.divide,
        "TMAXS": np.maximum,
        "TMINS": np.minimum,
    }
    assert (out == operate[name](x, s)).all()


@pytest.mark.parametrize("name", [*ROW, *COLUMN])
def test_expansion(name):
    vector = Tile[4, 1, DType.F32] if name in ROW else Tile[1, 8, DType.F32]
    k = isa(
        lambda x, v, out: ptoisa.tstore(out, getattr(ptoisa, name)(ptoisa.tload(x), ptoisa.tload(v))),
        x=In[F],
        v=In[vector],
        out=Out[F],
    )
    assert k.graph.static_cycles() == 3 * 32 + vector.size
    x, v, out = (
        np.full((4, 8), 6, np.float32),
        np.arange(1, vector.size + 1, dtype=np.float32).reshape(vector.shape),
        np.zeros((4, 8), np.float32),
    )
    k.interpret(x, v, out)
    operate = {
        "ADD": np.add,
        "SUB": np.subtract,
        "MUL": np.multiply,
        "DIV": np.divide,
        "MAX": np.maximum,
        "MIN": np.minimum,
    }
    assert (out == operate[name[-3:]](x, v)).all()
    refused(
        lambda x, y, out, n: getattr(ptoisa, name)(ptoisa.tload(x), ptoisa.tload(y)), "one value per", kind=ValueError
    )


def test_a_parameter_may_be_loaded_and_stored_twice():
    def body(x, out):
        ptoisa.tstore(out, ptoisa.tload(x))
        ptoisa.tstore(out, ptoisa.TADD(ptoisa.tload(x), ptoisa.tload(out)))

    assert isa(body, x=In[F], out=Out[F]).graph.static_cycles() == 6 * 32


def test_tstore_converts_as_c_does():
    k = isa(lambda x, out: ptoisa.tstore(out, ptoisa.tload(x)), x=In[F], out=Out[Tile[4, 8, DType.I32]])
    out = np.zeros((4, 8), np.int32)
    k.interpret(np.full((4, 8), 2.7, np.float32), out)
    assert (out == 2).all() and k.graph.static_cycles() == 64
    k = isa(lambda x, out: ptoisa.tstore(out, ptoisa.tload(x)), x=In[F], out=Out[Tile[4, 8, DType.F16]])
    assert k.graph.static_cycles() == 96
    k = isa(
        lambda x, out: ptoisa.tstore(out, ptoisa.TCVT(ptoisa.tload(x), DType.F16)),
        x=In[F],
        out=Out[Tile[4, 8, DType.F16]],
    )
    assert k.graph.static_cycles() == 96


@pytest.mark.parametrize(("width", "k"), [(8, 8), (8, 5), (32, 32), (1, 1), (32, 1)])
def test_topk(width, k):
    def body(scores, out):
        pairs = ptoisa.TSORT32(ptoisa.tload(scores), ptoisa.iota_u32(32))
        ptoisa.store_topk_indices_i32(out, pairs, k)

    kernel = isa(body, scores=In[Tile[1, 32, DType.F32]], out=Out[Tile[1, width, DType.I32]])
    assert kernel.graph.static_cycles() == 32 + 160
    scores, out = np.random.default_rng(0).permutation(32).astype(np.float32)[None], np.full((1, width), -1, np.int32)
    kernel.interpret(scores, out)
    assert (out[0, :k] == np.argsort(-scores[0])[:k]).all() and (out[0, k:] == -1).all()


def test_reading_an_output_is_warned_of():
    with pytest.warns(UserWarning, match="DIRECTION_VIOLATION"):
        isa(lambda x, out: ptoisa.tstore(out, ptoisa.tload(out)), x=In[F], out=Out[F])


def test_wrong_topk():
    for k, spec in (
        (9, Tile[1, 8, DType.I32]),
        (0, Tile[1, 8, DType.I32]),
        (4, Tile[2, 8, DType.I32]),
        (8, Tile[1, 8, DType.U32]),
    ):
        refused(
            lambda s, out, k=k: ptoisa.store_topk_indices_i32(
                out, ptoisa.TSORT32(ptoisa.tload(s), ptoisa.iota_u32(32)), k
            ),
            "i32",
            kind=ValueError,
            s=In[Tile[1, 32, DType.F32]],
            out=Out[spec],
        )


REFUSED = {
    "a raw parameter": (lambda x, y, out, n: ptoisa.TADD(x, ptoisa.tload(y)), TypeError, "ptoisa.tload(x)"),
    "a raw parameter stored": (lambda x, y, out, n: ptoisa.tstore(out, x), TypeError, "ptoisa.tload(x)"),
    "a scalar as tile": (lambda x, y, out, n: ptoisa.TEXP(n), TypeError, "scalar n"),
    "a tile as scalar": (lambda x, y, out, n: ptoisa.TADDS(ptoisa.tload(x), ptoisa.tload(y)), TypeError, "number"),
    "a loaded value loaded": (lambda x, y, out, n: ptoisa.tload(ptoisa.tload(x)), TypeError, "tile parameter"),
    "a scalar loaded": (lambda x, y, out, n: ptoisa.tload(n), TypeError, "tile parameter"),
    "a value as target": (
        lambda x, y, out, n: ptoisa.tstore(ptoisa.tload(x), ptoisa.tload(y)),
        TypeError,
        "tile parameter",
    ),
    "an input as target": (lambda x, y, out, n: ptoisa.tstore(x, ptoisa.tload(y)), PtoError, "DIRECTION"),
    "no columns": (lambda x, y, out, n: ptoisa.iota_u32(0), ValueError, "at least 1"),
    "a wrong sort": (lambda x, y, out, n: ptoisa.TSORT32(ptoisa.tload(x), ptoisa.iota_u32(32)), ValueError, "1x32"),
    "unknown": (lambda x, y, out, n: ptoisa.TADDD, AttributeError, "TADD"),
    "cycles of a tile": (lambda x, y, out, n: ptoisa.cpu_sim_add_cycles(x), TypeError, "cycles"),
    "negative cycles": (lambda x, y, out, n: ptoisa.cpu_sim_add_cycles(-1), TypeError, "0 or more"),
    "unknown name": (lambda x, y, out, n: ptoisa.cpu_sim_add_cycles("m * 2"), ValueError, "'m'"),
    "fraction": (lambda x, y, out, n: ptoisa.cpu_sim_add_cycles("1.5"), ValueError, "integer"),
    "no expression": (lambda x, y, out, n: ptoisa.TADDS(ptoisa.tload(x), "n +"), ValueError, "too early"),
    "specs": (
        lambda x, y, out, n: ptoisa.TADD(ptoisa.tload(x), ptoisa.TROWSUM(ptoisa.tload(y))),
        ValueError,
        "TROWEXPANDADD",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case):
    body, kind, word = REFUSED[case]
    refused(body, word, kind=kind)


@pytest.mark.parametrize("params", [{"x": Constexpr[int]}, {"x": int}, {"x": In[Tensor]}], ids=str)
def test_parameters_are_tiles_and_scalars(params):
    with pytest.raises(TypeError, match="'x'"):
        isa(lambda x: None, **params)


def test_outside_a_kernel():
    for name in dir(ptoisa):
        with pytest.raises(RuntimeError, match="inside a @ptoisa_kernel") as caught:
            getattr(ptoisa, name)(
                *[1]
                * {
                    "iota_u32": 1,
                    "tload": 1,
                    "TMOV": 1,
                    "cpu_sim_add_cycles": 1,
                    "store_topk_indices_i32": 3,
                    **dict.fromkeys(UNARY, 1),
                }.get(name, 2)
            )
        assert files(caught.value) == {__file__}
    assert not hasattr(ptoisa, "TMATMUL")


# ---- cycles ------------------------------------------------------------------------------------------------------


def test_added_cycles_are_counted_per_task():
    @ptoisa_kernel
    def k(x: In[F], out: Out[F], n: Scalar[DType.I32], big: Scalar[DType.U64] = 0):
        ptoisa.tstore(out, ptoisa.tload(x))
        ptoisa.cpu_sim_add_cycles(5)
        ptoisa.cpu_sim_add_cycles(n)
        ptoisa.cpu_sim_add_cycles(f"{n.name} % 2 == 0 ? (uint64_t){n} * 10u : 0")

    X, Y = Tensor(None, (4, 4, 8), DType.F32), Tensor(None, (4, 4, 8), DType.F32)

    @workload
    def w():
        for i in P(4):
            k[i](X[i], Y[i], n=i)

    program = w().compile()
    program.execute()
    program.synchronize()
    assert program.stats.total_cycles == 4 * (64 + 5) + (0 + 1 + 2 + 3) + (0 + 20)


def test_no_added_cycles():
    k = isa(lambda x, out: (ptoisa.tstore(out, ptoisa.tload(x)), ptoisa.cpu_sim_add_cycles(0)), x=In[F], out=Out[F])
    assert added_cycles(k.graph, 4) is None and k.graph.static_cycles() == 64


class Words:
    """Argument words of a task."""

    def __init__(self, *words):
        self.words = words

    def param(self, index):
        return self.words[index]


@pytest.mark.parametrize(
    ("c", "value"),
    [
        ("1 + 2 * 3 - 4", 3),
        ("-7 / 2", -3),
        ("-7 % 3", -1),
        ("7 % 0", 0),
        ("(1 + 2) * 3", 9),
        ("2 - 3 - 4", -5),
        ("n > 3 ? 10 : 20", 10),
        ("n < 3 ? 1 : n < 9 ? 2 : 3", 2),
        ("!n", 0),
        ("n && m", 0),
        ("n || m", 1),
        ("n == 5 && m == 0", 1),
        ("0x10u + 1ull", 17),
        ("(uint8_t)(n + 253)", 2),
        ("(int8_t)200", -56),
        ("(unsigned long)n", 5),
        ("(std::uint64_t)(n) * 2u", 10),
        ("(bool)n", 1),
        ("(n)", 5),
        ("(n) - 2", 3),
        ("+n - -n", 10),
        ("n >= 5 != m", 1),
        ("(n > 3) + (n > 4)", 2),
        ("n ? m ? 1 : 2 : 3", 2),
        ("3u > 2", 1),
    ],
)
def test_c_expressions(c, value):
    leaves = {"n": task_param(0), "m": task_param(1)}
    assert int(to_expr(parse(c), leaves).evaluate(Words(5, 0))) == value


@pytest.mark.parametrize(
    "c",
    [
        "",
        "n +",
        "(n",
        "n)",
        "n ? 1",
        "n : 1",
        "1 2",
        "n(2)",
        "n = 2",
        "a.b",
        "n & 1",
        "n << 2",
        "'a'",
        "(" * 200 + "n" + ")" * 200,
        "-" * 200 + "n",
        "1e5",
        "12abc",
        "n;",
    ],
)
def test_what_is_no_c_expression(c):
    with pytest.raises(OperandError, match="not understood"):
        parse(c)


def test_names():
    assert names(parse("a + (uint64_t)b * a ? 1 : c")) == ["a", "b", "a", "c"]


numbers = st.integers(0, 50).map(str)
exprs = st.recursive(
    numbers,
    lambda e: st.one_of(
        st.tuples(e, st.sampled_from(["+", "-", "*", "<", "<=", ">", ">=", "==", "!="]), e).map(
            lambda t: f"({t[0]} {t[1]} {t[2]})"
        ),
        st.tuples(e, e, e).map(lambda t: f"({t[0]} ? {t[1]} : {t[2]})"),
        e.map(lambda x: f"-{x}"),
    ),
    max_leaves=12,
)


@given(exprs)
def test_c_expressions_mean_what_python_says(c):
    python = to_python(c)
    value = int(eval(python))
    if abs(value) < 2**62:
        assert int(to_expr(parse(c), {}).evaluate(Words())) == value


def to_python(c: str) -> str:
    """`(a ? b : c)` as `(b if a else c)`, from the inside out."""
    stack: list[list[str]] = [[]]
    for ch in c:
        if ch == "(":
            stack.append([])
        elif ch == ")":
            inner = "".join(stack.pop())
            if " ? " in inner:
                a, rest = inner.split(" ? ")
                b, d = rest.split(" : ")
                inner = f"{b} if {a} else {d}"
            stack[-1].append(f"({inner})".replace(" ? ", "\0"))
        else:
            stack[-1].append(ch)
    return "".join(stack[0])


@pytest.mark.parametrize("text_", ["9" * 5000, str(1 << 64), "0x1" + "0" * 16, "0" * 5000 + "9" * 21])
def test_integers_of_c_have_64_bits(text_):
    with pytest.raises(OperandError, match="needs more than 64 bits"):
        parse(text_)
    assert parse("0" * 5000 + "7") == ("number", 7, False) and parse(str((1 << 64) - 1))[1] == (1 << 64) - 1


def test_run_time_cycles_are_not_negative():
    """They once were taken as they came: a task that ended before it began."""
    k = isa(
        lambda x, out, n: (ptoisa.tstore(out, ptoisa.tload(x)), ptoisa.cpu_sim_add_cycles("n * 10")),
        x=In[F],
        out=Out[F],
        n=Scalar[DType.I32],
    )
    x = Tensor(data=np.zeros((4, 8), np.float32), shape=(4, 8), dtype=DType.F32)

    def program(sign):
        @workload
        def w():
            for i in P(3):
                k[i](x=x, out=x, n=sign * i)

        return w().compile("numpy")

    assert program(1).simulate().total_cycles == 3 * 64 + 30
    with pytest.raises(ExecutionError, match="task 1 of kernel made.*cpu_sim_add_cycles gives them, are less than 0"):
        program(-1).simulate()


def test_instructions_have_no_place_in_a_plain_kernel():
    @kernel_
    def k(x: In[F], out: Out[F]):
        pto.store(out, ptoisa.TADD(x + 1, x + 1))

    with pytest.raises(RuntimeError, match="TADD is an instruction.*k is a @kernel, its operations are pto"):
        k.graph
    with pytest.raises(RuntimeError, match="here no kernel is traced"):
        ptoisa.iota_u32(8)
