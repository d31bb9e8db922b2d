// One block of a running grid: its threads, which of them wait for what, its shared memory. Which
// blocks run when: grid.h.
#pragma once

#include <bit>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/simt/error.h"
#include "kernels/simt/fiber.h"
#include "kernels/simt/launch.h"
#include "kernels/simt/observer.h"
#include "kernels/simt/threads.h"
#include "kernels/simt/warp_call.h"

namespace thermocline::kernels::simt {

// What the blocks of a grid share.
struct GridContext {
  LaunchShape shape;
  KernelCall call;
  FiberPool* fibers;
  Observer* observer;  // may be null
  Error error;         // the first one; the grid stops
};

struct Thread : ThreadView {
  Block* owner = nullptr;
  int number = 0;          // in the block, x fastest; lane = number % 32
  Fiber* fiber = nullptr;  // while it has begun and not exited
  WarpCall call;           // while it waits for other lanes
  uint64_t result = 0;     // what the others brought
  Place waits_at;          // while it waits for lanes, or for the block
};

// Each lane that exists is in one set, as bits.
struct Warp {
  Thread* lanes = nullptr;  // in the block's threads
  uint32_t ready = 0, yielded = 0, at_barrier = 0, calling = 0, exited = 0;

  uint32_t live() const { return ready | yielded | at_barrier | calling; }
};

struct SharedMemory {
  const SharedVariable* variable;  // null for the launch's
  std::unique_ptr<unsigned char[]> bytes;
  size_t n_bytes;
};

// Pure state is public for warp.cc and the observer; only Block and they change it.
class Block {
 public:
  void begin(GridContext* grid, uint3 index);
  void end();

  // Runs each thread until it has exited or waits. Returns whether any did more than to yield.
  bool advance();
  bool finished() const;

  // Called by the running thread: waits in the set, until another takes it out of it.
  void wait(Thread* thread, uint32_t Warp::*set, Place where);
  // Notes the grid's error; the running thread, if one calls it, must then wait for ever.
  void fail(ErrorCode code, const std::string& what);

  void* shared(const SharedVariable& variable);
  void* dynamic_shared() const { return shared_[0].bytes.get(); }
  const std::vector<SharedMemory>& shared_memory() const { return shared_; }
  const std::vector<Thread>& threads() const { return threads_; }
  const BlockView& view() const { return view_; }
  Observer* observer() const { return grid_->observer; }
  std::string name() const;
  std::string name(const Thread& thread) const;

  // The body of every fiber.
  [[noreturn]] static void fiber_main();

 private:
  bool run_warp(Warp* warp);
  Thread* take_ready(Warp* warp);
  void hand_on(Warp* warp, Fiber* fiber);
  void exit(Thread* thread);
  // Lets lanes go on that have met (warp.cc).
  void match_calls(Warp* warp);
  void finish_call(Warp* warp, int lane);
  void complete(Warp* warp, uint32_t lanes);
  bool release_barrier();
  void explain_stall();
  int n_bits(uint32_t Warp::*set) const;
  // The first thread in the set that does not wait at `other`; null if there is none.
  const Thread* find(uint32_t Warp::*set, const Place* other = nullptr) const;

  GridContext* grid_ = nullptr;
  bool moved_ = false;  // a thread has done more than to yield
  BlockView view_;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::vector<SharedMemory> shared_;
};

// The thread that runs; null outside kernels.
inline Thread* running_thread() { return static_cast<Thread*>(current_thread); }

}  // namespace thermocline::kernels::simt
