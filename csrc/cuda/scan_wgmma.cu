// Stage 1 on Hopper (sm_90a): wgmma with rows from registers and up to 256 queries in shared
// memory, for large batches.
//
// Two warpgroups of a block walk different strips over the same queries: while one waits for its
// products or judges them, the other multiplies. Rows need no shared memory, no copy engine and no
// barrier: the codes lie in fragment order.
#include "cuda/check.hpp"
#include "cuda/kernels.hpp"
#include "cuda/scan.cuh"

namespace fastretrieve::cuda {

constexpr int kWarpgroups = 2;
constexpr int kWarpgroupThreads = 128;
constexpr int kChunkSteps = 4;  // steps of 32 dimensions whose codes are in registers at once

template <int kQueries>
static __global__ void __launch_bounds__(kWarpgroups* kWarpgroupThreads, 1)
    scan_wgmma_kernel(const __grid_constant__ ScanArgs args) {
#if FR_HAS_WGMMA
  FR_DYN_SMEM(shared);
  const FragmentLayout layout(args.gallery.dim, is_distance_metric(args.gallery.metric));
  const QueryLayout queries(args.gallery.dim);
  const bool distance = is_distance_metric(args.gallery.metric);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  const int64_t warpgroup = threadIdx.x / kWarpgroupThreads;
  const int64_t first_query = int64_t{blockIdx.y} * kQueries;
  const float4* filters =
      load_queries(args, queries, first_query, kQueries / kGroupQueries, shared);
  ptx::fence_proxy_async();  // wgmma reads what ordinary stores wrote
  __syncthreads();
  const uint32_t b_address = ptx::shared_address(shared);
  const uint32_t group_bytes = static_cast<uint32_t>(queries.group_bytes());

  for (int64_t i = blockIdx.x * kWarpgroups + warpgroup; i < args.n_strips;
       i += int64_t{gridDim.x} * kWarpgroups) {
    const StripView strip = strip_view(args, layout, i);
    if (strip.skip) continue;
    const uint8_t* a_lane = strip.codes + warp * layout.tile_bytes() + lane * kLaneBytes;
    int sums[kQueries / 2];
    for (int64_t begin = 0; begin < layout.steps; begin += kChunkSteps) {
      uint32_t a[kChunkSteps][4];
#pragma unroll
      for (int s = 0; s < kChunkSteps; ++s) {
        if (begin + s >= layout.steps) break;
        const uint4 four = ptx::ld_global_nc_no_allocate(a_lane + (begin + s) * kStepBytes);
        a[s][0] = four.x, a[s][1] = four.y, a[s][2] = four.z, a[s][3] = four.w;
      }
      ptx::wgmma_fence();
#pragma unroll
      for (int s = 0; s < kChunkSteps; ++s) {
        if (begin + s >= layout.steps) break;
        const uint32_t at = b_address + static_cast<uint32_t>((begin + s) * 2 * kPieceBytes);
        ptx::wgmma_s8<kQueries>(sums, a[s],
                                shared_descriptor(at, Swizzle::none, group_bytes, kPieceBytes),
                                begin + s > 0);
      }
      ptx::wgmma_commit();
      ptx::wgmma_wait<0>(sums);
    }
    const int64_t row = warp * kTileRows + lane / 4;
    const RowPlanes upper = read_planes(layout, strip.codes, row, distance);
    const RowPlanes lower = read_planes(layout, strip.codes, row + 8, distance);
#pragma unroll
    for (int group = 0; group < kQueries / kGroupQueries; ++group) {
#pragma unroll
      for (int column = 0; column < 2; ++column) {
        const int q = group * kGroupQueries + 2 * (lane % 4) + column;
        const float4 filter = filters[q];
        const int up = sums[group * 4 + column], down = sums[group * 4 + 2 + column];
        const int64_t query = first_query + q, first_row = strip.first_row + row;
        if (passes(filter, upper, up, distance))
          append_survivor(args, query, strip.segment, first_row, up);
        if (passes(filter, lower, down, distance))
          append_survivor(args, query, strip.segment, first_row + 8, down);
      }
    }
  }
#else
  (void)args;
  __trap();
#endif
}

template <int kQueries>
static void launch_wgmma(const ScanArgs& args, cudaStream_t stream) {
  const int64_t bytes = shared_bytes(QueryLayout(args.gallery.dim), kQueries / kGroupQueries);
  FR_CUDA_CHECK(cudaFuncSetAttribute(scan_wgmma_kernel<kQueries>,
                                     cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     static_cast<int>(bytes)));
  FR_LAUNCH(scan_wgmma_kernel<kQueries>, scan_grid(args, kWarpgroups),
            dim3(kWarpgroups * kWarpgroupThreads), static_cast<size_t>(bytes), stream, args);
  FR_CUDA_CHECK_LAUNCH();
}

void scan_wgmma(const ScanArgs& args, cudaStream_t stream) {
  switch (args.tile_queries) {
    case 8:
      return launch_wgmma<8>(args, stream);
    case 16:
      return launch_wgmma<16>(args, stream);
    case 32:
      return launch_wgmma<32>(args, stream);
    case 64:
      return launch_wgmma<64>(args, stream);
    case 128:
      return launch_wgmma<128>(args, stream);
    case 256:
      return launch_wgmma<256>(args, stream);
    default:
      fail("the wgmma tier has tiles of 8 to 256 queries, got ", args.tile_queries);
  }
}

}  // namespace fastretrieve::cuda
