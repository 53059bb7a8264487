"""Native expansion against a walk in plain Python: every row, every error, at the same task."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pto_wsp import Dense, DenseDyn, DType, In, InOut, Out, Scalar, Symbol, Tensor, Tile, kernel, pto
from pto_wsp.csp import Channel
from pto_wsp.errors import CompileError, ExecutionError, RegionError
from pto_wsp.lower import expand as expand_module
from pto_wsp.lower import expressions
from pto_wsp.lower.expand import LONGEST_AXIS, Stopped, expand
from pto_wsp.lower.expressions import symbol_word
from pto_wsp.lower.tasks import ENTER_PARALLEL, ENTER_SEQUENTIAL, EXIT, TaskTable
from pto_wsp.scalar_expr import LoopVar, TaskExpr, as_expr, axis, fnv1a_64, symbol_u64, task_param
from pto_wsp.trace.tree import Block, Cond, Loop, Send, TaskCall, WorkloadTree
from tests.lower.walked import LoadOutside, NoRow, Outside, Walk, signed

# ---- kernels and helpers ---------------------------------------------------------------------------------------------


def scale_kernel(rows, cols, dtype=DType.F32):
    @kernel
    def scale(x: In[Tile[rows, cols, dtype]], out: Out[Tile[rows, cols, dtype]]):
        pto.store(out, pto.add(x, x))

    return scale


def scalar_kernel(dtype):
    @kernel
    def shift(x: InOut[Tile[1, 1, DType.F32]], s: Scalar[dtype]):
        pto.store(x, x)

    return shift


SCALE = scale_kernel(4, 8)
ONE = scale_kernel(1, 1)


def tensor(*shape, dtype=DType.F32):
    return Tensor(np.zeros(shape, dtype.numpy), shape, dtype)


def loop(axis_, body, name="i", parallel=True):
    """A loop; body is a function of its variable."""
    var = LoopVar(name, axis_)
    return Loop(var, axis_, parallel, body(var))


def call(k, x, out, *axes):
    values = tuple(a if isinstance(a, (str, int, float)) else as_expr(a) for a in axes)
    return TaskCall(k, values, (("x", x), ("out", out)))


def inputs_of(expansion, sizes=None, symbols=None):
    arrays = [t.array() for t in expansion.tensors]
    given = {n: (sizes or {}).get(n, n.axis.size) for n in expansion.loops}
    return expansion.inputs(arrays, given, symbols or {})


def rows_of(root, sizes=None, symbols=None, key=None, capacity=None):
    """All rows of a tree, chunk by chunk: (kernel, leaf, tail, cycles, key, axes, args) each."""
    expansion = expand(WorkloadTree("w", root), () if key is None else (key,))
    table = expansion.table() if capacity is None else expansion.table_of(capacity)
    rows = []

    def consume(table: TaskTable):
        assert table.first_task == sum(r["kernel"] >= 0 for r in rows)
        for k in range(table.count):
            what, leaf = int(table.kernel[k]), int(table.leaf[k])
            row = {"kernel": what, "cycles": int(table.cycles[k])}
            if what >= 0:
                use, task = expansion.kernels[what], expansion.calls[leaf].task
                row |= {
                    "call": task,
                    "axes": table.axes[k, : len(task.axes)].tolist(),
                    "args": table.args[k, : use.words].tolist(),
                    "key": int(table.keys[0, k]) if key is not None else 0,
                    "tail": bool(table.tail[k]),
                }
            rows.append(row)

    inputs = inputs_of(expansion, sizes, symbols)
    tasks = expansion.run(inputs, table, consume)
    assert tasks == sum(r["kernel"] >= 0 for r in rows) and len(rows) <= expansion.most_rows(inputs)
    return rows


def tasks_of(*args, **more):
    return [r for r in rows_of(*args, **more) if r["kernel"] >= 0]


def events_of(root):
    """The rows as text: t for a task, ( ) around a parallel block, [ ] around a sequential one."""
    text, closing = "", []
    for row in rows_of(root):
        what = row["kernel"]
        if what == EXIT:
            text += closing.pop()
        elif what < 0:
            closing.append(")" if what == ENTER_PARALLEL else "]")
            text += "(" if what == ENTER_PARALLEL else "["
        else:
            text += "t"
    assert not closing
    return text


def play_events(rows):
    """(ready cycle of each task, completion of all) by a stack machine over the rows, with workers without end."""
    stack, sequential, ready, done, starts = [], False, 0, 0, []

    def ended(end):
        nonlocal ready, done
        done = end if sequential else max(done, end)
        ready = end if sequential else ready

    for row in rows:
        if row["kernel"] == EXIT:
            end = done
            sequential, ready, done = stack.pop()
            ended(end)
        elif row["kernel"] < 0:
            stack.append((sequential, ready, done))
            sequential, done = row["kernel"] == ENTER_SEQUENTIAL, ready
        else:
            starts.append(ready)
            ended(ready + row["cycles"])
    return starts, done


def check(root, sizes=None, symbols=None, key=None, capacity=None):
    """The native rows equal the walked ones, or both refuse the same task."""
    walk = Walk(sizes or {}, symbols or {}, key)
    expected, refused = [], None
    try:
        for row in walk.rows(root):
            expected.append(row)
    except (Outside, LoadOutside, NoRow) as error:
        refused = error
    if isinstance(refused, (LoadOutside, NoRow)):
        what = r"slot_load_u64\(.*read" if isinstance(refused, LoadOutside) else "asks for row"
        with pytest.raises(ExecutionError, match=what):
            rows_of(root, sizes, symbols, key, capacity)
        return None
    if refused:
        with pytest.raises(RegionError) as caught:
            rows_of(root, sizes, symbols, key, capacity)
        assert caught.value.task_id == len(expected)
        return None
    rows = rows_of(root, sizes, symbols, key, capacity)
    found = [r for r in rows if r["kernel"] >= 0]
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected):
        assert {name: mine[name] for name in theirs} == theirs
    end = walk.end(root, 0, iter(expected))
    assert play_events(rows) == ([row["ready"] for row in expected], end)
    return found


# ---- loops -----------------------------------------------------------------------------------------------------------


def test_the_quick_start():
    x, y = tensor(2, 3, 4, 8), tensor(2, 3, 4, 8)
    root = loop(Dense[2](), lambda b: loop(Dense[3](), lambda t: call(SCALE, x[b][t], y[b][t], b, t)))
    found = check(root)
    assert [row["axes"] for row in found] == [[b, t] for b in range(2) for t in range(3)]
    assert {row["cycles"] for row in found} == {3 * 32}
    first, base = found[4]["args"][0], x.array().ctypes.data
    assert first == base + 4 * 32 * 4


def test_no_tasks():
    assert rows_of(Block(())) == []
    assert rows_of(loop(0, lambda i: call(ONE, tensor(1, 1), tensor(1, 1)))) == []
    assert rows_of(loop(1 << 62, lambda i: Block(()))) == []


def test_axes_of_every_kind():
    x = tensor(9, 1, 1)
    for axis_ in (3, Dense[3](), DenseDyn(3), (4, 0, 8)):
        values = axis_ if isinstance(axis_, tuple) else range(3)
        found = check(loop(axis_, lambda i: call(ONE, x[i], x[i], i)))
        assert [row["axes"] for row in found] == [[v] for v in values]


def test_sizes_change_without_compiling():
    x = tensor(9, 1, 1)
    root = loop(DenseDyn(2), lambda i: call(ONE, x[i], x[i], i))
    expansion = expand(WorkloadTree("w", root))
    table = expansion.table()
    for size in (0, 1, 9, -5):
        tasks = expansion.run(inputs_of(expansion, {root: size}), table, lambda t: None)
        assert tasks == max(size, 0)
    with pytest.raises(RegionError, match="index 9 in dimension 0"):
        expansion.run(inputs_of(expansion, {root: 10}), table, lambda t: None)
    with pytest.raises(ExecutionError, match=r"at most 2\*\*40"):
        inputs_of(expansion, {root: LONGEST_AXIS + 1})


def test_arrays_change_without_compiling():
    x = tensor(3, 4, 8)
    root = loop(DenseDyn(3), lambda i: call(SCALE, x[i], x[i], i))
    expansion = expand(WorkloadTree("w", root))
    for array in (np.zeros((5, 4, 8), np.float32), np.zeros((8, 4, 6), np.float32).T[::-1]):
        x.data = array
        assert expansion.run(inputs_of(expansion), expansion.table(), lambda t: None) == 3
    x.data = np.zeros((2, 4, 8), np.float32)
    with pytest.raises(RegionError):
        expansion.run(inputs_of(expansion), expansion.table(), lambda t: None)


@pytest.mark.parametrize("capacity", [1, 2, 3, 7, 1000])
def test_chunks(capacity):
    x = tensor(5, 4, 1, 1)
    root = loop(5, lambda i: loop(4, lambda j: call(ONE, x[i][j], x[i][j], i, j), "j", False), "i")
    check(root, capacity=capacity)


def test_what_a_consumer_raises_ends_the_run():
    x = tensor(9, 1, 1)
    expansion = expand(WorkloadTree("w", loop(9, lambda i: call(ONE, x[i], x[i]))))
    seen = []

    def consume(table):
        seen.append(table.count)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        expansion.run(inputs_of(expansion), expansion.table_of(3), consume)
    assert seen == [3, 3]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_on_the_way_into_a_callback_is_not_lost(monkeypatch):
    """ctypes prints what is raised before a callback's first line, and native code goes on with some answer."""
    x = tensor(9, 1, 1)
    expansion = expand(WorkloadTree("w", loop(9, lambda i: call(ONE, x[i], x[i]))))
    tell, told, seen = expand_module._Pass.tell, [], []

    def interrupted(self, what, rows):
        told.append(rows)
        if len(told) == 2:
            raise KeyboardInterrupt
        return tell(self, what, rows)

    monkeypatch.setattr(expand_module._Pass, "tell", interrupted)
    with pytest.raises(KeyboardInterrupt):
        expansion.run(inputs_of(expansion), expansion.table_of(3), lambda table: seen.append(table.count))
    assert told == [3, 3] and seen == [3]


def test_stop():
    x = tensor(1, 1)
    expansion = expand(WorkloadTree("w", loop(1 << 39, lambda i: call(ONE, x, x))))
    stop = np.zeros(1, np.int64)

    def consume(table):
        stop[0] = 1

    with pytest.raises(Stopped):
        expansion.run(inputs_of(expansion), expansion.table(), consume, stop)


def test_stop_ends_loops_without_tasks():
    x = tensor(1, 1)
    inner = DenseDyn(0)
    root = loop(1 << 39, lambda i: loop(inner, lambda j: call(ONE, x, x)))
    expansion = expand(WorkloadTree("w", root))
    stop = np.ones(1, np.int64)
    with pytest.raises(Stopped):
        expansion.run(inputs_of(expansion), expansion.table(), lambda t: None, stop)


# ---- structure -------------------------------------------------------------------------------------------------------


def leaf():
    x = tensor(1, 1)
    return call(ONE, x, x)


def par(*nodes):
    return Block(nodes, True)


def seq(*nodes):
    return Block(nodes, False)


@pytest.mark.parametrize(
    "text, make",
    [
        ("t", lambda t: t),
        ("tt", lambda t: par(t, t)),
        ("ttt", lambda t: par(t, par(t, t))),
        ("[tt]", lambda t: seq(t, t)),
        ("t", lambda t: seq(t)),
        ("t", lambda t: seq(par(seq(t)))),
        ("[ttt]", lambda t: seq(t, seq(t, t))),
        ("[t(tt)]", lambda t: seq(t, par(t, t))),
        ("[t(tt)t]", lambda t: seq(t, par(t, t), t)),
        ("[tt][tt]", lambda t: loop(2, lambda i: seq(t, t))),
        ("[tttt]", lambda t: loop(2, lambda i: seq(t, t), parallel=False)),
        ("[(tt)(tt)]", lambda t: loop(2, lambda i: par(t, t), parallel=False)),
        ("tttt", lambda t: loop(2, lambda i: par(t, t))),
        ("[tt][tt]", lambda t: loop(2, lambda i: loop(2, lambda j: t, parallel=False))),
        ("[(tt)(tt)]", lambda t: loop(2, lambda i: loop(2, lambda j: t), parallel=False)),
        ("t", lambda t: loop(1, lambda i: t, parallel=False)),
        ("tt", lambda t: loop(1, lambda i: par(t, t), parallel=False)),
        ("[tt]", lambda t: par(seq(t, t), loop(0, lambda i: t))),
        ("t", lambda t: seq(t, loop(0, lambda i: t), par())),
    ],
)
def test_events_where_nesting_alternates(text, make):
    root = make(leaf())
    assert events_of(root) == text
    check(root)


@st.composite
def structures(draw, depth=3):
    kind = draw(st.sampled_from(["task", "task", "loop", "block"])) if depth else "task"
    if kind == "task":
        return call(*draw(st.sampled_from([(ONE, X1, X1), (SCALE, X4, X4)])))
    parallel = draw(st.booleans())
    if kind == "loop":
        body = draw(structures(depth - 1))
        size = draw(st.integers(0, 3))
        return loop(draw(st.sampled_from([size, DenseDyn(size), Dense[size]()])), lambda i: body, parallel=parallel)
    return Block(tuple(draw(st.lists(structures(depth - 1), max_size=6))), parallel)


X1, X4 = tensor(1, 1), tensor(4, 8)


@given(structures(), st.sampled_from([1, 3, 1000]))
def test_random_structures(root, capacity):
    check(root, capacity=capacity)


@pytest.mark.parametrize("parallel", [True, False])
def test_blocks_in_blocks_in_blocks(parallel):
    """What `w = sequential(w, task(...))` in a Python loop makes."""
    x = tensor(3000, 1, 1)
    root = call(ONE, x[0], x[0], 0)
    for i in range(1, 3000):
        root = Block((root, call(ONE, x[i], x[i], i)), parallel)
    found = rows_of(root)
    assert [row["axes"] for row in found if row["kernel"] >= 0] == [[i] for i in range(3000)]
    assert len(found) == 3000 + (0 if parallel else 2)


def test_unrolled_calls_become_a_loop():
    """A Python loop over calls must not make code for each of them."""
    x = tensor(300, 4, 8)
    nodes = [call(SCALE, x[i], x[299 - i], i, f"tag{i}") for i in range(300)]
    check(par(*nodes))
    few, many = (expand(WorkloadTree("w", par(*nodes[:n]))).ir for n in (8, 300))
    assert len(many.splitlines()) == len(few.splitlines())


def test_unrolled_loops_and_mixed_neighbours():
    x, y = tensor(20, 6, 1, 1), tensor(20, 6, 4, 8)
    nodes = []
    for i in range(20):
        nodes.append(loop(6, lambda j, i=i: par(*[call(ONE, x[i][j], x[19 - i][k], j, k) for k in range(5)]), "j"))
        if i % 7 == 3:
            nodes.append(call(SCALE, y[i][0], y[i][1]))
    check(par(*nodes))
    check(seq(*nodes), capacity=3)


# ---- indices ---------------------------------------------------------------------------------------------------------


def test_index_expressions():
    x = tensor(40, 1, 1)
    for index in (
        lambda i: i + 3, lambda i: 2 * i, lambda i: 39 - i, lambda i: i * i, lambda i: i // 2, lambda i: i % 3,
        lambda i: (i > 2).where(i, 0), lambda i: axis("i") + 1, lambda i: symbol_u64("n") + 2, lambda i: -(0 - i),
        lambda i: (i.cast_u64() << 2).cast_i64(), lambda i: as_expr(7), lambda i: i + symbol_u64("n").cast_i64(),
    ):  # fmt: skip
        assert check(loop(6, lambda i, index=index: call(ONE, x[index(i)], x[i])), symbols={"n": 5})


@pytest.mark.parametrize(
    "index",
    [
        lambda i: i + 5,
        lambda i: i - 1,
        lambda i: -i - 1,
        lambda i: i * (1 << 40),
        lambda i: i * (1 << 62) * 4,  # wraps to 0
        lambda i: (i + (1 << 62)) * 4,
        lambda i: symbol_u64("big") + i,
        lambda i: symbol_u64("big") * i,
        lambda i: -(i + (-(1 << 62))) + (1 << 62) - 1 + i,
    ],
)
def test_indices_outside_are_an_error_that_names_the_task(index):
    x = tensor(5, 1, 1)
    root = loop(5, lambda i: call(ONE, x[i], x[index(i)], i, "tag"))
    assert check(root, symbols={"big": (1 << 64) - 3}) is None
    with pytest.raises(RegionError) as caught:
        rows_of(root, symbols={"big": (1 << 64) - 3})
    error = caught.value
    assert error.tensor == "out" and error.kernel_name == "scale"
    assert f"task {error.task_id}, scale[{error.axes[0]}, 'tag']: out" in str(error)


def test_hashes_may_wrap():
    """Only sums and products that lead to the index itself must not wrap: the operand of % may."""
    x = tensor(8, 1, 1)
    assert check(loop(6, lambda i: call(ONE, x[(i + 1).cast_u64() * 0x9E3779B97F4A7C15 % 8], x[i])), symbols={})


def test_huge_symbols():
    x = tensor(8, 1, 1)
    root = call(ONE, x[symbol_u64("n")], x[0])
    for n in (0, 7):
        assert check(root, symbols={"n": n})
    for n in (8, 1 << 63, (1 << 64) - 1):
        assert check(root, symbols={"n": n}) is None


def test_ranges_and_partial_tiles():
    x, y = tensor(10, 8), tensor(10, 8)
    found = check(loop(3, lambda i: call(SCALE, x[i * 4 : (i + 1) * 4], y[i * 4 : (i + 1) * 4], i)))
    assert [row["args"][3:5] for row in found] == [[4, 8], [4, 8], [2, 8]]
    assert [row["tail"] for row in found] == [False, False, True]
    assert [row["cycles"] for row in found] == [96, 96, 48]


def test_a_range_may_begin_at_the_end_but_not_beyond():
    x = tensor(8, 8)
    found = check(loop(3, lambda i: call(SCALE, x[i * 4 : i * 4 + 4], x[i * 4 : i * 4 + 4])))
    assert found[2]["args"][3] == 0 and found[2]["cycles"] == 0
    assert check(loop(4, lambda i: call(SCALE, x[i * 4 : i * 4 + 4], x[i * 4 : i * 4 + 4]))) is None
    assert check(loop(4, lambda i: call(SCALE, x[i * -4 : i * -4 + 4], x[:4]))) is None


def test_partial_tiles_must_agree():
    x, y = tensor(4, 8), tensor(3, 8)
    with pytest.raises(RegionError, match="partial tiles do not agree: (x|out) has [34] valid rows"):
        rows_of(call(SCALE, x, y))


def test_costs_of_partial_tiles():
    """execution.md 5: every cost uses the valid extents."""

    @kernel
    def sums(x: In[Tile[6, 10, DType.F32]], out: Out[Tile[6, 1, DType.F32]]):
        pto.store(out, pto.rowsum(x))

    @kernel
    def product(a: In[Tile[6, 10, DType.F32]], b: In[Tile[10, 8, DType.F32]], out: Out[Tile[6, 8, DType.F32]]):
        pto.store(out, pto.matmul(a, b))

    (row,) = check(TaskCall(sums, (), (("x", tensor(4, 7)), ("out", tensor(4, 1)))))
    assert row["cycles"] == 28 + 4 + 4
    (row,) = check(TaskCall(product, (), (("a", tensor(4, 7)), ("b", tensor(7, 5)), ("out", tensor(4, 5)))))
    assert row["cycles"] == 28 + 35 + 140 + 20


def test_nested_views_stay_inside_the_outer_one():
    x = tensor(32, 8)

    def inner(i, j):
        return x[i * 8 : i * 8 + 8][j * 4 : j * 4 + 4]

    root = loop(4, lambda i: loop(2, lambda j: call(SCALE, inner(i, j), inner(i, j), i, j), "j"))
    assert len(check(root)) == 8
    assert check(loop(4, lambda i: loop(4, lambda j: call(SCALE, inner(i, j), inner(i, j), i, j), "j"))) is None


def test_views_of_lower_rank():
    row, column, number = scale_kernel(1, 8), scale_kernel(4, 1), ONE
    x, y = tensor(4, 8), tensor(8, 4)
    check(loop(4, lambda i: call(row, x[i], x[i])))
    check(loop(8, lambda i: call(column, y[i], y[i])))
    check(loop(4, lambda i: call(number, x[i, i], x[i, i])))


def test_leading_dimensions_of_one():
    x = tensor(1, 3, 4, 8)
    found = check(loop(3, lambda i: call(SCALE, x[:, i], x[:, i : i + 1])))
    assert len(found) == 3


@pytest.mark.parametrize("view", [lambda: tensor(8), lambda: tensor(3, 4, 8), lambda: tensor(4, 8)[0, 0]])
def test_views_that_do_not_fit(view):
    with pytest.raises(CompileError, match="does not fit"):
        expand(WorkloadTree("w", call(SCALE, view(), tensor(4, 8))))


def test_wrong_arguments():
    with pytest.raises(CompileError, match="the tensor holds f16"):
        expand(WorkloadTree("w", call(SCALE, tensor(4, 8, dtype=DType.F16), tensor(4, 8))))
    with pytest.raises(CompileError, match="needs a Tensor"):
        expand(WorkloadTree("w", call(SCALE, 3, tensor(4, 8))))


def test_arrays_of_any_strides():
    base = np.zeros((6, 24, 40), np.float32)
    for array in (base[:, ::2, ::3], base[::-1, ::-1, ::-1], base.transpose(2, 0, 1), base.T, base[:, 5:20, 7:]):
        x = Tensor(array, array.shape, DType.F32)
        i, j = LoopVar("i", array.shape[0]), LoopVar("j", array.shape[1] // 4 + 1)
        tile = x[i, j * 4 : j * 4 + 4]
        check(Loop(i, i.axis, True, Loop(j, j.axis, True, call(SCALE, tile, tile))))


def test_broadcast_inputs():
    x = Tensor(np.broadcast_to(np.float32(2), (5, 4, 8)), (5, 4, 8), DType.F32)
    assert check(loop(5, lambda i: call(SCALE, x[i], tensor(4, 8))))[0]["args"][1:3] == [0, 0]


def test_empty_arrays():
    x = tensor(0, 8)
    (row,) = check(call(SCALE, x, x))
    assert row["args"][3:5] == [0, 8] and row["cycles"] == 0


# ---- random views ----------------------------------------------------------------------------------------------------


@st.composite
def positions(draw, variables, size):
    """An index of a dimension: often inside, sometimes not."""
    var = draw(st.sampled_from(variables))
    shift = draw(st.one_of(st.integers(-1, size), st.just(0)))
    return draw(
        st.sampled_from([
            var, var + shift, var * draw(st.integers(-1, 3)) + shift, var // 2, var % max(size, 1),
            (var < shift).where(var, shift), size - 1 - var, as_expr(shift),
        ])
    )  # fmt: skip


@st.composite
def views(draw, variables):
    """A tensor with odd strides, and a view of it that suits a 4x8 tile."""
    rank = draw(st.integers(2, 4))
    shape = [draw(st.integers(0, 9)) for _ in range(rank)]
    array = np.zeros([2 * n + 3 for n in shape], np.float32)
    array = array[tuple(slice(1, 1 + 2 * n, 2) if draw(st.booleans()) else slice(1, 1 + n) for n in shape)]
    array = array.transpose(draw(st.permutations(range(rank))))
    array = array[tuple(slice(None, None, draw(st.sampled_from([1, -1]))) for _ in shape)]
    view = Tensor(array, array.shape, DType.F32)
    kept = set(draw(st.permutations(range(rank)))[:2])
    items = []
    for d in range(rank):
        at = draw(positions(variables, array.shape[d]))
        if d not in kept:
            items.append(at)
        elif draw(st.booleans()):
            items.append(slice(None))
        else:
            items.append(slice(at, at + draw(st.integers(1, 9))))
    return view, tuple(items)


@given(data=st.data())
def test_random_views(data):
    i, j = LoopVar("i", 3), LoopVar("j", DenseDyn(2))
    outer = data.draw(views([i, j]))
    inner = data.draw(views([i, j]))
    try:
        x, out = outer[0][outer[1]], inner[0][inner[1]]
    except (IndexError, ValueError):
        return  # a constant index outside, refused when the view was made
    copy = scale_free()
    body = TaskCall(copy, (as_expr(i), as_expr(j)), (("x", x), ("out", out)))
    root = Loop(i, 3, True, Loop(j, j.axis, False, body))
    size = data.draw(st.integers(0, 4))
    check(root, {root.body: size}, capacity=data.draw(st.sampled_from([2, 1000])))


def scale_free():
    """A kernel whose tiles do not have to agree: it stores what it loads from each."""

    @kernel
    def both(x: InOut[Tile[4, 8, DType.F32]], out: InOut[Tile[4, 8, DType.F32]]):
        pto.store(x, x)
        pto.store(out, out)

    return both


# ---- scalars, axis values, keys --------------------------------------------------------------------------------------


NUMBERS = {
    DType.F32: [0.0, -0.0, 1.5, math.inf, math.nan, 1e-45, 3],
    DType.F64: [0.1, -math.inf, 1e300],
    DType.F16: [0.1, 65519.0, 1e9, -6e-8],
    DType.BF16: [0.1, 3e38],
    DType.I8: [-128, 127, 2.9, -2.9, True],
    DType.I32: [-(2**31), 7],
    DType.I64: [-(2**63), 2**63 - 1],
    DType.U8: [255],
    DType.U32: [2**32 - 1],
    DType.U64: [2**64 - 1, 0],
}


@pytest.mark.parametrize("dtype, number", [(d, n) for d, numbers in NUMBERS.items() for n in numbers], ids=str)
def test_numbers_as_scalars(dtype, number):
    root = TaskCall(scalar_kernel(dtype), (), (("x", X1), ("s", number)))
    (row,) = tasks_of(root)
    with np.errstate(over="ignore"):
        bits = np.array([number], np.float64 if dtype.is_float else object).astype(dtype.numpy)
    assert np.int64(row["args"][5]).tobytes()[: dtype.itemsize] == bits.tobytes()


@pytest.mark.parametrize(
    "dtype, number", [(DType.I32, 2**40), (DType.U8, -1), (DType.I8, 128), (DType.U64, 2**64)], ids=str
)
def test_numbers_that_do_not_fit(dtype, number):
    with pytest.raises(CompileError, match=f"does not fit {dtype.value}"):
        expand(WorkloadTree("w", TaskCall(scalar_kernel(dtype), (), (("x", X1), ("s", number)))))


@pytest.mark.parametrize("dtype", list(DType), ids=str)
def test_loop_variables_and_expressions_as_scalars(dtype):
    values = (0, 1, 2, 7, 255, 256, 1023, 2049, 65519, 65520, 16777217, 100000, 2**39)
    k = scalar_kernel(dtype)
    for make in (lambda i: as_expr(i), lambda i: as_expr(i - 3000), lambda i: i > 100, lambda i: -as_expr(i)):
        root = loop(values, lambda i, make=make: TaskCall(k, (), (("x", X1), ("s", make(i)))))
        check(root)


@pytest.mark.parametrize("dtype", list(DType), ids=str)
@pytest.mark.parametrize("word", [0, 2**32 - 1, 2**40 + 3, 2**63, int(np.float32(2.75).view(np.uint32))])
def test_symbols_as_scalars(dtype, word):
    root = TaskCall(scalar_kernel(dtype), (), (("x", X1), ("s", Symbol("n"))))
    (row,) = tasks_of(root, symbols={"n": word})
    assert row["args"][5] == signed(symbol_word(word, dtype))
    if not np.isnan(np.uint32(word % 2**32).view(np.float32)):
        check(root, symbols={"n": word})


def test_axis_values():
    x = tensor(3, 1, 1)
    root = loop(3, lambda i: call(ONE, x[i], x[i], 5, -1, True, 2.9, "tag", i, i * 2 + 1, i > 1))
    found = check(root)
    assert found[2]["axes"] == [5, -1, 1, 2, signed(fnv1a_64("tag")), 2, 5, 1]


KEYS = [
    lambda t: t.get("i"),
    lambda t: -t.get("j") - 3,
    lambda t: t.get("i") % 2 + t.get("missing", 7),
    lambda t: t.get("missing"),
    lambda t: (t.get("i") > 1).where(5, t.get("j")),
    lambda t: t.get("i") > 1,
    lambda t: t.params[0] * 10 + t.params[1],
    lambda t: t.params[2] * 1000 + t.params[3] + t.params[4] * 7 + t.params[5],
    lambda t: t.params[6] + t.params[7],
    lambda t: (t.params[1].cast_u64() >> 2) ^ t.tags["salt"],
    lambda t: t.get("i") // (t.get("j") - 1),
    lambda t: t.get("i") % (t.get("j") - 1),
    lambda t: symbol_u64("salt") // 3,
    lambda t: as_expr(-1),
    lambda t: as_expr(2**64 - 1),
]


@pytest.mark.parametrize("key", KEYS)
def test_dispatch_keys(key):
    x = tensor(3, 4, 3, 8)
    traced = as_expr(key(TaskExpr()))
    k = scale_kernel(4, 8)
    root = loop(3, lambda i: loop(4, lambda j: call(k, x[i][j], x[i][j], i, j), "j"))
    check(root, symbols={"salt": 0xDEADBEEF12345678}, key=traced)


def test_keys_of_the_specification():
    """execution.md 9: task arguments [i, 1, 5, 1, 5]."""
    k = scale_kernel(1, 5)
    x = tensor(6, 1, 5)
    root = loop(6, lambda b: call(k, x[b], x[b], b), "b")
    words = [[b, 1, 5, 1, 5, 0] for b in range(6)]
    for q in range(6):
        found = check(root, key=task_param(q) * axis("b"))
        assert [row["key"] for row in found] == [w[q] * b for b, w in enumerate(words)]


def test_key_sees_scalars():
    k = scalar_kernel(DType.I32)
    root = loop(3, lambda i: TaskCall(k, (), (("x", X1), ("s", i * -5))))
    assert [r["key"] for r in check(root, key=task_param(2))] == [0, 2**64 - 5, 2**64 - 10]


def test_names_mean_the_innermost_loop():
    x = tensor(3, 2, 1, 1)
    root = loop(3, lambda a: loop(2, lambda b: call(ONE, x[a][b], x[a][b], a, b, axis("i")), "i"), "i")
    found = check(root, key=TaskExpr().get("i"))
    assert [row["axes"] for row in found] == [[a, b, b] for a in range(3) for b in range(2)]


# ---- expressions -----------------------------------------------------------------------------------------------------

SPECIAL = (0, 1, 2, 3, 5, 7, 63, 64, -1, -2, -7, 2**31, 2**62, -(2**62), 2**63 - 1, -(2**63))


@st.composite
def numbers(draw, depth=3):
    """An i64 or u64 expression over i, j, the symbols m and n, and literals."""
    kind = draw(st.integers(0, 9)) if depth else draw(st.integers(0, 3))
    if kind < 2:
        return draw(st.sampled_from([axis("i"), axis("j"), symbol_u64("m"), symbol_u64("n"), axis("none")]))
    if kind < 4:
        value = draw(st.sampled_from(SPECIAL))
        return as_expr(value) if draw(st.booleans()) else as_expr(value).cast_u64()
    a = draw(numbers(depth - 1))
    if kind == 4:
        return draw(st.sampled_from([lambda: -a, lambda: a.cast_i64(), lambda: a.cast_u64(), lambda: ~a.cast_u64()]))()
    if kind == 5:
        b = draw(numbers(depth - 1))
        return draw(truths(depth - 1)).where(a.cast_i64(), b.cast_i64())
    b = draw(numbers(depth - 1))
    return draw(
        st.sampled_from([
            lambda: a + b, lambda: a - b, lambda: a * b, lambda: a // b, lambda: a % b, lambda: a << b, lambda: a >> b,
            lambda: a.cast_u64() & b.cast_u64(), lambda: a.cast_u64() | b.cast_u64(),
            lambda: a.cast_u64() ^ b.cast_u64(), lambda: (a < b).cast_i64() + (a == b).cast_i64(),
        ])
    )()  # fmt: skip


@st.composite
def truths(draw, depth=2):
    a, b = draw(numbers(depth)), draw(numbers(depth))
    compared = [lambda: a < b, lambda: a <= b, lambda: a > b, lambda: a >= b, lambda: a == b, lambda: a != b]
    truth = draw(st.sampled_from(compared))()
    if depth and draw(st.booleans()):
        other = draw(truths(depth - 1))
        joined = [lambda: truth & other, lambda: truth | other, lambda: ~truth, lambda: truth == other]
        return draw(st.sampled_from(joined))()
    return truth


EXPRESSIONS = st.lists(st.one_of(numbers(), truths()), min_size=1, max_size=6)


@given(EXPRESSIONS, st.sampled_from(SPECIAL), st.sampled_from(SPECIAL))
def test_expressions_mean_what_evaluate_says(found, m, n):
    with_defaults = [TaskExpr().get("none", 9) * 0 + e.cast_i64() for e in map(defined, found)]
    root = loop((-3, 0, 2**40), lambda i: loop(3, lambda j: call(ONE, X1, X1, *with_defaults), "j"))
    check(root, symbols={"m": m % 2**64, "n": n % 2**64})


def defined(e):
    """The expression with axis("none") given a default."""
    from dataclasses import replace

    if e.kind == "axis_var" and e.a == "none":
        return TaskExpr().get("none", -4)
    parts = {name: defined(x) for name in "abc" if hasattr(x := getattr(e, name), "kind")}
    return replace(e, **parts)


# ---- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "node, what",
    [
        (lambda: Send(Channel("c", 1), leaf()), "send"),
        (lambda: Cond(task_param(0) > 0, leaf(), leaf()), "dispatch keys only"),
        (lambda: Cond(axis("nowhere") > 0, leaf(), leaf()), "no loop of that name"),
        (lambda: call(ONE, X1[task_param(0)], X1), "dispatch keys only"),
        (lambda: call(ONE, X1[axis("nowhere")], X1), "no loop of that name"),
        (lambda: call(ONE, X1[LoopVar("k", 3)], X1), "outside its loop"),
    ],
)
def test_what_is_refused_is_named(node, what):
    with pytest.raises(CompileError, match=what):
        expand(WorkloadTree("w", node()))


def test_table_rows():
    table = TaskTable.empty(4, 7, 2)
    table.kernel[:4] = [ENTER_SEQUENTIAL, 0, 0, EXIT]
    table.args[2] = range(7)
    table.count, table.first_task = 4, 10
    one = table.row(2)
    assert (one.count, one.first_task, one.task_count, table.task_count) == (1, 11, 1, 2)
    assert one.args[0].tolist() == list(range(7))
    assert expressions.number_word(True, DType.I32) == 1
