// Small kernels that use everything the emulation offers; test_cuda_emulation.py checks their
// answers.
//
// Each can be broken on purpose: `planted(fault, Fault::x)` stands beside the line that it breaks,
// and is false unless the test has asked for that fault by name.
#pragma once

#include <cstdint>

#include "cuda/ptx/ptx.cuh"

#define FR_ZOO_FAULTS(X)           \
  X(none)                          \
  X(sum_reads_one_past_the_end)    \
  X(sum_has_no_barrier)            \
  X(sum_shuffles_in_a_branch)      \
  X(sum_barrier_in_a_branch)       \
  X(sum_adds_without_atomic)       \
  X(sum_mask_shifts_by_32)         \
  X(last_block_has_no_fence)       \
  X(append_asks_before_it_takes)   \
  X(histogram_is_not_cleared)      \
  X(histogram_writes_past_shared)  \
  X(warp_lane_outside_its_mask)    \
  X(warp_masks_differ)             \
  X(warp_reads_outside_mask)       \
  X(warp_names_an_exited_lane)     \
  X(warp_lane_never_comes)         \
  X(exchange_has_no_syncwarp)      \
  X(votes_use_different_barriers)  \
  X(mma_waits_too_little)          \
  X(mma_has_no_barrier_after_wait) \
  X(mma_has_no_barrier_at_end)     \
  X(mma_swaps_fragments)           \
  X(mma_copies_misaligned)         \
  X(mma_never_waits)               \
  X(wgmma_stores_unswizzled)       \
  X(wgmma_halves_group_stride)     \
  X(wgmma_has_no_wait)             \
  X(wgmma_reads_sums_early)        \
  X(wgmma_has_no_proxy_fence)      \
  X(wgmma_has_no_register_fence)   \
  X(wgmma_has_no_barrier_at_end)   \
  X(wgmma_warps_differ)            \
  X(pair_waits_for_one_too_few)    \
  X(pipe_consumer_does_not_wait)   \
  X(pipe_producer_does_not_wait)   \
  X(pipe_counts_one_warp_too_many)

enum class Fault : int {
#define FR_ZOO_NAME(name) name,
  FR_ZOO_FAULTS(FR_ZOO_NAME)
#undef FR_ZOO_NAME
};

#ifdef FR_EMU
inline bool planted(Fault fault, Fault here) { return fault == here; }
#else  // nvcc compiles the kernels without faults
__device__ __forceinline__ constexpr bool planted(Fault, Fault) { return false; }
#endif

inline Fault planted_fault = Fault::none;  // chosen by the test, passed to the kernels

constexpr unsigned kAll = 0xffffffffu;
