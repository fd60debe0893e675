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

Prober::Prober(const Kernels& kernels, const Screen& screen, const Places& places,
               const HeadPanel& heads, int64_t first)
    : kernels_(kernels),
      screen_(screen),
      places_(places),
      heads_(heads),
      first_(first),
      all_rows_count_(true) {
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

const int32_t* Prober::values_of(int64_t query) {
  const int64_t first = query / kStreamQueries * kStreamQueries;
  if (first != first_value_) {
    const int64_t n = std::min(kStreamQueries, heads_.n_queries() - first);
    heads_.rank_leaves(first, n, values_);
    first_value_ = first;
  }
  return values_.data() + (query - first) * heads_.ranked_leaves();
}

// The least value of the `wanted` largest, or a little less: by counts of ranges of values.
static int32_t roughly_nth(const int32_t* values, int64_t n, int64_t wanted) {
  constexpr int64_t kRanges = 2048;
  int32_t least = values[0], most = values[0];
  for (int64_t i = 1; i < n; ++i) {  // a loop that compilers turn into vectors
    least = std::min(least, values[i]);
    most = std::max(most, values[i]);
  }
  const uint32_t spread = static_cast<uint32_t>(most) - static_cast<uint32_t>(least);
  int shift = 0;  // a range is a power of two: a division for each value took longer than the rest
  while ((spread >> shift) >= kRanges) ++shift;
  int32_t counts[kRanges] = {};
  for (int64_t i = 0; i < n; ++i)
    ++counts[(static_cast<uint32_t>(most) - static_cast<uint32_t>(values[i])) >> shift];
  int64_t total = 0, r = 0;
  while (r < kRanges && (total += counts[r]) < wanted) ++r;
  const int64_t below = int64_t{most} - ((r + 1) << shift) + 1;
  return static_cast<int32_t>(std::max(int64_t{least}, below));
}

const std::vector<int32_t>& Prober::nearest(int64_t query, int64_t n_leaves) {
  const int32_t* const values = values_of(query);
  const int64_t n = screen_.n_leaves;
  // Codes say roughly which leaves are near. Take some more, compare their distances in float64,
  // and go on until no other leaf can be nearer than the last one chosen.
  for (int64_t wanted = std::min(n_leaves, n) * 9 / 8 + 16;; wanted *= 2) {
    const int32_t cut = wanted < n ? roughly_nth(values, n, wanted) : INT32_MIN;
    found_.clear();
    for (int64_t leaf = 0; leaf < n; ++leaf)
      if (values[leaf] >= cut && may_return_a_row(query, leaf))
        found_.emplace_back(heads_.leaf_distance(query, leaf), static_cast<int32_t>(leaf));
    std::sort(found_.begin(), found_.end());
    if (wanted >= n) break;
    if (static_cast<int64_t>(found_.size()) < n_leaves) continue;
    // The value of every other leaf is below the cut, and within one half of the truth.
    const double codes = static_cast<double>(heads_.code_square(query)) - 2.0 * cut;
    const double least = screen_.step * std::sqrt(std::max(codes, 0.0)) * (1 - 0x1p-40) -
                         heads_.code_error(query) * (1 + 0x1p-40);
    const double last = std::sqrt(found_[static_cast<size_t>(n_leaves - 1)].first);
    if (last * (1 + 0x1p-40) < least) break;
  }
  std::vector<int32_t>& chosen = chosen_[static_cast<size_t>(query)];
  for (size_t i = 0; i < found_.size() && static_cast<int64_t>(i) < n_leaves; ++i)
    chosen.push_back(found_[i].second);
  return chosen;
}

bool Prober::reaches_unread(int64_t query, double query_norm, double score) const {
  constexpr int64_t kGroupsAtOnce = 32;
  const Aim aim = heads_.aim(query, query_norm, value_of_score(screen_.map.metric, score));
  const int64_t n_groups = (screen_.n_leaves + kBoxLeaves - 1) / kBoxLeaves;
  uint16_t near[kGroupsAtOnce];
  for (int64_t group = 0; group < n_groups; group += kGroupsAtOnce) {
    const int64_t n = std::min(kGroupsAtOnce, n_groups - group);
    kernels_.boxes({screen_.boxes + group * kBoxAxes * 2 * kBoxLeaves, n, heads_.point(query),
                    aim.box_limit, near});
    for (int64_t g = 0; g < n; ++g) {
      for (unsigned bits = near[g]; bits; bits &= bits - 1) {
        const int64_t leaf = (group + g) * kBoxLeaves + __builtin_ctz(bits);
        if (leaf < screen_.n_leaves && !read_[static_cast<size_t>(leaf)] &&
            may_return_a_row(query, leaf))
          return true;
      }
    }
  }
  return false;
}

float Prober::nearest_unread(int64_t query) {
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
  const int64_t found = count_found(ids, k);
  read_.assign(static_cast<size_t>(screen_.n_leaves), uint8_t{0});
  for (const int32_t leaf : chosen_[static_cast<size_t>(query)])
    read_[static_cast<size_t>(leaf)] = 1;
  // Mostly not even the best row is certain, and the first boxes say so.
  if (found > 0 && reaches_unread(query, query_norm, scores[0])) return 0;
  const float square = nearest_unread(query);
  if (!(square < HUGE_VALF)) return found;
  const Metric metric = screen_.map.metric;
  const double distance = heads_.distance_beyond(query, square);
  const double best = key_of_score(metric, best_score_beyond(screen_.map, query_norm, distance));
  int64_t proven = 0;
  while (proven < found && key_of_score(metric, scores[proven]) > best) ++proven;
  return proven;
}

}  // namespace fastretrieve::cpu
