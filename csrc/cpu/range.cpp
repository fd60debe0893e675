#include "cpu/range.hpp"

#include <algorithm>

namespace fastretrieve::cpu {

RangeSurvivors::RangeSurvivors(const Problem& problem, Panel& panel, SearchStats& stats,
                               const RangeArgs& args, Budget& budget)
    : problem_(problem),
      panel_(panel),
      stats_(stats),
      args_(args),
      budget_(budget),
      key_(key_of_score(problem.metric, args.radius)),
      value_(value_of_score(problem.metric, args.radius)),
      skip_(static_cast<size_t>(panel.n_queries())),
      pending_(static_cast<size_t>(panel.n_queries())),
      found_(static_cast<size_t>(panel.n_queries())) {
  for (int64_t q = 0; q < panel.n_queries(); ++q) {
    skip_[static_cast<size_t>(q)] = removed(q) || panel.needs_no_scan(q);
    panel.set_threshold(q, skipped(q) ? kInfinity : value_);
  }
}

// Whether the query of a self-join is a removed row.
bool RangeSurvivors::removed(int64_t query) const {
  if (args_.self_segment < 0) return false;
  const uint64_t* live = problem_.segments[args_.self_segment].live;
  const int64_t row = args_.self_row + panel_.first() + query;
  return live && !((live[row / 64] >> (row % 64)) & 1);
}

bool RangeSurvivors::behind(int64_t query, int64_t segment, int64_t row) const {
  if (segment != args_.self_segment) return segment > args_.self_segment;
  return row > args_.self_row + panel_.first() + query;
}

void RangeSurvivors::hit(const StripReader& strip, int64_t query, uint64_t rows,
                         const int32_t* dots) {
  if (skipped(query)) return;
  const QueryBound& q = panel_.bound(query);
  const Cut cut = strip.cut(q, value_);
  for (; rows; rows &= rows - 1) {
    const int row = __builtin_ctzll(rows);
    const RowBound x = strip.bound(row);
    if (falls_short(problem_.metric, q, x, dots[row], cut)) continue;
    add(query, interval(problem_.metric, q, x, dots[row]), strip.segment(),
        strip.first_row() + row);
  }
  added(query, value_);
}

void RangeSurvivors::tail(int64_t query, int64_t segment, const int64_t* rows, int64_t n_rows) {
  if (skipped(query)) return;
  std::vector<Place>& pending = pending_[static_cast<size_t>(query)];
  for (int64_t i = 0; i < n_rows; ++i)
    if (behind(query, segment, rows[i])) pending.push_back({rows[i], segment});
  added(query, value_);
}

void RangeSurvivors::settle(int64_t query) {
  std::vector<Place>& pending = pending_[static_cast<size_t>(query)];
  std::vector<Scored>& found = found_[static_cast<size_t>(query)];
  const size_t before = found.size();
  stats_.rows_scored += static_cast<int64_t>(pending.size());
  score_places(problem_, panel_.row(query), pending, scratch_, found);
  pending.clear();
  const auto outside = [this](const Scored& s) { return s.key < key_; };
  found.erase(std::remove_if(found.begin() + static_cast<int64_t>(before), found.end(), outside),
              found.end());
  budget_.found += static_cast<int64_t>(found.size() - before);
}

void RangeSurvivors::take_zero_queries(Cancel& cancel) {
  if (key_ > 0) return;
  for (int64_t q = 0; q < panel_.n_queries(); ++q) {
    if (!panel_.needs_no_scan(q) || removed(q)) continue;
    std::vector<Scored>& found = found_[static_cast<size_t>(q)];
    for (int64_t s = 0; s < problem_.n_segments && !budget_.exceeded(); ++s) {
      const Segment& segment = problem_.segments[s];
      const size_t before = found.size();
      for (int64_t row = 0; row < segment.rows.n_rows; ++row) {
        if (row % 65536 == 0) cancel.check_now();
        if (behind(q, s, row) && row_allowed(segment, panel_.first() + q, row))
          found.push_back({0.0, segment.id(row)});
      }
      budget_.found += static_cast<int64_t>(found.size() - before);
    }
  }
}

void RangeSurvivors::absorb(RangeSurvivors& other) {
  for (size_t q = 0; q < found_.size(); ++q) {
    other.settle(static_cast<int64_t>(q));
    std::vector<Scored>& mine = found_[q];
    std::vector<Scored>& theirs = other.found_[q];
    if (mine.empty()) mine.swap(theirs);
    mine.insert(mine.end(), theirs.begin(), theirs.end());
    std::vector<Scored>().swap(theirs);
  }
}

void RangeSurvivors::finish(int64_t query, std::vector<Scored>& out) {
  settle(query);
  out.swap(found_[static_cast<size_t>(query)]);
  sort_best(out, problem_.cancel);
}

void RangeSurvivors::scan(StripWalk<RangeSurvivors>& walk, int64_t begin, int64_t end,
                          Cancel& cancel) {
  walk.for_strips(begin, end, [&](int64_t segment, int64_t strip, int64_t) {
    cancel.check();
    if (budget_.exceeded()) return;
    if (behind(0, segment, (strip + 1) * kStripRows - 1)) walk.scan(segment, strip);
  });
}

}  // namespace fastretrieve::cpu
