#include "cpu/topk.hpp"

#include "cpu/atomics.hpp"

namespace fastretrieve::cpu {

constexpr int64_t kMaxSampleStride = 64;  // one strip in 64 gives a good first threshold
constexpr int64_t kMinSampleStrips = 16;
constexpr int64_t kStripsBetweenNews = 8;  // strips between reads of the shared thresholds

TopKSurvivors::TopKSurvivors(const Problem& problem, Panel& panel, SearchStats& stats,
                             SharedThresholds* shared)
    : problem_(problem), panel_(panel), stats_(stats), shared_(shared) {
  collectors_.reserve(static_cast<size_t>(panel.n_queries()));
  for (int64_t q = 0; q < panel.n_queries(); ++q) collectors_.emplace_back(problem.k);
}

void TopKSurvivors::publish(int64_t query) {
  const double threshold = of(query).threshold();
  panel_.set_threshold(query, threshold);
  if (shared_) raise_to((*shared_)[static_cast<size_t>(query)], threshold);
}

void TopKSurvivors::receive() {
  for (int64_t q = 0; shared_ && q < panel_.n_queries(); ++q) {
    const double common = (*shared_)[static_cast<size_t>(q)].load(std::memory_order_relaxed);
    if (common <= of(q).threshold()) continue;
    of(q).raise(common);
    panel_.set_threshold(q, common);
  }
}

void TopKSurvivors::hit(const StripReader& strip, int64_t query, uint64_t rows,
                        const int32_t* dots) {
  if (panel_.needs_no_scan(query)) return;
  problem_.cancel.check();
  Collector& collector = of(query);
  const QueryBound& q = panel_.bound(query);
  const double before = collector.threshold();
  const Cut cut = strip.cut(q, before);
  for (; rows; rows &= rows - 1) {
    const int row = __builtin_ctzll(rows);
    const RowBound x = strip.bound(row);
    if (falls_short(problem_.metric, q, x, dots[row], cut)) continue;
    collector.add(interval(problem_.metric, q, x, dots[row]), strip.segment(),
                  strip.first_row() + row);
  }
  added(query, before);
}

void TopKSurvivors::added(int64_t query, double before) {
  Collector& collector = of(query);
  collector.bound_size(problem_, panel_.row(query), scratch_, stats_);
  if (collector.threshold() > before) publish(query);
}

void TopKSurvivors::restart() {
  for (int64_t q = 0; q < panel_.n_queries(); ++q) {
    of(q).restart();
    publish(q);
  }
}

void TopKSurvivors::tail(int64_t query, int64_t segment, const int64_t* rows, int64_t n_rows) {
  of(query).add_scored(problem_, panel_.row(query), problem_.segments[segment], rows, n_rows,
                       scratch_, stats_);
  publish(query);
}

void TopKSurvivors::absorb(TopKSurvivors& other) {
  for (size_t q = 0; q < collectors_.size(); ++q)
    collectors_[q].merge(std::move(other.collectors_[q]));
}

void TopKSurvivors::finish(int64_t query, ScoreScratch& scratch, SearchStats& counts,
                           double* scores, int64_t* ids) {
  if (panel_.needs_no_scan(query))
    return smallest_ids(problem_, panel_.first() + query, scores, ids);
  of(query).finish(problem_, panel_.row(query), scratch, counts, scores, ids);
}

void TopKSurvivors::scan(StripWalk<TopKSurvivors>& walk, int64_t begin, int64_t end,
                         Cancel& cancel) {
  int64_t stride = kMaxSampleStride;  // a power of two
  while (stride > 1 && stride > (end - begin) / kMinSampleStrips) stride /= 2;
  for (const bool sampling : {true, false}) {
    if (sampling && stride == 1) continue;
    walk.for_strips(begin, end, [&](int64_t segment, int64_t strip, int64_t of_all) {
      const bool sampled = stride > 1 && (of_all & (stride - 1)) == 0;
      if (sampled != sampling) return;
      cancel.check();
      if (of_all % kStripsBetweenNews == 0) receive();
      walk.scan(segment, strip, sampling ? stride : 1);
    });
  }
}

}  // namespace fastretrieve::cpu
