// Numbers of the task generator: 64 bits that wrap, as the simulator computes;
// argument words; elements as slots hold them.
#ifndef PTO_WSP_NUMBERS_H_
#define PTO_WSP_NUMBERS_H_

#include <cstdint>
#include <cstring>

#include "include/plan.h"

namespace aicpu {

inline int64_t WrapAdd(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) +
                              static_cast<uint64_t>(b));
}
inline int64_t WrapSub(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) -
                              static_cast<uint64_t>(b));
}
inline int64_t WrapMul(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) *
                              static_cast<uint64_t>(b));
}

// C's quotient and remainder; 0 for a zero divisor.
inline int64_t Quotient(int64_t a, int64_t b) {
  return b == 0 ? 0 : b == -1 ? WrapSub(0, a) : a / b;
}
inline int64_t Remainder(int64_t a, int64_t b) {
  return b == 0 || b == -1 ? 0 : a % b;
}
inline uint64_t Quotient(uint64_t a, uint64_t b) { return b == 0 ? 0 : a / b; }
inline uint64_t Remainder(uint64_t a, uint64_t b) { return b == 0 ? 0 : a % b; }

// Less than 0, 0 or more than 0, as the numbers compare in mathematics.
inline int Compare(int64_t a, uint64_t b) {
  if (a < 0 || static_cast<uint64_t>(a) < b) {
    return -1;
  }
  return static_cast<uint64_t>(a) == b ? 0 : 1;
}
inline int Compare(uint64_t a, int64_t b) { return -Compare(b, a); }

// Sums and products of an index: `ok` tells whether all of them were exact.
struct Exact {
  bool ok = true;
  template <typename T>
  T Add(T a, T b) {
    T sum;
    ok = !__builtin_add_overflow(a, b, &sum) && ok;
    return sum;
  }
  template <typename T>
  T Sub(T a, T b) {
    T difference;
    ok = !__builtin_sub_overflow(a, b, &difference) && ok;
    return difference;
  }
  template <typename T>
  T Mul(T a, T b) {
    T product;
    ok = !__builtin_mul_overflow(a, b, &product) && ok;
    return product;
  }
};

template <typename T, typename F>
inline T BitsAs(F from) {
  static_assert(sizeof(T) == sizeof(F), "the same bits");
  T to;
  std::memcpy(&to, &from, sizeof(T));
  return to;
}
// The argument word of an integer: the low bits, as T has them.
template <typename T, typename From>
inline int64_t Word(From value) {
  return static_cast<int64_t>(static_cast<T>(value));
}
// The argument word of a float.
inline int64_t FloatWord(float x) { return BitsAs<uint32_t>(x); }
// An integer's float, rounded to the nearest half or bfloat16 (ties to even).
inline float RoundTo(float x, uint32_t cut, float most) {
  const uint32_t bits = BitsAs<uint32_t>(x);
  const uint32_t up = (1u << (cut - 1)) - 1 + ((bits >> cut) & 1);
  const float near = BitsAs<float>((bits + up) >> cut << cut);
  if (near > most || near < -most) {
    return BitsAs<float>((bits & 0x80000000u) | 0x7F800000u);
  }
  return near;
}
inline float AsHalf(float x) {
  const float size = x < 0 ? -x : x;
  if (!(size < 6.103515625e-05f)) {
    return x == x ? RoundTo(x, 13, 65504.0f) : x;
  }
  const float whole = size * 16777216.0f;  // subnormal: a multiple of 2^-24
  uint32_t n = static_cast<uint32_t>(whole);
  const float rest = whole - static_cast<float>(n);
  n += rest > 0.5f || (rest == 0.5f && n % 2 == 1) ? 1 : 0;
  const float near = static_cast<float>(n) / 16777216.0f;
  return x < 0 ? -near : near;
}
inline float AsBfloat16(float x) {
  return x == x ? RoundTo(x, 16, 3.3895314e38f) : x;
}

// An element as a slot holds it: integers extended by their sign, floats
// truncated; what a slot cannot hold becomes its nearest value, NaN 0.
inline uint64_t Truncated(double x) {
  if (!(x > 0)) {
    return 0;
  }
  return x >= 18446744073709551616.0 ? UINT64_MAX : static_cast<uint64_t>(x);
}
template <typename T>
inline T Read(uint64_t address) {
  T value;
  std::memcpy(&value, reinterpret_cast<const void *>(address), sizeof(T));
  return value;
}
inline double HalfAt(uint64_t address) {
  const uint16_t bits = Read<uint16_t>(address);
  const uint32_t exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent == 31) {
    return fraction != 0 ? 0.0 : bits >> 15 != 0 ? -1.0 : 1e300;
  }
  const double size =
      exponent == 0 ? fraction / 16777216.0
                    : (1024 + fraction) / 16777216.0 *
                          static_cast<double>(1u << (exponent - 1));
  return bits >> 15 != 0 ? -size : size;
}
inline uint64_t Element(uint64_t address, plan::Type type) {
  switch (type) {
    case plan::kF16:
      return Truncated(HalfAt(address));
    case plan::kBf16:
      return Truncated(BitsAs<float>(
          static_cast<uint32_t>(Read<uint16_t>(address)) << 16));
    case plan::kF32:
      return Truncated(Read<float>(address));
    case plan::kF64:
      return Truncated(Read<double>(address));
    case plan::kI8:
      return static_cast<uint64_t>(int64_t{Read<int8_t>(address)});
    case plan::kI16:
      return static_cast<uint64_t>(int64_t{Read<int16_t>(address)});
    case plan::kI32:
      return static_cast<uint64_t>(int64_t{Read<int32_t>(address)});
    case plan::kU8:
      return Read<uint8_t>(address);
    case plan::kU16:
      return Read<uint16_t>(address);
    case plan::kU32:
      return Read<uint32_t>(address);
    default:
      return Read<uint64_t>(address);
  }
}

}  // namespace aicpu

#endif  // PTO_WSP_NUMBERS_H_
