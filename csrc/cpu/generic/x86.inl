// What the running x86 processor has, where the system keeps its registers, too. The processor
// itself is asked: the runtime libraries of some compilers never fill in what
// __builtin_cpu_supports reads. A file of kernels includes this inside its anonymous namespace.

struct Features {
  unsigned basic, wide, more;  // words of features: leaf 1 ecx, leaf 7 ebx and ecx
  unsigned kept;               // registers that the system keeps: XCR0

  bool has_avx2() const {
    constexpr unsigned fma = 1u << 12, f16c = 1u << 29, avx2 = 1u << 5, bmi2 = 1u << 8;
    return has(basic, fma | f16c) && has(wide, avx2 | bmi2) && has(kept, 0x6);
  }
  bool has_avx512() const {
    constexpr unsigned f = 1u << 16, dq = 1u << 17, bw = 1u << 30, vl = 1u << 31, vnni = 1u << 11;
    return has_avx2() && has(wide, f | dq | bw | vl) && has(more, vnni) && has(kept, 0xe6);
  }
  static bool has(unsigned word, unsigned bits) { return (word & bits) == bits; }
};

inline Features running_processor() {
  Features found = {};
  unsigned a, b, c, d;
  if (__get_cpuid(1, &a, &b, &c, &d)) found.basic = c;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) found.wide = b, found.more = c;
  constexpr unsigned xgetbv_allowed = 1u << 27;
  if (found.basic & xgetbv_allowed) asm volatile("xgetbv" : "=a"(found.kept), "=d"(d) : "c"(0));
  return found;
}
