// FR_HD marks functions that CUDA kernels call too.
#pragma once

#if defined(__CUDACC__)
#define FR_HD __host__ __device__
#else
#define FR_HD
#endif
