#include "cpu/encode.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "core/strip.hpp"
#include "cpu/atomics.hpp"
#include "cpu/float_row.hpp"
#include "cpu/pool.hpp"

namespace fastretrieve::cpu {

namespace {

struct Encoded {
  Measured measured;
  double norm;  // canonical, of x itself
  float scale;
  int64_t code_sum;
  bool finite;
};

// Codes of one row; all zero if the row is zero or its norm is out of range.
Encoded encode_row(const Kernels& kernels, const float* x, int64_t dim, Metric metric,
                   int8_t* codes) {
  const Survey survey = kernels.survey(x, dim);
  Encoded encoded{};
  encoded.finite = survey.max_bits < kInfinityBits;
  encoded.norm = std::sqrt(survey.square);
  encoded.measured.in_range = norm_in_range(encoded.norm);
  if (!encoded.measured.in_range || encoded.norm == 0) {
    std::memset(codes, 0, static_cast<size_t>(dim));
    return encoded;
  }
  const double inverse = metric == Metric::cosine ? 1 / encoded.norm : 1;
  encoded.scale = static_cast<float>(double{bit_cast<float>(survey.max_bits)} * inverse / kMaxCode);
  const float to_code = static_cast<float>(inverse / double{encoded.scale});
  const Quantised q = kernels.quantise(x, dim, to_code, inverse, encoded.scale, codes);
  encoded.measured.norm = metric == Metric::cosine ? 1 : encoded.norm;
  encoded.measured.error = std::sqrt(q.error_square);
  encoded.measured.code_norm =
      double{encoded.scale} * std::sqrt(static_cast<double>(q.code_square));
  encoded.code_sum = q.code_sum;
  return encoded;
}

void pack_row(const StripLayout& layout, const int8_t* codes, int64_t row, uint8_t* strip) {
  uint8_t* out = strip + layout.code_at(row, 0);
  for (int64_t g = 0; g < layout.groups; ++g) {
    uint32_t four;
    std::memcpy(&four, codes + g * kGroupDims, sizeof four);
    four ^= 0x80808080u;  // code + 128
    std::memcpy(out + g * kGroupBytes, &four, sizeof four);
  }
}

}  // namespace

void encode_strips(const Kernels& kernels, const EncodeArgs& args, Cancel& cancel) {
  const StripLayout layout(args.rows.dim, args.metric);
  constexpr int64_t kStripsPerTask = 16;
  const int64_t n_tasks = (args.n_strips + kStripsPerTask - 1) / kStripsPerTask;
  const auto task = [&](int64_t index, int) {
    std::vector<int8_t> codes(static_cast<size_t>(layout.padded_dim()), int8_t{0});
    std::vector<float> buffer(
        static_cast<size_t>(args.rows.dtype == DType::float32 ? 0 : args.rows.dim));
    const int64_t end = std::min((index + 1) * kStripsPerTask, args.n_strips);
    for (int64_t s = index * kStripsPerTask; s < end; ++s) {
      uint8_t* strip = args.codes + s * layout.bytes();
      double least = kInfinity, most = 0;
      for (int64_t row = 0; row < kStripRows; ++row) {
        const float* x = float_row(kernels, args.rows, s * kStripRows + row, buffer.data());
        const Encoded encoded = encode_row(kernels, x, args.rows.dim, args.metric, codes.data());
        pack_row(layout, codes.data(), row, strip);
        const RowBound bound = row_bound(encoded.measured, encoded.scale);
        layout.plane(strip, kScale)[row] = bound.scale;
        layout.plane(strip, kError)[row] = bound.error;
        layout.plane(strip, kNorm)[row] = bound.norm;
        if (is_distance(args.metric)) layout.plane(strip, kHalfSquare)[row] = bound.half_square;
        if (!encoded.measured.in_range) continue;
        least = std::min(least, encoded.norm * encoded.norm);
        most = std::max(most, encoded.norm * encoded.norm);
      }
      if (!layout.has_squares) continue;
      std::memset(layout.squares(strip), 0, kGroupBytes);
      layout.squares(strip)[0] = round_down(std::min(least, most) * (1 - kSimilaritySlack));
      layout.squares(strip)[1] = round_up(most * (1 + kSimilaritySlack));
    }
  };
  parallel(n_tasks, num_threads(), task, cancel);
}

EncodedQueries::EncodedQueries(const Kernels& kernels, const Matrix& queries, Metric metric,
                               Cancel& cancel, int64_t first_query)
    : n_queries(queries.n_rows),
      dim(queries.dim),
      padded_dim((dim + kGroupDims - 1) / kGroupDims * kGroupDims) {
  codes.resize(static_cast<size_t>(n_queries * padded_dim));
  bias.resize(static_cast<size_t>(n_queries));
  bounds.resize(static_cast<size_t>(n_queries));
  norms.resize(static_cast<size_t>(n_queries));
  const bool narrow = queries.dtype != DType::float32;
  if (narrow) converted_.resize(static_cast<size_t>(n_queries * dim));
  wide_ = narrow ? converted_.data() : static_cast<const float*>(queries.data);
  wide_stride_ = narrow ? dim : queries.stride;

  constexpr int64_t kQueriesPerTask = 64;
  std::atomic<int64_t> bad{n_queries};
  const auto task = [&](int64_t index, int) {
    const int64_t end = std::min((index + 1) * kQueriesPerTask, n_queries);
    for (int64_t i = index * kQueriesPerTask; i < end; ++i) {
      if (narrow) kernels.widen(queries.row(i), queries.dtype, dim, converted_.data() + i * dim);
      const Encoded encoded =
          encode_row(kernels, row(i), dim, metric, codes.data() + i * padded_dim);
      if (!encoded.finite) lower_to(bad, i);
      bounds[static_cast<size_t>(i)] = query_bound(encoded.measured, encoded.scale);
      norms[static_cast<size_t>(i)] = encoded.norm;
      bias[static_cast<size_t>(i)] = static_cast<int32_t>(-kCodeOffset * encoded.code_sum);
    }
  };
  parallel((n_queries + kQueriesPerTask - 1) / kQueriesPerTask, num_threads(), task, cancel);
  FR_CHECK(bad == n_queries, "queries hold a value that is not finite in row ",
           first_query + bad.load(), "; remove NaN and infinity before searching");
}

}  // namespace fastretrieve::cpu
