// The operations of an instruction set. Each set has a folder; isa.cpp chooses.
//
// Files in these folders are compiled for processors that may not be the running one. So they use
// no inline function with external linkage and nothing of the standard library: the linker could
// pick their copy for all callers. They include shared code from generic/ into their anonymous
// namespaces.
#pragma once
#include <cstdint>

#include "core/strip.hpp"
#include "core/types.hpp"

namespace fastretrieve::cpu {

// Receives the rows of a strip that the filter kept for a query, as bits, with the products of all
// 64 rows.
class HitHandler {
 public:
  virtual void hit(int64_t query, uint64_t rows, const int32_t* dots) = 0;

 protected:
  ~HitHandler() = default;
};

// One strip and a panel of queries. A scan computes the integer products, applies the float32
// filter of core/bound.hpp, and calls `survivors` for every query with rows that pass. That call
// may raise `threshold`; the next strip reads it.
struct StripArgs {
  const uint8_t* codes;  // kBlocks blocks of `groups` groups
  const float* scale;    // planes of the strip, 64 numbers each
  const float* error;
  const float* norm;
  const float* half_square;  // null for similarities
  const uint8_t* next;       // the codes of the next strip, or null
  int64_t groups;

  const int8_t* queries;  // [n_queries, kGroupDims * groups]
  const int32_t* bias;    // -kCodeOffset * sum of the codes of a query
  const float* reach;
  const float* fall;
  const float* threshold;
  float ratio;
  int64_t n_queries;

  uint64_t allowed;       // rows that any query may return
  const uint64_t* where;  // further masks, one word a query, or null
  int64_t where_stride;

  int32_t* dots;  // scratch of scan_scratch() numbers
  HitHandler* survivors;
};

constexpr int64_t kStreamQueries = 8;  // up to here a scan streams codes and makes no tiles
constexpr int64_t kTileQueries = 4;    // a tile: the products of this many queries with a strip
// Dimensions are walked in slices, so that the codes of a strip stay in the L1 cache. Several
// slices need the products of the whole panel; one needs those of a tile or a stream.
constexpr int64_t kSliceGroups = 96;
constexpr int64_t scan_scratch(int64_t groups, int64_t n_queries) {
  const int64_t whole_tiles = (n_queries + kTileQueries - 1) / kTileQueries * kTileQueries;
  return (groups > kSliceGroups ? whole_tiles : kStreamQueries) * kStripRows;
}

enum class Sums { product, product_and_square, squared_difference };

// Canonical sums of one query with rows anywhere in memory: kLanes lanes, then pairwise.
struct ScoreArgs {
  const float* query;
  const void* const* rows;
  DType dtype;
  int64_t n_rows;
  int64_t dim;
  Sums what;
  double* sums;     // T(q, x), or the sum of squared differences
  double* squares;  // T(x, x) for product_and_square
};

struct Survey {
  double square;      // T(x, x)
  uint32_t max_bits;  // of the largest |x[i]|; from 0x7f800000 on: not finite
};

struct Quantised {
  double error_square;  // sum of (x * inverse - scale * code)^2
  int64_t code_square;  // sum of code^2, exact
  int64_t code_sum;
};

struct Kernels {
  const char* name;
  bool (*supported)();
  void (*scan)(const StripArgs&);
  void (*score)(const ScoreArgs&);
  Survey (*survey)(const float* x, int64_t dim);
  // codes[i] = nearest(x[i] * to_code), clamped to kMaxCode. The error is measured against `scale`
  // as stored.
  Quantised (*quantise)(const float* x, int64_t dim, float to_code, double inverse, double scale,
                        int8_t* codes);
  void (*widen)(const void* x, DType dtype, int64_t dim, float* out);  // exact

  // For normalize and fuse: out[i] = x[i] - mean[i]; the sum of squares in lanes; x[i] / norm *
  // weight in place; out[i] = x[i] / norm.
  void (*centre)(const float* x, const float* mean, int64_t dim, double* out);
  double (*square_sum)(const double* x, int64_t dim);
  void (*weigh)(double* x, int64_t dim, double norm, double weight);
  void (*divide)(const double* x, int64_t dim, double norm, float* out);

  // The machine's limits, for benchmarks: reads memory like a scan; multiplies codes in registers
  // and returns the number of products.
  uint64_t (*read_all)(const uint8_t* data, int64_t n_bytes);
  int64_t (*multiply_all)(int64_t rounds, int32_t* sink);
};

// The scan of an instruction set has a file of its own beside its table.
namespace avx512 {
void scan(const StripArgs& strip);
uint64_t read_all(const uint8_t* data, int64_t n_bytes);
int64_t multiply_all(int64_t rounds, int32_t* sink);
}  // namespace avx512
namespace avx2 {
void scan(const StripArgs& strip);
uint64_t read_all(const uint8_t* data, int64_t n_bytes);
int64_t multiply_all(int64_t rounds, int32_t* sink);
}  // namespace avx2

// Best first. The running processor may lack some of them.
const Kernels* avx512_kernels();
const Kernels* avx2_kernels();
const Kernels* scalar_kernels();

}  // namespace fastretrieve::cpu
