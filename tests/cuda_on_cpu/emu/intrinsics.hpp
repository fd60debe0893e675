// Bits, packed bytes, cached loads, min and max: intrinsics that need no other thread.
#pragma once

#include <math.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "emu/scheduler.hpp"

namespace emu {

template <class To, class From>
inline To bit_cast(From value) {
  static_assert(sizeof(To) == sizeof(From), "a bit cast keeps the size");
  To bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

template <class T>
inline T reverse_bits(T value) {
  T reversed = 0;
  for (unsigned i = 0; i < sizeof(T) * 8; i++)
    reversed |= (value >> i & 1) << (sizeof(T) * 8 - 1 - i);
  return reversed;
}

}  // namespace emu

using std::max;
using std::min;
// As on the device, a NaN loses against a number.
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x != 0 ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline int __clzll(long long x) {
  return x != 0 ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64;
}
inline unsigned __brev(unsigned x) { return emu::reverse_bits(x); }
inline unsigned long long __brevll(unsigned long long x) { return emu::reverse_bits(x); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(std::uint64_t{a} * b >> 32);
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>((std::uint64_t{high} << 32 | low) << (shift & 31) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>((std::uint64_t{high} << 32 | low) >> (shift & 31));
}
// Byte i of the result is the byte of {y, x} that nibble i of `selector` names; bit 3 of a nibble
// copies that byte's sign.
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const std::uint64_t bytes = std::uint64_t{y} << 32 | x;
  unsigned result = 0;
  for (unsigned i = 0; i < 4; i++) {
    const unsigned nibble = selector >> (4 * i) & 15u;
    unsigned byte = static_cast<unsigned>(bytes >> (8 * (nibble & 7u))) & 0xffu;
    if ((nibble & 8u) != 0) byte = (byte & 0x80u) != 0 ? 0xffu : 0;
    result |= byte << (8 * i);
  }
  return result;
}

// Sums wrap, as on the device.
inline int __dp4a(int a, int b, int c) {
  int sum = 0;
  for (unsigned shift = 0; shift < 32; shift += 8) {
    sum += int{static_cast<std::int8_t>(a >> shift)} * int{static_cast<std::int8_t>(b >> shift)};
  }
  return static_cast<int>(static_cast<unsigned>(c) + static_cast<unsigned>(sum));
}
inline unsigned __dp4a(unsigned a, unsigned b, unsigned c) {
  for (unsigned shift = 0; shift < 32; shift += 8) c += (a >> shift & 0xffu) * (b >> shift & 0xffu);
  return c;
}

inline int __float_as_int(float x) { return emu::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return emu::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return emu::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return emu::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return emu::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return emu::bit_cast<double>(x); }

template <class T>
inline T __ldg(const T* p) {
  return *p;
}
template <class T>
inline T __ldcg(const T* p) {
  return *p;
}
template <class T>
inline T __ldcs(const T* p) {
  return *p;
}
template <class T>
inline void __stcg(T* p, T value) {
  *p = value;
}
template <class T>
inline void __stcs(T* p, T value) {
  *p = value;
}

inline void __nanosleep(unsigned) { emu::give_way(); }
[[noreturn]] inline void __trap() { emu::fail("__trap()"); }
