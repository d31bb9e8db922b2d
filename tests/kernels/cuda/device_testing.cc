// The emulated device computes on the host's memory; CUDA's calls are here alone, so that tests
// include nothing of it.
#include "tests/kernels/cuda/device_testing.h"

#include <cstdlib>

#include "kernels/simt/stream.h"

#if THERMOCLINE_HAS_CUDA
#include <cuda_runtime.h>
#endif

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
  DeviceStream* stream() override { return reinterpret_cast<DeviceStream*>(&stream_); }
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
  std::vector<void*> blocks_;
};

#if THERMOCLINE_HAS_CUDA
void Expect(cudaError_t error) { EXPECT_EQ(error, cudaSuccess) << cudaGetErrorString(error); }

class CudaDevice : public TestDevice {
 public:
  CudaDevice() { Expect(cudaStreamCreate(&stream_)); }
  ~CudaDevice() override {
    for (void* block : blocks_) Expect(cudaFree(block));
    Expect(cudaStreamDestroy(stream_));
  }
  const DeviceOps& ops() const override { return cuda_ops(); }
  DeviceStream* stream() override { return reinterpret_cast<DeviceStream*>(stream_); }
  std::string Synchronize() override {
    const cudaError_t error = cudaStreamSynchronize(stream_);
    return error == cudaSuccess ? "" : cudaGetErrorString(error);
  }

 private:
  void* AllocateBytes(int64_t n_bytes) override {
    void* memory = nullptr;
    Expect(cudaMalloc(&memory, static_cast<size_t>(n_bytes) + 1));
    Expect(cudaMemset(memory, 0xff, static_cast<size_t>(n_bytes)));
    blocks_.push_back(memory);
    return memory;
  }
  void CopyIn(void* to, const void* from, int64_t n_bytes) override {
    Expect(cudaMemcpy(to, from, static_cast<size_t>(n_bytes), cudaMemcpyHostToDevice));
  }
  void CopyOut(void* to, const void* from, int64_t n_bytes) override {
    Expect(cudaMemcpy(to, from, static_cast<size_t>(n_bytes), cudaMemcpyDeviceToHost));
  }

  cudaStream_t stream_ = nullptr;
  std::vector<void*> blocks_;
};
#endif

}  // namespace

std::vector<std::string> DeviceNames() {
  std::vector<std::string> names = {"emulated"};
#if THERMOCLINE_HAS_CUDA
  int n_cards = 0;
  if (cudaGetDeviceCount(&n_cards) == cudaSuccess && n_cards > 0) names.push_back("cuda");
#endif
  return names;
}

std::unique_ptr<TestDevice> MakeDevice(const std::string& name) {
#if THERMOCLINE_HAS_CUDA
  if (name == "cuda") return std::make_unique<CudaDevice>();
#endif
  return std::make_unique<EmulatedDevice>();
}

}  // namespace thermocline::kernels::testing
