// NEON: the eight lanes of a canonical sum are four registers. A table of NEON includes this, and
// then the other .inl files of this folder, inside its anonymous namespace.

struct Lanes {
  float64x2_t v[kLanes / 2];
};

template <class Operation>
inline Lanes each(const Operation& operation) {
  return {{operation(0), operation(1), operation(2), operation(3)}};
}
inline Lanes all(double v) {
  return each([&](int) { return vdupq_n_f64(v); });
}
inline Lanes zero() { return all(0.0); }
inline Lanes add(Lanes a, Lanes b) {
  return each([&](int i) { return vaddq_f64(a.v[i], b.v[i]); });
}
inline Lanes subtract(Lanes a, Lanes b) {
  return each([&](int i) { return vsubq_f64(a.v[i], b.v[i]); });
}
inline Lanes multiply(Lanes a, Lanes b) {
  return each([&](int i) { return vmulq_f64(a.v[i], b.v[i]); });
}
inline Lanes divide(Lanes a, Lanes b) {
  return each([&](int i) { return vdivq_f64(a.v[i], b.v[i]); });
}
inline Lanes add_product(Lanes a, Lanes b, Lanes sum) {
  return each([&](int i) { return vfmaq_f64(sum.v[i], a.v[i], b.v[i]); });
}
inline double tree(Lanes l) {
  const float64x2_t pairs[] = {vpaddq_f64(l.v[0], l.v[1]), vpaddq_f64(l.v[2], l.v[3])};
  const float64x2_t fours = vpaddq_f64(pairs[0], pairs[1]);
  return vgetq_lane_f64(fours, 0) + vgetq_lane_f64(fours, 1);
}

using Part = int64_t;  // elements left in the row; more than eight count as eight
inline Part part_of(int64_t n) { return n; }

struct Floats {
  float32x4_t low, high;
};

inline Lanes from_float(Floats f) {
  return {{vcvt_f64_f32(vget_low_f32(f.low)), vcvt_high_f64_f32(f.low),
           vcvt_f64_f32(vget_low_f32(f.high)), vcvt_high_f64_f32(f.high)}};
}
inline Floats to_float(Lanes l) {
  return {vcvt_high_f32_f64(vcvt_f32_f64(l.v[0]), l.v[1]),
          vcvt_high_f32_f64(vcvt_f32_f64(l.v[2]), l.v[3])};
}

template <DType kType>
inline Floats load8(const void* row, int64_t i) {
  if (kType == DType::float32) {
    const float* at = static_cast<const float*>(row) + i;
    return {vld1q_f32(at), vld1q_f32(at + 4)};
  }
  const uint16x8_t bits = vld1q_u16(static_cast<const uint16_t*>(row) + i);
  if (kType == DType::float16) {
    const float16x8_t halves = vreinterpretq_f16_u16(bits);
    return {vcvt_f32_f16(vget_low_f16(halves)), vcvt_high_f32_f16(halves)};
  }
  return {vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(bits), 16)),
          vreinterpretq_f32_u32(vshll_high_n_u16(bits, 16))};
}

template <DType kType>
inline Floats load_float(const void* row, int64_t i, Part part) {
  if (part >= kLanes) return load8<kType>(row, i);
  constexpr int64_t size = kType == DType::float32 ? 4 : 2;
  alignas(16) char padded[kLanes * 4] = {};
  __builtin_memcpy(padded, static_cast<const char*>(row) + i * size,
                   static_cast<size_t>(part * size));
  return load8<kType>(padded, 0);
}

template <DType kType>
inline Lanes load(const void* row, int64_t i, Part part) {
  return from_float(load_float<kType>(row, i, part));
}

inline void store(float* out, int64_t i, Part part, Lanes l) {
  const Floats floats = to_float(l);
  alignas(16) float padded[kLanes];
  float* at = part >= kLanes ? out + i : padded;
  vst1q_f32(at, floats.low);
  vst1q_f32(at + 4, floats.high);
  if (part < kLanes) __builtin_memcpy(out + i, padded, static_cast<size_t>(part) * sizeof(float));
}

inline Lanes load_wide(const double* x, int64_t i, Part part) {
  alignas(16) double padded[kLanes] = {};
  const double* at = part >= kLanes ? x + i : padded;
  if (part < kLanes) __builtin_memcpy(padded, x + i, static_cast<size_t>(part) * sizeof(double));
  return each([&](int l) { return vld1q_f64(at + 2 * l); });
}

inline void store_wide(double* out, int64_t i, Part part, Lanes l) {
  alignas(16) double padded[kLanes];
  double* at = part >= kLanes ? out + i : padded;
  for (int pair = 0; pair < 4; ++pair) vst1q_f64(at + 2 * pair, l.v[pair]);
  if (part < kLanes) __builtin_memcpy(out + i, padded, static_cast<size_t>(part) * sizeof(double));
}

constexpr int64_t kRowsTogether = 1;  // a row has four chains of additions already
constexpr int kTileSide = 2;
inline void prefetch_row(const void*, int64_t) {}

#include "cpu/generic/rows.inl"

Survey survey(const float* x, int64_t dim) {
  Lanes sum = zero();
  uint32x4_t largest = vdupq_n_u32(0);
  const uint32x4_t magnitude = vdupq_n_u32(0x7fffffff);
  for (int64_t i = 0; i < dim; i += kLanes) {
    const Floats v = load_float<DType::float32>(x, i, part_of(dim - i));
    const Lanes wide = from_float(v);
    sum = add_product(wide, wide, sum);
    largest = vmaxq_u32(largest, vandq_u32(vreinterpretq_u32_f32(v.low), magnitude));
    largest = vmaxq_u32(largest, vandq_u32(vreinterpretq_u32_f32(v.high), magnitude));
  }
  return {tree(sum), vmaxvq_u32(largest)};
}

// The nearest codes, in 32 bits.
inline int32x4_t codes_of(float32x4_t v, float to_code) {
  const float32x4_t scaled = vmulq_n_f32(v, to_code);
  return vcvtnq_s32_f32(
      vmaxq_f32(vminq_f32(scaled, vdupq_n_f32(kMaxCode)), vdupq_n_f32(-kMaxCode)));
}

inline float64x2_t widened(int32x2_t codes) { return vcvtq_f64_s64(vmovl_s32(codes)); }

Quantised quantise(const float* x, int64_t dim, float to_code, double inverse, double scale,
                   int8_t* codes) {
  Lanes errors = zero();
  int64_t square = 0, sum = 0;
  for (int64_t i = 0; i < dim; i += kLanes) {
    const Floats v = load_float<DType::float32>(x, i, part_of(dim - i));
    const int32x4_t low = codes_of(v.low, to_code), high = codes_of(v.high, to_code);
    const Lanes decoded = {{widened(vget_low_s32(low)), widened(vget_high_s32(low)),
                            widened(vget_low_s32(high)), widened(vget_high_s32(high))}};
    const Lanes error =
        subtract(multiply(from_float(v), all(inverse)), multiply(decoded, all(scale)));
    errors = add(errors, multiply(error, error));
    square += vaddlvq_s32(vmulq_s32(low, low)) + vaddlvq_s32(vmulq_s32(high, high));
    sum += vaddlvq_s32(low) + vaddlvq_s32(high);
    const int8x8_t bytes = vmovn_s16(vcombine_s16(vmovn_s32(low), vmovn_s32(high)));
    int8_t padded[kLanes];
    vst1_s8(padded, bytes);
    __builtin_memcpy(codes + i, padded, static_cast<size_t>(dim - i < kLanes ? dim - i : kLanes));
  }
  return {tree(errors), square, sum};
}
