// What this machine can do at most, measured with the instructions that a scan uses.
#pragma once
#include <cstdint>

#include "cpu/kernels.hpp"

namespace fastretrieve::cpu {

// Bytes a second that `threads` threads read from `n_bytes` of fresh huge-page memory; the best of
// a few passes.
double probe_read_bandwidth(const Kernels& kernels, int64_t n_bytes, int threads);

// Products of int8 codes a second that `threads` threads make in registers.
double probe_int8_peak(const Kernels& kernels, int threads, double seconds);

}  // namespace fastretrieve::cpu
