// Reads and checks tokenizer.ggml.* keys.
#include "common/model/vocabulary.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/util/status_macros.h"

namespace thermocline {
namespace {

constexpr const char* kTokensKey = "tokenizer.ggml.tokens";
constexpr const char* kTypesKey = "tokenizer.ggml.token_type";

// End-of-turn tokens of chat models whose file has no eot_token_id.
constexpr const char* kEndOfTurnTexts[] = {"<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>"};

absl::StatusOr<std::vector<TokenKind>> LoadKinds(const GgufFile& file, size_t n_vocab) {
  ASSIGN_OR_RETURN(const std::vector<int64_t> numbers, file.GetInts(kTypesKey));
  if (numbers.size() != n_vocab) {
    return absl::InvalidArgumentError(
        fmt::format("{}: key {} has {} elements, {} has {}: they must be as many", file.path(),
                    kTypesKey, numbers.size(), kTokensKey, n_vocab));
  }
  std::vector<TokenKind> kinds;
  kinds.reserve(n_vocab);
  for (size_t id = 0; id < n_vocab; ++id) {
    if (numbers[id] < 1 || numbers[id] > 6) {
      return absl::InvalidArgumentError(
          fmt::format("{}: key {} says {} of token {}; 1 to 6 is possible", file.path(), kTypesKey,
                      numbers[id], id));
    }
    kinds.push_back(static_cast<TokenKind>(numbers[id]));
  }
  return kinds;
}

absl::StatusOr<int32_t> LoadId(const GgufFile& file, const Vocabulary& vocabulary, const char* name,
                               int32_t fallback) {
  const std::string key = fmt::format("tokenizer.ggml.{}", name);
  if (file.Has(key)) {
    ASSIGN_OR_RETURN(const int64_t id, file.GetInt(key, 0, vocabulary.size() - 1));
    return static_cast<int32_t>(id);
  }
  const bool is_special = fallback >= 0 && fallback < vocabulary.size() &&
                          (vocabulary.kinds[fallback] == TokenKind::kControl ||
                           vocabulary.kinds[fallback] == TokenKind::kUnknown);
  return is_special ? fallback : -1;
}

absl::StatusOr<bool> LoadBool(const GgufFile& file, const char* name, bool fallback) {
  const std::string key = fmt::format("tokenizer.ggml.{}", name);
  if (!file.Has(key)) return fallback;
  return file.GetBool(key);
}

int32_t FindEndOfTurn(const Vocabulary& vocabulary) {
  for (const char* text : kEndOfTurnTexts) {
    const auto it = std::find(vocabulary.texts.begin(), vocabulary.texts.end(), text);
    const size_t id = it - vocabulary.texts.begin();
    if (it == vocabulary.texts.end()) continue;
    const TokenKind kind = vocabulary.kinds[id];
    if (kind == TokenKind::kControl || kind == TokenKind::kUserDefined)
      return static_cast<int32_t>(id);
  }
  return -1;
}

}  // namespace

absl::StatusOr<Vocabulary> Vocabulary::Load(const GgufFile& file, const Vocabulary& defaults) {
  Vocabulary v;
  ASSIGN_OR_RETURN(const std::vector<std::string>* texts, file.GetStrings(kTokensKey));
  if (texts->empty()) {
    return absl::InvalidArgumentError(
        fmt::format("{}: key {} has no elements", file.path(), kTokensKey));
  }
  v.texts = *texts;
  ASSIGN_OR_RETURN(v.kinds, LoadKinds(file, v.texts.size()));
  ASSIGN_OR_RETURN(v.bos, LoadId(file, v, "bos_token_id", defaults.bos));
  ASSIGN_OR_RETURN(v.eos, LoadId(file, v, "eos_token_id", defaults.eos));
  ASSIGN_OR_RETURN(v.unk, LoadId(file, v, "unknown_token_id", defaults.unk));
  ASSIGN_OR_RETURN(v.eot, LoadId(file, v, "eot_token_id", FindEndOfTurn(v)));
  ASSIGN_OR_RETURN(v.add_bos, LoadBool(file, "add_bos_token", defaults.add_bos));
  ASSIGN_OR_RETURN(v.add_eos, LoadBool(file, "add_eos_token", defaults.add_eos));
  return v;
}

}  // namespace thermocline
