// Which leaves may hold a row near a point: loops that compilers turn into the registers of an
// instruction set. A file of kernels includes this inside its anonymous namespace.

inline uint16_t near_leaves(const float* box, const float* point, float limit) {
  float squares[kBoxLeaves] = {};
  for (int64_t axis = 0; axis < kBoxAxes; ++axis) {
    const float* low = box + axis * 2 * kBoxLeaves;
    const float* high = low + kBoxLeaves;
    const float at = point[axis];
    for (int64_t leaf = 0; leaf < kBoxLeaves; ++leaf) {
      const float below = low[leaf] - at, above = at - high[leaf];
      const float outside = below > above ? below : above;
      const float distance = outside > 0 ? outside : 0;
      squares[leaf] += distance * distance;
    }
  }
  unsigned near = 0;
  for (int64_t leaf = 0; leaf < kBoxLeaves; ++leaf)
    near |= static_cast<unsigned>(!(squares[leaf] > limit)) << leaf;
  return static_cast<uint16_t>(near);
}

inline void test_boxes(const BoxArgs& args) {
  for (int64_t group = 0; group < args.n_groups; ++group)
    args.out[group] =
        near_leaves(args.boxes + group * kBoxAxes * 2 * kBoxLeaves, args.point, args.limit);
}
