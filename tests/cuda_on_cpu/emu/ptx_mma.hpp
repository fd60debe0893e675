// mma.sync.m16n8k32 on signed bytes, and the 16-row product that wgmma shares with it.
//
// Fragments, with lane = 4 * g + t: register r of A holds row g + 8 * (r % 2), bytes
// 4 * t + 16 * (r / 2) and the next three; register r of B holds column g, bytes 4 * t + 16 * r;
// accumulator i is row g + 8 * (i / 2), column 2 * t + i % 2. (PTX ISA, "mma.m16n8k32".)
#pragma once

#include <cstdint>

#include "emu/warp.hpp"

namespace emu {

// out[m][n] = a[m] . b[n]; local arrays only, so sanitizers need not look.
__attribute__((optimize("O3"), no_sanitize("address", "thread", "undefined"))) inline void
multiply_tile(const std::int16_t (*a)[kTileK], const std::int16_t (*b)[kTileK], int n_columns,
              std::int32_t* out) {
  for (int m = 0; m < 16; m++) {
    for (int n = 0; n < n_columns; n++) {
      std::int32_t sum = 0;
      for (int k = 0; k < kTileK; k++) sum += std::int32_t{a[m][k]} * std::int32_t{b[n][k]};
      out[m * n_columns + n] = sum;
    }
  }
}

inline std::int32_t wrapping_add(std::int32_t a, std::int32_t b) {
  return static_cast<std::int32_t>(static_cast<std::uint32_t>(a) + static_cast<std::uint32_t>(b));
}

inline void unpack_word(std::int16_t* to, std::uint32_t word) {
  for (int i = 0; i < 4; i++) to[i] = static_cast<std::int8_t>(word >> (8 * i));
}

// A warp's share of A, 16 rows: register r of lane 4 * g + t.
inline void unpack_a(std::int16_t (*a)[kTileK], unsigned lane, const std::uint32_t* registers) {
  const unsigned g = lane / 4;
  const unsigned t = lane % 4;
  for (unsigned r = 0; r < 4; r++)
    unpack_word(&a[g + 8 * (r % 2)][4 * t + 16 * (r / 2)], registers[r]);
}

namespace names {
inline constexpr char kMma[] = "mma.sync";
}

namespace ptx {

inline void mma_m16n8k32_s8(int (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  struct Operand {
    int* c;
    const std::uint32_t* a;
    const std::uint32_t* b;
  } operand{c, a, b};
  exchange(names::kMma, kFullMask, &operand, [](void** operands) {
    alignas(64) std::int16_t rows[16][kTileK];
    alignas(64) std::int16_t columns[8][kTileK];
    alignas(64) std::int32_t sums[16 * 8];
    for (unsigned lane = 0; lane < kWarp; lane++) {
      const auto& o = *static_cast<Operand*>(operands[lane]);
      unpack_a(rows, lane, o.a);
      for (unsigned r = 0; r < 2; r++)
        unpack_word(&columns[lane / 4][4 * (lane % 4) + 16 * r], o.b[r]);
    }
    multiply_tile(rows, columns, 8, sums);
    for (unsigned lane = 0; lane < kWarp; lane++) {
      int* out = static_cast<Operand*>(operands[lane])->c;
      for (unsigned i = 0; i < 4; i++) {
        const unsigned row = lane / 4 + 8 * (i / 2);
        out[i] = wrapping_add(out[i], sums[row * 8 + 2 * (lane % 4) + i % 2]);
      }
    }
  });
}

}  // namespace ptx
}  // namespace emu
