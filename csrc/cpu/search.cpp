#include "cpu/search.hpp"

#include <algorithm>
#include <memory>
#include <mutex>
#include <vector>

#include "core/strip.hpp"
#include "cpu/pool.hpp"
#include "cpu/scan.hpp"
#include "pipeline/cpu_plan.hpp"

namespace fastretrieve::cpu {
namespace {

struct Search {
  const SearchArgs& args;
  const Problem problem;
  const EncodedQueries queries;
  const CpuPlan plan;
  Cancel& cancel;

  int64_t panel_begin(int64_t panel) const { return panel * plan.panel_queries; }
  int64_t panel_size(int64_t panel) const {
    return std::min(plan.panel_queries, queries.n_queries - panel_begin(panel));
  }
  double* scores(int64_t query) const { return args.out.scores + query * args.out.k; }
  int64_t* ids(int64_t query) const { return args.out.ids + query * args.out.k; }
};

int64_t count_strips(const SearchArgs& args) {
  int64_t n = 0;
  for (int64_t s = 0; s < args.n_segments; ++s) n += args.segments[s].n_strips;
  return n;
}

// Each task walks all rows for a panel of its own; nothing is shared.
void search_by_queries(const Search& search, int64_t n_strips, int threads) {
  std::mutex counting;
  const auto task = [&](int64_t panel, int) {
    const int64_t first = search.panel_begin(panel);
    PanelScan scan(search.problem, search.queries, first, search.panel_size(panel), nullptr);
    scan.score_tails(search.cancel);
    scan.scan_strips(0, n_strips, search.cancel);
    for (int64_t q = 0; q < scan.n_queries(); ++q)
      scan.finish(q, search.scores(first + q), search.ids(first + q));
    std::lock_guard<std::mutex> lock(counting);
    *search.args.stats += scan.stats;
  };
  parallel(search.plan.n_panels, threads, task, search.cancel);
}

// The tasks of a panel share its rows; what the threads collected is merged query by query.
void search_by_rows(const Search& search, int64_t n_strips, int threads) {
  for (int64_t panel = 0; panel < search.plan.n_panels; ++panel) {
    const int64_t first = search.panel_begin(panel), n_queries = search.panel_size(panel);
    SharedThresholds shared(static_cast<size_t>(n_queries));
    for (std::atomic<double>& threshold : shared)
      threshold.store(-kInfinity, std::memory_order_relaxed);
    std::vector<std::unique_ptr<PanelScan>> scans(static_cast<size_t>(threads));
    const auto scan_of = [&](int slot) -> PanelScan& {
      std::unique_ptr<PanelScan>& scan = scans[static_cast<size_t>(slot)];
      if (!scan)
        scan =
            std::make_unique<PanelScan>(search.problem, search.queries, first, n_queries, &shared);
      return *scan;
    };
    const int64_t chunk = search.plan.chunk_strips;
    parallel(
        search.plan.n_chunks, threads,
        [&](int64_t index, int slot) {
          if (index == 0) scan_of(slot).score_tails(search.cancel);
          scan_of(slot).scan_strips(index * chunk, std::min((index + 1) * chunk, n_strips),
                                    search.cancel);
        },
        search.cancel);

    PanelScan& all = scan_of(0);
    for (int slot = 1; slot < threads; ++slot) {
      if (!scans[static_cast<size_t>(slot)]) continue;
      PanelScan& other = *scans[static_cast<size_t>(slot)];
      for (int64_t q = 0; q < n_queries; ++q) all.collector(q).merge(std::move(other.collector(q)));
      all.stats += other.stats;
    }
    for (int64_t q = 0; q < n_queries; ++q)
      all.finish(q, search.scores(first + q), search.ids(first + q));
    *search.args.stats += all.stats;
  }
}

}  // namespace

void search(const Kernels& kernels, const SearchArgs& args, Cancel& cancel) {
  if (args.queries.n_rows == 0) return;
  const int threads = num_threads();
  const int64_t n_strips = count_strips(args);
  const int64_t dim = args.queries.dim;
  const Search search{
      args,
      {kernels, args.segments, args.n_segments, dim, args.metric, args.out.k},
      EncodedQueries(kernels, args.queries, args.metric, cancel),
      make_cpu_plan(args.queries.n_rows, n_strips, StripLayout(dim, args.metric).groups, threads),
      cancel};
  args.stats->queries += args.queries.n_rows;
  if (search.plan.n_chunks == 1) return search_by_queries(search, n_strips, threads);
  search_by_rows(search, n_strips, threads);
}

}  // namespace fastretrieve::cpu
