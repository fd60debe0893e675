// 16-bit floating-point numbers as float32, from their bits. Every conversion is exact.
#pragma once

#include <cstdint>

#include "cuda/ptx/ptx.cuh"

namespace fastretrieve::cuda {

__device__ __forceinline__ float half_bits_to_float(uint16_t bits) {
  return ptx::cvt_f32_f16(bits);
}

__device__ __forceinline__ float bfloat16_bits_to_float(uint16_t bits) {
  return __uint_as_float(uint32_t{bits} << 16);  // the upper half of a float32
}

}  // namespace fastretrieve::cuda
