// The threads of a worker. They run one body together (SPMD) and meet at barriers; thread 0 is the
// leader, which alone talks to the exchange.
#pragma once

#include <cstdint>
#include <functional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "common/exchange/wait.h"

namespace thermocline {

class Team {
 public:
  // Starts n_threads threads; they sleep between runs. Throws std::system_error when the system has
  // no more threads.
  Team(int32_t n_threads, uint32_t spin_us);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int32_t size() const { return n_threads_; }

  // Binds all threads, and what they touch first from now on, to a NUMA node; -1: nowhere. As
  // BindThreadToNode. Not while a body runs.
  absl::Status BindToNode(int32_t node);

  // Runs body(thread) on all threads and returns when all have ended; the caller sleeps meanwhile.
  // Not from two threads at a time.
  void Run(const std::function<void(int32_t thread)>& body);

  // Inside a body, called by every thread: when all have arrived, the leader runs serial(), then
  // all go on. What any thread wrote before is seen by all after.
  template <typename Serial>
  void Sync(int32_t thread, Serial&& serial) {
    if (thread == 0) {
      AwaitOthers();
      std::forward<Serial>(serial)();
      Release();
    } else {
      ArriveAndWait(thread);
    }
  }
  void Sync(int32_t thread) {
    Sync(thread, [] {});
  }

  // The part of [0, n) that belongs to a thread: contiguous, sizes differing by at most one unit.
  struct Part {
    int64_t begin, end;
  };
  Part PartOf(int64_t n, int32_t thread) const {
    return {n * thread / n_threads_, n * (thread + 1) / n_threads_};
  }

 private:
  void AwaitOthers();
  void Release();
  void ArriveAndWait(int32_t thread);
  void RunLoop(int32_t thread);
  void EndThreads();

  const int32_t n_threads_;
  const uint32_t spin_us_;
  Counter arrived_;               // one for each arrival of a thread that is not the leader
  Counter released_;              // one for each barrier that the leader has ended
  Counter started_;               // one for each Run
  Counter ended_;                 // one for each Run that all threads have ended
  Counter never_;                 // no abort inside a team: the leader always comes back
  uint32_t leader_arrivals_ = 0;  // what arrived_ shows when all are there
  struct alignas(64) Passed {
    uint32_t barriers = 0;
  };
  std::vector<Passed> passed_;  // [n_threads]; each written by its own thread only
  bool ending_ = false;         // written before the last `started_`
  const std::function<void(int32_t)>* body_ = nullptr;
  std::vector<std::thread> threads_;
};

}  // namespace thermocline
