// Exact conversions between number formats, and directed rounding. Compiles under nvcc too.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "core/portable.hpp"

namespace fastretrieve {

template <class To, class From>
FR_HD inline To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "a bit cast keeps the size");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

FR_HD inline float bfloat16_to_float(uint16_t bits) {
  return bit_cast<float>(uint32_t{bits} << 16);
}

FR_HD inline float half_to_float(uint16_t bits) {
  const uint32_t sign = (uint32_t{bits} & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1fu, fraction = bits & 0x3ffu;
  if (exponent == 0x1f) return bit_cast<float>(sign | 0x7f800000u | (fraction << 13));
  if (exponent != 0) return bit_cast<float>(sign | ((exponent + 112) << 23) | (fraction << 13));
  const float magnitude = static_cast<float>(fraction) * 0x1p-24f;  // subnormal or zero: exact
  return bit_cast<float>(sign | bit_cast<uint32_t>(magnitude));
}

// Round to nearest, ties to even, as NumPy and torch do.
FR_HD inline uint16_t float_to_bfloat16(float value) {
  uint32_t bits = bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  bits += 0x7fffu + ((bits >> 16) & 1u);
  return static_cast<uint16_t>(bits >> 16);
}

FR_HD inline uint16_t float_to_half(float value) {
  const uint32_t bits = bit_cast<uint32_t>(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return sign | 0x7e00u;
  if (magnitude >= 0x477ff000u) return sign | 0x7c00u;  // 65520 and up round to infinity
  if (magnitude < 0x38800000u) {                        // below 2^-14: a multiple of 2^-24
    const float steps = bit_cast<float>(magnitude) * 0x1p24f;
    return sign | static_cast<uint16_t>(rintf(steps));
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return sign | static_cast<uint16_t>((rounded - 0x38000000u) >> 13);
}

// The smallest float32 that is not below `value`, and the largest that is not above it.
FR_HD inline float round_up(double value) {
  const float nearest = static_cast<float>(value);
  return static_cast<double>(nearest) < value ? nextafterf(nearest, HUGE_VALF) : nearest;
}
FR_HD inline float round_down(double value) {
  const float nearest = static_cast<float>(value);
  return static_cast<double>(nearest) > value ? nextafterf(nearest, -HUGE_VALF) : nearest;
}

}  // namespace fastretrieve
