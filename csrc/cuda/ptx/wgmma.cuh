// wgmma on signed bytes (sm_90a). Included by ptx.cuh, for nvcc only.
//
// The four warps of a warpgroup multiply 64 rows of A with kN columns of B, 32 bytes each:
//
//   ptx::wgmma_fence();                              // registers are in order
//   ptx::wgmma_s8<128>(sums, a_descriptor, b_descriptor, accumulate);
//   ptx::wgmma_commit();
//   ptx::wgmma_wait<0>(sums);                        // until here leave `sums` and `a` alone
//   ptx::wgmma_release(a);                           // if later loads may take its registers
//
// B is a descriptor of shared memory (descriptor.hpp). A is one too, or 4 registers in the fragment
// order of mma.m16n8k32, where warp w of the warpgroup holds rows 16 * w to 16 * w + 15.
// Accumulator i of lane 4 * g + t is row 16 * w + g + 8 * (i / 2 % 2), column
// 8 * (i / 4) + 2 * t + i % 2. If `accumulate` is false, the old sums do not count.
#pragma once

#include <cstdint>

namespace fastretrieve::cuda::ptx {

__device__ __forceinline__ void wgmma_fence() {
#if FR_HAS_WGMMA
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#else
  __trap();
#endif
}

__device__ __forceinline__ void wgmma_commit() {
#if FR_HAS_WGMMA
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#else
  __trap();
#endif
}

template <int kUnfinished>
__device__ __forceinline__ void wgmma_wait() {
#if FR_HAS_WGMMA
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kUnfinished) : "memory");
#else
  __trap();
#endif
}

// The same, and tells the compiler that the sums change here. Otherwise it may read them early.
template <int kUnfinished, int kRegisters>
__device__ __forceinline__ void wgmma_wait(int (&sums)[kRegisters]) {
  wgmma_wait<kUnfinished>();
#pragma unroll
  for (int i = 0; i < kRegisters; i++) asm volatile("" : "+r"(sums[i])::"memory");
}

// Call it after the wait: products read the registers of A until now, so the compiler must not have
// reused them.
__device__ __forceinline__ void wgmma_release(const uint32_t (&a)[4]) {
  asm volatile("" ::"r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]) : "memory");
}

template <int kN>
struct WgmmaS8;  // one specialisation for each supported kN, below

template <int kN>
__device__ __forceinline__ void wgmma_s8(int (&sums)[kN / 2], uint64_t a_descriptor,
                                         uint64_t b_descriptor, bool accumulate) {
  WgmmaS8<kN>::multiply(sums, a_descriptor, b_descriptor, accumulate);
}
template <int kN>
__device__ __forceinline__ void wgmma_s8(int (&sums)[kN / 2], const uint32_t (&a)[4],
                                         uint64_t b_descriptor, bool accumulate) {
  WgmmaS8<kN>::multiply(sums, a, b_descriptor, accumulate);
}

// Operand lists. FR_PLACES_10(2) is "%20, ..., %29, "; FR_SUMS_8(s, 16) is s[16], ..., s[23].
#define FR_PLACES_2(tens) "%" #tens "0, %" #tens "1"
#define FR_PLACES_4(tens) FR_PLACES_2(tens) ", %" #tens "2, %" #tens "3"
#define FR_PLACES_6(tens) FR_PLACES_4(tens) ", %" #tens "4, %" #tens "5"
#define FR_PLACES_8(tens) FR_PLACES_6(tens) ", %" #tens "6, %" #tens "7"
#define FR_PLACES_10(tens) FR_PLACES_8(tens) ", %" #tens "8, %" #tens "9, "
#define FR_PLACES_0_TO_29 FR_PLACES_10() FR_PLACES_10(1) FR_PLACES_10(2)
#define FR_PLACES_30_TO_59 FR_PLACES_10(3) FR_PLACES_10(4) FR_PLACES_10(5)
#define FR_PLACES_60_TO_89 FR_PLACES_10(6) FR_PLACES_10(7) FR_PLACES_10(8)
#define FR_PLACES_90_TO_119 FR_PLACES_10(9) FR_PLACES_10(10) FR_PLACES_10(11)

#define FR_SUMS_4(s, i) "+r"(s[i]), "+r"(s[i + 1]), "+r"(s[i + 2]), "+r"(s[i + 3])
#define FR_SUMS_8(s, i) FR_SUMS_4(s, i), FR_SUMS_4(s, i + 4)
#define FR_SUMS_16(s, i) FR_SUMS_8(s, i), FR_SUMS_8(s, i + 8)
#define FR_SUMS_32(s, i) FR_SUMS_16(s, i), FR_SUMS_16(s, i + 16)
#define FR_SUMS_64(s, i) FR_SUMS_32(s, i), FR_SUMS_32(s, i + 32)
#define FR_SUMS_128(s, i) FR_SUMS_64(s, i), FR_SUMS_64(s, i + 64)

// The text of one instruction. `places` are its sums, `a` is its first operand, the rest are
// operand numbers. The predicate makes `accumulate` a run-time choice.
#define FR_WGMMA_TEXT(n, places, a, b, accumulate) \
  "{\n.reg .pred p;\nsetp.ne.b32 p, %" #accumulate \
  ", 0;\n"                                         \
  "wgmma.mma_async.sync.aligned.m64n" #n "k32.s32.s8.s8 {" places "}, " a ", %" #b ", p;\n}"
#if FR_HAS_WGMMA
#define FR_WGMMA_ASM(text, sums, ...) asm volatile(text : sums : __VA_ARGS__ : "memory")
#else
#define FR_WGMMA_ASM(text, sums, ...) __trap()
#endif
// The inputs follow the n / 2 sums, so their operand numbers start at p0 = n / 2.
#define FR_WGMMA_S8(n, places, sums, p0, p1, p2, p3, p4, p5)                                     \
  template <>                                                                                    \
  struct WgmmaS8<n> {                                                                            \
    static __device__ __forceinline__ void multiply(int (&d)[n / 2], uint64_t a, uint64_t b,     \
                                                    bool accumulate) {                           \
      FR_WGMMA_ASM(FR_WGMMA_TEXT(n, places, "%" #p0, p1, p2), sums(d, 0), "l"(a), "l"(b),        \
                   "r"(static_cast<int>(accumulate)));                                           \
    }                                                                                            \
    static __device__ __forceinline__ void multiply(int (&d)[n / 2], const uint32_t (&a)[4],     \
                                                    uint64_t b, bool accumulate) {               \
      FR_WGMMA_ASM(FR_WGMMA_TEXT(n, places, "{%" #p0 ", %" #p1 ", %" #p2 ", %" #p3 "}", p4, p5), \
                   sums(d, 0), "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b),               \
                   "r"(static_cast<int>(accumulate)));                                           \
    }                                                                                            \
  };

FR_WGMMA_S8(8, FR_PLACES_4(), FR_SUMS_4, 4, 5, 6, 7, 8, 9)
FR_WGMMA_S8(16, FR_PLACES_8(), FR_SUMS_8, 8, 9, 10, 11, 12, 13)
FR_WGMMA_S8(32, FR_PLACES_10() FR_PLACES_6(1), FR_SUMS_16, 16, 17, 18, 19, 20, 21)
FR_WGMMA_S8(64, FR_PLACES_0_TO_29 FR_PLACES_2(3), FR_SUMS_32, 32, 33, 34, 35, 36, 37)
FR_WGMMA_S8(128, FR_PLACES_0_TO_29 FR_PLACES_30_TO_59 FR_PLACES_4(6), FR_SUMS_64, 64, 65, 66, 67,
            68, 69)
FR_WGMMA_S8(256,
            FR_PLACES_0_TO_29 FR_PLACES_30_TO_59 FR_PLACES_60_TO_89 FR_PLACES_90_TO_119
                FR_PLACES_8(12),
            FR_SUMS_128, 128, 129, 130, 131, 132, 133)

#undef FR_WGMMA_S8
#undef FR_WGMMA_ASM
#undef FR_WGMMA_TEXT
#undef FR_SUMS_128
#undef FR_SUMS_64
#undef FR_SUMS_32
#undef FR_SUMS_16
#undef FR_SUMS_8
#undef FR_SUMS_4
#undef FR_PLACES_90_TO_119
#undef FR_PLACES_60_TO_89
#undef FR_PLACES_30_TO_59
#undef FR_PLACES_0_TO_29
#undef FR_PLACES_10
#undef FR_PLACES_8
#undef FR_PLACES_6
#undef FR_PLACES_4
#undef FR_PLACES_2

}  // namespace fastretrieve::cuda::ptx
