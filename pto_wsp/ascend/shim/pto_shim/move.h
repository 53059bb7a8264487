// Data movement inside UB: broadcasts, gathers, transposes, index vectors, sorting.
#pragma once
#include "vector.h"

namespace AscendC {

struct BrcbRepeatParams {
    pto_shim::Field<uint16_t> dstBlkStride = 1, dstRepStride = 8;
    BrcbRepeatParams() = default;
    BrcbRepeatParams(pto_shim::Field<uint16_t> dstBlk, pto_shim::Field<uint16_t> dstRep) : dstBlkStride(dstBlk), dstRepStride(dstRep) {}
};
struct GatherRepeatParams {
    pto_shim::Field<uint8_t> dstBlkStride = 1, dstRepStride = 8;
    GatherRepeatParams() = default;
    GatherRepeatParams(pto_shim::Field<uint8_t> dstBlk, pto_shim::Field<uint8_t> dstRep) : dstBlkStride(dstBlk), dstRepStride(dstRep) {}
};
struct GatherMaskParams {
    pto_shim::Field<uint8_t> src0BlockStride = 1;
    pto_shim::Field<uint16_t> repeatTimes = 0, src0RepeatStride = 0;
    pto_shim::Field<uint8_t> src1RepeatStride = 0;
    GatherMaskParams() = default;
    GatherMaskParams(pto_shim::Field<uint8_t> blk, pto_shim::Field<uint16_t> repeats, pto_shim::Field<uint16_t> src0Rep,
                     pto_shim::Field<uint8_t> src1Rep)
        : src0BlockStride(blk), repeatTimes(repeats), src0RepeatStride(src0Rep), src1RepeatStride(src1Rep)
    {}
};
struct TransDataTo5HDParams {
    bool dstHighHalf = false, srcHighHalf = false;
    pto_shim::Field<uint8_t> repeatTimes = 1;
    pto_shim::Field<uint16_t> dstRepStride = 0, srcRepStride = 0;
    TransDataTo5HDParams() = default;
    TransDataTo5HDParams(bool dstHigh, bool srcHigh, pto_shim::Field<uint8_t> repeats, pto_shim::Field<uint16_t> dstRep,
                         pto_shim::Field<uint16_t> srcRep)
        : dstHighHalf(dstHigh), srcHighHalf(srcHigh), repeatTimes(repeats), dstRepStride(dstRep), srcRepStride(srcRep)
    {}
};
struct MrgSort4Info {
    pto_shim::Field<uint16_t> elementLengths[4];
    bool ifExhaustedSuspension = false;
    pto_shim::Field<uint16_t> validBit = 0;
    pto_shim::Field<uint8_t> repeatTimes = 1;
    MrgSort4Info() = default;
    MrgSort4Info(const uint16_t lengths[4], bool suspend, pto_shim::Field<uint16_t> valid, pto_shim::Field<uint16_t> repeats)
        : ifExhaustedSuspension(suspend), validBit(valid), repeatTimes(pto_shim::Wide<uint16_t>(repeats))
    {
        for (int i = 0; i < 4; ++i) {
            elementLengths[i] = lengths[i];
        }
    }
};
template <typename T> struct MrgSortSrcList {
    LocalTensor<T> src1, src2, src3, src4;
    MrgSortSrcList() = default;
    MrgSortSrcList(const LocalTensor<T> &a, const LocalTensor<T> &b, const LocalTensor<T> &c, const LocalTensor<T> &d)
        : src1(a), src2(b), src3(c), src4(d)
    {}
};

}   // namespace AscendC

namespace pto_shim {

void BrcbOp(const Call &call, const View &dst, const View &src, int64_t repeat, int64_t blk, int64_t rep);
void GatherOp(const Call &call, const View &dst, const View &src, const View &offset, int64_t base, int64_t count);
void GatherbOp(const Call &call, const View &dst, const View &src, const View &offset, int64_t repeat, int64_t blk, int64_t rep);
void GatherMaskOp(const Call &call, const View &dst, const View &src, const View *bits, int64_t pattern, bool reduce, int64_t mask,
                  const AscendC::GatherMaskParams &p, uint64_t &kept);
void TransposeOp(const Call &call, const View &dst, const View &src);
void HdTranspose(const Call &call, const uint64_t dst[16], const uint64_t src[16], DT type, const AscendC::TransDataTo5HDParams &p);
void ProgressionOp(const Call &call, const View &dst, const Scalar &first, const Scalar &step, int64_t count);
void BroadcastOp(const Call &call, const View &dst, const View &src, const View &tmp, int axis, const uint32_t to[], const uint32_t from[]);
void SortOp(const Call &call, const View &dst, const View &keys, const View &index, const View *tmp, int64_t repeat, bool whole);
void MergeOp(const Call &call, const View &dst, const View *const runs[4], const AscendC::MrgSort4Info &info);
void ExtractOp(const Call &call, const View &values, const View &index, const View &sorted, int64_t repeat);
inline Scalar ZeroScalar() { return {}; }

}   // namespace pto_shim

namespace AscendC {

template <typename T>
inline void Brcb(const LocalTensor<T> &dst, const LocalTensor<T> &src0, pto_shim::Field<uint8_t> repeatTime,
                 const BrcbRepeatParams &p, PTO_LOC)
{
    static_assert(sizeof(T) == 2 || sizeof(T) == 4, "Brcb: type not supported on 2201");
    pto_shim::Call call{"Brcb", at};
    pto_shim::BrcbOp(call, dst.v, src0.v, pto_shim::Fit<uint8_t>(call, "repeatTime", repeatTime),
                     pto_shim::Fit<uint16_t>(call, "dstBlkStride", p.dstBlkStride),
                     pto_shim::Fit<uint16_t>(call, "dstRepStride", p.dstRepStride));
}
template <typename T>
inline void Gather(const LocalTensor<T> &dst, const LocalTensor<T> &src, const LocalTensor<uint32_t> &srcOffset,
                   pto_shim::Field<uint32_t> srcBaseAddr, pto_shim::Field<uint32_t> count, PTO_LOC)
{
    static_assert(sizeof(T) == 2 || sizeof(T) == 4, "Gather: type not supported on 2201");
    pto_shim::GatherOp({"Gather", at}, dst.v, src.v, srcOffset.v, pto_shim::Wide<uint32_t>(srcBaseAddr),
                       pto_shim::Wide<uint32_t>(count));
}
template <typename T>
inline void Gatherb(const LocalTensor<T> &dst, const LocalTensor<T> &src0, const LocalTensor<uint32_t> &offset,
                    pto_shim::Field<uint8_t> repeatTime, const GatherRepeatParams &p, PTO_LOC)
{
    static_assert(pto_shim::OneOf<T, uint16_t, uint32_t>, "Gatherb: type not supported on 2201");
    pto_shim::Call call{"Gatherb", at};
    pto_shim::GatherbOp(call, dst.v, src0.v, offset.v, pto_shim::Fit<uint8_t>(call, "repeatTime", repeatTime),
                        pto_shim::Wide<uint8_t>(p.dstBlkStride), pto_shim::Wide<uint8_t>(p.dstRepStride));
}
template <typename T>
inline void GatherMask(const LocalTensor<T> &dst, const LocalTensor<T> &src0, pto_shim::Field<uint8_t> src1Pattern, bool reduceMode,
                       pto_shim::Field<uint32_t> mask, const GatherMaskParams &p, uint64_t &rsvdCnt, PTO_LOC)
{
    static_assert(sizeof(T) == 2 || sizeof(T) == 4, "GatherMask: type not supported on 2201");
    pto_shim::GatherMaskOp({"GatherMask", at}, dst.v, src0.v, nullptr, pto_shim::Wide<uint8_t>(src1Pattern), reduceMode,
                           pto_shim::Wide<uint32_t>(mask), p, rsvdCnt);
}
template <typename T, typename U>
inline void GatherMask(const LocalTensor<T> &dst, const LocalTensor<T> &src0, const LocalTensor<U> &src1Pattern, bool reduceMode,
                       pto_shim::Field<uint32_t> mask, const GatherMaskParams &p, uint64_t &rsvdCnt, PTO_LOC)
{
    static_assert((sizeof(T) == 4 && std::is_same_v<U, uint32_t>) || (sizeof(T) == 2 && std::is_same_v<U, uint16_t>),
                  "GatherMask: the pattern is uint32_t for 4-byte and uint16_t for 2-byte elements");
    pto_shim::GatherMaskOp({"GatherMask", at}, dst.v, src0.v, &src1Pattern.v, 0, reduceMode, pto_shim::Wide<uint32_t>(mask), p,
                           rsvdCnt);
}
template <typename T> inline void Transpose(const LocalTensor<T> &dst, const LocalTensor<T> &src, PTO_LOC)
{
    static_assert(pto_shim::OneOf<T, half, int16_t, uint16_t>, "Transpose: type not supported on 2201");
    pto_shim::TransposeOp({"Transpose", at}, dst.v, src.v);
}
template <typename T>
inline void TransDataTo5HD(uint64_t dstList[16], uint64_t srcList[16], const TransDataTo5HDParams &p, PTO_LOC)
{
    static_assert(sizeof(T) <= 4, "TransDataTo5HD: type not supported on 2201");
    pto_shim::HdTranspose({"TransDataTo5HD", at}, dstList, srcList, pto_shim::TypeOf<T>(), p);
}
template <typename T>
inline void TransDataTo5HD(const LocalTensor<T> (&dstList)[16], const LocalTensor<T> (&srcList)[16], const TransDataTo5HDParams &p,
                           PTO_LOC)
{
    uint64_t to[16], from[16];
    for (int i = 0; i < 16; ++i) {
        to[i] = reinterpret_cast<uint64_t>(dstList[i].GetPhyAddr());
        from[i] = reinterpret_cast<uint64_t>(srcList[i].GetPhyAddr());
    }
    TransDataTo5HD<T>(to, from, p, at);
}
template <typename T>
inline void CreateVecIndex(LocalTensor<T> dst, const T &firstValue, pto_shim::Field<uint32_t> count, PTO_LOC)
{
    static_assert(pto_shim::OneOf<T, half, float, int16_t, int32_t>, "CreateVecIndex: type not supported on 2201");
    pto_shim::ProgressionOp({"CreateVecIndex", at}, dst.v, pto_shim::ScalarOf(firstValue), pto_shim::ScalarOf(T(1)),
                            pto_shim::Wide<uint32_t>(count));
}
template <typename T>
inline void ArithProgression(const LocalTensor<T> &dst, const T firstValue, const T diffValue, pto_shim::Field<int32_t> count, PTO_LOC)
{
    static_assert(pto_shim::OneOf<T, half, float, int16_t, int32_t>, "ArithProgression: type not supported on 2201");
    pto_shim::ProgressionOp({"ArithProgression", at}, dst.v, pto_shim::ScalarOf(firstValue), pto_shim::ScalarOf(diffValue),
                            pto_shim::Wide<int32_t>(count));
}
template <typename T>
inline void Arange(const LocalTensor<T> &dst, const T firstValue, const T diffValue, pto_shim::Field<int32_t> count, PTO_LOC)
{
    ArithProgression(dst, firstValue, diffValue, count, at);
}
template <typename T, int32_t dim, int32_t axis, bool isReuseSource = false>
inline void Broadcast(const LocalTensor<T> &dst, const LocalTensor<T> &src, const uint32_t dstShape[dim], const uint32_t srcShape[dim],
                      LocalTensor<uint8_t> &tmp, PTO_LOC)
{
    static_assert(pto_shim::OneOf<T, half, float, int8_t, uint8_t>, "Broadcast: type not supported on 2201");
    static_assert(dim == 2 && (axis == 0 || axis == 1), "Broadcast: two dimensions, axis 0 or 1");
    pto_shim::BroadcastOp({"Broadcast", at}, dst.v, src.v, tmp.v, axis, dstShape, srcShape);
}

template <typename T> inline uint32_t GetSortLen(const uint32_t elements) { return elements * 8 / static_cast<uint32_t>(sizeof(T)); }
template <typename T> inline uint32_t GetSortOffset(const uint32_t elements) { return GetSortLen<T>(elements); }
template <typename T>
inline void Sort32(const LocalTensor<T> &dst, const LocalTensor<T> &src0, const LocalTensor<uint32_t> &src1,
                   pto_shim::Field<int32_t> repeatTime, PTO_LOC)
{
    static_assert(pto_shim::OneOf<T, half, float>, "Sort32: type not supported on 2201");
    pto_shim::SortOp({"Sort32", at}, dst.v, src0.v, src1.v, nullptr, pto_shim::Wide<int32_t>(repeatTime), false);
}
template <typename T, bool isFullSort>
inline void Sort(const LocalTensor<T> &dst, const LocalTensor<T> &concat, const LocalTensor<uint32_t> &index, LocalTensor<T> &tmp,
                 pto_shim::Field<int32_t> repeatTime, PTO_LOC)
{
    static_assert(pto_shim::OneOf<T, half, float>, "Sort: type not supported on 2201");
    pto_shim::SortOp({"Sort", at}, dst.v, concat.v, index.v, &tmp.v, pto_shim::Wide<int32_t>(repeatTime), isFullSort);
}
template <typename T>
inline void Concat(LocalTensor<T> &concat, const LocalTensor<T> &src, const LocalTensor<T> &, pto_shim::Field<int32_t>)
{
    concat = src;
}
template <typename T>
inline void MrgSort(const LocalTensor<T> &dst, const MrgSortSrcList<T> &src, const MrgSort4Info &info, PTO_LOC)
{
    static_assert(pto_shim::OneOf<T, half, float>, "MrgSort: type not supported on 2201");
    const pto_shim::View *const runs[4] = {&src.src1.v, &src.src2.v, &src.src3.v, &src.src4.v};
    pto_shim::MergeOp({"MrgSort", at}, dst.v, runs, info);
}
template <typename T>
inline void Extract(const LocalTensor<T> &dstValue, const LocalTensor<uint32_t> &dstIndex, const LocalTensor<T> &sorted,
                    pto_shim::Field<int32_t> repeatTime, PTO_LOC)
{
    static_assert(pto_shim::OneOf<T, half, float>, "Extract: type not supported on 2201");
    pto_shim::ExtractOp({"Extract", at}, dstValue.v, dstIndex.v, sorted.v, pto_shim::Wide<int32_t>(repeatTime));
}

}   // namespace AscendC
