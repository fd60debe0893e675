// Which instruction set runs: the best that the machine has, or the one that FASTRETRIEVE_ISA
// names.
#pragma once
#include <string>
#include <vector>

#include "cpu/kernels.hpp"

namespace fastretrieve::cpu {

// Every table this machine can run, best first.
const std::vector<const Kernels*>& available_kernels();

// The table named `name`; an empty name is the choice described above. Throws with the available
// names.
const Kernels& kernels_by_name(const std::string& name);

}  // namespace fastretrieve::cpu
