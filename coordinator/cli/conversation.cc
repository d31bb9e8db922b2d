// The course of a run: prompt, answers, turns, what is printed when.
#include "coordinator/cli/conversation.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "common/util/status_macros.h"
#include "coordinator/cli/stop_signals.h"

namespace thermocline {
namespace {

using Clock = std::chrono::steady_clock;

double Milliseconds(Clock::duration duration) {
  return std::chrono::duration<double, std::milli>(duration).count();
}

}  // namespace

absl::Status Conversation::Run() {
  if (!options_->interactive) return RunPrompt();
  if (!options_->prompt.empty()) RETURN_IF_ERROR(TurnBack(RunPrompt()));
  return TakeTurns();
}

absl::Status Conversation::TurnBack(const absl::Status& status) {
  const bool ends = StopSignals::termination() != 0 || StopSignals::interrupts() > 1;
  if (ends || !(status.ok() || absl::IsCancelled(status))) return status;
  StopSignals::ClearInterrupts();
  return absl::OkStatus();
}

absl::Status Conversation::RunPrompt() {
  RETURN_IF_ERROR(Append(options_->prompt, /*is_prompt=*/true));
  if (options_->display_prompt) unseen_prompt_ = options_->prompt;
  const absl::Status status = Generate();
  unseen_prompt_.clear();
  return status;
}

absl::Status Conversation::TakeTurns() {
  for (;;) {
    if (!options_->fleet.quiet) RETURN_IF_ERROR(console_->Write("\n> "));
    RETURN_IF_ERROR(console_->SetStyle(Console::Style::kInput));
    ASSIGN_OR_RETURN(const std::optional<std::string> line, console_->ReadLine());
    RETURN_IF_ERROR(console_->SetStyle(Console::Style::kPlain));
    if (!line.has_value()) return absl::OkStatus();
    absl::Status status = Append(*line + "\n", /*is_prompt=*/tokens_.empty());
    if (status.ok()) status = Generate();
    RETURN_IF_ERROR(TurnBack(status));
  }
}

absl::Status Conversation::Append(const std::string& text, bool is_prompt) {
  v1::TokenizeRequest request;
  request.set_text(text);
  request.set_add_special(is_prompt);
  request.set_parse_special(is_prompt);
  ASSIGN_OR_RETURN(const v1::TokenizeResponse response,
                   client_->Tokenize(request, StopSignals::IsStopped));
  tokens_.insert(tokens_.end(), response.tokens().begin(), response.tokens().end());
  return absl::OkStatus();
}

absl::Status Conversation::Show(const std::string& text) {
  if (!unseen_prompt_.empty()) {
    RETURN_IF_ERROR(console_->SetStyle(Console::Style::kPrompt));
    RETURN_IF_ERROR(console_->Write(std::exchange(unseen_prompt_, "")));
    RETURN_IF_ERROR(console_->SetStyle(Console::Style::kPlain));
  }
  return console_->Write(text);
}

absl::Status Conversation::Generate() {
  v1::GenerateRequest request;
  request.mutable_tokens()->mutable_ids()->Assign(tokens_.begin(), tokens_.end());
  request.set_max_tokens(options_->max_tokens);
  request.set_ignore_eos(options_->ignore_eos);
  request.set_sparsity(options_->sparsity);
  *request.mutable_sampling() = options_->Sampling();

  const int64_t n_prompt = std::max<int64_t>(tokens_.size(), 1);  // an empty one becomes BOS
  int64_t n_cached = std::min(n_computed_, n_prompt - 1);
  int64_t n_generated = 0;
  const Clock::time_point start = Clock::now();
  Clock::time_point first = start, last = start;
  absl::Status written;
  const absl::Status status =
      client_->Generate(request, StopSignals::IsStopped, [&](const v1::GenerateResponse& message) {
        written = Show(message.text());
        if (message.finish_reason() != v1::FINISH_REASON_UNSPECIFIED) {
          n_cached = message.usage().cached_tokens();
          // We send no stop texts, so it was an end token: the next turn goes on without it.
          if (message.finish_reason() == v1::FINISH_REASON_STOP) tokens_.pop_back();
          return written.ok();
        }
        last = Clock::now();
        if (n_generated++ == 0) first = last;
        tokens_.push_back(message.token());
        return written.ok();
      });
  n_computed_ = n_generated > 0 ? static_cast<int64_t>(tokens_.size()) - 1 : n_computed_;
  if (n_generated > 0) {
    timings_.prompt_ms += Milliseconds(first - start);
    timings_.prompt_tokens += n_prompt - n_cached;
    timings_.predicted_ms += Milliseconds(last - first);
    timings_.predicted_tokens += n_generated - 1;
  }
  return written.ok() ? status : written;
}

}  // namespace thermocline
