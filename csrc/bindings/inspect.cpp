#include "bindings/inspect.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <limits>
#include <sstream>

#include "bindings/arrays.hpp"
#include "bindings/segments.hpp"
#include "bindings/unlocked.hpp"
#include "core/bound.hpp"
#include "core/check.hpp"
#include "core/fpenv.hpp"
#include "core/screen.hpp"
#include "core/strip.hpp"
#include "cpu/backend.hpp"
#include "cpu/encode.hpp"
#include "cpu/plan.hpp"
#include "cpu/screen/panel.hpp"
#include "cpu/screen/probe.hpp"
#include "cpu/screen/scan.hpp"
#include "cpu/strip_walk.hpp"

namespace fastretrieve::bindings {
namespace {

// Records the interval and the verdicts for each pair, and drops none but those that the filter
// drops at fixed thresholds.
struct IntervalSurvivors {
  const cpu::Problem& problem;
  const cpu::Panel& panel;
  const std::vector<double>& thresholds;
  // [n_queries, rows with codes] each
  double *lower, *upper;
  bool *kept, *short_of;

  void hit(const cpu::StripReader& strip, int64_t query, uint64_t rows, const int32_t* dots) {
    const int64_t begin = query * problem.segments[0].n_strips * kStripRows + strip.first_row();
    const QueryBound& q = panel.bound(query);
    const Cut cut = strip.cut(q, thresholds[static_cast<size_t>(query)]);
    for (int row = 0; row < kStripRows; ++row) {
      const RowBound x = strip.bound(row);
      const Interval i = interval(problem.metric, q, x, dots[row]);
      lower[begin + row] = i.lower;
      upper[begin + row] = i.upper;
      kept[begin + row] = (rows >> row) & 1;
      short_of[begin + row] = falls_short(problem.metric, q, x, dots[row], cut);
    }
  }
  void tail(int64_t, int64_t, const int64_t*, int64_t) {}
};

// (lower, upper, kept, falls_short) for every query and every row with codes. The first two are the
// interval of the canonical value: the similarity, or minus the squared distance. `kept`: the
// filter keeps the pair at its query's threshold. `falls_short`: the quick test drops it. A strip
// of which the filter keeps no row has NaN and false.
py::tuple scan_intervals(const cpu::CpuBackend& backend, const py::handle& queries,
                         const Segments& segments, const std::vector<double>& thresholds) {
  const Matrix q = as_matrix(queries, "queries");
  FR_CHECK(segments.size() == 1, "scan_intervals takes one segment, got ", segments.size());
  FR_CHECK(static_cast<int64_t>(thresholds.size()) == q.n_rows,
           "scan_intervals takes one threshold for each query, got ", thresholds.size());
  Cancel cancel;
  const cpu::EncodedQueries encoded(backend.kernels(), q, segments.metric(), cancel);
  const cpu::Problem problem{
      backend.kernels(), segments.data(), 1, q.dim, segments.metric(), 0, cancel};
  const int64_t n_strips = segments.data()[0].n_strips;
  const auto unknown = [&] {
    py::array_t<double> values({q.n_rows, n_strips * kStripRows});
    std::fill_n(values.mutable_data(), values.size(), std::numeric_limits<double>::quiet_NaN());
    return values;
  };
  const auto unset = [&] {
    py::array_t<bool> flags({q.n_rows, n_strips * kStripRows});
    std::fill_n(flags.mutable_data(), flags.size(), false);
    return flags;
  };
  py::array_t<double> lower = unknown(), upper = unknown();
  py::array_t<bool> kept = unset(), short_of = unset();
  cpu::Panel panel(problem, encoded, 0, q.n_rows);
  for (int64_t i = 0; i < q.n_rows; ++i) panel.set_threshold(i, thresholds[static_cast<size_t>(i)]);
  IntervalSurvivors survivors{problem,
                              panel,
                              thresholds,
                              lower.mutable_data(),
                              upper.mutable_data(),
                              kept.mutable_data(),
                              short_of.mutable_data()};
  SearchStats stats;
  cpu::StripWalk<IntervalSurvivors> walk(problem, panel, survivors, stats);
  walk.for_strips(0, n_strips,
                  [&](int64_t segment, int64_t strip, int64_t) { walk.scan(segment, strip); });
  return py::make_tuple(lower, upper, kept, short_of);
}

std::string cpu_plan(int64_t n_queries, int64_t n_strips, int64_t dim, int n_threads) {
  std::ostringstream text;
  text << make_cpu_plan(n_queries, n_strips, n_strips, StripLayout(dim, Metric::ip).groups,
                        n_threads);
  return text.str();
}

// (kept, near) for every query: the positions of the screen whose heads can reach the query's
// threshold, and the leaves whose boxes can.
py::tuple screen_verdicts(const cpu::CpuBackend& backend, const py::handle& queries,
                          const Segments& segments, const std::vector<double>& thresholds) {
  const Matrix q = as_matrix(queries, "queries");
  FR_CHECK(segments.screening().screen, "the segments have no screen");
  FR_CHECK(static_cast<int64_t>(thresholds.size()) == q.n_rows,
           "screen_verdicts takes one threshold for each query, got ", thresholds.size());
  const Screen& screen = *segments.screening().screen;
  const DefaultFloatEnvironment floats;
  Cancel cancel;
  const cpu::EncodedQueries encoded(backend.kernels(), q, segments.metric(), cancel);
  const cpu::HeadPanel heads(backend.kernels(), screen, encoded, 0, q.n_rows, cancel);
  py::array_t<bool> kept({q.n_rows, screen.n_leaves * kStripRows});
  py::array_t<bool> near({q.n_rows, screen.n_leaves});
  const LeafLayout layout(screen.map.head_dim);
  std::vector<int32_t> dots(kStripRows);
  for (int64_t i = 0; i < q.n_rows; ++i) {
    const cpu::Aim aim =
        heads.aim(i, encoded.norms[static_cast<size_t>(i)], thresholds[static_cast<size_t>(i)]);
    for (int64_t leaf = 0; leaf < screen.n_leaves; ++leaf) {
      cpu::HeadArgs args{};
      args.codes = screen.heads + leaf * layout.bytes();
      args.groups = layout.groups;
      args.queries = heads.codes(i);
      args.bias = &aim.start;
      args.n_queries = 1;
      args.starts = layout.starts(args.codes);
      uint64_t rows = 0;
      args.survivors = &rows;
      args.dots = dots.data();
      backend.kernels().heads(args);
      for (int64_t row = 0; row < kStripRows; ++row)
        kept.mutable_data()[(i * screen.n_leaves + leaf) * kStripRows + row] = (rows >> row) & 1;
      uint16_t of_group = 0;
      backend.kernels().boxes({screen.boxes + leaf / kBoxLeaves * kBoxAxes * 2 * kBoxLeaves, 1,
                               heads.point(i), aim.box_limit, &of_group});
      near.mutable_data()[i * screen.n_leaves + leaf] = (of_group >> leaf % kBoxLeaves) & 1;
    }
  }
  return py::make_tuple(kept, near);
}

// The leaves nearest to each query, nearest first: [n_queries, n_leaves]; -1 beyond the last one.
py::array_t<int32_t> nearest_leaves(const cpu::CpuBackend& backend, const py::handle& queries,
                                    const Segments& segments, int64_t n_leaves) {
  const Matrix q = as_matrix(queries, "queries");
  FR_CHECK(segments.screening().screen, "the segments have no screen");
  FR_CHECK(n_leaves >= 1, "n_leaves must be at least 1, got ", n_leaves);
  const Screen& screen = *segments.screening().screen;
  py::array_t<int32_t> leaves({q.n_rows, n_leaves});
  int32_t* const out = leaves.mutable_data();
  std::fill_n(out, leaves.size(), -1);
  unlocked([&](Cancel& cancel) {
    const DefaultFloatEnvironment floats;
    const cpu::EncodedQueries encoded(backend.kernels(), q, segments.metric(), cancel);
    const cpu::HeadPanel heads(backend.kernels(), screen, encoded, 0, q.n_rows, cancel);
    const cpu::Places places{segments.data(), segments.slots()};
    cpu::Prober prober(backend.kernels(), screen, places, heads, 0);
    for (int64_t i = 0; i < q.n_rows; ++i) {
      cancel.check_now();
      const std::vector<int32_t>& found = prober.nearest(i, n_leaves);
      std::copy(found.begin(), found.end(), out + i * n_leaves);
    }
  });
  return leaves;
}

void use_screens(const std::string& how) {
  FR_CHECK(how == "by cost" || how == "always" || how == "never",
           "screens are used by cost, always or never, got '", how, "'");
  cpu::use_screens(how == "always"  ? cpu::ScreenUse::always
                   : how == "never" ? cpu::ScreenUse::never
                                    : cpu::ScreenUse::by_cost);
}

}  // namespace

void bind_inspect(py::module_& m) {
  m.def("scan_intervals", &scan_intervals, py::arg("backend"), py::arg("queries"),
        py::arg("segments"), py::arg("thresholds"));
  m.def("screen_verdicts", &screen_verdicts, py::arg("backend"), py::arg("queries"),
        py::arg("segments"), py::arg("thresholds"));
  m.def("nearest_leaves", &nearest_leaves, py::arg("backend"), py::arg("queries"),
        py::arg("segments"), py::arg("n_leaves"));
  m.def("use_screens", &use_screens, py::arg("how"));
  m.def("cpu_plan", &cpu_plan, py::arg("n_queries"), py::arg("n_strips"), py::arg("dim"),
        py::arg("n_threads"));
}

}  // namespace fastretrieve::bindings
