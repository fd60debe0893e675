// PTX that moves data or orders it. Included by ptx.cuh, for nvcc only.
#pragma once

#include <cstdint>

namespace fastretrieve::cuda::ptx {

// The address of something in shared memory, as instructions and descriptors take it.
__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// Copies 16 bytes to shared memory in the background, past L1. Both addresses are multiples of 16.
// This thread may read them after the wait, others after a barrier as well.
__device__ __forceinline__ void cp_async_16(void* shared, const void* global) {
#if FR_HAS_MMA_S8
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
               :
               : "r"(shared_address(shared)), "l"(global)
               : "memory");
#else
  __trap();
#endif
}

// The same, but reads only the first `n_bytes`. The rest of the 16 becomes zero.
__device__ __forceinline__ void cp_async_16_zfill(void* shared, const void* global, int n_bytes) {
#if FR_HAS_MMA_S8
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(shared_address(shared)), "l"(global), "r"(n_bytes)
               : "memory");
#else
  __trap();
#endif
}

// Closes a group of copies.
__device__ __forceinline__ void cp_async_commit() {
#if FR_HAS_MMA_S8
  asm volatile("cp.async.commit_group;" ::: "memory");
#else
  __trap();
#endif
}

// Waits until at most kUnfinished of the thread's latest groups are in flight.
template <int kUnfinished>
__device__ __forceinline__ void cp_async_wait() {
#if FR_HAS_MMA_S8
  asm volatile("cp.async.wait_group %0;" ::"n"(kUnfinished) : "memory");
#else
  __trap();
#endif
}

// Four 8 x 16-byte matrices: lane l addresses row l % 8 of matrix l / 8, and gets word l % 4 of row
// l / 4 of each.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&registers)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
               : "r"(shared_address(row))
               : "memory");
}

// Loads 16 bytes that the kernel never writes and reads once. They need not stay in L1.
__device__ __forceinline__ uint4 ld_global_nc_no_allocate(const void* p) {
  uint4 v;
  asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
      : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
      : "l"(p));
  return v;
}

// The value of a float16 given as bits; exact.
__device__ __forceinline__ float cvt_f32_f16(uint16_t bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}

// Makes the thread's ordinary writes to shared memory visible to wgmma. Call it before the barrier
// that lets other threads use them.
__device__ __forceinline__ void fence_proxy_async() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#else
  __trap();
#endif
}

// Lets the next kernel, launched with FR_LAUNCH_NEXT, begin once every thread block has come here
// or ended. Only its own grid_wait promises that kernel anything. Before Hopper both do nothing.
__device__ __forceinline__ void grid_launch_dependents() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Waits until the previous kernel has ended and its writes are visible.
__device__ __forceinline__ void grid_wait() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Barrier `id` (1 to 15) for `n_threads` threads of the thread block, in whole warps. `bar_arrive`
// counts the calling threads and lets them go on; `bar_sync` waits as well.
__device__ __forceinline__ void bar_sync(int id, int n_threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(n_threads) : "memory");
}
__device__ __forceinline__ void bar_arrive(int id, int n_threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(n_threads) : "memory");
}

// Moves registers between warpgroups: from now on a thread of this one has kRegisters.
template <int kRegisters>
__device__ __forceinline__ void setmaxnreg_inc() {
#if FR_HAS_WGMMA
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
#else
  __trap();
#endif
}
template <int kRegisters>
__device__ __forceinline__ void setmaxnreg_dec() {
#if FR_HAS_WGMMA
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
#else
  __trap();
#endif
}

}  // namespace fastretrieve::cuda::ptx
