// Requests on a model without processes: prompts, ends, stop texts, the context's limit, the prefix
// that is kept, failures. The queue is inference_queue_test.cc.
#include "coordinator/engine/inference.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>

#include "tests/testing/fake_stepper.h"

namespace thermocline {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Answer {
  absl::Status status;
  std::string text;
  std::vector<int32_t> tokens;
  std::vector<std::string> pieces;
  std::vector<float> logprobs;
  v1::GenerateResponse last;
};

Answer Ask(Inference& inference, const v1::GenerateRequest& request) {
  Answer answer;
  answer.status = inference.Generate(
      request, [] { return false; },
      [&](const v1::GenerateResponse& message) {
        answer.text += message.text();
        answer.pieces.push_back(message.text());
        answer.logprobs.push_back(message.logprob());
        if (message.token() >= 0) answer.tokens.push_back(message.token());
        answer.last = message;
        return true;
      });
  return answer;
}

v1::GenerateRequest Greedy(const std::string& prompt, int64_t max_tokens = kUntilEnd) {
  v1::GenerateRequest request;
  request.set_text(prompt);
  request.set_max_tokens(max_tokens);
  request.mutable_sampling()->set_temperature(0);
  return request;
}

struct Engine {
  explicit Engine(const std::string& text, int64_t n_ctx = 64, int64_t batch_size = 8,
                  bool has_bos = true)
      : stepper(new testing::FakeStepper(text, n_ctx, batch_size, has_bos)),
        inference(std::unique_ptr<Stepper>(stepper), /*max_waiting=*/4) {}
  testing::FakeStepper* stepper;
  Inference inference;
};

TEST(Inference, ContinuesThePromptUntilTheEndToken) {
  Engine engine("to be or not");
  const Answer answer = Ask(engine.inference, Greedy("to be"));
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_EQ(answer.text, " or not");
  EXPECT_EQ(answer.last.finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(answer.last.token(), -1);
  EXPECT_EQ(answer.last.usage().prompt_tokens(), 6);
  EXPECT_EQ(answer.last.usage().completion_tokens(), 8);  // the end token is one
  EXPECT_EQ(answer.tokens.size(), 8u);
}

TEST(Inference, MaxTokensEndsWithLength) {
  Engine engine("to be or not");
  const Answer answer = Ask(engine.inference, Greedy("to be", 3));
  EXPECT_EQ(answer.text, " or");
  EXPECT_EQ(answer.last.finish_reason(), v1::FINISH_REASON_LENGTH);
}

TEST(Inference, ZeroTokensOnlyReadThePrompt) {
  Engine engine("to be or not");
  const Answer answer = Ask(engine.inference, Greedy("to be", 0));
  ASSERT_TRUE(answer.status.ok());
  EXPECT_EQ(answer.text, "");
  EXPECT_EQ(answer.last.finish_reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_THAT(engine.stepper->step_sizes, ElementsAre(6));
}

TEST(Inference, LogprobIsOfThePlainSoftmax) {
  Engine engine("ab");
  v1::GenerateRequest request = Greedy("a", 1);
  request.set_logprobs(true);
  const Answer answer = Ask(engine.inference, request);
  ASSERT_TRUE(answer.status.ok());
  // One logit is 20, one 10, the other 257 are 0.
  EXPECT_NEAR(answer.logprobs[0], -std::log(1 + std::exp(-10) + 257 * std::exp(-20)), 1e-6);
}

TEST(Inference, WhatNeedsOnlyTheBestLogitAsksForNoMoreAndGetsTheSameText) {
  const auto needs_only_best = [](const v1::GenerateRequest& request, const std::string& text) {
    Engine engine("to be or not");
    EXPECT_EQ(Ask(engine.inference, request).text, text);
    const std::vector<bool>& all = engine.stepper->needed_only_best;
    EXPECT_EQ(std::count(all.begin(), all.end(), all.front()), std::ssize(all));
    return all.front();
  };
  EXPECT_TRUE(needs_only_best(Greedy("to be"), " or not"));
  v1::GenerateRequest request = Greedy("to be");
  request.set_logprobs(true);
  EXPECT_FALSE(needs_only_best(request, " or not"));
  request = Greedy("to be");
  request.mutable_sampling()->set_temperature(0.1);
  EXPECT_FALSE(needs_only_best(request, " or not"));
  request = Greedy("to be");
  request.mutable_sampling()->set_repeat_penalty(1.01);
  EXPECT_FALSE(needs_only_best(request, " or not"));
  request = Greedy("to be", 7);
  request.set_ignore_eos(true);
  EXPECT_FALSE(needs_only_best(request, " or not"));
}

TEST(Inference, AModelWithoutAFiniteLogitIsAnErrorEitherWay) {
  for (const bool logprobs : {false, true}) {
    Engine engine("ab");
    engine.stepper->logits_are_nan = true;
    v1::GenerateRequest request = Greedy("a", 1);
    request.set_logprobs(logprobs);
    EXPECT_THAT(std::string(Ask(engine.inference, request).status.message()),
                HasSubstr("no finite number"));
  }
}

TEST(Inference, IgnoreEosNeverChoosesAnEndToken) {
  Engine engine("ab");
  v1::GenerateRequest request = Greedy("a", 4);
  request.set_ignore_eos(true);
  EXPECT_EQ(Ask(engine.inference, request).text, "b.??");
}

TEST(Inference, StopTextEndsBeforeIt) {
  Engine engine("say: one END two");
  v1::GenerateRequest request = Greedy("say:");
  request.add_stop("END");
  const Answer answer = Ask(engine.inference, request);
  EXPECT_EQ(answer.text, " one ");
  EXPECT_EQ(answer.last.finish_reason(), v1::FINISH_REASON_STOP);
}

TEST(Inference, TextHeldBackForAStopTextComesWithTheLastMessage) {
  Engine engine("say EN");
  v1::GenerateRequest request = Greedy("say");
  request.add_stop("END");
  const Answer answer = Ask(engine.inference, request);
  EXPECT_EQ(answer.text, " EN");
  EXPECT_EQ(answer.last.text(), "EN");
}

TEST(Inference, MessagesHoldWholeCharactersOnly) {
  Engine engine("caf\xC3\xA9!");
  const Answer answer = Ask(engine.inference, Greedy("caf"));
  EXPECT_THAT(answer.pieces, ElementsAre("", "\xC3\xA9", "!", "", ""));
}

TEST(Inference, ACharacterCutByMaxTokensIsReplaced) {
  Engine engine("caf\xC3\xA9!");
  EXPECT_EQ(Ask(engine.inference, Greedy("caf", 1)).text, "\xEF\xBF\xBD");
}

TEST(Inference, LongPromptsAreCutIntoSteps) {
  Engine engine("0123456789abcdefghij", 64, /*batch_size=*/8);
  const Answer answer = Ask(engine.inference, Greedy("0123456789abcdefgh"));
  EXPECT_EQ(answer.text, "ij");
  EXPECT_THAT(engine.stepper->step_sizes, ElementsAre(8, 8, 3, 1, 1));
}

TEST(PrefillPace, GrowsWhileStepsAreShort) {
  PrefillPace pace;
  EXPECT_EQ(pace.n_tokens(), 32);
  pace.Took(32, 0.1);
  EXPECT_EQ(pace.n_tokens(), 64);
  pace.Took(10, 0.1);  // the end of a prompt
  EXPECT_EQ(pace.n_tokens(), 64);
  pace.Took(64, 0.3);  // long enough
  EXPECT_EQ(pace.n_tokens(), 64);
}

TEST(PrefillPace, ShrinksToWhatFitsHalfASecondButNotToNothing) {
  PrefillPace pace;
  pace.Took(32, 0.1);
  pace.Took(64, 1.0);
  EXPECT_EQ(pace.n_tokens(), 32);
  pace.Took(1, 0.6);
  EXPECT_EQ(pace.n_tokens(), 16);
  pace.Took(16, 100.0);
  EXPECT_EQ(pace.n_tokens(), 16);
}

TEST(Inference, LongPromptsStartWithShortStepsAndTheRateIsRemembered) {
  Engine engine("", 4096, /*batch_size=*/256);
  ASSERT_TRUE(Ask(engine.inference, Greedy(std::string(499, 'a'), 0)).status.ok());
  EXPECT_THAT(engine.stepper->step_sizes, ElementsAre(32, 64, 128, 256, 20));
  engine.stepper->step_sizes.clear();
  ASSERT_TRUE(Ask(engine.inference, Greedy(std::string(499, 'b'), 0)).status.ok());
  EXPECT_THAT(engine.stepper->step_sizes, ElementsAre(256, 243));  // it begins with BOS, too
}

TEST(Inference, StepsOfASlowModelAreCutSoThatCancellingIsSeen) {
  Engine engine("", 4096, /*batch_size=*/256);
  engine.stepper->before_step = [] {
    std::this_thread::sleep_for(std::chrono::milliseconds(800));
    return absl::OkStatus();
  };
  ASSERT_TRUE(Ask(engine.inference, Greedy(std::string(49, 'a'), 0)).status.ok());
  ASSERT_EQ(engine.stepper->step_sizes.size(), 2u);
  EXPECT_EQ(engine.stepper->step_sizes[0], 32);
  EXPECT_LE(engine.stepper->step_sizes[1], 20);
}

TEST(Inference, TokensOfTheRequestBeforeAreNotComputedAgain) {
  Engine engine("0123456789abcdefghij", 64, /*batch_size=*/32);
  ASSERT_TRUE(Ask(engine.inference, Greedy("01234567")).status.ok());
  engine.stepper->step_sizes.clear();
  const Answer answer = Ask(engine.inference, Greedy("0123456789abcX", 2));
  EXPECT_EQ(answer.last.usage().cached_tokens(), 14);  // BOS and 13 bytes
  EXPECT_EQ(engine.stepper->step_sizes[0], 1);
  EXPECT_EQ(answer.text, "??");  // so the cache did change
}

TEST(Inference, ARequestsSparsityIsThatOfAllItsTokens) {
  Engine engine("0123456789");
  v1::GenerateRequest request = Greedy("0123", 3);
  request.set_sparsity(v1::SPARSITY_EXACT);
  ASSERT_TRUE(Ask(engine.inference, request).status.ok());
  EXPECT_THAT(engine.stepper->modes, ::testing::Each(TokenMode::kExact));
  // What was computed in another mode is not what this request would have computed.
  engine.stepper->modes.clear();
  request.clear_sparsity();
  EXPECT_EQ(Ask(engine.inference, request).last.usage().cached_tokens(), 0);
  EXPECT_THAT(engine.stepper->modes, ::testing::Each(TokenMode::kAsPlanned));
  EXPECT_EQ(Ask(engine.inference, request).last.usage().cached_tokens(), 4);

  request.set_sparsity(static_cast<v1::Sparsity>(7));
  EXPECT_THAT(std::string(Ask(engine.inference, request).status.message()),
              HasSubstr("sparsity is 7"));
}

TEST(Inference, TheLastPromptTokenIsAlwaysRunAgain) {
  Engine engine("abcd");
  const Answer first = Ask(engine.inference, Greedy("ab"));
  engine.stepper->step_sizes.clear();
  const Answer second = Ask(engine.inference, Greedy("ab"));
  EXPECT_EQ(second.text, first.text);
  EXPECT_EQ(second.last.usage().cached_tokens(), 2);
  EXPECT_EQ(engine.stepper->step_sizes[0], 1);
}

TEST(Inference, PromptLongerThanTheContextNamesBothNumbersAndTheRemedy) {
  Engine engine("abc", /*n_ctx=*/4);
  const Answer answer = Ask(engine.inference, Greedy("abcd"));
  EXPECT_EQ(answer.status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(
      std::string(answer.status.message()),
      ::testing::AllOf(HasSubstr("5 tokens"), HasSubstr("holds 4"), HasSubstr("--ctx-size")));
}

TEST(Inference, AFullContextIsAnErrorUnlessAskedFor) {
  Engine engine("abcdefgh", /*n_ctx=*/4);
  const Answer error = Ask(engine.inference, Greedy("ab", kUntilEnd));
  EXPECT_EQ(error.status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(error.status.message()), HasSubstr("context is full (4 tokens)"));
  EXPECT_EQ(error.text, "cd");  // d was sampled from the last position that fits

  const Answer end = Ask(engine.inference, Greedy("ab", kUntilContext));
  ASSERT_TRUE(end.status.ok()) << end.status;
  EXPECT_EQ(end.text, "cd");
  EXPECT_EQ(end.last.finish_reason(), v1::FINISH_REASON_LENGTH);
}

TEST(Inference, APromptThatFillsTheContextYieldsOneToken) {
  Engine engine("abcdefgh", /*n_ctx=*/4);
  const Answer answer = Ask(engine.inference, Greedy("abc", 1));
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_EQ(answer.text, "d");
}

TEST(Inference, AnEmptyPromptStartsFromBos) {
  Engine engine("abc");
  EXPECT_EQ(Ask(engine.inference, Greedy("")).text, "abc");
  v1::GenerateRequest no_prompt = Greedy("");
  no_prompt.clear_prompt();
  EXPECT_EQ(Ask(engine.inference, no_prompt).text, "abc");
}

TEST(Inference, AnEmptyPromptWithoutBosIsRefused) {
  Engine engine("abc", 64, 8, /*has_bos=*/false);
  EXPECT_EQ(Ask(engine.inference, Greedy("")).status.code(), absl::StatusCode::kInvalidArgument);
}

TEST(Inference, TokensArePromptsAsTheyAre) {
  Engine engine("abc");
  v1::GenerateRequest request = Greedy("");
  for (int32_t id : {1, 3 + 'a'}) request.mutable_tokens()->add_ids(id);
  EXPECT_EQ(Ask(engine.inference, request).text, "bc");
}

TEST(Inference, TokensOutOfRangeAreRefused) {
  Engine engine("abc");
  for (int32_t id : {-1, 259, 1 << 30}) {
    v1::GenerateRequest request = Greedy("");
    request.mutable_tokens()->add_ids(id);
    const absl::Status status = Ask(engine.inference, request).status;
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(std::to_string(id)));
    v1::DetokenizeRequest detokenize;
    detokenize.add_tokens(id);
    EXPECT_EQ(engine.inference.Detokenize(detokenize).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST(Inference, BadParametersAreRefused) {
  Engine engine("abc");
  EXPECT_EQ(Ask(engine.inference, Greedy("a", -3)).status.code(),
            absl::StatusCode::kInvalidArgument);
  v1::GenerateRequest empty_stop = Greedy("a");
  empty_stop.add_stop("");
  EXPECT_EQ(Ask(engine.inference, empty_stop).status.code(), absl::StatusCode::kInvalidArgument);
  v1::GenerateRequest bad_top_p = Greedy("a");
  bad_top_p.mutable_sampling()->set_top_p(-1);
  EXPECT_EQ(Ask(engine.inference, bad_top_p).status.code(), absl::StatusCode::kInvalidArgument);
}

TEST(Inference, AfterAFailedStepNothingOfTheCacheIsTrusted) {
  Engine engine("abcdef");
  ASSERT_TRUE(Ask(engine.inference, Greedy("abc")).status.ok());
  engine.stepper->before_step = [] { return absl::UnavailableError("worker 1 is lost"); };
  const Answer failed = Ask(engine.inference, Greedy("abcd"));
  EXPECT_EQ(failed.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(failed.status.message()), HasSubstr("worker 1 is lost"));
  engine.stepper->before_step = [] { return absl::OkStatus(); };
  const Answer after = Ask(engine.inference, Greedy("abcd"));
  EXPECT_EQ(after.text, "ef");
  EXPECT_EQ(after.last.usage().cached_tokens(), 0);
}

TEST(Inference, CancellationStopsBeforeTheNextStep) {
  Engine engine("abcdef");
  int n_messages = 0;
  const absl::Status status = engine.inference.Generate(
      Greedy("ab"), [&] { return n_messages == 2; },
      [&](const v1::GenerateResponse&) {
        ++n_messages;
        return true;
      });
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(n_messages, 2);
  EXPECT_EQ(Ask(engine.inference, Greedy("ab")).text, "cdef");
}

TEST(Inference, AReaderThatIsGoneCancels) {
  Engine engine("abcdef");
  EXPECT_EQ(
      engine.inference
          .Generate(
              Greedy("ab"), [] { return false; }, [](const v1::GenerateResponse&) { return false; })
          .code(),
      absl::StatusCode::kCancelled);
}

TEST(Inference, TokenizeAndDetokenizeAreInverse) {
  Engine engine("abc");
  v1::TokenizeRequest request;
  request.set_text("hi \xE2\x82\xAC");
  request.set_add_special(true);
  const v1::TokenizeResponse tokens = engine.inference.Tokenize(request);
  EXPECT_EQ(tokens.tokens_size(), 1 + 6);
  v1::DetokenizeRequest back;
  *back.mutable_tokens() = tokens.tokens();
  const auto text = engine.inference.Detokenize(back);
  ASSERT_TRUE(text.ok());
  EXPECT_EQ(text->text(), "hi \xE2\x82\xAC");
}

TEST(Inference, ListModelsSaysWhatIsWrong) {
  Engine engine("abc");
  EXPECT_EQ(engine.inference.ListModels().models(0).state(), "serving");
  engine.stepper->SetState(absl::UnavailableError("worker 0 is lost"));
  EXPECT_EQ(engine.inference.ListModels().models(0).state(), "worker 0 is lost");
}

}  // namespace
}  // namespace thermocline
