#include "common/plan/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "common/plan/decided_neurons.h"
#include "common/plan/streamed_neurons.h"
#include "tests/testing/dense_plan.h"

namespace thermocline {
namespace {

using ::testing::HasSubstr;

ModelConfig Config() {
  ModelConfig config;
  config.n_layers = 4;
  config.d_model = 64;
  config.d_ff = 160;
  config.n_heads = 8;
  config.n_kv_heads = 4;
  config.d_head = 32;
  config.n_vocab = 1000;
  return config;
}

Plan GoodPlan() {
  return *testing::SplitDense(
      Config(), "hash", {{.node = 0, .n_threads = 2}, {.node = 1, .address = "host:1"}}, {2, 1});
}

std::string ErrorOf(const Plan& plan) {
  return std::string(CheckPlan(plan, Config(), "hash").message());
}

TEST(Plan, SurvivesJson) {
  Plan plan = GoodPlan();
  plan.layers[2].neurons[0] = {{0, 32}, {64, 160}};
  plan.layers[2].neurons[1] = {{32, 64}};
  ASSERT_TRUE(CheckPlan(plan, Config(), "hash").ok());
  const absl::StatusOr<Plan> read = PlanFromJson(PlanToJson(plan));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, plan);
}

TEST(Plan, EqualLayersShareOneEntry) {
  const std::string json = PlanToJson(GoodPlan());
  size_t entries = 0;
  for (size_t at = 0; (at = json.find("kv_heads", at)) != std::string::npos; ++at) ++entries;
  EXPECT_EQ(entries, 1u);
}

TEST(Plan, AFolderOrAnEmptyFileIsNoPlan) {
  EXPECT_THAT(std::string(ReadPlan(::testing::TempDir()).status().message()),
              HasSubstr("nothing to read"));
  EXPECT_THAT(std::string(ReadPlan("/dev/null").status().message()), HasSubstr("nothing to read"));
  EXPECT_THAT(std::string(ReadPlan("/no/such.json").status().message()), HasSubstr("No such file"));
}

TEST(Plan, IsReadBackFromItsFileWhichReplacesAnOlderOne) {
  const std::string path =
      std::filesystem::temp_directory_path() / ("plan_test." + std::to_string(getpid()));
  std::ofstream(path) << "old";
  ASSERT_TRUE(WritePlan(GoodPlan(), path).ok());
  const absl::StatusOr<Plan> read = ReadPlan(path);
  std::filesystem::remove(path);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, GoodPlan());
  EXPECT_THAT(std::string(ReadPlan(path).status().message()), HasSubstr(path));
  EXPECT_FALSE(WritePlan(GoodPlan(), "/no/such/folder/plan.json").ok());
}

TEST(Plan, OfAnotherModelIsRefusedWithBothHashes) {
  Plan plan = GoodPlan();
  plan.model_hash = "other";
  EXPECT_THAT(ErrorOf(plan), HasSubstr("other"));
  EXPECT_THAT(ErrorOf(plan), HasSubstr("hash"));
}

TEST(Plan, MissingNeuronsAreNamed) {
  Plan plan = GoodPlan();
  plan.layers[1].neurons[0] = {{0, 32}};
  EXPECT_THAT(ErrorOf(plan), HasSubstr("layer 1: neurons [32, "));
  EXPECT_THAT(ErrorOf(plan), HasSubstr("belongs to no rank"));
}

TEST(Plan, DoubledNeuronsAreNamed) {
  Plan plan = GoodPlan();
  plan.layers[3].neurons[1] = {{64, 160}};
  EXPECT_THAT(ErrorOf(plan), HasSubstr("layer 3: neurons"));
  EXPECT_THAT(ErrorOf(plan), HasSubstr("another rank, too"));
}

TEST(Plan, CutsInsideAQuantizationBlockAreRefused) {
  Plan plan = GoodPlan();
  plan.layers[0].neurons = {{{0, 40}}, {{40, 160}}};
  EXPECT_THAT(ErrorOf(plan), HasSubstr("multiple of 32"));
}

TEST(Plan, RangesOutsideTheModelAreRefused) {
  Plan plan = GoodPlan();
  plan.vocab[1].end = 1001;
  EXPECT_THAT(ErrorOf(plan), HasSubstr("vocab"));
  plan = GoodPlan();
  plan.layers[0].kv_heads = {{-1, 2}, {2, 4}};
  EXPECT_THAT(ErrorOf(plan), HasSubstr("kv_heads"));
  plan = GoodPlan();
  plan.layers[0].kv_heads = {{0, 2}, {4, 2}};
  EXPECT_THAT(ErrorOf(plan), HasSubstr("kv_heads"));
}

TEST(Plan, WithoutLayersRanksOrThreadsIsRefused) {
  Plan plan = GoodPlan();
  plan.layers.pop_back();
  EXPECT_THAT(ErrorOf(plan), HasSubstr("3 layers"));
  plan = GoodPlan();
  plan.ranks.clear();
  EXPECT_THAT(ErrorOf(plan), HasSubstr("ranks"));
  plan = GoodPlan();
  plan.ranks[1].n_threads = 0;
  EXPECT_THAT(ErrorOf(plan), HasSubstr("rank 1"));
}

// A profile of Config()'s model in which neuron i fired for i % 7 tokens.
Profile SomeProfile() {
  Profile profile;
  profile.model_hash = "hash";
  profile.text_hash = "text";
  profile.n_tokens = 10;
  LayerProfile layer;
  for (uint32_t i = 0; i < 160; ++i) layer.fired.push_back(i % 7);
  profile.layers.assign(4, layer);
  return profile;
}

// Neurons cut anywhere in the profile's order, by two modes, with predictions.
Plan HotColdPlan() {
  Plan plan = GoodPlan();
  plan.profile_hash = ProfileHash(SomeProfile());
  plan.ranks[0].kind = RankKind::kGpu;
  plan.ranks[0].memory_bytes = 123456789;
  for (LayerPlan& layer : plan.layers) layer.neurons = {{{0, 41}}, {{41, 160}}};
  plan.layers[1].mode = Sparsity::kSketch;
  plan.layers[1].sketch_bits = 2;
  plan.layers[2].mode = Sparsity::kPredict;
  plan.layers[2].decider = 0;
  plan.layers[2].kv_heads = {{0, 4}, {}};
  plan.layers[2].predicted_us = {1.5, 0.1};
  plan.predicted_us = 1234.5;
  return plan;
}

std::string ErrorOfHotCold(const Plan& plan) {
  const Profile profile = SomeProfile();
  return std::string(CheckPlan(plan, Config(), "hash", &profile).message());
}

TEST(PlanByProfile, MayCutAnywhereAndSurvivesJson) {
  const Plan plan = HotColdPlan();
  EXPECT_EQ(ErrorOfHotCold(plan), "");
  const absl::StatusOr<Plan> read = PlanFromJson(PlanToJson(plan));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, plan);
}

TEST(PlanByProfile, IsRefusedWithoutItsProfileAndWithAnother) {
  const Plan plan = HotColdPlan();
  EXPECT_THAT(ErrorOf(plan), HasSubstr("--predictor-path"));
  Profile other = SomeProfile();
  ++other.layers[3].fired[159];
  const std::string error(CheckPlan(plan, Config(), "hash", &other).message());
  EXPECT_THAT(error, HasSubstr(plan.profile_hash));
  EXPECT_THAT(error, HasSubstr(ProfileHash(other)));
}

TEST(PlanByProfile, MissingAndDoubledNeuronsAreNamed) {
  Plan plan = HotColdPlan();
  plan.layers[3].neurons[1] = {{42, 160}};
  EXPECT_THAT(ErrorOfHotCold(plan), HasSubstr("neurons [41, 42) belongs to no rank"));
  plan.layers[3].neurons[1] = {{40, 160}};
  EXPECT_THAT(ErrorOfHotCold(plan), HasSubstr("another rank, too"));
}

TEST(PlanByProfile, ModesAreChecked) {
  Plan plan = HotColdPlan();
  plan.layers[1].sketch_bits = 4;
  EXPECT_THAT(ErrorOfHotCold(plan), HasSubstr("sketch bits"));
  plan = HotColdPlan();
  plan.layers[0].sketch_bits = 1;
  EXPECT_THAT(ErrorOfHotCold(plan), HasSubstr("mode off with 1 sketch bits"));
  plan = HotColdPlan();
  plan.layers[2].decider = 2;
  EXPECT_THAT(ErrorOfHotCold(plan), HasSubstr("layer 2: its decider is rank 2"));
  plan.layers[2].decider = 1;  // a CPU
  EXPECT_THAT(ErrorOfHotCold(plan), HasSubstr("only a rank of kind gpu"));
  plan = HotColdPlan();
  plan.layers[2].kv_heads = GoodPlan().layers[2].kv_heads;
  EXPECT_THAT(ErrorOfHotCold(plan), HasSubstr("has all kv_heads"));
  plan = HotColdPlan();
  plan.layers[2].mode = Sparsity::kExact;
  EXPECT_THAT(ErrorOfHotCold(plan), HasSubstr("only in mode predict"));
  plan = HotColdPlan();
  plan.layers[2].predicted_us = {1};
  EXPECT_THAT(ErrorOfHotCold(plan), HasSubstr("us is given for 1 of 2 ranks"));
}

TEST(Plan, ThatNamesAMissingRankIsRefused) {
  Plan plan = GoodPlan();
  plan.layers[2].neurons.push_back({});
  EXPECT_THAT(ErrorOf(plan), HasSubstr("neurons for 3 of 2 ranks"));
  plan = GoodPlan();
  plan.vocab.pop_back();
  EXPECT_THAT(ErrorOf(plan), HasSubstr("vocab is given for 1 of 2 ranks"));
}

TEST(FileNeurons, AreTheRanksOwnInAscendingRuns) {
  LayerPlan layer;
  layer.neurons = {{{0, 4}}, {{4, 8}}};
  const std::vector<int32_t> order = {5, 2, 3, 7, 0, 1, 4, 6};  // hottest first
  EXPECT_EQ(FileNeurons(layer, 0, order), (std::vector<Range>{{2, 4}, {5, 6}, {7, 8}}));
  EXPECT_EQ(FileNeurons(layer, 1, order), (std::vector<Range>{{0, 2}, {4, 5}, {6, 7}}));
  EXPECT_EQ(FileNeurons(layer, 1, {}), (std::vector<Range>{{4, 8}}));
  layer.neurons = {{{0, 2}, {2, 8}}, {}};
  EXPECT_EQ(FileNeurons(layer, 0, order), (std::vector<Range>{{0, 8}}));
  EXPECT_TRUE(FileNeurons(layer, 1, order).empty());
}

TEST(DecidedNeurons, AreAllOfCpuRanksWhichFindTheirPlacesAmongThem) {
  Plan plan;
  plan.ranks.resize(4);
  plan.ranks[1].kind = plan.ranks[3].kind = RankKind::kGpu;
  plan.layers.resize(2);
  plan.layers[0].neurons = {{{0, 3}}, {{3, 5}}, {{5, 9}}, {{9, 10}}};
  plan.layers[0].decider = 3;
  plan.layers[1].neurons = {{{0, 10}}, {}, {}, {}};
  const std::vector<int32_t> order = {5, 2, 7, 0, 1, 3, 8, 4, 6, 9};  // hottest first
  const std::vector<Range> of_cpus = {{2, 9}};
  EXPECT_EQ(NeuronsOfCpus(plan, 0, order), of_cpus);
  EXPECT_EQ(DecidedNeurons(plan, 0, 3, order), of_cpus);
  EXPECT_TRUE(DecidedNeurons(plan, 0, 1, order).empty());
  EXPECT_EQ(ChoicesOfRank(plan, 0, 0, order), (std::vector<Range>{{0, 1}, {3, 4}, {5, 6}}));
  EXPECT_EQ(ChoicesOfRank(plan, 0, 2, order), (std::vector<Range>{{1, 3}, {4, 5}, {6, 7}}));
  EXPECT_TRUE(ChoicesOfRank(plan, 0, 1, order).empty());
  EXPECT_TRUE(ChoicesOfRank(plan, 1, 0, order).empty()) << "each for itself";
  EXPECT_EQ(MaxChoices(plan), 7);

  // Where GPUs' neurons lie between.
  plan.layers[0].neurons = {{{0, 2}, {8, 10}}, {{2, 4}}, {{4, 8}}, {}};
  EXPECT_EQ(NeuronsOfCpus(plan, 0, {}), (std::vector<Range>{{0, 2}, {4, 10}}));
  EXPECT_EQ(ChoicesOfRank(plan, 0, 0, {}), (std::vector<Range>{{0, 2}, {6, 8}}));
  EXPECT_EQ(ChoicesOfRank(plan, 0, 2, {}), (std::vector<Range>{{2, 6}}));
}

TEST(PlanJson, DamageOfAHotColdPlanIsNamed) {
  const std::string good = PlanToJson(HotColdPlan());
  const auto error_with = [&](const std::string& from, const std::string& to) {
    std::string damaged = good;
    const size_t at = damaged.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    damaged.replace(at, from.size(), to);
    return std::string(PlanFromJson(damaged).status().message());
  };
  EXPECT_THAT(error_with("\"gpu\"", "\"tpu\""), HasSubstr("kind"));
  EXPECT_THAT(error_with("\"sketch\"", "\"sketchy\""), HasSubstr("mode"));
  EXPECT_THAT(error_with("\"sketch_bits\":2", "\"sketch_bits\":0"), HasSubstr("sketch_bits"));
  EXPECT_THAT(error_with("[1.5,0.1]", "[1.5,-0.1]"), HasSubstr("us must be"));
  EXPECT_THAT(error_with("\"version\": 2", "\"version\": 1"), HasSubstr("version 1"));
  EXPECT_THAT(error_with("123456789", "-1"), HasSubstr("memory"));
  EXPECT_THAT(error_with("\"decider\":0", "\"decider\":256"), HasSubstr("decider"));
}

TEST(PlanJson, DamageIsNamed) {
  const std::string good = PlanToJson(GoodPlan());
  EXPECT_THAT(std::string(PlanFromJson("{").status().message()), HasSubstr("JSON"));
  EXPECT_THAT(std::string(PlanFromJson("[]").status().message()), HasSubstr("JSON object"));
  for (const std::string key : {"version", "model", "ranks", "threads", "kv_heads", "vocab"}) {
    std::string damaged = good;
    damaged.replace(damaged.find("\"" + key + "\""), key.size() + 2, "\"nothing\"");
    EXPECT_THAT(std::string(PlanFromJson(damaged).status().message()), HasSubstr(key));
  }
  std::string huge = good;
  huge.replace(huge.find("1000"), 4, "18446744073709551615");
  EXPECT_THAT(std::string(PlanFromJson(huge).status().message()), HasSubstr("vocab"));
}

TEST(Tail, SurvivesJsonAndIsWholeAndHeldByCpuRanks) {
  Plan plan = GoodPlan();
  for (LayerPlan& layer : plan.layers) layer.kv_heads = {{0, 4}, {}};
  plan.ranks[0].kind = RankKind::kGpu;
  plan.gpu_ctx = 4096;
  EXPECT_THAT(ErrorOf(plan), HasSubstr("tail_heads is given for 0 ranks"));
  for (LayerPlan& layer : plan.layers) layer.tail_heads = {{}, {0, 4}};
  EXPECT_EQ(ErrorOf(plan), "");
  const absl::StatusOr<Plan> read = PlanFromJson(PlanToJson(plan));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, plan);

  const auto with = [&](std::vector<Range> kv_heads, std::vector<Range> tail_heads) {
    Plan other = plan;
    other.layers[2].kv_heads = std::move(kv_heads);
    other.layers[2].tail_heads = std::move(tail_heads);
    return ErrorOf(other);
  };
  EXPECT_EQ(with({{}, {0, 4}}, {{}, {}}), "");  // of a CPU's own heads there is none
  EXPECT_THAT(with({{0, 4}, {}}, {{}, {0, 3}}), HasSubstr("layer 2: the tail of kv_heads [3, 4)"));
  EXPECT_THAT(with({{0, 4}, {}}, {{0, 4}, {}}), HasSubstr("rank 0 has tail_heads"));
  EXPECT_THAT(with({{0, 2}, {2, 4}}, {{}, {0, 2}}), HasSubstr("rank 1 has tail_heads"));
  EXPECT_THAT(with({{}, {0, 4}}, {{}, {0, 4}}), HasSubstr("tail_heads"));
  plan.gpu_ctx = 0;
  EXPECT_THAT(ErrorOf(plan), HasSubstr("without gpu_ctx"));
}

TEST(StreamTokens, SurviveJsonAndNeedAGpuAndAPrompt) {
  Plan plan = GoodPlan();
  EXPECT_EQ(PlanToJson(plan).find("stream_tokens"), std::string::npos);
  plan.stream_tokens = 100;
  EXPECT_THAT(ErrorOf(plan), HasSubstr("kind gpu"));
  plan.ranks[0].kind = RankKind::kGpu;
  EXPECT_EQ(ErrorOf(plan), "");
  const absl::StatusOr<Plan> read = PlanFromJson(PlanToJson(plan));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, plan);
  for (const int64_t wrong : {int64_t{-1}, kMinStreamTokens - 1}) {
    plan.stream_tokens = wrong;
    EXPECT_THAT(ErrorOf(plan), HasSubstr("stream_tokens"));
  }
}

TEST(CutNeurons, GivesRunsOfAboutAsManyThatShareNoBlockOfTheFile) {
  using Runs = std::vector<std::vector<Range>>;
  EXPECT_EQ(CutNeurons({{0, 128}}, 2), (Runs{{{0, 64}}, {{64, 128}}}));
  EXPECT_EQ(CutNeurons({{5, 20}, {22, 30}, {40, 101}}, 2),
            (Runs{{{5, 20}, {22, 30}, {40, 64}}, {{64, 101}}}));
  EXPECT_EQ(CutNeurons({{3, 9}}, 3), (Runs{{{3, 9}}, {}, {}}));
  EXPECT_EQ(CutNeurons({}, 1), (Runs{{}}));
  EXPECT_EQ(CutNeurons({}, 0), Runs());
}

TEST(StreamedNeurons, AreThoseOfCpuRanksSharedOutOverGpuRanks) {
  Plan plan;
  plan.ranks.resize(4);
  plan.ranks[1].kind = plan.ranks[3].kind = RankKind::kGpu;
  plan.layers.resize(1);
  plan.layers[0].neurons = {{{96, 160}}, {{0, 32}}, {{32, 96}}, {{160, 192}}};
  EXPECT_TRUE(StreamedNeurons(plan, 0, 1, {}).empty());  // a plan that streams nothing
  plan.stream_tokens = 48;
  EXPECT_EQ(StreamedNeurons(plan, 0, 1, {}), (std::vector<Range>{{32, 96}}));
  EXPECT_EQ(StreamedNeurons(plan, 0, 3, {}), (std::vector<Range>{{96, 160}}));
  EXPECT_TRUE(StreamedNeurons(plan, 0, 0, {}).empty());
  EXPECT_TRUE(StreamedNeurons(plan, 0, 2, {}).empty());
  std::vector<int32_t> order(192);  // hottest first: the file's last ones
  for (int32_t i = 0; i < 192; ++i) order[i] = 191 - i;
  EXPECT_EQ(StreamedNeurons(plan, 0, 3, order), (std::vector<Range>{{96, 160}}));
  EXPECT_EQ(StreamedNeurons(plan, 0, 1, order), (std::vector<Range>{{32, 96}}));
}

}  // namespace
}  // namespace thermocline
