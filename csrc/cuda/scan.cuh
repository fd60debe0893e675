// What the tiers of the scan share: which strip is next, and what becomes of a pair that passed.
#pragma once
#include <algorithm>
#include <cstdint>

#include "cuda/check.hpp"
#include "cuda/kernels.hpp"

namespace fastretrieve::cuda {

struct StripView {
  const uint8_t* codes;
  int64_t segment;
  int64_t first_row;  // of the segment
  bool skip;          // no query may return any of its rows
};

__device__ __forceinline__ StripView strip_view(const ScanArgs& args, const FragmentLayout& layout,
                                                int64_t index) {
  const Gallery& gallery = args.gallery;
  const int64_t strip = strip_of_stage(index, args.stride, args.ratio);
  const int64_t s = segment_of_strip(gallery, strip);
  const DeviceSegment& segment = gallery.segments[s];
  const int64_t word = strip - segment.first_strip;
  // A mask of its own for each query is looked up by the survivors only.
  const bool shared_mask = !segment.where || segment.where_stride == 0;
  const bool skip =
      shared_mask ? allowed_rows(segment, word, 0) == 0 : segment.live && segment.live[word] == 0;
  return {segment.codes + word * layout.bytes(), s, word * kStripRows, skip};
}

// A pair passed the filter: its interval decides, and if it may place it joins the survivors. Out
// of line and with few arguments, because it is rare and registers are not.
static __device__ __noinline__ void append_survivor(const ScanArgs& args, int64_t query,
                                                    int64_t segment, int64_t row, int32_t dot) {
  const QueryBatch& batch = args.batch;
  const DeviceSegment& home = args.gallery.segments[segment];
  if (query >= batch.n_queries || batch.states[query] != QueryState::scanning) return;
  const uint64_t allowed = allowed_rows(home, row / 64, batch.first + query);
  if (!(allowed >> (row % 64) & 1)) return;
  const bool distance = is_distance_metric(args.gallery.metric);
  const FragmentLayout layout(args.gallery.dim, distance);
  const RowPlanes x = read_planes(layout, home.codes + row / kStripRows * layout.bytes(),
                                  row % kStripRows, distance);
  const Interval i = interval(args.gallery.metric, batch.bounds[query],
                              {x.scale, x.error, x.norm, x.half_square}, dot);
  if (i.upper < batch.values[query]) return;
  const uint32_t place = atomicAdd(&batch.counts[query], 1u);
  if (place >= batch.limit) return;  // the count says that it did not fit
  Survivor& survivor = batch.survivors[query * batch.capacity + place];
  survivor.lower = round_down(i.lower);
  survivor.upper = round_up(i.upper);
  survivor.row = segment << kSegmentShift | row;
}

// Blocks along x walk strips, `strips_at_once` each; blocks along y take tiles of queries. There
// are as many as the device holds at once, so that each loads its queries once.
inline dim3 scan_grid(const ScanArgs& args, void (*kernel)(ScanArgs), int n_threads,
                      int64_t shared_bytes, int64_t strips_at_once) {
  int resident = 0;
  FR_CUDA_CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, n_threads,
                                                              static_cast<size_t>(shared_bytes)));
  const int64_t tiles = (args.batch.n_queries + args.tile_queries - 1) / args.tile_queries;
  const int64_t wanted = (args.n_strips + strips_at_once - 1) / strips_at_once;
  const int64_t along_x = std::min(wanted, args.n_multiprocessors * resident / tiles);
  return dim3(static_cast<unsigned>(std::max<int64_t>(1, along_x)), static_cast<unsigned>(tiles));
}

}  // namespace fastretrieve::cuda
