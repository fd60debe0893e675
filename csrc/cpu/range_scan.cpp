#include "cpu/range_scan.hpp"

#include <algorithm>

namespace fastretrieve::cpu {

constexpr size_t kMaxPending = 256;  // rows of one query that are scored together

RangeScan::RangeScan(const Problem& problem, const EncodedQueries& queries, int64_t first,
                     int64_t n_queries, const RangeArgs& args, Budget& budget)
    : PanelScan(problem, queries, first, n_queries),
      args_(args),
      budget_(budget),
      key_(key_of_score(problem.metric, args.radius)),
      value_(value_of_score(problem.metric, args.radius)),
      skip_(static_cast<size_t>(n_queries)),
      pending_(static_cast<size_t>(n_queries)),
      found_(static_cast<size_t>(n_queries)) {
  for (int64_t q = 0; q < n_queries; ++q) {
    skip_[static_cast<size_t>(q)] = removed(q) || needs_no_scan(q);
    set_threshold(q, skipped(q) ? kInfinity : value_);
  }
}

// Whether the query of a self-join is a removed row.
bool RangeScan::removed(int64_t query) const {
  if (args_.self_segment < 0) return false;
  const uint64_t* live = problem_.segments[args_.self_segment].live;
  const int64_t row = args_.self_row + first_ + query;
  return live && !((live[row / 64] >> (row % 64)) & 1);
}

// Whether a row may be reported: in a self-join, only rows behind the query's own.
bool RangeScan::behind(int64_t query, int64_t segment, int64_t row) const {
  if (segment != args_.self_segment) return segment > args_.self_segment;
  return row > args_.self_row + first_ + query;
}

void RangeScan::hit(int64_t query, uint64_t rows, const int32_t* dots) {
  if (skipped(query)) return;
  std::vector<Place>& pending = pending_[static_cast<size_t>(query)];
  const QueryBound& q = bound(query);
  const Cut cut = cut_at(query, value_);
  for (; rows; rows &= rows - 1) {
    const int row = __builtin_ctzll(rows);
    if (!behind(query, segment_, row_ + row)) continue;
    const RowBound x = row_bound_of(row);
    if (falls_short(problem_.metric, q, x, dots[row], cut)) continue;
    if (interval(problem_.metric, q, x, dots[row]).upper < value_) continue;  // NaN stays
    pending.push_back({row_ + row, segment_});
  }
  if (pending.size() >= kMaxPending) settle(query);
}

void RangeScan::tail(int64_t query, int64_t segment, const int64_t* rows, int64_t n_rows) {
  if (skipped(query)) return;
  std::vector<Place>& pending = pending_[static_cast<size_t>(query)];
  for (int64_t i = 0; i < n_rows; ++i)
    if (behind(query, segment, rows[i])) pending.push_back({rows[i], segment});
  if (pending.size() >= kMaxPending) settle(query);
}

void RangeScan::settle(int64_t query) {
  std::vector<Place>& pending = pending_[static_cast<size_t>(query)];
  std::vector<Scored>& found = found_[static_cast<size_t>(query)];
  const size_t before = found.size();
  stats.rows_scored += static_cast<int64_t>(pending.size());
  score_places(problem_, query_row(query), pending, scratch_, found);
  pending.clear();
  const auto outside = [this](const Scored& s) { return s.key < key_; };
  found.erase(std::remove_if(found.begin() + static_cast<int64_t>(before), found.end(), outside),
              found.end());
  budget_.found += static_cast<int64_t>(found.size() - before);
}

void RangeScan::scan_strips(int64_t begin, int64_t end, Cancel& cancel) {
  for_strips(begin, end, [&](int64_t segment, int64_t strip, int64_t) {
    cancel.check();
    if (budget_.exceeded() || !behind(0, segment, (strip + 1) * kStripRows - 1)) return;
    if (load_strip(segment, strip)) scan_loaded();
  });
}

void RangeScan::take_zero_queries(Cancel& cancel) {
  if (key_ > 0) return;
  for (int64_t q = 0; q < n_queries(); ++q) {
    if (!needs_no_scan(q) || removed(q)) continue;
    std::vector<Scored>& found = found_[static_cast<size_t>(q)];
    for (int64_t s = 0; s < problem_.n_segments && !budget_.exceeded(); ++s) {
      const Segment& segment = problem_.segments[s];
      const size_t before = found.size();
      for (int64_t row = 0; row < segment.rows.n_rows; ++row) {
        if (row % 65536 == 0) cancel.check_now();
        if (behind(q, s, row) && row_allowed(segment, first_ + q, row))
          found.push_back({0.0, segment.id(row)});
      }
      budget_.found += static_cast<int64_t>(found.size() - before);
    }
  }
}

void RangeScan::absorb(RangeScan& other) {
  for (size_t q = 0; q < found_.size(); ++q) {
    other.settle(static_cast<int64_t>(q));
    std::vector<Scored>& mine = found_[q];
    std::vector<Scored>& theirs = other.found_[q];
    if (mine.empty()) mine.swap(theirs);
    mine.insert(mine.end(), theirs.begin(), theirs.end());
    std::vector<Scored>().swap(theirs);
  }
  stats += other.stats;
}

void RangeScan::finish(int64_t query, std::vector<Scored>& out) {
  settle(query);
  out.swap(found_[static_cast<size_t>(query)]);
  sort_best(out, problem_.cancel);
}

}  // namespace fastretrieve::cpu
