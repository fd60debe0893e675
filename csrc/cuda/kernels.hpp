// The launchers: each checks its launch, none waits for it. Those that take a queue follow another
// kernel of the same search.
#pragma once
#include <cstdint>

#include "cuda/device.cuh"

namespace fastretrieve::cuda {

struct EncodeRowsArgs {
  const void* rows;
  DType dtype;
  int64_t stride;
  int64_t dim;
  int64_t n_strips;
  Metric metric;
  uint8_t* codes;
};
void encode_rows(const EncodeRowsArgs& args, cudaStream_t stream);

// `exhaustive`: no query is scanned, each row is scored. `unfit` counts queries that are not
// finite.
struct EncodeQueriesArgs {
  QueryBatch batch;
  int64_t dim;
  int64_t padded;
  Metric metric;
  bool exhaustive;
  unsigned long long* unfit;
};
void encode_queries(const EncodeQueriesArgs& args, cudaStream_t stream);
// Whether this build has code for the current device.
bool has_kernels();

struct ScanArgs {
  Gallery gallery;
  QueryBatch batch;
  int64_t panel_queries;
  int64_t stride;  // the strips of this stage, see strip_of_stage
  uint64_t inverse;
  int64_t n_strips;
  int64_t n_multiprocessors;
  int64_t shared_bytes;  // that a block of the device can have
};
void scan_dp4a(const ScanArgs& args, const Queue& queue);
void scan_mma(const ScanArgs& args, const Queue& queue);
void scan_wgmma(const ScanArgs& args, const Queue& queue);

// Raises thresholds to the k-th best lower value and drops who cannot place.
struct SelectArgs {
  QueryBatch batch;
  Metric metric;
  int64_t k;
};
void select_survivors(const SelectArgs& args, const Queue& queue);

struct DeviceCounters {
  unsigned long long queries, rows_scanned, rows_scored, overflows, unfit;
};

struct FinishArgs {
  Gallery gallery;
  QueryBatch batch;
  int64_t k;
  double* scores64;  // one of the two
  float* scores32;
  int64_t* ids;
  DeviceCounters* counters;
};
void finish(const FinishArgs& args, const Queue& queue);

}  // namespace fastretrieve::cuda
