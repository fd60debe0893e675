// AVX-512 with VNNI: the scan of a strip. A group of all four blocks is four registers; `vpdpbusd`
// multiplies and adds 64 bytes a cycle.
//
// Up to kStreamQueries queries, memory bounds the scan, so it reads codes in ascending order with a
// software prefetch. Beyond, it makes tiles of 4 queries x 64 rows: 16 accumulators stay in
// registers and the strip in the L1 cache. gcc 12 spills at 6 queries.
#include <immintrin.h>

#include "core/strip.hpp"
#include "cpu/kernels.hpp"

namespace fastretrieve::cpu {
namespace {

constexpr int64_t kPlaneBytes = 3 * kStripRows * 4;

#include "cpu/avx512/dots.inl"
#include "cpu/generic/hits.inl"

struct Weights {
  __m512 v[kBlocks];
};

inline Weights weigh_rows(const StripArgs& strip) {
  Weights weights;
  const __m512 ratio = _mm512_set1_ps(strip.ratio), up = _mm512_set1_ps(1 + 0x1p-22f);
#pragma GCC unroll 4
  for (int b = 0; b < kBlocks; ++b)
    weights.v[b] =
        _mm512_mul_ps(_mm512_fmadd_ps(ratio, _mm512_loadu_ps(strip.norm + b * kBlockRows),
                                      _mm512_loadu_ps(strip.error + b * kBlockRows)),
                      up);
  return weights;
}

template <bool kDistance>
inline uint64_t filter(const StripArgs& strip, const Weights& weights, int64_t query,
                       const int32_t* dots) {
  const __m512 reach = _mm512_set1_ps(strip.reach[query]),
               threshold = _mm512_set1_ps(strip.threshold[query]);
  const __m512 fall = kDistance ? _mm512_set1_ps(strip.fall[query]) : reach;
  uint64_t rows = 0;
#pragma GCC unroll 4
  for (int b = 0; b < kBlocks; ++b) {
    const int64_t at = b * kBlockRows;
    __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_loadu_si512(dots + at)),
                                 _mm512_loadu_ps(strip.scale + at));
    value = _mm512_fmadd_ps(reach, weights.v[b], value);
    if (kDistance) value = _mm512_fnmadd_ps(fall, _mm512_loadu_ps(strip.half_square + at), value);
    rows |= uint64_t{_mm512_cmp_ps_mask(value, threshold, _CMP_NLT_UQ)} << at;  // NaN survives
  }
  return rows;
}

template <bool kDistance>
inline void report(const StripArgs& strip, const Weights& weights, int64_t query, int64_t count,
                   const int32_t* dots) {
  for (int64_t q = query; q < query + count; ++q, dots += kStripRows)
    hand_over(strip, q, filter<kDistance>(strip, weights, q, dots), dots);
}

template <bool kDistance>
void stream_strip(const StripArgs& strip) {
  dot_few<true>(strip, 0, strip.n_queries, strip.dots);
  // The planes lie after the codes, so they come now: memory is read in ascending order.
  const uint8_t* planes = strip.codes + kBlocks * strip.groups * kGroupBytes;
  for (int64_t at = 0; at < kPlaneBytes; at += 64) prefetch(planes + at + kPrefetchBytes);
  report<kDistance>(strip, weigh_rows(strip), 0, strip.n_queries, strip.dots);
}

template <bool kDistance>
void tile_strip(const StripArgs& strip) {
  const int64_t block = strip.groups * kGroupBytes;
  const Weights weights = weigh_rows(strip);
  for (int64_t at = 0; strip.next && at < kPlaneBytes; at += 64)
    prefetch(strip.next + kBlocks * block + at);
  const int64_t n_tiles = strip.n_queries / 4, rest = strip.n_queries % 4;
  const bool sliced = strip.groups > kSliceGroups;
  for (int64_t begin = 0; begin < strip.groups; begin += kSliceGroups) {
    const int64_t end = begin + kSliceGroups < strip.groups ? begin + kSliceGroups : strip.groups;
    int64_t fetched = 0, due = 0;  // blocks of the next strip, spread over the tiles
    for (int64_t t = 0; t < n_tiles; ++t) {
      due += strip.next ? kBlocks : 0;
      int32_t* dots = strip.dots + (sliced ? 4 * t * kStripRows : 0);
      if (due >= n_tiles) {
        dot_tile<true>(strip, 4 * t, begin, end, strip.next + fetched++ * block, dots);
        due -= n_tiles;
      } else {
        dot_tile<false>(strip, 4 * t, begin, end, nullptr, dots);
      }
      if (end == strip.groups) report<kDistance>(strip, weights, 4 * t, 4, dots);
    }
  }
  if (rest) {
    dot_few<false>(strip, 4 * n_tiles, rest, strip.dots);
    report<kDistance>(strip, weights, 4 * n_tiles, rest, strip.dots);
  }
}

template <bool kDistance>
void scan_strip(const StripArgs& strip) {
  strip.n_queries <= kStreamQueries ? stream_strip<kDistance>(strip) : tile_strip<kDistance>(strip);
}

}  // namespace

void avx512::scan(const StripArgs& strip) {
  strip.half_square ? scan_strip<true>(strip) : scan_strip<false>(strip);
}

uint64_t avx512::read_all(const uint8_t* data, int64_t n_bytes) {
  __m512i sums[4] = {};
  for (int64_t i = 0; i + 256 <= n_bytes; i += 256) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      prefetch(data + i + j * 64 + kPrefetchBytes);
      sums[j] = _mm512_xor_si512(sums[j], _mm512_loadu_si512(data + i + j * 64));
    }
  }
  const __m512i all =
      _mm512_xor_si512(_mm512_xor_si512(sums[0], sums[1]), _mm512_xor_si512(sums[2], sums[3]));
  return static_cast<uint64_t>(_mm512_reduce_add_epi64(all));
}

int64_t avx512::multiply_all(int64_t rounds, int32_t* sink) {
  constexpr int kChains = 16;
  __m512i sums[kChains];
  __m512i x = _mm512_set1_epi32(sink[0]);
#pragma GCC unroll 16
  for (int c = 0; c < kChains; ++c) sums[c] = _mm512_set1_epi32(c);
  for (int64_t i = 0; i < rounds; ++i) {
    asm volatile("" : "+v"(x));  // keeps the loop: its operands may have changed
#pragma GCC unroll 16
    for (int c = 0; c < kChains; ++c) sums[c] = _mm512_dpbusd_epi32(sums[c], x, x);
  }
#pragma GCC unroll 16
  for (int c = 1; c < kChains; ++c) sums[0] = _mm512_add_epi32(sums[0], sums[c]);
  _mm512_storeu_si512(sink, sums[0]);
  return rounds * kChains * 64;
}

}  // namespace fastretrieve::cpu
