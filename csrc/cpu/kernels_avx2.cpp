// AVX2: the eight lanes of a canonical sum are two registers. scan_avx2.cpp walks the codes.
#include "cpu/kernels.hpp"

#if defined(__AVX2__)
#include <immintrin.h>

#include "core/strip.hpp"

namespace fastretrieve::cpu {
namespace {

bool supported() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi2");
}

inline __m128i load128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }

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

}  // namespace

const Kernels* avx2_kernels() {
  static const Kernels table = {
      "avx2", supported,  avx2::scan, score,      survey,         quantise,          widen,
      centre, square_sum, weigh,      divide_row, avx2::read_all, avx2::multiply_all};
  return &table;
}

}  // namespace fastretrieve::cpu

#else

namespace fastretrieve::cpu {
const Kernels* avx2_kernels() { return nullptr; }
}  // namespace fastretrieve::cpu

#endif
