// Stages 2 and 3 of a range search. The threshold is known from the start. Rows that the codes
// cannot rule out are scored early, so only the result grows.
#pragma once
#include <atomic>
#include <vector>

#include "core/calls.hpp"
#include "cpu/panel_scan.hpp"

namespace fastretrieve::cpu {

// How many pairs all threads have found, and the limit.
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

constexpr size_t kMaxPending = 256;  // rows of one query that are scored together

// The rows that a panel's queries have found so far.
class RangeSurvivors {
 public:
  RangeSurvivors(const Problem& problem, Panel& panel, SearchStats& stats, const RangeArgs& args,
                 Budget& budget);

  // Walks strips [begin, end), counted over all segments.
  void scan(StripWalk<RangeSurvivors>& walk, int64_t begin, int64_t end, Cancel& cancel);
  void hit(const StripReader& strip, int64_t query, uint64_t rows, const int32_t* dots);
  void tail(int64_t query, int64_t segment, const int64_t* rows, int64_t n_rows);

  // A row with codes whose interval is known, outside a walk over strips; then call `added`.
  void add(int64_t query, const Interval& interval, int64_t segment, int64_t row) {
    if (interval.upper < value_ || !behind(query, segment, row)) return;  // NaN stays
    pending_[static_cast<size_t>(query)].push_back({row, segment});
  }
  void added(int64_t query, double) {
    if (pending_[static_cast<size_t>(query)].size() >= kMaxPending) settle(query);
  }
  double threshold(int64_t query) const { return skipped(query) ? kInfinity : value_; }
  void receive() {}
  void restart() {}  // a walk that is given up has added nothing
  bool has_enough() const { return budget_.exceeded(); }

  // Zero queries of a similarity: every row scores zero.
  void take_zero_queries(Cancel& cancel);
  void absorb(RangeSurvivors& other);
  // Scores the pending rows and moves those within the radius to `out`, in order.
  void finish(int64_t query, std::vector<Scored>& out);

 private:
  void settle(int64_t query);
  bool skipped(int64_t query) const { return skip_[static_cast<size_t>(query)]; }
  bool removed(int64_t query) const;
  // Whether a row may be reported: in a self-join, only rows after the query's own.
  bool behind(int64_t query, int64_t segment, int64_t row) const;

  const Problem& problem_;
  Panel& panel_;
  SearchStats& stats_;
  const RangeArgs& args_;
  Budget& budget_;
  const double key_, value_;  // of the radius
  ScoreScratch scratch_;
  std::vector<uint8_t> skip_;
  std::vector<std::vector<Place>> pending_;
  std::vector<std::vector<Scored>> found_;
};

using RangeScan = PanelScan<RangeSurvivors>;

// The end of a range search for a panel: what its queries found, in order.
template <class Scan>
void finish_range(Scan& scan, const RangeArgs& args, Cancel& cancel) {
  scan.survivors.take_zero_queries(cancel);
  for (int64_t q = 0; q < scan.panel.n_queries(); ++q) {
    cancel.check_now();
    scan.survivors.finish(q, (*args.found)[static_cast<size_t>(scan.panel.first() + q)]);
  }
}

}  // namespace fastretrieve::cpu
