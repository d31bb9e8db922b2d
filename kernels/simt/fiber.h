// Stacks that one host thread switches between, and a pool of them. No scheduling (grid.h).
#pragma once

#include <cstddef>
#include <deque>
#include <vector>

namespace thermocline::kernels::simt {

struct Fiber {
  void* stack_pointer = nullptr;  // while another runs
  char* low = nullptr;            // the stack's first byte; below it lies an unreadable page
  size_t n_bytes = 0;
  void* asan_frames = nullptr;
};

// Owned by one host thread. Fibers run `main`, which never returns: it works and leaves, by turns.
class FiberPool {
 public:
  explicit FiberPool(void (*main)()) : main_(main) {}
  ~FiberPool();
  FiberPool(const FiberPool&) = delete;
  FiberPool& operator=(const FiberPool&) = delete;

  // One at the start of `main`, or one that was given back there. The last one given back comes
  // first: its stack is warm. Null if the system has no memory left.
  Fiber* take();
  void give_back(Fiber* fiber) { idle_.push_back(fiber); }
  // Gives back one that is somewhere in its work: it will start from the beginning.
  void abandon(Fiber* fiber);

  // From the host thread's own stack onto the fiber's, until that leaves.
  void enter(Fiber* fiber);
  void leave(Fiber* fiber);
  // From one fiber's stack onto another's.
  void change(Fiber* from, Fiber* to);
  // Called by `main` first of all.
  void arrived();

 private:
  bool grow();
  void prepare(Fiber* fiber);

  struct Mapping {
    char* address;
    size_t n_bytes;
  };
  void (*main_)();
  std::vector<Mapping> mappings_;
  std::deque<Fiber> fibers_;
  std::vector<Fiber*> idle_;
  void* host_stack_pointer_ = nullptr;
  // For AddressSanitizer alone.
  [[maybe_unused]] const void* host_low_ = nullptr;
  [[maybe_unused]] size_t host_n_bytes_ = 0;
  [[maybe_unused]] void* host_asan_frames_ = nullptr;
};

}  // namespace thermocline::kernels::simt
