// The 64-bit descriptor by which wgmma finds an operand in shared memory. Plain bits, so any
// compiler builds it.
#pragma once

#include <cstdint>

namespace fastretrieve::cuda {

// How the 16-byte pieces of a K-major operand are laid out. With a swizzle of w bytes, rows of w
// bytes follow each other. Piece c of row r, counted from an address that is a multiple of 8 * w,
// is stored in place of piece c ^ (r * w / 128 % (w / 16)). Without a swizzle, 8 rows of 16 bytes
// follow each other, and the next 16 bytes of the same rows are `leading_bytes` further.
enum class Swizzle : uint64_t { none = 0, bytes_128 = 1, bytes_64 = 2, bytes_32 = 3 };

// `address` is ptx::shared_address of the operand, plus 32 for each step of K inside a swizzled
// row. The next 8 rows are `group_bytes` further. `leading_bytes` matters only without a swizzle.
__host__ __device__ constexpr uint64_t shared_descriptor(uint32_t address, Swizzle swizzle,
                                                         uint32_t group_bytes,
                                                         uint32_t leading_bytes = 16) {
  return uint64_t{(address & 0x3ffff) >> 4} | uint64_t{leading_bytes >> 4} << 16 |
         uint64_t{group_bytes >> 4} << 32 | static_cast<uint64_t>(swizzle) << 62;
}

}  // namespace fastretrieve::cuda
