// Stage 1 on CUDA, the plainest tier: `dp4a` (compute capability 6.1).
//
// A thread multiplies one row with one query, four codes at a time. The other tiers must equal it.
#include "cuda/block.cuh"
#include "cuda/check.hpp"
#include "cuda/kernels.hpp"
#include "cuda/scan.cuh"

namespace fastretrieve::cuda {

static __global__ void __launch_bounds__(kBlockThreads)
    scan_dp4a_kernel(const __grid_constant__ ScanArgs args) {
  take_turn();
  const FragmentLayout layout(args.gallery.dim, is_distance(args.gallery.metric));
  const QueryLayout queries(args.gallery.dim);
  const bool distance = is_distance(args.gallery.metric);
  const int64_t first_query = int64_t{blockIdx.y} * args.panel_queries;
  const int64_t row = threadIdx.x % kStripRows;

  for (int32_t i = blockIdx.x; i < args.n_strips; i += gridDim.x) {
    const StripView strip = strip_view(args, layout, i);
    if (strip.skip) continue;
    const RowPlanes x = read_planes(layout, strip.codes, row, distance);
    for (int64_t q = threadIdx.x / kStripRows; q < args.panel_queries;
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

}  // namespace fastretrieve::cuda
