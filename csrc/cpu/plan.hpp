// How a search on the CPU is cut into tasks: a pure function, printed and tested by itself. It
// never changes a result.
#pragma once
#include <cstdint>
#include <ostream>

namespace fastretrieve {

// The codes of 256 queries of dimension 128 take 32 KiB. They stay in the L2 cache, beside the
// strip in L1.
constexpr int64_t kMaxPanel = 256;

struct CpuPlan {
  int64_t panel_queries;  // queries of a panel
  int64_t n_panels;
  int64_t chunk_strips;  // strips in one task
  int64_t n_chunks;      // 1: a task walks all rows for its panel
  const char* because;
};

// About `n_wanted` of `n_strips` strips hold rows that the search may return.
CpuPlan make_cpu_plan(int64_t n_queries, int64_t n_strips, int64_t n_wanted, int64_t groups,
                      int n_threads);
std::ostream& operator<<(std::ostream& out, const CpuPlan& plan);

}  // namespace fastretrieve
