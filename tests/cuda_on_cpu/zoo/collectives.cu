// Every warp collective, the voting barriers, a warp exchange through shared memory, a pipeline on
// named barriers. A warp's results are rows of `out`: [kind][lane].
#include "zoo.cuh"

namespace {

namespace ptx = fastretrieve::cuda::ptx;

constexpr int kRowsOut = 20;

__device__ __forceinline__ void shuffle_rows(int value, int (*out)[32], int lane) {
  out[0][lane] = __shfl_sync(kAll, value, 5);
  out[1][lane] = __shfl_sync(kAll, value, lane + 9, 8);
  out[2][lane] = __shfl_xor_sync(kAll, value, 3);
  out[3][lane] = __shfl_up_sync(kAll, value, 2);
  out[4][lane] = __shfl_down_sync(kAll, value, 7, 16);
  const double wide = __shfl_xor_sync(kAll, value * 1.5, 16);
  out[5][lane] = static_cast<int>(wide * 2);
}

__device__ __forceinline__ void vote_rows(int value, int (*out)[32], int lane) {
  out[6][lane] = static_cast<int>(__ballot_sync(kAll, value & 1));
  out[7][lane] = __any_sync(kAll, value == 3);
  out[8][lane] = __all_sync(kAll, value >= 0);
  out[9][lane] = static_cast<int>(__match_any_sync(kAll, value));
}

__device__ __forceinline__ void reduce_rows(int value, int (*out)[32], int lane) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800  // an instruction of sm_80
  out[10][lane] = __reduce_add_sync(kAll, value);
  out[11][lane] = __reduce_min_sync(kAll, value - 8);
  out[12][lane] = static_cast<int>(__reduce_max_sync(kAll, static_cast<unsigned>(value)));
  out[13][lane] = static_cast<int>(__reduce_or_sync(kAll, 1u << value));
#endif
}

// Two halves of a warp, each in its own collectives.
__device__ __forceinline__ void half_rows(int value, int (*out)[32], int lane) {
  const unsigned half = lane < 16 ? 0x0000ffffu : 0xffff0000u;
  if (lane < 16) {
    out[14][lane] = __shfl_xor_sync(half, value, 15);
  } else {
    out[14][lane] = __shfl_sync(half, value, 16);
    out[14][lane] += __popc(__ballot_sync(half, value & 1));
  }
  __syncwarp();
}

__device__ __forceinline__ void bit_rows(int value, int (*out)[32], int lane) {
  out[15][lane] = __ffs(value) * 100 + __clz(value);
  out[16][lane] = static_cast<int>(__brev(static_cast<unsigned>(value)));
  out[17][lane] = __dp4a(value * 0x01f203e4, 0x7f80ff01, -value);
  out[18][lane] = static_cast<int>(__byte_perm(0x33221100u + value, 0x77665544u, 0x7250u));
  out[19][lane] = static_cast<int>(__funnelshift_l(0x89abcdefu, 0x01234567u, value));
}

__device__ __forceinline__ void broken_rows(int value, int (*out)[32], int lane, Fault fault) {
  if (planted(fault, Fault::warp_lane_outside_its_mask)) out[0][lane] = __any_sync(0x7fffffffu, 1);
  if (planted(fault, Fault::warp_masks_differ)) {
    out[0][lane] = __any_sync(lane < 8 ? kAll : kAll << 4, value);
  }
  if (planted(fault, Fault::warp_reads_outside_mask) && lane < 16) {
    out[0][lane] = __shfl_sync(0x0000ffffu, value, 20);
  }
  if (planted(fault, Fault::warp_names_an_exited_lane) && lane == 31) return;
  if (planted(fault, Fault::warp_names_an_exited_lane)) __syncwarp();
  if (planted(fault, Fault::warp_lane_never_comes)) {
    if (lane != 4) __syncwarp();
    __syncthreads();
  }
}

__global__ void warp_kernel(const int* values, int (*out)[32], Fault fault) {
  const int lane = threadIdx.x;
  const int value = values[lane];
  broken_rows(value, out, lane, fault);
  if (planted(fault, Fault::warp_names_an_exited_lane)) return;
  shuffle_rows(value, out, lane);
  vote_rows(value, out, lane);
  reduce_rows(value, out, lane);
  half_rows(value, out, lane);
  bit_rows(value, out, lane);
}

// Reverses each group of 32 values through shared memory.
__global__ void reverse_kernel(const int* values, int* out, Fault fault) {
  __shared__ int staged[64];
  const int lane = threadIdx.x % 32;
  int* mine = staged + (threadIdx.x - lane);
  mine[lane] = values[threadIdx.x];
  if (!planted(fault, Fault::exchange_has_no_syncwarp)) __syncwarp();
  out[threadIdx.x] = mine[31 - lane];
}

// out = {count, or, and, count of a second round} over a block.
__global__ void votes_kernel(const int* values, int* out, Fault fault) {
  const int value = values[threadIdx.x];
  const int count = __syncthreads_count(value > 0);
  int some;
  if (planted(fault, Fault::votes_use_different_barriers) && threadIdx.x == 40) {
    some = __syncthreads_count(value == 7);
  } else {
    some = __syncthreads_or(value == 7);
  }
  const int every = __syncthreads_and(value > -100);
  const int again = __syncthreads_count(value == 7);
  if (threadIdx.x != 0) return;
  out[0] = count;
  out[1] = some;
  out[2] = every;
  out[3] = again;
}

constexpr int kStages = 2;
constexpr int kStageValues = 64;

// out[i] = 3 * in[i]: warps 0 and 1 fill stages of shared memory, warps 2 and 3 empty them. Barrier
// 1 + s says "stage s is full", 1 + kStages + s "stage s is empty".
__global__ void pipe_kernel(const int* in, int n_tiles, int* out, Fault fault) {
  FR_DYN_SMEM(shared);
  int* stages = reinterpret_cast<int*>(shared);
  const bool produces = threadIdx.x < kStageValues;
  const int i = threadIdx.x % kStageValues;
  const int n_threads = planted(fault, Fault::pipe_counts_one_warp_too_many) ? 160 : 128;
  for (int tile = 0; tile < n_tiles; tile++) {
    const int full = 1 + tile % kStages;
    const int empty = full + kStages;
    int* stage = stages + tile % kStages * kStageValues;
    if (produces) {
      const bool waits = !planted(fault, Fault::pipe_producer_does_not_wait);
      if (tile >= kStages && waits) ptx::bar_sync(empty, n_threads);
      stage[i] = in[tile * kStageValues + i];
      ptx::bar_arrive(full, n_threads);
    } else {
      if (planted(fault, Fault::pipe_consumer_does_not_wait)) {
        ptx::bar_arrive(full, n_threads);
      } else {
        ptx::bar_sync(full, n_threads);
      }
      out[tile * kStageValues + i] = 3 * stage[i];
      const bool is_awaited = tile + kStages < n_tiles;
      if (is_awaited && !planted(fault, Fault::pipe_producer_does_not_wait)) {
        ptx::bar_arrive(empty, n_threads);
      }
    }
  }
}

// The threads of a block take turns, each after the previous one: out[i] = out[i - 1] + i.
__global__ void relay_kernel(int* turn, volatile int* out) {
  const int i = threadIdx.x;
  while (atomicAdd(turn, 0) != i) __nanosleep(20);
  __threadfence();
  out[i] = (i > 0 ? out[i - 1] : 0) + i;
  __threadfence();
  atomicExch(turn, i + 1);
}

// One warpgroup hands registers to the other, which reads past L1; out[i] = the sum of in[i].
__global__ void __launch_bounds__(256, 1) roles_kernel(const int4* in, int* out) {
  if (threadIdx.x < 128) {
    ptx::setmaxnreg_dec<40>();
  } else {
    ptx::setmaxnreg_inc<232>();
    const uint4 v = ptx::ld_global_nc_no_allocate(in + threadIdx.x - 128);
    out[threadIdx.x - 128] = static_cast<int>(v.x + v.y + v.z + v.w);
  }
}

}  // namespace

extern "C" int zoo_warp(const int* values, int (*out)[32]) {
  FR_LAUNCH(warp_kernel, 1, 32, 0, nullptr, values, out, planted_fault);
  return cudaGetLastError();
}

extern "C" int zoo_reverse(const int* values, int* out) {
  FR_LAUNCH(reverse_kernel, 1, 64, 0, nullptr, values, out, planted_fault);
  return cudaGetLastError();
}

extern "C" int zoo_votes(const int* values, int n, int* out) {
  FR_LAUNCH(votes_kernel, 1, n, 0, nullptr, values, out, planted_fault);
  return cudaGetLastError();
}

extern "C" int zoo_pipe(const int* in, int n_tiles, int* out) {
  FR_LAUNCH(pipe_kernel, 1, 128, kStages * kStageValues * sizeof(int), nullptr, in, n_tiles, out,
            planted_fault);
  return cudaGetLastError();
}

extern "C" int zoo_relay(int n, int* turn, int* out) {
  FR_LAUNCH(relay_kernel, 1, n, 0, nullptr, turn, out);
  return cudaGetLastError();
}

extern "C" int zoo_roles(const int4* in, int* out) {
  FR_LAUNCH(roles_kernel, 1, 256, 0, nullptr, in, out);
  return cudaGetLastError();
}
