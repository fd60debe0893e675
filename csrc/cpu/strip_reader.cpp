#include "cpu/strip_reader.hpp"

#include "cpu/mask.hpp"

namespace fastretrieve::cpu {

// For cosine, rows are divided by their norms. Distances do not read this.
static constexpr float kUnitSquares[2] = {1, 1};

StripReader::StripReader(const Problem& problem, const Panel& panel, HitHandler& survivors)
    : problem_(problem), panel_(panel), layout_(problem.dim, problem.metric) {
  dots_.resize(static_cast<size_t>(scan_scratch(layout_.groups, panel.n_queries())));
  panel.lend_to(args_);
  args_.groups = layout_.groups;
  args_.dots = dots_.data();
  args_.survivors = &survivors;
}

uint64_t StripReader::allowed(int64_t query, uint64_t rows) const {
  if (!where_bytes_) return rows;
  return rows & pack_word(where_bytes_ + query * args_.where_stride);
}

uint64_t StripReader::allowed_rows(const Segment& segment, int64_t strip) const {
  const uint64_t live = segment.live ? segment.live[strip] : ~uint64_t{0};
  if (!segment.where || live == 0) return live;
  if (segment.where_stride == 0) return live & segment.where[strip];
  uint64_t any = 0;
  for (int64_t q = 0; q < panel_.n_queries(); ++q)
    any |= segment.where[(panel_.first() + q) * segment.where_stride + strip];
  return live & any;
}

bool StripReader::load(int64_t segment_index, int64_t strip, int64_t step) {
  const Segment& segment = problem_.segments[segment_index];
  args_.allowed = allowed_rows(segment, strip);
  if (args_.allowed == 0) return false;
  const uint8_t* codes = segment.codes + strip * layout_.bytes();
  args_.codes = codes;
  args_.scale = layout_.plane(codes, kScale);
  args_.error = layout_.plane(codes, kError);
  args_.norm = layout_.plane(codes, kNorm);
  args_.half_square = is_distance(problem_.metric) ? layout_.plane(codes, kHalfSquare) : nullptr;
  squares_ = layout_.has_squares ? layout_.squares(codes) : kUnitSquares;
  args_.next = strip + step < segment.n_strips ? codes + step * layout_.bytes() : nullptr;
  args_.where_stride = segment.where_stride;
  args_.where = segment.where && segment.where_stride
                    ? segment.where + panel_.first() * segment.where_stride + strip
                    : nullptr;
  where_bytes_ = segment.where_bytes ? segment.where_bytes + panel_.first() * segment.where_stride +
                                           strip * kStripRows
                                     : nullptr;
  // Fetch the booleans of every query for the next strip. One miss costs more than the unused
  // prefetches.
  for (int64_t q = 0; where_bytes_ && args_.next && q < panel_.n_queries(); ++q)
    __builtin_prefetch(where_bytes_ + q * segment.where_stride + step * kStripRows, 0, 2);
  segment_ = segment_index;
  first_row_ = strip * kStripRows;
  return true;
}

}  // namespace fastretrieve::cpu
