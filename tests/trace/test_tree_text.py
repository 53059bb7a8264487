"""Workloads as text: what is printed reads back equal, and no text can do harm."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pto_wsp import (
    Channel,
    Constexpr,
    DenseDyn,
    DType,
    In,
    InOut,
    Out,
    P,
    Ragged,
    Scalar,
    Sparse,
    Symbol,
    Tensor,
    Tile,
    connect,
    consume,
    for_each,
    kernel,
    process,
    pto,
    send,
    slot_load_u64,
    slot_set_u64,
    task,
    workload,
)
from pto_wsp.errors import IRConversionError
from pto_wsp.scalar_expr import Expr, LoopVar, as_expr, axis, slot_bool, slot_i64, slot_u64, symbol_u64, task_param
from pto_wsp.trace.expr_text import ExprReader, int_list, print_expr
from pto_wsp.trace.text import GraphTextError
from pto_wsp.trace.tree import WorkloadTree, walk
from pto_wsp.trace.tree_text import parse_tree, print_tree, same_tree
from tests.e2e import test_random_dynamic, test_random_workloads

GOLDEN = Path(__file__).parents[1] / "golden"
F32, I32 = DType.F32, DType.I32


# ---- expressions ---------------------------------------------------------------------------------------------------

B, H = LoopVar("b", 4), LoopVar("a loop", 4)
leaves = st.one_of(
    st.integers(-(1 << 63), (1 << 64) - 1).map(as_expr),
    st.sampled_from([
        as_expr(B), as_expr(H), axis("b"), Expr("axis_var", "i64", "h", 0), Expr("axis_var", "i64", "h", -3),
        symbol_u64("n"), symbol_u64('quote "x"'), slot_u64(3), slot_i64(0), slot_bool(255), task_param(2),
        Expr("task_tag_u64", "u64", "tag"), as_expr(True), as_expr(False), Expr("lit_u64", "u64", 5),
    ]),
)  # fmt: skip


@st.composite
def expressions(draw: Any) -> Expr:
    pool = draw(st.lists(leaves, min_size=1, max_size=4))
    for _ in range(draw(st.integers(0, 8))):
        a, b, c = (draw(st.sampled_from(pool)) for _ in range(3))
        op = draw(st.sampled_from(["+", "-", "*", "//", "%", "&", "|", "^", "<<", ">>", "<", "<=", ">", ">=", "==",
                                   "!=", "neg", "not", "where", "bool", "i64", "u64"]))  # fmt: skip
        try:
            made = {
                "neg": lambda a=a: -a, "not": lambda a=a: ~a, "where": lambda a=a, b=b, c=c: a.where(b, c),
                "bool": lambda a=a: a.cast_bool(), "i64": lambda a=a: a.cast_i64(), "u64": lambda a=a: a.cast_u64(),
            }.get(op, lambda a=a, b=b, op=op: eval(f"a {op} b", {"a": a, "b": b}))()  # fmt: skip
        except TypeError:
            continue
        pool.append(made)
    return pool[-1]


def tree_of(x: Any) -> Any:
    """An expression as nested tuples."""
    return (x.kind, x.type, *map(tree_of, (x.a, x.b, x.c))) if isinstance(x, Expr) else x


@settings(max_examples=300)
@given(expressions())
def test_an_expression_reads_back_equal(x: Expr) -> None:
    text = print_expr(x, lambda var: {B: "b", H: '"a loop"'}[var])
    reader = ExprReader(text)
    reader.scope = [H, B]
    assert tree_of(as_expr(reader.expression())) == tree_of(x)
    assert reader.token.kind == "end"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 + true", "'\\+' does not take i64 and bool"),
        ("1 & 2", "casts are written out"),
        ("c", "no loop c is open here; loops, from inside: b"),
        ("b@1", "no loop b@1"),
        ("9223372036854775808", "does not fit i64"),
        ("18446744073709551616u", "does not fit u64"),
        ("slot_u64(256)", "has no number 256"),
        ("where(1, 2, 3)", "takes a bool"),
        ("u64(3u)", "u64 already"),
        ("1 < 2 < 3", "expected"),
        ("(" * 5000 + "1" + ")" * 5000, "too many operators"),
        ("__import__(1)", "no loop __import__"),
        ("slot_u64(1.5)", "expected an integer"),
        ("1.5", "64-bit integer"),
        ("-b", r"expected '\('"),
        ('axis("")', "a name is not empty"),
        ("if", "no loop if"),
    ],
)
def test_what_is_no_expression_says_why(text: str, message: str) -> None:
    reader = ExprReader(text + "\n")
    reader.scope = [B]
    with pytest.raises(GraphTextError, match=message):
        reader.expression()
        reader.expect("end", "expected the end")


def test_an_endless_expression_is_refused_when_printed() -> None:
    x = as_expr(B)
    for _ in range(3000):
        x = 1 + (x * 1)
    with pytest.raises(IRConversionError, match="too many operators"):
        print_expr(x, str)


@pytest.mark.parametrize(
    "values",
    [[], [0], [3, -1], list(range(300)), [-1] * 65, [(1 << 63) - 1] * 70, [0, 70000] * 40, [-(1 << 63)] * 65,
     [(1 << 64) - 1] * 65],
)  # fmt: skip
def test_lists_of_integers_read_back_equal(values: list[int]) -> None:
    text = int_list(np.array(values, np.uint64) if values and max(values) >= 1 << 63 else values)
    assert ExprReader(text).ints(-(1 << 63), (1 << 64) - 1).tolist() == values


def test_a_million_lengths_are_short() -> None:
    lengths = np.random.default_rng(0).integers(1, 4000, 1_000_000)
    text = int_list(lengths)
    assert len(text) < 2_400_000 and np.array_equal(ExprReader(text).ints(), lengths)


@pytest.mark.parametrize(
    "text",
    ['5 of u8 "AAAA"', '2 of f8 ""', '3 of u64 "eJw="', '1000 of u8 "!!"', "[1, ]", "[-1]",
     '2 of i8 "eJz7/x8AAv4B/g=="', '99999999999 of u8 ""', "[99999999999999999999]"],
)  # fmt: skip
def test_damaged_lists_are_refused(text: str) -> None:
    with pytest.raises(GraphTextError):
        ExprReader(text).ints(0)


def test_a_small_text_does_not_unpack_into_gigabytes() -> None:
    import base64
    import zlib

    bomb = base64.b64encode(zlib.compress(bytes(1 << 26), 9)).decode()
    with pytest.raises(GraphTextError, match="no 10 of 1 bytes"):
        ExprReader(f'10 of u8 "{bomb}"').ints()


# ---- trees ---------------------------------------------------------------------------------------------------------


@kernel
def scale(x: In[Tile[8, 16, F32]], out: Out[Tile[8, 16, F32]], by: Scalar[F32], twice: Constexpr[bool] = False):
    y = x * by
    pto.store(out, y + y if twice else y)


@kernel
def add(x: In[Tile[8, 16, F32]], total: InOut[Tile[8, 16, F32]], n: Scalar[I32]):
    pto.store(total, total + x * pto.cast(n, F32))


def everything() -> WorkloadTree:
    x, y = Tensor(None, (6, 64, 16), F32), Tensor(None, (6, 64, 16), F32)
    table = Tensor(None, (6, 1, 8), I32)
    rows, chosen, size = Ragged(3, [2, 0, 5]), Sparse(3, [0, 1, 1, 3], [4, 0, 5]), DenseDyn(4)

    @workload
    def mixed():
        for b in P(size):
            first = scale[b](x=x[b, 8 * b : 8 * b + 8], out=y[b][0:8], by=0.5)
            scale[b, "tag"](x=x[b, 60:], out=y[b, 8:16], by=float("inf"), twice=True, after=[first])
        for i in P.seq(3):
            slot_load_u64(1, table[i], col=i + 1)
            for j in P.seq(rows[i], name="j"):
                with P.when((slot_i64(1) < 3) & (symbol_u64("n") % 2 == 1)):
                    add[i, j](x=x[j, 0:8], total=y[i][16:48][8:16], n=slot_i64(1) * -2 + j)
                with P.otherwise():
                    slot_set_u64(0, 1 << 63)
        for e in P.sel(chosen):
            add[e](x=x[e, 0:8], total=y[e, 0:8], n=Symbol("n"))
        for e in P.sel([5, 5, 1]):
            for i in P.seq(2, name="i"):
                for i2 in P.seq(2, name="i"):
                    add[i, i2](x=x[i, 0:8], total=y[i2, 0:8], n=e)

    return mixed().tree()


def test_every_construct_prints_as_it_should() -> None:
    """The golden text; to renew it, print it and read it."""
    tree = everything()
    assert print_tree(tree, comments=False) + "\n" == (GOLDEN / "workload.txt").read_text()


def test_the_golden_text_reads_back() -> None:
    text = (GOLDEN / "workload.txt").read_text()
    tree = parse_tree(text)
    assert print_tree(tree) + "\n" == text
    assert same_tree(tree, everything())
    assert [k.name for k in tree.kernels] == ["scale", "scale", "add"]


def test_comments_say_where() -> None:
    text = print_tree(everything())
    assert "# twice = True, test_tree_text.py:" in text
    assert same_tree(parse_tree(text), everything())
    assert "test_tree_text.py" in str(everything()) and "kernel" not in str(everything()).split()[0]


def test_pipelines_read_back() -> None:
    x = Tensor(None, (4, 8, 16), F32)
    queue = Channel("a queue", depth=2)
    load = process("load").produces(queue).body(
        for_each(4, lambda i: send(queue, task(scale, [i], {"x": x[i], "out": x[i], "by": 2}))))
    work = process("work").consumes(queue).body(
        consume(queue, lambda t: task(scale, [t], {"x": x[t], "out": x[t], "by": -1e-30})))
    tree = connect([load, work], [queue]).tree()
    again = parse_tree(print_tree(tree))
    assert same_tree(tree, again)
    assert [type(n) for n in walk(again.root)] == [type(n) for n in walk(tree.root)]


def tensors() -> dict[int, Tensor]:
    widths, states = test_random_workloads.WIDTHS, test_random_workloads.STATES
    return {w: Tensor(None, (states, 1, w), DType.I64) for w in widths}


@settings(max_examples=60)
@given(test_random_dynamic.programs)
def test_random_dynamic_workloads_read_back_equal(program: Any) -> None:
    tree = test_random_dynamic.built(program, tensors()).tree()
    again = parse_tree(print_tree(tree))
    assert same_tree(tree, again)
    assert [type(n) for n in walk(again.root)] == [type(n) for n in walk(tree.root)]


def test_views_of_views_read_back() -> None:
    x = Tensor(None, (6, 64, 16), F32)

    @workload
    def views():
        for b in P(6):
            for i in P(4):
                part = x[b, i * 16 : i * 16 + 16]
                scale[b](x=part[b : b + 8], out=x[b][i : i + 8][:, 0:16], by=b)

    tree = views().tree()
    text = print_tree(tree)
    assert " in " in text and same_tree(parse_tree(text), tree)
    windows = [[v.exact_window for _, v in call.args if isinstance(v, Tensor)] for call in (tree.tasks[0],)]
    assert windows[0][0][1].within is not None


@pytest.mark.parametrize("name", ["tensor", "axis", "parallel", "if", "T0", "A0", "slot", "for", "in", "Dense", "else",
                                  "a b", 'quo"te', "ünï", "new\nline", "@1", "0x", "symbol_u64", "workload"])
def test_no_name_is_mistaken_for_a_word(name: str) -> None:
    x = Tensor(None, (8, 16), F32)
    odd = type(scale)(scale.func)
    odd.name = name
    rows = Ragged(2, [1, 2])

    def inner(i: Any) -> Any:
        return task(odd, [i, name], {"x": x, "out": x, "by": i})

    from pto_wsp import parallel_for
    from pto_wsp.trace.workload import Workload

    loops = Workload("parallel_for", axis=rows, var_name=name, body=lambda i: for_each(rows[i], inner))
    tree = Workload("combine", workloads=[loops, parallel_for(2, inner)]).named(name).tree()
    again = parse_tree(print_tree(tree))
    assert same_tree(again, tree)
    assert again.name == name and again.root.children[0].var.name == name


def test_deep_trees_print_and_read() -> None:
    nested = task(scale, [0], {"x": (x := Tensor(None, (8, 16), F32)), "out": x, "by": 1})
    from pto_wsp import sequential

    for _ in range(150):
        nested = sequential(nested, nested) if _ < 3 else sequential(nested)
    tree = nested.tree()
    assert same_tree(parse_tree(print_tree(tree)), tree)


HEAD = """\
kernel k(%0 x: In tile<8x16xf32>, %1 n: i32)
  %2: tile<8x16xf32> = load %0 at=entry
workload w
  tensor T0: f32[6, 8, 16]
  axis A0: Ragged [1, 2]
"""


def test_the_smallest_text() -> None:
    tree = parse_tree(HEAD + "  k[](x=T0[0], n=3)\n")
    assert tree.name == "w" and len(tree.tasks) == 1


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ("", "one root"),
        ("  k[](x=T0[0], n=1)\n  k[](x=T0[0], n=1)\n", "one root, which holds the others; there are 2"),
        ("  j[](x=T0[0], n=1)\n", "no kernel j above; there are: k"),
        ("  k@2[](x=T0[0], n=1)\n", "no kernel k above"),
        ("  k[](n=1)\n", "argument x of kernel k stands here"),
        ("  k[](x=T0[0])\n", "expected ','"),
        ("  k[](x=T1[0], n=1)\n", "no tensor T1"),
        ("  k[](x=T0[0, 0, 0, 0], n=1)\n", "3 dimensions; here are 4"),
        ("  k[](x=T0[true], n=1)\n", "an index is a number"),
        ("  k[](x=T0[0], n=i)\n", "no loop i"),
        ("  k[](x=T0[0], n=1) after @0\n", "no call @0"),
        ("  parallel for i in 4\n", "a loop holds one node; here are 0"),
        ("  parallel for i in A1\n    parallel\n", "no axis A1"),
        ("  parallel for i in 4\n    parallel\n    parallel\n", "here are 2. Put several into 'parallel'"),
        ("  parallel\n  else\n    parallel\n", "no if or receive"),
        ("  if 1\n  else\n    parallel\n", "no if or receive"),
        ("  if 1\n    parallel\n  else\n", "another after else"),
        ("  k[](x=T0[0], n=1)\n    parallel\n", "a task holds no nodes"),
        ("  slot 256 = 1\n", "from 0 to 255"),
        ("  slot 1 = T0[0] at (0)\n", "expected ','"),
        ("  tensor T0: f32[1]\n  parallel\n", "T0 is there already"),
        ("  parallel\n  tensor T1: f32[1]\n", "tensor stands before the nodes"),
        ("  tensor T1: f33[1]\n  parallel\n", "no dtype f33"),
        ("  axis A1: Ragged [-1]\n  parallel\n", "from 0"),
        ("  axis A1: Sparse [0, 2] [1]\n  parallel\n", "indptr ends at 2"),
        ("  process \"p\"\n    parallel\n", "connect holds processes"),
        ("  send to C0\n    parallel\n", "no channel C0"),
        ("  parallel for for in 4\n    parallel\n", "stands in quotes here"),
        ("  k[$](x=T0[0], n=1)\n", "means nothing here"),
        ("  parallel\nworkload v\n  parallel\n", "nothing comes after the workload"),
    ],
)
def test_what_is_no_workload_says_why_and_where(nodes: str, message: str) -> None:
    with pytest.raises(GraphTextError, match=message) as caught:
        parse_tree(HEAD + nodes)
    assert "program text, line" in str(caught.value)


@pytest.mark.parametrize("text", ["", "\n\n", "  k\n", "kernel\n", "workload", "# only a comment\n", "x" * 100, "\0"])
def test_what_is_no_text(text: str) -> None:
    with pytest.raises(GraphTextError):
        parse_tree(text)


def test_damaged_texts_fail_as_such() -> None:
    """Whatever is cut out, doubled or exchanged: a GraphTextError or a tree, nothing else."""
    text, rng = print_tree(everything(), comments=False), random.Random(7)
    for _ in range(400):
        a, b = sorted(rng.randrange(len(text)) for _ in range(2))
        b = min(b, a + rng.choice([1, 3, 20]))
        damaged = rng.choice([
            text[:a] + text[b:], text[:a] + text[a:b] * 2 + text[b:],
            text[:a] + rng.choice("()[]@:=,\"0-u\n %") + text[a + 1 :],
        ])  # fmt: skip
        try:
            parse_tree(damaged)
        except GraphTextError:
            pass
