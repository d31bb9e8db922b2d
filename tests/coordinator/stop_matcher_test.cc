// Stop texts in a stream: what is shown, what is held back.
#include "coordinator/engine/stop_matcher.h"

#include <gtest/gtest.h>

namespace thermocline {
namespace {

TEST(StopMatcher, WithoutStopTextsEverythingIsShownAtOnce) {
  StopMatcher matcher({});
  EXPECT_EQ(matcher.Push("abc"), "abc");
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcher, TextThatMayStartAStopTextIsHeldBack) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.Push("the E"), "the ");
  EXPECT_EQ(matcher.Push("N"), "");
  EXPECT_EQ(matcher.Push("T"), "ENT");
  EXPECT_FALSE(matcher.matched());
}

TEST(StopMatcher, HeldTextComesOutAtTheEnd) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.Push("an EN"), "an ");
  EXPECT_EQ(matcher.Flush(), "EN");
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcher, NothingOfTheStopTextNorAfterItIsShown) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.Push("one E"), "one ");
  EXPECT_EQ(matcher.Push("ND two"), "");
  EXPECT_TRUE(matcher.matched());
  EXPECT_EQ(matcher.Push("three"), "");
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcher, TheEarliestOfSeveralStopTextsCounts) {
  StopMatcher matcher({"later", "now"});
  EXPECT_EQ(matcher.Push("do it now or later"), "do it ");
  EXPECT_TRUE(matcher.matched());
}

TEST(StopMatcher, AStopTextThatRepeatsItsStartIsFoundAcrossPieces) {
  StopMatcher matcher({"aab"});
  std::string shown;
  for (char c : std::string("aaaab")) shown += matcher.Push(std::string(1, c));
  EXPECT_EQ(shown, "aa");
  EXPECT_TRUE(matcher.matched());
}

TEST(StopMatcher, ALongerHeldStartOfAnotherStopTextIsKept) {
  StopMatcher matcher({"xyz!", "yz?"});
  EXPECT_EQ(matcher.Push("wxyz"), "w");
  EXPECT_EQ(matcher.Push("?"), "x");
  EXPECT_TRUE(matcher.matched());
}

}  // namespace
}  // namespace thermocline
