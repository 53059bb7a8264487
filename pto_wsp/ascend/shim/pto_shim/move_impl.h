// Broadcasts, gathers, transposes and sorting on the simulated core.
#pragma once
#include "move.h"
#include "reduce_impl.h"

#include <algorithm>

namespace pto_shim {

// Bytes moved as they are, poison bits with them.
PTO_SHIM_FN void MoveBytes(Instr &in, uint32_t to, uint32_t from, uint32_t bytes)
{
    Memory &m = MemoryOf(in.core, Mem::kUb);
    TouchLocal(in, Mem::kUb, to, bytes, true, "dst");
    std::memcpy(m.data + to, m.data + from, bytes);
    std::memcpy(m.ready.data() + to, m.ready.data() + from, bytes);
}
PTO_SHIM_FN void BrcbOp(const Call &call, const View &dst, const View &src, int64_t repeat, int64_t blk, int64_t rep)
{
    Core &core = VectorCore(call);
    if (repeat == 0) {
        return;
    }
    uint32_t size = SizeOf(src.type);
    CheckUb(call, dst, "dst", 32);
    CheckUb(call, src, "src0", 32);
    if (blk == 0) {
        Fail(call, "dstBlkStride = 0; it must be at least 1");
    }
    int64_t src_bytes = repeat * 8 * size, dst_bytes = ((repeat - 1) * rep + 7 * blk + 1) * 32;
    CheckSpan(call, src, "src0 (read in groups of 8)", 0, src_bytes);
    CheckSpan(call, dst, "dst", 0, dst_bytes);
    CheckApart(call, dst, dst_bytes, "dst", src, src_bytes, "src0");
    Instr in = Issue(call, core, PIPE_V);
    TouchLocal(in, Mem::kUb, src.addr, static_cast<uint32_t>(src_bytes), false, "src0");
    for (int64_t i = 0; i < repeat * 8; ++i) {
        uint32_t to = dst.addr + static_cast<uint32_t>((i / 8 * rep + i % 8 * blk) * 32);
        for (uint32_t k = 0; k < 32; k += size) {
            MoveBytes(in, to + k, src.addr + static_cast<uint32_t>(i) * size, size);
        }
    }
}
PTO_SHIM_FN uint64_t ReadWord(Instr &in, const View &v, int64_t element, const char *what)
{
    uint32_t size = SizeOf(v.type), addr = v.addr + static_cast<uint32_t>(element) * size;
    Memory &m = MemoryOf(in.core, Mem::kUb);
    NeedReady(in.call, m.ready[addr] != 0, what, element);
    uint64_t out = 0;
    std::memcpy(&out, m.data + addr, size);
    return out;
}
PTO_SHIM_FN void GatherOp(const Call &call, const View &dst, const View &src, const View &offset, int64_t base, int64_t count)
{
    Core &core = VectorCore(call);
    CheckRange(call, "count", count, 0, INT32_MAX);
    if (count == 0) {
        return;
    }
    uint32_t size = SizeOf(src.type);
    CheckUb(call, dst, "dst", 32);
    CheckUb(call, src, "src", 32);
    CheckUb(call, offset, "srcOffset", 32);
    CheckSpan(call, dst, "dst", 0, count * size);
    CheckSpan(call, offset, "srcOffset", 0, count * 4);
    CheckApart(call, dst, count * size, "dst", src, src.end - src.addr, "src");
    CheckApart(call, dst, count * size, "dst", offset, count * 4, "srcOffset");
    Instr in = Issue(call, core, PIPE_V);
    TouchLocal(in, Mem::kUb, offset.addr, static_cast<uint32_t>(count) * 4, false, "srcOffset");
    for (int64_t i = 0; i < count; ++i) {
        int64_t at = static_cast<int64_t>(ReadWord(in, offset, i, "srcOffset"));
        if (at % size != 0) {
            Fail(call, "srcOffset[%lld] = %lld bytes is no multiple of the element, %u bytes", static_cast<long long>(i),
                 static_cast<long long>(at), size);
        }
        if (base + at + size > static_cast<int64_t>(src.end) - src.addr) {
            Fail(call, "srcOffset[%lld] = %lld bytes (base %lld) is beyond src, which has %u bytes", static_cast<long long>(i),
                 static_cast<long long>(at), static_cast<long long>(base), src.end - src.addr);
        }
        uint32_t from = src.addr + static_cast<uint32_t>(base + at);
        TouchLocal(in, Mem::kUb, from, size, false, "src");
        MoveBytes(in, dst.addr + static_cast<uint32_t>(i) * size, from, size);
    }
}
PTO_SHIM_FN void GatherbOp(const Call &call, const View &dst, const View &src, const View &offset, int64_t repeat, int64_t blk, int64_t rep)
{
    Core &core = VectorCore(call);
    if (repeat == 0) {
        return;
    }
    CheckUb(call, dst, "dst", 32);
    CheckUb(call, src, "src0", 32);
    CheckUb(call, offset, "offset", 32);
    int64_t dst_bytes = ((repeat - 1) * rep + 7 * blk + 1) * 32;
    CheckSpan(call, dst, "dst", 0, dst_bytes);
    CheckSpan(call, offset, "offset", 0, repeat * 32);
    CheckApart(call, dst, dst_bytes, "dst", offset, repeat * 32, "offset");
    CheckApart(call, dst, dst_bytes, "dst", src, src.end - src.addr, "src0");
    Instr in = Issue(call, core, PIPE_V);
    TouchLocal(in, Mem::kUb, offset.addr, static_cast<uint32_t>(repeat) * 32, false, "offset");
    for (int64_t i = 0; i < repeat * 8; ++i) {
        int64_t at = static_cast<int64_t>(ReadWord(in, offset, i, "offset"));
        if (at % 32 != 0 || at + 32 > static_cast<int64_t>(src.end) - src.addr) {
            Fail(call, "offset[%lld] = %lld bytes is no multiple of 32 or beyond src0, which has %u bytes", static_cast<long long>(i),
                 static_cast<long long>(at), src.end - src.addr);
        }
        uint32_t from = src.addr + static_cast<uint32_t>(at);
        TouchLocal(in, Mem::kUb, from, 32, false, "src0");
        MoveBytes(in, dst.addr + static_cast<uint32_t>((i / 8 * rep + i % 8 * blk) * 32), from, 32);
    }
}
PTO_SHIM_FN void GatherMaskOp(const Call &call, const View &dst, const View &src, const View *bits, int64_t pattern, bool reduce,
                              int64_t mask, const AscendC::GatherMaskParams &p, uint64_t &kept)
{
    Core &core = VectorCore(call);
    uint32_t size = SizeOf(src.type);
    int64_t lanes = 256 / size, repeats = Fit<uint16_t>(call, "repeatTimes", p.repeatTimes),
            blk = Fit<uint8_t>(call, "src0BlockStride", p.src0BlockStride), rep = Fit<uint16_t>(call, "src0RepeatStride", p.src0RepeatStride),
            bit_rep = Fit<uint8_t>(call, "src1RepeatStride", p.src1RepeatStride);
    if (bits == nullptr) {
        CheckRange(call, "src1Pattern", pattern, 1, 7);
    }
    if (reduce) {
        CheckRange(call, "mask", mask, 1, repeats == 1 ? INT32_MAX : lanes);
    }
    if (repeats == 0) {
        kept = 0;
        return;
    }
    // reduceMode: the first `mask` elements of each repeat (more than a repeat when there is one, packed)
    int64_t take = reduce ? mask : lanes;
    CheckUb(call, dst, "dst", 32);
    CheckUb(call, src, "src0", 32);
    auto place = [&](int64_t r, int64_t i) { return r * rep * 32 + i * size / 32 * blk * 32 + i * size % 32; };
    CheckSpan(call, src, "src0", 0, place(repeats - 1, take - 1) + size);
    Instr in = Issue(call, core, PIPE_V);
    Memory &m = MemoryOf(core, Mem::kUb);
    if (bits != nullptr) {
        CheckUb(call, *bits, "src1Pattern", 32);
        CheckSpan(call, *bits, "src1Pattern", 0, (repeats - 1) * bit_rep * 32 + (take + 7) / 8);
    }
    std::vector<uint8_t> out, ready;
    for (int64_t r = 0; r < repeats; ++r) {
        if (bits != nullptr) {
            uint32_t addr = bits->addr + static_cast<uint32_t>(r * bit_rep * 32);
            TouchLocal(in, Mem::kUb, addr, static_cast<uint32_t>((take + 7) / 8), false, "src1Pattern");
        }
        for (int64_t i = 0; i < take; ++i) {
            uint32_t addr = src.addr + static_cast<uint32_t>(place(r, i));
            TouchLocal(in, Mem::kUb, addr, size, false, "src0");
            bool on;
            if (bits != nullptr) {
                uint32_t at = bits->addr + static_cast<uint32_t>(r * bit_rep * 32 + i / 8);
                NeedReady(call, m.ready[at] != 0, "src1Pattern", i);
                on = (m.data[at] >> (i % 8) & 1) != 0;
            } else {
                on = pattern == 7 || (pattern <= 2 ? i % 2 == pattern - 1 : i % 4 == pattern - 3);
            }
            if (on) {
                out.insert(out.end(), m.data + addr, m.data + addr + size);
                ready.insert(ready.end(), m.ready.data() + addr, m.ready.data() + addr + size);
            }
        }
    }
    kept = out.size() / size;
    CheckSpan(call, dst, "dst", 0, static_cast<int64_t>(out.size()));
    if (!out.empty()) {
        TouchLocal(in, Mem::kUb, dst.addr, static_cast<uint32_t>(out.size()), true, "dst");
        std::memcpy(m.data + dst.addr, out.data(), out.size());
        std::memcpy(m.ready.data() + dst.addr, ready.data(), ready.size());
    }
}
PTO_SHIM_FN void TransposeOp(const Call &call, const View &dst, const View &src)
{
    Core &core = VectorCore(call);
    CheckUb(call, dst, "dst", 32);
    CheckUb(call, src, "src", 32);
    CheckSpan(call, src, "src (one block of 16 x 16)", 0, 512);
    CheckSpan(call, dst, "dst (one block of 16 x 16)", 0, 512);
    if (dst.addr != src.addr) {
        CheckApart(call, dst, 512, "dst", src, 512, "src");
    }
    Instr in = Issue(call, core, PIPE_V);
    TouchLocal(in, Mem::kUb, src.addr, 512, false, "src");
    TouchLocal(in, Mem::kUb, dst.addr, 512, true, "dst");
    Memory &m = MemoryOf(core, Mem::kUb);
    uint8_t data[512], ready[512];
    std::memcpy(data, m.data + src.addr, 512);
    std::memcpy(ready, m.ready.data() + src.addr, 512);
    for (uint32_t i = 0; i < 256; ++i) {
        uint32_t from = (i % 16 * 16 + i / 16) * 2;
        std::memcpy(m.data + dst.addr + i * 2, data + from, 2);
        std::memcpy(m.ready.data() + dst.addr + i * 2, ready + from, 2);
    }
}
// The buffer that holds a physical UB address, or an error.
PTO_SHIM_FN View ViewAt(Instr &in, uint64_t physical, int64_t shift, const char *what, int number)
{
    Memory &m = MemoryOf(in.core, Mem::kUb);
    uint64_t base = reinterpret_cast<uintptr_t>(m.data);
    if (physical < base || physical + static_cast<uint64_t>(shift) + 32 > base + kMemBytes[0]) {
        Fail(in.call, "%s[%d] is no address in UB", what, number);
    }
    uint32_t addr = static_cast<uint32_t>(physical - base + static_cast<uint64_t>(shift));
    if (addr % 32 != 0) {
        Fail(in.call, "%s[%d]: address %u is not a multiple of 32 bytes", what, number, addr);
    }
    for (size_t i = 0; i < in.core.buffers.size(); ++i) {
        const Buffer &b = in.core.buffers[i];
        if (b.mem == Mem::kUb && addr >= b.addr && addr < b.addr + b.bytes) {
            View v = ViewOf(in.core, static_cast<int>(i), DT::kU8);
            CheckView(in.call, v, what);
            v.addr = addr;
            return v;
        }
    }
    View v;
    v.mem = Mem::kUb;
    v.addr = addr;
    v.end = kUsable[0];
    return v;
}
PTO_SHIM_FN void HdTranspose(const Call &call, const uint64_t dst[16], const uint64_t src[16], DT type,
                             const AscendC::TransDataTo5HDParams &p)
{
    Core &core = VectorCore(call);
    int64_t repeat = Fit<uint8_t>(call, "repeatTimes", p.repeatTimes), dst_rep = Fit<uint16_t>(call, "dstRepStride", p.dstRepStride),
            src_rep = Fit<uint16_t>(call, "srcRepStride", p.srcRepStride);
    if (repeat == 1 && (dst_rep != 0 || src_rep != 0)) {
        Fail(call, "repeatTimes = 1 needs dstRepStride = srcRepStride = 0, they are %lld and %lld", static_cast<long long>(dst_rep),
             static_cast<long long>(src_rep));
    }
    uint32_t size = SizeOf(type);
    Instr in = Issue(call, core, PIPE_V);
    Memory &m = MemoryOf(core, Mem::kUb);
    for (int64_t r = 0; r < repeat; ++r) {
        uint8_t data[16][32], ready[16][32];
        for (int i = 0; i < 16; ++i) {
            View v = ViewAt(in, src[i], r * src_rep * 32, "srcList", i);
            TouchLocal(in, Mem::kUb, v.addr, 32, false, "src");
            std::memcpy(data[i], m.data + v.addr, 32);
            std::memcpy(ready[i], m.ready.data() + v.addr, 32);
        }
        for (uint32_t i = 0; i < 16; ++i) {
            View v = ViewAt(in, dst[i], r * dst_rep * 32, "dstList", static_cast<int>(i));
            // which source element becomes element k of block i
            uint32_t n = size == 4 ? 8 : 16;
            uint32_t into = size == 1 && p.dstHighHalf ? 16 : 0, take = size == 1 && p.srcHighHalf ? 16 : 0;
            TouchLocal(in, Mem::kUb, v.addr + into, n * size, true, "dst");
            for (uint32_t k = 0; k < n; ++k) {
                uint32_t row = size == 4 ? i % 2 * 8 + k : k, col = size == 4 ? i / 2 : i + take;
                std::memcpy(m.data + v.addr + into + k * size, data[row] + col * size, size);
                std::memcpy(m.ready.data() + v.addr + into + k * size, ready[row] + col * size, size);
            }
        }
    }
}
PTO_SHIM_FN void ProgressionOp(const Call &call, const View &dst, const Scalar &first, const Scalar &step, int64_t count)
{
    Core &core = VectorCore(call);
    CheckRange(call, "count", count, 0, INT32_MAX);
    if (step.f < 0 || step.i < 0) {
        Fail(call, "diffValue is negative; it must be at least 0");
    }
    CheckUb(call, dst, "dst", 32);
    uint32_t size = SizeOf(dst.type);
    CheckSpan(call, dst, "dst", 0, count * size);
    Instr in = Issue(call, core, PIPE_V);
    Memory &m = MemoryOf(core, Mem::kUb);
    if (count > 0) {
        TouchLocal(in, Mem::kUb, dst.addr, static_cast<uint32_t>(count) * size, true, "dst");
    }
    for (int64_t i = 0; i < count; ++i) {
        uint32_t addr = dst.addr + static_cast<uint32_t>(i) * size;
        int64_t v = first.i + i * step.i;
        if (IsFloat(dst.type)) {
            StoreValue(m.data + addr, dst.type, static_cast<double>(first.f) + static_cast<double>(i) * static_cast<double>(step.f));
        } else {
            std::memcpy(m.data + addr, &v, size);
        }
        std::memset(m.ready.data() + addr, 1, size);
    }
}
PTO_SHIM_FN void BroadcastOp(const Call &call, const View &dst, const View &src, const View &tmp, int axis, const uint32_t to[],
                             const uint32_t from[])
{
    Core &core = VectorCore(call);
    int64_t rows = to[0], cols = to[1], size = SizeOf(src.type), e = 32 / size;
    if (from[axis] != 1 || from[1 - axis] != to[1 - axis]) {
        Fail(call, "srcShape = [%u, %u] does not broadcast along axis %d to dstShape = [%u, %u]", from[0], from[1], axis, to[0], to[1]);
    }
    if (axis == 0 && cols * size % 32 != 0) {
        Fail(call, "rows of %lld bytes; axis 0 needs a multiple of 32", static_cast<long long>(cols * size));
    }
    CheckUb(call, dst, "dst", 32);
    CheckUb(call, src, "src", 32);
    int64_t src_bytes = (axis == 0 ? cols : rows) * size, dst_bytes = rows * cols * size;
    CheckSpan(call, src, "src", 0, src_bytes);
    CheckSpan(call, dst, "dst", 0, dst_bytes);
    CheckApart(call, dst, dst_bytes, "dst", src, src_bytes, "src");
    int64_t wide = (rows + 7) / 8 * 8 * 32, least = axis == 0 ? 32 : wide > e * e * size ? wide : e * e * size;
    CheckApart(call, tmp, tmp.end - tmp.addr, "tmp", src, src_bytes, "src");
    CheckApart(call, tmp, tmp.end - tmp.addr, "tmp", dst, dst_bytes, "dst");
    Instr in = Issue(call, core, PIPE_V);
    UseTmp(in, tmp, least);
    TouchLocal(in, Mem::kUb, src.addr, static_cast<uint32_t>(src_bytes), false, "src");
    for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < cols; ++c) {
            MoveBytes(in, dst.addr + static_cast<uint32_t>((r * cols + c) * size),
                      src.addr + static_cast<uint32_t>((axis == 0 ? c : r) * size), static_cast<uint32_t>(size));
        }
    }
}

// ---- sorting: records of 8 bytes, key first, index in the upper word ----------------------------------------------

struct Record {
    uint8_t bytes[8];
    float key;
};
PTO_SHIM_FN bool Before(const Record &a, const Record &b) { return a.key > b.key || (a.key != a.key && b.key == b.key); }
PTO_SHIM_FN void PutRecords(Instr &in, const View &dst, int64_t first, const std::vector<Record> &records)
{
    CheckSpan(in.call, dst, "dst", first * 8, static_cast<int64_t>(records.size()) * 8);
    Memory &m = MemoryOf(in.core, Mem::kUb);
    uint32_t at = dst.addr + static_cast<uint32_t>(first) * 8;
    TouchLocal(in, Mem::kUb, at, static_cast<uint32_t>(records.size()) * 8, true, "dst");
    for (const Record &r : records) {
        std::memcpy(m.data + at, r.bytes, 8);
        std::memset(m.ready.data() + at, 1, 8);
        at += 8;
    }
}
PTO_SHIM_FN std::vector<Record> TakeRecords(Instr &in, const View &src, int64_t first, int64_t count, const char *what)
{
    CheckUb(in.call, src, what, 8);
    CheckSpan(in.call, src, what, first * 8, count * 8);
    Memory &m = MemoryOf(in.core, Mem::kUb);
    std::vector<Record> out;
    uint32_t at = src.addr + static_cast<uint32_t>(first) * 8;
    TouchLocal(in, Mem::kUb, at, static_cast<uint32_t>(count) * 8, false, what);
    for (int64_t i = 0; i < count; ++i, at += 8) {
        NeedReady(in.call, m.ready[at] != 0 && m.ready[at + 4] != 0, what, i);
        Record r;
        std::memcpy(r.bytes, m.data + at, 8);
        r.key = static_cast<float>(LoadValue(m.data + at, src.type));
        out.push_back(r);
    }
    return out;
}
PTO_SHIM_FN void SortOp(const Call &call, const View &dst, const View &keys, const View &index, const View *tmp, int64_t repeat, bool whole)
{
    Core &core = VectorCore(call);
    CheckRange(call, "repeatTime", repeat, 0, 255);
    if (repeat == 0) {
        return;
    }
    int64_t n = repeat * 32, size = SizeOf(keys.type);
    CheckUb(call, dst, "dst", 32);
    CheckUb(call, keys, "src0", 32);
    CheckUb(call, index, "src1", 32);
    CheckSpan(call, keys, "src0", 0, n * size);
    CheckSpan(call, index, "src1", 0, n * 4);
    CheckSpan(call, dst, "dst", 0, n * 8);
    CheckApart(call, dst, n * 8, "dst", keys, n * size, "src0");
    CheckApart(call, dst, n * 8, "dst", index, n * 4, "src1");
    Instr in = Issue(call, core, PIPE_V);
    Memory &m = MemoryOf(core, Mem::kUb);
    if (tmp != nullptr) {
        CheckApart(call, *tmp, n * 8, "tmp", keys, n * size, "src0");
        CheckApart(call, *tmp, n * 8, "tmp", index, n * 4, "src1");
        CheckApart(call, *tmp, n * 8, "tmp", dst, n * 8, "dst");
        UseTmp(in, *tmp, n * 8);
    }
    TouchLocal(in, Mem::kUb, keys.addr, static_cast<uint32_t>(n * size), false, "src0");
    TouchLocal(in, Mem::kUb, index.addr, static_cast<uint32_t>(n) * 4, false, "src1");
    std::vector<Record> records;
    for (int64_t i = 0; i < n; ++i) {
        uint32_t key = keys.addr + static_cast<uint32_t>(i * size), at = index.addr + static_cast<uint32_t>(i) * 4;
        NeedReady(call, m.ready[key] != 0, "src0", i);
        NeedReady(call, m.ready[at] != 0, "src1", i);
        Record r{};
        std::memcpy(r.bytes, m.data + key, static_cast<size_t>(size));
        std::memcpy(r.bytes + 4, m.data + at, 4);
        r.key = static_cast<float>(LoadValue(m.data + key, keys.type));
        records.push_back(r);
    }
    for (auto first = records.begin(); first != records.end(); first += whole ? n : 32) {
        std::stable_sort(first, first + (whole ? n : 32), Before);
    }
    PutRecords(in, dst, 0, records);
}
PTO_SHIM_FN void MergeOp(const Call &call, const View &dst, const View *const runs[4], const AscendC::MrgSort4Info &info)
{
    Core &core = VectorCore(call);
    int64_t valid = Fit<uint16_t>(call, "validBit", info.validBit), repeat = Fit<uint8_t>(call, "repeatTimes", info.repeatTimes);
    if (valid != 3 && valid != 7 && valid != 15) {
        Fail(call, "validBit = %lld; 3, 7 and 15 stand for 2, 3 and 4 runs", static_cast<long long>(valid));
    }
    if (info.ifExhaustedSuspension) {
        Fail(call, "ifExhaustedSuspension = true is not modelled by this shim");
    }
    int64_t count = valid == 3 ? 2 : valid == 7 ? 3 : 4, length[4], total = 0;
    for (int64_t i = 0; i < count; ++i) {
        length[i] = Fit<uint16_t>(call, "elementLengths", info.elementLengths[i]);
        CheckRange(call, "elementLengths", length[i], 0, 4095);
        total += length[i];
        if (repeat > 1 && length[i] != length[0]) {
            Fail(call, "repeatTimes = %lld needs runs of one length", static_cast<long long>(repeat));
        }
    }
    CheckUb(call, dst, "dst", 32);
    for (int64_t i = 0; i < count; ++i) {
        CheckApart(call, dst, total * 8 * repeat, "dst", *runs[i], length[i] * 8, "a run");
    }
    Instr in = Issue(call, core, PIPE_V);
    for (int64_t r = 0; r < repeat; ++r) {
        std::vector<Record> all;
        for (int64_t i = 0; i < count; ++i) {
            // repeats take the next group of four runs, which lie one after another
            std::vector<Record> run = TakeRecords(in, *runs[i], r * total, length[i], "a run");
            if (!std::is_sorted(run.begin(), run.end(), Before)) {
                Fail(call, "run %lld is not sorted", static_cast<long long>(i + 1));
            }
            all.insert(all.end(), run.begin(), run.end());
        }
        std::stable_sort(all.begin(), all.end(), Before);
        PutRecords(in, dst, r * total, all);
    }
}
PTO_SHIM_FN void ExtractOp(const Call &call, const View &values, const View &index, const View &sorted, int64_t repeat)
{
    Core &core = VectorCore(call);
    CheckRange(call, "repeatTime", repeat, 0, 255);
    int64_t n = repeat * 32, size = SizeOf(values.type);
    CheckUb(call, values, "dstValue", 32);
    CheckUb(call, index, "dstIndex", 32);
    CheckSpan(call, values, "dstValue", 0, n * size);
    CheckSpan(call, index, "dstIndex", 0, n * 4);
    CheckApart(call, values, n * size, "dstValue", sorted, n * 8, "sorted");
    CheckApart(call, index, n * 4, "dstIndex", sorted, n * 8, "sorted");
    Instr in = Issue(call, core, PIPE_V);
    std::vector<Record> records = TakeRecords(in, sorted, 0, n, "sorted");
    for (int64_t i = 0; i < n; ++i) {
        PutElement(in, values, i, records[static_cast<size_t>(i)].bytes);
        PutElement(in, index, i, records[static_cast<size_t>(i)].bytes + 4);
    }
}

}   // namespace pto_shim
