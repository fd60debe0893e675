// An index as the backends see it: segments, and the Python objects that keep their memory alive.
#pragma once
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "core/types.hpp"

namespace fastretrieve::bindings {

// One segment, and what keeps its memory alive.
struct OwnedSegment {
  Segment segment;
  pybind11::object owner;
};

class Segments {
 public:
  Segments(const std::string& metric, int64_t dim, const std::vector<OwnedSegment>& parts);

  Metric metric() const { return metric_; }
  int64_t dim() const { return dim_; }
  int64_t size() const { return static_cast<int64_t>(segments_.size()); }
  int64_t n_rows() const;
  int64_t n_strips() const;
  const Segment* data() const { return segments_.data(); }

  // The same segments with a row mask for one search: an address of words for each segment,
  // `stride` words between the masks of two queries (0: one mask for all); or of booleans in bytes,
  // where all rows live. `owner` keeps them alive.
  Segments masked(const std::vector<int64_t>& where, const std::vector<int64_t>& strides,
                  const pybind11::object& owner, bool bytes) const;

 private:
  Metric metric_;
  int64_t dim_;
  std::vector<Segment> segments_;
  pybind11::object owner_;
};

void bind_segments(pybind11::module_& m);

}  // namespace fastretrieve::bindings
