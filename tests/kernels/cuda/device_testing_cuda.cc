// The first CUDA card. Its headers and the SIMT layer's do not go together, so this is a file of
// its own.
#include "tests/kernels/cuda/device_testing.h"

#if THERMOCLINE_HAS_CUDA
#include <cuda_runtime.h>
#endif

namespace thermocline::kernels::testing {

#if THERMOCLINE_HAS_CUDA
namespace {

void Expect(cudaError_t error) { EXPECT_EQ(error, cudaSuccess) << cudaGetErrorString(error); }

class CudaDevice : public TestDevice {
 public:
  CudaDevice() {
    Expect(cudaStreamCreate(&stream_));
    calls_.native = stream_;
  }
  ~CudaDevice() override {
    for (void* block : blocks_) Expect(cudaFree(block));
    Expect(cudaStreamDestroy(stream_));
  }
  const DeviceOps& ops() const override { return cuda_ops(); }
  DeviceStream* stream() override { return &calls_; }
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
  DeviceStream calls_;
  std::vector<void*> blocks_;
};

}  // namespace

bool HasCudaCard() {
  int n_cards = 0;
  return cudaGetDeviceCount(&n_cards) == cudaSuccess && n_cards > 0;
}
std::unique_ptr<TestDevice> MakeCudaDevice() { return std::make_unique<CudaDevice>(); }
#else
bool HasCudaCard() { return false; }
std::unique_ptr<TestDevice> MakeCudaDevice() { return nullptr; }
#endif

}  // namespace thermocline::kernels::testing
