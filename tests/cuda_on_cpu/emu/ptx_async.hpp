// PTX that moves data (cp.async, ldmatrix, cached loads), with its fences and register hints.
//
// A cp.async reads and writes at the wait that promises it. Until then its destination is poison.
// Operands of asynchronous instructions live in dynamic shared memory, and this is checked.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

#include "emu/warp.hpp"

namespace emu {

inline void check_aligned(const char* name, const void* p, std::size_t alignment) {
  const auto address = reinterpret_cast<std::uintptr_t>(p);
  if (address % alignment == 0) return;
  fail(std::string(name) + ": the address is " + std::to_string(address % alignment) +
       " bytes past a multiple of " + std::to_string(alignment));
}

// Offset in dynamic shared memory, after checking that all `n_bytes` lie there.
inline std::size_t shared_offset(const char* name, const void* p, std::size_t n_bytes) {
  const Block& block = block_here();
  const auto address = reinterpret_cast<std::uintptr_t>(p);
  const auto begin = reinterpret_cast<std::uintptr_t>(block.shared);
  if (address >= begin && address + n_bytes <= begin + block.config.shared_bytes) {
    return address - begin;
  }
  fail(std::string(name) + ": not inside the block's " + std::to_string(block.config.shared_bytes) +
       " bytes of dynamic shared memory");
}

// The memory at an 18-bit shared-memory address. Addresses start at kSharedBase, so 0 is none.
inline const unsigned char* shared_at(const char* name, std::uint32_t address,
                                      std::size_t n_bytes) {
  const Block& block = block_here();
  if (address >= kSharedBase && address - kSharedBase + n_bytes <= block.config.shared_bytes) {
    return block.shared + (address - kSharedBase);
  }
  fail(std::string(name) + ": shared address " + hex(address) + " is outside of the block's " +
       std::to_string(block.config.shared_bytes) + " bytes, which start at " + hex(kSharedBase));
}

namespace names {
inline constexpr char kLdmatrix[] = "ldmatrix";
inline constexpr char kSetmaxnreg[] = "setmaxnreg";
}  // namespace names

namespace ptx {

inline std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(shared_offset("shared_address", p, 0) + kSharedBase);
}

inline void cp_async_16_zfill(void* shared, const void* global, int n_bytes) {
  check_aligned("cp.async to shared", shared, 16);
  check_aligned("cp.async from global", global, 16);
  shared_offset("cp.async", shared, 16);
  if (n_bytes < 0 || n_bytes > 16)
    fail("cp.async copies 0 to 16 bytes, got " + std::to_string(n_bytes));
  track_write(shared, 16);
  std::memset(shared, kPoison, 16);
  thread_here().copies.ops.push_back({static_cast<unsigned char*>(shared),
                                      static_cast<const unsigned char*>(global),
                                      static_cast<unsigned>(n_bytes)});
}
inline void cp_async_16(void* shared, const void* global) { cp_async_16_zfill(shared, global, 16); }
inline void cp_async_commit() { thread_here().copies.commit(); }

template <int kUnfinished>
inline void cp_async_wait() {
  static_assert(kUnfinished >= 0, "a number of groups that may stay unfinished");
  thread_here().copies.wait(kUnfinished, [](const AsyncCopy& copy) {
    track_read(copy.from, copy.n_bytes);
    track_write(copy.to, 16);
    std::memset(copy.to, 0, 16);
    std::memcpy(copy.to, copy.from, copy.n_bytes);
  });
}

// Lane l addresses row l % 8 of matrix l / 8; register m of lane l is word l % 4 of row l / 4 of
// matrix m.
inline void ldmatrix_x4(std::uint32_t (&registers)[4], const void* row) {
  check_aligned("ldmatrix", row, 16);
  shared_offset("ldmatrix", row, 16);
  struct Operand {
    std::uint32_t row[4];
    std::uint32_t* registers;
  } operand{{}, registers};
  track_read(row, 16);
  std::memcpy(operand.row, row, 16);
  exchange(names::kLdmatrix, kFullMask, &operand, [](void** operands) {
    for (unsigned lane = 0; lane < kWarp; lane++) {
      for (unsigned m = 0; m < 4; m++) {
        const auto* source = static_cast<Operand*>(operands[8 * m + lane / 4]);
        static_cast<Operand*>(operands[lane])->registers[m] = source->row[lane % 4];
      }
    }
  });
}

inline uint4 ld_global_nc_no_allocate(const void* p) {
  check_aligned("ld.global.nc.v4", p, 16);
  return *static_cast<const uint4*>(p);
}

inline float cvt_f32_f16(std::uint16_t bits) {
  const std::uint32_t sign = std::uint32_t{bits & 0x8000u} << 16;
  const std::uint32_t exponent = bits >> 10 & 0x1fu;
  const std::uint32_t fraction = bits & 0x3ffu;
  if (exponent == 0) {  // zero or subnormal: fraction * 2^-24, exact
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return sign != 0 ? -magnitude : magnitude;
  }
  const std::uint32_t wide_exponent = exponent == 31 ? 255u : exponent + 112u;
  const std::uint32_t wide = sign | wide_exponent << 23 | fraction << 13;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

inline void fence_proxy_async() {
  const Untracked bookkeeping;
  block_here().proxy_fenced = true;
}

inline void grid_launch_dependents() {}
inline void grid_wait() {
  const Untracked bookkeeping;
  thread_here().waited_for_grid = true;
}

template <int kRegisters>
inline void setmaxnreg_inc() {
  static_assert(kRegisters >= 24 && kRegisters <= 256 && kRegisters % 8 == 0,
                "setmaxnreg takes a multiple of 8 from 24 to 256");
  exchange(names::kSetmaxnreg, kFullMask, nullptr, [](void**) {});
}
template <int kRegisters>
inline void setmaxnreg_dec() {
  setmaxnreg_inc<kRegisters>();
}

}  // namespace ptx
}  // namespace emu
