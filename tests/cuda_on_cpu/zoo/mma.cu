// An integer matrix product, out[m][n] = a[m] . b[n], by a cp.async pipeline into mma.sync.
#include "product.cuh"

namespace {

using namespace fastretrieve::cuda;

// 64 x 32 for each block of 4 warps, 64 bytes of K in each of two stages.
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

}  // namespace

extern "C" int zoo_mma(const int8_t* a, const int8_t* b, int m, int n, int dim, int* out) {
  const ProductArgs args{a, b, m, n, dim, out, planted_fault};
  const dim3 grid((n + kTileN - 1) / kTileN, (m + kTileM - 1) / kTileM);
  FR_LAUNCH(mma_kernel, grid, 128, 2 * kStageBytes, nullptr, args);
  return cudaGetLastError();
}
