// Every PTX instruction of the project, as one function each. No other folder contains inline PTX.
//
// With nvcc a function is its instruction, or a trap if the architecture lacks it. So a kernel
// compiles for every architecture, and its launcher picks a device that can run it. With FR_EMU the
// same names come from tests/cuda_on_cpu/emu/ptx_*.hpp; keep the two in step.
#pragma once

#include "cuda/launch.hpp"

#ifdef FR_EMU

#define FR_HAS_MMA_S8 1
#define FR_HAS_WGMMA 1
namespace fastretrieve::cuda {
namespace ptx = ::emu::ptx;
}

#else

// Both are 0 while nvcc compiles for the host, so ask them in device code only.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
#define FR_HAS_MMA_S8 1  // and cp.async
#else
#define FR_HAS_MMA_S8 0
#endif
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define FR_HAS_WGMMA 1  // and setmaxnreg
#else
#define FR_HAS_WGMMA 0
#endif

#include "cuda/ptx/async.cuh"
#include "cuda/ptx/mma.cuh"
#include "cuda/ptx/wgmma.cuh"

#endif

#include "cuda/ptx/descriptor.hpp"
