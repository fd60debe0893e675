// Stage 2 and 3 of a range search: the threshold is known from the start, and what the codes cannot
// rule out is scored at once, so that nothing but the result grows.
#pragma once
#include <atomic>
#include <vector>

#include "cpu/scan.hpp"

namespace fastretrieve::cpu {

// How many pairs all threads have found, and how many may be.
struct Budget {
  explicit Budget(const RangeArgs& args) : limit(args.limit), told_(args.n_found) {}
  ~Budget() {
    if (told_) *told_ = found.load();
  }

  const int64_t limit;
  std::atomic<int64_t> found{0};

  bool exceeded() const { return found.load(std::memory_order_relaxed) > limit; }

 private:
  int64_t* const told_;
};

class RangeScan final : public PanelScan {
 public:
  RangeScan(const Problem& problem, const EncodedQueries& queries, int64_t first, int64_t n_queries,
            const RangeArgs& args, Budget& budget);

  void scan_strips(int64_t begin, int64_t end, Cancel& cancel) override;

  // The zero queries of a similarity: every row has score zero.
  void take_zero_queries(Cancel& cancel);

  void absorb(RangeScan& other);
  // Scores what is left and moves the rows within the radius out, in order.
  void finish(int64_t query, std::vector<Scored>& out);

 private:
  void hit(int64_t query, uint64_t rows, const int32_t* dots) override;
  void tail(int64_t query, int64_t segment, const int64_t* rows, int64_t n_rows) override;
  void settle(int64_t query);
  bool skipped(int64_t query) const { return skip_[static_cast<size_t>(query)]; }
  bool removed(int64_t query) const;
  bool behind(int64_t query, int64_t segment, int64_t row) const;

  const RangeArgs& args_;
  Budget& budget_;
  const double key_, value_;  // of the radius
  std::vector<uint8_t> skip_;
  std::vector<std::vector<Place>> pending_;
  std::vector<std::vector<Scored>> found_;
};

}  // namespace fastretrieve::cpu
