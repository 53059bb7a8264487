// half and bfloat16_t: 16-bit storage types with explicit conversions only, as the device's scalar unit allows: no
// arithmetic and no comparison. Conversions round once, to nearest even.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace pto_shim {

inline uint32_t BitsOf(float v)
{
    uint32_t b;
    std::memcpy(&b, &v, 4);
    return b;
}
inline float FloatOf(uint32_t b)
{
    float v;
    std::memcpy(&v, &b, 4);
    return v;
}
// A double as a float that is odd in the last bit when it was inexact: rounding that once more is rounding once.
inline float OddFloat(double v)
{
    float f = static_cast<float>(v);
    double back = static_cast<double>(f);
    if (back == v || v != v || (BitsOf(f) & 0x7F800000u) == 0x7F800000u) {
        return f;
    }
    uint32_t b = BitsOf(f);
    if (back < 0 ? back < v : back > v) {
        b -= 1;   // towards zero; f is not zero here, a rounded-up result has a magnitude
    }
    return FloatOf(b | 1u);
}
inline float HalfToFloat(uint16_t h)
{
    uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16, exp = (h >> 10) & 31u, man = h & 1023u;
    if (exp == 31) {
        return FloatOf(sign | 0x7F800000u | (man << 13));
    }
    if (exp == 0) {
        float v = static_cast<float>(man) * 5.9604644775390625e-8f;   // 2^-24
        return FloatOf(BitsOf(v) | sign);
    }
    return FloatOf(sign | ((exp + 112) << 23) | (man << 13));
}
inline uint16_t FloatToHalf(float v)
{
    uint32_t b = BitsOf(v), sign = (b >> 16) & 0x8000u, mag = b & 0x7FFFFFFFu;
    if (mag > 0x7F800000u) {
        return static_cast<uint16_t>(sign | 0x7E00u | ((mag >> 13) & 0x1FFu));
    }
    if (mag >= 0x477FF000u) {
        return static_cast<uint16_t>(sign | 0x7C00u);
    }
    if (mag < 0x38800000u) {   // below 2^-14: subnormal
        if (mag < 0x33000000u) {
            return static_cast<uint16_t>(sign);
        }
        uint32_t shift = 126 - (mag >> 23), man = (mag & 0x7FFFFFu) | 0x800000u;
        uint32_t out = man >> shift, rest = man & ((1u << shift) - 1), mid = 1u << (shift - 1);
        out += rest > mid || (rest == mid && (out & 1u)) ? 1u : 0u;
        return static_cast<uint16_t>(sign | out);
    }
    uint32_t out = ((mag - 0x38000000u) >> 13), rest = mag & 0x1FFFu;
    out += rest > 0x1000u || (rest == 0x1000u && (out & 1u)) ? 1u : 0u;
    return static_cast<uint16_t>(sign | out);
}
inline float BfToFloat(uint16_t h) { return FloatOf(static_cast<uint32_t>(h) << 16); }
inline uint16_t FloatToBf(float v)
{
    uint32_t b = BitsOf(v);
    if ((b & 0x7FFFFFFFu) > 0x7F800000u) {
        return static_cast<uint16_t>((b >> 16) | 0x40u);
    }
    return static_cast<uint16_t>((b + 0x7FFFu + ((b >> 16) & 1u)) >> 16);
}

}   // namespace pto_shim

class half {
public:
    half() = default;
    template <typename N, typename = std::enable_if_t<std::is_arithmetic_v<N>>>
    explicit half(N v) : bits(pto_shim::FloatToHalf(pto_shim::OddFloat(static_cast<double>(v))))
    {}
    template <typename N, typename = std::enable_if_t<std::is_arithmetic_v<N>>>
    explicit operator N() const
    {
        return static_cast<N>(pto_shim::HalfToFloat(bits));
    }

private:
    uint16_t bits;
};

class bfloat16_t {
public:
    bfloat16_t() = default;
    template <typename N, typename = std::enable_if_t<std::is_arithmetic_v<N>>>
    explicit bfloat16_t(N v) : bits(pto_shim::FloatToBf(pto_shim::OddFloat(static_cast<double>(v))))
    {}
    template <typename N, typename = std::enable_if_t<std::is_arithmetic_v<N>>>
    explicit operator N() const
    {
        return static_cast<N>(pto_shim::BfToFloat(bits));
    }

private:
    uint16_t bits;
};
static_assert(sizeof(half) == 2 && sizeof(bfloat16_t) == 2, "16-bit storage");
