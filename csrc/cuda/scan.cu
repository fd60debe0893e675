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
  take_turn();
  const FragmentLayout layout(args.gallery.dim, is_distance_metric(args.gallery.metric));
  const QueryLayout queries(args.gallery.dim);
  const bool distance = is_distance_metric(args.gallery.metric);
  const int64_t first_query = int64_t{blockIdx.y} * args.tile_queries;
  const int64_t row = threadIdx.x % kStripRows;

  for (int32_t i = blockIdx.x; i < args.n_strips; i += gridDim.x) {
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
        append_survivor(args, query, strip.segment, strip.number * kStripRows + row, dot);
    }
  }
}

void scan_dp4a(const ScanArgs& args, const Queue& queue) {
  const dim3 grid = scan_grid(args, scan_dp4a_kernel, kBlockThreads, 0, 1);
  FR_LAUNCH_NEXT(scan_dp4a_kernel, grid, dim3(kBlockThreads), 0, queue, args);
  FR_CUDA_CHECK_LAUNCH();
}

constexpr int kMmaWarps = kTiles;  // a warp for each 16 rows of a strip
// Blocks that share a multiprocessor. Each warp has 2 KB of codes on its way; to keep the memory of
// an H200 busy takes some 25 KB. With more blocks registers would spill.
constexpr int blocks_of_mma(int groups) { return groups == 1 ? 5 : 4; }

// Adds the products of 16 rows with kGroups groups of queries, whose codes start at `b_step`.
template <int kGroups>
__device__ __forceinline__ void multiply(int (&sums)[kGroups][4], const uint32_t (&rows)[4],
                                         const unsigned char* b_step, int64_t group_bytes) {
#pragma unroll
  for (int group = 0; group < kGroups; ++group, b_step += group_bytes) {
    const uint32_t b[2] = {*reinterpret_cast<const uint32_t*>(b_step),
                           *reinterpret_cast<const uint32_t*>(b_step + kPieceBytes)};
    ptx::mma_m16n8k32_s8(sums[group], rows, b);
  }
}

// kGroups groups of 8 queries. All of them stay in accumulators while the codes go by once.
template <int kGroups>
static __global__ void __launch_bounds__(kMmaWarps * 32, blocks_of_mma(kGroups))
    scan_mma_kernel(const __grid_constant__ ScanArgs args) {
  take_turn();
  FR_DYN_SMEM(shared);
  const FragmentLayout layout(args.gallery.dim, is_distance_metric(args.gallery.metric));
  const QueryLayout queries(args.gallery.dim);
  const bool distance = is_distance_metric(args.gallery.metric);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t first_query = int64_t{blockIdx.y} * (kGroups * kGroupQueries);
  const int32_t row = warp * kTileRows + lane / 4, steps = static_cast<int32_t>(layout.steps);
  const unsigned char* b_lane = shared + lane * 4;
  const QueryTile tile = load_queries<kGroups>(args, queries, first_query, shared);

  const int32_t n_strips = static_cast<int32_t>(args.n_strips);
  int32_t i = blockIdx.x;
  StripView strip = next_strip(args, layout, &i, gridDim.x);
  Chunk codes{};
  if (i < n_strips) codes = load_chunk(layout, strip, 0);
  while (i < n_strips) {
    const TwoRows rows = read_two_rows(layout, strip, row, distance);  // used after the products
    int32_t after = i + gridDim.x;
    const StripView following = next_strip(args, layout, &after, gridDim.x);
    int sums[kGroups][4];
#pragma unroll
    for (int sum = 0; sum < kGroups * 4; ++sum) sums[sum / 4][sum % 4] = kMagicBits;
    for (int32_t begin = 0; begin < steps; begin += kChunkSteps) {
      Chunk next{};  // comes while these are multiplied and judged
      if (begin + kChunkSteps < steps) {
        next = load_chunk(layout, strip, begin + kChunkSteps);
      } else if (after < n_strips) {
        next = load_chunk(layout, following, 0);
      }
#pragma unroll
      for (int s = 0; s < kChunkSteps; ++s) {
        if (begin + s >= steps) break;
        multiply<kGroups>(sums, codes.steps[s], b_lane + (begin + s) * 2 * kPieceBytes,
                          queries.group_bytes());
      }
      codes = next;
    }
    judge_strip<kGroups>(args, tile, first_query, strip, row, rows, sums[0]);
    __syncwarp();  // products want the whole warp, which may have split
    strip = following;
    i = after;
  }
}

template <int kGroups>
static void launch_mma(const ScanArgs& args, const Queue& queue) {
  const int64_t bytes = tile_bytes(args, kGroups);
  const dim3 grid = scan_grid(args, scan_mma_kernel<kGroups>, kMmaWarps * 32, bytes, 1);
  FR_LAUNCH_NEXT(scan_mma_kernel<kGroups>, grid, dim3(kMmaWarps * 32), static_cast<size_t>(bytes),
                 queue, args);
  FR_CUDA_CHECK_LAUNCH();
}

void scan_mma(const ScanArgs& args, const Queue& queue) {
  switch (args.tile_queries) {
    case 8:
      return launch_mma<1>(args, queue);
    case 16:
      return launch_mma<2>(args, queue);
    case 32:
      return launch_mma<4>(args, queue);
    case 64:
      return launch_mma<8>(args, queue);
    default:
      fail("the mma tier has tiles of 8, 16, 32 or 64 queries, got ", args.tile_queries);
  }
}

}  // namespace fastretrieve::cuda
