// How a search on a GPU is cut into launches: a pure function, printed and tested without a GPU. It
// never changes a result.
#pragma once
#include <array>
#include <cstdint>
#include <ostream>
#include <string>

namespace fastretrieve {

enum class CudaTier : int32_t { dp4a, mma, wgmma };

CudaTier cuda_tier_by_name(const std::string& name);
const char* name_of(CudaTier tier);

// What the device and the build offer.
struct CudaLimits {
  CudaTier best_tier = CudaTier::dp4a;
  int32_t n_multiprocessors = 1;
  int64_t shared_bytes = 48 << 10;  // the most for a thread block
  // Scoring this many rows for a query costs less than the launches that would rule them out.
  int64_t exhaustive_rows = 256;
  int64_t min_capacity = 2048;  // survivors of a query
};

// With less room `finish` could not score every row. Tests use this capacity and scan any number of
// rows, so that small inputs go through every stage.
constexpr int64_t kLeastCapacity = 512;

struct CudaShape {
  int64_t n_queries;
  int64_t n_strips;
  int64_t n_rows;
  int64_t dim;
  int64_t k;
};

// A stage scans the strips whose number is a multiple of `stride`, except those of earlier stages.
struct CudaStage {
  int64_t stride;
  int64_t n_strips;
};

constexpr int kMaxStages = 6;

struct CudaPlan {
  CudaTier tier;
  int64_t panel_queries;  // queries whose codes a thread block keeps in shared memory
  int64_t batch_queries;  // queries of one turn; more queries take several turns
  int64_t capacity;       // room for the survivors of a query, a power of two
  std::array<CudaStage, kMaxStages> stages;
  int n_stages;  // 0: every row is scored and no codes are read
  int64_t workspace_bytes;
  const char* because;
};

// `workspace_limit` bounds memory for the survivors of one turn.
CudaPlan make_cuda_plan(const CudaShape& shape, CudaTier tier, const CudaLimits& limits,
                        int64_t workspace_limit);
std::ostream& operator<<(std::ostream& out, const CudaPlan& plan);

}  // namespace fastretrieve
