// Arithmetic with a named rounding: __dadd_rn, __fmul_ru, __double2float_rd and their kin.
//
// Nearest: plain operations behind a barrier across which no compiler may fuse. Up, down, towards
// zero: the processor's rounding mode is set around the one operation.
#pragma once

#include <cfenv>
#include <cmath>
#include <limits>
#include <string>

#include "emu/block.hpp"
#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace emu {

// Computes the value in place: not folded, not moved across a mode change, not fused.
template <class T>
inline T opaque(T value) {
#if defined(__SSE2__)
  __asm__ volatile("" : "+x"(value));
#else
  __asm__ volatile("" : "+m"(value));
#endif
  return value;
}

// A kernel rounds to nearest and keeps denormals, whatever the calling thread has set.
class DeviceArithmetic {
 public:
#if defined(__SSE2__)
  DeviceArithmetic() : saved_(_mm_getcsr()) { _mm_setcsr(0x1f80); }
  ~DeviceArithmetic() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#else
  DeviceArithmetic() {
    std::fegetenv(&saved_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~DeviceArithmetic() { std::fesetenv(&saved_); }

 private:
  std::fenv_t saved_;
#endif
};

enum class Rounding { nearest, down, up, zero };

class RoundingScope {
 public:
  explicit RoundingScope(Rounding rounding) {
#if defined(__SSE2__)
    _mm_setcsr(0x1f80 | static_cast<unsigned>(rounding) << 13);
#else
    constexpr int kModes[] = {FE_TONEAREST, FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO};
    std::fesetround(kModes[static_cast<int>(rounding)]);
#endif
  }
  ~RoundingScope() {
#if defined(__SSE2__)
    _mm_setcsr(0x1f80);
#else
    std::fesetround(FE_TONEAREST);
#endif
  }
  RoundingScope(const RoundingScope&) = delete;
  RoundingScope& operator=(const RoundingScope&) = delete;
};

// op(operands...) in the given rounding. `op` must not touch memory that other threads see.
template <Rounding rounding, class Op, class... T>
inline auto rounded(Op op, T... operands) {
  if constexpr (rounding == Rounding::nearest) {
    return opaque(op(opaque(operands)...));
  } else {
    const RoundingScope scope(rounding);
    return opaque(op(opaque(operands)...));
  }
}

template <class To, Rounding rounding, class From>
inline To to_integer(From value) {
  if (std::isnan(value)) return 0;
  From whole = value;
  if (rounding == Rounding::nearest) whole = std::nearbyint(value);
  if (rounding == Rounding::down) whole = std::floor(value);
  if (rounding == Rounding::up) whole = std::ceil(value);
  if (rounding == Rounding::zero) whole = std::trunc(value);
  constexpr To low = std::numeric_limits<To>::min();
  constexpr To high = std::numeric_limits<To>::max();
  if (whole <= static_cast<From>(low)) return low;
  if (whole >= static_cast<From>(high)) return high;  // saturates, as the device does
  return static_cast<To>(whole);
}

}  // namespace emu

// One function for each rounding: name_rn, name_rd, name_ru, name_rz.
#define FR_EMU_UNPACK(...) __VA_ARGS__
#define FR_EMU_ROUNDED_AS(name, rounding, type, parameters, values, expression)                \
  inline type name parameters {                                                                \
    return emu::rounded<emu::Rounding::rounding>([] parameters -> type { return expression; }, \
                                                 FR_EMU_UNPACK values);                        \
  }
#define FR_EMU_ROUNDED(name, type, parameters, values, expression)            \
  FR_EMU_ROUNDED_AS(name##_rn, nearest, type, parameters, values, expression) \
  FR_EMU_ROUNDED_AS(name##_rd, down, type, parameters, values, expression)    \
  FR_EMU_ROUNDED_AS(name##_ru, up, type, parameters, values, expression)      \
  FR_EMU_ROUNDED_AS(name##_rz, zero, type, parameters, values, expression)

FR_EMU_ROUNDED(__fadd, float, (float a, float b), (a, b), a + b)
FR_EMU_ROUNDED(__fsub, float, (float a, float b), (a, b), a - b)
FR_EMU_ROUNDED(__fmul, float, (float a, float b), (a, b), a* b)
FR_EMU_ROUNDED(__fdiv, float, (float a, float b), (a, b), a / b)
FR_EMU_ROUNDED(__fsqrt, float, (float a), (a), std::sqrt(a))
FR_EMU_ROUNDED(__fmaf, float, (float a, float b, float c), (a, b, c), std::fma(a, b, c))
FR_EMU_ROUNDED(__dadd, double, (double a, double b), (a, b), a + b)
FR_EMU_ROUNDED(__dsub, double, (double a, double b), (a, b), a - b)
FR_EMU_ROUNDED(__dmul, double, (double a, double b), (a, b), a* b)
FR_EMU_ROUNDED(__ddiv, double, (double a, double b), (a, b), a / b)
FR_EMU_ROUNDED(__dsqrt, double, (double a), (a), std::sqrt(a))
FR_EMU_ROUNDED(__fma, double, (double a, double b, double c), (a, b, c), std::fma(a, b, c))
FR_EMU_ROUNDED(__double2float, float, (double a), (a), static_cast<float>(a))
FR_EMU_ROUNDED(__ll2float, float, (long long a), (a), static_cast<float>(a))
FR_EMU_ROUNDED(__ll2double, double, (long long a), (a), static_cast<double>(a))

#define FR_EMU_TO_INTEGER(name, to, from)                                                        \
  inline to name##_rn(from value) { return emu::to_integer<to, emu::Rounding::nearest>(value); } \
  inline to name##_rd(from value) { return emu::to_integer<to, emu::Rounding::down>(value); }    \
  inline to name##_ru(from value) { return emu::to_integer<to, emu::Rounding::up>(value); }      \
  inline to name##_rz(from value) { return emu::to_integer<to, emu::Rounding::zero>(value); }

FR_EMU_TO_INTEGER(__float2int, int, float)
FR_EMU_TO_INTEGER(__float2uint, unsigned, float)
FR_EMU_TO_INTEGER(__float2ll, long long, float)
FR_EMU_TO_INTEGER(__double2int, int, double)
FR_EMU_TO_INTEGER(__double2ll, long long, double)

inline float __int2float_rn(int value) { return __ll2float_rn(value); }
inline float __int2float_rd(int value) { return __ll2float_rd(value); }
inline float __int2float_ru(int value) { return __ll2float_ru(value); }
inline float __int2float_rz(int value) { return __ll2float_rz(value); }
inline float __uint2float_rn(unsigned value) { return __ll2float_rn(value); }
inline double __int2double_rn(int value) { return value; }
inline double __uint2double_rn(unsigned value) { return value; }

#undef FR_EMU_TO_INTEGER
#undef FR_EMU_ROUNDED
#undef FR_EMU_ROUNDED_AS
#undef FR_EMU_UNPACK
