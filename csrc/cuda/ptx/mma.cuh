// mma.sync on signed bytes. Included by ptx.cuh, for nvcc only.
#pragma once

#include <cstdint>

namespace fastretrieve::cuda::ptx {

// c += a . b for 16 rows of A, 8 columns of B, 32 bytes each; sums wrap. With lane = 4 * g + t:
// a[r] is row g + 8 * (r % 2), bytes 4 * t + 16 * (r / 2) and the next three; b[r] is column g,
// bytes 4 * t + 16 * r; c[i] is row g + 8 * (i / 2), column 2 * t + i % 2. (PTX ISA, mma.m16n8k32.)
__device__ __forceinline__ void mma_m16n8k32_s8(int (&c)[4], const uint32_t (&a)[4],
                                                const uint32_t (&b)[2]) {
#if FR_HAS_MMA_S8
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();
#endif
}

}  // namespace fastretrieve::cuda::ptx
