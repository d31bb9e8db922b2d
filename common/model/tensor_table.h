// The one table of a model's tensors: role, name in the file, shape in named dimensions, required
// or optional. Adding an architecture means adding rows here.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/gguf/gguf_file.h"
#include "common/model/config.h"

namespace thermocline {

enum class Role {
  kTokenEmbedding,
  kOutputNorm,
  kOutput,
  kRopeFreqs,
  kAttentionNorm,
  kAttentionQ,
  kAttentionK,
  kAttentionV,
  kAttentionOutput,
  kFfnNorm,
  kFfnGate,
  kFfnUp,
  kFfnDown,
  kFfnDownT,  // [d_ff, d_model]: PowerInfer's, in place of kFfnDown
};

// The name in the file: "blk.3.ffn_up.weight"; layer is ignored for tensors outside the layers.
std::string TensorName(Role role, int64_t layer = 0);

// Checks that every required tensor of the architecture is there with its shape and a type that can
// be computed (vectors must be F32), and lists all that is missing or wrong in one error. Of
// kFfnDown and kFfnDownT each layer has one. A predictor's tensors are checked in predictor.h.
absl::Status CheckTensors(const GgufFile& file, const ModelConfig& config);

// The tensor of a role; null only for optional ones (kOutput then means tied: use kTokenEmbedding)
// and for one of kFfnDown, kFfnDownT.
const GgufTensor* FindRole(const GgufFile& file, Role role, int64_t layer = 0);

}  // namespace thermocline
