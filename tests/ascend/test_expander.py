"""The task generator, compiled for this machine, against the simulator's expansion, field by field."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pto_wsp import (
    DenseDyn,
    Deps,
    DispatchPolicy,
    DType,
    In,
    InOut,
    Out,
    P,
    Pools,
    Ragged,
    ReadyPolicy,
    Scalar,
    StartPolicy,
    Symbol,
    TaskWindow,
    Tensor,
    Tile,
    TimingPolicy,
    TracePolicy,
    WindowMode,
    combine,
    cond,
    kernel,
    parallel_for,
    pto,
    sequential,
    slot_load_u64,
    slot_set_u64,
    task,
    workload,
)
from pto_wsp.ascend import expander, worker
from pto_wsp.ascend.emission import emission
from pto_wsp.errors import CompileError, ScheduleError
from pto_wsp.scalar_expr import symbol_u64
from pto_wsp.sim.machine import A2A3
from tests.ascend.device import Expanders, Inputs, Refused, expected
from tests.ascend.golden_workload import decode
from tests.strategies import loop, predicate, predicates

I32, F32 = DType.I32, DType.F32
SYMBOLS = {"n": 5, "m": 2**64 - 3}


@kernel
def update(x: InOut[Tile[2, 4, I32]], c: Scalar[I32]):
    pto.store(x, x + c)


@kernel
def move(x: In[Tile[4, 6, I32]], out: Out[Tile[4, 6, I32]]):
    pto.store(out, x + x)


@kernel
def line(x: In[Tile[1, 5, F32]], out: Out[Tile[1, 5, F32]], k: Scalar[F32]):
    pto.store(out, x * k)


def made(work, **options):
    """Its emission, under the schedule that it was given."""
    config = work.schedule.with_(task_graph=work.task_graph_config)
    return emission(work.tree(), config, **options)


# ---- random workloads ----------------------------------------------------------------------------------------------

SLOTS = (0, 7, 255)
slots = st.sampled_from(SLOTS)
rows = st.lists(st.lists(st.integers(0, 9), max_size=3), min_size=1, max_size=3)
numbers = st.integers(0, 9)
leaves = st.one_of(
    st.tuples(st.sampled_from(["update", "move", "line"]), numbers, numbers, numbers),
    st.tuples(st.sampled_from(["update", "move", "line"]), numbers, numbers, numbers),
    st.tuples(st.just("load"), slots, numbers, numbers),
    st.tuples(st.just("set"), slots, st.integers(-3, 1 << 65)),
)


def branches(child):
    ordered = st.sampled_from(["parallel", "ordered"])
    return st.one_of(
        st.tuples(ordered, st.integers(0, 3), st.booleans(), child),
        st.tuples(st.sampled_from(["combine", "sequential"]), st.lists(child, max_size=4)),
        st.tuples(st.just("cond"), predicates(slots), child, st.one_of(st.none(), child)),
        st.tuples(st.just("list"), st.lists(numbers, max_size=3), child),
        st.tuples(st.just("sparse"), rows, child),
        st.tuples(st.just("sparse row"), rows, child),
        st.tuples(st.just("ragged"), ordered, st.lists(st.integers(0, 2), max_size=3), child),
        st.tuples(st.just("ragged row"), ordered, st.lists(st.integers(0, 3), min_size=1, max_size=3), child),
    )


trees = st.recursive(leaves, branches, max_leaves=12)
programs = st.tuples(st.sampled_from(["combine", "sequential"]), st.lists(trees, min_size=2, max_size=5))
schedules = st.tuples(
    st.sampled_from(["none", "round_robin", "affinity", "hash", "dispatch_by", "streams", "stream_by", "symbol"]),
    st.integers(1, 5),
    st.integers(0, 5),
    st.sampled_from([None, 1, 3, 100]),
)


class Tensors:
    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        shapes = {"X": ((20, 31), I32), "Y": ((20, 31), I32), "D": ((4, 6), I32)}
        shapes |= {"L": ((10, 5), F32), "M": ((10, 35), F32)}
        self.arrays = {
            name: rng.integers(-2, 9, shape).astype(dtype.numpy) for name, (shape, dtype) in shapes.items()
        }
        for name, (shape, dtype) in shapes.items():
            setattr(self, name, Tensor(self.arrays[name], shape, dtype))


def call(kind, a, b, c, t, loops):
    """A task on tiles that lie at odd places, overlap, and reach over the end."""
    i = loops[0] if loops else a % 3
    j = loops[1] if len(loops) > 1 else b % 3
    at = i * 2 + b % 3, j * 3 + c % 4
    if kind == "update":
        scalar = [i * 2 + c, c, Symbol("n")][a % 3]
        return task(update, list(loops), {"x": t.X[at[0] : at[0] + 2, at[1] : at[1] + 4], "c": scalar})
    if kind == "line":
        view = t.M[(i + a) % 10, at[1] : at[1] + 5] if a % 2 else t.M[(i + a) % 10][3:8]
        return task(line, [a, *loops], {"x": t.L[(i + b) % 10, 0:5], "out": view, "k": [1.5, Symbol("m")][c % 2]})
    x, y = (t.X, t.Y) if a % 2 else (t.Y, t.X)
    return task(move, [*loops, c], {"x": x[at[0] : at[0] + 4, 0:6], "out": y[at[0] : at[0] + 4, b % 7 : b % 7 + 6]})


def built(tree, t, loops=()):
    kind, *given = tree
    if kind in ("update", "move", "line"):
        return call(kind, *given, t, loops)
    if kind == "load":
        slot, row, col = given
        return slot_load_u64(slot, t.D, row=loops[0] % 4 if loops else row % 4, col=col % 6)
    if kind == "load from":
        name, slot, row, col = given
        return slot_load_u64(slot, getattr(t, name), row=loops[0] if loops else row, col=col)
    if kind == "set":
        return slot_set_u64(*given)
    if kind in ("combine", "sequential"):
        return (combine if kind == "combine" else sequential)(*(built(x, t, loops) for x in given[0]))
    if kind == "cond":
        pred, then, other = given
        return cond(predicate(pred, loops), built(then, t, loops), None if other is None else built(other, t, loops))

    return loop(tree, loops, lambda i: built(given[-1], t, (i, *loops)))


def scheduled(work, schedule):
    policy, workers, word, window = schedule
    if policy == "round_robin":
        work = work.dispatch(DispatchPolicy.round_robin(workers))
    elif policy == "streams":
        work = work.streams(workers + 1)
    elif policy == "stream_by":
        work = work.streams(workers).stream_by(lambda t: t.params[0] + 1)
    elif policy == "symbol":
        work = work.dispatch(DispatchPolicy.affinity(lambda t: t.tags["m"] + t.params[0].cast_u64(), workers))
    elif policy != "none":
        work = work.dispatch(getattr(DispatchPolicy, policy)(lambda t: t.params[word], num_aicpus=workers))
    return work if window is None else work.task_graph(window=TaskWindow(window))


@given(specs=st.lists(st.tuples(programs, schedules), min_size=6, max_size=6), seed=st.integers(0, 99))
@settings(max_examples=2, phases=(Phase.generate,))  # every example is a run of the compiler
def test_random_workloads(specs, seed):
    t = Tensors(seed)
    emissions = [made(scheduled(built(tree, t), schedule)) for tree, schedule in specs]
    compiled = Expanders(emissions)
    inputs = Inputs(symbols=SYMBOLS)
    for k, (e, (_, schedule)) in enumerate(zip(emissions, specs, strict=True)):
        want = expected(e, inputs)
        passes = compiled.run(k, inputs)
        window = schedule[3]
        found = [task for part in passes for task in part]
        if window is None or len(want) <= window:
            assert found == want
            continue
        assert np.bincount([task.round for task in found]).max() <= window
        ends = [[task.level for task in found if task.round == r] for r in range(found[-1].round + 1)]
        assert all(max(before) < min(after) for before, after in zip(ends, ends[1:]))  # all fit into one table
        assert all(len(part) == window for part in passes[:-1])
        assert [without_level(x) for x in found] == [without_level(x) for x in want]


def without_level(task):
    return (task.call, task.kernel, task.target, task.tiles, task.axes, task.scalars)


# ---- expressions ---------------------------------------------------------------------------------------------------


def expressions(i, j):
    """Whatever a key may compute; loops i and j run over small numbers."""
    n, m = symbol_u64("n"), symbol_u64("m")
    return [
        i * 3 - j * 7 + 2,
        -i - 5,
        (i - 4) // 3 * 100 + (i - 4) % 3,
        (j - 3) // (i - 2) + (j - 3) % (i - 2),
        i * 0x7FFFFFFFFFFFFFFF + j * 0x7FFFFFFFFFFFFFF1,
        -((i - 5) * (1 << 62)),
        n * m + 7,
        n - m,
        m // (i.cast_u64()) + m % j.cast_u64(),
        (m << i) ^ (m >> (j + 60)),
        m << 64,
        (i - 3 < n).where(1, 2) + (i - 3 < m).where(10, 20) + (m > j - 5).where(100, 200),
        (i == n) & (j != 2) | ~(i < j),
        (i - 2 == m).where(i, j),
        m & 12 | 3,
        ~m,
        i.cast_bool() & (i // 2).cast_bool(),
        (i > 2).where((j > 1).where(7, 8), -(1 << 63)),
        (n.cast_i64() - 9) % 4,
        (n < 0).where(1, 2) + (n >= 0).where(5, 6) + (i == i).where(3, 4),
    ]


def test_expressions_have_one_meaning():
    """Axis values and a key of every form: what C++ computes is what the simulator does."""
    t = Tensors(0)

    @workload
    def keyed():
        for i, j in P(6, DenseDyn(5), names=["i", "j"]):
            update[(*expressions(i + 0, j + 0),)](x=t.X[0:2, 0:4], c=1)

    def key(task):
        return sum((e.cast_u64() for e in expressions(task.get("i"), task.get("j"))), symbol_u64("n"))

    e, inputs = made(keyed().dispatch(DispatchPolicy.affinity(key, 60_000))), Inputs(symbols=SYMBOLS)
    (found,) = Expanders([e]).run(0, inputs)
    assert found == expected(e, inputs)


# ---- what is refused -----------------------------------------------------------------------------------------------


@kernel
def two(x: In[Tile[2, 4, I32]], y: In[Tile[2, 4, I32]], out: Out[Tile[2, 4, I32]]):
    pto.store(out, x + y)


@kernel
def product(a: In[Tile[16, 16, DType.F16]], b: In[Tile[16, 16, DType.F16]], out: Out[Tile[16, 16, DType.F32]]):
    pto.store(out, pto.matmul(a, b))


def wrong_programs():
    """Name -> (workload, error, task, what was found, inputs)."""
    x, y = Tensor(None, (8, 12), I32), Tensor(None, (3, 8, 12), I32)
    f = Tensor(None, (2, 2, 1 << 20), F32)
    s = Ragged(2, [1, 2])

    def outside(i):
        return task(update, [i], {"x": x[i * 4 : i * 4 + 2, 0:4], "c": 1})

    def third(i):
        return task(update, [i], {"x": y[i, 0:2, 0:4], "c": 1})

    def far(i):
        return task(line, [i], {"x": f[0, 0, i * (1 << 61) : i * (1 << 61) + 5], "out": f[1, 0, 0:5], "k": 1.0})

    wide = np.lib.stride_tricks.as_strided(np.zeros(1, np.int32), (8, 1 << 30), (0, 0))  # 32 GiB, nobody reads them

    def uneven(i):
        return task(two, [i], {"x": x[i * 3 : i * 3 + 2, 0:4], "y": x[0:2, 8:12], "out": y[0, 0:2, 0:4]})

    def clash(i):
        return task(two, [i], {"x": x[0:2, i : i + 4], "y": y[0, 0:2, 0:4], "out": x[0:2, 2:6]})

    def row(i):
        return parallel_for(s[i], lambda j: task(update, [i, j], {"x": y[i, 0:2, 0:4], "c": 1}))

    return {
        "outside": (parallel_for(DenseDyn(4), outside), "kOutOfTensor", 3, 12, {}),
        "index": (parallel_for(DenseDyn(3), third), "kOutOfTensor", 3, 3, {"sizes": [5]}),
        "overflow": (parallel_for(DenseDyn(9), far), "kOutOfTensor", 1, 1 << 61, {}),
        "uneven": (parallel_for(DenseDyn(3), uneven), "kDisagree", 2, 2, {"arrays": {0: np.zeros((7, 12), np.int32)}}),
        "wide": (parallel_for(2, outside), "kTooFarApart", 0, 1 << 32, {"arrays": {0: wide}}),
        "clash": (parallel_for(3, clash), "kOverlap", 0, 2, {}),
        "row": (parallel_for(DenseDyn(3), row), "kNoRow", None, 2, {}),
        "window": (
            parallel_for(3, third).task_graph(window=TaskWindow(31, "bytes")), "kWindowTooSmall", 0, 32, {},
        ),
        "abort": (
            parallel_for(3, third).task_graph(window=TaskWindow(2, mode=WindowMode.ABORT)), "kWindowFull", 2, 2, {},
        ),
    }  # fmt: skip


def test_what_the_generator_refuses():
    """An error with its task and operand, before anything is written to the table for it."""
    programs = wrong_programs()
    emissions = {name: made(program[0]) for name, program in programs.items()}
    compiled = Expanders(list(emissions.values()))
    for k, (name, (_, error, number, found, changed)) in enumerate(programs.items()):
        e = emissions[name]
        arrays = [changed.get("arrays", {}).get(t.number, t.tensor.array()) for t in e.tensors]
        with pytest.raises(Refused) as refused:
            compiled.run(k, Inputs(sizes=changed.get("sizes"), arrays=arrays))
        assert refused.value.error == error, name
        assert number is None or refused.value.task == number, name
        assert found is None or refused.value.found == found, name


STEAL = DispatchPolicy.work_steal(2)
REFUSED = {
    "DispatchPolicy.work_steal": lambda w: w.dispatch(STEAL),
    "TimingPolicy.batched": lambda w: w.timing(TimingPolicy.batched(2)),
    "TimingPolicy.rate_limit": lambda w: w.timing(TimingPolicy.rate_limit(5)),
    "TimingPolicy.interleaved": lambda w: w.timing(TimingPolicy.interleaved(2)),
    "BENCHMARK": lambda w: w.task_graph(window=TaskWindow(3, mode=WindowMode.BENCHMARK)),
    "Pools.by_exec_unit": lambda w: w.task_graph(pools=Pools.by_exec_unit()),
    "Pools.custom": lambda w: w.task_graph(pools=Pools.custom(lambda t: 0)),
    "ReadyPolicy.priority": lambda w: w.task_graph(ready=ReadyPolicy.priority(lambda t: t.params[0])),
    "ReadyPolicy.work_steal": lambda w: w.task_graph(ready=ReadyPolicy.work_steal()),
    "StartPolicy.threshold": lambda w: w.task_graph(start=StartPolicy.threshold(3)),
    "gen_cycles": lambda w: w.task_graph(gen_cycles=5),
    "Machine slow": lambda w: w.machine(dataclasses.replace(A2A3, name="slow")),
    "TracePolicy.cycles": lambda w: w.task_graph(trace=TracePolicy.cycles(lambda t: 3)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_directives_that_the_device_cannot_keep(name):
    x = Tensor(None, (2, 4), I32)
    with pytest.raises(ScheduleError, match=name.replace(".", r"\.")) as refused:
        made(REFUSED[name](task(update, [0], {"x": x, "c": 1})))
    assert "Use" in str(refused.value) or "use" in str(refused.value)
    assert refused.value.primitive


def test_the_machine_that_is_this_one():
    x = Tensor(None, (2, 4), I32)
    made(task(update, [0], {"x": x, "c": 1}).machine("a2a3"))
    made(task(update, [0], {"x": x, "c": 1}).machine(A2A3))


def test_columns_have_to_lie_next_to_each_other():
    x = Tensor(None, (4, 6, 3), I32)
    work = task(move, [0], {"x": x[:, :, 0], "out": x[:, :, 1]})
    with pytest.raises(CompileError, match="columns of x .* lie 3 elements apart"):
        made(work)


def test_shared_memory():
    a = np.zeros((4, 6), np.int32)
    x, y = Tensor(a, (4, 6), I32), Tensor(a, (4, 6), I32)
    with pytest.raises(CompileError, match="share memory"):
        made(task(move, [0], {"x": x, "out": y}))


# ---- edges ---------------------------------------------------------------------------------------------------------


def test_explicit_edges():
    t = Tensors(0)

    @workload
    def chained():
        for i in P(3):
            first = move[i](x=t.X[i * 4 : i * 4 + 4, 0:6], out=t.Y[i * 4 : i * 4 + 4, 0:6])
            update[i](x=t.X[0:2, 20:24], c=1)
            update[i](x=t.X[4 * i : 4 * i + 2, 8:12], c=2, after=[first])

    e = made(chained().task_graph(deps=Deps.explicit()))
    (found,) = Expanders([e]).run(0)
    assert found == expected(e)
    assert [task.level for task in found if task.call == 2] == [1, 1, 1]
    with pytest.raises(ScheduleError, match=r"after=.*Deps\.explicit"):
        made(chained())


def test_edges_from_the_branch_that_was_not_taken():
    t = Tensors(0)

    @workload
    def some():
        for i in P(4):
            with P.when(i % 2 == 0):
                first = move[i](x=t.X[i * 4 : i * 4 + 4, 0:6], out=t.Y[i * 4 : i * 4 + 4, 0:6])
            update[i](x=t.X[4 * i : 4 * i + 2, 8:12], c=2, after=[first])

    (found,) = Expanders([e := made(some().task_graph(deps=Deps.explicit()))]).run(0)
    assert found == expected(e)
    assert [task.level for task in found if task.call == 1] == [1, 0, 1, 0]


def test_a_window_of_entries_counts_tiles_that_have_elements():
    t = Tensors(0)

    @workload
    def partial():
        for i in P(4):
            move[i](x=t.X[i * 6 : i * 6 + 4, 0:6], out=t.Y[i * 6 : i * 6 + 4, 0:6])

    e = made(partial().task_graph(window=TaskWindow(4, "entries")))
    arrays = [np.zeros((18, 31), np.int32) for _ in e.tensors]  # the last task has none
    (found,) = Expanders([e]).run(0, Inputs(arrays=arrays))
    assert [task.round for task in found] == [0, 0, 1, 1]


def test_text_does_not_grow_with_tasks():
    """A million tasks are a loop; a thousand unrolled calls share one function."""
    t = Tensors(0)

    @workload
    def loops(n):
        for i in P(n):
            update[i](x=t.X[0:2, 0:4], c=i)

    @workload
    def unrolled(n):
        for i in range(n):
            update[i](x=t.X[i % 19 : i % 19 + 2, 0:4], c=i)

    texts = [expander.expand_aicpu(made(loops(n))) for n in (70_707, 90_909)]
    assert texts[0].replace("70707", "90909").replace("70706", "90908") == texts[1]
    assert len(texts[0]) < 3000
    text = expander.expand_aicpu(made(unrolled(1000)))
    assert text.count("bool Task") == 1
    assert len(text) < 100_000
    assert max(map(len, text.splitlines())) <= 90


def test_calls_that_share_a_function():
    """Numbers that come back in other places of the call are given in the function's order."""
    t = Tensors(0)

    @workload
    def unrolled():
        for a, b, c in ((1, 5, 9), (2, 5, 4), (0, 3, 7)):
            update[a, b, a, c, b, a](x=t.X[a : a + 2, c : c + 4], c=b)

    e = made(unrolled())
    assert expander.expand_aicpu(e).count("bool Task") == 1
    (found,) = Expanders([e]).run(0)
    assert found == expected(e)
    assert [task.axes for task in found] == [(1, 5, 1, 9, 5, 1), (2, 5, 2, 4, 5, 2), (0, 3, 0, 7, 3, 0)]


def test_names_of_the_users_stay_out_of_the_text():
    evil = 'x; } int main() { system("rm"); } //\n*/ #include <evil> \\'
    x = Tensor(None, (8, 8, 12), I32)

    @workload
    def work():
        for i in P(DenseDyn(3), names=[evil]):
            update[i, evil](x=x[i, 0:2, 0:4], c=Symbol(evil))

    e = made(work().named(evil).dispatch(DispatchPolicy.affinity(lambda t: t.tags[evil], 3)))
    inputs = Inputs(symbols={evil: 5})
    (found,) = Expanders([e]).run(0, inputs)
    assert found == expected(e, inputs)


# ---- a text to read ------------------------------------------------------------------------------------------------

GOLDEN = Path(__file__).parents[1] / "golden" / "ascend"


@pytest.mark.parametrize("name, write", [("expand.aicpu", expander.expand_aicpu), ("worker.asc", worker.worker_asc)])
def test_golden(name, write):
    text, path = write(made(decode())), GOLDEN / name
    if os.environ.get("PTO_WSP_REWRITE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def test_the_golden_one_runs():
    e = made(decode())
    (found,) = Expanders([e]).run(0, Inputs(symbols={"scale": 0x3F800000}, arrays=[
        np.array([[1], [0], [1], [0]], np.int32) if t.dtype is I32 else t.tensor.array() for t in e.tensors
    ]))  # fmt: skip
    assert [task.axes for task in found][:6] == [(0, 0, 4), (0, 0, 1), (0, 1, 4), (0, 1, 1), (0,), (1, 0)]
