#include "bindings/screen.hpp"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cmath>
#include <limits>
#include <string>

#include "bindings/arrays.hpp"
#include "bindings/segments.hpp"
#include "bindings/unlocked.hpp"
#include "core/check.hpp"
#include "core/fpenv.hpp"
#include "cpu/backend.hpp"
#include "cpu/screen/build.hpp"
#include "cpu/screen/project.hpp"
#include "cpu/screen/walk.hpp"

namespace fastretrieve::bindings {
namespace {

using cpu::CpuBackend;
using Floats = py::array_t<float, py::array::c_style>;
using Doubles = py::array_t<double, py::array::c_style>;
using Bytes = py::array_t<uint8_t, py::array::c_style>;
using Numbers = py::array_t<int32_t, py::array::c_style>;

// The numbers of a screen that are in no array of their own; the others tell people what was
// expected.
enum ScreenNumber { kTailCentre, kStep, kError, kRadius, kNumbers = 8 };

void check_finite(const float* values, int64_t n, const char* name) {
  for (int64_t i = 0; i < n; ++i)
    FR_CHECK(std::isfinite(values[i]) && std::fabs(values[i]) <= 0x1p62f, name,
             " must hold finite numbers");
}

template <class T>
const T* checked(const py::array_t<T, py::array::c_style>& array, const std::vector<int64_t>& shape,
                 const char* name) {
  bool fits = array.ndim() == static_cast<py::ssize_t>(shape.size());
  for (size_t i = 0; fits && i < shape.size(); ++i)
    fits = array.shape(static_cast<py::ssize_t>(i)) == shape[i];
  std::string wanted;
  for (const int64_t size : shape) wanted += (wanted.empty() ? "" : ", ") + std::to_string(size);
  FR_CHECK(fits, name, " must have shape (", wanted, ")");
  return array.data();
}

OwnedMap make_map(const std::string& metric, int64_t dim, const Floats& mean, const Floats& basis,
                  const Floats& tail, const Floats& axes, double tail_centre, double radius) {
  HeadMap map{};
  map.metric = as_metric(metric);
  map.dim = dim;
  FR_CHECK(1 <= dim && dim <= kMaxDim, "dim must be in [1, ", kMaxDim, "], got ", dim);
  map.lifted = dim + (map.metric == Metric::ip ? 1 : 0);
  map.head_dim = tail.ndim() == 1 ? tail.shape(0) : 0;
  FR_CHECK(kMinHead <= map.head_dim && map.head_dim <= kMaxHead && map.head_dim % kHeadUnit == 0,
           "screen_tail must hold a multiple of ", kHeadUnit, " in [", kMinHead, ", ", kMaxHead,
           "] numbers, got ", map.head_dim);
  map.mean = checked(mean, {map.lifted}, "screen_mean");
  map.basis = checked(basis, {map.head_dim, map.lifted}, "screen_basis");
  map.tail = checked(tail, {map.head_dim}, "screen_tail");
  map.axes = checked(axes, {kBoxAxes, map.head_dim}, "screen_axes");
  check_finite(map.mean, mean.size(), "screen_mean");
  check_finite(map.basis, basis.size(), "screen_basis");
  check_finite(map.tail, tail.size(), "screen_tail");
  check_finite(map.axes, axes.size(), "screen_axes");
  FR_CHECK(std::fabs(tail_centre) <= 0x1p62 && 0 <= radius && radius <= 0x1p62,
           "screen_numbers must hold a finite centre and radius");
  map.tail_centre = tail_centre;
  map.radius = radius;
  measure(map);
  return {map, py::make_tuple(mean, basis, tail, axes)};
}

py::tuple project(const OwnedMap& map, const CpuBackend& backend, const py::handle& rows) {
  const Matrix x = as_matrix(rows, "rows");
  FR_CHECK(x.dim == map.map.dim, "rows have dim ", x.dim, ", the map takes ", map.map.dim);
  Floats heads({x.n_rows, map.map.head_dim});
  Floats slack(x.n_rows);
  float *z = heads.mutable_data(), *s = slack.mutable_data();
  unlocked([&](Cancel& cancel) {
    const DefaultFloatEnvironment floats;
    cpu::project_rows(backend.kernels(), map.map, x, z, s, cancel);
  });
  return py::make_tuple(heads, slack);
}

Numbers order_leaves(const Floats& points) {
  FR_CHECK(points.ndim() == 2 && points.shape(0) >= 1 &&
               points.shape(0) < std::numeric_limits<int32_t>::max(),
           "points must have two dimensions and at most 2^31 - 2 rows");
  Numbers order(points.shape(0));
  int32_t* const out = order.mutable_data();
  unlocked([&](Cancel& cancel) {
    cpu::order_leaves(points.data(), points.shape(0), points.shape(1), out, cancel);
  });
  return order;
}

// Writes leaves, centres and boxes into arrays of the caller; returns how many rows always survive.
int64_t pack_leaves(const OwnedMap& map, double step, double error, const Floats& heads,
                    const Floats& slack, const Numbers& order, Bytes leaves, Bytes centres,
                    Floats boxes) {
  const int64_t n = order.size(), n_leaves = (n + kStripRows - 1) / kStripRows;
  const int64_t bytes = LeafLayout(map.map.head_dim).bytes();
  const float* const z = checked(heads, {n, map.map.head_dim}, "heads");
  const float* const s = checked(slack, {n}, "slack");
  checked(leaves, {n_leaves, bytes}, "screen_heads");
  checked(centres, {(n_leaves + kStripRows - 1) / kStripRows, bytes}, "screen_centres");
  checked(boxes, {(n_leaves + kBoxLeaves - 1) / kBoxLeaves, kBoxAxes, 2, kBoxLeaves},
          "screen_boxes");
  FR_CHECK(step > 0 && error >= 0, "step must be above 0, got ", step);
  for (int64_t i = 0; i < n; ++i)
    FR_CHECK(0 <= order.data()[i] && order.data()[i] < n, "order names row ", order.data()[i]);
  const cpu::PackArgs args{map.map,
                           step,
                           error,
                           z,
                           s,
                           order.data(),
                           n,
                           leaves.mutable_data(),
                           centres.mutable_data(),
                           boxes.mutable_data()};
  int64_t always = 0;
  unlocked([&](Cancel& cancel) {
    const DefaultFloatEnvironment floats;
    always = cpu::pack_leaves(args, cancel);
  });
  return always;
}

void copy_records(const Segments& segments, const std::vector<int64_t>& slots,
                  const Numbers& places, Bytes records) {
  FR_CHECK(static_cast<int64_t>(slots.size()) == segments.size() && segments.size() > 0,
           "need the first slot of each of ", segments.size(), " segments, got ", slots.size());
  const int64_t bytes = RecordLayout(segments.dim(), segments.metric()).bytes();
  checked(records, {places.size(), bytes}, "screen_records");
  uint8_t* const out = records.mutable_data();
  unlocked([&](Cancel& cancel) {
    cpu::copy_records({segments.data(), slots}, segments.dim(), segments.metric(), places.data(),
                      places.size(), out, cancel);
  });
}

template <class T>
py::array_t<T, py::array::c_style> taken(const py::dict& arrays, const char* name) {
  FR_CHECK(arrays.contains(name), name, " is missing");
  const py::object object = arrays[name];
  using Array = py::array_t<T, py::array::c_style>;
  FR_CHECK(Array::check_(object), name, " has another type or order");
  return py::reinterpret_borrow<Array>(object);
}

OwnedScreen make_screen(const std::string& metric, int64_t dim, const py::dict& arrays) {
  const Doubles numbers = taken<double>(arrays, "screen_numbers");
  const double* const n = checked(numbers, {kNumbers}, "screen_numbers");
  for (int64_t i = 0; i < kNumbers; ++i)
    FR_CHECK(std::isfinite(n[i]), "screen_numbers must hold finite numbers");
  OwnedMap map = make_map(metric, dim, taken<float>(arrays, "screen_mean"),
                          taken<float>(arrays, "screen_basis"), taken<float>(arrays, "screen_tail"),
                          taken<float>(arrays, "screen_axes"), n[kTailCentre], n[kRadius]);
  FR_CHECK(n[kStep] > 0 && n[kError] >= 0, "screen_numbers must hold a step above 0, got ",
           n[kStep]);
  const Bytes heads = taken<uint8_t>(arrays, "screen_heads");
  const LeafLayout layout(map.map.head_dim);
  const int64_t n_leaves = heads.ndim() == 2 ? heads.shape(0) : 0;
  FR_CHECK(n_leaves >= 1, "screen_heads must hold at least one leaf");
  const Bytes centres = taken<uint8_t>(arrays, "screen_centres");
  const Floats boxes = taken<float>(arrays, "screen_boxes");
  const Bytes records = taken<uint8_t>(arrays, "screen_records");
  const Numbers places = taken<int32_t>(arrays, "screen_places");
  Screen screen{
      std::move(map.map),
      n[kStep],
      n[kError],
      n_leaves,
      checked(heads, {n_leaves, layout.bytes()}, "screen_heads"),
      checked(centres, {(n_leaves + kStripRows - 1) / kStripRows, layout.bytes()},
              "screen_centres"),
      checked(boxes, {(n_leaves + kBoxLeaves - 1) / kBoxLeaves, kBoxAxes, 2, kBoxLeaves},
              "screen_boxes"),
      checked(records, {n_leaves * kStripRows, RecordLayout(dim, as_metric(metric)).bytes()},
              "screen_records"),
      checked(places, {n_leaves * kStripRows}, "screen_places")};
  return {std::move(screen), py::make_tuple(map.owner, heads, centres, boxes, records, places)};
}

// Rough nanoseconds of one thread, for a batch of queries: of a row in a leaf, of a record, of a
// row in a scan of strips, and of a query before its first leaf.
py::tuple screen_costs(const CpuBackend& backend, const std::string& metric, int64_t dim,
                       int64_t head_dim, int64_t n_rows, int64_t n_queries) {
  const StripLayout strips(dim, as_metric(metric));
  const cpu::Kernels& kernels = backend.kernels();
  return py::make_tuple(
      cpu::pair_cost(kernels, head_dim + 4, head_dim, n_queries), cpu::record_cost(dim, n_queries),
      cpu::pair_cost(kernels, strips.bytes() / kStripRows, strips.padded_dim(), n_queries),
      cpu::seed_cost(dim, head_dim, n_rows / kStripRows));
}

}  // namespace

void bind_screen(py::module_& m) {
  py::class_<OwnedMap>(m, "HeadMap")
      .def(py::init(&make_map), py::kw_only(), py::arg("metric"), py::arg("dim"),
           py::arg("mean").noconvert(), py::arg("basis").noconvert(), py::arg("tail").noconvert(),
           py::arg("axes").noconvert(), py::arg("tail_centre"), py::arg("radius"))
      .def("project", &project, py::arg("backend"), py::arg("rows"))
      .def("pack_leaves", &pack_leaves, py::kw_only(), py::arg("step"), py::arg("error"),
           py::arg("heads").noconvert(), py::arg("slack").noconvert(), py::arg("order").noconvert(),
           py::arg("leaves").noconvert(), py::arg("centres").noconvert(),
           py::arg("boxes").noconvert());
  py::class_<OwnedScreen>(m, "Screen")
      .def(py::init(&make_screen), py::kw_only(), py::arg("metric"), py::arg("dim"),
           py::arg("arrays"));
  m.def("screen_costs", &screen_costs, py::arg("backend"), py::kw_only(), py::arg("metric"),
        py::arg("dim"), py::arg("head_dim"), py::arg("n_rows"), py::arg("n_queries"));
  m.def("order_leaves", &order_leaves, py::arg("points").noconvert());
  m.def("copy_records", &copy_records, py::arg("segments"), py::arg("slots"),
        py::arg("places").noconvert(), py::arg("records").noconvert());
  m.def(
      "record_bytes",
      [](int64_t dim, const std::string& metric) {
        return RecordLayout(dim, as_metric(metric)).bytes();
      },
      py::arg("dim"), py::arg("metric"));
}

}  // namespace fastretrieve::bindings
