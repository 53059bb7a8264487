// The cube path: L1 -> L0 loads, Mmad, Fixpipe.
#pragma once
#include "copy.h"
#include "vector.h"

enum QuantMode_t { NoQuant = 0, F322F16 = 1, REQ8 = 3, VDEQF16 = 4, DEQF16 = 5, F322BF16 = 16 };

namespace AscendC {

struct LoadData2DParams {
    pto_shim::Field<uint16_t> startIndex = 0;
    pto_shim::Field<uint8_t> repeatTimes = 0;
    pto_shim::Field<uint16_t> srcStride = 0;
    pto_shim::Field<uint8_t> sid = 0;
    pto_shim::Field<uint16_t> dstGap = 0;
    bool ifTranspose = false;
    pto_shim::Field<uint8_t> addrMode = 0;
    LoadData2DParams() = default;
    LoadData2DParams(pto_shim::Field<uint16_t> start, pto_shim::Field<uint8_t> repeats, pto_shim::Field<uint16_t> stride,
                     pto_shim::Field<uint8_t> sidIn, pto_shim::Field<uint16_t> gap, bool transpose, pto_shim::Field<uint8_t> mode)
        : startIndex(start), repeatTimes(repeats), srcStride(stride), sid(sidIn), dstGap(gap), ifTranspose(transpose), addrMode(mode)
    {}
};
struct LoadData2dTransposeParams {
    pto_shim::Field<uint16_t> startIndex = 0;
    pto_shim::Field<uint8_t> repeatTimes = 0;
    pto_shim::Field<uint16_t> srcStride = 0, dstGap = 0, dstFracGap = 0;
    LoadData2dTransposeParams() = default;
    LoadData2dTransposeParams(pto_shim::Field<uint16_t> start, pto_shim::Field<uint8_t> repeats, pto_shim::Field<uint16_t> stride,
                              pto_shim::Field<uint16_t> gap, pto_shim::Field<uint16_t> fracGap)
        : startIndex(start), repeatTimes(repeats), srcStride(stride), dstGap(gap), dstFracGap(fracGap)
    {}
};
struct MmadParams {
    pto_shim::Field<uint16_t> m = 0, n = 0, k = 0;
    bool isBias = false;
    int32_t fmOffset = 0;
    bool enSsparse = false, enWinogradA = false, enWinogradB = false;
    int8_t unitFlag = 0;
    bool kDirectionAlign = false, cmatrixSource = false, cmatrixInitVal = true;
    MmadParams() = default;
    MmadParams(pto_shim::Field<uint16_t> mIn, pto_shim::Field<uint16_t> nIn, pto_shim::Field<uint16_t> kIn,
               pto_shim::Field<uint8_t> unit, bool source, bool init)
        : m(mIn), n(nIn), k(kIn), unitFlag(static_cast<int8_t>(pto_shim::Wide<uint8_t>(unit))), cmatrixSource(source),
          cmatrixInitVal(init)
    {}
};
struct FixpipeParamsV220 {
    pto_shim::Field<uint16_t> nSize = 0, mSize = 0, srcStride = 0;
    pto_shim::Field<uint32_t> dstStride = 0;
    bool reluEn = false;
    QuantMode_t quantPre = NoQuant;
    uint64_t deqScalar = 0;
    pto_shim::Field<uint16_t> ndNum = 1, srcNdStride = 0, dstNdStride = 0;
    pto_shim::Field<uint8_t> unitFlag = 0;
    bool isChannelSplit = false;
    FixpipeParamsV220() = default;
    FixpipeParamsV220(pto_shim::Field<uint16_t> n, pto_shim::Field<uint16_t> m, pto_shim::Field<uint16_t> srcPitch,
                      pto_shim::Field<uint32_t> dstPitch, bool relu, QuantMode_t quant, int64_t deq, pto_shim::Field<uint16_t> num,
                      pto_shim::Field<uint16_t> srcNd, pto_shim::Field<uint16_t> dstNd, pto_shim::Field<uint8_t> unit)
        : nSize(n), mSize(m), srcStride(srcPitch), dstStride(dstPitch), reluEn(relu), quantPre(quant),
          deqScalar(static_cast<uint64_t>(deq)), ndNum(num), srcNdStride(srcNd), dstNdStride(dstNd), unitFlag(unit)
    {}
};
enum class CO2Layout : uint8_t { NZ = 0, ROW_MAJOR, COLUMN_MAJOR };
struct FixpipeConfig {
    CO2Layout format;
};
inline constexpr FixpipeConfig CFG_NZ{CO2Layout::NZ}, CFG_ROW_MAJOR{CO2Layout::ROW_MAJOR};

}   // namespace AscendC

namespace pto_shim {

void LoadFractals(const Call &call, const View &dst, const View &src, const AscendC::LoadData2DParams &p);
void LoadTransposed(const Call &call, const View &dst, const View &src, const AscendC::LoadData2dTransposeParams &p);
void MmadOp(const Call &call, const View &c, const View &a, const View &b, const View *bias, const AscendC::MmadParams &p);
void FixpipeOp(const Call &call, const GmView &dst, const View &src, const AscendC::FixpipeParamsV220 &p);
void Hf32(const Call &call, bool on);

}   // namespace pto_shim

namespace AscendC {

template <typename T>
inline void LoadData(const LocalTensor<T> &dst, const LocalTensor<T> &src, const LoadData2DParams &p, PTO_LOC)
{
    pto_shim::LoadFractals({"LoadData", at}, dst.v, src.v, p);
}
template <typename T>
inline void LoadDataWithTranspose(const LocalTensor<T> &dst, const LocalTensor<T> &src, const LoadData2dTransposeParams &p, PTO_LOC)
{
    static_assert(sizeof(T) <= 4, "LoadDataWithTranspose: type not supported");
    pto_shim::LoadTransposed({"LoadDataWithTranspose", at}, dst.v, src.v, p);
}
template <typename C, typename A, typename B>
constexpr bool kMmadTypes =
    (std::is_same_v<C, float> && std::is_same_v<A, B> && pto_shim::OneOf<A, half, bfloat16_t, float>) ||
    (std::is_same_v<C, int32_t> && std::is_same_v<A, int8_t> && std::is_same_v<B, int8_t>);
template <typename C, typename A, typename B>
inline void Mmad(const LocalTensor<C> &dst, const LocalTensor<A> &fm, const LocalTensor<B> &filter, const MmadParams &p, PTO_LOC)
{
    static_assert(kMmadTypes<C, A, B>, "Mmad: half, bfloat16_t or float into float, int8_t into int32_t");
    pto_shim::MmadOp({"Mmad", at}, dst.v, fm.v, filter.v, nullptr, p);
}
template <typename C, typename A, typename B, typename D>
inline void Mmad(const LocalTensor<C> &dst, const LocalTensor<A> &fm, const LocalTensor<B> &filter, const LocalTensor<D> &bias,
                 const MmadParams &p, PTO_LOC)
{
    static_assert(kMmadTypes<C, A, B>, "Mmad: half, bfloat16_t or float into float, int8_t into int32_t");
    static_assert(std::is_same_v<C, D>, "Mmad: the bias has the type of the result, float or int32_t");
    pto_shim::MmadOp({"Mmad", at}, dst.v, fm.v, filter.v, &bias.v, p);
}
template <typename O, typename C, const FixpipeConfig &config = CFG_ROW_MAJOR>
inline void Fixpipe(const GlobalTensor<O> &dst, const LocalTensor<C> &src, const FixpipeParamsV220 &p, PTO_LOC)
{
    static_assert(pto_shim::OneOf<C, float, int32_t>, "Fixpipe: L0C holds float or int32_t");
    static_assert(config.format == CO2Layout::ROW_MAJOR, "Fixpipe: this shim models the row-major output only");
    pto_shim::FixpipeOp({"Fixpipe", at}, dst.v, src.v, p);
}
inline void SetHF32Mode(bool on, PTO_LOC) { pto_shim::Hf32({"SetHF32Mode", at}, on); }

}   // namespace AscendC
