// Reads the pickle of one tensor, as torch.save writes it: what the tensor is and which storage
// holds it. Nothing that a pickle names is run; what is not a plain tensor is refused.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace thermocline {

struct TorchTensor {
  std::string storage_class;  // "FloatStorage"
  std::string storage_key;    // its file in the archive: data/KEY
  int64_t n_storage = 0;      // elements that the storage holds
  int64_t offset = 0;         // of the tensor's first element in it
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;  // in elements
};

// InvalidArgument, or Unimplemented for what a pickle may hold and a plain tensor does not; without
// the file's name.
absl::StatusOr<TorchTensor> ReadTorchPickle(absl::Span<const uint8_t> bytes);

}  // namespace thermocline
