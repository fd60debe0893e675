// How a kernel is launched and gets dynamic shared memory: the two things nvcc and g++ spell apart.
//
// A kernel source includes this instead of <cuda_runtime.h>, and is then CUDA C++ for both. With
// FR_EMU the kernels run on the CPU, for tests: tests/cuda_on_cpu/README.md.
//
//   FR_LAUNCH(scan_kernel, grid, block, shared_bytes, stream, args);
//   FR_LAUNCH((scan_kernel<64, 8>), grid, block, shared_bytes, stream, args);  // (): its comma
//
//   FR_DYN_SMEM(shared);  // in a kernel: `unsigned char* shared`, aligned to 1024 bytes, for wgmma
#pragma once

#ifdef FR_EMU

#include <cuda_emu.hpp>

#define FR_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                              \
  (static_cast<void>(static_cast<cudaStream_t>(stream)),                                       \
   ::emu::launch({#kernel, (grid), (block), static_cast<std::size_t>(shared_bytes)}, (kernel), \
                 __VA_ARGS__))
#define FR_DYN_SMEM(name) unsigned char* const name = ::emu::dynamic_shared()

#else

#include <cuda_runtime.h>

#define FR_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  kernel<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)
#define FR_DYN_SMEM(name) extern __shared__ __align__(1024) unsigned char name[]

#endif
