// Stage 2 on CUDA, between two scans: the k-th best lower end becomes the threshold, and survivors
// whose upper end is below it go. One thread block a query.
//
// A query whose survivors did not fit has lost some, so `finish` will score every row for it.
#include "cuda/block.cuh"
#include "cuda/check.hpp"
#include "cuda/kernels.hpp"

namespace fastretrieve::cuda {

static __global__ void __launch_bounds__(kBlockThreads)
    select_kernel(const __grid_constant__ SelectArgs args) {
  take_turn();
  const QueryBatch& batch = args.batch;
  const int64_t query = blockIdx.x;
  if (batch.states[query] != QueryState::scanning) return;  // the same for the whole thread block
  const int64_t count = batch.counts[query];
  if (count > batch.limit) {
    __syncthreads();  // all have read the state
    if (threadIdx.x == 0) {
      batch.states[query] = QueryState::exhaustive;
      batch.filters[query].w = HUGE_VALF;  // no pair passes any more
    }
    return;
  }
  if (count < args.k) return;

  Survivor* entries = batch.survivors + query * batch.capacity;
  const Wide kth = nth_smallest(count, args.k - 1, 32, [entries](int64_t i) {
    return Wide{0, descending(entries[i].lower)};
  });
  const double value = double{from_descending(static_cast<uint32_t>(kth.low))};
  const double threshold = value > batch.values[query] ? value : batch.values[query];
  const int64_t kept = compact(
      entries, count, [threshold](const Survivor& s) { return !(double{s.upper} < threshold); });
  if (threadIdx.x != 0) return;
  batch.values[query] = threshold;
  batch.counts[query] = static_cast<uint32_t>(kept);
  batch.filters[query].w = filter_threshold(args.metric, batch.bounds[query], threshold);
}

void select_survivors(const SelectArgs& args, const Queue& queue) {
  FR_LAUNCH_NEXT(select_kernel, dim3(static_cast<unsigned>(args.batch.n_queries)),
                 dim3(kBlockThreads), 0, queue, args);
  FR_CUDA_CHECK_LAUNCH();
}

}  // namespace fastretrieve::cuda
