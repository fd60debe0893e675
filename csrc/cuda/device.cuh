// Shared by the kernels of a search: views of the index and of a batch of queries in device memory,
// the float32 filter, survivors.
#pragma once
#include <cstdint>

#include "core/bound.hpp"
#include "core/types.hpp"
#include "cuda/half.cuh"
#include "cuda/layout.hpp"
#include "cuda/ptx/ptx.cuh"

namespace fastretrieve::cuda {

constexpr unsigned kWholeWarp = ~0u;

// A segment as kernels see it. A table of them lies in device memory.
struct DeviceSegment {
  const uint8_t* codes;
  const void* rows;
  const int64_t* ids;     // null: row i has id first_id + i
  const uint64_t* live;   // bit i of word i / 64: row i has not been removed; null: all live
  const uint64_t* where;  // this search may return row i; null: any
  int64_t where_stride;   // words between the masks of two queries; 0: one mask for all
  int64_t first_id;
  int64_t n_rows;
  int64_t n_strips;
  int64_t first_strip;  // its number among all strips of the index
  int32_t dtype;
  int32_t padding;
};

// The segments of an index.
struct Gallery {
  const DeviceSegment* segments;
  int64_t n_segments;
  int64_t n_strips;
  int64_t dim;
  Metric metric;
};

// A row that may still place: with its interval during the scan, with its exact score afterwards.
struct alignas(16) Survivor {
  union {
    struct {
      float lower, upper;
    };
    uint64_t order;  // smaller is better: score_order in finish.cu
  };
  int64_t row;  // segment << kSegmentShift | row of the segment; after scoring, the id
};

constexpr int kSegmentShift = 40;
constexpr int64_t kRowMask = (int64_t{1} << kSegmentShift) - 1;

enum class QueryState : int32_t {
  scanning,    // the scan rules rows out
  exhaustive,  // every row is scored: no scan, or its survivors did not fit
  unfit,       // not finite: no answer
};

// Everything about a batch of queries, in the workspace.
struct QueryBatch {
  const void* data;
  DType dtype;
  int64_t stride;
  int64_t n_queries;
  int64_t first;  // number of the first query in the whole search, for masks and results
  int64_t capacity;
  int64_t limit;        // room for survivors of the scan; the rest is for rows without codes
  uint8_t* codes;       // QueryLayout, padded to a panel with zeros
  QueryBound* bounds;   // [n_queries]
  float4* filters;      // [padded]: reach, drift, fall, threshold
  double* values;       // [n_queries] the threshold as a value of core/bound.hpp
  double* norms;        // [n_queries] canonical sqrt(T(q, q))
  QueryState* states;   // [n_queries]
  uint32_t* counts;     // [n_queries] survivors, including those that did not fit
  Survivor* survivors;  // [n_queries, capacity]
};

// The first call of every thread in a kernel of a search, even of an idle one: a thread that did
// not wait would let the kernel after the next begin too early. (The last kernel only waits.)
__device__ __forceinline__ void take_turn() {
  ptx::grid_launch_dependents();
  ptx::grid_wait();
}

// A number as stored bits, and its value. To have several loads in flight, load bits first: a
// conversion waits for its load.
__device__ __forceinline__ uint32_t read_bits(const void* row, DType dtype, int64_t i) {
  if (dtype == DType::float32) return static_cast<const uint32_t*>(row)[i];
  return static_cast<const uint16_t*>(row)[i];
}
__device__ __forceinline__ float number_of(uint32_t bits, DType dtype) {
  if (dtype == DType::float32) return __uint_as_float(bits);
  const uint16_t half = static_cast<uint16_t>(bits);
  return dtype == DType::float16 ? half_bits_to_float(half) : bfloat16_bits_to_float(half);
}
__device__ __forceinline__ float read_number(const void* row, DType dtype, int64_t i) {
  return number_of(read_bits(row, dtype, i), dtype);
}

// Numbers first, first + kLanes, ... of a row, as bits; zeros beyond its end.
template <int kAhead>
__device__ __forceinline__ void read_ahead(uint32_t (&bits)[kAhead], const void* row, DType dtype,
                                           int64_t first, int64_t dim) {
#pragma unroll
  for (int u = 0; u < kAhead; ++u) {
    const int64_t d = first + u * kLanes;
    bits[u] = d < dim ? read_bits(row, dtype, d) : 0;
  }
}

__device__ __forceinline__ const void* row_of(const void* data, DType dtype, int64_t elements) {
  const int64_t size = dtype == DType::float32 ? 4 : 2;
  return static_cast<const char*>(data) + elements * size;
}

// The segment of strip `strip` of the index: the last whose first strip is not beyond it.
__device__ __forceinline__ int64_t segment_of_strip(const Gallery& gallery, int64_t strip) {
  int64_t low = 0, high = gallery.n_segments - 1;
  while (low < high) {
    const int64_t middle = (low + high + 1) / 2;
    if (gallery.segments[middle].first_strip <= strip) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

// The rows of a segment's mask word `word` that a query may return.
__device__ __forceinline__ uint64_t allowed_rows(const DeviceSegment& segment, int64_t word,
                                                 int64_t query) {
  uint64_t rows = segment.live ? segment.live[word] : ~uint64_t{0};
  if (segment.where) rows &= segment.where[query * segment.where_stride + word];
  return rows;
}

// The numbers of a row that the filter reads.
struct RowPlanes {
  float error, norm, scale, half_square;
};

__device__ __forceinline__ RowPlanes read_planes(const FragmentLayout& layout, const uint8_t* strip,
                                                 int64_t row, bool distance) {
  return {layout.plane(strip, kError)[row], layout.plane(strip, kNorm)[row],
          layout.plane(strip, kScale)[row],
          distance ? layout.plane(strip, kHalfSquare)[row] : 0.0f};
}

// The filter of core/bound.hpp, with the drift |dq| / scale of each query instead of a panel's
// ratio.
__device__ __forceinline__ bool passes(const float4& filter, const RowPlanes& x, int32_t dot,
                                       bool distance) {
  float value = __fmul_rn(__int2float_rn(dot), x.scale);
  value = __fmaf_rn(filter.x, x.error, value);
  value = __fmaf_rn(filter.y, x.norm, value);
  if (distance) value = __fmaf_rn(-filter.z, x.half_square, value);
  return !(value < filter.w);  // NaN survives
}

// Strip number `index` of a stage: the multiples of `stride`, without one of every `ratio`, which
// earlier stages have scanned. `inverse` is (2^64 - 1) / (ratio - 1), or 0 in the first stage.
// Every thread divides for every strip, so it multiplies instead, which is exact for 32-bit
// numbers.
__device__ __forceinline__ int64_t strip_of_stage(uint32_t index, int64_t stride,
                                                  uint64_t inverse) {
  if (inverse == 0) return index * stride;
  return (index + static_cast<int64_t>(__umul64hi(uint64_t{index} + 1, inverse)) + 1) * stride;
}

}  // namespace fastretrieve::cuda
