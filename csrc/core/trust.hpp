// Whether a screen is worth a look: searches that fall back to the scan pay for the look as well,
// and queries like theirs mostly follow. The answers are the same either way.
#pragma once
#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace fastretrieve {

class Trust {
 public:
  enum class Kind { top_k, range };

  // Whether the next search of this kind and size should look at the leaves.
  bool wants_a_look(Kind kind, int64_t n_queries) {
    std::atomic<int32_t>& skips = of(kind, n_queries).skips;
    if (skips.load(std::memory_order_relaxed) <= 0) return true;
    skips.fetch_sub(1, std::memory_order_relaxed);
    return false;
  }
  // After a look.
  void tell(Kind kind, int64_t n_queries, bool has_paid) {
    Record& record = of(kind, n_queries);
    const int32_t failures = has_paid ? 0 : record.failures.load(std::memory_order_relaxed) + 1;
    record.failures.store(std::min(failures, kMostFailures), std::memory_order_relaxed);
    const int32_t skips = failures < kPatience ? 0 : int32_t{1} << (failures - kPatience);
    record.skips.store(std::min(skips, kMostSkips), std::memory_order_relaxed);
  }

 private:
  static constexpr int32_t kPatience = 4;  // looks in a row that did not pay
  static constexpr int32_t kMostSkips = 16, kMostFailures = 16;
  static constexpr int kSizes = 8;  // powers of two

  struct Record {
    std::atomic<int32_t> failures{0}, skips{0};
  };
  Record& of(Kind kind, int64_t n_queries) {
    int size = 0;
    while (size + 1 < kSizes && (n_queries >> (size + 1)) > 0) ++size;
    return records_[static_cast<size_t>((kind == Kind::range ? kSizes : 0) + size)];
  }

  std::array<Record, 2 * kSizes> records_;
};

}  // namespace fastretrieve
