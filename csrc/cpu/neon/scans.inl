// NEON: the scans of strips and of heads, and products with records. The table says how bytes are
// multiplied:
//
//   Codes, load_codes       16 codes: four dimensions of four rows
//   dot<kGroup>(sum, c, q)  adds the products of each row's four codes with group kGroup of q
//   kStoredOffset           what load_codes leaves of the offset of stored codes

constexpr int64_t kPrefetchBytes = 2048;
constexpr int64_t kGroupsTogether = 4;  // of a query, in one register
constexpr int kParts = kGroupBytes / 16;

inline int8x16_t load_query(const int8_t* q) { return vld1q_s8(q); }
inline int8x16_t broadcast_group(const int8_t* q) {
  int32_t four;
  __builtin_memcpy(&four, q, sizeof four);
  return vreinterpretq_s8_s32(vdupq_n_s32(four));
}

inline int32_t code_sum(const int8_t* q, int64_t dim) {  // a multiple of four
  int32x4_t sums = vdupq_n_s32(0);
  const int8x16_t ones = vdupq_n_s8(1);
  int64_t d = 0;
  for (; d + 16 <= dim; d += 16) sums = vdotq_s32(sums, vld1q_s8(q + d), ones);
  int32_t sum = vaddvq_s32(sums);
  for (; d < dim; ++d) sum += q[d];
  return sum;
}

// Where the products of a query start, so that they end as those of stored codes do.
inline int32_t start_of(const int8_t* q, int64_t dim, int32_t bias) {
  constexpr int32_t taken = kCodeOffset - kStoredOffset;
  return taken ? bias + taken * code_sum(q, dim) : bias;
}

// Products of kQueries queries with kTogether blocks: 16 chains of additions, which hide the time
// of each.
template <int kQueries, int kTogether>
struct Tile {
  static_assert(kQueries * kTogether == 4, "16 sums fit the registers");
  int32x4_t sums[kQueries][kTogether][kParts];

  explicit Tile(const int32_t* starts) {
    for (int q = 0; q < kQueries; ++q)
      for (int b = 0; b < kTogether; ++b)
        for (int part = 0; part < kParts; ++part) sums[q][b][part] = vdupq_n_s32(starts[q]);
  }

  template <int kGroup>
  inline void add(const uint8_t* codes, int64_t block_bytes, const int8x16_t* query) {
    for (int b = 0; b < kTogether; ++b) {
      const uint8_t* group = codes + b * block_bytes + kGroup * kGroupBytes;
      __builtin_prefetch(group + kPrefetchBytes);
      for (int part = 0; part < kParts; ++part) {
        const Codes rows = load_codes(group + part * 16);
        for (int q = 0; q < kQueries; ++q)
          sums[q][b][part] = dot<kGroup>(sums[q][b][part], rows, query[q]);
      }
    }
  }

  void walk(const uint8_t* codes, int64_t groups, const int8_t* queries) {
    const int64_t block_bytes = groups * kGroupBytes, stride = groups * kGroupDims;
    int64_t g = 0;
    int8x16_t query[kQueries];
    for (; g + kGroupsTogether <= groups; g += kGroupsTogether) {
      for (int q = 0; q < kQueries; ++q)
        query[q] = load_query(queries + q * stride + g * kGroupDims);
      const uint8_t* at = codes + g * kGroupBytes;
      add<0>(at, block_bytes, query);
      add<1>(at, block_bytes, query);
      add<2>(at, block_bytes, query);
      add<3>(at, block_bytes, query);
    }
    for (; g < groups; ++g) {
      for (int q = 0; q < kQueries; ++q)
        query[q] = broadcast_group(queries + q * stride + g * kGroupDims);
      add<0>(codes + g * kGroupBytes, block_bytes, query);
    }
  }

  void store(int32_t* dots) const {
    for (int q = 0; q < kQueries; ++q)
      for (int b = 0; b < kTogether; ++b)
        for (int part = 0; part < kParts; ++part)
          vst1q_s32(dots + q * kStripRows + b * kBlockRows + part * 4, sums[q][b][part]);
  }
};

template <int kQueries>
inline void dot_blocks(const CodeArgs& strip, int64_t query, int64_t block, const int32_t* starts,
                       int32_t* dots) {
  Tile<kQueries, 4 / kQueries> tile(starts);
  tile.walk(strip.codes + block * strip.groups * kGroupBytes, strip.groups,
            strip.queries + query * strip.groups * kGroupDims);
  tile.store(dots + block * kBlockRows);
}

// The products of kQueries queries with a strip, at `dots`.
template <int kQueries>
inline void dot_strip(const CodeArgs& strip, int64_t query, int32_t* dots) {
  int32_t starts[kQueries];
  const int64_t dim = strip.groups * kGroupDims;
  for (int q = 0; q < kQueries; ++q)
    starts[q] = start_of(strip.queries + (query + q) * dim, dim, strip.bias[query + q]);
  for (int64_t block = 0; block < kBlocks; block += 4 / kQueries)
    dot_blocks<kQueries>(strip, query, block, starts, dots);
}

// Calls act(query, n) after the products of n queries stand at dots_of(query): four at a time, then
// two, then one.
template <class Dots, class Act>
inline void walk_queries(const CodeArgs& strip, const Dots& dots_of, const Act& act) {
  int64_t query = 0;
  for (; query + 4 <= strip.n_queries; query += 4) {
    dot_strip<4>(strip, query, dots_of(query));
    act(query, 4);
  }
  if (query + 2 <= strip.n_queries) {
    dot_strip<2>(strip, query, dots_of(query));
    act(query, 2);
    query += 2;
  }
  if (query < strip.n_queries) {
    dot_strip<1>(strip, query, dots_of(query));
    act(query, 1);
  }
}

// A bit for each of 16 rows whose mask is all ones.
inline uint64_t bits_of(const uint32x4_t masks[4]) {
  const uint8x16_t powers = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  const uint16x8_t low = vcombine_u16(vmovn_u32(masks[0]), vmovn_u32(masks[1]));
  const uint16x8_t high = vcombine_u16(vmovn_u32(masks[2]), vmovn_u32(masks[3]));
  const uint8x16_t bytes = vandq_u8(vcombine_u8(vmovn_u16(low), vmovn_u16(high)), powers);
  return uint64_t{vaddv_u8(vget_low_u8(bytes))} | uint64_t{vaddv_u8(vget_high_u8(bytes))} << 8;
}

uint64_t filter(const StripArgs& strip, int64_t query, const int32_t* dots) {
  const float32x4_t reach = vdupq_n_f32(strip.reach[query]);
  const float32x4_t threshold = vdupq_n_f32(strip.threshold[query]);
  const float32x4_t ratio = vdupq_n_f32(strip.ratio), up = vdupq_n_f32(1 + 0x1p-22f);
  const float32x4_t fall = vdupq_n_f32(strip.half_square ? strip.fall[query] : 0.0f);
  uint64_t below = 0;
  for (int64_t at = 0; at < kStripRows; at += 16) {
    uint32x4_t masks[4];
    for (int part = 0; part < 4; ++part) {
      const int64_t row = at + 4 * part;
      const float32x4_t weight = vmulq_f32(
          vfmaq_f32(vld1q_f32(strip.error + row), ratio, vld1q_f32(strip.norm + row)), up);
      float32x4_t value =
          vmulq_f32(vcvtq_f32_s32(vld1q_s32(dots + row)), vld1q_f32(strip.scale + row));
      value = vfmaq_f32(value, reach, weight);
      if (strip.half_square) value = vfmsq_f32(value, fall, vld1q_f32(strip.half_square + row));
      masks[part] = vcltq_f32(value, threshold);
    }
    below |= bits_of(masks) << at;
  }
  return ~below;  // NaN survives
}

#include "cpu/generic/hits.inl"

void report(const StripArgs& strip, int64_t query, const int32_t* dots) {
  hand_over(strip, query, filter(strip, query, dots), dots);
}

void scan(const StripArgs& strip) {
  walk_queries(
      strip, [&](int64_t) { return strip.dots; },
      [&](int64_t query, int n) {
        for (int q = 0; q < n; ++q) report(strip, query + q, strip.dots + q * kStripRows);
      });
}

inline uint64_t judge(const HeadArgs& leaf, const int32_t* dots) {
  uint64_t below = 0;
  for (int64_t at = 0; at < kStripRows; at += 16) {
    uint32x4_t masks[4];
    for (int part = 0; part < 4; ++part) {
      const int64_t row = at + 4 * part;
      masks[part] = vcltzq_s32(vaddq_s32(vld1q_s32(dots + row), vld1q_s32(leaf.starts + row)));
    }
    below |= bits_of(masks) << at;
  }
  return ~below;
}

void heads(const HeadArgs& leaf) {
  const auto dots_of = [&](int64_t query) {
    return leaf.dots + (leaf.keep_dots ? query * kStripRows : 0);
  };
  walk_queries(leaf, dots_of, [&](int64_t query, int n) {
    for (int q = 0; q < n; ++q)
      leaf.survivors[query + q] = judge(leaf, dots_of(query) + q * kStripRows);
  });
}

#include "cpu/generic/boxes.inl"

void boxes(const BoxArgs& args) { test_boxes(args); }

void records(const RecordArgs& args) {
  const int32_t start = start_of(args.query, args.dim, args.bias);
  for (int64_t row = 0; row < args.n_rows; ++row) {
    const uint8_t* codes = args.codes[row];
    int32x4_t sums[2] = {vdupq_n_s32(0), vdupq_n_s32(0)};
    int64_t d = 0;
    for (int c = 0; d + 16 <= args.dim; d += 16, c ^= 1)
      sums[c] = dot_all(sums[c], load_codes(codes + d), load_query(args.query + d));
    int32_t dot = start + vaddvq_s32(vaddq_s32(sums[0], sums[1]));
    for (; d < args.dim; ++d) dot += (codes[d] - (kCodeOffset - kStoredOffset)) * args.query[d];
    args.dots[row] = dot;
  }
}

uint64_t read_all(const uint8_t* data, int64_t n_bytes) {
  uint8x16_t sums[4] = {};
  for (int64_t i = 0; i + 64 <= n_bytes; i += 64) {
    __builtin_prefetch(data + i + kPrefetchBytes);
    for (int j = 0; j < 4; ++j) sums[j] = veorq_u8(sums[j], vld1q_u8(data + i + j * 16));
  }
  const uint64x2_t both =
      vreinterpretq_u64_u8(veorq_u8(veorq_u8(sums[0], sums[1]), veorq_u8(sums[2], sums[3])));
  return vgetq_lane_u64(both, 0) ^ vgetq_lane_u64(both, 1);
}

int64_t multiply_all(int64_t rounds, int32_t* sink) {
  constexpr int kChains = 16;
  int32x4_t sums[kChains];
  int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(sink[0]));
  for (int c = 0; c < kChains; ++c) sums[c] = vdupq_n_s32(c);
  for (int64_t i = 0; i < rounds; ++i) {
    asm volatile("" : "+w"(x));  // keeps the loop: its operands may have changed
    for (int c = 0; c < kChains; ++c) sums[c] = vdotq_s32(sums[c], x, x);
  }
  for (int c = 1; c < kChains; ++c) sums[0] = vaddq_s32(sums[0], sums[c]);
  vst1q_s32(sink, sums[0]);
  return rounds * kChains * 16;
}
