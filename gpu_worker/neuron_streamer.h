// Neurons of CPU ranks on a GPU that computes them in long prompts (Plan::stream_tokens): read from
// the file, packed and sent chunk by chunk, each computed before the next one is sent. While the
// device works on one, the host packs the next. What is computed is device_ffn.h's.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/gguf/gguf_file.h"
#include "common/worker/shard_spec.h"
#include "gpu_worker/device.h"
#include "gpu_worker/packing.h"

namespace thermocline {

// Of a chunk, a block more or less. 14 MB of a 70B's layer with 4.5 bits a weight: half a
// millisecond of a link of 26 GB/s, long beside the start of the threads that pack it.
inline constexpr int64_t kStreamNeurons = 1024;

// What the host does meanwhile.
struct StreamHost {
  std::function<void()> working;        // says now and then that it has not stopped
  std::function<absl::Status()> await;  // returns when the device has done all of the stream
};

class NeuronStreamer {
 public:
  // Neurons of the largest chunk; 0: nothing is streamed.
  static int64_t MaxNeurons(const ShardSpec& spec);
  // All must outlive the object. The spec streams.
  NeuronStreamer(const GgufFile* file, const ShardSpec* spec, int64_t d_model, Device* device);

  int64_t area_bytes() const { return area_bytes_; }  // of the device, for a chunk at a time
  // area: 256-byte aligned. Takes as much pinned memory twice.
  absl::Status SetUp(uint8_t* area);

  int64_t n_chunks(int64_t layer) const { return static_cast<int64_t>(chunks_[layer].size()); }
  struct Chunk {
    kernels::DeviceMatrix gate, up;  // [n_neurons, d_model]
    kernels::DeviceNeurons down;
  };
  // On the device, behind what is in its stream, until the next call.
  absl::StatusOr<Chunk> Load(int64_t layer, int64_t chunk, const StreamHost& host);

 private:
  std::vector<PackJob> JobsOf(int64_t layer, const std::vector<Range>& neurons, Chunk* chunk) const;

  const GgufFile* const file_;
  const int64_t d_model_;
  Device* const device_;
  std::vector<std::vector<std::vector<Range>>> chunks_;  // [n_layers][n_chunks], neurons
  int64_t area_bytes_ = 0;
  uint8_t* area_ = nullptr;
  std::array<uint8_t*, 2> images_ = {};  // pinned; the first one is not on its way
};

}  // namespace thermocline
