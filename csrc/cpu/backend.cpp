#include "cpu/backend.hpp"

#include "core/fpenv.hpp"
#include "core/strip.hpp"
#include "cpu/encode.hpp"
#include "cpu/range_search.hpp"
#include "cpu/score.hpp"
#include "cpu/search.hpp"
#include "cpu/transform.hpp"

namespace fastretrieve::cpu {

int64_t CpuBackend::strip_bytes(int64_t dim, Metric metric) const {
  return StripLayout(dim, metric).bytes();
}

void CpuBackend::encode(const EncodeArgs& args, Cancel& cancel) const {
  const DefaultFloatEnvironment floats;
  encode_strips(kernels_, args, cancel);
}

void CpuBackend::search(const SearchArgs& args, Cancel& cancel) const {
  const DefaultFloatEnvironment floats;
  cpu::search(kernels_, args, cancel);
}

bool CpuBackend::range(const RangeArgs& args, Cancel& cancel) const {
  const DefaultFloatEnvironment floats;
  return cpu::range(kernels_, args, cancel);
}

void CpuBackend::scores(const ScoresArgs& args, Cancel& cancel) const {
  const DefaultFloatEnvironment floats;
  score_all(kernels_, args, cancel);
}

void CpuBackend::fuse(const FuseArgs& args, Cancel& cancel) const {
  const DefaultFloatEnvironment floats;
  cpu::fuse(kernels_, args, cancel);
}

void CpuBackend::cluster_sums(const ClusterArgs& args, Cancel& cancel) const {
  const DefaultFloatEnvironment floats;
  cpu::cluster_sums(kernels_, args, cancel);
}

int64_t CpuBackend::ingest(const IngestArgs& args, Cancel& cancel) const {
  const DefaultFloatEnvironment floats;
  return cpu::ingest(kernels_, args, cancel);
}

int64_t CpuBackend::check_screen(const Places& where, const Screen& screen, Cancel& cancel) const {
  const DefaultFloatEnvironment floats;
  return first_wrong(kernels_, where, screen, cancel);
}

}  // namespace fastretrieve::cpu
