// The simulated AI Core: memories with a shadow, pipes with vector clocks, queues, events, cores of a launch.
//
// Instructions take effect at once and in program order; what is checked is that the order was asked for. Every pipe of
// every core counts its instructions. A clock says, per pipe, up to which instruction everything is known to be done.
// Flags, queues and barriers copy clocks; each 32-byte granule of memory remembers who touched which of its bytes, and
// an access that meets an unordered conflicting one ends the run.
#pragma once
#include "base.h"
#include "pipe.h"

#include <ucontext.h>

#include <array>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace pto_shim {

constexpr int kPipes = 7;
constexpr uint32_t kGranule = 32;
constexpr uint32_t kGuard = 64 * 1024;             // bytes around each GM allocation that belong to nobody
constexpr uint32_t kMemBytes[kMems] = {192 * 1024, 512 * 1024, 64 * 1024, 64 * 1024, 128 * 1024, 1024, 2048};
constexpr uint32_t kUsable[kMems] = {188160, 512 * 1024 - 256, 64 * 1024, 64 * 1024, 128 * 1024, 1024, 2048};
constexpr uint32_t kUbReserved = 184 * 1024;       // from here on: scratch of Select, Power, ...
constexpr const char *kMemName[kMems + 1] = {"UB", "L1", "L0A", "L0B", "L0C", "bias table", "fixpipe buffer", "no memory"};
constexpr const char *kPipeName[kPipes + 1] = {"S", "V", "M", "MTE1", "MTE2", "MTE3", "FIX", "ALL"};
constexpr int kExitCode = 86;                      // of a process that a check ended

struct Clock {
    uint32_t own[kPipes] = {};
    std::vector<uint32_t> other;                   // per core * kPipes; empty: nothing known of other cores
    void Join(const Clock &c)
    {
        for (int i = 0; i < kPipes; ++i) {
            own[i] = own[i] > c.own[i] ? own[i] : c.own[i];
        }
        JoinOther(c.other);
    }
    void JoinOther(const std::vector<uint32_t> &o)
    {
        if (other.size() < o.size()) {
            other.resize(o.size());
        }
        for (size_t i = 0; i < o.size(); ++i) {
            other[i] = other[i] > o[i] ? other[i] : o[i];
        }
    }
};

// Who touched some bytes of a granule: instruction `seq` of `pipe` of `core`, made by call `site`. seq 0: nobody.
struct Touch {
    uint32_t bytes = 0, seq = 0, site = 0;
    uint16_t core = 0;
    uint8_t pipe = 0;
};
struct Granule {
    Touch writer, older;                           // older: a writer of other bytes that the last one did not wait for
    Touch readers[4];
};
struct GmGranule : Granule {
    Touch adders[4];                               // atomic accumulations, which need no order among themselves
};
struct Memory {
    std::vector<uint8_t> store, ready;             // ready: byte holds a value, not poison
    std::vector<Granule> shadow;
    uint8_t *data = nullptr;                       // 512-byte aligned start inside store
    uint32_t used = 0;                             // bytes handed out
    uint32_t high = 0;                             // bytes ever handed out since the last clearing
};

enum class Life : uint8_t { kFree, kAllocated, kQueued, kDequeued };
constexpr const char *kLifeName[] = {"free", "allocated", "in its queue", "dequeued"};
struct Buffer {
    Mem mem;
    uint32_t addr, bytes, gen;
    int queue;                                     // -1: a TBuf
    Life life;
    TPosition pos;
    Loc made, last;                                // InitBuffer; last change of life
    Clock filled, freed;
};
struct Queue {
    TPosition src, dst;
    int depth, first, count, next;                 // buffers [first, first + count); next: where to look for a free one
    pipe_t producer, consumer;
    std::deque<int> waiting;
    Loc made;
};
struct Event {
    bool set = false, allocated = false, fetched = false;
    Loc at;
    Clock clock;
};
struct CrossFlag {
    std::deque<Clock> arrived;                     // its counter; each entry with what the setter knew
    std::deque<Clock> sent[3];                     // by this core, per mode, until every partner has set as well
};
enum class Wait : uint8_t { kNothing, kFlag, kAll, kLook };   // kLook: at a line of GM that somebody else may write

struct Core {
    int number = 0, group = 0, sub = 0;            // number: over all cores of the launch
    bool cube = false, started = false, done = false;
    Wait wait = Wait::kNothing;
    int wait_flag = -1;
    bool released = false, sync_vectors = false;   // of SyncAll
    Call wait_call{"", {}};
    ucontext_t context;
    std::unique_ptr<uint8_t[]> stack;

    Memory memory[kMems];
    uint32_t issued[kPipes] = {};
    Clock known[kPipes];                           // what the next instruction of a pipe may rely on
    Clock issue;                                   // what the scalar unit had waited for: all later instructions may
    std::vector<Buffer> buffers;
    std::vector<Queue> queues;
    std::map<std::pair<int, int>, Event> events;   // (HardEvent, id)
    int pipes_made = 0, pipe_alive = -1;
    Loc pipe_at;
    int atomic = 0;
    DT atomic_type = DT::kU8;
    Loc atomic_at;
    bool counter_mode = false, mask_set = false;
    uint64_t mask_low = 0, mask_high = 0;
    Loc mask_at;
    bool deq_scale = false, hf32 = false;
    Loc hf32_at;
    std::map<uint64_t, Loc> dirty;                 // 64-byte lines of GM that sit in the scalar cache
    std::map<uint64_t, std::array<uint8_t, 64>> looked;   // lines that were invalidated without having been written
    uint32_t looks = 0;
};

// One allocation in GM.
struct GmBlock {
    uint64_t base = 0, bytes = 0;
    std::string name;
    std::vector<uint8_t> ready;
    std::vector<std::unique_ptr<std::array<GmGranule, 64>>> shadow;   // pages of 2 KiB, made when touched
    std::map<uint64_t, int> lines;                 // 64-byte line -> core that scalar-wrote it in this launch
    void *owned = nullptr;
};

struct Run {
    void (*body)(void *) = nullptr;
    void *context = nullptr;
    int type = -1;
    int64_t blocks = 0;
    std::vector<std::unique_ptr<Core>> cores;      // finished ones are reused unless cores wait for each other
    std::vector<std::unique_ptr<Core>> spare;
    ucontext_t main;
    bool crossed = false;                          // some core used a cross-core call
    std::vector<std::array<CrossFlag, 16>> flags;  // per core number
    Loc flag_at[16];
    uint64_t done_something = 0;                   // grows with everything that cores do but look
    Call call{"", {}};
    void (*drop)(void *) = nullptr;                // frees the context
};

struct Machine {
    Core *core = nullptr;                          // the one that runs; null on the host
    Run *launch = nullptr;
    std::map<uint64_t, GmBlock> gm;                // by base address
    struct Site {
        const char *name;
        Loc at;
    };
    std::vector<Site> sites;
    std::unordered_map<uint64_t, uint32_t> site_numbers;
    uint8_t poison = std::getenv("PTO_SHIM_SEED") != nullptr ? static_cast<uint8_t>(std::atoi(std::getenv("PTO_SHIM_SEED"))) : 0xA7;
    int cubes = 24, vectors = 48;                  // physical cores
    int64_t cycle = 0;
    std::string kernel;
    std::unique_ptr<Run> parked;                   // a launch whose cores all wait for the control CPU
    Clock told, heard;                             // what cores have written back; what the control CPU knows of it
    uint64_t idle_calls = 0;                       // of the control CPU, without anything happening
};
inline Machine &TheMachine()
{
    static Machine *m = new Machine;
    return *m;
}

// An instruction that is being executed: pipe and number, for the touches it makes.
struct Instr {
    const Call &call;
    Core &core;
    int pipe;
    uint32_t seq, site;
};

Core &Here(const Call &call);
Core &VectorCore(const Call &call);
Core &CubeCore(const Call &call);
Instr Issue(const Call &call, Core &core, int pipe);
uint32_t SiteOf(const Call &call);
// Checks a view's life and that [addr + from, + bytes) lies inside it; `what` names the argument.
void CheckView(const Call &call, const View &v, const char *what);
void CheckSpan(const Call &call, const View &v, const char *what, int64_t from, int64_t bytes);
void CheckAlign(const Call &call, const View &v, const char *what, uint32_t align);
void CheckMem(const Call &call, const View &v, const char *what, Mem mem);
void TouchLocal(Instr &in, Mem mem, uint32_t addr, uint32_t bytes, bool write, const char *what);
void TouchGm(Instr &in, GmBlock &block, uint64_t addr, uint64_t bytes, bool write, const char *what, bool atomic = false);
GmBlock &FindGm(const Call &call, const GmView &v, const char *what, int64_t from, int64_t bytes);
bool Known(const Instr &in, const Touch &t);
[[noreturn]] void Unordered(Instr &in, const Touch &t, bool wrote, bool writes, const char *what, const std::string &where);
void ResetCore(Core &core);

}   // namespace pto_shim
