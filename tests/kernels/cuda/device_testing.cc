// The emulated device, which computes on the host's memory, and which devices there are.
#include "tests/kernels/cuda/device_testing.h"

#include <cstdlib>

#include "kernels/simt/stream.h"

namespace thermocline::kernels::testing {
namespace {

class EmulatedDevice : public TestDevice {
 public:
  // Each block by itself, so that AddressSanitizer knows its end.
  ~EmulatedDevice() override {
    stream_.synchronize();
    for (void* block : blocks_) ::operator delete(block, std::align_val_t(256));
  }
  const DeviceOps& ops() const override { return emulated_ops(); }
  DeviceStream* stream() override { return &calls_; }
  std::string Synchronize() override { return stream_.synchronize().text; }

 private:
  void* AllocateBytes(int64_t n_bytes) override {
    blocks_.push_back(::operator new(static_cast<size_t>(n_bytes), std::align_val_t(256)));
    return std::memset(blocks_.back(), 0xff, static_cast<size_t>(n_bytes));
  }
  void CopyIn(void* to, const void* from, int64_t n_bytes) override {
    if (n_bytes > 0) std::memcpy(to, from, static_cast<size_t>(n_bytes));
  }
  void CopyOut(void* to, const void* from, int64_t n_bytes) override { CopyIn(to, from, n_bytes); }

  simt::Device device_;
  simt::Stream stream_{&device_};
  DeviceStream calls_ = {&stream_};
  std::vector<void*> blocks_;
};

}  // namespace

std::vector<std::string> DeviceNames() {
  return HasCudaCard() ? std::vector<std::string>{"emulated", "cuda"}
                       : std::vector<std::string>{"emulated"};
}

std::unique_ptr<TestDevice> MakeDevice(const std::string& name) {
  if (name == "cuda") return MakeCudaDevice();
  return std::make_unique<EmulatedDevice>();
}

}  // namespace thermocline::kernels::testing
