// A CUDA card. The only file of the worker that includes the CUDA runtime.
#include "fmt/format.h"
#include "gpu_worker/device.h"

#if THERMOCLINE_HAS_CUDA
#include <cuda_runtime.h>

#include <vector>

#include "common/util/status_macros.h"
#endif

namespace thermocline {

#if THERMOCLINE_HAS_CUDA
namespace {

class CudaDevice : public Device {
 public:
  static absl::StatusOr<std::unique_ptr<Device>> Open(int32_t number) {
    int n_cards = 0;
    if (const cudaError_t error = cudaGetDeviceCount(&n_cards); error != cudaSuccess) {
      return absl::UnavailableError(
          fmt::format("cuda:{}: no CUDA card can be used here ({}); see nvidia-smi, or take "
                      "--gpu-device none",
                      number, cudaGetErrorString(error)));
    }
    if (number >= n_cards) {
      return absl::UnavailableError(
          fmt::format("cuda:{}: there are {} cards, numbered from 0", number, n_cards));
    }
    std::unique_ptr<CudaDevice> device(new CudaDevice(number));
    RETURN_IF_ERROR(device->Status(cudaSetDevice(number), "cudaSetDevice"));
    cudaDeviceProp properties;
    RETURN_IF_ERROR(
        device->Status(cudaGetDeviceProperties(&properties, number), "cudaGetDeviceProperties"));
    device->card_ = properties.name;
    int clock_khz = 0, bus_bits = 0;
    RETURN_IF_ERROR(
        device->Status(cudaDeviceGetAttribute(&clock_khz, cudaDevAttrMemoryClockRate, number),
                       "cudaDeviceGetAttribute"));
    RETURN_IF_ERROR(
        device->Status(cudaDeviceGetAttribute(&bus_bits, cudaDevAttrGlobalMemoryBusWidth, number),
                       "cudaDeviceGetAttribute"));
    device->gbps_ = 2.0 * clock_khz * 1e3 * bus_bits / 8 / 1e9;  // two transfers a clock
    RETURN_IF_ERROR(device->Status(
        cudaStreamCreateWithFlags(&device->stream_, cudaStreamNonBlocking), "cudaStreamCreate"));
    return device;
  }
  ~CudaDevice() override {
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
    for (uint8_t* block : blocks_) cudaFree(block);
  }

  const std::string& name() const override { return name_; }
  std::string description() const override { return fmt::format("{} ({})", name_, card_); }
  const kernels::DeviceOps& ops() const override { return kernels::cuda_ops(); }
  kernels::DeviceStream* stream() override {
    return reinterpret_cast<kernels::DeviceStream*>(stream_);
  }
  double gbps() const override { return gbps_; }
  absl::StatusOr<DeviceMemory> Memory() const override {
    size_t free = 0, total = 0;
    RETURN_IF_ERROR(Status(cudaMemGetInfo(&free, &total), "cudaMemGetInfo"));
    return DeviceMemory{static_cast<int64_t>(free), static_cast<int64_t>(total)};
  }

  absl::StatusOr<uint8_t*> Allocate(int64_t n_bytes) override {
    void* block = nullptr;
    const cudaError_t error = cudaMalloc(&block, static_cast<size_t>(n_bytes));
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // it does not stay
      ASSIGN_OR_RETURN(const DeviceMemory memory, Memory());
      return absl::ResourceExhaustedError(
          fmt::format("{}: no memory for {} bytes: {} of {} are free", name_, n_bytes,
                      memory.free_bytes, memory.total_bytes));
    }
    RETURN_IF_ERROR(Status(error, "cudaMalloc"));
    blocks_.push_back(static_cast<uint8_t*>(block));
    return blocks_.back();
  }
  absl::Status Upload(void* device, const void* host, int64_t n_bytes) override {
    return Status(cudaMemcpyAsync(device, host, static_cast<size_t>(n_bytes),
                                  cudaMemcpyHostToDevice, stream_),
                  "cudaMemcpyAsync to the card");
  }
  absl::Status Download(void* host, const void* device, int64_t n_bytes) override {
    return Status(cudaMemcpyAsync(host, device, static_cast<size_t>(n_bytes),
                                  cudaMemcpyDeviceToHost, stream_),
                  "cudaMemcpyAsync from the card");
  }
  absl::Status Fill(void* device, uint8_t byte, int64_t n_bytes) override {
    return Status(cudaMemsetAsync(device, byte, static_cast<size_t>(n_bytes), stream_),
                  "cudaMemsetAsync");
  }
  absl::Status Synchronize() override {
    return Status(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  }
  absl::Status Check(kernels::LaunchError error, const char* op) const override {
    return Status(static_cast<cudaError_t>(error), op);
  }

 private:
  explicit CudaDevice(int32_t number) : name_(fmt::format("cuda:{}", number)) {}

  // Errors of a context stay: after one the worker has to be started again.
  absl::Status Status(cudaError_t error, const char* call) const {
    if (error == cudaSuccess) return absl::OkStatus();
    return absl::InternalError(
        fmt::format("{}: {}: {} ({}); start the fleet again, and see "
                    "nvidia-smi and the kernel's log if it comes again",
                    name_, call, cudaGetErrorName(error), cudaGetErrorString(error)));
  }

  const std::string name_;
  std::string card_;
  double gbps_ = 0;
  cudaStream_t stream_ = nullptr;
  std::vector<uint8_t*> blocks_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> OpenCudaDevice(int32_t number) {
  return CudaDevice::Open(number);
}

#else

absl::StatusOr<std::unique_ptr<Device>> OpenCudaDevice(int32_t number) {
  return absl::UnimplementedError(fmt::format(
      "cuda:{}: this program was built without CUDA; install the toolkit and build again "
      "with -DLLAMA_CUBLAS=ON",
      number));
}

#endif

}  // namespace thermocline
