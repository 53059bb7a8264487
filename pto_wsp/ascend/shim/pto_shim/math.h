// The high-level element-wise functions. Each is one step of the vector pipe with scratch in UB.
#pragma once
#include "vector.h"

namespace pto_shim {

// tmp: scratch, null when the call has none; least: bytes it needs at least; in_place: dst may be src
void HighOp(const Call &call, Op op, const View &dst, const View &src0, const View *src1, const View *tmp, const Scalar &scalar,
            int64_t count, int64_t least, bool in_place);

}   // namespace pto_shim

namespace AscendC {

#define PTO_MATH(Name, half_least, float_least, in_place)                                                                      \
    template <typename T, bool isReuseSource = false>                                                                          \
    inline void Name(const LocalTensor<T> &dst, const LocalTensor<T> &src, const LocalTensor<uint8_t> &sharedTmpBuffer,        \
                     pto_shim::Field<uint32_t> calCount, PTO_LOC)                                                              \
    {                                                                                                                          \
        static_assert(pto_shim::OneOf<T, half, float>, #Name ": type not supported on 2201");                                  \
        pto_shim::HighOp({#Name, at}, pto_shim::Op::k##Name, dst.v, src.v, nullptr, &sharedTmpBuffer.v, {},                    \
                         pto_shim::Wide<uint32_t>(calCount), sizeof(T) == 2 ? half_least : float_least, in_place);             \
    }
PTO_MATH(Tanh, 1024, 256, false)
PTO_MATH(Sigmoid, 256, 256, false)
PTO_MATH(Gelu, 768, 768, true)
PTO_MATH(FasterGelu, 768, 768, true)
PTO_MATH(Sin, 2048, 768, false)
PTO_MATH(Cos, 2048, 768, false)
PTO_MATH(Erf, 2048, 768, false)
PTO_MATH(Erfc, 2048, 1792, false)
PTO_MATH(Log2, 512, 0, false)
PTO_MATH(Tan, 2560, 1024, false)
PTO_MATH(Sinh, 1024, 256, false)
PTO_MATH(Cosh, 1024, 512, false)
PTO_MATH(Asin, 1536, 512, false)
PTO_MATH(Acos, 1536, 512, false)
PTO_MATH(Atan, 1536, 1280, false)
PTO_MATH(Asinh, 1536, 768, false)
PTO_MATH(Acosh, 1024, 256, false)
PTO_MATH(Atanh, 1024, 256, false)
#undef PTO_MATH

template <typename T> inline void Silu(const LocalTensor<T> &dst, const LocalTensor<T> &src, pto_shim::Field<uint32_t> dataSize, PTO_LOC)
{
    static_assert(pto_shim::OneOf<T, half, float>, "Silu: type not supported on 2201");
    pto_shim::HighOp({"Silu", at}, pto_shim::Op::kSilu, dst.v, src.v, nullptr, nullptr, {}, pto_shim::Wide<uint32_t>(dataSize), 0, false);
}
template <typename T>
inline void Swish(const LocalTensor<T> &dst, const LocalTensor<T> &src, pto_shim::Field<uint32_t> dataSize, const T scalarValue, PTO_LOC)
{
    static_assert(pto_shim::OneOf<T, half, float>, "Swish: type not supported on 2201");
    pto_shim::HighOp({"Swish", at}, pto_shim::Op::kSwish, dst.v, src.v, nullptr, nullptr, pto_shim::ScalarOf(scalarValue),
                     pto_shim::Wide<uint32_t>(dataSize), 0, false);
}
template <typename T, bool isReuseSource = false>
inline void Log10(const LocalTensor<T> &dst, const LocalTensor<T> &src, pto_shim::Field<uint32_t> calCount, PTO_LOC)
{
    static_assert(pto_shim::OneOf<T, half, float>, "Log10: type not supported on 2201");
    pto_shim::HighOp({"Log10", at}, pto_shim::Op::kLog10, dst.v, src.v, nullptr, nullptr, {}, pto_shim::Wide<uint32_t>(calCount), 0, false);
}
template <typename T, bool isReuseSource = false>
inline void Power(const LocalTensor<T> &dst, const LocalTensor<T> &base, const LocalTensor<T> &exponent,
                  const LocalTensor<uint8_t> &sharedTmpBuffer, pto_shim::Field<uint32_t> calCount, PTO_LOC)
{
    static_assert(pto_shim::OneOf<T, half, float, int32_t>, "Power: type not supported on 2201");
    constexpr int64_t f = std::is_same_v<T, half> ? 14 : std::is_same_v<T, float> ? 4 : 6;
    pto_shim::HighOp({"Power", at}, pto_shim::Op::kPower, dst.v, base.v, &exponent.v, &sharedTmpBuffer.v, {},
                     pto_shim::Wide<uint32_t>(calCount), f * 256 + 256, false);
}
template <typename T, bool isReuseSource = false>
inline void Power(const LocalTensor<T> &dst, const LocalTensor<T> &base, const T &exponent, const LocalTensor<uint8_t> &sharedTmpBuffer,
                  pto_shim::Field<uint32_t> calCount, PTO_LOC)
{
    static_assert(pto_shim::OneOf<T, half, float, int32_t>, "Power: type not supported on 2201");
    constexpr int64_t f = std::is_same_v<T, half> ? 14 : std::is_same_v<T, float> ? 5 : 7;
    pto_shim::HighOp({"Power", at}, pto_shim::Op::kPower, dst.v, base.v, nullptr, &sharedTmpBuffer.v, pto_shim::ScalarOf(exponent),
                     pto_shim::Wide<uint32_t>(calCount), f * 256 + 256, false);
}
template <typename T, bool isReuseSource = false>
inline void Fmod(const LocalTensor<T> &dst, const LocalTensor<T> &src0, const LocalTensor<T> &src1,
                 const LocalTensor<uint8_t> &sharedTmpBuffer, pto_shim::Field<uint32_t> calCount, PTO_LOC)
{
    static_assert(pto_shim::OneOf<T, half, float>, "Fmod: type not supported on 2201");
    pto_shim::HighOp({"Fmod", at}, pto_shim::Op::kFmod, dst.v, src0.v, &src1.v, &sharedTmpBuffer.v, {},
                     pto_shim::Wide<uint32_t>(calCount), sizeof(T) == 2 ? 1280 : 256, false);
}
template <typename T, bool isReuseSource = false>
inline void Xor(const LocalTensor<T> &dst, const LocalTensor<T> &src0, const LocalTensor<T> &src1,
                const LocalTensor<uint8_t> &sharedTmpBuffer, pto_shim::Field<uint32_t> calCount, PTO_LOC)
{
    static_assert(pto_shim::OneOf<T, int16_t, uint16_t>, "Xor: type not supported on 2201");
    pto_shim::HighOp({"Xor", at}, pto_shim::Op::kXor, dst.v, src0.v, &src1.v, &sharedTmpBuffer.v, {},
                     pto_shim::Wide<uint32_t>(calCount), 256, false);
}

}   // namespace AscendC
