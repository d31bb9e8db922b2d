// The launches of a step over a GPU rank's shard, between its exchanges: attention, feed-forward
// part (device_ffn.h), logits. What is said to the device at the start of a step and what it says
// at the end pass through pinned memory. No exchange: device_forward.h and device_decode.h drive
// it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/exchange/exchange.h"
#include "gpu_worker/device.h"
#include "gpu_worker/device_ffn.h"
#include "gpu_worker/device_product.h"
#include "gpu_worker/device_shard.h"
#include "gpu_worker/device_trace.h"

namespace thermocline {

class DeviceLayers {
 public:
  struct Options {
    int64_t max_tokens = 1;
    int64_t max_logit_rows = 1;
    int64_t n_slots = 1;
    int64_t n_ctx = 1;
    int64_t tail_begin = 0;          // the first position whose K and V CPU ranks hold; 0: none
    TraceRecorder* trace = nullptr;  // of its steps, or null

    // Positions of the device's KV cache.
    int64_t device_ctx() const { return tail_begin > 0 ? std::min(tail_begin, n_ctx) : n_ctx; }
  };
  // What a step needs on the device beside weights and KV cache. predictor: the one that the shard
  // is created with, or null.
  static int64_t WorkspaceBytes(const ModelConfig& config, const ShardSpec& spec,
                                const Options& options, const Predictor* predictor);
  // Both must outlive the object; the shard has a workspace of as many bytes.
  static absl::StatusOr<std::unique_ptr<DeviceLayers>> Create(const DeviceShard* shard,
                                                              Device* device,
                                                              const Options& options);

  // Checks the step and puts what it says where Upload takes it from. Of the step before, all must
  // be done.
  absl::Status Stage(const Step& step);
  const std::vector<StepToken>& tokens() const { return tokens_; }  // the staged ones
  int64_t max_position() const { return max_position_; }            // of those on the device

  // Where the ranks meet over the tail of the context, as the device sees it; before steps that
  // have one.
  void SetTail(const TailMemory& tail) { tail_ = tail; }

  // Where CPU ranks find what is chosen for them, as the device sees it; likewise.
  void SetChoices(const ChoiceMemory& choices) { ffn_.SetChoices(choices); }

  absl::Status Upload();
  // Both into partial(); nothing where the rank has no attention, or no neurons, of the layer. The
  // first also chooses the layer's neurons for CPU ranks, where that is this rank's.
  // max_position: at least that of the step, on the device. meet: of a step with a tail, called
  // twice: Exchange::Meet in the stream's order; else null.
  absl::Status Attention(int64_t layer, int64_t max_position,
                         const std::function<absl::Status()>& meet);
  // host: needed by steps that stream neurons.
  absl::Status Ffn(int64_t layer, const StreamHost& host = {});
  // Of the tokens that want some, and on the device.
  absl::Status Logits(int64_t n_rows);
  // Behind it: what the step wants of them goes to the exchange.
  absl::Status LeaveLogits(const Step& step, Exchange* exchange);
  // Asks for what the step counted; CollectCounts, when the device has done all, takes it.
  absl::Status EndStep();
  void CollectCounts() { ffn_.CollectCounts(); }
  const std::vector<FfnCounts>& counts() const { return ffn_.counts(); }
  // Told by Upload, Attention, Ffn, LeaveLogits and EndStep what they do; parts are for the caller
  // to start.
  DeviceTrace& trace() { return *trace_; }

  bool has_attention(int64_t layer) const { return shard_->layers()[layer].n_kv_heads > 0; }
  // Of the staged step.
  bool has_neurons(int64_t layer) const {
    return shard_->layers()[layer].n_neurons > 0 || ffn_.streams(layer);
  }
  const ModelConfig& config() const { return config_; }
  const Options& options() const { return options_; }
  float* h() const { return buffers_.h; }              // [n_tokens, d_model], the residual stream
  float* partial() const { return buffers_.partial; }  // [n_tokens, d_model]
  float* staged_h() const { return staged_.x; }        // the host's, that Upload makes h

 private:
  // Addresses in the workspace.
  struct Buffers {
    float* h;                      // [max_tokens, d_model]
    float* normed;                 // [max_tokens, d_model]
    kernels::DeviceRows input;     // of normed, or of attention's output
    kernels::DeviceToken* tokens;  // [max_tokens]
    float *cos, *sin;              // [max_tokens, n_rot / 2]
    float *q, *k, *v, *attention;  // [max_tokens, heads of the layer with the most]
    float* attention_state;        // [max_tokens, such heads, 2]: max, sum
    float* partial;                // [max_tokens, d_model]
    float* next_h;                 // [max_tokens, d_model], where this rank decides for others
    float* logits;                 // [max_logit_rows, vocab rows]
    LogitCandidate* candidates;    // [max_logit_rows]
    float* log_sum;                // top_k's, read by nobody
    uint8_t* top_k;                // its workspace
    uint8_t* attend;               // its workspace
    uint8_t* ffn;                  // device_ffn.h's
    uint8_t* product;              // device_product.h's
  };
  // In pinned memory of the host, as long as the device's.
  struct Staged {
    float* x;
    kernels::DeviceToken* tokens;
    float *cos, *sin;
    uint8_t* ffn;
  };
  struct Sizes {
    int64_t q_width = 0, kv_width = 0, vocab = 0, attend_bytes = 0, ffn_bytes = 0;
    bool decides = false;                           // for CPU ranks, in some layer
    std::optional<DeviceProduct::Options> product;  // of prompts; none: steps are too small for it
  };

  DeviceLayers(const DeviceShard* shard, Device* device, const Options& options, uint8_t* host,
               std::unique_ptr<DeviceTrace> trace);
  static Sizes SizesOf(const ModelConfig& config, const ShardSpec& spec, const Options& options,
                       const DeviceFfn::Sizes& ffn);
  // Lay buffers out from `base` and return how long they are; null: only that.
  static int64_t Place(const ModelConfig& config, const Sizes& sizes, const Options& options,
                       uint8_t* base, Buffers* buffers);
  static int64_t PlaceStaged(const ModelConfig& config, const Options& options,
                             const DeviceFfn::Sizes& ffn, uint8_t* base, Staged* staged);
  Buffers PlaceInWorkspace() const;
  Staged PlaceOnHost(uint8_t* host) const;

  // Of tokens of x [n_tokens, d_model], into normed and input from row `to` on.
  absl::Status Norm(const float* x, int64_t n_tokens, const float* weight, int64_t to = 0);
  // out = weights times x [n_tokens, width], which is in int8 in buffers_.input, too.
  absl::Status Product(const kernels::DeviceMatrix& weights, const float* x, int64_t width,
                       int64_t n_tokens, float* out, int64_t out_stride);
  // Attention's parts.
  absl::Status Project(const DeviceLayer& layer);
  absl::Status LeaveForTail(int64_t index);
  absl::Status Attend(const DeviceLayer& layer, int64_t max_position);
  absl::Status MergeTail(int64_t index);
  absl::Status AttentionOutput(const DeviceLayer& layer);
  absl::Status Decide(int64_t index);
  int32_t n_heads(const DeviceLayer& layer) const {
    return static_cast<int32_t>(layer.n_kv_heads * config_.group_size());
  }
  // Rows of q, k and v, or of the output: of prompts by GEMM.
  struct Rows {
    const kernels::DeviceMatrix& weights;
    float* out;
  };
  absl::Status LeaveCandidates(int64_t n_rows, LogitCandidate* to);
  absl::Status Products(std::initializer_list<Rows> all, const float* x, int64_t width);

  const DeviceShard* shard_;
  Device* device_;
  const kernels::DeviceOps& ops_;
  const Options options_;
  const ModelConfig& config_;
  const DeviceFfn::Sizes ffn_sizes_;
  const Sizes sizes_;
  const Buffers buffers_;
  const Staged staged_;
  std::unique_ptr<DeviceProduct> product_;  // null: steps are too small for it
  const std::unique_ptr<DeviceTrace> trace_;
  DeviceFfn ffn_;
  std::vector<double> frequencies_;  // RoPE's
  TailMemory tail_;
  // Of the step being run.
  std::vector<StepToken> tokens_;
  int64_t n_tokens_ = 0, max_position_ = 0;
};

}  // namespace thermocline
