// Tells the sanitizers about fibers. Without a sanitizer every function here is empty.
//
// For ThreadSanitizer each fiber is a thread, switches order nothing, and the emulator's own reads
// and writes are ignored. So only barriers, __syncwarp, fences and atomics of the kernel order its
// memory accesses, and a missing barrier is a data race.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define FR_EMU_ASAN 1
#else
#define FR_EMU_ASAN 0
#endif

#if defined(__SANITIZE_THREAD__)
#define FR_EMU_TSAN 1
extern "C" {
void* __tsan_get_current_fiber(void);
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
void __tsan_read_range(void* address, unsigned long n_bytes);
void __tsan_write_range(void* address, unsigned long n_bytes);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#else
#define FR_EMU_TSAN 0
#endif

// For functions that run during a switch of fibers, which must not be instrumented.
#define FR_EMU_SWITCH_PATH __attribute__((no_sanitize("thread")))

namespace emu {

#if FR_EMU_TSAN
FR_EMU_SWITCH_PATH inline void ignore_begin() {
  AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
  AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
}
FR_EMU_SWITCH_PATH inline void ignore_end() {
  AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
}
FR_EMU_SWITCH_PATH inline void acquire(void* tag) { __tsan_acquire(tag); }
FR_EMU_SWITCH_PATH inline void release(void* tag) { __tsan_release(tag); }
#else
inline void ignore_begin() {}
inline void ignore_end() {}
inline void acquire(void*) {}
inline void release(void*) {}
#endif

// The emulator's own bookkeeping: invisible to ThreadSanitizer while one of these lives.
struct Untracked {
  FR_EMU_SWITCH_PATH Untracked() { ignore_begin(); }
  FR_EMU_SWITCH_PATH ~Untracked() { ignore_end(); }
  Untracked(const Untracked&) = delete;
  Untracked& operator=(const Untracked&) = delete;
};

// The opposite, inside it: for the work of a collective on the kernel's behalf.
struct Tracked {
  FR_EMU_SWITCH_PATH Tracked() { ignore_end(); }
  FR_EMU_SWITCH_PATH ~Tracked() { ignore_begin(); }
  Tracked(const Tracked&) = delete;
  Tracked& operator=(const Tracked&) = delete;
};

// Accesses that the compiler may expand to instructions that it does not instrument, like memcpy.
#if FR_EMU_TSAN
inline void track_read(const void* p, std::size_t n_bytes) {
  __tsan_read_range(const_cast<void*>(p), n_bytes);
}
inline void track_write(void* p, std::size_t n_bytes) { __tsan_write_range(p, n_bytes); }
#else
inline void track_read(const void*, std::size_t) {}
inline void track_write(void*, std::size_t) {}
#endif

}  // namespace emu
