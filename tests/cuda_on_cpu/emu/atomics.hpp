// Atomics: relaxed, as on the device, so they order nothing else. With a seed, another thread may
// run before one. Fences order accesses before one fence with those after a later one; a
// ThreadSanitizer build sees them through a tag.
#pragma once

#include <cstdint>
#include <type_traits>

#include "emu/scheduler.hpp"

namespace emu {

template <class T>
struct Identity {
  using type = T;
};
template <class T>
using Same = typename Identity<T>::type;  // not deduced, so that atomicAdd(u64, 1) works

template <class T, class... Allowed>
constexpr bool kIsOneOf = (std::is_same<T, Allowed>::value || ...);

using u64 = unsigned long long;
template <class T>
constexpr bool kAddable = kIsOneOf<T, int, unsigned, u64, float, double>;
template <class T>
constexpr bool kOrderable = kIsOneOf<T, int, unsigned, long long, u64>;
template <class T>
constexpr bool kBitwise = kIsOneOf<T, int, unsigned, u64>;

// Replaces the value by update(old) in one step. Returns the old one.
template <class T, class Update>
inline T atomic_update(T* p, Update update) {
  T old;
  __atomic_load(p, &old, __ATOMIC_RELAXED);
  for (;;) {
    T next = update(old);
    if (__atomic_compare_exchange(p, &old, &next, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
      return old;
    }
  }
}

inline char device_fence_tag;

}  // namespace emu

template <class T>
inline T atomicAdd(T* p, emu::Same<T> value) {
  static_assert(emu::kAddable<T>, "CUDA has atomicAdd for int, unsigned, u64, float, double");
  emu::maybe_interrupt();
  if constexpr (std::is_integral<T>::value) {
    return __atomic_fetch_add(p, value, __ATOMIC_RELAXED);
  } else {
    return emu::atomic_update(p, [value](T old) { return old + value; });
  }
}
template <class T>
inline T atomicSub(T* p, emu::Same<T> value) {
  static_assert(emu::kIsOneOf<T, int, unsigned>, "CUDA has atomicSub for int, unsigned");
  emu::maybe_interrupt();
  return __atomic_fetch_sub(p, value, __ATOMIC_RELAXED);
}
template <class T>
inline T atomicMax(T* p, emu::Same<T> value) {
  static_assert(emu::kOrderable<T>, "CUDA has atomicMax for 32- and 64-bit integers");
  emu::maybe_interrupt();
  return emu::atomic_update(p, [value](T old) { return old > value ? old : value; });
}
template <class T>
inline T atomicMin(T* p, emu::Same<T> value) {
  static_assert(emu::kOrderable<T>, "CUDA has atomicMin for 32- and 64-bit integers");
  emu::maybe_interrupt();
  return emu::atomic_update(p, [value](T old) { return old < value ? old : value; });
}
template <class T>
inline T atomicExch(T* p, emu::Same<T> value) {
  static_assert(emu::kBitwise<T> || std::is_same<T, float>::value,
                "CUDA has atomicExch for int, unsigned, u64, float");
  emu::maybe_interrupt();
  T old;
  __atomic_exchange(p, &value, &old, __ATOMIC_RELAXED);
  return old;
}
template <class T>
inline T atomicCAS(T* p, emu::Same<T> expected, emu::Same<T> desired) {
  static_assert(emu::kBitwise<T> || std::is_same<T, unsigned short>::value,
                "CUDA has atomicCAS for int, unsigned, u64, unsigned short");
  emu::maybe_interrupt();
  __atomic_compare_exchange_n(p, &expected, desired, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}
template <class T>
inline T atomicAnd(T* p, emu::Same<T> value) {
  static_assert(emu::kBitwise<T>, "CUDA has atomicAnd for int, unsigned, u64");
  emu::maybe_interrupt();
  return __atomic_fetch_and(p, value, __ATOMIC_RELAXED);
}
template <class T>
inline T atomicOr(T* p, emu::Same<T> value) {
  static_assert(emu::kBitwise<T>, "CUDA has atomicOr for int, unsigned, u64");
  emu::maybe_interrupt();
  return __atomic_fetch_or(p, value, __ATOMIC_RELAXED);
}
template <class T>
inline T atomicXor(T* p, emu::Same<T> value) {
  static_assert(emu::kBitwise<T>, "CUDA has atomicXor for int, unsigned, u64");
  emu::maybe_interrupt();
  return __atomic_fetch_xor(p, value, __ATOMIC_RELAXED);
}

#if FR_EMU_TSAN
inline void __threadfence() {
  emu::maybe_interrupt();
  emu::release(&emu::device_fence_tag);
  emu::acquire(&emu::device_fence_tag);
}
inline void __threadfence_block() {
  emu::maybe_interrupt();
  emu::release(&emu::block_here().fence_tag);
  emu::acquire(&emu::block_here().fence_tag);
}
#else
inline void __threadfence() {
  emu::maybe_interrupt();
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
inline void __threadfence_block() { __threadfence(); }
#endif
inline void __threadfence_system() { __threadfence(); }
