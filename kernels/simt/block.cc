// How the threads of a block take turns, and their barrier. What lanes of a warp exchange: warp.cc.
#include "kernels/simt/block.h"

#include <fmt/format.h>

#include <chrono>
#include <cstring>
#include <numeric>

namespace thermocline::kernels::simt {

constinit thread_local ThreadView* current_thread = nullptr;
constinit ObserverFactory make_observer = nullptr;

namespace {

constexpr size_t kStaticSharedBytes = 48 << 10;  // of a block, as in CUDA

std::string text(Place place) { return fmt::format("{}:{}", place.file, place.line); }

SharedMemory allocate(const SharedVariable* variable, size_t n_bytes) {
  std::unique_ptr<unsigned char[]> bytes(new unsigned char[n_bytes]);
  std::memset(bytes.get(), 0xff, n_bytes);
  return {variable, std::move(bytes), n_bytes};
}

}  // namespace

void Block::begin(GridContext* grid, uint3 index) {
  grid_ = grid;
  const dim3 size = grid->shape.block;
  view_ = {index, size, grid->shape.grid};
  threads_.resize(size_t{size.x} * size.y * size.z);
  warps_.assign((threads_.size() + 31) / 32, Warp{});
  for (size_t warp = 0; warp < warps_.size(); ++warp) warps_[warp].lanes = &threads_[32 * warp];
  uint3 at = {0, 0, 0};
  for (size_t i = 0; i < threads_.size(); ++i) {
    threads_[i].thread_index = at;
    threads_[i].block = &view_;
    threads_[i].owner = this;
    threads_[i].number = static_cast<int>(i);
    threads_[i].fiber = nullptr;
    warps_[i / 32].ready |= 1u << i % 32;
    if (++at.x < size.x) continue;
    at.x = 0;
    if (++at.y < size.y) continue;
    at.y = 0;
    ++at.z;
  }
  shared_.clear();
  shared_.push_back(allocate(nullptr, grid->shape.dynamic_shared_bytes));
  if (observer() != nullptr) observer()->block_begins(*this);
}

void Block::end() {
  for (Thread& thread : threads_) {
    if (thread.fiber != nullptr) grid_->fibers->abandon(thread.fiber);
    thread.fiber = nullptr;
  }
  if (observer() != nullptr) observer()->block_ends(*this);
  shared_.clear();
}

bool Block::finished() const {
  for (const Warp& warp : warps_) {
    if (warp.live() != 0) return false;
  }
  return true;
}

bool Block::advance() {
  for (Warp& warp : warps_) {
    warp.ready |= warp.yielded;
    warp.yielded = 0;
  }
  bool progress = false;
  for (bool moved = true; moved;) {
    moved = false;
    for (Warp& warp : warps_) {
      moved |= run_warp(&warp);
      if (!grid_->error.ok()) return true;
    }
    moved |= release_barrier();
    progress |= moved;
  }
  if (n_bits(&Warp::yielded) == 0 && !finished() && grid_->error.ok()) explain_stall();
  return progress;
}

// Returns whether a thread did more than to yield.
bool Block::run_warp(Warp* warp) {
  moved_ = false;
  if (Thread* thread = take_ready(warp)) {
    current_thread = thread;
    grid_->fibers->enter(thread->fiber);
    current_thread = nullptr;
  }
  return moved_;
}

// A lane that can run, with a stack to run on; null if there is none.
Thread* Block::take_ready(Warp* warp) {
  if (warp->ready == 0 && warp->calling != 0 && grid_->error.ok()) match_calls(warp);
  if (warp->ready == 0 || !grid_->error.ok()) return nullptr;
  const int lane = std::countr_zero(warp->ready);
  warp->ready &= warp->ready - 1;
  Thread* thread = warp->lanes + lane;
  if (thread->fiber == nullptr) thread->fiber = grid_->fibers->take();
  if (thread->fiber != nullptr) return thread;
  fail(ErrorCode::kBadLaunch, "no memory is left for its threads' stacks");
  return nullptr;
}

// Called on `fiber`: lanes of a warp take turns without the host's stack between, until none can
// run. Returns when somebody goes on with this fiber, whose thread is then the running one.
void Block::hand_on(Warp* warp, Fiber* fiber) {
  Thread* next = take_ready(warp);
  current_thread = next;
  if (next == nullptr) {
    grid_->fibers->leave(fiber);
  } else if (next->fiber != fiber) {
    grid_->fibers->change(fiber, next->fiber);
  }
}

// Starts for one thread; begins again for another each time it was given back and taken.
void Block::fiber_main() {
  running_thread()->owner->grid_->fibers->arrived();
  for (;;) {
    const KernelCall& call = running_thread()->owner->grid_->call;
    call.run(call.arguments);
    Thread* thread = running_thread();
    thread->owner->exit(thread);
  }
}

void Block::exit(Thread* thread) {
  Warp* warp = &warps_[thread->number / 32];
  warp->exited |= 1u << thread->number % 32;
  moved_ = true;
  Fiber* fiber = thread->fiber;
  thread->fiber = nullptr;
  grid_->fibers->give_back(fiber);
  hand_on(warp, fiber);
}

void Block::wait(Thread* thread, uint32_t Warp::*set, Place where) {
  Warp* warp = &warps_[thread->number / 32];
  thread->waits_at = where;
  warp->*set |= 1u << thread->number % 32;
  moved_ |= set != &Warp::yielded;
  hand_on(warp, thread->fiber);
}

bool Block::release_barrier() {
  const size_t n_waiting = static_cast<size_t>(n_bits(&Warp::at_barrier));
  if (n_waiting < threads_.size()) return false;
  if (find(&Warp::at_barrier, &threads_[0].waits_at) != nullptr) return false;
  for (Warp& warp : warps_) {
    warp.ready = warp.at_barrier;
    warp.at_barrier = 0;
  }
  if (observer() != nullptr) observer()->block_met(*this);
  return true;
}

// No thread can run and none has yielded, so nothing will change any more.
void Block::explain_stall() {
  const Thread* waits = find(&Warp::at_barrier);
  if (waits == nullptr) {
    waits = find(&Warp::calling);
    fail(ErrorCode::kWarpMismatch,
         fmt::format("{} waits at {} for lanes (mask {:08x}) that never come with the same mask: "
                     "all lanes of a mask must call the same function with it",
                     name(*waits), text(waits->waits_at), waits->call.mask));
    return;
  }
  const std::string start =
      fmt::format("{} waits in __syncthreads at {}, ", name(*waits), text(waits->waits_at));
  std::string other;
  if (const Thread* exited = find(&Warp::exited)) {
    other = fmt::format("{} has exited", name(*exited));
  } else if (const Thread* calling = find(&Warp::calling)) {
    other = fmt::format("{} for other lanes at {}", name(*calling), text(calling->waits_at));
  } else {
    const Thread* elsewhere = find(&Warp::at_barrier, &waits->waits_at);
    other = fmt::format("{} in the one at {}", name(*elsewhere), text(elsewhere->waits_at));
  }
  fail(ErrorCode::kDivergentBarrier,
       start + other + ": all threads of a block must reach the same barrier");
}

int Block::n_bits(uint32_t Warp::*set) const {
  int n = 0;
  for (const Warp& warp : warps_) n += std::popcount(warp.*set);
  return n;
}

const Thread* Block::find(uint32_t Warp::*set, const Place* other) const {
  for (const Warp& warp : warps_) {
    for (uint32_t lanes = warp.*set; lanes != 0; lanes &= lanes - 1) {
      const Thread& thread = warp.lanes[std::countr_zero(lanes)];
      const bool same = other != nullptr && thread.waits_at.line == other->line &&
                        std::strcmp(thread.waits_at.file, other->file) == 0;
      if (!same) return &thread;
    }
  }
  return nullptr;
}

void* Block::shared(const SharedVariable& variable) {
  for (const SharedMemory& memory : shared_) {
    if (memory.variable == &variable) return memory.bytes.get();
  }
  shared_.push_back(allocate(&variable, variable.n_bytes));
  const size_t n_bytes =
      std::accumulate(shared_.begin() + 1, shared_.end(), size_t{0},
                      [](size_t n, const SharedMemory& memory) { return n + memory.n_bytes; });
  if (n_bytes > kStaticSharedBytes) {
    fail(ErrorCode::kBadLaunch,
         fmt::format("its SHARED variables take {} bytes, a block has {}: use DYNAMIC_SHARED",
                     n_bytes, kStaticSharedBytes));
  }
  return shared_.back().bytes.get();
}

void Block::fail(ErrorCode code, const std::string& what) {
  if (grid_->error.ok()) grid_->error = {code, fmt::format("{}: {}", name(), what)};
}

std::string Block::name() const {
  const uint3 at = view_.block_index;
  return fmt::format("kernel {}, block ({}, {}, {})", grid_->shape.name, at.x, at.y, at.z);
}

std::string Block::name(const Thread& thread) const {
  const uint3 at = thread.thread_index;
  return fmt::format("thread ({}, {}, {})", at.x, at.y, at.z);
}

void barrier(Place where) {
  Thread* thread = running_thread();
  thread->owner->wait(thread, &Warp::at_barrier, where);
}

void yield() {
  Thread* thread = running_thread();
  thread->owner->wait(thread, &Warp::yielded, {"", 0});
}

void trap(Place where) {
  Thread* thread = running_thread();
  thread->owner->fail(ErrorCode::kTrap,
                      fmt::format("{} trapped at {}", thread->owner->name(*thread), text(where)));
  for (;;) yield();
}

void* shared_memory(const SharedVariable& variable) {
  return running_thread()->owner->shared(variable);
}

void* dynamic_shared() { return running_thread()->owner->dynamic_shared(); }

int64_t now_ns() {
  return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace thermocline::kernels::simt
