// Operations on whole rows: ingesting, normalising, fusing, sums of clusters.
#pragma once
#include "core/calls.hpp"
#include "core/cancel.hpp"
#include "cpu/kernels.hpp"

namespace fastretrieve::cpu {

void fuse(const Kernels& kernels, const FuseArgs& args, Cancel& cancel);
void cluster_sums(const Kernels& kernels, const ClusterArgs& args, Cancel& cancel);
int64_t ingest(const Kernels& kernels, const IngestArgs& args, Cancel& cancel);

}  // namespace fastretrieve::cpu
