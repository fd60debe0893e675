// __syncthreads and its voting forms, and the named barriers of PTX (bar.sync, bar.arrive).
#pragma once

#include <cstring>
#include <string>

#include "emu/scheduler.hpp"

namespace emu {

FR_EMU_SWITCH_PATH inline void complete_barrier(Block& block, Barrier& barrier) {
  barrier.result[barrier.phase % 2] = barrier.n_true;
  barrier.phase++;
  barrier.expected = 0;
  const unsigned* waiting = barrier.waiting.data();
  const std::size_t n_waiting = barrier.waiting.size();
  for (std::size_t i = 0; i < n_waiting; i++) {
    block.make_runnable(waiting[i] / kWarp, 1u << (waiting[i] % kWarp));
  }
  barrier.waiting.clear();
}

__attribute__((noinline)) inline void check_barrier(const Block& block, unsigned id,
                                                    const char* name, unsigned n_threads) {
  const Barrier& barrier = block.barriers[id];
  if (id >= kBarriers) fail("barrier ids are 0 to 15, got " + std::to_string(id));
  if (n_threads == 0 || n_threads > block.n_threads) {
    fail(std::string(name) + " for " + std::to_string(n_threads) + " threads in a block of " +
         std::to_string(block.n_threads));
  }
  if (barrier.expected == 0) return;
  if (barrier.expected != n_threads) {
    fail(std::string(name) + " for " + std::to_string(n_threads) + " threads at barrier " +
         std::to_string(id) + ", where others wait for " + std::to_string(barrier.expected));
  }
}

// Joins barrier `id`; the last of `n_threads` releases those that wait. Returns the number of true
// predicates, or 0 at once if `waits` is false.
FR_EMU_SWITCH_PATH inline unsigned join_barrier(unsigned id, const char* name, unsigned n_threads,
                                                bool predicate, bool waits) {
  const Untracked bookkeeping;
  Block& block = block_here();
  check_barrier(block, id, name, n_threads);
  Barrier& barrier = block.barriers[id];
  const Thread& me = *block.running;
  if (barrier.expected == 0) {
    barrier.expected = n_threads;
    barrier.name = name;
    barrier.arrived = 0;
    barrier.n_true = 0;
  }
  const unsigned phase = barrier.phase % 2;
  release(&barrier.order_tag[phase]);
  barrier.n_true += predicate ? 1 : 0;
  barrier.arrived++;
  if (waits) {
    block.park(me);
    barrier.waiting.push_back(me.linear);
  }
  if (barrier.arrived == barrier.expected) complete_barrier(block, barrier);
  if (!waits) return 0;
  run_next(block);
  acquire(&barrier.order_tag[phase]);
  return barrier.result[phase];
}

inline unsigned sync_block(const char* name, bool predicate = false) {
  Block& block = block_here();
  const Barrier& all = block.barriers[0];
  if (block.n_alive != block.n_threads && !block.exit_is_allowed) {
    fail(std::string(name) + " after " + std::to_string(block.n_threads - block.n_alive) +
         " threads of the block have ended");
  }
  if (all.expected != 0 && std::strcmp(all.name, name) != 0) {
    fail(std::string(name) + " where others wait at " + all.name);
  }
  return join_barrier(0, name, block.n_alive, predicate, true);
}

namespace ptx {

inline void check_named_barrier(int id, int n_threads) {
  if (id < 1 || id >= static_cast<int>(kBarriers)) {
    fail("named barriers are 1 to 15 (0 is __syncthreads), got " + std::to_string(id));
  }
  if (n_threads <= 0 || n_threads % 32 != 0) {
    fail("a named barrier counts whole warps, got " + std::to_string(n_threads) + " threads");
  }
}

inline void bar_sync(int id, int n_threads) {
  check_named_barrier(id, n_threads);
  join_barrier(static_cast<unsigned>(id), "bar.sync", static_cast<unsigned>(n_threads), false,
               true);
}

inline void bar_arrive(int id, int n_threads) {
  check_named_barrier(id, n_threads);
  join_barrier(static_cast<unsigned>(id), "bar.arrive", static_cast<unsigned>(n_threads), false,
               false);
}

}  // namespace ptx
}  // namespace emu

inline void __syncthreads() { emu::sync_block("__syncthreads"); }
inline int __syncthreads_count(int predicate) {
  return static_cast<int>(emu::sync_block("__syncthreads_count", predicate != 0));
}
inline int __syncthreads_or(int predicate) {
  return emu::sync_block("__syncthreads_or", predicate != 0) != 0;
}
inline int __syncthreads_and(int predicate) {
  return emu::sync_block("__syncthreads_and", predicate != 0) == emu::block_here().n_alive;
}
