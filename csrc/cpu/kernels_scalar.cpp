// The plain version of every kernel: what the others must equal, and what runs where nothing better
// is known.
#include <cmath>
#include <cstring>

#include "core/number.hpp"
#include "core/strip.hpp"
#include "cpu/kernels.hpp"

namespace fastretrieve::cpu {
namespace {

bool supported() { return true; }

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

uint64_t filter(const ScanTile& tile, int64_t query, const int32_t* dots) {
  const float reach = tile.reach[query], threshold = tile.threshold[query];
  uint64_t rows = 0;
  for (int64_t row = 0; row < kStripRows; ++row) {
    const float weight = std::fma(tile.ratio, tile.norm[row], tile.error[row]) * (1 + 0x1p-22f);
    float value = static_cast<float>(dots[row]) * tile.scale[row];
    value = std::fma(reach, weight, value);
    if (tile.half_square) value = std::fma(-tile.fall[query], tile.half_square[row], value);
    rows |= uint64_t{!(value < threshold)} << row;  // NaN survives
  }
  return rows;
}

void scan(const ScanTile& tile) {
  for (int64_t query = 0; query < tile.n_queries; ++query) {
    int32_t* dots = tile.dots;
    for (int64_t row = 0; row < kStripRows; ++row) dots[row] = tile.bias[query];
    for (int64_t block = 0; block < kBlocks; ++block) {
      dot_block(tile.codes + block * tile.groups * kGroupBytes,
                tile.queries + query * tile.groups * kGroupDims, tile.groups,
                dots + block * kBlockRows);
    }
    uint64_t rows = filter(tile, query, dots) & tile.allowed;
    if (tile.where) rows &= tile.where[query * tile.where_stride];
    if (rows) tile.on_hit(tile.context, query, rows, dots);
  }
}

double tree(const double* l) {
  return ((l[0] + l[1]) + (l[2] + l[3])) + ((l[4] + l[5]) + (l[6] + l[7]));
}

struct Float32 {
  const float* x;
  float operator[](int64_t i) const { return x[i]; }
};
struct Float16 {
  const uint16_t* x;
  float operator[](int64_t i) const { return half_to_float(x[i]); }
};
struct Bfloat16 {
  const uint16_t* x;
  float operator[](int64_t i) const { return bfloat16_to_float(x[i]); }
};

template <class Row>
void score_row(const ScoreArgs& args, const Row x, double* sum, double* square) {
  double lanes[kLanes] = {}, squares[kLanes] = {};
  for (int64_t i = 0; i < args.dim; ++i) {
    const double q = args.query[i], v = x[i];
    if (args.what == Sums::squared_difference) {
      const double difference = q - v;
      lanes[i % kLanes] += difference * difference;
    } else {
      lanes[i % kLanes] += q * v;
      squares[i % kLanes] += v * v;
    }
  }
  *sum = tree(lanes);
  if (args.what == Sums::product_and_square) *square = tree(squares);
}

void score(const ScoreArgs& args) {
  for (int64_t i = 0; i < args.n_rows; ++i) {
    double* sum = args.sums + i;
    double* square = args.what == Sums::product_and_square ? args.squares + i : nullptr;
    switch (args.dtype) {
      case DType::float32:
        score_row(args, Float32{static_cast<const float*>(args.rows[i])}, sum, square);
        break;
      case DType::float16:
        score_row(args, Float16{static_cast<const uint16_t*>(args.rows[i])}, sum, square);
        break;
      case DType::bfloat16:
        score_row(args, Bfloat16{static_cast<const uint16_t*>(args.rows[i])}, sum, square);
        break;
    }
  }
}

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

void widen(const void* x, DType dtype, int64_t dim, float* out) {
  const uint16_t* bits = static_cast<const uint16_t*>(x);
  switch (dtype) {
    case DType::float32:
      std::memcpy(out, x, static_cast<size_t>(dim) * sizeof(float));
      break;
    case DType::float16:
      for (int64_t i = 0; i < dim; ++i) out[i] = half_to_float(bits[i]);
      break;
    case DType::bfloat16:
      for (int64_t i = 0; i < dim; ++i) out[i] = bfloat16_to_float(bits[i]);
      break;
  }
}

void centre(const float* x, const float* mean, int64_t dim, double* out) {
  for (int64_t i = 0; i < dim; ++i) out[i] = mean ? double{x[i]} - double{mean[i]} : double{x[i]};
}

double square_sum(const double* x, int64_t dim) {
  double lanes[kLanes] = {};
  for (int64_t i = 0; i < dim; ++i) lanes[i % kLanes] += x[i] * x[i];
  return tree(lanes);
}

void weigh(double* x, int64_t dim, double norm, double weight) {
  for (int64_t i = 0; i < dim; ++i) x[i] = x[i] / norm * weight;
}

void divide(const double* x, int64_t dim, double norm, float* out) {
  for (int64_t i = 0; i < dim; ++i) out[i] = static_cast<float>(x[i] / norm);
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
  static const Kernels table = {"scalar", supported,  scan,  score,  survey,   quantise,    widen,
                                centre,   square_sum, weigh, divide, read_all, multiply_all};
  return &table;
}

}  // namespace fastretrieve::cpu
