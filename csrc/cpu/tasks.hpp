// Cuts the queries of a search into panels and its strips into tasks, by the plan, and walks them
// on all threads. Works for any kind of scan.
#pragma once
#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "core/cancel.hpp"
#include "core/strip.hpp"
#include "core/types.hpp"
#include "cpu/allowed.hpp"
#include "cpu/plan.hpp"
#include "cpu/pool.hpp"

namespace fastretrieve::cpu {

struct Panels {
  int64_t n_queries, n_strips;
  int threads;
  CpuPlan plan;

  Panels(int64_t queries, const Segment* segments, int64_t n_segments, int64_t dim, Metric metric)
      : n_queries(queries), n_strips(0), threads(num_threads()) {
    int64_t n_wanted = 0;
    for (int64_t s = 0; s < n_segments; ++s) {
      n_strips += segments[s].n_strips;
      n_wanted += wanted_strips(segments[s]);
    }
    plan = make_cpu_plan(n_queries, n_strips, n_wanted, StripLayout(dim, metric).groups, threads);
  }
  int64_t begin(int64_t panel) const { return panel * plan.panel_queries; }
  int64_t size(int64_t panel) const {
    return std::min(plan.panel_queries, n_queries - begin(panel));
  }
  bool share_rows() const { return plan.n_chunks > 1; }
};

// How a kind of scan begins and ends.
template <class Scan>
struct ScanKind {
  // Makes the scan of one thread for a panel.
  std::function<std::unique_ptr<Scan>(int64_t panel)> make;
  // Runs once for a panel, before its strips.
  std::function<void(Scan&)> begin;
  // Runs after all strips: writes the results on this many threads.
  std::function<void(Scan&, int threads)> finish;
};

// Each task walks all rows for a panel of its own; nothing is shared.
template <class Scan>
void walk_by_queries(const Panels& panels, const ScanKind<Scan>& kind, SearchStats& stats,
                     Cancel& cancel) {
  std::mutex counting;
  const auto task = [&](int64_t panel, int) {
    const std::unique_ptr<Scan> scan = kind.make(panel);
    kind.begin(*scan);
    scan->scan_strips(0, panels.n_strips, cancel);
    kind.finish(*scan, 1);
    std::lock_guard<std::mutex> lock(counting);
    stats += scan->stats;
  };
  parallel(panels.plan.n_panels, panels.threads, task, cancel);
}

// The tasks of a panel share the rows. At the end one scan absorbs those of the other threads.
template <class Scan>
void walk_by_rows(const Panels& panels, int64_t panel, const ScanKind<Scan>& kind,
                  SearchStats& stats, Cancel& cancel) {
  std::vector<std::unique_ptr<Scan>> scans(static_cast<size_t>(panels.threads));
  const auto scan_of = [&](int slot) -> Scan& {
    std::unique_ptr<Scan>& scan = scans[static_cast<size_t>(slot)];
    if (!scan) scan = kind.make(panel);
    return *scan;
  };
  const int64_t chunk = panels.plan.chunk_strips;
  const auto task = [&](int64_t index, int slot) {
    Scan& scan = scan_of(slot);
    if (index == 0) kind.begin(scan);
    scan.scan_strips(index * chunk, std::min((index + 1) * chunk, panels.n_strips), cancel);
  };
  parallel(panels.plan.n_chunks, panels.threads, task, cancel);

  Scan& all = scan_of(0);
  for (size_t slot = 1; slot < scans.size(); ++slot)
    if (scans[slot]) all.absorb(*scans[slot]);
  kind.finish(all, panels.threads);
  stats += all.stats;
}

}  // namespace fastretrieve::cpu
