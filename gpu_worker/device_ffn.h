// The feed-forward part of a GPU rank's layers: which of its neurons a step computes, and these. No
// norm, no exchange (device_forward.h).
//
// What is decided stays on the device: the next launch reads the list of rows and its length there.
// ffn_down adds neurons in an order that no list changes, those left out being passed over: so
// exact has the bits of off, and a token's do not depend on the others of its step.
//
// Steps of kGemmTokens or more multiply all gates and ups and add all neurons by GEMM, in f16: of
// so many tokens hardly a neuron is needed by none. What a token's mask rules out adds nothing
// there either. Their bits are not those of smaller steps.
//
// Of CPU ranks' neurons that such a step streams (neuron_streamer.h) all are computed, as in mode
// off. They are not counted.
//
// Mode sketch is computed as exact is: the hot neurons' gates are read in full.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "common/exchange/exchange.h"
#include "common/worker/ffn_counts.h"
#include "gpu_worker/device.h"
#include "gpu_worker/device_product.h"
#include "gpu_worker/device_shard.h"
#include "gpu_worker/device_trace.h"

namespace thermocline {

class DeviceFfn {
 public:
  struct Sizes {
    int64_t max_tokens = 1;
    int64_t max_neurons = 0;   // of a layer
    int64_t max_streamed = 0;  // of a chunk
    int64_t max_decided = 0;   // of a layer's, for CPU ranks
    int64_t max_rank = 0;      // of a layer's predictor
    int64_t d_model = 0;
    int64_t n_layers = 0;
    int64_t max_width() const { return std::max(max_neurons, max_streamed); }
  };
  // predictor: the one that the shard will be created with, or null.
  static Sizes SizesOf(const ModelConfig& config, const ShardSpec& spec, const Predictor* predictor,
                       int64_t max_tokens);
  static Sizes SizesOf(const DeviceShard& shard, int64_t max_tokens);
  static int64_t WorkspaceBytes(const Sizes& sizes);
  static int64_t HostBytes(const Sizes& sizes);
  // All must outlive the object; product: of prompts, null where no step is one; workspace: of
  // WorkspaceBytes, on the device; host: of HostBytes, pinned; 256-byte aligned.
  DeviceFfn(const DeviceShard* shard, Device* device, DeviceProduct* product, DeviceTrace* trace,
            const Sizes& sizes, uint8_t* workspace, uint8_t* host);

  // A layer's input, on the device.
  struct Input {
    const float* residual;  // [n_tokens, d_model]
    const float* normed;    // [n_tokens, d_model]
    kernels::DeviceRows q;  // the same in int8
  };
  // Puts what a step says where BeginStep takes it from.
  void Stage(const std::vector<StepToken>& tokens);
  absl::Status BeginStep();
  // Whether the staged step does: on this rank, and of this layer.
  bool streams() const {
    return shard_->streamer() != nullptr && n_tokens_ >= shard_->spec().stream_tokens;
  }
  bool streams(int64_t layer) const { return streams() && shard_->streamer()->n_chunks(layer) > 0; }
  // Whether this rank chooses neurons of CPU ranks, for whom choices are; before such a step.
  void SetChoices(const ChoiceMemory& choices) { choices_ = choices; }
  bool decides(int64_t layer) const { return shard_->layers()[layer].n_decided > 0 && !streams(); }
  // Chooses them. Before Run, which takes over what was computed.
  absl::Status Decide(int64_t layer, const Input& input);
  // Into out [n_tokens, d_model], this rank's partial sum, of a layer with neurons or one that
  // streams. host: needed by steps that stream.
  absl::Status Run(int64_t layer, const Input& input, float* out, const StreamHost& host);
  // Asks for what the step counted; when the device has done all, CollectCounts adds it to
  // counts(). Nothing of steps that stream: CPU ranks do nothing in them, so the shares of firings
  // would be those of GPUs alone.
  absl::Status EndStep();
  void CollectCounts();
  // [n_layers]; zeros in layers that leave nothing out. A row that several tokens need is one of
  // the bytes once a step, with its share of ffn_down's scales.
  const std::vector<FfnCounts>& counts() const { return counts_; }

 private:
  // What a layer's decisions add to: ones of the masks, lengths of the lists.
  struct DeviceCounts {
    uint64_t chosen[2];  // by a predictor
    uint64_t fired[2];
  };
  // Addresses in the workspace.
  struct Buffers {
    // [max_tokens, neuron_stride]; up: a predictor's scores, too; both: of streamed neurons, too
    float *gate, *up;
    float* hidden;                   // [max_tokens, rank_stride], of a predictor
    kernels::DeviceRows residual_q;  // [max_tokens, d_model], where a predictor reads it
    kernels::DeviceRows hidden_q;    // [max_tokens, rank]
    float* decided;                  // [kDownTokens, RoundUp(max_decided, 4)]: scores
    int32_t *rows, *n_rows;          // [max_neurons], [1]: those chosen, then those that fire
    uint8_t* mask;                   // [max_tokens, n_neurons]: the same for each token
    uint8_t* classes;                // [max_tokens], TokenMode
    DeviceCounts* counts;            // [n_layers], of the step
    uint8_t* down;                   // add_neurons' workspace
  };
  struct Staged {
    uint8_t* classes;      // [max_tokens]
    DeviceCounts* counts;  // [n_layers], as the device sends them
  };
  static int64_t Place(const Sizes& sizes, uint8_t* base, Buffers* buffers);
  static int64_t PlaceStaged(const Sizes& sizes, uint8_t* base, Staged* staged);

  absl::Status RunOwn(int64_t index, const Input& input, float* out);
  absl::Status RunStreamed(int64_t index, const Input& input, float* out, const StreamHost& host);
  // A predictor's, of the whole step.
  absl::Status Hidden(const DeviceLayer& layer, const Input& input);
  kernels::DeviceRows HiddenRows(const DevicePredictor& predictor) const;
  // Both put their choice into rows, n_rows and mask.
  absl::Status Choose(const DeviceLayer& layer, DeviceCounts* counts);
  absl::Status Fire(const DeviceLayer& layer, DeviceCounts* counts);
  absl::Status Product(const kernels::DeviceMatrix& weights, const kernels::RowList& list,
                       const kernels::DeviceRows& q, const float* x, int64_t x_stride, float* out,
                       int64_t out_stride);
  bool is_prompt() const { return product_ != nullptr && n_tokens_ >= kGemmTokens; }
  absl::Status GatesAndUps(const DeviceLayer& layer, const Input& input, DeviceCounts* counts);
  absl::Status GatesAndUpsOfPrompt(const DeviceLayer& layer, const Input& input,
                                   DeviceCounts* counts);
  absl::Status Gated(int64_t n_neurons, const uint8_t* mask);
  absl::Status Down(const DeviceLayer& layer, float* out);
  absl::Status DownOfPrompt(const DeviceLayer& layer, float* out);

  const DeviceShard* shard_;
  Device* device_;
  DeviceProduct* product_;
  DeviceTrace* trace_;
  const kernels::DeviceOps& ops_;
  const Sizes sizes_;
  const int64_t neuron_stride_, rank_stride_;
  const bool is_sparse_;  // some layer leaves neurons out, here or on a CPU rank
  Buffers buffers_;
  Staged staged_;
  ChoiceMemory choices_;  // as the device sees it
  // Of the step being run.
  int64_t n_tokens_ = 0;
  std::vector<FfnCounts> counts_;  // [n_layers]
};

}  // namespace thermocline
