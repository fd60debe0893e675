// A panel: queries [first, first + n_queries) of a search, for which one thread walks strips.
//
// The kernels read its thresholds at every strip. The class that keeps survivors raises them during
// the walk.
#pragma once
#include <cstdint>
#include <vector>

#include "core/bound.hpp"
#include "cpu/encode.hpp"
#include "cpu/score.hpp"

namespace fastretrieve::cpu {

class Panel {
 public:
  Panel(const Problem& problem, const EncodedQueries& queries, int64_t first, int64_t n_queries);
  Panel(const Panel&) = delete;
  Panel& operator=(const Panel&) = delete;

  int64_t first() const { return first_; }
  int64_t n_queries() const { return static_cast<int64_t>(reach_.size()); }

  // Below, `query` is a number within the panel.
  const QueryBound& bound(int64_t query) const { return queries_.bounds[of_search(query)]; }
  QueryRow row(int64_t query) const {
    return {queries_.row(first_ + query), queries_.norms[of_search(query)]};
  }
  // A zero query scores zero with every row, so only ids decide.
  bool needs_no_scan(int64_t query) const {
    return !is_distance(metric_) && queries_.norms[of_search(query)] == 0;
  }
  // From the next strip on, the filter drops rows that cannot reach this value.
  void set_threshold(int64_t query, double value) {
    threshold_[static_cast<size_t>(query)] = filter_threshold(metric_, bound(query), value);
  }
  // The codes of a query, padded with zeros to whole groups, and the start of its products.
  struct Codes {
    const int8_t* values;
    int32_t bias;
  };
  Codes codes(int64_t query) const {
    return {queries_.codes.data() + (first_ + query) * queries_.padded_dim,
            queries_.bias[of_search(query)]};
  }
  // Points the arguments of a kernel at the queries.
  void lend_to(StripArgs& args) const;

 private:
  size_t of_search(int64_t query) const { return static_cast<size_t>(first_ + query); }

  const Metric metric_;
  const EncodedQueries& queries_;
  const int64_t first_;
  std::vector<float> reach_, fall_, threshold_;
  float ratio_;
};

}  // namespace fastretrieve::cpu
