// Arithmetic with a named rounding, conversions, bit casts, atomics: one row of `out` for each.
#include "cuda/half.cuh"
#include "zoo.cuh"

namespace {

using namespace fastretrieve::cuda;
using u64 = unsigned long long;

struct RoundingArgs {
  const double* a;
  const double* b;
  const double* c;
  int n;
  double* out;  // [24, n]
};

__device__ __forceinline__ void double_rows(double a, double b, double c, double* out, int64_t n) {
  out[0 * n] = __dadd_rn(a, b);
  out[1 * n] = __dadd_rd(a, b);
  out[2 * n] = __dadd_ru(a, b);
  out[3 * n] = __dmul_rn(a, b);
  out[4 * n] = __dmul_rd(a, b);
  out[5 * n] = __dmul_ru(a, b);
  out[6 * n] = __dsub_rn(a, b);
  out[7 * n] = __ddiv_rn(a, b);
  out[8 * n] = __dsqrt_rn(a * a);
  out[9 * n] = __fma_rn(a, b, c);
  out[10 * n] = __dadd_rn(__dmul_rn(a, b), c);  // two roundings, which no compiler may fuse
}

__device__ __forceinline__ void float_rows(float a, float b, float c, double* out, int64_t n) {
  out[11 * n] = __fadd_rn(a, b);
  out[12 * n] = __fadd_rd(a, b);
  out[13 * n] = __fadd_ru(a, b);
  out[14 * n] = __fmul_rn(a, b);
  out[15 * n] = __fmul_rd(a, b);
  out[16 * n] = __fmul_ru(a, b);
  out[17 * n] = __fmaf_rd(a, b, c);
  out[18 * n] = __fmaf_ru(a, b, c);
  out[19 * n] = __fdiv_rn(a, b);
  out[20 * n] = __fsqrt_rn(a * a);
}

__global__ void rounding_kernel(const RoundingArgs args) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= args.n) return;
  const double a = args.a[i];
  double_rows(a, args.b[i], args.c[i], args.out + i, args.n);
  float_rows(__double2float_rn(a), static_cast<float>(args.b[i]), static_cast<float>(args.c[i]),
             args.out + i, args.n);
  args.out[21 * int64_t{args.n} + i] = __double2float_rn(a);
  args.out[22 * int64_t{args.n} + i] = __double2float_rd(a);
  args.out[23 * int64_t{args.n} + i] = __double2float_ru(a);
}

// out[0] from the bits of a float16, out[1] of a bfloat16.
__global__ void half_kernel(const uint16_t* bits, int n, float* out) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  out[i] = half_bits_to_float(bits[i]);
  out[n + i] = bfloat16_bits_to_float(bits[i]);
}

__global__ void integer_kernel(const float* values, int n, int* out) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  out[i] = __float2int_rn(values[i]);
  out[n + i] = __float2int_rd(values[i]);
  out[2 * n + i] = __float_as_int(__int2float_rn(out[i] / 3));
}

struct AtomicCells {
  int added, largest, smallest, masked, filled, swapped;
  unsigned exchanged;
  float float_sum;
  double double_sum;
  u64 wide_added, wide_largest;
};

__global__ void atomics_kernel(AtomicCells* cells) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  atomicAdd(&cells->added, i);
  atomicMax(&cells->largest, i * 37 % 101);
  atomicMin(&cells->smallest, i * 37 % 101 - 50);
  atomicAnd(&cells->masked, ~(1 << i % 31));
  atomicOr(&cells->filled, 1 << i % 31);
  atomicCAS(&cells->swapped, -1, i >= 0 ? 7 : 8);  // the first thread wins
  atomicExch(&cells->exchanged, 5u);
  atomicAdd(&cells->float_sum, 0.5f);
  atomicAdd(&cells->double_sum, 0.25);
  atomicAdd(&cells->wide_added, u64{1} << 33);
  atomicMax(&cells->wide_largest, u64(i) << 32);
}

}  // namespace

extern "C" int zoo_rounding(const double* a, const double* b, const double* c, int n, double* out) {
  const RoundingArgs args{a, b, c, n, out};
  FR_LAUNCH(rounding_kernel, (n + 63) / 64, 64, 0, nullptr, args);
  return cudaGetLastError();
}

extern "C" int zoo_half(const uint16_t* bits, int n, float* out) {
  FR_LAUNCH(half_kernel, (n + 255) / 256, 256, 0, nullptr, bits, n, out);
  return cudaGetLastError();
}

extern "C" int zoo_integer(const float* values, int n, int* out) {
  FR_LAUNCH(integer_kernel, (n + 63) / 64, 64, 0, nullptr, values, n, out);
  return cudaGetLastError();
}

extern "C" int zoo_atomics(AtomicCells* cells, int n_blocks) {
  FR_LAUNCH(atomics_kernel, n_blocks, 64, 0, nullptr, cells);
  return cudaGetLastError();
}
