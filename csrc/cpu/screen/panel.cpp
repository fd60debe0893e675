#include "cpu/screen/panel.hpp"

#include <algorithm>
#include <cmath>

#include "core/bound.hpp"
#include "cpu/screen/project.hpp"

namespace fastretrieve::cpu {

// So few queries read the basis as it is, which is half as large as `HeadMap::wide`.
constexpr int64_t kFewQueries = 4;

HeadPanel::HeadPanel(const Kernels& kernels, const Screen& screen, const EncodedQueries& queries,
                     int64_t first, int64_t n_queries, Cancel& cancel)
    : kernels_(kernels), screen_(screen), head_dim_(screen.map.head_dim) {
  const size_t n = static_cast<size_t>(n_queries);
  heads_.resize(n);
  heads_of_.resize(n * static_cast<size_t>(head_dim_));
  codes_.resize(n * static_cast<size_t>(head_dim_));
  points_.resize(n * kBoxAxes);
  seeds_.resize(n);
  Projector project(kernels, screen.map);
  const double* const norms = queries.norms.data() + first;
  std::vector<double> slack(n);
  if (n_queries < kFewQueries) {
    for (int64_t q = 0; q < n_queries; ++q)
      slack[static_cast<size_t>(q)] =
          project(queries.row(first + q), norms[q], Role::query, heads_of_.data() + q * head_dim_);
  } else {
    std::vector<const float*> rows;
    for (int64_t q = 0; q < n_queries; ++q) rows.push_back(queries.row(first + q));
    cancel.check();
    project.many(rows.data(), norms, n_queries, Role::query, heads_of_.data(), slack.data());
  }
  for (int64_t q = 0; q < n_queries; ++q)
    encode(screen, q, heads_of_.data() + q * head_dim_, slack[static_cast<size_t>(q)]);
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
  head.off = std::sqrt(error) * (1 + 0x1p-40);
  head.error = head.off + slack;
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

double HeadPanel::distance_beyond(int64_t query, float box_square) const {
  const Head& head = heads_[static_cast<size_t>(query)];
  const HeadMap& map = screen_.map;
  const double apart = std::sqrt(double{box_square}) * (1 - 0x1p-18) - head.box_slack;
  if (!(apart > 0)) return 0;  // also where the slack is infinite
  return apart / (map.axes_lipschitz * map.lipschitz) * (1 - 0x1p-40);
}

HeadArgs HeadPanel::for_products(int64_t first, int64_t n, const int32_t* bias, uint64_t* survivors,
                                 int32_t* dots) const {
  HeadArgs args{};
  args.groups = LeafLayout(head_dim_).groups;
  args.queries = codes(first);
  args.bias = bias;
  args.n_queries = n;
  args.survivors = survivors;
  args.dots = dots;
  args.keep_dots = true;
  return args;
}

void HeadPanel::rank_leaves(int64_t first, int64_t n, std::vector<int32_t>& values) const {
  const LeafLayout layout(head_dim_);
  const int64_t n_values = ranked_leaves();
  values.resize(static_cast<size_t>(n * n_values));
  int32_t bias[kStreamQueries], dots[kStreamQueries * kStripRows];
  uint64_t unused[kStreamQueries];
  for (int64_t q = 0; q < n; ++q)
    bias[q] = static_cast<int32_t>(-kCodeOffset * heads_[static_cast<size_t>(first + q)].code_sum);
  HeadArgs args = for_products(first, n, bias, unused, dots);
  for (int64_t strip = 0; strip * kStripRows < n_values; ++strip) {
    args.codes = screen_.centres + strip * layout.bytes();
    args.starts = layout.starts(args.codes);
    kernels_.heads(args);
    for (int64_t q = 0; q < n; ++q)
      for (int64_t row = 0; row < kStripRows; ++row)
        values[static_cast<size_t>(q * n_values + strip * kStripRows + row)] =
            head_sum(dots[q * kStripRows + row], args.starts[row]);
  }
}

double HeadPanel::leaf_distance(int64_t query, int64_t leaf) const {
  const LeafLayout layout(head_dim_);
  const uint8_t* codes =
      screen_.centres + leaf / kStripRows * layout.bytes() + layout.code_at(leaf % kStripRows, 0);
  const double* z = heads_of_.data() + query * head_dim_;
  double squares[kGroupDims] = {};  // the numbers of a group side by side
  for (int64_t g = 0; g < layout.groups; ++g, codes += kGroupBytes, z += kGroupDims) {
    for (int64_t d = 0; d < kGroupDims; ++d) {
      const double off = z[d] - screen_.step * (codes[d] - kCodeOffset);
      squares[d] += off * off;
    }
  }
  return (squares[0] + squares[1]) + (squares[2] + squares[3]);
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

void HeadPanel::find_seeds(Cancel& cancel) {
  const Screen& screen = screen_;
  const LeafLayout layout(head_dim_);
  const int64_t n_strips = (screen.n_leaves + kStripRows - 1) / kStripRows;
  int32_t dots[kStreamQueries * kStripRows];
  for (int64_t first = 0; first < n_queries(); first += kStreamQueries) {
    const int64_t n = std::min(kStreamQueries, n_queries() - first);
    Nearest nearest[kStreamQueries];
    int32_t bias[kStreamQueries];
    uint64_t survivors[kStreamQueries];
    HeadArgs args = for_products(first, n, bias, survivors, dots);
    for (int64_t strip = 0; strip < n_strips; ++strip) {
      cancel.check();
      for (int64_t q = 0; q < n; ++q)
        bias[q] = static_cast<int32_t>(
            -nearest[q].wanted() - kCodeOffset * heads_[static_cast<size_t>(first + q)].code_sum);
      args.codes = screen.centres + strip * layout.bytes();
      args.starts = layout.starts(args.codes);
      kernels_.heads(args);
      for (int64_t q = 0; q < n; ++q) {
        const int64_t wanted = nearest[q].wanted();
        for (uint64_t rows = survivors[q]; rows; rows &= rows - 1) {
          const int row = __builtin_ctzll(rows);
          const int64_t leaf = strip * kStripRows + row;
          if (leaf < screen.n_leaves)
            nearest[q].take(int64_t{dots[q * kStripRows + row]} + args.starts[row] + wanted,
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
