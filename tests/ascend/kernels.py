"""Emitted kernels on the host shim: many graphs in one program, each held against the interpreter.

one_op(op, dtype, ...)    graphs that load, compute one op and store
Batch                     emits, compiles and runs a list of graphs; `check` compares a run with trace/interpret.py
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pto_wsp.ascend.aicore import emit_kernel
from pto_wsp.ascend.build import HostProgram, Out, Workspace, build
from pto_wsp.ascend.source import KernelSource
from pto_wsp.errors import CompileError
from pto_wsp.trace.graph import KernelGraph
from pto_wsp.trace.interpret import interpret
from pto_wsp.trace.ops import OPS, matmul_result
from pto_wsp.trace.tile import pto
from pto_wsp.types import DType
from tests import strategies

RELATIVE = {DType.F16: 2e-3, DType.BF16: 1.6e-2, DType.F32: 2e-5}


def arguments(source: KernelSource, arrays: Sequence[np.ndarray], scalars: Sequence[Any]) -> list[Any]:
    """The entry's arguments, in its order."""
    found: list[Any] = []
    tiles, numbers = iter(arrays), iter(scalars)
    for p in source.params:
        if p.is_tile:
            array = next(tiles)
            strides = [s // array.itemsize for s in array.strides]
            found += [Out(array) if p.direction == "out" else array, *strides, *array.shape]
    for p in source.params:
        if not p.is_tile:
            found.append(next(numbers))
    if source.workspace_bytes:
        found.append(Workspace(source.workspace_bytes))
    return found


class Batch:
    """Graphs compiled into one program."""

    def __init__(self, graphs: Sequence[KernelGraph]) -> None:
        self.graphs = list(graphs)
        self.sources = [emit_kernel(graph, f"k{i}_{graph.name}") for i, graph in enumerate(self.graphs)]
        self.program: HostProgram = build(
            {"kernels.cpp": "\n".join(s.text for s in self.sources)}, optimise="-O0"
        )

    def run(
        self, index: int, arrays: Sequence[np.ndarray], scalars: Sequence[Any] = (), seed: int = 0xA7
    ) -> None:
        source = self.sources[index]
        self.program.run(source.entry, *arguments(source, arrays, scalars), seed=seed)

    def check(
        self, index: int, arrays: Sequence[np.ndarray], scalars: Sequence[Any] = (), slack: float = 1.0
    ) -> None:
        """Run on copies and compare with the interpreter."""
        graph = self.graphs[index]
        want, have = [a.copy() for a in arrays], [placed(a) for a in arrays]
        interpret(graph, want, scalars)
        self.run(index, have, scalars)
        for param, w, h in zip(graph.tile_params, want, have, strict=True):
            compare(graph, param.name, param.node.tile.dtype, h, w, slack)


def placed(array: np.ndarray, room: int = 0) -> np.ndarray:
    """A copy whose rows lie `room` elements further apart than they are long."""
    home = np.zeros((array.shape[0], array.shape[1] + room), array.dtype)
    view = home[:, : array.shape[1]]
    view[...] = array
    return view


def compare(
    graph: KernelGraph, name: str, dtype: DType, have: np.ndarray, want: np.ndarray, slack: float = 1.0
) -> None:
    if dtype.is_int:
        wrong = have != want
    else:
        h, w = have.astype(np.float64), want.astype(np.float64)
        limit = slack * RELATIVE[dtype]
        with np.errstate(all="ignore"):
            wrong = ~(
                np.abs(h - w)
                <= limit * (np.abs(w) + np.minimum(1, np.abs(w).max(initial=0, where=np.isfinite(w))))
            )
            wrong &= ~((h == w) | (np.isnan(h) & np.isnan(w)))
    if wrong.any():
        at = tuple(int(i[0]) for i in np.nonzero(wrong))
        raise AssertionError(
            f"{name}{list(at)} is {have[at]!r}, expected {want[at]!r}; {int(wrong.sum())} of {wrong.size} "
            f"differ\n{graph}"
        )


def tame(
    dtype: DType, shape: tuple[int, int], rng: np.random.Generator, positive: bool = False
) -> np.ndarray:
    """Numbers whose results are finite, and small enough for the device's detours through float."""
    if dtype.is_int:
        low, high = (-11 if dtype.is_signed else 0), 12
        return rng.integers(1 if positive else low, high, shape).astype(dtype.numpy)
    values = rng.standard_normal(shape) * 2
    return (np.abs(values) + 0.1 if positive else values).astype(dtype.numpy)


SHAPES = ((16, 128), (16, 64), (5, 30), (33, 17), (1, 40), (24, 1), (1, 1))
ELEMENTWISE = tuple(
    n
    for n, op in OPS.items()
    if op.infer.__name__ in ("broadcast_type", "float_broadcast_type", "mask_type", "same_type", "float_type")
    and n not in ("load",)
)


def one_op(name: str, dtype: DType, rows: int, cols: int, kind: str = "full") -> KernelGraph:
    """A kernel of one op on [rows, cols]; kind says what a second operand is: full, row, column, one, scalar."""
    op = OPS[name]
    second = {"full": (rows, cols), "row": (1, cols), "column": (rows, 1), "one": (1, 1)}.get(kind)
    call = getattr(pto, name)
    parameters: list[Any] = [(rows, cols, dtype)]
    more = len(op.operand_names) - 1
    if name == "select":
        parameters = [(rows, cols, DType.U8), (rows, cols, dtype), (*second, dtype) if second else dtype]
    elif name.startswith(("row", "col")) and op.promotes:
        parameters.append((rows, 1, dtype) if name.startswith("row") else (1, cols, dtype))
    elif name == "matmul":
        parameters = [(rows, cols, dtype), (cols, rows + 3, dtype)]
    elif name == "interleave":
        parameters.append((rows, cols, dtype))
    else:
        parameters += [(*second, dtype) if second else dtype for _ in range(more)]
    result: dict[str, Any] = {}

    def body(*values: Any) -> Any:
        made = call(*values)
        result["type"] = made.type if hasattr(made, "type") else made
        return made

    shape = (
        {"rowsum": (rows, 1), "colsum": (1, cols)}.get(name[:3] + "sum", (rows, cols))
        if name[:3] in ("row", "col") and not op.promotes
        else (rows, cols)
    )
    out = dtype
    if op.infer.__name__ == "mask_type":
        out = DType.U8
    elif name[:3] in ("row", "col") and not op.promotes and dtype in (DType.F16, DType.BF16):
        out = DType.F32
    if name == "matmul":
        shape, out = (rows, rows + 3), matmul_result(dtype)
    elif name in ("slice_even", "slice_odd"):
        shape = (rows, cols // 2)
    elif name == "interleave":
        shape = (rows, 2 * cols)
    elif name == "transpose":
        shape = (cols, rows)
    return strategies.traced(
        body, *parameters, out=(*shape, out), name=f"{name}_{dtype}_{rows}x{cols}_{kind}"
    )


def supported(graphs: Iterator[KernelGraph]) -> tuple[list[KernelGraph], dict[str, str]]:
    """Graphs that can be emitted; of the others the reason."""
    good, refused = [], {}
    for graph in graphs:
        try:
            emit_kernel(graph)
            good.append(graph)
        except CompileError as error:
            refused[graph.name] = error.message
    return good, refused


def kernels_of(path: Any) -> dict[str, Any]:
    """The kernels that an example defines, without running it."""
    import ast
    import linecache

    def plain(node: ast.AST) -> bool:
        return all(
            isinstance(
                n,
                (ast.Constant, ast.Name, ast.Attribute, ast.BinOp, ast.Tuple, ast.operator, ast.expr_context),
            )
            for n in ast.walk(node)
        )

    def keep(node: ast.stmt) -> bool:
        if isinstance(node, ast.FunctionDef):
            return not any("workload" in ast.dump(d) for d in node.decorator_list)
        return isinstance(node, (ast.Import, ast.ImportFrom)) or (
            isinstance(node, ast.Assign) and plain(node.value) and "program" not in ast.dump(node.value)
        )

    text = path.read_text()
    tree = ast.parse(text)
    tree.body = [n for n in tree.body if keep(n)]
    linecache.lazycache(str(path), {})
    namespace: dict[str, Any] = {"__name__": "example"}
    exec(compile(tree, str(path), "exec"), namespace)
    return {name: value for name, value in namespace.items() if type(value).__name__ == "Kernel"}
