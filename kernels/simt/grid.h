// Runs a grid on the calling host thread: which blocks are there at once, and what happens while
// all of them wait. Threads within a block: block.h.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/simt/block.h"
#include "kernels/simt/error.h"
#include "kernels/simt/fiber.h"
#include "kernels/simt/launch.h"

namespace thermocline::kernels::simt {

// Waits for something that another host thread does: gives the core away, soon sleeps, and says
// when the deadline has passed.
class Patience {
 public:
  explicit Patience(int64_t deadline_us);
  // False if the deadline has passed.
  bool wait();
  void reset() { n_waits_ = 0; }

 private:
  int64_t deadline_us_;
  int64_t begin_us_ = 0;
  int64_t n_waits_ = 0;
};

// The error of a shape that no card takes; ok if any may.
Error check_shape(const LaunchShape& shape);

class GridRunner {
 public:
  GridRunner();

  // Runs the grid to its end, or to its first error: a bug of the kernel's, nothing but yields for
  // the deadline, or `*cancelled`.
  Error run(const LaunchShape& shape, const KernelCall& call, int64_t stall_deadline_us,
            const std::atomic<bool>* cancelled);

 private:
  void run_together(GridContext* grid, size_t first, size_t n_blocks, int64_t stall_deadline_us,
                    const std::atomic<bool>* cancelled);

  FiberPool fibers_;
  std::unique_ptr<Observer> observer_;
  std::vector<std::unique_ptr<Block>> blocks_;
};

}  // namespace thermocline::kernels::simt
