#include "cpu/screen/panel.hpp"

#include <algorithm>
#include <cmath>

#include "core/bound.hpp"
#include "cpu/screen/project.hpp"

namespace fastretrieve::cpu {

HeadPanel::HeadPanel(const Kernels& kernels, const Screen& screen, const EncodedQueries& queries,
                     int64_t first, int64_t n_queries, Cancel& cancel)
    : screen_(screen), head_dim_(screen.map.head_dim) {
  const size_t n = static_cast<size_t>(n_queries);
  heads_.resize(n);
  codes_.resize(n * static_cast<size_t>(head_dim_));
  points_.resize(n * kBoxAxes);
  seeds_.resize(n);
  Projector project(kernels, screen.map);
  std::vector<double> z(static_cast<size_t>(head_dim_));
  for (int64_t q = 0; q < n_queries; ++q) {
    cancel.check();
    const double norm = queries.norms[static_cast<size_t>(first + q)];
    const double slack = project(queries.row(first + q), norm, Role::query, z.data());
    encode(screen, q, z.data(), slack);
  }
  find_seeds(kernels, screen, cancel);
}

void HeadPanel::encode(const Screen& screen, int64_t query, const double* z, double slack) {
  Head& head = heads_[static_cast<size_t>(query)];
  int8_t* const codes = codes_.data() + query * head_dim_;
  const double to_code = 1 / screen.step;
  double error = 0, square = 0;
  for (int64_t d = 0; d < head_dim_; ++d) {
    const double code = std::nearbyint(std::min(std::max(z[d] * to_code, -127.0), 127.0));
    const double off = z[d] - screen.step * code;
    error += off * off;
    square += z[d] * z[d];
    codes[d] = static_cast<int8_t>(code);
    head.code_square += codes[d] * codes[d];
    head.code_sum += codes[d];
  }
  head.error = std::sqrt(error) * (1 + 0x1p-40) + slack;
  head.box_slack = slack * screen.map.axes_lipschitz + 0x1p-20 * std::sqrt(square);
  for (int64_t axis = 0; axis < kBoxAxes; ++axis) {
    double at = 0;
    for (int64_t d = 0; d < head_dim_; ++d)
      at += double{screen.map.axes[axis * head_dim_ + d]} * z[d];
    points_[static_cast<size_t>(query * kBoxAxes + axis)] = static_cast<float>(at);
  }
}

Aim HeadPanel::aim(int64_t query, double query_norm, double value) const {
  const Head& head = heads_[static_cast<size_t>(query)];
  const HeadMap& map = screen_.map;
  if (!(value > -kInfinity)) return {kAnything, HUGE_VALF};
  const double reach = head_reach(map, lifted_distance(map, query_norm, value));
  const double steps = (reach + screen_.error + head.error) / screen_.step;
  const double most = reach * map.axes_lipschitz + head.box_slack;
  return {head_start(steps, head.code_square, head.code_sum),
          round_up(most * most * (1 + 0x1p-18))};
}

namespace {

// The best leaves of a query so far, best first, and what a further one must reach.
struct Nearest {
  int64_t values[kSeedLeaves];
  int32_t leaves[kSeedLeaves];
  int64_t size = 0;

  int64_t wanted() const { return size < kSeedLeaves ? -(int64_t{1} << 28) : values[size - 1] + 1; }
  void take(int64_t value, int32_t leaf) {
    if (value < wanted()) return;
    if (size < kSeedLeaves) ++size;
    int64_t at = size - 1;
    for (; at > 0 && values[at - 1] < value; --at) {
      values[at] = values[at - 1];
      leaves[at] = leaves[at - 1];
    }
    values[at] = value;
    leaves[at] = leaf;
  }
};

}  // namespace

void HeadPanel::find_seeds(const Kernels& kernels, const Screen& screen, Cancel& cancel) {
  const LeafLayout layout(head_dim_);
  const int64_t n_strips = (screen.n_leaves + kStripRows - 1) / kStripRows;
  int32_t dots[kStreamQueries * kStripRows];
  for (int64_t first = 0; first < n_queries(); first += kStreamQueries) {
    const int64_t n = std::min(kStreamQueries, n_queries() - first);
    Nearest nearest[kStreamQueries];
    int32_t bias[kStreamQueries];
    uint64_t survivors[kStreamQueries];
    HeadArgs args{};
    args.groups = layout.groups;
    args.queries = codes(first);
    args.bias = bias;
    args.n_queries = n;
    args.survivors = survivors;
    args.dots = dots;
    args.keep_dots = true;
    for (int64_t strip = 0; strip < n_strips; ++strip) {
      cancel.check();
      for (int64_t q = 0; q < n; ++q)
        bias[q] = static_cast<int32_t>(
            -nearest[q].wanted() - kCodeOffset * heads_[static_cast<size_t>(first + q)].code_sum);
      args.codes = screen.centres + strip * layout.bytes();
      args.starts = layout.starts(args.codes);
      kernels.heads(args);
      for (int64_t q = 0; q < n; ++q) {
        const int64_t wanted = nearest[q].wanted();
        for (uint64_t rows = survivors[q]; rows; rows &= rows - 1) {
          const int row = __builtin_ctzll(rows);
          const int64_t leaf = strip * kStripRows + row;
          if (leaf < screen.n_leaves)
            nearest[q].take(dots[q * kStripRows + row] + args.starts[row] + wanted,
                            static_cast<int32_t>(leaf));
        }
      }
    }
    for (int64_t q = 0; q < n; ++q)
      seeds_[static_cast<size_t>(first + q)].assign(nearest[q].leaves,
                                                    nearest[q].leaves + nearest[q].size);
  }
}

}  // namespace fastretrieve::cpu
