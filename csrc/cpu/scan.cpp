#include "cpu/scan.hpp"

#include <algorithm>

#include "cpu/mask.hpp"

namespace fastretrieve::cpu {

// Rows of a cosine are divided by their norms; distances do not ask.
static constexpr float kUnitSquares[2] = {1, 1};

PanelScan::PanelScan(const Problem& problem, const EncodedQueries& queries, int64_t first,
                     int64_t n_queries)
    : problem_(problem), queries_(queries), first_(first), layout_(problem.dim, problem.metric) {
  const size_t n = static_cast<size_t>(n_queries);
  reach_.resize(n);
  fall_.resize(n);
  threshold_.resize(n);
  dots_.resize(static_cast<size_t>(scan_scratch(layout_.groups, n_queries)));
  double ratio = 0;
  for (int64_t q = 0; q < n_queries; ++q) {
    const Filter filter = make_filter(problem.metric, bound(q));
    reach_[static_cast<size_t>(q)] = filter.reach;
    fall_[static_cast<size_t>(q)] = filter.fall;
    threshold_[static_cast<size_t>(q)] = filter.threshold;
    ratio = std::max(ratio, error_ratio(bound(q)));
  }
  tile_.groups = layout_.groups;
  tile_.queries = queries.codes.data() + first * queries.padded_dim;
  tile_.bias = queries.bias.data() + first;
  tile_.reach = reach_.data();
  tile_.fall = fall_.data();
  tile_.threshold = threshold_.data();
  tile_.ratio = round_up(ratio);
  tile_.n_queries = n_queries;
  tile_.dots = dots_.data();
  tile_.on_hit = on_hit;
  tile_.context = this;
}

void PanelScan::on_hit(void* self, int64_t query, uint64_t rows, const int32_t* dots) {
  PanelScan& scan = *static_cast<PanelScan*>(self);
  if (scan.where_bytes_) rows &= pack_word(scan.where_bytes_ + query * scan.tile_.where_stride);
  if (rows) scan.hit(query, rows, dots);
}

uint64_t PanelScan::allowed_rows(const Segment& segment, int64_t strip) const {
  const uint64_t live = segment.live ? segment.live[strip] : ~uint64_t{0};
  if (!segment.where || live == 0) return live;
  if (segment.where_stride == 0) return live & segment.where[strip];
  uint64_t any = 0;
  for (int64_t q = 0; q < n_queries(); ++q)
    any |= segment.where[(first_ + q) * segment.where_stride + strip];
  return live & any;
}

bool PanelScan::load_strip(int64_t segment_index, int64_t strip, int64_t step) {
  const Segment& segment = problem_.segments[segment_index];
  tile_.allowed = allowed_rows(segment, strip);
  if (tile_.allowed == 0) return false;
  const uint8_t* codes = segment.codes + strip * layout_.bytes();
  tile_.codes = codes;
  tile_.scale = layout_.plane(codes, kScale);
  tile_.error = layout_.plane(codes, kError);
  tile_.norm = layout_.plane(codes, kNorm);
  tile_.half_square = is_distance(problem_.metric) ? layout_.plane(codes, kHalfSquare) : nullptr;
  squares_ = layout_.has_squares ? layout_.squares(codes) : kUnitSquares;
  tile_.next = strip + step < segment.n_strips ? codes + step * layout_.bytes() : nullptr;
  tile_.where_stride = segment.where_stride;
  tile_.where = segment.where && segment.where_stride
                    ? segment.where + first_ * segment.where_stride + strip
                    : nullptr;
  where_bytes_ = segment.where_bytes
                     ? segment.where_bytes + first_ * segment.where_stride + strip * kStripRows
                     : nullptr;
  // Whichever query finds something in the next strip, its booleans are then at hand: a load that
  // has to be waited for costs more than all those that nobody asks for.
  for (int64_t q = 0; where_bytes_ && tile_.next && q < n_queries(); ++q)
    __builtin_prefetch(where_bytes_ + q * segment.where_stride + step * kStripRows, 0, 2);
  segment_ = segment_index;
  row_ = strip * kStripRows;
  return true;
}

void PanelScan::scan_loaded() {
  problem_.kernels.scan(tile_);
  stats.rows_scanned += kStripRows * n_queries();
}

void PanelScan::score_tails(Cancel& cancel) {
  int64_t rows[kStripRows];
  for (int64_t s = 0; s < problem_.n_segments; ++s) {
    const Segment& segment = problem_.segments[s];
    if (segment.n_strips * kStripRows == segment.rows.n_rows) continue;
    cancel.check();
    for (int64_t q = 0; q < n_queries(); ++q) {
      if (needs_no_scan(q)) continue;
      for (int64_t row = segment.n_strips * kStripRows; row < segment.rows.n_rows;) {
        int64_t n = 0;
        for (; row < segment.rows.n_rows && n < kStripRows; ++row)
          if (row_allowed(segment, first_ + q, row)) rows[n++] = row;
        tail(q, s, rows, n);
      }
    }
  }
}

}  // namespace fastretrieve::cpu
