#include "cpu/isa.hpp"

#include <cstdlib>

#include "core/check.hpp"

namespace fastretrieve::cpu {

// Best first. Only this list names every instruction set.
static const Kernels* const kTables[] = {
#if defined(__x86_64__)
    avx512_kernels(), avx2_kernels(),
#elif defined(__aarch64__)
    i8mm_kernels(), neon_kernels(),
#endif
    scalar_kernels()};

const std::vector<const Kernels*>& available_kernels() {
  static const std::vector<const Kernels*> available = [] {
    std::vector<const Kernels*> found;
    for (const Kernels* table : kTables)
      if (table->supported()) found.push_back(table);
    return found;
  }();
  return available;
}

const Kernels& kernels_by_name(const std::string& name) {
  const char* forced = std::getenv("FASTRETRIEVE_ISA");
  const std::string wanted = name.empty() && forced ? forced : name;
  std::string names;
  for (const Kernels* table : available_kernels()) {
    if (wanted.empty() || wanted == table->name) return *table;
    names += (names.empty() ? "" : ", ") + std::string(table->name);
  }
  fail("instruction set '", wanted, "' is not available here; this machine has ", names,
       name.empty() ? " (FASTRETRIEVE_ISA asked for it)" : "");
}

}  // namespace fastretrieve::cpu
