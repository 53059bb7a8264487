// Words shared by the kernel-facing headers and the machine behind them: places in the emitted source, element types,
// memories, pipes, tensor views. No standard containers here: kernels that include this must compile fast.
#pragma once
#include "half.h"

// The words of the device compiler.
#define __global__
#define __aicore__
#define __aicpu__
#define __gm__
#define __ubuf__
#define __cbuf__
#define __NPU_ARCH__ 2201

using GM_ADDR = uint8_t *;

// 1: argument fields have the device's exact widths (narrowing in braces is then a compile error, as it is there).
// 0: fields are wide and a value that does not fit is an error when the call runs.
#ifndef PTO_SHIM_EXACT
#define PTO_SHIM_EXACT 0
#endif

// The machine is compiled once and linked when PTO_SHIM_SEPARATE is set; otherwise every function is inline.
#ifdef PTO_SHIM_SEPARATE
#ifdef PTO_SHIM_IMPLEMENTATION
#define PTO_SHIM_FN
#endif
#else
#define PTO_SHIM_FN inline
#endif

namespace pto_shim {

struct Loc {
    const char *file = "";
    int line = 0;
    static constexpr Loc Here(const char *f = __builtin_FILE(), int l = __builtin_LINE())
    {
        return Loc{f[0] == '.' && f[1] == '/' ? f + 2 : f, l};
    }
};
struct Call {
    const char *name;
    Loc at;
};
// Prints "<file>:<line>: <call>: <text>" with the core it happened on and ends the process.
[[noreturn]] void Fail(const Call &call, const char *format, ...) __attribute__((format(printf, 2, 3)));

#if PTO_SHIM_EXACT
template <typename T> using Field = T;
template <typename T> inline int64_t Wide(T v) { return static_cast<int64_t>(v); }
#else
// A parameter that the device stores in a T: any integer is taken, and one that does not fit is found by CheckField.
template <typename T> struct Field {
    int64_t v = 0;
    constexpr Field() = default;
    template <typename I, typename = std::enable_if_t<std::is_integral_v<I> || std::is_enum_v<I>>>
    constexpr Field(I value) : v(static_cast<int64_t>(value)) {}
    constexpr operator int64_t() const { return v; }
};
template <typename T> inline int64_t Wide(const Field<T> &f) { return f.v; }
#endif
void CheckRange(const Call &call, const char *what, int64_t value, int64_t low, int64_t high);
template <typename T> inline int64_t Fit(const Call &call, const char *what, const Field<T> &f)
{
    constexpr int64_t high = static_cast<int64_t>(~uint64_t{0} >> (64 - 8 * sizeof(T) + (std::is_signed_v<T> || sizeof(T) == 8)));
    CheckRange(call, what, Wide<T>(f), std::is_signed_v<T> ? -high - 1 : 0, high);
    return Wide<T>(f);
}
// An element offset together with the line it was written on: `tensor[offset]`.
struct Offset {
    uint64_t v;
    Loc at;
    template <typename I, typename = std::enable_if_t<std::is_integral_v<I>>>
    Offset(I value, Loc loc = Loc::Here()) : v(static_cast<uint64_t>(value)), at(loc) {}
};

enum class DT : uint8_t { kU8, kS8, kU16, kS16, kF16, kBf16, kU32, kS32, kF32, kU64, kS64, kF64 };
const char *NameOf(DT t);
constexpr uint32_t SizeOf(DT t)
{
    return t <= DT::kS8 ? 1 : t <= DT::kBf16 ? 2 : t <= DT::kF32 ? 4 : 8;
}
template <typename T> constexpr DT TypeOf()
{
    if constexpr (std::is_same_v<T, half>) { return DT::kF16; }
    else if constexpr (std::is_same_v<T, bfloat16_t>) { return DT::kBf16; }
    else if constexpr (std::is_same_v<T, float>) { return DT::kF32; }
    else if constexpr (std::is_same_v<T, double>) { return DT::kF64; }
    else {
        static_assert(std::is_integral_v<T>, "not an element type of the device");
        if constexpr (sizeof(T) == 1) { return std::is_signed_v<T> ? DT::kS8 : DT::kU8; }
        else if constexpr (sizeof(T) == 2) { return std::is_signed_v<T> ? DT::kS16 : DT::kU16; }
        else if constexpr (sizeof(T) == 4) { return std::is_signed_v<T> ? DT::kS32 : DT::kU32; }
        else { return std::is_signed_v<T> ? DT::kS64 : DT::kU64; }
    }
}
template <typename T, typename... Ts> constexpr bool OneOf = (std::is_same_v<T, Ts> || ...);
// A scalar argument, kept as float for float types and as integer for the others.
struct Scalar {
    float f = 0;
    int64_t i = 0;
};
template <typename T> inline Scalar ScalarOf(const T &v)
{
    Scalar s;
    s.f = static_cast<float>(v);
    if constexpr (std::is_integral_v<T>) { s.i = static_cast<int64_t>(v); }
    return s;
}

enum class Mem : uint8_t { kUb, kL1, kL0a, kL0b, kL0c, kBias, kFixBuf, kNone };
constexpr int kMems = 7;

}   // namespace pto_shim

enum pipe_t { PIPE_S = 0, PIPE_V, PIPE_M, PIPE_MTE1, PIPE_MTE2, PIPE_MTE3, PIPE_FIX, PIPE_ALL };
enum event_t { EVENT_ID0, EVENT_ID1, EVENT_ID2, EVENT_ID3, EVENT_ID4, EVENT_ID5, EVENT_ID6, EVENT_ID7 };

namespace AscendC {

enum class TPosition : uint8_t {
    GM, A1, A2, B1, B2, C1, C2, CO1, CO2, VECIN, VECOUT, VECCALC, C2PIPE2GM, LCM = VECCALC, MAX
};
using QuePosition = TPosition;
using TEventID = int8_t;

}   // namespace AscendC

namespace pto_shim {

using AscendC::TPosition;

// A tensor in a local memory: bytes [addr, end) of `mem`, at life `gen` of buffer `buf`.
struct View {
    uint32_t addr = 0, end = 0;
    uint32_t gen = 0;
    int16_t buf = -1;
    Mem mem = Mem::kNone;
    DT type = DT::kU8;
    TPosition pos = TPosition::MAX;
};
// A tensor in GM; end is one past the last byte that SetGlobalBuffer allows (all ones when it was left out).
struct GmView {
    uint64_t addr = 0, base = 0, end = ~uint64_t{0};
    DT type = DT::kU8;
    bool set = false;
};

}   // namespace pto_shim
