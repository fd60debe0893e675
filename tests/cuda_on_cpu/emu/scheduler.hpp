// Chooses the next thread of a thread block, starts and ends a block, and reports deadlocks.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>

#include "emu/block.hpp"

namespace emu {

FR_EMU_SWITCH_PATH inline unsigned next_random(Block& block) {
  block.random ^= block.random << 13;
  block.random ^= block.random >> 7;
  block.random ^= block.random << 17;
  return static_cast<unsigned>(block.random >> 32);
}

// The first set bit at or after `from`, cyclically. `bits` is not zero.
FR_EMU_SWITCH_PATH inline unsigned first_bit_from(unsigned bits, unsigned from) {
  const unsigned ahead = bits >> from << from;
  return static_cast<unsigned>(__builtin_ctz(ahead != 0 ? ahead : bits));
}

__attribute__((cold, noinline)) inline std::string describe_waits(const Block& block) {
  std::string text;
  for (unsigned w = 0; w < block.n_warps; w++) {
    for (const Exchange& e : block.warps[w].exchanges) {
      if (e.mask == 0) continue;
      text += "; warp " + std::to_string(w) + " in " + e.name + ": mask " + hex(e.mask) +
              ", arrived " + hex(e.arrived);
    }
  }
  for (unsigned id = 0; id < kBarriers; id++) {
    const Barrier& barrier = block.barriers[id];
    if (barrier.expected == 0) continue;
    text += "; barrier " + std::to_string(id) + " (" + barrier.name +
            "): " + std::to_string(barrier.arrived) + " of " + std::to_string(barrier.expected) +
            " threads arrived";
  }
  return text;
}

FR_EMU_SWITCH_PATH inline void jump_to(Block& block, unsigned warp, unsigned lane) {
  Thread* me = block.running;
  Thread* next = block.threads.data()[warp * kWarp + lane].get();
  if (next == me) return;
  block.running = next;
  me->fiber.switch_to(next->fiber);
}

// Gives the turn to a runnable thread: in order, the lanes of this warp first; with a seed, any
// lane of this warp and sometimes of another, so that warps drift apart as on a device.
FR_EMU_SWITCH_PATH inline void run_next(Block& block) {
  Thread& me = *block.running;
  if (block.ready_warps == 0) {
    if (block.n_alive == 0) {
      me.fiber.switch_to(block.os_thread);
      return;
    }
    fail("deadlock: every thread waits" + describe_waits(block));
  }
  unsigned warp = first_bit_from(block.ready_warps, me.warp());
  unsigned lane_from = warp == me.warp() ? me.lane() : 0;
  if (block.random != 0) {
    const unsigned dice = next_random(block);
    lane_from = dice % kWarp;
    if ((dice >> 5) % 4 == 0) warp = first_bit_from(block.ready_warps, (dice >> 8) % kWarp);
  }
  jump_to(block, warp, first_bit_from(block.warps.data()[warp].runnable, lane_from));
}

// For loops that wait for another thread of the block. All its threads get a turn.
FR_EMU_SWITCH_PATH inline void give_way() {
  const Untracked bookkeeping;
  Block& block = block_here();
  const unsigned n_lanes = block.n_warps * kWarp;
  for (unsigned step = 1; step <= n_lanes; step++) {
    const unsigned linear = (block.running->linear + step) % n_lanes;
    if ((block.warps.data()[linear / kWarp].runnable >> (linear % kWarp) & 1u) == 0) continue;
    jump_to(block, linear / kWarp, linear % kWarp);
    return;
  }
}

// With a seed, another thread may run at an atomic or a fence, so a fact from before it may be
// false after it.
FR_EMU_SWITCH_PATH inline void maybe_interrupt() {
  Block& block = block_here();
  if (block.random == 0) return;
  const Untracked bookkeeping;
  if (next_random(block) % 4 == 0) run_next(block);
}

inline void complete_barrier(Block& block, Barrier& barrier);  // barriers.hpp

__attribute__((noinline)) inline void check_exit(Block& block, const Thread& me) {
  if (block.config.overlaps && !me.waited_for_grid)
    fail("the thread ends without griddepcontrol.wait in a kernel that may begin early");
  if (!me.copies.empty()) fail("the thread ends with cp.async still pending");
  if (!block.warp_of(me).wgmma.queue.empty()) fail("the thread ends with wgmma still pending");
  for (const Exchange& e : block.warp_of(me).exchanges) {
    if (e.mask & me.bit()) fail(std::string("a lane that ") + e.name + " waits for has exited");
  }
  if (block.barriers[0].expected != 0 && !block.exit_is_allowed) {
    fail(std::string("the thread ends while others wait at ") + block.barriers[0].name);
  }
}

FR_EMU_SWITCH_PATH inline void thread_main() {
  Block& block = *running_block;
  Fiber::arrived(block.entered ? nullptr : &block.os_thread);
  block.entered = true;
  acquire(&block.start_tag);
  (*block.body)();
  {
    const Untracked bookkeeping;
    Thread& me = *block.running;
    check_exit(block, me);
    block.park(me);
    block.warp_of(me).exited |= me.bit();
    block.n_alive--;
    me.fiber.finished = true;
    release(&block.end_tag);
    Barrier& all = block.barriers[0];
    if (all.expected != 0) {
      all.expected--;  // with FR_EMU_EXIT_OK the threads that are left pass without this one
      if (all.arrived == all.expected) complete_barrier(block, all);
    }
  }
  run_next(block);
  std::abort();  // a finished fiber is never resumed
}

inline void prepare_threads(Block& block) {
  while (block.threads.size() < block.n_threads)
    block.threads.push_back(std::make_unique<Thread>());
  const dim3 size = block.config.block;
  for (unsigned i = 0; i < block.n_threads; i++) {
    Thread& thread = *block.threads[i];
    thread.linear = i;
    thread.index = {i % size.x, i / size.x % size.y, i / size.x / size.y};
    thread.waited_for_grid = false;
    thread.copies.clear();
    thread.fiber.prepare(&thread_main, i);
  }
}

inline void prepare_warps(Block& block) {
  block.n_warps = (block.n_threads + kWarp - 1) / kWarp;
  if (block.warps.size() < block.n_warps) block.warps.resize(block.n_warps);
  block.ready_warps = 0;
  for (unsigned w = 0; w < block.n_warps; w++) {
    const unsigned n_lanes = std::min(kWarp, block.n_threads - w * kWarp);
    Warp& warp = block.warps[w];
    const unsigned lanes = n_lanes == kWarp ? kFullMask : (1u << n_lanes) - 1;
    warp.runnable = 0;
    block.make_runnable(w, lanes);
    warp.exited = ~lanes;
    for (Exchange& exchange : warp.exchanges) exchange.mask = 0;
    warp.wgmma.fenced = false;
    warp.wgmma.n_issued = 0;
  }
  for (Barrier& barrier : block.barriers) barrier.expected = 0;
}

inline void prepare_shared(Block& block) {
  const std::size_t n_bytes = block.config.shared_bytes;
  const std::size_t canary = FR_EMU_ASAN ? 0 : kCanaryBytes;  // AddressSanitizer has red zones
  if (block.shared == nullptr || block.shared_capacity != n_bytes) {
    std::free(block.shared);
    block.shared = nullptr;
    void* memory = nullptr;
    if (posix_memalign(&memory, kSharedBase, n_bytes + canary) != 0) throw std::bad_alloc();
    block.shared = static_cast<unsigned char*>(memory);
    block.shared_capacity = n_bytes;
  }
  std::memset(block.shared, kPoison, n_bytes + canary);
}

inline void check_end(const Block& block) {
  for (unsigned id = 1; id < kBarriers; id++) {
    if (block.barriers[id].expected == 0) continue;
    fail("the block ends with a barrier half full" + describe_waits(block));
  }
  for (unsigned w = 0; w < block.n_warps; w++) {
    if (block.warps[w].wgmma.n_issued == block.wgmma_log[w / 4].size()) continue;
    fail("warp " + std::to_string(w) + " issued fewer wgmma than the others of its warpgroup");
  }
  if (FR_EMU_ASAN) return;
  for (std::size_t i = 0; i < kCanaryBytes; i++) {
    if (block.shared[block.config.shared_bytes + i] == kPoison) continue;
    fail("a write past the end of dynamic shared memory, " + std::to_string(i) +
         " bytes after its " + std::to_string(block.config.shared_bytes));
  }
}

// Runs one block to its end on the calling OS thread.
inline void run_block(Block& block) {
  const Untracked bookkeeping;
  Block* const outer = running_block;
  running_block = &block;
  block.n_alive = block.n_threads;
  block.proxy_fenced = false;
  for (auto& log : block.wgmma_log) log.clear();
  prepare_threads(block);
  prepare_warps(block);
  prepare_shared(block);
  block.os_thread.adopt_caller();
  block.entered = false;
  release(&block.start_tag);
  const unsigned first = block.random != 0 ? next_random(block) % block.n_threads : 0;
  block.running = block.threads[first].get();
  block.os_thread.switch_to(block.running->fiber);
  acquire(&block.end_tag);
  check_end(block);
  block.running = nullptr;
  running_block = outer;
}

}  // namespace emu
