// The queue, the prefix kept from the request before, and the loop of steps; see inference.h.
#include "coordinator/engine/inference.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "common/util/status_macros.h"
#include "coordinator/engine/reply.h"

namespace thermocline {
namespace {

constexpr int32_t kSlot = 0;  // requests run one at a time, all in the same slot
constexpr std::chrono::milliseconds kCancelPoll(20);  // while waiting for a turn

using Clock = std::chrono::steady_clock;

double MillisecondsSince(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

absl::Status CancelledByCaller() {
  return absl::CancelledError("the caller cancelled the request");
}

}  // namespace

class Inference::Turn {
 public:
  // Waits until it is the caller's turn. ResourceExhausted when too many wait already.
  static absl::StatusOr<std::unique_ptr<Turn>> Take(Inference* inference,
                                                    const IsCancelled& is_cancelled) {
    std::unique_lock lock(inference->mutex_);
    if (static_cast<int64_t>(inference->queue_.size()) > inference->max_waiting_) {
      return absl::ResourceExhaustedError(fmt::format(
          "{} requests are waiting already, as many as may (--max-queue); try again later",
          inference->max_waiting_));
    }
    const uint64_t ticket = inference->next_ticket_++;
    inference->queue_.push_back(ticket);
    std::unique_ptr<Turn> turn(new Turn(inference, ticket));
    while (inference->queue_.front() != ticket) {
      inference->turn_changed_.wait_for(lock, kCancelPoll);
      lock.unlock();
      if (is_cancelled()) return CancelledByCaller();
      lock.lock();
    }
    return turn;
  }
  ~Turn() {
    std::lock_guard lock(inference_->mutex_);
    std::erase(inference_->queue_, ticket_);
    inference_->turn_changed_.notify_all();
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  Turn(Inference* inference, uint64_t ticket) : inference_(inference), ticket_(ticket) {}
  Inference* inference_;
  uint64_t ticket_;
};

Inference::Inference(std::unique_ptr<Stepper> stepper, int64_t max_waiting)
    : stepper_(std::move(stepper)), max_waiting_(max_waiting) {}

absl::Status Inference::Generate(const v1::GenerateRequest& message,
                                 const IsCancelled& is_cancelled, const Emit& emit) {
  ASSIGN_OR_RETURN(const Request request,
                   ReadRequest(message, stepper_->tokenizer(), stepper_->n_ctx()));
  const Clock::time_point start = Clock::now();
  ASSIGN_OR_RETURN(const std::unique_ptr<Turn> turn, Turn::Take(this, is_cancelled));
  return Answer(request, MillisecondsSince(start), is_cancelled, emit);
}

absl::Status Inference::Answer(const Request& request, double queue_ms,
                               const IsCancelled& is_cancelled, const Emit& emit) {
  const Clock::time_point start = Clock::now();
  ASSIGN_OR_RETURN(const int64_t n_cached, Prefill(request, is_cancelled));
  double prompt_ms = MillisecondsSince(start);
  Reply reply(request, stepper_->tokenizer());
  while (!reply.ended()) {
    if (reply.n_tokens() > 0) {
      if (is_cancelled()) return CancelledByCaller();
      if (static_cast<int64_t>(slot_tokens_.size()) == stepper_->n_ctx()) {
        if (request.max_tokens == kUntilContext) {
          reply.End(v1::FINISH_REASON_LENGTH);
          break;
        }
        return absl::OutOfRangeError(
            fmt::format("context is full ({} tokens); raise --ctx-size, or ask for fewer tokens",
                        stepper_->n_ctx()));
      }
      RETURN_IF_ERROR(Step({reply.token()}, WantedBy(request)));
    }
    ASSIGN_OR_RETURN(const v1::GenerateResponse next, WantedBy(request) == Wanted::kBest
                                                          ? reply.NextIs(stepper_->best(0))
                                                          : reply.Next(stepper_->logits(0)));
    if (reply.n_tokens() == 1) prompt_ms = MillisecondsSince(start);
    if (!emit(next)) return CancelledByCaller();
  }
  v1::GenerateResponse last = reply.Last();
  last.mutable_usage()->set_prompt_tokens(static_cast<int64_t>(request.prompt.size()));
  last.mutable_usage()->set_cached_tokens(n_cached);
  last.mutable_timings()->set_queue_ms(queue_ms);
  last.mutable_timings()->set_prompt_ms(prompt_ms);
  last.mutable_timings()->set_predicted_ms(MillisecondsSince(start) - prompt_ms);
  return emit(last) ? absl::OkStatus() : CancelledByCaller();
}

absl::StatusOr<int64_t> Inference::Prefill(const Request& request,
                                           const IsCancelled& is_cancelled) {
  if (request.mode != slot_mode_) slot_tokens_.clear();
  slot_mode_ = request.mode;
  const std::vector<int32_t>& tokens = request.prompt;
  const auto differ =
      std::mismatch(tokens.begin(), tokens.end(), slot_tokens_.begin(), slot_tokens_.end());
  // The last token is always run: its logits are what the request starts from.
  const size_t n_cached = std::min<size_t>(differ.first - tokens.begin(), tokens.size() - 1);
  slot_tokens_.resize(n_cached);
  for (size_t begin = n_cached; begin < tokens.size();) {
    if (is_cancelled()) return CancelledByCaller();
    const int64_t most = std::min(stepper_->batch_size(), pace_.n_tokens());
    const size_t n = std::min<size_t>(most, tokens.size() - begin);
    const Clock::time_point start = Clock::now();
    const bool is_last = begin + n == tokens.size();
    RETURN_IF_ERROR(Step(absl::MakeConstSpan(tokens).subspan(begin, n),
                         is_last ? WantedBy(request) : Wanted::kNone));
    pace_.Took(n, MillisecondsSince(start) / 1e3);
    begin += n;
  }
  return static_cast<int64_t>(n_cached);
}

absl::Status Inference::Step(absl::Span<const int32_t> tokens, Wanted wanted) {
  std::vector<TokenInput> inputs;
  inputs.reserve(tokens.size());
  for (int32_t token : tokens) {
    inputs.push_back({.token = token,
                      .slot = kSlot,
                      .position = static_cast<int32_t>(slot_tokens_.size() + inputs.size()),
                      .wants_logits = false,
                      .mode = slot_mode_});
  }
  inputs.back().wants_logits = wanted != Wanted::kNone;
  inputs.back().needs_only_best = wanted == Wanted::kBest;
  if (absl::Status status = stepper_->Run(inputs); !status.ok()) {
    slot_tokens_.clear();  // what the workers hold now is unknown
    return status;
  }
  slot_tokens_.insert(slot_tokens_.end(), tokens.begin(), tokens.end());
  return absl::OkStatus();
}

v1::TokenizeResponse Inference::Tokenize(const v1::TokenizeRequest& request) const {
  v1::TokenizeResponse response;
  for (int32_t id : stepper_->tokenizer().Encode(request.text(), request.add_special(),
                                                 request.parse_special())) {
    response.add_tokens(id);
  }
  return response;
}

absl::StatusOr<v1::DetokenizeResponse> Inference::Detokenize(
    const v1::DetokenizeRequest& request) const {
  const std::vector<int32_t> tokens(request.tokens().begin(), request.tokens().end());
  RETURN_IF_ERROR(CheckTokens(tokens, stepper_->tokenizer()));
  Utf8Stream characters;  // the wire takes whole characters only
  v1::DetokenizeResponse response;
  response.set_text(characters.Push(stepper_->tokenizer().Decode(tokens, /*special=*/false)));
  response.mutable_text()->append(characters.Flush());
  return response;
}

v1::ListModelsResponse Inference::ListModels() const {
  v1::ListModelsResponse response;
  v1::Model* model = response.add_models();
  *model = stepper_->Describe();
  const absl::Status state = stepper_->state();
  model->set_state(state.ok() ? "serving" : std::string(state.message()));
  return response;
}

}  // namespace thermocline
