// The emulated device, and which device a name means.
#include "gpu_worker/device.h"

#include <charconv>
#include <cstring>
#include <new>
#include <vector>

#include "common/util/memory.h"
#include "fmt/format.h"
#include "kernels/simt/stream.h"

namespace thermocline {
namespace {

struct EmulatedGraph : DeviceGraph {
  std::shared_ptr<const kernels::simt::Graph> work;
};

class EmulatedDevice : public Device {
 public:
  ~EmulatedDevice() override {
    stream_.synchronize();
    for (uint8_t* block : blocks_) ::operator delete(block, std::align_val_t(kAlignment));
  }
  const std::string& name() const override { return name_; }
  std::string description() const override { return "emulated (this machine's CPU, for tests)"; }
  const kernels::DeviceOps& ops() const override { return kernels::emulated_ops(); }
  kernels::DeviceStream* stream() override {
    return reinterpret_cast<kernels::DeviceStream*>(&stream_);
  }
  absl::StatusOr<DeviceMemory> Memory() const override {
    const int64_t free = AvailableMemoryBytes();
    return DeviceMemory{free, free};
  }
  // What a card of today has, so that plans for it look like a card's.
  double gbps() const override { return 1000; }

  absl::StatusOr<uint8_t*> Allocate(int64_t n_bytes) override {
    void* block =
        ::operator new(static_cast<size_t>(n_bytes), std::align_val_t(kAlignment), std::nothrow);
    if (block == nullptr) {
      return absl::ResourceExhaustedError(
          fmt::format("{}: no memory for {} bytes", name_, n_bytes));
    }
    blocks_.push_back(static_cast<uint8_t*>(block));
    return blocks_.back();
  }
  absl::StatusOr<uint8_t*> AllocateHost(int64_t n_bytes) override { return Allocate(n_bytes); }
  void FreeHost(uint8_t* memory) override {
    std::erase(blocks_, memory);
    ::operator delete(memory, std::align_val_t(kAlignment));
  }
  absl::StatusOr<uint8_t*> Register(void* host, int64_t) override {
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
    auto graph = std::make_unique<EmulatedGraph>();
    graph->work = stream_.end_capture();
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
    const kernels::simt::Error reason = device_.error();
    return absl::InternalError(fmt::format(
        "{}: {}: {}", name_, op, reason.ok() ? "a launch of no possible shape" : reason.text));
  }

 private:
  static constexpr size_t kAlignment = 256;
  absl::Status ToStatus(const kernels::simt::Error& error) const {
    if (error.ok()) return absl::OkStatus();
    return absl::InternalError(fmt::format("{}: {}", name_, error.text));
  }

  const std::string name_ = "emulated";
  kernels::simt::Device device_;
  kernels::simt::Stream stream_{&device_};
  std::vector<uint8_t*> blocks_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> OpenDevice(const std::string& name) {
  if (name == "emulated") return std::make_unique<EmulatedDevice>();
  constexpr char kPrefix[] = "cuda:";
  constexpr size_t kPrefixSize = sizeof(kPrefix) - 1;
  if (name.compare(0, kPrefixSize, kPrefix) == 0) {
    int32_t number = 0;
    const char* begin = name.data() + kPrefixSize;
    const auto [end, error] = std::from_chars(begin, name.data() + name.size(), number);
    if (error == std::errc() && end == name.data() + name.size() && number >= 0) {
      return OpenCudaDevice(number);
    }
  }
  return absl::InvalidArgumentError(
      fmt::format("device \"{}\" is neither emulated nor cuda:N", name));
}

}  // namespace thermocline
