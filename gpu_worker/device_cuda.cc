// A CUDA card. The only file of the worker that includes the CUDA runtime and cuBLAS.
#include "fmt/format.h"
#include "gpu_worker/device.h"

#if THERMOCLINE_HAS_CUDA
#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <vector>

#include "common/util/status_macros.h"
#endif

namespace thermocline {

#if THERMOCLINE_HAS_CUDA
namespace {

constexpr char kLowerMemory[] = "lower --gpu-layers, --vram-budget, --ctx-size or --batch-size";

struct CudaGraph : DeviceGraph {
  ~CudaGraph() override { cudaGraphExecDestroy(graph); }
  cudaGraphExec_t graph = nullptr;
};

class CudaDevice : public Device {
 public:
  static absl::StatusOr<std::unique_ptr<Device>> Open(int32_t number, StepForm step_form) {
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
    std::unique_ptr<CudaDevice> device(new CudaDevice(number, step_form));
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
    RETURN_IF_ERROR(
        device->Status(cudaDriverGetVersion(&device->driver_version_), "cudaDriverGetVersion"));
    device->gbps_ = 2.0 * clock_khz * 1e3 * bus_bits / 8 / 1e9;  // two transfers a clock
    RETURN_IF_ERROR(device->Status(
        cudaStreamCreateWithFlags(&device->stream_, cudaStreamNonBlocking), "cudaStreamCreate"));
    device->calls_.native = device->stream_;
    // Here, so that what it takes of the card's memory is not free when the shard is laid out.
    RETURN_IF_ERROR(device->Status(cublasCreate(&device->cublas_), "cublasCreate"));
    RETURN_IF_ERROR(
        device->Status(cublasSetStream(device->cublas_, device->stream_), "cublasSetStream"));
    // Likewise, of the one kernel that is large and has a stack.
    RETURN_IF_ERROR(device->Check(
        device->ops().run_program(&device->calls_, kernels::DeviceProgram(), nullptr, nullptr),
        "run_program"));
    RETURN_IF_ERROR(device->Synchronize());
    return device;
  }
  ~CudaDevice() override {
    if (cublas_ != nullptr) cublasDestroy(cublas_);
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
    for (uint8_t* block : blocks_) cudaFree(block);
    for (uint8_t* block : host_blocks_) cudaFreeHost(block);
    for (void* memory : registered_) cudaHostUnregister(memory);
  }

  const std::string& name() const override { return name_; }
  std::string description() const override { return fmt::format("{} ({})", name_, card_); }
  const kernels::DeviceOps& ops() const override { return kernels::cuda_ops(); }
  kernels::DeviceStream* stream() override {
    BeCurrent();
    return &calls_;
  }
  double gbps() const override { return gbps_; }
  int64_t graph_node_bytes() const override {
    return driver_version_ >= 12040 ? kGraphNodeBytes : kOldGraphNodeBytes;
  }
  StepForm step_form() const override { return step_form_; }
  absl::StatusOr<DeviceMemory> Memory() const override {
    BeCurrent();
    size_t free = 0, total = 0;
    RETURN_IF_ERROR(Status(cudaMemGetInfo(&free, &total), "cudaMemGetInfo"));
    return DeviceMemory{static_cast<int64_t>(free), static_cast<int64_t>(total)};
  }

  absl::StatusOr<uint8_t*> Allocate(int64_t n_bytes) override {
    BeCurrent();
    void* block = nullptr;
    const cudaError_t error = cudaMalloc(&block, static_cast<size_t>(n_bytes));
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // it does not stay
      ASSIGN_OR_RETURN(const DeviceMemory memory, Memory());
      return absl::ResourceExhaustedError(
          fmt::format("{}: no memory for {} bytes: {} of {} are free; {}", name_, n_bytes,
                      memory.free_bytes, memory.total_bytes, kLowerMemory));
    }
    RETURN_IF_ERROR(Status(error, "cudaMalloc"));
    blocks_.push_back(static_cast<uint8_t*>(block));
    return blocks_.back();
  }
  absl::StatusOr<uint8_t*> AllocateHost(int64_t n_bytes) override {
    BeCurrent();
    void* block = nullptr;
    RETURN_IF_ERROR(
        Status(cudaHostAlloc(&block, static_cast<size_t>(n_bytes), cudaHostAllocDefault),
               "cudaHostAlloc"));
    host_blocks_.push_back(static_cast<uint8_t*>(block));
    return host_blocks_.back();
  }
  void FreeHost(uint8_t* memory) override {
    BeCurrent();
    std::erase(host_blocks_, memory);
    cudaFreeHost(memory);
  }
  absl::StatusOr<uint8_t*> Register(void* host, int64_t n_bytes) override {
    BeCurrent();
    const cudaError_t error =
        cudaHostRegister(host, static_cast<size_t>(n_bytes), cudaHostRegisterMapped);
    if (error != cudaSuccess) {
      return absl::InternalError(
          fmt::format("{}: cudaHostRegister of {} bytes: {} ({}); --transport grpc does without",
                      name_, n_bytes, cudaGetErrorName(error), cudaGetErrorString(error)));
    }
    registered_.push_back(host);
    void* device = nullptr;
    RETURN_IF_ERROR(Status(cudaHostGetDevicePointer(&device, host, 0), "cudaHostGetDevicePointer"));
    return static_cast<uint8_t*>(device);
  }
  absl::Status Upload(void* device, const void* host, int64_t n_bytes) override {
    BeCurrent();
    return Status(cudaMemcpyAsync(device, host, static_cast<size_t>(n_bytes),
                                  cudaMemcpyHostToDevice, stream_),
                  "cudaMemcpyAsync to the card");
  }
  absl::Status Download(void* host, const void* device, int64_t n_bytes) override {
    BeCurrent();
    return Status(cudaMemcpyAsync(host, device, static_cast<size_t>(n_bytes),
                                  cudaMemcpyDeviceToHost, stream_),
                  "cudaMemcpyAsync from the card");
  }
  absl::Status Fill(void* device, uint8_t byte, int64_t n_bytes) override {
    BeCurrent();
    return Status(cudaMemsetAsync(device, byte, static_cast<size_t>(n_bytes), stream_),
                  "cudaMemsetAsync");
  }
  // cuBLAS has columns where we have rows, so it is asked for c's transpose, b's times a's.
  absl::Status Gemm(const GemmCall& call) override {
    BeCurrent();
    RETURN_IF_ERROR(Status(
        cublasSetWorkspace(cublas_, call.workspace, static_cast<size_t>(kGemmWorkspaceBytes)),
        "cublasSetWorkspace"));
    const bool has_rows = call.weights == GemmWeights::kRows;
    const float one = 1.0f, beta = call.adds ? 1.0f : 0.0f;
    return Status(
        cublasGemmEx(cublas_, has_rows ? CUBLAS_OP_T : CUBLAS_OP_N, CUBLAS_OP_N,
                     static_cast<int>(call.n), static_cast<int>(call.n_tokens),
                     static_cast<int>(call.k), &one, call.b, CUDA_R_16F,
                     static_cast<int>(has_rows ? call.k : call.n), call.a, CUDA_R_16F,
                     static_cast<int>(call.a_stride), &beta, call.c, CUDA_R_32F,
                     static_cast<int>(call.c_stride), CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
        "cublasGemmEx");
  }
  absl::Status BeginCapture() override {
    BeCurrent();
    // A kernel's code is loaded when it is first launched or captured, which other modes may
    // refuse.
    return Status(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed),
                  "cudaStreamBeginCapture");
  }
  absl::StatusOr<std::unique_ptr<DeviceGraph>> EndCapture() override {
    BeCurrent();
    cudaGraph_t captured = nullptr;
    RETURN_IF_ERROR(Status(cudaStreamEndCapture(stream_, &captured), "cudaStreamEndCapture"));
    auto graph = std::make_unique<CudaGraph>();
    const cudaError_t error = cudaGraphInstantiate(&graph->graph, captured, 0);
    cudaGraphDestroy(captured);
    RETURN_IF_ERROR(Status(error, "cudaGraphInstantiate"));
    RETURN_IF_ERROR(Status(cudaGraphUpload(graph->graph, stream_), "cudaGraphUpload"));
    return graph;
  }
  absl::Status Launch(DeviceGraph* graph) override {
    BeCurrent();
    return Status(cudaGraphLaunch(static_cast<CudaGraph*>(graph)->graph, stream_),
                  "cudaGraphLaunch");
  }
  absl::StatusOr<bool> IsIdle() override {
    BeCurrent();
    const cudaError_t error = cudaStreamQuery(stream_);
    if (error == cudaErrorNotReady) {
      cudaGetLastError();  // it is none, and does not stay
      return false;
    }
    RETURN_IF_ERROR(Status(error, "cudaStreamQuery"));
    return true;
  }
  absl::Status Synchronize() override {
    return Status(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  }
  absl::Status Check(kernels::LaunchError error, const char* op) const override {
    return Status(static_cast<cudaError_t>(error), op);
  }

 private:
  CudaDevice(int32_t number, StepForm step_form)
      : number_(number), name_(fmt::format("cuda:{}", number)), step_form_(step_form) {}

  // Each thread has a current card, at first cuda:0; launches and allocations are that one's. Where
  // this fails, so does the call that follows.
  void BeCurrent() const { cudaSetDevice(number_); }

  // Errors of a context stay: after one the worker has to be started again.
  absl::Status Status(cudaError_t error, const char* call) const {
    if (error == cudaSuccess) return absl::OkStatus();
    const std::string text = fmt::format("{}: {}: {} ({})", name_, call, cudaGetErrorName(error),
                                         cudaGetErrorString(error));
    if (error == cudaErrorMemoryAllocation) {
      return absl::ResourceExhaustedError(fmt::format("{}; {}", text, kLowerMemory));
    }
    return absl::InternalError(
        text +
        "; start the fleet again, and see nvidia-smi and the kernel's log, or take --gpu-device "
        "none, if it comes again");
  }
  absl::Status Status(cublasStatus_t error, const char* call) const {
    if (error == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
    const std::string text = fmt::format("{}: {}: {} ({})", name_, call, cublasGetStatusName(error),
                                         cublasGetStatusString(error));
    if (error == CUBLAS_STATUS_ALLOC_FAILED || error == CUBLAS_STATUS_NOT_INITIALIZED) {
      return absl::ResourceExhaustedError(
          text +
          "; the card may have too little free memory for cuBLAS: see nvidia-smi for who "
          "uses it");
    }
    return absl::InternalError(text +
                               "; start the fleet again, and see whether the driver and "
                               "libcublas are those of one toolkit if it comes again");
  }

  const int32_t number_;
  const std::string name_;
  const StepForm step_form_;
  std::string card_;
  double gbps_ = 0;
  int driver_version_ = 0;  // 1000 * major + 10 * minor, of CUDA
  cudaStream_t stream_ = nullptr;
  kernels::DeviceStream calls_;
  cublasHandle_t cublas_ = nullptr;
  std::vector<uint8_t*> blocks_, host_blocks_;
  std::vector<void*> registered_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> OpenCudaDevice(int32_t number, StepForm step_form) {
  return CudaDevice::Open(number, step_form);
}

#else

absl::StatusOr<std::unique_ptr<Device>> OpenCudaDevice(int32_t number, StepForm) {
  return absl::UnimplementedError(fmt::format(
      "cuda:{}: this program was built without CUDA; install the toolkit and build again "
      "with -DLLAMA_CUBLAS=ON",
      number));
}

#endif

}  // namespace thermocline
