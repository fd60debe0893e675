// Stage 0: rows and queries become int8 codes and the numbers that bound what the codes lost.
#pragma once
#include <vector>

#include "core/bound.hpp"
#include "core/calls.hpp"
#include "core/cancel.hpp"
#include "cpu/kernels.hpp"

namespace fastretrieve::cpu {

// All queries of a search, encoded; the canonical stage reads them as float32.
struct EncodedQueries {
  // `first_query` is what the caller calls row 0, for messages.
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
