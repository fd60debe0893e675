// The CPU as a backend: one instance for each instruction set. Calls return when the work is done.
#pragma once
#include <string>

#include "core/calls.hpp"
#include "core/cancel.hpp"
#include "core/strip.hpp"
#include "cpu/kernels.hpp"
#include "cpu/screen/build.hpp"

namespace fastretrieve::cpu {

class CpuBackend {
 public:
  explicit CpuBackend(const Kernels& kernels) : kernels_(kernels) {}
  std::string name() const { return kernels_.name; }
  std::string layout() const { return kStripLayoutName; }
  int64_t strip_bytes(int64_t dim, Metric metric) const;
  void encode(const EncodeArgs& args, Cancel& cancel) const;
  void search(const SearchArgs& args, Cancel& cancel) const;
  // False: there are more than `limit` pairs, so the result is incomplete.
  bool range(const RangeArgs& args, Cancel& cancel) const;
  void scores(const ScoresArgs& args, Cancel& cancel) const;
  void fuse(const FuseArgs& args, Cancel& cancel) const;
  void cluster_sums(const ClusterArgs& args, Cancel& cancel) const;
  // Returns the first row that is not finite in the new format, or -1. May stop copying there.
  int64_t ingest(const IngestArgs& args, Cancel& cancel) const;

  // The first position of a screen that does not belong to its row, or -1.
  int64_t check_screen(const Places& where, const Screen& screen, Cancel& cancel) const;

  const Kernels& kernels() const { return kernels_; }

 private:
  const Kernels& kernels_;
};

}  // namespace fastretrieve::cpu
