// See subprocess.h.
#include "tests/testing/subprocess.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "common/util/check.h"

extern char** environ;

namespace thermocline::testing {
namespace {

std::string NewMark() {
  static std::atomic<int> n = 0;
  return fmt::format("THERMOCLINE_TEST_MARK={}.{}", getpid(), n++);
}

std::vector<char*> Pointers(std::vector<std::string>& words) {
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  return pointers;
}

int ExitCode(int wait_status) {
  return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

// A process may end while its files in /proc are read; an iterator would throw then.
std::string ReadAll(const std::ifstream& file) {
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

bool IsZombie(const std::filesystem::path& process) {
  std::ifstream file(process / "stat");
  const std::string stat = ReadAll(file);
  const size_t name_end = stat.rfind(')');
  return name_end != std::string::npos && stat.compare(name_end, 4, ") Z ") == 0;
}

}  // namespace

Child::Child(const std::vector<std::string>& argv) : mark_(NewMark()) {
  int in[2], out[2], err[2];
  THERMOCLINE_CHECK(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0 &&
                    pipe2(err, O_CLOEXEC) == 0);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, err[1], STDERR_FILENO);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  std::vector<std::string> words = argv;
  std::vector<std::string> environment = {mark_};
  for (char** entry = environ; *entry != nullptr; ++entry) environment.emplace_back(*entry);
  const int error = posix_spawn(&pid_, argv[0].c_str(), &actions, &attributes,
                                Pointers(words).data(), Pointers(environment).data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  for (int fd : {in[0], out[1], err[1]}) close(fd);
  THERMOCLINE_CHECK(error == 0);
  in_fd_ = in[1];
  out_.fd = out[0];
  err_.fd = err[0];
  out_.reader = std::thread([this] { Read(&out_); });
  err_.reader = std::thread([this] { Read(&err_); });
}

Child::~Child() {
  if (!reaped_) Wait(std::chrono::milliseconds(0));
  for (pid_t pid : Family()) kill(pid, SIGKILL);  // else they would hold the pipes open
  for (Stream* stream : {&out_, &err_}) {
    stream->reader.join();
    close(stream->fd);
  }
}

void Child::Read(Stream* stream) {
  char bytes[4096];
  ssize_t n;
  while ((n = read(stream->fd, bytes, sizeof bytes)) > 0) {
    std::lock_guard lock(mutex_);
    stream->text.append(bytes, static_cast<size_t>(n));
    changed_.notify_all();
  }
  std::lock_guard lock(mutex_);
  stream->at_end = true;
  changed_.notify_all();
}

void Child::Signal(int signal) const { kill(pid_, signal); }

void Child::SignalGroup(int signal) const { kill(-pid_, signal); }

void Child::Type(const std::string& text) const {
  THERMOCLINE_CHECK(write(in_fd_, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
}

void Child::CloseInput() {
  if (in_fd_ >= 0) close(in_fd_);
  in_fd_ = -1;
}

bool Child::WaitFor(Stream* stream, const std::string& text, std::chrono::milliseconds limit) {
  std::unique_lock lock(mutex_);
  const auto found = [&] { return stream->text.find(text) != std::string::npos; };
  changed_.wait_for(lock, limit, [&] { return found() || stream->at_end; });
  return found();
}

bool Child::WaitForOut(const std::string& text, std::chrono::milliseconds limit) {
  return WaitFor(&out_, text, limit);
}

bool Child::WaitForErr(const std::string& text, std::chrono::milliseconds limit) {
  return WaitFor(&err_, text, limit);
}

std::string Child::err() {
  std::lock_guard lock(mutex_);
  return err_.text;
}

ChildResult Child::Wait(std::chrono::milliseconds limit) {
  CloseInput();
  ChildResult result;
  const auto deadline = std::chrono::steady_clock::now() + limit;
  int status = 0;
  while (waitpid(pid_, &status, WNOHANG) == 0) {
    if (std::chrono::steady_clock::now() >= deadline) {
      result.timed_out = true;
      kill(-pid_, SIGKILL);
      for (pid_t pid : Family()) kill(pid, SIGKILL);
      waitpid(pid_, &status, 0);
      break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  reaped_ = true;
  result.exit_code = ExitCode(status);
  // Whoever still holds the pipes is a process left behind; the text must not wait for it for ever.
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::seconds(5), [&] { return out_.at_end && err_.at_end; });
  result.out = out_.text;
  result.err = err_.text;
  return result;
}

std::vector<pid_t> Child::Family() const {
  std::vector<pid_t> pids;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos || IsZombie(entry)) continue;
    std::ifstream file(entry.path() / "environ", std::ios::binary);
    const std::string variables = ReadAll(file);
    if (variables.find(mark_ + '\0') != std::string::npos) pids.push_back(std::stoi(name));
  }
  return pids;
}

ChildResult RunChild(const std::vector<std::string>& argv, std::chrono::milliseconds limit) {
  return Child(argv).Wait(limit);
}

}  // namespace thermocline::testing
