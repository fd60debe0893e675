#include "cpu/probe.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "core/check.hpp"

namespace fastretrieve::cpu {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Runs work(thread) on `threads` threads at once. Returns the time from their common start to the
// last end.
template <class Work>
double timed_together(int threads, const Work& work) {
  std::atomic<int> ready{0};
  std::vector<std::thread> all;
  for (int t = 0; t < threads; ++t) {
    all.emplace_back([&, t] {
      ++ready;
      while (ready < threads) std::this_thread::yield();
      work(t);
    });
  }
  while (ready < threads) std::this_thread::yield();
  const Clock::time_point start = Clock::now();
  for (std::thread& thread : all) thread.join();
  return seconds_since(start);
}

struct Mapping {
  explicit Mapping(int64_t n_bytes) : size(static_cast<size_t>(n_bytes)) {
    data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    FR_CHECK(data != MAP_FAILED, "cannot map ", n_bytes, " bytes to read");
    madvise(data, size, MADV_HUGEPAGE);
    std::memset(data, 1, size);
  }
  ~Mapping() { munmap(data, size); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  void* data;
  size_t size;
};

}  // namespace

double probe_read_bandwidth(const Kernels& kernels, int64_t n_bytes, int threads) {
  FR_CHECK(n_bytes > 0 && threads > 0, "need bytes and threads, got ", n_bytes, " and ", threads);
  const Mapping memory(n_bytes);
  const uint8_t* data = static_cast<const uint8_t*>(memory.data);
  const int64_t share = n_bytes / threads;
  std::atomic<uint64_t> sink{0};
  double best = 0;
  for (int pass = 0; pass < 5; ++pass) {
    const double seconds =
        timed_together(threads, [&](int t) { sink += kernels.read_all(data + t * share, share); });
    best = std::max(best, static_cast<double>(share * threads) / seconds);
  }
  return best;
}

double probe_int8_peak(const Kernels& kernels, int threads, double seconds) {
  FR_CHECK(seconds > 0 && threads > 0, "need seconds and threads, got ", seconds, " and ", threads);
  std::atomic<int64_t> products{0};
  const double taken = timed_together(threads, [&](int) {
    int32_t sink[64] = {1};
    const Clock::time_point start = Clock::now();
    int64_t mine = 0;
    while (seconds_since(start) < seconds) mine += kernels.multiply_all(20000, sink);
    products += mine;
  });
  return static_cast<double>(products) / taken;
}

}  // namespace fastretrieve::cpu
