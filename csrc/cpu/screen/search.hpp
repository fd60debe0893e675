// Searches through a screen: for the k best, in some leaves only, within a radius.
#pragma once
#include "core/calls.hpp"
#include "cpu/encode.hpp"
#include "cpu/range.hpp"
#include "cpu/score.hpp"

namespace fastretrieve::cpu {

void search_screened(const Problem& problem, const SearchArgs& args, const EncodedQueries& queries);
void probe_screened(const Problem& problem, const SearchArgs& args, const EncodedQueries& queries);
void range_screened(const Problem& problem, const RangeArgs& args, const EncodedQueries& queries,
                    Budget& budget);

}  // namespace fastretrieve::cpu
