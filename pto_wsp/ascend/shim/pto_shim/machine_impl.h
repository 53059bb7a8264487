// The machine's parts: errors, memories and their shadow, buffers and queues, events, launches.
#pragma once
#include "launch.h"
#include "machine.h"

namespace pto_shim {

PTO_SHIM_FN void Fail(const Call &call, const char *format, ...)
{
    std::va_list args;
    va_start(args, format);
    char text[2048];
    std::vsnprintf(text, sizeof text, format, args);
    va_end(args);
    Machine &m = TheMachine();
    std::fflush(stdout);
    std::fprintf(stderr, "pto_shim: error: %s:%d: %s: %s", call.at.file, call.at.line, call.name, text);
    if (m.core != nullptr && m.launch != nullptr && m.launch->type >= 0) {
        std::fprintf(stderr, " [%s %d of group %d]", m.core->cube ? "AIC" : "AIV", m.core->sub, m.core->group);
    }
    std::fprintf(stderr, "\n");
    std::fflush(stderr);
    std::_Exit(kExitCode);
}
PTO_SHIM_FN void CheckRange(const Call &call, const char *what, int64_t value, int64_t low, int64_t high)
{
    if (value < low || value > high) {
        Fail(call, "%s = %lld, allowed are %lld..%lld", what, static_cast<long long>(value), static_cast<long long>(low),
             static_cast<long long>(high));
    }
}
PTO_SHIM_FN const char *NameOf(DT t)
{
    constexpr const char *names[] = {"uint8_t", "int8_t", "uint16_t", "int16_t", "half", "bfloat16_t",
                                     "uint32_t", "int32_t", "float", "uint64_t", "int64_t", "double"};
    return names[static_cast<int>(t)];
}

// ---- cores ------------------------------------------------------------------------------------------------------

PTO_SHIM_FN Core &Here(const Call &call)
{
    Machine &m = TheMachine();
    if (m.core == nullptr) {
        Fail(call, "called outside a kernel");
    }
    if (m.launch->type < 0) {
        Fail(call, "KERNEL_TASK_TYPE_DEFAULT must be the first statement of the entry");
    }
    return *m.core;
}
PTO_SHIM_FN Core &VectorCore(const Call &call)
{
    Core &c = Here(call);
    if (c.cube) {
        Fail(call, "a vector-core call on a cube core; put it under `if ASCEND_IS_AIV`");
    }
    return c;
}
PTO_SHIM_FN Core &CubeCore(const Call &call)
{
    Core &c = Here(call);
    if (!c.cube) {
        Fail(call, "a cube-core call on a vector core; put it under `if ASCEND_IS_AIC`");
    }
    return c;
}
PTO_SHIM_FN uint32_t SiteOf(const Call &call)
{
    Machine &m = TheMachine();
    uint64_t key = reinterpret_cast<uintptr_t>(call.name) * 0x9E3779B97F4A7C15u ^
                   reinterpret_cast<uintptr_t>(call.at.file) * 0xC2B2AE3D27D4EB4Fu ^ static_cast<uint64_t>(call.at.line) * 31;
    auto found = m.site_numbers.emplace(key, static_cast<uint32_t>(m.sites.size()));
    if (found.second) {
        m.sites.push_back({call.name, call.at});
    }
    return found.first->second;
}
PTO_SHIM_FN Instr Issue(const Call &call, Core &core, int pipe)
{
    Clock &k = core.known[pipe];
    k.Join(core.issue);
    ++TheMachine().cycle;
    uint32_t seq = ++core.issued[pipe];
    if (pipe == PIPE_S) {
        k.own[PIPE_S] = seq;   // the scalar unit is in order with itself
    }
    return Instr{call, core, pipe, seq, SiteOf(call)};
}
PTO_SHIM_FN bool Known(const Instr &in, const Touch &t)
{
    const Clock &k = in.core.known[in.pipe];
    if (t.core == in.core.number) {
        return k.own[t.pipe] >= t.seq;
    }
    size_t at = static_cast<size_t>(t.core) * kPipes + t.pipe;
    return at < k.other.size() && k.other[at] >= t.seq;
}
PTO_SHIM_FN void Unordered(Instr &in, const Touch &t, bool wrote, bool writes, const char *what, const std::string &where)
{
    const Machine::Site &s = TheMachine().sites[t.site];
    std::string cure;
    if (t.core != in.core.number) {
        cure = "two cores without a cross-core order between them";
    } else if (t.pipe == in.pipe) {
        cure = std::string("missing PipeBarrier<PIPE_") + kPipeName[t.pipe] + ">()";
    } else {
        cure = std::string("missing SetFlag/WaitFlag<HardEvent::") + kPipeName[t.pipe] + "_" + kPipeName[in.pipe] +
               "> or queue between them";
    }
    Fail(in.call, "%s %s %s which %s %s at %s:%d (pipe %s), and nothing orders the two: %s", what,
         writes ? "overwrites" : "reads", where.c_str(), s.name, wrote ? "wrote" : "reads", s.at.file, s.at.line,
         kPipeName[t.pipe], cure.c_str());
}

// ---- local memories ---------------------------------------------------------------------------------------------

PTO_SHIM_FN Mem MemOf(TPosition pos)
{
    switch (pos) {
        case TPosition::VECIN:
        case TPosition::VECOUT:
        case TPosition::VECCALC: return Mem::kUb;
        case TPosition::A1:
        case TPosition::B1:
        case TPosition::C1: return Mem::kL1;
        case TPosition::A2: return Mem::kL0a;
        case TPosition::B2: return Mem::kL0b;
        case TPosition::CO1: return Mem::kL0c;
        case TPosition::C2: return Mem::kBias;
        case TPosition::C2PIPE2GM: return Mem::kFixBuf;
        default: return Mem::kNone;
    }
}
PTO_SHIM_FN Memory &MemoryOf(Core &core, Mem mem)
{
    Memory &m = core.memory[static_cast<int>(mem)];
    if (m.store.empty()) {
        uint32_t bytes = kMemBytes[static_cast<int>(mem)];
        m.store.resize(bytes + 512, TheMachine().poison);
        m.data = reinterpret_cast<uint8_t *>((reinterpret_cast<uintptr_t>(m.store.data()) + 511) & ~uintptr_t{511});
        m.ready.resize(bytes, 0);
        m.shadow.resize(bytes / kGranule);
    }
    return m;
}
PTO_SHIM_FN void CheckView(const Call &call, const View &v, const char *what)
{
    if (v.mem == Mem::kNone) {
        Fail(call, "%s is a LocalTensor that was never given a buffer", what);
    }
    if (v.buf < 0) {
        return;
    }
    Core &core = Here(call);
    if (static_cast<size_t>(v.buf) >= core.buffers.size()) {
        Fail(call, "%s belongs to a TPipe that is gone", what);
    }
    const Buffer &b = core.buffers[static_cast<size_t>(v.buf)];
    if (b.gen != v.gen || b.life == Life::kFree) {
        Fail(call, "%s is used after FreeTensor (freed at %s:%d)", what, b.last.file, b.last.line);
    }
    if (b.life == Life::kQueued) {
        Fail(call, "%s is used before DeQue (put into its queue at %s:%d)", what, b.last.file, b.last.line);
    }
}
PTO_SHIM_FN void CheckSpan(const Call &call, const View &v, const char *what, int64_t from, int64_t bytes)
{
    int64_t size = static_cast<int64_t>(v.end) - v.addr;
    if (from < 0 || from + bytes > size) {
        Fail(call, "%s: bytes %lld..%lld are reached, the tensor has %lld bytes (%s, %s at address %u)", what,
             static_cast<long long>(from), static_cast<long long>(from + bytes), static_cast<long long>(size),
             NameOf(v.type), kMemName[static_cast<int>(v.mem)], v.addr);
    }
}
PTO_SHIM_FN void CheckAlign(const Call &call, const View &v, const char *what, uint32_t align)
{
    if (v.addr % align != 0) {
        Fail(call, "%s: address %u in %s is not a multiple of %u bytes", what, v.addr, kMemName[static_cast<int>(v.mem)],
             align);
    }
}
PTO_SHIM_FN void CheckMem(const Call &call, const View &v, const char *what, Mem mem)
{
    if (v.mem != mem) {
        Fail(call, "%s lies in %s, this operand must be in %s", what, kMemName[static_cast<int>(v.mem)],
             kMemName[static_cast<int>(mem)]);
    }
}
PTO_SHIM_FN std::string Place(Mem mem, uint32_t addr)
{
    return std::string(kMemName[static_cast<int>(mem)]) + " byte " + std::to_string(addr);
}
PTO_SHIM_FN int LowestBit(uint32_t bits) { return __builtin_ctz(bits); }

// One access of `bytes` of a granule. Whoever meets an unordered conflicting access ends here.
// adders: the granule's atomic accumulations (GM only); atomic: this write is one.
PTO_SHIM_FN void TouchGranule(Instr &in, Granule &g, uint32_t bytes, bool write, const char *what, Mem mem, uint64_t base,
                              Touch *adders = nullptr, bool atomic = false)
{
    auto mine = [&](const Touch &t) {
        return t.seq == in.seq && t.pipe == in.pipe && t.core == static_cast<uint16_t>(in.core.number);
    };
    auto place = [&](uint32_t both) {
        uint64_t at = base + static_cast<uint32_t>(LowestBit(both));
        return mem == Mem::kNone ? "GM byte " + std::to_string(at) : Place(mem, static_cast<uint32_t>(at));
    };
    auto meet = [&](const Touch &t, bool wrote) {
        if (t.seq != 0 && (t.bytes & bytes) != 0 && !mine(t) && !Known(in, t)) {
            Unordered(in, t, wrote, write, what, place(t.bytes & bytes));
        }
    };
    Touch now{bytes, in.seq, in.site, static_cast<uint16_t>(in.core.number), static_cast<uint8_t>(in.pipe)};
    // One of four slots for an access of a pipe; an older one of the same pipe is joined, the oldest may be lost.
    auto remember = [&](Touch *slots) {
        Touch *slot = &slots[in.seq % 4];
        for (int i = 3; i >= 0; --i) {
            slot = slots[i].seq == 0 ? &slots[i] : slot;
        }
        for (int i = 0; i < 4; ++i) {
            if (slots[i].seq != 0 && slots[i].core == now.core && slots[i].pipe == now.pipe) {
                now.bytes |= slots[i].bytes;
                slot = &slots[i];
            }
        }
        *slot = now;
    };
    Touch &w = g.writer;
    meet(w, true);
    meet(g.older, true);
    for (int i = 0; adders != nullptr && !atomic && i < 4; ++i) {
        meet(adders[i], true);
    }
    if (!write) {
        remember(g.readers);
        return;
    }
    for (Touch &r : g.readers) {
        meet(r, false);
        if (!mine(r) && ((r.bytes & ~bytes) == 0 || Known(in, r))) {
            r.seq = 0;
        }
    }
    if (atomic) {
        remember(adders);
        return;
    }
    if (w.seq != 0 && (mine(w) || (w.core == now.core && w.pipe == now.pipe && !Known(in, w)))) {
        now.bytes |= w.bytes;   // neighbours written one by one by the same pipe
    } else if (w.seq != 0 && !Known(in, w)) {
        g.older = w;
    }
    w = now;
}
PTO_SHIM_FN uint32_t ByteMask(uint32_t from, uint32_t bytes)
{
    return static_cast<uint32_t>(((uint64_t{1} << bytes) - 1) << from);
}
PTO_SHIM_FN void TouchLocal(Instr &in, Mem mem, uint32_t addr, uint32_t bytes, bool write, const char *what)
{
    Memory &m = MemoryOf(in.core, mem);
    uint32_t end = addr + bytes;
    while (addr < end) {
        uint32_t in_granule = addr % kGranule, n = kGranule - in_granule;
        n = n < end - addr ? n : end - addr;
        TouchGranule(in, m.shadow[addr / kGranule], ByteMask(in_granule, n), write, what, mem, addr - in_granule);
        addr += n;
    }
}
PTO_SHIM_FN void ResetCore(Core &core)
{
    uint8_t poison = TheMachine().poison;
    for (Memory &m : core.memory) {
        if (m.store.empty()) {
            continue;
        }
        uint32_t high = m.high;
        if (&m == &core.memory[0]) {
            std::memset(m.data + kUbReserved, poison, kMemBytes[0] - kUbReserved);
        }
        std::memset(m.data, poison, high);
        std::memset(m.ready.data(), 0, high);
        std::fill(m.shadow.begin(), m.shadow.begin() + (high + kGranule - 1) / kGranule, Granule());
        m.used = m.high = 0;
    }
    for (int p = 0; p < kPipes; ++p) {
        core.known[p] = Clock();
        core.issued[p] = 0;
    }
    core.issue = Clock();
    core.buffers.clear();
    core.queues.clear();
    core.events.clear();
    core.dirty.clear();
    core.pipes_made = 0;
    core.pipe_alive = -1;
    core.atomic = 0;
    core.counter_mode = core.mask_set = core.deq_scale = core.hf32 = false;
    core.started = core.done = false;
    core.wait = Wait::kNothing;
    core.released = false;
}

// ---- tensors ----------------------------------------------------------------------------------------------------

PTO_SHIM_FN View SubView(const Call &call, const View &v, uint64_t elements)
{
    if (v.mem == Mem::kNone) {
        Fail(call, "a LocalTensor that was never given a buffer");
    }
    uint64_t bytes = elements * SizeOf(v.type);
    if (elements > 0xFFFFFFFFu || v.addr + bytes > v.end) {
        Fail(call, "offset = %lld, the tensor has %u elements of %s", static_cast<long long>(elements),
             (v.end - v.addr) / SizeOf(v.type), NameOf(v.type));
    }
    View out = v;
    out.addr = static_cast<uint32_t>(v.addr + bytes);
    return out;
}
PTO_SHIM_FN GmView SubView(const Call &call, const GmView &v, uint64_t elements)
{
    if (!v.set) {
        Fail(call, "SetGlobalBuffer was not called");
    }
    GmView out = v;
    out.addr = v.addr + elements * SizeOf(v.type);
    return out;
}
PTO_SHIM_FN void GmSetBuffer(const Call &call, GmView &v, const void *addr, uint64_t bytes)
{
    Here(call);
    v.addr = v.base = reinterpret_cast<uintptr_t>(addr);
    if (v.addr % SizeOf(v.type) != 0) {
        Fail(call, "the address is not a multiple of the element, %u bytes", SizeOf(v.type));
    }
    v.end = bytes == ~uint64_t{0} ? bytes : v.base + bytes;
    v.set = true;
}
PTO_SHIM_FN GmBlock *LookUpGm(uint64_t addr)
{
    Machine &m = TheMachine();
    auto it = m.gm.upper_bound(addr);
    if (it == m.gm.begin()) {
        return nullptr;
    }
    GmBlock &b = std::prev(it)->second;
    return addr < b.base + b.bytes ? &b : nullptr;
}
PTO_SHIM_FN GmBlock &FindGm(const Call &call, const GmView &v, const char *what, int64_t from, int64_t bytes)
{
    if (!v.set) {
        Fail(call, "%s: SetGlobalBuffer was not called", what);
    }
    uint64_t first = v.addr + static_cast<uint64_t>(from), last = first + static_cast<uint64_t>(bytes);
    if (first < v.base || last > v.end || last < first) {
        Fail(call, "%s: bytes %lld..%lld from the start of the GlobalTensor are reached, SetGlobalBuffer allows %lld", what,
             static_cast<long long>(first - v.base), static_cast<long long>(last - v.base),
             static_cast<long long>(v.end - v.base));
    }
    GmBlock *b = LookUpGm(first);
    if (b == nullptr || last > b->base + b->bytes) {
        const char *name = "";
        Machine &m = TheMachine();
        for (auto &entry : m.gm) {   // within a guard zone of somebody?
            GmBlock &near = entry.second;
            if (last + kGuard >= near.base && first < near.base + near.bytes + kGuard) {
                name = near.name.c_str();
                Fail(call, "%s: bytes %lld..%lld of GM allocation %s are reached, which has %llu bytes", what,
                     static_cast<long long>(first - near.base), static_cast<long long>(last - near.base), name,
                     static_cast<unsigned long long>(near.bytes));
            }
        }
        Fail(call, "%s: GM address %#llx is in no allocation", what, static_cast<unsigned long long>(first));
    }
    return *b;
}
PTO_SHIM_FN void TouchGm(Instr &in, GmBlock &block, uint64_t addr, uint64_t bytes, bool write, const char *what, bool atomic)
{
    if (block.shadow.empty()) {
        block.shadow.resize(block.bytes / (64 * kGranule) + 2);
    }
    uint64_t at = addr - (block.base & ~uint64_t{kGranule - 1}), end = at + bytes, skew = block.base % kGranule;
    if (write) {
        for (auto it = block.lines.lower_bound(addr / 64); it != block.lines.end() && it->first * 64 < addr + bytes; ++it) {
            if (it->second != in.core.number) {
                Fail(in.call, "%s: GM line at byte %llu of %s was written by SetValue of another core", what,
                     static_cast<unsigned long long>(it->first * 64 - block.base), block.name.c_str());
            }
        }
    } else if (!in.core.dirty.empty()) {
        auto it = in.core.dirty.lower_bound(addr / 64);
        if (in.pipe != PIPE_S && it != in.core.dirty.end() && it->first * 64 < addr + bytes) {
            Fail(in.call, "%s: reads GM that SetValue at %s:%d left in the scalar cache; DataCacheCleanAndInvalid first", what,
                 it->second.file, it->second.line);
        }
    }
    while (at < end) {
        auto &page = block.shadow[at / (64 * kGranule)];
        if (!page) {
            page = std::make_unique<std::array<GmGranule, 64>>();
        }
        uint32_t within = static_cast<uint32_t>(at % kGranule);
        uint64_t left = end - at;
        uint32_t n = kGranule - within;
        n = n < left ? n : static_cast<uint32_t>(left);
        GmGranule &g = (*page)[at / kGranule % 64];
        TouchGranule(in, g, ByteMask(within, n), write, what, Mem::kNone, at - within - skew, g.adders, atomic);
        at += n;
    }
}
PTO_SHIM_FN void ScalarRead(const Call &call, const View &v, uint64_t index, void *out)
{
    Core &core = Here(call);
    CheckView(call, v, "the tensor");
    if (v.mem != Mem::kUb) {
        Fail(call, "the scalar unit reads UB only, this tensor lies in %s", kMemName[static_cast<int>(v.mem)]);
    }
    uint32_t size = SizeOf(v.type);
    CheckSpan(call, v, "index", static_cast<int64_t>(index) * size, size);
    uint32_t addr = v.addr + static_cast<uint32_t>(index) * size;
    Instr in = Issue(call, core, PIPE_S);
    TouchLocal(in, v.mem, addr, size, false, "the element");
    Memory &m = MemoryOf(core, v.mem);
    for (uint32_t i = 0; i < size; ++i) {
        if (!m.ready[addr + i]) {
            Fail(call, "element %llu was never written", static_cast<unsigned long long>(index));
        }
    }
    std::memcpy(out, m.data + addr, size);
}
PTO_SHIM_FN void ScalarWrite(const Call &call, const View &v, uint64_t index, const void *value)
{
    Core &core = Here(call);
    CheckView(call, v, "the tensor");
    if (v.mem != Mem::kUb) {
        Fail(call, "the scalar unit writes UB only, this tensor lies in %s", kMemName[static_cast<int>(v.mem)]);
    }
    uint32_t size = SizeOf(v.type);
    CheckSpan(call, v, "index", static_cast<int64_t>(index) * size, size);
    uint32_t addr = v.addr + static_cast<uint32_t>(index) * size;
    Instr in = Issue(call, core, PIPE_S);
    TouchLocal(in, v.mem, addr, size, true, "the element");
    Memory &m = MemoryOf(core, v.mem);
    std::memset(m.ready.data() + addr, 1, size);
    std::memcpy(m.data + addr, value, size);
}
PTO_SHIM_FN void ScalarRead(const Call &call, const GmView &v, uint64_t index, void *out)
{
    Core &core = Here(call);
    uint32_t size = SizeOf(v.type);
    GmBlock &b = FindGm(call, v, "index", static_cast<int64_t>(index * size), size);
    uint64_t addr = v.addr + index * size;
    Instr in = Issue(call, core, PIPE_S);
    TouchGm(in, b, addr, size, false, "the element");
    for (uint64_t i = 0; i < size; ++i) {
        if (!b.ready[addr - b.base + i]) {
            Fail(call, "element %llu of %s was never written", static_cast<unsigned long long>(index), b.name.c_str());
        }
    }
    std::memcpy(out, reinterpret_cast<void *>(addr), size);
}
PTO_SHIM_FN void ScalarWrite(const Call &call, const GmView &v, uint64_t index, const void *value)
{
    Core &core = Here(call);
    uint32_t size = SizeOf(v.type);
    GmBlock &b = FindGm(call, v, "index", static_cast<int64_t>(index * size), size);
    uint64_t addr = v.addr + index * size;
    Instr in = Issue(call, core, PIPE_S);
    auto owner = b.lines.emplace(addr / 64, core.number);
    if (owner.first->second != core.number) {
        Fail(call, "the 64-byte line at byte %llu of %s is scalar-written by two cores",
             static_cast<unsigned long long>(addr / 64 * 64 - b.base), b.name.c_str());
    }
    TouchGm(in, b, addr, size, true, "the element");
    core.dirty.emplace(addr / 64, call.at);
    std::memset(b.ready.data() + (addr - b.base), 1, size);
    std::memcpy(reinterpret_cast<void *>(addr), value, size);
}
void WroteBack(const Call &call, Core &core);
void LookAt(const Call &call, Core &core, uint64_t line);
PTO_SHIM_FN void CleanCache(const Call &call, const GmView &v, bool whole)
{
    Core &core = Here(call);
    Issue(call, core, PIPE_S);
    bool wrote = whole ? !core.dirty.empty() : core.dirty.count(v.addr / 64) > 0;
    if (whole) {
        core.dirty.clear();
    } else {
        core.dirty.erase(v.addr / 64);
    }
    if (wrote) {
        WroteBack(call, core);
    } else if (!whole) {
        LookAt(call, core, v.addr / 64);
    }
}
PTO_SHIM_FN void *Physical(const Call &call, const View &v, uint64_t elements)
{
    View at = SubView(call, v, elements);
    return MemoryOf(Here(call), at.mem).data + at.addr;
}
PTO_SHIM_FN View StaticView(const Call &call, TPosition pos, uint64_t addr, uint64_t bytes, DT type)
{
    Core &core = Here(call);
    View v;
    v.mem = MemOf(pos);
    if (v.mem == Mem::kNone) {
        Fail(call, "position %d is no local memory", static_cast<int>(pos));
    }
    if (core.pipe_alive >= 0) {
        Fail(call, "tensors with a hand-made address cannot be mixed with a TPipe");
    }
    uint32_t limit = kUsable[static_cast<int>(v.mem)];
    if (addr + bytes > limit) {
        Fail(call, "bytes %llu..%llu of %s, which has %u usable", static_cast<unsigned long long>(addr),
             static_cast<unsigned long long>(addr + bytes), kMemName[static_cast<int>(v.mem)], limit);
    }
    Memory &m = MemoryOf(core, v.mem);
    m.high = m.high > addr + bytes ? m.high : static_cast<uint32_t>(addr + bytes);
    v.addr = static_cast<uint32_t>(addr);
    v.end = static_cast<uint32_t>(addr + bytes);
    v.type = type;
    v.pos = pos;
    return v;
}

// ---- TPipe, queues, events --------------------------------------------------------------------------------------

PTO_SHIM_FN int PipeOpen(const Call &call)
{
    Core &core = Here(call);
    if (core.pipe_alive >= 0) {
        Fail(call, "another TPipe is alive (made at %s:%d); a kernel has one", core.pipe_at.file, core.pipe_at.line);
    }
    core.pipe_at = call.at;
    return core.pipe_alive = core.pipes_made++;
}
PTO_SHIM_FN void BarrierAll(Core &core)
{
    Clock all = core.issue;
    for (int p = 0; p < kPipes; ++p) {
        all.Join(core.known[p]);
        all.own[p] = core.issued[p];
    }
    for (int p = 0; p < kPipes; ++p) {
        core.known[p] = all;
    }
    core.issue = all;
}
// Queues empty, tensors freed, flags waited for, events given back.
PTO_SHIM_FN void CheckLeft(Core &core, const char *when)
{
    for (const Buffer &b : core.buffers) {
        if (b.queue >= 0 && b.life == Life::kQueued) {
            Fail({"EnQue", b.last}, "the tensor is still in its queue %s: no DeQue took it", when);
        }
        if (b.queue >= 0 && b.life != Life::kFree) {
            Fail({b.life == Life::kAllocated ? "AllocTensor" : "DeQue", b.last}, "the tensor was not freed %s: FreeTensor is missing",
                 when);
        }
    }
    for (const auto &e : core.events) {
        if (e.second.set) {
            Fail({"SetFlag", e.second.at}, "event id %d of %s_%s is still set %s: WaitFlag is missing", e.first.second,
                 kPipeName[e.first.first / 8], kPipeName[e.first.first % 8], when);
        }
        if (e.second.allocated) {
            Fail({"AllocEventID", e.second.at}, "event id %d of %s_%s was not released %s", e.first.second,
                 kPipeName[e.first.first / 8], kPipeName[e.first.first % 8], when);
        }
    }
}
PTO_SHIM_FN void PipeEmpty(Core &core, const char *when)
{
    CheckLeft(core, when);
    BarrierAll(core);
    for (size_t i = 0; i < kMems; ++i) {
        Memory &m = core.memory[i];
        if (!m.store.empty()) {
            std::memset(m.data, TheMachine().poison, m.used);
            std::memset(m.ready.data(), 0, m.used);
            m.used = 0;
        }
    }
    core.buffers.clear();
    core.queues.clear();
    core.events.clear();
}
PTO_SHIM_FN void PipeReset(const Call &call, int pipe)
{
    Core &core = Here(call);
    if (pipe != core.pipe_alive) {
        Fail(call, "this TPipe is not alive");
    }
    PipeEmpty(core, "at TPipe::Reset");
}
PTO_SHIM_FN void PipeClose(int pipe)
{
    Core *core = TheMachine().core;
    if (core != nullptr && core->pipe_alive == pipe) {
        PipeEmpty(*core, "when its TPipe ends");
        core->pipe_alive = -1;
    }
}
PTO_SHIM_FN const char *PosName(TPosition pos)
{
    constexpr const char *names[] = {"GM", "A1", "A2", "B1", "B2", "C1", "C2", "CO1", "CO2", "VECIN", "VECOUT", "VECCALC",
                                     "C2PIPE2GM", "none"};
    return names[static_cast<int>(pos) < 13 ? static_cast<int>(pos) : 13];
}
PTO_SHIM_FN int Reserve(const Call &call, Core &core, TPosition pos, int64_t bytes, int queue)
{
    Mem mem = MemOf(pos);
    if (mem == Mem::kNone) {
        Fail(call, "position %s has no local memory on 2201", PosName(pos));
    }
    if ((mem == Mem::kUb) == core.cube) {
        Fail(call, "position %s (%s) does not exist on %s core", PosName(pos), kMemName[static_cast<int>(mem)],
             core.cube ? "a cube" : "a vector");
    }
    if (bytes <= 0) {
        Fail(call, "length = %lld bytes, at least 1 is needed", static_cast<long long>(bytes));
    }
    if (core.buffers.size() >= 64) {
        Fail(call, "the 65th buffer; a TPipe manages at most 64");
    }
    Memory &m = MemoryOf(core, mem);
    int64_t rounded = (bytes + 31) / 32 * 32;
    uint32_t limit = kUsable[static_cast<int>(mem)];
    if (m.used + rounded > limit) {
        Fail(call, "length = %lld bytes on top of %u in use: %s has %u usable bytes", static_cast<long long>(rounded), m.used,
             kMemName[static_cast<int>(mem)], limit);
    }
    Buffer b{};
    b.mem = mem;
    b.addr = m.used;
    b.bytes = static_cast<uint32_t>(rounded);
    b.gen = 1;
    b.queue = queue;
    b.life = queue < 0 ? Life::kAllocated : Life::kFree;
    b.pos = pos;
    b.made = b.last = call.at;
    m.used += b.bytes;
    m.high = m.high > m.used ? m.high : m.used;
    core.buffers.push_back(b);
    return static_cast<int>(core.buffers.size()) - 1;
}
PTO_SHIM_FN Core &PipeCore(const Call &call, int pipe)
{
    Core &core = Here(call);
    if (pipe != core.pipe_alive || pipe < 0) {
        Fail(call, "its TPipe is not alive");
    }
    return core;
}
PTO_SHIM_FN pipe_t PipeInto(TPosition src, TPosition dst)
{
    switch (src) {
        case TPosition::GM: return PIPE_MTE2;
        case TPosition::VECIN: return dst == TPosition::VECOUT ? PIPE_MTE2 : PIPE_V;
        case TPosition::VECOUT:
        case TPosition::VECCALC: return PIPE_V;
        case TPosition::A1:
        case TPosition::B1: return PIPE_MTE1;
        case TPosition::C1: return PIPE_MTE1;
        case TPosition::CO1: return PIPE_M;
        default: return PIPE_V;
    }
}
PTO_SHIM_FN pipe_t PipeOutOf(TPosition src, TPosition dst)
{
    switch (dst) {
        case TPosition::GM: return src == TPosition::CO1 ? PIPE_FIX : PIPE_MTE3;
        case TPosition::VECOUT: return PIPE_MTE3;
        case TPosition::A1:
        case TPosition::B1:
        case TPosition::C1: return PIPE_MTE1;
        case TPosition::A2:
        case TPosition::B2:
        case TPosition::C2: return PIPE_M;
        case TPosition::C2PIPE2GM: return PIPE_FIX;
        default: return PIPE_V;
    }
}
// Event ids that the queues' buffers need in a direction: one per buffer, for either way.
PTO_SHIM_FN int QueueIds(const Core &core, int from, int to)
{
    int ids = 0;
    for (const Queue &q : core.queues) {
        ids += q.producer != q.consumer && ((q.producer == from && q.consumer == to) || (q.producer == to && q.consumer == from))
                   ? q.count : 0;
    }
    return ids;
}
PTO_SHIM_FN void InitQueue(const Call &call, int pipe, QueueState &q, int64_t num, int64_t bytes)
{
    Core &core = PipeCore(call, pipe);
    CheckRange(call, "num", num, 1, 255);
    if (q.id >= 0 && q.pipe == pipe) {
        Fail(call, "this queue has its buffers already");
    }
    TPosition pos = q.dst == TPosition::GM ? q.src : q.src == TPosition::VECIN ? TPosition::VECIN : q.dst;
    Queue made{};
    made.src = q.src;
    made.dst = q.dst;
    made.depth = q.depth;
    made.first = static_cast<int>(core.buffers.size());
    made.count = static_cast<int>(num);
    made.producer = PipeInto(q.src, q.dst);
    made.consumer = PipeOutOf(q.src, q.dst);
    made.made = call.at;
    int64_t ids = num + QueueIds(core, made.producer, made.consumer);
    if (ids > 8 && made.producer != made.consumer) {
        Fail(call, "num = %lld makes %lld queue buffers between %s and %s (position %s); there are 8 event ids",
             static_cast<long long>(num), static_cast<long long>(ids), kPipeName[made.producer], kPipeName[made.consumer],
             PosName(pos));
    }
    core.queues.push_back(made);
    q.pipe = pipe;
    q.id = static_cast<int>(core.queues.size()) - 1;
    for (int64_t i = 0; i < num; ++i) {
        Reserve(call, core, pos, bytes, q.id);
    }
}
PTO_SHIM_FN View ViewOf(const Core &core, int buffer, DT type)
{
    const Buffer &b = core.buffers[static_cast<size_t>(buffer)];
    View v;
    v.addr = b.addr;
    v.end = b.addr + b.bytes;
    v.gen = b.gen;
    v.buf = static_cast<int16_t>(buffer);
    v.mem = b.mem;
    v.type = type;
    v.pos = b.pos;
    return v;
}
PTO_SHIM_FN View InitBuf(const Call &call, int pipe, TPosition pos, int64_t bytes)
{
    Core &core = PipeCore(call, pipe);
    return ViewOf(core, Reserve(call, core, pos, bytes, -1), DT::kU8);
}
PTO_SHIM_FN Queue &QueueOf(const Call &call, Core &core, const QueueState &q)
{
    if (q.id < 0 || q.pipe != core.pipe_alive || static_cast<size_t>(q.id) >= core.queues.size()) {
        Fail(call, "the queue has no buffers: InitBuffer was not called for it");
    }
    return core.queues[static_cast<size_t>(q.id)];
}
PTO_SHIM_FN View QueueAlloc(const Call &call, const QueueState &state, DT type)
{
    Core &core = Here(call);
    Queue &q = QueueOf(call, core, state);
    for (int i = 0; i < q.count; ++i) {
        int at = q.first + (q.next + i) % q.count;
        Buffer &b = core.buffers[static_cast<size_t>(at)];
        if (b.life != Life::kFree) {
            continue;
        }
        q.next = (q.next + i + 1) % q.count;
        ++b.gen;
        b.life = Life::kAllocated;
        b.last = call.at;
        core.known[q.producer].Join(b.freed);
        Memory &m = MemoryOf(core, b.mem);
        std::memset(m.data + b.addr, TheMachine().poison, b.bytes);
        std::memset(m.ready.data() + b.addr, 0, b.bytes);
        return ViewOf(core, at, type);
    }
    const Buffer &b = core.buffers[static_cast<size_t>(q.first)];
    Fail(call, "all %d buffers of the queue are in use (the first is %s since %s:%d)", q.count,
         kLifeName[static_cast<int>(b.life)], b.last.file, b.last.line);
}
PTO_SHIM_FN Buffer &OwnBuffer(const Call &call, Core &core, const QueueState &q, const View &v)
{
    if (v.buf < 0 || static_cast<size_t>(v.buf) >= core.buffers.size() ||
        core.buffers[static_cast<size_t>(v.buf)].queue != q.id) {
        Fail(call, "the tensor does not belong to this queue");
    }
    Buffer &b = core.buffers[static_cast<size_t>(v.buf)];
    if (b.gen != v.gen) {
        Fail(call, "the tensor was freed already (at %s:%d)", b.last.file, b.last.line);
    }
    return b;
}
PTO_SHIM_FN Clock After(const Core &core, int pipe)
{
    Clock c = core.known[pipe];
    c.Join(core.issue);
    c.own[pipe] = core.issued[pipe];
    return c;
}
PTO_SHIM_FN void QueueEnQue(const Call &call, const QueueState &state, const View &v)
{
    Core &core = Here(call);
    Queue &q = QueueOf(call, core, state);
    Buffer &b = OwnBuffer(call, core, state, v);
    if (b.life != Life::kAllocated) {
        Fail(call, "the tensor is %s since %s:%d; only an allocated one goes into a queue", kLifeName[static_cast<int>(b.life)],
             b.last.file, b.last.line);
    }
    int depth = q.depth == 0 ? 1 : q.depth;
    if (static_cast<int>(q.waiting.size()) >= depth) {
        Fail(call, "the queue is full: depth = %d EnQue before a DeQue", depth);
    }
    b.life = Life::kQueued;
    b.last = call.at;
    b.filled = After(core, q.producer);
    q.waiting.push_back(v.buf);
}
PTO_SHIM_FN View QueueDeQue(const Call &call, const QueueState &state, DT type)
{
    Core &core = Here(call);
    Queue &q = QueueOf(call, core, state);
    if (q.waiting.empty()) {
        Fail(call, "the queue is empty");
    }
    int at = q.waiting.front();
    q.waiting.pop_front();
    Buffer &b = core.buffers[static_cast<size_t>(at)];
    b.life = Life::kDequeued;
    b.last = call.at;
    if (q.producer != q.consumer) {
        core.known[q.consumer].Join(b.filled);
    }
    return ViewOf(core, at, type);
}
PTO_SHIM_FN void QueueFree(const Call &call, const QueueState &state, const View &v)
{
    Core &core = Here(call);
    Queue &q = QueueOf(call, core, state);
    Buffer &b = OwnBuffer(call, core, state, v);
    if (b.life == Life::kFree) {
        Fail(call, "the tensor was freed already (at %s:%d)", b.last.file, b.last.line);
    }
    if (b.life == Life::kQueued) {
        Fail(call, "the tensor is still in its queue (since %s:%d)", b.last.file, b.last.line);
    }
    if (b.life == Life::kAllocated && q.producer != q.consumer) {
        Fail(call, "the tensor was allocated at %s:%d and never went through its queue (EnQue, DeQue)", b.last.file, b.last.line);
    }
    b.life = Life::kFree;
    b.last = call.at;
    if (q.producer != q.consumer) {
        b.freed = After(core, q.consumer);
    }
}
PTO_SHIM_FN int QueueHas(const QueueState &state, bool ready)
{
    Core &core = Here({"TQue", {}});
    Queue &q = QueueOf({"TQue", {}}, core, state);
    if (ready) {
        return static_cast<int>(q.waiting.size());
    }
    int n = 0;
    for (int i = q.first; i < q.first + q.count; ++i) {
        n += core.buffers[static_cast<size_t>(i)].life == Life::kFree;
    }
    return n;
}
PTO_SHIM_FN View BufGet(const Call &call, const View &whole, uint64_t bytes, uint64_t offset, DT type)
{
    if (whole.mem == Mem::kNone) {
        Fail(call, "the TBuf has no buffer: InitBuffer was not called for it");
    }
    CheckView(call, whole, "the TBuf");
    uint64_t size = whole.end - whole.addr;
    if (offset % 32 != 0) {
        Fail(call, "bufOffset = %llu is not a multiple of 32 bytes", static_cast<unsigned long long>(offset));
    }
    if (offset + bytes > size) {
        Fail(call, "bytes %llu..%llu, the buffer has %llu", static_cast<unsigned long long>(offset),
             static_cast<unsigned long long>(offset + bytes), static_cast<unsigned long long>(size));
    }
    View v = whole;
    v.addr += static_cast<uint32_t>(offset);
    v.end = v.addr + static_cast<uint32_t>(bytes);
    v.type = type;
    return v;
}
PTO_SHIM_FN int EventTake(const Call &call, int pipe, int event, bool keep)
{
    Core &core = PipeCore(call, pipe);
    int queued = QueueIds(core, event / 8, event % 8), taken = queued;
    for (int id = 0; id < 8; ++id) {
        auto it = core.events.find({event, id});
        taken += it != core.events.end() && (it->second.allocated || it->second.set) ? 1 : 0;
    }
    if (taken >= 8 && queued > 0) {
        Fail(call, "all 8 event ids of %s_%s are taken, %d of them by the buffers of queues", kPipeName[event / 8],
             kPipeName[event % 8], queued);
    }
    for (int id = 0; id < 8; ++id) {
        Event &e = core.events[{event, id}];
        if (!e.allocated && !e.set) {
            (keep ? e.allocated : e.fetched) = true;
            e.at = call.at;
            return id;
        }
    }
    Fail(call, "all 8 event ids of %s_%s are taken", kPipeName[event / 8], kPipeName[event % 8]);
}
PTO_SHIM_FN void EventGive(const Call &call, int pipe, int event, int64_t id)
{
    Core &core = PipeCore(call, pipe);
    CheckRange(call, "id", id, 0, 7);
    Event &e = core.events[{event, static_cast<int>(id)}];
    if (!e.allocated) {
        Fail(call, "event id %lld of %s_%s is not allocated", static_cast<long long>(id), kPipeName[event / 8],
             kPipeName[event % 8]);
    }
    if (e.set) {
        Fail(call, "event id %lld of %s_%s is still set (at %s:%d)", static_cast<long long>(id), kPipeName[event / 8],
             kPipeName[event % 8], e.at.file, e.at.line);
    }
    e.allocated = false;
}
PTO_SHIM_FN void CheckEvent(const Call &call, Core &core, int event, int64_t id)
{
    CheckRange(call, "eventID", id, 0, 7);
    constexpr int vector_pipes = 1 << PIPE_S | 1 << PIPE_V | 1 << PIPE_MTE2 | 1 << PIPE_MTE3;
    constexpr int cube_pipes = 1 << PIPE_S | 1 << PIPE_M | 1 << PIPE_MTE1 | 1 << PIPE_MTE2 | 1 << PIPE_FIX | 1 << PIPE_MTE3;
    int both = 1 << (event / 8) | 1 << (event % 8), have = core.cube ? cube_pipes : vector_pipes;
    if ((both & ~have) != 0) {
        Fail(call, "HardEvent::%s_%s names a pipe that %s core does not have", kPipeName[event / 8], kPipeName[event % 8],
             core.cube ? "a cube" : "a vector");
    }
    if (core.pipe_alive >= 0) {
        const Event &e = core.events[{event, static_cast<int>(id)}];
        if (!e.allocated && !e.fetched) {
            Fail(call, "event id %lld of %s_%s was not taken from the TPipe (AllocEventID, FetchEventID)",
                 static_cast<long long>(id), kPipeName[event / 8], kPipeName[event % 8]);
        }
    } else if (id > 5) {
        Fail(call, "eventID = %lld; without a TPipe ids 0..5 may be used", static_cast<long long>(id));
    }
}
PTO_SHIM_FN void FlagSet(const Call &call, int event, int64_t id)
{
    Core &core = Here(call);
    CheckEvent(call, core, event, id);
    Event &e = core.events[{event, static_cast<int>(id)}];
    if (e.set) {
        Fail(call, "event id %lld of %s_%s is set a second time (first at %s:%d) without a WaitFlag between",
             static_cast<long long>(id), kPipeName[event / 8], kPipeName[event % 8], e.at.file, e.at.line);
    }
    e.set = true;
    e.at = call.at;
    e.clock = After(core, event / 8);
}
PTO_SHIM_FN void FlagWait(const Call &call, int event, int64_t id)
{
    Core &core = Here(call);
    CheckEvent(call, core, event, id);
    Event &e = core.events[{event, static_cast<int>(id)}];
    if (!e.set) {
        Fail(call, "event id %lld of %s_%s was not set: the core waits for ever", static_cast<long long>(id),
             kPipeName[event / 8], kPipeName[event % 8]);
    }
    e.set = false;
    int pipe = event % 8;
    core.known[pipe].Join(e.clock);
    if (pipe == PIPE_S) {   // the scalar unit stood still: whatever it issues from now on comes after
        Clock c = e.clock;
        c.own[PIPE_S] = 0;
        core.issue.Join(c);
    }
}
PTO_SHIM_FN void Barrier(const Call &call, int pipe)
{
    Core &core = Here(call);
    if (pipe == PIPE_ALL) {
        BarrierAll(core);
        return;
    }
    constexpr int vector_pipes = 1 << PIPE_V | 1 << PIPE_MTE2 | 1 << PIPE_MTE3;
    constexpr int cube_pipes = 1 << PIPE_M | 1 << PIPE_MTE1 | 1 << PIPE_MTE2 | 1 << PIPE_FIX | 1 << PIPE_MTE3;
    if ((1 << pipe & (core.cube ? cube_pipes : vector_pipes)) == 0) {
        Fail(call, "PIPE_%s does not exist on %s core", kPipeName[pipe], core.cube ? "a cube" : "a vector");
    }
    core.known[pipe].own[pipe] = core.issued[pipe];
}
PTO_SHIM_FN void SetAtomic(const Call &call, int kind, DT type)
{
    Core &core = Here(call);
    core.atomic = kind;
    core.atomic_type = type;
    core.atomic_at = call.at;
}
PTO_SHIM_FN int64_t Cycle() { return TheMachine().cycle; }

}   // namespace pto_shim
