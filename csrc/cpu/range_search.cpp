#include "cpu/range_search.hpp"

#include <cmath>

#include "core/check.hpp"
#include "cpu/range.hpp"
#include "cpu/screen/scan.hpp"
#include "cpu/screen/search.hpp"
#include "cpu/tasks.hpp"

namespace fastretrieve::cpu {

static void check(const RangeArgs& args) {
  FR_CHECK(!std::isnan(args.radius), "radius must be a number, got NaN");
  FR_CHECK(args.self_segment < args.n_segments, "there are ", args.n_segments,
           " segments, got self_segment ", args.self_segment);
  if (args.self_segment < 0) return;
  const int64_t n_rows = args.segments[args.self_segment].rows.n_rows;
  FR_CHECK(0 <= args.self_row && args.self_row + args.queries.n_rows <= n_rows, "segment ",
           args.self_segment, " has ", n_rows, " rows, got queries ", args.self_row, " to ",
           args.self_row + args.queries.n_rows);
}

bool range(const Kernels& kernels, const RangeArgs& args, Cancel& cancel) {
  check(args);
  args.found->assign(static_cast<size_t>(args.queries.n_rows), {});
  const bool none = is_distance(args.metric) && args.radius < 0;
  if (args.queries.n_rows == 0 || none) return true;
  const Problem problem{kernels, args.segments, args.n_segments, args.queries.dim, args.metric,
                        0,       cancel};
  const EncodedQueries queries(kernels, args.queries, args.metric, cancel);
  args.stats->queries += queries.n_queries;
  Budget budget(args);
  if (args.screening.screen &&
      may_pay(kernels, args.screening, Trust::Kind::range, queries.n_queries)) {
    range_screened(problem, args, queries, budget);
    return !budget.exceeded();
  }
  const Panels panels(args.queries.n_rows, args.segments, args.n_segments, problem.dim,
                      args.metric);
  const ScanKind<RangeScan> kind{[&](int64_t panel) {
                                   return std::make_unique<RangeScan>(
                                       problem, queries, panels.begin(panel), panels.size(panel),
                                       args, budget);
                                 },
                                 [&](RangeScan& scan) { scan.walk.score_tails(cancel); },
                                 [&](RangeScan& scan, int) { finish_range(scan, args, cancel); }};
  if (!panels.share_rows()) {
    walk_by_queries(panels, kind, *args.stats, cancel);
  } else {
    for (int64_t panel = 0; panel < panels.plan.n_panels; ++panel)
      walk_by_rows(panels, panel, kind, *args.stats, cancel);
  }
  return !budget.exceeded();
}

}  // namespace fastretrieve::cpu
