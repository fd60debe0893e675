#include "cpu/screen/search.hpp"

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>

#include "cpu/finish.hpp"
#include "cpu/screen/probe.hpp"
#include "cpu/screen/walk.hpp"
#include "cpu/tasks.hpp"

namespace fastretrieve::cpu {

namespace {

std::atomic<ScreenUse> how_to_use{ScreenUse::by_cost};

// The scan of one thread for one panel: leaves first, then the rows that are in none. Or, if the
// leaves do not pay, all strips.
class ScreenedScan {
 public:
  ScreenedScan(const Problem& problem, const Problem& rest, const Screening& screening,
               const EncodedQueries& queries, const HeadPanel& heads, int64_t first,
               SharedThresholds* shared)
      : panel(problem, queries, first, heads.n_queries()),
        survivors(problem, panel, stats, shared),
        n_leaves_(screening.screen->n_leaves),
        leaves_(problem, *screening.screen, *screening.slots, panel, heads, survivors, stats),
        rest_(rest, panel, survivors, stats),
        all_(problem, panel, survivors, stats) {}
  ScreenedScan(const ScreenedScan&) = delete;
  ScreenedScan& operator=(const ScreenedScan&) = delete;

  // Gives every query a threshold, and decides what to walk.
  bool decide(Cancel& cancel) {
    rest_.score_tails(cancel);
    leaves_.search_seeds(cancel);
    if (screen_use() == ScreenUse::always || leaves_.pays()) return true;
    survivors.restart();
    all_.score_tails(cancel);
    stats.fell_back += panel.n_queries();
    return false;
  }
  // Part [begin, end) of `parts` equal ones of the leaves, and of `n_strips` strips of the rest.
  void walk_leaves(int64_t part, int64_t parts, int64_t n_strips, Cancel& cancel) {
    const int64_t groups = (n_leaves_ + kBoxLeaves - 1) / kBoxLeaves;
    leaves_.scan(groups * part / parts * kBoxLeaves, groups * (part + 1) / parts * kBoxLeaves,
                 cancel);
    survivors.scan(rest_, n_strips * part / parts, n_strips * (part + 1) / parts, cancel);
  }
  void walk_strips(int64_t part, int64_t parts, int64_t n_strips, Cancel& cancel) {
    survivors.scan(all_, n_strips * part / parts, n_strips * (part + 1) / parts, cancel);
  }
  // The nearest leaves of each query, and the rows that are in none; then how much is proven.
  void probe(Prober& prober, int64_t probes, int64_t n_strips, Cancel& cancel) {
    rest_.score_tails(cancel);
    for (int64_t q = 0; q < panel.n_queries(); ++q)
      if (!panel.needs_no_scan(q)) leaves_.search_leaves(q, prober.nearest(q, probes), cancel);
    survivors.scan(rest_, 0, n_strips, cancel);
  }
  void absorb(ScreenedScan& other) {
    survivors.absorb(other.survivors);
    stats += other.stats;
  }

  SearchStats stats;
  Panel panel;
  TopKSurvivors survivors;

 private:
  const int64_t n_leaves_;
  LeafWalk leaves_;
  StripWalk<TopKSurvivors> rest_, all_;
};

class ScreenedSearch {
 public:
  ScreenedSearch(const Problem& problem, const SearchArgs& args, const EncodedQueries& queries)
      : problem_(problem),
        rest_{problem.kernels, args.screening.rest, problem.n_segments, problem.dim,
              problem.metric,  problem.k,           problem.cancel},
        args_(args),
        queries_(queries),
        threads_(num_threads()) {
    int64_t n_wanted = args.screening.screen->n_leaves;
    for (int64_t s = 0; s < args.n_segments; ++s) {
      n_strips_ += args.segments[s].n_strips;
      n_wanted += wanted_strips(args.screening.rest[s]);
    }
    plan_ = make_cpu_plan(queries.n_queries, n_strips_, n_wanted,
                          args.screening.screen->map.head_dim / kGroupDims, threads_);
  }

  void run() {
    if (args_.probes > 0) return probe();
    if (plan_.n_chunks == 1) {
      const auto task = [&](int64_t panel, int) { search_alone(panel); };
      return parallel(plan_.n_panels, threads_, task, problem_.cancel);
    }
    for (int64_t panel = 0; panel < plan_.n_panels; ++panel) search_together(panel);
  }

 private:
  int64_t first(int64_t panel) const { return panel * plan_.panel_queries; }
  int64_t size(int64_t panel) const {
    return std::min(plan_.panel_queries, queries_.n_queries - first(panel));
  }
  HeadPanel heads_of(int64_t panel) const {
    HeadPanel heads(problem_.kernels, *args_.screening.screen, queries_, first(panel), size(panel),
                    problem_.cancel);
    heads.find_seeds(problem_.cancel);
    return heads;
  }
  std::unique_ptr<ScreenedScan> scan_of(int64_t panel, const HeadPanel& heads,
                                        SharedThresholds* shared) const {
    return std::make_unique<ScreenedScan>(problem_, rest_, args_.screening, queries_, heads,
                                          first(panel), shared);
  }
  void walk(ScreenedScan& scan, bool by_leaves, int64_t part, int64_t parts) const {
    by_leaves ? scan.walk_leaves(part, parts, n_strips_, problem_.cancel)
              : scan.walk_strips(part, parts, n_strips_, problem_.cancel);
  }

  // Each thread takes queries of its own.
  void probe() {
    const int64_t share = (queries_.n_queries + threads_ - 1) / threads_;
    plan_.panel_queries = std::min(std::max<int64_t>(share, 1), kMaxPanel);
    plan_.n_panels = (queries_.n_queries + plan_.panel_queries - 1) / plan_.panel_queries;
    const auto task = [&](int64_t panel, int) { probe_panel(panel); };
    parallel(plan_.n_panels, threads_, task, problem_.cancel);
  }

  void probe_panel(int64_t panel) {
    const Screen& screen = *args_.screening.screen;
    const HeadPanel heads(problem_.kernels, screen, queries_, first(panel), size(panel),
                          problem_.cancel);
    const Places places{problem_.segments, *args_.screening.slots};
    Prober prober(problem_.kernels, screen, places, heads, first(panel));
    const std::unique_ptr<ScreenedScan> scan = scan_of(panel, heads, nullptr);
    scan->probe(prober, args_.probes, n_strips_, problem_.cancel);
    finish(*scan, args_.out, 1, problem_.cancel);
    for (int64_t q = 0; q < heads.n_queries(); ++q) {
      const int64_t query = first(panel) + q, at = query * args_.out.k;
      const double norm = queries_.norms[static_cast<size_t>(query)];
      args_.proven[query] =
          scan->panel.needs_no_scan(q)
              ? count_found(args_.out.ids + at, args_.out.k)
              : prober.proven(q, norm, args_.out.scores + at, args_.out.ids + at, args_.out.k);
    }
    const std::lock_guard<std::mutex> lock(counting_);
    *args_.stats += scan->stats;
  }

  // One thread walks everything for a panel of its own.
  void search_alone(int64_t panel) {
    const HeadPanel heads = heads_of(panel);
    const std::unique_ptr<ScreenedScan> scan = scan_of(panel, heads, nullptr);
    walk(*scan, scan->decide(problem_.cancel), 0, 1);
    finish(*scan, args_.out, 1, problem_.cancel);
    const std::lock_guard<std::mutex> lock(counting_);
    *args_.stats += scan->stats;
  }

  // All threads share the leaves for one panel.
  void search_together(int64_t panel) {
    SharedThresholds shared(static_cast<size_t>(size(panel)));
    for (std::atomic<double>& t : shared) t.store(-kInfinity, std::memory_order_relaxed);
    const HeadPanel heads = heads_of(panel);
    std::vector<std::unique_ptr<ScreenedScan>> scans(static_cast<size_t>(threads_));
    scans[0] = scan_of(panel, heads, &shared);
    const bool by_leaves = scans[0]->decide(problem_.cancel);
    const auto task = [&](int64_t part, int slot) {
      std::unique_ptr<ScreenedScan>& scan = scans[static_cast<size_t>(slot)];
      if (!scan) scan = scan_of(panel, heads, &shared);
      walk(*scan, by_leaves, part, plan_.n_chunks);
    };
    parallel(plan_.n_chunks, threads_, task, problem_.cancel);
    for (size_t slot = 1; slot < scans.size(); ++slot)
      if (scans[slot]) scans[0]->absorb(*scans[slot]);
    finish(*scans[0], args_.out, threads_, problem_.cancel);
    *args_.stats += scans[0]->stats;
  }

  const Problem& problem_;
  const Problem rest_;
  const SearchArgs& args_;
  const EncodedQueries& queries_;
  const int threads_;
  int64_t n_strips_ = 0;
  CpuPlan plan_;
  std::mutex counting_;
};

}  // namespace

void use_screens(ScreenUse use) { how_to_use.store(use, std::memory_order_relaxed); }
ScreenUse screen_use() { return how_to_use.load(std::memory_order_relaxed); }

bool may_pay(const Kernels& kernels, const SearchArgs& args) {
  if (screen_use() != ScreenUse::by_cost) return screen_use() == ScreenUse::always;
  const Screen& screen = *args.screening.screen;
  const StripLayout strips(screen.map.dim, args.metric);
  const int64_t n = std::min<int64_t>(args.queries.n_rows, kMaxPanel);
  const double rows = static_cast<double>(screen.n_leaves * kStripRows);
  const double scan = pair_cost(kernels, strips.bytes() / kStripRows, strips.padded_dim(), n);
  return rows * scan > 2 * seed_cost(screen.map.dim, screen.map.head_dim, screen.n_leaves);
}

void search_screened(const Problem& problem, const SearchArgs& args,
                     const EncodedQueries& queries) {
  ScreenedSearch(problem, args, queries).run();
}

}  // namespace fastretrieve::cpu
