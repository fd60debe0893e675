// Stage 1 on CUDA, tensor cores from compute capability 8.0 on: `mma`.
//
// A thread block keeps the codes of a panel of queries in shared memory and walks strips. A warp
// reads the 16 rows of a block in fragment order straight into registers, and multiplies them with
// an octet of queries at a time.
#include "cuda/block.cuh"
#include "cuda/check.hpp"
#include "cuda/kernels.hpp"
#include "cuda/panel_filter.cuh"
#include "cuda/scan.cuh"

namespace fastretrieve::cuda {

constexpr int kMmaWarps = kBlocks;  // a warp for each block of a strip
// Thread blocks that share a multiprocessor. Each warp has 2 KB of codes in flight; busy memory of
// an H200 needs some 25 KB. With more thread blocks, registers would spill.
constexpr int blocks_of_mma(int octets) { return octets == 1 ? 5 : 4; }

// Adds the products of 16 rows with kOctets octets of queries, whose codes start at `b_step`.
template <int kOctets>
__device__ __forceinline__ void multiply(int (&sums)[kOctets][4], const uint32_t (&rows)[4],
                                         const unsigned char* b_step, int64_t octet_bytes) {
#pragma unroll
  for (int octet = 0; octet < kOctets; ++octet, b_step += octet_bytes) {
    const uint32_t b[2] = {*reinterpret_cast<const uint32_t*>(b_step),
                           *reinterpret_cast<const uint32_t*>(b_step + kPieceBytes)};
    ptx::mma_m16n8k32_s8(sums[octet], rows, b);
  }
}

// For kOctets octets of queries. Their sums all stay in registers while the codes go by once.
template <int kOctets>
static __global__ void __launch_bounds__(kMmaWarps * 32, blocks_of_mma(kOctets))
    scan_mma_kernel(const __grid_constant__ ScanArgs args) {
  take_turn();
  FR_DYN_SMEM(shared);
  const FragmentLayout layout(args.gallery.dim, is_distance(args.gallery.metric));
  const QueryLayout queries(args.gallery.dim);
  const bool distance = is_distance(args.gallery.metric);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t first_query = int64_t{blockIdx.y} * (kOctets * kOctetQueries);
  const int32_t row = warp * kBlockRows + lane / 4, steps = static_cast<int32_t>(layout.steps);
  const unsigned char* b_lane = shared + lane * 4;
  const QueryPanel panel = load_queries<kOctets>(args, queries, first_query, shared);

  const int32_t n_strips = static_cast<int32_t>(args.n_strips);
  int32_t i = blockIdx.x;
  StripView strip = next_strip(args, layout, &i, gridDim.x);
  Chunk codes{};
  if (i < n_strips) codes = load_chunk(layout, strip, 0);
  while (i < n_strips) {
    const TwoRows rows = read_two_rows(layout, strip, row, distance);  // used after the products
    int32_t after = i + gridDim.x;
    const StripView following = next_strip(args, layout, &after, gridDim.x);
    int sums[kOctets][4];
#pragma unroll
    for (int sum = 0; sum < kOctets * 4; ++sum) sums[sum / 4][sum % 4] = kMagicBits;
    for (int32_t begin = 0; begin < steps; begin += kChunkSteps) {
      Chunk next{};  // loads while this chunk is multiplied and judged
      if (begin + kChunkSteps < steps) {
        next = load_chunk(layout, strip, begin + kChunkSteps);
      } else if (after < n_strips) {
        next = load_chunk(layout, following, 0);
      }
#pragma unroll
      for (int s = 0; s < kChunkSteps; ++s) {
        if (begin + s >= steps) break;
        multiply<kOctets>(sums, codes.steps[s], b_lane + (begin + s) * 2 * kPieceBytes,
                          queries.octet_bytes());
      }
      codes = next;
    }
    judge_strip<kOctets>(args, panel, first_query, strip, row, rows, sums[0]);
    __syncwarp();  // products need the whole warp, which may have split
    strip = following;
    i = after;
  }
}

template <int kOctets>
static void launch_mma(const ScanArgs& args, const Queue& queue) {
  const int64_t bytes = panel_bytes(args, kOctets);
  const dim3 grid = scan_grid(args, scan_mma_kernel<kOctets>, kMmaWarps * 32, bytes, 1);
  FR_LAUNCH_NEXT(scan_mma_kernel<kOctets>, grid, dim3(kMmaWarps * 32), static_cast<size_t>(bytes),
                 queue, args);
  FR_CUDA_CHECK_LAUNCH();
}

void scan_mma(const ScanArgs& args, const Queue& queue) {
  switch (args.panel_queries) {
    case 8:
      return launch_mma<1>(args, queue);
    case 16:
      return launch_mma<2>(args, queue);
    case 32:
      return launch_mma<4>(args, queue);
    case 64:
      return launch_mma<8>(args, queue);
    default:
      fail("the mma tier has panels of 8, 16, 32 or 64 queries, got ", args.panel_queries);
  }
}

}  // namespace fastretrieve::cuda
