// Kernel type, core identity, event flags, barriers, cross-core flags.
#pragma once
#include "base.h"

namespace pto_shim {

void SetKernelType(const Call &call, int type);
bool IsCube(const Call &call);
struct CoreId {
    int64_t block, blocks, sub, subs, ratio;
};
CoreId WhoAmI(const Call &call);
void FlagSet(const Call &call, int event, int64_t id);
void FlagWait(const Call &call, int event, int64_t id);
void Barrier(const Call &call, int pipe);
void CrossSet(const Call &call, int mode, int pipe, int64_t id);
void CrossWait(const Call &call, int64_t id);
void SyncCores(const Call &call, bool vector_only);
void SetAtomic(const Call &call, int kind, DT type);   // 0 none, 1 add, 2 max, 3 min
int64_t Cycle();

}   // namespace pto_shim

enum KernelMetaType {
    KERNEL_TYPE_AIV_ONLY, KERNEL_TYPE_AIC_ONLY, KERNEL_TYPE_MIX_AIV_1_0, KERNEL_TYPE_MIX_AIC_1_0, KERNEL_TYPE_MIX_AIC_1_1,
    KERNEL_TYPE_MIX_AIC_1_2
};
#define KERNEL_TASK_TYPE_DEFAULT(value) \
    ::pto_shim::SetKernelType({"KERNEL_TASK_TYPE_DEFAULT", ::pto_shim::Loc::Here()}, static_cast<int>(value))
#define ASCEND_IS_AIC (::pto_shim::IsCube({"ASCEND_IS_AIC", ::pto_shim::Loc::Here()}))
#define ASCEND_IS_AIV (!::pto_shim::IsCube({"ASCEND_IS_AIV", ::pto_shim::Loc::Here()}))

namespace AscendC {

// pipe of the setter * 8 + pipe of the waiter
enum class HardEvent : uint8_t {
#define PTO_EVENT(a, b) a##_##b = PIPE_##a * 8 + PIPE_##b
    PTO_EVENT(MTE2, MTE1), PTO_EVENT(MTE1, MTE2), PTO_EVENT(MTE1, M), PTO_EVENT(M, MTE1), PTO_EVENT(MTE2, V),
    PTO_EVENT(V, MTE2), PTO_EVENT(MTE3, V), PTO_EVENT(V, MTE3), PTO_EVENT(M, V), PTO_EVENT(V, M), PTO_EVENT(V, V),
    PTO_EVENT(MTE3, MTE1), PTO_EVENT(MTE1, MTE3), PTO_EVENT(MTE1, V), PTO_EVENT(MTE2, M), PTO_EVENT(M, MTE2),
    PTO_EVENT(V, MTE1), PTO_EVENT(M, FIX), PTO_EVENT(FIX, M), PTO_EVENT(MTE3, MTE2), PTO_EVENT(MTE2, MTE3), PTO_EVENT(S, V),
    PTO_EVENT(V, S), PTO_EVENT(S, MTE2), PTO_EVENT(MTE2, S), PTO_EVENT(S, MTE3), PTO_EVENT(MTE3, S), PTO_EVENT(MTE2, FIX),
    PTO_EVENT(FIX, MTE2), PTO_EVENT(FIX, S), PTO_EVENT(M, S), PTO_EVENT(S, M), PTO_EVENT(FIX, MTE3), PTO_EVENT(MTE1, FIX),
    PTO_EVENT(FIX, MTE1), PTO_EVENT(MTE1, S), PTO_EVENT(S, MTE1), PTO_EVENT(FIX, FIX)
#undef PTO_EVENT
};

inline int64_t GetBlockIdx(pto_shim::Loc at = pto_shim::Loc::Here()) { return pto_shim::WhoAmI({"GetBlockIdx", at}).block; }
inline int64_t GetBlockNum(pto_shim::Loc at = pto_shim::Loc::Here()) { return pto_shim::WhoAmI({"GetBlockNum", at}).blocks; }
inline int64_t GetSubBlockIdx(pto_shim::Loc at = pto_shim::Loc::Here())
{
    return pto_shim::WhoAmI({"GetSubBlockIdx", at}).sub;
}
inline int64_t GetSubBlockNum(pto_shim::Loc at = pto_shim::Loc::Here())
{
    return pto_shim::WhoAmI({"GetSubBlockNum", at}).subs;
}
inline int64_t GetTaskRatio(pto_shim::Loc at = pto_shim::Loc::Here()) { return pto_shim::WhoAmI({"GetTaskRatio", at}).ratio; }
inline int64_t GetSystemCycle() { return pto_shim::Cycle(); }

template <HardEvent event> inline void SetFlag(pto_shim::Field<int32_t> eventID, pto_shim::Loc at = pto_shim::Loc::Here())
{
    pto_shim::FlagSet({"SetFlag", at}, static_cast<int>(event), pto_shim::Wide<int32_t>(eventID));
}
template <HardEvent event> inline void WaitFlag(pto_shim::Field<int32_t> eventID, pto_shim::Loc at = pto_shim::Loc::Here())
{
    pto_shim::FlagWait({"WaitFlag", at}, static_cast<int>(event), pto_shim::Wide<int32_t>(eventID));
}
template <pipe_t pipe> inline void PipeBarrier(pto_shim::Loc at = pto_shim::Loc::Here())
{
    static_assert(pipe != PIPE_S, "PipeBarrier<PIPE_S> is not allowed");
    pto_shim::Barrier({"PipeBarrier", at}, pipe);
}
template <uint8_t modeId, pipe_t pipe>
inline void CrossCoreSetFlag(pto_shim::Field<uint16_t> flagId, pto_shim::Loc at = pto_shim::Loc::Here())
{
    static_assert(pipe != PIPE_S && pipe != PIPE_ALL, "CrossCoreSetFlag needs the pipe whose work it follows");
    static_assert(modeId <= 2, "modes 0, 1 and 2 exist on 2201");
    pto_shim::CrossSet({"CrossCoreSetFlag", at}, modeId, pipe, pto_shim::Wide<uint16_t>(flagId));
}
template <uint8_t modeId = 0, pipe_t pipe = PIPE_S>
inline void CrossCoreWaitFlag(pto_shim::Field<uint16_t> flagId, pto_shim::Loc at = pto_shim::Loc::Here())
{
    pto_shim::CrossWait({"CrossCoreWaitFlag", at}, pto_shim::Wide<uint16_t>(flagId));
}
template <bool isAIVOnly = true> inline void SyncAll(pto_shim::Loc at = pto_shim::Loc::Here())
{
    pto_shim::SyncCores({"SyncAll", at}, isAIVOnly);
}
template <typename T> inline void SetAtomicAdd(pto_shim::Loc at = pto_shim::Loc::Here())
{
    static_assert(pto_shim::OneOf<T, int8_t, int16_t, half, bfloat16_t, int32_t, float>, "SetAtomicAdd: type not supported");
    pto_shim::SetAtomic({"SetAtomicAdd", at}, 1, pto_shim::TypeOf<T>());
}
template <typename T> inline void SetAtomicMax(pto_shim::Loc at = pto_shim::Loc::Here())
{
    static_assert(pto_shim::OneOf<T, int8_t, int16_t, half, bfloat16_t, int32_t, float>, "SetAtomicMax: type not supported");
    pto_shim::SetAtomic({"SetAtomicMax", at}, 2, pto_shim::TypeOf<T>());
}
template <typename T> inline void SetAtomicMin(pto_shim::Loc at = pto_shim::Loc::Here())
{
    static_assert(pto_shim::OneOf<T, int8_t, int16_t, half, bfloat16_t, int32_t, float>, "SetAtomicMin: type not supported");
    pto_shim::SetAtomic({"SetAtomicMin", at}, 3, pto_shim::TypeOf<T>());
}
inline void SetAtomicNone(pto_shim::Loc at = pto_shim::Loc::Here())
{
    pto_shim::SetAtomic({"SetAtomicNone", at}, 0, pto_shim::DT::kU8);
}
inline void DisableDmaAtomic(pto_shim::Loc at = pto_shim::Loc::Here())
{
    pto_shim::SetAtomic({"DisableDmaAtomic", at}, 0, pto_shim::DT::kU8);
}

}   // namespace AscendC
