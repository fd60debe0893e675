// Launchers for work on whole rows; each checks its launch, none waits for it.
#pragma once
#include <cstdint>

#include "core/calls.hpp"
#include "cuda/launch.hpp"

namespace fastretrieve::cuda {

constexpr int kMaxLayers = 16;  // they travel as a kernel's argument

struct FuseLayers {
  Layer layers[kMaxLayers];
  int n_layers;
  bool weigh;
  int64_t n_rows;
  void* out;
  DType out_dtype;
};

// `bad` holds more than any row number before; the first row that is not finite afterwards.
void ingest(const IngestArgs& args, unsigned long long* bad, cudaStream_t stream);
void fuse(const FuseLayers& args, cudaStream_t stream);
void scores(const ScoresArgs& args, cudaStream_t stream);
void cluster_sums(const ClusterArgs& args, cudaStream_t stream);

}  // namespace fastretrieve::cuda
