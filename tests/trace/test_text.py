"""Graphs as text: what is printed reads back equal, and no text can do harm."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pto_wsp.errors import SourceLine
from pto_wsp.trace.graph import KernelGraph, check
from pto_wsp.trace.text import GraphTextError, parse, print_graph, same
from pto_wsp.trace.tile import pto
from pto_wsp.types import DType, Location, TileType
from tests import strategies as draws
from tests.strategies import traced

F16, F32 = DType.F16, DType.F32

RMSNORM = """\
kernel rmsnorm(%0 a: In tile<16x128xf32>, %1 b: f32, %2 c: Out tile<16x128xf16>)
  %3: tile<16x128xf32> = load %0 at=entry
  %4: tile<16x128xf32> = mul %3 %3
  %5: tile<16x1xf32>   = rowmean %4
  %6: tile<16x1xf32>   = add %5 %1
  %7: tile<16x1xf32>   = rsqrt %6
  %8: tile<16x128xf32> = mul %3 %7
  %9: tile<16x128xf16> = cast %8 dtype=f16 by=store
  store %2 %9"""


def rmsnorm(x: Any, eps: Any) -> Any:
    return pto.mul(x, pto.rsqrt(pto.add(pto.rowmean(pto.mul(x, x)), eps)))


def without_comments(text: str) -> str:
    return "\n".join(line.split("#")[0].rstrip() for line in text.split("\n"))


def test_a_kernel_prints_one_node_per_line() -> None:
    graph = traced(rmsnorm, (16, 128), F32, out=(16, 128, F16), name="rmsnorm")
    assert without_comments(str(graph)) == RMSNORM
    assert "# test_text.py:" in str(graph)
    assert same(parse(RMSNORM), graph)


@settings(max_examples=150)
@given(graph=draws.graphs())
def test_what_is_printed_reads_back_equal(graph: KernelGraph) -> None:
    text = print_graph(graph)
    again = parse(text)
    assert same(graph, again)
    assert print_graph(again) == text
    check(again)


@settings(max_examples=60)
@given(a=draws.graphs(most_nodes=3), b=draws.graphs(most_nodes=3))
def test_equal_means_equal_text(a: KernelGraph, b: KernelGraph) -> None:
    assert same(a, b) == (str(a) == str(b))


def variant(value: float = 1.0, name: str = "k", shape: Any = (2, 2)) -> KernelGraph:
    return traced(lambda x: pto.add(x, value), shape, out=shape, name=name)


def test_equality_is_exact() -> None:
    assert same(variant(), variant())
    assert same(variant(float("nan")), variant(float("nan")))
    assert not same(variant(0.0), variant(-0.0))
    assert not same(variant(), variant(name="j"))
    assert not same(variant(), variant(shape=(2, 3)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -0.0, 5e-324, 1.79e308, 0.1, 1e16])
def test_every_number_survives(value: float) -> None:
    graph = variant(value)
    assert same(parse(str(graph)), graph)


@pytest.mark.parametrize("name", ["k", "übung", "a b", '"\\', "inf", "nan", "true", "f32", "<lambda>", "a\nb", "#", ""])
def test_any_name_survives(name: str) -> None:
    graph = variant(name=name)
    assert parse(str(graph)).name == name
    renamed = KernelGraph("k", (graph.params[0], replace(graph.params[1], name=name + "?")), graph.nodes)
    assert same(parse(str(renamed)), renamed)


def test_locations_survive() -> None:
    text = "kernel k(%0 x: In tile<2x2xf32>@l1)"
    graph = parse(text)
    assert graph.params[0].type == TileType(2, 2, F32, Location.L1) and str(graph) == text


def test_a_file_name_cannot_break_the_line() -> None:
    graph = variant()
    node = graph.nodes[2]
    line = SourceLine("/tmp/evil\n  %9: f32 = nothing.py", 3, 3, None, None, "f")
    object.__setattr__(node, "line", line)
    assert same(parse(str(graph)), graph)


def test_long_headers_have_one_parameter_per_line() -> None:
    graph = traced(lambda *xs: None, *[(128, 128)] * 6)
    assert str(graph).count("\n") == 6
    assert same(parse(str(graph)), graph)


HEAD = "kernel k(%0 x: In tile<4x8xf32>, %1 s: f32, %2 o: Out tile<4x8xf32>)\n  %3: tile<4x8xf32> = load %0 at=entry\n"


@pytest.mark.parametrize("text, row, column, why", [
    ("", 1, 1, "expected 'kernel'"),
    ("kern k()", 1, 1, "expected 'kernel'; got kern"),
    ("kernel k", 1, 9, "end of the text"),
    ("kernel k(%0 x: In tile<0x8xf32>)", 1, 19, "a type like"),
    ("kernel k(%0 x: In tile<4x8xf99>)", 1, 19, "dtypes: f16"),
    ("kernel k(%0 x: In tile<99999x99999xf32>)", 1, 19, "at most 2147483648 elements"),
    ("kernel k(%0 x: In tile<4x8xf32>@moon)", 1, 19, "no location moon"),
    ("kernel k(%0 x: tile<4x8xf32>)", 1, 16, "In, Out or InOut"),
    ("kernel k(%0 x: In f32)", 1, 19, "only tiles have a direction"),
    ("kernel k(%0 x: f32, %0 y: f32)", 1, 21, "%0 is already there"),
    ("kernel k(%0 x: f32, %1 x: f32)", 1, 1, "two parameters have the name x"),
    (HEAD + "  %4: tile<4x8xf32> = negate %3", 3, 23, "there is no op negate; did you mean neg"),
    (HEAD + "  %4: tile<4x8xf32> = neg %7", 3, 27, "%7 has not been made yet"),
    (HEAD + "  %4: tile<4x8xf32> = neg %4", 3, 27, "%4 has not been made yet"),
    (HEAD + "  %3: tile<4x8xf32> = neg %3", 3, 3, "%3 is already there"),
    (HEAD + "  %4: tile<4x9xf32> = neg %3", 3, 3, "its operands make tile<4x8xf32>"),
    (HEAD + "  neg %3", 3, 3, "its type is None"),
    (HEAD + "  %4: tile<4x8xf32> = neg %0", 3, 3, "values that load gives"),
    (HEAD + "  store %0 %3", 3, 3, "writes to an In parameter"),
    (HEAD + "  store %2 %2", 3, 3, "load reads, and store writes"),
    (HEAD + "  store %2 %1", 3, 3, "needs a tile as src; got f32"),
    (HEAD + "  %4: tile<4x8xf32> = store %2 %3", 3, 3, "its operands make None"),
    (HEAD + "  %4: tile<4x8xf32> = load %0 at=never", 3, 3, "at is one of entry, here, operand"),
    (HEAD + "  %4: tile<4x8xf32> = load %0", 3, 30, "load needs at=..."),
    (HEAD + "  %4: tile<4x8xf32> = load %0 at=here at=here", 3, 39, "each once"),
    (HEAD + "  %4: tile<4x8xf32> = load %0 to=here", 3, 31, "load takes at"),
    (HEAD + "  %4: tile<4x8xf32> = neg %3 %3", 3, 3, "takes 1 operands"),
    (HEAD + "  %4: tile<4x8xf32> = neg", 3, 3, "takes 1 operands"),
    (HEAD + "  %4: f32 = constant value=1 dtype=f32", 3, 3, "1 is no f32"),
    (HEAD + "  %4: i32 = constant value=1e9999 dtype=i32", 3, 3, "inf has no i32 value"),
    (HEAD + "  %4: i32 = constant value=abc dtype=i32", 3, 3, "is not a tile, scalar or number"),
    pytest.param(HEAD + "  %4: i32 = constant value=" + "9" * 5000 + " dtype=i32", 3, 28, "too many digits", id="9"),
    (HEAD + "  %4: i32 = constant value=1 dtype=3", 3, 3, "needs dtype"),
    (HEAD + "  %4: i32 = constant value= dtype=i32", 3, 34, "constant needs dtype=..."),
    (HEAD + "  %4: tile<4x8xf32> = alloc shape=(4, 8, 1) dtype=f32", 3, 3, "two ints"),
    (HEAD + "  %4: tile<4x8xf32> = alloc shape=(1,2,3,4,5,6,7,8,9) dtype=f32", 3, 52, "at most 8 numbers"),
    (HEAD + "  %4: tile<4x8xf32> = alloc shape=(4, (8)) dtype=f32", 3, 39, "expected a number"),
    (HEAD + "  %4: tile<1x9999999999xu32> = iota_u32 cols=9999999999", 3, 7, "at most 2147483648 elements"),
    (HEAD + "  %4: tile<4x8xf32> = param type=3 index=0", 3, 23, "parameters stand in the kernel's first line"),
    (HEAD + "  %4: tile<4x8xf32> = neg %3 store %2 %4", 3, 30, "neg takes no arguments"),
    (HEAD + "  \x00", 3, 3, "means nothing here"),
    (HEAD + '  %4: i32 = constant value="\\q" dtype=i32', 3, 28, "not a string"),
    (HEAD + '  %4: i32 = constant value="abc dtype=i32', 3, 28, "means nothing here"),
])
def test_an_error_shows_the_place(text: str, row: int, column: int, why: str) -> None:
    with pytest.raises(GraphTextError) as caught:
        parse(text)
    assert (caught.value.row, caught.value.column) == (row, column), caught.value
    assert why in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_the_caret_stands_under_the_word() -> None:
    with pytest.raises(GraphTextError) as caught:
        parse(HEAD + "  %4: tile<4x8xf32> = negate %3")
    shown, carets = str(caught.value).split("\n")[1:3]
    assert shown[carets.index("^"):carets.rindex("^") + 1] == "negate"


@settings(max_examples=150)
@given(graph=draws.graphs(most_nodes=4), data=st.data())
def test_damaged_text_is_refused_or_another_valid_graph(graph: KernelGraph, data: Any) -> None:
    """Never another exception, whatever happened to the text on its way."""
    text = str(graph)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        size = data.draw(st.integers(0, 12))
        words = ["", "%0", "%1", "=", ":", "(", ")", ",", "#", "\n", "tile<", "f16", "u8", "-1", "9" * 30, "at=here",
                 '"', "inf", "é"]
        text = text[:at] + data.draw(st.sampled_from(words) | st.text(max_size=3)) + text[at + size:]
    try:
        found = parse(text)
    except GraphTextError:
        return
    check(found)
    assert same(parse(str(found)), found)


@given(text=st.text(alphabet="kernel(%01 x:In tile<4x8f32>)=\n\"#\\,-.", max_size=200))
def test_noise_is_refused(text: str) -> None:
    try:
        parse(text)
    except GraphTextError:
        pass


@pytest.mark.parametrize("text", [
    "(" * 200_000, "kernel k(" + "%0 x: f32," * 20_000, "kernel k()\n" + "\n" * 300_000, "kernel k(" + "#" * 300_000,
    HEAD + "store %2 %3 " + "%3 " * 100_000, HEAD + "x" * 300_000, HEAD + '"' + "\\" * 300_000, "%" + "9" * 300_000,
    "kernel k(%" + "9" * 300_000 + " x: f32)", HEAD + " %4: tile<" + "9" * 300_000 + ">",
    HEAD + "  %4: f32 = constant value=0." + "0" * 300_000 + " dtype=f32"], ids=range(11))
def test_large_nonsense_is_refused_quickly(text: str) -> None:
    begin = time.process_time()     # what takes the square of the length would need minutes
    try:
        parse(text)
    except GraphTextError as error:
        assert len(str(error)) < 2000
    assert time.process_time() - begin < 20


def test_only_text_of_bounded_length_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GraphTextError, match="a str; got bytes"):
        parse(b"kernel k()")  # type: ignore[arg-type]
    monkeypatch.setattr("pto_wsp.trace.text.MOST_CHARACTERS", 10)
    with pytest.raises(GraphTextError, match="at most 10"):
        parse("kernel kkkkkk()")
    monkeypatch.setattr("pto_wsp.trace.text.MOST_CHARACTERS", 10_000)
    monkeypatch.setattr("pto_wsp.trace.text.MOST_NODES", 4)
    with pytest.raises(GraphTextError, match="at most 4 nodes"):
        parse(HEAD + "store %2 %3\nstore %2 %3")
