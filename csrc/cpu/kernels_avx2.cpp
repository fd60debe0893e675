// AVX2. Codes are widened to 16 bits once a strip and multiplied in pairs: `vpmaddubsw` would
// saturate on codes that are stored with an offset. Sums of a row stay in two halves until the end
// of a block.
#include "cpu/kernels.hpp"

#if defined(__AVX2__)
#include <immintrin.h>

#include "core/strip.hpp"

namespace fastretrieve::cpu {
namespace {

constexpr int64_t kPrefetchBytes = 4096;

bool supported() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi2");
}

inline __m128i load128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }

// Four query codes as 16-bit numbers, four times.
inline __m256i broadcast_group(const int8_t* q) {
  int32_t four;
  __builtin_memcpy(&four, q, sizeof four);
  return _mm256_broadcastq_epi64(_mm_cvtepi8_epi16(_mm_cvtsi32_si128(four)));
}

// [a0+a1, b0+b1, c0+c1, d0+d1 | ...] of two registers that hold two halves of each of four rows.
inline __m256i join_halves(__m256i low, __m256i high) {
  return _mm256_permute4x64_epi64(_mm256_hadd_epi32(low, high), 0xd8);
}

template <int kQueries>
inline void dot_block(const uint8_t* block, const int8_t* queries, int64_t stride, int64_t groups,
                      const int32_t* bias, int32_t* dots) {
  __m256i sums[kQueries][4];
#pragma GCC unroll 2
  for (int q = 0; q < kQueries; ++q) {
#pragma GCC unroll 4
    for (int part = 0; part < 4; ++part) sums[q][part] = _mm256_setzero_si256();
  }
  for (int64_t g = 0; g < groups; ++g) {
    const uint8_t* p = block + g * kGroupBytes;
    _mm_prefetch(reinterpret_cast<const char*>(p) + kPrefetchBytes, _MM_HINT_T0);
    __m256i x[4];
#pragma GCC unroll 4
    for (int part = 0; part < 4; ++part) x[part] = _mm256_cvtepu8_epi16(load128(p + part * 16));
#pragma GCC unroll 2
    for (int q = 0; q < kQueries; ++q) {
      const __m256i four = broadcast_group(queries + q * stride + g * kGroupDims);
#pragma GCC unroll 4
      for (int part = 0; part < 4; ++part)
        sums[q][part] = _mm256_add_epi32(sums[q][part], _mm256_madd_epi16(x[part], four));
    }
  }
#pragma GCC unroll 2
  for (int q = 0; q < kQueries; ++q) {
    const __m256i start = _mm256_set1_epi32(bias[q]);
    __m256i* out = reinterpret_cast<__m256i*>(dots + q * kStripRows);
    _mm256_storeu_si256(out, _mm256_add_epi32(start, join_halves(sums[q][0], sums[q][1])));
    _mm256_storeu_si256(out + 1, _mm256_add_epi32(start, join_halves(sums[q][2], sums[q][3])));
  }
}

template <int kQueries>
void dot_strip(const ScanTile& tile, int64_t query) {
  for (int64_t b = 0; b < kBlocks; ++b) {
    dot_block<kQueries>(tile.codes + b * tile.groups * kGroupBytes,
                        tile.queries + query * tile.groups * kGroupDims, tile.groups * kGroupDims,
                        tile.groups, tile.bias + query, tile.dots + b * kBlockRows);
  }
}

uint64_t filter(const ScanTile& tile, int64_t query, const int32_t* dots) {
  const __m256 reach = _mm256_set1_ps(tile.reach[query]),
               threshold = _mm256_set1_ps(tile.threshold[query]);
  const __m256 ratio = _mm256_set1_ps(tile.ratio), up = _mm256_set1_ps(1 + 0x1p-22f);
  const __m256 fall = _mm256_set1_ps(tile.half_square ? tile.fall[query] : 0.0f);
  uint64_t rows = 0;
  for (int64_t at = 0; at < kStripRows; at += 8) {
    const __m256 weight = _mm256_mul_ps(
        _mm256_fmadd_ps(ratio, _mm256_loadu_ps(tile.norm + at), _mm256_loadu_ps(tile.error + at)),
        up);
    const __m256i dot = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(dots + at));
    __m256 value = _mm256_mul_ps(_mm256_cvtepi32_ps(dot), _mm256_loadu_ps(tile.scale + at));
    value = _mm256_fmadd_ps(reach, weight, value);
    if (tile.half_square)
      value = _mm256_fnmadd_ps(fall, _mm256_loadu_ps(tile.half_square + at), value);
    const int keep =
        _mm256_movemask_ps(_mm256_cmp_ps(value, threshold, _CMP_NLT_UQ));  // NaN survives
    rows |= uint64_t{static_cast<unsigned>(keep)} << at;
  }
  return rows;
}

void report(const ScanTile& tile, int64_t query, const int32_t* dots) {
  uint64_t rows = filter(tile, query, dots) & tile.allowed;
  if (rows && tile.where) rows &= tile.where[query * tile.where_stride];
  if (rows) tile.on_hit(tile.context, query, rows, dots);
}

void scan(const ScanTile& tile) {
  int64_t query = 0;
  for (; query + 2 <= tile.n_queries; query += 2) {
    dot_strip<2>(tile, query);
    report(tile, query, tile.dots);
    report(tile, query + 1, tile.dots + kStripRows);
  }
  if (query < tile.n_queries) {
    dot_strip<1>(tile, query);
    report(tile, query, tile.dots);
  }
}

// Eight lanes of float64.
struct Lanes {
  __m256d low, high;
};

inline Lanes zero() { return {_mm256_setzero_pd(), _mm256_setzero_pd()}; }
inline Lanes add(Lanes a, Lanes b) {
  return {_mm256_add_pd(a.low, b.low), _mm256_add_pd(a.high, b.high)};
}
inline Lanes subtract(Lanes a, Lanes b) {
  return {_mm256_sub_pd(a.low, b.low), _mm256_sub_pd(a.high, b.high)};
}
inline Lanes multiply(Lanes a, Lanes b) {
  return {_mm256_mul_pd(a.low, b.low), _mm256_mul_pd(a.high, b.high)};
}
inline Lanes divide(Lanes a, Lanes b) {
  return {_mm256_div_pd(a.low, b.low), _mm256_div_pd(a.high, b.high)};
}
inline Lanes all(double v) { return {_mm256_set1_pd(v), _mm256_set1_pd(v)}; }
inline Lanes add_product(Lanes a, Lanes b, Lanes sum) {
  return {_mm256_fmadd_pd(a.low, b.low, sum.low), _mm256_fmadd_pd(a.high, b.high, sum.high)};
}
inline Lanes from_float(__m256 v) {
  return {_mm256_cvtps_pd(_mm256_castps256_ps128(v)), _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1))};
}
inline __m256 to_float(Lanes v) {
  return _mm256_set_m128(_mm256_cvtpd_ps(v.high), _mm256_cvtpd_ps(v.low));
}
inline double tree(Lanes v) {
  alignas(32) double l[kLanes];
  _mm256_store_pd(l, v.low);
  _mm256_store_pd(l + 4, v.high);
  return ((l[0] + l[1]) + (l[2] + l[3])) + ((l[4] + l[5]) + (l[6] + l[7]));
}

template <DType kType>
inline __m256 load8(const void* row, int64_t i) {
  if (kType == DType::float32) return _mm256_loadu_ps(static_cast<const float*>(row) + i);
  const __m128i bits = load128(static_cast<const uint16_t*>(row) + i);
  if (kType == DType::float16) return _mm256_cvtph_ps(bits);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

// Elements i to i+7 of a row; those past the end are +0, which changes no lane.
template <DType kType>
inline __m256 load(const void* row, int64_t i, int64_t dim) {
  if (i + kLanes <= dim) return load8<kType>(row, i);
  constexpr int64_t size = kType == DType::float32 ? 4 : 2;
  alignas(32) char padded[kLanes * 4] = {};
  __builtin_memcpy(padded, static_cast<const char*>(row) + i * size,
                   static_cast<size_t>((dim - i) * size));
  return load8<kType>(padded, 0);
}

inline void store(float* out, int64_t i, int64_t dim, __m256 v) {
  if (i + kLanes <= dim) return _mm256_storeu_ps(out + i, v);
  alignas(32) float padded[kLanes];
  _mm256_store_ps(padded, v);
  __builtin_memcpy(out + i, padded, static_cast<size_t>(dim - i) * sizeof(float));
}

inline Lanes load_wide(const double* x, int64_t i, int64_t dim) {
  if (i + kLanes <= dim) return {_mm256_loadu_pd(x + i), _mm256_loadu_pd(x + i + 4)};
  alignas(32) double padded[kLanes] = {};
  __builtin_memcpy(padded, x + i, static_cast<size_t>(dim - i) * sizeof(double));
  return {_mm256_load_pd(padded), _mm256_load_pd(padded + 4)};
}

inline void store_wide(double* out, int64_t i, int64_t dim, Lanes v) {
  alignas(32) double padded[kLanes];
  _mm256_store_pd(padded, v.low);
  _mm256_store_pd(padded + 4, v.high);
  __builtin_memcpy(out + i, padded,
                   static_cast<size_t>(dim - i < kLanes ? dim - i : kLanes) * sizeof(double));
}

template <DType kType, Sums kWhat>
void score_row(const ScoreArgs& args, int64_t row) {
  Lanes sum = zero(), square = zero();
  for (int64_t i = 0; i < args.dim; i += kLanes) {
    const Lanes q = from_float(load<DType::float32>(args.query, i, args.dim));
    const Lanes x = from_float(load<kType>(args.rows[row], i, args.dim));
    if (kWhat == Sums::squared_difference) {
      const Lanes difference = subtract(q, x);
      sum = add(sum, multiply(difference, difference));
    } else {
      sum = add_product(q, x, sum);  // the product is exact, so fusing changes nothing
      if (kWhat == Sums::product_and_square) square = add_product(x, x, square);
    }
  }
  args.sums[row] = tree(sum);
  if (kWhat == Sums::product_and_square) args.squares[row] = tree(square);
}

template <DType kType>
void score_typed(const ScoreArgs& args) {
  for (int64_t row = 0; row < args.n_rows; ++row) {
    switch (args.what) {
      case Sums::product:
        score_row<kType, Sums::product>(args, row);
        break;
      case Sums::product_and_square:
        score_row<kType, Sums::product_and_square>(args, row);
        break;
      case Sums::squared_difference:
        score_row<kType, Sums::squared_difference>(args, row);
        break;
    }
  }
}

void score(const ScoreArgs& args) {
  switch (args.dtype) {
    case DType::float32:
      return score_typed<DType::float32>(args);
    case DType::float16:
      return score_typed<DType::float16>(args);
    case DType::bfloat16:
      return score_typed<DType::bfloat16>(args);
  }
}

Survey survey(const float* x, int64_t dim) {
  Lanes sum = zero();
  __m256i largest = _mm256_setzero_si256();
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  for (int64_t i = 0; i < dim; i += kLanes) {
    const __m256 v = load<DType::float32>(x, i, dim);
    const Lanes wide = from_float(v);
    sum = add_product(wide, wide, sum);
    largest = _mm256_max_epu32(largest, _mm256_and_si256(_mm256_castps_si256(v), magnitude));
  }
  alignas(32) uint32_t bits[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(bits), largest);
  uint32_t max_bits = 0;
  for (uint32_t b : bits) max_bits = b > max_bits ? b : max_bits;
  return {tree(sum), max_bits};
}

Quantised quantise(const float* x, int64_t dim, float to_code, double inverse, double scale,
                   int8_t* codes) {
  const __m256 factor = _mm256_set1_ps(to_code), most = _mm256_set1_ps(kMaxCode),
               least = _mm256_set1_ps(-kMaxCode);
  Lanes errors = zero();
  int64_t square = 0, sum = 0;
  for (int64_t i = 0; i < dim; i += kLanes) {
    const __m256 v = load<DType::float32>(x, i, dim);
    const __m256i code =
        _mm256_cvtps_epi32(_mm256_max_ps(_mm256_min_ps(_mm256_mul_ps(v, factor), most), least));
    const Lanes decoded = {_mm256_cvtepi32_pd(_mm256_castsi256_si128(code)),
                           _mm256_cvtepi32_pd(_mm256_extracti128_si256(code, 1))};
    const Lanes error =
        subtract(multiply(from_float(v), all(inverse)), multiply(decoded, all(scale)));
    errors = add(errors, multiply(error, error));
    alignas(32) int32_t eight[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(eight), code);
    const int64_t n = dim - i < kLanes ? dim - i : kLanes;
    for (int64_t j = 0; j < n; ++j) {
      codes[i + j] = static_cast<int8_t>(eight[j]);
      square += eight[j] * eight[j];
      sum += eight[j];
    }
  }
  return {tree(errors), square, sum};
}

void widen(const void* x, DType dtype, int64_t dim, float* out) {
  for (int64_t i = 0; i < dim; i += kLanes) {
    switch (dtype) {
      case DType::float32:
        store(out, i, dim, load<DType::float32>(x, i, dim));
        break;
      case DType::float16:
        store(out, i, dim, load<DType::float16>(x, i, dim));
        break;
      case DType::bfloat16:
        store(out, i, dim, load<DType::bfloat16>(x, i, dim));
        break;
    }
  }
}

void centre(const float* x, const float* mean, int64_t dim, double* out) {
  for (int64_t i = 0; i < dim; i += kLanes) {
    Lanes v = from_float(load<DType::float32>(x, i, dim));
    if (mean) v = subtract(v, from_float(load<DType::float32>(mean, i, dim)));
    store_wide(out, i, dim, v);
  }
}

double square_sum(const double* x, int64_t dim) {
  Lanes sum = zero();
  for (int64_t i = 0; i < dim; i += kLanes) {
    const Lanes v = load_wide(x, i, dim);
    sum = add(sum, multiply(v, v));
  }
  return tree(sum);
}

void weigh(double* x, int64_t dim, double norm, double weight) {
  for (int64_t i = 0; i < dim; i += kLanes)
    store_wide(x, i, dim, multiply(divide(load_wide(x, i, dim), all(norm)), all(weight)));
}

void divide_row(const double* x, int64_t dim, double norm, float* out) {
  for (int64_t i = 0; i < dim; i += kLanes)
    store(out, i, dim, to_float(divide(load_wide(x, i, dim), all(norm))));
}

uint64_t read_all(const uint8_t* data, int64_t n_bytes) {
  __m256i sums[4] = {};
  for (int64_t i = 0; i + 128 <= n_bytes; i += 128) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      if (j % 2 == 0)
        _mm_prefetch(reinterpret_cast<const char*>(data) + i + j * 32 + kPrefetchBytes,
                     _MM_HINT_T0);
      const __m256i* p = reinterpret_cast<const __m256i*>(data + i + j * 32);
      sums[j] = _mm256_xor_si256(sums[j], _mm256_loadu_si256(p));
    }
  }
  const __m256i all =
      _mm256_xor_si256(_mm256_xor_si256(sums[0], sums[1]), _mm256_xor_si256(sums[2], sums[3]));
  return static_cast<uint64_t>(_mm256_extract_epi64(all, 0) ^ _mm256_extract_epi64(all, 3));
}

int64_t multiply_all(int64_t rounds, int32_t* sink) {
  constexpr int kChains = 12;
  __m256i sums[kChains];
  __m256i x = _mm256_set1_epi32(sink[0]);
#pragma GCC unroll 12
  for (int c = 0; c < kChains; ++c) sums[c] = _mm256_set1_epi32(c);
  for (int64_t i = 0; i < rounds; ++i) {
    asm volatile("" : "+x"(x));  // keeps the loop: its operands may have changed
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) sums[c] = _mm256_add_epi32(sums[c], _mm256_madd_epi16(x, x));
  }
#pragma GCC unroll 12
  for (int c = 1; c < kChains; ++c) sums[0] = _mm256_add_epi32(sums[0], sums[c]);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(sink), sums[0]);
  return rounds * kChains * 16;
}

}  // namespace

const Kernels* avx2_kernels() {
  static const Kernels table = {"avx2", supported,  scan,  score,      survey,   quantise,    widen,
                                centre, square_sum, weigh, divide_row, read_all, multiply_all};
  return &table;
}

}  // namespace fastretrieve::cpu

#else

namespace fastretrieve::cpu {
const Kernels* avx2_kernels() { return nullptr; }
}  // namespace fastretrieve::cpu

#endif
