// AVX-512: the eight lanes of a canonical sum are one register. scan.cpp is the scan.
#include "cpu/kernels.hpp"

#include <cpuid.h>
#include <immintrin.h>

#include "core/strip.hpp"

namespace fastretrieve::cpu {
namespace {

#include "cpu/generic/x86.inl"

bool supported() { return running_processor().has_avx512(); }

using Lanes = __m512d;

inline Lanes zero() { return _mm512_setzero_pd(); }
inline Lanes all(double v) { return _mm512_set1_pd(v); }
inline Lanes add(Lanes a, Lanes b) { return _mm512_add_pd(a, b); }
inline Lanes subtract(Lanes a, Lanes b) { return _mm512_sub_pd(a, b); }
inline Lanes multiply(Lanes a, Lanes b) { return _mm512_mul_pd(a, b); }
inline Lanes divide(Lanes a, Lanes b) { return _mm512_div_pd(a, b); }
inline Lanes add_product(Lanes a, Lanes b, Lanes sum) { return _mm512_fmadd_pd(a, b, sum); }
inline double tree(Lanes v) {
  alignas(64) double l[kLanes];
  _mm512_store_pd(l, v);
  return ((l[0] + l[1]) + (l[2] + l[3])) + ((l[4] + l[5]) + (l[6] + l[7]));
}

using Part = __mmask8;
inline Part part_of(int64_t n) { return static_cast<Part>(n >= 8 ? 0xff : (1u << n) - 1u); }

template <DType kType>
inline Lanes load(const void* row, int64_t i, Part part) {
  if (kType == DType::float32)
    return _mm512_cvtps_pd(_mm256_maskz_loadu_ps(part, static_cast<const float*>(row) + i));
  const __m128i bits = _mm_maskz_loadu_epi16(part, static_cast<const uint16_t*>(row) + i);
  if (kType == DType::float16) return _mm512_cvtps_pd(_mm256_cvtph_ps(bits));
  return _mm512_cvtps_pd(_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16)));
}
inline Lanes load_wide(const double* x, int64_t i, Part part) {
  return _mm512_maskz_loadu_pd(part, x + i);
}
inline void store(float* out, int64_t i, Part part, Lanes v) {
  _mm256_mask_storeu_ps(out + i, part, _mm512_cvtpd_ps(v));
}
inline void store_wide(double* out, int64_t i, Part part, Lanes v) {
  _mm512_mask_storeu_pd(out + i, part, v);
}

constexpr int64_t kRowsTogether = 4;
constexpr int kTileSide = 4;
inline void prefetch_row(const void* row, int64_t bytes) {
  const char* p = static_cast<const char*>(row);
  for (int64_t at = 0; at < bytes && at < 4096; at += 64) _mm_prefetch(p + at, _MM_HINT_T0);
}

#include "cpu/generic/rows.inl"

Survey survey(const float* x, int64_t dim) {
  __m512d sums = _mm512_setzero_pd();
  __m256i largest = _mm256_setzero_si256();
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  for (int64_t i = 0; i < dim; i += kLanes) {
    const __m256 v = _mm256_maskz_loadu_ps(part_of(dim - i), x + i);
    const __m512d wide = _mm512_cvtps_pd(v);
    sums = _mm512_fmadd_pd(wide, wide, sums);
    largest = _mm256_max_epu32(largest, _mm256_and_si256(_mm256_castps_si256(v), magnitude));
  }
  return {tree(sums), _mm512_reduce_max_epu32(_mm512_zextsi256_si512(largest))};
}

Quantised quantise(const float* x, int64_t dim, float to_code, double inverse, double scale,
                   int8_t* codes) {
  const __m256 factor = _mm256_set1_ps(to_code), most = _mm256_set1_ps(kMaxCode),
               least = _mm256_set1_ps(-kMaxCode);
  const __m512d inv = _mm512_set1_pd(inverse), unit = _mm512_set1_pd(scale);
  __m512d errors = _mm512_setzero_pd();
  __m512i squares = _mm512_setzero_si512(), sums = _mm512_setzero_si512();
  for (int64_t i = 0; i < dim; i += kLanes) {
    const Part part = part_of(dim - i);
    const __m256 v = _mm256_maskz_loadu_ps(part, x + i);
    const __m256 scaled = _mm256_max_ps(_mm256_min_ps(_mm256_mul_ps(v, factor), most), least);
    const __m256i code = _mm256_cvtps_epi32(scaled);
    _mm_mask_storeu_epi8(codes + i, part, _mm256_cvtepi32_epi8(code));
    const __m512d error = _mm512_sub_pd(_mm512_mul_pd(_mm512_cvtps_pd(v), inv),
                                        _mm512_mul_pd(_mm512_cvtepi32_pd(code), unit));
    errors = _mm512_add_pd(errors, _mm512_mul_pd(error, error));
    squares = _mm512_add_epi64(squares, _mm512_cvtepi32_epi64(_mm256_mullo_epi32(code, code)));
    sums = _mm512_add_epi64(sums, _mm512_cvtepi32_epi64(code));
  }
  return {tree(errors), _mm512_reduce_add_epi64(squares), _mm512_reduce_add_epi64(sums)};
}

}  // namespace

const Kernels* avx512_kernels() {
  static const Kernels table = {
      "avx512", supported,  avx512::scan, avx512::heads, avx512::boxes,    avx512::records,
      180.0,    score,      products,     survey,        quantise,         widen,
      centre,   square_sum, weigh,        divide_row,    avx512::read_all, avx512::multiply_all};
  return &table;
}

}  // namespace fastretrieve::cpu
