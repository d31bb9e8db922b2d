// One step over a GPU rank's shard: launches between the exchanges, from one host thread. The plain
// path: each exchange copies the partial sum to the host and waits for it, and the residual stream
// goes back. The feed-forward part is device_ffn.h. Knows nothing of gRPC, files or sessions.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "absl/status/status.h"
#include "common/exchange/exchange.h"
#include "gpu_worker/device.h"
#include "gpu_worker/device_ffn.h"
#include "gpu_worker/device_shard.h"

namespace thermocline {

class DeviceForward {
 public:
  struct Options {
    int64_t max_tokens = 1;
    int64_t max_logit_rows = 1;
    int64_t n_slots = 1;
    int64_t n_ctx = 1;
  };
  // What a step needs on the device beside weights and KV cache. predictor: the one that the shard
  // is created with, or null.
  static int64_t WorkspaceBytes(const ModelConfig& config, const ShardSpec& spec,
                                const Options& options, const Predictor* predictor = nullptr);
  // Both must outlive the object; the shard has a workspace of as many bytes.
  DeviceForward(DeviceShard* shard, Device* device, const Options& options);

  // Runs steps until the exchange ends: OK after a shutdown, else why it was given up.
  absl::Status Serve(Exchange& exchange);
  // What its steps did; as of the last step that ended. May be called from any thread.
  struct Totals {
    uint64_t steps = 0;
    std::vector<FfnCounts> ffn;  // [n_layers]; zeros in layers that leave nothing out
  };
  Totals totals() const;

 private:
  // Addresses in the workspace.
  struct Buffers {
    float* h;                      // [max_tokens, d_model], the residual stream
    float* normed;                 // [max_tokens, d_model]
    kernels::DeviceRows input;     // of normed, or of attention's output
    kernels::DeviceToken* tokens;  // [max_tokens]
    float *cos, *sin;              // [max_tokens, n_rot / 2]
    float *q, *k, *v, *attention;  // [max_tokens, heads of the layer with the most]
    float* partial;                // [max_tokens, d_model]
    float* logits;                 // [max_logit_rows, vocab rows]
    uint8_t* attend;               // its workspace
    uint8_t* ffn;                  // device_ffn.h's
  };
  struct Sizes {
    int64_t q_width = 0, kv_width = 0, vocab = 0, attend_bytes = 0, ffn_bytes = 0;
  };
  static Sizes SizesOf(const ModelConfig& config, const ShardSpec& spec, const Options& options,
                       const DeviceFfn::Sizes& ffn);
  // Lays the buffers out from `base` and returns how long they are; null: only that.
  static int64_t Place(const ModelConfig& config, const Sizes& sizes, const Options& options,
                       uint8_t* base, Buffers* buffers);
  Buffers PlaceInWorkspace() const;

  absl::Status RunStep(const Step& step, Exchange& exchange);
  absl::Status LoadInputs(const Step& step);
  absl::Status Attention(const DeviceLayer& layer);
  absl::Status Ffn(int64_t index);
  absl::Status Output(const Step& step, Exchange& exchange);
  // The partial sum, if there is one, meets the others'; h is theirs and ours on both sides.
  absl::Status Combine(bool has_partial, Exchange& exchange);
  // Of tokens of h, into normed and input from row `to` on.
  absl::Status Norm(int64_t first_token, int64_t n_tokens, const float* weight, int64_t to = 0);
  absl::Status Product(const kernels::DeviceMatrix& weights, const float* x, int64_t width,
                       int64_t n_tokens, float* out, int64_t out_stride);

  DeviceShard* shard_;
  Device* device_;
  const kernels::DeviceOps& ops_;
  const Options options_;
  const ModelConfig& config_;
  const DeviceFfn::Sizes ffn_sizes_;
  const Sizes sizes_;
  const Buffers buffers_;
  DeviceFfn ffn_;
  std::vector<double> frequencies_;  // RoPE's
  // Of the step being run.
  std::vector<StepToken> tokens_;
  int64_t n_tokens_ = 0, max_position_ = 0;
  std::vector<kernels::DeviceToken> places_;  // what the device is sent; as long as copies run
  std::vector<float> cos_, sin_;
  std::vector<float> h_;  // [max_tokens, d_model], the host's
  mutable std::mutex totals_mutex_;
  Totals totals_;  // guarded by totals_mutex_
};

}  // namespace thermocline
