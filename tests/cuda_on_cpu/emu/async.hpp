// Pending operations: asynchronous copies of a thread, asynchronous matrix products of a warp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace emu {

constexpr unsigned kWarp = 32;
constexpr int kTileK = 32;  // bytes of a row that one matrix instruction multiplies

struct AsyncCopy {
  unsigned char* to;
  const unsigned char* from;
  unsigned n_bytes;  // the rest of the 16 is zero
};

// First-in-first-out operations in commit groups. `wait` takes how many groups may stay unfinished.
template <class Op>
struct GroupQueue {
  std::vector<Op> ops;
  std::vector<std::size_t> group_ends;  // index in `ops` where each committed group ends

  void commit() { group_ends.push_back(ops.size()); }
  bool empty() const { return ops.empty(); }

  template <class Run>
  void wait(std::size_t n_unfinished, Run&& run) {
    if (group_ends.size() <= n_unfinished) return;
    const std::size_t n_groups = group_ends.size() - n_unfinished;
    const std::size_t end = group_ends[n_groups - 1];
    for (std::size_t i = 0; i < end; i++) run(ops[i]);
    ops.erase(ops.begin(), ops.begin() + static_cast<std::ptrdiff_t>(end));
    group_ends.erase(group_ends.begin(),
                     group_ends.begin() + static_cast<std::ptrdiff_t>(n_groups));
    for (std::size_t& group_end : group_ends) group_end -= end;
  }
  void clear() {
    ops.clear();
    group_ends.clear();
  }
};

// The accumulator of a warp while instructions on it are pending: 16 rows of n columns.
struct WgmmaTile {
  int* accumulators[kWarp];
  int n;
  int n_pending;
  std::vector<std::int32_t> values;
};

struct WgmmaOp {
  WgmmaTile* tile;
  bool a_in_registers;
  bool accumulate;
  std::uint64_t a_descriptor;
  std::uint64_t b_descriptor;
  alignas(64) std::int16_t a[16][kTileK];  // if it came from registers
};

// Room for the unpacked operands of an instruction, which are too large for a fiber's stack.
struct MatrixScratch {
  alignas(64) std::int16_t b[256][kTileK];
  alignas(64) std::int32_t sums[16 * 256];
};

struct WgmmaState {  // of one warp
  GroupQueue<WgmmaOp> queue;
  std::vector<std::unique_ptr<WgmmaTile>> tiles;
  std::size_t n_issued = 0;
  bool fenced = false;
};

}  // namespace emu
