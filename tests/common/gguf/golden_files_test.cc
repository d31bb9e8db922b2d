// No golden file may lie unread: each is named in the source of some test.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace thermocline {
namespace {

namespace fs = std::filesystem;

std::string AllTestSources() {
  std::string text;
  for (const auto& entry : fs::recursive_directory_iterator(THERMOCLINE_SOURCE_DIR "/tests")) {
    if (entry.path().extension() != ".cc") continue;
    std::ifstream in(entry.path());
    text.append(std::istreambuf_iterator<char>(in), {});
  }
  return text;
}

TEST(GoldenFiles, EachIsNamedByATest) {
  const std::string sources = AllTestSources();
  int n_files = 0;
  for (const auto& entry :
       fs::recursive_directory_iterator(THERMOCLINE_SOURCE_DIR "/tests/golden")) {
    if (!entry.is_regular_file() || entry.path().extension() == ".md") continue;
    ++n_files;
    // By its stem, since tests put endings to names themselves.
    EXPECT_NE(sources.find(entry.path().stem().string()), std::string::npos) << entry.path();
  }
  EXPECT_GT(n_files, 0);
}

}  // namespace
}  // namespace thermocline
