// What the writer writes is what the reader reads. Failures of writing: util/replace_file_test.
#include "common/gguf/gguf_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <limits>

#include "common/gguf/format_types.h"
#include "common/gguf/gguf_file.h"

namespace thermocline {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class GgufWriterTest : public ::testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove(path_); }

  std::unique_ptr<GgufFile> WriteAndRead(const GgufWriter& writer) {
    const absl::Status status = writer.Write(path_);
    EXPECT_TRUE(status.ok()) << status;
    auto file = GgufFile::Open(path_);
    EXPECT_TRUE(file.ok()) << file.status();
    return file.ok() ? *std::move(file) : nullptr;
  }

  const std::string path_ =
      ::testing::TempDir() + "/gguf_writer_" + std::to_string(getpid()) + ".gguf";
};

TEST_F(GgufWriterTest, EveryKindOfKeyIsReadBack) {
  const int64_t least = std::numeric_limits<int64_t>::min();
  const auto file = WriteAndRead(GgufWriter("test")
                                     .String("s", "text \n\xc3\xa9")
                                     .String("empty", "")
                                     .Uint32("u32", 4294967295u)
                                     .Int64("i64", least)
                                     .Uint64("u64", uint64_t{1} << 62)
                                     .Float32("f32", 0.1f)
                                     .Bool("yes", true)
                                     .Bool("no", false)
                                     .Floats("floats", {0.5f, -3})
                                     .Ints("ints", {-1, 2})
                                     .Uints("uints", {4294967295u})
                                     .Strings("strings", {"a", "", "bc"}));
  ASSERT_NE(file, nullptr);
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(*file->GetString("general.architecture"), "test");
  EXPECT_EQ(*file->GetString("s"), "text \n\xc3\xa9");
  EXPECT_EQ(*file->GetString("empty"), "");
  EXPECT_EQ(*file->GetInt("u32", 0, kMost), 4294967295);
  EXPECT_EQ(*file->GetInt("i64", least, kMost), least);
  EXPECT_EQ(*file->GetInt("u64", 0, kMost), int64_t{1} << 62);
  EXPECT_EQ(*file->GetFloat("f32"), double{0.1f});
  EXPECT_TRUE(*file->GetBool("yes"));
  EXPECT_FALSE(*file->GetBool("no"));
  EXPECT_THAT(*file->GetFloats("floats"), ElementsAre(0.5f, -3));
  EXPECT_THAT(*file->GetInts("ints"), ElementsAre(-1, 2));
  EXPECT_THAT(*file->GetInts("uints"), ElementsAre(4294967295));
  EXPECT_THAT(**file->GetStrings("strings"), ElementsAre("a", "", "bc"));
  EXPECT_FALSE(file->is_powerinfer());
  EXPECT_EQ(file->version(), 3);
}

TEST_F(GgufWriterTest, TensorsAreReadBackAtTheirAlignment) {
  const Bytes one = {1, 2, 3, 4}, blocks(2 * 3 * 34, 7), halves = {5, 0, 6, 0, 7, 0};
  const auto file = WriteAndRead(GgufWriter("test")
                                     .Tensor("one", TensorType::kF32, {1}, one)
                                     .Tensor("blocks", TensorType::kQ8_0, {3, 64}, blocks)
                                     .Tensor("empty is not", kI32, {1, 1}, one)
                                     .Tensor("halves", TensorType::kF16, {3, 1}, halves));
  ASSERT_NE(file, nullptr);
  ASSERT_EQ(file->tensors().size(), 4u);
  const auto expect = [&file](const char* name, TensorType type, int64_t columns, int64_t rows,
                              const Bytes& bytes) {
    const GgufTensor* tensor = file->FindTensor(name);
    ASSERT_NE(tensor, nullptr) << name;
    EXPECT_EQ(tensor->type, type) << name;
    EXPECT_EQ(tensor->dims[0], columns) << name;
    EXPECT_EQ(tensor->n_rows(), rows) << name;
    EXPECT_EQ(tensor->file_offset % 32, 0u) << name;
    EXPECT_EQ(file->TensorBytes(*tensor), absl::MakeConstSpan(bytes)) << name;
  };
  expect("one", TensorType::kF32, 1, 1, one);
  expect("blocks", TensorType::kQ8_0, 64, 3, blocks);
  expect("empty is not", kI32, 1, 1, one);
  expect("halves", TensorType::kF16, 1, 3, halves);
}

TEST_F(GgufWriterTest, AFileWithoutTensorsIsWhole) {
  const auto file = WriteAndRead(GgufWriter("test"));
  ASSERT_NE(file, nullptr);
  EXPECT_TRUE(file->tensors().empty());
}

TEST_F(GgufWriterTest, AFileThatCannotBeWrittenIsNamed) {
  const std::string path = path_ + ".none/x.gguf";
  const absl::Status status = GgufWriter("test").Write(path);
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr(path));
}

}  // namespace
}  // namespace thermocline
