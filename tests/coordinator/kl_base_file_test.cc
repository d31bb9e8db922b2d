// The base of a divergence as a file: what was written is read, anything else is refused.
#include "coordinator/cli/kl_base_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

namespace thermocline {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kVocab = 3, kContext = 8, kChunks = 2;

class KlBaseFile : public ::testing::Test {
 protected:
  KlBaseFile() {
    for (int64_t i = 0; i < kChunks * kContext; ++i) header_.tokens.push_back(i % kVocab);
    for (int64_t i = 0; i < kChunks * ScoredRows(kContext) * kVocab; ++i)
      rows_.push_back(-0.5f * i);
    std::filesystem::create_directory(folder_);
  }
  ~KlBaseFile() override { std::filesystem::remove_all(folder_); }

  void WriteFile() {
    auto writer = KlBaseWriter::Create(path_, header_);
    ASSERT_TRUE(writer.ok()) << writer.status();
    ASSERT_TRUE((*writer)->Append(rows_).ok());
    ASSERT_TRUE((*writer)->Finish().ok());
  }
  std::string Bytes() const {
    std::ostringstream bytes;
    bytes << std::ifstream(path_, std::ios::binary).rdbuf();
    return bytes.str();
  }
  std::string ErrorFor(const std::string& bytes) {
    std::ofstream(path_, std::ios::binary) << bytes;
    return std::string(KlBaseReader::Open(path_).status().message());
  }

  const std::string folder_ = ::testing::TempDir() + "kl_base_file_test." +
                              ::testing::UnitTest::GetInstance()->current_test_info()->name();
  const std::string path_ = folder_ + "/base";
  KlBaseHeader header_ = {.n_vocab = kVocab, .n_ctx = kContext, .n_chunks = kChunks, .tokens = {}};
  std::vector<float> rows_;
};

TEST_F(KlBaseFile, WhatWasWrittenIsRead) {
  WriteFile();
  auto reader = KlBaseReader::Open(path_);
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ((*reader)->header().n_vocab, kVocab);
  EXPECT_EQ((*reader)->header().n_ctx, kContext);
  EXPECT_EQ((*reader)->header().tokens, header_.tokens);
  std::vector<float> rows(rows_.size());
  ASSERT_TRUE((*reader)->Read(&rows).ok());
  EXPECT_EQ(rows, rows_);
}

TEST_F(KlBaseFile, AnUnfinishedFileLeavesNothing) {
  auto writer = KlBaseWriter::Create(path_, header_);
  ASSERT_TRUE(writer.ok());
  writer->reset();
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

TEST_F(KlBaseFile, OtherFilesAreRefused) {
  WriteFile();
  const std::string good = Bytes();
  EXPECT_THAT(ErrorFor(""), HasSubstr("TCKLBASE"));
  EXPECT_THAT(ErrorFor("GGUF" + good.substr(4)), HasSubstr("TCKLBASE"));
  std::string version = good;
  version[8] = 9;
  EXPECT_THAT(ErrorFor(version), HasSubstr("version is 9"));
  EXPECT_THAT(ErrorFor(good.substr(0, good.size() - 1)), HasSubstr("bytes long"));
  EXPECT_THAT(ErrorFor(good + "x"), HasSubstr("bytes long"));
  std::string huge = good;
  for (int i = 12; i < 24; ++i) huge[i] = '\xFF';
  EXPECT_THAT(ErrorFor(huge), HasSubstr("impossible"));
  std::string token = good;
  token[24] = 3;
  EXPECT_THAT(ErrorFor(token), HasSubstr("vocabulary"));
}

TEST_F(KlBaseFile, AMissingFileIsNamed) {
  const absl::Status status = KlBaseReader::Open(path_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr(path_));
}

TEST(ScoredRows, AreTheSecondHalfWithoutTheLastToken) {
  EXPECT_EQ(ScoredRows(512), 255);
  EXPECT_EQ(ScoredRows(9), 4);
}

}  // namespace
}  // namespace thermocline
