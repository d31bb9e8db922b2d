// The switch between two stacks (x86-64, as all of kernels/), and where stacks come from.
#include "kernels/simt/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>

#if defined(__SANITIZE_ADDRESS__)
#define SIMT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIMT_ASAN 1
#endif
#endif
#ifdef SIMT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// simt_switch(&saved, next): keeps what the System V ABI says a callee keeps on this stack, and
// goes on where `next` was saved. The control words of SSE and x87 are the same on all stacks.
// Lanes that wait one after another switch at the same place, so that the processor's stack of
// return addresses stays right (from the host's stack and back it does not, and that takes twice as
// long). A new stack starts in simt_start, with `main` in rbx and no frame above it.
asm(R"(
  .text
  .p2align 4
  .type simt_switch, @function
simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size simt_switch, .-simt_switch

  .p2align 4
  .type simt_start, @function
simt_start:
  .cfi_startproc
  .cfi_undefined rip
  callq *%rbx
  ud2
  .cfi_endproc
  .size simt_start, .-simt_start
)");
extern "C" void simt_switch(void** saved, void* next);
extern "C" void simt_start();

namespace thermocline::kernels::simt {
namespace {

#ifdef SIMT_ASAN
constexpr size_t kStackBytes = 256 << 10;  // its frames have red zones
#else
constexpr size_t kStackBytes = 64 << 10;
#endif
constexpr int kStacksPerMapping = 32;

}  // namespace

FiberPool::~FiberPool() {
  for (const Mapping& mapping : mappings_) {
#ifdef SIMT_ASAN
    __asan_unpoison_memory_region(mapping.address,
                                  mapping.n_bytes);  // others will use the addresses
#endif
    munmap(mapping.address, mapping.n_bytes);
  }
}

bool FiberPool::grow() {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t stride = kStackBytes + page;
  const size_t n_bytes = kStacksPerMapping * stride;
  void* address = mmap(nullptr, n_bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (address == MAP_FAILED) return false;
  mappings_.push_back({static_cast<char*>(address), n_bytes});
  for (int i = 0; i < kStacksPerMapping; ++i) {
    char* guard = static_cast<char*>(address) + i * stride;
    if (mprotect(guard, page, PROT_NONE) != 0) return false;
    fibers_.push_back({nullptr, guard + page, kStackBytes, nullptr});
    prepare(&fibers_.back());
    idle_.push_back(&fibers_.back());
  }
  return true;
}

// Stacks that begin at the same place in their pages would share a few sets of the L1 cache (4 KiB
// apart): neighbours begin 512 bytes further down each, by eights.
void FiberPool::prepare(Fiber* fiber) {
  const size_t number = reinterpret_cast<uintptr_t>(fiber->low) / (kStackBytes + 4096);
  void** top = reinterpret_cast<void**>(fiber->low + fiber->n_bytes - 16 - number % 8 * 512);
  *--top = reinterpret_cast<void*>(&simt_start);
  *--top = nullptr;                              // rbp: the last frame
  *--top = reinterpret_cast<void*>(main_);       // rbx
  for (int i = 0; i < 4; ++i) *--top = nullptr;  // r12 to r15
  fiber->stack_pointer = top;
}

Fiber* FiberPool::take() {
  if (idle_.empty() && !grow()) return nullptr;
  Fiber* fiber = idle_.back();
  idle_.pop_back();
  return fiber;
}

void FiberPool::abandon(Fiber* fiber) {
#ifdef SIMT_ASAN
  __asan_unpoison_memory_region(fiber->low, fiber->n_bytes);  // the red zones of frames left
  fiber->asan_frames = nullptr;
#endif
  prepare(fiber);
  give_back(fiber);
}

void FiberPool::enter(Fiber* fiber) {
#ifdef SIMT_ASAN
  __sanitizer_start_switch_fiber(&host_asan_frames_, fiber->low, fiber->n_bytes);
#endif
  simt_switch(&host_stack_pointer_, fiber->stack_pointer);
#ifdef SIMT_ASAN
  __sanitizer_finish_switch_fiber(host_asan_frames_, nullptr, nullptr);
#endif
}

void FiberPool::leave(Fiber* fiber) {
#ifdef SIMT_ASAN
  __sanitizer_start_switch_fiber(&fiber->asan_frames, host_low_, host_n_bytes_);
#endif
  simt_switch(&fiber->stack_pointer, host_stack_pointer_);
#ifdef SIMT_ASAN
  __sanitizer_finish_switch_fiber(fiber->asan_frames, nullptr, nullptr);
#endif
}

void FiberPool::change(Fiber* from, Fiber* to) {
#ifdef SIMT_ASAN
  __sanitizer_start_switch_fiber(&from->asan_frames, to->low, to->n_bytes);
#endif
  simt_switch(&from->stack_pointer, to->stack_pointer);
#ifdef SIMT_ASAN
  __sanitizer_finish_switch_fiber(from->asan_frames, nullptr, nullptr);
#endif
}

void FiberPool::arrived() {
#ifdef SIMT_ASAN
  const bool from_host = host_low_ == nullptr;  // the first one comes from there
  __sanitizer_finish_switch_fiber(nullptr, from_host ? &host_low_ : nullptr,
                                  from_host ? &host_n_bytes_ : nullptr);
#endif
}

}  // namespace thermocline::kernels::simt
