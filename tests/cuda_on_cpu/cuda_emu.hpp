// CUDA C++ on the CPU, for tests: what <cuda_runtime.h> and inline PTX are to nvcc, this file is to
// g++.
//
// Every CUDA thread is a fiber; a collective parks it until the lanes it names have come. What is
// modelled, what is not, and the environment variables are in README.md beside this file. Kernels
// reach it through csrc/cuda/launch.hpp and csrc/cuda/ptx/ptx.cuh when FR_EMU is defined.
#pragma once

#include "emu/atomics.hpp"
#include "emu/barriers.hpp"
#include "emu/intrinsics.hpp"
#include "emu/launch.hpp"
#include "emu/ptx_async.hpp"
#include "emu/ptx_mma.hpp"
#include "emu/ptx_wgmma.hpp"
#include "emu/rounding.hpp"
#include "emu/runtime_api.hpp"
#include "emu/types.hpp"
#include "emu/warp.hpp"
