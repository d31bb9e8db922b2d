// A GPU that fails under a real gpu_worker: what the fleet, the daemon and its clients say, and
// that nothing hangs or is left. The device's own errors: tests/gpu_worker/device_faults_test.cc.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <signal.h>

#include "common/rpc/channel.h"
#include "coordinator/engine/fleet.h"
#include "proto/health.grpc.pb.h"
#include "proto/inference.grpc.pb.h"
#include "tests/integration/programs.h"

namespace thermocline {
namespace {

using namespace std::chrono_literals;
using testing::Child;
using testing::ChildResult;
using ::testing::HasSubstr;
using Clock = std::chrono::steady_clock;

class Grpc : public ::testing::Environment {
  void SetUp() override { PrepareGrpc(); }
};
const auto* const kGrpc = ::testing::AddGlobalTestEnvironment(new Grpc);

// Two layers on the GPU, the others on a CPU rank, which waits for the GPU in all of them.
FleetOptions Options(const std::string& device) {
  FleetOptions options;
  options.model_path = ShippedModel();
  options.sparsity.mode = "exact";
  options.worker_binary = ProgramPath("cpu_worker");
  options.gpu_worker_binary = ProgramPath("gpu_worker");
  options.gpu_device = device;
  options.n_workers = options.n_threads = 1;
  options.n_ctx = 64;
  options.batch_size = 4;
  options.splits_ffn = false;
  options.n_gpu_layers = 2;
  options.stall_timeout_ms = 60000;  // a fault is to be seen long before
  return options;
}

// Tokens one by one, until something is wrong.
absl::Status Decode(Fleet& fleet) {
  for (int32_t i = 0; i < 8; ++i) {
    if (const absl::Status status = fleet.Run({{300 + i, 0, i, true}}); !status.ok()) return status;
  }
  return absl::OkStatus();
}

void ExpectLost(const absl::Status& status) {
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("worker 0"), HasSubstr("emulated:fail=lost"),
                    HasSubstr("the device is lost"), HasSubstr("start the fleet again")));
}

TEST(GpuFaults, ADeviceLostInAStepIsNamedToTheCallerOverBothCarriers) {
  for (const char* transport : {"shm", "grpc"}) {
    FleetOptions options = Options("emulated:fail=lost:after=75");
    options.transport = transport;
    const auto fleet = Fleet::Start(options, nullptr, nullptr);
    ASSERT_TRUE(fleet.ok()) << fleet.status();
    ASSERT_EQ((*fleet)->plan().n_ranks(), 2);
    const Clock::time_point start = Clock::now();
    ExpectLost(Decode(**fleet));
    ExpectLost((*fleet)->Run({{300, 0, 0, true}}));  // and no other reason comes later
    EXPECT_THAT(std::string((*fleet)->state().message()), HasSubstr("the device is lost"));
    EXPECT_LT(Clock::now() - start, 20s);
  }
}

TEST(GpuFaults, MemoryThatIsNotThereAtTheStartIsNamedWithTheFlags) {
  // Of the shard, and of what a step is staged in.
  for (const char* device : {"emulated:fail=allocate", "emulated:fail=allocate:after=2"}) {
    const auto fleet = Fleet::Start(Options(device), nullptr, nullptr);
    ASSERT_FALSE(fleet.ok());
    EXPECT_THAT(std::string(fleet.status().message()),
                AllOf(HasSubstr("worker 0"), HasSubstr("no memory for"),
                      HasSubstr("lower --gpu-layers, --vram-budget")));
  }
}

// Only over shared memory are there any.
TEST(GpuFaults, GraphsThatTakeMoreThanIsPlannedAreNamedAtTheStart) {
  FleetOptions options = Options("emulated:graph=4000000");
  options.vram_budget_bytes = 0.05 * (1 << 30);
  const Clock::time_point start = Clock::now();
  const auto fleet = Fleet::Start(options, nullptr, nullptr);
  ASSERT_FALSE(fleet.ok());
  EXPECT_THAT(std::string(fleet.status().message()),
              AllOf(HasSubstr("worker 0"), HasSubstr("KV cache, buffers and graphs"),
                    HasSubstr("lower --ctx-size")));
  EXPECT_LT(Clock::now() - start, 20s);
  options.transport = "grpc";
  EXPECT_TRUE(Fleet::Start(options, nullptr, nullptr).ok());
}

TEST(GpuFaults, ASegmentThatCantBeRegisteredLeavesTheStream) {
  const std::string device = "emulated:fail=register";
  auto fleet = Fleet::Start(Options(device), nullptr, nullptr);
  ASSERT_FALSE(fleet.ok());
  EXPECT_THAT(std::string(fleet.status().message()),
              AllOf(HasSubstr("worker 0"), HasSubstr("can't be registered"),
                    HasSubstr("--transport grpc")));
  FleetOptions options = Options(device);
  options.transport = "grpc";
  fleet = Fleet::Start(options, nullptr, nullptr);
  ASSERT_TRUE(fleet.ok()) << fleet.status();
  EXPECT_TRUE(Decode(**fleet).ok());
}

TEST(GpuFaults, ADeviceThatIsNoneIsRefused) {
  const auto unknown = Fleet::Start(Options("emulated:sleeps=1"), nullptr, nullptr);
  ASSERT_FALSE(unknown.ok());
  EXPECT_THAT(std::string(unknown.status().message()), HasSubstr("sleeps=1"));
}

class FaultyDaemon : public ::testing::Test {
 protected:
  FaultyDaemon()
      : daemon_({ProgramPath("coordinator"), "-m", ShippedModel(), "--listen", "127.0.0.1:0", "-t",
                 "1", "--workers", "1", "-c", "64", "--gpu-device", "emulated:fail=lost:after=75",
                 "--gpu-layers", "2"}) {
    const std::string before = "listening on ";
    EXPECT_TRUE(daemon_.WaitForErr("127.0.0.1:", 60s)) << daemon_.err();
    const std::string err = daemon_.err();
    const size_t begin = err.find(before) + before.size();
    channel_ = grpc::CreateChannel(err.substr(begin, err.find('\n', begin) - begin),
                                   grpc::InsecureChannelCredentials());
    stub_ = v1::Inference::NewStub(channel_);
  }
  grpc::Status Generate() {
    v1::GenerateRequest request;
    request.set_text("The king");
    request.set_max_tokens(32);
    request.set_ignore_eos(true);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + 20s);
    const auto reader = stub_->Generate(&context, request);
    v1::GenerateResponse message;
    while (reader->Read(&message)) {
    }
    return reader->Finish();
  }
  // The daemon looks at its fleet from time to time.
  bool SaysThatItDoesNotServe() {
    const auto health = grpc::health::v1::Health::NewStub(channel_);
    grpc::health::v1::HealthCheckResponse response;
    for (int i = 0; i < 500; ++i) {
      grpc::ClientContext context;
      if (!health->Check(&context, {}, &response).ok()) return false;
      if (response.status() == grpc::health::v1::HealthCheckResponse::NOT_SERVING) return true;
      std::this_thread::sleep_for(10ms);
    }
    return false;
  }

  Child daemon_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Inference::Stub> stub_;
};

TEST_F(FaultyDaemon, GivesItsClientsTheReasonAndStaysUp) {
  for (int request = 0; request < 2; ++request) {
    const grpc::Status status = Generate();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
    EXPECT_THAT(status.error_message(),
                AllOf(HasSubstr("worker 0"), HasSubstr("the device is lost"),
                      HasSubstr("computes nothing until it is started again")));
  }
  EXPECT_TRUE(SaysThatItDoesNotServe());
  grpc::ClientContext contexts[2];
  v1::ListModelsResponse models;
  ASSERT_TRUE(stub_->ListModels(&contexts[0], {}, &models).ok());
  EXPECT_THAT(models.models(0).state(), HasSubstr("the device is lost"));
  v1::TokenizeRequest text;
  text.set_text("The king");
  v1::TokenizeResponse tokens;
  ASSERT_TRUE(stub_->Tokenize(&contexts[1], text, &tokens).ok());
  EXPECT_GT(tokens.tokens_size(), 0);

  daemon_.Signal(SIGTERM);
  const ChildResult result = daemon_.Wait(15s);
  EXPECT_FALSE(result.timed_out);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(NothingIsLeft(daemon_));
}

}  // namespace
}  // namespace thermocline
