// FR_HD: a function that kernels call too, where nvcc compiles it.
#pragma once

#if defined(__CUDACC__)
#define FR_HD __host__ __device__
#else
#define FR_HD
#endif
