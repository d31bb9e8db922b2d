// The stream is cut between characters only, however the bytes come in.
#include <gtest/gtest.h>

#include <random>

#include "common/model/tokenizer.h"
#include "common/util/utf8.h"

namespace thermocline {
namespace {

const std::string kReplacement = "\xef\xbf\xbd";

bool IsWellFormed(std::string_view text) {
  while (!text.empty()) {
    const Utf8Unit unit = NextUtf8(text);
    if (unit.kind != Utf8Unit::kCharacter) return false;
    text.remove_prefix(unit.n_bytes);
  }
  return true;
}

std::string RandomText(std::mt19937* rng, bool well_formed) {
  static const std::vector<std::string> kParts = {
      "a", " ", "\n", "é", "ß", "€", "ក", "我", "🦙", "👩‍🚀", "\xef\xbf\xbd"};
  std::string text;
  for (int i = (*rng)() % 12; i > 0; --i) {
    if (well_formed || (*rng)() % 2 == 0) {
      text += kParts[(*rng)() % kParts.size()];
    } else {
      text += static_cast<char>((*rng)() % 256);
    }
  }
  return text;
}

// Pushes the text in random pieces; every piece that comes out must stand alone.
std::string Stream(const std::string& text, std::mt19937* rng) {
  Utf8Stream stream;
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t n_bytes = (*rng)() % 4;
    const std::string shown = stream.Push(std::string_view(text).substr(at, n_bytes));
    EXPECT_TRUE(IsWellFormed(shown)) << ::testing::PrintToString(text);
    out += shown;
    at += n_bytes;
  }
  const std::string rest = stream.Flush();
  EXPECT_TRUE(rest.empty() || rest == kReplacement);
  EXPECT_EQ(stream.Flush(), "");
  return out + rest;
}

TEST(Utf8StreamTest, WellFormedTextComesOutUnchanged) {
  std::mt19937 rng(1);
  for (int i = 0; i < 20000; ++i) {
    const std::string text = RandomText(&rng, true);
    ASSERT_EQ(Stream(text, &rng), text);
  }
}

TEST(Utf8StreamTest, HowBytesAreCutDoesNotMatter) {
  std::mt19937 rng(2);
  for (int i = 0; i < 20000; ++i) {
    const std::string text = RandomText(&rng, false);
    Utf8Stream whole;
    std::string expected = whole.Push(text);
    expected += whole.Flush();
    ASSERT_EQ(Stream(text, &rng), expected) << ::testing::PrintToString(text);
  }
}

TEST(Utf8StreamTest, CharacterAppearsWithItsLastByte) {
  Utf8Stream stream;
  EXPECT_EQ(stream.Push("\xf0"), "");
  EXPECT_EQ(stream.Push("\x9f\xa6"), "");
  EXPECT_EQ(stream.Push("\x99!"), "🦙!");
}

TEST(Utf8StreamTest, InvalidBytesAreReplacedAsSoonAsThatIsCertain) {
  Utf8Stream stream;
  EXPECT_EQ(stream.Push("\xff"), kReplacement);
  EXPECT_EQ(stream.Push("\xe2\x82"), "");
  EXPECT_EQ(stream.Push("a"), kReplacement + "a");
  EXPECT_EQ(stream.Push("\xf0\x9f"), "");
  EXPECT_EQ(stream.Push("\xc3"), kReplacement);
  EXPECT_EQ(stream.Push("\xa9"), "é");
}

TEST(Utf8StreamTest, IncompleteTailIsOneReplacement) {
  Utf8Stream stream;
  EXPECT_EQ(stream.Push("a\xf0\x9f\xa6"), "a");
  EXPECT_EQ(stream.Flush(), kReplacement);
  EXPECT_EQ(stream.Push("\x99"), kReplacement) << "Flush must forget what was pending";
}

// The example of Unicode 15, section 3.9, table 3-8.
TEST(Utf8StreamTest, MaximalSubpartsAreReplacedAsTheStandardShows) {
  Utf8Stream stream;
  EXPECT_EQ(stream.Push("\x61\xf1\x80\x80\xe1\x80\xc2\x62\x80\x63\x80\xbf\x64"),
            "a" + kReplacement + kReplacement + kReplacement + "b" + kReplacement + "c" +
                kReplacement + kReplacement + "d");
}

}  // namespace
}  // namespace thermocline
