// A launch: cores are coroutines that run one after another and switch only where they wait for each other.
#pragma once
#include "launch.h"
#include "machine_impl.h"

namespace pto_shim {

PTO_SHIM_FN Entry *&Entries()
{
    static Entry *first = nullptr;
    return first;
}

// ---- GM ---------------------------------------------------------------------------------------------------------

PTO_SHIM_FN void GmAdopt(void *addr, uint64_t bytes, const char *name, bool ready)
{
    GmBlock b;
    b.base = reinterpret_cast<uintptr_t>(addr);
    b.bytes = bytes;
    b.name = name;
    b.ready.assign(bytes, ready ? 1 : 0);
    TheMachine().gm[b.base] = std::move(b);
}
PTO_SHIM_FN void *GmAllocate(uint64_t bytes, const char *name)
{
    uint64_t whole = bytes + 2 * kGuard + 512;
    auto *raw = static_cast<uint8_t *>(std::malloc(whole));
    if (raw == nullptr) {
        return nullptr;
    }
    std::memset(raw, TheMachine().poison, whole);
    uint8_t *start = reinterpret_cast<uint8_t *>((reinterpret_cast<uintptr_t>(raw) + kGuard + 511) & ~uintptr_t{511});
    GmAdopt(start, bytes, name, false);
    TheMachine().gm[reinterpret_cast<uintptr_t>(start)].owned = raw;
    return start;
}
PTO_SHIM_FN void GmSetReady(const void *addr, uint64_t bytes)
{
    uint64_t at = reinterpret_cast<uintptr_t>(addr);
    GmBlock *b = LookUpGm(at);
    if (b != nullptr) {
        uint64_t n = b->base + b->bytes - at;
        std::memset(b->ready.data() + (at - b->base), 1, n < bytes ? n : bytes);
    }
}
// After device code: guard zones are whole, and what was written through plain pointers counts as written.
PTO_SHIM_FN void CheckGuards(const Call &call)
{
    uint8_t poison = TheMachine().poison;
    for (auto &entry : TheMachine().gm) {
        GmBlock &b = entry.second;
        if (b.owned == nullptr) {
            continue;
        }
        const auto *raw = static_cast<const uint8_t *>(b.owned);
        auto *data = reinterpret_cast<uint8_t *>(b.base);
        const uint8_t *end = raw + b.bytes + 2 * kGuard + 512;
        for (const uint8_t *p = raw; p < end; ++p) {
            if (p == data) {
                p += b.bytes;
            }
            if (p < end && *p != poison) {
                Fail(call, "wrote to byte %lld of GM allocation %s, which has %llu bytes",
                     static_cast<long long>(p - data), b.name.c_str(), static_cast<unsigned long long>(b.bytes));
            }
        }
        for (uint64_t i = 0; i < b.bytes; ++i) {
            if (b.ready[i] == 0 && data[i] != poison) {
                uint64_t first = i / kGranule * kGranule, last = first + kGranule < b.bytes ? first + kGranule : b.bytes;
                std::memset(b.ready.data() + first, 1, last - first);
                i = last - 1;
            }
        }
    }
}
PTO_SHIM_FN bool GmRelease(void *addr)
{
    auto it = TheMachine().gm.find(reinterpret_cast<uintptr_t>(addr));
    if (it == TheMachine().gm.end()) {
        return false;
    }
    std::free(it->second.owned);
    TheMachine().gm.erase(it);
    return true;
}
PTO_SHIM_FN bool GmContains(const void *addr, uint64_t bytes)
{
    uint64_t at = reinterpret_cast<uintptr_t>(addr);
    GmBlock *b = LookUpGm(at);
    return b != nullptr && at + bytes <= b->base + b->bytes;
}

// ---- core identity ----------------------------------------------------------------------------------------------

PTO_SHIM_FN int CubesOf(int type)
{
    return type == KERNEL_TYPE_AIC_ONLY || type >= KERNEL_TYPE_MIX_AIC_1_0 ? 1 : 0;
}
PTO_SHIM_FN int VectorsOf(int type)
{
    switch (type) {
        case KERNEL_TYPE_AIV_ONLY:
        case KERNEL_TYPE_MIX_AIV_1_0:
        case KERNEL_TYPE_MIX_AIC_1_1: return 1;
        case KERNEL_TYPE_MIX_AIC_1_2: return 2;
        default: return 0;
    }
}
PTO_SHIM_FN void Identify(Run &l, Core &core, int number)
{
    int cubes = CubesOf(l.type), per_group = cubes + VectorsOf(l.type), at = number % per_group;
    core.number = number;
    core.group = number / per_group;
    core.cube = at < cubes;
    core.sub = core.cube ? 0 : at - cubes;
}
PTO_SHIM_FN void SetKernelType(const Call &call, int type)
{
    Machine &m = TheMachine();
    if (m.core == nullptr) {
        Fail(call, "called outside a kernel");
    }
    Run &l = *m.launch;
    if (m.core->started) {
        Fail(call, "the kernel type is set a second time");
    }
    m.core->started = true;
    CheckRange(call, "value", type, KERNEL_TYPE_AIV_ONLY, KERNEL_TYPE_MIX_AIC_1_2);
    if (l.type < 0) {
        l.type = type;
        Identify(l, *m.core, 0);
    } else if (l.type != type) {
        Fail(call, "the kernel type differs between cores");
    }
}
PTO_SHIM_FN Core &StartedCore(const Call &call)
{
    Core &core = Here(call);
    if (!core.started) {
        Fail(call, "KERNEL_TASK_TYPE_DEFAULT must be the first statement of the entry");
    }
    return core;
}
PTO_SHIM_FN bool IsCube(const Call &call) { return StartedCore(call).cube; }
PTO_SHIM_FN CoreId WhoAmI(const Call &call)
{
    Core &core = StartedCore(call);
    Run &l = *TheMachine().launch;
    int vectors = VectorsOf(l.type), subs = core.cube ? 1 : vectors;
    return {int64_t{core.group} * subs + core.sub, l.blocks, core.sub, subs, vectors > 0 ? vectors : 1};
}

// ---- coroutines -------------------------------------------------------------------------------------------------

constexpr size_t kStackBytes = 512 * 1024;

PTO_SHIM_FN void CheckEnd(Core &core)
{
    if (core.pipe_alive >= 0) {
        Fail({"TPipe", core.pipe_at}, "still alive at the end of the kernel");
    }
    CheckLeft(core, "at the end of the kernel");
    if (core.atomic != 0) {
        Fail({"SetAtomic", core.atomic_at}, "atomic mode is still on at the end of the kernel: SetAtomicNone is missing");
    }
    if (core.counter_mode || core.mask_set) {
        Fail({"SetVectorMask", core.mask_at}, "the vector mask is not back to normal at the end of the kernel (SetMaskNorm, ResetMask)");
    }
    if (core.hf32) {
        Fail({"SetHF32Mode", core.hf32_at}, "HF32 mode is still on at the end of the kernel");
    }
    if (!core.dirty.empty()) {
        Fail({"GlobalTensor::SetValue", core.dirty.begin()->second},
             "the written line sits in the scalar cache at the end of the kernel: DataCacheCleanAndInvalid is missing");
    }
}
PTO_SHIM_FN void CoreMain()
{
    Machine &m = TheMachine();
    m.launch->body(m.launch->context);
    Core &core = *m.core;
    if (core.started) {
        CheckEnd(core);
    }
    core.done = true;
    swapcontext(&core.context, &m.launch->main);
}
PTO_SHIM_FN void Resume(Run &l, Core &core)
{
    TheMachine().core = &core;
    swapcontext(&l.main, &core.context);
    TheMachine().core = nullptr;
}
PTO_SHIM_FN void Yield(Core &core) { swapcontext(&core.context, &TheMachine().launch->main); }

PTO_SHIM_FN Core *StartCore(Run &l, int number)
{
    std::unique_ptr<Core> core;
    if (l.spare.empty()) {
        core = std::make_unique<Core>();
        core->stack = std::make_unique<uint8_t[]>(kStackBytes);
    } else {
        core = std::move(l.spare.back());
        l.spare.pop_back();
        ResetCore(*core);
    }
    core->number = number;
    if (l.type >= 0) {
        Identify(l, *core, number);
    }
    getcontext(&core->context);
    core->context.uc_stack.ss_sp = core->stack.get();
    core->context.uc_stack.ss_size = kStackBytes;
    core->context.uc_link = nullptr;
    makecontext(&core->context, CoreMain, 0);
    Core *raw = core.get();
    l.cores.push_back(std::move(core));
    Resume(l, *raw);
    return raw;
}
PTO_SHIM_FN bool Ready(const Run &l, const Core &core)
{
    if (core.wait == Wait::kFlag) {
        return !l.flags[static_cast<size_t>(core.number)][static_cast<size_t>(core.wait_flag)].arrived.empty();
    }
    return core.wait == Wait::kLook || (core.wait == Wait::kAll && core.released);
}
PTO_SHIM_FN void FinishRound(Run &l);
PTO_SHIM_FN Clock Abroad(const Core &core, const Clock &c);
PTO_SHIM_FN void TakeOver(Core &core, const Clock &c);
PTO_SHIM_FN void NeedResidence(const Call &call, Run &l);
PTO_SHIM_FN void Deadlock(Run &l)
{
    const Core *stuck = nullptr;
    std::string all;
    int named = 0;
    for (auto &c : l.cores) {
        if (c->done) {
            continue;
        }
        stuck = stuck != nullptr ? stuck : c.get();
        if (++named <= 4) {
            all += std::string(all.empty() ? "" : "; ") + (c->cube ? "AIC " : "AIV ") + std::to_string(c->sub) + " of group " +
                   std::to_string(c->group) + " at " + c->wait_call.at.file + ":" + std::to_string(c->wait_call.at.line) + " in " +
                   c->wait_call.name + (c->wait == Wait::kFlag ? " for flag " + std::to_string(c->wait_flag) : "");
        }
    }
    if (stuck->wait == Wait::kAll) {
        Fail(stuck->wait_call, "deadlock: not every core arrives. %d cores wait: %s", named, all.c_str());
    }
    Fail(stuck->wait_call, "deadlock: %d cores wait for flags that nobody sets: %s", named, all.c_str());
}
// Every core that can go on does; false when all are done.
PTO_SHIM_FN bool GoRound(Run &l)
{
    FinishRound(l);
    bool left = false, moved = false;
    for (auto &c : l.cores) {
        if (!c->done && Ready(l, *c)) {
            c->wait = Wait::kNothing;
            Resume(l, *c);
            moved = true;
        }
        left = left || !c->done;
    }
    if (left && !moved) {
        FinishRound(l);
        bool ready = false;
        for (auto &c : l.cores) {
            ready = ready || (!c->done && Ready(l, *c));
        }
        if (!ready) {
            Deadlock(l);
        }
    }
    return left;
}
// Goes on until all cores are done (true), or all that do not wait for one another look at GM in vain.
PTO_SHIM_FN bool GoOn(Run &l)
{
    constexpr int kPatience = 16;                  // rounds
    uint64_t before = l.done_something;
    for (int idle = 0; idle < kPatience; ++idle) {
        if (!GoRound(l)) {
            return true;
        }
        if (l.done_something != before) {
            before = l.done_something;
            idle = 0;
        }
        bool looks = false;
        for (auto &c : l.cores) {
            looks = looks || (!c->done && c->wait == Wait::kLook);
        }
        idle = looks ? idle : 0;
    }
    return false;
}
PTO_SHIM_FN void EndLaunch(Run &l)
{
    for (size_t number = 0; number < l.flags.size(); ++number) {
        for (int f = 0; f < 16; ++f) {
            const CrossFlag &flag = l.flags[number][static_cast<size_t>(f)];
            size_t count = flag.arrived.size() + flag.sent[0].size() + flag.sent[1].size() + flag.sent[2].size();
            if (count > 0) {
                Core who;
                Identify(l, who, static_cast<int>(number));
                Fail({"CrossCoreSetFlag", l.flag_at[f]}, "flag %d of %s %d of group %d ends at %zu; every counter must return to zero",
                     f, who.cube ? "AIC" : "AIV", who.sub, who.group, count);
            }
        }
    }
    l.drop(l.context);
    TheMachine().launch = nullptr;
    TheMachine().core = nullptr;
    CheckGuards(l.call);
}
PTO_SHIM_FN void RunLaunch(const Call &call, void (*body)(void *), void *context, int64_t blocks, void (*drop)(void *))
{
    Machine &m = TheMachine();
    if (m.launch != nullptr) {
        Fail(call, "a launch inside a kernel");
    }
    if (m.parked != nullptr) {
        Fail(call, "a kernel that waits for the control CPU is still on the cores");
    }
    CheckRange(call, "number of blocks", blocks, 1, 65535);
    for (auto &g : m.gm) {
        g.second.shadow.clear();
        g.second.lines.clear();
    }
    m.told = m.heard = Clock();
    auto run = std::make_unique<Run>();
    Run &l = *run;
    l.body = body;
    l.context = context;
    l.drop = drop;
    l.call = call;
    l.blocks = blocks;
    m.launch = &l;
    int64_t total = 1;
    for (int64_t number = 0; number < total; ++number) {
        Core *core = StartCore(l, static_cast<int>(number));
        if (number == 0 && l.type < 0) {
            Fail(call, "the kernel ended without KERNEL_TASK_TYPE_DEFAULT");
        }
        if (number == 0) {
            total = blocks * (CubesOf(l.type) + VectorsOf(l.type));
        }
        if (core->done && !l.crossed) {
            l.spare.push_back(std::move(l.cores.back()));
            l.cores.pop_back();
        }
    }
    if (GoOn(l)) {
        EndLaunch(l);
    } else {
        m.parked = std::move(run);
        m.launch = nullptr;
    }
}

// ---- the control CPU beside the cores -----------------------------------------------------------------------------

PTO_SHIM_FN void Pause(const Call &call, Core &core)
{
    core.wait = Wait::kLook;
    core.wait_call = call;
    Yield(core);
}
// Some time passes for this core, more or less of it, so that others may overtake it.
PTO_SHIM_FN void PauseOften(const Call &call, Core &core)
{
    constexpr uint32_t kMost = 64;                 // rounds
    core.looks = core.looks * 1664525u + 1013904223u + static_cast<uint32_t>(core.number) + TheMachine().poison;
    for (uint32_t rounds = (core.looks >> 16) % kMost; rounds > 0; --rounds) {
        ++TheMachine().launch->done_something;
        Pause(call, core);
    }
}
// A core looks at a line of GM that it has not written: the others go on until it looks again. When the line has
// changed, what the control CPU knew when it wrote is known here, too.
PTO_SHIM_FN void LookAt(const Call &call, Core &core, uint64_t line)
{
    NeedResidence(call, *TheMachine().launch);
    Pause(call, core);
    std::array<uint8_t, 64> now{};
    std::memcpy(now.data(), reinterpret_cast<const void *>(line * 64), 64);
    auto known = core.looked.find(line);
    bool first = known == core.looked.end();
    if (!first && known->second == now) {
        return;
    }
    core.looked[line] = now;
    ++TheMachine().launch->done_something;
    TakeOver(core, TheMachine().heard);
    if (!first) {
        PauseOften(call, core);
    }
}
PTO_SHIM_FN void WroteBack(const Call &call, Core &core)
{
    ++TheMachine().launch->done_something;
    TheMachine().told.Join(Abroad(core, core.issue));
    if (!core.looked.empty()) {
        PauseOften(call, core);
    }
}
// The control CPU looks at GM: the cores go on for a round.
PTO_SHIM_FN void GiveWay(const Call &call)
{
    Machine &m = TheMachine();
    if (m.core != nullptr) {
        Fail(call, "belongs to the control CPU");
    }
    m.heard.Join(m.told);
    if (m.parked == nullptr) {
        return;
    }
    m.launch = m.parked.get();
    uint64_t before = m.launch->done_something;
    if (!GoRound(*m.launch)) {
        std::unique_ptr<Run> ended = std::move(m.parked);
        EndLaunch(*ended);
        m.idle_calls = 0;
        return;
    }
    m.idle_calls = m.launch->done_something != before ? 0 : m.idle_calls + 1;
    m.launch = nullptr;
    if (m.idle_calls > 100000) {
        Fail(call, "deadlock: the control CPU waits, and so do all cores");
    }
}
// Cores that wait for the control CPU, when it has ended or nobody starts it.
PTO_SHIM_FN void FinishParked(bool must_end)
{
    Machine &m = TheMachine();
    if (m.parked == nullptr) {
        return;
    }
    m.heard.Join(m.told);
    m.launch = m.parked.get();
    if (GoOn(*m.launch)) {
        std::unique_ptr<Run> ended = std::move(m.parked);
        EndLaunch(*ended);
        return;
    }
    if (must_end) {
        for (auto &c : m.launch->cores) {
            if (!c->done) {
                Fail(c->wait_call, "deadlock: the core looks at GM that nobody writes");
            }
        }
    }
    m.launch = nullptr;
}

// ---- between cores ----------------------------------------------------------------------------------------------

// A clock of one core as other cores see it.
PTO_SHIM_FN Clock Abroad(const Core &core, const Clock &c)
{
    Clock out;
    out.other = c.other;
    size_t at = static_cast<size_t>(core.number) * kPipes;
    if (out.other.size() < at + kPipes) {
        out.other.resize(at + kPipes);
    }
    for (int i = 0; i < kPipes; ++i) {
        uint32_t &v = out.other[at + static_cast<size_t>(i)];
        v = v > c.own[i] ? v : c.own[i];
    }
    return out;
}
PTO_SHIM_FN void NeedResidence(const Call &call, Run &l)
{
    Machine &m = TheMachine();
    int cubes = CubesOf(l.type), vectors = VectorsOf(l.type);
    int64_t fits = INT64_MAX;
    if (cubes > 0) {
        fits = m.cubes / cubes;
    }
    if (vectors > 0) {
        fits = fits < m.vectors / vectors ? fits : m.vectors / vectors;
    }
    if (l.blocks > fits) {
        Fail(call, "%lld blocks on %lld physical cores: a kernel that synchronises across cores would deadlock",
             static_cast<long long>(l.blocks), static_cast<long long>(fits));
    }
    l.crossed = true;
}
PTO_SHIM_FN void NeedCross(const Call &call, Run &l)
{
    if (l.type == KERNEL_TYPE_AIV_ONLY || l.type == KERNEL_TYPE_AIC_ONLY) {
        Fail(call, "KERNEL_TYPE_%s_ONLY does not start the cross-core scheduler; use a MIX kernel type",
             l.type == KERNEL_TYPE_AIV_ONLY ? "AIV" : "AIC");
    }
    NeedResidence(call, l);
    if (l.flags.empty()) {
        l.flags.resize(static_cast<size_t>(l.blocks * (CubesOf(l.type) + VectorsOf(l.type))));
    }
}
PTO_SHIM_FN void CheckFlagId(const Call &call, int64_t id)
{
    CheckRange(call, "flagId", id, 0, 15);
    if (id >= 11 && id <= 14) {
        Fail(call, "flagId = %lld; 11..14 belong to SyncAll", static_cast<long long>(id));
    }
}
PTO_SHIM_FN void Arrive(const Call &call, Run &l, int to, size_t flag, const Clock &clock)
{
    std::deque<Clock> &arrived = l.flags[static_cast<size_t>(to)][flag].arrived;
    arrived.push_back(clock);
    if (arrived.size() > 15) {
        Fail(call, "flag %zu is set 16 times before it is waited for; its counter ends at 15", flag);
    }
}
// What others knew, taken over by a core that waited for them; they may know things about the core itself.
PTO_SHIM_FN void TakeOver(Core &core, const Clock &c)
{
    size_t at = static_cast<size_t>(core.number) * kPipes;
    for (Clock *k : {&core.issue, &core.known[PIPE_S]}) {
        k->JoinOther(c.other);
        for (size_t i = 0; i < kPipes && at + i < c.other.size(); ++i) {
            k->own[i] = k->own[i] > c.other[at + i] || i == PIPE_S ? k->own[i] : c.other[at + i];
        }
    }
}
PTO_SHIM_FN void CrossSet(const Call &call, int mode, int pipe, int64_t id)
{
    Core &core = StartedCore(call);
    Run &l = *TheMachine().launch;
    NeedCross(call, l);
    CheckFlagId(call, id);
    int cubes = CubesOf(l.type), vectors = VectorsOf(l.type), per_group = cubes + vectors;
    if (core.cube ? pipe == PIPE_V : pipe == PIPE_M || pipe == PIPE_MTE1 || pipe == PIPE_FIX) {
        Fail(call, "PIPE_%s does not exist on %s core", kPipeName[pipe], core.cube ? "a cube" : "a vector");
    }
    if (mode == 2 && (cubes == 0 || vectors == 0)) {
        Fail(call, "mode 2 needs cube and vector cores in the group");
    }
    if (mode == 1 && core.cube) {
        Fail(call, "mode 1 is for the vector cores of a group");
    }
    size_t flag = static_cast<size_t>(id), me = static_cast<size_t>(core.number);
    l.flag_at[flag] = call.at;
    Clock clock = Abroad(core, After(core, pipe));
    if (mode == 2 && core.cube) {
        for (int v = 0; v < vectors; ++v) {
            Arrive(call, l, core.number + 1 + v, flag, clock);
        }
        return;
    }
    // Everybody of the same kind (mode 0), or the vector cores of the group, have to set before anybody passes.
    l.flags[me][flag].sent[mode].push_back(clock);
    std::vector<int> partners;
    for (int n = 0; n < static_cast<int>(l.flags.size()); ++n) {
        bool cube = n % per_group < cubes;
        if (cube == core.cube && (mode == 0 || n / per_group == core.group)) {
            partners.push_back(n);
        }
    }
    for (int n : partners) {
        if (l.flags[static_cast<size_t>(n)][flag].sent[mode].empty()) {
            return;
        }
    }
    Clock all;
    for (int n : partners) {
        std::deque<Clock> &sent = l.flags[static_cast<size_t>(n)][flag].sent[mode];
        all.Join(sent.front());
        sent.pop_front();
    }
    if (mode == 2) {
        Arrive(call, l, core.group * per_group, flag, all);
        return;
    }
    for (int n : partners) {
        Arrive(call, l, n, flag, all);
    }
}
PTO_SHIM_FN void CrossWait(const Call &call, int64_t id)
{
    Core &core = StartedCore(call);
    Run &l = *TheMachine().launch;
    NeedCross(call, l);
    CheckFlagId(call, id);
    std::deque<Clock> &arrived = l.flags[static_cast<size_t>(core.number)][static_cast<size_t>(id)].arrived;
    if (arrived.empty()) {
        core.wait = Wait::kFlag;
        core.wait_flag = static_cast<int>(id);
        core.wait_call = call;
        Yield(core);
    }
    Clock c = arrived.front();
    arrived.pop_front();
    TakeOver(core, c);
}
PTO_SHIM_FN void SyncCores(const Call &call, bool vector_only)
{
    Core &core = StartedCore(call);
    Run &l = *TheMachine().launch;
    NeedCross(call, l);
    if (vector_only && core.cube) {
        Fail(call, "SyncAll<true> on a cube core; SyncAll<false> joins all cores of a MIX kernel");
    }
    BarrierAll(core);
    core.wait = Wait::kAll;
    core.released = false;
    core.sync_vectors = vector_only;
    core.wait_call = call;
    Yield(core);
}
PTO_SHIM_FN void FinishRound(Run &l)
{
    int cubes = CubesOf(l.type), vectors = VectorsOf(l.type);
    for (bool vector_only : {true, false}) {
        int64_t need = l.blocks * (vector_only ? vectors : cubes + vectors);
        Clock all;
        std::vector<Core *> here;
        for (auto &c : l.cores) {
            if (!c->done && c->wait == Wait::kAll && !c->released && c->sync_vectors == vector_only) {
                here.push_back(c.get());
            }
        }
        if (here.empty() || static_cast<int64_t>(here.size()) < need) {
            continue;
        }
        for (Core *c : here) {
            all.Join(Abroad(*c, c->issue));
        }
        for (Core *c : here) {
            TakeOver(*c, all);
            c->released = true;
        }
    }
}

}   // namespace pto_shim
