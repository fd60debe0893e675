#include "cpu/screen/search.hpp"

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>

#include "cpu/finish.hpp"
#include "cpu/screen/probe.hpp"
#include "cpu/screen/scan.hpp"

namespace fastretrieve::cpu {

using TopKScreened = ScreenedScan<TopKSurvivors>;
using RangeScreened = ScreenedScan<RangeSurvivors>;

void search_screened(const Problem& problem, const SearchArgs& args,
                     const EncodedQueries& queries) {
  const ScreenedProblem of(problem, args.screening, queries);
  std::unique_ptr<SharedThresholds> shared;  // by threads that share the leaves of a panel
  const ScreenedKind<TopKScreened> kind{
      [&](int64_t panel) {
        if (of.shares_leaves()) {
          shared = std::make_unique<SharedThresholds>(static_cast<size_t>(of.size(panel)));
          for (std::atomic<double>& t : *shared) t.store(-kInfinity, std::memory_order_relaxed);
        }
        HeadPanel heads = of.heads(panel);
        heads.find_seeds(problem.cancel);
        return heads;
      },
      [&](int64_t panel, const HeadPanel& heads) {
        return std::make_unique<TopKScreened>(of, heads, of.first(panel), shared.get());
      },
      [](int64_t) { return 1.0; },
      [&](TopKScreened& scan, int threads) { finish(scan, args.out, threads, problem.cancel); }};
  walk_screened(of, Trust::Kind::top_k, kind, *args.stats);
}

// The nearest leaves of a panel's queries, the rows that are in none, and how much is proven.
static void probe_panel(const ScreenedProblem& of, const SearchArgs& args, int64_t panel,
                        std::mutex& counting) {
  Cancel& cancel = of.problem.cancel;
  const HeadPanel heads = of.heads(panel);
  const Places places{of.problem.segments, *of.screening.slots};
  const int64_t first = of.first(panel), k = args.out.k;
  Prober prober(of.problem.kernels, *of.screening.screen, places, heads, first);
  TopKScreened scan(of, heads, first, nullptr);
  const auto nearest = [&](int64_t q) -> const std::vector<int32_t>& {
    return prober.nearest(q, args.probes);
  };
  scan.walk_some(nearest, cancel);
  finish(scan, args.out, 1, cancel);
  for (int64_t q = 0; q < heads.n_queries(); ++q) {
    const int64_t at = (first + q) * k;
    const double norm = of.queries.norms[static_cast<size_t>(first + q)];
    args.proven[first + q] =
        scan.panel.needs_no_scan(q)
            ? count_found(args.out.ids + at, k)
            : prober.proven(q, norm, args.out.scores + at, args.out.ids + at, k);
  }
  const std::lock_guard<std::mutex> lock(counting);
  *args.stats += scan.stats;
}

void probe_screened(const Problem& problem, const SearchArgs& args, const EncodedQueries& queries) {
  ScreenedProblem of(problem, args.screening, queries);
  // Each thread takes queries of its own.
  const int64_t share = (queries.n_queries + of.threads - 1) / of.threads;
  of.plan.panel_queries = std::min(std::max<int64_t>(share, 1), kMaxPanel);
  of.plan.n_panels = (queries.n_queries + of.plan.panel_queries - 1) / of.plan.panel_queries;
  std::mutex counting;
  const auto task = [&](int64_t panel, int) { probe_panel(of, args, panel, counting); };
  parallel(of.plan.n_panels, of.threads, task, problem.cancel);
}

// The share of all rows that lie behind the first query of a self-join, which a scan would read.
static double share_behind(const RangeArgs& args, int64_t first) {
  if (args.self_segment < 0) return 1;
  int64_t before = args.self_row + first, all = 0;
  for (int64_t s = 0; s < args.n_segments; ++s) {
    all += args.segments[s].rows.n_rows;
    if (s < args.self_segment) before += args.segments[s].rows.n_rows;
  }
  return 1 - static_cast<double>(before) / static_cast<double>(std::max<int64_t>(all, 1));
}

void range_screened(const Problem& problem, const RangeArgs& args, const EncodedQueries& queries,
                    Budget& budget) {
  const ScreenedProblem of(problem, args.screening, queries);
  const ScreenedKind<RangeScreened> kind{
      [&](int64_t panel) { return of.heads(panel); },
      [&](int64_t panel, const HeadPanel& heads) {
        return std::make_unique<RangeScreened>(of, heads, of.first(panel), args, budget);
      },
      [&](int64_t panel) { return share_behind(args, of.first(panel)); },
      [&](RangeScreened& scan, int) { finish_range(scan, args, problem.cancel); }};
  walk_screened(of, Trust::Kind::range, kind, *args.stats);
}

}  // namespace fastretrieve::cpu
