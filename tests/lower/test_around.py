"""Results that go around the cache: the same bits, on every CPU; who has a function for that, and when it runs."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pto_wsp import Dense, DType, In, InOut, Out, P, Tensor, Tile, kernel, pto, workload
from pto_wsp.lower import jit
from pto_wsp.lower.around import ALIGNMENT, params_around
from pto_wsp.lower.pipeline import compile_kernel
from pto_wsp.sim import streams
from tests import strategies as draws
from tests.lower.elementwise import CPUS, cpus_here
from tests.lower.test_pipeline import FUNCTION

F32 = DType.F32


def rmsnorm(x: In[Tile[16, 128, F32]], w: In[Tile[1, 128, F32]], out: Out[Tile[16, 128, F32]]):
    pto.store(out, x * pto.rsqrt(pto.rowmean(x * x) + 1e-6) * w)


def softmax(x: In[Tile[7, 80, F32]], out: Out[Tile[7, 80, F32]]):
    weights = pto.exp(x - pto.rowmax(x))
    pto.store(out, weights / pto.rowsum(weights))


def quantise(x: In[Tile[5, 64, F32]], q: Out[Tile[5, 64, DType.I8]], scale: Out[Tile[5, 1, F32]]):
    step = pto.rowmax(pto.abs(x)) * (1 / 127)
    pto.store(scale, step)
    pto.store(q, pto.cast(pto.round(x / step), DType.I8))


def rotate(x: In[Tile[3, 64, DType.F16]], cos: In[Tile[3, 32, DType.F16]], out: Out[Tile[3, 64, DType.F16]]):
    even, odd = pto.slice_even(x), pto.slice_odd(x)
    pto.store(out, pto.interleave(even * cos - odd, even + odd * cos))


def bytes_and_doubles(x: In[Tile[4, 192, DType.I8]], y: In[Tile[4, 24, DType.F64]], a: Out[Tile[4, 192, DType.I8]],
                      b: Out[Tile[4, 24, DType.F64]], sums: Out[Tile[1, 24, DType.F64]]):
    pto.store(a, pto.maximum(x + 3, x))
    pto.store(b, y * 2.0 + 1.0)
    pto.store(sums, pto.colsum(y))


def twice(x: In[Tile[4, 32, F32]], out: Out[Tile[4, 32, F32]], last: InOut[Tile[4, 32, F32]]):
    pto.store(out, x + last)
    pto.store(last, x * last)


BODIES = (rmsnorm, softmax, quantise, rotate, bytes_and_doubles, twice)


def shifted(array: np.ndarray) -> np.ndarray:
    """A copy that lies at a multiple of ALIGNMENT, but of no more."""
    memory = np.zeros(array.nbytes + 128, np.uint8)
    start = -memory.ctypes.data % 64 + ALIGNMENT
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


@cache
def function(body: Any, cpu: str, around: bool) -> tuple[jit.Code, str, int]:
    """Machine code, the function's name, and the bytes of scratch that it needs."""
    target = jit.Target(cpu=CPUS[cpu]) if cpu else jit.HOST
    made = compile_kernel(kernel(body).graph, target=target, around=around)
    assert ("!nontemporal" in made.ir) == around
    code = jit.load(made.ir, target=target)
    return code, made.symbol, ctypes.CFUNCTYPE(ctypes.c_int64)(code.address(f"{made.symbol}.scratch"))()


def bits(body: Any, arrays: list[np.ndarray], cpu: str, around: bool) -> list[bytes]:
    code, symbol, scratch_bytes = function(body, cpu, around)
    arrays, scratch = [shifted(a) for a in arrays], np.zeros(scratch_bytes + 64, np.uint8)
    words = np.array([w for a in arrays for w in (a.ctypes.data, *a.strides, *a.shape)], np.int64)
    FUNCTION(code.address(symbol))(words.ctypes.data, -(-scratch.ctypes.data // 64) * 64)
    for array in arrays:
        if array.dtype.kind == "f":
            array[np.isnan(array)] = np.nan  # which of the NaNs it is depends on the CPU
    return [a.tobytes() for a in arrays]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_same_bits_on_every_cpu(body: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    arrays = draws.random_arguments(kernel(body).graph, rng, strides=False).arrays
    want = bits(body, arrays, "", around=False)
    for cpu in ("", *cpus_here()):
        assert bits(body, arrays, cpu, around=True) == want, cpu


def test_what_goes_around() -> None:
    names = {body.__name__: [p.name for p in params_around(kernel(body).graph)] for body in BODIES}
    assert names == {"rmsnorm": ["out"], "softmax": ["out"], "quantise": ["q"], "rotate": ["out"],
                     "bytes_and_doubles": ["a", "b", "sums"], "twice": ["out"]}

    @kernel
    def product(a: In[Tile[16, 16, F32]], b: In[Tile[16, 16, F32]], out: Out[Tile[16, 16, F32]]):
        pto.store(out, pto.matmul(a, b))

    @kernel
    def narrow(a: In[Tile[16, 20, F32]], out: Out[Tile[16, 20, F32]]):
        pto.store(out, a + 1)

    assert params_around(product.graph) == params_around(narrow.graph) == ()


def test_assembly() -> None:
    """In pieces of 16 bytes, also where vectors are wider."""
    text = compile_kernel(kernel(rmsnorm).graph, target=jit.Target(cpu="x86-64-v4"), around=True).ir
    assert "vmovntps\t%xmm" in jit.assembly(text, jit.Target("x86_64-linux-gnu", "x86-64-v4"))


scaled = kernel(rmsnorm)


@kernel
def doubled(x: In[Tile[16, 128, F32]], out: Out[Tile[16, 128, F32]]):
    pto.store(out, x + x)


@pytest.fixture
def small_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """All results are more than the cache holds, and a second function pays at once."""
    monkeypatch.setattr(streams, "cache_bytes", lambda: 1)
    monkeypatch.setattr(streams, "_WORTH_MAKING", 0)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("rows, offset, read, around", [
    (320, 0, False, True),      # whole tiles
    (325, 0, False, True),      # the last one is partial
    (320, 1, False, False),     # it begins 4 bytes off
    (320, 0, True, False),      # other tasks read it: they will find it in the cache
])
def test_a_program_that_goes_around(
    small_cache: None, threads: int, rows: int, offset: int, read: bool, around: bool
) -> None:
    x = np.random.default_rng(0).standard_normal((rows, 128), np.float32)
    w, y, z = np.full((1, 128), 3, np.float32), np.zeros(rows * 128 + 32, np.float32), np.zeros((rows, 128), np.float32)
    start = -y.ctypes.data % 64 // 4 + offset
    y = y[start : start + rows * 128].reshape(rows, 128)
    X, W, Y, Z = (Tensor(a, a.shape, F32) for a in (x, w, y, z))
    tiles = -(-rows // 16)

    @workload
    def work():
        for i in P(Dense[tiles]()):
            scaled[i](x=X[16 * i : 16 * i + 16], w=W, out=Y[16 * i : 16 * i + 16])
        if read:
            for i in P(Dense[tiles]()):
                doubled[i](x=Y[16 * i : 16 * i + 16], out=Z[16 * i : 16 * i + 16])

    program = work().compile(threads=threads)
    for _ in range(3):
        y[...] = 0
        program.execute()
        program.synchronize()
        expected = x / np.sqrt((x * x).mean(1, keepdims=True) + np.float32(1e-6)) * w
        np.testing.assert_allclose(y, expected, rtol=1e-6)
        if read:
            np.testing.assert_array_equal(z, y + y)
    assert program._executor._around == around


def test_little_is_left_in_the_cache() -> None:
    x = np.zeros((64, 128), np.float32)
    X, Y = Tensor(x, x.shape, F32), Tensor(x.copy(), x.shape, F32)

    @workload
    def work():
        for i in P(Dense[4]()):
            doubled[i](x=X[16 * i : 16 * i + 16], out=Y[16 * i : 16 * i + 16])

    program = work().compile()
    program.execute()
    program.synchronize()
    assert not program._executor._around


def test_the_size_of_the_cache() -> None:
    assert 1 << 18 <= streams.cache_bytes() <= 1 << 32
