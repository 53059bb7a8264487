"""Finding the user's line: columns, helpers, notebook cells, the prompt."""

from __future__ import annotations

import functools
import linecache
import os
import sys

import pytest

from pto_wsp.trace.source import is_user_file, where, where_is

COLUMNS = sys.version_info >= (3, 11)


def test_where_is_the_line_that_called_us():
    line = where()
    assert os.path.basename(line.file) == "test_source.py"
    assert line.text.strip() == "line = where()"
    assert line.function == "test_where_is_the_line_that_called_us"
    if COLUMNS:
        assert (line.column, line.end_column) == (11, 18)


def test_where_spans_several_lines():
    def f(x):
        return where()

    line = f(
        # a comment keeps the call on several lines
        1
    )
    assert line.end_line == line.line
    lines = [  # here the caller itself is asked
        where(*()),
        (lambda: where(
            # this one too
        ))(),
    ]  # fmt: skip
    assert lines[1].end_line - lines[1].line == (2 if COLUMNS else 0)


def test_two_calls_on_a_line_have_their_own_columns():
    first, second = where(), where()
    assert first.line == second.line
    assert not COLUMNS or first.column < second.column


def test_lines_of_a_loop_are_shared():
    seen = [where() for _ in range(3)]
    assert seen[0] is seen[1] is seen[2]


def test_the_standard_library_is_not_the_user():
    line = functools.reduce(lambda a, b: b, [0, functools.singledispatch(lambda x: where())(1)])
    assert os.path.basename(line.file) == "test_source.py"
    assert not is_user_file(os.__file__)
    assert not is_user_file(functools.__file__)
    assert not is_user_file(sys.modules["pto_wsp.trace.source"].__file__)
    assert not is_user_file("<frozen importlib._bootstrap>")
    assert is_user_file(os.path.join(os.path.dirname(os.__file__), "site-packages", "someone", "kernels.py"))
    assert is_user_file("<ipython-input-3-abc>") and is_user_file("<stdin>") and is_user_file("<string>")


def test_generated_code_of_ours_is_not_the_user():
    names = {"where": where, "__name__": "pto_wsp.generated"}
    exec("def init():\n    return where()\n", names)  # as a dataclass makes its __init__
    assert os.path.basename(names["init"]().file) == "test_source.py"


def cell(name: str, source: str, names: dict) -> dict:
    """Run source as IPython runs a cell: a file that exists in linecache only."""
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    exec(compile(source, name, "exec"), names)
    return names


def test_a_notebook_cell_shows_its_line():
    names = cell("<ipython-input-7-0123>", "def f():\n    return [1,\n            where()]\n", {"where": where})
    line = names["f"]()[1]
    assert (line.file, line.line, line.text.strip()) == ("<ipython-input-7-0123>", 3, "where()]")
    assert "where()]" in line.excerpt() and "^^^^^^^" in line.excerpt() or not COLUMNS


def test_a_line_without_source_is_still_named():
    names: dict = {"where": where}
    exec("line = where()", names)
    assert names["line"].file == "<string>" and names["line"].text == ""
    assert names["line"].excerpt("tracing") == "<string>:1, tracing"


def test_columns_count_characters_not_bytes():
    names = cell("<ipython-input-8-0123>", "x = ['äöü', where()]\n", {"where": where})
    first, text, caret = names["x"][1].excerpt().splitlines() if COLUMNS else ("", "where()", "^")
    assert text[caret.index("^") :].startswith("where()")


def test_where_is_names_the_definition():
    line = where_is(cell.__code__)
    assert line.function == "cell" and line.text.startswith("def cell(")


@pytest.mark.parametrize("depth", [1, 30])
def test_the_innermost_line_wins(depth: int):
    def helper(n: int):
        return helper(n - 1) if n else where()

    assert helper(depth).function == "helper"
