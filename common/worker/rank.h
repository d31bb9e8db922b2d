// A rank without its wire: configured by a message, it loads its shard and serves steps on any
// exchange. worker_service.h puts gRPC in front of it; cpu_worker and gpu_worker have the two
// kinds.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/exchange/exchange.h"
#include "common/exchange/segment.h"
#include "common/plan/plan.h"
#include "common/util/trace.h"
#include "proto/worker.pb.h"

namespace thermocline {

// Plain reads of a rank's memory, as fast as it can.
class ReadTest {
 public:
  virtual ~ReadTest() = default;
  virtual double Read() = 0;  // all of the buffer once; in seconds
  virtual int64_t n_bytes() const = 0;
};

// What a rank remembers of the steps it ran, for those who prepare sparse execution. From any
// thread, also while steps run.
class CaptureView {
 public:
  virtual ~CaptureView() = default;
  virtual int64_t d_model() const = 0;
  virtual int64_t n_tokens() const = 0;                          // run so far
  virtual std::vector<uint32_t> Fired(int64_t layer) const = 0;  // [n_counted]
  // Samples [begin, end) of those that a layer has so far, fewer if there are fewer. [n, d_model]
  virtual std::vector<float> Samples(int64_t layer, int64_t begin, int64_t end) const = 0;
};

class Rank {
 public:
  virtual ~Rank() = default;

  // Opens and checks the model, lays out the shard. What an earlier fleet left is dropped; while
  // one is being served, FailedPrecondition, as for another version or model; and all errors of
  // opening a model.
  virtual absl::StatusOr<worker::v1::ConfigureResponse> Configure(
      const worker::v1::ConfigureRequest& request) = 0;
  // After Configure. on_progress(bytes done, bytes in all); false ends the loading (Cancelled).
  virtual absl::Status LoadShard(const std::function<bool(int64_t, int64_t)>& on_progress) = 0;
  // After LoadShard: from now on this worker is one fleet's, over this carrier.
  virtual absl::Status StartServing(const std::string& carrier) = 0;
  // Then: takes what steps on this exchange need, so that a failure is one of the start; it drops
  // the shard.
  virtual absl::Status Prepare(Exchange& exchange) = 0;
  // Then, on the same: serves steps until it ends, and drops the shard.
  virtual absl::Status Serve(Exchange& exchange) = 0;

  // After Configure; it says something while no step runs.
  virtual absl::StatusOr<std::unique_ptr<ReadTest>> PrepareReadTest(int64_t buffer_bytes) const = 0;
  virtual worker::v1::StatsResponse Stats() const = 0;

  // While serving. InvalidArgument for layers or numbers that can't be; ResourceExhausted, with the
  // sizes and the remedy, when there is no memory for it.
  virtual absl::StatusOr<worker::v1::StartCaptureResponse> StartCapture(
      const worker::v1::StartCaptureRequest& request) = 0;
  // The one started last; FailedPrecondition without one, InvalidArgument for a layer that the
  // model does not have.
  virtual absl::StatusOr<std::shared_ptr<const CaptureView>> ReadCapture(int32_t layer) const = 0;

  // Of the last steps; FailedPrecondition where they are not traced. From any thread, also while
  // steps run.
  virtual absl::StatusOr<std::vector<TraceSpan>> ReadTrace() const = 0;

  // Of the configuration; valid after Configure.
  virtual int32_t rank() const = 0;
  virtual uint32_t epoch() const = 0;
  virtual const ExchangeShape& exchange_shape() const = 0;
  virtual Range vocab() const = 0;
};

}  // namespace thermocline
