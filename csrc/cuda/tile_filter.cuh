// The filter of the tensor-core tiers: one fused multiply-add and one comparison for each product.
//
// A block judges every row for a whole tile of queries, so the row's error is weighed once, with
// the largest reach and drift of the tile; of a query there remains its threshold. The sums start
// at kMagicBits, whose float is 1.5 * 2^23: afterwards their bits are the float kMagic + dot, and
// nothing has to be converted. All of it is rounded up, so a pair that reaches the threshold in
// exact arithmetic reaches it here.
//
// Where |dot| exceeds 2^22 the bits leave the range in which floats are one apart, and stand for a
// number that is larger than kMagic + dot, on both sides. Such a pair may pass for nothing; its
// interval then decides.
#pragma once
#include <cstdint>

#include "cuda/block.cuh"
#include "cuda/check.hpp"
#include "cuda/scan.cuh"

namespace fastretrieve::cuda {

constexpr int32_t kMagicBits = 0x4B400000;
constexpr float kMagic = 12582912.0f;
// The bits must stay those of a positive number. More dimensions do not fit shared memory.
constexpr int64_t kMaxTileDim = 32768;
static_assert(kMaxTileDim * kMaxCode * kMaxCode < 0x7f800000 - kMagicBits &&
              kMaxTileDim * kMaxCode * kMaxCode < kMagicBits);

// A tile of queries in shared memory, behind its codes.
struct QueryTile {
  const float* thresholds;
  const float* falls;  // distances: what half a square of a row counts
  float reach, drift;  // the largest of the tile
};

// Bytes of shared memory for n_groups groups of queries.
inline int64_t tile_bytes(const ScanArgs& args, int64_t n_groups) {
  FR_CHECK(args.gallery.dim <= kMaxTileDim, "tiles have up to ", kMaxTileDim, " dimensions, got ",
           args.gallery.dim);
  return n_groups *
         (QueryLayout(args.gallery.dim).group_bytes() + kGroupQueries * 2 * int64_t{sizeof(float)});
}

// Copies a tile of queries to the front of `shared`, and behind it what the filter reads.
template <int kGroups>
__device__ __forceinline__ QueryTile load_queries(const ScanArgs& args, const QueryLayout& layout,
                                                  int64_t first_query, unsigned char* shared) {
  constexpr int kQueries = kGroups * kGroupQueries;
  const int64_t n_bytes = kGroups * layout.group_bytes();
  const uint4* codes = reinterpret_cast<const uint4*>(
      args.batch.codes + first_query / kGroupQueries * layout.group_bytes());
  uint4* to = reinterpret_cast<uint4*>(shared);
  for (int64_t i = threadIdx.x; i < n_bytes / 16; i += blockDim.x) to[i] = codes[i];

  float* thresholds = reinterpret_cast<float*>(shared + n_bytes);
  float* falls = thresholds + kQueries;
  float reach = 0, drift = 0;
  for (int q = threadIdx.x % 32; q < kQueries; q += 32) {  // every warp finds the maxima itself
    const float4 filter = args.batch.filters[first_query + q];
    if (threadIdx.x < 32) thresholds[q] = filter.w, falls[q] = filter.z;
    if (!(filter.x < HUGE_VALF)) continue;  // its threshold is minus infinity, whatever its reach
    reach = fmaxf(reach, filter.x);
    drift = fmaxf(drift, filter.y);
  }
  __syncthreads();
  return {thresholds, falls, warp_max(reach), warp_max(drift)};
}

// What a thread keeps of a row while it judges a tile.
struct RowFilter {
  float scale;
  float offset;  // its error for any query of the tile, less scale * kMagic
  float half_square;
};

__device__ __forceinline__ RowFilter row_filter(const QueryTile& tile, const RowPlanes& x) {
  const float error = __fmaf_ru(tile.reach, x.error, __fmul_ru(tile.drift, x.norm));
  return {x.scale, __fmaf_ru(-kMagic, x.scale, error), x.half_square};
}

// The value of a pair, which is dropped if it is less than the query's threshold; NaN is not.
template <bool kDistance>
__device__ __forceinline__ float value_of(int bits, const RowFilter& x, float fall) {
  const float value = __fmaf_ru(__int_as_float(bits), x.scale, x.offset);
  return kDistance ? __fmaf_ru(-fall, x.half_square, value) : value;
}

// Where the sums of a thread belong: sums[4 * group + i] is row `row` + 8 * (i / 2), query
// `query` + 8 * group + i % 2. Thresholds and falls of the queries are in shared memory.
struct TilePlace {
  int64_t query, row;
  int32_t segment;
  const float* thresholds;
  const float* falls;
};

// One of the four pairs of a group passed. Out of line: it is rare, and registers and code are not.
template <bool kDistance>
static __device__ __noinline__ void append_group(const ScanArgs& args, TilePlace place,
                                                 RowFilter upper, RowFilter lower, int4 sums) {
  const int bits[4] = {sums.x, sums.y, sums.z, sums.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const RowFilter& x = i < 2 ? upper : lower;
    const float fall = kDistance ? place.falls[i % 2] : 0.0f;
    if (value_of<kDistance>(bits[i], x, fall) < place.thresholds[i % 2]) continue;
    append_survivor(args, place.query + i % 2, place.segment, place.row + 8 * (i / 2),
                    bits[i] - kMagicBits);
  }
}

// Whether all four pairs of a group are dropped.
template <bool kDistance>
__device__ __forceinline__ bool drops(const TilePlace& place, int q, const RowFilter& upper,
                                      const RowFilter& lower, const int* sums) {
  const float2 least = *reinterpret_cast<const float2*>(place.thresholds + q);
  float2 fall{};
  if (kDistance) fall = *reinterpret_cast<const float2*>(place.falls + q);
  return (value_of<kDistance>(sums[0], upper, fall.x) < least.x) &
         (value_of<kDistance>(sums[1], upper, fall.y) < least.y) &
         (value_of<kDistance>(sums[2], lower, fall.x) < least.x) &
         (value_of<kDistance>(sums[3], lower, fall.y) < least.y);
}

// Judges what a thread has summed for all queries of a tile.
template <bool kDistance, int kGroups>
__device__ __forceinline__ void judge(const ScanArgs& args, const TilePlace& place,
                                      const RowFilter& upper, const RowFilter& lower,
                                      const int* sums) {
  constexpr int kAtOnce = kGroups % 2 == 0 ? 2 : 1;  // a branch for each costs as much as a pair
#pragma unroll
  for (int begin = 0; begin < kGroups; begin += kAtOnce) {
    bool all_dropped = true;
#pragma unroll
    for (int g = begin; g < begin + kAtOnce; ++g)
      all_dropped &= drops<kDistance>(place, g * kGroupQueries, upper, lower, sums + 4 * g);
    if (all_dropped) continue;
#pragma unroll
    for (int g = begin; g < begin + kAtOnce; ++g) {
      const int q = g * kGroupQueries;
      const TilePlace group{place.query + q, place.row, place.segment, place.thresholds + q,
                            place.falls + q};
      const int* four = sums + 4 * g;
      append_group<kDistance>(args, group, upper, lower, int4{four[0], four[1], four[2], four[3]});
    }
  }
}

// The same for a metric known at run time. `row` is the thread's first, of 16, in its strip.
template <int kGroups>
__device__ __forceinline__ void judge_strip(const ScanArgs& args, const QueryTile& tile,
                                            int64_t first_query, const StripView& strip,
                                            int32_t row, const TwoRows& rows, const int* sums) {
  const int column = 2 * (threadIdx.x % 4);
  const TilePlace place{first_query + column, strip.number * kStripRows + row, strip.segment,
                        tile.thresholds + column, tile.falls + column};
  const RowFilter x = row_filter(tile, rows.upper), y = row_filter(tile, rows.lower);
  if (is_distance_metric(args.gallery.metric)) {
    judge<true, kGroups>(args, place, x, y, sums);
  } else {
    judge<false, kGroups>(args, place, x, y, sums);
  }
}

}  // namespace fastretrieve::cuda
