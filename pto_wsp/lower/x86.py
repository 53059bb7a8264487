"""Instructions of x86 that LLVM has no words for: what they give where LLVM's own promise nothing, or two in one.

Functions of the algebra `k` and its lanes. Each says for how many lanes there is an instruction; any multiple is cut
into parts. `k.features` names what the CPU has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pto_wsp.lower import ir
from pto_wsp.types import DType

if TYPE_CHECKING:
    from pto_wsp.lower.algebra import Algebra, Lanes

I32 = ir.IntType(32)
LETTER = {DType.F32: "ps", DType.F64: "pd", DType.I32: "dq", DType.U32: "udq", DType.I64: "qq", DType.U64: "uqq"}
ZERO_FOR_NAN = 0x88     # table of vfixupimm: four bits for each class of numbers, quiet and other NaN first; 8 is +0 …
QUIET_NAN = 0x22        # … and 2 a NaN that is made quiet; 0 leaves the first operand alone


def conversion_lanes(k: Algebra, source: DType, target: DType) -> int:
    """Lanes of the instruction float -> int; 0: there is none that takes these, or not on this CPU."""
    if target not in LETTER or source not in LETTER:
        return 0
    wider = max(source.bits, target.bits)
    if "avx512f" in k.features and (target.bits < 64 or "avx512dq" in k.features):
        lanes = 512 // wider
    else:
        lanes = 256 // wider if "avx" in k.features and target == DType.I32 else 0
    return lanes if lanes and k.lanes % lanes == 0 else 0


def float_to_int(k: Algebra, x: Lanes, target: DType, nearest: bool) -> Lanes:
    """Toward zero or to nearest. Where the result does not fit, and for NaN: the lowest of signed ints, the highest of
    others."""
    lanes = conversion_lanes(k, x.dtype, target)
    how, source, to = "cvt" if nearest else "cvtt", LETTER[x.dtype], LETTER[target]
    if lanes * max(x.dtype.bits, target.bits) < 512:
        return _in_parts(k, f"llvm.x86.avx.{how}.{source}2{to}.256", lanes, target, [x], lambda _: [])
    name = f"llvm.x86.avx512.mask.{how}{source}2{to}.512"
    return _in_parts(k, name, lanes, target, [x], lambda result: [ir.Constant(result, None), _all(lanes), I32(4)])


def has_larger(k: Algebra, dtype: DType) -> bool:
    return "avx" in k.features and "avx512f" not in k.features and k.lanes * dtype.bits % 256 == 0


def larger(k: Algebra, x: Lanes, y: Lanes) -> Lanes:
    """x if x > y else y, of floats; see has_larger."""
    name = f"llvm.x86.avx.max.{LETTER[x.dtype]}.256"
    return _in_parts(k, name, 256 // x.dtype.bits, x.dtype, [x, y], lambda _: [])


def can_fix(k: Algebra, dtype: DType) -> bool:
    return "avx512f" in k.features and dtype in (DType.F32, DType.F64) and k.lanes * dtype.bits % 512 == 0


def fixed(k: Algebra, x: Lanes, by: Lanes, table: int) -> Lanes:
    """Lanes of x, but what the table says where `by` is a NaN; see can_fix. A cycle less than asking isnan()."""
    lanes, suffix = 512 // by.dtype.bits, LETTER[by.dtype]
    name = f"llvm.x86.avx512.mask.fixupimm.{suffix}.512"
    given = k.builder.bitcast(x.ir, k.ir_type(by.dtype)) if x.dtype != by.dtype else x.ir
    kind = ir.VectorType(ir.IntType(by.dtype.bits), lanes)
    more = [ir.Constant(kind, table), I32(0), _all(lanes), I32(4)]
    return _in_parts(k, name, lanes, by.dtype, [k.wrap(given, by.dtype), by], lambda _: more)


def both_or_either(k: Algebra, where: Lanes, a: Lanes, b: Lanes) -> Lanes:
    """a & b in the bits set in `where`, a | b in the others, of 512 bits; LLVM would take two instructions."""
    kind = k.ir_type(a.dtype)
    name = f"llvm.x86.avx512.pternlog.{'d' if a.dtype.bits == 32 else 'q'}.512"
    function = k.declare(name, kind, [kind, kind, kind, I32])
    table = 0b10001110  # by where, a, b
    return k.wrap(k.builder.call(function, [where.ir, a.ir, b.ir, I32(table)]), a.dtype)


def _all(lanes: int) -> Any:
    """A mask of all lanes, as the instructions take it."""
    return ir.IntType(lanes)(-1)


def _in_parts(k: Algebra, name: str, lanes: int, result: DType, operands: list[Lanes],
              more: Callable[[ir.Type], list[Any]]) -> Lanes:
    """The intrinsic on so many lanes of the operands at a time, with `more` operands for its result's type."""
    kind = ir.VectorType(ir.IntType(result.bits) if result.is_int else k.element(result), lanes)
    rest = more(kind)
    cut = [[x.ir if k.lanes == lanes else k.builder.lanes(x.ir, at, lanes) for x in operands]
           for at in range(0, k.lanes, lanes)]
    function = k.declare(name, kind, [value.type for value in (*cut[0], *rest)])
    parts = [k.builder.call(function, [*values, *rest]) for values in cut]
    while len(parts) > 1:
        parts = [k.builder.joined(a, b) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return k.wrap(parts[0], result)
