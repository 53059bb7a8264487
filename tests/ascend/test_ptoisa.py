"""PTO-ISA tile code: emitted kernels compile against a strict model of the instructions, run, and agree with the
interpreter; a golden file to read in review.

PTO_WSP_REWRITE_GOLDEN=1 rewrites tests/golden/ascend/scaled_softmax.pto.cpp.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from pto_wsp import DType, In, InOut, Out, Scalar, Tile, kernel, pto, ptoisa, ptoisa_kernel
from pto_wsp.ascend.aicore import emit_kernel
from pto_wsp.ascend.build import ShimError, build
from pto_wsp.ascend.ptoisa import emit, source
from pto_wsp.errors import CompileError
from pto_wsp.trace.interpret import interpret
from pto_wsp.trace.ptoisa import BINARY, COLUMN, ROW, SCALAR, UNARY
from tests.ascend.kernels import arguments, compare, placed, tame

F16, F32, I16, I32, U32 = DType.F16, DType.F32, DType.I16, DType.I32, DType.U32
GOLDEN = Path(__file__).parents[1] / "golden" / "ascend" / "scaled_softmax.pto.cpp"
MODEL = Path(__file__).parent / "pto_model"


def isa(body, name="made", **params):
    """A @ptoisa_kernel of body(...)."""
    made: dict = {"body": body}
    exec(f"def made({', '.join(params)}): return body({', '.join(params)})", made)
    function = made["made"]
    function.__name__, function.__annotations__ = name, params
    return ptoisa_kernel(function)


class Programs:
    """Kernels compiled into one program against the model."""

    def __init__(self, graphs):
        self.graphs = graphs
        self.sources = [emit(g, f"k{i}_{g.name}") for i, g in enumerate(graphs)]
        text = "\n".join(s.text for s in self.sources)
        self.program = build({"kernels.cpp": text}, include=[MODEL], optimise="-O0")

    def check(self, index, arrays, scalars=()):
        graph, source = self.graphs[index], self.sources[index]
        want, have = [a.copy() for a in arrays], [placed(a, 5) for a in arrays]
        interpret(graph, want, scalars)
        self.program.run(source.entry, *arguments(source, have, scalars))
        for param, w, h in zip(graph.tile_params, want, have, strict=True):
            compare(graph, param.name, param.node.tile.dtype, h, w)


# ---- every instruction ---------------------------------------------------------------------------------------------


def one(name, dtype=F32, rows=6, cols=20):
    """A kernel of one instruction on [rows, cols]."""
    whole, column, row = Tile[rows, cols, dtype], Tile[rows, 1, dtype], Tile[1, cols, dtype]
    apply = getattr(ptoisa, name)
    if name in SCALAR:
        return isa(lambda x, out, s: ptoisa.tstore(out, apply(ptoisa.tload(x), s)), name,
                   x=In[whole], out=Out[whole], s=Scalar[dtype])
    if name in UNARY or name == "TMOV":
        made = Tile[rows, 1, F32 if dtype is F16 else dtype] if name.startswith("TROW") else whole
        return isa(lambda x, out: ptoisa.tstore(out, apply(ptoisa.tload(x))), name, x=In[whole], out=Out[made])
    other = column if name in ROW else row if name in COLUMN else whole
    return isa(lambda x, y, out: ptoisa.tstore(out, apply(ptoisa.tload(x), ptoisa.tload(y))), name,
               x=In[whole], y=In[other], out=Out[whole])


FLOATING = {"TDIV", "TDIVS", "TEXP", "TRSQRT", "TSQRT", "TLOG", "TABS", "TROWSUM", "TROWMAX", "TROWMIN",
            "TROWEXPANDDIV", "TCOLEXPANDDIV"}
NAMES = [*BINARY, *UNARY, "TMOV", *SCALAR, *ROW, *COLUMN]


def test_every_instruction_on_whole_and_partial_tiles():
    kernels = [(name, dtype) for name in NAMES for dtype in (F32, F16, I32)
               if dtype is not I32 or name not in FLOATING]
    programs = Programs([one(name, dtype).graph for name, dtype in kernels])
    rng = np.random.default_rng(0)
    for index, (name, _) in enumerate(kernels):
        graph = programs.graphs[index]
        positive = name in ("TRSQRT", "TSQRT", "TLOG") or "DIV" in name
        for rows, cols in ((6, 20), (4, 13), (1, 1)):
            arrays = [tame(p.node.tile.dtype, (min(rows, p.node.tile.rows), min(cols, p.node.tile.cols)), rng, positive)
                      for p in graph.tile_params]
            programs.check(index, arrays, [3] * len(graph.scalar_params))
        assert f"{name}(" in programs.sources[index].header


def test_what_the_vector_unit_lacks_is_refused():
    for name in ("TDIV", "TROWSUM", "TABS"):
        with pytest.raises(CompileError, match="i32: the vector unit of A2/A3 has it for f16, f32 only"):
            emit(one(name, I32).graph)
    with pytest.raises(CompileError, match="add of i8"):
        emit(one("TADD", DType.I8).graph)
    with pytest.raises(CompileError, match="64-bit"):
        emit(one("TADD", DType.I64).graph)
    with pytest.raises(CompileError, match="does not convert bf16 to f16"):
        emit(isa(lambda x, out: ptoisa.tstore(out, ptoisa.TCVT(ptoisa.tload(x), F16)),
                 x=In[Tile[1, 16, DType.BF16]], out=Out[Tile[1, 16, F16]]).graph)

    @kernel
    def product(x: In[Tile[16, 16, F16]], out: Out[Tile[16, 16, F32]]):
        pto.store(out, pto.matmul(x, x))

    with pytest.raises(CompileError, match="matmul of .* has no PTO-ISA instruction.*ascendc"):
        emit(product.graph)
    with pytest.raises(CompileError, match="do not lie next to each other"):
        emit(one("TADD", F32, 1, 8).graph, apart=("x",))
    big = one("TADD", F32, 128, 128)
    with pytest.raises(CompileError, match=r"196608 bytes of UB, 188160 are there:\n.*128x128 f32, 65536 bytes"):
        emit(big.graph)


# ---- whole kernels -------------------------------------------------------------------------------------------------


@ptoisa_kernel
def scaled_softmax(x: In[Tile[16, 100, F32]], out: Out[Tile[16, 100, F32]], scale: Scalar[F32]):
    scores = ptoisa.TMULS(ptoisa.tload(x), scale)
    high = ptoisa.TROWMAX(scores)
    weights = ptoisa.TEXP(ptoisa.TROWEXPANDSUB(scores, high))
    ptoisa.tstore(out, ptoisa.TROWEXPANDDIV(weights, ptoisa.TROWSUM(weights)))


@ptoisa_kernel
def accumulate(x: In[Tile[8, 64, F16]], total: InOut[Tile[8, 64, F32]], n: Scalar[I32]):
    more = ptoisa.TCVT(ptoisa.tload(x), F32)
    ptoisa.tstore(total, ptoisa.TADD(ptoisa.tload(total), more))
    ptoisa.cpu_sim_add_cycles("n * 2")
    again = ptoisa.TMULS(ptoisa.tload(total), "n > 2 ? n * 10 : 1")
    ptoisa.tstore(total, ptoisa.TADDS(again, 0.5))


@ptoisa_kernel
def best(scores: In[Tile[1, 32, F32]], found: InOut[Tile[1, 8, I32]]):
    pairs = ptoisa.TSORT32(ptoisa.tload(scores), ptoisa.iota_u32(32))
    ptoisa.store_topk_indices_i32(found, pairs, 5)


@ptoisa_kernel
def long(x: In[Tile[64, 128, F32]], out: Out[Tile[64, 128, F32]]):
    """Twelve tiles of 32 KiB: dead ones make room."""
    a = ptoisa.tload(x)
    for _ in range(5):
        a = ptoisa.TADD(a, ptoisa.TMULS(a, 0.5))
    ptoisa.tstore(out, ptoisa.TADD(a, ptoisa.tload(x)))


def test_whole_kernels_run():
    programs = Programs([k.graph for k in (scaled_softmax, accumulate, best, long)])
    rng = np.random.default_rng(1)
    for shape in ((16, 100), (9, 33)):
        x = tame(F32, shape, rng)
        programs.check(0, [x, np.zeros_like(x)], [0.3])
    for n in (1, 3):
        programs.check(1, [tame(F16, (8, 64), rng), tame(F32, (8, 64), rng)], [n])
    programs.check(2, [rng.permutation(32).astype(np.float32)[None], np.full((1, 8), 77, np.int32)])
    programs.check(2, [rng.standard_normal((1, 20)).astype(np.float32), np.full((1, 8), 77, np.int32)])
    x = tame(F32, (64, 128), rng)
    programs.check(3, [x, np.zeros_like(x)])
    offsets = [line.split()[2] for line in programs.sources[3].placement.splitlines()[1:]]
    assert len(set(offsets)) < len(offsets) == 13


def randomly(seed):
    """A kernel of random instructions; with many tiles, so that some lie where others lay."""
    rng = np.random.default_rng(seed)
    rows, cols = (44, 120) if seed % 2 else (6, 20)

    @ptoisa_kernel
    def k(x: In[Tile[rows, cols, F32]], y: In[Tile[rows, cols, F32]], v: In[Tile[rows, 1, F32]],
          out: InOut[Tile[rows, cols, F32]], more: Out[Tile[rows, cols, F32]], s: Scalar[F32]):
        whole = [ptoisa.tload(x), ptoisa.tload(y)]
        columns = [ptoisa.tload(v)]

        def pick(values):
            return values[int(rng.integers(max(0, len(values) - 3), len(values)))]

        for _ in range(int(rng.integers(20, 32))):
            kind = int(rng.integers(0, 8))
            if kind == 0:
                whole.append(ptoisa.tload((x, y, out)[int(rng.integers(3))]))
            elif kind == 1:
                columns.append(ptoisa.TROWMAX(pick(whole)))
            elif kind == 2:
                whole.append(ptoisa.TROWEXPANDADD(pick(whole), pick(columns)))
            elif kind == 3:
                ptoisa.tstore(out, pick(whole))
            elif kind == 4:
                columns.append(ptoisa.TADD(pick(columns), pick(columns)))
            elif kind == 5:
                whole.append(ptoisa.TMULS(pick(whole), (0.5, s)[int(rng.integers(2))]))
            else:
                whole.append(ptoisa.TMAX(pick(whole), pick(whole)) if kind == 6 else
                             ptoisa.TSUB(pick(whole), pick(whole)))
        ptoisa.tstore(more, pick(whole))

    return k


def test_random_kernels_are_ordered_as_they_have_to_be():
    """The model refuses what is not ordered, flags that are left, and what nobody has written."""
    graphs = [randomly(seed).graph for seed in range(16)]
    programs = Programs(graphs)
    rng = np.random.default_rng(5)
    reused = 0
    for index, graph in enumerate(graphs):
        table = [line.split()[2] for line in programs.sources[index].placement.splitlines()[1:]]
        reused += len(set(table)) < len(table)
        rows, cols = graph.tile_params[0].node.tile.shape
        for part in (0, 3):
            shapes = [(rows - part, c if c == 1 else c - part) for c in (cols, cols, 1, cols, cols)]
            programs.check(index, [tame(F32, shape, rng) for shape in shapes], [0.25])
    assert reused >= 3


def test_a_kernel_may_work_in_place():
    programs = Programs([scaled_softmax.graph])
    x = tame(F32, (16, 100), np.random.default_rng(2))
    want = np.zeros_like(x)
    interpret(scaled_softmax.graph, [x, want], [1.0])
    have = x.copy()
    source = programs.sources[0]
    given = arguments(source, [have, have], [1.0])
    given[5] = given[0]
    programs.program.run(source.entry, *given)
    np.testing.assert_allclose(have, want, rtol=1e-5)


def test_golden_source():
    text = emit(scaled_softmax.graph).text
    if os.environ.get("PTO_WSP_REWRITE_GOLDEN"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text(), f"{GOLDEN} differs; see the top of this file"
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("line", ["wait_flag(PIPE_MTE2, PIPE_V, EVENT_ID0);", "pipe_barrier(PIPE_V);",
                                  "set_flag(PIPE_V, PIPE_MTE3, EVENT_ID0);", "TASSIGN(scores, 0x01a00);"])
def test_no_flag_barrier_or_place_is_superfluous(line):
    """Without any one of them the model refuses the kernel: so they are needed, and the model can be trusted."""
    made = emit(scaled_softmax.graph)
    assert line in made.text
    program = build({"k.cpp": made.text.replace(line, "", 1)}, include=[MODEL], optimise="-O0")
    x = tame(F32, (16, 100), np.random.default_rng(2))
    with pytest.raises(ShimError):
        program.run(made.entry, *arguments(made, [x, np.zeros_like(x)], [1.0]))


def test_the_choice():
    assert "pto-inst.hpp" in source(scaled_softmax, scaled_softmax.graph, "s", form="pto").header
    assert source(scaled_softmax, scaled_softmax.graph, "s").text == emit_kernel(scaled_softmax.graph, "s").text
    with pytest.raises(CompileError, match="'ascendc', 'pto'; got 'cuda'"):
        source(scaled_softmax, scaled_softmax.graph, "s", form="cuda")

    @ptoisa_kernel(cpp_includes=["mine.h"])
    def k(x: In[Tile[1, 8, F32]], out: Out[Tile[1, 8, F32]]):
        ptoisa.tstore(out, ptoisa.tload(x))

    assert '#include "mine.h"' in source(k, k.graph, "k", form="pto").header


def test_a_program_with_custom_and_ptoisa_kernels_on_the_host():
    """The whole tree, in both forms: results are those of the CPU simulation."""
    from pto_wsp import P, Tensor, workload
    from tests.ascend.test_custom import clip

    x = np.random.default_rng(0).standard_normal((60, 100)).astype(np.float32)
    middle, out = np.zeros_like(x), np.zeros_like(x)
    X, M, Y = (Tensor(data=a, shape=a.shape, dtype=F32) for a in (x, middle, out))

    @workload
    def work():
        for i in P(4):
            scaled_softmax[i](x=X[16 * i:16 * i + 16], out=M[16 * i:16 * i + 16], scale=0.5)
        for i in P(10):
            for j in P(3):
                clip[i, j](x=M[6 * i:6 * i + 6, 48 * j:48 * j + 48], Out=Y[6 * i:6 * i + 6, 48 * j:48 * j + 48],
                           low=0.005, high=0.02, times=5)

    cpu = work().compile()
    cpu.execute()
    cpu.synchronize()
    want = out.copy()
    for form in ("ascendc", "pto"):
        middle[:], out[:] = 0, 0
        npu = work().compile("ascend_npu", ptoisa=form)
        assert ("pto-inst.hpp" in npu.sources["kernels/scaled_softmax.h"]) == (form == "pto")
        npu.run_on_host(include=[MODEL])
        np.testing.assert_allclose(out, want, rtol=1e-5)
    with pytest.raises(CompileError, match="got 'cuda'"):
        work().compile("ascend_npu", ptoisa="cuda")
