// The limits of this machine, measured with the instructions of a scan.
#pragma once
#include <cstdint>

#include "cpu/kernels.hpp"

namespace fastretrieve::cpu {

// Bytes a second that `threads` threads read from `n_bytes` of fresh huge-page memory. The best of
// five passes.
double probe_read_bandwidth(const Kernels& kernels, int64_t n_bytes, int threads);

// Products of int8 codes a second that `threads` threads compute in registers.
double probe_int8_peak(const Kernels& kernels, int threads, double seconds);

}  // namespace fastretrieve::cpu
