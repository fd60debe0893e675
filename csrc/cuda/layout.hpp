// How a GPU keeps codes: strips of 64 rows in the order in which a warp multiplies them.
//
// A strip is four blocks of 16 rows, then the planes of core/strip.hpp. In a block, step k holds
// dimensions 32k..32k+31 of its 16 rows as the A operand of mma.m16n8k32 and of one warp of wgmma:
// 16 bytes for each lane. So a warp reads 512 adjacent bytes straight into registers, without
// shared memory or a swizzle. Codes are signed; missing dimensions are zero.
#pragma once
#include <cstdint>

#include "core/number.hpp"
#include "core/strip.hpp"

namespace fastretrieve::cuda {

// Index files name the layout of their codes. The number changes when the bytes do.
constexpr const char* kFragmentLayoutName = "fragment64.1";

constexpr int64_t kStepDims = 32;
constexpr int64_t kLaneBytes = 16;
constexpr int64_t kStepBytes = 32 * kLaneBytes;
constexpr int64_t kPlaneBytes = kStripRows * int64_t{sizeof(float)};

struct FragmentLayout {
  int64_t steps;
  int64_t planes;

  FR_HD FragmentLayout(int64_t dim, bool distance)
      : steps((dim + kStepDims - 1) / kStepDims), planes(distance ? 4 : 3) {}

  FR_HD int64_t block_bytes() const { return steps * kStepBytes; }
  FR_HD int64_t code_bytes() const { return kBlocks * block_bytes(); }
  FR_HD int64_t bytes() const { return code_bytes() + planes * kPlaneBytes; }
  FR_HD const float* plane(const uint8_t* strip, Plane which) const {
    return reinterpret_cast<const float*>(strip + code_bytes() + which * kPlaneBytes);
  }
  FR_HD float* plane(uint8_t* strip, Plane which) const {
    return reinterpret_cast<float*>(strip + code_bytes() + which * kPlaneBytes);
  }
  // The place of dimensions d..d+3 of a row, with d a multiple of 4. Register r of lane 4g + t
  // holds row g + 8 (r % 2), bytes 4t + 16 (r / 2).
  FR_HD int64_t code_at(int64_t row, int64_t d) const {
    const int64_t in_block = row % kBlockRows, in_step = d % kStepDims;
    const int64_t lane = 4 * (in_block % 8) + in_step % 16 / 4;
    const int64_t r = in_block / 8 + 2 * (in_step / 16);
    return row / kBlockRows * block_bytes() + d / kStepDims * kStepBytes + lane * kLaneBytes +
           4 * r;
  }
};

// Queries are kept as the B operand: octets of 8 queries, each in pieces of 16 dimensions, each
// with 16 bytes a query. That is wgmma's layout without a swizzle, and the lanes of mma read their
// 4 bytes without bank conflicts.
constexpr int64_t kOctetQueries = 8;
constexpr int64_t kPieceDims = 16;
constexpr int64_t kPieceBytes = kOctetQueries * kPieceDims;

struct QueryLayout {
  int64_t pieces;

  FR_HD explicit QueryLayout(int64_t dim)
      : pieces((dim + kStepDims - 1) / kStepDims * (kStepDims / kPieceDims)) {}
  FR_HD int64_t octet_bytes() const { return pieces * kPieceBytes; }
  FR_HD int64_t code_at(int64_t query, int64_t d) const {
    return query / kOctetQueries * octet_bytes() + d / kPieceDims * kPieceBytes +
           query % kOctetQueries * kPieceDims + d % kPieceDims;
  }
};

}  // namespace fastretrieve::cuda
