"""Matrix products of one tile on one core, against BLAS called for each tile in NumPy's loop over a stack.

Claims: f32 from 16 to 256 cubed at 85 % of BLAS or more, f16 and bf16 summed in f32 at 70 % of f32 BLAS, i8 summed in
i32 at f32's rate; a matrix by few columns, and few rows by a matrix, at 90 % of BLAS in all of these.

    python -m benchmarks.matmul [--only f32]
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.harness import Case, main


@dataclass(frozen=True)
class Product:
    """a [m, k] @ b [k, n]; layouts: `rows`, `columns` (a transposed tile) or `window` (of an array 4096 wide)."""

    dtype: str
    m: int
    n: int
    k: int
    a: str = "rows"
    b: str = "rows"
    acc: bool = False
    tail: bool = False

    @property
    def goals(self) -> dict[str, float]:
        if self.dtype not in ("f32", "f16", "bf16", "i8"):
            return {}
        if min(self.m, self.n) <= 8 and self.k >= 64:
            return {"blas": 0.9}
        cube = self.m == self.n == self.k <= 256 and (self.a, self.b) == ("rows", "rows")
        if self.dtype == "i8":
            return {"own f32": 1.0} if cube else {}
        return {"blas": 0.85 if self.dtype == "f32" else 0.7} if cube else {}

    @property
    def bytes(self) -> int:
        """Read and written, once each."""
        size = {"f16": 2, "bf16": 2, "i8": 1, "f64": 8}.get(self.dtype, 4)
        return (self.m + self.n) * self.k * size + self.m * self.n * max(size, 4)

    def __str__(self) -> str:
        views = f"  a {self.a}, b {self.b}" if (self.a, self.b) != ("rows", "rows") else ""
        return f"{self.dtype:<4} {self.m}x{self.n}x{self.k}{views}{'  acc' * self.acc}{'  tail' * self.tail}"


CUBES = (16, 32, 64, 100, 128, 256)
COLUMNS = ((256, 1, 256), (64, 1, 64), (1024, 1, 128), (256, 4, 256), (64, 8, 64))     # m, n, k: a lies along k
ROWS = ((1, 256, 256), (1, 64, 64), (4, 256, 256))      # b lies along n, or along k if it is a transposed tile
OTHERS = ((17, 5, 64), (33, 20, 17), (48, 80, 24), (65, 65, 65), (3, 3, 3), (8, 512, 8), (512, 8, 512), (256, 64, 16),
          (128, 16, 128), (64, 64, 1))

PRODUCTS = [
    *(Product(d, n, n, n) for d in ("f32", "f16", "bf16", "i8") for n in CUBES),
    *(Product(d, n, n, n) for d in ("f64", "i32") for n in (16, 64, 256)),
    *(Product(d, n, n, n, b="columns") for d in ("f32", "f16", "i8") for n in (64, 128)),
    *(Product("f32", n, n, n, a="columns") for n in (64, 128)),
    *(Product("f32", n, n, n, a="window", b="window") for n in (64, 256)),
    *(Product("f32", n, n, n, acc=True) for n in (16, 64)),
    *(Product("f32", n, n, n, tail=True) for n in (16, 64)),
    *(Product("f32", *shape) for shape in COLUMNS),
    *(Product("f32", *shape, b=b) for shape in ROWS for b in ("rows", "columns")),
    *(Product(d, *shape) for d in ("f16", "i8") for shape in (COLUMNS[0], ROWS[0])),
    *(Product("f32", *shape) for shape in OTHERS),
    Product("f32", 512, 512, 512),
]


def cases() -> Iterator[Case]:
    for product in PRODUCTS:
        sides = {"pto_wsp": prepare(product), "blas": blas(product)}
        if product.dtype == "i8":
            sides["own f32"] = prepare(replace(product, dtype="f32"))
        flops = 2 * product.m * product.n * product.k
        yield Case(f"matmul {product}", sides, product.goals, flops=flops, bytes=product.bytes)


def prepare(case: Product) -> Callable[[int], Any]:
    """A call that runs the product so many times in native code."""
    import numpy as np

    from pto_wsp.lower import jit, matmul
    from pto_wsp.types import DType

    machine = matmul.Target.of(*jit.cpu_features())
    dtype = DType(case.dtype)
    turned = {"a_turned": case.a == "columns", "b_turned": case.b == "columns"}
    spec = matmul.MatmulSpec(case.m, case.n, case.k, dtype, dtype, case.acc, case.tail, **turned)
    code = jit.load(repeated(spec, machine))
    a, b = operand(case.m, case.k, dtype.numpy, case.a), operand(case.k, case.n, dtype.numpy, case.b)
    c, acc = np.zeros((case.m, case.n), spec.result.numpy), np.zeros((case.m, case.n), spec.result.numpy)
    scratch = np.zeros(matmul.scratch_bytes(spec, machine) + 64, np.uint8)
    words = [a.ctypes.data, *a.strides, b.ctypes.data, *b.strides]
    words += [acc.ctypes.data, *acc.strides] if case.acc else []
    words += [c.ctypes.data, c.strides[0], *([case.m, case.n, case.k] if case.tail else [])]
    words += [(scratch.ctypes.data + 63) // 64 * 64]
    row = np.array(words, np.int64)
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(code.address("repeat"))
    keep = (code, a, b, c, acc, scratch, row)

    def run(times: int) -> Any:
        function(row.ctypes.data, times)
        return keep

    run(1)
    wide = np.float64 if dtype.is_float else np.int64
    assert np.allclose(c, (a.astype(wide) @ b.astype(wide)).astype(c.dtype), rtol=1e-4, atol=1e-3), case
    return run


def repeated(spec: Any, machine: Any) -> str:
    """A module with `repeat(ptr words, i64 times)`."""
    from pto_wsp.lower import ir, matmul

    module, i64, pointer = ir.Module(), ir.IntType(64), ir.PointerType()
    function = matmul.emit(module, spec, machine)
    repeat = ir.Function(module, ir.FunctionType(ir.VoidType(), [pointer, i64]), "repeat")
    entry, again, done = (repeat.append_basic_block(name) for name in ("entry", "again", "done"))
    build = ir.Builder(entry)
    arguments = []
    for i, argument in enumerate(function.args):
        word = build.load(build.gep(repeat.args[0], [i64(i)], source_etype=i64), typ=i64)
        arguments.append(build.inttoptr(word, pointer) if argument.type == pointer else word)
    build.branch(again)
    build.position_at_end(again)
    i = build.phi(i64)
    build.call(function, arguments)
    following = build.add(i, i64(1))
    i.add_incoming(i64(0), entry)
    i.add_incoming(following, again)
    build.cbranch(build.icmp_signed("<", following, repeat.args[1]), again, done)
    build.position_at_end(done)
    build.ret_void()
    return str(module)


def operand(rows: int, columns: int, dtype: Any, layout: str) -> Any:
    """Numbers small enough that no sum overflows."""
    import numpy as np

    shape = {"rows": (rows, columns), "columns": (columns, rows), "window": (rows, 4096)}[layout]
    values = (np.random.default_rng(0).standard_normal(shape) * 3).astype(dtype)
    return values.T if layout == "columns" else values[:, :columns]


def blas(case: Product) -> Callable[[int], Any]:
    """np.matmul of f32 (for f64: f64) operands in the same layouts, into an existing array.

    One call for a stack of tiles that are all the same one: NumPy calls BLAS for each, without a detour by Python.
    """
    import numpy as np
    from numpy.lib.stride_tricks import as_strided

    dtype = np.float64 if case.dtype == "f64" else np.float32
    a, b = operand(case.m, case.k, dtype, case.a), operand(case.k, case.n, dtype, case.b)
    c = np.zeros((case.m, case.n), dtype)

    def stack(x: Any, times: int) -> Any:
        return as_strided(x, (times, *x.shape), (0, *x.strides))

    return lambda times: np.matmul(stack(a, times), stack(b, times), out=stack(c, times))


if __name__ == "__main__":
    main(cases)
