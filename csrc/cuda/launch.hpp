// Launches and dynamic shared memory: the two things that nvcc and g++ spell differently.
//
// A kernel source includes this instead of <cuda_runtime.h>, and then compiles with both. With
// FR_EMU the kernels run on the CPU, for tests: tests/cuda_on_cpu/README.md.
//
//   FR_LAUNCH(scan_kernel, grid, block, shared_bytes, stream, args);
//   FR_LAUNCH((scan_kernel<64, 8>), grid, block, shared_bytes, stream, args);  // () for the comma
//   FR_LAUNCH_NEXT(scan_kernel, grid, block, shared_bytes, queue, args);
//
// FR_LAUNCH_NEXT is for a kernel that follows another of ours on the same stream. If the queue
// allows it, the kernel may begin before that one has ended (programmatic dependent launch). So it
// calls take_turn() of device.cuh first.
//
//   FR_DYN_SMEM(shared);  // in a kernel: `unsigned char* shared`, aligned to 1024 bytes, for wgmma
#pragma once

#ifdef FR_EMU

#include <cuda_emu.hpp>

#define FR_EMU_LAUNCH(kernel, grid, block, shared_bytes, overlaps, ...)                         \
  ::emu::launch({#kernel, (grid), (block), static_cast<std::size_t>(shared_bytes), (overlaps)}, \
                (kernel), __VA_ARGS__)
#define FR_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  (static_cast<void>(static_cast<cudaStream_t>(stream)),          \
   FR_EMU_LAUNCH(kernel, grid, block, shared_bytes, false, __VA_ARGS__))
#define FR_LAUNCH_NEXT(kernel, grid, block, shared_bytes, queue, ...) \
  FR_EMU_LAUNCH(kernel, grid, block, shared_bytes, (queue).overlaps, __VA_ARGS__)
#define FR_DYN_SMEM(name) unsigned char* const name = ::emu::dynamic_shared()

#else

#include <cuda_runtime.h>

#define FR_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  kernel<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)
#define FR_LAUNCH_NEXT(kernel, grid, block, shared_bytes, queue, ...) \
  ::fastretrieve::cuda::launch_next(kernel, grid, block, shared_bytes, queue, __VA_ARGS__)
#define FR_DYN_SMEM(name) extern __shared__ __align__(1024) unsigned char name[]

#endif

namespace fastretrieve::cuda {

// Kernels go here, one after the other.
struct Queue {
  cudaStream_t stream;
  bool overlaps;  // a kernel may begin before the previous one has ended
};

#ifndef FR_EMU

// Ask cudaGetLastError for an error, as after any launch.
template <class... Parameters, class Arguments>
void launch_next(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
                 const Queue& queue, const Arguments& args) {
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = queue.stream;
  config.attrs = &early;
  config.numAttrs = queue.overlaps ? 1 : 0;
  static_cast<void>(cudaLaunchKernelEx(&config, kernel, args));
}

#endif

}  // namespace fastretrieve::cuda
