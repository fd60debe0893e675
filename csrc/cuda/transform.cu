// Operations on whole rows: ingesting, normalising, fusing, exact scores, sums of clusters. Every
// sum that enters a result runs in the order of docs/exactness.md.
#include "cuda/block.cuh"
#include "cuda/check.hpp"
#include "cuda/transform.hpp"

namespace fastretrieve::cuda {

namespace {

constexpr int kRowsAtOnce = kBlockThreads / kLanes;  // rows, or pairs, of a thread block
constexpr int kAhead = 8;                            // loads that a lane has in flight

__device__ __forceinline__ void write_number(void* out, DType dtype, int64_t i, float value) {
  switch (dtype) {
    case DType::float32:
      static_cast<float*>(out)[i] = value;
      break;
    case DType::float16:
      static_cast<uint16_t*>(out)[i] = float_to_half(value);
      break;
    case DType::bfloat16:
      static_cast<uint16_t*>(out)[i] = float_to_bfloat16(value);
      break;
  }
}

unsigned blocks_for(int64_t rows) {
  return static_cast<unsigned>((rows + kRowsAtOnce - 1) / kRowsAtOnce);
}

}  // namespace

// A warp for each row. `bad` becomes the first row with a number that is not finite.
static __global__ void __launch_bounds__(kBlockThreads)
    ingest_kernel(const __grid_constant__ IngestArgs args, unsigned long long* bad) {
  const int64_t row = int64_t{blockIdx.x} * kBlockWarps + threadIdx.x / 32;
  if (row >= args.rows.n_rows) return;
  const void* x = row_of(args.rows.data, args.rows.dtype, row * args.rows.stride);
  bool finite = true;
  for (int64_t d = threadIdx.x % 32; d < args.rows.dim; d += 32) {
    const int64_t at = row * args.rows.dim + d;
    write_number(args.out, args.out_dtype, at, read_number(x, args.rows.dtype, d));
    finite = finite && fabsf(read_number(args.out, args.out_dtype, at)) < HUGE_VALF;
  }
  if (!__all_sync(kWholeWarp, finite) && threadIdx.x % 32 == 0)
    atomicMin(bad, static_cast<unsigned long long>(row));
}

void ingest(const IngestArgs& args, unsigned long long* bad, cudaStream_t stream) {
  if (args.rows.n_rows == 0) return;
  const int64_t blocks = (args.rows.n_rows + kBlockWarps - 1) / kBlockWarps;
  FR_LAUNCH(ingest_kernel, dim3(static_cast<unsigned>(blocks)), dim3(kBlockThreads), 0, stream,
            args, bad);
  FR_CUDA_CHECK_LAUNCH();
}

namespace {

struct FuseRow {
  const FuseLayers& args;
  int64_t row;
  int lane;
  bool active;

  // Calls body(i, v) for the numbers first, first + kLanes, ... of a layer, minus its mean.
  template <class Body>
  __device__ __forceinline__ void each(const Layer& layer, int64_t first, const Body& body) const {
    const DType dtype = layer.rows.dtype;
    const void* x = row_of(layer.rows.data, dtype, row * layer.rows.stride);
    for (int64_t begin = first; active && begin < layer.rows.dim; begin += kAhead * kLanes) {
      uint32_t bits[kAhead];
      read_ahead(bits, x, dtype, begin, layer.rows.dim);
#pragma unroll
      for (int u = 0; u < kAhead; ++u) {
        const int64_t i = begin + u * kLanes;
        if (i >= layer.rows.dim) break;
        const double number = number_of(bits[u], dtype);
        body(i, layer.mean ? __dsub_rn(number, double{layer.mean[i]}) : number);
      }
    }
  }
  // The norm of a layer, with lanes that start at its first number.
  __device__ __forceinline__ double norm(const Layer& layer) const {
    double sum = 0;
    each(layer, lane, [&sum](int64_t, double v) { sum = __dadd_rn(sum, __dmul_rn(v, v)); });
    return __dsqrt_rn(tree_sum(sum));
  }
  __device__ __forceinline__ double weighed(const Layer& layer, double layer_norm, double v) const {
    return args.weigh && layer_norm > 0 ? __dmul_rn(__ddiv_rn(v, layer_norm), layer.weight) : v;
  }
};

}  // namespace

// Eight lanes for each row. The second and third read of a row come from the cache.
static __global__ void __launch_bounds__(kBlockThreads)
    fuse_kernel(const __grid_constant__ FuseLayers args) {
  const int64_t index = (int64_t{blockIdx.x} * kBlockThreads + threadIdx.x) / kLanes;
  const bool active = index < args.n_rows;  // idle threads stay: the shuffles need the whole warp
  const FuseRow row{args, active ? index : 0, static_cast<int>(threadIdx.x % kLanes), active};

  __shared__ double norms[kMaxLayers][kRowsAtOnce];  // an array with an index needs memory
  const int mine = threadIdx.x / kLanes;
  double sum = 0;
  int64_t offset = 0;
  for (int l = 0; l < args.n_layers; ++l) {
    const Layer& layer = args.layers[l];
    const double layer_norm = args.weigh ? row.norm(layer) : 0;
    if (row.lane == 0) norms[l][mine] = layer_norm;
    const int64_t first =
        (row.lane - offset % kLanes + kLanes) % kLanes;  // lanes of the joined row
    row.each(layer, first, [&](int64_t, double number) {
      const double v = row.weighed(layer, layer_norm, number);
      sum = __dadd_rn(sum, __dmul_rn(v, v));
    });
    offset += layer.rows.dim;
  }
  const double norm = __dsqrt_rn(tree_sum(sum));
  __syncwarp();  // the norms are written
  if (!active) return;
  int64_t at = row.row * offset;
  for (int l = 0; l < args.n_layers; ++l) {
    const Layer& layer = args.layers[l];
    row.each(layer, row.lane, [&](int64_t i, double number) {
      const double whole = row.weighed(layer, norms[l][mine], number);
      const double v = norm == 0 ? 0 : __ddiv_rn(whole, norm);
      write_number(args.out, args.out_dtype, at + i, __double2float_rn(v));
    });
    at += layer.rows.dim;
  }
}

void fuse(const FuseLayers& args, cudaStream_t stream) {
  if (args.n_rows == 0) return;
  FR_LAUNCH(fuse_kernel, dim3(blocks_for(args.n_rows)), dim3(kBlockThreads), 0, stream, args);
  FR_CUDA_CHECK_LAUNCH();
}

// Eight lanes for each pair of query and row.
static __global__ void __launch_bounds__(kBlockThreads)
    scores_kernel(const __grid_constant__ ScoresArgs args) {
  const int64_t pair = (int64_t{blockIdx.x} * kBlockThreads + threadIdx.x) / kLanes;
  const bool active = pair < args.queries.n_rows * args.rows.n_rows;
  const int64_t query = active ? pair / args.rows.n_rows : 0;
  const int64_t row = active ? pair % args.rows.n_rows : 0;
  const void* q = row_of(args.queries.data, args.queries.dtype, query * args.queries.stride);
  const void* x = row_of(args.rows.data, args.rows.dtype, row * args.rows.stride);
  const bool distance = is_distance(args.metric);
  double sum = 0, q_square = 0, x_square = 0;
  for (int64_t d = threadIdx.x % kLanes; active && d < args.rows.dim; d += kLanes) {
    const double a = read_number(q, args.queries.dtype, d), b = read_number(x, args.rows.dtype, d);
    const double difference = __dsub_rn(a, b);
    sum = distance ? __dadd_rn(sum, __dmul_rn(difference, difference)) : __fma_rn(a, b, sum);
    q_square = __fma_rn(a, a, q_square);
    x_square = __fma_rn(b, b, x_square);
  }
  sum = tree_sum(sum);
  const double norms = __dmul_rn(__dsqrt_rn(tree_sum(q_square)), __dsqrt_rn(tree_sum(x_square)));
  if (!active || threadIdx.x % kLanes != 0) return;
  double score = sum;
  if (args.metric == Metric::l2) score = __dsqrt_rn(sum);
  if (args.metric == Metric::cosine) score = norms > 0 ? __ddiv_rn(sum, norms) : 0.0;
  args.scores[pair] = score;
}

void scores(const ScoresArgs& args, cudaStream_t stream) {
  const int64_t pairs = args.queries.n_rows * args.rows.n_rows;
  if (pairs == 0) return;
  FR_LAUNCH(scores_kernel, dim3(blocks_for(pairs)), dim3(kBlockThreads), 0, stream, args);
  FR_CUDA_CHECK_LAUNCH();
}

// A thread block for each cluster, a thread for each dimension. Rows are added in their order.
static __global__ void __launch_bounds__(kBlockThreads)
    cluster_sums_kernel(const __grid_constant__ ClusterArgs args) {
  const int64_t cluster = blockIdx.x;
  int64_t count = 0;
  for (int64_t d = threadIdx.x; d < args.rows.dim || d == threadIdx.x; d += kBlockThreads) {
    double sum = 0;
    count = 0;
    for (int64_t row = 0; row < args.rows.n_rows; ++row) {
      if (args.labels[row] != cluster) continue;
      ++count;
      if (d >= args.rows.dim) continue;
      const void* x = row_of(args.rows.data, args.rows.dtype, row * args.rows.stride);
      sum = __dadd_rn(sum, double{read_number(x, args.rows.dtype, d)});
    }
    if (d < args.rows.dim) args.sums[cluster * args.rows.dim + d] = sum;
  }
  if (threadIdx.x == 0) args.counts[cluster] = count;
}

void cluster_sums(const ClusterArgs& args, cudaStream_t stream) {
  FR_LAUNCH(cluster_sums_kernel, dim3(static_cast<unsigned>(args.n_clusters)), dim3(kBlockThreads),
            0, stream, args);
  FR_CUDA_CHECK_LAUNCH();
}

}  // namespace fastretrieve::cuda
