// Contexts of which a GPU rank keeps the first positions and CPU ranks the tail: they give what one
// cache for all gives, up to rounding.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/testing/mini_fleet.h"
#include "tests/testing/tiny_llama.h"

namespace thermocline::testing {
namespace {

constexpr int64_t kHeads = 4;

class DeviceTail : public ::testing::Test {
 protected:
  DeviceTail() {
    TinyLlama model;
    model.n_heads = 2 * kHeads;
    model.n_kv_heads = kHeads;
    model.d_head = 32;
    model.n_ctx = 256;
    model.n_vocab = 333;
    model.d_model = 64;
    model.d_ff = 160;
    bytes_ = model.Builder().Build();
    file_ = *GgufFile::Parse(bytes_, "tiny");
    for (int32_t i = 0; i < 30; ++i) tokens_.push_back((i * 37 + 5) % 300 + 3);
  }

  // GPUs have all heads. tails: of each rank, none of a GPU.
  Plan PlanOf(const std::string& kinds, int64_t gpu_ctx, const std::vector<Range>& tails) {
    Plan plan = *MakePlan(*file_, std::vector<double>(kinds.size(), 1), 2);
    const auto n_gpus = std::count(kinds.begin(), kinds.end(), 'g');
    plan.gpu_ctx = gpu_ctx;
    for (LayerPlan& layer : plan.layers) {
      for (int64_t rank = 0; rank < plan.n_ranks(); ++rank) {
        layer.kv_heads[rank] =
            rank < n_gpus ? Range{kHeads * rank / n_gpus, kHeads * (rank + 1) / n_gpus} : Range{};
      }
      layer.tail_heads = tails;
    }
    for (int64_t rank = 0; rank < n_gpus; ++rank) plan.ranks[rank].kind = RankKind::kGpu;
    return plan;
  }
  std::unique_ptr<MiniFleet> Start(const Plan& plan) {
    auto fleet = MiniFleet::Create(file_.get(), plan, options_);
    EXPECT_TRUE(fleet.ok()) << fleet.status();
    return *std::move(fleet);
  }
  std::vector<float> Run(MiniFleet& fleet, int64_t first, int64_t step_tokens) {
    auto logits = fleet.Run({tokens_.begin() + first, tokens_.end()}, first, step_tokens);
    EXPECT_TRUE(logits.ok()) << logits.status();
    return logits.ok() ? *logits : std::vector<float>();
  }
  std::vector<float> Logits(const Plan& plan, int64_t step_tokens) {
    return Run(*Start(plan), 0, step_tokens);
  }

  Bytes bytes_;
  std::unique_ptr<GgufFile> file_;
  std::vector<int32_t> tokens_;
  MiniFleetOptions options_;
};

TEST_F(DeviceTail, ContextsInTwoPlacesGiveWhatOneGives) {
  const std::vector<float> expected = Logits(PlanOf("gcc", 0, {}), 512);
  for (const int64_t gpu_ctx : {1, 19}) {
    const Plan plan = PlanOf("gcc", gpu_ctx, {{}, {0, 3}, {3, 4}});
    EXPECT_LT(RelativeDistance(Logits(plan, 512), expected), 5e-3) << gpu_ctx;
  }
}

// Steps before the tail, across its beginning, and in it; one by one they are graphs of the device.
TEST_F(DeviceTail, StepsOfAnySizeGiveTheSameBits) {
  const Plan plan = PlanOf("gcc", 16, {{}, {0, 1}, {1, 4}});
  const std::vector<float> whole = Logits(plan, 512);
  EXPECT_EQ(Logits(plan, 1), whole);
  EXPECT_EQ(Logits(plan, 7), whole);
  options_.device.step_form = StepForm::kResident;
  EXPECT_EQ(Logits(plan, 1), whole);
}

TEST_F(DeviceTail, GpusThatShareTheHeadsShareATail) {
  const std::vector<float> expected = Logits(PlanOf("ggc", 0, {}), 512);
  const Plan plan = PlanOf("ggc", 9, {{}, {}, {0, 4}});
  EXPECT_LT(RelativeDistance(Logits(plan, 512), expected), 5e-3);
  EXPECT_EQ(Logits(plan, 1), Logits(plan, 512));
}

TEST_F(DeviceTail, AKvCacheInInt8HasATailToo) {
  options_.device_kv_type = kernels::DeviceKvType::kQ8_0;
  const std::vector<float> expected = Logits(PlanOf("gc", 0, {}), 512);
  EXPECT_LT(RelativeDistance(Logits(PlanOf("gc", 9, {{}, {0, 4}}), 512), expected), 2e-2);
}

// A session that goes back overwrites positions on either side.
TEST_F(DeviceTail, PositionsThatAreRunAgainGiveTheSameBits) {
  const Plan plan = PlanOf("gc", 16, {{}, {0, 4}});
  const auto fleet = Start(plan);
  const std::vector<float> first = Run(*fleet, 0, 5);
  const std::vector<float> again = Run(*fleet, 12, 512);
  const std::vector<float> rest(first.end() - static_cast<int64_t>(again.size()), first.end());
  EXPECT_EQ(again, rest);
}

}  // namespace
}  // namespace thermocline::testing
