// What a kernel on the host knows of its thread, block and grid, and their shared memory. No STL:
// kernels include it. What runs the threads: block.h.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/simt/vector_types.h"

// The race checker watches kernels, not what the layer itself keeps.
#if defined(__SANITIZE_THREAD__) || defined(__clang__)
#define SIMT_UNWATCHED __attribute__((no_sanitize("thread"))) inline
#else
#define SIMT_UNWATCHED inline
#endif

namespace thermocline::kernels::simt {

template <typename T>
using SameType = T;

struct BlockView {
  uint3 block_index;
  dim3 block_size, grid_size;
};
struct ThreadView {
  uint3 thread_index;
  const BlockView* block;
};

// The kernel thread that runs on this host thread; null outside kernels.
extern constinit thread_local ThreadView* current_thread;

SIMT_UNWATCHED uint3 thread_index() { return current_thread->thread_index; }
SIMT_UNWATCHED uint3 block_index() { return current_thread->block->block_index; }
SIMT_UNWATCHED dim3 block_size() { return current_thread->block->block_size; }
SIMT_UNWATCHED dim3 grid_size() { return current_thread->block->grid_size; }

// Where in the source something stands.
struct Place {
  const char* file;
  int line;
};

struct SharedVariable {
  const char* name;
  size_t n_bytes;
};
// The running block's memory for one SHARED(); the same for all its threads.
void* shared_memory(const SharedVariable& variable);
template <typename T>
SIMT_UNWATCHED T& shared_variable(const SharedVariable& variable) {
  static_assert(alignof(T) <= 16);
  return *static_cast<T*>(shared_memory(variable));
}
void* dynamic_shared();

void barrier(Place where);
// Lets other threads, blocks and the host's threads run before this one goes on.
void yield();
[[noreturn]] void trap(Place where);
int64_t now_ns();  // CLOCK_MONOTONIC

}  // namespace thermocline::kernels::simt

// The defaults are the caller's file and line.
inline void __syncthreads(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  ::thermocline::kernels::simt::barrier({file, line});
}
inline void __nanosleep(unsigned) { ::thermocline::kernels::simt::yield(); }
[[noreturn]] inline void __trap(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  ::thermocline::kernels::simt::trap({file, line});
}
