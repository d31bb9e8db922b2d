// GPU ranks on the emulated device: what they compute is what CPU ranks compute, up to rounding.
#include "gpu_worker/device_forward.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>

#include "tests/testing/expected_model.h"
#include "tests/testing/mini_fleet.h"
#include "tests/testing/tiny_llama.h"

namespace thermocline::testing {
namespace {

constexpr double kBound = 2e-2;  // relative distance of logits between plans (DESIGN's)

struct Shape {
  const char* name;
  TensorType type;
  int64_t n_heads, n_kv_heads, d_head;
  const char* activation;
  bool tied;
};

std::vector<Shape> Shapes() {
  return {
      {"Q8_0", TensorType::kQ8_0, 4, 2, 32, "relu", false},
      {"Q4_0Tied", TensorType::kQ4_0, 6, 3, 32, "silu", true},
      {"Q4_K", TensorType::kQ4_K, 4, 4, 64, "relu", false},
      {"Q5_K", TensorType::kQ5_K, 4, 4, 64, "silu", false},
      {"Q6_K", TensorType::kQ6_K, 8, 4, 32, "silu", false},
      {"F16", TensorType::kF16, 4, 1, 32, "relu", false},
      {"BF16", TensorType::kBF16, 2, 1, 32, "silu", true},
      {"F32", TensorType::kF32, 3, 3, 32, "relu", false},
      {"HeadsOf80", TensorType::kF16, 4, 2, 80, "relu", false},
      {"HeadsOf100", TensorType::kQ4_0, 16, 8, 100, "silu", false},
  };
}

class DeviceRanks : public ::testing::TestWithParam<Shape> {
 protected:
  void SetUp() override {
    const Shape& shape = GetParam();
    TinyLlama model;
    model.type = shape.type;
    model.n_heads = shape.n_heads;
    model.n_kv_heads = shape.n_kv_heads;
    model.d_head = shape.d_head;
    model.activation = shape.activation;
    model.tied = shape.tied;
    model.n_ctx = 256;
    model.n_vocab = 333;
    const bool is_k_type = type_info(shape.type)->block_size == 256;
    model.d_model = is_k_type ? 256 : 64;
    model.d_ff = is_k_type ? 512 : 160;
    bytes_ = model.Builder().Build();
    auto file = GgufFile::Parse(bytes_, shape.name);
    ASSERT_TRUE(file.ok()) << file.status();
    file_ = *std::move(file);
    for (int32_t i = 0; i < 21; ++i) tokens_.push_back((i * 37 + 5) % 300 + 3);
  }

  // kinds: 'g' or 'c' of each rank.
  Plan PlanOf(const std::string& kinds, const std::vector<double>& shares) {
    auto plan = MakePlan(*file_, shares, 1);
    EXPECT_TRUE(plan.ok()) << plan.status();
    for (size_t i = 0; i < kinds.size(); ++i) {
      if (kinds[i] == 'g') plan->ranks[i].kind = RankKind::kGpu;
    }
    return *plan;
  }
  std::vector<float> Logits(const Plan& plan, int64_t step_tokens,
                            StepForm step_form = StepForm::kGraph) {
    MiniFleetOptions options;
    options.device.step_form = step_form;
    auto fleet = MiniFleet::Create(file_.get(), plan, options);
    EXPECT_TRUE(fleet.ok()) << fleet.status();
    if (!fleet.ok()) return {};
    auto logits = (*fleet)->Run(tokens_, 0, step_tokens);
    EXPECT_TRUE(logits.ok()) << logits.status();
    return logits.ok() ? *logits : std::vector<float>();
  }

  Bytes bytes_;
  std::unique_ptr<GgufFile> file_;
  std::vector<int32_t> tokens_;
};

TEST_P(DeviceRanks, LogitsAreThoseOfCpuRanks) {
  const std::vector<float> expected = Logits(PlanOf("c", {1}), 512);
  EXPECT_LT(RelativeDistance(Logits(PlanOf("g", {1}), 512), expected), kBound);
  EXPECT_LT(RelativeDistance(Logits(PlanOf("gc", {1, 1}), 512), expected), kBound);
  EXPECT_LT(RelativeDistance(Logits(PlanOf("cgc", {1, 2, 1}), 512), expected), kBound);
  EXPECT_LT(RelativeDistance(Logits(PlanOf("gg", {3, 2}), 512), expected), kBound);
}

TEST_P(DeviceRanks, StepsOfAnySizeGiveTheSameBits) {
  const Plan plan = PlanOf("gc", {2, 1});
  const std::vector<float> whole = Logits(plan, 512);
  EXPECT_EQ(Logits(plan, 1), whole);
  EXPECT_EQ(Logits(plan, 1, StepForm::kResident), whole);
  EXPECT_EQ(Logits(plan, 6), whole);
}

INSTANTIATE_TEST_SUITE_P(Models, DeviceRanks, ::testing::ValuesIn(Shapes()),
                         [](const auto& info) { return std::string(info.param.name); });

using DeviceBest = DeviceRanks;

// The second rank is the GPU: its first token is not 0.
TEST_P(DeviceBest, IsThatOfWholeRows) {
  tokens_.resize(7);
  const Plan plan = PlanOf("cg", {1, 2});
  const std::vector<int32_t> expected = BestOfRows(Logits(plan, 512), 333);
  auto fleet = MiniFleet::Create(file_.get(), plan, MiniFleetOptions());
  ASSERT_TRUE(fleet.ok()) << fleet.status();
  EXPECT_EQ((*fleet)->RunForBest(tokens_, 0, 512).value(), expected);
  EXPECT_EQ((*fleet)->RunForBest(tokens_, 0, 1).value(), expected) << "by graphs";
}

INSTANTIATE_TEST_SUITE_P(Model, DeviceBest, ::testing::Values(Shapes().front()));

// The shipped model: rank 0, a GPU, has attention and the hottest neurons, rank 1 the others.
class DeviceShipped : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string path = THERMOCLINE_SOURCE_DIR "/tests/models/reluctant-13m-q8_0";
    auto model = LoadExpectedModel(path + ".gguf");
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    const auto profile = ReadProfile(path + ".predictor/profile.gguf");
    ASSERT_TRUE(profile.ok()) << profile.status();
    profile_ = *profile;
    options_.profile = &profile_;
    const ExpectedPrompt& prompt = model_.prompts.front();
    tokens_ = prompt.tokens;
    tokens_.insert(tokens_.end(), prompt.greedy.begin(), prompt.greedy.begin() + 4);
  }
  void OpenPredictor() {
    auto file = GgufFile::Open(THERMOCLINE_SOURCE_DIR
                               "/tests/models/reluctant-13m-q8_0.predictor/predictor.gguf");
    ASSERT_TRUE(file.ok()) << file.status();
    predictor_file_ = *std::move(file);
    const auto config = ReadModelConfig(*model_.file);
    ASSERT_TRUE(config.ok()) << config.status();
    auto predictor = ReadPredictor(*predictor_file_, *config, model_.file->ContentHash());
    ASSERT_TRUE(predictor.ok()) << predictor.status();
    predictor_ = *std::move(predictor);
    options_.predictor_file = predictor_file_.get();
    options_.predictor = &predictor_;
  }

  Plan PlanOf(int64_t n_hot, Sparsity mode, int n_cpus = 1) {
    auto plan = MakePlan(*model_.file, std::vector<double>(1 + n_cpus, 1.0), 1);
    EXPECT_TRUE(plan.ok()) << plan.status();
    plan->ranks[0].kind = RankKind::kGpu;
    plan->profile_hash = ProfileHash(profile_);
    for (LayerPlan& layer : plan->layers) {
      const int64_t n_heads = layer.kv_heads.back().end;
      layer.kv_heads.assign(1 + n_cpus, {n_heads, n_heads});
      layer.kv_heads[0] = {0, n_heads};
      layer.neurons.assign(1 + n_cpus, {});
      if (n_hot > 0) layer.neurons[0] = {{0, n_hot}};
      const int64_t n_cold = (kNeurons - n_hot) / n_cpus / 32 * 32;
      for (int64_t i = 0, begin = n_hot; i < n_cpus && n_hot < kNeurons; ++i) {
        const int64_t end = i + 1 == n_cpus ? kNeurons : begin + n_cold;
        layer.neurons[1 + i] = {{begin, end}};
        begin = end;
      }
      layer.mode = mode;
    }
    return *plan;
  }
  Plan CpuPlan(Sparsity mode) {
    auto plan = MakePlan(*model_.file, {1}, 1);
    EXPECT_TRUE(plan.ok()) << plan.status();
    for (LayerPlan& layer : plan->layers) layer.mode = mode;
    return *plan;
  }
  // Of the first tokens.
  std::vector<float> Logits(const Plan& plan, size_t n_tokens, int64_t step_tokens = 512) {
    auto fleet = MiniFleet::Create(model_.file.get(), plan, options_);
    EXPECT_TRUE(fleet.ok()) << fleet.status();
    if (!fleet.ok()) return {};
    auto logits = (*fleet)->Run({tokens_.begin(), tokens_.begin() + n_tokens}, 0, step_tokens);
    EXPECT_TRUE(logits.ok()) << logits.status();
    return logits.ok() ? *logits : std::vector<float>();
  }

  int64_t n_vocab() const { return ReadModelConfig(*model_.file)->n_vocab; }
  // Of each row, -1 where the two largest are nearly the same.
  std::vector<int32_t> BestOfClearRows(const std::vector<float>& logits) const {
    std::vector<int32_t> best = BestOfRows(logits, n_vocab());
    for (size_t i = 0; i < best.size(); ++i) {
      std::vector<float> row(logits.begin() + i * n_vocab(), logits.begin() + (i + 1) * n_vocab());
      std::partial_sort(row.begin(), row.begin() + 2, row.end(), std::greater<>());
      if (row[0] - row[1] < 0.1f) best[i] = -1;
    }
    return best;
  }

  static constexpr int64_t kNeurons = 1536;  // of a layer
  static constexpr size_t kTokens = 5;
  ExpectedModel model_;
  Profile profile_;
  std::unique_ptr<GgufFile> predictor_file_;
  Predictor predictor_;
  MiniFleetOptions options_;
  std::vector<int32_t> tokens_;  // a prompt, and what follows it
};

TEST_F(DeviceShipped, HotNeuronsGiveTheTextOfTheCpu) {
  const ExpectedPrompt& prompt = model_.prompts.front();
  const std::vector<float> logits = Logits(PlanOf(kNeurons / 2, Sparsity::kExact), tokens_.size());
  const std::vector<float> expected(prompt.logits.begin(), prompt.logits.begin() + logits.size());
  EXPECT_LT(RelativeDistance(logits, expected), kBound);
  const auto n_vocab = static_cast<int64_t>(logits.size() / tokens_.size());
  for (size_t i = 0; i < 4 && prompt.margin[i] >= 0.1f; ++i) {
    const float* row = logits.data() + (prompt.tokens.size() - 1 + i) * n_vocab;
    EXPECT_EQ(std::max_element(row, row + n_vocab) - row, prompt.greedy[i]);
  }
}

TEST_F(DeviceShipped, AnyShareOfHotNeuronsInAnyModeGivesTheLogitsOfTheCpu) {
  OpenPredictor();
  for (const Sparsity mode : {Sparsity::kOff, Sparsity::kExact, Sparsity::kPredict}) {
    const std::vector<float> expected = Logits(CpuPlan(mode), kTokens);
    for (const int64_t n_hot : {int64_t{0}, kNeurons / 10, kNeurons / 2, kNeurons}) {
      EXPECT_LT(RelativeDistance(Logits(PlanOf(n_hot, mode), kTokens), expected), kBound)
          << SparsityName(mode) << ", " << n_hot << " hot neurons";
    }
  }
}

// Too long for CI: tests/run_large. All of a prompt and what follows it, token by token.
TEST_F(DeviceShipped, DISABLED_EveryCombinationGivesTheTextOfTheCpu) {
  OpenPredictor();
  for (const Sparsity mode : {Sparsity::kOff, Sparsity::kExact, Sparsity::kPredict}) {
    const std::vector<float> expected = Logits(CpuPlan(mode), tokens_.size());
    const std::vector<int32_t> best = BestOfClearRows(expected);
    for (const int64_t n_hot : {int64_t{0}, kNeurons / 10, kNeurons / 2, kNeurons}) {
      for (const int n_cpus : {1, 2}) {
        for (const bool decides : {false, true}) {
          if (decides && (mode != Sparsity::kPredict || n_hot == kNeurons)) continue;
          Plan plan = PlanOf(n_hot, mode, n_cpus);
          for (LayerPlan& layer : plan.layers) layer.decider = decides ? 0 : -1;
          for (const StepForm form : {StepForm::kGraph, StepForm::kResident}) {
            options_.device.step_form = form;
            const std::vector<float> logits = Logits(plan, tokens_.size(), 1);
            const double distance = RelativeDistance(logits, expected);
            std::printf("%s, %lld hot, %d CPU ranks%s, %s: %.4f\n", SparsityName(mode),
                        static_cast<long long>(n_hot), n_cpus, decides ? ", GPU decides" : "",
                        form == StepForm::kGraph ? "graph" : "resident", distance);
            EXPECT_LT(distance, kBound);
            const std::vector<int32_t> found = BestOfRows(logits, n_vocab());
            for (size_t i = 0; i < best.size(); ++i) {
              EXPECT_TRUE(best[i] < 0 || best[i] == found[i]) << "token " << i;
            }
          }
        }
      }
    }
  }
}

TEST_F(DeviceShipped, AGpuMayChooseForTheCpu) {
  OpenPredictor();
  Plan plan = PlanOf(kNeurons / 10, Sparsity::kPredict);
  for (LayerPlan& layer : plan.layers) layer.decider = 0;
  const std::vector<float> logits = Logits(plan, kTokens);
  EXPECT_LT(RelativeDistance(logits, Logits(CpuPlan(Sparsity::kPredict), kTokens)), kBound);
  EXPECT_EQ(Logits(plan, kTokens, 1), logits);
  options_.device.step_form = StepForm::kResident;
  EXPECT_EQ(Logits(plan, kTokens, 1), logits);
}

TEST_F(DeviceShipped, ThePredictorsBiasIsThatOfTheHotNeurons) {
  OpenPredictor();
  const auto config = ReadModelConfig(*model_.file);
  ASSERT_TRUE(config.ok()) << config.status();
  const auto device = OpenDevice("emulated");
  ASSERT_TRUE(device.ok()) << device.status();
  const ShardSpec spec = SpecOfRank(PlanOf(kNeurons / 10, Sparsity::kPredict), 0, &profile_);
  const auto shard = DeviceShard::Create(model_.file.get(), *config, spec, {}, device->get(),
                                         predictor_file_.get(), &predictor_);
  ASSERT_TRUE(shard.ok()) << shard.status();
  ASSERT_TRUE((*shard)->Load([](int64_t, int64_t) { return true; }).ok());
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const GgufTensor* bias = predictor_.layers[i].bias;
    ASSERT_NE(bias, nullptr);
    std::vector<float> all(kNeurons), expected, actual(kNeurons / 10);
    std::memcpy(all.data(), predictor_file_->TensorBytes(*bias).data(), kNeurons * sizeof(float));
    for (const Range& range : spec.layers[i].neurons) {
      expected.insert(expected.end(), all.begin() + range.begin, all.begin() + range.end);
    }
    const float* from = (*shard)->layers()[i].predictor.bias;
    ASSERT_TRUE((*device)->Download(actual.data(), from, kNeurons / 10 * sizeof(float)).ok());
    ASSERT_TRUE((*device)->Synchronize().ok());
    EXPECT_EQ(actual, expected) << "layer " << i;
  }
}

TEST_F(DeviceShipped, ExactIsOffAndStepsOfAnySizeAreTheSameToTheBit) {
  OpenPredictor();
  const std::vector<float> off = Logits(PlanOf(kNeurons / 2, Sparsity::kOff), kTokens);
  EXPECT_EQ(Logits(PlanOf(kNeurons / 2, Sparsity::kExact), kTokens), off);
  EXPECT_EQ(Logits(PlanOf(kNeurons / 2, Sparsity::kExact), kTokens, 1), off);
  const std::vector<float> predicted = Logits(PlanOf(kNeurons / 2, Sparsity::kPredict), kTokens);
  EXPECT_NE(predicted, off);
  EXPECT_EQ(Logits(PlanOf(kNeurons / 2, Sparsity::kPredict), kTokens, 1), predicted);
}

TEST_F(DeviceShipped, PromptsByGemmGiveTheLogitsOfTheCpuInEveryMode) {
  OpenPredictor();
  const std::vector<int32_t> more = tokens_;
  while (tokens_.size() < kGemmTokens + 5) tokens_.insert(tokens_.end(), more.begin(), more.end());
  const auto by_gemm = [this](Sparsity mode) {
    return Logits(PlanOf(kNeurons / 2, mode), kGemmTokens + 5);
  };
  const std::vector<float> off = by_gemm(Sparsity::kOff);
  EXPECT_EQ(by_gemm(Sparsity::kExact), off);
  EXPECT_LT(RelativeDistance(off, Logits(CpuPlan(Sparsity::kOff), kGemmTokens + 5)), kBound);
  EXPECT_NE(Logits(PlanOf(kNeurons / 2, Sparsity::kOff), kGemmTokens + 5, kGemmTokens - 1), off);
  EXPECT_LT(RelativeDistance(by_gemm(Sparsity::kPredict),
                             Logits(CpuPlan(Sparsity::kPredict), kGemmTokens + 5)),
            kBound);
}

TEST_F(DeviceShipped, AKvCacheInInt8GivesCloseLogitsInHalfTheMemory) {
  const Plan plan = PlanOf(0, Sparsity::kOff);
  const std::vector<float> f16 = Logits(plan, 2 * kTokens);
  options_.device_kv_type = kernels::DeviceKvType::kQ8_0;
  const std::vector<float> int8 = Logits(plan, 2 * kTokens);
  EXPECT_NE(int8, f16);
  EXPECT_LT(RelativeDistance(int8, f16), kBound);
  const auto config = ReadModelConfig(*model_.file);
  ASSERT_TRUE(config.ok()) << config.status();
  const auto device = OpenDevice("emulated");
  ASSERT_TRUE(device.ok()) << device.status();
  const auto kv_bytes = [&](kernels::DeviceKvType type) {
    const auto shard =
        DeviceShard::Create(model_.file.get(), *config, SpecOfRank(plan, 0, &profile_),
                            {1, 512, 0, 0, type}, device->get());
    EXPECT_TRUE(shard.ok()) << shard.status();
    return shard.ok() ? (*shard)->kv_bytes() : 0;
  };
  // 32 values: 32 bytes and an f16 scale, instead of 64 bytes.
  EXPECT_EQ(kv_bytes(kernels::DeviceKvType::kQ8_0) * 64,
            kv_bytes(kernels::DeviceKvType::kF16) * 34);
}

// OpenLLaMA 3B's.
TEST(DeviceHeads, OfNoMultipleOf32HaveARowOfOneInTheCache) {
  TinyLlama model;
  model.n_heads = model.n_kv_heads = 8;
  model.d_head = 100;
  const Bytes bytes = model.Builder().Build();
  const auto file = GgufFile::Parse(bytes, "test.gguf");
  ASSERT_TRUE(file.ok()) << file.status();
  const auto config = ReadModelConfig(**file);
  ASSERT_TRUE(config.ok()) << config.status();
  auto plan = MakePlan(**file, {1}, 1);
  ASSERT_TRUE(plan.ok()) << plan.status();
  const auto device = OpenDevice("emulated");
  ASSERT_TRUE(device.ok()) << device.status();
  const auto shard =
      DeviceShard::Create(file->get(), *config, SpecOfRank(*plan, 0), {2, 64}, device->get());
  ASSERT_TRUE(shard.ok()) << shard.status();
  EXPECT_EQ((*shard)->kv_bytes(), 2 * 2 * 64 * 8 * (128 + 128) * 2);  // layers, slots, ..., f16

  std::vector<int32_t> tokens;  // by gemm
  for (int32_t i = 0; i < kGemmTokens; ++i) tokens.push_back((i * 37 + 5) % 300 + 3);
  const auto logits = [&](kernels::DeviceKvType type) {
    MiniFleetOptions options;
    options.device_kv_type = type;
    auto fleet = MiniFleet::Create(file->get(), *plan, options);
    EXPECT_TRUE(fleet.ok()) << fleet.status();
    return fleet.ok() ? (*fleet)->Run(tokens, 0, 512) : fleet.status();
  };
  const auto of_cpu = logits(kernels::DeviceKvType::kF16);
  plan->ranks[0].kind = RankKind::kGpu;
  const auto f16 = logits(kernels::DeviceKvType::kF16), int8 = logits(kernels::DeviceKvType::kQ8_0);
  ASSERT_TRUE(of_cpu.ok() && f16.ok() && int8.ok()) << of_cpu.status() << f16.status();
  EXPECT_LT(RelativeDistance(*f16, *of_cpu), kBound);
  EXPECT_NE(*int8, *f16);
  EXPECT_LT(RelativeDistance(*int8, *f16), kBound);
}

TEST(DeviceHeads, OfNoMultipleOf4AreRefusedWithTheRemedy) {
  TinyLlama model;
  model.n_heads = model.n_kv_heads = 16;
  model.d_head = 6;
  const Bytes bytes = model.Builder().Build();
  const auto file = GgufFile::Parse(bytes, "test.gguf");
  ASSERT_TRUE(file.ok()) << file.status();
  const auto config = ReadModelConfig(**file);
  ASSERT_TRUE(config.ok()) << config.status();
  const auto plan = MakePlan(**file, {1}, 1);
  ASSERT_TRUE(plan.ok()) << plan.status();
  const auto device = OpenDevice("emulated");
  ASSERT_TRUE(device.ok()) << device.status();
  const auto shard =
      DeviceShard::Create(file->get(), *config, SpecOfRank(*plan, 0), {}, device->get());
  EXPECT_EQ(shard.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(shard.status().message()),
              ::testing::AllOf(::testing::HasSubstr("heads of 6 values"),
                               ::testing::HasSubstr("--gpu-device none")));
}

TEST(DeviceMemory, MoreThanTheBudgetIsRefusedWithWhatEachPartTakes) {
  const auto model =
      LoadExpectedModel(THERMOCLINE_SOURCE_DIR "/tests/models/reluctant-13m-q8_0.gguf");
  ASSERT_TRUE(model.ok()) << model.status();
  const auto config = ReadModelConfig(*model->file);
  ASSERT_TRUE(config.ok()) << config.status();
  const auto plan = MakePlan(*model->file, {1}, 1);
  ASSERT_TRUE(plan.ok()) << plan.status();
  const auto device = OpenDevice("emulated");
  ASSERT_TRUE(device.ok()) << device.status();
  const DeviceShard::Options options = {1, 512, 1 << 20, /*budget_bytes=*/1 << 20};
  const auto shard =
      DeviceShard::Create(model->file.get(), *config, SpecOfRank(*plan, 0), options, device->get());
  EXPECT_EQ(shard.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(shard.status().message()),
              ::testing::AllOf(::testing::HasSubstr("KV cache"), ::testing::HasSubstr("graphs"),
                               ::testing::HasSubstr("raise --vram-budget to")));
}

TEST(DeviceNames, OnlyThoseThatCanBe) {
  EXPECT_EQ(OpenDevice("gpu").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(OpenDevice("cuda:").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(OpenDevice("cuda:-1").status().code(), absl::StatusCode::kInvalidArgument);
  for (const char* name : {"cuda:4095", "cuda:4095:step=graph"}) {  // more than a machine has
    const auto card = OpenDevice(name);
    EXPECT_FALSE(card.ok());
    EXPECT_THAT(std::string(card.status().message()), ::testing::HasSubstr("cuda:4095: "));
  }
}

TEST(DeviceNames, TakeTheOptionsOfTheirKind) {
  for (const char* name : {"emulated:step=kernel", "emulated:step",
                           "emulated:fail=", "emulated:", "emulated:sleep=10:step=resident",
                           "cuda:0:sleep=10", "cuda:0:step=", "cuda:0:"}) {
    const absl::Status status = OpenDevice(name).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("step=graph")) << name;
  }
  EXPECT_EQ((*OpenDevice("emulated"))->step_form(), StepForm::kGraph);
  EXPECT_EQ((*OpenDevice("emulated:step=resident"))->step_form(), StepForm::kResident);
  EXPECT_EQ((*OpenDevice("emulated:after=3:step=faster"))->step_form(), StepForm::kFaster);
}

}  // namespace
}  // namespace thermocline::testing
