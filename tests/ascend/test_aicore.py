"""Whole emitted kernels: five to read in review, the examples on the shim, names and texts that mean harm.

PTO_WSP_REWRITE_GOLDEN=1 rewrites tests/golden/ascend; read the difference before you commit it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pto_wsp.ascend.aicore import emit_kernel
from pto_wsp.ascend.build import ShimError, build
from pto_wsp.ascend.lines import WIDTH
from pto_wsp.ascend.names import comment, identifier
from pto_wsp.trace.graph import KernelGraph, Node, Param
from pto_wsp.trace.interpret import interpret
from pto_wsp.trace.ops import OPS
from pto_wsp.trace.tile import pto
from pto_wsp.types import DType, TileType
from tests import strategies
from tests.ascend import golden_kernels
from tests.ascend.kernels import Batch, arguments, compare, kernels_of, placed, tame

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "ascend"
EXAMPLES = ("quickstart", "rmsnorm", "softmax", "gemm", "flash_attention", "llama_block")


def shapes_of(graph: KernelGraph, tail: bool, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Full tiles, or partial ones with something in them."""
    while tail:
        shapes = strategies.valid_shapes(graph, rng)
        if all(rows and cols for rows, cols in shapes):
            return shapes
    return [p.node.tile.shape for p in graph.tile_params]


@pytest.mark.parametrize("kernel", golden_kernels.KERNELS, ids=lambda k: k.name)
def test_golden_source(kernel) -> None:  # type: ignore[no-untyped-def]
    text = emit_kernel(kernel.graph).text
    path = GOLDEN / f"{kernel.name}.cpp"
    if os.environ.get("PTO_WSP_REWRITE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text(), f"{path} differs; see the top of this file"
    assert max(map(len, text.splitlines())) <= WIDTH


def test_golden_kernels_run() -> None:
    batch = Batch([k.graph for k in golden_kernels.KERNELS])
    rng = np.random.default_rng(1)
    for index, graph in enumerate(batch.graphs):
        for tail in (False, True):
            arrays = [
                tame(p.node.tile.dtype, shape, rng, p.name == "total")
                for p, shape in zip(graph.tile_params, shapes_of(graph, tail, rng), strict=True)
            ]
            batch.check(index, arrays, [1e-6] * len(graph.scalar_params), slack=200)


@pytest.mark.parametrize("example", EXAMPLES)
def test_kernels_of_examples_run(example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    graphs = [k.graph for k in kernels_of(ROOT / "examples" / f"{example}.py").values()]
    assert graphs
    batch = Batch(graphs)
    rng = np.random.default_rng(2)
    for index, graph in enumerate(graphs):
        arrays = [
            tame(p.node.tile.dtype, p.node.tile.shape, rng, p.name == "total") for p in graph.tile_params
        ]
        batch.check(index, arrays, [3] * len(graph.scalar_params), slack=200)  # sums over 1024 products


def test_random_kernels_run() -> None:
    """Any ops, dtypes and shapes together; full and partial tiles; two ways of filling fresh memory give the same."""
    from hypothesis import HealthCheck, given, seed, settings

    from pto_wsp.errors import CompileError

    graphs: list[KernelGraph] = []
    dtypes = [d for d in DType if d not in (DType.F64, DType.I64, DType.U64)]

    @seed(2201)
    @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(strategies.graphs(dtypes=dtypes))
    def collect(graph: KernelGraph) -> None:
        try:
            emit_kernel(graph)
        except CompileError:
            return
        graphs.append(graph)

    collect()
    batch = Batch(graphs)
    rng = np.random.default_rng(3)
    for index, graph in enumerate(graphs):
        for tail in (False, True):
            arrays = [
                tame(p.node.tile.dtype, shape, rng)
                for p, shape in zip(graph.tile_params, shapes_of(graph, tail, rng), strict=True)
            ]
            batch.check(index, arrays, [3] * len(graph.scalar_params), slack=20)
            runs = [[a.copy() for a in arrays] for _ in range(2)]
            for run, poison in zip(runs, (0xA7, 0x3C), strict=True):
                batch.run(index, run, [3] * len(graph.scalar_params), seed=poison)
            assert all(np.array_equal(a.view(np.uint8), b.view(np.uint8)) for a, b in zip(*runs, strict=True))


def test_rows_may_lie_apart() -> None:
    """Tiles that are windows of wider arrays."""
    graph = golden_kernels.attention.graph
    batch = Batch([graph])
    rng = np.random.default_rng(4)
    arrays = [tame(p.node.tile.dtype, p.node.tile.shape, rng) for p in graph.tile_params]
    have = [placed(a, room) for a, room in zip(arrays, (5, 16, 3, 1), strict=True)]
    interpret(graph, arrays)
    batch.run(0, have)
    for param, h, w in zip(graph.tile_params, have, arrays, strict=True):
        compare(graph, param.name, param.node.tile.dtype, h, w, slack=200)  # weights rounded to f16


@pytest.mark.parametrize("dtype", [DType.F32, DType.F16, DType.I32], ids=str)
@pytest.mark.parametrize("rows", [24, 300])
def test_vectors_may_lie_apart(dtype: DType, rows: int) -> None:
    """A column of a matrix, in and out; a row whose elements lie in a column."""

    def body(x, column, row, out, last):  # type: ignore[no-untyped-def]
        pto.store(out, x * column + row)
        pto.store(last, column + column)

    graph = strategies.traced(
        body,
        (rows, 20, dtype),
        (rows, 1, dtype),
        (1, 20, dtype),
        ("out", rows, 20, dtype),
        ("out", rows, 1, dtype),
        name="apart",
    )
    source = emit_kernel(graph, apart=("b", "c", "e"))
    rng = np.random.default_rng(6)
    homes = [tame(dtype, shape, rng) for shape in ((rows, 20), (rows, 5), (20, 7), (rows, 20), (rows, 3))]
    have = [homes[0], homes[1][:, 2:3], homes[2].T[3:4], homes[3], homes[4][:, 1:2]]
    want = [a.copy() for a in have]
    interpret(graph, want)
    build({"k.cpp": source.text}, optimise="-O0").run(source.entry, *arguments(source, have, ()))
    for param, h, w in zip(graph.tile_params, have, want, strict=True):
        compare(graph, param.name, dtype, h, w)


def test_a_store_is_what_a_later_load_reads() -> None:
    def body(x, y, out):  # type: ignore[no-untyped-def]
        pto.store(y, x + 1)
        pto.store(out, pto.load(y) * pto.load(y))

    graph = strategies.traced(body, (4, 8), ("inout", 4, 8), ("out", 4, 8))
    Batch([graph]).check(
        0, [np.ones((4, 8), np.float32), np.zeros((4, 8), np.float32), np.zeros((4, 8), np.float32)]
    )


ORDER = re.compile(r"^\s*(PipeBarrier|CrossCore\w+<|SetAtomicNone|\w+\.(EnQue|FreeTensor)\().*$")


@pytest.mark.parametrize("kernel", [golden_kernels.gemm, golden_kernels.attention], ids=lambda k: k.name)
def test_cube_and_mixed_kernels_need_every_line(kernel) -> None:  # type: ignore[no-untyped-def]
    """Each barrier, flag and queue call, deleted, is missed. For vector kernels: test_sync.py."""
    source = emit_kernel(kernel.graph, "whole")
    lines = source.text.splitlines()
    without = [at for at, line in enumerate(lines) if ORDER.match(line)]
    if kernel is golden_kernels.attention:  # one block of K: no products that may overlap
        without = [at for at in without if "PIPE_M>" not in lines[at]]
    texts = [source.text]
    for at in without:
        text = "\n".join([*lines[:at], *lines[at + 1 :]])
        texts.append(text.replace("whole", f"without_{at}").replace("WHOLE", f"WITHOUT_{at}"))
    program = build({"all.cpp": "\n".join(texts)}, optimise="-O0")
    rng = np.random.default_rng(5)
    few = {"a": (40, 256), "b": (256, 24), "c": (40, 24)}  # few rows: products are short
    arrays = [tame(p.node.tile.dtype, few.get(p.name, p.node.tile.shape), rng) for p in kernel.graph.tile_params]
    program.run("whole", *arguments(source, [a.copy() for a in arrays], ()))
    for at in without:
        with pytest.raises(ShimError):
            program.run(f"without_{at}", *arguments(source, [a.copy() for a in arrays], ()))
            print(f"not missed: {lines[at]}")


def test_the_same_bytes_everywhere() -> None:
    """Neither hashing nor memory addresses show in a source; emission needs no compiler package."""
    script = (
        "import sys, hashlib; from tests.ascend.golden_kernels import KERNELS\n"
        "from pto_wsp.ascend.aicore import emit_kernel\n"
        "print(hashlib.sha256(''.join(emit_kernel(k.graph).text for k in KERNELS).encode()).hexdigest())\n"
        "assert not {'numba', 'llvmlite'} & set(sys.modules), 'a compiler is loaded'"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("0", "1")
    }
    assert len(seen) == 1


@pytest.mark.parametrize(
    "name",
    [
        'x"); system("ls',
        "a\nb",
        "int",
        "while",
        "half",
        "__global__",
        "Add",
        "PIPE_V",
        "1st",
        "naïve",
        "名",
        "",
        "a" * 300,
        "x/*",
        "n",
        "c",
        "pipe",
        "workspace",
        "main",
    ],
)
def test_names_cannot_become_code(name: str) -> None:
    """Any text may be the name of a kernel and of its parameters."""
    type_ = TileType(4, 8, DType.F32)
    x, out = (Node(OPS["param"], (), type_, {"type": type_, "index": i}) for i in range(2))
    load = Node(OPS["load"], (x,), type_, {"at": "entry"})
    value = Node(OPS["exp"], (load,), type_, {})
    store = Node(OPS["store"], (out, value), None, {})
    graph = KernelGraph(
        name, (Param(name, "in", x), Param(name + "'", "out", out)), (x, out, load, value, store)
    )
    source = emit_kernel(graph)
    assert source.text.isascii()
    program = build({"k.cpp": source.text}, optimise="-O0")
    arrays = [np.ones((4, 8), np.float32), np.zeros((4, 8), np.float32)]
    program.run(source.entry, *arguments(source, arrays, ()))
    assert np.allclose(arrays[1], np.e)


def test_names_that_emission_makes_up_are_nobodys() -> None:
    """A user's names may look like those of queues, global tiles, strides and counts."""
    tile = TileType(16, 64, DType.F32)
    names = ("x", "x_gm", "x_in", "x_rows", "x_out", "count", "count_64", "first", "n")
    handles = [Node(OPS["param"], (), tile, {"type": tile, "index": i}) for i in range(len(names))]
    loads = [Node(OPS["load"], (h,), tile, {"at": "entry"}) for h in handles[:-1]]
    total, nodes = loads[0], []
    for load in loads[1:]:
        total = Node(OPS["add"], (total, load), tile, {})
        nodes.append(total)
    store = Node(OPS["store"], (handles[-1], total), None, {})
    params = tuple(Param(n, "out" if h is handles[-1] else "in", h) for n, h in zip(names, handles, strict=True))
    graph = KernelGraph("clash", params, (*handles, *loads, *nodes, store))
    Batch([graph]).check(0, [np.ones((16, 64), np.float32) for _ in names])


def test_comments_stay_comments() -> None:
    for text in ("ends in a backslash \\", "two\nlines", "??/", "tab\tand \x07", "/* */", "x" * 500, "naïve"):
        line = comment(text)
        assert (
            line.isascii()
            and line.isprintable()
            and "\\" not in line
            and "??" not in line
            and len(line) <= 80
        )


def test_identifiers() -> None:
    assert identifier("x") == "x"
    assert identifier("Weird name__here") == "weird_name_here"
    assert identifier("_") == identifier("") == "unnamed"
