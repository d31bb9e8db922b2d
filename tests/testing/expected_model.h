// A model file with what it must say (NAME.expected.gguf beside it; tests/models/README.md).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/gguf/gguf_file.h"

namespace thermocline::testing {

struct ExpectedPrompt {
  std::string text, greedy_text;
  std::vector<int32_t> tokens;  // with BOS
  std::vector<int32_t> greedy;  // [64]
  std::vector<float> margin;    // [64], best minus second-best logit at each
  std::vector<float> logits;    // [n_tokens + 16, n_vocab]: the prompt, then 16 greedy tokens
};

struct ExpectedModel {
  std::string path;
  std::unique_ptr<GgufFile> file;
  std::unique_ptr<GgufFile> expected;
  std::vector<ExpectedPrompt> prompts;
  double perplexity_ctx512_chunks40 = 0;
};

// Where models lie: the project's own tests/models, and the folder that the environment variable
// THERMOCLINE_MODELS names, if set. "" when no folder has the file.
std::string FindModel(const std::string& file_name);
// Whether a test must fail, not be skipped, without its files: THERMOCLINE_REQUIRE_MODELS=1.
bool RequiresModels();
std::string TestNameOf(std::string file_name);  // letters, digits and underscores
absl::StatusOr<ExpectedModel> LoadExpectedModel(const std::string& path);

}  // namespace thermocline::testing
