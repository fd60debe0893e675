// The filter of the tensor-core tiers: one fused multiply-add and one comparison for each product.
//
// A thread block judges every row for a whole panel of queries. So it weighs the row's error once,
// with the largest reach and drift of the panel; of each query only the threshold remains. The sums
// start at kMagicBits, the bits of the float 1.5 * 2^23. So their final bits are the float kMagic +
// dot, and need no conversion. All is rounded up: a pair that reaches the threshold in exact
// arithmetic reaches it here.
//
// If |dot| exceeds 2^22, the bits leave the range in which floats are one apart. They then stand
// for a number larger than kMagic + dot, whatever the sign. Such a pair may pass wrongly; its
// interval then decides.
#pragma once
#include <cstdint>

#include "cuda/block.cuh"
#include "cuda/check.hpp"
#include "cuda/scan.cuh"

namespace fastretrieve::cuda {

constexpr int32_t kMagicBits = 0x4B400000;
constexpr float kMagic = 12582912.0f;
// The bits must stay those of a positive finite float. More dimensions do not fit shared memory.
constexpr int64_t kMaxPanelDim = 32768;
static_assert(kMaxPanelDim * kMaxCode * kMaxCode < 0x7f800000 - kMagicBits &&
              kMaxPanelDim * kMaxCode * kMaxCode < kMagicBits);

// A panel of queries in shared memory, after its codes.
struct QueryPanel {
  const float* thresholds;
  const float* falls;  // distances: the factor of a row's half square
  float reach, drift;  // the largest of the panel
};

// Bytes of shared memory for this many octets of queries.
inline int64_t panel_bytes(const ScanArgs& args, int64_t n_octets) {
  FR_CHECK(args.gallery.dim <= kMaxPanelDim, "panels have up to ", kMaxPanelDim,
           " dimensions, got ", args.gallery.dim);
  return n_octets *
         (QueryLayout(args.gallery.dim).octet_bytes() + kOctetQueries * 2 * int64_t{sizeof(float)});
}

// Copies the codes of a panel to the front of `shared`, and after them the numbers of its filter.
template <int kOctets>
__device__ __forceinline__ QueryPanel load_queries(const ScanArgs& args, const QueryLayout& layout,
                                                   int64_t first_query, unsigned char* shared) {
  constexpr int kQueries = kOctets * kOctetQueries;
  const int64_t n_bytes = kOctets * layout.octet_bytes();
  const uint4* codes = reinterpret_cast<const uint4*>(
      args.batch.codes + first_query / kOctetQueries * layout.octet_bytes());
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

// The numbers of a row that a thread keeps while it judges a panel.
struct RowFilter {
  float scale;
  float offset;  // its error for any query of the panel, minus scale * kMagic
  float half_square;
};

__device__ __forceinline__ RowFilter row_filter(const QueryPanel& panel, const RowPlanes& x) {
  const float error = __fmaf_ru(panel.reach, x.error, __fmul_ru(panel.drift, x.norm));
  return {x.scale, __fmaf_ru(-kMagic, x.scale, error), x.half_square};
}

// The value of a pair. The pair is dropped if it is less than the query's threshold; NaN stays.
template <bool kDistance>
__device__ __forceinline__ float value_of(int bits, const RowFilter& x, float fall) {
  const float value = __fmaf_ru(__int_as_float(bits), x.scale, x.offset);
  return kDistance ? __fmaf_ru(-fall, x.half_square, value) : value;
}

// The pairs of a thread's sums: sums[4 * octet + i] is row `row` + 8 * (i / 2), query
// `query` + 8 * octet + i % 2. Thresholds and falls are in shared memory.
struct SumsPlace {
  int64_t query, row;
  int32_t segment;
  const float* thresholds;
  const float* falls;
};

// At least one of the four pairs of an octet passed. Out of line, because it runs rarely, and
// registers and code are scarce.
template <bool kDistance>
static __device__ __noinline__ void append_octet(const ScanArgs& args, SumsPlace place,
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

// Whether all four pairs of an octet are dropped.
template <bool kDistance>
__device__ __forceinline__ bool drops(const SumsPlace& place, int q, const RowFilter& upper,
                                      const RowFilter& lower, const int* sums) {
  const float2 least = *reinterpret_cast<const float2*>(place.thresholds + q);
  float2 fall{};
  if (kDistance) fall = *reinterpret_cast<const float2*>(place.falls + q);
  return (value_of<kDistance>(sums[0], upper, fall.x) < least.x) &
         (value_of<kDistance>(sums[1], upper, fall.y) < least.y) &
         (value_of<kDistance>(sums[2], lower, fall.x) < least.x) &
         (value_of<kDistance>(sums[3], lower, fall.y) < least.y);
}

// Judges a thread's sums for all queries of a panel.
template <bool kDistance, int kOctets>
__device__ __forceinline__ void judge(const ScanArgs& args, const SumsPlace& place,
                                      const RowFilter& upper, const RowFilter& lower,
                                      const int* sums) {
  constexpr int kAtOnce = kOctets % 2 == 0 ? 2 : 1;  // a branch for each costs as much as a pair
#pragma unroll
  for (int begin = 0; begin < kOctets; begin += kAtOnce) {
    bool all_dropped = true;
#pragma unroll
    for (int g = begin; g < begin + kAtOnce; ++g)
      all_dropped &= drops<kDistance>(place, g * kOctetQueries, upper, lower, sums + 4 * g);
    if (all_dropped) continue;
#pragma unroll
    for (int g = begin; g < begin + kAtOnce; ++g) {
      const int q = g * kOctetQueries;
      const SumsPlace octet{place.query + q, place.row, place.segment, place.thresholds + q,
                            place.falls + q};
      const int* four = sums + 4 * g;
      append_octet<kDistance>(args, octet, upper, lower, int4{four[0], four[1], four[2], four[3]});
    }
  }
}

// The same for a metric known at run time. `row` is the thread's upper row in its strip.
template <int kOctets>
__device__ __forceinline__ void judge_strip(const ScanArgs& args, const QueryPanel& panel,
                                            int64_t first_query, const StripView& strip,
                                            int32_t row, const TwoRows& rows, const int* sums) {
  const int column = 2 * (threadIdx.x % 4);
  const SumsPlace place{first_query + column, strip.number * kStripRows + row, strip.segment,
                        panel.thresholds + column, panel.falls + column};
  const RowFilter x = row_filter(panel, rows.upper), y = row_filter(panel, rows.lower);
  if (is_distance(args.gallery.metric)) {
    judge<true, kOctets>(args, place, x, y, sums);
  } else {
    judge<false, kOctets>(args, place, x, y, sums);
  }
}

}  // namespace fastretrieve::cuda
