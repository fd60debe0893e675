// The parts of a screen: an order of rows in leaves of 64, and what is kept of each row.
#pragma once
#include <cstdint>
#include <vector>

#include "core/cancel.hpp"
#include "core/screen.hpp"
#include "cpu/kernels.hpp"

namespace fastretrieve::cpu {

// Sorts rows 0 to n_rows - 1 as a kd-tree: every part is cut across its widest axis, at a multiple
// of 64 rows, until 64 are left. `points` is [n_rows, n_axes].
void order_leaves(const float* points, int64_t n_rows, int64_t n_axes, int32_t* order,
                  Cancel& cancel);

struct PackArgs {
  const HeadMap& map;
  double step, error;
  const float* heads;  // [n_rows, head_dim]
  const float* slack;  // [n_rows]
  const int32_t* order;
  int64_t n_rows;
  uint8_t* leaves;   // ceil(n_rows / 64) of LeafLayout
  uint8_t* centres;  // a row for each leaf
  float* boxes;
};
// Writes leaves, their centres and boxes. Returns how many rows always survive.
int64_t pack_leaves(const PackArgs& args, Cancel& cancel);

// The places of rows among segments: `slots` holds the slot of each segment's first row.
struct Places {
  const Segment* segments;
  const std::vector<int64_t>& slots;

  struct At {
    int64_t segment, row;
  };
  At find(int64_t slot) const {
    size_t s = slots.size() - 1;
    while (s > 0 && slots[s] > slot) --s;
    return {static_cast<int64_t>(s), slot - slots[s]};
  }
};

// Copies the codes and bounds of a row out of its strip.
void copy_record(const StripLayout& strips, const RecordLayout& layout, const Segment& segment,
                 int64_t row, uint8_t* record);

// Copies the codes and bounds of the rows at `places` out of their strips.
void copy_records(const Places& where, int64_t dim, Metric metric, const int32_t* places,
                  int64_t n_places, uint8_t* records, Cancel& cancel);

// The first position whose record or head does not belong to its row, or -1.
int64_t first_wrong(const Kernels& kernels, const Places& where, const Screen& screen,
                    Cancel& cancel);

}  // namespace fastretrieve::cpu
