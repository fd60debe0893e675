// wgmma.mma_async.m64nNk32 on signed bytes: four warps multiply 64 rows, each warp 16 of them.
//
// Asynchronous as on Hopper: from the instruction to the wait, its accumulators are poison and its
// operands in shared memory are still unread. The rules of the warpgroup are checked: all lanes and
// warps issue the same instructions, registers are fenced first, ordinary stores to shared memory
// have had their fence.proxy.async.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "emu/ptx_async.hpp"
#include "emu/ptx_mma.hpp"

namespace emu {

// The operands of one lane; `a` is null if A comes from shared memory.
struct WgmmaOperand {
  int* accumulator;
  const std::uint32_t* a;
  std::uint64_t a_descriptor;
  std::uint64_t b_descriptor;
  int n;
  bool accumulate;
};

namespace names {
inline constexpr char kWgmma[] = "wgmma.mma_async";
inline constexpr char kWgmmaFence[] = "wgmma.fence";
inline constexpr char kWgmmaCommit[] = "wgmma.commit_group";
inline constexpr char kWgmmaWait[] = "wgmma.wait_group";
}  // namespace names

inline WgmmaState& wgmma_state() {
  Block& block = block_here();
  return block.warp_of(*block.running).wgmma;
}

// The place of 16 bytes (`half` 0 or 1 of 32) of row `row` in a K-major operand. A descriptor has
// start (14 bits), leading stride and row-group stride, all over 16; base offset; and the swizzle
// mode in bits 62-63.
inline std::uint32_t descriptor_address(std::uint64_t descriptor, unsigned row, unsigned half) {
  const auto field = [descriptor](int shift) {
    return static_cast<std::uint32_t>(descriptor >> shift & 0x3fff) << 4;
  };
  const std::uint32_t start = field(0);
  const std::uint32_t group = (row / 8) * field(32);
  const unsigned mode = static_cast<unsigned>(descriptor >> 62);
  if (mode == 0) return start + group + (row % 8) * 16 + half * field(16);
  const std::uint32_t width = 256u >> mode;  // 128, 64, 32 bytes
  const std::uint32_t address = start + group + (row % 8) * width + half * 16;
  const std::uint32_t pattern = width / 16 - 1;  // 7, 3, 1
  return address ^ ((address >> 7 & pattern) << 4);
}

inline void check_descriptor(std::uint64_t descriptor) {
  if ((descriptor >> 49 & 7) != 0) fail("wgmma: only base offset 0 is emulated");
  const unsigned mode = static_cast<unsigned>(descriptor >> 62);
  const std::uint32_t start = static_cast<std::uint32_t>(descriptor & 0x3fff) << 4;
  const std::uint32_t pattern = mode == 0 ? 0 : (256u >> mode) / 16 - 1;
  if ((start >> 7 & pattern) != 0) {
    fail("wgmma: a swizzled operand starts at shared address " + hex(start) +
         ", which is not aligned to its pattern of " + std::to_string((pattern + 1) * 128) +
         " bytes");
  }
}

// Rows of int16 from shared memory, read on the kernel's behalf.
inline void unpack_shared(std::int16_t (*to)[kTileK], std::uint64_t descriptor, unsigned first_row,
                          unsigned n_rows) {
  for (unsigned r = 0; r < n_rows; r++) {
    for (unsigned half = 0; half < 2; half++) {
      const std::uint32_t address = descriptor_address(descriptor, first_row + r, half);
      const auto* bytes =
          reinterpret_cast<const std::int8_t*>(shared_at(names::kWgmma, address, 16));
      {
        const Tracked read;
        track_read(bytes, 16);
      }
      for (unsigned i = 0; i < 16; i++) to[r][half * 16 + i] = bytes[i];
    }
  }
}

// Accumulator i of lane 4 * g + t: row g + 8 * (i / 2 % 2), column 8 * (i / 4) + 2 * t + i % 2.
inline std::int32_t& tile_value(WgmmaTile& tile, unsigned lane, int i) {
  const int row = static_cast<int>(lane / 4) + 8 * (i / 2 % 2);
  const int column = 8 * (i / 4) + 2 * static_cast<int>(lane % 4) + i % 2;
  return tile.values[static_cast<std::size_t>(row * tile.n + column)];
}

// The pending tile of these accumulators, or a new one. From now to the wait they are poison.
inline WgmmaTile& find_tile(WgmmaState& state, void** operands, int n) {
  int* const first = static_cast<WgmmaOperand*>(operands[0])->accumulator;
  for (auto& tile : state.tiles) {
    if (tile->n_pending == 0 || tile->accumulators[0] != first) continue;
    if (tile->n != n) fail("wgmma: accumulators are pending with another N");
    return *tile;
  }
  WgmmaTile* free_tile = nullptr;
  for (auto& tile : state.tiles) {
    if (tile->n_pending == 0) free_tile = tile.get();
  }
  if (free_tile == nullptr) {
    free_tile = state.tiles.emplace_back(std::make_unique<WgmmaTile>()).get();
  }
  free_tile->n = n;
  free_tile->n_pending = 0;
  free_tile->values.resize(static_cast<std::size_t>(16 * n));
  for (unsigned lane = 0; lane < kWarp; lane++) {
    int* registers = static_cast<WgmmaOperand*>(operands[lane])->accumulator;
    free_tile->accumulators[lane] = registers;
    for (int i = 0; i < n / 2; i++) tile_value(*free_tile, lane, i) = registers[i];
    std::memset(registers, kPoison, sizeof(int) * static_cast<std::size_t>(n / 2));
  }
  return *free_tile;
}

// All lanes of the warp agree with each other, and the warp with the rest of its warpgroup.
inline void check_warpgroup(Block& block, WgmmaState& state, void** operands) {
  const auto& mine = *static_cast<WgmmaOperand*>(operands[0]);
  for (unsigned lane = 1; lane < kWarp; lane++) {
    const auto& other = *static_cast<WgmmaOperand*>(operands[lane]);
    if (other.n != mine.n || (other.a == nullptr) != (mine.a == nullptr) ||
        other.a_descriptor != mine.a_descriptor || other.b_descriptor != mine.b_descriptor ||
        other.accumulate != mine.accumulate) {
      fail("wgmma: lanes 0 and " + std::to_string(lane) +
           " of a warp differ in shape, descriptor or " + "accumulation");
    }
  }
  const unsigned warpgroup = block.running->warp() / 4;
  if ((warpgroup + 1) * 4 * kWarp > block.n_threads)
    fail("wgmma: the warpgroup lacks some of its 128 threads");
  const std::uint64_t shape = static_cast<std::uint64_t>(mine.n) << 2 |
                              static_cast<std::uint64_t>(mine.a != nullptr) << 1 |
                              static_cast<std::uint64_t>(mine.accumulate);
  const std::uint64_t entry[] = {shape, mine.a_descriptor, mine.b_descriptor};
  auto& log = block.wgmma_log[warpgroup];
  for (const std::uint64_t word : entry) {
    if (state.n_issued == log.size()) log.push_back(word);
    if (log[state.n_issued++] != word)
      fail("wgmma: the warps of a warpgroup issue different instructions");
  }
}

inline void wgmma_issue(const WgmmaOperand& operand) {
  exchange(names::kWgmma, kFullMask, const_cast<WgmmaOperand*>(&operand), [](void** operands) {
    Block& block = block_here();
    WgmmaState& state = wgmma_state();
    check_warpgroup(block, state, operands);
    const auto& mine = *static_cast<WgmmaOperand*>(operands[0]);
    if (!state.fenced) fail("wgmma.mma_async without a wgmma.fence since the last wait");
    if (!block.proxy_fenced)
      fail("wgmma reads shared memory, but no thread has done fence.proxy.async");
    check_descriptor(mine.b_descriptor);
    if (mine.a == nullptr) check_descriptor(mine.a_descriptor);
    WgmmaTile& tile = find_tile(state, operands, mine.n);
    tile.n_pending++;
    WgmmaOp& op = state.queue.ops.emplace_back();
    op.tile = &tile;
    op.a_in_registers = mine.a != nullptr;
    op.accumulate = mine.accumulate;
    op.a_descriptor = mine.a_descriptor;
    op.b_descriptor = mine.b_descriptor;
    if (!op.a_in_registers) return;
    for (unsigned lane = 0; lane < kWarp; lane++) {
      unpack_a(op.a, lane, static_cast<WgmmaOperand*>(operands[lane])->a);
    }
  });
}

inline void wgmma_run(WgmmaOp& op) {
  MatrixScratch& scratch = block_here().scratch;
  WgmmaTile& tile = *op.tile;
  const unsigned first_row = thread_here().warp() % 4 * 16;
  if (!op.a_in_registers) unpack_shared(op.a, op.a_descriptor, first_row, 16);
  unpack_shared(scratch.b, op.b_descriptor, 0, static_cast<unsigned>(tile.n));
  multiply_tile(op.a, scratch.b, tile.n, scratch.sums);
  for (std::size_t i = 0; i < tile.values.size(); i++) {
    tile.values[i] =
        op.accumulate ? wrapping_add(tile.values[i], scratch.sums[i]) : scratch.sums[i];
  }
  if (--tile.n_pending != 0) return;
  for (unsigned lane = 0; lane < kWarp; lane++) {
    for (int i = 0; i < tile.n / 2; i++) tile.accumulators[lane][i] = tile_value(tile, lane, i);
  }
}

namespace ptx {

inline void wgmma_fence() {
  exchange(names::kWgmmaFence, kFullMask, nullptr, [](void**) { wgmma_state().fenced = true; });
}
inline void wgmma_commit() {
  exchange(names::kWgmmaCommit, kFullMask, nullptr, [](void**) { wgmma_state().queue.commit(); });
}
template <int kUnfinished>
inline void wgmma_wait() {
  static_assert(kUnfinished >= 0 && kUnfinished <= 7,
                "a number of groups that may stay unfinished");
  exchange(names::kWgmmaWait, kFullMask, nullptr, [](void**) {
    wgmma_state().queue.wait(kUnfinished, wgmma_run);
    wgmma_state().fenced = false;
  });
}
template <int kUnfinished, int kRegisters>
inline void wgmma_wait(int (&)[kRegisters]) {
  wgmma_wait<kUnfinished>();
}
inline void wgmma_release(const std::uint32_t (&)[4]) {}

template <int kN>
inline void wgmma_s8(int (&d)[kN / 2], std::uint64_t a_descriptor, std::uint64_t b_descriptor,
                     bool accumulate) {
  static_assert(kN == 8 || kN == 16 || kN == 32 || kN == 64 || kN == 128 || kN == 256, "");
  wgmma_issue({d, nullptr, a_descriptor, b_descriptor, kN, accumulate});
}
template <int kN>
inline void wgmma_s8(int (&d)[kN / 2], const std::uint32_t (&a)[4], std::uint64_t b_descriptor,
                     bool accumulate) {
  static_assert(kN == 8 || kN == 16 || kN == 32 || kN == 64 || kN == 128 || kN == 256, "");
  wgmma_issue({d, a, 0, b_descriptor, kN, accumulate});
}

}  // namespace ptx
}  // namespace emu
