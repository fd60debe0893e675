// The scan of one thread for one panel: its queries, whoever keeps their survivors, and the walk.
#pragma once
#include <utility>

#include "cpu/strip_walk.hpp"

namespace fastretrieve::cpu {

template <class Survivors>
class PanelScan {
 public:
  // `own` is what the survivors want besides the problem, the panel and the counts.
  template <class... Own>
  PanelScan(const Problem& problem, const EncodedQueries& queries, int64_t first, int64_t n_queries,
            Own&&... own)
      : panel(problem, queries, first, n_queries),
        survivors(problem, panel, stats, std::forward<Own>(own)...),
        walk(problem, panel, survivors, stats) {}
  PanelScan(const PanelScan&) = delete;
  PanelScan& operator=(const PanelScan&) = delete;

  // Strips [begin, end), counted over all segments, in the order that suits these survivors.
  void scan_strips(int64_t begin, int64_t end, Cancel& cancel) {
    survivors.scan(walk, begin, end, cancel);
  }
  // Takes what another thread found for the same queries.
  void absorb(PanelScan& other) {
    survivors.absorb(other.survivors);
    stats += other.stats;
  }

  SearchStats stats;
  Panel panel;
  Survivors survivors;
  StripWalk<Survivors> walk;
};

}  // namespace fastretrieve::cpu
