// Turns a failed CUDA call into an error with the call and CUDA's own message.
#pragma once
#include "core/check.hpp"
#include "cuda/launch.hpp"

#define FR_CUDA_CHECK(call)                                                     \
  do {                                                                          \
    const cudaError_t status = (call);                                          \
    FR_CHECK(status == cudaSuccess, #call ": ", cudaGetErrorName(status), ": ", \
             cudaGetErrorString(status));                                       \
  } while (0)

// Call it after a launch.
#define FR_CUDA_CHECK_LAUNCH() FR_CUDA_CHECK(cudaGetLastError())
