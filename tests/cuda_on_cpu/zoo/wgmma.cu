// The same product by wgmma, with A from shared memory or from registers, for every width.
#include "product.cuh"

namespace {

using namespace fastretrieve::cuda;

// One step of K: a swizzled row, or 32 bytes without a swizzle.
__host__ __device__ constexpr int step_bytes(Swizzle swizzle) {
  return swizzle == Swizzle::bytes_128 ? 128 : swizzle == Swizzle::bytes_64 ? 64 : 32;
}

// The place of 16-byte piece `piece` of row `r` in shared memory.
__device__ __forceinline__ int place_of(Swizzle swizzle, int n_rows, int r, int piece) {
  if (swizzle == Swizzle::none) return (piece * n_rows + r) * 16;
  const int row_bytes = step_bytes(swizzle);
  return r * row_bytes + (piece ^ (r * row_bytes / 128 % (row_bytes / 16))) * 16;
}

template <Swizzle kSwizzle>
__device__ __forceinline__ void store_operand(unsigned char* to, const int8_t* rows, int n_rows,
                                              int dim, Fault fault) {
  constexpr int kPieces = step_bytes(kSwizzle) / 16;
  for (int c = threadIdx.x; c < n_rows * kPieces; c += blockDim.x) {
    const int r = c / kPieces;
    const int piece = c % kPieces;
    int place = place_of(kSwizzle, n_rows, r, piece);
    if (planted(fault, Fault::wgmma_stores_unswizzled)) place = c * 16;
    *reinterpret_cast<int4*>(to + place) =
        *reinterpret_cast<const int4*>(rows + int64_t{r} * dim + piece * 16);
  }
}

// The descriptor of step `s` of an operand of `n_rows` rows.
template <Swizzle kSwizzle>
__device__ __forceinline__ uint64_t descriptor(const void* operand, int n_rows, int s,
                                               Fault fault) {
  uint32_t group = kSwizzle == Swizzle::none ? 128 : 8 * step_bytes(kSwizzle);
  if (planted(fault, Fault::wgmma_halves_group_stride)) group /= 2;
  return shared_descriptor(ptx::shared_address(operand) + 32 * s, kSwizzle, group, n_rows * 16);
}

// A fragment of A straight from global memory, as the scan does it.
__device__ __forceinline__ void load_fragment(uint32_t (&a)[4], const ProductArgs& args, int k) {
  const int lane = threadIdx.x % 32;
  for (int r = 0; r < 4; r++) {
    const int row = blockIdx.y * 64 + threadIdx.x / 32 * 16 + lane / 4 + 8 * (r % 2);
    a[r] = *reinterpret_cast<const uint32_t*>(args.a + int64_t{row} * args.dim + k + lane % 4 * 4 +
                                              16 * (r / 2));
  }
}

template <int kN, Swizzle kSwizzle, bool kFromRegisters>
__device__ __forceinline__ void wgmma_step(const ProductArgs& args, const unsigned char* shared,
                                           int k0, int (&sums)[kN / 2]) {
  constexpr int kSteps = step_bytes(kSwizzle) / 32;
  const Fault fault = args.fault;
  const unsigned char* shared_a = shared + kN * step_bytes(kSwizzle);
  uint32_t a[kSteps][4];
  if (kFromRegisters) {
#pragma unroll
    for (int s = 0; s < kSteps; s++) load_fragment(a[s], args, k0 + 32 * s);
  }
  if (!planted(fault, Fault::wgmma_has_no_register_fence)) ptx::wgmma_fence();
#pragma unroll
  for (int s = 0; s < kSteps; s++) {
    const bool accumulate = k0 + s > 0;
    uint64_t b = descriptor<kSwizzle>(shared, kN, s, fault);
    if (planted(fault, Fault::wgmma_warps_differ) && threadIdx.x >= 96) b += 2;
    if (kFromRegisters) {
      ptx::wgmma_s8<kN>(sums, a[s], b, accumulate);
    } else {
      ptx::wgmma_s8<kN>(sums, descriptor<kSwizzle>(shared_a, 64, s, fault), b, accumulate);
    }
  }
  ptx::wgmma_commit();
}

template <int kN>
__device__ __forceinline__ void store_sums(const ProductArgs& args, const int (&sums)[kN / 2]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < kN / 2; i++) {
    const int row = blockIdx.y * 64 + threadIdx.x / 32 * 16 + lane / 4 + 8 * (i / 2 % 2);
    const int column = blockIdx.x * kN + 8 * (i / 4) + lane % 4 * 2 + i % 2;
    args.out[int64_t{row} * args.n + column] = sums[i];
  }
}

template <int kN, Swizzle kSwizzle, bool kFromRegisters>
__global__ void __launch_bounds__(128) wgmma_kernel(const ProductArgs args) {
  FR_DYN_SMEM(shared);
  const Fault fault = args.fault;
  const int8_t* a = args.a + int64_t{blockIdx.y} * 64 * args.dim;
  const int8_t* b = args.b + int64_t{blockIdx.x} * kN * args.dim;
  int sums[kN / 2];
#pragma unroll
  for (int i = 0; i < kN / 2; i++) sums[i] = -1;  // the first step must not count them
  int early = 0;
  for (int k0 = 0; k0 < args.dim; k0 += step_bytes(kSwizzle)) {
    store_operand<kSwizzle>(shared, b + k0, kN, args.dim, fault);
    if (!kFromRegisters) {
      store_operand<kSwizzle>(shared + kN * step_bytes(kSwizzle), a + k0, 64, args.dim, fault);
    }
    if (!planted(fault, Fault::wgmma_has_no_proxy_fence)) ptx::fence_proxy_async();
    __syncthreads();
    wgmma_step<kN, kSwizzle, kFromRegisters>(args, shared, k0, sums);
    if (planted(fault, Fault::wgmma_reads_sums_early)) early = sums[0];
    if (!planted(fault, Fault::wgmma_has_no_wait)) ptx::wgmma_wait<0>(sums);
    if (planted(fault, Fault::wgmma_reads_sums_early)) sums[0] = early;
    if (!planted(fault, Fault::wgmma_has_no_barrier_at_end)) __syncthreads();
  }
  store_sums<kN>(args, sums);
}

// Two products in flight, as a scan has them: B, 128 bytes wide, stays in shared memory while the
// tiles of A come from registers. A block takes all of A.
constexpr int kPairN = 32;

__global__ void __launch_bounds__(128) wgmma_pair_kernel(ProductArgs args) {
  FR_DYN_SMEM(shared);
  const int8_t* const all_a = args.a;
  int* const all_out = args.out;
  store_operand<Swizzle::bytes_128>(shared, args.b, kPairN, args.dim, args.fault);
  ptx::fence_proxy_async();
  __syncthreads();
  int even[kPairN / 2];
  int odd[kPairN / 2];
  const auto use_tile = [&](int tile) {
    args.a = all_a + int64_t{tile} * 64 * args.dim;
    args.out = all_out + int64_t{tile} * 64 * args.n;
  };
  for (int tile = 0; tile < args.m / 64; tile += 2) {
    use_tile(tile);
    wgmma_step<kPairN, Swizzle::bytes_128, true>(args, shared, 0, even);
    use_tile(tile + 1);
    wgmma_step<kPairN, Swizzle::bytes_128, true>(args, shared, 0, odd);
    if (planted(args.fault, Fault::pair_waits_for_one_too_few)) {
      ptx::wgmma_wait<2>(even);
    } else {
      ptx::wgmma_wait<1>(even);
    }
    use_tile(tile);
    store_sums<kPairN>(args, even);
    ptx::wgmma_wait<0>(odd);
    use_tile(tile + 1);
    store_sums<kPairN>(args, odd);
  }
}

template <int kN, Swizzle kSwizzle, bool kFromRegisters>
int launch_wgmma(const ProductArgs& args) {
  const size_t shared_bytes = (kN + (kFromRegisters ? 0 : 64)) * step_bytes(kSwizzle);
  const auto kernel = wgmma_kernel<kN, kSwizzle, kFromRegisters>;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 64 << 10);
  FR_LAUNCH(kernel, dim3(args.n / kN, args.m / 64), 128, shared_bytes, nullptr, args);
  return cudaGetLastError();
}

}  // namespace

// `m` is a multiple of 64, `n` of `width`, `dim` of 128; -1 for a width that is not listed.
extern "C" int zoo_wgmma(const int8_t* a, const int8_t* b, int m, int n, int dim, int width,
                         int from_registers, int* out) {
  const ProductArgs args{a, b, m, n, dim, out, planted_fault};
#define FR_ZOO_WGMMA(w, swizzle)                          \
  if (width == w && from_registers != 0) {                \
    return launch_wgmma<w, Swizzle::swizzle, true>(args); \
  }                                                       \
  if (width == w) return launch_wgmma<w, Swizzle::swizzle, false>(args);
  FR_ZOO_WGMMA(8, bytes_32)
  FR_ZOO_WGMMA(16, bytes_64)
  FR_ZOO_WGMMA(32, bytes_128)
  FR_ZOO_WGMMA(64, none)
  FR_ZOO_WGMMA(128, bytes_64)
  FR_ZOO_WGMMA(256, bytes_128)
#undef FR_ZOO_WGMMA
  return -1;
}

// `m` is a multiple of 128, there are 32 columns, dim is 128.
extern "C" int zoo_pair(const int8_t* a, const int8_t* b, int m, int* out) {
  const ProductArgs args{a, b, m, kPairN, 128, out, planted_fault};
  FR_LAUNCH(wgmma_pair_kernel, 1, 128, kPairN * 128, nullptr, args);
  return cudaGetLastError();
}
