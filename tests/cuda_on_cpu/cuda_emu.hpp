// CUDA C++ on the CPU, for tests: this file replaces <cuda_runtime.h> and inline PTX for g++.
//
// Every CUDA thread is a fiber. A collective parks it until the lanes that it names have come.
// README.md beside this file lists the limits of the model and the environment variables. Kernels
// reach it through csrc/cuda/launch.hpp and csrc/cuda/ptx/ptx.cuh if FR_EMU is defined.
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
