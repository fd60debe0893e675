// AVX-512: the eight lanes of a canonical sum are one register. scan_avx512.cpp walks the codes.
#include "cpu/kernels.hpp"

#if defined(__AVX512VNNI__)
#include <immintrin.h>

#include "core/strip.hpp"

namespace fastretrieve::cpu {
namespace {

bool supported() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("f16c") &&
         __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
}

inline double tree(__m512d v) {
  alignas(64) double l[kLanes];
  _mm512_store_pd(l, v);
  return ((l[0] + l[1]) + (l[2] + l[3])) + ((l[4] + l[5]) + (l[6] + l[7]));
}

inline __mmask8 first(int64_t n) { return static_cast<__mmask8>(n >= 8 ? 0xff : (1u << n) - 1u); }

// Eight elements from `i` on, as float64; those past `mask` are +0, which changes no lane.
template <DType kType>
inline __m512d load(const void* row, int64_t i, __mmask8 mask) {
  if (kType == DType::float32)
    return _mm512_cvtps_pd(_mm256_maskz_loadu_ps(mask, static_cast<const float*>(row) + i));
  const __m128i bits = _mm_maskz_loadu_epi16(mask, static_cast<const uint16_t*>(row) + i);
  if (kType == DType::float16) return _mm512_cvtps_pd(_mm256_cvtph_ps(bits));
  return _mm512_cvtps_pd(_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16)));
}

// kRows rows at once, so that their chains of additions overlap. A product of two float32 is exact
// in float64, so the fused multiply-add rounds as a separate one would; squared differences are not
// exact and are never fused.
template <DType kType, Sums kWhat, int kRows>
void score_rows(const ScoreArgs& args, int64_t row) {
  __m512d sums[kRows], squares[kRows];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) sums[r] = squares[r] = _mm512_setzero_pd();
  for (int64_t i = 0; i < args.dim; i += kLanes) {
    const __mmask8 mask = first(args.dim - i);
    const __m512d q = load<DType::float32>(args.query, i, mask);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const __m512d x = load<kType>(args.rows[row + r], i, mask);
      if (kWhat == Sums::squared_difference) {
        const __m512d difference = _mm512_sub_pd(q, x);
        sums[r] = _mm512_add_pd(sums[r], _mm512_mul_pd(difference, difference));
      } else {
        sums[r] = _mm512_fmadd_pd(q, x, sums[r]);
        if (kWhat == Sums::product_and_square) squares[r] = _mm512_fmadd_pd(x, x, squares[r]);
      }
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    args.sums[row + r] = tree(sums[r]);
    if (kWhat == Sums::product_and_square) args.squares[row + r] = tree(squares[r]);
  }
}

inline void prefetch_row(const ScoreArgs& args, int64_t row, int64_t bytes) {
  const char* p = static_cast<const char*>(args.rows[row]);
  for (int64_t at = 0; at < bytes && at < 4096; at += 64) _mm_prefetch(p + at, _MM_HINT_T0);
}

template <DType kType, Sums kWhat>
void score_all(const ScoreArgs& args) {
  const int64_t bytes = args.dim * (kType == DType::float32 ? 4 : 2);
  int64_t row = 0;
  for (; row + 4 <= args.n_rows; row += 4) {
    for (int64_t ahead = row + 4; ahead < row + 8 && ahead < args.n_rows; ++ahead)
      prefetch_row(args, ahead, bytes);
    score_rows<kType, kWhat, 4>(args, row);
  }
  for (; row < args.n_rows; ++row) score_rows<kType, kWhat, 1>(args, row);
}

template <DType kType>
void score_typed(const ScoreArgs& args) {
  switch (args.what) {
    case Sums::product:
      return score_all<kType, Sums::product>(args);
    case Sums::product_and_square:
      return score_all<kType, Sums::product_and_square>(args);
    case Sums::squared_difference:
      return score_all<kType, Sums::squared_difference>(args);
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
  __m512d sums = _mm512_setzero_pd();
  __m256i largest = _mm256_setzero_si256();
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  for (int64_t i = 0; i < dim; i += kLanes) {
    const __m256 v = _mm256_maskz_loadu_ps(first(dim - i), x + i);
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
    const __mmask8 mask = first(dim - i);
    const __m256 v = _mm256_maskz_loadu_ps(mask, x + i);
    const __m256 scaled = _mm256_max_ps(_mm256_min_ps(_mm256_mul_ps(v, factor), most), least);
    const __m256i code = _mm256_cvtps_epi32(scaled);
    _mm_mask_storeu_epi8(codes + i, mask, _mm256_cvtepi32_epi8(code));
    const __m512d error = _mm512_sub_pd(_mm512_mul_pd(_mm512_cvtps_pd(v), inv),
                                        _mm512_mul_pd(_mm512_cvtepi32_pd(code), unit));
    errors = _mm512_add_pd(errors, _mm512_mul_pd(error, error));
    squares = _mm512_add_epi64(squares, _mm512_cvtepi32_epi64(_mm256_mullo_epi32(code, code)));
    sums = _mm512_add_epi64(sums, _mm512_cvtepi32_epi64(code));
  }
  return {tree(errors), _mm512_reduce_add_epi64(squares), _mm512_reduce_add_epi64(sums)};
}

template <DType kType>
void widen_typed(const void* x, int64_t dim, float* out) {
  for (int64_t i = 0; i < dim; i += kLanes) {
    const __mmask8 mask = first(dim - i);
    _mm256_mask_storeu_ps(out + i, mask, _mm512_cvtpd_ps(load<kType>(x, i, mask)));
  }
}

void widen(const void* x, DType dtype, int64_t dim, float* out) {
  switch (dtype) {
    case DType::float32:
      return widen_typed<DType::float32>(x, dim, out);
    case DType::float16:
      return widen_typed<DType::float16>(x, dim, out);
    case DType::bfloat16:
      return widen_typed<DType::bfloat16>(x, dim, out);
  }
}

void centre(const float* x, const float* mean, int64_t dim, double* out) {
  for (int64_t i = 0; i < dim; i += kLanes) {
    const __mmask8 mask = first(dim - i);
    __m512d v = load<DType::float32>(x, i, mask);
    if (mean) v = _mm512_sub_pd(v, load<DType::float32>(mean, i, mask));
    _mm512_mask_storeu_pd(out + i, mask, v);
  }
}

double square_sum(const double* x, int64_t dim) {
  __m512d sums = _mm512_setzero_pd();
  for (int64_t i = 0; i < dim; i += kLanes) {
    const __m512d v = _mm512_maskz_loadu_pd(first(dim - i), x + i);
    sums = _mm512_add_pd(sums, _mm512_mul_pd(v, v));
  }
  return tree(sums);
}

void weigh(double* x, int64_t dim, double norm, double weight) {
  const __m512d n = _mm512_set1_pd(norm), w = _mm512_set1_pd(weight);
  for (int64_t i = 0; i < dim; i += kLanes) {
    const __mmask8 mask = first(dim - i);
    _mm512_mask_storeu_pd(x + i, mask,
                          _mm512_mul_pd(_mm512_div_pd(_mm512_maskz_loadu_pd(mask, x + i), n), w));
  }
}

void divide(const double* x, int64_t dim, double norm, float* out) {
  const __m512d n = _mm512_set1_pd(norm);
  for (int64_t i = 0; i < dim; i += kLanes) {
    const __mmask8 mask = first(dim - i);
    _mm256_mask_storeu_ps(out + i, mask,
                          _mm512_cvtpd_ps(_mm512_div_pd(_mm512_maskz_loadu_pd(mask, x + i), n)));
  }
}

}  // namespace

const Kernels* avx512_kernels() {
  static const Kernels table = {"avx512",
                                supported,
                                avx512::scan,
                                score,
                                survey,
                                quantise,
                                widen,
                                centre,
                                square_sum,
                                weigh,
                                divide,
                                avx512::read_all,
                                avx512::multiply_all};
  return &table;
}

}  // namespace fastretrieve::cpu

#else

namespace fastretrieve::cpu {
const Kernels* avx512_kernels() { return nullptr; }
}  // namespace fastretrieve::cpu

#endif
