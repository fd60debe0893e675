// The heads of a panel's queries, and the leaves nearest to each. Threads that share the rows share
// this.
#pragma once
#include <cstdint>
#include <vector>

#include "core/cancel.hpp"
#include "core/screen.hpp"
#include "cpu/encode.hpp"
#include "cpu/kernels.hpp"

namespace fastretrieve::cpu {

constexpr int64_t kSeedLeaves = 8;  // whose rows give a query its first threshold

// What the heads and the boxes of rows must reach for a query.
struct Aim {
  int32_t start;    // of its sums: core/screen.hpp
  float box_limit;  // squared distance
};

class HeadPanel {
 public:
  HeadPanel(const Kernels& kernels, const Screen& screen, const EncodedQueries& queries,
            int64_t first, int64_t n_queries, Cancel& cancel);

  // Finds the leaves with which an exact search begins.
  void find_seeds(Cancel& cancel);

  int64_t n_queries() const { return static_cast<int64_t>(heads_.size()); }
  const int8_t* codes(int64_t query) const { return codes_.data() + query * head_dim_; }
  const float* point(int64_t query) const { return points_.data() + query * kBoxAxes; }
  // The nearest leaves, by the distance of codes; nearest first.
  const std::vector<int32_t>& seeds(int64_t query) const {
    return seeds_[static_cast<size_t>(query)];
  }

  // For some queries, at most kStreamQueries, and every leaf: the product of their codes minus half
  // the square of the leaf's. [n_queries][leaves in whole strips]
  void rank_leaves(int64_t first, int64_t n_queries, std::vector<int32_t>& values) const;
  int64_t ranked_leaves() const {
    return (screen_.n_leaves + kStripRows - 1) / kStripRows * kStripRows;
  }
  // The distance of the query's head from the centre of a leaf, squared.
  double leaf_distance(int64_t query, int64_t leaf) const;
  // How far the query's head is from its codes.
  double code_error(int64_t query) const { return heads_[static_cast<size_t>(query)].off; }
  int64_t code_square(int64_t query) const {
    return heads_[static_cast<size_t>(query)].code_square;
  }
  // The least distance of lifted vectors where boxes are so far, squared, from the query's point.
  double distance_beyond(int64_t query, float box_square) const;

  // What rows must reach that may have this canonical value.
  Aim aim(int64_t query, double query_norm, double value) const;

 private:
  struct Head {
    int64_t code_square, code_sum;
    double off;        // |z - step * codes|
    double error;      // |z - step * codes|, and what rounding may have moved z
    double box_slack;  // what rounding may have moved the point
  };

  // Arguments that keep the products of queries [first, first + n).
  HeadArgs for_products(int64_t first, int64_t n, const int32_t* bias, uint64_t* survivors,
                        int32_t* dots) const;
  void encode(const Screen& screen, int64_t query, const double* z, double slack);
  const Kernels& kernels_;
  const Screen& screen_;
  const int64_t head_dim_;
  std::vector<Head> heads_;
  std::vector<double> heads_of_;  // [n_queries, head_dim]
  std::vector<int8_t> codes_;
  std::vector<float> points_;
  std::vector<std::vector<int32_t>> seeds_;
};

}  // namespace fastretrieve::cpu
