// The cube path on the simulated core, with the real layouts: Nz in L1, Zz in L0A, Zn in L0B, Nz of 16 x 16 in L0C.
#pragma once
#include "copy_impl.h"
#include "cube.h"
#include "reduce_impl.h"

namespace pto_shim {

PTO_SHIM_FN void CheckL0(const Call &call, const View &dst, const View &src)
{
    CheckView(call, dst, "dst");
    CheckView(call, src, "src");
    CheckMem(call, src, "src", Mem::kL1);
    if (dst.mem != Mem::kL0a && dst.mem != Mem::kL0b) {
        Fail(call, "no path from L1 to %s by this call", kMemName[static_cast<int>(dst.mem)]);
    }
    CheckAlign(call, dst, "dst", 512);
    CheckAlign(call, src, "src", 32);
}
PTO_SHIM_FN void LoadFractals(const Call &call, const View &dst, const View &src, const AscendC::LoadData2DParams &p)
{
    Core &core = CubeCore(call);
    CheckL0(call, dst, src);
    int64_t start = Fit<uint16_t>(call, "startIndex", p.startIndex), repeat = Fit<uint8_t>(call, "repeatTimes", p.repeatTimes),
            stride = Fit<uint16_t>(call, "srcStride", p.srcStride), gap = Fit<uint16_t>(call, "dstGap", p.dstGap);
    if (p.ifTranspose && SizeOf(src.type) != 2) {
        Fail(call, "ifTranspose = true for %s; only 2-byte types can be transposed here", NameOf(src.type));
    }
    if (Wide<uint8_t>(p.addrMode) != 0) {
        Fail(call, "addrMode = %lld is not modelled by this shim", static_cast<long long>(Wide<uint8_t>(p.addrMode)));
    }
    if (repeat == 0) {
        return;
    }
    Instr in = Issue(call, core, PIPE_MTE1);
    Memory &from = MemoryOf(core, Mem::kL1), &to = MemoryOf(core, dst.mem);
    for (int64_t i = 0; i < repeat; ++i) {
        int64_t at = (start + i * stride) * 512, out = i * (gap + 1) * 512;
        CheckSpan(call, src, "src", at, 512);
        CheckSpan(call, dst, "dst", out, 512);
        uint32_t a = src.addr + static_cast<uint32_t>(at), b = dst.addr + static_cast<uint32_t>(out);
        TouchLocal(in, Mem::kL1, a, 512, false, "src");
        TouchLocal(in, dst.mem, b, 512, true, "dst");
        if (!p.ifTranspose) {
            std::memcpy(to.data + b, from.data + a, 512);
            std::memcpy(to.ready.data() + b, from.ready.data() + a, 512);
            continue;
        }
        for (uint32_t e = 0; e < 256; ++e) {
            uint32_t other = (e % 16 * 16 + e / 16) * 2;
            std::memcpy(to.data + b + e * 2, from.data + a + other, 2);
            std::memcpy(to.ready.data() + b + e * 2, from.ready.data() + a + other, 2);
        }
    }
}
// Square blocks: 16 x 16 for 2 bytes (one fractal), 32 x 32 for 1 byte (two, one below the other), 16 x 16 for 4 bytes
// (two, side by side); transposed and split into fractals of the same kind.
PTO_SHIM_FN void LoadTransposed(const Call &call, const View &dst, const View &src, const AscendC::LoadData2dTransposeParams &p)
{
    Core &core = CubeCore(call);
    CheckL0(call, dst, src);
    int64_t start = Fit<uint16_t>(call, "startIndex", p.startIndex), repeat = Fit<uint8_t>(call, "repeatTimes", p.repeatTimes),
            stride = Fit<uint16_t>(call, "srcStride", p.srcStride), gap = Fit<uint16_t>(call, "dstGap", p.dstGap),
            frac_gap = Fit<uint16_t>(call, "dstFracGap", p.dstFracGap);
    uint32_t size = SizeOf(src.type), edge = size == 1 ? 32 : 16, c0 = 32 / size, square = edge * edge * size;
    Instr in = Issue(call, core, PIPE_MTE1);
    Memory &from = MemoryOf(core, Mem::kL1), &to = MemoryOf(core, dst.mem);
    auto place = [&](uint32_t r, uint32_t c) { return c / c0 * 512 * (size == 4 ? 1 : 0) + r * 32 + c % c0 * size; };
    for (int64_t i = 0; i < repeat; ++i) {
        int64_t at = (start + i * stride) * square;
        CheckSpan(call, src, "src", at, square);
        uint32_t a = src.addr + static_cast<uint32_t>(at);
        TouchLocal(in, Mem::kL1, a, square, false, "src");
        for (uint32_t f = 0; f < square / 512; ++f) {
            int64_t out = i * (gap + 1) * 512 + f * (frac_gap + 1) * 512;
            CheckSpan(call, dst, "dst", out, 512);
            uint32_t b = dst.addr + static_cast<uint32_t>(out);
            TouchLocal(in, dst.mem, b, 512, true, "dst");
            for (uint32_t e = 0; e < 512 / size; ++e) {
                uint32_t r = e / c0 + (size == 1 ? f * 16 : 0), c = e % c0 + (size == 4 ? f * 8 : 0);   // of the transposed square
                std::memcpy(to.data + b + e * size, from.data + a + place(c, r), size);
                std::memcpy(to.ready.data() + b + e * size, from.ready.data() + a + place(c, r), size);
            }
        }
    }
}
PTO_SHIM_FN void MmadOp(const Call &call, const View &c, const View &a, const View &b, const View *bias, const AscendC::MmadParams &p)
{
    Core &core = CubeCore(call);
    int64_t m = Fit<uint16_t>(call, "m", p.m), n = Fit<uint16_t>(call, "n", p.n), k = Fit<uint16_t>(call, "k", p.k);
    if (m == 0 || n == 0 || k == 0) {
        return;
    }
    CheckRange(call, "m", m, 1, 4095);
    CheckRange(call, "n", n, 1, 4095);
    CheckRange(call, "k", k, 1, 4095);
    if (m == 1) {
        Fail(call, "m = 1 switches the unit to GEMV with another layout of A; pass m = 16 and the true m to Fixpipe");
    }
    if (p.unitFlag != 0 || p.cmatrixSource) {
        Fail(call, "unitFlag and cmatrixSource are not modelled by this shim");
    }
    CheckView(call, c, "dst");
    CheckView(call, a, "fm");
    CheckView(call, b, "filter");
    CheckMem(call, c, "dst", Mem::kL0c);
    CheckMem(call, a, "fm", Mem::kL0a);
    CheckMem(call, b, "filter", Mem::kL0b);
    CheckAlign(call, c, "dst", 1024);
    CheckAlign(call, a, "fm", 512);
    CheckAlign(call, b, "filter", 512);
    int64_t size = SizeOf(a.type), c0 = 32 / size, kb = (k + c0 - 1) / c0, mb = (m + 15) / 16, nb = (n + 15) / 16;
    if (p.kDirectionAlign && size == 4) {
        kb = (k + 15) / 16 * 2;
    }
    CheckSpan(call, a, "fm", 0, mb * kb * 512);
    CheckSpan(call, b, "filter", 0, ((k - 1) / c0 * nb + nb) * 512);
    CheckSpan(call, c, "dst", 0, mb * nb * 1024);
    Instr in = Issue(call, core, PIPE_M);
    Memory &ma = MemoryOf(core, Mem::kL0a), &mbm = MemoryOf(core, Mem::kL0b), &mc = MemoryOf(core, Mem::kL0c);
    TouchLocal(in, Mem::kL0a, a.addr, static_cast<uint32_t>(mb * kb * 512), false, "fm");
    TouchLocal(in, Mem::kL0b, b.addr, static_cast<uint32_t>(((k - 1) / c0 * nb + nb) * 512), false, "filter");
    uint32_t known = core.known[PIPE_M].own[PIPE_M];
    if (mb * nb >= 10) {   // long enough for the unit to keep its own results in order
        core.known[PIPE_M].own[PIPE_M] = in.seq;
    }
    if (!p.cmatrixInitVal && bias == nullptr) {
        TouchLocal(in, Mem::kL0c, c.addr, static_cast<uint32_t>(mb * nb * 1024), false, "dst");
    }
    TouchLocal(in, Mem::kL0c, c.addr, static_cast<uint32_t>(mb * nb * 1024), true, "dst");
    core.known[PIPE_M].own[PIPE_M] = known;
    const uint8_t *bias_data = nullptr;
    if (bias != nullptr) {
        CheckView(call, *bias, "bias");
        CheckMem(call, *bias, "bias", Mem::kBias);
        CheckAlign(call, *bias, "bias", 64);
        CheckSpan(call, *bias, "bias", 0, n * 4);
        TouchLocal(in, Mem::kBias, bias->addr, static_cast<uint32_t>(n) * 4, false, "bias");
        Memory &t = MemoryOf(core, Mem::kBias);
        bias_data = t.data + bias->addr;
        for (int64_t j = 0; j < n; ++j) {
            NeedReady(call, t.ready[bias->addr + static_cast<uint32_t>(j) * 4] != 0, "bias", j);
        }
    }
    bool whole = c.type == DT::kS32;
    auto element_ok = [&](const Memory &x, uint32_t at) { return x.ready[at] != 0 && x.ready[at + static_cast<uint32_t>(size) - 1] != 0; };
    std::vector<float> av(static_cast<size_t>(m * k)), bv(static_cast<size_t>(n * k));
    std::vector<uint8_t> a_ok(static_cast<size_t>(m), 1), b_ok(static_cast<size_t>(n), 1);
    for (int64_t i = 0; i < m; ++i) {
        for (int64_t q = 0; q < k; ++q) {
            uint32_t at = a.addr + static_cast<uint32_t>((i / 16 * kb + q / c0) * 512 + i % 16 * 32 + q % c0 * size);
            a_ok[static_cast<size_t>(i)] &= element_ok(ma, at) ? 1 : 0;
            av[static_cast<size_t>(i * k + q)] = static_cast<float>(LoadValue(ma.data + at, a.type));
        }
    }
    for (int64_t j = 0; j < n; ++j) {
        for (int64_t q = 0; q < k; ++q) {
            uint32_t at = b.addr + static_cast<uint32_t>((q / c0 * nb + j / 16) * 512 + j % 16 * 32 + q % c0 * size);
            b_ok[static_cast<size_t>(j)] &= element_ok(mbm, at) ? 1 : 0;
            bv[static_cast<size_t>(j * k + q)] = static_cast<float>(LoadValue(mbm.data + at, b.type));
        }
    }
    for (int64_t i = 0; i < m; ++i) {
        for (int64_t j = 0; j < n; ++j) {
            uint32_t at = c.addr + static_cast<uint32_t>((j / 16 * mb * 16 + i) * 16 + j % 16) * 4;
            float f = 0;
            int32_t w = 0;
            uint8_t ok = a_ok[static_cast<size_t>(i)] & b_ok[static_cast<size_t>(j)];
            if (bias_data != nullptr) {
                std::memcpy(whole ? static_cast<void *>(&w) : &f, bias_data + j * 4, 4);
            } else if (!p.cmatrixInitVal) {
                std::memcpy(whole ? static_cast<void *>(&w) : &f, mc.data + at, 4);
                ok = ok & mc.ready[at];
            }
            const float *x = &av[static_cast<size_t>(i * k)], *y = &bv[static_cast<size_t>(j * k)];
            for (int64_t q = 0; q < k; ++q) {
                if (whole) {
                    w += static_cast<int32_t>(x[q]) * static_cast<int32_t>(y[q]);
                } else {
                    f += x[q] * y[q];
                }
            }
            std::memcpy(mc.data + at, whole ? static_cast<const void *>(&w) : &f, 4);
            std::memset(mc.ready.data() + at, ok, 4);
        }
    }
}
PTO_SHIM_FN void FixpipeOp(const Call &call, const GmView &dst, const View &src, const AscendC::FixpipeParamsV220 &p)
{
    Core &core = CubeCore(call);
    int64_t n = Fit<uint16_t>(call, "nSize", p.nSize), m = Fit<uint16_t>(call, "mSize", p.mSize),
            src_pitch = Fit<uint16_t>(call, "srcStride", p.srcStride), dst_pitch = Fit<uint32_t>(call, "dstStride", p.dstStride),
            num = Fit<uint16_t>(call, "ndNum", p.ndNum), src_nd = Fit<uint16_t>(call, "srcNdStride", p.srcNdStride),
            dst_nd = Fit<uint16_t>(call, "dstNdStride", p.dstNdStride);
    CheckRange(call, "nSize", n, 1, 4095);
    CheckRange(call, "mSize", m, 1, 8192);
    CheckRange(call, "srcStride", src_pitch, (m + 15) / 16 * 16, 65535);
    CheckRange(call, "ndNum", num, 1, 65535);
    if (Wide<uint8_t>(p.unitFlag) != 0) {
        Fail(call, "unitFlag is not modelled by this shim");
    }
    DT from = src.type, to = dst.type;
    bool fits = (from == DT::kF32 && to == DT::kF32 && p.quantPre == NoQuant) || (from == DT::kF32 && to == DT::kF16 && p.quantPre == F322F16) ||
                (from == DT::kF32 && to == DT::kBf16 && p.quantPre == F322BF16) || (from == DT::kS32 && to == DT::kS32 && p.quantPre == NoQuant) ||
                (from == DT::kS32 && to == DT::kF16 && p.quantPre == DEQF16);
    if (!fits) {
        Fail(call, "quantPre = %d does not turn %s into %s", static_cast<int>(p.quantPre), NameOf(from), NameOf(to));
    }
    CheckView(call, src, "src");
    CheckMem(call, src, "src", Mem::kL0c);
    CheckAlign(call, src, "src", 64);
    int64_t size = SizeOf(to);
    if (dst_pitch < n && m > 1) {
        Fail(call, "dstStride = %lld elements is less than nSize = %lld", static_cast<long long>(dst_pitch), static_cast<long long>(n));
    }
    Instr in = Issue(call, core, PIPE_FIX);
    Memory &mem = MemoryOf(core, Mem::kL0c);
    uint32_t deq_bits = static_cast<uint32_t>(p.deqScalar);
    for (int64_t d = 0; d < num; ++d) {
        int64_t base = d * src_nd * 1024;
        CheckSpan(call, src, "src", base, ((n - 1) / 16 * src_pitch + m) * 64);
        for (int64_t j = 0; j < n; j += 16) {
            TouchLocal(in, Mem::kL0c, src.addr + static_cast<uint32_t>(base + j / 16 * src_pitch * 64), static_cast<uint32_t>(m) * 64,
                       false, "src");
        }
        for (int64_t i = 0; i < m; ++i) {
            std::vector<uint8_t> row(static_cast<size_t>(n * size));
            for (int64_t j = 0; j < n; ++j) {
                uint32_t at = src.addr + static_cast<uint32_t>(base + ((j / 16 * src_pitch + i) * 16 + j % 16) * 4);
                if (!mem.ready[at]) {
                    Fail(call, "src: element (%lld, %lld) was never computed from written data", static_cast<long long>(i),
                         static_cast<long long>(j));
                }
                double v = LoadValue(mem.data + at, from);
                v = p.quantPre == DEQF16 ? v * static_cast<double>(FloatOf(deq_bits)) : v;
                v = p.reluEn && v < 0 ? 0 : v;
                StoreValue(row.data() + j * size, to, v);
            }
            int64_t out = (d * dst_nd + i * dst_pitch) * size;
            GmBlock &b = FindGm(call, dst, "dst", out, n * size);
            StoreToGm(in, b, dst.addr + static_cast<uint64_t>(out), row.data(), nullptr, static_cast<uint64_t>(n * size), to);
        }
    }
}
PTO_SHIM_FN void Hf32(const Call &call, bool on)
{
    Core &core = CubeCore(call);
    core.hf32 = on;
    core.hf32_at = call.at;
}

}   // namespace pto_shim
