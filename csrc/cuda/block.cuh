// Sums and selections over a warp, and over a thread block of kBlockThreads threads.
#pragma once
#include <cstdint>

#include "cuda/device.cuh"

namespace fastretrieve::cuda {

constexpr int kBlockThreads = 256;
constexpr int kBlockWarps = kBlockThreads / 32;

template <class T>
__device__ __forceinline__ T warp_sum(T value) {
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(kWholeWarp, value, step);
  return value;
}

template <class T>
__device__ __forceinline__ T warp_max(T value) {
  for (int step = 16; step > 0; step /= 2) {
    const T other = __shfl_xor_sync(kWholeWarp, value, step);
    value = other > value ? other : value;
  }
  return value;
}

// The canonical sum of kLanes adjacent lanes, in each of them.
__device__ __forceinline__ double tree_sum(double lane_sum) {
  for (int step = 1; step < kLanes; step *= 2)
    lane_sum = __dadd_rn(lane_sum, __shfl_xor_sync(kWholeWarp, lane_sum, step));
  return lane_sum;
}

// The number of threads before this one with `flag`; in `total`, the number in the thread block.
// All threads call it, and may call it again at once.
__device__ __forceinline__ int block_rank(bool flag, int* total) {
  __shared__ int warps[kBlockWarps];
  const unsigned votes = __ballot_sync(kWholeWarp, flag);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  __syncthreads();  // all have read the sums of the last call
  if (lane == 0) warps[warp] = __popc(votes);
  __syncthreads();
  int before = 0, all = 0;
  for (int w = 0; w < kBlockWarps; ++w) {
    before += w < warp ? warps[w] : 0;
    all += warps[w];
  }
  *total = all;
  return before + __popc(votes & ((1u << lane) - 1));
}

// Moves the entries that `keep` wants to the front, in their order. Returns their number.
template <class Keep>
__device__ __forceinline__ int64_t compact(Survivor* entries, int64_t n, const Keep& keep) {
  int64_t kept = 0;
  for (int64_t begin = 0; begin < n; begin += kBlockThreads) {
    const int64_t i = begin + threadIdx.x;
    Survivor mine{};
    if (i < n) mine = entries[i];
    const bool wanted = i < n && keep(mine);
    int total;
    const int rank = block_rank(wanted, &total);  // its barrier: all have read
    if (wanted) entries[kept + rank] = mine;
    kept += total;
  }
  __syncthreads();
  return kept;
}

// The 8-bit digit of the `rank`-th smallest number (from 0) in a histogram. `rank` becomes its rank
// among the numbers with that digit. A search waits for this several times, so all threads count.
__device__ __forceinline__ int find_digit(const int* histogram, int64_t* rank) {
  static_assert(kBlockThreads == 256, "a thread for each digit");
  __shared__ int warps[kBlockWarps];
  __shared__ int digit_found;
  __shared__ int64_t rank_found;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int mine = histogram[threadIdx.x];
  int through = mine;  // numbers with this digit or a smaller one
  for (int step = 1; step < 32; step *= 2) {
    const int before = __shfl_up_sync(kWholeWarp, through, step);
    if (lane >= step) through += before;
  }
  if (lane == 31) warps[warp] = through;
  __syncthreads();
  for (int w = 0; w < warp; ++w) through += warps[w];
  if (*rank < through && *rank >= through - mine) {  // true for one thread
    digit_found = threadIdx.x;
    rank_found = *rank - (through - mine);
  }
  __syncthreads();
  *rank = rank_found;
  const int digit = digit_found;
  __syncthreads();
  return digit;
}

// Bits [shift, shift + 8) of the 128-bit number (high, low).
__device__ __forceinline__ int digit_of(uint64_t high, uint64_t low, int shift) {
  return static_cast<int>((shift >= 64 ? high >> (shift - 64) : low >> shift) & 0xff);
}

struct Wide {
  uint64_t high, low;
};

// The `rank`-th smallest (from 0) of n numbers, by radix from the top digit: each round counts only
// numbers with the digits found so far.
template <class Number>
__device__ __forceinline__ Wide nth_smallest(int64_t n, int64_t rank, int bits,
                                             const Number& number) {
  __shared__ int histogram[256];
  Wide prefix{0, 0}, mask{0, 0};
  for (int shift = bits - 8; shift >= 0; shift -= 8) {
    for (int i = threadIdx.x; i < 256; i += kBlockThreads) histogram[i] = 0;
    __syncthreads();
    for (int64_t i = threadIdx.x; i < n; i += kBlockThreads) {
      const Wide x = number(i);
      if ((x.high & mask.high) == prefix.high && (x.low & mask.low) == prefix.low)
        atomicAdd(&histogram[digit_of(x.high, x.low, shift)], 1);
    }
    __syncthreads();
    const uint64_t digit = static_cast<uint64_t>(find_digit(histogram, &rank));
    if (shift >= 64) {
      prefix.high |= digit << (shift - 64);
      mask.high |= uint64_t{0xff} << (shift - 64);
    } else {
      prefix.low |= digit << shift;
      mask.low |= uint64_t{0xff} << shift;
    }
  }
  return prefix;
}

// Unsigned numbers in the opposite order of the floats: the larger float has the smaller number.
__device__ __forceinline__ uint32_t descending(float value) {
  const uint32_t bits = __float_as_uint(value);
  return bits & 0x80000000u ? bits : ~(bits | 0x80000000u);
}
__device__ __forceinline__ float from_descending(uint32_t order) {
  return __uint_as_float(order & 0x80000000u ? order : ~order & 0x7fffffffu);
}
__device__ __forceinline__ uint64_t descending(double value) {
  const uint64_t bits = static_cast<uint64_t>(__double_as_longlong(value));
  return bits >> 63 ? bits : ~(bits | uint64_t{1} << 63);
}
__device__ __forceinline__ double from_descending(uint64_t order) {
  const uint64_t bits = order >> 63 ? order : ~order & (~uint64_t{0} >> 1);
  return __longlong_as_double(static_cast<long long>(bits));
}

}  // namespace fastretrieve::cuda
