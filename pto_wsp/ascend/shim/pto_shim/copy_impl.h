// DMA on the simulated core.
#pragma once
#include "copy.h"
#include "machine_impl.h"

namespace pto_shim {

PTO_SHIM_FN void Whole32(const Call &call, const char *what, int64_t count, uint32_t size)
{
    if (count * size % 32 != 0) {
        Fail(call, "%s = %lld elements of %u bytes is no multiple of 32 bytes; the device would drop the tail (DataCopyPad copies any length)",
             what, static_cast<long long>(count), size);
    }
}
PTO_SHIM_FN bool CheckRows(const Call &call, const Rows &r, uint32_t size, bool padded)
{
    if (r.count == 0 || r.bytes == 0) {
        return false;
    }
    CheckRange(call, "blockCount", r.count, 1, 4095);
    if (padded) {
        CheckRange(call, "blockLen", r.bytes, 1, 2097151);
        if (r.bytes % size != 0) {
            Fail(call, "blockLen = %lld bytes is no multiple of the element, %u bytes", static_cast<long long>(r.bytes), size);
        }
    }
    return true;
}
PTO_SHIM_FN int64_t Ceil32(int64_t bytes) { return (bytes + 31) / 32 * 32; }

PTO_SHIM_FN void CopyIn(const Call &call, const View &dst, const GmView &src, const Rows &r, const Padding *pad)
{
    Core &core = Here(call);
    CheckView(call, dst, "dst");
    if (dst.mem != (core.cube ? Mem::kL1 : Mem::kUb)) {
        Fail(call, "no path from GM to %s on %s core", kMemName[static_cast<int>(dst.mem)], core.cube ? "a cube" : "a vector");
    }
    CheckAlign(call, dst, "dst", 32);
    uint32_t size = SizeOf(dst.type);
    if (!CheckRows(call, r, size, pad != nullptr)) {
        return;
    }
    int64_t left = 0, right = 0;
    if (pad != nullptr && pad->on) {
        left = pad->left * size;
        right = pad->right * size;
        if (left > 32 || right > 32) {
            Fail(call, "padding = %lld and %lld elements; each side at most 32 bytes", static_cast<long long>(pad->left),
                 static_cast<long long>(pad->right));
        }
        if (left + r.bytes + right > Ceil32(left + r.bytes)) {
            Fail(call, "rightPadding = %lld elements goes beyond the 32-byte block in which the row ends",
                 static_cast<long long>(pad->right));
        }
        if (size == 8 && pad->value != 0) {
            Fail(call, "paddingValue must be 0 for 8-byte types");
        }
    } else if (pad != nullptr && (pad->left != 0 || pad->right != 0)) {
        Fail(call, "padding is given with isPad = false");
    }
    int64_t row = Ceil32(left + r.bytes + right);
    Instr in = Issue(call, core, PIPE_MTE2);
    Memory &m = MemoryOf(core, dst.mem);
    for (int64_t i = 0; i < r.count; ++i) {
        int64_t from = i * (r.bytes + r.src_gap), to = i * (row + r.dst_gap);
        GmBlock &b = FindGm(call, src, "src", from, r.bytes);
        CheckSpan(call, dst, "dst", to, left + r.bytes + right);   // the fill ends with the block, which no tensor shares
        uint64_t gm = src.addr + static_cast<uint64_t>(from);
        uint32_t ub = dst.addr + static_cast<uint32_t>(to);
        TouchGm(in, b, gm, static_cast<uint64_t>(r.bytes), false, "src");
        TouchLocal(in, dst.mem, ub, static_cast<uint32_t>(row), true, "dst");
        std::memset(m.ready.data() + ub, 0, static_cast<size_t>(row));
        std::memset(m.data + ub, TheMachine().poison, static_cast<size_t>(row));
        if (pad != nullptr && pad->on) {
            for (int64_t e = 0; e < left + right; e += size) {
                int64_t at = e < left ? e : r.bytes + e;
                std::memcpy(m.data + ub + at, &pad->value, size);
                std::memset(m.ready.data() + ub + at, 1, size);
            }
        }
        std::memcpy(m.data + ub + left, reinterpret_cast<void *>(gm), static_cast<size_t>(r.bytes));
        std::memcpy(m.ready.data() + ub + left, b.ready.data() + (gm - b.base), static_cast<size_t>(r.bytes));
    }
}
// dst = dst (op) src, element by element, for SetAtomicAdd and its kin.
PTO_SHIM_FN double LoadValue(const uint8_t *p, DT t)
{
    switch (t) {
        case DT::kU8: return *p;
        case DT::kS8: return static_cast<int8_t>(*p);
        case DT::kU16: case DT::kS16: case DT::kF16: case DT::kBf16: {
            uint16_t v;
            std::memcpy(&v, p, 2);
            return t == DT::kF16 ? static_cast<double>(HalfToFloat(v)) : t == DT::kBf16 ? static_cast<double>(BfToFloat(v))
                   : t == DT::kS16 ? static_cast<double>(static_cast<int16_t>(v)) : static_cast<double>(v);
        }
        case DT::kF32: {
            float v;
            std::memcpy(&v, p, 4);
            return static_cast<double>(v);
        }
        case DT::kU32: {
            uint32_t v;
            std::memcpy(&v, p, 4);
            return v;
        }
        default: {
            int32_t v;
            std::memcpy(&v, p, 4);
            return v;
        }
    }
}
PTO_SHIM_FN void StoreValue(uint8_t *p, DT t, double v)
{
    switch (SizeOf(t)) {
        case 1: *p = static_cast<uint8_t>(static_cast<int64_t>(v)); return;
        case 2: {
            uint16_t b = t == DT::kF16 ? FloatToHalf(OddFloat(v)) : t == DT::kBf16 ? FloatToBf(OddFloat(v))
                                       : static_cast<uint16_t>(static_cast<int64_t>(v));
            std::memcpy(p, &b, 2);
            return;
        }
        default: {
            uint32_t b = t == DT::kF32 ? BitsOf(static_cast<float>(v)) : static_cast<uint32_t>(static_cast<int64_t>(v));
            std::memcpy(p, &b, 4);
        }
    }
}
PTO_SHIM_FN double Accumulate(int kind, double old, double now)
{
    return kind == 1 ? old + now : kind == 2 ? (old > now ? old : now) : (old < now ? old : now);
}
// Bytes that leave for GM, with the atomic mode applied; they must hold values.
PTO_SHIM_FN void StoreToGm(Instr &in, GmBlock &b, uint64_t gm, const uint8_t *data, const uint8_t *ready, uint64_t bytes, DT type)
{
    uint32_t size = SizeOf(type);
    if (ready != nullptr) {
        const void *bad = std::memchr(ready, 0, bytes);
        if (bad != nullptr) {
            Fail(in.call, "src: byte %lld of a row (element %lld) was never written",
                 static_cast<long long>(static_cast<const uint8_t *>(bad) - ready),
                 static_cast<long long>((static_cast<const uint8_t *>(bad) - ready) / size));
        }
    }
    bool atomic = in.core.atomic != 0;
    TouchGm(in, b, gm, bytes, true, "dst", atomic);
    uint8_t *to = reinterpret_cast<uint8_t *>(gm);
    if (!atomic) {
        std::memcpy(to, data, bytes);
        std::memset(b.ready.data() + (gm - b.base), 1, bytes);
        return;
    }
    if (in.core.atomic_type != type) {
        Fail(in.call, "elements are %s, the atomic mode set at %s:%d is for %s", NameOf(type), in.core.atomic_at.file,
             in.core.atomic_at.line, NameOf(in.core.atomic_type));
    }
    for (uint64_t i = 0; i < bytes; i += size) {
        if (!b.ready[gm - b.base + i]) {
            Fail(in.call, "atomic accumulation onto GM byte %llu of %s, which was never written",
                 static_cast<unsigned long long>(gm - b.base + i), b.name.c_str());
        }
        StoreValue(to + i, type, Accumulate(in.core.atomic, LoadValue(to + i, type), LoadValue(data + i, type)));
    }
}
PTO_SHIM_FN void CopyOut(const Call &call, const GmView &dst, const View &src, const Rows &r, bool padded)
{
    Core &core = Here(call);
    CheckView(call, src, "src");
    if (src.mem != (core.cube ? Mem::kL1 : Mem::kUb)) {
        Fail(call, "no path from %s to GM by DataCopy on %s core", kMemName[static_cast<int>(src.mem)],
             core.cube ? "a cube" : "a vector");
    }
    CheckAlign(call, src, "src", 32);
    if (!CheckRows(call, r, SizeOf(src.type), padded)) {
        return;
    }
    int64_t row = Ceil32(r.bytes);
    Instr in = Issue(call, core, PIPE_MTE3);
    Memory &m = MemoryOf(core, src.mem);
    for (int64_t i = 0; i < r.count; ++i) {
        int64_t from = i * (row + r.src_gap), to = i * (r.bytes + r.dst_gap);
        CheckSpan(call, src, "src", from, r.bytes);
        GmBlock &b = FindGm(call, dst, "dst", to, r.bytes);
        uint32_t ub = src.addr + static_cast<uint32_t>(from);
        TouchLocal(in, src.mem, ub, static_cast<uint32_t>(r.bytes), false, "src");
        StoreToGm(in, b, dst.addr + static_cast<uint64_t>(to), m.data + ub, m.ready.data() + ub, static_cast<uint64_t>(r.bytes),
                  src.type);
    }
}
PTO_SHIM_FN void CopyLocal(const Call &call, const View &dst, const View &src, const Rows &r)
{
    Core &core = Here(call);
    CheckView(call, dst, "dst");
    CheckView(call, src, "src");
    int pipe;
    if (src.mem == Mem::kUb && dst.mem == Mem::kUb) {
        pipe = PIPE_V;
    } else if (src.mem == Mem::kL1 && (dst.mem == Mem::kBias || dst.mem == Mem::kFixBuf)) {
        pipe = dst.mem == Mem::kBias ? PIPE_MTE1 : PIPE_FIX;
    } else {
        Fail(call, "no path from %s to %s on 2201", kMemName[static_cast<int>(src.mem)], kMemName[static_cast<int>(dst.mem)]);
    }
    CheckAlign(call, dst, "dst", dst.mem == Mem::kBias ? 64 : dst.mem == Mem::kFixBuf ? 128 : 32);
    CheckAlign(call, src, "src", 32);
    if (!CheckRows(call, r, SizeOf(src.type), false)) {
        return;
    }
    int64_t granule = dst.mem == Mem::kBias ? 64 : 32;
    if (r.bytes % granule != 0) {
        Fail(call, "blockLen = %lld bytes; the %s is filled in steps of %lld", static_cast<long long>(r.bytes),
             kMemName[static_cast<int>(dst.mem)], static_cast<long long>(granule));
    }
    Instr in = Issue(call, core, pipe);
    Memory &from_mem = MemoryOf(core, src.mem), &to_mem = MemoryOf(core, dst.mem);
    int64_t src_last = (r.count - 1) * (r.bytes + r.src_gap) + r.bytes, dst_last = (r.count - 1) * (r.bytes + r.dst_gap) + r.bytes;
    if (src.mem == dst.mem && src.addr < dst.addr + dst_last && dst.addr < src.addr + src_last) {
        Fail(call, "dst (address %u) and src (address %u) overlap", dst.addr, src.addr);
    }
    for (int64_t i = 0; i < r.count; ++i) {
        int64_t from = i * (r.bytes + r.src_gap), to = i * (r.bytes + r.dst_gap);
        CheckSpan(call, src, "src", from, r.bytes);
        CheckSpan(call, dst, "dst", to, r.bytes);
        uint32_t a = src.addr + static_cast<uint32_t>(from), b = dst.addr + static_cast<uint32_t>(to);
        TouchLocal(in, src.mem, a, static_cast<uint32_t>(r.bytes), false, "src");
        TouchLocal(in, dst.mem, b, static_cast<uint32_t>(r.bytes), true, "dst");
        std::memmove(to_mem.data + b, from_mem.data + a, static_cast<size_t>(r.bytes));
        std::memmove(to_mem.ready.data() + b, from_mem.ready.data() + a, static_cast<size_t>(r.bytes));
    }
}
PTO_SHIM_FN void CopyNd2Nz(const Call &call, const View &dst, const GmView &src, const AscendC::Nd2NzParams &p)
{
    Core &core = CubeCore(call);
    CheckView(call, dst, "dst");
    CheckMem(call, dst, "dst", Mem::kL1);
    CheckAlign(call, dst, "dst", 32);
    int64_t num = Fit<uint16_t>(call, "ndNum", p.ndNum), n = Fit<uint16_t>(call, "nValue", p.nValue),
            d = Fit<uint16_t>(call, "dValue", p.dValue), src_matrix = Fit<uint16_t>(call, "srcNdMatrixStride", p.srcNdMatrixStride),
            ld = Fit<uint16_t>(call, "srcDValue", p.srcDValue), c0_stride = Fit<uint16_t>(call, "dstNzC0Stride", p.dstNzC0Stride),
            n_stride = Fit<uint16_t>(call, "dstNzNStride", p.dstNzNStride),
            dst_matrix = Fit<uint16_t>(call, "dstNzMatrixStride", p.dstNzMatrixStride);
    if (num == 0 || n == 0 || d == 0) {
        return;
    }
    CheckRange(call, "ndNum", num, 1, 4095);
    CheckRange(call, "nValue", n, 1, 16384);
    CheckRange(call, "srcDValue", ld, 1, 65535);
    CheckRange(call, "dstNzC0Stride", c0_stride, 1, 16384);
    CheckRange(call, "dstNzNStride", n_stride, 1, 16384);
    int64_t size = SizeOf(dst.type), c0 = 32 / size, groups = (d + c0 - 1) / c0;
    Instr in = Issue(call, core, PIPE_MTE2);
    Memory &m = MemoryOf(core, Mem::kL1);
    for (int64_t i = 0; i < num; ++i) {
        for (int64_t r = 0; r < n; ++r) {
            int64_t from = (i * src_matrix + r * ld) * size;
            GmBlock &b = FindGm(call, src, "src", from, d * size);
            uint64_t gm = src.addr + static_cast<uint64_t>(from);
            TouchGm(in, b, gm, static_cast<uint64_t>(d * size), false, "src");
            for (int64_t g = 0; g < groups; ++g) {
                int64_t to = i * dst_matrix * size + (g * c0_stride + r * n_stride) * 32, bytes = (d - g * c0 < c0 ? d - g * c0 : c0) * size;
                CheckSpan(call, dst, "dst", to, 32);
                uint32_t l1 = dst.addr + static_cast<uint32_t>(to);
                TouchLocal(in, Mem::kL1, l1, 32, true, "dst");
                std::memset(m.data + l1, 0, 32);
                std::memset(m.ready.data() + l1, 1, 32);
                std::memcpy(m.data + l1, reinterpret_cast<uint8_t *>(gm) + g * 32, static_cast<size_t>(bytes));
                std::memcpy(m.ready.data() + l1, b.ready.data() + (gm - b.base) + static_cast<uint64_t>(g) * 32,
                            static_cast<size_t>(bytes));
            }
        }
    }
}

}   // namespace pto_shim
