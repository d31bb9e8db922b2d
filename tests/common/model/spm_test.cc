// Rules of the tokenizer that the golden vocabularies do not show, on small made-up vocabularies:
// special tokens, fallbacks, flags of the file, damage.
#include "common/model/spm.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "tests/testing/gguf_builder.h"

namespace thermocline {
namespace {

using testing::Bytes;
using ::testing::ElementsAre;
using testing::GgufBuilder;
using ::testing::HasSubstr;

struct Token {
  std::string text;
  float score;
  TokenKind kind;
};

// <unk>, <s>, </s>, all bytes (ids 3 to 258), then what the test adds from kFirst on.
constexpr int32_t kFirst = 259;

std::vector<Token> BaseTokens() {
  std::vector<Token> tokens = {{"<unk>", 0, TokenKind::kUnknown},
                               {"<s>", 0, TokenKind::kControl},
                               {"</s>", 0, TokenKind::kControl}};
  for (int byte = 0; byte < 256; ++byte) {
    tokens.push_back({fmt::format("<0x{:02X}>", byte), 0, TokenKind::kByte});
  }
  return tokens;
}

GgufBuilder BuilderOf(const std::vector<Token>& tokens) {
  std::vector<std::string> texts;
  std::vector<float> scores;
  std::vector<int32_t> kinds;
  for (const Token& token : tokens) {
    texts.push_back(token.text);
    scores.push_back(token.score);
    kinds.push_back(static_cast<int32_t>(token.kind));
  }
  GgufBuilder builder;
  builder.String("general.architecture", "llama").String("tokenizer.ggml.model", "llama");
  builder.Strings("tokenizer.ggml.tokens", texts).Floats("tokenizer.ggml.scores", scores);
  builder.Ints("tokenizer.ggml.token_type", kinds);
  return builder;
}

GgufBuilder BuilderWith(const std::vector<Token>& added) {
  std::vector<Token> tokens = BaseTokens();
  tokens.insert(tokens.end(), added.begin(), added.end());
  return BuilderOf(tokens);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Create(const GgufBuilder& builder) {
  const Bytes bytes = builder.Build();
  auto file = GgufFile::Parse(bytes, "made.gguf");
  EXPECT_TRUE(file.ok()) << file.status();
  return Tokenizer::Create(**file);
}

std::unique_ptr<Tokenizer> Made(const GgufBuilder& builder) {
  auto tokenizer = Create(builder);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

const std::vector<Token> kLetters = {{"▁", -10, TokenKind::kNormal},   // kFirst
                                     {"a", -11, TokenKind::kNormal},   // + 1
                                     {"b", -12, TokenKind::kNormal},   // + 2
                                     {"ab", -2, TokenKind::kNormal},   // + 3
                                     {"ba", -1, TokenKind::kNormal},   // + 4
                                     {"aa", -3, TokenKind::kNormal}};  // + 5

std::vector<Token> LettersAnd(std::vector<Token> more) {
  more.insert(more.begin(), kLetters.begin(), kLetters.end());
  return more;
}

TEST(SpmTest, BestScoreMergesFirstAndLeftmostAmongEquals) {
  auto tokenizer = Made(BuilderWith(kLetters).Bool("tokenizer.ggml.add_space_prefix", false));
  EXPECT_THAT(tokenizer->Encode("aba", false, false), ElementsAre(kFirst + 1, kFirst + 4));
  EXPECT_THAT(tokenizer->Encode("aaa", false, false), ElementsAre(kFirst + 5, kFirst + 1));
  EXPECT_THAT(tokenizer->Encode("aab", false, false), ElementsAre(kFirst + 1, kFirst + 3));
}

TEST(SpmTest, SpacePrefixFollowsTheFlagAndComesAgainAfterSpecialTokens) {
  auto with = Made(BuilderWith(kLetters));
  EXPECT_THAT(with->Encode("b</s>b", false, true),
              ElementsAre(kFirst, kFirst + 2, 2, kFirst, kFirst + 2));
  EXPECT_EQ(with->Decode(with->Encode("b</s>b </s> b", false, true), true), "b</s>b </s> b");
  auto without = Made(BuilderWith(kLetters).Bool("tokenizer.ggml.add_space_prefix", false));
  EXPECT_THAT(without->Encode("b</s>b", false, true), ElementsAre(kFirst + 2, 2, kFirst + 2));
  EXPECT_EQ(without->Decode({kFirst, kFirst + 2}, false), " b");
}

TEST(SpmTest, EmptyTextHasNoTokens) {
  auto tokenizer = Made(BuilderWith(kLetters));
  EXPECT_TRUE(tokenizer->Encode("", false, true).empty());
  EXPECT_EQ(tokenizer->Decode({}, true), "");
}

TEST(SpmTest, BosAndEosFollowTheFlags) {
  auto defaults = Made(BuilderWith(kLetters));
  EXPECT_THAT(defaults->Encode("b", true, false), ElementsAre(1, kFirst, kFirst + 2));
  auto turned = Made(BuilderWith(kLetters)
                         .Bool("tokenizer.ggml.add_bos_token", false)
                         .Bool("tokenizer.ggml.add_eos_token", true));
  EXPECT_THAT(turned->Encode("b", true, false), ElementsAre(kFirst, kFirst + 2, 2));
  EXPECT_THAT(turned->Encode("b", false, false), ElementsAre(kFirst, kFirst + 2));
}

TEST(SpmTest, NamesOfControlTokensAreTextUnlessParsed) {
  // "</s" and ">" would merge to "</s>" if control tokens took part in merging.
  auto tokenizer = Made(BuilderWith({{"▁", -10, TokenKind::kNormal},
                                     {"</", -1, TokenKind::kNormal},
                                     {"</s", -2, TokenKind::kNormal}}));
  EXPECT_THAT(tokenizer->Encode("</s>", false, false), ElementsAre(kFirst, kFirst + 2, 3 + '>'));
  EXPECT_THAT(tokenizer->Encode("</s>", false, true), ElementsAre(2));
}

TEST(SpmTest, UserDefinedTokensAreAlwaysFound) {
  auto tokenizer = Made(BuilderWith(LettersAnd({{"<tag>", 0, TokenKind::kUserDefined}})));
  for (const bool parse_special : {false, true}) {
    EXPECT_THAT(tokenizer->Encode("a<tag>b", false, parse_special),
                ElementsAre(kFirst, kFirst + 1, kFirst + 6, kFirst, kFirst + 2));
  }
  EXPECT_EQ(tokenizer->Decode({kFirst, kFirst + 1, kFirst + 6, kFirst, kFirst + 2}, false),
            "a<tag>b");
}

TEST(SpmTest, LongerSpecialTokensAreFoundFirst) {
  auto tokenizer = Made(BuilderWith(LettersAnd({{"<x", 0, TokenKind::kUserDefined},
                                                {"<x><y>", 0, TokenKind::kControl},
                                                {"<y>b", 0, TokenKind::kUserDefined}})));
  EXPECT_THAT(tokenizer->Encode("<x><y>b", false, true),
              ElementsAre(kFirst + 7, kFirst, kFirst + 2));
  EXPECT_THAT(tokenizer->Encode("<x><y>b", false, false),
              ElementsAre(kFirst + 6, kFirst, 3 + '>', kFirst + 8));
}

TEST(SpmTest, TextWithoutATokenBecomesItsBytes) {
  auto tokenizer = Made(BuilderWith(kLetters));
  EXPECT_THAT(tokenizer->Encode("é", false, false), ElementsAre(kFirst, 3 + 0xc3, 3 + 0xa9));
  EXPECT_EQ(tokenizer->Piece(3 + 0xc3, false), "\xc3");
}

TEST(SpmTest, EachByteOfInvalidUtf8StandsAlone) {
  auto tokenizer = Made(BuilderWith(kLetters));
  EXPECT_THAT(tokenizer->Encode("\xe2"
                                "ab",
                                false, false),
              ElementsAre(kFirst, 3 + 0xe2, kFirst + 3));
}

TEST(SpmTest, UnknownTokenStandsForBytesWithoutAToken) {
  std::vector<Token> tokens = {{"<unk>", 0, TokenKind::kUnknown}, {"▁", -1, TokenKind::kNormal}};
  auto tokenizer = Made(BuilderOf(tokens));
  EXPECT_THAT(tokenizer->Encode("z", false, false), ElementsAre(1, 0));
  EXPECT_EQ(tokenizer->bos(), -1) << "token 1 is no control token";
  EXPECT_EQ(tokenizer->eos(), -1);
}

TEST(SpmTest, EndOfTurnComesFromItsKeyOrItsName) {
  const auto builder = BuilderWith(LettersAnd({{"<|im_end|>", 0, TokenKind::kControl}}));
  EXPECT_EQ(Made(builder)->eot(), kFirst + 6);
  EXPECT_TRUE(Made(builder)->is_end(kFirst + 6));
  EXPECT_EQ(Made(GgufBuilder(builder).Uint("tokenizer.ggml.eot_token_id", 1))->eot(), 1);
}

// The rule itself, word for word: look at all neighbours, merge the best pair, the leftmost among
// equals, until none is left.
std::vector<std::string> MergeByTheRule(const std::string& text,
                                        const std::map<std::string, float>& scores) {
  std::vector<std::string> parts;
  for (const char c : text) parts.push_back(c == ' ' ? "▁" : std::string(1, c));
  for (;;) {
    size_t best = parts.size();
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto it = scores.find(parts[i] + parts[i + 1]);
      if (it == scores.end()) continue;
      if (best == parts.size() || it->second > scores.at(parts[best] + parts[best + 1])) best = i;
    }
    if (best == parts.size()) return parts;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<ptrdiff_t>(best) + 1);
  }
}

TEST(SpmTest, MergingIsTheRuleOnRandomVocabularies) {
  std::mt19937 rng(4);
  for (int round = 0; round < 200; ++round) {
    const bool crosses_words = round % 2 == 0;
    std::map<std::string, float> scores = {{"▁", -100}, {"a", -100}, {"b", -100}};
    for (int i = 0; i < 30; ++i) {
      std::string token;
      for (int n = 2 + rng() % 4; n > 0; --n) {
        const bool may_be_space = crosses_words || token.empty() || token.ends_with("▁");
        const int letter = rng() % (may_be_space ? 3 : 2);
        token += letter == 2 ? "▁" : letter == 1 ? "b" : "a";
      }
      scores[token] = -static_cast<float>(rng() % 10);  // often equal
    }
    std::vector<Token> tokens;
    for (const auto& [text, score] : scores) tokens.push_back({text, score, TokenKind::kNormal});
    auto tokenizer = Made(BuilderWith(tokens).Bool("tokenizer.ggml.add_space_prefix", false));
    for (int i = 0; i < 50; ++i) {
      std::string text;
      for (int n = rng() % 40; n > 0; --n) text += "ab "[rng() % 3];
      std::vector<std::string> parts;
      for (const int32_t id : tokenizer->Encode(text, false, false)) {
        parts.push_back(tokens.at(id - kFirst).text);
      }
      ASSERT_EQ(parts, MergeByTheRule(text, scores)) << text;
    }
  }
}

TEST(SpmTest, LongTextsAreNotQuadratic) {
  auto tokenizer = Made(BuilderWith(LettersAnd({{"<tag>", 0, TokenKind::kUserDefined}})));
  const std::string letters(1 << 20, 'a');  // every pair is a candidate
  EXPECT_EQ(tokenizer->Encode(letters, false, true).size(), 1 + letters.size() / 2);
  std::string tags;
  for (int i = 0; i < 100000; ++i) tags += "<tag>";
  EXPECT_EQ(tokenizer->Encode(tags, false, true).size(), 100000u);
}

void ExpectRefused(const GgufBuilder& builder, absl::StatusCode code, const std::string& part) {
  const absl::Status status = Create(builder).status();
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_THAT(status.ToString(), HasSubstr("made.gguf"));
  EXPECT_THAT(status.ToString(), HasSubstr(part));
}

TEST(SpmDamageTest, OtherKindsAreNamedWithWhatIsSupported) {
  ExpectRefused(BuilderWith(kLetters).String("tokenizer.ggml.model", "gpt2"),
                absl::StatusCode::kUnimplemented, "'gpt2'; supported: 'llama'");
}

TEST(SpmDamageTest, MissingKeysAreNamed) {
  for (const char* key : {"model", "tokens", "scores", "token_type"}) {
    const std::string name = std::string("tokenizer.ggml.") + key;
    ExpectRefused(BuilderWith(kLetters).RemoveKey(name), absl::StatusCode::kNotFound, name);
  }
}

TEST(SpmDamageTest, ArraysOfDifferentLengthsAreNamed) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  ExpectRefused(BuilderWith(kLetters).Floats("tokenizer.ggml.scores", {0, 1}), kInvalid,
                "tokenizer.ggml.scores has 2 elements");
  ExpectRefused(BuilderWith(kLetters).Ints("tokenizer.ggml.token_type", {1, 1, 1}), kInvalid,
                "tokenizer.ggml.token_type has 3 elements");
}

TEST(SpmDamageTest, EmptyVocabularyIsRefused) {
  ExpectRefused(BuilderOf({}), absl::StatusCode::kInvalidArgument,
                "tokenizer.ggml.tokens has no elements");
}

TEST(SpmDamageTest, IdsAndKindsOutOfRangeAreNamed) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  for (const char* name : {"bos", "eos", "eot", "unknown"}) {
    const std::string key = fmt::format("tokenizer.ggml.{}_token_id", name);
    ExpectRefused(BuilderWith(kLetters).Uint(key, kFirst + 6), kInvalid, key);
    ExpectRefused(BuilderWith(kLetters).Int(key, -1), kInvalid, key);
  }
  auto tokens = kLetters;
  tokens[2].kind = static_cast<TokenKind>(7);
  ExpectRefused(BuilderWith(tokens), kInvalid,
                fmt::format("tokenizer.ggml.token_type says 7 of token {}", kFirst + 2));
}

TEST(SpmDamageTest, NoWayToWriteSomeTextIsRefused) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  ExpectRefused(BuilderOf({{"a", 0, TokenKind::kNormal}}), kInvalid, "<0x00>");
  ExpectRefused(BuilderWith({{"<0xQQ>", 0, TokenKind::kByte}}), kInvalid,
                fmt::format("token {} is of the kind byte", kFirst));
}

}  // namespace
}  // namespace thermocline
