"""Every op of the table has its AscendC rule; what the rules emit runs on the host shim and gives the right numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from zlib import crc32

import numpy as np
import pytest

from pto_wsp.ascend.aicore import emit_kernel
from pto_wsp.ascend.rules import RULES, Memory, Nothing
from pto_wsp.errors import CompileError, OperandError
from pto_wsp.trace.graph import KernelGraph
from pto_wsp.trace.ops import OPS
from pto_wsp.trace.tile import pto
from pto_wsp.types import DType
from tests import strategies
from tests.ascend.kernels import Batch, one_op, supported, tame

# What ascend.md lists for 2201; `Run` and the helpers are ours.
CALLS = frozenset("""
Add Sub Mul Div Max Min Adds Muls Maxs Mins Abs Exp Ln Sqrt Relu Not ShiftLeft ShiftRight Cast Compare CompareScalar
Select WholeReduceSum WholeReduceMax WholeReduceMin Duplicate Brcb Copy CreateVecIndex Gather GatherMask Sort32
TransDataTo5HD Tanh Sigmoid Gelu Silu Sin Cos Erf DataCopy DataCopyPad PipeBarrier SetFlag WaitFlag FetchEventID
InitBuffer AllocTensor EnQue DeQue FreeTensor GetWithOffset ReinterpretCast GetValue SetValue SetGlobalBuffer GetPhyAddr
LoadData Mmad Fixpipe LoadData2DParams MmadParams FixpipeParamsV220 TransDataTo5HDParams SetAtomicAdd SetAtomicNone
CrossCoreSetFlag CrossCoreWaitFlag GetSubBlockIdx Reset
""".split())
OURS = frozenset("Run Least CeilTo FromBits Order LoadRows StoreRows LoadColumn StoreColumn LoadNz MatMul TurnRound "
                 "TransposeTile VectorPart0 VectorPart1".split())
DTYPES = tuple(d for d in DType if d not in (DType.F64, DType.I64, DType.U64))
SHAPES = ((8, 64), (5, 30), (1, 40), (24, 1))           # aligned, tail, one row, one column
COMPUTING = tuple(name for name, rule in RULES.items() if not isinstance(rule, (Memory, Nothing))
                  and name not in ("cast", "alloc", "broadcast", "iota_u32", "tsort32", "extract_topk_indices"))


def test_one_rule_for_each_op() -> None:
    assert RULES.keys() == OPS.keys()


def drawn(name: str) -> Iterator[KernelGraph]:
    """The op on every dtype and shape, its second operand whole and as a vector or scalar."""
    several = name in ("add", "sub", "lt")
    kinds = ("full", "row", "column", "one", "scalar") if several else ("full",)
    for dtype in DTYPES:
        for rows, cols in SHAPES if dtype in (DType.F32, DType.F16, DType.BF16, DType.I32) else SHAPES[1:2]:
            for kind in kinds:
                try:
                    yield one_op(name, dtype, rows, cols, kind)
                except (OperandError, ValueError):
                    continue                            # the op has no such dtype or shape


@pytest.mark.parametrize("name", COMPUTING)
def test_emitted_op_equals_numpy(name: str) -> None:
    graphs, refused = supported(drawn(name))
    assert all(re.search(r"matmul of (i16|i32|u8|u16|u32)", reason) for reason in refused.values()), refused
    batch = Batch(graphs)
    rng = np.random.default_rng(crc32(name.encode()))
    for index, graph in enumerate(batch.graphs):
        full = [p.node.tile.shape for p in graph.tile_params]
        for shapes in (full, strategies.valid_shapes(graph, rng)):
            if all(rows and cols for rows, cols in shapes):
                arrays = [tame(p.node.tile.dtype, shape, rng, name in ("log", "sqrt", "rsqrt", "div", "reciprocal"))
                          for p, shape in zip(graph.tile_params, shapes, strict=True)]
                batch.check(index, arrays, [3] * len(graph.scalar_params))


def test_casts_equal_numpy() -> None:
    """Floats truncate and saturate, integers wrap, for every pair of dtypes that the device can convert."""
    shape = (7, 30)
    pairs = [(a, b) for a in DType for b in DType if a is not b]
    graphs, refused = supported(strategies.traced(lambda x, to=b: pto.cast(x, to), (*shape, a), out=(*shape, b),
                                                  name=f"cast_{a}_{b}") for a, b in pairs)
    assert {name for name in refused if not re.search("f64|u64", name)} == {"cast_u32_i64"}
    batch = Batch(graphs)
    rng = np.random.default_rng(5)
    for index, graph in enumerate(batch.graphs):
        source, result = (p.node.tile.dtype for p in graph.tile_params)
        if source.is_float:
            x = rng.standard_normal(shape) * rng.choice([1, 100, 3000, 1e6 if source is not DType.F16 else 1e4], shape)
        else:
            limits = np.iinfo(source.numpy)
            x = rng.integers(limits.min, limits.max, shape, dtype=source.numpy, endpoint=True)
        batch.check(index, [x.astype(source.numpy), np.zeros(shape, result.numpy)])


def test_sort_and_indices() -> None:
    """Sorted pairs, ties by ascending index; the largest k; partial rows."""
    graphs = [strategies.traced(lambda s, i: pto.tsort32(s, i), (1, 32), (1, 32, DType.U32), out=(1, 64)),
              strategies.traced(lambda s: pto.extract_topk_indices(pto.tsort32(s, pto.iota_u32(32)), k=5), (1, 32),
                                out=(1, 5, DType.I32))]
    batch = Batch(graphs)
    rng = np.random.default_rng(6)
    for cols in (32, 11):
        scores = rng.integers(0, 6, (1, cols)).astype(np.float32)
        index = rng.permutation(32)[None, :].astype(np.uint32)
        batch.check(0, [scores, index[:, :cols], np.zeros((1, 64), np.float32)])
    batch.check(1, [rng.integers(0, 6, (1, 32)).astype(np.float32), np.zeros((1, 5), np.int32)])


def test_only_calls_that_2201_has() -> None:
    """No rule names a function outside the list."""
    for name in COMPUTING:
        graphs, _ = supported(drawn(name))
        for graph in graphs[::7]:
            code = re.sub(r"//[^\n]*", "", emit_kernel(graph).text)
            used = set(re.findall(r"\b([A-Z]\w*)(?:<[^;()=\n]*>)?\(", code))
            allowed = CALLS | OURS | {"GM_ADDR", "KERNEL_TASK_TYPE_DEFAULT"}
            assert used <= allowed, (name, used - allowed)


@pytest.mark.parametrize("dtype", [DType.F64, DType.I64, DType.U64], ids=str)
def test_dtypes_without_arithmetic_are_refused(dtype: DType) -> None:
    with pytest.raises(CompileError, match=f"add of {dtype}: .*64-bit"):
        emit_kernel(one_op("add", dtype, 4, 8))


def test_scalar_functions_are_refused_with_the_way_out() -> None:
    graph = strategies.traced(lambda x, s: x * pto.exp(s), (4, 8), DType.F32, out=(4, 8))
    with pytest.raises(CompileError, match="exp of a scalar: .*Compute it in a tile"):
        emit_kernel(graph)
