"""@kernel: annotations, options, tracing, constexprs, calls, interpretation."""

from __future__ import annotations

import re
import threading

import numpy as np
import pytest

from pto_wsp.errors import CompileError, ExecutionError, PtoError, TypeCheckError, UsageError
from pto_wsp.trace import text, tile
from pto_wsp.trace.author import P, workload
from pto_wsp.trace.kernel import (
    Constexpr,
    In,
    InOut,
    Kernel,
    KernelCall,
    KernelRef,
    Out,
    Scalar,
    Tile,
    extract_kernel_params,
    get_direction,
    get_inner_type,
    jit_kernel,
    kernel,
)
from pto_wsp.trace.tile import pto
from pto_wsp.types import DType, Location, ScalarType, Symbol, Tensor, TileType
from tests.trace.frames import files

F = Tile[4, 8, DType.F32]


def tensor(*shape, dtype=DType.F32):
    return Tensor(None, shape, dtype)


@kernel
def copy(x: In[F], out: Out[F]):
    """Copies."""
    pto.store(out, x)


# ---- annotations -------------------------------------------------------------------------------------------------


def test_tile_and_scalar():
    assert Tile[4, 8] == TileType(4, 8, DType.F16, Location.UB)
    assert Tile[4, 8, DType.I32] == TileType(4, 8, DType.I32)
    assert Scalar[DType.F32] == ScalarType(DType.F32)
    assert {Tile[4, 8], Tile[4, 8]} == {Tile[4, 8]}


@pytest.mark.parametrize("item", [(4,), (1, 2, DType.F32, 4), 4, (4, 8, "f32"), (4.0, 8), (4, None)], ids=str)
def test_wrong_tiles(item):
    with pytest.raises(TypeError):
        Tile[item]


def test_an_empty_tile_is_refused():
    with pytest.raises(ValueError):
        Tile[0, 8]


@pytest.mark.parametrize(
    ("hint", "direction", "inner"),
    [
        (In[F], "in", F),
        (Out[F], "out", F),
        (InOut[F], "inout", F),
        (Constexpr[int], "constexpr", int),
        (F, "unknown", None),
        (In, "in", None),
        (In[Tensor], "in", Tensor),
        ("Out[Tensor]", "out", None),
        ("pto_wsp.InOut[Tile[2, 2]]", "inout", None),
        ("Tensor", "unknown", None),
        ("Inner[F]", "unknown", None),
        (3, "unknown", None),
    ],
    ids=str,
)
def test_direction_and_inner_type(hint, direction, inner):
    assert get_direction(hint) == direction
    assert get_inner_type(hint) == inner


def test_annotations_are_classes_and_print():
    assert issubclass(In[F], In) and In[F].__name__ == "In[tile<4x8xf32>]"


def test_params():
    def f(x: In[F], y: F, s: Scalar[DType.I32] = 3, n: Constexpr[int] = 4, t: In[Tensor] = None, *, u=1):
        pass

    found = extract_kernel_params(f)
    assert [p.name for p in found] == ["x", "y", "s", "n", "t", "u"]
    assert [p.direction for p in found] == ["in", "in", "in", "constexpr", "in", "in"]
    assert [p.inner_type for p in found] == [F, F, Scalar[DType.I32], int, Tensor, None]
    assert [p.kind for p in found] == ["tile", "tile", "scalar", "constexpr", "other", "other"]
    assert found[0].shape == (4, 8) and found[0].dtype is DType.F32 and found[2].dtype is DType.I32
    assert not found[0].has_default and found[2].default == 3


def test_postponed_annotations_see_enclosing_locals():
    width, dt = 16, DType.F64

    def inner(rows):
        @kernel
        def k(x: In[Tile[rows, width, dt]], out: Out[Tile[rows, width, dt]]):
            pto.store(out, x)

        return k

    assert isinstance(inner.__code__, type(test_params.__code__))
    assert str(inner(2).graph).startswith("kernel k(%0 x: In tile<2x16xf64>")
    assert inner(3).params[0].shape == (3, 16)


def test_annotations_with_unknown_names_are_for_building_only():
    def f(x: In[Nowhere], out: Out[F]):
        pass

    k = kernel(f)
    assert k.params[0].kind == "other" and k.params[1].kind == "tile"
    with pytest.raises(CompileError, match="'x' has no annotation"):
        k.graph


@pytest.mark.parametrize(
    "make",
    [
        lambda: kernel(lambda *a: None),
        lambda: kernel(lambda **a: None),
        lambda: kernel(3),
        lambda: kernel(copy),
        lambda: kernel(int),
    ],
)
def test_what_is_no_kernel(make):
    with pytest.raises((TypeError, UsageError)):
        make()


# ---- the decorator -----------------------------------------------------------------------------------------------


def test_attributes():
    assert isinstance(copy, Kernel) and KernelRef is Kernel and jit_kernel is kernel
    assert copy.name == "copy" and copy.func.__name__ == "copy" and copy.__doc__ == "Copies."
    assert copy.options == {"num_warps": 4, "num_stages": 2}
    assert set(copy.signature) == {"x", "out"}
    assert repr(copy) == "<kernel copy(x, out)>"


def test_options_are_kept():
    @kernel(num_warps=8, flavour="mild")
    def k(x: In[F]):
        pass

    assert k.options == {"num_warps": 8, "num_stages": 2, "flavour": "mild"}


def test_cpp_sources(tmp_path):
    body, unit = tmp_path / "body.h", tmp_path / "unit.cpp"
    body.write_text("int body;")
    unit.write_text("int unit;")

    def f(x: In[F]):
        raise AssertionError("the Python body of a C++ kernel is never run")

    a, b, c = kernel(cpp_src="x", cpp_includes=["v.h"])(f), kernel(cpp_body_path=body)(f), kernel(cpp_tu_path=unit)(f)
    assert (a.options["cpp_src"], a.options["cpp_includes"]) == ("x", ["v.h"])
    assert (b.options["cpp_src"], b.options["cpp_src_path"]) == ("int body;", str(body))
    assert (c.options["cpp_file_src"], c.options["cpp_file_path"]) == ("int unit;", str(unit))
    for k in (a, b, c):
        assert k.is_cpp and len(k.trace().params) == 1
        assert k.graph.custom is not None and k.graph.custom.form == ("unit" if k is c else "body")
        with pytest.raises(CompileError, match="cpu="):
            k.llvm
    with pytest.raises(ValueError, match="one C"):
        kernel(cpp_src="x", cpp_tu_path=unit)
    with pytest.raises(FileNotFoundError):
        kernel(cpp_body_path=tmp_path / "none")


# ---- tracing -----------------------------------------------------------------------------------------------------


def test_the_graph_is_traced_once_and_trace_runs_again():
    runs = []

    @kernel
    def k(x: In[F], out: Out[F]):
        runs.append(1)
        pto.store(out, x + 1)

    assert k.graph is k.graph and len(runs) == 1
    assert text.same(k.trace(), k.graph) and text.same(k(x=None, out=None), k.graph) and text.same(k(), k.graph)
    assert len(runs) == 4


def test_constexprs_specialise():
    @kernel
    def k(x: In[F], out: Out[F], n: Constexpr[int], negate: Constexpr[bool] = False):
        y = x
        for _ in range(n):
            y = y * 2
        pto.store(out, -y if negate else y)

    assert [p.name for p in k.graph_for({"n": 2}).params] == ["x", "out"]
    assert str(k.graph_for({"n": 2})).count("= mul") == 2 and str(k.graph_for({"n": 5})).count("= mul") == 5
    assert k.graph_for({"n": 2}) is k.graph_for({"n": np.int64(2), "x": 1, "negate": False})
    assert "neg" in str(k.graph_for({"n": 2, "negate": True}))
    assert str(k.trace(n=3)).count("= mul") == 3
    with pytest.raises(TypeError, match="graph_for"):
        k.graph
    for wrong in ("3", [1], 2.5, Symbol("n")):
        with pytest.raises(CompileError, match="Constexpr"):
            k.graph_for({"n": wrong})


def test_constexpr_values_are_told_apart_by_type():
    seen = []

    @kernel
    def k(x: In[F], out: Out[F], v: Constexpr[object]):
        seen.append(v)
        pto.store(out, x)

    for v in (1, True, 1.0, "1", (1, 2)):
        k.graph_for({"v": v})
        k.graph_for({"v": v})
    assert len(seen) == 5
    with pytest.raises(CompileError, match="hashable"):
        k.graph_for({"v": [1]})


def test_positional_only_parameters():
    @kernel
    def k(x: In[F], n: Constexpr[int] = 2, /, *, out: Out[F]):
        pto.store(out, x * n)

    assert [p.name for p in k.graph.params] == ["x", "out"]


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (In[Tensor], "no tile shape"),
        (None, "no annotation"),
        (int, "annotated int"),
        (Tile["M", 16, DType.F32], "concrete ints"),
        (Out[Scalar[DType.F32]], "a scalar is an input"),
    ],
    ids=str,
)
def test_kernels_for_building_only(hint, words):
    def f(x, out: Out[F]):
        pass

    f.__annotations__ = {"out": Out[F], **({} if hint is None else {"x": hint})}
    k = kernel(f)
    for use in (lambda: k.graph, k.trace, lambda: k.interpret(1, 2)):
        with pytest.raises(CompileError, match=words) as caught:
            use()
        assert "'x'" in str(caught.value) and caught.value.line.line == f.__code__.co_firstlineno


def test_a_kernel_without_a_store_is_warned_of():
    @kernel
    def k(x: In[F]):
        x + 1

    with pytest.warns(UserWarning, match="stores nothing"):
        assert k.graph.static_cycles() == 64


def test_a_returned_tile_is_warned_of():
    @kernel
    def k(x: In[F], out: Out[F]):
        pto.store(out, x)
        return x + 1

    with pytest.warns(UserWarning, match="returns .* dropped"):
        k.graph


def test_kernels_do_not_call_kernels():
    @kernel
    def outer(x: In[F], out: Out[F]):
        copy(x, out)

    @kernel
    def outer_indexed(x: In[F], out: Out[F]):
        copy[0](x, out)

    @kernel
    def itself(x: In[F], out: Out[F]):
        itself.graph_for({})
        itself(x, out)

    @kernel
    def through_func(x: In[F], out: Out[F]):
        copy.func(x, out)

    for k in (outer, outer_indexed):
        with pytest.raises(RuntimeError, match="kernel copy is used inside kernel outer.*plain function") as caught:
            k.graph
        assert caught.value.line.file == __file__
    with pytest.raises(PtoError, match="inside kernel itself"):
        itself.graph
    assert len(through_func.graph.stores) == 1


def test_workload_words_do_not_belong_in_a_kernel():
    @kernel
    def k(x: In[F], out: Out[F]):
        for _ in P(3):
            pto.store(out, x)

    @workload
    def w():
        for i in P(2):
            k[i](x=tensor(4, 8), out=tensor(4, 8))

    with pytest.raises(RuntimeError, match="@workload"):
        k.graph
    with pytest.raises(CompileError, match="@workload"):
        w().compile()


def test_compile_of_a_kernel_is_refused():
    with pytest.raises(RuntimeError, match="workload"):
        copy.compile()


def test_kernels_trace_in_several_threads():
    def trace(n):
        @kernel
        def k(x: In[F], out: Out[F]):
            y = x
            for _ in range(n):
                y = y + 1
            pto.store(out, y)

        results[n] = str(k.graph).count("= add")

    results: dict[int, int] = {}
    threads = [threading.Thread(target=trace, args=(n,)) for n in range(1, 30)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == {n: n for n in range(1, 30)}


def test_kernels_in_exec_without_source():
    names = {"kernel": kernel, "In": In, "Out": Out, "F": F, "pto": pto}
    exec("@kernel\ndef k(x: In[F], out: Out[F]):\n    pto.store(out, pto.matmul(x, x))\n", names)
    with pytest.raises(TypeCheckError) as caught:
        names["k"].graph
    assert str(caught.value).startswith("<string>:3, tracing kernel k\n")
    assert files(caught.value) == {__file__, "<string>"}


def test_stages_print():
    assert "store" in str(copy.graph)
    assert re.search(r"\w", copy.loops) and "define" in copy.llvm and "ret" in copy.asm


# ---- calls -------------------------------------------------------------------------------------------------------


def test_k_of_axes():
    call = copy[1, 2]
    assert isinstance(call, KernelCall) and call.axes == (1, 2) and copy[3].axes == (3,)
    assert call.kernel is copy and call.kernel_ref is copy
    with pytest.raises(RuntimeError, match="interpret"):
        call(tensor(4, 8), tensor(4, 8))


def one_task(call):
    @workload
    def w():
        call()

    return w()


def test_arguments_in_signature_order_with_defaults():
    @kernel
    def k(x: In[F], out: Out[F], s: Scalar[DType.F32] = 0.25, n: Constexpr[int] = 3, m: Scalar[DType.I32] = 7):
        pto.store(out, x * s + n)

    x, out = tensor(4, 8), tensor(4, 8)
    (call,) = one_task(lambda: k[5](x, m=2.9, out=out)).tree().tasks
    assert [name for name, _ in call.args] == ["x", "out", "s", "n", "m"]
    assert call.args[0][1] is x and [v for _, v in call.args[2:]] == [0.25, 3, 2]
    assert call.axes == (5,) and call.kernel is k


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda k, t: k[0](t), "missing: out"),
        (lambda k, t: k[0](t, t, bogus=1), "no parameter 'bogus'"),
        (lambda k, t: k[0](x=t, outt=t), "no parameter 'outt'"),
        (lambda k, t: k[0](t, np.zeros((4, 8), np.float32)), "wrap the array"),
        (lambda k, t: k[0](t, 3), "needs a Tensor"),
        (lambda k, t: k[0](None, t), "Missing tensor arg 'x'"),
        (lambda k, t: k[0](t, t, None), "Missing scalar arg 's'"),
        (lambda k, t: k[0](t, t, "a"), "'s' needs a number"),
        (lambda k, t: k[0](tensor(2, 4, 8), t), "two dimensions"),
        (lambda k, t: k[0](tensor(4, 8, dtype=DType.F16), t), "f16"),
        (lambda k, t: k[0](tensor(5, 8), t), "smaller than the view"),
    ],
)
def test_wrong_calls_are_found_when_built_and_refused_when_compiled(call, words):
    @kernel
    def k(x: In[F], out: Out[F], s: Scalar[DType.F32] = 1):
        pto.store(out, x * s)

    w = one_task(lambda: call(k, tensor(4, 8)))
    with pytest.raises(CompileError, match=re.escape(words)) as caught:
        w.tree()
    assert caught.value.line.file == __file__ and "calling kernel k" in str(caught.value)
    if not words.startswith("Missing"):
        assert w.has_type_errors() and "one_task.<locals>.w" not in str(w.type_errors[0])
        assert w.type_errors[0].location == "w.k"


@pytest.mark.parametrize("call", [lambda k, t: k[0](t, t, 1), lambda k, t: k[0](t, x=t)])
def test_python_refuses_these_calls_at_once(call):
    with pytest.raises(TypeError) as caught:
        one_task(lambda: call(copy, tensor(4, 8)))
    assert caught.value.line.file == __file__


def test_scalars_that_do_not_fit():
    @kernel
    def k(out: Out[Tile[1, 1, DType.I32]], n: Scalar[DType.I32]):
        pto.store(out, pto.broadcast(n, (1, 1)))

    with pytest.raises(OverflowError, match="does not fit i32"):
        one_task(lambda: k[0](tensor(1, 1, dtype=DType.I32), 2**40)).tree()
    (call,) = one_task(lambda: k[0](tensor(1, 1, dtype=DType.I32), Symbol("n"))).tree().tasks
    assert isinstance(dict(call.args)["n"], Symbol)


def test_equal_names_are_different_kernels():
    def make(n):
        @kernel
        def same(x: In[F], out: Out[F]):
            pto.store(out, x * n)

        return same

    a, b = make(2), make(3)
    x = tensor(4, 8)

    @workload
    def w():
        a[0](x, x)
        b[0](x, x)
        a[1](x, x)

    assert w().tree().kernels == (a, b)


def test_a_kernel_parameter_named_after():
    @kernel
    def k(x: In[F], after: Out[F]):
        pto.store(after, x)

    t = tensor(4, 8)
    (call,) = one_task(lambda: k[0](x=t, after=t)).tree().tasks
    assert dict(call.args)["after"] is t and call.after == ()


# ---- interpretation ----------------------------------------------------------------------------------------------


def test_interpret_runs_the_body_on_numbers(capsys):
    @kernel
    def k(x: In[F], out: Out[F], s: Scalar[DType.F32] = 2, n: Constexpr[int] = 1):
        y = x * s
        print("y is", y)
        seen.append((y.array if live else None, x.array if live else None, s.array if live else None))
        pto.store(out, y + n)

    live, seen = False, []
    k.graph
    assert "<tile<4x8xf32>>" in capsys.readouterr().out
    live = True
    x, out = np.arange(32, dtype=np.float32).reshape(4, 8), np.zeros((4, 8), np.float32)
    k.interpret(x, out, s=3)
    np.testing.assert_array_equal(out, x * 3 + 1)
    y, seen_x, s = seen[-1]
    np.testing.assert_array_equal(y, x * 3)
    np.testing.assert_array_equal(seen_x, x)
    assert s == 3 and "[[ 0." in capsys.readouterr().out


def test_interpret_takes_parts_of_tiles_and_tensors():
    x, out = Tensor(np.ones((3, 5), np.float32), (3, 5), DType.F32), np.zeros((3, 5), np.float32)

    @kernel
    def k(x: In[F], out: Out[F]):
        pto.store(out, pto.rowsum(x) + x)

    k.interpret(x, out)
    assert (out == 6).all()


@pytest.mark.parametrize("arguments", [(), (np.zeros((4, 8), np.float32),)])
def test_interpret_names_what_is_missing(arguments):
    with pytest.raises(ExecutionError, match="missing: .*out"):
        copy.interpret(*arguments)


def test_interpret_refuses_wrong_arrays():
    good = np.zeros((4, 8), np.float32)
    for wrong in (np.zeros((4, 9), np.float32), np.zeros((4, 8)), np.zeros(8, np.float32)):
        with pytest.raises(ExecutionError, match="copy"):
            copy.interpret(wrong, good)
    with pytest.raises(ExecutionError, match="unknown: y"):
        copy.interpret(good, good, y=good)


def test_a_body_that_changes_its_mind_is_refused():
    turns = []

    @kernel
    def k(x: In[F], out: Out[F]):
        turns.append(1)
        pto.store(out, x + 1 if len(turns) == 1 else x * 2)

    with pytest.raises(ExecutionError, match="same every time"):
        k.interpret(np.zeros((4, 8), np.float32), np.zeros((4, 8), np.float32))


def test_errors_while_interpreting_show_the_user_only():
    @kernel
    def k(x: In[F], out: Out[F]):
        if live:
            raise KeyError("here")
        pto.store(out, x)

    live = False
    k.graph
    live = True
    with pytest.raises(KeyError) as caught:
        k.interpret(np.zeros((4, 8), np.float32), np.zeros((4, 8), np.float32))
    assert files(caught.value) == {__file__}


def test_warnings_are_given_once():
    @kernel
    def k(x: In[F], out: Out[F]):
        pto.store(out, x + pto.load(out))
        return x

    with pytest.warns(UserWarning) as caught:
        k.graph
        for _ in range(3):
            k.interpret(np.zeros((4, 8), np.float32), np.zeros((4, 8), np.float32))
    assert len(caught) == 2


def test_ctrl_c_while_tracing_begins(monkeypatch):
    """Between any two calls: no kernel stays the one that is being traced."""

    def interrupted():
        raise KeyboardInterrupt

    tracer = tile.Tracer("copy")
    with monkeypatch.context() as patch:
        patch.setattr("pto_wsp.trace.record.suspend", interrupted)
        with pytest.raises(KeyboardInterrupt):
            with tracer.active():
                pass
    assert tile.current() is None
