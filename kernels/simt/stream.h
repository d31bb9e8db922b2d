// The emulated device: its error that stays, its streams and events, with CUDA's order of things. A
// stream is a host thread that does one thing after another. No memory of its own: the device
// computes on the host's (new, malloc: AddressSanitizer then knows the bounds).
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "kernels/simt/error.h"
#include "kernels/simt/grid.h"
#include "kernels/simt/launch.h"

namespace thermocline::kernels::simt {

struct DeviceOptions {
  // How long a kernel may do nothing but yield, or a stream wait for a value.
  int64_t stall_deadline_us = 60'000'000;
  // 0 or above: kernels and calls are not run; each takes this long instead, asleep. A thread is
  // woken late; the next one is shorter by that, unless the stream has done something else between.
  int64_t sleep_per_kernel_us = -1;
  // The name of a kernel that is run all the same, since others wait for what it does.
  std::string never_skipped = "";
  // 0 or above: after so many kernels the next one is not run, the device fails with `fault`.
  int64_t fail_after = -1;
  Error fault = {};
};

// The first error of any of its streams stays, as a CUDA context's does: from then on launches are
// refused and what streams still hold is passed over.
class Device {
 public:
  explicit Device(const DeviceOptions& options = {}) : options_(options) {}

  const DeviceOptions& options() const { return options_; }
  Error error() const;
  // Keeps the error, if it is the first; a running kernel stops where it yields. Tests inject
  // faults with it.
  void fail(const Error& error);
  const std::atomic<bool>* failed() const { return &failed_; }
  // A stream is about to do a kernel. False when the device fails instead, as its options say.
  bool begin_kernel();

 private:
  const DeviceOptions options_;
  mutable std::mutex mutex_;
  Error error_;
  std::atomic<bool> failed_ = false;
  std::atomic<int64_t> n_kernels_ = 0;
};

class Event;

// Work of a stream.
struct Operation {
  std::function<void()> run;
  bool always;  // also after the device has failed
};
using Graph = std::vector<Operation>;

// Calls return at once; what they ask for happens in their order. One host thread calls at a time.
class Stream {
 public:
  explicit Stream(Device* device);  // the device must outlive it
  ~Stream();                        // waits for its work
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  Device* device() { return device_; }

  void copy(void* to, const void* from, size_t n_bytes);
  void fill(void* to, uint8_t byte, size_t n_bytes);
  // A kernel that is no grid of ours. Not called once the device has failed.
  void call(std::function<void()> function);
  // Until *address - value, taken as signed, is 0 or more: cuStreamWaitValue32 with GEQ.
  void wait_value(const uint32_t* address, uint32_t value);
  // After all writes before it: cuStreamWriteValue32.
  void write_value(uint32_t* address, uint32_t value);
  // Between the two, calls are kept instead of done: a graph, which launch() does as often as it is
  // called. As in a CUDA graph, the arguments are those of the capture.
  void begin_capture();
  std::shared_ptr<const Graph> end_capture();
  void launch(std::shared_ptr<const Graph> graph);
  void record(Event* event);
  // For the event's last record before this call; nothing if there is none.
  void wait(const Event& event);

  // Until all of it has happened. The device's error.
  Error synchronize();
  // Whether all of it has happened.
  bool idle() const;

 private:
  friend ErrorCode launch_call(Stream*, const LaunchShape&, const KernelCall&);
  void enqueue(std::function<void()> function, bool always = false);
  void run_kernel(const LaunchShape& shape, const KernelCall& call);
  void sleep();  // instead of a kernel
  void work();

  Device* const device_;
  GridRunner grids_;                                   // used by thread_ alone
  std::chrono::steady_clock::time_point slept_until_;  // the same; 0: it was not asleep before
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Operation> queue_;            // the first one is being done
  std::shared_ptr<Graph> being_captured_;  // used by the calling thread alone
  bool closing_ = false;
  std::thread thread_;
};

// A point in a stream that others wait for. Copies are the same event.
class Event {
 public:
  Event() : state_(std::make_shared<State>()) {}

  // Until the last record before this call has happened.
  void synchronize() const;
  bool happened() const;
  // From one event's last moment to another's; both have happened.
  static int64_t elapsed_us(const Event& from, const Event& to);

 private:
  friend class Stream;
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    int64_t n_recorded = 0, n_happened = 0;
    std::chrono::steady_clock::time_point time;
  };
  std::shared_ptr<State> state_;
};

}  // namespace thermocline::kernels::simt
