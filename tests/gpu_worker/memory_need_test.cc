// What a message about memory tells people to set is enough.
#include "gpu_worker/memory_need.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace thermocline {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kMib = 1 << 20;

MemoryNeed Need() {
  return {.weight_bytes = 3000 * kMib,
          .kv_bytes = 1024 * kMib,
          .buffer_bytes = 80 * kMib,
          .graph_bytes = 20 * kMib,
          .budget_bytes = 4000 * kMib,
          .free_bytes = 8000 * kMib,
          .n_ctx = 4096,
          .n_whole_layers = 32};
}

// The number behind `text` in the message.
double After(const std::string& message, const std::string& text) {
  EXPECT_THAT(message, HasSubstr(text));
  const size_t at = message.find(text);
  return at == std::string::npos ? 0 : std::stod(message.substr(at + text.size()));
}

TEST(MemoryNeed, ABudgetOrAContextAsItSaysIsEnough) {
  MemoryNeed need = Need();
  ASSERT_FALSE(need.fits());
  const std::string message = need.Describe();
  EXPECT_THAT(message, HasSubstr("graphs 0.020 GiB"));
  MemoryNeed other = need;
  other.budget_bytes =
      static_cast<int64_t>(After(message, "raise --vram-budget to ") * 1024) * kMib;
  EXPECT_TRUE(other.fits());
  other.budget_bytes -= 11 * kMib;
  EXPECT_FALSE(other.fits());

  const auto n_ctx = static_cast<int64_t>(After(message, "lower --ctx-size to "));
  need.kv_bytes = need.kv_bytes / need.n_ctx * n_ctx;
  EXPECT_TRUE(need.fits());
  EXPECT_GT(n_ctx, 3500);
}

TEST(MemoryNeed, FewerLayersAsItSaysAreEnough) {
  MemoryNeed need = Need();
  const auto n_layers = static_cast<int64_t>(After(need.Describe(), "lower --gpu-layers to "));
  EXPECT_EQ(n_layers, 31);
  need.weight_bytes = need.weight_bytes * n_layers / need.n_whole_layers;
  need.kv_bytes = need.kv_bytes * n_layers / need.n_whole_layers;
  EXPECT_TRUE(need.fits());
}

TEST(MemoryNeed, WhereTheDeviceHasLessThanTheBudgetThatIsWhatToLower) {
  MemoryNeed need = Need();
  need.free_bytes = 2000 * kMib;
  EXPECT_EQ(need.limit_bytes(), need.free_bytes);
  EXPECT_THAT(need.Describe(), HasSubstr("lower --vram-budget to 1.95"));
  EXPECT_THAT(need.Describe(), Not(HasSubstr("--ctx-size")));  // the weights alone are more
}

TEST(CheckTaken, AllowsWhatIsPromisedAndALittleOfTheDrivers) {
  EXPECT_TRUE(CheckTaken("cuda:0", 1000 * kMib, 1000 * kMib).ok());
  EXPECT_TRUE(CheckTaken("cuda:0", 1000 * kMib, 1032 * kMib).ok());
  EXPECT_TRUE(CheckTaken("cuda:0", 0, 1 << 30).ok());
  const absl::Status status = CheckTaken("cuda:0", 1024 * kMib, 1536 * kMib);
  EXPECT_THAT(std::string(status.message()), HasSubstr("cuda:0 reports 1.500 GiB"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("and graphs, and the plan promises 1.000"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("lower --ctx-size"));
}

}  // namespace
}  // namespace thermocline
