"""Random kernels against NumPy, which knows nothing of the package: bit for bit, as each op is rounded by itself.

A kernel is a random program over a growing list of values. The same program runs twice: on tiles while a kernel is
traced, and on arrays with the NumPy functions below.
"""

from functools import reduce

import ml_dtypes
import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from pto_wsp import In, Out, P, Tile, kernel, pto, workload
from tests.e2e.programs import dtype_of, run, tensor

FLOATS = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]
INTEGERS = [np.int32, np.int64, np.int8, np.uint16, np.uint64]


def exact(function):
    """`function` as an op of any dtype: f16 and bf16 are computed in f32, and the result is rounded once."""

    def op(*arrays):
        dtype = arrays[0].dtype
        wide = np.float32 if dtype in (np.float16, ml_dtypes.bfloat16) else dtype
        with np.errstate(all="ignore"):
            return np.asarray(function(*(a.astype(wide) for a in arrays))).astype(dtype)

    return op


def larger(x, y):
    return np.where((x == 0) & (y == 0), x + y, np.maximum(x, y)) if x.dtype.kind == "f" else np.maximum(x, y)


def smaller(x, y):
    return -larger(-x, -y) if x.dtype.kind == "f" else np.minimum(x, y)


def interleaved(x, y):
    return np.stack([x, y], axis=2).reshape(x.shape[0], -1)


# name -> (what the kernel does, what NumPy does)
BINARY = {
    "add": (lambda x, y: x + y, exact(np.add)),
    "sub": (lambda x, y: x - y, exact(np.subtract)),
    "mul": (lambda x, y: x * y, exact(np.multiply)),
    "maximum": (pto.maximum, exact(larger)),
    "minimum": (pto.minimum, exact(smaller)),
    "choose": (
        lambda x, y: pto.select(x < y, y - x, x),
        lambda x, y: np.where(x < y, exact(np.subtract)(y, x), np.broadcast_arrays(x, y)[0]),
    ),
}
UNARY = {
    "neg": (pto.neg, exact(np.negative)),
    "abs": (pto.abs, exact(np.abs)),
    "relu": (pto.relu, exact(lambda x: larger(x, np.zeros_like(x)))),
    "transpose": (pto.transpose, np.transpose),
    "even": (pto.slice_even, lambda x: x[:, : x.shape[1] // 2 * 2 : 2]),
    "odd": (pto.slice_odd, lambda x: x[:, 1::2]),
    "double": (lambda x: pto.interleave(x, x), lambda x: interleaved(x, x)),
}
REDUCTIONS = {      # NumPy's own max and min promise nothing about zeros of two signs
    "rowmax": (pto.rowmax, lambda x: reduce(larger, np.split(x, x.shape[1], axis=1))),
    "colmin": (pto.colmin, lambda x: reduce(smaller, np.split(x, x.shape[0], axis=0))),
}
INTEGER_REDUCTIONS = {
    "rowsum": (pto.rowsum, lambda x: x.sum(1, keepdims=True, dtype=x.dtype)),
    "colsum": (pto.colsum, lambda x: x.sum(0, keepdims=True, dtype=x.dtype)),
}
MOST = 4096  # elements of a tile


@st.composite
def programs(draw):
    """(dtype, input shapes, steps): each step is an op and the numbers of its operands. Shapes always fit."""
    dtype = np.dtype(draw(st.sampled_from(FLOATS + INTEGERS)))
    rows, cols = draw(st.integers(1, 12)), draw(st.integers(1, 40))
    shapes = draw(st.lists(st.sampled_from([(rows, cols), (rows, 1), (1, cols), (1, 1)]), min_size=1, max_size=3))
    narrow = dtype in (np.float16, ml_dtypes.bfloat16)
    reductions = ({} if narrow else REDUCTIONS) | (INTEGER_REDUCTIONS if dtype.kind in "iu" else {})
    known, steps = list(shapes), []
    for _ in range(draw(st.integers(1, 10))):
        first = draw(st.integers(0, len(known) - 1))
        shape = known[first]
        fitting = [n for n, other in enumerate(known) if all(a == b or 1 in (a, b) for a, b in zip(shape, other))]
        unary = [n for n in UNARY if (n not in ("even", "odd") or shape[1] > 1) and (n != "double" or shape[1] < 80)]
        name = draw(st.sampled_from([*BINARY, *unary, *reductions]))
        if name in BINARY:
            second = draw(st.sampled_from(fitting))
            steps.append((*BINARY[name], (first, second)))
            known.append(tuple(np.broadcast_shapes(shape, known[second])))
        else:
            kernel_op, numpy_op = (UNARY | reductions)[name]
            steps.append((kernel_op, numpy_op, (first,)))
            known.append(numpy_op(np.zeros(shape, dtype)).shape)
    return dtype, shapes, steps, known[-1]


# The negation, first in a pass of its own, is computed in the last one: the pass in between makes what it is added to.
MOVED = (
    np.dtype(np.float32),
    [(1, 4)],
    [(*UNARY["neg"], (0,)), (*UNARY["even"], (0,)), (*UNARY["even"], (2,)), (*BINARY["add"], (1, 3))],
    (1, 4),
)


def numbers(dtype, shape, seed):
    rng = np.random.default_rng(seed)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    special = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, 1e-40, 65504.0, 3e38])
    values = np.where(rng.random(shape) < 0.1, rng.choice(special, shape), rng.standard_normal(shape))
    with np.errstate(over="ignore"):
        return values.astype(dtype)


@given(program=programs(), seed=st.integers(0, 2**32), tasks=st.integers(1, 5))
@example(program=MOVED, seed=0, tasks=1)
def test_random_kernel(program, seed, tasks):
    dtype, shapes, steps, result = program
    inputs = [numbers(dtype, (tasks, *shape), seed + n) for n, shape in enumerate(shapes)]
    out = np.zeros((tasks, *result), dtype)
    names = "abc"[: len(shapes)]

    def body(*values):
        values = list(values)
        for op, _, operands in steps:
            values.append(op(*(values[n] for n in operands)))
        return values[-1]

    scope = {"body": body, "pto": pto}
    exec(f"def k({', '.join(names)}, out):\n    pto.store(out, body({', '.join(names)}))", scope)
    d = dtype_of(out)
    scope["k"].__annotations__ = {n: In[Tile[(*s, d)]] for n, s in zip(names, shapes)} | {
        "out": Out[Tile[(*result, d)]]
    }
    compiled = kernel(scope["k"])
    tensors, OUT = [tensor(array) for array in inputs], tensor(out)

    @workload
    def all_tasks():
        for t in P(tasks):
            compiled[t](*(x[t] for x in tensors), out=OUT[t])

    run(all_tasks())
    for t in range(tasks):
        values = [array[t] for array in inputs]
        with np.errstate(invalid="ignore", over="ignore"):
            for _, op, operands in steps:
                values.append(op(*(values[n] for n in operands)))
        expected = values[-1].astype(dtype)
        nan = np.isnan(expected.astype(np.float64)) if dtype.kind not in "iu" else np.zeros(result, bool)
        same = (out[t] == expected) & (np.signbit(out[t].astype(np.float64)) == np.signbit(expected.astype(np.float64)))
        assert (same | (nan & (out[t] != out[t]))).all(), (out[t], expected)
