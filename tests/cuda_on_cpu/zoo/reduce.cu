// Sums, a last-block reduction, a histogram: shuffles, barriers, atomics, fences, shared memory.
#include "zoo.cuh"

namespace {

namespace ptx = fastretrieve::cuda::ptx;
using u64 = unsigned long long;

constexpr int kSumThreads = 128;

__device__ __forceinline__ int warp_sum(int value) {
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(kAll, value, step);
  return value;
}

// total += the sum of `values`; one atomic for each block.
__global__ void __launch_bounds__(kSumThreads)
    sum_kernel(const int* values, int64_t n, u64* total, Fault fault) {
  __shared__ int partial[kSumThreads / 32];
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int64_t end = planted(fault, Fault::sum_reads_one_past_the_end) ? n + 1 : n;

  int sum = 0;
  const int64_t step = int64_t{gridDim.x} * kSumThreads;
  for (int64_t i = int64_t{blockIdx.x} * kSumThreads + threadIdx.x; i < end; i += step) {
    sum += values[i];
  }
  if (planted(fault, Fault::sum_shuffles_in_a_branch)) {
    if (sum != 0) sum = warp_sum(sum);
  } else {
    sum = warp_sum(sum);
  }
  if (lane == 0) partial[warp] = sum;
  if (planted(fault, Fault::sum_barrier_in_a_branch)) {
    if (warp == 0) __syncthreads();
  } else if (!planted(fault, Fault::sum_has_no_barrier)) {
    __syncthreads();
  }

  const int n_lanes = planted(fault, Fault::sum_mask_shifts_by_32) ? 32 : kSumThreads / 32;
  const unsigned lanes = (1u << n_lanes) - 1;
  if ((lanes >> threadIdx.x % 32 & 1u) == 0 || warp != 0) return;
  int block_sum = partial[lane];
  for (int i = kSumThreads / 64; i > 0; i /= 2) block_sum += __shfl_xor_sync(lanes, block_sum, i);
  if (lane != 0) return;
  if (planted(fault, Fault::sum_adds_without_atomic)) {
    *total += block_sum;
  } else {
    atomicAdd(total, u64(block_sum));
  }
}

struct MaximumArgs {
  const float* values;
  int64_t n;
  float* partial;    // [gridDim.x]
  unsigned* ticket;  // 0 before the first launch, and after each
  float* out;
};

// The maximum of all values: each block takes that of its own, then the last block that of all.
__global__ void maximum_kernel(const MaximumArgs args, Fault fault) {
  __shared__ bool is_last;
  float best = -3.4e38f;
  for (int64_t i = blockIdx.x * 32 + threadIdx.x; i < args.n; i += gridDim.x * 32) {
    best = max(best, args.values[i]);
  }
  for (int step = 16; step > 0; step /= 2) best = max(best, __shfl_xor_sync(kAll, best, step));

  if (threadIdx.x == 0) {
    args.partial[blockIdx.x] = best;
    if (!planted(fault, Fault::last_block_has_no_fence)) __threadfence();
    is_last = atomicAdd(args.ticket, 1u) == gridDim.x - 1;
    if (is_last && !planted(fault, Fault::last_block_has_no_fence)) __threadfence();
  }
  __syncthreads();
  if (!is_last) return;

  best = -3.4e38f;
  for (unsigned i = threadIdx.x; i < gridDim.x; i += 32) best = max(best, args.partial[i]);
  for (int step = 16; step > 0; step /= 2) best = max(best, __shfl_xor_sync(kAll, best, step));
  if (threadIdx.x == 0) {
    *args.out = best;
    atomicExch(args.ticket, 0u);  // a plain store would race with the other blocks' atomicAdd
  }
}

// counts[b] = how many of `values` are b; one block, counted in shared memory.
__global__ void histogram_kernel(const uint8_t* values, int n, int n_bins, int* counts,
                                 Fault fault) {
  FR_DYN_SMEM(shared);
  int* bins = reinterpret_cast<int*>(shared);
  if (planted(fault, Fault::histogram_writes_past_shared)) bins[n_bins] = 0;
  if (!planted(fault, Fault::histogram_is_not_cleared)) {
    for (int b = threadIdx.x; b < n_bins; b += blockDim.x) bins[b] = 0;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < n; i += blockDim.x) atomicAdd(&bins[values[i]], 1);
  __syncthreads();
  for (int b = threadIdx.x; b < n_bins; b += blockDim.x) counts[b] = bins[b];
}

// Keeps the first `capacity` odd values that come; `count` counts all of them.
__global__ void append_kernel(const int* values, int capacity, int* kept, int* count, Fault fault) {
  const int value = values[blockIdx.x * blockDim.x + threadIdx.x];
  if (value % 2 == 0) return;
  if (planted(fault, Fault::append_asks_before_it_takes)) {
    if (atomicAdd(count, 0) < capacity) kept[atomicAdd(count, 1)] = value;
    return;
  }
  const int slot = atomicAdd(count, 1);
  if (slot < capacity) kept[slot] = value;
}

}  // namespace

extern "C" int zoo_sum(const int* values, int64_t n, int n_blocks, u64* total) {
  cudaMemsetAsync(total, 0, sizeof *total, nullptr);
  FR_LAUNCH(sum_kernel, n_blocks, kSumThreads, 0, nullptr, values, n, total, planted_fault);
  return cudaGetLastError();
}

extern "C" int zoo_maximum(const float* values, int64_t n, int n_blocks, float* workspace,
                           float* out) {
  const MaximumArgs args{values, n, workspace + 1, reinterpret_cast<unsigned*>(workspace), out};
  cudaMemsetAsync(workspace, 0, sizeof *workspace, nullptr);
  FR_LAUNCH(maximum_kernel, n_blocks, 32, 0, nullptr, args, planted_fault);
  return cudaGetLastError();
}

extern "C" int zoo_histogram(const uint8_t* values, int n, int n_bins, int* counts) {
  FR_LAUNCH(histogram_kernel, 1, 96, n_bins * sizeof(int), nullptr, values, n, n_bins, counts,
            planted_fault);
  return cudaGetLastError();
}

extern "C" int zoo_append(const int* values, int n_blocks, int capacity, int* kept, int* count) {
  FR_LAUNCH(append_kernel, n_blocks, 64, 0, nullptr, values, capacity, kept, count, planted_fault);
  return cudaGetLastError();
}
