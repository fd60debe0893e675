// A search for the k best through a screen.
#pragma once
#include "core/calls.hpp"
#include "cpu/encode.hpp"
#include "cpu/score.hpp"

namespace fastretrieve::cpu {

// Who decides whether a search goes through its screen: costs, or a test.
enum class ScreenUse : int32_t { by_cost, always, never };
void use_screens(ScreenUse use);
ScreenUse screen_use();

// Whether the screen may pay for a search of this size: whether a scan takes longer than what each
// query costs before its first leaf. A look at the leaves of every panel decides.
bool may_pay(const Kernels& kernels, const SearchArgs& args);

void search_screened(const Problem& problem, const SearchArgs& args, const EncodedQueries& queries);

}  // namespace fastretrieve::cpu
