#include "cpu/mask.hpp"

#include <algorithm>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "cpu/pool.hpp"

namespace fastretrieve::cpu {

constexpr int64_t kWordRows = 64;
constexpr int64_t kTaskWords = 4096;  // 256 KiB of values

uint64_t pack_word(const uint8_t* values) {
#if defined(__SSE2__)
  uint64_t zeros = 0;
  for (int part = 0; part < 4; ++part) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(values + 16 * part));
    const int mask = _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_setzero_si128()));
    zeros |= static_cast<uint64_t>(mask) << (16 * part);
  }
  return ~zeros;
#else
  uint64_t word = 0;
  for (int64_t i = 0; i < kWordRows; ++i) word |= uint64_t{values[i] != 0} << i;
  return word;
#endif
}

namespace {

// A removed row takes no value. Its bit may be anything, because the scan reads `live` too. There
// is no branch: live rows are hard to predict. Reads up to 64 values.
uint64_t pack_live(const uint8_t* values, uint64_t live) {
  uint64_t word = 0;
  for (int64_t row = 0; row < kWordRows; ++row, live >>= 1) {
    word |= uint64_t{*values != 0} << row;
    values += live & 1;
  }
  return word;
}

// The same if fewer than 64 values are left.
uint64_t pack_last_live(const uint8_t* values, int64_t n, uint64_t live) {
  uint64_t word = 0;
  for (int64_t i = 0; i < n && live; ++i, live &= live - 1)
    word |= uint64_t{values[i] != 0} << __builtin_ctzll(live);
  return word;
}

// Words [begin, end) of a mask. `values` begins with the value of the first row; `n_values` are
// left.
void pack_words(const PackArgs& args, const uint8_t* values, int64_t n_values, int64_t begin,
                int64_t end, uint64_t* words) {
  for (int64_t w = begin; w < end; ++w) {
    const uint64_t live = args.live ? args.live[w] : ~uint64_t{0};
    if (n_values < kWordRows) {
      words[w] = pack_last_live(values, n_values, live);
    } else {
      words[w] = live == ~uint64_t{0} ? pack_word(values) : pack_live(values, live);
    }
    const int64_t taken = std::min<int64_t>(__builtin_popcountll(live), n_values);
    values += taken;
    n_values -= taken;
  }
}

}  // namespace

void pack_mask(const PackArgs& args, Cancel& cancel) {
  const int64_t n_words = (args.n_rows + kWordRows - 1) / kWordRows;
  // If all rows live, a word's place is its values' place, so tasks can share a mask.
  const int64_t part = args.live ? std::max<int64_t>(n_words, 1) : kTaskWords;
  const int64_t n_parts = (n_words + part - 1) / part;
  const auto task = [&](int64_t index, int) {
    const int64_t mask = index / n_parts, begin = index % n_parts * part;
    const uint8_t* values = args.values + mask * args.stride;
    pack_words(args, values + begin * kWordRows, args.n_values - begin * kWordRows, begin,
               std::min(begin + part, n_words), args.words + mask * n_words);
  };
  parallel(args.n_masks * n_parts, num_threads(), task, cancel);
}

void mark_rows(const MarkArgs& args, Cancel& cancel) {
  const int64_t n_words = (args.n_rows + kWordRows - 1) / kWordRows;
  const auto task = [&](int64_t mask, int) {
    const int64_t* numbers = args.numbers + mask * args.n_numbers;
    uint64_t* words = args.words + mask * n_words;
    for (int64_t i = 0; i < args.n_numbers; ++i) {
      const uint64_t row = static_cast<uint64_t>(numbers[i]) - static_cast<uint64_t>(args.first);
      if (row < static_cast<uint64_t>(args.n_rows))
        words[row / kWordRows] |= uint64_t{1} << (row % kWordRows);
    }
  };
  parallel(args.n_masks, num_threads(), task, cancel);
}

}  // namespace fastretrieve::cpu
