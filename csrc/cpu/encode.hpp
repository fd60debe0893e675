// Stage 0: rows and queries become int8 codes, with numbers that bound the loss.
#pragma once
#include <vector>

#include "core/bound.hpp"
#include "core/calls.hpp"
#include "core/cancel.hpp"
#include "cpu/kernels.hpp"

namespace fastretrieve::cpu {

// Queries with codes for the scan and float32 numbers for the canonical scores.
struct EncodedQueries {
  // Messages count queries from `first_query`.
  EncodedQueries(const Kernels& kernels, const Matrix& queries, Metric metric, Cancel& cancel,
                 int64_t first_query = 0);

  const float* row(int64_t i) const { return wide_ + i * wide_stride_; }

  int64_t n_queries, dim, padded_dim;
  std::vector<int8_t> codes;  // [n_queries, padded_dim]
  std::vector<int32_t> bias;
  std::vector<QueryBound> bounds;
  std::vector<double> norms;  // canonical sqrt(T(q, q))

 private:
  const float* wide_;
  int64_t wide_stride_;
  std::vector<float> converted_;  // 16-bit queries only
};

void encode_strips(const Kernels& kernels, const EncodeArgs& args, Cancel& cancel);

}  // namespace fastretrieve::cpu
