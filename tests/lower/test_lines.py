"""LLVM text in pieces: equal nodes have equal text, and names stay unique where pieces are joined."""

from __future__ import annotations

import re

from pto_wsp.lower.lines import Lines, Piece, finish


def counted(number: int) -> Piece:
    out = Lines()
    start, done = out.label(), out.label()
    value = out.datum(number)
    out.jump(start)
    out.start(start)
    out.put(f"store i64 {out.value(f'add i64 {value}, {value}')}, ptr %p")
    out.jump(done)
    out.start(done)
    return out.piece()


def test_equal_nodes_have_equal_text():
    one, two = counted(5), counted(-7)
    assert one.text == two.text
    assert (one.data, two.data) == ((5,), (-7,))


def test_names_are_unique_after_joining():
    inner = Lines()
    inner.add(counted(1))
    inner.add(counted(2))
    outer = Lines()
    outer.add(inner.piece())
    outer.value("add i64 1, 1")
    outer.add(inner.piece())
    text = finish(outer.piece())
    defined = re.findall(r"^\s*(%[\w.]+) =|^([\w.]+):", text, re.MULTILINE)
    names = [value or label for value, label in defined]
    assert len(names) == len(set(names)) == 4 * 4 + 1
    used = {name.lstrip("%") for name in re.findall(r"%[\w.]+", text)} - {"p"}
    assert used <= {name.lstrip("%") for name in names}
    assert re.findall(r"add i64 (-?\d+), 0", text) == ["1", "2", "1", "2"]


def test_templates_take_values_for_numbers():
    out = Lines()
    out.add_template(counted(5).text, "%x")
    assert out.piece().data == () and "§" not in out.piece().text
    loads = [line.strip() for line in finish(out.piece()).splitlines() if "load" in line]
    assert re.fullmatch(r"(%\S+)\.table = load ptr, ptr %x, \1 = load i64, ptr \1\.place", ", ".join(loads))


def test_every():
    out = Lines()
    assert out.every([]) == "true"
    assert out.every(["%a"]) == "%a"
    out.every(["%a", "%b", "%c"])
    assert finish(out.piece()).split("\n") == ["  %v1 = and i1 %a, %b", "  %v2 = and i1 %v1, %c"]


def test_empty_pieces_leave_no_trace():
    out = Lines()
    out.add(Piece())
    assert out.piece() == Piece()
