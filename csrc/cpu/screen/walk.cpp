#include "cpu/screen/walk.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/allowed.hpp"

namespace fastretrieve::cpu {

constexpr size_t kWaiting = 32;        // records that are fetched before they are compared
constexpr int64_t kSampleGroups = 32;  // of boxes, from which a walk's cost is judged
constexpr double kBytesPerNs = 12, kFilterNs = 0.05;
constexpr double kLeafNs = 80;  // beside its heads: which queries it concerns, and their codes

double pair_cost(const Kernels& kernels, int64_t row_bytes, int64_t dims, int64_t n_queries) {
  const double read = static_cast<double>(row_bytes) / kBytesPerNs / static_cast<double>(n_queries);
  return std::max(read, static_cast<double>(dims) / kernels.products_per_ns) + kFilterNs;
}

double record_cost(int64_t dim, int64_t n_queries) {
  return 12 + static_cast<double>(dim) / 20 + (n_queries < 16 ? 25 : 0);
}

double seed_cost(int64_t dim, int64_t head_dim, int64_t n_leaves) {
  return 4000 + static_cast<double>(head_dim * dim) / 12 + static_cast<double>(n_leaves);
}

template <class Survivors>
LeafWalk<Survivors>::LeafWalk(const Problem& problem, const Screen& screen,
                              const std::vector<int64_t>& slots, const Panel& panel,
                              const HeadPanel& heads, Survivors& survivors, SearchStats& stats)
    : problem_(problem),
      screen_(screen),
      places_{problem.segments, slots},
      panel_(panel),
      heads_(heads),
      survivors_(survivors),
      stats_(stats),
      layout_(screen.map.head_dim),
      records_(problem.dim, problem.metric) {
  const size_t n = static_cast<size_t>(panel.n_queries());
  known_.assign(n, -kInfinity);
  aims_.resize(n);
  cuts_.resize(n);
  near_.resize(n);
  seeds_.resize(n);
  survived_.resize(n);
  bias_.resize(n);
  codes_.resize(n * static_cast<size_t>(screen.map.head_dim));
  dots_.resize(static_cast<size_t>(kStreamQueries * kStripRows));
  for (size_t q = 0; q < n; ++q) {
    seeds_[q] = heads.seeds(static_cast<int64_t>(q));
    std::sort(seeds_[q].begin(), seeds_[q].end());
    aim(static_cast<int64_t>(q));
  }
}

template <class Survivors>
void LeafWalk<Survivors>::aim(int64_t query) {
  const size_t q = static_cast<size_t>(query);
  const double value = survivors_.threshold(query);
  const HeadMap& map = screen_.map;
  known_[q] = value;
  aims_[q] = heads_.aim(query, panel_.row(query).norm, value);
  const double most_square =
      map.metric == Metric::ip ? map.radius * map.radius * (1 + kSimilaritySlack) : 1;
  cuts_[q] = make_cut(problem_.metric, panel_.bound(query), most_square, value);
}

template <class Survivors>
void LeafWalk<Survivors>::aim_where_raised() {
  survivors_.receive();
  for (int64_t q = 0; q < panel_.n_queries(); ++q)
    if (survivors_.threshold(q) > known_[static_cast<size_t>(q)]) aim(q);
}

template <class Survivors>
void LeafWalk<Survivors>::prefetch_leaf(int64_t leaf) const {
  const uint8_t* const codes = screen_.heads + leaf * layout_.bytes();
  for (int64_t at = 0; at < layout_.bytes(); at += 64) __builtin_prefetch(codes + at);
  const char* const places = reinterpret_cast<const char*>(screen_.places + leaf * kStripRows);
  for (int64_t at = 0; at < kStripRows * int64_t{sizeof(int32_t)}; at += 64)
    __builtin_prefetch(places + at);
}

template <class Survivors>
void LeafWalk<Survivors>::judge(int64_t leaf, const std::vector<int32_t>& queries) {
  const int64_t n = static_cast<int64_t>(queries.size()), head_dim = screen_.map.head_dim;
  for (int64_t i = 0; i < n; ++i)
    bias_[static_cast<size_t>(i)] =
        aims_[static_cast<size_t>(queries[static_cast<size_t>(i)])].start;
  HeadArgs args{};
  args.codes = screen_.heads + leaf * layout_.bytes();
  args.groups = layout_.groups;
  args.bias = bias_.data();
  args.n_queries = n;
  args.starts = layout_.starts(args.codes);
  args.survivors = survived_.data();
  args.dots = dots_.data();
  args.queries = heads_.codes(queries[0]);  // side by side already if none is left out
  if (queries.back() - queries.front() + 1 != n) {
    for (int64_t i = 0; i < n; ++i)
      std::memcpy(codes_.data() + i * head_dim, heads_.codes(queries[i]),
                  static_cast<size_t>(head_dim));
    args.queries = codes_.data();
  }
  problem_.kernels.heads(args);
  stats_.rows_screened += n * kStripRows;
}

template <class Survivors>
void LeafWalk<Survivors>::take(int64_t query, int64_t leaf, uint64_t rows) {
  for (; rows; rows &= rows - 1) {
    const int64_t position = leaf * kStripRows + __builtin_ctzll(rows);
    const int32_t slot = screen_.places[position];
    if (slot < 0) continue;
    const Places::At at = places_.find(slot);
    if (at.row >= problem_.segments[at.segment].rows.n_rows) continue;  // of a damaged file
    if (!row_allowed(problem_.segments[at.segment], panel_.first() + query, at.row)) continue;
    const uint8_t* const record = screen_.records + position * records_.bytes();
    for (int64_t b = 0; b < records_.bytes() && b < 2048; b += 64) __builtin_prefetch(record + b);
    passed_.push_back(
        {static_cast<int32_t>(query), static_cast<int32_t>(at.segment), at.row, record});
  }
}

template <class Survivors>
RowBound LeafWalk<Survivors>::bound(const uint8_t* record) const {
  float b[6] = {0, 0, 0, 0, 1, 1};  // for cosine, rows are divided by their norms
  std::memcpy(b, record, records_.n_bounds > 4 ? 6 * sizeof(float) : 4 * sizeof(float));
  return {b[0], b[1], b[2], b[3], b[4], b[5]};
}

template <class Survivors>
void LeafWalk<Survivors>::compare_run(size_t begin, size_t end) {
  const int64_t query = passed_[begin].query;
  addresses_.clear();
  for (size_t i = begin; i < end; ++i)
    addresses_.push_back(passed_[i].record + records_.codes_at());
  products_.resize(addresses_.size());
  const Panel::Codes codes = panel_.codes(query);
  problem_.kernels.records({codes.values, codes.bias, addresses_.data(),
                            static_cast<int64_t>(end - begin), records_.padded_dim,
                            products_.data()});
  stats_.rows_compared += static_cast<int64_t>(end - begin);
  const QueryBound& q = panel_.bound(query);
  const Cut& cut = cuts_[static_cast<size_t>(query)];
  for (size_t i = begin; i < end; ++i) {
    const RowBound x = bound(passed_[i].record);
    const int32_t dot = products_[i - begin];
    if (falls_short(problem_.metric, q, x, dot, cut)) continue;
    survivors_.add(query, interval(problem_.metric, q, x, dot), passed_[i].segment, passed_[i].row);
  }
  survivors_.added(query, known_[static_cast<size_t>(query)]);
  if (survivors_.threshold(query) > known_[static_cast<size_t>(query)]) aim(query);
}

template <class Survivors>
void LeafWalk<Survivors>::compare() {
  problem_.cancel.check();
  for (size_t begin = 0; begin < passed_.size();) {
    size_t end = begin + 1;
    while (end < passed_.size() && passed_[end].query == passed_[begin].query &&
           end - begin < kWaiting)
      ++end;
    compare_run(begin, end);
    begin = end;
  }
  passed_.clear();
}

template <class Survivors>
void LeafWalk<Survivors>::search_leaves(int64_t query, const std::vector<int32_t>& leaves,
                                        Cancel& cancel) {
  cancel.check();
  queries_.assign(1, static_cast<int32_t>(query));
  for (size_t i = 0; i < leaves.size(); ++i) {
    if (i + 1 < leaves.size()) prefetch_leaf(leaves[i + 1]);
    judge(leaves[i], queries_);
    take(query, leaves[i], survived_[0]);
    // The first leaf gives the threshold that spares most rows of the others.
    if (i == 0 || passed_.size() >= kWaiting) compare();
  }
  compare();
}

template <class Survivors>
void LeafWalk<Survivors>::search_seeds(Cancel& cancel) {
  for (int64_t q = 0; q < panel_.n_queries(); ++q)
    if (!needs_no_scan(q)) search_leaves(q, heads_.seeds(q), cancel);
}

template <class Survivors>
void LeafWalk<Survivors>::find_near_leaves(int64_t group) {
  const int64_t first = group * kBoxLeaves;
  const float* const boxes = screen_.boxes + group * kBoxAxes * 2 * kBoxLeaves;
  const unsigned all = (1u << std::min<int64_t>(kBoxLeaves, screen_.n_leaves - first)) - 1;
  for (int64_t q = 0; q < panel_.n_queries(); ++q) {
    uint16_t& near = near_[static_cast<size_t>(q)];
    near = 0;
    if (needs_no_scan(q)) continue;
    problem_.kernels.boxes(
        {boxes, 1, heads_.point(q), aims_[static_cast<size_t>(q)].box_limit, &near});
    near = static_cast<uint16_t>(near & all);
    stats_.leaves_skipped += __builtin_popcount(all & ~near);
  }
}

template <class Survivors>
bool LeafWalk<Survivors>::pays(double share_of_scan) {
  aim_where_raised();
  const int64_t n_groups = (screen_.n_leaves + kBoxLeaves - 1) / kBoxLeaves;
  const int64_t step = std::max<int64_t>(1, n_groups / kSampleGroups);
  int64_t leaves = 0, near = 0, judged = 0, rows = 0, wanted = 0;
  for (int64_t q = 0; q < panel_.n_queries(); ++q) wanted += !needs_no_scan(q);
  for (int64_t group = 0; group < n_groups; group += step) {
    find_near_leaves(group);
    const int64_t of_group = std::min(kBoxLeaves, screen_.n_leaves - group * kBoxLeaves);
    // One leaf of the group, each time another.
    const int64_t chosen = (group / step) % of_group;
    queries_.clear();
    leaves += of_group * wanted;
    for (int64_t q = 0; q < panel_.n_queries(); ++q) {
      const unsigned bits = near_[static_cast<size_t>(q)];
      near += __builtin_popcount(bits);
      if ((bits >> chosen) & 1) queries_.push_back(static_cast<int32_t>(q));
    }
    judged += wanted;
    if (queries_.empty()) continue;
    judge(group * kBoxLeaves + chosen, queries_);
    for (size_t i = 0; i < queries_.size(); ++i) rows += __builtin_popcountll(survived_[i]);
  }
  if (judged == 0) return true;
  const int64_t n = panel_.n_queries();
  const double share_near = static_cast<double>(near) / static_cast<double>(leaves);
  const double share_rows = static_cast<double>(rows) / static_cast<double>(judged * kStripRows);
  const StripLayout strips(problem_.dim, problem_.metric);
  const double heads =
      pair_cost(problem_.kernels, screen_.map.head_dim + 4, screen_.map.head_dim, n) +
      kLeafNs / static_cast<double>(kStripRows * n);
  const double walk = share_near * heads + share_rows * record_cost(problem_.dim, n);
  const double scan =
      pair_cost(problem_.kernels, strips.bytes() / kStripRows, strips.padded_dim(), n);
  // The model is rough, and a scan of several queries is near its best rate.
  return walk < (n == 1 ? 0.9 : 0.75) * share_of_scan * scan;
}

template <class Survivors>
void LeafWalk<Survivors>::scan_leaf(int64_t leaf) {
  const int64_t bit = leaf % kBoxLeaves;
  queries_.clear();
  for (int64_t q = 0; q < panel_.n_queries(); ++q)
    if ((near_[static_cast<size_t>(q)] >> bit) & 1) queries_.push_back(static_cast<int32_t>(q));
  if (queries_.empty()) return;
  judge(leaf, queries_);
  for (size_t i = 0; i < queries_.size(); ++i)
    if (survived_[i]) take(queries_[i], leaf, survived_[i]);
  if (passed_.size() >= kWaiting) compare();
}

template <class Survivors>
void LeafWalk<Survivors>::scan(int64_t begin, int64_t end, Cancel& cancel) {
  end = std::min(end, screen_.n_leaves);
  std::vector<const int32_t*> next(seeds_.size());  // the first seed that is not behind
  for (size_t q = 0; q < seeds_.size(); ++q)
    next[q] = std::lower_bound(seeds_[q].data(), seeds_[q].data() + seeds_[q].size(),
                               static_cast<int32_t>(begin));
  for (int64_t first = begin; first < end; first += kBoxLeaves) {
    cancel.check();
    if (survivors_.has_enough()) return;
    aim_where_raised();
    find_near_leaves(first / kBoxLeaves);
    unsigned any = 0;
    for (size_t q = 0; q < seeds_.size(); ++q) {
      const int32_t* const stop = seeds_[q].data() + seeds_[q].size();
      for (; next[q] < stop && *next[q] < first + kBoxLeaves; ++next[q])
        near_[q] = static_cast<uint16_t>(near_[q] & ~(1u << (*next[q] - first)));
      any |= near_[q];
    }
    if (end - first < kBoxLeaves) any &= (1u << (end - first)) - 1;
    if (any) prefetch_leaf(first + __builtin_ctz(any));
    for (; any; any &= any - 1) {
      const unsigned later = any & (any - 1);
      if (later) prefetch_leaf(first + __builtin_ctz(later));
      scan_leaf(first + __builtin_ctz(any));
    }
  }
  compare();
}

template class LeafWalk<TopKSurvivors>;
template class LeafWalk<RangeSurvivors>;

}  // namespace fastretrieve::cpu
