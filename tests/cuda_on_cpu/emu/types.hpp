// CUDA's qualifiers and vector types as g++ understands them.
#pragma once

#include <cstdint>

#include "emu/sanitizers.hpp"

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __grid_constant__
#define __noinline__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
// AddressSanitizer puts red zones around plain statics only. Launches run one at a time there.
#if FR_EMU_ASAN
#define __shared__ static
#else
#define __shared__ static thread_local
#endif

#define FR_EMU_VECTOR2(type, name, alignment) \
  struct alignas(alignment) name {            \
    type x, y;                                \
  };                                          \
  inline name make_##name(type x, type y) { return {x, y}; }
#define FR_EMU_VECTOR3(type, name) \
  struct name {                    \
    type x, y, z;                  \
  };                               \
  inline name make_##name(type x, type y, type z) { return {x, y, z}; }
#define FR_EMU_VECTOR4(type, name, alignment) \
  struct alignas(alignment) name {            \
    type x, y, z, w;                          \
  };                                          \
  inline name make_##name(type x, type y, type z, type w) { return {x, y, z, w}; }

FR_EMU_VECTOR2(signed char, char2, 2)
FR_EMU_VECTOR4(signed char, char4, 4)
FR_EMU_VECTOR2(unsigned char, uchar2, 2)
FR_EMU_VECTOR4(unsigned char, uchar4, 4)
FR_EMU_VECTOR2(short, short2, 4)
FR_EMU_VECTOR4(short, short4, 8)
FR_EMU_VECTOR2(unsigned short, ushort2, 4)
FR_EMU_VECTOR4(unsigned short, ushort4, 8)
FR_EMU_VECTOR2(int, int2, 8)
FR_EMU_VECTOR3(int, int3)
FR_EMU_VECTOR4(int, int4, 16)
FR_EMU_VECTOR2(unsigned, uint2, 8)
FR_EMU_VECTOR3(unsigned, uint3)
FR_EMU_VECTOR4(unsigned, uint4, 16)
FR_EMU_VECTOR2(long long, longlong2, 16)
FR_EMU_VECTOR2(unsigned long long, ulonglong2, 16)
FR_EMU_VECTOR2(float, float2, 8)
FR_EMU_VECTOR3(float, float3)
FR_EMU_VECTOR4(float, float4, 16)
FR_EMU_VECTOR2(double, double2, 16)

#undef FR_EMU_VECTOR2
#undef FR_EMU_VECTOR3
#undef FR_EMU_VECTOR4

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned vx = 1, unsigned vy = 1, unsigned vz = 1) : x(vx), y(vy), z(vz) {}
};
