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

// PARTIAL, REDUCED, LOGITS. n floats may be 0.
void FillFrame(Frame::Kind kind, const FramePlace& place, const float* values, int64_t n,
               Frame* frame);
void FillStepFrame(const Step& step, int32_t d_model, Frame* frame);
void FillAbortFrame(uint32_t epoch, const std::string& reason, Frame* frame);
void FillEndFrame(uint32_t epoch, Frame* frame);
void FillWorkingFrame(uint32_t epoch, uint64_t step, Frame* frame);

enum class Payload { kWhole, kWholeOrEmpty };

// OK when the frame is of this kind and place, and its payload n floats long and undamaged.
// DataLoss names what was expected and what came; Unavailable for an ABORT, with its words;
// Cancelled for an END.
absl::Status CheckFrame(const Frame& frame, Frame::Kind kind, const FramePlace& place, int64_t n,
                        Payload payload = Payload::kWhole);

// The same for a STEP, whose number must be after `last_step` and whose sizes must fit the shape.
absl::Status CheckStepFrame(const Frame& frame, const ExchangeShape& shape, uint32_t epoch,
                            uint64_t last_step);

}  // namespace thermocline
