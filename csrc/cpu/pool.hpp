// One warm pool of threads for the process. Each caller works on its own job, so every job
// advances. Workers take one task at a time from the jobs in turn, so concurrent searches share
// them fairly.
#pragma once
#include <cstdint>
#include <functional>

#include "core/cancel.hpp"

namespace fastretrieve::cpu {

// Threads that a job may use, including the caller. The default is FASTRETRIEVE_NUM_THREADS, or the
// number of processors that this process may run on.
int num_threads();
void set_num_threads(int n);

// Calls task(index, slot) once for every index in [0, n_tasks), in any order. At most `slots`
// threads take part; `slot` is below `slots`, and no two threads hold the same one at a time.
// Rethrows the first exception.
using Task = std::function<void(int64_t index, int slot)>;
void parallel(int64_t n_tasks, int slots, const Task& task, Cancel& cancel);

}  // namespace fastretrieve::cpu
