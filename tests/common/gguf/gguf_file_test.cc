// Reading GGUF files: what a whole file gives, and what errors say. Broken files of every kind are
// in tests/fuzz.
#include "common/gguf/gguf_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>

#include "common/gguf/format_types.h"
#include "tests/testing/gguf_builder.h"
#include "tests/testing/tiny_llama.h"

namespace thermocline {
namespace {

using testing::Bytes;
using testing::ByteWriter;
using ::testing::ElementsAre;
using testing::GgufBuilder;
using testing::GgufKind;
using ::testing::HasSubstr;

// A parsed file together with its bytes.
struct Parsed {
  explicit Parsed(const GgufBuilder& builder) : bytes(builder.Build()) {
    auto result = GgufFile::Parse(bytes, "memory.gguf");
    status = result.status();
    if (result.ok()) file = std::move(*result);
  }
  const GgufFile* operator->() const { return file.get(); }
  Bytes bytes;
  absl::Status status;
  std::unique_ptr<GgufFile> file;
};

std::string Message(const absl::Status& status) { return std::string(status.message()); }

std::string TempPath(const std::string& name) { return ::testing::TempDir() + "/" + name; }

TEST(GgufFile, ReadsVersions2And3AndPowerInfersMagic) {
  for (const uint32_t version : {2u, 3u}) {
    for (const bool powerinfer : {false, true}) {
      const Parsed file(GgufBuilder()
                            .Version(version)
                            .Magic(powerinfer ? "PWRI" : "GGUF")
                            .String("general.name", "n")
                            .TensorF32("t", {2}, {1, 2}));
      ASSERT_TRUE(file.status.ok()) << file.status;
      EXPECT_EQ(file->version(), version);
      EXPECT_EQ(file->is_powerinfer(), powerinfer);
      EXPECT_EQ(file->file_bytes(), file.bytes.size());
      EXPECT_EQ(*file->GetString("general.name"), "n");
    }
  }
}

TEST(GgufFile, GivesTensorsInFileOrderWithTheirBytes) {
  const Parsed file(GgufBuilder()
                        .TensorF32("b", {3, 2}, {0, 1, 2, 3, 4, 5})
                        .Tensor("a", TensorType::kQ8_0, {64, 2}, Bytes(4 * 34, 9)));
  ASSERT_TRUE(file.status.ok()) << file.status;
  ASSERT_EQ(file->tensors().size(), 2u);
  EXPECT_EQ(file->tensors()[0].name, "b");
  const GgufTensor* a = file->FindTensor("a");
  ASSERT_EQ(a, &file->tensors()[1]);
  EXPECT_EQ(a->n_dims, 2);
  EXPECT_THAT(a->dims, ElementsAre(64, 2, 1, 1));
  EXPECT_EQ(a->n_rows(), 2);
  EXPECT_EQ(a->row_bytes(), 68u);
  EXPECT_EQ(a->n_bytes, 136u);
  EXPECT_EQ(a->file_offset + a->n_bytes, file.bytes.size());
  EXPECT_EQ(a->info()->block_size, 32u);
  EXPECT_EQ(Bytes(file->TensorBytes(*a).begin(), file->TensorBytes(*a).end()), Bytes(136, 9));
  EXPECT_EQ(file->FindTensor("c"), nullptr);
}

TEST(GgufFile, HonoursTheAlignment) {
  for (const uint32_t alignment : {8u, 64u, 4096u}) {
    const Parsed file(GgufBuilder()
                          .Alignment(alignment)
                          .TensorF32("first", {1}, {1})
                          .TensorF32("second", {1}, {2}));
    ASSERT_TRUE(file.status.ok()) << file.status;
    const GgufTensor* second = file->FindTensor("second");
    EXPECT_EQ(second->file_offset % alignment, 0u);
    EXPECT_EQ(second->file_offset, file->FindTensor("first")->file_offset + alignment);
    float value;
    std::memcpy(&value, file->TensorBytes(*second).data(), sizeof(value));
    EXPECT_EQ(value, 2);
  }
}

TEST(GgufFile, ReadsNumbersOfAllWidths) {
  const auto bytes = [](auto value) { return ByteWriter().Put(value).bytes(); };
  const Parsed file(GgufBuilder()
                        .Key("u8", GgufKind::kUint8, bytes(uint8_t{200}))
                        .Key("i8", GgufKind::kInt8, bytes(int8_t{-100}))
                        .Key("u16", GgufKind::kUint16, bytes(uint16_t{60000}))
                        .Key("i16", GgufKind::kInt16, bytes(int16_t{-30000}))
                        .Key("u32", GgufKind::kUint32, bytes(uint32_t{4000000000}))
                        .Key("i32", GgufKind::kInt32, bytes(int32_t{-2000000000}))
                        .Key("u64", GgufKind::kUint64, bytes(~uint64_t{0}))
                        .Key("i64", GgufKind::kInt64, bytes(INT64_MIN))
                        .Key("f32", GgufKind::kFloat32, bytes(1.5f))
                        .Key("f64", GgufKind::kFloat64, bytes(1e300))
                        .Bool("yes", true)
                        .Bool("no", false));
  ASSERT_TRUE(file.status.ok()) << file.status;
  const auto integer = [&file](const char* key) {
    return *file->GetInt(key, INT64_MIN, INT64_MAX);
  };
  EXPECT_EQ(integer("u8"), 200);
  EXPECT_EQ(integer("i8"), -100);
  EXPECT_EQ(integer("u16"), 60000);
  EXPECT_EQ(integer("i16"), -30000);
  EXPECT_EQ(integer("u32"), 4000000000);
  EXPECT_EQ(integer("i32"), -2000000000);
  EXPECT_EQ(integer("i64"), INT64_MIN);
  EXPECT_EQ(*file->GetFloat("f32"), 1.5);
  EXPECT_EQ(*file->GetFloat("f64"), 1e300);
  EXPECT_EQ(*file->GetFloat("i8"), -100);
  EXPECT_TRUE(*file->GetBool("yes"));
  EXPECT_FALSE(*file->GetBool("no"));
  EXPECT_THAT(Message(file->GetInt("u64", 0, INT64_MAX).status()),
              HasSubstr("key 'u64' is 18446744073709551615"));
}

TEST(GgufFile, ReadsArrays) {
  const Parsed file(GgufBuilder()
                        .Ints("ints", {3, -1})
                        .Floats("floats", {0.5f, -2})
                        .Strings("strings", {"", std::string("\xff\n\0", 3), "word"})
                        .Floats("empty", {})
                        .Key("bytes", GgufKind::kArray,
                             ByteWriter()
                                 .Put(GgufKind::kUint8)
                                 .Put(uint64_t{2})
                                 .Put(uint8_t{7})
                                 .Put(uint8_t{255})
                                 .bytes()));
  ASSERT_TRUE(file.status.ok()) << file.status;
  EXPECT_THAT(*file->GetInts("ints"), ElementsAre(3, -1));
  EXPECT_THAT(*file->GetInts("bytes"), ElementsAre(7, 255));
  EXPECT_THAT(*file->GetFloats("floats"), ElementsAre(0.5f, -2.0f));
  EXPECT_THAT(*file->GetFloats("empty"), ElementsAre());
  EXPECT_THAT(**file->GetStrings("strings"), ElementsAre("", std::string("\xff\n\0", 3), "word"));
}

TEST(GgufFile, AskingForTheWrongThingNamesTheKey) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Parsed file(GgufBuilder()
                        .Uint("count", 7)
                        .String("text", "7")
                        .Float("nan", nan)
                        .Floats("nans", {1, nan}));
  ASSERT_TRUE(file.status.ok()) << file.status;
  const auto expect = [](const absl::Status& status, absl::StatusCode code, const char* text) {
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_EQ(Message(status), std::string("memory.gguf: key ") + text);
  };
  const auto kInvalid = absl::StatusCode::kInvalidArgument;
  expect(file->GetInt("none", 0, 9).status(), absl::StatusCode::kNotFound, "'none' is missing");
  expect(file->GetInt("count", 8, 9).status(), kInvalid, "'count' is 7; 8 to 9 is possible");
  expect(file->GetInt("count", 0, 6).status(), kInvalid, "'count' is 7; 0 to 6 is possible");
  expect(file->GetInt("text", 0, 9).status(), kInvalid, "'text' holds a string, not an integer");
  expect(file->GetString("count").status(), kInvalid, "'count' holds an integer, not a string");
  expect(file->GetFloat("text").status(), kInvalid, "'text' holds a string, not a number");
  expect(file->GetFloat("nan").status(), kInvalid, "'nan' is not a finite number");
  expect(file->GetBool("count").status(), kInvalid, "'count' holds an integer, not a bool");
  expect(file->GetInts("nans").status(), kInvalid,
         "'nans' holds an array of floats, not an array of integers");
  expect(file->GetFloats("nans").status(), kInvalid,
         "'nans' is not a finite f32 number at element 1");
  expect(file->GetStrings("text").status(), kInvalid,
         "'text' holds a string, not an array of strings");
}

TEST(GgufFile, EveryPrefixOfAFileIsRefused) {
  testing::TinyLlama model;
  model.n_layers = 1;
  model.d_model = model.d_ff = model.d_head = 2;
  model.n_vocab = 3;
  model.type = TensorType::kF16;
  const Bytes whole = model.Builder().Build();
  ASSERT_TRUE(GgufFile::Parse(whole, "whole").ok());
  for (size_t n_bytes = 0; n_bytes < whole.size(); ++n_bytes) {
    const Bytes cut(whole.begin(), whole.begin() + n_bytes);  // its own allocation, for ASan
    EXPECT_EQ(GgufFile::Parse(cut, "cut").status().code(), absl::StatusCode::kDataLoss) << n_bytes;
  }
}

TEST(GgufFile, TypesThatAreNotComputedAreReadAllTheSame) {
  const Parsed file(GgufBuilder()
                        .Tensor("i32", TensorType{26}, {2}, ByteWriter().Put(5).Put(-6).bytes())
                        .Tensor("q3_k", TensorType{11}, {256}, Bytes(110))
                        .Tensor("new", TensorType{1000}, {3, 3}, Bytes(1)));
  ASSERT_TRUE(file.status.ok()) << file.status;
  EXPECT_EQ(file->TensorBytes(*file->FindTensor("i32")).size(), 8u);
  EXPECT_EQ(file->FindTensor("q3_k")->n_bytes, 110u);
  EXPECT_EQ(file->FindTensor("q3_k")->info(), nullptr);
  EXPECT_EQ(file->FindTensor("new")->n_bytes, 0u);
  EXPECT_EQ(file->FindTensor("new")->row_bytes(), 0u);
  EXPECT_TRUE(file->TensorBytes(*file->FindTensor("new")).empty());
  EXPECT_EQ(TensorTypeName(TensorType{13}), "Q5_K");
  EXPECT_EQ(TensorTypeName(TensorType{1000}), "number 1000");
}

TEST(GgufFile, PowerInfersIntegerTypesHaveTheirOldNumbers) {
  const GgufBuilder builder = GgufBuilder().Tensor("ids", TensorType{18}, {3}, Bytes(12));
  EXPECT_FALSE(Parsed(builder).status.ok());  // elsewhere 18 is IQ3_XXS, in blocks of 256
  const Parsed file(GgufBuilder(builder).Magic("PWRI"));
  ASSERT_TRUE(file.status.ok()) << file.status;
  EXPECT_EQ(TensorTypeName(file->FindTensor("ids")->type), "I32");
  EXPECT_EQ(file->FindTensor("ids")->n_bytes, 12u);
}

TEST(GgufFile, TruncatedDataNamesTheFirstTensorThatDoesNotFit) {
  Bytes bytes = GgufBuilder()
                    .TensorF32("fits", {1}, {1})
                    .TensorF32("cut", {8}, std::vector<float>(8))
                    .TensorF32("gone", {1}, {1})
                    .Build();
  bytes.resize(bytes.size() - 2);
  const absl::Status status = GgufFile::Parse(bytes, "m.gguf").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(Message(status), HasSubstr("'gone'"));
  bytes.resize(bytes.size() - 32);
  EXPECT_THAT(Message(GgufFile::Parse(bytes, "m.gguf").status()),
              HasSubstr("m.gguf: truncated in the tensor data: tensor 'cut' needs 32 bytes"));
}

TEST(GgufFile, OpensAndNamesWhatCannotBeOpened) {
  const std::string path = TempPath("open_test.gguf");
  GgufBuilder().TensorF32("t", {4096}, std::vector<float>(4096, 3)).WriteTo(path);
  const auto file = GgufFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->path(), path);
  const GgufTensor* tensor = (*file)->FindTensor("t");
  (*file)->DropPages(tensor->file_offset, tensor->n_bytes);  // the bytes come back when read
  float value;
  std::memcpy(&value, (*file)->TensorBytes(*tensor).data() + 8000, sizeof(value));
  EXPECT_EQ(value, 3);
  (*file)->DropPages(UINT64_MAX, UINT64_MAX);
  (*file)->DropPages(1, UINT64_MAX);
  std::filesystem::remove(path);

  const absl::Status missing = GgufFile::Open(path).status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(missing), ::testing::StartsWith(path + ": cannot open"));
  const absl::Status folder = GgufFile::Open(::testing::TempDir()).status();
  EXPECT_EQ(folder.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(folder), HasSubstr("is a directory"));
  EXPECT_THAT(Message(GgufFile::Open("/dev/null").status()), HasSubstr("is a device"));
}

}  // namespace
}  // namespace thermocline
