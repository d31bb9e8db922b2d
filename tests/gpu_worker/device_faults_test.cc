// What a rank on a GPU makes of a device that fails, and that the other ranks end: fleets of
// threads on emulated devices with faults. And what such devices do otherwise.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "tests/testing/mini_fleet.h"
#include "tests/testing/tiny_llama.h"

namespace thermocline::testing {
namespace {

using ::testing::HasSubstr;
using Clock = std::chrono::steady_clock;
using Fault = EmulatedOptions::Fault;

// Of any end; a wait that nobody ends takes the fleet's minute.
constexpr std::chrono::seconds kSoon(20);

class DeviceFaults : public ::testing::Test {
 protected:
  void SetUp() override {
    bytes_ = TinyLlama().Builder().Build();
    auto file = GgufFile::Parse(bytes_, "tiny");
    ASSERT_TRUE(file.ok()) << file.status();
    file_ = *std::move(file);
    auto plan = MakePlan(*file_, {1, 1}, 1);
    ASSERT_TRUE(plan.ok()) << plan.status();
    plan_ = *std::move(plan);
    plan_.ranks[0].kind = RankKind::kGpu;
  }

  absl::StatusOr<std::unique_ptr<MiniFleet>> Create(const EmulatedOptions& device) {
    MiniFleetOptions options;
    options.n_ctx = 64;
    options.batch_size = options.max_logit_rows = 8;
    options.device = device;
    return MiniFleet::Create(file_.get(), plan_, options);
  }
  absl::Status Run(MiniFleet& fleet, int64_t step_tokens) {
    return fleet.Run({1, 40, 50, 60, 70, 80}, 0, step_tokens).status();
  }
  // How the GPU's rank ends when its device fails; the CPU's is stopped by that.
  absl::Status EndOf(const EmulatedOptions& device, int64_t step_tokens) {
    auto fleet = Create(device);
    if (!fleet.ok()) return fleet.status();
    const Clock::time_point start = Clock::now();
    const absl::Status status = Run(**fleet, step_tokens);
    if (status.ok()) return status;
    const std::vector<absl::Status> ends = (*fleet)->Stop();
    EXPECT_LT(Clock::now() - start, kSoon);
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    EXPECT_TRUE(absl::IsUnavailable(ends[1])) << ends[1];
    return ends[0];
  }
  void ExpectError(const absl::Status& status, absl::StatusCode code, const std::string& what,
                   const std::string& remedy) {
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("emulated: "), HasSubstr(what), HasSubstr(remedy)));
  }

  Bytes bytes_;
  std::unique_ptr<GgufFile> file_;
  Plan plan_;
};

TEST_F(DeviceFaults, OfAKernelEndTheStepAndNameTheRemedy) {
  // In a step of one token, which is a graph with the exchanges in it, and of several: at once, on
  // the way, between two steps.
  for (const int64_t step_tokens : {1, 6}) {
    for (const int64_t after : {0, 11, 30}) {
      SCOPED_TRACE(::testing::Message() << step_tokens << " tokens, after " << after);
      ExpectError(EndOf({.fault = Fault::kLaunch, .after = after}, step_tokens),
                  absl::StatusCode::kInternal, "launch has failed", "start the fleet again");
      ExpectError(EndOf({.fault = Fault::kLost, .after = after}, step_tokens),
                  absl::StatusCode::kInternal, "the device is lost", "--gpu-device none");
      ExpectError(EndOf({.fault = Fault::kMemory, .after = after}, step_tokens),
                  absl::StatusCode::kResourceExhausted, "no memory", "lower --gpu-layers");
    }
  }
}

// The step is one kernel then.
TEST_F(DeviceFaults, OfAResidentKernelToo) {
  ExpectError(EndOf({.step_form = StepForm::kResident, .fault = Fault::kLost, .after = 4}, 1),
              absl::StatusCode::kInternal, "the device is lost", "--gpu-device none");
}

TEST_F(DeviceFaults, AnyAllocationMayFail) {
  int64_t n_failed = 0;
  absl::Status end;
  do {
    end = EndOf({.fault = Fault::kAllocate, .after = n_failed}, 1);
    if (!end.ok()) {
      ExpectError(end, absl::StatusCode::kResourceExhausted, "no memory for", "--vram-budget");
    }
  } while (!end.ok() && ++n_failed < 100);
  // The shard, two images of its tensors, what steps are staged in, two pieces that they exchange
  // with, their graph.
  EXPECT_EQ(n_failed, 7);
  EXPECT_LT(n_failed, 100);
}

TEST_F(DeviceFaults, MemoryThatCantBeRegisteredIsNamedWithTheWayAround) {
  ExpectError(EndOf({.fault = Fault::kRegister}, 1), absl::StatusCode::kInternal,
              "can't be registered", "--transport grpc");
}

TEST_F(DeviceFaults, AFaultThatIsFarAwayChangesNothing) {
  auto plain = Create({}), later = Create({.fault = Fault::kLost, .after = 1'000'000});
  ASSERT_TRUE(plain.ok() && later.ok());
  const auto expected = (*plain)->Run({1, 40, 50}, 0, 1), found = (*later)->Run({1, 40, 50}, 0, 1);
  ASSERT_TRUE(expected.ok() && found.ok()) << found.status();
  EXPECT_EQ(*found, *expected);
}

TEST_F(DeviceFaults, ASleepingDeviceExchangesAndAddsNothing) {
  constexpr int64_t kSleepUs = 2000;
  auto fleet = Create({.sleep_us = kSleepUs});
  ASSERT_TRUE(fleet.ok()) << fleet.status();
  const Clock::time_point start = Clock::now();
  const auto logits = (*fleet)->Run({1}, 0, 1);
  ASSERT_TRUE(logits.ok()) << logits.status();
  // Two layers of 8 kernels for attention and 6 for neurons.
  EXPECT_GE(Clock::now() - start, std::chrono::microseconds(2 * 14 * kSleepUs));
  const Range gpu = plan_.vocab[0], cpu = plan_.vocab[1];
  for (int64_t i = gpu.begin; i < gpu.end; ++i) ASSERT_EQ((*logits)[i], 0);
  double sum = 0;
  for (int64_t i = cpu.begin; i < cpu.end; ++i) sum += std::abs((*logits)[i]);
  EXPECT_GT(sum, 0);
  EXPECT_LT(sum, 1e6);  // of x and the CPU's own partial sums
}

TEST(EmulatedDevice, TellsWhatItIs) {
  const auto sleeper = OpenDevice("emulated:sleep=1500");
  ASSERT_TRUE(sleeper.ok()) << sleeper.status();
  EXPECT_EQ((*sleeper)->name(), "emulated:sleep=1500");
  EXPECT_THAT((*sleeper)->description(), HasSubstr("computes nothing"));
  EXPECT_THAT((*sleeper)->description(), HasSubstr("1500 us"));
  EXPECT_TRUE(OpenDevice("emulated:fail=lost:after=3").ok());
  EXPECT_TRUE(OpenDevice("emulated:graph=65536").ok());
  for (const char* name :
       {"emulated:", "emulated:sleep", "emulated:sleep=", "emulated:sleep=-1", "emulated:sleep=1x",
        "emulated:fail=none", "emulated:after=1:", "emulated:sleep=99999999999999999999"}) {
    const auto device = OpenDevice(name);
    ASSERT_FALSE(device.ok()) << name;
    EXPECT_TRUE(absl::IsInvalidArgument(device.status())) << name;
    EXPECT_THAT(std::string(device.status().message()), HasSubstr("sleep=MICROSECONDS")) << name;
  }
  EXPECT_FALSE(OpenDevice("emulatedx").ok());
}

}  // namespace
}  // namespace thermocline::testing
