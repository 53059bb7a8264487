"""The error family, source excerpts, and tracebacks without our frames."""

import linecache
import pickle
import sys
import traceback

import pytest

import pto_wsp
from pto_wsp import errors
from pto_wsp.errors import (
    AxisError,
    ChannelClosed,
    ChannelError,
    ChannelFull,
    CompileError,
    ExecutionError,
    IRConversionError,
    KernelError,
    LayoutIncompatibleError,
    OperandError,
    PolicyError,
    PtoError,
    RegionError,
    ScheduleError,
    SourceLine,
    TensorError,
    TileAsBoolError,
    TypeCheckError,
    UsageError,
    show_user_frames,
)


def source(text: str, name: str) -> str:
    """Text under a file name that is no file, as a notebook cell has it."""
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    return name


# ---- the family


@pytest.mark.parametrize(
    "kind, bases",
    [
        (CompileError, (PtoError,)),
        (TypeCheckError, (CompileError,)),
        (IRConversionError, (CompileError,)),
        (ExecutionError, (PtoError,)),
        (KernelError, (ExecutionError,)),
        (RegionError, (ExecutionError,)),
        (ScheduleError, (PtoError,)),
        (ChannelError, (PtoError,)),
        (ChannelClosed, (ChannelError,)),
        (ChannelFull, (ChannelError,)),
        (OperandError, (TypeCheckError, ValueError)),
        (TensorError, (TypeCheckError, ValueError, TypeError)),
        (TileAsBoolError, (TypeCheckError, TypeError)),
        (LayoutIncompatibleError, (TypeCheckError, TypeError)),
        (AxisError, (PtoError, ValueError, TypeError)),
        (PolicyError, (ScheduleError, CompileError, ValueError, TypeError)),
        (UsageError, (PtoError, RuntimeError)),
    ],
)
def test_bases(kind, bases):
    assert all(issubclass(kind, base) for base in bases)


def test_constructors():
    assert CompileError("m", "w", "cpu_sim").workload_name == "w" and CompileError("m", target="t").target == "t"
    assert (TypeCheckError("m", 1, 2).expected, TypeCheckError("m", 1, 2).actual) == (1, 2)
    assert ExecutionError("m", 3, "k").task_id == 3 and KernelError("m", kernel_name="k").kernel_name == "k"
    assert ScheduleError("m", "dispatch", "cpu").primitive == "dispatch"
    assert str(ChannelClosed()) == "Operation on closed channel" and ChannelClosed(channel_name="q").channel_name == "q"
    assert str(ChannelFull()) == "Channel is full" and ChannelFull("f", "q", 4).capacity == 4
    region = RegionError("m", 7, "k", (1, 2), "x")
    assert (region.axes, region.tensor, region.task_id, region.kernel_name) == ((1, 2), "x", 7, "k")
    policy = PolicyError("m", "w", "t")
    assert (policy.workload_name, policy.target, policy.primitive) == ("w", "t", None)


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_survives_pickling_and_has_a_docstring(name):
    kind = getattr(errors, name)
    assert kind.__doc__
    if isinstance(kind, type) and issubclass(kind, PtoError):
        error = kind("the message").at(SourceLine("a.py", 1, 1, None, None, "f"))
        again = pickle.loads(pickle.dumps(error))
        assert again.message == "the message" and again.line == error.line and type(again) is kind


# ---- the user's line


def test_message_alone_without_a_line():
    assert str(OperandError("mul needs tiles")) == "mul needs tiles"


def test_excerpt_with_caret():
    file = source("def f(x):\n    y = pto.mul(x, pto.rsqrt(m))\n", "<cell 7>")
    line = SourceLine(file, 2, 2, 8, 32, "f")
    error = OperandError("mul needs tiles of one type.").at(line, "tracing kernel rmsnorm")
    assert str(error) == (
        "<cell 7>:2, tracing kernel rmsnorm\n"
        "    y = pto.mul(x, pto.rsqrt(m))\n"
        "        ^^^^^^^^^^^^^^^^^^^^^^^^\n"
        "OperandError: mul needs tiles of one type."
    )
    assert line.text == "    y = pto.mul(x, pto.rsqrt(m))"


def test_columns_count_bytes():
    file = source('ä = "ö"; boom(ä)\n', "<cell 8>")
    row = '    ä = "ö"; boom(ä)'
    start = len('ä = "ö"; '.encode())
    shown = SourceLine(file, 1, 1, start, start + len("boom(ä)".encode()), "f").excerpt()
    assert shown.splitlines()[1:] == [row, "    " + " " * 9 + "^" * 7]


def test_statement_over_several_lines():
    file = source("    y = pto.mul(\n        x,\n        z,\n    )\n", "<cell 9>")
    assert SourceLine(file, 1, 4, 8, 5, "f").excerpt().splitlines() == [
        "<cell 9>:1",
        "    y = pto.mul(",
        "        ^^^^^^^^",
        "        x,",
        "        ^^",
        "        z,",
        "        ^^",
        "    )",
        "    ^",
    ]


def test_long_statement_is_cut():
    file = source("f(\n" + "  1,\n" * 40 + ")\n", "<cell 10>")
    shown = SourceLine(file, 1, 42, None, None, "f").excerpt().splitlines()
    assert shown[-1] == "    ..." and len(shown) < 10


def test_no_source_and_no_columns():
    nowhere = SourceLine("<nowhere>", 3, 3, 0, 4, "f")
    assert nowhere.text == "" and nowhere.excerpt("compiling") == "<nowhere>:3, compiling"
    file = source("x = 1\n", "<cell 11>")
    assert SourceLine(file, 1, 1, None, None, "f").excerpt() == "<cell 11>:1\n    x = 1"


def test_paths_are_short(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert SourceLine(str(tmp_path / "a.py"), 4, 4, None, None, "f").place == "a.py:4"
    assert SourceLine("/elsewhere/a.py", 4, 4, None, None, "f").place == "/elsewhere/a.py:4"


def test_first_line_attached_stays():
    inner, outer = (SourceLine("a.py", n, n, None, None, "f") for n in (1, 2))
    error = PtoError("m").at(inner).at(outer, "compiling")
    assert error.line is inner and error.doing == "compiling" and error.message == "m"
    assert PtoError("m").at(None).line is None


# ---- tracebacks


def ours(code: str, **names):
    """Functions as if they stood in a file of this package."""
    names.update(errors=errors, show_user_frames=show_user_frames, __name__="pto_wsp.imagined")
    exec(compile(code, pto_wsp.__path__[0] + "/imagined.py", "exec"), names)
    return names


ENTRY = """
def inner(f): return f()
@show_user_frames()
def entry(f): return inner(f)
def with_block(f):
    with show_user_frames():
        return inner(f)
@show_user_frames()
def refuse(): raise errors.UsageError("no")
@show_user_frames()
def nested(f): return entry(f)
@show_user_frames()
def wrapped():
    try: inner(refuse)
    except errors.UsageError as error: raise errors.CompileError("no") from error
@show_user_frames()
def bug(): return 1 // 0
@show_user_frames()
def bug_in_a_library():
    import json
    return json.loads("{")
"""


def frames(error) -> list[str]:
    return [frame.filename for frame in traceback.extract_tb(error.__traceback__)]


needs_311 = pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 raises again with the old traceback")


def fails():
    raise ValueError("the user's own")


@needs_311
@pytest.mark.parametrize("entry", ["entry", "with_block", "nested"])
def test_our_frames_are_left_out(entry):
    with pytest.raises(ValueError) as caught:
        ours(ENTRY)[entry](fails)
    assert set(frames(caught.value)) == {__file__} and len(frames(caught.value)) == 2
    assert any("imagined" in frame.filename for frame in traceback.extract_tb(caught.value.full_traceback))


@needs_311
def test_the_error_inside_an_error_has_no_frames_of_ours_either():
    with pytest.raises(CompileError) as caught:
        ours(ENTRY)["wrapped"]()
    assert set(frames(caught.value)) == {__file__}
    assert isinstance(caught.value.__cause__, UsageError) and not frames(caught.value.__cause__)


@needs_311
def test_an_error_of_ours_shows_the_users_call_only():
    with pytest.raises(UsageError) as caught:
        ours(ENTRY)["refuse"]()
    assert frames(caught.value) == [__file__]


@pytest.mark.parametrize("entry, kind", [("bug", ZeroDivisionError), ("bug_in_a_library", ValueError)])
def test_a_bug_of_ours_keeps_its_frames(entry, kind):
    with pytest.raises(kind) as caught:
        ours(ENTRY)[entry]()
    assert any("imagined" in name for name in frames(caught.value))


def test_no_error_no_change():
    assert ours(ENTRY)["entry"](lambda: 5) == 5
