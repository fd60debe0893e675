// A scan through a screen: leaves first, then the rows that are in none. Or, if the leaves do not
// pay, all strips. Works for any kind of survivors.
#pragma once
#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "cpu/allowed.hpp"
#include "cpu/plan.hpp"
#include "cpu/pool.hpp"
#include "cpu/screen/walk.hpp"

namespace fastretrieve::cpu {

// Who decides whether a search goes through its screen: costs, or a test.
enum class ScreenUse : int32_t { by_cost, always, never };
void use_screens(ScreenUse use);
ScreenUse screen_use();

// Whether the screen may pay for so many queries: whether a scan takes longer than what each query
// costs before its first leaf, and recent looks paid. A look at the leaves of every panel decides.
bool may_pay(const Kernels& kernels, const Screening& screening, Trust::Kind kind,
             int64_t n_queries);

// What all scans of a search share.
struct ScreenedProblem {
  const Problem& problem;
  const Problem rest;  // the rows that are in no leaf
  const Screening& screening;
  const EncodedQueries& queries;
  const int threads;
  int64_t n_strips = 0;
  CpuPlan plan{};

  ScreenedProblem(const Problem& of, const Screening& with, const EncodedQueries& asked);
  int64_t first(int64_t panel) const { return panel * plan.panel_queries; }
  int64_t size(int64_t panel) const {
    return std::min(plan.panel_queries, queries.n_queries - first(panel));
  }
  bool shares_leaves() const { return plan.n_chunks > 1; }
  HeadPanel heads(int64_t panel) const {
    return HeadPanel(problem.kernels, *screening.screen, queries, first(panel), size(panel),
                     problem.cancel);
  }
};

// The scan of one thread for one panel.
template <class Survivors>
class ScreenedScan {
 public:
  // `own` is what the survivors want besides the problem, the panel and the counts.
  template <class... Own>
  ScreenedScan(const ScreenedProblem& of, const HeadPanel& heads, int64_t first, Own&&... own)
      : panel(of.problem, of.queries, first, heads.n_queries()),
        survivors(of.problem, panel, stats, std::forward<Own>(own)...),
        n_strips_(of.n_strips),
        n_leaves_(of.screening.screen->n_leaves),
        leaves_(of.problem, *of.screening.screen, *of.screening.slots, panel, heads, survivors,
                stats),
        rest_(of.rest, panel, survivors, stats),
        all_(of.problem, panel, survivors, stats) {}
  ScreenedScan(const ScreenedScan&) = delete;
  ScreenedScan& operator=(const ScreenedScan&) = delete;

  // Gives every query a threshold, if it has near leaves, and decides what to walk: the leaves, or
  // this share of the strips.
  bool decide(double share_of_scan, Cancel& cancel) {
    leaves_.search_seeds(cancel);
    by_leaves_ = screen_use() == ScreenUse::always || leaves_.pays(share_of_scan);
    if (!by_leaves_) {
      survivors.restart();
      stats.fell_back += panel.n_queries();
    }
    score_tails(cancel);
    return by_leaves_;
  }
  void follow(bool by_leaves) { by_leaves_ = by_leaves; }
  // Part [begin, end) of `parts` equal ones.
  void walk(int64_t part, int64_t parts, Cancel& cancel) {
    const int64_t groups = (n_leaves_ + kBoxLeaves - 1) / kBoxLeaves;
    if (by_leaves_)
      leaves_.scan(groups * part / parts * kBoxLeaves, groups * (part + 1) / parts * kBoxLeaves,
                   cancel);
    survivors.scan(by_leaves_ ? rest_ : all_, n_strips_ * part / parts,
                   n_strips_ * (part + 1) / parts, cancel);
  }
  // Some leaves for each query, and the rows that are in none. Rows after the last strip are in
  // none.
  template <class Leaves>
  void walk_some(const Leaves& of_query, Cancel& cancel) {
    score_tails(cancel);
    for (int64_t q = 0; q < panel.n_queries(); ++q)
      if (!panel.needs_no_scan(q)) leaves_.search_leaves(q, of_query(q), cancel);
    survivors.scan(rest_, 0, n_strips_, cancel);
  }
  void absorb(ScreenedScan& other) {
    survivors.absorb(other.survivors);
    stats += other.stats;
  }

  SearchStats stats;
  Panel panel;
  Survivors survivors;

 private:
  void score_tails(Cancel& cancel) { all_.score_tails(cancel); }

  const int64_t n_strips_, n_leaves_;
  bool by_leaves_ = true;
  LeafWalk<Survivors> leaves_;
  StripWalk<Survivors> rest_, all_;
};

// How a kind of screened scan begins and ends.
template <class Scan>
struct ScreenedKind {
  // Makes what the scans of a panel share, before the first of them.
  std::function<HeadPanel(int64_t panel)> heads;
  // Makes the scan of one thread for a panel.
  std::function<std::unique_ptr<Scan>(int64_t panel, const HeadPanel&)> make;
  // The share of the strips that a scan without leaves would walk.
  std::function<double(int64_t panel)> share_of_scan;
  // Runs after all leaves: writes the results on this many threads.
  std::function<void(Scan&, int threads)> finish;
};

// Each task walks everything for a panel of its own.
template <class Scan>
void walk_screened_by_queries(const ScreenedProblem& of, const ScreenedKind<Scan>& kind,
                              SearchStats& stats) {
  Cancel& cancel = of.problem.cancel;
  std::mutex counting;
  const auto task = [&](int64_t panel, int) {
    const HeadPanel heads = kind.heads(panel);
    const std::unique_ptr<Scan> scan = kind.make(panel, heads);
    scan->decide(kind.share_of_scan(panel), cancel);
    scan->walk(0, 1, cancel);
    kind.finish(*scan, 1);
    const std::lock_guard<std::mutex> lock(counting);
    stats += scan->stats;
  };
  parallel(of.plan.n_panels, of.threads, task, cancel);
}

// The tasks of a panel share the leaves.
template <class Scan>
void walk_screened_by_rows(const ScreenedProblem& of, int64_t panel, const ScreenedKind<Scan>& kind,
                           SearchStats& stats) {
  Cancel& cancel = of.problem.cancel;
  const HeadPanel heads = kind.heads(panel);
  std::vector<std::unique_ptr<Scan>> scans(static_cast<size_t>(of.threads));
  scans[0] = kind.make(panel, heads);
  const bool by_leaves = scans[0]->decide(kind.share_of_scan(panel), cancel);
  const auto task = [&](int64_t part, int slot) {
    std::unique_ptr<Scan>& scan = scans[static_cast<size_t>(slot)];
    if (!scan) {
      scan = kind.make(panel, heads);
      scan->follow(by_leaves);
    }
    scan->walk(part, of.plan.n_chunks, cancel);
  };
  parallel(of.plan.n_chunks, of.threads, task, cancel);
  for (size_t slot = 1; slot < scans.size(); ++slot)
    if (scans[slot]) scans[0]->absorb(*scans[slot]);
  kind.finish(*scans[0], of.threads);
  stats += scans[0]->stats;
}

// All panels, as the plan says; then the screen learns whether most queries gained by it.
template <class Scan>
void walk_screened(const ScreenedProblem& of, Trust::Kind what, const ScreenedKind<Scan>& kind,
                   SearchStats& stats) {
  const int64_t before = stats.fell_back, n_queries = of.queries.n_queries;
  if (of.shares_leaves()) {
    for (int64_t panel = 0; panel < of.plan.n_panels; ++panel)
      walk_screened_by_rows(of, panel, kind, stats);
  } else {
    walk_screened_by_queries(of, kind, stats);
  }
  of.screening.trust->tell(what, n_queries, 2 * (stats.fell_back - before) <= n_queries);
}

}  // namespace fastretrieve::cpu
