// A folder is there whole or not at all; what killed runs have left goes away.
#include "solver/profile/output_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace thermocline {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class OutputFolderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::temp_directory_path() / ("output_folder_test." + std::to_string(getpid()));
    fs::create_directory(root_);
  }
  void TearDown() override { fs::remove_all(root_); }
  std::string Path() const { return root_ / "made"; }
  static void Write(const std::string& path, const std::string& text) {
    std::ofstream(path) << text;
  }
  static std::string Read(const fs::path& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(root_))
      names.push_back(entry.path().filename());
    return names;
  }

  fs::path root_;
};

TEST_F(OutputFolderTest, ItIsThereAfterCommitAndNotBefore) {
  auto folder = OutputFolder::Create(Path() + "/");
  ASSERT_TRUE(folder.ok()) << folder.status();
  Write((*folder)->FilePath(kReportFile), "new");
  EXPECT_FALSE(fs::exists(Path()));
  ASSERT_TRUE((*folder)->Commit().ok());
  folder->reset();
  EXPECT_EQ(Read(root_ / "made" / kReportFile), "new");
  EXPECT_THAT(Names(), ::testing::ElementsAre("made"));
}

TEST_F(OutputFolderTest, WhatIsNotCommittedLeavesNothing) {
  ASSERT_TRUE(OutputFolder::Create(Path()).ok());
  EXPECT_THAT(Names(), ::testing::IsEmpty());
}

TEST_F(OutputFolderTest, AFolderOfOursIsReplacedOnCommitAlone) {
  fs::create_directory(Path());
  Write(root_ / "made" / kReportFile, "old");
  Write(root_ / "made" / "predictor.gguf", "old");
  { ASSERT_TRUE(OutputFolder::Create(Path()).ok()); }
  EXPECT_EQ(Read(root_ / "made" / kReportFile), "old");
  auto folder = OutputFolder::Create(Path());
  ASSERT_TRUE(folder.ok()) << folder.status();
  Write((*folder)->FilePath(kReportFile), "new");
  ASSERT_TRUE((*folder)->Commit().ok());
  folder->reset();
  EXPECT_EQ(Read(root_ / "made" / kReportFile), "new");
  EXPECT_FALSE(fs::exists(root_ / "made" / "predictor.gguf"));
  EXPECT_THAT(Names(), ::testing::ElementsAre("made"));
}

TEST_F(OutputFolderTest, AnotherFolderIsNotTouched) {
  fs::create_directory(Path());
  Write(root_ / "made" / "thesis.txt", "years");
  const auto folder = OutputFolder::Create(Path());
  EXPECT_TRUE(absl::IsAlreadyExists(folder.status()));
  EXPECT_THAT(std::string(folder.status().message()), HasSubstr("not made by solve"));
  EXPECT_EQ(Read(root_ / "made" / "thesis.txt"), "years");
}

TEST_F(OutputFolderTest, ErrorsNameThePath) {
  EXPECT_THAT(std::string(OutputFolder::Create("/no/such/place").status().message()),
              HasSubstr("/no/such"));
}

TEST_F(OutputFolderTest, LeftoversOfKilledRunsGoAndThoseOfLivingOnesStay) {
  fs::create_directory(root_ / "made.tmp-999999");
  Write(root_ / "made.tmp-999999" / "profile.gguf", "half");
  fs::create_directory(root_ / "other.tmp-999999");
  auto living = OutputFolder::Create(Path());
  ASSERT_TRUE(living.ok()) << living.status();
  EXPECT_THAT(Names(), ::testing::UnorderedElementsAre("made.tmp-" + std::to_string(getpid()),
                                                       "other.tmp-999999"));
  EXPECT_FALSE(OutputFolder::Create(Path()).ok());  // the same process twice
  EXPECT_TRUE(fs::exists((*living)->temporary_path()));
}

}  // namespace
}  // namespace thermocline
