// Several callers at once: order, limit, cancellation while waiting.
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <latch>
#include <thread>

#include "coordinator/engine/inference.h"
#include "tests/testing/fake_stepper.h"

namespace thermocline {
namespace {

using namespace std::chrono_literals;

v1::GenerateRequest Greedy(const std::string& prompt) {
  v1::GenerateRequest request;
  request.set_text(prompt);
  request.mutable_sampling()->set_temperature(0);
  return request;
}

absl::Status Ask(Inference& inference, const std::string& prompt, std::string* text,
                 const std::atomic<bool>& cancelled) {
  return inference.Generate(
      Greedy(prompt), [&] { return cancelled.load(); },
      [&](const v1::GenerateResponse& message) {
        *text += message.text();
        return true;
      });
}

// The first step waits until `open`; says when it is reached.
struct HeldEngine {
  explicit HeldEngine(int64_t max_waiting)
      : stepper(new testing::FakeStepper("abcdef", 64, 8)),
        inference(std::unique_ptr<Stepper>(stepper), max_waiting) {
    stepper->before_step = [this] {
      if (!reached.try_wait()) reached.count_down();
      open.wait();
      return absl::OkStatus();
    };
  }
  std::latch reached{1}, open{1};
  testing::FakeStepper* stepper;
  Inference inference;
};

TEST(InferenceQueue, ConcurrentCallersAllGetTheirOwnAnswers) {
  HeldEngine engine(/*max_waiting=*/8);
  engine.open.count_down();
  const std::atomic<bool> never = false;
  std::vector<std::string> texts(6);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < texts.size(); ++i) {
    threads.emplace_back([&, i] {
      EXPECT_TRUE(Ask(engine.inference, i % 2 ? "abc" : "ab", &texts[i], never).ok());
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < texts.size(); ++i) EXPECT_EQ(texts[i], i % 2 ? "def" : "cdef");
}

TEST(InferenceQueue, OneMoreThanMayWaitIsRefused) {
  HeldEngine engine(/*max_waiting=*/0);
  const std::atomic<bool> never = false;
  std::string first_text, refused_text;
  auto first = std::async(std::launch::async,
                          [&] { return Ask(engine.inference, "ab", &first_text, never); });
  engine.reached.wait();
  EXPECT_EQ(Ask(engine.inference, "ab", &refused_text, never).code(),
            absl::StatusCode::kResourceExhausted);
  engine.open.count_down();
  EXPECT_TRUE(first.get().ok());
  EXPECT_TRUE(Ask(engine.inference, "ab", &refused_text, never).ok());
}

TEST(InferenceQueue, AWaitingCallerThatCancelsLeavesItsPlace) {
  HeldEngine engine(/*max_waiting=*/1);
  const std::atomic<bool> never = false;
  std::atomic<bool> cancelled = false;
  std::string texts[3];
  auto first =
      std::async(std::launch::async, [&] { return Ask(engine.inference, "ab", &texts[0], never); });
  engine.reached.wait();
  auto second = std::async(std::launch::async,
                           [&] { return Ask(engine.inference, "ab", &texts[1], cancelled); });
  cancelled = true;
  EXPECT_EQ(second.get().code(), absl::StatusCode::kCancelled);
  auto third =
      std::async(std::launch::async, [&] { return Ask(engine.inference, "ab", &texts[2], never); });
  engine.open.count_down();
  EXPECT_TRUE(first.get().ok());
  EXPECT_TRUE(third.get().ok());
  EXPECT_EQ(texts[2], "cdef");
}

}  // namespace
}  // namespace thermocline
