// NEON with USDOT, which multiplies unsigned codes by signed queries as they are stored.
#include <arm_neon.h>
#if defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#include "core/screen.hpp"
#include "core/strip.hpp"
#include "cpu/kernels.hpp"

namespace fastretrieve::cpu {
namespace {

#include "cpu/neon/features.inl"

bool supported() { return has_dot_products() && has_mixed_products(); }

using Codes = uint8x16_t;
constexpr int32_t kStoredOffset = kCodeOffset;
inline Codes load_codes(const uint8_t* p) { return vld1q_u8(p); }
template <int kGroup>
inline int32x4_t dot(int32x4_t sum, Codes codes, int8x16_t query) {
  return vusdotq_laneq_s32(sum, codes, query, kGroup);
}
inline int32x4_t dot_all(int32x4_t sum, Codes codes, int8x16_t query) {
  return vusdotq_s32(sum, codes, query);
}

#include "cpu/neon/lanes.inl"
#include "cpu/neon/scans.inl"

}  // namespace

const Kernels* i8mm_kernels() {
  static const Kernels table = {"i8mm", supported,  scan,     heads,      boxes,    records,
                                60.0,   score,      products, survey,     quantise, widen,
                                centre, square_sum, weigh,    divide_row, read_all, multiply_all};
  return &table;
}

}  // namespace fastretrieve::cpu
