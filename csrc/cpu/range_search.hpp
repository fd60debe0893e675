// Exact range search and self-join on the CPU.
#pragma once
#include "core/calls.hpp"
#include "core/cancel.hpp"
#include "cpu/kernels.hpp"

namespace fastretrieve::cpu {

// False if there are more than `args.limit` pairs.
bool range(const Kernels& kernels, const RangeArgs& args, Cancel& cancel);

}  // namespace fastretrieve::cpu
