// Shared by the tiers of the scan: the next strip, the loads of codes, the survivors, the grid.
#pragma once
#include <algorithm>
#include <cstdint>

#include "cuda/check.hpp"
#include "cuda/kernels.hpp"

namespace fastretrieve::cuda {

struct StripView {
  const uint8_t* codes;
  int32_t segment;
  int32_t number;  // in the segment
  bool skip;       // no query may return a row of it
};

__device__ __forceinline__ StripView strip_view(const ScanArgs& args, const FragmentLayout& layout,
                                                int32_t index) {
  const Gallery& gallery = args.gallery;
  const int64_t strip = strip_of_stage(index, args.stride, args.inverse);
  const int64_t s = segment_of_strip(gallery, strip);
  const DeviceSegment& segment = gallery.segments[s];
  const int64_t word = strip - segment.first_strip;
  // append_survivor looks up masks that belong to one query.
  const bool shared_mask = !segment.where || segment.where_stride == 0;
  const bool skip =
      shared_mask ? allowed_rows(segment, word, 0) == 0 : segment.live && segment.live[word] == 0;
  return {segment.codes + word * layout.bytes(), static_cast<int32_t>(s),
          static_cast<int32_t>(word), skip};
}

// Strip `*i` of the stage if a query may return a row of it, or the next such strip in steps of
// `step`.
__device__ __forceinline__ StripView next_strip(const ScanArgs& args, const FragmentLayout& layout,
                                                int32_t* i, int32_t step) {
  StripView strip{};
  for (; *i < args.n_strips; *i += step) {
    strip = strip_view(args, layout, *i);
    if (!strip.skip) break;
  }
  return strip;
}

// The planes of the two rows whose products a thread of mma or wgmma sums.
struct TwoRows {
  RowPlanes upper, lower;
};

__device__ __forceinline__ TwoRows read_two_rows(const FragmentLayout& layout,
                                                 const StripView& strip, int32_t row,
                                                 bool distance) {
  return {read_planes(layout, strip.codes, row, distance),
          read_planes(layout, strip.codes, row + 8, distance)};
}

constexpr int kChunkSteps = 4;  // steps of 32 dimensions that a chunk keeps in registers

// The codes of a block's rows in up to kChunkSteps steps, for a warp to multiply.
struct Chunk {
  uint32_t steps[kChunkSteps][4];
};

// The chunk from step `begin` on, of the warp's block in a strip.
__device__ __forceinline__ Chunk load_chunk(const FragmentLayout& layout, const StripView& strip,
                                            int32_t begin) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % kBlocks;
  const uint8_t* codes = strip.codes + warp * layout.block_bytes() + lane * kLaneBytes;
  const int32_t steps = static_cast<int32_t>(layout.steps);
  Chunk chunk{};
#pragma unroll
  for (int s = 0; s < kChunkSteps; ++s) {
    if (begin + s >= steps) break;
    const uint4 four = ptx::ld_global_nc_no_allocate(codes + (begin + s) * kStepBytes);
    chunk.steps[s][0] = four.x, chunk.steps[s][1] = four.y;
    chunk.steps[s][2] = four.z, chunk.steps[s][3] = four.w;
  }
  return chunk;
}

// A pair passed the filter. If its interval says that it may place, it joins the survivors. The
// function is out of line with few arguments, because it runs rarely and registers are scarce.
static __device__ __noinline__ void append_survivor(const ScanArgs& args, int64_t query,
                                                    int64_t segment, int64_t row, int32_t dot) {
  const QueryBatch& batch = args.batch;
  const DeviceSegment& home = args.gallery.segments[segment];
  if (query >= batch.n_queries || batch.states[query] != QueryState::scanning) return;
  const uint64_t allowed = allowed_rows(home, row / 64, batch.first + query);
  if (!(allowed >> (row % 64) & 1)) return;
  const bool distance = is_distance(args.gallery.metric);
  const FragmentLayout layout(args.gallery.dim, distance);
  const RowPlanes x = read_planes(layout, home.codes + row / kStripRows * layout.bytes(),
                                  row % kStripRows, distance);
  const Interval i = interval(args.gallery.metric, batch.bounds[query],
                              {x.scale, x.error, x.norm, x.half_square}, dot);
  if (i.upper < batch.values[query]) return;
  const uint32_t place = atomicAdd(&batch.counts[query], 1u);
  if (place >= batch.limit) return;  // the count shows that it did not fit
  Survivor& survivor = batch.survivors[query * batch.capacity + place];
  survivor.lower = round_down(i.lower);
  survivor.upper = round_up(i.upper);
  survivor.row = segment << kSegmentShift | row;
}

// Thread blocks along x walk strips, `strips_at_once` each; those along y take panels of queries.
// The device holds all of them at once, so each loads its queries once.
//
// The kernel's limit becomes all the shared memory of a thread block, not the bytes of this launch:
// another thread may be about to launch the same kernel with more.
inline dim3 scan_grid(const ScanArgs& args, void (*kernel)(ScanArgs), int n_threads,
                      int64_t shared_bytes, int64_t strips_at_once) {
  if (shared_bytes > 0)
    FR_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                       static_cast<int>(args.shared_bytes)));
  int resident = 0;
  FR_CUDA_CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, n_threads,
                                                              static_cast<size_t>(shared_bytes)));
  const int64_t panels = (args.batch.n_queries + args.panel_queries - 1) / args.panel_queries;
  const int64_t wanted = (args.n_strips + strips_at_once - 1) / strips_at_once;
  const int64_t along_x = std::min(wanted, args.n_multiprocessors * resident / panels);
  return dim3(static_cast<unsigned>(std::max<int64_t>(1, along_x)), static_cast<unsigned>(panels));
}

}  // namespace fastretrieve::cuda
