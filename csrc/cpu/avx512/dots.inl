// The products of queries with the codes of 64 rows: shared by the scans of strips and of heads,
// which include this inside their anonymous namespaces.

constexpr int64_t kPrefetchBytes = 8192;  // ahead of a stream: 26 GB/s on Zen 4, 12 without

inline __m512i broadcast_group(const int8_t* q) {
  int32_t four;
  __builtin_memcpy(&four, q, sizeof four);
  return _mm512_set1_epi32(four);
}

inline void prefetch(const uint8_t* p) {
  _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
}

// The products of kQueries queries with one block, read front to back. A single query needs several
// chains of additions to hide the latency of the instruction.
template <int kQueries, int kChains, bool kPrefetch>
inline void dot_block(const uint8_t* block, const int8_t* queries, int64_t stride, int64_t groups,
                      const int32_t* bias, int32_t* dots) {
  __m512i sums[kQueries][kChains];
#pragma GCC unroll 8
  for (int q = 0; q < kQueries; ++q) {
    sums[q][0] = _mm512_set1_epi32(bias[q]);
#pragma GCC unroll 4
    for (int c = 1; c < kChains; ++c) sums[q][c] = _mm512_setzero_si512();
  }
  int64_t g = 0;
  for (; g + kChains <= groups; g += kChains) {
#pragma GCC unroll 4
    for (int c = 0; c < kChains; ++c) {
      const uint8_t* p = block + (g + c) * kGroupBytes;
      if (kPrefetch) prefetch(p + kPrefetchBytes);
      const __m512i codes = _mm512_loadu_si512(p);
#pragma GCC unroll 8
      for (int q = 0; q < kQueries; ++q)
        sums[q][c] = _mm512_dpbusd_epi32(
            sums[q][c], codes, broadcast_group(queries + q * stride + (g + c) * kGroupDims));
    }
  }
  for (; g < groups; ++g) {
    const __m512i codes = _mm512_loadu_si512(block + g * kGroupBytes);
#pragma GCC unroll 8
    for (int q = 0; q < kQueries; ++q)
      sums[q][0] = _mm512_dpbusd_epi32(sums[q][0], codes,
                                       broadcast_group(queries + q * stride + g * kGroupDims));
  }
#pragma GCC unroll 8
  for (int q = 0; q < kQueries; ++q) {
#pragma GCC unroll 4
    for (int c = 1; c < kChains; ++c) sums[q][0] = _mm512_add_epi32(sums[q][0], sums[q][c]);
    _mm512_storeu_si512(dots + q * kStripRows, sums[q][0]);
  }
}

template <int kQueries, bool kPrefetch>
void dot_strip(const CodeArgs& strip, int64_t query, int32_t* dots) {
  constexpr int kChains = kQueries == 1 ? 4 : kQueries <= 3 ? 2 : 1;
  for (int64_t b = 0; b < kBlocks; ++b) {
    dot_block<kQueries, kChains, kPrefetch>(strip.codes + b * strip.groups * kGroupBytes,
                                            strip.queries + query * strip.groups * kGroupDims,
                                            strip.groups * kGroupDims, strip.groups,
                                            strip.bias + query, dots + b * kBlockRows);
  }
}

// A tile, 4 queries x 64 rows, over a slice of the groups. The first slice starts the sums at the
// bias; later ones continue. Meanwhile the block of the next strip at `fetch` comes into the cache.
template <bool kFetch>
__attribute__((noinline)) void dot_tile(const CodeArgs& strip, int64_t query, int64_t begin,
                                        int64_t end, const uint8_t* fetch, int32_t* dots) {
  const int64_t block = strip.groups * kGroupBytes;
  const int64_t stride = strip.groups * kGroupDims;
  const uint8_t* codes = strip.codes + begin * kGroupBytes;
  const int8_t* queries = strip.queries + query * stride + begin * kGroupDims;
  __m512i sums[4][4];
#pragma GCC unroll 4
  for (int q = 0; q < 4; ++q) {
#pragma GCC unroll 4
    for (int b = 0; b < 4; ++b)
      sums[q][b] = begin == 0 ? _mm512_set1_epi32(strip.bias[query + q])
                              : _mm512_loadu_si512(dots + q * kStripRows + b * kBlockRows);
  }
  for (int64_t g = begin; g < end; ++g) {
    __m512i x[4];
#pragma GCC unroll 4
    for (int b = 0; b < 4; ++b) x[b] = _mm512_loadu_si512(codes + b * block);
    if (kFetch) prefetch(fetch + g * kGroupBytes);
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) {
      const __m512i four = broadcast_group(queries + q * stride);
#pragma GCC unroll 4
      for (int b = 0; b < 4; ++b) sums[q][b] = _mm512_dpbusd_epi32(sums[q][b], x[b], four);
    }
    codes += kGroupBytes;
    queries += kGroupDims;
  }
#pragma GCC unroll 4
  for (int q = 0; q < 4; ++q) {
#pragma GCC unroll 4
    for (int b = 0; b < 4; ++b)
      _mm512_storeu_si512(dots + q * kStripRows + b * kBlockRows, sums[q][b]);
  }
}

template <bool kPrefetch>
void dot_few(const CodeArgs& strip, int64_t query, int64_t count, int32_t* dots) {
  switch (count) {
    case 1:
      return dot_strip<1, kPrefetch>(strip, query, dots);
    case 2:
      return dot_strip<2, kPrefetch>(strip, query, dots);
    case 3:
      return dot_strip<3, kPrefetch>(strip, query, dots);
    case 4:
      return dot_strip<4, kPrefetch>(strip, query, dots);
    case 5:
      return dot_strip<5, kPrefetch>(strip, query, dots);
    case 6:
      return dot_strip<6, kPrefetch>(strip, query, dots);
    case 7:
      return dot_strip<7, kPrefetch>(strip, query, dots);
    case 8:
      return dot_strip<8, kPrefetch>(strip, query, dots);
    default:
      return;
  }
}
