// AVX2: the eight lanes of a canonical sum are two registers. scan.cpp is the scan.
#include "cpu/kernels.hpp"

#include <cpuid.h>
#include <immintrin.h>

#include "core/strip.hpp"

namespace fastretrieve::cpu {
namespace {

#include "cpu/generic/x86.inl"

bool supported() { return running_processor().has_avx2(); }

inline __m128i load128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }

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

using Part = int64_t;  // elements left in the row; more than eight count as eight
inline Part part_of(int64_t n) { return n; }

template <DType kType>
inline __m256 load8(const void* row, int64_t i) {
  if (kType == DType::float32) return _mm256_loadu_ps(static_cast<const float*>(row) + i);
  const __m128i bits = load128(static_cast<const uint16_t*>(row) + i);
  if (kType == DType::float16) return _mm256_cvtph_ps(bits);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

template <DType kType>
inline __m256 load_float(const void* row, int64_t i, Part part) {
  if (part >= kLanes) return load8<kType>(row, i);
  constexpr int64_t size = kType == DType::float32 ? 4 : 2;
  alignas(32) char padded[kLanes * 4] = {};
  __builtin_memcpy(padded, static_cast<const char*>(row) + i * size,
                   static_cast<size_t>(part * size));
  return load8<kType>(padded, 0);
}

template <DType kType>
inline Lanes load(const void* row, int64_t i, Part part) {
  return from_float(load_float<kType>(row, i, part));
}

inline void store(float* out, int64_t i, Part part, Lanes v) {
  if (part >= kLanes) return _mm256_storeu_ps(out + i, to_float(v));
  alignas(32) float padded[kLanes];
  _mm256_store_ps(padded, to_float(v));
  __builtin_memcpy(out + i, padded, static_cast<size_t>(part) * sizeof(float));
}

inline Lanes load_wide(const double* x, int64_t i, Part part) {
  if (part >= kLanes) return {_mm256_loadu_pd(x + i), _mm256_loadu_pd(x + i + 4)};
  alignas(32) double padded[kLanes] = {};
  __builtin_memcpy(padded, x + i, static_cast<size_t>(part) * sizeof(double));
  return {_mm256_load_pd(padded), _mm256_load_pd(padded + 4)};
}

inline void store_wide(double* out, int64_t i, Part part, Lanes v) {
  alignas(32) double padded[kLanes];
  _mm256_store_pd(padded, v.low);
  _mm256_store_pd(padded + 4, v.high);
  __builtin_memcpy(out + i, padded,
                   static_cast<size_t>(part < kLanes ? part : kLanes) * sizeof(double));
}

constexpr int64_t kRowsTogether = 1;  // a row has two chains of additions already
constexpr int kTileSide = 2;
inline void prefetch_row(const void*, int64_t) {}

#include "cpu/generic/rows.inl"

Survey survey(const float* x, int64_t dim) {
  Lanes sum = zero();
  __m256i largest = _mm256_setzero_si256();
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  for (int64_t i = 0; i < dim; i += kLanes) {
    const __m256 v = load_float<DType::float32>(x, i, part_of(dim - i));
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
    const __m256 v = load_float<DType::float32>(x, i, part_of(dim - i));
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

}  // namespace

const Kernels* avx2_kernels() {
  static const Kernels table = {
      "avx2", supported,  avx2::scan, avx2::heads, avx2::boxes,    avx2::records,
      50.0,   score,      products,   survey,      quantise,       widen,
      centre, square_sum, weigh,      divide_row,  avx2::read_all, avx2::multiply_all};
  return &table;
}

}  // namespace fastretrieve::cpu
