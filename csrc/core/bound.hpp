// The certified bound: an interval around a score, from int8 codes alone. docs/exactness.md derives
// it line by line.
//
// A row is x = x' + dx, where x' = scale * codes, and a query q = q' + dq. By Cauchy-Schwarz
//   |q.x - q'.x'| <= |q| |dx| + |dq| |x'|,  and  | |q-x| - |q'-x'| | <= |dq| + |dx|.
// For cosine both are divided by their norms first. All slack is relative to norms, never to a
// result, and covers every rounding: of the planes, of the arithmetic here, of the float32 filter
// in the kernels and of the canonical score itself.
//
// Inside a scan everything is a *value* that is better when larger: the similarity, or minus the
// squared distance.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>

#include "core/number.hpp"
#include "core/types.hpp"

namespace fastretrieve {

// Rows and queries whose norm is neither zero nor in this range always survive and never supply a
// threshold, so that no float32 in the filter loses its last bits. Overflow may keep a row, never
// drop one.
constexpr double kMinNorm = 0x1p-60, kMaxNorm = 0x1p60;
constexpr double kSlack = 0x1p-20;            // relative to |q| max(|x|, |x'|)
constexpr double kDistanceSlack = 0x1p-19;    // relative to |q|^2 + |x|^2
constexpr double kSimilaritySlack = 0x1p-30;  // relative to |q|^2 + |x|^2

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// What the scan keeps of a row, one number in each plane.
struct RowBound {
  float scale;        // x' = scale * codes; zero for a row that the codes cannot describe
  float error;        // >= |dx| (1 + 2^-20) + 2^-20 max(|x|, |x'|); infinity: always survives
  float norm;         // >= |x'|, within 2^-23 of it
  float half_square;  // |x|^2 / 2, within 2^-24 of it; distances only
  // |x|^2 lies between these two. For similarities, if the backend knows it.
  float least_square = 0, most_square = HUGE_VALF;
};

// Computed once for each query.
struct QueryBound {
  double scale = 1;        // q' = scale * codes
  double norm = 0;         // |q| (1 + 2^-20); infinity: every row survives
  double error = 0;        // |dq| (1 + 2^-20)
  double square = 0;       // |q|^2
  double code_square = 0;  // |q'|^2
};

// Measured while encoding, in float64: the norms of x (divided by |x| for cosine), of x' and of
// x - x'.
struct Measured {
  double norm, error, code_norm;
  bool in_range;
};

FR_HD inline bool norm_in_range(double norm) {
  return norm == 0 || (norm >= kMinNorm && norm <= kMaxNorm);
}

FR_HD inline RowBound row_bound(const Measured& m, float scale) {
  if (!m.in_range) return {0.0f, HUGE_VALF, 0.0f, 0.0f};
  const double larger = m.norm > m.code_norm ? m.norm : m.code_norm;
  return {scale, round_up(m.error * (1 + kSlack) + kSlack * larger), round_up(m.code_norm),
          static_cast<float>(m.norm * m.norm / 2)};
}

FR_HD inline QueryBound query_bound(const Measured& m, float scale) {
  QueryBound bound;
  if (!m.in_range) {
    bound.norm = kInfinity;
    return bound;
  }
  if (scale > 0) bound.scale = scale;
  bound.norm = m.norm * (1 + kSlack);
  bound.error = m.error * (1 + kSlack);
  bound.square = m.norm * m.norm;
  bound.code_square = m.code_norm * m.code_norm;
  return bound;
}

struct Interval {
  double lower, upper;  // contain the canonical value
};

// The squared distance by the triangle inequality on the decoded vectors. Sharper than the product
// if the vectors are closer to each other than to the origin.
FR_HD inline Interval triangle(const QueryBound& q, const RowBound& x, double product) {
  const double norm_square = double{x.norm} * double{x.norm};
  const double coded = q.code_square + norm_square - 2 * product;
  const double slack = kSlack * (q.code_square + norm_square);
  const double reach = q.error + double{x.error};
  // Comparisons and not fmax, which is a call on the CPU.
  const double least = coded - slack, most = coded + slack;
  const double inner = sqrt(least > 0 ? least : 0.0) - reach;
  const double outer = sqrt(most > 0 ? most : 0.0) + reach;
  return {inner > 0 ? inner * inner * (1 - 0x1p-30) : 0.0, outer * outer * (1 + 0x1p-30)};
}

FR_HD inline Interval both(const Interval& a, const Interval& b) {
  return {a.lower > b.lower ? a.lower : b.lower, a.upper < b.upper ? a.upper : b.upper};
}

FR_HD inline Interval distance_interval(const QueryBound& q, const RowBound& x, double product,
                                        double radius) {
  const double x_square = 2.0 * double{x.half_square};
  const double slack = kDistanceSlack * (q.square + x_square);
  const double centre = q.square + x_square - 2 * product;
  const Interval distance =
      both({centre - 2 * radius - slack, centre + 2 * radius + slack}, triangle(q, x, product));
  return {-distance.upper, -distance.lower};
}

// If the lengths of two vectors are known, their distance gives their product.
FR_HD inline Interval similarity_interval(const QueryBound& q, const RowBound& x, double product,
                                          double radius) {
  const Interval by_product = {product - radius, product + radius};
  const double least = x.least_square, most = x.most_square;
  if (!(most < kInfinity) || x.norm == 0) return by_product;
  const Interval distance = triangle(q, x, product);
  const double slack = kSimilaritySlack * (q.square + most);
  return both(by_product, {(q.square + least - distance.upper) / 2 - slack,
                           (q.square + most - distance.lower) / 2 + slack});
}

// `dot` is the exact integer product of the codes.
FR_HD inline Interval interval(Metric metric, const QueryBound& q, const RowBound& x, int32_t dot) {
  const double product = q.scale * double{x.scale} * dot;
  const double radius = q.norm * double{x.error} + q.error * double{x.norm};
  if (!(radius < kInfinity)) return {-kInfinity, kInfinity};  // also for infinity times zero
  if (is_distance(metric)) return distance_interval(q, x, product, radius);
  return similarity_interval(q, x, product, radius);
}

// What a pair must reach: a value, and the largest distance at which it can.
struct Cut {
  double value, distance;
};

// For rows with |x|^2 <= `most_square`; distances ignore it.
FR_HD inline Cut make_cut(Metric metric, const QueryBound& q, double most_square, double value) {
  double square = -value;
  if (!is_distance(metric)) {
    const double squares = q.square + most_square;
    square = squares - 2 * value + kSimilaritySlack * squares;
  }
  return {value, square > 0 ? sqrt(square) * (1 + 0x1p-30) : 0.0};
}

// True if the pair cannot reach the cut. Takes no root, and drops most rows.
FR_HD inline bool falls_short(Metric metric, const QueryBound& q, const RowBound& x, int32_t dot,
                              const Cut& cut) {
  const double product = q.scale * double{x.scale} * dot;
  const double radius = q.norm * double{x.error} + q.error * double{x.norm};
  if (!(radius < kInfinity)) return false;
  double upper = product + radius;
  if (is_distance(metric)) {
    const double squares = q.square + 2.0 * double{x.half_square};
    upper = 2 * upper - squares + kDistanceSlack * squares;
  }
  if (upper < cut.value) return true;
  const double squares = q.code_square + double{x.norm} * double{x.norm};
  const double farthest = cut.distance + q.error + double{x.error};
  return squares - 2 * product - kSlack * squares > farthest * farthest * (1 + 0x1p-30);
}

// The float32 filter in the scan kernels keeps a pair unless
//   dot * scale + reach * weight - fall * half_square < threshold,
// where weight = error + ratio * norm bounds a row for every query of a panel, and ratio is the
// largest error / norm of its queries. The filter never drops a pair whose canonical value reaches
// the value from which the threshold was made.
struct Filter {
  float reach;      // |q| / scale, rounded up
  float fall;       // 1 / scale, with slack; distances only
  float threshold;  // minus infinity until k rows are known
};

FR_HD inline Filter make_filter(Metric metric, const QueryBound& q) {
  return {round_up(q.norm / q.scale),
          is_distance(metric) ? static_cast<float>((1 - kDistanceSlack) / q.scale) : 0.0f,
          -HUGE_VALF};
}

FR_HD inline float filter_threshold(Metric metric, const QueryBound& q, double value) {
  if (!is_distance(metric)) return round_down(value / q.scale);
  return round_down((value + q.square * (1 - kDistanceSlack)) / (2 * q.scale));
}

FR_HD inline double error_ratio(const QueryBound& q) {
  return q.norm > 0 && q.norm < kInfinity ? q.error / q.norm : 0.0;
}

// The interval of every row with this canonical score, or a better one, reaches this value.
inline double value_of_score(Metric metric, double score) {
  if (metric == Metric::l2)
    return -(score * score) * (1 + 0x1p-50);  // undoes the rounding of the root
  return metric == Metric::sqeuclidean ? -score : score;
}

}  // namespace fastretrieve
