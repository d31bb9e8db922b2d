// A file is replaced whole or not at all.
#include "common/util/replace_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

namespace thermocline {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class ReplaceFileTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(fs::create_directory(folder_)); }
  void TearDown() override { fs::remove_all(folder_); }

  std::string Path() const { return folder_ / "f"; }
  std::string Text() const {
    std::ifstream in(Path(), std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void Put(const std::string& text) { std::ofstream(Path(), std::ios::binary) << text; }
  int64_t FilesThere() const {
    return std::distance(fs::directory_iterator(folder_), fs::directory_iterator());
  }

  const fs::path folder_ =
      fs::path(::testing::TempDir()) / ("replace_file_" + std::to_string(getpid()));
};

const std::vector<uint8_t> kBytes = {'n', 'e', 'w'};

TEST_F(ReplaceFileTest, HasItsNameOnlyWhenCommitted) {
  Put("old");
  auto file = ReplaceFile::Create(Path());
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE((*file)->Write(kBytes).ok());
  EXPECT_EQ(Text(), "old");
  ASSERT_TRUE((*file)->Commit().ok());
  EXPECT_EQ(Text(), "new");
  file->reset();
  EXPECT_EQ(Text(), "new");
  EXPECT_EQ(FilesThere(), 1);
}

TEST_F(ReplaceFileTest, LeavesNothingWhenItIsNotCommitted) {
  Put("old");
  {
    auto file = ReplaceFile::Create(Path());
    ASSERT_TRUE(file.ok()) << file.status();
    ASSERT_TRUE((*file)->Write(kBytes).ok());
  }
  EXPECT_EQ(Text(), "old");
  EXPECT_EQ(FilesThere(), 1);
}

TEST_F(ReplaceFileTest, AFailedWriteIsAnErrorThatNamesTheFile) {
  Put("old");
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small = {4096, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  absl::Status status;
  {
    auto file = ReplaceFile::Create(Path());
    ASSERT_TRUE(file.ok()) << file.status();
    status = (*file)->Write(std::vector<uint8_t>(10000));
  }
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr(Path() + ": cannot be written"));
  EXPECT_EQ(Text(), "old");
  EXPECT_EQ(FilesThere(), 1);
}

TEST_F(ReplaceFileTest, AFolderThatIsNotThereIsNamed) {
  const auto file = ReplaceFile::Create(Path() + "/none/g");
  EXPECT_EQ(file.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(file.status().message()), HasSubstr(Path() + "/none/g"));
}

TEST_F(ReplaceFileTest, AFolderOfThatNameStays) {
  fs::create_directory(Path());
  fs::create_directory(Path() + "/sub");
  {
    auto file = ReplaceFile::Create(Path());
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_FALSE((*file)->Commit().ok());
  }
  EXPECT_EQ(FilesThere(), 1);
  EXPECT_TRUE(fs::is_directory(Path() + "/sub"));
}

TEST_F(ReplaceFileTest, WithoutPermissionItIsDenied) {
  if (geteuid() == 0) GTEST_SKIP() << "root may write anywhere";
  fs::permissions(folder_, fs::perms::owner_read | fs::perms::owner_exec);
  EXPECT_EQ(ReplaceFile::Create(Path()).status().code(), absl::StatusCode::kPermissionDenied);
  fs::permissions(folder_, fs::perms::owner_all);
}

}  // namespace
}  // namespace thermocline
