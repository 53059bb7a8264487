"""Packers on every CPU against NumPy: lanes are widened elements, or pairs along k, and nothing else is written."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pto_wsp.lower import copies, ir, jit, packing, vectors
from pto_wsp.types import DType

CPUS = ("", "x86-64", "x86-64-v3", "x86-64-v4")
KINDS = [(DType.F16, DType.F32), (DType.BF16, DType.F32), (DType.F32, DType.F32), (DType.F64, DType.F64),
         (DType.I8, DType.I8), (DType.F16, DType.F16), (DType.I8, DType.I16),
         (DType.U8, DType.I16), (DType.U8, DType.I32)]
P, W = ctypes.c_void_p, ctypes.c_int64


def name_of(source: DType, lane: vectors.Lane, few: int) -> str:
    return packing.packer(ir.Module(), source, lane, few).name


def module_of(name: str, target: vectors.Target) -> str:
    module, what = ir.Module(), name.removeprefix("pto_wsp_pack_")
    packing.emit_packer(copies.declared(module, "pack", what), what, target)
    return str(module)


@cache
def compiled(name: str, cpu: str) -> Any:
    target = jit.Target(cpu=cpu) if cpu else jit.HOST
    code = jit.load(module_of(name, vectors.Target.of(*jit.cpu_features(target))), target=target)
    return code, ctypes.CFUNCTYPE(None, P, W, W, P, W, W, W)(code.address(name))


def available(cpu: str) -> bool:
    host = {word[1:] for word in jit.cpu_features()[1].split(",") if word.startswith("+")}
    return cpu not in CPUS[2:] or {"x86-64-v3": "avx2", "x86-64-v4": "avx512dq"}[cpu] in host


@st.composite
def jobs(draw: st.DrawFn) -> dict[str, Any]:
    source, to = draw(st.sampled_from(KINDS))
    pairs = to is DType.I32
    few = 0 if pairs else draw(st.sampled_from([0, 0, 2, 3, 5, 8]))
    return {"source": source, "to": to, "pairs": pairs, "few": few,
            "width": draw(st.sampled_from([4, 8, 16])), "inner": draw(st.integers(0, 70)),
            "outer": few or draw(st.integers(0, 40)), "turned": draw(st.booleans()),
            "step": draw(st.sampled_from([1, 2])), "dense": draw(st.booleans()), "cpu": draw(st.sampled_from(CPUS))}


@given(jobs())
@example({"source": DType.F16, "to": DType.F32, "pairs": False, "few": 3, "width": 4, "inner": 50,
          "outer": 3, "turned": True, "step": 1, "dense": False, "cpu": "x86-64"})
@example({"source": DType.U8, "to": DType.I32, "pairs": True, "few": 0, "width": 16, "inner": 67,
          "outer": 5, "turned": True, "step": 1, "dense": False, "cpu": ""})
@example({"source": DType.U8, "to": DType.I16, "pairs": False, "few": 0, "width": 4, "inner": 7,
          "outer": 29, "turned": False, "step": 1, "dense": True, "cpu": ""})
def test_a_packer_is_numpys(job: dict[str, Any]) -> None:
    if not available(job["cpu"]):
        return
    outer, inner, source, to = job["outer"], job["inner"], job["source"], job["to"]
    lane = vectors.Lane(to, 1 + job["pairs"], job["width"])
    shape = (inner, outer) if job["turned"] else (outer, inner)
    memory = np.random.default_rng(0).integers(0, 99, [2 * extent + 3 for extent in shape]).astype(source.numpy)
    start, step = 1, job["step"]
    view = memory[start : start + step * shape[0] : step, start : start + step * shape[1] : step]
    view = view.T if job["turned"] else view
    view = np.ascontiguousarray(view) if job["dense"] else view
    want = view.astype(to.numpy)
    if job["pairs"]:
        want = np.concatenate([want, np.zeros_like(want[:1])])
        even, odd = want[::2], want[1::2]
        want = even[: len(odd)] & 0xFFFF | odd << 16
    found = np.full((want.shape[0] + 1, want.shape[1] + (0 if job["dense"] else 3)), 77, to.numpy)
    kept, function = compiled(name_of(source, lane, job["few"]), job["cpu"])
    function(view.ctypes.data, *view.strides, found.ctypes.data, found.strides[0], outer, inner)
    np.testing.assert_array_equal(found[: want.shape[0], : want.shape[1]], want)
    found[: want.shape[0], : want.shape[1]] = 77
    assert (found == 77).all(), "wrote more than the lanes"
    assert kept


@pytest.mark.parametrize("source,to", KINDS, ids=lambda d: d.value)
def test_aarch64_text(source: DType, to: DType) -> None:
    triple = "aarch64-linux-gnu"
    name = name_of(source, vectors.Lane(to, 1, 4), 0)
    text = jit.assembly(module_of(name, vectors.Target.of(triple, "+neon")), jit.Target(triple, "neoverse-n1"))
    assert name in text
