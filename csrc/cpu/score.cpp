#include "cpu/score.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "core/bound.hpp"
#include "core/check.hpp"
#include "cpu/atomics.hpp"
#include "cpu/float_row.hpp"
#include "cpu/pool.hpp"

namespace fastretrieve::cpu {

static Sums sums_of(Metric metric) {
  if (metric == Metric::cosine) return Sums::product_and_square;
  return metric == Metric::ip ? Sums::product : Sums::squared_difference;
}

static double canonical_score(Metric metric, double sum, double query_norm, double row_square) {
  switch (metric) {
    case Metric::ip:
      return sum;
    case Metric::sqeuclidean:
      return sum;
    case Metric::l2:
      return std::sqrt(sum);
    case Metric::cosine:
      break;
  }
  const double norms = query_norm * std::sqrt(row_square);
  return norms > 0 ? sum / norms : 0.0;
}

// Turns the rows of `scratch` into their scores, in `scratch.sums`.
static void score_scratch(const Kernels& kernels, Metric metric, int64_t dim, const QueryRow& query,
                          DType dtype, ScoreScratch& scratch) {
  const size_t n = scratch.rows.size();
  scratch.sums.resize(n);
  scratch.squares.resize(n);
  const Sums what = sums_of(metric);
  kernels.score({query.values, scratch.rows.data(), dtype, static_cast<int64_t>(n), dim, what,
                 scratch.sums.data(), scratch.squares.data()});
  for (size_t i = 0; i < n; ++i) {
    const double square = what == Sums::product_and_square ? scratch.squares[i] : 0;
    scratch.sums[i] = canonical_score(metric, scratch.sums[i], query.norm, square);
  }
}

// The rows of a damaged file may hold NaN, which must not reach a sort. They come last.
static double sortable(double key) { return key == key ? key : -kInfinity; }

void score_rows(const Problem& problem, const QueryRow& query, DType dtype, ScoreScratch& scratch,
                std::vector<Scored>& out) {
  score_scratch(problem.kernels, problem.metric, problem.dim, query, dtype, scratch);
  for (size_t i = 0; i < scratch.rows.size(); ++i)
    out.push_back({sortable(key_of_score(problem.metric, scratch.sums[i])), scratch.ids[i]});
}

void sort_best(std::vector<Scored>& scored, Cancel& cancel) {
  constexpr size_t kAtOnce = 65536;  // a few milliseconds
  if (scored.size() <= kAtOnce) return std::sort(scored.begin(), scored.end(), better);
  constexpr unsigned kCallsPerLook = 65536;
  unsigned calls = 0;
  std::sort(scored.begin(), scored.end(), [&](const Scored& a, const Scored& b) {
    if (++calls % kCallsPerLook == 0) cancel.check_now();
    return better(a, b);
  });
}

static void check_finite(const Kernels& kernels, const Matrix& matrix, const char* name,
                         Cancel& cancel) {
  constexpr int64_t kRowsPerTask = 4096;
  std::atomic<int64_t> bad{matrix.n_rows};
  const auto task = [&](int64_t index, int) {
    std::vector<float> wide(static_cast<size_t>(matrix.dim));
    const int64_t end = std::min(matrix.n_rows, (index + 1) * kRowsPerTask);
    for (int64_t i = index * kRowsPerTask; i < end; ++i) {
      const float* x = float_row(kernels, matrix, i, wide.data());
      if (kernels.survey(x, matrix.dim).max_bits >= kInfinityBits) lower_to(bad, i);
    }
  };
  parallel((matrix.n_rows + kRowsPerTask - 1) / kRowsPerTask, num_threads(), task, cancel);
  FR_CHECK(bad == matrix.n_rows, name, " hold a value that is not finite in row ", bad.load(),
           "; remove NaN and infinity first");
}

void score_all(const Kernels& kernels, const ScoresArgs& args, Cancel& cancel) {
  constexpr int64_t kRowsPerTask = 1024;
  const int64_t n_rows = args.rows.n_rows, dim = args.rows.dim;
  check_finite(kernels, args.queries, "queries", cancel);
  check_finite(kernels, args.rows, "rows", cancel);
  const int64_t parts = (n_rows + kRowsPerTask - 1) / kRowsPerTask;
  const auto task = [&](int64_t index, int) {
    const int64_t q = index / parts, begin = index % parts * kRowsPerTask;
    const int64_t end = std::min(n_rows, begin + kRowsPerTask);
    std::vector<float> wide(static_cast<size_t>(dim));
    const float* values = float_row(kernels, args.queries, q, wide.data());
    const QueryRow query{values, std::sqrt(kernels.survey(values, dim).square)};
    ScoreScratch scratch;
    for (int64_t i = begin; i < end; ++i) scratch.rows.push_back(args.rows.row(i));
    score_scratch(kernels, args.metric, dim, query, args.rows.dtype, scratch);
    std::copy(scratch.sums.begin(), scratch.sums.end(), args.scores + q * n_rows + begin);
  };
  parallel(args.queries.n_rows * parts, num_threads(), task, cancel);
}

}  // namespace fastretrieve::cpu
