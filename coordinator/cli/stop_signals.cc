// Signal handlers and the atomics and the pipe that they touch.
#include "coordinator/cli/stop_signals.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "common/util/check.h"

namespace thermocline {
namespace {

std::atomic<bool> g_stop{false};
std::atomic<int> g_interrupts{0};
std::atomic<int> g_termination{0};
int g_pipe[2] = {-1, -1};
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int>::is_always_lock_free,
              "a signal handler may touch lock-free atomics only");

void OnSignal(int signal) {
  const int saved_errno = errno;
  if (signal == SIGINT) {
    g_interrupts.fetch_add(1);
  } else {
    g_termination.store(signal);
  }
  g_stop.store(true);
  const char byte = 0;
  [[maybe_unused]] const ssize_t written = write(g_pipe[1], &byte, 1);  // a full pipe wakes, too
  errno = saved_errno;
}

void DrainPipe() {
  char bytes[64];
  while (read(g_pipe[0], bytes, sizeof bytes) > 0) {
  }
}

}  // namespace

void StopSignals::Install() {
  THERMOCLINE_CHECK(pipe2(g_pipe, O_CLOEXEC | O_NONBLOCK) == 0);
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  sigemptyset(&action.sa_mask);
  for (int signal : {SIGINT, SIGTERM}) sigaction(signal, &action, nullptr);
  struct sigaction hangup = {};
  sigaction(SIGHUP, nullptr, &hangup);
  if (hangup.sa_handler != SIG_IGN) sigaction(SIGHUP, &action, nullptr);  // nohup is honoured
  action.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &action, nullptr);
}

const std::atomic<bool>& StopSignals::stop() { return g_stop; }

int StopSignals::interrupts() { return g_interrupts.load(); }

int StopSignals::termination() { return g_termination.load(); }

void StopSignals::ClearInterrupts() {
  DrainPipe();
  g_interrupts.store(0);
  g_stop.store(false);
  if (g_termination.load() != 0) g_stop.store(true);  // in this order no SIGTERM is lost
}

int StopSignals::wake_fd() { return g_pipe[0]; }

bool StopSignals::WaitFor(std::chrono::milliseconds limit) {
  pollfd wake = {.fd = g_pipe[0], .events = POLLIN, .revents = 0};
  if (!g_stop.load()) poll(&wake, 1, static_cast<int>(limit.count()));
  return g_stop.load();
}

int StopSignals::ExitCode() {
  if (g_termination.load() != 0) return 128 + g_termination.load();
  return g_interrupts.load() > 0 ? 128 + SIGINT : 0;
}

}  // namespace thermocline
