// The CPU behind the backend interface: one instance for each instruction set.
#pragma once
#include <string>

#include "core/backend.hpp"
#include "cpu/kernels.hpp"

namespace fastretrieve::cpu {

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const Kernels& kernels) : kernels_(kernels) {}
  std::string name() const override { return kernels_.name; }
  int64_t strip_bytes(int64_t dim, Metric metric) const override;
  void encode(const EncodeArgs& args, Cancel& cancel, void* stream) const override;
  void search(const SearchArgs& args, Cancel& cancel, void* stream) const override;
  bool range(const RangeArgs& args, Cancel& cancel, void* stream) const override;
  void scores(const ScoresArgs& args, Cancel& cancel, void* stream) const override;
  void fuse(const FuseArgs& args, Cancel& cancel, void* stream) const override;
  void cluster_sums(const ClusterArgs& args, Cancel& cancel, void* stream) const override;
  int64_t ingest(const IngestArgs& args, Cancel& cancel, void* stream) const override;

  const Kernels& kernels() const { return kernels_; }

 private:
  const Kernels& kernels_;
};

}  // namespace fastretrieve::cpu
