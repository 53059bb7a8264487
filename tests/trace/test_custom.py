"""Custom kernels on the CPU: cpu= functions run as machine code, on tiles of any strides, and fail loudly."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from pto_wsp import Constexpr, DType, In, InOut, Out, P, Scalar, Tensor, Tile, kernel, pto, slot_load_u64, workload
from pto_wsp.errors import CompileError, KernelError, OperandError, UsageError
from pto_wsp.lower import custom
from pto_wsp.scalar_expr import slot_u64
from pto_wsp.trace import text
from pto_wsp.trace.interpret import interpret, task_cycles

numba = pytest.importorskip("numba")

F16, BF16, F32, F64, I8, I32, U64 = DType.F16, DType.BF16, DType.F32, DType.F64, DType.I8, DType.I32, DType.U64
SUB = Tile[4, 8, F32]


def tensor(array, dtype=F32):
    return Tensor(data=array, shape=array.shape, dtype=dtype)


def run(work, target="cpu_sim", **options):
    program = work.compile(target, **options)
    program.execute()
    program.synchronize()
    return program


def halve(v):
    return v / 2


@numba.njit
def helper(v, by):
    return v * by + 1


# ---- what a body is given ------------------------------------------------------------------------------------------


@numba.njit(fastmath=True)
def mixed_cpu(x, n, gain, out, count, big):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] = helper(x[i, j], gain) + n
    count[0, 0] += np.int32(x.size) + np.int32(np.uint64(big) >> np.uint64(40))


@kernel(cpp_src="// on the NPU", cpu=mixed_cpu)
def mixed(x: In[Tile[4, 8, F32]], n: Constexpr[int], gain: Scalar[F16], out: Out[Tile[4, 8, F16]],
          count: InOut[Tile[1, 1, I32]], big: Scalar[U64] = 2**63):
    raise AssertionError("not traced")


@pytest.mark.parametrize("target", ["cpu_sim", "numpy"])
def test_tiles_scalars_and_constants_in_signature_order(target):
    rng = np.random.default_rng(1)
    whole = rng.standard_normal((30, 40)).astype(np.float32)
    x, out = whole[::3, ::-2], np.full((10, 20), 7, np.float16)[:, ::1]  # 10 x 20, strides -8 and 480 bytes
    count = np.zeros((1, 1), np.int32)
    tensors = tensor(x), tensor(out, F16), tensor(count, I32)

    @workload
    def w():
        for i in P(3):
            for j in P(3):
                a, b = tensors[0][4 * i:4 * i + 4, 8 * j:8 * j + 8], tensors[1][4 * i:4 * i + 4, 8 * j:8 * j + 8]
                mixed[i, j](x=a, n=3, gain=0.1, out=b, count=tensors[2])

    program = run(w(), target)
    np.testing.assert_array_equal(out, (x * np.float32(np.float16(0.1)) + np.float32(1) + 3).astype(np.float16))
    assert count[0, 0] == 200 + 9 * 2**23
    assert program.stats.total_cycles == 2 * 200 + 9 * 2, "loads and stores of what is there"


def widths(x, out):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] = x[i, j]


@pytest.mark.parametrize("dtype", [F16, BF16, F64, I8, DType.U16, DType.I64, U64], ids=str)  # others: elsewhere
def test_every_dtype(dtype):
    @kernel(cpu=widths)
    def k(x: In[Tile[1, 5, dtype]], out: Out[Tile[1, 5, dtype]]): ...

    values = np.array([[0, 1, 2, 100, 3]]).astype(dtype.numpy)
    out = np.zeros_like(values)

    @workload
    def w():
        k(x=tensor(values, dtype), out=tensor(out, dtype))

    run(w())
    np.testing.assert_array_equal(out.view(f"u{dtype.itemsize}"), values.view(f"u{dtype.itemsize}"))


@pytest.mark.parametrize("dtype", [F16, BF16], ids=str)
def test_half_precision_widens_and_rounds_as_numpy_does(dtype):
    bits = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    wide = custom._widened(dtype)(bits)
    np.testing.assert_array_equal(wide, bits.view(dtype.numpy).astype(np.float32))
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2**32, (256, 256), np.uint32).view(np.float32)
    with np.errstate(all="ignore"):
        near = wide + np.where(np.isfinite(wide), wide, 0) * rng.choice([0, 2**-11, 2**-12, 3e-4], wide.shape)
        half = wide * np.float32(0.5)
    for given in (values, near.astype(np.float32), half):
        found = np.zeros((256, 256), np.uint16)
        custom._narrowed(dtype)(given, found)
        with np.errstate(all="ignore"):
            want = given.astype(dtype.numpy)
        number = ~np.isnan(given)
        np.testing.assert_array_equal(found[number], want.view(np.uint16)[number])
        assert np.isnan(found.view(dtype.numpy)[~number].astype(np.float32)).all()


def test_plain_functions_and_closures_are_compiled_too():
    by = 3.0

    def scaled(x, out):
        for i in range(x.shape[0]):
            for j in range(x.shape[1]):
                out[i, j] = x[i, j] * by

    @kernel(cpu=scaled)
    def k(x: In[SUB], out: Out[SUB]): ...

    x = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    out = np.zeros_like(x)

    @workload
    def w():
        k(x=tensor(x), out=tensor(out))

    run(w())
    np.testing.assert_array_equal(out, x * np.float32(3))
    assert "define" in k.llvm and ".section" in k.asm
    with pytest.raises(UsageError, match="no loop nests"):
        k.loops
    k.interpret(x=x, out=out)
    interpret(k.graph, [x, out])


# ---- tasks like all others -----------------------------------------------------------------------------------------


@numba.njit
def step_cpu(x, y):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            y[i, j] = 3 * y[i, j] + x[i, j]


@kernel(cpu=step_cpu, cycles="5 * x_rows + 4")
def step(x: In[SUB], y: InOut[SUB]): ...


def test_results_do_not_depend_on_threads():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4096, 8)).astype(np.float32)
    X = tensor(x)

    def outcome(threads, target="cpu_sim"):
        y = np.zeros((64, 8), np.float32)
        Y = tensor(y)

        @workload
        def w():
            for i in P(64):
                for j in P(16):
                    step[i, j](x=X[64 * i + 4 * j:64 * i + 4 * j + 4], y=Y[4 * j:4 * j + 4])

        program = run(w(), target, threads=threads)
        assert program.stats.total_cycles == 1024 * 24
        assert len(program.timeline()) == 1024
        return y

    one = outcome(1)
    np.testing.assert_array_equal(outcome(4), one)
    np.testing.assert_allclose(outcome(1, "numpy"), one, rtol=1e-4)  # its literals are float32, those of numba float64


def test_a_body_runs_without_the_gil():
    """The body waits for a word that this thread writes while it runs."""

    def wait(word, out):
        for _ in range(10**10):
            out[0, 0] += 1
            if word[0, 0] != 0:
                break

    @kernel(cpu=wait)
    def k(word: In[Tile[1, 1, I32]], out: InOut[Tile[1, 1, I32]]): ...

    word, out = np.zeros((1, 1), np.int32), np.zeros((1, 1), np.int32)

    @workload
    def w():
        k(word=tensor(word, I32), out=tensor(out, I32))

    program = w().compile()
    program.execute()
    assert not program.is_complete()
    word[0, 0] = 1
    program.synchronize(timeout=60)


def test_cycles():
    def f(x: In[SUB], n: Scalar[I32], out: Out[SUB]): ...

    def body(x, n, out):
        out[:] = x

    def cycles_of(**options):
        k = kernel(cpu=body, **options)(f)
        x, out = np.zeros((7, 8), np.float32), np.zeros((7, 8), np.float32)

        @workload
        def w():
            for i in P(2):
                k[i](x=tensor(x)[4 * i:4 * i + 4], n=i, out=tensor(out)[4 * i:4 * i + 4])

        return w().compile("numpy").simulate().total_cycles

    assert cycles_of() == 2 * 32 + 2 * 24
    assert cycles_of(cycles=0) == 0 and cycles_of(cycles=9) == 18
    assert cycles_of(cycles="x_rows * x_cols * 10 + n") == 560 + 1
    for wrong in (-1, 2.5, True):
        with pytest.raises(ValueError, match="cycles is a whole number"):
            kernel(cpu=body, cycles=wrong)
    with pytest.raises(OperandError, match="'m' is no integer"):
        kernel(cpu=body, cycles="m")(f)
    graph = kernel(cpu=body)(f).graph
    assert task_cycles(graph, [np.zeros((4, 8)), np.zeros((4, 8))]) == 64


# ---- what goes wrong -----------------------------------------------------------------------------------------------


def outside_cpu(x, out):
    last = x.shape[1]
    for i in range(x.shape[0]):
        out[i, last] = x[i, 0]  # the line


def raises_cpu(x, out):
    if x[0, 0] >= 20:
        raise ValueError("too much")  # the line
    out[:] = x


@numba.njit
def unchecked(values, k):
    return values[0, k]


@numba.njit
def through_helper_cpu(x, out):
    out[0, 0] = unchecked(x, 100_000_000)  # the line


def divides_cpu(x, out):
    out[0, 0] = 1 // int(x[0, 0] * 0)  # the line


@pytest.mark.parametrize("body, kind", [(outside_cpu, "IndexError"), (raises_cpu, "ValueError: too much"),
                                        (through_helper_cpu, "IndexError"), (divides_cpu, "ZeroDivisionError")])
def test_a_body_that_raises(body, kind):
    k = kernel(cpu=body)(_both)
    x = np.repeat(np.arange(64, dtype=np.float32), 4)[:, None] * np.ones((1, 8), np.float32)
    guard = np.zeros((258, 10), np.float32)
    out = guard[1:-1, 1:-1]

    @workload
    def w():
        for i in P(64):
            k[i, 9](x=tensor(x)[4 * i:4 * i + 4], out=tensor(out)[4 * i:4 * i + 4])

    for program in [w().compile(threads=1), *[w().compile(threads=4)] * 2]:  # the same again, not an old failure
        program.execute()
        with pytest.raises(KernelError, match=kind) as caught:
            program.synchronize()
        error = caught.value
        assert f"both[{error.task_id}, 9], task {error.task_id}" in str(error) and error.kernel_name == "both"
        assert "# the line" in str(error) or "values[0, k]" in str(error), str(error)
        assert error.task_id >= 20 if body is raises_cpu else True
    x[:] = 1
    if body is raises_cpu:
        program.execute()
        program.synchronize()
        np.testing.assert_array_equal(out, x)
    guard[1:-1, 1:-1] = 0
    assert not guard.any(), "nothing was written outside the tiles"


def _both(x: In[SUB], out: Out[SUB]): ...


_both.__name__ = "both"


def test_a_body_that_raises_while_later_tasks_are_unknown():
    """Tasks run while the table fills: the failure is that of the body all the same."""
    k = kernel(cpu=raises_cpu)(_both)

    @kernel
    def count(out: InOut[Tile[1, 1, U64]]):
        pto.store(out, out + 1)

    x, out = np.full((4, 8), 20, np.float32), np.zeros((4, 8), np.float32)
    counted = tensor(np.zeros((1, 1), np.uint64), U64)

    @workload
    def w():
        for i in P.seq(3):
            count[i](out=counted)
            slot_load_u64(0, counted)
            for j in P.seq(2):
                k[i, j, slot_u64(0)](x=tensor(x), out=tensor(out))

    program = w().compile()
    for _ in range(2):
        program.execute()
        with pytest.raises(KernelError, match=r"both\[0, 0, \d\], task 1, failed: ValueError: too much"):
            program.synchronize()
    x[:] = 1
    program.execute()
    program.synchronize()
    np.testing.assert_array_equal(out, x)


def test_without_numbas_compiler_the_error_says_which_target_needs_none(monkeypatch):
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    k = kernel(cpu=lambda x, out: None)(_both)

    @workload
    def w():
        k(x=tensor(np.zeros((4, 8), np.float32)), out=tensor(np.zeros((4, 8), np.float32)))

    with pytest.raises(CompileError, match="NUMBA_DISABLE_JIT.*target='numpy'"):
        w().compile()


def test_what_numba_refuses_is_shown_at_the_users_line():
    def writes_in(x, out):
        x[0, 0] = 1  # the line

    def unknown(x, out):
        out[0, 0] = x.median()  # the line

    def returns(x, out):  # the line
        return 3

    for body, match in ((writes_in, "In tile"), (unknown, "median"), (returns, "returns int64.*cycles=")):
        k = kernel(cpu=body)(_both)

        @workload
        def w():
            k(x=tensor(np.zeros((4, 8), np.float32)), out=tensor(np.zeros((4, 8), np.float32)))  # noqa: B023

        with pytest.raises(CompileError, match=match) as caught:
            w().compile()
        assert "# the line" in str(caught.value)
        assert "both" in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_a_source(tmp_path):
    """Windows editors write one; C++ in the middle of a file does not take it."""
    for name in ("cpp_body_path", "cpp_tu_path"):
        (tmp_path / "k.cpp").write_bytes(b"\xef\xbb\xbfint x;")
        assert "int x;" in kernel(**{name: tmp_path / "k.cpp"})(lambda x: None).options.values()


def test_what_is_refused_when_the_kernel_is_written(tmp_path):
    binary = tmp_path / "k.cpp"
    binary.write_bytes(b"ok \xff")
    with pytest.raises(ValueError, match="k.cpp is not UTF-8 text: byte 0xff at offset 3"):
        kernel(cpp_body_path=binary)
    for options in ({"cpp_includes": ["a.h"]}, {"cycles": 3}, {"cpp_core": "AIV"}):
        with pytest.raises(ValueError, match="only a kernel with a C"):
            kernel(**options)
    with pytest.raises(ValueError, match="cpp_core is one of AIV, AIC, MIX"):
        kernel(cpp_src="", cpp_core="GPU")
    with pytest.raises(ValueError, match="cpp_includes lists files"):
        kernel(cpp_src="", cpp_includes=['a.h"\n#include "b.h'])
    with pytest.raises(ValueError, match="cpp_workspace_bytes"):
        kernel(cpp_src="", cpp_workspace_bytes=-1)
    with pytest.raises(TypeError, match="cpp_body_path="):
        kernel(cpp_src=binary)
    for wrong in (3, "f", kernel(_both), np.add, int):
        with pytest.raises(UsageError, match="cpu= is a Python function"):
            kernel(cpu=wrong)(_both)
    with pytest.raises(UsageError, match=r"halve\(v\) is given 2 arguments"):
        kernel(cpu=halve)(_both)
    unit = tmp_path / "u.cpp"
    unit.write_text("int unit;")
    with pytest.warns(UserWarning, match="cpp_includes changes nothing"):
        kernel(cpp_tu_path=unit, cpp_includes=["a.h"])(_both)


def test_without_a_cpu_body_the_cpu_says_so():
    k = kernel(cpp_src="// C++")(_both)

    @workload
    def w():
        k(x=tensor(np.zeros((4, 8), np.float32)), out=tensor(np.zeros((4, 8), np.float32)))

    for target in ("cpu_sim", "numpy"):
        with pytest.raises(CompileError, match="both has a C.. body, which runs on the NPU only.*cpu=function"):
            w().compile(target)


def test_the_graph_as_text():
    k = kernel(cpp_src="// C++", cpu=raises_cpu, cycles=4)(_both)
    shown = str(k.graph)
    assert "custom core=AIV cpp=body cpu=raises_cpu" in shown and "add_cycles cycles=4" in shown
    with pytest.raises(text.GraphTextError, match="does not hold"):
        text.parse(shown)
    assert text.same(k.graph, k.trace()) and not text.same(k.graph, kernel(cpu=outside_cpu)(_both).graph)


@numba.njit
def far(x):
    return x[10**6, 0]


@numba.njit
def deep(v):
    return v if v == -1 else deep(v + 1)


@numba.vectorize(["float32(float32)"])
def vectorised(v):
    return v


TABLE, LABS = (far,), ctypes.CDLL(None).abs


def in_a_tuple(x, o):
    o[0, 0] = TABLE[0](x)


def as_a_default(x, o, f=far):
    o[0, 0] = f(x)


def recursive(x, o):
    o[0, 0] = deep(x[0, 0])


def ufunc(x, o):
    o[0, 0] = vectorised(x[0, 0])


def foreign(x, o):
    o[0, 0] = LABS(3)


def flat(x, o):
    o[0, 0] = np.zeros(4).flat[10**12]


def flat_write(x, o):
    x.flat[0] = 1


def strided(x, o):
    o[0, 0] = np.lib.stride_tricks.as_strided(np.zeros(8), (10**9,), (8,))[10**9 - 1]


def contiguous(x, o):
    np.ascontiguousarray(x)[0, 0] = 1


def iterated(x, o):
    for v in np.nditer(x):
        v[()] = 1


@pytest.mark.parametrize(
    "body, words",
    [
        (in_a_tuple, "index 1000000 is out of bounds"),
        (as_a_default, "index 1000000 is out of bounds"),
        (recursive, "deep calls itself"),
        (ufunc, "'vectorised', a DUFunc"),
        (foreign, "code whose indices nobody"),
        (flat, "an index into .flat"),
        (flat_write, "an index into .flat"),
        (strided, "as_strided, which may reach beyond"),
        (contiguous, "write x.copy|read-only"),  # with numba 0.62 it is not writable itself
        (iterated, "np.nditer over an In tile"),
    ],
)
def test_a_body_reaches_no_memory_but_its_arrays(body, words):
    @kernel(cpu=body)
    def k(x: In[Tile[4, 4, DType.F32]], o: InOut[Tile[4, 4, DType.F32]]): ...

    given = np.ones((4, 4), np.float32)
    x, o = tensor(given), tensor(np.zeros((4, 4), np.float32))

    @workload
    def one():
        k(x=x, o=o)

    with pytest.raises((CompileError, KernelError), match=words):
        run(one())
    assert (given == 1).all()
