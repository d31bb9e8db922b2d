// One worker process on this host: started with what it inherits, watched, ended. What is said to
// it over gRPC is worker_handle.h.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"

namespace thermocline {

class WorkerProcess {
 public:
  // Starts `binary`. It inherits one end of a socket for gRPC, one of a lifeline (when that closes,
  // however we end, the worker ends) and the segment; nothing else but the standard streams.
  // NotFound when there is no such program.
  static absl::StatusOr<std::unique_ptr<WorkerProcess>> Spawn(const std::string& binary,
                                                              int segment_fd);
  // Closes the lifeline, waits a moment, and kills what still runs. Reaps the process.
  ~WorkerProcess();
  WorkerProcess(const WorkerProcess&) = delete;
  WorkerProcess& operator=(const WorkerProcess&) = delete;

  pid_t pid() const { return pid_; }
  int pidfd() const { return pidfd_; }  // readable when the process has ended
  int TakeControlFd();                  // our end of the gRPC socket; the caller owns it
  void Hangup();                        // asks the worker to end, by closing the lifeline
  bool HasEnded(int timeout_ms) const;  // waits that long for it
  // "was killed by signal 9", "exited with code 1: " and its own last words; only after the process
  // has ended. Reaps it. From any thread.
  std::string DescribeEnd();

 private:
  WorkerProcess() = default;
  std::string LastWords() const;  // that it left in the lifeline
  pid_t pid_ = -1;
  int pidfd_ = -1, lifeline_fd_ = -1, control_fd_ = -1;
  std::mutex mutex_;  // of what follows
  bool is_reaped_ = false;
  std::string end_;
};

// Watches processes from a thread of its own and calls on_end once for each that ends.
class Supervisor {
 public:
  using OnEnd = std::function<void(int32_t index)>;
  // For what can't be watched by a process: called twice a second. May be null.
  using Look = std::function<void()>;
  // Processes (null entries are skipped) must outlive it; index is the position in the list.
  Supervisor(std::vector<const WorkerProcess*> processes, OnEnd on_end, Look look);
  ~Supervisor();  // stops watching; no call runs after it

 private:
  void Watch();
  std::vector<const WorkerProcess*> processes_;
  OnEnd on_end_;
  Look look_;
  int stop_fd_;
  std::thread thread_;
};

}  // namespace thermocline
