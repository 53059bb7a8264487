"""Matrix products against an order-faithful reference, bit for bit, with operands in the last bytes before a guard."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pto_wsp.lower import ir, jit, matmul
from pto_wsp.lower.dots import DOT_LANES
from pto_wsp.lower.matmul import K_BLOCK, MatmulSpec
from pto_wsp.types import DType

FLOATS = (DType.F16, DType.BF16, DType.F32, DType.F64)
CPUS = ("", "x86-64", "x86-64-v3", "x86-64-v4")         # "" is the host
LIBC = ctypes.CDLL(None, use_errno=True)
LIBM_FMA = LIBC.fma
LIBM_FMA.argtypes, LIBM_FMA.restype = [ctypes.c_double] * 3, ctypes.c_double


# ---- the reference ------------------------------------------------------------------------------------------------


def reference(a: np.ndarray, b: np.ndarray, acc: np.ndarray | None, spec: MatmulSpec) -> np.ndarray:
    """The definition in the module's docstring, one k at a time."""
    a, b = a.astype(spec.result.numpy), b.astype(spec.result.numpy)
    total = acc
    with np.errstate(all="ignore"):
        for part in [dot_sums(a, b)] if spec.along_k else block_sums(a, b):
            total = part if total is None else total + part
    assert total is not None
    return total


def block_sums(a: np.ndarray, b: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, max(a.shape[1], 1), K_BLOCK):
        sums = np.zeros((a.shape[0], b.shape[1]), a.dtype)
        for k in range(start, min(start + K_BLOCK, a.shape[1])):
            sums = fma(a[:, k : k + 1], b[k : k + 1, :], sums)
        yield sums


def dot_sums(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    lanes = np.zeros((DOT_LANES, a.shape[0], b.shape[1]), a.dtype)
    for k in range(a.shape[1]):
        lanes[k % DOT_LANES] = fma(a[:, k : k + 1], b[k : k + 1, :], lanes[k % DOT_LANES])
    while len(lanes) > 1:
        lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
    return lanes[0]


def fma(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """x*y + z with one rounding."""
    if z.dtype == np.float32:
        return fma_f32(x, y, z)
    if z.dtype == np.float64:
        return np.vectorize(LIBM_FMA, otypes=[np.float64])(x, y, z)
    return x * y + z


def fma_f32(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The product is exact in f64, where the sum is rounded to odd: that rounds to f32 like the exact sum."""
    product, addend = x.astype(np.float64) * y.astype(np.float64), z.astype(np.float64)
    near = product + addend
    rest = near - product
    error = (product - (near - rest)) + (addend - rest)
    even = near.view(np.int64) & 1 == 0
    odd = np.where(np.isfinite(near) & (error != 0) & even, np.nextafter(near, np.copysign(np.inf, error)), near)
    return odd.astype(np.float32)


def test_reference_rounds_once() -> None:
    tiny = np.float32(2.0**-30)
    x, z = np.array([[1 + 2.0**-12]], np.float32), np.array([[-1.0]], np.float32)
    assert fma_f32(x, x, z)[0, 0] == np.float32(2.0**-11 + 2.0**-24)
    assert fma_f32(x, np.array([[tiny]]), np.array([[np.float32(1)]]))[0, 0] == 1
    rng = np.random.default_rng(0)
    x, y, z = (rng.standard_normal((8, 8)) * 10.0 ** rng.integers(-3, 4, (8, 8)) for _ in range(3))
    libm = LIBC.fmaf
    libm.argtypes, libm.restype = [ctypes.c_float] * 3, ctypes.c_float
    x, y, z = (v.astype(np.float32) for v in (x, y, z))
    assert (fma_f32(x, y, z) == np.vectorize(libm, otypes=[np.float32])(x, y, z)).all()


# ---- running one product ------------------------------------------------------------------------------------------


@cache
def compiled(spec: MatmulSpec, cpu: str) -> tuple[jit.Code, int, int]:
    """Code whose `entry(ptr words)` calls the function, the number of its arguments, its scratch bytes."""
    target = jit.Target(cpu=cpu) if cpu else jit.HOST
    machine = matmul.Target.of(*jit.cpu_features(target))
    module = module_of(spec, machine)
    arguments = len(module.functions[spec.name].args)
    return jit.load(str(module), target=target), arguments, matmul.scratch_bytes(spec, machine)


def module_of(spec: MatmulSpec, machine: matmul.Target) -> ir.Module:
    module = ir.Module()
    function = matmul.emit(module, spec, machine)
    i64, pointer = ir.IntType(64), ir.PointerType()
    entry = ir.Function(module, ir.FunctionType(ir.VoidType(), [pointer]), "entry")
    build = ir.Builder(entry.append_basic_block())
    arguments = []
    for i, argument in enumerate(function.args):
        word = build.load(build.gep(entry.args[0], [i64(i)], source_etype=i64), typ=i64)
        arguments.append(build.inttoptr(word, pointer) if argument.type == pointer else word)
    build.call(function, arguments)
    build.ret_void()
    return module


def multiply(spec: MatmulSpec, cpu: str, a: np.ndarray, b: np.ndarray, c: np.ndarray, acc: np.ndarray | None) -> None:
    """Run it; scratch ends at a guard page too."""
    code, count, scratch_bytes = compiled(spec, cpu)
    scratch = PageEnd(-(-scratch_bytes // 64) * 64)
    words = [a.ctypes.data, *a.strides, b.ctypes.data, *b.strides]
    if acc is not None:
        words += [acc.ctypes.data, *acc.strides]
    words += [c.ctypes.data, c.strides[0]]
    if spec.tail:
        words += [a.shape[0], b.shape[1], a.shape[1]]
    words.append(scratch.address)
    assert len(words) == count
    array = np.array(words, np.int64)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(code.address("entry"))(array.ctypes.data)


class PageEnd:
    """`size` bytes that end where a page begins that nobody may touch, or start where one ends."""

    def __init__(self, size: int, at_start: bool = False) -> None:
        page = mmap.PAGESIZE
        inner = -(-max(size, 1) // page) * page
        self.memory = mmap.mmap(-1, inner + 2 * page)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.guards = (base, base + page + inner)
        self.protect(0)
        self.address = base + page + (0 if at_start else inner - size)
        self.bytes = np.frombuffer(self.memory, np.uint8, size, self.address - base)

    def protect(self, how: int) -> None:
        for guard in self.guards:
            assert LIBC.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(mmap.PAGESIZE), how) == 0

    def __del__(self) -> None:
        self.protect(mmap.PROT_READ | mmap.PROT_WRITE)


class Placed:
    """A matrix laid out as `layout` says in guarded memory; every byte between its elements is watched."""

    def __init__(self, values: np.ndarray, layout: str, at_start: bool, misalign: int = 0) -> None:
        rows, cols, size = *values.shape, values.itemsize
        if layout == "broadcast_row":
            strides = (0, size)
        elif layout == "broadcast_col":
            strides = (size, 0)
        else:
            wide = layout.startswith("gaps")
            step = size * (2 if layout == "gaps_both" else 1)
            pitch = (cols * step + wide * 3 * size) if not layout.endswith("columns") else size
            strides = (pitch, step) if not layout.endswith("columns") else (size, (rows + wide * 3) * size)
        if layout == "crowded":
            strides = (-(-pitch // matmul.CROWDED) * matmul.CROWDED, size)
        if layout == "reversed":
            strides = (-strides[0], -strides[1])
        lowest = sum(min(0, (n - 1) * s) for n, s in zip((rows, cols), strides))
        highest = sum(max(0, (n - 1) * s) for n, s in zip((rows, cols), strides)) + size
        if rows == 0 or cols == 0:
            lowest, highest = 0, 0
        self.place = PageEnd(highest - lowest + misalign, at_start)
        self.place.bytes[:] = 0xA5
        first = self.place.address - lowest + (misalign if at_start else 0)
        self.array = _view(values, first, strides)
        self.array[...] = values
        self.before = self.place.bytes.copy()

    def untouched_but_for_elements(self) -> None:
        """The bytes between elements are as they were."""
        found = self.array.copy()
        self.array[...] = np.frombuffer(bytes([0xA5] * self.array.itemsize), self.array.dtype)[0]
        now = self.place.bytes.copy()
        self.array[...] = found
        assert (now == 0xA5).all(), "wrote between the elements"

    def unchanged(self) -> None:
        assert (self.place.bytes == self.before).all(), "wrote to an operand"


def _view(like: np.ndarray, address: int, strides: tuple[int, int]) -> np.ndarray:
    """An array of like's shape and dtype over memory that somebody else keeps."""
    if not like.size:
        return like
    interface = {"version": 3, "shape": like.shape, "typestr": f"|V{like.itemsize}", "data": (address, False),
                 "strides": strides}
    return np.asarray(type("Memory", (), {"__array_interface__": interface})()).view(like.dtype)


# ---- tests --------------------------------------------------------------------------------------------------------

LAYOUTS = ("rows", "columns", "gaps_rows", "gaps_columns", "gaps_both", "reversed", "crowded", "broadcast_row",
           "broadcast_col")


def available(cpu: str) -> bool:
    host = {word[1:] for word in jit.cpu_features()[1].split(",") if word.startswith("+")}
    return cpu not in CPUS[2:] or {"x86-64-v3": "avx2", "x86-64-v4": "avx512dq"}[cpu] in host


def values_of(rng: np.random.Generator, shape: tuple[int, int], dtype: DType, special: bool) -> np.ndarray:
    if dtype.is_int:
        limits = np.iinfo(dtype.numpy)
        return rng.integers(limits.min, limits.max, shape, dtype.numpy, endpoint=True)
    values = rng.standard_normal(shape) * np.where(rng.random(shape) < 0.2, 1e-3, 1)
    if special:
        odd = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, 1e-40, 6e-8, 65504, 3e38])
        values = np.where(rng.random(shape) < 0.03, rng.choice(odd, shape), values)
    with np.errstate(over="ignore"):
        return values.astype(dtype.numpy)


def same(x: np.ndarray, y: np.ndarray) -> bool:
    """Equal bits, but that one NaN is as good as another."""
    if x.dtype.kind != "f":
        return bool((x == y).all())
    return bool((((x == y) & (np.signbit(x) == np.signbit(y))) | (np.isnan(x) & np.isnan(y))).all())


sizes = st.one_of(*[st.integers(1, 9)] * 2, st.integers(10, 40), st.sampled_from([16, 31, 32, 33, 48, 64, 65]))


@st.composite
def problems(draw: st.DrawFn) -> dict[str, Any]:
    dtype = draw(st.sampled_from(list(DType)))
    small = dtype is DType.F64              # its reference takes a microsecond for each product
    m, n = (draw(st.integers(1, 9) if small else sizes) for _ in range(2))
    k = draw(st.one_of(st.integers(1, 20), st.sampled_from([32, 63, 255, 256, 257, 300] + [513] * (not small))))
    tail = draw(st.booleans())
    cut = [draw(st.integers(0, size)) if tail else 0 for size in (m, n, k)]
    return {
        "dtype": dtype, "shape": (m, n, k), "tail": tail, "extents": tuple(s - c for s, c in zip((m, n, k), cut)),
        "layouts": tuple(draw(st.sampled_from(LAYOUTS)) for _ in range(3)), "c_gap": draw(st.booleans()),
        "acc": draw(st.sampled_from(["none", "none", "apart", "in place"])), "cpu": draw(st.sampled_from(CPUS)),
        "at_start": draw(st.booleans()), "misalign": draw(st.integers(0, 3)), "special": draw(st.booleans()),
        "turned": (draw(st.booleans()), draw(st.booleans())), "seed": draw(st.integers(0, 99)),
    }


PLAIN = {"dtype": DType.F32, "shape": (64, 64, 64), "tail": False, "extents": (64, 64, 64), "layouts": ("rows",) * 3,
         "c_gap": False, "acc": "none", "cpu": "", "at_start": False, "misalign": 0, "special": False,
         "turned": (False, False), "seed": 0}


@given(problems())
@example(PLAIN)
@example(PLAIN | {"shape": (1, 1, 1), "extents": (1, 1, 1)})
@example(PLAIN | {"dtype": DType.F16, "layouts": ("rows", "columns", "rows")})
@example(PLAIN | {"dtype": DType.BF16, "layouts": ("columns", "rows", "rows"), "acc": "apart"})
@example(PLAIN | {"dtype": DType.I8, "layouts": ("columns", "columns", "rows")})
@example(PLAIN | {"dtype": DType.U8, "tail": True, "extents": (63, 61, 0), "acc": "in place"})
@example(PLAIN | {"shape": (50, 52, 61), "extents": (50, 52, 61), "cpu": "x86-64-v3"})
@example(PLAIN | {"shape": (37, 1, 64), "extents": (37, 1, 64)})
@example(PLAIN | {"shape": (64, 5, 100), "extents": (64, 5, 100), "dtype": DType.F16, "acc": "apart"})
@example(PLAIN | {"shape": (3, 70, 45), "tail": True, "extents": (2, 33, 19), "turned": (False, True), "special": True,
                  "layouts": ("rows", "columns", "rows"), "cpu": "x86-64-v3"})
@example(PLAIN | {"shape": (39, 39, 255), "extents": (39, 39, 255), "dtype": DType.U16, "turned": (True, True)})
@example(PLAIN | {"shape": (1, 90, 272), "extents": (1, 90, 272), "layouts": ("rows", "columns", "rows"),
                  "acc": "in place"})
@example(PLAIN | {"shape": (4, 33, 64), "extents": (4, 33, 64), "layouts": ("rows", "gaps_columns", "rows"),
                  "dtype": DType.I8})
@example(PLAIN | {"shape": (8, 9, 33), "extents": (8, 9, 33), "turned": (False, True), "dtype": DType.I8})
def test_equals_the_definition(problem: dict[str, Any]) -> None:
    if not available(problem["cpu"]):
        return
    dtype, (m, n, k) = problem["dtype"], problem["extents"]
    rng = np.random.default_rng(problem["seed"])
    spec = MatmulSpec(*problem["shape"], dtype, dtype, problem["acc"] != "none", problem["tail"], *problem["turned"])
    result = spec.result
    place = {"at_start": problem["at_start"], "misalign": problem["misalign"]}
    layouts = problem["layouts"]
    a = Placed(values_of(rng, (m, k), dtype, problem["special"]), layouts[0], **place)
    b = Placed(values_of(rng, (k, n), dtype, problem["special"]), layouts[1], **place)
    c = Placed(values_of(rng, (m, n), result, False), "gaps_rows" if problem["c_gap"] else "rows", **place)
    start = Placed(values_of(rng, (m, n), result, False), layouts[2], **place)
    acc = {"none": None, "in place": c, "apart": start}[problem["acc"]]
    want = reference(a.array, b.array, None if acc is None else acc.array.copy(), spec)
    multiply(spec, problem["cpu"], a.array, b.array, c.array, None if acc is None else acc.array)
    assert same(c.array, want)
    c.untouched_but_for_elements()
    for operand in (a, b) if acc is None or acc is c else (a, b, acc):
        operand.unchanged()


@pytest.mark.parametrize("shape", [(37, 45, 300), (37, 3, 300)])
@pytest.mark.parametrize("dtype", [DType.F32, DType.F16, DType.BF16, DType.F64, DType.I8], ids=lambda d: d.value)
def test_same_bits_on_every_cpu(dtype: DType, shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(1)
    m, n, k = shape
    a, b = values_of(rng, (m, k), dtype, True), values_of(rng, (k, n), dtype, True)
    spec = MatmulSpec(m, n, k, dtype, dtype)
    results = []
    for cpu in filter(available, CPUS):
        c = np.zeros((m, n), spec.result.numpy)
        multiply(spec, cpu, a, b, c, None)
        results.append(c)
    assert len(results) >= 2
    assert all(same(results[0], other) for other in results[1:])


@pytest.mark.parametrize("shape", [(512, 512, 512), (1, 512, 512), (512, 1, 512), (128, 96, 1000), (2, 300, 4)])
@pytest.mark.parametrize("dtype", [DType.F32, DType.BF16, DType.U8], ids=lambda d: d.value)
def test_large(dtype: DType, shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    rng = np.random.default_rng(2)
    a, b = values_of(rng, (m, k), dtype, False), values_of(rng, (k, n), dtype, False)
    spec = MatmulSpec(m, n, k, dtype, dtype)
    c = np.zeros((m, n), spec.result.numpy)
    multiply(spec, "", a, b, c, None)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    np.testing.assert_allclose(c, exact, rtol=0 if dtype.is_int else 1e-5, atol=0 if dtype.is_int else 1e-4)


def test_block_sums_join_in_order() -> None:
    """[2**25, 1 x 255 | 1 x 256], acc = -2**25: the first 255 ones are lost in their block, the other 256 are not.

    In lanes along k the 31 ones are lost that are summed in the first lane.
    """
    a = np.ones((1, 2 * K_BLOCK), np.float32)
    a[0, 0] = 2.0**25
    b = np.ones((2 * K_BLOCK, 1), np.float32)
    c, acc = np.zeros((1, 1), np.float32), np.full((1, 1), -(2.0**25), np.float32)
    blocks = MatmulSpec(1, 1, 2 * K_BLOCK, DType.F32, DType.F32, accumulate=True, a_turned=True)
    multiply(blocks, "", a, b, c, acc)
    assert not blocks.along_k and c[0, 0] == K_BLOCK
    lanes = replace(blocks, a_turned=False)
    multiply(lanes, "", a, b, c, acc)
    assert lanes.along_k == "a" and c[0, 0] == (DOT_LANES - 1) * 2 * K_BLOCK / DOT_LANES


def test_sums_start_at_plus_zero_and_keep_minus_zero() -> None:
    zero, minus = np.zeros((1, 1), np.float32), np.full((1, 1), -1, np.float32)
    tiny = np.full((1, 1), 1e-30, np.float32)
    for a, b, want_minus in ((minus, zero, False), (-tiny, tiny, True)):
        c = np.ones((1, 1), np.float32)
        multiply(MatmulSpec(1, 1, 1, DType.F32, DType.F32), "", a, b, c, None)
        assert c[0, 0] == 0 and np.signbit(c[0, 0]) == want_minus


@pytest.mark.parametrize("dtype", list(DType), ids=lambda d: d.value)
@pytest.mark.parametrize("tail", [False, True])
@pytest.mark.parametrize("shape", [(20, 21, 22), (20, 2, 40)])
def test_aarch64_text(dtype: DType, tail: bool, shape: tuple[int, int, int]) -> None:
    triple = "aarch64-linux-gnu"
    machine = matmul.Target.of(triple, "+neon")
    module = module_of(MatmulSpec(*shape, dtype, dtype, tail=tail), machine)
    text = jit.assembly(str(module), jit.Target(triple, "neoverse-n1"))
    assert ("fmla" in text) == dtype.is_float
    assert "fmaf" not in text and "__ext" not in text


@given(st.integers(1, 700), st.integers(1, 80), st.sampled_from([14, 15, 16, 32]), st.booleans())
def test_blocking_covers_exactly_and_fits_the_registers(m: int, vectors: int, registers: int, tail: bool) -> None:
    rows, columns = matmul._blocking(m, vectors, registers, tail)
    for runs, extent in ((rows, m), (columns, vectors)):
        covered = sum(count * size for count, size in runs)
        assert len(runs) <= 2
        assert covered == extent if not tail else extent <= covered < extent + runs[0][1]
    height, width = max(size for _, size in rows), max(size for _, size in columns)
    assert height * width + width + 1 <= registers


def test_equal_specs_share_a_function_and_text_is_deterministic() -> None:
    machine = matmul.Target(512, 32, masks=True, pair_dot=True, features=frozenset({"fma", "f16c"}))
    specs = [MatmulSpec(64, 64, 64, DType.F32, DType.F32), MatmulSpec(100, 30, 7, DType.I8, DType.I8, tail=True)]

    def text() -> str:
        module = ir.Module()
        for spec in specs:
            assert matmul.emit(module, spec, machine) is matmul.emit(module, replace(spec), machine)
        return str(module)

    assert text() == text()


def test_unmatched_dtypes_are_refused() -> None:
    with pytest.raises(ValueError, match="no product of f32 and f16"):
        MatmulSpec(1, 1, 1, DType.F32, DType.F16).result


@given(st.builds(MatmulSpec, sizes, sizes, sizes, st.just(DType.F32), st.just(DType.F32), st.just(False), st.booleans(),
                 st.booleans(), st.booleans()), st.sampled_from([128, 256, 512]))
def test_nothing_is_turned_twice(spec: MatmulSpec, bits: int) -> None:
    machine, turned = matmul.Target(bits), matmul._turned(spec)
    assert matmul._turned(turned) == spec and bool(turned.along_k) == bool(spec.along_k)
    if matmul._is_better_turned(spec, machine):
        assert not matmul._is_better_turned(turned, machine) and turned.name != spec.name
