// Stage 1 and 2: walks strips of codes for a panel of queries and keeps, for each, the rows that
// may still place.
#pragma once
#include <atomic>
#include <cstdint>
#include <vector>

#include "core/cancel.hpp"
#include "core/strip.hpp"
#include "cpu/collector.hpp"
#include "cpu/encode.hpp"

namespace fastretrieve::cpu {

// Thresholds that threads working on the same queries tell each other. Only speed depends on when
// they arrive.
using SharedThresholds = std::vector<std::atomic<double>>;

// The state of one thread for one panel: queries [first, first + n_queries) of the search.
class PanelScan {
 public:
  PanelScan(const Problem& problem, const EncodedQueries& queries, int64_t first, int64_t n_queries,
            SharedThresholds* shared);

  // Strips [begin, end), counted over all segments. A strided sample of them comes first: galleries
  // are often in order of class, and a threshold from everywhere spares the rest.
  void scan_strips(int64_t begin, int64_t end, Cancel& cancel);

  // The rows after the last strip of each segment, which have no codes.
  void score_tails(Cancel& cancel);

  int64_t n_queries() const { return static_cast<int64_t>(collectors_.size()); }
  Collector& collector(int64_t query) { return collectors_[static_cast<size_t>(query)]; }
  void finish(int64_t query, double* scores, int64_t* ids);

  SearchStats stats;

 private:
  static void on_hit(void* self, int64_t query, uint64_t rows, const int32_t* dots);
  void hit(int64_t query, uint64_t rows, const int32_t* dots);
  void scan_strip(const Segment& segment, int64_t strip);
  uint64_t allowed_rows(const Segment& segment, int64_t strip) const;
  void score_tail(const Segment& segment, int64_t query);
  void update_filter(int64_t query);
  void receive_thresholds();
  QueryRow query_row(int64_t query) const;
  bool needs_no_scan(int64_t query) const;

  const Problem& problem_;
  const EncodedQueries& queries_;
  const int64_t first_;
  SharedThresholds* const shared_;
  const StripLayout layout_;
  std::vector<Collector> collectors_;
  std::vector<float> reach_, fall_, threshold_;
  std::vector<int32_t> dots_;
  ScoreScratch scratch_;
  ScanTile tile_{};
  int64_t segment_ = 0, row_ = 0;  // of the strip being scanned
};

}  // namespace fastretrieve::cpu
