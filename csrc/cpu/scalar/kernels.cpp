// The plain version of every kernel. The others must equal it; it runs if the machine has none of
// them.
#include "cpu/kernels.hpp"

#include <cmath>
#include <cstring>

#include "core/number.hpp"
#include "core/screen.hpp"
#include "core/strip.hpp"

namespace fastretrieve::cpu {
namespace {

bool supported() { return true; }

#include "cpu/generic/hits.inl"

void dot_block(const uint8_t* block, const int8_t* query, int64_t groups, int32_t* sums) {
  for (int64_t g = 0; g < groups; ++g) {
    const uint8_t* codes = block + g * kGroupBytes;
    const int8_t* q = query + g * kGroupDims;
    for (int64_t row = 0; row < kBlockRows; ++row) {
      const uint8_t* x = codes + row * kGroupDims;
      sums[row] += x[0] * q[0] + x[1] * q[1] + x[2] * q[2] + x[3] * q[3];
    }
  }
}

uint64_t filter(const StripArgs& strip, int64_t query, const int32_t* dots) {
  const float reach = strip.reach[query], threshold = strip.threshold[query];
  uint64_t rows = 0;
  for (int64_t row = 0; row < kStripRows; ++row) {
    const float weight = std::fma(strip.ratio, strip.norm[row], strip.error[row]) * (1 + 0x1p-22f);
    float value = static_cast<float>(dots[row]) * strip.scale[row];
    value = std::fma(reach, weight, value);
    if (strip.half_square) value = std::fma(-strip.fall[query], strip.half_square[row], value);
    rows |= uint64_t{!(value < threshold)} << row;  // NaN survives
  }
  return rows;
}

void dot_strip(const CodeArgs& strip, int64_t query, int32_t* dots) {
  for (int64_t row = 0; row < kStripRows; ++row) dots[row] = strip.bias[query];
  for (int64_t block = 0; block < kBlocks; ++block) {
    dot_block(strip.codes + block * strip.groups * kGroupBytes,
              strip.queries + query * strip.groups * kGroupDims, strip.groups,
              dots + block * kBlockRows);
  }
}

void scan(const StripArgs& strip) {
  for (int64_t query = 0; query < strip.n_queries; ++query) {
    dot_strip(strip, query, strip.dots);
    hand_over(strip, query, filter(strip, query, strip.dots), strip.dots);
  }
}

#include "cpu/generic/boxes.inl"

void heads(const HeadArgs& leaf) {
  for (int64_t query = 0; query < leaf.n_queries; ++query) {
    int32_t* dots = leaf.dots + (leaf.keep_dots ? query * kStripRows : 0);
    dot_strip(leaf, query, dots);
    uint64_t rows = 0;
    for (int64_t row = 0; row < kStripRows; ++row)
      rows |= uint64_t{head_sum(dots[row], leaf.starts[row]) >= 0} << row;
    leaf.survivors[query] = rows;
  }
}

void records(const RecordArgs& args) {
  for (int64_t row = 0; row < args.n_rows; ++row) {
    int32_t dot = args.bias;
    for (int64_t d = 0; d < args.dim; ++d) dot += args.codes[row][d] * args.query[d];
    args.dots[row] = dot;
  }
}

struct Lanes {
  double v[kLanes];
};

template <class Operation>
inline Lanes each(const Operation& operation) {
  Lanes out;
  for (int lane = 0; lane < kLanes; ++lane) out.v[lane] = operation(lane);
  return out;
}
inline Lanes zero() { return {}; }
inline Lanes all(double v) {
  return each([&](int) { return v; });
}
inline Lanes add(const Lanes& a, const Lanes& b) {
  return each([&](int lane) { return a.v[lane] + b.v[lane]; });
}
inline Lanes subtract(const Lanes& a, const Lanes& b) {
  return each([&](int lane) { return a.v[lane] - b.v[lane]; });
}
inline Lanes multiply(const Lanes& a, const Lanes& b) {
  return each([&](int lane) { return a.v[lane] * b.v[lane]; });
}
inline Lanes divide(const Lanes& a, const Lanes& b) {
  return each([&](int lane) { return a.v[lane] / b.v[lane]; });
}
inline Lanes add_product(const Lanes& a, const Lanes& b, const Lanes& sum) {
  return each([&](int lane) { return sum.v[lane] + a.v[lane] * b.v[lane]; });
}
inline double tree(const double* l) {
  return ((l[0] + l[1]) + (l[2] + l[3])) + ((l[4] + l[5]) + (l[6] + l[7]));
}
inline double tree(const Lanes& lanes) { return tree(lanes.v); }

using Part = int64_t;  // elements left in the row; more than eight count as eight
inline Part part_of(int64_t n) { return n; }

template <DType kType>
inline double element(const void* row, int64_t i) {
  if (kType == DType::float32) return static_cast<const float*>(row)[i];
  const uint16_t bits = static_cast<const uint16_t*>(row)[i];
  return kType == DType::float16 ? half_to_float(bits) : bfloat16_to_float(bits);
}
template <DType kType>
inline Lanes load(const void* row, int64_t i, Part part) {
  return each([&](int lane) { return lane < part ? element<kType>(row, i + lane) : 0.0; });
}
inline Lanes load_wide(const double* x, int64_t i, Part part) {
  return each([&](int lane) { return lane < part ? x[i + lane] : 0.0; });
}
inline void store(float* out, int64_t i, Part part, const Lanes& lanes) {
  for (int lane = 0; lane < kLanes && lane < part; ++lane)
    out[i + lane] = static_cast<float>(lanes.v[lane]);
}
inline void store_wide(double* out, int64_t i, Part part, const Lanes& lanes) {
  for (int lane = 0; lane < kLanes && lane < part; ++lane) out[i + lane] = lanes.v[lane];
}

constexpr int64_t kRowsTogether = 1;
constexpr int kTileSide = 1;
inline void prefetch_row(const void*, int64_t) {}

#include "cpu/generic/rows.inl"

Survey survey(const float* x, int64_t dim) {
  double lanes[kLanes] = {};
  uint32_t max_bits = 0;
  for (int64_t i = 0; i < dim; ++i) {
    const double v = x[i];
    lanes[i % kLanes] += v * v;
    const uint32_t bits = bit_cast<uint32_t>(x[i]) & 0x7fffffffu;
    if (bits > max_bits) max_bits = bits;
  }
  return {tree(lanes), max_bits};
}

Quantised quantise(const float* x, int64_t dim, float to_code, double inverse, double scale,
                   int8_t* codes) {
  double lanes[kLanes] = {};
  int64_t square = 0, sum = 0;
  for (int64_t i = 0; i < dim; ++i) {
    const float scaled = std::nearbyint(x[i] * to_code);
    const int32_t code = static_cast<int32_t>(scaled > kMaxCode    ? kMaxCode
                                              : scaled < -kMaxCode ? -kMaxCode
                                                                   : scaled);
    codes[i] = static_cast<int8_t>(code);
    const double error = x[i] * inverse - scale * code;
    lanes[i % kLanes] += error * error;
    square += code * code;
    sum += code;
  }
  return {tree(lanes), square, sum};
}

uint64_t read_all(const uint8_t* data, int64_t n_bytes) {
  uint64_t sum = 0, word;
  for (int64_t i = 0; i + 8 <= n_bytes; i += 8) {
    std::memcpy(&word, data + i, sizeof word);
    sum ^= word;
  }
  return sum;
}

int64_t multiply_all(int64_t rounds, int32_t* sink) {
  constexpr int64_t kGroups = 64;
  static const uint8_t codes[kGroups * kGroupBytes] = {};
  static const int8_t query[kGroups * kGroupDims] = {};
  for (int64_t i = 0; i < rounds; ++i) dot_block(codes, query, kGroups, sink);
  return rounds * kGroups * kGroupBytes;
}

}  // namespace

const Kernels* scalar_kernels() {
  static const Kernels table = {
      "scalar", supported, scan,  heads,  test_boxes, records, 2.0,        score,    products,
      survey,   quantise,  widen, centre, square_sum, weigh,   divide_row, read_all, multiply_all};
  return &table;
}

}  // namespace fastretrieve::cpu
