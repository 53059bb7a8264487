"""Compiles lane functions into loops over NumPy arrays, for the tests of the algebra and of the maths."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from pto_wsp.lower import ir, jit
from pto_wsp.lower.algebra import Algebra, Lanes
from pto_wsp.types import DType

Body = Callable[..., Lanes]
POINTER, I64 = ir.PointerType(), ir.IntType(64)
CPUS = {"generic": "x86-64", "avx2": "x86-64-v3", "avx512": "x86-64-v4"}


def features_of(cpu: str) -> frozenset[str]:
    """LLVM feature names that code for one of CPUS may use."""
    _, text = jit.cpu_features(jit.Target(cpu=CPUS[cpu]))
    return frozenset(word[1:] for word in text.split(",") if word.startswith("+"))


def cpus_here() -> list[str]:
    """Those of CPUS whose code this machine can run."""
    if not llvm.get_default_triple().startswith("x86_64"):
        return []
    host = llvm.get_host_cpu_features()
    return [cpu for cpu in CPUS if all(host.get(feature) for feature in features_of(cpu))]


def loop(
    module: ir.Module,
    name: str,
    body: Body,
    inputs: Sequence[DType],
    output: DType,
    lanes: int,
    features: frozenset[str],
) -> None:
    """Adds void lanes.name(out, in..., count) to the module; count is a multiple of lanes."""
    function = ir.Function(
        module, ir.FunctionType(ir.VoidType(), [POINTER] * (1 + len(inputs)) + [I64]), f"test.{name}"
    )
    entry, head, end = (function.append_basic_block(block) for block in ("entry", "loop", "end"))
    ir.Builder(entry).branch(head)
    builder = ir.Builder(head)
    k = Algebra(builder, lanes, features)
    i = builder.phi(I64)
    i.add_incoming(ir.Constant(I64, 0), entry)
    out, *sources, count = function.args
    values = [k.load(builder.gep(p, [i], source_etype=k.element(d)), d) for p, d in zip(sources, inputs, strict=True)]
    k.store(body(k, *values), builder.gep(out, [i], source_etype=k.element(output)))
    following = builder.add(i, ir.Constant(I64, lanes))
    i.add_incoming(following, builder.block)
    builder.cbranch(builder.icmp_unsigned("<", following, count), head, end)
    ir.Builder(end).ret_void()


def loops_ir(
    bodies: Mapping[str, Body], inputs: Sequence[DType], output: DType, lanes: int, features: frozenset[str]
) -> str:
    """LLVM text of a loop for each body."""
    module = ir.Module()
    for name, body in bodies.items():
        loop(module, name, body, inputs, output, lanes, features)
    return str(module)


def compile_loops(
    bodies: Mapping[str, Body], inputs: Sequence[DType], output: DType, lanes: int = 16, cpu: str = "generic"
) -> dict[str, Callable[..., Any]]:
    """One f(arrays...) -> array for each body; arrays of any one length."""
    text = loops_ir(bodies, inputs, output, lanes, features_of(cpu))
    code = jit.load(text, target=jit.Target(cpu=CPUS[cpu]))
    return {name: _callable(code, name, inputs, output, lanes) for name in bodies}


def compile_loop(
    body: Body, inputs: Sequence[DType] = (DType.F32,), output: DType = DType.F32, lanes: int = 16, cpu: str = "generic"
) -> Callable[..., Any]:
    """compile_loops() of one."""
    return compile_loops({"f": body}, inputs, output, lanes, cpu)["f"]


def _callable(code: jit.Code, name: str, inputs: Sequence[DType], output: DType, lanes: int) -> Callable[..., Any]:
    native = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (1 + len(inputs)), ctypes.c_int64)(
        code.address(f"test.{name}")
    )

    def call(*arrays: Any) -> Any:
        size = -(-len(arrays[0]) // lanes) * lanes
        padded = [np.concatenate([a, np.zeros(size - len(a), a.dtype)]) for a in arrays]
        assert [a.dtype for a in padded] == [d.numpy for d in inputs]
        result = np.empty(size, output.numpy)
        native(result.ctypes.data, *[a.ctypes.data for a in padded], size)
        return result[: len(arrays[0])]

    call.code, call.native = code, native  # type: ignore[attr-defined]  # keeps the code alive
    return call
