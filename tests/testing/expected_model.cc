// Reads NAME.expected.gguf.
#include "tests/testing/expected_model.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "common/util/status_macros.h"
#include "fmt/format.h"

namespace thermocline::testing {
namespace {

template <typename T>
absl::StatusOr<std::vector<T>> Values(const GgufFile& file, const std::string& name) {
  const GgufTensor* tensor = file.FindTensor(name);
  if (tensor == nullptr) return absl::NotFoundError(name);
  const absl::Span<const uint8_t> bytes = file.TensorBytes(*tensor);
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

}  // namespace

std::string FindModel(const std::string& file_name) {
  std::vector<std::string> folders = {THERMOCLINE_SOURCE_DIR "/tests/models"};
  if (const char* more = std::getenv("THERMOCLINE_MODELS")) folders.emplace_back(more);
  for (const std::string& folder : folders) {
    if (std::string path = folder + "/" + file_name; std::filesystem::exists(path)) return path;
  }
  return "";
}

bool RequiresModels() {
  const char* value = std::getenv("THERMOCLINE_REQUIRE_MODELS");
  return value != nullptr && std::string(value) == "1";
}

std::string TestNameOf(std::string file_name) {
  std::replace_if(
      file_name.begin(), file_name.end(), [](unsigned char c) { return !std::isalnum(c); }, '_');
  return file_name;
}

absl::StatusOr<ExpectedModel> LoadExpectedModel(const std::string& path) {
  ExpectedModel model;
  model.path = path;
  ASSIGN_OR_RETURN(model.file, GgufFile::Open(path));
  const std::string stem = path.substr(0, path.rfind(".gguf"));
  ASSIGN_OR_RETURN(model.expected, GgufFile::Open(stem + ".expected.gguf"));
  for (int i = 0; i < 4; ++i) {
    const std::string key = fmt::format("prompt{}.", i);
    ExpectedPrompt prompt;
    ASSIGN_OR_RETURN(prompt.text, model.expected->GetString(key + "text"));
    ASSIGN_OR_RETURN(prompt.greedy_text, model.expected->GetString(key + "greedy_text"));
    ASSIGN_OR_RETURN(prompt.tokens, Values<int32_t>(*model.expected, key + "tokens"));
    ASSIGN_OR_RETURN(prompt.greedy, Values<int32_t>(*model.expected, key + "greedy"));
    ASSIGN_OR_RETURN(prompt.margin, Values<float>(*model.expected, key + "greedy_margin"));
    ASSIGN_OR_RETURN(prompt.logits, Values<float>(*model.expected, key + "logits"));
    model.prompts.push_back(std::move(prompt));
  }
  ASSIGN_OR_RETURN(model.perplexity_ctx512_chunks40,
                   model.expected->GetFloat("perplexity.ctx512.chunks40"));
  return model;
}

}  // namespace thermocline::testing
