// What a checker that watches kernels is told of their order; race.cc is the one there is. Kernels'
// plain reads and writes are its own business.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace thermocline::kernels::simt {

class Block;
struct Thread;

enum class AtomicAccess { kLoadAcquire, kStoreRelease, kUpdate };

class Observer {
 public:
  virtual ~Observer() = default;
  virtual void launch_begins() = 0;
  virtual void block_begins(const Block& block) = 0;
  virtual void block_ends(const Block& block) = 0;
  // All threads of the block have met.
  virtual void block_met(const Block& block) = 0;
  // The lanes of a warp have met in __syncwarp.
  virtual void lanes_met(const Block& block, int warp, uint32_t lanes) = 0;
  // A fence over the device or more.
  virtual void fence(Thread* thread) = 0;
  virtual void atomic(Thread* thread, const void* address, size_t n_bytes, AtomicAccess access) = 0;
};

// Makes the observer of one GridRunner. Set before main by a checker that is linked in; else null.
using ObserverFactory = std::unique_ptr<Observer> (*)();
extern constinit ObserverFactory make_observer;

}  // namespace thermocline::kernels::simt
