#include "cpu/screen/project.hpp"

#include <algorithm>
#include <cmath>

#include "core/bound.hpp"
#include "cpu/float_row.hpp"
#include "cpu/pool.hpp"

namespace fastretrieve::cpu {

namespace {

constexpr int64_t kTogether = 16;  // vectors whose numbers and sums stay in the cache

// x becomes (scale * x, extra), of norm `norm`.
struct Lift {
  double scale, extra, norm;
};

Lift lift(const HeadMap& map, double norm, Role role) {
  if (map.metric == Metric::cosine) return {1 / norm, 0, 1};
  if (map.metric != Metric::ip) return {1, 0, norm};
  if (role == Role::query) return {map.radius / norm, 0, map.radius};
  const double rest = map.radius * map.radius - norm * norm;
  return {1, std::sqrt(std::max(rest, 0.0)), map.radius};
}

}  // namespace

Projector::Projector(const Kernels& kernels, const HeadMap& map) : kernels_(kernels), map_(map) {
  for (int64_t i = 0; i < map.head_dim; ++i) rows_.push_back(map.basis + i * map.lifted);
  rows_.push_back(map.mean);
  sums_.resize(rows_.size());
}

bool Projector::says_something(double norm, Role role) const {
  const bool must_have_length =
      map_.metric == Metric::cosine || (map_.metric == Metric::ip && role == Role::query);
  const bool too_long = map_.metric == Metric::ip && role == Role::row && norm > map_.radius;
  return norm_in_range(norm) && !(norm == 0 && must_have_length) && !too_long;
}

double Projector::operator()(const float* x, double norm, Role role, double* z) {
  if (says_something(norm, role))
    kernels_.score({x, rows_.data(), DType::float32, static_cast<int64_t>(rows_.size()), map_.dim,
                    Sums::product, sums_.data(), nullptr});
  return finish(sums_.data(), norm, role, z);
}

void Projector::many(const float* const* x, const double* norms, int64_t n, Role role, double* z,
                     double* slack) {
  const int64_t padded = map_.padded_dim(), width = map_.head_dim + 1;
  for (int64_t first = 0; first < n; first += kTogether) {
    const int64_t count = std::min(kTogether, n - first);
    wide_.assign(static_cast<size_t>(count * padded), 0.0);
    for (int64_t i = 0; i < count; ++i)
      kernels_.centre(x[first + i], nullptr, map_.dim, wide_.data() + i * padded);
    sums_.resize(static_cast<size_t>(kTogether * width));
    kernels_.products({wide_.data(), count, map_.wide.data(), width, padded, sums_.data()});
    for (int64_t i = first; i < first + count; ++i)
      slack[i] = finish(sums_.data() + (i - first) * width, norms[i], role, z + i * map_.head_dim);
  }
}

// From the products with the basis and with the mean.
double Projector::finish(const double* sums, double norm, Role role, double* z) const {
  if (!says_something(norm, role)) {
    std::fill(z, z + map_.head_dim, 0.0);
    return kInfinity;
  }
  const Lift lifted = lift(map_, norm, role);
  double square = 0;
  for (int64_t i = 0; i < map_.head_dim; ++i) {
    z[i] = lifted.scale * sums[i] - map_.offsets[static_cast<size_t>(i)];
    if (lifted.extra != 0) z[i] += lifted.extra * map_.basis[i * map_.lifted + map_.dim];
    square += z[i] * z[i];
  }
  double product = lifted.scale * sums[map_.head_dim];
  if (lifted.extra != 0) product += lifted.extra * map_.mean[map_.dim];
  const double whole = lifted.norm * lifted.norm - 2 * product + map_.mean_square;
  const double length = std::sqrt(std::max((1 + map_.excess) * whole - square, 0.0));
  for (int64_t i = 0; i < map_.head_dim; ++i) z[i] += map_.tail[i] * (length - map_.tail_centre);
  return kHeadSlack * (lifted.norm + map_.mean_norm) + 0x1p-40 * std::fabs(map_.tail_centre);
}

void project_rows(const Kernels& kernels, const HeadMap& map, const Matrix& rows, float* heads,
                  float* slack, Cancel& cancel) {
  constexpr int64_t kRowsPerTask = 256;
  const auto task = [&](int64_t index, int) {
    Projector project(kernels, map);
    const int64_t begin = index * kRowsPerTask, n = std::min(kRowsPerTask, rows.n_rows - begin);
    // Only 16-bit rows are copied.
    std::vector<float> wide(rows.dtype == DType::float32 ? 0 : static_cast<size_t>(n * rows.dim));
    std::vector<const float*> x;
    std::vector<double> norms, off(static_cast<size_t>(n)),
        z(static_cast<size_t>(n * map.head_dim));
    for (int64_t i = 0; i < n; ++i) {
      float* const buffer = wide.empty() ? nullptr : wide.data() + i * rows.dim;
      x.push_back(float_row(kernels, rows, begin + i, buffer));
      norms.push_back(std::sqrt(kernels.survey(x.back(), rows.dim).square));
    }
    project.many(x.data(), norms.data(), n, Role::row, z.data(), off.data());
    std::transform(off.begin(), off.end(), slack + begin, [](double s) { return round_up(s); });
    std::transform(z.begin(), z.end(), heads + begin * map.head_dim,
                   [](double v) { return static_cast<float>(v); });
  };
  parallel((rows.n_rows + kRowsPerTask - 1) / kRowsPerTask, num_threads(), task, cancel);
}

}  // namespace fastretrieve::cpu
