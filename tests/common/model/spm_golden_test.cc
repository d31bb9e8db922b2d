// Token ids that other programs gave for real vocabularies, and round trips over them.
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <sstream>

#include "common/model/tokenizer.h"

namespace thermocline {
namespace {

const std::string kTests = std::string(THERMOCLINE_SOURCE_DIR) + "/tests/";
const std::string kLlama = kTests + "golden/tokenizers/llama-spm.gguf";
const std::string kReluctant = kTests + "models/reluctant-13m-q8_0.gguf";

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  return std::string(std::istreambuf_iterator<char>(file), {});
}

std::unique_ptr<Tokenizer> LoadTokenizer(const std::string& path) {
  auto file = GgufFile::Open(path);
  EXPECT_TRUE(file.ok()) << file.status();
  auto tokenizer = Tokenizer::Create(**file);  // must not need the file afterwards
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

std::vector<std::string> SplitAt(const std::string& text, const std::string& separator) {
  std::vector<std::string> parts;
  size_t begin = 0;
  for (size_t at; (at = text.find(separator, begin)) != std::string::npos;
       begin = at + separator.size()) {
    parts.push_back(text.substr(begin, at - begin));
  }
  parts.push_back(text.substr(begin));
  return parts;
}

TEST(SpmGoldenTest, EqualsLlamaCppOnItsTestStrings) {
  const std::unique_ptr<Tokenizer> tokenizer = LoadTokenizer(kLlama);
  const std::string base = kTests + "golden/tokenizers/llama-spm";
  std::vector<std::string> inputs = SplitAt(ReadFile(base + ".inp"), "\n__ggml_vocab_test__\n");
  std::vector<std::string> lines = SplitAt(ReadFile(base + ".out"), "\n");
  inputs.pop_back();  // both files end with a separator
  lines.pop_back();
  ASSERT_GE(inputs.size(), 40u);
  ASSERT_EQ(lines.size(), inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    std::istringstream line(lines[i]);
    const std::vector<int32_t> expected{std::istream_iterator<int32_t>(line), {}};
    EXPECT_EQ(tokenizer->Encode(inputs[i], false, false), expected)
        << "string " << i << ": " << ::testing::PrintToString(inputs[i]);
    EXPECT_EQ(tokenizer->Decode(expected, false), inputs[i]);
  }
}

TEST(SpmGoldenTest, EqualsTheExpectedIdsOfHeldOutText) {
  const std::unique_ptr<Tokenizer> tokenizer = LoadTokenizer(kReluctant);
  auto expected = GgufFile::Open(kTests + "models/reluctant-13m-q8_0.expected.gguf");
  ASSERT_TRUE(expected.ok()) << expected.status();
  const auto text = (*expected)->GetString("tokenize.text");
  ASSERT_TRUE(text.ok()) << text.status();
  const GgufTensor* tensor = (*expected)->FindTensor("tokenize.ids");
  ASSERT_NE(tensor, nullptr);
  ASSERT_EQ(static_cast<uint32_t>(tensor->type), 26u) << "I32";
  const std::string bytes = ReadFile((*expected)->path());
  ASSERT_LE(tensor->file_offset + tensor->dims[0] * sizeof(int32_t), bytes.size());
  std::vector<int32_t> ids(tensor->dims[0]);
  std::memcpy(ids.data(), bytes.data() + tensor->file_offset, ids.size() * sizeof(int32_t));
  EXPECT_EQ(tokenizer->Encode(*text, false, false), ids);
  EXPECT_EQ(tokenizer->Decode(ids, false), *text);
}

TEST(SpmGoldenTest, SpecialTokensAreWhereTheFileAsks) {
  const std::unique_ptr<Tokenizer> tokenizer = LoadTokenizer(kLlama);
  EXPECT_EQ(tokenizer->n_vocab(), 32000);
  EXPECT_EQ(tokenizer->bos(), 1);
  EXPECT_EQ(tokenizer->eos(), 2);
  EXPECT_EQ(tokenizer->eot(), -1);
  EXPECT_TRUE(tokenizer->add_bos());
  EXPECT_TRUE(tokenizer->is_end(2));
  EXPECT_FALSE(tokenizer->is_end(-1));
  EXPECT_EQ(tokenizer->Encode("Hello", true, false), (std::vector<int32_t>{1, 15043}));
  EXPECT_EQ(tokenizer->Encode("", true, false), (std::vector<int32_t>{1}));
  EXPECT_EQ(tokenizer->Encode("Hello</s>Hello", false, true),
            (std::vector<int32_t>{15043, 2, 15043}));
}

// Round trips are exact for any bytes but U+2581 itself, which stands for the space.
class SpmRoundTripTest : public ::testing::TestWithParam<std::string> {};

TEST_P(SpmRoundTripTest, DecodeGivesBackWhatWasEncoded) {
  const std::unique_ptr<Tokenizer> tokenizer = LoadTokenizer(GetParam());
  static const std::vector<std::string> kParts = {" ",
                                                  "  ",
                                                  "\n",
                                                  "\n\n",
                                                  "\t",
                                                  "the",
                                                  "Hello",
                                                  " world",
                                                  "1314",
                                                  "é",
                                                  "😶‍🌫️",
                                                  "我想",
                                                  "កា",
                                                  "🦙",
                                                  "</s>",
                                                  "<s>",
                                                  "<",
                                                  "s>",
                                                  "<0x0A>",
                                                  "\r\n",
                                                  std::string(1, '\0')};
  std::mt19937 rng(3);
  for (int i = 0; i < 5000; ++i) {
    std::string text;
    for (int n = rng() % 20; n > 0; --n) {
      if (rng() % 4 == 0) {
        text += static_cast<char>(rng() % 256);
      } else {
        text += kParts[rng() % kParts.size()];
      }
    }
    if (text.find("\xe2\x96\x81") != std::string::npos) continue;
    for (const bool special : {false, true}) {
      const std::vector<int32_t> ids = tokenizer->Encode(text, false, special);
      ASSERT_EQ(tokenizer->Decode(ids, special), text) << ::testing::PrintToString(text);
    }
    ASSERT_EQ(tokenizer->Decode(tokenizer->Encode(text, true, false), false), text);
  }
}

TEST_P(SpmRoundTripTest, PiecesOfATextAreTheTextWithItsSpacePrefix) {
  const std::unique_ptr<Tokenizer> tokenizer = LoadTokenizer(GetParam());
  const std::string text = "A truth, universally\nacknowledged: 🦙 “naïve”  spaces";
  std::string pieces;
  for (const int32_t id : tokenizer->Encode(text, true, false))
    pieces += tokenizer->Piece(id, false);
  EXPECT_EQ(pieces, " " + text);
  EXPECT_EQ(tokenizer->Piece(1, true), "<s>");
  EXPECT_EQ(tokenizer->Piece(1, false), "");
  EXPECT_EQ(tokenizer->Piece(-1, true), "");
  EXPECT_EQ(tokenizer->Piece(tokenizer->n_vocab(), true), "");
}

INSTANTIATE_TEST_SUITE_P(Vocabularies, SpmRoundTripTest, ::testing::Values(kLlama, kReluctant),
                         [](const auto& info) { return info.index == 0 ? "Llama" : "Reluctant"; });

}  // namespace
}  // namespace thermocline
