#include <algorithm>
#include <cstring>

#include "cuda/backend.hpp"
#include "cuda/check.hpp"
#include "cuda/kernels.hpp"
#include "cuda/transform.hpp"

#ifndef FR_CUDA_ARCHITECTURES
#define FR_CUDA_ARCHITECTURES "none"
#endif

namespace fastretrieve::cuda {

static_assert(sizeof(DeviceCounters) == kCounters * 8, "the counters are 64-bit numbers");

// Fewer than 2^32 rows with codes, so that a count of survivors cannot wrap.
constexpr int64_t kMaxStrips = (int64_t{1} << 26) - 1;
// Bytes for the survivors of one turn. The rest of the workspace is small.
constexpr int64_t kWorkspaceLimit = int64_t{192} << 20;

namespace {

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  FR_CUDA_CHECK(cudaDeviceGetAttribute(&value, which, device));
  return value;
}

// Hands out pieces of the workspace, aligned to 256 bytes.
class Arena {
 public:
  Arena(void* memory, int64_t size) : next_(static_cast<char*>(memory)), end_(next_ + size) {}

  template <class T>
  T* take(int64_t n) {
    char* piece = next_;
    next_ += (n * int64_t{sizeof(T)} + 255) / 256 * 256;
    FR_CHECK(next_ <= end_, "the workspace is ", next_ - end_, " bytes too small");
    return reinterpret_cast<T*>(piece);
  }

 private:
  char* next_;
  char* end_;
};

int64_t round_up_to(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

}  // namespace

DeviceState device_state() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    cudaGetLastError();  // clears it: the next launch would report it
    return {false, false,
            std::string("no GPU: ") + cudaGetErrorName(status) + ": " + cudaGetErrorString(status)};
  }
  if (count == 0) return {false, false, "no GPU: the driver lists none"};
#ifdef FR_EMU
  return {true, true, "emulated: kernels run on the CPU, for tests"};
#else
  return {true, false, std::to_string(count) + " device(s), built for " FR_CUDA_ARCHITECTURES};
#endif
}

std::string compiled_architectures() { return FR_CUDA_ARCHITECTURES; }

std::vector<DeviceFacts> devices() {
  std::vector<DeviceFacts> found;
  int count = 0;
  if (!device_state().available || cudaGetDeviceCount(&count) != cudaSuccess) return found;
  for (int device = 0; device < count; ++device) {
    cudaDeviceProp facts{};
    FR_CUDA_CHECK(cudaGetDeviceProperties(&facts, device));
    found.push_back({facts.name, facts.major, facts.minor,
                     static_cast<int64_t>(facts.totalGlobalMem), facts.multiProcessorCount});
  }
  return found;
}

std::pair<int, int> cuda_versions() {
  int driver = 0, runtime = 0;
  FR_CUDA_CHECK(cudaDriverGetVersion(&driver));  // 0 without a driver
  FR_CUDA_CHECK(cudaRuntimeGetVersion(&runtime));
  return {driver, runtime};
}

// Only code for 90a has wgmma, and only Hopper runs it.
CudaTier best_tier(int major) {
  const bool hopper_code = std::strstr(FR_CUDA_ARCHITECTURES, "90a") != nullptr;
  if (major == 9 && hopper_code) return CudaTier::wgmma;
  return major >= 8 ? CudaTier::mma : CudaTier::dp4a;
}

CudaBackend::CudaBackend(const std::string& tier, int device, bool small_plans)
    : tier_(cuda_tier_by_name(tier)), device_(device) {
  const DeviceState state = device_state();
  FR_CHECK(state.available, "cuda: ", state.reason);
  const int major = attribute(cudaDevAttrComputeCapabilityMajor, device);
  overlaps_ = major >= 9 && tier_ != CudaTier::dp4a;  // dp4a uses nothing that may fail
  limits_.best_tier = best_tier(major);
  limits_.n_multiprocessors = attribute(cudaDevAttrMultiProcessorCount, device);
  limits_.shared_bytes = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (small_plans) {
    limits_.exhaustive_rows = 0;
    limits_.min_capacity = kLeastCapacity;
  }
  FR_CHECK(tier_ <= limits_.best_tier, "this device and build have no CUDA tier ", name_of(tier_),
           "; the best is ", name_of(limits_.best_tier));
  use_device();
  FR_CHECK(has_kernels(), "this build has no kernels for compute capability ", major, ".",
           attribute(cudaDevAttrComputeCapabilityMinor, device), ", only for ",
           compiled_architectures(), "; name it in FR_CUDA_ARCHS and build again");
}

// The statically linked runtime has its own current device. It may differ from that of torch's
// runtime in the same thread.
void CudaBackend::use_device() const { FR_CUDA_CHECK(cudaSetDevice(device_)); }

int64_t CudaBackend::strip_bytes(int64_t dim, Metric metric) const {
  return FragmentLayout(dim, is_distance(metric)).bytes();
}

void CudaBackend::encode(const EncodeArgs& args, cudaStream_t stream) const {
  use_device();
  encode_rows({args.rows.data, args.rows.dtype, args.rows.stride, args.rows.dim, args.n_strips,
               args.metric, args.codes},
              stream);
}

void CudaBackend::fuse(const FuseArgs& args, cudaStream_t stream) const {
  FR_CHECK(args.n_layers <= kMaxLayers, "a GPU fuses up to ", kMaxLayers, " layers, got ",
           args.n_layers);
  FuseLayers layers{};
  std::copy(args.layers, args.layers + args.n_layers, layers.layers);
  layers.n_layers = static_cast<int>(args.n_layers);
  layers.weigh = args.weigh;
  layers.n_rows = args.layers[0].rows.n_rows;
  layers.out = args.out;
  layers.out_dtype = args.out_dtype;
  use_device();
  cuda::fuse(layers, stream);
}

void CudaBackend::scores(const ScoresArgs& args, cudaStream_t stream) const {
  use_device();
  cuda::scores(args, stream);
}

void CudaBackend::cluster_sums(const ClusterArgs& args, cudaStream_t stream) const {
  use_device();
  cuda::cluster_sums(args, stream);
}

int64_t CudaBackend::ingest(const IngestArgs& args, void* flag, cudaStream_t stream) const {
  use_device();
  unsigned long long bad = ~0ull;
  FR_CUDA_CHECK(cudaMemcpyAsync(flag, &bad, sizeof bad, cudaMemcpyHostToDevice, stream));
  cuda::ingest(args, static_cast<unsigned long long*>(flag), stream);
  FR_CUDA_CHECK(cudaMemcpyAsync(&bad, flag, sizeof bad, cudaMemcpyDeviceToHost, stream));
  FR_CUDA_CHECK(cudaStreamSynchronize(stream));
  return bad == ~0ull ? -1 : static_cast<int64_t>(bad);
}

CudaPlan CudaBackend::plan(const CudaShape& shape) const {
  return make_cuda_plan(shape, tier_, limits_, kWorkspaceLimit);
}

static void scan(const ScanArgs& args, CudaTier tier, const Queue& queue) {
  switch (tier) {
    case CudaTier::dp4a:
      return scan_dp4a(args, queue);
    case CudaTier::mma:
      return scan_mma(args, queue);
    case CudaTier::wgmma:
      return scan_wgmma(args, queue);
  }
}

void CudaBackend::search(const DeviceSearch& args, cudaStream_t stream) const {
  FR_CHECK(args.n_strips <= kMaxStrips, "an index on a GPU has at most ", kMaxStrips * kStripRows,
           " rows");
  use_device();
  const Queue queue{stream, overlaps_};
  const int64_t dim = args.queries.dim;
  const CudaPlan p = plan({args.queries.n_rows, args.n_strips, args.n_rows, dim, args.k});
  DeviceCounters* counters = static_cast<DeviceCounters*>(args.counters);
  const Gallery gallery{static_cast<const DeviceSegment*>(args.segment_table), args.n_segments,
                        args.n_strips, dim, args.metric};

  for (int64_t first = 0; first < args.queries.n_rows; first += p.batch_queries) {
    const int64_t n = std::min(p.batch_queries, args.queries.n_rows - first);
    const int64_t padded = round_up_to(n, std::max(p.panel_queries, kOctetQueries));
    Arena arena(args.workspace, args.workspace_bytes);
    QueryBatch batch{};
    batch.data = args.queries.row(first);
    batch.dtype = args.queries.dtype;
    batch.stride = args.queries.stride;
    batch.n_queries = n;
    batch.first = first;
    batch.capacity = p.capacity;
    batch.limit = p.capacity - (args.n_rows - args.n_strips * kStripRows);
    batch.survivors = arena.take<Survivor>(n * p.capacity);
    batch.codes = arena.take<uint8_t>(padded / kOctetQueries * QueryLayout(dim).octet_bytes());
    batch.filters = arena.take<float4>(padded);
    batch.bounds = arena.take<QueryBound>(n);
    batch.values = arena.take<double>(n);
    batch.norms = arena.take<double>(n);
    batch.states = arena.take<QueryState>(n);
    batch.counts = arena.take<uint32_t>(n);

    encode_queries({batch, dim, padded, args.metric, p.n_stages == 0, &counters->unfit}, stream);
    int64_t coarser = 0;
    for (int s = 0; s < p.n_stages; ++s) {
      const CudaStage& stage = p.stages[static_cast<size_t>(s)];
      if (s > 0) select_survivors({batch, args.metric, args.k}, queue);
      if (stage.n_strips > 0)
        scan({gallery, batch, p.panel_queries, stage.stride,
              coarser > 0 ? ~uint64_t{0} / static_cast<uint64_t>(coarser / stage.stride - 1) : 0,
              stage.n_strips, limits_.n_multiprocessors, limits_.shared_bytes},
             p.tier, queue);
      coarser = stage.stride;
    }
    finish({gallery, batch, args.k, args.scores64, args.scores32, args.ids, counters}, queue);
  }
}

std::vector<char> segment_table(const Segment* segments, int64_t n_segments) {
  std::vector<DeviceSegment> table;
  int64_t first_strip = 0;
  for (int64_t i = 0; i < n_segments; ++i) {
    const Segment& s = segments[i];
    FR_CHECK(s.rows.n_rows <= kRowMask, "a segment on a GPU has at most ", kRowMask, " rows");
    table.push_back({s.codes, s.rows.data, s.ids, s.live, s.where, s.where_stride, s.first_id,
                     s.rows.n_rows, s.n_strips, first_strip, static_cast<int32_t>(s.rows.dtype),
                     0});
    first_strip += s.n_strips;
  }
  std::vector<char> bytes(table.size() * sizeof(DeviceSegment));
  if (!table.empty()) std::memcpy(bytes.data(), table.data(), bytes.size());
  return bytes;
}

}  // namespace fastretrieve::cuda
