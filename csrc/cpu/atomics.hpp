// Atomic minimum and maximum over several threads.
#pragma once
#include <atomic>

namespace fastretrieve::cpu {

template <class T>
void lower_to(std::atomic<T>& least, T value) {
  T known = least.load(std::memory_order_relaxed);
  while (value < known && !least.compare_exchange_weak(known, value, std::memory_order_relaxed)) {
  }
}

template <class T>
void raise_to(std::atomic<T>& most, T value) {
  T known = most.load(std::memory_order_relaxed);
  while (value > known && !most.compare_exchange_weak(known, value, std::memory_order_relaxed)) {
  }
}

}  // namespace fastretrieve::cpu
