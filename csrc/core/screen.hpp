// The screen: a few numbers a row that prove that the row cannot place. docs/exactness.md, section
// 8, derives it line by line.
//
// Vectors are lifted, so that in every metric the better row is the nearer one:
//   distances x;  cosine x / |x|;  inner products (x, sqrt(radius^2 - |x|^2)), q * radius / |q|.
// With u = lifted - mean, the head of a vector is
//   z(u) = basis u + tail * (length(u) - tail_centre),
//   length(u)^2 = (1 + excess) |u|^2 - |basis u|^2,
// and |z(a) - z(b)| <= lipschitz |a - b|. A row keeps z as int8 codes with one step for all rows.
#pragma once
#include <cmath>
#include <cstdint>
#include <vector>

#include "core/number.hpp"
#include "core/strip.hpp"
#include "core/types.hpp"

namespace fastretrieve {

constexpr int64_t kMinHead = 16, kMaxHead = 256;  // numbers of a head, a multiple of kHeadUnit
constexpr int64_t kHeadUnit = 16;
constexpr int64_t kBoxAxes = 16;
constexpr int64_t kBoxLeaves = 16;  // boxes are kept and tested in groups of so many leaves
// Covers the rounding of a head, relative to |lifted| + |mean|.
constexpr double kHeadSlack = 0x1p-15;

// The map from vectors to heads.
struct HeadMap {
  Metric metric;
  int64_t dim;
  int64_t lifted;      // dim, or dim + 1 for inner products
  int64_t head_dim;    // numbers of a head
  const float* mean;   // [lifted]
  const float* basis;  // [head_dim, lifted]
  const float* tail;   // [head_dim]
  const float* axes;   // [kBoxAxes, head_dim], of the boxes
  double tail_centre;
  double radius;  // inner products: no row that the screen covers is longer

  // Measured when the map is made, so that the proof takes nothing from a file.
  double mean_square = 0, mean_norm = 0, excess = 0, lipschitz = 1, axes_lipschitz = 1;
  std::vector<double> offsets = {};  // [head_dim]: basis * mean
  // [head_dim + 1, padded_dim]: the first `dim` numbers of the basis and the mean, and zeros.
  std::vector<double> wide = {};

  int64_t padded_dim() const { return (dim + kLanes - 1) / kLanes * kLanes; }
};

// Measures a map and fills in its last fields.
void measure(HeadMap& map);

struct LeafLayout {
  int64_t groups;  // of four numbers of a head

  explicit LeafLayout(int64_t head_dim) : groups(head_dim / kGroupDims) {}
  int64_t code_bytes() const { return groups * kGroupBytes * kBlocks; }
  int64_t bytes() const { return code_bytes() + kStripRows * int64_t{sizeof(int32_t)}; }
  int64_t code_at(int64_t row, int64_t d) const {  // within a leaf
    return (row / kBlockRows * groups + d / kGroupDims) * kGroupBytes +
           row % kBlockRows * kGroupDims + d % kGroupDims;
  }
  const int32_t* starts(const uint8_t* leaf) const {
    return reinterpret_cast<const int32_t*>(leaf + code_bytes());
  }
  int32_t* starts(uint8_t* leaf) const { return reinterpret_cast<int32_t*>(leaf + code_bytes()); }
};

// The codes and bounds of one row, in one piece of memory.
struct RecordLayout {
  int64_t padded_dim;
  int64_t n_bounds;  // float32: scale, error, norm, half square; then least and most square

  RecordLayout(int64_t dim, Metric metric)
      : padded_dim((dim + kGroupDims - 1) / kGroupDims * kGroupDims),
        n_bounds(metric == Metric::ip ? 8 : 4) {}
  int64_t codes_at() const { return n_bounds * int64_t{sizeof(float)}; }
  int64_t bytes() const { return (codes_at() + padded_dim + 15) / 16 * 16; }
};

// Everything about the rows that a screen covers. Python owns the arrays.
struct Screen {
  HeadMap map;
  double step;   // |z - step * codes| <= error for every row
  double error;  // but those that always survive
  int64_t n_leaves;
  const uint8_t* heads;    // [n_leaves] LeafLayout
  const uint8_t* centres;  // the same, one row for each leaf
  const float* boxes;      // [groups of kBoxLeaves leaves, kBoxAxes, 2, kBoxLeaves]
  const uint8_t* records;  // [n_leaves * kStripRows] RecordLayout
  const int32_t* places;   // [n_leaves * kStripRows] slots; -1: no row
};

// A head's sum starts here, beside minus half its square: rows that always survive, and none.
constexpr int32_t kAlways = 1 << 29, kNever = -(1 << 29);
// The starts of a damaged file may be any numbers: sums wrap then, as those of vector registers do.
inline int32_t head_sum(int32_t products, int32_t start) {
  return static_cast<int32_t>(static_cast<uint32_t>(products) + static_cast<uint32_t>(start));
}
constexpr int32_t kAnything = 1 << 30;  // the start of a query without a threshold

// The most that heads may differ where lifted vectors differ by `distance`.
inline double head_reach(const HeadMap& map, double distance) {
  return map.lipschitz * distance * (1 + 0x1p-40);
}

// The largest distance between lifted vectors whose canonical value reaches `value`.
inline double lifted_distance(const HeadMap& map, double query_norm, double value) {
  double square;
  switch (map.metric) {
    case Metric::cosine:
      square = 2 - 2 * value + 0x1p-36;
      break;
    case Metric::ip:
      square = map.radius * (2 * map.radius * (1 + 0x1p-36) - 2 * value / query_norm);
      break;
    default:
      square = -value;
  }
  return square > 0 ? std::sqrt(square) * (1 + 0x1p-29) : 0.0;
}

// No row whose lifted vector is at least `distance` away has a canonical score that is better than
// this one.
inline double best_score_beyond(const HeadMap& map, double query_norm, double distance) {
  const double square = distance * distance;
  switch (map.metric) {
    case Metric::cosine:
      return 1 - square / 2 + 0x1p-36;
    case Metric::ip:
      return query_norm * (map.radius - square / (2 * map.radius) + 0x1p-35 * map.radius);
    case Metric::sqeuclidean:
      return square * (1 - 0x1p-36);
    default:
      return distance * (1 - 0x1p-36);
  }
}

// The start of a query's sums: a row survives if start + row's start + product of codes >= 0.
// `reach` is how far the heads may lie apart, in steps.
inline int32_t head_start(double reach, int64_t code_square, int64_t code_sum) {
  const double most = std::floor(reach * reach * (1 + 0x1p-40)) + 1;  // squared distance of codes
  const double wanted = std::ceil((static_cast<double>(code_square) - most) / 2);
  if (!(wanted > -0x1p29)) return kAnything;
  return static_cast<int32_t>(-static_cast<int64_t>(wanted) - kCodeOffset * code_sum);
}

}  // namespace fastretrieve
