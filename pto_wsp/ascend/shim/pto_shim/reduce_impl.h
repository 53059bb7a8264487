// Reductions on the simulated core. Sums are binary trees over neighbours, each step rounded to the element type.
#pragma once
#include "reduce.h"
#include "vector_impl.h"

namespace pto_shim {

PTO_SHIM_FN float RoundTo(DT type, float v) { return type == DT::kF16 ? HalfToFloat(FloatToHalf(v)) : v; }
PTO_SHIM_FN float FoldTwo(Fold fold, float a, float b, DT type)
{
    return fold == Fold::kMax ? MaxOf(a, b) : fold == Fold::kMin ? MinOf(a, b) : RoundTo(type, a + b);
}
PTO_SHIM_FN float TreeFold(Fold fold, std::vector<float> v, DT type)
{
    while (v.size() > 1) {
        size_t n = (v.size() + 1) / 2;
        for (size_t i = 0; i < n; ++i) {
            v[i] = 2 * i + 1 < v.size() ? FoldTwo(fold, v[2 * i], v[2 * i + 1], type) : v[2 * i];
        }
        v.resize(n);
    }
    return v[0];
}
PTO_SHIM_FN void NeedReady(const Call &call, bool ok, const char *what, int64_t element)
{
    if (!ok) {
        Fail(call, "%s: element %lld was never written", what, static_cast<long long>(element));
    }
}
// One value of the element type, at any element of dst.
PTO_SHIM_FN void PutElement(Instr &in, const View &dst, int64_t element, const void *bits)
{
    uint32_t size = SizeOf(dst.type), addr = dst.addr + static_cast<uint32_t>(element) * size;
    CheckSpan(in.call, dst, "dst", element * size, size);
    Memory &m = MemoryOf(in.core, Mem::kUb);
    TouchLocal(in, Mem::kUb, addr, size, true, "dst");
    std::memcpy(m.data + addr, bits, size);
    std::memset(m.ready.data() + addr, 1, size);
}
PTO_SHIM_FN void PutFloat(Instr &in, const View &dst, int64_t element, float v)
{
    uint16_t h = FloatToHalf(v);
    PutElement(in, dst, element, dst.type == DT::kF16 ? static_cast<const void *>(&h) : &v);
}
PTO_SHIM_FN void PutIndex(Instr &in, const View &dst, int64_t element, int64_t index)
{
    PutElement(in, dst, element, &index);
}
PTO_SHIM_FN void CheckUb(const Call &call, const View &v, const char *what, uint32_t align)
{
    CheckView(call, v, what);
    CheckMem(call, v, what, Mem::kUb);
    CheckAlign(call, v, what, align);
}
// No byte of [a, a + a_bytes) in [b, b + b_bytes).
PTO_SHIM_FN void CheckApart(const Call &call, const View &a, int64_t a_bytes, const char *a_name, const View &b, int64_t b_bytes,
                            const char *b_name)
{
    if (a.mem == b.mem && a.addr < b.addr + b_bytes && b.addr < a.addr + a_bytes && a_bytes > 0 && b_bytes > 0) {
        Fail(call, "%s (address %u, %lld bytes) and %s (address %u, %lld bytes) overlap", a_name, a.addr,
             static_cast<long long>(a_bytes), b_name, b.addr, static_cast<long long>(b_bytes));
    }
}
PTO_SHIM_FN void RepeatReduce(const Call &call, Fold fold, Extent extent, const View &dst, const View &src, const Shape &s,
                              int64_t dst_rep, AscendC::ReduceOrder order)
{
    using AscendC::ReduceOrder;
    Core &core = VectorCore(call);
    CheckRange(call, "dstRepStride", dst_rep, 0, 65535);
    if (s.repeat == 0) {
        return;
    }
    int64_t lanes = 256 / SizeOf(src.type);
    Active a = ActiveOf(s, lanes);
    Operand x = OperandOf(src, "src", s, 1, src.type);
    CheckOperand(call, x, a);
    bool both = order == ReduceOrder::ORDER_VALUE_INDEX || order == ReduceOrder::ORDER_INDEX_VALUE;
    CheckUb(call, dst, "dst", SizeOf(src.type) * (both ? 2u : 1u));
    int64_t group = extent == Extent::kWhole ? lanes : extent == Extent::kBlock ? lanes / 8 : 2, unit = lanes / group * (both ? 2 : 1);
    Instr in = Issue(call, core, PIPE_V);
    static thread_local Lanes A;
    for (int64_t r = 0; r < a.repeats; ++r) {
        LoadLanes(in, MemoryOf(core, Mem::kUb), x, a, r, A);
        for (int64_t g = 0; g < lanes / group; ++g) {
            std::vector<float> values;
            int64_t at = -1;
            for (int64_t i = g * group; i < (g + 1) * group; ++i) {
                if (i > a.last_lane || !a.On(r, i)) {
                    continue;
                }
                NeedReady(call, A.ok[i] != 0, "src", r * lanes + i);
                float v = A.f[i];
                if (at < 0 || (fold == Fold::kMax ? v > A.f[at] : v < A.f[at])) {
                    at = i;
                }
                values.push_back(v);
            }
            if (values.empty()) {
                if (extent != Extent::kWhole && fold == Fold::kSum) {
                    PutFloat(in, dst, r * dst_rep * unit + g, 0.0f);
                }
                continue;
            }
            float v = TreeFold(fold, values, src.type);
            int64_t to = r * dst_rep * unit + g * (both ? 2 : 1);
            if (order == ReduceOrder::ORDER_ONLY_INDEX) {
                PutIndex(in, dst, to, at);
                continue;
            }
            PutFloat(in, dst, to + (order == ReduceOrder::ORDER_INDEX_VALUE ? 1 : 0), v);
            if (both) {
                PutIndex(in, dst, to + (order == ReduceOrder::ORDER_INDEX_VALUE ? 0 : 1), at);
            }
        }
    }
}
PTO_SHIM_FN void CountReduce(const Call &call, Fold fold, const View &dst, const View &src, const View &tmp, int64_t count,
                             bool index)
{
    Core &core = VectorCore(call);
    uint32_t size = SizeOf(src.type);
    CheckRange(call, "count", count, 0, INT32_MAX);
    if (count == 0) {
        return;
    }
    CheckUb(call, dst, "dst", size);
    CheckUb(call, src, "src", 32);
    CheckUb(call, tmp, "tmp", 32);
    CheckSpan(call, src, "src", 0, count * size);
    int64_t block = 32 / size, lanes = 256 / size, need = 0;
    if (fold != Fold::kSum) {   // value and index of each repeat, and with the index again until one is left
        for (int64_t n = count;; n = 2 * ((n + lanes - 1) / lanes)) {
            int64_t out = 2 * ((n + lanes - 1) / lanes);
            need += (out + block - 1) / block * block;
            if (!index || (n + lanes - 1) / lanes == 1) {
                break;
            }
        }
        if (tmp.end - tmp.addr < need * size) {
            Fail(call, "tmp has %lld elements, %lld are needed for count = %lld", static_cast<long long>((tmp.end - tmp.addr) / size),
                 static_cast<long long>(need), static_cast<long long>(count));
        }
        if (tmp.addr != src.addr) {
            CheckApart(call, tmp, need * size, "tmp", src, count * size, "src");
        }
    }
    Instr in = Issue(call, core, PIPE_V);
    Memory &m = MemoryOf(core, Mem::kUb);
    TouchLocal(in, Mem::kUb, src.addr, static_cast<uint32_t>(count) * size, false, "src");
    std::vector<float> values;
    int64_t at = 0;
    for (int64_t i = 0; i < count; ++i) {
        uint32_t addr = src.addr + static_cast<uint32_t>(i) * size;
        NeedReady(call, m.ready[addr] != 0 && m.ready[addr + size - 1] != 0, "src", i);
        values.push_back(static_cast<float>(LoadValue(m.data + addr, src.type)));
        if (fold == Fold::kMax ? values.back() > values[static_cast<size_t>(at)] : values.back() < values[static_cast<size_t>(at)]) {
            at = i;
        }
    }
    if (need > 0) {
        TouchLocal(in, Mem::kUb, tmp.addr, static_cast<uint32_t>(need) * size, true, "tmp");
        std::memset(m.ready.data() + tmp.addr, 0, static_cast<size_t>(need) * size);
        std::memset(m.data + tmp.addr, TheMachine().poison, static_cast<size_t>(need) * size);
    }
    PutFloat(in, dst, 0, TreeFold(fold, values, src.type));
    if (index) {
        PutIndex(in, dst, 1, at);
    }
}
PTO_SHIM_FN int64_t PowerBelow(int64_t n)
{
    int64_t k = 1;
    while (k * 2 <= n) {
        k *= 2;
    }
    return k;
}
// Scratch of a high-level call: big enough, apart from the operands; its contents are lost.
PTO_SHIM_FN void UseTmp(Instr &in, const View &tmp, int64_t need)
{
    const Call &call = in.call;
    CheckUb(call, tmp, "tmp", 32);
    int64_t has = static_cast<int64_t>(tmp.end) - tmp.addr;
    if (has < need) {
        Fail(call, "tmp has %lld bytes, at least %lld are needed", static_cast<long long>(has), static_cast<long long>(need));
    }
    if (has == 0) {
        return;
    }
    TouchLocal(in, Mem::kUb, tmp.addr, static_cast<uint32_t>(has), true, "tmp");
    Memory &m = MemoryOf(in.core, Mem::kUb);
    std::memset(m.ready.data() + tmp.addr, 0, static_cast<size_t>(has));
    std::memset(m.data + tmp.addr, TheMachine().poison, static_cast<size_t>(has));
}
PTO_SHIM_FN void AxisReduce(const Call &call, Fold fold, bool by_rows, const View &dst, const View &src, const View &tmp,
                            const uint32_t shape[], bool inner_pad, bool reuse)
{
    Core &core = VectorCore(call);
    int64_t size = SizeOf(src.type), rows = shape[0], cols = shape[1];
    if (rows == 0 || cols == 0) {
        return;
    }
    if (!inner_pad) {
        Fail(call, "srcInnerPad = false; on 2201 it must be true: rows start on 32 bytes");
    }
    int64_t pitch = Ceil32(cols * size), per_block = 32 / size, need;
    bool sum = fold == Fold::kSum || fold == Fold::kMean;
    if (!by_rows) {
        need = PowerBelow(rows) * pitch;
    } else if (sum) {
        int64_t k = PowerBelow(cols);
        k = k == cols && rows > 1 ? k / 2 : k;
        need = cols <= 64 ? 0 : rows * k * 4;
    } else {
        need = cols <= per_block ? 0 : cols * size < 256 ? rows * 32 : rows * 256;
    }
    CheckUb(call, dst, "dst", 32);
    CheckUb(call, src, "src", 32);
    int64_t results = by_rows ? rows : cols;
    CheckSpan(call, src, "src", 0, (rows - 1) * pitch + cols * size);
    CheckSpan(call, dst, "dst", 0, results * size);
    CheckApart(call, dst, results * size, "dst", src, rows * pitch, "src");
    CheckApart(call, dst, results * size, "dst", tmp, need, "tmp");
    CheckApart(call, tmp, need, "tmp", src, rows * pitch, "src");
    Instr in = Issue(call, core, PIPE_V);
    Memory &m = MemoryOf(core, Mem::kUb);
    std::vector<float> all(static_cast<size_t>(rows * cols));
    for (int64_t r = 0; r < rows; ++r) {
        uint32_t addr = src.addr + static_cast<uint32_t>(r * pitch);
        TouchLocal(in, Mem::kUb, addr, static_cast<uint32_t>(cols * size), false, "src");
        for (int64_t c = 0; c < cols; ++c) {
            NeedReady(call, m.ready[addr + static_cast<uint32_t>(c * size)] != 0, "src", r * (pitch / size) + c);
            all[static_cast<size_t>(r * cols + c)] = static_cast<float>(LoadValue(m.data + addr + c * size, src.type));
        }
    }
    if (need > 0) {
        UseTmp(in, tmp, need);
    }
    if (reuse) {
        TouchLocal(in, Mem::kUb, src.addr, static_cast<uint32_t>(rows * pitch), true, "src");
        std::memset(m.ready.data() + src.addr, 0, static_cast<size_t>(rows * pitch));
    }
    for (int64_t i = 0; i < results; ++i) {
        std::vector<float> v;
        for (int64_t k = 0; k < (by_rows ? cols : rows); ++k) {
            v.push_back(all[static_cast<size_t>(by_rows ? i * cols + k : k * cols + i)]);
        }
        float out = TreeFold(sum ? Fold::kSum : fold, v, src.type);
        PutFloat(in, dst, i, fold == Fold::kMean ? out / static_cast<float>(v.size()) : out);
    }
}

}   // namespace pto_shim
