// Imports what PowerInfer keeps beside its models: activation/activation_N.pt, how often each
// neuron fired, and *.generated.gpuidx, which neurons its solver put on the GPU.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/gguf/gguf_file.h"
#include "common/model/config.h"
#include "common/model/profile.h"

namespace thermocline {

// The values of a tensor with one dimension that torch.save wrote by itself: floats of 16, 32, 64
// bits, integers of 32, 64. Errors name the path.
absl::StatusOr<std::vector<double>> ReadTorchVector(const std::string& path);
// The same from bytes in memory.
absl::StatusOr<std::vector<double>> ParseTorchVector(absl::Span<const uint8_t> bytes,
                                                     const std::string& name);

// A profile with firing counts alone, from a folder with activation_N.pt [d_ff] for each layer. The
// files do not tell the number of tokens: counts are kept and the largest one stands for it;
// shares of 0 to 1 become counts in a million tokens. Errors name the file and say what is wrong.
absl::StatusOr<Profile> ImportActivationStatistics(const std::string& folder,
                                                   const ModelConfig& config,
                                                   const std::string& model_hash);

// The neurons that a gpuidx file puts on the GPU, ascending. [n_layers]. PowerInfer's exporter
// lists its statistics in text order (0, 1, 10, 11, ..., 2), so in a file of more than 10 layers a
// layer's set is often another's: good for showing what PowerInfer would do, not for placing.
absl::StatusOr<std::vector<std::vector<int32_t>>> ReadGpuIndex(const GgufFile& file,
                                                               const ModelConfig& config);

}  // namespace thermocline
