// Stage 1 on Hopper (sm_90a): `wgmma`, with rows from registers and up to 256 queries in shared
// memory, for large batches.
//
// Two warpgroups of a thread block walk different strips with the same queries: while one judges
// its products, the other multiplies. Rows need no shared memory, no copy engine and no barrier.
// Their codes lie in fragment order and load while the previous ones are multiplied.
#include "cuda/check.hpp"
#include "cuda/kernels.hpp"
#include "cuda/panel_filter.cuh"
#include "cuda/scan.cuh"

namespace fastretrieve::cuda {

constexpr int kWarpgroups = 2;
constexpr int kWarpgroupThreads = 128;

// Starts the products of kSteps steps; those of the queries begin at `b_address`. The number of
// steps is fixed: if a loop could end early, the compiler would wait for each product before the
// next.
template <int kQueries, int kSteps>
__device__ __forceinline__ void multiply(int (&sums)[kQueries / 2], const Chunk& codes,
                                         uint32_t b_address, uint32_t octet_bytes) {
  ptx::wgmma_fence();
#pragma unroll
  for (int s = 0; s < kSteps; ++s) {
    const uint32_t at = b_address + s * static_cast<uint32_t>(2 * kPieceBytes);
    const uint64_t b = shared_descriptor(at, Swizzle::none, octet_bytes, kPieceBytes);
    ptx::wgmma_s8<kQueries>(sums, codes.steps[s], b, true);
  }
  ptx::wgmma_commit();
}

template <int kQueries>
static __global__ void __launch_bounds__(kWarpgroups* kWarpgroupThreads, kQueries <= 64 ? 2 : 1)
    scan_wgmma_kernel(const __grid_constant__ ScanArgs args) {
#if FR_HAS_WGMMA
  take_turn();
  FR_DYN_SMEM(shared);
  const FragmentLayout layout(args.gallery.dim, is_distance(args.gallery.metric));
  const QueryLayout queries(args.gallery.dim);
  const bool distance = is_distance(args.gallery.metric);
  const int32_t row = threadIdx.x / 32 % 4 * kBlockRows + threadIdx.x % 32 / 4;
  const int32_t steps = static_cast<int32_t>(layout.steps);
  const int64_t first_query = int64_t{blockIdx.y} * kQueries;
  const QueryPanel panel =
      load_queries<kQueries / kOctetQueries>(args, queries, first_query, shared);
  ptx::fence_proxy_async();  // wgmma reads the ordinary stores above
  __syncthreads();
  const uint32_t b_address = ptx::shared_address(shared);
  const uint32_t octet_bytes = static_cast<uint32_t>(queries.octet_bytes());

  const int32_t n_strips = static_cast<int32_t>(args.n_strips), step = gridDim.x * kWarpgroups;
  int32_t i = blockIdx.x * kWarpgroups + threadIdx.x / kWarpgroupThreads;
  StripView strip = next_strip(args, layout, &i, step);
  Chunk codes{};
  TwoRows rows{};
  if (i < n_strips) {
    codes = load_chunk(layout, strip, 0);
    rows = read_two_rows(layout, strip, row, distance);
  }
  while (i < n_strips) {
    int32_t after = i + step;
    const StripView following = next_strip(args, layout, &after, step);
    TwoRows next_rows{};
    if (after < n_strips) next_rows = read_two_rows(layout, following, row, distance);
    int sums[kQueries / 2];
#pragma unroll
    for (int sum = 0; sum < kQueries / 2; ++sum) sums[sum] = kMagicBits;
    for (int32_t begin = 0; begin < steps; begin += kChunkSteps) {
      Chunk next{};  // loads while this chunk is multiplied
      if (begin + kChunkSteps < steps) {
        next = load_chunk(layout, strip, begin + kChunkSteps);
      } else if (after < n_strips) {
        next = load_chunk(layout, following, 0);
      }
      const uint32_t at = b_address + static_cast<uint32_t>(begin * 2 * kPieceBytes);
      switch (steps - begin) {
        case 1:
          multiply<kQueries, 1>(sums, codes, at, octet_bytes);
          break;
        case 2:
          multiply<kQueries, 2>(sums, codes, at, octet_bytes);
          break;
        case 3:
          multiply<kQueries, 3>(sums, codes, at, octet_bytes);
          break;
        default:
          multiply<kQueries, kChunkSteps>(sums, codes, at, octet_bytes);
      }
      ptx::wgmma_wait<0>(sums);
#pragma unroll
      for (int s = 0; s < kChunkSteps; ++s) ptx::wgmma_release(codes.steps[s]);
      codes = next;
    }
    judge_strip<kQueries / kOctetQueries>(args, panel, first_query, strip, row, rows, sums);
    __syncwarp();  // products need the whole warp, which may have split
    strip = following;
    rows = next_rows;
    i = after;
  }
#else
  (void)args;
  __trap();
#endif
}

template <int kQueries>
static void launch_wgmma(const ScanArgs& args, const Queue& queue) {
  const int64_t bytes = panel_bytes(args, kQueries / kOctetQueries);
  constexpr int kThreads = kWarpgroups * kWarpgroupThreads;
  const dim3 grid = scan_grid(args, scan_wgmma_kernel<kQueries>, kThreads, bytes, kWarpgroups);
  FR_LAUNCH_NEXT(scan_wgmma_kernel<kQueries>, grid, dim3(kThreads), static_cast<size_t>(bytes),
                 queue, args);
  FR_CUDA_CHECK_LAUNCH();
}

void scan_wgmma(const ScanArgs& args, const Queue& queue) {
  switch (args.panel_queries) {
    case 8:
      return launch_wgmma<8>(args, queue);
    case 16:
      return launch_wgmma<16>(args, queue);
    case 32:
      return launch_wgmma<32>(args, queue);
    case 64:
      return launch_wgmma<64>(args, queue);
    case 128:
      return launch_wgmma<128>(args, queue);
    case 256:
      return launch_wgmma<256>(args, queue);
    default:
      fail("the wgmma tier has panels of 8 to 256 queries, got ", args.panel_queries);
  }
}

}  // namespace fastretrieve::cuda
