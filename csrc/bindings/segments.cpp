#include "bindings/segments.hpp"

#include <pybind11/stl.h>

#include "bindings/arrays.hpp"
#include "core/check.hpp"
#include "core/strip.hpp"

namespace fastretrieve::bindings {

// A part is (rows, codes, n_strips, ids, first_id, live, owner): a matrix, addresses (0: none) and
// counts.
static Segment as_segment(const py::tuple& part, int64_t dim) {
  FR_CHECK(part.size() == 7, "a segment has 7 parts, got ", part.size());
  Segment segment;
  segment.rows = as_matrix(part[0], "rows");
  segment.codes = as_address<const uint8_t>(part[1].cast<int64_t>());
  segment.n_strips = part[2].cast<int64_t>();
  segment.ids = as_address<const int64_t>(part[3].cast<int64_t>());
  segment.first_id = part[4].cast<int64_t>();
  segment.live = as_address<const uint64_t>(part[5].cast<int64_t>());
  FR_CHECK(segment.rows.dim == dim, "a segment has dim ", segment.rows.dim, " in an index of dim ",
           dim);
  FR_CHECK(segment.n_strips * kStripRows <= segment.rows.n_rows, "a segment of ",
           segment.rows.n_rows, " rows cannot have ", segment.n_strips, " strips");
  return segment;
}

Segments::Segments(const std::string& metric, int64_t dim, const py::list& parts)
    : metric_(as_metric(metric)), dim_(dim), owner_(parts) {
  FR_CHECK(1 <= dim && dim <= kMaxDim, "dim must be in [1, ", kMaxDim, "], got ", dim);
  for (const py::handle& part : parts) segments_.push_back(as_segment(part.cast<py::tuple>(), dim));
}

int64_t Segments::n_rows() const {
  int64_t n = 0;
  for (const Segment& segment : segments_) n += segment.rows.n_rows;
  return n;
}

int64_t Segments::n_strips() const {
  int64_t n = 0;
  for (const Segment& segment : segments_) n += segment.n_strips;
  return n;
}

Segments Segments::masked(const std::vector<int64_t>& where, const std::vector<int64_t>& strides,
                          const py::object& owner, bool bytes) const {
  FR_CHECK(where.size() == segments_.size() && strides.size() == segments_.size(),
           "need a mask for each of ", segments_.size(), " segments, got ", where.size());
  Segments copy(*this);
  for (size_t i = 0; i < where.size(); ++i) {
    Segment& segment = copy.segments_[i];
    segment.where = bytes ? nullptr : as_address<const uint64_t>(where[i]);
    segment.where_bytes = bytes ? as_address<const uint8_t>(where[i]) : nullptr;
    segment.where_stride = strides[i];
    FR_CHECK(!bytes || !segment.live, "booleans are for segments whose rows all live");
  }
  copy.owner_ = py::make_tuple(owner_, owner);
  return copy;
}

void bind_segments(py::module_& m) {
  py::class_<Segments>(m, "Segments", py::dynamic_attr())
      .def(py::init<const std::string&, int64_t, const py::list&>(), py::arg("metric"),
           py::arg("dim"), py::arg("parts"))
      .def_property_readonly("n_rows", &Segments::n_rows)
      .def("masked", &Segments::masked, py::arg("where"), py::arg("strides"), py::arg("owner"),
           py::arg("bytes") = false);
}

}  // namespace fastretrieve::bindings
