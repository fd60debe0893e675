// One warm pool of threads for the process. A caller works on its own job, so that every job
// advances; workers take one task at a time from the jobs in turn, so that concurrent searches
// share them fairly.
#pragma once
#include <cstdint>
#include <functional>

#include "core/cancel.hpp"

namespace fastretrieve::cpu {

// Threads that a job may use, the caller included. The default is FASTRETRIEVE_NUM_THREADS or the
// processors that this process may run on.
int num_threads();
void set_num_threads(int n);

// Calls task(index, slot) for every index in [0, n_tasks), each once, in no order. `slot` is below
// `slots`, the most threads that will work on it, and no two threads hold one slot at the same
// time. Rethrows the first exception.
using Task = std::function<void(int64_t index, int slot)>;
void parallel(int64_t n_tasks, int slots, const Task& task, Cancel& cancel);

}  // namespace fastretrieve::cpu
