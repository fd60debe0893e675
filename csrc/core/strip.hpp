// How the CPU keeps codes: strips of 64 rows, read in ascending order as one stream.
//
// A strip is four blocks of 16 rows, then planes of 64 float32. In a block, group g holds
// dimensions 4g..4g+3 of its 16 rows: 64 bytes, one AVX-512 register, no horizontal sums. A code is
// stored as code + 128, because the instruction that multiplies bytes wants one unsigned operand;
// the query side subtracts 128 * sum(query codes). 64 rows are also one word of a row mask. For
// inner products 64 more bytes follow the planes. They begin with two float32, the least and the
// greatest square of the rows' norms.
#pragma once
#include <cstdint>

#include "core/types.hpp"

namespace fastretrieve {

// Index files name the layout of their codes. The number changes when the bytes do.
constexpr const char* kStripLayoutName = "strip64.2";

constexpr int64_t kStripRows = 64;
constexpr int64_t kBlockRows = 16;
constexpr int64_t kBlocks = kStripRows / kBlockRows;
constexpr int64_t kGroupDims = 4;
constexpr int64_t kGroupBytes = kBlockRows * kGroupDims;
constexpr int32_t kCodeOffset = 128;
constexpr int32_t kMaxCode = 127;

// RowBound in bound.hpp defines them. The filter reads them in this order.
enum Plane : int64_t { kError, kNorm, kScale, kHalfSquare };

struct StripLayout {
  int64_t groups;  // of four dimensions, the last one padded with zeros
  int64_t planes;
  bool has_squares;

  StripLayout(int64_t dim, Metric metric)
      : groups((dim + kGroupDims - 1) / kGroupDims),
        planes(is_distance(metric) ? 4 : 3),
        has_squares(metric == Metric::ip) {}

  int64_t padded_dim() const { return groups * kGroupDims; }
  int64_t block_bytes() const { return groups * kGroupBytes; }
  int64_t code_bytes() const { return kBlocks * block_bytes(); }
  int64_t squares_at() const { return code_bytes() + planes * kStripRows * int64_t{sizeof(float)}; }
  int64_t bytes() const { return squares_at() + (has_squares ? kGroupBytes : 0); }

  int64_t code_at(int64_t row, int64_t d) const {  // within a strip
    return row / kBlockRows * block_bytes() + d / kGroupDims * kGroupBytes +
           row % kBlockRows * kGroupDims + d % kGroupDims;
  }
  float* plane(uint8_t* strip, Plane which) const {
    return reinterpret_cast<float*>(strip + code_bytes()) + which * kStripRows;
  }
  // The least and the greatest square, over rows in range.
  float* squares(uint8_t* strip) const { return reinterpret_cast<float*>(strip + squares_at()); }
  const float* squares(const uint8_t* strip) const {
    return reinterpret_cast<const float*>(strip + squares_at());
  }
  const float* plane(const uint8_t* strip, Plane which) const {
    return reinterpret_cast<const float*>(strip + code_bytes()) + which * kStripRows;
  }
};

}  // namespace fastretrieve
