// The choice of the instruction set: the best of this machine, or the one that FASTRETRIEVE_ISA
// names.
#pragma once
#include <string>
#include <vector>

#include "cpu/kernels.hpp"

namespace fastretrieve::cpu {

// Every table that this machine can run, best first.
const std::vector<const Kernels*>& available_kernels();

// The table called `name`; an empty name means the choice above. The error lists the available
// names.
const Kernels& kernels_by_name(const std::string& name);

}  // namespace fastretrieve::cpu
