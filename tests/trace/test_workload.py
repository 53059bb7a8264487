"""Workloads: what @workload records, what its tree says, what is refused and where."""

from __future__ import annotations

import gc
import threading
import warnings
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pto_wsp.csp import Channel, connect, consume, process, send
from pto_wsp.errors import AxisError, CompileError, PtoError, UsageError
from pto_wsp.scalar_expr import Expr, LoopVar, axis, slot_u64, symbol_u64
from pto_wsp.schedule import DispatchPolicy, Schedule, TaskWindow, TimingPolicy
from pto_wsp.trace import record
from pto_wsp.trace.author import (
    P,
    combine,
    cond,
    for_each,
    parallel_for,
    select,
    sequential,
    slot_load_u64,
    slot_set_u64,
    task,
    workload,
)
from pto_wsp.trace.kernel import In, Out, Scalar, Tile, kernel
from pto_wsp.trace.tile import pto
from pto_wsp.trace.tree import Block, Cond, Connect, Consume, Loop, Send, SlotLoad, SlotSet, TaskCall, children, walk
from pto_wsp.trace.workload import Task, Workload
from pto_wsp.types import Dense, DenseDyn, DType, Ragged, Sparse, Symbol, Tensor
from tests.trace.frames import files

F = Tile[4, 8, DType.F32]
X, Y = Tensor(None, (9, 4, 8), DType.F32), Tensor(None, (9, 4, 8), DType.F32)


@kernel
def copy(x: In[F], out: Out[F], s: Scalar[DType.F32] = 1.0):
    pto.store(out, x * s)


@kernel
def double(x: In[F], out: Out[F]):
    pto.store(out, x * 2)


def shape(node):
    """A tree as nested lists: what loops over what, and the axis values of tasks."""
    if isinstance(node, TaskCall):
        return str(node.kernel.name)[0] + "".join(str(a) for a in node.axes)
    if isinstance(node, Loop):
        return ("par" if node.parallel else "seq", node.var.name, shape(node.body))
    if isinstance(node, Block):
        return ["par" if node.parallel else "seq", *(shape(c) for c in node.children)]
    return (type(node).__name__, *(shape(c) for c in children(node)))


def tree(body):
    return workload(body)().tree()


def refused(body, *words, kind=PtoError, build=False):
    """The workload is refused, with this file's line and none of our frames; `build`: already when it is built."""
    with pytest.raises(kind) as caught:
        w = workload(body)()
        assert not build, "built"
        w.tree()
    error = caught.value
    assert error.line.file == __file__ and error.line.text
    assert files(error) == {__file__}
    for word in words:
        assert word in str(error)
    return error


# ---- loops -------------------------------------------------------------------------------------------------------


def test_nested_loops():
    def w():
        for b in P(Dense[2]()):
            for t in P(3):
                copy[b, t](x=X[t], out=Y[b])

    assert shape(tree(w).root) == ("par", "b", ("par", "h", "cbh"))


def test_grids_name_their_axes_in_order_of_construction():
    def w():
        for i, j in P(2, 3):
            copy[i, j](X[0], Y[0])
        for k in P.grid(4):
            copy[k](X[0], Y[0])
        for q in P(4, names="mine"):
            copy[q](X[0], Y[0])
        for r in P.grid(2):
            copy[r](X[0], Y[0])

    assert shape(tree(w).root) == [
        "par",
        ("par", "b", ("par", "h", "cbh")),
        ("par", "s", "cs"),
        ("par", "mine", "cmine"),
        ("par", "i", "ci"),
    ]


def test_eleven_axes_have_eleven_variables():
    def w():
        for many in P(*[1] * 11):
            copy[many](X[0], Y[0])

    (call,) = tree(w).tasks
    assert "".join(v.a.name for v in call.axes) == "bhsdijklmnb"
    assert len({id(v.a) for v in call.axes}) == 11


def test_sequential_loops_and_bodies():
    def w():
        for i in P.seq(3):
            copy[i](X[i], Y[i])
            double[i](X[i], Y[i])
        for e in P.sel([3, 5], name="pick"):
            copy[e](X[e], Y[e])

    root = tree(w).root
    assert shape(root) == ["par", ("seq", "i", ["seq", "ci", "di"]), ("par", "pick", "cpick")]
    assert root.children[1].axis == (3, 5)


def test_equal_names_are_different_loops():
    def w():
        for i in P.seq(2):
            for j in P.seq(3):
                copy[i, j](X[i], Y[j])

    (call,) = tree(w).tasks
    outer, inner = (v.a for v in call.axes)
    assert outer is not inner and outer.name == inner.name == "i"
    assert call.args[0][1].index_exprs == (outer,) or call.args[0][1].index_exprs[0] is outer


@pytest.mark.parametrize(
    "given_axis", [3, np.int64(3), Dense[3](), Dense[3], DenseDyn(3), Ragged(2, [1, 2])], ids=repr
)
def test_axes(given_axis):
    def w():
        for i in P(given_axis):
            copy[i](X[i], Y[i])

    loop = tree(w).root
    assert isinstance(loop, Loop) and len(workload(w)().enumerate()) == 3
    assert isinstance(loop.axis, int) or loop.axis is given_axis or isinstance(loop.axis, Dense)


@pytest.mark.parametrize(
    "wrong", [[0, 1, 2], "abc", None, 2.0, -1, range(3), np.arange(3), True, object()], ids=lambda w: type(w).__name__
)
def test_what_is_no_axis(wrong):
    def w():
        for i in P(wrong):
            copy[i](X[i], Y[i])

    error = refused(w, kind=AxisError, build=True)
    assert isinstance(error, TypeError) and isinstance(error, ValueError)


def test_sparse_axes_are_for_selection():
    sparse = Sparse(2, [0, 2, 3], [4, 1, 7])

    def plain():
        for i in P(sparse):
            copy[i](X[i], Y[i])

    def rows():
        for b in P(2):
            for e in P.sel(sparse[b]):
                copy[b, e](X[e], Y[e])

    def flat():
        for e in P.sel(sparse):
            copy[e](X[e], Y[e])

    def dense():
        for e in P.sel(Dense[3]()):
            copy[e](X[e], Y[e])

    refused(plain, "P.sel", kind=CompileError, build=True)
    refused(dense, "P(...)", build=True)
    assert [t.params for t in workload(rows)().enumerate()] == [[0, 4], [0, 1], [1, 7]]
    assert [t.params for t in workload(flat)().enumerate()] == [[4], [1], [7]]
    assert shape(tree(rows).root) == ("par", "b", ("par", "e", "cbe"))


def test_zero_iterations_and_empty_bodies():
    def w():
        for i in P(0):
            copy[i](X[i], Y[i])
        for _ in P(3):
            pass

    assert shape(tree(w).root) == ["par", ("par", "b", "cb"), ("par", "h", ["par"])]
    assert shape(workload(lambda: None)().tree().root) == ["par"]
    assert workload(lambda: None)().kind == "empty"


@pytest.mark.parametrize("names", [("a",), ("a", "b", "c"), (1, 2), ("", "x")])
def test_names_have_to_fit(names):
    def w():
        for i, j in P(2, 3, names=names):
            copy[i, j](X[0], Y[0])

    refused(w, "name", kind=ValueError, build=True)


def test_a_loop_object_may_be_used_twice():
    def w():
        loop = P(2)
        for i in loop:
            copy[i](X[i], Y[i])
        for i in loop:
            double[i](X[i], Y[i])

    a, b = tree(w).root.children
    assert a.var is not b.var


@pytest.mark.parametrize(
    "use",
    [
        lambda: P(3),
        lambda: P.grid(3),
        lambda: next(iter(P.seq(3))),
        lambda: next(iter(P.sel([1]))),
        lambda: P.when(True),
        lambda: P.otherwise(),
        lambda: P.pipe(),
    ],
)
def test_outside_a_workload(use):
    with pytest.raises(RuntimeError, match="inside a @workload") as caught:
        use()
    assert caught.value.line.file == __file__


# ---- leaving loops -----------------------------------------------------------------------------------------------


def breaks():
    for i in P(3):
        copy[i](X[i], Y[i])
        break


def returns():
    for i in P(3):
        for _ in P.seq(2):
            return copy[i](X[i], Y[i])


def raises():
    try:
        for i in P(3):
            copy[i](X[i], Y[i])
            raise KeyError
    except KeyError:
        pass


def breaks_then_goes_on():
    for i in P(3):
        for j in P(2):
            if j is not None:
                break
        copy[i](X[i], Y[i])


@pytest.mark.parametrize("body", [breaks, returns, raises, breaks_then_goes_on])
def test_a_loop_left_early(body):
    error = refused(body, "left before its end", "P.when", kind=RuntimeError, build=True)
    assert "P(" in error.line.text or "P.seq(" in error.line.text


def test_an_error_in_the_body_passes_and_leaves_nothing_behind():
    def w():
        for _ in P(3):
            raise KeyError("mine")

    with pytest.raises(KeyError):
        workload(w)()
    assert record.current() is None
    assert shape(tree(lambda: copy[0](X[0], Y[0])).root) == "c0"


def test_continue_is_fine():
    def w():
        for i in P(3):
            copy[i](X[i], Y[i])
            continue

    assert shape(tree(w).root) == ("par", "b", "cb")


@pytest.mark.parametrize(
    "use",
    [
        lambda i: copy[i](X[0], Y[0]),
        lambda i: copy[0](X[i], Y[0]),
        lambda i: copy[0](X[0], Y[0], i),
        lambda i: copy[i + 1](X[0], Y[0]),
        lambda i: copy[0](X[0, i : i + 4], Y[0]),
        lambda i: task(copy, [i], {"x": X[0], "out": Y[0]}),
    ],
)
def test_a_loop_variable_after_its_loop(use):
    def w():
        for _ in P(3):
            pass
        (i,) = [i for i in P(4)]
        for _ in P(4):
            use(i)

    error = refused(w, "'h' outside its loop", build=True)
    assert "use" not in error.line.function


# ---- choices -----------------------------------------------------------------------------------------------------


def test_when_and_otherwise():
    def w():
        for i in P(4):
            with P.when(axis("b") > 1):
                copy[i](X[i], Y[i])
                with P.when(i > 2):
                    double[i](X[i], Y[i])
            with P.otherwise():
                double[i](X[i], Y[i])
            with P.when(True):
                pass

    assert shape(tree(w).root) == (
        "par",
        "b",
        ["par", ("Cond", ["par", "cb", ("Cond", "db", ["par"])], "db"), ("Cond", ["par"], ["par"])],
    )


def orphan():
    with P.otherwise():
        copy[0](X[0], Y[0])


def late():
    with P.when(True):
        copy[0](X[0], Y[0])
    copy[0](X[0], Y[0])
    with P.otherwise():
        copy[0](X[0], Y[0])


def twice():
    with P.when(True):
        copy[0](X[0], Y[0])
    with P.otherwise():
        copy[0](X[0], Y[0])
    with P.otherwise():
        copy[0](X[0], Y[0])


def elsewhere():
    with P.when(True):
        copy[0](X[0], Y[0])
    for _ in P(2):
        with P.otherwise():
            copy[0](X[0], Y[0])


def of_another_workload():
    workload(lambda: cond_only())()
    with P.otherwise():
        copy[0](X[0], Y[0])


def cond_only():
    with P.when(True):
        copy[0](X[0], Y[0])


@pytest.mark.parametrize("body", [orphan, late, twice, elsewhere, of_another_workload])
def test_otherwise_follows_its_when(body):
    refused(body, "directly after", kind=RuntimeError, build=True)


def test_choices_need_with():
    def forgotten():
        P.when(axis("b") > 1)
        copy[0](X[0], Y[0])

    def reused():
        twice = P.when(True)
        with twice:
            copy[0](X[0], Y[0])
        with twice:
            copy[0](X[0], Y[0])

    refused(forgotten, "with P.when", build=True)
    refused(reused, "entered before", build=True)


@pytest.mark.parametrize("wrong", ["b > 1", lambda: True, None, 2.5, Symbol("n")], ids=lambda w: type(w).__name__)
def test_what_is_no_predicate(wrong):
    def w():
        with P.when(wrong):
            copy[0](X[0], Y[0])

    refused(w, "predicate", kind=CompileError, build=True)


@pytest.mark.parametrize(
    "good",
    [True, False, 0, 3, np.bool_(True), np.int32(2), axis("b") % 2 == 0, symbol_u64("n"), slot_u64(3)],
    ids=repr,
)
def test_what_is_a_predicate(good):
    def w():
        for i in P(2):
            with P.when(good):
                copy[i](X[i], Y[i])

    assert isinstance(tree(w).root.body, Cond)


def test_names_in_predicates_need_a_loop():
    def w():
        for i in P(3):
            with P.when(axis("z") > 2):
                copy[i](X[i], Y[i])

    refused(w, "axis('z')", "loops here: b", kind=CompileError)


def test_pipe():
    def w():
        with P.pipe():
            copy[0](X[0], Y[0])
            double[0](X[0], Y[0])

    assert shape(tree(w).root) == ["par", "c0", "d0"]


def test_slots():
    def w():
        slot_set_u64(3, -1)
        for i in P(2):
            slot_load_u64(4, X[i], 1, i)

    root = tree(w).root
    assert isinstance(root.children[0], SlotSet) and root.children[0].value == 2**64 - 1
    load = root.children[1].body
    assert isinstance(load, SlotLoad) and load.row == 1 and isinstance(load.col, Expr)
    for wrong in (-1, 256, "a"):
        with pytest.raises(ValueError):
            slot_set_u64(wrong, 1)
    refused(lambda: slot_load_u64(1, X[0, 0]), "rank 2", kind=CompileError)


# ---- functional --------------------------------------------------------------------------------------------------


def test_functions_as_bodies():
    w = parallel_for(
        2,
        lambda i: for_each(
            DenseDyn(3),
            lambda j: combine(
                task(copy, [i, j], {"x": X[i], "out": Y[j]}), sequential(task(double, [j], {"x": X[j], "out": Y[i]}))
            ),
        ),
    )
    assert shape(w.tree().root) == ("par", "i", ("seq", "i", ["par", "cii", ["seq", "di"]]))
    outer, inner = w.tree().tasks[0].axes
    assert outer.a is not inner.a
    assert [t.params for t in w.enumerate()][:4] == [[0, 0], [0], [0, 1], [1]]
    assert [t.id for t in w.enumerate()] == list(range(12))


def test_kernel_calls_and_loops_in_a_function_body():
    def body(i):
        for j in P(2):
            copy[i, j](X[i], Y[j])

    assert shape(parallel_for(3, body).tree().root) == ("par", "i", ("par", "b", "cib"))
    assert shape(parallel_for(3, lambda i: copy[i](X[i], Y[i])).tree().root) == ("par", "i", "ci")
    with pytest.raises(CompileError, match="returned 3"):
        parallel_for(3, lambda i: 3).tree()
    with pytest.raises(CompileError, match="workload or a function"):
        parallel_for(3, 4).tree()


def test_a_workload_as_body():
    inner = task(copy, [0], {"x": X[0], "out": Y[0]})
    assert shape(parallel_for(3, inner).tree().root) == ("par", "i", "c0")
    assert len(parallel_for(3, inner).enumerate()) == 3


def test_select_and_cond():
    pick = select([4, 2], lambda e: task(copy, [e], {"x": X[e], "out": Y[e]}))
    assert [t.params for t in pick.enumerate()] == [[4], [2]] and pick.enumerate()[0].bindings == {"_select_idx": 4}
    assert pick.tree().root.var.name == "e"
    t, e = (task(k, [], {"x": X[0], "out": Y[0]}) for k in (copy, double))
    assert [x.kernel for x in cond(True, t, e).enumerate()] == [copy] and [
        x.kernel for x in cond(0, t, e).enumerate()
    ] == [double]
    assert [x.kernel for x in cond(symbol_u64("n") > 3, t, e).enumerate()] == [copy, double]
    assert [x.kernel for x in cond(symbol_u64("n") > 3, t, e).enumerate(symbols={"n": 2})] == [double]
    assert cond(False, t).enumerate() == []
    assert shape(cond(True, t).tree().root) == ("Cond", "c", ["par"])


def test_slots_when_enumerated():
    t = task(copy, [], {"x": X[0], "out": Y[0]})
    chosen = cond(slot_u64(3) > 0, t)
    assert chosen.enumerate() == [] and len(combine(slot_set_u64(3, 5), chosen).enumerate()) == 1
    loaded = combine(slot_load_u64(3, X[0]), chosen)
    assert len(loaded.enumerate()) == 1 and loaded.enumerate(slots={3: 0}) == []


def test_string_kernels_are_for_enumerating():
    w = combine(task("gemm", [0, 1], [X, Y]), task("gemm", [1], ["A", "B"]))
    assert [(t.kernel, t.params, t.resources) for t in w.enumerate()] == [
        ("gemm", [0, 1], [X, Y]),
        ("gemm", [1], ["A", "B"]),
    ]
    with pytest.raises(CompileError, match="'gemm'"):
        w.tree()
    with pytest.raises(TypeError, match="dict"):
        task(copy, [0], [X, Y])
    with pytest.raises(TypeError, match="takes workloads"):
        combine(3)


def test_task_adds_itself_inside_a_workload():
    def w():
        task(copy, [7], {"x": X[0], "out": Y[0]})
        for i in P(2):
            task(double, [i], {"x": X[i], "out": Y[i]})

    assert shape(tree(w).root) == ["par", "c7", ("par", "b", "db")]


def test_nodes_made_by_hand():
    r, c = LoopVar("r", Dense[2]()), LoopVar("c", Dense[3]())
    w = Workload(
        "parallel_for",
        axis=Dense[2](),
        var_name="r",
        body=Workload(
            "for_each",
            axis=Dense[3](),
            var_name="c",
            body=Workload("task", kernel=copy, params=[r, c], resources={"x": X[r], "out": Y[c]}),
        ),
    )
    root = w.tree().root
    assert shape(root) == ("par", "r", ("seq", "c", "crc")) and root.var is r and root.body.var is c
    assert w.enumerate()[4].params == [1, 1] and w.enumerate()[4].bindings == {"r": 1, "c": 1}


@pytest.mark.parametrize(
    ("node", "word"),
    [
        (lambda: Workload("banana"), "banana"),
        (lambda: Workload("parallel_for", axis=3), "body"),
        (lambda: Workload("combine", workloads=[3]), "3"),
        (lambda: Workload("task"), "kernel"),
        (lambda: parallel_for(2, lambda i: task(copy, [None], {"x": X[0], "out": Y[0]})), "None"),
        (lambda: parallel_for(2, lambda i: task(copy, [Symbol("n")], {"x": X[0], "out": Y[0]})), "Symbol"),
        (
            lambda: combine(task(copy, [0], {"x": X[0], "out": Y[0]}).dispatch(DispatchPolicy.round_robin(2))),
            "schedule",
        ),
        (lambda: cond(slot_u64(1) + axis("q"), combine()), "axis('q')"),
    ],
)
def test_trees_that_cannot_be_made(node, word):
    with pytest.raises(CompileError) as caught:
        node().tree()
    assert word in str(caught.value) and caught.value.line.file == __file__


def test_a_loop_variable_of_another_function_body():
    kept = []
    w = combine(
        parallel_for(2, lambda i: kept.append(i) or task(copy, [i], {"x": X[i], "out": Y[i]})),
        parallel_for(2, lambda j: task(copy, [kept[0]], {"x": X[0], "out": Y[0]})),
    )
    with pytest.raises(UsageError, match="outside its loop"):
        w.tree()


def test_axis_values():
    def w():
        copy[True, -3, 2.9, "tag", np.int64(4), np.float32(1.5)](X[0], Y[0])

    (call,) = tree(w).tasks
    assert call.axes == (1, -3, 2, "tag", 4, 1)


# ---- what a workload is ------------------------------------------------------------------------------------------


def test_results():
    @workload
    def one():
        copy[0](X[0], Y[0])

    @workload(type_check=False)
    def two():
        copy[0](X[0], Y[0])
        copy(X[0], Y[0])

    assert (
        one().kind == "task" and two().kind == "combine" and one._workload_name == "one" and two._type_check is False
    )
    assert one().name is None and one().tree().name == "one" and one().named("my name").tree().name == "my name"
    assert shape(two().tree().root) == ["par", "c0", "c"]
    assert repr(two()) == "Workload(combine, two)"


def test_arguments_of_a_workload():
    @workload
    def w(n, *, k):
        """Docs."""
        for i in P(n):
            k[i](X[i], Y[i])
        return "dropped"

    assert w.__doc__ == "Docs." and len(w(3, k=copy).enumerate()) == 3
    with pytest.raises(TypeError):
        w()


def test_nested_workloads_are_spliced_in_place():
    @workload
    def inner(i):
        copy[i](X[i], Y[i])
        double[i](X[i], Y[i])

    @workload
    def outer():
        for i in P.seq(3):
            inner(i)
            copy[i](X[i], Y[i])

    assert shape(outer().tree().root) == ("seq", "i", ["seq", ["par", "ci", "di"], "ci"])
    assert shape(inner(0).tree().root) == ["par", "c0", "d0"]


def test_type_errors_are_collected():
    def w():
        copy[0](X[0])
        copy[0](np.zeros((4, 8)), Y[0])
        copy[0](None, None)

    built = workload(w)()
    assert [e.kind.name for e in built.type_errors] == ["ARITY_MISMATCH", "TYPE_MISMATCH"] and built.has_type_errors()
    assert not workload(type_check=False)(w)().has_type_errors()
    with pytest.raises(TypeError, match="^Type errors in workload 'w'"):
        workload(fail_on_type_error=True)(w)()
    with pytest.raises(CompileError):
        workload(type_check=False)(w)().tree()

    @workload
    def outer():
        workload(w)()

    assert len(outer().type_errors) == 2


def test_loop_bounds_are_checked_where_a_call_is_sure_to_be_made():
    def beyond():
        for i in P(10):
            copy[i](X[i], Y[i])

    def maybe():
        for i in P(10):
            with P.when(i < 9):
                copy[i](X[i], Y[i])

    def never():
        for _ in P(0):
            for i in P(10):
                copy[i](X[i], Y[i])

    refused(beyond, "reaches 9")
    assert not workload(maybe)().type_errors and workload(maybe)().tree()
    assert not workload(never)().type_errors and workload(never)().tree()


def test_handles():
    def w():
        first = copy[0](X[0], Y[0])
        second = double[1](X[0], Y[0], after=[first])
        copy[2](X[0], Y[0], after=(first, second))
        copy[3](X[0], Y[0], after=first)

    a, b, c, d = tree(w).tasks
    assert a.after == () and b.after == (a,) and c.after == (a, b) and d.after == (a,)
    refused(lambda: copy[0](X[0], Y[0], after=[3]), "after=", build=True)
    kept = workload(lambda: copy[0](X[0], Y[0]))()
    refused(lambda: copy[0](X[0], Y[0], after=[kept]), "after=", kind=CompileError)


def test_nodes_that_become_part_of_nothing_are_warned_of():
    def calls():
        return [copy[0](X[0], Y[0]), copy[1](X[1], Y[1])]

    for forget in (
        lambda: parallel_for(3, lambda i: task(copy, [i], {"x": X[i], "out": Y[i]})),
        lambda: sequential(*calls()),
        lambda: cond(True, combine()),
        lambda: send(Channel("q"), task("k", [], [])),
    ):
        with pytest.warns(UserWarning, match="never became part") as found:
            workload(lambda forget=forget: forget())()
    assert "A pipeline is built from functions" in str(found[0].message)  # the last one: send
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        workload(lambda: combine(*calls()))()
        workload(calls)()
        parallel_for(3, lambda i: combine(task(copy, [i], {"x": X[i], "out": Y[i]}))).tree()


def test_threads_do_not_see_each_other():
    def build(n):
        @workload
        def w():
            for i in P(n):
                copy[i % 3](X[0], Y[0])
                gc.collect(0)

        results[n] = len(w().enumerate())

    results: dict[int, int] = {}
    threads = [threading.Thread(target=build, args=(n,)) for n in range(1, 9)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == {n: n for n in range(1, 9)}


# ---- schedules ---------------------------------------------------------------------------------------------------


def test_schedules_are_given_to_new_nodes():
    w = workload(lambda: copy[0](X[0], Y[0]))()
    policy = DispatchPolicy.round_robin(3)
    v = (
        w.dispatch(policy)
        .streams(2)
        .stream_by(lambda t: t.get("b"))
        .timing(TimingPolicy.immediate)
        .task_graph(window=TaskWindow(4))
    )
    assert w.schedule == Schedule() and v is not w
    assert v.schedule.dispatch is policy and v.schedule.streams == 2 and v.schedule.timing is TimingPolicy.immediate
    assert v.task_graph_config.window.size == 4 and v.task_graph_config.given == {"window"}
    assert v.tree().root.kernel is copy and v.kind == w.kind
    assert w.spatial_map((2, 2)).spatial_grid == (2, 2) and w.with_params(("b", 3)).params == (("b", 3),)
    with pytest.warns(DeprecationWarning, match="deprecated") as caught:
        assert w.layout(X, 1).layouts == ((X, (1,)),)
    assert len(caught) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        lambda w: w.dispatch("round_robin"),
        lambda w: w.dispatch(None),
        lambda w: w.streams(0),
        lambda w: w.streams(2.5),
        lambda w: w.timing(3),
        lambda w: w.task_graph(window=4),
        lambda w: w.named(""),
        lambda w: w.named(3),
    ],
)
def test_wrong_schedules(wrong):
    with pytest.raises((TypeError, ValueError, UsageError)):
        wrong(workload(lambda: copy[0](X[0], Y[0]))())


def test_schedules_belong_to_the_whole():
    refused(lambda: copy[0](X[0], Y[0]).streams(2), "workload that is compiled", kind=UsageError, build=True)


# ---- enumerate, Task ---------------------------------------------------------------------------------------------


def test_enumerate():
    def w():
        for i in P(2):
            for j in P.seq(DenseDyn(2), name="j"):
                copy[i, j + 10, "t"](X[i], Y[j])

    tasks = workload(w)().enumerate()
    assert [t.params for t in tasks] == [[0, 10, "t"], [0, 11, "t"], [1, 10, "t"], [1, 11, "t"]]
    last = tasks[-1]
    assert last.kernel is copy and last.id == 3 and last.bindings == {"b": 1, "j": 1}
    assert (
        last.get("j") == 1 and last.get("z", 7) == 7 and last.get_axis_value(0) == 1 and last.get_axis_value(9) == 0
    )
    assert isinstance(last, Task) and Task("k").bindings == {} and Task("k").params == []
    with pytest.raises(UsageError, match="enumerate"):
        list(workload(w)())


sizes = st.integers(0, 3)


@given(st.recursive(sizes, lambda inner: st.tuples(sizes, st.booleans(), st.lists(inner, max_size=3)), max_leaves=8))
def test_trees_and_enumeration_agree(plan):
    """A random nest of loops: as many tasks as a count by hand, in the order of a plain Python run."""

    def record_plan(plan, path):
        if isinstance(plan, int):
            for _ in range(plan):
                copy[path](X[0], Y[0])
            return
        size, parallel, parts = plan
        for i in P(size) if parallel else P.seq(size):
            for part in parts:
                record_plan(part, (*path, i))

    def run(plan, path):
        if isinstance(plan, int):
            return [list(path)] * plan
        size, _, parts = plan
        return [p for i in range(size) for part in parts for p in run(part, (*path, i))]

    w = workload(lambda: record_plan(plan, ()))()
    assert [t.params for t in w.enumerate()] == run(plan, ())
    assert sum(isinstance(n, TaskCall) for n in walk(w.tree().root)) == len(w.tree().tasks)
    assert str(w.tree()).startswith('workload "<lambda>"')


# ---- pipelines ---------------------------------------------------------------------------------------------------


def test_pipelines_build():
    queue = Channel("queue", depth=2)
    load = (
        process("load")
        .produces(queue)
        .body(for_each(4, lambda i: send(queue, task(copy, [i], {"x": X[i], "out": Y[i]}))))
    )
    work = process("work").consumes(queue).body(consume(queue, lambda t: task(double, [t], {"x": X[t], "out": Y[t]})))
    root = connect([load, work], [queue]).tree().root
    assert isinstance(root, Connect) and [p.name for p in root.processes] == ["load", "work"]
    kinds = [type(n) for n in walk(root)]
    assert kinds == [Connect, Loop, Send, TaskCall, Consume, TaskCall]
    assert len(connect([load, work], [queue]).enumerate()) == 4
    with pytest.raises(CompileError, match="of its own"):
        combine(connect([load, work], [queue])).tree()
    with pytest.raises(CompileError, match="send needs a task"):
        send(queue, combine()).tree()
    text = str(connect([load, work], [queue]).tree())
    assert "process \"load\" produces C0" in text and "consume token_queue from C0" in text


# ---- lines of errors that come from elsewhere --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("use", "word"),
    [
        (lambda i: 1 if i > 2 else 2, "P.when"),
        (lambda i: Dense[-1], "Dense"),
        (lambda i: DispatchPolicy.round_robin(0), "num_aicpus"),
        (lambda i: slot_u64(999), "slot"),
    ],
)
def test_errors_of_the_vocabulary_get_the_users_line(use, word):
    def w():
        for i in P(3):
            use(i)

    error = refused(w, word, "recording workload w", build=True)
    assert "lambda i" in error.line.text


@pytest.mark.parametrize("decorate", [workload, kernel])
def test_bodies_that_would_never_run(decorate):
    def generator():
        yield 1

    async def coroutine():
        pass

    for body in (generator, coroutine):
        with pytest.raises(UsageError, match="yield or await"):
            decorate(body)


def test_nodes_are_freed_without_the_garbage_collector():
    gc.collect()
    gc.disable()
    try:
        w = workload(lambda: copy[0](X[0], Y[0]))()
        seen = weakref.ref(w)
        del w
        assert seen() is None
    finally:
        gc.enable()
