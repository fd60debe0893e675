// AVX2: the screen. Heads are scanned like strips; their filter is one comparison of integers.
#include <immintrin.h>

#include "core/screen.hpp"
#include "core/strip.hpp"
#include "cpu/kernels.hpp"

namespace fastretrieve::cpu {
namespace {

#include "cpu/avx2/dots.inl"
#include "cpu/generic/boxes.inl"

inline uint64_t judge(const HeadArgs& leaf, const int32_t* dots) {
  uint64_t rows = 0;
  for (int64_t at = 0; at < kStripRows; at += 8) {
    const __m256i sum =
        _mm256_add_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(dots + at)),
                         _mm256_loadu_si256(reinterpret_cast<const __m256i*>(leaf.starts + at)));
    const int below = _mm256_movemask_ps(_mm256_castsi256_ps(sum));
    rows |= uint64_t{static_cast<unsigned>(~below & 0xff)} << at;
  }
  return rows;
}

}  // namespace

void avx2::heads(const HeadArgs& leaf) {
  const auto dots_of = [&](int64_t query) {
    return leaf.dots + (leaf.keep_dots ? query * kStripRows : 0);
  };
  int64_t query = 0;
  for (; query + 2 <= leaf.n_queries; query += 2) {
    int32_t* dots = dots_of(query);
    dot_strip<2>(leaf, query, dots);
    leaf.survivors[query] = judge(leaf, dots);
    leaf.survivors[query + 1] = judge(leaf, dots + kStripRows);
  }
  if (query < leaf.n_queries) {
    dot_strip<1>(leaf, query, dots_of(query));
    leaf.survivors[query] = judge(leaf, dots_of(query));
  }
}

void avx2::boxes(const BoxArgs& args) { test_boxes(args); }

void avx2::records(const RecordArgs& args) {
  for (int64_t row = 0; row < args.n_rows; ++row) {
    const uint8_t* codes = args.codes[row];
    __m256i sums[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    int64_t d = 0;
    for (int c = 0; d + 16 <= args.dim; d += 16, c ^= 1)
      sums[c] = _mm256_add_epi32(sums[c],
                                 _mm256_madd_epi16(_mm256_cvtepu8_epi16(load128(codes + d)),
                                                   _mm256_cvtepi8_epi16(load128(args.query + d))));
    const __m256i both = _mm256_add_epi32(sums[0], sums[1]);
    alignas(32) int32_t lanes[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), both);
    int32_t dot = args.bias;
    for (const int32_t lane : lanes) dot += lane;
    for (; d < args.dim; ++d) dot += codes[d] * args.query[d];
    args.dots[row] = dot;
  }
}

}  // namespace fastretrieve::cpu
