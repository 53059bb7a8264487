"""Machine code against the interpreter: random kernels, every op, partial tiles, aliased memory, other CPUs."""

from __future__ import annotations

import ctypes
import mmap
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pto_wsp import In, InOut, Out, Tile, kernel, pto
from pto_wsp.lower import fuse, jit, llvm
from pto_wsp.lower.pipeline import compile_kernel
from pto_wsp.trace.graph import KernelGraph
from pto_wsp.trace.ops import OPS
from pto_wsp.types import DType
from tests import strategies as draws
from tests.lower.elementwise import CPUS, cpus_here

FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
GUARD = 64


def run(
    graph: KernelGraph, arrays: list[np.ndarray], scalars: list[Any], tail: bool, target: jit.Target = jit.HOST
) -> None:
    """Compile `graph` and run one task of it; scratch is guarded on both sides."""
    kernel = compile_kernel(graph, tail, None if target == jit.HOST else target)
    code = jit.load(kernel.ir, target=target)
    words: list[int] = []
    for array in arrays:
        words += [array.ctypes.data, *array.strides, *array.shape]
    for param, value in zip(graph.scalar_params, scalars, strict=True):
        words.append(word(value, param.type.dtype))
    args = np.array([w & (1 << 64) - 1 for w in words], np.uint64)
    size = ctypes.CFUNCTYPE(ctypes.c_int64)(code.address(f"{kernel.symbol}.scratch"))()
    memory = np.full(size + 2 * GUARD + 64, 0xA5, np.uint8)
    start = (memory.ctypes.data + GUARD + 63) // 64 * 64
    FUNCTION(code.address(kernel.symbol))(args.ctypes.data, start)
    before = start - memory.ctypes.data
    assert (memory[:before] == 0xA5).all() and (memory[before + size :] == 0xA5).all(), "scratch was overrun"


def word(value: Any, dtype: DType) -> int:
    """A scalar argument as the executor passes it."""
    from pto_wsp.trace.interpret import as_scalar

    raw = as_scalar(value, dtype).tobytes()
    return int.from_bytes(raw, "little", signed=dtype.is_int and dtype.is_signed)


def check(graph: KernelGraph, args: draws.Arguments, tail: bool, target: jit.Target = jit.HOST) -> None:
    want = draws.expected(graph, args)
    guarded = [Guarded(a) for a in args.arrays]
    run(graph, [g.array for g in guarded], args.scalars, tail, target)
    draws.assert_matches(graph, [g.array for g in guarded], want, args)
    for param, g in zip(graph.tile_params, guarded):
        assert g.intact(), f"memory around {param.name} was written\n{graph}\n{[a.strides for a in args.arrays]}"


class Guarded:
    """A copy of an array with its strides, in the middle of memory that nobody may write."""

    def __init__(self, array: np.ndarray) -> None:
        low = sum(min(0, (n - 1) * s) for n, s in zip(array.shape, array.strides) if n)
        high = sum(max(0, (n - 1) * s) for n, s in zip(array.shape, array.strides) if n) + array.itemsize
        self.memory = np.full(high - low + 2 * GUARD, 0x5A, np.uint8)
        self.array = np.ndarray(array.shape, array.dtype, self.memory, GUARD - low, array.strides)
        self.array[...] = array
        inside = np.zeros(self.memory.shape, np.uint8)
        np.ndarray(array.shape, f"u{array.itemsize}", inside, GUARD - low, array.strides)[...] = (
            1 << 8 * array.itemsize
        ) - 1
        self.outside = inside == 0

    def intact(self) -> bool:
        return bool((self.memory[self.outside] == 0x5A).all())


@pytest.mark.parametrize("op", draws.COMPUTING, ids=str)
@settings(max_examples=12, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_compiled_op_equals_its_reference(op: Any, data: Any) -> None:
    graph = data.draw(draws.one_op_graphs(op))
    tail = data.draw(st.booleans())
    check(graph, data.draw(draws.arguments(graph, tail=tail)), tail)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_compiled_kernel_of_constants(data: Any) -> None:
    """LLVM computes with what it knows while it compiles: that has to be what the machine would compute."""
    op = data.draw(st.sampled_from(draws.COMPUTING))
    one, several = draws.one_op_graphs(op, constants=85), draws.graphs(most_nodes=5, constants=85)
    graph = data.draw(st.one_of(one, several))
    args = data.draw(draws.arguments(graph))
    for target in (jit.HOST, *(jit.Target(cpu=CPUS[cpu]) for cpu in cpus_here())):
        check(graph, args, False, target)


@settings(max_examples=150)
@given(data=st.data())
def test_compiled_kernel_equals_the_interpreter(data: Any) -> None:
    graph = data.draw(draws.graphs())
    tail = data.draw(st.booleans())
    check(graph, data.draw(draws.arguments(graph, tail=tail)), tail)


@pytest.fixture
def short_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels become several nests and functions when they have more than a few instructions."""
    for module in (fuse, llvm):
        monkeypatch.setattr(module, "LONGEST", 6)


@pytest.mark.usefixtures("short_functions")
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_kernel_of_several_functions(data: Any) -> None:
    graph = data.draw(draws.graphs())
    tail = data.draw(st.booleans())
    check(graph, data.draw(draws.arguments(graph, tail=tail)), tail)


@pytest.mark.usefixtures("short_functions")
@settings(max_examples=20, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_parameters_of_several_functions_may_share_memory(data: Any) -> None:
    may_share_memory(data)


def test_chain_of_transposes_compiles_in_linear_time():
    def chain(x: Any) -> Any:
        for _ in range(60):
            x = pto.transpose(x) + x
        return x

    out = np.zeros((3, 3), np.float32)
    run(draws.traced(chain, (3, 3), out=(3, 3, DType.F32)), [np.eye(3, dtype=np.float32), out], [], False)
    assert (out == 2.0**60 * np.eye(3)).all()


@settings(max_examples=60)
@given(data=st.data())
def test_parameters_may_share_memory(data: Any) -> None:
    may_share_memory(data)


def may_share_memory(data: Any) -> None:
    """Implicit loads are a snapshot, explicit loads and stores act in program order, whatever overlaps."""
    graph = data.draw(draws.graphs(ops=draws.EXACT, dtypes=(DType.F32, DType.I32)))
    args = data.draw(draws.arguments(graph, strides=False))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    memory = np.zeros(1 << 16, np.uint8)
    fill = draws.elements(DType.F32, (memory.size // 4,), rng, wild=False)
    apart = rng.choice([1, 1, 1, 2], len(args.arrays))  # elements from one column to the next
    pitch = max((a.shape[1] * n * a.itemsize for a, n in zip(args.arrays, apart)), default=8) // 8 * 8 + 8

    def shared(home: np.ndarray) -> list[np.ndarray]:
        home[...] = fill.view(np.uint8)
        return [
            np.ndarray(a.shape, a.dtype, home, int(offset), (pitch, int(n) * a.itemsize))
            for a, offset, n in zip(args.arrays, offsets, apart)
        ]

    offsets = rng.choice([0, 0, 0, pitch, 8, 2 * pitch + 8], len(args.arrays))
    if max((a.shape[0] + 3) * pitch for a in args.arrays) > memory.size:
        return
    want, got = memory.copy(), memory.copy()
    from pto_wsp.trace.interpret import interpret

    interpret(graph, shared(want), args.scalars)
    run(graph, shared(got), args.scalars, False)
    same = want.view(np.uint32) == got.view(np.uint32)
    both_nan = np.isnan(want.view(np.float32)) & np.isnan(got.view(np.float32))
    assert (same | both_nan).all(), f"{graph}\noffsets {offsets}, row pitch {pitch}\n{compile_kernel(graph).loops}"


def same_bits(graph: KernelGraph, some: list[np.ndarray], others: list[np.ndarray]) -> None:
    for here, there in zip(some, others, strict=True):
        nan = np.isnan(here.astype(np.float64)) & np.isnan(there.astype(np.float64))
        equal = np.frombuffer(here.tobytes(), f"u{here.itemsize}") == np.frombuffer(
            there.tobytes(), f"u{there.itemsize}"
        )
        assert (equal | nan.ravel()).all(), str(graph)


@pytest.mark.parametrize("cpu", ["x86-64", "x86-64-v3", "x86-64-v4"])
@settings(max_examples=25)
@given(data=st.data())
def test_every_cpu_gives_the_same_bits(cpu: str, data: Any) -> None:
    graph = data.draw(draws.graphs(ops=tuple(draws.COMPUTING)))
    args = data.draw(draws.arguments(graph))
    results = []
    for target in (jit.HOST, jit.Target(cpu=cpu)):
        arrays = args.copies()
        run(graph, arrays, args.scalars, False, target)
        results.append(arrays)
    same_bits(graph, *results)


@pytest.mark.parametrize(("cols", "in_lanes"), [(2, True), (8, True), (9, False), (16, False)])
def test_rows_of_few_columns_are_in_lanes(cols: int, in_lanes: bool) -> None:
    """Every second element of two vectors is what takes rows apart; nothing else in a maximum does that."""

    @kernel
    def most(x: In[Tile[64, cols, DType.F32]], out: Out[Tile[64, 1, DType.F32]]):
        pto.store(out, pto.rowmax(x))

    made = compile_kernel(most.graph, target=jit.Target(cpu="x86-64-v3"))
    assert ("<16 x i32> <i32 0, i32 2, i32 4, i32 6" in made.ir) == in_lanes


def chain(op: str, length: int, shape: tuple[int, int]) -> KernelGraph:
    """A function of a function of ... a tile."""

    @kernel
    def body(x: In[Tile[shape[0], shape[1], DType.F32]], out: Out[Tile[shape[0], shape[1], DType.F32]]):
        for _ in range(length):
            x = getattr(pto, op)(x)
        pto.store(out, x)

    return body.graph


@pytest.mark.parametrize(("cpu", "lanes"), [("x86-64-v3", 8), ("x86-64-v4", 16)])
@pytest.mark.parametrize(("op", "length", "vectors"), [("gelu", 1, 4), ("silu", 3, 4), ("silu", 8, 2)])
def test_costly_passes_take_several_vectors_a_step(cpu: str, lanes: int, op: str, length: int, vectors: int) -> None:
    made = compile_kernel(chain(op, length, (16, 256)), target=jit.Target(cpu=cpu))
    assert max(map(int, re.findall(r"<(\d+) x float>", made.ir))) == vectors * lanes


@pytest.mark.parametrize(("cols", "as_one"), [(33, True), (32, False)])
def test_rows_that_touch_are_one_row_where_vectors_lack_lanes(cols: int, as_one: bool) -> None:
    """The last whole vector of 5 rows of 33 columns begins at 144, far beyond a row."""
    made = compile_kernel(chain("neg", 1, (5, cols)), target=jit.Target(cpu="x86-64-v3"))
    assert ("i64 144" in made.ir) == as_one


@pytest.mark.parametrize("cpu", ["", "x86-64-v3"])
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_gaps_between_rows_change_no_bits(cpu: str, data: Any) -> None:
    """Where rows lie one behind the other, tiles may be computed otherwise: as one row, or narrow ones in lanes."""
    graph = data.draw(draws.graphs(ops=tuple(draws.COMPUTING), chain=True))
    args = data.draw(draws.arguments(graph))
    target = jit.Target(cpu=cpu) if cpu else jit.HOST
    apart = []
    for array in args.copies():
        rows, cols = array.shape
        apart.append(np.zeros((rows, cols + 3), array.dtype)[:, :cols])
        apart[-1][...] = array
    together = args.copies()
    run(graph, together, args.scalars, False, target)
    run(graph, apart, args.scalars, False, target)
    same_bits(graph, together, apart)


@pytest.mark.parametrize("cpu", cpus_here())
@pytest.mark.parametrize("shape", [(5, 300), (3, 770), (2, 1100)], ids=str)
@pytest.mark.parametrize("dtype", (DType.I8, DType.F32, DType.F64), ids=str)
def test_columns_of_wide_tiles(dtype: DType, shape: tuple[int, int], cpu: str) -> None:
    """Reduced a part of each row at a time; what is written meanwhile is complete, in place too."""
    rows, cols = shape

    @kernel
    def reduced(x: InOut[Tile[rows, cols, dtype]], total: Out[Tile[1, cols, dtype]], most: Out[Tile[1, cols, dtype]]):
        twice = x + x
        pto.store(x, twice)
        pto.store(total, pto.colsum(twice))
        pto.store(most, pto.colmax(twice))

    x = (np.random.default_rng(cols).standard_normal(shape) * 9).astype(dtype.numpy)
    arrays = [x.copy(), *(np.zeros((1, cols), dtype.numpy) for _ in range(2))]
    run(reduced.graph, arrays, [], False, jit.Target(cpu=CPUS[cpu]))
    total = np.zeros(cols, dtype.numpy)
    for row in x + x:
        total += row
    for got, want in zip(arrays, (x + x, total[None], (x + x).max(0, keepdims=True)), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("cpu", cpus_here())
@pytest.mark.parametrize("cols", [112, 233])
def test_bytes_are_reduced_in_steps_of_three_widths(cols: int, cpu: str) -> None:
    """64 lanes, then 32, then 16, then those that are left; a row, and a tile of one column."""
    dtype = DType.I8

    @kernel
    def reduced(x: In[Tile[2, cols, dtype]], y: In[Tile[cols, 1, dtype]], total: Out[Tile[2, 1, dtype]],
                most: Out[Tile[2, 1, dtype]], least: Out[Tile[1, 1, dtype]]):
        pto.store(total, pto.rowsum(x))
        pto.store(most, pto.rowmax(x))
        pto.store(least, pto.colmin(y))

    numbers, limits = np.random.default_rng(cols), np.iinfo(dtype.numpy)
    rows = numbers.integers(limits.min, limits.max, (2, cols), dtype.numpy, endpoint=True)
    want = [rows.sum(1, dtype=dtype.numpy), rows.max(1), rows[1].min()]
    arrays = [rows, rows[1].reshape(cols, 1), *(np.zeros((n, 1), dtype.numpy) for n in (2, 2, 1))]
    run(reduced.graph, arrays, [], False, jit.Target(cpu=CPUS[cpu]))
    for got, expected in zip(arrays[2:], want, strict=True):
        np.testing.assert_array_equal(got.ravel(), expected)


@pytest.mark.parametrize("cpu", cpus_here())
@pytest.mark.parametrize("cols", [17, 40, 100])
def test_partial_tiles_are_as_whole_ones_of_their_size(cols: int, cpu: str) -> None:
    """Also where steps have more lanes than are left; beside the tile nothing is written."""

    def silu_and_bytes(width: int) -> KernelGraph:
        @kernel
        def body(x: In[Tile[3, width, DType.F32]], y: In[Tile[3, width, DType.I8]], a: Out[Tile[3, width, DType.F32]],
                 b: Out[Tile[3, width, DType.I8]], total: Out[Tile[3, 1, DType.F32]], most: Out[Tile[3, 1, DType.I8]]):
            pto.store(a, pto.exp(pto.silu(x)))
            pto.store(b, y + y)
            pto.store(total, pto.rowsum(pto.silu(x)))
            pto.store(most, pto.rowmax(y))

        return body.graph

    numbers, found = np.random.default_rng(cols), []
    x = numbers.standard_normal((3, cols)).astype(np.float32)
    y = numbers.integers(-128, 128, (3, cols), np.int8)
    for width, tail in ((cols, False), (128, True)):
        guarded = [Guarded(a) for a in (x, y, 0 * x, 0 * y, 0 * x[:, :1], 0 * y[:, :1])]
        run(silu_and_bytes(width), [g.array for g in guarded], [], tail, jit.Target(cpu=CPUS[cpu]))
        assert all(g.intact() for g in guarded)
        found.append([g.array.tobytes() for g in guarded])
    assert found[0] == found[1]


@pytest.mark.parametrize(("dtype", "cols"), [(DType.F32, 100), (DType.F32, 176), (DType.F64, 48)], ids=str)
def test_sums_of_costly_passes_keep_their_order(dtype: DType, cols: int) -> None:
    """Steps of such a pass have more lanes than sums have, and how many depends on the CPU: the bits do not."""

    @kernel
    def softmax(x: In[Tile[5, cols, dtype]], out: Out[Tile[5, cols, dtype]], sums: Out[Tile[1, cols, dtype]]) -> None:
        weights = pto.exp(x - pto.rowmax(x))
        pto.store(out, weights / pto.rowsum(weights))
        pto.store(sums, pto.colsum(weights))

    x = np.random.default_rng(cols).normal(0, 3, (5, cols)).astype(dtype.numpy)
    found = []
    for cpu in cpus_here():
        arrays = [x, np.zeros_like(x), np.zeros((1, cols), dtype.numpy)]
        run(softmax.graph, arrays, [], False, jit.Target(cpu=CPUS[cpu]))
        found.append(b"".join(a.tobytes() for a in arrays))
        np.testing.assert_allclose(arrays[1].sum(axis=1), 1, rtol=1e-5)
    assert len(set(found)) == 1


def test_sorting_takes_whole_rows() -> None:
    """Indices that a partial tile uses too are complete for the sort."""

    @kernel
    def both(
        x: In[Tile[1, 32, DType.F32]], pairs: Out[Tile[1, 64, DType.F32]], indices: Out[Tile[1, 32, DType.U32]]
    ) -> None:
        index = pto.iota_u32(32)
        pto.store(pairs, pto.tsort32(x, index))
        pto.store(indices, index + index)

    x = np.arange(32, dtype=np.float32)[None]
    pairs, indices = np.zeros((1, 64), np.float32), np.zeros((1, 20), np.uint32)
    run(both.graph, [x, pairs, indices], [], tail=True)
    np.testing.assert_array_equal(pairs[0, 1::2], np.arange(31, -1, -1))
    np.testing.assert_array_equal(indices[0], 2 * np.arange(20))


SPECIAL = (0.0, -0.0, 1.0, -1.0, float("inf"), float("-inf"), float("nan"), 1e-60, 1e60)


@pytest.mark.parametrize("op", ("maximum", "minimum"))
@pytest.mark.parametrize("dtype", (DType.F32, DType.F16, DType.F64), ids=str)
@pytest.mark.parametrize("limit", SPECIAL, ids=str)
def test_a_constant_limit_is_as_good_as_any_other(op: str, dtype: DType, limit: float) -> None:
    """The larger or smaller of a tile and a constant takes fewer instructions, and has the same bits."""

    @kernel
    def limited(x: In[Tile[2, 20, dtype]], left: Out[Tile[2, 20, dtype]], right: Out[Tile[2, 20, dtype]],
                again: Out[Tile[2, 20, dtype]]) -> None:
        constant = pto.constant(limit, dtype)
        pto.store(left, getattr(pto, op)(x, constant))
        pto.store(right, getattr(pto, op)(constant, x))
        pto.store(again, pto.relu(getattr(pto, op)(x, constant)))

    with np.errstate(all="ignore"):
        x = np.resize(np.array(SPECIAL), (2, 20)).astype(dtype.numpy)
        once = OPS[op].reference(x, np.array(limit).astype(dtype.numpy))
    found = [np.zeros_like(x) for _ in range(3)]
    run(limited.graph, [x, *found], [], tail=False)
    for y, want in zip(found, (once, once, OPS["relu"].reference(once)), strict=True):
        nan = np.isnan(want)
        assert (np.isnan(y) == nan).all()
        assert np.where(nan, 0, y).tobytes() == np.where(nan, 0, want).tobytes()


@pytest.mark.parametrize("cols", [2, 4, 34, 74, 128])
def test_pairs_are_written_in_the_pass_that_makes_them(cols: int) -> None:
    """In place, beside other memory, and with other users: `interleave` needs no buffer if it is only stored."""

    @kernel
    def rotate(x: InOut[Tile[5, cols, DType.F32]], out: Out[Tile[5, cols, DType.F32]]) -> None:
        turned = pto.interleave(pto.neg(pto.slice_odd(x)), pto.slice_even(x))
        pto.store(x, turned)
        pto.store(out, turned)

    @kernel
    def rotate_more(x: InOut[Tile[5, cols, DType.F32]], out: Out[Tile[5, cols, DType.F32]]) -> None:
        turned = pto.interleave(pto.neg(pto.slice_odd(x)), pto.slice_even(x))
        pto.store(out, x + 1.0)
        pto.store(x, turned)
        pto.store(out, turned * pto.rowmax(turned))

    buffered = ["-> row" in str(compile_kernel(k.graph).loops) for k in (rotate, rotate_more)]
    assert buffered == [False, True]
    from pto_wsp.trace.interpret import interpret

    for graph in (rotate.graph, rotate_more.graph):
        for rows, used in ((5, cols), (3, max(cols - 2, 2))):  # a whole tile, a partial one
            for apart in (0, 1, 2, cols, 20 * cols):  # elements from x to out
                want, got = (np.arange(1, 30 * cols, dtype=np.float32) for _ in range(2))
                for run_it, home in ((interpret, want), (run, got)):
                    x, out = (home[at:][: 5 * cols].reshape(5, cols)[:rows, :used] for at in (0, apart))
                    run_it(graph, [x, out], [], *([(rows, used) != (5, cols)] if run_it is run else []))
                assert np.array_equal(want, got), (graph.name, rows, used, apart)


@pytest.mark.parametrize("dtype", (DType.F32, DType.F16, DType.F64), ids=str)
@pytest.mark.parametrize("shape", [(16, 33), (16, 256), (5, 7), (3, 1)], ids=str)
def test_largest_absolute_values(dtype: DType, shape: tuple[int, int]) -> None:
    """They are found as integers: with NaN of both signs, infinities and zeros, beside the plain largest values."""
    rows, cols = shape

    @kernel
    def largest(
        x: In[Tile[rows, cols, dtype]],
        by_row: Out[Tile[rows, 1, dtype]],
        by_col: Out[Tile[1, cols, dtype]],
        plain: Out[Tile[rows, 1, dtype]],
    ) -> None:
        pto.store(by_row, pto.rowmax(pto.abs(x)))
        pto.store(by_col, pto.colmax(pto.abs(x)))
        pto.store(plain, pto.rowmax(x))

    rng = np.random.default_rng(rows * cols)
    for special in ([], [np.nan], [-np.nan], [np.inf, -np.inf], [-0.0], SPECIAL):
        x = -(rng.uniform(1, 2, shape).astype(dtype.numpy))
        if special:
            with np.errstate(over="ignore"):
                flat = rng.choice(np.array(special).astype(dtype.numpy), x.shape)
            x = np.where(rng.random(x.shape) < (0.02 if len(special) < 3 else 0.5), flat, x)
        wanted = [f(x) for f in (lambda x: abs(x).max(1), lambda x: abs(x).max(0), lambda x: x.max(1))]
        for tail in (False, True):
            found = [np.zeros(s, dtype.numpy) for s in ((rows, 1), (1, cols), (rows, 1))]
            run(largest.graph, [x, *found], [], tail)
            for a, b in zip(found, wanted):
                assert np.array_equal(a.ravel(), b, equal_nan=True)


@pytest.mark.parametrize("cpu", ["", "x86-64", "x86-64-v3"])
@pytest.mark.parametrize("cols", [3, 16, 50, 256])
def test_largest_of_special_values(cols: int, cpu: str) -> None:
    """Three ints make up the largest of a row: zeros of two signs, rows without a positive number, NaN of two signs."""

    @kernel
    def largest(x: In[Tile[16, cols, DType.F32]], out: Out[Tile[16, 1, DType.F32]]) -> None:
        pto.store(out, pto.rowmax(x))

    special = np.array([-np.inf, -3e38, -1e-45, -0.0, 0.0, 1e-45, np.inf, np.nan, -np.nan], np.float32)
    for most in special:
        for one in special:
            x = np.full((16, cols), most, np.float32)
            x[np.arange(16), np.arange(16) % cols] = one
            out = np.zeros((16, 1), np.float32)
            run(largest.graph, [x, out], [], False, jit.Target(cpu=cpu))
            wanted = np.nan if np.isnan([most, one]).any() else max(most, one, key=lambda v: (v, not np.signbit(v)))
            assert np.array_equal(out, np.full_like(out, wanted), equal_nan=True), (most, one)
            assert np.isnan(wanted) or (np.signbit(out) == np.signbit(wanted)).all(), (most, one)


@pytest.mark.parametrize("dtype", (DType.I8, DType.F16, DType.F32, DType.F64), ids=str)
@pytest.mark.parametrize("shape", ((128, 5), (3, 33), (40, 7)), ids=str)
@pytest.mark.parametrize("gaps", ((0, 0, 0), (0, 0, 3), (3, 0, 0), (1, 2, 3)), ids=str)
def test_rows_may_touch(dtype: DType, shape: tuple[int, int], gaps: tuple[int, ...]) -> None:
    """Tiles of odd widths, whose rows lie one behind the other or have gaps between them, which stay as they are."""
    rows, cols = shape

    @kernel
    def scaled(x: In[Tile[rows, cols, dtype]], y: InOut[Tile[rows, cols, dtype]], out: Out[Tile[rows, cols, dtype]]):
        total = x * 2 + y
        pto.store(y, pto.maximum(total, x))
        pto.store(out, total)

    rng = np.random.default_rng(rows)
    made = [rng.integers(-20, 20, (rows + 1, cols + gap)).astype(dtype.numpy) for gap in gaps]
    arrays = [array[:rows, :cols] for array in made]
    wanted = [array.copy() for array in made]
    total = arrays[0] * 2 + arrays[1]
    wanted[1][:rows, :cols], wanted[2][:rows, :cols] = np.maximum(total, arrays[0]), total
    run(scaled.graph, arrays, [], False)
    for got, want in zip(made, wanted, strict=True):
        assert np.array_equal(got, want)


@pytest.mark.parametrize("cpu", cpus_here())
@pytest.mark.parametrize("tail", (False, True))
@pytest.mark.parametrize("dtype", (DType.I8, DType.F32), ids=str)
def test_nothing_is_read_behind_a_tile(dtype: DType, tail: bool, cpu: str) -> None:
    """Tiles that end where a page ends, and the next page cannot be read."""
    target = jit.Target(cpu=CPUS[cpu])
    for cols in (2, 18, 34, 52):

        @kernel
        def pairs(x: In[Tile[3, cols, dtype]], swapped: Out[Tile[3, cols, dtype]], most: Out[Tile[3, 1, dtype]]):
            even, odd = pto.slice_even(x), pto.slice_odd(x)
            pto.store(swapped, pto.interleave(odd, even))
            pto.store(most, pto.rowmax(pto.maximum(even, odd)))

        x, swapped, most = (at_the_end_of_a_page((3, width), dtype) for width in (cols, cols, 1))
        x[...] = np.arange(3 * cols).reshape(3, cols) % 100
        run(pairs.graph, [x, swapped, most], [], tail, target)
        assert (swapped == x.reshape(3, -1, 2)[:, :, ::-1].reshape(3, cols)).all()
        assert (most == x.astype(float).max(1, keepdims=True)).all()


def at_the_end_of_a_page(shape: tuple[int, int], dtype: DType) -> np.ndarray:
    """An array with a page behind it that cannot be touched."""
    size = int(np.prod(shape)) * dtype.itemsize
    room = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, room + mmap.PAGESIZE)
    whole = np.frombuffer(memory, np.uint8)
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    assert not protect(ctypes.c_void_p(whole.ctypes.data + room), ctypes.c_size_t(mmap.PAGESIZE), 0)
    return whole[room - size : room].view(dtype.numpy).reshape(shape)


@pytest.mark.parametrize("cpu", cpus_here())
@pytest.mark.parametrize("dtype", (DType.I16, DType.F16, DType.F32), ids=str)
def test_columns_side_by_side_or_apart(dtype: DType, cpu: str) -> None:
    """One value per row, read and written for a block of rows at once or row by row; nothing beside it is touched."""
    for rows in (2, 5, 16, 20):

        @kernel
        def scaled(
            x: In[Tile[rows, 40, dtype]],
            low: In[Tile[rows, 1, dtype]],
            factor: In[Tile[rows, 1, dtype]],
            out: Out[Tile[rows, 40, dtype]],
            most: Out[Tile[rows, 1, dtype]],
        ):
            shift = low * 2 + 1
            pto.store(out, (x - shift) * factor)
            pto.store(most, pto.maximum(pto.cast(pto.rowmax(x), dtype) - shift, factor))

        x = (np.arange(rows * 40).reshape(rows, 40) % 23).astype(dtype.numpy)
        low, factor = ((np.arange(rows)[:, None] % n).astype(dtype.numpy) for n in (5, 7))
        shift = low * 2 + 1
        for apart in range(8):
            arrays = [Guarded(x)]
            for n, a in enumerate((low, factor, np.zeros_like(x), np.zeros_like(low))):
                wide = np.repeat(a, 3, axis=1)
                arrays.append(Guarded(wide[:, :1] if {0: 1, 1: 2, 3: 4}.get(n, 0) & apart else a))
            run(scaled.graph, [g.array for g in arrays], [], False, jit.Target(cpu=CPUS[cpu]))
            assert all(g.intact() for g in arrays)
            assert (arrays[3].array == (x - shift) * factor).all()
            assert (arrays[4].array == np.maximum(x.max(1, keepdims=True) - shift, factor)).all()
