// Warp collectives: __syncwarp, shuffles, votes, match, reduce. All use one exchange, in which
// every lane leaves a pointer to its operand and the last lane to come does the work for all.
#pragma once

#include <string>
#include <type_traits>

#include "emu/scheduler.hpp"

namespace emu {

template <class F>
inline void for_each_lane(unsigned mask, F&& f) {
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
    f(static_cast<unsigned>(__builtin_ctz(rest)));
  }
}

__attribute__((cold, noinline)) inline void fail_exchange(const Exchange& e, const char* name,
                                                          unsigned mask) {
  fail(std::string(name) + " with mask " + hex(mask) + " where other lanes of the warp are in " +
       e.name + " with mask " + hex(e.mask));
}

inline Exchange& open_exchange(Warp& warp, const char* name, unsigned mask) {
  Exchange* slot = nullptr;
  for (Exchange& e : warp.exchanges) {
    if (e.mask == 0) slot = &e;
  }
  if (slot == nullptr) slot = &warp.exchanges.emplace_back();
  slot->name = name;
  slot->mask = mask;
  slot->arrived = 0;
  slot->phase = warp.phase++ % 2;
  return *slot;
}

// The exchange of this lane, opened by the first lane to come. Masks may overlap: half a warp may
// wait for all of it while the other half exchanges among itself. But lanes that wait for each
// other in different places never meet.
inline Exchange& find_exchange(Warp& warp, const char* name, unsigned mask, unsigned lane_bit) {
  Exchange* mine = nullptr;
  for (Exchange& e : warp.exchanges) {
    if (e.mask == mask && e.name == name) mine = &e;
  }
  const unsigned here = lane_bit | (mine != nullptr ? mine->arrived : 0);
  for (const Exchange& e : warp.exchanges) {
    if (e.mask == 0 || &e == mine) continue;
    if ((e.arrived & mask) != 0 && (e.mask & here) != 0) fail_exchange(e, name, mask);
  }
  return mine != nullptr ? *mine : open_exchange(warp, name, mask);
}

// Parks until every lane of `mask` is here. The last one calls work(operands). `name` is compared
// by address, so pass a constant. Memory is ordered only if `orders_memory`, as by __syncwarp.
template <class Work>
FR_EMU_SWITCH_PATH inline void exchange(const char* name, unsigned mask, void* operand, Work&& work,
                                        bool orders_memory = false) {
  const Untracked bookkeeping;
  Block& block = block_here();
  const Thread& me = *block.running;
  Warp& warp = block.warps.data()[me.warp()];
  if ((mask & me.bit()) == 0)
    fail(std::string(name) + ": the lane is not in its own mask " + hex(mask));
  if ((mask & warp.exited) != 0) {
    fail(std::string(name) + ": mask " + hex(mask) +
         " names lanes that have exited or do not exist: " + hex(mask & warp.exited));
  }
  Exchange& mine = find_exchange(warp, name, mask, me.bit());
  char* const order_tag = &warp.order_tag[mine.phase];
  mine.operand[me.lane()] = operand;
  mine.arrived |= me.bit();
  if (orders_memory) release(order_tag);
  if (mine.arrived == mask) {
    work(mine.operand);
    mine.mask = 0;
    block.make_runnable(me.warp(), mask);
  } else {
    block.park(me);
    run_next(block);
  }
  if (orders_memory) acquire(order_tag);
}

namespace names {  // one address each, also across translation units
inline constexpr char kSyncwarp[] = "__syncwarp";
inline constexpr char kShfl[] = "__shfl_sync";
inline constexpr char kShflXor[] = "__shfl_xor_sync";
inline constexpr char kShflUp[] = "__shfl_up_sync";
inline constexpr char kShflDown[] = "__shfl_down_sync";
inline constexpr char kVote[] = "a vote (__ballot_sync, __any_sync, __all_sync)";
inline constexpr char kMatch[] = "__match_any_sync";
inline constexpr char kReduce[] = "__reduce_*_sync";
}  // namespace names

inline int lane_here() { return static_cast<int>(thread_here().lane()); }

// `source` is an absolute lane; with its own number a lane keeps its value.
template <class T>
inline T shuffle(const char* name, unsigned mask, T value, int source) {
  static_assert(std::is_arithmetic<T>::value && (sizeof(T) == 4 || sizeof(T) == 8),
                "CUDA shuffles 4- and 8-byte numbers");
  struct Operand {
    T in, out;
    int source;
  } operand{value, value, source};
  exchange(name, mask, &operand, [mask, name](void** operands) {
    for_each_lane(mask, [&](unsigned lane) {
      auto& reader = *static_cast<Operand*>(operands[lane]);
      if ((mask >> reader.source & 1u) == 0) {
        fail(std::string(name) + ": lane " + std::to_string(lane) + " reads lane " +
             std::to_string(reader.source) + ", which is not in mask " + hex(mask));
      }
      reader.out = static_cast<Operand*>(operands[reader.source])->in;
    });
  });
  return operand.out;
}

// Every lane gives an In. combine(values, outs) gets the lanes of the mask in order and fills one
// Out for each.
template <class Out, class In, class Combine>
inline Out gather(const char* name, unsigned mask, In value, Combine&& combine) {
  struct Operand {
    In in;
    Out out;
  } operand{value, Out{}};
  exchange(name, mask, &operand, [&combine, mask](void** operands) {
    In in[kWarp]{};
    Out out[kWarp]{};
    for_each_lane(mask,
                  [&](unsigned lane) { in[lane] = static_cast<Operand*>(operands[lane])->in; });
    combine(in, out);
    for_each_lane(mask,
                  [&](unsigned lane) { static_cast<Operand*>(operands[lane])->out = out[lane]; });
  });
  return operand.out;
}

inline unsigned ballot(unsigned mask, int predicate) {
  return gather<unsigned>(
      names::kVote, mask, predicate != 0, [mask](const bool* in, unsigned* out) {
        unsigned votes = 0;
        for_each_lane(mask,
                      [&](unsigned lane) { votes |= static_cast<unsigned>(in[lane]) << lane; });
        for_each_lane(mask, [&](unsigned lane) { out[lane] = votes; });
      });
}

template <class T, class Op>
inline T reduce(unsigned mask, T value, Op op) {
  static_assert(std::is_same<T, int>::value || std::is_same<T, unsigned>::value,
                "CUDA reduces int and unsigned");
  return gather<T>(names::kReduce, mask, value, [mask, op](const T* in, T* out) {
    const unsigned first = static_cast<unsigned>(__builtin_ctz(mask));
    T total = in[first];
    for_each_lane(mask & (mask - 1), [&](unsigned lane) { total = op(total, in[lane]); });
    for_each_lane(mask, [&](unsigned lane) { out[lane] = total; });
  });
}

// First and one-past-last lane of the lane's segment of `width` lanes.
inline int segment_begin(int lane, int width) {
  if (width <= 0 || width > 32 || (width & (width - 1)) != 0) {
    fail("a shuffle's width is a power of two up to 32, got " + std::to_string(width));
  }
  return lane & ~(width - 1);
}

}  // namespace emu

inline void __syncwarp(unsigned mask = 0xffffffffu) {
  emu::exchange(emu::names::kSyncwarp, mask, nullptr, [](void**) {}, true);
}

template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const int begin = emu::segment_begin(emu::lane_here(), width);
  return emu::shuffle(emu::names::kShfl, mask, value, begin | (source & (width - 1)));
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
  const int lane = emu::lane_here();
  const int source = lane ^ lanes;
  const bool inside = source >= 0 && source < emu::segment_begin(lane, width) + width;
  return emu::shuffle(emu::names::kShflXor, mask, value, inside ? source : lane);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const int lane = emu::lane_here();
  const int source = lane - static_cast<int>(delta);
  const bool inside = source >= emu::segment_begin(lane, width);
  return emu::shuffle(emu::names::kShflUp, mask, value, inside ? source : lane);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const int lane = emu::lane_here();
  const int source = lane + static_cast<int>(delta);
  const bool inside = source < emu::segment_begin(lane, width) + width;
  return emu::shuffle(emu::names::kShflDown, mask, value, inside ? source : lane);
}

inline unsigned __ballot_sync(unsigned mask, int predicate) { return emu::ballot(mask, predicate); }
inline int __any_sync(unsigned mask, int predicate) { return emu::ballot(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return emu::ballot(mask, predicate) == mask; }

template <class T>
inline unsigned __match_any_sync(unsigned mask, T value) {
  return emu::gather<unsigned>(emu::names::kMatch, mask, value, [mask](const T* in, unsigned* out) {
    emu::for_each_lane(mask, [&](unsigned lane) {
      emu::for_each_lane(mask, [&](unsigned other) {
        out[lane] |= static_cast<unsigned>(__builtin_memcmp(&in[lane], &in[other], sizeof(T)) == 0)
                     << other;
      });
    });
  });
}

template <class T>
inline T __reduce_add_sync(unsigned mask, T value) {
  return emu::reduce(mask, value, [](T a, T b) { return T(unsigned(a) + unsigned(b)); });
}
template <class T>
inline T __reduce_min_sync(unsigned mask, T value) {
  return emu::reduce(mask, value, [](T a, T b) { return a < b ? a : b; });
}
template <class T>
inline T __reduce_max_sync(unsigned mask, T value) {
  return emu::reduce(mask, value, [](T a, T b) { return a > b ? a : b; });
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value) {
  return emu::reduce(mask, value, [](unsigned a, unsigned b) { return a & b; });
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value) {
  return emu::reduce(mask, value, [](unsigned a, unsigned b) { return a | b; });
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value) {
  return emu::reduce(mask, value, [](unsigned a, unsigned b) { return a ^ b; });
}
