// A GPU, or the one that is emulated on the host: memory, one stream, operations. Nothing of CUDA
// passes this header; each of its errors becomes a Status that names the call and what to do.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gpu_worker/gemm.h"
#include "kernels/cuda/device_ops.h"

namespace thermocline {

struct DeviceMemory {
  int64_t free_bytes = 0;
  int64_t total_bytes = 0;
};

// How the steps of a decode reach the device: a graph with a kernel for each operation, or with one
// that stays for all of them (kernels::DeviceProgram). kFaster: whichever is, measured at the
// start.
enum class StepForm { kGraph, kResident, kFaster };

// Work that was captured from a stream, and the device memory that it takes. Its device must
// outlive it.
class DeviceGraph {
 public:
  virtual ~DeviceGraph() = default;
};

// Of device memory, for each kernel, copy or fill of a graph. Drivers from CUDA 12.4 (550) on take
// about 10 KB a kernel (NVIDIA/cccl, pull request 3768), older ones 64 KB (PyTorch's documentation
// of CUDAGraph trees).
inline constexpr int64_t kGraphNodeBytes = 12 << 10, kOldGraphNodeBytes = 64 << 10;

class Device {
 public:
  virtual ~Device() = default;

  virtual const std::string& name() const = 0;  // as OpenDevice was told
  virtual std::string description() const = 0;  // "cuda:0 (NVIDIA H100 80GB HBM3)"
  virtual const kernels::DeviceOps& ops() const = 0;
  virtual kernels::DeviceStream* stream() = 0;
  virtual absl::StatusOr<DeviceMemory> Memory() const = 0;
  virtual double gbps() const = 0;  // of reading its memory, as its data sheet has it
  // Of its memory, what each operation of a graph takes, at most.
  virtual int64_t graph_node_bytes() const = 0;
  virtual StepForm step_form() const = 0;

  // 256-byte aligned, freed with the device. ResourceExhausted with the numbers.
  virtual absl::StatusOr<uint8_t*> Allocate(int64_t n_bytes) = 0;
  // Of the host, pinned: captured copies go from and to such memory only. Freed with the device,
  // if not before, when nothing in the stream uses it any more.
  virtual absl::StatusOr<uint8_t*> AllocateHost(int64_t n_bytes) = 0;
  virtual void FreeHost(uint8_t* memory) = 0;
  // Lets the device read and write the caller's memory, which must outlive the device. Returns its
  // address there.
  virtual absl::StatusOr<uint8_t*> Register(void* host, int64_t n_bytes) = 0;
  // In the stream's order; host memory must stay as it is until Synchronize.
  virtual absl::Status Upload(void* device, const void* host, int64_t n_bytes) = 0;
  virtual absl::Status Download(void* host, const void* device, int64_t n_bytes) = 0;
  virtual absl::Status Fill(void* device, uint8_t byte, int64_t n_bytes) = 0;
  // In the stream's order. The same call gives the same bits.
  virtual absl::Status Gemm(const GemmCall& call) = 0;
  // Between the two, what goes into the stream is kept instead of done, with its arguments. When
  // the stream has done what is in it, the graph has all memory that it will take.
  // ResourceExhausted without it.
  virtual absl::Status BeginCapture() = 0;
  virtual absl::StatusOr<std::unique_ptr<DeviceGraph>> EndCapture() = 0;
  // Does it once more, in the stream's order. The graph must outlive the work.
  virtual absl::Status Launch(DeviceGraph* graph) = 0;
  // Whether all of the stream is done, or what went wrong in it.
  virtual absl::StatusOr<bool> IsIdle() = 0;
  // Until all of the stream is done; then what went wrong in it.
  virtual absl::Status Synchronize() = 0;
  // What a launch returned.
  virtual absl::Status Check(kernels::LaunchError error, const char* op) const = 0;
};

// What the emulated device does otherwise than compute: for measurements and tests of faults.
struct EmulatedOptions {
  // 0 or above: kernels are not run; each takes this long instead, asleep. Only the exchanges of a
  // decode step are run, as other ranks wait for them. Memory begins as zeros: the rank's partial
  // sums are 0, and logits mean nothing.
  int64_t sleep_us = -1;
  // That each operation of a graph takes, whatever graph_node_bytes() says.
  int64_t graph_node_bytes = kGraphNodeBytes;
  StepForm step_form = StepForm::kGraph;
  enum class Fault {
    kNone,
    kLaunch,    // of a kernel
    kMemory,    // a kernel finds none
    kLost,      // the device, while a kernel runs
    kAllocate,  // of device or pinned memory, or of a graph's
    kRegister,
  };
  Fault fault = Fault::kNone;
  int64_t after = 0;  // kernels, allocations or registrations that go well before it
};
std::unique_ptr<Device> OpenEmulatedDevice(const EmulatedOptions& options);

// "cuda:N", or "emulated", with options as KEY=VALUE after colons. Of both:
// step=graph|resident|faster (a card's default is the last, the emulated device's the first). Of
// the latter: sleep=MICROSECONDS, fail=launch|memory|lost|allocate|register, after=N, graph=BYTES.
// "emulated:sleep=1000" sleeps a millisecond a kernel, "emulated:fail=lost:after=40" is lost in its
// 41st. InvalidArgument for another name; Unavailable where there is no such card, with what the
// driver says.
absl::StatusOr<std::unique_ptr<Device>> OpenDevice(const std::string& name);

// In device_cuda.cc; Unimplemented in builds without CUDA.
absl::StatusOr<std::unique_ptr<Device>> OpenCudaDevice(int32_t number, StepForm step_form);

}  // namespace thermocline
