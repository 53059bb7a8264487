// Reductions: inside a repeat, over a count, over an axis of a 2-D tile.
#pragma once
#include "vector.h"

namespace AscendC {

enum class ReduceOrder { ORDER_VALUE_INDEX = 0, ORDER_INDEX_VALUE, ORDER_ONLY_VALUE, ORDER_ONLY_INDEX };
namespace Pattern {
namespace Reduce {
struct AR {
    static constexpr bool kRows = true;
};
struct RA {
    static constexpr bool kRows = false;
};
}   // namespace Reduce
}   // namespace Pattern

}   // namespace AscendC

namespace pto_shim {

enum class Fold : uint8_t { kSum, kMax, kMin, kMean };
enum class Extent : uint8_t { kWhole, kBlock, kPair };
void RepeatReduce(const Call &call, Fold fold, Extent extent, const View &dst, const View &src, const Shape &s, int64_t dst_rep,
                  AscendC::ReduceOrder order);
void CountReduce(const Call &call, Fold fold, const View &dst, const View &src, const View &tmp, int64_t count, bool index);
void AxisReduce(const Call &call, Fold fold, bool rows, const View &dst, const View &src, const View &tmp, const uint32_t shape[],
                bool inner_pad, bool reuse);
inline Shape ReduceShape(const Call &call, DT type, int64_t mask, int64_t repeat, int64_t blk, int64_t rep)
{
    CheckRange(call, "mask", mask, 1, 256 / SizeOf(type));
    CheckRange(call, "srcBlkStride", blk, 0, 65535);
    CheckRange(call, "srcRepStride", rep, 0, 65535);
    Shape s = Repeats(call, type, static_cast<uint64_t>(mask), 0, false, repeat);
    s.blk[1] = blk;
    s.rep[1] = rep;
    return s;
}

}   // namespace pto_shim

namespace AscendC {

#define PTO_WHOLE(Name, fold)                                                                                                  \
    template <typename T, bool isSetMask = true>                                                                               \
    inline void Name(const LocalTensor<T> &dst, const LocalTensor<T> &src, pto_shim::Field<int32_t> mask,                      \
                     pto_shim::Field<int32_t> repeatTime, pto_shim::Field<int32_t> dstRepStride,                               \
                     pto_shim::Field<int32_t> srcBlkStride, pto_shim::Field<int32_t> srcRepStride PTO_ORDER, PTO_LOC)          \
    {                                                                                                                          \
        static_assert(pto_shim::OneOf<T, half, float>, #Name ": type not supported on 2201");                                  \
        pto_shim::Call call{#Name, at};                                                                                        \
        pto_shim::RepeatReduce(call, pto_shim::Fold::fold, pto_shim::Extent::kWhole, dst.v, src.v,                             \
                               pto_shim::ReduceShape(call, src.v.type, pto_shim::Wide<int32_t>(mask),                          \
                                                     pto_shim::Wide<int32_t>(repeatTime),                                      \
                                                     pto_shim::Wide<int32_t>(srcBlkStride),                                    \
                                                     pto_shim::Wide<int32_t>(srcRepStride)),                                   \
                               pto_shim::Wide<int32_t>(dstRepStride), PTO_ORDER_VALUE);                                        \
    }
#define PTO_ORDER
#define PTO_ORDER_VALUE ReduceOrder::ORDER_ONLY_VALUE
PTO_WHOLE(WholeReduceSum, kSum)
#undef PTO_ORDER
#undef PTO_ORDER_VALUE
#define PTO_ORDER , ReduceOrder order = ReduceOrder::ORDER_VALUE_INDEX
#define PTO_ORDER_VALUE order
PTO_WHOLE(WholeReduceMax, kMax)
PTO_WHOLE(WholeReduceMin, kMin)
#undef PTO_WHOLE
#undef PTO_ORDER
#undef PTO_ORDER_VALUE

// Here the number of repeats comes before the mask.
#define PTO_PARTS(Name, fold, extent)                                                                                          \
    template <typename T, bool isSetMask = true>                                                                               \
    inline void Name(const LocalTensor<T> &dst, const LocalTensor<T> &src, pto_shim::Field<int32_t> repeatTime,                \
                     pto_shim::Field<int32_t> mask, pto_shim::Field<int32_t> dstRepStride,                                     \
                     pto_shim::Field<int32_t> srcBlkStride, pto_shim::Field<int32_t> srcRepStride, PTO_LOC)                    \
    {                                                                                                                          \
        static_assert(pto_shim::OneOf<T, half, float>, #Name ": type not supported on 2201");                                  \
        pto_shim::Call call{#Name, at};                                                                                        \
        pto_shim::RepeatReduce(call, pto_shim::Fold::fold, pto_shim::Extent::extent, dst.v, src.v,                             \
                               pto_shim::ReduceShape(call, src.v.type, pto_shim::Wide<int32_t>(mask),                          \
                                                     pto_shim::Wide<int32_t>(repeatTime),                                      \
                                                     pto_shim::Wide<int32_t>(srcBlkStride),                                    \
                                                     pto_shim::Wide<int32_t>(srcRepStride)),                                   \
                               pto_shim::Wide<int32_t>(dstRepStride), ReduceOrder::ORDER_ONLY_VALUE);                          \
    }
PTO_PARTS(BlockReduceSum, kSum, kBlock)
PTO_PARTS(BlockReduceMax, kMax, kBlock)
PTO_PARTS(BlockReduceMin, kMin, kBlock)
PTO_PARTS(PairReduceSum, kSum, kPair)
#undef PTO_PARTS

template <typename T, bool isSetMask = true>
inline void ReduceSum(const LocalTensor<T> &dst, const LocalTensor<T> &src, const LocalTensor<T> &tmp,
                      pto_shim::Field<int32_t> count, PTO_LOC)
{
    static_assert(pto_shim::OneOf<T, half, float>, "ReduceSum: type not supported on 2201");
    pto_shim::CountReduce({"ReduceSum", at}, pto_shim::Fold::kSum, dst.v, src.v, tmp.v, pto_shim::Wide<int32_t>(count), false);
}
#define PTO_COUNTED(Name, fold)                                                                                                \
    template <typename T, bool isSetMask = true>                                                                               \
    inline void Name(const LocalTensor<T> &dst, const LocalTensor<T> &src, const LocalTensor<T> &tmp,                          \
                     pto_shim::Field<int32_t> count, bool calIndex = false, PTO_LOC)                                           \
    {                                                                                                                          \
        static_assert(pto_shim::OneOf<T, half, float>, #Name ": type not supported on 2201");                                  \
        pto_shim::CountReduce({#Name, at}, pto_shim::Fold::fold, dst.v, src.v, tmp.v, pto_shim::Wide<int32_t>(count),          \
                              calIndex);                                                                                       \
    }
PTO_COUNTED(ReduceMax, kMax)
PTO_COUNTED(ReduceMin, kMin)
#undef PTO_COUNTED

#define PTO_AXIS(Name, fold, ...)                                                                                              \
    template <typename T, typename pattern, bool isReuseSource = false, typename = decltype(pattern::kRows)>                   \
    inline void Name(const LocalTensor<T> &dst, const LocalTensor<T> &src, const LocalTensor<uint8_t> &tmp,                    \
                     const uint32_t srcShape[], bool srcInnerPad, PTO_LOC)                                                     \
    {                                                                                                                          \
        static_assert(pto_shim::OneOf<T, __VA_ARGS__>, #Name " over an axis: type not supported on 2201");                     \
        pto_shim::AxisReduce({#Name, at}, pto_shim::Fold::fold, pattern::kRows, dst.v, src.v, tmp.v, srcShape, srcInnerPad,    \
                             isReuseSource);                                                                                   \
    }
PTO_AXIS(ReduceSum, kSum, float)
PTO_AXIS(ReduceMean, kMean, float)
PTO_AXIS(ReduceMax, kMax, half, float)
PTO_AXIS(ReduceMin, kMin, half, float)
#undef PTO_AXIS

}   // namespace AscendC
