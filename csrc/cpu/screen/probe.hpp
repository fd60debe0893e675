// The nearest leaves of a query, and how much of an answer is certain without the others.
#pragma once
#include <cstdint>
#include <utility>
#include <vector>

#include "core/cancel.hpp"
#include "cpu/screen/build.hpp"
#include "cpu/screen/panel.hpp"

namespace fastretrieve::cpu {

// The rows of an answer, without padding.
int64_t count_found(const int64_t* ids, int64_t k);

class Prober {
 public:
  // `first` is the number of the panel's first query among those of the masks.
  Prober(const Kernels& kernels, const Screen& screen, const Places& places, const HeadPanel& heads,
         int64_t first);

  // The leaves whose centres are nearest to the query's head, nearest first: by their distance in
  // float64, then the smaller leaf. Leaves without a row that the search may return do not count.
  const std::vector<int32_t>& nearest(int64_t query, int64_t n_leaves);

  // How many of the best scores of a query are strictly better than that of every row which the
  // search may return, in leaves that were not among its nearest.
  int64_t proven(int64_t query, double query_norm, const double* scores, const int64_t* ids,
                 int64_t k);

 private:
  bool may_return_a_row(int64_t query, int64_t leaf) const;
  // The ranks of a query's leaves: panel.hpp.
  const int32_t* values_of(int64_t query);
  // Whether a leaf that was not read may hold a row as good as this score.
  bool reaches_unread(int64_t query, double query_norm, double score) const;
  // The least distance of a box that was not read, squared; infinity if there is none.
  float nearest_unread(int64_t query);

  const Kernels& kernels_;
  const Screen& screen_;
  const Places& places_;
  const HeadPanel& heads_;
  const int64_t first_;
  bool all_rows_count_;
  std::vector<int32_t> values_;  // of kStreamQueries queries
  int64_t first_value_ = -1;     // the first of these queries
  std::vector<std::pair<double, int32_t>> found_;
  std::vector<std::vector<int32_t>> chosen_;  // leaves of each query
  std::vector<uint8_t> read_;                 // [n_leaves]
};

}  // namespace fastretrieve::cpu
