// Frames of the exchange stream: made from memory, and checked before anything in them is used. Who
// sends which when is in stream_exchange.cc and proxy.cc.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "common/exchange/exchange.h"
#include "common/exchange/segment.h"
#include "proto/worker.pb.h"

namespace thermocline {

using Frame = worker::v1::ExchangeFrame;

// What a frame belongs to.
struct FramePlace {
  uint32_t epoch = 0;
  uint64_t step = 0;
  uint32_t exchange = 0;  // PARTIAL, REDUCED: number in the step; others: 0
};

// PARTIAL, REDUCED, LOGITS. n values of 4 bytes, may be 0.
void FillFrame(Frame::Kind kind, const FramePlace& place, const void* values, int64_t n,
               Frame* frame);
void FillStepFrame(const Step& step, int32_t d_model, Frame* frame);
void FillAbortFrame(uint32_t epoch, const std::string& reason, Frame* frame);
void FillEndFrame(uint32_t epoch, Frame* frame);
void FillWorkingFrame(uint32_t epoch, uint64_t step, Frame* frame);

// How many values of 4 bytes a rank leaves in a LOGITS whose slice of the vocabulary has n_columns.
int64_t LogitValues(int32_t n_rows, bool wants_best_only, int64_t n_columns);

enum class Payload { kWhole, kWholeOrEmpty };

// OK when the frame is of this kind and place, and its payload n values of 4 bytes, undamaged.
// DataLoss names what was expected and what came; Unavailable for an ABORT, with its words;
// Cancelled for an END.
absl::Status CheckFrame(const Frame& frame, Frame::Kind kind, const FramePlace& place, int64_t n,
                        Payload payload = Payload::kWhole);

// The same for a STEP, whose number must be after `last_step` and whose sizes must fit the shape.
absl::Status CheckStepFrame(const Frame& frame, const ExchangeShape& shape, uint32_t epoch,
                            uint64_t last_step);

}  // namespace thermocline
