// PowerInfer's statistics and GPU index, and files that are none. The *.pt files are made by
// tests/golden/torch/make_torch_files.py.
#include "common/model/activation_statistics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "common/model/torch_pickle.h"
#include "tests/testing/gguf_builder.h"

namespace thermocline {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using testing::Bytes;
using ::testing::ElementsAre;
using testing::GgufBuilder;
using ::testing::HasSubstr;

constexpr char kGolden[] = THERMOCLINE_SOURCE_DIR "/tests/golden/torch/";
constexpr TensorType kI32Type{26};

std::string Golden(const std::string& name) { return kGolden + name + ".pt"; }

ModelConfig Config(int64_t n_layers) {
  ModelConfig config;
  config.n_layers = n_layers;
  config.d_ff = 6;
  return config;
}

class ActivationStatisticsTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(fs::create_directory(folder_)); }
  void TearDown() override { fs::remove_all(folder_); }

  void PutLayer(const std::string& number, const std::string& golden) {
    fs::copy_file(Golden(golden), folder_ / ("activation_" + number + ".pt"));
  }
  absl::StatusOr<Profile> Import(int64_t n_layers) {
    return ImportActivationStatistics(folder_, Config(n_layers), "hash");
  }
  void ExpectInvalid(int64_t n_layers, const std::string& text) {
    const absl::Status status = Import(n_layers).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr(folder_), HasSubstr(text)));
  }

  const fs::path folder_ =
      fs::path(::testing::TempDir()) / ("activation_statistics_" + std::to_string(getpid()));
};

std::string Contents(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(TorchVector, EveryKindOfNumberIsRead) {
  EXPECT_THAT(*ReadTorchVector(Golden("fired_float")), ElementsAre(0, 3, 70000, 1, 12, 5));
  EXPECT_THAT(*ReadTorchVector(Golden("fired_long")), ElementsAre(6, 5, 4, 3, 2, 1));
  EXPECT_THAT(*ReadTorchVector(Golden("fired_int")), ElementsAre(1, 1, 2, 3, 5, 8));
  EXPECT_THAT(*ReadTorchVector(Golden("share_half")), ElementsAre(0, 0.25, 0.5, 1, 0.125, 0.75));
}

TEST_F(ActivationStatisticsTest, LayersGoByNumberNotByText) {
  for (int i = 0; i < 12; ++i) {
    PutLayer(std::to_string(i), i == 2 ? "fired_int" : i == 10 ? "fired_long" : "fired_float");
  }
  std::ofstream(folder_ / "README.md") << "passed over";
  const auto profile = Import(12);
  ASSERT_TRUE(profile.ok()) << profile.status();
  EXPECT_EQ(profile->model_hash, "hash");
  EXPECT_EQ(profile->n_tokens, 70000);
  ASSERT_EQ(profile->layers.size(), 12u);
  EXPECT_THAT(profile->layers[1].fired, ElementsAre(0, 3, 70000, 1, 12, 5));
  EXPECT_THAT(profile->layers[2].fired, ElementsAre(1, 1, 2, 3, 5, 8));
  EXPECT_THAT(profile->layers[10].fired, ElementsAre(6, 5, 4, 3, 2, 1));
}

TEST_F(ActivationStatisticsTest, SharesBecomeCountsInAMillion) {
  PutLayer("0", "share_half");
  const auto profile = Import(1);
  ASSERT_TRUE(profile.ok()) << profile.status();
  EXPECT_EQ(profile->n_tokens, 1000000);
  EXPECT_THAT(profile->layers[0].fired, ElementsAre(0, 250000, 500000, 1000000, 125000, 750000));
  const std::string path = folder_ / "profile.gguf";
  ASSERT_TRUE(WriteProfile(*profile, path).ok());
  EXPECT_EQ(*ReadProfile(path), *profile);
}

TEST_F(ActivationStatisticsTest, AFolderThatIsNotOfTheModelIsRefused) {
  ExpectInvalid(2, "holds 0 files activation_N.pt; the model has 2 layers, so N must be 0 to 1");
  PutLayer("0", "fired_float");
  PutLayer("2", "fired_float");
  ExpectInvalid(2, "holds 2 files");  // no 1
  PutLayer("1", "fired_float");
  ExpectInvalid(2, "holds 3 files");
  PutLayer("01", "fired_float");
  ExpectInvalid(3, "both are of layer 1");
  fs::remove(folder_ / "activation_01.pt");
  ModelConfig config = Config(3);
  config.d_ff = 7;
  EXPECT_THAT(std::string(ImportActivationStatistics(folder_, config, "").status().message()),
              HasSubstr("is of 6 neurons, the model's layers have 7"));
  EXPECT_EQ(ImportActivationStatistics(folder_ / "none", config, "").status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(ActivationStatisticsTest, ValuesThatAreNoCountsAreRefused) {
  PutLayer("0", "negative_float");
  ExpectInvalid(1, "activation_0.pt: says -1 of neuron 2");
  fs::remove(folder_ / "activation_0.pt");
  PutLayer("0", "share_half");
  PutLayer("1", "fired_float");
  ExpectInvalid(2, "neither counts nor shares of 0 to 1; the largest is 70000");
}

absl::StatusOr<std::vector<double>> Parse(const std::string& text) {
  return ParseTorchVector(Bytes(text.begin(), text.end()), "x.pt");
}

// Any cut and any changed byte ends in an error of one line, or in numbers; never in a crash.
TEST(TorchVector, DamagedFilesAreErrors) {
  for (const char* name : {"fired_float", "fired_int"}) {
    const std::string whole = Contents(Golden(name));
    for (size_t i = 0; i < whole.size(); ++i) {
      const absl::Status status = Parse(whole.substr(0, i)).status();
      EXPECT_FALSE(status.ok()) << i;
      EXPECT_EQ(status.message().find("x.pt: "), 0u) << status;
    }
    for (size_t i = 0; i < whole.size(); ++i) {
      for (const uint8_t flip : {0x01, 0x80, 0xff}) {
        std::string bytes = whole;
        bytes[i] = static_cast<char>(bytes[i] ^ flip);
        const auto values = Parse(bytes);
        EXPECT_LE(values.ok() ? values->size() : 0, 6u);
        EXPECT_EQ(std::string(values.status().message()).find('\n'), std::string::npos);
      }
    }
  }
  EXPECT_THAT(std::string(Parse("no zip").status().message()), HasSubstr("save it again"));
}

absl::Status Pickle(const std::string& text) {
  return ReadTorchPickle(Bytes(text.begin(), text.end())).status();
}

TEST(TorchPickle, NothingButATensorIsRead) {
  const auto expect = [](const std::string& pickle, const char* text) {
    const absl::Status status = Pickle(pickle);
    EXPECT_FALSE(status.ok()) << pickle;
    EXPECT_THAT(std::string(status.message()), HasSubstr(text));
  };
  expect("ctorch\nFloatStor", "is cut off");
  expect("cos\nsystem\n.", "names 'os system'");
  expect("ctorch\nload\n.", "names 'torch load'");
  expect(std::string("\x80\x02K\x01.", 5), "does not hold one tensor");
  expect(".", "does not hold one tensor");
  expect("", "is cut off");
  expect("t.", "ends a tuple that was not begun");
  expect("R.", "calls a function that is not there");
  expect("Q.", "loads a storage that is not there");
  expect(")Q.", "none of torch's");
  expect("h\x07.", "recalls a value that it did not remember");
  expect("q\x07.", "remembers a value that is not there");
  expect("\x86.", "takes more values than there are");
  expect("(((((((((((((((((((.", "larger stack");
  expect(")\x85\x85\x85\x85.", "nests tuples");
  expect("i.", "has opcode 0x69");
  expect(std::string(5000, ')'), "has 5000 bytes");
  expect("ctorch._utils\n_rebuild_tensor_v2\n)R.", "makes a tensor of what is none");
  expect("K\x01)R.", "calls what is no function");
}

GgufBuilder GpuIndex() {
  const Bytes first = {1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0};
  // 18: I32 as PowerInfer numbers it.
  return GgufBuilder()
      .Magic("PWRI")
      .String("general.architecture", "generic.gpu_index")
      .Uint("generic.gpu_index.block_count", 2)
      .Tensor("blk.0.gpu_idx", TensorType{18}, {6}, first)
      .Tensor("blk.1.gpu_idx", TensorType{18}, {6}, Bytes(24));
}

absl::StatusOr<std::vector<std::vector<int32_t>>> ReadIndex(const GgufBuilder& builder) {
  const Bytes bytes = builder.Build();
  const auto file = GgufFile::Parse(bytes, "m.generated.gpuidx");
  if (!file.ok()) return file.status();
  return ReadGpuIndex(**file, Config(2));
}

TEST(GpuIndex, TellsTheNeuronsOnTheGpu) {
  const auto index = ReadIndex(GpuIndex());
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_THAT(*index, ElementsAre(ElementsAre(0, 3, 4), ElementsAre()));
  EXPECT_EQ(*ReadIndex(GpuIndex()
                           .Magic("GGUF")
                           .Tensor("blk.0.gpu_idx", kI32Type, {6}, Bytes(24))
                           .Tensor("blk.1.gpu_idx", kI32Type, {6}, Bytes(24))),
            std::vector<std::vector<int32_t>>(2));
}

TEST(GpuIndex, OfAnotherModelIsRefused) {
  const auto expect = [](const GgufBuilder& builder, const char* text) {
    const absl::Status status = ReadIndex(builder).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("m.generated.gpuidx"), HasSubstr(text)));
  };
  expect(GpuIndex().RemoveTensor("blk.1.gpu_idx"), "'blk.1.gpu_idx' is missing");
  expect(GpuIndex().Tensor("blk.2.gpu_idx", TensorType{18}, {6}, Bytes(24)), "more than the");
  expect(GpuIndex().Tensor("blk.0.gpu_idx", TensorType{18}, {5}, Bytes(20)), "1 rows of 5 I32");
  expect(GpuIndex().TensorF32("blk.0.gpu_idx", {6}, std::vector<float>(6)), "6 F32");
  expect(GpuIndex().Tensor("blk.1.gpu_idx", TensorType{18}, {6}, Bytes(24, 2)),
         "'blk.1.gpu_idx' says 33686018 of neuron 0");
}

}  // namespace
}  // namespace thermocline
