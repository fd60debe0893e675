// The vocabulary: metrics, number formats, matrices, segments. These are views; Python owns every
// array.
#pragma once
#include <cstdint>

#include "core/portable.hpp"

namespace fastretrieve {

enum class Metric : int32_t { ip, cosine, sqeuclidean, l2 };
enum class DType : int32_t { float32, float16, bfloat16 };

FR_HD inline bool is_distance(Metric metric) {
  return metric == Metric::sqeuclidean || metric == Metric::l2;
}
inline int64_t item_size(DType dtype) { return dtype == DType::float32 ? 4 : 2; }

constexpr int kLanes = 8;           // of a canonical sum: docs/exactness.md
constexpr int64_t kMaxDim = 65536;  // 255 * 127 * 65536 still fits the int32 accumulators

// Rows of numbers. The elements of a row are adjacent; rows are `stride` elements apart.
struct Matrix {
  const void* data = nullptr;
  DType dtype = DType::float32;
  int64_t n_rows = 0;
  int64_t dim = 0;
  int64_t stride = 0;

  const char* row(int64_t i) const {
    return static_cast<const char*>(data) + i * stride * item_size(dtype);
  }
};

// The first rows of a slab, which never change. Its `n_strips` whole strips have codes. The rows
// after them, fewer than a strip, are scored directly: strips are never padded, and never read
// while they are written.
struct Segment {
  Matrix rows;
  const uint8_t* codes = nullptr;  // n_strips strips: core/strip.hpp
  int64_t n_strips = 0;
  const int64_t* ids = nullptr;  // null: row i has id first_id + i
  int64_t first_id = 0;
  // Bit i of word i / 64: row i has not been removed. Null: all rows live.
  const uint64_t* live = nullptr;
  const uint64_t* where = nullptr;  // likewise: this search may return row i; null: any
  int64_t where_stride = 0;         // words between the masks of two queries; 0: one mask for all
  // Instead of `where`, on the CPU and if all rows live: the caller's booleans, `where_stride`
  // bytes between two queries.
  const uint8_t* where_bytes = nullptr;

  int64_t id(int64_t row) const { return ids ? ids[row] : first_id + row; }
};

struct TopK {
  double* scores = nullptr;  // [n_queries, k]; NaN beyond the last row found
  int64_t* ids = nullptr;    // [n_queries, k]; -1 there
  int64_t k = 0;
};

// What a search did, for index.stats(): facts about work, never about answers.
struct SearchStats {
  int64_t queries = 0;
  int64_t rows_scanned = 0;  // pairs of query and row whose codes were multiplied
  int64_t rows_scored = 0;   // pairs scored in float64
  int64_t overflows = 0;     // times a query's full buffer of survivors was scored early
  // Of searches through a screen:
  int64_t rows_screened = 0;   // pairs judged by their heads
  int64_t leaves_skipped = 0;  // pairs of query and leaf that a box ruled out
  int64_t rows_compared = 0;   // pairs whose record was read
  int64_t fell_back = 0;       // queries for which scanning all strips was cheaper

  void operator+=(const SearchStats& other) {
    queries += other.queries;
    rows_scanned += other.rows_scanned;
    rows_scored += other.rows_scored;
    overflows += other.overflows;
    rows_screened += other.rows_screened;
    leaves_skipped += other.leaves_skipped;
    rows_compared += other.rows_compared;
    fell_back += other.fell_back;
  }
};

}  // namespace fastretrieve
