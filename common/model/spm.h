// Tokenizer "llama": SentencePiece's byte-pair encoding, with scores and byte fallback.
//
// Source: T. Kudo and J. Richardson, SentencePiece (arXiv 1808.06226), and what llama.cpp makes of
// its models, whose token ids these must equal. Deviations: control, unknown and byte tokens never
// come from merging ordinary text, as in SentencePiece; of ill-formed UTF-8 each byte stands alone.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/model/special_tokens.h"
#include "common/model/tokenizer.h"
#include "common/model/vocabulary.h"

namespace thermocline {

class SpmTokenizer : public Tokenizer {
 public:
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(const GgufFile& file);

  std::vector<int32_t> Encode(std::string_view text, bool add_special,
                              bool parse_special) const override;
  std::string Piece(int32_t id, bool special) const override;
  std::string Decode(const std::vector<int32_t>& ids, bool special) const override;

 private:
  SpmTokenizer(Vocabulary vocabulary, std::vector<float> scores, bool add_space_prefix);
  // Byte tokens by their names; an error when text could not be written with the tokens there are.
  absl::Status FindByteTokens(const std::string& path);
  // Appends the tokens of text in which U+2581 stands for the space.
  void Merge(std::string_view text, std::vector<int32_t>* ids) const;
  void AppendBytes(std::string_view text, std::vector<int32_t>* ids) const;

  const Vocabulary vocabulary_;
  const std::vector<float> scores_;  // [n_vocab]; the higher, the earlier a pair is merged
  const bool add_space_prefix_;
  const SpecialTokens special_tokens_;
  std::unordered_map<std::string_view, int32_t> ids_;  // of tokens that text is merged into
  // Some token holds a space inside or at its end. Without such a token no merge crosses from word
  // to word, so words are merged one by one: the same tokens, from memory that stays in cache.
  bool crosses_words_ = false;
  std::array<int32_t, 256> byte_tokens_;  // unknown where there is none
  std::vector<uint8_t> byte_values_;      // [n_vocab], of byte tokens
};

}  // namespace thermocline
