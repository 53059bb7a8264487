"""Small programs for the end-to-end tests, written as a user of the public API writes them."""

import numpy as np

from pto_wsp import DType, In, Out, Tensor, Tile, kernel, pto, workload


def dtype_of(array):
    """The DType of a NumPy array; bfloat16 by its name."""
    named = {"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"}
    name = array.dtype.name
    return DType[named.get(name) or name.replace("uint", "U").replace("int", "I")]


def tensor(array):
    return Tensor(data=array, shape=array.shape, dtype=dtype_of(array))


def f32(*shape, seed=0):
    """Normal random numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def run(program_or_workload, **options):
    """Compile (if needed), execute, and return the stats."""
    program = program_or_workload
    if hasattr(program, "compile"):
        program = program.compile(target="cpu_sim", **options)
    program.execute()
    program.synchronize()
    assert program.is_complete()
    return program.stats


def run_one(kernel, *args, **kwargs):
    """Run one task of `kernel`; arrays become tensors and are filled in place. Returns the cycles."""

    def wrap(value):
        return tensor(value) if isinstance(value, np.ndarray) else value

    args, kwargs = [wrap(a) for a in args], {name: wrap(a) for name, a in kwargs.items()}

    @workload
    def one_task():
        kernel(*args, **kwargs)

    stats = run(one_task())
    assert stats.task_count == 1
    return stats.total_cycles


def task_of(cycles):
    """A kernel whose tasks take `cycles` (an even number): it copies a row of cycles / 2 numbers."""
    width = cycles // 2
    assert 2 * width == cycles

    @kernel
    def copy_row(x: In[Tile[1, width, DType.F32]], out: Out[Tile[1, width, DType.F32]]):
        pto.store(out, x)

    source, target = tensor(f32(1, width)), tensor(np.zeros((1, width), np.float32))

    def call(*axes):
        return copy_row[axes](x=source, out=target) if axes else copy_row(x=source, out=target)

    call.kernel, call.resources, call.cycles = copy_row, {"x": source, "out": target}, cycles
    return call
