// The merge loop of SentencePiece BPE, and text of tokens.
#include "common/model/spm.h"

#include <fmt/format.h>

#include <algorithm>
#include <queue>
#include <utility>

#include "common/util/printable.h"
#include "common/util/status_macros.h"
#include "common/util/utf8.h"

namespace thermocline {
namespace {

constexpr std::string_view kSpaceMark = "\xe2\x96\x81";  // U+2581, a space in token texts
constexpr const char* kScoresKey = "tokenizer.ggml.scores";

void ReplaceAll(std::string* text, std::string_view from, std::string_view to) {
  std::string out;
  out.reserve(text->size());
  size_t begin = 0;
  for (size_t at; (at = text->find(from, begin)) != std::string::npos; begin = at + from.size()) {
    out.append(*text, begin, at - begin).append(to);
  }
  *text = out.append(*text, begin);
}

// Where the first word of the text ends: before the first space mark that follows another
// character.
size_t WordEnd(std::string_view text) {
  size_t at = 0;
  while (text.substr(at).starts_with(kSpaceMark)) at += kSpaceMark.size();
  return std::min(text.find(kSpaceMark, at), text.size());
}

// A stretch of the text that is one token so far; a list from left to right.
struct Symbol {
  std::string_view text;  // empty once merged into its left neighbour
  int64_t left, right;    // index of the neighbours, -1 at the ends
};

struct Pair {
  float score;
  int64_t left, right;
  size_t n_bytes;  // of both when the pair was seen: a pair that has changed since is stale
};

// Orders the queue: the best score first, the leftmost among equals.
struct IsWorse {
  bool operator()(const Pair& a, const Pair& b) const {
    return a.score < b.score || (a.score == b.score && a.left > b.left);
  }
};

std::vector<Symbol> SplitCharacters(std::string_view text) {
  std::vector<Symbol> symbols;
  symbols.reserve(text.size());
  while (!text.empty()) {
    const Utf8Unit unit = NextUtf8(text);
    const size_t n_bytes = unit.kind == Utf8Unit::kCharacter ? unit.n_bytes : 1;
    const int64_t index = static_cast<int64_t>(symbols.size());
    symbols.push_back({text.substr(0, n_bytes), index - 1, index + 1});
    text.remove_prefix(n_bytes);
  }
  if (!symbols.empty()) symbols.back().right = -1;
  return symbols;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> SpmTokenizer::Create(const GgufFile& file) {
  Vocabulary defaults;  // what llama.cpp takes when the file is silent
  defaults.unk = 0;
  defaults.bos = 1;
  defaults.eos = 2;
  defaults.add_bos = true;
  ASSIGN_OR_RETURN(Vocabulary vocabulary, Vocabulary::Load(file, defaults));
  ASSIGN_OR_RETURN(std::vector<float> scores, file.GetFloats(kScoresKey));
  if (scores.size() != vocabulary.texts.size()) {
    return absl::InvalidArgumentError(fmt::format(
        "{}: key {} has {} elements, tokenizer.ggml.tokens has {}: they must be as many",
        file.path(), kScoresKey, scores.size(), vocabulary.size()));
  }
  bool add_space_prefix = true;
  if (file.Has("tokenizer.ggml.add_space_prefix")) {
    ASSIGN_OR_RETURN(add_space_prefix, file.GetBool("tokenizer.ggml.add_space_prefix"));
  }
  std::unique_ptr<SpmTokenizer> tokenizer(
      new SpmTokenizer(std::move(vocabulary), std::move(scores), add_space_prefix));
  RETURN_IF_ERROR(tokenizer->FindByteTokens(file.path()));
  return tokenizer;
}

SpmTokenizer::SpmTokenizer(Vocabulary vocabulary, std::vector<float> scores, bool add_space_prefix)
    : Tokenizer(vocabulary),
      vocabulary_(std::move(vocabulary)),
      scores_(std::move(scores)),
      add_space_prefix_(add_space_prefix),
      special_tokens_(vocabulary_) {
  for (int64_t id = 0; id < n_vocab_; ++id) {
    const TokenKind kind = vocabulary_.kinds[id];
    if (kind == TokenKind::kNormal || kind == TokenKind::kUserDefined ||
        kind == TokenKind::kUnused) {
      ids_[vocabulary_.texts[id]] = static_cast<int32_t>(id);
      crosses_words_ |= WordEnd(vocabulary_.texts[id]) != vocabulary_.texts[id].size();
    }
  }
}

absl::Status SpmTokenizer::FindByteTokens(const std::string& path) {
  std::unordered_map<std::string, uint8_t> value_of;
  for (int value = 0; value < 256; ++value) {
    value_of[fmt::format("<0x{:02X}>", value)] = static_cast<uint8_t>(value);
  }
  byte_tokens_.fill(unk_);
  byte_values_.resize(n_vocab_);
  for (int64_t id = 0; id < n_vocab_; ++id) {
    if (vocabulary_.kinds[id] != TokenKind::kByte) continue;
    const auto it = value_of.find(vocabulary_.texts[id]);
    if (it == value_of.end()) {
      return absl::InvalidArgumentError(fmt::format(
          "{}: key tokenizer.ggml.tokens: token {} is of the kind byte, but its name {} "
          "is none of <0x00> to <0xFF>",
          path, id, Quoted(vocabulary_.texts[id])));
    }
    byte_values_[id] = it->second;
    byte_tokens_[it->second] = static_cast<int32_t>(id);
  }
  const auto missing = std::find(byte_tokens_.begin(), byte_tokens_.end(), -1);
  if (missing != byte_tokens_.end()) {
    return absl::InvalidArgumentError(fmt::format(
        "{}: key tokenizer.ggml.tokens has no token for byte <0x{:02X}> and there is no "
        "tokenizer.ggml.unknown_token_id: some text would be lost",
        path, missing - byte_tokens_.begin()));
  }
  return absl::OkStatus();
}

void SpmTokenizer::AppendBytes(std::string_view text, std::vector<int32_t>* ids) const {
  for (const char c : text) ids->push_back(byte_tokens_[static_cast<uint8_t>(c)]);
}

void SpmTokenizer::Merge(std::string_view text, std::vector<int32_t>* ids) const {
  std::vector<Symbol> symbols = SplitCharacters(text);
  std::priority_queue<Pair, std::vector<Pair>, IsWorse> pairs;
  const auto consider = [&](int64_t left, int64_t right) {
    if (left < 0 || right < 0) return;
    const std::string_view both(symbols[left].text.data(),
                                symbols[left].text.size() + symbols[right].text.size());
    const auto it = ids_.find(both);
    if (it != ids_.end()) pairs.push({scores_[it->second], left, right, both.size()});
  };
  for (size_t i = 1; i < symbols.size(); ++i) consider(static_cast<int64_t>(i) - 1, i);

  while (!pairs.empty()) {
    const Pair pair = pairs.top();
    pairs.pop();
    Symbol& left = symbols[pair.left];
    Symbol& right = symbols[pair.right];
    if (left.text.empty() || right.text.empty() ||
        left.text.size() + right.text.size() != pair.n_bytes) {
      continue;
    }
    left.text = std::string_view(left.text.data(), pair.n_bytes);
    right.text = {};
    left.right = right.right;
    if (left.right >= 0) symbols[left.right].left = pair.left;
    consider(left.left, pair.left);
    consider(pair.left, left.right);
  }

  for (const Symbol& symbol : symbols) {
    if (symbol.text.empty()) continue;
    const auto it = ids_.find(symbol.text);
    if (it != ids_.end()) {
      ids->push_back(it->second);
    } else {
      AppendBytes(symbol.text, ids);
    }
  }
}

std::vector<int32_t> SpmTokenizer::Encode(std::string_view text, bool add_special,
                                          bool parse_special) const {
  std::vector<int32_t> ids;
  if (add_special && add_bos_ && bos_ >= 0) ids.push_back(bos_);
  bool after_special = true;  // the beginning counts, with BOS or without
  for (const TextFragment& fragment : special_tokens_.Split(text, parse_special)) {
    if (fragment.token >= 0) {
      ids.push_back(fragment.token);
    } else {
      std::string marked = add_space_prefix_ && after_special ? " " : "";
      marked += fragment.text;
      ReplaceAll(&marked, " ", kSpaceMark);
      std::string_view rest = marked;
      while (!rest.empty()) {
        const size_t n_bytes = crosses_words_ ? rest.size() : WordEnd(rest);
        Merge(rest.substr(0, n_bytes), &ids);
        rest.remove_prefix(n_bytes);
      }
    }
    after_special = fragment.token >= 0;
  }
  if (add_special && add_eos_ && eos_ >= 0) ids.push_back(eos_);
  return ids;
}

std::string SpmTokenizer::Piece(int32_t id, bool special) const {
  if (id < 0 || id >= n_vocab_) return "";
  switch (vocabulary_.kinds[id]) {
    case TokenKind::kByte:
      return std::string(1, static_cast<char>(byte_values_[id]));
    case TokenKind::kControl:
    case TokenKind::kUnknown:
      return special ? vocabulary_.texts[id] : "";
    default: {
      std::string text = vocabulary_.texts[id];
      ReplaceAll(&text, kSpaceMark, " ");
      return text;
    }
  }
}

std::string SpmTokenizer::Decode(const std::vector<int32_t>& ids, bool special) const {
  std::string out;
  bool after_special = true;  // where Encode puts a space in front
  for (const int32_t id : ids) {
    if (id < 0 || id >= n_vocab_) continue;
    const TokenKind kind = vocabulary_.kinds[id];
    const bool is_text = kind == TokenKind::kNormal || kind == TokenKind::kUnused;
    std::string piece = Piece(id, special);
    if (add_space_prefix_ && after_special && is_text && piece.starts_with(' ')) piece.erase(0, 1);
    out += piece;
    after_special = !is_text && kind != TokenKind::kByte;
  }
  return out;
}

}  // namespace thermocline
