// Exact search on a GPU: plans, workspace, launches.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "core/calls.hpp"
#include "cuda/launch.hpp"
#include "cuda/layout.hpp"
#include "cuda/plan.hpp"

namespace fastretrieve::cuda {

// Whether this build and machine can run the backend, and on which devices.
struct DeviceState {
  bool available;
  bool emulated;
  std::string reason;  // why it is unavailable, or a description
};
DeviceState device_state();
std::string compiled_architectures();
// The best tier of a device of this compute capability in this build.
CudaTier best_tier(int major);

// Facts about a GPU, for bug reports.
struct DeviceFacts {
  std::string name;
  int major, minor;  // compute capability
  int64_t memory_bytes;
  int n_multiprocessors;
};
std::vector<DeviceFacts> devices();  // none without a driver
// The latest CUDA that the driver serves (0: no driver) and the CUDA of this build, as 1000 * major
// + 10 * minor.
std::pair<int, int> cuda_versions();

// The counters on the device: queries, rows scanned, rows scored, overflows, queries that were not
// finite.
constexpr int kCounters = 5;

// A search with everything in device memory.
struct DeviceSearch {
  Matrix queries;
  const void* segment_table;  // from segment_table(), on the device
  int64_t n_segments;
  int64_t n_strips;
  int64_t n_rows;
  Metric metric;
  int64_t k;
  double* scores64;  // one of these two, the other is null
  float* scores32;
  int64_t* ids;
  void* workspace;
  int64_t workspace_bytes;
  void* counters;  // kCounters 64-bit numbers
};

// The operations of core/calls.hpp on device memory, in the order of a stream. Only `ingest` waits
// for the device, because it returns a row number.
class CudaBackend {
 public:
  // `small_plans` is for tests: few rows then go through every stage.
  explicit CudaBackend(const std::string& tier, int device = 0, bool small_plans = false);

  std::string name() const { return name_of(tier_); }
  std::string layout() const { return kFragmentLayoutName; }
  int64_t strip_bytes(int64_t dim, Metric metric) const;
  void encode(const EncodeArgs& args, cudaStream_t stream) const;
  CudaPlan plan(const CudaShape& shape) const;
  void search(const DeviceSearch& args, cudaStream_t stream) const;
  void fuse(const FuseArgs& args, cudaStream_t stream) const;
  void scores(const ScoresArgs& args, cudaStream_t stream) const;
  void cluster_sums(const ClusterArgs& args, cudaStream_t stream) const;
  // `flag`: 8 bytes of device memory.
  int64_t ingest(const IngestArgs& args, void* flag, cudaStream_t stream) const;

 private:
  void use_device() const;

  CudaTier tier_;
  int device_;
  bool overlaps_ = false;  // a kernel may begin before the previous one has ended
  CudaLimits limits_;
};

// The segments as kernels read them: the bytes of a table for device memory.
std::vector<char> segment_table(const Segment* segments, int64_t n_segments);

}  // namespace fastretrieve::cuda
