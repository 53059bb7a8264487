// Vector instructions on the simulated core. Everything runs as repeats of 256 bytes; the count form is packed repeats.
#pragma once
#include "machine_impl.h"
#include "vector.h"

#include <cmath>

namespace pto_shim {

PTO_SHIM_FN Shape Count(const Call &call, int64_t count)
{
    CheckRange(call, "count", count, 0, INT32_MAX);
    Shape s;
    s.counter = true;
    s.count = count;
    return s;
}
// mask: how many of the first elements (bits = false), or one bit per element; both words 0 with bits: the mask register.
PTO_SHIM_FN Shape Repeats(const Call &call, DT wide, uint64_t low, uint64_t high, bool bits, int64_t repeat)
{
    Core &core = VectorCore(call);
    int64_t lanes = 256 / SizeOf(wide) < 128 ? 256 / SizeOf(wide) : 128;
    CheckRange(call, "repeatTime", repeat, 0, 255);
    Shape s;
    s.repeat = repeat;
    if (bits && low == 0 && high == 0 && core.mask_set) {
        if (core.counter_mode) {
            s.counter = true;
            s.count = static_cast<int64_t>(core.mask_low);
            return s;
        }
        s.mask[0] = core.mask_low;
        s.mask[1] = core.mask_high;
        return s;
    }
    if (!bits) {
        if (core.counter_mode) {
            Fail(call, "the mask mode was left in counter mode (at %s:%d)", core.mask_at.file, core.mask_at.line);
        }
        CheckRange(call, "mask", static_cast<int64_t>(low), 1, lanes);
        s.mask[0] = low >= 64 ? ~uint64_t{0} : (uint64_t{1} << low) - 1;
        s.mask[1] = low <= 64 ? 0 : low >= 128 ? ~uint64_t{0} : (uint64_t{1} << (low - 64)) - 1;
        return s;
    }
    if (low == 0 && high == 0) {
        Fail(call, "mask[0] = mask[1] = 0: no element takes part");
    }
    if (lanes <= 64 && high != 0) {
        Fail(call, "mask[1] = %#llx must be 0 for %s", static_cast<unsigned long long>(high), NameOf(wide));
    }
    if (lanes == 32 && low >> 32 != 0) {
        Fail(call, "mask[0] = %#llx has more than 32 bits for %s", static_cast<unsigned long long>(low), NameOf(wide));
    }
    s.mask[0] = low;
    s.mask[1] = high;
    return s;
}
PTO_SHIM_FN void SetStrides(const Call &call, Shape &s, const AscendC::BinaryRepeatParams &p)
{
    s.blk[0] = Fit<uint8_t>(call, "dstBlkStride", p.dstBlkStride);
    s.blk[1] = Fit<uint8_t>(call, "src0BlkStride", p.src0BlkStride);
    s.blk[2] = Fit<uint8_t>(call, "src1BlkStride", p.src1BlkStride);
    s.rep[0] = Fit<uint8_t>(call, "dstRepStride", p.dstRepStride);
    s.rep[1] = Fit<uint8_t>(call, "src0RepStride", p.src0RepStride);
    s.rep[2] = Fit<uint8_t>(call, "src1RepStride", p.src1RepStride);
}
PTO_SHIM_FN void SetStrides(const Call &call, Shape &s, const AscendC::UnaryRepeatParams &p)
{
    s.blk[0] = Fit<uint16_t>(call, "dstBlkStride", p.dstBlkStride);
    s.blk[1] = Fit<uint16_t>(call, "srcBlkStride", p.srcBlkStride);
    s.rep[0] = Fit<uint8_t>(call, "dstRepStride", p.dstRepStride);
    s.rep[1] = Fit<uint8_t>(call, "srcRepStride", p.srcRepStride);
}
PTO_SHIM_FN void SetStrides(const Call &, Shape &s, int64_t dst_blk, int64_t dst_rep)
{
    s.blk[0] = dst_blk;
    s.rep[0] = dst_rep;
}

// ---- operands ---------------------------------------------------------------------------------------------------

struct Lanes {
    float f[256];
    int64_t i[256];
    uint8_t ok[256];
};
// An operand of a repeated instruction: `size` bytes per lane, lanes in 32-byte blocks `blk` blocks apart.
struct Operand {
    const View *v;
    const char *what;
    DT type;
    uint32_t size;
    int64_t blk, rep;                   // bytes
    int64_t At(int64_t repeat, int64_t lane) const
    {
        int64_t byte = lane * size;
        return repeat * rep + byte / 32 * blk + byte % 32;
    }
};
PTO_SHIM_FN Operand OperandOf(const View &v, const char *what, const Shape &s, int which, DT widest)
{
    uint32_t size = SizeOf(v.type);
    int64_t rep = s.counter ? 8 * size / SizeOf(widest) : s.rep[which];
    return Operand{&v, what, v.type, size, s.counter ? 32 : s.blk[which] * 32, rep * 32};
}
// Lanes of one repeat that take part.
struct Active {
    int64_t lanes = 0, repeats = 0, last_lane = 0, tail = 0;   // tail: lanes of the last repeat in counter mode
    uint64_t mask[2] = {0, 0};
    bool counter = false;
    bool On(int64_t repeat, int64_t lane) const
    {
        if (counter) {
            return repeat < repeats - 1 || lane < tail;
        }
        return (mask[lane / 64] >> (lane % 64) & 1) != 0;
    }
    int64_t Limit(int64_t repeat) const { return counter ? (repeat < repeats - 1 ? lanes : tail) : last_lane + 1; }
    bool Dense() const { return dense; }
    bool dense = true;
};
PTO_SHIM_FN Active ActiveOf(const Shape &s, int64_t lanes)
{
    Active a;
    a.lanes = lanes;
    a.counter = s.counter;
    if (s.counter) {
        a.repeats = (s.count + lanes - 1) / lanes;
        a.tail = s.count - (a.repeats - 1) * lanes;
        return a;
    }
    a.repeats = s.repeat;
    a.mask[0] = s.mask[0];
    a.mask[1] = s.mask[1];
    a.last_lane = s.mask[1] != 0 ? 127 - __builtin_clzll(s.mask[1]) : 63 - __builtin_clzll(s.mask[0]);
    for (int64_t i = 0; i <= a.last_lane; ++i) {
        a.dense = a.dense && a.On(0, i);
    }
    return a;
}
// View alive, in UB, aligned, and everything reached inside the tensor.
PTO_SHIM_FN void CheckOperand(const Call &call, const Operand &o, const Active &a, uint32_t align = 32)
{
    CheckView(call, *o.v, o.what);
    CheckMem(call, *o.v, o.what, Mem::kUb);
    CheckAlign(call, *o.v, o.what, align);
    if (a.repeats == 0) {
        return;
    }
    int64_t reach = o.At(a.repeats - 1, a.Limit(a.repeats - 1) - 1) + o.size;
    if (a.counter && a.repeats > 1) {
        int64_t before = o.At(a.repeats - 2, a.lanes - 1) + o.size;
        reach = reach > before ? reach : before;
    }
    CheckSpan(call, *o.v, o.what, 0, reach);
}
PTO_SHIM_FN uint32_t BytesOn(const Active &a, int64_t repeat, int64_t first, uint32_t size)
{
    int64_t per_block = 32 / size, limit = a.Limit(repeat);
    if (a.Dense()) {
        int64_t n = limit - first;
        n = n < 0 ? 0 : n > per_block ? per_block : n;
        return ByteMask(0, static_cast<uint32_t>(n) * size);
    }
    uint32_t bits = 0;
    for (int64_t k = 0; k < per_block && first + k < a.lanes; ++k) {
        if (a.On(repeat, first + k)) {
            bits |= ByteMask(static_cast<uint32_t>(k) * size, size);
        }
    }
    return bits;
}
PTO_SHIM_FN void TouchBlock(Instr &in, Memory &m, uint32_t addr, uint32_t bytes, bool write, const char *what)
{
    if (addr % 32 == 0) {
        TouchGranule(in, m.shadow[addr / 32], bytes, write, what, Mem::kUb, addr);
        return;
    }
    while (bytes != 0) {   // operands with element alignment only
        uint32_t from = static_cast<uint32_t>(LowestBit(bytes)), n = 1;
        while (from + n < 32 && (bytes >> (from + n) & 1) != 0) {
            ++n;
        }
        TouchLocal(in, Mem::kUb, addr + from, n, write, what);
        bytes &= ~ByteMask(from, n);
    }
}
PTO_SHIM_FN void LoadLanes(Instr &in, Memory &m, const Operand &o, const Active &a, int64_t repeat, Lanes &out)
{
    int64_t per_block = 32 / o.size, limit = a.Limit(repeat);
    for (int64_t first = 0; first < limit; first += per_block) {
        uint32_t bytes = BytesOn(a, repeat, first, o.size);
        if (bytes == 0) {
            continue;
        }
        uint32_t addr = o.v->addr + static_cast<uint32_t>(o.At(repeat, first));
        TouchBlock(in, m, addr, bytes, false, o.what);
        const uint8_t *p = m.data + addr, *r = m.ready.data() + addr;
        for (int64_t k = 0; k < per_block; ++k) {
            size_t lane = static_cast<size_t>(first + k);
            const uint8_t *q = p + k * o.size;
            uint8_t ok = 1;
            for (uint32_t b = 0; b < o.size; ++b) {
                ok &= r[k * o.size + b];
            }
            out.ok[lane] = ok;
            switch (o.type) {
                case DT::kF32: std::memcpy(&out.f[lane], q, 4); break;
                case DT::kF16: case DT::kBf16: case DT::kU16: case DT::kS16: {
                    uint16_t v;
                    std::memcpy(&v, q, 2);
                    if (o.type == DT::kF16) { out.f[lane] = HalfToFloat(v); }
                    else if (o.type == DT::kBf16) { out.f[lane] = BfToFloat(v); }
                    else { out.i[lane] = o.type == DT::kS16 ? static_cast<int16_t>(v) : static_cast<int64_t>(v); }
                    break;
                }
                case DT::kU8: out.i[lane] = *q; break;
                case DT::kS8: out.i[lane] = static_cast<int8_t>(*q); break;
                case DT::kU32: case DT::kS32: {
                    uint32_t v;
                    std::memcpy(&v, q, 4);
                    out.i[lane] = o.type == DT::kS32 ? static_cast<int32_t>(v) : static_cast<int64_t>(v);
                    break;
                }
                default: std::memcpy(&out.i[lane], q, 8); break;
            }
        }
    }
}
PTO_SHIM_FN void StoreLane(uint8_t *q, DT type, const Lanes &l, size_t lane)
{
    switch (type) {
        case DT::kF32: std::memcpy(q, &l.f[lane], 4); break;
        case DT::kF16: case DT::kBf16: {
            uint16_t v = type == DT::kF16 ? FloatToHalf(l.f[lane]) : FloatToBf(l.f[lane]);
            std::memcpy(q, &v, 2);
            break;
        }
        default: std::memcpy(q, &l.i[lane], SizeOf(type)); break;   // little endian: the low bytes
    }
}
PTO_SHIM_FN void StoreLanes(Instr &in, Memory &m, const Operand &o, const Active &a, int64_t repeat, const Lanes &l)
{
    int64_t per_block = 32 / o.size, limit = a.Limit(repeat);
    for (int64_t first = 0; first < limit; first += per_block) {
        uint32_t bytes = BytesOn(a, repeat, first, o.size);
        if (bytes == 0) {
            continue;
        }
        uint32_t addr = o.v->addr + static_cast<uint32_t>(o.At(repeat, first));
        TouchBlock(in, m, addr, bytes, true, o.what);
        for (int64_t k = 0; k < per_block; ++k) {
            if ((bytes >> (k * o.size) & 1) == 0) {
                continue;
            }
            size_t lane = static_cast<size_t>(first + k);
            uint32_t at = addr + static_cast<uint32_t>(k) * o.size;
            StoreLane(m.data + at, o.type, l, lane);
            std::memset(m.ready.data() + at, l.ok[lane], o.size);
        }
    }
}
// dst may be exactly a source; otherwise no byte of dst may be a byte of a source.
PTO_SHIM_FN void CheckOverlap(const Call &call, const Operand &d, const Operand &s, const Active &a, bool accumulates)
{
    if (a.repeats == 0) {
        return;
    }
    auto span = [&](const Operand &o) { return o.At(a.repeats - 1, a.lanes - 1) + o.size; };
    if (d.v->addr >= s.v->addr + span(s) || s.v->addr >= d.v->addr + span(d)) {
        return;
    }
    bool same = d.v->addr == s.v->addr && d.size == s.size && d.blk == s.blk && (d.rep == s.rep || a.repeats == 1);
    int64_t footprint = a.lanes * d.size / 32 * d.blk;
    if (same && (a.repeats == 1 || d.rep >= footprint || (d.rep > 0 && d.rep * 1 >= 32 && d.blk > d.rep))) {
        return;
    }
    if (same && accumulates && d.rep == 0) {
        return;
    }
    std::map<uint32_t, uint32_t> written;   // granule -> bytes
    std::map<uint32_t, int64_t> by;         // granule -> repeat and block that wrote it
    int64_t d_block = 32 / d.size, s_block = 32 / s.size;
    for (int64_t r = 0; r < a.repeats; ++r) {
        for (int64_t lane = 0; lane < a.Limit(r); lane += d_block) {
            uint32_t addr = d.v->addr + static_cast<uint32_t>(d.At(r, lane));
            written[addr / 32] |= BytesOn(a, r, lane, d.size);
            by[addr / 32] = r * 1024 + lane;
        }
    }
    for (int64_t r = 0; r < a.repeats; ++r) {
        for (int64_t lane = 0; lane < a.Limit(r); lane += s_block) {
            uint32_t addr = s.v->addr + static_cast<uint32_t>(s.At(r, lane));
            auto w = written.find(addr / 32);
            if (w == written.end() || (w->second & BytesOn(a, r, lane, s.size)) == 0) {
                continue;
            }
            if (d.size == s.size && by[addr / 32] == r * 1024 + lane) {
                continue;   // the very same elements of the same repeat
            }
            if (same) {
                Fail(call, "%s of one repeat is %s of another (repeat stride %lld blocks)", d.what, s.what,
                     static_cast<long long>(d.rep / 32));
            }
            Fail(call, "%s (address %u) and %s (address %u) overlap partly", d.what, d.v->addr, s.what, s.v->addr);
        }
    }
}

// ---- element-wise -----------------------------------------------------------------------------------------------

PTO_SHIM_FN bool IsFloat(DT t) { return t == DT::kF32 || t == DT::kF16 || t == DT::kBf16; }
PTO_SHIM_FN float MaxOf(float a, float b)
{
    return a != a ? a : b != b ? b : a > b ? a : b > a ? b : std::signbit(a) ? b : a;
}
PTO_SHIM_FN float MinOf(float a, float b)
{
    return a != a ? a : b != b ? b : a < b ? a : b < a ? b : std::signbit(a) ? a : b;
}
PTO_SHIM_FN float FloatResult(Op op, float a, float b, float d, float s)
{
    double x = static_cast<double>(a);
    switch (op) {
        case Op::kAdd: return a + b;
        case Op::kSub: return a - b;
        case Op::kMul: return a * b;
        case Op::kDiv: return a / b;
        case Op::kMax: return MaxOf(a, b);
        case Op::kMin: return MinOf(a, b);
        case Op::kAddRelu: return MaxOf(a + b, 0.0f);
        case Op::kSubRelu: return MaxOf(a - b, 0.0f);
        case Op::kMulAddDst: return std::fma(a, b, d);
        case Op::kFusedMulAdd: return std::fma(a, d, b);
        case Op::kMulAddRelu: return MaxOf(std::fma(a, d, b), 0.0f);
        case Op::kAbs: return std::fabs(a);
        case Op::kExp: case Op::kExpHigh: return static_cast<float>(std::exp(x));
        case Op::kLn: return static_cast<float>(std::log(x));
        case Op::kSqrt: return std::sqrt(a);
        case Op::kRsqrt: return static_cast<float>(1.0 / std::sqrt(x));
        case Op::kReciprocal: return 1.0f / a;
        case Op::kRelu: return MaxOf(a, 0.0f);
        case Op::kCopy: return a;
        case Op::kAdds: return a + s;
        case Op::kMuls: return a * s;
        case Op::kMaxs: return MaxOf(a, s);
        case Op::kMins: return MinOf(a, s);
        case Op::kLeakyRelu: return a >= 0 ? a : a * s;
        case Op::kAxpy: return std::fma(a, s, d);
        case Op::kTanh: return static_cast<float>(std::tanh(x));
        case Op::kSigmoid: case Op::kSilu: case Op::kSwish: {
            double k = op == Op::kSwish ? static_cast<double>(s) : 1.0, g = 1.0 / (1.0 + std::exp(-k * x));
            return static_cast<float>(op == Op::kSigmoid ? g : x * g);
        }
        case Op::kGelu: return static_cast<float>(x / (1.0 + std::exp(-1.5957691216057308 * (x + 0.044715 * x * x * x))));
        case Op::kFasterGelu: return static_cast<float>(x / (1.0 + std::exp(-1.702 * x)));
        case Op::kSin: return static_cast<float>(std::sin(x));
        case Op::kCos: return static_cast<float>(std::cos(x));
        case Op::kTan: return static_cast<float>(std::tan(x));
        case Op::kSinh: return static_cast<float>(std::sinh(x));
        case Op::kCosh: return static_cast<float>(std::cosh(x));
        case Op::kAsin: return static_cast<float>(std::asin(x));
        case Op::kAcos: return static_cast<float>(std::acos(x));
        case Op::kAtan: return static_cast<float>(std::atan(x));
        case Op::kAsinh: return static_cast<float>(std::asinh(x));
        case Op::kAcosh: return static_cast<float>(std::acosh(x));
        case Op::kAtanh: return static_cast<float>(std::atanh(x));
        case Op::kErf: return static_cast<float>(std::erf(x));
        case Op::kErfc: return static_cast<float>(std::erfc(x));
        case Op::kLog2: return static_cast<float>(std::log2(x));
        case Op::kLog10: return static_cast<float>(std::log10(x));
        case Op::kFloor: return std::floor(a);
        case Op::kCeil: return std::ceil(a);
        case Op::kRound: case Op::kRint: return std::nearbyint(a);
        case Op::kTrunc: return std::trunc(a);
        case Op::kFrac: return a - std::trunc(a);
        case Op::kSign: return a > 0 ? 1.0f : a < 0 ? -1.0f : a;
        case Op::kPower: return static_cast<float>(std::pow(x, static_cast<double>(b)));
        case Op::kFmod: return std::fmod(a, b);
        default: return 0;
    }
}
PTO_SHIM_FN int64_t IntResult(Op op, int64_t a, int64_t b, int64_t d, int64_t s, DT type)
{
    auto u = [](int64_t v) { return static_cast<uint64_t>(v); };
    switch (op) {
        case Op::kAdd: return static_cast<int64_t>(u(a) + u(b));
        case Op::kSub: return static_cast<int64_t>(u(a) - u(b));
        case Op::kMul: return static_cast<int64_t>(u(a) * u(b));
        case Op::kMax: return a > b ? a : b;
        case Op::kMin: return a < b ? a : b;
        case Op::kAnd: return a & b;
        case Op::kOr: return a | b;
        case Op::kXor: return a ^ b;
        case Op::kNot: return ~a;
        case Op::kAddRelu: return a + b > 0 ? a + b : 0;
        case Op::kSubRelu: return a - b > 0 ? a - b : 0;
        case Op::kRelu: return a > 0 ? a : 0;
        case Op::kCopy: return a;
        case Op::kAdds: return static_cast<int64_t>(u(a) + u(s));
        case Op::kMuls: return static_cast<int64_t>(u(a) * u(s));
        case Op::kMaxs: return a > s ? a : s;
        case Op::kMins: return a < s ? a : s;
        case Op::kShiftLeft: return static_cast<int64_t>(u(a) << s);
        case Op::kShiftRight: return a >> s;
        case Op::kPower: {
            uint64_t r = 1, base = u(a);
            for (int64_t e = b; e > 0; e >>= 1, base *= base) {
                r *= (e & 1) != 0 ? base : 1;
            }
            return b >= 0 ? static_cast<int64_t>(r) : a == 1 ? 1 : a == -1 ? (b % 2 == 0 ? 1 : -1) : 0;
        }
        default: (void)d; (void)type; return 0;
    }
}
PTO_SHIM_FN void VectorOp(const Call &call, Op op, const View &dst, const View *src0, const View *src1, const Scalar &scalar,
                          const Shape &s)
{
    Core &core = VectorCore(call);
    if (s.counter ? s.count == 0 : s.repeat == 0) {
        return;
    }
    DT type = dst.type;
    int64_t lanes = 256 / SizeOf(type);
    Active a = ActiveOf(s, lanes);
    Operand d = OperandOf(dst, "dst", s, 0, type), x = OperandOf(*src0, src1 != nullptr ? "src0" : "src", s, 1, type);
    Operand y = src1 != nullptr ? OperandOf(*src1, "src1", s, 2, type) : x;
    if (!s.counter && s.blk[0] == 0) {
        Fail(call, "dstBlkStride = 0; it must be at least 1");
    }
    CheckOperand(call, d, a);
    CheckOperand(call, x, a);
    bool accumulates = (op <= Op::kMul || op == Op::kMax || op == Op::kMin || op == Op::kAddRelu || op == Op::kSubRelu) &&
                       (type == DT::kF16 || type == DT::kF32 || type == DT::kS32);
    CheckOverlap(call, d, x, a, false);
    if (src1 != nullptr) {
        CheckOperand(call, y, a);
        CheckOverlap(call, d, y, a, accumulates);
    }
    if (op == Op::kShiftLeft || op == Op::kShiftRight) {
        CheckRange(call, "scalar (bits to shift)", scalar.i, 0, SizeOf(type) * 8);
    }
    bool old = op == Op::kMulAddDst || op == Op::kFusedMulAdd || op == Op::kMulAddRelu || op == Op::kAxpy;
    Instr in = Issue(call, core, PIPE_V);
    Memory &m = MemoryOf(core, Mem::kUb);
    static thread_local Lanes A, B, D;
    for (int64_t r = 0; r < a.repeats; ++r) {
        LoadLanes(in, m, x, a, r, A);
        if (src1 != nullptr) {
            LoadLanes(in, m, y, a, r, B);
        }
        if (old) {
            LoadLanes(in, m, d, a, r, D);
        }
        for (size_t i = 0; i < static_cast<size_t>(a.Limit(r)); ++i) {
            if (IsFloat(type)) {
                A.f[i] = FloatResult(op, A.f[i], B.f[i], D.f[i], scalar.f);
            } else {
                A.i[i] = IntResult(op, A.i[i], B.i[i], D.i[i], scalar.i, type);
            }
            A.ok[i] = A.ok[i] & (src1 != nullptr ? B.ok[i] : 1) & (old ? D.ok[i] : 1);
        }
        StoreLanes(in, m, d, a, r, A);
    }
}
PTO_SHIM_FN void FillOp(const Call &call, const View &dst, const void *value, const Shape &s)
{
    Core &core = VectorCore(call);
    if (s.counter ? s.count == 0 : s.repeat == 0) {
        return;
    }
    uint32_t size = SizeOf(dst.type);
    View raw = dst;
    raw.type = size == 2 ? DT::kU16 : DT::kU32;
    Active a = ActiveOf(s, 256 / size);
    Operand d = OperandOf(raw, "dst", s, 0, raw.type);
    if (!s.counter && s.blk[0] == 0) {
        Fail(call, "dstBlockStride = 0; it must be at least 1");
    }
    CheckOperand(call, d, a);
    static thread_local Lanes l;
    int64_t bits = 0;
    std::memcpy(&bits, value, size);
    for (size_t i = 0; i < 256; ++i) {
        l.i[i] = bits;
        l.ok[i] = 1;
    }
    Instr in = Issue(call, core, PIPE_V);
    for (int64_t r = 0; r < a.repeats; ++r) {
        StoreLanes(in, MemoryOf(core, Mem::kUb), d, a, r, l);
    }
}

// ---- casts ------------------------------------------------------------------------------------------------------

PTO_SHIM_FN long double RoundInteger(long double v, AscendC::RoundMode mode)
{
    switch (mode) {
        case AscendC::RoundMode::CAST_FLOOR: return std::floor(v);
        case AscendC::RoundMode::CAST_CEIL: return std::ceil(v);
        case AscendC::RoundMode::CAST_ROUND: return std::round(v);
        case AscendC::RoundMode::CAST_TRUNC: return std::trunc(v);
        case AscendC::RoundMode::CAST_ODD: {
            long double t = std::trunc(v);
            return t == v || std::fmod(t, 2.0L) != 0 ? t : t + (v < 0 ? -1 : 1);
        }
        default: return std::nearbyint(v);
    }
}
// v in a binary format with `digits` significant bits and least exponent `low`, rounded once.
PTO_SHIM_FN float RoundFloat(long double v, int digits, int low, AscendC::RoundMode mode)
{
    if (v == 0 || std::isnan(v) || std::isinf(v)) {
        return static_cast<float>(v);
    }
    int e = std::ilogb(v), unit = (e > low ? e : low) - (digits - 1);
    return static_cast<float>(std::ldexp(RoundInteger(std::ldexp(v, -unit), mode), unit));
}
PTO_SHIM_FN float ToFloatType(long double v, DT to, AscendC::RoundMode mode)
{
    float out = to == DT::kF16 ? RoundFloat(v, 11, -14, mode) : to == DT::kBf16 ? RoundFloat(v, 8, -126, mode)
                                                                                  : RoundFloat(v, 24, -126, mode);
    if (to == DT::kF16 && std::fabs(out) > 65504.0f) {
        bool down = mode == AscendC::RoundMode::CAST_TRUNC || mode == (v > 0 ? AscendC::RoundMode::CAST_FLOOR : AscendC::RoundMode::CAST_CEIL);
        out = down && !std::isinf(v) ? (v > 0 ? 65504.0f : -65504.0f) : v > 0 ? INFINITY : -INFINITY;
    }
    return out;
}
PTO_SHIM_FN int64_t ToIntType(long double v, DT to)
{
    if (std::isnan(v)) {
        return 0;
    }
    bool is_signed = to == DT::kS8 || to == DT::kS16 || to == DT::kS32 || to == DT::kS64;
    int bits = static_cast<int>(SizeOf(to)) * 8 - (is_signed ? 1 : 0);
    long double high = std::ldexp(1.0L, bits) - 1, least = is_signed ? -high - 1 : 0;
    if (v >= high) {
        return static_cast<int64_t>((uint64_t{1} << (bits % 64)) - 1);
    }
    return static_cast<int64_t>(v < least ? least : v);
}
PTO_SHIM_FN const char *CastModes(DT from, DT to)   // letters as in the manual: N R A F C Z O
{
    switch (from) {
        case DT::kF16:
            return to == DT::kF32 ? "N" : to == DT::kS8 || to == DT::kU8 ? "NRAFCZ" : to == DT::kS16 || to == DT::kS32 ? "RAFCZ" : "";
        case DT::kF32:
            return to == DT::kF16 ? "NORAFCZ"
                   : to == DT::kF32 || to == DT::kBf16 || to == DT::kS16 || to == DT::kS32 || to == DT::kS64 ? "RAFCZ" : "";
        case DT::kBf16: return to == DT::kF32 ? "N" : to == DT::kS32 ? "RAFCZ" : "";
        case DT::kS8: case DT::kU8: return to == DT::kF16 ? "N" : "";
        case DT::kS16: return to == DT::kF16 ? "NRAFCZ" : to == DT::kF32 ? "N" : "";
        case DT::kS32:
            return to == DT::kF16 ? "N" : to == DT::kF32 ? "NRAFCZ" : to == DT::kS16 || to == DT::kS64 ? "N" : "";
        case DT::kS64: return to == DT::kF32 ? "RAFCZ" : to == DT::kS32 ? "N" : "";
        default: return "";
    }
}
PTO_SHIM_FN void CastOp(const Call &call, const View &dst, const View &src, AscendC::RoundMode mode, const Shape &s)
{
    Core &core = VectorCore(call);
    constexpr char letters[] = "NRFCAZO";
    constexpr const char *names[] = {"CAST_NONE", "CAST_RINT", "CAST_FLOOR", "CAST_CEIL", "CAST_ROUND", "CAST_TRUNC", "CAST_ODD"};
    const char *modes = CastModes(src.type, dst.type);
    if (*modes == 0) {
        Fail(call, "no instruction casts %s to %s on 2201; go through half or float", NameOf(src.type), NameOf(dst.type));
    }
    if (std::strchr(modes, letters[static_cast<int>(mode)]) == nullptr) {
        std::string allowed;
        for (const char *c = modes; *c != 0; ++c) {
            allowed += std::string(allowed.empty() ? "" : ", ") + names[std::strchr(letters, *c) - letters];
        }
        Fail(call, "mode = %s for %s to %s; allowed are %s", names[static_cast<int>(mode)], NameOf(src.type), NameOf(dst.type),
             allowed.c_str());
    }
    if (src.type == DT::kS32 && dst.type == DT::kF16 && !core.deq_scale) {
        Fail(call, "int32_t to half needs SetDeqScale(static_cast<half>(1.0f)) first");
    }
    if (s.counter ? s.count == 0 : s.repeat == 0) {
        return;
    }
    DT wide = SizeOf(dst.type) > SizeOf(src.type) ? dst.type : src.type;
    Active a = ActiveOf(s, 256 / SizeOf(wide));
    Operand d = OperandOf(dst, "dst", s, 0, wide), x = OperandOf(src, "src", s, 1, wide);
    if (!s.counter && s.blk[0] == 0) {
        Fail(call, "dstBlkStride = 0; it must be at least 1");
    }
    CheckOperand(call, d, a);
    CheckOperand(call, x, a);
    CheckOverlap(call, d, x, a, false);
    Instr in = Issue(call, core, PIPE_V);
    Memory &m = MemoryOf(core, Mem::kUb);
    static thread_local Lanes A;
    for (int64_t r = 0; r < a.repeats; ++r) {
        LoadLanes(in, m, x, a, r, A);
        for (size_t i = 0; i < static_cast<size_t>(a.Limit(r)); ++i) {
            long double v = IsFloat(src.type) ? static_cast<long double>(A.f[i]) : static_cast<long double>(A.i[i]);
            if (!IsFloat(dst.type)) {
                A.i[i] = IsFloat(src.type) ? ToIntType(RoundInteger(v, mode), dst.type) : ToIntType(v, dst.type);
            } else if (dst.type == DT::kF32 && src.type == DT::kF32) {
                A.f[i] = static_cast<float>(RoundInteger(v, mode));
            } else {
                A.f[i] = ToFloatType(v, dst.type, mode);
            }
        }
        StoreLanes(in, m, d, a, r, A);
    }
}
PTO_SHIM_FN void SetDeq(const Call &call) { VectorCore(call).deq_scale = true; }
PTO_SHIM_FN void MaskNorm(const Call &call, bool counter)
{
    Core &core = VectorCore(call);
    core.counter_mode = counter;
    core.mask_at = call.at;
}
PTO_SHIM_FN void VectorMask(const Call &call, bool counter, uint64_t high, uint64_t low)
{
    Core &core = VectorCore(call);
    if (counter != core.counter_mode) {
        Fail(call, "the mask is for %s mode, the core is in %s mode", counter ? "counter" : "normal",
             core.counter_mode ? "counter" : "normal");
    }
    core.mask_set = true;
    core.mask_low = low;
    core.mask_high = high;
    core.mask_at = call.at;
}
PTO_SHIM_FN void MaskReset(const Call &call)
{
    VectorCore(call).mask_set = false;
}

// ---- compare and select -----------------------------------------------------------------------------------------

PTO_SHIM_FN bool Holds(AscendC::CMPMODE mode, double a, double b)
{
    switch (mode) {
        case AscendC::CMPMODE::LT: return a < b;
        case AscendC::CMPMODE::GT: return a > b;
        case AscendC::CMPMODE::EQ: return a == b;
        case AscendC::CMPMODE::LE: return a <= b;
        case AscendC::CMPMODE::GE: return a >= b;
        default: return a != b;
    }
}
PTO_SHIM_FN void CompareOp(const Call &call, const View &dst, const View &src0, const View *src1, const Scalar &scalar,
                           AscendC::CMPMODE mode, const Shape &s)
{
    Core &core = VectorCore(call);
    DT type = src0.type;
    int64_t size = SizeOf(type), lanes = 256 / size;
    if (type == DT::kS32 && mode != AscendC::CMPMODE::EQ) {
        Fail(call, "int32_t can only be compared for CMPMODE::EQ on 2201");
    }
    if (s.counter && s.count * size % 256 != 0) {
        Fail(call, "count = %lld elements of %s is %lld bytes; it must be a multiple of 256 bytes",
             static_cast<long long>(s.count), NameOf(type), static_cast<long long>(s.count * size));
    }
    Active a = ActiveOf(s, lanes);
    if (a.repeats == 0) {
        return;
    }
    Operand x = OperandOf(src0, src1 != nullptr ? "src0" : "src", s, 1, type);
    Operand y = src1 != nullptr ? OperandOf(*src1, "src1", s, 2, type) : x;
    CheckOperand(call, x, a);
    CheckOperand(call, y, a);
    CheckView(call, dst, "dst");
    CheckMem(call, dst, "dst", Mem::kUb);
    CheckAlign(call, dst, "dst", 32);
    CheckSpan(call, dst, "dst", 0, a.repeats * lanes / 8);
    Instr in = Issue(call, core, PIPE_V);
    Memory &m = MemoryOf(core, Mem::kUb);
    static thread_local Lanes A, B;
    for (int64_t r = 0; r < a.repeats; ++r) {
        LoadLanes(in, m, x, a, r, A);
        if (src1 != nullptr) {
            LoadLanes(in, m, y, a, r, B);
        }
        uint32_t addr = dst.addr + static_cast<uint32_t>(r * lanes / 8);
        TouchLocal(in, Mem::kUb, addr, static_cast<uint32_t>(lanes / 8), true, "dst");
        for (size_t first = 0; first < static_cast<size_t>(lanes); first += 8) {
            uint8_t bits = 0, ok = 1;
            for (size_t k = 0; k < 8; ++k) {
                size_t i = first + k;
                if (!a.On(r, static_cast<int64_t>(i))) {
                    continue;
                }
                double p = IsFloat(type) ? static_cast<double>(A.f[i]) : static_cast<double>(A.i[i]);
                double q = src1 == nullptr ? (IsFloat(type) ? static_cast<double>(scalar.f) : static_cast<double>(scalar.i))
                           : IsFloat(type) ? static_cast<double>(B.f[i]) : static_cast<double>(B.i[i]);
                bits |= static_cast<uint8_t>(Holds(mode, p, q) ? 1u << k : 0u);
                (void)ok;
            }
            m.data[addr + first / 8] = bits;
            m.ready[addr + first / 8] = ok;
        }
    }
}
PTO_SHIM_FN void SelectOp(const Call &call, const View &dst, const View &mask, const View &src0, const View *src1,
                          const Scalar &scalar, AscendC::SELMODE mode, const Shape &s)
{
    Core &core = VectorCore(call);
    if ((src1 == nullptr) != (mode == AscendC::SELMODE::VSEL_TENSOR_SCALAR_MODE)) {
        Fail(call, "selMode does not fit src1, which is a %s", src1 == nullptr ? "scalar" : "tensor");
    }
    DT type = dst.type;
    int64_t lanes = 256 / SizeOf(type);
    Active a = ActiveOf(s, lanes);
    if (a.repeats == 0) {
        return;
    }
    Operand d = OperandOf(dst, "dst", s, 0, type), x = OperandOf(src0, "src0", s, 1, type);
    Operand y = src1 != nullptr ? OperandOf(*src1, "src1", s, 2, type) : x;
    CheckOperand(call, d, a);
    CheckOperand(call, x, a);
    CheckOverlap(call, d, x, a, false);
    if (src1 != nullptr) {
        CheckOperand(call, y, a);
        CheckOverlap(call, d, y, a, false);
    }
    bool fixed = mode == AscendC::SELMODE::VSEL_CMPMASK_SPR;
    CheckView(call, mask, "selMask");
    CheckMem(call, mask, "selMask", Mem::kUb);
    CheckAlign(call, mask, "selMask", 32);
    int64_t bits = fixed ? lanes : (a.repeats - 1) * lanes + a.Limit(a.repeats - 1);
    CheckSpan(call, mask, "selMask", 0, (bits + 7) / 8);
    Instr in = Issue(call, core, PIPE_V);
    TouchLocal(in, Mem::kUb, mask.addr, static_cast<uint32_t>((bits + 7) / 8), false, "selMask");
    Memory &m = MemoryOf(core, Mem::kUb);
    static thread_local Lanes A, B;
    for (int64_t r = 0; r < a.repeats; ++r) {
        LoadLanes(in, m, x, a, r, A);
        if (src1 != nullptr) {
            LoadLanes(in, m, y, a, r, B);
        }
        for (size_t i = 0; i < static_cast<size_t>(a.Limit(r)); ++i) {
            size_t bit = i + static_cast<size_t>(fixed ? 0 : r * lanes);
            if ((m.data[mask.addr + bit / 8] >> (bit % 8) & 1) == 0) {
                A.f[i] = src1 != nullptr ? B.f[i] : scalar.f;
                A.ok[i] = src1 != nullptr ? B.ok[i] : 1;
            }
            A.ok[i] = A.ok[i] & m.ready[mask.addr + bit / 8];
        }
        StoreLanes(in, m, d, a, r, A);
    }
}

}   // namespace pto_shim
