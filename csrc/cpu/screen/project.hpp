// The heads of vectors, before they are rounded to codes.
#pragma once
#include <cstdint>
#include <vector>

#include "core/cancel.hpp"
#include "core/screen.hpp"
#include "cpu/kernels.hpp"

namespace fastretrieve::cpu {

enum class Role { row, query };

class Projector {
 public:
  Projector(const Kernels& kernels, const HeadMap& map);

  // Writes the head of a vector with this canonical norm to z[head_dim]. Returns how far rounding
  // may have moved it, or infinity if the screen can say nothing about the vector.
  double operator()(const float* x, double norm, Role role, double* z);
  // The same for several vectors, in less time for each: heads to z[n, head_dim], slack[n].
  void many(const float* const* x, const double* norms, int64_t n, Role role, double* z,
            double* slack);

 private:
  bool says_something(double norm, Role role) const;
  double finish(const double* sums, double norm, Role role, double* z) const;

  const Kernels& kernels_;
  const HeadMap& map_;
  std::vector<const void*> rows_;  // those of the basis, then the mean
  std::vector<double> sums_, wide_;
};

// Heads and their slack, for every row. `heads` is [n_rows, head_dim].
void project_rows(const Kernels& kernels, const HeadMap& map, const Matrix& rows, float* heads,
                  float* slack, Cancel& cancel);

}  // namespace fastretrieve::cpu
