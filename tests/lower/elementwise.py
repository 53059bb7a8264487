"""Compiles a lane function into a NumPy-callable loop, for the tests of the algebra and of the maths."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from pto_wsp.lower import jit
from pto_wsp.lower.algebra import Algebra, Lanes
from pto_wsp.types import DType

CPUS = {
    "generic": ("x86-64", ()),
    "avx2": ("x86-64-v3", ("f16c",)),
    "avx512": ("x86-64-v4", ("f16c", "avx512f")),
}
POINTER, I64 = ir.PointerType(), ir.IntType(64)


def loop_ir(body: Callable[..., Lanes], inputs: Sequence[DType], output: DType, lanes: int, features: Sequence[str]) -> str:
    """void f(out, in..., count): count is a multiple of lanes."""
    module = ir.Module("test")
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER] * (1 + len(inputs)) + [I64]), "f")
    entry, loop, end = (function.append_basic_block(name) for name in ("entry", "loop", "end"))
    ir.IRBuilder(entry).branch(loop)
    builder = ir.IRBuilder(loop)
    k = Algebra(builder, lanes, features)
    i = builder.phi(I64)
    i.add_incoming(ir.Constant(I64, 0), entry)
    out, *sources, count = function.args
    values = [k.load(builder.gep(p, [i], source_etype=k.element(d)), d) for p, d in zip(sources, inputs)]
    k.store(body(k, *values), builder.gep(out, [i], source_etype=k.element(output)))
    following = builder.add(i, ir.Constant(I64, lanes))
    i.add_incoming(following, builder.block)
    builder.cbranch(builder.icmp_unsigned("<", following, count), loop, end)
    ir.IRBuilder(end).ret_void()
    return str(module)


def compile_loop(
    body: Callable[..., Lanes],
    inputs: Sequence[DType] = (DType.F32,),
    output: DType = DType.F32,
    lanes: int = 16,
    cpu: str = "avx512",
) -> Callable[..., Any]:
    """f(arrays...) -> array, any length."""
    name, features = CPUS[cpu]
    code = jit.load(loop_ir(body, inputs, output, lanes, features), target=jit.Target(cpu=name))
    native = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (1 + len(inputs)), ctypes.c_int64)(code.address("f"))

    def call(*arrays: Any) -> Any:
        size = -(-len(arrays[0]) // lanes) * lanes
        padded = [np.concatenate([a, np.zeros(size - len(a), a.dtype)]) for a in arrays]
        assert all(a.dtype == d.numpy for a, d in zip(padded, inputs))
        result = np.empty(size, output.numpy)
        native(result.ctypes.data, *[a.ctypes.data for a in padded], size)
        return result[: len(arrays[0])]

    call.code, call.native = code, native  # type: ignore[attr-defined]
    return call
