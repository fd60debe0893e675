// Stage 2 of a search for the k best: thresholds rise while strips are walked.
#pragma once
#include <atomic>
#include <vector>

#include "cpu/collector.hpp"
#include "cpu/scan.hpp"

namespace fastretrieve::cpu {

// Thresholds that threads working on the same queries tell each other. Only speed depends on when
// they arrive.
using SharedThresholds = std::vector<std::atomic<double>>;

class TopKScan final : public PanelScan {
 public:
  // `shared` may be null.
  TopKScan(const Problem& problem, const EncodedQueries& queries, int64_t first, int64_t n_queries,
           SharedThresholds* shared);

  // A strided sample of the strips comes first: galleries are often in order of class, and a
  // threshold from everywhere spares the rest.
  void scan_strips(int64_t begin, int64_t end, Cancel& cancel) override;

  // Takes what another thread collected for the same queries.
  void absorb(TopKScan& other);
  // Several queries may be finished at once.
  void finish(int64_t query, ScoreScratch& scratch, SearchStats& counts, double* scores,
              int64_t* ids);

 private:
  void hit(int64_t query, uint64_t rows, const int32_t* dots) override;
  void tail(int64_t query, int64_t segment, const int64_t* rows, int64_t n_rows) override;
  void update_filter(int64_t query);
  void receive_thresholds();

  SharedThresholds* const shared_;
  std::vector<Collector> collectors_;
};

}  // namespace fastretrieve::cpu
