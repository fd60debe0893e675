#include "bindings/cuda.hpp"

#include <pybind11/stl.h>

#include <memory>
#include <sstream>

#include "bindings/arrays.hpp"
#include "bindings/segments.hpp"
#include "core/check.hpp"
#include "core/strip.hpp"
#include "cuda/plan.hpp"

#ifdef FR_WITH_CUDA
#include "cuda/backend.hpp"
#endif

namespace fastretrieve::bindings {

#ifdef FR_WITH_CUDA

using cuda::CudaBackend;

namespace {

cudaStream_t as_stream(int64_t stream) { return as_address<CUstream_st>(stream); }

CudaShape shape_of(const Segments& segments, int64_t n_queries, int64_t k) {
  FR_CHECK(1 <= k, "k must be at least 1, got ", k);
  return {n_queries, segments.n_strips(), segments.n_rows(), segments.dim(), k};
}

void encode(const CudaBackend& backend, const py::tuple& rows, const std::string& metric,
            int64_t n_strips, int64_t codes, int64_t stream) {
  const EncodeArgs args{as_matrix(rows, "rows"), as_metric(metric), n_strips,
                        as_address<uint8_t>(codes)};
  const py::gil_scoped_release released;
  backend.encode(args, as_stream(stream));
}

int64_t ingest(const CudaBackend& backend, const py::tuple& rows, int64_t out,
               const std::string& dtype, int64_t flag, int64_t stream) {
  const IngestArgs args{as_matrix(rows, "rows"), as_address<void>(out), as_dtype(dtype)};
  const py::gil_scoped_release released;
  return backend.ingest(args, as_address<void>(flag), as_stream(stream));
}

// `layers` are (rows, address of the mean or 0, weight).
void fuse(const CudaBackend& backend, const std::vector<py::tuple>& layers, bool weigh, int64_t out,
          const std::string& dtype, int64_t stream) {
  std::vector<Layer> parts;
  for (const py::tuple& layer : layers)
    parts.push_back({as_matrix(layer[0], "rows"), as_address<const float>(layer[1].cast<int64_t>()),
                     layer[2].cast<double>()});
  FR_CHECK(!parts.empty(), "there must be at least one layer");
  const FuseArgs args{parts.data(), static_cast<int64_t>(parts.size()), weigh,
                      as_address<void>(out), as_dtype(dtype)};
  const py::gil_scoped_release released;
  backend.fuse(args, as_stream(stream));
}

void scores(const CudaBackend& backend, const py::tuple& queries, const py::tuple& rows,
            const std::string& metric, int64_t out, int64_t stream) {
  const ScoresArgs args{as_matrix(queries, "queries"), as_matrix(rows, "rows"), as_metric(metric),
                        as_address<double>(out)};
  const py::gil_scoped_release released;
  backend.scores(args, as_stream(stream));
}

void cluster_sums(const CudaBackend& backend, const py::tuple& rows, int64_t labels,
                  int64_t n_clusters, int64_t sums, int64_t counts, int64_t stream) {
  const ClusterArgs args{as_matrix(rows, "rows"), as_address<const int64_t>(labels), n_clusters,
                         as_address<double>(sums), as_address<int64_t>(counts)};
  const py::gil_scoped_release released;
  backend.cluster_sums(args, as_stream(stream));
}

int64_t workspace_bytes(const CudaBackend& backend, const Segments& segments, int64_t n_queries,
                        int64_t k) {
  return backend.plan(shape_of(segments, n_queries, k)).workspace_bytes;
}

std::string plan(const CudaBackend& backend, const Segments& segments, int64_t n_queries,
                 int64_t k) {
  std::ostringstream text;
  text << backend.plan(shape_of(segments, n_queries, k));
  return text.str();
}

py::bytes segment_table(const Segments& segments) {
  const std::vector<char> table = cuda::segment_table(segments.data(), segments.size());
  return py::bytes(table.data(), table.size());
}

// `results`: addresses of scores and ids. `memory`: address and size of the workspace, address of
// the counters.
void search(const CudaBackend& backend, const py::tuple& queries, const Segments& segments,
            int64_t table, int64_t k, const std::pair<int64_t, int64_t>& results, bool float64,
            const std::tuple<int64_t, int64_t, int64_t>& memory, int64_t stream) {
  const Matrix q = as_matrix(queries, "queries");
  FR_CHECK(q.dim == segments.dim(), "queries have dim ", q.dim, " but the index has dim ",
           segments.dim());
  const CudaShape shape = shape_of(segments, q.n_rows, k);
  cuda::DeviceSearch args{};
  args.queries = q;
  args.segment_table = as_address<const void>(table);
  args.n_segments = segments.size();
  args.n_strips = shape.n_strips;
  args.n_rows = shape.n_rows;
  args.metric = segments.metric();
  args.k = k;
  args.scores64 = float64 ? as_address<double>(results.first) : nullptr;
  args.scores32 = float64 ? nullptr : as_address<float>(results.first);
  args.ids = as_address<int64_t>(results.second);
  args.workspace = as_address<void>(std::get<0>(memory));
  args.workspace_bytes = std::get<1>(memory);
  args.counters = as_address<void>(std::get<2>(memory));
  const py::gil_scoped_release released;
  backend.search(args, as_stream(stream));
}

}  // namespace

#endif

// The plan for a device with these limits. Needs no GPU.
static std::string cuda_plan(int64_t n_queries, int64_t n_rows, int64_t dim, int64_t k,
                             const std::string& tier, int64_t shared_bytes,
                             int64_t workspace_limit) {
  CudaLimits limits;
  limits.best_tier = cuda_tier_by_name(tier);
  limits.shared_bytes = shared_bytes;
  std::ostringstream text;
  text << make_cuda_plan({n_queries, n_rows / kStripRows, n_rows, dim, k}, limits.best_tier, limits,
                         workspace_limit);
  return text.str();
}

void bind_cuda(py::module_& m) {
  m.def("cuda_plan", &cuda_plan, py::arg("n_queries"), py::arg("n_rows"), py::arg("dim"),
        py::arg("k"), py::kw_only(), py::arg("tier"), py::arg("shared_bytes"),
        py::arg("workspace_limit"));
#ifdef FR_WITH_CUDA
  m.def("cuda_state", [] {
    const cuda::DeviceState state = cuda::device_state();
    return py::make_tuple(state.available, state.emulated, state.reason);
  });
  m.def("cuda_devices", [] {
    std::vector<py::tuple> found;
    for (const cuda::DeviceFacts& device : cuda::devices())
      found.push_back(py::make_tuple(device.name, device.major, device.minor, device.memory_bytes,
                                     device.n_multiprocessors));
    return found;
  });
  m.def("cuda_versions", &cuda::cuda_versions);
  m.def("cuda_best_tier", [](int major) { return name_of(cuda::best_tier(major)); });
  m.attr("cuda_architectures") = cuda::compiled_architectures();
  m.attr("CUDA_COUNTERS") = cuda::kCounters;
  py::class_<CudaBackend>(m, "CudaBackend")
      .def(py::init<const std::string&, int, bool>(), py::arg("tier"), py::kw_only(),
           py::arg("device") = 0, py::arg("small_plans") = false)
      .def_property_readonly("name", &CudaBackend::name)
      .def_property_readonly("layout", &CudaBackend::layout)
      .def(
          "strip_bytes",
          [](const CudaBackend& b, int64_t dim, const std::string& metric) {
            return b.strip_bytes(dim, as_metric(metric));
          },
          py::arg("dim"), py::arg("metric"))
      .def("encode", &encode, py::arg("rows"), py::kw_only(), py::arg("metric"),
           py::arg("n_strips"), py::arg("codes"), py::arg("stream"))
      .def("ingest", &ingest, py::arg("rows"), py::kw_only(), py::arg("out"), py::arg("dtype"),
           py::arg("flag"), py::arg("stream"))
      .def("fuse", &fuse, py::arg("layers"), py::kw_only(), py::arg("weigh"), py::arg("out"),
           py::arg("dtype"), py::arg("stream"))
      .def("scores", &scores, py::arg("queries"), py::arg("rows"), py::kw_only(), py::arg("metric"),
           py::arg("out"), py::arg("stream"))
      .def("cluster_sums", &cluster_sums, py::arg("rows"), py::kw_only(), py::arg("labels"),
           py::arg("n_clusters"), py::arg("sums"), py::arg("counts"), py::arg("stream"))
      .def("workspace_bytes", &workspace_bytes, py::arg("segments"), py::arg("n_queries"),
           py::arg("k"))
      .def("plan", &plan, py::arg("segments"), py::arg("n_queries"), py::arg("k"))
      .def_static("segment_table", &segment_table, py::arg("segments"))
      .def("search", &search, py::arg("queries"), py::arg("segments"), py::kw_only(),
           py::arg("table"), py::arg("k"), py::arg("results"), py::arg("float64"),
           py::arg("memory"), py::arg("stream"));
#else
  m.def("cuda_state",
        [] { return py::make_tuple(false, false, "this build has no CUDA backend"); });
  m.def("cuda_devices", [] { return std::vector<py::tuple>{}; });
  m.def("cuda_versions", [] { return std::make_pair(0, 0); });
  m.def("cuda_best_tier", [](int) { return name_of(CudaTier::dp4a); });
  m.attr("cuda_architectures") = "none";
#endif
}

}  // namespace fastretrieve::bindings
