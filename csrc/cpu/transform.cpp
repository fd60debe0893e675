#include "cpu/transform.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

#include "core/check.hpp"
#include "core/number.hpp"
#include "cpu/atomics.hpp"
#include "cpu/float_row.hpp"
#include "cpu/pool.hpp"

namespace fastretrieve::cpu {
namespace {

// Calls work(begin, end) for runs of rows, about 256 KiB each, on all threads.
template <class Work>
void for_row_runs(int64_t n_rows, int64_t dim, Cancel& cancel, const Work& work) {
  const int64_t run = std::max<int64_t>(1, 65536 / std::max<int64_t>(dim, 1));
  parallel((n_rows + run - 1) / run, num_threads(),
           [&](int64_t i, int) { work(i * run, std::min(n_rows, (i + 1) * run)); }, cancel);
}

void narrow(const float* values, int64_t n, DType dtype, void* out) {
  uint16_t* bits = static_cast<uint16_t*>(out);
  switch (dtype) {
    case DType::float32:
      std::memcpy(out, values, static_cast<size_t>(n) * sizeof(float));
      break;
    case DType::float16:
      std::transform(values, values + n, bits, float_to_half);
      break;
    case DType::bfloat16:
      std::transform(values, values + n, bits, float_to_bfloat16);
      break;
  }
}

struct FuseScratch {
  std::vector<float> wide, result;
  std::vector<double> joined;
};

// False for a row that is not finite. A row of norm zero has no direction and stays zero.
bool fuse_row(const Kernels& kernels, const FuseArgs& args, int64_t row, int64_t dim,
              FuseScratch& scratch, char* out) {
  double* joined = scratch.joined.data();
  int64_t at = 0;
  for (int64_t l = 0; l < args.n_layers; ++l) {
    const Layer& layer = args.layers[l];
    kernels.centre(float_row(kernels, layer.rows, row, scratch.wide.data()), layer.mean,
                   layer.rows.dim, joined + at);
    if (args.weigh) {
      const double norm = std::sqrt(kernels.square_sum(joined + at, layer.rows.dim));
      if (norm > 0) kernels.weigh(joined + at, layer.rows.dim, norm, layer.weight);
    }
    at += layer.rows.dim;
  }
  const double norm = std::sqrt(kernels.square_sum(joined, dim));
  if (norm == 0) {
    std::memset(out, 0, static_cast<size_t>(dim * item_size(args.out_dtype)));
  } else if (!std::isfinite(norm)) {
    return false;
  } else if (args.out_dtype == DType::float32) {
    kernels.divide(joined, dim, norm, reinterpret_cast<float*>(out));
  } else {
    kernels.divide(joined, dim, norm, scratch.result.data());
    narrow(scratch.result.data(), dim, args.out_dtype, out);
  }
  return true;
}

}  // namespace

void fuse(const Kernels& kernels, const FuseArgs& args, Cancel& cancel) {
  int64_t dim = 0, widest = 0;
  for (int64_t l = 0; l < args.n_layers; ++l) {
    dim += args.layers[l].rows.dim;
    widest = std::max(widest, args.layers[l].rows.dim);
  }
  const int64_t n_rows = args.layers[0].rows.n_rows;
  std::atomic<int64_t> bad{n_rows};
  for_row_runs(n_rows, dim, cancel, [&](int64_t begin, int64_t end) {
    FuseScratch scratch{std::vector<float>(static_cast<size_t>(widest)),
                        std::vector<float>(static_cast<size_t>(dim)),
                        std::vector<double>(static_cast<size_t>(dim))};
    for (int64_t row = begin; row < end; ++row) {
      char* out = static_cast<char*>(args.out) + row * dim * item_size(args.out_dtype);
      if (!fuse_row(kernels, args, row, dim, scratch, out)) return lower_to(bad, row);
    }
  });
  FR_CHECK(bad == n_rows, args.weigh ? "layers hold" : "x holds",
           " a value that is not finite in row ", bad.load(), "; remove NaN and infinity first");
}

void cluster_sums(const Kernels& kernels, const ClusterArgs& args, Cancel& cancel) {
  const int64_t dim = args.rows.dim, n = args.n_clusters;
  std::vector<int64_t> begin(static_cast<size_t>(n) + 1, 0),
      members(static_cast<size_t>(args.rows.n_rows));
  for (int64_t i = 0; i < args.rows.n_rows; ++i) {
    FR_CHECK(0 <= args.labels[i] && args.labels[i] < n, "label ", args.labels[i], " of row ", i,
             " is not in [0, ", n, ")");
    ++begin[static_cast<size_t>(args.labels[i]) + 1];
  }
  for (size_t c = 0; c < static_cast<size_t>(n); ++c) begin[c + 1] += begin[c];
  std::vector<int64_t> next(begin.begin(), begin.end() - 1);
  for (int64_t i = 0; i < args.rows.n_rows; ++i)
    members[static_cast<size_t>(next[static_cast<size_t>(args.labels[i])]++)] = i;

  parallel(
      n, num_threads(),
      [&](int64_t c, int) {
        std::vector<float> wide(static_cast<size_t>(dim));
        double* sum = args.sums + c * dim;
        std::fill(sum, sum + dim, 0.0);
        for (int64_t m = begin[static_cast<size_t>(c)]; m < begin[static_cast<size_t>(c) + 1];
             ++m) {
          const float* x =
              float_row(kernels, args.rows, members[static_cast<size_t>(m)], wide.data());
          for (int64_t d = 0; d < dim; ++d) sum[d] += double{x[d]};
        }
        args.counts[c] = begin[static_cast<size_t>(c) + 1] - begin[static_cast<size_t>(c)];
      },
      cancel);
}

int64_t ingest(const Kernels& kernels, const IngestArgs& args, Cancel& cancel) {
  const int64_t dim = args.rows.dim, row_bytes = dim * item_size(args.out_dtype);
  std::atomic<int64_t> bad{args.rows.n_rows};
  for_row_runs(args.rows.n_rows, dim, cancel, [&](int64_t begin, int64_t end) {
    std::vector<float> wide(static_cast<size_t>(dim));
    for (int64_t row = begin; row < end; ++row) {
      char* out = static_cast<char*>(args.out) + row * row_bytes;
      if (args.rows.dtype == args.out_dtype) {
        std::memcpy(out, args.rows.row(row), static_cast<size_t>(row_bytes));
      } else {
        narrow(float_row(kernels, args.rows, row, wide.data()), dim, args.out_dtype, out);
      }
      const Matrix stored{out, args.out_dtype, 1, dim, dim};
      if (kernels.survey(float_row(kernels, stored, 0, wide.data()), dim).max_bits < kInfinityBits)
        continue;
      return lower_to(bad, row);  // the rest of this run cannot hold an earlier one
    }
  });
  return bad == args.rows.n_rows ? -1 : bad.load();
}

}  // namespace fastretrieve::cpu
