// Mapping files: what comes back, and what cannot be mapped. Messages: gguf_file_test.
#include "common/util/mapped_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

namespace thermocline {
namespace {

class MappedFileTest : public ::testing::Test {
 protected:
  ~MappedFileTest() override { std::filesystem::remove(path_); }
  void Write(const std::string& text) { std::ofstream(path_, std::ios::binary) << text; }
  absl::StatusCode OpenCode() { return MappedFile::Open(path_).status().code(); }

  const std::string path_ = ::testing::TempDir() + "/mapped_file_test." + std::to_string(getpid());
};

TEST_F(MappedFileTest, HoldsTheFilesBytesAlsoAfterItIsUnlinked) {
  Write("three words here");
  const auto file = MappedFile::Open(path_);
  ASSERT_TRUE(file.ok()) << file.status();
  std::filesystem::remove(path_);
  const absl::Span<const uint8_t> bytes = (*file)->bytes();
  EXPECT_EQ(std::string(bytes.begin(), bytes.end()), "three words here");
}

TEST_F(MappedFileTest, BytesComeBackAfterDroppedPages) {
  Write(std::string(100'000, 'x'));
  const auto file = MappedFile::Open(path_);
  ASSERT_TRUE(file.ok()) << file.status();
  const std::string before((*file)->bytes().begin(), (*file)->bytes().end());
  for (const auto& [offset, n_bytes] : {std::pair<uint64_t, uint64_t>{0, 100'000},
                                        {1, 5000},
                                        {99'999, 1},
                                        {100'000, 1},
                                        {5, UINT64_MAX}}) {
    (*file)->DropPages(offset, n_bytes);
    EXPECT_EQ(std::string((*file)->bytes().begin(), (*file)->bytes().end()), before);
  }
}

TEST_F(MappedFileTest, RefusesWhatIsNoFileWithBytes) {
  EXPECT_EQ(OpenCode(), absl::StatusCode::kNotFound);
  Write("");
  EXPECT_EQ(OpenCode(), absl::StatusCode::kInvalidArgument);
  std::filesystem::remove(path_);
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);  // must not be waited for
  EXPECT_EQ(OpenCode(), absl::StatusCode::kInvalidArgument);
  std::filesystem::remove(path_);
  std::filesystem::create_directory(path_);
  EXPECT_EQ(OpenCode(), absl::StatusCode::kInvalidArgument);
}

TEST_F(MappedFileTest, AFileThatMayNotBeReadIsPermissionDenied) {
  if (geteuid() == 0) GTEST_SKIP() << "root may read everything";
  Write("secret");
  chmod(path_.c_str(), 0);
  EXPECT_EQ(OpenCode(), absl::StatusCode::kPermissionDenied);
}

}  // namespace
}  // namespace thermocline
