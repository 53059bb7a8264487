"""The task generator, compiled for this machine, against the simulator's expansion: field by field, in program order."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pto_wsp import (
    Dense,
    DenseDyn,
    Deps,
    DispatchPolicy,
    DType,
    In,
    InOut,
    Out,
    P,
    Ragged,
    Scalar,
    Sparse,
    Symbol,
    TaskWindow,
    Tensor,
    Tile,
    WindowMode,
    combine,
    cond,
    for_each,
    kernel,
    parallel_for,
    pto,
    select,
    sequential,
    slot_load_u64,
    slot_set_u64,
    task,
    workload,
)
from pto_wsp.ascend.emission import emission
from pto_wsp.errors import CompileError, ScheduleError
from pto_wsp.schedule import Schedule
from pto_wsp.scalar_expr import slot_bool, slot_i64, slot_u64, symbol_u64
from tests.ascend.device import Expanders, Inputs, Refused, expected

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


# ---- random workloads --------------------------------------------------------------------------------------------------

SLOTS = (0, 7, 255)
slots = st.sampled_from(SLOTS)
rows = st.lists(st.lists(st.integers(0, 9), max_size=3), min_size=1, max_size=3)
predicates = st.one_of(
    st.tuples(st.sampled_from(["remainder", "bool", "signed"]), slots, st.integers(1, 4)),
    st.tuples(st.just("loop"), st.integers(1, 3)),
    st.tuples(st.just("symbol"), st.integers(3, 7)),
    st.tuples(st.just("constant"), st.sampled_from([True, False, 0, 3])),
)
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
        st.tuples(st.just("cond"), predicates, child, st.one_of(st.none(), child)),
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
        shapes = {"X": ((20, 31), I32), "Y": ((20, 31), I32), "L": ((10, 5), F32), "M": ((10, 34), F32), "D": ((4, 6), I32)}
        self.arrays = {
            name: rng.integers(-2, 9, shape).astype(dtype.numpy) for name, (shape, dtype) in shapes.items()
        }
        for name, (shape, dtype) in shapes.items():
            setattr(self, name, Tensor(self.arrays[name], shape, dtype))


def predicate(pred, loops):
    kind, *given = pred
    if kind == "remainder":
        return slot_u64(given[0]) % (given[1] + 1) == 0
    if kind == "bool":
        return slot_bool(given[0])
    if kind == "signed":
        return slot_i64(given[0]) < given[1]
    if kind == "loop":
        return loops[0] % (given[0] + 1) == 0 if loops else True
    return symbol_u64("n") > given[0] if kind == "symbol" else given[0]


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


def pattern(rows):
    ends = np.cumsum([0, *(len(row) for row in rows)]) + 1  # the first entry of indices belongs to no row
    return Sparse(len(rows), ends.tolist(), [99, *(e for row in rows for e in row)])


def built(tree, t, loops=()):
    kind, *given = tree
    if kind in ("update", "move", "line"):
        return call(kind, *given, t, loops)
    if kind == "load":
        slot, row, col = given
        return slot_load_u64(slot, t.D, row=loops[0] % 4 if loops else row % 4, col=col % 6)
    if kind == "set":
        return slot_set_u64(*given)
    if kind in ("combine", "sequential"):
        return (combine if kind == "combine" else sequential)(*(built(x, t, loops) for x in given[0]))
    if kind == "cond":
        pred, then, other = given
        return cond(predicate(pred, loops), built(then, t, loops), None if other is None else built(other, t, loops))

    def body(i):
        return built(given[-1], t, (i, *loops))

    if kind == "list":
        return select(given[0], body)
    if kind == "sparse":
        return select(pattern(given[0]), body)
    if kind == "sparse row":
        axis = pattern(given[0])
        return select(axis[loops[0] % len(given[0])] if loops else axis[0], body)
    size = given[0]
    if kind.startswith("ragged"):
        kind, lengths = given[0], given[1]
        size = Ragged(len(lengths), lengths)
        if tree[0] == "ragged row":
            size = size[loops[0] % len(lengths)] if loops else size[0]
    elif given[1]:
        size = DenseDyn(size)
    return (parallel_for if kind == "parallel" else for_each)(size, body)


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


@given(specs=st.lists(st.tuples(programs, schedules), min_size=8, max_size=8), seed=st.integers(0, 99))
@settings(max_examples=3, phases=(Phase.generate,))  # every example is a run of the compiler
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
        assert all(len(part) <= window for part in passes)
        assert all(len(part) == window for part in passes[:-1])
        assert [without_level(x) for x in found] == [without_level(x) for x in want]


def without_level(task):
    return (task.call, task.kernel, task.target, task.tiles, task.axes, task.scalars)
