// The vocabulary: metrics, number formats, matrices, segments. Views only; Python owns every array.
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

constexpr int kLanes = 8;           // of a canonical sum, see docs/exactness.md
constexpr int64_t kMaxDim = 65536;  // 255 * 127 * 65536 still fits the int32 accumulators

// Rows of numbers; the elements of a row are adjacent, the rows `stride` elements apart.
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

// An immutable run of rows. Its first `n_strips` strips of kStripRows rows have codes; the rows
// after them (fewer than a strip) are scored directly, so nothing is ever padded and a half-filled
// strip is never read while it is written.
struct Segment {
  Matrix rows;
  const uint8_t* codes = nullptr;  // n_strips records, see strip.hpp
  int64_t n_strips = 0;
  const int64_t* ids = nullptr;  // null: row i has id first_id + i
  int64_t first_id = 0;
  const uint64_t* live =
      nullptr;  // bit i of word i / 64: row i has not been removed; null: all live
  const uint64_t* where = nullptr;  // this search may return row i; null: any
  int64_t where_stride = 0;         // words between the masks of two queries; 0: one mask for all
  // Or, on the CPU and where all rows live, the caller's booleans for each query, as many bytes
  // apart.
  const uint8_t* where_bytes = nullptr;

  int64_t id(int64_t row) const { return ids ? ids[row] : first_id + row; }
};

struct TopK {
  double* scores = nullptr;  // [n_queries, k], NaN where there are fewer than k rows
  int64_t* ids = nullptr;    // [n_queries, k], -1 there
  int64_t k = 0;
};

// What a search did, for index.stats(): facts about work, never about answers.
struct SearchStats {
  int64_t queries = 0;
  int64_t rows_scanned = 0;  // pairs of query and row whose codes were compared
  int64_t rows_scored = 0;   // pairs scored in float64
  int64_t overflows = 0;     // times a query's buffer of survivors was full and was scored early

  void operator+=(const SearchStats& other) {
    queries += other.queries;
    rows_scanned += other.rows_scanned;
    rows_scored += other.rows_scored;
    overflows += other.overflows;
  }
};

}  // namespace fastretrieve
