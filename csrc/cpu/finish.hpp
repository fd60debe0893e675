// The end of a search for the k best: the scores of what is left, on several threads.
#pragma once
#include <algorithm>
#include <cstdint>
#include <mutex>

#include "core/calls.hpp"
#include "cpu/pool.hpp"
#include "cpu/topk.hpp"

namespace fastretrieve::cpu {

// Queries that one task scores. Scoring waits for rows anywhere in memory, so threads that shared
// the rows share this work too.
constexpr int64_t kFinishQueries = 4;

// A scan has a panel, survivors and counts.
template <class Scan>
void finish(Scan& scan, const TopK& out, int threads, Cancel& cancel) {
  std::mutex counting;
  const auto task = [&](int64_t index, int) {
    ScoreScratch scratch;
    SearchStats counts;
    const int64_t end = std::min((index + 1) * kFinishQueries, scan.panel.n_queries());
    for (int64_t q = index * kFinishQueries; q < end; ++q) {
      cancel.check_now();
      const int64_t at = (scan.panel.first() + q) * out.k;
      scan.survivors.finish(q, scratch, counts, out.scores + at, out.ids + at);
    }
    std::lock_guard<std::mutex> lock(counting);
    scan.stats += counts;
  };
  parallel((scan.panel.n_queries() + kFinishQueries - 1) / kFinishQueries, threads, task, cancel);
}

}  // namespace fastretrieve::cpu
