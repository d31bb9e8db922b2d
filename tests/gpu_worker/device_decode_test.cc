// Graphs of steps: what they take of the device's memory and when, and that a step's bits do not
// depend on which of them it is.
#include "gpu_worker/device_decode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/plan/decided_neurons.h"
#include "fmt/format.h"
#include "gpu_worker/device_forward.h"
#include "tests/testing/mini_fleet.h"
#include "tests/testing/tiny_llama.h"

namespace thermocline::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int64_t kTile = kernels::kAttendTile;

class DeviceDecodeTest : public ::testing::Test {
 protected:
  DeviceDecodeTest() {
    TinyLlama model;
    model.powerinfer = true;
    model.predictor_rank = 32;
    model.n_ctx = 4 * kTile;
    bytes_ = model.Builder().Build();
    file_ = *GgufFile::Parse(bytes_, "tiny");
    config_ = *ReadModelConfig(*file_);
    predictor_ = *PredictorOfModel(*file_, config_);
  }
  // All of the model on one GPU, all layers in this mode.
  Plan PlanOf(Sparsity mode) {
    Plan plan = *MakePlan(*file_, {1}, 1);
    plan.ranks[0].kind = RankKind::kGpu;
    for (LayerPlan& layer : plan.layers) layer.mode = mode;
    return plan;
  }
  // A CPU rank has half of the neurons, which the GPU chooses.
  Plan DecidersPlan() {
    Plan plan = *MakePlan(*file_, {1, 1}, 1);
    plan.ranks[0].kind = RankKind::kGpu;
    for (LayerPlan& layer : plan.layers) {
      layer.kv_heads = {{0, config_.n_kv_heads}, {}};
      layer.mode = Sparsity::kPredict;
      layer.decider = 0;
    }
    return plan;
  }
  DeviceLayers::Options Options(int64_t n_ctx, int64_t tail_begin = 0) {
    return {.n_ctx = n_ctx, .tail_begin = tail_begin};
  }
  // Of the device's memory, for steps by such a plan on a segment.
  int64_t TakenForSteps(const Plan& plan, const DeviceLayers::Options& options,
                        StepForm step_form = StepForm::kGraph) {
    ExchangeShape shape = {plan.n_ranks(),
                           1,
                           static_cast<int32_t>(config_.d_model),
                           static_cast<int32_t>(config_.n_layers),
                           static_cast<int32_t>(config_.n_vocab),
                           1};
    if (options.tail_begin > 0) {
      shape.tail = {static_cast<int32_t>(options.tail_begin), static_cast<int32_t>(config_.n_heads),
                    static_cast<int32_t>(config_.n_kv_heads), static_cast<int32_t>(config_.d_head)};
    }
    shape.n_choices = static_cast<int32_t>(MaxChoices(plan));
    const auto segment = *Segment::Create(shape, /*epoch=*/7, /*spin_us=*/0);
    ShmExchange exchange(segment.get(), 0, 0);
    const auto device = OpenEmulatedDevice({.step_form = step_form});
    const ShardSpec spec = SpecOfRank(plan, 0, nullptr);
    const auto shard =
        DeviceShard::Create(file_.get(), config_, spec,
                            {1, options.device_ctx(),
                             DeviceLayers::WorkspaceBytes(config_, spec, options, &predictor_)},
                            device.get(), file_.get(), &predictor_);
    EXPECT_TRUE(shard.ok()) << shard.status();
    EXPECT_TRUE((*shard)->Load([](int64_t, int64_t) { return true; }).ok());
    const auto forward = DeviceForward::Create(shard->get(), device.get(), options);
    EXPECT_TRUE(forward.ok()) << forward.status();
    const int64_t before = device->Memory()->free_bytes;
    EXPECT_TRUE((*forward)->Prepare(exchange).ok());
    return before - device->Memory()->free_bytes;
  }
  int64_t Planned(const DeviceLayers::Options& options) {
    return DeviceDecode::GraphBytes(options, config_.n_layers, kGraphNodeBytes);
  }
  std::unique_ptr<MiniFleet> Start(const MiniFleetOptions& options) {
    auto fleet = MiniFleet::Create(file_.get(), PlanOf(Sparsity::kExact), options);
    EXPECT_TRUE(fleet.ok()) << fleet.status();
    return *std::move(fleet);
  }

  Bytes bytes_;
  std::unique_ptr<GgufFile> file_;
  ModelConfig config_;
  Predictor predictor_;
};

TEST_F(DeviceDecodeTest, GraphsTakeNoMoreThanIsPlanned) {
  constexpr int64_t kOfControl = 256;
  TraceRecorder trace(100);
  for (TraceRecorder* recorder : {static_cast<TraceRecorder*>(nullptr), &trace}) {
    for (const int64_t tail_begin : {int64_t{0}, int64_t{1}, kTile + 1}) {
      for (const Plan& plan : {PlanOf(Sparsity::kOff), PlanOf(Sparsity::kExact),
                               PlanOf(Sparsity::kPredict), DecidersPlan()}) {
        DeviceLayers::Options options = Options(4 * kTile, tail_begin);
        options.trace = recorder;
        const int64_t taken = TakenForSteps(plan, options), planned = Planned(options);
        const std::string what = fmt::format("{}, {} ranks, {}", SparsityName(plan.layers[0].mode),
                                             plan.n_ranks(), tail_begin);
        EXPECT_LE(taken, planned + kOfControl) << what;
        if (tail_begin == 1) {  // one graph, and the larger one of a tail
          DeviceLayers::Options without = Options(1);
          without.trace = recorder;
          EXPECT_LE(taken - TakenForSteps(plan, without), Planned(without)) << what;
        }
        EXPECT_GT(taken, planned / 2) << what;
        const int64_t of_resident = TakenForSteps(plan, options, StepForm::kResident);
        EXPECT_LE(of_resident, planned + kOfControl) << what;
        EXPECT_GT(of_resident, 0) << what;
      }
    }
  }
}

TEST_F(DeviceDecodeTest, ContextsTwiceAsLongNeedOneGraphMore) {
  const int64_t of_graph = Planned(Options(1));
  EXPECT_EQ(Planned(Options(kTile)), of_graph);
  EXPECT_EQ(Planned(Options(kTile + 1)), 2 * of_graph);
  EXPECT_EQ(Planned(Options(4 * kTile)), 3 * of_graph);
  EXPECT_EQ(Planned(Options(4 * kTile + 1)), 4 * of_graph);
  EXPECT_EQ(Planned(Options(4 * kTile, kTile)), 2 * of_graph);  // one for steps with a tail
  const Plan plan = PlanOf(Sparsity::kOff);
  const int64_t one = TakenForSteps(plan, Options(kTile));
  const int64_t two = TakenForSteps(plan, Options(2 * kTile));
  EXPECT_GT(two - one, of_graph / 2);
  EXPECT_EQ(TakenForSteps(plan, Options(4 * kTile)) - two, two - one);
}

// Steps that tell which form is faster leave nothing behind.
TEST_F(DeviceDecodeTest, TheFormThatIsMeasuredGivesTheSameBitsAndSaysWhatItTook) {
  MiniFleetOptions options;
  options.n_ctx = kTile;
  options.batch_size = options.max_logit_rows = 2;
  const auto graph = Start(options);
  options.device.step_form = StepForm::kFaster;
  const auto faster = Start(options);
  EXPECT_EQ(faster->Run({70, 80, 90}, 0, 1).value(), graph->Run({70, 80, 90}, 0, 1).value());
  EXPECT_EQ(graph->step_form(0), "a graph");
  EXPECT_THAT(faster->step_form(0),
              AllOf(HasSubstr("a graph"), HasSubstr("a resident kernel"), HasSubstr("us without")));
}

// Of a budget that is just enough, and of one that is a byte too small.
TEST_F(DeviceDecodeTest, AShardLeavesGraphsTheirPartOfTheBudget) {
  const auto device = OpenEmulatedDevice({});
  const ShardSpec spec = SpecOfRank(PlanOf(Sparsity::kExact), 0);
  DeviceShard::Options options = {.n_ctx = kTile, .graph_bytes = Planned(Options(kTile))};
  const auto create = [&] {
    return DeviceShard::Create(file_.get(), config_, spec, options, device.get());
  };
  const int64_t before = device->Memory()->free_bytes;
  const auto shard = create();
  ASSERT_TRUE(shard.ok()) << shard.status();
  const int64_t taken = before - device->Memory()->free_bytes;
  EXPECT_EQ(taken, (*shard)->weight_bytes() + (*shard)->kv_bytes() + (*shard)->buffer_bytes());
  options.budget_bytes = taken + options.graph_bytes;
  EXPECT_TRUE(create().ok());
  --options.budget_bytes;
  const absl::Status status = create().status();
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("graphs 0.001 GiB"));
}

// Two tokens one by one are launches of a graph, in one step they are none.
TEST_F(DeviceDecodeTest, EveryGraphGivesTheBitsOfLaunchesAndTakesNoMoreMemory) {
  MiniFleetOptions options;
  options.n_ctx = 4 * kTile - 40;
  options.batch_size = options.max_logit_rows = 2;
  const auto one = Start(options), both = Start(options);
  options.device.step_form = StepForm::kResident;
  const auto resident = Start(options);
  int64_t free_bytes = -1;
  for (const int64_t position :
       {int64_t{0}, kTile - 1, kTile, 2 * kTile - 1, 2 * kTile, options.n_ctx - 2}) {
    const auto by_graph = one->Run({70, 80}, position, 1),
               by_launches = both->Run({70, 80}, position, 2),
               by_resident = resident->Run({70, 80}, position, 1);
    ASSERT_TRUE(by_graph.ok() && by_launches.ok()) << by_graph.status();
    ASSERT_TRUE(by_resident.ok()) << by_resident.status();
    EXPECT_EQ(*by_graph, *by_launches) << position;
    EXPECT_EQ(*by_resident, *by_launches) << position;
    const int64_t now = one->device(0).Memory()->free_bytes;
    EXPECT_EQ(now, free_bytes < 0 ? now : free_bytes) << position;
    free_bytes = now;
  }
}

}  // namespace
}  // namespace thermocline::testing
