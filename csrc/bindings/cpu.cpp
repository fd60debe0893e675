#include "bindings/cpu.hpp"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <atomic>
#include <limits>
#include <new>

#include "bindings/arrays.hpp"
#include "bindings/segments.hpp"
#include "bindings/unlocked.hpp"
#include "core/calls.hpp"
#include "core/fpenv.hpp"
#include "core/strip.hpp"
#include "cpu/backend.hpp"
#include "cpu/isa.hpp"
#include "cpu/search.hpp"

namespace fastretrieve::bindings {
namespace {

using cpu::CpuBackend;

// Totals for index.stats(). Many threads add to them.
struct Counters {
  std::atomic<int64_t> queries{0}, rows_scanned{0}, rows_scored{0}, overflows{0};
  std::atomic<int64_t> rows_screened{0}, leaves_skipped{0}, rows_compared{0}, fell_back{0};

  void add(const SearchStats& stats) {
    queries += stats.queries;
    rows_scanned += stats.rows_scanned;
    rows_scored += stats.rows_scored;
    overflows += stats.overflows;
    rows_screened += stats.rows_screened;
    leaves_skipped += stats.leaves_skipped;
    rows_compared += stats.rows_compared;
    fell_back += stats.fell_back;
  }
  py::dict read() const {
    return py::dict(
        py::arg("queries") = queries.load(), py::arg("rows_scanned") = rows_scanned.load(),
        py::arg("rows_scored") = rows_scored.load(), py::arg("overflows") = overflows.load(),
        py::arg("rows_screened") = rows_screened.load(),
        py::arg("leaves_skipped") = leaves_skipped.load(),
        py::arg("rows_compared") = rows_compared.load(), py::arg("fell_back") = fell_back.load());
  }
};

py::array narrowed(const py::array_t<double>& scores) {
  const DefaultFloatEnvironment floats;  // keeps subnormal scores
  py::array_t<float> out({scores.shape(0), scores.shape(1)});
  const double* from = scores.data();
  float* to = out.mutable_data();
  for (int64_t i = 0; i < scores.size(); ++i) to[i] = static_cast<float>(from[i]);
  return out;
}

py::array as_asked(const py::array_t<double>& scores, bool float64) {
  return float64 ? py::array(scores) : narrowed(scores);
}

struct Found {
  py::array_t<double> scores;  // [n_queries, k]
  py::array_t<int64_t> ids;
};

// `proven` may be null.
Found find(const CpuBackend& backend, const py::handle& queries, const Segments& segments,
           int64_t k, int64_t probes, Counters& counters, int64_t* proven) {
  const Matrix q = as_matrix(queries, "queries");
  FR_CHECK(q.dim == segments.dim(), "queries have dim ", q.dim, " but the index has dim ",
           segments.dim());
  FR_CHECK(1 <= k && k <= std::numeric_limits<int32_t>::max(), "k must be in [1, 2147483647], got ",
           k);
  Found found{py::array_t<double>({q.n_rows, k}), py::array_t<int64_t>({q.n_rows, k})};
  SearchStats stats;
  const SearchArgs args{q,
                        segments.data(),
                        segments.size(),
                        segments.metric(),
                        {found.scores.mutable_data(), found.ids.mutable_data(), k},
                        &stats,
                        segments.screening(),
                        probes,
                        proven};
  try {
    unlocked([&](Cancel& cancel) { backend.search(args, cancel); });
  } catch (const std::bad_alloc&) {
    PyErr_Format(PyExc_MemoryError,
                 "a search of %lld queries for k=%lld wanted up to %lld bytes beside the index; "
                 "search fewer at a time, or for a smaller k",
                 static_cast<long long>(q.n_rows), static_cast<long long>(k),
                 static_cast<long long>(cpu::search_bytes(q.n_rows, k)));
    throw py::error_already_set();
  }
  counters.add(stats);
  return found;
}

py::tuple search(const CpuBackend& backend, const py::handle& queries, const Segments& segments,
                 int64_t k, Counters& counters, bool float64) {
  const Found found = find(backend, queries, segments, k, 0, counters, nullptr);
  return py::make_tuple(as_asked(found.scores, float64), found.ids);
}

// Searches the nearest leaves; the third array says how much of each answer is proven.
py::tuple probe(const CpuBackend& backend, const py::handle& queries, const Segments& segments,
                int64_t k, int64_t probes, Counters& counters, bool float64) {
  FR_CHECK(probes >= 1, "probes must be at least 1, got ", probes);
  py::array_t<int64_t> proven(as_matrix(queries, "queries").n_rows);
  const Found found = find(backend, queries, segments, k, probes, counters, proven.mutable_data());
  return py::make_tuple(as_asked(found.scores, float64), found.ids, proven);
}

// The first position of a screen that does not belong to its row, or -1. The segments have it.
int64_t check_screen(const CpuBackend& backend, const Segments& segments,
                     const OwnedScreen& screen) {
  FR_CHECK(segments.size() > 0 && !segments.slots().empty(), "the segments have no screen");
  int64_t wrong = -1;
  unlocked([&](Cancel& cancel) {
    wrong = backend.check_screen({segments.data(), segments.slots()}, screen.screen, cancel);
  });
  return wrong;
}

constexpr int64_t kScoresPerLook = 65536;  // scores between two looks for Ctrl-C

// Moves the found rows into arrays (offsets, scores, ids), and frees memory on the way.
py::tuple flattened(std::vector<std::vector<Scored>>& found, Metric metric, bool float64) {
  const int64_t n = static_cast<int64_t>(found.size());
  py::array_t<int64_t> offsets(n + 1);
  int64_t* offset = offsets.mutable_data();
  offset[0] = 0;
  for (int64_t q = 0; q < n; ++q)
    offset[q + 1] = offset[q] + static_cast<int64_t>(found[static_cast<size_t>(q)].size());
  py::array_t<int64_t> ids(offset[n]);
  py::array scores = float64 ? py::array(py::array_t<double>(offset[n]))
                             : py::array(py::array_t<float>(offset[n]));
  int64_t* id = ids.mutable_data();
  void* const out = scores.mutable_data();
  unlocked([&](Cancel& cancel) {
    const DefaultFloatEnvironment floats;  // keeps subnormal scores
    int64_t at = 0;
    for (std::vector<Scored>& list : found) {
      for (const Scored& s : list) {
        if (at % kScoresPerLook == 0) cancel.check_now();
        const double score = score_of_key(metric, s.key);
        if (float64) {
          static_cast<double*>(out)[at] = score;
        } else {
          static_cast<float*>(out)[at] = static_cast<float>(score);
        }
        id[at++] = s.id;
      }
      std::vector<Scored>().swap(list);
    }
  });
  return py::make_tuple(offsets, scores, ids);
}

// (offsets, scores, ids), or None if more than `limit` pairs lie within the radius. With
// `self_segment`, the queries are rows of that segment from `self_row` on, and every pair comes
// once.
py::object range(const CpuBackend& backend, const py::handle& queries, const Segments& segments,
                 double radius, Counters& counters, bool float64, int64_t self_segment,
                 int64_t self_row, int64_t limit) {
  const Matrix q = as_matrix(queries, "queries");
  FR_CHECK(q.dim == segments.dim(), "queries have dim ", q.dim, " but the index has dim ",
           segments.dim());
  std::vector<std::vector<Scored>> found;
  SearchStats stats;
  int64_t n_found = 0;
  const RangeArgs args{q,      segments.data(), segments.size(), segments.metric(),
                       radius, self_segment,    self_row,        limit,
                       &found, &stats,          &n_found,        segments.screening()};
  bool complete = true;
  try {
    unlocked([&](Cancel& cancel) { complete = backend.range(args, cancel); });
  } catch (const std::bad_alloc&) {
    PyErr_Format(PyExc_MemoryError,
                 "a range search of %lld queries had found %lld rows and wanted more than %lld "
                 "bytes for them; search fewer at a time, or within a smaller radius",
                 static_cast<long long>(q.n_rows), static_cast<long long>(n_found),
                 static_cast<long long>(n_found * int64_t{sizeof(Scored)}));
    throw py::error_already_set();
  }
  counters.add(stats);
  if (!complete) return py::none();
  return flattened(found, segments.metric(), float64);
}

py::array_t<double> scores(const CpuBackend& backend, const py::handle& queries,
                           const py::handle& rows, const std::string& metric) {
  const Matrix q = as_matrix(queries, "queries"), x = as_matrix(rows, "rows");
  FR_CHECK(q.dim == x.dim, "queries have dim ", q.dim, " but rows have dim ", x.dim);
  py::array_t<double> out({q.n_rows, x.n_rows});
  const ScoresArgs args{q, x, as_metric(metric), out.mutable_data()};
  unlocked([&](Cancel& cancel) { backend.scores(args, cancel); });
  return out;
}

void encode(const CpuBackend& backend, const py::handle& rows, const std::string& metric,
            int64_t n_strips, int64_t codes) {
  const Matrix x = as_matrix(rows, "rows");
  FR_CHECK(n_strips * kStripRows <= x.n_rows, n_strips, " strips need ", n_strips * kStripRows,
           " rows, got ", x.n_rows);
  const EncodeArgs args{x, as_metric(metric), n_strips, as_address<uint8_t>(codes)};
  unlocked([&](Cancel& cancel) { backend.encode(args, cancel); });
}

int64_t ingest(const CpuBackend& backend, const py::handle& rows, int64_t out,
               const std::string& dtype) {
  const IngestArgs args{as_matrix(rows, "rows"), as_address<void>(out), as_dtype(dtype)};
  int64_t bad = -1;
  unlocked([&](Cancel& cancel) { bad = backend.ingest(args, cancel); });
  return bad;
}

// `layers` are (rows, mean or None, weight); means are float32 arrays of the layer's dimension.
void fuse(const CpuBackend& backend, const std::vector<py::tuple>& layers, bool weigh, int64_t out,
          const std::string& dtype) {
  std::vector<Layer> parts;
  for (const py::tuple& layer : layers) {
    const Matrix rows = as_matrix(layer[0], "rows");
    const float* mean = nullptr;
    if (!layer[1].is_none()) {
      const Matrix values = as_matrix(layer[1], "mean");
      FR_CHECK(values.dtype == DType::float32 && values.n_rows == 1 && values.dim == rows.dim,
               "mean must be one float32 row of ", rows.dim, " numbers");
      mean = static_cast<const float*>(values.data);
    }
    FR_CHECK(parts.empty() || parts[0].rows.n_rows == rows.n_rows, "layers have ",
             parts.empty() ? 0 : parts[0].rows.n_rows, " and ", rows.n_rows, " rows");
    parts.push_back({rows, mean, layer[2].cast<double>()});
  }
  FR_CHECK(!parts.empty(), "there must be at least one layer");
  const FuseArgs args{parts.data(), static_cast<int64_t>(parts.size()), weigh,
                      as_address<void>(out), as_dtype(dtype)};
  unlocked([&](Cancel& cancel) { backend.fuse(args, cancel); });
}

py::tuple cluster_sums(const CpuBackend& backend, const py::handle& rows,
                       const py::array_t<int64_t, py::array::c_style>& labels, int64_t n_clusters) {
  const Matrix x = as_matrix(rows, "rows");
  FR_CHECK(labels.ndim() == 1 && labels.shape(0) == x.n_rows, "need one label a row, got ",
           labels.size(), " for ", x.n_rows);
  FR_CHECK(n_clusters >= 1, "there must be at least one cluster, got ", n_clusters);
  py::array_t<double> sums({n_clusters, x.dim});
  py::array_t<int64_t> counts(n_clusters);
  const ClusterArgs args{x, labels.data(), n_clusters, sums.mutable_data(), counts.mutable_data()};
  unlocked([&](Cancel& cancel) { backend.cluster_sums(args, cancel); });
  return py::make_tuple(sums, counts);
}

}  // namespace

void bind_cpu(py::module_& m) {
  py::class_<Counters>(m, "Counters").def(py::init<>()).def("read", &Counters::read);
  py::class_<CpuBackend>(m, "CpuBackend")
      .def(py::init([](const std::string& isa) { return CpuBackend(cpu::kernels_by_name(isa)); }),
           py::arg("isa") = "")
      .def_property_readonly("name", &CpuBackend::name)
      .def_property_readonly("layout", &CpuBackend::layout)
      .def(
          "strip_bytes",
          [](const CpuBackend& b, int64_t dim, const std::string& metric) {
            return b.strip_bytes(dim, as_metric(metric));
          },
          py::arg("dim"), py::arg("metric"))
      .def("encode", &encode, py::arg("rows"), py::kw_only(), py::arg("metric"),
           py::arg("n_strips"), py::arg("codes"))
      .def("search", &search, py::arg("queries"), py::arg("segments"), py::arg("k"),
           py::arg("counters"), py::arg("float64"))
      .def("probe", &probe, py::arg("queries"), py::arg("segments"), py::arg("k"),
           py::arg("probes"), py::arg("counters"), py::arg("float64"))
      .def("check_screen", &check_screen, py::arg("segments"), py::arg("screen"))
      .def("range", &range, py::arg("queries"), py::arg("segments"), py::arg("radius"),
           py::arg("counters"), py::arg("float64"), py::kw_only(), py::arg("self_segment") = -1,
           py::arg("self_row") = 0, py::arg("limit") = std::numeric_limits<int64_t>::max())
      .def("scores", &scores, py::arg("queries"), py::arg("rows"), py::kw_only(), py::arg("metric"))
      .def("ingest", &ingest, py::arg("rows"), py::kw_only(), py::arg("out"), py::arg("dtype"))
      .def("fuse", &fuse, py::arg("layers"), py::kw_only(), py::arg("weigh"), py::arg("out"),
           py::arg("dtype"))
      .def("cluster_sums", &cluster_sums, py::arg("rows"), py::arg("labels"),
           py::arg("n_clusters"));
}

}  // namespace fastretrieve::bindings
