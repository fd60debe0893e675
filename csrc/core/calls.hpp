// The calls of a backend: argument structs that the CPU and CUDA share.
//
// A backend owns no long-lived memory: Python allocates, passes addresses and keeps them alive.
#pragma once
#include <cstdint>
#include <vector>

#include "core/order.hpp"
#include "core/screen.hpp"
#include "core/trust.hpp"
#include "core/types.hpp"

namespace fastretrieve {

struct EncodeArgs {
  Matrix rows;  // n_strips * kStripRows finite rows
  Metric metric;
  int64_t n_strips;
  uint8_t* codes;  // n_strips records of strip_bytes()
};

// A screen over some rows of the segments of a search.
struct Screening {
  const Screen* screen = nullptr;               // null: none
  const Segment* rest = nullptr;                // the same segments, with only the other rows alive
  const std::vector<int64_t>* slots = nullptr;  // of the first row of each segment
  Trust* trust = nullptr;
};

struct SearchArgs {
  Matrix queries;
  const Segment* segments;
  int64_t n_segments;
  Metric metric;
  TopK out;
  SearchStats* stats;
  Screening screening = {};
  // Above 0: search only so many leaves for each query, the nearest that hold a row which may be
  // returned, beside the rows that are in no leaf. `proven` [n_queries] then gets the length of the
  // longest prefix of an answer that no unread row can disturb.
  int64_t probes = 0;
  int64_t* proven = nullptr;
};

// All rows within a radius: score at least `radius` for similarities, at most for distances.
struct RangeArgs {
  Matrix queries;
  const Segment* segments;
  int64_t n_segments;
  Metric metric;
  double radius;
  // Negative: any queries. Otherwise a self-join: the queries are the rows of this segment from
  // `self_row` on. Removed rows find nothing. Only rows after the query's own count, so each pair
  // comes once.
  int64_t self_segment;
  int64_t self_row;
  int64_t limit;                            // the call gives up beyond this many pairs
  std::vector<std::vector<Scored>>* found;  // [n_queries], each in canonical order
  SearchStats* stats;
  int64_t* n_found = nullptr;  // pairs found, even if the call fails
  Screening screening = {};
};

// The canonical score of every query with every row.
struct ScoresArgs {
  Matrix queries;
  Matrix rows;
  Metric metric;
  double* scores;  // [n_queries, n_rows]
};

// Layers of features for the same rows. With `weigh` each layer is first normalised and weighed
// (fr.fuse). Then the layers are joined and the whole row is normalised. One layer without `weigh`
// is plain normalisation.
struct Layer {
  Matrix rows;
  const float* mean;  // subtracted from every row; null: none
  double weight;
};

struct FuseArgs {
  const Layer* layers;
  int64_t n_layers;
  bool weigh;
  void* out;  // [n_rows, sum of dims], adjacent rows
  DType out_dtype;
};

// Copies rows into the index's own memory and rounds them to its number format.
struct IngestArgs {
  Matrix rows;
  void* out;  // [n_rows, dim], adjacent rows
  DType out_dtype;
};

// Sums of the rows of each cluster, in float64, in order of row.
struct ClusterArgs {
  Matrix rows;
  const int64_t* labels;  // [n_rows], in [0, n_clusters)
  int64_t n_clusters;
  double* sums;     // [n_clusters, dim]
  int64_t* counts;  // [n_clusters]
};

}  // namespace fastretrieve
