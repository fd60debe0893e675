// Stages 2 and 3 on CUDA: the final threshold, canonical scores, order, results. One thread block a
// query.
//
// The sum of a pair runs in kLanes lanes and then pairwise, as on the CPU and in tests/oracle.py,
// so all three agree bit for bit. A query whose survivors did not fit scores every row in the same
// launch, so the host never has to ask the device.
#include "cuda/block.cuh"
#include "cuda/check.hpp"
#include "cuda/kernels.hpp"

namespace fastretrieve::cuda {

static_assert(32 % kLanes == 0, "the lanes of a pair must share a warp");

constexpr int kPairs = kBlockThreads / kLanes;  // pairs that a thread block scores at once
constexpr int64_t kSortedInShared = 2048;
constexpr int kRounds = 8;  // rounds of kPairs rows between two looks at the buffer
constexpr int kAhead = 16;  // loads that a lane has in flight
// Up to this many entries are sorted whole: selecting the best first would take longer.
constexpr int64_t kSortedWhole = 512;

namespace {

struct Found {
  Survivor* entries;
  int64_t n;
};

__device__ __forceinline__ bool precedes(const Survivor& a, const Survivor& b) {
  return a.order != b.order ? a.order < b.order : a.row < b.row;
}

// The lane's share of T(q, x) or of the squared distance, and of T(x, x).
__device__ __forceinline__ void lane_sums(const FinishArgs& args, const void* q, const void* x,
                                          DType dtype, int lane, double* sum, double* square) {
  const bool distance = is_distance(args.gallery.metric);
  const int64_t dim = args.gallery.dim;
  for (int64_t begin = lane; begin < dim; begin += kAhead * kLanes) {
    uint32_t x_bits[kAhead], q_bits[kAhead];
    read_ahead(x_bits, x, dtype, begin, dim);
    read_ahead(q_bits, q, args.batch.dtype, begin, dim);
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {  // the zeros beyond the end add nothing: no sum is -0
      const double a = number_of(q_bits[u], args.batch.dtype), b = number_of(x_bits[u], dtype);
      if (distance) {
        const double difference = __dsub_rn(a, b);
        *sum = __dadd_rn(*sum, __dmul_rn(difference, difference));
      } else {  // products of two float32 are exact, so fusing the addition changes nothing
        *sum = __fma_rn(a, b, *sum);
        *square = __fma_rn(b, b, *square);
      }
    }
  }
}

// The order of a pair, in all its lanes: smaller is better. Inactive lanes call it too.
__device__ __forceinline__ uint64_t score_order(const FinishArgs& args, int64_t query,
                                                const DeviceSegment& segment, int64_t row,
                                                bool active) {
  const QueryBatch& batch = args.batch;
  double sum = 0, square = 0;
  const bool zero = batch.norms[query] == 0 && !is_distance(args.gallery.metric);
  if (active && !zero) {  // a zero query scores zero with every row
    const DType dtype = static_cast<DType>(segment.dtype);
    lane_sums(args, row_of(batch.data, batch.dtype, query * batch.stride),
              row_of(segment.rows, dtype, row * args.gallery.dim), dtype, threadIdx.x % kLanes,
              &sum, &square);
  }
  sum = tree_sum(sum);
  square = tree_sum(square);
  double key = sum;
  if (args.gallery.metric == Metric::cosine) {
    const double norms = active ? __dmul_rn(batch.norms[query], __dsqrt_rn(square)) : 0;
    key = norms > 0 ? __ddiv_rn(sum, norms) : 0.0;
  } else if (is_distance(args.gallery.metric)) {
    key = args.gallery.metric == Metric::l2 ? -__dsqrt_rn(sum) : -sum;
  }
  return descending(__dadd_rn(key, 0.0));  // -0 becomes +0
}

__device__ __forceinline__ int64_t id_of(const DeviceSegment& segment, int64_t row) {
  return segment.ids ? segment.ids[row] : segment.first_id + row;
}

// Turns survivors, which hold rows, into scored entries, which hold ids.
__device__ void score_entries(const FinishArgs& args, int64_t query, const Found& found) {
  for (int64_t begin = 0; begin < found.n; begin += kPairs) {
    const int64_t i = begin + threadIdx.x / kLanes;
    const bool active = i < found.n;  // idle threads stay: the shuffles need the whole warp
    const int64_t place = active ? found.entries[i].row : 0;
    const DeviceSegment& segment = args.gallery.segments[place >> kSegmentShift];
    const uint64_t order = score_order(args, query, segment, place & kRowMask, active);
    __syncwarp();  // every lane of the pair has read its row
    if (active && threadIdx.x % kLanes == 0) {
      found.entries[i].order = order;
      found.entries[i].row = id_of(segment, place & kRowMask);
    }
  }
  __syncthreads();
}

__device__ __forceinline__ Wide nth_best(const Found& found, int64_t rank) {
  const Survivor* entries = found.entries;
  return nth_smallest(found.n, rank, 128, [entries](int64_t i) {
    return Wide{entries[i].order, static_cast<uint64_t>(entries[i].row)};
  });
}

__device__ Found keep_best(const Found& found, int64_t k) {
  if (found.n <= k) return found;
  const Wide kth = nth_best(found, k - 1);
  const int64_t kept = compact(found.entries, found.n, [kth](const Survivor& s) {
    return s.order != kth.high ? s.order < kth.high : static_cast<uint64_t>(s.row) <= kth.low;
  });
  return {found.entries, kept};
}

// The survivors of the scan that reach the final threshold, and the rows without codes.
__device__ Found survivors_of(const FinishArgs& args, int64_t query) {
  const QueryBatch& batch = args.batch;
  Found found{batch.survivors + query * batch.capacity, batch.counts[query]};
  Survivor* entries = found.entries;
  if (found.n >= args.k) {
    const Wide kth = nth_smallest(found.n, args.k - 1, 32, [entries](int64_t i) {
      return Wide{0, descending(entries[i].lower)};
    });
    const float threshold = from_descending(static_cast<uint32_t>(kth.low));
    found.n = compact(entries, found.n,
                      [threshold](const Survivor& s) { return !(s.upper < threshold); });
  }
  for (int64_t s = 0; s < args.gallery.n_segments; ++s) {
    const DeviceSegment& segment = args.gallery.segments[s];
    for (int64_t begin = segment.n_strips * kStripRows; begin < segment.n_rows;
         begin += kBlockThreads) {
      const int64_t row = begin + threadIdx.x;
      const bool wanted = row < segment.n_rows &&
                          (allowed_rows(segment, row / 64, batch.first + query) >> (row % 64) & 1);
      int total;
      const int rank = block_rank(wanted, &total);
      if (wanted) entries[found.n + rank].row = s << kSegmentShift | row;
      found.n += total;
    }
  }
  __syncthreads();
  return found;
}

// Scores every row that the query may return. Never keeps more than the buffer holds.
__device__ Found score_all_rows(const FinishArgs& args, int64_t query, int64_t* n_scored) {
  __shared__ int count;
  const QueryBatch& batch = args.batch;
  Found found{batch.survivors + query * batch.capacity, 0};
  Survivor worst{};  // the k-th so far
  bool full = false;
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  for (int64_t s = 0; s < args.gallery.n_segments; ++s) {
    const DeviceSegment& segment = args.gallery.segments[s];
    for (int64_t begin = 0; begin < segment.n_rows; begin += kPairs * kRounds) {
      for (int round = 0; round < kRounds; ++round) {
        const int64_t row = begin + round * kPairs + threadIdx.x / kLanes;
        const bool active =
            row < segment.n_rows &&
            (allowed_rows(segment, row / 64, batch.first + query) >> (row % 64) & 1);
        Survivor entry;
        entry.order = score_order(args, query, segment, row, active);
        if (!active || threadIdx.x % kLanes != 0) continue;
        entry.row = id_of(segment, row);
        if (!full || precedes(entry, worst)) found.entries[atomicAdd(&count, 1)] = entry;
      }
      const int64_t left = segment.n_rows - begin;
      *n_scored += left < kPairs * kRounds ? left : kPairs * kRounds;
      __syncthreads();
      found.n = count;
      __syncthreads();  // all have read it before one counts on
      if (found.n + kPairs * kRounds <= batch.capacity && found.n < 4 * args.k) continue;
      if (found.n < args.k) continue;
      found = keep_best(found, args.k);
      const Wide kth = nth_best(found, args.k - 1);
      worst.order = kth.high;
      worst.row = static_cast<int64_t>(kth.low);
      full = true;
      if (threadIdx.x == 0) count = static_cast<int>(found.n);
      __syncthreads();
    }
  }
  return found;
}

// Sorts entries; `n` is a power of two.
__device__ void bitonic_sort(Survivor* entries, int64_t n) {
  for (int64_t size = 2; size <= n; size *= 2) {
    for (int64_t stride = size / 2; stride > 0; stride /= 2) {
      __syncthreads();
      for (int64_t i = threadIdx.x; i < n / 2; i += kBlockThreads) {
        const int64_t low = i / stride * stride * 2 + i % stride, high = low + stride;
        const bool descends = (low & size) != 0;
        const Survivor a = entries[low], b = entries[high];
        if (precedes(b, a) == descends) continue;
        entries[low] = b;
        entries[high] = a;
      }
    }
  }
  __syncthreads();
}

__device__ __forceinline__ void fill(Survivor* entries, int64_t begin, int64_t end) {
  for (int64_t i = begin + threadIdx.x; i < end; i += kBlockThreads) {
    entries[i].order = ~uint64_t{0};
    entries[i].row = INT64_MAX;
  }
}

__device__ void write_results(const FinishArgs& args, int64_t query, const Survivor* entries,
                              int64_t n) {
  const int64_t out = (args.batch.first + query) * args.k;
  for (int64_t i = threadIdx.x; i < args.k; i += kBlockThreads) {
    const bool found = i < n;
    double score = __longlong_as_double(0x7ff8000000000000ll);
    if (found) {
      const double key = from_descending(entries[i].order);
      score = is_distance(args.gallery.metric) ? __dsub_rn(0.0, key) : key;
    }
    if (args.scores64) args.scores64[out + i] = score;
    if (args.scores32) args.scores32[out + i] = static_cast<float>(score);
    args.ids[out + i] = found ? entries[i].row : -1;
  }
}

}  // namespace

static __global__ void __launch_bounds__(kBlockThreads, 2)
    finish_kernel(const __grid_constant__ FinishArgs args) {
  __shared__ Survivor sorted[kSortedInShared];
  ptx::grid_wait();  // only waits: the work after the last kernel of a search is not ours
  const int64_t query = blockIdx.x;
  const QueryState state = args.batch.states[query];
  if (state == QueryState::unfit) return write_results(args, query, nullptr, 0);

  const bool overflow =
      state == QueryState::scanning && args.batch.counts[query] > args.batch.limit;
  Found found{nullptr, 0};
  int64_t n_scored = 0;
  if (state == QueryState::exhaustive || overflow) {
    found = score_all_rows(args, query, &n_scored);
  } else {
    found = survivors_of(args, query);
    n_scored = found.n;
    score_entries(args, query, found);
  }
  if (found.n > kSortedWhole && found.n > 2 * args.k) found = keep_best(found, args.k);

  int64_t padded = 1;
  while (padded < found.n) padded *= 2;
  Survivor* entries = found.entries;
  if (padded <= kSortedInShared) {
    for (int64_t i = threadIdx.x; i < found.n; i += kBlockThreads) sorted[i] = entries[i];
    entries = sorted;
  }
  fill(entries, found.n, padded);
  bitonic_sort(entries, padded);
  write_results(args, query, entries, found.n);
  if (threadIdx.x == 0) {
    const bool scanned = state == QueryState::scanning;
    const int64_t n_scanned = scanned ? args.gallery.n_strips * kStripRows : 0;
    atomicAdd(&args.counters->queries, 1ull);
    atomicAdd(&args.counters->rows_scanned, static_cast<unsigned long long>(n_scanned));
    atomicAdd(&args.counters->rows_scored, static_cast<unsigned long long>(n_scored));
    const bool surprised = overflow || (state == QueryState::exhaustive &&
                                        args.batch.counts[query] > args.batch.limit);
    if (surprised) atomicAdd(&args.counters->overflows, 1ull);
  }
}

void finish(const FinishArgs& args, const Queue& queue) {
  FR_LAUNCH_NEXT(finish_kernel, dim3(static_cast<unsigned>(args.batch.n_queries)),
                 dim3(kBlockThreads), 0, queue, args);
  FR_CUDA_CHECK_LAUNCH();
}

}  // namespace fastretrieve::cuda
