// compare CASES [TABLE...]: each kernel of the tables beside the scalar one, on cases of
// tests/cases.py that kernel_cases.py wrote. The last line is "N of M kernels compared".
//
// Every table that is named must be available, and no other may be: where a processor is emulated
// that lacks an instruction, a wrong choice would crash here.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "core/check.hpp"
#include "core/screen.hpp"
#include "core/strip.hpp"
#include "cpu/isa.hpp"

using namespace fastretrieve;
using namespace fastretrieve::cpu;

namespace {

template <class T>
using List = std::vector<T>;

struct Case {
  std::string name;
  int64_t n_queries, n_rows, dim;
  List<float> queries, rows;

  const float* row(int64_t i) const { return rows.data() + i % n_rows * dim; }
  const float* query(int64_t i) const { return queries.data() + i % n_queries * dim; }
  int64_t groups() const { return (dim + kGroupDims - 1) / kGroupDims; }
};

List<Case> read_cases(const char* path) {
  std::ifstream file(path, std::ios::binary);
  const auto number = [&] {
    int64_t value = 0;
    file.read(reinterpret_cast<char*>(&value), sizeof value);
    return value;
  };
  const auto floats = [&](int64_t n) {
    List<float> values(static_cast<size_t>(n));
    file.read(reinterpret_cast<char*>(values.data()),
              static_cast<std::streamsize>(values.size() * sizeof(float)));
    return values;
  };
  List<Case> cases(static_cast<size_t>(number()));
  for (Case& one : cases) {
    one.name.resize(static_cast<size_t>(number()));
    file.read(one.name.data(), static_cast<std::streamsize>(one.name.size()));
    one.n_queries = number(), one.n_rows = number(), one.dim = number();
    one.queries = floats(one.n_queries * one.dim);
    one.rows = floats(one.n_rows * one.dim);
  }
  if (!file || cases.empty()) fail(path, " holds no cases");
  return cases;
}

// What a kernel answered, as bytes; all NaNs are one.
class Answer {
 public:
  template <class T>
  void put(const T& value) {
    const char* bytes = reinterpret_cast<const char*>(&value);
    bytes_.insert(bytes_.end(), bytes, bytes + sizeof value);
  }
  void put_float(double value) { put(std::isnan(value) ? NAN : value); }
  template <class T>
  void put_all(const List<T>& values) {
    for (const T& value : values) put(value);
  }
  bool operator==(const Answer& other) const { return bytes_ == other.bytes_; }
  bool empty() const { return bytes_.empty(); }

 private:
  List<char> bytes_;
};

// Codes of rows in strips, as csrc/core/strip.hpp lays them out, and codes of queries. Thresholds
// lie among the values, so that each strip has rows on both sides.
struct Codes {
  static constexpr int64_t kStrips = 3;
  List<uint8_t> strips, records;
  List<int8_t> queries;
  List<int32_t> bias, starts;
  List<float> scale, error, norm, half_square, reach, fall, threshold;
  int64_t groups;

  Codes(const Case& one, int64_t n_queries) : groups(one.groups()) {
    const StripLayout layout(one.dim, Metric::ip);
    const int64_t padded = layout.padded_dim();
    strips.assign(static_cast<size_t>(kStrips * layout.code_bytes()), kCodeOffset);
    records.assign(static_cast<size_t>(kStrips * kStripRows * padded), kCodeOffset);
    List<int8_t> codes(static_cast<size_t>(padded));
    for (int64_t i = 0; i < kStrips * kStripRows; ++i) {
      const float factor = coded(one.row(i), one.dim, codes.data());
      uint8_t* strip = strips.data() + i / kStripRows * layout.code_bytes();
      for (int64_t d = 0; d < one.dim; ++d) {
        const uint8_t stored = static_cast<uint8_t>(codes[d] + kCodeOffset);
        strip[layout.code_at(i % kStripRows, d)] = records[i * padded + d] = stored;
      }
      scale.push_back(factor);
      error.push_back(i % 61 == 0 ? INFINITY : factor / 3);
      norm.push_back(i % 67 == 0 ? NAN : factor * 20);
      half_square.push_back(factor * static_cast<float>(i % 50));
      starts.push_back(i % 71 == 0 ? INT32_MIN : static_cast<int32_t>(i % 13 - 6) * 3000);
    }
    queries.assign(static_cast<size_t>(n_queries * padded), 0);
    for (int64_t q = 0; q < n_queries; ++q) {
      int8_t* own = queries.data() + q * padded;
      coded(one.query(q), one.dim, own);
      int32_t sum = 0;
      for (int64_t d = 0; d < padded; ++d) sum += own[d];
      bias.push_back(-kCodeOffset * sum);
      reach.push_back(0.25f * static_cast<float>(q % 3));
      fall.push_back(0.5f + static_cast<float>(q % 2));
      threshold.push_back(scale[1] * static_cast<float>((q % 7 - 3) * one.dim * 20));
    }
  }

  CodeArgs args(int64_t strip, int64_t n_queries) const {
    const int64_t bytes = kBlocks * groups * kGroupBytes;
    const uint8_t* here = strips.data() + strip * bytes;
    return {here,        strip + 1 < kStrips ? here + bytes : nullptr,
            groups,      queries.data(),
            bias.data(), n_queries};
  }

 private:
  // Codes of full range, of numbers that may be anything finite.
  static float coded(const float* x, int64_t dim, int8_t* codes) {
    float largest = 0;
    for (int64_t d = 0; d < dim; ++d) largest = std::fmax(largest, std::fabs(x[d]));
    const float scale = largest > 0x1p-100f && largest < 0x1p100f ? largest / kMaxCode : 1.0f;
    scalar_kernels()->quantise(x, dim, 1 / scale, 1.0, scale, codes);
    return scale;
  }
};

struct Recorder : HitHandler {
  Answer answer;
  void hit(int64_t query, uint64_t rows, const int32_t* dots) override {
    answer.put(query), answer.put(rows);
    for (int64_t row = 0; row < kStripRows; ++row) answer.put(dots[row]);
  }
};

constexpr int64_t kMost = 17;
constexpr int64_t kBatches[] = {1, 2, 3, 5, 8, 9, kMost};  // streams, tiles, and what is left

Answer scan(const Kernels& kernels, const Case& one) {
  Recorder hits;
  const Codes codes(one, kMost);
  for (const int64_t n : kBatches) {
    List<int32_t> dots(static_cast<size_t>(scan_scratch(codes.groups, n)));
    const List<uint64_t> where(static_cast<size_t>(n), 0x0ff0'f00f'1248'ffffu);
    for (int64_t s = 0; s < Codes::kStrips; ++s) {
      const int64_t at = s * kStripRows;
      StripArgs args{codes.args(s, n),
                     &codes.scale[at],
                     &codes.error[at],
                     &codes.norm[at],
                     s == 1 ? &codes.half_square[at] : nullptr,
                     codes.reach.data(),
                     codes.fall.data(),
                     codes.threshold.data(),
                     0.01f,
                     s == 2 ? 0xffff'ffff'0000'1111u : ~uint64_t{0},
                     s == 1 ? where.data() : nullptr,
                     1,
                     dots.data(),
                     &hits};
      kernels.scan(args);
    }
  }
  return hits.answer;
}

Answer heads(const Kernels& kernels, const Case& one) {
  Answer answer;
  const Codes codes(one, kMost);
  for (const int64_t n : kBatches)
    for (int64_t s = 0; s < Codes::kStrips; ++s) {
      List<uint64_t> survivors(static_cast<size_t>(n));
      const bool keep = s != 1;
      List<int32_t> dots(static_cast<size_t>((keep ? n : kStreamQueries) * kStripRows));
      kernels.heads(
          {codes.args(s, n), &codes.starts[s * kStripRows], survivors.data(), dots.data(), keep});
      answer.put_all(survivors);
      if (keep) answer.put_all(dots);
    }
  return answer;
}

Answer boxes(const Kernels& kernels, const Case& one) {
  constexpr int64_t kGroups = 2;
  List<float> box(kGroups * kBoxAxes * 2 * kBoxLeaves), point(kBoxAxes);
  for (size_t i = 0; i < box.size(); ++i) box[i] = one.row(0)[i % static_cast<size_t>(one.dim)];
  for (size_t i = 0; i < point.size(); ++i)
    point[i] = one.query(0)[i % static_cast<size_t>(one.dim)];
  Answer answer;
  for (const float limit : {0.0f, 1.0f, 20.0f, INFINITY, NAN}) {
    List<uint16_t> near(kGroups);
    kernels.boxes({box.data(), kGroups, point.data(), limit, near.data()});
    answer.put_all(near);
  }
  return answer;
}

Answer records(const Kernels& kernels, const Case& one) {
  const Codes codes(one, 3);
  const int64_t dim = codes.groups * kGroupDims;
  List<const uint8_t*> rows;
  for (const int64_t i : {5, 0, 191, 64, 7}) rows.push_back(codes.records.data() + i * dim);
  Answer answer;
  for (int64_t q = 0; q < 3; ++q) {
    List<int32_t> dots(rows.size());
    kernels.records({codes.queries.data() + q * dim, codes.bias[q], rows.data(),
                     static_cast<int64_t>(rows.size()), dim, dots.data()});
    answer.put_all(dots);
  }
  return answer;
}

// Rows of 16 bits: any pattern whose exponent is that of a finite number.
List<uint16_t> halves(const Case& one, DType dtype) {
  List<uint16_t> bits(static_cast<size_t>(one.dim) * 4);
  std::mt19937 random(7);
  const uint16_t exponent = dtype == DType::float16 ? 0x7c00 : 0x7f80;
  for (uint16_t& each : bits) {
    each = static_cast<uint16_t>(random());
    if ((each & exponent) == exponent) each = static_cast<uint16_t>(each ^ 0x0400u ^ 0x0080u);
  }
  return bits;
}

constexpr DType kTypes[] = {DType::float32, DType::float16, DType::bfloat16};

Answer score(const Kernels& kernels, const Case& one) {
  Answer answer;
  for (const DType dtype : kTypes) {
    const List<uint16_t> bits = halves(one, dtype);
    List<const void*> rows;
    for (int64_t i = 0; i < 4; ++i)
      rows.push_back(dtype == DType::float32 ? static_cast<const void*>(one.row(i))
                                             : bits.data() + i * one.dim);
    for (const Sums what : {Sums::product, Sums::product_and_square, Sums::squared_difference})
      for (int64_t n = 1; n <= 4; ++n) {
        double sums[4] = {}, squares[4] = {};
        kernels.score({one.query(0), rows.data(), dtype, n, one.dim, what, sums, squares});
        for (int64_t i = 0; i < n; ++i) answer.put_float(sums[i]), answer.put_float(squares[i]);
      }
  }
  return answer;
}

List<double> wide(const Case& one, const float* x, int64_t n) {
  const int64_t padded = (one.dim + kLanes - 1) / kLanes * kLanes;
  List<double> out(static_cast<size_t>(n * padded));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t d = 0; d < one.dim; ++d) out[i * padded + d] = x[i * one.dim + d];
  return out;
}

Answer products(const Kernels& kernels, const Case& one) {
  const int64_t n_left = std::min<int64_t>(one.n_queries, 5),
                n_right = std::min<int64_t>(one.n_rows, 7);
  const List<double> left = wide(one, one.queries.data(), n_left);
  const List<double> right = wide(one, one.rows.data(), n_right);
  List<double> sums(static_cast<size_t>(n_left * n_right));
  const int64_t padded = static_cast<int64_t>(left.size()) / n_left;
  kernels.products({left.data(), n_left, right.data(), n_right, padded, sums.data()});
  Answer answer;
  for (const double sum : sums) answer.put_float(sum);
  return answer;
}

Answer survey(const Kernels& kernels, const Case& one) {
  Answer answer;
  for (int64_t i = 0; i < 8; ++i) {
    const Survey found = kernels.survey(one.row(i), one.dim);
    answer.put_float(found.square), answer.put(found.max_bits);
  }
  return answer;
}

Answer quantise(const Kernels& kernels, const Case& one) {
  Answer answer;
  List<int8_t> codes(static_cast<size_t>(one.dim));
  for (const double scale : {1.0, 0x1p-7, 0.013, 1e30, 1e-30}) {
    const Quantised found = kernels.quantise(one.row(3), one.dim, static_cast<float>(1 / scale),
                                             0.7, scale, codes.data());
    answer.put_float(found.error_square), answer.put(found.code_square), answer.put(found.code_sum);
    answer.put_all(codes);
  }
  return answer;
}

Answer widen(const Kernels& kernels, const Case& one) {
  Answer answer;
  List<float> out(static_cast<size_t>(one.dim));
  for (const DType dtype : kTypes) {
    const List<uint16_t> bits = halves(one, dtype);
    kernels.widen(dtype == DType::float32 ? static_cast<const void*>(one.row(1)) : bits.data(),
                  dtype, one.dim, out.data());
    answer.put_all(out);
  }
  return answer;
}

Answer centre(const Kernels& kernels, const Case& one) {
  Answer answer;
  List<double> out(static_cast<size_t>(one.dim));
  for (const float* mean : {static_cast<const float*>(nullptr), one.query(0)}) {
    kernels.centre(one.row(2), mean, one.dim, out.data());
    answer.put_all(out);
  }
  return answer;
}

Answer square_sum(const Kernels& kernels, const Case& one) {
  Answer answer;
  answer.put_float(kernels.square_sum(wide(one, one.row(0), 1).data(), one.dim));
  return answer;
}

Answer weigh(const Kernels& kernels, const Case& one) {
  List<double> x = wide(one, one.row(0), 1);
  kernels.weigh(x.data(), one.dim, 3.7, 0.3);
  Answer answer;
  answer.put_all(x);
  return answer;
}

Answer divide(const Kernels& kernels, const Case& one) {
  List<float> out(static_cast<size_t>(one.dim));
  kernels.divide(wide(one, one.row(0), 1).data(), one.dim, 7.3, out.data());
  Answer answer;
  answer.put_all(out);
  return answer;
}

// For benchmarks: they only must not crash, and must have done something.
Answer limits(const Kernels& kernels, const Case& one) {
  List<int32_t> sink(64, 1);
  kernels.read_all(reinterpret_cast<const uint8_t*>(one.rows.data()),
                   static_cast<int64_t>(one.rows.size() * sizeof(float)));
  Answer answer;
  answer.put(kernels.multiply_all(10, sink.data()) > 0);
  return answer;
}

using Kernel = Answer (*)(const Kernels&, const Case&);
const std::map<std::string, Kernel> kKernels = {
    {"scan", scan},     {"heads", heads},       {"boxes", boxes},           {"records", records},
    {"score", score},   {"products", products}, {"survey", survey},         {"quantise", quantise},
    {"widen", widen},   {"centre", centre},     {"square_sum", square_sum}, {"weigh", weigh},
    {"divide", divide}, {"limits", limits}};

// Whether the machine has the scalar table and exactly these others.
bool has_tables(const List<std::string>& wanted) {
  List<std::string> found;
  for (const Kernels* table : available_kernels()) found.push_back(table->name);
  List<std::string> expected = wanted;
  expected.push_back("scalar");
  if (found == expected) return true;
  std::printf("tables here:");
  for (const std::string& name : found) std::printf(" %s", name.c_str());
  std::printf("\n");
  return false;
}

bool equal(const Kernels& table, const std::string& name, Kernel kernel, const List<Case>& cases) {
  bool same = true;
  for (const Case& one : cases) {
    const Answer expected = kernel(*scalar_kernels(), one);
    if (!expected.empty() && kernel(table, one) == expected) continue;
    std::printf("%s of %s differs on %s\n", name.c_str(), table.name, one.name.c_str());
    same = false;
  }
  return same;
}

int run(int argc, char** argv) {
  if (argc < 2) fail("usage: compare CASES [TABLE...]");
  const List<Case> cases = read_cases(argv[1]);
  const List<std::string> wanted(argv + 2, argv + argc);
  if (!has_tables(wanted)) return 1;
  size_t compared = 0;
  for (const std::string& name : wanted)
    for (const auto& [kernel, call] : kKernels)
      compared += equal(kernels_by_name(name), kernel, call, cases);
  const size_t all = wanted.size() * kKernels.size();
  std::printf("%zu of %zu kernels compared on %zu cases\n", compared, all, cases.size());
  return compared == all ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
