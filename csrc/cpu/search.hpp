// Exact top-k on the CPU: scan, certify, score.
#pragma once
#include "core/backend.hpp"
#include "cpu/kernels.hpp"

namespace fastretrieve::cpu {

void search(const Kernels& kernels, const SearchArgs& args, Cancel& cancel);

}  // namespace fastretrieve::cpu
