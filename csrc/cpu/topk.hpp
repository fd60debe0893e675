// Stage 2 of a search for the k best: thresholds rise during the walk over strips.
#pragma once
#include <atomic>
#include <vector>

#include "cpu/collector.hpp"
#include "cpu/panel_scan.hpp"

namespace fastretrieve::cpu {

// Thresholds that threads with the same queries share. Only the speed depends on when a thread
// reads them.
using SharedThresholds = std::vector<std::atomic<double>>;

// The survivors of a panel's queries so far.
class TopKSurvivors {
 public:
  // `shared` may be null.
  TopKSurvivors(const Problem& problem, Panel& panel, SearchStats& stats, SharedThresholds* shared);

  // Walks strips [begin, end), counted over all segments. A strided sample comes first: rows often
  // come sorted by class, and a threshold from everywhere spares the rest.
  void scan(StripWalk<TopKSurvivors>& walk, int64_t begin, int64_t end, Cancel& cancel);
  void hit(const StripReader& strip, int64_t query, uint64_t rows, const int32_t* dots);
  void tail(int64_t query, int64_t segment, const int64_t* rows, int64_t n_rows);

  // A row with codes whose interval is known, outside a walk over strips; then call `added`.
  void add(int64_t query, const Interval& interval, int64_t segment, int64_t row) {
    of(query).add(interval, segment, row);
  }
  void added(int64_t query, double before);
  double threshold(int64_t query) const {
    return collectors_[static_cast<size_t>(query)].threshold();
  }
  // Takes over the thresholds that other threads have reached, if any.
  void receive();
  // Forgets all rows, and keeps what they proved: the thresholds.
  void restart();
  bool has_enough() const { return false; }

  // Takes the rows that another thread collected for the same queries.
  void absorb(TopKSurvivors& other);
  // Several threads may finish different queries at once.
  void finish(int64_t query, ScoreScratch& scratch, SearchStats& counts, double* scores,
              int64_t* ids);

 private:
  Collector& of(int64_t query) { return collectors_[static_cast<size_t>(query)]; }
  void publish(int64_t query);

  const Problem& problem_;
  Panel& panel_;
  SearchStats& stats_;
  SharedThresholds* const shared_;
  ScoreScratch scratch_;
  std::vector<Collector> collectors_;
};

using TopKScan = PanelScan<TopKSurvivors>;

}  // namespace fastretrieve::cpu
