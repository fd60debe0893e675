// The current strip: the addresses of its codes and masks, and the bounds of its rows.
#pragma once
#include <cstdint>
#include <vector>

#include "core/bound.hpp"
#include "core/strip.hpp"
#include "cpu/panel.hpp"
#include "cpu/score.hpp"

namespace fastretrieve::cpu {

class StripReader {
 public:
  StripReader(const Problem& problem, const Panel& panel, HitHandler& survivors);

  // Makes this strip the current one; false if no query may return a row of it. The next one will
  // be `step` strips later.
  bool load(int64_t segment, int64_t strip, int64_t step);
  // Runs the kernel on the current strip.
  void scan() { problem_.kernels.scan(args_); }

  int64_t segment() const { return segment_; }
  int64_t first_row() const { return first_row_; }  // in its segment

  RowBound bound(int row) const {
    return {args_.scale[row], args_.error[row],
            args_.norm[row],  args_.half_square ? args_.half_square[row] : 0.0f,
            squares_[0],      squares_[1]};
  }
  // The cut that rows of this strip must reach.
  Cut cut(const QueryBound& query, double value) const {
    return make_cut(problem_.metric, query, double{squares_[1]}, value);
  }
  // `rows` without those that the booleans of this query rule out.
  uint64_t allowed(int64_t query, uint64_t rows) const;

 private:
  uint64_t allowed_rows(const Segment& segment, int64_t strip) const;

  const Problem& problem_;
  const Panel& panel_;
  const StripLayout layout_;
  std::vector<int32_t> dots_;
  StripArgs args_{};
  int64_t segment_ = 0, first_row_ = 0;
  const float* squares_ = nullptr;        // read only if the filter kept a row
  const uint8_t* where_bytes_ = nullptr;  // of the first query
};

}  // namespace fastretrieve::cpu
