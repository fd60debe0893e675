// Stopping a long call. The thread that called from Python polls now and then: `poll` takes the GIL
// and looks for signals. All threads read the flag, at least every few milliseconds.
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

  // For inner loops: looks at the clock now and then.
  void check() {
    if (is_owner() && ++calls_ % kCallsPerLook == 0) look();
    stop_if_requested();
  }
  // Between tasks, or while waiting.
  void check_now() {
    if (is_owner()) look();
    stop_if_requested();
  }
  void request() { requested_.store(true, std::memory_order_relaxed); }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds kInterval{20};
  // The clock costs as much as a twentieth of a strip.
  static constexpr unsigned kCallsPerLook = 16;

  bool is_owner() const { return poll_ && std::this_thread::get_id() == owner_; }

  void stop_if_requested() const {
    if (requested_.load(std::memory_order_relaxed)) throw Interrupted();
  }

  void look() {
    if (Clock::now() - last_ <= kInterval) return;
    if (poll_()) requested_.store(true, std::memory_order_relaxed);
    last_ = Clock::now();
  }

  const Poll poll_;
  const std::thread::id owner_;
  Clock::time_point last_;  // only the owner touches this and `calls_`
  unsigned calls_ = 0;
  std::atomic<bool> requested_{false};
};

}  // namespace fastretrieve
