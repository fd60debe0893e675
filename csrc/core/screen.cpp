#include "core/screen.hpp"

#include <algorithm>

#include "core/check.hpp"

namespace fastretrieve {

namespace {

double dot(const float* a, const float* b, int64_t n) {
  double sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) sums[lane] += double{a[i + lane]} * b[i + lane];
  for (; i < n; ++i) sums[0] += double{a[i]} * b[i];
  double sum = 0;
  for (const double part : sums) sum += part;
  return sum;
}

// At least the largest eigenvalue of rows * rows' (+ extra * extra') - 1, by its Frobenius norm.
double defect(const float* rows, int64_t n_rows, int64_t dim, const float* extra) {
  double square = 0;
  for (int64_t i = 0; i < n_rows; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      double entry = dot(rows + i * dim, rows + j * dim, dim) - (i == j ? 1 : 0);
      if (extra) entry += double{extra[i]} * extra[j];
      square += (i == j ? 1 : 2) * entry * entry;
    }
  }
  // The second term: what the sums lost to rounding.
  return std::sqrt(square) * (1 + 0x1p-40) + static_cast<double>(n_rows * dim) * 0x1p-50;
}

}  // namespace

void measure(HeadMap& map) {
  const int64_t n = map.head_dim, dim = map.lifted;
  map.mean_square = dot(map.mean, map.mean, dim);
  map.mean_norm = std::sqrt(map.mean_square) * (1 + 0x1p-30);
  map.offsets.resize(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i)
    map.offsets[static_cast<size_t>(i)] = dot(map.basis + i * dim, map.mean, dim);
  map.wide.assign(static_cast<size_t>((n + 1) * map.padded_dim()), 0.0);
  for (int64_t i = 0; i <= n; ++i)
    std::copy_n(i < n ? map.basis + i * dim : map.mean, map.dim,
                map.wide.data() + i * map.padded_dim());
  map.excess = defect(map.basis, n, dim, map.tail);
  FR_CHECK(map.excess < 0.01,
           "the rows of a screen's basis are not those of a rotation: they are "
           "off by ",
           map.excess);
  std::vector<double> leak(static_cast<size_t>(dim));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t d = 0; d < dim; ++d)
      leak[static_cast<size_t>(d)] += double{map.tail[i]} * map.basis[i * dim + d];
  double leaked = 0;
  for (const double part : leak) leaked += part * part;
  leaked = std::sqrt(leaked) * (1 + 0x1p-40) + static_cast<double>(n * dim) * 0x1p-50;
  const double tail_square = dot(map.tail, map.tail, n) * (1 + 0x1p-40);
  const double stretch = 1 + map.excess;
  const double square =
      (tail_square > 1 ? tail_square : 1) * stretch + 2 * leaked * std::sqrt(stretch);
  map.lipschitz = std::sqrt(square) * (1 + 0x1p-40);
  FR_CHECK(map.lipschitz < 1.1,
           "the tail of a screen is not a direction of its own: heads may lie ", map.lipschitz,
           " times as far apart as vectors");
  map.axes_lipschitz = std::sqrt(1 + defect(map.axes, kBoxAxes, n, nullptr)) * (1 + 0x1p-40);
  FR_CHECK(map.axes_lipschitz < 1.1, "the axes of a screen's boxes are not those of a rotation");
}

}  // namespace fastretrieve
