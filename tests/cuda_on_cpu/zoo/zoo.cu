// The zoo as one library: all kernels, and the calls that launch none.
#include <cstring>

#include "collectives.cu"
#include "mma.cu"
#include "numbers.cu"
#include "reduce.cu"
#include "wgmma.cu"
#include "zoo.cuh"

// Breaks the kernels from now on; 0 if there is no such fault.
extern "C" int zoo_plant(const char* name) {
#define FR_ZOO_MATCH(fault)             \
  if (std::strcmp(name, #fault) == 0) { \
    planted_fault = Fault::fault;       \
    return 1;                           \
  }
  FR_ZOO_FAULTS(FR_ZOO_MATCH)
#undef FR_ZOO_MATCH
  return 0;
}

// The error of a launch of this shape.
extern "C" int zoo_launch_error(int n_blocks, int n_threads, int shared_bytes) {
  FR_LAUNCH(votes_kernel, n_blocks, n_threads, shared_bytes, nullptr, nullptr, nullptr,
            Fault::none);
  return cudaGetLastError();
}

extern "C" int zoo_attribute(int attribute) {
  int value = -1;
  cudaDeviceGetAttribute(&value, static_cast<cudaDeviceAttr>(attribute), 0);
  return value;
}
