#include "cuda/plan.hpp"

#include <algorithm>

#include "core/check.hpp"
#include "core/strip.hpp"

namespace fastretrieve {
namespace {

constexpr int64_t kSurvivorBytes = 16;
constexpr int64_t kQueryBytes = 256;  // bounds, thresholds, counts of a query, rounded up
constexpr int64_t kRoomForK = 32;     // so a stage can scan eight times the strips of earlier ones
constexpr int64_t kSampleShare = 2;   // all rows of the first stage survive: half a buffer of them
// Intervals overlap, so this many times more rows survive than exact scores would let through.
constexpr int64_t kWidth = 4;
constexpr int64_t kMmaQueries = 64, kWgmmaQueries = 256;

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t power_of_two(int64_t n) {
  int64_t power = 1;
  while (power < n) power *= 2;
  return power;
}

int64_t largest_panel(int64_t most, int64_t padded_dim, int64_t n_queries, int64_t shared_bytes) {
  int64_t panel = std::min(most, std::max<int64_t>(8, power_of_two(n_queries)));
  while (panel > 8 && panel * (padded_dim + 32) > shared_bytes) panel /= 2;
  return panel;
}

// The first stage is a sample. Each later one multiplies the strips seen so far, as far as the
// expected survivors fit the buffer.
void add_stages(const CudaShape& shape, CudaPlan& plan) {
  const int64_t tails = shape.n_rows - shape.n_strips * kStripRows;
  const int64_t room = plan.capacity - tails;
  const int64_t sample = std::max<int64_t>(room / kSampleShare / kStripRows, 1);
  int64_t stride = 1;
  while (divide_up(shape.n_strips, stride) > sample) stride *= 2;
  int64_t seen = 0;
  plan.n_stages = 0;
  for (;;) {
    const int64_t reached = divide_up(shape.n_strips, stride);
    plan.stages[static_cast<size_t>(plan.n_stages++)] = {stride, reached - seen};
    seen = reached;
    if (stride == 1) return;
    // About k / seen of the next stage's rows survive, times the width of the intervals.
    const int64_t growth = std::max<int64_t>(room / (shape.k * kWidth), 2);
    const bool last = plan.n_stages == kMaxStages - 1;
    int64_t next = last ? 1 : stride;
    for (int64_t g = 2; next > 1 && g <= growth; g *= 2) next /= 2;
    stride = next;
  }
}

}  // namespace

CudaTier cuda_tier_by_name(const std::string& name) {
  for (const CudaTier tier : {CudaTier::dp4a, CudaTier::mma, CudaTier::wgmma})
    if (name == name_of(tier)) return tier;
  fail("CUDA tier must be dp4a, mma or wgmma, got '", name, "'");
}

const char* name_of(CudaTier tier) {
  switch (tier) {
    case CudaTier::dp4a:
      return "dp4a";
    case CudaTier::mma:
      return "mma";
    case CudaTier::wgmma:
      return "wgmma";
  }
  return "unknown";
}

CudaPlan make_cuda_plan(const CudaShape& shape, CudaTier tier, const CudaLimits& limits,
                        int64_t workspace_limit) {
  FR_CHECK(limits.min_capacity >= kLeastCapacity, "a query needs room for ", kLeastCapacity,
           " survivors, got ", limits.min_capacity);
  CudaPlan plan{};
  const int64_t padded_dim = divide_up(shape.dim, 32) * 32;
  const int64_t most = tier == CudaTier::wgmma ? kWgmmaQueries : kMmaQueries;
  plan.tier = tier;
  plan.because = "asked for or the default";
  plan.panel_queries = largest_panel(most, padded_dim, shape.n_queries, limits.shared_bytes);
  if (plan.panel_queries * (padded_dim + 32) > limits.shared_bytes) {
    plan.tier = CudaTier::dp4a;
    plan.panel_queries = kMmaQueries;
    plan.because = "the queries of a panel do not fit shared memory";
  }
  // The rows after a segment's last strip have no codes. They join the survivors at the end.
  const int64_t tails = shape.n_rows - shape.n_strips * kStripRows;
  plan.capacity = power_of_two(std::max(limits.min_capacity, kRoomForK * shape.k) + tails);
  const int64_t query_bytes = plan.capacity * kSurvivorBytes + padded_dim + kQueryBytes;
  const int64_t fitting = std::max<int64_t>(workspace_limit / query_bytes, 1);
  plan.batch_queries = std::max<int64_t>(std::min(shape.n_queries, fitting), 1);
  if (plan.batch_queries < shape.n_queries && fitting > plan.panel_queries)
    plan.batch_queries = fitting / plan.panel_queries * plan.panel_queries;
  const int64_t padded = divide_up(plan.batch_queries, kWgmmaQueries) * kWgmmaQueries;
  plan.workspace_bytes = plan.batch_queries * plan.capacity * kSurvivorBytes +
                         padded * (padded_dim + kQueryBytes) + 4096;
  if (shape.n_rows <= std::max(limits.exhaustive_rows, 4 * shape.k) || shape.n_strips == 0) {
    plan.n_stages = 0;
    plan.because = "few rows: each is scored";
    return plan;
  }
  add_stages(shape, plan);
  return plan;
}

std::ostream& operator<<(std::ostream& out, const CudaPlan& plan) {
  out << "CudaPlan{tier=" << name_of(plan.tier) << ", panel_queries=" << plan.panel_queries
      << ", batch_queries=" << plan.batch_queries << ", capacity=" << plan.capacity << ", stages=[";
  for (int s = 0; s < plan.n_stages; ++s) {
    const CudaStage& stage = plan.stages[static_cast<size_t>(s)];
    out << (s ? ", " : "") << stage.n_strips << " strips by " << stage.stride;
  }
  return out << "], workspace=" << plan.workspace_bytes << " bytes, because=\"" << plan.because
             << "\"}";
}

}  // namespace fastretrieve
