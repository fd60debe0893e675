// AVX2: the scan of a strip. Codes are widened to 16 bits and multiplied in pairs, because
// `vpmaddubsw` would saturate on codes stored with an offset. The sum of a row stays in two halves
// until the end of a block.
#include <immintrin.h>

#include "core/strip.hpp"
#include "cpu/kernels.hpp"

namespace fastretrieve::cpu {
namespace {

#include "cpu/avx2/dots.inl"

uint64_t filter(const StripArgs& strip, int64_t query, const int32_t* dots) {
  const __m256 reach = _mm256_set1_ps(strip.reach[query]),
               threshold = _mm256_set1_ps(strip.threshold[query]);
  const __m256 ratio = _mm256_set1_ps(strip.ratio), up = _mm256_set1_ps(1 + 0x1p-22f);
  const __m256 fall = _mm256_set1_ps(strip.half_square ? strip.fall[query] : 0.0f);
  uint64_t rows = 0;
  for (int64_t at = 0; at < kStripRows; at += 8) {
    const __m256 weight = _mm256_mul_ps(
        _mm256_fmadd_ps(ratio, _mm256_loadu_ps(strip.norm + at), _mm256_loadu_ps(strip.error + at)),
        up);
    const __m256i dot = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(dots + at));
    __m256 value = _mm256_mul_ps(_mm256_cvtepi32_ps(dot), _mm256_loadu_ps(strip.scale + at));
    value = _mm256_fmadd_ps(reach, weight, value);
    if (strip.half_square)
      value = _mm256_fnmadd_ps(fall, _mm256_loadu_ps(strip.half_square + at), value);
    const int keep =
        _mm256_movemask_ps(_mm256_cmp_ps(value, threshold, _CMP_NLT_UQ));  // NaN survives
    rows |= uint64_t{static_cast<unsigned>(keep)} << at;
  }
  return rows;
}

#include "cpu/generic/hits.inl"

void report(const StripArgs& strip, int64_t query, const int32_t* dots) {
  hand_over(strip, query, filter(strip, query, dots), dots);
}

}  // namespace

void avx2::scan(const StripArgs& strip) {
  int64_t query = 0;
  for (; query + 2 <= strip.n_queries; query += 2) {
    dot_strip<2>(strip, query, strip.dots);
    report(strip, query, strip.dots);
    report(strip, query + 1, strip.dots + kStripRows);
  }
  if (query < strip.n_queries) {
    dot_strip<1>(strip, query, strip.dots);
    report(strip, query, strip.dots);
  }
}

uint64_t avx2::read_all(const uint8_t* data, int64_t n_bytes) {
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

int64_t avx2::multiply_all(int64_t rounds, int32_t* sink) {
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

}  // namespace fastretrieve::cpu
