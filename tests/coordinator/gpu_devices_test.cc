// Which GPUs a fleet may use, as gpu_worker says and the user wants.
#include "coordinator/engine/gpu_devices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace thermocline {
namespace {

using ::testing::HasSubstr;

const char* const kWorker = THERMOCLINE_BIN_DIR "/gpu_worker";

std::string ErrorOf(const std::string& choice, const std::string& binary = kWorker) {
  const auto devices = ChooseGpuDevices(choice, binary);
  EXPECT_FALSE(devices.ok()) << choice;
  return std::string(devices.status().message());
}

TEST(GpuDevices, TheEmulatedOneIsThereWhenItIsNamedOnly) {
  const auto named = ChooseGpuDevices("emulated,Emulated", kWorker);
  ASSERT_TRUE(named.ok()) << named.status();
  ASSERT_EQ(named->devices.size(), 2u);
  EXPECT_EQ(named->devices[1].name, "emulated");
  EXPECT_GT(named->devices[0].free_bytes, 0);
  const auto chosen = ChooseGpuDevices("auto", kWorker);
  ASSERT_TRUE(chosen.ok()) << chosen.status();
  for (const GpuDevice& device : chosen->devices) EXPECT_NE(device.name, "emulated");
  EXPECT_FALSE(chosen->reason.empty());
}

TEST(GpuDevices, NoneAsksNoOne) {
  const auto none = ChooseGpuDevices("none", "/no/such/program");
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_TRUE(none->devices.empty());
  EXPECT_EQ(none->reason, "");
}

TEST(GpuDevices, AutoDoesWithoutAWorkerAndSaysWhy) {
  const auto none = ChooseGpuDevices("auto", "/no/such/program");
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_TRUE(none->devices.empty());
  EXPECT_THAT(none->reason, HasSubstr("/no/such/program"));
}

TEST(GpuDevices, WrongNamesAndAnswersAreRefused) {
  EXPECT_THAT(ErrorOf("vulkan"), HasSubstr("'vulkan' is no device"));
  EXPECT_THAT(ErrorOf("cuda:"), HasSubstr("is no device"));
  EXPECT_THAT(ErrorOf("emulated,"), HasSubstr("'' is no device"));
  EXPECT_THAT(ErrorOf("auto,emulated"), HasSubstr("'auto' is no device"));
  EXPECT_THAT(ErrorOf("CUDA99"), HasSubstr("cuda:99"));
  EXPECT_THAT(ErrorOf("cuda:99:step=graph"), HasSubstr("cuda:99:step=graph: "));
  EXPECT_THAT(ErrorOf("emulated", "/bin/false"), HasSubstr("/bin/false"));
  EXPECT_THAT(ErrorOf("emulated", "/bin/echo"), HasSubstr("no list of devices"));
}

}  // namespace
}  // namespace thermocline
