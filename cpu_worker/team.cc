// Barriers of two counters: arrivals up to the leader, releases down from it.
#include "cpu_worker/team.h"

#include <system_error>

#include "common/util/check.h"
#include "common/util/status_macros.h"
#include "common/util/topology.h"

namespace thermocline {

Team::Team(int32_t n_threads, uint32_t spin_us)
    : n_threads_(n_threads), spin_us_(spin_us), passed_(n_threads) {
  THERMOCLINE_CHECK(n_threads >= 1);
  try {
    for (int32_t thread = 0; thread < n_threads; ++thread) {
      threads_.emplace_back([this, thread] { RunLoop(thread); });
    }
  } catch (const std::system_error&) {
    EndThreads();
    throw;
  }
}

Team::~Team() { EndThreads(); }

void Team::EndThreads() {
  ending_ = true;
  Advance(started_);
  for (std::thread& thread : threads_) thread.join();
}

void Team::Run(const std::function<void(int32_t)>& body) {
  body_ = &body;
  const uint32_t run = ended_.value.load() + 1;
  Advance(started_);
  WaitFor(ended_, run, never_, /*spin_us=*/0, -1);
}

absl::Status Team::BindToNode(int32_t node) {
  if (node < 0) return absl::OkStatus();
  std::vector<absl::Status> results(n_threads_);
  Run([&](int32_t thread) { results[thread] = BindThreadToNode(node); });
  for (const absl::Status& result : results) RETURN_IF_ERROR(result);
  return absl::OkStatus();
}

void Team::RunLoop(int32_t thread) {
  for (uint32_t run = 1;; ++run) {
    WaitFor(started_, run, never_, /*spin_us=*/0, -1);
    if (ending_) return;
    (*body_)(thread);
    Sync(thread, [this] { Advance(ended_); });
  }
}

void Team::AwaitOthers() {
  leader_arrivals_ += static_cast<uint32_t>(n_threads_ - 1);
  WaitFor(arrived_, leader_arrivals_, never_, spin_us_, -1);
}

void Team::Release() { Advance(released_); }

void Team::ArriveAndWait(int32_t thread) {
  const uint32_t barrier = ++passed_[thread].barriers;
  Advance(arrived_);
  WaitFor(released_, barrier, never_, spin_us_, -1);
}

}  // namespace thermocline
