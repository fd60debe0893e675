#include "bindings/inspect.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <limits>
#include <sstream>

#include "bindings/arrays.hpp"
#include "bindings/segments.hpp"
#include "core/bound.hpp"
#include "core/check.hpp"
#include "core/strip.hpp"
#include "cpu/backend.hpp"
#include "cpu/encode.hpp"
#include "pipeline/cpu_plan.hpp"

namespace fastretrieve::bindings {
namespace {

// Runs the scan kernel over every strip of a segment for a panel of all queries.
struct Probe {
  const cpu::EncodedQueries& queries;
  Metric metric;
  const Segment& segment;
  const std::vector<double>& thresholds;
  double *lower, *upper;  // [n_queries, n_strips * kStripRows]
  bool* kept;
  cpu::ScanTile tile{};
  int64_t strip = 0;

  static void on_hit(void* self, int64_t query, uint64_t rows, const int32_t* dots) {
    static_cast<Probe*>(self)->hit(query, rows, dots);
  }
  void hit(int64_t query, uint64_t rows, const int32_t* dots) {
    const int64_t begin = query * segment.n_strips * kStripRows + strip * kStripRows;
    for (int64_t row = 0; row < kStripRows; ++row) {
      const RowBound x{tile.scale[row], tile.error[row], tile.norm[row],
                       tile.half_square ? tile.half_square[row] : 0.0f};
      const Interval i = interval(metric, queries.bounds[static_cast<size_t>(query)], x, dots[row]);
      lower[begin + row] = i.lower;
      upper[begin + row] = i.upper;
      kept[begin + row] = (rows >> row) & 1;
    }
  }

  void run(const cpu::Kernels& kernels) {
    const StripLayout layout(queries.dim, metric);
    const size_t n = static_cast<size_t>(queries.n_queries);
    std::vector<float> reach(n), fall(n), threshold(n);
    std::vector<int32_t> dots(
        static_cast<size_t>(cpu::scan_scratch(layout.groups, queries.n_queries)));
    double ratio = 0;
    for (size_t q = 0; q < n; ++q) {
      const Filter filter = make_filter(metric, queries.bounds[q]);
      reach[q] = filter.reach;
      fall[q] = filter.fall;
      threshold[q] = filter_threshold(metric, queries.bounds[q], thresholds[q]);
      ratio = std::max(ratio, error_ratio(queries.bounds[q]));
    }
    tile.groups = layout.groups;
    tile.queries = queries.codes.data();
    tile.bias = queries.bias.data();
    tile.reach = reach.data();
    tile.fall = fall.data();
    tile.threshold = threshold.data();
    tile.ratio = round_up(ratio);
    tile.n_queries = queries.n_queries;
    tile.dots = dots.data();
    tile.allowed = ~uint64_t{0};
    tile.on_hit = on_hit;
    tile.context = this;
    for (strip = 0; strip < segment.n_strips; ++strip) {
      const uint8_t* codes = segment.codes + strip * layout.bytes();
      tile.codes = codes;
      tile.scale = layout.plane(codes, kScale);
      tile.error = layout.plane(codes, kError);
      tile.norm = layout.plane(codes, kNorm);
      tile.half_square = is_distance(metric) ? layout.plane(codes, kHalfSquare) : nullptr;
      kernels.scan(tile);
    }
  }
};

// (lower, upper, kept) for every query and every coded row of the first segment: the interval of
// the canonical value (the similarity, or minus the squared distance), and whether the filter keeps
// the pair at this threshold of its query. A strip in which the filter keeps no row is not
// reported: its entries are NaN and false.
py::tuple scan_intervals(const cpu::CpuBackend& backend, const py::handle& queries,
                         const Segments& segments, const std::vector<double>& thresholds) {
  const Matrix q = as_matrix(queries, "queries");
  FR_CHECK(segments.size() == 1, "wants one segment, got ", segments.size());
  FR_CHECK(static_cast<int64_t>(thresholds.size()) == q.n_rows, "wants a threshold a query, got ",
           thresholds.size());
  Cancel cancel;
  const cpu::EncodedQueries encoded(backend.kernels(), q, segments.metric(), cancel);
  const Segment& segment = segments.data()[0];
  const int64_t n_rows = segment.n_strips * kStripRows;
  py::array_t<double> lower({q.n_rows, n_rows}), upper({q.n_rows, n_rows});
  py::array_t<bool> kept({q.n_rows, n_rows});
  std::fill_n(lower.mutable_data(), lower.size(), std::numeric_limits<double>::quiet_NaN());
  std::fill_n(upper.mutable_data(), upper.size(), std::numeric_limits<double>::quiet_NaN());
  std::fill_n(kept.mutable_data(), kept.size(), false);
  Probe probe{encoded,
              segments.metric(),
              segment,
              thresholds,
              lower.mutable_data(),
              upper.mutable_data(),
              kept.mutable_data()};
  probe.run(backend.kernels());
  return py::make_tuple(lower, upper, kept);
}

std::string cpu_plan(int64_t n_queries, int64_t n_strips, int64_t dim, int n_threads) {
  std::ostringstream text;
  text << make_cpu_plan(n_queries, n_strips, StripLayout(dim, Metric::ip).groups, n_threads);
  return text.str();
}

}  // namespace

void bind_inspect(py::module_& m) {
  m.def("scan_intervals", &scan_intervals, py::arg("backend"), py::arg("queries"),
        py::arg("segments"), py::arg("thresholds"));
  m.def("cpu_plan", &cpu_plan, py::arg("n_queries"), py::arg("n_strips"), py::arg("dim"),
        py::arg("n_threads"));
}

}  // namespace fastretrieve::bindings
