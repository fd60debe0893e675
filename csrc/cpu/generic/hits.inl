// Hands the rows that the float32 filter kept to the survivors: written once for every instruction
// set.
//
// A scan includes this inside its anonymous namespace.

inline void hand_over(const StripArgs& strip, int64_t query, uint64_t rows, const int32_t* dots) {
  rows &= strip.allowed;
  if (__builtin_expect(rows == 0, 1)) return;
  if (strip.where) rows &= strip.where[query * strip.where_stride];
  if (rows) strip.survivors->hit(query, rows, dots);
}
