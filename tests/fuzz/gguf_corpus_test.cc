// Opens every file of the GGUF corpus as a model: whole ones are accepted, each broken one ends in
// one line that names the file and says what is wrong.
#include "tests/fuzz/gguf_corpus.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

#include "common/gguf/gguf_file.h"
#include "common/model/config.h"
#include "common/model/tensor_table.h"
#include "common/util/status_macros.h"

namespace thermocline {
namespace {

const char kFolder[] = THERMOCLINE_SOURCE_DIR "/tests/fuzz/corpus/gguf/";

absl::Status OpenAsModel(const std::string& path) {
  ASSIGN_OR_RETURN(const std::unique_ptr<GgufFile> file, GgufFile::Open(path));
  ASSIGN_OR_RETURN(const ModelConfig config, ReadModelConfig(*file));
  return CheckTensors(*file, config);
}

TEST(GgufCorpus, EveryFileEndsInItsOneClearErrorOrIsAccepted) {
  for (const testing::CorpusFile& file : testing::GgufCorpus()) {
    const std::string path = kFolder + file.name;
    const absl::Status status = OpenAsModel(path);
    if (file.error.empty()) {
      EXPECT_TRUE(status.ok()) << status;
      continue;
    }
    const std::string message(status.message());
    EXPECT_THAT(message, ::testing::StartsWith(path + ": "));
    EXPECT_THAT(message, ::testing::HasSubstr(file.error)) << file.name;
    EXPECT_EQ(message.find('\n'), std::string::npos) << file.name;
    EXPECT_LT(message.size(), 2000u) << file.name;
  }
}

TEST(GgufCorpus, FilesAreWhatMakeCorpusWrites) {
  std::set<std::string> names;
  for (const testing::CorpusFile& file : testing::GgufCorpus()) {
    EXPECT_TRUE(names.insert(file.name).second) << file.name << " is made twice";
    std::ifstream in(kFolder + file.name, std::ios::binary);
    const testing::Bytes bytes{std::istreambuf_iterator<char>(in), {}};
    EXPECT_TRUE(in.is_open() && bytes == file.bytes) << file.name << ": run make_corpus again";
  }
  for (const auto& entry : std::filesystem::directory_iterator(kFolder)) {
    EXPECT_TRUE(names.contains(entry.path().filename())) << entry.path() << " is made by nothing";
  }
}

}  // namespace
}  // namespace thermocline
