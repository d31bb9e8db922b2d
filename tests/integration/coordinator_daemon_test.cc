// build/bin/coordinator with real workers and clients: the public service, main as its client,
// cancellation, the end.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <future>

#include "proto/health.grpc.pb.h"
#include "proto/inference.grpc.pb.h"
#include "tests/integration/programs.h"

namespace thermocline {
namespace {

using namespace std::chrono_literals;
using testing::Child;
using testing::ChildResult;
using ::testing::HasSubstr;

class CoordinatorDaemon : public ::testing::Test {
 protected:
  CoordinatorDaemon()
      : daemon_({ProgramPath("coordinator"), "-m", ShippedModel(), "--listen", "127.0.0.1:0", "-t",
                 "2", "--workers", "2", "-c", "32768"}) {
    const std::string before = "listening on ";
    EXPECT_TRUE(daemon_.WaitForErr(before, 60s)) << daemon_.err();
    EXPECT_TRUE(daemon_.WaitForErr("127.0.0.1:", 5s));
    const std::string err = daemon_.err();
    const size_t begin = err.find(before) + before.size();
    address_ = err.substr(begin, err.find('\n', begin) - begin);
    channel_ = grpc::CreateChannel(address_, grpc::InsecureChannelCredentials());
    stub_ = v1::Inference::NewStub(channel_);
  }

  static v1::GenerateRequest Greedy(const std::string& prompt, int64_t max_tokens) {
    v1::GenerateRequest request;
    request.set_text(prompt);
    request.set_max_tokens(max_tokens);
    request.mutable_sampling()->set_temperature(0);
    return request;
  }
  std::string Generate(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + 60s);
    const auto reader = stub_->Generate(&context, request);
    std::string text;
    v1::GenerateResponse message;
    while (reader->Read(&message)) text += message.text();
    const grpc::Status status = reader->Finish();
    EXPECT_TRUE(status.ok()) << status.error_message();
    return text;
  }

  Child daemon_;
  std::string address_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Inference::Stub> stub_;
};

TEST_F(CoordinatorDaemon, ServesTextTokensModelsAndHealth) {
  grpc::ClientContext contexts[4];
  v1::ListModelsResponse models;
  ASSERT_TRUE(stub_->ListModels(&contexts[0], {}, &models).ok());
  EXPECT_EQ(models.models(0).id(), "reluctant-13m-q8_0.gguf");
  EXPECT_EQ(models.models(0).n_workers(), 2);
  EXPECT_EQ(models.models(0).state(), "serving");

  v1::TokenizeRequest tokenize;
  tokenize.set_text("The king");
  v1::TokenizeResponse tokens;
  ASSERT_TRUE(stub_->Tokenize(&contexts[1], tokenize, &tokens).ok());
  v1::DetokenizeRequest detokenize;
  *detokenize.mutable_tokens() = tokens.tokens();
  v1::DetokenizeResponse text;
  ASSERT_TRUE(stub_->Detokenize(&contexts[2], detokenize, &text).ok());
  EXPECT_EQ(text.text(), "The king");

  grpc::health::v1::HealthCheckResponse health;
  ASSERT_TRUE(grpc::health::v1::Health::NewStub(channel_)->Check(&contexts[3], {}, &health).ok());
  EXPECT_EQ(health.status(), grpc::health::v1::HealthCheckResponse::SERVING);
  EXPECT_NE(Generate(Greedy("The king", 8)), "");
}

TEST_F(CoordinatorDaemon, TellsWhatItsRanksHoldAndDo) {
  EXPECT_NE(Generate(Greedy("The king", 8)), "");
  grpc::ClientContext context;
  v1::StatsResponse stats;
  ASSERT_TRUE(stub_->Stats(&context, {}, &stats).ok());
  ASSERT_EQ(stats.ranks_size(), 2);
  for (const v1::RankStats& rank : stats.ranks()) {
    EXPECT_EQ(rank.carrier(), "shm");
    EXPECT_GT(rank.weight_bytes(), 1 << 20);
    EXPECT_GE(rank.steps(), 8u);
    EXPECT_GT(rank.step_us(), rank.wait_us());
  }
  EXPECT_NEAR(stats.ranks(0).firings_share() + stats.ranks(1).firings_share(), 1, 1e-9);
  const ChildResult remote = testing::RunChild(
      {ProgramPath("main"), "--coordinator", address_, "-p", "The", "-n", "1", "--verbose"});
  EXPECT_EQ(remote.exit_code, 0) << remote.err;
  EXPECT_THAT(remote.err, HasSubstr("us a step"));
}

TEST_F(CoordinatorDaemon, MainAsAClientPrintsTheSameText) {
  const ChildResult remote =
      testing::RunChild({ProgramPath("main"), "--coordinator", address_, "-p", "The king", "-n",
                         "16", "--temp", "0", "--quiet"});
  EXPECT_EQ(remote.exit_code, 0) << remote.err;
  EXPECT_EQ(remote.out, "The king" + Generate(Greedy("The king", 16)));
}

TEST_F(CoordinatorDaemon, ConcurrentCallersGetTheirOwnAnswers) {
  const std::string king = Generate(Greedy("The king", 24));
  const std::string whale = Generate(Greedy("The whale", 24));
  ASSERT_NE(king, whale);
  std::vector<std::future<std::string>> answers;
  for (int i = 0; i < 6; ++i) {
    answers.push_back(std::async(std::launch::async, [this, i] {
      return Generate(Greedy(i % 2 ? "The king" : "The whale", 24));
    }));
  }
  for (int i = 0; i < 6; ++i) EXPECT_EQ(answers[i].get(), i % 2 ? king : whale);
}

TEST_F(CoordinatorDaemon, CancellationFreesTheSessionAtOnce) {
  grpc::ClientContext context;
  v1::GenerateRequest endless = Greedy("The king", -2);
  endless.set_ignore_eos(true);
  const auto reader = stub_->Generate(&context, endless);
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  context.TryCancel();
  while (reader->Read(&message)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  grpc::ClientContext next;
  next.set_deadline(std::chrono::system_clock::now() + 20s);
  const auto second = stub_->Generate(&next, Greedy("The whale", 1));
  v1::GenerateResponse last;
  while (second->Read(&message)) last = message;
  ASSERT_TRUE(second->Finish().ok());
  // The whole context would have taken far longer.
  EXPECT_LT(last.timings().queue_ms(), 500);
}

TEST_F(CoordinatorDaemon, ALostWorkerIsNamedAndTheServiceSaysThatItDoesNotServe) {
  std::vector<pid_t> workers = daemon_.Family();
  std::erase(workers, daemon_.pid());
  ASSERT_EQ(workers.size(), 2u);
  kill(workers[0], SIGKILL);
  const auto health = grpc::health::v1::Health::NewStub(channel_);
  grpc::health::v1::HealthCheckResponse response;
  for (int i = 0; i < 500; ++i) {
    grpc::ClientContext context;
    ASSERT_TRUE(health->Check(&context, {}, &response).ok());
    if (response.status() == grpc::health::v1::HealthCheckResponse::NOT_SERVING) break;
    std::this_thread::sleep_for(10ms);
  }
  EXPECT_EQ(response.status(), grpc::health::v1::HealthCheckResponse::NOT_SERVING);

  grpc::ClientContext contexts[2];
  v1::ListModelsResponse models;
  ASSERT_TRUE(stub_->ListModels(&contexts[0], {}, &models).ok());
  EXPECT_THAT(models.models(0).state(), HasSubstr("worker"));
  const auto reader = stub_->Generate(&contexts[1], Greedy("The king", 4));
  v1::GenerateResponse message;
  EXPECT_FALSE(reader->Read(&message));
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr(std::to_string(workers[0])));
  EXPECT_TRUE(daemon_.WaitForErr("coordinator: error: ", 5s)) << daemon_.err();
}

TEST_F(CoordinatorDaemon, SignalsEndItWithoutALeftover) {
  daemon_.Signal(SIGTERM);
  const ChildResult result = daemon_.Wait(15s);
  EXPECT_FALSE(result.timed_out);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(NothingIsLeft(daemon_));
}

TEST_F(CoordinatorDaemon, ARunningRequestDoesNotKeepItAlive) {
  grpc::ClientContext context;
  v1::GenerateRequest endless = Greedy("The king", -2);
  endless.set_ignore_eos(true);
  const auto reader = stub_->Generate(&context, endless);
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  daemon_.Signal(SIGINT);
  while (reader->Read(&message)) {
  }
  reader->Finish();
  const ChildResult result = daemon_.Wait(15s);
  EXPECT_FALSE(result.timed_out);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(NothingIsLeft(daemon_));
}

TEST_F(CoordinatorDaemon, CtrlCEndsMainWhenTheDaemonIsStopped) {
  Child talk(
      {ProgramPath("main"), "--coordinator", address_, "-i", "--quiet", "-n", "4", "--temp", "0"});
  talk.Type("The king\n");
  ASSERT_TRUE(talk.WaitForOut(" ", 30s)) << talk.err();
  daemon_.Signal(SIGSTOP);
  talk.Type("The queen\n");
  Child late({ProgramPath("main"), "--coordinator", address_, "-p", "The king"});
  std::this_thread::sleep_for(300ms);
  talk.SignalGroup(SIGTERM);
  late.SignalGroup(SIGINT);
  EXPECT_EQ(late.Wait(3s).exit_code, 130);
  EXPECT_EQ(talk.Wait(3s).exit_code, 143);
  daemon_.Signal(SIGCONT);
}

TEST(Coordinator, PlainTextIsNotServedToOtherHosts) {
  const ChildResult result = testing::RunChild(
      {ProgramPath("coordinator"), "-m", ShippedModel(), "--listen", "0.0.0.0:0"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("--tls-ca, --tls-cert and --tls-key"));
}

TEST_F(CoordinatorDaemon, ASecondOneOnTheSameAddressSaysSo) {
  const ChildResult second = testing::RunChild({ProgramPath("coordinator"), "-m", ShippedModel(),
                                                "--listen", address_, "-t", "1", "--quiet"});
  EXPECT_EQ(second.exit_code, 1);
  EXPECT_THAT(second.err, HasSubstr(address_));
}

}  // namespace
}  // namespace thermocline
