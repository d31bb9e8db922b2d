// The tokens of a model as the file lists them: texts, kinds, special ids. What every kind of
// tokenizer needs; how text is cut into tokens is up to each of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/gguf/gguf_file.h"

namespace thermocline {

// What tokenizer.ggml.token_type says of a token.
enum class TokenKind {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

struct Vocabulary {
  std::vector<std::string> texts;                  // [n_vocab], as in the file
  std::vector<TokenKind> kinds;                    // [n_vocab]
  int32_t bos = -1, eos = -1, eot = -1, unk = -1;  // -1: none
  bool add_bos = false, add_eos = false;

  // At most 2^24: GgufFile reads no longer arrays.
  int64_t size() const { return static_cast<int64_t>(texts.size()); }

  // Takes bos, eos, unk, add_bos and add_eos as given where the file says nothing of them (an id
  // that is no special token of the file becomes -1). Errors name the key.
  static absl::StatusOr<Vocabulary> Load(const GgufFile& file, const Vocabulary& defaults);
};

}  // namespace thermocline
