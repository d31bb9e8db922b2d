// Blocks of a grid, one after another or, in a cooperative grid, by turns.
#include "kernels/simt/grid.h"

#include <fmt/format.h>

#include <chrono>
#include <thread>

namespace thermocline::kernels::simt {
namespace {

// The smallest of the cards that kernels/cuda is compiled for (compute capability 7.5).
constexpr size_t kSharedBytes = 64 << 10;
// Of a cooperative grid; each has a stack, and each stack two entries in the kernel's table of
// maps.
constexpr size_t kMaxThreadsAtOnce = 16384;

int64_t now_us() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

std::string text(dim3 size) { return fmt::format("{} x {} x {}", size.x, size.y, size.z); }

uint3 block_at(size_t number, dim3 grid) {
  const size_t row = number / grid.x;
  return {static_cast<unsigned>(number % grid.x), static_cast<unsigned>(row % grid.y),
          static_cast<unsigned>(row / grid.y)};
}

}  // namespace

Patience::Patience(int64_t deadline_us) : deadline_us_(deadline_us) {}

bool Patience::wait() {
  constexpr int64_t kYields = 200;  // before it sleeps: a microsecond each on a busy machine
  if (n_waits_++ == 0) begin_us_ = now_us();
  if (n_waits_ <= kYields) {
    std::this_thread::yield();
    return true;
  }
  std::this_thread::sleep_for(std::chrono::microseconds(20));
  return now_us() - begin_us_ < deadline_us_;
}

Error check_shape(const LaunchShape& shape) {
  const dim3 grid = shape.grid, block = shape.block;
  const size_t n_threads = size_t{block.x} * block.y * block.z;
  const size_t n_blocks = size_t{grid.x} * grid.y * grid.z;
  std::string problem;
  if (n_threads == 0 || n_threads > 1024 || block.z > 64) {
    problem = fmt::format("a block of {} threads: 1 to 1024 are possible, 64 in z", text(block));
  } else if (n_blocks == 0 || grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535) {
    problem = fmt::format("a grid of {} blocks: none may be 0, y and z at most 65535", text(grid));
  } else if (shape.dynamic_shared_bytes > kSharedBytes) {
    problem = fmt::format("{} bytes of shared memory: a block has {} on the smallest card",
                          shape.dynamic_shared_bytes, kSharedBytes);
  } else if (shape.cooperative && n_blocks * n_threads > kMaxThreadsAtOnce) {
    problem = fmt::format(
        "{} blocks of {} threads at once: the emulated device has room for {} "
        "threads",
        n_blocks, n_threads, kMaxThreadsAtOnce);
  }
  if (problem.empty()) return {};
  return {ErrorCode::kBadLaunch, fmt::format("kernel {}: {}", shape.name, problem)};
}

GridRunner::GridRunner()
    : fibers_(Block::fiber_main), observer_(make_observer == nullptr ? nullptr : make_observer()) {}

Error GridRunner::run(const LaunchShape& shape, const KernelCall& call, int64_t stall_deadline_us,
                      const std::atomic<bool>* cancelled) {
  GridContext grid = {shape, call, &fibers_, observer_.get(), {}};
  const size_t n_blocks = size_t{shape.grid.x} * shape.grid.y * shape.grid.z;
  const size_t at_once = shape.cooperative ? n_blocks : 1;
  while (blocks_.size() < at_once) blocks_.push_back(std::make_unique<Block>());
  if (observer_ != nullptr) observer_->launch_begins();
  for (size_t first = 0; first < n_blocks && grid.error.ok(); first += at_once) {
    run_together(&grid, first, at_once, stall_deadline_us, cancelled);
  }
  return grid.error;
}

void GridRunner::run_together(GridContext* grid, size_t first, size_t n_blocks,
                              int64_t stall_deadline_us, const std::atomic<bool>* cancelled) {
  for (size_t i = 0; i < n_blocks; ++i)
    blocks_[i]->begin(grid, block_at(first + i, grid->shape.grid));
  Patience patience(stall_deadline_us);
  for (bool finished = false; !finished && grid->error.ok();) {
    bool progress = false;
    finished = true;
    for (size_t i = 0; i < n_blocks && grid->error.ok(); ++i) {
      if (blocks_[i]->finished()) continue;
      progress |= blocks_[i]->advance();
      finished &= blocks_[i]->finished();
    }
    if (finished) break;
    if (cancelled->load(std::memory_order_relaxed)) {
      blocks_[0]->fail(ErrorCode::kStalled, "stopped, the device has failed");
    } else if (progress) {
      patience.reset();
    } else if (!patience.wait()) {
      blocks_[0]->fail(
          ErrorCode::kStalled,
          fmt::format("all threads that can run have only yielded for {} ms: what they "
                      "wait for does not happen (a grid whose blocks wait for each "
                      "other must be launched as cooperative)",
                      stall_deadline_us / 1000));
    }
  }
  for (size_t i = 0; i < n_blocks; ++i) blocks_[i]->end();
}

}  // namespace thermocline::kernels::simt
