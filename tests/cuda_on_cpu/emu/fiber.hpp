// A fiber: a stack, and a place to continue from. Knows nothing of CUDA.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <new>

#include "emu/sanitizers.hpp"

// FR_EMU_UCONTEXT=1 uses the portable switch on x86-64 too; it makes system calls and is 50x
// slower.
#if !defined(__x86_64__) && !defined(FR_EMU_UCONTEXT)
#define FR_EMU_UCONTEXT 1
#endif
#if defined(FR_EMU_UCONTEXT)
#include <ucontext.h>
#else
// Saves the callee-saved registers and the stack pointer in *from, continues at `to`.
extern "C" void fr_emu_switch(void** from, void* to);
__asm__(
    ".text\n.weak fr_emu_switch\n.hidden fr_emu_switch\n.type fr_emu_switch,@function\n"
    "fr_emu_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n.size fr_emu_switch,.-fr_emu_switch\n");
#endif

namespace emu {

// Sanitizers print their reports on the stack of the thread that they stopped, and need room.
constexpr std::size_t kStackBytes = (FR_EMU_ASAN || FR_EMU_TSAN) ? 512 << 10 : 128 << 10;

class Fiber {
 public:
  Fiber() = default;
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  Fiber(Fiber&&) = delete;
  ~Fiber() {
    if (mapping_ != nullptr) munmap(mapping_, kStackBytes + guard_bytes());
#if FR_EMU_TSAN
    if (mapping_ != nullptr && tsan_ != nullptr) __tsan_destroy_fiber(tsan_);
#endif
  }

  // Ready to run `entry` from its start; the stack is mapped once and reused. Stacks that begin at
  // the same offset in a page would share their cache sets, so `colour` moves each a little.
  void prepare(void (*entry)(), unsigned colour) {
    if (mapping_ == nullptr) map_stack();
    finished = false;
    char* top = stack_ + kStackBytes - 64 - std::size_t{colour % 32} * 320;
#if FR_EMU_ASAN
    // A finished fiber never returns from its outermost frames, so their red zones are still set.
    const std::size_t leftover = 48 << 10;
    __asan_unpoison_memory_region(stack_ + kStackBytes - leftover, leftover);
    fake_stack_ = nullptr;
#endif
#if FR_EMU_TSAN
    if (tsan_ == nullptr) tsan_ = __tsan_create_fiber(0);  // 0.4 ms each: kept like the stack
#endif
#if defined(FR_EMU_UCONTEXT)
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack_;
    context_.uc_stack.ss_size = static_cast<std::size_t>(top - stack_);
    context_.uc_link = nullptr;
    makecontext(&context_, entry, 0);
#else
    void** frame = reinterpret_cast<void**>(top);
    *--frame = nullptr;  // in place of a return address: aligns the stack as after a call
    *--frame = reinterpret_cast<void*>(entry);
    for (int saved_register = 0; saved_register < 6; saved_register++) *--frame = nullptr;
    saved_sp_ = frame;
#endif
  }

  // The operating system's own stack, from which the first fiber is entered.
  void adopt_caller() {
#if FR_EMU_TSAN
    tsan_ = __tsan_get_current_fiber();
#endif
  }

  // Leaves this fiber for `to`. Returns when another fiber switches back.
  FR_EMU_SWITCH_PATH void switch_to(Fiber& to) {
#if FR_EMU_ASAN
    __sanitizer_start_switch_fiber(finished ? nullptr : &fake_stack_, to.stack_, to.stack_bytes());
#endif
#if FR_EMU_TSAN
    const unsigned orders_nothing = 1;
    __tsan_switch_to_fiber(to.tsan_, orders_nothing);
#endif
#if defined(FR_EMU_UCONTEXT)
    swapcontext(&context_, &to.context_);
#else
    fr_emu_switch(&saved_sp_, to.saved_sp_);
#endif
#if FR_EMU_ASAN
    __sanitizer_finish_switch_fiber(fake_stack_, nullptr, nullptr);
#endif
  }

  // A fiber starts here. `caller` learns its bounds if it was adopted.
  FR_EMU_SWITCH_PATH static void arrived([[maybe_unused]] Fiber* caller) {
#if FR_EMU_ASAN
    const void* bottom = nullptr;
    std::size_t bytes = 0;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
    if (caller != nullptr) {
      caller->stack_ = static_cast<char*>(const_cast<void*>(bottom));
      caller->adopted_bytes_ = bytes;
    }
#endif
  }

  bool finished = false;

 private:
  static std::size_t guard_bytes() { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }
  std::size_t stack_bytes() const { return mapping_ != nullptr ? kStackBytes : adopted_bytes_; }

  void map_stack() {
    const std::size_t guard = guard_bytes();
    void* memory = mmap(nullptr, kStackBytes + guard, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    if (mprotect(memory, guard, PROT_NONE) != 0) throw std::bad_alloc();  // overflow must not pass
    mapping_ = static_cast<char*>(memory);
    stack_ = mapping_ + guard;
  }

  char* mapping_ = nullptr;  // the guard page, then the stack; null for an adopted stack
  char* stack_ = nullptr;
  std::size_t adopted_bytes_ = 0;
#if defined(FR_EMU_UCONTEXT)
  ucontext_t context_;
#else
  void* saved_sp_ = nullptr;
#endif
#if FR_EMU_ASAN
  void* fake_stack_ = nullptr;
#endif
#if FR_EMU_TSAN
  void* tsan_ = nullptr;
#endif
};

}  // namespace emu
