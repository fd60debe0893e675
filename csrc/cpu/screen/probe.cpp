#include "cpu/screen/probe.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/bound.hpp"
#include "core/order.hpp"
#include "cpu/allowed.hpp"

namespace fastretrieve::cpu {

int64_t count_found(const int64_t* ids, int64_t k) {
  int64_t found = 0;
  while (found < k && ids[found] >= 0) ++found;
  return found;
}

Prober::Prober(const Screen& screen, const Places& places, const HeadPanel& heads, int64_t first)
    : screen_(screen), places_(places), heads_(heads), first_(first), all_rows_count_(true) {
  for (size_t s = 0; s < places.slots.size(); ++s) {
    const Segment& segment = places.segments[s];
    if (segment.live || segment.where || segment.where_bytes) all_rows_count_ = false;
  }
  chosen_.resize(static_cast<size_t>(heads.n_queries()));
}

bool Prober::may_return_a_row(int64_t query, int64_t leaf) const {
  for (int64_t position = leaf * kStripRows; position < (leaf + 1) * kStripRows; ++position) {
    const int32_t slot = screen_.places[position];
    if (slot < 0) continue;
    if (all_rows_count_) return true;
    const Places::At at = places_.find(slot);
    if (at.row < places_.segments[at.segment].rows.n_rows &&
        row_allowed(places_.segments[at.segment], first_ + query, at.row))
      return true;
  }
  return false;
}

const std::vector<int32_t>& Prober::nearest(int64_t query, int64_t n_leaves) {
  heads_.rank_leaves(query, values_);
  order_.resize(values_.size());
  for (size_t i = 0; i < order_.size(); ++i) order_[i] = static_cast<int32_t>(i);
  const auto larger = [this](int32_t a, int32_t b) {
    return values_[static_cast<size_t>(a)] > values_[static_cast<size_t>(b)];
  };
  // Codes say roughly which leaves are near. Take twice as many, compare their distances in
  // float64, and go on until no other leaf can be nearer than the last one chosen.
  std::vector<std::pair<double, int32_t>> found;
  size_t known = 0;
  for (size_t wanted = static_cast<size_t>(2 * n_leaves + 16);; wanted *= 2) {
    wanted = std::min(wanted, order_.size());
    if (wanted < order_.size())
      std::nth_element(order_.begin() + static_cast<int64_t>(known),
                       order_.begin() + static_cast<int64_t>(wanted - 1), order_.end(), larger);
    for (; known < wanted; ++known)
      if (may_return_a_row(query, order_[known]))
        found.emplace_back(heads_.leaf_distance(query, order_[known]), order_[known]);
    std::sort(found.begin(), found.end());
    if (known == order_.size()) break;
    if (static_cast<int64_t>(found.size()) < n_leaves) continue;
    // Every other leaf has codes at least so far away. A value is within one half of the truth.
    const double value = values_[static_cast<size_t>(order_[known - 1])];
    const double codes = static_cast<double>(heads_.code_square(query)) - 2 * value - 2;
    const double least = screen_.step * std::sqrt(std::max(codes, 0.0)) * (1 - 0x1p-40) -
                         heads_.code_error(query) * (1 + 0x1p-40);
    const double last = std::sqrt(found[static_cast<size_t>(n_leaves - 1)].first);
    if (last * (1 + 0x1p-40) < least) break;
  }
  if (static_cast<int64_t>(found.size()) > n_leaves) found.resize(static_cast<size_t>(n_leaves));
  std::vector<int32_t>& chosen = chosen_[static_cast<size_t>(query)];
  for (const auto& [distance, leaf] : found) chosen.push_back(leaf);
  return chosen;
}

float Prober::nearest_unread(int64_t query) {
  read_.assign(static_cast<size_t>(screen_.n_leaves), uint8_t{0});
  for (const int32_t leaf : chosen_[static_cast<size_t>(query)])
    read_[static_cast<size_t>(leaf)] = 1;
  std::vector<std::pair<float, int32_t>> unread;
  const float* const point = heads_.point(query);
  for (int64_t leaf = 0; leaf < screen_.n_leaves; ++leaf) {
    if (read_[static_cast<size_t>(leaf)]) continue;
    const float* const box =
        screen_.boxes + leaf / kBoxLeaves * kBoxAxes * 2 * kBoxLeaves + leaf % kBoxLeaves;
    float square = 0;
    for (int64_t axis = 0; axis < kBoxAxes; ++axis) {
      const float* const sides = box + axis * 2 * kBoxLeaves;
      const float below = sides[0] - point[axis], above = point[axis] - sides[kBoxLeaves];
      const float outside = below > above ? below : above;
      if (outside > 0) square += outside * outside;
    }
    unread.emplace_back(square, static_cast<int32_t>(leaf));
  }
  // Mostly the first counts; a heap gives the others one by one.
  const auto farther = [](const auto& a, const auto& b) { return a > b; };
  std::make_heap(unread.begin(), unread.end(), farther);
  while (!unread.empty()) {
    if (may_return_a_row(query, unread.front().second)) return unread.front().first;
    std::pop_heap(unread.begin(), unread.end(), farther);
    unread.pop_back();
  }
  return HUGE_VALF;
}

int64_t Prober::proven(int64_t query, double query_norm, const double* scores, const int64_t* ids,
                       int64_t k) {
  const float square = nearest_unread(query);
  const int64_t found = count_found(ids, k);
  if (!(square < HUGE_VALF)) return found;
  const Metric metric = screen_.map.metric;
  const double distance = heads_.distance_beyond(query, square);
  const double best = key_of_score(metric, best_score_beyond(screen_.map, query_norm, distance));
  int64_t proven = 0;
  while (proven < found && key_of_score(metric, scores[proven]) > best) ++proven;
  return proven;
}

}  // namespace fastretrieve::cpu
