// Stage 0 on CUDA: rows and queries become int8 codes, with numbers that bound the loss.
//
// Norms and errors are summed in any order, because the bound's slack covers that. Only the norm of
// a query enters a score, so it is summed in the canonical lanes.
#include "cuda/block.cuh"
#include "cuda/check.hpp"
#include "cuda/kernels.hpp"

namespace fastretrieve::cuda {

namespace {

constexpr int kRowWarps = 4;  // a thread block encodes a strip, a warp every fourth row
constexpr int kAhead = 8;     // loads that a lane has in flight

struct Scaling {
  float scale;     // x' = scale * codes
  float to_code;   // codes = nearest(x * to_code)
  double inverse;  // 1, or 1 / |x| for cosine
  bool has_codes;
};

__device__ __forceinline__ Scaling scaling_of(double norm, float largest, bool cosine) {
  Scaling s{0.0f, 0.0f, 1.0, norm != 0 && norm_in_range(norm)};
  if (!s.has_codes) return s;
  if (cosine) s.inverse = 1 / norm;
  s.scale = static_cast<float>(double{largest} * s.inverse / kMaxCode);
  s.to_code = static_cast<float>(s.inverse / double{s.scale});
  return s;
}

__device__ __forceinline__ int code_of(float x, const Scaling& s) {
  const float scaled = rintf(__fmul_rn(x, s.to_code));
  return static_cast<int>(fminf(fmaxf(scaled, -float{kMaxCode}), float{kMaxCode}));
}

struct Loss {
  double error_square;
  double code_square;
};

// The codes of dimensions d..d+3 as four bytes. Adds their loss.
__device__ __forceinline__ uint32_t encode_four(const void* x, DType dtype, int64_t d, int64_t dim,
                                                const Scaling& s, Loss* loss) {
  uint32_t four = 0;
  for (int i = 0; i < 4; ++i) {
    if (d + i >= dim || !s.has_codes) continue;
    const float value = read_number(x, dtype, d + i);
    const int code = code_of(value, s);
    const double error = double{value} * s.inverse - double{s.scale} * code;
    loss->error_square += error * error;
    loss->code_square += double(code * code);
    four |= (static_cast<uint32_t>(code) & 0xffu) << (8 * i);
  }
  return four;
}

__device__ __forceinline__ Measured measured(double norm, const Scaling& s, const Loss& loss,
                                             bool cosine) {
  return {cosine && s.has_codes ? 1 : norm, sqrt(loss.error_square),
          double{s.scale} * sqrt(loss.code_square), norm_in_range(norm)};
}

}  // namespace

static __global__ void __launch_bounds__(kRowWarps * 32)
    encode_rows_kernel(const __grid_constant__ EncodeRowsArgs args) {
  const FragmentLayout layout(args.dim, is_distance(args.metric));
  const bool cosine = args.metric == Metric::cosine;
  const int lane = threadIdx.x % 32;
  const int64_t s = blockIdx.x;
  uint8_t* strip = args.codes + s * layout.bytes();
  for (int64_t row = threadIdx.x / 32; row < kStripRows; row += kRowWarps) {
    const void* x = row_of(args.rows, args.dtype, (s * kStripRows + row) * args.stride);
    double square = 0;
    float largest = 0;
    for (int64_t d = lane; d < args.dim; d += 32) {
      const float value = read_number(x, args.dtype, d);
      square += double{value} * double{value};
      largest = fmaxf(largest, fabsf(value));
    }
    const double norm = sqrt(warp_sum(square));
    const Scaling scaling = scaling_of(norm, warp_max(largest), cosine);

    Loss loss{0, 0};
    for (int64_t d = 4 * lane; d < layout.steps * kStepDims; d += 128) {
      const uint32_t four = encode_four(x, args.dtype, d, args.dim, scaling, &loss);
      *reinterpret_cast<uint32_t*>(strip + layout.code_at(row, d)) = four;
    }
    loss = {warp_sum(loss.error_square), warp_sum(loss.code_square)};
    if (lane != 0) continue;
    const RowBound bound = row_bound(measured(norm, scaling, loss, cosine), scaling.scale);
    layout.plane(strip, kError)[row] = bound.error;
    layout.plane(strip, kNorm)[row] = bound.norm;
    layout.plane(strip, kScale)[row] = bound.scale;
    if (is_distance(args.metric)) layout.plane(strip, kHalfSquare)[row] = bound.half_square;
  }
}

void encode_rows(const EncodeRowsArgs& args, cudaStream_t stream) {
  if (args.n_strips == 0) return;  // a launch of zero blocks is an error
  FR_LAUNCH(encode_rows_kernel, dim3(static_cast<unsigned>(args.n_strips)), dim3(kRowWarps * 32), 0,
            stream, args);
  FR_CUDA_CHECK_LAUNCH();
}

// A warp for each query of the padded batch.
static __global__ void __launch_bounds__(kBlockThreads)
    encode_queries_kernel(const __grid_constant__ EncodeQueriesArgs args) {
  take_turn();
  const QueryBatch& batch = args.batch;
  const QueryLayout layout(args.dim);
  const bool cosine = args.metric == Metric::cosine;
  const int lane = threadIdx.x % 32;
  const int64_t query = int64_t{blockIdx.x} * kBlockWarps + threadIdx.x / 32;
  if (query >= args.padded) return;
  const bool real = query < batch.n_queries;
  const void* x = row_of(batch.data, batch.dtype, (real ? query : 0) * batch.stride);

  double square = 0;
  float largest = 0;
  bool finite = true;
  for (int64_t begin = lane % kLanes; real && begin < args.dim; begin += kAhead * kLanes) {
    uint32_t bits[kAhead];
    read_ahead(bits, x, batch.dtype, begin, args.dim);
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      const float value = number_of(bits[u], batch.dtype);
      square = __fma_rn(double{value}, double{value}, square);  // exact product: the canonical sum
      largest = fmaxf(largest, fabsf(value));
      finite = finite && fabsf(value) < HUGE_VALF;
    }
  }
  for (int step = 1; step < kLanes; step *= 2) square += __shfl_xor_sync(kWholeWarp, square, step);
  finite = __all_sync(kWholeWarp, finite);
  const double norm = sqrt(square);
  Scaling scaling = scaling_of(norm, warp_max(largest), cosine);
  scaling.has_codes = scaling.has_codes && finite && real;

  Loss loss{0, 0};
  for (int64_t d = 4 * lane; d < layout.pieces * kPieceDims; d += 128) {
    const uint32_t four = encode_four(x, batch.dtype, d, args.dim, scaling, &loss);
    *reinterpret_cast<uint32_t*>(batch.codes + layout.code_at(query, d)) = four;
  }
  loss = {warp_sum(loss.error_square), warp_sum(loss.code_square)};
  if (lane != 0) return;
  if (!real) {
    batch.filters[query] = {0.0f, 0.0f, 0.0f, HUGE_VALF};  // no pair passes
    return;
  }
  const QueryBound bound = query_bound(measured(norm, scaling, loss, cosine), scaling.scale);
  const Filter filter = make_filter(args.metric, bound);
  const bool useless = norm == 0 && !is_distance(args.metric);  // zero with every row
  batch.bounds[query] = bound;
  batch.norms[query] = norm;
  batch.values[query] = -kInfinity;
  batch.counts[query] = 0;
  batch.states[query] = !finite                      ? QueryState::unfit
                        : useless || args.exhaustive ? QueryState::exhaustive
                                                     : QueryState::scanning;
  const bool scanned = batch.states[query] == QueryState::scanning;
  batch.filters[query] = {filter.reach, round_up(bound.error / bound.scale), filter.fall,
                          scanned ? filter.threshold : HUGE_VALF};
  if (!finite) atomicAdd(args.unfit, 1ull);
}

bool has_kernels() {
  cudaFuncAttributes found{};
  const cudaError_t answer = cudaFuncGetAttributes(&found, encode_queries_kernel);
  if (answer == cudaErrorNoKernelImageForDevice || answer == cudaErrorInvalidDeviceFunction) {
    cudaGetLastError();  // clears it: the next launch would report it
    return false;
  }
  FR_CUDA_CHECK(answer);
  return true;
}

void encode_queries(const EncodeQueriesArgs& args, cudaStream_t stream) {
  const int64_t blocks = (args.padded + kBlockWarps - 1) / kBlockWarps;
  FR_LAUNCH(encode_queries_kernel, dim3(static_cast<unsigned>(blocks)), dim3(kBlockThreads), 0,
            stream, args);
  FR_CUDA_CHECK_LAUNCH();
}

}  // namespace fastretrieve::cuda
