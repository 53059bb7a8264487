"""Execution: the arrays end up as if tasks had run one after another, for any number of threads."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pto_wsp import DType, In, InOut, Out, Tensor, Tile, kernel, pto
from pto_wsp.errors import ExecutionError, UsageError
from pto_wsp.lower.expand import expand
from pto_wsp.lower.places import Place
from pto_wsp.scalar_expr import LoopVar, as_expr
from pto_wsp.sim import execute, native
from pto_wsp.sim.execute import Executor, host_threads
from pto_wsp.trace.tree import Block, Loop, TaskCall, WorkloadTree


@kernel
def mix(x: In[Tile[4, 8, DType.I64]], out: InOut[Tile[4, 8, DType.I64]]):
    pto.store(out, x * 3 + out * 5 + 1)


@kernel
def single(x: In[Tile[1, 1, DType.I64]], out: InOut[Tile[1, 1, DType.I64]]):
    pto.store(out, x * 3 + out * 5 + 1)


@kernel
def heavy(x: In[Tile[64, 64, DType.F32]], out: Out[Tile[64, 64, DType.F32]]):
    y = x
    for _ in range(8):
        y = pto.exp(pto.sin(y))
    pto.store(out, y)


def tensor(array):
    return Tensor(array, array.shape, DType.I64 if array.dtype == np.int64 else DType.F32)


def call(k, x, out, *axes):
    return TaskCall(k, tuple(map(as_expr, axes)), (("x", x), ("out", out)))


def loop(size, body, name="i", parallel=True):
    var = LoopVar(name, size)
    return Loop(var, size, parallel, body(var))


class Counted:
    """Progress reports."""

    def __init__(self):
        self.calls = []

    def __call__(self, tasks):
        self.calls.append(tasks)


def run(root, threads, capacity=None, stop=None, executor=None, done=None):
    """Run a tree; the number of tasks finished."""
    if executor is None:
        executor = Executor(expand(WorkloadTree("w", root)), threads)
    expansion = executor.expansion
    arrays = [t.array() for t in expansion.tensors]
    executor.bind(arrays)
    table = expansion.table() if capacity is None else expansion.table_of(capacity)
    stop = np.zeros(1, np.int64) if stop is None else stop
    done = done or Counted()
    inputs = expansion.inputs(arrays, {n: n.axis.size for n in expansion.loops}, {})
    expansion.run(inputs, table, lambda t: executor.run(t, stop, done), stop)
    return sum(done.calls)


@pytest.fixture
def eager(monkeypatch):
    """Threads are used for the smallest workloads, too."""
    for name in ("_PROBE", "_WORTH", "_PER_TASK", "_PER_ORDERED_TASK"):
        monkeypatch.setattr(execute, name, 0.0)


def in_order(tasks):
    """The plain way: one task after another, by NumPy."""
    for x, out in tasks:
        out[...] = x.copy() * 3 + out * 5 + 1


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("capacity", [None, 7])
def test_every_task_runs_once(eager, threads, capacity):
    x, out = np.arange(200 * 32).reshape(200, 4, 8), np.zeros((200, 4, 8), np.int64)
    a, b = tensor(x), tensor(out)
    assert run(loop(200, lambda i: call(mix, a[i], b[i], i)), threads, capacity) == 200
    assert (out == x * 3 + 1).all()


def test_an_interrupt_while_arrays_are_bound(monkeypatch):
    """What was known of others does not count when the same arrays are bound again."""
    a, b = tensor(np.zeros((2, 4, 8), np.int64)), tensor(np.zeros((2, 4, 8), np.int64))
    executor = Executor(expand(WorkloadTree("w", loop(2, lambda i: call(mix, a[i], b[i], i)))), 2)
    apart, alike = [a.array(), b.array()], [a.array(), a.array()]

    def interrupted(*_):
        raise KeyboardInterrupt

    executor.bind(apart, list(map(Place.of, apart)))
    assert executor.independent
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(execute.regions, "Uses", interrupted)
        executor.bind(alike, list(map(Place.of, alike)))
    executor.bind(alike, list(map(Place.of, alike)))
    assert not executor.independent


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_accumulation_keeps_its_order(eager, threads):
    x, out, expected = np.arange(60 * 32).reshape(60, 4, 8), *np.zeros((2, 4, 4, 8), np.int64)
    a, b = tensor(x), tensor(out)
    run(loop(60, lambda i: call(mix, a[i], b[i % 4])), threads)
    in_order([(x[i], expected[i % 4]) for i in range(60)])
    assert (out == expected).all()


@pytest.mark.parametrize("threads", [2, 4])
def test_a_long_chain(eager, threads):
    out, expected = np.zeros((2, 300, 1, 1), np.int64)
    b = tensor(out)
    run(loop(299, lambda i: call(single, b[i], b[i + 1])), threads)
    in_order([(expected[i], expected[i + 1]) for i in range(299)])
    assert (out == expected).all()


def test_whole_matrix_read_after_its_tiles_were_written(eager):
    """Row tiles, column tiles and the whole of one matrix, one after the other."""
    @kernel
    def whole(x: In[Tile[32, 32, DType.I64]], out: InOut[Tile[32, 32, DType.I64]]):
        pto.store(out, x * 3 + out * 5 + 1)

    results = []
    for threads in (1, 4):
        m, other = np.arange(32 * 32).reshape(32, 32), np.ones((32, 32), np.int64)
        a, b = tensor(m), tensor(other)
        tiles = lambda x, y: loop(8, lambda i: loop(4, lambda j: call(  # noqa: E731
            mix, x[i * 4 : i * 4 + 4, j * 8 : j * 8 + 8], y[i * 4 : i * 4 + 4, j * 8 : j * 8 + 8]), "j"))  # fmt: skip
        run(Block((tiles(a, b), call(whole, b, a), tiles(a, b), tiles(b, a), call(whole, a, b))), threads)
        results.append((m, other))
    assert (results[0][0] == results[1][0]).all() and (results[0][1] == results[1][1]).all()


@st.composite
def workloads(draw):
    """A list of (view of x, view of out) over a few aliasing arrays of odd strides."""
    memory = np.arange(1200, dtype=np.int64)
    bases = [memory.reshape(30, 40), memory.reshape(40, 30).T, memory[::-1].reshape(30, 40)]
    bases.append(memory[100:1060].reshape(24, 40))
    used = draw(st.lists(st.sampled_from(bases), min_size=1, max_size=3))
    tiles = []
    for _ in range(draw(st.integers(1, 24))):
        pair = []
        for _ in range(2):
            base = draw(st.integers(0, len(used) - 1))
            rows, cols = used[base].shape
            aligned = draw(st.booleans())
            r = draw(st.integers(0, rows // 4 - 1)) * 4 if aligned else draw(st.integers(0, rows - 4))
            c = draw(st.integers(0, cols // 8 - 1)) * 8 if aligned else draw(st.integers(0, cols - 8))
            pair.append((base, r, c))
        tiles.append(tuple(pair))
    return memory, used, tiles


@given(workloads(), st.sampled_from([None, 5]))
def test_overlapping_tiles_in_program_order(workload, capacity):
    memory, used, tiles = workload
    start = memory.copy()
    tensors = [tensor(a) for a in used]

    def view(things, place):
        base, r, c = place
        return things[base][r : r + 4, c : c + 8]

    root = Block(tuple(call(mix, view(tensors, x), view(tensors, out)) for x, out in tiles))
    in_order([(view(used, x), view(used, out)) for x, out in tiles])
    expected = memory.copy()
    constants = {name: getattr(execute, name) for name in ("_PROBE", "_WORTH", "_PER_TASK", "_PER_ORDERED_TASK")}
    try:
        for threads, eager in ((1, False), (3, True)):
            memory[:] = start
            for name, value in constants.items():
                setattr(execute, name, 0.0 if eager else value)
            assert run(root, threads, capacity) == len(tiles)
            assert (memory == expected).all()
    finally:
        for name, value in constants.items():
            setattr(execute, name, value)


@pytest.mark.parametrize(
    "apart, view",
    [
        (True, lambda t, i, j: t[i][j]),
        (True, lambda t, i, j: t[j][i]),
        (True, lambda t, i, j: t[5 - i, j * 2 + 1]),
        (True, lambda t, i, j: t[i, 0, :, j * 8 : j * 8 + 8]),
        (True, lambda t, i, j: t[i, 0, j * -4 + 20 : j * -4 + 24, :8]),
        (True, lambda t, i, j: t[i, i, :4, j * 8 : j * 8 + 8]),
        (False, lambda t, i, j: t[i, 0, :, j * 4 : j * 4 + 8]),
        (False, lambda t, i, j: t[i][0]),
        (False, lambda t, i, j: t[i // 2][j]),
        (False, lambda t, i, j: t[i + j][j]),
        (False, lambda t, i, j: t[i % 3][j]),
    ],
)
def test_tasks_that_are_seen_to_be_apart_are(eager, apart, view):
    """The proof that spares the search: never given for tasks that share an element."""
    x, out, expected = np.arange(32).reshape(4, 8), *np.zeros((2, 8, 8, 24, 40), np.int64)
    a, b = tensor(x), tensor(out)
    root = loop(4, lambda i: loop(3, lambda j: call(mix, a, view(b, i, j)), "j"))
    executor = Executor(expand(WorkloadTree("w", root)), 3)
    run(None, 3, executor=executor)
    assert executor.independent == apart
    for i in range(4):
        for j in range(3):
            in_order([(x, view(expected, i, j)[:4, :8])])
    assert (out == expected).all()


def test_repeated_values_and_aliases_are_not_apart(eager):
    out, expected = np.zeros((2, 4, 4, 8), np.int64)
    x = np.arange(32).reshape(4, 8)
    b = tensor(out)
    for root, outs in (
        (loop((0, 1, 0), lambda i: call(mix, tensor(x), b[i])), (0, 1, 0)),
        (loop(4, lambda i: call(mix, b[0], b[i])), None),
        (Block((loop(4, lambda i: call(mix, tensor(x), b[i])), call(mix, b[0], tensor(out)[3]))), None),
    ):
        executor = Executor(expand(WorkloadTree("w", root)), 3)
        run(None, 3, executor=executor)
        assert not executor.independent
        if outs:
            in_order([(x, expected[i]) for i in outs])
            assert (out == expected).all()


def test_partial_tiles(eager):
    x, out = np.arange(10 * 8).reshape(10, 8), np.zeros((10, 8), np.int64)
    a, b = tensor(x), tensor(out)
    root = loop(3, lambda i: call(mix, a[i * 4 : i * 4 + 4], b[i * 4 : i * 4 + 4]))
    executor = Executor(expand(WorkloadTree("w", root)), 2)
    assert sorted(executor._codes) == [0]  # code for partial tiles is made when there are some
    run(root, 2, executor=executor)
    assert sorted(executor._codes) == [0, 1]
    assert (out == x * 3 + 1).all()


def test_many_threads_many_times_same_bits(eager):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 64, 64)).astype(np.float32)
    results = []
    for threads in (1, 2, 3, 8):
        out = np.zeros((8, 64, 64), np.float32)
        a, b = tensor(x), tensor(out)
        run(loop(40, lambda i, a=a, b=b: call(heavy, a[i], b[i % 8])), threads)
        results.append(out)
    assert all((r.view(np.uint32) == results[0].view(np.uint32)).all() for r in results)


def test_native_functions_stay_while_threads_load_them_together(monkeypatch):
    """All threads may be the first to need them: none may be left with a function whose code is gone."""
    for _ in range(20):
        monkeypatch.setattr(native, "_LOADED", {})
        found, gate = [], threading.Barrier(4)

        def load(found=found, gate=gate):
            gate.wait()
            found.append(native.find_edges())

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({id(f) for f in found}) == 1
        assert found[0](0, *[None] * 10) == 0


def test_a_forked_process_has_threads_of_its_own():
    """The threads of the parent do not exist in the child."""
    program = """
import os, sys
import numpy as np
from pto_wsp.sim import execute
for name in ("_PROBE", "_WORTH", "_PER_TASK", "_PER_ORDERED_TASK"):
    setattr(execute, name, 0.0)
from tests.sim.test_execute import call, heavy, loop, run, tensor
x, out = np.ones((20, 64, 64), np.float32), np.zeros((20, 64, 64), np.float32)
a, b = tensor(x), tensor(out)
root = loop(20, lambda i: call(heavy, a[i], b[i]))
assert run(root, 3) == 20
child = os.fork()
if child == 0:
    os._exit(0 if run(root, 3) == 20 else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    if not hasattr(os, "fork"):
        pytest.skip("no fork")
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=120, cwd=root)


def test_two_programs_at_once(eager):
    """They share the threads."""
    x = np.random.default_rng(0).standard_normal((60, 64, 64)).astype(np.float32)
    outs = [np.zeros_like(x) for _ in range(4)]

    def work(out):
        a, b = tensor(x), tensor(out)
        for _ in range(3):
            assert run(loop(60, lambda i: call(heavy, a[i], b[i])), 3) == 60

    threads = [threading.Thread(target=work, args=(out,)) for out in outs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((out == outs[0]).all() for out in outs)


@pytest.mark.parametrize("threads", [1, 2])
def test_stop_ends_a_long_run(threads):
    x = np.zeros((64, 64), np.float32)
    out = np.zeros((2, 64, 64), np.float32)
    a, b = tensor(x), tensor(out)
    root = loop(60000, lambda i: call(heavy, a, b[i % 2]))
    executor = Executor(expand(WorkloadTree("w", root)), threads)
    stop = np.zeros(1, np.int64)
    threading.Timer(0.2, lambda: stop.__setitem__(0, 1)).start()
    from pto_wsp.lower.expand import Stopped

    try:
        finished = run(root, threads, stop=stop, executor=executor)
    except Stopped:
        finished = -1
    assert finished < 60000
    stop[0] = 0
    small = loop(2, lambda i: call(heavy, a, b[i]))
    assert run(small, threads) == 2  # and all is well afterwards


@pytest.mark.parametrize("threads", [1, 2])
def test_progress_is_reported_while_it_runs(threads, monkeypatch):
    monkeypatch.setattr(execute, "_REPORT", 0.001)
    x = np.zeros((64, 64), np.float32)
    out = np.zeros((16, 64, 64), np.float32)
    a, b = tensor(x), tensor(out)
    done = Counted()
    assert run(loop(2000, lambda i: call(heavy, a, b[i % 16])), threads, done=done) == 2000
    assert len(done.calls) > 3


def test_read_only_arrays():
    x, out = np.zeros((4, 8), np.int64), np.zeros((4, 8), np.int64)
    x.flags.writeable = False
    assert run(call(mix, tensor(x), tensor(out)), 1) == 1
    out.flags.writeable = False
    with pytest.raises(ExecutionError, match="mix writes to out, whose array is read-only"):
        run(call(mix, tensor(x), tensor(out)), 1)


def test_outputs_that_overlap_themselves():
    x = np.zeros((4, 8), np.int64)
    from numpy.lib.stride_tricks import as_strided

    assert run(call(mix, tensor(as_strided(x, (4, 8), (0, 8))), tensor(x)), 1) == 1
    with pytest.raises(ExecutionError, match="share memory"):
        run(call(mix, tensor(x), tensor(as_strided(np.zeros(100, np.int64), (4, 8), (8, 8)))), 1)


def test_threads_setting(monkeypatch):
    monkeypatch.setenv("PTO_WSP_THREADS", "3")
    assert host_threads() == 3
    assert host_threads(2) == 2
    for wrong in ("many", "0", "-1", "2.5"):
        monkeypatch.setenv("PTO_WSP_THREADS", wrong)
        with pytest.raises(UsageError, match="PTO_WSP_THREADS is a whole number, 1 or more"):
            host_threads()
        assert host_threads(2) == 2
    with pytest.raises(UsageError, match="threads is a whole number"):
        host_threads(0)
    monkeypatch.delenv("PTO_WSP_THREADS")
    assert host_threads() >= 1


def test_flushed_denormals_of_the_caller_do_not_matter():
    """A library built with -ffast-math may have switched denormals off in this thread."""
    if "enter" not in native._X86_MODE or "ldmxcsr" not in native._text(native._RUN_ROWS):
        pytest.skip("x86 only")
    import ctypes

    from pto_wsp.lower import jit

    text = """
    declare void @llvm.x86.sse.stmxcsr(ptr)
    declare void @llvm.x86.sse.ldmxcsr(ptr)
    define void @get(ptr %p) {
      call void @llvm.x86.sse.stmxcsr(ptr %p)
      ret void
    }
    define void @set(ptr %p) {
      call void @llvm.x86.sse.ldmxcsr(ptr %p)
      ret void
    }"""
    code = jit.load(text)
    pointer = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    get, put = pointer(code.address("get")), pointer(code.address("set"))
    mode, flushed = np.zeros(1, np.uint32), np.array([0x1F80 | 0x8040], np.uint32)

    @kernel
    def double(x: In[Tile[1, 8, DType.F32]], out: Out[Tile[1, 8, DType.F32]]):
        pto.store(out, x + x)

    x, out = np.full((1, 8), 1e-40, np.float32), np.zeros((1, 8), np.float32)
    root = call(double, tensor(x), tensor(out))
    expected = x + x
    get(mode.ctypes.data)
    put(flushed.ctypes.data)
    try:
        run(root, 1)
        seen = np.zeros(1, np.uint32)
        get(seen.ctypes.data)
    finally:
        put(mode.ctypes.data)
    assert (out.view(np.uint32) == expected.view(np.uint32)).all() and (expected > 0).all()
    assert seen[0] & 0x8040 == 0x8040  # and the caller finds its mode again


def test_what_kernels_keep_on_the_stack_is_not_where_their_constants_are():
    """At other places of a page, so that no load of a constant waits for a store: in any thread, of any depth."""
    import ctypes

    from pto_wsp.lower import jit

    text = """
    define void @place(ptr %args, ptr %scratch) {
      %own = alloca i64
      %at = ptrtoint ptr %own to i64
      store i64 %at, ptr %args
      ret void
    }
    define ptr @constant() {
      ret ptr @numbers
    }
    @numbers = private constant [4 x i64] [i64 1, i64 2, i64 3, i64 4]
    """
    code, found = jit.load(text), []
    functions = np.array([code.address("place")] * 2, np.int64)
    kernel, tail, args = np.zeros(1, np.int32), np.zeros(1, np.uint8), np.zeros((1, 1), np.int64)
    words = np.zeros(8, np.int64)

    def at_depth(depth):
        if depth:
            return at_depth(depth - 1)
        addresses = [a.ctypes.data for a in (functions, kernel, tail, args)]
        assert native.run_rows()(*addresses, 1, 0, 1, 0, words.ctypes.data, words.ctypes.data + 8) == 1
        found.append(int(args[0, 0]) % 4096)

    for depth in (0, 1, 7, 40):
        at_depth(depth)
        thread = threading.Thread(target=at_depth, args=(depth,))
        thread.start()
        thread.join()
    assert len(found) == 8 and min(found) >= 3800, found
    assert ctypes.CFUNCTYPE(ctypes.c_void_p)(code.address("constant"))() % 4096 < 64
