#include "cpu/screen/project.hpp"

#include <algorithm>
#include <cmath>

#include "core/bound.hpp"
#include "cpu/float_row.hpp"
#include "cpu/pool.hpp"

namespace fastretrieve::cpu {

namespace {

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

double Projector::operator()(const float* x, double norm, Role role, double* z) {
  const bool must_have_length =
      map_.metric == Metric::cosine || (map_.metric == Metric::ip && role == Role::query);
  const bool too_long = map_.metric == Metric::ip && role == Role::row && norm > map_.radius;
  if (!norm_in_range(norm) || (norm == 0 && must_have_length) || too_long) {
    std::fill(z, z + map_.head_dim, 0.0);
    return kInfinity;
  }
  kernels_.score({x, rows_.data(), DType::float32, static_cast<int64_t>(rows_.size()), map_.dim,
                  Sums::product, sums_.data(), nullptr});
  const Lift lifted = lift(map_, norm, role);
  double square = 0;
  for (int64_t i = 0; i < map_.head_dim; ++i) {
    z[i] = lifted.scale * sums_[static_cast<size_t>(i)] - map_.offsets[static_cast<size_t>(i)];
    if (lifted.extra != 0) z[i] += lifted.extra * map_.basis[i * map_.lifted + map_.dim];
    square += z[i] * z[i];
  }
  double product = lifted.scale * sums_.back();
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
    std::vector<float> buffer(static_cast<size_t>(rows.dim));
    std::vector<double> z(static_cast<size_t>(map.head_dim));
    const int64_t end = std::min((index + 1) * kRowsPerTask, rows.n_rows);
    for (int64_t i = index * kRowsPerTask; i < end; ++i) {
      const float* x = float_row(kernels, rows, i, buffer.data());
      const double norm = std::sqrt(kernels.survey(x, rows.dim).square);
      slack[i] = round_up(project(x, norm, Role::row, z.data()));
      for (int64_t d = 0; d < map.head_dim; ++d)
        heads[i * map.head_dim + d] = static_cast<float>(z[static_cast<size_t>(d)]);
    }
  };
  parallel((rows.n_rows + kRowsPerTask - 1) / kRowsPerTask, num_threads(), task, cancel);
}

}  // namespace fastretrieve::cpu
