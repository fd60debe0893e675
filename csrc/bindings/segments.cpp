#include "bindings/segments.hpp"

#include <pybind11/stl.h>

#include "bindings/arrays.hpp"
#include "core/check.hpp"
#include "core/strip.hpp"

namespace fastretrieve::bindings {

// An address of 0 means: no codes, ids from `first_id` on, no row removed.
static OwnedSegment make_segment(const py::object& rows, int64_t codes, int64_t n_strips,
                                 int64_t ids, int64_t first_id, int64_t live,
                                 const py::object& owner) {
  Segment segment;
  segment.rows = as_matrix(rows, "rows");
  segment.codes = as_address<const uint8_t>(codes);
  segment.n_strips = n_strips;
  segment.ids = as_address<const int64_t>(ids);
  segment.first_id = first_id;
  segment.live = as_address<const uint64_t>(live);
  FR_CHECK(0 <= n_strips && n_strips * kStripRows <= segment.rows.n_rows, "a segment of ",
           segment.rows.n_rows, " rows cannot have ", n_strips, " strips");
  return {segment, py::make_tuple(rows, owner)};
}

Segments::Segments(const std::string& metric, int64_t dim, const std::vector<OwnedSegment>& parts)
    : metric_(as_metric(metric)), dim_(dim) {
  FR_CHECK(1 <= dim && dim <= kMaxDim, "dim must be in [1, ", kMaxDim, "], got ", dim);
  py::list owners;
  for (const OwnedSegment& part : parts) {
    FR_CHECK(part.segment.rows.dim == dim, "a segment has dim ", part.segment.rows.dim,
             " in an index of dim ", dim);
    segments_.push_back(part.segment);
    owners.append(part.owner);
  }
  owner_ = owners;
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

Segments Segments::screened(const py::object& screen, const std::vector<int64_t>& slots,
                            const std::vector<int64_t>& covered) const {
  FR_CHECK(slots.size() == segments_.size() && covered.size() == segments_.size(),
           "need a slot and covered rows for each of ", segments_.size(), " segments");
  const OwnedScreen& owned = screen.cast<const OwnedScreen&>();
  const Screen& made = owned.screen;
  FR_CHECK(made.map.dim == dim_ && made.map.metric == metric_, "the screen is for other vectors");
  Segments copy(*this);
  copy.screen_ = &made;
  copy.trust_ = owned.trust;
  copy.slots_ = slots;
  copy.rest_ = segments_;
  for (size_t i = 0; i < covered.size(); ++i) {
    const uint64_t* const words = as_address<const uint64_t>(covered[i]);
    if (!words) continue;
    Segment& rest = copy.rest_[i];
    const size_t n = static_cast<size_t>((rest.rows.n_rows + 63) / 64);
    auto live = std::make_shared<std::vector<uint64_t>>(n);
    for (size_t w = 0; w < n; ++w)
      (*live)[w] = (rest.live ? rest.live[w] : ~uint64_t{0}) & ~words[w];
    rest.live = live->data();
    copy.rest_live_.push_back(std::move(live));
  }
  copy.owner_ = py::make_tuple(owner_, screen);
  return copy;
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
    if (!copy.screen_) continue;
    copy.rest_[i].where = segment.where;
    copy.rest_[i].where_bytes = segment.where_bytes;
    copy.rest_[i].where_stride = segment.where_stride;
  }
  copy.owner_ = py::make_tuple(owner_, owner);
  return copy;
}

void bind_segments(py::module_& m) {
  py::class_<OwnedSegment>(m, "Segment")
      .def(py::init(&make_segment), py::kw_only(), py::arg("rows"), py::arg("codes"),
           py::arg("n_strips"), py::arg("ids"), py::arg("first_id"), py::arg("live"),
           py::arg("owner"));
  py::class_<Segments>(m, "Segments")
      .def(py::init<const std::string&, int64_t, const std::vector<OwnedSegment>&>(),
           py::arg("metric"), py::arg("dim"), py::arg("segments"))
      .def_property_readonly("dim", &Segments::dim)
      .def_property_readonly("n_rows", &Segments::n_rows)
      .def_property_readonly("n_strips", &Segments::n_strips)
      .def("screened", &Segments::screened, py::arg("screen"), py::arg("slots"), py::arg("covered"))
      .def("masked", &Segments::masked, py::arg("where"), py::arg("strides"), py::arg("owner"),
           py::arg("bytes") = false);
}

}  // namespace fastretrieve::bindings
