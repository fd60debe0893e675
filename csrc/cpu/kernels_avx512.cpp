// AVX-512 with VNNI. A strip of 64 rows is four registers a group; `vpdpbusd` multiplies and adds
// 64 bytes a cycle.
//
// Up to kStreamQueries queries the scan is bound by memory, so codes are read in ascending order
// with a software prefetch. Above that, tiles of 4 queries x 64 rows keep 16 accumulators in
// registers and the strip in the L1 cache; gcc 12 spills at 6 x 4.
#include "cpu/kernels.hpp"

#if defined(__AVX512VNNI__)
#include <immintrin.h>

#include "core/strip.hpp"

namespace fastretrieve::cpu {
namespace {

constexpr int64_t kPlaneBytes = 3 * kStripRows * 4;
constexpr int64_t kPrefetchBytes = 8192;  // ahead of a stream: 26 GB/s on Zen 4, 12 without

bool supported() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("f16c") &&
         __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
}

inline __m512i broadcast_group(const int8_t* q) {
  int32_t four;
  __builtin_memcpy(&four, q, sizeof four);
  return _mm512_set1_epi32(four);
}

inline void prefetch(const uint8_t* p) {
  _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
}

// The products of kQueries queries with one block, read front to back. One query alone needs
// several chains of additions to hide the latency of the instruction.
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
void dot_strip(const ScanTile& tile, int64_t query, int32_t* dots) {
  constexpr int kChains = kQueries == 1 ? 4 : kQueries <= 3 ? 2 : 1;
  for (int64_t b = 0; b < kBlocks; ++b) {
    dot_block<kQueries, kChains, kPrefetch>(
        tile.codes + b * tile.groups * kGroupBytes, tile.queries + query * tile.groups * kGroupDims,
        tile.groups * kGroupDims, tile.groups, tile.bias + query, dots + b * kBlockRows);
  }
}

// 4 queries x 64 rows over a slice of the groups: the first slice starts the sums at the bias,
// later ones go on. Meanwhile the block of the next strip at `fetch` comes into the cache.
template <bool kFetch>
__attribute__((noinline)) void dot_tile(const ScanTile& tile, int64_t query, int64_t begin,
                                        int64_t end, const uint8_t* fetch, int32_t* dots) {
  const int64_t block = tile.groups * kGroupBytes;
  const int64_t stride = tile.groups * kGroupDims;
  const uint8_t* codes = tile.codes + begin * kGroupBytes;
  const int8_t* queries = tile.queries + query * stride + begin * kGroupDims;
  __m512i sums[4][4];
#pragma GCC unroll 4
  for (int q = 0; q < 4; ++q) {
#pragma GCC unroll 4
    for (int b = 0; b < 4; ++b)
      sums[q][b] = begin == 0 ? _mm512_set1_epi32(tile.bias[query + q])
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

struct Weights {
  __m512 v[kBlocks];
};

inline Weights weigh_rows(const ScanTile& tile) {
  Weights weights;
  const __m512 ratio = _mm512_set1_ps(tile.ratio), up = _mm512_set1_ps(1 + 0x1p-22f);
#pragma GCC unroll 4
  for (int b = 0; b < kBlocks; ++b)
    weights.v[b] = _mm512_mul_ps(_mm512_fmadd_ps(ratio, _mm512_loadu_ps(tile.norm + b * kBlockRows),
                                                 _mm512_loadu_ps(tile.error + b * kBlockRows)),
                                 up);
  return weights;
}

template <bool kDistance>
inline uint64_t filter(const ScanTile& tile, const Weights& weights, int64_t query,
                       const int32_t* dots) {
  const __m512 reach = _mm512_set1_ps(tile.reach[query]),
               threshold = _mm512_set1_ps(tile.threshold[query]);
  const __m512 fall = kDistance ? _mm512_set1_ps(tile.fall[query]) : reach;
  uint64_t rows = 0;
#pragma GCC unroll 4
  for (int b = 0; b < kBlocks; ++b) {
    const int64_t at = b * kBlockRows;
    __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_loadu_si512(dots + at)),
                                 _mm512_loadu_ps(tile.scale + at));
    value = _mm512_fmadd_ps(reach, weights.v[b], value);
    if (kDistance) value = _mm512_fnmadd_ps(fall, _mm512_loadu_ps(tile.half_square + at), value);
    rows |= uint64_t{_mm512_cmp_ps_mask(value, threshold, _CMP_NLT_UQ)} << at;  // NaN survives
  }
  return rows;
}

template <bool kDistance>
inline void report(const ScanTile& tile, const Weights& weights, int64_t query, int64_t count,
                   const int32_t* dots) {
  for (int64_t q = 0; q < count; ++q, dots += kStripRows) {
    uint64_t rows = filter<kDistance>(tile, weights, query + q, dots) & tile.allowed;
    if (__builtin_expect(rows != 0, 0)) {
      if (tile.where) rows &= tile.where[(query + q) * tile.where_stride];
      if (rows) tile.on_hit(tile.context, query + q, rows, dots);
    }
  }
}

template <bool kPrefetch>
void dot_few(const ScanTile& tile, int64_t query, int64_t count, int32_t* dots) {
  switch (count) {
    case 1:
      return dot_strip<1, kPrefetch>(tile, query, dots);
    case 2:
      return dot_strip<2, kPrefetch>(tile, query, dots);
    case 3:
      return dot_strip<3, kPrefetch>(tile, query, dots);
    case 4:
      return dot_strip<4, kPrefetch>(tile, query, dots);
    case 5:
      return dot_strip<5, kPrefetch>(tile, query, dots);
    case 6:
      return dot_strip<6, kPrefetch>(tile, query, dots);
    case 7:
      return dot_strip<7, kPrefetch>(tile, query, dots);
    case 8:
      return dot_strip<8, kPrefetch>(tile, query, dots);
    default:
      return;
  }
}

template <bool kDistance>
void stream_strip(const ScanTile& tile) {
  dot_few<true>(tile, 0, tile.n_queries, tile.dots);
  // Only now the planes, which lie behind the codes: memory is read in ascending order.
  const uint8_t* planes = tile.codes + kBlocks * tile.groups * kGroupBytes;
  for (int64_t at = 0; at < kPlaneBytes; at += 64) prefetch(planes + at + kPrefetchBytes);
  report<kDistance>(tile, weigh_rows(tile), 0, tile.n_queries, tile.dots);
}

template <bool kDistance>
void tile_strip(const ScanTile& tile) {
  const int64_t block = tile.groups * kGroupBytes;
  const Weights weights = weigh_rows(tile);
  for (int64_t at = 0; tile.next && at < kPlaneBytes; at += 64)
    prefetch(tile.next + kBlocks * block + at);
  const int64_t n_tiles = tile.n_queries / 4, rest = tile.n_queries % 4;
  const bool sliced = tile.groups > kSliceGroups;
  for (int64_t begin = 0; begin < tile.groups; begin += kSliceGroups) {
    const int64_t end = begin + kSliceGroups < tile.groups ? begin + kSliceGroups : tile.groups;
    int64_t fetched = 0, due = 0;  // blocks of the next strip, spread over the tiles
    for (int64_t t = 0; t < n_tiles; ++t) {
      due += tile.next ? kBlocks : 0;
      int32_t* dots = tile.dots + (sliced ? 4 * t * kStripRows : 0);
      if (due >= n_tiles) {
        dot_tile<true>(tile, 4 * t, begin, end, tile.next + fetched++ * block, dots);
        due -= n_tiles;
      } else {
        dot_tile<false>(tile, 4 * t, begin, end, nullptr, dots);
      }
      if (end == tile.groups) report<kDistance>(tile, weights, 4 * t, 4, dots);
    }
  }
  if (rest) {
    dot_few<false>(tile, 4 * n_tiles, rest, tile.dots);
    report<kDistance>(tile, weights, 4 * n_tiles, rest, tile.dots);
  }
}

template <bool kDistance>
void scan_strip(const ScanTile& tile) {
  tile.n_queries <= kStreamQueries ? stream_strip<kDistance>(tile) : tile_strip<kDistance>(tile);
}

void scan(const ScanTile& tile) {
  tile.half_square ? scan_strip<true>(tile) : scan_strip<false>(tile);
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
  const uint8_t* p = static_cast<const uint8_t*>(args.rows[row]);
  for (int64_t at = 0; at < bytes && at < 4096; at += 64) prefetch(p + at);
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

uint64_t read_all(const uint8_t* data, int64_t n_bytes) {
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

int64_t multiply_all(int64_t rounds, int32_t* sink) {
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

}  // namespace

const Kernels* avx512_kernels() {
  static const Kernels table = {"avx512", supported,  scan,  score,  survey,   quantise,    widen,
                                centre,   square_sum, weigh, divide, read_all, multiply_all};
  return &table;
}

}  // namespace fastretrieve::cpu

#else

namespace fastretrieve::cpu {
const Kernels* avx512_kernels() { return nullptr; }
}  // namespace fastretrieve::cpu

#endif
