#include "cpu/screen/build.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <numeric>

#include "core/bound.hpp"
#include "core/check.hpp"
#include "cpu/pool.hpp"

namespace fastretrieve::cpu {

namespace {

constexpr int64_t kSampleOfPart = 128;  // rows that choose the axis of a part

struct Part {
  int32_t *begin, *end;
  int64_t size() const { return end - begin; }
};

int64_t widest_axis(const float* points, int64_t n_axes, const Part& part) {
  const int64_t step = std::max<int64_t>(1, part.size() / kSampleOfPart);
  int64_t widest = 0;
  double most = -1;
  for (int64_t axis = 0; axis < n_axes; ++axis) {
    double sum = 0, squares = 0, n = 0;
    for (const int32_t* row = part.begin; row < part.end; row += std::min(step, part.end - row)) {
      const double v = points[*row * n_axes + axis];
      sum += v;
      squares += v * v;
      ++n;
    }
    const double variance = squares / n - sum / n * (sum / n);
    if (variance > most) {
      most = variance;
      widest = axis;
    }
  }
  return widest;
}

// Cuts a part in two; equal coordinates are in order of row, so that one order comes out
// everywhere.
int32_t* cut(const float* points, int64_t n_axes, const Part& part) {
  const int64_t axis = widest_axis(points, n_axes, part);
  const int64_t half = (part.size() / 2 + kStripRows - 1) / kStripRows * kStripRows;
  int32_t* const middle = part.begin + std::min(half, (part.size() - 1) / kStripRows * kStripRows);
  std::nth_element(part.begin, middle, part.end, [=](int32_t a, int32_t b) {
    const float x = points[a * n_axes + axis], y = points[b * n_axes + axis];
    return x != y ? x < y : a < b;
  });
  return middle;
}

void order_part(const float* points, int64_t n_axes, Part part, Cancel& cancel) {
  while (part.size() > kStripRows) {
    cancel.check();
    int32_t* const middle = cut(points, n_axes, part);
    order_part(points, n_axes, {part.begin, middle}, cancel);
    part.begin = middle;
  }
}

// One row of a leaf: codes of its head, and whether they describe it.
struct HeadCode {
  int64_t square = 0;
  bool described = false;
};

HeadCode encode_head(const PackArgs& args, int64_t row, int8_t* codes) {
  const int64_t n = args.map.head_dim;
  const float* z = args.heads + row * n;
  HeadCode head;
  double error = 0;
  for (int64_t d = 0; d < n; ++d) {
    const double code = std::nearbyint(std::min(std::max(z[d] / args.step, -127.0), 127.0));
    const double off = z[d] - args.step * code;
    error += off * off;
    codes[d] = static_cast<int8_t>(code);
    head.square += codes[d] * codes[d];
  }
  head.described = std::sqrt(error) * (1 + 0x1p-40) + double{args.slack[row]} <= args.error;
  return head;
}

void put_row(const LeafLayout& layout, int64_t head_dim, const int8_t* codes, int32_t start,
             int64_t row, uint8_t* leaf) {
  for (int64_t d = 0; d < head_dim; ++d)
    leaf[layout.code_at(row, d)] = static_cast<uint8_t>(codes[d] + kCodeOffset);
  layout.starts(leaf)[row] = start;
}

// The box of a leaf, rounded outwards.
class Box {
 public:
  Box(const PackArgs& args, int64_t leaf)
      : args_(args),
        box_(args.boxes + leaf / kBoxLeaves * kBoxAxes * 2 * kBoxLeaves + leaf % kBoxLeaves) {
    const int64_t n = args.map.head_dim;
    turned_.resize(static_cast<size_t>(n * kBoxAxes));
    for (int64_t axis = 0; axis < kBoxAxes; ++axis) {
      set(axis, HUGE_VALF, -HUGE_VALF);  // nothing
      for (int64_t d = 0; d < n; ++d)
        turned_[static_cast<size_t>(d * kBoxAxes + axis)] = args.map.axes[axis * n + d];
    }
  }
  void hold(int64_t row) {
    const int64_t n = args_.map.head_dim;
    const float* z = args_.heads + row * n;
    const double slack = double{args_.slack[row]} * args_.map.axes_lipschitz;
    double at[kBoxAxes] = {}, size[kBoxAxes] = {};  // all axes together, as vectors
    for (int64_t d = 0; d < n; ++d) {
      const double* const axes = turned_.data() + d * kBoxAxes;
      for (int64_t axis = 0; axis < kBoxAxes; ++axis) {
        const double part = axes[axis] * z[d];
        at[axis] += part;
        size[axis] += std::fabs(part);
      }
    }
    for (int64_t axis = 0; axis < kBoxAxes; ++axis) {
      const double reach = slack + 0x1p-40 * size[axis];
      set(axis, std::min(low(axis), round_down(at[axis] - reach)),
          std::max(high(axis), round_up(at[axis] + reach)));
    }
  }

 private:
  float& low(int64_t axis) { return box_[axis * 2 * kBoxLeaves]; }
  float& high(int64_t axis) { return box_[(axis * 2 + 1) * kBoxLeaves]; }
  void set(int64_t axis, float least, float most) {
    low(axis) = least;
    high(axis) = most;
  }

  const PackArgs& args_;
  float* const box_;
  std::vector<double> turned_;  // [head_dim, kBoxAxes]
};

int64_t pack_leaf(const PackArgs& args, int64_t leaf) {
  const LeafLayout layout(args.map.head_dim);
  const int64_t n = args.map.head_dim;
  std::vector<int8_t> codes(static_cast<size_t>(n));
  std::vector<double> sums(static_cast<size_t>(n));
  Box box(args, leaf);
  uint8_t* const out = args.leaves + leaf * layout.bytes();
  int64_t always = 0, described = 0;
  for (int64_t row = 0; row < kStripRows; ++row) {
    const int64_t at = leaf * kStripRows + row;
    if (at >= args.n_rows) {
      std::fill(codes.begin(), codes.end(), int8_t{0});
      put_row(layout, n, codes.data(), kNever, row, out);
      continue;
    }
    const HeadCode head = encode_head(args, args.order[at], codes.data());
    box.hold(args.order[at]);
    always += !head.described;
    described += head.described;
    for (size_t d = 0; head.described && d < sums.size(); ++d) sums[d] += codes[d];
    const int32_t start = head.described ? static_cast<int32_t>(-(head.square / 2)) : kAlways;
    put_row(layout, n, codes.data(), start, row, out);
  }
  int64_t square = 0;
  for (size_t d = 0; d < sums.size(); ++d) {
    codes[d] = static_cast<int8_t>(
        std::nearbyint(sums[d] / static_cast<double>(std::max<int64_t>(described, 1))));
    square += codes[d] * codes[d];
  }
  uint8_t* const centres = args.centres + leaf / kStripRows * layout.bytes();
  put_row(layout, n, codes.data(), static_cast<int32_t>(-(square / 2)), leaf % kStripRows, centres);
  return always;
}

}  // namespace

void order_leaves(const float* points, int64_t n_rows, int64_t n_axes, int32_t* order,
                  Cancel& cancel) {
  std::iota(order, order + n_rows, int32_t{0});
  std::vector<Part> parts = {{order, order + n_rows}};
  const size_t enough = 4 * static_cast<size_t>(num_threads());
  while (parts.size() < enough) {
    std::vector<Part> next;
    for (const Part& part : parts) {
      cancel.check_now();
      if (part.size() <= kStripRows) {
        next.push_back(part);
        continue;
      }
      int32_t* const middle = cut(points, n_axes, part);
      next.push_back({part.begin, middle});
      next.push_back({middle, part.end});
    }
    if (next.size() == parts.size()) break;
    parts = std::move(next);
  }
  const auto task = [&](int64_t i, int) {
    order_part(points, n_axes, parts[static_cast<size_t>(i)], cancel);
  };
  parallel(static_cast<int64_t>(parts.size()), num_threads(), task, cancel);
}

int64_t pack_leaves(const PackArgs& args, Cancel& cancel) {
  const LeafLayout layout(args.map.head_dim);
  const int64_t n_leaves = (args.n_rows + kStripRows - 1) / kStripRows;
  // Leaves that fill up the last strip of centres, and the last group of boxes, hold nothing.
  const std::vector<int8_t> none(static_cast<size_t>(args.map.head_dim));
  for (int64_t leaf = n_leaves; leaf % kStripRows != 0; ++leaf)
    put_row(layout, args.map.head_dim, none.data(), kNever, leaf % kStripRows,
            args.centres + leaf / kStripRows * layout.bytes());
  for (int64_t leaf = n_leaves; leaf % kBoxLeaves != 0; ++leaf) Box(args, leaf);
  constexpr int64_t kLeavesPerTask = 16;
  std::atomic<int64_t> always{0};
  const auto task = [&](int64_t index, int) {
    const int64_t end = std::min((index + 1) * kLeavesPerTask, n_leaves);
    for (int64_t leaf = index * kLeavesPerTask; leaf < end; ++leaf) always += pack_leaf(args, leaf);
  };
  parallel((n_leaves + kLeavesPerTask - 1) / kLeavesPerTask, num_threads(), task, cancel);
  return always;
}

void copy_record(const StripLayout& strips, const RecordLayout& layout, const Segment& segment,
                 int64_t row, uint8_t* record) {
  const uint8_t* strip = segment.codes + row / kStripRows * strips.bytes();
  const int64_t r = row % kStripRows;
  float bounds[8] = {strips.plane(strip, kScale)[r],
                     strips.plane(strip, kError)[r],
                     strips.plane(strip, kNorm)[r],
                     0,
                     0,
                     HUGE_VALF,
                     0,
                     0};
  if (strips.planes > kHalfSquare) bounds[3] = strips.plane(strip, kHalfSquare)[r];
  if (strips.has_squares) {
    bounds[4] = strips.squares(strip)[0];
    bounds[5] = strips.squares(strip)[1];
  }
  std::memcpy(record, bounds, static_cast<size_t>(layout.codes_at()));
  uint8_t* const codes = record + layout.codes_at();
  for (int64_t g = 0; g < strips.groups; ++g)
    std::memcpy(codes + g * kGroupDims, strip + strips.code_at(r, g * kGroupDims), kGroupDims);
  std::memset(codes + layout.padded_dim, kCodeOffset,
              static_cast<size_t>(layout.bytes() - layout.codes_at() - layout.padded_dim));
}

void copy_records(const Places& where, int64_t dim, Metric metric, const int32_t* places,
                  int64_t n_places, uint8_t* records, Cancel& cancel) {
  const StripLayout strips(dim, metric);
  const RecordLayout layout(dim, metric);
  constexpr int64_t kPerTask = 1024;
  const auto task = [&](int64_t index, int) {
    const int64_t end = std::min((index + 1) * kPerTask, n_places);
    for (int64_t i = index * kPerTask; i < end; ++i) {
      uint8_t* const record = records + i * layout.bytes();
      if (places[i] < 0) {
        std::memset(record, 0, static_cast<size_t>(layout.bytes()));
        continue;
      }
      const Places::At at = where.find(places[i]);
      const Segment& segment = where.segments[at.segment];
      FR_CHECK(0 <= at.row && at.row < segment.n_strips * kStripRows, "slot ", places[i],
               " is no row of a whole strip");
      copy_record(strips, layout, segment, at.row, record);
    }
  };
  parallel((n_places + kPerTask - 1) / kPerTask, num_threads(), task, cancel);
}

}  // namespace fastretrieve::cpu
