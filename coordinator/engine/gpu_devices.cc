// Runs gpu_worker --list-devices, reads its answer, chooses.
#include "coordinator/engine/gpu_devices.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/util/status_macros.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

extern char** environ;

namespace thermocline {
namespace {

// All that `binary --list-devices` writes to its standard output.
absl::StatusOr<std::string> AskWorker(const std::string& binary) {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) {
    return absl::ResourceExhaustedError(fmt::format("no pipe: {}", std::strerror(errno)));
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, fds[1], STDOUT_FILENO);
  std::string program = binary;
  char flag[] = "--list-devices";
  char* argv[] = {program.data(), flag, nullptr};
  pid_t pid = -1;
  const int error = posix_spawn(&pid, binary.c_str(), &actions, nullptr, argv, environ);
  posix_spawn_file_actions_destroy(&actions);
  close(fds[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t n = 1; error == 0 && n > 0;) {
    n = read(fds[0], buffer, sizeof(buffer));
    if (n > 0) text.append(buffer, n);
    if (n < 0 && errno == EINTR) n = 1;
  }
  close(fds[0]);
  if (error != 0) {
    return absl::NotFoundError(fmt::format("can't start {}: {}", binary, std::strerror(error)));
  }
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    return absl::InternalError(fmt::format("{} --list-devices failed", binary));
  }
  return text;
}

absl::StatusOr<GpuDevices> ParseDevices(const std::string& binary, const std::string& text) {
  using Json = nlohmann::json;
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  const auto is_device = [](const Json& entry) {
    return entry.is_object() && entry.contains("name") && entry["name"].is_string() &&
           entry.contains("description") && entry["description"].is_string() &&
           entry.contains("free_bytes") && entry["free_bytes"].is_number_integer() &&
           entry.contains("total_bytes") && entry["total_bytes"].is_number_integer() &&
           entry.contains("gbps") && entry["gbps"].is_number() &&
           entry.contains("graph_node_bytes") && entry["graph_node_bytes"].is_number_integer();
  };
  const bool is_list = json.is_object() && json.contains("devices") && json["devices"].is_array() &&
                       json.contains("no_more") && json["no_more"].is_string() &&
                       std::all_of(json["devices"].begin(), json["devices"].end(), is_device);
  if (!is_list) {
    return absl::InternalError(
        fmt::format("{} --list-devices answers with what is no list of devices; build both "
                    "programs from the same source",
                    binary));
  }
  GpuDevices found;
  for (const Json& entry : json["devices"]) {
    found.devices.push_back({entry["name"], entry["description"], entry["free_bytes"],
                             entry["total_bytes"], entry["gbps"], entry["graph_node_bytes"]});
  }
  found.reason = json["no_more"];
  return found;
}

bool IsEmulated(const std::string& name) {
  return name == "emulated" || absl::StartsWith(name, "emulated:");
}

// "emulated", "cuda:0", and llama.cpp's "CUDA0", with options; "" for what is no name.
std::string DeviceName(const std::string& text) {
  const std::string name = absl::AsciiStrToLower(text);
  if (IsEmulated(name)) return name;
  if (!absl::StartsWith(name, "cuda")) return "";
  const std::string rest = name.substr(name.size() > 4 && name[4] == ':' ? 5 : 4);
  const std::string number = rest.substr(0, rest.find(':'));
  const bool is_number =
      !number.empty() && number.find_first_not_of("0123456789") == std::string::npos;
  return is_number ? "cuda:" + rest : "";
}

// Without options, as devices are listed.
std::string ListedName(const std::string& name) {
  if (IsEmulated(name)) return "emulated";
  return name.substr(0, name.find(':', std::strlen("cuda:")));
}

}  // namespace

absl::StatusOr<std::string> ProgramBeside(const std::string& name) {
  char path[4096];
  const ssize_t n = readlink("/proc/self/exe", path, sizeof(path));
  if (n <= 0 || n == sizeof(path)) return absl::InternalError("can't tell where this program lies");
  const std::string self(path, n);
  return self.substr(0, self.find_last_of('/') + 1) + name;
}

absl::StatusOr<GpuDevices> ListGpuDevices(const std::string& worker_binary) {
  std::string binary = worker_binary;
  if (binary.empty()) {
    ASSIGN_OR_RETURN(binary, ProgramBeside("gpu_worker"));
  }
  ASSIGN_OR_RETURN(const std::string text, AskWorker(binary));
  return ParseDevices(binary, text);
}

absl::StatusOr<GpuDevices> ChooseGpuDevices(const std::string& choice,
                                            const std::string& worker_binary) {
  GpuDevices chosen;
  if (choice == "none") return chosen;
  std::vector<std::string> names;
  for (const absl::string_view part : absl::StrSplit(choice, ',')) {
    if (choice == "auto") break;
    names.push_back(DeviceName(std::string(part)));
    if (!names.back().empty()) continue;
    return absl::InvalidArgumentError(
        fmt::format("--gpu-device: '{}' is no device; give auto, none, or a list of cuda:N and "
                    "emulated",
                    std::string(part)));
  }
  const absl::StatusOr<GpuDevices> found = ListGpuDevices(worker_binary);
  if (choice == "auto") {
    if (!found.ok()) return GpuDevices{{}, std::string(found.status().message())};
    chosen.reason = found->reason;
    for (const GpuDevice& device : found->devices) {
      if (device.name != "emulated") chosen.devices.push_back(device);
    }
    return chosen;
  }
  RETURN_IF_ERROR(found.status());
  for (const std::string& name : names) {
    const std::string listed = ListedName(name);
    const auto device = std::find_if(found->devices.begin(), found->devices.end(),
                                     [&](const GpuDevice& d) { return d.name == listed; });
    if (device == found->devices.end()) {
      return absl::NotFoundError(fmt::format(
          "--gpu-device {}: {}; there are: {}", name, found->reason,
          absl::StrJoin(found->devices, ", ",
                        [](std::string* out, const GpuDevice& d) { out->append(d.name); })));
    }
    chosen.devices.push_back(*device);
    chosen.devices.back().name = name;
  }
  return chosen;
}

}  // namespace thermocline
