// NEON with SDOT, which multiplies signed bytes: the top bit of a stored code is flipped when it is
// loaded, which takes its offset away.
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

bool supported() { return has_dot_products(); }

using Codes = int8x16_t;
constexpr int32_t kStoredOffset = 0;
inline Codes load_codes(const uint8_t* p) {
  return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(p), vdupq_n_u8(kCodeOffset)));
}
template <int kGroup>
inline int32x4_t dot(int32x4_t sum, Codes codes, int8x16_t query) {
  return vdotq_laneq_s32(sum, codes, query, kGroup);
}
inline int32x4_t dot_all(int32x4_t sum, Codes codes, int8x16_t query) {
  return vdotq_s32(sum, codes, query);
}

#include "cpu/neon/lanes.inl"
#include "cpu/neon/scans.inl"

}  // namespace

const Kernels* neon_kernels() {
  static const Kernels table = {"neon", supported,  scan,     heads,      boxes,    records,
                                60.0,   score,      products, survey,     quantise, widen,
                                centre, square_sum, weigh,    divide_row, read_all, multiply_all};
  return &table;
}

}  // namespace fastretrieve::cpu
