#include "cpu/mask.hpp"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "cpu/pool.hpp"

namespace fastretrieve::cpu {
namespace {

constexpr int64_t kWordRows = 64;

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

// A row that is not live takes no value; its bit may be anything, for the scan looks at `live` too.
// No branch: which rows are live is hard to predict. Reads up to 64 values.
uint64_t pack_live(const uint8_t* values, uint64_t live) {
  uint64_t word = 0;
  for (int64_t row = 0; row < kWordRows; ++row, live >>= 1) {
    word |= uint64_t{*values != 0} << row;
    values += live & 1;
  }
  return word;
}

// The same where fewer than 64 values are left.
uint64_t pack_last_live(const uint8_t* values, int64_t n, uint64_t live) {
  uint64_t word = 0;
  for (int64_t i = 0; i < n && live; ++i, live &= live - 1)
    word |= uint64_t{values[i] != 0} << __builtin_ctzll(live);
  return word;
}

void pack_one(const PackArgs& args, const uint8_t* values, uint64_t* words) {
  const uint8_t* const end = values + args.n_values;
  for (int64_t row = 0; row < args.n_rows; row += kWordRows, ++words) {
    const uint64_t live = args.live ? args.live[row / kWordRows] : ~uint64_t{0};
    if (end - values < kWordRows) {
      *words = pack_last_live(values, end - values, live);
    } else {
      *words = live == ~uint64_t{0} ? pack_word(values) : pack_live(values, live);
    }
    const int64_t taken = __builtin_popcountll(live);
    values += taken < end - values ? taken : end - values;
  }
}

}  // namespace

void pack_mask(const PackArgs& args, Cancel& cancel) {
  const int64_t n_words = (args.n_rows + kWordRows - 1) / kWordRows;
  const auto task = [&](int64_t mask, int) {
    pack_one(args, args.values + mask * args.stride, args.words + mask * n_words);
  };
  parallel(args.n_masks, num_threads(), task, cancel);
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
