// AVX-512 with VNNI: the screen. Heads are scanned like strips; their filter is one comparison of
// integers.
#include <immintrin.h>

#include "core/screen.hpp"
#include "core/strip.hpp"
#include "cpu/kernels.hpp"

namespace fastretrieve::cpu {
namespace {

#include "cpu/avx512/dots.inl"

inline void judge(const HeadArgs& leaf, int64_t query, int64_t count, const int32_t* dots) {
  for (int64_t q = 0; q < count; ++q) {
    uint64_t rows = 0;
#pragma GCC unroll 4
    for (int b = 0; b < kBlocks; ++b) {
      const int64_t at = b * kBlockRows;
      const __m512i sum = _mm512_add_epi32(_mm512_loadu_si512(dots + q * kStripRows + at),
                                           _mm512_loadu_si512(leaf.starts + at));
      rows |= uint64_t{static_cast<__mmask16>(~_mm512_movepi32_mask(sum))} << at;
    }
    leaf.survivors[query + q] = rows;
  }
}

}  // namespace

void avx512::heads(const HeadArgs& leaf) {
  const auto dots_of = [&](int64_t query) {
    return leaf.dots + (leaf.keep_dots ? query * kStripRows : 0);
  };
  int64_t query = 0;
  if (leaf.n_queries > kStreamQueries) {
    for (; query + kTileQueries <= leaf.n_queries; query += kTileQueries) {
      dot_tile<false>(leaf, query, 0, leaf.groups, nullptr, dots_of(query));
      judge(leaf, query, kTileQueries, dots_of(query));
    }
  }
  const int64_t rest = leaf.n_queries - query;
  dot_few<false>(leaf, query, rest, dots_of(query));
  judge(leaf, query, rest, dots_of(query));
}

void avx512::boxes(const BoxArgs& args) {
  const __m512 limit = _mm512_set1_ps(args.limit), zero = _mm512_setzero_ps();
  const float* box = args.boxes;
  for (int64_t group = 0; group < args.n_groups; ++group) {
    __m512 squares = zero;
    for (int64_t axis = 0; axis < kBoxAxes; ++axis, box += 2 * kBoxLeaves) {
      const __m512 at = _mm512_set1_ps(args.point[axis]);
      const __m512 below = _mm512_sub_ps(_mm512_loadu_ps(box), at);
      const __m512 above = _mm512_sub_ps(at, _mm512_loadu_ps(box + kBoxLeaves));
      const __m512 distance = _mm512_max_ps(_mm512_max_ps(below, above), zero);
      squares = _mm512_add_ps(squares, _mm512_mul_ps(distance, distance));
    }
    args.out[group] = _mm512_cmp_ps_mask(squares, limit, _CMP_NGT_UQ);
  }
}

void avx512::records(const RecordArgs& args) {
  for (int64_t row = 0; row < args.n_rows; ++row) {
    const uint8_t* codes = args.codes[row];
    __m512i sums[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(),
                       _mm512_setzero_si512()};
    int64_t d = 0;
    for (; d + 256 <= args.dim; d += 256) {
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c)
        sums[c] = _mm512_dpbusd_epi32(sums[c], _mm512_loadu_si512(codes + d + c * 64),
                                      _mm512_loadu_si512(args.query + d + c * 64));
    }
    for (int c = 0; d < args.dim; d += 64, c = (c + 1) & 3) {
      const int64_t left = args.dim - d;
      const __mmask64 part = left >= 64 ? ~uint64_t{0} : (uint64_t{1} << left) - 1;
      sums[c] = _mm512_dpbusd_epi32(sums[c], _mm512_maskz_loadu_epi8(part, codes + d),
                                    _mm512_maskz_loadu_epi8(part, args.query + d));
    }
    args.dots[row] =
        args.bias + _mm512_reduce_add_epi32(_mm512_add_epi32(_mm512_add_epi32(sums[0], sums[1]),
                                                             _mm512_add_epi32(sums[2], sums[3])));
  }
}

}  // namespace fastretrieve::cpu
