// The public service over real sockets, on a model without processes.
#include "coordinator/api/grpc_server.h"

#include <gmock/gmock.h>
#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/dynamic_message.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <future>
#include <set>
#include <thread>

#include "coordinator/cli/inference_client.h"
#include "proto/health.grpc.pb.h"
#include "tests/testing/fake_stepper.h"

namespace thermocline {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

bool Never() { return false; }

class GrpcServerTest : public ::testing::Test {
 protected:
  GrpcServerTest()
      : stepper_(new testing::FakeStepper("to be or not", /*n_ctx=*/64, /*batch_size=*/8)),
        inference_(std::unique_ptr<Stepper>(stepper_), /*max_waiting=*/4) {
    auto server = GrpcServer::Start({.address = "127.0.0.1:0", .tls = {}}, &inference_);
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    channel_ = grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials());
    stub_ = v1::Inference::NewStub(channel_);
  }

  static v1::GenerateRequest Greedy(const std::string& prompt) {
    v1::GenerateRequest request;
    request.set_text(prompt);
    request.mutable_sampling()->set_temperature(0);
    return request;
  }
  grpc::Status Generate(const v1::GenerateRequest& request, std::string* text,
                        v1::GenerateResponse* last = nullptr) {
    grpc::ClientContext context;
    const auto reader = stub_->Generate(&context, request);
    v1::GenerateResponse message;
    while (reader->Read(&message)) {
      *text += message.text();
      if (last != nullptr) *last = message;
    }
    return reader->Finish();
  }
  grpc::health::v1::HealthCheckResponse::ServingStatus Health(const std::string& service) {
    grpc::ClientContext context;
    grpc::health::v1::HealthCheckRequest request;
    request.set_service(service);
    grpc::health::v1::HealthCheckResponse response;
    const auto status =
        grpc::health::v1::Health::NewStub(channel_)->Check(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.status();
  }

  testing::FakeStepper* stepper_;
  Inference inference_;
  std::unique_ptr<GrpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Inference::Stub> stub_;
};

TEST_F(GrpcServerTest, GenerateStreamsTextAndEndsWithUsageAndTimings) {
  std::string text;
  v1::GenerateResponse last;
  const grpc::Status status = Generate(Greedy("to be"), &text, &last);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(text, " or not");
  EXPECT_EQ(last.finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(last.usage().prompt_tokens(), 6);
  EXPECT_GT(last.timings().prompt_ms(), 0);
}

TEST_F(GrpcServerTest, ErrorsKeepTheirCodeAndMessage) {
  v1::GenerateRequest request = Greedy("x");
  request.set_max_tokens(-7);
  std::string text;
  const grpc::Status status = Generate(request, &text);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("max_tokens is -7"));
}

TEST_F(GrpcServerTest, TokenizeDetokenizeAndModels) {
  grpc::ClientContext contexts[3];
  v1::TokenizeRequest tokenize;
  tokenize.set_text("hi");
  v1::TokenizeResponse tokens;
  ASSERT_TRUE(stub_->Tokenize(&contexts[0], tokenize, &tokens).ok());
  EXPECT_EQ(tokens.tokens_size(), 2);
  v1::DetokenizeRequest detokenize;
  *detokenize.mutable_tokens() = tokens.tokens();
  v1::DetokenizeResponse text;
  ASSERT_TRUE(stub_->Detokenize(&contexts[1], detokenize, &text).ok());
  EXPECT_EQ(text.text(), "hi");
  v1::ListModelsResponse models;
  ASSERT_TRUE(stub_->ListModels(&contexts[2], {}, &models).ok());
  EXPECT_EQ(models.models(0).id(), "fake.gguf");
}

TEST_F(GrpcServerTest, CancellationFreesTheSessionAtOnce) {
  std::atomic<bool> running = false, open = false;
  stepper_->before_step = [&] {
    running = true;
    while (!open) std::this_thread::sleep_for(1ms);
    return absl::OkStatus();
  };
  grpc::ClientContext context;
  // A prompt of five steps.
  const auto reader = stub_->Generate(&context, Greedy(std::string(39, 'x')));
  while (!running) std::this_thread::sleep_for(1ms);
  context.TryCancel();
  v1::GenerateResponse message;
  EXPECT_FALSE(reader->Read(&message));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  std::this_thread::sleep_for(50ms);  // the server hears of it
  open = true;
  std::string text;
  ASSERT_TRUE(Generate(Greedy("to be"), &text).ok());
  // The step that ran, none after it; then eight of the second request.
  EXPECT_LE(stepper_->step_sizes.size(), 1u + 8u);
}

TEST_F(GrpcServerTest, ConcurrentCallersGetTheirOwnAnswers) {
  std::vector<std::future<std::string>> answers;
  for (int i = 0; i < 4; ++i) {
    answers.push_back(std::async(std::launch::async, [this, i] {
      std::string text;
      EXPECT_TRUE(Generate(Greedy(i % 2 ? "to" : "to be or"), &text).ok());
      return text;
    }));
  }
  for (int i = 0; i < 4; ++i) EXPECT_EQ(answers[i].get(), i % 2 ? " be or not" : " not");
}

TEST_F(GrpcServerTest, HealthFollowsTheFleet) {
  using grpc::health::v1::HealthCheckResponse;
  for (const char* service : {"", "thermocline.v1.Inference"}) {
    EXPECT_EQ(Health(service), HealthCheckResponse::SERVING);
  }
  stepper_->SetState(absl::UnavailableError("worker 0 is lost"));
  const auto deadline = std::chrono::steady_clock::now() + 5s;
  while (Health("") == HealthCheckResponse::SERVING &&
         std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(20ms);
  }
  for (const char* service : {"", "thermocline.v1.Inference"}) {
    EXPECT_EQ(Health(service), HealthCheckResponse::NOT_SERVING);
  }
}

// Reflection's messages are part of gRPC's library, which has no header of them: taken from the
// descriptor pool.
class Reflection {
 public:
  explicit Reflection(const std::shared_ptr<grpc::Channel>& channel) : stub_(channel) {}

  // Sends a request with one string field set, returns the answer as text.
  std::string Ask(const std::string& field, const std::string& value) {
    const auto* pool = google::protobuf::DescriptorPool::generated_pool();
    const auto make = [&](const char* name) {
      const auto* type =
          pool->FindMessageTypeByName(std::string("grpc.reflection.v1alpha.") + name);
      return std::unique_ptr<google::protobuf::Message>(
          google::protobuf::MessageFactory::generated_factory()->GetPrototype(type)->New());
    };
    const auto request = make("ServerReflectionRequest");
    request->GetReflection()->SetString(request.get(),
                                        request->GetDescriptor()->FindFieldByName(field), value);
    grpc::ClientContext context;
    grpc::CompletionQueue queue;
    const auto stream = stub_.PrepareCall(
        &context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
    grpc::Slice slice(request->SerializeAsString());
    grpc::ByteBuffer answer;
    stream->StartCall(&queue);
    Await(&queue);
    stream->Write(grpc::ByteBuffer(&slice, 1), &queue);
    Await(&queue);
    stream->Read(&answer, &queue);
    Await(&queue);
    stream->WritesDone(&queue);
    Await(&queue);
    grpc::Status status;
    stream->Finish(&status, &queue);
    Await(&queue);
    grpc::Slice bytes;
    EXPECT_TRUE(status.ok() && answer.DumpToSingleSlice(&bytes).ok());
    const auto response = make("ServerReflectionResponse");
    EXPECT_TRUE(response->ParseFromArray(bytes.begin(), static_cast<int>(bytes.size())));
    return response->DebugString();
  }

 private:
  static void Await(grpc::CompletionQueue* queue) {
    void* tag;
    bool ok;
    queue->Next(&tag, &ok);
  }
  grpc::GenericStub stub_;
};

TEST_F(GrpcServerTest, ReflectionTellsOfAllServices) {
  Reflection reflection(channel_);
  const std::string services = reflection.Ask("list_services", "");
  EXPECT_THAT(services, HasSubstr("thermocline.v1.Inference"));
  EXPECT_THAT(services, HasSubstr("grpc.health.v1.Health"));
  EXPECT_THAT(reflection.Ask("file_containing_symbol", "thermocline.v1.Inference"),
              HasSubstr("GenerateRequest"));
  EXPECT_THAT(reflection.Ask("file_containing_symbol", "grpc.health.v1.Health"),
              HasSubstr("HealthCheckRequest"));
}

TEST_F(GrpcServerTest, AnAddressInUseIsAnError) {
  const auto second = GrpcServer::Start({.address = server_->address(), .tls = {}}, &inference_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(server_->address()));
}

TEST_F(GrpcServerTest, ServesAUnixSocket) {
  const std::string address = "unix:" + ::testing::TempDir() + "grpc_server_test.sock";
  const auto server = GrpcServer::Start({.address = address, .tls = {}}, &inference_);
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_EQ((*server)->address(), address);
  EXPECT_TRUE(ConnectTo(address, {}, Never).ok());
}

TEST_F(GrpcServerTest, ShutdownCancelsWhatStillRuns) {
  std::atomic<bool> running = false;
  stepper_->before_step = [&] {
    running = true;
    std::this_thread::sleep_for(5ms);
    return absl::OkStatus();
  };
  v1::GenerateRequest endless = Greedy("to");
  endless.set_ignore_eos(true);
  std::string text;
  auto call = std::async(std::launch::async, [&] { return Generate(endless, &text); });
  while (!running) std::this_thread::sleep_for(1ms);
  server_->Shutdown(20ms);
  EXPECT_FALSE(call.get().ok());
  running = false;
  std::this_thread::sleep_for(50ms);
  EXPECT_FALSE(running) << "it still computes";
}

TEST_F(GrpcServerTest, MainsClientSpeaksToIt) {
  auto client = ConnectTo(server_->address(), {}, Never);
  ASSERT_TRUE(client.ok()) << client.status();
  std::string text;
  ASSERT_TRUE((*client)
                  ->Generate(Greedy("to be"), Never,
                             [&](const v1::GenerateResponse& m) {
                               text += m.text();
                               return true;
                             })
                  .ok());
  EXPECT_EQ(text, " or not");
}

TEST_F(GrpcServerTest, MainsClientCancelsTheCall) {
  stepper_->before_step = [] {
    std::this_thread::sleep_for(5ms);
    return absl::OkStatus();
  };
  auto client = ConnectTo(server_->address(), {}, Never);
  ASSERT_TRUE(client.ok()) << client.status();
  v1::GenerateRequest endless = Greedy("to");
  endless.set_ignore_eos(true);
  std::atomic<int> n_messages = 0;
  const absl::Status status = (*client)->Generate(
      endless, [&] { return n_messages > 2; },
      [&](const v1::GenerateResponse&) {
        ++n_messages;
        return true;
      });
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  std::string text;
  EXPECT_TRUE(Generate(Greedy("to be"), &text).ok()) << "the session is free again";
}

TEST_F(GrpcServerTest, MainsClientEmitsNothingAfterItsCallerHasEnough) {
  auto client = ConnectTo(server_->address(), {}, Never);
  ASSERT_TRUE(client.ok()) << client.status();
  v1::GenerateRequest endless = Greedy("to");
  endless.set_ignore_eos(true);
  int n_messages = 0;
  const absl::Status status = (*client)->Generate(
      endless, Never, [&](const v1::GenerateResponse&) { return ++n_messages < 3; });
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(n_messages, 3);
}

// A coordinator that has been stopped answers nothing.
TEST_F(GrpcServerTest, MainsClientCanBeStoppedWhenNobodyAnswers) {
  const std::string address = "unix:" + ::testing::TempDir() + "grpc_server_test_silent.sock";
  struct Silent : v1::Inference::Service {
    grpc::Status ListModels(grpc::ServerContext*, const v1::ListModelsRequest*,
                            v1::ListModelsResponse*) override {
      return grpc::Status::OK;
    }
    grpc::Status Tokenize(grpc::ServerContext* context, const v1::TokenizeRequest*,
                          v1::TokenizeResponse*) override {
      is_asked = true;
      while (!context->IsCancelled()) std::this_thread::sleep_for(1ms);
      return grpc::Status::CANCELLED;
    }
    std::atomic<bool> is_asked = false;
  } service;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(address, grpc::InsecureServerCredentials());
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  auto client = ConnectTo(address, {}, Never);
  ASSERT_TRUE(client.ok()) << client.status();
  const auto tokens = (*client)->Tokenize({}, [&] { return service.is_asked.load(); });
  EXPECT_EQ(tokens.status().code(), absl::StatusCode::kCancelled);
}

TEST_F(GrpcServerTest, PlainTextIsForThisHostOnly) {
  const auto server = GrpcServer::Start({.address = "0.0.0.0:0", .tls = {}}, &inference_);
  EXPECT_EQ(server.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(server.status().message()), HasSubstr("--tls-cert"));
  const auto client = ConnectTo("10.0.0.1:50051", {}, Never);
  EXPECT_EQ(client.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(client.status().message()), HasSubstr("--tls-cert"));
}

TEST(ConnectTo, ACoordinatorThatIsNotThereIsAnError) {
  const auto client = ConnectTo("127.0.0.1:1", {}, Never);
  EXPECT_EQ(client.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(client.status().message()), HasSubstr("127.0.0.1:1"));
}

TEST(Credentials, ACertificateNeedsItsKey) {
  EXPECT_FALSE(ServerCredentials({.ca = "", .cert = "c.pem", .key = ""}).ok());
  const auto missing = ChannelCredentials({.ca = "/nonexistent.pem", .cert = "", .key = ""});
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr("/nonexistent.pem"));
}

}  // namespace
}  // namespace thermocline
