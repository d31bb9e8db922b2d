// device_bench on the emulated device: that it runs and leaves no op out; and, without running
// them, what the cases of a 7B model count and where targets stand. Nothing of speed.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "tests/bench/device_bench_cases.h"
#include "tests/testing/subprocess.h"

namespace thermocline::kernels {
namespace {

const std::string kProgram = std::string(THERMOCLINE_BIN_DIR) + "/device_bench";

// Names of the function pointers in DeviceOps.
std::set<std::string> OpsOfTheHeader() {
  std::ifstream file(std::string(THERMOCLINE_SOURCE_DIR) + "/kernels/cuda/device_ops.h");
  std::stringstream text;
  text << file.rdbuf();
  const std::string header = text.str();
  const std::regex pointer(R"(LaunchError \(\*(\w+)\))");
  std::set<std::string> names;
  for (std::sregex_iterator it(header.begin(), header.end(), pointer), end; it != end; ++it) {
    names.insert((*it)[1]);
  }
  return names;
}

TEST(DeviceBench, HasARowForEveryOp) {
  const std::string file = ::testing::TempDir() + "device_bench_rows.json";
  const auto result = thermocline::testing::RunChild(
      {kProgram, "--gpu-device", "emulated", "--small", "--json", file});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const nlohmann::json report = nlohmann::json::parse(std::ifstream(file));
  EXPECT_GT(report["read_gbps"].get<double>(), 0);
  std::set<std::string> measured;
  for (const nlohmann::json& row : report["rows"]) {
    measured.insert(row["op"].get<std::string>());
    EXPECT_GT(row["us"].get<double>(), 0) << row;
    EXPECT_GT(row["bytes"].get<int64_t>(), 0) << row;
    EXPECT_NE(result.out.find(row["what"].get<std::string>()), std::string::npos) << row;
  }
  EXPECT_GT(measured.size(), 10u);
  EXPECT_EQ(measured, OpsOfTheHeader());
}

TEST(DeviceBench, WithoutItsDeviceItSaysSoAndExitsWith2) {
  const auto result = thermocline::testing::RunChild({kProgram, "--gpu-device", "cuda:4000"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_NE(result.err.find("cuda:4000"), std::string::npos) << result.err;
  EXPECT_EQ(thermocline::testing::RunChild({kProgram, "--no-such-flag"}).exit_code, 2);
}

class DeviceCasesOf7b : public ::testing::Test {
 protected:
  DeviceCasesOf7b() {
    inputs_.sizes = SizesOf7b();
    inputs_.ops = &emulated_ops();
    for (int32_t i = 0; i < inputs_.sizes.d_ff; i += 10) inputs_.tenth_rows.push_back(i);
    inputs_.tenth.max = static_cast<int64_t>(inputs_.tenth_rows.size());
    cases_ = MakeDeviceCases(inputs_);
  }
  const DeviceCase& Find(const std::string& op, const std::string& what, const std::string& type,
                         int64_t n_tokens) {
    const auto found = std::find_if(cases_.begin(), cases_.end(), [&](const DeviceCase& of) {
      return of.op == op && of.what == what && of.type == type && of.n_tokens == n_tokens;
    });
    EXPECT_NE(found, cases_.end()) << op << " " << what << " " << type;
    return found == cases_.end() ? cases_.front() : *found;
  }

  DeviceInputs inputs_;
  std::vector<DeviceCase> cases_;
};

TEST_F(DeviceCasesOf7b, CountTheBytesOfTheFileAndTheInputs) {
  const int64_t n = int64_t{11008} * 4096;
  const int64_t x = 4096 + 4096 / 32 * 8, out = 4 * 11008;
  EXPECT_EQ(Find("matmul", "11008 x 4096", "Q4_0", 1).n_bytes, n / 32 * 18 + x + out);
  EXPECT_EQ(Find("matmul", "11008 x 4096", "Q4_K", 8).n_bytes, n / 256 * 144 + 8 * (x + out));
  EXPECT_EQ(Find("matmul", "11008 x 4096", "F16", 1).n_bytes, 2 * n + 4 * 4096 + out);
  const int64_t active = 1101;
  EXPECT_EQ(Find("matmul", "11008 x 4096, 10 % of rows", "Q8_0", 1).n_bytes,
            (active * 4096 + 255) / 256 * 256 + (active * 256 + 255) / 256 * 256 + 8 * active + x);
  // Every block of 32 neurons has an active one: its scales are counted.
  EXPECT_EQ(
      Find("add_neurons", "11008 x 4096, 10 % of neurons", "Q4_0", 1).n_bytes,
      active * 2048 + 344 * 2 * 4096 + (4 * active + 255) / 256 * 256 + 8 * active + 4 * 4096);
  EXPECT_EQ(Find("dequantize", "2048 x 4096", "Q8_0", 1).n_bytes, 2048 * 4096 / 32 * (34 + 64));
  EXPECT_EQ(Find("attend", "context 4096", "F16", 1).n_bytes, 2 * 2 * 4096 * 4096 + 8 * 4096);
}

TEST_F(DeviceCasesOf7b, TargetsStandWhereTheMatrixIsLarge) {
  EXPECT_EQ(Find("matmul", "4096 x 4096", "F16", 1).target, 0.85);
  EXPECT_EQ(Find("matmul", "11008 x 4096", "Q4_0", 1).target, 0.75);
  EXPECT_EQ(Find("matmul", "32000 x 4096", "Q4_K", 1).target, 0.75);
  EXPECT_EQ(Find("matmul", "4096 x 4096", "Q4_0", 1).target, 0);
  EXPECT_EQ(Find("matmul", "11008 x 4096", "Q8_0", 1).target, 0);
  EXPECT_EQ(Find("matmul", "11008 x 4096", "F16", 8).target, 0);
}

TEST_F(DeviceCasesOf7b, MemoryHasTwoCopiesOfWhatIsReadAtLeast) {
  for (const DeviceCase& of : cases_) {
    EXPECT_LE(2 * of.stride_bytes, inputs_.sizes.copies_bytes) << of.op << " " << of.what;
  }
}

}  // namespace
}  // namespace thermocline::kernels
