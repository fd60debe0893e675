// Row masks, a bit for each row, made from booleans or row numbers.
#pragma once
#include <cstdint>

#include "core/cancel.hpp"

namespace fastretrieve::cpu {

// Booleans over the live rows of a segment, in order of row.
struct PackArgs {
  const uint8_t* values;  // [n_masks, n_values] at `stride`; zero is false
  int64_t n_values;       // as many as rows are live
  int64_t stride;
  int64_t n_masks;
  const uint64_t* live;  // null: all rows are live
  int64_t n_rows;
  uint64_t* words;  // [n_masks, (n_rows + 63) / 64], all written
};
void pack_mask(const PackArgs& args, Cancel& cancel);

// A word from 64 booleans.
uint64_t pack_word(const uint8_t* values);

// Sets the bits of rows `numbers[i] - first`. Skips numbers outside [first, first + n_rows).
struct MarkArgs {
  const int64_t* numbers;  // [n_masks, n_numbers]
  int64_t n_numbers;
  int64_t n_masks;
  int64_t first;
  int64_t n_rows;
  uint64_t* words;  // [n_masks, (n_rows + 63) / 64]
};
void mark_rows(const MarkArgs& args, Cancel& cancel);

}  // namespace fastretrieve::cpu
