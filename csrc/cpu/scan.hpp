// Stage 1: walks strips of codes for a panel of queries and hands over the pairs that the filter
// keeps. What a pair must do to survive is the business of the two kinds of scan: topk_scan.hpp,
// range_scan.hpp.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/bound.hpp"
#include "core/cancel.hpp"
#include "core/strip.hpp"
#include "cpu/allowed.hpp"
#include "cpu/encode.hpp"
#include "cpu/score.hpp"

namespace fastretrieve::cpu {

// The state of one thread for one panel: queries [first, first + n_queries) of the search.
class PanelScan {
 public:
  PanelScan(const Problem& problem, const EncodedQueries& queries, int64_t first,
            int64_t n_queries);
  virtual ~PanelScan() = default;
  PanelScan(const PanelScan&) = delete;
  PanelScan& operator=(const PanelScan&) = delete;

  // Strips [begin, end), counted over all segments.
  virtual void scan_strips(int64_t begin, int64_t end, Cancel& cancel) = 0;

  // The rows after the last strip of each segment, which have no codes.
  void score_tails(Cancel& cancel);

  int64_t first() const { return first_; }
  int64_t n_queries() const { return tile_.n_queries; }

  SearchStats stats;

 protected:
  // Rows of the strip at hand that the filter kept for a query, a bit each.
  virtual void hit(int64_t query, uint64_t rows, const int32_t* dots) = 0;
  // Rows without codes that this query may return.
  virtual void tail(int64_t query, int64_t segment, const int64_t* rows, int64_t n_rows) = 0;

  // Calls visit(segment, strip of the segment, strip of all) for strips [begin, end) of all, except
  // for strips of which it is quick to see that nobody may return a row of them.
  template <class Visit>
  void for_strips(int64_t begin, int64_t end, const Visit& visit) {
    int64_t first = 0;  // strip of the segment at hand
    for (int64_t s = 0; s < problem_.n_segments; ++s) {
      const Segment& segment = problem_.segments[s];
      const int64_t stop = std::min(end - first, segment.n_strips);
      for (int64_t i = std::max<int64_t>(begin - first, 0); i < stop; ++i) {
        i = skip_empty(segment, i, stop);
        if (i < stop) visit(s, i, first + i);
      }
      first += segment.n_strips;
    }
  }
  // Makes this strip the one at hand; false where no query may return a row of it. The next one
  // will be `step` strips behind it.
  bool load_strip(int64_t segment, int64_t strip, int64_t step = 1);
  void scan_loaded();

  void set_threshold(int64_t query, double value) {
    threshold_[static_cast<size_t>(query)] = filter_threshold(problem_.metric, bound(query), value);
  }
  RowBound row_bound_of(int row) const {
    return {tile_.scale[row], tile_.error[row],
            tile_.norm[row],  tile_.half_square ? tile_.half_square[row] : 0.0f,
            squares_[0],      squares_[1]};
  }
  // What rows of the strip at hand must reach.
  Cut cut_at(int64_t query, double value) const {
    return make_cut(problem_.metric, bound(query), double{squares_[1]}, value);
  }
  const QueryBound& bound(int64_t query) const {
    return queries_.bounds[static_cast<size_t>(first_ + query)];
  }
  QueryRow query_row(int64_t query) const {
    return {queries_.row(first_ + query), queries_.norms[static_cast<size_t>(first_ + query)]};
  }
  // A zero query has score zero with every row; only ids decide.
  bool needs_no_scan(int64_t query) const {
    return !is_distance(problem_.metric) &&
           queries_.norms[static_cast<size_t>(first_ + query)] == 0;
  }

  const Problem& problem_;
  const EncodedQueries& queries_;
  const int64_t first_;
  int64_t segment_ = 0, row_ = 0;  // of the strip at hand
  ScoreScratch scratch_;

 private:
  static void on_hit(void* self, int64_t query, uint64_t rows, const int32_t* dots);
  uint64_t allowed_rows(const Segment& segment, int64_t strip) const;

  const StripLayout layout_;
  std::vector<float> reach_, fall_, threshold_;
  std::vector<int32_t> dots_;
  ScanTile tile_{};
  const float* squares_ = nullptr;        // of the strip; read where something was found only
  const uint8_t* where_bytes_ = nullptr;  // of the strip and the first query
};

}  // namespace fastretrieve::cpu
