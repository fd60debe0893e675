#include "cpu/scan.hpp"

#include <algorithm>

namespace fastretrieve::cpu {

constexpr int64_t kMaxSampleStride = 64;  // one strip in 64 is enough for a good first threshold
constexpr int64_t kMinSampleStrips = 16;

PanelScan::PanelScan(const Problem& problem, const EncodedQueries& queries, int64_t first,
                     int64_t n_queries, SharedThresholds* shared)
    : problem_(problem),
      queries_(queries),
      first_(first),
      shared_(shared),
      layout_(problem.dim, problem.metric) {
  const size_t n = static_cast<size_t>(n_queries);
  collectors_.reserve(n);
  reach_.resize(n);
  fall_.resize(n);
  threshold_.resize(n);
  dots_.resize(static_cast<size_t>(scan_scratch(layout_.groups, n_queries)));
  double ratio = 0;
  for (int64_t q = 0; q < n_queries; ++q) {
    const QueryBound& bound = queries.bounds[static_cast<size_t>(first + q)];
    const Filter filter = make_filter(problem.metric, bound);
    collectors_.emplace_back(problem.k);
    reach_[static_cast<size_t>(q)] = filter.reach;
    fall_[static_cast<size_t>(q)] = filter.fall;
    threshold_[static_cast<size_t>(q)] = filter.threshold;
    ratio = std::max(ratio, error_ratio(bound));
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

QueryRow PanelScan::query_row(int64_t query) const {
  return {queries_.row(first_ + query), queries_.norms[static_cast<size_t>(first_ + query)]};
}

// A zero query has score zero with every row; only ids decide.
bool PanelScan::needs_no_scan(int64_t query) const {
  return !is_distance(problem_.metric) && queries_.norms[static_cast<size_t>(first_ + query)] == 0;
}

void PanelScan::update_filter(int64_t query) {
  const size_t q = static_cast<size_t>(query);
  const double threshold = collectors_[q].threshold();
  threshold_[q] = filter_threshold(problem_.metric,
                                   queries_.bounds[static_cast<size_t>(first_) + q], threshold);
  if (!shared_) return;
  std::atomic<double>& common = (*shared_)[q];
  double known = common.load(std::memory_order_relaxed);
  while (threshold > known &&
         !common.compare_exchange_weak(known, threshold, std::memory_order_relaxed)) {
  }
}

void PanelScan::receive_thresholds() {
  for (size_t q = 0; q < collectors_.size(); ++q) {
    const double common = (*shared_)[q].load(std::memory_order_relaxed);
    if (common <= collectors_[q].threshold()) continue;
    collectors_[q].raise(common);
    threshold_[q] =
        filter_threshold(problem_.metric, queries_.bounds[static_cast<size_t>(first_) + q], common);
  }
}

void PanelScan::on_hit(void* self, int64_t query, uint64_t rows, const int32_t* dots) {
  static_cast<PanelScan*>(self)->hit(query, rows, dots);
}

void PanelScan::hit(int64_t query, uint64_t rows, const int32_t* dots) {
  if (needs_no_scan(query)) return;
  Collector& collector = collectors_[static_cast<size_t>(query)];
  const QueryBound& bound = queries_.bounds[static_cast<size_t>(first_ + query)];
  for (; rows; rows &= rows - 1) {
    const int row = __builtin_ctzll(rows);
    const RowBound x{tile_.scale[row], tile_.error[row], tile_.norm[row],
                     tile_.half_square ? tile_.half_square[row] : 0.0f};
    collector.add(interval(problem_.metric, bound, x, dots[row]), segment_, row_ + row);
  }
  if (!collector.wants_tightening()) return;
  collector.tighten(problem_, query_row(query), scratch_, stats);
  update_filter(query);
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

void PanelScan::scan_strip(const Segment& segment, int64_t strip) {
  tile_.allowed = allowed_rows(segment, strip);
  if (tile_.allowed == 0) return;
  const uint8_t* codes = segment.codes + strip * layout_.bytes();
  tile_.codes = codes;
  tile_.scale = layout_.plane(codes, kScale);
  tile_.error = layout_.plane(codes, kError);
  tile_.norm = layout_.plane(codes, kNorm);
  tile_.half_square = is_distance(problem_.metric) ? layout_.plane(codes, kHalfSquare) : nullptr;
  tile_.next = strip + 1 < segment.n_strips ? codes + layout_.bytes() : nullptr;
  tile_.where_stride = segment.where_stride;
  tile_.where = segment.where && segment.where_stride
                    ? segment.where + first_ * segment.where_stride + strip
                    : nullptr;
  row_ = strip * kStripRows;
  if (shared_) receive_thresholds();
  problem_.kernels.scan(tile_);
  stats.rows_scanned += kStripRows * n_queries();
}

void PanelScan::scan_strips(int64_t begin, int64_t end, Cancel& cancel) {
  const int64_t stride = std::clamp<int64_t>((end - begin) / kMinSampleStrips, 1, kMaxSampleStride);
  for (const bool sampling : {true, false}) {
    if (sampling && stride == 1) continue;
    int64_t segment_begin = 0;
    for (segment_ = 0; segment_ < problem_.n_segments; ++segment_) {
      const Segment& segment = problem_.segments[segment_];
      const int64_t segment_end = segment_begin + segment.n_strips;
      int64_t strip = std::max(begin, segment_begin);
      if (sampling) strip = (strip + stride - 1) / stride * stride;
      for (; strip < std::min(end, segment_end); strip += sampling ? stride : 1) {
        if (!sampling && stride > 1 && strip % stride == 0) continue;
        cancel.check();
        scan_strip(segment, strip - segment_begin);
      }
      segment_begin = segment_end;
    }
  }
}

void PanelScan::score_tail(const Segment& segment, int64_t query) {
  int64_t rows[kStripRows];
  for (int64_t row = segment.n_strips * kStripRows; row < segment.rows.n_rows;) {
    int64_t n = 0;
    for (; row < segment.rows.n_rows && n < kStripRows; ++row)
      if (row_allowed(segment, first_ + query, row)) rows[n++] = row;
    collectors_[static_cast<size_t>(query)].add_scored(problem_, query_row(query), segment, rows, n,
                                                       scratch_, stats);
  }
}

void PanelScan::score_tails(Cancel& cancel) {
  for (int64_t s = 0; s < problem_.n_segments; ++s) {
    const Segment& segment = problem_.segments[s];
    if (segment.n_strips * kStripRows == segment.rows.n_rows) continue;
    cancel.check();
    for (int64_t q = 0; q < n_queries(); ++q)
      if (!needs_no_scan(q)) score_tail(segment, q);
  }
}

void PanelScan::finish(int64_t query, double* scores, int64_t* ids) {
  if (needs_no_scan(query)) return smallest_ids(problem_, first_ + query, scores, ids);
  collectors_[static_cast<size_t>(query)].finish(problem_, query_row(query), scratch_, stats,
                                                 scores, ids);
}

}  // namespace fastretrieve::cpu
