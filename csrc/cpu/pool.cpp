#include "cpu/pool.hpp"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <list>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/check.hpp"
#include "core/fpenv.hpp"

namespace fastretrieve::cpu {
namespace {

constexpr std::chrono::milliseconds kPollInterval{20};

struct Job {
  const Task& task;
  Cancel& cancel;
  const int64_t n_tasks;
  std::atomic<int64_t> next{0};
  std::vector<int> free_slots;  // guarded by the pool's mutex, like all below
  int active = 0;
  std::exception_ptr error;

  bool exhausted() const { return next.load(std::memory_order_relaxed) >= n_tasks; }
};

int default_threads() {
  if (const char* text = std::getenv("FASTRETRIEVE_NUM_THREADS")) {
    const int n = std::atoi(text);
    FR_CHECK(n >= 1, "FASTRETRIEVE_NUM_THREADS must be a positive number, got '", text, "'");
    return n;
  }
#if defined(__linux__)
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return std::max(1, CPU_COUNT(&allowed));
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

class Pool {
 public:
  Pool() { start(default_threads()); }

  int threads() {
    std::lock_guard<std::mutex> lock(mutex_);
    return n_threads_;
  }

  void resize(int n) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (n == n_threads_) return;
    idle_.wait(lock, [this] { return jobs_.empty() && !resizing_; });
    resizing_ = true;
    stopping_ = true;
    wake_.notify_all();
    std::vector<std::thread> old = std::move(workers_);
    lock.unlock();
    for (std::thread& worker : old) worker.join();
    lock.lock();
    stopping_ = false;
    start(n);
    resizing_ = false;
    idle_.notify_all();
  }

  void run(int64_t n_tasks, int slots, const Task& task, Cancel& cancel) {
    Job job{task, cancel, n_tasks, {}, {}, 0, {}};
    std::unique_lock<std::mutex> lock(mutex_);
    idle_.wait(lock, [this] { return !resizing_; });
    slots = std::min(slots, n_threads_);
    for (int slot = slots; slot-- > 1;) job.free_slots.push_back(slot);
    const auto place = jobs_.insert(jobs_.end(), &job);
    if (cursor_ == jobs_.end()) cursor_ = place;
    const int64_t helpers = std::min<int64_t>(n_tasks, slots) - 1;
    lock.unlock();
    for (int64_t i = 0; i < helpers; ++i) wake_.notify_one();

    while (!job.exhausted()) step(job, 0);

    lock.lock();
    if (cursor_ == place) ++cursor_;
    jobs_.erase(place);
    // Workers may still be busy with this job: go on listening for Ctrl-C.
    while (!done_.wait_for(lock, kPollInterval, [&job] { return job.active == 0; })) {
      lock.unlock();
      try {
        cancel.check_now();
      } catch (const Interrupted&) {  // the workers see the flag and stop
        lock.lock();
        if (!job.error) job.error = std::current_exception();
        lock.unlock();
      }
      lock.lock();
    }
    if (jobs_.empty()) idle_.notify_all();
    const std::exception_ptr error = job.error;
    lock.unlock();
    if (error) std::rethrow_exception(error);
  }

 private:
  void start(int n) {
    n_threads_ = 1;
    try {
      for (; n_threads_ < n; ++n_threads_) workers_.emplace_back([this] { work(); });
    } catch (const std::exception&) {
      // The system grants no more threads or memory. num_threads() says how many there are.
    }
  }

  // One task of a job, if any is left.
  void step(Job& job, int slot) {
    const int64_t index = job.next.fetch_add(1, std::memory_order_relaxed);
    if (index >= job.n_tasks) return;
    try {
      job.cancel.check_now();
      job.task(index, slot);
    } catch (...) {
      job.next.store(job.n_tasks, std::memory_order_relaxed);
      job.cancel.request();
      std::lock_guard<std::mutex> lock(mutex_);
      if (!job.error) job.error = std::current_exception();
    }
  }

  // The next job, in turn, that has tasks and a free slot.
  Job* pick() {
    for (size_t i = 0; i < jobs_.size(); ++i) {
      if (cursor_ == jobs_.end()) cursor_ = jobs_.begin();
      Job* job = *cursor_++;
      if (!job->exhausted() && !job->free_slots.empty()) return job;
    }
    return nullptr;
  }

  void work() {
    const DefaultFloatEnvironment floats;
    // A thread's first exception allocates memory, and without any the C library aborts. So
    // allocate it now.
    (void)std::uncaught_exceptions();
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      Job* job = nullptr;
      wake_.wait(lock, [&] { return stopping_ || (job = pick()) != nullptr; });
      if (stopping_) return;
      const int slot = job->free_slots.back();
      job->free_slots.pop_back();
      ++job->active;
      lock.unlock();
      step(*job, slot);
      lock.lock();
      job->free_slots.push_back(slot);
      if (--job->active == 0) done_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_, idle_;
  std::list<Job*> jobs_;
  std::list<Job*>::iterator cursor_ = jobs_.end();
  std::vector<std::thread> workers_;
  int n_threads_ = 1;
  bool stopping_ = false, resizing_ = false;
};

// Never destroyed, because workers may still wait at exit. A forked child has no workers, so it
// makes a pool of its own.
std::atomic<Pool*> current{nullptr};
std::mutex creating;

// Registered when the module is loaded: a fork may come before the first pool, and the child must
// find the lock released.
[[maybe_unused]] const int registered =
    pthread_atfork([] { creating.lock(); }, [] { creating.unlock(); },
                   [] {
                     current.store(nullptr, std::memory_order_relaxed);
                     creating.unlock();
                   });

Pool& pool() {
  Pool* existing = current.load(std::memory_order_acquire);
  if (existing) return *existing;
  std::lock_guard<std::mutex> lock(creating);
  if (!current.load(std::memory_order_relaxed)) current.store(new Pool, std::memory_order_release);
  return *current.load(std::memory_order_relaxed);
}

}  // namespace

int num_threads() { return pool().threads(); }

void set_num_threads(int n) {
  FR_CHECK(1 <= n && n <= 1024, "the number of threads must be in [1, 1024], got ", n);
  pool().resize(n);
}

void parallel(int64_t n_tasks, int slots, const Task& task, Cancel& cancel) {
  if (n_tasks <= 0) return;
  if (n_tasks == 1 || slots == 1) {
    for (int64_t i = 0; i < n_tasks; ++i) {
      cancel.check_now();
      task(i, 0);
    }
    return;
  }
  pool().run(n_tasks, slots, task, cancel);
}

}  // namespace fastretrieve::cpu
