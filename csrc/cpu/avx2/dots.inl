// The products of queries with the codes of 64 rows: shared by the scans of strips and of heads,
// which include this inside their anonymous namespaces.

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
void dot_strip(const CodeArgs& strip, int64_t query, int32_t* dots) {
  for (int64_t b = 0; b < kBlocks; ++b) {
    dot_block<kQueries>(strip.codes + b * strip.groups * kGroupBytes,
                        strip.queries + query * strip.groups * kGroupDims,
                        strip.groups * kGroupDims, strip.groups, strip.bias + query,
                        dots + b * kBlockRows);
  }
}
