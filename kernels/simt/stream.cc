// The thread behind each emulated stream, and events between them.
#include "kernels/simt/stream.h"

#include <fmt/format.h>

#include <cstring>
#include <utility>

namespace thermocline::kernels::simt {

Error Device::error() const {
  std::lock_guard lock(mutex_);
  return error_;
}

void Device::fail(const Error& error) {
  std::lock_guard lock(mutex_);
  if (error_.ok()) error_ = error;
  failed_ = true;
}

bool Device::begin_kernel() {
  if (options_.fail_after < 0 || n_kernels_++ < options_.fail_after) return true;
  fail(options_.fault);
  return false;
}

Stream::Stream(Device* device) : device_(device), thread_([this] { work(); }) {}

Stream::~Stream() {
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Stream::enqueue(std::function<void()> function, bool always) {
  if (being_captured_ != nullptr) {
    being_captured_->push_back({std::move(function), always});
    return;
  }
  {
    std::lock_guard lock(mutex_);
    queue_.push_back({std::move(function), always});
  }
  changed_.notify_all();
}

void Stream::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    if (queue_.empty()) slept_until_ = {};
    changed_.wait(lock, [this] { return closing_ || !queue_.empty(); });
    if (queue_.empty()) return;
    const Operation& operation = queue_.front();  // a deque's front stays when its end grows
    lock.unlock();
    if (operation.always || !*device_->failed()) operation.run();
    lock.lock();
    queue_.pop_front();
    changed_.notify_all();
  }
}

Error Stream::synchronize() {
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return queue_.empty(); });
  }
  return device_->error();
}

bool Stream::idle() const {
  std::lock_guard lock(mutex_);
  return queue_.empty();
}

void Stream::copy(void* to, const void* from, size_t n_bytes) {
  enqueue([=] { std::memcpy(to, from, n_bytes); });
}

void Stream::fill(void* to, uint8_t byte, size_t n_bytes) {
  enqueue([=] { std::memset(to, byte, n_bytes); });
}

void Stream::begin_capture() { being_captured_ = std::make_shared<Graph>(); }

std::shared_ptr<const Graph> Stream::end_capture() { return std::move(being_captured_); }

void Stream::launch(std::shared_ptr<const Graph> graph) {
  enqueue([this, graph = std::move(graph)] {
    for (const Operation& operation : *graph) {
      if (operation.always || !*device_->failed()) operation.run();
    }
  });
}

void Stream::call(std::function<void()> function) {
  enqueue([this, function = std::move(function)] {
    if (!device_->begin_kernel()) return;
    if (device_->options().sleep_per_kernel_us >= 0) return sleep();
    function();
  });
}

void Stream::wait_value(const uint32_t* address, uint32_t value) {
  enqueue([=, this] {
    std::atomic_ref<uint32_t> now(*const_cast<uint32_t*>(address));
    Patience patience(device_->options().stall_deadline_us);
    slept_until_ = {};
    while (static_cast<int32_t>(now.load() - value) < 0 && !*device_->failed()) {
      if (patience.wait()) continue;
      device_->fail({ErrorCode::kStalled,
                     fmt::format("a stream has waited for value {} for {} ms, it is {}: whoever "
                                 "writes it is gone or late",
                                 value, device_->options().stall_deadline_us / 1000, now.load())});
    }
  });
}

void Stream::write_value(uint32_t* address, uint32_t value) {
  enqueue([=] { std::atomic_ref<uint32_t>(*address).store(value); });
}

void Stream::record(Event* event) {
  const std::shared_ptr<Event::State> state = event->state_;
  {
    std::lock_guard lock(state->mutex);
    ++state->n_recorded;
  }
  enqueue(
      [state] {
        std::lock_guard lock(state->mutex);
        ++state->n_happened;
        state->time = std::chrono::steady_clock::now();
        state->changed.notify_all();
      },
      true);
}

void Stream::wait(const Event& event) {
  const std::shared_ptr<Event::State> state = event.state_;
  std::lock_guard lock(state->mutex);
  enqueue([state, n = state->n_recorded] {
    std::unique_lock lock(state->mutex);
    state->changed.wait(lock, [&] { return state->n_happened >= n; });
  });
}

void Stream::run_kernel(const LaunchShape& shape, const KernelCall& call) {
  if (!device_->begin_kernel()) return;
  const DeviceOptions& options = device_->options();
  if (options.sleep_per_kernel_us >= 0 && options.never_skipped != shape.name) return sleep();
  slept_until_ = {};
  const Error error = grids_.run(shape, call, options.stall_deadline_us, device_->failed());
  if (!error.ok()) device_->fail(error);
}

void Stream::sleep() {
  using Clock = std::chrono::steady_clock;
  if (slept_until_ == Clock::time_point()) slept_until_ = Clock::now();
  slept_until_ += std::chrono::microseconds(device_->options().sleep_per_kernel_us);
  std::this_thread::sleep_until(slept_until_);
}

ErrorCode launch_call(Stream* stream, const LaunchShape& shape, const KernelCall& call) {
  if (*stream->device()->failed()) return stream->device()->error().code;
  const Error error = check_shape(shape);
  if (!error.ok()) {
    stream->device()->fail(error);
    return error.code;
  }
  // new aligns to 16 bytes, as arguments may need.
  const std::shared_ptr<unsigned char[]> copy(new unsigned char[call.n_bytes]);
  std::memcpy(copy.get(), call.arguments, call.n_bytes);
  stream->enqueue([stream, shape, copy, run = call.run, n_bytes = call.n_bytes] {
    stream->run_kernel(shape, {run, copy.get(), n_bytes});
  });
  return ErrorCode::kOk;
}

void Event::synchronize() const {
  std::unique_lock lock(state_->mutex);
  const int64_t n = state_->n_recorded;
  state_->changed.wait(lock, [&] { return state_->n_happened >= n; });
}

bool Event::happened() const {
  std::lock_guard lock(state_->mutex);
  return state_->n_happened >= state_->n_recorded;
}

int64_t Event::elapsed_us(const Event& from, const Event& to) {
  std::scoped_lock lock(from.state_->mutex, to.state_->mutex);
  return std::chrono::duration_cast<std::chrono::microseconds>(to.state_->time - from.state_->time)
      .count();
}

}  // namespace thermocline::kernels::simt
