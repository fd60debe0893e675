#include "cpu/collector.hpp"

#include <algorithm>
#include <functional>
#include <limits>
#include <utility>

#include "cpu/allowed.hpp"

namespace fastretrieve::cpu {

void Collector::promise(double value) {
  const size_t k = static_cast<size_t>(k_);
  if (promises_.size() < k) {
    promises_.push_back(value);
    std::push_heap(promises_.begin(), promises_.end(), std::greater<double>());
  } else if (value > promises_.front()) {
    // One walk down from the root; the standard library takes two.
    size_t hole = 0;
    for (size_t child = 1; child < k; child = 2 * hole + 1) {
      if (child + 1 < k && promises_[child + 1] < promises_[child]) ++child;
      if (value <= promises_[child]) break;
      promises_[hole] = promises_[child];
      hole = child;
    }
    promises_[hole] = value;
  } else {
    return;
  }
  if (promises_.size() == k) raise(promises_.front());
}

void Collector::drop_hopeless() {
  const auto hopeless = [this](const Survivor& s) { return s.upper < threshold_; };
  survivors_.erase(std::remove_if(survivors_.begin(), survivors_.end(), hopeless),
                   survivors_.end());
}

void Collector::purge(const Problem& problem, const QueryRow& query, ScoreScratch& scratch,
                      SearchStats& stats) {
  drop_hopeless();
  if (n_survivors() > capacity() / 2) narrow(problem, query, scratch, stats);
  if (n_survivors() > capacity() / 2) {
    settle(problem, query, scratch, stats);
    ++stats.overflows;
  }
  next_purge_ = std::max(2 * n_survivors(), first_purge());
}

void Collector::narrow(const Problem& problem, const QueryRow& query, ScoreScratch& scratch,
                       SearchStats& stats) {
  if (n_survivors() <= k_) return;
  const auto others = survivors_.begin() + k_;
  std::nth_element(survivors_.begin(), others, survivors_.end(),
                   [](const Survivor& a, const Survivor& b) { return a.lower > b.lower; });
  std::vector<Survivor> later(others, survivors_.end());
  survivors_.erase(others, survivors_.end());
  settle(problem, query, scratch, stats);
  survivors_ = std::move(later);
  drop_hopeless();
}

void Collector::settle(const Problem& problem, const QueryRow& query, ScoreScratch& scratch,
                       SearchStats& stats) {
  stats.rows_scored += static_cast<int64_t>(survivors_.size());
  score_places(problem, query, survivors_, scratch, scored_);
  survivors_.clear();
  keep_best(problem);
}

void Collector::keep_best(const Problem& problem) {
  if (static_cast<int64_t>(scored_.size()) < k_) return;
  const auto kth = scored_.begin() + (k_ - 1);
  std::nth_element(scored_.begin(), kth, scored_.end(), better);
  scored_.resize(static_cast<size_t>(k_));
  raise(value_of_score(problem.metric, score_of_key(problem.metric, scored_.back().key)));
}

void Collector::add_scored(const Problem& problem, const QueryRow& query, const Segment& segment,
                           const int64_t* rows, int64_t n_rows, ScoreScratch& scratch,
                           SearchStats& stats) {
  scratch.rows.clear();
  scratch.ids.clear();
  for (int64_t i = 0; i < n_rows; ++i) {
    scratch.rows.push_back(segment.rows.row(rows[i]));
    scratch.ids.push_back(segment.id(rows[i]));
  }
  stats.rows_scored += n_rows;
  const size_t before = scored_.size();
  score_rows(problem, query, segment.rows.dtype, scratch, scored_);
  for (size_t i = before; i < scored_.size(); ++i)
    promise(value_of_score(problem.metric, score_of_key(problem.metric, scored_[i].key)));
  if (static_cast<int64_t>(scored_.size()) >= 2 * k_) keep_best(problem);
}

void Collector::merge(Collector&& other) {
  survivors_.insert(survivors_.end(), other.survivors_.begin(), other.survivors_.end());
  scored_.insert(scored_.end(), other.scored_.begin(), other.scored_.end());
  for (const double value : other.promises_) promise(value);
  raise(other.threshold_);
}

void Collector::finish(const Problem& problem, const QueryRow& query, ScoreScratch& scratch,
                       SearchStats& stats, double* scores, int64_t* ids) {
  drop_hopeless();
  narrow(problem, query, scratch, stats);
  settle(problem, query, scratch, stats);
  sort_best(scored_, problem.cancel);
  const int64_t found = std::min<int64_t>(k_, static_cast<int64_t>(scored_.size()));
  for (int64_t i = 0; i < found; ++i) {
    scores[i] = score_of_key(problem.metric, scored_[static_cast<size_t>(i)].key);
    ids[i] = scored_[static_cast<size_t>(i)].id;
  }
  std::fill(scores + found, scores + k_, std::numeric_limits<double>::quiet_NaN());
  std::fill(ids + found, ids + k_, int64_t{-1});
}

void smallest_ids(const Problem& problem, int64_t query, double* scores, int64_t* ids) {
  std::vector<int64_t> found;
  const size_t k = static_cast<size_t>(problem.k);
  const auto keep_smallest = [&] {
    if (found.size() <= k) return;
    std::nth_element(found.begin(), found.begin() + (problem.k - 1), found.end());
    found.resize(k);
  };
  for (int64_t s = 0; s < problem.n_segments; ++s) {
    const Segment& segment = problem.segments[s];
    int64_t taken = 0;
    for (int64_t row = 0; row < segment.rows.n_rows; ++row) {
      if (row % 65536 == 0) problem.cancel.check_now();
      if (!row_allowed(segment, query, row)) continue;
      found.push_back(segment.id(row));
      if (!segment.ids && ++taken == problem.k) break;  // ids ascend within the segment
      if (found.size() >= 2 * k + 1024) keep_smallest();
    }
  }
  keep_smallest();
  std::sort(found.begin(), found.end());
  std::fill(scores, scores + k, std::numeric_limits<double>::quiet_NaN());
  std::fill(ids, ids + k, int64_t{-1});
  std::fill(scores, scores + found.size(), 0.0);
  std::copy(found.begin(), found.end(), ids);
}

}  // namespace fastretrieve::cpu
