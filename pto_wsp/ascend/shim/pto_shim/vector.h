// Vector instructions on UB: element-wise, constants, casts, compare and select, broadcasts, gathers.
#pragma once
#include "tensor.h"

namespace AscendC {

struct BinaryRepeatParams {
    pto_shim::Field<uint8_t> dstBlkStride = 1, src0BlkStride = 1, src1BlkStride = 1, dstRepStride = 8, src0RepStride = 8,
                             src1RepStride = 8;
    BinaryRepeatParams() = default;
    BinaryRepeatParams(pto_shim::Field<uint8_t> dstBlk, pto_shim::Field<uint8_t> src0Blk, pto_shim::Field<uint8_t> src1Blk,
                       pto_shim::Field<uint8_t> dstRep, pto_shim::Field<uint8_t> src0Rep, pto_shim::Field<uint8_t> src1Rep)
        : dstBlkStride(dstBlk), src0BlkStride(src0Blk), src1BlkStride(src1Blk), dstRepStride(dstRep), src0RepStride(src0Rep),
          src1RepStride(src1Rep)
    {}
};
struct UnaryRepeatParams {
    pto_shim::Field<uint16_t> dstBlkStride = 1, srcBlkStride = 1;
    pto_shim::Field<uint8_t> dstRepStride = 8, srcRepStride = 8;
    UnaryRepeatParams() = default;
    UnaryRepeatParams(pto_shim::Field<uint16_t> dstBlk, pto_shim::Field<uint16_t> srcBlk, pto_shim::Field<uint8_t> dstRep,
                      pto_shim::Field<uint8_t> srcRep)
        : dstBlkStride(dstBlk), srcBlkStride(srcBlk), dstRepStride(dstRep), srcRepStride(srcRep)
    {}
};
enum class RoundMode { CAST_NONE = 0, CAST_RINT, CAST_FLOOR, CAST_CEIL, CAST_ROUND, CAST_TRUNC, CAST_ODD };
enum class CMPMODE { LT = 0, GT, EQ, LE, GE, NE };
enum class SELMODE { VSEL_CMPMASK_SPR = 0, VSEL_TENSOR_SCALAR_MODE, VSEL_TENSOR_TENSOR_MODE };
enum class MaskMode : uint8_t { NORMAL = 0, COUNTER };
constexpr uint64_t MASK_PLACEHOLDER = 0;

}   // namespace AscendC

namespace pto_shim {

// How often and where: the count form (counter) or mask and repeats with strides in 32-byte blocks.
struct Shape {
    bool counter = false, placeholder = false;
    int64_t count = 0;                       // counter
    uint64_t mask[2] = {0, 0};
    int64_t repeat = 0;
    int64_t blk[3] = {1, 1, 1}, rep[3] = {8, 8, 8};   // dst, src0, src1
};
enum class Op : uint8_t {
    kAdd, kSub, kMul, kDiv, kMax, kMin, kAnd, kOr, kAddRelu, kSubRelu, kMulAddDst, kFusedMulAdd, kMulAddRelu,   // binary
    kAbs, kExp, kLn, kSqrt, kRsqrt, kReciprocal, kRelu, kNot, kCopy,                                            // unary
    kAdds, kMuls, kMaxs, kMins, kLeakyRelu, kAxpy, kShiftLeft, kShiftRight,                                     // with a scalar
    kTanh, kSigmoid, kGelu, kFasterGelu, kSilu, kSwish, kSin, kCos, kErf, kErfc, kLog2, kLog10, kTan, kSinh, kCosh, kAsin,
    kAcos, kAtan, kAsinh, kAcosh, kAtanh, kFloor, kCeil, kRound, kTrunc, kSign, kFrac, kRint, kExpHigh,          // high level
    kPower, kFmod, kXor
};
Shape Count(const Call &call, int64_t count);
Shape Repeats(const Call &call, DT wide, uint64_t low, uint64_t high, bool bits, int64_t repeat);
void SetStrides(const Call &call, Shape &s, const AscendC::BinaryRepeatParams &p);
void SetStrides(const Call &call, Shape &s, const AscendC::UnaryRepeatParams &p);
void SetStrides(const Call &call, Shape &s, int64_t dst_blk, int64_t dst_rep);
void VectorOp(const Call &call, Op op, const View &dst, const View *src0, const View *src1, const Scalar &scalar, const Shape &s);
void CastOp(const Call &call, const View &dst, const View &src, AscendC::RoundMode mode, const Shape &s);
void CompareOp(const Call &call, const View &dst, const View &src0, const View *src1, const Scalar &scalar, AscendC::CMPMODE mode,
               const Shape &s);
void SelectOp(const Call &call, const View &dst, const View &mask, const View &src0, const View *src1, const Scalar &scalar,
              AscendC::SELMODE mode, const Shape &s);
void FillOp(const Call &call, const View &dst, const void *value, const Shape &s);
void SetDeq(const Call &call);
void MaskNorm(const Call &call, bool counter);
void VectorMask(const Call &call, bool counter, uint64_t high, uint64_t low);
void MaskReset(const Call &call);

}   // namespace pto_shim

namespace AscendC {

#define PTO_LOC pto_shim::Loc at = pto_shim::Loc::Here()
// dst, src0, src1: count form; mask and repeat; bit mask and repeat.
#define PTO_BINARY(Name, ...)                                                                                                  \
    template <typename T>                                                                                                      \
    inline void Name(const LocalTensor<T> &dst, const LocalTensor<T> &src0, const LocalTensor<T> &src1,                        \
                     pto_shim::Field<int32_t> count, PTO_LOC)                                                                  \
    {                                                                                                                          \
        static_assert(pto_shim::OneOf<T, __VA_ARGS__>, #Name ": type not supported on 2201");                                  \
        pto_shim::Call call{#Name, at};                                                                                        \
        pto_shim::VectorOp(call, pto_shim::Op::k##Name, dst.v, &src0.v, &src1.v, {},                                           \
                           pto_shim::Count(call, pto_shim::Wide<int32_t>(count)));                                             \
    }                                                                                                                          \
    template <typename T, bool isSetMask = true>                                                                               \
    inline void Name(const LocalTensor<T> &dst, const LocalTensor<T> &src0, const LocalTensor<T> &src1, uint64_t mask,         \
                     pto_shim::Field<uint8_t> repeatTime, const BinaryRepeatParams &p, PTO_LOC)                                \
    {                                                                                                                          \
        static_assert(pto_shim::OneOf<T, __VA_ARGS__>, #Name ": type not supported on 2201");                                  \
        pto_shim::Call call{#Name, at};                                                                                        \
        pto_shim::Shape s =                                                                                                    \
            pto_shim::Repeats(call, dst.v.type, mask, 0, !isSetMask, pto_shim::Fit<uint8_t>(call, "repeatTime", repeatTime));  \
        pto_shim::SetStrides(call, s, p);                                                                                      \
        pto_shim::VectorOp(call, pto_shim::Op::k##Name, dst.v, &src0.v, &src1.v, {}, s);                                       \
    }                                                                                                                          \
    template <typename T, bool isSetMask = true>                                                                               \
    inline void Name(const LocalTensor<T> &dst, const LocalTensor<T> &src0, const LocalTensor<T> &src1, uint64_t mask[],       \
                     pto_shim::Field<uint8_t> repeatTime, const BinaryRepeatParams &p, PTO_LOC)                                \
    {                                                                                                                          \
        static_assert(pto_shim::OneOf<T, __VA_ARGS__>, #Name ": type not supported on 2201");                                  \
        pto_shim::Call call{#Name, at};                                                                                        \
        pto_shim::Shape s = pto_shim::Repeats(call, dst.v.type, mask[0], mask[1], true,                                        \
                                              pto_shim::Fit<uint8_t>(call, "repeatTime", repeatTime));                         \
        pto_shim::SetStrides(call, s, p);                                                                                      \
        pto_shim::VectorOp(call, pto_shim::Op::k##Name, dst.v, &src0.v, &src1.v, {}, s);                                       \
    }
PTO_BINARY(Add, half, float, int16_t, int32_t)
PTO_BINARY(Sub, half, float, int16_t, int32_t)
PTO_BINARY(Mul, half, float, int16_t, int32_t)
PTO_BINARY(Max, half, float, int16_t, int32_t)
PTO_BINARY(Min, half, float, int16_t, int32_t)
PTO_BINARY(Div, half, float)
PTO_BINARY(And, int16_t, uint16_t)
PTO_BINARY(Or, int16_t, uint16_t)
PTO_BINARY(AddRelu, half, float, int16_t)
PTO_BINARY(SubRelu, half, float, int16_t)
PTO_BINARY(MulAddDst, half, float)
PTO_BINARY(FusedMulAdd, half, float)
PTO_BINARY(MulAddRelu, half, float)
#undef PTO_BINARY

#define PTO_UNARY(Name, ...)                                                                                                   \
    template <typename T>                                                                                                      \
    inline void Name(const LocalTensor<T> &dst, const LocalTensor<T> &src, pto_shim::Field<int32_t> count, PTO_LOC)            \
    {                                                                                                                          \
        static_assert(pto_shim::OneOf<T, __VA_ARGS__>, #Name ": type not supported on 2201");                                  \
        pto_shim::Call call{#Name, at};                                                                                        \
        pto_shim::VectorOp(call, pto_shim::Op::k##Name, dst.v, &src.v, nullptr, {},                                            \
                           pto_shim::Count(call, pto_shim::Wide<int32_t>(count)));                                             \
    }                                                                                                                          \
    template <typename T, bool isSetMask = true>                                                                               \
    inline void Name(const LocalTensor<T> &dst, const LocalTensor<T> &src, uint64_t mask, pto_shim::Field<uint8_t> repeatTime, \
                     const UnaryRepeatParams &p, PTO_LOC)                                                                      \
    {                                                                                                                          \
        static_assert(pto_shim::OneOf<T, __VA_ARGS__>, #Name ": type not supported on 2201");                                  \
        pto_shim::Call call{#Name, at};                                                                                        \
        pto_shim::Shape s =                                                                                                    \
            pto_shim::Repeats(call, dst.v.type, mask, 0, !isSetMask, pto_shim::Fit<uint8_t>(call, "repeatTime", repeatTime));  \
        pto_shim::SetStrides(call, s, p);                                                                                      \
        pto_shim::VectorOp(call, pto_shim::Op::k##Name, dst.v, &src.v, nullptr, {}, s);                                        \
    }                                                                                                                          \
    template <typename T, bool isSetMask = true>                                                                               \
    inline void Name(const LocalTensor<T> &dst, const LocalTensor<T> &src, uint64_t mask[],                                    \
                     pto_shim::Field<uint8_t> repeatTime, const UnaryRepeatParams &p, PTO_LOC)                                 \
    {                                                                                                                          \
        static_assert(pto_shim::OneOf<T, __VA_ARGS__>, #Name ": type not supported on 2201");                                  \
        pto_shim::Call call{#Name, at};                                                                                        \
        pto_shim::Shape s = pto_shim::Repeats(call, dst.v.type, mask[0], mask[1], true,                                        \
                                              pto_shim::Fit<uint8_t>(call, "repeatTime", repeatTime));                         \
        pto_shim::SetStrides(call, s, p);                                                                                      \
        pto_shim::VectorOp(call, pto_shim::Op::k##Name, dst.v, &src.v, nullptr, {}, s);                                        \
    }
PTO_UNARY(Abs, half, float)
PTO_UNARY(Exp, half, float)
PTO_UNARY(Ln, half, float)
PTO_UNARY(Sqrt, half, float)
PTO_UNARY(Rsqrt, half, float)
PTO_UNARY(Reciprocal, half, float)
PTO_UNARY(Relu, half, float, int32_t)
PTO_UNARY(Not, int16_t, uint16_t)
#undef PTO_UNARY

// With a scalar of exactly the tensor's type.
#define PTO_SCALAR(Name, ...)                                                                                                  \
    template <typename T>                                                                                                      \
    inline void Name(const LocalTensor<T> &dst, const LocalTensor<T> &src, const T &scalar, pto_shim::Field<int32_t> count,    \
                     PTO_LOC)                                                                                                  \
    {                                                                                                                          \
        static_assert(pto_shim::OneOf<T, __VA_ARGS__>, #Name ": type not supported on 2201");                                  \
        pto_shim::Call call{#Name, at};                                                                                        \
        pto_shim::VectorOp(call, pto_shim::Op::k##Name, dst.v, &src.v, nullptr, pto_shim::ScalarOf(scalar),                    \
                           pto_shim::Count(call, pto_shim::Wide<int32_t>(count)));                                             \
    }                                                                                                                          \
    template <typename T, bool isSetMask = true>                                                                               \
    inline void Name(const LocalTensor<T> &dst, const LocalTensor<T> &src, const T &scalar, uint64_t mask,                     \
                     pto_shim::Field<uint8_t> repeatTime, const UnaryRepeatParams &p, PTO_LOC)                                 \
    {                                                                                                                          \
        static_assert(pto_shim::OneOf<T, __VA_ARGS__>, #Name ": type not supported on 2201");                                  \
        pto_shim::Call call{#Name, at};                                                                                        \
        pto_shim::Shape s =                                                                                                    \
            pto_shim::Repeats(call, dst.v.type, mask, 0, !isSetMask, pto_shim::Fit<uint8_t>(call, "repeatTime", repeatTime));  \
        pto_shim::SetStrides(call, s, p);                                                                                      \
        pto_shim::VectorOp(call, pto_shim::Op::k##Name, dst.v, &src.v, nullptr, pto_shim::ScalarOf(scalar), s);                \
    }                                                                                                                          \
    template <typename T, bool isSetMask = true>                                                                               \
    inline void Name(const LocalTensor<T> &dst, const LocalTensor<T> &src, const T &scalar, uint64_t mask[],                   \
                     pto_shim::Field<uint8_t> repeatTime, const UnaryRepeatParams &p, PTO_LOC)                                 \
    {                                                                                                                          \
        static_assert(pto_shim::OneOf<T, __VA_ARGS__>, #Name ": type not supported on 2201");                                  \
        pto_shim::Call call{#Name, at};                                                                                        \
        pto_shim::Shape s = pto_shim::Repeats(call, dst.v.type, mask[0], mask[1], true,                                        \
                                              pto_shim::Fit<uint8_t>(call, "repeatTime", repeatTime));                         \
        pto_shim::SetStrides(call, s, p);                                                                                      \
        pto_shim::VectorOp(call, pto_shim::Op::k##Name, dst.v, &src.v, nullptr, pto_shim::ScalarOf(scalar), s);                \
    }
PTO_SCALAR(Adds, half, float, int16_t, int32_t)
PTO_SCALAR(Muls, half, float, int16_t, int32_t)
PTO_SCALAR(Maxs, half, float, int16_t, int32_t)
PTO_SCALAR(Mins, half, float, int16_t, int32_t)
PTO_SCALAR(LeakyRelu, half, float)
PTO_SCALAR(Axpy, half, float)
PTO_SCALAR(ShiftLeft, int16_t, uint16_t, int32_t, uint32_t)
PTO_SCALAR(ShiftRight, int16_t, uint16_t, int32_t, uint32_t)
#undef PTO_SCALAR

template <typename T>
inline void Duplicate(const LocalTensor<T> &dst, const T &value, pto_shim::Field<int32_t> count, PTO_LOC)
{
    static_assert(sizeof(T) == 2 || sizeof(T) == 4, "Duplicate: type not supported on 2201");
    pto_shim::Call call{"Duplicate", at};
    pto_shim::FillOp(call, dst.v, &value, pto_shim::Count(call, pto_shim::Wide<int32_t>(count)));
}
template <typename T, bool isSetMask = true>
inline void Duplicate(const LocalTensor<T> &dst, const T &value, uint64_t mask, pto_shim::Field<uint8_t> repeatTime,
                      pto_shim::Field<uint16_t> dstBlockStride, pto_shim::Field<uint8_t> dstRepeatStride, PTO_LOC)
{
    static_assert(sizeof(T) == 2 || sizeof(T) == 4, "Duplicate: type not supported on 2201");
    pto_shim::Call call{"Duplicate", at};
    pto_shim::Shape s =
        pto_shim::Repeats(call, dst.v.type, mask, 0, !isSetMask, pto_shim::Fit<uint8_t>(call, "repeatTime", repeatTime));
    pto_shim::SetStrides(call, s, pto_shim::Fit<uint16_t>(call, "dstBlockStride", dstBlockStride),
                         pto_shim::Fit<uint8_t>(call, "dstRepeatStride", dstRepeatStride));
    pto_shim::FillOp(call, dst.v, &value, s);
}
template <typename T, bool isSetMask = true>
inline void Duplicate(const LocalTensor<T> &dst, const T &value, uint64_t mask[], pto_shim::Field<uint8_t> repeatTime,
                      pto_shim::Field<uint16_t> dstBlockStride, pto_shim::Field<uint8_t> dstRepeatStride, PTO_LOC)
{
    static_assert(sizeof(T) == 2 || sizeof(T) == 4, "Duplicate: type not supported on 2201");
    pto_shim::Call call{"Duplicate", at};
    pto_shim::Shape s = pto_shim::Repeats(call, dst.v.type, mask[0], mask[1], true,
                                          pto_shim::Fit<uint8_t>(call, "repeatTime", repeatTime));
    pto_shim::SetStrides(call, s, pto_shim::Fit<uint16_t>(call, "dstBlockStride", dstBlockStride),
                         pto_shim::Fit<uint8_t>(call, "dstRepeatStride", dstRepeatStride));
    pto_shim::FillOp(call, dst.v, &value, s);
}

template <typename T, typename U>
inline void Cast(const LocalTensor<T> &dst, const LocalTensor<U> &src, const RoundMode &mode, pto_shim::Field<uint32_t> count,
                 PTO_LOC)
{
    pto_shim::Call call{"Cast", at};
    pto_shim::CastOp(call, dst.v, src.v, mode, pto_shim::Count(call, pto_shim::Wide<uint32_t>(count)));
}
template <typename T, typename U, bool isSetMask = true>
inline void Cast(const LocalTensor<T> &dst, const LocalTensor<U> &src, const RoundMode &mode, uint64_t mask,
                 pto_shim::Field<uint8_t> repeatTime, const UnaryRepeatParams &p, PTO_LOC)
{
    pto_shim::Call call{"Cast", at};
    pto_shim::Shape s = pto_shim::Repeats(call, sizeof(T) > sizeof(U) ? dst.v.type : src.v.type, mask, 0, !isSetMask,
                                          pto_shim::Fit<uint8_t>(call, "repeatTime", repeatTime));
    pto_shim::SetStrides(call, s, p);
    pto_shim::CastOp(call, dst.v, src.v, mode, s);
}
inline void SetDeqScale(half scale, PTO_LOC)
{
    (void)scale;
    pto_shim::SetDeq({"SetDeqScale", at});
}
inline void SetDeqScale(float scale, PTO_LOC)
{
    (void)scale;
    pto_shim::SetDeq({"SetDeqScale", at});
}

template <typename T, typename U>
inline void Compare(const LocalTensor<U> &dst, const LocalTensor<T> &src0, const LocalTensor<T> &src1, CMPMODE mode,
                    pto_shim::Field<uint32_t> count, PTO_LOC)
{
    static_assert(pto_shim::OneOf<T, half, float, int32_t>, "Compare: type not supported on 2201");
    static_assert(pto_shim::OneOf<U, uint8_t, int8_t>, "Compare: the result is a tensor of uint8_t or int8_t");
    pto_shim::Call call{"Compare", at};
    pto_shim::CompareOp(call, dst.v, src0.v, &src1.v, {}, mode, pto_shim::Count(call, pto_shim::Wide<uint32_t>(count)));
}
template <typename T, typename U, bool isSetMask = true>
inline void Compare(const LocalTensor<U> &dst, const LocalTensor<T> &src0, const LocalTensor<T> &src1, CMPMODE mode,
                    uint64_t mask, pto_shim::Field<uint8_t> repeatTime, const BinaryRepeatParams &p, PTO_LOC)
{
    static_assert(pto_shim::OneOf<T, half, float, int32_t>, "Compare: type not supported on 2201");
    static_assert(pto_shim::OneOf<U, uint8_t, int8_t>, "Compare: the result is a tensor of uint8_t or int8_t");
    pto_shim::Call call{"Compare", at};
    pto_shim::Shape s =
        pto_shim::Repeats(call, src0.v.type, mask, 0, !isSetMask, pto_shim::Fit<uint8_t>(call, "repeatTime", repeatTime));
    pto_shim::SetStrides(call, s, p);
    pto_shim::CompareOp(call, dst.v, src0.v, &src1.v, {}, mode, s);
}
template <typename T, typename U>
inline void CompareScalar(const LocalTensor<U> &dst, const LocalTensor<T> &src, const T scalar, CMPMODE mode,
                          pto_shim::Field<uint32_t> count, PTO_LOC)
{
    static_assert(pto_shim::OneOf<T, half, float, int32_t>, "CompareScalar: type not supported on 2201");
    static_assert(pto_shim::OneOf<U, uint8_t, int8_t>, "CompareScalar: the result is a tensor of uint8_t or int8_t");
    pto_shim::Call call{"CompareScalar", at};
    pto_shim::CompareOp(call, dst.v, src.v, nullptr, pto_shim::ScalarOf(scalar), mode,
                        pto_shim::Count(call, pto_shim::Wide<uint32_t>(count)));
}
template <typename T, typename U>
inline void Compares(const LocalTensor<U> &dst, const LocalTensor<T> &src, const T scalar, CMPMODE mode,
                     pto_shim::Field<uint32_t> count, PTO_LOC)
{
    CompareScalar(dst, src, scalar, mode, count, at);
}

template <typename T, typename U>
inline void Select(const LocalTensor<T> &dst, const LocalTensor<U> &selMask, const LocalTensor<T> &src0,
                   const LocalTensor<T> &src1, SELMODE mode, pto_shim::Field<uint32_t> count, PTO_LOC)
{
    static_assert(pto_shim::OneOf<T, half, float>, "Select: type not supported on 2201");
    static_assert(std::is_unsigned_v<U>, "Select: the mask is a tensor of uint8_t, uint16_t, uint32_t or uint64_t");
    pto_shim::Call call{"Select", at};
    pto_shim::SelectOp(call, dst.v, selMask.v, src0.v, &src1.v, {}, mode, pto_shim::Count(call, pto_shim::Wide<uint32_t>(count)));
}
template <typename T, typename U>
inline void Select(const LocalTensor<T> &dst, const LocalTensor<U> &selMask, const LocalTensor<T> &src0, T src1, SELMODE mode,
                   pto_shim::Field<uint32_t> count, PTO_LOC)
{
    static_assert(pto_shim::OneOf<T, half, float>, "Select: type not supported on 2201");
    static_assert(std::is_unsigned_v<U>, "Select: the mask is a tensor of uint8_t, uint16_t, uint32_t or uint64_t");
    pto_shim::Call call{"Select", at};
    pto_shim::SelectOp(call, dst.v, selMask.v, src0.v, nullptr, pto_shim::ScalarOf(src1), mode,
                       pto_shim::Count(call, pto_shim::Wide<uint32_t>(count)));
}
template <typename T, typename U, bool isSetMask = true>
inline void Select(const LocalTensor<T> &dst, const LocalTensor<U> &selMask, const LocalTensor<T> &src0,
                   const LocalTensor<T> &src1, SELMODE mode, uint64_t mask, pto_shim::Field<uint8_t> repeatTime,
                   const BinaryRepeatParams &p, PTO_LOC)
{
    static_assert(pto_shim::OneOf<T, half, float>, "Select: type not supported on 2201");
    static_assert(std::is_unsigned_v<U>, "Select: the mask is a tensor of uint8_t, uint16_t, uint32_t or uint64_t");
    pto_shim::Call call{"Select", at};
    pto_shim::Shape s =
        pto_shim::Repeats(call, dst.v.type, mask, 0, !isSetMask, pto_shim::Fit<uint8_t>(call, "repeatTime", repeatTime));
    pto_shim::SetStrides(call, s, p);
    pto_shim::SelectOp(call, dst.v, selMask.v, src0.v, &src1.v, {}, mode, s);
}
template <typename T, typename U, bool isSetMask = true>
inline void Select(const LocalTensor<T> &dst, const LocalTensor<U> &selMask, const LocalTensor<T> &src0, T src1, SELMODE mode,
                   uint64_t mask, pto_shim::Field<uint8_t> repeatTime, const BinaryRepeatParams &p, PTO_LOC)
{
    static_assert(pto_shim::OneOf<T, half, float>, "Select: type not supported on 2201");
    static_assert(std::is_unsigned_v<U>, "Select: the mask is a tensor of uint8_t, uint16_t, uint32_t or uint64_t");
    pto_shim::Call call{"Select", at};
    pto_shim::Shape s =
        pto_shim::Repeats(call, dst.v.type, mask, 0, !isSetMask, pto_shim::Fit<uint8_t>(call, "repeatTime", repeatTime));
    pto_shim::SetStrides(call, s, p);
    pto_shim::SelectOp(call, dst.v, selMask.v, src0.v, nullptr, pto_shim::ScalarOf(src1), mode, s);
}

inline void SetMaskNorm(PTO_LOC) { pto_shim::MaskNorm({"SetMaskNorm", at}, false); }
inline void SetMaskCount(PTO_LOC) { pto_shim::MaskNorm({"SetMaskCount", at}, true); }
inline void ResetMask(PTO_LOC) { pto_shim::MaskReset({"ResetMask", at}); }
template <typename T, MaskMode mode = MaskMode::NORMAL> inline void SetVectorMask(uint64_t maskHigh, uint64_t maskLow, PTO_LOC)
{
    pto_shim::VectorMask({"SetVectorMask", at}, mode == MaskMode::COUNTER, maskHigh, maskLow);
}
template <typename T, MaskMode mode = MaskMode::NORMAL> inline void SetVectorMask(pto_shim::Field<int32_t> len, PTO_LOC)
{
    static_assert(mode == MaskMode::COUNTER, "SetVectorMask with one argument is for the counter mode");
    pto_shim::VectorMask({"SetVectorMask", at}, true, 0, static_cast<uint64_t>(pto_shim::Wide<int32_t>(len)));
}

template <typename T, bool isSetMask = true>
inline void Copy(const LocalTensor<T> &dst, const LocalTensor<T> &src, uint64_t mask, pto_shim::Field<uint8_t> repeatTime,
                 const CopyRepeatParams &p, PTO_LOC)
{
    static_assert(sizeof(T) == 2 || sizeof(T) == 4, "Copy: type not supported on 2201");
    pto_shim::Call call{"Copy", at};
    pto_shim::Shape s =
        pto_shim::Repeats(call, dst.v.type, mask, 0, !isSetMask, pto_shim::Fit<uint8_t>(call, "repeatTime", repeatTime));
    s.blk[0] = pto_shim::Fit<uint16_t>(call, "dstStride", p.dstStride);
    s.blk[1] = pto_shim::Fit<uint16_t>(call, "srcStride", p.srcStride);
    s.rep[0] = pto_shim::Fit<uint16_t>(call, "dstRepeatSize", p.dstRepeatSize);
    s.rep[1] = pto_shim::Fit<uint16_t>(call, "srcRepeatSize", p.srcRepeatSize);
    pto_shim::VectorOp(call, pto_shim::Op::kCopy, dst.v, &src.v, nullptr, {}, s);
}

}   // namespace AscendC
