// A CUDA call that failed is an error with its name and the place.
#pragma once
#include "core/check.hpp"
#include "cuda/launch.hpp"

#define FR_CUDA_CHECK(call)                                                     \
  do {                                                                          \
    const cudaError_t status = (call);                                          \
    FR_CHECK(status == cudaSuccess, #call ": ", cudaGetErrorName(status), ": ", \
             cudaGetErrorString(status));                                       \
  } while (0)

// After a launch.
#define FR_CUDA_CHECK_LAUNCH() FR_CUDA_CHECK(cudaGetLastError())
