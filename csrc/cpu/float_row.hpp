// A row of any number format as float32.
#pragma once
#include "core/types.hpp"
#include "cpu/kernels.hpp"

namespace fastretrieve::cpu {

// Copies only 16-bit rows, into `buffer` of `rows.dim` numbers.
inline const float* float_row(const Kernels& kernels, const Matrix& rows, int64_t i,
                              float* buffer) {
  if (rows.dtype == DType::float32) return reinterpret_cast<const float*>(rows.row(i));
  kernels.widen(rows.row(i), rows.dtype, rows.dim, buffer);
  return buffer;
}

constexpr uint32_t kInfinityBits = 0x7f800000u;  // Survey::max_bits at or above: not finite

}  // namespace fastretrieve::cpu
