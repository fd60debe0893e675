// The survivors of one query: rows that a scan could not rule out so far.
//
// `threshold` only rises. At least k rows are known to reach it, so a row whose upper end is below
// it cannot place. Survivors that overflow the buffer are scored exactly and only the best k stay:
// never a wrong answer, never an unbounded buffer.
#pragma once
#include <cstdint>
#include <vector>

#include "core/bound.hpp"
#include "core/types.hpp"
#include "cpu/score.hpp"

namespace fastretrieve::cpu {

struct Survivor {
  double lower, upper;
  int64_t row;
  int64_t segment;
};

class Collector {
 public:
  explicit Collector(int64_t k) : k_(k), next_purge_(first_purge()) {}

  double threshold() const { return threshold_; }
  void raise(double threshold) { threshold_ = threshold > threshold_ ? threshold : threshold_; }

  void add(const Interval& interval, int64_t segment, int64_t row) {
    if (interval.upper < threshold_) return;  // NaN stays
    // The codes of a damaged file may give NaN, which must not reach a sort.
    const double lower = interval.lower == interval.lower ? interval.lower : -kInfinity;
    survivors_.push_back({lower, interval.upper, row, segment});
    promise(lower);
  }

  // Forgets all rows. That k of them reach the threshold stays true.
  void restart() {
    survivors_.clear();
    promises_.clear();
    scored_.clear();
  }

  // Call it after adding rows. If there are many, it drops those that cannot place. If still too
  // many are left, it scores them.
  void bound_size(const Problem& problem, const QueryRow& query, ScoreScratch& scratch,
                  SearchStats& stats) {
    if (n_survivors() >= next_purge_) purge(problem, query, scratch, stats);
  }

  // The most memory of one collector: survivors and scored rows, in vectors that double, and
  // promises.
  static int64_t max_bytes(int64_t k) {
    return 2 * (8 * k + 512) * int64_t{sizeof(Survivor)} + 4 * k * int64_t{sizeof(Scored)} +
           2 * k * int64_t{sizeof(double)};
  }

  // Scores these rows of a segment at once.
  void add_scored(const Problem& problem, const QueryRow& query, const Segment& segment,
                  const int64_t* rows, int64_t n_rows, ScoreScratch& scratch, SearchStats& stats);

  // Takes the rows that another thread collected for the same query.
  void merge(Collector&& other);

  // Scores the remaining survivors and writes the k best, in order.
  void finish(const Problem& problem, const QueryRow& query, ScoreScratch& scratch,
              SearchStats& stats, double* scores, int64_t* ids);

 private:
  int64_t capacity() const { return 8 * k_ + 512; }
  // So early that the survivors of a panel stay in the cache.
  int64_t first_purge() const { return 2 * k_ + 64; }
  int64_t n_survivors() const { return static_cast<int64_t>(survivors_.size()); }
  // One more row reaches this value.
  void promise(double value);
  void purge(const Problem& problem, const QueryRow& query, ScoreScratch& scratch,
             SearchStats& stats);
  void drop_hopeless();
  // Scores the k survivors with the best lower ends. That rules out many of the others.
  void narrow(const Problem& problem, const QueryRow& query, ScoreScratch& scratch,
              SearchStats& stats);
  // Scores all survivors.
  void settle(const Problem& problem, const QueryRow& query, ScoreScratch& scratch,
              SearchStats& stats);
  void keep_best(const Problem& problem);

  int64_t k_;
  int64_t next_purge_;
  double threshold_ = -kInfinity;
  std::vector<double> promises_;  // the k largest so far, in a heap with the smallest on top
  std::vector<Survivor> survivors_;
  std::vector<Scored> scored_;
};

// The answer for a query that scores zero with every row: the k smallest ids.
void smallest_ids(const Problem& problem, int64_t query, double* scores, int64_t* ids);

}  // namespace fastretrieve::cpu
