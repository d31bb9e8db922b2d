// The emulated device, its options and faults, and which device a name means.
#include "gpu_worker/device.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <functional>
#include <new>
#include <utility>
#include <vector>

#include "common/util/memory.h"
#include "common/util/status_macros.h"
#include "fmt/format.h"
#include "kernels/simt/stream.h"

namespace thermocline {
namespace {

struct EmulatedGraph : DeviceGraph {
  ~EmulatedGraph() override { *taken_bytes -= n_bytes; }
  std::shared_ptr<const kernels::simt::Graph> work;
  int64_t n_bytes = 0;
  int64_t* taken_bytes = nullptr;  // the device's
};

using Fault = EmulatedOptions::Fault;

// Of kernels; what goes wrong at a call of the host's is said there.
kernels::simt::Error ErrorOf(Fault fault) {
  using kernels::simt::ErrorCode;
  if (fault == Fault::kLaunch) return {ErrorCode::kInjected, "a kernel's launch has failed"};
  if (fault == Fault::kMemory)
    return {ErrorCode::kOutOfMemory, "a kernel's launch finds no memory"};
  return {ErrorCode::kLost, "the device is lost"};
}

kernels::simt::DeviceOptions SimtOptions(const EmulatedOptions& options) {
  kernels::simt::DeviceOptions simt;
  simt.sleep_per_kernel_us = options.sleep_us;
  simt.never_skipped = kernels::kExchangeKernel;
  const bool fails = options.fault == Fault::kLaunch || options.fault == Fault::kMemory ||
                     options.fault == Fault::kLost;
  if (!fails) return simt;
  simt.fail_after = options.after;
  simt.fault = ErrorOf(options.fault);
  return simt;
}

class EmulatedDevice : public Device {
 public:
  EmulatedDevice(std::string name, const EmulatedOptions& options)
      : name_(std::move(name)), options_(options), device_(SimtOptions(options)) {}
  ~EmulatedDevice() override {
    stream_.synchronize();
    for (uint8_t* block : blocks_) ::operator delete(block, std::align_val_t(kAlignment));
  }
  const std::string& name() const override { return name_; }
  std::string description() const override {
    if (options_.sleep_us < 0) return fmt::format("{} (this machine's CPU, for tests)", name_);
    return fmt::format("{} (computes nothing, each kernel takes {} us; logits mean nothing)", name_,
                       options_.sleep_us);
  }
  const kernels::DeviceOps& ops() const override { return kernels::emulated_ops(); }
  kernels::DeviceStream* stream() override { return &calls_; }
  // A card of as much memory as the machine had to give.
  absl::StatusOr<DeviceMemory> Memory() const override {
    return DeviceMemory{memory_bytes_ - taken_bytes_, memory_bytes_};
  }
  // What a card of today has, so that plans for it look like a card's.
  double gbps() const override { return 1000; }
  int64_t graph_node_bytes() const override { return kGraphNodeBytes; }
  StepForm step_form() const override { return options_.step_form; }

  absl::StatusOr<uint8_t*> Allocate(int64_t n_bytes) override {
    ASSIGN_OR_RETURN(uint8_t * block, AllocateHost(n_bytes));
    taken_bytes_ += n_bytes;
    return block;
  }
  absl::StatusOr<uint8_t*> AllocateHost(int64_t n_bytes) override {
    const auto size = static_cast<size_t>(n_bytes);
    void* block = FailsAt(Fault::kAllocate)
                      ? nullptr
                      : ::operator new(size, std::align_val_t(kAlignment), std::nothrow);
    if (block == nullptr) return NoMemoryFor(n_bytes);
    if (options_.sleep_us >= 0) std::memset(block, 0, size);
    blocks_.push_back(static_cast<uint8_t*>(block));
    return blocks_.back();
  }
  void FreeHost(uint8_t* memory) override {
    std::erase(blocks_, memory);
    ::operator delete(memory, std::align_val_t(kAlignment));
  }
  absl::StatusOr<uint8_t*> Register(void* host, int64_t n_bytes) override {
    if (FailsAt(Fault::kRegister)) {
      return absl::InternalError(
          fmt::format("{}: {} bytes of the host's memory can't be registered; --transport grpc "
                      "does without",
                      name_, n_bytes));
    }
    return static_cast<uint8_t*>(host);
  }
  absl::Status Upload(void* device, const void* host, int64_t n_bytes) override {
    stream_.copy(device, host, static_cast<size_t>(n_bytes));
    return absl::OkStatus();
  }
  absl::Status Download(void* host, const void* device, int64_t n_bytes) override {
    stream_.copy(host, device, static_cast<size_t>(n_bytes));
    return absl::OkStatus();
  }
  absl::Status Fill(void* device, uint8_t byte, int64_t n_bytes) override {
    stream_.fill(device, byte, static_cast<size_t>(n_bytes));
    return absl::OkStatus();
  }
  absl::Status Gemm(const GemmCall& call) override {
    stream_.call([call] { emulated_gemm(call); });
    return absl::OkStatus();
  }
  absl::Status BeginCapture() override {
    stream_.begin_capture();
    return absl::OkStatus();
  }
  absl::StatusOr<std::unique_ptr<DeviceGraph>> EndCapture() override {
    std::shared_ptr<const kernels::simt::Graph> work = stream_.end_capture();
    const int64_t n_bytes = std::ssize(*work) * options_.graph_node_bytes;
    if (FailsAt(Fault::kAllocate)) return NoMemoryFor(n_bytes);
    auto graph = std::make_unique<EmulatedGraph>();
    graph->work = std::move(work);
    graph->n_bytes = n_bytes;
    graph->taken_bytes = &taken_bytes_;
    taken_bytes_ += n_bytes;
    return graph;
  }
  absl::Status Launch(DeviceGraph* graph) override {
    stream_.launch(static_cast<EmulatedGraph*>(graph)->work);
    return absl::OkStatus();
  }
  absl::StatusOr<bool> IsIdle() override { return stream_.idle(); }
  absl::Status Synchronize() override { return ToStatus(stream_.synchronize()); }
  absl::Status Check(kernels::LaunchError error, const char* op) const override {
    if (error == 0) return absl::OkStatus();
    if (const kernels::simt::Error reason = device_.error(); !reason.ok()) return ToStatus(reason);
    return absl::InternalError(fmt::format("{}: {}: a launch of no possible shape", name_, op));
  }

 private:
  static constexpr size_t kAlignment = 256;
  absl::Status NoMemoryFor(int64_t n_bytes) const {
    return absl::ResourceExhaustedError(fmt::format(
        "{}: no memory for {} bytes; lower --gpu-layers, --vram-budget, --ctx-size or --batch-size",
        name_, n_bytes));
  }
  absl::Status ToStatus(const kernels::simt::Error& error) const {
    if (error.ok()) return absl::OkStatus();
    if (error.code == kernels::simt::ErrorCode::kOutOfMemory) {
      return absl::ResourceExhaustedError(
          fmt::format("{}: {}; lower --gpu-layers, --vram-budget, --ctx-size or --batch-size",
                      name_, error.text));
    }
    return absl::InternalError(
        fmt::format("{}: {}; start the fleet again, or with --gpu-device none if it comes again",
                    name_, error.text));
  }
  // Counts the calls that may meet this fault.
  bool FailsAt(Fault fault) { return options_.fault == fault && n_calls_++ >= options_.after; }

  const std::string name_;
  const EmulatedOptions options_;
  int64_t n_calls_ = 0;  // of FailsAt
  kernels::simt::Device device_;
  kernels::simt::Stream stream_{&device_};
  kernels::DeviceStream calls_ = {&stream_};
  const int64_t memory_bytes_ = AvailableMemoryBytes();
  int64_t taken_bytes_ = 0;  // of the device's memory; graphs count themselves
  std::vector<uint8_t*> blocks_;
};

constexpr char kEmulated[] = "emulated";

bool ReadNumber(const std::string& text, int64_t* number) {
  const char* end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, *number);
  return error == std::errc() && at == end && *number >= 0;
}

template <typename T, size_t kN>
bool ReadWord(const std::string& text, const std::pair<const char*, T> (&words)[kN], T* value) {
  for (const auto& [word, meaning] : words) {
    if (text != word) continue;
    *value = meaning;
    return true;
  }
  return false;
}

constexpr std::pair<const char*, Fault> kFaults[] = {{"launch", Fault::kLaunch},
                                                     {"memory", Fault::kMemory},
                                                     {"lost", Fault::kLost},
                                                     {"allocate", Fault::kAllocate},
                                                     {"register", Fault::kRegister}};
constexpr std::pair<const char*, StepForm> kStepForms[] = {
    {"graph", StepForm::kGraph}, {"resident", StepForm::kResident}, {"faster", StepForm::kFaster}};

// One KEY=VALUE of an emulated device's name.
bool ReadOption(const std::string& key, const std::string& value, EmulatedOptions* options) {
  if (key == "sleep") return ReadNumber(value, &options->sleep_us);
  if (key == "after") return ReadNumber(value, &options->after);
  if (key == "graph") return ReadNumber(value, &options->graph_node_bytes);
  if (key == "step") return ReadWord(value, kStepForms, &options->step_form);
  return key == "fail" && ReadWord(value, kFaults, &options->fault);
}

// Calls `read` with key and value of each option that follows the name's own part.
absl::Status ReadOptions(const std::string& name, size_t own, const char* known,
                         const std::function<bool(const std::string&, const std::string&)>& read) {
  for (size_t begin = own + 1; begin <= name.size();) {
    const size_t end = std::min(name.find(':', begin), name.size());
    const std::string text = name.substr(begin, end - begin);
    const size_t equals = text.find('=');
    if (equals == std::string::npos || !read(text.substr(0, equals), text.substr(equals + 1))) {
      return absl::InvalidArgumentError(
          fmt::format("device \"{}\": \"{}\" is none of {}", name, text, known));
    }
    begin = end + 1;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Device>> OpenEmulated(const std::string& name) {
  EmulatedOptions options;
  RETURN_IF_ERROR(ReadOptions(name, std::strlen(kEmulated),
                              "step=graph|resident|faster, sleep=MICROSECONDS, "
                              "fail=launch|memory|lost|allocate|register, after=N, graph=BYTES",
                              [&](const std::string& key, const std::string& value) {
                                return ReadOption(key, value, &options);
                              }));
  if (options.sleep_us >= 0 && options.step_form != StepForm::kGraph) {
    return absl::InvalidArgumentError(
        fmt::format("device \"{}\": kernels that sleep need step=graph", name));
  }
  return std::make_unique<EmulatedDevice>(name, options);
}

}  // namespace

std::unique_ptr<Device> OpenEmulatedDevice(const EmulatedOptions& options) {
  return std::make_unique<EmulatedDevice>(kEmulated, options);
}

absl::StatusOr<std::unique_ptr<Device>> OpenDevice(const std::string& name) {
  const size_t end = name.rfind("cuda:", 0) == 0 ? name.find(':', 5) : name.find(':');
  const std::string own = name.substr(0, end);
  if (own == kEmulated) return OpenEmulated(name);
  int64_t number = 0;
  if (own.rfind("cuda:", 0) != 0 || !ReadNumber(own.substr(5), &number) || number > 1 << 20) {
    return absl::InvalidArgumentError(
        fmt::format("device \"{}\" is neither emulated nor cuda:N", name));
  }
  StepForm step_form = StepForm::kFaster;
  RETURN_IF_ERROR(ReadOptions(name, own.size(), "step=graph|resident|faster",
                              [&](const std::string& key, const std::string& value) {
                                return key == "step" && ReadWord(value, kStepForms, &step_form);
                              }));
  return OpenCudaDevice(static_cast<int32_t>(number), step_form);
}

}  // namespace thermocline
