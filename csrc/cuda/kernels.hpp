// The launchers. Each checks its launch and does not wait for it. Those with a queue follow another
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

// `exhaustive`: there is no scan; every row is scored. `unfit` counts queries that are not finite.
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
  int64_t stride;  // the strips of this stage: strip_of_stage in device.cuh
  uint64_t inverse;
  int64_t n_strips;
  int64_t n_multiprocessors;
  int64_t shared_bytes;  // the most for a thread block of the device
};
void scan_dp4a(const ScanArgs& args, const Queue& queue);
void scan_mma(const ScanArgs& args, const Queue& queue);
void scan_wgmma(const ScanArgs& args, const Queue& queue);

// Raises each threshold to the k-th best lower end and drops survivors that cannot place.
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
  double* scores64;  // one of these two, the other is null
  float* scores32;
  int64_t* ids;
  DeviceCounters* counters;
};
void finish(const FinishArgs& args, const Queue& queue);

}  // namespace fastretrieve::cuda
