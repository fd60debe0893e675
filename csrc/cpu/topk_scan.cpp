#include "cpu/topk_scan.hpp"

#include <algorithm>

namespace fastretrieve::cpu {

constexpr int64_t kMaxSampleStride = 64;  // one strip in 64 is enough for a good first threshold
constexpr int64_t kMinSampleStrips = 16;

TopKScan::TopKScan(const Problem& problem, const EncodedQueries& queries, int64_t first,
                   int64_t n_queries, SharedThresholds* shared)
    : PanelScan(problem, queries, first, n_queries), shared_(shared) {
  collectors_.reserve(static_cast<size_t>(n_queries));
  for (int64_t q = 0; q < n_queries; ++q) collectors_.emplace_back(problem.k);
}

void TopKScan::update_filter(int64_t query) {
  const size_t q = static_cast<size_t>(query);
  const double threshold = collectors_[q].threshold();
  set_threshold(query, threshold);
  if (!shared_) return;
  std::atomic<double>& common = (*shared_)[q];
  double known = common.load(std::memory_order_relaxed);
  while (threshold > known &&
         !common.compare_exchange_weak(known, threshold, std::memory_order_relaxed)) {
  }
}

void TopKScan::receive_thresholds() {
  for (size_t q = 0; q < collectors_.size(); ++q) {
    const double common = (*shared_)[q].load(std::memory_order_relaxed);
    if (common <= collectors_[q].threshold()) continue;
    collectors_[q].raise(common);
    set_threshold(static_cast<int64_t>(q), common);
  }
}

// A first threshold from a strip that nothing was ruled out of: the k rows that look best reach the
// smallest of their lower values. The other rows then need no interval of their own.
void TopKScan::prime(int64_t query, uint64_t rows, const int32_t* dots) {
  double looks[kStripRows], sorted[kStripRows];
  const QueryBound& q = bound(query);
  const double unit = (is_distance(problem_.metric) ? 2 : 1) * q.scale;
  int64_t n = 0;
  for (int row = 0; row < kStripRows; ++row) {
    const RowBound x = row_bound_of(row);
    const double look = unit * double{x.scale} * dots[row] - 2 * double{x.half_square};
    looks[row] = look == look ? look : -kInfinity;
    if ((rows >> row) & 1) sorted[n++] = looks[row];
  }
  double* const kth = sorted + (problem_.k - 1);
  if (problem_.k == 1) {
    *kth = *std::max_element(sorted, sorted + n);
  } else {
    std::nth_element(sorted, kth, sorted + n, [](double a, double b) { return a > b; });
  }
  double reached = kInfinity;
  for (; rows; rows &= rows - 1) {
    const int row = __builtin_ctzll(rows);
    if (looks[row] < *kth) continue;  // at least k stay
    const double lower = interval(problem_.metric, q, row_bound_of(row), dots[row]).lower;
    reached = lower < reached ? lower : lower == lower ? reached : -kInfinity;
  }
  collectors_[static_cast<size_t>(query)].raise(reached);
  update_filter(query);
}

void TopKScan::hit(int64_t query, uint64_t rows, const int32_t* dots) {
  if (needs_no_scan(query)) return;
  Collector& collector = collectors_[static_cast<size_t>(query)];
  if (collector.threshold() == -kInfinity && __builtin_popcountll(rows) >= 2 * problem_.k)
    prime(query, rows, dots);
  const QueryBound& q = bound(query);
  for (; rows; rows &= rows - 1) {
    const int row = __builtin_ctzll(rows);
    const RowBound x = row_bound_of(row);
    if (quick_upper(problem_.metric, q, x, dots[row]) < collector.threshold()) continue;
    collector.add(interval(problem_.metric, q, x, dots[row]), segment_, row_ + row);
  }
  if (!collector.wants_tightening()) return;
  collector.tighten(problem_, query_row(query), scratch_, stats);
  update_filter(query);
}

void TopKScan::tail(int64_t query, int64_t segment, const int64_t* rows, int64_t n_rows) {
  collectors_[static_cast<size_t>(query)].add_scored(
      problem_, query_row(query), problem_.segments[segment], rows, n_rows, scratch_, stats);
  update_filter(query);
}

void TopKScan::scan_strips(int64_t begin, int64_t end, Cancel& cancel) {
  const int64_t stride = std::clamp<int64_t>((end - begin) / kMinSampleStrips, 1, kMaxSampleStride);
  for (const bool sampling : {true, false}) {
    if (sampling && stride == 1) continue;
    for_strips(begin, end, [&](int64_t segment, int64_t strip, int64_t of_all) {
      const bool sampled = stride > 1 && of_all % stride == 0;
      if (sampled != sampling) return;
      cancel.check();
      if (!load_strip(segment, strip)) return;
      if (shared_) receive_thresholds();
      scan_loaded();
    });
  }
}

void TopKScan::absorb(TopKScan& other) {
  for (size_t q = 0; q < collectors_.size(); ++q)
    collectors_[q].merge(std::move(other.collectors_[q]));
  stats += other.stats;
}

void TopKScan::finish(int64_t query, double* scores, int64_t* ids) {
  if (needs_no_scan(query)) return smallest_ids(problem_, first_ + query, scores, ids);
  collectors_[static_cast<size_t>(query)].finish(problem_, query_row(query), scratch_, stats,
                                                 scores, ids);
}

}  // namespace fastretrieve::cpu
