// Integer matrix products, out[m][n] = a[m] . b[n]: a cp.async pipeline into mma.sync, and wgmma
// with A from shared memory or from registers, for every width.
#include "zoo.cuh"

namespace {

using namespace fastretrieve::cuda;

struct ProductArgs {
  const int8_t* a;  // [m, dim]
  const int8_t* b;  // [n, dim]
  int m, n, dim;
  int* out;  // [m, n]
  Fault fault;
};

// ---- mma.sync: 64 x 32 for each block of 4 warps, 64 bytes of K in each of two stages

constexpr int kTileM = 64;
constexpr int kTileN = 32;
constexpr int kStageK = 64;
constexpr int kPitch = kStageK + 16;  // the padding keeps ldmatrix free of bank conflicts
constexpr int kStageBytes = (kTileM + kTileN) * kPitch;

__device__ __forceinline__ void copy_stage(const ProductArgs& args, unsigned char* stage, int k0) {
  const int row0 = blockIdx.y * kTileM;
  const int column0 = blockIdx.x * kTileN;
  for (int c = threadIdx.x; c < (kTileM + kTileN) * (kStageK / 16); c += blockDim.x) {
    const int r = c / (kStageK / 16);
    const int k = c % (kStageK / 16) * 16;
    const bool is_a = r < kTileM;
    const int row = is_a ? row0 + r : column0 + r - kTileM;
    const bool inside = row < (is_a ? args.m : args.n) && k0 + k < args.dim;
    const int8_t* source =
        (is_a ? args.a : args.b) + (inside ? int64_t{row} * args.dim + k0 + k : 0);
    if (planted(args.fault, Fault::mma_copies_misaligned)) source += 4;
    ptx::cp_async_16_zfill(stage + r * kPitch + k, source, inside ? 16 : 0);
  }
  ptx::cp_async_commit();
}

__device__ __forceinline__ void multiply_stage(const unsigned char* stage, int (&sums)[4][4],
                                               Fault fault) {
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
#pragma unroll
  for (int k = 0; k < kStageK; k += 32) {
    uint32_t a[4];
    const int row = 16 * warp + lane % 16;  // matrices: rows 0-7, rows 8-15, then the next 16 bytes
    ptx::ldmatrix_x4(a, stage + row * kPitch + k + lane / 16 * 16);
    if (planted(fault, Fault::mma_swaps_fragments)) {
      const uint32_t first = a[1];
      a[1] = a[2];
      a[2] = first;
    }
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const unsigned char* column = stage + (kTileM + 8 * j + lane / 4) * kPitch + k + lane % 4 * 4;
      const uint32_t b[2] = {*reinterpret_cast<const uint32_t*>(column),
                             *reinterpret_cast<const uint32_t*>(column + 16)};
      ptx::mma_m16n8k32_s8(sums[j], a, b);
    }
  }
}

__global__ void __launch_bounds__(128) mma_kernel(const ProductArgs args) {
  FR_DYN_SMEM(shared);
  const Fault fault = args.fault;
  int sums[4][4] = {};
  const int n_stages = (args.dim + kStageK - 1) / kStageK;
  copy_stage(args, shared, 0);
  for (int s = 0; s < n_stages; s++) {
    if (s + 1 < n_stages) {
      copy_stage(args, shared + (s + 1) % 2 * kStageBytes, (s + 1) * kStageK);
    } else {
      ptx::cp_async_commit();  // an empty group keeps the count
    }
    if (planted(fault, Fault::mma_waits_too_little)) {
      ptx::cp_async_wait<2>();
    } else if (!planted(fault, Fault::mma_never_waits)) {
      ptx::cp_async_wait<1>();
    }
    if (!planted(fault, Fault::mma_has_no_barrier_after_wait)) __syncthreads();
    multiply_stage(shared + s % 2 * kStageBytes, sums, fault);
    if (!planted(fault, Fault::mma_has_no_barrier_at_end)) __syncthreads();
  }

  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int j = 0; j < 4; j++) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int row = blockIdx.y * kTileM + threadIdx.x / 32 * 16 + lane / 4 + 8 * (i / 2);
      const int column = blockIdx.x * kTileN + 8 * j + lane % 4 * 2 + i % 2;
      if (row < args.m && column < args.n) args.out[int64_t{row} * args.n + column] = sums[j][i];
    }
  }
}

// ---- wgmma: 64 x kN for each warpgroup, one swizzled row of K at a time

// Rows of kSwizzleBytes in shared memory, each 16-byte piece where the swizzle wants it.
template <int kSwizzleBytes>
__device__ __forceinline__ void store_operand(unsigned char* to, const int8_t* rows, int n_rows,
                                              int dim, Fault fault) {
  constexpr int kPieces = kSwizzleBytes / 16;
  for (int c = threadIdx.x; c < n_rows * kPieces; c += blockDim.x) {
    const int r = c / kPieces;
    const int piece = c % kPieces;
    int place = piece ^ (r * kSwizzleBytes / 128 % kPieces);
    if (planted(fault, Fault::wgmma_stores_unswizzled)) place = piece;
    *reinterpret_cast<int4*>(to + r * kSwizzleBytes + place * 16) =
        *reinterpret_cast<const int4*>(rows + int64_t{r} * dim + piece * 16);
  }
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

template <int kN, int kSwizzleBytes, bool kFromRegisters>
__device__ __forceinline__ void wgmma_step(const ProductArgs& args, unsigned char* shared, int k0,
                                           int (&sums)[kN / 2]) {
  constexpr Swizzle kSwizzle = kSwizzleBytes == 128  ? Swizzle::bytes_128
                               : kSwizzleBytes == 64 ? Swizzle::bytes_64
                                                     : Swizzle::bytes_32;
  const Fault fault = args.fault;
  const bool halves = planted(fault, Fault::wgmma_halves_group_stride);
  const uint32_t group = 8 * kSwizzleBytes / (halves ? 2 : 1);
  const uint32_t b_address = ptx::shared_address(shared);
  const uint32_t a_address = b_address + kN * kSwizzleBytes;
  uint32_t a[kSwizzleBytes / 32][4];
  if (kFromRegisters) {
#pragma unroll
    for (int s = 0; s < kSwizzleBytes / 32; s++) load_fragment(a[s], args, k0 + 32 * s);
  }
  if (!planted(fault, Fault::wgmma_has_no_register_fence)) ptx::wgmma_fence();
#pragma unroll
  for (int s = 0; s < kSwizzleBytes / 32; s++) {
    const bool accumulate = k0 + s > 0;
    int skip = 0;
    if (planted(fault, Fault::wgmma_warps_differ) && threadIdx.x >= 96) skip = 32;
    const uint64_t b = shared_descriptor(b_address + 32 * s + skip, kSwizzle, group);
    if (kFromRegisters) {
      ptx::wgmma_s8<kN>(sums, a[s], b, accumulate);
    } else {
      ptx::wgmma_s8<kN>(sums, shared_descriptor(a_address + 32 * s, kSwizzle, group), b,
                        accumulate);
    }
  }
  ptx::wgmma_commit();
}

template <int kN, int kSwizzleBytes, bool kFromRegisters>
__global__ void __launch_bounds__(128) wgmma_kernel(const ProductArgs args) {
  FR_DYN_SMEM(shared);
  const Fault fault = args.fault;
  const int8_t* a = args.a + int64_t{blockIdx.y} * 64 * args.dim;
  const int8_t* b = args.b + int64_t{blockIdx.x} * kN * args.dim;
  int sums[kN / 2];
#pragma unroll
  for (int i = 0; i < kN / 2; i++) sums[i] = -1;  // the first step must not count them
  int early = 0;
  for (int k0 = 0; k0 < args.dim; k0 += kSwizzleBytes) {
    store_operand<kSwizzleBytes>(shared, b + k0, kN, args.dim, fault);
    if (!kFromRegisters) {
      store_operand<kSwizzleBytes>(shared + kN * kSwizzleBytes, a + k0, 64, args.dim, fault);
    }
    if (!planted(fault, Fault::wgmma_has_no_proxy_fence)) ptx::fence_proxy_async();
    __syncthreads();
    wgmma_step<kN, kSwizzleBytes, kFromRegisters>(args, shared, k0, sums);
    if (planted(fault, Fault::wgmma_reads_sums_early)) early = sums[0];
    if (!planted(fault, Fault::wgmma_has_no_wait)) ptx::wgmma_wait<0>(sums);
    if (planted(fault, Fault::wgmma_reads_sums_early)) sums[0] = early;
    if (!planted(fault, Fault::wgmma_has_no_barrier_at_end)) __syncthreads();
  }

  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < kN / 2; i++) {
    const int row = blockIdx.y * 64 + threadIdx.x / 32 * 16 + lane / 4 + 8 * (i / 2 % 2);
    const int column = blockIdx.x * kN + 8 * (i / 4) + lane % 4 * 2 + i % 2;
    args.out[int64_t{row} * args.n + column] = sums[i];
  }
}

template <int kN, int kSwizzleBytes, bool kFromRegisters>
int launch_wgmma(const ProductArgs& args) {
  const size_t shared_bytes = (kN + (kFromRegisters ? 0 : 64)) * kSwizzleBytes;
  const auto kernel = wgmma_kernel<kN, kSwizzleBytes, kFromRegisters>;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 64 << 10);
  FR_LAUNCH(kernel, dim3(args.n / kN, args.m / 64), 128, shared_bytes, nullptr, args);
  return cudaGetLastError();
}

}  // namespace

extern "C" int zoo_mma(const int8_t* a, const int8_t* b, int m, int n, int dim, int* out) {
  const ProductArgs args{a, b, m, n, dim, out, planted_fault};
  const dim3 grid((n + kTileN - 1) / kTileN, (m + kTileM - 1) / kTileM);
  FR_LAUNCH(mma_kernel, grid, 128, 2 * kStageBytes, nullptr, args);
  return cudaGetLastError();
}

// `m` is a multiple of 64, `n` of `width`, `dim` of `swizzle`; -1 for a width or swizzle not
// listed.
extern "C" int zoo_wgmma(const int8_t* a, const int8_t* b, int m, int n, int dim, int width,
                         int swizzle, int from_registers, int* out) {
  const ProductArgs args{a, b, m, n, dim, out, planted_fault};
#define FR_ZOO_WGMMA(w, s)                                                                         \
  if (width == w && swizzle == s) {                                                                \
    return from_registers != 0 ? launch_wgmma<w, s, true>(args) : launch_wgmma<w, s, false>(args); \
  }
  FR_ZOO_WGMMA(8, 32)
  FR_ZOO_WGMMA(16, 64)
  FR_ZOO_WGMMA(32, 128)
  FR_ZOO_WGMMA(64, 128)
  FR_ZOO_WGMMA(128, 64)
  FR_ZOO_WGMMA(256, 128)
#undef FR_ZOO_WGMMA
  return -1;
}
