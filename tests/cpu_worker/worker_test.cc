// The worker without its wire: order of calls, and requests that must be refused without harm.
#include "cpu_worker/worker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "common/util/version.h"
#include "tests/testing/tiny_llama.h"

namespace thermocline::testing {
namespace {

using ::testing::HasSubstr;

class WorkerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = std::filesystem::temp_directory_path() /
            ("worker_test." + std::to_string(getpid()) + ".gguf");
    const Bytes bytes = TinyLlama().Builder().Build();
    std::ofstream(path_, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
    auto file = GgufFile::Open(path_);
    ASSERT_TRUE(file.ok()) << file.status();
    hash_ = (*file)->ContentHash();
  }
  void TearDown() override { std::filesystem::remove(path_); }

  // A whole model on one rank; TinyLlama's dimensions.
  worker::v1::ConfigureRequest Request() const {
    worker::v1::ConfigureRequest request;
    request.set_version(kVersion);
    request.set_exchange_layout(kExchangeLayout);
    request.set_n_ranks(1);
    request.set_model_path(path_);
    request.set_model_hash(hash_);
    const TinyLlama model;
    for (int64_t i = 0; i < model.n_layers; ++i) {
      worker::v1::LayerShard* layer = request.add_layers();
      layer->mutable_kv_heads()->set_end(model.n_kv_heads);
      layer->add_neuron_bounds(0);
      layer->add_neuron_bounds(static_cast<uint32_t>(model.d_ff));
    }
    request.mutable_vocab()->set_end(model.n_vocab);
    request.set_node(-1);
    request.set_n_threads(2);
    request.set_isa("auto");
    request.set_kv_type("f16");
    request.set_n_ctx(64);
    request.set_n_slots(1);
    worker::v1::ExchangeShape* shape = request.mutable_exchange();
    shape->set_n_ranks(1);
    shape->set_max_tokens(8);
    shape->set_d_model(static_cast<int32_t>(model.d_model));
    shape->set_n_layers(static_cast<int32_t>(model.n_layers));
    shape->set_n_vocab(static_cast<int32_t>(model.n_vocab));
    shape->set_max_logit_rows(1);
    return request;
  }
  std::string ErrorOf(const worker::v1::ConfigureRequest& request) {
    CpuWorker worker;
    return std::string(worker.Configure(request).status().message());
  }
  static bool KeepGoing(int64_t, int64_t) { return true; }

  std::string path_, hash_;
};

TEST_F(WorkerTest, LoadsItsShardAndReportsIt) {
  CpuWorker worker;
  const auto response = worker.Configure(Request());
  ASSERT_TRUE(response.ok()) << response.status();
  int64_t last_done = 0, last_total = 0;
  ASSERT_TRUE(worker
                  .LoadShard([&](int64_t done, int64_t total) {
                    EXPECT_GE(done, last_done);
                    last_done = done;
                    last_total = total;
                    return true;
                  })
                  .ok());
  EXPECT_EQ(last_done, last_total);
  EXPECT_EQ(last_total, response->weight_bytes());
  const worker::v1::StatsResponse stats = worker.Stats();
  EXPECT_EQ(stats.weight_bytes(), response->weight_bytes());
  EXPECT_GT(stats.token_bytes(), 0);
  EXPECT_LE(stats.token_bytes(), stats.weight_bytes());  // packed rows are padded
  EXPECT_EQ(stats.n_threads(), 2);
}

TEST_F(WorkerTest, CallsOutOfOrderAreRefused) {
  CpuWorker worker;
  EXPECT_TRUE(absl::IsFailedPrecondition(worker.LoadShard(KeepGoing)));
  EXPECT_TRUE(absl::IsFailedPrecondition(worker.StartServing("shm")));
  EXPECT_TRUE(absl::IsFailedPrecondition(worker.PrepareReadTest(1 << 20).status()));
  ASSERT_TRUE(worker.Configure(Request()).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(worker.StartServing("shm")));
  ASSERT_TRUE(worker.LoadShard(KeepGoing).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(worker.LoadShard(KeepGoing)));
  ASSERT_TRUE(worker.StartServing("shm").ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(worker.StartServing("grpc")));
  EXPECT_THAT(std::string(worker.Configure(Request()).status().message()),
              HasSubstr("another coordinator"));
}

TEST_F(WorkerTest, ACancelledLoadLeavesNothingThatCouldBeServed) {
  CpuWorker worker;
  ASSERT_TRUE(worker.Configure(Request()).ok());
  EXPECT_TRUE(absl::IsCancelled(worker.LoadShard([](int64_t, int64_t) { return false; })));
  EXPECT_TRUE(absl::IsFailedPrecondition(worker.LoadShard(KeepGoing)));
  EXPECT_TRUE(worker.Configure(Request()).ok());  // a new fleet may come
}

TEST_F(WorkerTest, AnotherVersionOrModelIsRefusedWithBothNamed) {
  worker::v1::ConfigureRequest request = Request();
  request.set_version("9.9.9");
  EXPECT_THAT(ErrorOf(request), HasSubstr("9.9.9"));
  EXPECT_THAT(ErrorOf(request), HasSubstr(kVersion));
  request = Request();
  request.set_exchange_layout(kExchangeLayout + 7);
  EXPECT_THAT(ErrorOf(request), HasSubstr(std::to_string(kExchangeLayout + 7)));
  request = Request();
  request.set_model_hash("0123");
  EXPECT_THAT(ErrorOf(request), HasSubstr("0123"));
  EXPECT_THAT(ErrorOf(request), HasSubstr(hash_));
}

TEST_F(WorkerTest, NumbersThatDoNotFitTheModelAreRefused) {
  using Request = worker::v1::ConfigureRequest;
  const std::vector<std::pair<const char*, std::function<void(Request&)>>> changes = {
      {"n_threads", [](Request& r) { r.set_n_threads(0); }},
      {"n_threads", [](Request& r) { r.set_n_threads(1 << 30); }},
      {"n_ctx", [](Request& r) { r.set_n_ctx(-1); }},
      {"n_slots", [](Request& r) { r.set_n_slots(0); }},
      {"isa", [](Request& r) { r.set_isa("sse"); }},
      {"layers", [](Request& r) { r.mutable_layers()->RemoveLast(); }},
      {"kv_heads", [](Request& r) { r.mutable_layers(1)->mutable_kv_heads()->set_end(99); }},
      {"kv_heads", [](Request& r) { r.mutable_layers(1)->mutable_kv_heads()->set_begin(-2); }},
      {"neurons", [](Request& r) { r.mutable_layers(0)->set_neuron_bounds(0, 1u << 30); }},
      {"neurons", [](Request& r) { r.mutable_layers(0)->set_neuron_bounds(1, 0xffffffffu); }},
      {"pairs", [](Request& r) { r.mutable_layers(0)->add_neuron_bounds(96); }},
      {"ascending",
       [](Request& r) {
         r.mutable_layers(0)->add_neuron_bounds(0);
         r.mutable_layers(0)->add_neuron_bounds(32);
       }},
      {"streamed neurons", [](Request& r) { r.mutable_layers(0)->add_streamed_bounds(32); }},
      {"stream_tokens",
       [](Request& r) {
         r.mutable_layers(0)->add_streamed_bounds(0);
         r.mutable_layers(0)->add_streamed_bounds(32);
       }},
      {"stream_tokens", [](Request& r) { r.set_stream_tokens(kMinStreamTokens - 1); }},
      {"stream_tokens", [](Request& r) { r.set_stream_tokens(-1); }},
      {"choices", [](Request& r) { r.mutable_layers(0)->add_choice_bounds(0); }},
      {"choices go with mode predict",
       [](Request& r) {
         r.mutable_exchange()->set_n_choices(64);
         r.mutable_layers(0)->add_choice_bounds(0);
         r.mutable_layers(0)->add_choice_bounds(32);
       }},
      {"one for each neuron",
       [](Request& r) {
         r.mutable_exchange()->set_n_choices(64);
         r.mutable_layers(0)->set_mode(worker::v1::LayerShard::PREDICT);
         r.mutable_layers(0)->add_choice_bounds(0);
         r.mutable_layers(0)->add_choice_bounds(32);
       }},
      {"up to the exchange's 31",
       [](Request& r) {
         r.mutable_exchange()->set_n_choices(31);
         r.mutable_layers(0)->set_mode(worker::v1::LayerShard::PREDICT);
         r.mutable_layers(0)->add_decided_bounds(0);
         r.mutable_layers(0)->add_decided_bounds(32);
       }},
      {"mode", [](Request& r) { r.mutable_layers(0)->set_mode(worker::v1::LayerShard::Mode(9)); }},
      {"sketch_bits",
       [](Request& r) { r.mutable_layers(0)->set_mode(worker::v1::LayerShard::SKETCH); }},
      {"sketch_bits", [](Request& r) { r.mutable_layers(0)->set_sketch_bits(1); }},
      {"threshold", [](Request& r) { r.mutable_layers(0)->set_threshold(NAN); }},
      {"predictor",
       [](Request& r) { r.mutable_layers(0)->set_mode(worker::v1::LayerShard::PREDICT); }},
      {"vocab", [](Request& r) { r.mutable_vocab()->set_end(321); }},
      {"exchange", [](Request& r) { r.mutable_exchange()->set_d_model(65); }},
      {"rank", [](Request& r) { r.set_rank(1); }},
      {"KV cache", [](Request& r) { r.set_n_ctx(1 << 24), r.set_n_slots(4096); }},
      {"tanh", [](Request& r) { r.set_hidden_activation("tanh"); }},
  };
  for (const auto& [named, change] : changes) {
    Request request = this->Request();
    change(request);
    EXPECT_THAT(ErrorOf(request), HasSubstr(named));
  }
  Request request = this->Request();
  request.mutable_exchange()->set_max_tokens(-5);
  EXPECT_FALSE(ErrorOf(request).empty());
}

}  // namespace
}  // namespace thermocline::testing
