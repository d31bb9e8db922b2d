// build/bin/bench and build/bin/perplexity with real workers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/integration/programs.h"

namespace thermocline {
namespace {

using namespace std::chrono_literals;
using testing::ChildResult;
using ::testing::HasSubstr;

TEST(Bench, EveryCombinationGivesARowOfJson) {
  const ChildResult result = testing::RunChild(
      {ProgramPath("bench"), "-m", ShippedModel(), "-p", "16", "-n", "4", "-r", "2", "-t", "2",
       "--workers", "1,2", "--transport", "shm,grpc", "-o", "json", "--quiet"},
      120s);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.err, "");
  const auto rows = nlohmann::json::parse(result.out);
  ASSERT_EQ(rows.size(), 8u);
  for (const auto& row : rows) {
    EXPECT_EQ(row["n_threads"], 2);
    EXPECT_EQ(row["samples_ts"].size(), 2u);
    EXPECT_GT(row["median_ts"], 0);
    EXPECT_GT(row["read_gbps"], 0);
    // In decode most weights but the embedding and the neurons that do not fire; several tokens
    // share what they read.
    EXPECT_GT(row["token_bytes"], row["n_gen"] > 0 ? 6'000'000 : 1'000'000);
    EXPECT_LT(row["token_bytes"], 14'041'728 * 1.05);
  }
  EXPECT_EQ(rows[0]["n_workers"], 1);
  EXPECT_EQ(rows[0]["transport"], "shm");
  EXPECT_EQ(rows[2]["transport"], "grpc");
  EXPECT_EQ(rows[7]["n_workers"], 2);
}

// A text long enough for some chunks, of the kind that the model knows.
std::string TextFile() {
  const std::string path = ::testing::TempDir() + "measuring_programs_test.txt";
  std::ifstream source(std::string(THERMOCLINE_SOURCE_DIR) + "/tests/models/calibration.txt");
  std::string text(12'000, '\0');
  source.read(text.data(), static_cast<std::streamsize>(text.size()));
  std::ofstream(path) << text;
  return path;
}

double FinalEstimate(const std::string& out) {
  const std::string before = "Final estimate: PPL = ";
  const size_t begin = out.rfind(before);
  EXPECT_NE(begin, std::string::npos) << out;
  EXPECT_EQ(out.find('\n', begin), out.size() - 1) << "it must be the last line";
  return begin == std::string::npos ? NAN : std::stod(out.substr(begin + before.size()));
}

TEST(PerplexityProgram, AModelIsNoDivergenceAwayFromItself) {
  const std::string text = TextFile(), base = ::testing::TempDir() + "measuring_programs.base";
  const std::vector<std::string> common = {
      ProgramPath("perplexity"), "-m", ShippedModel(), "-t", "2", "--kl-divergence-base", base};
  std::vector<std::string> save = common, compare = common;
  for (const char* word : {"-f", text.c_str(), "-c", "128", "--chunks", "4", "--verbose"})
    save.push_back(word);
  for (const char* word : {"--kl-divergence", "--quiet"}) compare.push_back(word);
  const ChildResult saved = testing::RunChild(save, 120s);
  ASSERT_EQ(saved.exit_code, 0) << saved.err;
  EXPECT_THAT(saved.err, HasSubstr("chunk 4 of 4"));
  EXPECT_THAT(saved.err, HasSubstr("\"ranks\"")) << "--verbose shows the plan";
  const double perplexity = FinalEstimate(saved.out);
  EXPECT_GT(perplexity, 5);
  EXPECT_LT(perplexity, 200);

  const ChildResult compared = testing::RunChild(compare, 120s);
  ASSERT_EQ(compared.exit_code, 0) << compared.err;
  EXPECT_EQ(compared.err, "");
  EXPECT_EQ(FinalEstimate(compared.out), perplexity);
  EXPECT_THAT(compared.out, HasSubstr("Mean KLD                  :    0.000000"));
  EXPECT_THAT(compared.out, HasSubstr("100.000 +/- 0.000 %"));

  compare.insert(compare.end(), {"-c", "256"});
  const ChildResult other = testing::RunChild(compare, 60s);
  EXPECT_EQ(other.exit_code, 1);
  EXPECT_THAT(other.err, HasSubstr("--ctx-size"));
  std::remove(base.c_str());
  std::remove(text.c_str());
}

TEST(PerplexityProgram, ATextShorterThanAChunkIsAnError) {
  const std::string path = ::testing::TempDir() + "measuring_programs_short.txt";
  std::ofstream(path) << "Too short.";
  const ChildResult result = testing::RunChild(
      {ProgramPath("perplexity"), "-m", ShippedModel(), "-f", path, "--quiet"}, 60s);
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr(path));
  EXPECT_THAT(result.err, HasSubstr("--ctx-size"));
  std::remove(path.c_str());
}

}  // namespace
}  // namespace thermocline
