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

// Whether this build and machine can run the backend, and what it would run on.
struct DeviceState {
  bool available;
  bool emulated;
  std::string reason;  // why not, or what it is
};
DeviceState device_state();
std::string compiled_architectures();
// The best tier of a device of this compute capability in this build.
CudaTier best_tier(int major);

// What bug reports should say of a GPU.
struct DeviceFacts {
  std::string name;
  int major, minor;  // compute capability
  int64_t memory_bytes;
  int n_multiprocessors;
};
std::vector<DeviceFacts> devices();  // none where there is no driver
// The latest CUDA that the driver serves and that of this build, as 1000 * major + 10 * minor; 0:
// no driver.
std::pair<int, int> cuda_versions();

// Numbers in the device's counters: queries, rows scanned, rows scored, overflows, queries that
// were not finite.
constexpr int kCounters = 5;

// A search with everything in device memory.
struct DeviceSearch {
  Matrix queries;
  const void* segment_table;  // as segment_table() made it
  int64_t n_segments;
  int64_t n_strips;
  int64_t n_rows;
  Metric metric;
  int64_t k;
  double* scores64;  // one of the two
  float* scores32;
  int64_t* ids;
  void* workspace;
  int64_t workspace_bytes;
  void* counters;  // kCounters 64-bit numbers
};

// The operations of core/calls.hpp on device memory, in the order of a stream. None waits for the
// device but `ingest`, which has a row number to bring back.
class CudaBackend {
 public:
  // `small_plans` are for tests: few rows pass every stage.
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
  bool overlaps_ = false;  // a kernel may begin while the one before it ends
  CudaLimits limits_;
};

// What kernels read of segments, for a table in device memory.
std::vector<char> segment_table(const Segment* segments, int64_t n_segments);

}  // namespace fastretrieve::cuda
