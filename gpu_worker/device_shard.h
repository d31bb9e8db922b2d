// A GPU rank's weights and KV cache: read from the GGUF by a plan, brought into the kernels' layout
// on the host, in one allocation of device memory. What is computed with them is device_forward.h.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "common/gguf/gguf_file.h"
#include "common/model/config.h"
#include "common/model/predictor.h"
#include "common/model/sparsity.h"
#include "common/model/tensor_table.h"
#include "common/worker/shard_spec.h"
#include "gpu_worker/device.h"
#include "gpu_worker/neuron_streamer.h"
#include "gpu_worker/packing.h"

namespace thermocline {

struct DevicePredictor {
  kernels::DeviceMatrix fc1, fc2;  // [rank, d_model], [n_neurons, rank]
  const float* bias = nullptr;     // [n_neurons], or null
  // Of neurons of CPU ranks for which this one decides, [n_decided, rank], [n_decided].
  kernels::DeviceMatrix decided_fc2;
  const float* decided_bias = nullptr;
  bool has_relu = false;
  bool reads_residual = false;
};

struct DeviceLayer {
  int64_t n_kv_heads = 0;
  int64_t n_neurons = 0;
  int64_t n_decided = 0;
  Sparsity mode = Sparsity::kOff;
  float threshold = 0;                    // of the mode's score
  const float* attention_norm = nullptr;  // [d_model]
  const float* ffn_norm = nullptr;        // [d_model]
  kernels::DeviceMatrix q, k, v, o;       // o: [d_model, n_heads * d_head]
  kernels::DeviceMatrix gate, up;         // [n_neurons, d_model]
  kernels::DeviceNeurons down;            // [n_neurons, d_model]
  DevicePredictor predictor;              // mode predict
  kernels::DeviceKv kv;
};

class DeviceShard {
 public:
  struct Options {
    int64_t n_slots = 1;
    int64_t n_ctx = 1;
    int64_t workspace_bytes = 0;  // of a step, kept for its buffers
    int64_t budget_bytes = 0;     // of device memory for all of it; 0: what is free
    kernels::DeviceKvType kv_type = kernels::DeviceKvType::kF16;
    int64_t graph_bytes = 0;  // of the budget, left to the graphs of steps
  };
  // Lays it out and takes the memory; nothing is read yet. predictor: needed by mode predict, else
  // null. The files must outlive the loading, and the model's the shard, if the spec streams
  // neurons. ResourceExhausted, with what each part takes and the flags that lower it, when it is
  // more than the budget.
  static absl::StatusOr<std::unique_ptr<DeviceShard>> Create(
      const GgufFile* file, const ModelConfig& config, const ShardSpec& spec,
      const Options& options, Device* device, const GgufFile* predictor_file = nullptr,
      const Predictor* predictor = nullptr);
  // on_progress(bytes done, bytes in all); false ends the loading (Cancelled).
  absl::Status Load(const std::function<bool(int64_t, int64_t)>& on_progress);

  const ModelConfig& config() const { return config_; }
  const ShardSpec& spec() const { return spec_; }
  const std::vector<DeviceLayer>& layers() const { return layers_; }
  Range vocab() const { return spec_.vocab; }
  const kernels::DeviceMatrix& output() const { return output_; }  // [vocab rows, d_model]
  const float* output_norm() const { return output_norm_; }
  const float* rope_factors() const {  // [n_rot / 2], on the host; or null
    return rope_factors_.empty() ? nullptr : rope_factors_.data();
  }
  NeuronStreamer* streamer() const { return streamer_.get(); }  // null: nothing is streamed
  uint8_t* workspace() const { return workspace_; }
  int64_t workspace_bytes() const { return options_.workspace_bytes; }
  int64_t weight_bytes() const { return weight_bytes_; }
  int64_t kv_bytes() const { return kv_bytes_; }
  int64_t buffer_bytes() const { return buffer_bytes_; }  // all the rest, but for graphs

 private:
  // Something to be packed on the host and sent. place gets its address on the device.
  struct Job {
    PackJob pack;
    std::function<void(uint8_t*)> place;
    uint8_t* at = nullptr;  // on the device
  };

  DeviceShard() = default;
  absl::Status PlanLayer(int64_t index, const ShardSpec::Layer& spec);
  absl::Status PlanPredictor(int64_t index, const ShardSpec::Layer& spec);
  void PlanDown(int64_t index, const ShardSpec::Layer& spec);
  void AddMatrix(const GgufFile* file, const GgufTensor* tensor, const std::vector<Range>& rows,
                 Range cols, kernels::DeviceMatrix* matrix);
  void AddMatrix(Role role, int64_t layer, const std::vector<Range>& rows, Range cols,
                 kernels::DeviceMatrix* matrix);
  void AddVector(const GgufFile* file, const GgufTensor* tensor, const std::vector<Range>& elements,
                 const float** vector);
  absl::Status TakeMemory();
  // Lays one layer's KV cache out from `base` and returns how long it is; null: only that.
  int64_t PlaceKv(uint8_t* base, kernels::DeviceKv* kv) const;
  const GgufTensor* Tensor(Role role, int64_t layer) const;

  const GgufFile* file_ = nullptr;
  const GgufFile* predictor_file_ = nullptr;
  const Predictor* predictor_ = nullptr;
  Device* device_ = nullptr;
  Options options_;
  ModelConfig config_;
  ShardSpec spec_;
  std::vector<float> rope_factors_;
  std::vector<DeviceLayer> layers_;
  kernels::DeviceMatrix output_;
  const float* output_norm_ = nullptr;
  uint8_t *kv_ = nullptr, *workspace_ = nullptr;
  std::vector<Job> jobs_;
  std::unique_ptr<NeuronStreamer> streamer_;
  int64_t weight_bytes_ = 0, kv_bytes_ = 0, buffer_bytes_ = 0;
};

}  // namespace thermocline
