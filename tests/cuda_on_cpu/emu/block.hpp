// The state of one running thread block: its threads, warps, barriers and shared memory. And
// fail(), for a kernel that breaks a rule: it names the kernel, the thread block, the thread and
// the reason.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "emu/async.hpp"
#include "emu/fiber.hpp"
#include "emu/types.hpp"

namespace emu {

constexpr unsigned kFullMask = 0xffffffffu;
constexpr unsigned kBarriers = 16;       // hardware barriers of a thread block; 0 is __syncthreads
constexpr unsigned char kPoison = 0xDB;  // memory that holds no value yet
constexpr std::size_t kSharedBase = 1024;  // shared-memory address of the first dynamic byte
constexpr std::size_t kCanaryBytes = 1024;

struct Thread {
  Fiber fiber;
  uint3 index{};
  unsigned linear = 0;
  bool waited_for_grid = false;
  GroupQueue<AsyncCopy> copies;

  unsigned lane() const { return linear % kWarp; }
  unsigned warp() const { return linear / kWarp; }
  unsigned bit() const { return 1u << lane(); }
};

// A warp collective in progress: the lanes of `mask` come one by one and leave together.
struct Exchange {
  const char* name = nullptr;
  unsigned mask = 0;  // 0: free
  unsigned arrived = 0;
  unsigned phase = 0;
  void* operand[kWarp];
};

struct Warp {
  unsigned runnable = 0;
  unsigned exited = 0;  // lanes that a partial warp never had count as exited
  unsigned phase = 0;   // which of the two tags the next __syncwarp orders memory through
  char order_tag[2];
  std::vector<Exchange> exchanges;
  WgmmaState wgmma;
};

struct Barrier {
  const char* name = nullptr;
  unsigned expected = 0;  // 0: no thread is here
  unsigned arrived = 0;
  unsigned n_true = 0;
  // Two of each: a thread may come to the next phase before another has left this one.
  unsigned phase = 0;
  unsigned result[2];
  char order_tag[2];
  std::vector<unsigned> waiting;
};

struct LaunchConfig {
  const char* kernel;
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes;
  bool overlaps;  // it may begin before the previous kernel has ended
};

struct Block {
  LaunchConfig config{};
  const std::function<void()>* body = nullptr;
  uint3 index{};
  unsigned n_threads = 0;
  unsigned n_warps = 0;
  unsigned n_alive = 0;
  unsigned ready_warps = 0;  // bit w: warp w has a runnable lane
  bool exit_is_allowed = false;
  std::uint64_t random = 0;  // 0: threads run in order
  Thread* running = nullptr;
  Fiber os_thread;
  bool entered = false;

  std::vector<std::unique_ptr<Thread>> threads;
  std::vector<Warp> warps;
  Barrier barriers[kBarriers];
  MatrixScratch scratch;
  std::vector<std::uint64_t> wgmma_log[8];  // what each warpgroup has issued, to compare its warps
  bool proxy_fenced = false;
  unsigned char* shared = nullptr;  // dynamic shared memory
  std::size_t shared_capacity = 0;
  char start_tag;  // orders the launch before its threads; no thread before another
  char end_tag;    // orders the threads before all that follows the block
  char fence_tag;  // __threadfence_block

  Block() = default;
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  ~Block() { std::free(shared); }

  Warp& warp_of(const Thread& thread) { return warps[thread.warp()]; }
  void make_runnable(unsigned warp, unsigned lanes) {
    warps[warp].runnable |= lanes;
    ready_warps |= 1u << warp;
  }
  void park(const Thread& thread) {
    Warp& warp = warps[thread.warp()];
    warp.runnable &= ~thread.bit();
    if (warp.runnable == 0) ready_warps &= ~(1u << thread.warp());
  }
};

inline thread_local Block* running_block = nullptr;

inline std::string hex(unsigned value) {
  char text[16];
  std::snprintf(text, sizeof text, "%08x", value);
  return text;
}

[[noreturn]] __attribute__((cold, noinline)) inline void fail(const std::string& reason) {
  const Block* block = running_block;
  if (block == nullptr || block->running == nullptr) {
    std::fprintf(stderr, "EMU ERROR outside of a kernel: %s\n", reason.c_str());
  } else {
    const uint3 b = block->index;
    const uint3 t = block->running->index;
    std::fprintf(stderr, "EMU ERROR in %s block(%u,%u,%u) thread(%u,%u,%u): %s\n",
                 block->config.kernel, b.x, b.y, b.z, t.x, t.y, t.z, reason.c_str());
  }
  std::fflush(stderr);
  std::abort();
}

inline Block& block_here() {
  if (__builtin_expect(running_block == nullptr, 0)) fail("device code was called from the host");
  return *running_block;
}
inline Thread& thread_here() { return *block_here().running; }

}  // namespace emu

#define threadIdx (emu::thread_here().index)
#define blockIdx (emu::block_here().index)
#define blockDim (emu::block_here().config.block)
#define gridDim (emu::block_here().config.grid)
#define warpSize 32
