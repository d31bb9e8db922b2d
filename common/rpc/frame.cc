// See frame.h.
#include "common/rpc/frame.h"

#include <fmt/format.h>

#include "common/rpc/crc32c.h"
#include "common/util/status_macros.h"

namespace thermocline {
namespace {

constexpr uint64_t kValueBytes = 4;

void Head(Frame::Kind kind, const FramePlace& place, Frame* frame) {
  frame->set_kind(kind);
  frame->set_epoch(place.epoch);
  frame->set_step(place.step);
  frame->set_exchange(place.exchange);
  frame->set_n_tokens(0);
  frame->set_n_logit_rows(0);
  frame->set_wants_best_only(false);
}

void Seal(Frame* frame) {
  frame->set_checksum(Crc32c(frame->payload().data(), frame->payload().size()));
}

std::string Name(const Frame& frame) {
  const std::string kind = Frame::Kind_IsValid(frame.kind()) ? Frame::Kind_Name(frame.kind())
                                                             : fmt::format("kind {}", frame.kind());
  return fmt::format("{} of epoch {}, step {}, exchange {}", kind, frame.epoch(), frame.step(),
                     frame.exchange());
}

// Kind, epoch and checksum; every frame has these.
absl::Status CheckHead(const Frame& frame, Frame::Kind kind, uint32_t epoch) {
  if (frame.epoch() != epoch) {
    return absl::DataLossError(
        fmt::format("the exchange stream brought a {}; epoch {} is served", Name(frame), epoch));
  }
  const uint32_t checksum = Crc32c(frame.payload().data(), frame.payload().size());
  if (frame.checksum() != checksum) {
    return absl::DataLossError(
        fmt::format("the exchange stream brought a damaged {}: its {} bytes have CRC-32C {:#010x}, "
                    "not {:#010x} as it says",
                    Name(frame), frame.payload().size(), checksum, frame.checksum()));
  }
  if (kind != frame.kind() && frame.kind() == Frame::ABORT) {
    return absl::UnavailableError(frame.payload());
  }
  if (kind != frame.kind() && frame.kind() == Frame::END) {
    return absl::CancelledError("the fleet is shutting down");
  }
  if (kind != frame.kind()) {
    return absl::DataLossError(fmt::format("the exchange stream brought a {}; a {} was expected",
                                           Name(frame), Frame::Kind_Name(kind)));
  }
  return absl::OkStatus();
}

absl::Status CheckSize(const Frame& frame, uint64_t n_bytes) {
  if (frame.payload().size() == n_bytes) return absl::OkStatus();
  return absl::DataLossError(
      fmt::format("the exchange stream brought a {} of {} bytes; {} expected", Name(frame),
                  frame.payload().size(), n_bytes));
}

}  // namespace

void FillFrame(Frame::Kind kind, const FramePlace& place, const void* values, int64_t n,
               Frame* frame) {
  Head(kind, place, frame);
  frame->set_payload(values, n * kValueBytes);
  Seal(frame);
}

void FillStepFrame(const Step& step, int32_t d_model, Frame* frame) {
  Head(Frame::STEP, {step.epoch, step.number, 0}, frame);
  frame->set_n_tokens(static_cast<int32_t>(step.n_tokens()));
  frame->set_n_logit_rows(step.n_logit_rows);
  frame->set_wants_best_only(step.wants_best_only);
  std::string* payload = frame->mutable_payload();
  payload->assign(reinterpret_cast<const char*>(step.tokens.data()),
                  step.tokens.size() * sizeof(StepToken));
  payload->append(reinterpret_cast<const char*>(step.x), step.n_tokens() * d_model * sizeof(float));
  Seal(frame);
}

void FillAbortFrame(uint32_t epoch, const std::string& reason, Frame* frame) {
  Head(Frame::ABORT, {.epoch = epoch}, frame);
  frame->set_payload(reason);
  Seal(frame);
}

void FillEndFrame(uint32_t epoch, Frame* frame) {
  Head(Frame::END, {.epoch = epoch}, frame);
  frame->clear_payload();
  Seal(frame);
}

void FillWorkingFrame(uint32_t epoch, uint64_t step, Frame* frame) {
  Head(Frame::WORKING, {.epoch = epoch, .step = step}, frame);
  frame->clear_payload();
  Seal(frame);
}

absl::Status CheckFrame(const Frame& frame, Frame::Kind kind, const FramePlace& place, int64_t n,
                        Payload payload) {
  RETURN_IF_ERROR(CheckHead(frame, kind, place.epoch));
  if (frame.step() != place.step || frame.exchange() != place.exchange) {
    return absl::DataLossError(
        fmt::format("the exchange stream brought a {}; step {}, exchange {} is being served",
                    Name(frame), place.step, place.exchange));
  }
  if (payload == Payload::kWholeOrEmpty && frame.payload().empty()) return absl::OkStatus();
  return CheckSize(frame, n * kValueBytes);
}

int64_t LogitValues(int32_t n_rows, bool wants_best_only, int64_t n_columns) {
  if (!wants_best_only) return n_rows * n_columns;
  return n_columns > 0 ? n_rows * static_cast<int64_t>(sizeof(LogitCandidate) / kValueBytes) : 0;
}

absl::Status CheckStepFrame(const Frame& frame, const ExchangeShape& shape, uint32_t epoch,
                            uint64_t last_step) {
  RETURN_IF_ERROR(CheckHead(frame, Frame::STEP, epoch));
  if (frame.step() <= last_step) {
    return absl::DataLossError(
        fmt::format("the exchange stream brought a {} after step {}", Name(frame), last_step));
  }
  const int32_t n_tokens = frame.n_tokens(), n_logit_rows = frame.n_logit_rows();
  if (n_tokens < 1 || n_tokens > shape.max_tokens || n_logit_rows < 0 ||
      n_logit_rows > shape.max_logit_rows) {
    return absl::DataLossError(
        fmt::format("the exchange stream brought a {} with {} tokens and {} logit rows; {} and {} "
                    "are the most",
                    Name(frame), n_tokens, n_logit_rows, shape.max_tokens, shape.max_logit_rows));
  }
  const uint64_t token_bytes = sizeof(StepToken) + uint64_t{sizeof(float)} * shape.d_model;
  return CheckSize(frame, n_tokens * token_bytes);
}

}  // namespace thermocline
