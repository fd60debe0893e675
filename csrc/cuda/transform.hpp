// Launchers for operations on whole rows. Each checks its launch and does not wait for it.
#pragma once
#include <cstdint>

#include "core/calls.hpp"
#include "cuda/launch.hpp"

namespace fastretrieve::cuda {

constexpr int kMaxLayers = 16;  // they are an argument of a kernel

struct FuseLayers {
  Layer layers[kMaxLayers];
  int n_layers;
  bool weigh;
  int64_t n_rows;
  void* out;
  DType out_dtype;
};

// `bad` must hold more than any row number. Afterwards it holds the first row that is not finite,
// if any.
void ingest(const IngestArgs& args, unsigned long long* bad, cudaStream_t stream);
void fuse(const FuseLayers& args, cudaStream_t stream);
void scores(const ScoresArgs& args, cudaStream_t stream);
void cluster_sums(const ClusterArgs& args, cudaStream_t stream);

}  // namespace fastretrieve::cuda
