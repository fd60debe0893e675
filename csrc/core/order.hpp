// The canonical order: better score first, then smaller id. It is total, so merging is associative:
// panels, threads, segments and shards cannot change a result.
#pragma once
#include <cstdint>

#include "core/types.hpp"

namespace fastretrieve {

struct Scored {
  double key;  // larger is better: the score of a similarity, minus the distance
  int64_t id;
};

inline bool better(const Scored& a, const Scored& b) {
  return a.key != b.key ? a.key > b.key : a.id < b.id;
}

inline double key_of_score(Metric metric, double score) {
  return is_distance(metric) ? -score : score;
}
// 0 - key, not -key: a distance of zero must come back as +0.
inline double score_of_key(Metric metric, double key) {
  return is_distance(metric) ? 0.0 - key : key;
}

}  // namespace fastretrieve
