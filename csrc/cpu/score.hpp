// Stage 3: canonical scores of rows given by address.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/calls.hpp"
#include "core/cancel.hpp"
#include "core/order.hpp"
#include "core/types.hpp"
#include "cpu/kernels.hpp"

namespace fastretrieve::cpu {

// The problem of a search, which all its threads share.
struct Problem {
  const Kernels& kernels;
  const Segment* segments;
  int64_t n_segments;
  int64_t dim;
  Metric metric;
  int64_t k;  // 0 for a range
  Cancel& cancel;
};

// One query, for exact scores.
struct QueryRow {
  const float* values;
  double norm;
};

// The place of a row.
struct Place {
  int64_t row;
  int64_t segment;
};

// Memory that the queries of one thread use in turn.
struct ScoreScratch {
  std::vector<const void*> rows;
  std::vector<int64_t> ids;
  std::vector<double> sums, squares;
};

// Scores the rows of `scratch.rows`; appends to `out` under the ids of `scratch.ids`.
void score_rows(const Problem& problem, const QueryRow& query, DType dtype, ScoreScratch& scratch,
                std::vector<Scored>& out);

// Rows between two looks for Ctrl-C.
constexpr size_t kRowsAtOnce = 2048;

// Scores rows of the segments, in runs of one number format. Entries of `places` have a `row` and a
// `segment`.
template <class Places>
void score_places(const Problem& problem, const QueryRow& query, const Places& places,
                  ScoreScratch& scratch, std::vector<Scored>& out) {
  for (size_t begin = 0; begin < places.size();) {
    const DType dtype = problem.segments[places[begin].segment].rows.dtype;
    scratch.rows.clear();
    scratch.ids.clear();
    problem.cancel.check();
    size_t end = begin;
    for (; end < std::min(places.size(), begin + kRowsAtOnce); ++end) {
      const Segment& segment = problem.segments[places[end].segment];
      if (segment.rows.dtype != dtype) break;
      scratch.rows.push_back(segment.rows.row(places[end].row));
      scratch.ids.push_back(segment.id(places[end].row));
    }
    score_rows(problem, query, dtype, scratch, out);
    begin = end;
  }
}

// Sorts scored rows, best first.
void sort_best(std::vector<Scored>& scored, Cancel& cancel);

// Every query with every row: fr.scores.
void score_all(const Kernels& kernels, const ScoresArgs& args, Cancel& cancel);

}  // namespace fastretrieve::cpu
