// Walks the leaves of a screen for a panel: boxes, heads, records. What is left goes to the
// survivors, with the same intervals as in a scan of strips.
//
// Survivors is TopKSurvivors (cpu/topk.hpp) or RangeSurvivors (cpu/range.hpp). It has
//
//   threshold(query)                     what rows must reach
//   receive()                            takes over what other threads know
//   add(query, interval, segment, row)   a row that its record does not rule out
//   added(query, before)                 after a run of rows; `before` is the threshold they met
//   restart()                            forgets rows, if the walk is given up
//   has_enough()                         whether the search needs no more rows
#pragma once
#include <cstdint>
#include <vector>

#include "cpu/range.hpp"
#include "cpu/screen/build.hpp"
#include "cpu/screen/panel.hpp"
#include "cpu/topk.hpp"

namespace fastretrieve::cpu {

template <class Survivors>
class LeafWalk {
 public:
  LeafWalk(const Problem& problem, const Screen& screen, const std::vector<int64_t>& slots,
           const Panel& panel, const HeadPanel& heads, Survivors& survivors, SearchStats& stats);
  LeafWalk(const LeafWalk&) = delete;
  LeafWalk& operator=(const LeafWalk&) = delete;

  // Searches the leaves nearest to each query.
  void search_seeds(Cancel& cancel);
  // Searches these leaves for one query.
  void search_leaves(int64_t query, const std::vector<int32_t>& leaves, Cancel& cancel);
  // Whether a walk costs less than a scan of this share of the strips, by a sample of the leaves.
  bool pays(double share_of_scan);
  // Leaves [begin, end) without the seeds. `begin` is a multiple of kBoxLeaves.
  void scan(int64_t begin, int64_t end, Cancel& cancel);

 private:
  // A row that passed the heads.
  struct Passed {
    int32_t query, segment;
    int64_t row;
    const uint8_t* record;
  };

  // Takes over a query's threshold.
  void aim(int64_t query);
  void aim_where_raised();
  bool needs_no_scan(int64_t query) const { return panel_.needs_no_scan(query); }
  void find_near_leaves(int64_t group);
  // Runs the heads of a leaf against these queries; survivors are in `survived_`.
  void judge(int64_t leaf, const std::vector<int32_t>& queries);
  void scan_leaf(int64_t leaf);
  void take(int64_t query, int64_t leaf, uint64_t rows);
  // Compares the records that wait.
  void compare();
  void compare_run(size_t begin, size_t end);
  RowBound bound(const uint8_t* record) const;
  void prefetch_leaf(int64_t leaf) const;

  const Problem& problem_;
  const Screen& screen_;
  const Places places_;
  const Panel& panel_;
  const HeadPanel& heads_;
  Survivors& survivors_;
  SearchStats& stats_;
  const LeafLayout layout_;
  const RecordLayout records_;

  std::vector<double> known_;  // the threshold that a query aims with
  std::vector<Aim> aims_;
  std::vector<Cut> cuts_;
  std::vector<uint16_t> near_;               // leaves of the current group
  std::vector<std::vector<int32_t>> seeds_;  // ascending

  std::vector<int32_t> queries_;  // those to which the current leaf may matter
  std::vector<int8_t> codes_;     // theirs, side by side
  std::vector<int32_t> bias_;
  std::vector<uint64_t> survived_;
  std::vector<int32_t> dots_;
  std::vector<Passed> passed_;
  std::vector<const uint8_t*> addresses_;
  std::vector<int32_t> products_;
};

extern template class LeafWalk<TopKSurvivors>;
extern template class LeafWalk<RangeSurvivors>;

// Rough costs in nanoseconds, on one thread: for plans, never for answers.
double pair_cost(const Kernels& kernels, int64_t row_bytes, int64_t dims, int64_t n_queries);
double record_cost(int64_t dim, int64_t n_queries);
// What a query costs before its first leaf: its head, the nearest leaves, their rows.
double seed_cost(int64_t dim, int64_t head_dim, int64_t n_leaves);

}  // namespace fastretrieve::cpu
