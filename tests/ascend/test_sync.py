"""Synchronisation is enough, and no more: the shim accepts the kernels and refuses each of them with one line less."""

from __future__ import annotations

import re

import numpy as np
import pytest

from pto_wsp.ascend import sync
from pto_wsp.ascend.aicore import emit_kernel
from pto_wsp.ascend.body import Buffer, Step
from pto_wsp.ascend.build import ShimError, build
from pto_wsp.trace.graph import KernelGraph
from pto_wsp.trace.tile import pto
from pto_wsp.types import DType
from tests import strategies
from tests.ascend.kernels import arguments, tame


def buffer(name: str, offset: int, kind: str = "temp") -> Buffer:
    return Buffer(name, DType.F32, kind, lambda strip: 64, name, bytes=64, offset=offset)


def test_one_barrier_covers_all_that_came_before() -> None:
    x, a, b, c = (buffer(n, 64 * i) for i, n in enumerate("xabc"))
    steps = [Step("V", [], (x,), (a,)), Step("V", [], (x,), (b,)), Step("V", [], (a, b), (c,))]
    assert sync.orders([], steps, [], [], False) == [[], [], ["V"]]


def test_a_loop_orders_its_end_before_its_head() -> None:
    x, a = buffer("x", 0, "in"), buffer("a", 0)
    steps = [Step("V", [], (x,), (a,)), Step("V", [], (a,), (buffer("out", 0, "out"),))]
    assert sync.orders([], steps, [], [x], True) == [["V"], ["V"]]
    assert sync.orders([], steps, [], [x], False) == [[], ["V"]]


def test_the_scalar_unit_is_ordered_by_events() -> None:
    x, a, b = buffer("x", 0, "in"), buffer("a", 0), buffer("b", 64)
    steps = [Step("S", [], (x,), ()), Step("V", [], (), (a,)), Step("S", [], (a,), (b,)), Step("V", [], (b,), (a,))]
    assert sync.orders([], steps, [], [x], False) == [["MTE2_S"], [], ["V_S"], ["S_V", "V"]]


def softmax() -> KernelGraph:
    def body(x):    # type: ignore[no-untyped-def]
        e = pto.exp(x - pto.rowmax(x))
        return e / pto.rowsum(e)
    return strategies.traced(body, (64, 512), out=(64, 512), name="softmax")


def scaled() -> KernelGraph:
    return strategies.traced(lambda x, s: pto.maximum(x * s, 0.5) + pto.cast(pto.rowsum(pto.cast(x, DType.I32)),
                                                                                       DType.F32),
                             (40, 24), (1, 1), out=(40, 24), name="scaled")


ORDER = re.compile(r"^\s*(PipeBarrier<PIPE_V>\(\);|Order<.*|\w+\.(EnQue|FreeTensor)\(.*)$")


@pytest.mark.parametrize("make", [softmax, scaled], ids=lambda f: f.__name__)
def test_every_line_of_synchronisation_is_needed(make) -> None:     # type: ignore[no-untyped-def]
    graph = make()
    kernels = {}
    whole = emit_kernel(graph, "whole")
    lines = whole.text.splitlines()
    start = next(i for i, line in enumerate(lines) if "void Run(" in line)
    for at, line in enumerate(lines):
        if at > start and ORDER.match(line):
            text = "\n".join([*lines[:at], *lines[at + 1:]])
            kernels[f"without_{at}"] = text.replace("whole", f"without_{at}").replace("WHOLE", f"WITHOUT_{at}")
    program = build({"all.cpp": "\n".join([whole.text, *kernels.values()])}, optimise="-O0")
    rng = np.random.default_rng(0)
    arrays = [tame(p.node.tile.dtype, p.node.tile.shape, rng) for p in graph.tile_params]
    program.run("whole", *arguments(whole, arrays, ()))
    assert len(kernels) > 8
    for name in kernels:
        with pytest.raises(ShimError):
            program.run(name, *arguments(whole, [a.copy() for a in arrays], ()))
            print(f"{name} is not missed: {lines[int(name[8:])]}")
