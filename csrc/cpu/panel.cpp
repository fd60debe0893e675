#include "cpu/panel.hpp"

#include <algorithm>

namespace fastretrieve::cpu {

Panel::Panel(const Problem& problem, const EncodedQueries& queries, int64_t first,
             int64_t n_queries)
    : metric_(problem.metric), queries_(queries), first_(first) {
  double ratio = 0;
  for (int64_t q = 0; q < n_queries; ++q) {
    const Filter filter = make_filter(metric_, bound(q));
    reach_.push_back(filter.reach);
    fall_.push_back(filter.fall);
    threshold_.push_back(filter.threshold);
    ratio = std::max(ratio, error_ratio(bound(q)));
  }
  ratio_ = round_up(ratio);
}

void Panel::lend_to(StripArgs& args) const {
  args.queries = queries_.codes.data() + first_ * queries_.padded_dim;
  args.bias = queries_.bias.data() + first_;
  args.reach = reach_.data();
  args.fall = fall_.data();
  args.threshold = threshold_.data();
  args.ratio = ratio_;
  args.n_queries = n_queries();
}

}  // namespace fastretrieve::cpu
