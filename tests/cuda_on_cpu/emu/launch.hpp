// A kernel launch: the checks of a driver, then every thread block, on one or several OS threads.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "emu/barriers.hpp"
#include "emu/rounding.hpp"
#include "emu/runtime_api.hpp"
#include "emu/scheduler.hpp"

namespace emu {

// Blocks keep the stacks of their fibers between launches. A launch takes blocks from here and
// gives them back, so there are never more than ever ran at once.
class BlockPool {
 public:
  static BlockPool& instance() {
    static BlockPool* pool = new BlockPool;  // outlives every thread that may still launch
    return *pool;
  }
  std::vector<std::unique_ptr<Block>> take(std::size_t n) {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<std::unique_ptr<Block>> taken;
    while (taken.size() < n) {
      if (idle_.empty()) idle_.push_back(std::make_unique<Block>());
      taken.push_back(std::move(idle_.back()));
      idle_.pop_back();
    }
    return taken;
  }
  void give_back(std::vector<std::unique_ptr<Block>> blocks) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (auto& block : blocks) idle_.push_back(std::move(block));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Block>> idle_;
};

inline std::uint64_t mix(std::uint64_t seed) {
  seed = (seed ^ (seed >> 30)) * 0xbf58476d1ce4e5b9ull;
  seed = (seed ^ (seed >> 27)) * 0x94d049bb133111ebull;
  return (seed ^ (seed >> 31)) | 1;
}

inline cudaError_t check_launch(const LaunchConfig& config, const void* kernel) {
  const dim3 grid = config.grid;
  const dim3 block = config.block;
  const std::uint64_t n_threads = std::uint64_t{block.x} * block.y * block.z;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaErrorInvalidConfiguration;
  if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    return cudaErrorInvalidConfiguration;
  if (n_threads == 0 || n_threads > 1024 || block.z > 64) return cudaErrorInvalidConfiguration;
  if (config.shared_bytes > shared_limit(kernel)) return cudaErrorInvalidValue;
  return cudaSuccess;
}

// The blocks of a launch in running order: by number, or shuffled by the seed.
inline std::vector<std::uint64_t> block_order(const dim3& grid, std::uint64_t seed) {
  std::vector<std::uint64_t> order(std::uint64_t{grid.x} * grid.y * grid.z);
  for (std::size_t i = 0; i < order.size(); i++) order[i] = i;
  if (seed == 0) return order;
  std::uint64_t random = seed;
  for (std::size_t i = order.size(); i > 1; i--) {
    random = mix(random + i);
    std::swap(order[i - 1], order[(random >> 1) % i]);
  }
  return order;
}

inline void run_blocks(Block& block, const LaunchConfig& config, const std::function<void()>& body,
                       const std::vector<std::uint64_t>& order, std::size_t first,
                       std::size_t stride) {
  const std::uint64_t seed = env_number("FR_EMU_SEED", 0);
  const DeviceArithmetic arithmetic;
  block.config = config;
  block.body = &body;
  block.n_threads = config.block.x * config.block.y * config.block.z;
  block.exit_is_allowed = env_number("FR_EMU_EXIT_OK", 0) != 0;
  for (std::size_t i = first; i < order.size(); i += stride) {
    const std::uint64_t linear = order[i];
    block.index = {static_cast<unsigned>(linear % config.grid.x),
                   static_cast<unsigned>(linear / config.grid.x % config.grid.y),
                   static_cast<unsigned>(linear / config.grid.x / config.grid.y)};
    block.random = seed != 0 ? mix(seed * 0x9e3779b97f4a7c15ull + linear) : 0;
    run_block(block);
  }
}

// AddressSanitizer needs __shared__ variables as plain statics, so blocks run one at a time there.
inline std::unique_lock<std::mutex> launch_lock() {
  static std::mutex one_at_a_time;
  if (FR_EMU_ASAN) return std::unique_lock<std::mutex>(one_at_a_time);
  return std::unique_lock<std::mutex>();
}

inline void run_grid(const LaunchConfig& config, const std::function<void()>& body) {
  const auto lock = launch_lock();
  const auto order = block_order(config.grid, env_number("FR_EMU_SEED", 0));
  const std::size_t wanted = FR_EMU_ASAN ? 1 : env_number("FR_EMU_THREADS", 1);
  const std::size_t n_workers = std::max<std::size_t>(1, std::min(wanted, order.size()));
  auto blocks = BlockPool::instance().take(n_workers);
  // Fixed shares: a common counter would order the blocks for ThreadSanitizer, and hide races.
  std::vector<std::thread> others;
  for (std::size_t w = 1; w < n_workers; w++) {
    others.emplace_back([&, w] { run_blocks(*blocks[w], config, body, order, w, n_workers); });
  }
  run_blocks(*blocks[0], config, body, order, 0, n_workers);
  for (std::thread& other : others) other.join();
  BlockPool::instance().give_back(std::move(blocks));
}

// Arguments are converted to the kernel's parameter types once, as in CUDA. Each thread gets a
// copy.
template <class... Parameters, class... Arguments>
void launch(const LaunchConfig& config, void (*kernel)(Parameters...), Arguments&&... arguments) {
  const cudaError_t refused = check_launch(config, reinterpret_cast<const void*>(kernel));
  if (refused != cudaSuccess) {
    set_last_error(refused);
    return;
  }
  const std::tuple<std::decay_t<Parameters>...> values(std::forward<Arguments>(arguments)...);
  run_grid(config, [kernel, &values] { std::apply(kernel, values); });
}

inline unsigned char* dynamic_shared() { return block_here().shared; }

}  // namespace emu
