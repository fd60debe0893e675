#include "cpu/topk_scan.hpp"

#include <algorithm>

namespace fastretrieve::cpu {

constexpr int64_t kMaxSampleStride = 64;  // one strip in 64 is enough for a good first threshold
constexpr int64_t kMinSampleStrips = 16;
constexpr int64_t kStripsBetweenNews = 8;  // what other threads know is asked for so often

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

void TopKScan::hit(int64_t query, uint64_t rows, const int32_t* dots) {
  if (needs_no_scan(query)) return;
  problem_.cancel.check();
  Collector& collector = collectors_[static_cast<size_t>(query)];
  const QueryBound& q = bound(query);
  const double before = collector.threshold();
  const Cut cut = cut_at(query, before);
  for (; rows; rows &= rows - 1) {
    const int row = __builtin_ctzll(rows);
    const RowBound x = row_bound_of(row);
    if (falls_short(problem_.metric, q, x, dots[row], cut)) continue;
    collector.add(interval(problem_.metric, q, x, dots[row]), segment_, row_ + row);
  }
  collector.bound_size(problem_, query_row(query), scratch_, stats);
  if (collector.threshold() > before) update_filter(query);
}

void TopKScan::tail(int64_t query, int64_t segment, const int64_t* rows, int64_t n_rows) {
  collectors_[static_cast<size_t>(query)].add_scored(
      problem_, query_row(query), problem_.segments[segment], rows, n_rows, scratch_, stats);
  update_filter(query);
}

void TopKScan::scan_strips(int64_t begin, int64_t end, Cancel& cancel) {
  int64_t stride = kMaxSampleStride;  // a power of two
  while (stride > 1 && stride > (end - begin) / kMinSampleStrips) stride /= 2;
  for (const bool sampling : {true, false}) {
    if (sampling && stride == 1) continue;
    for_strips(begin, end, [&](int64_t segment, int64_t strip, int64_t of_all) {
      const bool sampled = stride > 1 && (of_all & (stride - 1)) == 0;
      if (sampled != sampling) return;
      cancel.check();
      if (!load_strip(segment, strip, sampling ? stride : 1)) return;
      if (shared_ && of_all % kStripsBetweenNews == 0) receive_thresholds();
      scan_loaded();
    });
  }
}

void TopKScan::absorb(TopKScan& other) {
  for (size_t q = 0; q < collectors_.size(); ++q)
    collectors_[q].merge(std::move(other.collectors_[q]));
  stats += other.stats;
}

void TopKScan::finish(int64_t query, ScoreScratch& scratch, SearchStats& counts, double* scores,
                      int64_t* ids) {
  if (needs_no_scan(query)) return smallest_ids(problem_, first_ + query, scores, ids);
  collectors_[static_cast<size_t>(query)].finish(problem_, query_row(query), scratch, counts,
                                                 scores, ids);
}

}  // namespace fastretrieve::cpu
