// The rows that a search may return: live ones that its masks allow.
#pragma once
#include <cstdint>

#include "core/types.hpp"

namespace fastretrieve::cpu {

inline bool row_allowed(const Segment& segment, int64_t query, int64_t row) {
  const uint64_t bit = uint64_t{1} << (row % 64);
  if (segment.live && !(segment.live[row / 64] & bit)) return false;
  if (segment.where_bytes) return segment.where_bytes[query * segment.where_stride + row] != 0;
  return !segment.where || (segment.where[query * segment.where_stride + row / 64] & bit);
}

// Skips the masks of this many queries.
inline void skip_masks(Segment& segment, int64_t n_queries) {
  if (segment.where) segment.where += n_queries * segment.where_stride;
  if (segment.where_bytes) segment.where_bytes += n_queries * segment.where_stride;
}

// Calls work(word). word(strip) is the strip's shared mask: the rows that live and that a mask for
// all queries allows. So a loop over strips need not ask which masks there are.
template <class Work>
auto with_shared_masks(const Segment& segment, const Work& work) {
  const uint64_t* where = segment.where_stride == 0 ? segment.where : nullptr;
  const uint64_t* live = segment.live;
  if (where && live) return work([=](int64_t strip) { return where[strip] & live[strip]; });
  if (where) return work([=](int64_t strip) { return where[strip]; });
  if (live) return work([=](int64_t strip) { return live[strip]; });
  return work([](int64_t) { return ~uint64_t{0}; });
}

// The first strip of [strip, stop) whose shared mask is not empty, or `stop`.
inline int64_t skip_empty(const Segment& segment, int64_t strip, int64_t stop) {
  return with_shared_masks(segment, [=](const auto& word) {
    int64_t at = strip;
    while (at < stop && word(at) == 0) ++at;
    return at;
  });
}

// The number of strips whose shared mask is not empty.
inline int64_t wanted_strips(const Segment& segment) {
  return with_shared_masks(segment, [&](const auto& word) {
    int64_t wanted = 0;
    for (int64_t strip = 0; strip < segment.n_strips; ++strip) wanted += word(strip) != 0;
    return wanted;
  });
}

}  // namespace fastretrieve::cpu
