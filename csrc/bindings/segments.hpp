// A snapshot in C++: segments, and the Python objects that keep their memory alive.
#pragma once
#include <pybind11/pybind11.h>

#include <memory>
#include <string>
#include <vector>

#include "bindings/screen.hpp"
#include "core/calls.hpp"
#include "core/types.hpp"

namespace fastretrieve::bindings {

// One segment, and the owner of its memory.
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
  // For the arguments of a search. Valid as long as this object.
  Screening screening() const {
    return screen_ ? Screening{screen_, rest_.data(), &slots_, trust_.get()} : Screening{};
  }

  // The same segments with a screen. `slots` holds the slot of each segment's first row, `covered`
  // the address of words for each: the rows that the screen covers (0: none).
  Segments screened(const pybind11::object& screen, const std::vector<int64_t>& slots,
                    const std::vector<int64_t>& covered) const;
  const std::vector<int64_t>& slots() const { return slots_; }

  // The same segments with row masks for one search: for each segment the address of its words,
  // with `stride` words between the masks of two queries (0: one mask for all). With `bytes`,
  // addresses of booleans in bytes, if all rows live. `owner` keeps them alive.

  Segments masked(const std::vector<int64_t>& where, const std::vector<int64_t>& strides,
                  const pybind11::object& owner, bool bytes) const;

 private:
  Metric metric_;
  int64_t dim_;
  std::vector<Segment> segments_;
  pybind11::object owner_;
  const Screen* screen_ = nullptr;
  std::shared_ptr<Trust> trust_;
  std::vector<Segment> rest_;
  std::vector<int64_t> slots_;
  std::vector<std::shared_ptr<std::vector<uint64_t>>> rest_live_;  // the masks of `rest_`
};

void bind_segments(pybind11::module_& m);

}  // namespace fastretrieve::bindings
