// Stage 1 on CUDA, the tiers that run everywhere: `dp4a` (compute capability 6.1) and `mma` (8.0).
//
// A block keeps the codes of a tile of queries in shared memory and walks strips. In the mma tier a
// warp multiplies 16 rows, read in fragment order straight into registers, with 8 queries at a
// time. In the dp4a tier a thread multiplies one row with one query: plain, and what the others are
// compared with.
#include "cuda/block.cuh"
#include "cuda/check.hpp"
#include "cuda/kernels.hpp"
#include "cuda/scan.cuh"
#include "cuda/tile_filter.cuh"

namespace fastretrieve::cuda {

static __global__ void __launch_bounds__(kBlockThreads)
    scan_dp4a_kernel(const __grid_constant__ ScanArgs args) {
  const FragmentLayout layout(args.gallery.dim, is_distance_metric(args.gallery.metric));
  const QueryLayout queries(args.gallery.dim);
  const bool distance = is_distance_metric(args.gallery.metric);
  const int64_t first_query = int64_t{blockIdx.y} * args.tile_queries;
  const int64_t row = threadIdx.x % kStripRows;

  for (int64_t i = blockIdx.x; i < args.n_strips; i += gridDim.x) {
    const StripView strip = strip_view(args, layout, i);
    if (strip.skip) continue;
    const RowPlanes x = read_planes(layout, strip.codes, row, distance);
    for (int64_t q = threadIdx.x / kStripRows; q < args.tile_queries;
         q += kBlockThreads / kStripRows) {
      const int64_t query = first_query + q;
      if (query >= args.batch.n_queries) break;
      int32_t dot = 0;
      for (int64_t d = 0; d < layout.steps * kStepDims; d += 4)
        dot = __dp4a(*reinterpret_cast<const int*>(strip.codes + layout.code_at(row, d)),
                     *reinterpret_cast<const int*>(args.batch.codes + queries.code_at(query, d)),
                     dot);
      if (passes(args.batch.filters[query], x, dot, distance))
        append_survivor(args, query, strip.segment, strip.first_row + row, dot);
    }
  }
}

void scan_dp4a(const ScanArgs& args, cudaStream_t stream) {
  const dim3 grid = scan_grid(args, scan_dp4a_kernel, kBlockThreads, 0, 1);
  FR_LAUNCH(scan_dp4a_kernel, grid, dim3(kBlockThreads), 0, stream, args);
  FR_CUDA_CHECK_LAUNCH();
}

constexpr int kMmaWarps = kTiles;  // a warp for each 16 rows of a strip
constexpr int kChunkSteps = 4;     // 16 bytes of each are on their way to a lane at once

// kGroups groups of 8 queries. All of them stay in accumulators while the codes go by once.
template <int kGroups>
static __global__ void __launch_bounds__(kMmaWarps * 32)
    scan_mma_kernel(const __grid_constant__ ScanArgs args) {
  FR_DYN_SMEM(shared);
  const FragmentLayout layout(args.gallery.dim, is_distance_metric(args.gallery.metric));
  const QueryLayout queries(args.gallery.dim);
  const bool distance = is_distance_metric(args.gallery.metric);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t first_query = int64_t{blockIdx.y} * (kGroups * kGroupQueries);
  const QueryTile tile = load_queries<kGroups>(args, queries, first_query, shared);

  for (int64_t i = blockIdx.x; i < args.n_strips; i += gridDim.x) {
    const StripView strip = strip_view(args, layout, i);
    if (strip.skip) continue;
    int sums[kGroups][4];
#pragma unroll
    for (int i = 0; i < kGroups * 4; ++i) sums[i / 4][i % 4] = kMagicBits;
    const uint8_t* a_lane = strip.codes + warp * layout.tile_bytes() + lane * kLaneBytes;
    const unsigned char* b_lane = shared + lane * 4;
    const int64_t row = warp * kTileRows + lane / 4;
    const RowPlanes upper = read_planes(layout, strip.codes, row, distance);
    const RowPlanes lower = read_planes(layout, strip.codes, row + 8, distance);
    for (int64_t begin = 0; begin < layout.steps; begin += kChunkSteps) {
      uint4 chunk[kChunkSteps];
#pragma unroll
      for (int s = 0; s < kChunkSteps; ++s)
        if (begin + s < layout.steps)
          chunk[s] = ptx::ld_global_nc_no_allocate(a_lane + (begin + s) * kStepBytes);
#pragma unroll
      for (int s = 0; s < kChunkSteps; ++s) {
        if (begin + s >= layout.steps) break;
        const uint32_t a[4] = {chunk[s].x, chunk[s].y, chunk[s].z, chunk[s].w};
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
          const unsigned char* b_step =
              b_lane + group * queries.group_bytes() + (begin + s) * 2 * kPieceBytes;
          const uint32_t b[2] = {*reinterpret_cast<const uint32_t*>(b_step),
                                 *reinterpret_cast<const uint32_t*>(b_step + kPieceBytes)};
          ptx::mma_m16n8k32_s8(sums[group], a, b);
        }
      }
    }
    judge_strip<kGroups>(args, tile, first_query, strip, row, upper, lower, sums[0]);
  }
}

template <int kGroups>
static void launch_mma(const ScanArgs& args, cudaStream_t stream) {
  const int64_t bytes = tile_bytes(args, kGroups);
  FR_CUDA_CHECK(cudaFuncSetAttribute(scan_mma_kernel<kGroups>,
                                     cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     static_cast<int>(bytes)));
  const dim3 grid = scan_grid(args, scan_mma_kernel<kGroups>, kMmaWarps * 32, bytes, 1);
  FR_LAUNCH(scan_mma_kernel<kGroups>, grid, dim3(kMmaWarps * 32), static_cast<size_t>(bytes),
            stream, args);
  FR_CUDA_CHECK_LAUNCH();
}

void scan_mma(const ScanArgs& args, cudaStream_t stream) {
  switch (args.tile_queries) {
    case 8:
      return launch_mma<1>(args, stream);
    case 16:
      return launch_mma<2>(args, stream);
    case 32:
      return launch_mma<4>(args, stream);
    case 64:
      return launch_mma<8>(args, stream);
    default:
      fail("the mma tier has tiles of 8, 16, 32 or 64 queries, got ", args.tile_queries);
  }
}

}  // namespace fastretrieve::cuda
