# ruff: noqa: E501  (one case a line)
"""Right kernels on the host shim give NumPy's numbers: every API that the shim has, in one source."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import erf
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pto_wsp.ascend.build import HostProgram, Launch, Out, ShimError, Workspace, build, compiler, shim_folder
from pto_wsp.errors import UsageError

HEAD = '#include "kernel_operator.h"\nusing namespace AscendC;\n'
NUMPY: dict[str, Any] = {
    "half": np.float16, "bfloat16_t": ml_dtypes.bfloat16, "float": np.float32, "int8_t": np.int8, "uint8_t": np.uint8,
    "int16_t": np.int16, "uint16_t": np.uint16, "int32_t": np.int32, "uint32_t": np.uint32, "int64_t": np.int64,
}  # fmt: skip
Tensors = Sequence[tuple[str, int]]


@dataclass(frozen=True)
class Case:
    """A kernel: loads a0, a1, ... whole, runs the body, stores b0, b1, ...; t is scratch of bytes."""

    ins: Tensors
    outs: Tensors
    body: str
    reference: Callable[..., Any]
    rtol: float = 0.0
    low: float = -4.0
    high: float = 4.0
    fill: bool = False  # outputs need a value before the body (it writes a part)

    def source(self, name: str) -> str:
        every = [("a", i, *x) for i, x in enumerate(self.ins)] + [("b", i, *x) for i, x in enumerate(self.outs)]
        lines = [f'extern "C" __global__ __aicore__ void {name}({", ".join(f"GM_ADDR {v}{i}Gm" for v, i, _, _ in every)})', "{"]
        lines += ["KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);", "TPipe pipe;", "TBuf<> tBuf;", "pipe.InitBuffer(tBuf, 32768);"]
        lines += ["[[maybe_unused]] LocalTensor<uint8_t> t = tBuf.Get<uint8_t>();"]
        for v, i, c, n in every:
            size = np.dtype(NUMPY[c]).itemsize
            lines += [f"TBuf<> {v}{i}Buf;", f"pipe.InitBuffer({v}{i}Buf, {n * size});"]
            lines += [f"LocalTensor<{c}> {v}{i} = {v}{i}Buf.Get<{c}>({n});", f"GlobalTensor<{c}> {v}{i}G;"]
            lines += [f"{v}{i}G.SetGlobalBuffer((__gm__ {c} *){v}{i}Gm, {n});"]
            if v == "a" or self.fill:
                lines += [f"DataCopyPad({v}{i}, {v}{i}G, DataCopyExtParams{{1, {n * size}, 0, 0, 0}},"]
                lines += [f"DataCopyPadExtParams<{c}>{{false, 0, 0, static_cast<{c}>(0)}});"]
        lines += ["PipeBarrier<PIPE_ALL>();", self.body, "PipeBarrier<PIPE_ALL>();"]
        for i, (c, n) in enumerate(self.outs):
            size = np.dtype(NUMPY[c]).itemsize
            lines += [f"DataCopyPad(b{i}G, b{i}, DataCopyExtParams{{1, {n * size}, 0, 0, 0}});"]
        return "\n".join([*lines, "}", ""])

    def draw(self, seed: int) -> list[np.ndarray[Any, Any]]:
        random = np.random.default_rng(seed)
        return [random.uniform(self.low, self.high, n).astype(np.float32).astype(NUMPY[c]) for c, n in self.ins]


F, H, J, S = "float", "half", "int32_t", "int16_t"
BAR = "PipeBarrier<PIPE_V>();"
CASES: dict[str, Case] = {}


def f32(function: Callable[..., Any]) -> Callable[..., Any]:
    """Computed in float, rounded once to the operand's type."""
    return lambda *a: function(*(x.astype(np.float32) for x in a)).astype(a[0].dtype)


def add(name: str, *args: Any, **kw: Any) -> None:
    CASES[name] = Case(*args, **kw)


BINARY = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Max": np.maximum, "Min": np.minimum}
for c in (F, H, J, S):
    for op, meaning in BINARY.items():
        function = f32(meaning) if c == H else meaning
        add(f"{op}_{c}", [(c, 100)] * 2, [(c, 100)], f"{op}(b0, a0, a1, 100);", function, low=-100, high=100)
    body = "Adds(b0, a0, static_cast<T>(3), 90); Muls(b1, a0, static_cast<T>(3), 90);"
    body += "Maxs(b2, a0, static_cast<T>(3), 90); Mins(b3, a0, static_cast<T>(3), 90);"
    add(f"scalar_{c}", [(c, 90)], [(c, 90)] * 4, body.replace("T", c),
        lambda x: (x + x.dtype.type(3), x * x.dtype.type(3), np.maximum(x, x.dtype.type(3)), np.minimum(x, x.dtype.type(3))), high=100)  # fmt: skip
for c in (F, H):
    r = 1e-3 if c == H else 1e-6
    add(f"Div_{c}", [(c, 77)] * 2, [(c, 77)], "Div(b0, a0, a1, 77);", f32(np.divide), r, low=0.5)
    add(f"unary_{c}", [(c, 130)], [(c, 130)] * 7,
        "Abs(b0, a0, 130); Exp(b1, a0, 130); Ln(b2, a0, 130); Sqrt(b3, a0, 130); Rsqrt(b4, a0, 130); Reciprocal(b5, a0, 130);"
        "Relu(b6, a0, 130);", lambda x: tuple(f32(g)(x) for g in (
            np.abs, np.exp, np.log, np.sqrt, lambda v: 1 / np.sqrt(v), lambda v: 1 / v, lambda v: np.maximum(v, 0))), 1e-3 if c == H else 1e-6, low=0.1)  # fmt: skip
    add(f"fused_{c}", [(c, 64)] * 3, [(c, 64)] * 6,
        f"Adds(b0, a2, static_cast<{c}>(0), 64); Adds(b1, a2, static_cast<{c}>(0), 64); Adds(b2, a2, static_cast<{c}>(0), 64);" + BAR +
        f"MulAddDst(b0, a0, a1, 64); FusedMulAdd(b1, a0, a1, 64); Axpy(b2, a0, static_cast<{c}>(2), 64); AddRelu(b3, a0, a1, 64);"
        f"SubRelu(b4, a0, a1, 64); LeakyRelu(b5, a0, static_cast<{c}>(0.5f), 64);",
        lambda x, y, z: tuple(f32(g)(x, y, z) for g in (
            lambda p, q, d: d + p * q, lambda p, q, d: p * d + q, lambda p, q, d: d + 2 * p, lambda p, q, d: np.maximum(p + q, 0),
            lambda p, q, d: np.maximum(p - q, 0), lambda p, q, d: np.where(p < 0, p / 2, p))), 2e-3 if c == H else 1e-5)  # fmt: skip
add("bits", [(S, 50)] * 2, [(S, 50)] * 5,
    "And(b0, a0, a1, 50); Or(b1, a0, a1, 50); Not(b2, a0, 50); ShiftRight(b3, a0, (int16_t)2, 50); ShiftLeft(b4, a0, (int16_t)3, 50);",
    lambda x, y: (x & y, x | y, ~x, x >> 2, x << 3), low=-30000, high=30000)  # fmt: skip
add("shift_uint32", [("uint32_t", 50)], [("uint32_t", 50)], "ShiftRight(b0, a0, 7u, 50);", lambda x: x >> 7, low=0, high=2e9)
# rows of 24 floats at a pitch of 32; row broadcast and column broadcast
add("rows", [(F, 20 * 32), (F, 24), (F, 20 * 8)], [(F, 20 * 32)],
    "Adds(b0, a0, 0.0f, 640);" + BAR + "Add(b0, a0, a1, uint64_t{24}, 20, BinaryRepeatParams(1, 1, 1, 4, 4, 0));" + BAR +
    "Mul(b0, b0, a2, uint64_t{24}, 20, BinaryRepeatParams(1, 1, 0, 4, 4, 1));",
    lambda x, w, v: rows_reference(x, w, v))  # fmt: skip


def rows_reference(x: Any, w: Any, v: Any) -> Any:
    out = x.copy().reshape(20, 32)
    out[:, :24] = (out[:, :24] + w) * np.tile(v.reshape(20, 8), (1, 3))
    return out.ravel()


add("bit_mask", [(F, 128)], [(F, 128)], "Adds(b0, a0, 0.0f, 128);" + BAR +
    "uint64_t m[2] = {0x5555555555555555u, 0}; Muls(b0, a0, 2.0f, m, 2, UnaryRepeatParams(1, 1, 8, 8));",
    lambda x: np.where(np.arange(128) % 2 == 0, x * 2, x))  # fmt: skip
add("accumulate_rows", [(F, 64 * 9)], [(F, 64)], "Duplicate(b0, 0.0f, 64);" + BAR +
    "Add(b0, a0, b0, uint64_t{64}, 9, BinaryRepeatParams(1, 1, 1, 0, 8, 0));", lambda x: np.add.accumulate(x.reshape(9, 64))[-1], 1e-6)  # fmt: skip
add("duplicate", [(F, 8)], [(F, 72), (H, 50), ("bfloat16_t", 16), (F, 128)],
    "Duplicate(b0, 2.5f, 72); Duplicate(b1, static_cast<half>(1.5f), 50); Duplicate(b2, static_cast<bfloat16_t>(3.0f), 16);"
    "Duplicate(b3, 0.0f, 128);" + BAR + "Duplicate(b3, 7.0f, uint64_t{8}, 4, 1, 4);",
    lambda _: (np.full(72, 2.5), np.full(50, 1.5), np.full(16, 3.0), np.where(np.arange(128) % 32 < 8, 7.0, 0.0)))  # fmt: skip
add("copies", [(F, 256)], [(F, 256), (F, 128)],
    "DataCopy(b0, a0, 256); Copy(b1, a0[64], uint64_t{64}, 2, {1, 1, 8, 8});", lambda x: (x, x[64:192]))  # fmt: skip
add("copy_strided", [(F, 256)], [(F, 64)], "DataCopy(b0, a0, DataCopyParams{4, 2, 6, 0});", lambda x: x.reshape(4, 64)[:, :16].ravel())
CASTS = [
    (F, H, "RINT"), (F, H, "NONE"), (F, H, "TRUNC"), (F, H, "CEIL"), (F, H, "FLOOR"), (H, F, "NONE"), (F, "bfloat16_t", "RINT"), ("bfloat16_t", F, "NONE"),
    (F, J, "RINT"), (F, J, "TRUNC"), (F, J, "FLOOR"), (F, J, "CEIL"), (F, J, "ROUND"), (F, S, "TRUNC"), (F, "int64_t", "RINT"), ("int64_t", F, "RINT"),
    (J, F, "NONE"), (J, S, "NONE"), (J, "int64_t", "NONE"), ("int64_t", J, "NONE"), (S, F, "NONE"), (S, H, "NONE"), (H, J, "TRUNC"), (H, S, "RINT"),
    (H, "int8_t", "TRUNC"), (H, "uint8_t", "RINT"), ("int8_t", H, "NONE"), ("uint8_t", H, "NONE"), ("bfloat16_t", J, "TRUNC"), (F, F, "FLOOR"), (F, F, "ROUND"),
]  # fmt: skip


def cast_reference(source: str, target: str, mode: str) -> Callable[[Any], Any]:
    def away(v: Any) -> Any:
        return np.sign(v) * np.floor(np.abs(v) + 0.5)

    rounding = {"RINT": np.rint, "TRUNC": np.trunc, "FLOOR": np.floor, "CEIL": np.ceil, "ROUND": away, "NONE": np.rint}[mode]

    def cast(x: Any) -> Any:
        v = x.astype(np.float64)
        if target in (F, H, "bfloat16_t") and not (source == target == F):
            near = x.astype(NUMPY[target])
            if mode in ("TRUNC", "FLOOR", "CEIL"):
                wide = near.astype(np.float64)
                too_big = {"TRUNC": np.abs(wide) > np.abs(v), "FLOOR": wide > v, "CEIL": wide < v}[mode]
                toward = {"TRUNC": 0.0, "FLOOR": -np.inf, "CEIL": np.inf}[mode]
                near = np.where(too_big, np.nextafter(near, NUMPY[target](toward)), near)
            return near
        return rounding(v).astype(NUMPY[target])

    return cast


for source, target, mode in CASTS:
    low = 0.0 if target == "uint8_t" or source == "uint8_t" else -100.0
    add(f"cast_{source}_{target}_{mode}", [(source, 70)], [(target, 70)], f"Cast(b0, a0, RoundMode::CAST_{mode}, 70);",
        cast_reference(source, target, mode), low=low, high=100)  # fmt: skip
add("cast_int32_half", [(J, 64)], [(H, 64)], "SetDeqScale(static_cast<half>(1.0f)); Cast(b0, a0, RoundMode::CAST_NONE, 64);", lambda x: x.astype(np.float16),
    low=-900, high=900)  # fmt: skip
add("cast_repeats", [(F, 4 * 64)], [(H, 4 * 64)], "Cast(b0, a0, RoundMode::CAST_RINT, uint64_t{64}, 4, UnaryRepeatParams(1, 1, 4, 8));", lambda x: x.astype(np.float16))
for c in (F, H):
    n = 128 if c == F else 256
    for mode, meaning in {"LT": np.less, "GT": np.greater, "EQ": np.equal, "LE": np.less_equal, "GE": np.greater_equal, "NE": np.not_equal}.items():
        add(f"compare_{mode}_{c}", [(c, n)] * 2, [("uint8_t", n // 8), (c, n), (c, n)],
            f"Compare(b0, a0, a1, CMPMODE::{mode}, {n});" + BAR + f"Select(b1, b0, a0, a1, SELMODE::VSEL_TENSOR_TENSOR_MODE, {n});"
            f"Select(b2, b0, a0, static_cast<{c}>(5), SELMODE::VSEL_TENSOR_SCALAR_MODE, {n});",
            lambda x, y, g=meaning: (np.packbits(g(x, y), bitorder="little"), np.where(g(x, y), x, y), np.where(g(x, y), x, x.dtype.type(5))))  # fmt: skip
    add(f"compare_scalar_{c}", [(c, n)], [("uint8_t", n // 8)], f"CompareScalar(b0, a0, static_cast<{c}>(1), CMPMODE::GE, {n});",
        lambda x: np.packbits(x >= 1, bitorder="little"))  # fmt: skip
    tol = 2e-2 if c == H else 1e-5
    add(f"whole_{c}", [(c, 8 * 64)], [(c, 8), (c, 8), (c, 8), (c, 16)],
        f"WholeReduceSum(b0, a0, 40, 8, 1, 1, {4 if c == H else 8}); WholeReduceMax(b1, a0, 40, 8, 1, 1, {4 if c == H else 8}, ReduceOrder::ORDER_ONLY_VALUE);"
        f"WholeReduceMin(b2, a0, 40, 8, 1, 1, {4 if c == H else 8}, ReduceOrder::ORDER_ONLY_VALUE); WholeReduceMax(b3, a0, 40, 8, 1, 1, {4 if c == H else 8});",
        lambda x: whole_reference(x), tol)  # fmt: skip


def whole_reference(x: Any) -> Any:
    v = x.reshape(8, 64)[:, :40]
    pairs = np.zeros((8, 2), x.dtype)
    pairs[:, 0] = v.max(1)
    index = {2: np.uint16, 4: np.uint32}[x.itemsize]
    pairs[:, 1] = v.argmax(1).astype(index).view(x.dtype)
    return v.astype(np.float32).sum(1), v.max(1), v.min(1), pairs.ravel()


add("block_reduce", [(F, 128)], [(F, 16), (F, 16), (F, 16), (F, 64)],
    "BlockReduceSum(b0, a0, 2, 64, 1, 1, 8); BlockReduceMax(b1, a0, 2, 64, 1, 1, 8); BlockReduceMin(b2, a0, 2, 64, 1, 1, 8); PairReduceSum(b3, a0, 2, 64, 1, 1, 8);",
    lambda x: (x.reshape(16, 8).sum(1), x.reshape(16, 8).max(1), x.reshape(16, 8).min(1), x.reshape(64, 2).sum(1)), 1e-5)  # fmt: skip
add("count_reduce", [(F, 1000)], [(F, 8), (F, 8), (F, 8)],
    "LocalTensor<float> f = t.ReinterpretCast<float>(); Duplicate(b0, 0.0f, 8); Duplicate(b1, 0.0f, 8); Duplicate(b2, 0.0f, 8);" + BAR +
    "ReduceSum(b0, a0, f, 1000); ReduceMax(b1, a0, f[1024], 1000, true); ReduceMin(b2, a0, f[2048], 1000);",
    lambda x: ([x.sum(), *[0] * 7], [x.max(), np.uint32(x.argmax()).view(np.float32), *[0] * 6], [x.min(), *[0] * 7]), 1e-5)  # fmt: skip
for op, meaning in {"Sum": np.sum, "Max": np.max, "Min": np.min, "Mean": np.mean}.items():
    add(f"axis_{op}", [(F, 10 * 104)], [(F, 10), (F, 100)],
        f"uint32_t s[2] = {{10, 100}}; Reduce{op}<float, Pattern::Reduce::AR>(b0, a0, t, s, true);" + BAR +
        f"Reduce{op}<float, Pattern::Reduce::RA>(b1, a0, t, s, true);",
        lambda x, g=meaning: (g(x.reshape(10, 104)[:, :100], axis=1), g(x.reshape(10, 104)[:, :100], axis=0)), 1e-5)  # fmt: skip
add("brcb", [(F, 16)], [(F, 128)], "Brcb(b0, a0, 2, {1, 8});", lambda x: np.repeat(x, 8))
add("brcb_half", [(H, 8)], [(H, 128)], "Brcb(b0, a0, 1, {1, 8});", lambda x: np.repeat(x, 16))
add("broadcast", [(F, 16), (F, 24)], [(F, 16 * 24), (F, 16 * 24)],
    "uint32_t d[2] = {16, 24}, r[2] = {16, 1}, w[2] = {1, 24}; Broadcast<float, 2, 1>(b0, a0, d, r, t);" + BAR + "Broadcast<float, 2, 0>(b1, a1, d, w, t);",
    lambda v, w: (np.repeat(v, 24), np.tile(w, 16)))  # fmt: skip
add("progressions", [(F, 8)], [(J, 40), (F, 40), (S, 40)],
    "CreateVecIndex(b0, 5, 40); ArithProgression(b1, 1.0f, 0.5f, 40); ArithProgression(b2, (int16_t)0, (int16_t)3, 40);",
    lambda _: (np.arange(40) + 5, 1 + np.arange(40) * 0.5, np.arange(40) * 3))  # fmt: skip
add("gather", [(F, 64), (J, 32)], [(F, 32)], "Muls(a1, a1, 4, 32);" + BAR + "Gather(b0, a0, a1.ReinterpretCast<uint32_t>(), 0, 32);",
    lambda x, i: x[i], low=0, high=64)  # fmt: skip
add("gatherb", [("uint32_t", 128), ("uint32_t", 8)], [("uint32_t", 64)],
    "ShiftLeft(a1, a1, 5u, 8);" + BAR + "Gatherb(b0, a0, a1, 1, {1, 8});", lambda x, i: x.reshape(16, 8)[i].ravel(), low=0, high=15.9)  # fmt: skip
add("gather_mask", [(F, 128)], [(F, 64), (F, 32), (F, 40)],
    "uint64_t kept; GatherMask(b0, a0, 1, false, 0, {1, 2, 8, 0}, kept); GatherMask(b1, a0, 5, false, 0, {1, 2, 8, 0}, kept);"
    "GatherMask(b2, a0, 7, true, 40, {1, 1, 8, 0}, kept);", lambda x: (x[::2], x[2::4], x[:40]))  # fmt: skip
add("compact", [(F, 64)], [(F, 64)],
    "LocalTensor<uint8_t> m = tBuf.Get<uint8_t>(); CompareScalar(m, a0, 0.0f, CMPMODE::GT, 64); Duplicate(b0, 0.0f, 64);" + BAR +
    "uint64_t kept; GatherMask(b0, a0, m.ReinterpretCast<uint32_t>(), true, 64, {1, 1, 8, 1}, kept);",
    lambda x: np.concatenate([x[x > 0], np.zeros((x <= 0).sum(), np.float32)]))  # fmt: skip
add("transpose", [(H, 256)], [(H, 256)], "Transpose(b0, a0);", lambda x: x.reshape(16, 16).T.ravel())
add("transpose_5hd_2", [(S, 256)], [(S, 256)],
    "uint64_t p[16], q[16]; for (int i = 0; i < 16; ++i) { p[i] = (uint64_t)b0[i * 16].GetPhyAddr(); q[i] = (uint64_t)a0[i * 16].GetPhyAddr(); }"
    "TransDataTo5HD<int16_t>(p, q, TransDataTo5HDParams(false, false, 1, 0, 0));", lambda x: x.reshape(16, 16).T.ravel(), low=-999, high=999)  # fmt: skip
add("transpose_5hd_4", [(F, 128)], [(F, 128)],
    "uint64_t p[16], q[16]; for (int i = 0; i < 16; ++i) { p[i] = (uint64_t)b0[i / 2 * 16 + i % 2 * 8].GetPhyAddr(); q[i] = (uint64_t)a0[i * 8].GetPhyAddr(); }"
    "TransDataTo5HD<float>(p, q, TransDataTo5HDParams(false, false, 1, 0, 0));", lambda x: x.reshape(16, 8).T.ravel())  # fmt: skip
INDEX = "LocalTensor<int32_t> i = t.ReinterpretCast<int32_t>(); CreateVecIndex(i, 0, 128);" + BAR
for c in (F, H):
    room = 128 * (2 if c == F else 4)
    add(f"sort_{c}", [(c, 128)], [(c, 128), ("uint32_t", 128)], INDEX +
        f"LocalTensor<{c}> s = t[1024].ReinterpretCast<{c}>(), w = tBuf.GetWithOffset<{c}>({room}, 8192);"
        f"Sort<{c}, true>(s, a0, i.ReinterpretCast<uint32_t>(), w, 4);" + BAR + "Extract(b0, b1, s, 4);",
        lambda x: (x[np.argsort(-x, kind="stable")], np.argsort(-x, kind="stable")))  # fmt: skip
add("merge", [(F, 128)], [(F, 128), ("uint32_t", 128)], INDEX +
    "LocalTensor<float> s = t[1024].ReinterpretCast<float>(), m = t[8192].ReinterpretCast<float>(); Sort32(s, a0, i.ReinterpretCast<uint32_t>(), 4);" + BAR +
    "uint16_t n[4] = {32, 32, 32, 32}; MrgSort(m, MrgSortSrcList<float>(s, s[64], s[128], s[192]), MrgSort4Info(n, false, 15, 1));" + BAR + "Extract(b0, b1, m, 4);",
    lambda x: (x[np.argsort(-x, kind="stable")], np.argsort(-x, kind="stable")))  # fmt: skip
MATH: dict[str, Callable[[Any], Any]] = {
    "Tanh": np.tanh, "Sigmoid": lambda x: 1 / (1 + np.exp(-x)), "Sin": np.sin, "Cos": np.cos, "Erf": np.vectorize(erf), "Tan": np.tan, "Sinh": np.sinh, "Cosh": np.cosh,
    "Atan": np.arctan, "Gelu": lambda x: x / (1 + np.exp(-1.5957691 * (x + 0.044715 * x**3))), "FasterGelu": lambda x: x / (1 + np.exp(-1.702 * x)),
    "Log2": lambda x: np.log2(np.abs(x)),
}  # fmt: skip
for c in (F, H):
    for op, meaning in MATH.items():
        body = f"Abs(a0, a0, 90); {BAR}" if op == "Log2" else ""
        add(f"{op}_{c}", [(c, 90)], [(c, 90)], f"{body} {op}(b0, a0, t, 90);",
            lambda x, g=meaning: g(x.astype(np.float64)).astype(x.dtype), 2e-3 if c == H else 1e-5)  # fmt: skip
    add(f"silu_{c}", [(c, 90)], [(c, 90), (c, 90)], f"Silu(b0, a0, 90); Swish(b1, a0, 90, static_cast<{c}>(2));",
        lambda x: tuple((x.astype(np.float64) / (1 + np.exp(-k * x.astype(np.float64)))).astype(x.dtype) for k in (1, 2)), 2e-3 if c == H else 1e-5)  # fmt: skip
add("power", [(F, 90), (F, 90)], [(F, 90), (F, 90)], "Power(b0, a0, a1, t, 90);" + BAR + "Power(b1, a0, 3.0f, t, 90);", lambda x, y: (x**y, x**3), 1e-5, low=0.5)
add("fmod_xor", [(F, 64), (F, 64), (S, 64), (S, 64)], [(F, 64), (S, 64)], "Fmod(b0, a0, a1, t, 64);" + BAR + "Xor(b1, a2, a3, t, 64);",
    lambda x, y, p, q: (np.fmod(x, y), p ^ q), 1e-5, low=1, high=900)  # fmt: skip

EXTRA = """
extern "C" __global__ __aicore__ void pad_rows(GM_ADDR x, GM_ADDR y, uint32_t rows, uint32_t cols, uint32_t ld)
{   // rows of a matrix with pitch ld, one element of left padding, 16 elements to a row in UB
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
    TPipe pipe; TBuf<> b; pipe.InitBuffer(b, 8192);
    LocalTensor<float> t = b.Get<float>();
    GlobalTensor<float> xG, yG; xG.SetGlobalBuffer((__gm__ float *)x, rows * ld); yG.SetGlobalBuffer((__gm__ float *)y, rows * 16);
    uint32_t used = (cols + 1 + 7) / 8;
    DataCopyExtParams run{static_cast<uint16_t>(rows), static_cast<uint32_t>(cols * 4), static_cast<uint32_t>((ld - cols) * 4), 2 - used, 0};
    Duplicate(t, -1.0f, static_cast<int32_t>(rows * 16));
    PipeBarrier<PIPE_ALL>();
    DataCopyPad(t, xG, run, DataCopyPadExtParams<float>{true, 1, static_cast<uint8_t>(used * 8 - cols - 1), 9.0f});
    PipeBarrier<PIPE_ALL>();
    DataCopy(yG, t, rows * 16);
}
extern "C" __global__ __aicore__ void ring(GM_ADDR x, GM_ADDR y, uint32_t tiles, float s)
{   // planned style: two slots in one arena, explicit events
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
    constexpr uint32_t kTile = 256;
    TPipe pipe; TBuf<> arena; pipe.InitBuffer(arena, 4 * kTile * 4);
    GlobalTensor<float> xGm, yGm; xGm.SetGlobalBuffer((__gm__ float *)x, tiles * kTile); yGm.SetGlobalBuffer((__gm__ float *)y, tiles * kTile);
    LocalTensor<float> in[2], out[2];
    TEventID loaded[2], readDone[2], computed[2], stored[2];
    for (uint32_t i = 0; i < 2; ++i) {
        in[i] = arena.GetWithOffset<float>(kTile, i * kTile * 4); out[i] = arena.GetWithOffset<float>(kTile, (2 + i) * kTile * 4);
        loaded[i] = pipe.AllocEventID<HardEvent::MTE2_V>(); readDone[i] = pipe.AllocEventID<HardEvent::V_MTE2>();
        computed[i] = pipe.AllocEventID<HardEvent::V_MTE3>(); stored[i] = pipe.AllocEventID<HardEvent::MTE3_V>();
        SetFlag<HardEvent::V_MTE2>(readDone[i]);
        SetFlag<HardEvent::MTE3_V>(stored[i]);
    }
    uint32_t n = 0;
    for (uint32_t t = static_cast<uint32_t>(GetBlockIdx()); t < tiles; t += static_cast<uint32_t>(GetBlockNum()), ++n) {
        uint32_t i = n % 2;
        WaitFlag<HardEvent::V_MTE2>(readDone[i]); // mutant
        DataCopy(in[i], xGm[static_cast<uint64_t>(t) * kTile], kTile);
        SetFlag<HardEvent::MTE2_V>(loaded[i]); // mutant
        WaitFlag<HardEvent::MTE2_V>(loaded[i]); // mutant
        WaitFlag<HardEvent::MTE3_V>(stored[i]); // mutant
        Muls(out[i], in[i], s, static_cast<int32_t>(kTile));
        SetFlag<HardEvent::V_MTE2>(readDone[i]); // mutant
        SetFlag<HardEvent::V_MTE3>(computed[i]); // mutant
        WaitFlag<HardEvent::V_MTE3>(computed[i]); // mutant
        DataCopy(yGm[static_cast<uint64_t>(t) * kTile], out[i], kTile);
        SetFlag<HardEvent::MTE3_V>(stored[i]); // mutant
    }
    for (uint32_t i = 0; i < 2; ++i) {
        WaitFlag<HardEvent::V_MTE2>(readDone[i]); // mutant
        WaitFlag<HardEvent::MTE3_V>(stored[i]); // mutant
        pipe.ReleaseEventID<HardEvent::MTE2_V>(loaded[i]); // mutant
        pipe.ReleaseEventID<HardEvent::V_MTE2>(readDone[i]); // mutant
        pipe.ReleaseEventID<HardEvent::V_MTE3>(computed[i]); // mutant
        pipe.ReleaseEventID<HardEvent::MTE3_V>(stored[i]); // mutant
    }
}
extern "C" __global__ __aicore__ void total(GM_ADDR x, GM_ADDR y, GM_ADDR ws)
{   // every core adds its 64 numbers to the workspace; after a meeting core 0 sums what all of them left
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIV_1_0);
    int32_t me = static_cast<int32_t>(GetBlockIdx()), all = static_cast<int32_t>(GetBlockNum());
    TPipe pipe; TBuf<> b; pipe.InitBuffer(b, 2048);
    LocalTensor<float> a = b.Get<float>(64), t = b.GetWithOffset<float>(64, 256);
    GlobalTensor<float> xG, wG, yG;
    xG.SetGlobalBuffer((__gm__ float *)x, 64 * static_cast<uint64_t>(all)); wG.SetGlobalBuffer((__gm__ float *)ws, 64); yG.SetGlobalBuffer((__gm__ float *)y, 8);
    if (me == 0) {
        Duplicate(t, 0.0f, 64);
        PipeBarrier<PIPE_ALL>();
        DataCopy(wG, t, 64);
    }
    SyncAll(); // mutant
    DataCopy(a, xG[64 * static_cast<uint64_t>(me)], 64);
    PipeBarrier<PIPE_ALL>();
    SetAtomicAdd<float>();
    DataCopy(wG, a, 64);
    SetAtomicNone();
    CrossCoreSetFlag<0x0, PIPE_MTE3>(3); // mutant
    CrossCoreWaitFlag<0x0>(3); // mutant
    if (me == 0) {
        DataCopy(t, wG, 64);
        PipeBarrier<PIPE_ALL>();
        ReduceSum(a, t, t, 64);
        int32_t e = pipe.FetchEventID(HardEvent::V_S);
        SetFlag<HardEvent::V_S>(e); // mutant
        WaitFlag<HardEvent::V_S>(e); // mutant
        yG.SetValue(0, a.GetValue(0));
        DataCacheCleanAndInvalid<float, CacheLine::SINGLE_CACHE_LINE, DcciDst::CACHELINE_OUT>(yG); // mutant
    }
}
template <typename A, typename C, typename O> class Product
{   // y[m, n] = x[m, k] @ w, w as n x k, one tile
public:
    __aicore__ inline void Run(GM_ADDR x, GM_ADDR w, GM_ADDR bias, GM_ADDR y, uint32_t m, uint32_t n, uint32_t k, QuantMode_t quant, bool relu)
    {
        constexpr uint32_t c0 = 32 / sizeof(A);
        uint32_t mb = (m + 15) / 16, nb = (n + 15) / 16, kb = (k + c0 - 1) / c0;
        TPipe pipe;
        TQue<TPosition::A1, 1> qa; TQue<TPosition::B1, 1> qb; TQue<TPosition::A2, 1> qa2; TQue<TPosition::B2, 1> qb2; TQue<TPosition::CO1, 1> qc;
        TQue<TPosition::C1, 1> qc1; TQue<TPosition::C2, 1> qc2;
        pipe.InitBuffer(qa, 1, mb * kb * 512); pipe.InitBuffer(qb, 1, nb * kb * 512); pipe.InitBuffer(qa2, 1, mb * kb * 512);
        pipe.InitBuffer(qb2, 1, nb * kb * 512); pipe.InitBuffer(qc, 1, mb * nb * 1024);
        pipe.InitBuffer(qc1, 1, nb * 64); pipe.InitBuffer(qc2, 1, nb * 64);
        GlobalTensor<A> xG, wG; GlobalTensor<O> yG; GlobalTensor<C> bG;
        xG.SetGlobalBuffer((__gm__ A *)x, m * k); wG.SetGlobalBuffer((__gm__ A *)w, n * k); yG.SetGlobalBuffer((__gm__ O *)y, m * n); bG.SetGlobalBuffer((__gm__ C *)bias, nb * 16);
        LocalTensor<A> a = qa.template AllocTensor<A>(), b = qb.template AllocTensor<A>();
        DataCopy(a, xG, Nd2NzParams(1, m, k, 0, k, mb * 16, 1, 0));
        DataCopy(b, wG, Nd2NzParams(1, n, k, 0, k, nb * 16, 1, 0));
        qa.EnQue(a); qb.EnQue(b); a = qa.template DeQue<A>(); b = qb.template DeQue<A>();
        LocalTensor<C> c1 = qc1.template AllocTensor<C>(); DataCopy(c1, bG, nb * 16); qc1.EnQue(c1); c1 = qc1.template DeQue<C>();
        LocalTensor<C> c2 = qc2.template AllocTensor<C>(); DataCopy(c2, c1, nb * 16); qc2.EnQue(c2); qc1.FreeTensor(c1); c2 = qc2.template DeQue<C>();
        LocalTensor<A> a2 = qa2.template AllocTensor<A>(), b2 = qb2.template AllocTensor<A>();
        for (uint32_t i = 0; i < mb; ++i) LoadData(a2[i * kb * 512 / sizeof(A)], a[i * 512 / sizeof(A)], LoadData2DParams(0, kb, mb, 0, 0, false, 0));
        LoadData(b2, b, LoadData2DParams(0, nb * kb, 1, 0, 0, false, 0));
        qa2.EnQue(a2); qb2.EnQue(b2); qa.FreeTensor(a); qb.FreeTensor(b); a2 = qa2.template DeQue<A>(); b2 = qb2.template DeQue<A>();
        LocalTensor<C> c = qc.template AllocTensor<C>();
        Mmad(c, a2, b2, c2, MmadParams(m < 16 ? 16 : m, n, k, 0, false, false));
        qc.EnQue(c); qa2.FreeTensor(a2); qb2.FreeTensor(b2); qc2.FreeTensor(c2); c = qc.template DeQue<C>();
        Fixpipe(yG, c, FixpipeParamsV220(n, m, mb * 16, n, relu, quant, 0, 1, 0, 0, 0));
        qc.FreeTensor(c);
    }
};
extern "C" __global__ __aicore__ void mm_kn(GM_ADDR x, GM_ADDR w, GM_ADDR y)
{   // y[32, 48] = x[32, 64] @ w[64, 48], half in, each fractal of w transposed on its way to L0B
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIC_ONLY);
    TPipe pipe;
    TBuf<TPosition::A1> la; TBuf<TPosition::B1> lb; TBuf<TPosition::A2> a2b; TBuf<TPosition::B2> b2b; TBuf<TPosition::CO1> cb;
    pipe.InitBuffer(la, 32 * 64 * 2); pipe.InitBuffer(lb, 64 * 48 * 2); pipe.InitBuffer(a2b, 32 * 64 * 2); pipe.InitBuffer(b2b, 64 * 48 * 2); pipe.InitBuffer(cb, 32 * 48 * 4);
    LocalTensor<half> a = la.Get<half>(), b = lb.Get<half>(), a2 = a2b.Get<half>(), b2 = b2b.Get<half>(); LocalTensor<float> c = cb.Get<float>();
    GlobalTensor<half> xG, wG; GlobalTensor<float> yG;
    xG.SetGlobalBuffer((__gm__ half *)x, 32 * 64); wG.SetGlobalBuffer((__gm__ half *)w, 64 * 48); yG.SetGlobalBuffer((__gm__ float *)y, 32 * 48);
    DataCopy(a, xG, Nd2NzParams{1, 32, 64, 0, 64, 32, 1, 0});
    DataCopy(b, wG, Nd2NzParams{1, 64, 48, 0, 48, 64, 1, 0});
    TEventID e = pipe.AllocEventID<HardEvent::MTE2_MTE1>(), f = pipe.AllocEventID<HardEvent::MTE1_M>(), g = pipe.AllocEventID<HardEvent::M_FIX>();
    SetFlag<HardEvent::MTE2_MTE1>(e); // mutant
    WaitFlag<HardEvent::MTE2_MTE1>(e); // mutant
    for (uint32_t i = 0; i < 2; ++i) LoadData(a2[i * 64 * 16], a[i * 256], LoadData2DParams(0, 4, 2, 0, 0, false, 0));
    for (uint32_t i = 0; i < 4; ++i) LoadData(b2[i * 48 * 16], b[i * 256], LoadData2DParams(0, 3, 4, 0, 0, true, 0));
    SetFlag<HardEvent::MTE1_M>(f); // mutant
    WaitFlag<HardEvent::MTE1_M>(f); // mutant
    Mmad(c, a2, b2, MmadParams(32, 48, 64, 0, false, true));
    SetFlag<HardEvent::M_FIX>(g); // mutant
    WaitFlag<HardEvent::M_FIX>(g); // mutant
    Fixpipe(yG, c, FixpipeParamsV220(48, 32, 32, 48, false, QuantMode_t::NoQuant, 0, 1, 0, 0, 0));
    pipe.ReleaseEventID<HardEvent::MTE2_MTE1>(e); pipe.ReleaseEventID<HardEvent::MTE1_M>(f); pipe.ReleaseEventID<HardEvent::M_FIX>(g);
}
extern "C" __global__ __aicore__ void mm_kn_float(GM_ADDR x, GM_ADDR w, GM_ADDR y)
{   // y[16, 48] = x[16, 32] @ w[32, 48] in float: w in squares of 16 x 16, transposed by LoadDataWithTranspose
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIC_ONLY);
    TPipe pipe;
    TBuf<TPosition::A1> la; TBuf<TPosition::B1> lb; TBuf<TPosition::A2> a2b; TBuf<TPosition::B2> b2b; TBuf<TPosition::CO1> cb;
    pipe.InitBuffer(la, 16 * 32 * 4); pipe.InitBuffer(lb, 32 * 48 * 4); pipe.InitBuffer(a2b, 16 * 32 * 4); pipe.InitBuffer(b2b, 32 * 48 * 4); pipe.InitBuffer(cb, 16 * 48 * 4);
    LocalTensor<float> a = la.Get<float>(), b = lb.Get<float>(), a2 = a2b.Get<float>(), b2 = b2b.Get<float>(), c = cb.Get<float>();
    GlobalTensor<float> xG, wG, yG;
    xG.SetGlobalBuffer((__gm__ float *)x, 16 * 32); wG.SetGlobalBuffer((__gm__ float *)w, 32 * 48); yG.SetGlobalBuffer((__gm__ float *)y, 16 * 48);
    DataCopy(a, xG, Nd2NzParams{1, 16, 32, 0, 32, 16, 1, 0});
    for (uint32_t k = 0; k < 32; k += 16) DataCopy(b[k * 48], wG[k * 48], Nd2NzParams{1, 16, 48, 0, 48, 16, 1, 0});
    PipeBarrier<PIPE_ALL>();
    LoadData(a2, a, LoadData2DParams(0, 4, 1, 0, 0, false, 0));
    for (uint32_t k = 0; k < 32; k += 16) LoadDataWithTranspose(b2[k * 48], b[k * 48], LoadData2dTransposeParams(0, 3, 1, 0, 2));
    PipeBarrier<PIPE_ALL>();
    Mmad(c, a2, b2, MmadParams(16, 48, 32, 0, false, true));
    PipeBarrier<PIPE_ALL>();
    Fixpipe(yG, c, FixpipeParamsV220(48, 16, 16, 48, false, QuantMode_t::NoQuant, 0, 1, 0, 0, 0));
}
extern "C" __global__ __aicore__ void any_copy(GM_ADDR x, GM_ADDR y, uint32_t rows, uint32_t cols, uint32_t srcGap, uint32_t dstGap, uint32_t left, uint32_t right)
{   // DataCopyPad with any parameters into 4096 halves that were 7
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
    TPipe pipe; TBuf<> b; pipe.InitBuffer(b, 8192);
    LocalTensor<half> t = b.Get<half>();
    GlobalTensor<half> xG, yG; xG.SetGlobalBuffer((__gm__ half *)x, 2000); yG.SetGlobalBuffer((__gm__ half *)y, 4096);
    Duplicate(t, static_cast<half>(7.0f), 4096);
    PipeBarrier<PIPE_ALL>();
    DataCopyPad(t, xG, DataCopyExtParams(rows, cols * 2, srcGap * 2, dstGap, 0), DataCopyPadExtParams<half>(true, left, right, static_cast<half>(-1.0f)));
    PipeBarrier<PIPE_ALL>();
    DataCopy(yG, t, 4096);
}
extern "C" __global__ __aicore__ void any_add(GM_ADDR x, GM_ADDR y, GM_ADDR z, uint64_t mask, uint32_t repeat, uint32_t db, uint32_t ab, uint32_t bb, uint32_t dr, uint32_t ar, uint32_t br)
{   // level 0 with any strides, onto zeros
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
    TPipe pipe; TBuf<> p, q, r; pipe.InitBuffer(p, 8192); pipe.InitBuffer(q, 8192); pipe.InitBuffer(r, 8192);
    LocalTensor<float> a = p.Get<float>(), b = q.Get<float>(), d = r.Get<float>();
    GlobalTensor<float> xG, yG, zG; xG.SetGlobalBuffer((__gm__ float *)x, 2048); yG.SetGlobalBuffer((__gm__ float *)y, 2048); zG.SetGlobalBuffer((__gm__ float *)z, 2048);
    DataCopy(a, xG, 2048); DataCopy(b, yG, 2048); Duplicate(d, 0.0f, 2048);
    PipeBarrier<PIPE_ALL>();
    Add(d, a, b, mask, repeat, BinaryRepeatParams(db, ab, bb, dr, ar, br));
    PipeBarrier<PIPE_ALL>();
    DataCopy(zG, d, 2048);
}
constexpr uint32_t kSlots = 2;
__aicore__ inline void CubeTile(GM_ADDR x, GM_ADDR slot)
{   // slot = x @ x^T, 16 x 16
    TPipe pipe;
    TBuf<TPosition::A1> l; TBuf<TPosition::A2> a; TBuf<TPosition::B2> b; TBuf<TPosition::CO1> c;
    pipe.InitBuffer(l, 512); pipe.InitBuffer(a, 512); pipe.InitBuffer(b, 512); pipe.InitBuffer(c, 1024);
    GlobalTensor<half> xG; GlobalTensor<float> sG;
    xG.SetGlobalBuffer((__gm__ half *)x, 256); sG.SetGlobalBuffer((__gm__ float *)slot, 256);
    DataCopy(l.Get<half>(), xG, Nd2NzParams{1, 16, 16, 0, 16, 16, 1, 0});
    PipeBarrier<PIPE_ALL>();
    LoadData(a.Get<half>(), l.Get<half>(), LoadData2DParams(0, 1, 1, 0, 0, false, 0));
    LoadData(b.Get<half>(), l.Get<half>(), LoadData2DParams(0, 1, 1, 0, 0, false, 0));
    PipeBarrier<PIPE_ALL>();
    Mmad(c.Get<float>(), a.Get<half>(), b.Get<half>(), MmadParams(16, 16, 16, 0, false, true));
    PipeBarrier<PIPE_ALL>();
    Fixpipe(sG, c.Get<float>(), FixpipeParamsV220(16, 16, 16, 16, false, QuantMode_t::NoQuant, 0, 1, 0, 0, 0));
}
__aicore__ inline void VectorTile(GM_ADDR slot, GM_ADDR y)
{   // y = slot + 1, half a tile
    TPipe pipe; TBuf<> b; pipe.InitBuffer(b, 512);
    LocalTensor<float> t = b.Get<float>();
    GlobalTensor<float> sG, yG; sG.SetGlobalBuffer((__gm__ float *)slot, 128); yG.SetGlobalBuffer((__gm__ float *)y, 128);
    DataCopy(t, sG, 128); PipeBarrier<PIPE_ALL>(); Adds(t, t, 1.0f, 128); PipeBarrier<PIPE_ALL>(); DataCopy(yG, t, 128);
}
extern "C" __global__ __aicore__ void mixed(GM_ADDR x, GM_ADDR y, GM_ADDR ws, uint32_t tiles)
{   // a ring of slots between the cube core and the two vector cores of a group
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);
    uint32_t groups = static_cast<uint32_t>(GetBlockNum()), turn = 0;
    if ASCEND_IS_AIC {
        uint32_t group = static_cast<uint32_t>(GetBlockIdx());
        for (uint32_t t = group; t < tiles; t += groups, ++turn) {
            if (turn >= kSlots) {
                CrossCoreWaitFlag<0x2>(9); // mutant
            }
            CubeTile(x + t * 512, ws + (group * kSlots + turn % kSlots) * 1024);
            CrossCoreSetFlag<0x2, PIPE_FIX>(8); // mutant
        }
        for (uint32_t i = 0; i < (turn < kSlots ? turn : kSlots); ++i) {
            CrossCoreWaitFlag<0x2>(9); // mutant
        }
    }
    if ASCEND_IS_AIV {
        uint32_t group = static_cast<uint32_t>(GetBlockIdx() / 2), part = static_cast<uint32_t>(GetSubBlockIdx());
        for (uint32_t t = group; t < tiles; t += groups, ++turn) {
            CrossCoreWaitFlag<0x2>(8); // mutant
            VectorTile(ws + (group * kSlots + turn % kSlots) * 1024 + part * 512, y + t * 1024 + part * 512);
            CrossCoreSetFlag<0x2, PIPE_MTE2>(9); // mutant
        }
    }
}
"""
PRODUCTS = {
    "mm_half": ("half", "float", "float", "QuantMode_t::NoQuant", "false"),
    "mm_half_half": ("half", "float", "half", "QuantMode_t::F322F16", "true"),
    "mm_bf16": ("bfloat16_t", "float", "bfloat16_t", "QuantMode_t::F322BF16", "false"),
    "mm_float": ("float", "float", "float", "QuantMode_t::NoQuant", "false"),
    "mm_int8": ("int8_t", "int32_t", "int32_t", "QuantMode_t::NoQuant", "true"),
}
SEEDS = (0xA7, 0x7F)


@pytest.fixture(scope="module")
def program() -> HostProgram:
    names = list(CASES)
    files = {f"cases{i}.cpp": HEAD + "".join(CASES[n].source(n) for n in names[i::2]) for i in range(2)}
    products = EXTRA
    for name, (a, c, o, quant, relu) in PRODUCTS.items():
        products += (
            f'extern "C" __global__ __aicore__ void {name}(GM_ADDR x, GM_ADDR w, GM_ADDR bias, GM_ADDR y, uint32_t m, uint32_t n, uint32_t k) {{\n'
            f"    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIC_ONLY);\n    Product<{a}, {c}, {o}> p;\n    p.Run(x, w, bias, y, m, n, k, {quant}, {relu});\n}}\n"
        )
    return build({**files, "extra.cpp": HEAD + products}, optimise="-O0")


@pytest.mark.parametrize("name", CASES)
def test_call_gives_the_numbers_of_numpy(program: HostProgram, name: str) -> None:
    case = CASES[name]
    given = case.draw(1)
    with np.errstate(all="ignore"):
        wanted = case.reference(*given)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    for seed in SEEDS:
        outs = [np.zeros(n, NUMPY[c]) for c, n in case.outs]
        program.run(name, *[x.copy() for x in given], *map(Out, outs), seed=seed)
        for (c, _), out, want in zip(case.outs, outs, wanted):
            expected = np.asarray(want).astype(NUMPY[c])
            if case.rtol and c in (F, H):
                np.testing.assert_allclose(out.astype(np.float64), expected.astype(np.float64), case.rtol, case.rtol)
            else:
                np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(("rows", "cols", "ld"), [(1, 1, 1), (7, 7, 7), (9, 8, 20), (30, 15, 33)])
def test_padded_rows(program: HostProgram, rows: int, cols: int, ld: int) -> None:
    x, y = np.random.default_rng(0).random((rows, ld), np.float32), np.zeros((rows, 16), np.float32)
    program.run("pad_rows", x, Out(y), rows, cols, ld)
    wanted = np.full((rows, 16), -1.0, np.float32)
    wanted[:, : (cols + 8) // 8 * 8] = 9
    wanted[:, 1 : cols + 1] = x[:, :cols]
    np.testing.assert_array_equal(y, wanted)


@pytest.mark.parametrize("blocks", [1, 3, 48])
def test_any_number_of_blocks_and_any_poison(program: HostProgram, blocks: int) -> None:
    x = np.random.default_rng(0).random((10, 256), np.float32)
    for seed in SEEDS:
        y = np.zeros_like(x)
        program.run("ring", x, Out(y), 10, 1.5, blocks=blocks, seed=seed)
        np.testing.assert_array_equal(y, x * np.float32(1.5))


@pytest.mark.parametrize("blocks", [1, 5, 48])
def test_cores_that_wait_for_each_other(program: HostProgram, blocks: int) -> None:
    x, y = np.random.default_rng(0).integers(0, 9, (blocks, 64)).astype(np.float32), np.zeros(8, np.float32)
    program.run("total", x, y, Workspace(256), blocks=blocks)
    assert y[0] == x.sum() and not y[1:].any()


@pytest.mark.parametrize(("m", "n", "k"), [(16, 16, 16), (40, 24, 80), (1, 17, 33), (33, 7, 5)])
@pytest.mark.parametrize("name", PRODUCTS)
def test_matrix_products(program: HostProgram, name: str, m: int, n: int, k: int) -> None:
    a, c, o, _, relu = PRODUCTS[name]
    random = np.random.default_rng(m * n * k)
    x, w = (random.integers(-5, 6, shape).astype(NUMPY[a]) for shape in ((m, k), (n, k)))
    bias = random.integers(-5, 6, (n + 15) // 16 * 16).astype(NUMPY[c])
    y = np.zeros((m, n), NUMPY[o])
    program.run(name, x, w, bias, Out(y), m, n, k)
    wanted = x.astype(np.float64) @ w.astype(np.float64).T + bias[:n]
    wanted = np.maximum(wanted, 0) if relu == "true" else wanted
    np.testing.assert_array_equal(y, wanted.astype(NUMPY[o]))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.integers(1, 20), cols=st.integers(1, 60), src=st.integers(0, 40), dst=st.integers(0, 5), left=st.integers(0, 18), right=st.integers(0, 18))
def test_any_copy(program: HostProgram, rows: int, cols: int, src: int, dst: int, left: int, right: int) -> None:
    x, y = np.arange(2000).astype(np.float16), np.zeros(4096, np.float16)
    block = -(-(left + cols) // 16) * 16  # of halves that a row fills
    pitch = block + dst * 16
    wrong = [(left > 16 or right > 16, "each side at most 32"), (left + cols + right > block, "beyond the 32-byte block"),
             ((rows - 1) * (cols + src) + cols > 2000, "SetGlobalBuffer allows"), ((rows - 1) * pitch + left + cols + right > 4096, "the tensor has 8192")]  # fmt: skip
    if any(bad for bad, _ in wrong):
        with pytest.raises(ShimError, match="|".join(text for bad, text in wrong if bad)):
            program.run("any_copy", x, y, rows, cols, src, dst, left, right)
        return
    if left + cols + right < block:  # the fill is nobody's, and the store takes everything
        with pytest.raises(ShimError, match="was never written"):
            program.run("any_copy", x, y, rows, cols, src, dst, left, right)
        return
    program.run("any_copy", x, y, rows, cols, src, dst, left, right)
    wanted = np.full(4096, 7, np.float16)
    for r in range(rows):
        wanted[r * pitch : r * pitch + block] = -1
        wanted[r * pitch + left : r * pitch + left + cols] = x[r * (cols + src) : r * (cols + src) + cols]
    np.testing.assert_array_equal(y, wanted)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(mask=st.integers(1, 64), repeat=st.integers(0, 12), blocks=st.tuples(*[st.integers(0, 4)] * 3), strides=st.tuples(*[st.integers(0, 24)] * 3))
def test_any_strides(program: HostProgram, mask: int, repeat: int, blocks: tuple[int, int, int], strides: tuple[int, int, int]) -> None:
    x, y, z = np.arange(2048, dtype=np.float32), np.arange(2048, dtype=np.float32) * 3, np.zeros(2048, np.float32)
    lane = np.arange(mask)
    at = [np.arange(repeat)[:, None] * 8 * r + lane // 8 * 8 * b + lane % 8 for b, r in zip(blocks, strides)]
    if repeat and (blocks[0] == 0 or any(a.max() >= 2048 for a in at)):
        with pytest.raises(ShimError, match="dstBlkStride = 0|are reached"):
            program.run("any_add", x, y, z, mask, repeat, *blocks, *strides)
        return
    program.run("any_add", x, y, z, mask, repeat, *blocks, *strides)
    wanted = np.zeros(2048, np.float32)
    for r in range(repeat):
        wanted[at[0][r]] = x[at[1][r]] + y[at[2][r]]
    np.testing.assert_array_equal(z, wanted)


def test_second_operand_as_rows_of_k(program: HostProgram) -> None:
    random = np.random.default_rng(5)
    for name, dtype, m, k in (("mm_kn", np.float16, 32, 64), ("mm_kn_float", np.float32, 16, 32)):
        x, w = random.integers(-5, 6, (m, k)).astype(dtype), random.integers(-5, 6, (k, 48)).astype(dtype)
        y = np.zeros((m, 48), np.float32)
        program.run(name, x, w, Out(y))
        np.testing.assert_array_equal(y, x.astype(np.float32) @ w.astype(np.float32))


@pytest.mark.parametrize("blocks", [1, 3, 24])
def test_cube_and_vector_cores_together(program: HostProgram, blocks: int) -> None:
    x = np.random.default_rng(6).integers(-5, 6, (20, 16, 16)).astype(np.float16)
    y = np.zeros((20, 16, 16), np.float32)
    program.run("mixed", x, Out(y), Workspace(blocks * 2048), 20, blocks=blocks)
    np.testing.assert_array_equal(y, x.astype(np.float32) @ x.astype(np.float32).transpose(0, 2, 1) + 1)


def test_headers_alone_are_enough(tmp_path: Path) -> None:
    """One compiler command with the shim's folder makes a program; build.py is a convenience."""
    text = HEAD + CASES["brcb"].source("brcb") + '#include "pto_shim/runner.h"\n'
    (tmp_path / "one.cpp").write_text(text)
    command = [compiler().path, "-std=c++17", "-Wall", "-Wextra", "-Werror", "-O0", f"-I{shim_folder()}", "one.cpp", "-o", "one"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


MUTANTS = [i for i, line in enumerate(EXTRA.splitlines()) if line.endswith("// mutant")]


@pytest.fixture(scope="module")
def mutants() -> HostProgram:
    """Every kernel of EXTRA once more for each line of it that is deleted."""
    lines, files = EXTRA.splitlines(), {}
    for i in MUTANTS:
        last = next(j for j in range(i, len(lines)) if lines[j] == "}")
        first = max(j for j in range(i) if lines[j].startswith('extern "C"'))
        text = [line for j, line in enumerate(lines[first : last + 1], first) if j != i]
        text[0] = re.sub(r"void \w+\(", f"void m{i}(", text[0])
        files[i] = "\n".join([*text, ""])
    parts = EXTRA[EXTRA.index("constexpr uint32_t kSlots") : EXTRA.index('extern "C" __global__ __aicore__ void mixed')]
    return build({"mutants.cpp": HEAD + parts + "".join(files.values())}, optimise="-O0", flags=["-Wno-unused-variable"])


def before(line: int) -> str:
    """The first line of the kernel that holds a line of EXTRA."""
    return next(text for text in reversed(EXTRA.splitlines()[:line]) if text.startswith('extern "C"'))


@pytest.mark.parametrize("line", MUTANTS)
def test_each_deleted_line_is_reported(mutants: HostProgram, line: int) -> None:
    x = np.random.default_rng(0).random((10, 256), np.float32)
    with pytest.raises(ShimError):
        kernel = next(name for name in ("ring", "total", "mm_kn", "mixed") if f"void {name}(" in before(line))
        if kernel == "ring":
            mutants.run(f"m{line}", x, Out(np.zeros_like(x)), 10, 1.5, blocks=2)
        elif kernel == "mm_kn":
            mutants.run(f"m{line}", x, x, Workspace(32 * 48 * 4))
        elif kernel == "mixed":
            mutants.run(f"m{line}", x, Workspace(10240), Workspace(4096), 10, blocks=2)
        else:
            mutants.run(f"m{line}", x, np.zeros(8, np.float32), Workspace(256), blocks=4)


def test_launches_share_arrays_and_views(program: HostProgram) -> None:
    base = np.zeros((4, 256), np.float32)
    base[0] = np.arange(256)
    program.run_all([Launch("ring", (base[0], base[1], 1, 2.0)), Launch("ring", (base[1], base[3], 1, 3.0))])
    np.testing.assert_array_equal(base[1], np.arange(256) * 2)
    np.testing.assert_array_equal(base[3], np.arange(256) * 6)
    assert not base[2].any()


def test_wrong_calls_from_python(program: HostProgram) -> None:
    with pytest.raises(UsageError, match="No kernel 'nothing'"):
        program.run("nothing")
    with pytest.raises(UsageError, match="takes 4 arguments, got 1"):
        program.run("ring", 1)
    with pytest.raises(UsageError, match="got the float 1.5"):
        program.run("ring", np.zeros(256, np.float32), np.zeros(256, np.float32), 1.5, 1.5)


def test_crash_and_endless_loop_are_exceptions() -> None:
    body = "KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);"
    bad = build({
        "bad.cpp": HEAD + f'extern "C" __global__ __aicore__ void crash(GM_ADDR x) {{ {body} x[uint64_t{{1}} << 46] = 1; }}\n'
        f'extern "C" __global__ __aicore__ void forever(GM_ADDR x) {{ {body} volatile uint32_t i = 0; while (x != nullptr) {{ i = i + 1; }} }}\n'
    })  # fmt: skip
    with pytest.raises(ShimError, match="crashed on the host with SIGSEGV"):
        bad.run("crash", np.zeros(8, np.float32))
    with pytest.raises(ShimError, match="did not end within 0.5 seconds"):
        bad.run("forever", np.zeros(8, np.float32), timeout=0.5)


HOST = """
#include "acl/acl.h"
#include "kernel_operator.h"
#include "tiling/platform/platform_ascendc.h"
#include <cstdio>
#include <vector>
using namespace AscendC;
extern "C" __global__ __aicore__ void twice(GM_ADDR x, GM_ADDR y, uint32_t n)
{
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
    TPipe pipe; TBuf<> b; pipe.InitBuffer(b, 4096);
    LocalTensor<float> t = b.Get<float>();
    GlobalTensor<float> xG, yG; xG.SetGlobalBuffer((__gm__ float *)x, n); yG.SetGlobalBuffer((__gm__ float *)y, n);
    DataCopy(t, xG, n); PipeBarrier<PIPE_ALL>(); Muls(t, t, 2.0f, n); PipeBarrier<PIPE_ALL>(); DataCopy(yG, t, n);
}
__global__ __aicpu__ uint32_t expand(void *args) { return *static_cast<uint32_t *>(args); }
#define CHECK(call) do { aclError e = (call); if (e != ACL_SUCCESS) { std::printf("%s: %d\\n", #call, e); return 1; } } while (0)
int main(int argc, char **)
{
    std::vector<float> host(64, 1.5f);
    aclrtStream stream; void *x, *y;
    CHECK(aclInit(nullptr)); CHECK(aclrtSetDevice(0)); CHECK(aclrtCreateStream(&stream));
    CHECK(aclrtMalloc(&x, 256, ACL_MEM_MALLOC_HUGE_FIRST)); CHECK(aclrtMalloc(&y, 256, ACL_MEM_MALLOC_HUGE_FIRST));
    CHECK(aclrtMemcpy(x, 256, host.data(), 256, ACL_MEMCPY_HOST_TO_DEVICE));
    uint32_t code = static_cast<uint32_t>(argc - 1);
    expand<<<1, nullptr, stream>>>(&code, sizeof(code));
    if (aclrtSynchronizeStream(stream) != ACL_SUCCESS) { std::printf("%s\\n", aclGetRecentErrMsg()); return 2; }
    twice<<<1, nullptr, stream>>>(static_cast<GM_ADDR>(x), static_cast<GM_ADDR>(y), 64u);
    CHECK(aclrtSynchronizeStream(stream));
    CHECK(aclrtMemcpy(host.data(), 256, y, 256, ACL_MEMCPY_DEVICE_TO_HOST));
    CHECK(aclrtFree(x)); CHECK(aclrtFree(y)); CHECK(aclrtDestroyStream(stream)); CHECK(aclrtResetDevice(0)); CHECK(aclFinalize());
    std::printf("%g %u\\n", static_cast<double>(host[63]), platform_ascendc::PlatformAscendCManager::GetInstance()->GetCoreNumAiv());
    return 0;
}
"""


def test_host_program_with_launches_in_chevrons() -> None:
    assert build({"host.asc": HOST}, programs=True).call([]) == "3 48\n"
    with pytest.raises(ShimError, match="an AICPU kernel returned 2"):
        build({"host.asc": HOST}, programs=True).call(["a", "b"])


@pytest.mark.parametrize(("old", "new", "message"), [
    ("CHECK(aclrtFree(x));", "", "aclrtMalloc: not released before aclFinalize"),
    ("aclrtMemcpy(x, 256, host.data(), 256, ", "aclrtMemcpy(x, 512, host.data(), 512, ", "aclrtMemcpy: dst: bytes 0..512 of device memory with 256"),
    ("CHECK(aclrtMemcpy(x, 256, host.data(), 256, ACL_MEMCPY_HOST_TO_DEVICE));", "", "DataCopy: src: byte 0 of a row .* was never written"),
    ("    twice<<<1, nullptr, stream>>>(static_cast<GM_ADDR>(x), static_cast<GM_ADDR>(y), 64u);\n", "", "aclrtMemcpy: src: byte 0 was never written on the device"),
    ("CHECK(aclrtDestroyStream(stream));", "", "aclrtCreateStream or event: not released"),
    ("y), 64u);\n    CHECK(aclrtSynchronizeStream(stream));", "y), 64u);", "aclrtMemcpy: the launch at host.asc:.* may still run: aclrtSynchronizeStream"),
    ("    if (aclrtSynchronizeStream(stream) != ACL_SUCCESS) { std::printf(\"%s\\n\", aclGetRecentErrMsg()); return 2; }\n    twice<<<1, nullptr, stream>>>",
     "    aclrtStream other; CHECK(aclrtCreateStream(&other));\n    twice<<<1, nullptr, other>>>", "launch: the launch at .* aclrtRecordEvent and aclrtStreamWaitEvent are missing"),
    ("(&code, sizeof(code));", "(x, sizeof(code)); static_cast<uint32_t *>(x)[64] = 0; expand<<<1, nullptr, stream>>>(&code, sizeof(code));",
     "launch: wrote to byte 256 of GM allocation made at host.asc:.*, which has 256 bytes"),
    ("CHECK(aclrtSetDevice(0));", "", "aclrtCreateStream: aclrtSetDevice was not called"),
])  # fmt: skip
def test_host_mistakes(old: str, new: str, message: str) -> None:
    assert old in HOST
    with pytest.raises(ShimError, match=message):
        build({"host.asc": HOST.replace(old, new)}, programs=True, flags=["-Wno-unused-parameter"]).call([])
