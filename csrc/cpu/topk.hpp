// Stage 2 of a search for the k best: thresholds rise while strips are walked.
#pragma once
#include <atomic>
#include <vector>

#include "cpu/collector.hpp"
#include "cpu/strip_walk.hpp"

namespace fastretrieve::cpu {

// Thresholds that threads working on the same queries tell each other. Only speed depends on when
// they arrive.
using SharedThresholds = std::vector<std::atomic<double>>;

// What a panel's queries have found so far.
class TopKSurvivors {
 public:
  // `shared` may be null.
  TopKSurvivors(const Problem& problem, Panel& panel, SharedThresholds* shared, SearchStats& stats);

  void hit(const StripReader& strip, int64_t query, uint64_t rows, const int32_t* dots);
  void tail(int64_t query, int64_t segment, const int64_t* rows, int64_t n_rows);

  // Takes the thresholds that other threads have reached, where there are any.
  void receive();
  // Takes what another thread collected for the same queries.
  void absorb(TopKSurvivors& other);
  // Several queries may be finished at once.
  void finish(int64_t query, ScoreScratch& scratch, SearchStats& counts, double* scores,
              int64_t* ids);

 private:
  Collector& of(int64_t query) { return collectors_[static_cast<size_t>(query)]; }
  void publish(int64_t query);

  const Problem& problem_;
  Panel& panel_;
  SharedThresholds* const shared_;
  SearchStats& stats_;
  ScoreScratch scratch_;
  std::vector<Collector> collectors_;
};

// The scan of one thread for one panel.
class TopKScan {
 public:
  TopKScan(const Problem& problem, const EncodedQueries& queries, int64_t first, int64_t n_queries,
           SharedThresholds* shared)
      : panel(problem, queries, first, n_queries),
        survivors(problem, panel, shared, stats),
        walk(problem, panel, survivors, stats) {}
  TopKScan(const TopKScan&) = delete;
  TopKScan& operator=(const TopKScan&) = delete;

  // Strips [begin, end), counted over all segments. A strided sample of them comes first: galleries
  // are often in order of class, and a threshold from everywhere spares the rest.
  void scan_strips(int64_t begin, int64_t end, Cancel& cancel);
  void absorb(TopKScan& other);

  SearchStats stats;
  Panel panel;
  TopKSurvivors survivors;
  StripWalk<TopKSurvivors> walk;
};

}  // namespace fastretrieve::cpu
