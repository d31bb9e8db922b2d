// Runs a program for a test: its own process group, input, output and errors as text, a time limit,
// and a mark by which what it leaves behind is found.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace thermocline::testing {

struct ChildResult {
  int exit_code = -1;  // 128 + n when signal n ended it, as a shell says
  bool timed_out = false;
  std::string out, err;
};

class Child {
 public:
  // argv[0] is the program's path.
  explicit Child(const std::vector<std::string>& argv);
  ~Child();  // kills the whole group if it still runs

  pid_t pid() const { return pid_; }
  void Signal(int signal) const;       // to the program alone
  void SignalGroup(int signal) const;  // to its whole group, as a terminal's Ctrl-C does
  void Type(const std::string& text) const;
  void CloseInput();

  // True once the text has appeared; false when the program ends first or it takes too long.
  bool WaitForOut(const std::string& text, std::chrono::milliseconds limit);
  bool WaitForErr(const std::string& text, std::chrono::milliseconds limit);
  std::string err();  // so far
  // Closes the input and waits for the end. After the limit the group is killed.
  ChildResult Wait(std::chrono::milliseconds limit);

  // Processes alive that were started by this child or by its children; the child itself, too.
  std::vector<pid_t> Family() const;

 private:
  struct Stream {
    int fd = -1;
    std::string text;
    bool at_end = false;
    std::thread reader;
  };
  void Read(Stream* stream);
  bool WaitFor(Stream* stream, const std::string& text, std::chrono::milliseconds limit);

  std::string mark_;  // in the environment of the child and of all that it starts
  pid_t pid_ = -1;
  int in_fd_ = -1;
  bool reaped_ = false;
  std::mutex mutex_;
  std::condition_variable changed_;
  Stream out_, err_;
};

ChildResult RunChild(const std::vector<std::string>& argv,
                     std::chrono::milliseconds limit = std::chrono::seconds(60));

}  // namespace thermocline::testing
