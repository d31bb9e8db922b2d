// What tests of the SIMT layer share: a device with one stream that waits after each launch.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "kernels/ops.h"
#include "kernels/simt/launch.h"
#include "kernels/simt/stream.h"
#include "tests/kernels/simt/kernels.h"

namespace thermocline::kernels::simt {

class SimtTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!isa_supported(Isa::kAvx2)) GTEST_SKIP() << "kernels on the host need AVX2, FMA and F16C";
  }

  // Launches on a new device, waits, returns its error.
  template <typename... Parameters, typename... Arguments>
  static Error run(const LaunchShape& shape, void (*kernel)(Parameters...),
                   const Arguments&... arguments) {
    Device device({.stall_deadline_us = 200'000});
    Stream stream(&device);
    launch(&stream, shape, kernel, arguments...);
    return stream.synchronize();
  }
};

// An error of the code, whose text has all the parts.
inline void expect_error(const Error& error, ErrorCode code,
                         const std::vector<std::string>& parts) {
  EXPECT_EQ(error.code, code) << error.text;
  for (const std::string& part : parts) EXPECT_THAT(error.text, testing::HasSubstr(part));
}

}  // namespace thermocline::kernels::simt
