#include "cpu/plan.hpp"

#include <algorithm>

#include "core/strip.hpp"

namespace fastretrieve {

// Threads that share the queries each read all codes. Threads that share the rows each keep
// survivors of all queries until their thresholds have spread. So threads share the queries if each
// gets many, or some and the codes are few enough to be read several times.
constexpr int64_t kManyQueries = 64, kSomeQueries = 8;  // of a thread
constexpr int64_t kFewCodes = 128 << 20;                // bytes that all threads read together
// Below this many register-wide multiply-adds (about 20 us), waking a thread costs more than it
// saves.
constexpr int64_t kMinParallelWork = 1 << 16;
constexpr int64_t kChunksPerThread = 4;  // evens out threads that run at different speeds
constexpr int64_t kMinChunkStrips = 16;

static bool share_queries(int64_t n_queries, int64_t code_bytes, int n_threads) {
  if (n_queries >= kManyQueries * n_threads) return true;
  return n_queries >= kSomeQueries * n_threads && code_bytes * n_threads <= kFewCodes;
}

static int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

CpuPlan make_cpu_plan(int64_t n_queries, int64_t n_strips, int64_t n_wanted, int64_t groups,
                      int n_threads) {
  const int64_t work = n_queries * n_wanted * groups * 4;
  const int64_t strips = std::max<int64_t>(n_strips, 1);
  if (n_threads == 1 || work < kMinParallelWork) {
    const int64_t panels = std::max<int64_t>(divide_up(n_queries, kMaxPanel), 1);
    return {divide_up(std::max<int64_t>(n_queries, 1), panels), panels, strips, 1,
            n_threads == 1 ? "one thread" : "little work"};
  }
  if (share_queries(n_queries, n_wanted * groups * 4 * kStripRows, n_threads)) {
    const int64_t rounds = divide_up(n_queries, kMaxPanel * n_threads);
    const int64_t panel =
        divide_up(divide_up(n_queries, rounds * n_threads), 4) * 4;  // tiles of four queries
    return {panel, divide_up(n_queries, panel), strips, 1, "threads share the queries"};
  }
  const int64_t chunk =
      std::max(divide_up(n_wanted, kChunksPerThread * n_threads), kMinChunkStrips);
  const int64_t panels = divide_up(n_queries, kMaxPanel);
  return {divide_up(n_queries, panels), panels, chunk, divide_up(strips, chunk),
          "threads share the rows"};
}

std::ostream& operator<<(std::ostream& out, const CpuPlan& plan) {
  return out << "CpuPlan{panel_queries=" << plan.panel_queries << ", n_panels=" << plan.n_panels
             << ", chunk_strips=" << plan.chunk_strips << ", n_chunks=" << plan.n_chunks
             << ", because=\"" << plan.because << "\"}";
}

}  // namespace fastretrieve
