#include "cpu/screen/scan.hpp"

#include <atomic>

namespace fastretrieve::cpu {

static std::atomic<ScreenUse> how_to_use{ScreenUse::by_cost};

void use_screens(ScreenUse use) { how_to_use.store(use, std::memory_order_relaxed); }
ScreenUse screen_use() { return how_to_use.load(std::memory_order_relaxed); }

bool may_pay(const Kernels& kernels, const Screening& screening, Trust::Kind kind,
             int64_t n_queries) {
  const Screen& screen = *screening.screen;
  if (screen_use() != ScreenUse::by_cost) return screen_use() == ScreenUse::always;
  const StripLayout strips(screen.map.dim, screen.map.metric);
  const int64_t n = std::min<int64_t>(n_queries, kMaxPanel);
  const double rows = static_cast<double>(screen.n_leaves * kStripRows);
  const double scan = pair_cost(kernels, strips.bytes() / kStripRows, strips.padded_dim(), n);
  if (rows * scan <= 2 * seed_cost(screen.map.dim, screen.map.head_dim, screen.n_leaves))
    return false;
  return screening.trust->wants_a_look(kind, n_queries);
}

ScreenedProblem::ScreenedProblem(const Problem& of, const Screening& with,
                                 const EncodedQueries& asked)
    : problem(of),
      rest{of.kernels, with.rest, of.n_segments, of.dim, of.metric, of.k, of.cancel},
      screening(with),
      queries(asked),
      threads(num_threads()) {
  int64_t n_wanted = with.screen->n_leaves;
  for (int64_t s = 0; s < of.n_segments; ++s) {
    n_strips += of.segments[s].n_strips;
    n_wanted += wanted_strips(with.rest[s]);
  }
  plan = make_cpu_plan(asked.n_queries, n_strips, n_wanted, with.screen->map.head_dim / kGroupDims,
                       threads);
}

}  // namespace fastretrieve::cpu
