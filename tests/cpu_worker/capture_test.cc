// What a capture keeps is what steps computed: judged by a layer worked out here, by the counts of
// mode exact, and by itself under other cuts. Requests that must be refused: worker_test.cc.
#include "cpu_worker/capture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <thread>

#include "common/gguf/dequantize.h"
#include "tests/testing/mini_fleet.h"
#include "tests/testing/tiny_llama.h"

namespace thermocline::testing {
namespace {

using ::testing::HasSubstr;

class CaptureTest : public ::testing::Test {
 protected:
  void SetUp() override {
    bytes_ = model_.Builder().Build();
    auto file = GgufFile::Parse(bytes_, "tiny");
    ASSERT_TRUE(file.ok()) << file.status();
    file_ = *std::move(file);
    tokens_.clear();
    for (int32_t i = 0; i < kTokens; ++i) tokens_.push_back(i * 37 % 300);
  }
  std::vector<double> Values(const std::string& name) const {
    const GgufTensor* tensor = file_->FindTensor(name);
    std::vector<float> values(tensor->dims[0] * tensor->n_rows());
    dequantize(tensor->type, file_->TensorBytes(*tensor).data(),
               static_cast<int64_t>(values.size()), values.data());
    return {values.begin(), values.end()};
  }

  // A fleet with a capture on every rank; layers are sampled on rank 0.
  void Start(Sparsity mode, const std::vector<double>& shares, int64_t n_samples,
             const MiniFleetOptions& options) {
    auto plan = MakePlan(*file_, shares, /*n_threads=*/2);
    ASSERT_TRUE(plan.ok()) << plan.status();
    for (LayerPlan& layer : plan->layers) layer.mode = mode;
    auto fleet = MiniFleet::Create(file_.get(), *plan, options);
    ASSERT_TRUE(fleet.ok()) << fleet.status();
    captures_.clear();
    fleet_ = *std::move(fleet);
    for (int32_t rank = 0; rank < plan->n_ranks(); ++rank) {
      Capture::Options capture = {.d_model = model_.d_model,
                                  .n_counted = {},
                                  .sampled = {},
                                  .n_tokens = kTokens,
                                  .n_samples = n_samples};
      for (const LayerPlan& layer : plan->layers) {
        capture.n_counted.push_back(TotalSize(layer.neurons[rank]));
      }
      if (rank == 0) capture.sampled = {0, 1};
      auto created = Capture::Create(capture);
      ASSERT_TRUE(created.ok()) << created.status();
      captures_.push_back(*std::move(created));
      fleet_->forward(rank).SetCapture(captures_.back());
    }
  }
  void Run(int64_t step_tokens) {
    const auto logits = fleet_->Run(tokens_, 0, step_tokens);
    ASSERT_TRUE(logits.ok()) << logits.status();
  }
  // Of all ranks, in file order: the plan has one range a rank.
  std::vector<uint32_t> Fired(int64_t layer) const {
    std::vector<uint32_t> all;
    for (const auto& capture : captures_) {
      const std::vector<uint32_t> fired = capture->Fired(layer);
      all.insert(all.end(), fired.begin(), fired.end());
    }
    return all;
  }
  static MiniFleetOptions F32() {
    MiniFleetOptions options;
    options.f32_activations = options.f32_kv = true;
    options.n_ctx = options.batch_size = options.max_logit_rows = 64;
    return options;
  }

  static constexpr int64_t kTokens = 24;
  TinyLlama model_ = {.type = TensorType::kF32};
  Bytes bytes_;
  std::unique_ptr<GgufFile> file_;
  std::vector<int32_t> tokens_;
  std::vector<std::shared_ptr<Capture>> captures_;  // outlive the fleet's steps
  std::unique_ptr<MiniFleet> fleet_;
};

std::vector<double> Normed(const std::vector<double>& x, const std::vector<double>& weight) {
  double squares = 0;
  for (const double value : x) squares += value * value;
  const double scale = 1 / std::sqrt(squares / static_cast<double>(x.size()) + 1e-5);
  std::vector<double> normed;
  for (size_t i = 0; i < x.size(); ++i) normed.push_back(x[i] * scale * weight[i]);
  return normed;
}

std::vector<double> Times(const std::vector<double>& matrix, const std::vector<double>& x) {
  std::vector<double> y(matrix.size() / x.size());
  for (size_t i = 0; i < y.size(); ++i) {
    for (size_t k = 0; k < x.size(); ++k) y[i] += matrix[i * x.size() + k] * x[k];
  }
  return y;
}

// The first layer of a token that stands alone: attention over one position is that one's value.
TEST_F(CaptureTest, SamplesAndCountsAreThoseOfALayerWorkedOutByHand) {
  for (const Sparsity mode : {Sparsity::kOff, Sparsity::kExact}) {
    Start(mode, {1}, kTokens, F32());
    const std::vector<double> embedding = Values("token_embd.weight");
    const std::vector<double> gate = Values("blk.0.ffn_gate.weight");
    std::vector<uint32_t> expected_fired(model_.d_ff);
    for (int64_t token = 0; token < kTokens; ++token) {
      const auto logits = fleet_->Run({tokens_[token]}, /*n_past=*/0, /*step_tokens=*/1);
      ASSERT_TRUE(logits.ok()) << logits.status();
      const auto first = embedding.begin() + tokens_[token] * model_.d_model;
      std::vector<double> h(first, first + model_.d_model);
      const std::vector<double> value =
          Times(Values("blk.0.attn_v.weight"), Normed(h, Values("blk.0.attn_norm.weight")));
      std::vector<double> heads;
      for (int64_t head = 0; head < model_.n_heads; ++head) {
        const int64_t kv_head = head / (model_.n_heads / model_.n_kv_heads);
        const auto begin = value.begin() + kv_head * model_.d_head;
        heads.insert(heads.end(), begin, begin + model_.d_head);
      }
      const std::vector<double> attention = Times(Values("blk.0.attn_output.weight"), heads);
      for (size_t i = 0; i < h.size(); ++i) h[i] += attention[i];
      const std::vector<double> input = Normed(h, Values("blk.0.ffn_norm.weight"));
      const std::vector<float> sample = captures_[0]->Samples(0, token, token + 1);
      ASSERT_EQ(sample.size(), input.size());
      // A hundred roundings of f32, of values about 1.
      for (size_t i = 0; i < input.size(); ++i) EXPECT_NEAR(sample[i], input[i], 1e-5) << i;
      const std::vector<double> gates = Times(gate, input);
      for (size_t i = 0; i < gates.size(); ++i) expected_fired[i] += gates[i] > 0;
    }
    EXPECT_EQ(captures_[0]->Fired(0), expected_fired) << SparsityName(mode);
    EXPECT_EQ(captures_[0]->n_tokens(), kTokens);
  }
}

TEST_F(CaptureTest, CountsAreWhatModeExactFires) {
  model_.type = TensorType::kQ8_0;
  SetUp();
  for (const std::vector<double>& shares : {std::vector<double>{1}, {1, 2}}) {
    Start(Sparsity::kExact, shares, 0, {.batch_size = 64, .max_logit_rows = 64});
    Run(8);
    uint64_t sum = 0;
    for (int64_t layer = 0; layer < model_.n_layers; ++layer) {
      const std::vector<uint32_t> fired = Fired(layer);
      EXPECT_EQ(std::ssize(fired), model_.d_ff);
      for (const uint32_t n : fired) sum += n;
    }
    EXPECT_EQ(sum, fleet_->Counts().fired);
    EXPECT_GT(sum, 0u);
  }
}

TEST_F(CaptureTest, DenseLayersCountAsModeExactDoes) {
  model_.type = TensorType::kQ8_0;
  SetUp();
  const MiniFleetOptions options = {.batch_size = 64, .max_logit_rows = 64};
  std::vector<std::vector<uint32_t>> fired;
  std::vector<std::vector<float>> samples;
  for (const Sparsity mode : {Sparsity::kOff, Sparsity::kExact}) {
    for (const int64_t step_tokens : {1, 7, 24}) {
      Start(mode, {1, 2}, kTokens, options);
      Run(step_tokens);
      fired.push_back(Fired(1));
      samples.push_back(captures_[0]->Samples(1, 0, kTokens));
    }
  }
  for (size_t i = 1; i < fired.size(); ++i) {
    EXPECT_EQ(fired[i], fired[0]) << i;
    EXPECT_EQ(samples[i], samples[0]) << i;
  }
  EXPECT_EQ(std::ssize(samples[0]), kTokens * model_.d_model);
}

TEST_F(CaptureTest, SamplesAreSpreadOverTheTokensThatCome) {
  Start(Sparsity::kOff, {1}, kTokens, F32());
  Run(5);
  const std::vector<float> all = captures_[0]->Samples(0, 0, kTokens);
  Start(Sparsity::kOff, {1}, 5, F32());
  Run(5);
  EXPECT_THAT(captures_[0]->Samples(0, 5, 6), ::testing::IsEmpty());
  const int64_t expected[] = {4, 9, 14, 19, 23};  // the last of each fifth of 24 tokens
  for (int64_t i = 0; i < 5; ++i) {
    const auto from = all.begin() + expected[i] * model_.d_model;
    EXPECT_EQ(captures_[0]->Samples(0, i, i + 1), std::vector<float>(from, from + model_.d_model))
        << i;
  }
}

TEST_F(CaptureTest, NothingIsKeptAfterItsEnd) {
  Start(Sparsity::kOff, {1}, kTokens, F32());
  Run(24);
  fleet_->forward(0).SetCapture(nullptr);
  Run(24);
  EXPECT_EQ(captures_[0]->n_tokens(), kTokens);
}

TEST(Capture, TokensBeyondThoseAnnouncedAreCountedAndNotSampled) {
  auto capture = Capture::Create(
      {.d_model = 1, .n_counted = {4}, .sampled = {0}, .n_tokens = 2, .n_samples = 2});
  ASSERT_TRUE(capture.ok()) << capture.status();
  (*capture)->BeginStep(3);
  for (int64_t token = 0; token < 3; ++token) {
    const auto x = static_cast<float>(token);
    (*capture)->Take(0, token, &x);
  }
  (*capture)->EndStep();
  EXPECT_EQ((*capture)->Samples(0, 0, 9), (std::vector<float>{0, 1}));
  EXPECT_EQ((*capture)->n_tokens(), 3);
}

TEST(Capture, AReaderWaitsForTheStepThatRuns) {
  auto capture = Capture::Create(
      {.d_model = 1, .n_counted = {1}, .sampled = {}, .n_tokens = 1, .n_samples = 0});
  ASSERT_TRUE(capture.ok()) << capture.status();
  (*capture)->BeginStep(1);
  std::vector<uint32_t> seen;
  std::thread reader([&] { seen = (*capture)->Fired(0); });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  (*capture)->fired(0)[0] = 7;
  (*capture)->EndStep();
  reader.join();
  EXPECT_THAT(seen, ::testing::ElementsAre(7));
}

TEST(Capture, WhatDoesNotFitInMemoryIsRefusedWithTheNumbers) {
  const auto capture = Capture::Create({.d_model = 8192,
                                        .n_counted = std::vector<int64_t>(80, 0),
                                        .sampled = std::vector<int32_t>(80, 0),
                                        .n_tokens = int64_t{1} << 30,
                                        .n_samples = int64_t{1} << 30});
  EXPECT_TRUE(absl::IsResourceExhausted(capture.status()));
  EXPECT_THAT(std::string(capture.status().message()), HasSubstr("take fewer samples"));
}

}  // namespace
}  // namespace thermocline::testing
