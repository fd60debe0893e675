// AVX2: the scan of a strip. Codes are widened to 16 bits and multiplied in pairs, because
// `vpmaddubsw` would saturate on codes stored with an offset. The sum of a row stays in two halves
// until the end of a block.
#include <immintrin.h>

#include "core/strip.hpp"
#include "cpu/kernels.hpp"

namespace fastretrieve::cpu {
namespace {

constexpr int64_t kPrefetchBytes = 4096;

inline __m128i load128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }

// Four query codes as 16-bit numbers, four times.
inline __m256i broadcast_group(const int8_t* q) {
  int32_t four;
  __builtin_memcpy(&four, q, sizeof four);
  return _mm256_broadcastq_epi64(_mm_cvtepi8_epi16(_mm_cvtsi32_si128(four)));
}

// [a0+a1, b0+b1, c0+c1, d0+d1 | ...] of two registers that each hold four rows in two halves.
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
void dot_strip(const StripArgs& strip, int64_t query) {
  for (int64_t b = 0; b < kBlocks; ++b) {
    dot_block<kQueries>(strip.codes + b * strip.groups * kGroupBytes,
                        strip.queries + query * strip.groups * kGroupDims,
                        strip.groups * kGroupDims, strip.groups, strip.bias + query,
                        strip.dots + b * kBlockRows);
  }
}

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
    dot_strip<2>(strip, query);
    report(strip, query, strip.dots);
    report(strip, query + 1, strip.dots + kStripRows);
  }
  if (query < strip.n_queries) {
    dot_strip<1>(strip, query);
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
