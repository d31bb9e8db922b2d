// main's work on a model without processes: what is printed, turns, Ctrl-C.
#include "coordinator/cli/conversation.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <memory>

#include "coordinator/cli/stop_signals.h"
#include "tests/testing/fake_stepper.h"

namespace thermocline {
namespace {

struct Outcome {
  absl::Status status;
  std::string printed;
  Timings timings;
  std::vector<int64_t> step_sizes;
};

class ConversationTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { StopSignals::Install(); }
  ~ConversationTest() override { StopSignals::ClearInterrupts(); }

  ConversationTest() {
    StopSignals::ClearInterrupts();
    options_.temperature = 0;
    options_.seed = 1;
  }

  // The model wants to say `text`; `typed` is all that the user types.
  Outcome Talk(const std::string& text, const std::string& typed) {
    int in[2], out[2];
    EXPECT_EQ(pipe(in), 0);
    EXPECT_EQ(pipe(out), 0);
    EXPECT_EQ(write(in[1], typed.data(), typed.size()), static_cast<ssize_t>(typed.size()));
    close(in[1]);
    auto stepper = std::make_unique<testing::FakeStepper>(text, /*n_ctx=*/128, /*batch_size=*/32);
    testing::FakeStepper* fake = stepper.get();
    if (before_step_) fake->before_step = before_step_;
    const std::unique_ptr<InferenceClient> client =
        MakeLocalClient(std::make_unique<Inference>(std::move(stepper), 0));
    Outcome run;
    {
      Console console(in[0], out[1], /*color=*/false);
      Conversation conversation(&options_, client.get(), &console);
      run.status = conversation.Run();
      run.timings = conversation.timings();
    }
    run.step_sizes = fake->step_sizes;
    close(out[1]);
    char bytes[4096];
    const ssize_t n = read(out[0], bytes, sizeof bytes);
    run.printed.assign(bytes, n > 0 ? n : 0);
    close(out[0]);
    close(in[0]);
    return run;
  }

  MainOptions options_;
  std::function<absl::Status()> before_step_;
};

TEST_F(ConversationTest, PrintsThePromptAndItsContinuation) {
  options_.prompt = "to be";
  const Outcome run = Talk("to be or not", "");
  ASSERT_TRUE(run.status.ok()) << run.status;
  EXPECT_EQ(run.printed, "to be or not");
  EXPECT_EQ(run.timings.prompt_tokens, 6);
  EXPECT_EQ(run.timings.predicted_tokens, 7);  // 7 characters and the end token, less the first
}

TEST_F(ConversationTest, ThePromptCanBeLeftOut) {
  options_.prompt = "to be";
  options_.display_prompt = false;
  EXPECT_EQ(Talk("to be or not", "").printed, " or not");
}

TEST_F(ConversationTest, TurnsContinueTheSameText) {
  options_.interactive = true;
  options_.prompt = "A";
  options_.max_tokens = 2;
  const Outcome run = Talk("Abcde\nfg", "de\n");
  ASSERT_TRUE(run.status.ok()) << run.status;
  EXPECT_EQ(run.printed, "Abc\n> fg\n> ");
  // The second turn computes the last token of the answer and the new line's, nothing again.
  EXPECT_EQ(run.step_sizes, (std::vector<int64_t>{2, 1, 4, 1}));
}

TEST_F(ConversationTest, AnEndTokenIsNoPartOfTheNextTurn) {
  options_.interactive = true;
  options_.max_tokens = 3;
  // After "ab\n" the model ends; the next line continues "ab\n".
  const Outcome run = Talk("ab\n", "ab\nx\n");
  ASSERT_TRUE(run.status.ok()) << run.status;
  EXPECT_EQ(run.printed, "\n> \n> ???\n> ");
  EXPECT_EQ(run.step_sizes, (std::vector<int64_t>{4, 2, 1, 1}));
}

TEST_F(ConversationTest, WithoutAPromptTheUserSpeaksFirst) {
  options_.interactive = true;
  const Outcome run = Talk("hello\nworld", "hello\n");
  ASSERT_TRUE(run.status.ok()) << run.status;
  EXPECT_EQ(run.printed, "\n> world\n> ");
}

TEST_F(ConversationTest, CtrlCEndsARunWithoutTurns) {
  options_.prompt = "a";
  before_step_ = [n = 0]() mutable {
    if (++n == 3) std::raise(SIGINT);
    return absl::OkStatus();
  };
  const Outcome run = Talk("abcdefgh", "");
  EXPECT_EQ(run.status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(run.printed, "abcd");
}

TEST_F(ConversationTest, CtrlCGivesTheTurnBackAndASecondOneEnds) {
  options_.interactive = true;
  options_.prompt = "a";
  before_step_ = [n = 0]() mutable {
    if (++n == 3) std::raise(SIGINT);
    return absl::OkStatus();
  };
  const Outcome once = Talk("abcd\nefgh", "\n");
  EXPECT_TRUE(once.status.ok()) << once.status;
  EXPECT_EQ(once.printed, "abcd\n> efgh\n> ");

  StopSignals::ClearInterrupts();
  before_step_ = [n = 0]() mutable {
    if (++n == 3) {
      std::raise(SIGINT);
      std::raise(SIGINT);
    }
    return absl::OkStatus();
  };
  const Outcome twice = Talk("abcdefgh", "x\n");
  EXPECT_EQ(twice.status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(twice.printed, "abcd");
}

TEST_F(ConversationTest, QuietPrintsNoMarkers) {
  options_.interactive = true;
  options_.fleet.quiet = true;
  EXPECT_EQ(Talk("hello\nworld", "hello\n").printed, "world");
}

TEST_F(ConversationTest, AnErrorOfTheModelEndsIt) {
  options_.prompt = "a";
  before_step_ = [] { return absl::UnavailableError("worker 1 is lost"); };
  const Outcome run = Talk("abc", "");
  EXPECT_EQ(run.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(run.printed, "");
}

TEST_F(ConversationTest, APromptThatIsRefusedIsNotPrinted) {
  options_.prompt = std::string(200, 'x');
  const Outcome run = Talk("abc", "");
  EXPECT_EQ(run.status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(run.printed, "");
}

}  // namespace
}  // namespace thermocline
