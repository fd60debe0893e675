// Whether the parts of a screen belong to the rows: for files of others.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/bound.hpp"
#include "cpu/atomics.hpp"
#include "cpu/float_row.hpp"
#include "cpu/pool.hpp"
#include "cpu/screen/build.hpp"
#include "cpu/screen/project.hpp"

namespace fastretrieve::cpu {

int64_t first_wrong(const Kernels& kernels, const Places& where, const Screen& screen,
                    Cancel& cancel) {
  const HeadMap& map = screen.map;
  const StripLayout strips(map.dim, map.metric);
  const RecordLayout records(map.dim, map.metric);
  const LeafLayout leaves(map.head_dim);
  std::atomic<int64_t> wrong{std::numeric_limits<int64_t>::max()};
  const auto task = [&](int64_t leaf, int) {
    Projector project(kernels, map);
    std::vector<float> buffer(static_cast<size_t>(map.dim));
    std::vector<double> z(static_cast<size_t>(map.head_dim));
    std::vector<uint8_t> record(static_cast<size_t>(records.bytes()));
    const uint8_t* const codes = screen.heads + leaf * leaves.bytes();
    const float* const box =
        screen.boxes + leaf / kBoxLeaves * kBoxAxes * 2 * kBoxLeaves + leaf % kBoxLeaves;
    for (int64_t r = 0; r < kStripRows; ++r) {
      const int64_t position = leaf * kStripRows + r;
      if (screen.places[position] < 0) continue;
      const Places::At at = where.find(screen.places[position]);
      const Segment& segment = where.segments[at.segment];
      copy_record(strips, records, segment, at.row, record.data());
      const uint8_t* const kept = screen.records + position * records.bytes();
      // The squares of an ip record may be those of the strip where its row was before: compare
      // the bounds that the row alone decides.
      const size_t own = 4 * sizeof(float);
      const size_t from = static_cast<size_t>(records.codes_at());
      bool good = std::memcmp(kept, record.data(), own) == 0 &&
                  std::memcmp(kept + from, record.data() + from,
                              static_cast<size_t>(records.padded_dim)) == 0;
      const float* x = float_row(kernels, segment.rows, at.row, buffer.data());
      const double square = kernels.survey(x, map.dim).square;
      if (map.metric == Metric::ip && norm_in_range(std::sqrt(square))) {
        float squares[2];
        std::memcpy(squares, kept + own, sizeof squares);
        good = good && double{squares[0]} <= square && square <= double{squares[1]};
      }
      const int32_t start = leaves.starts(codes)[r];
      const double slack = project(x, std::sqrt(square), Role::row, z.data());
      good = good && slack < kInfinity;
      good = good && start <= kAlways;
      if (good && start != kAlways) {
        double error = 0, half = 0;
        for (int64_t d = 0; d < map.head_dim; ++d) {
          const int code = codes[leaves.code_at(r, d)] - kCodeOffset;
          const double off = z[static_cast<size_t>(d)] - screen.step * code;
          error += off * off;
          half += code * code;
        }
        good = std::sqrt(error) <= screen.error + slack && start >= -static_cast<int64_t>(half / 2);
      }
      for (int64_t axis = 0; good && axis < kBoxAxes; ++axis) {
        double b = 0;
        for (int64_t d = 0; d < map.head_dim; ++d)
          b += double{map.axes[axis * map.head_dim + d]} * z[static_cast<size_t>(d)];
        const float* const sides = box + axis * 2 * kBoxLeaves;
        good = double{sides[0]} <= b + slack && b - slack <= double{sides[kBoxLeaves]};
      }
      if (!good) return lower_to(wrong, position);
    }
  };
  parallel(screen.n_leaves, num_threads(), task, cancel);
  return wrong == std::numeric_limits<int64_t>::max() ? -1 : wrong.load();
}

}  // namespace fastretrieve::cpu
