// Stopping a long call. The thread that called from Python asks `poll` now and then (it takes the
// GIL and looks for signals); everybody looks at the flag. Work checks at least every few
// milliseconds.
#pragma once
#include <atomic>
#include <chrono>
#include <thread>

#include "core/check.hpp"

namespace fastretrieve {

class Cancel {
 public:
  using Poll = bool (*)();  // true: stop
  explicit Cancel(Poll poll = nullptr)
      : poll_(poll), owner_(std::this_thread::get_id()), last_(Clock::now()) {}

  void check() {
    if (poll_ && std::this_thread::get_id() == owner_ && Clock::now() - last_ > kInterval) {
      if (poll_()) requested_.store(true, std::memory_order_relaxed);
      last_ = Clock::now();
    }
    if (requested_.load(std::memory_order_relaxed)) throw Interrupted();
  }
  void request() { requested_.store(true, std::memory_order_relaxed); }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds kInterval{20};
  const Poll poll_;
  const std::thread::id owner_;
  Clock::time_point last_;  // read and written by the owner alone
  std::atomic<bool> requested_{false};
};

}  // namespace fastretrieve
