// posix_spawn, pidfds and poll.
#include "coordinator/engine/worker_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "common/util/check.h"
#include "fmt/format.h"

extern char** environ;

namespace thermocline {
namespace {

// Where a spawned worker finds what it inherits.
constexpr int kControlFd = 3, kLifelineFd = 4, kSegmentFd = 5, kFirstFree = 6;
constexpr int kEndTimeoutMs = 3000;
constexpr int kLookMs = 500;

// A socket pair whose ends are both above the numbers that a worker's descriptors get.
absl::StatusOr<std::array<int, 2>> SocketPair() {
  std::array<int, 2> low, high;
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, low.data()) != 0) {
    return absl::ResourceExhaustedError(
        fmt::format("no socket for a worker: {}", std::strerror(errno)));
  }
  for (int i = 0; i < 2; ++i) {
    high[i] = fcntl(low[i], F_DUPFD_CLOEXEC, kFirstFree);
    close(low[i]);
  }
  if (high[0] < 0 || high[1] < 0) {
    for (const int fd : high) {
      if (fd >= 0) close(fd);
    }
    return absl::ResourceExhaustedError(
        fmt::format("no descriptor for a worker: {}", std::strerror(errno)));
  }
  return high;
}

absl::StatusOr<pid_t> SpawnWith(const std::string& binary, int control_fd, int lifeline_fd,
                                int segment_fd) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, control_fd, kControlFd);
  posix_spawn_file_actions_adddup2(&actions, lifeline_fd, kLifelineFd);
  posix_spawn_file_actions_adddup2(&actions, segment_fd, kSegmentFd);
  posix_spawn_file_actions_addclosefrom_np(&actions, kFirstFree);
  const std::string control = fmt::format("--control-fd={}", kControlFd);
  const std::string lifeline = fmt::format("--lifeline-fd={}", kLifelineFd);
  const std::string segment = fmt::format("--segment-fd={}", kSegmentFd);
  std::string program = binary;
  char* argv[] = {program.data(), const_cast<char*>(control.c_str()),
                  const_cast<char*>(lifeline.c_str()), const_cast<char*>(segment.c_str()), nullptr};
  pid_t pid = -1;
  const int error = posix_spawn(&pid, binary.c_str(), &actions, nullptr, argv, environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    return absl::NotFoundError(
        fmt::format("can't start the worker {}: {}", binary, std::strerror(error)));
  }
  return pid;
}

}  // namespace

absl::StatusOr<std::unique_ptr<WorkerProcess>> WorkerProcess::Spawn(const std::string& binary,
                                                                    int segment_fd) {
  auto control = SocketPair();
  if (!control.ok()) return control.status();
  auto lifeline = SocketPair();
  if (!lifeline.ok()) {
    for (const int fd : *control) close(fd);
    return lifeline.status();
  }
  std::unique_ptr<WorkerProcess> process(new WorkerProcess());
  process->control_fd_ = (*control)[0];
  process->lifeline_fd_ = (*lifeline)[0];
  const int high_segment_fd = fcntl(segment_fd, F_DUPFD_CLOEXEC, kFirstFree);
  absl::StatusOr<pid_t> pid = SpawnWith(binary, (*control)[1], (*lifeline)[1], high_segment_fd);
  close((*control)[1]);
  close((*lifeline)[1]);
  if (high_segment_fd >= 0) close(high_segment_fd);
  if (!pid.ok()) return pid.status();
  process->pid_ = *pid;
  process->pidfd_ = static_cast<int>(syscall(SYS_pidfd_open, process->pid_, 0));
  if (process->pidfd_ < 0) {
    return absl::UnavailableError(fmt::format("can't watch a worker: {}", std::strerror(errno)));
  }
  return process;
}

WorkerProcess::~WorkerProcess() {
  Hangup();
  if (pid_ > 0) {
    if (pidfd_ < 0 || !HasEnded(kEndTimeoutMs)) kill(pid_, SIGKILL);
    DescribeEnd();
  }
  if (pidfd_ >= 0) close(pidfd_);
  if (control_fd_ >= 0) close(control_fd_);
}

int WorkerProcess::TakeControlFd() { return std::exchange(control_fd_, -1); }

void WorkerProcess::Hangup() {
  if (lifeline_fd_ >= 0) close(std::exchange(lifeline_fd_, -1));
}

bool WorkerProcess::HasEnded(int timeout_ms) const {
  pollfd poll_fd = {pidfd_, POLLIN, 0};
  return poll(&poll_fd, 1, timeout_ms) > 0;
}

std::string WorkerProcess::LastWords() const {
  char words[2048];
  const ssize_t n = recv(lifeline_fd_, words, sizeof(words), MSG_DONTWAIT);
  return n > 0 ? std::string(words, n) : "";
}

std::string WorkerProcess::DescribeEnd() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (is_reaped_) return end_;
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  is_reaped_ = true;
  if (!WIFSIGNALED(status)) {
    const std::string words = LastWords();
    end_ = fmt::format("exited with code {}{}{}", WEXITSTATUS(status), words.empty() ? "" : ": ",
                       words);
  } else {
    end_ = fmt::format("was killed by signal {}{}", WTERMSIG(status),
                       WTERMSIG(status) == SIGKILL ? " (out of memory?)" : "");
  }
  return end_;
}

Supervisor::Supervisor(std::vector<const WorkerProcess*> processes, OnEnd on_end, Look look)
    : processes_(std::move(processes)),
      on_end_(std::move(on_end)),
      look_(std::move(look)),
      stop_fd_(eventfd(0, EFD_CLOEXEC)) {
  THERMOCLINE_CHECK(stop_fd_ >= 0);
  thread_ = std::thread([this] { Watch(); });
}

Supervisor::~Supervisor() {
  const uint64_t one = 1;
  THERMOCLINE_CHECK(write(stop_fd_, &one, sizeof(one)) == sizeof(one));
  thread_.join();
  close(stop_fd_);
}

void Supervisor::Watch() {
  std::vector<pollfd> fds = {{stop_fd_, POLLIN, 0}};
  for (const WorkerProcess* process : processes_) {
    fds.push_back({process == nullptr ? -1 : process->pidfd(), POLLIN, 0});
  }
  for (;;) {
    const int n_ready = poll(fds.data(), fds.size(), look_ ? kLookMs : -1);
    if (n_ready < 0 && errno == EINTR) continue;  // revents are those of the call before
    if (n_ready < 0 || fds[0].revents != 0) return;
    if (look_) look_();
    for (size_t i = 1; i < fds.size(); ++i) {
      if (fds[i].fd < 0 || fds[i].revents == 0) continue;
      fds[i].fd = -1;  // ended once; poll skips it from now on
      on_end_(static_cast<int32_t>(i - 1));
    }
  }
}

}  // namespace thermocline
