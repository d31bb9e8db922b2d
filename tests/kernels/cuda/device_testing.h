// Devices for kernel tests: memory that is freed at the end, one stream, errors as test failures. A
// test runs on every device there is: the emulated one, and the first CUDA card.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/device_ops.h"

namespace thermocline::kernels::testing {

class TestDevice {
 public:
  virtual ~TestDevice() = default;
  virtual const DeviceOps& ops() const = 0;
  virtual DeviceStream* stream() = 0;

  template <typename T>
  T* Upload(const std::vector<T>& values) {
    T* memory = Allocate<T>(static_cast<int64_t>(values.size()));
    CopyIn(memory, values.data(), static_cast<int64_t>(values.size() * sizeof(T)));
    return memory;
  }
  template <typename T>
  void Overwrite(T* memory, const std::vector<T>& values) {
    CopyIn(memory, values.data(), static_cast<int64_t>(values.size() * sizeof(T)));
  }
  // Full of 0xff: NaNs, so that what is not written is seen.
  template <typename T>
  T* Allocate(int64_t n) {
    return static_cast<T*>(AllocateBytes(n * static_cast<int64_t>(sizeof(T))));
  }
  // After all work of the stream, which must have ended without an error.
  template <typename T>
  std::vector<T> Download(const T* memory, int64_t n) {
    const std::string error = Synchronize();
    EXPECT_EQ(error, "");
    std::vector<T> values(static_cast<size_t>(n));
    CopyOut(values.data(), memory, n * static_cast<int64_t>(sizeof(T)));
    return values;
  }
  void Check(LaunchError error) {
    EXPECT_EQ(error, 0);
    EXPECT_EQ(Synchronize(), "");
  }
  virtual std::string Synchronize() = 0;  // "" or the device's error

 private:
  virtual void* AllocateBytes(int64_t n_bytes) = 0;  // 256-byte aligned
  virtual void CopyIn(void* to, const void* from, int64_t n_bytes) = 0;
  virtual void CopyOut(void* to, const void* from, int64_t n_bytes) = 0;
};

bool HasCudaCard();
std::unique_ptr<TestDevice> MakeCudaDevice();  // null in builds without CUDA
std::vector<std::string> DeviceNames();
std::unique_ptr<TestDevice> MakeDevice(const std::string& name);

class DeviceTest : public ::testing::TestWithParam<std::string> {
 protected:
  const std::unique_ptr<TestDevice> device_ = MakeDevice(GetParam());
  const DeviceOps& ops_ = device_->ops();
  DeviceStream* const stream_ = device_->stream();
};

}  // namespace thermocline::kernels::testing

#define INSTANTIATE_DEVICE_TESTS(fixture)                                                    \
  INSTANTIATE_TEST_SUITE_P(                                                                  \
      Devices, fixture, ::testing::ValuesIn(::thermocline::kernels::testing::DeviceNames()), \
      [](const ::testing::TestParamInfo<std::string>& info) { return info.param; })
