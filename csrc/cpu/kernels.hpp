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

// The codes of 64 rows, and those of a panel of queries.
struct CodeArgs {
  const uint8_t* codes;  // kBlocks blocks of `groups` groups
  const uint8_t* next;   // those that are read next, or null
  int64_t groups;

  const int8_t* queries;  // [n_queries, kGroupDims * groups]
  const int32_t* bias;    // the start of a query's products
  int64_t n_queries;
};

// One strip and a panel of queries. `bias` is -kCodeOffset * sum of a query's codes. A scan
// computes the integer products, applies the float32 filter of core/bound.hpp, and calls
// `survivors` for every query with rows that pass. That call may raise `threshold`; the next strip
// reads it.
struct StripArgs : CodeArgs {
  const float* scale;  // planes of the strip, 64 numbers each
  const float* error;
  const float* norm;
  const float* half_square;  // null for similarities

  const float* reach;
  const float* fall;
  const float* threshold;
  float ratio;

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

// One leaf of a screen: a row survives for a query if bias + start + product >= 0.
struct HeadArgs : CodeArgs {
  const int32_t* starts;  // [64]
  uint64_t* survivors;    // [n_queries], rows as bits
  int32_t* dots;          // [n_queries, 64] if `keep_dots`, else scratch: [kStreamQueries, 64]
  bool keep_dots;
};

// Which of 16 leaves may hold a row near a point: bit i of out[g] is leaf i of group g.
struct BoxArgs {
  const float* boxes;  // [n_groups, kBoxAxes, 2, 16]
  int64_t n_groups;
  const float* point;  // [kBoxAxes]
  float limit;         // squared distance
  uint16_t* out;
};

// The products of a query's codes with rows anywhere in memory.
struct RecordArgs {
  const int8_t* query;
  int32_t bias;
  const uint8_t* const* codes;
  int64_t n_rows;
  int64_t dim;  // a multiple of four
  int32_t* dots;
};

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

// Canonical sums of every left row with every right row. The rows are float32 numbers as float64,
// filled up with zeros to `padded_dim`, a multiple of kLanes.
struct ProductArgs {
  const double* left;
  int64_t n_left;
  const double* right;
  int64_t n_right;
  int64_t padded_dim;
  double* sums;  // [n_left, n_right]
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
  void (*heads)(const HeadArgs&);
  void (*boxes)(const BoxArgs&);
  void (*records)(const RecordArgs&);
  double products_per_ns;  // of `scan` on one thread, roughly: for plans
  void (*score)(const ScoreArgs&);
  void (*products)(const ProductArgs&);
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

// The scans of an instruction set have files of their own beside its table.
namespace avx512 {
void scan(const StripArgs& strip);
void heads(const HeadArgs& leaf);
void boxes(const BoxArgs& args);
void records(const RecordArgs& args);
uint64_t read_all(const uint8_t* data, int64_t n_bytes);
int64_t multiply_all(int64_t rounds, int32_t* sink);
}  // namespace avx512
namespace avx2 {
void scan(const StripArgs& strip);
void heads(const HeadArgs& leaf);
void boxes(const BoxArgs& args);
void records(const RecordArgs& args);
uint64_t read_all(const uint8_t* data, int64_t n_bytes);
int64_t multiply_all(int64_t rounds, int32_t* sink);
}  // namespace avx2

// Best first, for each family of processors. The running one may lack some of them.
const Kernels* avx512_kernels();
const Kernels* avx2_kernels();
const Kernels* i8mm_kernels();
const Kernels* neon_kernels();
const Kernels* scalar_kernels();

}  // namespace fastretrieve::cpu
