// What happened when in the steps of one rank: spans on this host's monotonic clock, of the last
// steps. Who writes them into a file is coordinator/engine/trace_file.h.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <vector>

namespace thermocline {

// In the order in which a layer has them.
enum class TraceOp : uint8_t {
  kStep,    // all of a step
  kEmbed,   // coordinator: the tokens' embeddings are read
  kRun,     // coordinator: from posting the step until every rank has finished it
  kUpload,  // GPU: the step's inputs
  kNorm,
  kQkv,
  kMeet,  // GPU: q, k and v are left to those who hold the tail of the context; until all have met
  kRope,  // with storing k and v
  kAttend,
  kTail,  // GPU: attention over the tail of the context comes from CPU ranks and is merged in
  kAttentionOutput,
  kAttention,  // CPU: all of the above that it computes, one span
  kOther,      // CPU: norms, quantization, meetings of the rank's threads
  kChoose,     // predictor or sketch
  kGate,
  kFire,  // GPU: which gates fired
  kUp,
  kActivate,
  kDown,
  kStream,  // GPU: neurons read from the file, all of it
  kLeave,   // GPU: its partial goes where the others find it
  kWait,    // until all ranks have left theirs
  kAdd,     // all partials, to h
  kOutput,
};
inline constexpr int kTraceOps = 24;
const char* TraceOpName(TraceOp op);

struct TraceSpan {
  int64_t begin_ns, end_ns;
  uint64_t step;
  int32_t layer;  // -1: none
  TraceOp op;
};

// CLOCK_MONOTONIC.
inline int64_t MonotonicNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// The spans of the last steps that ended. One thread records, any may read.
class TraceRecorder {
 public:
  // Takes memory for so many spans, 32 bytes each: of some hundred steps of a large model.
  static constexpr int64_t kSpans = 1 << 18;
  explicit TraceRecorder(int64_t n_spans = kSpans);

  void BeginStep(uint64_t step, int64_t begin_ns);
  void Add(TraceOp op, int32_t layer, int64_t begin_ns, int64_t end_ns) {
    step_.push_back({begin_ns, end_ns, step_[0].step, layer, op});
  }
  // A step that is never ended, as it failed, leaves nothing.
  void EndStep(int64_t end_ns);

  // Whole steps, oldest first, each with its kStep first, the others as they were recorded.
  std::vector<TraceSpan> Read() const;

 private:
  // The step being run, its kStep first; grows to the largest step's length and stays there.
  std::vector<TraceSpan> step_;
  mutable std::mutex mutex_;     // once a step
  std::vector<TraceSpan> ring_;  // guarded by mutex_, as the next
  uint64_t n_added_ = 0;
};

}  // namespace thermocline
