// Frames: what is made is accepted, what is changed in any part is refused by name.
#include "common/rpc/frame.h"

#include <gmock/gmock.h>

#include <functional>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace thermocline {
namespace {

using ::testing::HasSubstr;

constexpr FramePlace kPlace = {.epoch = 3, .step = 20, .exchange = 5};

ExchangeShape Shape() {
  return {.n_ranks = 2,
          .max_tokens = 4,
          .d_model = 8,
          .n_layers = 3,
          .n_vocab = 10,
          .max_logit_rows = 2};
}

Frame Partial() {
  const std::vector<float> values = {1, 2, 3, 4, 5, 6, 7, 8};
  Frame frame;
  FillFrame(Frame::PARTIAL, kPlace, values.data(), 8, &frame);
  return frame;
}

std::string Refusal(const Frame& frame) {
  const absl::Status status = CheckFrame(frame, Frame::PARTIAL, kPlace, 8);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  return std::string(status.message());
}

TEST(FrameTest, AFrameAsItWasMadeIsAccepted) {
  EXPECT_EQ(CheckFrame(Partial(), Frame::PARTIAL, kPlace, 8), absl::OkStatus());
}

TEST(FrameTest, AnotherKindEpochStepOrExchangeIsRefusedWithBothValues) {
  Frame frame = Partial();
  frame.set_kind(Frame::LOGITS);
  EXPECT_THAT(Refusal(frame), HasSubstr("LOGITS of epoch 3, step 20, exchange 5; a PARTIAL was"));
  frame = Partial();
  frame.set_epoch(2);
  EXPECT_THAT(Refusal(frame), HasSubstr("PARTIAL of epoch 2, step 20, exchange 5; epoch 3"));
  frame = Partial();
  frame.set_step(19);
  EXPECT_THAT(Refusal(frame), HasSubstr("step 19, exchange 5; step 20, exchange 5"));
  frame = Partial();
  frame.set_exchange(6);
  EXPECT_THAT(Refusal(frame), HasSubstr("exchange 6; step 20, exchange 5"));
  frame = Partial();
  frame.set_kind(static_cast<Frame::Kind>(77));
  EXPECT_THAT(Refusal(frame), HasSubstr("kind 77"));
}

TEST(FrameTest, ADamagedOrShortenedPayloadIsRefused) {
  Frame frame = Partial();
  (*frame.mutable_payload())[17] ^= 1;
  EXPECT_THAT(Refusal(frame), HasSubstr("damaged"));
  frame = Partial();
  frame.mutable_payload()->pop_back();
  EXPECT_THAT(Refusal(frame), HasSubstr("its 31 bytes"));
  FillFrame(Frame::PARTIAL, kPlace, nullptr, 0, &frame);
  EXPECT_THAT(Refusal(frame), HasSubstr("of 0 bytes; 32 expected"));
}

TEST(FrameTest, NothingToAddIsAnEmptyPayload) {
  Frame frame;
  FillFrame(Frame::PARTIAL, kPlace, nullptr, 0, &frame);
  EXPECT_EQ(CheckFrame(frame, Frame::PARTIAL, kPlace, 8, Payload::kWholeOrEmpty), absl::OkStatus());
  FillFrame(Frame::PARTIAL, kPlace, std::vector<float>(7).data(), 7, &frame);
  EXPECT_EQ(CheckFrame(frame, Frame::PARTIAL, kPlace, 8, Payload::kWholeOrEmpty).code(),
            absl::StatusCode::kDataLoss);
}

TEST(FrameTest, AbortAndEndComeInPlaceOfAnything) {
  Frame frame;
  FillAbortFrame(3, "rank 1 is on fire", &frame);
  EXPECT_EQ(CheckFrame(frame, Frame::REDUCED, kPlace, 8),
            absl::UnavailableError("rank 1 is on fire"));
  EXPECT_EQ(CheckStepFrame(frame, Shape(), 3, 0), absl::UnavailableError("rank 1 is on fire"));
  FillEndFrame(3, &frame);
  EXPECT_EQ(CheckStepFrame(frame, Shape(), 3, 0).code(), absl::StatusCode::kCancelled);
}

Frame StepFrame() {
  static const std::vector<StepToken> tokens = {{0, 7, -1}, {0, 8, 0}};
  static const std::vector<float> x(16, 0.5f);
  Frame frame;
  FillStepFrame({.epoch = 3, .number = 20, .tokens = tokens, .n_logit_rows = 1, .x = x.data()}, 8,
                &frame);
  return frame;
}

TEST(FrameTest, AStepAfterTheLastOneIsAccepted) {
  EXPECT_EQ(CheckStepFrame(StepFrame(), Shape(), 3, 19), absl::OkStatus());
  EXPECT_EQ(StepFrame().payload().size(), 2 * (16 + 8 * 4));
}

TEST(FrameTest, ALogitsHoldsRowsOrOneCandidateOfEachOrNothingOfAnEmptySlice) {
  EXPECT_EQ(LogitValues(3, /*wants_best_only=*/false, 1000), 3000);
  EXPECT_EQ(LogitValues(3, /*wants_best_only=*/true, 1000), 3 * 2);
  EXPECT_EQ(LogitValues(3, /*wants_best_only=*/false, 0), 0);
  EXPECT_EQ(LogitValues(3, /*wants_best_only=*/true, 0), 0);
}

TEST(FrameTest, AStepThatDoesNotFitIsRefused) {
  const auto refusal = [](uint64_t last_step, const std::function<void(Frame&)>& change) {
    Frame frame = StepFrame();
    change(frame);
    const absl::Status status = CheckStepFrame(frame, Shape(), 3, last_step);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    return std::string(status.message());
  };
  EXPECT_THAT(refusal(20, [](Frame&) {}), HasSubstr("after step 20"));
  EXPECT_THAT(refusal(0, [](Frame& f) { f.set_epoch(9); }), HasSubstr("epoch 9"));
  EXPECT_THAT(refusal(0, [](Frame& f) { f.set_n_tokens(0); }), HasSubstr("0 tokens"));
  EXPECT_THAT(refusal(0, [](Frame& f) { f.set_n_tokens(5); }), HasSubstr("5 tokens"));
  EXPECT_THAT(refusal(0, [](Frame& f) { f.set_n_tokens(3); }), HasSubstr("144 expected"));
  EXPECT_THAT(refusal(0, [](Frame& f) { f.set_n_logit_rows(3); }), HasSubstr("3 logit rows"));
  EXPECT_THAT(refusal(0, [](Frame& f) { f.set_n_logit_rows(-1); }), HasSubstr("-1 logit rows"));
  EXPECT_THAT(refusal(0, [](Frame& f) { f.set_kind(Frame::REDUCED); }), HasSubstr("a STEP was"));
}

}  // namespace
}  // namespace thermocline
