// Exact top-k on the CPU: scan, certify, score.
#pragma once
#include "core/calls.hpp"
#include "core/cancel.hpp"
#include "cpu/kernels.hpp"

namespace fastretrieve::cpu {

void search(const Kernels& kernels, const SearchArgs& args, Cancel& cancel);

// Roughly the most memory that a search takes beside the index, however badly its codes separate
// the rows.
int64_t search_bytes(int64_t n_queries, int64_t k);

}  // namespace fastretrieve::cpu
