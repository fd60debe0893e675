// Stage 1: walks the strips of an index for a panel and hands the rows that the filter keeps to
// Survivors.
//
//      Panel: thresholds <──── set_threshold ──── Survivors
//          │                                          ^
//          v                                          │ hit(strip, query, rows, products)
//      kernel: products, float32 filter ── rows ── StripWalk
//
// Survivors is TopKSurvivors (topk.hpp), RangeSurvivors (range.hpp) or, in tests, IntervalSurvivors
// (bindings/inspect.cpp). It has
//
//   hit(strip, query, rows, products)    rows of the current strip that the filter kept
//   tail(query, segment, rows, n_rows)   rows after the last strip, which have no codes
#pragma once
#include <algorithm>
#include <cstdint>

#include "core/cancel.hpp"
#include "cpu/allowed.hpp"
#include "cpu/panel.hpp"
#include "cpu/strip_reader.hpp"

namespace fastretrieve::cpu {

template <class Survivors>
class StripWalk final : private HitHandler {
 public:
  StripWalk(const Problem& problem, const Panel& panel, Survivors& survivors, SearchStats& stats)
      : problem_(problem),
        panel_(panel),
        survivors_(survivors),
        stats_(stats),
        strip_(problem, panel, *this) {}
  StripWalk(const StripWalk&) = delete;
  StripWalk& operator=(const StripWalk&) = delete;

  // Calls visit(segment, strip of the segment, strip of all) for strips [begin, end) of all. Skips
  // strips whose shared mask is empty.
  template <class Visit>
  void for_strips(int64_t begin, int64_t end, const Visit& visit) const {
    int64_t first = 0;  // the first strip of the segment
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

  // Scans a strip, unless no query may return a row of it. The next one will be `step` later.
  void scan(int64_t segment, int64_t strip, int64_t step = 1) {
    if (!strip_.load(segment, strip, step)) return;
    strip_.scan();
    stats_.rows_scanned += kStripRows * panel_.n_queries();
  }

  // Scores the rows after the last strip of each segment.
  void score_tails(Cancel& cancel) {
    for (int64_t s = 0; s < problem_.n_segments; ++s) {
      const Segment& segment = problem_.segments[s];
      if (segment.n_strips * kStripRows == segment.rows.n_rows) continue;
      cancel.check();
      for (int64_t q = 0; q < panel_.n_queries(); ++q)
        if (!panel_.needs_no_scan(q)) score_tail(segment, s, q);
    }
  }

 private:
  void hit(int64_t query, uint64_t rows, const int32_t* dots) override {
    rows = strip_.allowed(query, rows);
    if (rows) survivors_.hit(strip_, query, rows, dots);
  }

  void score_tail(const Segment& segment, int64_t segment_index, int64_t query) {
    int64_t rows[kStripRows];
    for (int64_t row = segment.n_strips * kStripRows; row < segment.rows.n_rows;) {
      int64_t n = 0;
      for (; row < segment.rows.n_rows && n < kStripRows; ++row)
        if (row_allowed(segment, panel_.first() + query, row)) rows[n++] = row;
      survivors_.tail(query, segment_index, rows, n);
    }
  }

  const Problem& problem_;
  const Panel& panel_;
  Survivors& survivors_;
  SearchStats& stats_;
  StripReader strip_;
};

}  // namespace fastretrieve::cpu
