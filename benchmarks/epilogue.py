"""What follows a matrix product: how long a product takes with its epilogue, beside the product alone.

The epilogue is a pass over a buffer in L1, not part of the product's store. What fusing it into the store could save at
most is the buffer's store and load: the copy of a tile, the last case of each shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.harness import Case, main, on_tiles
from pto_wsp import DType, In, Out, Tile, kernel, pto

F32, I8 = DType.F32, DType.I8
SHAPES = ((16, 16, 16), (64, 64, 16), (64, 64, 32), (64, 64, 64), (64, 64, 128), (128, 128, 64))    # m, n, k
EPILOGUES: dict[str, Callable[[Any, Any], Any]] = {
    "bias and relu": lambda x, bias: pto.relu(x + bias),
    "scaled, to i8": lambda x, bias: pto.cast(x * 0.25, I8),
    "silu": lambda x, bias: pto.silu(x),
    "bias and gelu": lambda x, bias: pto.gelu(x + bias),
}


def with_epilogue(m: int, n: int, k: int, epilogue: Callable[[Any, Any], Any], dtype: DType = F32) -> Any:
    @kernel
    def product(a: In[Tile[m, k, F32]], b: In[Tile[k, n, F32]], bias: In[Tile[1, n, F32]],
                out: Out[Tile[m, n, dtype]]):
        pto.store(out, epilogue(pto.matmul(a, b), bias))

    return product


def with_maxima(m: int, n: int, k: int) -> Any:
    @kernel
    def product(a: In[Tile[m, k, F32]], b: In[Tile[k, n, F32]], bias: In[Tile[1, n, F32]], out: Out[Tile[m, n, F32]],
                most: Out[Tile[m, 1, F32]]):
        scaled = pto.matmul(a, b) * 0.25
        pto.store(out, scaled)
        pto.store(most, pto.rowmax(scaled))

    return product


def copy(m: int, n: int) -> Any:
    @kernel
    def copied(x: In[Tile[m, n, F32]], out: Out[Tile[m, n, F32]]):
        pto.store(out, x)

    return copied


def cases() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    for m, n, k in SHAPES:
        operands = [rng.standard_normal((4, *shape), dtype=np.float32) for shape in ((m, k), (k, n), (1, n))]
        out, most = (np.zeros((4, m, columns), np.float32) for columns in (n, 1))
        product = on_tiles(with_epilogue(m, n, k, lambda x, bias: x), *operands, out)
        for name, epilogue in EPILOGUES.items():
            dtype = I8 if name.endswith("i8") else F32
            ours = on_tiles(with_epilogue(m, n, k, epilogue, dtype), *operands, np.zeros((4, m, n), dtype.numpy))
            yield Case(f"{m}x{n}x{k}, {name}", {"pto_wsp": ours, "product": product})
        ours = on_tiles(with_maxima(m, n, k), *operands, out, most)
        yield Case(f"{m}x{n}x{k}, scale and row maxima", {"pto_wsp": ours, "product": product})
        buffer, tile = (np.broadcast_to(np.zeros((m, n), np.float32), out.shape) for _ in range(2))     # one in L1
        yield Case(f"{m}x{n}x{k}, the buffer", {"pto_wsp": on_tiles(copy(m, n), buffer, tile), "product": product})


if __name__ == "__main__":
    main(cases)
