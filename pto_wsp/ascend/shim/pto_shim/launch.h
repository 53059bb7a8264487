// Starting a kernel on all its cores; GM allocations.
#pragma once
#include "base.h"

#include <tuple>

namespace pto_shim {

// Comes back when all cores are done, or when all of them look at GM that only the control CPU will write.
void RunLaunch(const Call &call, void (*body)(void *), void *context, int64_t blocks, void (*drop)(void *));
void FinishParked(bool must_end);
// GM: memory of the shim with guard zones, or memory of the caller that is only made known.
void *GmAllocate(uint64_t bytes, const char *name);
void GmAdopt(void *addr, uint64_t bytes, const char *name, bool ready);
void GmSetReady(const void *addr, uint64_t bytes);
bool GmRelease(void *addr);
bool GmContains(const void *addr, uint64_t bytes);

// Runs `kernel(args...)` on every core of `blocks` logical blocks.
template <typename Kernel, typename... Args>
inline void LaunchAt(Loc at, const char *name, Kernel *kernel, int64_t blocks, Args... args)
{
    struct Bound {
        Kernel *kernel;
        std::tuple<Args...> args;
    };
    RunLaunch({name, at}, [](void *p) {
        Bound *b = static_cast<Bound *>(p);
        std::apply(b->kernel, b->args);
    }, new Bound{kernel, std::tuple<Args...>(args...)}, blocks, [](void *p) { delete static_cast<Bound *>(p); });
}
template <typename Kernel, typename... Args> inline void Launch(Kernel *kernel, int64_t blocks, Args... args)
{
    LaunchAt({}, "launch", kernel, blocks, args...);
}

// kernel<<<blocks, nullptr, stream>>>(args...), which plain C++ cannot parse; build.py writes Chevrons(...)(args...).
// beside: it may run at the same time as cores that wait for the control CPU.
void StreamStarts(const Call &call, void *stream, bool beside = false);
void StreamReturned(const Call &call, void *stream, uint32_t code);
template <typename R, typename... Ps> struct Started {
    R (*kernel)(Ps...);
    int64_t blocks;
    void *stream;
    Loc at;
    // A device pointer may be given as any pointer, a number as any number that the parameter takes.
    template <typename... Args> void operator()(Args... args) const
    {
        StreamStarts({"launch", at}, stream, !std::is_same_v<R, void>);
        if constexpr (std::is_same_v<R, void>) {
            LaunchAt(at, "launch", kernel, blocks, static_cast<Ps>(args)...);
        } else {   // on the control CPU: one pointer to the arguments, and their size
            StreamReturned({"launch", at}, stream, First(kernel, args...));
        }
    }
    template <typename P, typename... Rest> static uint32_t First(R (*kernel)(Ps...), P pointer, Rest...) { return kernel(pointer); }
};
template <typename R, typename... Ps>
inline Started<R, Ps...> Chevrons(R (*kernel)(Ps...), int64_t blocks, const void *, void *stream, Loc at = Loc::Here())
{
    return {kernel, blocks, stream, at};
}

// One argument as it stands in an 8-byte word of a request: pointers and integers as they are, floats by their bits.
template <typename T> inline T FromWord(uint64_t word)
{
    T out;
    static_assert(sizeof(T) <= 8, "kernel parameters of more than 8 bytes go through memory");
    std::memcpy(&out, &word, sizeof(T));
    return out;
}
template <typename... Ps, size_t... I>
inline void LaunchWords(void (*kernel)(Ps...), const char *name, int64_t blocks, const uint64_t *words, std::index_sequence<I...>)
{
    (void)words;
    LaunchAt({name, 0}, "launch", kernel, blocks, FromWord<Ps>(words[I])...);
}
struct Entry {
    const char *name;
    size_t parameters;
    void (*start)(int64_t blocks, const uint64_t *words);
    Entry *next;
};
Entry *&Entries();
template <typename... Ps> constexpr size_t CountParameters(void (*)(Ps...)) { return sizeof...(Ps); }
template <typename... Ps> inline void StartWords(void (*kernel)(Ps...), const char *name, int64_t blocks, const uint64_t *words)
{
    LaunchWords(kernel, name, blocks, words, std::index_sequence_for<Ps...>());
}
// Makes an entry callable by name (build.py appends this to a kernel source).
#define PTO_SHIM_EXPORT(kernel)                                                                              \
    static ::pto_shim::Entry pto_shim_entry_##kernel = {                                                     \
        #kernel, ::pto_shim::CountParameters(&kernel),                                                       \
        [](int64_t blocks, const uint64_t *words) { ::pto_shim::StartWords(&kernel, #kernel, blocks, words); }, nullptr}; \
    [[maybe_unused]] static const bool pto_shim_listed_##kernel = [] {                                       \
        pto_shim_entry_##kernel.next = ::pto_shim::Entries();                                                \
        ::pto_shim::Entries() = &pto_shim_entry_##kernel;                                                    \
        return true;                                                                                         \
    }()

}   // namespace pto_shim
