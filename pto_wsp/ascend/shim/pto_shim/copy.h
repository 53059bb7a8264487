// DMA: DataCopy, DataCopyPad, and copies inside UB.
#pragma once
#include "tensor.h"

namespace AscendC {

struct DataCopyParams {
    pto_shim::Field<uint16_t> blockCount = 0, blockLen = 0, srcStride = 0, dstStride = 0;
    DataCopyParams() = default;
    DataCopyParams(pto_shim::Field<uint16_t> count, pto_shim::Field<uint16_t> len, pto_shim::Field<uint16_t> srcGap,
                   pto_shim::Field<uint16_t> dstGap)
        : blockCount(count), blockLen(len), srcStride(srcGap), dstStride(dstGap)
    {}
};
struct DataCopyExtParams {
    pto_shim::Field<uint16_t> blockCount = 0;
    pto_shim::Field<uint32_t> blockLen = 0, srcStride = 0, dstStride = 0, rsv = 0;
    DataCopyExtParams() = default;
    DataCopyExtParams(pto_shim::Field<uint16_t> count, pto_shim::Field<uint32_t> len, pto_shim::Field<uint32_t> srcGap,
                      pto_shim::Field<uint32_t> dstGap, pto_shim::Field<uint32_t> reserved)
        : blockCount(count), blockLen(len), srcStride(srcGap), dstStride(dstGap), rsv(reserved)
    {}
};
struct DataCopyPadParams {
    bool isPad = false;
    pto_shim::Field<uint8_t> leftPadding = 0, rightPadding = 0;
    uint64_t paddingValue = 0;
    DataCopyPadParams() = default;
    DataCopyPadParams(bool pad, pto_shim::Field<uint8_t> left, pto_shim::Field<uint8_t> right, uint64_t value)
        : isPad(pad), leftPadding(left), rightPadding(right), paddingValue(value)
    {}
};
template <typename T> struct DataCopyPadExtParams {
    bool isPad = false;
    pto_shim::Field<uint8_t> leftPadding = 0, rightPadding = 0;
    T paddingValue = T(0);
    DataCopyPadExtParams() = default;
    DataCopyPadExtParams(bool pad, pto_shim::Field<uint8_t> left, pto_shim::Field<uint8_t> right, T value)
        : isPad(pad), leftPadding(left), rightPadding(right), paddingValue(value)
    {}
};
struct Nd2NzParams {
    pto_shim::Field<uint16_t> ndNum = 0, nValue = 0, dValue = 0, srcNdMatrixStride = 0, srcDValue = 0, dstNzC0Stride = 0,
                              dstNzNStride = 0, dstNzMatrixStride = 0;
    Nd2NzParams() = default;
    Nd2NzParams(pto_shim::Field<uint16_t> num, pto_shim::Field<uint16_t> n, pto_shim::Field<uint16_t> d,
                pto_shim::Field<uint16_t> srcMatrix, pto_shim::Field<uint16_t> srcD, pto_shim::Field<uint16_t> c0,
                pto_shim::Field<uint16_t> nStride, pto_shim::Field<uint16_t> dstMatrix)
        : ndNum(num), nValue(n), dValue(d), srcNdMatrixStride(srcMatrix), srcDValue(srcD), dstNzC0Stride(c0),
          dstNzNStride(nStride), dstNzMatrixStride(dstMatrix)
    {}
};
struct CopyRepeatParams {
    pto_shim::Field<uint16_t> dstStride = 0, srcStride = 0, dstRepeatSize = 0, srcRepeatSize = 0;
    CopyRepeatParams() = default;
    CopyRepeatParams(pto_shim::Field<uint16_t> dstBlk, pto_shim::Field<uint16_t> srcBlk, pto_shim::Field<uint16_t> dstRep,
                     pto_shim::Field<uint16_t> srcRep)
        : dstStride(dstBlk), srcStride(srcBlk), dstRepeatSize(dstRep), srcRepeatSize(srcRep)
    {}
};

}   // namespace AscendC

namespace pto_shim {

struct Rows {                         // what a copy moves; lengths in bytes, strides as gaps in bytes
    int64_t count = 0, bytes = 0, src_gap = 0, dst_gap = 0;
};
struct Padding {
    bool on = false;
    int64_t left = 0, right = 0;
    uint64_t value = 0;               // bits of one element
};
void CopyIn(const Call &call, const View &dst, const GmView &src, const Rows &rows, const Padding *pad);
void CopyOut(const Call &call, const GmView &dst, const View &src, const Rows &rows, bool padded);
void CopyLocal(const Call &call, const View &dst, const View &src, const Rows &rows);
void CopyNd2Nz(const Call &call, const View &dst, const GmView &src, const AscendC::Nd2NzParams &p);
void Whole32(const Call &call, const char *what, int64_t count, uint32_t size);

inline Rows RowsOf(const Call &call, const AscendC::DataCopyParams &p)
{
    Rows r;
    r.count = Fit<uint16_t>(call, "blockCount", p.blockCount);
    r.bytes = Fit<uint16_t>(call, "blockLen", p.blockLen) * 32;
    r.src_gap = Fit<uint16_t>(call, "srcStride", p.srcStride) * 32;
    r.dst_gap = Fit<uint16_t>(call, "dstStride", p.dstStride) * 32;
    return r;
}
inline Rows RowsOf(const Call &call, const AscendC::DataCopyExtParams &p, int64_t src_unit, int64_t dst_unit)
{
    Rows r;
    r.count = Fit<uint16_t>(call, "blockCount", p.blockCount);
    r.bytes = Fit<uint32_t>(call, "blockLen", p.blockLen);
    r.src_gap = Fit<uint32_t>(call, "srcStride", p.srcStride) * src_unit;
    r.dst_gap = Fit<uint32_t>(call, "dstStride", p.dstStride) * dst_unit;
    return r;
}
// The old 16-bit form of DataCopyPad: lengths and GM strides in bytes.
inline Rows RowsOf(const Call &call, const AscendC::DataCopyParams &p, int64_t src_unit, int64_t dst_unit)
{
    Rows r = RowsOf(call, p);
    return Rows{r.count, r.bytes / 32, r.src_gap / 32 * src_unit, r.dst_gap / 32 * dst_unit};
}
template <typename T> constexpr bool kCopies =
    OneOf<T, half, bfloat16_t, float, int8_t, uint8_t, int16_t, uint16_t, int32_t, uint32_t, int64_t, uint64_t, double>;
// The count form: elements, whole 32-byte blocks.
inline Rows RowsOf(const Call &call, int64_t count, uint32_t size)
{
    Whole32(call, "count", count, size);
    return Rows{count > 0 ? 1 : 0, count * size, 0, 0};
}

}   // namespace pto_shim

namespace AscendC {

template <typename T>
inline void DataCopy(const LocalTensor<T> &dst, const GlobalTensor<T> &src, pto_shim::Field<uint32_t> count,
                     pto_shim::Loc at = pto_shim::Loc::Here())
{
    pto_shim::Call call{"DataCopy", at};
    pto_shim::CopyIn(call, dst.v, src.v, pto_shim::RowsOf(call, pto_shim::Wide<uint32_t>(count), sizeof(T)), nullptr);
}
template <typename T>
inline void DataCopy(const GlobalTensor<T> &dst, const LocalTensor<T> &src, pto_shim::Field<uint32_t> count,
                     pto_shim::Loc at = pto_shim::Loc::Here())
{
    pto_shim::Call call{"DataCopy", at};
    pto_shim::CopyOut(call, dst.v, src.v, pto_shim::RowsOf(call, pto_shim::Wide<uint32_t>(count), sizeof(T)), false);
}
template <typename T>
inline void DataCopy(const LocalTensor<T> &dst, const LocalTensor<T> &src, pto_shim::Field<uint32_t> count,
                     pto_shim::Loc at = pto_shim::Loc::Here())
{
    pto_shim::Call call{"DataCopy", at};
    pto_shim::CopyLocal(call, dst.v, src.v, pto_shim::RowsOf(call, pto_shim::Wide<uint32_t>(count), sizeof(T)));
}
template <typename T>
inline void DataCopy(const LocalTensor<T> &dst, const GlobalTensor<T> &src, const DataCopyParams &p,
                     pto_shim::Loc at = pto_shim::Loc::Here())
{
    pto_shim::Call call{"DataCopy", at};
    pto_shim::CopyIn(call, dst.v, src.v, pto_shim::RowsOf(call, p), nullptr);
}
template <typename T>
inline void DataCopy(const GlobalTensor<T> &dst, const LocalTensor<T> &src, const DataCopyParams &p,
                     pto_shim::Loc at = pto_shim::Loc::Here())
{
    pto_shim::Call call{"DataCopy", at};
    pto_shim::CopyOut(call, dst.v, src.v, pto_shim::RowsOf(call, p), false);
}
template <typename T>
inline void DataCopy(const LocalTensor<T> &dst, const LocalTensor<T> &src, const DataCopyParams &p,
                     pto_shim::Loc at = pto_shim::Loc::Here())
{
    pto_shim::Call call{"DataCopy", at};
    pto_shim::CopyLocal(call, dst.v, src.v, pto_shim::RowsOf(call, p));
}
template <typename T>
inline void DataCopy(const LocalTensor<T> &dst, const GlobalTensor<T> &src, const Nd2NzParams &p,
                     pto_shim::Loc at = pto_shim::Loc::Here())
{
    static_assert(pto_shim::OneOf<T, half, bfloat16_t, float, int8_t, uint8_t, int16_t, uint16_t, int32_t, uint32_t>,
                  "DataCopy ND -> NZ: type not supported");
    pto_shim::CopyNd2Nz({"DataCopy", at}, dst.v, src.v, p);
}
template <typename T, typename P, typename = std::enable_if_t<pto_shim::OneOf<P, DataCopyExtParams, DataCopyParams>>>
inline void PadIn(const pto_shim::Call &call, const LocalTensor<T> &dst, const GlobalTensor<T> &src, const P &p,
                  const pto_shim::Padding &pad)
{
    static_assert(pto_shim::kCopies<T>, "DataCopyPad: type not supported");
    pto_shim::CopyIn(call, dst.v, src.v, pto_shim::RowsOf(call, p, 1, 32), &pad);
}
template <typename T>
inline void DataCopyPad(const LocalTensor<T> &dst, const GlobalTensor<T> &src, const DataCopyExtParams &p,
                        const DataCopyPadExtParams<T> &pad, pto_shim::Loc at = pto_shim::Loc::Here())
{
    pto_shim::Call call{"DataCopyPad", at};
    uint64_t bits = 0;
    std::memcpy(&bits, &pad.paddingValue, sizeof(T));
    PadIn(call, dst, src, p,
          pto_shim::Padding{pad.isPad, pto_shim::Fit<uint8_t>(call, "leftPadding", pad.leftPadding),
                            pto_shim::Fit<uint8_t>(call, "rightPadding", pad.rightPadding), bits});
}
template <typename T>
inline void DataCopyPad(const LocalTensor<T> &dst, const GlobalTensor<T> &src, const DataCopyParams &p,
                        const DataCopyPadParams &pad, pto_shim::Loc at = pto_shim::Loc::Here())
{
    pto_shim::Call call{"DataCopyPad", at};
    PadIn(call, dst, src, p,
          pto_shim::Padding{pad.isPad, pto_shim::Fit<uint8_t>(call, "leftPadding", pad.leftPadding),
                            pto_shim::Fit<uint8_t>(call, "rightPadding", pad.rightPadding), pad.paddingValue});
}
template <typename T>
inline void DataCopyPad(const GlobalTensor<T> &dst, const LocalTensor<T> &src, const DataCopyExtParams &p,
                        pto_shim::Loc at = pto_shim::Loc::Here())
{
    static_assert(pto_shim::kCopies<T>, "DataCopyPad: type not supported");
    pto_shim::Call call{"DataCopyPad", at};
    pto_shim::CopyOut(call, dst.v, src.v, pto_shim::RowsOf(call, p, 32, 1), true);
}
template <typename T>
inline void DataCopyPad(const GlobalTensor<T> &dst, const LocalTensor<T> &src, const DataCopyParams &p,
                        pto_shim::Loc at = pto_shim::Loc::Here())
{
    static_assert(pto_shim::kCopies<T>, "DataCopyPad: type not supported");
    pto_shim::Call call{"DataCopyPad", at};
    pto_shim::CopyOut(call, dst.v, src.v, pto_shim::RowsOf(call, p, 32, 1), true);
}

}   // namespace AscendC
