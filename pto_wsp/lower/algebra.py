"""The algebra `k`: arithmetic on lanes, the words a lowering rule is written in.

`Algebra(builder, lanes)` appends LLVM IR for `lanes` elements at once (`<lanes x T>`, plain scalars when
lanes is 1). A rule says `lambda k, x, y: k.add(x, y)` and holds for every dtype and every width.

In: `Lanes` values (LLVM value + DType) and Python numbers, which adopt the other operand's dtype.
Out: `Lanes`. Comparisons give masks, which are Lanes with dtype None (one i1 a lane).

  values       const(number, dtype)  splat(scalar ir value, dtype)  wrap(ir value, dtype)
               load(pointer, dtype, align=, mask=)  store(x, pointer, align=, mask=)      contiguous lanes
               gather(pointer, at, dtype)                                   element offsets, i32 or i64 lanes
  arithmetic   add sub mul neg abs                  floats: IEEE; ints: wrap around
               exact_sum(x, y)                      floats: x + y and what rounding left out of it
               div rem                              floats: IEEE, no rem; ints: truncate, rem has the sign of x,
                                                    x/0 = x%0 = 0, MIN/-1 = MIN, MIN%-1 = 0
               fma(x, y, z) = x*y + z               floats: one rounding; ints: wraps
               sqrt copysign(x, sign)               floats
               maximum minimum                      IEEE 754-2019: NaN propagates, -0 < +0; ints: by signedness
  compare      lt le gt ge eq ne isnan              -> mask; NaN compares false, except ne
  masks, bits  and_ or_ xor not_                    masks or ints
               select(mask, x, y)  any_(mask) -> i1  all_(mask) -> i1
               shl lshr ashr(x, count)              count >= bits gives 0 (ashr: the sign)
               bitcast(x, dtype)                    same width
  rounding     floor ceil trunc rint                floats, rint ties to even
  convert      convert(x, dtype)                    every pair of dtypes and mask -> number (0/1);
                                                    float -> int truncates, saturates, NaN -> 0;
                                                    float -> smaller float rounds to nearest even
               widen(x)                             f16, bf16 -> f32; others as they are
               round_to(x, dtype)                   rounded to dtype, still held in the compute dtype

f16 and bf16 are storage only: their lanes are i16 bit patterns, arithmetic on them is a TypeError; widen, compute
in f32, convert back. exp, log, tanh, ... are in `lower/math.py` with the same shape of call: `math.exp(k, x)`.

Same bits on every CPU: no fast-math flag is ever set and a product is fused with a sum only by fma(). `features`
(LLVM names: "fma", "avx512f") picks instructions, never results; leaving one out is slower, naming one that the CPU
lacks is a mistake. Without FMA, f32's is made of f64 and f64's is libm's, and so are floor() and its kin without
SSE4.1: slow there, exact everywhere, as IEEE 754 defines them. The sign and payload of a NaN are the one thing not
promised.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Sequence
from functools import partial
from math import copysign, inf, isnan
from operator import index
from typing import Any, NamedTuple

from pto_wsp.lower import division, ir, x86
from pto_wsp.types import DType

Convert = Callable[["Lanes"], "Lanes"]
Number = int | float | bool
Operand = Any  # Lanes, or a Number, which adopts the dtype of the other operands

I1, I32, HALF = ir.IntType(1), ir.IntType(32), ir.Type("half", "f16")
IR_TYPES: dict[DType, ir.Type] = {
    DType.F16: ir.IntType(16),
    DType.BF16: ir.IntType(16),
    DType.F32: ir.FloatType(),
    DType.F64: ir.DoubleType(),
    **{d: ir.IntType(d.bits) for d in DType if d.is_int},
}
STORAGE_ONLY = (DType.F16, DType.BF16)
SIGNIFICAND_BITS = {DType.F32: 24, DType.F64: 53}
MINUS_INFINITY = {DType.F16: 0xFC00, DType.BF16: 0xFF80}  # bits
INT_OF_WIDTH = {8: DType.I8, 16: DType.I16, 32: DType.I32, 64: DType.I64}


class Lanes(NamedTuple):
    """One value a lane. dtype None: a mask."""

    ir: ir.Value
    dtype: Any  # DType, or None
    number: Any = None  # what all lanes are known to be
    low: float = -inf  # floats: what they are known not to be below …
    high: float = inf  # … and above, unless they are NaN
    no_minus_zero: bool = False  # floats: known not to be -0
    before: Any = None  # () -> (Lanes, bool): what becomes the same ints, and whether it has to be rounded to them
    narrow: Any = None  # the Lanes of f16 or bf16 that they were widened from
    half: Any = None  # f16 or bf16, which is known to have them all
    mask: Any = None  # the mask that they are 1 and 0 of

    def __str__(self) -> str:
        return f"{self.dtype.value if self.dtype else 'mask'} {self.ir}"


def across_rows(k: Algebra, rows: Sequence[Lanes], body: Callable[[Lanes, Lanes], Lanes]) -> Lanes:
    """What `body` makes of each row's lanes, row r's in lane r: first halves meet second halves until one lane is left.

    A level makes one vector of two as long as there are two, and keeps the rows in order.
    """
    dtype, values, width = rows[0].dtype, [x.ir for x in rows], k.lanes
    values += values[-1:] * ((1 << (len(rows) - 1).bit_length()) - len(rows))
    indices = ir.VectorType(I32, k.lanes)

    def picked(x: Any, y: Any, lanes: list[int]) -> Lanes:
        return Lanes(k.builder.shuffle_vector(x, y, indices((lanes * 2)[: k.lanes])), dtype)

    while width > 1:
        half, width = len(values) // 2, width // 2
        firsts = [g + other for g in range(0, k.lanes, 2 * width) for other in (0, k.lanes)[: 1 + bool(half)]]
        low, high = ([(f + at + i) for f in firsts for i in range(width)] for at in (0, width))
        pairs = zip(values[:half], values[half:], strict=True) if half else [(values[0], values[0])]
        values = [body(picked(x, y, low), picked(x, y, high)).ir for x, y in pairs]
    return Lanes(values[0], dtype)


def compute_dtype(dtype: DType) -> DType:
    """The dtype that arithmetic on `dtype` is carried out in."""
    return DType.F32 if dtype in STORAGE_ONLY else dtype


class Algebra:
    """Appends instructions for `lanes` elements to `builder`. See the module's table."""

    def __init__(self, builder: ir.Builder, lanes: int = 1, features: Collection[str] = ()):
        self.builder = builder
        self.lanes = lanes
        self.features = frozenset(features)
        self._constants: dict[tuple[DType, Any], Lanes] = {}
        self._types: dict[DType | None, ir.Type] = {}

    # ---- values -------------------------------------------------------------------------------------------------

    def element(self, dtype: DType | None) -> ir.Type:
        """LLVM type of one lane; None: a mask."""
        return I1 if dtype is None else IR_TYPES[dtype]

    def ir_type(self, dtype: DType | None) -> ir.Type:
        """LLVM type of a value of this width."""
        if dtype not in self._types:
            element = self.element(dtype)
            self._types[dtype] = element if self.lanes == 1 else ir.VectorType(element, self.lanes)
        return self._types[dtype]

    def const(self, value: Number, dtype: DType) -> Lanes:
        """The number in every lane, converted to dtype as convert() does."""
        key = (dtype, value if dtype.is_int else struct.pack("d", value))
        if key not in self._constants:
            bits = _representable(value, dtype)
            number = storage_value(int(bits), dtype) if dtype in STORAGE_ONLY else bits
            self._constants[key] = Lanes(ir.Constant(self.ir_type(dtype), bits), dtype, number)
        return self._constants[key]

    def mask(self, value: bool) -> Lanes:
        """True or False in every lane."""
        return Lanes(ir.Constant(self.ir_type(None), value), None)

    def splat(self, scalar: Any, dtype: DType) -> Lanes:
        """A scalar LLVM value of type `dtype` in every lane."""
        if self.lanes == 1:
            return Lanes(scalar, dtype)
        vector = self.ir_type(dtype)
        undefined = ir.undefined(vector)
        first = self.builder.insert_element(undefined, scalar, I32(0))
        zeros = ir.Constant(ir.VectorType(I32, self.lanes), None)
        return Lanes(self.builder.shuffle_vector(first, undefined, zeros), dtype)

    def wrap(self, value: Any, dtype: DType | None) -> Lanes:
        """An LLVM value of this width as Lanes."""
        return Lanes(value, dtype)

    def load(self, pointer: Any, dtype: DType, align: int | None = None, mask: Lanes | None = None) -> Lanes:
        """Contiguous lanes from `pointer`; align in bytes, the element's own by default. Only the mask's lanes are
        touched, and the others are 0."""
        align, vector = align or dtype.itemsize, self.ir_type(dtype)
        if mask is None:
            return Lanes(self.builder.load(pointer, align=align, typ=vector), dtype)
        kinds = [ir.PointerType(), I32, self.ir_type(None), vector]
        function = self.declare(f"llvm.masked.load.{vector.suffix}.p0", vector, kinds)
        return Lanes(self.builder.call(function, [pointer, I32(align), mask.ir, ir.Constant(vector, None)]), dtype)

    def store(self, x: Lanes, pointer: Any, align: int | None = None, mask: Lanes | None = None) -> None:
        """Contiguous lanes to `pointer`; align in bytes, the element's own by default. Only the mask's lanes are
        touched."""
        assert x.dtype is not None, "a mask has no bytes: convert it first"
        align, vector = align or x.dtype.itemsize, self.ir_type(x.dtype)
        if mask is None:
            self.builder.store(x.ir, pointer, align=align)
            return
        kinds = [vector, ir.PointerType(), I32, self.ir_type(None)]
        function = self.declare(f"llvm.masked.store.{vector.suffix}.p0", ir.VoidType(), kinds)
        self.builder.call(function, [x.ir, pointer, I32(align), mask.ir])

    def store_around(self, x: Lanes, pointer: Any) -> None:
        """Contiguous lanes to `pointer`, which is a multiple of 16, around the cache: a line that is written whole is
        not fetched before. In pieces of 16 bytes, since arrays seldom lie at a multiple of more; they are gathered."""
        assert x.dtype is not None
        count = 16 // x.dtype.itemsize
        for at in range(0, self.lanes, count):
            here = self.builder.gep(pointer, [I32(at)], source_etype=IR_TYPES[x.dtype])
            self.builder.store(self.builder.lanes(x.ir, at, count), here, align=16, around=True)

    def gather(self, pointer: Any, at: Lanes, dtype: DType) -> Lanes:
        """Element `at` (i32 or i64 lanes) of the array of dtype at `pointer`, for every lane."""
        element = IR_TYPES[dtype]
        address = self.builder.gep(pointer, [at.ir], source_etype=element)
        if self.lanes == 1:
            return Lanes(self.builder.load(address, align=dtype.itemsize, typ=element), dtype)
        vector = self.ir_type(dtype)
        name = f"llvm.masked.gather.{vector.suffix}.v{self.lanes}p0"
        kinds = [address.type, I32, self.ir_type(None), vector]     # later LLVMs read it too
        function = self.declare(name, vector, kinds)
        given = [address, I32(dtype.itemsize), self.mask(True).ir, ir.Constant(vector, None)]
        return Lanes(self.builder.call(function, given), dtype)

    # ---- arithmetic ---------------------------------------------------------------------------------------------

    def add(self, x: Operand, y: Operand) -> Lanes:
        total = self._binary("add", x, y)
        if any(_not_zero(value) for value in (x, y)):  # x - x is +0, and no smaller sum is rounded
            total = total._replace(no_minus_zero=True)
        return total

    def sub(self, x: Operand, y: Operand) -> Lanes:
        """x - y; of a number, the sum with its negative, which other sums may need too."""
        return self._binary("sub", x, y) if isinstance(y, Lanes) else self.add(x, -y)

    def mul(self, x: Operand, y: Operand) -> Lanes:
        return self._binary("mul", x, y)

    def div(self, x: Operand, y: Operand) -> Lanes:
        """Floats: IEEE. Ints: truncated; x/0 is 0 and MIN/-1 is MIN."""
        x, y = self._numbers("div", x, y)
        if x.dtype.is_float:
            return self._do("fdiv", x, y)
        return division.quotient(self, x, y)

    def rem(self, x: Operand, y: Operand) -> Lanes:
        """Remainder of div() for ints: the sign of x; x%0 is 0 and MIN%-1 is 0."""
        x, y = self._numbers("rem", x, y)
        if x.dtype.is_float:
            raise TypeError("rem is for ints")
        rest = self.sub(x, self.mul(division.quotient(self, x, y), y))
        return self.select(self.eq(y, 0), self.const(0, x.dtype), rest)

    def llvm_div(self, x: Lanes, y: Lanes) -> Lanes:
        """Ints as LLVM divides them, which promises nothing for x/0 and MIN/-1."""
        return self._do("sdiv" if x.dtype.is_signed else "udiv", x, y)

    def fma(self, x: Operand, y: Operand, z: Operand) -> Lanes:
        """x*y + z with one rounding; ints wrap."""
        x, y, z = self._numbers("fma", x, y, z)
        if x.dtype.is_int:
            return self.add(self.mul(x, y), z)
        if x.dtype == DType.F64 or "fma" in self.features:
            return self._intrinsic("llvm.fma", x.dtype, x, y, z)

        def body(function: ir.Function) -> None:
            k = Algebra(ir.Builder(function.append_basic_block("entry")), self.lanes, self.features)
            k.builder.ret(k._fma_in_f64(*(Lanes(value, x.dtype) for value in function.args)).ir)

        kind = self.ir_type(x.dtype)
        function = self.builder.module.internal(f"pto.fma.{kind.suffix}", ir.FunctionType(kind, [kind] * 3), body)
        return Lanes(self.builder.call(function, [x.ir, y.ir, z.ir]), x.dtype)

    def _fma_in_f64(self, x: Lanes, y: Lanes, z: Lanes) -> Lanes:
        """fma() of f32 on CPUs that have no such instruction: libm's function would take a hundred times as long there.

        The product is exact in f64. The sum is rounded to odd: rounding that to f32 is as if it were the only rounding
        (Boldo and Melquiond, Emulation of FMA and correctly rounded sums, 2008).
        """
        x, y, z = (self.convert(value, DType.F64) for value in (x, y, z))
        total, lost = self.exact_sum(self.mul(x, y), z)
        bits = self.bitcast(total, DType.I64)
        too_far = self.ashr(self.xor(bits, self.bitcast(lost, DType.I64)), 63)  # -1 where signs differ
        odd = self.or_(self.add(bits, too_far), 1)
        total = self.bitcast(self.select(self.gt(self.abs(lost), 0.0), odd, bits), DType.F64)
        return self.convert(total, DType.F32)

    def exact_sum(self, x: Lanes, y: Lanes) -> tuple[Lanes, Lanes]:
        """Floats: (x + y rounded, what the rounding left out), whichever is larger (Knuth)."""
        total = self.add(x, y)
        part = self.sub(total, x)
        return total, self.add(self.sub(x, self.sub(total, part)), self.sub(y, part))

    def neg(self, x: Lanes) -> Lanes:
        (x,) = self._numbers("neg", x)
        if x.dtype.is_int:
            return self.sub(0, x)
        return self._do("fneg", x)._replace(narrow=self._of_half(x, lambda bits: self.xor(bits, 0x8000)), half=x.half)

    def abs(self, x: Lanes) -> Lanes:
        """|x|; the lowest int stays itself."""
        (x,) = self._numbers("abs", x)
        if x.dtype.is_float:
            size = self._intrinsic("llvm.fabs", x.dtype, x)
            return size._replace(narrow=self._of_half(x, lambda bits: self.and_(bits, 0x7FFF)), half=x.half)
        return self.select(self.lt(x, 0), self.neg(x), x) if x.dtype.is_signed else x

    def _positive_bits(self, bits: Lanes, half: DType) -> Lanes:
        """Of a half, or +0 if it is negative: as ints, only NaNs with a sign are between minus infinity and 0."""
        signed = self.bitcast(bits, DType.I16)
        return self.select(self.gt(signed, MINUS_INFINITY[half] - 0x10000), signed, 0)

    def _of_half(self, x: Lanes, body: Callable[[Lanes], Lanes]) -> Lanes | None:
        """What `body` makes of the bits of the f16 or bf16 that x was widened from; nothing is rounded to get there."""
        if x.narrow is None:
            return None
        return Lanes(body(Lanes(x.narrow.ir, DType.U16)).ir, x.narrow.dtype)

    def sqrt(self, x: Lanes) -> Lanes:
        return self._float_intrinsic("llvm.sqrt", x)

    def copysign(self, x: Operand, sign: Operand) -> Lanes:
        """|x| with the sign bit of `sign`."""
        x, sign = self._numbers("copysign", x, sign)
        return self._intrinsic("llvm.copysign", x.dtype, x, sign)

    def maximum(self, x: Operand, y: Operand) -> Lanes:
        """The larger; NaN if either is NaN; -0 < +0."""
        x, y = self._numbers("maximum", x, y)
        if x.dtype.is_int:
            return self.select(self.gt(x, y), x, y)
        x, y = (y, x) if x.number is not None else (x, y)
        if _is_ordered(y.number):
            larger, before = self._not_below(x, y), self._clamped_before(self._not_below, x, y)
            plus_zero = y.number == 0 and copysign(1, y.number) > 0
            if plus_zero and not x.no_minus_zero:
                any_zero, larger = larger, self.add(larger, 0.0)._replace(low=larger.low, high=larger.high)
                before = before or (lambda: (any_zero, False))  # -0 becomes +0, and both are 0
            narrow = self._of_half(x, partial(self._positive_bits, half=x.half)) if plus_zero else None
            return larger._replace(no_minus_zero=plus_zero, before=before, half=_half_of(x, y), narrow=narrow)
        # x86's max returns its second operand for NaN and for zeros of two signs: ask twice. The results differ in
        # just these cases; `or` keeps a NaN, `and` of the sign bits prefers +0.
        a, b = self._both_orders(self.gt, x, y)
        bits, sign = a.dtype, 1 << (a.dtype.bits - 1)
        if "avx512f" in self.features and self.lanes * bits.bits == 512:
            found = x86.both_or_either(self, self.const(sign, bits), a, b)
        else:
            either, both = self.or_(a, b), self.and_(a, b)
            found = self.or_(self.and_(either, self.const(sign - 1, bits)), both)
        return self.bitcast(found, x.dtype)._replace(half=_half_of(x, y))

    def minimum(self, x: Operand, y: Operand) -> Lanes:
        """The smaller; NaN if either is NaN; -0 < +0."""
        x, y = self._numbers("minimum", x, y)
        if x.dtype.is_int:
            return self.select(self.lt(x, y), x, y)
        x, y = (y, x) if x.number is not None else (x, y)
        if _is_ordered(y.number) and (y.number != 0 or copysign(1, y.number) > 0):
            return self._not_above(x, y)._replace(before=self._clamped_before(self._not_above, x, y))
        a, b = self._both_orders(self.lt, x, y)
        return self.bitcast(self.or_(a, b), x.dtype)._replace(half=_half_of(x, y))

    def _both_orders(self, first: Any, x: Lanes, y: Lanes) -> tuple[Lanes, Lanes]:
        """Bits of `x if first(x, y) else y` and of `y if first(y, x) else x`."""
        bits = INT_OF_WIDTH[x.dtype.bits]
        a, b = self.select(first(x, y), x, y), self.select(first(y, x), y, x)
        return self.bitcast(a, bits), self.bitcast(b, bits)

    def _not_below(self, x: Lanes, y: Lanes) -> Lanes:
        """The larger of x and the number y: one instruction; x where that is NaN, and zeros of either sign."""
        larger = self._larger(y, x)
        return larger._replace(low=max(x.low, y.number), high=max(x.high, y.number))

    def _larger(self, x: Lanes, y: Lanes) -> Lanes:
        """x if x > y else y: one instruction of x86."""
        if 0 in (x.number, y.number) and x86.has_larger(self, x.dtype):
            return x86.larger(self, x, y)  # LLVM would take a comparison and an `and`
        return self.select(self.gt(x, y), x, y)

    def _not_above(self, x: Lanes, y: Lanes) -> Lanes:
        """The smaller, likewise."""
        smaller = self.select(self.gt(x, y), y, x)
        return smaller._replace(low=min(x.low, y.number), high=min(x.high, y.number))

    def _clamped_before(self, clamped: Callable[[Lanes, Lanes], Lanes], x: Lanes, y: Lanes) -> Any:
        """The `before` of clamped(x, y). What is rounded after it can be clamped before it, at an integer."""
        if x.before is None or not y.number.is_integer():
            return None

        def before() -> tuple[Lanes, bool]:
            source, nearest = x.before()
            return clamped(source, y), nearest

        return before

    # ---- comparison ---------------------------------------------------------------------------------------------

    def lt(self, x: Operand, y: Operand) -> Lanes:
        return self._compare("lt", x, y)

    def le(self, x: Operand, y: Operand) -> Lanes:
        return self._compare("le", x, y)

    def gt(self, x: Operand, y: Operand) -> Lanes:
        return self._compare("gt", x, y)

    def ge(self, x: Operand, y: Operand) -> Lanes:
        return self._compare("ge", x, y)

    def eq(self, x: Operand, y: Operand) -> Lanes:
        return self._compare("eq", x, y)

    def ne(self, x: Operand, y: Operand) -> Lanes:
        return self._compare("ne", x, y)

    def isnan(self, x: Lanes) -> Lanes:
        (x,) = self._numbers("isnan", x)
        return self._do("fcmp uno", x, x, result=None)

    def _compare(self, relation: str, x: Operand, y: Operand) -> Lanes:
        x, y = self._numbers(relation, x, y)
        if relation == "ne" and x.mask is not None and y.number == 0:
            return x.mask  # type: ignore[no-any-return]
        if x.dtype.is_float:
            opcode = f"fcmp {'u' if relation == 'ne' else 'o'}{relation}"
        elif relation in ("eq", "ne"):
            opcode = f"icmp {relation}"
        else:
            opcode = f"icmp {'s' if x.dtype.is_signed else 'u'}{relation}"
        return self._do(opcode, x, y, result=None)

    # ---- masks and bits -----------------------------------------------------------------------------------------

    def and_(self, x: Operand, y: Operand) -> Lanes:
        x, y = self._bits("and", x, y)
        return self._do("and", x, y)

    def or_(self, x: Operand, y: Operand) -> Lanes:
        x, y = self._bits("or", x, y)
        return self._do("or", x, y)

    def xor(self, x: Operand, y: Operand) -> Lanes:
        x, y = self._bits("xor", x, y)
        return self._do("xor", x, y)

    def not_(self, x: Lanes) -> Lanes:
        ones = self.mask(True) if x.dtype is None else self.const(-1, x.dtype)
        return self.xor(x, ones)

    def select(self, mask: Lanes, x: Operand, y: Operand) -> Lanes:
        """x where the mask is true, else y. Any dtype, masks and storage-only f16 included."""
        if mask.dtype is not None:
            raise TypeError(f"select needs a mask first, got {mask.dtype.value}; compare it with 0")
        x, y = self._same("select", x, y)
        kind = self.ir_type(x.dtype)
        text = f"select {mask.ir.type.text} {mask.ir.text}, {kind.text} {x.ir.text}, {kind.text} {y.ir.text}"
        return Lanes(self.builder.append(kind, text), x.dtype, half=_half_of(x, y))

    def any_(self, mask: Lanes) -> Any:
        """A scalar LLVM i1: true in some lane."""
        return mask.ir if self.lanes == 1 else self._reduce_mask("llvm.vector.reduce.or", mask)

    def all_(self, mask: Lanes) -> Any:
        """A scalar LLVM i1: true in every lane."""
        return mask.ir if self.lanes == 1 else self._reduce_mask("llvm.vector.reduce.and", mask)

    def _reduce_mask(self, name: str, mask: Lanes) -> Any:
        vector = self.ir_type(None)
        return self.builder.call(self.declare(f"{name}.{vector.suffix}", I1, [vector]), [mask.ir])

    def shl(self, x: Lanes, count: Operand) -> Lanes:
        return self._shift("shl", x, count)

    def lshr(self, x: Lanes, count: Operand) -> Lanes:
        return self._shift("lshr", x, count)

    def ashr(self, x: Lanes, count: Operand) -> Lanes:
        return self._shift("ashr", x, count)

    def _shift(self, opcode: str, x: Lanes, count: Operand) -> Lanes:
        """LLVM leaves counts of the width and above undefined; here they shift everything out."""
        x, count = self._bits("shift", x, count)
        last, zero = x.dtype.bits - 1, self.const(0, x.dtype)
        if count.number is not None:
            if 0 <= count.number <= last:
                return self._do(opcode, x, count)
            return self._do(opcode, x, self.const(last, x.dtype)) if opcode == "ashr" else zero
        inside = self._do("icmp ule", count, self.const(last, x.dtype), result=None)
        shifted = self._do(opcode, x, self.select(inside, count, last))
        return shifted if opcode == "ashr" else self.select(inside, shifted, zero)

    def bitcast(self, x: Lanes, dtype: DType) -> Lanes:
        """The same bits as another dtype of the same width."""
        if IR_TYPES[dtype] == IR_TYPES[x.dtype]:
            return Lanes(x.ir, dtype)
        if dtype.bits != x.dtype.bits:
            raise TypeError(f"bitcast keeps the width: {x.dtype.value} -> {dtype.value}")
        return self._cast("bitcast", x, dtype)

    # ---- rounding -----------------------------------------------------------------------------------------------

    def floor(self, x: Lanes) -> Lanes:
        return self._float_intrinsic("llvm.floor", x)._replace(half=x.half)

    def ceil(self, x: Lanes) -> Lanes:
        return self._float_intrinsic("llvm.ceil", x)._replace(half=x.half)

    def trunc(self, x: Lanes) -> Lanes:
        return self._float_intrinsic("llvm.trunc", x)._replace(half=x.half)

    def rint(self, x: Lanes) -> Lanes:
        """Nearest integer, ties to even."""
        low, high = (b if abs(b) == inf else float(round(b)) for b in (x.low, x.high))
        whole = self._float_intrinsic("llvm.rint", x)
        return whole._replace(
            low=low, high=high, half=x.half, before=lambda: (x.before()[0] if x.before else x, True)
        )

    # ---- conversion ---------------------------------------------------------------------------------------------

    def convert(self, x: Lanes, dtype: DType) -> Lanes:
        """x as dtype: float -> int truncates, saturates, NaN -> 0; int -> int wraps; else rounded to nearest even."""
        if x.dtype is None:
            return self.select(x, self.const(1, dtype), self.const(0, dtype))._replace(mask=x)
        if x.dtype == dtype:
            return x
        if x.narrow is not None and x.narrow.dtype == dtype:
            return x.narrow  # type: ignore[no-any-return]
        if x.dtype in STORAGE_ONLY:
            return self.convert(self.widen(x), dtype)
        if dtype in STORAGE_ONLY:
            return self._narrow(x, dtype)
        if x.dtype.is_float:
            return self._float_to_float(x, dtype) if dtype.is_float else self._float_to_int(x, dtype)
        if dtype.is_float:
            opcode = "sitofp" if x.dtype.is_signed else "uitofp"
        elif dtype.bits == x.dtype.bits:
            return Lanes(x.ir, dtype)
        elif dtype.bits < x.dtype.bits:
            opcode = "trunc"
        else:
            opcode = "sext" if x.dtype.is_signed else "zext"
        return self._cast(opcode, x, dtype)

    def widen(self, x: Lanes) -> Lanes:
        """f16 and bf16 as f32, exactly; other dtypes as they are."""
        if x.dtype in STORAGE_ONLY and x.number is not None:
            return self.const(x.number, DType.F32)._replace(narrow=x, half=x.dtype)
        if x.dtype == DType.BF16:
            bits = self.shl(self.convert(Lanes(x.ir, DType.U16), DType.U32), 16)
            return self.bitcast(bits, DType.F32)._replace(narrow=x, half=x.dtype)
        if x.dtype == DType.F16:
            return self._widen_f16(x)._replace(narrow=x, half=x.dtype)
        return x

    def round_to(self, x: Lanes, dtype: DType) -> Lanes:
        """x rounded to dtype and back in the dtype it is computed in."""
        return x if x.half == dtype else self.widen(self.convert(x, dtype))

    def _float_to_float(self, x: Lanes, dtype: DType) -> Lanes:
        return self._cast("fptrunc" if dtype.bits < x.dtype.bits else "fpext", x, dtype)

    def _float_to_int(self, x: Lanes, dtype: DType) -> Lanes:
        """Clamped between the limits of dtype first; LLVM's own saturating conversion is a scalar loop on x86."""
        lowest = -(2 ** (dtype.bits - 1)) if dtype.is_signed else 0
        above = 2 ** (dtype.bits - 1 if dtype.is_signed else dtype.bits)
        highest = min(
            above - 1, above - 2 ** (above.bit_length() - 1 - SIGNIFICAND_BITS[x.dtype])
        )  # a float below `above`
        own = dtype if dtype.bits >= 32 else DType.I32  # what x86 converts to, if it does
        if x86.conversion_lanes(self, x.dtype, own):
            x, nearest = x.before() if x.before is not None else (x, False)
            convert = partial(x86.float_to_int, self, target=own, nearest=nearest)
            if x86.can_fix(self, x.dtype):
                return self._float_to_int_512(x, dtype, (lowest, highest, above), convert)
            return self._float_to_int_256(x, dtype, (lowest, highest, above), convert)
        if dtype.is_signed:
            clamped = x if x.low >= lowest else self._not_below(x, self.const(lowest, x.dtype))
        else:
            clamped = self._positive(x)
        if x.high > highest:
            clamped = self._not_above(clamped, self.const(highest, x.dtype))
        whole = self.cut_off(self._no_nan(clamped) if dtype.is_signed else clamped, dtype)
        if highest == above - 1:
            return whole
        return self.select(self.ge(x, float(above)), self.const(above - 1, dtype), whole)

    def _float_to_int_512(self, x: Lanes, dtype: DType, limits: tuple[int, int, int], convert: Convert) -> Lanes:
        """With AVX-512: `convert` gives the lowest of signed ints and the highest of others for what does not fit."""
        lowest, highest, above = limits
        no_less, no_more = x.low >= lowest, x.high <= highest
        if dtype.bits >= 32:
            source = self._no_nan(x) if dtype.is_signed else self._positive(x)
            if not dtype.is_signed or no_more:
                return convert(source)
            if dtype.bits < x.dtype.bits:
                return convert(self._not_above(source, self.const(highest, x.dtype)))
            bits = INT_OF_WIDTH[x.dtype.bits]
            too_much = self.ge(self.bitcast(source, bits), self.bitcast(self.const(above, x.dtype), bits))
            return self.select(too_much, above - 1, convert(source))
        if no_less and (no_more or dtype.is_signed):  # of what a NaN becomes the low bits are 0
            x = x if no_more else self._not_above(x, self.const(highest, x.dtype))
            return self.convert(convert(x), dtype)
        if not dtype.is_signed:  # too much becomes 2**31
            whole = self.minimum(Lanes(convert(self._positive(x)).ir, DType.U32), above - 1)
        else:
            source = self._no_nan(x)
            source = source if no_more else self._not_above(source, self.const(highest, x.dtype))
            whole = self.maximum(self.minimum(convert(source), above - 1), lowest)
        return self.convert(whole, dtype)

    def _float_to_int_256(self, x: Lanes, dtype: DType, limits: tuple[int, int, int], convert: Convert) -> Lanes:
        """With AVX: `convert` gives i32, the lowest for what does not fit."""
        lowest, highest, above = limits
        if dtype == DType.I32 and x.dtype == DType.F32:
            whole = convert(x)
            if x.high > highest:
                whole = self.xor(whole, self.select(self.ge(x, float(above)), self.const(-1, dtype), 0))
            return self.select(self.isnan(x), 0, whole)
        if dtype.is_signed:
            clamped = x if x.low >= lowest or dtype == DType.I32 else self._not_below(x, self.const(lowest, x.dtype))
        else:
            clamped = self._positive(x)
        if x.high > highest:
            clamped = self._not_above(clamped, self.const(highest, x.dtype))
        if dtype == DType.I32:
            return convert(self._no_nan(clamped))
        whole = convert(clamped)
        if not dtype.is_signed:  # no clamp is left of it: LLVM packs without cutting off high bits first
            whole = self.maximum(self.minimum(whole, above - 1), 0)
        return self.convert(whole, dtype)  # of what a NaN becomes the low bits are 0

    def _positive(self, x: Lanes) -> Lanes:
        """x, but 0 where it is less, or NaN: one instruction."""
        return self._larger(x, self.const(0.0, x.dtype))._replace(high=x.high)

    def _no_nan(self, x: Lanes) -> Lanes:
        """x, but 0 where it is NaN."""
        if x86.can_fix(self, x.dtype):
            found = x86.fixed(self, x, x, x86.ZERO_FOR_NAN)
        else:
            found = self.select(self.isnan(x), 0.0, x)
        return found._replace(low=x.low, high=x.high)

    def cut_off(self, x: Lanes, dtype: DType) -> Lanes:
        """Float -> int where the result is known to fit; no promise for other lanes."""
        target = dtype if dtype.bits >= 32 else DType.I32
        return self.convert(self._cast("fptosi" if target.is_signed else "fptoui", x, target), dtype)

    def _narrow(self, x: Lanes, dtype: DType) -> Lanes:
        if x.dtype.is_int:
            return self._int_to_half(x, dtype)
        if x.dtype == DType.F64:
            x = self._f64_to_f32(x) if dtype == DType.F16 else self._f64_to_f32_odd(x)
        return self._narrow_bf16(x) if dtype == DType.BF16 else self._narrow_f16(x)

    def _int_to_half(self, x: Lanes, dtype: DType) -> Lanes:
        """By way of an f32 that is exact, or rounds to the same f16 or bf16."""
        if dtype == DType.F16 and x.dtype.bits > 16:  # from 65520 on it is infinite
            x = self.minimum(x, 65536)
            x = self.convert(self.maximum(x, -65536) if x.dtype.is_signed else x, DType.I32)
        elif x.dtype.bits == 32:
            x = self._select_small(x, 24, self._merged(x, 8))
        elif x.dtype.bits == 64:
            x = self._f64_to_f32(self.convert(self._select_small(x, 53, self._merged(x, 11)), DType.F64))
        x = self.convert(x, DType.F32)
        return self._narrow_f16(x) if dtype == DType.F16 else self._narrow_bf16(x, nan=False)

    def _merged(self, x: Lanes, bits: int) -> Lanes:
        """Ints whose low bits are 0, but for the lowest other one: it is 1 if one of them was. They lie between the
        same two numbers of few bits as x, and are as near to them as they may be without being one."""
        low = (1 << bits) - 1
        return self.and_(self.or_(x, self.add(self.and_(x, low), low)), -1 - low)

    def _select_small(self, x: Lanes, bits: int, other: Lanes) -> Lanes:
        """The int x where a float with so many bits has it exactly, else `other`."""
        unsigned = DType.U32 if x.dtype.bits == 32 else DType.U64
        from_zero = self.convert(self.add(x, 1 << bits) if x.dtype.is_signed else x, unsigned)
        return self.select(self.lt(from_zero, 1 << (bits + x.dtype.is_signed)), x, other)

    def _f64_to_f32(self, x: Lanes) -> Lanes:
        """f64 as f32, of whose bits none is lost but in numbers below f32's normal ones: the 29 that do not fit are
        merged, which rounding to f16 or bf16 does not notice."""
        bits = self._merged(self.bitcast(x, DType.I64), 29)
        return self.convert(self.bitcast(bits, DType.F64), DType.F32)

    def _f64_to_f32_odd(self, x: Lanes) -> Lanes:
        """f64 as f32, rounded to odd: rounding that to 8 bits is as if it were the only rounding."""
        near = self.convert(x, DType.F32)
        back, bits = self.convert(near, DType.F64), self.bitcast(near, DType.I32)
        found, exact = self.abs(back), self.abs(x)
        bits = self.select(self.lt(found, exact), self.or_(bits, 1), bits)
        toward_zero = self.or_(self.sub(bits, 1), 1)
        return self.bitcast(self.select(self.gt(found, exact), toward_zero, bits), DType.F32)

    def _narrow_bf16(self, x: Lanes, nan: bool = True) -> Lanes:
        """nan: may x be one?"""
        bits = self.bitcast(x, DType.U32)
        if x.half != DType.BF16:
            odd = self.and_(self.lshr(bits, 16), 1)
            rounded = self.add(bits, self.add(odd, 0x7FFF))
            if nan and x86.can_fix(self, x.dtype):
                rounded = self.bitcast(x86.fixed(self, rounded, x, x86.QUIET_NAN), DType.U32)
            elif nan:
                rounded = self.select(self.isnan(x), self.or_(bits, 0x400000), rounded)
            bits = rounded
        if x86.can_fix(self, x.dtype):  # one instruction takes the high halves of two registers
            halves = self.builder.bitcast(bits.ir, ir.VectorType(IR_TYPES[DType.BF16], 2 * self.lanes))
            high = ir.Constant(ir.VectorType(I32, self.lanes), list(range(1, 2 * self.lanes, 2)))
            return Lanes(self.builder.shuffle_vector(halves, halves, high), DType.BF16)
        return Lanes(self.convert(self.lshr(bits, 16), DType.U16).ir, DType.BF16)

    def _through_half(self, first: str, x: Lanes, second: str, dtype: DType) -> Lanes:
        """Two casts by way of LLVM's own half, which no Lanes hold."""
        half = HALF if self.lanes == 1 else ir.VectorType(HALF, self.lanes)
        between = self.builder.append(half, f"{first} {x.ir} to {half}")
        kind = self.ir_type(dtype)
        return Lanes(self.builder.append(kind, f"{second} {between} to {kind}"), dtype)

    def _narrow_f16(self, x: Lanes) -> Lanes:
        if "f16c" in self.features:
            return self._through_half("fptrunc", x, "bitcast", DType.F16)
        bits = self.bitcast(x, DType.U32)
        sign = self.and_(bits, 0x80000000)
        magnitude = self.xor(bits, sign)
        # Normal halves: rebias the exponent and round off 13 bits; the carry may run into infinity, as it should.
        odd = self.and_(self.lshr(magnitude, 13), 1)
        normal = self.lshr(self.add(self.add(magnitude, odd), 0xFFF - ((127 - 15) << 23)), 13)
        # Subnormal halves: adding 0.5 lines the bits up at 2**-24 and rounds them in hardware.
        shifted = self.add(self.bitcast(magnitude, DType.F32), 0.5)
        subnormal = self.sub(self.bitcast(shifted, DType.U32), 0x3F000000)
        finite = self.select(self.lt(magnitude, 0x38800000), subnormal, normal)
        overflow = self.const(0x7C00, DType.U32)
        nan = self.or_(self.and_(self.lshr(magnitude, 13), 0x3FF), 0x7E00)
        special = self.select(self.gt(magnitude, 0x7F800000), nan, overflow)
        half = self.select(self.ge(magnitude, 0x47800000), special, finite)
        return Lanes(self.convert(self.or_(half, self.lshr(sign, 16)), DType.U16).ir, DType.F16)

    def _widen_f16(self, x: Lanes) -> Lanes:
        if "f16c" in self.features:
            return self._through_half("bitcast", x, "fpext", DType.F32)
        bits = self.convert(Lanes(x.ir, DType.U16), DType.U32)
        sign = self.shl(self.and_(bits, 0x8000), 16)
        magnitude = self.and_(bits, 0x7FFF)
        # The half's exponent and fraction at their place in f32 are the value times 2**-112: exact, subnormals too.
        scaled = self.mul(self.bitcast(self.shl(magnitude, 13), DType.F32), 2.0**112)
        special = self.or_(self.shl(magnitude, 13), 0x7F800000)
        quiet = self.select(self.gt(magnitude, 0x7C00), self.or_(special, 0x400000), special)
        value = self.select(self.ge(magnitude, 0x7C00), quiet, self.bitcast(scaled, DType.U32))
        return self.bitcast(self.or_(value, sign), DType.F32)

    # ---- machinery ----------------------------------------------------------------------------------------------

    def _binary(self, name: str, x: Operand, y: Operand) -> Lanes:
        x, y = self._numbers(name, x, y)
        return self._do(f"f{name}" if x.dtype.is_float else name, x, y)

    def _same(self, name: str, *operands: Operand) -> list[Any]:
        """Operands as Lanes of one dtype; Python numbers adopt it."""
        dtypes = [x.dtype for x in operands if isinstance(x, Lanes)]
        if not dtypes:
            raise TypeError(f"{name} needs at least one operand that has lanes; use const()")
        dtype = dtypes[0]
        if dtypes.count(dtype) < len(dtypes):
            raise TypeError(f"{name} needs one dtype, got {', '.join(str(other) for other in dtypes)}")
        if len(dtypes) == len(operands):
            return list(operands)
        if dtype is None:
            return [x if isinstance(x, Lanes) else self.mask(bool(x)) for x in operands]
        return [x if isinstance(x, Lanes) else self.const(x, dtype) for x in operands]

    def _numbers(self, name: str, *operands: Operand) -> list[Any]:
        same = self._same(name, *operands)
        if same[0].dtype is None or same[0].dtype in STORAGE_ONLY:
            raise TypeError(f"{name} cannot compute with {same[0].dtype or 'masks'}; convert or widen it first")
        return same

    def _bits(self, name: str, *operands: Operand) -> list[Any]:
        same = self._same(name, *operands)
        if same[0].dtype is not None and same[0].dtype.is_float:
            raise TypeError(f"{name} needs ints or masks, got {same[0].dtype.value}; bitcast it first")
        return same

    def _float_intrinsic(self, name: str, x: Lanes) -> Lanes:
        (x,) = self._numbers(name, x)
        if x.dtype.is_int:
            raise TypeError(f"{name} needs floats, got {x.dtype.value}")
        return self._intrinsic(name, x.dtype, x)

    def _intrinsic(self, name: str, dtype: DType, *operands: Lanes) -> Lanes:
        """Call an LLVM intrinsic whose operands and result all have `dtype`."""
        kind = self.ir_type(dtype)
        function = self.declare(f"{name}.{kind.suffix}", kind, [kind] * len(operands))
        return Lanes(self.builder.call(function, [x.ir for x in operands]), dtype)

    def _do(self, opcode: str, *operands: Lanes, result: Any = "the same") -> Lanes:
        """An instruction on operands of one dtype, which is also the result's unless told otherwise."""
        dtype = operands[0].dtype
        result = dtype if result == "the same" else result
        values = ", ".join([x.ir.text for x in operands])
        return Lanes(self.builder.append(self.ir_type(result), f"{opcode} {self.ir_type(dtype)} {values}"), result)

    def _cast(self, opcode: str, x: Lanes, dtype: DType) -> Lanes:
        kind = self.ir_type(dtype)
        return Lanes(self.builder.append(kind, f"{opcode} {x.ir} to {kind}"), dtype)

    def declare(self, name: str, result: ir.Type, operands: list[ir.Type]) -> ir.Function:
        """The intrinsic of that name, declared in the module once."""
        return self.builder.module.declared(name, ir.FunctionType(result, operands))


def _not_zero(x: Operand) -> bool:
    """Is it known to be some other number?"""
    number = x.number if isinstance(x, Lanes) else x
    return number is not None and number != 0


def _half_of(x: Lanes, y: Lanes) -> DType | None:
    """The half that has all values of both."""
    half: DType | None = x.half or y.half
    return half if half and all(v.half == half or _has(half, v.number) for v in (x, y)) else None


def _has(half: DType, number: Any) -> bool:
    """Is it a number that the half has?"""
    if number is None:
        return False
    if half == DType.BF16:
        return struct.pack("<f", number)[:2] == b"\0\0"
    try:
        return bool(struct.unpack("<e", struct.pack("<e", number))[0] == number)
    except OverflowError:
        return False


def _is_ordered(number: Any) -> bool:
    """Is it a number that a float may be compared with?"""
    return number is not None and not isnan(number)


def _representable(value: Number, dtype: DType) -> Number:
    """The number as dtype has it; of f16 and bf16 its bits."""
    if dtype.is_int:
        return _int_constant(value, dtype)
    if dtype in STORAGE_ONLY:
        return storage_bits(value, dtype)
    return _round_f32(float(value)) if dtype == DType.F32 else float(value)


def _int_constant(value: Any, dtype: DType) -> int:
    """As convert(): floats truncate and saturate, NaN is 0; ints wrap."""
    lowest = -(1 << (dtype.bits - 1)) if dtype.is_signed else 0
    highest = lowest + (1 << dtype.bits) - 1
    try:
        return (index(value) - lowest) % (1 << dtype.bits) + lowest
    except TypeError:
        inside = lowest <= value <= highest
        return int(value) if inside else 0 if value != value else lowest if value < 0 else highest


def _round_f32(value: float) -> float:
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def storage_value(bits: int, dtype: DType) -> float:
    """What f16 or bf16 of these bits is."""
    if dtype == DType.BF16:
        return float(struct.unpack("<f", struct.pack("<I", bits << 16))[0])
    return float(struct.unpack("<e", struct.pack("<H", bits))[0])


def storage_bits(value: Number, dtype: DType) -> int:
    """The 16 bits that hold `value` rounded to f16 or bf16."""
    import numpy as np

    if dtype == DType.F16:
        with np.errstate(over="ignore"):
            return int(np.float64(value).astype(np.float16).view(np.uint16))
    import ml_dtypes

    return int(np.float64(value).astype(ml_dtypes.bfloat16).view(np.uint16))
