#include "cpu/search.hpp"

#include <algorithm>

#include "cpu/finish.hpp"
#include "cpu/screen/probe.hpp"
#include "cpu/screen/scan.hpp"
#include "cpu/screen/search.hpp"
#include "cpu/tasks.hpp"

namespace fastretrieve::cpu {

// Queries of a batch, whose codes and bounds are held together. Enough for every thread, and few
// enough for the cache: new pages took a fifth of the time of a million queries.
constexpr int64_t kBatchQueriesPerThread = 8192;

static void search_batch(const Kernels& kernels, const SearchArgs& args, int64_t first_query,
                         Cancel& cancel) {
  const Problem problem{kernels,     args.segments, args.n_segments, args.queries.dim,
                        args.metric, args.out.k,    cancel};
  const EncodedQueries queries(kernels, args.queries, args.metric, cancel, first_query);
  args.stats->queries += queries.n_queries;
  if (args.screening.screen) {
    if (args.probes > 0) return probe_screened(problem, args, queries);
    if (may_pay(kernels, args.screening, Trust::Kind::top_k, queries.n_queries))
      return search_screened(problem, args, queries);
  }
  const Panels panels(args.queries.n_rows, args.segments, args.n_segments, problem.dim,
                      args.metric);

  SharedThresholds* shared = nullptr;
  const ScanKind<TopKScan> kind{
      [&](int64_t panel) {
        return std::make_unique<TopKScan>(problem, queries, panels.begin(panel), panels.size(panel),
                                          shared);
      },
      [&](TopKScan& scan) { scan.walk.score_tails(cancel); },
      [&](TopKScan& scan, int threads) { finish(scan, args.out, threads, cancel); }};
  if (!panels.share_rows()) return walk_by_queries(panels, kind, *args.stats, cancel);
  for (int64_t panel = 0; panel < panels.plan.n_panels; ++panel) {
    SharedThresholds thresholds(static_cast<size_t>(panels.size(panel)));
    for (std::atomic<double>& t : thresholds) t.store(-kInfinity, std::memory_order_relaxed);
    shared = &thresholds;
    walk_by_rows(panels, panel, kind, *args.stats, cancel);
  }
}

void search(const Kernels& kernels, const SearchArgs& args, Cancel& cancel) {
  const int64_t step = kBatchQueriesPerThread * num_threads();
  std::vector<Segment> segments(args.segments, args.segments + args.n_segments), rest;
  if (args.screening.screen)
    rest.assign(args.screening.rest, args.screening.rest + args.n_segments);
  for (int64_t first = 0; first < args.queries.n_rows; first += step) {
    SearchArgs batch = args;
    batch.queries.data = args.queries.row(first);
    batch.queries.n_rows = std::min(step, args.queries.n_rows - first);
    batch.segments = segments.data();
    batch.screening.rest = rest.data();
    batch.out.scores = args.out.scores + first * args.out.k;
    batch.out.ids = args.out.ids + first * args.out.k;
    if (args.proven) batch.proven = args.proven + first;
    search_batch(kernels, batch, first, cancel);
    for (Segment& segment : segments) skip_masks(segment, step);
    for (Segment& segment : rest) skip_masks(segment, step);
  }
  if (!args.proven || args.screening.screen) return;
  for (int64_t q = 0; q < args.queries.n_rows; ++q)  // all rows were looked at
    args.proven[q] = count_found(args.out.ids + q * args.out.k, args.out.k);
}

int64_t search_bytes(int64_t n_queries, int64_t k) {
  const int64_t results = n_queries * k * int64_t{sizeof(Scored)};
  const int64_t queries_at_work = std::min(n_queries, kMaxPanel) * num_threads();
  return results + queries_at_work * Collector::max_bytes(k);
}

}  // namespace fastretrieve::cpu
