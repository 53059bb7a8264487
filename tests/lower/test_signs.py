"""What is known of signs before a kernel runs is so when it runs, and changes no bit of an exp."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pto_wsp import In, Out, Tile, kernel, pto
from pto_wsp.lower import math
from pto_wsp.lower.signs import never_negative, never_positive
from pto_wsp.trace.graph import KernelGraph
from pto_wsp.trace.interpret import interpret
from pto_wsp.types import DType
from tests import strategies as draws
from tests.lower.elementwise import compile_loops, cpus_here
from tests.lower.test_math import f32_inputs, f64_inputs

SIGNS = ("sub", "mul", "neg", "abs", "maximum", "minimum", "exp", "relu", "add", "rowmax", "colmax", "rowsum",
         "broadcast", "constant", "cast")  # fmt: skip


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_signs_are_what_they_are_said_to_be(data: Any) -> None:
    ops = tuple(op for op in draws.COMPUTING if op.name in SIGNS)
    graph = data.draw(draws.graphs(ops=ops, dtypes=(DType.F32, DType.F16), most_nodes=16, constants=20))
    args = data.draw(draws.arguments(graph))

    def see(node: Any, value: Any) -> None:
        if value is not None and node.type is not None and node.type.dtype.is_float:
            number = value[~np.isnan(value)]
            assert not never_positive(node) or (number <= 0).all(), f"{node}\n{graph}"
            assert not never_negative(node) or (number >= 0).all(), f"{node}\n{graph}"

    interpret(graph, args.copies(), args.scalars, see)


def arguments_of_exp(graph: KernelGraph) -> list[bool]:
    """Of each exp: is its argument known to be never positive?"""
    return [never_positive(node.operands[0]) for node in graph.nodes if node.op.name == "exp"]


def test_signs_that_matter_are_found() -> None:
    @kernel
    def known(
        x: In[Tile[8, 32, DType.F32]], most: In[Tile[8, 1, DType.F32]], out: Out[Tile[8, 32, DType.F32]]
    ) -> None:
        largest = pto.maximum(most, pto.rowmax(x))
        pto.store(out, pto.exp(x - pto.rowmax(x)) + pto.exp(x - largest) * pto.exp(most - largest))
        pto.store(out, pto.exp(-(x * x)) + pto.exp(-pto.abs(x)) + pto.exp(pto.minimum(x, 0.0)) + pto.exp(x * x * -0.5))

    @kernel
    def unknown(x: In[Tile[8, 32, DType.F32]], y: In[Tile[8, 32, DType.F32]], out: Out[Tile[8, 32, DType.F32]]) -> None:
        pto.store(out, pto.exp(x - pto.rowmax(y)) + pto.exp(x * y) + pto.exp(pto.rowmax(x) - x) + pto.exp(x - 1.0))
        below = -pto.abs(x)
        pto.store(out, pto.exp(below + y) + pto.exp(pto.maximum(below, y)))
        pto.store(out, pto.exp(below * y) + pto.exp(below * below))
        pto.store(out, pto.exp(x - pto.rowmin(x)) + pto.exp(x - pto.minimum(x, y)) + pto.exp(pto.maximum(x, y) - x))
        pto.store(out, pto.exp(pto.minimum(x, 0.5)) + pto.exp(pto.sqrt(x)) + pto.exp(x - pto.maximum(y, 0.0)))

    assert arguments_of_exp(known.graph) == [True] * 7
    assert arguments_of_exp(unknown.graph) == [False] * 14


@pytest.mark.parametrize("dtype", (DType.F32, DType.F64), ids=lambda d: d.value)
def test_exp_of_what_is_never_positive_has_the_same_bits(dtype: DType) -> None:
    x = f32_inputs() if dtype is DType.F32 else f64_inputs(4000)
    x = np.where(x > 0, -x, x)
    bodies = {"plain": math.exp, "known": lambda k, x: math.exp(k, x._replace(high=0.0))}
    for cpu in cpus_here():
        found = compile_loops(bodies, (dtype,), dtype, cpu=cpu)
        plain, known = (found[name](x) for name in bodies)
        assert np.array_equal(plain, known, equal_nan=True) and not np.signbit(known[~np.isnan(x)]).any()
